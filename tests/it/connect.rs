//! `check --connect`: each thing that a run needs is missed by itself, told with what to do about
//! it, and no trace of the trying stays, however it ends.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;

use crate::support::minio::SECRET_KEY;
use crate::support::process::Run;
use crate::support::proxy::Request;
use crate::support::sandbox::{chmod, set_mtime};
use crate::support::tree::files_below;
use crate::support::{End, Fault, Gate, Op, Sandbox, Tree, When, ends, tree};

const CONNECT: [&str; 2] = ["check", "--connect"];

const S3_TO_S3: (End, End) = (End::S3, End::S3);
const FILE_TO_FILE: (End, End) = (End::File, End::File);

/// What a run from s3 to s3 needs where nothing is replaced.
const ALL_RIGHTS: [&str; 5] = [
    "s3:ListBucket",
    "s3:GetObject",
    "s3:GetObjectTagging",
    "s3:PutObject",
    "s3:DeleteObject",
];

/// The lines that begin with this verdict, each as `probe: text`.
fn lines(run: &Run, verdict: &str) -> Vec<String> {
    let prefix = format!("  {verdict} ");
    let found = run.stdout.lines().filter_map(|line| {
        let (probe, text) = line.strip_prefix(&prefix)?.trim_start().split_once(' ')?;
        Some(format!("{probe}: {}", text.trim_start()))
    });
    found.collect()
}

/// Exit 1, and the failed probes are these and no others; each says these texts.
#[track_caller]
fn fails_by(run: &Run, expected: &[(&str, &[&str])]) {
    run.exits(1);
    let failed = lines(run, "FAIL");
    assert_eq!(failed.len(), expected.len(), "{run:?}");
    for (line, (probe, texts)) in failed.iter().zip(expected) {
        assert!(
            line.starts_with(&format!("{probe}: ")),
            "{probe} in {run:?}"
        );
        for text in *texts {
            assert!(line.contains(text), "{text:?} in {run:?}");
        }
    }
}

/// All files below the base and `TMPDIR`, hidden ones too.
fn files(sandbox: &Sandbox) -> Tree {
    sandbox.files(".").union(files_below(&sandbox.tmp()))
}

/// A rule that needs every right: `if_exists: fail` also reads at the destination.
fn with_every_need() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.bucket().put("in/a", "1");
    sandbox.rule("r", &ends(S3_TO_S3));
    sandbox
}

#[test]
fn each_right_that_is_missing_is_told_by_itself() {
    for (right, probe) in [
        ("s3:ListBucket", "list"),
        ("s3:GetObject", "read"),
        ("s3:GetObjectTagging", "tags"),
        ("s3:PutObject", "put"),
        ("s3:DeleteObject", "delete"),
    ] {
        let sandbox = with_every_need();
        let others: Vec<_> = ALL_RIGHTS
            .into_iter()
            .filter(|other| *other != right)
            .collect();
        sandbox.only_allowed(&others);
        let run = sandbox.run_with(&CONNECT);
        fails_by(
            &run,
            &[(probe, &["403 AccessDenied", right, sandbox.bucket().name()])],
        );
        assert_eq!(lines(&run, "ok").len(), 3 + 4 + 2, "{run:?}");
        assert_eq!(sandbox.bucket().keys(), ["in/a"]);
    }
}

#[test]
fn who_has_each_right_and_no_other_passes_and_leaves_no_trace() {
    let sandbox = with_every_need();
    sandbox.only_allowed(&ALL_RIGHTS);
    let proxy = sandbox.proxy();
    let run = sandbox.run_with(&CONNECT);
    run.exits(0).never_says(SECRET_KEY).never_says("X-Amz");
    assert_eq!(lines(&run, "FAIL"), [""; 0], "{run:?}");
    assert_eq!(sandbox.bucket().keys(), ["in/a"]);
    for request in proxy.requests() {
        let hidden = request.key.contains("/.bots-mover-probe-");
        // MinIO only says whether tags may be read of an object that is there.
        let tags = request.query.iter().any(|(name, _)| name == "tagging");
        assert!(request.op == Op::List || tags || hidden, "{request}");
    }
    // Then a run has what it needs as well.
    sandbox.run().succeeds();
    assert_eq!(sandbox.bucket().keys(), ["out/a"]);
}

