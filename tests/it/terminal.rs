//! At a terminal: a status line below the log, and levels in colour. Nowhere else a byte of it.
//!
//! The terminal is a real one (a pty, with the program's session on it); what a person would see
//! of what it was sent is worked out by [`Screen`].

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use regex::Regex;
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::support::log::Event;
use crate::support::process::{Run, Running};
use crate::support::{Fault, Gate, Op, Sandbox, When};

const TIMEOUT: Duration = Duration::from_secs(60);

/// A terminal that a program can be started at.
struct Terminal {
    master: File,
    /// Kept open, so that what was sent is not lost with its sender.
    slave: Option<OwnedFd>,
    name: String,
    sent: Arc<(Mutex<Vec<u8>>, Condvar)>,
    reader: Option<JoinHandle<()>>,
}

impl Terminal {
    fn new(columns: u16) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = rustix::fs::open(name.as_str(), flags, Mode::empty()).unwrap();
        let master = File::from(master);
        let sent = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let (ours, mut from) = (Arc::clone(&sent), master.try_clone().unwrap());
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            // The end is an error, once nobody has the other side open.
            while let Ok(amount @ 1..) = from.read(&mut buffer) {
                ours.0.lock().unwrap().extend_from_slice(&buffer[..amount]);
                ours.1.notify_all();
            }
        });
        let terminal = Self {
            master,
            slave: Some(slave),
            name,
            sent,
            reader: Some(reader),
        };
        terminal.resize(columns);
        terminal
    }

    fn resize(&self, columns: u16) {
        let size = Winsize {
            ws_row: 24,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.master, size).unwrap();
    }

    /// The runs to come have a session at this terminal, and these of their streams are it.
    fn holds(&self, sandbox: &Sandbox, streams: &str) {
        let script = format!("exec setsid --ctty \"$@\" <$0 {streams}");
        sandbox.launch_plainly();
        sandbox.launch_through(&["sh", "-c", &script, &self.name]);
    }

    fn press(&self, key: u8) {
        (&self.master).write_all(&[key]).unwrap();
    }

    /// Waits until what was sent contains something that `is_it` knows.
    fn wait_for(&self, what: &str, is_it: impl Fn(&str) -> bool) {
        let not_yet = |sent: &mut Vec<u8>| !is_it(&String::from_utf8_lossy(sent));
        let guard = self.sent.0.lock().unwrap();
        let (sent, waited) = self
            .sent
            .1
            .wait_timeout_while(guard, TIMEOUT, not_yet)
            .unwrap();
        assert!(
            !waited.timed_out(),
            "{what} never came: {:?}",
            String::from_utf8_lossy(&sent)
        );
    }

    /// All that was sent so far.
    fn sent(&self) -> String {
        String::from_utf8(self.sent.0.lock().unwrap().clone()).unwrap()
    }

    /// All that was sent, once the program has ended.
    fn all(mut self) -> String {
        self.slave = None;
        self.reader.take().unwrap().join().unwrap();
        self.sent()
    }
}

/// What a terminal shows: lines, and where the cursor is. It scrolls for ever.
struct Screen {
    columns: usize,
    rows: Vec<Vec<char>>,
    /// Rows that go on in the next one.
    folded: Vec<bool>,
    at: (usize, usize),
}

impl Screen {
    fn of(columns: u16, sent: &str) -> Self {
        let mut screen = Self {
            columns: columns.into(),
            rows: vec![Vec::new()],
            folded: vec![false],
            at: (0, 0),
        };
        let mut rest = sent.chars();
        while let Some(c) = rest.next() {
            match c {
                '\r' => screen.at.1 = 0,
                '\n' => screen.down(),
                '\x1b' => {
                    assert_eq!(rest.next(), Some('['), "{sent:?}");
                    match rest.by_ref().find(char::is_ascii_alphabetic) {
                        Some('J') => screen.erase_below(),
                        Some('m') => {}
                        other => panic!("an escape sequence with {other:?}: {sent:?}"),
                    }
                }
                c => screen.put(c),
            }
        }
        screen
    }

    fn down(&mut self) {
        self.at.0 += 1;
        if self.at.0 == self.rows.len() {
            self.rows.push(Vec::new());
            self.folded.push(false);
        }
    }

