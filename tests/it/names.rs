//! Names: odd ones arrive as they were, bad ones fail their item and nothing else.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;

use crate::support::{DIRECTIONS, End, Fault, Op, Sandbox, Tree, When, ends, tree};

/// Names that an encoding on the way could bend.
fn odd_names() -> Tree {
    let long = "x".repeat(255);
    let names = [
        "a b",
        " leading and trailing ",
        "plus+plus",
        "per%cent",
        "%2F",
        "%41",
        "quote\"s'",
        "new\nline",
        "tab\tcr\r",
        "hash#?&=;",
        "<xml>&amp;</xml>",
        "back\\slash",
        "~tilde",
        "-rf",
        "a..b",
        "x..",
        "…",
        "e\u{301} is not \u{e9}",
        "\u{e9} is not e\u{301}",
        "本📦",
        "*?[a]{b}",
        "$(x)`y`!",
        "a:b|c",
        "comma,@",
        "sub dir+/%/a",
        long.as_str(),
    ];
    names
        .iter()
        .map(|name| (*name, format!("contents of {name}")))
        .collect()
}

#[test]
fn odd_names_arrive_as_they_were() {
    for (from, to) in DIRECTIONS {
        let sandbox = Sandbox::new();
        sandbox.fill(from, "in", &odd_names());
        let src = from.at("in").replace('}', ", recursive: true}");
        sandbox.rule("r", &format!("src: {src}, dest: {}", to.at("out")));
        let run = sandbox.run();
        run.succeeds().logs("rule_done", &[("moved", "26")]);
        assert_eq!(sandbox.at_end(to, "out"), odd_names(), "{from:?} to {to:?}");
        assert!(sandbox.at_end(from, "in").is_empty(), "{from:?} to {to:?}");
        run.says("moved", &["new\nline"]);
    }
}

#[test]
fn odd_prefixes_work_like_others() {
    let sandbox = Sandbox::new();
    sandbox.bucket().put("o d+d%/ü #?/a", "1");
    let src = "{type: s3, path: 'o d+d%/ü #?'}";
    sandbox.rule(
        "r",
        &format!("src: {src}, dest: {{type: s3, path: '+ %20/é'}}"),
    );
    sandbox.run().succeeds();
    assert_eq!(sandbox.bucket().keys(), ["+ %20/é/a"]);
}

#[test]
fn a_name_that_is_not_utf8_moves_between_files_and_fails_towards_s3() {
    let name = OsStr::from_bytes(b"caf\xe9.edi");
    let sandbox = Sandbox::new();
    let source = sandbox.write("in/ok", "1").with_file_name(name);
    fs::write(&source, "latin-1").unwrap();
    sandbox.default("exit_on_first_failure: false");
    sandbox.rule(
        "r",
        &format!(
            "{}, retries: 2, wait_seconds: 60",
            ends((End::File, End::S3))
        ),
    );
    let run = sandbox.run();
    run.fails().says("failed", &["UTF-8"]);
    assert!(run.of("retry").is_empty(), "no repeat can mend it");
    assert_eq!(sandbox.bucket().keys(), ["out/ok"]);
    assert_eq!(fs::read(&source).unwrap(), b"latin-1");

    sandbox.forget_rules();
    sandbox.rule("r", &ends((End::File, End::File)));
    sandbox.run().succeeds();
    assert_eq!(
        fs::read(sandbox.base().join("out").join(name)).unwrap(),
        b"latin-1"
    );
    assert!(!source.exists());
}

