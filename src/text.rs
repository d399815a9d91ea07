//! PURE: texts for people. Characters that cannot be seen are escaped, so that a reader sees all
//! that a text holds.

use std::fmt::Write as _;

/// Characters of no width or without ink, beside controls and white space.
///
/// `Default_Ignorable_Code_Point` of the Unicode Character Database 16.0 (soft hyphen, zero width,
/// joiners, bidi controls, variation selectors, Hangul fillers, tags), the format controls that it
/// leaves out, the Khitan filler and the blank Braille pattern. Category Cf as a whole is not it:
/// the Arabic number signs are format characters with ink.
/// <https://www.unicode.org/Public/16.0.0/ucd/DerivedCoreProperties.txt>
const WITHOUT_INK: &[(u32, u32)] = &[
    (0xAD, 0xAD),
    (0x34F, 0x34F),
    (0x61C, 0x61C),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x206F),
    (0x2800, 0x2800),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFFB),
    (0x13430, 0x1343F),
    (0x16FE4, 0x16FE4),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
];

/// Whether a reader does not see the character, or takes it for a plain blank.
pub fn is_unseen(c: char) -> bool {
    let code = u32::from(c);
    let has_no_ink = |&(first, last): &(u32, u32)| (first..=last).contains(&code);
    // Category Cc, then Zs, Zl and Zp.
    c.is_control() || (c.is_whitespace() && c != ' ') || WITHOUT_INK.iter().any(has_no_ink)
}

/// Whether the character is shown as itself, by a terminal as by Rust's own escaping.
pub(crate) fn is_printable(c: char) -> bool {
    !is_unseen(c) && (c == '\'' || c.escape_debug().len() == 1)
}

/// The text with what cannot be seen escaped, and all else as it stands: a line stays a line.
pub fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        if c.is_control() {
            write!(out, "{}", c.escape_debug()).expect("writing to a string cannot fail");
        } else if is_unseen(c) {
            write!(out, "{}", c.escape_unicode()).expect("writing to a string cannot fail");
        } else {
            out.push(c);
        }
        out
    })
}

/// The text in quotes, so that its ends can be seen too.
pub(crate) fn in_quotes(text: &str) -> String {
    escaped(&format!("{text:?}"))
}

/// A path, name or pattern: as it stands where that is unmistakable, else in quotes.
pub fn shown(text: &str) -> String {
    let is_plain = |c: char| !c.is_whitespace() && c != '"' && (c == '\\' || is_printable(c));
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    in_quotes(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_told_from_what_can() {
        let unseen = "\0\t\n\u{1b}\u{7f}\u{85}\u{a0}\u{ad}\u{34f}\u{1160}\u{1680}\u{180e}\u{2003}\
                      \u{200b}\u{200d}\u{200e}\u{2028}\u{2029}\u{202e}\u{202f}\u{2060}\u{2800}\
                      \u{3000}\u{3164}\u{fe0f}\u{feff}\u{ffa0}\u{fff9}\u{e0041}\u{e0100}";
        for c in unseen.chars() {
            assert!(is_unseen(c) && !is_printable(c), "{c:?}");
        }
        let seen = " aé\u{301}ü√–ﬁ中☃\u{600}\u{6dd}\u{1f600}“.*\\";
        for c in seen.chars() {
            assert!(!is_unseen(c), "{c:?}");
        }
    }

    #[test]
    fn a_text_is_in_quotes_where_its_ends_or_its_letters_would_mislead() {
        let cases = [
            ("in/850", "in/850"),
            (r"^(.*)\.edi$", r"^(.*)\.edi$"),
            ("it's", "it's"),
            ("", r#""""#),
            ("in 850", r#""in 850""#),
            ("850 ", r#""850 ""#),
            ("850\u{a0}", r#""850\u{a0}""#),
            ("8\u{3164}50", r#""8\u{3164}50""#),
            ("a\"\n", r#""a\"\n""#),
        ];
        for (text, expected) in cases {
            assert_eq!(shown(text), expected);
        }
        assert_eq!(
            escaped("a b\u{200b}\t\u{3164}\\"),
            r"a b\u{200b}\t\u{3164}\"
        );
    }
}
