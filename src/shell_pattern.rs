//! PURE: a shell pattern, read once: what it matches, a name that it takes, how its names begin and
//! end, and the regular expression that means the same.

use glob::MatchOptions;

/// How the pattern is matched: `*` and `?` match everything, also `/` and a leading dot.
const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: false,
    require_literal_leading_dot: false,
};

/// `*`, `?`, `[abc]`, `[a-c]`, `[!abc]`; all else is literal.
#[derive(Debug, Clone)]
pub struct ShellPattern {
    compiled: glob::Pattern,
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    /// `*`, and several of them.
    Star,
    /// `?`.
    Any,
    /// A class as it is written, with its brackets.
    Class(String),
    Literal(char),
}

impl ShellPattern {
    /// Reads a pattern.
    ///
    /// `**` is the same as `*`, as in fnmatch(3): the `glob` crate would refuse `a**b` and would
    /// give `**/` a meaning of its own.
    ///
    /// # Errors
    /// The pattern is empty or a class is not closed.
    pub fn new(pattern: &str) -> Result<Self, String> {
        if pattern.is_empty() {
            return Err("an empty pattern matches no name; leave it out to take every name".into());
        }
        let pieces = pieces(pattern)?;
        let single: String = pieces.iter().map(Piece::written).collect();
        let compiled = glob::Pattern::new(&single).map_err(|error| error.msg.to_owned())?;
        Ok(Self { compiled, pieces })
    }

    /// The pattern as it was written, but for stars side by side, which are one.
    pub fn as_str(&self) -> &str {
        self.compiled.as_str()
    }

    /// Whether it is a pattern for the whole of this text.
    pub fn matches(&self, text: &str) -> bool {
        self.compiled.matches_with(text, OPTIONS)
    }

    /// The regular expression that means the same, but for a name with a line break.
    pub fn to_regex(&self) -> String {
        let pieces: String = self.pieces.iter().map(Piece::to_regex).collect();
        format!("^{pieces}$")
    }

    /// A text that it probably matches, with `star` for each star.
    pub fn sample(&self, star: &str) -> String {
        sample(&self.pieces, star)
    }

    /// A text that begins as this pattern says and ends as the other does.
    pub(crate) fn sample_with_end_of(&self, other: &Self) -> String {
        let is_star = |piece: &Piece| *piece == Piece::Star;
        let head = self.pieces.iter().position(is_star);
        let head = &self.pieces[..head.unwrap_or(self.pieces.len())];
        let tail = other.pieces.iter().rposition(is_star);
        let tail = &other.pieces[tail.map_or(0, |at| at + 1)..];
        sample(head, "") + "x" + &sample(tail, "")
    }

    /// Whether the two begin or end with texts that no name can both have.
    pub(crate) fn surely_differs(&self, other: &Self) -> bool {
        let ((head, tail), (other_head, other_tail)) = (self.ends(), other.ends());
        let heads = head.starts_with(&other_head) || other_head.starts_with(&head);
        let tails = tail.ends_with(&other_tail) || other_tail.ends_with(&tail);
        !(heads && tails)
    }

    /// The literal texts in front and at the end.
    fn ends(&self) -> (String, String) {
        let literal = |piece: &Piece| match piece {
            Piece::Literal(c) => Some(*c),
            _ => None,
        };
        let head = self.pieces.iter().map_while(literal).collect();
        let tail: Vec<char> = self.pieces.iter().rev().map_while(literal).collect();
        (head, tail.into_iter().rev().collect())
    }
}

impl Piece {
    fn written(&self) -> String {
        match self {
            Self::Star => "*".into(),
            Self::Any => "?".into(),
            Self::Class(class) => class.clone(),
            Self::Literal(c) => (*c).into(),
        }
    }

    fn to_regex(&self) -> String {
        match self {
            Self::Star => ".*".into(),
            Self::Any => ".".into(),
            Self::Class(class) => {
                let members = &class[1..class.len() - 1];
                let (not, members) = match members.strip_prefix('!') {
                    Some(members) => ("^", members),
                    None => ("", members),
                };
                let members: Vec<char> = members.chars().collect();
                format!("[{not}{}]", class_members(&members))
            }
            Self::Literal(c) => escape(*c),
        }
    }
}

fn escape(c: char) -> String {
    regex_syntax::escape(c.encode_utf8(&mut [0; 4]))
}

/// The members of a class as a regex has them; `a-c` is a range where there is something behind.
fn class_members(members: &[char]) -> String {
    match members {
        [first, '-', last, rest @ ..] => {
            format!(
                "{}-{}{}",
                escape(*first),
                escape(*last),
                class_members(rest)
            )
        }
        [single, rest @ ..] => escape(*single) + &class_members(rest),
        [] => String::new(),
    }
}