#[test]
fn only_rights_that_the_rules_need_are_tried() {
    for (rule, rights, ops) in [
        (
            "src: {type: s3, path: in}, dest: {type: file, path: out}, mode: copy, \
             if_exists: skip",
            &ALL_RIGHTS[..2],
            &[Op::List, Op::Get][..],
        ),
        (
            "src: {type: file, path: in}, dest: {type: s3, path: out}",
            &["s3:PutObject"],
            // One list to knock, which need not be allowed.
            &[Op::List, Op::Put],
        ),
        (
            "src: {type: file, path: in}, dest: {type: s3, path: out}, if_exists: keep_both",
            // Where nothing can be listed, the server is asked by a key that is not there.
            &["s3:PutObject", "s3:GetObject"],
            &[Op::List, Op::Get, Op::Put],
        ),
    ] {
        let sandbox = Sandbox::new();
        sandbox.rule("r", rule).only_allowed(rights);
        let proxy = sandbox.proxy();
        sandbox.run_with(&CONNECT).exits(0);
        let mut asked: Vec<Op> = proxy.requests().iter().map(|r| r.op).collect();
        asked.sort_unstable();
        asked.dedup();
        assert_eq!(asked, ops, "{rule}");
    }
}

#[test]
fn a_place_of_several_rules_is_tried_once_for_all_of_them() {
    let sandbox = Sandbox::new();
    sandbox.rule(
        "one",
        &format!("{}, mode: copy, if_exists: skip", ends(S3_TO_S3)),
    );
    sandbox.rule(
        "two",
        "src: {type: s3, path: in}, dest: {type: s3, path: more}",
    );
    let proxy = sandbox.proxy();
    let run = sandbox.run_with(&CONNECT);
    run.exits(0);
    assert!(run.stdout.contains("/in/  (one, two)\n"), "{run:?}");
    assert_eq!(proxy.count(Op::Delete), 1, "of the rule that moves");
    // To put at each of two places, and to replace nothing at one of them.
    assert_eq!(proxy.count(Op::Put), 3);
    sandbox
        .run_with(&["check", "--connect", "--rule", "one"])
        .exits(0);
    assert_eq!(proxy.count(Op::Delete), 1, "of the rule that was left out");
}

#[test]
fn what_no_request_survives_is_told_once_and_the_directories_are_tried_all_the_same() {
    type Spoil = fn(&Sandbox);
    let cases: [(Spoil, &str, &[&str]); 4] = [
        (
            |s| _ = s.env("MINIO_SECRET_KEY", "wrong-secret"),
            "credentials",
            &["SignatureDoesNotMatch", "MINIO_SECRET_KEY"],
        ),
        (
            |s| _ = s.env("MINIO_ACCESS_KEY", "wrong-key"),
            "credentials",
            &["InvalidAccessKeyId", "MINIO_ACCESS_KEY"],
        ),
        (
            |s| _ = s.env("MINIO_ENDPOINT", "127.0.0.1:1"),
            "reach",
            &["127.0.0.1:1", "connection refused", "MINIO_ENDPOINT"],
        ),
        (
            |s| _ = s.env("MINIO_ENDPOINT", "no-such-host.invalid"),
            "reach",
            &["host not found: no-such-host.invalid", "MINIO_ENDPOINT"],
        ),
    ];
    for (spoil, probe, texts) in cases {
        let sandbox = Sandbox::new();
        sandbox.mkdir("out");
        sandbox.rule("r", &ends((End::S3, End::File)));
        sandbox.rule("s", &ends(S3_TO_S3));
        spoil(&sandbox);
        let run = sandbox.run_with(&CONNECT);
        fails_by(&run, &[(probe, texts)]);
        run.never_says("wrong-secret");
        let good = lines(&run, "ok");
        assert!(
            good.iter().any(|line| line.starts_with("write:")),
            "{run:?}"
        );
        assert!(files(&sandbox).is_empty());
    }
}

#[test]
fn a_page_for_people_is_no_server() {
    let sandbox = Sandbox::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    sandbox.env("MINIO_ENDPOINT", listener.local_addr().unwrap().to_string());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 13\r\n\r\n\
                  <html></html>",
            );
        }
    });
    sandbox.rule("r", &ends(S3_TO_S3));
    fails_by(
        &sandbox.run_with(&CONNECT),
        &[("reach", &["not the console"])],
    );
}

