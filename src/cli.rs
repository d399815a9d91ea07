//! The command line: arguments to [`Args`], and the one text that `--help` prints.
//!
//! Every argument that is left over is an error; a flag that looks like a known one names it.

use std::ffi::OsString;

use crate::config::{self, ONE_OFF_OPTIONS};
use crate::logger::{Format, Level};
use crate::rule::Mode;
use crate::shard::Shard;

/// What `--help` prints; fits one screen.
pub const HELP: &str = "\
bots-mover moves files between MinIO buckets and directories, by rules in YAML.

  bots-mover [run]            run all rules once
  bots-mover check            validate the config and print each rule as resolved
  bots-mover schema           the JSON Schema of the config, for editors and CI
  bots-mover explain NAME     which rule takes a key, path or name, and what it becomes
  bots-mover graph            the rules as a Mermaid flowchart
  bots-mover move SRC DEST    one rule from the command line; SRC and DEST are
  bots-mover copy SRC DEST    s3://bucket/prefix or a path

      --config PATH           the rules; - reads standard input
                              [BOTS_MOVER_CONFIG, else /config/config.yaml]
      --rule NAME             only this rule; may be repeated
      --shard I/N             only what falls to shard I of N, 0 to N-1; without it
                              from JOB_COMPLETION_INDEX and BOTS_MOVER_SHARDS
      --dry-run               say what would happen, write and delete nothing
      --log-format FORMAT     text or json                [BOTS_MOVER_LOG_FORMAT]
      --log-level LEVEL       error, warn, info or debug  [BOTS_MOVER_LOG_LEVEL]
      --connect               check: also try what a run needs; exit 1 if any fails
      --help, --version

For move and copy, every key of a rule: --glob or --regex, --rename-regex with
--rename-replace, --max-items, --retries, --wait-seconds, --recursive, --if-exists,
--min-age-seconds, --lock-file, --concurrency, --shard-by.

MinIO: MINIO_ENDPOINT, MINIO_ACCESS_KEY, MINIO_SECRET_KEY; optional MINIO_BUCKET,
MINIO_REGION, MINIO_SESSION_TOKEN, MINIO_VERIFY, MINIO_ADDRESSING_STYLE,
MINIO_CONNECT_TIMEOUT, MINIO_READ_TIMEOUT. Also TZ, TMPDIR, BOTS_MOVER_UMASK, NO_COLOR,
BOTS_MOVER_METRICS (the URL of a Pushgateway, or a path that ends in .prom).

Exit codes: 0 all rules done; 1 a rule failed; 2 the command line, environment or
config is wrong and nothing was touched; 128+n stopped by signal n.
";

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Run the rules of the config.
    Run,
    /// Validate the config; with `connect` also try the stores.
    Check {
        /// Whether to try the stores.
        connect: bool,
    },
    /// Draw the rules.
    Graph,
    /// Say which rule takes a name.
    Explain {
        /// A key, a path, or a bare name.
        name: String,
    },
    /// Run one rule from the command line.
    OneOff {
        /// Move or copy.
        mode: Mode,
        /// `s3://bucket/prefix` or a path.
        source: String,
        /// `s3://bucket/prefix` or a path.
        dest: String,
        /// Rule keys with dashes, without the leading ones, and their values.
        options: Vec<(String, String)>,
    },
    /// Print the JSON Schema of the config.
    Schema,
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
}

/// The command line as it was meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Args {
    /// What is to be done.
    pub command: Command,
    /// Where the config is; `-` is standard input.
    pub config: Option<String>,
    /// Only these rules; empty is all.
    pub rules: Vec<String>,
    /// Only the items of this shard.
    pub shard: Option<Shard>,
    /// Say what would happen only.
    pub dry_run: bool,
    /// How log lines look.
    pub log_format: Option<Format>,
    /// How chatty the log is.
    pub log_level: Option<Level>,
}

const FLAGS: &[&str] = &[
    "--config",
    "--rule",
    "--shard",
    "--dry-run",
    "--log-format",
    "--log-level",
    "--connect",
    "--help",
    "--version",
];

const COMMANDS: &[&str] = &["run", "check", "schema", "explain", "graph", "move", "copy"];

