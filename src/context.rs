//! What a run is given from outside: the time, the wish to stop, the staging directory.
//!
//! Nothing below `main` asks for the time or the environment itself, so tests choose both.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use jiff::Timestamp;

use crate::error::{Error, Kind, Result};
use crate::poison::unpoisoned;
use crate::sync::{AtomicBool, AtomicI32, Condvar, Mutex};

/// The world as one run sees it.
pub struct Context {
    /// The time now.
    pub clock: fn() -> Timestamp,
    /// Where staging files go.
    pub temp_dir: PathBuf,
    /// Which items have room there.
    pub staging: Arc<Staging>,
    /// How much all files together were written that was not pushed to the disk yet.
    pub unpushed_bytes: Arc<AtomicU64>,
    /// Set by SIGTERM and SIGINT.
    pub stop: Stop,
}

impl Context {
    /// A context whose stop flag is not set.
    pub fn new(clock: fn() -> Timestamp, temp_dir: PathBuf) -> Self {
        Self {
            clock,
            temp_dir,
            staging: Arc::default(),
            unpushed_bytes: Arc::default(),
            stop: Stop::default(),
        }
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }
}

/// How often a thread that waits for room checks whether transfers are to be broken off.
const STAGING_PATIENCE: Duration = Duration::from_millis(200);

/// Counts the items that have room in the staging directory. An item that does not fit waits until
/// one of them gives its room back.
#[derive(Default)]
pub struct Staging {
    holders: Mutex<usize>,
    given_back: Condvar,
}

impl Staging {
    /// Takes room by `attempt`, one caller at a time, and keeps it until the [`StagingRoom`] is
    /// dropped. When the attempt fails, it is repeated each time another item gives room back.
    ///
    /// # Errors
    /// That of the attempt when no other item has room. `Stopped`: transfers are to be broken off.
    pub fn take<T>(
        self: &Arc<Self>,
        stop: &Stop,
        mut attempt: impl FnMut() -> Result<T>,
    ) -> Result<(T, StagingRoom)> {
        let mut holders = unpoisoned(self.holders.lock());
        loop {
            stop.check()?;
            match attempt() {
                Ok(taken) => {
                    *holders += 1;
                    return Ok((taken, StagingRoom(Arc::clone(self))));
                }
                Err(error) if *holders == 0 => return Err(error),
                Err(_) => {}
            }
            let before = *holders;
            while *holders == before {
                stop.check()?;
                let waited = self.given_back.wait_timeout(holders, STAGING_PATIENCE);
                holders = unpoisoned(waited).0;
            }
        }
    }
}

/// See [`Staging::take`].
pub struct StagingRoom(Arc<Staging>);

impl Drop for StagingRoom {
    fn drop(&mut self) {
        *unpoisoned(self.0.holders.lock()) -= 1;
        self.0.given_back.notify_all();
    }
}

/// Does `what` in a thread of its own; `None` where that takes longer, panics, or gets no thread.
pub fn within<T: Send + 'static>(
    at_most: Duration,
    what: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (done, hears) = mpsc::channel();
    let work = move || drop(done.send(what()));
    let thread = std::thread::Builder::new().spawn(work);
    thread.ok()?;
    hears.recv_timeout(at_most).ok()
}

type Hook = Box<dyn FnOnce() + Send>;

/// The wish to stop, in two degrees: *requested* lets items in flight finish and cuts waits short;
/// *cancelled* also breaks transfers off, which then roll back.
#[derive(Default)]
pub struct Stop {
    signal: AtomicI32,
    cancelled: AtomicBool,
    ending: AtomicBool,
    on_request: Mutex<Vec<Hook>>,
    on_cancel: Mutex<Vec<Hook>>,
    lock: Mutex<()>,
    changed: Condvar,
    holders: Mutex<usize>,
    released: Condvar,
}

