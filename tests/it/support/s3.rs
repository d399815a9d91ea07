//! An S3 client for tests, independent of the program's own store.

// An action is made for its one call.
#![allow(clippy::needless_pass_by_value)]

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rusty_s3::actions::ListObjectsV2;
use rusty_s3::{Credentials, Map, S3Action, UrlStyle};
use ureq::http::{HeaderMap, Method, Request};

use super::tree::{Bytes, Tree};

const EXPIRES: Duration = Duration::from_secs(600);
/// One more than the connections that the agent keeps.
const REPEATS: u32 = 4;

/// One bucket of one server.
#[derive(Clone)]
pub(crate) struct Bucket {
    inner: rusty_s3::Bucket,
    credentials: Credentials,
    agent: ureq::Agent,
}

/// An object as `GET` or `HEAD` shows it.
pub(crate) struct Object {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Object {
    /// One header's value, empty where it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().expect("a header in ASCII"))
    }
}

impl Bucket {
    /// Does not ask the server; `agent` must not turn a status into an error.
    pub(crate) fn new(
        endpoint: &str,
        name: &str,
        credentials: (&str, &str),
        agent: &ureq::Agent,
    ) -> Self {
        let endpoint = endpoint.parse().expect("the endpoint is a URL");
        let name = name.to_owned();
        Self {
            inner: rusty_s3::Bucket::new(endpoint, UrlStyle::Path, name, "us-east-1")
                .expect("the endpoint can be a base"),
            credentials: Credentials::new(credentials.0, credentials.1),
            agent: agent.clone(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.inner.name()
    }

    /// Makes the bucket.
    pub(crate) fn create(&self) {
        let action = self.inner.create_bucket(&self.credentials);
        self.send(action, Method::PUT, &[], &[200]);
    }

    /// Keeps every version of its objects from now on.
    pub(crate) fn keep_versions(&self) {
        let mut action = self.inner.create_bucket(&self.credentials);
        action.query_mut().insert("versioning", "");
        let body = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
        self.send_with(action, Method::PUT, &[], body.as_bytes(), &[200]);
    }

    /// Whether there is such a bucket.
    pub(crate) fn exists(&self) -> bool {
        let action = self.inner.head_bucket(Some(&self.credentials));
        self.status(action, Method::HEAD) == 200
    }

    pub(crate) fn put(&self, key: &str, body: impl AsRef<[u8]>) {
        self.put_with(key, body, &[]);
    }

    /// With headers such as `content-type` and `x-amz-meta-…`; all of them are signed.
    pub(crate) fn put_with(&self, key: &str, body: impl AsRef<[u8]>, headers: &[(&str, &str)]) {
        let mut action = self.inner.put_object(Some(&self.credentials), key);
        insert(action.headers_mut(), headers);
        self.send_with(action, Method::PUT, headers, body.as_ref(), &[200]);
    }

    /// With a CRC-64/NVME of the whole, as the program itself and other clients of today store it.
    pub(crate) fn put_summed(&self, key: &str, body: impl AsRef<[u8]>) {
        let mut crc = crc64fast_nvme::Digest::new();
        crc.write(body.as_ref());
        let crc = STANDARD.encode(crc.sum64().to_be_bytes());
        self.put_with(key, body, &[("x-amz-checksum-crc64nvme", &crc)]);
    }

    /// Asks the server to refuse where the key exists; whether it was stored.
    pub(crate) fn put_new(&self, key: &str, body: impl AsRef<[u8]>) -> bool {
        let headers = [("if-none-match", "*")];
        let mut action = self.inner.put_object(Some(&self.credentials), key);
        insert(action.headers_mut(), &headers);
        let answer = self.send_with(action, Method::PUT, &headers, body.as_ref(), &[200, 412]);
        answer.body.is_empty()
    }

    /// The set of its tags, as XML.
    pub(crate) fn tags(&self, key: &str) -> String {
        let mut action = self.inner.get_object(Some(&self.credentials), key);
        action.query_mut().insert("tagging", "");
        let answer = self.send(action, Method::GET, &[], &[200]);
        let text = String::from_utf8(answer.body).expect("tags are UTF-8");
        let set = text.split("<TagSet>").nth(1);
        let set = set.and_then(|set| set.split("</TagSet>").next());
        set.unwrap_or_default().to_owned()
    }

    /// Panics where it is not there.
    pub(crate) fn get(&self, key: &str) -> Object {
        let action = self.inner.get_object(Some(&self.credentials), key);
        self.send(action, Method::GET, &[], &[200])
    }

    /// `None` where it is not there.
    pub(crate) fn head(&self, key: &str) -> Option<Object> {
        let action = self.inner.head_object(Some(&self.credentials), key);
        let object = self.send(action, Method::HEAD, &[], &[200, 404]);
        object.headers.contains_key("etag").then_some(object)
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.head(key).is_some()
    }

    pub(crate) fn delete(&self, key: &str) {
        let action = self.inner.delete_object(Some(&self.credentials), key);
        self.send(action, Method::DELETE, &[], &[204]);
    }

    /// All keys in the order of their bytes, as `MinIO` lists them.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.sizes().into_iter().map(|(key, _)| key).collect()
    }

    /// All keys and their lengths in bytes.
    pub(crate) fn sizes(&self) -> Vec<(String, u64)> {
        let mut all = Vec::new();
        let mut token = None::<String>;
        loop {
            let mut action = self.inner.list_objects_v2(Some(&self.credentials));
            if let Some(token) = token {
                action.with_continuation_token(token);
            }
            let answer = self.send(action, Method::GET, &[], &[200]);
            let text = String::from_utf8(answer.body).expect("a listing is UTF-8");
            let page = ListObjectsV2::parse_response(&text).expect("a listing parses");
            all.extend(
                page.contents
                    .into_iter()
                    .map(|c| (c.key, c.size.unwrap_or(0))),
            );
            token = page.next_continuation_token;
            if token.is_none() {
                return all;
            }
        }
    }

    /// All objects below `prefix`, named without it. A request of a killed run may still be at work
    /// in the server: what vanishes between its listing and its reading is left out.
    pub(crate) fn tree(&self, prefix: &str) -> Tree {
        let mut tree = Tree::default();
        for key in self.keys() {
            if let Some(name) = key.strip_prefix(prefix) {
                let action = self.inner.get_object(Some(&self.credentials), &key);
                let object = self.send(action, Method::GET, &[], &[200, 404]);
                if object.headers.contains_key("etag") {
                    tree.0.insert(name.to_owned(), Bytes(object.body));
                }
            }
        }
        tree
    }

    fn status<'a>(&self, action: impl S3Action<'a>, method: Method) -> u16 {
        let request = Request::builder()
            .method(method)
            .uri(action.sign(EXPIRES).as_str());
        let request = request.body(()).expect("a request can be built");
        let answer = self.agent.run(request).expect("the server answers");
        answer.status().as_u16()
    }

