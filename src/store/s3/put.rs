//! Writing an object: one request up to a threshold, a multipart upload beyond. The server verifies
//! a checksum of every body, and of the whole.
//!
//! A `200` alone proves nothing: an object counts as stored only where each answer repeats the
//! checksum that was sent, or where it was read back and is byte for byte what was staged.
//!
//! An answer that was lost is found out, never assumed: replacing is simply done again; where
//! nothing may be replaced, or an upload was completed, the object is looked at.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use instant_xml::{FromXml, ToXml};
use md5::{Digest as _, Md5};
use rusty_s3::actions::CreateMultipartUpload;

use super::answer::Answer;
use super::client::{Headers, Payload};
use super::error::{OTHER_SERVER, Refusal, Target, read_xml};
use super::get::crc64_text;
use super::xml::is_whole;
use super::{S3Store, etag_of, unquoted};
use crate::error::{Kind, Result};
use crate::object::Attributes;
use crate::stage::{CHUNK_BYTES, Contents, Part, Staged, each_part};
use crate::store::{Clash, Published};

/// Verified by the server on every body, stored, and given back to whoever asks.
const CHECKSUM: &str = "x-amz-checksum-crc64nvme";

/// What a body is unless its source says.
const CONTENT_TYPE: (&str, &str) = ("content-type", "application/octet-stream");

/// Asks the server to refuse where the key exists.
pub(super) const REFUSE: (&str, &str) = ("if-none-match", "*");

/// How much of an answer to a creation or completion is read.
pub(super) const ANSWER_LIMIT_BYTES: usize = 64 << 10;

impl S3Store {
    /// Makes the staged item the object of this key.
    pub(super) fn put(
        &self,
        key: &str,
        staged: &Staged,
        attributes: &Attributes,
        clash: Clash,
    ) -> Result<Published> {
        if let [whole] = staged.parts() {
            return self.put_whole(key, staged, *whole, attributes, clash);
        }
        if clash == Clash::Refuse {
            self.must_refuse()?;
        }
        let upload = self.create_upload(key, attributes)?;
        let sent = self.upload_parts(&upload, staged);
        self.put_parts(&upload, sent, staged, clash)
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
        let mut headers = describing(attributes);
        headers.push((CHECKSUM, &checksum));
        if clash == Clash::Refuse {
            self.must_refuse()?;
            headers.push(REFUSE);
        }
        let (published, proof) = self.client.tries(|attempt| {
            let action = self.bucket.put_object(self.client.credentials(), key);
            let payload = Payload::Part(staged.contents(), whole);
            let mut answer = self
                .client
                .send(target, action, &headers, payload, attempt)?;
            match answer.status() {
                200 => {
                    confirm(&mut answer, &checksum, &target).map(|proof| (Published::Done, proof))
                }
                412 if clash == Clash::Refuse => {
                    // An earlier try whose answer was lost may have stored the object.
                    if attempt.is_repeat() && self.object_holds(key, staged)? {
                        return Ok((Published::Done, Proof::Shown));
                    }
                    Ok((Published::Exists, Proof::Shown))
                }
                _ => Err(answer.error()),
            }
        })?;
        self.prove(key, staged, proof).map(|()| published)
    }

    /// Reads an object back that no answer has shown to be stored.
    fn prove(&self, key: &str, staged: &Staged, proof: Proof) -> Result<()> {
        if proof == Proof::Shown {
            return Ok(());
        }
        // Nothing can be read back of an empty object. Who has it does not have everything.
        let knows = || match staged.size_bytes() {
            0 => self.head(&self.probe_key()).map(|head| head.is_none()),
            _ => Ok(true),
        };
        if self.object_holds(key, staged)? && knows()? {
            return Ok(());
        }
        let why =
            "the server says that it is stored, repeats no checksum, and does not give it back";
        let error = self.target("put", key).error(Kind::Other, why);
        Err(error.advise(OTHER_SERVER))
    }

