//! What the model's runs work on: all places with what is in them, and what is known of every
//! content that ever was in one.
//!
//! Everything that would destroy a content comes through here, and here it is asked whether the
//! program had promised not to. Nothing in here lets another thread go on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::chance::Chance;
use crate::facts::Facts;
use crate::object::Version;
use crate::rule::Config;
use crate::sync;

/// A content's number; its bytes follow from it.
pub(crate) type Content = usize;

/// One item that readers see.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) content: Content,
    /// Inode and modification time, or what stands for an ETag.
    pub(crate) mark: u64,
    pub(crate) mtime: Duration,
    /// Where the name is not on the disk yet: what a power cut may bring back.
    pub(crate) before: Option<Before>,
}

/// What was at a name before.
#[derive(Clone, Debug)]
pub(crate) struct Before(Option<Box<Item>>);

/// How often something goes wrong, of a thousand steps.
#[derive(Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(crate) failures: usize,
    pub(crate) panics: usize,
    pub(crate) locks: usize,
    /// Fetches and listings that take long.
    pub(crate) delays: usize,
}

/// What happens to whom at a step.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Crash {
    /// The process of this run is killed.
    Kill(usize),
    /// All processes end, and so does all that was not synced.
    PowerCut,
}

pub(crate) struct World(Mutex<State>);

pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) chance: Chance,
    pub(crate) faults: Faults,
    pub(crate) places: BTreeMap<String, BTreeMap<String, Item>>,
    /// Lock files of Bots, by their place.
    pub(crate) locks: BTreeMap<String, Duration>,
    pub(crate) runs: Vec<Facts>,
    pub(crate) crash: Option<(u64, Crash)>,
    pub(crate) steps: u64,
    /// Contents that somebody else had, took or destroyed: they are no loss of ours.
    excused: BTreeSet<Content>,
    contents: usize,
    marks: u64,
    /// Which promises were broken, and how.
    pub(crate) broken: Vec<String>,
    /// Follows from all that was done and said.
    pub(crate) digest: u64,
    /// Whether what happens is told on standard output.
    told: bool,
}

impl World {
    pub(crate) fn new(config: Config, seed: u64, told: bool) -> Self {
        Self(Mutex::new(State {
            config,
            chance: Chance::new(seed, 2),
            faults: Faults::default(),
            places: BTreeMap::new(),
            locks: BTreeMap::new(),
            runs: Vec::new(),
            crash: None,
            steps: 0,
            excused: BTreeSet::new(),
            contents: 0,
            marks: 0,
            broken: Vec::new(),
            digest: 0,
            told,
        }))
    }

    /// Not to be held while another thread may go on.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics with it")
    }
}

/// The bytes of a content: no two are alike, and no part of one is another.
pub(crate) fn bytes_of(content: Content) -> Vec<u8> {
    format!("{content}<{}>", "x".repeat(content * 7 % 40)).into_bytes()
}

/// The content that these bytes are, if they are one whole.
pub(crate) fn content_of(bytes: &[u8]) -> Option<Content> {
    let digits = bytes.split(|&byte| byte == b'<').next()?;
    let content = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (bytes_of(content) == bytes).then_some(content)
}

impl Item {
    pub(crate) fn size_bytes(&self) -> u64 {
        bytes_of(self.content).len() as u64
    }

    /// As a listing or a look tells it.
    pub(crate) fn version(&self, place: &str) -> Version {
        if place.starts_with("s3:") {
            let etag = format!("etag-{}", self.content);
            return Version::object(&etag, jiff::Timestamp::UNIX_EPOCH);
        }
        Version::File {
            dev: 1,
            ino: self.mark,
            size_bytes: self.size_bytes(),
            mtime_s: self.mtime.as_secs().cast_signed(),
            mtime_ns: self.mtime.subsec_nanos(),
            ctime: (0, 0),
        }
    }
}

impl State {
    /// Notes something that must not happen.
    pub(crate) fn broke(&mut self, what: String) {
        self.tell(|| format!("BROKEN: {what}"));
        self.broken.push(what);
    }

    pub(crate) fn tell(&self, what: impl FnOnce() -> String) {
        if self.told {
            println!("{:>9.3} {}", sync::now().as_secs_f64(), what());
        }
    }

    /// Takes something that was done or said into the digest.
    pub(crate) fn mix(&mut self, what: &str) {
        for &byte in what.as_bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.digest ^= self.steps;
    }

    pub(crate) fn item(&self, place: &str, name: &str) -> Option<&Item> {
        self.places.get(place)?.get(name)
    }

    pub(crate) fn names(&self, place: &str) -> Vec<String> {
        let here = self.places.get(place).into_iter().flatten();
        here.map(|(name, _)| name.clone()).collect()
    }

    /// A content that nobody has seen before.
    pub(crate) fn new_content(&mut self) -> Content {
        self.contents += 1;
        self.contents
    }

