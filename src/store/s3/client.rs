//! One HTTP agent for the whole run: signs a request, sends it once, gives the answer.
//!
//! Must not repeat a request (`retry` does), follow a redirect, use a proxy, or let a URL with its
//! query out of this module.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use ureq::http::{Method, Request, Response, Uri};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, AsSendBody, Body, SendBody};
use url::Url;

use super::addresses::Addresses;
use super::answer::{Answer, Exchange};
use super::connections::Connections;
use super::error::Target;
use super::retry::{Try, quickly};
use crate::context::{Context, Stop};
use crate::environment::{Addressing, Connection, Verify};
use crate::error::{Error, Kind, Result};
use crate::stage::{Contents, Part};

/// How long a signature is good for: `MinIO` lets a clock be 15 minutes fast, this lets it be as
/// slow. Only the head of a request must arrive in time, its body may take longer.
const SIGNATURE_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// What a connection holds in each direction, twice with TLS. A whole answer's head must fit.
const BUFFER_BYTES: usize = 32 << 10;

/// A longer body is only sent once the server has agreed: a Go server reads no more than this of
/// a body that it refuses, then it resets the connection and its reason is lost.
const ASK_FIRST_ABOVE_BYTES: u64 = 256 << 10;

/// How long to wait for the server to agree. After that the body is sent without an answer.
const ASK_FIRST_TIMEOUT: Duration = Duration::from_secs(1);

/// An idle connection is not used for longer; `MinIO` closes it after 30 s.
const IDLE_MAX: Duration = Duration::from_secs(15);

/// How many parts of large objects are sent or read beside those of the workers. Each needs a
/// connection and its buffers; more do not make one server faster.
const HELPERS_MAX: usize = 3;

/// How long each step of the clean-up may take once transfers were broken off.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(2);

/// The way to `MinIO`, shared by all stores of a run.
pub struct Client {
    agent: Agent,
    /// Works after `agent` was shut down.
    cleanup_agent: OnceLock<Agent>,
    connection: Connection,
    tls: TlsConfig,
    addresses: Addresses,
    credentials: Credentials,
    endpoint: String,
    /// How many threads more than the workers may send or read parts now.
    helpers: AtomicUsize,
    /// Whether the server refuses to replace an object where it is asked to, once that is known.
    pub(super) refuses: OnceLock<bool>,
    context: Arc<Context>,
}

/// Threads that may go along with a worker; they are given back when this is dropped.
pub(super) struct Helpers<'a> {
    client: &'a Client,
    count: usize,
}

impl Helpers<'_> {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }
}

impl Drop for Helpers<'_> {
    fn drop(&mut self) {
        self.client.helpers.fetch_add(self.count, Ordering::Relaxed);
    }
}

impl Client {
    /// A client that keeps up to `concurrency` connections open; connects to nothing yet.
    ///
    /// # Errors
    /// `Invalid`: the CA bundle cannot be read or holds no certificate.
    pub fn new(
        connection: &Connection,
        concurrency: usize,
        context: Arc<Context>,
    ) -> Result<Arc<Self>> {
        let tls = tls_config(&connection.verify)?;
        let addresses = Addresses::default();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("bots-mover/", env!("CARGO_PKG_VERSION")))
            .accept("")
            .accept_encoding("")
            .tls_config(tls.clone())
            .input_buffer_size(BUFFER_BYTES)
            .output_buffer_size(BUFFER_BYTES)
            .max_idle_connections(concurrency + HELPERS_MAX)
            .max_idle_connections_per_host(concurrency + HELPERS_MAX)
            .max_idle_age(IDLE_MAX)
            .timeout_resolve(Some(connection.connect_timeout))
            .timeout_connect(Some(connection.connect_timeout))
            .timeout_per_read(Some(connection.read_timeout))
            .timeout_per_write(Some(connection.read_timeout))
            // ureq takes the shorter of the two, and only this one is not an error.
            .timeout_await_100(Some(ASK_FIRST_TIMEOUT.min(connection.read_timeout / 2)))
            .build();
        let agent = Agent::with_parts(config, Connections::default(), addresses.clone());
        let interrupted = agent.clone();
        context.stop.on_cancel(move || interrupted.shutdown());