    /// Makes the object of the parts that were sent.
    pub(super) fn put_parts(
        &self,
        upload: &Upload,
        sent: Result<Vec<Sent>>,
        staged: &Staged,
        clash: Clash,
    ) -> Result<Published> {
        let (key, upload_id) = (&upload.key, &upload.id);
        let completed = sent.and_then(|sent| {
            let seal = Seal::Checksum(crc64_text(staged.crc64()));
            let is_there = || self.is_there(key, staged);
            let (published, proof) =
                self.complete(key, upload_id, &sent, &seal, clash, &is_there)?;
            let parts = sent.iter().all(|part| part.proof == Proof::Shown);
            Ok((published, if parts { proof } else { Proof::Wanting }))
        });
        let (published, proof) = self.or_abort(key, upload_id, completed)?;
        self.prove(key, staged, proof).map(|()| published)
    }

    /// Gives the upload up that was not completed.
    pub(super) fn or_abort(
        &self,
        key: &str,
        upload_id: &str,
        completed: Result<(Published, Proof)>,
    ) -> Result<(Published, Proof)> {
        if !matches!(completed, Ok((Published::Done, _))) {
            self.abort(key, upload_id);
        }
        completed
    }

    /// Begins an upload, if need be one that a `MinIO` of 2023 takes, which knows no CRC-64/NVME.
    pub(super) fn create_upload(&self, key: &str, attributes: &Attributes) -> Result<Upload> {
        let mut headers = describing(attributes);
        headers.push(("x-amz-checksum-algorithm", "CRC64NVME"));
        headers.push(("x-amz-checksum-type", "FULL_OBJECT"));
        let (id, digest) = match self.try_create_upload(key, &headers, Digest::Crc64)? {
            Some(id) => (id, Digest::Crc64),
            None => (self.create_plain_upload(key, attributes)?, Digest::Md5),
        };
        let key = key.to_owned();
        Ok(Upload { key, id, digest })
    }

    /// Begins an upload of parts that have an MD5 only, as those have that the server copies.
    pub(super) fn create_plain_upload(&self, key: &str, attributes: &Attributes) -> Result<String> {
        let upload_id = self.try_create_upload(key, &describing(attributes), Digest::Md5)?;
        Ok(upload_id.unwrap_or_default())
    }

    /// Begins an upload; `None` where the server does not know the kind of checksum. Where the
    /// answer is lost, another is begun; `MinIO` purges the first one after 24 h.
    fn try_create_upload(
        &self,
        key: &str,
        headers: &Headers<'_>,
        digest: Digest,
    ) -> Result<Option<String>> {
        let target = self.target("put", key);
        self.client.tries(|attempt| {
            let action = self
                .bucket
                .create_multipart_upload(self.client.credentials(), key);
            let payload = Payload::Bytes(&[]);
            let mut answer = self
                .client
                .send(target, action, headers, payload, attempt)?;
            if answer.status() == 200 {
                let text = answer.text(ANSWER_LIMIT_BYTES)?;
                return upload_id(&text, &target).map(Some);
            }
            let refusal = answer.refusal();
            match refusal.code() {
                "InvalidArgument" if digest == Digest::Crc64 => Ok(None),
                _ => Err(refusal.into_error(&target)),
            }
        })
    }

    /// Sends the parts, some of them at once: the server hashes each by itself. As many helpers go
    /// along as the run has to spare; without any, one part follows the other.
    fn upload_parts(&self, upload: &Upload, staged: &Staged) -> Result<Vec<Sent>> {
        let parts = staged.parts();
        let helpers = self.client.spare_helpers(parts.len() - 1);
        each_part(parts.len(), helpers.count(), &|number| {
            let part = parts[usize::from(number) - 1];
            self.upload_part(upload, staged.contents(), number, part)
        })
    }

    /// Sends a part; parts count from 1.
    pub(super) fn upload_part(
        &self,
        upload: &Upload,
        contents: &Contents,
        number: u16,
        part: Part,
    ) -> Result<Sent> {
        let target = self.target("put", &upload.key);
        let checksum = crc64_text(part.crc64);
        let header = match upload.digest {
            Digest::Crc64 => (CHECKSUM, &*checksum),
            Digest::Md5 => ("content-md5", &*md5_text(contents, part)?),
        };
        let headers: Headers<'_> = vec![header];
        let (etag, proof) = self.client.tries(|attempt| {
            let credentials = self.client.credentials();
            let action = self
                .bucket
                .upload_part(credentials, &upload.key, number, &upload.id);
            let payload = Payload::Part(contents, part);
            let mut answer = self
                .client
                .send(target, action, &headers, payload, attempt)?;
            if answer.status() != 200 {
                return Err(answer.error());
            }
            let proof = confirm(&mut answer, &checksum, &target)?;
            let etag = etag_of(&answer).map(str::to_owned);
            let missing = || target.error(Kind::Other, "a part's answer has no ETag");
            Ok((etag.ok_or_else(missing)?, proof))
        })?;
        Ok(Sent {
            checksum: Some(checksum),
            etag,
            number,
            proof,
        })
    }