#[test]
fn a_beside_a_slash_b_fails_one_of_them_and_loses_none() {
    let sandbox = Sandbox::new();
    sandbox.bucket().put("in/a/b", "below");
    sandbox.mkdir("out/a");
    sandbox.bucket().put("in/c", "file");
    sandbox.write("out/d", "in the way");
    sandbox.bucket().put("in/d/e", "below a file");
    sandbox.default("exit_on_first_failure: false");
    sandbox.rule("r", &ends((End::S3, End::File)));
    sandbox.run().fails().says("failed", &["d/e"]);
    let expected = tree(&[("a/b", "below"), ("c", "file"), ("d", "in the way")]);
    assert_eq!(sandbox.files("out"), expected);
    assert_eq!(
        sandbox.bucket().tree("in/"),
        tree(&[("d/e", "below a file")])
    );
}

#[test]
fn a_key_beside_keys_below_it_goes_first_and_what_is_below_then_fails() {
    let sandbox = Sandbox::new();
    sandbox.bucket().put("in/a", "the key");
    sandbox.bucket().put("in/a/b", "below");
    sandbox.rule("r", &ends((End::S3, End::File)));
    sandbox.run().exits(0);
    assert_eq!(sandbox.files("out"), tree(&[("a", "the key")]));
    sandbox.run().fails().says("failed", &["in/a/b"]);
    assert_eq!(sandbox.files("out"), tree(&[("a", "the key")]));
    assert_eq!(sandbox.bucket().tree("in/"), tree(&[("a/b", "below")]));
}

#[test]
fn an_item_whose_name_is_a_directory_at_the_destination_fails() {
    for from in [End::S3, End::File] {
        for if_exists in ["overwrite", "fail", "keep_both", "skip"] {
            for mode in ["move", "copy"] {
                let sandbox = Sandbox::new();
                sandbox.fill(from, "in", &tree(&[("a", "1")]));
                sandbox.write("out/a/b", "2");
                let keys = format!("if_exists: {if_exists}, mode: {mode}, retries: 1");
                sandbox.rule("r", &format!("{}, {keys}", ends((from, End::File))));
                let run = sandbox.run();
                run.fails().says("failed", &["base/out/a", "directory"]);
                assert!(run.of("retry").is_empty(), "no repeat can mend it");
                assert_eq!(sandbox.files("out"), tree(&[("a/b", "2")]));
                assert_eq!(sandbox.at_end(from, "in"), tree(&[("a", "1")]));
            }
        }
    }
}

#[test]
fn a_key_that_would_leave_the_destination_fails_and_writes_nothing() {
    for evil in [
        "../../victim",
        "x/../../../victim",
        "/victim",
        "x//victim",
        "./victim",
        "..",
    ] {
        let sandbox = Sandbox::new();
        sandbox.bucket().put("in/item", "1");
        let proxy = sandbox.proxy();
        let key = format!("<Key>in/{}</Key>", evil.replace('/', "%2F"));
        proxy.fault(
            When::op(Op::List).always(),
            Fault::bend(move |answer| {
                let text = String::from_utf8_lossy(&answer.body).into_owned();
                let bent = text.replace("<Key>in/item</Key>", &key);
                let bent = bent.replace("<Key>in%2Fitem</Key>", &key);
                assert!(bent.contains(&key), "{text}");
                answer.body = bent.into_bytes();
            }),
        );
        sandbox.rule(
            "r",
            "src: {type: s3, path: in}, dest: {type: file, path: deep/out}",
        );
        sandbox.run().fails();
        assert!(
            sandbox.files(".").is_empty(),
            "{evil}: {:?}",
            sandbox.files(".")
        );
        assert_eq!(
            proxy.count(Op::Get),
            0,
            "{evil}: known before anything is read"
        );
        assert_eq!(sandbox.bucket().keys(), ["in/item"], "{evil}");
    }
}

#[test]
fn a_name_longer_than_the_destination_allows_fails_its_item() {
    let sandbox = Sandbox::new();
    let long = "y".repeat(250);
    sandbox.fill(End::S3, "in", &tree(&[(long.as_str(), "1")]));
    let dest = "{type: file, path: out, rename: {regex: '^(.*)$', replace: '\\1.123456'}}";
    sandbox.rule("r", &format!("src: {{type: s3, path: in}}, dest: {dest}"));
    sandbox.run().fails().says("failed", &["long"]);
    assert!(sandbox.files("out").is_empty());
    assert_eq!(sandbox.bucket().keys().len(), 1);
}

