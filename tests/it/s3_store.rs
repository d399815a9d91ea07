//! The store for a bucket prefix, against a real `MinIO`.

mod faults;
mod minio;
mod proxy;
mod tls;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bots_mover::context::Context;
use bots_mover::environment::Connection;
use bots_mover::error::{Error, Kind, Result};
use bots_mover::object::{Attributes, Entry, Name, Version};
use bots_mover::stage::{PART_MIN_BYTES, Stage, Staged};
use bots_mover::store::s3::{Client, S3Store};
use bots_mover::store::{Clash, Fetched, Listed, Published, Removed, Scope, Store as _};
use jiff::Timestamp;
use rusty_s3::{Bucket, Credentials, S3Action as _, UrlStyle};

use minio::{ACCESS_KEY, Minio, SECRET_KEY, connection};

/// A bucket of its own on the shared `MinIO`.
struct Sandbox {
    minio: &'static Minio,
    bucket: String,
    context: Arc<Context>,
}

impl Sandbox {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let minio = Minio::plain();
        let bucket = format!("bucket-{}", NUMBER.fetch_add(1, Ordering::SeqCst));
        let sandbox = Self {
            minio,
            bucket,
            context: Arc::new(Context::new(Timestamp::now, std::env::temp_dir())),
        };
        let (bucket, credentials) = sandbox.raw();
        send(ureq::put(
            bucket
                .create_bucket(&credentials)
                .sign(Duration::from_secs(60))
                .as_str(),
        ));
        sandbox
    }

    fn raw(&self) -> (Bucket, Credentials) {
        let endpoint = connection(self.minio).endpoint;
        let name = self.bucket.clone();
        let bucket = Bucket::new(endpoint, UrlStyle::Path, name, "us-east-1").unwrap();
        (bucket, Credentials::new(ACCESS_KEY, SECRET_KEY))
    }

    /// Puts an object past the store, with headers.
    fn put_raw(&self, key: &str, content: &[u8], headers: &[(&str, &str)]) {
        let (bucket, credentials) = self.raw();
        let mut action = bucket.put_object(Some(&credentials), key);
        for (name, value) in headers {
            action.headers_mut().insert(*name, *value);
        }
        let mut request = ureq::put(action.sign(Duration::from_secs(60)).as_str());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send(content).unwrap();
        assert_eq!(answer.status(), 200);
    }

    /// The answer to a HEAD past the store, with checksums; `None` for a 404.
    fn head_raw(&self, key: &str) -> Option<BTreeMap<String, String>> {
        let (bucket, credentials) = self.raw();
        let mut action = bucket.head_object(Some(&credentials), key);
        action
            .headers_mut()
            .insert("x-amz-checksum-mode", "ENABLED");
        let answer = ureq::head(action.sign(Duration::from_secs(60)).as_str())
            .header("x-amz-checksum-mode", "ENABLED")
            .config()
            .http_status_as_error(false)
            .build()
            .call()
            .unwrap();
        (answer.status() == 200).then(|| {
            let text = |value: &ureq::http::HeaderValue| value.to_str().unwrap().to_owned();
            let headers = answer.headers().iter();
            headers
                .map(|(name, value)| (name.to_string(), text(value)))
                .collect()
        })
    }

    fn store(&self, prefix: &str) -> S3Store {
        self.store_by(&connection(self.minio), prefix)
    }

    fn store_by(&self, connection: &Connection, prefix: &str) -> S3Store {
        let client = Client::new(connection, 4, Arc::clone(&self.context)).unwrap();
        S3Store::new(client, &self.bucket, prefix, None).unwrap()
    }

    fn staged(&self, content: &[u8]) -> Staged {
        let mut stage = Stage::new(&self.context);
        stage.begin(content.len() as u64, None).unwrap();
        stage.write(content).unwrap();
        stage.finish().unwrap().0
    }

    fn fetch(&self, store: &S3Store, entry: &Entry) -> Result<Fetched> {
        store.fetch(entry, &mut Stage::new(&self.context))
    }

    /// How many unfinished uploads the bucket has.
    fn uploads(&self) -> usize {
        let (bucket, credentials) = self.raw();
        let mut action = bucket.list_objects_v2(Some(&credentials));
        action.query_mut().remove("list-type");
        action.query_mut().remove("encoding-type");
        action.query_mut().insert("uploads", "");
        // MinIO only lists the uploads of one key.
        action.query_mut().insert("prefix", "big.bin");
        let url = action.sign(Duration::from_secs(60));
        let text = ureq::get(url.as_str())
            .call()
            .unwrap()
            .body_mut()
            .read_to_string()
            .unwrap();
        text.matches("<Upload>").count()
    }
}

