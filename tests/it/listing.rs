//! Which items are candidates, in what order they go, and what a missing source means.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::time::{Duration, SystemTime};

use crate::support::process::Run;
use crate::support::sandbox::{chmod, set_mtime};
use crate::support::{End, Fault, Op, Sandbox, Tree, When, ends, tree};

const S3_TO_FILE: (End, End) = (End::S3, End::File);
const FILE_TO_FILE: (End, End) = (End::File, End::File);

/// The names that were moved, in the order of the log.
fn moved(run: &Run) -> Vec<String> {
    let last = |line: &str| line.rsplit('/').next().unwrap_or_default().to_owned();
    run.of("moved")
        .iter()
        .map(|line| last(line.get("src")))
        .collect()
}

#[test]
fn files_go_oldest_first_and_then_by_the_bytes_of_their_names() {
    let sandbox = Sandbox::without_minio();
    let now = SystemTime::now();
    // Bytes, not letters: Z < a < z < ä < 本.
    for name in ["z", "ä", "a", "Z", "本"] {
        set_mtime(
            &sandbox.write(format!("in/{name}"), "1"),
            now - Duration::from_secs(60),
        );
    }
    set_mtime(
        &sandbox.write("in/zz-oldest", "1"),
        now - Duration::from_secs(90),
    );
    let nanosecond_older = now - Duration::from_secs(60) - Duration::from_nanos(100);
    set_mtime(&sandbox.write("in/zy-older", "1"), nanosecond_older);
    set_mtime(&sandbox.write("in/a-young", "1"), now);
    let rule = format!("{}, concurrency: 1, max_items: 6", ends(FILE_TO_FILE));
    sandbox.rule("r", &rule);
    let run = sandbox.run();
    run.succeeds()
        .logs("rule_start", &[("selected", "6"), ("more", "true")]);
    assert_eq!(moved(&run), ["zz-oldest", "zy-older", "Z", "a", "z", "ä"]);
    assert_eq!(sandbox.files("in").names(), ["a-young", "本"]);
    let run = sandbox.run();
    run.logs("rule_start", &[("selected", "2"), ("more", "false")]);
    assert_eq!(moved(&run), ["本", "a-young"]);
}

#[test]
fn keys_go_by_their_bytes() {
    let sandbox = Sandbox::new();
    // U+FF5E comes before U+1F4E6 in UTF-8, behind it in UTF-16.
    let keys = ["Z", "a", "a b", "é", "～", "📦"];
    for key in keys {
        sandbox.bucket().put(&format!("in/{key}"), "1");
    }
    sandbox.rule(
        "r",
        &format!("{}, concurrency: 1, max_items: 5", ends(S3_TO_FILE)),
    );
    let run = sandbox.run();
    run.succeeds()
        .logs("rule_start", &[("selected", "5"), ("more", "true")]);
    assert_eq!(moved(&run), keys[..5]);
    assert_eq!(sandbox.bucket().keys(), ["in/📦"]);
}

#[test]
fn a_hundred_items_are_taken_where_nothing_else_is_said() {
    let sandbox = Sandbox::without_minio();
    let items: Tree = (0..101).map(|n| (format!("{n:03}"), "")).collect();
    sandbox.fill(End::File, "in", &items);
    sandbox.rule("r", &ends(FILE_TO_FILE));
    sandbox
        .run()
        .logs("rule_start", &[("selected", "100"), ("more", "true")]);
    assert_eq!(sandbox.files("in").len(), 1);
}

#[test]
fn max_items_zero_selects_nothing() {
    for direction in [S3_TO_FILE, FILE_TO_FILE] {
        let sandbox = Sandbox::new();
        sandbox.fill(direction.0, "in", &tree(&[("a", "1")]));
        sandbox.rule("r", &format!("{}, max_items: 0", ends(direction)));
        sandbox
            .run()
            .succeeds()
            .logs("rule_start", &[("selected", "0")]);
        assert_eq!(sandbox.at_end(direction.0, "in").len(), 1);
    }
}

