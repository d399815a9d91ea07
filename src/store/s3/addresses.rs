//! The addresses of the server's host, looked up once.

use std::sync::{Arc, Mutex, PoisonError};

use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// The host's addresses, kept for the run: ureq would look them up before every request.
#[derive(Debug, Clone, Default)]
pub(super) struct Addresses {
    known: Arc<Mutex<Vec<(String, ResolvedSocketAddrs)>>>,
}

impl Addresses {
    /// Looks the host up again before the next request.
    pub(super) fn forget(&self) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.clear();
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
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, addresses)) = known.iter().find(|(name, _)| name == host) {
            return Ok(addresses.clone());
        }
        drop(known);
        let found = DefaultResolver::default().resolve(uri, config, timeout);
        let found = found.map_err(|error| match error {
            // The system's resolver has no error kind of its own for a name that it does not know.
            ureq::Error::Io(_) => ureq::Error::HostNotFound,
            other => other,
        })?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.push((host.to_owned(), found.clone()));
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
