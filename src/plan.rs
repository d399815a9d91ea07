//! PURE: which entries of a listing a rule takes, in which order, and what each becomes.
//!
//! Decides only; nothing here reads a disk or a network. What it refuses, it refuses before
//! anything is staged: a name that could not exist, one that would escape the destination, one
//! that would land on itself or among its rule's own sources, and one that another item of the
//! same run has claimed.

use std::collections::hash_map::{Entry as Slot, RandomState};
use std::collections::{BinaryHeap, HashMap};
use std::hash::BuildHasher as _;
use std::ops::ControlFlow;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::sync::Mutex;

use jiff::Timestamp;

use crate::error::{Error, Kind, Result};
use crate::object::{Entry, KEY_MAX_BYTES, Name, PART_MAX_BYTES, Place, join, part_flaw};
use crate::pattern;
use crate::poison::unpoisoned;
use crate::rule::{LocalTime, Rule, ShardBy};
use crate::shard;
use crate::store::{Listed, Order, is_temporary};

/// The first `max_items` of what it is offered, holding no more than those.
pub struct Selection {
    order: Order,
    max_items: usize,
    by_name: Vec<Entry>,
    by_age: BinaryHeap<Aged>,
    oldest: Option<Timestamp>,
    /// How many eligible entries were seen and not taken.
    beyond: u64,
}

/// An entry ordered by modification time, then by name.
struct Aged(Entry);

impl Aged {
    fn key(&self) -> (Timestamp, &Name) {
        (self.0.modified, &self.0.name)
    }
}

impl PartialEq for Aged {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Aged {}

impl PartialOrd for Aged {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Aged {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// An entry's place in the order of its source. The next listing of the rule continues behind it.
#[derive(Clone)]
pub struct Mark {
    order: Order,
    modified: Timestamp,
    name: Name,
}

impl Mark {
    /// The place of this entry.
    pub fn new(order: Order, entry: &Entry) -> Self {
        Self {
            order,
            modified: entry.modified,
            name: entry.name.clone(),
        }
    }

    /// Whether an entry comes up to here, and not behind.
    pub(crate) fn covers(&self, entry: &Entry) -> bool {
        match self.order {
            Order::ByName => entry.name <= self.name,
            Order::ByAge => (entry.modified, &entry.name) <= (self.modified, &self.name),
        }
    }

    /// The name after which a further listing can begin; `None` where entries are not in the order
    /// of their names.
    pub fn name(&self) -> Option<&Name> {
        (self.order == Order::ByName).then_some(&self.name)
    }
}

impl Selection {
    /// Nothing selected yet.
    pub fn new(order: Order, max_items: usize) -> Self {
        Self {
            order,
            max_items,
            by_name: Vec::new(),
            by_age: BinaryHeap::new(),
            oldest: None,
            beyond: 0,
        }
    }

    /// Whether an entry of this age and name would be taken, were it offered now.
    pub(crate) fn would_take(&self, entry: &Entry) -> bool {
        match self.order {
            Order::ByName => self.by_name.len() < self.max_items,
            Order::ByAge => {
                self.by_age.len() < self.max_items
                    || self
                        .by_age
                        .peek()
                        .is_some_and(|last| (entry.modified, &entry.name) < last.key())
            }
        }
    }

