//! PURE: what rules mean for each other and for the names in their examples.
//!
//! An error is what can only be wrong. A warning is what looks like a mistake, and is given only
//! where a name can be shown or the rule alone proves it: a warning in every run that means nothing
//! teaches people not to read warnings.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use regex_syntax::hir::{Class, Hir, HirKind};

use crate::object::{Name, Place};
use crate::pattern::{Matcher, Rename, dest_name};
use crate::rule::{Config, Example, IfExists, LocalTime, Mode, Rule, ShardBy};
use crate::text::in_quotes;

/// How many warnings about two rules are given. What is wrong with every pair is one mistake, and
/// the number of pairs grows with the square of the number of rules.
const MAX_PAIRS: usize = 100;

/// Rules that cannot be meant so: each one's name and what is wrong with its destination.
pub fn errors(rules: &[Rule]) -> Vec<(String, String)> {
    let errors = rules
        .iter()
        .filter(|rule| rule.source.path_to(&rule.dest).as_deref() == Some(b""));
    errors
        .map(|rule| {
            let place = &rule.dest;
            let text = format!(
                "found {place}, which is the rule's own source; allowed: another place (to rename \
                 files use a directory or prefix inside or beside it)"
            );
            (rule.name.clone(), text)
        })
        .collect()
}

/// What looks like a mistake only where several runs share the work.
pub fn shard_warnings(config: &Config) -> Vec<String> {
    if config.shard.is_none() {
        return Vec::new();
    }
    let mut texts = Vec::new();
    for (index, rule) in config.rules.iter().enumerate() {
        let name = in_quotes(&rule.name);
        let at_once = rule.concurrency.unwrap_or(config.concurrency);
        if at_once == 1 && rule.shard_by == ShardBy::Name {
            texts.push(format!(
                "rule {name}: concurrency: 1 is in order within a shard only; \
                 `shard_by: directory` keeps each directory's files in one shard"
            ));
        }
        let differs =
            |other: &&Rule| other.shard_by != rule.shard_by && touch(&rule.dest, &other.dest);
        if let Some(other) = config.rules[index + 1..].iter().find(differs) {
            texts.push(format!(
                "rules {name} and {}: they bring to one place, and their shard_by differs: \
                 two items for one name may be in two shards, where none sees the other",
                in_quotes(&other.name)
            ));
        }
    }
    texts
}

/// What is allowed but looks like a mistake.
pub(crate) struct Warning {
    /// The rules that it is about, by their place in the list.
    pub rules: Vec<usize>,
    /// Where it happens.
    pub places: Vec<Place>,
    /// What it is, one line.
    pub text: String,
}

/// What is allowed but looks like a mistake: rule by rule, then pair by pair.
pub(crate) fn warnings(rules: &[Rule]) -> Vec<Warning> {
    let found = |rules: &[usize], places: &[&Place], text| Warning {
        rules: rules.into(),
        places: places.iter().map(|place| (*place).clone()).collect(),
        text,
    };
    let mut warnings = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let texts = alone(rule).into_iter();
        warnings.extend(texts.map(|text| found(&[index], &[&rule.dest], text)));
    }
    let samples: Vec<Vec<String>> = rules.iter().map(samples).collect();
    let pairs_from = warnings.len();
    for (index, a) in rules.iter().enumerate() {
        for (other, b) in rules.iter().enumerate().skip(index + 1) {
            let names = || candidates(a, b, &samples[index], &samples[other]);
            let pair = |places: [&Place; 2], text| found(&[index, other], &places, text);
            // The cheap questions first: most pairs of many rules end here.
            if touch(&a.source, &b.source) && !surely_differ(a, b) {
                let text = same_source(a, b, &names());
                warnings.extend(text.map(|text| pair([&a.source, &b.source], text)));
            }
            for (a, b) in [(a, b), (b, a)] {
                if touch(&a.dest, &b.source) {
                    let text = feeds(a, b, &names());
                    warnings.extend(text.map(|text| pair([&a.dest, &b.source], text)));
                }
            }
            if warnings.len() >= pairs_from + MAX_PAIRS {
                let text = "further pairs of rules were not looked at".into();
                warnings.push(found(&[], &[], text));
                return warnings;
            }
        }
    }
    warnings
}

