//! The program is killed at each of its system calls that a crash could come between: every item is
//! whole at one end at least, nothing half is to be seen, and the next run completes the work.
//!
//! strace delivers the signal when a thread enters its n-th call of a kind, so the call itself is
//! not made. A kill loses nothing that the kernel has, so this proves nothing about syncs; the
//! order of these is proved in `local_store`.

use crate::support::data::noise;
use crate::support::{DIRECTIONS, End, Sandbox, Tree, tree};

/// The calls that change a file, a directory or a connection, or wait for one.
const CALLS: [&str; 11] = [
    "openat",
    "mkdirat",
    "write",
    "fsync",
    "close",
    "renameat",
    "renameat2",
    "unlinkat",
    "linkat",
    "sendto",
    "recvfrom",
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

/// How many kills there were.
fn kill_everywhere(direction: (End, End), keys: &str) -> usize {
    let mut kills = 0;
    for call in CALLS {
        for number in 1..=CALLS_MAX {
            let sandbox = Sandbox::new();
            sandbox.fill(direction.0, "in", &items());
            let src = direction.0.at("in").replace('}', ", recursive: true}");
            let dest = direction.1.at("out");
            sandbox.rule(
                "r",
                &format!("src: {src}, dest: {dest}, concurrency: 1, {keys}"),
            );
            let inject = format!("inject={call}:signal=KILL:when={number}");
            let trace = format!("trace={call}");
            sandbox.traced_by(&[
                "strace",
                "-f",
                "-qq",
                "-o",
                "/dev/null",
                "-e",
                &trace,
                "-e",
                &inject,
            ]);
            let run = sandbox.run();
            sandbox.traced_by(&[]);
            let when = format!("{call} number {number} of {direction:?} {keys}\n{run:?}");
            let (left, there) = (
                sandbox.at_end(direction.0, "in"),
                delivered(&sandbox, direction),
            );
            if keys.contains("copy") {
                assert_eq!(left, items(), "{when}");
                assert_eq!(there.clone().union(items()), items(), "{when}");
            } else {
                assert_eq!(left.union(there), items(), "{when}");
            }
            if run.status.success() {
                break;
            }
            assert!(number < CALLS_MAX, "{when}");
            kills += 1;
            sandbox.run().succeeds();
            assert_eq!(delivered(&sandbox, direction), items(), "{when}");
            let left = sandbox.at_end(direction.0, "in");
            assert_eq!(left.is_empty(), !keys.contains("copy"), "{when}");
        }
    }
    kills
}

/// A harness that never fired would prove nothing.
#[track_caller]
fn at_least(expected: usize, kills: usize) {
    assert!(kills >= expected, "there were {kills} kills only");
}

/// What a reader sees at the destination: not our own temporaries.
fn delivered(sandbox: &Sandbox, direction: (End, End)) -> Tree {
    let hidden = |name: &str| name.split('/').any(|part| part.starts_with(".bots-mover-"));
    let all = sandbox.at_end(direction.1, "out").0.into_iter();
    Tree(all.filter(|(name, _)| !hidden(name)).collect())
}

#[test]
fn a_kill_at_any_system_call_of_a_move_in_loses_nothing() {
    at_least(30, kill_everywhere(DIRECTIONS[0], "mode: move"));
}

#[test]
fn a_kill_at_any_system_call_of_a_move_out_loses_nothing() {
    at_least(30, kill_everywhere(DIRECTIONS[1], "mode: move"));
}

#[test]
fn a_kill_at_any_system_call_of_a_move_between_buckets_loses_nothing() {
    at_least(30, kill_everywhere(DIRECTIONS[2], "mode: move"));
}

#[test]
fn a_kill_at_any_system_call_of_a_move_between_directories_loses_nothing() {
    at_least(
        30,
        kill_everywhere(DIRECTIONS[3], "mode: move, if_exists: fail"),
    );
}

#[test]
fn a_kill_at_any_system_call_of_a_copy_keeps_the_source() {
    at_least(
        30,
        kill_everywhere(DIRECTIONS[0], "mode: copy, if_exists: skip"),
    );
}
