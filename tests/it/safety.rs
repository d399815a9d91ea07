//! The one promise: whatever happens, and whenever, each item is whole at one end at least.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

use rustix::process::Signal;

use crate::support::data::noise;
use crate::support::sandbox::{chmod, set_mtime};
use crate::support::{DIRECTIONS, End, Fault, Gate, Op, Sandbox, Tree, When, ends, tree};

const S3_TO_FILE: (End, End) = (End::S3, End::File);
const FILE_TO_S3: (End, End) = (End::File, End::S3);
const FILE_TO_FILE: (End, End) = (End::File, End::File);

/// Each item is whole at its source or at its destination, and nothing else is at either.
#[track_caller]
fn nothing_is_lost(sandbox: &Sandbox, direction: (End, End), items: &Tree, when: &str) {
    let source = sandbox.at_end(direction.0, "in");
    let dest = sandbox.at_end(direction.1, "out");
    let dest: Tree = visible(dest);
    assert_eq!(source.union(dest), *items, "{when} of {direction:?}");
}

/// Without our temporaries, which nobody else sees.
fn visible(tree: Tree) -> Tree {
    let all = tree.0.into_iter();
    Tree(
        all.filter(|(name, _)| !name.starts_with(".bots-mover-"))
            .collect(),
    )
}

#[test]
fn a_kill_at_any_moment_between_files_loses_nothing() {
    let many: Tree = (0..50)
        .map(|n| (format!("{n:02}"), noise(3000, n)))
        .collect();
    for step in 0..20 {
        let sandbox = Sandbox::without_minio();
        sandbox.fill(End::File, "in", &many);
        sandbox.rule("r", &ends(FILE_TO_FILE));
        let running = sandbox.start();
        std::thread::sleep(Duration::from_millis(step * 2));
        running.signal_if_alive(Signal::KILL);
        sandbox.finish(running);
        nothing_is_lost(
            &sandbox,
            FILE_TO_FILE,
            &many,
            &format!("a kill after {step}"),
        );
        sandbox.run().succeeds();
        assert_eq!(visible(sandbox.files("out")), many);
    }
}

#[test]
fn temporaries_of_a_dead_run_go_once_they_are_an_hour_old() {
    let sandbox = Sandbox::new();
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    sandbox.write_aged("out/.bots-mover-old.part", "half", hours(2));
    sandbox.write_aged(
        "out/.bots-mover-young.part",
        "half",
        Duration::from_secs(60),
    );
    sandbox.write_aged("out/.other.part", "theirs", hours(2));
    sandbox.write_aged("out/bots-mover-x.part", "theirs", hours(2));
    sandbox.bucket().put("in/a", "1");
    sandbox.rule("r", &ends(S3_TO_FILE));
    sandbox.run().succeeds();
    let left = sandbox.files("out");
    assert_eq!(
        left.names(),
        [
            ".bots-mover-young.part",
            ".other.part",
            "a",
            "bots-mover-x.part"
        ]
    );
}

#[test]
fn nothing_is_left_in_tmpdir_or_beside_the_destination() {
    for direction in DIRECTIONS {
        let sandbox = Sandbox::new();
        sandbox.fill(direction.0, "in", &tree(&[("a", noise(500_000, 1))]));
        sandbox.rule("r", &ends(direction));
        sandbox.run().succeeds();
        assert_eq!(fs::read_dir(sandbox.tmp()).unwrap().count(), 0);
        assert_eq!(sandbox.at_end(direction.1, "out").names(), ["a"]);
    }
}

#[test]
fn an_object_that_changes_after_staging_stays() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    sandbox.bucket().put("in/a", "first");
    let bucket = sandbox.bucket().clone();
    let change = Fault::after(move || bucket.put("in/a", "second"));
    proxy.fault(When::op(Op::Get), change);
    sandbox.rule("r", &ends(S3_TO_FILE));
    let run = sandbox.run();
    run.exits(0);
    assert_eq!(sandbox.files("out"), tree(&[("a", "first")]));
    assert_eq!(sandbox.bucket().get("in/a").body, b"second");
    assert!(run.stdout.contains("changed"), "{run:?}");
    sandbox.run().succeeds();
    assert_eq!(sandbox.files("out"), tree(&[("a", "second")]));
}

