//! What the engine's threads share and wait with: locks, threads and the clock of the system.
//!
//! Named in one place, so that `tests/model` can compile the same engine over threads that a seed
//! schedules and over a clock that it moves. Nothing of its own may be in here.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize};
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
pub(crate) use std::thread::{Builder, Scope, scope};
pub(crate) use std::time::Instant;
