//! PURE: how names match and what they become (SPEC section 4).
//!
//! Patterns are for text, names are bytes. A name that is not UTF-8 is shown to a pattern with each
//! stray byte as one character of its own, so that `.` and `*` see it; what a rename keeps of the
//! name is turned back into the very same bytes. Whether a resulting name can exist at its
//! destination is not decided here.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use regex::{Captures, Regex};

use crate::object::Name;
use crate::shell_pattern::ShellPattern;
use crate::text::shown;

/// The tokens that a replacement may hold, as they are written.
pub const TOKENS: &[&str] = &[
    "{timestamp}",
    "{time}",
    "{date}",
    "{date-iso}",
    "{timestamp-iso}",
    "{timestamp-z}",
    "{mtime}",
    "{mtime-z}",
];

/// Which names a rule takes.
#[derive(Debug, Clone)]
pub enum Matcher {
    /// Every name.
    All,
    /// A shell pattern for the whole name.
    Glob(ShellPattern),
    /// A search.
    Regex(Regex),
}

impl Matcher {
    /// Reads a shell pattern.
    ///
    /// # Errors
    /// The pattern is empty or a class is not closed.
    pub fn glob(pattern: &str) -> Result<Self, String> {
        ShellPattern::new(pattern).map(Self::Glob)
    }

    /// Reads a regular expression of the `regex` crate.
    ///
    /// # Errors
    /// What is wrong with it, in one line.
    pub fn regex(pattern: &str) -> Result<Self, String> {
        compile(pattern).map(Self::Regex)
    }

    /// Whether the rule takes this name.
    pub fn matches(&self, name: &Name) -> bool {
        match self {
            Self::All => true,
            Self::Glob(pattern) => pattern.matches(&to_text(name.as_bytes())),
            Self::Regex(regex) => regex.is_match(&to_text(name.as_bytes())),
        }
    }
}

/// As it is shown by `check`: `every name`, `glob *.edi`, `regex ^a`.
impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => write!(f, "every name"),
            Self::Glob(pattern) => write!(f, "glob {}", shown(pattern.as_str())),
            Self::Regex(regex) => write!(f, "regex {}", shown(regex.as_str())),
        }
    }
}

/// The instant that all tokens of a run are made from, and the zone they are shown in.
#[derive(Debug, Clone)]
pub struct LocalTime {
    /// When the run started.
    pub at: Timestamp,
    /// From `TZ`.
    pub zone: TimeZone,
}

/// What the last part of a name becomes.
#[derive(Debug, Clone)]
pub struct Rename {
    regex: Regex,
    replace: String,
    template: Vec<Piece>,
}

