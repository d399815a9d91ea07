//! Pure data about items: their names, versions, and where they live. No input or output.

use std::borrow::Cow;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

/// An item's name: its path relative to the source or destination, parts separated by `/`.
///
/// Bytes, because a file name need not be UTF-8. Never empty, never starts or ends with `/`. Its
/// clones share them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<[u8]>);

impl Name {
    /// `None` when `bytes` is empty or begins or ends with `/`.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Option<Self> {
        let bytes = bytes.into();
        let whole = !bytes.is_empty() && !bytes.starts_with(b"/") && !bytes.ends_with(b"/");
        whole.then_some(Self(bytes))
    }

    /// The whole name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The whole name where it is UTF-8, as a key must be.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The whole name for people: bytes that are not UTF-8 become U+FFFD.
    pub fn lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }

    /// The directories (with their closing `/`, or empty) and the last part.
    pub fn split(&self) -> (&[u8], &[u8]) {
        let cut = self
            .0
            .iter()
            .rposition(|&b| b == b'/')
            .map_or(0, |at| at + 1);
        self.0.split_at(cut)
    }

    /// The parts between the slashes.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/')
    }
}

/// The longest part of a name, in bytes: `NAME_MAX` of Linux, and `MinIO`'s limit too.
pub(crate) const PART_MAX_BYTES: usize = 255;

/// The longest key, in bytes.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html>
pub(crate) const KEY_MAX_BYTES: usize = 1024;

/// Why no file and no key can have a part like this one.
pub(crate) fn part_flaw(part: &[u8]) -> Option<&'static str> {
    match part {
        b"" => Some("a part of the name is empty"),
        b"." | b".." => Some("a part of the name is `.` or `..`"),
        part if part.contains(&0) => Some("the name holds a NUL"),
        part if part.len() > PART_MAX_BYTES => Some("a part of the name is longer than 255 bytes"),
        _ => None,
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.lossy())
    }
}

/// What tells one state of an item from another: if it differs, the item was changed or replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Version {
    /// A file's identity and the facts that a write changes.
    File {
        /// Device number.
        dev: u64,
        /// Inode number.
        ino: u64,
        /// Length in bytes.
        size_bytes: u64,
        /// Modification time in whole seconds since 1970.
        mtime_s: i64,
        /// And nanoseconds behind them.
        mtime_ns: u32,
        /// When its inode last changed, seconds and nanoseconds. Nobody can set it back, so it
        /// tells where the same bytes were written again and given the old time. Nothing of ours
        /// changes it: reading does not, and sources are neither renamed nor linked. `chmod` does.
        ctime: (i64, u32),
    },
    /// What the server calls a state of an object. The `ETag` alone is that of the contents: an
    /// object that was put again with the same bytes has the same.
    Object {
        /// The `ETag` without its quotes.
        etag: Box<str>,
        /// `Last-Modified`, in whole seconds since 1970: headers tell no more.
        modified_s: i64,
        /// The version's id in a bucket that keeps versions; a listing does not tell it.
        id: Option<Box<str>>,
    },
}

impl Version {
    /// The state of an object as a listing tells it.
    pub fn object(etag: &str, modified: Timestamp) -> Self {
        Self::Object {
            etag: etag.into(),
            modified_s: modified.as_second(),
            id: None,
        }
    }
}

/// One candidate that a listing found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the source.
    pub name: Name,
    /// Length in bytes.
    pub size_bytes: u64,
    /// The file's mtime or the object's `LastModified`.
    pub modified: Timestamp,
    /// Its state when it was listed.
    pub version: Version,
}

/// Where a rule reads from or writes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// All keys of a bucket that begin with a prefix.
    S3 {
        /// The bucket's name.
        bucket: String,
        /// Empty, or ends with exactly one `/` and begins with none.
        prefix: String,
    },
    /// A directory.
    File {
        /// Absolute; no `.`, `..` or doubled `/`.
        path: PathBuf,
        /// The part of `path` that must exist already and is never created: `base_file_path`
        /// where `path` lies in it.
        base: Option<Base>,
    },
}

/// The `base_file_path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// Absolute; no `.`, `..` or doubled `/`.
    pub path: PathBuf,
    /// Whether something must be mounted right there.
    pub must_be_mount: bool,
}

impl Place {
    /// The place of one of its items, for people: `s3://bucket/prefix/name` or an absolute path.
    pub fn item(&self, name: &Name) -> String {
        match self {
            Self::S3 { bucket, prefix } => format!("s3://{bucket}/{prefix}{}", name.lossy()),
            Self::File { path, .. } => join(path, name).to_string_lossy().into_owned(),
        }
    }

