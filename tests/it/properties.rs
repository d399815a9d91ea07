//! Made-up input by the thousand against the claims of tests/fuzz/claims.rs: the readers of all
//! that comes from outside do no harm, whatever it is. The same cases in each run; under torture
//! others too.

use std::fmt::Debug;
use std::fmt::Write as _;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::select;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use crate::claims;
use crate::support::Sandbox;
use crate::support::torture::{Totals, torture};

/// Tries so many cases, and as many with further seeds under torture; a case that fails is made as
/// small as it goes and printed.
fn holds<S>(kind: &str, cases: u32, strategy: &S, claim: impl Fn(S::Value))
where
    S: Strategy,
    S::Value: Debug,
{
    let mut totals = Totals::default();
    for seed in 0..torture() as u64 {
        let config = Config {
            cases,
            rng_seed: RngSeed::Fixed(seed),
            failure_persistence: None,
            ..Config::default()
        };
        let tried = TestRunner::new(config).run(strategy, |value| {
            claim(value);
            Ok(())
        });
        tried.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        totals.tried += cases as usize;
    }
    totals.tell(&format!("property/{kind}"));
}

/// Pieces put together in any order.
fn soup(pieces: &'static [&'static str], amount: usize) -> impl Strategy<Value = String> {
    vec(select(pieces), 0..amount).prop_map(|all| all.concat())
}

const YAML: &[&str] = &[
    "config:\n",
    "  defaults:\n",
    "  rule:\n",
    "    ",
    "  ",
    "\n",
    "src: ",
    "dest: ",
    "{",
    "}",
    "[",
    "]",
    ", ",
    ": ",
    "- ",
    "type: s3",
    "type: file",
    "path: in",
    "path: /a/../b",
    "bucket: edi",
    "&a ",
    "*a",
    "<<: *a",
    "!tag ",
    "|",
    ">",
    "'",
    "\"",
    "#",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "?",
    "1",
    "-1",
    "1e999",
    "0x1f",
    ".nan",
    "null",
    "~",
    "true",
    "850:",
    "mode: copy",
    "retries: 101",
    "max_items: 18446744073709551616",
    "match: {glob: '*'}",
    "match: {regex: '('}",
    "examples: [",
    "rename: {regex: '(.*)', replace: '\\1.{mtime}'}",
    "\t",
    "\r\n",
    "\u{feff}",
    "\u{0}",
    "é",
    "base_file_path: /base",
    "default_bucket: edi",
    "min_age_seconds: 5",
    "lock_file: l",
];

const PATTERN: &[&str] = &[
    "*",
    "**",
    "?",
    "[",
    "]",
    "[!",
    "[^",
    "a-z",
    "a",
    "b",
    ".",
    "\\.",
    "edi",
    "(",
    ")",
    "(?P<n>",
    "(?:",
    "|",
    "^",
    "$",
    "+",
    "{2}",
    "{1000}",
    "\\d",
    "\\w",
    "\\pL",
    "\\1",
    "$1",
    "${n}",
    "$$",
    "\\g<n>",
    "{timestamp}",
    "{mtime-z}",
    "{",
    "}",
    "/",
    "\\",
    "é",
    "\u{0}",
    "(?i)",
    "\\b",
    "\\xff",
];

const NAME: &[&str] = &[
    "a",
    "b.edi",
    "/",
    "//",
    ".",
    "..",
    "../",
    "./",
    "\\",
    "\u{0}",
    "\n",
    " ",
    "é",
    ".hidden",
    "-1",
    ".bots-mover-x.part",
    "%2e%2e%2f",
    "~",
    "con",
    "é/../",
    "x.tar.gz",
];

