//! Who goes on next, by a seed: the scheduler under which the model lives.

use std::cell::Cell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, Once};

use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

use crate::chance::Chance;
use crate::life::{Outcome, live};

/// What the engine is made to panic with.
pub(crate) const MADE_UP: &str = "a fault of the program, made up by the model";

/// More switches than any seed needs: whoever reaches it goes round in circles.
const SWITCHES_MAX: usize = 200_000;

/// The stack of a thread of the model.
const STACK_BYTES: usize = 512 << 10;

/// The thread that [`crate::sync::keep_time`] is: the first that a seed starts.
const KEEPER: usize = 1;

thread_local! {
    /// The seed that this thread of the system is at.
    static SEED: Cell<u64> = const { Cell::new(0) };
    static TOLD: Cell<bool> = const { Cell::new(false) };
    /// The keeper of time was picked because nobody else could go on.
    static ALL_WAIT: Cell<bool> = const { Cell::new(false) };
}

/// Picks who goes on: the same one for a while, or anybody; time passes seldom or often.
#[derive(Debug)]
struct Whim {
    seeds: Range<u64>,
    chance: Chance,
    /// How often, of a hundred times, whoever is at work stays so.
    stay: usize,
    /// How often time is picked though somebody else could go on.
    wait: usize,
}

impl Scheduler for Whim {
    fn new_execution(&mut self) -> Option<Schedule> {
        let seed = self.seeds.next()?;
        SEED.set(seed);
        self.chance = Chance::new(seed, 5);
        self.stay = self.chance.of(&[0, 50, 90, 97]);
        self.wait = self.chance.of(&[0, 0, 1, 5, 30]);
        Some(Schedule::new(seed))
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        _is_yielding: bool,
    ) -> Option<TaskId> {
        let (keeper, others): (Vec<_>, Vec<_>) = runnable
            .iter()
            // Who is parked waits for somebody: to wake him for no reason is of no use here.
            .filter(|task| !task.can_spuriously_wakeup())
            .map(|task| task.id())
            .partition(|id| usize::from(*id) == KEEPER);
        ALL_WAIT.set(others.is_empty());
        if others.is_empty() || !keeper.is_empty() && self.chance.hits(self.wait) {
            let anybody = runnable.first().map(|task| task.id());
            return keeper.first().copied().or(anybody);
        }
        match current.filter(|current| others.contains(current)) {
            Some(current) if self.chance.hits(self.stay) => Some(current),
            _ => Some(self.chance.of(&others)),
        }
    }

    fn next_u64(&mut self) -> u64 {
        self.chance.next()
    }
}

/// Whether whoever goes on does so because all others wait; asked once each time.
pub(crate) fn all_others_wait() -> bool {
    ALL_WAIT.take()
}

/// Lives through these seeds; gives each its outcome, or why it never came to its end.
pub(crate) fn live_all(
    seeds: Range<u64>,
    told: bool,
    mut hear: impl FnMut(u64, Result<Outcome, String>),
) {
    let mut left = seeds;
    while !left.is_empty() {
        let whim = Whim {
            seeds: left.clone(),
            chance: Chance::new(0, 0),
            stay: 0,
            wait: 0,
        };
        let mut config = Config::new();
        config.stack_size = STACK_BYTES;
        config.silence_warnings = true;
        config.failure_persistence = FailurePersistence::None;
        config.max_steps = MaxSteps::FailAfter(SWITCHES_MAX);
        let outcomes: Arc<Mutex<Vec<(u64, Outcome)>>> = Arc::default();
        let into = Arc::clone(&outcomes);
        let all = catch_unwind(AssertUnwindSafe(|| {
            Runner::new(whim, config).run(move || {
                let outcome = live(SEED.get(), told);
                into.lock().unwrap().push((SEED.get(), outcome));
            })
        }));
        left.start = left.end;
        for (seed, outcome) in outcomes.lock().unwrap().drain(..) {
            hear(seed, Ok(outcome));
        }
        if let Err(panic) = all {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            hear(SEED.get(), Err(text.unwrap_or_default()));
            left.start = SEED.get() + 1;
        }
    }
}

/// Lives through one seed again and tells of it on standard output.
pub(crate) fn replay(seed: u64) {
    TOLD.set(true);
    live_all(seed..seed + 1, true, |_, outcome| match outcome {
        Ok(outcome) => println!("broken: {:#?}", outcome.broken),
        Err(panic) => println!("broken: {panic}"),
    });
    TOLD.set(false);
}

/// Says nothing of a panic but in a replay: those that are not made up end in an outcome.
pub(crate) fn keep_quiet() {
    // Shuttle's own report comes first, once, and is replaced here.
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        live_all(0..1, false, |_, _| {});
        std::panic::set_hook(Box::new(|panic| {
            if TOLD.get() {
                println!("{panic}");
            }
        }));
    });
}
