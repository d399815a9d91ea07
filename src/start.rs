//! From arguments, environment and config to a run.
//!
//! Whatever is wrong with these is told before anything is touched, all of it at once.

use std::ffi::OsString;
use std::io::{IsTerminal as _, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;

use crate::cli::{self, Args, Command};
use crate::config::{self, CONFIG_MAX_BYTES, Problems, near};
use crate::connect::connect;
use crate::context::Context;
use crate::environment::{self, Connection, Environment, Metrics, Verify};
use crate::error::Error;
use crate::logger::{Level, Logger, Terminal};
use crate::metrics::{self, Report};
use crate::object::Place;
use crate::open::RealStores;
use crate::rule::{Config, LocalTime};
use crate::run::{World, run};
use crate::shard::Shard;
use crate::status::Screen;
use crate::store::s3::Client;
use crate::summary::{EXIT_DONE, EXIT_FAILED, EXIT_USAGE, Figures};
use crate::text::shown;
use crate::{check, explain, graph, relations, signal};

/// What a termination message may hold, in bytes.
/// <https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/>
const TERMINATION_MAX_BYTES: usize = 4096;

/// What the process is given from outside.
pub struct Outside<'a> {
    /// The words that follow the program's name.
    pub arguments: Vec<OsString>,
    /// A variable of the environment.
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// The time now.
    pub clock: fn() -> Timestamp,
    /// The working directory.
    pub directory: PathBuf,
}

/// How it ended.
pub enum Done {
    /// A run, with its exit code; the log said the rest.
    Ran(u8),
    /// A text for standard output, and the exit code.
    Said(String, u8),
    /// What is wrong, for standard error; nothing was touched.
    Refused(String),
}

/// Does what the arguments ask for.
pub fn start(outside: Outside<'_>) -> Done {
    match begin(outside) {
        Ok(done) => done,
        Err(text) => Done::Refused(text),
    }
}

fn begin(outside: Outside<'_>) -> Result<Done, String> {
    let args = cli::parse(outside.arguments)?;
    match args.command {
        Command::Help => return Ok(Done::Said(cli::HELP.into(), EXIT_DONE)),
        Command::Schema => return Ok(Done::Said(config::json_schema(), EXIT_DONE)),
        Command::Version => {
            let version = concat!("bots-mover ", env!("CARGO_PKG_VERSION"), "\n");
            return Ok(Done::Said(version.into(), EXIT_DONE));
        }
        _ => {}
    }
    let tell = |metrics: Option<Metrics>, text: String| {
        let runs = matches!(args.command, Command::Run | Command::OneOff { .. }) && !args.dry_run;
        refused(metrics.filter(|_| runs).as_ref(), (outside.clock)(), text)
    };
    let environment = Environment::read(outside.variable);
    let environment = environment
        .map_err(|problems| tell(environment::metrics(outside.variable), told(problems)))?;
    let result = prepared(&args, &environment, outside.clock, &outside.directory);
    result.map_err(|text| {
        leave_message(&environment.termination_log, &text);
        tell(environment.metrics, text)
    })
}

/// Tells that a run was refused for what `text` says; gives that, with what went wrong in telling.
fn refused(metrics: Option<&Metrics>, at: Timestamp, text: String) -> String {
    let report = Report {
        rules: &[],
        code: EXIT_USAGE,
        shard: None,
        at,
    };
    let delivered = metrics.map(|metrics| metrics::deliver(metrics, &Verify::Public, &report));
    match delivered {
        Some(Err(error)) => format!("{text}\nwarning: {}", error.chain()),
        _ => text,
    }
}