#[test]
fn a_key_longer_than_1024_bytes_fails_its_item() {
    let sandbox = Sandbox::new();
    let deep = vec!["z".repeat(200); 6].join("/");
    sandbox.write(format!("in/{deep}"), "1");
    let src = "{type: file, path: in, recursive: true}";
    sandbox.rule("r", &format!("src: {src}, dest: {{type: s3, path: out}}"));
    sandbox.run().fails().says("failed", &["long"]);
    assert_eq!(sandbox.files("in").len(), 1);
}

#[test]
fn rename_is_for_the_last_part_and_every_match() {
    for (regex, replace, expected) in [
        ("-", "_", "sub-dir/a_b_c.edi"),
        ("^(.*)\\.edi$", "\\1.x12", "sub-dir/a-b-c.x12"),
        ("(?P<first>a)-b", "${first}", "sub-dir/a-c.edi"),
        ("(a)", "$1$$", "sub-dir/a$-b-c.edi"),
        ("(.*)", "<\\1>", "sub-dir/<a-b-c.edi>"),
        ("(a)", "\\g<1>$1_x", "sub-dir/aa_x-b-c.edi"),
        ("nothing", "x", "sub-dir/a-b-c.edi"),
        ("b", "{{tomorrow}}", ""),
        ("b", "/", ""),
    ] {
        let sandbox = Sandbox::new();
        sandbox.bucket().put("in/sub-dir/a-b-c.edi", "1");
        let dest = format!(
            "{{type: file, path: out, rename: {{regex: '{regex}', replace: '{replace}'}}}}"
        );
        sandbox.rule("r", &format!("src: {{type: s3, path: in}}, dest: {dest}"));
        let run = sandbox.run();
        if expected.is_empty() {
            run.exits(2);
            continue;
        }
        run.succeeds();
        assert_eq!(
            sandbox.files("out").names(),
            [expected],
            "{regex} {replace}"
        );
    }
}

#[test]
fn tokens_are_one_instant_for_the_whole_run() {
    let sandbox = Sandbox::without_minio();
    sandbox.env("TZ", "Asia/Kathmandu");
    for (number, token) in [
        "timestamp",
        "time",
        "date",
        "date-iso",
        "timestamp-iso",
        "timestamp-z",
    ]
    .iter()
    .enumerate()
    {
        sandbox.write(format!("in{number}/a"), "1");
        sandbox.write(format!("in{number}/b"), "1");
        let src = format!("src: {{type: file, path: in{number}}}");
        let rename = format!("{{regex: '^(.)$', replace: '\\1 {token} {{{token}}}'}}");
        let dest = format!("dest: {{type: file, path: out, rename: {rename}}}");
        sandbox.rule(&format!("r{number}"), &format!("{src}, {dest}"));
    }
    sandbox.run().succeeds();
    let out = sandbox.files("out");
    let value = |item: &str, token: &str| {
        let names = out.names();
        let start = format!("{item} {token} ");
        let found = names.iter().find_map(|name| name.strip_prefix(&start));
        found
            .unwrap_or_else(|| panic!("no {start:?} in {names:?}"))
            .to_owned()
    };
    for token in [
        "timestamp",
        "time",
        "date",
        "date-iso",
        "timestamp-iso",
        "timestamp-z",
    ] {
        assert_eq!(value("a", token), value("b", token), "{token}");
    }
    let zulu: jiff::Timestamp = value("a", "timestamp-z").parse().expect("ISO 8601, basic");
    let local = zulu.in_tz("Asia/Kathmandu").unwrap();
    let expect = |token: &str, format: &str| {
        assert_eq!(
            value("a", token),
            local.strftime(format).to_string(),
            "{token}"
        );
    };
    expect("timestamp", "%Y%m%d-%H%M%S");
    expect("time", "%H%M%S");
    expect("date", "%Y%m%d");
    expect("date-iso", "%Y-%m-%d");
    expect("timestamp-iso", "%Y-%m-%dT%H%M%S");
}

