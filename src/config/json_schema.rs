//! The JSON Schema of a config (2020-12), for editors and CI: the reader's lists of keys, and what
//! of its rules about values a schema can say.
//!
//! It must not refuse what the reader takes; `tests/it/schema.rs` holds the two against each other.

use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};

use super::meaning::{CONCURRENCY, MAX_ITEMS, MIN_AGE_SECONDS, RETRIES, WAIT_SECONDS};
use super::places::PLACES;
use super::schema;
use super::written::TYPOGRAPHIC_QUOTES;
use crate::rule::{IfExists, Mode, ShardBy};

/// A part of a path that points elsewhere, as a pattern.
const UPWARDS: &str = r"(^|/)\.\.(/|$)";

/// An IPv4 address, which no bucket may be called.
const ADDRESS: &str = r"^((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(\.|$)){4}$";

/// The schema as text.
pub fn json_schema() -> String {
    let rules = json!({
        "type": "object",
        "properties": { "defaults": mapping(schema::DEFAULTS, &[], true) },
        "additionalProperties": rule(),
        "propertyNames": { "minLength": 1 },
        "if": { "required": ["defaults"] },
        "then": { "minProperties": 2 },
        "else": { "minProperties": 1 },
    });
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "bots-mover config",
        "type": "object",
        "properties": { "config": rules },
        "required": ["config"],
        "additionalProperties": false,
    });
    format!("{schema:#}\n")
}

/// A mapping with these keys and no others.
fn mapping(keys: &[&str], required: &[&str], nullable: bool) -> Value {
    let property = |key: &&str| {
        let mut value = value(key);
        if !required.contains(key) {
            or_null(&mut value);
        }
        ((*key).to_owned(), value)
    };
    let properties: Map<String, Value> = keys.iter().map(property).collect();
    let mut mapping = json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    });
    if nullable {
        or_null(&mut mapping);
    }
    mapping
}

/// Null is an absent key.
fn or_null(value: &mut Value) {
    value["type"] = json!([value["type"].take(), "null"]);
    if let Some(words) = value.get_mut("enum").and_then(Value::as_array_mut) {
        words.push(Value::Null);
    }
}

/// What may stand behind a key, wherever the key is.
fn value(key: &str) -> Value {
    // What a text may begin and end with.
    let edge = format!(r"[^\s{TYPOGRAPHIC_QUOTES}]");
    match key {
        "mode" => words(Mode::WORDS),
        "if_exists" => words(IfExists::WORDS),
        "shard_by" => words(ShardBy::WORDS),
        "type" => words(PLACES),
        "retries" => number(&RETRIES),
        "wait_seconds" => number(&WAIT_SECONDS),
        "max_items" => number(&MAX_ITEMS),
        "concurrency" => number(&CONCURRENCY),
        "min_age_seconds" => number(&MIN_AGE_SECONDS),
        "exit_on_first_failure" | "require_mount" | "recursive" | "ignored" => {
            json!({ "type": "boolean" })
        }
        "bucket" | "default_bucket" => json!({
            "type": "string",
            "pattern": "^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$",
            "not": { "type": "string", "pattern": format!(r"\.\.|\.-|-\.|^minio$|{ADDRESS}") },
        }),
        "base_file_path" => json!({
            "type": "string",
            "pattern": format!("^/(.*{edge})?$"),
            "not": { "type": "string", "pattern": UPWARDS },
        }),
        "path" => json!({ "type": "string", "pattern": format!("^({edge}(.*{edge})?)?$") }),
        "glob" | "regex" => json!({ "type": "string", "pattern": format!("^{edge}(.*{edge})?$") }),
        "replace" => json!({
            "type": "string",
            "pattern": format!("^({edge}(.*{edge})?)?$"),
            "not": { "type": "string", "pattern": "/" },
        }),
        "lock_file" => json!({
            "type": "string",
            "pattern": format!("^{edge}(.*{edge})?$"),
            "not": { "type": "string", "pattern": r"^\.\.?$|/" },
        }),
        "src" => place(schema::SRC),
        "dest" => place(schema::DEST),
        "match" => {
            let mut matching = mapping(schema::MATCH, &[], false);
            let text = json!({ "type": "string" });
            matching["not"] = json!({
                "type": "object",
                "required": schema::MATCH,
                "properties": { "glob": text, "regex": text },
            });
            matching
        }
        "rename" => mapping(schema::RENAME, schema::RENAME, false),
        "examples" => json!({ "type": "array", "items": example() }),
        _ => json!({ "type": "string" }),
    }
}

fn words<T>(choices: &[(&str, T)]) -> Value {
    let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
    json!({ "type": "string", "enum": words })
}

fn number(range: &RangeInclusive<u32>) -> Value {
    json!({ "type": "integer", "minimum": range.start(), "maximum": range.end() })
}

fn has(key: &str, value: &str) -> Value {
    json!({ "required": [key], "properties": { key: { "const": value } } })
}

fn rule() -> Value {
    let mut rule = mapping(schema::RULE, &["src", "dest"], false);
    let from_s3 = json!({ "required": ["src"], "properties": { "src": has("type", "s3") } });
    let absent = json!({ "type": "null" });
    rule["if"] = from_s3;
    rule["then"] = json!({ "properties": { "min_age_seconds": absent, "lock_file": absent } });
    rule
}

fn place(keys: &[&str]) -> Value {
    let mut place = mapping(keys, &["type", "path"], false);
    place["if"] = has("type", "file");
    place["then"] = json!({ "properties": {
        "bucket": { "type": "null" },
        "path": { "minLength": 1, "not": { "pattern": UPWARDS } },
    } });
    place["else"] = json!({ "properties": {
        "path": { "not": { "pattern": r"[^/]//+[^/]|(^|/)\.\.?(/|$)" } },
    } });
    place
}

fn example() -> Value {
    let mut example = mapping(schema::EXAMPLE, &["name"], false);
    example["properties"]["name"]["minLength"] = json!(1);
    let absent = json!({ "type": "null" });
    example["oneOf"] = json!([
        {
            "required": ["becomes"],
            "properties": { "becomes": { "type": "string" }, "ignored": absent },
        },
        {
            "required": ["ignored"],
            "properties": { "ignored": { "const": true }, "becomes": absent },
        },
    ]);
    example
}
