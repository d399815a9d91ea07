//! Typed access to what was written. Whatever is of the wrong type, out of range, unknown, or there
//! twice is reported and then treated as absent, so that reading goes on to the next problem.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use super::problems::{Path, Report};
use super::schema;
use super::yaml::{Node, Pair};

/// How much of a wrong text is shown.
const SHOWN_CHARS: usize = 60;

/// A value, and the way to it for later complaints.
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) path: Path,
}

/// A mapping whose keys are known to be allowed ones.
pub(super) struct Table<'a> {
    pairs: &'a [Pair],
    pub(super) path: Path,
}

impl<'a> Table<'a> {
    /// A mapping with a closed list of keys.
    pub(super) fn closed(
        node: &'a Node,
        path: Path,
        allowed: &[&str],
        report: &mut Report,
    ) -> Option<Self> {
        let table = Self::open(node, path, &allowed.join(", "), report)?;
        for pair in table.pairs {
            if !allowed.contains(&pair.key.as_str()) && pair.key != "<<" {
                let path = table.path.key(&pair.key, 0, &pair.via);
                report.key(&path, unknown_key(&pair.key, allowed));
            }
        }
        Some(table)
    }

    /// A mapping with any keys; `allowed` says which, for people.
    pub(super) fn open(
        node: &'a Node,
        path: Path,
        allowed: &str,
        report: &mut Report,
    ) -> Option<Self> {
        let Node::Map(pairs) = node else {
            let found = describe(node);
            report.value(
                &path,
                format!("found {found}; allowed: a mapping with the keys {allowed}"),
            );
            return None;
        };
        let table = Self { pairs, path };
        table.report_duplicates(report);
        Some(table)
    }