    /// Takes an eligible entry if it is among the first `max_items`. Breaks when no later entry can
    /// be.
    pub(crate) fn offer(&mut self, entry: Entry) -> ControlFlow<()> {
        match self.order {
            Order::ByName => {
                if self.by_name.len() < self.max_items {
                    self.by_name.push(entry);
                } else {
                    self.beyond += 1;
                }
                if self.by_name.len() < self.max_items {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            }
            Order::ByAge => {
                let age = entry.modified;
                self.oldest = Some(self.oldest.map_or(age, |oldest| oldest.min(age)));
                if self.would_take(&entry) {
                    self.by_age.push(Aged(entry));
                    if self.by_age.len() > self.max_items {
                        self.by_age.pop();
                        self.beyond += 1;
                    }
                } else {
                    self.beyond += 1;
                }
                ControlFlow::Continue(())
            }
        }
    }

    /// The selected entries in their order.
    pub fn finish(self, listed: Listed) -> Selected {
        let mut entries = match self.order {
            Order::ByName => self.by_name,
            Order::ByAge => self
                .by_age
                .into_sorted_vec()
                .into_iter()
                .map(|aged| aged.0)
                .collect(),
        };
        entries.shrink_to_fit();
        let beyond = self.beyond.max(u64::from(listed == Listed::Stopped));
        Selected {
            entries,
            more: beyond > 0,
            beyond,
            oldest: self.oldest,
        }
    }
}

/// What a rule takes in this run.
#[derive(Default)]
pub struct Selected {
    /// In the order in which they start.
    pub entries: Vec<Entry>,
    /// Further eligible items were seen, or the listing stopped early.
    pub more: bool,
    /// How many those are, at least; 1 where the listing stopped early.
    pub beyond: u64,
    /// The oldest modification time of the eligible; files only.
    pub oldest: Option<Timestamp>,
}

/// The rule's destination where it lies strictly inside its source, so that what was delivered is
/// not taken again.
pub(crate) fn dest_inside_source(rule: &Rule) -> bool {
    let path = rule.source.path_to(&rule.dest);
    path.is_some_and(|path| !path.is_empty())
}

/// The name that an entry takes at the destination.
///
/// # Errors
/// `Invalid`, with the reason: no repeat can mend it.
pub fn destination(rule: &Rule, entry: &Entry, instant: &LocalTime) -> Result<Name> {
    let bytes = pattern::dest_name(rule.rename.as_ref(), &entry.name, instant, entry.modified);
    let refuse = |why: &str| {
        let place = rule.dest.to_string();
        let name = String::from_utf8_lossy(&bytes);
        let what = format!("bring to {}/{name}", place.trim_end_matches('/'));
        Err(Error::new(Kind::Invalid, what).because(why.to_owned()))
    };
    let parts = |bytes: &[u8]| bytes.split(|&byte| byte == b'/').count();
    if parts(&bytes) != parts(entry.name.as_bytes()) {
        return refuse("the rename brought a `/` into the name");
    }
    if let Some(why) = bytes.split(|&byte| byte == b'/').find_map(part_flaw) {
        return refuse(why);
    }
    let Some(name) = Name::new(bytes.clone()) else {
        return refuse("the name is empty");
    };
    if is_temporary(name.split().1) {
        return refuse("such names are kept for files that are being written; rename it");
    }
    if let Place::S3 { prefix, .. } = &rule.dest {
        if name.as_str().is_none() {
            return refuse("the file name is not UTF-8, as a key must be; rename the file");
        }
        if prefix.len() + bytes.len() > KEY_MAX_BYTES {
            return refuse("the key would be longer than 1024 bytes");
        }
    }
    match same_place(rule, &entry.name, &name) {
        Some(why) => refuse(why),
        None => Ok(name),
    }
}

/// The number of an item's destination: modulo N it is the shard of N that takes the item.
///
/// Of a directory in lower case, as what differs only so may be one file ([`Claims::twin`]): who
/// would land on one destination has one number.
pub fn shard_number(rule: &Rule, name: &Name) -> u64 {
    let mut name = pattern::timeless_name(rule.rename.as_ref(), name);
    if rule.shard_by == ShardBy::Directory {
        let directories = name.iter().rposition(|&byte| byte == b'/');
        name.truncate(directories.map_or(0, |at| at + 1));
    }
    shard::hash(&match &rule.dest {
        Place::S3 { bucket, prefix } => {
            let place = format!("s3://{bucket}/{prefix}");
            [place.as_bytes(), &name].concat()
        }
        Place::File { path, .. } => {
            let path = path.components().collect::<PathBuf>().join("");
            lower_case(&[path.into_os_string().as_bytes(), &name].concat())
        }
    })
}

/// Why an item must not land where it would: on itself, or among its rule's own sources.
fn same_place(rule: &Rule, from: &Name, to: &Name) -> Option<&'static str> {
    let seen = rule.dest.name_from(&rule.source, to)?;
    if seen == *from {
        return Some("it would land on itself");
    }
    let taken = rule.recursive || !seen.as_bytes().contains(&b'/');
    (taken && !dest_inside_source(rule)).then_some("it would land among its rule's own sources")
}

/// Which item of the run was first to claim a destination.
///
/// Holds no destination's name, only 128 random bits that stand for it: there is one for each item
/// of the run.
#[derive(Default)]
pub struct Claims {
    hashers: [RandomState; 2],
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    sources: Vec<Place>,
    /// The destination, and the first item that claimed it.
    first: HashMap<u128, (u32, Name)>,
    /// For files: the first destination among those that differ only by upper and lower case. To
    /// save memory both sides are half a number: the key stands for the name in lower case, the
    /// value is the upper half of a key of `first`. The whole key is searched only for twins, which
    /// are rare.
    folded: HashMap<u64, u64>,
}

impl Claims {
    /// Claims `name` at `dest` for the item `from` of `source`. Fails with the item that has
    /// claimed it before.
    pub fn claim(
        &self,
        dest: &Place,
        name: &Name,
        (source, from): (&Place, &Name),
    ) -> Result<(), String> {
        let (spot, folded_spot) = self.spots(dest, name);
        let mut taken = unpoisoned(self.taken.lock());
        let Taken {
            sources,
            first,
            folded,
        } = &mut *taken;
        match first.entry(key(spot)) {
            Slot::Occupied(first) => {
                let (source, from) = first.get();
                Err(sources[*source as usize].item(from))
            }
            Slot::Vacant(slot) => {
                let known = sources.iter().position(|known| known == source);
                let source = known.unwrap_or_else(|| {
                    sources.push(source.clone());
                    sources.len() - 1
                });
                let source = u32::try_from(source).expect("a run has fewer rules");
                slot.insert((source, from.clone()));
                if let Some(folded_spot) = folded_spot {
                    folded.entry(folded_spot).or_insert(spot[0]);
                }
                Ok(())
            }
        }
    }