#[test]
fn the_mtime_token_is_the_sources_own_time() {
    let sandbox = Sandbox::without_minio();
    sandbox.env("TZ", "Europe/Berlin");
    let time = "2026-07-01T10:11:12Z".parse::<jiff::Timestamp>().unwrap();
    crate::support::sandbox::set_mtime(&sandbox.write("in/a", "1"), time.into());
    let rename = "{regex: '^a$', replace: '{mtime} {mtime-z}'}";
    let dest = format!("{{type: file, path: out, rename: {rename}}}");
    sandbox.rule("r", &format!("src: {{type: file, path: in}}, dest: {dest}"));
    sandbox.run().succeeds();
    assert_eq!(
        sandbox.files("out").names(),
        ["20260701-121112 20260701T101112Z"]
    );
}

#[test]
fn the_mtime_of_an_object_is_its_last_modified_and_a_repeat_lands_on_the_same_name() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    sandbox.bucket().put("in/a", "1");
    let object = sandbox.bucket().head("in/a").expect("it is there");
    let time = object.header("last-modified").to_owned();
    let time = jiff::fmt::rfc2822::parse(&time).unwrap().timestamp();
    let denied = Fault::status(403, "AccessDenied");
    proxy.fault(When::op(Op::Delete), denied);
    let rename = "{regex: '^a$', replace: '{mtime-z}'}";
    let dest = format!("{{type: file, path: out, rename: {rename}}}");
    sandbox.rule("r", &format!("src: {{type: s3, path: in}}, dest: {dest}"));
    let expected = [time.strftime("%Y%m%dT%H%M%SZ").to_string()];
    sandbox.run().fails();
    assert_eq!(sandbox.files("out").names(), expected);
    sandbox.run().succeeds();
    assert_eq!(sandbox.files("out").names(), expected);
    assert!(sandbox.bucket().keys().is_empty());
}

#[test]
fn a_name_is_computed_once_per_item_and_not_per_attempt() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    let path = sandbox.write("in/a", "1");
    let time = "2026-07-01T10:11:12Z".parse::<jiff::Timestamp>().unwrap();
    crate::support::sandbox::set_mtime(&path, time.into());
    let refuse_and_touch = Fault::bend(move |answer| {
        crate::support::sandbox::set_mtime(&path, std::time::SystemTime::now());
        answer.status = 403;
    });
    proxy.fault(When::op(Op::Put), refuse_and_touch);
    let rename = "{regex: '^a$', replace: '{mtime-z}'}";
    let dest = format!("{{type: s3, path: out, rename: {rename}}}");
    let src = "src: {type: file, path: in}";
    let keys = "retries: 1, wait_seconds: 0";
    sandbox.rule("r", &format!("{src}, dest: {dest}, {keys}"));
    let run = sandbox.run();
    run.succeeds().logs("moved", &[("attempt", "2")]);
    assert_eq!(sandbox.bucket().keys(), ["out/20260701T101112Z"]);
}

#[test]
fn a_rename_to_nothing_or_to_dots_fails_the_item() {
    // The last part of a name has no slash, so only an empty or dotted result can come of it.
    for (regex, replace) in [("^.*$", ""), ("^.*$", "."), ("^.*$", "..")] {
        let sandbox = Sandbox::new();
        sandbox.bucket().put("in/sub/a", "1");
        let rename = format!("{{regex: '{regex}', replace: '{replace}'}}");
        let dest = format!("{{type: file, path: out, rename: {rename}}}");
        sandbox.rule("r", &format!("src: {{type: s3, path: in}}, dest: {dest}"));
        let run = sandbox.run();
        run.fails();
        assert_eq!(run.of("failed").len(), 1, "{replace:?}");
        assert!(sandbox.files(".").is_empty(), "{replace:?}");
        assert_eq!(sandbox.bucket().keys(), ["in/sub/a"], "{replace:?}");
    }
}