    fn put(&mut self, c: char) {
        if self.at.1 == self.columns {
            self.folded[self.at.0] = true;
            self.down();
            self.at.1 = 0;
        }
        let row = &mut self.rows[self.at.0];
        if row.len() <= self.at.1 {
            row.resize(self.at.1 + 1, ' ');
        }
        row[self.at.1] = c;
        self.at.1 += 1;
    }

    fn erase_below(&mut self) {
        self.rows[self.at.0].truncate(self.at.1);
        self.folded[self.at.0] = false;
        self.rows.truncate(self.at.0 + 1);
        self.folded.truncate(self.at.0 + 1);
    }

    /// The lines with something in them, folded ones put together again.
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![String::new()];
        for (row, folded) in self.rows.iter().zip(&self.folded) {
            lines.last_mut().unwrap().extend(row);
            if !folded {
                lines.push(String::new());
            }
        }
        let lines = lines.iter().map(|line| line.trim_end().to_owned());
        lines.filter(|line| !line.is_empty()).collect()
    }
}

/// The texts of the status line, in the order in which they were drawn.
fn drawn(sent: &str) -> Vec<String> {
    let draw = Regex::new("\r([^\r\n\x1b]+)\x1b\\[J\r").unwrap();
    draw.captures_iter(sent)
        .map(|found| found[1].to_owned())
        .collect()
}

/// A rule that moves three small files, and one that tries for hours to list a bucket.
fn world() -> Sandbox {
    let sandbox = Sandbox::without_minio();
    for name in ["a", "b", "c"] {
        sandbox.write(format!("in/{name}"), "1234");
    }
    sandbox.mkdir("out");
    sandbox.default("exit_on_first_failure: false");
    sandbox.rule(
        "quick",
        "src: {type: file, path: in}, dest: {type: file, path: out}",
    );
    // Nobody listens there.
    sandbox.env("MINIO_ENDPOINT", "http://127.0.0.1:1");
    sandbox.env("MINIO_ACCESS_KEY", "somebody");
    sandbox.env("MINIO_SECRET_KEY", "something");
    sandbox.rule(
        "slow",
        "src: {type: s3, bucket: edi, path: in}, dest: {type: file, path: out2}, retries: 9, \
         wait_seconds: 3600",
    );
    sandbox
}

const ALL_DONE: &str = "3 of 3 items, 12 B, ";

/// Waits until the quick rule is done, presses Ctrl-C, and gives what was sent.
fn interrupted(sandbox: &Sandbox, terminal: Terminal, running: Running) -> (Run, String) {
    terminal.wait_for("the status", |sent| sent.contains(ALL_DONE));
    terminal.press(3);
    let run = sandbox.finish(running);
    run.exits(130);
    (run, terminal.all())
}

/// All lines are the log's, and the last one says how the run ended.
#[track_caller]
fn only_the_log(lines: &[String]) {
    // The key that was pressed is shown where the cursor was.
    let lines: Vec<&str> = lines
        .iter()
        .map(|line| line.trim_start_matches("^C"))
        .collect();
    for line in &lines {
        assert!(Event::parse_text(line).is_some(), "{line:?} in {lines:#?}");
    }
    let last = lines.last().expect("a log");
    assert!(last.contains("event=run_done"), "{lines:#?}");
}

#[test]
fn the_last_line_says_what_is_under_way_until_the_run_ends() {
    for columns in [80, 40, 300] {
        let sandbox = world();
        let terminal = Terminal::new(columns);
        terminal.holds(&sandbox, ">$0 2>$0");
        let running = sandbox.start();
        terminal.wait_for("the status", |sent| sent.contains("\r3 of 3 items, "));
        let mut lines = Screen::of(columns, &terminal.sent()).lines();
        let status = lines.pop().unwrap();
        assert!(status.starts_with("3 of 3 items, 12 B, "), "{status:?}");
        if columns > 40 {
            assert!(status.ends_with("/s: slow"), "{status:?}");
        }
        assert!(
            lines.iter().all(|line| Event::parse_text(line).is_some()),
            "{lines:#?}"
        );
        terminal.press(3);
        sandbox.finish(running).exits(130);
        only_the_log(&Screen::of(columns, &terminal.all()).lines());
    }
}

