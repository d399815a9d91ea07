//! The shell of a run: for each rule list and plan, then move on scoped threads, and say so.
//!
//! One lister thread for each rule (up to [`LISTERS_MAX`]) makes the plan of its rule and submits
//! it; workers, started as there is work for them, take items from the [`Schedule`]. Whoever
//! finishes a rule's last item owns the rule again and ends it, or lists once more where skipped
//! items left room below `max_items`. The main thread looks on and tells of progress. Where the
//! system gives fewer threads, listers become workers; where it gives none, so does the main one.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::logger::{Level, Logger};
use crate::object::{Entry, Name, Place};
use crate::plan::{self, Claims, Selected, Selection};
use crate::report::Report;
use crate::rule::{Config, IfExists, Instant, Mode, Rule};
use crate::schedule::{Left, Schedule};
use crate::status::{self, UnderWay};
use crate::store::{Aside, LOST_AND_FOUND_NOTE, Listed, Scope as ListScope, Store};
use crate::summary::{Tally, exit_code};
use crate::sync::{self, AtomicUsize, Builder, Mutex, MutexGuard, Scope};
use crate::transfer::{self, Attempt, End, Ends, Task};

/// How many rules are listed at once at the most.
const LISTERS_MAX: usize = 64;

/// How often an item that takes longer than this tells how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// What is said of an item or a listing that made the program panic.
const PANIC_NOTE: &str = "a fault of the program, told on standard error";

/// How many files that are too young a run names; the rest is counted.
const SKIPS_NAMED_MAX: usize = 100;

/// Stack of a lister or worker. Nothing here recurses with the data.
const STACK_BYTES: usize = 256 << 10;

/// Where the stores of a run come from; a test brings its own.
pub trait Stores: Sync {
    /// The place with the links on its own path resolved: two paths may lead to one directory.
    fn resolve(&self, place: &Place) -> Place {
        place.clone()
    }

    /// One end of a rule. `excluded` lies inside `place`, and what is in it is no candidate.
    fn open(&self, place: &Place, excluded: Option<&Place>) -> Result<Box<dyn Store>>;
}

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

/// Runs all rules once; gives the totals and the exit code.
pub fn run(config: &Config, stores: &dyn Stores, world: &World<'_>) -> (Tally, u8) {
    let started = sync::Instant::now();
    let report = Report(world.log);
    report.run_started(config, world.dry_run);
    let limits = config
        .rules
        .iter()
        .map(|rule| rule.concurrency.unwrap_or(config.concurrency));
    let run = Run {
        config,
        report,
        stores,
        world,
        claims: Claims::default(),
        schedule: Arc::new(Schedule::new(config.concurrency, limits)),
        lanes: config.rules.iter().map(Lane::new).collect(),
        next_to_list: AtomicUsize::new(0),
        in_flight: Mutex::default(),
    };
    let schedule = Arc::clone(&run.schedule);
    world.context.stop.on_request(move || schedule.hurry());
    sync::scope(|scope| {
        run.start_listers(scope);
        run.look_on();
    });
    let mut total = Tally::default();
    for (index, lane) in run.lanes.iter().enumerate() {
        // A halt leaves lanes that nobody owns.
        run.end_rule(index);
        total.add(&lock(&lane.tally));
    }
    let signal = world.context.stop.requested();
    let code = exit_code(&total, signal);
    report.run_done(&total, started, code, signal);
    (total, code)
}

struct Run<'a> {
    config: &'a Config,
    report: Report<'a>,
    stores: &'a dyn Stores,
    world: &'a World<'a>,
    claims: Claims,
    schedule: Arc<Schedule<Waiting>>,
    lanes: Vec<Lane<'a>>,
    next_to_list: AtomicUsize,
    in_flight: Mutex<Vec<Flight>>,
}

/// An item whose turn is still to come. Many wait at once, so what can be made when the turn has
/// come is not made before.
enum Waiting {
    Listed(Entry),
    Begun(Box<Task>),
}

/// An item that a worker is at.
struct Flight {
    lane: usize,
    name: Name,
    size_bytes: u64,
    meter: Arc<AtomicU64>,
    started: sync::Instant,
}