#[test]
fn a_bucket_is_listed_no_further_than_needed() {
    let sandbox = Sandbox::new();
    let bucket = sandbox.bucket().clone();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let bucket = &bucket;
            scope.spawn(move || {
                for number in (thread..1100).step_by(8) {
                    bucket.put(&format!("in/{number:04}"), "");
                }
            });
        }
    });
    let proxy = sandbox.proxy();
    sandbox.rule("r", &format!("{}, max_items: 10", ends(S3_TO_FILE)));
    let run = sandbox.run_with(&["--dry-run"]);
    run.succeeds()
        .logs("rule_start", &[("selected", "10"), ("more", "true")]);
    assert_eq!(proxy.count(Op::List), 1, "one page shows ten");
    proxy.reset();

    sandbox.forget_rules();
    sandbox.rule("r", &format!("{}, max_items: 5000", ends(S3_TO_FILE)));
    let run = sandbox.run_with(&["--dry-run"]);
    run.succeeds()
        .logs("rule_start", &[("selected", "1100"), ("more", "false")]);
    assert!(proxy.count(Op::List) >= 2, "a page has a thousand keys");
    let at: Vec<_> = run
        .of("would_move")
        .iter()
        .map(|e| e.get("src").to_owned())
        .collect();
    assert!(at.is_sorted() && at.len() == 1100);
}

/// A round trip for each of 41 pages was the whole cost of a quiet run over a full prefix.
#[test]
fn twenty_thousand_keys_are_listed_in_twenty_one_requests() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    for (glob, selected) in [("none*", "0"), ("*019999", "1")] {
        proxy.reset();
        // The proxy alone answers, in the place of a server that has so many.
        proxy.fault(When::op(Op::List).always(), Fault::Keys(20_000, 0));
        sandbox.forget_rules();
        let src = format!("{{type: s3, path: in, match: {{glob: '{glob}'}}}}");
        sandbox.rule("r", &format!("src: {src}, dest: {}", End::File.at("out")));
        let run = sandbox.run_with(&["--dry-run"]);
        run.succeeds()
            .logs("rule_start", &[("selected", selected), ("more", "false")]);
        assert_eq!(proxy.count(Op::List), 21, "{glob}");
    }
}

/// Its first half is read before it breaks off.
#[test]
fn keys_on_a_page_that_broke_off_are_counted_once() {
    let sandbox = Sandbox::new();
    for number in 0..100 {
        sandbox.bucket().put(&format!("in/.{number:03}"), "");
    }
    let proxy = sandbox.proxy();
    proxy.fault(When::op(Op::List).times(1), Fault::Truncate(16_000));
    sandbox.rule("r", &ends(S3_TO_FILE));
    let run = sandbox.run();
    run.succeeds().logs("rule_done", &[("skipped", "100")]);
    assert_eq!(proxy.count(Op::List), 2);
}

#[test]
fn a_prefix_never_reaches_its_longer_neighbour() {
    for path in ["in/850", "/in/850", "in/850/", "in/850///"] {
        let sandbox = Sandbox::new();
        for key in ["in/850/a", "in/8501/b", "in/850.edi", "in/85"] {
            sandbox.bucket().put(key, "1");
        }
        sandbox.rule(
            "r",
            &format!("src: {}, dest: {}", End::S3.at(path), End::File.at("out")),
        );
        sandbox.run().succeeds();
        assert_eq!(sandbox.files("out").names(), ["a"], "{path}");
        assert_eq!(
            sandbox.bucket().keys(),
            ["in/85", "in/850.edi", "in/8501/b"],
            "{path}"
        );
    }
}

#[test]
fn a_slash_or_nothing_is_the_whole_bucket() {
    for path in ["/", "''"] {
        let sandbox = Sandbox::new();
        sandbox.fill(End::S3, "x", &tree(&[("y/a", "1")]));
        sandbox.rule(
            "r",
            &format!("src: {}, dest: {}", End::S3.at(path), End::File.at("out")),
        );
        sandbox.run().succeeds();
        assert_eq!(sandbox.files("out").names(), ["x/y/a"], "{path}");
    }
}

#[test]
fn recursion_is_on_for_buckets_and_off_for_directories_unless_said() {
    for (end, said, expected) in [
        (End::S3, "", vec!["a", "sub/b"]),
        (End::S3, ", recursive: false", vec!["a"]),
        (End::File, "", vec!["a"]),
        (End::File, ", recursive: true", vec!["a", "sub/b"]),
    ] {
        let sandbox = Sandbox::new();
        sandbox.fill(end, "in", &tree(&[("a", "1"), ("sub/b", "2")]));
        let src = end.at("in").replace('}', &format!("{said}}}"));
        sandbox.rule("r", &format!("src: {src}, dest: {}", End::File.at("out")));
        sandbox.run().succeeds();
        assert_eq!(sandbox.files("out").names(), expected, "{end:?}{said}");
    }
}

