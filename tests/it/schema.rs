//! The JSON Schema of `bots-mover schema` and the reader say the same of every config there is.
//!
//! The validator below knows the keywords that the schema uses and refuses others. It is our own
//! because those there are would build `regex` for the tests with more of Unicode than the program
//! has.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use bots_mover::config;
use serde_json::{Map, Value, json};

/// The bad configs of `data/config` that a schema lets pass, and what it cannot say.
const NOT_SAID: &[(&str, &[&str])] = &[
    (
        "what another key or the environment gives",
        &["bucket-missing", "path-relative", "example-needs-at"],
    ),
    (
        "two values that must differ",
        &["dest-is-src", "dest-is-src-directory"],
    ),
    (
        "whether a pattern, replacement or instant is sound",
        &[
            "example-at",
            "glob-unclosed",
            "regex-look-ahead",
            "regex-unclosed",
            "rename-dollar-name",
            "rename-unknown-group",
            "rename-unknown-token",
        ],
    ),
    (
        "which characters cannot be seen: the reader's table has the planes beyond the first too",
        &[
            "glob-soft-hyphen",
            "path-byte-order-mark",
            "path-nul",
            "path-zero-width",
            "rename-replace-filler",
        ],
    ),
    ("an end before a slash", &["path-blank-before-the-slash"]),
    (
        "how a number is written",
        &["retries-exponent", "retries-point-zero"],
    ),
];

fn schema() -> Value {
    serde_json::from_str(&config::json_schema()).expect("the schema is JSON")
}

/// What YAML makes of a text, merge keys and all; `None` where it is no YAML.
fn json_of(text: &str) -> Option<Value> {
    let mut value: serde_yaml::Value = serde_yaml::from_str(text).ok()?;
    value.apply_merge().ok()?;
    plain(&value)
}

fn plain(value: &serde_yaml::Value) -> Option<Value> {
    use serde_yaml::Value as Yaml;
    Some(match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(value) => json!(value),
        Yaml::Number(number) => serde_json::to_value(number).ok()?,
        Yaml::String(text) => json!(text),
        Yaml::Sequence(items) => items.iter().map(plain).collect::<Option<_>>()?,
        Yaml::Mapping(pairs) => {
            let key = |key: &Yaml| match key {
                Yaml::String(text) => Some(text.clone()),
                other => Some(serde_json::to_string(&plain(other)?).expect("a key")),
            };
            let pairs = pairs
                .iter()
                .map(|(name, value)| Some((key(name)?, plain(value)?)));
            Value::Object(pairs.collect::<Option<Map<_, _>>>()?)
        }
        Yaml::Tagged(_) => return None,
    })
}

fn is_valid(schema: &Value, value: &Value) -> bool {
    if let Some(all_or_nothing) = schema.as_bool() {
        return all_or_nothing;
    }
    let keywords = schema.as_object().expect("a schema");
    let sound = keywords
        .iter()
        .all(|(keyword, rule)| holds(schema, keyword, rule, value));
    let branch = keywords.get("if").map(|condition| {
        let name = if is_valid(condition, value) {
            "then"
        } else {
            "else"
        };
        keywords
            .get(name)
            .is_none_or(|branch| is_valid(branch, value))
    });
    sound && branch.unwrap_or(true)
}

/// One keyword of JSON Schema 2020-12; each says nothing of values of a type that is not its own.
fn holds(schema: &Value, keyword: &str, rule: &Value, value: &Value) -> bool {
    let object = value.as_object();
    let list = || rule.as_array().expect("a list");
    let count = || usize::try_from(rule.as_u64().expect("a number")).expect("a small one");
    match keyword {
        "$schema" | "title" | "if" | "then" | "else" => true,
        "type" => match rule {
            Value::Array(types) => types.iter().any(|name| is_of_type(name, value)),
            name => is_of_type(name, value),
        },
        "enum" => list().contains(value),
        "const" => rule == value,
        "not" => !is_valid(rule, value),
        "oneOf" => list().iter().filter(|rule| is_valid(rule, value)).count() == 1,
        "minimum" => value
            .as_f64()
            .is_none_or(|number| number >= rule.as_f64().expect("a number")),
        "maximum" => value
            .as_f64()
            .is_none_or(|number| number <= rule.as_f64().expect("a number")),
        "minLength" => value
            .as_str()
            .is_none_or(|text| text.chars().count() >= count()),
        "pattern" => value.as_str().is_none_or(|text| {
            let pattern = regex::Regex::new(rule.as_str().expect("a pattern"));
            pattern.expect("a sound pattern").is_match(text)
        }),
        "items" => value
            .as_array()
            .is_none_or(|items| items.iter().all(|item| is_valid(rule, item))),
        "minProperties" => object.is_none_or(|object| object.len() >= count()),
        "required" => object.is_none_or(|object| {
            let is_there = |key: &Value| object.contains_key(key.as_str().expect("a key"));
            list().iter().all(is_there)
        }),
        "properties" => object.is_none_or(|object| {
            let known = rule.as_object().expect("properties");
            let holds = |(key, value)| known.get(key).is_none_or(|rule| is_valid(rule, value));
            object.iter().all(holds)
        }),
        "additionalProperties" => object.is_none_or(|object| {
            let known = |key: &String| schema["properties"].get(key).is_some();
            object
                .iter()
                .all(|(key, value)| known(key) || is_valid(rule, value))
        }),
        "propertyNames" => {
            object.is_none_or(|object| object.keys().all(|key| is_valid(rule, &json!(key))))
        }
        other => panic!("the validator does not know the keyword {other}"),
    }
}

