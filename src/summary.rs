//! PURE: outcomes to counts, the last log line, and the exit code.

use std::time::Duration;

/// What became of the items of one rule, or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// At the destination and gone at the source.
    pub moved: u64,
    /// At the destination and still at the source.
    pub copied: u64,
    /// Left alone for a reason that is no failure.
    pub skipped: u64,
    /// Items, or a whole listing, that exhausted their attempts.
    pub failed: u64,
    /// Delivered bytes.
    pub bytes: u64,
    /// Selected, but never started because the run was halted.
    pub not_started: u64,
}

impl Tally {
    /// Adds another tally to this one.
    pub fn add(&mut self, other: &Self) {
        self.moved += other.moved;
        self.copied += other.copied;
        self.skipped += other.skipped;
        self.failed += other.failed;
        self.bytes += other.bytes;
        self.not_started += other.not_started;
    }
}

/// What became of one rule in the run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// Its name.
    pub rule: String,
    /// What became of its items.
    pub tally: Tally,
    /// It was listed, and nothing of it was left because the run was halted.
    pub complete: bool,
    /// From its first listing to its end.
    pub took: Duration,
    /// Eligible items that were seen and not taken, at least; 1 where the listing stopped early.
    pub backlog: u64,
    /// The age of the oldest file when it was listed; negative where it is from the future.
    pub oldest_age_seconds: Option<i64>,
}

impl Figures {
    /// Whether it did all that there was to do for it.
    pub fn succeeded(&self) -> bool {
        self.complete && self.tally.failed == 0
    }
}

/// How a run ended.
pub struct Ended {
    /// Each rule, in the order of the config.
    pub rules: Vec<Figures>,
    /// All rules together.
    pub total: Tally,
    /// The exit code.
    pub code: u8,
}

/// All rules done.
pub const EXIT_DONE: u8 = 0;
/// A rule failed.
pub const EXIT_FAILED: u8 = 1;
/// The command line, environment or config is wrong; nothing was touched.
pub const EXIT_USAGE: u8 = 2;

/// The exit code of a run: 128+n where signal n stopped it, whatever else happened.
pub fn exit_code(total: &Tally, signal: Option<i32>) -> u8 {
    match signal {
        Some(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
        None if total.failed > 0 => EXIT_FAILED,
        None => EXIT_DONE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_outweighs_a_failure_and_a_failure_outweighs_success() {
        let failed = Tally {
            failed: 1,
            ..Tally::default()
        };
        assert_eq!(
            exit_code(
                &Tally {
                    moved: 3,
                    ..Tally::default()
                },
                None
            ),
            EXIT_DONE
        );
        assert_eq!(exit_code(&failed, None), EXIT_FAILED);
        assert_eq!(exit_code(&failed, Some(15)), 143);
        assert_eq!(exit_code(&Tally::default(), Some(2)), 130);
    }
}
