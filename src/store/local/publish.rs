//! Makes a staged item a file: part file, sync, close, rename, directory sync, in one function that
//! nobody can use by halves. Makes the directories that are missing and clears up after dead runs.
//!
//! Why a directory's parent is synced whenever a run first publishes into it, and not only by who
//! made it: a file is no more durable than the entries of the directories it lies in, and these may
//! have been made a moment ago by another thread, another process, or a run that died.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, RawDir, RenameFlags, fsync, linkat, mkdirat, openat, renameat,
    renameat_with, statat, syncfs, unlinkat,
};
use rustix::io::Errno;

use super::tree::{
    DIRECTORY_CHUNK_BYTES, STALE_TRIES, Stat, check_name, fault, fault_at, open_base, open_below,
    open_parent, os_error, shown,
};
use super::{LocalStore, chunk_for};
use crate::error::{Error, Kind, Result};
use crate::object::Name;
use crate::stage::{Part as StagedPart, Staged};
use crate::store::{Clash, PART_FILE, Published, is_temporary, random};

/// How many random names are tried for a part file.
const PART_NAME_TRIES: u32 = 8;

/// A part file that nobody has written to for this long belongs to a dead run.
const PART_MAX_AGE: SignedDuration = SignedDuration::from_hours(1);

/// Less the process umask.
const FILE_MODE: Mode = Mode::from_raw_mode(0o666);

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
    settled: HashSet<PathBuf>,
    /// Their stale parts were looked for.
    swept: HashSet<PathBuf>,
}

impl Visited {
    fn sets(&self) -> MutexGuard<'_, Sets> {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LocalStore {
    /// See [`Store::publish`](crate::store::Store::publish).
    pub(super) fn publish_file(
        &self,
        name: &Name,
        staged: &Staged,
        clash: Clash,
    ) -> Result<Published> {
        check_name(&self.path, name)?;
        if is_temporary(name.split().1) {
            return Err(
                Error::new(Kind::Invalid, format!("publish {}", self.place.item(name)))
                    .because("such names are kept for files being written, and cleared up")
                    .advise("choose another by 'rename'"),
            );
        }
        let mut removed_once = false;
        let mut stale_tries = 1;
        loop {
            let result = self.publish_once(name, staged, clash);
            let Err(error) = &result else { return result };
            match os_error(error) {
                // The directory was removed between two steps, or a network filesystem lost an
                // answer and renamed a second time.
                Some(Errno::NOENT) if error.kind() != Kind::Missing && !removed_once => {
                    removed_once = true;
                }
                Some(Errno::STALE) if stale_tries < STALE_TRIES => stale_tries += 1,
                _ => return result,
            }
            if staged.is_released() {
                return result.map_err(|error| error.with_kind(Kind::Spent));
            }
        }
    }

    fn publish_once(&self, name: &Name, staged: &Staged, clash: Clash) -> Result<Published> {
        let fail = |action: &str, error: Errno| fault_at(action, &self.place, name, error);
        let (dirs, last) = name.split();
        let directory = self.open_destination(dirs)?;
        self.sweep_once(dirs, &directory);

        let (part, file) =
            Part::create(&directory).map_err(|error| fail("make a part file for", error))?;
        self.write(file, name, staged, clash)?;
        let placed = part.place(last, clash).map_err(|error| match error {
            // What servers say of a directory that is in the way differs.
            Errno::ISDIR | Errno::EXIST | Errno::NOTEMPTY => fail("publish", Errno::ISDIR),
            Errno::OPNOTSUPP => refuse_unsupported(&self.place.item(name)),
            _ => fail("publish", error),
        })?;
        if !placed {
            return Ok(Published::Exists);
        }
        self.sync_entry(dirs, &directory)?;
        Ok(Published::Done)
    }

