//! The shell of a run: for each rule list and plan, then move on scoped threads, and say so.
//!
//! One lister thread for each rule (up to [`LISTERS_MAX`]) makes the plan of its rule and submits
//! it; workers, started as there is work for them, take items from the [`Schedule`]. Whoever
//! finishes a rule's last item owns the rule again and ends it, or lists once more where skipped
//! items left room below `max_items`.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{Builder, Scope};
use std::time;

use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::logger::{Level, Line, Logger};
use crate::object::{Entry, Name, Place};
use crate::plan::{self, Claims, Selected, Selection};
use crate::rule::{Config, IfExists, Instant, Mode, Rule};
use crate::schedule::Schedule;
use crate::store::{Listed, Scope as ListScope, Store};
use crate::summary::{Tally, exit_code};
use crate::transfer::{self, Attempt, End, Ends, Task};

/// How many rules are listed at once at the most.
const LISTERS_MAX: usize = 64;

/// How often an item that takes longer than this tells how far it is.
const PROGRESS_EVERY: time::Duration = time::Duration::from_secs(10);

/// What is said of an item or a listing that made the program panic.
const PANIC_NOTE: &str = "a fault of the program, told on standard error";

/// How many files that are too young a run names; the rest is counted.
const SKIPS_NAMED_MAX: usize = 100;

/// Stack of a lister or worker. Nothing here recurses with the data.
const STACK_BYTES: usize = 256 << 10;

/// Where the stores of a run come from; a test brings its own.
pub trait Stores: Sync {
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
    let started = time::Instant::now();
    world
        .log
        .event(Level::Info, "run_start")
        .text("version", env!("CARGO_PKG_VERSION"))
        .number("rules", config.rules.len())
        .number("concurrency", config.concurrency)
        .flag("dry_run", world.dry_run)
        .emit();
    for warning in &config.warnings {
        world
            .log
            .event(Level::Warn, "warning")
            .text("reason", warning)
            .emit();
    }
    let limits = config
        .rules
        .iter()
        .map(|rule| rule.concurrency.unwrap_or(config.concurrency));
    let run = Run {
        config,
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
    std::thread::scope(|scope| {
        run.start_listers(scope);
        while !run.schedule.is_over_within(PROGRESS_EVERY) {
            run.say_progress();
        }
    });
    let mut total = Tally::default();
    for (index, lane) in run.lanes.iter().enumerate() {
        // A halt leaves lanes that nobody owns.
        run.end_rule(index);
        total.add(&lock(&lane.tally));
    }
    let signal = world.context.stop.requested();
    let code = exit_code(&total, signal);
    let level = if code == 0 { Level::Info } else { Level::Error };
    let line = world.log.event(level, "run_done");
    let line = tally_fields(line, &total, started).number("exit", code);
    match signal {
        Some(signal) => line.number("signal", signal).emit(),
        None => line.emit(),
    }
    (total, code)
}

struct Run<'a> {
    config: &'a Config,
    stores: &'a dyn Stores,
    world: &'a World<'a>,
    claims: Claims,
    schedule: Arc<Schedule<Task>>,
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
    started: time::Instant,
}

/// One rule in the run.
struct Lane<'a> {
    rule: &'a Rule,
    ends: OnceLock<(Box<dyn Store>, Box<dyn Store>)>,
    tally: Mutex<Tally>,
    /// Items of this run, once it takes a second look: none is taken twice.
    seen: Mutex<HashSet<Name>>,
    progress: Mutex<Rounds>,
}