fn prepared(
    args: &Args,
    environment: &Environment,
    clock: fn() -> Timestamp,
    directory: &Path,
) -> Result<Done, String> {
    let mut config = read_config(args, environment, directory)?;
    keep_rules(&mut config, &args.rules)?;
    if args.command != Command::Graph {
        let shard = args.shard.map(|shard| Ok(Some(shard)));
        config.shard = shard.unwrap_or_else(|| environment.shard()).map_err(told)?;
    }
    let of_shards = relations::shard_warnings(&config);
    config.warnings.extend(of_shards);
    let instant = LocalTime {
        at: clock(),
        zone: environment.zone.clone(),
    };
    let failing = relations::failing_examples(&config, &instant);
    if !failing.is_empty() {
        return Err(failing.join("\n"));
    }
    match &args.command {
        Command::Explain { name } => {
            let (text, taken) = explain::explain(&config, name, &instant);
            return Ok(Done::Said(
                text,
                if taken { EXIT_DONE } else { EXIT_FAILED },
            ));
        }
        Command::Graph => return Ok(Done::Said(graph::chart(&config), EXIT_DONE)),
        Command::Check { connect: false } => {
            return Ok(Done::Said(check::table(&config, &instant), EXIT_DONE));
        }
        _ => {}
    }
    let needs_s3 = config.rules.iter().any(|rule| {
        [&rule.source, &rule.dest]
            .iter()
            .any(|place| matches!(place, Place::S3 { .. }))
    });
    let connection = needs_s3
        .then(|| environment.connection())
        .transpose()
        .map_err(told)?;
    if let Some(umask) = environment.umask {
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(umask));
    }
    let context = Arc::new(Context::new(clock, environment.temp_dir.clone()));
    let client = connection
        .as_ref()
        .map(|connection| Client::new(connection, config.concurrency, Arc::clone(&context)))
        .transpose()
        .map_err(|error| error.chain())?;
    let stores = RealStores { client, context };
    match args.command {
        Command::Check { .. } => try_out(&config, &instant, &stores),
        _ => real_run(
            args,
            &config,
            environment,
            connection.as_ref(),
            &instant,
            &stores,
        ),
    }
}

fn try_out(config: &Config, instant: &LocalTime, stores: &RealStores) -> Result<Done, String> {
    // A reader that closes the pipe early has read enough.
    let print = |text: &str| _ = std::io::stdout().write_all(text.as_bytes());
    signal::watch(&stores.context, move |_| {
        print("connect  a probe did not end in time\n");
    })
    .map_err(unwatched)?;
    print(&check::table(config, instant));
    let code = connect(config, stores, &mut |line| print(&check::as_line(line)));
    Ok(Done::Ran(code))
}

fn real_run(
    args: &Args,
    config: &Config,
    environment: &Environment,
    connection: Option<&Connection>,
    instant: &LocalTime,
    stores: &RealStores,
) -> Result<Done, String> {
    let context = &stores.context;
    let log = Logger::new(
        args.log_format.unwrap_or(environment.log_format),
        args.log_level.unwrap_or(environment.log_level),
        context.clock,
        Box::new(std::io::stdout()),
    );
    let log = Arc::new(log.at(terminal(environment)));
    let late = Arc::clone(&log);
    let late_message = environment.termination_log.clone();
    let deliver = deliverer(
        environment.metrics.clone(),
        args.dry_run,
        connection,
        config.shard.map(Shard::index),
        context.clock,
    );
    let late_deliver = deliver.clone();
    let over = Arc::new(AtomicBool::new(false));
    let was_over = Arc::clone(&over);
    signal::watch(context, move |signal| {
        if was_over.load(Ordering::SeqCst) {
            return;
        }
        late.event(Level::Error, "run_done")
            .number("exit", 128 + signal)
            .number("signal", signal)
            .text(
                "note",
                "items in flight did not end in time and were left as they are",
            )
            .emit();
        leave_message(&late_message, &last_words(&late));
        let _ = late_deliver(&[], u8::try_from(128 + signal).unwrap_or(u8::MAX));
    })
    .map_err(unwatched)?;
    if connection.is_some_and(|connection| matches!(connection.verify, Verify::Off)) {
        log.event(Level::Warn, "warning")
            .text(
                "reason",
                "MINIO_VERIFY=false: whoever answers for MinIO is believed",
            )
            .emit();
    }
    let world = World {
        context,
        log: &log,
        instant,
        dry_run: args.dry_run,
    };
    let ended = run(config, stores, &world);
    over.store(true, Ordering::SeqCst);
    leave_message(&environment.termination_log, &last_words(&log));
    if let Err(error) = deliver(&ended.rules, ended.code) {
        log.event(Level::Warn, "warning")
            .text("reason", &error.chain())
            .emit();
    }
    Ok(Done::Ran(ended.code))
}