    /// What stands before the names of `inner`'s items when they are named from here: the parts of
    /// the path from here to there, each with a `/` behind it; empty where both are one place.
    /// `None` where `inner` does not lie in here.
    ///
    /// This is the one answer to whether a place lies inside another. It compares what is written:
    /// links are resolved before, where they matter.
    pub(crate) fn path_to(&self, inner: &Self) -> Option<Vec<u8>> {
        match (self, inner) {
            (
                Self::S3 { bucket, prefix },
                Self::S3 {
                    bucket: inner_bucket,
                    prefix: inner_prefix,
                },
            ) if bucket == inner_bucket => inner_prefix
                .strip_prefix(prefix.as_str())
                .map(|rest| rest.as_bytes().to_vec()),
            (Self::File { path, .. }, Self::File { path: inner, .. }) => {
                let rest = inner.strip_prefix(path).ok()?;
                let mut rest = rest.as_os_str().as_bytes().to_vec();
                if !rest.is_empty() {
                    rest.push(b'/');
                }
                Some(rest)
            }
            _ => None,
        }
    }

    /// The name that an item of this place has for `other`, where it lies in there.
    pub(crate) fn name_from(&self, other: &Self, name: &Name) -> Option<Name> {
        if let Some(directories) = other.path_to(self) {
            return Name::new([&directories, name.as_bytes()].concat());
        }
        Name::new(name.as_bytes().strip_prefix(&*self.path_to(other)?)?)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            Self::File { path, .. } => write!(f, "{}", path.display()),
        }
    }
}

/// The path of an item in a directory.
pub fn join(directory: &Path, name: &Name) -> PathBuf {
    directory.join(std::ffi::OsStr::from_bytes(name.as_bytes()))
}

/// What an object carries beside its contents; kept from s3 to s3, dropped elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Header names in lower case and their values: `content-type`, `content-encoding`,
    /// `content-language`, `content-disposition`, `cache-control`, `expires`, `x-amz-meta-*`, and
    /// `x-amz-tagging` once the tags were asked for.
    pub headers: Vec<(String, String)>,
    /// It has tags, which must be asked for.
    pub has_tags: bool,
    /// A header that cannot be kept, because its value is not UTF-8.
    pub unkept: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `/a` is a directory, everything else a bucket and a prefix.
    fn place(text: &str) -> Place {
        match text.split_once(':') {
            Some((bucket, prefix)) => Place::S3 {
                bucket: bucket.into(),
                prefix: prefix.into(),
            },
            None => Place::File {
                path: text.into(),
                base: None,
            },
        }
    }

    #[test]
    fn a_place_lies_in_another_only_by_whole_parts() {
        for (outer, inner, expected) in [
            ("edi:", "edi:", Some("")),
            ("edi:", "edi:in/", Some("in/")),
            ("edi:in/", "edi:in/", Some("")),
            ("edi:in/", "edi:in/850/a/", Some("850/a/")),
            ("edi:in/", "edi:in2/", None),
            ("edi:in/850/", "edi:in/8501/", None),
            ("edi:in/850/", "edi:in/", None),
            ("edi:in/", "other:in/", None),
            ("edi:", "other:", None),
            ("/", "/", Some("")),
            ("/", "/in", Some("in/")),
            ("/in", "/in", Some("")),
            ("/in", "/in/850/a", Some("850/a/")),
            ("/in", "/in2", None),
            ("/in/850", "/in/8501", None),
            ("/in/850", "/in", None),
            ("/in", "edi:in/", None),
            ("edi:", "/", None),
        ] {
            let path = place(outer).path_to(&place(inner));
            let expected = expected.map(|text| text.as_bytes().to_vec());
            assert_eq!(path, expected, "from {outer} to {inner}");
        }
    }

    #[test]
    fn an_item_has_a_name_for_each_place_that_it_lies_in() {
        for (at, name, from, expected) in [
            ("edi:in/", "a", "edi:in/", Some("a")),
            ("edi:in/850/", "a", "edi:in/", Some("850/a")),
            ("edi:in/850/", "a", "edi:", Some("in/850/a")),
            ("edi:", "in/850/a", "edi:in/", Some("850/a")),
            ("edi:", "in/850", "edi:in/850/", None),
            ("edi:", "in2/a", "edi:in/", None),
            ("edi:", "in/a", "other:in/", None),
            ("/in", "a", "/in", Some("a")),
            ("/in/850", "a", "/in", Some("850/a")),
            ("/", "in/850/a", "/in", Some("850/a")),
            ("/", "in", "/in", None),
            ("/", "in2/a", "/in", None),
            ("/out", "a", "/in", None),
            ("/in", "a", "edi:in/", None),
        ] {
            let name = Name::new(name.as_bytes()).expect("a good name");
            let seen = place(at).name_from(&place(from), &name);
            let expected = expected.and_then(|text| Name::new(text.as_bytes()));
            assert_eq!(seen, expected, "{name:?} in {at}, from {from}");
        }
    }
}