    /// The item that was first to claim a name that differs from this one only by upper and lower
    /// case; files only. Whether both names are one file depends on the destination's filesystem,
    /// so the caller must ask it.
    pub(crate) fn twin(&self, dest: &Place, name: &Name) -> Option<String> {
        let (spot, folded_spot) = self.spots(dest, name);
        let taken = unpoisoned(self.taken.lock());
        let at = *taken.folded.get(&folded_spot?)?;
        if at == spot[0] {
            return None;
        }
        let mut all = taken.first.iter();
        let (_, (source, from)) = all.find(|(key, _)| **key >> 64 == u128::from(at))?;
        Some(taken.sources[*source as usize].item(from))
    }

    /// The number of a destination and, for a file, the number of its name in lower case.
    fn spots(&self, dest: &Place, name: &Name) -> ([u64; 2], Option<u64>) {
        let (bucket, whole) = match dest {
            Place::S3 { bucket, prefix } => {
                (Some(bucket), [prefix.as_bytes(), name.as_bytes()].concat())
            }
            Place::File { path, .. } => (None, join(path, name).into_os_string().into_vec()),
        };
        let folded = bucket
            .is_none()
            .then(|| self.hashers[0].hash_one(lower_case(&whole)));
        let spot = (bucket, whole);
        (
            self.hashers.each_ref().map(|hasher| hasher.hash_one(&spot)),
            folded,
        )
    }
}

fn key([high, low]: [u64; 2]) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

/// Letter by letter, as Unicode maps them. Filesystems differ in rare letters.
fn lower_case(name: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(name) {
        Ok(text) => {
            let lower: String = text.chars().flat_map(char::to_lowercase).collect();
            lower.into_bytes()
        }
        Err(_) => name.to_ascii_lowercase(),
    }
}

/// The `n`-th name that `keep_both` tries: 0 is the name itself, then `name-1.ext`, `name-2.ext`.
pub fn numbered(name: &Name, n: u32) -> Option<Name> {
    if n == 0 {
        return Some(name.clone());
    }
    let (directories, last) = name.split();
    // A leading dot begins a name, not an extension.
    let dot = last
        .iter()
        .rposition(|&byte| byte == b'.')
        .filter(|&at| at > 0);
    let (stem, extension) = last.split_at(dot.unwrap_or(last.len()));
    let number = format!("-{n}");
    let numbered = [stem, number.as_bytes(), extension].concat();
    if numbered.len() > PART_MAX_BYTES {
        return None;
    }
    Name::new([directories, &numbered].concat())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::tz::TimeZone;

    use super::*;
    use crate::object::Version;
    use crate::pattern::{Matcher, Rename};
    use crate::rule::{IfExists, Mode, ShardBy};

    fn s3(bucket: &str, prefix: &str) -> Place {
        Place::S3 {
            bucket: bucket.into(),
            prefix: prefix.into(),
        }
    }

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).expect("a good name")
    }

    fn dir(path: &str) -> Place {
        Place::File {
            path: path.into(),
            base: None,
        }
    }

    fn rule(source: Place, dest: Place) -> Rule {
        let recursive = matches!(source, Place::S3 { .. });
        Rule {
            name: "r".into(),
            description: None,
            source,
            matcher: Matcher::All,
            recursive,
            dest,
            rename: None,
            mode: Mode::Move,
            retries: 0,
            wait: Duration::ZERO,
            max_items: 100,
            concurrency: None,
            if_exists: IfExists::Overwrite,
            min_age: Duration::ZERO,
            lock_file: None,
            shard_by: ShardBy::Name,
            examples: Vec::new(),
        }
    }

