//! What a rule says about names: which it takes, what they become, and its examples.

use jiff::Timestamp;

use super::problems::{Diagnostics, Path};
use super::schema;
use super::written::{Located, Table, describe, quoted};
use super::yaml::Node;
use crate::object::Name;
use crate::pattern::{Flaw, Matcher, Rename};
use crate::rule::Example;

pub(super) fn matcher(source: &Table<'_>, report: &mut Diagnostics) -> Option<Matcher> {
    let Some(Located { value, path }) = source.get("match") else {
        return Some(Matcher::All);
    };
    if let Node::Text(text) = value {
        let (found, text) = (describe(value, &path, report), quoted(text));
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
    let flawed = report.problems.len();
    let mut matcher = Some(Matcher::All);
    for (key, read) in [
        ("glob", Matcher::glob as fn(&str) -> Result<_, _>),
        ("regex", Matcher::regex),
    ] {
        if let Some(found) = table.plain_text(key, report) {
            matcher = read(found.value)
                .map_err(|flaw| report.value(&found.path, flaw))
                .ok();
        }
    }
    matcher.filter(|_| report.problems.len() == flawed)
}

/// `None` where there is no rename, or a wrong one, which is reported.
pub(super) fn rename(dest: &Table<'_>, report: &mut Diagnostics) -> Option<Rename> {
    let table = dest.table("rename", schema::RENAME, report)?;
    let regex = table.plain_text("regex", report);
    let replace = table.plain_text("replace", report);
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

pub(super) fn examples(
    rule: &Table<'_>,
    rename: Option<&Rename>,
    report: &mut Diagnostics,
) -> Vec<Example> {
    let items = rule.list("examples", report);
    items
        .into_iter()
        .filter_map(|Located { value, path }| example(value, path, rename, report))
        .collect()
}

fn example(
    node: &Node,
    path: Path,
    rename: Option<&Rename>,
    report: &mut Diagnostics,
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

fn timestamp(found: &Located<&str>, report: &mut Diagnostics) -> Option<Timestamp> {
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

pub(super) fn lock_file(found: &Located<&str>, report: &mut Diagnostics) -> Option<String> {
    let name = found.value;
    if matches!(name, "" | "." | "..") || name.contains('/') {
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
