//! The log: its lines, their keys, and what must never be in it.

use std::time::Duration;

use crate::support::minio::{ACCESS_KEY, SECRET_KEY};
use crate::support::process::Run;
use crate::support::trace::{Injection, traced};
use crate::support::{DIRECTIONS, End, Fault, Gate, Op, Sandbox, When, ends, tree};

const S3_TO_FILE: (End, End) = (End::S3, End::File);

#[test]
fn a_runs_lines_come_in_their_order_with_their_keys() {
    for format in ["text", "json"] {
        let sandbox = Sandbox::new();
        sandbox.bucket().put("in/a", "123");
        sandbox.rule("r", &ends(S3_TO_FILE));
        let run = sandbox.run_with(&["--log-format", format]);
        run.succeeds();
        let events = run.events();
        let kinds: Vec<_> = events.iter().map(|line| line.event().to_owned()).collect();
        assert_eq!(
            kinds,
            ["run_start", "rule_start", "moved", "rule_done", "run_done"]
        );
        let has = |event: &str, keys: &[&str]| {
            let line = run.one(event);
            for key in keys {
                assert!(line.keys().contains(key), "{key} in {line:?}");
            }
        };
        has(
            "rule_start",
            &["rule", "selected", "more", "mode", "src", "dest"],
        );
        has("moved", &["rule", "src", "dest", "bytes", "ms", "attempt"]);
        has(
            "rule_done",
            &[
                "rule", "moved", "copied", "skipped", "failed", "bytes", "ms",
            ],
        );
        has(
            "run_done",
            &["moved", "copied", "skipped", "failed", "bytes", "ms"],
        );
        assert!(events.iter().all(|line| line.level == "INFO"), "{events:?}");
        let moved = run.one("moved");
        assert_eq!(
            moved.get("src"),
            format!("s3://{}/in/a", sandbox.bucket().name())
        );
        assert_eq!(
            moved.get("dest"),
            sandbox.base().join("out/a").to_string_lossy()
        );
        assert_eq!((moved.number("bytes"), moved.number("attempt")), (3, 1));
    }
}

/// The keys of the first line of this kind, in the order of the line.
#[track_caller]
fn keys(run: &Run, event: &str, expected: &[&str]) {
    let line = run.of(event).into_iter().next();
    let line = line.unwrap_or_else(|| panic!("no {event} in {run:?}"));
    let expected = [&["event"], expected].concat();
    assert_eq!(line.keys(), expected, "{line:?}");
}

const COUNTS: [&str; 6] = ["moved", "copied", "skipped", "failed", "bytes", "ms"];

#[test]
fn each_event_has_its_keys_in_their_order_and_no_others() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    let items = tree(&[("a", "1"), ("b", "2"), ("c", "3")]);
    sandbox.fill(End::S3, "in", &items);
    sandbox.fill(End::File, "files", &items);
    sandbox.fill(End::File, "copies", &tree(&[("a", "other")]));
    sandbox.default("exit_on_first_failure: false");
    sandbox.default("wait_seconds: 0");
    let broken = Fault::status(503, "SlowDown");
    proxy.fault(When::op(Op::Get).key("in/b").times(3), broken);
    let denied = Fault::status(403, "AccessDenied");
    proxy.fault(When::op(Op::Get).key("in/c").always(), denied);
    sandbox.rule("s3", &format!("{}, retries: 1", ends(S3_TO_FILE)));
    let dest = "dest: {type: file, path: copies}, mode: copy, if_exists: skip";
    sandbox.rule("file", &format!("src: {{type: file, path: files}}, {dest}"));
    let run = sandbox.run();
    run.fails();
    keys(
        &run,
        "run_start",
        &["version", "rules", "concurrency", "dry_run"],
    );
    let from_s3 = ["rule", "selected", "more", "mode", "src", "dest"];
    let from_files = [
        "rule",
        "selected",
        "more",
        "oldest_age_seconds",
        "mode",
        "src",
        "dest",
    ];
    for line in run.of("rule_start") {
        let expected = if line.get("rule") == "s3" {
            &from_s3[..]
        } else {
            &from_files[..]
        };
        assert_eq!(line.keys()[1..], *expected, "{line:?}");
    }
    let delivered = ["rule", "src", "dest", "bytes", "ms", "attempt"];
    keys(&run, "moved", &delivered);
    keys(&run, "copied", &delivered);
    keys(&run, "skipped", &["rule", "reason"]);
    let retry = ["rule", "src", "attempt", "wait_seconds", "error"];
    keys(&run, "retry", &retry);
    keys(&run, "failed", &["rule", "src", "dest", "attempt", "error"]);
    keys(&run, "rule_done", &[&["rule"], &COUNTS[..]].concat());
    keys(&run, "run_done", &[&COUNTS[..], &["exit"]].concat());

    sandbox.fill(End::File, "files", &tree(&[("d", "4")]));
    let run = sandbox.run_with(&["--dry-run"]);
    let would = ["rule", "src", "dest", "bytes"];
    keys(&run, "would_move", &would);
    keys(&run, "would_copy", &would);
}

