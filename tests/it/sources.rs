//! A source changes under the program, at each of its steps: what is published is whole, what came
//! new is not lost, and nothing that is no regular file is followed or removed.
//!
//! One window stays open, and is left out here: Linux cannot remove a file on condition, nor can
//! MinIO an object. What is changed between the last look at a source and its removal, two calls
//! that follow each other, goes with it.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::support::data::noise;
use crate::support::torture::Totals;
use crate::support::trace::stopped;
use crate::support::{DIRECTIONS, End, Fault, Op, Sandbox, When, ends, tree};

/// Read in more than one piece.
const BODY_BYTES: usize = 200_000;

/// What somebody does to a file.
struct Change {
    what: &'static str,
    act: fn(&Path),
    /// What is there then, where it is a regular file.
    then: fn() -> Option<Vec<u8>>,
}

fn first() -> Vec<u8> {
    noise(BODY_BYTES, 1)
}

fn second() -> Vec<u8> {
    noise(BODY_BYTES, 2)
}

/// Moves what is there aside, as a rename over it would.
fn clear(path: &Path) {
    fs::remove_file(path).expect("it is there until somebody takes it");
}

const CHANGES: [Change; 8] = [
    Change {
        what: "overwritten",
        act: |path| fs::write(path, second()).unwrap(),
        then: || Some(second()),
    },
    Change {
        what: "appended",
        act: |path| {
            let mut file = fs::File::options().append(true).open(path).unwrap();
            file.write_all(b" and more").unwrap();
        },
        then: || Some([first(), b" and more".to_vec()].concat()),
    },
    Change {
        what: "truncated",
        act: |path| {
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_len(1000).unwrap();
        },
        then: || Some(first()[..1000].to_vec()),
    },
    Change {
        what: "replaced",
        act: |path| {
            let other = path.with_file_name(".other");
            fs::write(&other, second()).unwrap();
            fs::rename(other, path).unwrap();
        },
        then: || Some(second()),
    },
    Change {
        what: "a symlink",
        act: |path| {
            clear(path);
            symlink("../../secret", path).unwrap();
        },
        then: || None,
    },
    Change {
        what: "a FIFO",
        act: |path| {
            clear(path);
            mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        },
        then: || None,
    },
    Change {
        what: "a directory",
        act: |path| {
            clear(path);
            fs::create_dir(path).unwrap();
        },
        then: || None,
    },
    Change {
        what: "deleted",
        act: clear,
        then: || None,
    },
];

/// The calls by which the program comes to know of a file, reads it, and lets go of it. It is
/// stopped behind each of them.
const CALLS: [&str; 6] = [
    "getdents64",
    "newfstatat",
    "openat",
    "fstat",
    "read",
    "close",
];

/// Changes the one file of a rule behind the `number`-th call of a kind that touches it or its
/// directory. `None` where there are fewer calls; else whether it did, and whether the old contents
/// arrived though others were left.
fn change_behind(to: End, call: &str, number: usize, change: &Change) -> Option<(bool, bool)> {
    let direction = (End::File, to);
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("secret"), "not for anybody").unwrap();
    let path = sandbox.write("in/a", first());
    sandbox.rule("r", &ends(direction));
    let mut changed = false;
    let paths = [sandbox.base().join("in"), path.clone()];
    let (run, stopped) = stopped(&sandbox, call, number, &paths, |_| {
        let published = !sandbox.at_end(to, "out").is_empty();
        // The window, or the item is gone already.
        if !(published && call == "newfstatat") && path.is_file() {
            (change.act)(&path);
            changed = true;
        }
    });
    if !stopped {
        run.succeeds();
        return None;
    }
    let when = format!(
        "{} behind {call} number {number}, to {to:?}: {run:?}",
        change.what
    );
    let new = if changed { (change.then)() } else { None };
    let arrived = sandbox.at_end(to, "out");
    for (name, bytes) in &arrived.0 {
        let whole = bytes.0 == first() || new.as_ref() == Some(&bytes.0);
        assert!(
            name == "a" && whole,
            "{name} is neither old nor new: {when}"
        );
    }
    for line in run.of("moved") {
        assert!(
            !path.is_file() && !arrived.is_empty(),
            "{line:?} is not true: {when}"
        );
    }
    let is_old = arrived == tree(&[("a", first())]);
    let twice = is_old && path.is_file();
    let kind = fs::symlink_metadata(&path)
        .map(|meta| meta.file_type())
        .ok();
    sandbox.run();
    if !changed {
        assert!(is_old, "{when}");
    } else if let Some(new) = new {
        assert_eq!(sandbox.at_end(to, "out"), tree(&[("a", new)]), "{when}");
    } else {
        let after = fs::symlink_metadata(&path)
            .map(|meta| meta.file_type())
            .ok();
        assert_eq!(after, kind, "what is no file is left alone: {when}");
        assert_eq!(kind.is_none(), change.what == "deleted", "{when}");
    }
    Some((changed, twice))
}

