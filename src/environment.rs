//! PURE: what the environment says (SPEC section 2). Values come through a lookup function, never
//! from the process itself.
//!
//! Values are trimmed and empty ones are absent: a Secret with a trailing newline works. No value
//! of `MINIO_*` but the harmless ones is ever part of a message.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use jiff::tz::TimeZone;
use url::{Host, Url};

use crate::config::Problems;
use crate::logger::{Format, Level};
use crate::shard::{self, Shard};

/// Where the config is when nothing else is said.
pub(crate) const DEFAULT_CONFIG_PATH: &str = "/config/config.yaml";
/// Where Kubernetes reads a container's last words.
pub(crate) const DEFAULT_TERMINATION_LOG: &str = "/dev/termination-log";

const DEFAULT_REGION: &str = "us-east-1";
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_READ_TIMEOUT: Duration = Duration::from_secs(60);
/// A day: a larger number was probably meant in another unit.
const CONNECT_TIMEOUT_MAX_SECONDS: f64 = 86_400.0;
/// Half an hour: waiting for a silent server for longer would hold up the whole run.
const READ_TIMEOUT_MAX_SECONDS: f64 = 1800.0;
const MAX_UMASK: u32 = 0o777;

/// The variables that are only read where they are needed.
const LATER: &[&str] = &[
    "MINIO_ENDPOINT",
    "MINIO_ACCESS_KEY",
    "MINIO_SECRET_KEY",
    "MINIO_SESSION_TOKEN",
    "MINIO_REGION",
    "MINIO_VERIFY",
    "MINIO_ADDRESSING_STYLE",
    "MINIO_CONNECT_TIMEOUT",
    "MINIO_READ_TIMEOUT",
    SHARD_INDEX,
    SHARD_COUNT,
];

/// Set by Kubernetes in the pods of an Indexed Job.
/// <https://kubernetes.io/docs/concepts/workloads/controllers/job/#completion-mode>
const SHARD_INDEX: &str = "JOB_COMPLETION_INDEX";
const SHARD_COUNT: &str = "BOTS_MOVER_SHARDS";

/// Where metrics go. Without `Debug`: a URL may hold a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Metrics {
    /// `BOTS_MOVER_METRICS`.
    pub target: MetricsTarget,
    /// `POD_NAMESPACE`: whose they are.
    pub namespace: Option<String>,
}

/// What takes metrics.
#[derive(Clone, PartialEq, Eq)]
pub enum MetricsTarget {
    /// A Pushgateway; its URL may hold a user and a password, and a path that it is served below.
    Pushgateway(Url),
    /// A file for node exporter's textfile collector; its name ends in `.prom`.
    File(PathBuf),
}

/// Where metrics go, whatever else is wrong with the environment.
pub fn metrics(lookup: &dyn Fn(&str) -> Option<OsString>) -> Option<Metrics> {
    let problems = Vec::new();
    Reader { lookup, problems }.metrics()
}

/// What the environment says about everything but the connection.
#[derive(Clone)]
pub struct Environment {
    /// `MINIO_BUCKET`: for rules that have no bucket; not checked before a rule uses it.
    pub bucket: Option<String>,
    /// `TZ`; UTC where it is not set.
    pub zone: TimeZone,
    /// `TMPDIR`, else `/tmp`: where staging files go.
    pub temp_dir: PathBuf,
    /// `BOTS_MOVER_UMASK`; `None` leaves the inherited one.
    pub umask: Option<u32>,
    /// `BOTS_MOVER_CONFIG`, else [`DEFAULT_CONFIG_PATH`]; `-` is standard input.
    pub config_path: PathBuf,
    /// `BOTS_MOVER_LOG_FORMAT`; text where it is not set.
    pub log_format: Format,
    /// `BOTS_MOVER_LOG_LEVEL`; info where it is not set.
    pub log_level: Level,
    /// `BOTS_MOVER_TERMINATION_LOG`, else [`DEFAULT_TERMINATION_LOG`].
    pub termination_log: PathBuf,
    /// `NO_COLOR`: no colour, even at a terminal. <https://no-color.org>
    pub no_color: bool,
    /// `TERM=dumb`: a terminal without escape sequences.
    pub dumb: bool,
    /// `BOTS_MOVER_METRICS`; none are sent where it is not set.
    pub metrics: Option<Metrics>,
    later: Vec<(&'static str, OsString)>,
}

/// All that is needed to speak to `MinIO`. Its `Debug` shows no secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Connection {
    /// Scheme, host and port; its path is `/`.
    pub endpoint: Url,
    /// `MINIO_ACCESS_KEY`.
    pub access_key: String,
    /// `MINIO_SECRET_KEY`.
    pub secret_key: String,
    /// `MINIO_SESSION_TOKEN`.
    pub session_token: Option<String>,
    /// `MINIO_REGION`.
    pub region: String,
    /// `MINIO_VERIFY`.
    pub verify: Verify,
    /// `MINIO_ADDRESSING_STYLE`.
    pub style: Addressing,
    /// `MINIO_CONNECT_TIMEOUT`.
    pub connect_timeout: Duration,
    /// `MINIO_READ_TIMEOUT`: without a single byte of progress.
    pub read_timeout: Duration,
}