fn send(request: ureq::RequestBuilder<ureq::typestate::WithBody>) {
    assert_eq!(request.send_empty().unwrap().status(), 200);
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn entries(store: &S3Store, recursive: bool) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let scope = Scope {
        recursive,
        wanted: &|_| true,
        aside: &|_| {},
    };
    let listed = store.list(&scope, &mut |entry| {
        entries.push(entry);
        ControlFlow::Continue(())
    })?;
    assert_eq!(listed, Listed::Complete);
    Ok(entries)
}

fn names(store: &S3Store, recursive: bool) -> Vec<String> {
    let entries = entries(store, recursive).unwrap();
    entries
        .iter()
        .map(|entry| entry.name.lossy().into_owned())
        .collect()
}

fn put(store: &S3Store, name_text: &str, staged: &Staged, clash: Clash) -> Result<Published> {
    store.publish(&name(name_text), staged, &Attributes::default(), clash)
}

fn content_of(staged: &Staged) -> Vec<u8> {
    let mut content = vec![0; usize::try_from(staged.size_bytes()).unwrap()];
    let mut at = 0;
    while at < content.len() {
        let amount = staged.read_at(&mut content[at..], at as u64).unwrap();
        assert_ne!(amount, 0);
        at += amount;
    }
    content
}

/// Bytes without a pattern that a cut or a swap would keep.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn fails<T>(result: Result<T>, kind: Kind, texts: &[&str]) -> String {
    let error: Error = match result {
        Ok(_) => panic!("succeeds, but should fail with {kind:?}"),
        Err(error) => error,
    };
    let chain = error.chain();
    assert_eq!(error.kind(), kind, "{chain}");
    for text in texts {
        assert!(chain.contains(text), "{text:?} is not in {chain:?}");
    }
    assert!(!chain.contains("X-Amz-"), "{chain}");
    assert!(!chain.contains(SECRET_KEY), "{chain}");
    chain
}

/// Three parts.
const BIG: usize = (32 << 20) + 12_345;

const _: () = assert!(BIG as u64 > 2 * PART_MIN_BYTES && (BIG as u64) < 3 * PART_MIN_BYTES);

#[test]
fn object_of_any_length_comes_back_as_it_went() {
    let sandbox = Sandbox::new();
    let store = sandbox.store("in/");
    for length in [
        0,
        1,
        1000,
        128 << 10,
        (128 << 10) + 1,
        300 << 10,
        3 << 20,
        BIG,
    ] {
        let content = noise(length);
        let staged = sandbox.staged(&content);
        let done = put(&store, "a b.edi", &staged, Clash::Replace).unwrap();
        assert_eq!(done, Published::Done);

        let listed = entries(&store, true).unwrap();
        assert_eq!(listed.len(), 1, "{length}");
        assert_eq!(listed[0].size_bytes, length as u64);
        let fetched = sandbox.fetch(&store, &listed[0]).unwrap();
        assert!(content_of(&fetched.staged) == content, "{length}");
        assert_eq!(fetched.version, listed[0].version);
        assert_eq!(store.look(&name("a b.edi")).unwrap(), Some(fetched.version));
        assert!(store.holds(&name("a b.edi"), &staged).unwrap());
    }
}

