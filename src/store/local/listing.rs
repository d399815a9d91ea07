//! Finds candidates: streams directories, so that a million entries cost time, not memory.
//!
//! Holds one chunk of one directory and the names of the directories still to be read, and at most
//! a few file descriptors, however deep the tree is. Reads only; never follows a link below the
//! root.

use std::collections::HashSet;
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, OFlags, RawDir, fstat, statat};
use rustix::io::Errno;

use super::tree::{
    DIRECTORY_CHUNK_BYTES, STALE_TRIES, Stat, fault, open_below, os_error, real_path, shown,
};
use crate::context::Stop;
use crate::error::{Error, Result};
use crate::object::{Entry, Name};
use crate::store::{Aside, Listed, Scope};

/// Gives each candidate below `root` to `sink`, until that breaks.
pub(super) fn list(
    root: &Path,
    excluded: Option<&Path>,
    stop: &Stop,
    scope: &Scope<'_>,
    sink: &mut dyn FnMut(Entry) -> ControlFlow<()>,
) -> Result<Listed> {
    let excluded = match excluded {
        Some(path) if scope.recursive => Excluded::find(root, path)?,
        _ => Excluded::default(),
    };
    let mut walk = Walk {
        root,
        excluded,
        stop,
        scope,
        sink,
        pending: vec![Vec::new()],
        unreadable: HashSet::new(),
        seen: 0,
    };
    let mut chunk = vec![MaybeUninit::uninit(); DIRECTORY_CHUNK_BYTES];
    while let Some(dirs) = walk.pending.pop() {
        let waiting = walk.pending.len();
        let read = match walk.directory(&dirs, &mut chunk) {
            Err(error) if !dirs.is_empty() && is_denied(&error) => {
                walk.pending.truncate(waiting);
                walk.pass_over(&dirs, &error);
                continue;
            }
            read => read?,
        };
        match read {
            Some(flow) if flow.is_break() => return Ok(Listed::Stopped),
            None if dirs.is_empty() => return Ok(Listed::NoDirectory),
            // It vanished, or something else took its name, since its parent was read.
            Some(_) | None => {}
        }
    }
    Ok(Listed::Complete)
}

/// The destination inside the source, told by what it is, so that no link can hide it, and by its
/// path, because it may be made while the listing goes on.
#[derive(Default)]
struct Excluded {
    identity: Option<(u64, u64)>,
    dirs: Option<Vec<u8>>,
}

impl Excluded {
    fn find(root: &Path, path: &Path) -> Result<Self> {
        let identity = match statat(CWD, path, AtFlags::empty()).map(Stat) {
            Ok(stat) => Some(stat.identity()),
            Err(Errno::NOENT | Errno::NOTDIR) => None,
            Err(error) => return Err(fault("look at", path, error)),
        };
        let (path, root) = (real_path(path), real_path(root));
        let below = path.strip_prefix(root).ok();
        let dirs = below.map(|below| [below.as_os_str().as_bytes(), b"/"].concat());
        Ok(Self { identity, dirs })
    }
}

struct Walk<'a> {
    root: &'a Path,
    excluded: Excluded,
    stop: &'a Stop,
    scope: &'a Scope<'a>,
    sink: &'a mut dyn FnMut(Entry) -> ControlFlow<()>,
    /// Directories to be read, relative to the root, each with its closing `/`; the root is empty.
    pending: Vec<Vec<u8>>,
    /// Directories that were passed over, because we may not read them.
    unreadable: HashSet<PathBuf>,
    /// How many entries were read.
    seen: u64,
}

