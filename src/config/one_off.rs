//! A rule from the command line, as the tree that a config file would have given.

use std::path::Path;

use super::written::deception;
use super::yaml::{Node, Pair};
use crate::rule::Mode;

/// The options of `move` and `copy`.
pub const ONE_OFF_OPTIONS: &[&str] = &[
    "--glob",
    "--regex",
    "--rename-regex",
    "--rename-replace",
    "--recursive",
    "--max-items",
    "--retries",
    "--wait-seconds",
    "--if-exists",
    "--min-age-seconds",
    "--lock-file",
    "--concurrency",
    "--shard-by",
    "--description",
];

/// The options again, each with what its value is, for a help text.
pub const ONE_OFF_HELP: &[(&str, &str)] = &[
    ("--glob", "PATTERN"),
    ("--regex", "REGEX"),
    ("--rename-regex", "REGEX"),
    ("--rename-replace", "TEXT"),
    ("--recursive", "true|false"),
    ("--max-items", "NUMBER"),
    ("--retries", "NUMBER"),
    ("--wait-seconds", "NUMBER"),
    ("--if-exists", "overwrite|fail|keep_both|skip"),
    ("--min-age-seconds", "NUMBER"),
    ("--lock-file", "NAME"),
    ("--concurrency", "NUMBER"),
    ("--shard-by", "name|directory"),
    ("--description", "TEXT"),
];

/// The rule's name in the log.
pub(super) fn name(mode: Mode) -> &'static str {
    match mode {
        Mode::Move => "move",
        Mode::Copy => "copy",
    }
}

/// The tree, or what is wrong with the arguments as such.
pub(super) fn tree(
    mode: Mode,
    src: &str,
    dest: &str,
    options: &[(String, String)],
    cwd: &Path,
) -> Result<Node, Vec<String>> {
    let mut flaws = Vec::new();
    let mut source = place("SRC", src, cwd, &mut flaws);
    let mut dest = place("DEST", dest, cwd, &mut flaws);
    let mut rule = vec![pair("mode", text(name(mode)))];
    let (mut matcher, mut rename) = (Vec::new(), Vec::new());
    for (option, value) in options {
        let key = option.trim_start_matches('-').replace('-', "_");
        match key.as_str() {
            "glob" | "regex" => matcher.push(pair(&key, text(value))),
            "rename_regex" | "rename_replace" => {
                rename.push(pair(&key["rename_".len()..], text(value)));
            }
            "recursive" => source.push(pair(&key, boolean(value))),
            "lock_file" | "if_exists" | "shard_by" | "description" => {
                rule.push(pair(&key, text(value)));
            }
            _ => rule.push(pair(&key, number(value))),
        }
    }
    if !flaws.is_empty() {
        return Err(flaws);
    }
    if !matcher.is_empty() {
        source.push(pair("match", Node::Map(matcher)));
    }
    if !rename.is_empty() {
        dest.push(pair("rename", Node::Map(rename)));
    }
    rule.push(pair("src", Node::Map(source)));
    rule.push(pair("dest", Node::Map(dest)));
    let rules = Node::Map(vec![pair(name(mode), Node::Map(rule))]);
    Ok(Node::Map(vec![pair("config", rules)]))
}

/// What people call a key of the rule when they wrote it as an argument.
pub(super) fn argument(names: &[String]) -> String {
    let names: Vec<&str> = names.iter().skip(2).map(String::as_str).collect();
    match names.as_slice() {
        ["src", "match"] => "--glob, --regex".into(),
        ["src", "match", key] => format!("--{key}"),
        ["src", "recursive"] => "--recursive".into(),
        ["dest", "rename", key] => format!("--rename-{key}"),
        ["src", ..] => "SRC".into(),
        ["dest", ..] => "DEST".into(),
        _ => format!("--{}", names.join("-").replace('_', "-")),
    }
}

fn place(argument: &str, written: &str, cwd: &Path, flaws: &mut Vec<String>) -> Vec<Pair> {
    if let Some(flaw) = deception(written, "path") {
        flaws.push(format!("{argument}: {flaw}"));
        return Vec::new();
    }
    if let Some(address) = written.strip_prefix("s3://") {
        let (bucket, prefix) = address.split_once('/').unwrap_or((address, ""));
        let mut place = vec![pair("type", text("s3")), pair("path", text(prefix))];
        if !bucket.is_empty() {
            place.push(pair("bucket", text(bucket)));
        }
        return place;
    }
    // What stands before `://` may hold a password in other schemes, so nothing of it is shown.
    if written.is_empty() || written.contains("://") {
        let found = if written.is_empty() {
            "an empty text"
        } else {
            "an address that is not s3://"
        };
        flaws.push(format!(
            "{argument}: found {found}; allowed: s3://bucket/prefix or a path"
        ));
    }
    // `join` leaves an absolute path as it is.
    let path = cwd.join(written);
    let Some(path) = path.to_str() else {
        flaws.push(format!(
            "{argument}: the working directory is not UTF-8; allowed: an absolute path"
        ));
        return Vec::new();
    };
    vec![pair("type", text("file")), pair("path", text(path))]
}

fn pair(key: &str, value: Node) -> Pair {
    Pair {
        key: key.to_owned(),
        value,
        via: Vec::new(),
    }
}

fn text(value: &str) -> Node {
    Node::Text(value.to_owned())
}

/// Also here a number is written in one way: not `010`, not `+1`.
fn number(value: &str) -> Node {
    let number = value.parse().ok();
    let number = number.filter(|number: &i128| number.to_string() == value);
    number.map_or_else(|| text(value), Node::Int)
}

fn boolean(value: &str) -> Node {
    value.parse().map_or_else(|_| text(value), Node::Bool)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_every_option() {
        let named: Vec<&str> = ONE_OFF_HELP.iter().map(|(option, _)| *option).collect();
        assert_eq!(named, ONE_OFF_OPTIONS);
    }
}