#[test]
fn server_stores_the_checksum_of_the_whole() {
    let sandbox = Sandbox::new();
    let store = sandbox.store("");
    for length in [10, BIG] {
        put(&store, "a", &sandbox.staged(&noise(length)), Clash::Replace).unwrap();
        let head = sandbox.head_raw("a").unwrap();
        assert!(head.contains_key("x-amz-checksum-crc64nvme"), "{head:?}");
        assert_eq!(head["x-amz-checksum-type"], "FULL_OBJECT", "{head:?}");
    }
}

#[test]
fn nothing_is_replaced_where_that_is_refused() {
    let sandbox = Sandbox::new();
    let store = sandbox.store("");
    for length in [10, BIG] {
        let (ours, theirs) = (sandbox.staged(&noise(length)), sandbox.staged(b"theirs"));
        let key = "big.bin";
        assert_eq!(
            put(&store, key, &theirs, Clash::Replace).unwrap(),
            Published::Done
        );
        assert_eq!(
            put(&store, key, &ours, Clash::Refuse).unwrap(),
            Published::Exists
        );
        assert!(store.holds(&name(key), &theirs).unwrap());
        assert!(!store.holds(&name(key), &ours).unwrap());
        assert_eq!(sandbox.uploads(), 0);

        let version = store.look(&name(key)).unwrap().unwrap();
        assert_eq!(store.remove(&name(key), &version).unwrap(), Removed::Done);
        assert_eq!(
            put(&store, key, &ours, Clash::Refuse).unwrap(),
            Published::Done
        );
        assert!(store.holds(&name(key), &ours).unwrap());
    }
}

#[test]
fn object_that_differs_in_one_byte_is_not_held() {
    let sandbox = Sandbox::new();
    let store = sandbox.store("");
    let mut content = noise(300 << 10);
    // Put without a stored checksum, so that the contents are compared.
    sandbox.put_raw("a", &content, &[]);
    assert!(store.holds(&name("a"), &sandbox.staged(&content)).unwrap());
    *content.last_mut().unwrap() ^= 1;
    assert!(!store.holds(&name("a"), &sandbox.staged(&content)).unwrap());
    assert!(!store.holds(&name("b"), &sandbox.staged(&content)).unwrap());
}

#[test]
fn only_what_was_staged_is_removed() {
    let sandbox = Sandbox::new();
    let store = sandbox.store("");
    put(&store, "a", &sandbox.staged(b"one"), Clash::Replace).unwrap();
    let old = store.look(&name("a")).unwrap().unwrap();
    put(&store, "a", &sandbox.staged(b"two"), Clash::Replace).unwrap();
    assert_eq!(store.remove(&name("a"), &old).unwrap(), Removed::Changed);
    let new = store.look(&name("a")).unwrap().unwrap();
    assert_eq!(store.remove(&name("a"), &new).unwrap(), Removed::Done);
    assert_eq!(store.look(&name("a")).unwrap(), None);
    assert_eq!(store.remove(&name("a"), &new).unwrap(), Removed::Gone);
}

#[test]
fn attributes_go_from_object_to_object() {
    let sandbox = Sandbox::new();
    let store = sandbox.store("");
    let headers = [
        ("cache-control", "no-cache"),
        ("content-disposition", "attachment; filename=\"a  b.edi\""),
        ("content-encoding", "gzip"),
        ("content-language", "de"),
        ("content-type", "application/edi-x12"),
        ("expires", "Sat, 21 Nov 2026 08:10:04 GMT"),
        ("x-amz-meta-partner", "ACME  &  Co"),
    ];
    sandbox.put_raw("a", b"ISA*00", &headers);
    let entry = entries(&store, true).unwrap().remove(0);
    let fetched = sandbox.fetch(&store, &entry).unwrap();
    for length in [6, BIG] {
        let staged = sandbox.staged(&noise(length));
        let done = store.publish(&name("b"), &staged, &fetched.attributes, Clash::Replace);
        assert_eq!(done.unwrap(), Published::Done);
        let head = sandbox.head_raw("b").unwrap();
        for (key, value) in headers {
            assert_eq!(
                head.get(key).map(String::as_str),
                Some(value),
                "{key} of {head:?}"
            );
        }
    }
    put(&store, "c", &sandbox.staged(b"x"), Clash::Replace).unwrap();
    assert_eq!(
        sandbox.head_raw("c").unwrap()["content-type"],
        "application/octet-stream"
    );
}

