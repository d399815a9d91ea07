//! Stage two: what was written becomes rules, with every default filled in, or a list of problems.
//!
//! Each function reads all it can before it gives up, so that all problems are found at once.

use std::ops::RangeInclusive;
use std::path::{Component, Path as FilePath, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use super::problems::{Path, Report};
use super::schema;
use super::written::{Found, Table, describe, quoted};
use super::yaml::Node;
use crate::object::{Base, Name, Place};
use crate::pattern::{Flaw, Matcher, Rename};
use crate::rule::{Config, Example, IfExists, Mode, Rule};

const RETRIES: RangeInclusive<u32> = 0..=100;
const WAIT_SECONDS: RangeInclusive<u32> = 0..=86_400;
const MAX_ITEMS: RangeInclusive<u32> = 0..=u32::MAX;
const CONCURRENCY: RangeInclusive<u32> = 1..=64;
/// A year: more is a unit mistaken.
const MIN_AGE_SECONDS: RangeInclusive<u32> = 0..=31_536_000;

/// What a rule gets where neither it nor `defaults` says something.
mod default {
    pub(super) const RETRIES: u32 = 0;
    pub(super) const WAIT_SECONDS: u32 = 10;
    pub(super) const MAX_ITEMS: u32 = 100;
    pub(super) const CONCURRENCY: u32 = 16;
}

/// What a key of an s3 object can have at the most (S3 User Guide, "Object key naming").
const MAX_KEY_BYTES: usize = 1024;

const MODES: &[(&str, Mode)] = &[("move", Mode::Move), ("copy", Mode::Copy)];
const IF_EXISTS: &[(&str, IfExists)] = &[
    ("overwrite", IfExists::Overwrite),
    ("fail", IfExists::Fail),
    ("keep_both", IfExists::KeepBoth),
    ("skip", IfExists::Skip),
];
const PLACES: &[(&str, Kind)] = &[("s3", Kind::S3), ("file", Kind::File)];

const RULES_ALLOWED: &str = "at least one rule: a name with src and dest under it";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    S3,
    File,
}

/// What `defaults` says.
#[derive(Default)]
struct Defaults {
    bucket: Option<String>,
    base: Option<Base>,
    mode: Option<Mode>,
    retries: Option<u32>,
    wait_seconds: Option<u32>,
    exit_on_first_failure: Option<bool>,
    max_items: Option<u32>,
    concurrency: Option<u32>,
    min_age_seconds: Option<u32>,
    if_exists: Option<IfExists>,
    /// It says something wrong about the bucket, so rules that lack one are not to blame.
    bucket_is_flawed: bool,
    /// The same for `base_file_path`.
    base_is_flawed: bool,
}

/// Reads the whole tree; `None`, or a config without some of its rules, goes with problems.
pub(super) fn config(
    root: &Node,
    bucket_fallback: Option<&str>,
    report: &mut Report,
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
    let Some(Found { value, path }) = root.get("config") else {
        if report.0.is_empty() {
            root.missing("config", RULES_ALLOWED, report);
        }
        return None;
    };
    let table = Table::open(value, path, "defaults and the names of rules", report)?;
    let mut defaults = Defaults::default();
    if let Some(written) = table.table("defaults", schema::DEFAULTS, report) {
        defaults = read_defaults(&written, report);
    } else if table.get("defaults").is_some() {
        defaults.bucket_is_flawed = true;
        defaults.base_is_flawed = true;
    }
    let reader = Reader {
        defaults: &defaults,
        bucket_fallback,
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
        warnings: Vec::new(),
    })
}

