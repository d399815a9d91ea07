//! What it means that a request had no whole answer: its kind, and a text for people.
//!
//! No text of ureq's that may hold a URL with its query is passed on: the query of a presigned URL
//! holds a signature.

use std::io;

use rustls::{CertificateError, InvalidMessage};
use ureq::Timeout;

use super::addresses::Unresolved;
use super::error::Target;
use crate::error::{Error, Kind};

/// The error for a request that had no whole answer.
pub(super) fn transport(error: ureq::Error, target: &Target<'_>) -> Error {
    let (kind, why, advice) = match error {
        ureq::Error::Io(error) => return io_error(error, target),
        ureq::Error::Rustls(error) => tls_fault(&error),
        ureq::Error::Timeout(Timeout::Resolve) => (
            Kind::Timeout,
            "no answer from DNS within MINIO_CONNECT_TIMEOUT".to_owned(),
            DNS_ADVICE,
        ),
        ureq::Error::Timeout(Timeout::Connect) => (
            Kind::Timeout,
            "no connection within MINIO_CONNECT_TIMEOUT".to_owned(),
            "check MINIO_ENDPOINT, firewalls and network policies",
        ),
        ureq::Error::Timeout(_) => (
            Kind::Timeout,
            "no byte of progress within MINIO_READ_TIMEOUT".to_owned(),
            "the server or the network hangs; a slow server needs a longer MINIO_READ_TIMEOUT",
        ),
        ureq::Error::Protocol(_) | ureq::Error::LargeResponseHeader(..) => (
            Kind::Other,
            "the answer is not HTTP as it should be".to_owned(),
            "check that MINIO_ENDPOINT is the S3 port, and its scheme",
        ),
        ureq::Error::Tls(text) => (Kind::Other, text.to_owned(), TLS_ADVICE),
        // The texts of all others may hold the URL.
        _ => (
            Kind::Other,
            "the request could not be made".to_owned(),
            "check MINIO_ENDPOINT",
        ),
    };
    target.error(kind, why).advise(advice)
}

const DNS_ADVICE: &str =
    "the name may be right: look at the cluster's DNS, and at network policies";

const TLS_ADVICE: &str = "check the scheme of MINIO_ENDPOINT and the server's TLS settings";

fn io_error(error: io::Error, target: &Target<'_>) -> Error {
    // Our own reader of a body hands its error through ureq.
    let error = match error.downcast::<Error>() {
        Ok(own) => return own,
        Err(error) => error,
    };
    let inner = error.get_ref();
    if let Some(lost) = inner.and_then(|inner| inner.downcast_ref::<Unresolved>()) {
        let host = &lost.host;
        if lost.is_unknown {
            return target.error(Kind::Other, lost).advise(
                "check the host name in MINIO_ENDPOINT; with MINIO_ADDRESSING_STYLE=virtual DNS \
                 must know each bucket's name before it",
            );
        }
        let why = format!("DNS did not say where {host} is");
        return target.error(Kind::Transient, why).advise(DNS_ADVICE);
    }
    if let Some(fault) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        let (kind, why, advice) = tls_fault(fault);
        return target.error(kind, why).advise(advice);
    }
    let (kind, why, advice) = match error.kind() {
        io::ErrorKind::ConnectionRefused => (
            Kind::Transient,
            "connection refused",
            "nothing listens there: check the port in MINIO_ENDPOINT and that the server runs",
        ),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::NotConnected => (
            Kind::Transient,
            "connection reset",
            "the server or a proxy broke off: look at its log",
        ),
        io::ErrorKind::UnexpectedEof => (
            Kind::Transient,
            "the server closed the connection too early",
            "the server or a proxy broke off: look at its log",
        ),
        io::ErrorKind::TimedOut => (
            Kind::Timeout,
            "connection timed out",
            "check MINIO_ENDPOINT, firewalls and network policies",
        ),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => (
            Kind::Other,
            "host unreachable",
            "check MINIO_ENDPOINT, routes and network policies",
        ),
        // The system's own text holds no URL.
        _ if error.raw_os_error().is_some() => {
            return target.error(Kind::Other, error);
        }
        _ => (Kind::Other, "the request failed", "check MINIO_ENDPOINT"),
    };
    target.error(kind, why).advise(advice)
}

fn tls_fault(error: &rustls::Error) -> (Kind, String, &'static str) {
    let advice = match error {
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => {
            "no trusted CA signed the server's certificate: MINIO_VERIFY must name a PEM file \
             with the CA's certificate"
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "the server's certificate is for other host names than the one in MINIO_ENDPOINT",
        rustls::Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => "renew the server's certificate, or set the clock of this machine",
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "this port does not speak https: MINIO_ENDPOINT must begin with http://"
        }
        _ => TLS_ADVICE,
    };
    (Kind::Other, format!("TLS: {error}"), advice)
}