    /// Makes one object of the parts; `is_there` says whether an earlier try did.
    pub(super) fn complete(
        &self,
        key: &str,
        upload_id: &str,
        sent: &[Sent],
        seal: &Seal,
        clash: Clash,
        is_there: &dyn Fn() -> Result<bool>,
    ) -> Result<(Published, Proof)> {
        let target = self.target("put", key);
        let parts = sent.iter().map(|sent| SentXml {
            checksum: sent.checksum.as_deref(),
            etag: &sent.etag,
            number: sent.number,
        });
        let parts = parts.collect();
        let body = instant_xml::to_string(&Completion { parts })
            .map_err(|error| target.error(Kind::Other, error))?;
        let mut headers: Headers<'_> = vec![("content-type", "application/xml")];
        if let Seal::Checksum(checksum) = seal {
            headers.push((CHECKSUM, checksum));
            headers.push(("x-amz-checksum-type", "FULL_OBJECT"));
        }
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
                return completed(&text, seal, &target).map(|proof| (Published::Done, proof));
            }
            let refusal = answer.refusal();
            match refusal.code() {
                // An earlier try may have done it, and only its answer was lost.
                "NoSuchUpload" | "PreconditionFailed" if attempt.is_repeat() && is_there()? => {
                    Ok((Published::Done, Proof::Shown))
                }
                "PreconditionFailed" if clash == Clash::Refuse => {
                    Ok((Published::Exists, Proof::Shown))
                }
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
    pub(super) fn abort(&self, key: &str, upload_id: &str) {
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

/// What shows that the server has what it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// Its answer, or a look at the object.
    Shown,
    /// Nothing yet: the object must be read back.
    Wanting,
}

/// By what the answer to a completion shows that the whole is what its parts must give.
pub(super) enum Seal {
    /// CRC-64/NVME, which the server verifies and repeats.
    Checksum(String),
    /// The `ETag` that follows from those of the parts.
    Etag(String),
}

/// An upload of parts that each have a checksum.
pub(super) struct Upload {
    pub(super) key: String,
    pub(super) id: String,
    digest: Digest,
}

/// What a server verifies parts by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Digest {
    /// It repeats and stores it.
    Crc64,
    /// Every `MinIO` knows it.
    Md5,
}

/// The headers that describe an object.
fn describing(attributes: &Attributes) -> Headers<'_> {
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

/// What the `200` to a body shows.
fn confirm(answer: &mut Answer<'_>, checksum: &str, target: &Target<'_>) -> Result<Proof> {
    if etag_of(answer).is_none() {
        // A proxy between us and the server may have sent this 200, or it holds an error.
        let text = answer.text(ANSWER_LIMIT_BYTES)?;
        return Err(Refusal::of_nonsense(&text, "the answer", target));
    }
    repeated(answer.header(CHECKSUM), checksum, target)
}

/// What the `200` to a completion shows, which may hold an error.
fn completed(text: &str, seal: &Seal, target: &Target<'_>) -> Result<Proof> {
    match read_xml::<Completed>(text) {
        Some(done) if !unquoted(&done.etag).is_empty() => match seal {
            Seal::Checksum(checksum) => repeated(done.checksum.as_deref(), checksum, target),
            Seal::Etag(etag) if unquoted(&done.etag) == etag => Ok(Proof::Shown),
            Seal::Etag(_) => Ok(Proof::Wanting),
        },
        _ => Err(Refusal::of_nonsense(text, "the answer", target)),
    }
}

fn repeated(stored: Option<&str>, sent: &str, target: &Target<'_>) -> Result<Proof> {
    match stored {
        Some(stored) if stored == sent => Ok(Proof::Shown),
        Some(stored) => {
            let why = format!("crc64nvme {sent} sent, {stored} stored");
            Err(target.error(Kind::Transient, why))
        }
        None => Ok(Proof::Wanting),
    }
}

/// The id that the `200` to a creation gives.
fn upload_id(text: &str, target: &Target<'_>) -> Result<String> {
    let created = is_whole(text).then(|| CreateMultipartUpload::parse_response(text).ok());
    match created.flatten() {
        Some(created) if !created.upload_id().is_empty() => Ok(created.upload_id().to_owned()),
        _ => Err(Refusal::of_nonsense(text, "the answer", target)),
    }
}

/// The MD5 of a part as it stands in headers.
fn md5_text(contents: &Contents, part: Part) -> Result<String> {
    let mut md5 = Md5::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut done = 0;
    while done < part.size_bytes {
        let room = usize::try_from(part.size_bytes - done).unwrap_or(usize::MAX);
        let room = room.min(buffer.len());
        let amount = contents.read_at(&mut buffer[..room], part.offset + done)?;
        if amount == 0 {
            break;
        }
        md5.update(&buffer[..amount]);
        done += amount as u64;
    }
    Ok(BASE64.encode(md5.finalize()))
}

/// A part that the server has.
pub(super) struct Sent {
    /// `None`: the server was not told any.
    pub(super) checksum: Option<String>,
    pub(super) etag: String,
    pub(super) number: u16,
    pub(super) proof: Proof,
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html>
#[derive(Debug, ToXml)]
#[xml(rename = "CompleteMultipartUpload")]
struct Completion<'a> {
    parts: Vec<SentXml<'a>>,
}

#[derive(Debug, ToXml)]
#[xml(rename = "Part")]
struct SentXml<'a> {
    #[xml(rename = "ChecksumCRC64NVME")]
    checksum: Option<&'a str>,
    #[xml(rename = "ETag")]
    etag: &'a str,
    #[xml(rename = "PartNumber")]
    number: u16,
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

#[cfg(test)]
mod tests {
    use super::super::xml::tests::cuts;
    use super::*;

