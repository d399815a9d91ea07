//! The process: its streams and its exit code. Everything else is in the library.

use std::io::Write as _;
use std::process::ExitCode;

use bots_mover::start::{Done, Outside, start};
use bots_mover::summary::EXIT_USAGE;

fn main() -> ExitCode {
    let outside = Outside {
        arguments: std::env::args_os().skip(1).collect(),
        variable: &|name| std::env::var_os(name),
        clock: jiff::Timestamp::now,
        directory: std::env::current_dir().unwrap_or_default(),
    };
    let code = match start(outside) {
        Done::Ran(code) => code,
        Done::Said(text, code) => {
            // A reader that closes the pipe early has read enough.
            let _ = std::io::stdout().write_all(text.as_bytes());
            code
        }
        Done::Refused(text) => {
            let _ = writeln!(std::io::stderr(), "bots-mover: {text}");
            EXIT_USAGE
        }
    };
    ExitCode::from(code)
}
