//! What a run is told by its environment: here only how to reach MinIO.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

/// How to reach MinIO and who we are there.
#[derive(Clone)]
pub struct Connection {
    /// `MINIO_ENDPOINT`: scheme, host and port.
    pub endpoint: Url,
    /// `MINIO_ACCESS_KEY`.
    pub access_key: String,
    /// `MINIO_SECRET_KEY`.
    pub secret_key: String,
    /// `MINIO_SESSION_TOKEN`.
    pub session_token: Option<String>,
    /// `MINIO_REGION`.
    pub region: String,
    /// `MINIO_VERIFY`.
    pub verify: Verify,
    /// `MINIO_ADDRESSING_STYLE`.
    pub style: Addressing,
    /// `MINIO_CONNECT_TIMEOUT`: until a connection stands, TLS included.
    pub connect_timeout: Duration,
    /// `MINIO_READ_TIMEOUT`: without a single byte of progress.
    pub read_timeout: Duration,
}

/// Which certificates are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verify {
    /// Those that a public CA signed.
    Public,
    /// All.
    Off,
    /// Those that a CA in this PEM file signed.
    Bundle(PathBuf),
}

/// Where the bucket's name stands in a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addressing {
    /// In the path.
    Path,
    /// In the host name.
    Virtual,
}
