//! Reading an object: into a stage, verified by length and by the best digest that the server
//! promises; or beside one, byte for byte.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::answer::Answer;
use super::client::{Headers, Payload};
use super::error::Target;
use super::{CHECKSUM_MODE, S3Store, described, etag_of};
use crate::error::{Error, Kind, Result};
use crate::object::{Attributes, Entry, Version};
use crate::stage::{Algorithm, Stage, Staged, chunk_for};
use crate::store::Fetched;

/// What is kept beside the contents, apart from `x-amz-meta-*`.
const ATTRIBUTES: [&str; 6] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
];

impl S3Store {
    /// Copies the whole object into `stage` and verifies it.
    pub(super) fn fetch_object(&self, entry: &Entry, stage: &mut Stage<'_>) -> Result<Fetched> {
        let key = self.key(&entry.name)?;
        let target = self.target("get", &key);
        self.client.tries(|attempt| {
            let headers: Headers<'_> = vec![CHECKSUM_MODE];
            let action = self.bucket.get_object(self.client.credentials(), &key);
            let mut answer = self
                .client
                .send(target, action, &headers, Payload::None, attempt)?;
            match answer.status() {
                200 => {}
                404 => return Err(self.not_found(answer, &target)),
                206 => {
                    let why = "206: a part of the object where the whole was asked for";
                    return Err(target.error(Kind::Other, why));
                }
                _ => return Err(answer.error()),
            }
            let facts = Facts::read(&answer, &target, entry)?;
            let promised = facts.promise.as_ref().map(|promise| promise.algorithm);
            stage.begin(facts.size_bytes, promised)?;
            let mut buffer = chunk_for(facts.size_bytes);
            loop {
                match fill(&mut answer, &mut buffer)? {
                    0 => break,
                    amount => stage.write(&buffer[..amount])?,
                }
            }
            let (staged, digest) = stage.finish()?;
            if let (Some(promise), Some(digest)) = (&facts.promise, digest) {
                promise.compare(&digest, &target)?;
            }
            Ok(Fetched {
                staged,
                version: facts.version,
                attributes: attributes(&answer),
            })
        })
    }

    /// Whether the object is there and holds byte for byte what is staged.
    pub(super) fn object_holds(&self, key: &str, staged: &Staged) -> Result<bool> {
        let Some(head) = self.head(key)? else {
            return Ok(false);
        };
        if head.size_bytes != staged.size_bytes() {
            return Ok(false);
        }
        // Objects that differ here need not be read. All others are read and compared.
        if head
            .crc64
            .is_some_and(|stored| stored != crc64_text(staged.crc64()))
        {
            return Ok(false);
        }
        let target = self.target("get", key);
        self.client.tries(|attempt| {
            let action = self.bucket.get_object(self.client.credentials(), key);
            let mut answer =
                self.client
                    .send(target, action, &Headers::new(), Payload::None, attempt)?;
            match answer.status() {
                200 => staged.equals(self.client.context(), |buffer| answer.read(buffer)),
                404 => match self.not_found(answer, &target) {
                    error if error.kind() == Kind::Gone => Ok(false),
                    error => Err(error),
                },
                _ => Err(answer.error()),
            }
        })
    }

    /// A 404 is the key's or the bucket's; where the answer does not say, the bucket is looked at.
    pub(super) fn not_found(&self, answer: Answer<'_>, target: &Target<'_>) -> Error {
        use crate::store::Store as _;
        let refusal = answer.refusal();
        if !refusal.code().is_empty() {
            return refusal.into_error(target);
        }
        match self.must_exist() {
            Ok(()) => refusal.into_error(target).with_kind(Kind::Gone),
            Err(error) => error,
        }
    }
}

/// What the head of an answer says about the body that follows.
struct Facts {
    size_bytes: u64,
    version: Version,
    promise: Option<Promise>,
}

