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
//! - An item that goes to `MinIO` in parts is completed only once all of it is staged and verified,
//!   though its first parts are sent before (`store::s3::early`).
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
//! A name with `::` is a file in a folder: `config::meaning` is `src/config/meaning.rs`.
//!
//! | file | responsible for |
//! | --- | --- |
//! | `main.rs` | the process: its streams and exit code |
//! | `start` | arguments, environment and config to a run |
//! | `cli` | the command line and `--help` |
//! | `signal` | SIGTERM and SIGINT to the stop flag of `context` |
//! | `graph` | the rules as a chart, for a README or a merge request |
//! | `check` | the rules as a table: `check` |
//! | `connect` | tries what a run would need: `check --connect` |
//! | `explain` | which rule takes a name, and why the others do not |
//! | `open` | the stores of a real run |
//! | `metrics` | what a run tells a Pushgateway, or a `.prom` file |
//! | `run` | the shell: threads, attempts, outcomes counted and told; ends a rule (`end_rule`) |
//! | `round` | one round of a rule: select, say what is left alone, claim |
//! | `lane` | a rule in the run: its two ends and how far it is |
//! | `report` | what the log says of a run, event by event |
//! | `schedule` | who works on what next: fairness, order, waits, halts |
//! | `summary` | counts and the exit code |
//! | `transfer` | one item: ready, stage, publish, remove; the only caller of `Store::remove` |
//! | `plan` | which entries, in which order, under which name (`numbered`: its number); claims |
//! | `store` | the contract of a place that files are in; what both stores share |
//! | `store::probe` | the words in which a store tells what a probe showed |
//! | `store::local` | a directory; `tree`, `listing`, `publish`, `probe` |
//! | `store::s3` | a bucket prefix: `list`, `get`, `put`, `tags`, `probe` |
//! | `store::s3::get` | an object to a stage, by one stream or, when long, in ranges |
//! | `store::s3::early` | parts that go up while the rest is staged |
//! | `store::s3::copy` | what the server copies from bucket to bucket |
//! | `store::s3::client` | signs and sends a request, once; `retry` repeats it |
//! | `store::s3::answer` | what the server answers, its body still to be read |
//! | `store::s3::error` | what a refusal means, such as a 503: its kind and its text |
//! | `store::s3::transport` | what it means that a request had no whole answer |
//! | `store::s3::connections` | its sockets: how they connect, and what the kernel keeps for them |
//! | `stage` | the local temporary copy: hashed on the way in, handed out part by part |
//! | `part` | files that are being written: hidden beside what they become, or without a name |
//! | `environment` | environment variables |
//! | `config` | YAML to `rule::Config`, all problems at once; see its head for the stages |
//! | `config::schema` | the keys that each mapping may hold, and what people write instead |
//! | `config::meaning` | what the keys mean, and the default of each; `places`, `names` |
//! | `relations` | rules looked at together, and the examples they carry |
//! | `rule` | what a rule means once it is read; the words of `mode` and `if_exists` |
//! | `pattern` | how names match and what they become |
//! | `shell_pattern` | a glob, read once |
//! | `shard` | several runs that share the work |
//! | `context` | time, stop flag, staging directory |
//! | `object` | an item's name, version and place; whether a place lies inside another |
//! | `error` | the one error type; whether a further attempt may help |
//! | `logger` | one line per event |
//! | `text` | what cannot be seen is escaped |
//! | `status` | the last line of a terminal: what is under way |
//! | `poison` | locks that outlive a panic |
//! | `sync` | the locks, threads and clock that the engine waits with |
//!
//! How to add a key, an `if_exists` mode, a metric or a fault, with the files in order, is in
//! `tests/README.md`.

pub mod start;

pub mod cli;

mod signal;

pub mod graph;

mod check;

mod connect;

mod explain;

mod open;

pub mod metrics;

pub mod run;

pub mod round;

mod lane;

mod report;

mod schedule;

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

pub mod shard;

pub mod context;

pub mod object;

pub mod error;

pub mod logger;

pub mod text;

mod status;

mod poison;

mod sync;
