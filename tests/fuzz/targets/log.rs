//! The lines of the log.
#![no_main]
// Each target uses some of the claims.
#![allow(dead_code)]

#[path = "../claims.rs"]
mod claims;
#[path = "../../it/support/log.rs"]
mod log;

libfuzzer_sys::fuzz_target!(|values: Vec<String>| claims::events_are_one_line_each(&values));