#[test]
fn numbers_and_flags_are_no_strings_in_json() {
    let sandbox = Sandbox::new();
    sandbox.bucket().put("in/a", "123");
    sandbox.env("BOTS_MOVER_LOG_FORMAT", "json");
    sandbox.rule("r", &ends(S3_TO_FILE));
    let run = sandbox.run();
    let line = |event: &str| {
        let found = run
            .stdout
            .lines()
            .find(|line| line.contains(&format!("\"{event}\"")));
        serde_json::from_str::<serde_json::Value>(found.expect("the line is there")).unwrap()
    };
    assert!(line("moved")["bytes"].is_u64() && line("moved")["ms"].is_u64());
    assert!(line("rule_start")["more"].is_boolean());
    assert!(line("run_done")["moved"].is_u64());
}

#[test]
fn a_key_cannot_forge_a_line() {
    for format in ["text", "json"] {
        let sandbox = Sandbox::new();
        let forged =
            "x\n2026-11-21T08:10:04.123Z INFO event=moved rule=forged\u{1b}[2J\u{85}\u{7f}";
        sandbox.bucket().put(&format!("in/{forged}"), "1");
        sandbox.rule("r", &ends(S3_TO_FILE));
        let run = sandbox.run_with(&["--log-format", format]);
        run.succeeds();
        assert_eq!(run.of("moved").len(), 1, "{run:?}");
        assert!(run.one("moved").get("src").ends_with(forged), "{run:?}");
        let control = |c: char| c.is_control() && c != '\n';
        assert!(!run.stdout.contains(control), "{:?}", run.stdout);
    }
}

#[test]
fn a_level_shows_itself_and_what_is_graver() {
    let lines = |level: &str| {
        let sandbox = Sandbox::new();
        let proxy = sandbox.proxy();
        sandbox.default("exit_on_first_failure: false");
        sandbox.fill(End::S3, "in", &tree(&[("a", "1"), ("b", "2")]));
        let broken = Fault::status(503, "SlowDown");
        proxy.fault(When::op(Op::Get).key("in/a").always(), broken);
        sandbox.rule(
            "r",
            &format!("{}, retries: 1, wait_seconds: 0", ends(S3_TO_FILE)),
        );
        sandbox.env("BOTS_MOVER_LOG_LEVEL", "info");
        let run = sandbox.run_with(&["--log-level", level]);
        run.fails();
        let mut levels: Vec<_> = run.events().iter().map(|line| line.level.clone()).collect();
        levels.sort();
        levels.dedup();
        (
            levels,
            run.of("failed").len(),
            run.of("retry").len(),
            run.of("moved").len(),
        )
    };
    assert_eq!(lines("error"), (vec!["ERROR".to_owned()], 1, 0, 0));
    assert_eq!(
        lines("warn"),
        (vec!["ERROR".into(), "WARN".into()], 1, 1, 0)
    );
    assert_eq!(
        lines("info"),
        (vec!["ERROR".into(), "INFO".into(), "WARN".into()], 1, 1, 1)
    );
}

#[test]
fn no_secret_is_in_any_output_at_any_level() {
    let statuses = [
        (403, "SignatureDoesNotMatch"),
        (500, "InternalError"),
        (404, ""),
    ];
    for (direction, (status, code)) in DIRECTIONS.into_iter().take(3).zip(statuses) {
        let sandbox = Sandbox::new();
        let proxy = sandbox.proxy();
        sandbox.env("MINIO_SECRET_KEY", format!("{SECRET_KEY}\n"));
        sandbox.env("MINIO_SESSION_TOKEN", "");
        sandbox.default("exit_on_first_failure: false");
        sandbox.fill(
            direction.0,
            "in",
            &tree(&[("a", "1"), ("b", "2"), ("c", "3")]),
        );
        proxy.fault(When::any().after(1).times(2), Fault::status(status, code));
        let retries = "retries: 1, wait_seconds: 0";
        sandbox.rule("r", &format!("{}, {retries}", ends(direction)));
        let run = sandbox.run_with(&["--log-level", "debug"]);
        run.never_says(SECRET_KEY).never_says(ACCESS_KEY);
        for part in ["X-Amz-", "x-amz-signature", "Signature=", "Credential="] {
            run.never_says(part);
        }
    }
}

