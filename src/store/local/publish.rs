//! Makes a staged item a file: part file, sync, close, rename, directory sync. A large item was
//! staged in its part file already. Makes the directories that are missing and clears up after dead
//! runs.
//!
//! Why a directory's parent is synced whenever a run first publishes into it, and not only by who
//! made it: a file is no more durable than the entries of the directories it lies in, and these may
//! have been made a moment ago by another thread, another process, or a run that died.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use jiff::{SignedDuration, Timestamp};
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, RawDir, fsync, mkdirat, openat, statat, syncfs, unlinkat,
};
use rustix::io::Errno;

use super::LocalStore;
use super::tree::{
    DIRECTORY_CHUNK_BYTES, STALE_TRIES, Stat, check_name, fault, fault_at, open_base, open_below,
    open_parent, os_error, shown,
};
use crate::error::{Error, Kind, Result};
use crate::object::Name;
use crate::part::{Clash, PartFile, is_temporary};
use crate::poison::unpoisoned;
use crate::stage::{Staged, chunk_for};
use crate::store::Published;

/// A part file that nobody has written to for this long belongs to a dead run.
const PART_MAX_AGE: SignedDuration = SignedDuration::from_hours(1);

/// Less the process umask.
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o777);

/// What a store did once in this run and need not do again. Sets of whole paths of directories.
#[derive(Default)]
pub(super) struct Visited {
    sets: Mutex<Sets>,
}

#[derive(Default)]
struct Sets {
    /// Their own entries, and those of all directories on the way, are durable.
    durable: HashSet<PathBuf>,
    /// Their stale parts were looked for.
    swept: HashSet<PathBuf>,
}

impl Visited {
    fn sets(&self) -> MutexGuard<'_, Sets> {
        unpoisoned(self.sets.lock())
    }
}

impl LocalStore {
    /// See [`Store::room`](crate::store::Store::room).
    pub(super) fn make_part(&self, name: &Name) -> Result<PartFile> {
        check_name(&self.path, name)?;
        let (dirs, last) = name.split();
        let shown = self.place.item(name);
        if is_temporary(last) {
            return Err(Error::new(Kind::Invalid, format!("publish {shown}"))
                .because("such names are kept for files being written, and cleared up")
                .advise("choose another by 'rename'"));
        }
        let directory = self.open_destination(dirs)?;
        self.sweep_once(dirs, &directory);
        PartFile::create(directory, shown)
            .map(|part| part.counted(&self.context))
            .map_err(|error| fault_at("make a part file for", &self.place, name, error))
    }

    /// See [`Store::publish`](crate::store::Store::publish).
    pub(super) fn publish_file(
        &self,
        name: &Name,
        staged: &Staged,
        clash: Clash,
    ) -> Result<Published> {
        check_name(&self.path, name)?;
        let mut removed_once = false;
        let mut stale_tries = 1;
        loop {
            let result = match staged.part_file() {
                Some(part) => self.place(part, name, clash),
                None => self.write(name, staged, clash),
            };
            let Err(error) = result else { return result };
            match os_error(&error) {
                // The directory was removed between two steps, or a network filesystem lost an
                // answer and renamed a second time.
                Some(Errno::NOENT) if error.kind() != Kind::Missing && !removed_once => {
                    removed_once = true;
                }
                Some(Errno::STALE) if stale_tries < STALE_TRIES => stale_tries += 1,
                _ => return Err(error),
            }
            if staged.part_file().is_some() {
                // The staged copy was in that directory and is gone with it.
                return Err(error.with_kind(Kind::Changed));
            }
        }
    }

    /// Publishes what was staged elsewhere: in memory.
    fn write(&self, name: &Name, staged: &Staged, clash: Clash) -> Result<Published> {
        let part = self.make_part(name)?;
        let mut buffer = chunk_for(staged.size_bytes());
        let mut offset = 0;
        while offset < staged.size_bytes() {
            self.context.stop.check()?;
            let amount = staged.read_at(&mut buffer, offset)?;
            part.write(&buffer[..amount], offset)?;
            offset += amount as u64;
        }
        self.place(&part, name, clash)
    }