#[test]
fn of_two_items_that_land_on_one_name_the_second_fails_and_names_the_first() {
    for direction in DIRECTIONS {
        let sandbox = Sandbox::new();
        sandbox.fill(
            direction.0,
            "in",
            &tree(&[("a.1", "one"), ("a.2", "two"), ("b.1", "b")]),
        );
        sandbox.default("exit_on_first_failure: false");
        let rename = "rename: {regex: '\\..*$', replace: ''}";
        let dest = direction.1.at("out").replace('}', &format!(", {rename}}}"));
        let rule = format!("src: {}, dest: {dest}, retries: 3", direction.0.at("in"));
        sandbox.rule("r", &rule);
        let run = sandbox.run();
        run.fails().says("failed", &["in/a.2", "in/a.1"]);
        assert!(run.of("retry").is_empty(), "no repeat can mend it");
        let out = sandbox.at_end(direction.1, "out");
        assert_eq!(out.names(), ["a", "b"]);
        let left = sandbox.at_end(direction.0, "in");
        assert_eq!(left.len(), 1);
        let all: Vec<_> = [out.get("a"), left.get(left.names()[0])].concat();
        assert!(all == b"onetwo" || all == b"twoone", "both are somewhere");
    }
}

#[test]
fn items_of_two_rules_that_land_on_one_name_collide_too() {
    let sandbox = Sandbox::without_minio();
    sandbox.write("one/a", "1");
    sandbox.write("two/a", "2");
    sandbox.default("exit_on_first_failure: false");
    for rule in ["one", "two"] {
        let src = format!("src: {{type: file, path: {rule}}}");
        sandbox.rule(rule, &format!("{src}, dest: {{type: file, path: out}}"));
    }
    sandbox.run().fails();
    assert_eq!(sandbox.files("out").len(), 1);
    let all = ["out", "one", "two"].map(|path| sandbox.files(path));
    let all: Vec<_> = all.iter().flat_map(|tree| tree.0.values()).collect();
    assert_eq!(all.len(), 2, "nothing is lost: {all:?}");
}

#[test]
fn items_collide_too_where_a_link_makes_two_destinations_one() {
    let sandbox = Sandbox::without_minio();
    sandbox.write("one/a", "1");
    sandbox.write("two/a", "2");
    sandbox.mkdir("out");
    std::os::unix::fs::symlink("out", sandbox.base().join("link")).unwrap();
    sandbox.default("exit_on_first_failure: false");
    for (rule, dest) in [("one", "out/x"), ("two", "link/x")] {
        let src = format!("src: {{type: file, path: {rule}}}");
        sandbox.rule(rule, &format!("{src}, dest: {{type: file, path: {dest}}}"));
    }
    sandbox
        .run()
        .fails()
        .says("failed", &["already goes there"]);
    let all = ["out", "one", "two"].map(|path| sandbox.files(path));
    let all: Vec<_> = all.iter().flat_map(|tree| tree.0.values()).collect();
    assert_eq!(all.len(), 2, "nothing is lost: {all:?}");
}