/// Which certificates are trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verify {
    /// Those of public authorities.
    Public,
    /// All: nothing is verified.
    Off,
    /// Those of the authorities in this PEM file.
    Bundle(PathBuf),
}

/// Where a bucket's name stands in a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addressing {
    /// `http://host/bucket/key`.
    Path,
    /// `http://bucket.host/key`.
    Virtual,
}

impl Environment {
    /// Reads all variables.
    ///
    /// # Errors
    /// All that is wrong with them at once, but for those of [`Environment::connection`] and
    /// [`Environment::shard`].
    pub fn read(lookup: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, Problems> {
        let mut reader = Reader {
            lookup,
            problems: Vec::new(),
        };
        let later = LATER
            .iter()
            .filter_map(|name| Some((*name, reader.raw(name)?)))
            .collect();
        let environment = Self {
            bucket: reader.text("MINIO_BUCKET"),
            zone: reader.zone(),
            temp_dir: reader.path("TMPDIR", "/tmp"),
            umask: reader.parsed("BOTS_MOVER_UMASK", "an octal number up to 777", umask),
            config_path: reader.path("BOTS_MOVER_CONFIG", DEFAULT_CONFIG_PATH),
            log_format: reader
                .parsed("BOTS_MOVER_LOG_FORMAT", "text, json", Format::from_name)
                .unwrap_or(Format::Text),
            log_level: reader
                .parsed(
                    "BOTS_MOVER_LOG_LEVEL",
                    "error, warn, info, debug",
                    Level::from_name,
                )
                .unwrap_or(Level::Info),
            termination_log: reader.path("BOTS_MOVER_TERMINATION_LOG", DEFAULT_TERMINATION_LOG),
            no_color: reader.raw("NO_COLOR").is_some(),
            dumb: reader.raw("TERM").is_some_and(|name| name == "dumb"),
            metrics: reader.metrics(),
            later,
        };
        reader.finish(Some(environment))
    }

    /// How to speak to `MinIO`; to be asked only when a rule uses s3.
    ///
    /// # Errors
    /// All that is missing or wrong at once.
    pub fn connection(&self) -> Result<Connection, Problems> {
        let lookup = |name: &str| self.later(name);
        let mut reader = Reader {
            lookup: &lookup,
            problems: Vec::new(),
        };
        let endpoint = reader.endpoint();
        let access_key = reader.secret("MINIO_ACCESS_KEY", true);
        let secret_key = reader.secret("MINIO_SECRET_KEY", true);
        let session_token = reader.secret("MINIO_SESSION_TOKEN", false);
        let region = reader
            .text("MINIO_REGION")
            .unwrap_or_else(|| DEFAULT_REGION.into());
        let verify = reader
            .parsed(
                "MINIO_VERIFY",
                "true, false, or the path of a PEM file with a `/` in it",
                verify,
            )
            .unwrap_or(Verify::Public);
        let style = reader
            .parsed("MINIO_ADDRESSING_STYLE", "path, virtual", style)
            .unwrap_or(Addressing::Path);
        let connect_timeout = reader
            .timeout("MINIO_CONNECT_TIMEOUT", CONNECT_TIMEOUT_MAX_SECONDS)
            .unwrap_or(DEFAULT_CONNECT_TIMEOUT);
        let read_timeout = reader
            .timeout("MINIO_READ_TIMEOUT", READ_TIMEOUT_MAX_SECONDS)
            .unwrap_or(DEFAULT_READ_TIMEOUT);
        if style == Addressing::Virtual
            && let Some(Host::Ipv4(_) | Host::Ipv6(_)) = endpoint.as_ref().and_then(Url::host)
        {
            reader.problem(
                "MINIO_ADDRESSING_STYLE",
                "found virtual with an IP address as MINIO_ENDPOINT; allowed: path, or a host name",
            );
        }
        let required = endpoint.zip(access_key).zip(secret_key);
        let connection = required.map(|((endpoint, access_key), secret_key)| Connection {
            endpoint,
            access_key,
            secret_key,
            session_token,
            region,
            verify,
            style,
            connect_timeout,
            read_timeout,
        });
        reader.finish(connection)
    }

    /// Which part of the items is ours, where several runs share the work; to be asked only where
    /// the command line does not say it.
    ///
    /// # Errors
    /// One of the two variables is missing or wrong.
    pub fn shard(&self) -> Result<Option<Shard>, Problems> {
        let lookup = |name: &str| self.later(name);
        let mut reader = Reader {
            lookup: &lookup,
            problems: Vec::new(),
        };
        let count = "a number of shards, 1 or more";
        let number_of = |text: &str| shard::number(text).filter(|count| *count > 0);
        let has = [SHARD_INDEX, SHARD_COUNT].map(|name| reader.raw(name).is_some());
        let index = reader.parsed(SHARD_INDEX, "a number of a shard, from 0", shard::number);
        let count = reader.parsed(SHARD_COUNT, count, number_of);
        match (has, index.zip(count)) {
            ([true, false], _) => reader.problem(
                SHARD_COUNT,
                format_args!(
                    "not set, but {SHARD_INDEX} is; set it to the Job's completions, or say \
                     --shard 0/1 where each run is to take all items"
                ),
            ),
            ([false, true], _) => reader.problem(
                SHARD_INDEX,
                format_args!(
                    "not set, but {SHARD_COUNT} is; make the Job Indexed (completionMode), or say \
                     --shard I/N"
                ),
            ),
            (_, Some((index, count))) if index >= count => reader.problem(
                SHARD_INDEX,
                format_args!(
                    "found {index}; allowed: 0 to {} ({SHARD_COUNT} less 1)",
                    count - 1
                ),
            ),
            _ => {}
        }
        reader.finish(Some(
            index
                .zip(count)
                .and_then(|(index, count)| Shard::new(index, count)),
        ))
    }

    fn later(&self, name: &str) -> Option<OsString> {
        let (_, value) = self.later.iter().find(|(known, _)| *known == name)?;
        Some(value.clone())
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("bucket", &self.bucket)
            .field("zone", &self.zone)
            .field("temp_dir", &self.temp_dir)
            .field("umask", &self.umask)
            .field("config_path", &self.config_path)
            .field("log_format", &self.log_format)
            .field("log_level", &self.log_level)
            .field("termination_log", &self.termination_log)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("endpoint", &self.endpoint.as_str())
            .field("region", &self.region)
            .field("verify", &self.verify)
            .field("style", &self.style)
            .field("connect_timeout", &self.connect_timeout)
            .field("read_timeout", &self.read_timeout)
            .finish_non_exhaustive()
    }
}

/// Reads variables one by one and collects what is wrong.
struct Reader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<OsString>,
    problems: Vec<String>,
}