        let (key, secret) = (&connection.access_key, &connection.secret_key);
        let credentials = match &connection.session_token {
            Some(token) => Credentials::new_with_token(key, secret, token),
            None => Credentials::new(key, secret),
        };
        Ok(Arc::new(Self {
            agent,
            cleanup_agent: OnceLock::new(),
            endpoint: shown(&connection.endpoint),
            connection: connection.clone(),
            tls,
            addresses,
            credentials,
            helpers: AtomicUsize::new(HELPERS_MAX),
            refuses: OnceLock::new(),
            context,
        }))
    }

    /// As many helpers as the run has to spare, at most `wanted`.
    pub(super) fn spare_helpers(&self, wanted: usize) -> Helpers<'_> {
        let left = |spare: usize| Some(spare - spare.min(wanted));
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        let spare = self.helpers.fetch_update(set, fetch, left);
        Helpers {
            client: self,
            count: spare.unwrap_or(0).min(wanted),
        }
    }

    /// The bucket of this name.
    ///
    /// # Errors
    /// `Invalid`: the name cannot be a part of a host name where it must be one.
    pub(super) fn bucket(&self, name: &str) -> Result<Bucket> {
        let style = match self.connection.style {
            Addressing::Path => UrlStyle::Path,
            Addressing::Virtual => UrlStyle::VirtualHost,
        };
        let (endpoint, region) = (&self.connection.endpoint, &self.connection.region);
        Bucket::new(endpoint.clone(), style, name.to_owned(), region.clone()).map_err(|error| {
            let what = format!("use bucket {name} at {}", self.endpoint);
            Error::new(Kind::Invalid, what)
                .because(error.to_string())
                .advise("MINIO_ADDRESSING_STYLE=path works with every name and address")
        })
    }

    /// What requests are signed with.
    #[expect(clippy::unnecessary_wraps, reason = "rusty-s3 takes an `Option`")]
    pub(super) fn credentials(&self) -> Option<&Credentials> {
        Some(&self.credentials)
    }

    /// Scheme, host and port, for people.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Whether any certificate will do.
    pub(super) fn trusts_anybody(&self) -> bool {
        matches!(self.connection.verify, Verify::Off)
    }

    /// Makes a request with two more quick tries.
    pub(super) fn tries<T>(&self, request: impl FnMut(Try) -> Result<T>) -> Result<T> {
        quickly(&self.context.stop, request)
    }

    /// Sends a request once. Gives any answer, also a refusal.
    ///
    /// # Errors
    /// `Transient`, `Timeout`, `Other`: there was no answer. `Stopped`: transfers were broken off.
    /// What reading the staged body says.
    pub(super) fn send<'a, A: S3Action<'a>>(
        &'a self,
        target: Target<'a>,
        action: A,
        headers: &Headers<'a>,
        payload: Payload<'_>,
        attempt: Try,
    ) -> Result<Answer<'a>> {
        self.context.stop.check()?;
        self.send_by(&self.agent, target, action, headers, payload, attempt)
    }

    /// The world of the run.
    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    /// The wish to stop.
    pub(super) fn stop(&self) -> &Stop {
        &self.context.stop
    }

    /// Like [`send`](Self::send), but works even after transfers were broken off.
    pub(super) fn send_cleanup<'a, A: S3Action<'a>>(
        &'a self,
        target: Target<'a>,
        action: A,
        attempt: Try,
    ) -> Result<Answer<'a>> {
        let agent = if self.context.stop.check().is_ok() {
            &self.agent
        } else {
            self.cleanup_agent.get_or_init(|| self.make_cleanup_agent())
        };
        let headers = Headers::new();
        self.send_by(agent, target, action, &headers, Payload::None, attempt)
    }

    fn make_cleanup_agent(&self) -> Agent {
        brief_agent(self.tls.clone(), self.addresses.clone())
    }

    fn send_by<'a, A: S3Action<'a>>(
        &'a self,
        agent: &Agent,
        target: Target<'a>,
        mut action: A,
        headers: &Headers<'a>,
        payload: Payload<'_>,
        attempt: Try,
    ) -> Result<Answer<'a>> {
        for (name, value) in headers {
            action.headers_mut().insert(*name, *value);
        }
        let url = action.sign_with_time(SIGNATURE_LIFETIME, &self.context.now());
        // The error itself could hold the URL.
        let malformed = |_: ureq::http::Error| {
            target.error(Kind::Invalid, "the key or a header cannot be sent by HTTP")
        };
        let uri = Uri::try_from(url.as_str()).map_err(|error| malformed(error.into()))?;
        let method = Method::from_bytes(A::METHOD.to_str().as_bytes())
            .expect("the five methods of rusty-s3 are methods of HTTP");

        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, value.as_bytes());
        }
        if let Some(length) = payload.length() {
            request = request.header("content-length", length);
            if length > ASK_FIRST_ABOVE_BYTES {
                request = request.header("expect", "100-continue");
            }
        }
        let mut reader = PayloadReader {
            payload,
            sent: 0,
            context: &self.context,
        };
        let outcome = if let Payload::None = reader.payload {
            run(agent, request.body(()).map_err(malformed)?, attempt)
        } else {
            let body = SendBody::from_reader(&mut reader);
            run(agent, request.body(body).map_err(malformed)?, attempt)
        };
        let exchange = Exchange {
            context: &self.context,
            addresses: &self.addresses,
        };
        match outcome {
            Ok(response) => Ok(Answer {
                exchange,
                target,
                response,
            }),
            Err(error) => Err(exchange.failed(error, &target)),
        }
    }
}

/// An agent each of whose requests takes [`CLEANUP_TIMEOUT`] at the most.
fn brief_agent(tls: TlsConfig, addresses: Addresses) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .tls_config(tls)
        .input_buffer_size(BUFFER_BYTES)
        .output_buffer_size(BUFFER_BYTES)
        .timeout_global(Some(CLEANUP_TIMEOUT))
        .build();
    Agent::with_parts(config, Connections::default(), addresses)
}