    fn entry(name: &[u8], second: i64) -> Entry {
        Entry {
            name: Name::new(name).expect("a good name"),
            size_bytes: 1,
            modified: Timestamp::from_second(second).expect("in range"),
            version: Version::object("e", Timestamp::UNIX_EPOCH),
        }
    }

    fn check_destination(rule: &Rule, name: &[u8], expected: &str) {
        let instant = LocalTime {
            at: Timestamp::UNIX_EPOCH,
            zone: TimeZone::UTC,
        };
        let got = match destination(rule, &entry(name, 0), &instant) {
            Ok(name) => name.lossy().into_owned(),
            Err(error) => {
                assert_eq!(error.kind(), Kind::Invalid);
                error.chain()
            }
        };
        assert_eq!(got, expected, "{:?}", String::from_utf8_lossy(name));
    }

    #[test]
    fn a_name_that_cannot_be_at_the_destination_is_refused() {
        let into_dir = rule(s3("edi", "in/"), dir("/data"));
        let into_s3 = rule(dir("/data"), s3("edi", "out/"));
        check_destination(&into_dir, b"a/b c.edi", "a/b c.edi");
        for (name, expected) in [
            (
                "a/../b",
                "bring to /data/a/../b: a part of the name is `.` or `..`",
            ),
            ("..", "bring to /data/..: a part of the name is `.` or `..`"),
            ("a//b", "bring to /data/a//b: a part of the name is empty"),
            (
                "x/.bots-mover-1.part",
                "bring to /data/x/.bots-mover-1.part: \
                 such names are kept for files that are being written; rename it",
            ),
        ] {
            check_destination(&into_dir, name.as_bytes(), expected);
        }
        let long = "x".repeat(256);
        let expected =
            format!("bring to /data/{long}: a part of the name is longer than 255 bytes");
        check_destination(&into_dir, long.as_bytes(), &expected);
        check_destination(&into_dir, &long.as_bytes()[1..], &long[1..]);
        check_destination(
            &into_s3,
            b"caf\xe9",
            "bring to s3://edi/out/caf\u{fffd}: \
             the file name is not UTF-8, as a key must be; rename the file",
        );
    }

    #[test]
    fn a_key_over_1024_bytes_is_refused() {
        let rule = rule(dir("/data"), s3("edi", "out/"));
        let name = vec!["x".repeat(203); 5].join("/");
        assert_eq!("out/".len() + name.len(), 1023);
        check_destination(&rule, name.as_bytes(), &name);
        let long = format!("{name}yy");
        let expected =
            format!("bring to s3://edi/out/{long}: the key would be longer than 1024 bytes");
        check_destination(&rule, long.as_bytes(), &expected);
    }

    #[test]
    fn a_rename_may_not_move_between_directories_or_empty_the_name() {
        let mut rule = rule(s3("edi", "in/"), dir("/data"));
        rule.rename = Some(Rename::new("^.*$", "").expect("a good rename"));
        check_destination(
            &rule,
            b"a/b",
            "bring to /data/a/: a part of the name is empty",
        );
        rule.rename = Some(Rename::new("^.*$", "..").expect("a good rename"));
        check_destination(
            &rule,
            b"a/b",
            "bring to /data/a/..: a part of the name is `.` or `..`",
        );
    }

    #[test]
    fn an_item_never_lands_on_itself_or_among_its_sources() {
        let mut up = rule(dir("/in/a"), dir("/in"));
        up.recursive = true;
        check_destination(&up, b"x", "x");
        check_destination(
            &up,
            b"a/x",
            "bring to /in/a/x: it would land among its rule's own sources",
        );
        let up = rule(s3("edi", "in/a/"), s3("edi", "in/"));
        check_destination(
            &up,
            b"a/x",
            "bring to s3://edi/in/a/x: it would land among its rule's own sources",
        );
        check_destination(&rule(s3("one", "a/"), s3("two", "a/")), b"x", "x");
        let down = rule(s3("edi", "in/"), s3("edi", "in/done/"));
        assert!(dest_inside_source(&down));
        check_destination(&down, b"x", "x");
    }

    fn select(order: Order, max_items: usize, offered: &[(&str, i64)]) -> (Vec<String>, bool) {
        let mut selection = Selection::new(order, max_items);
        let mut listed = Listed::Complete;
        for (name, second) in offered {
            if selection.offer(entry(name.as_bytes(), *second)).is_break() {
                listed = Listed::Stopped;
                break;
            }
        }
        let selected = selection.finish(listed);
        let names = selected
            .entries
            .iter()
            .map(|e| e.name.lossy().into_owned())
            .collect();
        (names, selected.more)
    }

