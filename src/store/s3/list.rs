//! Listing: page by page, in key order, and nothing of it to be acted on unless all of it makes
//! sense.

use std::ops::ControlFlow;

use jiff::Timestamp;
use rusty_s3::actions::list_objects_v2::{
    ListObjectsContent, ListObjectsV2, ListObjectsV2Response,
};

use super::answer::Answer;
use super::client::{Headers, Payload};
use super::error::{Refusal, Target};
use super::xml::is_whole;
use super::{S3Store, unquoted};
use crate::error::{Kind, Result};
use crate::object::{Entry, Name, Version};
use crate::store::{Listed, Scope};

/// Keys on the first page: what a rule with the default `max_items` needs, and some that do not
/// match.
const FIRST_PAGE_KEYS: usize = 250;

/// Keys on each further page. Half of what the server would give: all rules list at once, and a
/// page is in memory whole.
const PAGE_KEYS: usize = 500;

/// What one key may take on a page: 1024 bytes, each as `%XX`, and its other facts.
const KEY_LIMIT_BYTES: usize = 4 << 10;

/// So many pages in a row may be empty though truncated, then the server is not believed.
const EMPTY_PAGES_MAX: usize = 100;

/// Where a page begins.
#[derive(Clone, Copy)]
pub(super) enum Begin<'a> {
    /// With the first key below the prefix.
    First,
    /// With the first key behind this name.
    Behind(&'a Name),
    /// Where the page before ended.
    At(&'a str),
}

impl S3Store {
    /// Gives each candidate behind the name `after` to `sink`, in key order, until that breaks.
    pub(super) fn list_pages(
        &self,
        after: Option<&Name>,
        scope: &Scope<'_>,
        sink: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<Listed> {
        let target = self.target("list", &self.prefix);
        let broken = |why: String| {
            target
                .error(Kind::Other, why)
                .advise("nothing of this listing is used; look at the server or a proxy before it")
        };
        let mut token: Option<String> = None;
        let mut last_key = String::new();
        let mut empty_pages = 0;
        loop {
            self.client.stop().check_request()?;
            let keys = token.as_ref().map_or(FIRST_PAGE_KEYS, |_| PAGE_KEYS);
            let begin = match (&token, after) {
                (Some(token), _) => Begin::At(token),
                (None, Some(name)) => Begin::Behind(name),
                (None, None) => Begin::First,
            };
            let page = self.page(&self.prefix, keys, scope.recursive, begin, &target)?;
            let is_empty = page.contents.is_empty() && page.common_prefixes.is_empty();
            for content in page.contents {
                if content.key <= last_key {
                    let (key, last) = (content.key, last_key);
                    return Err(broken(format!("{key:?} is listed behind {last:?}")));
                }
                last_key.clone_from(&content.key);
                let entry = self.candidate(content, scope).map_err(broken)?;
                if let Some(entry) = entry
                    && sink(entry).is_break()
                {
                    return Ok(Listed::Stopped);
                }
            }
            empty_pages = if is_empty { empty_pages + 1 } else { 0 };
            match page.next_continuation_token {
                None => return Ok(Listed::Complete),
                Some(next) if token.as_ref() == Some(&next) => {
                    return Err(broken("the continuation token is repeated".into()));
                }
                Some(_) if empty_pages > EMPTY_PAGES_MAX => {
                    return Err(broken("page after page is empty".into()));
                }
                next => token = next,
            }
        }
    }

    /// One page of up to so many keys below `prefix`.
    pub(super) fn page(
        &self,
        prefix: &str,
        keys: usize,
        recursive: bool,
        begin: Begin<'_>,
        target: &Target<'_>,
    ) -> Result<ListObjectsV2Response> {
        self.client.tries(|attempt| {
            let mut action = self.bucket.list_objects_v2(self.client.credentials());
            action.with_max_keys(keys);
            if !prefix.is_empty() {
                action.with_prefix(prefix);
            }
            if !recursive {
                action.with_delimiter("/");
            }
            match begin {
                Begin::First => {}
                Begin::Behind(name) => {
                    action.with_start_after(format!("{prefix}{}", name.lossy()));
                }
                Begin::At(token) => action.with_continuation_token(token),
            }
            let mut answer =
                self.client
                    .send(*target, action, &Headers::new(), Payload::None, attempt)?;
            if answer.status() != 200 {
                return Err(answer.error());
            }
            read_page(&mut answer, keys, target)
        })
    }

    /// The entry of a listed key, `None` where it is no candidate; an error where it makes no
    /// sense.
    fn candidate(
        &self,
        content: ListObjectsContent,
        scope: &Scope<'_>,
    ) -> Result<Option<Entry>, String> {
        let ListObjectsContent {
            key,
            size,
            etag,
            last_modified,
            ..
        } = content;
        let Some(rest) = key.strip_prefix(&self.prefix) else {
            return Err(format!("{key:?} is not under the prefix"));
        };
        let without = |what: &str| format!("{key:?} is listed without {what}");
        let size_bytes = size.ok_or_else(|| without("its size"))?;
        let etag = etag.ok_or_else(|| without("its ETag"))?;
        let modified: Timestamp = last_modified
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| without("its time"))?;

        let is_directory = rest.is_empty() || rest.ends_with('/');
        let is_excluded = self
            .excluded_prefix
            .as_ref()
            .is_some_and(|excluded| key.starts_with(excluded));
        let is_deeper = !scope.recursive && rest.contains('/');
        if is_directory || is_excluded || is_deeper {
            return Ok(None);
        }
        let name = Name::new(rest.as_bytes()).ok_or_else(|| format!("{key:?} is no key"))?;
        if !(scope.wanted)(&name) {
            return Ok(None);
        }
        Ok(Some(Entry {
            name,
            size_bytes,
            modified,
            version: Version::object(unquoted(&etag), modified),
        }))
    }
}

/// The page of up to so many keys that a `200` holds.
pub(super) fn read_page(
    answer: &mut Answer<'_>,
    keys: usize,
    target: &Target<'_>,
) -> Result<ListObjectsV2Response> {
    let text = answer.text(keys * KEY_LIMIT_BYTES)?;
    parse_page(&text, target)
}

/// A page that breaks off is none: what is missing of it may be the token of the next.
fn parse_page(text: &str, target: &Target<'_>) -> Result<ListObjectsV2Response> {
    let page = is_whole(text).then(|| ListObjectsV2::parse_response(text).ok());
    page.flatten()
        .ok_or_else(|| Refusal::of_nonsense(text, "the listing", target))
}

#[cfg(test)]
mod tests {
    use super::super::xml::tests::cuts;
    use super::*;

    #[test]
    fn listing_is_none_until_its_last_byte() {
        let text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult \
            xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>edi</Name><Prefix></Prefix>\
            <KeyCount>1</KeyCount><MaxKeys>250</MaxKeys><IsTruncated>true</IsTruncated>\
            <Contents><Key>a</Key><LastModified>2026-11-28T09:20:34.101Z</LastModified>\
            <ETag>&#34;900150983cd24fb0d6963f7d28e17f72&#34;</ETag><Size>3</Size>\
            <StorageClass>STANDARD</StorageClass></Contents><EncodingType>url</EncodingType>\
            <NextContinuationToken>YQ==</NextContinuationToken></ListBucketResult>";
        let target = Target {
            verb: "list",
            endpoint: "http://minio:9000",
            bucket: "edi",
            key: "",
        };
        let page = parse_page(text, &target).expect("a page");
        assert_eq!(page.contents.len(), 1);
        assert!(page.next_continuation_token.is_some());
        for cut in cuts(text) {
            let error = parse_page(cut, &target).expect_err(cut);
            assert!(error.chain().contains("breaks off"), "{cut}");
        }
        let html = "<!DOCTYPE html><html><body>MinIO Console</body></html>";
        let told = parse_page(html, &target)
            .expect_err("a page of a console")
            .chain();
        assert!(
            told.contains("it is a web page (check that MINIO_ENDPOINT"),
            "{told}"
        );
    }
}
