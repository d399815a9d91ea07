//! Runs the built binary: nothing of our own environment reaches it, and nothing hangs.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::io::{Read, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::log::Event;

/// Longer than any single run of the suite takes on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(90);

/// The program that the suite is about: what cargo has built, or the one that the variable
/// `BOTS_MOVER_BIN` names, such as a release build for another machine.
pub(crate) fn program() -> PathBuf {
    let named = env::var_os("BOTS_MOVER_BIN").map(PathBuf::from);
    named.unwrap_or_else(|| env!("CARGO_BIN_EXE_bots-mover").into())
}

/// What runs it where this machine cannot by itself: an emulator that `BOTS_MOVER_BIN_RUNNER`
/// names.
pub(crate) fn runner() -> Option<OsString> {
    env::var_os("BOTS_MOVER_BIN_RUNNER")
}

/// How the program is to be called.
#[derive(Debug, Clone, Default)]
pub(crate) struct Call {
    /// What stands before the program, such as `setpriv …`.
    pub(crate) launcher: Vec<OsString>,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: BTreeMap<String, OsString>,
    pub(crate) stdin: Vec<u8>,
    pub(crate) directory: PathBuf,
}

/// A program that is running.
pub(crate) struct Running {
    child: Child,
    call: Call,
    start: Instant,
    stdout: Capture,
    stderr: Capture,
}

/// What a run left.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) call: Call,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) elapsed: Duration,
}