    #[test]
    fn files_go_oldest_first_then_by_name_bytes() {
        let offered = [("b", 2), ("ä", 1), ("z", 1), ("a", 3), ("Z", 1)];
        assert_eq!(select(Order::ByAge, 4, &offered).0, ["Z", "z", "ä", "b"]);
        assert!(select(Order::ByAge, 4, &offered).1);
        assert!(!select(Order::ByAge, 5, &offered).1);
    }

    #[test]
    fn keys_stop_as_soon_as_enough_are_selected() {
        let offered = [("a", 3), ("b", 2), ("c", 1)];
        let expected = (vec!["a".to_owned(), "b".to_owned()], true);
        assert_eq!(select(Order::ByName, 2, &offered), expected);
    }

    #[test]
    fn max_items_0_selects_nothing_and_says_that_there_is_more() {
        assert_eq!(select(Order::ByName, 0, &[("a", 1)]), (vec![], true));
        assert_eq!(select(Order::ByAge, 0, &[("a", 1)]), (vec![], true));
        assert_eq!(select(Order::ByAge, 0, &[]), (vec![], false));
    }

    #[test]
    fn numbered_names_keep_the_last_extension() {
        for (from, number, expected) in [
            ("a.edi", 0, "a.edi"),
            ("a.edi", 1, "a-1.edi"),
            ("d.x/a", 12, "d.x/a-12"),
            ("a.tar.gz", 1, "a.tar-1.gz"),
            (".hidden", 1, ".hidden-1"),
            ("a.", 1, "a-1."),
        ] {
            assert_eq!(numbered(&name(from), number), Some(name(expected)));
        }
        assert_eq!(numbered(&name(&"x".repeat(255)), 1), None);
    }

    #[test]
    fn the_second_claim_learns_who_was_first() {
        let claims = Claims::default();
        let (in_1, in_2) = (dir("/in/1"), dir("/in/2"));
        let (x, y) = (name("x"), name("y"));
        assert_eq!(claims.claim(&dir("/a"), &x, (&in_1, &x)), Ok(()));
        assert_eq!(claims.claim(&dir("/b"), &x, (&in_2, &x)), Ok(()));
        assert_eq!(claims.claim(&dir("/a"), &y, (&in_1, &y)), Ok(()));
        let first = claims.claim(&dir("/b"), &x, (&in_1, &y));
        assert_eq!(first, Err("/in/2/x".to_owned()));
        let first = claims.claim(&dir("/a"), &y, (&in_2, &y));
        assert_eq!(first, Err("/in/1/y".to_owned()));
    }

    #[test]
    fn names_that_differ_only_by_case_are_twins_of_whoever_was_first() {
        let claims = Claims::default();
        let (from, to) = (dir("/in"), dir("/out"));
        let bucket = s3("x", "");
        for text in ["d/po", "d/PO", "d/Po", "Ä.edi", "ä.edi"] {
            let name = name(text);
            assert_eq!(claims.claim(&to, &name, (&from, &name)), Ok(()));
            assert_eq!(claims.claim(&bucket, &name, (&from, &name)), Ok(()));
        }
        for (dest, text, first) in [
            (&to, "d/po", None),
            (&to, "d/PO", Some("/in/d/po")),
            (&to, "D/PO", Some("/in/d/po")),
            (&dir("/OUT/D"), "po", Some("/in/d/po")),
            (&to, "ä.edi", Some("/in/Ä.edi")),
            (&to, "d/po-1", None),
            (&bucket, "d/PO", None),
        ] {
            let twin = claims.twin(dest, &name(text));
            assert_eq!(twin.as_deref(), first, "{text}");
        }
    }

    #[test]
    fn two_ways_to_one_destination_are_one_claim() {
        let claims = Claims::default();
        let bucket = |bucket: &str, prefix: &str| Place::S3 {
            bucket: bucket.into(),
            prefix: prefix.into(),
        };
        let (from, b) = (dir("/in"), name("b"));
        assert_eq!(claims.claim(&dir("/a"), &b, (&from, &b)), Ok(()));
        assert!(claims.claim(&dir("/"), &name("a/b"), (&from, &b)).is_err());
        assert_eq!(claims.claim(&bucket("x", "a/"), &b, (&from, &b)), Ok(()));
        let whole = bucket("x", "");
        assert!(claims.claim(&whole, &name("a/b"), (&from, &b)).is_err());
        assert_eq!(claims.claim(&bucket("y", "a/"), &b, (&from, &b)), Ok(()));
    }
}
