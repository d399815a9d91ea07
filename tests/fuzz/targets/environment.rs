//! The environment.
#![no_main]
// Each target uses some of the claims.
#![allow(dead_code)]

#[path = "../claims.rs"]
mod claims;
#[path = "../../it/support/log.rs"]
mod log;

libfuzzer_sys::fuzz_target!(|values: Vec<(usize, Vec<u8>)>| {
    claims::environment_is_read_or_refused(&values);
});