#[test]
fn a_bucket_that_is_not_there_is_told_once_for_each_place() {
    let sandbox = Sandbox::new();
    sandbox.rule(
        "r",
        "src: {type: s3, bucket: not-there, path: in}, dest: {type: s3, path: out}",
    );
    let run = sandbox.run_with(&CONNECT);
    fails_by(
        &run,
        &[("bucket", &["not-there", "NoSuchBucket", "never made here"])],
    );
    assert!(
        lines(&run, "ok").contains(&"put: allowed".to_owned()),
        "{run:?}"
    );
    assert!(
        !sandbox
            .bucket()
            .keys()
            .iter()
            .any(|key| key.contains("probe"))
    );
}

#[test]
fn the_clock_is_compared_with_the_servers() {
    for (minutes_off, verdict, side) in [
        (0, "ok", "clock: this clock"),
        (5, "note", "s behind the server's"),
        (-5, "note", "s ahead of the server's"),
        (20, "FAIL", "s behind the server's"),
        (-20, "FAIL", "s ahead of the server's"),
    ] {
        let sandbox = Sandbox::new();
        sandbox.rule("r", &ends(S3_TO_S3));
        let proxy = sandbox.proxy();
        let bent = Fault::bend(move |answer| {
            let time = jiff::Timestamp::now() + jiff::SignedDuration::from_mins(minutes_off);
            let date = time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
            answer.set("Date", &date);
        });
        proxy.fault(When::any().always(), bent);
        let run = sandbox.run_with(&CONNECT);
        run.exits(i32::from(verdict == "FAIL"));
        let told = lines(&run, verdict);
        let clock = told.iter().find(|line| line.starts_with("clock: "));
        assert!(
            clock.is_some_and(|line| line.contains(side)),
            "{side} in {run:?}"
        );
    }
}

/// The server's own words for a presigned request that is too old, or from the future.
#[test]
fn a_request_refused_for_its_time_blames_the_clock_and_not_the_credentials() {
    for said in ["Request has expired", "Request is not valid yet"] {
        let sandbox = Sandbox::new();
        sandbox.rule("r", &ends(S3_TO_S3));
        let proxy = sandbox.proxy();
        proxy.fault(
            When::any().always(),
            Fault::bend(move |answer| {
                answer.status = 403;
                answer.set("Date", "Sat, 21 Nov 2020 10:00:00 GMT");
                answer.body =
                    format!("<Error><Code>AccessDenied</Code><Message>{said}</Message></Error>")
                        .into();
            }),
        );
        let run = sandbox.run_with(&CONNECT);
        fails_by(
            &run,
            &[("clock", &[said, "set the clock", "s ahead of the server's"])],
        );
        assert!(
            lines(&run, "note")
                .iter()
                .any(|line| line.starts_with("credentials: not judged")),
            "{run:?}"
        );
    }
}

/// It cannot happen with MinIO; then the object is taken away again, and the answer not believed.
#[test]
fn a_probe_that_was_stored_is_removed() {
    let sandbox = with_every_need();
    let proxy = sandbox.proxy();
    let bucket = sandbox.bucket().clone();
    proxy.fault(
        When::op(Op::Put),
        Fault::bend(move |answer| {
            assert_eq!(answer.status, 400, "the server compares the MD5");
            bucket.put("out/stored", "as if");
            answer.status = 200;
        }),
    );
    let run = sandbox.run_with(&CONNECT);
    fails_by(&run, &[("put", &["MD5"])]);
    let requests = proxy.requests();
    let put = requests.iter().find(|request| request.op == Op::Put);
    let key = &put.expect("a put").key;
    let removed = |request: &&Request| request.op == Op::Delete && request.key == *key;
    assert_eq!(requests.iter().filter(removed).count(), 1);
}