    /// All keys in the order of the file, the first of those that are there twice.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a str, &'a Node, Path)> {
        let mut seen = std::collections::HashSet::new();
        self.pairs.iter().filter_map(move |pair| {
            let path = || self.path.key(&pair.key, 0, &pair.via);
            seen.insert(pair.key.as_str())
                .then(|| (pair.key.as_str(), &pair.value, path()))
        })
    }

    /// Whether the key is there, even without a value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.pairs.iter().any(|pair| pair.key == key)
    }

    /// The value of a key; `null` is absent.
    pub(super) fn get(&self, key: &str) -> Option<Found<&'a Node>> {
        let pair = self.pairs.iter().find(|pair| pair.key == key)?;
        let path = || self.path.key(key, 0, &pair.via);
        (pair.value != Node::Null).then(|| Found {
            value: &pair.value,
            path: path(),
        })
    }

    /// A mapping below.
    pub(super) fn table(
        &self,
        key: &str,
        allowed: &[&str],
        report: &mut Report,
    ) -> Option<Table<'a>> {
        let Found { value, path } = self.get(key)?;
        Table::closed(value, path, allowed, report)
    }

    /// A text.
    pub(super) fn text(&self, key: &str, report: &mut Report) -> Option<Found<&'a str>> {
        let Found { value, path } = self.get(key)?;
        if let Node::Text(text) = value {
            let value = text.as_str();
            return Some(Found { value, path });
        }
        let quoted = match value {
            Node::Bool(value) => Some(value.to_string()),
            Node::Int(value) => Some(value.to_string()),
            _ => None,
        };
        let advice = match (quoted, value) {
            (Some(text), _) => format!("a text; quote it: \"{text}\""),
            (None, Node::Float(_)) => "a text; quote it".into(),
            _ => "a text".into(),
        };
        report.value(
            &path,
            format!("found {}; allowed: {advice}", describe(value)),
        );
        None
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, key: &str, report: &mut Report) -> Option<Found<bool>> {
        let Found { value, path } = self.get(key)?;
        if let Node::Bool(value) = *value {
            return Some(Found { value, path });
        }
        let found = describe(value);
        report.value(&path, format!("found {found}; allowed: true or false"));
        None
    }

    /// A whole number in a range.
    pub(super) fn integer(
        &self,
        key: &str,
        allowed: &RangeInclusive<u32>,
        report: &mut Report,
    ) -> Option<Found<u32>> {
        let Found { value, path } = self.get(key)?;
        let number = match value {
            Node::Int(number) => u32::try_from(*number).ok(),
            _ => None,
        };
        if let Some(value) = number.filter(|number| allowed.contains(number)) {
            return Some(Found { value, path });
        }
        let quotes = match value {
            Node::Text(text) if text.trim().parse::<u32>().is_ok() => " without quotes",
            _ => "",
        };
        let (found, min, max) = (describe(value), allowed.start(), allowed.end());
        report.value(
            &path,
            format!("found {found}; allowed: a whole number from {min} to {max}{quotes}"),
        );
        None
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &self,
        key: &str,
        choices: &[(&str, T)],
        report: &mut Report,
    ) -> Option<Found<T>> {
        let Found { value, path } = self.get(key)?;
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let Node::Text(text) = value else {
            let (found, words) = (describe(value), words.join(", "));
            report.value(&path, format!("found {found}; allowed: {words}"));
            return None;
        };
        if let Some((_, value)) = choices.iter().find(|(word, _)| word == text) {
            let value = *value;
            return Some(Found { value, path });
        }
        let meant = schema::near(text, &words);
        let meant = meant.map_or_else(String::new, |word| format!("; did you mean `{word}`?"));
        let (found, words) = (describe(value), words.join(", "));
        report.value(&path, format!("found {found}; allowed: {words}{meant}"));
        None
    }

    /// The items of a list.
    pub(super) fn list(&self, key: &str, report: &mut Report) -> Vec<Found<&'a Node>> {
        let Some(Found { value, path }) = self.get(key) else {
            return Vec::new();
        };
        let Node::List(items) = value else {
            let found = describe(value);
            report.value(&path, format!("found {found}; allowed: a list"));
            return Vec::new();
        };
        let found = |(index, value)| Found {
            value,
            path: path.item(index),
        };
        items.iter().enumerate().map(found).collect()
    }

    /// Says that a key is missing, where it is not there or without a value.
    pub(super) fn missing(&self, key: &str, allowed: &str, report: &mut Report) {
        let pair = self.pairs.iter().find(|pair| pair.key == key);
        match pair {
            // Then its value was of the wrong type, which was said.
            Some(pair) if pair.value != Node::Null => {}
            Some(pair) => report.key(
                &self.path.key(key, 0, &pair.via),
                format!("found no value; allowed: {allowed}"),
            ),
            None => report.key(
                &self.path.missing(key),
                format!("this key is missing; allowed: {allowed}"),
            ),
        }
    }

    fn report_duplicates(&self, report: &mut Report) {
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for pair in self.pairs {
            let count = seen.entry(&pair.key).or_default();
            let path = || self.path.key(&pair.key, *count, &pair.via);
            if pair.key == "<<" {
                let found = describe(&pair.value);
                report.key(
                    &path(),
                    format!(
                        "found {found}; allowed: one merge key with a mapping or a list of \
                         mappings, each usually an alias"
                    ),
                );
            } else if *count > 0 {
                report.key(&path(), "found twice; allowed: once");
            }
            *count += 1;
        }
    }
}

/// The value for people: `the text "yes"`, `the number 5`, `a list`.
pub(super) fn describe(node: &Node) -> String {
    match node {
        Node::Null => "nothing".into(),
        Node::Bool(value) => format!("the truth value {value}"),
        Node::Int(value) => format!("the number {value}"),
        Node::Float(value) => format!("the number {value}"),
        Node::Text(text) => format!("the text {}", quoted(text)),
        Node::List(_) => "a list".into(),
        Node::Map(_) => "a mapping".into(),
        Node::Tagged(tag) => format!(
            "the tag `!{}` (a text that begins with `!` needs quotes)",
            tag.escape_debug()
        ),
    }
}

/// A text for people: in quotes, on one line, and not too long.
pub(super) fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_CHARS).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("\"{}\"", shown.escape_debug())
}

/// Names what was probably meant, or everything that is allowed.
fn unknown_key(key: &str, allowed: &[&str]) -> String {
    let hint = schema::hint(key, allowed);
    let hint = hint.map_or_else(String::new, |hint| format!("; {hint}"));
    format!("unknown key; allowed: {}{hint}", allowed.join(", "))
}
