//! The shell of a run: threads, and attempts at items, with what is counted and said of each.
//!
//! One lister thread for each rule (up to [`LISTERS_MAX`]) makes the first [`Round`] of its rule
//! and submits it; workers, started as there is work for them, take items from the [`Schedule`].
//! Whoever finishes a rule's last item owns the rule again and ends it, or lists once more where
//! skipped items left room below `max_items`. The main thread looks on and tells of progress.
//! Where the system gives fewer threads, listers become workers; where it gives none, so does the
//! main one.
//!
//! [`Round`]: crate::round::Round

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::error::{Error, Kind};
use crate::lane::{Lane, Said};
use crate::logger::Level;
use crate::object::Name;
use crate::plan::Claims;
use crate::report::Events;
use crate::round::{Rounds, Waiting};
use crate::rule::Config;
use crate::schedule::{Left, Schedule};
use crate::summary::{Tally, exit_code};
use crate::sync::{self, AtomicUsize, Builder, Mutex, MutexGuard, Scope};
use crate::transfer::{self, Attempt, End, Task};

pub use crate::lane::Stores;
pub use crate::round::World;

/// How many rules are listed at once at the most.
const LISTERS_MAX: usize = 64;

/// How often an item that takes longer than this tells how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// What is said of an item or a listing that made the program panic.
const PANIC_NOTE: &str = "a fault of the program, told on standard error";

/// Stack of a lister or worker. Nothing here recurses with the data.
const STACK_BYTES: usize = 256 << 10;

/// Runs all rules once; gives the totals and the exit code.
pub fn run(config: &Config, stores: &dyn Stores, world: &World<'_>) -> (Tally, u8) {
    let started = sync::Instant::now();
    let events = Events(world.log);
    events.run_started(config, world.dry_run);
    let limits = config
        .rules
        .iter()
        .map(|rule| rule.concurrency.unwrap_or(config.concurrency));
    let run = Run {
        config,
        rounds: Rounds {
            stores,
            world,
            events,
            claims: Claims::default(),
        },
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
        total.add(&lane.progress().tally);
    }
    let signal = world.context.stop.requested();
    let code = exit_code(&total, signal);
    events.run_done(&total, started, code, signal);
    (total, code)
}

struct Run<'a> {
    config: &'a Config,
    rounds: Rounds<'a>,
    schedule: Arc<Schedule<Waiting>>,
    lanes: Vec<Lane<'a>>,
    next_to_list: AtomicUsize,
    in_flight: Mutex<Vec<Flight>>,
}

/// An item that a worker is at.
struct Flight {
    lane: usize,
    name: Name,
    size_bytes: u64,
    meter: Arc<AtomicU64>,
    started: sync::Instant,
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