#[derive(Default)]
struct Rounds {
    started: Option<time::Instant>,
    /// Items that count towards `max_items`.
    taken: usize,
    /// Items of this round that do not.
    passed_over: usize,
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
            ends: OnceLock::new(),
            tally: Mutex::default(),
            seen: Mutex::default(),
            progress: Mutex::default(),
        }
    }

    /// Whether items may be passed over in a way that lists once more.
    fn wants_rounds(&self) -> bool {
        self.rule.if_exists == IfExists::Skip || matches!(self.rule.source, Place::File { .. })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Run<'_> {
    fn start_listers<'scope, 'env: 'scope>(&'env self, scope: &'scope Scope<'scope, 'env>) {
        for _ in 1..self.lanes.len().min(LISTERS_MAX) {
            let builder = Builder::new().stack_size(STACK_BYTES);
            // Fewer threads list more slowly, which is all.
            let _ = builder.spawn_scoped(scope, move || self.list_rules(scope));
        }
        self.list_rules(scope);
    }

    fn list_rules<'scope, 'env: 'scope>(&'env self, scope: &'scope Scope<'scope, 'env>) {
        loop {
            let index = self.next_to_list.fetch_add(1, Ordering::Relaxed);
            if index >= self.lanes.len() {
                return;
            }
            self.round(index, scope);
        }
    }

    /// Lists a rule and submits what it takes, until there is nothing more to do for it here.
    fn round<'scope, 'env: 'scope>(&'env self, index: usize, scope: &'scope Scope<'scope, 'env>) {
        let mut tasks = self.plan_or_fail(index);
        while self.world.dry_run && !tasks.is_empty() {
            self.rehearse(index, std::mem::take(&mut tasks));
            if self.wants_another_round(index) {
                tasks = self.plan_or_fail(index);
            }
        }
        let (workers, empty) = self.schedule.submit(index, tasks);
        for _ in 0..workers {
            let builder = Builder::new().stack_size(STACK_BYTES);
            let spawned = builder.spawn_scoped(scope, move || self.work(scope));
            if spawned.is_err() && self.schedule.worker_failed() {
                self.work(scope);
            }
        }
        if empty {
            self.end_rule(index);
        }
    }

    fn work<'scope, 'env: 'scope>(&'env self, scope: &'scope Scope<'scope, 'env>) {
        while let Some((index, task)) = self.schedule.next() {
            match self.attempt(index, task) {
                Some((task, wait)) => self.schedule.again(index, task, wait),
                None if !self.schedule.finish(index) => {}
                None if self.wants_another_round(index) => self.round(index, scope),
                None => self.end_rule(index),
            }
        }
    }

    /// [`plan`](Self::plan), with a fault of the program as a failure of the rule: whoever waits
    /// for this rule must not wait for ever.
    fn plan_or_fail(&self, index: usize) -> Vec<Task> {
        let plan = std::panic::AssertUnwindSafe(|| self.plan(index));
        std::panic::catch_unwind(plan).unwrap_or_else(|_| {
            let lane = &self.lanes[index];
            let line = self
                .log()
                .event(Level::Error, "failed")
                .text("rule", &lane.rule.name);
            line.text("error", PANIC_NOTE).emit();
            self.count_failure(lane);
            Vec::new()
        })
    }

    /// Lists until it succeeds or the rule's attempts are spent; the tasks in their order.
    fn plan(&self, index: usize) -> Vec<Task> {
        let lane = &self.lanes[index];
        lock(&lane.progress)
            .started
            .get_or_insert_with(time::Instant::now);
        let mut attempt = 1;
        if self.schedule.is_halted() {
            return Vec::new();
        }
        loop {
            let error = match self.select(lane) {
                Ok(round) => return self.accept(lane, round),
                Err(error) => error,
            };
            if error.kind() == Kind::Stopped {
                // Nothing of it was in flight, so nothing failed.
                let line = self.skip_line(lane, Level::Info);
                line.text("reason", "stopped before it was listed").emit();
                return Vec::new();
            }
            let name = &lane.rule.name;
            if attempt <= lane.rule.retries && error.kind().is_retryable() {
                let line = self.log().event(Level::Warn, "retry").text("rule", name);
                retry_fields(line, attempt, lane.rule, &error).emit();
                self.schedule.pause(lane.rule.wait);
                if !self.schedule.is_halted() {
                    attempt += 1;
                    continue;
                }
            }
            let line = self.log().event(Level::Error, "failed").text("rule", name);
            line.number("attempt", attempt)
                .text("error", &error.chain())
                .emit();
            self.count_failure(lane);
            return Vec::new();
        }
    }

    /// One listing: what the rule takes, and what it leaves alone for now.
    fn select(&self, lane: &Lane<'_>) -> Result<Round> {
        let rule = lane.rule;
        let (source, dest) = self.open(lane)?;
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
        let wanted = |name: &Name| rule.matcher.matches(name) && !seen.contains(name);
        let scope = ListScope {
            recursive: rule.recursive,
            wanted: &wanted,
        };
        let mut fault = None;
        let listed = source.list(&scope, &mut |entry| {
            let age_ns = now.as_nanosecond() - entry.modified.as_nanosecond();
            if let Some(note) = transfer::young_note(age_ns, rule) {
                round.skip(&entry, note);
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
        round.selected = Some(selection.finish(listed));
        Ok(round)
    }

    /// Whether a rule that copies and skips has the item at its destination already. Asked while
    /// listing, so that copying in portions of `max_items` progresses.
    fn delivered_before(&self, lane: &Lane<'_>, entry: &Entry) -> Result<bool> {
        if lane.rule.mode != Mode::Copy || lane.rule.if_exists != IfExists::Skip {
            return Ok(false);
        }
        match plan::destination(lane.rule, entry, self.world.instant) {
            Ok(name) => Ok(self.ends(lane).dest.look(&name)?.is_some()),
            Err(_) => Ok(false),
        }
    }

    /// Says what a listing found and makes tasks of it.
    fn accept(&self, lane: &Lane<'_>, round: Round) -> Vec<Task> {
        let rule = lane.rule;
        let selected = round.selected.unwrap_or_default();
        let first = {
            let mut progress = lock(&lane.progress);
            progress.more = selected.more;
            progress.taken += selected.entries.len();
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
            self.say_started(lane, &selected, age);
        }
        self.say_skipped(lane, &round.skipped, round.skipped_more, round.delivered);
        if round.no_directory {
            let line = self
                .skip_line(lane, Level::Warn)
                .text("src", &rule.source.to_string());
            line.text(
                "reason",
                "the source directory does not exist: nothing to do",
            )
            .emit();
        }
        if let Some(why) = round.rule_over {
            self.skip_line(lane, Level::Warn)
                .text("reason", &why)
                .emit();
        }
        selected
            .entries
            .into_iter()
            .map(|entry| self.task(rule, entry))
            .collect()
    }

    fn say_started(&self, lane: &Lane<'_>, selected: &Selected, age_seconds: Option<i64>) {
        let rule = lane.rule;
        let mode = if rule.mode == Mode::Move {
            "move"
        } else {
            "copy"
        };
        let line = self
            .log()
            .event(Level::Info, "rule_start")
            .text("rule", &rule.name)
            .number("selected", selected.entries.len())
            .flag("more", selected.more);
        let line = match age_seconds {
            Some(age) => line.number("oldest_age_seconds", age),
            None => line,
        };
        line.text("mode", mode)
            .text("src", &rule.source.to_string())
            .text("dest", &rule.dest.to_string())
            .emit();
    }

    fn say_skipped(&self, lane: &Lane<'_>, notes: &[(Name, String)], more: u64, delivered: u64) {
        for (name, note) in notes {
            let src = lane.rule.source.item(name);
            self.skip_line(lane, Level::Info)
                .text("src", &src)
                .text("reason", note)
                .emit();
        }
        if more > 0 {
            let reason = format!("{more} more items are too young");
            self.skip_line(lane, Level::Info)
                .text("reason", &reason)
                .emit();
        }
        if delivered > 0 {
            let reason = format!("{delivered} items are at the destination already");
            self.skip_line(lane, Level::Info)
                .text("reason", &reason)
                .emit();
        }
        lock(&lane.tally).skipped += notes.len() as u64 + more + delivered;
    }

    /// Names the destination and claims it; what is refused here fails when its turn comes.
    fn task(&self, rule: &Rule, entry: Entry) -> Task {
        let dest = plan::destination(rule, &entry, self.world.instant).and_then(|name| {
            let source = rule.source.item(&entry.name);
            match self.claims.claim(&rule.dest, &name, &source) {
                Err(first) if rule.if_exists != IfExists::KeepBoth => {
                    let what = format!("bring to {}", rule.dest.item(&name));
                    let why = format!("{first} already goes there in this run");
                    Err(Error::new(Kind::Invalid, what).because(why))
                }
                _ => Ok(name),
            }
        });
        Task::new(entry, dest)
    }

    /// Makes an attempt and says how it ended; the task and a wait where it is to be repeated.
    fn attempt(&self, index: usize, mut task: Task) -> Option<(Task, time::Duration)> {
        let started = time::Instant::now();
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
                let src = lane.rule.source.item(&task.entry.name);
                let line = self
                    .log()
                    .event(Level::Warn, "retry")
                    .text("rule", &lane.rule.name);
                retry_fields(line.text("src", &src), task.attempt, lane.rule, &error).emit();
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

    /// Tells how far the items are that have been in flight for long.
    fn say_progress(&self) {
        for flight in lock(&self.in_flight).iter() {
            if flight.started.elapsed() < PROGRESS_EVERY {
                continue;
            }
            let rule = self.lanes[flight.lane].rule;
            let of = flight.size_bytes;
            // Every byte is counted when it is staged and again when it is published.
            let bytes = (flight.meter.load(Ordering::Relaxed) / 2).min(of);
            self.log()
                .event(Level::Info, "progress")
                .text("rule", &rule.name)
                .text("src", &rule.source.item(&flight.name))
                .number("bytes", bytes)
                .number("of", of)
                .number("percent", u128::from(bytes) * 100 / u128::from(of.max(1)))
                .emit();
        }
    }

    /// Counts an item that ended, and says so.
    fn settle(&self, index: usize, task: &Task, end: End, started: time::Instant) {
        let lane = &self.lanes[index];
        let src = lane.rule.source.item(&task.entry.name);
        let delivered = |event, dest: &Name, note: Option<&str>| {
            let level = if note.is_some() {
                Level::Warn
            } else {
                Level::Info
            };
            self.log()
                .event(level, event)
                .text("rule", &lane.rule.name)
                .text("src", &src)
                .text("dest", &lane.rule.dest.item(dest))
                .number("bytes", task.bytes)
                .number("ms", started.elapsed().as_millis())
                .number("attempt", task.attempt)
                .maybe("note", note)
                .emit();
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
                let line = self.skip_line(lane, Level::Info).text("src", &src);
                line.text("reason", &why).emit();
                lock(&lane.tally).skipped += 1;
                Self::pass_over(lane);
            }
            End::RuleOver(why) => {
                self.schedule.halt_lane(index);
                Self::pass_over(lane);
                if !std::mem::replace(&mut lock(&lane.progress).over, true) {
                    self.skip_line(lane, Level::Warn)
                        .text("reason", &why)
                        .emit();
                }
            }
            End::Failed(error) => {
                let line = self
                    .log()
                    .event(Level::Error, "failed")
                    .text("rule", &lane.rule.name);
                let dest = task
                    .dest
                    .as_ref()
                    .ok()
                    .map(|name| lane.rule.dest.item(name));
                line.text("src", &src)
                    .maybe("dest", dest.as_deref())
                    .number("attempt", task.attempt)
                    .text("error", &error.chain())
                    .emit();
                self.count_failure(lane);
            }
        }
        if lane.wants_rounds() {
            lock(&lane.seen).insert(task.entry.name.clone());
        }
    }

    fn pass_over(lane: &Lane<'_>) {
        let mut progress = lock(&lane.progress);
        progress.taken -= 1;
        progress.passed_over += 1;
    }

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

    /// Says what would happen to each task, and does nothing.
    fn rehearse(&self, index: usize, tasks: Vec<Task>) {
        let lane = &self.lanes[index];
        let ends = self.ends(lane);
        for mut task in tasks {
            let dest = match transfer::rehearse(&ends, &mut task) {
                Ok(dest) => dest,
                Err(end) => {
                    self.settle(index, &task, end, time::Instant::now());
                    continue;
                }
            };
            let event = match lane.rule.mode {
                Mode::Move => "would_move",
                Mode::Copy => "would_copy",
            };
            self.log()
                .event(Level::Info, event)
                .text("rule", &lane.rule.name)
                .text("src", &lane.rule.source.item(&task.entry.name))
                .text("dest", &lane.rule.dest.item(&dest))
                .number("bytes", task.entry.size_bytes)
                .emit();
            if lane.wants_rounds() {
                lock(&lane.seen).insert(task.entry.name);
            }
        }
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
        // A rule that was never listed, because the run was halted before, has nothing to say.
        let Some(started) = started else { return };
        let level = if tally.failed == 0 {
            Level::Info
        } else {
            Level::Error
        };
        let line = self
            .log()
            .event(level, "rule_done")
            .text("rule", &lane.rule.name);
        tally_fields(line, &tally, started).emit();
    }

    fn open<'l>(&self, lane: &'l Lane<'_>) -> Result<(&'l dyn Store, &'l dyn Store)> {
        if lane.ends.get().is_none() {
            let rule = lane.rule;
            let excluded = plan::dest_inside_source(rule).then_some(&rule.dest);
            let source = self.stores.open(&rule.source, excluded)?;
            let dest = self.stores.open(&rule.dest, None)?;
            // Only one thread at a time owns a lane that is being listed.
            let _ = lane.ends.set((source, dest));
        }
        let (source, dest) = lane.ends.get().expect("set above");
        Ok((source.as_ref(), dest.as_ref()))
    }

    fn ends<'l>(&'l self, lane: &'l Lane<'_>) -> Ends<'l> {
        let (source, dest) = lane
            .ends
            .get()
            .expect("a lane has tasks only once it was listed");
        Ends {
            rule: lane.rule,
            source: source.as_ref(),
            dest: dest.as_ref(),
            claims: &self.claims,
            context: self.world.context,
        }
    }

    fn skip_line(&self, lane: &Lane<'_>, level: Level) -> Line<'_> {
        self.log()
            .event(level, "skipped")
            .text("rule", &lane.rule.name)
    }

    fn log(&self) -> &Logger {
        self.world.log
    }
}

