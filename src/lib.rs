//! `bots-mover` moves files between MinIO buckets and the directories of a Bots EDI installation.

pub mod cli;
pub mod config;
pub mod context;
pub mod environment;
pub mod error;
pub mod logger;
pub mod object;
pub mod pattern;
pub mod plan;
pub mod relations;
pub mod rule;
pub mod run;
pub mod schedule;
pub mod signal;
pub mod stage;
pub mod store;
pub mod summary;
pub mod transfer;
