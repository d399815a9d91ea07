//! The store for the keys of a bucket that begin with a prefix. "S3" here means `MinIO`.
//!
//! Each call is one attempt; inside it a request has two more quick tries after a passing fault
//! (`retry`). Invariants: a request is only made for a key that a URL and `MinIO` can hold; an
//! object's `ETag` has no quotes anywhere but on the wire; no URL with its query leaves `client`.

mod addresses;
mod answer;
mod client;
mod connections;
mod copy;
mod early;
mod error;
mod get;
mod list;
mod page;
mod probe;
mod put;
mod retry;
mod tags;
mod transport;
mod xml;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rusty_s3::Bucket;

use self::answer::Answer;
pub use self::client::{Client, agent_for_others, post, shown};
use self::client::{Headers, Payload};
use self::error::{OTHER_SERVER, Target, seconds_of};
use self::get::Promise;
use super::{Clash, Early, Fetched, Fill, Listed, Near, Order, Published, Removed, Scope, Store};
use crate::error::{Error, Kind, Result};
use crate::object::{Attributes, Entry, KEY_MAX_BYTES, Name, Place, Version, part_flaw};
use crate::part::PartFile;
use crate::stage::{Stage, Staged};

/// Asks for stored checksums.
const CHECKSUM_MODE: (&str, &str) = ("x-amz-checksum-mode", "ENABLED");

/// All keys of a bucket that begin with a prefix.
pub struct S3Store {
    client: Arc<Client>,
    bucket: Bucket,
    place: Place,
    prefix: String,
    /// Keys that are never candidates: the rule's own destination within its source.
    excluded_prefix: Option<String>,
}

impl S3Store {
    /// A store for `prefix`, which is empty or ends with exactly one `/`. Connects to nothing yet.
    ///
    /// # Errors
    /// `Invalid`: the bucket's name cannot be addressed.
    pub fn new(
        client: Arc<Client>,
        bucket: &str,
        prefix: &str,
        excluded_prefix: Option<String>,
    ) -> Result<Self> {
        let place = Place::S3 {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        };
        Ok(Self {
            bucket: client.bucket(bucket)?,
            client,
            place,
            prefix: prefix.to_owned(),
            excluded_prefix,
        })
    }

    /// The key of an item.
    ///
    /// # Errors
    /// `Invalid`: a URL or `MinIO` cannot hold it.
    fn key(&self, name: &Name) -> Result<String> {
        let refuse = |why: &str| {
            let what = format!("use the key {}", self.place.item(name));
            Error::new(Kind::Invalid, what).because(why.to_owned())
        };
        let name = name
            .as_str()
            .ok_or_else(|| refuse("it is not UTF-8, as a key must be"))?;
        let key = format!("{}{name}", self.prefix);
        if key.len() > KEY_MAX_BYTES {
            let why = format!("it has {} bytes, at most {KEY_MAX_BYTES} go", key.len());
            return Err(refuse(&why));
        }
        // On its disks MinIO writes a `/` at a key's end so, and reads every name back so.
        let renamed = |part: &str| part.ends_with("__XLDIR__");
        let why = "MinIO would keep it under another name: a part ends in `__XLDIR__`";
        let flaw = key.split('/').find_map(|part| {
            let why = Some(why).filter(|_| renamed(part));
            why.or_else(|| part_flaw(part.as_bytes()))
        });
        match flaw {
            Some(why) => Err(refuse(why)),
            None => Ok(key),
        }
    }

    fn target<'a>(&'a self, verb: &'static str, key: &'a str) -> Target<'a> {
        Target {
            verb,
            endpoint: self.client.endpoint(),
            bucket: self.bucket.name(),
            key,
        }
    }

    /// What keeps the object from being removed: it is `gone`, or not what was staged.
    fn not_removable(
        &self,
        key: &str,
        version: &Version,
        gone: Removed,
    ) -> Result<Option<Removed>> {
        Ok(match self.head(key)? {
            None => Some(gone),
            Some(head) if head.version != *version => Some(Removed::Changed),
            Some(_) => None,
        })
    }

    /// What the server says of an object without its body; `None` where there is none.
    fn head(&self, key: &str) -> Result<Option<Head>> {
        let target = self.target("look at", key);
        let headers: Headers<'_> = vec![CHECKSUM_MODE];
        let found = self.client.tries(|attempt| {
            let action = self.bucket.head_object(self.client.credentials(), key);
            let answer = self
                .client
                .send(target, action, &headers, Payload::None, attempt)?;
            match answer.status() {
                200 => Head::read(&answer, &target).map(Looked::Object),
                404 => {
                    let refusal = answer.refusal();
                    match refusal.code() {
                        "NoSuchKey" => Ok(Looked::Nothing),
                        "" => Ok(Looked::Unclear),
                        _ => Err(refusal.into_error(&target)),
                    }
                }
                _ => Err(answer.error()),
            }
        })?;
        match found {
            Looked::Object(head) => Ok(Some(head)),
            Looked::Nothing => Ok(None),
            // Nothing says whether the bucket or the key is not there.
            Looked::Unclear => self.must_exist().map(|()| None),
        }
    }
}