#[test]
fn the_status_is_never_wider_than_the_terminal_even_when_that_changes() {
    let sandbox = world();
    let terminal = Terminal::new(12);
    terminal.holds(&sandbox, ">$0 2>$0");
    let running = sandbox.start();
    terminal.wait_for("the status", |sent| {
        drawn(sent).contains(&"3 of 3 i...".into())
    });
    terminal.resize(24);
    terminal.wait_for("a wider one", |sent| {
        sent.contains("\r3 of 3 items, 12 B, ...\x1b")
    });
    terminal.resize(1);
    terminal.wait_for("one of no room", |sent| {
        sent.ends_with("\r\x1b[J\r\r\x1b[J\r")
    });
    terminal.resize(200);
    terminal.wait_for("the whole", |sent| sent.contains("/s: slow\x1b"));
    terminal.press(3);
    sandbox.finish(running).exits(130);
    let widths: Vec<usize> = drawn(&terminal.all()).iter().map(String::len).collect();
    let wider = widths.iter().position(|wide| *wide > 11).unwrap();
    let widest = widths.iter().position(|wide| *wide > 23).unwrap();
    assert!(
        wider < widest && widths.iter().all(|wide| *wide < 200),
        "{widths:?}"
    );
}

#[test]
fn a_thousand_files_redraw_it_five_times_a_second_at_most() {
    let sandbox = Sandbox::without_minio();
    for rule in 0..10 {
        for item in 0..100 {
            sandbox.write(format!("in{rule}/{item}"), "1234");
        }
        let ends =
            format!("src: {{type: file, path: in{rule}}}, dest: {{type: file, path: out{rule}}}");
        sandbox.rule(&format!("r{rule}"), &ends);
    }
    let terminal = Terminal::new(100);
    terminal.holds(&sandbox, ">$0 2>$0");
    let run = sandbox.run();
    run.exits(0);
    let sent = terminal.all();
    let lines = Screen::of(100, &sent).lines();
    only_the_log(&lines);
    let moved = lines.iter().filter(|line| line.contains("event=moved"));
    assert_eq!(moved.count(), 1000);
    let most = run.elapsed.as_millis() / 200 + 1;
    assert!(
        drawn(&sent).len() as u128 <= most,
        "{} in {:?}",
        drawn(&sent).len(),
        run.elapsed
    );
}

#[test]
fn standard_output_that_is_no_terminal_has_no_byte_of_it() {
    let sandbox = world();
    let terminal = Terminal::new(80);
    terminal.holds(&sandbox, "2>$0");
    let running = sandbox.start();
    running.wait_for("event=retry");
    let (run, sent) = interrupted(&sandbox, terminal, running);
    assert!(!run.stdout.contains(['\x1b', '\r']), "{run:?}");
    only_the_log(&run.stdout.lines().map(str::to_owned).collect::<Vec<_>>());
    let left = Screen::of(80, &sent).lines();
    assert!(left.is_empty() || left == ["^C"], "{left:?} of {sent:?}");
}

#[test]
fn standard_error_that_is_no_terminal_has_no_status() {
    let sandbox = world();
    let terminal = Terminal::new(300);
    terminal.holds(&sandbox, ">$0");
    let running = sandbox.start();
    terminal.wait_for("the log", |sent| sent.contains("event=retry"));
    terminal.press(3);
    let run = sandbox.finish(running);
    run.exits(130);
    assert_eq!(run.stderr, "");
    let sent = terminal.all();
    assert!(
        sent.contains(" \x1b[32mINFO\x1b[0m event=moved "),
        "{sent:?}"
    );
    assert!(
        sent.contains(" \x1b[33mWARN\x1b[0m event=retry "),
        "{sent:?}"
    );
    assert!(
        !sent.contains(" items, ") && !sent.contains("\x1b[J"),
        "{sent:?}"
    );
    let termination = std::fs::read_to_string(sandbox.path("termination")).unwrap_or_default();
    assert!(!termination.contains('\x1b'), "{termination:?}");
}