    /// Waits for the end.
    fn look_on(&self) {
        loop {
            match self.schedule.wait(PROGRESS_EVERY) {
                Left::Tasks => self.say_progress(),
                // The run was stopped, and nobody will use what is still being listed.
                Left::Listings => return self.rounds.world.context.stop.cancel(),
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
        while self.rounds.world.dry_run && !tasks.is_empty() && !self.schedule.is_halted() {
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
            match self.turn(index, waiting) {
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
            self.rounds.events.listing_failed(lane.rule, 1, &error);
            Vec::new()
        })
    }

    /// Lists until it succeeds or the rule's attempts are spent; the items in their order.
    fn plan(&self, index: usize) -> Vec<Waiting> {
        let lane = &self.lanes[index];
        let events = self.rounds.events;
        lane.progress()
            .started
            .get_or_insert_with(sync::Instant::now);
        let mut attempt = 1;
        let unlisted = || {
            let reason = "the run was halted before it was listed";
            events.skipped(lane.rule, Level::Info, None, reason);
        };
        if self.schedule.is_halted() {
            unlisted();
            return Vec::new();
        }
        loop {
            let error = match self.rounds.select(lane) {
                Ok(round) => return self.rounds.accept(lane, round),
                Err(error) => error,
            };
            if error.kind() == Kind::Stopped {
                // Nothing of it was in flight, so nothing failed.
                unlisted();
                return Vec::new();
            }
            if attempt <= lane.rule.retries && error.kind().is_retryable() {
                events.retrying(lane.rule, None, attempt, &error);
                self.schedule.pause(lane.rule.wait);
                if !self.schedule.is_halted() {
                    attempt += 1;
                    continue;
                }
            }
            self.count_failure(lane);
            events.listing_failed(lane.rule, attempt, &error);
            return Vec::new();
        }
    }

    /// An item's turn: an attempt; the task and a wait where it is to be repeated.
    fn turn(&self, index: usize, waiting: Waiting) -> Option<(Box<Task>, Duration)> {
        let lane = &self.lanes[index];
        match self.rounds.begin(lane, waiting) {
            Ok(task) => self.attempt(index, task),
            Err((entry, error)) => {
                self.fail(lane, &entry.name, None, 1, &error);
                None
            }
        }
    }

    /// Makes an attempt and says how it ended; the task and a wait where it is to be repeated.
    fn attempt(&self, index: usize, mut task: Box<Task>) -> Option<(Box<Task>, Duration)> {
        let started = sync::Instant::now();
        let lane = &self.lanes[index];
        let stopping = || self.rounds.world.context.stop.requested().is_some();
        if let Some(error) = task.last_error.take_if(|_| stopping()) {
            task.attempt -= 1;
            self.end_item(index, &task, End::Failed(error), started);
            return None;
        }
        self.in_flight().push(Flight {
            lane: index,
            name: task.entry.name.clone(),
            size_bytes: task.entry.size_bytes,
            meter: Arc::clone(&task.meter),
            started,
        });
        let attempt = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            transfer::attempt(&self.rounds.ends(lane), &mut task)
        }));
        self.in_flight()
            .retain(|flight| !Arc::ptr_eq(&flight.meter, &task.meter));
        let end = match attempt {
            Ok(Attempt::End(end)) => end,
            Ok(Attempt::Failed(error)) if task.attempt <= lane.rule.retries && !stopping() => {
                let name = Some(&task.entry.name);
                let events = self.rounds.events;
                events.retrying(lane.rule, name, task.attempt, &error);
                task.attempt += 1;
                task.last_error = Some(error);
                return Some((task, lane.rule.wait));
            }
            Ok(Attempt::Failed(error)) => End::Failed(error),
            Err(_) => End::Failed(Error::new(Kind::Other, PANIC_NOTE)),
        };
        self.end_item(index, &task, end, started);
        None
    }

    fn in_flight(&self) -> MutexGuard<'_, Vec<Flight>> {
        let in_flight = self.in_flight.lock();
        in_flight.unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells how far the items are that have been in flight for long.
    fn say_progress(&self) {
        for flight in self.in_flight().iter() {
            if flight.started.elapsed() < PROGRESS_EVERY {
                continue;
            }
            let rule = self.lanes[flight.lane].rule;
            let of = flight.size_bytes;
            // Every byte is counted when it is staged and again when it is published.
            let bytes = (flight.meter.load(Ordering::Relaxed) / 2).min(of);
            self.rounds.events.progress(rule, &flight.name, bytes, of);
        }
    }

    /// Says how an item ended, and counts it.
    fn end_item(&self, index: usize, task: &Task, end: End, started: sync::Instant) {
        let (lane, events) = (&self.lanes[index], self.rounds.events);
        let name = &task.entry.name;
        match end {
            End::Moved { dest, note } => {
                events.delivered("moved", lane.rule, task, &dest, note.as_deref(), started);
                let mut progress = lane.progress();
                progress.tally.moved += 1;
                progress.tally.bytes += task.bytes;
            }
            End::Copied { dest, note } => {
                events.delivered("copied", lane.rule, task, &dest, note.as_deref(), started);
                let mut progress = lane.progress();
                progress.tally.copied += 1;
                progress.tally.bytes += task.bytes;
            }
            End::Skipped(why) => {
                let src = lane.rule.source.item(name);
                events.skipped(lane.rule, Level::Info, Some(&src), &why);
                lane.progress().tally.skipped += 1;
                Self::pass_over(lane);
            }
            End::RuleOver(why) => {
                self.schedule.halt_lane(index);
                Self::pass_over(lane);
                if !std::mem::replace(&mut lane.progress().over, true) {
                    events.skipped(lane.rule, Level::Warn, None, &why);
                }
            }
            End::Failed(error) => {
                return self.fail(lane, name, Some(&task.dest), task.attempt, &error);
            }
        }
        Self::note_seen(lane, name);
    }

    /// Counts an item that failed, and says so.
    fn fail(&self, lane: &Lane<'_>, name: &Name, dest: Option<&Name>, attempt: u32, error: &Error) {
        self.count_failure(lane);
        let events = self.rounds.events;
        events.failed(lane.rule, name, dest, attempt, error);
        Self::note_seen(lane, name);
    }

    /// Only a listing that left something is followed by another.
    fn note_seen(lane: &Lane<'_>, name: &Name) {
        let mut progress = lane.progress();
        if progress.more {
            progress.seen.insert(name.clone());
        }
    }

    fn pass_over(lane: &Lane<'_>) {
        let mut progress = lane.progress();
        progress.taken -= 1;
        progress.passed_over += 1;
    }

    /// Before it is told: once the log has a failure, nothing new starts.
    fn count_failure(&self, lane: &Lane<'_>) {
        lane.progress().tally.failed += 1;
        // A rehearsal tells of all that would fail.
        if self.config.exit_on_first_failure && !self.rounds.world.dry_run {
            self.schedule.halt();
        }
    }

    /// Whether skipped items left room below `max_items` and there is more to take.
    fn wants_another_round(&self, index: usize) -> bool {
        let progress = self.lanes[index].progress();
        progress.passed_over > 0 && progress.more && !progress.over && !self.schedule.is_halted()
    }

    /// Says what would happen to each item, and does nothing; gives those that a stop left.
    fn rehearse(&self, index: usize, items: Vec<Waiting>) -> Vec<Waiting> {
        let lane = &self.lanes[index];
        let ends = self.rounds.ends(lane);
        let mut items = items.into_iter();
        while let Some(waiting) = items.next() {
            let task = match self.rounds.begin(lane, waiting) {
                Ok(task) => task,
                Err((entry, error)) => {
                    self.fail(lane, &entry.name, None, 1, &error);
                    continue;
                }
            };
            let outcome = transfer::rehearse(&ends, &task);
            if self.schedule.is_halted() {
                return std::iter::once(Waiting::Begun(task)).chain(items).collect();
            }
            match outcome {
                Ok(dest) => {
                    self.rounds.events.would_deliver(lane.rule, &task, &dest);
                    Self::note_seen(lane, &task.entry.name);
                }
                Err(end) => self.end_item(index, &task, end, sync::Instant::now()),
            }
        }
        Vec::new()
    }

    /// Says what the rule did; once.
    fn end_rule(&self, index: usize) {
        let lane = &self.lanes[index];
        self.schedule.close(index);
        let (tally, started) = {
            let mut progress = lane.progress();
            if std::mem::replace(&mut progress.said, Said::Done) == Said::Done {
                return;
            }
            progress.tally.not_started = self.schedule.dropped(index) as u64;
            (progress.tally, progress.started)
        };
        if let Some(started) = started {
            self.rounds.events.rule_done(lane.rule, &tally, started);
        }
    }
}