    /// Fills the part file, compares what went into it with what was staged, and leaves it durable
    /// and closed. Two threads fill a large one, whose staged copy goes along where it replaces, as
    /// there will be no other name to try: the system takes its time for fresh pages.
    fn write(&self, file: File, name: &Name, staged: &Staged, clash: Clash) -> Result<()> {
        let is_large = staged.parts().len() > 1;
        staged.each_part(usize::from(is_large), |_, part| {
            self.write_part(&file, name, staged, part)?;
            if is_large && clash == Clash::Replace {
                staged.release(part);
            }
            Ok(())
        })?;
        sync_and_close(file).map_err(|(action, error)| fault_at(action, &self.place, name, error))
    }

    fn write_part(
        &self,
        file: &File,
        name: &Name,
        staged: &Staged,
        part: StagedPart,
    ) -> Result<()> {
        let mut crc = crc64fast_nvme::Digest::new();
        let mut buffer = chunk_for(part.size_bytes);
        let (mut offset, end) = (part.offset, part.offset + part.size_bytes);
        while offset < end {
            self.context.stop.check()?;
            let room = usize::try_from(end - offset).unwrap_or(usize::MAX);
            let room = room.min(buffer.len());
            let amount = staged.read_at(&mut buffer[..room], offset)?;
            if amount == 0 {
                break;
            }
            let bytes = &buffer[..amount];
            file.write_all_at(bytes, offset)
                .map_err(|error| fault_at("write", &self.place, name, error))?;
            crc.write(bytes);
            offset += amount as u64;
        }
        if offset != end || crc.sum64() != part.crc64 {
            let what = format!("write {}", self.place.item(name));
            return Err(Error::new(Kind::Storage, what)
                .because("the staged copy is not what was staged")
                .advise("check the disk that TMPDIR is on, and the memory"));
        }
        Ok(())
    }

    /// See [`Store::folds_case`](crate::store::Store::folds_case).
    pub(super) fn directory_folds_case(&self, dirs: &[u8]) -> Result<bool> {
        let directory = self.open_destination(dirs)?;
        let ask = || {
            let (part, _) = Part::create(&directory)?;
            let folds = part.folds_case();
            part.remove().and(folds)
        };
        ask().map_err(|error| {
            let action = "try out whether upper and lower case differ in";
            fault(action, &shown(&self.path, dirs), error)
        })
    }