#[test]
fn a_directory_that_may_not_be_written_fails_where_the_rules_write_or_remove() {
    for (mode, failing) in [("move", 2), ("copy", 1)] {
        let sandbox = Sandbox::without_minio();
        for name in ["in", "out"] {
            sandbox.mkdir(name);
        }
        sandbox.unprivileged();
        for name in ["in", "out"] {
            chmod(&sandbox.base().join(name), 0o555);
        }
        sandbox.rule(
            "r",
            &format!("{}, mode: {mode}, if_exists: skip", ends(FILE_TO_FILE)),
        );
        let run = sandbox.run_with(&CONNECT);
        let source: (&str, &[&str]) = ("write", &["base/in", "ermission", "running as uid"]);
        let dest: (&str, &[&str]) = ("write", &["base/out", "ermission", "running as uid"]);
        fails_by(&run, &[source, dest][2 - failing..]);
    }
}

#[test]
fn a_directory_that_may_not_be_read_or_searched_fails_as_a_source() {
    for (mode, says) in [(0o333, "open the directory"), (0o666, "look at what is in")] {
        let sandbox = Sandbox::without_minio();
        let path = sandbox.mkdir("in");
        sandbox.unprivileged();
        chmod(&path, mode);
        sandbox.rule(
            "r",
            &format!("{}, mode: copy, if_exists: skip", ends(FILE_TO_FILE)),
        );
        fails_by(&sandbox.run_with(&CONNECT), &[("list", &[says, "base/in"])]);
    }
}

#[test]
fn owner_mode_room_and_our_own_numbers_are_told() {
    let sandbox = Sandbox::without_minio();
    let path = sandbox.mkdir("out");
    sandbox.mkdir("in");
    sandbox.unprivileged();
    chmod(&path, 0o2770);
    sandbox.rule("r", &ends(FILE_TO_FILE));
    let run = sandbox.run_with(&CONNECT);
    run.exits(0);
    let told = lines(&run, "ok");
    let (uid, gid) = if rustix::process::geteuid().is_root() {
        (1000, 1000)
    } else {
        let ids = (rustix::process::geteuid(), rustix::process::getegid());
        (ids.0.as_raw(), ids.1.as_raw())
    };
    let owner = format!("owner: uid {uid} gid {gid} mode 2770; running as uid {uid} gid {gid}");
    assert!(told.contains(&owner), "{owner} in {run:?}");
    let room = told
        .iter()
        .filter(|line| line.starts_with("space: ") && line.ends_with(" free"));
    assert_eq!(room.count(), 3, "in, out, TMPDIR: {run:?}");
}

#[test]
fn a_sticky_directory_of_somebody_else_is_noted() {
    // Only root can give a directory away.
    let root = rustix::process::geteuid().is_root();
    let sandbox = Sandbox::without_minio();
    sandbox.mkdir("in");
    sandbox.unprivileged();
    let out = sandbox.mkdir("out");
    fs::set_permissions(&out, fs::Permissions::from_mode(0o1777)).unwrap();
    sandbox.rule("r", &ends(FILE_TO_FILE));
    let run = sandbox.run_with(&CONNECT);
    run.exits(0);
    let noted = lines(&run, "note")
        .iter()
        .any(|line| line.contains("sticky"));
    assert_eq!(noted, root, "{run:?}");
}

/// A quota stands for a full disk: no file may hold a single byte.
#[test]
fn a_full_disk_fails_and_leaves_nothing() {
    let sandbox = Sandbox::without_minio();
    sandbox.mkdir("in");
    sandbox.mkdir("out");
    sandbox.file_size_limit_blocks("0");
    sandbox.rule("r", &ends(FILE_TO_FILE));
    let run = sandbox.run_with(&CONNECT);
    fails_by(
        &run,
        &[
            ("write", &["write a hidden file in", "base/in"]),
            ("write", &["write a hidden file in", "base/out"]),
            ("write", &["write a staging file in", "TMPDIR"]),
        ],
    );
    assert!(files(&sandbox).is_empty(), "{:?}", files(&sandbox));
}