#[test]
fn metadata_that_is_not_ascii_survives() {
    let sandbox = Sandbox::new();
    let store = sandbox.store("");
    // MinIO gives it back in the encoding of mail headers, and takes that, too.
    sandbox.put_raw("a", b"x", &[("x-amz-meta-partner", "Müller")]);
    let entry = entries(&store, true).unwrap().remove(0);
    let fetched = sandbox.fetch(&store, &entry).unwrap();
    let published = store.publish(
        &name("b"),
        &fetched.staged,
        &fetched.attributes,
        Clash::Replace,
    );
    assert_eq!(published.unwrap(), Published::Done);
    let (a, b) = (
        sandbox.head_raw("a").unwrap(),
        sandbox.head_raw("b").unwrap(),
    );
    assert_eq!(a["x-amz-meta-partner"], b["x-amz-meta-partner"]);
}

#[test]
fn odd_keys_are_put_listed_fetched_and_removed() {
    let sandbox = Sandbox::new();
    let store = sandbox.store("odd dir+/");
    let long_part = "o".repeat(255);
    let prefix_bytes = "odd dir+/".len();
    let longest = {
        let mut key = ["p".repeat(255), "q".repeat(255), "r".repeat(255)].join("/");
        key.push('/');
        key.push_str(&"q".repeat(1024 - prefix_bytes - key.len()));
        key
    };
    let mut odd: Vec<String> = [
        "a b",
        "a+b",
        "a%b",
        "a%2Fb",
        "a%20b",
        "a\"b",
        "a'b",
        "a\nb",
        "a\r\tb",
        "a#?&=b",
        "a;b:c@d,e",
        "a<b>c",
        "a\\b",
        "a|b^c`d",
        "a{b}[c]",
        "a~b_c-d.e",
        "ä€😀",
        "a*b!c$(d)",
        " a ",
        "e/f/g h.edi",
        "\u{7f}",
        "...",
        ".hidden",
        "__XLDIR__x",
        "xl.meta",
    ]
    .map(str::to_owned)
    .into();
    odd.extend([long_part, longest]);
    for key in &odd {
        put(&store, key, &sandbox.staged(key.as_bytes()), Clash::Refuse)
            .unwrap_or_else(|error| panic!("{key:?}: {}", error.chain()));
    }
    let listed = entries(&store, true).unwrap();
    let mut expected = odd.clone();
    expected.sort();
    let found: Vec<_> = listed
        .iter()
        .map(|entry| entry.name.lossy().into_owned())
        .collect();
    assert_eq!(found, expected);
    for entry in &listed {
        let fetched = sandbox.fetch(&store, entry).unwrap();
        assert_eq!(content_of(&fetched.staged), entry.name.as_bytes());
        assert_eq!(
            store.remove(&entry.name, &fetched.version).unwrap(),
            Removed::Done
        );
    }
    assert!(entries(&store, true).unwrap().is_empty());
}

#[test]
fn listing_is_in_key_order_over_many_pages() {
    let sandbox = Sandbox::new();
    let store = sandbox.store("in/");
    let mut expected = Vec::new();
    for number in 0..400 {
        for text in [
            format!("{number:03}"),
            format!("{number:03}-d/x"),
            format!("{number:03}-y"),
        ] {
            sandbox.put_raw(&format!("in/{text}"), b"", &[]);
            expected.push(text);
        }
    }
    sandbox.put_raw("in8/other", b"", &[]);
    expected.sort();
    assert_eq!(names(&store, true), expected);
    expected.retain(|name| !name.contains('/'));
    assert_eq!(names(&store, false), expected);
}