fn read_defaults(table: &Table<'_>, report: &mut Report) -> Defaults {
    let bucket = table
        .text("default_bucket", report)
        .and_then(|found| bucket_name(&found, report));
    let base = table
        .text("base_file_path", report)
        .and_then(|found| base_path(&found, report));
    let require_mount = table.boolean("require_mount", report);
    if let Some(found) = &require_mount
        && found.value
        && !is_meant(table, "base_file_path")
    {
        let text = "found true without a base_file_path; allowed: with one, which it is about";
        report.value(&found.path, text);
    }
    let must_be_mount = value(require_mount).unwrap_or(false);
    let base = base.map(|path| Base {
        path,
        must_be_mount,
    });
    Defaults {
        bucket_is_flawed: bucket.is_none() && is_meant(table, "default_bucket"),
        base_is_flawed: base.is_none() && is_meant(table, "base_file_path"),
        bucket,
        base,
        mode: value(table.choice("mode", MODES, report)),
        retries: value(table.integer("retries", &RETRIES, report)),
        wait_seconds: value(table.integer("wait_seconds", &WAIT_SECONDS, report)),
        exit_on_first_failure: value(table.boolean("exit_on_first_failure", report)),
        max_items: value(table.integer("max_items", &MAX_ITEMS, report)),
        concurrency: value(table.integer("concurrency", &CONCURRENCY, report)),
        min_age_seconds: value(table.integer("min_age_seconds", &MIN_AGE_SECONDS, report)),
        if_exists: value(table.choice("if_exists", IF_EXISTS, report)),
    }
}

/// Whether `defaults` has the key with some value, or one that is probably a slip for it.
fn is_meant(defaults: &Table<'_>, key: &str) -> bool {
    let is_slip = |written: &str| {
        let hint = schema::hint(written, schema::DEFAULTS);
        !schema::DEFAULTS.contains(&written) && hint.is_some_and(|hint| hint.contains(key))
    };
    defaults.get(key).is_some() || defaults.entries().any(|(written, ..)| is_slip(written))
}

/// Reads rules with what `defaults` and the environment say.
struct Reader<'a> {
    defaults: &'a Defaults,
    bucket_fallback: Option<&'a str>,
}

/// What `src` says.
struct Source {
    place: Option<Place>,
    kind: Option<Kind>,
    matcher: Option<Matcher>,
    recursive: Option<bool>,
}

/// What `dest` says.
struct Dest {
    place: Option<Place>,
    rename: Option<Rename>,
}