#[test]
fn what_a_run_makes_or_passes_over_is_a_note_and_what_it_cannot_make_a_failure() {
    let sandbox = Sandbox::without_minio();
    sandbox.rule(
        "r",
        "src: {type: file, path: in}, dest: {type: file, path: new/out}",
    );
    let run = sandbox.run_with(&CONNECT);
    run.exits(0);
    let notes = lines(&run, "note");
    assert_eq!(notes.len(), 2, "{run:?}");
    assert!(
        notes[0].contains("not there: the rule has nothing to do"),
        "{run:?}"
    );
    let base = sandbox.base();
    let made = format!(
        "directory: not there: a run makes it, in {}",
        base.display()
    );
    assert_eq!(notes[1], made);
    assert!(
        fs::read_dir(&base).unwrap().next().is_none(),
        "nothing was made"
    );

    sandbox.unprivileged();
    chmod(&base, 0o555);
    let run = sandbox.run_with(&CONNECT);
    fails_by(
        &run,
        &[(
            "directory",
            &["make a directory in", "base: Permission denied"],
        )],
    );
}

#[test]
fn a_link_that_leads_nowhere_cannot_be_made_a_directory() {
    let sandbox = Sandbox::without_minio();
    std::os::unix::fs::symlink("nowhere", sandbox.base().join("out")).unwrap();
    sandbox.rule(
        "r",
        "src: {type: file, path: in}, dest: {type: file, path: out/deep}",
    );
    fails_by(
        &sandbox.run_with(&CONNECT),
        &[("directory", &["base/out", "symbolic link"])],
    );
    sandbox.run_with(&["check"]).exits(0);
}

#[test]
fn a_base_that_is_not_there_and_a_file_in_place_of_a_directory_fail() {
    let sandbox = Sandbox::without_minio();
    sandbox.mkdir("in");
    sandbox.write("out", "a file");
    sandbox.rule("r", &ends(FILE_TO_FILE));
    let run = sandbox.run_with(&CONNECT);
    fails_by(
        &run,
        &[(
            "directory",
            &["base/out", "a file or a symbolic link stands"],
        )],
    );

    fs::remove_dir_all(sandbox.base()).unwrap();
    let missing: (&str, &[&str]) = ("base", &["base_file_path", "is the volume mounted?"]);
    fails_by(&sandbox.run_with(&CONNECT), &[missing, missing]);
}

#[test]
fn a_staging_directory_that_is_not_there_fails() {
    let sandbox = Sandbox::without_minio();
    sandbox.env("TMPDIR", sandbox.path("no-tmp"));
    sandbox.rule("r", &ends(FILE_TO_FILE));
    fails_by(
        &sandbox.run_with(&CONNECT),
        &[("write", &["no-tmp", "TMPDIR must name"])],
    );
}

#[test]
fn the_rules_are_told_first_and_without_connect_nothing_is_asked() {
    let sandbox = Sandbox::new();
    sandbox.rule("r", &ends(S3_TO_S3));
    let proxy = sandbox.proxy();
    let plain = sandbox.run_with(&["check"]);
    assert!(proxy.requests().is_empty());
    let run = sandbox.run_with(&CONNECT);
    run.exits(0);
    let rest = run
        .stdout
        .strip_prefix(&plain.stdout)
        .expect("the table is first");
    assert!(rest.starts_with("MinIO  http://127.0.0.1:"), "{run:?}");
    assert!(rest.ends_with("\nconnect  nothing failed\n"), "{run:?}");
}

#[test]
fn connect_needs_the_variables_that_a_run_needs() {
    let sandbox = Sandbox::new();
    sandbox
        .rule("r", &ends(S3_TO_S3))
        .env("MINIO_SECRET_KEY", "");
    sandbox.run_with(&CONNECT).is_refused(&["MINIO_SECRET_KEY"]);
    sandbox.forget_rules().rule("r", &ends(FILE_TO_FILE));
    let run = sandbox.run_with(&CONNECT);
    run.exits(0);
    assert!(!run.stdout.contains("MinIO"), "{run:?}");
}

