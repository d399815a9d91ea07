//! The words in which a store tells what it found when it was tried out before a run.

use std::ops::ControlFlow;

use crate::error::{Error, Result};
use crate::part::hidden_name;

/// What a rule must be allowed to do at a place. In the order in which it is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Right {
    /// Find out what is there.
    List,
    /// Read an item.
    Read,
    /// Read what an item carries beside its contents.
    Tags,
    /// Make an item.
    Write,
    /// Make an item only where there is none.
    WriteNew,
    /// Remove an item.
    Remove,
}

/// What one probe showed.
#[derive(Debug)]
pub(crate) enum Finding {
    /// A run can do it; with what is worth knowing, which may be nothing.
    Good(String),
    /// A run can do it, but maybe not in the way that the operator expects.
    Note(String),
    /// A run would fail here.
    Bad(Error),
}

impl Finding {
    /// `Good` with this text, or `Bad`.
    pub(crate) fn of<T>(result: Result<T>, good: impl Into<String>) -> Self {
        match result {
            Ok(_) => Self::Good(good.into()),
            Err(error) => Self::Bad(error),
        }
    }
}

/// Is called when a probe is over, with its name and what it showed. Breaks when no further probe
/// is wanted.
pub(crate) type OnFinding<'a> = dyn FnMut(&'static str, Finding) -> ControlFlow<()> + 'a;

/// A name for something that is made only to see whether it can be. No two are the same; it is one
/// of those that a later run clears up ([`is_temporary`](super::is_temporary)).
pub(super) fn probe_name() -> String {
    hidden_name("probe-")
}
