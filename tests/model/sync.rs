//! What the engine's `sync` is in the model: threads that a seed schedules, and a clock that only
//! the model moves.
//!
//! Shuttle's threads and atomics. It knows no time, so the clock and all that waits are made here,
//! of its `park` and `unpark`. Time passes where [`pass_time`] says so, and jumps to the end of the
//! shortest wait whenever the scheduler picks [`keep_time`], which may be long before all others
//! are idle.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::ops::{Add, Deref, DerefMut};
use std::sync::atomic::{AtomicBool as Flag, Ordering};
use std::sync::{Arc, LockResult, PoisonError, TryLockError};
use std::time::Duration;

pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize};
pub(crate) use shuttle::thread::{Scope, scope};
use shuttle::thread::{ScopedJoinHandle, Thread};

use crate::chance::Chance;

/// All of one seed that is not in its stores. Every thread of a seed runs on one of the system's.
#[derive(Default)]
struct Time {
    now: Duration,
    alarms: BTreeMap<(Duration, u64), Arc<Waiter>>,
    alarms_set: u64,
    keeper: Option<Thread>,
    over: bool,
}

thread_local! {
    static TIME: RefCell<Time> = RefCell::default();
    /// The system gives no thread so many times of a hundred.
    /// Asked whenever all others wait for time to pass.
    static ALL_WAIT: RefCell<Option<Box<dyn Fn()>>> = const { RefCell::new(None) };
    static NO_THREAD: RefCell<(usize, Chance)> = RefCell::new((0, Chance::new(0, 0)));
}

/// Begins a seed: no time has passed, and every thread is to be had.
pub(crate) fn reset() {
    TIME.with_borrow_mut(|time| *time = Time::default());
    ALL_WAIT.set(None);
    refuse_threads(0, 0);
}

/// From now on the system gives no thread `percent` times of a hundred.
pub(crate) fn refuse_threads(percent: usize, seed: u64) {
    NO_THREAD.set((percent, Chance::new(seed, 3)));
}

/// Whether the system may give no thread.
pub(crate) fn threads_are_short() -> bool {
    NO_THREAD.with_borrow(|(percent, _)| *percent > 0)
}

/// Asks `what` whenever nobody can go on before time passes.
pub(crate) fn when_all_wait(what: impl Fn() + 'static) {
    ALL_WAIT.set(Some(Box::new(what)));
}

/// Waits for as long.
pub(crate) fn sleep(duration: Duration) {
    let (mutex, never) = (Mutex::new(()), Condvar::new());
    let guard = mutex.lock().unwrap_or_else(PoisonError::into_inner);
    drop(never.wait_timeout(guard, duration));
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
        if crate::whim::all_others_wait() {
            ALL_WAIT.with_borrow(|what| what.iter().for_each(|what| what()));
        }
        let alarm = TIME.with_borrow_mut(|time| {
            let (&(due, number), _) = time.alarms.first_key_value()?;
            time.now = time.now.max(due);
            time.alarms.remove(&(due, number))
        });
        match alarm {
            Some(alarm) => {
                alarm.wake();
                others_first();
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

// As std's: the engine says how large a stack should be.
#[allow(clippy::unused_self)]
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

/// Like `std::sync::Mutex`; whoever wants it may get it, in any order.
#[derive(Default)]
pub(crate) struct Mutex<T> {
    inner: std::sync::Mutex<T>,
    waiters: std::sync::Mutex<Vec<Arc<Waiter>>>,
}

pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    /// `None` once it is given back.
    inner: Option<std::sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            inner: std::sync::Mutex::new(value),
            waiters: std::sync::Mutex::default(),
        }
    }

    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        others_first();
        let guard = |inner| MutexGuard {
            mutex: self,
            inner: Some(inner),
        };
        loop {
            match self.inner.try_lock() {
                Ok(inner) => return Ok(guard(inner)),
                Err(TryLockError::Poisoned(poison)) => {
                    return Err(PoisonError::new(guard(poison.into_inner())));
                }
                Err(TryLockError::WouldBlock) => Waiter::join(&self.waiters).wait(),
            }
        }
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        drop(self.inner.take());
        wake_all(&self.mutex.waiters);
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.inner.as_ref().expect("it is not given back")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.inner.as_mut().expect("it is not given back")
    }
}

/// Like `std::sync::Condvar`; nobody wakes who was not notified and is not late.
#[derive(Default)]
pub(crate) struct Condvar {
    waiters: std::sync::Mutex<Vec<Arc<Waiter>>>,
}

/// Nobody asks whether it was late.
pub(crate) struct Waited;

// As std's: the engine expects a `Result`.
#[allow(clippy::unnecessary_wraps)]
impl Condvar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        let (mutex, waiter) = (guard.mutex, Waiter::join(&self.waiters));
        drop(guard);
        waiter.wait();
        mutex.lock()
    }

    pub(crate) fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        at_most: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, Waited)> {
        let (mutex, waiter) = (guard.mutex, Waiter::join(&self.waiters));
        let alarm = TIME.with_borrow_mut(|time| {
            time.alarms_set += 1;
            let key = (time.now + at_most, time.alarms_set);
            time.alarms.insert(key, Arc::clone(&waiter));
            key
        });
        wake_keeper();
        drop(guard);
        waiter.wait();
        TIME.with_borrow_mut(|time| time.alarms.remove(&alarm));
        let late = |other: &Arc<Waiter>| !Arc::ptr_eq(other, &waiter);
        self.waiters
            .lock()
            .expect("nobody panics with it")
            .retain(late);
        Ok((mutex.lock().unwrap_or_else(PoisonError::into_inner), Waited))
    }

    pub(crate) fn wait_timeout_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        at_most: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<(MutexGuard<'a, T>, Waited)> {
        let end = now() + at_most;
        while condition(&mut guard) && now() < end {
            let left = end.saturating_sub(now());
            (guard, _) = self
                .wait_timeout(guard, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Ok((guard, Waited))
    }

    pub(crate) fn notify_all(&self) {
        others_first();
        wake_all(&self.waiters);
    }
}

/// Somebody who waits until he is woken.
struct Waiter {
    thread: Thread,
    woken: Flag,
}

impl Waiter {
    fn join(queue: &std::sync::Mutex<Vec<Arc<Self>>>) -> Arc<Self> {
        let waiter = Arc::new(Self {
            thread: shuttle::thread::current(),
            woken: Flag::new(false),
        });
        let mut queue = queue.lock().expect("nobody panics with it");
        queue.push(Arc::clone(&waiter));
        waiter
    }

    fn wait(&self) {
        while !self.woken.load(Ordering::Relaxed) {
            shuttle::thread::park();
        }
    }

    fn wake(&self) {
        self.woken.store(true, Ordering::Relaxed);
        self.thread.unpark();
    }
}

fn wake_all(queue: &std::sync::Mutex<Vec<Arc<Waiter>>>) {
    let waiters = std::mem::take(&mut *queue.lock().expect("nobody panics with it"));
    for waiter in waiters {
        waiter.wake();
    }
}

/// Lets any other thread go on first.
pub(crate) fn others_first() {
    shuttle::thread::sleep(Duration::ZERO);
}