impl Flight {
    /// How far it is. Every byte is counted when it is staged and again when it is published.
    fn bytes(&self) -> u64 {
        (self.meter.load(Ordering::Relaxed) / 2).min(self.size_bytes)
    }
}

/// One rule in the run.
struct Lane<'a> {
    rule: &'a Rule,
    opened: OnceLock<Opened>,
    tally: Mutex<Tally>,
    /// Items that may not go where they would: they fail when their turn comes.
    refused: Mutex<HashMap<Name, Error>>,
    /// Items that ended in this run: a second look takes none of them again.
    seen: Mutex<HashSet<Name>>,
    progress: Mutex<Rounds>,
}

/// A rule that is at work.
struct Opened {
    /// With the links on the paths of its places resolved: what is decided by comparing places is
    /// decided by this one. What is said names the places as the operator wrote them.
    resolved: Rule,
    source: Box<dyn Store>,
    dest: Box<dyn Store>,
}

#[derive(Default)]
struct Rounds {
    started: Option<sync::Instant>,
    /// Items that count towards `max_items`.
    taken: usize,
    /// Items of all rounds, and how many of them ended.
    selected: usize,
    ended: usize,
    /// Items of this round that do not.
    passed_over: usize,
    /// What the listings so far left alone, and was said.
    said_young: u64,
    said_delivered: u64,
    said_hidden: u64,
    said_aside: HashSet<String>,
    more: bool,
    over: bool,
    said: Said,
}

/// What the log has of a rule.
#[derive(Default, PartialEq, Eq, Clone, Copy)]
enum Said {
    #[default]
    Nothing,
    Started,
    Done,
}

impl<'a> Lane<'a> {
    fn new(rule: &'a Rule) -> Self {
        Self {
            rule,
            opened: OnceLock::new(),
            tally: Mutex::default(),
            refused: Mutex::default(),
            seen: Mutex::default(),
            progress: Mutex::default(),
        }
    }

    /// The rule and its two ends, which are there once it was listed.
    fn opened(&self) -> &Opened {
        let opened = self.opened.get();
        opened.expect("a lane has tasks only once it was listed")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Run<'_> {
    fn start_listers<'scope, 'env: 'scope>(&'env self, scope: &'scope Scope<'scope, 'env>) {
        let start = |_: &usize| {
            let builder = Builder::new().stack_size(STACK_BYTES);
            let lister = builder.spawn_scoped(scope, move || self.list_rules(scope));
            lister.is_ok()
        };
        // Fewer threads list more slowly, which is all.
        let started = (0..self.lanes.len().min(LISTERS_MAX)).filter(start).count();
        if started == 0 {
            self.list_rules(scope);
        }
    }

    /// Waits for the end, and says how far it is.
    fn look_on(&self) {
        let (log, stop) = (self.world.log, &self.world.context.stop);
        // A second signal ends the process once the status is gone.
        let mut status = log.status().map(|status| (status, stop.hold()));
        let patience = status.as_ref().map_or(PROGRESS_EVERY, |_| status::EVERY);
        let mut told = sync::Instant::now();
        loop {
            match self.schedule.wait(patience) {
                Left::Tasks => {
                    if told.elapsed() >= PROGRESS_EVERY {
                        told = sync::Instant::now();
                        self.say_progress();
                    }
                    status.take_if(|_| stop.is_ending());
                    if let Some((status, _)) = &status {
                        status.draw(self.under_way());
                    }
                }
                // The run was stopped, and nobody will use what is still being listed.
                Left::Listings => return self.world.context.stop.cancel(),
                Left::Nothing => return,
            }
        }
    }

