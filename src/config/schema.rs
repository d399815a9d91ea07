//! The words of a config: which keys each mapping may hold, and what people write instead.

/// The keys of `defaults`.
pub(super) const DEFAULTS: &[&str] = &[
    "default_bucket",
    "base_file_path",
    "mode",
    "retries",
    "wait_seconds",
    "exit_on_first_failure",
    "max_items",
    "concurrency",
    "require_mount",
    "min_age_seconds",
    "if_exists",
];

/// The keys of a rule.
pub(super) const RULE: &[&str] = &[
    "description",
    "src",
    "dest",
    "mode",
    "retries",
    "wait_seconds",
    "max_items",
    "concurrency",
    "if_exists",
    "min_age_seconds",
    "lock_file",
    "shard_by",
    "examples",
];

/// The keys of `src`.
pub(super) const SRC: &[&str] = &["type", "bucket", "path", "match", "recursive"];

/// The keys of `dest`.
pub(super) const DEST: &[&str] = &["type", "bucket", "path", "rename"];

/// The keys of `match`.
pub(super) const MATCH: &[&str] = &["glob", "regex"];

/// The keys of `rename`.
pub(super) const RENAME: &[&str] = &["regex", "replace"];

/// The keys of one of the `examples`.
pub(super) const EXAMPLE: &[&str] = &["name", "becomes", "ignored", "at"];

/// Which mapping has which keys, for a key that stands in the wrong one.
const HOMES: &[(&str, &[&str])] = &[
    ("src", SRC),
    ("dest", DEST),
    ("src.match", MATCH),
    ("dest.rename", RENAME),
    ("the rule", RULE),
    ("defaults", DEFAULTS),
];

/// Words that are too far from the right one for [`near`].
const SYNONYMS: &[(&str, &[&str])] = &[
    ("source", &["src"]),
    ("from", &["src"]),
    ("input", &["src"]),
    ("destination", &["dest"]),
    ("target", &["dest"]),
    ("to", &["dest"]),
    ("dst", &["dest"]),
    ("output", &["dest"]),
    ("rename_rule", &["rename"]),
    ("pattern", &["match", "glob", "regex"]),
    ("filter", &["match"]),
    ("include", &["match"]),
    ("mask", &["match", "glob"]),
    ("regexp", &["regex"]),
    ("search", &["regex"]),
    ("replacement", &["replace"]),
    ("replace_with", &["replace"]),
    ("template", &["replace"]),
    ("prefix", &["path"]),
    ("directory", &["path"]),
    ("folder", &["path"]),
    ("dir", &["path"]),
    ("kind", &["type"]),
    ("bucket", &["default_bucket"]),
    ("bucket_name", &["bucket"]),
    ("base_path", &["base_file_path"]),
    ("base_dir", &["base_file_path"]),
    ("attempts", &["retries"]),
    ("retry", &["retries"]),
    ("max_retries", &["retries"]),
    ("retry_count", &["retries"]),
    ("wait", &["wait_seconds"]),
    ("delay", &["wait_seconds"]),
    ("retry_wait_seconds", &["wait_seconds"]),
    ("limit", &["max_items"]),
    ("max_files", &["max_items"]),
    ("max", &["max_items"]),
    ("parallel", &["concurrency"]),
    ("threads", &["concurrency"]),
    ("workers", &["concurrency"]),
    ("min_age", &["min_age_seconds"]),
    ("on_conflict", &["if_exists"]),
    ("overwrite", &["if_exists"]),
    ("lockname", &["lock_file"]),
    ("lock", &["lock_file"]),
    ("fail_fast", &["exit_on_first_failure"]),
    ("stop_on_failure", &["exit_on_first_failure"]),
    ("expected", &["becomes"]),
    ("result", &["becomes"]),
    ("time", &["at"]),
    ("comment", &["description"]),
    ("tests", &["examples"]),
];

/// What to write instead of `word`: the nearest of the allowed words, or the mapping it belongs in.
pub(super) fn hint(word: &str, allowed: &[&str]) -> Option<String> {
    let plain = plain(word);
    let meant = SYNONYMS
        .iter()
        .filter(|(wrong, _)| *wrong == plain)
        .flat_map(|(_, right)| *right)
        .find(|right| allowed.contains(right))
        .copied();
    if let Some(meant) = meant {
        return Some(format!("did you mean `{meant}`?"));
    }
    let homes: Vec<String> = HOMES
        .iter()
        .filter(|(_, keys)| keys.contains(&word))
        .map(|(home, _)| format!("`{home}`").replace("`the rule`", "the rule"))
        .collect();
    if !homes.is_empty() {
        return Some(format!("it belongs in {}", homes.join(" or ")));
    }
    near(word, allowed).map(|meant| format!("did you mean `{meant}`?"))
}

/// The allowed word that was probably meant: the only one that begins so, or few letters differ.
pub fn near<'a>(word: &str, allowed: &[&'a str]) -> Option<&'a str> {
    let word = plain(word);
    let letters = word.chars().count();
    let mut longer = allowed
        .iter()
        .filter(|candidate| letters >= 3 && plain(candidate).starts_with(&word));
    if let (Some(only), None) = (longer.next(), longer.next()) {
        return Some(only);
    }
    let (distance, candidate) = allowed
        .iter()
        .map(|candidate| (distance(&word, &plain(candidate)), *candidate))
        .min_by_key(|(distance, _)| *distance)?;
    let is_near = distance <= (letters / 3).clamp(1, 3) && distance < letters;
    is_near.then_some(candidate)
}

fn plain(word: &str) -> String {
    word.trim_start_matches('-')
        .replace('-', "_")
        .to_lowercase()
}

/// How many letters must be put in, left out, replaced or swapped with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    /// Beyond it nobody meant the word, and comparing would take long.
    const MAX_LETTERS: usize = 40;
    let a: Vec<char> = a.chars().take(MAX_LETTERS).collect();
    let b: Vec<char> = b.chars().take(MAX_LETTERS).collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1)
                .min(row[j - 1] + 1)
                .min(rows[i - 1][j - 1] + changed);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_finds_a_slip_of_the_keyboard_and_no_more() {
        let cases = [
            ("retires", Some("retries")),
            ("Retries", Some("retries")),
            ("retrys", Some("retries")),
            ("max-items", Some("max_items")),
            ("maxitems", Some("max_items")),
            ("--max-itmes", Some("max_items")),
            ("desc", Some("description")),
            ("scr", Some("src")),
            ("x", None),
            ("", None),
            ("colour", None),
        ];
        for (word, expected) in cases {
            assert_eq!(near(word, RULE), expected, "{word}");
        }
    }

    #[test]
    fn every_key_is_its_own_nearest() {
        for keys in [DEFAULTS, RULE, SRC, DEST, MATCH, RENAME, EXAMPLE] {
            for key in keys {
                assert_eq!(near(key, keys), Some(*key));
            }
        }
    }

    #[test]
    fn hint_knows_synonyms_and_the_right_place() {
        assert_eq!(
            hint("rename_rule", DEST).as_deref(),
            Some("did you mean `rename`?")
        );
        assert_eq!(hint("match", RULE).as_deref(), Some("it belongs in `src`"));
        assert_eq!(
            hint("retries", DEST).as_deref(),
            Some("it belongs in the rule or `defaults`")
        );
    }
}
