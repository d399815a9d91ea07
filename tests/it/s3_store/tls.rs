//! https: private CAs, wrong names, the wrong scheme.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bots_mover::context::Context;
use bots_mover::environment::{Connection, Verify};
use bots_mover::error::Kind;
use bots_mover::stage::{Stage, Staged};
use bots_mover::store::s3::{Client, S3Store};
use bots_mover::store::{Clash, Published, Store as _};
use jiff::Timestamp;

use super::minio::{Identity, Minio, connection, free_port};
use super::{BIG, content_of, entries, fails, name, noise, put};

/// A `MinIO` with a certificate for `localhost`, and not for `127.0.0.1`, by a private CA.
struct Secure {
    minio: Minio,
    files: tempfile::TempDir,
}

impl Secure {
    fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Secure>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let secure = Arc::new(Self::start());
            *shared = Arc::downgrade(&secure);
            secure
        })
    }

    fn start() -> Self {
        let files = tempfile::tempdir().unwrap();
        let identity = Identity::new("a private CA", &["localhost"]);
        let write = |file: &str, text: &str| fs::write(files.path().join(file), text).unwrap();
        write("ca.pem", &identity.ca);
        write("other.pem", &Identity::new("another CA", &[]).ca);
        write("empty.pem", "");
        let minio = Minio::start(Some(&identity), &[]);
        minio.bucket("edi").create();
        Self { minio, files }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn connection(&self, host: &str, verify: Verify) -> Connection {
        let mut connection = connection(&self.minio);
        let endpoint = format!("https://{host}:{}", self.minio.port());
        connection.endpoint = endpoint.parse().unwrap();
        connection.verify = verify;
        connection
    }
}

fn new_context() -> Arc<Context> {
    Arc::new(Context::new(Timestamp::now, std::env::temp_dir()))
}

fn store(connection: &Connection) -> S3Store {
    let client = Client::new(connection, 4, new_context()).unwrap();
    S3Store::new(client, "edi", "", None).unwrap()
}

fn staged(bytes: &[u8]) -> Staged {
    let context = new_context();
    let mut stage = Stage::new(&context);
    stage.begin(bytes.len() as u64, None).unwrap();
    stage.write(bytes).unwrap();
    stage.finish().unwrap().0
}

#[test]
fn objects_go_both_ways_by_tls_with_a_private_ca() {
    let secure = Secure::shared();
    let ways = [
        ("localhost", Verify::Bundle(secure.file("ca.pem"))),
        ("127.0.0.1", Verify::Off),
    ];
    for (number, (host, verify)) in ways.into_iter().enumerate() {
        let store = store(&secure.connection(host, verify));
        for length in [0, 10, 300 << 10, BIG] {
            let sent = noise(length);
            let key = format!("{number}-{length}");
            let done = put(&store, &key, &staged(&sent), Clash::Refuse).unwrap();
            assert_eq!(done, Published::Done);
            let entries = entries(&store, true).unwrap();
            let entry = entries
                .iter()
                .find(|entry| entry.name == name(&key))
                .unwrap();
            let context = new_context();
            let fetched = store.fetch(entry, &mut Stage::new(&context)).unwrap();
            assert!(content_of(&fetched.staged) == sent, "{host} {length}");
        }
    }
}

#[test]
fn certificate_of_an_unknown_ca_is_refused() {
    let secure = Secure::shared();
    for verify in [Verify::Public, Verify::Bundle(secure.file("other.pem"))] {
        let store = store(&secure.connection("localhost", verify));
        let texts = [
            "TLS: invalid peer certificate",
            "MINIO_VERIFY must name a PEM file",
        ];
        fails(entries(&store, true), Kind::Other, &texts);
    }
}

#[test]
fn certificate_for_another_host_is_refused() {
    let secure = Secure::shared();
    let store = store(&secure.connection("127.0.0.1", Verify::Bundle(secure.file("ca.pem"))));
    let texts = [
        "TLS: invalid peer certificate",
        "other host names",
        "https://127.0.0.1:",
    ];
    fails(entries(&store, true), Kind::Other, &texts);
}

#[test]
fn wrong_scheme_is_named() {
    let secure = Secure::shared();
    let plain = Minio::plain();
    let mut connection = connection(plain);
    connection.endpoint = format!("https://127.0.0.1:{}", plain.port())
        .parse()
        .unwrap();
    let texts = ["MINIO_ENDPOINT must begin with http://"];
    fails(entries(&store(&connection), true), Kind::Other, &texts);

    connection = super::connection(&secure.minio);
    connection.endpoint = format!("http://127.0.0.1:{}", secure.minio.port())
        .parse()
        .unwrap();
    let texts = ["MINIO_ENDPOINT must begin with https://"];
    fails(entries(&store(&connection), true), Kind::Other, &texts);
}

#[test]
fn bundle_that_holds_no_certificate_is_named() {
    let secure = Secure::shared();
    for file in ["no-such.pem", "empty.pem", "private.key"] {
        let path = secure.file(file);
        let connection = secure.connection("localhost", Verify::Bundle(path.clone()));
        let texts = [path.to_str().unwrap(), "MINIO_VERIFY must be"];
        fails(
            Client::new(&connection, 1, new_context()),
            Kind::Invalid,
            &texts,
        );
    }
}

#[test]
fn nobody_home_is_named() {
    let plain = Minio::plain();
    let mut connection = connection(plain);
    connection.endpoint = format!("http://127.0.0.1:{}", free_port()).parse().unwrap();
    let texts = ["connection refused", "nothing listens there"];
    fails(entries(&store(&connection), true), Kind::Transient, &texts);

    connection.endpoint = "http://no-such-host.invalid:9000".parse().unwrap();
    let texts = ["host not found", "check the host name in MINIO_ENDPOINT"];
    fails(entries(&store(&connection), true), Kind::Other, &texts);
}
