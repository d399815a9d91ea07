//! PURE: the resolved rules as a person likes to read them.

use crate::object::Place;
use crate::rule::{Config, IfExists, Mode, Rule};

/// Every rule with its full paths and effective values, and what looks like a mistake.
pub fn table(config: &Config) -> String {
    let mut text = String::new();
    for rule in &config.rules {
        let about = rule
            .description
            .as_deref()
            .map(|about| format!("  {about}"));
        text += &as_line(&format!("{}{}", rule.name, about.unwrap_or_default()));
        for (key, value) in rows(rule, config.concurrency) {
            text += &as_line(&format!("  {key:<12} {value}"));
        }
    }
    let on_failure = if config.exit_on_first_failure {
        "the first failed item keeps new ones from starting"
    } else {
        "everything that can move moves, whatever fails"
    };
    text += &as_line(&format!(
        "run  {} items at once; {on_failure}",
        config.concurrency
    ));
    for warning in &config.warnings {
        text += &as_line(&format!("warning: {warning}"));
    }
    text
}

/// The text with a line's end behind it. Names may hold anything; a line must stay a line.
pub fn as_line(text: &str) -> String {
    let shown: String = text
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    format!("{}\n", shown.trim_end())
}

/// How the rule treats its source and what is at the destination already.
pub fn mode(rule: &Rule) -> String {
    let mode = if rule.mode == Mode::Move {
        "move"
    } else {
        "copy"
    };
    let if_exists = match rule.if_exists {
        IfExists::Overwrite => "overwrite",
        IfExists::Fail => "fail",
        IfExists::KeepBoth => "keep_both",
        IfExists::Skip => "skip",
    };
    format!("{mode}, if_exists {if_exists}")
}

fn rows(rule: &Rule, concurrency: usize) -> Vec<(&'static str, String)> {
    let depth = match (&rule.source, rule.recursive) {
        (Place::S3 { .. }, true) => "all keys below",
        (Place::S3 { .. }, false) => "keys of this level",
        (Place::File { .. }, true) => "also directories below",
        (Place::File { .. }, false) => "this directory",
    };
    let mut rows = vec![
        ("from", format!("{}  ({depth})", rule.source)),
        ("match", rule.matcher.to_string()),
        ("to", rule.dest.to_string()),
    ];
    if let Some(rename) = &rule.rename {
        rows.push((
            "rename",
            format!("{} to {}", rename.regex(), rename.replace()),
        ));
    }
    rows.push(("mode", mode(rule)));
    let at_once = rule.concurrency.unwrap_or(concurrency);
    let order = if at_once == 1 {
        "one at a time, in order".into()
    } else {
        format!("{at_once} at once")
    };
    rows.push(("max_items", format!("{} in a run, {order}", rule.max_items)));
    rows.push((
        "retries",
        format!("{}, {} s apart", rule.retries, rule.wait.as_secs()),
    ));
    if !rule.min_age.is_zero() {
        rows.push(("min_age", format!("{} s", rule.min_age.as_secs())));
    }
    if let Some(lock) = &rule.lock_file {
        rows.push(("lock_file", lock.clone()));
    }
    if !rule.examples.is_empty() {
        rows.push(("examples", format!("{} pass", rule.examples.len())));
    }
    rows
}
