//! Typed access to what was written. Whatever is of the wrong type, out of range, unknown, or there
//! twice is reported and then treated as absent, so that reading goes on to the next problem.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use super::problems::{Diagnostics, Path};
use super::schema;
use super::yaml::{Node, Pair};
use crate::text::{in_quotes, is_unseen};

/// How much of a wrong text is shown.
const SHOWN_CHARS: usize = 60;

/// A value, and the way to it for later complaints.
pub(super) struct Located<T> {
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
        report: &mut Diagnostics,
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
        report: &mut Diagnostics,
    ) -> Option<Self> {
        let Node::Map(pairs) = node else {
            let found = describe(node, &path, report);
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
    pub(super) fn get(&self, key: &str) -> Option<Located<&'a Node>> {
        let pair = self.pairs.iter().find(|pair| pair.key == key)?;
        let path = || self.path.key(key, 0, &pair.via);
        (pair.value != Node::Null).then(|| Located {
            value: &pair.value,
            path: path(),
        })
    }

    /// A mapping below.
    pub(super) fn table(
        &self,
        key: &str,
        allowed: &[&str],
        report: &mut Diagnostics,
    ) -> Option<Table<'a>> {
        let Located { value, path } = self.get(key)?;
        Table::closed(value, path, allowed, report)
    }

    /// A text.
    pub(super) fn text(&self, key: &str, report: &mut Diagnostics) -> Option<Located<&'a str>> {
        let Located { value, path } = self.get(key)?;
        if let Node::Text(text) = value {
            let value = text.as_str();
            return Some(Located { value, path });
        }
        let written = written(value, &path, report);
        let advice = match value {
            Node::Bool(_) | Node::Int(_) | Node::Float(_) => format!("; quote it: \"{written}\""),
            _ => String::new(),
        };
        let found = described(value, &written);
        report.value(&path, format!("found {found}; allowed: a text{advice}"));
        None
    }

    /// A text that is what it looks like: nothing in it that cannot be seen, no blank at an end.
    pub(super) fn plain_text(
        &self,
        key: &str,
        report: &mut Diagnostics,
    ) -> Option<Located<&'a str>> {
        let found = self.text(key, report)?;
        let flaw = deception(found.value, key);
        match flaw {
            Some(flaw) => report.value(&found.path, flaw),
            None => return Some(found),
        }
        None
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, key: &str, report: &mut Diagnostics) -> Option<Located<bool>> {
        let Located { value, path } = self.get(key)?;
        if let Node::Bool(value) = *value {
            return Some(Located { value, path });
        }
        let found = describe(value, &path, report);
        report.value(&path, format!("found {found}; allowed: true or false"));
        None
    }

    /// A whole number in a range.
    pub(super) fn integer(
        &self,
        key: &str,
        allowed: &RangeInclusive<u32>,
        report: &mut Diagnostics,
    ) -> Option<Located<u32>> {
        let Located { value, path } = self.get(key)?;
        let number = match value {
            Node::Int(number) => u32::try_from(*number).ok(),
            _ => None,
        };
        if let Some(value) = number.filter(|number| allowed.contains(number)) {
            return Some(Located { value, path });
        }
        let written = written(value, &path, report);
        let found = described(value, &written);
        let plain = written.trim();
        let advice = match value {
            Node::Text(_) if plain.len() > 1 && plain.starts_with('0') => {
                let number = plain.trim_start_matches('0').parse::<u32>();
                number.map(|number| format!("; without the leading zero: {number}"))
            }
            Node::Text(_) if !plain.starts_with('+') => {
                plain.parse::<u32>().map(|_| " without quotes".into())
            }
            Node::Float(number) if number.fract() == 0.0 => {
                let how = if plain.contains(['e', 'E']) {
                    "an exponent"
                } else {
                    "a point"
                };
                let number = format!("{number}").parse::<u32>();
                number.map(|number| format!("; without {how}: {number}"))
            }
            _ => Ok(String::new()),
        };
        let (min, max, advice) = (allowed.start(), allowed.end(), advice.unwrap_or_default());
        report.value(
            &path,
            format!("found {found}; allowed: a whole number from {min} to {max}{advice}"),
        );
        None
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &self,
        key: &str,
        choices: &[(&str, T)],
        report: &mut Diagnostics,
    ) -> Option<Located<T>> {
        let Located { value, path } = self.get(key)?;
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let Node::Text(text) = value else {
            let (found, words) = (describe(value, &path, report), words.join(", "));
            report.value(&path, format!("found {found}; allowed: {words}"));
            return None;
        };
        if let Some((_, value)) = choices.iter().find(|(word, _)| word == text) {
            let value = *value;
            return Some(Located { value, path });
        }
        let meant = schema::near(text, &words);
        let meant = meant.map_or_else(String::new, |word| format!("; did you mean `{word}`?"));
        let (found, words) = (describe(value, &path, report), words.join(", "));
        report.value(&path, format!("found {found}; allowed: {words}{meant}"));
        None
    }

    /// The items of a list.
    pub(super) fn list(&self, key: &str, report: &mut Diagnostics) -> Vec<Located<&'a Node>> {
        let Some(Located { value, path }) = self.get(key) else {
            return Vec::new();
        };
        let Node::List(items) = value else {
            let found = describe(value, &path, report);
            report.value(&path, format!("found {found}; allowed: a list"));
            return Vec::new();
        };
        let found = |(index, value)| Located {
            value,
            path: path.item(index),
        };
        items.iter().enumerate().map(found).collect()
    }

    /// Says that a key is missing, where it is not there or without a value.
    pub(super) fn missing(&self, key: &str, allowed: &str, report: &mut Diagnostics) {
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

    fn report_duplicates(&self, report: &mut Diagnostics) {
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for pair in self.pairs {
            let count = seen.entry(&pair.key).or_default();
            let path = || self.path.key(&pair.key, *count, &pair.via);
            if pair.key == "<<" {
                let found = describe(&pair.value, &path(), report);
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

/// A text, number or truth value as it stands in the config.
fn written(node: &Node, path: &Path, report: &Diagnostics) -> String {
    let read = match node {
        Node::Text(text) => return text.clone(),
        Node::Bool(value) => value.to_string(),
        Node::Int(value) => value.to_string(),
        Node::Float(value) => value.to_string(),
        _ => return String::new(),
    };
    report.written(path).unwrap_or(read)
}

/// The value for people: `the text "yes"`, `the number 5`, `a list`.
pub(super) fn describe(node: &Node, path: &Path, report: &Diagnostics) -> String {
    described(node, &written(node, path, report))
}

fn described(node: &Node, written: &str) -> String {
    match node {
        Node::Null => "nothing".into(),
        Node::Bool(_) => format!("the truth value {written}"),
        Node::Int(_) | Node::Float(_) => format!("the number {written}"),
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
    excerpt(text, 0)
}

/// The same, so that the character at `at` can be seen.
fn excerpt(text: &str, at: usize) -> String {
    let from = (at + SHOWN_CHARS / 4).saturating_sub(SHOWN_CHARS);
    let mut shown: String = text.chars().skip(from).take(SHOWN_CHARS).collect();
    if from > 0 {
        shown.insert(0, '…');
    }
    if text.chars().count() > from + SHOWN_CHARS {
        shown.push('…');
    }
    in_quotes(&shown)
}

/// Quotes that a word processor makes of plain ones; YAML takes them for letters.
pub(super) const TYPOGRAPHIC_QUOTES: &str = "“”„‟‘’‚‛«»‹›";

/// Why the text of a key is not what it looks like, and where; a path's slashes are not its ends.
pub(super) fn deception(text: &str, key: &str) -> Option<String> {
    let last = text.chars().count().saturating_sub(1);
    if let Some((at, unseen)) = text.chars().enumerate().find(|(_, c)| is_unseen(*c)) {
        let (code, at, found) = (u32::from(unseen), at + 1, excerpt(text, at));
        return Some(format!(
            "found U+{code:04X}, which cannot be seen, as character {at} of {found}; allowed: a \
             text without it"
        ));
    }
    let is_path = key.ends_with("path");
    let ends = if is_path {
        text.trim_matches('/')
    } else {
        text
    };
    let no_blank = match key {
        "glob" | "regex" => "none there; `[ ]` is one that is meant",
        _ => "none there",
    };
    let ends = [
        (ends.chars().next(), 0, "beginning"),
        (ends.chars().next_back(), last, "end"),
    ];
    ends.into_iter().find_map(|(c, at, place)| {
        let (what, allowed) = match c? {
            ' ' => ("a blank".to_owned(), no_blank),
            c if TYPOGRAPHIC_QUOTES.contains(c) => (
                format!("the typographic quote {c}"),
                "a text as it stands, or in plain quotes, ' or \"",
            ),
            _ => return None,
        };
        let found = excerpt(text, at);
        Some(format!(
            "found {what} at the {place} of {found}; allowed: {allowed}"
        ))
    })
}

/// Names what was probably meant, or everything that is allowed.
fn unknown_key(key: &str, allowed: &[&str]) -> String {
    let hint = schema::hint(key, allowed);
    let hint = hint.map_or_else(String::new, |hint| format!("; {hint}"));
    format!("unknown key; allowed: {}{hint}", allowed.join(", "))
}
