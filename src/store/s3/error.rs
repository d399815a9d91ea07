//! What a refusal means: its kind, and a text that names the endpoint, the bucket and the key, and
//! says what to check. Pure: it is made from status, headers, body and time.
//!
//! No text of the server's that may hold a URL with its query is ever passed on: the
//! query of a presigned URL holds a signature.

use std::fmt;

use instant_xml::{FromXml, FromXmlOwned};
use jiff::Timestamp;
use ureq::http::HeaderMap;

use super::xml::is_whole;
use crate::error::{Error, Kind};

/// What to do where something else than an S3 server answers.
pub(super) const OTHER_SERVER: &str =
    "check that MINIO_ENDPOINT is the S3 port of a MinIO, and not the console or another server";

/// A clock that is further off is named in the advice.
const SKEW_WORTH_TELLING_SECONDS: i64 = 60;

/// What a request is about, for its error texts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    /// The action: `get`, `put`, `list`, …
    pub(super) verb: &'static str,
    /// Scheme, host and port.
    pub(super) endpoint: &'a str,
    /// The bucket's name.
    pub(super) bucket: &'a str,
    /// The key, or the prefix of a listing, or empty.
    pub(super) key: &'a str,
}

impl Target<'_> {
    /// An error about this request.
    pub(super) fn error(&self, kind: Kind, why: impl fmt::Display) -> Error {
        Error::new(kind, self.to_string()).because(why.to_string())
    }
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            verb,
            endpoint,
            bucket,
            key,
        } = self;
        write!(f, "{verb} s3://{bucket}/{key} at {endpoint}")
    }
}

/// The body of an error, and of a `200` that is one.
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>
#[derive(Debug, FromXml)]
#[xml(rename = "Error")]
struct ErrorBody {
    #[xml(rename = "Code")]
    code: String,
    #[xml(rename = "Message")]
    message: Option<String>,
}

/// What has to be mended before another answer can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    /// The answer came from no S3 server, or from one that cannot work now.
    Server,
    /// The two clocks differ too much.
    Clock,
    /// Key, secret, session token or region.
    Credentials,
    /// What was asked for: all else is in order.
    Request,
}

/// An answer that is not the wanted one.
#[derive(Debug)]
pub(super) struct Refusal {
    status: u16,
    code: String,
    message: String,
    /// Our clock less the server's.
    skew_seconds: Option<i64>,
    /// Where a redirect points, without its query.
    pointed: Option<String>,
    /// The server wants TLS, but the request came without.
    wants_tls: bool,
}

impl Refusal {
    /// Reads what the server says by status, headers and body; `now` is our clock.
    pub(super) fn new(status: u16, headers: &HeaderMap, body: &str, now: Timestamp) -> Self {
        let header = |name| {
            let value = headers.get(name);
            let text = value.and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
            text.unwrap_or_default()
        };
        let mut refusal = Self {
            status,
            // MinIO says by these headers what the bodiless answer to a HEAD cannot.
            code: header("x-minio-error-code").to_owned(),
            message: header("x-minio-error-desc").trim_matches('"').to_owned(),
            skew_seconds: skew_seconds(header("date"), now),
            pointed: Some(header("location"))
                .filter(|location| !location.is_empty())
                .map(without_query),
            wants_tls: body.contains("HTTP request to an HTTPS server"),
        };
        refusal.take_body(body);
        refusal
    }

    /// The error for a `200` whose text is not what it should be.
    pub(super) fn of_nonsense(text: &str, what: &str, target: &Target<'_>) -> Error {
        if let Some(refusal) = Self::inside(text) {
            return refusal.into_error(target);
        }
        let why = if is_web_page(text) {
            format!("{what} does not parse: it is a web page")
        } else if is_whole(text) {
            format!("{what} does not parse")
        } else {
            format!("{what} does not parse: it is no XML, or breaks off before its end")
        };
        target.error(Kind::Other, why).advise(OTHER_SERVER)
    }

    /// What a `200` says that holds an error, if it does.
    pub(super) fn inside(text: &str) -> Option<Self> {
        let refusal = Self::new(200, &HeaderMap::new(), text, Timestamp::UNIX_EPOCH);
        (!refusal.code.is_empty()).then_some(refusal)
    }

    fn take_body(&mut self, text: &str) {
        if let Some(body) = read_xml::<ErrorBody>(text) {
            self.code = body.code;
            self.message = body.message.unwrap_or_default();
        } else if self.code.is_empty() && is_web_page(text) {
            self.message = "a web page".into();
        }
        // A proxy may give the request back as part of its text.
        if self.message.contains("X-Amz-") {
            self.message.clear();
        }
    }