/// One mistake in a rename, and in which of its two texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flaw {
    /// In the regular expression.
    Regex(String),
    /// In the replacement.
    Replace(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Group(usize),
    Token(Token),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Token {
    format: &'static str,
    of: Moment,
    utc: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Run,
    Item,
}

impl Rename {
    /// Reads a regular expression and the replacement for each of its matches.
    ///
    /// # Errors
    /// All mistakes in both texts. Groups are looked up only where the expression is sound.
    pub fn new(regex: &str, replace: &str) -> Result<Self, Vec<Flaw>> {
        let mut flaws = Vec::new();
        let regex = compile(regex)
            .map_err(|text| flaws.push(Flaw::Regex(text)))
            .ok();
        let (template, mistakes) = Template::parse(replace, regex.as_ref());
        flaws.extend(mistakes.into_iter().map(Flaw::Replace));
        match regex {
            Some(regex) if flaws.is_empty() => Ok(Self {
                regex,
                replace: replace.to_owned(),
                template,
            }),
            _ => Err(flaws),
        }
    }

    /// The new last part: every match is replaced; no match leaves it as it is.
    ///
    /// An empty match right after a match does not count, so `(.*)` matches once.
    pub fn apply(&self, last_part: &[u8], instant: &LocalTime, modified: Timestamp) -> Vec<u8> {
        self.replaced(last_part, Some((instant, modified)))
    }

    /// Without an instant the tokens stay as they are written.
    fn replaced(&self, last_part: &[u8], when: Option<(&LocalTime, Timestamp)>) -> Vec<u8> {
        let text = to_text(last_part);
        // Only then are there characters that stand for bytes.
        let escaped = matches!(text, Cow::Owned(_));
        let mut renamed = Vec::with_capacity(last_part.len() + self.replace.len());
        let mut kept_from = 0;
        for captures in self.regex.captures_iter(&text) {
            let whole = captures.get_match();
            push_text(&mut renamed, &text[kept_from..whole.start()], escaped);
            self.expand(&mut renamed, &captures, escaped, when);
            kept_from = whole.end();
        }
        push_text(&mut renamed, &text[kept_from..], escaped);
        renamed
    }

    /// The regular expression.
    pub fn regex(&self) -> &Regex {
        &self.regex
    }

    /// The replacement as it was written.
    pub fn replace(&self) -> &str {
        &self.replace
    }

    /// Whether the replacement puts this group's text into the new name.
    pub fn keeps_group(&self, index: usize) -> bool {
        self.template.contains(&Piece::Group(index))
    }

    /// The first token that tells an hour of the local time.
    pub fn local_hour(&self) -> Option<&'static str> {
        let token = |part: &Piece| match part {
            Piece::Token(token) if !token.utc && token.format.contains("%H") => Some(*token),
            _ => None,
        };
        Some(self.template.iter().find_map(token)?.written())
    }

    /// Whether what this last part becomes depends on when the run is or how old the item is.
    pub fn depends_on_time(&self, last_part: &[u8]) -> bool {
        let has_token = self
            .template
            .iter()
            .any(|part| matches!(part, Piece::Token(_)));
        has_token && self.regex.is_match(&to_text(last_part))
    }

    fn expand(
        &self,
        renamed: &mut Vec<u8>,
        captures: &Captures<'_>,
        escaped: bool,
        when: Option<(&LocalTime, Timestamp)>,
    ) {
        for part in &self.template {
            match part {
                Piece::Literal(text) => renamed.extend_from_slice(text.as_bytes()),
                // A group that took no part in the match is empty.
                Piece::Group(index) => {
                    let text = captures.get(*index).map_or("", |group| group.as_str());
                    push_text(renamed, text, escaped);
                }
                Piece::Token(token) => {
                    let text = when.map(|(instant, modified)| token.text(instant, modified));
                    let text = text.as_deref().unwrap_or_else(|| token.written());
                    renamed.extend_from_slice(text.as_bytes());
                }
            }
        }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Regex(text) => write!(f, "regex: {text}"),
            Self::Replace(text) => write!(f, "replace: {text}"),
        }
    }
}

/// An item's name at its destination: its directories as they are, its last part renamed.
///
/// Bytes and not a [`Name`]: a rename may make an empty or otherwise impossible name, which fails
/// the item.
pub fn dest_name(
    rename: Option<&Rename>,
    name: &Name,
    instant: &LocalTime,
    modified: Timestamp,
) -> Vec<u8> {
    renamed(rename, name, Some((instant, modified)))
}

/// The same with its tokens as they are written: one name at every time.
pub fn timeless_name(rename: Option<&Rename>, name: &Name) -> Vec<u8> {
    renamed(rename, name, None)
}

fn renamed(rename: Option<&Rename>, name: &Name, when: Option<(&LocalTime, Timestamp)>) -> Vec<u8> {
    let Some(rename) = rename else {
        return name.as_bytes().to_vec();
    };
    let (directories, last_part) = name.split();
    let mut dest = directories.to_vec();
    dest.extend(rename.replaced(last_part, when));
    dest
}

impl Token {
    /// The token between the braces, `None` where there is none of this name.
    fn named(word: &str) -> Option<Self> {
        let (format, of, utc) = match word {
            "timestamp" => ("%Y%m%d-%H%M%S", Moment::Run, false),
            "time" => ("%H%M%S", Moment::Run, false),
            "date" => ("%Y%m%d", Moment::Run, false),
            "date-iso" => ("%Y-%m-%d", Moment::Run, false),
            "timestamp-iso" => ("%Y-%m-%dT%H%M%S", Moment::Run, false),
            "timestamp-z" => ("%Y%m%dT%H%M%SZ", Moment::Run, true),
            "mtime" => ("%Y%m%d-%H%M%S", Moment::Item, false),
            "mtime-z" => ("%Y%m%dT%H%M%SZ", Moment::Item, true),
            _ => return None,
        };
        Some(Self { format, of, utc })
    }

