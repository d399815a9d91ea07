//! What the server answers: its head at once, its body as it is read.
//!
//! Must not judge what an answer means (`error` does), nor make a request.

use std::io::Read as _;

use ureq::Body;
use ureq::http::Response;

use super::addresses::Addresses;
use super::error::{Refusal, Target, skew_seconds};
use super::transport::transport;
use crate::context::Context;
use crate::error::{Error, Kind, Result};

/// How much of a refusal's body is read.
const BODY_LIMIT_BYTES: usize = 64 << 10;

/// What a request and the reading of its answer share.
#[derive(Clone, Copy)]
pub(super) struct Exchange<'a> {
    /// The time, and the wish to stop.
    pub(super) context: &'a Context,
    /// Where the server was found.
    pub(super) addresses: &'a Addresses,
}

impl Exchange<'_> {
    /// The error for a request or an answer that broke off.
    pub(super) fn failed(&self, error: ureq::Error, target: &Target<'_>) -> Error {
        if let Err(stopped) = self.context.stop.check() {
            return stopped;
        }
        // The host may have moved to another address.
        self.addresses.forget();
        transport(error, target)
    }
}

/// What the server said; its body is still to be read.
pub(super) struct Answer<'a> {
    pub(super) exchange: Exchange<'a>,
    pub(super) target: Target<'a>,
    pub(super) response: Response<Body>,
}

impl Answer<'_> {
    /// The status code.
    pub(super) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// A header's value, where it is UTF-8.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let value = self.response.headers().get(name)?;
        std::str::from_utf8(value.as_bytes()).ok()
    }

    /// All headers; no value where it is not UTF-8.
    pub(super) fn headers(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let headers = self.response.headers().iter();
        headers.map(|(name, value)| (name.as_str(), std::str::from_utf8(value.as_bytes()).ok()))
    }

    /// The length of the body, or that it would have had if this were no `HEAD`.
    pub(super) fn length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    /// By how many seconds our clock is ahead of the server's, where the server tells its time.
    pub(super) fn skew_seconds(&self) -> Option<i64> {
        skew_seconds(self.header("date")?, self.exchange.context.now())
    }

    /// Reads on; 0 at the end of a whole body, and only there.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let read = self.response.body_mut().as_reader().read(buffer);
        read.map_err(|error| self.exchange.failed(error.into(), &self.target))
    }

    /// The whole body as text.
    ///
    /// # Errors
    /// `Other`: it is longer than `limit_bytes` or not UTF-8. Those of [`read`](Self::read).
    pub(super) fn text(&mut self, limit_bytes: usize) -> Result<String> {
        let mut bytes = Vec::new();
        let room = self.length().unwrap_or(0).min(limit_bytes as u64);
        bytes.reserve_exact(usize::try_from(room).unwrap_or(0));
        let mut buffer = [0; 8 << 10];
        loop {
            let amount = self.read(&mut buffer)?;
            if amount == 0 {
                break;
            }
            if bytes.len() + amount > limit_bytes {
                let why = format!("the answer is longer than {limit_bytes} bytes");
                return Err(self.target.error(Kind::Other, why));
            }
            bytes.extend_from_slice(&buffer[..amount]);
        }
        String::from_utf8(bytes)
            .map_err(|_| self.target.error(Kind::Other, "the answer is not UTF-8"))
    }

    /// What kind of refusal this answer is; a body that cannot be read leaves only the head.
    pub(super) fn refusal(mut self) -> Refusal {
        let text = self.text(BODY_LIMIT_BYTES).unwrap_or_default();
        let now = self.exchange.context.now();
        Refusal::new(self.status(), self.response.headers(), &text, now)
    }

    /// This answer as the error that goes up.
    pub(super) fn error(self) -> Error {
        let target = self.target;
        self.refusal().into_error(&target)
    }
}
