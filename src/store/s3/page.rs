//! A page of a listing, read as it comes: in memory are the element that has not ended yet, and of
//! the elements before it only what is kept of them.
//!
//! Invariant: nothing of a page leaves it before the page proved to be whole. Each entry is taken
//! out of the text and read by itself, and a mark stands for it in what remains. What remains has
//! to be whole, with all marks at their place: an entry within anything else leaves none there.

use std::mem;

use rusty_s3::actions::list_objects_v2::{
    ListObjectsContent, ListObjectsV2, ListObjectsV2Response,
};

use super::answer::Answer;
use super::error::{Refusal, Target};
use super::xml::is_whole;
use crate::error::{Error, Kind, Result};
use crate::object::Entry;

/// What stands around the entries while they are read. How keys are encoded is said behind them,
/// so what was asked for is assumed, and compared at the end.
const HEAD: &str = "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
    <EncodingType>url</EncodingType>";
const TAIL: &str = "</ListBucketResult>";

/// What is taken out, and stands for a row of it.
const ELEMENTS: [(&[u8], &[u8]); 2] = [
    (b"<Contents>", b"</Contents>"),
    (b"<CommonPrefixes>", b"</CommonPrefixes>"),
];
const MARK: &[u8] = b"<CommonPrefixes><Prefix>/</Prefix></CommonPrefixes>";

/// What one key may take on a page: 1024 bytes, each as `%XX`, and its other facts.
const KEY_LIMIT_BYTES: usize = 4 << 10;

/// What may stand around the entries: the prefix and tokens, or what is no listing at all.
const REST_LIMIT_BYTES: usize = 64 << 10;

/// So much text of entries is read at once.
const BATCH_BYTES: usize = 8 << 10;

/// What is kept of a key: its entry, nothing where nobody wants it, or why it makes no sense.
pub(super) type Keep<'a> = dyn Fn(ListObjectsContent) -> Result<Option<Entry>, String> + 'a;

/// A page that is whole.
pub(super) struct Page {
    /// What was kept of it.
    pub(super) entries: Vec<Entry>,
    /// The last key, or that before the page where it has none.
    pub(super) last_key: String,
    /// Whether it had neither a key nor a common prefix.
    pub(super) is_empty: bool,
    /// The token of the next page, `None` on the last.
    pub(super) next: Option<String>,
}

/// Reads the page of up to so many keys behind `last_key` that a `200` holds.
///
/// # Errors
/// `Other`: it does not parse, breaks off, or makes no sense. Those of [`Answer::read`].
pub(super) fn read_page(
    answer: &mut Answer<'_>,
    keys: usize,
    last_key: &str,
    target: &Target<'_>,
    keep: &Keep<'_>,
) -> Result<Page> {
    let mut reader = Reader::new(keys, last_key, target, keep);
    let mut buffer = [0; 8 << 10];
    loop {
        match answer.read(&mut buffer)? {
            0 => return reader.end(),
            amount => reader.add(&buffer[..amount])?,
        }
    }
}

struct Reader<'a> {
    target: &'a Target<'a>,
    keep: &'a Keep<'a>,
    entries: Vec<Entry>,
    last_key: String,
    /// What came and was not taken apart yet: begins with an element that has no end yet.
    text: Vec<u8>,
    /// The text without its entries.
    rest: Vec<u8>,
    marks: usize,
    /// Entries that wait to be read, behind [`HEAD`].
    batch: String,
    waiting: usize,
    /// Whether some entry has what its encoding would change.
    is_encoded: bool,
    room_bytes: usize,
}

impl<'a> Reader<'a> {
    fn new(keys: usize, last_key: &str, target: &'a Target<'a>, keep: &'a Keep<'a>) -> Self {
        Self {
            target,
            keep,
            entries: Vec::new(),
            last_key: last_key.to_owned(),
            text: Vec::new(),
            rest: Vec::new(),
            marks: 0,
            batch: HEAD.to_owned(),
            waiting: 0,
            is_encoded: false,
            room_bytes: REST_LIMIT_BYTES + keys * KEY_LIMIT_BYTES,
        }
    }

    /// Takes apart what came so far.
    fn add(&mut self, bytes: &[u8]) -> Result<()> {
        let room_bytes = self.room_bytes.checked_sub(bytes.len());
        self.room_bytes = room_bytes.ok_or_else(|| self.too_long())?;
        let mut text = mem::take(&mut self.text);
        text.extend_from_slice(bytes);
        let mut left = &text[..];
        while let Some(at) = left.iter().position(|byte| *byte == b'<') {
            self.rest.extend_from_slice(&left[..at]);
            left = &left[at..];
            let begins = |start: &[u8]| left.starts_with(start) || start.starts_with(left);
            let Some((_, end)) = ELEMENTS.iter().find(|(start, _)| begins(start)) else {
                self.rest.push(b'<');
                left = &left[1..];
                continue;
            };
            let ends_at = left.windows(end.len()).position(|part| part == *end);
            let Some(length) = ends_at.map(|at| at + end.len()) else {
                break;
            };
            self.take(&left[..length])?;
            left = &left[length..];
        }
        if !left.starts_with(b"<") {
            self.rest.extend_from_slice(left);
            left = &[];
        }
        if left.len() > KEY_LIMIT_BYTES || self.rest.len() > REST_LIMIT_BYTES {
            return Err(self.too_long());
        }
        let done = text.len() - left.len();
        text.drain(..done);
        self.text = text;
        Ok(())
    }