    /// Makes a file that is there already, and its name, as durable as a published one.
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
                self.visited.sets().settled.clear();
                self.make(dirs)?;
                (open().map_err(fail)?, true)
            }
            found => (found.map_err(fail)?, false),
        };
        if made || !self.visited.sets().settled.contains(&path) {
            self.settle(&path, &directory, made)?;
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
    fn settle(&self, path: &Path, directory: &OwnedFd, made: bool) -> Result<()> {
        let top = self.made_in();
        let mut settled = Vec::new();
        for child in path.ancestors() {
            if child == top || self.visited.sets().settled.contains(child) {
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
            settled.push(child.to_path_buf());
        }
        self.visited.sets().settled.extend(settled);
        Ok(())
    }

    /// Removes the part files of dead runs, once in each directory. Never fails: it is a courtesy.
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

/// A file that is being written, unlinked unless it is placed.
pub(super) struct Part<'a> {
    directory: BorrowedFd<'a>,
    name: Vec<u8>,
    placed: bool,
}

impl<'a> Part<'a> {
    pub(super) fn create(directory: &'a OwnedFd) -> rustix::io::Result<(Self, File)> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut tries = 1;
        loop {
            let name = part_name();
            match openat(directory, name.as_slice(), flags, FILE_MODE) {
                Err(Errno::EXIST) if tries < PART_NAME_TRIES => tries += 1,
                created => {
                    let file = File::from(created?);
                    let directory = directory.as_fd();
                    let placed = false;
                    let part = Self {
                        directory,
                        name,
                        placed,
                    };
                    return Ok((part, file));
                }
            }
        }
    }

    /// Gives it its name; false where `clash` says to refuse and the name is taken.
    ///
    /// `EXIST` or `ISDIR`: a directory has the name. `OPNOTSUPP`: the filesystem cannot refuse.
    pub(super) fn place(mut self, last: &[u8], clash: Clash) -> rustix::io::Result<bool> {
        let (directory, name) = (self.directory, self.name.as_slice());
        let placed = match clash {
            Clash::Replace => renameat(directory, name, directory, last).map(|()| true),
            Clash::Refuse => {
                let flags = RenameFlags::NOREPLACE;
                match renameat_with(directory, name, directory, last, flags) {
                    Ok(()) => Ok(true),
                    Err(Errno::EXIST) => taken(directory, last).map(|()| false),
                    // NFS and other filesystems that do not know the flag.
                    Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => self.link(last),
                    Err(error) => Err(error),
                }
            }
        };
        self.placed = placed == Ok(true);
        placed
    }

    /// What [`place`](Self::place) does for `Refuse` where renaming cannot: a link never replaces.
    fn link(&self, last: &[u8]) -> rustix::io::Result<bool> {
        let (directory, name) = (self.directory, self.name.as_slice());
        match linkat(directory, name, directory, last, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let identity = |path: &[u8]| {
                    let stat = statat(directory, path, AtFlags::SYMLINK_NOFOLLOW);
                    stat.map(|stat| Stat(stat).identity())
                };
                // It may be ours: a network filesystem lost the answer and asked a second time.
                if identity(last)? != identity(name)? {
                    return taken(directory, last).map(|()| false);
                }
            }
            Err(Errno::PERM | Errno::NOSYS | Errno::INVAL | Errno::MLINK) => {
                return Err(Errno::OPNOTSUPP);
            }
            Err(error) => return Err(error),
        }
        // The item is there. A part that stays behind is cleared up by a later run.
        let _ = unlinkat(directory, name, AtFlags::empty());
        Ok(true)
    }

    /// Gives it another hidden name. Only for trying out: an item is placed.
    pub(super) fn rename(&mut self, name: Vec<u8>) -> rustix::io::Result<()> {
        renameat(
            self.directory,
            self.name.as_slice(),
            self.directory,
            name.as_slice(),
        )?;
        self.name = name;
        Ok(())
    }

    /// Whether it is found under its name in upper case, too.
    fn folds_case(&self) -> rustix::io::Result<bool> {
        let upper = self.name.to_ascii_uppercase();
        match statat(self.directory, upper, AtFlags::SYMLINK_NOFOLLOW) {
            // The name is random: who has it can only be the part.
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Unlinks it, and says when that is refused.
    pub(super) fn remove(mut self) -> rustix::io::Result<()> {
        self.placed = true;
        unlinkat(self.directory, self.name.as_slice(), AtFlags::empty())
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        if !self.placed {
            // Nothing better can be done about it; a later run clears it up.
            let _ = unlinkat(self.directory, self.name.as_slice(), AtFlags::empty());
        }
    }
}

/// Fails with `ISDIR` where the name is taken by a directory: no other name would be right then.
fn taken(directory: BorrowedFd<'_>, last: &[u8]) -> rustix::io::Result<()> {
    match statat(directory, last, AtFlags::SYMLINK_NOFOLLOW).map(Stat) {
        Ok(stat) if stat.is_directory() => Err(Errno::ISDIR),
        // Also where it vanished again: it was there when it mattered.
        _ => Ok(()),
    }
}

fn refuse_unsupported(path: &str) -> Error {
    Error::new(Kind::Invalid, format!("publish {path} without replacing"))
        .because("this filesystem knows neither RENAME_NOREPLACE nor hard links")
        .advise("use 'if_exists: overwrite' for this destination")
}

/// Leaves a file durable and closed, or says which of the two failed: some filesystems tell only
/// then that they are full.
pub(super) fn sync_and_close(file: File) -> Result<(), (&'static str, io::Error)> {
    fsync(&file).map_err(|error| ("sync", error.into()))?;
    match close_err::Closable::close(file) {
        // Linux has closed it by then, and it was synced before.
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        result => result.map_err(|error| ("close", error)),
    }
}

/// Syncs a directory; filesystems that cannot have nothing to sync.
pub(super) fn sync_directory(directory: &OwnedFd) -> rustix::io::Result<()> {
    match fsync(directory) {
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        result => result,
    }
}

fn part_name() -> Vec<u8> {
    let random = format!("{:016x}", random());
    let (begins, ends) = PART_FILE;
    [begins, &random, ends].concat().into_bytes()
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
            // Whoever may not remove it, or comes second, leaves it.
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
    use std::io::Write as _;

    use super::*;

    /// A directory with a part file that holds `new`.
    fn part(root: &Path) -> (OwnedFd, Vec<u8>) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let directory = openat(CWD, root, flags, Mode::empty()).unwrap();
        let (part, mut file) = Part::create(&directory).unwrap();
        file.write_all(b"new").unwrap();
        let name = part.name.clone();
        std::mem::forget(part);
        (directory, name)
    }

    /// What a filesystem that does not know `RENAME_NOREPLACE` would be asked.
    fn link(directory: &OwnedFd, name: Vec<u8>) -> rustix::io::Result<bool> {
        let directory = directory.as_fd();
        let mut part = Part {
            directory,
            name,
            placed: false,
        };
        let linked = part.link(b"a");
        part.placed = linked == Ok(true);
        linked
    }

    fn names(root: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(root).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    #[test]
    fn a_link_places_the_part_under_a_free_name() {
        let root = tempfile::tempdir().unwrap();
        let (directory, name) = part(root.path());
        assert_eq!(link(&directory, name), Ok(true));
        assert_eq!(names(root.path()), ["a"]);
        assert_eq!(std::fs::read(root.path().join("a")).unwrap(), b"new");
    }

    #[test]
    fn a_link_never_replaces_and_leaves_no_part() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("a"), "old").unwrap();
        let (directory, name) = part(root.path());
        assert_eq!(link(&directory, name), Ok(false));
        assert_eq!(names(root.path()), ["a"]);
        assert_eq!(std::fs::read(root.path().join("a")).unwrap(), b"old");
    }

    /// NFS: the server links, its answer is lost, the client asks again and hears `EEXIST`.
    #[test]
    fn a_link_whose_answer_was_lost_is_ours() {
        let root = tempfile::tempdir().unwrap();
        let (directory, name) = part(root.path());
        let path = root.path().join(OsStr::from_bytes(&name));
        std::fs::hard_link(path, root.path().join("a")).unwrap();
        assert_eq!(link(&directory, name), Ok(true));
        assert_eq!(names(root.path()), ["a"]);
    }

    #[test]
    fn a_link_onto_a_directory_says_so() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("a")).unwrap();
        let (directory, name) = part(root.path());
        assert_eq!(link(&directory, name), Err(Errno::ISDIR));
        assert_eq!(names(root.path()), ["a"]);
    }

    #[test]
    fn a_part_that_is_not_placed_vanishes() {
        let root = tempfile::tempdir().unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let directory = openat(CWD, root.path(), flags, Mode::empty()).unwrap();
        drop(Part::create(&directory).unwrap());
        assert_eq!(names(root.path()), [""; 0]);
    }

    #[test]
    fn part_names_are_recognised_and_differ() {
        assert!(is_temporary(&part_name()));
        assert_ne!(part_name(), part_name());
        assert!(!is_temporary(b"a.part") && !is_temporary(b".bots-mover-x"));
    }

    #[test]
    fn a_filesystem_that_cannot_sync_directories_is_no_error() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        // proc answers EINVAL.
        let directory = openat(CWD, "/proc/self", flags, Mode::empty()).unwrap();
        assert_eq!(fsync(&directory), Err(Errno::INVAL));
        assert_eq!(sync_directory(&directory), Ok(()));
    }
}
