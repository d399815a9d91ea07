//! One round of a rule: what a listing has for it, what is left alone and said so, and which
//! destinations its items claim.

use std::ops::ControlFlow;

use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::lane::{Lane, Opened, Said, Stores};
use crate::logger::{Level, Logger};
use crate::object::{Entry, Name};
use crate::plan::{self, Claims, Selected, Selection};
use crate::report::Events;
use crate::rule::{IfExists, Instant, Mode};
use crate::store::{Listed, Scope};
use crate::transfer::{self, Ends, Task};

/// How many files that are too young a run names; the rest is counted.
const SKIPS_NAMED_MAX: usize = 100;

/// What a run is made with.
pub struct World<'a> {
    /// Time, stop flag, staging directory.
    pub context: &'a Context,
    /// Where the events go.
    pub log: &'a Logger,
    /// When the run started, for the tokens of a rename.
    pub instant: &'a Instant,
    /// Say what would happen, and do nothing.
    pub dry_run: bool,
}

/// What the rounds of all rules share.
pub struct Rounds<'a> {
    /// Where the stores come from.
    pub stores: &'a dyn Stores,
    /// The world.
    pub world: &'a World<'a>,
    /// What is said.
    pub events: Events<'a>,
    /// The destinations of the whole run.
    pub claims: Claims,
}

/// An item whose turn is still to come. Many wait at once, so what can be made when the turn has
/// come is not made before.
pub enum Waiting {
    /// As the listing had it.
    Listed(Entry),
    /// It may not go where it would: it fails when its turn comes.
    Refused(Box<(Entry, Error)>),
    /// An attempt has failed.
    Begun(Box<Task>),
}

/// What one listing found.
#[derive(Default)]
pub struct Round {
    selected: Selected,
    young: Vec<(Name, String)>,
    young_more: u64,
    delivered: u64,
    no_directory: bool,
    rule_over: Option<String>,
}

impl Round {
    /// Notes an entry that is too young; the first few by name.
    fn leave_young(&mut self, entry: &Entry, note: String) {
        if self.young.len() < SKIPS_NAMED_MAX {
            self.young.push((entry.name.clone(), note));
        } else {
            self.young_more += 1;
        }
    }
}

