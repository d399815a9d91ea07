//! PURE: the resolved rules as a person likes to read them.

use jiff::SignedDuration;

use crate::object::Place;
use crate::rule::{Config, LocalTime, Rule, ShardBy};
use crate::shard::Shard;
use crate::text::{escaped, in_quotes, shown};

/// Every rule with its full paths and effective values, and what looks like a mistake.
pub(crate) fn table(config: &Config, instant: &LocalTime) -> String {
    let mut text = String::new();
    for rule in &config.rules {
        let about = rule
            .description
            .as_deref()
            .map(|about| format!("  {about}"));
        let about = about.unwrap_or_default();
        text += &as_line(&format!("{}{about}", shown(&rule.name)));
        for (key, value) in rows(rule, config) {
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
    for note in notes(config, instant) {
        text += &as_line(&format!("note: {note}"));
    }
    text
}

/// What is right, but not at every time of the year.
fn notes(config: &Config, instant: &LocalTime) -> Vec<String> {
    let Some(day) = day_with_an_hour_twice(instant) else {
        return Vec::new();
    };
    let zone = instant.zone.iana_name().unwrap_or("TZ");
    let note = |rule: &Rule| {
        let token = rule.rename.as_ref()?.local_hour()?;
        let name = in_quotes(&rule.name);
        Some(format!(
            "rule {name}: {token} is the local time of {zone}, where an hour comes twice on {day}: \
             two instants give one name then; the tokens that end in `-z}}` are UTC"
        ))
    };
    config.rules.iter().filter_map(note).collect()
}

/// The next day within a year on which the zone's clocks are set back.
fn day_with_an_hour_twice(instant: &LocalTime) -> Option<String> {
    const YEAR: SignedDuration = SignedDuration::from_hours(366 * 24);
    let (zone, until) = (&instant.zone, instant.at.checked_add(YEAR).ok()?);
    zone.following(instant.at)
        .take_while(|transition| transition.timestamp() <= until)
        .find(|transition| {
            let before = transition.timestamp() - SignedDuration::from_secs(1);
            transition.offset() < zone.to_offset(before)
        })
        .map(|transition| {
            let at = transition.timestamp().to_zoned(zone.clone());
            at.strftime("%Y-%m-%d").to_string()
        })
}

/// The text with a line's end behind it. Names may hold anything; a line must stay a line.
pub(crate) fn as_line(text: &str) -> String {
    format!("{}\n", escaped(text).trim_end())
}

fn place(place: &Place) -> String {
    shown(&place.to_string())
}

/// How the rule treats its source and what is at the destination already.
pub(crate) fn mode(rule: &Rule) -> String {
    format!("{}, if_exists {}", rule.mode.word(), rule.if_exists.word())
}

fn rows(rule: &Rule, config: &Config) -> Vec<(&'static str, String)> {
    let depth = match (&rule.source, rule.recursive) {
        (Place::S3 { .. }, true) => "all keys below",
        (Place::S3 { .. }, false) => "keys of this level",
        (Place::File { .. }, true) => "also directories below",
        (Place::File { .. }, false) => "this directory",
    };
    let mut rows = vec![
        ("from", format!("{}  ({depth})", place(&rule.source))),
        ("match", rule.matcher.to_string()),
        ("to", place(&rule.dest)),
    ];
    if let Some(rename) = &rule.rename {
        rows.push((
            "rename",
            format!(
                "{} to {}",
                shown(rename.regex().as_str()),
                shown(rename.replace())
            ),
        ));
    }
    rows.push(("mode", mode(rule)));
    let at_once = rule.concurrency.unwrap_or(config.concurrency);
    let order = if at_once == 1 {
        "one at a time, in order".into()
    } else {
        format!("{at_once} at once")
    };
    let each = config.shard.map_or("in a run".into(), Shard::each);
    rows.push(("max_items", format!("{} {each}, {order}", rule.max_items)));
    rows.push((
        "retries",
        format!("{}, {} s apart", rule.retries, rule.wait.as_secs()),
    ));
    if !rule.min_age.is_zero() {
        rows.push(("min_age", format!("{} s", rule.min_age.as_secs())));
    }
    for place in [&rule.source, &rule.dest] {
        if let Place::File {
            base: Some(base), ..
        } = place
            && base.must_be_mount
        {
            let text = format!("{} must be a mount point", base.path.display());
            rows.push(("mount", text));
            break;
        }
    }
    if let Some(lock) = &rule.lock_file {
        rows.push(("lock_file", shown(lock)));
    }
    if rule.shard_by == ShardBy::Directory {
        rows.push(("shard_by", "directory".into()));
    }
    if !rule.examples.is_empty() {
        rows.push(("examples", format!("{} pass", rule.examples.len())));
    }
    rows
}