    /// Takes an entry out of the text.
    fn take(&mut self, element: &[u8]) -> Result<()> {
        // Entries with nothing but blanks between them have one mark.
        let end = self.rest.trim_ascii_end().len();
        if self.rest[..end].ends_with(MARK) {
            self.rest.truncate(end);
        } else {
            self.rest.extend_from_slice(MARK);
            self.marks += 1;
        }
        self.batch += self.as_text(element)?;
        self.waiting += 1;
        self.is_encoded |= element.iter().any(|byte| b"%+".contains(byte));
        if self.batch.len() < BATCH_BYTES {
            return Ok(());
        }
        self.read_batch()
    }

    /// Reads the entries that wait, and keeps what is to be kept of them.
    fn read_batch(&mut self) -> Result<()> {
        self.batch += TAIL;
        let listed = self.parsed(&self.batch)?;
        if listed.contents.len() + listed.common_prefixes.len() != self.waiting {
            return Err(self.broken("an entry stands within another".into()));
        }
        for content in listed.contents {
            if content.key <= self.last_key {
                let why = format!("{:?} is listed behind {:?}", content.key, self.last_key);
                return Err(self.broken(why));
            }
            self.last_key.clone_from(&content.key);
            let kept = (self.keep)(content).map_err(|why| self.broken(why))?;
            self.entries.extend(kept);
        }
        self.batch.truncate(HEAD.len());
        self.waiting = 0;
        Ok(())
    }

    /// The page, where all of it came.
    fn end(mut self) -> Result<Page> {
        self.rest.append(&mut self.text);
        let rest = self.as_text(&self.rest)?;
        // A page that breaks off is none: what is missing of it may be the token of the next.
        let page = is_whole(rest).then(|| self.parsed(rest));
        let page = page.unwrap_or_else(|| Err(self.nonsense(rest)))?;
        if page.common_prefixes.len() != self.marks || !page.contents.is_empty() {
            return Err(self.nonsense(rest));
        }
        if self.is_encoded && page.encoding_type.as_deref() != Some("url") {
            return Err(self.broken("its keys are not encoded as was asked for".into()));
        }
        self.read_batch()?;
        Ok(Page {
            entries: self.entries,
            last_key: self.last_key,
            is_empty: self.marks == 0,
            next: page.next_continuation_token,
        })
    }

    fn parsed(&self, text: &str) -> Result<ListObjectsV2Response> {
        ListObjectsV2::parse_response(text).map_err(|_| self.nonsense(text))
    }

    fn as_text<'t>(&self, bytes: &'t [u8]) -> Result<&'t str> {
        let text = std::str::from_utf8(bytes);
        text.map_err(|_| self.target.error(Kind::Other, "the answer is not UTF-8"))
    }

    fn nonsense(&self, text: &str) -> Error {
        Refusal::of_nonsense(text, "the listing", self.target)
    }

    fn too_long(&self) -> Error {
        let why = "the answer is longer than a listing of so many keys can be";
        self.target.error(Kind::Other, why)
    }

    fn broken(&self, why: String) -> Error {
        let advice = "nothing of this listing is used; look at the server or a proxy before it";
        self.target.error(Kind::Other, why).advise(advice)
    }
}

#[cfg(test)]
mod tests {
    use super::super::xml::tests::cuts;
    use super::*;

