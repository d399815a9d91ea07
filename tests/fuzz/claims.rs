//! What must hold whatever comes from outside: no panic, no escape, no forged line. The same
//! claims are met by cases that `cargo test` makes up (tests/it/properties.rs) and by those that
//! cargo-fuzz finds (tests/fuzz).

use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bots_mover::config::{one_off, parse};
use bots_mover::context::Context;
use bots_mover::environment::{Addressing, Connection, Environment, Verify};
use bots_mover::logger::{Format, Level, Logger};
use bots_mover::object::{Entry, Name, Place, Version, join};
use bots_mover::pattern::{LocalTime, Matcher, Rename};
use bots_mover::plan::{destination, numbered};
use bots_mover::rule::{Mode, Rule};
use bots_mover::shell_pattern::ShellPattern;
use bots_mover::store::s3::{Client, S3Store};
use bots_mover::store::{Scope, Store as _, is_temporary};
use bots_mover::text::is_unseen;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::log::Event;

fn instant() -> LocalTime {
    LocalTime {
        at: Timestamp::UNIX_EPOCH,
        zone: TimeZone::UTC,
    }
}

/// Any text is a config in which nothing points upwards, or is refused with its problems.
pub(crate) fn config_is_read_or_refused(text: &str) {
    match parse(text, "config.yaml", Some("edi")) {
        Ok(config) => {
            assert!(!config.rules.is_empty());
            config.rules.iter().for_each(places_are_sound);
        }
        Err(problems) => {
            assert!(!problems.lines().is_empty());
            for line in problems.lines() {
                assert!(line.starts_with("config.yaml"), "{line:?}");
                assert!(!line.chars().any(is_unseen), "{line:?}");
            }
        }
    }
}

fn places_are_sound(rule: &Rule) {
    for place in [&rule.source, &rule.dest] {
        let text = place.to_string();
        let is_plain = !text.chars().any(is_unseen) && text == text.trim();
        assert!(is_plain, "{text:?}");
        match place {
            Place::S3 { bucket, prefix } => {
                assert!(!bucket.is_empty());
                assert!(prefix.is_empty() || prefix.ends_with('/'), "{prefix:?}");
                assert!(
                    !prefix.starts_with('/') && !prefix.contains("//"),
                    "{prefix:?}"
                );
            }
            Place::File { path, .. } => {
                let mut parts = path.components();
                assert_eq!(parts.next(), Some(Component::RootDir), "{place}");
                assert!(
                    parts.all(|part| matches!(part, Component::Normal(_))),
                    "{place}"
                );
            }
        }
    }
}

/// Any pattern is refused or matches without harm; a rename brings no `/` into a last part, and
/// leaves alone what it does not match.
pub(crate) fn patterns_do_no_harm(pattern: &str, replace: &str, name: &[u8]) {
    let Some(name) = Name::new(name) else { return };
    for matcher in [Matcher::glob(pattern), Matcher::regex(pattern)]
        .into_iter()
        .flatten()
    {
        matcher.matches(&name);
    }
    // A glob's regex is proposed to people as taking the same names. Its `.` stops at line breaks.
    if let Ok(glob) = ShellPattern::new(pattern)
        && let Ok(regex) = Matcher::regex(&glob.to_regex())
        && !name.as_bytes().contains(&b'\n')
    {
        let glob = Matcher::Glob(glob);
        assert_eq!(
            glob.matches(&name),
            regex.matches(&name),
            "{pattern:?} {name:?}"
        );
    }
    let (_, last) = name.split();
    if let Ok(rename) = Rename::new(pattern, replace) {
        let renamed = rename.apply(last, &instant(), Timestamp::UNIX_EPOCH);
        assert!(
            !renamed.contains(&b'/'),
            "{pattern:?} {replace:?} {last:?} -> {renamed:?}"
        );
        let matched = std::str::from_utf8(last).map(|last| rename.regex().is_match(last));
        assert!(
            matched != Ok(false) || renamed == last,
            "{pattern:?} changed {last:?}"
        );
    }
    // Each puts back what it took, whether or not that is text.
    for (regex, replace) in [("(?s)^(.*)$", r"\1"), ("b", "b"), ("(?s)(.)", "$1")] {
        let same = Rename::new(regex, replace).expect("a sound rename");
        let renamed = same.apply(last, &instant(), Timestamp::UNIX_EPOCH);
        assert_eq!(renamed, last, "{regex}");
    }
}

