//! What one seed does: rules, items, some runs over them with all that can happen to them, and a
//! last run in peace, after which everything must be where it belongs.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use shuttle::thread::JoinHandle;

use crate::chance::Chance;
use crate::config;
use crate::context::Context;
use crate::facts::Facts;
use crate::logger::{Format, Level, Logger};
use crate::rule::{IfExists, LocalTime, Mode};
use crate::run::{self, World as RunWorld};
use crate::shelf::{Shelves, timestamp};
use crate::sync;
use crate::world::{Crash, Faults, World};

const NAMES: &[&str] = &["a", "b.edi", "c.edi", "d", "s/e.x12"];

/// The steps in which the more exciting crashes are.
const STEPS: usize = 120;

/// What an item may fail for where nothing goes wrong.
const IN_PEACE: &[&str] = &["the destination exists", "already goes there in this run"];

/// What a seed came to.
pub(crate) struct Outcome {
    pub(crate) broken: Vec<String>,
    /// What happened to how many, for the totals.
    pub(crate) runs: usize,
    pub(crate) crashes: usize,
    pub(crate) steps: u64,
    /// Follows from everything that was done and said.
    pub(crate) digest: u64,
}

/// Lives through a seed, within an execution of shuttle; `told` keeps its story.
pub(crate) fn live(seed: u64, told: bool) -> Outcome {
    sync::reset();
    let keeper = shuttle::thread::spawn(sync::keep_time);
    let mut chance = Chance::new(seed, 1);
    let config = loop {
        let rules = rules(&mut chance);
        match config::parse(&rules, "model", None) {
            Ok(config) => {
                if told {
                    println!("seed {seed}\n{rules}");
                }
                break config;
            }
            // A rule may have come to bring items to where it takes them from.
            Err(problems) => assert!(problems.to_string().contains("dest"), "{problems}\n{rules}"),
        }
    };
    let world = Arc::new(World::new(config, seed, told));
    furnish(&world, &mut chance);
    let asked = Arc::clone(&world);
    sync::when_all_wait(move || asked.lock().all_wait());
    let mut crashes = 0;
    for _ in 0..=chance.below(2) {
        crashes += usize::from(trouble(&world, &mut chance));
    }
    peace(&world);
    sync::stop_time();
    keeper.join().expect("the keeper of time does not panic");
    let mut state = world.lock();
    state.nothing_is_lost();
    Outcome {
        broken: std::mem::take(&mut state.broken),
        runs: state.runs.len(),
        crashes,
        steps: state.steps,
        digest: state.digest,
    }
}

/// One to three rules as a config.
fn rules(chance: &mut Chance) -> String {
    let (concurrency, halts) = (1 + chance.below(4), chance.hits(50));
    let mut text = format!(
        "config:\n  defaults: {{base_file_path: /base, default_bucket: edi, \
         concurrency: {concurrency}, exit_on_first_failure: {halts}}}\n"
    );
    for number in 0..=chance.below(3) {
        let from_s3 = chance.hits(40);
        let to_s3 = !from_s3 && chance.hits(60);
        let place = |s3: bool, path: String, more: &str| {
            let kind = if s3 { "s3" } else { "file" };
            format!("{{type: {kind}, path: {path}{more}}}")
        };
        let deep = if chance.hits(50) {
            ", recursive: true"
        } else {
            ""
        };
        // Some rules share a source or a destination, and some feed another.
        let source = if chance.hits(10) { 0 } else { number };
        let dest = match chance.below(10) {
            0 => "out/0".to_owned(),
            1 if number > 0 => "in/0".to_owned(),
            _ => format!("out/{number}"),
        };
        let src = place(from_s3, format!("in/{source}"), deep);
        let dest = place(to_s3, dest, "");
        write!(text, "  r{number}: {{src: {src}, dest: {dest}").expect("a string takes it");
        let mode = chance.of(&["move", "move", "move", "copy"]);
        let policy = chance.of(&["overwrite", "fail", "keep_both", "skip"]);
        let (retries, wait) = (chance.below(3), chance.of(&[0, 1, 10]));
        let max_items = chance.of(&[1, 2, 100, 100]);
        write!(
            text,
            ", mode: {mode}, if_exists: {policy}, retries: {retries}, wait_seconds: {wait}, \
             max_items: {max_items}"
        )
        .expect("a string takes it");
        if chance.hits(50) {
            write!(text, ", concurrency: {}", 1 + chance.below(3)).expect("a string takes it");
        }
        if !from_s3 && chance.hits(20) {
            text.push_str(", min_age_seconds: 5");
        }
        if !from_s3 && chance.hits(20) {
            text.push_str(", lock_file: bots.lock");
        }
        text.push_str("}\n");
    }
    text
}