/// The pieces in their order, or which class is not closed.
fn pieces(pattern: &str) -> Result<Vec<Piece>, String> {
    let chars: Vec<char> = pattern.chars().collect();
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let mut len = 1;
        match chars[at] {
            '*' if pieces.last() == Some(&Piece::Star) => {}
            '*' => pieces.push(Piece::Star),
            '?' => pieces.push(Piece::Any),
            '[' => {
                len = class_len(&chars[at..]).ok_or_else(|| {
                    format!(
                        "the class that begins at character {} is not closed; found \"{}\"; \
                         allowed: `[abc]`, `[!abc]`, or `[[]` for a bracket",
                        at + 1,
                        pattern.escape_debug()
                    )
                })?;
                pieces.push(Piece::Class(chars[at..at + len].iter().collect()));
            }
            literal => pieces.push(Piece::Literal(literal)),
        }
        at += len;
    }
    Ok(pieces)
}

/// How long the class is that `chars` begins with; its first member may be a `]`.
fn class_len(chars: &[char]) -> Option<usize> {
    let first_member = if chars.get(1) == Some(&'!') { 2 } else { 1 };
    let close = chars
        .get(first_member + 1..)?
        .iter()
        .position(|c| *c == ']')?;
    Some(first_member + 1 + close + 1)
}

fn sample(pieces: &[Piece], star: &str) -> String {
    let text = |piece: &Piece| match piece {
        Piece::Star => star.to_owned(),
        Piece::Any => "x".into(),
        // The first member; `x` is in most of the classes that say what is not.
        Piece::Class(class) => {
            let first = class.chars().nth(1).filter(|first| *first != '!');
            first.unwrap_or('x').into()
        }
        Piece::Literal(c) => (*c).into(),
    };
    pieces.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> ShellPattern {
        ShellPattern::new(text).expect(text)
    }

    #[test]
    fn glob_is_for_the_whole_name_and_crosses_slashes() {
        let cases = [
            ("*.edi", "a.edi", true),
            ("*.edi", "a/b/c.edi", true),
            ("*.edi", "a.EDI", false),
            ("*.edi", "a.edi.tmp", false),
            ("*", ".hidden", true),
            ("a?c", "a/c", true),
            ("a?c", "aéc", true),
            ("[abc]x", "bx", true),
            ("[!abc]x", "bx", false),
            ("[!abc]x", "dx", true),
            ("[]]x", "]x", true),
            ("[!]]x", "]x", false),
            ("[[]x", "[x", true),
            ("[a-c]x", "bx", true),
            ("[*]x", "*x", true),
            ("[*]x", "ax", false),
            ("[**]*", "*x", true),
            ("{a,b}", "{a,b}", true),
            ("{a,b}", "a", false),
            ("a**b", "ab", true),
            ("a**b", "a/x/b", true),
            ("a***b", "axb", true),
            ("**", "x", true),
            ("**/x", "a/x", true),
            ("**/x", "x", false),
            ("a/**/b", "a/b", false),
            ("a\\*", "a\\b", true),
            ("po1.edi", "po1xedi", false),
        ];
        for (pattern, text, expected) in cases {
            let actual = self::pattern(pattern).matches(text);
            assert_eq!(actual, expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn glob_with_an_unclosed_class_is_refused() {
        for pattern in ["[", "[]", "[!", "[!]", "[abc", "a[", "*[!x", "[a]["] {
            let error = ShellPattern::new(pattern).expect_err(pattern);
            assert!(error.contains("is not closed"), "{pattern}: {error}");
        }
    }

    #[test]
    fn glob_is_quick_on_a_name_made_to_be_slow() {
        assert!(!pattern(&("*a".repeat(20) + "b")).matches(&"a".repeat(255)));
    }

    #[test]
    fn a_sample_is_taken_by_its_pattern() {
        for text in [
            "*.edi",
            "a?[b-c][!d]*",
            "[]]x",
            "[!]]x",
            "[[]x",
            "a**b",
            "po]1",
        ] {
            let pattern = pattern(text);
            for star in ["", "x"] {
                let sample = pattern.sample(star);
                assert!(pattern.matches(&sample), "{text} on {sample}");
            }
        }
    }

    #[test]
    fn the_regex_of_a_pattern_takes_the_same_names() {
        let names = [
            "a.edi", "a/b.edi", "ab", "]x", "bx", "-x", "a-x", "^x", "[a]", "é.edi", "",
        ];
        let patterns = [
            "*.edi", "a?", "[]]x", "[!]]x", "[a-c]x", "[!a-c]x", "[a-]x", "[^]x", "[[]a]",
            "?*[!.]", "[--0]x",
        ];
        for text in patterns {
            let regex = regex::Regex::new(&pattern(text).to_regex()).expect(text);
            for name in names {
                let (glob, regex) = (pattern(text).matches(name), regex.is_match(name));
                assert_eq!(glob, regex, "{text} on {name:?}");
            }
        }
        assert_eq!(pattern("*.edi").to_regex(), r"^.*\.edi$");
    }

    #[test]
    fn patterns_surely_differ_where_their_ends_do() {
        let cases = [
            ("*.edi", "*.x12", true),
            ("850*", "856*", true),
            ("850*", "8*", false),
            ("[8]5*", "9*", false),
            ("a]1*", "a]2*", true),
            ("*", "x", false),
        ];
        for (one, other, expected) in cases {
            let (one, other) = (pattern(one), pattern(other));
            assert_eq!(one.surely_differs(&other), expected, "{one:?} {other:?}");
            assert_eq!(other.surely_differs(&one), expected, "{one:?} {other:?}");
        }
    }
}