impl Reader<'_> {
    fn problem(&mut self, name: &str, text: impl fmt::Display) {
        self.problems.push(format!("{name}: {text}"));
    }

    fn finish<T>(self, whole: Option<T>) -> Result<T, Problems> {
        match whole {
            Some(whole) if self.problems.is_empty() => Ok(whole),
            _ => Err(Problems::new(self.problems)),
        }
    }

    /// Trimmed where it is text; `None` where nothing is left.
    fn raw(&self, name: &str) -> Option<OsString> {
        let value = (self.lookup)(name)?;
        let value = value
            .to_str()
            .map(|text| text.trim().into())
            .unwrap_or(value);
        (!value.as_bytes().is_empty()).then_some(value)
    }

    fn text(&mut self, name: &str) -> Option<String> {
        let text = self.raw(name)?.into_string();
        text.map_err(|_| self.problem(name, "found bytes that are no text; allowed: UTF-8"))
            .ok()
    }

    fn path(&self, name: &str, default: &str) -> PathBuf {
        self.raw(name).unwrap_or_else(|| default.into()).into()
    }

    /// A value that is no secret, so it is shown when it is wrong.
    fn parsed<T>(
        &mut self,
        name: &str,
        allowed: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(name)?;
        let value = parse(&text);
        if value.is_none() {
            self.problem(name, format_args!("found {text:?}; allowed: {allowed}"));
        }
        value
    }

    fn zone(&mut self) -> TimeZone {
        let allowed = "a name of the IANA time zone database such as Europe/Berlin, UTC, or not \
                       set (UTC)";
        let zone = |text: &str| TimeZone::get(text.strip_prefix(':').unwrap_or(text)).ok();
        self.parsed("TZ", allowed, zone).unwrap_or(TimeZone::UTC)
    }

    fn timeout(&mut self, name: &str, max_seconds: f64) -> Option<Duration> {
        let allowed = format!("seconds above 0 and up to {max_seconds}, such as 10, 10s or 0.5");
        self.parsed(name, &allowed, |text| seconds(text, max_seconds))
    }

    /// A value that goes into a header and never into a message.
    fn secret(&mut self, name: &str, is_required: bool) -> Option<String> {
        if is_required && self.raw(name).is_none() {
            self.problem(name, "not set; set it, a rule uses s3");
        }
        let text = self.text(name)?;
        if text.chars().any(char::is_control) {
            self.problem(
                name,
                "found a control character inside the value; allowed: none (is it two values, or \
                 a whole file?)",
            );
            return None;
        }
        Some(text)
    }

    /// What is wrong may hold a password, so nothing of it is shown.
    fn metrics(&mut self) -> Option<Metrics> {
        const NAME: &str = "BOTS_MOVER_METRICS";
        const ALLOWED: &str =
            "allowed: the http(s)://host:port of a Pushgateway, or a path that ends in .prom";
        let text = self.text(NAME)?;
        let target = if text.contains("://") {
            url_of(&text)
                .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
                .filter(|url| url.query().is_none() && url.fragment().is_none())
                .map(MetricsTarget::Pushgateway)
        } else {
            let path = PathBuf::from(text);
            let is_prom = path.extension().is_some_and(|end| end == "prom");
            is_prom.then_some(MetricsTarget::File(path))
        };
        if target.is_none() {
            self.problem(NAME, format_args!("found neither; {ALLOWED}"));
        }
        let namespace = self.text("POD_NAMESPACE");
        target.map(|target| Metrics { target, namespace })
    }

    fn endpoint(&mut self) -> Option<Url> {
        const NAME: &str = "MINIO_ENDPOINT";
        const ALLOWED: &str = "allowed: http://host:port or https://host:port";
        if self.raw(NAME).is_none() {
            self.problem(NAME, "not set; set it, a rule uses s3");
        }
        let text = self.text(NAME)?;
        if let Some(what) = odd_endpoint(&text) {
            self.problem(NAME, format_args!("found {what}; {ALLOWED}"));
            return None;
        }
        let url = if text.contains("://") {
            text
        } else {
            format!("http://{text}")
        };
        // What is wrong may be or hold a password, so nothing of it is shown.
        let Some(url) = url_of(&url) else {
            self.problem(NAME, format_args!("found no valid URL; {ALLOWED}"));
            return None;
        };
        let mut refuse = |what: &str| {
            self.problem(NAME, format_args!("found {what}; {ALLOWED}"));
        };
        let sound = [
            (
                matches!(url.scheme(), "http" | "https"),
                "another scheme than http or https",
            ),
            (
                url.username().is_empty() && url.password().is_none(),
                "a user or password (these go into MINIO_ACCESS_KEY and MINIO_SECRET_KEY)",
            ),
            (
                matches!(url.path(), "" | "/"),
                "a path (a bucket goes into the rules; MinIO is not served below a path)",
            ),
            (
                url.query().is_none() && url.fragment().is_none(),
                "a query or fragment",
            ),
            (url.has_host(), "no host"),
        ];
        for (_, what) in sound.iter().filter(|(is_sound, _)| !is_sound) {
            refuse(what);
        }
        sound.iter().all(|(is_sound, _)| *is_sound).then_some(url)
    }
}

