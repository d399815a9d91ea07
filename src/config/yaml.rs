//! Stage one: YAML text into a tree of what was written, with aliases and merge keys resolved.
//!
//! Knows nothing of rules. Keeps duplicate keys, so that stage two can report them all. Bounded:
//! aliases can multiply a small text, so nodes and text are counted as they are read.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, IgnoredAny, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};

use super::problems::{Anchor, Segment};
use super::schema::near;

/// What a `ConfigMap` can hold at the most.
pub(crate) const CONFIG_MAX_BYTES: usize = 1 << 20;
/// All values of a config, those that aliases repeat counted each time.
const MAX_NODES: usize = 200_000;
/// All text in them, counted likewise.
const MAX_TEXT_BYTES: usize = 4 * CONFIG_MAX_BYTES;

/// How many brackets may be open at once. The parser's time grows with the square of their number,
/// and it takes long before it refuses the depth by itself.
const MAX_OPEN_BRACKETS: usize = 10_000;

const MERGE_KEY: &str = "<<";

/// One value as it was written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Pair>),
    /// A value with a tag of its own (`!name`); its contents are not kept.
    Tagged(String),
}

/// One key and its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pair {
    pub(super) key: String,
    pub(super) value: Node,
    /// The steps from the mapping that has it now to the one where it was written; empty where
    /// these are the same.
    pub(super) via: Vec<Segment>,
}

/// A text that is no YAML.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    /// From 1, where it is known.
    pub(super) line_column: Option<(usize, usize)>,
    pub(super) text: String,
}

/// Reads the one document that `text` holds; an empty text is `Null`.
pub(super) fn read(text: &str) -> Result<Node, SyntaxError> {
    if text.len() > CONFIG_MAX_BYTES {
        let (found, allowed) = (text.len(), CONFIG_MAX_BYTES);
        return Err(SyntaxError {
            line_column: None,
            text: format!("the config is too large; found {found} bytes, allowed: {allowed}"),
        });
    }
    if let Some(line) = too_many_brackets(text) {
        return Err(SyntaxError {
            line_column: Some((line, 1)),
            text: format!("more than {MAX_OPEN_BRACKETS} brackets are open; close them"),
        });
    }
    let budget = Budget {
        nodes: Cell::new(MAX_NODES),
        text_bytes: Cell::new(MAX_TEXT_BYTES),
    };
    Tree(&budget)
        .deserialize(serde_yaml::Deserializer::from_str(text))
        .map_err(|error| explain(&error, text))
}

/// The line, from 1, in which too many brackets are open. Those in texts and comments count too: no
/// config that means something has so many.
fn too_many_brackets(text: &str) -> Option<usize> {
    let mut open: usize = 0;
    for (line, text) in (1..).zip(text.lines()) {
        for byte in text.bytes() {
            match byte {
                b'[' | b'{' => open += 1,
                b']' | b'}' => open = open.saturating_sub(1),
                _ => {}
            }
            if open > MAX_OPEN_BRACKETS {
                return Some(line);
            }
        }
    }
    None
}

/// The line and column, from 1, of the node that `steps` lead to, or of its key.
///
/// The parser tells positions only in its errors, so this reads the text again and fails there.
pub(super) fn locate(text: &str, steps: &[Segment], at: Anchor) -> Option<(usize, usize)> {
    let written = None;
    let seed = Locate { steps, at, written };
    let found = seed.deserialize(serde_yaml::Deserializer::from_str(text));
    let location = found.err()?.location()?;
    Some((location.line(), location.column()))
}

/// The scalar that `steps` lead to, as it was written: `1e3`, `True`.
pub(super) fn written(text: &str, steps: &[Segment]) -> Option<String> {
    let found = RefCell::default();
    let seed = Locate {
        steps,
        at: Anchor::Value,
        written: Some(&found),
    };
    // What follows the scalar was not read, which is an error of no interest.
    let _ = seed.deserialize(serde_yaml::Deserializer::from_str(text));
    found.into_inner()
}