#[test]
fn a_file_that_changes_after_staging_stays() {
    type Change = fn(&std::path::Path);
    let changes: [(&str, Change); 3] = [
        ("appended", |path| {
            use std::io::Write as _;
            let mut file = fs::File::options().append(true).open(path).unwrap();
            file.write_all(b" and more").unwrap();
        }),
        ("replaced", |path| {
            let time = fs::metadata(path).unwrap().modified().unwrap();
            fs::rename(path, path.with_extension("old")).unwrap();
            fs::write(path, "other").unwrap();
            set_mtime(path, time);
        }),
        ("touched", |path| {
            set_mtime(path, SystemTime::now() + Duration::from_secs(5));
        }),
    ];
    for (what, change) in changes {
        let sandbox = Sandbox::new();
        let proxy = sandbox.proxy();
        let path = sandbox.write("in/a", "first");
        let there = path.clone();
        proxy.fault(When::op(Op::Put), Fault::after(move || change(&there)));
        sandbox.rule("r", &ends(FILE_TO_S3));
        sandbox.run().exits(0);
        assert_eq!(sandbox.bucket().get("out/a").body, b"first", "{what}");
        assert!(path.exists(), "{what}");
    }
}

#[test]
fn a_file_that_vanishes_is_no_failure() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    let old = Duration::from_secs(100);
    sandbox.write_aged("in/a", "1", old * 2);
    sandbox.write_aged("in/b", "2", old);
    let second = sandbox.base().join("in/b");
    let vanish = Fault::after(move || fs::remove_file(&second).unwrap());
    proxy.fault(When::op(Op::Put), vanish);
    sandbox.rule("r", &format!("{}, concurrency: 1", ends(FILE_TO_S3)));
    sandbox
        .run()
        .succeeds()
        .logs("run_done", &[("moved", "1"), ("failed", "0")]);
    assert_eq!(sandbox.bucket().keys(), ["out/a"]);
}

#[test]
fn a_file_that_vanishes_before_it_could_be_removed_is_no_failure() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    let path = sandbox.write("in/a", "1");
    let vanish = Fault::after(move || fs::remove_file(&path).unwrap());
    proxy.fault(When::op(Op::Put), vanish);
    sandbox.rule("r", &ends(FILE_TO_S3));
    let run = sandbox.run();
    run.succeeds().says("moved", &["somebody else took it"]);
    assert_eq!(sandbox.bucket().tree("out/"), tree(&[("a", "1")]));
}

#[test]
fn an_unreadable_file_fails_and_the_others_move() {
    let sandbox = Sandbox::new();
    chmod(&sandbox.write("in/a", "1"), 0o000);
    sandbox.write("in/b", "2");
    sandbox
        .unprivileged()
        .default("exit_on_first_failure: false");
    sandbox.rule("r", &ends(FILE_TO_S3));
    let run = sandbox.run();
    run.fails().says("failed", &["base/in/a", "ermission"]);
    assert_eq!(sandbox.bucket().keys(), ["out/b"]);
}

#[test]
fn a_directory_that_may_not_be_written_keeps_both_ends_whole() {
    let sandbox = Sandbox::new();
    sandbox.bucket().put("in/a", "1");
    let out = sandbox.mkdir("out");
    sandbox.write("source/b", "2");
    let source = sandbox.base().join("source");
    sandbox
        .unprivileged()
        .default("exit_on_first_failure: false");
    chmod(&out, 0o555);
    chmod(&source, 0o555);
    sandbox.rule("in", &ends(S3_TO_FILE));
    sandbox.rule(
        "out",
        "src: {type: file, path: source}, dest: {type: s3, path: out}",
    );
    let run = sandbox.run();
    run.fails().says("failed", &["base/out", "ermission"]);
    run.says("failed", &["base/source/b", "ermission"]);
    assert!(sandbox.bucket().has("in/a") && sandbox.files("out").is_empty());
    assert!(
        sandbox.bucket().has("out/b") && source.join("b").exists(),
        "both copies exist"
    );
}