#[test]
fn only_regular_files_that_are_not_hidden_are_candidates() {
    let sandbox = Sandbox::without_minio();
    let real = sandbox.write("elsewhere/real", "1");
    sandbox.write("in/taken", "1");
    for name in [
        ".hidden",
        ".nfs0001",
        ".bots-mover-abc.part",
        ".dir/x",
        "sub/.y",
        "sub/.z/q",
    ] {
        sandbox.write(format!("in/{name}"), "1");
    }
    let source = sandbox.base().join("in");
    symlink(&real, source.join("link")).unwrap();
    symlink(real.parent().unwrap(), source.join("linked-directory")).unwrap();
    symlink("/nowhere", source.join("dangling")).unwrap();
    let fifo = std::process::Command::new("mkfifo")
        .arg(source.join("fifo"))
        .status();
    assert!(fifo.unwrap().success());
    let _socket = UnixListener::bind(source.join("socket")).unwrap();
    if rustix::process::geteuid().is_root() {
        let device = std::process::Command::new("mknod")
            .arg(source.join("device"))
            .args(["c", "1", "3"])
            .status();
        assert!(device.unwrap().success());
    }
    let before = fs::read_dir(&source).unwrap().count();
    let src = "{type: file, path: in, recursive: true}";
    sandbox.rule("r", &format!("src: {src}, dest: {{type: file, path: out}}"));
    sandbox
        .run()
        .succeeds()
        .logs("rule_start", &[("selected", "1"), ("more", "false")]);
    assert_eq!(sandbox.files("out").names(), ["taken"]);
    assert_eq!(fs::read_dir(&source).unwrap().count(), before - 1);
    assert!(real.exists());
}

#[test]
fn a_key_that_ends_in_a_slash_is_no_candidate_and_a_dot_is_nothing_special() {
    let sandbox = Sandbox::new();
    sandbox.bucket().put("in/folder/", "");
    sandbox.bucket().put("in/.dotted", "1");
    sandbox.rule("r", &ends((End::S3, End::S3)));
    sandbox
        .run()
        .succeeds()
        .logs("rule_start", &[("selected", "1"), ("more", "false")]);
    assert_eq!(sandbox.bucket().keys(), ["in/folder/", "out/.dotted"]);
}

#[test]
fn a_missing_source_directory_is_a_warning() {
    let sandbox = Sandbox::without_minio();
    sandbox.rule("r", &ends(FILE_TO_FILE));
    let run = sandbox.run();
    run.succeeds();
    assert!(
        run.events()
            .iter()
            .any(|e| e.level == "WARN" && format!("{e:?}").contains("base/in"))
    );
    assert!(!sandbox.base().join("in").exists(), "it is not created");
}

#[test]
fn a_missing_base_path_fails_the_rules_that_use_it_and_is_not_created() {
    for direction in [S3_TO_FILE, (End::File, End::S3), FILE_TO_FILE] {
        let sandbox = Sandbox::new();
        sandbox.bucket().put("in/a", "1");
        sandbox.bucket().put("other/a", "1");
        let base = sandbox.path("not-mounted");
        sandbox.default(&format!("base_file_path: {}", base.display()));
        sandbox.default("exit_on_first_failure: false");
        sandbox.rule("r", &ends(direction));
        sandbox.rule(
            "other",
            "src: {type: s3, path: other}, dest: {type: s3, path: ok}",
        );
        let run = sandbox.run();
        run.fails().says("failed", &["not-mounted"]);
        assert!(!base.exists(), "{direction:?}");
        assert_eq!(sandbox.bucket().keys(), ["in/a", "ok/a"], "{direction:?}");
    }
}

#[test]
fn a_missing_bucket_fails_the_rules_that_use_it_and_is_not_created() {
    let bucket = "{type: s3, bucket: not-there, path: x}";
    for ends in [
        format!("src: {bucket}, dest: {{type: file, path: out}}"),
        format!("src: {{type: file, path: in}}, dest: {bucket}"),
        format!("src: {{type: s3, path: in}}, dest: {bucket}"),
    ] {
        let sandbox = Sandbox::new();
        sandbox.write("in/a", "1");
        sandbox.bucket().put("in/a", "1");
        sandbox.rule("r", &ends);
        sandbox.run().fails().says("failed", &["not-there"]);
        assert_eq!(
            sandbox.files("in").len() + sandbox.bucket().keys().len(),
            2,
            "{ends}"
        );
        let exists = crate::support::minio::Minio::plain()
            .bucket("not-there")
            .exists();
        assert!(!exists, "{ends}");
    }
}

