//! Files that are being written: hidden beside what they are to become, or without a name in
//! `TMPDIR`.
//!
//! Invariants: nobody takes a [`PartFile`] for an item; one that was not placed is gone when it is
//! dropped; what is placed was synced and closed without an error before. What has been written is
//! pushed to the disk as it grows, because pages that are not there yet count in a pod's memory.

use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use rustix::fs::{
    Advice, AtFlags, FallocateFlags, Mode, OFlags, RenameFlags, fadvise, fallocate, fdatasync,
    fstatvfs, fsync, linkat, openat, renameat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

use crate::context::{Context, StagingRoom};
use crate::error::{Error, Kind, Result};
use crate::poison::unpoisoned;

/// How the names of files that are being written begin and end. No item may take such a name, since
/// a later run removes old ones.
pub(crate) const PART_FILE: (&str, &str) = (".bots-mover-", ".part");

/// How many random names are tried for a part file.
const NAME_TRIES: u32 = 8;

/// Less the process umask.
const FILE_MODE: Mode = Mode::from_raw_mode(0o666);

/// How many bytes of a file are written before they are pushed to the disk. Up to twice as many can
/// be in memory, and a few chunks: while one thread pushes, others write to the same file.
const PUSH_BYTES: u64 = 7 << 20;

/// The same of all files of a run together: what a pod of 64 MiB has beside the program itself and
/// its connections.
const PUSH_ALL_BYTES: u64 = 24 << 20;

/// How many bytes staging files leave free on their filesystem, because other programs need room.
const RESERVE_BYTES: u64 = 16 << 20;

/// What is done where the destination exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clash {
    /// Replace it, in one step.
    Replace,
    /// Leave it; asked of the filesystem or of the server, not looked up first.
    Refuse,
}

/// Whether `part` is the name of a file that is being written by some run of this program.
pub fn is_temporary(part: &[u8]) -> bool {
    part.starts_with(PART_FILE.0.as_bytes()) && part.ends_with(PART_FILE.1.as_bytes())
}

/// A hidden name that nobody can guess or has had before; `purpose` stands in it.
pub(crate) fn hidden_name(purpose: &str) -> String {
    let (begins, ends) = PART_FILE;
    // Each `RandomState` has other keys, so the hash of nothing is a random number.
    let random = RandomState::new().hash_one(());
    format!("{begins}{purpose}{random:016x}{ends}")
}

/// A file that is being written, and gone when it is dropped unless it was placed.
pub struct PartFile {
    /// Before `entry`, so that it is closed when its hidden name is unlinked.
    file: File,
    /// `None` for a file without a name.
    entry: Option<DirectoryEntry>,
    /// What it is, for error texts.
    shown: String,
    /// How much was written and not pushed to the disk yet: of this file, and of all of the run.
    unpushed_bytes: AtomicU64,
    all_unpushed_bytes: Arc<AtomicU64>,
    pushing: Mutex<()>,
    settled: OnceLock<()>,
    /// The room of a file without a name. It stands after `file`, so that the file is closed before
    /// the room is given back.
    room: Option<StagingRoom>,
}

struct DirectoryEntry {
    directory: OwnedFd,
    name: Vec<u8>,
    placed: AtomicBool,
}

impl PartFile {
    /// A file without a name in `TMPDIR`, with room for so many bytes. When there is no room, waits
    /// until other items give theirs back.
    ///
    /// # Errors
    /// `Storage`: none can be made there, or it does not fit. `Stopped`: transfers are broken off.
    pub(crate) fn unnamed(context: &Context, size_bytes: u64) -> Result<Self> {
        let directory = &context.temp_dir;
        let shown = format!("a staging file in {}", directory.display());
        let attempt = || {
            let file = tempfile::tempfile_in(directory).map_err(|error| {
                let fault = Error::io(format!("make {shown}"), error).with_kind(Kind::Storage);
                fault.advise(
                    "TMPDIR must name a writable directory with room for the items in flight",
                )
            })?;
            let part = Self::of(file, None, shown.clone());
            part.reserve(size_bytes).map(|()| part.counted(context))
        };
        let (mut part, room) = context.staging.take(&context.stop, attempt)?;
        part.room = Some(room);
        Ok(part)
    }

