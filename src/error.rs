//! The one error type: a small [`Kind`] that callers branch on, and text for people.
//!
//! Wording: a lower-case phrase, action then subject, no full stop. `Display` prints only its own
//! level; [`Error::chain`] joins all levels and the advice at the edge. No URL with a query string
//! and no credential may be put into any of the texts: a signature is a secret.

use std::fmt::{self, Write as _};
use std::io;

use rustix::io::Errno;

/// What callers branch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A passing fault of the network or the server: worth two more quick tries.
    Transient,
    /// No progress for as long as the timeout allows: the attempt is over at once.
    Timeout,
    /// The item is not there (any more): somebody else took it.
    Gone,
    /// The source changed while it was staged, or the room that it was staged in is gone: begin the
    /// attempt again.
    Changed,
    /// Another process holds an exclusive lock on the source: it is being written.
    Locked,
    /// The bucket or the `base_file_path` does not exist.
    Missing,
    /// No right to do it.
    Denied,
    /// The destination exists and the rule says `if_exists: fail`.
    Exists,
    /// A bad name, a collision within the run, a destination that is its own source.
    Invalid,
    /// Disk full, quota, read-only, or another fault of a filesystem.
    Storage,
    /// The process was told to stop.
    Stopped,
    /// Everything else, such as an answer that makes no sense.
    Other,
}

impl Kind {
    /// Whether the same request may succeed a moment later on a fresh connection.
    pub(crate) fn is_quick(self) -> bool {
        matches!(self, Self::Transient)
    }

    /// Whether a further attempt may help; false for what no repeat can mend.
    pub(crate) fn is_retryable(self) -> bool {
        !matches!(self, Self::Exists | Self::Invalid | Self::Stopped)
    }
}

/// What went wrong: the action, its subject, the cause, and the advice.
#[derive(Debug)]
pub struct Error(Box<Details>);

/// In a box, so that a `Result` without an error is small.
#[derive(Debug)]
struct Details {
    kind: Kind,
    what: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    advice: Option<String>,
}

/// A result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// `what` is the action and its subject, such as `put s3://edi/a.edi`.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self(Box::new(Details {
            kind,
            what: what.into(),
            source: None,
            advice: None,
        }))
    }

    /// Adds the cause, printed behind a colon.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Adds what to do about it, printed in parentheses at the end.
    #[must_use]
    pub(crate) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.0.advice = Some(advice.into());
        self
    }

    /// A fault of the filesystem: kind and advice follow from the error number.
    pub fn io(what: impl Into<String>, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        let kind = match error.kind() {
            io::ErrorKind::NotFound => Kind::Gone,
            io::ErrorKind::PermissionDenied => Kind::Denied,
            io::ErrorKind::InvalidFilename
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::NotADirectory => Kind::Invalid,
            _ => Kind::Storage,
        };
        let advice = advice(&error);
        let fault = Self::new(kind, what).because(error);
        match advice {
            Some(advice) => fault.advise(advice),
            None => fault,
        }
    }

    /// What callers branch on.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The same error with another kind, where only the caller knows what a cause means.
    #[must_use]
    pub(crate) fn with_kind(mut self, kind: Kind) -> Self {
        self.0.kind = kind;
        self
    }

    /// All levels, outermost first, joined by `: `, and the advice in parentheses.
    pub fn chain(&self) -> String {
        let mut text = self.0.what.clone();
        let mut next = std::error::Error::source(self);
        let mut advice = self.0.advice.as_deref();
        while let Some(error) = next {
            write!(text, ": {error}").expect("writing to a string cannot fail");
            if let Some(inner) = error.downcast_ref::<Self>() {
                advice = advice.or(inner.0.advice.as_deref());
            }
            next = error.source();
        }
        if let Some(advice) = advice {
            write!(text, " ({advice})").expect("writing to a string cannot fail");
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}

/// What to do about a fault of the filesystem.
fn advice(error: &io::Error) -> Option<String> {
    let advice = match Errno::from_io_error(error)? {
        Errno::NOSPC => "the filesystem is full: make room (df, df -i) or enlarge the volume",
        Errno::FBIG => "a limit of the process (ulimit -f) or of the filesystem: raise it",
        Errno::DQUOT => "the quota is used up: make room or raise it",
        Errno::ROFS => "it is mounted read-only: check readOnly of the volume mount",
        Errno::ACCESS | Errno::PERM => {
            let uid = rustix::process::geteuid().as_raw();
            let gid = rustix::process::getegid().as_raw();
            return Some(format!(
                "running as uid {uid} gid {gid}: check owner, group and mode of it and of the \
                 directories on the way"
            ));
        }
        Errno::NAMETOOLONG => "shorten the name by 'rename'",
        Errno::NOTDIR | Errno::LOOP => {
            "a file or a symbolic link stands where a directory is needed: move it away"
        }
        Errno::ISDIR => "a directory has the name: move it away or choose another by 'rename'",
        Errno::IO => "check the disk or the network mount",
        Errno::STALE => "was the network filesystem exported or mounted anew?",
        Errno::MFILE | Errno::NFILE => "lower 'concurrency' or raise the limit of open files",
        _ => return None,
    };
    Some(advice.into())
}