#[test]
fn listing_stops_with_its_receiver() {
    let sandbox = Sandbox::new();
    for key in ["a", "b", "c"] {
        sandbox.put_raw(key, b"", &[]);
    }
    let mut seen = Vec::new();
    let scope = Scope {
        recursive: true,
        wanted: &|name| name.as_bytes() != b"a",
        aside: &|_| {},
    };
    let listed = sandbox.store("").list(&scope, &mut |entry| {
        seen.push(entry.name.lossy().into_owned());
        ControlFlow::Break(())
    });
    assert_eq!(listed.unwrap(), Listed::Stopped);
    assert_eq!(seen, ["b"]);
}

#[test]
fn directories_and_the_rules_own_destination_are_no_candidates() {
    let sandbox = Sandbox::new();
    for key in [
        "in/",
        "in/a",
        "in/d/",
        "in/d/b",
        "in/done/a",
        "in/done/d/a",
        "in/done2",
    ] {
        sandbox.put_raw(key, b"", &[]);
    }
    let client = Client::new(&connection(sandbox.minio), 1, Arc::clone(&sandbox.context));
    let excluded = Some("in/done/".to_owned());
    let store = S3Store::new(client.unwrap(), &sandbox.bucket, "in/", excluded).unwrap();
    assert_eq!(names(&store, true), ["a", "d/b", "done2"]);
    assert_eq!(names(&store, false), ["a", "done2"]);
}

#[test]
fn object_that_is_gone_or_was_replaced_is_told_apart() {
    let sandbox = Sandbox::new();
    let store = sandbox.store("");
    sandbox.put_raw("a", b"one", &[]);
    let entry = entries(&store, true).unwrap().remove(0);
    sandbox.put_raw("a", b"longer", &[]);
    let fetched = sandbox.fetch(&store, &entry).unwrap();
    assert_eq!(content_of(&fetched.staged), b"longer");
    assert_ne!(fetched.version, entry.version);
    assert_eq!(
        store.remove(&name("a"), &entry.version).unwrap(),
        Removed::Changed
    );
    assert_eq!(
        store.remove(&name("a"), &fetched.version).unwrap(),
        Removed::Done
    );
    fails(
        sandbox.fetch(&store, &entry),
        Kind::Gone,
        &["NoSuchKey", "/a at http://"],
    );
}

#[test]
fn stored_checksums_of_every_kind_are_verified() {
    let sandbox = Sandbox::new();
    let store = sandbox.store("");
    // Of the nine bytes "123456789".
    let known = [
        ("x-amz-checksum-crc64nvme", "rosUhgp5mIg="),
        ("x-amz-checksum-crc32", "y/Q5Jg=="),
        ("x-amz-checksum-crc32c", "4waSgw=="),
        (
            "x-amz-checksum-sha256",
            "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU=",
        ),
    ];
    for header in known {
        sandbox.put_raw("a", b"123456789", &[header]);
        let entry = entries(&store, true).unwrap().remove(0);
        let fetched = sandbox.fetch(&store, &entry).unwrap();
        assert_eq!(content_of(&fetched.staged), b"123456789");
    }
}

