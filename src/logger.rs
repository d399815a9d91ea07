//! One line per event on standard output; the only place that prints one.
//!
//! At a terminal, lines and [`status`](crate::status) take turns on one terminal: while
//! there is a status, lines are held until it is drawn again, which is a fifth of a second at most.
//!
//! Names that come from outside are quoted and escaped, so that an object key cannot forge a line.
//! Nothing here knows a secret: callers never have one in a text (see `error`).

use std::fmt::Write as _;
use std::io::Write;
use std::sync::{Mutex, MutexGuard};

use jiff::Timestamp;

use crate::poison::unpoisoned;
use crate::status::{Screen, UnderWay};
use crate::text;

/// How much a line matters; the later, the chattier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something failed.
    Error,
    /// Something will be tried again, or looks wrong.
    Warn,
    /// What was done.
    Info,
    /// Why.
    Debug,
}

impl Level {
    /// The level of that name in lower case.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "error" => Self::Error,
            "warn" => Self::Warn,
            "info" => Self::Info,
            "debug" => Self::Debug,
            _ => return None,
        })
    }

    /// What begins its colour: red, yellow, green, blue.
    fn colour(self) -> &'static str {
        match self {
            Self::Error => "\x1b[31m",
            Self::Warn => "\x1b[33m",
            Self::Info => "\x1b[32m",
            Self::Debug => "\x1b[34m",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Warn => "WARN",
            Self::Info => "INFO",
            Self::Debug => "DEBUG",
        }
    }
}

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `time LEVEL key=value …`
    Text,
    /// One JSON object a line.
    Json,
}

impl Format {
    /// The format of that name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// Which of the standard streams are a terminal.
#[derive(Default)]
pub struct Terminal {
    /// Standard output is one.
    pub stdout: bool,
    /// Levels are coloured.
    pub colour: bool,
    /// Standard error, where that is one.
    pub screen: Option<Screen>,
}

/// Where the lines go.
pub struct Logger {
    format: Format,
    level: Level,
    clock: fn() -> Timestamp,
    sink: Mutex<Sink>,
}

struct Sink {
    out: Box<dyn Write + Send>,
    terminal: Terminal,
    /// Lines that wait for their turn, while there is a status on the terminal that they go to.
    held: Option<String>,
    first_error: Option<String>,
    last: String,
}

impl Logger {
    /// Writes lines of `level` and above to `out`.
    pub fn new(
        format: Format,
        level: Level,
        clock: fn() -> Timestamp,
        out: Box<dyn Write + Send>,
    ) -> Self {
        Self {
            format,
            level,
            clock,
            sink: Mutex::new(Sink {
                out,
                terminal: Terminal::default(),
                held: None,
                first_error: None,
                last: String::new(),
            }),
        }
    }

    /// For a person at a terminal.
    #[must_use]
    pub fn at(self, terminal: Terminal) -> Self {
        self.sink().terminal = terminal;
        self
    }

    /// Begins a status, where standard error is a terminal.
    pub fn status(&self) -> Option<Status<'_>> {
        let mut sink = self.sink();
        sink.terminal.screen.as_ref()?;
        sink.held = sink.terminal.stdout.then(String::new);
        Some(Status(self))
    }