#[test]
fn a_signal_ends_it_behind_the_probe_at_work() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let sandbox = with_every_need();
        let proxy = sandbox.proxy();
        let gate = Gate::default();
        proxy.fault(When::op(Op::Delete), Fault::Hold(gate.clone()));
        let running = sandbox.start_with(&CONNECT);
        gate.wait_for_arrivals(1);
        running.signal_heard(signal);
        gate.open();
        let run = sandbox.finish(running);
        run.exits(code);
        assert!(run.stdout.contains("ok    delete"), "{run:?}");
        assert!(run.stdout.contains("not all was tried"), "{run:?}");
        assert_eq!(proxy.count(Op::Put), 0);
        assert_eq!(sandbox.bucket().keys(), ["in/a"]);
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let sandbox = with_every_need();
    let proxy = sandbox.proxy();
    let gate = Gate::default();
    proxy.fault(When::op(Op::Put), Fault::Hold(gate.clone()));
    let running = sandbox.start_with(&CONNECT);
    gate.wait_for_arrivals(1);
    running.signal_heard(Signal::TERM);
    let start = Instant::now();
    running.signal(Signal::TERM);
    let run = sandbox.finish(running);
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    run.exits(143);
    gate.open();
    assert!(
        !sandbox
            .bucket()
            .keys()
            .iter()
            .any(|key| key.contains("probe"))
    );
}

#[test]
fn signals_at_any_moment_leave_no_trace() {
    for step in 0..20 {
        let sandbox = Sandbox::without_minio();
        for number in 0..20 {
            let (from, to) = (format!("in{number}"), format!("out{number}"));
            sandbox.mkdir(&from);
            sandbox.mkdir(&to);
            let ends = format!("src: {}, dest: {}", End::File.at(&from), End::File.at(&to));
            sandbox.rule(&format!("r{number}"), &ends);
        }
        let running = sandbox.start_with(&CONNECT);
        running.wait_for("base/in0");
        std::thread::sleep(Duration::from_micros(step * 300));
        running.signal_if_alive(Signal::TERM);
        running.signal_if_alive(Signal::INT);
        let run = sandbox.finish(running);
        assert!([0, 143, 130].contains(&run.code()), "{run:?}");
        assert!(files(&sandbox).is_empty(), "{step}: {:?}", files(&sandbox));
    }
}

/// A kill at the write finds a hidden file in the directory of the moment: once in the source, and
/// with the source done, in the destination.
#[test]
fn what_a_kill_leaves_a_later_run_clears_up() {
    for (mode, place) in [("move", "in"), ("copy", "out")] {
        let sandbox = Sandbox::without_minio();
        sandbox.write("in/a", "1");
        sandbox.mkdir("out");
        sandbox.rule(
            "r",
            &format!("{}, mode: {mode}, if_exists: skip", ends(FILE_TO_FILE)),
        );
        sandbox.dies_at_first_write();
        let run = sandbox.run_with(&CONNECT);
        assert_eq!(run.code(), 128 + Signal::XFSZ.as_raw(), "{run:?}");
        let left = sandbox.files(".");
        let left: Vec<_> = left
            .names()
            .into_iter()
            .filter(|name| *name != "in/a")
            .collect();
        assert_eq!(left.len(), 1, "{left:?}");
        assert!(
            left[0].starts_with(&format!("{place}/.bots-mover-")),
            "{left:?}"
        );
        let long_ago = SystemTime::now() - Duration::from_secs(7200);
        set_mtime(&sandbox.base().join(left[0]), long_ago);

        sandbox.launch_plainly().run().succeeds();
        let expected: &[&str] = if mode == "move" {
            &["out/a"]
        } else {
            &["in/a", "out/a"]
        };
        assert_eq!(sandbox.files(".").names(), expected);
    }
}

#[test]
fn a_kill_at_any_moment_leaves_only_what_a_later_run_clears_up() {
    for step in 0..20 {
        let sandbox = Sandbox::without_minio();
        sandbox.fill(End::File, "in", &tree(&[("a", "1")]));
        sandbox.mkdir("out");
        sandbox.rule("r", &ends(FILE_TO_FILE));
        let running = sandbox.start_with(&CONNECT);
        running.wait_for("base/in");
        std::thread::sleep(Duration::from_micros(step * 300));
        running.signal_if_alive(Signal::KILL);
        sandbox.finish(running);
        let long_ago = SystemTime::now() - Duration::from_secs(7200);
        for name in files(&sandbox)
            .names()
            .into_iter()
            .filter(|name| *name != "in/a")
        {
            set_mtime(&sandbox.base().join(name), long_ago);
        }
        sandbox.run().succeeds();
        assert_eq!(files(&sandbox).names(), ["out/a"], "{step}");
    }
}