impl Store for S3Store {
    fn place(&self) -> &Place {
        &self.place
    }

    fn order(&self) -> Order {
        Order::ByName
    }

    fn must_exist(&self) -> Result<()> {
        let target = self.target("look for", "");
        self.client.tries(|attempt| {
            let action = self.bucket.head_bucket(self.client.credentials());
            let answer =
                self.client
                    .send(target, action, &Headers::new(), Payload::None, attempt)?;
            match answer.status() {
                // A user without the right to list the bucket may still have the right to put.
                200 | 403 => Ok(()),
                404 => {
                    let refusal = answer.refusal();
                    match refusal.code() {
                        "" => Err(target
                            .error(Kind::Missing, "404: no such bucket")
                            .advise("make the bucket, or correct its name; it is never made here")),
                        _ => Err(refusal.into_error(&target)),
                    }
                }
                _ => Err(answer.error()),
            }
        })
    }

    fn list(
        &self,
        scope: &Scope<'_>,
        sink: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<Listed> {
        self.list_pages(None, scope, sink)
    }

    fn list_after(
        &self,
        after: Option<&Name>,
        scope: &Scope<'_>,
        sink: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<Listed> {
        self.list_pages(after, scope, sink)
    }

    fn look(&self, name: &Name) -> Result<Option<Version>> {
        let head = self.head(&self.key(name)?)?;
        Ok(head.map(|head| head.version))
    }

    fn fetch(&self, entry: &Entry, stage: &mut Stage<'_>) -> Result<Fetched> {
        self.fetch_object(entry, stage)
    }

    fn room(&self, _name: &Name, size_bytes: u64) -> Result<PartFile> {
        PartFile::unnamed(self.client.context(), size_bytes)
    }

    fn stage_by<'a>(
        &'a self,
        name: &Name,
        size_and_clash: (u64, Clash),
        stage: &mut Stage<'_>,
        fill: Fill<'_>,
    ) -> Result<(Fetched, Early<'a>)> {
        self.send_early(name, size_and_clash, stage, fill)
    }

    fn describe(&self, name: &Name, fetched: &mut Fetched) -> Result<()> {
        self.add_tags(&self.key(name)?, &mut fetched.attributes)
    }

    fn near<'a>(
        &'a self,
        source: &Place,
        entry: &Entry,
        meter: &'a AtomicU64,
    ) -> Result<Option<Box<dyn Near + 'a>>> {
        self.near_object(source, entry, meter)
    }

    fn publish(
        &self,
        name: &Name,
        staged: &Staged,
        attributes: &Attributes,
        clash: Clash,
    ) -> Result<Published> {
        self.put(&self.key(name)?, staged, attributes, clash)
    }

    fn holds(&self, name: &Name, staged: &Staged) -> Result<bool> {
        self.object_holds(&self.key(name)?, staged)
    }

    fn remove(&self, name: &Name, version: &Version) -> Result<Removed> {
        let key = self.key(name)?;
        let target = self.target("delete", &key);
        if let Some(end) = self.not_removable(&key, version, Removed::Gone)? {
            return Ok(end);
        }
        self.client.tries(|attempt| {
            // The first try may have removed it, and somebody may have put another object there
            // since.
            if attempt.is_repeat()
                && let Some(end) = self.not_removable(&key, version, Removed::Done)?
            {
                return Ok(end);
            }
            let action = self.bucket.delete_object(self.client.credentials(), &key);
            let answer =
                self.client
                    .send(target, action, &Headers::new(), Payload::None, attempt)?;
            match answer.status() {
                // The answer is trusted without a further look. The server knew the object by its
                // version a moment ago, and a delete that was not done leaves one copy too many,
                // never none.
                204 => Ok(Removed::Done),
                404 => {
                    let refusal = answer.refusal();
                    match refusal.code() {
                        // The first try may have removed it, and only its answer was lost.
                        "NoSuchKey" if attempt.is_repeat() => Ok(Removed::Done),
                        "NoSuchKey" => Ok(Removed::Gone),
                        _ => Err(refusal.into_error(&target)),
                    }
                }
                _ => Err(answer.error()),
            }
        })
    }
}

enum Looked {
    Object(Head),
    Nothing,
    Unclear,
}

/// What the server says of an object.
struct Head {
    version: Version,
    size_bytes: u64,
    /// CRC-64/NVME of the whole, base64, where it is stored.
    crc64: Option<String>,
    /// Without its tags.
    attributes: Attributes,
    /// The best digest of the whole that it shows.
    promise: Option<Promise>,
}