/// Examples that come out differently, one line each with what was expected and what came.
///
/// `instant` gives the zone, and the time for examples that do not say `at`.
pub fn failing_examples(config: &Config, instant: &LocalTime) -> Vec<String> {
    let examples = config
        .rules
        .iter()
        .flat_map(|rule| rule.examples.iter().map(move |example| (rule, example)));
    examples
        .filter_map(|(rule, example)| failing(rule, example, instant))
        .collect()
}

/// Why the rule leaves a name alone, for people; `None` where it takes it.
///
/// Only what the name alone decides: not whether it is a regular file, or old enough.
pub(crate) fn why_not(rule: &Rule, name: &Name) -> Option<String> {
    place_refuses(rule, name).or_else(|| pattern_refuses(rule, name))
}

/// The pattern as a regex that ignores case, where that is all that keeps it from matching.
fn any_case(rule: &Rule, name: &Name) -> Option<String> {
    let regex = match &rule.matcher {
        Matcher::All => return None,
        Matcher::Glob(glob) => format!("(?i){}", glob.to_regex()),
        Matcher::Regex(regex) => format!("(?i){}", regex.as_str()),
    };
    let matches = Matcher::regex(&regex).is_ok_and(|any_case| any_case.matches(name));
    matches.then_some(regex)
}

fn place_refuses(rule: &Rule, name: &Name) -> Option<String> {
    if let Some(hidden) = rule.hidden_part(name) {
        let hidden = String::from_utf8_lossy(hidden);
        return Some(format!("`{hidden}` begins with a dot"));
    }
    if !rule.recursive && name.as_bytes().contains(&b'/') {
        return Some("it is in a directory below, and the rule is not recursive".into());
    }
    if let Some(inside) = rule.source.path_to(&rule.dest)
        && !inside.is_empty()
        && name.as_bytes().starts_with(&inside)
    {
        return Some(format!("it is already under the destination {}", rule.dest));
    }
    if rule.is_lock_file(name) {
        return Some("it is the rule's lock file".into());
    }
    None
}

fn pattern_refuses(rule: &Rule, name: &Name) -> Option<String> {
    if rule.matcher.matches(name) {
        return None;
    }
    let pattern = match &rule.matcher {
        Matcher::Glob(glob) => format!("the glob `{}`", glob.as_str()),
        Matcher::Regex(regex) => format!("the regex `{}`", regex.as_str()),
        Matcher::All => return None,
    };
    let hint = any_case(rule, name).map_or_else(String::new, |regex| {
        format!(": only upper and lower case differ; the regex `{regex}` takes both")
    });
    Some(format!("{pattern} does not match{hint}"))
}

fn takes(rule: &Rule, name: &Name) -> bool {
    place_refuses(rule, name).is_none() && rule.matcher.matches(name)
}

fn failing(rule: &Rule, example: &Example, instant: &LocalTime) -> Option<String> {
    let at = example.at.unwrap_or(instant.at);
    let instant = LocalTime {
        at,
        zone: instant.zone.clone(),
    };
    let name = Name::new(example.name.as_bytes());
    let refusal = match &name {
        Some(name) => why_not(rule, name),
        None => Some("a name does not begin or end with a `/`".into()),
    };
    let becomes = match (&name, &refusal) {
        (Some(name), None) => Some(dest_name(rule.rename.as_ref(), name, &instant, at)),
        _ => None,
    };
    let expected = example.becomes.as_ref().map(String::as_bytes);
    if becomes.as_deref() == expected {
        return None;
    }
    let quoted = |bytes: &[u8]| format!("{:?}", String::from_utf8_lossy(bytes));
    let expected = expected.map_or("to be ignored".into(), |name| {
        format!("to become {}", quoted(name))
    });
    let actual = match (becomes, refusal) {
        (Some(name), _) => format!("becomes {}", quoted(&name)),
        (None, refusal) => format!("is ignored: {}", refusal.unwrap_or_default()),
    };
    let (rule, name) = (&rule.name, &example.name);
    Some(format!(
        "rule {rule:?}: example {name:?}: expected {expected}, but it {actual}"
    ))
}