impl Reader<'_> {
    fn rule(&self, name: &str, node: &Node, path: Path, report: &mut Report) -> Option<Rule> {
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
            .then(|| table.text("lock_file", report))
            .flatten()
            .and_then(|found| lock_file(&found, report));
        let defaults = self.defaults;
        let description = value(table.text("description", report)).map(str::to_owned);
        let mode = value(table.choice("mode", MODES, report));
        let retries = value(table.integer("retries", &RETRIES, report));
        let wait_seconds = value(table.integer("wait_seconds", &WAIT_SECONDS, report));
        let max_items = value(table.integer("max_items", &MAX_ITEMS, report));
        let concurrency = value(table.integer("concurrency", &CONCURRENCY, report));
        let if_exists = value(table.choice("if_exists", IF_EXISTS, report));
        let examples = examples(&table, dest.rename.as_ref(), report);
        let is_file = source.kind? == Kind::File;
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
            examples,
        })
    }

    fn source(&self, rule: &Table<'_>, report: &mut Report) -> Source {
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
        let (kind, place) = self.place(&table, report);
        Source {
            place,
            kind,
            matcher: matcher(&table, report),
            recursive: value(table.boolean("recursive", report)),
        }
    }

    fn dest(&self, rule: &Table<'_>, report: &mut Report) -> Dest {
        let Some(table) = rule.table("dest", schema::DEST, report) else {
            let allowed = "a mapping with type and path, such as { type: s3, path: out/x12 }";
            rule.missing("dest", allowed, report);
            return Dest {
                place: None,
                rename: None,
            };
        };
        let (_, place) = self.place(&table, report);
        Dest {
            place,
            rename: rename(&table, report),
        }
    }

    fn place(&self, table: &Table<'_>, report: &mut Report) -> (Option<Kind>, Option<Place>) {
        let kind = value(table.choice("type", PLACES, report));
        let path = table.text("path", report);
        let bucket = table.text("bucket", report);
        let Some(kind) = kind else {
            table.missing("type", "s3, file", report);
            return (None, None);
        };
        let place = match kind {
            Kind::S3 => {
                let bucket = self.bucket(table, bucket, report);
                if path.is_none() {
                    let allowed = "a prefix, such as in/850, or / for the whole bucket";
                    table.missing("path", allowed, report);
                }
                let prefix = path.and_then(|found| prefix(&found, report));
                bucket
                    .zip(prefix)
                    .map(|(bucket, prefix)| Place::S3 { bucket, prefix })
            }
            Kind::File => {
                if let Some(bucket) = bucket {
                    report.key(
                        &bucket.path,
                        "a directory is in no bucket; allowed: no bucket, or `type: s3`",
                    );
                }
                if path.is_none() {
                    let allowed = "a directory, such as inbound/850";
                    table.missing("path", allowed, report);
                }
                path.and_then(|found| self.directory(&found, report))
            }
        };
        (Some(kind), place)
    }

    fn bucket(
        &self,
        table: &Table<'_>,
        written: Option<Found<&str>>,
        report: &mut Report,
    ) -> Option<String> {
        if let Some(found) = written {
            return bucket_name(&found, report);
        }
        if table.get("bucket").is_some() {
            return None;
        }
        if let Some(bucket) = &self.defaults.bucket {
            return Some(bucket.clone());
        }
        let Some(fallback) = self.bucket_fallback else {
            if !self.defaults.bucket_is_flawed {
                let allowed = "a bucket here, in defaults.default_bucket, or in MINIO_BUCKET";
                table.missing("bucket", allowed, report);
            }
            return None;
        };
        match bucket_flaw(fallback) {
            None => Some(fallback.to_owned()),
            Some(flaw) => {
                let found = quoted(fallback);
                report.key(
                    &table.path.missing("bucket"),
                    format!("found {found} in MINIO_BUCKET; {flaw}"),
                );
                None
            }
        }
    }

    fn directory(&self, found: &Found<&str>, report: &mut Report) -> Option<Place> {
        let written = FilePath::new(found.value);
        if found.value.is_empty() {
            report.value(
                &found.path,
                "found an empty text; allowed: a directory (`.` is base_file_path itself)",
            );
            return None;
        }
        let plain = plain_path(found, report)?;
        let base = self.defaults.base.as_ref();
        if written.is_absolute() {
            let base = base.filter(|base| plain.starts_with(&base.path)).cloned();
            return Some(Place::File { path: plain, base });
        }
        let Some(base) = base else {
            if !self.defaults.base_is_flawed {
                let text = quoted(found.value);
                report.value(
                    &found.path,
                    format!(
                        "found the relative path {text} without defaults.base_file_path; allowed: \
                         an absolute path, or a base_file_path in defaults"
                    ),
                );
            }
            return None;
        };
        Some(Place::File {
            // Not `join`, which leaves a `/` behind the base when the path is `.`.
            path: base.path.iter().chain(&plain).collect(),
            base: Some(base.clone()),
        })
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
fn only_for_files(key: &str, table: &Table<'_>, kind: Option<Kind>, report: &mut Report) -> bool {
    if kind != Some(Kind::S3) {
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

fn matcher(source: &Table<'_>, report: &mut Report) -> Option<Matcher> {
    let Some(Found { value, path }) = source.get("match") else {
        return Some(Matcher::All);
    };
    if let Node::Text(text) = value {
        let (found, text) = (describe(value), quoted(text));
        report.value(
            &path,
            format!("found {found}; allowed: {{ glob: {text} }} or {{ regex: '…' }}"),
        );
        return None;
    }
    let table = Table::closed(value, path, schema::MATCH, report)?;
    if table.get("glob").is_some() && table.get("regex").is_some() {
        report.key(
            &table.path,
            "found both glob and regex; allowed: one of them",
        );
    }
    let flawed = report.0.len();
    let mut matcher = Some(Matcher::All);
    for (key, read) in [
        ("glob", Matcher::glob as fn(&str) -> Result<_, _>),
        ("regex", Matcher::regex),
    ] {
        if let Some(found) = table.text(key, report) {
            matcher = read(found.value)
                .map_err(|flaw| report.value(&found.path, flaw))
                .ok();
        }
    }
    matcher.filter(|_| report.0.len() == flawed)
}

/// `None` where there is no rename, or a wrong one, which is reported.
fn rename(dest: &Table<'_>, report: &mut Report) -> Option<Rename> {
    let table = dest.table("rename", schema::RENAME, report)?;
    let regex = table.text("regex", report);
    let replace = table.text("replace", report);
    if regex.is_none() {
        let allowed = "a regular expression for the last part of a name";
        table.missing("regex", allowed, report);
    }
    if replace.is_none() {
        let allowed = "the text that each match becomes (\"\" removes it)";
        table.missing("replace", allowed, report);
    }
    let (regex, replace) = (regex?, replace?);
    match Rename::new(regex.value, replace.value) {
        Ok(rename) => Some(rename),
        Err(flaws) => {
            for flaw in flaws {
                match flaw {
                    Flaw::Regex(text) => report.value(&regex.path, text),
                    Flaw::Replace(text) => report.value(&replace.path, text),
                }
            }
            None
        }
    }
}

fn examples(rule: &Table<'_>, rename: Option<&Rename>, report: &mut Report) -> Vec<Example> {
    let items = rule.list("examples", report);
    items
        .into_iter()
        .filter_map(|Found { value, path }| example(value, path, rename, report))
        .collect()
}

fn example(
    node: &Node,
    path: Path,
    rename: Option<&Rename>,
    report: &mut Report,
) -> Option<Example> {
    let table = Table::closed(node, path, schema::EXAMPLE, report)?;
    let name = table.text("name", report);
    let becomes = table.text("becomes", report);
    let ignored = table.boolean("ignored", report);
    let at = table.text("at", report);
    match &name {
        None => table.missing("name", "a name, relative to the source", report),
        Some(name) if name.value.is_empty() => {
            report.value(&name.path, "found an empty text; allowed: a name");
        }
        Some(_) => {}
    }
    match (&becomes, &ignored) {
        (Some(_), Some(ignored)) => report.key(
            &ignored.path,
            "found both becomes and ignored; allowed: one of them",
        ),
        (None, None) if table.get("becomes").is_none() && table.get("ignored").is_none() => {
            let allowed = "the name that it becomes, or `ignored: true` instead";
            table.missing("becomes", allowed, report);
        }
        (None, Some(ignored)) if !ignored.value => report.value(
            &ignored.path,
            "found false; allowed: true, or `becomes` with the new name instead",
        ),
        _ => {}
    }
    let has_at = at.is_some();
    let at = at.and_then(|found| timestamp(&found, report));
    if let (Some(name), Some(_), Some(rename), false) = (&name, &becomes, rename, has_at)
        && let Some(whole) = Name::new(name.value.as_bytes())
        && rename.depends_on_time(whole.split().1)
    {
        let allowed = "an instant for the time in the new name, such as \"2026-11-21T08:10:04Z\"";
        table.missing("at", allowed, report);
    }
    Some(Example {
        name: name?.value.to_owned(),
        becomes: becomes.map(|found| found.value.to_owned()),
        at,
    })
}

fn timestamp(found: &Found<&str>, report: &mut Report) -> Option<Timestamp> {
    let parsed: Result<Timestamp, _> = found.value.parse();
    parsed
        .map_err(|_| {
            let text = quoted(found.value);
            report.value(
                &found.path,
                format!("found the text {text}; allowed: an instant: \"2026-11-21T08:10:04Z\""),
            );
        })
        .ok()
}

fn lock_file(found: &Found<&str>, report: &mut Report) -> Option<String> {
    let name = found.value;
    if matches!(name, "" | "." | "..") || name.contains(['/', '\0']) {
        let text = quoted(name);
        report.value(
            &found.path,
            format!(
                "found the text {text}; allowed: the name of a file in the source directory, \
                 without a `/`"
            ),
        );
        return None;
    }
    Some(name.to_owned())
}

fn bucket_name(found: &Found<&str>, report: &mut Report) -> Option<String> {
    if let Some(flaw) = bucket_flaw(found.value) {
        let text = quoted(found.value);
        report.value(&found.path, format!("found the text {text}; {flaw}"));
        return None;
    }
    Some(found.value.to_owned())
}

/// What `MinIO` refuses in a bucket's name (minio-go `s3utils.CheckValidBucketNameStrict`; `minio`
/// itself is reserved by the server).
fn bucket_flaw(name: &str) -> Option<&'static str> {
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    let sound = (3..=63).contains(&bytes.len())
        && bytes
            .iter()
            .all(|&b| is_plain(b) || matches!(b, b'.' | b'-'))
        && bytes.first().copied().is_some_and(is_plain)
        && bytes.last().copied().is_some_and(is_plain)
        && !["..", ".-", "-."].iter().any(|pair| name.contains(pair))
        && name.parse::<std::net::Ipv4Addr>().is_err()
        && name != "minio";
    (!sound).then_some(
        "allowed: a bucket of MinIO: 3 to 63 of a-z, 0-9, `.` and `-`, first and last a letter \
         or digit, no IP address",
    )
}

/// A prefix without a `/` in front and with one behind; empty for the whole bucket.
fn prefix(found: &Found<&str>, report: &mut Report) -> Option<String> {
    let plain = found.value.trim_matches('/');
    if plain.is_empty() {
        return Some(String::new());
    }
    let text = quoted(found.value);
    let mut refuse = |what: &str, allowed: &str| {
        report.value(
            &found.path,
            format!("found {what} in {text}; allowed: {allowed}"),
        );
        None
    };
    if plain.split('/').any(str::is_empty) {
        return refuse(
            "a doubled `/`",
            "one `/` between two parts (MinIO refuses more)",
        );
    }
    if plain.split('/').any(|part| matches!(part, "." | "..")) {
        return refuse(
            "a part `.` or `..`",
            "parts with names (MinIO refuses these)",
        );
    }
    if plain.contains('\0') {
        return refuse("a NUL character", "text without it");
    }
    if plain.len() + 1 >= MAX_KEY_BYTES {
        return refuse(
            "more than a key can hold",
            "less than 1023 bytes, so that a name has room",
        );
    }
    Some(format!("{plain}/"))
}

fn base_path(found: &Found<&str>, report: &mut Report) -> Option<PathBuf> {
    if !FilePath::new(found.value).is_absolute() {
        let text = quoted(found.value);
        report.value(
            &found.path,
            format!("found the text {text}; allowed: an absolute path, such as /home/bots/.bots"),
        );
        return None;
    }
    plain_path(found, report)
}

/// The path without `.` and doubled `/`; a `..` is refused.
fn plain_path(found: &Found<&str>, report: &mut Report) -> Option<PathBuf> {
    let text = quoted(found.value);
    if found.value.contains('\0') {
        report.value(
            &found.path,
            format!("found a NUL character in {text}; allowed: text without it"),
        );
        return None;
    }
    let components = FilePath::new(found.value).components();
    if components.clone().any(|part| part == Component::ParentDir) {
        report.value(
            &found.path,
            format!("found a `..` in {text}; allowed: the directory's own path without it"),
        );
        return None;
    }
    Some(
        components
            .filter(|part| *part != Component::CurDir)
            .collect(),
    )
}

fn value<T>(found: Option<Found<T>>) -> Option<T> {
    found.map(|found| found.value)
}

fn seconds(count: u32) -> Duration {
    Duration::from_secs(count.into())
}

fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