    /// Takes room for so many bytes, and leaves some free.
    fn reserve(&self, size_bytes: u64) -> Result<()> {
        let wanted = match self.allocate(size_bytes) {
            Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => {
                return Err(self.fault("take room for", error));
            }
            Ok(()) => RESERVE_BYTES,
            // The filesystem cannot reserve room, so it is taken while the file is written.
            Err(_) => RESERVE_BYTES.saturating_add(size_bytes),
        };
        match fstatvfs(&self.file) {
            // A filesystem without blocks does not tell.
            Ok(all) if all.f_blocks > 0 && all.f_bavail.saturating_mul(all.f_frsize) < wanted => {
                Err(self.fault("take room for", Errno::NOSPC))
            }
            _ => Ok(()),
        }
    }

    fn allocate(&self, size_bytes: u64) -> rustix::io::Result<()> {
        loop {
            match fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, size_bytes) {
                Err(Errno::INTR) => {}
                result => return result,
            }
        }
    }

    /// A hidden file in `directory`, in which an item called `shown` is being written.
    pub(crate) fn create(directory: OwnedFd, shown: String) -> rustix::io::Result<Self> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut tries = 1;
        loop {
            let name = hidden_name("").into_bytes();
            match openat(&directory, name.as_slice(), flags, FILE_MODE) {
                Err(Errno::EXIST) if tries < NAME_TRIES => tries += 1,
                created => {
                    let file = File::from(created?);
                    let placed = AtomicBool::new(false);
                    let entry = DirectoryEntry {
                        directory,
                        name,
                        placed,
                    };
                    return Ok(Self::of(file, Some(entry), shown));
                }
            }
        }
    }

    fn of(file: File, entry: Option<DirectoryEntry>, shown: String) -> Self {
        Self {
            file,
            entry,
            shown,
            unpushed_bytes: AtomicU64::new(0),
            all_unpushed_bytes: Arc::default(),
            pushing: Mutex::default(),
            settled: OnceLock::new(),
            room: None,
        }
    }

    /// Writes at `offset`, and pushes to the disk what has piled up.
    ///
    /// # Errors
    /// `Storage`, `Denied`; `Changed` where a network filesystem lost the file.
    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let written = self.file.write_all_at(bytes, offset);
        written.map_err(|error| self.fault("write", error))?;
        let length = bytes.len() as u64;
        self.all_unpushed_bytes.fetch_add(length, Ordering::Relaxed);
        self.unpushed_bytes.fetch_add(length, Ordering::Relaxed);
        if self.must_be_pushed() {
            self.push()?;
        }
        Ok(())
    }

    fn must_be_pushed(&self) -> bool {
        self.unpushed_bytes.load(Ordering::Relaxed) >= PUSH_BYTES
            || self.all_unpushed_bytes.load(Ordering::Relaxed) >= PUSH_ALL_BYTES
    }

    /// Pushes what has piled up to the disk, one thread at a time: the others may pile up as much
    /// meanwhile.
    fn push(&self) -> Result<()> {
        let _alone = unpoisoned(self.pushing.lock());
        if !self.must_be_pushed() {
            return Ok(());
        }
        let piled = self.unpushed_bytes.swap(0, Ordering::Relaxed);
        let pushed = fdatasync(&self.file).map_err(|error| self.fault("sync", error));
        self.all_unpushed_bytes.fetch_sub(piled, Ordering::Relaxed);
        if self.entry.is_some() {
            // Nobody reads it before it is placed, and what is kept of it counts in a pod's memory.
            // An item for MinIO is read again at once.
            let _ = fadvise(&self.file, 0, None, Advice::DontNeed);
        }
        pushed
    }

    /// Forgets what was written; takes room for so many bytes again where it had some.
    pub(crate) fn clear(&self, size_bytes: u64) -> Result<()> {
        self.forget_unpushed();
        let cut = self.file.set_len(0);
        cut.map_err(|error| self.fault("empty", error))?;
        match self.room {
            Some(_) => self.reserve(size_bytes),
            None => Ok(()),
        }
    }

    /// Counts it among all files of the run that are being written.
    #[must_use]
    pub(crate) fn counted(mut self, context: &Context) -> Self {
        self.all_unpushed_bytes = Arc::clone(&context.unpushed_bytes);
        self
    }

    /// Nothing of it waits to be pushed any more.
    fn forget_unpushed(&self) {
        let own = self.unpushed_bytes.swap(0, Ordering::Relaxed);
        self.all_unpushed_bytes.fetch_sub(own, Ordering::Relaxed);
    }

    /// Reads at `offset` as much as there is, at most `buffer`; 0 only at the end.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let read = self.file.read_at(buffer, offset);
        read.map_err(|error| self.fault("read", error))
    }

    /// How often a byte that is written to it counts: what is staged where it goes need not be
    /// written once more to be published.
    pub(crate) fn progress_per_byte(&self) -> u64 {
        if self.entry.is_some() { 2 } else { 1 }
    }

    /// The directory that its name is in.
    pub(crate) fn directory(&self) -> Option<&OwnedFd> {
        self.entry.as_ref().map(|entry| &entry.directory)
    }

    /// Makes the contents durable, or fails: some filesystems report only when a file is closed
    /// that they are full. A second call does nothing.
    pub(crate) fn settle(&self) -> Result<()> {
        if self.settled.get().is_some() {
            return Ok(());
        }
        fsync(&self.file).map_err(|error| self.fault("sync", error))?;
        // Closing a second handle reports the same error, and the first one stays open, so
        // that the contents can still be compared.
        let handle = self.file.try_clone();
        let handle = handle.map_err(|error| self.fault("close", error))?;
        match close_err::Closable::close(handle) {
            // Linux has closed it by then, and it was synced before.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => result.map_err(|error| self.fault("close", error))?,
        }
        self.forget_unpushed();
        self.settled.get_or_init(|| ());
        Ok(())
    }

    /// Gives it its name; false where `clash` says to refuse and the name is taken.
    ///
    /// `EXIST` or `ISDIR`: a directory has the name. `OPNOTSUPP`: the filesystem cannot refuse.
    ///
    /// # Panics
    /// If it has no directory, or was not settled: a mistake of the caller.
    pub(crate) fn place(&self, last: &[u8], clash: Clash) -> rustix::io::Result<bool> {
        assert!(self.settled.get().is_some(), "placed before it was settled");
        let entry = self
            .entry
            .as_ref()
            .expect("a file without a name has no place");
        match clash {
            Clash::Replace => entry.rename(last)?,
            Clash::Refuse => {
                let (directory, flags) = (&entry.directory, RenameFlags::NOREPLACE);
                match renameat_with(directory, entry.name.as_slice(), directory, last, flags) {
                    Ok(()) => {}
                    Err(Errno::EXIST) => return taken(directory, last).map(|()| false),
                    // NFS and other filesystems that do not know the flag. The hidden name goes
                    // when the file is closed: NFS would give it another one before.
                    Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => return entry.link(last),
                    Err(error) => return Err(error),
                }
            }
        }
        entry.placed.store(true, Ordering::Relaxed);
        Ok(true)
    }

    /// Gives it another hidden name. Only for trying out: an item is placed.
    pub(crate) fn rename(&mut self, name: &str) -> rustix::io::Result<()> {
        let entry = self.entry.as_mut().expect("a file without a name keeps it");
        entry.rename(name.as_bytes())?;
        entry.name = name.into();
        Ok(())
    }

    /// Whether it is found under its name in upper case, too.
    pub(crate) fn folds_case(&self) -> rustix::io::Result<bool> {
        let entry = self
            .entry
            .as_ref()
            .expect("a file without a name has no case");
        let upper = entry.name.to_ascii_uppercase();
        match statat(&entry.directory, upper, AtFlags::SYMLINK_NOFOLLOW) {
            // The name is random, so only our own file can have it.
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Unlinks it, and says when that is refused.
    pub(crate) fn remove(self) -> rustix::io::Result<()> {
        let entry = self
            .entry
            .as_ref()
            .expect("a file without a name is gone by itself");
        entry.placed.store(true, Ordering::Relaxed);
        unlinkat(&entry.directory, entry.name.as_slice(), AtFlags::empty())
    }

    /// A stale handle is no fault of the disk: the item is staged again.
    fn fault(&self, action: &str, error: impl Into<io::Error>) -> Error {
        let error = error.into();
        let kind = match Errno::from_io_error(&error) {
            Some(Errno::STALE) if self.entry.is_some() => Kind::Changed,
            Some(Errno::ACCESS | Errno::PERM) => Kind::Denied,
            _ => Kind::Storage,
        };
        let fault = Error::io(format!("{action} {}", self.shown), error).with_kind(kind);
        match self.entry {
            Some(_) => fault,
            None => fault.advise(
                "TMPDIR needs room for the items in flight, and 16 MiB more: enlarge it, or lower \
                 `concurrency`",
            ),
        }
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        self.forget_unpushed();
    }
}

impl DirectoryEntry {
    fn rename(&self, last: &[u8]) -> rustix::io::Result<()> {
        renameat(&self.directory, self.name.as_slice(), &self.directory, last)
    }

    /// What [`PartFile::place`] does for `Refuse` where renaming cannot: a link never replaces.
    fn link(&self, last: &[u8]) -> rustix::io::Result<bool> {
        let (directory, name) = (&self.directory, self.name.as_slice());
        match linkat(directory, name, directory, last, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                // The name may be ours: a network filesystem lost the answer and repeated the call.
                if identity(directory, last)? != identity(directory, name)? {
                    return taken(directory, last).map(|()| false);
                }
            }
            Err(Errno::PERM | Errno::NOSYS | Errno::INVAL | Errno::MLINK) => {
                return Err(Errno::OPNOTSUPP);
            }
            Err(error) => return Err(error),
        }
        Ok(true)
    }
}