    /// S3's error code, empty where the server gave none.
    pub(super) fn code(&self) -> &str {
        &self.code
    }

    /// What is wrong: this request, or all that could be made.
    pub(super) fn subject(&self) -> Subject {
        match self.code.as_str() {
            "" => Subject::Server,
            "RequestTimeTooSkewed" => Subject::Clock,
            "AccessDenied" if self.is_about_time() => Subject::Clock,
            "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "InvalidTokenId"
            | "ExpiredToken"
            | "InvalidToken"
            | "AuthorizationHeaderMalformed"
            | "AuthorizationQueryParametersError" => Subject::Credentials,
            code if kind(self.status, code) == Kind::Transient => Subject::Server,
            _ => Subject::Request,
        }
    }

    /// The server says only in words that a presigned request is too old, or from the future.
    fn is_about_time(&self) -> bool {
        self.message.contains("expired") || self.message.contains("not valid yet")
    }

    /// The error that goes up.
    pub(super) fn into_error(self, target: &Target<'_>) -> Error {
        let error = target.error(kind(self.status, &self.code), &self);
        error.advise(self.advice(target))
    }

    fn advice(&self, target: &Target<'_>) -> String {
        if self.wants_tls {
            return "this port speaks https: MINIO_ENDPOINT must begin with https://".into();
        }
        let clock = match self.skew_seconds {
            Some(skew) if skew.abs() >= SKEW_WORTH_TELLING_SECONDS => {
                let side = if skew > 0 { "ahead of" } else { "behind" };
                format!("; this clock is {} s {side} the server's", skew.abs())
            }
            _ => String::new(),
        };
        let text = match self.code.as_str() {
            "InvalidAccessKeyId" => "check MINIO_ACCESS_KEY: the server knows no such key",
            "SignatureDoesNotMatch" => {
                "check MINIO_SECRET_KEY, and that no proxy on the way changes the request"
            }
            "RequestTimeTooSkewed" => "set the clock of this machine or of the server",
            "AccessDenied" if self.is_about_time() => {
                "set the clock of this machine or of the server"
            }
            "AuthorizationHeaderMalformed" | "AuthorizationQueryParametersError" => {
                "check MINIO_REGION: it must be the server's own region"
            }
            "InvalidTokenId" | "ExpiredToken" | "InvalidToken" => {
                "MINIO_SESSION_TOKEN is wrong or has expired: get new credentials"
            }
            "AccessDenied" => right_for(target.verb),
            "NoSuchBucket" => "make the bucket, or correct its name; it is never made here",
            "XMinioInvalidObjectName" | "XMinioInvalidResourceName" => {
                "MinIO takes no such key (it reads `\\` as `/`): choose another by `rename`"
            }
            "InvalidBucketName" => "correct the bucket's name in the rule",
            "XMinioStorageFull" => "the server's disks are full",
            "QuotaExceeded" | "XMinioAdminBucketQuotaExceeded" => "the bucket's quota is used up",
            "SlowDown" | "SlowDownRead" | "SlowDownWrite" | "TooManyRequests" => {
                "the server is busy: lower `concurrency`, or try later"
            }
            "EntityTooLarge" => "the object is larger than the server takes",
            "XMinioObjectExistsAsDirectory" | "XMinioParentIsObject" => {
                "a key cannot be both an object and a directory of others"
            }
            _ => self.advice_by_status(),
        };
        format!("{text}{clock}")
    }

    fn advice_by_status(&self) -> &'static str {
        match self.status {
            300..=399 => "redirects are not followed: MINIO_ENDPOINT must be the S3 port itself",
            401 | 403 => "check MINIO_ACCESS_KEY, MINIO_SECRET_KEY and the clock",
            407 => "MINIO_ENDPOINT is a proxy that wants a login: it must be MinIO itself",
            408 => "the server or a proxy before it waited too long for the request",
            411 | 413 => "a proxy before the server limits what is sent: raise its limit",
            414 | 431 => {
                "a proxy before the server limits the length of a request's head: raise it"
            }
            421 | 425 | 426 => "a proxy before the server wants another protocol: look at its log",
            429 => "the server or a proxy before it is busy: lower `concurrency`, or try later",
            // Cloudflare and others number what they miss of the server behind them so.
            502 | 504 | 520..=530 => "a proxy before the server cannot reach it",
            503 => "the server is starting, stopping or busy",
            507 => "the server's disks are full",
            _ if self.code.is_empty() => OTHER_SERVER,
            _ => "the server's log may say more",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        if !self.code.is_empty() {
            write!(f, " {}", self.code)?;
        }
        if let Some(pointed) = &self.pointed {
            write!(f, " redirect to {pointed}")?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message.trim_end_matches('.'))?;
        }
        Ok(())
    }
}