fn is_of_type(name: &Value, value: &Value) -> bool {
    match name.as_str().expect("a type") {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        other => panic!("the validator does not know the type {other}"),
    }
}

#[test]
fn the_schema_refuses_what_the_reader_refuses_but_for_what_it_cannot_say() {
    let schema = schema();
    let mut passed = BTreeSet::new();
    let mut refused = 0;
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data/config");
    for entry in fs::read_dir(data).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yml") {
            continue;
        }
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        // What is no YAML is refused before any schema.
        let Some(value) = json_of(&text) else {
            assert!(config::parse(&text, "c", None).is_err(), "{name}");
            continue;
        };
        let accepted = is_valid(&schema, &value);
        match config::parse(&text, "c", None) {
            Ok(_) => assert!(accepted, "the schema refuses {name}, which is good"),
            Err(_) if accepted => drop(passed.insert(name)),
            Err(_) => refused += 1,
        }
    }
    let not_said = NOT_SAID.iter().flat_map(|(_, names)| *names);
    let not_said: BTreeSet<String> = not_said.map(|name| (*name).to_owned()).collect();
    assert_eq!(
        passed, not_said,
        "what the schema lets pass, and what is known of it"
    );
    assert!(refused > 60, "{refused}");
}

#[test]
fn the_schema_accepts_every_config_that_is_shown_or_deployed() {
    let schema = schema();
    let mut seen = 0;
    for (place, text) in crate::docs::configs() {
        let value = json_of(&text).expect(&place);
        assert!(is_valid(&schema, &value), "{place}");
        seen += 1;
    }
    assert!(seen >= 6, "only {seen} configs");
}

/// Each key with a value that is allowed, and one that is not, to the reader and to the schema.
#[test]
fn the_schema_and_the_reader_agree_on_the_edge_of_every_value() {
    let cases = [
        ("retries", "100", "101"),
        ("wait_seconds", "86400", "86401"),
        ("max_items", "0", "-1"),
        ("concurrency", "64", "0"),
        ("min_age_seconds", "31536000", "31536001"),
        ("mode", "copy", "mv"),
        ("if_exists", "keep_both", "rename"),
        ("description", "'850'", "850"),
        ("lock_file", "bots.lock", "a/b"),
        ("lock_file", "...", ".."),
        (
            "examples",
            "[{ name: a, becomes: a }]",
            "[{ name: a, becomes: a, ignored: true }]",
        ),
        (
            "examples",
            "[{ name: .a, ignored: true, becomes: null }]",
            "[{ name: a }]",
        ),
        (
            "src",
            "{ type: file, path: /a, bucket: null }",
            "{ type: file, path: /a, bucket: abc }",
        ),
        (
            "src",
            "{ type: file, path: /a, match: null }",
            "{ type: file, path: /a, match: '*' }",
        ),
        (
            "src",
            "{ type: file, path: '/a b' }",
            "{ type: file, path: '/a ' }",
        ),
        (
            "src",
            "{ type: file, path: /.. a }",
            "{ type: file, path: /../a }",
        ),
        (
            "dest",
            "{ type: s3, bucket: a-b, path: '' }",
            "{ type: s3, bucket: a-.b, path: a }",
        ),
        (
            "dest",
            "{ type: s3, bucket: abc, path: //a// }",
            "{ type: s3, bucket: abc, path: a//b }",
        ),
        (
            "dest",
            "{ type: file, path: /b, rename: null }",
            "{ type: file, path: '' }",
        ),
        (
            "dest",
            "{ type: file, path: /b, rename: { regex: a, replace: '' } }",
            "{ type: file }",
        ),
    ];
    let schema = schema();
    for (key, good, bad) in cases {
        for (value, expected) in [(good, true), (bad, false), ("null", true)] {
            let mut rule = vec![
                ("src", "{ type: file, path: /in }"),
                ("dest", "{ type: file, path: /out }"),
            ];
            rule.retain(|(own, _)| *own != key);
            rule.push((key, value));
            let lines = rule
                .iter()
                .map(|(key, value)| format!("    {key}: {value}\n"));
            let text = format!("config:\n  r:\n{}", lines.collect::<String>());
            let expected = expected && !(value == "null" && matches!(key, "src" | "dest"));
            assert_eq!(
                config::parse(&text, "c", None).is_ok(),
                expected,
                "reader: {text}"
            );
            let value = json_of(&text).expect("YAML");
            assert_eq!(is_valid(&schema, &value), expected, "schema: {text}");
        }
    }
}