#[test]
fn a_destination_that_a_link_makes_the_source_loses_nothing() {
    for name in ["a", "sub/a"] {
        let sandbox = Sandbox::without_minio();
        let path = sandbox.write(format!("in/{name}"), "1");
        symlink(sandbox.base().join("in"), sandbox.base().join("out")).unwrap();
        let src = "{type: file, path: in, recursive: true}";
        sandbox.rule("r", &format!("src: {src}, dest: {{type: file, path: out}}"));
        sandbox.run().fails();
        assert_eq!(fs::read(&path).unwrap(), b"1", "{name}");
        assert_eq!(sandbox.files("in").len(), 1, "{name}");
    }
}

#[test]
fn what_lies_under_a_destination_that_a_link_puts_inside_the_source_is_left_alone() {
    let sandbox = Sandbox::without_minio();
    sandbox.write("in/a", "1");
    sandbox.write("in/sub/b", "2");
    sandbox.mkdir("in/done");
    symlink("in/done", sandbox.base().join("out")).unwrap();
    let src = "{type: file, path: in, recursive: true}";
    sandbox.rule("r", &format!("src: {src}, dest: {{type: file, path: out}}"));
    for _ in 0..2 {
        sandbox.run().succeeds();
        let expected = tree(&[("done/a", "1"), ("done/sub/b", "2")]);
        assert_eq!(sandbox.files("in"), expected);
    }
}

#[test]
fn an_item_that_would_land_among_its_own_sources_by_way_of_a_link_fails() {
    let sandbox = Sandbox::without_minio();
    sandbox.fill(End::File, "in", &tree(&[("a/a/x", "one"), ("a/x", "two")]));
    symlink("in", sandbox.base().join("out")).unwrap();
    sandbox.default("exit_on_first_failure: false");
    let src = "{type: file, path: in/a, recursive: true}";
    sandbox.rule("r", &format!("src: {src}, dest: {{type: file, path: out}}"));
    sandbox.run().fails().says("failed", &["in/a/a/x"]);
    let after = sandbox.files("in");
    assert_eq!(after, tree(&[("a/a/x", "one"), ("x", "two")]));
}

#[test]
fn a_destination_that_is_a_hard_link_of_the_source_loses_nothing() {
    for if_exists in ["overwrite", "fail", "keep_both", "skip"] {
        let sandbox = Sandbox::without_minio();
        let path = sandbox.write("in/a", "1");
        fs::hard_link(&path, sandbox.mkdir("out").join("a")).unwrap();
        sandbox.rule(
            "r",
            &format!("{}, if_exists: {if_exists}", ends(FILE_TO_FILE)),
        );
        sandbox.run().fails();
        assert!(path.exists(), "{if_exists}");
        assert_eq!(sandbox.files("out"), tree(&[("a", "1")]), "{if_exists}");
    }
}

#[test]
fn a_symlink_at_the_destination_is_replaced_and_not_followed() {
    let sandbox = Sandbox::new();
    let victim = sandbox.write("victim", "precious");
    symlink(&victim, sandbox.mkdir("out").join("a")).unwrap();
    sandbox.bucket().put("in/a", "new");
    sandbox.rule("r", &ends(S3_TO_FILE));
    sandbox.run().succeeds();
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
    assert_eq!(sandbox.files("out"), tree(&[("a", "new")]));
}

#[test]
fn an_item_that_would_land_among_its_own_sources_fails_before_anything_is_written() {
    for end in [End::S3, End::File] {
        let sandbox = Sandbox::new();
        sandbox.fill(end, "in", &tree(&[("a/a/x", "one"), ("a/x", "two")]));
        let src = end.at("in/a").replace('}', ", recursive: true}");
        sandbox.default("exit_on_first_failure: false");
        sandbox.rule("r", &format!("src: {src}, dest: {}", end.at("in")));
        sandbox.run().fails().says("failed", &["in/a/a/x"]);
        let after = sandbox.at_end(end, "in");
        assert_eq!(after, tree(&[("a/a/x", "one"), ("x", "two")]), "{end:?}");
    }
}