/// What tells how a run ended, where that is wanted; a rehearsal tells nobody.
fn deliverer(
    metrics: Option<Metrics>,
    dry_run: bool,
    connection: Option<&Connection>,
    shard: Option<u32>,
    clock: fn() -> Timestamp,
) -> impl Fn(&[Figures], u8) -> Result<(), Error> + Clone + Send + 'static {
    let metrics = metrics.filter(|_| !dry_run);
    let verify = connection.map_or(Verify::Public, |connection| connection.verify.clone());
    move |rules, code| {
        let report = Report {
            rules,
            code,
            shard,
            at: clock(),
        };
        let metrics = metrics.as_ref();
        metrics.map_or(Ok(()), |metrics| {
            metrics::deliver(metrics, &verify, &report)
        })
    }
}

fn terminal(environment: &Environment) -> Terminal {
    let (stdout, stderr) = (std::io::stdout().is_terminal(), std::io::stderr());
    Terminal {
        stdout,
        colour: stdout && !environment.no_color && !environment.dumb,
        screen: stderr
            .is_terminal()
            .then(|| Screen::new(stderr, environment.dumb)),
    }
}

fn read_config(args: &Args, environment: &Environment, directory: &Path) -> Result<Config, String> {
    let bucket = environment.bucket.as_deref();
    if let Command::OneOff {
        mode,
        source,
        dest,
        options,
    } = &args.command
    {
        return config::one_off(*mode, source, dest, options, directory, bucket).map_err(told);
    }
    let path = args
        .config
        .as_deref()
        .map_or(environment.config_path.as_path(), Path::new);
    let (origin, text) = if path == Path::new("-") {
        ("standard input".into(), read_bounded(std::io::stdin()))
    } else {
        (
            path.to_string_lossy(),
            std::fs::File::open(path).and_then(read_bounded),
        )
    };
    let text = text.map_err(|error| {
        format!("read the config {origin}: {error}; --config or BOTS_MOVER_CONFIG names it")
    })?;
    config::parse(&text, &origin, bucket).map_err(told)
}

fn read_bounded(from: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    from.take(CONFIG_MAX_BYTES as u64 + 1)
        .read_to_string(&mut text)?;
    if text.len() > CONFIG_MAX_BYTES {
        return Err(std::io::Error::other("it is longer than 1 MiB"));
    }
    Ok(text)
}

fn keep_rules(config: &mut Config, wanted: &[String]) -> Result<(), String> {
    let names: Vec<&str> = config.rules.iter().map(|rule| rule.name.as_str()).collect();
    for name in wanted {
        if !names.contains(&name.as_str()) {
            let near = near(name, &names).map(|near| format!("did you mean {}? ", shown(near)));
            let near = near.unwrap_or_default();
            return Err(format!(
                "--rule {}: no such rule; {near}there are {}",
                shown(name),
                names
                    .iter()
                    .map(|name| shown(name))
                    .collect::<Vec<_>>()
                    .join(", ")
            ));
        }
    }
    if !wanted.is_empty() {
        config.rules.retain(|rule| wanted.contains(&rule.name));
    }
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "made for map_err")]
fn unwatched(error: std::io::Error) -> String {
    format!("listen for signals: {error}")
}

#[expect(clippy::needless_pass_by_value, reason = "made for map_err")]
fn told(problems: Problems) -> String {
    problems.to_string()
}

/// The first failure, as much of it as there is room for, and the last line, which is how it ended.
fn last_words(log: &Logger) -> String {
    let last = log.last_line();
    match log.first_error() {
        Some(first) if first != last => {
            let room = TERMINATION_MAX_BYTES.saturating_sub(last.len() + 1);
            format!("{}\n{last}", beginning(&first, room))
        }
        _ => last,
    }
}

/// In a pod the last words go where `kubectl describe` shows them. Only where the file is there.
fn leave_message(path: &Path, text: &str) {
    let file = std::fs::File::options()
        .write(true)
        .truncate(true)
        .open(path);
    if let Ok(mut file) = file {
        // The exit code and the log say the same; a pod without the file is no failure.
        let _ = file.write_all(beginning(text, TERMINATION_MAX_BYTES).as_bytes());
    }
}

fn beginning(text: &str, max_bytes: usize) -> &str {
    let end = (0..=text.len().min(max_bytes))
        .rev()
        .find(|&at| text.is_char_boundary(at));
    &text[..end.unwrap_or(0)]
}
