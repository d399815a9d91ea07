//! The integration tests, one binary: they run the built program against the real server.
//!
//! A test's name is a claim, its body reads like one; how worlds and faults are made is in
//! `support`.

// A test may fail at any line, and says why by panicking; the report goes to standard error.
#![allow(clippy::unwrap_used, clippy::print_stderr)]
// MinIO is a name, not code.
#![allow(clippy::doc_markdown)]

mod bots;
#[path = "../fuzz/claims.rs"]
mod claims;
mod command_line;
mod config;
mod connect;
mod connection;
mod copies;
mod cost;
mod crash;
mod docs;
mod engine;
mod faults;
mod graph;
mod harness;
mod honesty;
mod kube;
mod large;
mod listing;
mod local_store;
mod logs;
mod metrics;
mod mounts;
mod movers;
mod moves;
mod names;
mod nfs;
mod policies;
mod power;
mod properties;
mod requests;
mod rules;
mod s3_store;
mod safety;
mod schema;
mod shards;
mod signals;
mod sources;
mod support;
mod syscalls;
mod terminal;
mod tidy;
mod tls;

// The claims read the log with it.
use support::log;
