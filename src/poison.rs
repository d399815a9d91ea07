//! A thread that panics while it holds a lock must not take the others with it.
//!
//! The standard library marks ("poisons") such a lock, and refuses it to everybody else unless they
//! ask for it all the same. We do: a panic becomes a failed item, and the run has to go on, to
//! finish what is in flight and to tell what happened.

use std::sync::{LockResult, PoisonError};

/// What was locked or waited for, whether or not a thread panicked while it held the lock.
pub(crate) fn unpoisoned<T>(locked: LockResult<T>) -> T {
    locked.unwrap_or_else(PoisonError::into_inner)
}