const XML: &[&str] = &[
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>",
    "<ListBucketResult>",
    "</ListBucketResult>",
    "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">",
    "<Contents>",
    "</Contents>",
    "<Key>in/a</Key>",
    "<Key>in/b</Key>",
    "<Key>out/a</Key>",
    "<Key>in%2F..%2Fa</Key>",
    "<Key>in/\u{0}</Key>",
    "<Key>",
    "</Key>",
    "<Size>1</Size>",
    "<Size>-1</Size>",
    "<Size>99999999999999999999</Size>",
    "<ETag>&quot;x&quot;</ETag>",
    "<ETag>x</ETag>",
    "<LastModified>2026-01-01T00:00:00.000Z</LastModified>",
    "<LastModified>x</LastModified>",
    "<IsTruncated>true</IsTruncated>",
    "<IsTruncated>false</IsTruncated>",
    "<NextContinuationToken>t</NextContinuationToken>",
    "<CommonPrefixes><Prefix>in/c/</Prefix>",
    "</CommonPrefixes>",
    "<Error><Code>AccessDenied</Code><Message>X-Amz-Signature=1</Message>",
    "</Error>",
    "<![CDATA[",
    "]]>",
    "<!--",
    "-->",
    "<!DOCTYPE x [<!ENTITY a \"b\">]>",
    "&a;",
    "&#0;",
    "<EncodingType>url</EncodingType>",
    "<a><a><a>",
    "hello",
];

/// A page that parses, with as many entries as bits.
fn page(entries: &[(String, bool)]) -> String {
    let head = "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">";
    let mut page = format!("{head}<IsTruncated>false</IsTruncated>");
    for (key, below) in entries {
        let prefix = if *below { "in/" } else { "" };
        let key: String = url::form_urlencoded::byte_serialize(key.as_bytes()).collect();
        write!(
            page,
            "<Contents><Key>{prefix}{key}</Key><Size>1</Size><ETag>x</ETag>\
             <LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
        )
        .expect("writing to a string cannot fail");
    }
    page + "<EncodingType>url</EncodingType></ListBucketResult>"
}

/// Names as people, machines and attackers make them.
fn names() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        soup(NAME, 12).prop_map(String::into_bytes),
        any::<String>().prop_map(String::into_bytes),
        vec(any::<u8>(), 0..300),
        (0..2000_usize).prop_map(|length| vec![b'a'; length]),
    ]
}

#[test]
fn any_text_is_a_config_or_is_refused() {
    let good = include_str!("data/config/good.yml");
    let cut = (0..good.len(), 0..good.len(), soup(YAML, 3)).prop_map(move |(at, to, new)| {
        let at = good.floor_char_boundary(at.min(to));
        let to = good.ceil_char_boundary(to.max(at));
        // Mostly a small hole; sometimes all the rest.
        let to = good
            .floor_char_boundary(if to % 5 == 0 { to } else { to.min(at + 9) })
            .max(at);
        [&good[..at], &new, &good[to..]].concat()
    });
    let texts = prop_oneof![soup(YAML, 40), any::<String>(), cut];
    holds("config", 3000, &texts, |text| {
        claims::config_is_read_or_refused(&text);
    });
}

#[test]
fn any_pattern_is_refused_or_does_no_harm() {
    let patterns = || prop_oneof![soup(PATTERN, 10), any::<String>()];
    let all = (patterns(), patterns(), names());
    holds("pattern", 3000, &all, |(pattern, replace, name)| {
        claims::patterns_do_no_harm(&pattern, &replace, &name);
    });
}

#[test]
fn any_key_lands_below_the_destination_or_fails() {
    let all = (names(), soup(PATTERN, 6), soup(PATTERN, 6));
    holds("key", 3000, &all, |(name, pattern, replace)| {
        claims::keys_stay_below_the_destination(&name, &pattern, &replace);
    });
    let all = (names(), soup(NAME, 6));
    holds("key-renamed", 3000, &all, |(name, replace)| {
        claims::keys_stay_below_the_destination(&name, "^.*$", &replace);
    });
}

#[test]
fn any_answer_to_a_listing_makes_sense_or_fails_it() {
    let server = claims::Server::start();
    let bodies = prop_oneof![
        soup(XML, 20).prop_map(String::into_bytes),
        vec(any::<u8>(), 0..200),
        vec((soup(NAME, 4), any::<bool>()), 0..5).prop_map(|all| page(&all).into_bytes()),
    ];
    // A passing status is tried three times, with pauses.
    let statuses = prop_oneof![20 => Just(200), 5 => select(vec![301, 400, 403, 404, 409])];
    holds("listing", 2000, &(statuses, bodies), |(status, body)| {
        server.listing_makes_sense_or_fails(status, &body);
    });
}

#[test]
fn any_text_is_one_line_of_the_log() {
    let values = vec(
        prop_oneof![any::<String>(), soup(NAME, 8), soup(XML, 3)],
        0..4,
    );
    holds("log", 3000, &values, |values| {
        claims::events_are_one_line_each(&values);
    });
}