fn change_everywhere(to: End) {
    let mut totals = Totals::default();
    for call in CALLS {
        'behind: for number in 1.. {
            for change in &CHANGES {
                let Some((changed, twice)) = change_behind(to, call, number, change) else {
                    break 'behind;
                };
                totals.tried += 1;
                totals.fired += usize::from(changed);
                totals.duplicates += usize::from(twice);
            }
        }
    }
    assert!(totals.fired > 60, "only {} changes", totals.fired);
    totals.tell(&format!("source/file-{to:?}").to_lowercase());
}

#[test]
fn a_file_that_changes_behind_any_call_of_a_move_to_a_bucket_is_not_lost() {
    change_everywhere(End::S3);
}

#[test]
fn a_file_that_changes_behind_any_call_of_a_move_to_a_directory_is_not_lost() {
    change_everywhere(End::File);
}

#[test]
fn an_object_that_changes_at_any_request_is_not_lost() {
    let mut totals = Totals::default();
    for direction in [DIRECTIONS[0], DIRECTIONS[2]] {
        for deleted in [false, true] {
            for (number, after) in (0..8).flat_map(|n| [(n, false), (n, true)]) {
                let sandbox = Sandbox::new();
                let proxy = sandbox.proxy();
                sandbox.bucket().put("in/a", first());
                sandbox.rule("r", &ends(direction));
                let bucket = sandbox.bucket().clone();
                let act = move || {
                    if !bucket.has("in/a") {
                        return;
                    }
                    if deleted {
                        bucket.delete("in/a");
                    } else {
                        bucket.put("in/a", second());
                    }
                };
                let fault = if after {
                    Fault::after(act)
                } else {
                    Fault::before(act)
                };
                proxy.fault(When::any().after(number), fault);
                let run = sandbox.run();
                let when = format!("deleted {deleted}, after {after}, {number}: {run:?}");
                run.exits(0);
                let requests = proxy.requests();
                let Some(request) = requests.get(number) else {
                    proxy.forget();
                    continue;
                };
                // Between the look and the removal nobody can know; see above.
                let window = match request.op {
                    Op::Head => after,
                    Op::Delete => !after,
                    _ => false,
                };
                totals.tried += 1;
                totals.fired += 1;
                let arrived = sandbox.at_end(direction.1, "out");
                for bytes in arrived.0.values() {
                    assert!(bytes.0 == first() || bytes.0 == second(), "{when}");
                }
                let left = sandbox.bucket().has("in/a");
                totals.duplicates += usize::from(left && arrived == tree(&[("a", first())]));
                sandbox.run().succeeds();
                let gone_by_then = request.op == Op::Delete && after;
                if !deleted && !window && !gone_by_then {
                    let after = sandbox.at_end(direction.1, "out");
                    assert_eq!(after, tree(&[("a", second())]), "{when}");
                }
            }
        }
    }
    assert!(totals.tried > 30, "only {} changes", totals.tried);
    totals.tell("source/s3");
}