#[test]
fn a_session_token_is_a_secret_too() {
    let sandbox = Sandbox::new();
    sandbox.env("MINIO_SESSION_TOKEN", "token-that-nobody-may-see");
    sandbox.bucket().put("in/a", "1");
    sandbox.rule("r", &ends(S3_TO_FILE));
    let run = sandbox.run_with(&["--log-level", "debug"]);
    run.fails().never_says("token-that-nobody-may-see");
}

#[test]
fn a_failed_item_says_where_why_and_at_which_attempt() {
    let sandbox = Sandbox::new();
    sandbox.bucket().put("in/a", "1");
    sandbox.write("out/a/b", "in the way");
    sandbox.rule("r", &ends(S3_TO_FILE));
    let run = sandbox.run();
    run.fails();
    let failed = run.one("failed");
    assert_eq!((failed.get("rule"), failed.level.as_str()), ("r", "ERROR"));
    assert!(failed.get("src").ends_with("in/a") && failed.number("attempt") == 1);
    assert!(!failed.get("error").is_empty() && !failed.get("error").ends_with('.'));
    assert_eq!(run.one("run_done").number("failed"), 1);
}

#[test]
fn a_dry_run_says_what_would_happen_and_changes_nothing() {
    for direction in DIRECTIONS {
        for (mode, event) in [("move", "would_move"), ("copy", "would_copy")] {
            let sandbox = Sandbox::new();
            let proxy = sandbox.proxy();
            let items = tree(&[("a.edi", "1"), ("b.edi", "22"), ("c.edi", "333")]);
            sandbox.fill(direction.0, "in", &items);
            let rename = "rename: {regex: 'edi$', replace: 'x12'}";
            let dest = direction.1.at("out").replace('}', &format!(", {rename}}}"));
            let src = direction.0.at("in");
            let rule = format!("src: {src}, dest: {dest}, mode: {mode}, max_items: 2");
            sandbox.rule("r", &rule);
            let run = sandbox.run_with(&["--dry-run"]);
            run.succeeds();
            assert_eq!(run.of(event).len(), 2, "{direction:?}");
            assert!(
                run.of(event)[0].get("dest").ends_with("out/a.x12"),
                "{direction:?}"
            );
            assert_eq!(sandbox.at_end(direction.0, "in"), items, "{direction:?}");
            assert!(
                sandbox.at_end(direction.1, "out").is_empty(),
                "{direction:?}"
            );
            assert!(!sandbox.base().join("out").exists(), "{direction:?}");
            for op in [Op::Get, Op::Put, Op::Delete, Op::CreateUpload] {
                assert_eq!(proxy.count(op), 0, "{direction:?} {op:?}");
            }
        }
    }
}

#[test]
fn a_dry_run_tells_of_items_that_would_fail() {
    let sandbox = Sandbox::without_minio();
    sandbox.write("in/a.1", "1");
    sandbox.write("in/a.2", "2");
    let dest = "{type: file, path: out, rename: {regex: '\\..$', replace: ''}}";
    sandbox.rule("r", &format!("src: {{type: file, path: in}}, dest: {dest}"));
    let run = sandbox.run_with(&["--dry-run"]);
    assert_eq!(
        (run.of("would_move").len(), run.of("failed").len()),
        (1, 1),
        "{run:?}"
    );
    assert_eq!(sandbox.files("in").len(), 2);
}

#[test]
fn the_last_line_is_the_termination_message() {
    let sandbox = Sandbox::without_minio();
    let message = sandbox.path("termination");
    std::fs::write(&message, "of an earlier container, and rather long").unwrap();
    sandbox.write("in/a", "1");
    sandbox.rule("r", &ends((End::File, End::File)));
    let run = sandbox.run();
    let last = run.stdout.lines().last().unwrap().to_owned();
    assert!(last.contains("run_done"), "{last}");
    assert_eq!(std::fs::read_to_string(&message).unwrap().trim_end(), last);

    sandbox.rule("broken", "src: 1");
    let run = sandbox.run();
    run.exits(2);
    let told = std::fs::read_to_string(&message).unwrap();
    assert!(told.contains("broken"), "{told}");
}

