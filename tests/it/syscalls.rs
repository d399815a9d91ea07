//! The program dies at, or is refused, its n-th system call: after each, every item is whole at one
//! end at least, nothing half is visible, and the next run finishes. A kill loses no page cache, so
//! the order of syncs is looked at in a trace.

use std::path::PathBuf;

use crate::support::data::noise;
use crate::support::trace::{Injection, Traced, traced};
use crate::support::{End, Sandbox, Tree, ends, tree};

const FILE_TO_FILE: (End, End) = (End::File, End::File);
const S3_TO_FILE: (End, End) = (End::S3, End::File);
const FILE_TO_S3: (End, End) = (End::File, End::S3);

/// What the steps of an item do to the paths that a test knows.
const CALLS: &[&str] = &[
    "openat",
    "read",
    "close",
    "fstat",
    "newfstatat",
    "getdents64",
    "mkdirat",
    "fsync",
    "renameat",
    "unlinkat",
];

/// One item in memory, one in a staging file.
fn items() -> Tree {
    tree(&[("a", noise(100, 1)), ("b", noise(150_000, 2))])
}

fn sandbox(direction: (End, End)) -> Sandbox {
    let needs_minio = direction != FILE_TO_FILE;
    let sandbox = if needs_minio {
        Sandbox::new()
    } else {
        Sandbox::without_minio()
    };
    sandbox.fill(direction.0, "in", &items());
    sandbox.rule("r", &format!("{}, concurrency: 1", ends(direction)));
    sandbox
}

/// Without our temporaries, which nobody else sees.
fn visible(tree: Tree) -> Tree {
    let all = tree.0.into_iter();
    Tree(
        all.filter(|(name, _)| !name.starts_with(".bots-mover-"))
            .collect(),
    )
}

/// Each item is whole at one end at least and nothing else is there; a further run finishes.
#[track_caller]
fn nothing_is_lost(sandbox: &Sandbox, direction: (End, End), when: &str) {
    let source = sandbox.at_end(direction.0, "in");
    let dest = visible(sandbox.at_end(direction.1, "out"));
    assert_eq!(source.union(dest), items(), "{when}");
    sandbox.run().succeeds();
    assert_eq!(
        visible(sandbox.at_end(direction.1, "out")),
        items(),
        "{when}"
    );
    assert!(sandbox.at_end(direction.0, "in").is_empty(), "{when}");
}

/// The paths of the rule; what the program's start reads is not among them.
fn paths(sandbox: &Sandbox) -> Vec<PathBuf> {
    let below = ["", "in", "in/a", "in/b", "out", "out/a", "out/b"];
    let base = below.iter().map(|path| sandbox.base().join(path));
    base.chain([sandbox.tmp()]).collect()
}

/// Lets each call of the kind fail, one in each run, until a run makes fewer of them; says how many
/// there were.
fn failed_at_each_call(direction: (End, End), call: &str, error: &str) -> usize {
    let everywhere = [
        "write", "pwrite64", "fsync", "close", "pread64", "sendto", "recvfrom", "connect",
    ];
    for number in 1.. {
        let sandbox = sandbox(direction);
        let paths = if everywhere.contains(&call) {
            Vec::new()
        } else {
            paths(&sandbox)
        };
        let failing = Injection::Fail(call, error, number);
        let traced = traced(&sandbox, call, &paths, Some(failing));
        let Some(injected) = traced.injected() else {
            traced.run.succeeds();
            return number - 1;
        };
        let when = format!("{error} at {injected}");
        let dest = sandbox.at_end(direction.1, "out");
        if traced.run.code() == 0 {
            assert_eq!(
                dest,
                items(),
                "{when}: it said that all is well: {:?}",
                traced.run
            );
        }
        // What cannot be removed stays; it is removed by a later run.
        if call != "unlinkat" {
            assert_eq!(dest, visible(dest.clone()), "{when}: a temporary is left");
        }
        nothing_is_lost(&sandbox, direction, &when);
    }
    unreachable!("some run makes no call to fail")
}

