//! One round of a rule: what a listing has for it, what is left alone and said so, and which
//! destinations its items claim.

use std::cell::RefCell;
use std::ops::ControlFlow;

use jiff::Timestamp;

use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::lane::{Lane, Opened, Resume, Said, Stores};
use crate::logger::{Level, Logger};
use crate::object::{Entry, Name};
use crate::plan::{self, Claims, Mark, Selected, Selection};
use crate::report::Events;
use crate::rule::{IfExists, LocalTime, Mode};
use crate::shard::Shard;
use crate::store::{Aside, LOST_AND_FOUND_NOTE, Listed, Order, Scope};
use crate::transfer::{self, Ends, Task};

/// How many entries a further listing of files keeps at the most: all are looked at each time, so
/// few listings that keep many cost less than many that keep few.
const FURTHER_MAX: usize = 10_000;

/// How many files that are too young a run names; the rest is counted.
const SKIPS_NAMED_MAX: usize = 100;

/// What a run is made with.
pub struct World<'a> {
    /// Time, stop flag, staging directory.
    pub context: &'a Context,
    /// Where the events go.
    pub log: &'a Logger,
    /// When the run started, for the tokens of a rename.
    pub instant: &'a LocalTime,
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
    /// Which part of the items is ours, where several runs share the work.
    pub shard: Option<Shard>,
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

impl Waiting {
    /// Its name, and which attempt it waits for.
    pub fn identity(&self) -> (Name, u32) {
        match self {
            Self::Listed(entry) => (entry.name.clone(), 1),
            Self::Refused(refused) => (refused.0.name.clone(), 1),
            Self::Begun(task) => (task.entry.name.clone(), task.attempt),
        }
    }
}

/// What one listing found.
#[derive(Default)]
pub struct Round {
    began: Timestamp,
    order: Option<Order>,
    selected: Selected,
    young: Vec<(Name, Level, String)>,
    young_more: u64,
    /// The oldest modification time of those.
    young_oldest: Option<Timestamp>,
    delivered: u64,
    /// Keys that would be hidden files in the destination's directory.
    hidden: u64,
    asides: Vec<Aside>,
    no_directory: bool,
    rule_over: Option<String>,
}

impl Round {
    /// Notes an entry that is too young; the first few by name.
    fn leave_young(&mut self, entry: &Entry, level: Level, note: String) {
        let (oldest, age) = (&mut self.young_oldest, entry.modified);
        *oldest = Some(oldest.map_or(age, |oldest| oldest.min(age)));
        if self.young.len() < SKIPS_NAMED_MAX {
            self.young.push((entry.name.clone(), level, note));
        } else {
            self.young_more += 1;
        }
    }
}

