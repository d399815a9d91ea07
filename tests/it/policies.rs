//! `if_exists`, and the three ways in which a file source says "not yet".

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::{FlockOperation, fcntl_lock};

use crate::support::{DIRECTIONS, End, Fault, Op, Sandbox, When, ends, tree};

#[test]
fn overwrite_replaces() {
    for direction in DIRECTIONS {
        let sandbox = Sandbox::new();
        sandbox.fill(direction.0, "in", &tree(&[("a", "new")]));
        sandbox.fill(direction.1, "out", &tree(&[("a", "old and longer")]));
        sandbox.rule("r", &ends(direction));
        sandbox.run().succeeds();
        assert_eq!(
            sandbox.at_end(direction.1, "out"),
            tree(&[("a", "new")]),
            "{direction:?}"
        );
        assert!(sandbox.at_end(direction.0, "in").is_empty());
    }
}

#[test]
fn fail_fails_the_item_once_and_changes_nothing() {
    for direction in DIRECTIONS {
        let sandbox = Sandbox::new();
        sandbox.fill(direction.0, "in", &tree(&[("a", "new")]));
        sandbox.fill(direction.1, "out", &tree(&[("a", "old")]));
        let rule = format!(
            "{}, if_exists: fail, retries: 3, wait_seconds: 60",
            ends(direction)
        );
        sandbox.rule("r", &rule);
        let run = sandbox.run();
        run.fails().says("failed", &["exists"]);
        assert!(run.of("retry").is_empty(), "no repeat can mend it");
        assert_eq!(
            sandbox.at_end(direction.1, "out"),
            tree(&[("a", "old")]),
            "{direction:?}"
        );
        assert_eq!(sandbox.at_end(direction.0, "in"), tree(&[("a", "new")]));
    }
}

#[test]
fn keep_both_takes_the_next_free_name() {
    for direction in DIRECTIONS {
        let sandbox = Sandbox::new();
        sandbox.fill(direction.0, "in", &tree(&[("a.edi", "new"), ("b", "new")]));
        let old = [("a.edi", "old"), ("a-1.edi", "older"), ("b", "old")];
        sandbox.fill(direction.1, "out", &tree(&old));
        sandbox.rule("r", &format!("{}, if_exists: keep_both", ends(direction)));
        sandbox.run().succeeds().says("moved", &["out/a-2.edi"]);
        let expected = [&old[..], &[("a-2.edi", "new"), ("b-1", "new")]].concat();
        assert_eq!(
            sandbox.at_end(direction.1, "out"),
            tree(&expected),
            "{direction:?}"
        );
        assert!(sandbox.at_end(direction.0, "in").is_empty());
    }
}

#[test]
fn skip_leaves_the_source() {
    for direction in DIRECTIONS {
        let sandbox = Sandbox::new();
        sandbox.fill(direction.0, "in", &tree(&[("a", "new"), ("b", "b")]));
        sandbox.fill(direction.1, "out", &tree(&[("a", "old")]));
        sandbox.rule("r", &format!("{}, if_exists: skip", ends(direction)));
        let run = sandbox.run();
        run.succeeds()
            .says("skipped", &["in/a"])
            .logs("rule_done", &[("skipped", "1")]);
        let out = tree(&[("a", "old"), ("b", "b")]);
        assert_eq!(sandbox.at_end(direction.1, "out"), out, "{direction:?}");
        assert_eq!(sandbox.at_end(direction.0, "in"), tree(&[("a", "new")]));
    }
}

#[test]
fn a_destination_that_is_the_item_already_is_an_earlier_attempts_work() {
    for if_exists in ["fail", "keep_both", "skip"] {
        for direction in DIRECTIONS {
            let sandbox = Sandbox::new();
            let same = tree(&[("a", "the very same")]);
            sandbox.fill(direction.0, "in", &same);
            sandbox.fill(direction.1, "out", &same);
            sandbox.rule("r", &format!("{}, if_exists: {if_exists}", ends(direction)));
            sandbox.run().succeeds();
            assert_eq!(
                sandbox.at_end(direction.1, "out"),
                same,
                "{if_exists} {direction:?}"
            );
            assert!(
                sandbox.at_end(direction.0, "in").is_empty(),
                "{if_exists} {direction:?}"
            );
        }
    }
}

