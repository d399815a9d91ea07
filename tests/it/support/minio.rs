//! The real `MinIO`: one for the whole test process, and one more that speaks TLS.

use std::env;
use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use ureq::tls::TlsConfig;

use super::s3::Bucket;
use super::sts::Session;

pub(crate) const ACCESS_KEY: &str = "test-access-key";
/// Distinct enough to be looked for in everything the program prints.
pub(crate) const SECRET_KEY: &str = "test-Secret/key+0123456789";

/// The server that the tests are written against, as `go install` takes it.
pub(crate) const PINNED: &str = "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c";

/// The domain below which it takes a host name's first part for a bucket.
pub(crate) const DOMAIN: &str = "minio.test";

const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A running server.
pub(crate) struct Minio {
    /// `host:port`.
    pub(crate) address: String,
    /// The CA that signed its certificate, in PEM; `None` where it speaks plain HTTP.
    pub(crate) ca_pem: Option<String>,
    /// All its files; removed with it.
    pub(crate) directory: PathBuf,
    agent: ureq::Agent,
    /// Its standard input is the watchdog's leash: it ends when we let go, as when we end.
    watchdog: Child,
}

impl Minio {
    /// The one that speaks HTTP; started on first use.
    pub(crate) fn plain() -> &'static Self {
        static MINIO: OnceLock<Minio> = OnceLock::new();
        MINIO.get_or_init(|| Self::start(None, &[]))
    }

    /// The one that speaks HTTPS with a certificate of a private CA.
    pub(crate) fn tls() -> &'static Self {
        static MINIO: OnceLock<Minio> = OnceLock::new();
        MINIO.get_or_init(|| {
            let identity = Identity::new("bots-mover test CA", &["127.0.0.1", "localhost"]);
            Self::start(Some(&identity), &[])
        })
    }

    /// One that encrypts all objects with a key of its own.
    pub(crate) fn encrypting() -> &'static Self {
        static MINIO: OnceLock<Minio> = OnceLock::new();
        MINIO.get_or_init(|| {
            let key = "key:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
            let variables = [
                ("MINIO_KMS_SECRET_KEY", key),
                ("MINIO_KMS_AUTO_ENCRYPTION", "on"),
            ];
            Self::start(None, &variables)
        })
    }

    pub(crate) fn port(&self) -> u16 {
        let port = self.address.rsplit(':').next();
        port.and_then(|port| port.parse().ok())
            .expect("an address ends in a port")
    }

    pub(crate) fn endpoint(&self) -> String {
        let scheme = if self.ca_pem.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}", self.address)
    }

    /// A new, empty bucket that no other test knows.
    pub(crate) fn new_bucket(&self) -> Bucket {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("edi-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let bucket = self.bucket(&name);
        bucket.create();
        bucket
    }

    /// Whether it honours `If-None-Match` on a PUT; one of 2023 does not.
    pub(crate) fn refuses_to_replace(&self) -> bool {
        static REFUSES: OnceLock<bool> = OnceLock::new();
        *REFUSES.get_or_init(|| {
            let bucket = self.new_bucket();
            bucket.put("a", "first");
            !bucket.put_new("a", "second")
        })
    }

    /// A bucket that may not exist.
    pub(crate) fn bucket(&self, name: &str) -> Bucket {
        Bucket::new(
            &self.endpoint(),
            name,
            (ACCESS_KEY, SECRET_KEY),
            &self.agent,
        )
    }

    /// Credentials that may do only these `s3:` actions, and in one bucket only.
    pub(crate) fn session(&self, bucket: &str, actions: &[&str]) -> Session {
        let policy = serde_json::json!({
            "Version": "2012-10-17",
            "Statement": [{
                "Effect": "Allow",
                "Action": actions,
                "Resource": [
                    format!("arn:aws:s3:::{bucket}"),
                    format!("arn:aws:s3:::{bucket}/*"),
                ],
            }],
        });
        Session::with(&self.agent, &self.endpoint(), &policy.to_string())
    }

    /// One of its own, with further variables; it ends when it is dropped.
    pub(crate) fn start(identity: Option<&Identity>, environment: &[(&str, &str)]) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("bots-mover-minio-")
            .tempdir()
            .expect("a temporary directory for MinIO")
            .keep();
        let certificates = directory.join("certs");
        fs::create_dir(&certificates).expect("make MinIO's directory of certificates");
        if let Some(identity) = identity {
            fs::write(certificates.join("public.crt"), &identity.certificate).unwrap();
            fs::write(certificates.join("private.key"), &identity.key).unwrap();
        }
        let address = format!("127.0.0.1:{}", free_port());
        let mut minio = Self {
            agent: agent(),
            watchdog: spawn(&directory, &certificates, &address, environment),
            ca_pem: identity.map(|identity| identity.ca.clone()),
            directory,
            address,
        };
        minio.wait_until_ready();
        minio
    }

    fn wait_until_ready(&mut self) {
        // `ready` says 200 as soon as it listens, and a bucket is refused for a moment still.
        let url = format!("{}/minio/health/cluster", self.endpoint());
        let start = Instant::now();
        loop {
            if self
                .agent
                .get(&url)
                .call()
                .is_ok_and(|answer| answer.status() == 200)
            {
                return;
            }
            let ended = self
                .watchdog
                .try_wait()
                .expect("ask for the watchdog's state");
            if ended.is_some() || start.elapsed() > START_TIMEOUT {
                let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
                panic!("MinIO did not start at {}: {ended:?}\n{log}", self.address);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Minio {
    fn drop(&mut self) {
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
    }
}

/// Starts `MinIO` below a shell that kills it and removes its files once our end of the pipe that
/// is the shell's standard input closes, as it does however this process ends. The shell's process
/// group is its own, so Ctrl-C reaches us only.
fn spawn(
    directory: &Path,
    certificates: &Path,
    address: &str,
    environment: &[(&str, &str)],
) -> Child {
    const WATCHDOG: &str = r#"
        directory=$1; shift
        "$@" </dev/null >"$directory/log" 2>&1 &
        server=$!
        trap 'kill -9 $server; wait $server; rm -rf "$directory"' EXIT
        read -r _
    "#;
    Command::new("sh")
        .args(["-c", WATCHDOG, "watchdog"])
        .arg(directory)
        .arg(server())
        .args(["server", "--quiet", "--address", address])
        .args(["--console-address", &format!("127.0.0.1:{}", free_port())])
        .arg("--certs-dir")
        .arg(certificates)
        .arg(directory.join("data"))
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        .env("HOME", directory)
        .env("MINIO_ROOT_USER", ACCESS_KEY)
        .env("MINIO_ROOT_PASSWORD", SECRET_KEY)
        .env("MINIO_BROWSER", "off")
        .env("MINIO_DOMAIN", DOMAIN)
        .env("MINIO_UPDATE", "off")
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("start a shell")
}

/// The server's program: that which `BOTS_MOVER_MINIO` names, else the pinned one.
fn server() -> PathBuf {
    match env::var_os("BOTS_MOVER_MINIO") {
        Some(named) => named.into(),
        None => program("minio"),
    }
}

/// Where the pinned `minio` or its `mc` is; its absence is a failure, never a skipped test.
pub(crate) fn program(name: &str) -> PathBuf {
    let on_path = env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = env::split_paths(&on_path).collect();
    let go = Command::new("go").args(["env", "GOPATH"]).output();
    if let Ok(output) = go {
        let text = String::from_utf8_lossy(&output.stdout);
        places.push(PathBuf::from(text.trim()).join("bin"));
    }
    if let Some(home) = env::var_os("HOME") {
        places.push(PathBuf::from(home).join("go/bin"));
    }
    let mut programs = places.into_iter().map(|place| place.join(name));
    let found = programs.find(|program| program.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "the tests need {name} on PATH or in $(go env GOPATH)/bin: run `./build.sh test`, or \
             `go install {PINNED}` for the server"
        )
    })
}

/// A port that nobody listens on now. Somebody may take it before `MinIO` does; then it does not
/// start, and says so.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind to a free port");
    listener.local_addr().expect("its own address").port()
}

/// It believes every certificate: who tests TLS does not test with it.
fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_global(Some(Duration::from_secs(60)))
        .tls_config(TlsConfig::builder().disable_verification(true).build())
        .build()
        .new_agent()
}

/// A private CA and a server's certificate that it signed.
pub(crate) struct Identity {
    /// The CA's certificate in PEM.
    pub(crate) ca: String,
    certificate: String,
    key: String,
}

impl Identity {
    /// A CA of this name, and a certificate for `hosts`.
    pub(crate) fn new(name: &str, hosts: &[&str]) -> Self {
        let ca_key = KeyPair::generate().expect("a key for the CA");
        let mut ca = CertificateParams::new([]).expect("parameters without names");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(rcgen::DnType::CommonName, name);
        let ca_certificate = ca.self_signed(&ca_key).expect("a CA certificate");
        let issuer = Issuer::new(ca, ca_key);
        let key = KeyPair::generate().expect("a key for the server");
        let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let leaf = CertificateParams::new(hosts).expect("parameters with plain names");
        let certificate = leaf.signed_by(&key, &issuer).expect("a server certificate");
        Self {
            ca: ca_certificate.pem(),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}
