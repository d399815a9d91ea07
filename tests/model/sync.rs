//! What the engine's `sync` is in the model: threads that a seed schedules, and a clock that only
//! the model moves.
//!
//! Shuttle's locks and threads; it knows no time, so waits with a limit and the clock are added
//! here. Time passes where [`pass_time`] says so, and jumps to the end of the shortest wait
//! whenever the scheduler picks [`keep_time`], which may be long before all others are idle.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::ops::Add;
use std::sync::atomic::{AtomicBool as Flag, Ordering};
use std::sync::{Arc, LockResult};
use std::time::Duration;

pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize};
pub(crate) use shuttle::sync::{Mutex, MutexGuard};
pub(crate) use shuttle::thread::{Scope, scope};
use shuttle::thread::{ScopedJoinHandle, Thread};

use crate::chance::Chance;

/// All of one seed that is not in its stores. Every thread of a seed runs on one of the system's.
#[derive(Default)]
struct Time {
    now: Duration,
    alarms: BTreeMap<(Duration, u64), Alarm>,
    alarms_set: u64,
    keeper: Option<Thread>,
    over: bool,
}

struct Alarm {
    woken: Arc<Flag>,
    bell: Arc<shuttle::sync::Condvar>,
}

thread_local! {
    static TIME: RefCell<Time> = RefCell::default();
    /// The system gives no thread so many times of a hundred.
    static NO_THREAD: RefCell<(usize, Chance)> = RefCell::new((0, Chance::new(0, 0)));
}

/// Begins a seed: no time has passed, and every thread is to be had.
pub(crate) fn reset() {
    TIME.with_borrow_mut(|time| *time = Time::default());
    refuse_threads(0, 0);
}

/// From now on the system gives no thread `percent` times of a hundred.
pub(crate) fn refuse_threads(percent: usize, seed: u64) {
    NO_THREAD.set((percent, Chance::new(seed, 3)));
}

/// What the clock shows.
pub(crate) fn now() -> Duration {
    TIME.with_borrow(|time| time.now)
}

/// Lets some time go by.
pub(crate) fn pass_time(duration: Duration) {
    TIME.with_borrow_mut(|time| time.now += duration);
}

/// Ends waits whose time is up, until [`stop_time`]; a thread of its own.
pub(crate) fn keep_time() {
    TIME.with_borrow_mut(|time| time.keeper = Some(shuttle::thread::current()));
    loop {
        let alarm = TIME.with_borrow_mut(|time| {
            let (&(due, number), _) = time.alarms.first_key_value()?;
            time.now = time.now.max(due);
            time.alarms.remove(&(due, number))
        });
        match alarm {
            Some(alarm) => {
                alarm.woken.store(true, Ordering::Relaxed);
                alarm.bell.notify_all();
                shuttle::thread::sleep(Duration::ZERO);
            }
            None if TIME.with_borrow(|time| time.over) => return,
            None => shuttle::thread::park(),
        }
    }
}

/// Lets [`keep_time`] end.
pub(crate) fn stop_time() {
    TIME.with_borrow_mut(|time| time.over = true);
    wake_keeper();
}

fn wake_keeper() {
    let keeper = TIME.with_borrow(|time| time.keeper.clone());
    if let Some(keeper) = keeper {
        keeper.unpark();
    }
}

/// Like `std::time::Instant`, of the model's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(Duration);

impl Instant {
    pub(crate) fn now() -> Self {
        Self(now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        now().saturating_sub(self.0)
    }

    pub(crate) fn saturating_duration_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }
}

/// Like `std::thread::Builder`, of a system that may be short of threads.
pub(crate) struct Builder;

impl Builder {
    pub(crate) fn new() -> Self {
        Self
    }

    pub(crate) fn stack_size(self, _bytes: usize) -> Self {
        self
    }

    pub(crate) fn spawn_scoped<'scope, 'env, F, T>(
        self,
        scope: &'scope Scope<'scope, 'env>,
        work: F,
    ) -> io::Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        let refused = NO_THREAD.with_borrow_mut(|(percent, chance)| chance.hits(*percent));
        if refused {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(scope.spawn(work))
    }
}

/// Like `std::sync::Condvar`; nobody wakes without having been notified or being late.
#[derive(Default)]
pub(crate) struct Condvar {
    bell: Arc<shuttle::sync::Condvar>,
    /// One flag for each who waits; the bell wakes them all, and who was not meant waits on.
    waiters: std::sync::Mutex<Vec<Arc<Flag>>>,
}

impl Condvar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        let woken = Arc::new(Flag::new(false));
        self.waiters().push(Arc::clone(&woken));
        Ok(self.wait_for(&woken, guard))
    }

    pub(crate) fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        at_most: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, ())> {
        let woken = Arc::new(Flag::new(false));
        self.waiters().push(Arc::clone(&woken));
        let alarm = TIME.with_borrow_mut(|time| {
            time.alarms_set += 1;
            let key = (time.now + at_most, time.alarms_set);
            let bell = Arc::clone(&self.bell);
            let woken = Arc::clone(&woken);
            time.alarms.insert(key, Alarm { woken, bell });
            key
        });
        wake_keeper();
        let guard = self.wait_for(&woken, guard);
        TIME.with_borrow_mut(|time| time.alarms.remove(&alarm));
        Ok((guard, ()))
    }

    pub(crate) fn wait_timeout_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        at_most: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<(MutexGuard<'a, T>, ())> {
        let end = now() + at_most;
        while condition(&mut guard) {
            let left = end.saturating_sub(now());
            if left.is_zero() {
                break;
            }
            guard = self.wait_timeout(guard, left)?.0;
        }
        Ok((guard, ()))
    }

    pub(crate) fn notify_all(&self) {
        // Others may come between a change and its notice.
        shuttle::thread::sleep(Duration::ZERO);
        for woken in self.waiters().drain(..) {
            woken.store(true, Ordering::Relaxed);
        }
        self.bell.notify_all();
    }

    fn wait_for<'a, T>(&self, woken: &Arc<Flag>, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        let mut guard = guard;
        while !woken.load(Ordering::Relaxed) {
            guard = self.bell.wait(guard).expect("nobody panics with a lock");
        }
        self.waiters().retain(|other| !Arc::ptr_eq(other, woken));
        guard
    }

    fn waiters(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Flag>>> {
        self.waiters.lock().expect("nobody panics with it")
    }
}