    /// Makes a written part the item: file sync, close, rename, directory sync, in this order.
    fn place(&self, part: &PartFile, name: &Name, clash: Clash) -> Result<Published> {
        let fail = |action: &str, error: Errno| fault_at(action, &self.place, name, error);
        part.settle()?;
        let (dirs, last) = name.split();
        let placed = part.place(last, clash).map_err(|error| match error {
            // What servers say of a directory that is in the way differs.
            Errno::ISDIR | Errno::EXIST | Errno::NOTEMPTY => fail("publish", Errno::ISDIR),
            Errno::OPNOTSUPP => refuse_unsupported(&self.place.item(name)),
            _ => fail("publish", error),
        })?;
        if !placed {
            return Ok(Published::Exists);
        }
        let directory = part.directory().expect("it was placed in one");
        self.sync_entry(dirs, directory)?;
        Ok(Published::Done)
    }

    /// See [`Store::folds_case`](crate::store::Store::folds_case).
    pub(super) fn directory_folds_case(&self, dirs: &[u8]) -> Result<bool> {
        let path = shown(&self.path, dirs);
        let ask = |directory| {
            let part = PartFile::create(directory, path.display().to_string())?;
            let folds = part.folds_case();
            part.remove().and(folds)
        };
        ask(self.open_destination(dirs)?).map_err(|error| {
            fault(
                "try out whether upper and lower case differ in",
                &path,
                error,
            )
        })
    }

    /// Makes a file that exists already, and its name, as durable as a published one.
    pub(super) fn make_durable(&self, file: &File, name: &Name) -> Result<()> {
        fsync(file).map_err(|error| fault_at("sync", &self.place, name, error))?;
        let (dirs, _) = name.split();
        let directory = self.open_destination(dirs)?;
        self.sync_entry(dirs, &directory)
    }

    fn sync_entry(&self, dirs: &[u8], directory: &OwnedFd) -> Result<()> {
        sync_directory(directory).map_err(|error| {
            let path = shown(&self.path, dirs);
            fault("sync the directory", &path, error)
        })
    }

    /// Opens a directory to publish into, made if needed, its entry and those on the way durable.
    fn open_destination(&self, dirs: &[u8]) -> Result<OwnedFd> {
        let path = shown(&self.path, dirs);
        let open = || open_below(&self.path, dirs, OFlags::RDONLY);
        let fail = |error: Errno| match error {
            // It may be a link that leads nowhere, which cannot be made either.
            Errno::NOTDIR | Errno::LOOP => fault("open the directory", &path, Errno::NOTDIR),
            _ => fault("open the directory", &path, error),
        };
        let (directory, made) = match open() {
            Err(Errno::NOENT) => {
                self.visited.sets().durable.clear();
                self.make(dirs)?;
                (open().map_err(fail)?, true)
            }
            found => (found.map_err(fail)?, false),
        };
        if made || !self.visited.sets().durable.contains(&path) {
            self.sync_parents(&path, &directory, made)?;
        }
        Ok(directory)
    }

    /// The directory that must be there: the base, or else the one that the place lies in.
    fn made_in(&self) -> &Path {
        let parent = || self.path.parent().unwrap_or(&self.path);
        self.base.as_ref().map_or_else(parent, |base| &base.path)
    }

