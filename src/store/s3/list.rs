//! Listing: page by page, in key order, and nothing of it to be acted on unless all of it makes
//! sense.

use std::ops::ControlFlow;

use jiff::Timestamp;
use rusty_s3::actions::list_objects_v2::ListObjectsContent;

use super::client::{Headers, Payload};
use super::error::Target;
use super::page::{Keep, Page, read_page};
use super::{S3Store, unquoted};
use crate::error::{Kind, Result};
use crate::object::{Entry, Name, Version};
use crate::store::{Listed, Scope};

/// Keys on the first page: what a rule with the default `max_items` needs, and some that do not
/// match.
const FIRST_PAGE_KEYS: usize = 250;

/// Keys on each further page: the most that the server gives.
const PAGE_KEYS: usize = 1000;

/// Keys on a page behind one of which most are wanted: those wait in memory until it is whole.
const WANTED_PAGE_KEYS: usize = 500;

/// So many pages in a row may be empty though truncated, then the server is not believed.
const EMPTY_PAGES_MAX: usize = 100;

/// Where a page begins.
#[derive(Clone, Copy, Default)]
pub(super) enum Begin<'a> {
    /// With the first key below the prefix.
    #[default]
    First,
    /// With the first key behind this name.
    Behind(&'a Name),
    /// Where the page before ended.
    At(&'a str),
}

/// Which page is asked for.
#[derive(Default)]
pub(super) struct Ask<'a> {
    /// What its keys begin with.
    pub(super) prefix: &'a str,
    /// So many keys at most.
    pub(super) keys: usize,
    /// Also keys with a `/` behind the prefix.
    pub(super) recursive: bool,
    /// Where it begins.
    pub(super) begin: Begin<'a>,
    /// The last key of the page before.
    pub(super) last_key: &'a str,
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
        let mut keys = FIRST_PAGE_KEYS;
        loop {
            self.client.stop().check_request()?;
            let keep = |content| self.candidate(content, scope);
            let begin = match (&token, after) {
                (Some(token), _) => Begin::At(token),
                (None, Some(name)) => Begin::Behind(name),
                (None, None) => Begin::First,
            };
            let ask = Ask {
                prefix: &self.prefix,
                keys,
                recursive: scope.recursive,
                begin,
                last_key: &last_key,
            };
            let page = self.page(&ask, &target, &keep)?;
            let is_wanted = page.entries.len() > keys / 2;
            keys = if is_wanted {
                WANTED_PAGE_KEYS
            } else {
                PAGE_KEYS
            };
            for entry in page.entries {
                if sink(entry).is_break() {
                    return Ok(Listed::Stopped);
                }
            }
            last_key = page.last_key;
            empty_pages = if page.is_empty { empty_pages + 1 } else { 0 };
            match page.next {
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

    /// The page that is asked for, and of it what is to be kept.
    pub(super) fn page(&self, ask: &Ask<'_>, target: &Target<'_>, keep: &Keep<'_>) -> Result<Page> {
        self.client.tries(|attempt| {
            let mut action = self.bucket.list_objects_v2(self.client.credentials());
            action.with_max_keys(ask.keys);
            if !ask.prefix.is_empty() {
                action.with_prefix(ask.prefix);
            }
            if !ask.recursive {
                action.with_delimiter("/");
            }
            match ask.begin {
                Begin::First => {}
                Begin::Behind(name) => {
                    action.with_start_after(format!("{}{}", ask.prefix, name.lossy()));
                }
                Begin::At(token) => action.with_continuation_token(token),
            }
            let mut answer =
                self.client
                    .send(*target, action, &Headers::new(), Payload::None, attempt)?;
            if answer.status() != 200 {
                return Err(answer.error());
            }
            read_page(&mut answer, ask.keys, ask.last_key, target, keep)
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
