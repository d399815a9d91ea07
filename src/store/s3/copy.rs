//! Copying an object within one server, part by part: no byte of it comes here.
//!
//! Each part is copied on condition of the source's `ETag`, so that all are of one state. The
//! copy counts as stored only where its `ETag`, in the answer and by a look, is the one that
//! follows from those of its parts, and its length is the source's. `CopyObject` would not do:
//! there `MinIO` looks at no condition of the destination, drops `Expires`, and is silent until it
//! is done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use instant_xml::FromXml;
use md5::{Digest as _, Md5};

use super::client::{Headers, Payload};
use super::error::{Refusal, read_xml};
use super::get::{hex, md5_in};
use super::put::{ANSWER_LIMIT_BYTES, Proof, Seal, Sent};
use super::tags::escape;
use super::{Head, S3Store, unquoted};
use crate::error::{Error, Kind, Result};
use crate::object::{Entry, Name, Place, Version};
use crate::stage::{Algorithm, MEMORY_LIMIT_BYTES, each_part, part_count, part_range};
use crate::store::{Clash, Near, Published};

/// An object of the server that the destination is at.
struct NearObject<'a> {
    dest: &'a S3Store,
    source: S3Store,
    /// At the source.
    key: String,
    head: Head,
    meter: &'a AtomicU64,
}

impl S3Store {
    /// The object of `source`, where it does not fit memory and still is the one that was listed.
    /// What fits is staged: that takes fewer requests.
    pub(super) fn near_object<'a>(
        &'a self,
        source: &Place,
        entry: &Entry,
        meter: &'a AtomicU64,
    ) -> Result<Option<Box<dyn Near + 'a>>> {
        let Place::S3 { bucket, prefix } = source else {
            return Ok(None);
        };
        if entry.size_bytes <= MEMORY_LIMIT_BYTES {
            return Ok(None);
        }
        let source = Self::new(Arc::clone(&self.client), bucket, prefix, None)?;
        let key = source.key(&entry.name)?;
        let Some(mut head) = source.head(&key)? else {
            let target = source.target("look at", &key);
            return Err(target.error(Kind::Gone, "it is not there any more"));
        };
        if head.size_bytes != entry.size_bytes {
            return Ok(None);
        }
        source.add_tags(&key, &mut head.attributes)?;
        Ok(Some(Box::new(NearObject {
            dest: self,
            source,
            key,
            head,
            meter,
        })))
    }
}

impl Near for NearObject<'_> {
    fn version(&self) -> &Version {
        &self.head.version
    }

    fn size_bytes(&self) -> u64 {
        self.head.size_bytes
    }

    fn publish(&self, name: &Name, clash: Clash) -> Result<Published> {
        let key = &self.dest.key(name)?;
        if clash == Clash::Refuse {
            self.dest.must_refuse()?;
        }
        let upload_id = &self.dest.create_plain_upload(key, &self.head.attributes)?;
        let completed = self.parts(key, upload_id).and_then(|(sent, etag)| {
            let is_there = || self.is_whole(key, &etag);
            let seal = Seal::Etag(etag.clone());
            let (published, proof) = self
                .dest
                .complete(key, upload_id, &sent, &seal, clash, &is_there)?;
            let shown = published == Published::Exists || proof == Proof::Shown && is_there()?;
            let proof = if shown { Proof::Shown } else { Proof::Wanting };
            Ok((published, proof))
        });
        match self.dest.or_abort(key, upload_id, completed)? {
            (published, Proof::Shown) => Ok(published),
            (_, Proof::Wanting) => Err(self.unclear(key, "the copy has another ETag or length")),
        }
    }

    fn is_at(&self, name: &Name) -> Result<bool> {
        let key = &self.dest.key(name)?;
        let Some(there) = self.dest.head(key)? else {
            return Ok(false);
        };
        if there.size_bytes != self.head.size_bytes {
            return Ok(false);
        }
        if let (Some(theirs), Some(ours)) = (&there.crc64, &self.head.crc64) {
            return Ok(theirs == ours);
        }
        // What is one of these digests of both is the same.
        let (digest, parts) = there.etag().split_once('-').unwrap_or((there.etag(), ""));
        if md5_in(digest).is_some() && there.etag() == self.head.etag() {
            return Ok(true);
        }
        if parts == part_count(self.head.size_bytes).to_string() {
            let upload_id = &self.dest.create_plain_upload(key, &self.head.attributes)?;
            let made = self.parts(key, upload_id);
            self.dest.abort(key, upload_id);
            if made?.1 == there.etag() {
                return Ok(true);
            }
        }
        Err(self.unclear(key, "what is there may be the same"))
    }
}

