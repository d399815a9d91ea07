//! Stage two: what was written becomes rules, with every default filled in, or a list of problems.
//!
//! Each function reads all it can before it gives up, so that all problems are found at once.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::names;
use super::places::{Fallback, PlaceType};
use super::problems::{Diagnostics, Path};
use super::schema;
use super::written::{Located, Table};
use super::yaml::Node;
use crate::object::Place;
use crate::pattern::{Matcher, Rename};
use crate::rule::{Config, IfExists, Mode, Rule, ShardBy};

pub(super) const RETRIES: RangeInclusive<u32> = 0..=100;
pub(super) const WAIT_SECONDS: RangeInclusive<u32> = 0..=86_400;
pub(super) const MAX_ITEMS: RangeInclusive<u32> = 0..=u32::MAX;
pub(super) const CONCURRENCY: RangeInclusive<u32> = 1..=64;
/// A year: a larger number was probably meant in another unit.
pub(super) const MIN_AGE_SECONDS: RangeInclusive<u32> = 0..=31_536_000;

/// What a rule gets where neither it nor `defaults` says something.
mod default {
    pub(super) const RETRIES: u32 = 0;
    pub(super) const WAIT_SECONDS: u32 = 10;
    pub(super) const MAX_ITEMS: u32 = 100;
    pub(super) const CONCURRENCY: u32 = 32;
}

const RULES_ALLOWED: &str = "at least one rule: a name with src and dest under it";

/// What `defaults` says.
#[derive(Default)]
struct Defaults {
    mode: Option<Mode>,
    retries: Option<u32>,
    wait_seconds: Option<u32>,
    exit_on_first_failure: Option<bool>,
    max_items: Option<u32>,
    concurrency: Option<u32>,
    min_age_seconds: Option<u32>,
    if_exists: Option<IfExists>,
}

/// Reads the whole tree; `None`, or a config without some of its rules, goes with problems.
pub(super) fn config(
    root: &Node,
    bucket_fallback: Option<&str>,
    report: &mut Diagnostics,
) -> Option<Config> {
    let path = Path::default();
    if *root == Node::Null {
        report.value(
            &path,
            format!("the config is empty; allowed: the key `config` with {RULES_ALLOWED}"),
        );
        return None;
    }
    let root = Table::open(root, path, "config", report)?;
    for (key, _, path) in root.entries().filter(|(key, ..)| *key != "config") {
        let indent = if root.has("config") {
            ""
        } else {
            " and indent it"
        };
        let meant = schema::near(key, &["config"]).map_or_else(
            || format!("rules and `defaults` stand under `config:`; put it there{indent}"),
            |meant| format!("did you mean `{meant}`?"),
        );
        report.key(&path, format!("unknown key; allowed: config; {meant}"));
    }
    let Some(Located { value, path }) = root.get("config") else {
        if report.problems.is_empty() {
            root.missing("config", RULES_ALLOWED, report);
        }
        return None;
    };
    let table = Table::open(value, path, "defaults and the names of rules", report)?;
    let mut defaults = Defaults::default();
    let mut fallback = Fallback::new(bucket_fallback);
    if let Some(written) = table.table("defaults", schema::DEFAULTS, report) {
        fallback = fallback.with(&written, report);
        defaults = read_defaults(&written, report);
    } else if table.get("defaults").is_some() {
        fallback = fallback.flawed();
    }
    let reader = RuleReader {
        defaults: &defaults,
        fallback: &fallback,
    };
    let mut rules = Vec::new();
    let mut has_rules = false;
    for (name, node, path) in table.entries() {
        if name != "defaults" && name != "<<" {
            has_rules = true;
            rules.extend(reader.rule(name, node, path, report));
        }
    }
    if !has_rules {
        report.key(
            &table.path,
            format!("found no rule; allowed: {RULES_ALLOWED}"),
        );
    }
    Some(Config {
        rules,
        concurrency: to_usize(defaults.concurrency.unwrap_or(default::CONCURRENCY)),
        exit_on_first_failure: defaults.exit_on_first_failure.unwrap_or(true),
        shard: None,
        warnings: Vec::new(),
    })
}

fn read_defaults(table: &Table<'_>, report: &mut Diagnostics) -> Defaults {
    Defaults {
        mode: value(table.choice("mode", Mode::WORDS, report)),
        retries: value(table.integer("retries", &RETRIES, report)),
        wait_seconds: value(table.integer("wait_seconds", &WAIT_SECONDS, report)),
        exit_on_first_failure: value(table.boolean("exit_on_first_failure", report)),
        max_items: value(table.integer("max_items", &MAX_ITEMS, report)),
        concurrency: value(table.integer("concurrency", &CONCURRENCY, report)),
        min_age_seconds: value(table.integer("min_age_seconds", &MIN_AGE_SECONDS, report)),
        if_exists: value(table.choice("if_exists", IfExists::WORDS, report)),
    }
}

/// Reads rules with what `defaults` and the environment say.
struct RuleReader<'a> {
    defaults: &'a Defaults,
    fallback: &'a Fallback<'a>,
}

/// What `src` says.
struct Source {
    place: Option<Place>,
    kind: Option<PlaceType>,
    matcher: Option<Matcher>,
    recursive: Option<bool>,
}

/// What `dest` says.
struct Dest {
    place: Option<Place>,
    rename: Option<Rename>,
}