#[test]
fn the_first_failure_comes_before_the_last_line_of_the_termination_message() {
    let sandbox = Sandbox::without_minio();
    let message = sandbox.path("termination");
    std::fs::write(&message, "").unwrap();
    sandbox.default("exit_on_first_failure: false");
    sandbox.default("concurrency: 1");
    // Quoted and escaped, one of these names fills a line of more than a message may hold.
    for name in ["a", "b"] {
        let deep = format!("{}{name}", "\u{1}".repeat(250));
        sandbox.write(format!("in/{deep}"), "1");
        sandbox.mkdir(format!("out/{deep}/taken"));
    }
    sandbox.rule("r", &ends((End::File, End::File)));
    let run = sandbox.run();
    run.exits(1);
    let failed = run.stdout.lines().find(|line| line.contains("=failed "));
    let last = run.stdout.lines().last().unwrap();
    let told = std::fs::read_to_string(&message).unwrap();
    let (first, end) = told.rsplit_once('\n').unwrap();
    assert_eq!(end, last);
    assert!(failed.unwrap().starts_with(first), "{told}");
    assert_eq!(told.len(), 4096);
}

#[test]
fn a_termination_file_that_is_not_there_is_not_made() {
    let sandbox = Sandbox::without_minio();
    sandbox.mkdir("in");
    sandbox.rule("r", &ends((End::File, End::File)));
    sandbox.run().succeeds();
    assert!(!sandbox.path("termination").exists());
}

#[test]
fn an_item_that_takes_long_tells_of_its_progress() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    sandbox
        .bucket()
        .put("in/a", crate::support::data::noise(400_000, 1));
    let (gate, listing) = (Gate::default(), Gate::default());
    proxy.fault(When::op(Op::Get), Fault::Stall(200_000, gate.clone()));
    let stalled = When::op(Op::HeadBucket);
    proxy.fault(stalled, Fault::Hold(listing.clone()));
    // Whoever lists a rule for long must not be the one who tells.
    let src = "src: {type: file, path: files}";
    sandbox.rule("lists", &format!("{src}, dest: {{type: s3, path: out}}"));
    sandbox.rule("r", &ends(S3_TO_FILE));
    let running = sandbox.start();
    running.wait_for("event=progress rule=r");
    running.wait_for("event=progress rule=lists");
    gate.open();
    listing.open();
    let run = sandbox.finish(running);
    run.succeeds();
    let lines = run.of("progress");
    let of = |rule: &str| lines.iter().find(|line| line.get("rule") == rule);
    let line = of("r").expect("the item tells of itself");
    let item_keys = ["event", "rule", "src", "dest", "bytes", "of", "percent"];
    assert_eq!(line.keys(), item_keys, "{line:?}");
    let listing = of("lists").expect("so does the listing");
    assert_eq!(listing.keys(), ["event", "rule", "src", "note"]);
    let note = listing.get("note");
    assert!(note.starts_with("listing for 1"), "{note}");
    assert!(note.contains("NFS"), "its source is a directory: {note}");
    assert_eq!(line.number("of"), 400_000, "{line:?}");
    // What is staged where it goes counts in full.
    let (bytes, percent) = (line.number("bytes"), line.number("percent"));
    assert!((130_000..=200_000).contains(&bytes), "{line:?}");
    assert_eq!(percent, bytes * 100 / 400_000, "{line:?}");
    assert!(run.elapsed >= Duration::from_secs(9), "{:?}", run.elapsed);
}

#[test]
fn an_item_that_waits_for_a_volume_says_every_10_s_for_which() {
    // Its own ten seconds: a few hundredths later than the second ten of the run. The first sync is
    // that of the directory, before the part file is made; the second is the part file's.
    for (sync, delay_s, told, bytes) in [(1, 21, 2, 2), (2, 11, 1, 5)] {
        let sandbox = Sandbox::new();
        sandbox.bucket().put("in/a", "12345");
        sandbox.rule("r", &ends(S3_TO_FILE));
        let delay = Injection::Delay("fsync", Duration::from_secs(delay_s), sync);
        let run = traced(&sandbox, "fsync", &[], Some(delay)).run;
        run.succeeds();
        let lines = run.of("progress");
        assert_eq!(lines.len(), told, "{run:?}");
        let line = &lines[0];
        let dest = sandbox.path("base/out/a").display().to_string();
        assert_eq!(line.get("dest"), dest, "{line:?}");
        assert_eq!(line.number("bytes"), bytes, "{line:?}");
        let note = line.get("note");
        assert!(note.contains("NFS server"), "{line:?}");
        // Then it may as well be MinIO that is silent.
        assert_eq!(note.contains("removed at its source"), bytes == 5, "{note}");
    }
}

#[test]
fn a_log_that_nobody_reads_stops_no_move() {
    let sandbox = Sandbox::without_minio();
    let items: crate::support::Tree = (0..50).map(|n| (format!("{n}"), "1")).collect();
    sandbox.fill(End::File, "in", &items);
    sandbox.rule("r", &ends((End::File, End::File)));
    sandbox.closed_stdout();
    let run = sandbox.run();
    run.exits(0);
    assert_eq!(sandbox.files("out"), items);
}
