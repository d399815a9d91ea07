//! The integration tests, one binary.

// A test may fail at any line, and says why by panicking.
#![allow(clippy::unwrap_used)]

mod config;
mod local_store;
mod s3_store;