impl Rounds<'_> {
    /// One listing: what the rule takes, and what it leaves alone for now.
    pub fn select(&self, lane: &Lane<'_>) -> Result<Round> {
        let rule = lane.rule;
        let Opened { source, dest, .. } = lane.open(self.stores)?;
        dest.exists()?;
        if let (Some(from), Some(to)) = (source.directory_id()?, dest.directory_id()?)
            && from == to
        {
            let what = format!("bring {} to {}", rule.source, rule.dest);
            return Err(Error::new(Kind::Invalid, what)
                .because("both paths lead to the same directory")
                .advise("choose another dest.path"));
        }
        let mut round = Round::default();
        if let Some(lock) = &rule.lock_file
            && let Some(since) = source.lock_file(lock)?
        {
            round.rule_over = Some(transfer::lock_note(lock, &self.ends(lane), since));
            return Ok(round);
        }
        let max_items = rule.max_items - lane.progress().taken;
        let mut selection = Selection::new(source.order(), max_items);
        let now = self.world.context.now();
        let progress = lane.progress();
        let seen = &progress.seen;
        let wanted = |name: &Name| {
            rule.matcher.matches(name) && !rule.is_lock_file(name) && !seen.contains(name)
        };
        let scope = Scope {
            recursive: rule.recursive,
            wanted: &wanted,
        };
        let mut fault = None;
        let listed = source.list(&scope, &mut |entry| {
            let age_ns = now.as_nanosecond() - entry.modified.as_nanosecond();
            if let Some(note) = transfer::young_note(age_ns, rule) {
                round.leave_young(&entry, note);
                return ControlFlow::Continue(());
            }
            if selection.would_take(&entry) {
                match self.delivered_before(lane, &entry) {
                    Ok(false) => {}
                    Ok(true) => {
                        round.delivered += 1;
                        return ControlFlow::Continue(());
                    }
                    Err(error) => {
                        fault = Some(error);
                        return ControlFlow::Break(());
                    }
                }
            }
            selection.offer(entry)
        })?;
        if let Some(error) = fault {
            return Err(error);
        }
        round.no_directory = listed == Listed::NoDirectory;
        round.selected = selection.finish(listed);
        Ok(round)
    }

    /// Whether a rule that copies and skips has the item at its destination already. Asked while
    /// listing, so that copying in portions of `max_items` progresses.
    fn delivered_before(&self, lane: &Lane<'_>, entry: &Entry) -> Result<bool> {
        if lane.rule.mode != Mode::Copy || lane.rule.if_exists != IfExists::Skip {
            return Ok(false);
        }
        let opened = lane.opened();
        let there = plan::destination(&opened.resolved, entry, self.world.instant)
            .and_then(|name| opened.dest.look(&name));
        match there {
            Ok(there) => Ok(there.is_some()),
            // It fails when its turn comes.
            Err(error) if error.kind() == Kind::Invalid => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Says what a listing found, and claims where its items go.
    pub fn accept(&self, lane: &Lane<'_>, round: Round) -> Vec<Waiting> {
        let rule = lane.rule;
        let first = {
            let mut progress = lane.progress();
            progress.more = round.selected.more;
            progress.taken += round.selected.entries.len();
            progress.passed_over = 0;
            progress.over = round.rule_over.is_some();
            std::mem::replace(&mut progress.said, Said::Started) == Said::Nothing
        };
        if first {
            let now = self.world.context.now();
            let age = |oldest| now.duration_since(oldest).as_secs().max(0);
            let oldest = round.selected.oldest.map(age);
            self.events.rule_started(rule, &round.selected, oldest);
        }
        self.say_left_alone(lane, &round, first);
        if round.no_directory {
            let reason = "the source directory does not exist: nothing to do";
            let src = rule.source.to_string();
            self.events.skipped(rule, Level::Warn, Some(&src), reason);
        }
        if let Some(why) = round.rule_over {
            self.events.skipped(rule, Level::Warn, None, &why);
        }
        let entries = round.selected.entries.into_iter();
        let wait = |entry| match self.claim(lane, &entry) {
            Ok(()) => Waiting::Listed(entry),
            Err(error) => Waiting::Refused(Box::new((entry, error))),
        };
        entries.map(wait).collect()
    }

    /// Says what a listing left alone. A later listing of the same run sees it again, and says and
    /// counts only what came on top.
    fn say_left_alone(&self, lane: &Lane<'_>, round: &Round, first: bool) {
        let young = round.young.len() as u64 + round.young_more;
        let (new_young, new_delivered) = {
            let mut progress = lane.progress();
            let new_young = young.saturating_sub(progress.said_young);
            let new_delivered = round.delivered.saturating_sub(progress.said_delivered);
            progress.said_young += new_young;
            progress.said_delivered += new_delivered;
            progress.tally.skipped += new_young + new_delivered;
            (new_young, new_delivered)
        };
        let named = if first { round.young.as_slice() } else { &[] };
        for (name, note) in named {
            let src = lane.rule.source.item(name);
            self.events
                .skipped(lane.rule, Level::Info, Some(&src), note);
        }
        for (count, what) in [
            (new_young - named.len() as u64, "more items are too young"),
            (new_delivered, "items are at the destination already"),
        ] {
            if count > 0 {
                let reason = format!("{count} {what}");
                self.events.skipped(lane.rule, Level::Info, None, &reason);
            }
        }
    }

    /// Claims an item's destination.
    fn claim(&self, lane: &Lane<'_>, entry: &Entry) -> Result<()> {
        let (rule, resolved) = (lane.rule, &lane.opened().resolved);
        let name = plan::destination(resolved, entry, self.world.instant)?;
        let source = (&rule.source, &entry.name);
        match self.claims.claim(&resolved.dest, &name, source) {
            Err(first) if rule.if_exists != IfExists::KeepBoth => {
                let what = format!("bring to {}", rule.dest.item(&name));
                let why = format!("{first} already goes there in this run");
                Err(Error::new(Kind::Invalid, what).because(why))
            }
            _ => Ok(()),
        }
    }

    /// The task of an item whose turn has come, or why it fails.
    pub fn begin(&self, lane: &Lane<'_>, waiting: Waiting) -> Result<Box<Task>, (Entry, Error)> {
        let entry = match waiting {
            Waiting::Begun(task) => return Ok(task),
            Waiting::Refused(refused) => return Err(*refused),
            Waiting::Listed(entry) => entry,
        };
        match plan::destination(&lane.opened().resolved, &entry, self.world.instant) {
            Ok(dest) => Ok(Box::new(Task::new(entry, dest))),
            Err(error) => Err((entry, error)),
        }
    }

    /// The two ends of a rule that was listed.
    pub fn ends<'l>(&'l self, lane: &'l Lane<'_>) -> Ends<'l> {
        let opened = lane.opened();
        Ends {
            rule: &opened.resolved,
            source: opened.source.as_ref(),
            dest: opened.dest.as_ref(),
            claims: &self.claims,
            context: self.world.context,
        }
    }
}