    fn written(self) -> &'static str {
        let is_it = |word: &&&str| Self::named(word.trim_matches(['{', '}'])) == Some(self);
        TOKENS.iter().find(is_it).expect("each token has its word")
    }

    fn text(self, instant: &LocalTime, modified: Timestamp) -> String {
        let at = match self.of {
            Moment::Run => instant.at,
            Moment::Item => modified,
        };
        let zone = if self.utc {
            TimeZone::UTC
        } else {
            instant.zone.clone()
        };
        at.to_zoned(zone).strftime(self.format).to_string()
    }
}

/// Reads a replacement from left to right; goes on after a mistake so that all are found.
struct Template<'a> {
    rest: &'a str,
    regex: Option<&'a Regex>,
    parts: Vec<Piece>,
    flaws: Vec<String>,
}

impl<'a> Template<'a> {
    fn parse(replace: &'a str, regex: Option<&'a Regex>) -> (Vec<Piece>, Vec<String>) {
        let mut template = Self {
            rest: replace,
            regex,
            parts: Vec::new(),
            flaws: Vec::new(),
        };
        template.read();
        (template.parts, template.flaws)
    }

    fn read(&mut self) {
        while let Some(next) = self.rest.chars().next() {
            match next {
                '\\' => self.backslash(),
                '$' => self.dollar(),
                '{' => self.brace(),
                '/' => {
                    self.flaws.push(
                        "found a `/`; a rename changes only the last part of a name; allowed: \
                         no `/` (put directories into dest.path)"
                            .into(),
                    );
                    self.rest = &self.rest[1..];
                }
                '\0' => {
                    self.flaws
                        .push("found a NUL character; allowed: no NUL, no name can hold it".into());
                    self.rest = &self.rest[1..];
                }
                _ => self.literal(next.len_utf8()),
            }
        }
    }

    fn backslash(&mut self) {
        let after = &self.rest[1..];
        let digits = digits_len(after);
        if after.starts_with('\\') {
            self.rest = after;
            self.literal(1);
        } else if digits > 0 {
            self.group(&after[..digits]);
            self.rest = &after[digits..];
        } else if let Some((name, rest)) = enclosed(after, "g<", '>') {
            self.group(name);
            self.rest = rest;
        } else {
            self.refuse('\\', "`\\1`, `\\g<name>`, or `\\\\` for a backslash", after);
        }
    }

    fn dollar(&mut self) {
        let after = &self.rest[1..];
        let digits = digits_len(after);
        if after.starts_with('$') {
            self.rest = after;
            self.literal(1);
        } else if digits > 0 {
            self.group(&after[..digits]);
            self.rest = &after[digits..];
        } else if let Some((name, rest)) = enclosed(after, "{", '}') {
            self.group(name);
            self.rest = rest;
        } else {
            self.refuse('$', "`$1`, `${name}`, or `$$` for a dollar sign", after);
        }
    }

    /// `{word}` is a token; braces around anything without a letter are literal.
    fn brace(&mut self) {
        let Some((word, rest)) = enclosed(self.rest, "{", '}')
            .filter(|(word, _)| word.contains(char::is_alphabetic) && !word.contains('{'))
        else {
            return self.literal(1);
        };
        match Token::named(word) {
            Some(token) => self.parts.push(Piece::Token(token)),
            None => self.flaws.push(format!(
                "found the unknown token `{{{}}}`; allowed: {}",
                word.escape_debug(),
                list(TOKENS.iter().copied())
            )),
        }
        self.rest = rest;
    }

    fn group(&mut self, name: &str) {
        let Some(regex) = self.regex else { return };
        let index = if digits_len(name) == name.len() && !name.is_empty() {
            name.parse()
                .ok()
                .filter(|index| *index < regex.captures_len())
        } else {
            regex.capture_names().position(|known| known == Some(name))
        };
        match index {
            Some(index) => self.parts.push(Piece::Group(index)),
            None => self.flaws.push(format!(
                "found the unknown group `{}`; allowed: {}",
                name.escape_debug(),
                groups(regex)
            )),
        }
    }

    fn literal(&mut self, len: usize) {
        let (text, rest) = self.rest.split_at(len);
        if let Some(Piece::Literal(open)) = self.parts.last_mut() {
            open.push_str(text);
        } else {
            self.parts.push(Piece::Literal(text.to_owned()));
        }
        self.rest = rest;
    }