impl RuleReader<'_> {
    fn rule(&self, name: &str, node: &Node, path: Path, report: &mut Diagnostics) -> Option<Rule> {
        if name.is_empty() {
            report.key(&path, "found a rule without a name; allowed: any text");
        }
        if *node == Node::Null {
            report.key(
                &path,
                "found nothing; allowed: a mapping with src and dest (a rule that is not wanted \
                 is left out)",
            );
            return None;
        }
        if is_defaults_misspelt(name, node) {
            report.key(
                &path,
                "found neither src nor dest; allowed: a rule; did you mean `defaults`?",
            );
            return None;
        }
        let table = Table::closed(node, path, schema::RULE, report)?;
        let source = self.source(&table, report);
        let dest = self.dest(&table, report);
        let min_age_seconds = only_for_files("min_age_seconds", &table, source.kind, report)
            .then(|| value(table.integer("min_age_seconds", &MIN_AGE_SECONDS, report)))
            .flatten();
        let lock_file = only_for_files("lock_file", &table, source.kind, report)
            .then(|| table.plain_text("lock_file", report))
            .flatten()
            .and_then(|found| names::lock_file(&found, report));
        let defaults = self.defaults;
        let description = value(table.text("description", report)).map(str::to_owned);
        let mode = value(table.choice("mode", Mode::WORDS, report));
        let retries = value(table.integer("retries", &RETRIES, report));
        let wait_seconds = value(table.integer("wait_seconds", &WAIT_SECONDS, report));
        let max_items = value(table.integer("max_items", &MAX_ITEMS, report));
        let concurrency = value(table.integer("concurrency", &CONCURRENCY, report));
        let if_exists = value(table.choice("if_exists", IfExists::WORDS, report));
        let shard_by = value(table.choice("shard_by", ShardBy::WORDS, report));
        let examples = names::examples(&table, dest.rename.as_ref(), report);
        let is_file = source.kind? == PlaceType::File;
        let min_age_default = defaults.min_age_seconds.filter(|_| is_file);
        Some(Rule {
            name: name.to_owned(),
            description,
            source: source.place?,
            matcher: source.matcher?,
            recursive: source.recursive.unwrap_or(!is_file),
            dest: dest.place?,
            rename: dest.rename,
            mode: mode.or(defaults.mode).unwrap_or(Mode::Move),
            retries: retries.or(defaults.retries).unwrap_or(default::RETRIES),
            wait: seconds(
                wait_seconds
                    .or(defaults.wait_seconds)
                    .unwrap_or(default::WAIT_SECONDS),
            ),
            max_items: to_usize(
                max_items
                    .or(defaults.max_items)
                    .unwrap_or(default::MAX_ITEMS),
            ),
            concurrency: concurrency.map(to_usize),
            if_exists: if_exists
                .or(defaults.if_exists)
                .unwrap_or(IfExists::Overwrite),
            min_age: seconds(min_age_seconds.or(min_age_default).unwrap_or(0)),
            lock_file,
            shard_by: shard_by.unwrap_or(ShardBy::Name),
            examples,
        })
    }

    fn source(&self, rule: &Table<'_>, report: &mut Diagnostics) -> Source {
        let Some(table) = rule.table("src", schema::SRC, report) else {
            let allowed = "a mapping with type and path, such as { type: file, path: outbound }";
            rule.missing("src", allowed, report);
            return Source {
                place: None,
                kind: None,
                matcher: None,
                recursive: None,
            };
        };
        let (kind, place) = self.fallback.place(&table, report);
        Source {
            place,
            kind,
            matcher: names::matcher(&table, report),
            recursive: value(table.boolean("recursive", report)),
        }
    }

    fn dest(&self, rule: &Table<'_>, report: &mut Diagnostics) -> Dest {
        let Some(table) = rule.table("dest", schema::DEST, report) else {
            let allowed = "a mapping with type and path, such as { type: s3, path: out/x12 }";
            rule.missing("dest", allowed, report);
            return Dest {
                place: None,
                rename: None,
            };
        };
        let (_, place) = self.fallback.place(&table, report);
        Dest {
            place,
            rename: names::rename(&table, report),
        }
    }
}

/// `default:` and the like without anything that a rule has.
fn is_defaults_misspelt(name: &str, node: &Node) -> bool {
    let is_near = schema::near(name, &["defaults"]).is_some();
    let Node::Map(pairs) = node else { return false };
    let is_rule = pairs
        .iter()
        .any(|pair| matches!(pair.key.as_str(), "src" | "dest"));
    is_near && !is_rule
}

/// Whether the key may be read; it is refused where the source is s3.
fn only_for_files(
    key: &str,
    table: &Table<'_>,
    kind: Option<PlaceType>,
    report: &mut Diagnostics,
) -> bool {
    if kind != Some(PlaceType::S3) {
        return true;
    }
    if let Some(found) = table.get(key) {
        report.key(
            &found.path,
            "found on a rule with an s3 source; allowed: only with `src.type: file` (an object \
             appears whole or not at all)",
        );
    }
    false
}

fn value<T>(found: Option<Located<T>>) -> Option<T> {
    found.map(|found| found.value)
}

fn seconds(count: u32) -> Duration {
    Duration::from_secs(count.into())
}

fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