/// What a URL's parser would only call no URL. Says nothing of the value: it may hold a password.
fn odd_endpoint(text: &str) -> Option<&'static str> {
    if text.starts_with(['"', '\'', '`']) || text.ends_with(['"', '\'', '`']) {
        return Some("quotes around the value (write it without them)");
    }
    let host = host_of(text.split_once("://").map_or(text, |(_, rest)| rest));
    if !host.is_ascii() {
        return Some("a host name that is not ASCII (write it as punycode, xn--...)");
    }
    let address = host.split('%').next().unwrap_or_default();
    // Also an address with a port behind it is one, of which nobody can tell where it ends.
    if address.parse::<std::net::Ipv6Addr>().is_ok() {
        return Some("an IPv6 address without brackets (write http://[address]:port)");
    }
    host.contains('%')
        .then_some("a percent sign in the host name (write the name as it is)")
}

/// A URL, where the text is one. The parser is not asked about a host with a percent sign or beyond
/// ASCII: it takes none, and a debug build ends at some. It passes over tabs and ends of lines
/// anywhere, so that none may be in the text.
fn url_of(text: &str) -> Option<Url> {
    let (scheme, rest) = text.split_once("://")?;
    let is_plain = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && !rest.contains(char::is_control)
        && host_of(rest).is_ascii()
        && !host_of(rest).contains('%');
    is_plain.then(|| Url::parse(text).ok()).flatten()
}