/// What is there before the first run.
fn furnish(world: &World, chance: &mut Chance) {
    sync::pass_time(Duration::from_secs(1_000_000));
    let mut state = world.lock();
    let rules = state.config.rules.clone();
    for rule in &rules {
        let (from, to) = (rule.source.to_string(), rule.dest.to_string());
        for name in NAMES {
            if chance.hits(60) {
                let content = state.new_content();
                state.write(&from, name, content, false);
            }
            if chance.hits(15) {
                // An earlier attempt may have brought it already.
                let same = state.item(&from, name).map(|item| item.content);
                let content = match same.filter(|_| chance.hits(50)) {
                    Some(content) => content,
                    None => state.new_content(),
                };
                state.write(&to, name, content, false);
            }
        }
    }
    sync::pass_time(Duration::from_secs(chance.of(&[0, 3, 100])));
}

/// One or two runs at once, and all that can go wrong; whether it crashed while they were at it.
fn trouble(world: &Arc<World>, chance: &mut Chance) -> bool {
    let runs = 1 + usize::from(chance.hits(25));
    let planned = {
        let mut state = world.lock();
        state.faults = Faults {
            failures: chance.of(&[0, 10, 50, 200]),
            panics: chance.of(&[0, 0, 0, 20]),
            locks: chance.of(&[0, 0, 50]),
            delays: chance.of(&[0, 100, 500]),
        };
        let first = state.runs.len();
        let crash = match chance.below(8) {
            0 => Some(Crash::PowerCut),
            1 => Some(Crash::Kill(first + chance.below(runs))),
            _ => None,
        };
        let at = state.steps + chance.below(STEPS) as u64;
        state.crash = crash.map(|crash| (at, crash));
        crash.is_some()
    };
    if chance.hits(10) {
        sync::refuse_threads(chance.of(&[20, 50, 100]), chance.next());
    }
    let dry_run = chance.hits(5);
    let mut threads = Vec::new();
    for _ in 0..runs {
        threads.extend(start(
            world,
            dry_run,
            chance.hits(15).then(|| chance.below(60)),
        ));
    }
    if chance.hits(50) {
        let (world, chance) = (Arc::clone(world), Chance::new(chance.next(), 4));
        threads.push(shuttle::thread::spawn(move || meddle(&world, chance)));
    }
    for thread in threads {
        thread.join().expect("a run does not panic");
    }
    let mut state = world.lock();
    let came = state.crash.is_none() && planned;
    // A power cut that did not come in time comes now, between two runs.
    state.steps += STEPS as u64;
    state.crash_if_due();
    state.faults = Faults::default();
    drop(state);
    sync::refuse_threads(0, 0);
    sync::pass_time(Duration::from_secs(1));
    came
}

/// A run, and who may ask it to stop after some steps.
fn start(world: &Arc<World>, dry_run: bool, stop: Option<usize>) -> Vec<JoinHandle<()>> {
    let run = {
        let mut state = world.lock();
        state.runs.push(Facts::new(dry_run));
        state.runs.len() - 1
    };
    let context = Arc::new(Context::new(now, "/nowhere".into()));
    let (its_world, its_context) = (Arc::clone(world), Arc::clone(&context));
    let mut threads = vec![shuttle::thread::spawn(move || {
        go(&its_world, run, &its_context);
    })];
    if let Some(steps) = stop {
        let world = Arc::clone(world);
        threads.push(shuttle::thread::spawn(move || {
            rest(steps);
            context.stop.request(15);
            world.lock().asked_to_stop(run);
            if steps % 2 == 0 {
                rest(steps);
                context.stop.cancel();
            }
        }));
    }
    threads
}