impl Facts {
    fn read(answer: &Answer<'_>, target: &Target<'_>, entry: &Entry) -> Result<Self> {
        let (version, size_bytes) = described(answer, target)?;
        let etag = etag_of(answer).unwrap_or_default();
        let is_listed = matches!(&entry.version, Version::Object { etag: listed, .. }
            if **listed == *etag);
        if is_listed && size_bytes != entry.size_bytes {
            let listed = entry.size_bytes;
            let why = format!("{size_bytes} bytes announced, but {listed} listed for this ETag");
            return Err(target.error(Kind::Other, why));
        }
        Ok(Self {
            size_bytes,
            promise: Promise::best(answer, etag),
            version,
        })
    }
}

/// A digest of the whole object that the server gave before the body.
struct Promise {
    algorithm: Algorithm,
    digest: Vec<u8>,
}

impl Promise {
    /// The cheapest to verify: CRC-64/NVME is computed anyway.
    fn best(answer: &Answer<'_>, etag: &str) -> Option<Self> {
        let stored = |name, algorithm, bytes| {
            let digest = BASE64.decode(whole_checksum(answer, name)?).ok()?;
            (digest.len() == bytes).then_some(Self { algorithm, digest })
        };
        stored("x-amz-checksum-crc64nvme", Algorithm::Crc64Nvme, 8)
            .or_else(|| md5(answer, etag))
            .or_else(|| stored("x-amz-checksum-sha256", Algorithm::Sha256, 32))
            .or_else(|| stored("x-amz-checksum-crc32c", Algorithm::Crc32c, 4))
            .or_else(|| stored("x-amz-checksum-crc32", Algorithm::Crc32, 4))
    }

    fn compare(&self, digest: &[u8], target: &Target<'_>) -> Result<()> {
        if self.digest == digest {
            return Ok(());
        }
        let (algorithm, promised, got) = (self.algorithm, hex(&self.digest), hex(digest));
        let why = format!("{algorithm:?} {promised} promised, {got} received");
        Err(target.error(Kind::Transient, why))
    }
}

/// The MD5 that an `ETag` is, unless the object came in parts or under a key of its own.
fn md5(answer: &Answer<'_>, etag: &str) -> Option<Promise> {
    let own_key = answer
        .header("x-amz-server-side-encryption")
        .is_some_and(|method| method.starts_with("aws:kms"))
        || answer
            .header("x-amz-server-side-encryption-customer-algorithm")
            .is_some();
    (!own_key).then_some(Promise {
        algorithm: Algorithm::Md5,
        digest: md5_in(etag)?,
    })
}

/// The MD5 that an `ETag` reads as, if it does.
pub(super) fn md5_in(etag: &str) -> Option<Vec<u8>> {
    let byte = |at: usize| u8::from_str_radix(etag.get(at..at + 2)?, 16).ok();
    let bytes = (etag.len() == 32).then_some((0..32).step_by(2))?;
    bytes.map(byte).collect()
}

/// A stored checksum of the whole object; one of its parts' checksums says nothing here.
pub(super) fn whole_checksum<'a>(answer: &'a Answer<'_>, name: &str) -> Option<&'a str> {
    let composite = answer.header("x-amz-checksum-type") == Some("COMPOSITE");
    answer
        .header(name)
        .filter(|value| !composite && !value.contains('-'))
}

/// A CRC-64/NVME as it stands in headers.
pub(super) fn crc64_text(crc64: u64) -> String {
    BASE64.encode(crc64.to_be_bytes())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

pub(super) fn attributes(answer: &Answer<'_>) -> Attributes {
    let mut found = Attributes::default();
    for (name, value) in answer.headers() {
        if !ATTRIBUTES.contains(&name) && !name.starts_with("x-amz-meta-") {
            continue;
        }
        match value {
            Some(value) => found.headers.push((name.to_owned(), value.to_owned())),
            None => found.unkept = Some(name.to_owned()),
        }
    }
    let tags = answer.header("x-amz-tagging-count");
    found.has_tags = tags.is_some_and(|count| count != "0");
    found
}

/// Reads until `buffer` is full or the body ends: the system takes a few long writes more cheaply
/// than many short ones.
fn fill(answer: &mut Answer<'_>, buffer: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match answer.read(&mut buffer[filled..])? {
            0 => break,
            amount => filled += amount,
        }
    }
    Ok(filled)
}