impl NearObject<'_> {
    fn unclear(&self, key: &str, why: &str) -> Error {
        self.dest.target("put", key).error(Kind::Other, why)
    }

    /// Has all parts copied, some of them at once, and tells the `ETag` that the whole will have.
    fn parts(&self, key: &str, upload_id: &str) -> Result<(Vec<Sent>, String)> {
        self.meter.store(0, Ordering::Relaxed);
        let count = part_count(self.head.size_bytes);
        let helpers = self.dest.client.spare_helpers(count - 1);
        let copied = each_part(count, helpers.count(), &|number| {
            self.part(key, upload_id, number)
        })?;
        let (whole, first) = (self.head.promised(), copied.first());
        let is_md5 = whole == Some(Algorithm::Md5) && count == 1;
        if is_md5 && first.is_none_or(|part| part.etag != self.head.etag()) {
            return Err(self.unclear(key, "the copy has another MD5"));
        }
        let mut md5 = Md5::new();
        for part in &copied {
            let opaque = || self.unclear(key, "the ETag of a part is no MD5");
            md5.update(md5_in(&part.etag).ok_or_else(opaque)?);
        }
        let etag = format!("{}-{count}", hex(&md5.finalize()));
        Ok((copied, etag))
    }

    fn part(&self, key: &str, upload_id: &str, number: u16) -> Result<Sent> {
        let range = part_range(self.head.size_bytes, number);
        let target = self.source.target("get", &self.key);
        let mut from = format!("/{}/", self.source.bucket.name());
        escape(&self.key, &mut from);
        let etag = format!("\"{}\"", self.head.etag());
        let bytes = format!("bytes={}-{}", range.start, range.end - 1);
        let headers: Headers<'_> = vec![
            ("x-amz-copy-source", &from),
            ("x-amz-copy-source-if-match", &etag),
            ("x-amz-copy-source-range", &bytes),
        ];
        let client = &self.dest.client;
        let copied = client.tries(|attempt| {
            let bucket = &self.dest.bucket;
            let action = bucket.upload_part(client.credentials(), key, number, upload_id);
            let payload = Payload::Bytes(&[]);
            let mut answer = client.send(target, action, &headers, payload, attempt)?;
            let refusal = if answer.status() == 200 {
                let text = answer.text(ANSWER_LIMIT_BYTES)?;
                if let Some(copied) = read_xml::<PartCopied>(&text) {
                    return Ok(copied);
                }
                let nonsense = || Refusal::of_nonsense(&text, "the answer", &target);
                Refusal::inside(&text).ok_or_else(nonsense)?
            } else {
                answer.refusal()
            };
            let refused = refusal.code() == "PreconditionFailed";
            Err(match refusal.into_error(&target) {
                error if refused => error.with_kind(self.what_changed()?),
                error => error,
            })
        })?;
        let length = range.end - range.start;
        self.meter.fetch_add(2 * length, Ordering::Relaxed);
        Ok(Sent {
            checksum: None,
            etag: unquoted(&copied.etag).to_owned(),
            number,
            proof: Proof::Shown,
        })
    }

    /// What it means that the source's `ETag` is refused; some of objects that the server encrypts
    /// never hold.
    fn what_changed(&self) -> Result<Kind> {
        let now = self.source.head(&self.key)?;
        let same = now.is_some_and(|now| now.version == self.head.version);
        Ok(if same { Kind::Other } else { Kind::Changed })
    }

    /// Whether the object of this key is the copy.
    fn is_whole(&self, key: &str, etag: &str) -> Result<bool> {
        let there = self.dest.head(key)?;
        Ok(there
            .is_some_and(|there| there.etag() == etag && there.size_bytes == self.head.size_bytes))
    }
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_UploadPartCopy.html>
#[derive(Debug, FromXml)]
#[xml(
    rename = "CopyPartResult",
    ns("http://s3.amazonaws.com/doc/2006-03-01/")
)]
struct PartCopied {
    #[xml(rename = "ETag")]
    etag: String,
}

#[cfg(test)]
mod tests {
    use super::super::xml::tests::cuts;
    use super::*;

    #[test]
    fn part_is_not_copied_until_the_last_byte_of_the_answer() {
        let text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<CopyPartResult \
            xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><LastModified>2026-11-21T08:10:04Z\
            </LastModified><ETag>&#34;e&#34;</ETag></CopyPartResult>";
        let etag = |text| read_xml::<PartCopied>(text).map(|copied| copied.etag);
        assert_eq!(etag(text).as_deref(), Some("\"e\""));
        for cut in cuts(text) {
            assert!(etag(cut).is_none(), "{cut}");
        }
    }
}
