//! The YAML reader and what a config means.
#![no_main]
// Each target uses some of the claims.
#![allow(dead_code)]

#[path = "../claims.rs"]
mod claims;
#[path = "../../it/support/log.rs"]
mod log;

libfuzzer_sys::fuzz_target!(|text: &str| claims::config_is_read_or_refused(text));
