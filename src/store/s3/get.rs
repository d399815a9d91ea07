//! Reading an object: into a stage, verified by length and by the best digest that the server
//! promises; or beside one, byte for byte.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::answer::Answer;
use super::client::{Headers, Payload};
use super::error::Target;
use super::{CHECKSUM_MODE, Head, S3Store, etag_of};
use crate::error::{Error, Kind, Result};
use crate::object::{Attributes, Entry, Version};
use crate::stage::{
    Algorithm, InParts, Part, Stage, Staged, chunk_for, each_part, part_count, part_range,
};
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
        if let Some(fetched) = self.fetch_in_ranges(&key, entry, stage)? {
            return Ok(fetched);
        }
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
            let head = Head::read(&answer, &target)?;
            head.must_be_as_listed(entry, &target)?;
            stage.begin(head.size_bytes, head.promised())?;
            let mut buffer = chunk_for(head.size_bytes);
            loop {
                match fill(&mut answer, &mut buffer)? {
                    0 => break,
                    amount => stage.write(&buffer[..amount])?,
                }
            }
            head.fetched(stage.finish()?, &target)
        })
    }

    /// Copies a long object into `stage`, several ranges of it at once, each on condition of the
    /// `ETag` that a look has shown; `None` where one stream must do: nobody has time to help, a
    /// digest is promised that cannot be put together from those of the ranges, or something on the
    /// way does not know ranges.
    fn fetch_in_ranges(
        &self,
        key: &str,
        entry: &Entry,
        stage: &mut Stage<'_>,
    ) -> Result<Option<Fetched>> {
        let helpers = self.client.spare_helpers(part_count(entry.size_bytes) - 1);
        if helpers.count() == 0 {
            return Ok(None);
        }
        let Some(head) = self.head(key)? else {
            return Ok(None);
        };
        if !matches!(head.promised(), None | Some(Algorithm::Crc64Nvme)) {
            return Ok(None);
        }
        let target = self.target("get", key);
        head.must_be_as_listed(entry, &target)?;
        stage.begin(head.size_bytes, head.promised())?;
        let Some(parts) = stage.in_parts() else {
            return Ok(None);
        };
        let unknown = AtomicBool::new(false);
        let count = part_count(head.size_bytes);
        let read = each_part(count, helpers.count(), &|number| {
            let part = self.read_range(key, &head, &parts, number)?;
            part.ok_or_else(|| {
                unknown.store(true, Ordering::Relaxed);
                target.error(Kind::Other, "no range of it was given")
            })
        });
        if unknown.into_inner() {
            return Ok(None);
        }
        match head.fetched(stage.finish_parts(read?)?, &target) {
            // Another try may help, which one stream has.
            Err(error) if error.kind().is_quick() => Ok(None),
            fetched => fetched.map(Some),
        }
    }

    /// Reads one part of the object; `None` where the answer is not that part.
    fn read_range(
        &self,
        key: &str,
        head: &Head,
        parts: &InParts<'_>,
        number: u16,
    ) -> Result<Option<Part>> {
        let target = self.target("get", key);
        let range = part_range(head.size_bytes, number);
        let etag = format!("\"{}\"", head.etag());
        let (first, last) = (range.start, range.end - 1);
        let bytes = format!("bytes={first}-{last}");
        let given = format!("bytes {first}-{last}/{}", head.size_bytes);
        let headers: Headers<'_> = vec![("if-match", &etag), ("range", &bytes)];
        self.client.tries(|attempt| {
            let action = self.bucket.get_object(self.client.credentials(), key);
            let mut answer = self
                .client
                .send(target, action, &headers, Payload::None, attempt)?;
            match answer.status() {
                206 => {}
                200 => return Ok(None),
                404 => return Err(self.not_found(answer, &target)),
                412 => {
                    let refused = answer.error().with_kind(Kind::Changed);
                    // The server may not know the ETag that it shows of what it encrypts.
                    let same = |now: Head| now.version == head.version;
                    let fits = self.head(key)?.is_some_and(same);
                    return if fits { Ok(None) } else { Err(refused) };
                }
                _ => return Err(answer.error()),
            }
            let is_it = answer.header("content-range") == Some(&*given)
                && etag_of(&answer) == Some(head.etag());
            if !is_it {
                return Ok(None);
            }
            let part = parts.write(number, |buffer| fill(&mut answer, buffer))?;
            Ok(Some(part))
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

impl Head {
    /// Fails where the listing told another length of this state.
    fn must_be_as_listed(&self, entry: &Entry, target: &Target<'_>) -> Result<()> {
        let is_listed = matches!(&entry.version, Version::Object { etag: listed, .. }
            if **listed == *self.etag());
        let (announced, listed) = (self.size_bytes, entry.size_bytes);
        if is_listed && announced != listed {
            let why = format!("{announced} bytes announced, but {listed} listed for this ETag");
            return Err(target.error(Kind::Other, why));
        }
        Ok(())
    }

    pub(super) fn promised(&self) -> Option<Algorithm> {
        self.promise.as_ref().map(|promise| promise.algorithm)
    }

    /// What was staged, if it has the digest that was promised.
    fn fetched(
        self,
        (staged, digest): (Staged, Option<Vec<u8>>),
        target: &Target<'_>,
    ) -> Result<Fetched> {
        if let (Some(promise), Some(digest)) = (&self.promise, digest) {
            promise.compare(&digest, target)?;
        }
        Ok(Fetched {
            staged,
            version: self.version,
            attributes: self.attributes,
        })
    }
}

/// A digest of the whole object that the server gave before the body.
pub(super) struct Promise {
    algorithm: Algorithm,
    digest: Vec<u8>,
}

impl Promise {
    /// The cheapest to verify: CRC-64/NVME is computed anyway.
    pub(super) fn best(answer: &Answer<'_>, etag: &str) -> Option<Self> {
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
