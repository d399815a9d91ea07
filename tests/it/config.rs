//! What a config may say, and what is said about each mistake in one.
//!
//! `data/config/<key>-<problem>.yml` has one mistake; the `.txt` beside it is all that is said.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bots_mover::config::{self, ONE_OFF_OPTIONS, Problems};
use bots_mover::object::{Base, Place};
use bots_mover::pattern::{Matcher, TOKENS};
use bots_mover::relations;
use bots_mover::rule::{Config, IfExists, LocalTime, Mode, Rule};
use jiff::Timestamp;
use jiff::tz::TimeZone;

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data/config")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn good(text: &str) -> Config {
    config::parse(text, "config.yaml", None).unwrap_or_else(|problems| panic!("{text}\n{problems}"))
}

fn problems(text: &str) -> Problems {
    let result = config::parse(text, "config.yaml", None);
    result.expect_err(&format!("a config with problems:\n{text}"))
}

/// `orders` from s3 to a directory, with further lines for the rule.
fn with(lines: &str) -> String {
    let src = "src: { type: s3, bucket: edi, path: in }";
    let dest = "dest: { type: file, path: /srv/in }";
    let mut text = format!("config:\n  orders:\n    {src}\n    {dest}\n");
    for line in lines.lines() {
        writeln!(text, "    {line}").expect("writing to a string cannot fail");
    }
    text
}

fn rule<'a>(config: &'a Config, name: &str) -> &'a Rule {
    let found = config.rules.iter().find(|rule| rule.name == name);
    found.unwrap_or_else(|| panic!("no rule {name} in {config:#?}"))
}