#[test]
fn a_failed_listing_is_tried_again_by_the_rules_retries() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    sandbox.bucket().put("in/a", "1");
    // One attempt makes three tries.
    proxy.fault(When::op(Op::List).times(4), Fault::status(503, "SlowDown"));
    sandbox.rule(
        "r",
        &format!("{}, retries: 1, wait_seconds: 1", ends(S3_TO_FILE)),
    );
    let run = sandbox.run();
    run.succeeds();
    assert!(
        run.elapsed >= Duration::from_secs(1),
        "it waits: {:?}",
        run.elapsed
    );
    assert_eq!(run.of("retry").len(), 1);
    assert_eq!(sandbox.files("out").len(), 1);
}

#[test]
fn an_unreadable_source_directory_fails_its_rule() {
    let sandbox = Sandbox::without_minio();
    let locked = sandbox.mkdir("in");
    sandbox.unprivileged();
    crate::support::sandbox::chmod(&locked, 0o000);
    sandbox.rule("r", &ends(FILE_TO_FILE));
    sandbox.run().fails().says("failed", &["base/in"]);
}

#[test]
fn ten_thousand_files_cost_no_more_than_time() {
    let sandbox = Sandbox::without_minio();
    let source = sandbox.mkdir("in");
    for number in 0..10_000 {
        fs::write(source.join(format!("{number:05}")), "").unwrap();
    }
    sandbox.rule("r", &format!("{}, max_items: 3", ends(FILE_TO_FILE)));
    let run = sandbox.run();
    run.succeeds()
        .logs("rule_start", &[("selected", "3"), ("more", "true")]);
    assert_eq!(fs::read_dir(source).unwrap().count(), 9_997);
}

/// `lost+found` of a volume, 0700 of root, kept a whole recursive rule from moving anything.
#[test]
fn a_directory_that_cannot_be_read_fails_by_itself_and_all_else_moves() {
    let sandbox = Sandbox::without_minio();
    sandbox.unprivileged();
    sandbox.fill(
        End::File,
        "in",
        &tree(&[
            ("a", "1"),
            ("d/b", "2"),
            ("shut/c", "3"),
            ("pass/e/f/g", "4"),
        ]),
    );
    chmod(&sandbox.path("base/in/shut"), 0o000);
    for path in ["in", "in/d"] {
        chmod(&sandbox.base().join(path), 0o777);
    }
    // It may be read, but what is in it may not be reached.
    chmod(&sandbox.path("base/in/pass"), 0o400);
    let src = "{type: file, path: in, recursive: true}";
    sandbox.rule(
        "r",
        &format!("src: {src}, dest: {}, concurrency: 1", End::File.at("out")),
    );
    let dry = sandbox.run_with(&["--dry-run"]);
    dry.exits(1);
    assert_eq!(dry.of("failed").len(), 2, "{dry:?}");
    let check = sandbox.run_with(&["check", "--connect"]);
    check.exits(1);
    for text in ["in/shut (uid ", "mode 0000", "in/pass (uid "] {
        assert!(check.stdout.contains(text), "{text}: {check:?}");
    }

    let run = sandbox.run();
    run.exits(1);
    assert_eq!(sandbox.files("out").names(), ["a", "d/b"]);
    let failed = run.of("failed");
    let mut sources: Vec<_> = failed.iter().map(|line| line.get("src")).collect();
    sources.sort_unstable();
    let shut = ["in/pass", "in/shut"].map(|path| sandbox.base().join(path).display().to_string());
    assert_eq!(sources, shut, "{run:?}");
    run.says(
        "failed",
        &["Permission denied", "mode 0000", "running as uid"],
    );
    run.logs("rule_done", &[("moved", "2"), ("failed", "2")]);
    for path in ["in/shut", "in/pass"] {
        chmod(&sandbox.base().join(path), 0o777);
    }
}

/// Skipped items make the rule list once more; what it could not read is the same failure.
#[test]
fn a_directory_that_cannot_be_read_is_counted_once_however_often_it_is_listed() {
    let sandbox = Sandbox::without_minio();
    sandbox.unprivileged();
    sandbox.fill(
        End::File,
        "in",
        &tree(&[("a", "1"), ("b", "2"), ("shut/c", "3")]),
    );
    sandbox.write("out/a", "other");
    sandbox.write_aged("in/a", "1", Duration::from_secs(60));
    for path in ["in", "out"] {
        chmod(&sandbox.base().join(path), 0o777);
    }
    chmod(&sandbox.path("base/in/shut"), 0o000);
    let src = "{type: file, path: in, recursive: true}";
    let dest = End::File.at("out");
    sandbox.rule(
        "r",
        &format!("src: {src}, dest: {dest}, if_exists: skip, max_items: 1"),
    );
    let run = sandbox.run();
    run.exits(1);
    run.logs(
        "rule_done",
        &[("moved", "1"), ("skipped", "1"), ("failed", "1")],
    );
    chmod(&sandbox.path("base/in/shut"), 0o777);
}