impl Rounds<'_> {
    /// One listing: what the rule takes, and what it leaves alone for now.
    pub fn select(&self, lane: &Lane<'_>) -> Result<Round> {
        let rule = lane.rule;
        let Opened {
            source,
            dest,
            resolved,
        } = lane.open(self.stores)?;
        dest.must_exist()?;
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
        if rule.max_items == 0 {
            return Ok(round);
        }
        let order = source.order();
        let (keep, resume) = {
            let progress = lane.progress();
            let room = rule.max_items - progress.taken;
            let keep = match order {
                Order::ByName => room,
                Order::ByAge => room.max(progress.selected.min(FURTHER_MAX)),
            };
            (keep, progress.resume.clone())
        };
        let mut selection = Selection::new(order, keep);
        let now = self.world.context.now();
        (round.began, round.order) = (now, Some(order));
        let wanted = |name: &Name| {
            let falls_here =
                |shard: Shard| shard == shard.owner(plan::shard_number(resolved, name));
            rule.matcher.matches(name)
                && !rule.is_lock_file(name)
                && self.shard.is_none_or(falls_here)
        };
        let asides = RefCell::new(Vec::new());
        let aside = |aside: Aside| asides.borrow_mut().push(aside);
        let scope = Scope {
            recursive: rule.recursive,
            wanted: &wanted,
            aside: &aside,
        };
        let mut fault = None;
        let after = resume.as_ref().and_then(|resume| resume.last.name());
        let listed = source.list_after(after, &scope, &mut |entry| {
            if let Some(Resume { since, last }) = &resume {
                let is_new = order == Order::ByAge && entry.modified > *since;
                if last.covers(&entry) || is_new {
                    return ControlFlow::Continue(());
                }
            }
            if rule.hidden_part(&entry.name).is_some() {
                round.hidden += 1;
                return ControlFlow::Continue(());
            }
            // What was written while the listing went on is not from the future.
            let now = now.max(entry.modified.min(self.world.context.now()));
            let age_ns = now.as_nanosecond() - entry.modified.as_nanosecond();
            if let Some((level, note)) = transfer::young_note(age_ns, rule) {
                round.leave_young(&entry, level, note);
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
        round.asides = asides.into_inner();
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
    pub fn accept(&self, lane: &Lane<'_>, mut round: Round) -> Vec<Waiting> {
        let rule = lane.rule;
        let (first, new_delivered) = {
            let mut progress = lane.progress();
            let selected = &round.selected;
            progress.beyond = selected.beyond;
            progress.selected += selected.entries.len();
            progress.over = round.rule_over.is_some();
            if let (Some(order), Some(last)) = (round.order, selected.entries.last()) {
                let since = progress.resume.take();
                let since = since.map_or(round.began, |resume| resume.since);
                let last = Mark::new(order, last);
                progress.resume = Some(Resume { since, last });
            }
            // Of files, those behind the mark are seen again, and count only once.
            let seen_again = match round.order {
                Some(Order::ByAge) => progress.said_delivered,
                _ => 0,
            };
            let new_delivered = round.delivered.saturating_sub(seen_again);
            progress.said_delivered += new_delivered;
            (
                std::mem::replace(&mut progress.said, Said::Started) == Said::Nothing,
                new_delivered,
            )
        };
        if first {
            let now = self.world.context.now();
            let age = |oldest| now.duration_since(oldest).as_secs();
            let eligible = round.selected.oldest.map(age);
            let young = round.young_oldest.map(age);
            lane.progress().oldest_age_seconds = eligible.max(young);
            let oldest = eligible.map(|age| age.max(0));
            self.events.rule_started(rule, &round.selected, oldest);
        }
        self.say_left_alone(lane, &round, first, new_delivered);
        for aside in &round.asides {
            self.say_aside(lane, aside);
        }
        if round.no_directory {
            let reason = "the source directory does not exist: nothing to do";
            let src = rule.source.to_string();
            self.events.skipped(rule, Level::Warn, Some(&src), reason);
        }
        if let Some(why) = round.rule_over {
            self.events.skipped(rule, Level::Warn, None, &why);
        }
        let mut entries = std::mem::take(&mut round.selected.entries);
        {
            let mut progress = lane.progress();
            let room = rule.max_items - progress.taken;
            if entries.len() > room {
                progress.reserve = entries.split_off(room).into();
            }
        }
        self.take(lane, entries)
    }

    /// What the last listing had beyond the room there was, as far as there is room now; nothing
    /// where the rule is to be listed again.
    pub fn reserved(&self, lane: &Lane<'_>) -> Option<Vec<Waiting>> {
        let entries: Vec<_> = {
            let mut progress = lane.progress();
            let room = lane.rule.max_items - progress.taken;
            let room = room.min(progress.reserve.len());
            progress.reserve.drain(..room).collect()
        };
        (!entries.is_empty()).then(|| self.take(lane, entries))
    }

    /// Takes these entries on, and claims where they go.
    fn take(&self, lane: &Lane<'_>, entries: Vec<Entry>) -> Vec<Waiting> {
        {
            let mut progress = lane.progress();
            progress.taken += entries.len();
            progress.made_room = false;
        }
        let wait = |entry| match self.claim(lane, &entry) {
            Ok(()) => Waiting::Listed(entry),
            Err(error) => Waiting::Refused(Box::new((entry, error))),
        };
        entries.into_iter().map(wait).collect()
    }

    /// Says what a listing left alone. What is too young is so for the whole run: the first
    /// listing says all of it. Keys are seen by one listing only.
    fn say_left_alone(&self, lane: &Lane<'_>, round: &Round, first: bool, delivered: u64) {
        let (named, young_more) = if first {
            (round.young.as_slice(), round.young_more)
        } else {
            (&[][..], 0)
        };
        lane.progress().tally.skipped += named.len() as u64 + young_more + delivered + round.hidden;
        for (name, level, note) in named {
            let src = lane.rule.source.item(name);
            self.events.skipped(lane.rule, *level, Some(&src), note);
        }
        for (count, what) in [
            (young_more, "more items are too young"),
            (delivered, "items are at the destination already"),
            (
                round.hidden,
                "keys have a part that begins with a dot: Bots would not see them",
            ),
        ] {
            if count > 0 {
                let reason = format!("{count} {what}");
                self.events.skipped(lane.rule, Level::Info, None, &reason);
            }
        }
    }

    /// A directory that cannot be read is a failure that keeps nothing else from moving. A later
    /// listing of the same run sees it again.
    fn say_aside(&self, lane: &Lane<'_>, aside: &Aside) {
        let mut progress = lane.progress();
        if !progress.said_aside.insert(aside.path.clone()) {
            return;
        }
        progress.tally.failed += u64::from(aside.error.is_some());
        drop(progress);
        if let Some(error) = &aside.error {
            let (rule, path) = (lane.rule, &aside.path);
            self.events.directory_failed(rule, path, error);
        } else {
            let (src, note) = (Some(aside.path.as_str()), LOST_AND_FOUND_NOTE);
            self.events.skipped(lane.rule, Level::Info, src, note);
        }
    }

    /// Claims an item's destination.
    fn claim(&self, lane: &Lane<'_>, entry: &Entry) -> Result<()> {
        let (rule, resolved) = (lane.rule, &lane.opened().resolved);
        let name = plan::destination(resolved, entry, self.world.instant)?;
        let source = (&rule.source, &entry.name);
        match self.claims.claim(&resolved.dest, &name, source) {
            Err(first)
                if rule.if_exists != IfExists::KeepBoth
                    && first != rule.source.item(&entry.name) =>
            {
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