/// Whatever a key or a file name is, and whatever a rename makes of it, it lands below the
/// destination or its item fails.
pub(crate) fn keys_stay_below_the_destination(name: &[u8], pattern: &str, replace: &str) {
    let Some(name) = Name::new(name) else { return };
    let rename = [("rename-regex", pattern), ("rename-replace", replace)];
    let rename = rename.map(|(option, value)| (option.to_owned(), value.to_owned()));
    for dest in ["/base/out", "s3://other/out"] {
        let rule = |options: &[(String, String)]| {
            one_off(
                Mode::Move,
                "s3://edi/in",
                dest,
                options,
                Path::new("/"),
                None,
            )
        };
        let Ok(config) = rule(&rename).or_else(|_| rule(&[])) else {
            unreachable!("a rule without options is sound");
        };
        let entry = Entry {
            name: name.clone(),
            size_bytes: 1,
            modified: Timestamp::UNIX_EPOCH,
            version: Version::object("x", Timestamp::UNIX_EPOCH),
        };
        let Ok(to) = destination(&config.rules[0], &entry, &instant()) else {
            continue;
        };
        assert!(!is_temporary(to.split().1), "{to:?}");
        for number in [0, 1, 12_345] {
            if let Some(to) = numbered(&to, number) {
                is_below(&config.rules[0].dest, &to, name.parts().count());
            }
        }
    }
}

fn is_below(dest: &Place, name: &Name, parts: usize) {
    assert_eq!(name.parts().count(), parts, "{name:?}");
    for part in name.parts() {
        assert!(
            !matches!(part, b"" | b"." | b"..") && part.len() <= 255,
            "{name:?}"
        );
        assert!(!part.contains(&0), "{name:?}");
    }
    match dest {
        Place::S3 { .. } => assert!(name.as_str().is_some(), "{name:?}"),
        Place::File { path, .. } => {
            let whole: PathBuf = join(path, name);
            let below = whole
                .strip_prefix(path)
                .expect("it begins with the destination");
            assert!(
                below
                    .components()
                    .all(|part| matches!(part, Component::Normal(_)))
            );
            assert_eq!(below.components().count(), parts, "{name:?}");
        }
    }
}

/// One event is one line, in text and in JSON, and both give back the very same values.
pub(crate) fn events_are_one_line_each(values: &[String]) {
    for format in [Format::Text, Format::Json] {
        let written = Shared::default();
        let clock = || Timestamp::UNIX_EPOCH;
        let logger = Logger::new(format, Level::Debug, clock, Box::new(written.clone()));
        for value in values {
            let line = logger
                .event(Level::Info, "moved")
                .text("src", value)
                .number("ms", 5_u64);
            line.text("dest", value).flag("more", true).emit();
        }
        let written = written.0.lock().expect("nobody panics with it").clone();
        let text = String::from_utf8(written).expect("a log is UTF-8");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), values.len(), "{text:?}");
        assert!(
            !text.chars().any(|c| c.is_control() && c != '\n'),
            "{text:?}"
        );
        for (line, value) in lines.into_iter().zip(values) {
            let event = match format {
                Format::Text => Event::parse_text(line),
                Format::Json => Event::parse_json(line),
            };
            let event = event.unwrap_or_else(|| panic!("{line:?} does not parse"));
            assert_eq!(
                (event.get("src"), event.get("dest")),
                (&**value, &**value),
                "{line:?}"
            );
            assert_eq!(
                (event.get("ms"), event.get("more")),
                ("5", "true"),
                "{line:?}"
            );
        }
    }
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .expect("nobody panics with it")
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// All variables; the first three are secrets.
const VARIABLES: [&str; 17] = [
    "MINIO_ACCESS_KEY",
    "MINIO_SECRET_KEY",
    "MINIO_SESSION_TOKEN",
    "MINIO_ENDPOINT",
    "MINIO_BUCKET",
    "MINIO_REGION",
    "MINIO_VERIFY",
    "MINIO_ADDRESSING_STYLE",
    "MINIO_CONNECT_TIMEOUT",
    "MINIO_READ_TIMEOUT",
    "TZ",
    "TMPDIR",
    "BOTS_MOVER_UMASK",
    "BOTS_MOVER_CONFIG",
    "BOTS_MOVER_LOG_FORMAT",
    "BOTS_MOVER_LOG_LEVEL",
    "BOTS_MOVER_TERMINATION_LOG",
];

