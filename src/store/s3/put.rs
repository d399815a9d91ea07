//! Writing an object: one request up to a threshold, a multipart upload beyond. The server verifies
//! a checksum of every body, and of the whole.
//!
//! An answer that was lost is found out, never assumed: replacing is simply done again; where
//! nothing may be replaced, or an upload was completed, the object is looked at.

use instant_xml::{FromXml, ToXml};
use rusty_s3::actions::CreateMultipartUpload;

use super::answer::Answer;
use super::client::{Headers, Payload};
use super::error::{Refusal, Target};
use super::get::crc64_text;
use super::{S3Store, etag_of, unquoted};
use crate::error::{Error, Kind, Result};
use crate::object::Attributes;
use crate::stage::{Part, Staged};
use crate::store::{Clash, Published};

/// Verified by the server on every body, stored, and given back to whoever asks.
const CHECKSUM: &str = "x-amz-checksum-crc64nvme";

/// What a body is unless its source says.
const CONTENT_TYPE: (&str, &str) = ("content-type", "application/octet-stream");

/// Asks the server to refuse where the key exists.
const REFUSE: (&str, &str) = ("if-none-match", "*");

/// How much of an answer to a creation or completion is read.
const ANSWER_LIMIT_BYTES: usize = 64 << 10;

impl S3Store {
    /// Makes the staged item the object of this key.
    pub(super) fn put(
        &self,
        key: &str,
        staged: &Staged,
        attributes: &Attributes,
        clash: Clash,
    ) -> Result<Published> {
        match staged.parts() {
            [whole] => self.put_whole(key, staged, *whole, attributes, clash),
            _ => self.put_parts(key, staged, attributes, clash),
        }
    }

    fn put_whole(
        &self,
        key: &str,
        staged: &Staged,
        whole: Part,
        attributes: &Attributes,
        clash: Clash,
    ) -> Result<Published> {
        let target = self.target("put", key);
        let checksum = crc64_text(whole.crc64);
        let mut headers = described(attributes);
        headers.push((CHECKSUM, &checksum));
        if clash == Clash::Refuse {
            headers.push(REFUSE);
        }
        self.client.tries(|attempt| {
            let action = self.bucket.put_object(self.client.credentials(), key);
            let payload = Payload::Part(staged, whole);
            let mut answer = self
                .client
                .send(target, action, &headers, payload, attempt)?;
            match answer.status() {
                200 => confirm(&mut answer, &checksum, &target).map(|()| Published::Done),
                412 if clash == Clash::Refuse => {
                    // The object may be the work of a try whose answer was lost.
                    if attempt.is_repeat() && self.object_holds(key, staged)? {
                        return Ok(Published::Done);
                    }
                    Ok(Published::Exists)
                }
                _ => Err(answer.error()),
            }
        })
    }

    fn put_parts(
        &self,
        key: &str,
        staged: &Staged,
        attributes: &Attributes,
        clash: Clash,
    ) -> Result<Published> {
        let upload_id = self.create_upload(key, attributes)?;
        let published = self
            .upload_parts(key, &upload_id, staged)
            .and_then(|sent| self.complete(key, &upload_id, staged, &sent, clash));
        if !matches!(published, Ok(Published::Done)) {
            self.abort(key, &upload_id);
        }
        published
    }

    /// Begins an upload. Where the answer is lost, another is begun; `MinIO` purges the first one
    /// after 24 h.
    fn create_upload(&self, key: &str, attributes: &Attributes) -> Result<String> {
        let target = self.target("put", key);
        let mut headers = described(attributes);
        headers.push(("x-amz-checksum-algorithm", "CRC64NVME"));
        headers.push(("x-amz-checksum-type", "FULL_OBJECT"));
        self.client.tries(|attempt| {
            let action = self
                .bucket
                .create_multipart_upload(self.client.credentials(), key);
            let payload = Payload::Bytes(&[]);
            let mut answer = self
                .client
                .send(target, action, &headers, payload, attempt)?;
            if answer.status() != 200 {
                return Err(answer.error());
            }
            let text = answer.text(ANSWER_LIMIT_BYTES)?;
            match CreateMultipartUpload::parse_response(&text) {
                Ok(created) if !created.upload_id().is_empty() => {
                    Ok(created.upload_id().to_owned())
                }
                _ => Err(no_sense(&text, &target)),
            }
        })
    }

    /// Sends the parts, some of them at once: the server hashes each by itself. As many helpers go
    /// along as the run has to spare; without any, one part follows the other.
    fn upload_parts(&self, key: &str, upload_id: &str, staged: &Staged) -> Result<Vec<Sent>> {
        let helpers = self.client.spare_helpers(staged.parts().len() - 1);
        staged.each_part(helpers.count(), |number, part| {
            self.upload_part(key, upload_id, staged, part, number)
        })
    }

    fn upload_part(
        &self,
        key: &str,
        upload_id: &str,
        staged: &Staged,
        part: Part,
        number: u16,
    ) -> Result<Sent> {
        let target = self.target("put", key);
        let checksum = crc64_text(part.crc64);
        let headers: Headers<'_> = vec![(CHECKSUM, &checksum)];
        let etag = self.client.tries(|attempt| {
            let credentials = self.client.credentials();
            let action = self.bucket.upload_part(credentials, key, number, upload_id);
            let payload = Payload::Part(staged, part);
            let mut answer = self
                .client
                .send(target, action, &headers, payload, attempt)?;
            if answer.status() != 200 {
                return Err(answer.error());
            }
            confirm(&mut answer, &checksum, &target)?;
            let etag = etag_of(&answer).map(str::to_owned);
            etag.ok_or_else(|| target.error(Kind::Other, "a part's answer has no ETag"))
        })?;
        Ok(Sent {
            checksum,
            etag,
            number,
        })
    }