#[test]
fn lost_and_found_of_root_is_passed_over_with_a_note() {
    assert!(rustix::process::geteuid().is_root(), "makes files of root");
    let sandbox = Sandbox::without_minio();
    let items = tree(&[("a", "1"), ("lost+found/b", "2"), ("d/lost+found/c", "3")]);
    sandbox.fill(End::File, "in", &items);
    let src = "{type: file, path: in, recursive: true}";
    sandbox.rule("r", &format!("src: {src}, dest: {}", End::File.at("out")));
    let check = sandbox.run_with(&["check", "--connect"]);
    check.exits(0);
    assert!(check.stdout.contains("lost+found: it is"), "{check:?}");
    let run = sandbox.run();
    run.succeeds().says("skipped", &["in/lost+found"]);
    assert_eq!(run.of("skipped").len(), 1);
    assert_eq!(sandbox.files("out").names(), ["a", "d/lost+found/c"]);
}

/// It waited for ever, as `-3600 s old`, without a warning.
#[test]
fn a_file_from_the_future_waits_with_a_warning_that_names_the_clock_or_moves() {
    for (keys, moved, reason) in [
        ("", 2, None),
        (
            ", min_age_seconds: 5",
            0,
            Some("s in the future, left until it is 5 s old: check the clock"),
        ),
    ] {
        let sandbox = Sandbox::without_minio();
        let now = SystemTime::now();
        set_mtime(
            &sandbox.write("in/far", "1"),
            now + Duration::from_secs(3600),
        );
        set_mtime(
            &sandbox.write("in/near", "1"),
            now + Duration::from_secs(40),
        );
        sandbox.rule("r", &format!("{}{keys}", ends(FILE_TO_FILE)));
        let run = sandbox.run();
        run.succeeds();
        assert_eq!(run.of("moved").len(), moved);
        assert!(!run.stdout.contains("-3"), "{run:?}");
        let warned = run.of("skipped");
        let warned: Vec<_> = warned.iter().filter(|line| line.level == "WARN").collect();
        assert_eq!(warned.len(), usize::from(reason.is_some()), "{run:?}");
        if let Some(reason) = reason {
            assert!(warned[0].get("src").ends_with("in/far"), "{run:?}");
            assert!(warned[0].get("reason").contains(reason), "{run:?}");
            run.says("skipped", &["0 s old, left until it is 5 s old"]);
        } else {
            run.logs("rule_start", &[("oldest_age_seconds", "0")]);
        }
    }
}

/// They arrived hidden, where Bots never looks.
#[test]
fn keys_that_a_directory_would_hide_are_left_alone_and_counted_in_one_note() {
    let sandbox = Sandbox::new();
    for key in ["in/._po.edi", "in/.DS_Store", "in/.d/a.edi", "in/po.edi"] {
        sandbox.bucket().put(key, "1");
    }
    let examples = "examples: [{name: ._po.edi, ignored: true}, {name: po.edi, becomes: po.edi}]";
    sandbox.rule("r", &format!("{}, {examples}", ends(S3_TO_FILE)));
    let explained = sandbox.run_with(&["explain", "._po.edi"]);
    explained.exits(1);
    assert!(
        explained.stdout.contains("begins with a dot"),
        "{explained:?}"
    );
    let run = sandbox.run();
    run.succeeds()
        .logs("rule_done", &[("moved", "1"), ("skipped", "3")]);
    let notes = run.of("skipped");
    assert_eq!(notes.len(), 1, "{run:?}");
    assert!(
        notes[0].get("reason").starts_with("3 keys have a part"),
        "{run:?}"
    );
    assert_eq!(sandbox.bucket().keys().len(), 3);

    sandbox.forget_rules();
    sandbox.rule("r", &ends((End::S3, End::S3)));
    sandbox.run().succeeds();
    assert!(
        sandbox
            .bucket()
            .keys()
            .iter()
            .all(|key| key.starts_with("out/"))
    );
}