#[test]
fn missing_bucket_is_named_by_every_call() {
    let sandbox = Sandbox::new();
    let client = Client::new(&connection(sandbox.minio), 1, Arc::clone(&sandbox.context));
    let store = S3Store::new(client.unwrap(), "no-such-bucket", "in/", None).unwrap();
    let entry = Entry {
        name: name("a"),
        size_bytes: 1,
        modified: Timestamp::UNIX_EPOCH,
        version: Version::object("0", Timestamp::UNIX_EPOCH),
    };
    let texts = ["no-such-bucket", "make the bucket", "at http://127.0.0.1:"];
    fails(store.must_exist(), Kind::Missing, &texts);
    fails(entries(&store, true), Kind::Missing, &texts);
    fails(sandbox.fetch(&store, &entry), Kind::Missing, &texts);
    fails(store.look(&entry.name), Kind::Missing, &texts);
    fails(
        store.remove(&entry.name, &entry.version),
        Kind::Missing,
        &texts,
    );
    fails(
        store.holds(&entry.name, &sandbox.staged(b"x")),
        Kind::Missing,
        &texts,
    );
    for length in [1, BIG] {
        let staged = sandbox.staged(&noise(length));
        fails(
            put(&store, "a", &staged, Clash::Replace),
            Kind::Missing,
            &texts,
        );
    }
    sandbox.store("").must_exist().unwrap();
}

#[test]
fn wrong_credentials_are_named_even_with_a_large_body() {
    let sandbox = Sandbox::new();
    let mut connection = connection(sandbox.minio);
    connection.secret_key = "wrong".into();
    let store = sandbox.store_by(&connection, "");
    let texts = ["403 SignatureDoesNotMatch", "MINIO_SECRET_KEY"];
    for length in [10, 250 << 10, 300 << 10, 10 << 20, 16 << 20, BIG] {
        let staged = sandbox.staged(&noise(length));
        fails(
            put(&store, "a", &staged, Clash::Replace),
            Kind::Denied,
            &texts,
        );
    }
    fails(entries(&store, true), Kind::Denied, &texts);
    fails(store.look(&name("a")), Kind::Denied, &texts);

    connection.access_key = "nobody".into();
    let store = sandbox.store_by(&connection, "");
    let texts = ["403 InvalidAccessKeyId", "MINIO_ACCESS_KEY"];
    fails(entries(&store, true), Kind::Denied, &texts);
}

#[test]
fn right_that_is_missing_is_named() {
    let sandbox = Sandbox::new();
    sandbox.put_raw("in/a", b"x", &[]);
    let rights = r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow",
        "Action": ["s3:PutObject"], "Resource": ["arn:aws:s3:::*/out/*"]}]}"#;
    let policy = sandbox.minio.directory.join("policy.json");
    std::fs::write(&policy, rights).unwrap();
    let user = format!("user-{}", sandbox.bucket);
    for arguments in [
        vec!["user", "add", "m", &user, "user-secret"],
        vec!["policy", "create", "m", &user, policy.to_str().unwrap()],
        vec!["policy", "attach", "m", &user, "--user", &user],
    ] {
        let host = format!(
            "http://{ACCESS_KEY}:{SECRET_KEY}@127.0.0.1:{}",
            sandbox.minio.port()
        );
        let done = std::process::Command::new(minio::program("mc"))
            .arg("--config-dir")
            .arg(sandbox.minio.directory.join("mc"))
            .arg("admin")
            .args(arguments)
            .env("MC_HOST_m", host)
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
    }
    let mut connection = connection(sandbox.minio);
    connection.access_key = user;
    connection.secret_key = "user-secret".into();
    let (input, output) = (
        sandbox.store_by(&connection, "in/"),
        sandbox.store_by(&connection, "out/"),
    );
    let staged = sandbox.staged(b"x");
    assert_eq!(
        put(&output, "a", &staged, Clash::Replace).unwrap(),
        Published::Done
    );
    let entry = entries(&sandbox.store("in/"), true).unwrap().remove(0);
    let denied = |result, right| fails(result, Kind::Denied, &["403 AccessDenied", right]);
    denied(entries(&input, true).map(drop), "must allow s3:ListBucket");
    denied(
        sandbox.fetch(&input, &entry).map(drop),
        "must allow s3:GetObject",
    );
    denied(input.look(&entry.name).map(drop), "must allow s3:GetObject");
    denied(
        put(&input, "b", &staged, Clash::Replace).map(drop),
        "must allow s3:PutObject",
    );
    let big = sandbox.staged(&noise(BIG));
    denied(
        put(&input, "b", &big, Clash::Replace).map(drop),
        "must allow s3:PutObject",
    );
    input.must_exist().unwrap();
}