    fn send<'a>(
        &self,
        action: impl S3Action<'a>,
        method: Method,
        body: &[u8],
        expected: &[u16],
    ) -> Object {
        self.send_with(action, method, &[], body, expected)
    }

    fn send_with<'a>(
        &self,
        action: impl S3Action<'a>,
        method: Method,
        headers: &[(&str, &str)],
        body: &[u8],
        expected: &[u16],
    ) -> Object {
        let url = action.sign(EXPIRES);
        let mut request = Request::builder().method(&method).uri(url.as_str());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).expect("a request can be built");
        // A server may close a pooled connection at the moment it is used again, and every client
        // has to expect it. A conditional request is sent once: the first may have been heard.
        let once = headers.iter().any(|(name, _)| *name == "if-none-match");
        let mut repeats = if once { 0 } else { REPEATS };
        let mut answer = self.agent.run(request.clone());
        while repeats > 0 && matches!(answer, Err(ureq::Error::Io(_))) {
            repeats -= 1;
            answer = self.agent.run(request.clone());
        }
        let (head, mut body) = answer
            .unwrap_or_else(|error| panic!("{method} {}: {error}", url.path()))
            .into_parts();
        let body = body.with_config().limit(u64::MAX).read_to_vec();
        let body = body.unwrap_or_else(|error| panic!("{method} {}: {error}", url.path()));
        assert!(
            expected.contains(&head.status.as_u16()),
            "{method} {}: {} {}",
            url.path(),
            head.status,
            String::from_utf8_lossy(&body)
        );
        Object {
            headers: head.headers,
            body,
        }
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bucket {}", self.name())
    }
}

fn insert<'a>(map: &mut Map<'a>, headers: &[(&'a str, &'a str)]) {
    for (name, value) in headers {
        map.insert(*name, *value);
    }
}