#[test]
fn a_full_staging_directory_fails_the_item_and_names_the_place() {
    let sandbox = Sandbox::new();
    sandbox.write("in/a", noise(300_000, 1));
    sandbox.env("TMPDIR", sandbox.path("no-such-directory"));
    sandbox.rule("r", &ends(FILE_TO_S3));
    let run = sandbox.run();
    assert_ne!(run.code(), 0);
    let said = format!("{}{}", run.stdout, run.stderr);
    assert!(
        said.contains("no-such-directory") && said.contains("TMPDIR"),
        "{said}"
    );
    assert!(sandbox.files("in").len() == 1 && !sandbox.bucket().has("out/a"));
}

/// Runs the program where `TMPDIR` is a disk of 40 MiB, of which 16 stay free.
fn on_a_small_staging_disk(sandbox: &Sandbox) {
    let mount = "mount -t tmpfs -o size=40m bots-mover \"$0\" && exec \"$@\"";
    let unshare = if rustix::process::geteuid().is_root() {
        vec!["unshare", "--mount"]
    } else {
        vec!["unshare", "--map-root-user", "--mount"]
    };
    sandbox.launch_through(&unshare);
    sandbox.launch_through(&["sh", "-c", mount]);
    sandbox.launch_through(&[sandbox.tmp()]);
}

#[test]
fn what_does_not_fit_the_staging_disk_waits_for_what_is_in_flight() {
    let sandbox = Sandbox::new();
    for number in 0..6 {
        sandbox.write(format!("in/{number}"), noise(11 << 20, number));
    }
    sandbox.rule("r", &ends(FILE_TO_S3));
    on_a_small_staging_disk(&sandbox);
    let run = sandbox.run();
    run.succeeds();
    assert!(run.of("retry").is_empty(), "{run:?}");
    assert_eq!(sandbox.bucket().keys().len(), 6);
    assert!(sandbox.files("in").is_empty());
}

#[test]
fn what_never_fits_the_staging_disk_fails_before_it_is_read() {
    let sandbox = Sandbox::new();
    sandbox.write("in/a", noise(25 << 20, 1));
    sandbox.rule("r", &ends(FILE_TO_S3));
    on_a_small_staging_disk(&sandbox);
    let run = sandbox.run();
    let says = ["take room for", "No space", "TMPDIR", "16 MiB"];
    run.fails().says("failed", &says);
    assert_eq!(sandbox.files("in").len(), 1);
    assert!(!sandbox.bucket().has("out/a"));
}

/// Nothing that goes to a directory needs room in `TMPDIR`.
#[test]
fn what_goes_to_a_directory_is_staged_there_and_not_in_tmpdir() {
    for source in [End::S3, End::File] {
        let sandbox = Sandbox::new();
        sandbox.fill(source, "in", &tree(&[("a", noise(300_000, 1))]));
        sandbox.env("TMPDIR", sandbox.path("no-such-directory"));
        sandbox.rule("r", &ends((source, End::File)));
        sandbox.run().succeeds();
        assert_eq!(sandbox.files("out"), tree(&[("a", noise(300_000, 1))]));
    }
}

#[test]
fn a_quota_fails_the_item_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    sandbox.fill(
        End::S3,
        "in",
        &tree(&[("big", noise(400_000, 1)), ("small", vec![1])]),
    );
    sandbox.default("exit_on_first_failure: false");
    // Files may not grow beyond 200 blocks of 512 bytes; a write beyond fails with EFBIG.
    sandbox.file_size_limit_blocks("200");
    sandbox.rule("r", &ends(S3_TO_FILE));
    sandbox
        .run()
        .fails()
        .logs("rule_done", &[("moved", "1"), ("failed", "1")]);
    assert_eq!(sandbox.files("out").names(), ["small"]);
    assert_eq!(sandbox.bucket().keys(), ["in/big"]);
    assert_eq!(fs::read_dir(sandbox.tmp()).unwrap().count(), 0);
}