    fn complete(
        &self,
        key: &str,
        upload_id: &str,
        staged: &Staged,
        sent: &[Sent],
        clash: Clash,
    ) -> Result<Published> {
        let target = self.target("put", key);
        let checksum = crc64_text(staged.crc64());
        let body = instant_xml::to_string(&Completion { parts: sent })
            .map_err(|error| target.error(Kind::Other, error))?;
        let mut headers: Headers<'_> = vec![
            (CHECKSUM, &checksum),
            ("x-amz-checksum-type", "FULL_OBJECT"),
            ("content-type", "application/xml"),
        ];
        if clash == Clash::Refuse {
            headers.push(REFUSE);
        }
        self.client.tries(|attempt| {
            let action = self.bucket.complete_multipart_upload(
                self.client.credentials(),
                key,
                upload_id,
                std::iter::empty(),
            );
            let payload = Payload::Bytes(body.as_bytes());
            let mut answer = self
                .client
                .send(target, action, &headers, payload, attempt)?;
            if answer.status() == 200 {
                let text = answer.text(ANSWER_LIMIT_BYTES)?;
                return completed(&text, &checksum, &target).map(|()| Published::Done);
            }
            let refusal = answer.refusal();
            match refusal.code() {
                // An earlier try may have done it, and only its answer was lost.
                "NoSuchUpload" | "PreconditionFailed"
                    if attempt.is_repeat() && self.is_there(key, staged)? =>
                {
                    Ok(Published::Done)
                }
                "PreconditionFailed" if clash == Clash::Refuse => Ok(Published::Exists),
                _ => Err(refusal.into_error(&target)),
            }
        })
    }

    /// Whether the object is what the parts must give.
    fn is_there(&self, key: &str, staged: &Staged) -> Result<bool> {
        let Some(head) = self.head(key)? else {
            return Ok(false);
        };
        match head.crc64 {
            Some(stored) => {
                Ok(head.size_bytes == staged.size_bytes() && stored == crc64_text(staged.crc64()))
            }
            None => self.object_holds(key, staged),
        }
    }

    /// Gives an upload up. Whether that works changes nothing: `MinIO` purges it after 24 h.
    fn abort(&self, key: &str, upload_id: &str) {
        let target = self.target("abort the upload of", key);
        let _ = self.client.tries(|attempt| {
            let credentials = self.client.credentials();
            let action = self
                .bucket
                .abort_multipart_upload(credentials, key, upload_id);
            let answer = self.client.send_cleanup(target, action, attempt)?;
            match answer.status() {
                204 | 404 => Ok(()),
                _ => Err(answer.error()),
            }
        });
    }
}

/// The headers that describe an object.
fn described(attributes: &Attributes) -> Headers<'_> {
    let mut headers: Headers<'_> = attributes
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    if !headers.iter().any(|(name, _)| *name == CONTENT_TYPE.0) {
        headers.push(CONTENT_TYPE);
    }
    headers
}

/// Fails where nothing shows that the server stored what it was sent.
fn confirm(answer: &mut Answer<'_>, checksum: &str, target: &Target<'_>) -> Result<()> {
    match answer.header(CHECKSUM) {
        Some(stored) if stored != checksum => Err(differs(stored, checksum, target)),
        _ if etag_of(answer).is_some() => Ok(()),
        // A 200 of somebody between us and the server, or one that holds an error.
        _ => Err(no_sense(&answer.text(ANSWER_LIMIT_BYTES)?, target)),
    }
}

/// Reads the `200` to a completion, which may hold an error.
fn completed(text: &str, checksum: &str, target: &Target<'_>) -> Result<()> {
    match instant_xml::from_str::<Completed>(text.trim_start()) {
        Ok(Completed {
            checksum: Some(stored),
            ..
        }) if stored != checksum => Err(differs(&stored, checksum, target)),
        Ok(done) if !unquoted(&done.etag).is_empty() => Ok(()),
        _ => Err(no_sense(text, target)),
    }
}

fn differs(stored: &str, sent: &str, target: &Target<'_>) -> Error {
    let why = format!("crc64nvme {sent} sent, {stored} stored");
    target.error(Kind::Transient, why)
}

fn no_sense(text: &str, target: &Target<'_>) -> Error {
    match Refusal::inside(text) {
        Some(refusal) => refusal.into_error(target),
        None => target.error(Kind::Other, "the answer makes no sense"),
    }
}

/// A part that the server has.
#[derive(Debug, ToXml)]
#[xml(rename = "Part")]
struct Sent {
    #[xml(rename = "ChecksumCRC64NVME")]
    checksum: String,
    #[xml(rename = "ETag")]
    etag: String,
    #[xml(rename = "PartNumber")]
    number: u16,
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html>
#[derive(Debug, ToXml)]
#[xml(rename = "CompleteMultipartUpload")]
struct Completion<'a> {
    parts: &'a [Sent],
}

#[derive(Debug, FromXml)]
#[xml(
    rename = "CompleteMultipartUploadResult",
    ns("http://s3.amazonaws.com/doc/2006-03-01/")
)]
struct Completed {
    #[xml(rename = "ETag")]
    etag: String,
    #[xml(rename = "ChecksumCRC64NVME")]
    checksum: Option<String>,
}