    const TARGET: Target<'_> = Target {
        verb: "list",
        endpoint: "http://minio:9000",
        bucket: "edi",
        key: "",
    };

    fn text(entries: &str, behind: &str) -> String {
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult \
             xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>edi</Name><Prefix></Prefix>\
             <KeyCount>1</KeyCount><MaxKeys>250</MaxKeys><IsTruncated>true</IsTruncated>\
             {entries}<NextContinuationToken>YQ==</NextContinuationToken>{behind}"
        )
    }

    const ENDS: &str = "<EncodingType>url</EncodingType></ListBucketResult>";

    fn entry(key: &str) -> String {
        format!(
            "<Contents><Key>{key}</Key><LastModified>2026-11-28T09:20:34.101Z</LastModified>\
             <ETag>&#34;900150983cd24fb0d6963f7d28e17f72&#34;</ETag><Size>3</Size>\
             <StorageClass>STANDARD</StorageClass></Contents>"
        )
    }

    /// The keys of a text that comes in pieces of so many bytes, and its token.
    fn read(text: &str, piece: usize) -> Result<(Vec<String>, Page)> {
        let keys = std::cell::RefCell::new(Vec::new());
        let keep = |content: ListObjectsContent| {
            keys.borrow_mut().push(content.key);
            Ok(None)
        };
        let mut reader = Reader::new(1000, "", &TARGET, &keep);
        for piece in text.as_bytes().chunks(piece) {
            reader.add(piece)?;
        }
        let page = reader.end()?;
        Ok((keys.take(), page))
    }

    #[test]
    fn page_is_none_until_its_last_byte() {
        let prefixes = "<CommonPrefixes><Prefix>d/</Prefix></CommonPrefixes>";
        let entries = [&entry("a+b"), "\n ", &entry("b%2Fc"), prefixes, prefixes].concat();
        let text = text(&entries, ENDS);
        for piece in [1, 7, 100, 8 << 10] {
            let (keys, page) = read(&text, piece).expect("a page");
            assert_eq!(keys, ["a b", "b/c"]);
            assert_eq!(page.next.as_deref(), Some("YQ=="));
            assert_eq!((page.last_key.as_str(), page.is_empty), ("b/c", false));
        }
        for cut in cuts(&text) {
            let error = read(cut, 8 << 10).map(drop).expect_err(cut);
            assert!(error.chain().contains("breaks off"), "{cut}");
        }
    }

    #[test]
    fn page_of_a_console_is_named() {
        let html = "<!DOCTYPE html><html><body>MinIO Console</body></html>";
        let error = read(html, 10).map(drop).expect_err("a page of a console");
        let told = error.chain();
        assert!(
            told.contains("it is a web page (check that MINIO_ENDPOINT"),
            "{told}"
        );
    }

    /// What is taken out of a text must be what a reader of the whole text would have found.
    #[test]
    fn entries_count_only_where_they_belong() {
        let (a, b) = (entry("a"), entry("b"));
        let whole = text(&a, ENDS);
        for (what, text) in [
            (
                "within another element",
                text(&format!("<Owner>{a}</Owner>"), ENDS),
            ),
            ("within a comment", text(&format!("<!--{a}-->"), ENDS)),
            (
                "as text",
                text(&format!("<Delimiter><![CDATA[{a}]]></Delimiter>"), ENDS),
            ),
            ("behind the end", format!("{whole}{b}")),
            ("before the start", format!("{a}{whole}")),
            (
                "within another",
                text(&format!("<Contents>{a}</Contents>"), ENDS),
            ),
            ("without a start", text("</Contents>", ENDS)),
            ("without an end", text(&a[..a.len() - 11], ENDS)),
            ("with a hole", text(&a.replace("</Key>", ""), ENDS)),
            (
                "with the end of all",
                text(&a.replace("<ETag>", TAIL), ENDS),
            ),
            (
                "written otherwise",
                text(&a.replace("<Contents>", "<Contents >"), ENDS),
            ),
            ("twice", text(&[&*a, &a].concat(), ENDS)),
            ("in a wrong order", text(&[&*b, &a].concat(), ENDS)),
            ("of another name space", whole.replace("2006", "2007")),
            ("of keys that are not encoded", text(&entry("a+b"), TAIL)),
        ] {
            for piece in [1, 8 << 10] {
                assert!(read(&text, piece).is_err(), "{what}: {text}");
            }
        }
        assert_eq!(read(&text(&a, TAIL), 9).expect("a plain key").0, ["a"]);
    }

    #[test]
    fn page_takes_the_memory_of_an_element_not_of_its_text() {
        let keep = |_| Ok(None);
        let mut reader = Reader::new(1000, "", &TARGET, &keep);
        let mut most = 0;
        let long = "%41".repeat(1000);
        let start = text("", "");
        let (head, behind) = start.split_once("<NextC").expect("a token");
        reader.add(head.as_bytes()).expect("the head");
        for number in 0..1000 {
            let element = entry(&format!("{number:04}{long}"));
            reader.add(element.as_bytes()).expect("an entry");
            most = most.max(reader.text.len() + reader.rest.len() + reader.batch.len());
        }
        reader
            .add(format!("<NextC{behind}{ENDS}").as_bytes())
            .expect("the end");
        assert_eq!(reader.end().expect("a page").last_key.len(), 1004);
        assert!(most <= 16 << 10, "{most} bytes of text at once");
    }

    #[test]
    fn text_without_end_is_no_page() {
        for endless in ["x", "<x>", "<Contents>"] {
            let mut reader = Reader::new(1000, "", &TARGET, &|_| Ok(None));
            let piece = endless.to_owned() + &"x".repeat(4 << 10);
            let amount = (0..100).take_while(|_| reader.add(piece.as_bytes()).is_ok());
            assert!(amount.count() <= 17, "{endless}");
        }
    }
}