    /// Begins a line; it is written by [`Line::emit`].
    pub fn event(&self, level: Level, event: &'static str) -> Line<'_> {
        let mut line = Line {
            logger: self,
            text: String::new(),
            level,
            wanted: level <= self.level,
        };
        if line.wanted {
            let time = (self.clock)()
                .strftime("%Y-%m-%dT%H:%M:%S%.3fZ")
                .to_string();
            match self.format {
                Format::Text => write!(line.text, "{time} {}", level.label()),
                Format::Json => write!(line.text, r#"{{"ts":"{time}","level":"{}""#, level.label()),
            }
            .expect("writing to a string cannot fail");
        }
        line.text("event", event)
    }

    /// The first line of level error that was written, without its line feed.
    pub(crate) fn first_error(&self) -> Option<String> {
        self.sink().first_error.clone()
    }

    /// The last line that was written, without its line feed.
    pub(crate) fn last_line(&self) -> String {
        self.sink().last.clone()
    }

    fn sink(&self) -> MutexGuard<'_, Sink> {
        unpoisoned(self.sink.lock())
    }
}

impl Sink {
    /// Writes the lines that waited, in place of the status.
    fn give_way(&mut self) {
        if let Some(screen) = &mut self.terminal.screen {
            screen.wipe();
        }
        let held = self.held.as_mut().map(std::mem::take).unwrap_or_default();
        self.write(&held);
    }

    fn write(&mut self, text: &str) {
        let out = &mut self.out;
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

/// The status of a run; gone when dropped. One at a time.
pub struct Status<'a>(&'a Logger);

impl Status<'_> {
    /// Draws it, below the lines that came meanwhile.
    pub fn draw(&self, mut under_way: UnderWay) {
        for rule in &mut under_way.rules {
            *rule = quoted(rule);
        }
        let mut sink = self.0.sink();
        if sink.held.as_ref().is_some_and(|held| !held.is_empty()) {
            sink.give_way();
        }
        if let Some(screen) = &mut sink.terminal.screen {
            screen.draw(&under_way);
        }
    }
}

impl Drop for Status<'_> {
    fn drop(&mut self) {
        let mut sink = self.0.sink();
        sink.give_way();
        sink.held = None;
    }
}

/// A line in the making.
#[must_use = "a line is only written by `emit`"]
pub struct Line<'a> {
    logger: &'a Logger,
    text: String,
    level: Level,
    wanted: bool,
}

impl Line<'_> {
    /// Adds a text.
    pub fn text(mut self, key: &'static str, value: &str) -> Self {
        if self.wanted {
            match self.logger.format {
                Format::Text => write!(self.text, " {key}={}", quoted(value)),
                Format::Json => write!(self.text, "{}\"{key}\":{}", self.comma(), json(value)),
            }
            .expect("writing to a string cannot fail");
        }
        self
    }

    /// Adds a text where there is one.
    pub(crate) fn maybe(self, key: &'static str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.text(key, value),
            None => self,
        }
    }

    /// Adds a whole number.
    pub fn number(self, key: &'static str, value: impl TryInto<i64>) -> Self {
        let value = value.try_into().unwrap_or(i64::MAX);
        self.bare(key, &value.to_string())
    }

    /// Adds `true` or `false`.
    pub fn flag(self, key: &'static str, value: bool) -> Self {
        self.bare(key, if value { "true" } else { "false" })
    }

    /// Writes the line in one piece and flushes it. A log that cannot be written stops no move.
    pub fn emit(mut self) {
        if !self.wanted {
            return;
        }
        if self.logger.format == Format::Json {
            self.text.push('}');
        }
        let mut sink = self.logger.sink();
        if self.level == Level::Error && sink.first_error.is_none() {
            sink.first_error = Some(self.text.clone());
        }
        sink.last.clone_from(&self.text);
        self.text.push('\n');
        if sink.terminal.colour && self.logger.format == Format::Text {
            let label = self.level.label();
            let coloured = format!("{}{label}\x1b[0m", self.level.colour());
            // Before the level stands only the time, which holds none of its letters.
            self.text = self.text.replacen(label, &coloured, 1);
        }
        match &mut sink.held {
            Some(held) => held.push_str(&self.text),
            None => sink.write(&self.text),
        }
    }

    fn bare(mut self, key: &'static str, value: &str) -> Self {
        if self.wanted {
            match self.logger.format {
                Format::Text => write!(self.text, " {key}={value}"),
                Format::Json => write!(self.text, "{}\"{key}\":{value}", self.comma()),
            }
            .expect("writing to a string cannot fail");
        }
        self
    }

    fn comma(&self) -> &'static str {
        if self.text.ends_with('{') { "" } else { "," }
    }
}