impl Walk<'_> {
    /// Opens and reads one directory; `None` where it is not there.
    ///
    /// A handle that is stale is mended by opening again only as long as it showed no entry: the
    /// entries would be given twice.
    fn directory(
        &mut self,
        dirs: &[u8],
        chunk: &mut [MaybeUninit<u8>],
    ) -> Result<Option<ControlFlow<()>>> {
        let mut tries = 1;
        loop {
            let seen = self.seen;
            let result = match open_below(self.root, dirs, OFlags::RDONLY) {
                Ok(dir) => self.read(dirs, &dir, chunk).map(Some),
                Err(Errno::NOENT) => return Ok(None),
                Err(Errno::NOTDIR | Errno::LOOP) if !dirs.is_empty() => return Ok(None),
                Err(error) => Err(fault("list", &shown(self.root, dirs), error)),
            };
            let stale = matches!(&result, Err(error) if os_error(error) == Some(Errno::STALE));
            if !stale || self.seen > seen || tries == STALE_TRIES {
                return result;
            }
            tries += 1;
        }
    }

    fn read(
        &mut self,
        dirs: &[u8],
        dir: &OwnedFd,
        chunk: &mut [MaybeUninit<u8>],
    ) -> Result<ControlFlow<()>> {
        let fail = |error: Errno| fault("list", &shown(self.root, dirs), error);
        if !dirs.is_empty() && self.excluded.identity.is_some() {
            let stat = Stat(fstat(dir).map_err(fail)?);
            if self.excluded.identity == Some(stat.identity()) {
                return Ok(ControlFlow::Continue(()));
            }
        }
        let mut entries = RawDir::new(dir, chunk);
        while let Some(entry) = entries.next() {
            self.stop.check_request()?;
            let entry = match entry {
                Ok(entry) => entry,
                Err(Errno::INTR) => continue,
                // The directory was removed while it was read.
                Err(Errno::NOENT) => break,
                Err(error) => return Err(fail(error)),
            };
            self.seen += 1;
            let last = entry.file_name().to_bytes();
            if last.starts_with(b".") {
                continue;
            }
            let flow = self.consider(dirs, dir, last, entry.file_type())?;
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Looks at one entry of a directory, with as few system calls as possible.
    fn consider(
        &mut self,
        dirs: &[u8],
        dir: &OwnedFd,
        last: &[u8],
        mut file_type: FileType,
    ) -> Result<ControlFlow<()>> {
        let next = Ok(ControlFlow::Continue(()));
        let mut stat = None;
        if file_type == FileType::Unknown && self.scope.recursive {
            stat = self.stat(dirs, dir, last)?;
            let Some(stat) = stat else { return next };
            file_type = stat.file_type();
        }
        match file_type {
            FileType::Directory if self.scope.recursive => {
                if dirs.is_empty() && last == b"lost+found" && self.is_roots(dir, last) {
                    let path = shown(self.root, last).to_string_lossy().into_owned();
                    (self.scope.aside)(Aside { path, error: None });
                    return next;
                }
                let below = [dirs, last, b"/"].concat();
                if self.excluded.dirs.as_ref() != Some(&below) {
                    self.pending.push(below);
                }
                next
            }
            FileType::RegularFile | FileType::Unknown => {
                let name = Name::new([dirs, last].concat());
                let Some(name) = name.filter(|name| (self.scope.wanted)(name)) else {
                    return next;
                };
                if stat.is_none() {
                    stat = self.stat(dirs, dir, last)?;
                }
                match stat {
                    Some(stat) if stat.is_regular() => Ok((self.sink)(Entry {
                        name,
                        size_bytes: stat.size_bytes(),
                        modified: stat.modified(),
                        version: stat.version(),
                    })),
                    _ => next,
                }
            }
            _ => next,
        }
    }

    /// Whether the entry belongs to the user root.
    fn is_roots(&self, dir: &OwnedFd, last: &[u8]) -> bool {
        let stat = self.stat(&[], dir, last);
        stat.is_ok_and(|stat| stat.is_some_and(|stat| stat.owner().0 == 0))
    }

    /// Tells of a directory that cannot be read or passed through, once, with its owner and mode.
    fn pass_over(&mut self, dirs: &[u8], error: &Error) {
        let mut path = shown(self.root, dirs);
        // When an entry cannot be looked at, the directory that it lies in lacks the right.
        let stat = loop {
            match statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW).map(Stat) {
                Err(Errno::ACCESS) if path != self.root => drop(path.pop()),
                stat => break stat,
            }
        };
        if !self.unreadable.insert(path.clone()) {
            return;
        }
        let shown = path.to_string_lossy().into_owned();
        let subject = stat.map_or(shown.clone(), |stat| {
            let (uid, gid) = stat.owner();
            let mode = stat.permissions();
            format!("{shown} (uid {uid} gid {gid} mode {mode:04o})")
        });
        let errno = os_error(error).unwrap_or(Errno::ACCESS);
        let error = Some(fault("list", Path::new(&subject), errno));
        let path = shown;
        (self.scope.aside)(Aside { path, error });
    }

    /// `None` where the entry vanished since the directory was read.
    fn stat(&self, dirs: &[u8], dir: &OwnedFd, last: &[u8]) -> Result<Option<Stat>> {
        match statat(dir, last, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Stat(stat))),
            Err(Errno::NOENT | Errno::STALE) => Ok(None),
            Err(error) => {
                let path = shown(self.root, &[dirs, last].concat());
                Err(fault("look at", &path, error))
            }
        }
    }
}

/// Whether we lack the right, which says nothing about the rest of the source.
fn is_denied(error: &Error) -> bool {
    matches!(os_error(error), Some(Errno::ACCESS | Errno::PERM))
}
