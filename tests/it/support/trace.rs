//! Runs the program under strace: to see the order of its system calls, to fail the n-th of them,
//! and to stop or kill the program at it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::process::Run;
use super::sandbox::Sandbox;

/// What becomes of a system call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Injection<'a> {
    /// The n-th of this name in a thread, from 1, kills the program before it acts.
    Kill(&'a str, usize),
    /// The n-th of this name in a thread, from 1, fails with this error and does not act.
    Fail(&'a str, &'a str, usize),
    /// The program is stopped once the n-th of this name in a thread, from 1, has acted.
    Stop(&'a str, usize),
    /// Each of this name fails with this error and does not act.
    FailAll(&'a str, &'a str),
    /// The n-th of this name in a thread, from 1, acts that much later.
    Delay(&'a str, Duration, usize),
}

/// A run and its system calls.
pub(crate) struct Traced {
    pub(crate) run: Run,
    /// One system call a line, as strace prints it, with the paths of file descriptors.
    pub(crate) calls: Vec<String>,
}

/// Runs all rules once. `calls` names the system calls to see, with commas between them; only
/// those that name one of `paths`, or a file descriptor of one, are seen and counted, unless it is
/// empty.
pub(crate) fn traced(
    sandbox: &Sandbox,
    calls: &str,
    paths: &[PathBuf],
    injection: Option<Injection<'_>>,
) -> Traced {
    launch_traced(sandbox, calls, paths, injection);
    let run = sandbox.run();
    sandbox.launch_plainly();
    Traced {
        run,
        calls: calls_so_far(sandbox),
    }
}

/// The same, where the program is stopped once it has made the `number`-th call of the kind; then
/// `act` is called with the system calls so far, and the program goes on. Says whether it was
/// stopped: it was not where it makes fewer calls.
pub(crate) fn stopped(
    sandbox: &Sandbox,
    call: &str,
    number: usize,
    paths: &[PathBuf],
    act: impl FnOnce(&[String]),
) -> (Run, bool) {
    launch_traced(sandbox, call, paths, Some(Injection::Stop(call, number)));
    let running = sandbox.start();
    sandbox.launch_plainly();
    let trace = sandbox.path("trace");
    let is_stopped = || fs::read_to_string(&trace).is_ok_and(|all| all.contains(STOPPED));
    let stopped = loop {
        if is_stopped() {
            break true;
        }
        if running.has_ended() {
            break is_stopped();
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    if stopped {
        act(&calls_so_far(sandbox));
        // Other threads may come to their own n-th call and stop too.
        running.go_on();
    }
    (sandbox.finish(running), stopped)
}

/// What strace writes when all threads of the program stand.
const STOPPED: &str = "--- stopped by SIGSTOP ---";

fn launch_traced(
    sandbox: &Sandbox,
    calls: &str,
    paths: &[PathBuf],
    injection: Option<Injection<'_>>,
) {
    let version = Command::new("strace").arg("--version").output();
    assert!(
        version.is_ok(),
        "the tests need strace: run `apt-get install strace`"
    );
    let mut words = ["strace", "-f", "-y", "-qq", "-s", "16", "-o"]
        .map(OsString::from)
        .to_vec();
    words.push(sandbox.path("trace").into());
    words.extend(["-e".into(), format!("trace={calls}").into()]);
    for path in paths {
        words.extend(["-P".into(), path.into()]);
    }
    if let Some(injection) = injection {
        words.extend(["-e".into(), injection.expression().into()]);
    }
    words.push("--".into());
    sandbox.launch_through(&words);
}

fn calls_so_far(sandbox: &Sandbox) -> Vec<String> {
    let trace = fs::read(sandbox.path("trace")).expect("strace wrote its file");
    calls_of(&String::from_utf8_lossy(&trace))
}

/// The lines of a trace, without process numbers and signals. A call that another thread's call
/// interrupted takes two lines; it stands where it ended.
fn calls_of(trace: &str) -> Vec<String> {
    let mut begun = HashMap::new();
    let mut calls = Vec::new();
    for (pid, line) in trace.lines().filter_map(|line| line.split_once(' ')) {
        let line = line.trim_start();
        if let Some(beginning) = line.strip_suffix("<unfinished ...>") {
            begun.insert(pid, beginning.to_owned());
        } else if let Some((_, end)) = line.split_once(" resumed>") {
            calls.push(begun.remove(pid).unwrap_or_default() + end);
        } else if !line.starts_with("---") && !line.starts_with("+++") {
            calls.push(line.to_owned());
        }
    }
    calls.extend(begun.into_values());
    calls
}

impl Injection<'_> {
    fn expression(self) -> String {
        match self {
            Self::Kill(calls, number) => format!("inject={calls}:signal=KILL:when={number}"),
            Self::Stop(calls, number) => format!("inject={calls}:signal=STOP:when={number}"),
            Self::Fail(calls, error, number) => {
                format!("inject={calls}:error={error}:when={number}")
            }
            Self::FailAll(calls, error) => format!("inject={calls}:error={error}"),
            Self::Delay(calls, delay, number) => {
                let delay = delay.as_micros();
                format!("inject={calls}:delay_enter={delay}:when={number}")
            }
        }
    }
}

impl Traced {
    /// The calls that were made to fail, one in each thread at the most; `None` where none was.
    pub(crate) fn injected(&self) -> Option<String> {
        let all = self.calls.iter().filter(|call| call.contains("(INJECTED)"));
        let all: Vec<&str> = all.map(String::as_str).collect();
        (!all.is_empty()).then(|| all.join("\n"))
    }

    /// Where the first call is that has all of these texts.
    #[track_caller]
    pub(crate) fn find(&self, texts: &[&str]) -> usize {
        let all = |call: &String| texts.iter().all(|text| call.contains(text));
        let found = self.calls.iter().position(all);
        found.unwrap_or_else(|| panic!("no call with {texts:?}:\n{}", self.calls.join("\n")))
    }
}