impl Call {
    pub(crate) fn start(self) -> Running {
        let mut words = self.launcher.iter();
        let mut command = match words.next() {
            Some(launcher) => {
                let mut command = Command::new(launcher);
                command.args(words).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command
            .args(&self.args)
            .env_clear()
            .envs(&self.env)
            .current_dir(&self.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("start the program");
        let mut stdin = child.stdin.take().expect("standard input is a pipe");
        // A program that does not read it may be gone already.
        let _ = stdin.write_all(&self.stdin);
        drop(stdin);
        Running {
            stdout: Capture::of(child.stdout.take().expect("standard output is a pipe")),
            stderr: Capture::of(child.stderr.take().expect("standard error is a pipe")),
            child,
            call: self,
            start: Instant::now(),
        }
    }

    pub(crate) fn run(self) -> Run {
        self.start().finish()
    }
}

impl Running {
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the program still runs");
    }

    /// To the one child of the launcher, which is the program where the launcher stays.
    pub(crate) fn signal_child(&self, signal: Signal) {
        let pid = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let child = children
            .expect("a launcher")
            .trim()
            .parse()
            .expect("one child");
        let child = Pid::from_raw(child).expect("a process number");
        rustix::process::kill_process(child, signal).expect("the program still runs");
    }

    /// Lets the one child of the launcher go on, as often as it is stopped, until it ends.
    pub(crate) fn go_on(&self) {
        let pid = self.child.id();
        let children = format!("/proc/{pid}/task/{pid}/children");
        while !self.has_ended() && self.start.elapsed() < TIMEOUT {
            let child = std::fs::read_to_string(&children).unwrap_or_default();
            if let Some(child) = child.trim().parse().ok().and_then(Pid::from_raw) {
                let _ = rustix::process::kill_process(child, Signal::CONT);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// To the program, which may be over already.
    pub(crate) fn signal_if_alive(&self, signal: Signal) {
        let _ = rustix::process::kill_process(Pid::from_child(&self.child), signal);
    }

    /// Whether it came to its end.
    pub(crate) fn has_ended(&self) -> bool {
        let pid = self.child.id();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // Behind the name in parentheses stands the state; Z is a zombie that we have not reaped.
        stat.rsplit(") ")
            .next()
            .is_none_or(|state| state.is_empty() || state.starts_with('Z'))
    }

    /// Sends a first signal and waits until the program has heard it: it then starts a thread that
    /// watches the time left.
    pub(crate) fn signal_heard(&self, signal: Signal) {
        let tasks = format!("/proc/{}/task", self.child.id());
        let is_heard = || {
            let tasks = std::fs::read_dir(&tasks).expect("the program still runs");
            tasks.flatten().any(|task| {
                // A thread may end between its listing and this line.
                let name = std::fs::read_to_string(task.path().join("comm"));
                name.is_ok_and(|name| name.trim_end() == "stop-timer")
            })
        };
        let start = Instant::now();
        self.signal(signal);
        while !is_heard() {
            assert!(start.elapsed() < TIMEOUT, "the signal is not heard");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until a line of the log contains `text`.
    pub(crate) fn wait_for(&self, text: &str) {
        let found = self.stdout.wait_until(TIMEOUT, |all| all.contains(text));
        assert!(found, "{text:?} never came:\n{}", self.stdout.text());
    }

    /// Waits for the end.
    pub(crate) fn finish(mut self) -> Run {
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("ask for the program's state") {
                break status;
            }
            if self.start.elapsed() > TIMEOUT {
                let _ = self.child.kill();
                let _ = self.child.wait();
                panic!(
                    "{:?} hangs\n{}\n{}",
                    self.call.args,
                    self.stdout.text(),
                    self.stderr.text()
                );
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        Run {
            call: self.call.clone(),
            status,
            elapsed: self.start.elapsed(),
            stdout: self.stdout.all(),
            stderr: self.stderr.all(),
        }
    }
}

impl Drop for Running {
    /// A test that fails while the program runs must not leave it behind.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Run {
    /// The exit code; 128+n where a signal ended it, told apart by [`Run::status`].
    pub(crate) fn code(&self) -> i32 {
        let signal = self.status.signal().map(|signal| 128 + signal);
        self.status.code().or(signal).expect("it ended")
    }

    /// The log, every line of which must parse.
    pub(crate) fn events(&self) -> Vec<Event> {
        let parse = |line: &str| {
            let event = if line.starts_with('{') {
                Event::parse_json(line)
            } else {
                Event::parse_text(line)
            };
            event.unwrap_or_else(|| panic!("a log line that does not parse: {line:?}\n{self:?}"))
        };
        self.stdout.lines().map(parse).collect()
    }

    /// The lines of one kind.
    pub(crate) fn of(&self, event: &str) -> Vec<Event> {
        let all = self.events().into_iter();
        all.filter(|line| line.event() == event).collect()
    }

    /// The one line of its kind.
    pub(crate) fn one(&self, event: &str) -> Event {
        let mut found = self.of(event);
        assert_eq!(found.len(), 1, "one {event:?} in {self:?}");
        found.remove(0)
    }

    #[track_caller]
    pub(crate) fn exits(&self, code: i32) -> &Self {
        assert_eq!(self.code(), code, "the exit code of {self:?}");
        assert!(!self.stderr.contains("panicked"), "{self:?}");
        self
    }

    /// Exit 0, and a log whose every line parses.
    #[track_caller]
    pub(crate) fn succeeds(&self) -> &Self {
        self.events();
        self.exits(0)
    }

    /// Exit 1, and a log whose every line parses.
    #[track_caller]
    pub(crate) fn fails(&self) -> &Self {
        self.events();
        self.exits(1)
    }

    /// Exit 2, with the reason on standard error.
    #[track_caller]
    pub(crate) fn is_refused(&self, because: &[&str]) -> &Self {
        self.exits(2);
        for text in because {
            assert!(self.stderr.contains(text), "no {text:?} in {self:?}");
        }
        self
    }

    /// Some line of the log has all of these fields.
    #[track_caller]
    pub(crate) fn logs(&self, event: &str, fields: &[(&str, &str)]) -> &Self {
        let all = self.events();
        let found = all.iter().any(|line| {
            line.event() == event && fields.iter().all(|(key, value)| line.get(key) == *value)
        });
        assert!(found, "no {event} with {fields:?} in {self:?}");
        self
    }

    /// Some line of this kind contains all of these texts.
    #[track_caller]
    pub(crate) fn says(&self, event: &str, texts: &[&str]) -> &Self {
        let found = self.of(event).iter().any(|line| {
            let values: Vec<&str> = line
                .fields
                .iter()
                .map(|(_, value)| value.as_str())
                .collect();
            let joined = values.join("\n");
            texts.iter().all(|text| joined.contains(text))
        });
        assert!(found, "no {event} that says {texts:?} in {self:?}");
        self
    }

    /// Neither stream holds this text.
    #[track_caller]
    pub(crate) fn never_says(&self, text: &str) -> &Self {
        let both = [&self.stdout, &self.stderr];
        assert!(
            !both.iter().any(|all| all.contains(text)),
            "{text:?} in {self:?}"
        );
        self
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "run {:?} -> {} in {:?}",
            self.call.args, self.status, self.elapsed
        )?;
        writeln!(f, "--- standard output\n{}", self.stdout)?;
        write!(f, "--- standard error\n{}---", self.stderr)
    }
}

/// Reads a pipe to its end in a thread of its own.
struct Capture {
    shared: Arc<(Mutex<Vec<u8>>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    fn of(mut pipe: impl Read + Send + 'static) -> Self {
        let shared = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let ours = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(amount @ 1..) = pipe.read(&mut buffer) {
                ours.0.lock().unwrap().extend_from_slice(&buffer[..amount]);
                ours.1.notify_all();
            }
        });
        Self {
            shared,
            thread: Some(thread),
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.shared.0.lock().unwrap()).into_owned()
    }

    fn wait_until(&self, timeout: Duration, done: impl Fn(&str) -> bool) -> bool {
        let guard = self.shared.0.lock().unwrap();
        let not_yet = |all: &mut Vec<u8>| !done(&String::from_utf8_lossy(all));
        let waited = self.shared.1.wait_timeout_while(guard, timeout, not_yet);
        !waited.unwrap().1.timed_out()
    }

    /// Everything up to the end of the pipe; it must be UTF-8, as a log has to be.
    fn all(&mut self) -> String {
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the reader does not panic");
        }
        String::from_utf8(self.shared.0.lock().unwrap().clone()).expect("the output is UTF-8")
    }
}