/// Reads the arguments that follow the program's name.
///
/// # Errors
/// A text for standard error that says what to write instead.
pub fn parse(arguments: Vec<OsString>) -> Result<Args, String> {
    let mut given = pico_args::Arguments::from_vec(arguments);
    let say = |error: pico_args::Error| error.to_string();
    if given.contains(["-h", "--help"]) {
        return Ok(Args::only(Command::Help));
    }
    if given.contains(["-V", "--version"]) {
        return Ok(Args::only(Command::Version));
    }
    let config = given.opt_value_from_str("--config").map_err(say)?;
    let rules = given.values_from_str("--rule").map_err(say)?;
    let shard = given.opt_value_from_fn("--shard", shard).map_err(say)?;
    let dry_run = given.contains("--dry-run");
    let connect = given.contains("--connect");
    let log_format = given
        .opt_value_from_fn("--log-format", log_format)
        .map_err(say)?;
    let log_level = given
        .opt_value_from_fn("--log-level", log_level)
        .map_err(say)?;
    let mut options = Vec::new();
    for name in ONE_OFF_OPTIONS {
        let flag: &'static str = name;
        if let Some(value) = given.opt_value_from_str(flag).map_err(say)? {
            options.push((name.trim_start_matches("--").to_owned(), value));
        }
    }
    let rest = words(given.finish())?;
    let command = command(&rest, options, connect)?;
    let one_off = matches!(command, Command::OneOff { .. });
    if one_off && (config.is_some() || !rules.is_empty()) {
        return Err(
            "`move` and `copy` are a rule of their own: leave out --config and --rule".into(),
        );
    }
    if command == Command::Schema && (config.is_some() || !rules.is_empty()) {
        return Err("`schema` is the same for every config: leave out --config and --rule".into());
    }
    if shard.is_some() && matches!(command, Command::Schema | Command::Graph) {
        return Err("--shard goes with run, check, explain, move and copy".into());
    }
    if dry_run && !one_off && command != Command::Run {
        return Err("--dry-run goes with run, move and copy".into());
    }
    Ok(Args {
        command,
        config,
        rules,
        shard,
        dry_run,
        log_format,
        log_level,
    })
}

impl Args {
    fn only(command: Command) -> Self {
        Self {
            command,
            config: None,
            rules: Vec::new(),
            shard: None,
            dry_run: false,
            log_format: None,
            log_level: None,
        }
    }
}

fn shard(text: &str) -> Result<Shard, String> {
    let allowed = "--shard is I/N, such as 0/4, with I from 0 to N-1";
    Shard::parse(text).ok_or_else(|| allowed.into())
}

fn log_format(text: &str) -> Result<Format, String> {
    Format::from_name(text).ok_or_else(|| "--log-format is text or json".into())
}

fn log_level(text: &str) -> Result<Level, String> {
    Level::from_name(text).ok_or_else(|| "--log-level is error, warn, info or debug".into())
}

/// What is left when all known flags are taken: words; a flag among them is unknown or doubled.
fn words(rest: Vec<OsString>) -> Result<Vec<String>, String> {
    rest.into_iter()
        .map(|word| {
            let Ok(word) = word.into_string() else {
                return Err("an argument is not UTF-8".to_owned());
            };
            if !word.starts_with('-') || word == "-" {
                return Ok(word);
            }
            let flag = word.split('=').next().unwrap_or(&word);
            let known: Vec<&str> = FLAGS.iter().chain(ONE_OFF_OPTIONS).copied().collect();
            Err(if known.contains(&flag) {
                format!("{flag} is given twice")
            } else {
                match config::near(flag, &known) {
                    Some(near) => format!("{flag} is not known; did you mean {near}?"),
                    None => format!("{flag} is not known; see bots-mover --help"),
                }
            })
        })
        .collect()
}

fn command(
    words: &[String],
    options: Vec<(String, String)>,
    connect: bool,
) -> Result<Command, String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let one_off = |mode, source: &str, dest: &str, options| Command::OneOff {
        mode,
        source: source.to_owned(),
        dest: dest.to_owned(),
        options,
    };
    if let ["move" | "copy", ends @ ..] = words.as_slice() {
        let mode = if words[0] == "move" {
            Mode::Move
        } else {
            Mode::Copy
        };
        return match ends {
            [source, dest] => Ok(one_off(mode, source, dest, options)),
            _ => Err(format!(
                "`{}` takes a SRC and a DEST, each s3://bucket/prefix or a path",
                words[0]
            )),
        };
    }
    if let Some((option, _)) = options.first() {
        return Err(format!(
            "--{option} goes with move and copy; rules have it in the config"
        ));
    }
    if connect && words != ["check"] {
        return Err("--connect goes with check".into());
    }
    match words.as_slice() {
        [] | ["run"] => Ok(Command::Run),
        ["check"] => Ok(Command::Check { connect }),
        ["schema"] => Ok(Command::Schema),
        ["graph"] => Ok(Command::Graph),
        ["explain", name] => Ok(Command::Explain {
            name: (*name).to_owned(),
        }),
        ["explain", ..] => Err("`explain` takes one name: a key, a path, or a bare name".into()),
        [word @ ("run" | "check" | "schema" | "graph"), extra, ..] => {
            Err(format!("`{word}` takes no further word, found `{extra}`"))
        }
        [word, ..] => Err(match config::near(word, COMMANDS) {
            Some(near) => format!("`{word}` is no command; did you mean `{near}`?"),
            None => format!("`{word}` is no command; there are {}", COMMANDS.join(", ")),
        }),
    }
}
