//! The program is killed at each of its system calls that a crash could come between: every item is
//! whole at one end at least, nothing half is to be seen, and the next run completes the work.
//!
//! strace delivers the signal when a thread enters its n-th call of a kind, so the call itself is
//! not made. A kill loses nothing that the kernel has, so this proves nothing about syncs; their
//! order is looked at in `syscalls`.

use std::path::PathBuf;

use crate::support::data::noise;
use crate::support::process::Run;
use crate::support::torture::Totals;
use crate::support::trace::{Injection, traced};
use crate::support::{DIRECTIONS, End, Sandbox, Tree, tree};

/// The calls that change a file, a directory or a connection, or wait for one; and whether they are
/// counted on the rule's own paths only. Where they are not, the calls by which the program starts
/// count too, in the thread that makes them.
const CALLS: [(&str, bool); 18] = [
    ("openat", true),
    ("fstat", true),
    ("getdents64", true),
    ("newfstatat", true),
    ("read", true),
    ("close", true),
    ("mkdirat", true),
    ("renameat", true),
    ("renameat2", true),
    ("linkat", true),
    ("unlinkat", true),
    // Temporaries have names that nobody knows beforehand.
    ("fsync", false),
    ("write", false),
    ("pwrite64", false),
    ("pread64", false),
    ("connect", false),
    ("sendto", false),
    ("recvfrom", false),
];

/// No run has so many calls of one kind: it would loop.
const CALLS_MAX: usize = 200;

/// A small one, one that is staged in a file, and an empty one.
fn items() -> Tree {
    tree(&[
        ("a", noise(10, 1)),
        ("d/b", noise(200_000, 2)),
        ("c", Vec::new()),
    ])
}

/// All that the rule reads and writes, but for temporaries.
fn paths(sandbox: &Sandbox) -> Vec<PathBuf> {
    let below = ["", "/a", "/c", "/d", "/d/b"];
    let ends = ["in", "out"].into_iter().flat_map(|end| {
        let all = below.iter().map(move |path| format!("{end}{path}"));
        all.map(|path| sandbox.base().join(path))
    });
    ends.chain([sandbox.base(), sandbox.tmp()]).collect()
}

/// Fails unless there were so many kills at least: a harness that never fired would prove nothing.
#[track_caller]
fn kill_everywhere(direction: (End, End), keys: &str, kills_min: usize) {
    let mut totals = Totals::default();
    for (call, on_paths) in CALLS {
        for number in 1.. {
            let sandbox = Sandbox::new();
            sandbox.fill(direction.0, "in", &items());
            let src = direction.0.at("in").replace('}', ", recursive: true}");
            let ends = format!("src: {src}, dest: {}", direction.1.at("out"));
            sandbox.rule("r", &format!("{ends}, concurrency: 1, {keys}"));
            let paths = if on_paths {
                paths(&sandbox)
            } else {
                Vec::new()
            };
            let run = traced(&sandbox, call, &paths, Some(Injection::Kill(call, number))).run;
            let when = format!("{call} number {number} of {direction:?} {keys}\n{run:?}");
            let left = sandbox.at_end(direction.0, "in");
            let there = delivered(&sandbox, direction);
            log_is_true(&run, &left, &there, &when);
            let twice = there.0.keys().filter(|name| left.0.contains_key(*name));
            let twice = twice.count();
            if keys.contains("copy") {
                assert_eq!(left, items(), "{when}");
            } else if !run.status.success() {
                totals.duplicates += twice;
            }
            assert_eq!(left.union(there), items(), "{when}");
            if run.status.success() {
                break;
            }
            assert!(number < CALLS_MAX, "{when}");
            totals.tried += 1;
            totals.fired += 1;
            sandbox.run().succeeds();
            assert_eq!(delivered(&sandbox, direction), items(), "{when}");
            let left = sandbox.at_end(direction.0, "in");
            assert_eq!(left.is_empty(), !keys.contains("copy"), "{when}");
        }
    }
    let kills = totals.fired;
    assert!(kills >= kills_min, "there were {kills} kills only");
    let (from, to) = direction;
    let mode = keys
        .split(", ")
        .next()
        .unwrap_or(keys)
        .replace("mode: ", "");
    totals.tell(&format!("crash/{from:?}-{to:?}/{mode}").to_lowercase());
}

/// What the run told before it died had happened by then.
#[track_caller]
fn log_is_true(run: &Run, left: &Tree, there: &Tree, when: &str) {
    for line in run.of("moved").into_iter().chain(run.of("copied")) {
        let name = line.get("src").split("/in/").last().unwrap_or_default();
        assert!(there.0.contains_key(name), "{line:?} is not true: {when}");
        let is_left = left.0.contains_key(name);
        assert_eq!(
            is_left,
            line.event() == "copied",
            "{line:?} is not true: {when}"
        );
    }
}

/// What a reader sees at the destination: not our own temporaries.
fn delivered(sandbox: &Sandbox, direction: (End, End)) -> Tree {
    let hidden = |name: &str| name.split('/').any(|part| part.starts_with(".bots-mover-"));
    let all = sandbox.at_end(direction.1, "out").0.into_iter();
    Tree(all.filter(|(name, _)| !hidden(name)).collect())
}

#[test]
fn a_kill_at_any_system_call_of_a_move_in_loses_nothing() {
    kill_everywhere(DIRECTIONS[0], "mode: move", 40);
}

#[test]
fn a_kill_at_any_system_call_of_a_move_out_loses_nothing() {
    kill_everywhere(DIRECTIONS[1], "mode: move", 40);
}

#[test]
fn a_kill_at_any_system_call_of_a_move_between_buckets_loses_nothing() {
    kill_everywhere(DIRECTIONS[2], "mode: move", 25);
}

#[test]
fn a_kill_at_any_system_call_of_a_move_between_directories_loses_nothing() {
    kill_everywhere(DIRECTIONS[3], "mode: move, if_exists: fail", 60);
}

#[test]
fn a_kill_at_any_system_call_of_a_copy_in_keeps_the_source() {
    kill_everywhere(DIRECTIONS[0], "mode: copy, if_exists: skip", 40);
}

#[test]
fn a_kill_at_any_system_call_of_a_copy_out_keeps_the_source() {
    kill_everywhere(DIRECTIONS[1], "mode: copy, if_exists: fail", 40);
}

#[test]
fn a_kill_at_any_system_call_of_a_copy_between_buckets_keeps_the_source() {
    kill_everywhere(DIRECTIONS[2], "mode: copy, if_exists: keep_both", 25);
}

#[test]
fn a_kill_at_any_system_call_of_a_copy_between_directories_keeps_the_source() {
    kill_everywhere(DIRECTIONS[3], "mode: copy, if_exists: overwrite", 60);
}
