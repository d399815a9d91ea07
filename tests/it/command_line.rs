//! Calls, exit codes, what is refused, and the calls beside `run`.

use crate::support::{End, Op, Sandbox, ends, tree};

const FILE_TO_FILE: (End, End) = (End::File, End::File);
const S3_TO_FILE: (End, End) = (End::S3, End::File);

#[test]
fn help_and_version_are_on_standard_output() {
    let sandbox = Sandbox::without_minio();
    for flag in ["--help", "-h"] {
        let run = sandbox.call(&[flag]);
        run.exits(0);
        for word in [
            "check",
            "explain",
            "move",
            "copy",
            "--config",
            "--rule",
            "--dry-run",
        ] {
            assert!(run.stdout.contains(word), "{word}");
        }
        assert!(run.stderr.is_empty());
        assert!(run.stdout.lines().count() <= 40, "it fits a screen");
        let columns = run.stdout.lines().map(|line| line.chars().count());
        assert!(columns.max() <= Some(90), "it fits a screen");
    }
    let run = sandbox.call(&["--version"]);
    run.exits(0);
    assert_eq!(
        run.stdout.trim(),
        format!("bots-mover {}", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn schema_prints_the_json_schema_of_the_config_and_needs_nothing() {
    let sandbox = Sandbox::without_minio();
    sandbox.env("TZ", "Europe/Atlantis");
    let run = sandbox.call(&["schema"]);
    run.exits(0);
    let schema: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let dialect = "https://json-schema.org/draft/2020-12/schema";
    assert_eq!(schema["$schema"], dialect);
    assert_eq!(run.stdout, bots_mover::config::json_schema());
    sandbox.call(&["schema", "x"]).is_refused(&["schema", "x"]);
    sandbox
        .call(&["schema", "--config", "x"])
        .is_refused(&["--config"]);
}

#[test]
fn an_unknown_flag_is_refused_with_the_near_one() {
    let sandbox = Sandbox::without_minio();
    sandbox
        .call(&["--confg", "x"])
        .is_refused(&["--confg", "did you mean --config"]);
    sandbox.call(&["--dryrun"]).is_refused(&["--dry-run"]);
    sandbox
        .call(&["--frobnicate"])
        .is_refused(&["--frobnicate", "--help"]);
    sandbox.call(&["rnu"]).is_refused(&["rnu", "run"]);
    sandbox.call(&["run", "extra"]).is_refused(&["extra"]);
    sandbox
        .call(&["move", "only-one"])
        .is_refused(&["SRC", "DEST"]);
    sandbox
        .call(&["--log-format", "xml"])
        .is_refused(&["text", "json"]);
    sandbox
        .call(&["--log-level", "loud"])
        .is_refused(&["error", "debug"]);
}

#[test]
fn run_is_what_a_call_without_a_word_does() {
    let sandbox = Sandbox::without_minio();
    sandbox.rule("r", &ends(FILE_TO_FILE));
    for words in [&[][..], &["run"]] {
        sandbox.write("in/a", "1");
        sandbox.run_with(words).succeeds();
        assert!(sandbox.files("in").is_empty());
    }
}

#[test]
fn the_config_comes_from_a_flag_or_the_environment_or_standard_input() {
    let sandbox = Sandbox::without_minio();
    sandbox.rule("r", &ends(FILE_TO_FILE));
    sandbox.write("in/a", "1");
    sandbox
        .call_with_stdin(&["--config", "-"], &sandbox.config())
        .succeeds();
    assert_eq!(sandbox.files("out").names(), ["a"]);

    sandbox.write("in/b", "1");
    let path = sandbox.path("rules.yaml");
    std::fs::write(&path, sandbox.config()).unwrap();
    sandbox
        .env("BOTS_MOVER_CONFIG", &path)
        .call::<&str>(&[])
        .succeeds();
    assert_eq!(sandbox.files("out").names(), ["a", "b"]);

    sandbox.env("BOTS_MOVER_CONFIG", "/nowhere/at/all.yaml");
    sandbox
        .call::<&str>(&[])
        .is_refused(&["/nowhere/at/all.yaml", "BOTS_MOVER_CONFIG"]);
}

#[test]
fn only_the_named_rules_run() {
    let sandbox = Sandbox::without_minio();
    for rule in ["one", "two", "three"] {
        sandbox.write(format!("{rule}/a"), rule);
        let src = format!("src: {{type: file, path: {rule}}}");
        sandbox.rule(
            rule,
            &format!("{src}, dest: {{type: file, path: out/{rule}}}"),
        );
    }
    let run = sandbox.run_with(&["--rule", "three", "--rule", "one"]);
    run.succeeds();
    assert_eq!(run.of("rule_done").len(), 2);
    assert_eq!(sandbox.files("out").names(), ["one/a", "three/a"]);
    sandbox
        .run_with(&["--rule", "twoo"])
        .is_refused(&["twoo", "one", "two", "three"]);
    assert_eq!(sandbox.files("two").len(), 1);
}

#[test]
fn a_rule_that_is_left_out_needs_no_minio() {
    let sandbox = Sandbox::without_minio();
    sandbox.default("default_bucket: edi");
    sandbox.write("in/a", "1");
    sandbox.rule("files", &ends(FILE_TO_FILE));
    sandbox.rule(
        "s3",
        "src: {type: s3, path: x}, dest: {type: file, path: y}",
    );
    sandbox.run_with(&["--rule", "files"]).succeeds();
    let names = ["MINIO_ENDPOINT", "MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"];
    sandbox.run().is_refused(&names);
}

#[test]
fn a_wrong_environment_is_refused_before_anything_is_touched() {
    for (name, value, said) in [
        ("TZ", "Europe/Atlantis", "Europe/Atlantis"),
        ("BOTS_MOVER_UMASK", "0999", "BOTS_MOVER_UMASK"),
        ("BOTS_MOVER_LOG_FORMAT", "xml", "BOTS_MOVER_LOG_FORMAT"),
        ("BOTS_MOVER_LOG_LEVEL", "loud", "BOTS_MOVER_LOG_LEVEL"),
        ("MINIO_ENDPOINT", "ftp://host", "MINIO_ENDPOINT"),
        ("MINIO_ENDPOINT", "", "MINIO_ENDPOINT"),
        ("MINIO_CONNECT_TIMEOUT", "soon", "MINIO_CONNECT_TIMEOUT"),
        ("MINIO_READ_TIMEOUT", "-1", "MINIO_READ_TIMEOUT"),
        (
            "MINIO_ADDRESSING_STYLE",
            "sideways",
            "MINIO_ADDRESSING_STYLE",
        ),
        ("MINIO_VERIFY", "/nowhere/ca.pem", "/nowhere/ca.pem"),
    ] {
        let sandbox = Sandbox::new();
        sandbox.bucket().put("in/a", "1");
        sandbox.write("files/a", "1");
        sandbox.env(name, value);
        sandbox.rule("r", &ends(S3_TO_FILE));
        sandbox.rule(
            "f",
            "src: {type: file, path: files}, dest: {type: file, path: moved}",
        );
        sandbox.run().is_refused(&[said]);
        assert!(sandbox.bucket().has("in/a"), "{name}");
        assert_eq!(sandbox.files(".").names(), ["files/a"], "{name}");
    }
}

#[test]
fn a_config_error_touches_nothing_and_all_are_told_at_once() {
    let sandbox = Sandbox::without_minio();
    sandbox.write("in/a", "1");
    sandbox.rule("good", &ends(FILE_TO_FILE));
    sandbox.rule(
        "typo",
        &format!(
            "{}, retry: 3",
            ends((End::File, End::File)).replace("in", "x")
        ),
    );
    sandbox.rule(
        "range",
        "src: {type: file, path: y}, dest: {type: file, path: z}, retries: 101",
    );
    let dest = "{type: file, path: w, rename_rule: {regex: a, replace: b}}";
    sandbox.rule(
        "nested",
        &format!("src: {{type: file, path: v}}, dest: {dest}"),
    );
    let run = sandbox.run();
    run.is_refused(&[
        "typo",
        "retry",
        "retries",
        "range",
        "101",
        "nested",
        "rename_rule",
        "rename",
    ]);
    assert!(run.stdout.is_empty(), "{run:?}");
    assert_eq!(sandbox.files(".").names(), ["in/a"]);
}

#[test]
fn a_config_that_is_no_config_is_refused() {
    let sandbox = Sandbox::without_minio();
    for text in [
        "",
        "hello",
        "config: {}",
        "config: {defaults: {}}",
        "other: 1",
        "a: b: c",
        "[1]",
    ] {
        let run = sandbox.call_with_stdin(&["--config", "-"], text);
        run.exits(2);
        assert!(!run.stderr.is_empty(), "{text:?}");
    }
}

#[test]
fn check_prints_each_rule_as_resolved_and_touches_nothing() {
    let sandbox = Sandbox::without_minio();
    sandbox.default("default_bucket: edi").default("retries: 7");
    sandbox.write("in/a", "1");
    sandbox.rule(
        "files",
        &format!("description: Orders, {}", ends(FILE_TO_FILE)),
    );
    sandbox.rule(
        "s3",
        "src: {type: s3, path: /x/y}, dest: {type: file, path: /abs}, mode: copy",
    );
    let run = sandbox.run_with(&["check"]);
    run.exits(0);
    let base = sandbox.base();
    let full = [base.join("in"), base.join("out"), "/abs".into()];
    for text in full
        .iter()
        .map(|path| path.to_string_lossy().into_owned())
        .chain(["files", "Orders", "s3://edi/x/y/", "copy", "move", "7"].map(str::to_owned))
    {
        assert!(run.stdout.contains(&text), "{text} in {run:?}");
    }
    assert_eq!(sandbox.files(".").names(), ["in/a"]);

    sandbox.rule(
        "broken",
        "src: {type: nfs, path: x}, dest: {type: file, path: y}",
    );
    sandbox
        .run_with(&["check"])
        .is_refused(&["broken", "nfs", "s3"]);
}

/// A blank in a path looked like the end of it, a soft hyphen like nothing.
#[test]
fn check_and_explain_quote_and_escape_what_they_print() {
    let sandbox = Sandbox::without_minio();
    let src = r#"{type: file, path: "in here", match: {regex: '^PO \d'}}"#;
    let dest = "{type: file, path: out, rename: {regex: 'a b', replace: c}}";
    let about = r#"description: "Orders\u00ad of\tpartners""#;
    sandbox.rule(
        r#""or\u00a0ders""#,
        &format!("{about}, src: {src}, dest: {dest}"),
    );
    let run = sandbox.run_with(&["check"]);
    run.exits(0);
    let from = format!(
        "from         \"{}\"  (this",
        sandbox.base().join("in here").display()
    );
    for text in [
        "\"or\\u{a0}ders\"  Orders\\u{ad} of\\tpartners\n",
        &from,
        r#"match        regex "^PO \\d""#,
        r#"rename       "a b" to c"#,
    ] {
        assert!(run.stdout.contains(text), "{text} in {run:?}");
    }
    let run = sandbox.run_with(&["explain", "PO 1\u{200b}"]);
    run.exits(0);
    for text in [
        r#""or\u{a0}ders": takes it"#,
        r#"the name is "PO 1\u{200b}""#,
    ] {
        assert!(run.stdout.contains(text), "{text} in {run:?}");
    }
    sandbox
        .run_with(&["--rule", "orders\u{a0}"])
        .is_refused(&[r#"--rule "orders\u{a0}""#, r#"did you mean "or\u{a0}ders""#]);
}

/// On 2027-10-31 at 3 o'clock it is 2 o'clock again in Berlin, and names by local time repeat.
#[test]
fn check_notes_local_time_where_an_hour_comes_twice() {
    let noted = |zone: &str, replace: &str| {
        let sandbox = Sandbox::without_minio();
        sandbox.env("TZ", zone);
        let dest =
            format!("{{type: file, path: out, rename: {{regex: '$', replace: '{replace}'}}}}");
        sandbox.rule("r", &format!("src: {{type: file, path: in}}, dest: {dest}"));
        let run = sandbox.run_with(&["check"]);
        run.exits(0);
        let mut lines = run.stdout.lines();
        let note = lines
            .find(|line| line.starts_with("note: "))
            .map(str::to_owned);
        assert!(lines.all(|line| !line.starts_with("note: ")), "{run:?}");
        note
    };
    let note = noted("Europe/Berlin", ".{date}-{time}").expect("a note");
    for text in [
        r#"rule "r""#,
        "{time}",
        "Europe/Berlin",
        "-10-",
        "one name",
        "-z}` are UTC",
    ] {
        assert!(note.contains(text), "{text}: {note}");
    }
    for token in ["{timestamp}", "{timestamp-iso}", "{mtime}"] {
        assert!(noted("America/New_York", token).is_some(), "{token}");
    }
    for token in ["{date}", "{date-iso}", "{timestamp-z}", "{mtime-z}", "x"] {
        assert_eq!(noted("Europe/Berlin", token), None, "{token}");
    }
    for zone in ["UTC", "Asia/Kolkata", ""] {
        assert_eq!(noted(zone, "{timestamp}"), None, "{zone}");
    }
}

#[test]
fn explain_says_where_only_the_case_differs_and_what_would_take_it() {
    let sandbox = Sandbox::without_minio();
    let rule = |pattern: &str, name: &str| {
        sandbox.forget_rules();
        let src = format!("{{type: file, path: in, match: {pattern}}}");
        sandbox.rule("r", &format!("src: {src}, dest: {{type: file, path: out}}"));
        sandbox.run_with(&["explain", name]).stdout
    };
    let hint = r"only upper and lower case differ; the regex `(?i)^.*\.edi$` takes both";
    let said = rule("{glob: '*.edi'}", "PO.EDI");
    assert!(said.contains(hint), "{said}");
    let said = rule(r"{regex: '\.edi$'}", "PO.Edi");
    assert!(said.contains(r"`(?i)\.edi$` takes both"), "{said}");
    let said = rule(r"{regex: '(?i)^.*\.edi$'}", "PO.EDI");
    assert!(
        said.contains("takes it"),
        "what is proposed does what is said: {said}"
    );
    for name in ["PO.x12", ".PO.EDI", "sub/PO.EDI"] {
        let said = rule("{glob: '*.edi'}", name);
        assert!(!said.contains("case"), "{name}: {said}");
    }
}

#[test]
fn check_warns_of_rules_that_meet() {
    let sandbox = Sandbox::without_minio();
    sandbox.rule(
        "one",
        "src: {type: file, path: in}, dest: {type: file, path: mid}",
    );
    sandbox.rule(
        "two",
        "src: {type: file, path: in}, dest: {type: file, path: other}",
    );
    sandbox.rule(
        "next",
        "src: {type: file, path: mid}, dest: {type: file, path: end}",
    );
    sandbox.rule(
        "ever",
        "src: {type: file, path: e}, dest: {type: file, path: f}, mode: copy",
    );
    let run = sandbox.run_with(&["check"]);
    run.exits(0);
    let all = format!("{}{}", run.stdout, run.stderr);
    let warnings: Vec<_> = all
        .lines()
        .filter(|line| line.contains("warning"))
        .collect();
    for names in [["one", "two"], ["one", "next"], ["ever", "if_exists"]] {
        let found = warnings
            .iter()
            .any(|line| names.iter().all(|name| line.contains(name)));
        assert!(found, "{names:?} in {warnings:?}");
    }
    sandbox.mkdir("in");
    let run = sandbox.run();
    assert!(
        run.events()
            .iter()
            .filter(|line| line.level == "WARN")
            .count()
            >= 3,
        "{run:?}"
    );
}

#[test]
fn a_failing_example_is_refused_before_anything_is_touched() {
    let sandbox = Sandbox::without_minio();
    sandbox.write("in/a.edi", "1");
    let src = "{type: file, path: in, match: {glob: '*.edi'}}";
    let rule = |example: &str| {
        sandbox.forget_rules();
        let dest = "{type: file, path: out, rename: {regex: edi$, replace: 'x12'}}";
        sandbox.rule(
            "r",
            &format!("src: {src}, dest: {dest}, examples: [{example}]"),
        );
    };
    rule("{name: a.edi, becomes: a.edi}");
    sandbox.run().is_refused(&["r", "a.edi", "a.x12"]);
    rule("{name: a.edi, ignored: true}");
    sandbox.run_with(&["check"]).is_refused(&["a.edi"]);
    assert_eq!(sandbox.files(".").names(), ["in/a.edi"]);
    rule("{name: a.edi, becomes: a.x12}, {name: a.tmp, ignored: true}");
    sandbox.run().succeeds();
    assert_eq!(sandbox.files(".").names(), ["out/a.x12"]);
}

#[test]
fn explain_says_which_rule_takes_a_name_and_why_not_the_others() {
    let sandbox = Sandbox::without_minio();
    sandbox.default("default_bucket: edi");
    let rename = "rename: {regex: edi$, replace: x12}";
    let src = "{type: s3, path: in, match: {glob: '*.edi'}}";
    sandbox.rule(
        "orders",
        &format!("src: {src}, dest: {{type: file, path: out, {rename}}}"),
    );
    sandbox.rule(
        "rest",
        "src: {type: s3, path: in/rest}, dest: {type: file, path: rest}",
    );
    let run = sandbox.run_with(&["explain", "s3://edi/in/po1.edi"]);
    run.exits(0);
    for text in ["orders", "rest", "out/po1.x12"] {
        assert!(run.stdout.contains(text), "{text} in {run:?}");
    }
    sandbox.run_with(&["explain", "po1.tmp"]).exits(0);
    let run = sandbox.run_with(&["explain", "s3://edi/in/po1.tmp"]);
    run.exits(1);
    assert!(run.stdout.contains("*.edi"), "{run:?}");
    sandbox
        .run_with(&["explain", "s3://other/in/po1.edi"])
        .exits(1);
    let path = sandbox.base().join("in/po1.edi");
    sandbox
        .run_with(&["explain", path.to_str().unwrap()])
        .exits(1);
}

#[test]
fn explain_gives_the_reason_of_each_rule_that_does_not_take_a_name() {
    let sandbox = Sandbox::without_minio();
    sandbox.default("default_bucket: edi");
    let dest = "dest: {type: file, path: out}";
    let rule = |name: &str, src: &str, keys: &str| {
        sandbox.rule(name, &format!("src: {{{src}}}, {dest}{keys}"));
    };
    rule("glob", "type: s3, path: in, match: {glob: '*.edi'}", "");
    rule("regex", "type: s3, path: in, match: {regex: '^x'}", "");
    rule("flat", "type: s3, path: in, recursive: false", "");
    rule("files", "type: file, path: in", ", lock_file: bots.lock");
    rule(
        "inside",
        "type: file, path: '.', recursive: true, match: {glob: '*.q'}",
        "",
    );
    rule("old", "type: file, path: old", ", min_age_seconds: 60");
    let long = "y".repeat(254);
    let rename = "rename: {regex: '$', replace: '.longer'}";
    sandbox.rule(
        "fails",
        &format!("src: {{type: file, path: odd}}, dest: {{type: file, path: out, {rename}}}"),
    );
    let base = sandbox.base().display().to_string();
    let path = |relative: &str| format!("{base}/{relative}");
    for (asked, code, rule, said) in [
        (
            "s3://edi/in/a.tmp",
            0,
            "glob",
            "the glob `*.edi` does not match",
        ),
        (
            "s3://edi/in/a.tmp",
            0,
            "regex",
            "the regex `^x` does not match",
        ),
        ("s3://edi/in/a.tmp", 0, "flat", "takes it"),
        ("s3://edi/in/a/b", 1, "flat", "not recursive"),
        ("s3://edi/in/a/", 1, "flat", "ends in `/`"),
        (
            "s3://edi/in/a.edi",
            0,
            "files",
            "is a directory, not a bucket",
        ),
        ("s3://edi/else/a.edi", 1, "glob", "not below s3://edi/in/"),
        ("s3://other/in/a.edi", 1, "glob", "another bucket"),
        (&path("in/a.edi"), 0, "glob", "is a bucket, not a directory"),
        (&path("in/.a.edi"), 1, "files", "`.a.edi` begins with a dot"),
        (&path("in/bots.lock"), 1, "files", "lock file"),
        (&path("in/a.edi"), 0, "files", "not while bots.lock exists"),
        (&path("else/a.edi"), 1, "files", "not below"),
        (&path("else/a.q"), 0, "inside", "out/else/a.q"),
        (&path("out/a.q"), 1, "inside", "under the destination"),
        (&path("old/a"), 0, "old", "not before it is 60 s old"),
        (
            &path(&format!("odd/{long}")),
            0,
            "fails",
            "longer than 255 bytes",
        ),
        ("a.edi", 0, "glob", "takes it"),
        ("a.edi", 0, "regex", "does not match"),
        ("a.edi", 0, "old", "takes it"),
    ] {
        let run = sandbox.run_with(&["explain", asked]);
        run.exits(code);
        let start = format!("{rule}: ");
        let mut lines = run
            .stdout
            .lines()
            .skip_while(|line| !line.starts_with(&start));
        let first = lines.next().unwrap_or_default().to_owned();
        let more = lines.take_while(|line| line.starts_with(' '));
        let told = more.fold(first, |all, line| all + "\n" + line);
        assert!(told.contains(said), "{asked}: no {said:?} in {told:?}");
    }
}

#[test]
fn every_option_of_a_rule_from_the_command_line_has_its_effect() {
    let sandbox = Sandbox::without_minio();
    let names = ["a.edi", "b.edi", "c.edi", "d.tmp", "sub/e.edi"];
    for (age, name) in (1..).zip(names.iter().rev()) {
        let age = std::time::Duration::from_secs(1000 * age);
        sandbox.write_aged(format!("in/{name}"), name, age);
    }
    sandbox.write("in/young.edi", "1");
    sandbox.write("out/x-b.edi", "other");
    let call = |command: &str, options: &[&str]| {
        let args = [&[command, "base/in", "base/out"], options].concat();
        let run = sandbox.call(&args);
        run.succeeds();
        run
    };
    let options = [
        ["--regex", "edi$"],
        ["--rename-regex", "^(.)"],
        ["--rename-replace", "x-$1"],
        ["--recursive", "false"],
        ["--max-items", "2"],
        ["--retries", "1"],
        ["--wait-seconds", "1"],
        ["--if-exists", "keep_both"],
        ["--min-age-seconds", "500"],
        ["--lock-file", "bots.lock"],
        ["--concurrency", "1"],
        ["--shard-by", "directory"],
        ["--description", "by hand"],
    ];
    let all = options.concat();
    let lock = sandbox.write("in/bots.lock", "");
    call("move", &all).says("skipped", &["bots.lock"]);
    std::fs::remove_file(lock).unwrap();
    let run = call("copy", &[&all[..], &["--dry-run"]].concat());
    assert_eq!(run.of("would_copy").len(), 2);
    let run = call("copy", &all);
    run.logs("rule_start", &[("rule", "copy"), ("selected", "2")]);
    assert_eq!(
        sandbox.files("out").names(),
        ["x-a.edi", "x-b-1.edi", "x-b.edi"],
        "the oldest two"
    );
    assert_eq!(sandbox.files("in").len(), 6, "copied");
    call("move", &["--glob", "*.edi", "--recursive", "true"]);
    assert_eq!(sandbox.files("in").names(), ["d.tmp"]);
    let path = sandbox.path("termination");
    sandbox
        .call(&["move", "base/in", "base/out", "--retries", "101"])
        .is_refused(&["--retries", "100"]);
    assert!(!path.exists());
}

#[test]
fn one_rule_comes_from_the_command_line() {
    let sandbox = Sandbox::new();
    let bucket = sandbox.bucket().name().to_owned();
    for name in ["a.edi", "b.edi", "c.tmp", "sub/d.edi"] {
        sandbox.bucket().put(&format!("in/{name}"), name);
    }
    let source = format!("s3://{bucket}/in");
    // Outside of a base only the last part is made.
    std::fs::create_dir(sandbox.path("here")).unwrap();
    let args = [
        "copy",
        &source,
        "here/out",
        "--glob",
        "*.edi",
        "--max-items",
        "9",
    ];
    sandbox.call(&args).succeeds();
    let got = crate::support::tree::files_below(&sandbox.path("here/out"));
    assert_eq!(
        got.names(),
        ["a.edi", "b.edi", "sub/d.edi"],
        "relative to the working directory"
    );
    assert_eq!(sandbox.bucket().keys().len(), 4);

    let back = format!("s3://{bucket}/back");
    let rename = ["--rename-regex", "^(.)", "--rename-replace", "x-$1"];
    let args = [
        &["move", "here/out", &back, "--recursive", "true"][..],
        &rename,
    ]
    .concat();
    sandbox.call(&args).succeeds();
    assert_eq!(
        sandbox.bucket().tree("back/").names(),
        ["sub/x-d.edi", "x-a.edi", "x-b.edi"]
    );
    sandbox
        .call(&["move", "a", "b", "--glob", "*", "--regex", "x"])
        .exits(2);
    sandbox
        .call(&["move", "a", "b", "--max-items", "many"])
        .is_refused(&["max"]);
    sandbox.call(&["move", "a", "a"]).exits(2);
    sandbox.call(&["move", "a", "b", "--config", "x"]).exits(2);
}

#[test]
fn a_destination_that_is_the_source_is_refused() {
    for (from, to) in [
        ("{type: file, path: in}", "{type: file, path: in}"),
        ("{type: file, path: in}", "{type: file, path: in/}"),
        ("{type: file, path: in}", "{type: file, path: ./in/.}"),
        ("{type: file, path: in}", "{type: file, path: BASE/in}"),
        ("{type: file, path: in}", "{type: file, path: in//}"),
        ("{type: s3, path: in}", "{type: s3, path: /in/}"),
        (
            "{type: s3, path: in}",
            "{type: s3, bucket: BUCKET, path: in}",
        ),
        ("{type: s3, path: /}", "{type: s3, path: ''}"),
        (
            "{type: s3, path: in}",
            "{type: s3, path: in, rename: {regex: a, replace: b}}",
        ),
    ] {
        let sandbox = Sandbox::new();
        sandbox.fill(End::S3, "in", &tree(&[("a", "1")]));
        sandbox.fill(End::File, "in", &tree(&[("a", "1")]));
        let to = to.replace("BASE", sandbox.base().to_str().unwrap());
        let to = to.replace("BUCKET", sandbox.bucket().name());
        sandbox.rule("r", &format!("src: {from}, dest: {to}"));
        sandbox.run().is_refused(&["r"]);
        assert_eq!(sandbox.bucket().keys(), ["in/a"], "{to}");
        assert_eq!(sandbox.files(".").names(), ["in/a"], "{to}");
    }
}

#[test]
fn a_dotted_path_out_of_its_place_is_refused() {
    for path in ["../in", "a/../../b", "a/.."] {
        for end in [End::S3, End::File] {
            let sandbox = Sandbox::new();
            sandbox.rule(
                "r",
                &format!("src: {}, dest: {}", end.at(path), end.at("out")),
            );
            sandbox.run().is_refused(&["..", "src.path"]);
        }
    }
}

#[test]
fn check_connect_tries_what_a_run_needs_and_leaves_no_trace() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    sandbox.fill(End::S3, "in", &tree(&[("a", "1")]));
    sandbox.mkdir("out");
    sandbox.rule("in", &ends(S3_TO_FILE));
    sandbox.rule(
        "out",
        "src: {type: file, path: files}, dest: {type: s3, path: to}",
    );
    sandbox.mkdir("files");
    sandbox.run_with(&["check", "--connect"]).exits(0);
    for op in [Op::List, Op::Put, Op::Get, Op::Delete] {
        assert!(proxy.count(op) > 0, "{op:?}");
    }
    assert_eq!(sandbox.bucket().keys(), ["in/a"]);
    assert!(sandbox.files(".").is_empty(), "{:?}", sandbox.files("."));
}

#[test]
fn check_connect_says_what_is_wrong_and_what_to_do() {
    let trial = |spoil: &dyn Fn(&Sandbox), said: &[&str]| {
        let sandbox = Sandbox::new();
        sandbox.mkdir("out");
        sandbox.rule("in", &ends(S3_TO_FILE));
        spoil(&sandbox);
        let run = sandbox.run_with(&["check", "--connect"]);
        run.exits(1);
        let all = format!("{}{}", run.stdout, run.stderr);
        for text in said {
            assert!(all.contains(text), "{text} in {run:?}");
        }
        run.never_says("wrong-secret");
    };
    trial(
        &|s| _ = s.env("MINIO_SECRET_KEY", "wrong-secret"),
        &["MINIO_SECRET_KEY"],
    );
    trial(
        &|s| _ = s.env("MINIO_ENDPOINT", "127.0.0.1:1"),
        &["127.0.0.1:1"],
    );
    trial(
        &|s| _ = s.default("default_bucket: not-there"),
        &["not-there"],
    );
    trial(&|s| std::fs::remove_dir_all(s.base()).unwrap(), &["base"]);
    trial(
        &|s| {
            s.unprivileged();
            crate::support::sandbox::chmod(&s.base().join("out"), 0o555);
        },
        &["base/out"],
    );
}