    /// Somebody else writes an item, whole; `in_place` keeps the file that was there.
    pub(crate) fn write(&mut self, place: &str, name: &str, content: Content, in_place: bool) {
        self.tell(|| format!("somebody writes {place} {name} = {content}"));
        let old = self.take(place, name);
        self.marks += 1;
        let mark = old.filter(|_| in_place).map_or(self.marks, |old| old.mark);
        let item = Item {
            content,
            mark,
            // No two writes of a file have one time.
            mtime: sync::now() + Duration::from_nanos(self.marks),
            before: None,
        };
        self.put(place, name, item);
    }

    /// Somebody else takes an item, or destroys it.
    pub(crate) fn take(&mut self, place: &str, name: &str) -> Option<Item> {
        let item = self.places.get_mut(place)?.remove(name)?;
        self.tell(|| format!("somebody takes {place} {name} = {}", item.content));
        self.excused.insert(item.content);
        Some(item)
    }

    fn put(&mut self, place: &str, name: &str, item: Item) -> Option<Item> {
        let here = self.places.entry(place.to_owned()).or_default();
        here.insert(name.to_owned(), item)
    }

    /// A run makes an item visible, in one step. `durable`: a power cut leaves it there.
    pub(crate) fn publish(
        &mut self,
        run: usize,
        (place, name): (&str, &str),
        content: Content,
        durable: bool,
    ) {
        self.tell(|| format!("run {run} publishes {place} {name} = {content}"));
        let old = self.item(place, name).cloned();
        if let Some(old) = old.as_ref().filter(|old| old.content != content) {
            if self.may_replace(place) {
                self.excused.insert(old.content);
            } else {
                let old = old.content;
                self.broke(format!("run {run} replaced {old} at {place} {name}"));
            }
        }
        self.marks += 1;
        let item = Item {
            content,
            mark: self.marks,
            mtime: sync::now() + Duration::from_nanos(self.marks),
            before: (!durable).then(|| Before(old.map(Box::new))),
        };
        self.put(place, name, item);
    }

    fn may_replace(&self, place: &str) -> bool {
        let rules = self.config.rules.iter();
        let mut here = rules.filter(|rule| rule.dest.to_string() == place);
        here.any(|rule| rule.if_exists == crate::rule::IfExists::Overwrite)
    }

    /// What is at this name is now on the disk.
    pub(crate) fn sync(&mut self, place: &str, name: &str) {
        let here = self.places.get_mut(place);
        if let Some(item) = here.and_then(|here| here.get_mut(name)) {
            item.before = None;
        }
    }

    /// A run removes a source.
    pub(crate) fn remove(&mut self, run: usize, place: &str, name: &str) {
        let Some(item) = self
            .places
            .get_mut(place)
            .and_then(|here| here.remove(name))
        else {
            return;
        };
        let content = item.content;
        self.tell(|| format!("run {run} removes {place} {name} = {content}"));
        let rules = self.config.rules.iter();
        let mut dests = rules
            .filter(|rule| rule.source.to_string() == place)
            .map(|rule| rule.dest.to_string());
        let delivered = dests.any(|dest| self.runs[run].delivered.contains(&(dest, content)));
        if !delivered {
            self.broke(format!(
                "run {run} removed {content} at {place} {name}, which it had not delivered"
            ));
        }
    }

    /// Ends a run or all of them, if it is time for it.
    pub(crate) fn crash_if_due(&mut self) {
        self.steps += 1;
        let Some((_, crash)) = self.crash.take_if(|(at, _)| *at <= self.steps) else {
            return;
        };
        self.tell(|| format!("{crash:?}"));
        match crash {
            // It may not have come so far as to begin.
            Crash::Kill(run) => {
                if let Some(facts) = self.runs.get_mut(run) {
                    facts.dead = true;
                }
            }
            Crash::PowerCut => {
                for run in &mut self.runs {
                    run.dead = true;
                }
                self.forget_unsynced();
            }
        }
    }

    /// Of what was not synced, some is gone and some is there.
    fn forget_unsynced(&mut self) {
        for here in self.places.values_mut() {
            for (name, mut item) in std::mem::take(here) {
                match item.before.take() {
                    Some(Before(before)) if self.chance.hits(50) => {
                        here.extend(before.map(|before| (name, *before)));
                    }
                    _ => {
                        here.insert(name, item);
                    }
                }
            }
        }
    }

    /// Whatever was ever written is somewhere, or somebody else has it.
    pub(crate) fn nothing_is_lost(&mut self) {
        let items = self.places.values().flatten();
        let there: BTreeSet<_> = items.map(|(_, item)| item.content).collect();
        for content in 1..=self.contents {
            if !there.contains(&content) && !self.excused.contains(&content) {
                self.broke(format!("{content} is lost"));
            }
        }
    }
}
