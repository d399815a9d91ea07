//! Where a key or a file name lands.
#![no_main]
// Each target uses some of the claims.
#![allow(dead_code)]

#[path = "../claims.rs"]
mod claims;
#[path = "../../it/support/log.rs"]
mod log;

libfuzzer_sys::fuzz_target!(|input: (&[u8], &str, &str)| {
    let (name, pattern, replace) = input;
    claims::keys_stay_below_the_destination(name, pattern, replace);
});