    fn refuse(&mut self, sign: char, allowed: &str, after: &'a str) {
        let found = match after.chars().next() {
            Some(next) => format!("`{sign}` before `{}`", next.escape_debug()),
            None => format!("`{sign}` at the end"),
        };
        self.flaws
            .push(format!("found {found}; allowed: {allowed}"));
        self.rest = after;
    }
}

fn groups(regex: &Regex) -> String {
    let known = regex.capture_names().enumerate().map(|(index, name)| {
        let name = name.map_or_else(String::new, |name| format!(" ({name})"));
        format!("{index}{name}")
    });
    let known: Vec<String> = known.collect();
    match known.as_slice() {
        [_] => "0 (the whole match); the regex has no group of its own".into(),
        _ => list(known.iter().map(String::as_str)),
    }
}

fn list<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.collect::<Vec<_>>().join(", ")
}

fn digits_len(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

/// What stands between `open` at the beginning and the first `close`, and what follows.
fn enclosed<'a>(text: &'a str, open: &str, close: char) -> Option<(&'a str, &'a str)> {
    text.strip_prefix(open)?.split_once(close)
}

/// Compiles a regular expression; the error is the parser's last line, its others draw a picture.
fn compile(pattern: &str) -> Result<Regex, String> {
    Regex::new(pattern).map_err(|error| {
        let text = error.to_string();
        let last = text.lines().last().unwrap_or_default();
        let reason = last.strip_prefix("error: ").unwrap_or(last);
        format!(
            "{}; found \"{}\"; allowed: a regular expression of Rust's regex crate",
            reason.trim_end_matches('.'),
            pattern.escape_debug()
        )
    })
}

/// Stand-ins for the bytes 0x80 to 0xFF of a name that is not UTF-8: the end of a private plane.
const STAND_IN: u32 = 0x0010_FF00;

/// The name as text; borrowed where it is UTF-8, else each stray byte as one stand-in.
fn to_text(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if byte_of(c).is_some() {
                // A genuine character of that range goes byte by byte too: the way back is exact.
                text.extend(c.encode_utf8(&mut [0; 4]).bytes().map(stand_in));
            } else {
                text.push(c);
            }
        }
        text.extend(chunk.invalid().iter().copied().map(stand_in));
    }
    Cow::Owned(text)
}