/// What the engine does about an answer.
fn kind(status: u16, code: &str) -> Kind {
    match code {
        "NoSuchBucket" => return Kind::Missing,
        "NoSuchKey" | "NoSuchVersion" => return Kind::Gone,
        "PreconditionFailed" => return Kind::Exists,
        "XMinioStorageFull" | "QuotaExceeded" | "XMinioAdminBucketQuotaExceeded" => {
            return Kind::Storage;
        }
        "KeyTooLongError"
        | "EntityTooLarge"
        | "XMinioInvalidObjectName"
        | "XMinioInvalidResourceName"
        | "XMinioObjectExistsAsDirectory"
        | "XMinioParentIsObject" => return Kind::Invalid,
        // The first three: the body was hurt or cut on its way. The others because they may stand
        // in a `200`, and because S3 sends a timed out body as 400.
        "BadDigest"
        | "IncompleteBody"
        | "XAmzContentChecksumMismatch"
        | "InternalError"
        | "SlowDown"
        | "SlowDownRead"
        | "SlowDownWrite"
        | "ServiceUnavailable"
        | "RequestTimeout"
        | "XMinioServerTimedOut" => return Kind::Transient,
        _ => {}
    }
    match status {
        408 | 429 | 500 | 502 | 503 | 504 => Kind::Transient,
        401 | 403 => Kind::Denied,
        507 => Kind::Storage,
        _ => Kind::Other,
    }
}

fn right_for(verb: &str) -> &'static str {
    match verb {
        "list" | "look for" => "the access key's policy must allow s3:ListBucket on the bucket",
        "get the tags of" => {
            "the access key's policy must allow s3:GetObjectTagging on the key, which has tags"
        }
        "put" => "the access key's policy must allow s3:PutObject on the key",
        "delete" => "the access key's policy must allow s3:DeleteObject on the key",
        "abort the upload of" => {
            "the access key's policy must allow s3:AbortMultipartUpload on the key"
        }
        _ => "the access key's policy must allow s3:GetObject on the key",
    }
}

/// Reads a whole answer; `None` where it is another, or not whole.
pub(super) fn read_xml<T: FromXmlOwned>(text: &str) -> Option<T> {
    let text = text.trim_start();
    is_whole(text).then(|| instant_xml::from_str(text).ok())?
}

/// Whether a text is made for browsers.
fn is_web_page(text: &str) -> bool {
    let start = text.trim_start().get(..14).unwrap_or_default();
    let start = start.to_ascii_lowercase();
    start.starts_with("<!doctype html") || start.starts_with("<html")
}

/// Seconds that our clock is ahead of the server's `Date`.
pub(super) fn skew_seconds(date: &str, now: Timestamp) -> Option<i64> {
    Some(now.as_second() - seconds_of(date)?)
}

/// A time as headers tell it, in seconds since 1970.
pub(super) fn seconds_of(date: &str) -> Option<i64> {
    let time = jiff::fmt::rfc2822::parse(date).ok()?;
    Some(time.timestamp().as_second())
}