impl Stop {
    /// The signal that asked to stop, if one did.
    pub(crate) fn requested(&self) -> Option<i32> {
        match self.signal.load(Ordering::SeqCst) {
            0 => None,
            signal => Some(signal),
        }
    }

    /// Asks to stop and wakes all who wait.
    pub fn request(&self, signal: i32) {
        let guard = unpoisoned(self.lock.lock());
        self.signal.store(signal, Ordering::SeqCst);
        drop(guard);
        self.changed.notify_all();
        run_all(&self.on_request);
    }

    /// Runs `hook` when somebody asks to stop; at once if somebody did.
    pub(crate) fn on_request(&self, hook: impl FnOnce() + Send + 'static) {
        let mut hooks = unpoisoned(self.on_request.lock());
        if self.requested().is_some() {
            hook();
        } else {
            hooks.push(Box::new(hook));
        }
    }

    /// Breaks transfers off.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        run_all(&self.on_cancel);
    }

    /// Runs `hook` when transfers are broken off; at once if they were.
    pub(crate) fn on_cancel(&self, hook: impl FnOnce() + Send + 'static) {
        let mut hooks = unpoisoned(self.on_cancel.lock());
        if self.cancelled.load(Ordering::SeqCst) {
            hook();
        } else {
            hooks.push(Box::new(hook));
        }
    }

    /// Fails once transfers are to be broken off. Transfers call it before every chunk.
    pub fn check(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Error::new(Kind::Stopped, "stopped by a signal"));
        }
        Ok(())
    }

    /// Fails once somebody asked to stop; for work that is no transfer, such as a listing.
    pub fn check_request(&self) -> Result<()> {
        if self.requested().is_some() {
            return Err(Error::new(Kind::Stopped, "stopped by a signal"));
        }
        self.check()
    }

    /// Holds off the end of the process while the answer lives: after a second signal the process
    /// waits until it is dropped. For work of milliseconds that must not stay half done. See
    /// [`Stop::wait_for_holders`].
    pub fn hold(&self) -> Hold<'_> {
        *unpoisoned(self.holders.lock()) += 1;
        Hold(self)
    }

    /// Waits until no [`Hold`] is left, for `at_most`: a disk that hangs must not keep the process
    /// alive.
    pub(crate) fn wait_for_holders(&self, at_most: Duration) {
        self.ending.store(true, Ordering::SeqCst);
        let some = |holders: &mut usize| *holders > 0;
        drop(
            self.released
                .wait_timeout_while(unpoisoned(self.holders.lock()), at_most, some),
        );
    }

    /// Whether the process is about to end. Each owner of a [`Hold`] must then drop it soon.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }

    /// Waits for `duration`, or until somebody asks to stop; says whether the wait was whole.
    pub fn wait(&self, duration: Duration) -> bool {
        let guard = unpoisoned(self.lock.lock());
        let none = |(): &mut ()| self.requested().is_none();
        let _waited = unpoisoned(self.changed.wait_timeout_while(guard, duration, none));
        self.requested().is_none()
    }
}

/// See [`Stop::hold`].
pub struct Hold<'a>(&'a Stop);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        *unpoisoned(self.0.holders.lock()) -= 1;
        self.0.released.notify_all();
    }
}

fn run_all(hooks: &Mutex<Vec<Hook>>) {
    for hook in std::mem::take(&mut *unpoisoned(hooks.lock())) {
        hook();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn who_ends_the_process_waits_for_holders() {
        let stop = Stop::default();
        stop.wait_for_holders(LONG);
        let undone = AtomicBool::new(false);
        let hold = stop.hold();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _hold = hold;
                undone.store(true, Ordering::SeqCst);
            });
            stop.wait_for_holders(LONG);
            assert!(undone.load(Ordering::SeqCst));
        });
    }

    #[test]
    fn a_holder_that_hangs_is_not_waited_for_for_ever() {
        let stop = Stop::default();
        let _hold = stop.hold();
        stop.wait_for_holders(Duration::from_millis(1));
    }
}
