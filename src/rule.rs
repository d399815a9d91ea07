//! PURE: what a rule means once it is read. How names match and what they become is in `pattern`.

use std::time::Duration;

use jiff::Timestamp;

use crate::object::{Name, Place};
pub use crate::pattern::LocalTime;
use crate::pattern::{Matcher, Rename};
use crate::shard::Shard;

/// What happens to the source in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It is removed.
    Move,
    /// It stays.
    Copy,
}

impl Mode {
    /// How each is written, in the config, on the command line and in the log.
    pub(crate) const WORDS: &[(&str, Self)] = &[("move", Self::Move), ("copy", Self::Copy)];

    /// How it is written.
    pub(crate) fn word(self) -> &'static str {
        word(Self::WORDS, self)
    }
}

/// What happens where the destination exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfExists {
    /// It is replaced.
    Overwrite,
    /// The item fails.
    Fail,
    /// The item takes the next free name: `name-1.ext`, `name-2.ext`, …
    KeepBoth,
    /// The source stays.
    Skip,
}

impl IfExists {
    /// How each is written in the config.
    pub(crate) const WORDS: &[(&str, Self)] = &[
        ("overwrite", Self::Overwrite),
        ("fail", Self::Fail),
        ("keep_both", Self::KeepBoth),
        ("skip", Self::Skip),
    ];

    /// How it is written.
    pub(crate) fn word(self) -> &'static str {
        word(Self::WORDS, self)
    }
}

fn word<T: Copy + PartialEq>(words: &[(&'static str, T)], wanted: T) -> &'static str {
    let mut words = words.iter();
    let found = words.find(|(_, value)| *value == wanted);
    found.expect("each value has its word").0
}

/// What of a destination decides which shard takes an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardBy {
    /// All of it.
    Name,
    /// Its directories: what lies in one directory is in one shard, in order.
    Directory,
}

impl ShardBy {
    /// How each is written in the config.
    pub(crate) const WORDS: &[(&str, Self)] =
        &[("name", Self::Name), ("directory", Self::Directory)];
}

/// One rule with every default filled in.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Its key in the config.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// Where it takes from.
    pub source: Place,
    /// Which names it takes.
    pub matcher: Matcher,
    /// Whether also below the source's own level.
    pub recursive: bool,
    /// Where it brings to.
    pub dest: Place,
    /// What the last part of a name becomes.
    pub rename: Option<Rename>,
    /// Move or copy.
    pub mode: Mode,
    /// How many further attempts after the first.
    pub retries: u32,
    /// How long between two attempts.
    pub wait: Duration,
    /// How many items a run takes at the most.
    pub max_items: usize,
    /// How many of its items at once at the most, where the rule says so.
    pub concurrency: Option<usize>,
    /// What happens where the destination exists.
    pub if_exists: IfExists,
    /// Younger files are left alone; zero for s3.
    pub min_age: Duration,
    /// The file whose presence says that Bots is at work in the source directory.
    pub lock_file: Option<String>,
    /// What decides which shard takes an item.
    pub shard_by: ShardBy,
    /// Tests that travel with the rule.
    pub examples: Vec<Example>,
}

impl Rule {
    /// The part of a name that begins with a dot, where either end is a directory: neither we nor
    /// Bots look at such files.
    pub(crate) fn hidden_part<'n>(&self, name: &'n Name) -> Option<&'n [u8]> {
        let ends = [&self.source, &self.dest];
        let in_directory = ends.iter().any(|end| matches!(end, Place::File { .. }));
        let mut parts = name.parts();
        // `.` and `..` are no names, and fail as such.
        let is_hidden = |part: &&[u8]| part.starts_with(b".") && !matches!(*part, b"." | b"..");
        parts.find(|part| in_directory && is_hidden(part))
    }

    /// Whether this is the lock file itself, which is Bots' and never an item.
    pub(crate) fn is_lock_file(&self, name: &Name) -> bool {
        let lock = self.lock_file.as_deref();
        lock.is_some_and(|lock| name.as_bytes() == lock.as_bytes())
    }
}

/// One name and what the rule must make of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The item's name.
    pub name: String,
    /// The destination's name; `None` where the rule must leave the item alone.
    pub becomes: Option<String>,
    /// The instant of the run and the item's modification time.
    pub at: Option<Timestamp>,
}

/// All that a config says.
#[derive(Debug, Clone)]
pub struct Config {
    /// In the order of the file; never empty.
    pub rules: Vec<Rule>,
    /// Items in flight over the whole run, 1 to 64.
    pub concurrency: usize,
    /// Whether the first failed item keeps new ones from starting.
    pub exit_on_first_failure: bool,
    /// Which part of the items this run takes, where several runs share the work.
    pub shard: Option<Shard>,
    /// What is allowed but looks like a mistake.
    pub warnings: Vec<String>,
}
