//! The tags of an object, which no answer about it holds: asked for where a copy is to keep them.

use std::fmt::Write as _;

use instant_xml::FromXml;

use super::S3Store;
use super::answer::Answer;
use super::client::{Headers, Payload};
use super::error::{Refusal, Target, read_xml};
use super::retry::Try;
use crate::error::{Kind, Result};
use crate::object::Attributes;

/// What carries tags in a request that makes an object.
const TAGGING: &str = "x-amz-tagging";

/// Ten tags of at most 128 and 256 characters fit many times.
const ANSWER_LIMIT_BYTES: usize = 64 << 10;

impl S3Store {
    /// Adds the object's tags to what a copy keeps.
    ///
    /// # Errors
    /// `Invalid`: something of what the object carries cannot be sent. `Gone`: it is not there.
    pub(super) fn add_tags(&self, key: &str, attributes: &mut Attributes) -> Result<()> {
        if let Some(header) = &attributes.unkept {
            let why = format!("its {header} is not UTF-8, so a copy would lose it");
            let error = self.target("keep what describes", key);
            return Err(error
                .error(Kind::Invalid, why)
                .advise("put the object again with a value in UTF-8"));
        }
        if !attributes.has_tags {
            return Ok(());
        }
        let target = self.target("get the tags of", key);
        let tags = self.client.tries(|attempt| {
            let mut answer = self.ask_for_tags(key, target, attempt)?;
            match answer.status() {
                200 => read_tags(&answer.text(ANSWER_LIMIT_BYTES)?, &target),
                404 => Err(self.not_found(answer, &target)),
                _ => Err(answer.error()),
            }
        })?;
        if !tags.is_empty() {
            attributes.headers.push((TAGGING.to_owned(), tags));
        }
        Ok(())
    }

    pub(super) fn ask_for_tags<'a>(
        &'a self,
        key: &'a str,
        target: Target<'a>,
        attempt: Try,
    ) -> Result<Answer<'a>> {
        let mut action = self.bucket.get_object(self.client.credentials(), key);
        rusty_s3::S3Action::query_mut(&mut action).insert("tagging", "");
        self.client
            .send(target, action, &Headers::new(), Payload::None, attempt)
    }
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObjectTagging.html>, but `MinIO` gives
/// it no namespace.
#[derive(Debug, FromXml)]
#[xml(rename = "Tagging")]
struct Tagging {
    set: TagSet,
}

#[derive(Debug, FromXml)]
struct TagSet {
    tags: Vec<Tag>,
}

#[derive(Debug, FromXml)]
struct Tag {
    #[xml(rename = "Key")]
    key: String,
    #[xml(rename = "Value")]
    value: Option<String>,
}

/// The tags as [`TAGGING`] has them: a query string.
fn read_tags(text: &str, target: &Target<'_>) -> Result<String> {
    let tagging = read_xml::<Tagging>(text);
    let tagging = tagging.ok_or_else(|| Refusal::of_nonsense(text, "the list of tags", target))?;
    let mut query = String::new();
    for Tag { key, value } in tagging.set.tags {
        if !query.is_empty() {
            query.push('&');
        }
        escape(&key, &mut query);
        query.push('=');
        escape(&value.unwrap_or_default(), &mut query);
    }
    Ok(query)
}

/// Appends `text` with all but letters, digits and `-._~` percent-encoded.
pub(super) fn escape(text: &str, query: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'~' => {
                query.push(byte.into());
            }
            _ => write!(query, "%{byte:02X}").expect("writing to a string cannot fail"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::xml::tests::cuts;
    use super::*;

    #[test]
    fn tags_become_a_query_string_and_a_cut_list_an_error() {
        let target = Target {
            verb: "get the tags of",
            endpoint: "http://minio:9000",
            bucket: "edi",
            key: "a",
        };
        let text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Tagging><TagSet><Tag><Key>a&amp;b\
            </Key><Value>b c=\u{e4}</Value></Tag><Tag><Key>d</Key><Value></Value></Tag></TagSet>\
            </Tagging>";
        let query = read_tags(text, &target).expect("tags");
        assert_eq!(query, "a%26b=b%20c%3D%C3%A4&d=");
        for cut in cuts(text) {
            assert!(read_tags(cut, &target).is_err(), "{cut}");
        }
        let none = "<Tagging><TagSet></TagSet></Tagging>";
        assert_eq!(read_tags(none, &target).expect("no tags"), "");
    }
}