#[test]
fn a_fault_of_any_call_fails_the_item_and_loses_nothing() {
    for (call, error) in [
        ("openat", "EIO"),
        ("openat", "ENOSPC"),
        ("mkdirat", "EDQUOT"),
        ("read", "EIO"),
        ("write", "ENOSPC"),
        ("pwrite64", "ENOSPC"),
        ("close", "ENOSPC"),
        ("fsync", "EIO"),
        ("renameat", "EROFS"),
        ("unlinkat", "EACCES"),
        ("newfstatat", "EIO"),
        ("fstat", "EIO"),
        ("getdents64", "EIO"),
    ] {
        let made = failed_at_each_call(FILE_TO_FILE, call, error);
        assert!(made > 0, "{call} is not called");
    }
}

#[test]
fn a_fault_of_any_call_on_the_way_in_or_out_loses_nothing() {
    for direction in [S3_TO_FILE, FILE_TO_S3] {
        for (call, error) in [
            ("openat", "EMFILE"),
            ("write", "ENOSPC"),
            ("pwrite64", "EIO"),
            ("pread64", "EIO"),
            ("sendto", "ECONNRESET"),
            ("recvfrom", "ECONNRESET"),
            ("connect", "ECONNREFUSED"),
        ] {
            failed_at_each_call(direction, call, error);
        }
    }
}

#[test]
fn a_full_disk_that_is_told_only_by_close_fails_the_item() {
    // Which of the closes it is, is known only from a trace; each is tried.
    for number in 1.. {
        let sandbox = sandbox(FILE_TO_FILE);
        let failing = Some(Injection::Fail("close", "ENOSPC", number));
        let traced = traced(&sandbox, "close", &[], failing);
        let injected = traced.injected().expect("some close is of a .part file");
        if injected.contains(".part") {
            traced.run.fails().says("failed", &["No space"]);
            let left = sandbox.files("out");
            assert!(
                left.names().iter().all(|name| !name.contains(".part")),
                "{left:?}"
            );
            nothing_is_lost(&sandbox, FILE_TO_FILE, &injected);
            return;
        }
    }
}

#[test]
fn a_stale_handle_is_mended_by_opening_again() {
    let mut mended = 0;
    for call in CALLS.iter().filter(|call| **call != "close") {
        for number in 1.. {
            let sandbox = sandbox(FILE_TO_FILE);
            let failing = Some(Injection::Fail(call, "ESTALE", number));
            let traced = traced(&sandbox, call, &paths(&sandbox), failing);
            let Some(injected) = traced.injected() else {
                break;
            };
            // Staging is local. A listing is tried again by the rule's own retries.
            let staging = injected.contains("/tmp/#") || injected.contains("O_TMPFILE");
            let listing = traced
                .run
                .of("failed")
                .iter()
                .all(|line| line.get("src").is_empty());
            let run = &traced.run;
            assert!(run.code() == 0 || staging || listing, "{injected}: {run:?}");
            nothing_is_lost(&sandbox, FILE_TO_FILE, &injected);
            mended += 1;
        }
    }
    assert!(mended > 10, "{mended} calls were stale");
}

/// The trace of one run that moves one item; it succeeded.
fn trace_of_one(direction: (End, End), out_exists: bool) -> Traced {
    let sandbox = if direction == FILE_TO_FILE {
        Sandbox::without_minio()
    } else {
        Sandbox::new()
    };
    sandbox.fill(direction.0, "in", &tree(&[("a", "1")]));
    if out_exists {
        sandbox.mkdir("deep/out");
    }
    let (from, to) = (direction.0.at("in"), direction.1.at("deep/out"));
    sandbox.rule("r", &format!("src: {from}, dest: {to}"));
    let calls = "fsync,fdatasync,renameat,renameat2,linkat,unlinkat,mkdirat,sendto,recvfrom";
    let traced = traced(&sandbox, calls, &[], None);
    traced.run.succeeds();
    traced
}

