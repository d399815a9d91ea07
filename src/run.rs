//! The shell of a run: threads, and attempts at items, with what is counted and said of each.
//!
//! One lister thread for each rule (up to [`LISTERS_MAX`]) makes the first [`Round`] of its rule
//! and submits it; workers, started as there is work for them, take items from the [`Schedule`].
//! The worker that finishes a rule's last item owns the rule again: it ends the rule, or lists it
//! once more where items that do not count left room below `max_items`. The main thread waits and
//! logs progress. A panic in any thread becomes a failure, and no other thread waits for it.
//! Where the system gives fewer threads, listers become workers; where it gives none, so does the
//! main one.
//!
//! [`Round`]: crate::round::Round

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::{Error, Kind};
use crate::lane::{Lane, Said};
use crate::logger::Level;
use crate::object::Name;
use crate::plan::Claims;
use crate::poison::unpoisoned;
use crate::report::Events;
use crate::round::{Rounds, Waiting};
use crate::rule::Config;
use crate::schedule::{Left, Schedule};
use crate::status::{self, UnderWay};
use crate::summary::{Ended, Tally, exit_code};
use crate::sync::{self, AtomicUsize, Builder, Mutex, Scope};
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

/// Runs all rules once.
pub fn run(config: &Config, stores: &dyn Stores, world: &World<'_>) -> Ended {
    let started = sync::Instant::now();
    let events = Events(world.log);
    let mut total = Tally::default();
    total.failed += fault_of(|| events.run_started(config, world.dry_run));
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
            shard: config.shard,
            claims: Claims::default(),
        },
        schedule: Arc::new(Schedule::new(config.concurrency, limits)),
        lanes: config.rules.iter().map(Lane::new).collect(),
        next_to_list: AtomicUsize::new(0),
        in_flight: Mutex::default(),
    };
    let schedule = Arc::clone(&run.schedule);
    world.context.stop.on_request(move || schedule.hurry());
    total.failed += sync::scope(|scope| {
        run.start_listers(scope);
        run.look_on()
    });
    for (index, lane) in run.lanes.iter().enumerate() {
        // After a halt some lanes have no owner that would end them.
        run.end_rule(index);
        total.add(&lane.progress().tally);
    }
    let signal = world.context.stop.requested();
    let code = exit_code(&total, signal);
    total.failed += fault_of(|| events.run_done(&total, started, code, signal));
    Ended {
        rules: run.lanes.iter().map(Lane::figures).collect(),
        total,
        code: exit_code(&total, signal),
    }
}

/// Does `what`; the panics that it ended with: none, or one.
fn fault_of(what: impl FnOnce()) -> u64 {
    u64::from(catch(what).is_none())
}

/// Calls `what`; `None` when it panics, so that the threads that wait for its end go on. The panic
/// itself is printed on standard error.
fn catch<T>(what: impl FnOnce() -> T) -> Option<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(what)).ok()
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
    dest: Name,
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

/// While it lives, an item is in flight.
struct Landing<'a> {
    in_flight: &'a Mutex<Vec<Flight>>,
    meter: Arc<AtomicU64>,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        unpoisoned(self.in_flight.lock()).retain(|flight| !Arc::ptr_eq(&flight.meter, &self.meter));
    }
}

/// What an item or a listing failed with that made the program panic.
fn panicked() -> Error {
    Error::new(Kind::Other, PANIC_NOTE)
}