/// An agent for others than `MinIO`: two seconds for each request at the most, no redirects. Trusts
/// the private authorities of `verify` where it names some, else the public ones; never anybody.
///
/// # Errors
/// `Invalid`: the CA bundle cannot be read or holds no certificate.
pub fn agent_for_others(verify: &Verify) -> Result<Agent> {
    let trusted = match verify {
        Verify::Off => &Verify::Public,
        named => named,
    };
    Ok(brief_agent(tls_config(trusted)?, Addresses::default()))
}

/// Posts this to somebody else than `MinIO`; gives the status of the answer.
///
/// # Errors
/// There was no answer. The text of it holds the host of `url`, so that must have no credentials.
pub fn post(
    agent: &Agent,
    url: &str,
    headers: &[(&str, &str)],
    mut body: &[u8],
) -> Result<u16, ureq::Error> {
    let mut request = Request::builder().method(Method::POST).uri(url);
    for (name, value) in headers {
        request = request.header(*name, value.as_bytes());
    }
    let request = request.header("content-length", body.len());
    let answer = agent.run(request.body(SendBody::from_reader(&mut body))?)?;
    Ok(answer.status().as_u16())
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

fn run(
    agent: &Agent,
    mut request: Request<impl AsSendBody>,
    attempt: Try,
) -> Result<Response<Body>, ureq::Error> {
    if attempt.is_repeat() {
        // No idle connection is younger than zero: this opens a new one.
        request = agent
            .configure_request(request)
            .max_idle_age(Duration::ZERO)
            .build();
    }
    agent.run(request)
}

/// Headers that are signed and sent: names in lower case, and values.
pub(super) type Headers<'a> = Vec<(&'a str, &'a str)>;

/// What a request sends behind its head.
#[derive(Clone, Copy)]
pub(super) enum Payload<'a> {
    /// No body and no length, as of a `GET`.
    None,
    /// These bytes.
    Bytes(&'a [u8]),
    /// A part of what is staged, read while it is sent.
    Part(&'a Contents, Part),
}

impl Payload<'_> {
    fn length(&self) -> Option<u64> {
        match self {
            Self::None => None,
            Self::Bytes(bytes) => Some(bytes.len() as u64),
            Self::Part(_, part) => Some(part.size_bytes),
        }
    }
}

struct PayloadReader<'a> {
    payload: Payload<'a>,
    sent: u64,
    context: &'a Context,
}

impl Read for PayloadReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.context.stop.check().map_err(io::Error::other)?;
        let left = self.payload.length().unwrap_or(0) - self.sent;
        let room = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let buffer = &mut buffer[..room];
        let amount = match self.payload {
            Payload::None => 0,
            Payload::Bytes(mut bytes) => {
                bytes = &bytes[bytes.len() - usize::try_from(left).unwrap_or(0)..];
                bytes.read(buffer)?
            }
            Payload::Part(contents, part) => contents
                .read_at(buffer, part.offset + self.sent)
                .map_err(io::Error::other)?,
        };
        if amount == 0 && left > 0 {
            // Without an error ureq would ask for the missing bytes in an endless loop.
            let short = Error::new(Kind::Storage, "read a staging file").because("it was cut");
            return Err(io::Error::other(short));
        }
        self.sent += amount as u64;
        Ok(amount)
    }
}

fn tls_config(verify: &Verify) -> Result<TlsConfig> {
    let builder = TlsConfig::builder();
    Ok(match verify {
        Verify::Public => builder.root_certs(RootCerts::WebPki),
        Verify::Off => builder.disable_verification(true),
        Verify::Bundle(path) => builder.root_certs(RootCerts::new_with_certs(&read_bundle(path)?)),
    }
    .build())
}

fn read_bundle(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let advice = "MINIO_VERIFY must be true, false, or the path of a PEM file with CA certificates";
    let what = || format!("read the CA bundle {}", path.display());
    let pem = fs::read(path).map_err(|error| {
        Error::io(what(), error)
            .with_kind(Kind::Invalid)
            .advise(advice)
    })?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(_) => {}
            Err(_) => {
                return Err(Error::new(Kind::Invalid, what())
                    .because("it is not PEM")
                    .advise(advice));
            }
        }
    }
    let mut usable = rustls::RootCertStore::empty();
    let ders = certificates
        .iter()
        .map(|certificate| certificate.der().to_vec().into());
    if usable.add_parsable_certificates(ders).0 == 0 {
        return Err(Error::new(Kind::Invalid, what())
            .because("it holds no certificate")
            .advise(advice));
    }
    Ok(certificates)
}

/// An endpoint as it may be shown: without the credentials that a URL can hold.
pub fn shown(endpoint: &Url) -> String {
    let (scheme, host) = (endpoint.scheme(), endpoint.host_str().unwrap_or(""));
    match endpoint.port() {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_is_shown_without_credentials() {
        let endpoint = "https://user:pass@minio:9000/path?query";
        let endpoint: Url = endpoint.parse().expect("a URL");
        assert_eq!(shown(&endpoint), "https://minio:9000");
    }
}
