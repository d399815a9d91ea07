//! What is wrong with a config: collected with key paths, shown one line each.
//!
//! Must not stop at the first problem: one deploy, one fix.

use std::fmt::{self, Write as _};

use super::{MAX_LOCATED, yaml};
use crate::text::escaped;

/// All that is wrong, one line of text each; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<String>);

impl Problems {
    /// Ready-made lines; what cannot be seen in them is escaped.
    pub fn new(mut lines: Vec<String>) -> Self {
        for line in &mut lines {
            *line = escaped(line);
        }
        Self(lines)
    }

    /// One line for each problem, in the order of the file.
    pub fn lines(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Problems {}

/// One step from a node of the YAML text to one inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    /// The value of a key: its text, and how many of the same text are before it.
    Key(String, usize),
    /// An item of a list, from 0.
    Item(usize),
}

/// Whether a problem is shown at the key or at its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Key,
    Value,
}

/// The way to a node: where it stands in the text, and what people call it.
///
/// The two differ where a value came through a merge key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Path {
    /// For the parser.
    pub(super) steps: Vec<Segment>,
    /// For people: `config`, the rule's name, then `src`, `path`, …
    pub(super) names: Vec<String>,
}

impl Path {
    /// The value of a key of this node, reached through merge keys.
    pub(super) fn key(&self, key: &str, nth: usize, via: &[Segment]) -> Self {
        let mut path = self.missing(key);
        path.steps.extend_from_slice(via);
        path.steps.push(Segment::Key(key.to_owned(), nth));
        path
    }

    /// A key that this node does not have: shown where the node is.
    pub(super) fn missing(&self, key: &str) -> Self {
        let mut path = self.clone();
        path.names.push(key.to_owned());
        path
    }

    /// An item of this list.
    pub(super) fn item(&self, index: usize) -> Self {
        let mut path = self.clone();
        path.steps.push(Segment::Item(index));
        if let Some(last) = path.names.last_mut() {
            write!(last, "[{index}]").expect("writing to a string cannot fail");
        }
        path
    }
}

/// One problem, before it has line and column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) path: Path,
    pub(super) at: Anchor,
    /// What is wrong; what was found and what is allowed.
    pub(super) text: String,
}

/// Collects problems.
#[derive(Debug, Default)]
pub(super) struct Diagnostics<'a> {
    pub(super) problems: Vec<Problem>,
    /// What the config was read from, where that is a text.
    text: Option<&'a str>,
}

impl<'a> Diagnostics<'a> {
    /// For the problems of a text.
    pub(super) fn of(text: &'a str) -> Self {
        Self {
            problems: Vec::new(),
            text: Some(text),
        }
    }

    /// The number or truth value as it was written, `1e3` and not 1000. Each costs a reading.
    pub(super) fn written(&self, path: &Path) -> Option<String> {
        let few = self.problems.len() < MAX_LOCATED;
        yaml::written(self.text.filter(|_| few)?, &path.steps)
    }

    /// Something is wrong with a value.
    pub(super) fn value(&mut self, path: &Path, text: impl Into<String>) {
        self.push(path, Anchor::Value, text.into());
    }

    /// Something is wrong with a key, or a key is missing in the mapping under it.
    pub(super) fn key(&mut self, path: &Path, text: impl Into<String>) {
        self.push(path, Anchor::Key, text.into());
    }

    fn push(&mut self, path: &Path, at: Anchor, text: String) {
        let path = path.clone();
        self.problems.push(Problem { path, at, text });
    }
}