#[test]
fn copying_with_skip_progresses_in_portions() {
    for direction in DIRECTIONS {
        let sandbox = Sandbox::new();
        let items = tree(&[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"), ("e", "5")]);
        sandbox.fill(direction.0, "in", &items);
        let rule = format!(
            "{}, mode: copy, if_exists: skip, max_items: 2",
            ends(direction)
        );
        sandbox.rule("r", &rule);
        for expected in [2, 4, 5, 5] {
            sandbox.run().succeeds();
            let out = sandbox.at_end(direction.1, "out");
            assert_eq!(out.len(), expected, "{direction:?}");
        }
        assert_eq!(sandbox.at_end(direction.1, "out"), items);
        assert_eq!(sandbox.at_end(direction.0, "in"), items);
    }
}

#[test]
fn what_skip_passes_over_makes_room_for_the_items_behind_it() {
    for direction in DIRECTIONS {
        let sandbox = Sandbox::new();
        let items = tree(&[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]);
        sandbox.fill(direction.0, "in", &items);
        let blocked = tree(&[("a", "old"), ("b", "old")]);
        sandbox.fill(direction.1, "out", &blocked);
        let rule = format!("{}, if_exists: skip, max_items: 1", ends(direction));
        sandbox.rule("r", &rule);
        let run = sandbox.run();
        run.succeeds()
            .logs("rule_done", &[("moved", "1"), ("skipped", "2")]);
        assert_eq!(run.of("skipped").len(), 2, "{run:?}");
        assert_eq!(run.of("rule_start").len(), 1, "{run:?}");
        let out = sandbox.at_end(direction.1, "out");
        assert_eq!(out.names(), ["a", "b", "c"], "{direction:?}");
        sandbox.run().succeeds();
        let left = sandbox.at_end(direction.0, "in");
        assert_eq!(left.names(), ["a", "b"], "{direction:?}");
    }
}

#[test]
fn conflicts_do_not_block_what_lies_behind_them() {
    for direction in DIRECTIONS {
        let sandbox = Sandbox::new();
        sandbox.default("exit_on_first_failure: false");
        let items = tree(&[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"), ("e", "5")]);
        sandbox.fill(direction.0, "in", &items);
        let blocked = tree(&[("a", "old"), ("b", "old")]);
        sandbox.fill(direction.1, "out", &blocked);
        let rule = format!("{}, if_exists: fail, max_items: 2", ends(direction));
        sandbox.rule("r", &rule);
        sandbox
            .run()
            .fails()
            .logs("rule_done", &[("moved", "2"), ("failed", "2")]);
        let left = sandbox.at_end(direction.0, "in");
        assert_eq!(left.names(), ["a", "b", "e"], "{direction:?}");
    }
}

#[test]
fn what_is_written_during_the_run_is_left_by_its_second_look() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    let old = Duration::from_secs(600);
    sandbox.write_aged("in/a", "1", old * 3);
    sandbox.write_aged("in/b", "2", old * 2);
    sandbox.bucket().put("out/a", "old");
    let again = sandbox.base().join("in/a");
    let write = Fault::after(move || fs::write(&again, "written again").unwrap());
    proxy.fault(When::op(Op::Put).key("out/a"), write);
    let keys = "if_exists: skip, max_items: 1";
    sandbox.rule("r", &format!("{}, {keys}", ends((End::File, End::S3))));
    let run = sandbox.run();
    run.succeeds()
        .logs("rule_done", &[("moved", "1"), ("skipped", "1")]);
    assert_eq!(sandbox.files("in").names(), ["a"], "{run:?}");
}

#[test]
fn a_second_look_at_a_source_repeats_no_note_and_counts_nothing_twice() {
    let sandbox = Sandbox::without_minio();
    let old = Duration::from_secs(600);
    sandbox.write_aged("in/a-locked", "1", old * 3);
    sandbox.write_aged("in/b", "1", old * 2);
    sandbox.write("in/young", "1");
    let lock = Lock::on(&sandbox.base().join("in/a-locked"));
    let keys = "min_age_seconds: 300, max_items: 1";
    sandbox.rule("r", &format!("{}, {keys}", ends((End::File, End::File))));
    let run = sandbox.run();
    lock.release();
    run.succeeds()
        .logs("rule_done", &[("moved", "1"), ("skipped", "2")]);
    assert_eq!(run.of("skipped").len(), 2, "{run:?}");
}

#[test]
fn what_somebody_else_takes_from_a_copying_rule_fails_no_other_item() {
    for if_exists in ["overwrite", "fail", "keep_both", "skip"] {
        let sandbox = Sandbox::new();
        let proxy = sandbox.proxy();
        let items = tree(&[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]);
        sandbox.fill(End::S3, "in", &items);
        let bucket = sandbox.bucket().clone();
        let vanish = Fault::before(move || bucket.delete("in/b"));
        proxy.fault(When::op(Op::Get).key("in/b"), vanish);
        let keys = format!("mode: copy, max_items: 2, if_exists: {if_exists}");
        sandbox.rule("r", &format!("{}, {keys}", ends((End::S3, End::File))));
        let run = sandbox.run();
        run.succeeds()
            .logs("rule_done", &[("copied", "2"), ("skipped", "1")]);
        assert_eq!(sandbox.files("out").names(), ["a", "c"], "{if_exists}");
    }
}

#[test]
fn what_was_copied_before_is_counted_once_though_the_source_is_looked_at_twice() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    let items = tree(&[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"), ("e", "5")]);
    sandbox.fill(End::S3, "in", &items);
    sandbox.fill(End::File, "out", &tree(&[("a", "1"), ("d", "4")]));
    let bucket = sandbox.bucket().clone();
    let vanish = Fault::before(move || bucket.delete("in/b"));
    proxy.fault(When::op(Op::Get).key("in/b"), vanish);
    let keys = "mode: copy, if_exists: skip, max_items: 2, concurrency: 1";
    sandbox.rule("r", &format!("{}, {keys}", ends((End::S3, End::File))));
    let run = sandbox.run();
    run.succeeds()
        .logs("rule_done", &[("copied", "2"), ("skipped", "3")]);
    let out = sandbox.files("out");
    assert_eq!(out.names(), ["a", "c", "d", "e"], "a, d before, b gone");
}

#[test]
fn what_appears_at_the_last_moment_is_not_replaced() {
    for if_exists in ["fail", "skip"] {
        let sandbox = Sandbox::new();
        let proxy = sandbox.proxy();
        sandbox.write("in/a", "ours");
        let bucket = sandbox.bucket().clone();
        let rival = Fault::before(move || bucket.put("out/a", "theirs"));
        proxy.fault(When::op(Op::Put), rival);
        sandbox.rule(
            "r",
            &format!("{}, if_exists: {if_exists}", ends((End::File, End::S3))),
        );
        sandbox.run().exits(i32::from(if_exists == "fail"));
        assert_eq!(sandbox.bucket().get("out/a").body, b"theirs", "{if_exists}");
        assert_eq!(sandbox.files("in").len(), 1, "{if_exists}");

        let sandbox = Sandbox::new();
        let proxy = sandbox.proxy();
        sandbox.bucket().put("in/a", "ours");
        let path = sandbox.mkdir("out").join("a");
        let rival = Fault::after(move || fs::write(&path, "theirs").unwrap());
        proxy.fault(When::op(Op::Get), rival);
        sandbox.rule(
            "r",
            &format!("{}, if_exists: {if_exists}", ends((End::S3, End::File))),
        );
        sandbox.run().exits(i32::from(if_exists == "fail"));
        assert_eq!(
            sandbox.files("out"),
            tree(&[("a", "theirs")]),
            "{if_exists}"
        );
        assert!(sandbox.bucket().has("in/a"), "{if_exists}");
    }
}

#[test]
fn keep_both_goes_on_to_the_next_name_where_one_is_taken_at_the_last_moment() {
    for size_bytes in [10, 17 << 20] {
        let sandbox = Sandbox::new();
        let proxy = sandbox.proxy();
        sandbox.write("in/a.edi", vec![1; size_bytes]);
        let bucket = sandbox.bucket().clone();
        let rival = Fault::before(move || bucket.put("out/a.edi", "theirs"));
        let last = if size_bytes > 100 {
            Op::CompleteUpload
        } else {
            Op::Put
        };
        proxy.fault(When::op(last).key("out/a.edi"), rival);
        let keys = "if_exists: keep_both";
        sandbox.rule("r", &format!("{}, {keys}", ends((End::File, End::S3))));
        sandbox.run().succeeds();
        assert_eq!(sandbox.bucket().get("out/a.edi").body, b"theirs");
        let ours = sandbox.bucket().get("out/a-1.edi").body;
        assert_eq!(ours.len(), size_bytes);
        assert!(sandbox.files("in").is_empty());
    }
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    sandbox.bucket().put("in/a.edi", "ours");
    let path = sandbox.mkdir("out").join("a.edi");
    let rival = Fault::after(move || fs::write(&path, "theirs").unwrap());
    proxy.fault(When::op(Op::Get), rival);
    let keys = "if_exists: keep_both";
    sandbox.rule("r", &format!("{}, {keys}", ends((End::S3, End::File))));
    sandbox.run().succeeds();
    let expected = tree(&[("a.edi", "theirs"), ("a-1.edi", "ours")]);
    assert_eq!(sandbox.files("out"), expected);
}

#[test]
fn a_file_that_is_too_young_is_left_for_a_later_run() {
    let sandbox = Sandbox::without_minio();
    sandbox.write_aged("in/old", "1", Duration::from_secs(600));
    sandbox.write("in/young", "1");
    let rule = format!(
        "{}, min_age_seconds: 300, max_items: 1",
        ends((End::File, End::File))
    );
    sandbox.rule("r", &rule);
    let run = sandbox.run();
    run.succeeds();
    assert_eq!(sandbox.files("out").names(), ["old"]);
    assert_eq!(sandbox.files("in").names(), ["young"]);
    assert!(run.one("rule_start").number("oldest_age_seconds") >= 600);
}

#[test]
fn a_file_that_became_too_young_since_it_was_listed_is_left() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    let old = Duration::from_secs(600);
    sandbox.write_aged("in/a", "1", old * 2);
    sandbox.write_aged("in/b", "half", old);
    sandbox.write_aged("in/c", "3", old);
    let second = sandbox.base().join("in/b");
    let append = Fault::after(move || fs::write(&second, "half and more").unwrap());
    proxy.fault(When::op(Op::Put).key("out/a"), append);
    let keys = "min_age_seconds: 300, max_items: 2, concurrency: 1";
    sandbox.rule("r", &format!("{}, {keys}", ends((End::File, End::S3))));
    let run = sandbox.run();
    run.succeeds().says("skipped", &["in/b", "300 s old"]);
    assert_eq!(sandbox.bucket().keys(), ["out/a", "out/c"], "not counted");
}

#[test]
fn while_the_lock_file_is_there_nothing_moves_and_its_age_is_said() {
    let sandbox = Sandbox::without_minio();
    sandbox.write("in/a", "1");
    sandbox.write_aged("in/bots.lock", "", Duration::from_secs(4000));
    sandbox.rule(
        "r",
        &format!("{}, lock_file: bots.lock", ends((End::File, End::File))),
    );
    let run = sandbox.run();
    run.succeeds().says("skipped", &["bots.lock"]);
    let said = format!("{:?}", run.of("skipped"));
    assert!(
        said.contains("400") || said.contains("1h") || said.contains("66"),
        "{said}"
    );
    assert_eq!(sandbox.files("in").len(), 2);

    fs::remove_file(sandbox.base().join("in/bots.lock")).unwrap();
    sandbox.run().succeeds();
    assert_eq!(sandbox.files("out").names(), ["a"]);
}

#[test]
fn a_lock_file_that_appears_during_the_run_stops_the_rule() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    for name in ["a", "b", "c"] {
        sandbox.write(format!("in/{name}"), name);
    }
    let lock = sandbox.base().join("in/bots.lock");
    let appear = Fault::after(move || fs::write(&lock, "").unwrap());
    proxy.fault(When::op(Op::Put), appear);
    let rule = format!(
        "{}, lock_file: bots.lock, concurrency: 1",
        ends((End::File, End::S3))
    );
    sandbox.rule("r", &rule);
    sandbox.run().exits(0);
    assert_eq!(
        sandbox.bucket().keys().len(),
        1,
        "only what was on its way when the lock came"
    );
    assert!(sandbox.files("in").len() >= 3, "{:?}", sandbox.files("in"));
}

/// An exclusive POSIX record lock on a file, as a Bots channel with 'system lock' holds it. Record
/// locks belong to a process, and ours is not the program's. Any other handle of ours on the file
/// would end the lock when it closes.
struct Lock(fs::File);

impl Lock {
    fn on(path: &Path) -> Self {
        let file = fs::File::options()
            .append(true)
            .open(path)
            .expect("open the file");
        fcntl_lock(&file, FlockOperation::LockExclusive).expect("lock the file");
        Self(file)
    }

    fn release(self) {
        drop(self.0);
    }
}

#[test]
fn a_file_that_another_process_locks_is_being_written_and_waits() {
    for to in [End::S3, End::File] {
        let sandbox = Sandbox::new();
        let locked = sandbox.write("in/a-locked", "half");
        sandbox.write("in/b", "whole");
        let lock = Lock::on(&locked);
        sandbox.rule("r", &format!("{}, max_items: 1", ends((End::File, to))));
        let run = sandbox.run();
        run.succeeds().says("skipped", &["a-locked"]);
        assert_eq!(
            sandbox.at_end(to, "out"),
            tree(&[("b", "whole")]),
            "not counted"
        );
        lock.release();
        sandbox.run().succeeds();
        assert_eq!(sandbox.at_end(to, "out").len(), 2);
    }
}

#[test]
fn a_lock_that_comes_after_staging_keeps_the_source() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    let path = sandbox.write("in/a", "1");
    let lock = Arc::new(Mutex::new(None));
    let taken = Arc::clone(&lock);
    let take = Fault::after(move || *taken.lock().unwrap() = Some(Lock::on(&path)));
    proxy.fault(When::op(Op::Put), take);
    sandbox.rule("r", &ends((End::File, End::S3)));
    sandbox.run().exits(0);
    assert_eq!(sandbox.files("in"), tree(&[("a", "1")]));
}