/// What is wrong with one rule by itself.
fn alone(rule: &Rule) -> Vec<String> {
    let mut warnings = Vec::new();
    let name = &rule.name;
    if let Some(rename) = &rule.rename
        && rule.if_exists != IfExists::KeepBoth
        && drops_text(rename)
    {
        warnings.push(format!(
            "rule {name:?}: the rename drops text that may tell two names apart, so that both \
             become the same; keep it with a group, or say `if_exists: keep_both`"
        ));
    }
    if rule.mode == Mode::Copy && rule.if_exists != IfExists::Skip && rule.max_items > 0 {
        let max_items = rule.max_items;
        warnings.push(format!(
            "rule {name:?}: `mode: copy` without `if_exists: skip` copies the same first \
             {max_items} items (`max_items`) in every run"
        ));
    }
    warnings
}

fn same_source(a: &Rule, b: &Rule, names: &[Name]) -> Option<String> {
    // Nothing is taken away from the other rule.
    if a.mode == Mode::Copy && b.mode == Mode::Copy {
        return None;
    }
    let (outer, inner) = if a.source.path_to(&b.source).is_some() {
        (a, b)
    } else {
        (b, a)
    };
    let both = names.iter().find_map(|name| {
        let seen_from_outer = inner.source.name_from(&outer.source, name)?;
        (takes(inner, name) && takes(outer, &seen_from_outer)).then(|| inner.source.item(name))
    })?;
    let (a, b) = (&a.name, &b.name);
    Some(format!(
        "rules {a:?} and {b:?} take from the same source: both take {both}, so chance decides \
         which of them gets it"
    ))
}

fn feeds(a: &Rule, b: &Rule, names: &[Name]) -> Option<String> {
    // When `b` takes from a place inside the destination of `a`, only names with these directories
    // get there.
    let directories = a.dest.path_to(&b.source).unwrap_or_default();
    let deeper = names
        .iter()
        .filter_map(|name| prefixed(&directories, name.as_bytes()));
    let passed_on = names.iter().cloned().chain(deeper).find_map(|name| {
        let brought = sample_dest(a, &name)?;
        let seen_from_b = a.dest.name_from(&b.source, &brought)?;
        (takes(a, &name) && takes(b, &seen_from_b)).then(|| a.dest.item(&brought))
    })?;
    let (a, b) = (&a.name, &b.name);
    Some(format!(
        "rule {a:?} feeds rule {b:?}: what it brings to {passed_on} is taken from there, in the \
         same run or the next"
    ))
}

/// What a name becomes at some time.
fn sample_dest(rule: &Rule, name: &Name) -> Option<Name> {
    let at = Timestamp::UNIX_EPOCH;
    let zone = TimeZone::UTC;
    let instant = LocalTime { at, zone };
    Name::new(dest_name(rule.rename.as_ref(), name, &instant, at))
}

fn touch(a: &Place, b: &Place) -> bool {
    a.path_to(b).is_some() || b.path_to(a).is_some()
}

fn prefixed(directories: &[u8], name: &[u8]) -> Option<Name> {
    Name::new([directories, name].concat())
}

/// Whether two globs for one place begin or end with texts that no name can both have.
fn surely_differ(a: &Rule, b: &Rule) -> bool {
    let (Matcher::Glob(left), Matcher::Glob(right)) = (&a.matcher, &b.matcher) else {
        return false;
    };
    a.source == b.source && left.surely_differs(right)
}

/// Names that two rules may both take; not all there are, but no rule is accused without one.
fn candidates(a: &Rule, b: &Rule, of_a: &[String], of_b: &[String]) -> Vec<Name> {
    let mut texts: Vec<String> = of_a.iter().chain(of_b).cloned().collect();
    if let (Matcher::Glob(a), Matcher::Glob(b)) = (&a.matcher, &b.matcher) {
        texts.extend([a.sample_with_end_of(b), b.sample_with_end_of(a)]);
    }
    let names = texts.into_iter().map(String::into_bytes);
    names.filter_map(Name::new).collect()
}