/// What stands for the host behind a scheme, with its port. A URL's parser passes over further
/// slashes.
fn host_of(rest: &str) -> &str {
    let rest = rest.trim_start_matches(['/', '\\']);
    let authority = rest.split(['/', '\\', '?', '#']).next();
    let host = authority.and_then(|all| all.rsplit('@').next());
    host.unwrap_or_default()
}

fn umask(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let is_octal = digits.bytes().all(|b| matches!(b, b'0'..=b'7'));
    u32::from_str_radix(digits, 8)
        .ok()
        .filter(|mask| is_octal && *mask <= MAX_UMASK)
}

fn verify(text: &str) -> Option<Verify> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Some(Verify::Public),
        "false" => Some(Verify::Off),
        _ => text.contains('/').then(|| Verify::Bundle(text.into())),
    }
}

fn style(text: &str) -> Option<Addressing> {
    match text {
        "path" => Some(Addressing::Path),
        "virtual" => Some(Addressing::Virtual),
        _ => None,
    }
}

fn seconds(text: &str, max_seconds: f64) -> Option<Duration> {
    let number = text.strip_suffix('s').unwrap_or(text).trim_end();
    let is_plain = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let seconds: f64 = number.parse().ok().filter(|_| is_plain)?;
    let allowed = seconds <= max_seconds;
    let duration = Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|_| allowed)?;
    (!duration.is_zero()).then_some(duration)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Environment, Problems> {
        Environment::read(&|name| {
            let (_, value) = variables.iter().find(|(known, _)| *known == name)?;
            Some(value.into())
        })
    }

    fn connection(more: &[(&str, &str)]) -> Result<Connection, String> {
        let mut variables = more.to_vec();
        variables.extend([
            ("MINIO_ENDPOINT", "minio:9000"),
            ("MINIO_ACCESS_KEY", "access\n"),
            ("MINIO_SECRET_KEY", " hush \n"),
        ]);
        let environment = read(&variables).expect("an environment");
        environment.connection().map_err(|all| all.to_string())
    }

    #[test]
    fn nothing_set_gives_the_documented_defaults() {
        let environment = read(&[("TZ", ""), ("MINIO_BUCKET", " \n")]).expect("an environment");
        assert_eq!(environment.bucket, None);
        assert_eq!(environment.zone, TimeZone::UTC);
        assert_eq!(environment.temp_dir, PathBuf::from("/tmp"));
        assert_eq!(environment.umask, None);
        assert_eq!(environment.config_path, PathBuf::from(DEFAULT_CONFIG_PATH));
        assert_eq!(environment.log_format, Format::Text);
        assert_eq!(environment.log_level, Level::Info);
        let log = PathBuf::from(DEFAULT_TERMINATION_LOG);
        assert_eq!(environment.termination_log, log);
        let missing = environment.connection().expect_err("no connection");
        let expected = ["MINIO_ENDPOINT", "MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"]
            .map(|name| format!("{name}: not set; set it, a rule uses s3"));
        assert_eq!(missing.lines(), expected);
    }

    #[test]
    fn metrics_go_to_an_url_or_a_prom_file_and_what_is_wrong_is_not_shown() {
        for (value, is_file) in [
            ("http://u:hunter2@push:9091\n", false),
            ("https://push.example/below", false),
            ("/var/lib/node-exporter/bots-mover.prom", true),
        ] {
            let variables = [("BOTS_MOVER_METRICS", value), ("POD_NAMESPACE", "edi")];
            let environment = read(&variables).expect(value);
            let metrics = environment.metrics.expect(value);
            assert_eq!(metrics.namespace.as_deref(), Some("edi"));
            assert_eq!(matches!(metrics.target, MetricsTarget::File(_)), is_file);
        }
        for value in [
            "hunter2",
            "push:9091",
            "/tmp/hunter2.txt",
            "/tmp/.prom",
            "ftp://hunter2/",
            "http://u:hunter2@",
            "http://push/?hunter2",
            "http://push/#hunter2",
        ] {
            let Err(wrong) = read(&[("BOTS_MOVER_METRICS", value), ("TZ", "no")]) else {
                panic!("{value} is accepted");
            };
            let wrong = wrong.to_string();
            assert!(
                wrong.contains("BOTS_MOVER_METRICS: found neither"),
                "{wrong}"
            );
            assert!(!wrong.contains("hunter2"), "{wrong}");
        }
    }

    #[test]
    fn values_are_read_and_trimmed() {
        let environment = read(&[
            ("MINIO_BUCKET", "edi\n"),
            ("TZ", ":Europe/Berlin"),
            ("TMPDIR", "/staging"),
            ("BOTS_MOVER_UMASK", "0027"),
            ("BOTS_MOVER_CONFIG", "-"),
            ("BOTS_MOVER_LOG_FORMAT", "json"),
            ("BOTS_MOVER_LOG_LEVEL", "debug"),
            ("BOTS_MOVER_TERMINATION_LOG", "/t"),
        ])
        .expect("an environment");
        assert_eq!(environment.bucket.as_deref(), Some("edi"));
        assert_eq!(environment.zone.iana_name(), Some("Europe/Berlin"));
        assert_eq!(environment.temp_dir, PathBuf::from("/staging"));
        assert_eq!(environment.umask, Some(0o027));
        assert_eq!(environment.config_path, PathBuf::from("-"));
        assert_eq!(environment.log_format, Format::Json);
        assert_eq!(environment.log_level, Level::Debug);
        assert_eq!(environment.termination_log, PathBuf::from("/t"));
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let wrong = read(&[
            ("TZ", "Europe/Berlyn"),
            ("BOTS_MOVER_UMASK", "0888"),
            ("BOTS_MOVER_LOG_FORMAT", "xml"),
            ("BOTS_MOVER_LOG_LEVEL", "trace"),
        ])
        .expect_err("problems")
        .to_string();
        let lines: Vec<&str> = wrong.lines().collect();
        assert!(lines[0].starts_with(r#"TZ: found "Europe/Berlyn"; allowed: a name"#));
        assert!(lines[1].starts_with("BOTS_MOVER_UMASK: found \"0888\"; allowed: an octal"));
        assert_eq!(
            lines[2],
            "BOTS_MOVER_LOG_FORMAT: found \"xml\"; allowed: text, json"
        );
        assert!(lines[3].starts_with("BOTS_MOVER_LOG_LEVEL: found \"trace\""));
        assert_eq!(lines.len(), 4);
        assert!(read(&[("BOTS_MOVER_UMASK", "1000")]).is_err());
    }

    #[test]
    fn connection_has_its_defaults_and_trimmed_secrets() {
        let connection = connection(&[]).expect("a connection");
        assert_eq!(connection.endpoint.as_str(), "http://minio:9000/");
        assert_eq!(connection.access_key, "access");
        assert_eq!(connection.secret_key, "hush");
        assert_eq!(connection.session_token, None);
        assert_eq!(connection.region, "us-east-1");
        assert_eq!(connection.verify, Verify::Public);
        assert_eq!(connection.style, Addressing::Path);
        assert_eq!(connection.connect_timeout, Duration::from_secs(10));
        assert_eq!(connection.read_timeout, Duration::from_secs(60));
    }

    #[test]
    fn connection_options_are_read() {
        let connection = connection(&[
            ("MINIO_ENDPOINT", "https://minio.example:9443/"),
            ("MINIO_SESSION_TOKEN", "token"),
            ("MINIO_REGION", "eu"),
            ("MINIO_VERIFY", "/ca/bundle.pem"),
            ("MINIO_ADDRESSING_STYLE", "virtual"),
            ("MINIO_CONNECT_TIMEOUT", "0.5"),
            ("MINIO_READ_TIMEOUT", "90s"),
        ])
        .expect("a connection");
        assert_eq!(connection.endpoint.as_str(), "https://minio.example:9443/");
        assert_eq!(connection.session_token.as_deref(), Some("token"));
        assert_eq!(connection.region, "eu");
        assert_eq!(connection.verify, Verify::Bundle("/ca/bundle.pem".into()));
        assert_eq!(connection.style, Addressing::Virtual);
        assert_eq!(connection.connect_timeout, Duration::from_millis(500));
        assert_eq!(connection.read_timeout, Duration::from_secs(90));
    }

    #[test]
    fn wrong_connection_values_are_told_without_secrets() {
        let cases = [
            ("MINIO_ENDPOINT", "http://u:hunter2@minio"),
            ("MINIO_ENDPOINT", "u:hunter2@minio:9000"),
            ("MINIO_ENDPOINT", "https://minio/hunter2"),
            ("MINIO_ENDPOINT", "https://minio?hunter2"),
            ("MINIO_ENDPOINT", "https://minio/#hunter2"),
            ("MINIO_ENDPOINT", "ftp://hunter2"),
            ("MINIO_ENDPOINT", "http://hunter2:port"),
            ("MINIO_ENDPOINT", "http://"),
            ("MINIO_SECRET_KEY", "hunter2\nhunter2"),
            ("MINIO_ACCESS_KEY", "hunter2\thunter2"),
            ("MINIO_SESSION_TOKEN", "hunter2\u{7}"),
            ("MINIO_VERIFY", "flase"),
            ("MINIO_ADDRESSING_STYLE", "auto"),
            ("MINIO_CONNECT_TIMEOUT", "0"),
            ("MINIO_CONNECT_TIMEOUT", "-1"),
            ("MINIO_CONNECT_TIMEOUT", "inf"),
            ("MINIO_CONNECT_TIMEOUT", "86401"),
            ("MINIO_READ_TIMEOUT", "1800.5"),
            ("MINIO_READ_TIMEOUT", "1m"),
            ("MINIO_READ_TIMEOUT", "1e300"),
            ("MINIO_READ_TIMEOUT", "."),
        ];
        for (name, value) in cases {
            let wrong = connection(&[(name, value)]).expect_err(value);
            assert!(wrong.starts_with(name), "{name}={value}: {wrong}");
            assert_eq!(wrong.lines().count(), 1, "{name}={value}: {wrong}");
            assert!(!wrong.contains("hunter2"), "{name}={value}: {wrong}");
        }
        let address = ("MINIO_ENDPOINT", "http://10.0.0.1:9000");
        let wrong = connection(&[address, ("MINIO_ADDRESSING_STYLE", "virtual")]);
        assert!(wrong.expect_err("no name").contains("IP address"));
    }

    #[test]
    fn read_timeout_is_at_most_half_an_hour_and_the_limit_is_named() {
        let longest = connection(&[("MINIO_READ_TIMEOUT", "1800")]).expect("a connection");
        assert_eq!(longest.read_timeout, Duration::from_mins(30));
        let wrong = connection(&[("MINIO_READ_TIMEOUT", "3600")]).expect_err("too long");
        assert!(wrong.contains("up to 1800"), "{wrong}");
    }

    #[test]
    fn credential_may_hold_a_blank() {
        let spaced = connection(&[("MINIO_SECRET_KEY", " hush hush \n")]).expect("a connection");
        assert_eq!(spaced.secret_key, "hush hush");
    }

    #[test]
    fn endpoint_in_quotes_ipv6_without_brackets_or_not_ascii_is_named_as_that() {
        let cases = [
            ("\"http://minio:9000\"", "quotes"),
            ("'minio:9000'", "quotes"),
            (
                "https://mini\u{f6}.example",
                "not ASCII (write it as punycode",
            ),
            ("::1", "IPv6 address without brackets"),
            ("http://fd00::1:9000", "IPv6 address without brackets"),
            ("https://fe80::1%eth0/", "IPv6 address without brackets"),
            ("http://MINIO%C3%B6:9000", "percent sign in the host name"),
            ("u:pass@A%EE", "percent sign in the host name"),
            ("http:/A%EE://", "no valid URL"),
            ("//A%EE", "percent sign in the host name"),
            ("http://u:p\u{f6}@minio:9000", "a user or password"),
            ("http:///\t/A\u{f6}", "no valid URL"),
        ];
        for (value, says) in cases {
            let wrong = connection(&[("MINIO_ENDPOINT", value)]).expect_err(value);
            assert!(wrong.contains(says), "{value}: {wrong}");
            assert_eq!(wrong.lines().count(), 1, "{wrong}");
        }
        let bracketed = connection(&[("MINIO_ENDPOINT", "[::1]:9000")]).expect("a connection");
        assert_eq!(bracketed.endpoint.as_str(), "http://[::1]:9000/");
    }

    #[test]
    fn pushgateway_whose_host_no_parser_takes_is_refused() {
        for value in [
            "http://A%EE:9091",
            "http://u:p@G\u{f6}:9091",
            "http:/A%EE://b",
            "http:////A%EE",
            "http:///\t/A\u{f6}",
        ] {
            let names = [("BOTS_MOVER_METRICS", value)];
            let wrong = read(&names).expect_err(value).to_string();
            assert!(wrong.contains("found neither"), "{value}: {wrong}");
        }
        for value in [
            "https://u:p%40@push:9091/a%20b",
            "http://u:p\u{f6} @push:9091/a b",
        ] {
            assert!(read(&[("BOTS_MOVER_METRICS", value)]).is_ok(), "{value}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let token = ("MINIO_SESSION_TOKEN", "hush");
        let connection = connection(&[token]).expect("a connection");
        let environment = read(&[token, ("MINIO_SECRET_KEY", "hush")]).expect("an environment");
        let shown = format!("{connection:?} {environment:?}");
        assert!(
            !shown.contains("hush") && !shown.contains("access\""),
            "{shown}"
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_fine_only_in_paths() {
        let odd = |name: &str| Some(OsString::from_vec(vec![b'/', 0xff])).filter(|_| name != "TZ");
        let wrong = Environment::read(&odd).expect_err("problems").to_string();
        assert!(wrong.contains("MINIO_BUCKET: found bytes that are no text"));
        assert!(!wrong.contains("TMPDIR") && !wrong.contains("BOTS_MOVER_CONFIG"));
    }
}