    const NS: &str = "http://s3.amazonaws.com/doc/2006-03-01/";
    const TARGET: Target<'_> = Target {
        verb: "put",
        endpoint: "http://minio:9000",
        bucket: "edi",
        key: "a",
    };

    #[test]
    fn completion_shows_nothing_until_its_last_byte_and_only_by_its_checksum() {
        let checksum = "<ChecksumCRC64NVME>rosUhgp5mIg=</ChecksumCRC64NVME>";
        let text = format!(
            "<CompleteMultipartUploadResult xmlns=\"{NS}\"><Key>a</Key>\
             <ETag>&#34;e-1&#34;</ETag>{checksum}</CompleteMultipartUploadResult>"
        );
        let seal = |checksum: &str| Seal::Checksum(checksum.to_owned());
        let proof = |text: &str| completed(text, &seal("rosUhgp5mIg="), &TARGET);
        assert_eq!(proof(&text).expect("proof"), Proof::Shown);
        let silent = text.replace(checksum, "");
        assert_eq!(proof(&silent).expect("no proof"), Proof::Wanting);
        assert!(completed(&text, &seal("AAAAAAAAAAA="), &TARGET).is_err());
        for cut in cuts(&text) {
            assert!(proof(cut).is_err(), "{cut}");
        }
        let copied = |etag: &str| completed(&silent, &Seal::Etag(etag.to_owned()), &TARGET);
        assert_eq!(copied("e-1").expect("proof"), Proof::Shown);
        assert_eq!(copied("e-2").expect("no proof"), Proof::Wanting);
    }

    #[test]
    fn creation_gives_no_id_until_its_last_byte() {
        let text = format!(
            "<InitiateMultipartUploadResult xmlns=\"{NS}\"><Bucket>edi</Bucket><Key>a</Key>\
             <UploadId>id</UploadId></InitiateMultipartUploadResult>"
        );
        assert_eq!(upload_id(&text, &TARGET).expect("an id"), "id");
        for cut in cuts(&text) {
            assert!(upload_id(cut, &TARGET).is_err(), "{cut}");
        }
    }
}