/// One run of the engine.
fn go(world: &Arc<World>, run: usize, context: &Context) {
    let config = world.lock().config.clone();
    let dry_run = world.lock().runs[run].dry_run;
    let stores = Shelves {
        world: Arc::clone(world),
        run,
    };
    let log = Logger::new(
        Format::Text,
        Level::Info,
        now,
        Box::new(Ear(stores.clone())),
    );
    let instant = LocalTime {
        at: now(),
        zone: TimeZone::UTC,
    };
    let surroundings = RunWorld {
        context,
        log: &log,
        instant: &instant,
        dry_run,
    };
    let ended = run::run(&config, &stores, &surroundings);
    world.lock().ended(run, &ended.total, ended.code);
}

fn now() -> Timestamp {
    timestamp(sync::now())
}

fn rest(steps: usize) {
    for _ in 0..steps {
        sync::others_first();
    }
}

/// Where a run's lines go.
struct Ear(Shelves);

impl Write for Ear {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        // Where it panics, what it should have heard is not to be compared.
        let before = std::mem::replace(&mut self.0.world.lock().runs[self.0.run].mute, true);
        self.0.may_panic();
        self.0.world.lock().runs[self.0.run].mute = before;
        let mut state = self.0.world.lock();
        for line in text.lines() {
            state.hears(self.0.run, line);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What others do at the places meanwhile.
fn meddle(world: &World, mut chance: Chance) {
    for _ in 0..=chance.below(8) {
        rest(chance.below(40));
        sync::pass_time(Duration::from_secs(chance.of(&[0, 0, 1, 20])));
        let mut state = world.lock();
        let rule = chance.below(state.config.rules.len());
        let rule = &state.config.rules[rule];
        let (from, to) = (rule.source.to_string(), rule.dest.to_string());
        let name = chance.of(NAMES);
        match chance.below(8) {
            0..=2 => {
                let content = state.new_content();
                state.write(&from, name, content, chance.hits(50));
            }
            3 => drop(state.take(&from, name)),
            4 | 5 => drop(state.take(&to, name)),
            6 => {
                let content = state.new_content();
                state.write(&to, name, content, false);
            }
            _ if state.locks.remove(&from).is_none() => {
                state.locks.insert(from, sync::now());
            }
            _ => {}
        }
    }
}

/// A run that nobody disturbs does all there is to do.
fn peace(world: &Arc<World>) {
    world.lock().locks.clear();
    sync::pass_time(Duration::from_secs(3600));
    for thread in start(world, false, None) {
        thread.join().expect("a run does not panic");
    }
    let mut state = world.lock();
    let run = state.runs.len() - 1;
    for error in std::mem::take(&mut state.runs[run].failures) {
        if !IN_PEACE.iter().any(|reason| error.contains(reason)) {
            state.broke(format!("failed in peace: {error}"));
        }
    }
    let rules = state.config.rules.clone();
    for rule in &rules {
        state.left_for_a_reason(run, rule);
        let simple = rule.mode == Mode::Move && rule.max_items > NAMES.len();
        let free = matches!(rule.if_exists, IfExists::Overwrite | IfExists::KeepBoth);
        let from = rule.source.to_string();
        let fed = rules.iter().any(|other| other.dest.to_string() == from);
        if !simple || !free || fed || state.runs[run].code != Some(0) {
            continue;
        }
        for name in state.names(&from) {
            if rule.recursive || !name.contains('/') {
                state.broke(format!("{from} {name} is left at the end"));
            }
        }
    }
}