/// A redirect's target, fit to be shown.
fn without_query(location: &str) -> String {
    let end = location.find(['?', '#']).unwrap_or(location.len());
    let shown = &location[..end];
    // Whatever stands before an `@` may be a password.
    match (shown.find("://"), shown.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => {
            format!("{}{}", &shown[..scheme + 3], &shown[at + 1..])
        }
        _ => shown.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_follows_from_code_then_status() {
        let cases = [
            (404, "NoSuchBucket", Kind::Missing),
            (404, "NoSuchKey", Kind::Gone),
            (412, "PreconditionFailed", Kind::Exists),
            (507, "XMinioStorageFull", Kind::Storage),
            (200, "InternalError", Kind::Transient),
            (400, "RequestTimeout", Kind::Transient),
            (408, "", Kind::Transient),
            (429, "", Kind::Transient),
            (500, "", Kind::Transient),
            (502, "", Kind::Transient),
            (503, "SlowDown", Kind::Transient),
            (504, "", Kind::Transient),
            (501, "NotImplemented", Kind::Other),
            (403, "AccessDenied", Kind::Denied),
            (400, "EntityTooLarge", Kind::Invalid),
            (418, "", Kind::Other),
        ];
        for (status, code, expected) in cases {
            assert_eq!(kind(status, code), expected, "{status} {code}");
        }
    }

    #[test]
    fn refusals_that_every_request_would_meet_are_told_from_those_of_one() {
        let cases = [
            (403, "InvalidAccessKeyId", "", Subject::Credentials),
            (403, "SignatureDoesNotMatch", "", Subject::Credentials),
            (403, "InvalidTokenId", "", Subject::Credentials),
            (
                400,
                "AuthorizationQueryParametersError",
                "",
                Subject::Credentials,
            ),
            (403, "RequestTimeTooSkewed", "", Subject::Clock),
            (403, "AccessDenied", "Request has expired", Subject::Clock),
            (
                403,
                "AccessDenied",
                "Request is not valid yet",
                Subject::Clock,
            ),
            (403, "AccessDenied", "Access Denied.", Subject::Request),
            (404, "NoSuchBucket", "", Subject::Request),
            (503, "SlowDown", "", Subject::Server),
            (302, "", "", Subject::Server),
            (404, "", "", Subject::Server),
        ];
        for (status, code, message, expected) in cases {
            let refusal = Refusal {
                status,
                code: code.to_owned(),
                message: message.to_owned(),
                skew_seconds: None,
                pointed: None,
                wants_tls: false,
            };
            assert_eq!(refusal.subject(), expected, "{refusal}");
        }
    }

    #[test]
    fn every_status_that_a_proxy_may_give_has_advice() {
        let target = Target {
            verb: "put",
            endpoint: "http://minio:9000",
            bucket: "edi",
            key: "a",
        };
        for status in 201..=999 {
            let page = "<!DOCTYPE html><html>no</html>";
            let refusal = Refusal::new(status, &HeaderMap::new(), page, Timestamp::UNIX_EPOCH);
            let told = refusal.into_error(&target).chain();
            assert!(
                told.contains("a web page (") && told.ends_with(')'),
                "{told}"
            );
        }
    }

    #[test]
    fn redirect_is_shown_without_query_and_password() {
        let cases = [
            ("https://m/a/b?X-Amz-Signature=1", "https://m/a/b"),
            ("/minio/?X-Amz-Signature=1#f", "/minio/"),
            ("http://user:pass@m:9000/a", "http://m:9000/a"),
            ("/a@b", "/a@b"),
        ];
        for (location, shown) in cases {
            assert_eq!(without_query(location), shown);
        }
    }

    #[test]
    fn clock_skew_is_read_from_the_date_header() {
        let now: Timestamp = "2026-11-21T10:20:00Z".parse().expect("a time");
        let skew = skew_seconds("Sat, 21 Nov 2026 10:00:00 GMT", now);
        assert_eq!(skew, Some(1200));
        assert_eq!(skew_seconds("yesterday", now), None);
    }

    #[test]
    fn text_that_repeats_a_presigned_url_is_dropped() {
        let refusal = Refusal::inside(
            "<Error><Code>Odd</Code><Message>GET /a?X-Amz-Signature=0af1</Message></Error>",
        );
        assert_eq!(refusal.expect("an error").to_string(), "200 Odd");
    }

    #[test]
    fn answer_that_is_no_error_is_none() {
        assert!(Refusal::inside("<ListBucketResult></ListBucketResult>").is_none());
        assert!(Refusal::inside("").is_none());
    }

    #[test]
    fn refusal_is_read_from_the_body_and_where_there_is_none_from_the_head() {
        let now: Timestamp = "2026-11-21T10:20:00Z".parse().expect("a time");
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-minio-error-code", "NoSuchBucket"),
            ("x-minio-error-desc", "\"no bucket.\""),
            ("date", "Sat, 21 Nov 2026 10:00:00 GMT"),
        ] {
            headers.insert(name, value.parse().expect("a value"));
        }
        let refusal = Refusal::new(404, &headers, "", now);
        assert_eq!(refusal.to_string(), "404 NoSuchBucket: no bucket");
        assert_eq!(refusal.skew_seconds, Some(1200));

        let body = "\n<Error><Code>NoSuchKey</Code><Message>no key</Message></Error>";
        let refusal = Refusal::new(404, &headers, body, now);
        assert_eq!(refusal.to_string(), "404 NoSuchKey: no key");
    }
}