/// What one listing found.
#[derive(Default)]
struct Round {
    selected: Option<Selected>,
    skipped: Vec<(Name, String)>,
    skipped_more: u64,
    delivered: u64,
    no_directory: bool,
    rule_over: Option<String>,
}

impl Round {
    /// Notes an entry that is left alone; the first few by name.
    fn skip(&mut self, entry: &Entry, note: String) {
        if self.skipped.len() < SKIPS_NAMED_MAX {
            self.skipped.push((entry.name.clone(), note));
        } else {
            self.skipped_more += 1;
        }
    }
}

fn retry_fields<'l>(line: Line<'l>, attempt: u32, rule: &Rule, error: &Error) -> Line<'l> {
    line.number("attempt", attempt)
        .number("wait_seconds", rule.wait.as_secs())
        .text("error", &error.chain())
}

fn tally_fields<'l>(line: Line<'l>, tally: &Tally, started: time::Instant) -> Line<'l> {
    let line = line
        .number("moved", tally.moved)
        .number("copied", tally.copied)
        .number("skipped", tally.skipped)
        .number("failed", tally.failed)
        .number("bytes", tally.bytes)
        .number("ms", started.elapsed().as_millis());
    if tally.left > 0 {
        line.number("not_started", tally.left)
    } else {
        line
    }
}