    /// Makes what is missing of the directories below the base, relative to the opened base: should
    /// its volume be unmounted meanwhile, nothing is made in its place.
    fn make(&self, dirs: &[u8]) -> Result<()> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let base = self.made_in();
        let mut current = match &self.base {
            Some(base) => open_base(base)?,
            None => open_parent(&self.path)?,
        };
        let mut path = base.to_path_buf();
        let below = self.path.strip_prefix(base);
        let below = below.expect("new() saw that the path lies in its base, if it has one");
        let own = below.iter().map(|part| (part, OFlags::empty()));
        let parts = dirs
            .split(|&byte| byte == b'/')
            .filter(|part| !part.is_empty());
        let named = parts.map(|part| (OsStr::from_bytes(part), OFlags::NOFOLLOW));
        for (part, nofollow) in own.chain(named) {
            path.push(part);
            let fail = |error| fault("make the directory", &path, error);
            let enter = || openat(&current, part, flags | nofollow, Mode::empty());
            current = match enter() {
                Err(Errno::NOENT) => {
                    match mkdirat(&current, part, DIRECTORY_MODE) {
                        // Another thread or process was faster.
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(fail(error)),
                    }
                    enter().map_err(|error| {
                        let hint = "is it a symbolic link that leads nowhere?";
                        if error == Errno::NOENT {
                            fail(error).advise(hint)
                        } else {
                            fail(error)
                        }
                    })?
                }
                found => found.map_err(fail)?,
            };
        }
        Ok(())
    }

    /// Syncs the parent of each directory on the way to `path`, which was opened as `directory`, up
    /// to the base or to one that is known. `made`: some of them were made by us just now.
    fn sync_parents(&self, path: &Path, directory: &OwnedFd, made: bool) -> Result<()> {
        let top = self.made_in();
        let mut durable = Vec::new();
        for child in path.ancestors() {
            if child == top || self.visited.sets().durable.contains(child) {
                break;
            }
            let Some(parent) = child.parent() else { break };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let opened = openat(CWD, parent, flags, Mode::empty());
            let synced = match opened.and_then(|parent| sync_directory(&parent)) {
                // What may be written but not read can only be synced with all the filesystem.
                Err(Errno::ACCESS) if made => syncfs(directory),
                // What we did not make was there when the operator wrote the path.
                Err(Errno::ACCESS | Errno::ROFS) => Ok(()),
                synced => synced,
            };
            synced.map_err(|error| fault("sync the directory", parent, error))?;
            durable.push(child.to_path_buf());
        }
        self.visited.sets().durable.extend(durable);
        Ok(())
    }

    /// Removes the part files of dead runs, once in each directory. Never fails, because no item
    /// depends on it.
    fn sweep_once(&self, dirs: &[u8], directory: &OwnedFd) {
        if self.is_unswept(dirs) {
            sweep(directory, self.context.now());
        }
    }

    /// The same where a source was removed: a dead probe may have left its file there.
    pub(super) fn sweep_source_once(&self, name: &Name) {
        let (dirs, _) = name.split();
        if self.is_unswept(dirs)
            && let Ok(directory) = open_below(&self.path, dirs, OFlags::RDONLY)
        {
            sweep(&directory, self.context.now());
        }
    }

    fn is_unswept(&self, dirs: &[u8]) -> bool {
        let path = shown(&self.path, dirs);
        self.visited.sets().swept.insert(path)
    }
}

fn refuse_unsupported(path: &str) -> Error {
    Error::new(Kind::Invalid, format!("publish {path} without replacing"))
        .because("this filesystem knows neither RENAME_NOREPLACE nor hard links")
        .advise("use 'if_exists: overwrite' for this destination")
}

/// Syncs a directory; filesystems that cannot have nothing to sync.
pub(super) fn sync_directory(directory: &OwnedFd) -> rustix::io::Result<()> {
    match fsync(directory) {
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        result => result,
    }
}

fn sweep(directory: &OwnedFd, now: Timestamp) {
    let mut chunk = vec![MaybeUninit::uninit(); DIRECTORY_CHUNK_BYTES];
    let mut entries = RawDir::new(directory, &mut chunk);
    while let Some(Ok(entry)) = entries.next() {
        let last = entry.file_name();
        if !is_temporary(last.to_bytes()) {
            continue;
        }
        let stat = statat(directory, last, AtFlags::SYMLINK_NOFOLLOW).map(Stat);
        let stale = stat.is_ok_and(|stat| {
            stat.is_regular() && now.duration_since(stat.modified()) > PART_MAX_AGE
        });
        if stale {
            // When the right is missing, or another run removed it first, nothing is to be done.
            let _ = unlinkat(directory, last, AtFlags::empty());
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by a panic"
)]
mod tests {
    use super::*;

    #[test]
    fn a_filesystem_that_cannot_sync_directories_is_no_error() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        // proc answers EINVAL.
        let directory = openat(CWD, "/proc/self", flags, Mode::empty()).unwrap();
        assert_eq!(fsync(&directory), Err(Errno::INVAL));
        assert_eq!(sync_directory(&directory), Ok(()));
    }
}