#[test]
fn no_color_and_a_dumb_terminal_are_respected() {
    for (name, value, erases) in [("NO_COLOR", "1", true), ("TERM", "dumb", false)] {
        let sandbox = world();
        sandbox.env(name, value);
        let terminal = Terminal::new(300);
        terminal.holds(&sandbox, ">$0 2>$0");
        let running = sandbox.start();
        let (_, sent) = interrupted(&sandbox, terminal, running);
        assert!(!sent.contains("\x1b[3"), "{name}: {sent:?}");
        assert_eq!(sent.contains('\x1b'), erases, "{name}: {sent:?}");
        only_the_log(&Screen::of(300, &sent).lines());
    }
    // An empty one is none.
    let sandbox = world();
    sandbox.env("NO_COLOR", "");
    let terminal = Terminal::new(300);
    terminal.holds(&sandbox, ">$0 2>$0");
    let running = sandbox.start();
    let (_, sent) = interrupted(&sandbox, terminal, running);
    assert!(sent.contains("\x1b[32mINFO"), "{sent:?}");
}

#[test]
fn json_has_no_colour() {
    let sandbox = world();
    let terminal = Terminal::new(400);
    terminal.holds(&sandbox, ">$0 2>$0");
    let running = sandbox.start_with(&["--log-format", "json"]);
    let (_, sent) = interrupted(&sandbox, terminal, running);
    for line in Screen::of(400, &sent).lines() {
        let line = line.trim_start_matches("^C");
        assert!(Event::parse_json(line).is_some(), "{line:?}");
    }
    assert!(!sent.contains("\x1b[3"), "{sent:?}");
}

#[test]
fn a_second_signal_leaves_nothing_of_the_status() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    sandbox.bucket().put("in/a", "1");
    let gate = Gate::default();
    proxy.fault(When::op(Op::Get), Fault::Hold(gate.clone()));
    sandbox.rule(
        "r",
        "src: {type: s3, path: in}, dest: {type: file, path: out}",
    );
    let terminal = Terminal::new(100);
    terminal.holds(&sandbox, ">$0 2>$0");
    let running = sandbox.start();
    gate.wait_for_arrivals(1);
    terminal.wait_for("the status", |sent| {
        sent.contains("\r0 of 1 items, 0 B, 0 B/s: r")
    });
    terminal.press(3);
    terminal.wait_for("the answer", |sent| {
        sent.contains("\rstopping, 0 of 1 items")
    });
    terminal.press(3);
    sandbox.finish(running).exits(130);
    gate.open();
    let lines = Screen::of(100, &terminal.all()).lines();
    let left = lines.iter().filter(|line| line.contains(" items, "));
    assert_eq!(left.count(), 0, "{lines:#?}");
}

/// The lines without what differs from run to run.
fn masked(lines: impl IntoIterator<Item = String>) -> Vec<String> {
    let changes = Regex::new(r"^\S+Z |\b(?:ms|oldest_age_seconds)=\d+").unwrap();
    let mut lines: Vec<String> = lines
        .into_iter()
        .map(|line| changes.replace_all(&line, "").into_owned())
        .collect();
    // Rules run beside each other.
    lines.sort();
    lines
}

#[test]
fn a_pipe_gets_the_same_bytes_whatever_the_terminal() {
    let sandbox = Sandbox::without_minio();
    for name in ["a", "b", "c"] {
        sandbox.write(format!("in/{name}"), "1234");
    }
    sandbox.rule(
        "quick",
        "src: {type: file, path: in}, dest: {type: file, path: out}",
    );
    let plain = sandbox.run_with(&["--dry-run"]);
    assert_eq!(plain.stderr, "");
    assert!(!plain.stdout.contains(['\x1b', '\r']), "{plain:?}");
    let lines = |text: &str| masked(text.lines().map(str::to_owned));
    sandbox.env("TERM", "xterm-256color");
    sandbox.env("COLORTERM", "truecolor");
    let with_term = sandbox.run_with(&["--dry-run"]);
    assert_eq!(with_term.stderr, "");
    assert_eq!(lines(&with_term.stdout), lines(&plain.stdout));
    let terminal = Terminal::new(80);
    terminal.holds(&sandbox, ">$0 2>$0");
    sandbox.run_with(&["--dry-run"]).exits(0);
    let shown = Screen::of(80, &terminal.all()).lines();
    assert_eq!(masked(shown), lines(&plain.stdout));
}