/// The value as it stands where that is unmistakable, else quoted with escapes.
fn quoted(value: &str) -> String {
    let plain = |c: char| !matches!(c, ' ' | '"' | '\\' | '=') && text::is_printable(c);
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    text::in_quotes(value)
}

/// A JSON string in which whatever viewers do not show, or break or turn a line at, is escaped.
fn json(value: &str) -> String {
    let json = serde_json::Value::from(value).to_string();
    let plain = |c: char| matches!(c, '"' | '\\') || text::is_printable(c);
    if json.chars().all(plain) {
        return json;
    }
    json.chars().fold(String::new(), |mut out, c| {
        if plain(c) {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}").expect("writing to a string cannot fail");
            }
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0
                .lock()
                .expect("no panic holds it")
                .extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn check(format: Format, level: Level, value: &str, expected: &str) {
        let out = Shared::default();
        let clock = || Timestamp::new(1_795_248_604, 123_456_789).expect("in range");
        let logger = Logger::new(format, Level::Info, clock, Box::new(out.clone()));
        logger
            .event(level, "moved")
            .text("src", value)
            .number("bytes", 5_u64)
            .emit();
        let written = out.0.lock().expect("no panic holds it").clone();
        assert_eq!(String::from_utf8(written).expect("UTF-8"), expected);
    }

    #[test]
    fn a_plain_value_is_not_quoted() {
        check(
            Format::Text,
            Level::Info,
            "s3://edi/in/po1.edi",
            "2026-11-21T08:10:04.123Z INFO event=moved src=s3://edi/in/po1.edi bytes=5\n",
        );
    }

    #[test]
    fn a_key_cannot_forge_a_line() {
        check(
            Format::Text,
            Level::Warn,
            "a\n2026-11-21T08:10:04.123Z INFO event=moved \u{202e}\u{7f}\u{85}\"",
            "2026-11-21T08:10:04.123Z WARN event=moved src=\"a\\n2026-11-21T08:10:04.123Z INFO \
             event=moved \\u{202e}\\u{7f}\\u{85}\\\"\" bytes=5\n",
        );
    }

    #[test]
    fn an_empty_value_is_quoted() {
        check(
            Format::Text,
            Level::Error,
            "",
            "2026-11-21T08:10:04.123Z ERROR event=moved src=\"\" bytes=5\n",
        );
    }

    #[test]
    fn json_keeps_numbers_and_escapes_controls() {
        check(
            Format::Json,
            Level::Info,
            "a\n\u{85}\"",
            "{\"ts\":\"2026-11-21T08:10:04.123Z\",\"level\":\"INFO\",\"event\":\"moved\",\
             \"src\":\"a\\n\\u0085\\\"\",\"bytes\":5}\n",
        );
    }

    #[test]
    fn what_breaks_or_turns_a_line_in_a_viewer_is_escaped() {
        let all = "\u{61c}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\
                   \u{2066}\u{2067}\u{2068}\u{2069}";
        for c in all.chars() {
            let code = u32::from(c);
            let time = "2026-11-21T08:10:04.123Z";
            check(
                Format::Text,
                Level::Info,
                &format!("a{c}b'"),
                &format!("{time} INFO event=moved src=\"a\\u{{{code:x}}}b'\" bytes=5\n"),
            );
            check(
                Format::Json,
                Level::Info,
                &format!("a{c}b"),
                &format!(
                    "{{\"ts\":\"{time}\",\"level\":\"INFO\",\"event\":\"moved\",\
                     \"src\":\"a\\u{code:04x}b\",\"bytes\":5}}\n"
                ),
            );
        }
    }

    #[test]
    fn a_level_that_is_not_wanted_is_not_written() {
        check(Format::Text, Level::Debug, "a", "");
    }
}
