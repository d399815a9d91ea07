//! One rule in the run: its two ends, and how far it is.

use std::collections::{HashSet, VecDeque};
use std::sync::OnceLock;
use std::time::Duration;

use jiff::Timestamp;

use crate::error::Result;
use crate::object::{Entry, Place};
use crate::plan::{self, Mark};
use crate::poison::unpoisoned;
use crate::rule::Rule;
use crate::store::Store;
use crate::summary::{Figures, Tally};
use crate::sync::{Instant, Mutex, MutexGuard};

/// Where the stores of a run come from; a test brings its own.
pub trait Stores: Sync {
    /// The place with the links on its own path resolved: two paths may lead to one directory.
    fn resolve(&self, place: &Place) -> Place {
        place.clone()
    }

    /// One end of a rule. `excluded` lies inside `place`, and what is in it is no candidate.
    fn open(&self, place: &Place, excluded: Option<&Place>) -> Result<Box<dyn Store>>;
}

/// One rule in the run.
pub struct Lane<'a> {
    /// The rule as the operator wrote it.
    pub rule: &'a Rule,
    ends: OnceLock<Opened>,
    progress: Mutex<Progress>,
}

/// A rule that is at work.
pub struct Opened {
    /// The rule with the links on the paths of its places resolved, for decisions that compare
    /// places. The log names the places as the operator wrote them.
    pub resolved: Rule,
    /// Where it takes from.
    pub source: Box<dyn Store>,
    /// Where it brings to.
    pub dest: Box<dyn Store>,
}

/// How far a rule is.
#[derive(Default)]
pub struct Progress {
    /// When its first listing began.
    pub started: Option<Instant>,
    /// Since when it is being listed, while it is.
    pub listing: Option<Instant>,
    /// What became of its items so far.
    pub tally: Tally,
    /// Items that count towards `max_items`.
    pub taken: usize,
    /// Items of this round made room for others.
    pub made_room: bool,
    /// Failed items that do not count towards `max_items`; no more than that.
    pub forgiven: usize,
    /// Where the next listing goes on.
    pub resume: Option<Resume>,
    /// How many entries the listings so far have selected.
    pub selected: usize,
    /// How many items of all rounds have ended.
    pub ended: usize,
    /// What a further listing selected beyond the room there was.
    pub reserve: VecDeque<Entry>,
    /// Items that the listings so far found at the destination already.
    pub said_delivered: u64,
    /// Directories that the listings so far left out.
    pub said_aside: HashSet<String>,
    /// How many eligible items the last listing left, at least.
    pub beyond: u64,
    /// The age of the oldest file that the first listing saw, also of one that is too young.
    pub oldest_age_seconds: Option<i64>,
    /// It was listed, and nothing of it was left because the run was halted.
    pub complete: bool,
    /// From its first listing to its end.
    pub took: Duration,
    /// Bots is at work in the source: nothing more is done.
    pub over: bool,
    /// What the log has of the rule.
    pub said: Said,
}

/// Where a further listing goes on.
#[derive(Clone)]
pub struct Resume {
    /// When the first listing began: a file that was written since is left for the next run.
    pub since: Timestamp,
    /// The last entry that was selected.
    pub last: Mark,
}

impl Progress {
    /// Notes that an item ended that does not count towards `max_items`.
    pub fn make_room(&mut self) {
        self.taken = self.taken.saturating_sub(1);
        self.made_room = true;
    }

    /// Whether there is room for more, and more to take.
    pub fn wants_more(&self) -> bool {
        let more = self.beyond > 0 || !self.reserve.is_empty();
        self.made_room && more && !self.over
    }
}

/// What the log has of a rule.
#[derive(Default, PartialEq, Eq, Clone, Copy)]
pub enum Said {
    /// No line yet.
    #[default]
    Nothing,
    /// `rule_start`.
    Started,
    /// `rule_done`.
    Done,
}

impl<'a> Lane<'a> {
    /// A rule that was not listed yet.
    pub fn new(rule: &'a Rule) -> Self {
        Self {
            rule,
            ends: OnceLock::new(),
            progress: Mutex::default(),
        }
    }

    /// The rule and its two ends, opened at the first call. Only one thread at a time lists a lane.
    pub fn open(&self, stores: &dyn Stores) -> Result<&Opened> {
        if self.ends.get().is_none() {
            let resolved = Rule {
                source: stores.resolve(&self.rule.source),
                dest: stores.resolve(&self.rule.dest),
                ..self.rule.clone()
            };
            let excluded = plan::dest_inside_source(&resolved).then_some(&resolved.dest);
            let source = stores.open(&self.rule.source, excluded)?;
            let dest = stores.open(&self.rule.dest, None)?;
            let _ = self.ends.set(Opened {
                resolved,
                source,
                dest,
            });
        }
        Ok(self.opened())
    }

    /// The rule and its two ends, which are there once it was listed.
    pub fn opened(&self) -> &Opened {
        let opened = self.ends.get();
        opened.expect("a lane has items only once it was listed")
    }

    /// What became of it, once it has ended.
    pub fn figures(&self) -> Figures {
        let progress = self.progress();
        let reserve = progress.reserve.len() as u64;
        Figures {
            rule: self.rule.name.clone(),
            tally: progress.tally,
            complete: progress.complete,
            took: progress.took,
            backlog: progress.beyond + reserve + progress.tally.not_started,
            oldest_age_seconds: progress.oldest_age_seconds,
        }
    }

    /// How far the rule is. Do not hold the lock while you log or wait.
    pub fn progress(&self) -> MutexGuard<'_, Progress> {
        unpoisoned(self.progress.lock())
    }
}
