//! The addresses of the server's host, looked up once.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::poison::unpoisoned;

/// The host's addresses, kept for the run: ureq would look them up before every request.
#[derive(Debug, Clone, Default)]
pub(super) struct Addresses {
    known: Arc<Mutex<Vec<(String, ResolvedSocketAddrs)>>>,
}

impl Addresses {
    /// Looks the host up again before the next request.
    pub(super) fn forget(&self) {
        unpoisoned(self.known.lock()).clear();
    }
}

impl Resolver for Addresses {
    fn resolve(
        &self,
        uri: &Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.authority().map_or("", |authority| authority.as_str());
        let known = unpoisoned(self.known.lock());
        if let Some((_, addresses)) = known.iter().find(|(name, _)| name == host) {
            return Ok(addresses.clone());
        }
        drop(known);
        let found = DefaultResolver::default().resolve(uri, config, timeout);
        let found = found.map_err(|error| match error {
            ureq::Error::Io(error) => unresolved(host, Some(&error)),
            ureq::Error::HostNotFound => unresolved(host, None),
            other => other,
        })?;
        unpoisoned(self.known.lock()).push((host.to_owned(), found.clone()));
        Ok(found)
    }
}

/// A host whose address cannot be had.
#[derive(Debug)]
pub(super) struct Unresolved {
    /// The host that was looked up, with its port: it begins with the bucket where that is asked.
    pub(super) host: String,
    /// DNS says that there is none; else it failed, or did not answer.
    pub(super) is_unknown: bool,
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host not found: {}", self.host)
    }
}

impl std::error::Error for Unresolved {}

fn unresolved(host: &str, error: Option<&io::Error>) -> ureq::Error {
    ureq::Error::Io(io::Error::other(Unresolved {
        host: host.to_owned(),
        is_unknown: error.is_none_or(|error| is_unknown(&error.to_string())),
    }))
}

/// Whether the system's resolver says that there is no such name, or no address of it. It tells so
/// by words only: those of musl, and those of glibc.
fn is_unknown(text: &str) -> bool {
    [
        "Name does not resolve",
        "Name has no usable address",
        "Name or service not known",
        "No address associated with hostname",
    ]
    .iter()
    .any(|words| text.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_that_does_not_exist_is_told_from_dns_that_does_not_work() {
        let said = |words| format!("failed to lookup address information: {words}");
        for (words, expected) in [
            ("Name does not resolve", true),
            ("Name or service not known", true),
            ("No address associated with hostname", true),
            ("Try again", false),
            ("Temporary failure in name resolution", false),
            ("Non-recoverable error", false),
            ("Non-recoverable failure in name resolution", false),
        ] {
            assert_eq!(is_unknown(&said(words)), expected, "{words}");
        }
    }

    #[test]
    fn address_is_looked_up_once_until_it_is_forgotten() {
        let addresses = Addresses::default();
        let config = ureq::config::Config::default();
        let uri: Uri = "http://127.0.0.1:9000/a".parse().expect("a URI");
        let known = |addresses: &Addresses| addresses.known.lock().expect("no panic").len();
        for _ in 0..2 {
            let found = addresses.resolve(&uri, &config, NextTimeout::default());
            assert_eq!(found.expect("an address")[0].port(), 9000);
            assert_eq!(known(&addresses), 1);
        }
        addresses.forget();
        assert_eq!(known(&addresses), 0);
    }
}
