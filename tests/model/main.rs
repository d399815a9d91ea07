//! The engine as a model: over places in memory, and threads that a seed schedules.
//!
//! See `README.md` in this directory.

// A test says why it fails by panicking, and the totals go to standard output.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]
// The engine is compiled as modules of this program, which does not use all of it; its own tests
// run where it is a library.
#![allow(dead_code, unused_imports, unreachable_pub)]
#![allow(clippy::doc_markdown)]

mod chance;
mod facts;
mod life;
mod planted;
mod shelf;
mod sync;
mod whim;
mod world;

#[path = "../it/support/log.rs"]
mod log;

#[path = "../../src/config/mod.rs"]
mod config;
#[path = "../../src/context.rs"]
mod context;
#[path = "../../src/environment.rs"]
mod environment;
#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/lane.rs"]
mod lane;
#[path = "../../src/logger.rs"]
mod logger;
#[path = "../../src/object.rs"]
mod object;
#[path = "../../src/part.rs"]
mod part;
#[path = "../../src/pattern.rs"]
mod pattern;
#[path = "../../src/plan.rs"]
mod plan;
#[path = "../../src/relations.rs"]
mod relations;
#[path = "../../src/report.rs"]
mod report;
#[path = "../../src/round.rs"]
mod round;
#[path = "../../src/rule.rs"]
mod rule;
#[path = "../../src/run.rs"]
mod run;
#[path = "../../src/schedule.rs"]
mod schedule;
#[path = "../../src/shard.rs"]
mod shard;
#[path = "../../src/shell_pattern.rs"]
mod shell_pattern;
#[path = "../../src/stage.rs"]
mod stage;
#[path = "../../src/status.rs"]
mod status;
#[path = "../../src/store/mod.rs"]
mod store;
#[path = "../../src/summary.rs"]
mod summary;
#[path = "../../src/text.rs"]
mod text;
#[path = "../../src/transfer.rs"]
mod transfer;

use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::life::Outcome;
use crate::whim::{live_all, replay};

/// The seeds of a run of all tests; `BOTS_MOVER_TORTURE` multiplies them.
const SEEDS: u64 = 3_000;

/// How many seeds a thread takes at once.
const PORTION: u64 = 250;

/// The same where the first failure is the end.
const PORTION_PLANTED: u64 = 10;

/// How many failing seeds are told in full.
const TOLD_MAX: usize = 3;

/// So many of the first seeds are lived through twice.
const TWICE: u64 = 200;

/// What all seeds together came to.
#[derive(Default)]
struct Totals {
    seeds: u64,
    runs: usize,
    crashes: usize,
    steps: u64,
    /// Of the seeds that are lived through twice.
    digest: u64,
    failed: Vec<u64>,
}

fn main() -> ExitCode {
    // As with any test: `cargo test NAME` runs only what has the name in its own.
    let mut names = std::env::args()
        .skip(1)
        .filter(|name| !name.starts_with('-'));
    if names.next().is_some_and(|name| !"model".contains(&name)) {
        return ExitCode::SUCCESS;
    }
    whim::keep_quiet();
    if let Some(text) = text("BOTS_MOVER_MODEL_SEED") {
        let Some((start, end)) = text.split_once("..") else {
            replay(number(&text));
            return ExitCode::SUCCESS;
        };
        let sound = no_seed_breaks_a_promise(number(start)..number(end));
        return ExitCode::from(u8::from(!sound));
    }
    if planted::is_planted() {
        let all =
            planted::take_turns(|| search(0..SEEDS, PORTION_PLANTED, 1).failed.first().copied());
        return ExitCode::from(u8::from(!all));
    }
    let times = text("BOTS_MOVER_TORTURE").map_or(1, |times| number(&times));
    let sound = no_seed_breaks_a_promise(0..SEEDS * times);
    let same = a_seed_does_the_same_again();
    let found = planted::each_is_found();
    ExitCode::from(u8::from(!(sound && same && found)))
}

fn no_seed_breaks_a_promise(seeds: Range<u64>) -> bool {
    let started = Instant::now();
    let mut totals = Totals::default();
    let mut start = seeds.start;
    // In pieces, so that a long run that is ended has told what it found.
    while start < seeds.end {
        let end = seeds.end.min(start + SEEDS);
        let piece = search(start..end, PORTION, usize::MAX);
        let left = TOLD_MAX.saturating_sub(totals.failed.len());
        for seed in piece.failed.iter().take(left) {
            replay(*seed);
            println!("again: BOTS_MOVER_MODEL_SEED={seed} cargo test --test model\n");
        }
        totals.add_all(piece);
        start = end;
    }
    println!(
        "model: {} seeds in {:.1} s, {} runs, {} crashes, {} steps; {} failed",
        totals.seeds,
        started.elapsed().as_secs_f64(),
        totals.runs,
        totals.crashes,
        totals.steps,
        totals.failed.len(),
    );
    totals.failed.is_empty()
}

fn a_seed_does_the_same_again() -> bool {
    let digests = [(); 2].map(|()| search(0..TWICE, TWICE / 2, usize::MAX).digest);
    println!("model: {TWICE} seeds twice: {digests:x?}");
    digests[0] == digests[1]
}

/// What the environment says.
fn text(variable: &str) -> Option<String> {
    std::env::var(variable).ok()
}

fn number(text: &str) -> u64 {
    let number = text.parse();
    number.unwrap_or_else(|_| panic!("`{text}` is no number"))
}

/// Lives through these seeds, in portions, until so many have failed.
fn search(seeds: Range<u64>, portion: u64, enough: usize) -> Totals {
    let totals = Mutex::new(Totals::default());
    let next = AtomicU64::new(seeds.start);
    let work = || {
        loop {
            let start = next.fetch_add(portion, Ordering::Relaxed);
            if start >= seeds.end || totals.lock().unwrap().failed.len() >= enough {
                return;
            }
            live_all(
                start..seeds.end.min(start + portion),
                false,
                |seed, outcome| {
                    totals.lock().unwrap().add(seed, &outcome);
                },
            );
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let mut totals = totals.into_inner().unwrap();
    totals.failed.sort_unstable();
    totals
}

impl Totals {
    fn add_all(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.runs += other.runs;
        self.crashes += other.crashes;
        self.steps += other.steps;
        self.failed.extend(other.failed);
    }

    fn add(&mut self, seed: u64, outcome: &Result<Outcome, String>) {
        self.seeds += 1;
        let Ok(outcome) = outcome else {
            return self.failed.push(seed);
        };
        self.runs += outcome.runs;
        self.crashes += outcome.crashes;
        self.steps += outcome.steps;
        // The threads come to their seeds in any order.
        self.digest = self.digest.wrapping_add(outcome.digest);
        if !outcome.broken.is_empty() {
            self.failed.push(seed);
        }
    }
}