    fn list_rules<'scope, 'env: 'scope>(&'env self, scope: &'scope Scope<'scope, 'env>) {
        loop {
            let index = self.next_to_list.fetch_add(1, Ordering::Relaxed);
            if index >= self.lanes.len() {
                break;
            }
            self.round(index, scope);
        }
        if self.schedule.enlist() {
            self.work(scope);
        }
    }

    /// Lists a rule and submits what it takes, until there is nothing more to do for it here.
    fn round<'scope, 'env: 'scope>(&'env self, index: usize, scope: &'scope Scope<'scope, 'env>) {
        let mut tasks = self.plan_or_fail(index);
        while self.world.dry_run && !tasks.is_empty() && !self.schedule.is_halted() {
            tasks = self.rehearse(index, tasks);
            if self.wants_another_round(index) {
                tasks = self.plan_or_fail(index);
            }
        }
        let (workers, empty) = self.schedule.submit(index, tasks);
        for _ in 0..workers {
            let builder = Builder::new().stack_size(STACK_BYTES);
            let spawned = builder.spawn_scoped(scope, move || self.work(scope));
            if spawned.is_err() {
                self.schedule.worker_failed();
            }
        }
        if empty {
            self.end_rule(index);
        }
    }

    fn work<'scope, 'env: 'scope>(&'env self, scope: &'scope Scope<'scope, 'env>) {
        while let Some((index, waiting)) = self.schedule.next() {
            let task = self.begin(&self.lanes[index], waiting);
            match self.attempt(index, task) {
                Some((task, wait)) => self.schedule.again(index, Waiting::Begun(task), wait),
                None if !self.schedule.finish(index) => {}
                None if self.wants_another_round(index) => self.round(index, scope),
                None => self.end_rule(index),
            }
        }
    }

    /// [`plan`](Self::plan), with a fault of the program as a failure of the rule: whoever waits
    /// for this rule must not wait for ever.
    fn plan_or_fail(&self, index: usize) -> Vec<Waiting> {
        let plan = std::panic::AssertUnwindSafe(|| self.plan(index));
        std::panic::catch_unwind(plan).unwrap_or_else(|_| {
            let lane = &self.lanes[index];
            let error = Error::new(Kind::Other, PANIC_NOTE);
            self.count_failure(lane);
            self.report.listing_failed(lane.rule, 1, &error);
            Vec::new()
        })
    }

    /// Lists until it succeeds or the rule's attempts are spent; the items in their order.
    fn plan(&self, index: usize) -> Vec<Waiting> {
        let lane = &self.lanes[index];
        lock(&lane.progress)
            .started
            .get_or_insert_with(sync::Instant::now);
        let mut attempt = 1;
        let unlisted = || {
            let reason = "the run was halted before it was listed";
            self.report.skipped(lane.rule, Level::Info, None, reason);
        };
        if self.schedule.is_halted() {
            unlisted();
            return Vec::new();
        }
        loop {
            let error = match self.select(lane) {
                Ok(round) => return self.accept(lane, round),
                Err(error) => error,
            };
            if error.kind() == Kind::Stopped {
                // Nothing of it was in flight, so nothing failed.
                unlisted();
                return Vec::new();
            }
            if attempt <= lane.rule.retries && error.kind().is_retryable() {
                self.report.retrying(lane.rule, None, attempt, &error);
                self.schedule.pause(lane.rule.wait);
                if !self.schedule.is_halted() {
                    attempt += 1;
                    continue;
                }
            }
            self.count_failure(lane);
            self.report.listing_failed(lane.rule, attempt, &error);
            return Vec::new();
        }
    }

    /// One listing: what the rule takes, and what it leaves alone for now.
    fn select(&self, lane: &Lane<'_>) -> Result<Round> {
        let rule = lane.rule;
        let Opened { source, dest, .. } = self.open(lane)?;
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
            let ends = self.ends(lane);
            round.rule_over = Some(transfer::lock_note(lock, &ends, since));
            return Ok(round);
        }
        let max_items = rule.max_items - lock(&lane.progress).taken;
        let mut selection = Selection::new(source.order(), max_items);
        let now = self.world.context.now();
        let seen = lock(&lane.seen);
        let wanted = |name: &Name| {
            rule.matcher.matches(name) && !rule.is_lock_file(name) && !seen.contains(name)
        };
        let asides = RefCell::new(Vec::new());
        let aside = |aside: Aside| asides.borrow_mut().push(aside);
        let scope = ListScope {
            recursive: rule.recursive,
            wanted: &wanted,
            aside: &aside,
        };
        let mut fault = None;
        let listed = source.list(&scope, &mut |entry| {
            if rule.hidden_part(&entry.name).is_some() {
                round.hidden += 1;
                return ControlFlow::Continue(());
            }
            let age_ns = now.as_nanosecond() - entry.modified.as_nanosecond();
            if let Some((level, note)) = transfer::young_note(age_ns, rule) {
                round.skip(&entry, level, note);
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
        round.selected = Some(selection.finish(listed));
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
    fn accept(&self, lane: &Lane<'_>, mut round: Round) -> Vec<Waiting> {
        let rule = lane.rule;
        let selected = round.selected.take().unwrap_or_default();
        let first = {
            let mut progress = lock(&lane.progress);
            progress.more = selected.more;
            progress.taken += selected.entries.len();
            progress.selected += selected.entries.len();
            progress.passed_over = 0;
            progress.over = round.rule_over.is_some();
            std::mem::replace(&mut progress.said, Said::Started) == Said::Nothing
        };
        if first {
            let age = selected.oldest.map(|oldest| {
                self.world
                    .context
                    .now()
                    .duration_since(oldest)
                    .as_secs()
                    .max(0)
            });
            self.report.rule_started(rule, &selected, age);
        }
        self.say_left_alone(lane, &round, first);
        for aside in &round.asides {
            self.say_aside(lane, aside);
        }
        if round.no_directory {
            let reason = "the source directory does not exist: nothing to do";
            let src = rule.source.to_string();
            self.report.skipped(rule, Level::Warn, Some(&src), reason);
        }
        if let Some(why) = round.rule_over {
            self.report.skipped(rule, Level::Warn, None, &why);
        }
        for entry in &selected.entries {
            if let Err(error) = self.claim(lane, entry) {
                lock(&lane.refused).insert(entry.name.clone(), error);
            }
        }
        selected.entries.into_iter().map(Waiting::Listed).collect()
    }

    /// Says what a listing left alone. A later listing of the same run sees it again, and says and
    /// counts only what came on top.
    fn say_left_alone(&self, lane: &Lane<'_>, round: &Round, first: bool) {
        let young = round.skipped.len() as u64 + round.skipped_more;
        let (new_young, new_delivered, new_hidden) = {
            let mut progress = lock(&lane.progress);
            let new_young = young.saturating_sub(progress.said_young);
            let new_delivered = round.delivered.saturating_sub(progress.said_delivered);
            let new_hidden = round.hidden.saturating_sub(progress.said_hidden);
            progress.said_hidden += new_hidden;
            progress.said_young += new_young;
            progress.said_delivered += new_delivered;
            (new_young, new_delivered, new_hidden)
        };
        let named = if first { round.skipped.as_slice() } else { &[] };
        for (name, level, note) in named {
            let src = lane.rule.source.item(name);
            self.report.skipped(lane.rule, *level, Some(&src), note);
        }
        for (count, what) in [
            (new_young - named.len() as u64, "more items are too young"),
            (new_delivered, "items are at the destination already"),
            (
                new_hidden,
                "keys have a part that begins with a dot: Bots would not see them",
            ),
        ] {
            if count > 0 {
                let reason = format!("{count} {what}");
                self.report.skipped(lane.rule, Level::Info, None, &reason);
            }
        }
        lock(&lane.tally).skipped += new_young + new_delivered + new_hidden;
    }

    /// A directory that cannot be read is a failure that keeps nothing else from moving. A later
    /// listing of the same run sees it again.
    fn say_aside(&self, lane: &Lane<'_>, aside: &Aside) {
        if !lock(&lane.progress).said_aside.insert(aside.path.clone()) {
            return;
        }
        if let Some(error) = &aside.error {
            lock(&lane.tally).failed += 1;
            self.report.directory_failed(lane.rule, &aside.path, error);
        } else {
            let (src, note) = (Some(aside.path.as_str()), LOST_AND_FOUND_NOTE);
            self.report.skipped(lane.rule, Level::Info, src, note);
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

    /// The task of an item whose turn has come.
    fn begin(&self, lane: &Lane<'_>, waiting: Waiting) -> Box<Task> {
        let entry = match waiting {
            Waiting::Listed(entry) => entry,
            Waiting::Begun(task) => return task,
        };
        let dest = match lock(&lane.refused).remove(&entry.name) {
            Some(error) => Err(error),
            None => plan::destination(&lane.opened().resolved, &entry, self.world.instant),
        };
        Box::new(Task::new(entry, dest))
    }

    /// Makes an attempt and says how it ended; the task and a wait where it is to be repeated.
    fn attempt(&self, index: usize, mut task: Box<Task>) -> Option<(Box<Task>, Duration)> {
        let started = sync::Instant::now();
        let lane = &self.lanes[index];
        let stopping = || self.world.context.stop.requested().is_some();
        if let Some(error) = task.last_error.take_if(|_| stopping()) {
            task.attempt -= 1;
            self.settle(index, &task, End::Failed(error), started);
            return None;
        }
        lock(&self.in_flight).push(Flight {
            lane: index,
            name: task.entry.name.clone(),
            size_bytes: task.entry.size_bytes,
            meter: Arc::clone(&task.meter),
            started,
        });
        let attempt = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            transfer::attempt(&self.ends(lane), &mut task)
        }));
        lock(&self.in_flight).retain(|flight| !Arc::ptr_eq(&flight.meter, &task.meter));
        match attempt {
            Ok(Attempt::End(end)) => self.settle(index, &task, end, started),
            Ok(Attempt::Failed(error)) if task.attempt <= lane.rule.retries && !stopping() => {
                let name = Some(&task.entry.name);
                self.report.retrying(lane.rule, name, task.attempt, &error);
                task.attempt += 1;
                task.last_error = Some(error);
                return Some((task, lane.rule.wait));
            }
            Ok(Attempt::Failed(error)) => self.settle(index, &task, End::Failed(error), started),
            Err(_) => {
                let error = Error::new(Kind::Other, PANIC_NOTE);
                self.settle(index, &task, End::Failed(error), started);
            }
        }
        None
    }

    /// What a person at a terminal is told.
    fn under_way(&self) -> UnderWay {
        let mut all = UnderWay {
            stopping: self.world.context.stop.requested().is_some(),
            ..UnderWay::default()
        };
        for lane in &self.lanes {
            let progress = lock(&lane.progress);
            all.done += progress.ended;
            all.selected += progress.selected;
            if progress.started.is_some() && progress.said != Said::Done {
                all.rules.push(lane.rule.name.clone());
            }
            drop(progress);
            all.bytes += lock(&lane.tally).bytes;
        }
        all.bytes += lock(&self.in_flight).iter().map(Flight::bytes).sum::<u64>();
        all
    }

    /// Tells how far the items are that have been in flight for long.
    fn say_progress(&self) {
        for flight in lock(&self.in_flight).iter() {
            if flight.started.elapsed() < PROGRESS_EVERY {
                continue;
            }
            let rule = self.lanes[flight.lane].rule;
            self.report
                .progress(rule, &flight.name, flight.bytes(), flight.size_bytes);
        }
    }

    /// Counts an item that ended, and says so.
    fn settle(&self, index: usize, task: &Task, end: End, started: sync::Instant) {
        let lane = &self.lanes[index];
        let delivered = |event, dest: &Name, note: Option<&str>| {
            self.report
                .delivered(event, lane.rule, task, dest, note, started);
            lock(&lane.tally).bytes += task.bytes;
        };
        match end {
            End::Moved { dest, note } => {
                delivered("moved", &dest, note.as_deref());
                lock(&lane.tally).moved += 1;
            }
            End::Copied { dest, note } => {
                delivered("copied", &dest, note.as_deref());
                lock(&lane.tally).copied += 1;
            }
            End::Skipped(why) => {
                let src = lane.rule.source.item(&task.entry.name);
                self.report
                    .skipped(lane.rule, Level::Info, Some(&src), &why);
                lock(&lane.tally).skipped += 1;
                Self::pass_over(lane);
            }
            End::RuleOver(why) => {
                self.schedule.halt_lane(index);
                Self::pass_over(lane);
                if !std::mem::replace(&mut lock(&lane.progress).over, true) {
                    self.report.skipped(lane.rule, Level::Warn, None, &why);
                }
            }
            End::Failed(error) => {
                self.count_failure(lane);
                self.report.failed(lane.rule, task, &error);
            }
        }
        Self::note_seen(lane, &task.entry.name);
    }

    /// Only a listing that left something is followed by another.
    fn note_seen(lane: &Lane<'_>, name: &Name) {
        let mut progress = lock(&lane.progress);
        progress.ended += 1;
        if progress.more {
            drop(progress);
            lock(&lane.seen).insert(name.clone());
        }
    }

    fn pass_over(lane: &Lane<'_>) {
        let mut progress = lock(&lane.progress);
        progress.taken -= 1;
        progress.passed_over += 1;
    }

    /// Before it is told: once the log has a failure, nothing new starts.
    fn count_failure(&self, lane: &Lane<'_>) {
        lock(&lane.tally).failed += 1;
        // A rehearsal tells of all that would fail.
        if self.config.exit_on_first_failure && !self.world.dry_run {
            self.schedule.halt();
        }
    }

    /// Whether skipped items left room below `max_items` and there is more to take.
    fn wants_another_round(&self, index: usize) -> bool {
        let progress = lock(&self.lanes[index].progress);
        progress.passed_over > 0 && progress.more && !progress.over && !self.schedule.is_halted()
    }

    /// Says what would happen to each task, and does nothing; gives those that a stop left.
    fn rehearse(&self, index: usize, tasks: Vec<Waiting>) -> Vec<Waiting> {
        let lane = &self.lanes[index];
        let ends = self.ends(lane);
        let mut tasks = tasks.into_iter();
        while let Some(waiting) = tasks.next() {
            let mut task = self.begin(lane, waiting);
            let outcome = transfer::rehearse(&ends, &mut task);
            if self.schedule.is_halted() {
                return std::iter::once(Waiting::Begun(task)).chain(tasks).collect();
            }
            match outcome {
                Ok(dest) => {
                    self.report.would_deliver(lane.rule, &task, &dest);
                    Self::note_seen(lane, &task.entry.name);
                }
                Err(end) => self.settle(index, &task, end, sync::Instant::now()),
            }
        }
        Vec::new()
    }

    /// Says what the rule did; once.
    fn end_rule(&self, index: usize) {
        let lane = &self.lanes[index];
        self.schedule.close(index);
        let started = {
            let mut progress = lock(&lane.progress);
            if std::mem::replace(&mut progress.said, Said::Done) == Said::Done {
                return;
            }
            progress.started
        };
        let mut tally = lock(&lane.tally);
        tally.left = self.schedule.dropped(index) as u64;
        let Some(started) = started else { return };
        self.report.rule_done(lane.rule, &tally, started);
    }

    fn open<'l>(&self, lane: &'l Lane<'_>) -> Result<&'l Opened> {
        if lane.opened.get().is_none() {
            let rule = lane.rule;
            let resolved = Rule {
                source: self.stores.resolve(&rule.source),
                dest: self.stores.resolve(&rule.dest),
                ..rule.clone()
            };
            let excluded = plan::dest_inside_source(&resolved).then_some(&resolved.dest);
            let source = self.stores.open(&rule.source, excluded)?;
            let dest = self.stores.open(&rule.dest, None)?;
            // Only one thread at a time owns a lane that is being listed.
            let _ = lane.opened.set(Opened {
                resolved,
                source,
                dest,
            });
        }
        Ok(lane.opened())
    }

    fn ends<'l>(&'l self, lane: &'l Lane<'_>) -> Ends<'l> {
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

/// What one listing found.
#[derive(Default)]
struct Round {
    selected: Option<Selected>,
    skipped: Vec<(Name, Level, String)>,
    skipped_more: u64,
    delivered: u64,
    /// Keys that would be hidden in the directory they are bound for.
    hidden: u64,
    asides: Vec<Aside>,
    no_directory: bool,
    rule_over: Option<String>,
}

impl Round {
    /// Notes an entry that is left alone; the first few by name.
    fn skip(&mut self, entry: &Entry, level: Level, note: String) {
        if self.skipped.len() < SKIPS_NAMED_MAX {
            self.skipped.push((entry.name.clone(), level, note));
        } else {
            self.skipped_more += 1;
        }
    }
}