impl Head {
    fn read(answer: &Answer<'_>, target: &Target<'_>) -> Result<Self> {
        let (version, size_bytes) = described(answer, target)?;
        Ok(Self {
            version,
            size_bytes,
            crc64: get::whole_checksum(answer, "x-amz-checksum-crc64nvme").map(str::to_owned),
            attributes: get::attributes(answer),
            promise: Promise::best(answer, etag_of(answer).unwrap_or_default()),
        })
    }

    fn etag(&self) -> &str {
        match &self.version {
            Version::Object { etag, .. } => etag,
            Version::File { .. } => "",
        }
    }
}

/// The state and the length of an object, which every answer about it must have.
fn described(answer: &Answer<'_>, target: &Target<'_>) -> Result<(Version, u64)> {
    let missing = |what| {
        let error = target.error(Kind::Other, format!("the answer has no {what}"));
        error.advise(OTHER_SERVER)
    };
    let etag = etag_of(answer).ok_or_else(|| missing("ETag"))?;
    let size_bytes = answer.length().ok_or_else(|| missing("Content-Length"))?;
    let modified_s = answer
        .header("last-modified")
        .and_then(seconds_of)
        .ok_or_else(|| missing("Last-Modified"))?;
    let version = Version::Object {
        etag: etag.into(),
        modified_s,
        id: answer.header("x-amz-version-id").map(Into::into),
    };
    Ok((version, size_bytes))
}

/// The `ETag` header of an answer.
fn etag_of<'a>(answer: &'a Answer<'_>) -> Option<&'a str> {
    answer
        .header("etag")
        .map(unquoted)
        .filter(|etag| !etag.is_empty())
}

/// An `ETag` as it is kept and compared: without its quotes.
fn unquoted(etag: &str) -> &str {
    etag.trim_matches('"')
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::context::Context;
    use crate::environment::{Addressing, Connection, Verify};

    fn store_at(endpoint: &str, style: Addressing, prefix: &str) -> Result<S3Store> {
        let connection = Connection {
            endpoint: endpoint.parse().expect("a URL"),
            access_key: "access".into(),
            secret_key: "secret".into(),
            session_token: None,
            region: "us-east-1".into(),
            verify: Verify::Public,
            style,
            connect_timeout: Duration::from_secs(1),
            read_timeout: Duration::from_secs(1),
        };
        let context = Context::new(jiff::Timestamp::now, PathBuf::from("/tmp"));
        let client = Client::new(&connection, 1, Arc::new(context)).expect("a client");
        S3Store::new(client, "edi", prefix, None)
    }

    fn store(prefix: &str) -> S3Store {
        store_at("http://127.0.0.1:9", Addressing::Path, prefix).expect("a store")
    }

    fn refused(prefix: &str, name: &[u8]) -> String {
        let name = Name::new(name).expect("a name");
        let error = store(prefix).key(&name).expect_err("no such key");
        assert_eq!(error.kind(), Kind::Invalid);
        error.chain()
    }

    #[test]
    fn bucket_stands_where_the_addressing_style_says() {
        let url = |style| {
            let store = store_at("https://minio.test:9000", style, "").expect("a store");
            store.bucket.object_url("a b").to_string()
        };
        let path = "https://minio.test:9000/edi/a%20b";
        assert_eq!(url(Addressing::Path), path);
        let host = "https://edi.minio.test:9000/a%20b";
        assert_eq!(url(Addressing::Virtual), host);

        let nowhere = store_at("http://127.0.0.1:9", Addressing::Virtual, "");
        let error = nowhere.err().expect("no host name");
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.chain().contains("MINIO_ADDRESSING_STYLE=path"));
    }

    #[test]
    fn key_is_prefix_and_name() {
        let name = Name::new(*b"a/b.edi").expect("a name");
        let key = store("in/850/").key(&name).expect("a key");
        assert_eq!(key, "in/850/a/b.edi");
    }

    #[test]
    fn key_that_minio_cannot_hold_is_refused_before_any_request() {
        assert!(refused("", b"a\xff").ends_with("it is not UTF-8, as a key must be"));
        for name in [&b"a__XLDIR__"[..], b"a/__XLDIR__", b"a__XLDIR__/b"] {
            assert!(refused("in/", name).ends_with("a part ends in `__XLDIR__`"));
        }
        assert!(refused("", b"a//b").ends_with("a part of the name is empty"));
        assert!(refused("in/", b"../b").ends_with("a part of the name is `.` or `..`"));
        assert!(refused("", b"a/.").ends_with("a part of the name is `.` or `..`"));
        assert!(refused("", b"a\0b").ends_with("the name holds a NUL"));
        assert!(refused("", &[b'a'; 256]).ends_with("a part of the name is longer than 255 bytes"));
        let long = ["a"; 600].join("/");
        assert!(refused("in/", long.as_bytes()).ends_with("it has 1202 bytes, at most 1024 go"));
    }
}
