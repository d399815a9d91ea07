//! `bots-mover` moves files between MinIO buckets and the directories of a Bots EDI installation,
//! by rules in YAML, once per run. It keeps no state: the sources themselves say what is left.
//!
//! # A run from above
//!
//! ```text
//! arguments, environment, YAML ──> Config         cli, environment, config  decide: pure,
//! listing of each rule ──────────> Selected       store::list, plan         nothing touched
//! names, claims ─────────────────> Task           plan
//!                                    │
//!                     Schedule: one lane a rule, shared by the workers         schedule, run
//!                                    │
//! each Task: ready ─> stage ─> publish ─> remove  transfer over two Stores     act
//!                                    │
//! outcomes ─────────────────────> Tally, exit code, log lines                  summary, logger
//! ```
//!
//! # Invariants
//!
//! - The source is removed only after the destination is whole and durable, and only if the source
//!   still is what was staged (`transfer`).
//! - Readers of a destination see nothing or the whole item; `store` publishes in one function.
//! - Only `store::local` and `part` create, rename, link or remove files; only `logger` prints
//!   events, and with `status` the last line of a terminal; only `context`, `schedule` and `signal`
//!   wait; only `main` asks for the time of day and the environment.
//! - No text holds a credential, a signature or a URL with a query string (`error`).
//! - Memory does not grow with an object's size, nor with the entries that a listing passes over.
//!   It does with the items that are taken, up to `max_items` of each rule, with those that a
//!   further listing of files keeps (10,000 of each rule at the most), and with the names of the
//!   directories that a recursive listing has still to read.
//! - A file imports only from the files below it in the list that follows (`tests/it/tidy.rs`).
//!
//! # Where to find what
//!
//! | file | responsible for |
//! | --- | --- |
//! | `main.rs` | the process: its streams and exit code |
//! | `start` | arguments, environment and config to a run |
//! | `cli` | the command line and `--help` |
//! | `signal` | SIGTERM and SIGINT to the stop flag of `context` |
//! | `graph`, `check`, `connect`, `explain` | what an operator asks before a run |
//! | `open` | the stores of a real run |
//! | `metrics` | what a run tells a Pushgateway, or a `.prom` file |
//! | `run` | the shell: threads, attempts, outcomes counted and told |
//! | `round` | one round of a rule: select, say what is left alone, claim |
//! | `lane` | a rule in the run: its two ends and how far it is |
//! | `report` | what the log says of a run, event by event |
//! | `schedule` | who works on what next: fairness, order, waits, halts |
//! | `summary` | counts and the exit code |
//! | `transfer` | one item: ready, stage, publish, remove |
//! | `plan` | which entries, in which order, under which name; claims |
//! | `store` | the contract of a place that files are in; `store::s3`, `store::local` |
//! | `stage` | the local temporary copy: hashed on the way in, handed out part by part |
//! | `part` | files that are being written: hidden beside what they become, or without a name |
//! | `environment` | environment variables |
//! | `config` | YAML to `rule::Config`, all problems at once |
//! | `relations` | rules looked at together, and the examples they carry |
//! | `rule`, `pattern` | what a rule means; how names match and what they become |
//! | `shell_pattern` | a glob, read once |
//! | `context` | time, stop flag, staging directory |
//! | `object`, `error` | the words everything speaks in |
//! | `logger` | one line per event |
//! | `text` | what cannot be seen is escaped |
//! | `status` | the last line of a terminal: what is under way |
//! | `sync` | the locks, threads and clock that the engine waits with |

pub mod start;

pub mod cli;

pub mod signal;

pub mod graph;

pub mod check;

pub mod connect;

pub mod explain;

pub mod open;

pub mod metrics;

pub mod run;

pub mod round;

pub mod lane;

pub mod report;

pub mod schedule;

pub mod summary;

pub mod transfer;

pub mod plan;

pub mod store;

pub mod stage;

pub mod part;

pub mod environment;

pub mod config;

pub mod relations;

pub mod rule;

pub mod pattern;

pub mod shell_pattern;

pub mod context;

pub mod object;

pub mod error;

pub mod logger;

pub mod text;

pub mod status;

pub mod sync;