#[test]
fn under_keep_both_the_second_of_a_run_takes_the_next_free_name() {
    for direction in DIRECTIONS {
        let sandbox = Sandbox::new();
        let items = tree(&[
            ("1/a.tar.gz", "one"),
            ("2/a.tar.gz", "two"),
            ("3/a.tar.gz", "three"),
        ]);
        sandbox.fill(direction.0, "in", &items);
        for number in 1..=3 {
            let src = direction.0.at(&format!("in/{number}"));
            let dest = direction.1.at("out");
            let rule = format!("src: {src}, dest: {dest}, if_exists: keep_both");
            sandbox.rule(&format!("r{number}"), &rule);
        }
        sandbox.run().succeeds();
        let out = sandbox.at_end(direction.1, "out");
        assert_eq!(
            out.names(),
            ["a.tar-1.gz", "a.tar-2.gz", "a.tar.gz"],
            "{direction:?}"
        );
        let mut contents: Vec<_> = out.0.values().map(|bytes| bytes.0.clone()).collect();
        contents.sort();
        assert_eq!(
            contents,
            [b"one".to_vec(), b"three".to_vec(), b"two".to_vec()]
        );
        assert!(sandbox.at_end(direction.0, "in").is_empty());
    }
}

#[test]
fn one_destination_is_one_however_it_is_written() {
    let collide = |sandbox: &Sandbox, one: &str, two: &str| {
        sandbox.default("exit_on_first_failure: false");
        sandbox.rule("one", one);
        sandbox.rule("two", two);
        let run = sandbox.run();
        run.fails()
            .logs("run_done", &[("moved", "1"), ("failed", "1")]);
    };
    // A longer prefix with a shorter name.
    for end in [End::S3, End::File] {
        let sandbox = Sandbox::new();
        sandbox.fill(end, "one", &tree(&[("sub/a", "1")]));
        sandbox.fill(end, "two", &tree(&[("a", "2")]));
        let source = end.at("one").replace('}', ", recursive: true}");
        let one = format!("src: {source}, dest: {}", end.at("out"));
        let two = format!("src: {}, dest: {}", end.at("two"), end.at("out/sub"));
        collide(&sandbox, &one, &two);
        let left = [
            sandbox.at_end(end, "one").len(),
            sandbox.at_end(end, "two").len(),
        ];
        assert_eq!(
            (sandbox.at_end(end, "out").len(), left.iter().sum::<usize>()),
            (1, 1)
        );
    }
    // Two paths to one directory.
    let sandbox = Sandbox::without_minio();
    sandbox.write("one/a", "1");
    sandbox.write("two/a", "2");
    std::os::unix::fs::symlink(sandbox.mkdir("out"), sandbox.base().join("link")).unwrap();
    let one = "src: {type: file, path: one}, dest: {type: file, path: out}";
    let two = "src: {type: file, path: two}, dest: {type: file, path: link}";
    collide(&sandbox, one, two);
    let left = sandbox.files("one").len() + sandbox.files("two").len();
    assert_eq!((sandbox.files("out").len(), left), (1, 1));
}

/// MinIO keeps `a` and `a/b`, but lists `a/b` only once `a` is gone.
#[test]
fn a_key_beside_keys_below_it_is_not_lost() {
    for to in [End::S3, End::File] {
        let sandbox = Sandbox::new();
        sandbox.bucket().put("in/a", "beside");
        sandbox.bucket().put("in/a/b", "below");
        sandbox.rule("r", &ends((End::S3, to)));
        for _ in 0..3 {
            sandbox.run();
        }
        let mut left = sandbox.bucket().tree("in/");
        for name in ["a", "a/b"] {
            if let Some(object) = sandbox.bucket().head(&format!("in/{name}")) {
                let size = object.header("content-length").to_owned();
                assert!(!size.is_empty(), "{name}");
                let body = sandbox.bucket().get(&format!("in/{name}")).body;
                left = left.union([(name, body)].into_iter().collect());
            }
        }
        let mut there = sandbox.at_end(to, "out");
        if to == End::S3 {
            for name in ["a", "a/b"]
                .into_iter()
                .filter(|n| sandbox.bucket().has(&format!("out/{n}")))
            {
                let body = sandbox.bucket().get(&format!("out/{name}")).body;
                there = there.union([(name, body)].into_iter().collect());
            }
        }
        let all = tree(&[("a", "beside"), ("a/b", "below")]);
        assert_eq!(left.union(there), all, "{to:?}");
    }
}