fn push_text(bytes: &mut Vec<u8>, text: &str, escaped: bool) {
    if !escaped {
        bytes.extend_from_slice(text.as_bytes());
        return;
    }
    for c in text.chars() {
        match byte_of(c) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

fn stand_in(byte: u8) -> char {
    char::from_u32(STAND_IN + u32::from(byte)).expect("the range lies in the last plane")
}

fn byte_of(c: char) -> Option<u8> {
    u8::try_from(u32::from(c).checked_sub(STAND_IN)?)
        .ok()
        .filter(|byte| *byte >= 0x80)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(bytes: &[u8]) -> Name {
        Name::new(bytes).expect("a whole name")
    }

    fn instant() -> LocalTime {
        LocalTime {
            at: "2026-11-21T08:10:04Z".parse().expect("a timestamp"),
            zone: TimeZone::get("Europe/Berlin").expect("a zone"),
        }
    }

    fn renamed(regex: &str, replace: &str, last_part: &[u8]) -> Vec<u8> {
        let rename = Rename::new(regex, replace).expect("a sound rename");
        let modified = "2026-01-02T03:04:05Z".parse().expect("a timestamp");
        rename.apply(last_part, &instant(), modified)
    }

    #[track_caller]
    fn check_rename(regex: &str, replace: &str, last_part: &str, expected: &str) {
        let actual = renamed(regex, replace, last_part.as_bytes());
        let actual = String::from_utf8(actual).expect("text");
        assert_eq!(actual, expected, "{regex} -> {replace} on {last_part}");
    }

    #[test]
    fn regex_is_a_search() {
        let matcher = Matcher::regex("b+").expect("a pattern");
        assert!(matcher.matches(&name(b"dir/abbc")));
        assert!(!matcher.matches(&name(b"ac")));
    }

    #[test]
    fn patterns_see_each_byte_that_is_not_text() {
        let odd = name(b"caf\xe9\xff.edi");
        for pattern in ["caf??.edi", "*.edi"] {
            assert!(Matcher::glob(pattern).expect(pattern).matches(&odd));
        }
        assert!(
            Matcher::regex("^caf..[.]edi$")
                .expect("a pattern")
                .matches(&odd)
        );
    }

    #[test]
    fn rename_keeps_bytes_that_are_not_text() {
        assert_eq!(
            renamed(r"^(.*)\.edi$", r"\1.x", b"caf\xe9.edi"),
            b"caf\xe9.x"
        );
        assert_eq!(renamed("f", "F", b"caf\xe9"), b"caF\xe9");
        // A genuine character of the range that the stand-ins come from.
        let odd = [b"\xff", "\u{10FFE9}".as_bytes(), b".a"].concat();
        assert_eq!(
            renamed("a", "b", &odd),
            [&odd[..odd.len() - 1], b"b"].concat()
        );
    }

    #[test]
    fn every_byte_comes_back_from_text() {
        for first in 0..=u8::MAX {
            for second in 0..=u8::MAX {
                let bytes = [first, second, 0xf4, 0x8f, 0xbf, 0xa9];
                let text = to_text(&bytes);
                let mut back = Vec::new();
                push_text(&mut back, &text, matches!(text, Cow::Owned(_)));
                assert_eq!(back, bytes);
            }
        }
    }

    #[test]
    fn rename_replaces_every_match() {
        check_rename("(.*)", "<$1>", "abc", "<abc>");
        check_rename(".*", "x", "", "x");
        check_rename("b*", "-", "abc", "-a-c-");
        check_rename("a", "b", "banana", "bbnbnb");
        check_rename("z", "b", "banana", "banana");
        check_rename(r"\.edi$", "", "a.edi", "a");
    }

    #[test]
    fn replacement_knows_groups_in_all_spellings() {
        let regex = r"^(?<stem>.*)\.(edi|x12)$";
        check_rename(regex, r"\1_\2", "a.edi", "a_edi");
        check_rename(regex, r"\g<stem>.\g<2>", "a.edi", "a.edi");
        check_rename(regex, "$1_x", "a.edi", "a_x");
        check_rename(regex, "${stem}-${2}${0}", "a.edi", "a-edia.edi");
        check_rename(regex, r"$$1\\1", "a.edi", r"$1\1");
        check_rename("(a)|(b)", "[$1$2]", "ab", "[a][b]");
    }

    #[test]
    fn tokens_have_the_forms_of_the_contract() {
        let cases = [
            ("{timestamp}", "20261121-091004"),
            ("{time}", "091004"),
            ("{date}", "20261121"),
            ("{date-iso}", "2026-11-21"),
            ("{timestamp-iso}", "2026-11-21T091004"),
            ("{timestamp-z}", "20261121T081004Z"),
            ("{mtime}", "20260102-040405"),
            ("{mtime-z}", "20260102T030405Z"),
        ];
        assert_eq!(cases.map(|(token, _)| token), TOKENS);
        for (token, expected) in cases {
            check_rename("^.*$", token, "a", expected);
        }
        check_rename("^.*$", "{1}{}{{date}", "a", "{1}{}{20261121");
    }

    #[test]
    fn mistakes_in_a_replacement_are_all_named() {
        let cases = [
            ("{timestmap}", "unknown token `{timestmap}`"),
            ("{%Y}", "unknown token"),
            (r"\2", "unknown group `2`; allowed: 0, 1"),
            ("$9", "unknown group `9`"),
            ("${nme}", "unknown group `nme`"),
            (r"\g<>", "unknown group ``"),
            (r"\g<99999999999999999999>", "unknown group"),
            ("a/b", "found a `/`"),
            ("a\0b", "NUL"),
            ("$x", "found `$` before `x`"),
            ("$", "found `$` at the end"),
            (r"\d", r"found `\` before `d`"),
            (r"\", r"found `\` at the end"),
            ("${x", "found `$` before `{`"),
        ];
        for (replace, expected) in cases {
            let flaws = Rename::new("(a)", replace).expect_err(replace);
            assert_eq!(flaws.len(), 1, "{replace}: {flaws:?}");
            assert!(flaws[0].to_string().contains(expected), "{}", flaws[0]);
        }
        assert_eq!(Rename::new("(", "{x}/$").expect_err("four").len(), 4);
    }

    #[test]
    fn dest_name_keeps_the_directories() {
        let rename = Rename::new("a", "b").expect("a rename");
        let at = instant();
        let dest = |rename| dest_name(rename, &name(b"a/a/ca"), &at, at.at);
        assert_eq!(dest(Some(&rename)), b"a/a/cb");
        assert_eq!(dest(None), b"a/a/ca");
    }
}