#[test]
fn what_was_at_the_destination_survives_a_failed_item() {
    let corrupt = [
        (
            S3_TO_FILE,
            When::op(Op::Get).always(),
            Fault::CorruptAnswer(5),
        ),
        (S3_TO_FILE, When::op(Op::Get).always(), Fault::Truncate(5)),
        (
            FILE_TO_S3,
            When::op(Op::Put).always(),
            Fault::CorruptRequest(5),
        ),
        (FILE_TO_S3, When::op(Op::Put).always(), Fault::ResetBefore),
    ];
    for (direction, when, fault) in corrupt {
        let sandbox = Sandbox::new();
        let proxy = sandbox.proxy();
        sandbox.fill(direction.0, "in", &tree(&[("a", noise(1000, 1))]));
        let old = tree(&[("a", "old")]);
        sandbox.fill(direction.1, "out", &old);
        proxy.fault(when, fault);
        sandbox.rule("r", &ends(direction));
        sandbox.run().fails();
        assert_eq!(sandbox.at_end(direction.1, "out"), old, "{direction:?}");
        assert_eq!(sandbox.at_end(direction.0, "in").len(), 1, "{direction:?}");
    }
}

#[test]
fn nothing_is_visible_anywhere_while_an_item_is_staged() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    sandbox.bucket().put("in/a", noise(400_000, 1));
    let gate = Gate::default();
    proxy.fault(When::op(Op::Get), Fault::Stall(390_000, gate.clone()));
    sandbox.rule("r", &ends(S3_TO_FILE));
    let running = sandbox.start();
    gate.wait_for_arrivals(1);
    let staged = fs::read_dir(sandbox.tmp()).unwrap().count();
    let published = sandbox.files("out").len();
    gate.open();
    sandbox.finish(running).succeeds();
    assert_eq!((staged, published), (0, 0), "the staging file has no name");
}

#[test]
fn a_file_that_becomes_a_link_is_not_followed() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    let secret = sandbox.path("secret");
    fs::write(&secret, "not for the bucket").unwrap();
    sandbox.write_aged("in/a", "1", Duration::from_secs(100));
    let second = sandbox.write("in/b", "2");
    let swap = Fault::before(move || {
        fs::remove_file(&second).unwrap();
        symlink(&secret, &second).unwrap();
    });
    proxy.fault(When::op(Op::Put).key("out/a"), swap);
    sandbox.rule("r", &format!("{}, concurrency: 1", ends(FILE_TO_S3)));
    sandbox.run();
    assert_eq!(sandbox.bucket().keys(), ["out/a"]);
    assert!(sandbox.base().join("in/b").is_symlink());
}

/// A removal that is repeated could meet what somebody put there after the first one acted.
#[test]
fn a_repeated_removal_looks_again_at_what_it_removes() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    sandbox.bucket().put("in/a", "first");
    let bucket = sandbox.bucket().clone();
    let replace = Fault::lose_answer_after(move || bucket.put("in/a", "second"));
    proxy.fault(When::op(Op::Delete), replace);
    sandbox.rule("r", &ends(S3_TO_FILE));
    sandbox.run().exits(0);
    assert_eq!(sandbox.files("out"), tree(&[("a", "first")]));
    assert_eq!(sandbox.bucket().get("in/a").body, b"second");
}

/// The limit of threads that a pod can have: whoever lists must do the moving then.
#[test]
fn a_process_that_may_start_no_thread_moves_everything_all_the_same() {
    let sandbox = Sandbox::without_minio();
    for rule in ["r", "s", "t"] {
        sandbox.write(format!("in/{rule}/a"), "1");
        let src = format!("src: {{type: file, path: in/{rule}}}");
        let dest = format!("dest: {{type: file, path: out/{rule}}}");
        sandbox.rule(rule, &format!("{src}, {dest}"));
    }
    // One thread is the program, the other listens for signals.
    sandbox.threads_at_most(2);
    sandbox.run().succeeds();
    assert_eq!(sandbox.files("out").names(), ["r/a", "s/a", "t/a"]);
    assert!(sandbox.files("in").is_empty());
}