#[test]
fn wrong_region_and_token_are_named() {
    // Without a region of its own MinIO takes any.
    let minio = Minio::start(None, &[("MINIO_SITE_REGION", "eu-north-7")]);
    let context = Arc::new(Context::new(Timestamp::now, std::env::temp_dir()));
    let client = Client::new(&connection(&minio), 1, context).unwrap();
    let store = S3Store::new(client, "edi", "", None).unwrap();
    fails(entries(&store, true), Kind::Other, &["MINIO_REGION"]);

    let sandbox = Sandbox::new();
    let mut connection = connection(sandbox.minio);
    connection.session_token = Some("no-token".into());
    let store = sandbox.store_by(&connection, "");
    fails(
        entries(&store, true),
        Kind::Denied,
        &["MINIO_SESSION_TOKEN"],
    );
}

#[test]
fn wrong_clock_is_named_with_its_skew_and_a_small_one_is_borne() {
    type Clock = fn() -> Timestamp;
    let sandbox = Sandbox::new();
    let clocks: [(Clock, Option<&str>); 4] = [
        (
            || Timestamp::now() - jiff::SignedDuration::from_mins(14),
            None,
        ),
        (
            || Timestamp::now() + jiff::SignedDuration::from_mins(14),
            None,
        ),
        (
            || Timestamp::now() - jiff::SignedDuration::from_mins(20),
            Some("s behind the server's"),
        ),
        (
            || Timestamp::now() + jiff::SignedDuration::from_mins(20),
            Some("s ahead of the server's"),
        ),
    ];
    for (clock, expected) in clocks {
        let context = Arc::new(Context::new(clock, std::env::temp_dir()));
        let client = Client::new(&connection(sandbox.minio), 1, context).unwrap();
        let store = S3Store::new(client, &sandbox.bucket, "", None).unwrap();
        match expected {
            None => assert!(entries(&store, true).unwrap().is_empty()),
            Some(text) => {
                fails(entries(&store, true), Kind::Denied, &["clock", text]);
            }
        }
    }
}

#[test]
fn key_beside_keys_below_it_is_listed_first_and_alone() {
    let sandbox = Sandbox::new();
    let store = sandbox.store("");
    for key in ["a/b", "a", "a/b/c"] {
        let done = put(&store, key, &sandbox.staged(b"x"), Clash::Refuse).unwrap();
        assert_eq!(done, Published::Done, "{key}");
    }
    for key in ["a", "a/b", "a/b/c"] {
        assert_eq!(names(&store, true), [key]);
        let version = store.look(&name(key)).unwrap().unwrap();
        assert_eq!(store.remove(&name(key), &version).unwrap(), Removed::Done);
    }
}

#[test]
fn copy_by_the_server_counts_each_byte_twice_as_staging_and_publishing_do() {
    let sandbox = Sandbox::new();
    let content = noise(BIG);
    sandbox.put_raw("in/big.bin", &content, &[]);
    let (source, dest) = (sandbox.store("in/"), sandbox.store("out/"));
    let listed = entries(&source, true).unwrap();
    // A quick try, or an attempt, may have counted before.
    let meter = AtomicU64::new(7);
    let near = dest.near(source.place(), &listed[0], &meter).unwrap();
    let near = near.expect("the server can copy it");
    assert_eq!(near.size_bytes(), content.len() as u64);
    let done = near.publish(&name("a"), Clash::Replace).unwrap();
    assert_eq!(done, Published::Done);
    assert_eq!(meter.load(Ordering::SeqCst), 2 * content.len() as u64);
    let removed = source.remove(&listed[0].name, near.version()).unwrap();
    assert_eq!(removed, Removed::Done);
    let copied = entries(&dest, true).unwrap();
    assert!(content_of(&sandbox.fetch(&dest, &copied[0]).unwrap().staged) == content);
}
