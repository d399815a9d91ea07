//! SIGTERM and SIGINT: the first asks to stop, the second ends the process at once.
//!
//! Handlers are needed because, as process 1 of a container, we would not get a signal without one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::context::{Context, within};

/// The name of the thread that watches the time left. A test that sees it knows that a signal was
/// received.
const TIMER: &str = "stop-timer";

/// How long items in flight may go on after the first signal before they are broken off. With
/// [`ROLLBACK`] it stays below the 20 s that SPEC allows, and below Kubernetes' default of 30 s.
const GRACE: Duration = Duration::from_secs(14);

/// How long broken-off items may take to roll back before the process ends without them.
const ROLLBACK: Duration = Duration::from_secs(4);

/// How long writing the last lines may take: the reader of the log may hang.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How long a [`Hold`](crate::context::Hold) may delay the end: a probe file is removed in far
/// less.
const UNDO: Duration = Duration::from_secs(1);

/// Starts to listen. `at_the_end` is run when the time is up, right before the process ends.
///
/// # Errors
/// When the system refuses the handlers or the thread.
pub(crate) fn watch(
    context: &Arc<Context>,
    at_the_end: impl FnOnce(i32) + Send + 'static,
) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let context = Arc::clone(context);
    let mut at_the_end = Some(at_the_end);
    std::thread::Builder::new().spawn(move || {
        for signal in signals.forever() {
            let Some(at_the_end) = at_the_end.take() else {
                end(&context, signal);
            };
            context.stop.request(signal);
            let context = Arc::clone(&context);
            let timer = std::thread::Builder::new()
                .name(TIMER.into())
                .spawn(move || {
                    std::thread::sleep(GRACE);
                    context.stop.cancel();
                    std::thread::sleep(ROLLBACK);
                    within(LAST_WORDS, move || at_the_end(signal));
                    end(&context, signal);
                });
            if timer.is_err() {
                std::process::exit(128 + signal);
            }
        }
    })?;
    Ok(())
}

/// Ends the process; only what takes milliseconds may finish.
fn end(context: &Context, signal: i32) -> ! {
    context.stop.wait_for_holders(UNDO);
    std::process::exit(128 + signal);
}