#[test]
fn every_mistake_is_told_with_its_place_and_what_is_allowed() {
    let mut wrong = String::new();
    let mut count = 0;
    let mut names: Vec<PathBuf> = std::fs::read_dir(data())
        .expect("the data directory")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yml"))
        .filter(|path| path.file_stem().is_some_and(|stem| stem != "good"))
        .collect();
    names.sort();
    for path in names {
        let actual = problems(&read(&path)).to_string() + "\n";
        let expected = std::fs::read_to_string(path.with_extension("txt")).unwrap_or_default();
        if actual != expected {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            write!(wrong, "{name}:\n  expected {expected}  actual   {actual}")
                .expect("writing to a string cannot fail");
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(count > 120, "only {count} files");
}

#[test]
fn a_good_config_is_read_with_every_default() {
    let config = good(&read(&data().join("good.yml")));
    let names: Vec<&str> = config.rules.iter().map(|rule| &*rule.name).collect();
    assert_eq!(names, ["inbound_850", "outbound_856", "850", "1e3"]);
    assert_eq!(
        (config.concurrency, config.exit_on_first_failure),
        (8, false)
    );

    let inbound = rule(&config, "inbound_850");
    assert_eq!(inbound.source.to_string(), "s3://partners/in/x12/850/");
    let base = Some(Base {
        path: "/home/bots/.bots".into(),
        must_be_mount: false,
    });
    let directory = |path: &str, base: &Option<Base>| Place::File {
        path: path.into(),
        base: base.clone(),
    };
    assert_eq!(
        inbound.dest,
        directory("/home/bots/.bots/inbound/850", &base)
    );
    assert_eq!((inbound.retries, inbound.max_items), (2, 50));
    assert_eq!(inbound.wait, Duration::from_secs(5));
    assert_eq!(inbound.concurrency, Some(1));
    assert_eq!(inbound.if_exists, IfExists::Fail);
    assert_eq!(inbound.min_age, Duration::ZERO, "the default is for files");
    assert!(inbound.recursive && inbound.rename.is_some());

    let outbound = rule(&config, "outbound_856");
    assert_eq!(outbound.dest.to_string(), "s3://edi/out/x12/856/");
    assert_eq!(outbound.min_age, Duration::from_secs(5));
    assert_eq!(outbound.lock_file.as_deref(), Some("bots.lock"));
    assert_eq!((outbound.retries, outbound.max_items), (1, 250));
    assert_eq!(outbound.wait, Duration::from_secs(20));
    assert!(!outbound.recursive && matches!(outbound.matcher, Matcher::All));

    let whole_bucket = rule(&config, "850");
    assert_eq!(whole_bucket.source.to_string(), "s3://edi/");
    assert_eq!(
        whole_bucket.dest,
        directory("/home/bots/.bots/all/x", &base)
    );

    let merged = rule(&config, "1e3");
    assert_eq!(merged.source, directory("/elsewhere", &None));
    assert_eq!(merged.dest, whole_bucket.dest);
    assert_eq!((merged.max_items, merged.description.as_deref()), (0, None));
    assert_eq!(merged.min_age, Duration::from_secs(7));
}

#[test]
fn a_short_config_gets_the_documented_defaults() {
    let config = good(&with(""));
    assert_eq!(
        (config.concurrency, config.exit_on_first_failure),
        (32, true)
    );
    let rule = rule(&config, "orders");
    assert_eq!(
        (rule.mode, rule.if_exists),
        (Mode::Move, IfExists::Overwrite)
    );
    assert_eq!((rule.retries, rule.max_items), (0, 100));
    assert_eq!(rule.wait, Duration::from_secs(10));
    assert_eq!((rule.concurrency, rule.min_age), (None, Duration::ZERO));
    assert!(config.warnings.is_empty());
}

#[test]
fn null_is_absent_everywhere_but_as_a_rule() {
    let lines = "mode: null\nretries: ~\nwait_seconds:\nmax_items: null\nexamples: null\n\
                 description: null\nmin_age_seconds: null\nlock_file: null\nif_exists: null";
    let text = with(lines).replace("config:\n", "config:\n  defaults: null\n");
    let text = text.replace(
        "path: in }",
        "path: in, match: { glob: null }, recursive: null }",
    );
    let config = good(&text);
    assert_eq!(format!("{config:?}"), format!("{:?}", good(&with(""))));
}

#[test]
fn the_bucket_comes_from_the_rule_then_the_defaults_then_the_environment() {
    let bucket = |text: &str, fallback| {
        let config = config::parse(text, "c", fallback).map_err(|problems| problems.to_string())?;
        Ok::<_, String>(config.rules[0].source.to_string())
    };
    let own = with("");
    let none = own.replace("bucket: edi, ", "");
    let default = none.replace("config:", "config:\n  defaults: { default_bucket: second }");
    assert_eq!(bucket(&own, Some("third")).as_deref(), Ok("s3://edi/in/"));
    assert_eq!(
        bucket(&default, Some("third")).as_deref(),
        Ok("s3://second/in/")
    );
    assert_eq!(
        bucket(&none, Some("third")).as_deref(),
        Ok("s3://third/in/")
    );
    let problem = bucket(&none, Some("Third")).expect_err("no bucket of MinIO");
    assert!(
        problem.contains(r#"found "Third" in MINIO_BUCKET"#),
        "{problem}"
    );
}

#[test]
fn bucket_names_are_those_of_minio() {
    let sixty_three = "a".repeat(63);
    let sixty_four = "a".repeat(64);
    let cases = [
        ("abc", true),
        ("a.b-c9", true),
        (&*sixty_three, true),
        (&*sixty_four, false),
        ("ab", false),
        ("-abc", false),
        ("abc.", false),
        ("a..b", false),
        ("a.-b", false),
        ("a_b", false),
        ("Abc", false),
        ("192.168.5.4", false),
        ("minio", false),
    ];
    for (bucket, is_good) in cases {
        let text = with("").replace("bucket: edi", &format!("bucket: '{bucket}'"));
        assert_eq!(config::parse(&text, "c", None).is_ok(), is_good, "{bucket}");
    }
}

#[test]
fn prefixes_and_paths_are_brought_to_one_form() {
    let prefixes = [
        ("in/850", "s3://edi/in/850/"),
        ("/in/850/", "s3://edi/in/850/"),
        ("in/850//", "s3://edi/in/850/"),
        ("/", "s3://edi/"),
        ("", "s3://edi/"),
        ("in/.850/...", "s3://edi/in/.850/.../"),
        ("in/a b+ü", "s3://edi/in/a b+ü/"),
    ];
    for (written, expected) in prefixes {
        let text = with("").replace("path: in }", &format!("path: '{written}' }}"));
        assert_eq!(good(&text).rules[0].source.to_string(), expected);
    }
    let paths = [
        ("/srv//in/./x/", "/srv/in/x"),
        (".", "/bots"),
        ("in", "/bots/in"),
        ("./in//x/.", "/bots/in/x"),
        ("/", "/"),
    ];
    for (written, expected) in paths {
        let text = with("").replace("/srv/in", &format!("'{written}'"));
        let text = text.replace(
            "config:",
            "config:\n  defaults: { base_file_path: /bots/./ }",
        );
        assert_eq!(good(&text).rules[0].dest.to_string(), expected);
    }
}

#[test]
fn merge_keys_take_what_the_mapping_does_not_have() {
    let text = "config:\n  a: &a\n    src: { type: s3, bucket: edi, path: a }\n    \
                dest: { type: file, path: /a }\n    retries: 1\n    max_items: 1\n  \
                b: &b\n    <<: *a\n    src: { type: s3, bucket: edi, path: b }\n    retries: 2\n  \
                c:\n    <<: [{ wait_seconds: 3, retries: 3 }, *b]\n    max_items: null\n    \
                src: { type: s3, bucket: edi, path: c }\n";
    let config = good(text);
    let (b, c) = (rule(&config, "b"), rule(&config, "c"));
    assert_eq!((b.retries, b.max_items), (2, 1));
    assert_eq!(
        (c.retries, c.max_items),
        (3, 100),
        "null takes the inherited value away"
    );
    assert_eq!(c.wait, Duration::from_secs(3));
    assert_eq!(c.dest.to_string(), "/a");
}

#[test]
fn an_alias_bomb_is_refused_at_once() {
    let mut text = "config:\n  a0: &a0 { x: 1 }\n".to_owned();
    for level in 1..30 {
        let below = level - 1;
        writeln!(
            text,
            "  a{level}: &a{level} {{ x: *a{below}, y: *a{below} }}"
        )
        .expect("writing to a string cannot fail");
    }
    let found = problems(&text).to_string();
    assert!(
        found.contains("too many values") || found.contains("repetition"),
        "{found}"
    );

    let long = "x".repeat(100_000);
    let aliases = "*l, ".repeat(1_000);
    let text = format!("config:\n  a: &l {long}\n  b: [{aliases}]\n");
    let found = problems(&text).to_string();
    assert!(found.contains("too many values"), "{found}");
}

#[test]
fn a_config_is_no_larger_than_a_config_map() {
    let text = with(&format!("# {}", "x".repeat(1024 * 1024)));
    let found = problems(&text).to_string();
    assert!(
        found.starts_with("config.yaml: the config is too large"),
        "{found}"
    );
}

#[test]
fn windows_line_ends_and_a_byte_order_mark_are_no_problem() {
    good(&format!("\u{feff}{}", with("mode: copy")).replace('\n', "\r\n"));
}

/// A name of a rule may be anything; what is said of it shows it.
#[test]
fn a_rule_name_that_misleads_is_shown_escaped() {
    let text = with("mode: mov").replace("orders", "\"ord\u{3164}ers\u{a0}\"");
    let found = problems(&text).to_string();
    assert!(
        found.contains(r#"rule "ord\u{3164}ers\u{a0}": mode: "#),
        "{found}"
    );
}

/// YAML ends a document with `...` too, and begins one without a mark.
#[test]
fn a_second_document_is_told_with_its_line() {
    let cases = [
        ("a: 1\n---\nb: 2\n", 2),
        ("---\na: 1\n# c\n--- # d\n", 4),
        ("--- {a: 1}\n--- {b: 2}\n", 2),
        ("---\n---\na: 1\n", 2),
        ("a: 1\n...\n# c\nb: 2\n", 4),
        (
            "%YAML 1.2\n---\na: |\n  ---\n...\n%YAML 1.2\n---\nb: 2\n",
            7,
        ),
        ("\u{feff}---\r\na: 1\r\n---\r\nb: 2\r\n", 3),
    ];
    for (text, line) in cases {
        let found = problems(text).to_string();
        let expected = format!("config.yaml:{line}:1: found a second document");
        assert!(found.starts_with(&expected), "{text:?}: {found}");
    }
}

/// Found by fuzzing: the line break of a key broke the line of its problem.
#[test]
fn a_key_with_a_line_break_does_not_break_the_line_of_its_problem() {
    let found = problems("config:\n  r:\n    src: { \"ty\\npe\": x }\n");
    let lines = found.lines();
    assert!(
        lines.iter().any(|line| line.contains(r#"src."ty\npe": "#)),
        "{found}"
    );
    assert!(lines.iter().all(|line| !line.contains('\n')), "{found}");
}

#[test]
fn many_problems_are_all_told() {
    let mut text = "config:\n".to_owned();
    for index in 0..500 {
        writeln!(text, "  rule{index}: null").expect("writing to a string cannot fail");
    }
    assert_eq!(problems(&text).lines().len(), 500);
}

#[test]
fn no_cut_of_a_config_makes_the_reader_panic() {
    let text = read(&data().join("good.yml"));
    let ends = text.char_indices().map(|(at, _)| at);
    for end in ends {
        // Whether it is good or not: it must come back, and a problem is one line.
        if let Err(problems) = config::parse(&text[..end], "c", None) {
            assert!(!problems.lines().is_empty(), "{}", &text[..end]);
            assert!(problems.lines().iter().all(|line| !line.contains('\n')));
        }
    }
}

// The command line.

fn one_off(src: &str, dest: &str, options: &[(&str, &str)]) -> Result<Config, String> {
    let options: Vec<(String, String)> = options
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let cwd = Path::new("/home/bots");
    config::one_off(Mode::Copy, src, dest, &options, cwd, Some("edi"))
        .map_err(|problems| problems.to_string())
}

#[test]
fn a_rule_from_the_command_line_is_a_rule_like_any_other() {
    let options = [
        ("--regex", "^a"),
        ("--rename-regex", "a"),
        ("--rename-replace", "b"),
        ("--recursive", "true"),
        ("--max-items", "7"),
        ("--retries", "1"),
        ("--wait-seconds", "2"),
        ("--if-exists", "skip"),
        ("--min-age-seconds", "3"),
        ("--lock-file", "850"),
        ("--concurrency", "4"),
        ("--description", "5"),
    ];
    let config = one_off("out/./x", "s3://other/in", &options).expect("a rule");
    let rule = rule(&config, "copy");
    assert_eq!(rule.source.to_string(), "/home/bots/out/x");
    assert_eq!(rule.dest.to_string(), "s3://other/in/");
    assert_eq!((rule.mode, rule.if_exists), (Mode::Copy, IfExists::Skip));
    assert_eq!(
        (rule.max_items, rule.retries, rule.concurrency),
        (7, 1, Some(4))
    );
    assert_eq!(
        (rule.wait, rule.min_age),
        (Duration::from_secs(2), Duration::from_secs(3))
    );
    assert_eq!(rule.lock_file.as_deref(), Some("850"));
    assert!(rule.recursive && rule.rename.is_some());

    let whole = one_off("s3://", "/in", &[("--glob", "*")]).expect("a rule");
    assert_eq!(whole.rules[0].source.to_string(), "s3://edi/");
}

#[test]
fn mistakes_on_the_command_line_name_the_argument() {
    let options = [
        ("--glob", "["),
        ("--rename-regex", "a"),
        ("--max-items", "many"),
        ("--recursive", "yes"),
        ("--if-exists", "skp"),
        ("--retries", "1"),
        ("--retries", "2"),
        ("--lock-file", "x"),
    ];
    let found = one_off("s3://Edi/in", "../x", &options).expect_err("problems");
    let expected = [
        "--retries: found twice",
        "SRC: found the text \"Edi\"; allowed: a bucket",
        "--glob: the class",
        "--recursive: found the text \"yes\"; allowed: true or false",
        "DEST: found a `..`",
        "--rename-replace: this key is missing",
        "--lock-file: found on a rule with an s3 source",
        "--max-items: found the text \"many\"; allowed: a whole number",
        "--if-exists: found the text \"skp\"",
    ];
    let lines: Vec<&str> = found.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{found}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line}\n{expected}");
    }
    let found = one_off("http://user:secret@host/x", "", &[]).expect_err("problems");
    assert!(found.contains("SRC: ") && found.contains("DEST: ") && !found.contains("secret"));
}

#[test]
fn what_cannot_be_seen_is_refused_on_the_command_line_too() {
    let cases = [
        (
            "s3://edi/in ",
            "/x",
            r#"SRC: found a blank at the end of "s3://edi/in ""#,
        ),
        (
            " out",
            "/x",
            r#"SRC: found a blank at the beginning of " out""#,
        ),
        (
            "/out",
            "in\u{200b}",
            "DEST: found U+200B, which cannot be seen, as character 3 of",
        ),
        ("s3://edi \u{a0}/in", "/x", "SRC: found U+00A0"),
        (
            "/out",
            "s3://edi/ in",
            "DEST: found a blank at the beginning",
        ),
    ];
    let options = [
        (
            "--glob",
            "“*.edi”",
            "found the typographic quote “ at the beginning",
        ),
        (
            "--regex",
            "a\n",
            r#"found U+000A, which cannot be seen, as character 2 of "a\n""#,
        ),
        ("--lock-file", " a", "found a blank at the beginning"),
        (
            "--retries",
            "010",
            "found the text \"010\"; allowed: a whole number from 0 to 100; with",
        ),
        (
            "--max-items",
            "+1",
            "found the text \"+1\"; allowed: a whole number from 0 to 4294967295",
        ),
    ];
    let check = |src, dest, options: &[(&str, &str)], expected: &str| {
        let found = one_off(src, dest, options).expect_err(expected);
        let is_one = found.lines().count() == 1;
        assert!(is_one && found.starts_with(expected), "{found}\n{expected}");
    };
    for (src, dest, expected) in cases {
        check(src, dest, &[], expected);
    }
    for (option, value, expected) in options {
        let expected = format!("{option}: {expected}");
        check("/out", "/x", &[(option, value)], &expected);
    }
    let (regex, replace) = ("--rename-regex", "--rename-replace");
    let bad = "a\u{ad}";
    check(
        "/out",
        "/x",
        &[(regex, bad), (replace, "b")],
        "--rename-regex: found U+00AD",
    );
    check(
        "/out",
        "/x",
        &[(regex, "a"), (replace, bad)],
        "--rename-replace: found U+00AD",
    );
    one_off("/a b/c", "s3://edi/a b", &[("--glob", "a b*")])
        .expect("a blank in the middle is fine");
}

#[test]
fn every_option_of_the_command_line_is_a_key() {
    for option in ONE_OFF_OPTIONS {
        let wrong = one_off("/a", "/b", &[(option, "\0")])
            .err()
            .unwrap_or_default();
        assert!(!wrong.contains("unknown key"), "{option}: {wrong}");
    }
    let wrong = one_off("/a", "/b", &[("--colour", "red")]).expect_err("a problem");
    assert!(wrong.starts_with("--colour: unknown key"), "{wrong}");
}

// Rules together.

fn rules(written: &[(&str, &str, &str)]) -> Config {
    let mut text = "config:\n".to_owned();
    for (index, (src, dest, more)) in written.iter().enumerate() {
        let place = |place: &str| match place.strip_prefix("s3:") {
            Some(path) => format!("type: s3, bucket: edi, path: {path}"),
            None => format!("type: file, path: {place}"),
        };
        let name = ["a", "b", "c"][index];
        let (src, dest) = (place(src), place(dest));
        write!(
            text,
            "  {name}:\n    src: {{ {src} }}\n    dest: {{ {dest} }}\n{more}"
        )
        .expect("writing to a string cannot fail");
    }
    good(&text)
}

#[track_caller]
fn check_warnings(written: &[(&str, &str, &str)], expected: &[&str]) {
    let warnings = rules(written).warnings;
    assert_eq!(warnings.len(), expected.len(), "{warnings:#?}");
    for (warning, expected) in warnings.iter().zip(expected) {
        assert!(warning.contains(expected), "{warning}\n{expected}");
    }
}

#[test]
fn two_rules_with_one_source_are_told_of_where_one_name_fits_both() {
    let both = r#"rules "a" and "b" take from the same source"#;
    check_warnings(&[("s3:in", "/a", ""), ("s3:in", "/b", "")], &[both]);
    check_warnings(&[("s3:in", "/a", ""), ("s3:in/x", "/b", "")], &[both]);
    check_warnings(
        &[("s3:in, recursive: false", "/a", ""), ("s3:in/x", "/b", "")],
        &[],
    );
    check_warnings(&[("s3:in", "/a", ""), ("s3:inner", "/b", "")], &[]);
    check_warnings(&[("/in", "/a", ""), ("/in", "/b", "")], &[both]);
    check_warnings(&[("/in", "/a", ""), ("/in/x", "/b", "")], &[]);
    let deep = "/in, recursive: true";
    check_warnings(&[("/in/x", "/a", ""), (deep, "/b", "")], &[both]);
    check_warnings(&[("/in/.x", "/a", ""), (deep, "/b", "")], &[]);
}

#[test]
fn patterns_that_no_name_fits_both_of_are_no_warning() {
    let glob = |glob: &str| format!("s3:in, match: {{ glob: '{glob}' }}");
    let regex = |regex: &str| format!("s3:in, match: {{ regex: '{regex}' }}");
    let cases = [
        (glob("*.edi"), glob("*.x12"), 0),
        (glob("850*"), glob("*.edi"), 1),
        (glob("850*"), glob("856*"), 0),
        (glob("[!a]*"), glob("x?"), 1),
        (regex("^850_"), regex("^856_"), 0),
        (regex(r"^850_\d{3}\.edi$"), glob("*.edi"), 1),
        (regex("^(a|b)+[c-e]{2,}?$"), regex("^a"), 1),
        (regex(r"\.edi$"), glob("*.txt"), 0),
    ];
    for (a, b, expected) in cases {
        let warnings = rules(&[(&a, "/a", ""), (&b, "/b", "")]).warnings;
        assert_eq!(warnings.len(), expected, "{a} and {b}: {warnings:?}");
    }
}

#[test]
fn a_rule_that_feeds_another_is_told_of() {
    let feeds = r#"rule "a" feeds rule "b""#;
    check_warnings(&[("/in", "/mid", ""), ("/mid", "/out", "")], &[feeds]);
    check_warnings(&[("/in", "/mid/x", ""), ("/mid", "/out", "")], &[]);
    check_warnings(
        &[("s3:in", "s3:mid/x", ""), ("s3:mid", "/out", "")],
        &[feeds],
    );
    check_warnings(
        &[("s3:in", "s3:mid", ""), ("s3:mid/x", "/out", "")],
        &[feeds],
    );
    let to_b = "s3:mid, rename: { regex: '$', replace: .b }";
    let b_only = "s3:mid, match: { glob: '*.b' }";
    let c_only = "s3:mid, match: { glob: '*.c' }";
    check_warnings(&[("s3:in", to_b, ""), (b_only, "/out", "")], &[feeds]);
    check_warnings(&[("s3:in", to_b, ""), (c_only, "/out", "")], &[]);
}

#[test]
fn a_rename_that_drops_what_tells_names_apart_is_told_of() {
    let cases = [
        (".*", "{timestamp}.edi", true),
        (r"^po\d+", "po", true),
        (r"^(.*)\.\w+$", r"\1.edi", true),
        (r"^(.*)\.edi$", r"\1.{timestamp-z}.edi", false),
        (r"^(.*)\.(edi|EDI)$", r"\1.edi", false),
        (r"^(?<a>.*)-(\d+)$", "$2-${a}", false),
        (r"\.edi$", ".x12", false),
        ("^.*$", "$0.edi", false),
    ];
    for (regex, replace, expected) in cases {
        let dest = format!("/a, rename: {{ regex: '{regex}', replace: '{replace}' }}");
        let warnings = rules(&[("s3:in", &dest, "")]).warnings;
        assert_eq!(
            warnings.len(),
            usize::from(expected),
            "{regex}: {warnings:?}"
        );
        let keep_both = "    if_exists: keep_both\n";
        assert!(rules(&[("s3:in", &dest, keep_both)]).warnings.is_empty());
    }
}

#[test]
fn a_copy_that_never_gets_on_is_told_of() {
    let copy = "    mode: copy\n";
    check_warnings(&[("s3:in", "/a", copy)], &["the same first 100 items"]);
    check_warnings(
        &[("s3:in", "/a", "    mode: copy\n    if_exists: skip\n")],
        &[],
    );
    check_warnings(
        &[("s3:in", "/a", "    mode: copy\n    max_items: 0\n")],
        &[],
    );
    // Two that copy do not take anything from each other.
    let skip = "    mode: copy\n    if_exists: skip\n";
    check_warnings(&[("s3:in", "/a", skip), ("s3:in", "/b", skip)], &[]);
}

#[test]
fn a_failing_example_shows_what_was_expected_and_what_came() {
    let config = rules(&[(
        "/in, recursive: true, match: { glob: '*.edi' }",
        "/in/done, rename: { regex: '^po', replace: '{date}-po' }",
        "    examples:\n      \
         - { name: x/po1.edi, becomes: x/20261121-po1.edi, at: '2026-11-20T23:30:00Z' }\n      \
         - { name: po1.edi, becomes: po1.edi, at: '2026-11-20T23:30:00Z' }\n      \
         - { name: po1.tmp, becomes: po1.tmp, at: '2026-11-20T23:30:00Z' }\n      \
         - { name: x.edi, ignored: true }\n      \
         - { name: done/x.edi, ignored: true }\n      \
         - { name: x/.hidden/x.edi, ignored: true }\n      \
         - { name: x/, ignored: true }\n      \
         - { name: .x.edi, becomes: .x.edi }\n",
    )]);
    let instant = LocalTime {
        at: Timestamp::UNIX_EPOCH,
        zone: TimeZone::get("Europe/Berlin").expect("a zone"),
    };
    let failing = relations::failing_examples(&config, &instant);
    let expected = [
        "rule \"a\": example \"po1.edi\": expected to become \"po1.edi\", but it becomes \
         \"20261121-po1.edi\"",
        "rule \"a\": example \"po1.tmp\": expected to become \"po1.tmp\", but it is ignored: the \
         glob `*.edi` does not match",
        r#"rule "a": example "x.edi": expected to be ignored, but it becomes "x.edi""#,
        "rule \"a\": example \".x.edi\": expected to become \".x.edi\", but it is ignored: \
         `.x.edi` begins with a dot",
    ];
    assert_eq!(failing, expected);
}

// The documentation.

/// All pages of the project that explain a directory.
fn readmes(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let entry = entry.expect("an entry");
        let name = entry.file_name();
        let is_directory = entry.file_type().expect("a type").is_dir();
        if is_directory && name != "target" && !name.to_string_lossy().starts_with('.') {
            readmes(&entry.path(), found);
        } else if name == "README.md" {
            found.push(entry.path());
        }
    }
}

/// The contents of the fenced blocks of one language.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let fenced = page.split("\n```").skip(1).step_by(2);
    fenced
        .filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n'))
        .collect()
}

#[test]
fn every_config_in_the_documentation_is_good() {
    let mut pages = Vec::new();
    readmes(Path::new(env!("CARGO_MANIFEST_DIR")), &mut pages);
    let mut count = 0;
    for path in pages {
        let page = read(&path);
        // What Kubernetes reads is YAML too, but no config.
        let configs = blocks(&page, "yaml").into_iter();
        for text in configs.filter(|text| text.starts_with("config:")) {
            let config = config::parse(text, &path.to_string_lossy(), Some("edi"))
                .unwrap_or_else(|problems| panic!("{text}\n{problems}"));
            let (at, zone) = (Timestamp::UNIX_EPOCH, TimeZone::UTC);
            let failing = relations::failing_examples(&config, &LocalTime { at, zone });
            assert!(failing.is_empty(), "{text}\n{failing:?}");
            count += 1;
        }
    }
    assert!(count >= 2, "only {count} configs found");
}

#[test]
fn the_reference_names_every_token_and_option() {
    let page = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/README.md"));
    for word in ONE_OFF_OPTIONS.iter().chain(TOKENS) {
        assert!(
            page.contains(&format!("`{word}`")),
            "{word} is not explained"
        );
    }
}
