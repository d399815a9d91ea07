//! The two more quick tries that a request has inside one attempt. Nothing else here repeats.

use std::time::Duration;

use crate::context::Stop;
use crate::error::Result;

/// How long to wait before each further try. Short, because the rule's `retries` are for faults
/// that last; a second in all, because a network policy may let a new pod through only then.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(800)];

/// One try of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Try {
    number: usize,
}

impl Try {
    /// Whether an earlier try may have reached the server; if so, no pooled connection is used.
    pub(super) fn is_repeat(self) -> bool {
        self.number > 0
    }
}

/// Makes a request, and repeats it after a passing fault. A timeout does not count as one.
///
/// # Errors
/// That of the last try, or `Stopped`.
pub(super) fn quickly<T>(stop: &Stop, mut request: impl FnMut(Try) -> Result<T>) -> Result<T> {
    let mut number = 0;
    loop {
        match request(Try { number }) {
            Err(error) if error.kind().is_quick() && number < PAUSES.len() => {
                // A requested stop only cuts the pause short: the step in flight is to end well.
                stop.wait(PAUSES[number]);
                stop.check()?;
                number += 1;
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, Kind};

    fn tries(kind: Kind) -> usize {
        let mut count = 0;
        let result = quickly::<()>(&Stop::default(), |_| {
            count += 1;
            Err(Error::new(kind, "fault"))
        });
        assert!(result.is_err());
        count
    }

    #[test]
    fn passing_fault_has_two_more_tries() {
        assert_eq!(tries(Kind::Transient), 3);
    }

    #[test]
    fn timeout_and_refusal_go_up_at_once() {
        for kind in [Kind::Timeout, Kind::Denied, Kind::Missing, Kind::Other] {
            assert_eq!(tries(kind), 1, "{kind:?}");
        }
    }

    #[test]
    fn only_the_first_try_may_use_a_pooled_connection() {
        let mut repeats = Vec::new();
        let result = quickly(&Stop::default(), |attempt| {
            repeats.push(attempt.is_repeat());
            match repeats.len() {
                3 => Ok("done"),
                _ => Err(Error::new(Kind::Transient, "fault")),
            }
        });
        assert_eq!(result.expect("the third try succeeds"), "done");
        assert_eq!(repeats, [false, true, true]);
    }

    #[test]
    fn requested_stop_cuts_the_pause_but_not_the_tries() {
        let stop = Stop::default();
        stop.request(15);
        let started = std::time::Instant::now();
        let mut count = 0;
        let result = quickly::<()>(&stop, |_| {
            count += 1;
            Err(Error::new(Kind::Transient, "fault"))
        });
        assert!(result.is_err());
        assert_eq!(count, 3);
        assert!(started.elapsed() < PAUSES[0]);
    }

    #[test]
    fn cancelled_run_has_no_further_try() {
        let stop = Stop::default();
        stop.cancel();
        let error = quickly::<()>(&stop, |_| Err(Error::new(Kind::Transient, "fault")))
            .expect_err("the only try fails");
        assert_eq!(error.kind(), Kind::Stopped);
    }
}
