//! PURE: the rules as a Mermaid flowchart, for a README or a merge request.
//!
//! Each place is a node, however many rules share it, and each rule an arrow. Whatever a name holds
//! stays text: what Mermaid, or the Markdown and HTML in its labels, could read as anything else is
//! written as an entity.
//! <https://mermaid.js.org/syntax/flowchart.html#entity-codes-to-escape-characters>

use std::fmt::Write as _;

use crate::check::mode;
use crate::object::Place;
use crate::relations;
use crate::rule::{Config, Rule};

/// The chart, and in it what looks like a mistake.
pub fn chart(config: &Config) -> String {
    let mut nodes: Vec<&Place> = Vec::new();
    let mut chart = String::from("flowchart LR\n");
    for place in config
        .rules
        .iter()
        .flat_map(|rule| [&rule.source, &rule.dest])
    {
        if node(&nodes, place).is_none() {
            nodes.push(place);
            let (open, close) = match place {
                Place::S3 { .. } => ("[(", ")]"),
                Place::File { .. } => ("[/", "/]"),
            };
            let name = place.to_string();
            // The one colon that is left as it is: it begins no style and no icon.
            let label = name
                .strip_prefix("s3://")
                .map(label)
                .map_or_else(|| label(&name), |label| format!("s3://{label}"));
            line(
                &mut chart,
                &format!("p{}{open}\"{label}\"{close}", nodes.len()),
            );
        }
    }
    let at = |place| node(&nodes, place).map_or(0, |index| index + 1);
    for rule in &config.rules {
        let (source, dest) = (at(&rule.source), at(&rule.dest));
        line(
            &mut chart,
            &format!("p{source} -->|\"{}\"| p{dest}", arrow(rule)),
        );
    }
    let warnings = relations::warnings(&config.rules);
    for (index, warning) in warnings.iter().enumerate() {
        let note = index + 1;
        line(
            &mut chart,
            &format!("w{note}>\"{}\"]:::warning", label(&warning.text)),
        );
        let mut places: Vec<usize> = warning.places.iter().map(at).collect();
        places.dedup();
        for place in places {
            line(&mut chart, &format!("w{note} -.- p{place}"));
        }
    }
    if !warnings.is_empty() {
        line(&mut chart, "classDef warning stroke:red,stroke-dasharray:4");
    }
    for index in 0..config.rules.len() {
        if warnings
            .iter()
            .any(|warning| warning.rules.contains(&index))
        {
            line(&mut chart, &format!("linkStyle {index} stroke:red"));
        }
    }
    chart
}

/// Two places are one node where they read the same.
fn node(nodes: &[&Place], place: &Place) -> Option<usize> {
    let name = place.to_string();
    nodes.iter().position(|known| known.to_string() == name)
}

fn line(chart: &mut String, statement: &str) {
    writeln!(chart, "    {statement}").expect("writing to a string cannot fail");
}

/// What stands on a rule's arrow.
fn arrow(rule: &Rule) -> String {
    let mut lines = vec![rule.name.clone(), rule.matcher.to_string()];
    if let Some(rename) = &rule.rename {
        lines.push(format!("rename {} to {}", rename.regex(), rename.replace()));
    }
    lines.push(mode(rule));
    let lines: Vec<String> = lines.iter().map(|line| label(line)).collect();
    lines.join("<br>")
}

/// The text as it may stand in quotes. A dot, a hyphen or an underscore is left alone only where it
/// can neither begin a list nor emphasis.
fn label(text: &str) -> String {
    let shown: Vec<char> = text.chars().flat_map(visible).collect();
    let mut label = String::new();
    for (at, c) in shown.iter().enumerate() {
        let before = at.checked_sub(1).map_or(' ', |at| shown[at]);
        let after = shown.get(at + 1).copied().unwrap_or(' ');
        let plain = match c {
            ' ' => before != ' ',
            '.' => after.is_alphanumeric(),
            '-' | '_' => before.is_alphanumeric(),
            '/' | ',' | '{' | '}' | '^' | '?' => true,
            c => c.is_alphanumeric(),
        };
        if plain {
            label.push(*c);
        } else {
            // A blank that would be lost beside another.
            let code = if *c == ' ' { 160 } else { u32::from(*c) };
            write!(label, "#{code};").expect("writing to a string cannot fail");
        }
    }
    label
}

/// What cannot be seen, spelled out as in the log.
fn visible(c: char) -> Vec<char> {
    match c {
        '"' | '\'' | '\\' => vec![c],
        c => c.escape_debug().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(label(text), expected);
    }

    #[test]
    fn what_is_plain_stays_readable() {
        check("/home/bots/.bots/in-850_x", "/home/bots/.bots/in-850_x");
        check("Stra\u{df}e, {timestamp-z}", "Stra\u{df}e, {timestamp-z}");
    }

    #[test]
    fn what_would_be_syntax_is_an_entity() {
        check("\"];#`<b>&%%", "#34;#93;#59;#35;#96;#60;b#62;#38;#37;#37;");
        check("*.edi", "#42;.edi");
        check("1. - _a_", "1#46; #45; #95;a_");
        check("style:x", "style#58;x");
    }

    #[test]
    fn what_cannot_be_seen_is_spelled_out() {
        check("a\u{200b}\n", "a#92;u{200b}#92;n");
        check("a  b", "a #160;b");
    }
}