#[test]
fn any_environment_is_read_or_refused_without_telling_a_secret() {
    let words = select(vec![
        "http://minio:9000",
        "https://user:pass@host/path?x=1",
        "minio",
        "::1",
        "true",
        "false",
        "/ca.pem",
        "path",
        "virtual",
        "10",
        "0",
        "-1",
        "1e9",
        "Europe/Berlin",
        "777",
        "json",
        "\n",
    ]);
    let value = prop_oneof![
        words.prop_map(|word| word.as_bytes().to_vec()),
        any::<String>().prop_map(String::into_bytes),
        vec(any::<u8>(), 0..40),
    ];
    let all = vec((0..17_usize, value), 0..17);
    holds("environment", 3000, &all, |values| {
        claims::environment_is_read_or_refused(&values);
    });
}

/// Small texts that would be large once all their aliases are followed, or that nest deeply, or
/// that are as many rules as fit.
fn bombs() -> Vec<(&'static str, String)> {
    let mut lists = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    let mut maps = "a0: &a0 {k: v}\n".to_owned();
    let mut merges = maps.clone();
    for level in 1..60 {
        let below = level - 1;
        let many = vec![format!("*a{below}"); 9].join(",");
        writeln!(lists, "a{level}: &a{level} [{many}]").unwrap();
        writeln!(
            maps,
            "a{level}: &a{level} {{x: *a{below}, y: *a{below}, *a{below} : z}}"
        )
        .unwrap();
        writeln!(
            merges,
            "a{level}: &a{level} {{<<: [*a{below}, *a{below}], k{level}: 1}}"
        )
        .unwrap();
    }
    let text = format!(
        "config: {{a: &l {}, b: [{}]}}",
        "x".repeat(500_000),
        "*l,".repeat(90_000)
    );
    let mut keys = String::new();
    for number in 0..10_000 {
        writeln!(keys, "  key{number}: 1").unwrap();
    }
    let rules = |amount: usize| {
        let mut rules = String::new();
        for n in 0..amount {
            let src = "{type: s3, path: in, match: {glob: '*a*'}}";
            writeln!(
                rules,
                "  r{n}: {{src: {src}, dest: {{type: file, path: /o/{n}}}}}"
            )
            .unwrap();
        }
        rules
    };
    let head = "config:\n  defaults: {default_bucket: edi}\n";
    vec![
        ("lists of lists", lists),
        ("maps of maps", maps),
        ("merges of merges", merges),
        ("a long text again and again", text),
        ("an alias of itself", "config: &a [*a, *a]\n".into()),
        ("deep lists", "[".repeat(500_000)),
        ("deep maps", "{a: ".repeat(200_000)),
        ("deep blocks", "- ".repeat(400_000)),
        ("unknown keys", format!("config:\n{keys}")),
        (
            "one rule again and again",
            format!("config:\n{}", rules(1).repeat(2_000)),
        ),
        ("as many rules as fit", format!("{head}{}", rules(9_000))),
        (
            "stars",
            format!("{head}{}", rules(1).replace("*a*", &"*a".repeat(400_000))),
        ),
        (
            "repetitions",
            format!(
                "{head}{}",
                rules(1).replace("glob: '*a*'", "regex: '((a{1000}){1000}){1000}'")
            ),
        ),
    ]
}

/// So much memory may a small text take, code and stacks included.
const MEMORY_BYTES: &str = "400000000";

#[test]
fn no_small_text_takes_much_memory_or_time() {
    let mut totals = Totals::default();
    for (name, text) in bombs() {
        let sandbox = Sandbox::without_minio();
        std::fs::write(sandbox.path("bomb.yaml"), &text).unwrap();
        sandbox.launch_through(&["prlimit", &format!("--as={MEMORY_BYTES}")]);
        let run = sandbox.call(&["check", "--config", "bomb.yaml"]);
        let code = run.code();
        assert!(
            [0, 2].contains(&code),
            "{name}: {code}, {:.2000}",
            run.stderr
        );
        assert!(
            run.elapsed < Duration::from_secs(60),
            "{name}: {:?}",
            run.elapsed
        );
        eprintln!(
            "{name}: {} bytes, exit {code}, {:?}",
            text.len(),
            run.elapsed
        );
        totals.tried += 1;
    }
    totals.tell("property/bombs");
}
