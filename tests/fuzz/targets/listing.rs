//! What a server says to a listing: pages and errors.
#![no_main]
// Each target uses some of the claims.
#![allow(dead_code)]

#[path = "../claims.rs"]
mod claims;
#[path = "../../it/support/log.rs"]
mod log;

static SERVER: std::sync::LazyLock<claims::Server> =
    std::sync::LazyLock::new(claims::Server::start);

libfuzzer_sys::fuzz_target!(|input: (bool, &[u8])| {
    let (good, body) = input;
    SERVER.listing_makes_sense_or_fails(if good { 200 } else { 403 }, body);
});
