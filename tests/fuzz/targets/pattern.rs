//! Globs, regular expressions and renames.
#![no_main]
// Each target uses some of the claims.
#![allow(dead_code)]

#[path = "../claims.rs"]
mod claims;
#[path = "../../it/support/log.rs"]
mod log;

libfuzzer_sys::fuzz_target!(|input: (&str, &str, &[u8])| {
    let (pattern, replace, name) = input;
    claims::patterns_do_no_harm(pattern, replace, name);
});