struct Budget {
    nodes: Cell<usize>,
    text_bytes: Cell<usize>,
}

impl Budget {
    fn spend<E: serde::de::Error>(&self, text_bytes: usize) -> Result<(), E> {
        let nodes = self.nodes.get().checked_sub(1);
        let text_bytes = self.text_bytes.get().checked_sub(text_bytes);
        let (Some(nodes), Some(text_bytes)) = (nodes, text_bytes) else {
            return Err(E::custom(format_args!(
                "too many values; allowed: {MAX_NODES} and {MAX_TEXT_BYTES} bytes of text, what \
                 aliases repeat counted each time"
            )));
        };
        self.nodes.set(nodes);
        self.text_bytes.set(text_bytes);
        Ok(())
    }
}

/// Reads one node and all below it.
struct Tree<'a>(&'a Budget);

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Node, E> {
        self.0.spend(0)?;
        Ok(Node::Null)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Node, E> {
        self.0.spend(0)?;
        Ok(Node::Bool(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Node, E> {
        self.visit_i128(value.into())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Node, E> {
        self.visit_i128(value.into())
    }

    fn visit_i128<E: serde::de::Error>(self, value: i128) -> Result<Node, E> {
        self.0.spend(0)?;
        Ok(Node::Int(value))
    }

    fn visit_u128<E: serde::de::Error>(self, value: u128) -> Result<Node, E> {
        // Out of every range that stage two allows, whatever is lost here.
        self.visit_i128(i128::try_from(value).unwrap_or(i128::MAX))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Node, E> {
        self.0.spend(0)?;
        Ok(Node::Float(value))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Node, E> {
        self.0.spend(value.len())?;
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        self.0.spend(0)?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Tree(self.0))? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        self.0.spend(0)?;
        let mut pairs = Vec::new();
        while let Some(key) = entries.next_key_seed(Key)? {
            self.0.spend(key.len())?;
            let value = entries.next_value_seed(Tree(self.0))?;
            let via = Vec::new();
            pairs.push(Pair { key, value, via });
        }
        Ok(Node::Map(merged(pairs)))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<Node, A::Error> {
        self.0.spend(0)?;
        let (tag, contents) = tagged.variant::<String>()?;
        contents.newtype_variant::<IgnoredAny>()?;
        Ok(Node::Tagged(tag))
    }
}

/// Reads a key as the text it is written with, so that `850` and `1e3` stay what they are.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text as a key; put a value that begins with a brace or bracket into quotes")
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<String, E> {
        Ok(value.to_owned())
    }
}

/// Puts the pairs of merge keys in; a mapping's own keys win, then the first of several.
///
/// A merge key with something else than mappings is left as it is, for stage two to refuse.
fn merged(pairs: Vec<Pair>) -> Vec<Pair> {
    if !pairs.iter().any(|pair| pair.key == MERGE_KEY) {
        return pairs;
    }
    let mut known: HashSet<String> = pairs.iter().map(|pair| pair.key.clone()).collect();
    let mut result = Vec::new();
    let mut inherited = Vec::new();
    for pair in pairs {
        if pair.key == MERGE_KEY && is_mergeable(&pair.value) && inherited.is_empty() {
            inherited = mergeable(pair.value);
        } else {
            result.push(pair);
        }
    }
    for (via, pairs) in inherited {
        for mut pair in pairs {
            if known.insert(pair.key.clone()) {
                pair.via.splice(0..0, via.iter().cloned());
                result.push(pair);
            }
        }
    }
    result
}

fn is_mergeable(value: &Node) -> bool {
    match value {
        Node::Map(_) => true,
        Node::List(items) => items.iter().all(|item| matches!(item, Node::Map(_))),
        _ => false,
    }
}

fn mergeable(value: Node) -> Vec<(Vec<Segment>, Vec<Pair>)> {
    let merge = || Segment::Key(MERGE_KEY.to_owned(), 0);
    match value {
        Node::Map(pairs) => vec![(vec![merge()], pairs)],
        Node::List(items) => items
            .into_iter()
            .enumerate()
            .filter_map(|(index, item)| match item {
                Node::Map(pairs) => Some((vec![merge(), Segment::Item(index)], pairs)),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// Fails at one node, which makes the parser say where that is, or takes its text.
struct Locate<'a> {
    steps: &'a [Segment],
    at: Anchor,
    /// Where the text of the node goes.
    written: Option<&'a RefCell<Option<String>>>,
}

impl<'de> DeserializeSeed<'de> for Locate<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.written.is_some() && self.steps.is_empty() {
            return deserializer.deserialize_str(self);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'a> Locate<'a> {
    /// The same, with fewer steps to go.
    fn below(&self, steps: &'a [Segment]) -> Self {
        Self { steps, ..*self }
    }

    fn here<E: serde::de::Error>(&self) -> Result<(), E> {
        if self.steps.is_empty() {
            return Err(E::custom("here"));
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Locate<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.here()
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        self.here()
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        self.here()
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        self.here()
    }

    fn visit_u128<E: serde::de::Error>(self, _: u128) -> Result<(), E> {
        self.here()
    }

    fn visit_i128<E: serde::de::Error>(self, _: i128) -> Result<(), E> {
        self.here()
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        self.here()
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        if let Some(written) = self.written {
            written.replace(Some(text.to_owned()));
        }
        self.here()
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        self.here()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        self.here()?;
        let Segment::Item(wanted) = self.steps[0] else {
            return Ok(());
        };
        for _ in 0..wanted {
            items.next_element::<IgnoredAny>()?;
        }
        items.next_element_seed(self.below(&self.steps[1..]))?;
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        self.here()?;
        let (Segment::Key(wanted, nth), rest) = (&self.steps[0], &self.steps[1..]) else {
            return Ok(());
        };
        let mut before = *nth;
        loop {
            let fail = rest.is_empty() && self.at == Anchor::Key && before == 0;
            match entries.next_key_seed(LocateKey { wanted, fail })? {
                None => return Ok(()),
                Some(true) if before == 0 => break,
                Some(same) => before -= usize::from(same),
            }
            entries.next_value::<IgnoredAny>()?;
        }
        entries.next_value_seed(self.below(rest))
    }
}

/// Says whether a key is the wanted one, or fails there.
struct LocateKey<'a> {
    wanted: &'a str,
    fail: bool,
}

impl<'de> DeserializeSeed<'de> for LocateKey<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for LocateKey<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<bool, E> {
        if key == self.wanted && self.fail {
            return Err(E::custom("here"));
        }
        Ok(key == self.wanted)
    }
}

/// The parser's error in one line, and what usually causes it.
fn explain(error: &serde_yaml::Error, text: &str) -> SyntaxError {
    let message = without_positions(&error.to_string());
    if message.contains("more than one document") {
        return SyntaxError {
            line_column: second_document(text).map(|line| (line, 1)),
            text:
                "found a second document; allowed: one; remove it, or the `---` or `...` before it"
                    .into(),
        };
    }
    let line_column = error
        .location()
        .map(|location| (location.line(), location.column()));
    let hint = line_column.and_then(|(line, column)| hint(&message, text, line, column));
    let text = match hint {
        _ if message.contains("unknown anchor") => unknown_alias(text, line_column),
        Some(hint) => format!("{message}; {hint}"),
        None => message,
    };
    SyntaxError { line_column, text }
}

fn unknown_alias(text: &str, line_column: Option<(usize, usize)>) -> String {
    let word = |text: &str| -> String {
        let is_word = |c: &char| c.is_alphanumeric() || matches!(c, '-' | '_');
        text.chars().take_while(is_word).collect()
    };
    let (line, column) = line_column.unwrap_or((1, 1));
    let at = text.lines().nth(line - 1).unwrap_or_default();
    let alias = word(&at.chars().skip(column).collect::<String>());
    let anchors: Vec<String> = text.split('&').skip(1).map(word).collect();
    let anchors: Vec<&str> = anchors.iter().map(String::as_str).collect();
    let meant = near(&alias, &anchors).map(|meant| format!("did you mean `*{meant}`? "));
    format!(
        "found the alias `*{alias}` without an anchor `&{alias}` before it; {}a text that begins \
         with `*` stands in quotes",
        meant.unwrap_or_default()
    )
}

/// The line, from 1, in which a second document begins: with `---`, or with anything behind `...`.
fn second_document(text: &str) -> Option<usize> {
    let is_mark = |line: &str, mark| {
        let rest = line.strip_prefix(mark);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
    };
    let (mut has_begun, mut has_ended) = (false, false);
    for (number, line) in (1..).zip(text.lines()) {
        let is_comment = line.trim().is_empty() || line.trim_start().starts_with('#');
        let is_directive = line.starts_with('%') && (has_ended || !has_begun);
        if is_mark(line, "...") {
            has_ended = has_begun;
        } else if is_mark(line, "---") || !(is_comment || is_directive) {
            if has_ended || (has_begun && is_mark(line, "---")) {
                return Some(number);
            }
            has_begun = true;
        }
    }
    None
}

fn hint(message: &str, text: &str, line: usize, column: usize) -> Option<String> {
    let at = text.lines().nth(line - 1).unwrap_or_default();
    let before = line
        .checked_sub(2)
        .and_then(|above| text.lines().nth(above));
    let quote = |what: &str| format!("put the text that begins with `{what}` into quotes");
    let next = at.chars().nth(column - 1);
    if at.trim_start_matches(' ').starts_with('\t') || next == Some('\t') {
        return Some("found a tab; allowed: spaces".into());
    }
    if message.contains("alias") || message.contains("anchor") {
        let hint = "a text that begins with `*` or `&` is read as an alias or anchor; put it into \
                    quotes: \"*.edi\"";
        return Some(hint.into());
    }
    if message.contains("recursion limit") {
        return Some("an alias repeats what it is part of, or mappings are nested too deep".into());
    }
    if message.contains("unknown escape character") {
        return Some("put a text with backslashes into single quotes: '\\d+'".into());
    }
    if message.contains("cannot start any token") {
        return next.map(|next| quote(&next.to_string()));
    }
    if message.contains("mapping values are not allowed") || message.contains("expected ':'") {
        let glued = [before, Some(at)].into_iter().flatten().find_map(glued_key);
        return Some(match glued {
            Some(key) => format!("put a space behind `{key}:`"),
            None => "check the indentation, and put a text that holds `: ` into quotes".into(),
        });
    }
    if message.contains("quoted scalar") {
        return Some("a quote is not closed".into());
    }
    if message.contains("did not find expected") {
        let value = at.split_once(": ").map_or(at, |(_, value)| value).trim();
        let start = value.chars().next().filter(|c| matches!(c, '{' | '['));
        return Some(match start {
            Some(start) if !message.contains("flow") => quote(&start.to_string()),
            _ => {
                "check the indentation, brackets and quotes of this line and the one before".into()
            }
        });
    }
    None
}

/// The key of a line such as `retries:2`.
fn glued_key(line: &str) -> Option<&str> {
    let (key, value) = line.trim_start().split_once(':')?;
    let is_word = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    (is_word && value.starts_with(|c: char| !c.is_whitespace())).then_some(key)
}

/// The parser writes positions into its text too; they are shown in front.
fn without_positions(message: &str) -> String {
    let mut words: Vec<&str> = Vec::new();
    let mut rest = message.split(' ').peekable();
    while let Some(word) = rest.next() {
        let is_position = word == "at" && matches!(rest.peek(), Some(&("line" | "position")));
        if !is_position {
            words.push(word);
            continue;
        }
        let mut last = "";
        while rest
            .peek()
            .is_some_and(|next| is_position_word(next.trim_end_matches(',')))
        {
            last = rest.next().unwrap_or_default();
        }
        if last.ends_with(',') {
            words.push(",");
        }
    }
    words.join(" ").replace(" ,", ",")
}

fn is_position_word(word: &str) -> bool {
    matches!(word, "line" | "column" | "position") || word.parse::<usize>().is_ok()
}