#[test]
fn the_file_is_synced_before_its_name_and_the_name_before_the_source_goes() {
    for (direction, removal) in [
        (FILE_TO_FILE, ["unlinkat(", "/in/a"]),
        (S3_TO_FILE, ["sendto(", "DELETE /"]),
    ] {
        for out_exists in [false, true] {
            let trace = trace_of_one(direction, out_exists);
            let file = trace.find(&["fsync(", ".part>"]);
            let name = trace.find(&["rename", ".part", "\"a\""]);
            let directory = trace.find(&["fsync(", "/deep/out>"]);
            let gone = trace.find(&removal);
            let order = [file, name, directory, gone];
            assert!(order.is_sorted(), "{order:?}:\n{}", trace.calls.join("\n"));
            if !out_exists {
                let made = trace.find(&["mkdirat(", "\"out\""]);
                let parents = [
                    trace.find(&["fsync(", "/deep>"]),
                    trace.find(&["fsync(", "/base>"]),
                ];
                let kept = parents
                    .iter()
                    .all(|parent| made < *parent && *parent < gone);
                assert!(
                    kept,
                    "{made} {parents:?} {gone}:\n{}",
                    trace.calls.join("\n")
                );
            }
        }
    }
}

#[test]
fn a_file_goes_only_after_the_server_said_that_it_has_it() {
    let trace = trace_of_one(FILE_TO_S3, false);
    let put = trace.find(&["sendto(", "PUT /"]);
    let gone = trace.find(&["unlinkat(", "/in/a"]);
    let answers = trace.calls.iter().enumerate().skip(put);
    let answered = answers
        .filter(|(_, call)| call.contains("HTTP/1.1 200"))
        .map(|(at, _)| at);
    assert!(
        answered.into_iter().next().is_some_and(|at| at < gone),
        "{}",
        trace.calls.join("\n")
    );
}

#[test]
fn a_directory_whose_filesystem_knows_no_sync_is_no_error() {
    let sandbox = Sandbox::without_minio();
    sandbox.write("in/a", "1");
    sandbox.mkdir("out");
    sandbox.rule("r", &ends(FILE_TO_FILE));
    let out = [sandbox.base().join("out")];
    let failing = Some(Injection::FailAll("fsync", "EINVAL"));
    let traced = traced(&sandbox, "fsync", &out, failing);
    assert!(
        traced.injected().is_some_and(|call| call.contains("/out>")),
        "{:?}",
        traced.calls
    );
    traced.run.succeeds();
    assert_eq!(sandbox.files("out").len(), 1);
}

#[test]
fn nothing_is_replaced_where_the_filesystem_cannot_refuse_in_a_rename() {
    for (there, code) in [(false, 0), (true, 1)] {
        let sandbox = Sandbox::without_minio();
        sandbox.write("in/a", "new");
        if there {
            sandbox.write("out/a", "old");
        }
        sandbox.rule("r", &format!("{}, if_exists: fail", ends(FILE_TO_FILE)));
        let failing = Some(Injection::FailAll("renameat2", "EINVAL"));
        let traced = traced(&sandbox, "renameat2", &[], failing);
        assert!(
            there || traced.injected().is_some(),
            "it asks the filesystem first"
        );
        traced.run.exits(code);
        let expected = if there { "old" } else { "new" };
        assert_eq!(sandbox.files("out"), tree(&[("a", expected)]));
        assert_eq!(sandbox.files("in").len(), usize::from(there));
    }
}

#[test]
fn a_filesystem_without_unnamed_files_stages_all_the_same() {
    for number in 1.. {
        let sandbox = Sandbox::new();
        sandbox.write("in/a", noise(150_000, 1));
        sandbox.rule("r", &ends((End::File, End::S3)));
        let failing = Some(Injection::Fail("openat", "EOPNOTSUPP", number));
        let traced = traced(&sandbox, "openat", &[sandbox.tmp()], failing);
        let injected = traced.injected().expect("some call opens the staging file");
        if injected.contains("O_TMPFILE") {
            traced.run.succeeds();
            assert!(sandbox.bucket().has("out/a"));
            assert_eq!(std::fs::read_dir(sandbox.tmp()).unwrap().count(), 0);
            return;
        }
    }
}