impl Drop for DirectoryEntry {
    fn drop(&mut self) {
        if !self.placed.load(Ordering::Relaxed) {
            // Nothing else can be done here; a later run removes the file.
            let _ = unlinkat(&self.directory, self.name.as_slice(), AtFlags::empty());
        }
    }
}

/// Device and inode.
fn identity(directory: &OwnedFd, name: &[u8]) -> rustix::io::Result<(u64, u64)> {
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Fails with `ISDIR` where the name is taken by a directory: no other name would be right then.
fn taken(directory: &OwnedFd, last: &[u8]) -> rustix::io::Result<()> {
    use rustix::fs::FileType;
    match statat(directory, last, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => Err(Errno::ISDIR),
        // Also where it vanished again: it was there when it mattered.
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by a panic"
)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use std::path::Path;

    use rustix::fs::CWD;

    use super::*;

    /// A part file that holds `new`.
    fn part(root: &Path) -> PartFile {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let directory = openat(CWD, root, flags, Mode::empty()).unwrap();
        let part = PartFile::create(directory, "a".into()).unwrap();
        part.write(b"new", 0).unwrap();
        part.settle().unwrap();
        part
    }

    /// What a filesystem that does not know `RENAME_NOREPLACE` would be asked; then drops the part.
    #[expect(clippy::needless_pass_by_value, reason = "its drop unlinks")]
    fn link(part: PartFile) -> rustix::io::Result<bool> {
        part.entry.as_ref().unwrap().link(b"a")
    }

    fn names(root: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(root).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    #[test]
    fn a_link_places_the_part_under_a_free_name() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(link(part(root.path())), Ok(true));
        assert_eq!(names(root.path()), ["a"]);
        assert_eq!(std::fs::read(root.path().join("a")).unwrap(), b"new");
    }

    #[test]
    fn a_link_never_replaces_and_leaves_no_part() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("a"), "old").unwrap();
        assert_eq!(link(part(root.path())), Ok(false));
        assert_eq!(names(root.path()), ["a"]);
        assert_eq!(std::fs::read(root.path().join("a")).unwrap(), b"old");
    }

    /// NFS: the server links, its answer is lost, the client asks again and hears `EEXIST`.
    #[test]
    fn a_link_whose_answer_was_lost_is_ours() {
        let root = tempfile::tempdir().unwrap();
        let part = part(root.path());
        let name = &part.entry.as_ref().unwrap().name;
        let path = root.path().join(OsStr::from_bytes(name));
        std::fs::hard_link(path, root.path().join("a")).unwrap();
        assert_eq!(link(part), Ok(true));
        assert_eq!(names(root.path()), ["a"]);
    }

    #[test]
    fn a_link_onto_a_directory_says_so() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("a")).unwrap();
        assert_eq!(link(part(root.path())), Err(Errno::ISDIR));
        assert_eq!(names(root.path()), ["a"]);
    }

    #[test]
    fn a_part_that_is_not_placed_vanishes() {
        let root = tempfile::tempdir().unwrap();
        drop(part(root.path()));
        assert_eq!(names(root.path()), [""; 0]);
    }

    #[test]
    fn a_refused_name_keeps_the_part_for_the_next() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("a"), "old").unwrap();
        let part = part(root.path());
        assert_eq!(part.place(b"a", Clash::Refuse), Ok(false));
        assert_eq!(part.place(b"a-1", Clash::Refuse), Ok(true));
        drop(part);
        assert_eq!(std::fs::read(root.path().join("a")).unwrap(), b"old");
        assert_eq!(std::fs::read(root.path().join("a-1")).unwrap(), b"new");
        assert_eq!(names(root.path()).len(), 2);
    }

    #[test]
    fn hidden_names_are_recognised_and_differ() {
        assert!(is_temporary(hidden_name("").as_bytes()));
        assert_ne!(hidden_name(""), hidden_name(""));
        assert!(!is_temporary(b"a.part") && !is_temporary(b".bots-mover-x"));
    }

    #[test]
    fn staging_file_that_is_begun_anew_takes_its_room_again() {
        let root = tempfile::tempdir().unwrap();
        let context = Context::new(jiff::Timestamp::now, root.path().to_owned());
        let file = PartFile::unnamed(&context, 4 << 20).unwrap();
        let room = || rustix::fs::fstat(&file.file).unwrap().st_blocks * 512;
        let before = room();
        assert!(before >= 4 << 20, "{before}");
        file.clear(4 << 20).unwrap();
        assert_eq!(room(), before);
    }

    #[test]
    fn what_all_files_of_a_run_have_not_pushed_is_bounded_and_given_back() {
        const MIB: usize = 1 << 20;
        let root = tempfile::tempdir().unwrap();
        let context = Context::new(jiff::Timestamp::now, root.path().to_owned());
        let unpushed = || context.unpushed_bytes.load(Ordering::Relaxed) / MIB as u64;
        let written = |mebibytes: usize| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let directory = openat(CWD, root.path(), flags, Mode::empty()).unwrap();
            let file = PartFile::create(directory, "a".into()).unwrap();
            let file = file.counted(&context);
            file.write(&vec![1; mebibytes * MIB], 0).unwrap();
            file
        };
        let files: Vec<_> = (0..3).map(|_| written(6)).collect();
        assert_eq!(unpushed(), 18);
        let one_more = written(6);
        assert_eq!(unpushed(), 18, "24 MiB were reached, so it was pushed");
        drop(written(7));
        assert_eq!(unpushed(), 18, "7 MiB of one file were reached");
        files[0].settle().unwrap();
        files[1].clear(0).unwrap();
        assert_eq!(unpushed(), 6);
        drop((files, one_more));
        assert_eq!(unpushed(), 0);
    }
}