/// Names that a rule's pattern may match, and those of its examples.
fn samples(rule: &Rule) -> Vec<String> {
    let mut samples: Vec<String> = rule
        .examples
        .iter()
        .map(|example| example.name.clone())
        .collect();
    match &rule.matcher {
        Matcher::All => samples.extend(["x.edi".to_owned(), "x".to_owned()]),
        Matcher::Glob(glob) => {
            samples.extend(["x", ""].map(|star| glob.sample(star)));
        }
        Matcher::Regex(regex) => {
            let hir = regex_syntax::parse(regex.as_str()).ok();
            samples.extend(hir.map(|hir| sample_of_regex(&hir)));
        }
    }
    samples
}

/// A text that the expression probably matches; look-arounds are not looked at.
fn sample_of_regex(hir: &Hir) -> String {
    /// `x{1000}` shows nothing more than a few of them.
    const MAX_REPEATED: u32 = 64;
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => String::new(),
        HirKind::Literal(literal) => String::from_utf8_lossy(&literal.0).into_owned(),
        HirKind::Class(class) => member(class).to_string(),
        HirKind::Repetition(repetition) => {
            let wanted = repetition
                .min
                .max(1)
                .min(repetition.max.unwrap_or(1).max(repetition.min));
            let count = usize::try_from(wanted.min(MAX_REPEATED)).unwrap_or_default();
            sample_of_regex(&repetition.sub).repeat(count)
        }
        HirKind::Capture(capture) => sample_of_regex(&capture.sub),
        HirKind::Concat(parts) => parts.iter().map(sample_of_regex).collect(),
        HirKind::Alternation(parts) => parts.first().map(sample_of_regex).unwrap_or_default(),
    }
}

/// A plain character of the class where it has one.
fn member(class: &Class) -> char {
    let plain = ['x', 'a', 'A', '1', '.'];
    match class {
        Class::Unicode(class) => {
            let has = |c: &char| class.iter().any(|r| r.start() <= *c && *c <= r.end());
            let first = class
                .iter()
                .next()
                .map_or('x', regex_syntax::hir::ClassUnicodeRange::start);
            plain.into_iter().find(has).unwrap_or(first)
        }
        Class::Bytes(class) => class
            .iter()
            .next()
            .map_or('x', |range| range.start().into()),
    }
}

/// Whether a rename loses text that can differ from name to name.
///
/// A few spellings of the same thing (`edi|EDI`) do not count: a rename is there to unify them.
fn drops_text(rename: &Rename) -> bool {
    const FEW: u64 = 16;
    if rename.keeps_group(0) {
        return false;
    }
    let hir = regex_syntax::parse(rename.regex().as_str());
    hir.is_ok_and(|hir| variants(&hir, rename) > FEW)
}

/// How many texts can match where the groups that the rename keeps are the same.
fn variants(hir: &Hir, rename: &Rename) -> u64 {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) | HirKind::Literal(_) => 1,
        HirKind::Class(Class::Unicode(class)) => class
            .iter()
            .map(|range| u64::from(u32::from(range.end()) - u32::from(range.start()) + 1))
            .fold(0, u64::saturating_add),
        HirKind::Class(Class::Bytes(class)) => class.iter().map(|range| range.len() as u64).sum(),
        HirKind::Repetition(repetition) => match repetition.max {
            None => u64::MAX,
            Some(max) => {
                let counts = u64::from(max - repetition.min + 1);
                variants(&repetition.sub, rename)
                    .saturating_pow(max)
                    .saturating_mul(counts)
            }
        },
        HirKind::Capture(capture) => {
            let index = usize::try_from(capture.index).unwrap_or(usize::MAX);
            if rename.keeps_group(index) {
                1
            } else {
                variants(&capture.sub, rename)
            }
        }
        HirKind::Concat(parts) => parts
            .iter()
            .map(|part| variants(part, rename))
            .fold(1, u64::saturating_mul),
        HirKind::Alternation(parts) => parts
            .iter()
            .map(|part| variants(part, rename))
            .fold(0, u64::saturating_add),
    }
}