/// Begins each secret, so that it can be told from other words.
const SECRET: &str = "qzSecretqz";

/// Any environment is read or refused, and no problem tells a secret.
pub(crate) fn environment_is_read_or_refused(values: &[(usize, Vec<u8>)]) {
    let lookup = |name: &str| {
        let wanted = |(index, _): &&(usize, Vec<u8>)| VARIABLES[index % VARIABLES.len()] == name;
        let (index, value) = values.iter().find(wanted)?;
        let secret = index % VARIABLES.len() < 3;
        let value = if secret {
            [SECRET.as_bytes(), value].concat()
        } else {
            value.clone()
        };
        Some(OsString::from_vec(value))
    };
    let read = Environment::read(&lookup);
    let connection = read.and_then(|environment| environment.connection());
    if let Err(problems) = connection {
        assert!(!problems.lines().is_empty());
        assert!(!problems.to_string().contains(SECRET), "{problems}");
    }
}

/// A server that gives every request the same answer, and a store that asks it.
pub(crate) struct Server {
    answer: Arc<Mutex<Vec<u8>>>,
    store: S3Store,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind to a free port");
        let address = listener.local_addr().expect("its own address");
        let answer = Arc::new(Mutex::new(Vec::new()));
        let ours = Arc::clone(&answer);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let answer = Arc::clone(&ours);
                // The end of a connection is the end of its thread.
                std::thread::spawn(move || drop(serve(&client, &answer)));
            }
        });
        let connection = Connection {
            endpoint: format!("http://{address}").parse().expect("a URL"),
            access_key: "access".into(),
            secret_key: SECRET.into(),
            session_token: None,
            region: "us-east-1".into(),
            verify: Verify::Public,
            style: Addressing::Path,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(10),
        };
        let context = Context::new(|| Timestamp::UNIX_EPOCH, PathBuf::from("/tmp"));
        let client = Client::new(&connection, 1, Arc::new(context)).expect("a client");
        let store = S3Store::new(client, "edi", "in/", None).expect("a store");
        Self { answer, store }
    }

    /// Whatever the server says, a listing gives names below the prefix in their order, or fails
    /// without a secret in its text.
    pub(crate) fn listing_makes_sense_or_fails(&self, status: u16, body: &[u8]) {
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        *self.answer.lock().expect("nobody panics with it") = [head.as_bytes(), body].concat();
        let scope = Scope {
            recursive: true,
            wanted: &|_| true,
            aside: &|_| {},
        };
        let mut names: Vec<Name> = Vec::new();
        let mut sink = |entry: Entry| {
            names.push(entry.name);
            ControlFlow::Continue(())
        };
        let listed = self.store.list(&scope, &mut sink);
        assert!(names.is_sorted_by(|one, other| one < other), "{names:?}");
        match listed {
            Ok(_) => assert_eq!(status, 200),
            Err(error) => {
                let text = error.chain();
                assert!(
                    !text.contains(SECRET) && !text.contains("X-Amz-Signature"),
                    "{text}"
                );
            }
        }
    }
}

fn serve(mut client: &TcpStream, answer: &Mutex<Vec<u8>>) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut reader = BufReader::new(client);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 {
        if line == "\r\n" {
            let answer = answer.lock().expect("nobody panics with it").clone();
            client.write_all(&answer)?;
        }
        line.clear();
    }
    Ok(())
}