impl Run<'_> {
    fn start_listers<'scope, 'env: 'scope>(&'env self, scope: &'scope Scope<'scope, 'env>) {
        let start = |_: &usize| {
            let builder = Builder::new().stack_size(STACK_BYTES);
            let lister = builder.spawn_scoped(scope, move || self.list_rules(scope));
            lister.is_ok()
        };
        // With fewer threads listing takes longer, nothing else changes.
        let started = (0..self.lanes.len().min(LISTERS_MAX)).filter(start).count();
        if started == 0 {
            self.list_rules(scope);
        }
    }

    /// Waits for the end, and says how far it is; gives the faults that were met.
    fn look_on(&self) -> u64 {
        let stop = &self.rounds.world.context.stop;
        // A second signal ends the process once the status is gone.
        let status = self.rounds.world.log.status();
        let mut status = status.map(|status| (status, stop.hold()));
        let (mut told, mut patience) = (sync::Instant::now(), PROGRESS_EVERY);
        let mut faults = 0;
        loop {
            let redraw = status.as_ref().map(|_| status::EVERY);
            match self.schedule.wait(redraw.unwrap_or(patience)) {
                Left::Tasks => {
                    let now = sync::Instant::now();
                    if now.saturating_duration_since(told) >= patience {
                        patience = PROGRESS_EVERY;
                        faults += fault_of(|| patience = self.say_progress(told, now));
                        told = now;
                    }
                    status.take_if(|_| stop.is_ending());
                    if let Some((status, _)) = &status {
                        status.draw(self.under_way());
                    }
                }
                // The run was stopped, so what is still being listed will not be used.
                Left::Listings => stop.cancel(),
                Left::Nothing => {}
            }
            if self.schedule.wait(Duration::ZERO) != Left::Tasks {
                return faults;
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
        self.work_if_nobody_does(scope);
    }

    /// Makes this thread a worker where no worker could be started.
    fn work_if_nobody_does<'scope, 'env: 'scope>(&'env self, scope: &'scope Scope<'scope, 'env>) {
        if self.schedule.enlist() {
            self.work(scope);
        }
    }

    /// Submits what a rule takes, until there is nothing more to do for it here.
    fn round<'scope, 'env: 'scope>(&'env self, index: usize, scope: &'scope Scope<'scope, 'env>) {
        let items = catch(|| self.items(index)).unwrap_or_else(|| {
            let lane = &self.lanes[index];
            self.count_failure(lane);
            let events = self.rounds.events;
            catch(|| events.listing_failed(lane.rule, 1, &panicked()));
            Vec::new()
        });
        let (workers, empty) = self.schedule.submit(index, items);
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

    /// The items of a round; in a dry run, once all was said of them, those that a stop left.
    fn items(&self, index: usize) -> Vec<Waiting> {
        let mut items = self.plan(index);
        while self.rounds.world.dry_run && !items.is_empty() && !self.schedule.is_halted() {
            items = self.rehearse(index, items);
            if self.wants_another_round(index) {
                items = self.plan(index);
            }
        }
        items
    }

    fn work<'scope, 'env: 'scope>(&'env self, scope: &'scope Scope<'scope, 'env>) {
        while let Some((index, waiting)) = self.schedule.next() {
            let (name, attempt) = waiting.identity();
            let again = catch(|| self.turn(index, waiting)).unwrap_or_else(|| {
                let lane = &self.lanes[index];
                catch(|| self.fail(lane, &name, None, attempt, &panicked()));
                None
            });
            if let Some((task, wait)) = again {
                self.schedule.again(index, Waiting::Begun(task), wait);
                continue;
            }
            self.lanes[index].progress().ended += 1;
            if self.schedule.finish(index) {
                self.go_on(index, scope);
            }
        }
    }

    /// Ends a rule that has no item left, or takes more for it.
    fn go_on<'scope, 'env: 'scope>(&'env self, index: usize, scope: &'scope Scope<'scope, 'env>) {
        if !self.wants_another_round(index) {
            return self.end_rule(index);
        }
        // Other rules may need this worker while the rule is listed.
        let is_listed = !self.lanes[index].progress().reserve.is_empty();
        let builder = Builder::new().stack_size(STACK_BYTES);
        let list = move || {
            self.round(index, scope);
            self.work_if_nobody_does(scope);
        };
        if is_listed || builder.spawn_scoped(scope, list).is_err() {
            self.round(index, scope);
        }
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
        if let Some(items) = self.rounds.reserved(lane) {
            return items;
        }
        loop {
            lane.progress().listing = Some(sync::Instant::now());
            let selected = self.rounds.select(lane);
            lane.progress().listing = None;
            let error = match selected {
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
        unpoisoned(self.in_flight.lock()).push(Flight {
            lane: index,
            name: task.entry.name.clone(),
            dest: task.dest.clone(),
            size_bytes: task.entry.size_bytes,
            meter: Arc::clone(&task.meter),
            started,
        });
        let landing = Landing {
            in_flight: &self.in_flight,
            meter: Arc::clone(&task.meter),
        };
        let attempt = transfer::attempt(&self.rounds.ends(lane), &mut task);
        drop(landing);
        let end = match attempt {
            Attempt::End(end) => end,
            Attempt::Failed(error) if task.attempt <= lane.rule.retries && !stopping() => {
                let name = Some(&task.entry.name);
                let events = self.rounds.events;
                events.retrying(lane.rule, name, task.attempt, &error);
                task.attempt += 1;
                task.last_error = Some(error);
                return Some((task, lane.rule.wait));
            }
            Attempt::Failed(error) => End::Failed(error),
        };
        self.end_item(index, &task, end, started);
        None
    }

    /// Tells how far the items are that have been in flight for long, and which rules are being
    /// listed for long: each once in `PROGRESS_EVERY`. `told`: when this was called last. Gives how
    /// long it is until the next has to tell.
    fn say_progress(&self, told: sync::Instant, now: sync::Instant) -> Duration {
        let every_s = PROGRESS_EVERY.as_secs();
        let mut next = PROGRESS_EVERY;
        let mut is_due = |started: sync::Instant| {
            let took = now.saturating_duration_since(started);
            let before = told.saturating_duration_since(started);
            let since = Duration::new(took.as_secs() % every_s, took.subsec_nanos());
            next = next.min(PROGRESS_EVERY.saturating_sub(since));
            took.as_secs() / every_s > before.as_secs() / every_s
        };
        let events = self.rounds.events;
        for lane in &self.lanes {
            let since = lane.progress().listing;
            if let Some(since) = since
                && is_due(since)
            {
                events.listing_progress(lane.rule, since.elapsed().as_secs());
            }
        }
        for flight in unpoisoned(self.in_flight.lock()).iter() {
            if is_due(flight.started) {
                let (rule, names) = (self.lanes[flight.lane].rule, (&flight.name, &flight.dest));
                events.progress(rule, names, flight.bytes(), flight.size_bytes);
            }
        }
        // Those that began almost together tell together.
        next.max(Duration::from_millis(100))
    }

    /// What a person at a terminal is told.
    fn under_way(&self) -> UnderWay {
        let mut all = UnderWay {
            stopping: self.rounds.world.context.stop.requested().is_some(),
            ..UnderWay::default()
        };
        for lane in &self.lanes {
            let progress = lane.progress();
            all.done += progress.ended;
            all.selected += progress.selected;
            all.bytes += progress.tally.bytes;
            if progress.started.is_some() && progress.said != Said::Done {
                all.rules.push(lane.rule.name.clone());
            }
        }
        all.bytes += unpoisoned(self.in_flight.lock())
            .iter()
            .map(Flight::bytes)
            .sum::<u64>();
        all
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
                let mut progress = lane.progress();
                progress.tally.skipped += 1;
                progress.make_room();
            }
            End::RuleOver(why) => {
                self.schedule.halt_lane(index);
                let said = std::mem::replace(&mut lane.progress().over, true);
                if !said {
                    events.skipped(lane.rule, Level::Warn, None, &why);
                }
            }
            End::Failed(error) => {
                self.fail(lane, name, Some(&task.dest), task.attempt, &error);
            }
        }
    }

    /// Counts an item that failed, and says so.
    fn fail(&self, lane: &Lane<'_>, name: &Name, dest: Option<&Name>, attempt: u32, error: &Error) {
        self.count_failure(lane);
        let events = self.rounds.events;
        events.failed(lane.rule, name, dest, attempt, error);
        let mut progress = lane.progress();
        if progress.forgiven < lane.rule.max_items && !self.config.exit_on_first_failure {
            progress.forgiven += 1;
            progress.make_room();
        }
    }

    /// Before it is told: once the log has a failure, nothing new starts.
    fn count_failure(&self, lane: &Lane<'_>) {
        lane.progress().tally.failed += 1;
        // A rehearsal tells of all that would fail.
        if self.config.exit_on_first_failure && !self.rounds.world.dry_run {
            self.schedule.halt();
        }
    }

    /// Whether items that do not count left room below `max_items` and there is more to take.
    fn wants_another_round(&self, index: usize) -> bool {
        self.lanes[index].progress().wants_more() && !self.schedule.is_halted()
    }

    /// Says what would happen to each item, and does nothing; gives those that a stop left.
    fn rehearse(&self, index: usize, items: Vec<Waiting>) -> Vec<Waiting> {
        let lane = &self.lanes[index];
        let ends = self.rounds.ends(lane);
        let mut items = items.into_iter();
        while let Some(waiting) = items.next() {
            lane.progress().ended += 1;
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
                Ok(dest) => self.rounds.events.would_deliver(lane.rule, &task, &dest),
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
            let said = std::mem::replace(&mut progress.said, Said::Done);
            if said == Said::Done {
                return;
            }
            let left = self.schedule.dropped(index) as u64;
            progress.tally.not_started = left;
            progress.complete = said == Said::Started && (left == 0 || progress.over);
            if let Some(at) = progress.started {
                progress.took = at.elapsed();
            }
            (progress.tally, progress.started)
        };
        let say = |started| self.rounds.events.rule_done(lane.rule, &tally, started);
        let fault = started.map_or(0, |started| fault_of(|| say(started)));
        lane.progress().tally.failed += fault;
    }
}
