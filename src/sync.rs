//! What the engine's threads share and wait with: locks, threads and the clock of the system.
//!
//! Named in one place, so that `tests/model` can compile the same engine over threads that a seed
//! schedules and over a clock that it moves. Nothing of its own may be in here.

pub use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize};
pub use std::sync::{Condvar, Mutex, MutexGuard};
pub use std::thread::{Builder, Scope, scope};
pub use std::time::Instant;
