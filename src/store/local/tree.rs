//! From names to open files: finds what a name means without following links in it, says what
//! `stat` knows in the program's terms, and words what went wrong. Changes nothing.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, StatxAttributes, StatxFlags, fstat, openat, statat, statx,
};
use rustix::io::Errno;

use crate::error::{Error, Kind, Result};
use crate::object::{Base, Name, Place, Version, join, part_flaw};

/// How often something is tried that a network filesystem answers with a stale handle.
pub(super) const STALE_TRIES: u32 = 4;

/// How much of a directory is read at a time; glibc's `readdir` takes as much.
pub(super) const DIRECTORY_CHUNK_BYTES: usize = 32 << 10;

/// The longest path that a system call takes, in bytes: limits.h, `PATH_MAX` less the closing NUL.
const PATH_MAX_BYTES: usize = 4095;

/// An item's place: a directory that was opened without following links, and the last part.
///
/// An item right in the root needs no directory opened: its whole path will do.
pub(super) struct At {
    dir: Option<OwnedFd>,
    path: PathBuf,
}

impl At {
    /// `None` where a directory on the way is not there, or is none.
    pub(super) fn find(root: &Path, name: &Name) -> Result<Option<Self>> {
        check_name(root, name)?;
        let (dirs, last) = name.split();
        if dirs.is_empty() {
            return Ok(Some(Self {
                dir: None,
                path: join(root, name),
            }));
        }
        match open_below(root, dirs, OFlags::PATH) {
            Ok(dir) => Ok(Some(Self {
                dir: Some(dir),
                path: PathBuf::from(OsStr::from_bytes(last)),
            })),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(fault("open the directory of", &join(root, name), error)),
        }
    }

    /// What [`path`](Self::path) is relative to.
    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_ref().map_or(CWD, OwnedFd::as_fd)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it for reading, whatever it is; a FIFO does not block.
    ///
    /// `None` where it is not there, or is a link or a socket.
    pub(super) fn open(&self) -> rustix::io::Result<Option<File>> {
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match openat(self.dir(), &self.path, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(File::from(fd))),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Opens a directory below `root`, with `access` (`RDONLY` or `PATH`). Links are followed in `root`
/// only. One part at a time: the whole may be longer than a path can be.
pub(super) fn open_below(root: &Path, dirs: &[u8], access: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parts = dirs.split(|&byte| byte == b'/');
    let mut parts = parts.filter(|part| !part.is_empty()).peekable();
    // Passing through a directory needs no right to read it.
    let access_for = |last: bool| flags | if last { access } else { OFlags::PATH };
    let mut dir = openat(CWD, root, access_for(parts.peek().is_none()), Mode::empty())?;
    while let Some(part) = parts.next() {
        let flags = access_for(parts.peek().is_none()) | OFlags::NOFOLLOW;
        dir = openat(&dir, part, flags, Mode::empty())?;
    }
    Ok(dir)
}

/// Opens the base to make what is missing in it; fails with `Missing` where it is not there, or is
/// no mount point though it must be one.
pub(super) fn open_base(base: &Base) -> Result<OwnedFd> {
    let path = &base.path;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = openat(CWD, path, flags, Mode::empty());
    let opened = opened.map_err(|error| missing_base(path, error))?;
    if base.must_be_mount
        && !is_mount_point(&opened)
            .map_err(|error| fault("look for the mount at base_file_path", path, error))?
    {
        let what = format!("open base_file_path {}", path.display());
        return Err(Error::new(Kind::Missing, what)
            .because("it is no mount point, as `require_mount` asks")
            .advise("is the volume mounted?"));
    }
    Ok(opened)
}

/// Opens the directory that a place without a base lies in, which is never made either.
pub(super) fn open_parent(path: &Path) -> Result<OwnedFd> {
    let parent = path.parent().unwrap_or(path);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, parent, flags, Mode::empty()).map_err(|error| {
        let fault = fault("open the directory", parent, error);
        match error {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => fault.with_kind(Kind::Missing).advise(
                "is the volume mounted? outside of base_file_path only the last part of a path is \
                 made",
            ),
            _ => fault,
        }
    })
}

/// Whether something is mounted right at this directory, be it another filesystem or a part of the
/// same (bind mount).
///
/// The kernel says so since Linux 5.8 (statx(2), `STATX_ATTR_MOUNT_ROOT`). An older one, or a
/// sandbox that does not pass it on, shows only that a directory is on another device than the one
/// above: a bind mount of the same device then looks like none.
pub(super) fn is_mount_point(directory: &OwnedFd) -> rustix::io::Result<bool> {
    match statx(directory, "", AtFlags::EMPTY_PATH, StatxFlags::empty()) {
        Ok(told)
            if told
                .stx_attributes_mask
                .contains(StatxAttributes::MOUNT_ROOT) =>
        {
            return Ok(told.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
        }
        Ok(_) | Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => {}
        Err(error) => return Err(error),
    }
    is_on_another_device(directory)
}

/// What [`is_mount_point`] asks where the kernel does not tell.
fn is_on_another_device(directory: &OwnedFd) -> rustix::io::Result<bool> {
    let above = statat(directory, "..", AtFlags::empty())?;
    let (own, above) = (Stat(fstat(directory)?), Stat(above));
    // Above the root there is only itself.
    Ok(own.identity().0 != above.identity().0 || own.identity() == above.identity())
}

/// The path with the links on it resolved, as far as it exists: two paths may lead to one place.
pub(super) fn real_path(path: &Path) -> PathBuf {
    let existing = path.ancestors().find_map(|ancestor| {
        let real = ancestor.canonicalize().ok()?;
        let missing = path.strip_prefix(ancestor).expect("of its ancestors");
        // Not `join`, which leaves a `/` behind a path that exists whole.
        Some(real.iter().chain(missing).collect())
    });
    existing.unwrap_or_else(|| path.to_path_buf())
}

/// The path of `dirs` below `root`: for error texts and as a key, never to go by.
pub(super) fn shown(root: &Path, dirs: &[u8]) -> PathBuf {
    let dirs = dirs.strip_suffix(b"/").unwrap_or(dirs);
    if dirs.is_empty() {
        return root.to_path_buf();
    }
    root.join(OsStr::from_bytes(dirs))
}

/// Fails with `Invalid` for a name that would leave the directory or that no file can have.
///
/// The engine refuses such names earlier. It is checked here again because here a mistake of the
/// engine would do harm.
pub(super) fn check_name(root: &Path, name: &Name) -> Result<()> {
    let refuse = |why: String| {
        let what = format!("use the name {:?} in {}", name.lossy(), root.display());
        Err(Error::new(Kind::Invalid, what).because(why))
    };
    if let Some(why) = name.parts().find_map(part_flaw) {
        return refuse(why.into());
    }
    let path_bytes = root.as_os_str().len() + 1 + name.as_bytes().len();
    if path_bytes > PATH_MAX_BYTES {
        let most = PATH_MAX_BYTES;
        return refuse(format!("the path has {path_bytes} bytes, {most} at most"));
    }
    Ok(())
}

/// What the system says about a file.
#[derive(Clone, Copy)]
pub(super) struct Stat(pub(super) rustix::fs::Stat);

impl Stat {
    pub(super) fn is_regular(&self) -> bool {
        FileType::from_raw_mode(self.0.st_mode) == FileType::RegularFile
    }

    pub(super) fn is_directory(&self) -> bool {
        FileType::from_raw_mode(self.0.st_mode) == FileType::Directory
    }

    pub(super) fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.0.st_mode)
    }

    /// The numbers of user and group.
    pub(super) fn owner(&self) -> (u32, u32) {
        (self.0.st_uid, self.0.st_gid)
    }

    /// The bits that `chmod` sets.
    pub(super) fn permissions(&self) -> u32 {
        self.0.st_mode & 0o7777
    }

    /// Device and inode.
    pub(super) fn identity(&self) -> (u64, u64) {
        (self.0.st_dev, self.0.st_ino)
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.0.st_size.cast_unsigned()
    }

    /// A time that the calendar does not reach (year 9999) becomes its end.
    pub(super) fn modified(&self) -> Timestamp {
        let (seconds, nanoseconds) = self.mtime();
        let end = if seconds < 0 {
            Timestamp::MIN
        } else {
            Timestamp::MAX
        };
        Timestamp::new(seconds, nanoseconds.cast_signed()).unwrap_or(end)
    }

    pub(super) fn version(&self) -> Version {
        let (dev, ino) = self.identity();
        let (mtime_s, mtime_ns) = self.mtime();
        Version::File {
            dev,
            ino,
            size_bytes: self.size_bytes(),
            mtime_s,
            mtime_ns,
            ctime: (self.0.st_ctime, nanoseconds(self.0.st_ctime_nsec)),
        }
    }

    /// Seconds, and nanoseconds behind them.
    fn mtime(&self) -> (i64, u32) {
        (self.0.st_mtime, nanoseconds(self.0.st_mtime_nsec))
    }
}

fn nanoseconds(part: impl TryInto<u32>) -> u32 {
    let part = part.try_into().ok();
    part.expect("the system gives less than a second")
}

/// Repeats `act` up to [`STALE_TRIES`] times while a network filesystem answers that a handle is
/// stale.
pub(super) fn retry_stale<T>(mut act: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 1..STALE_TRIES {
        match act() {
            Err(error) if os_error(&error) == Some(Errno::STALE) => {}
            result => return result,
        }
    }
    act()
}

/// The system's own number of what went wrong.
pub(super) fn os_error(error: &Error) -> Option<Errno> {
    let source = std::error::Error::source(error)?;
    Errno::from_io_error(source.downcast_ref::<io::Error>()?)
}

/// The error for a base that is not there or is no directory.
pub(super) fn missing_base(base: &Path, error: Errno) -> Error {
    let fault = fault("open base_file_path", base, error);
    match error {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => fault
            .with_kind(Kind::Missing)
            .advise("is the volume mounted? it is never created"),
        _ => fault,
    }
}

/// [`fault`] with an item's path.
pub(super) fn fault_at(
    action: &str,
    place: &Place,
    name: &Name,
    error: impl Into<io::Error>,
) -> Error {
    fault(action, Path::new(&place.item(name)), error)
}

/// What went wrong with a path, its kind, and what to do about it.
///
/// Never `Gone`: only who looks for an item knows that its absence means that.
pub(super) fn fault(action: &str, path: &Path, error: impl Into<io::Error>) -> Error {
    let fault = Error::io(format!("{action} {}", path.display()), error);
    match fault.kind() {
        Kind::Gone => fault.with_kind(Kind::Storage),
        _ => fault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often an action is done that fails with `errno` as long as it is asked.
    fn tries(errno: Errno) -> u32 {
        let mut tries = 0;
        let result = retry_stale(|| -> Result<()> {
            tries += 1;
            Err(fault("open", Path::new("/in/a"), errno))
        });
        assert!(result.is_err());
        tries
    }

    fn open(path: impl AsRef<Path>) -> OwnedFd {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        openat(CWD, path.as_ref(), flags, Mode::empty()).expect("a directory")
    }

    #[test]
    fn mount_points_are_told_with_and_without_the_help_of_the_kernel() {
        let plain = tempfile::tempdir().expect("a directory");
        for (path, mounted) in [
            (Path::new("/"), true),
            (Path::new("/proc"), true),
            (Path::new("/proc/self"), false),
            (plain.path(), false),
        ] {
            let opened = open(path);
            assert_eq!(is_mount_point(&opened), Ok(mounted), "{}", path.display());
            assert_eq!(is_on_another_device(&opened), Ok(mounted));
        }
    }

    #[test]
    fn only_a_stale_handle_is_tried_again_and_not_for_ever() {
        assert_eq!(tries(Errno::STALE), STALE_TRIES);
        assert_eq!(tries(Errno::IO), 1);
        let mut stale = true;
        let result = retry_stale(|| {
            let fault = fault("open", Path::new("/in/a"), Errno::STALE);
            if std::mem::take(&mut stale) {
                Err(fault)
            } else {
                Ok(())
            }
        });
        assert!(result.is_ok());
    }

    #[test]
    fn faults_have_the_kind_that_callers_branch_on_and_advice() {
        for (errno, kind, says) in [
            (Errno::NOENT, Kind::Storage, "open /in/a: No such file"),
            (Errno::NOSPC, Kind::Storage, "the filesystem is full"),
            (Errno::DQUOT, Kind::Storage, "quota"),
            (Errno::FBIG, Kind::Storage, "ulimit -f"),
            (Errno::ROFS, Kind::Storage, "read-only"),
            (Errno::IO, Kind::Storage, "check the disk"),
            (Errno::ACCESS, Kind::Denied, "running as uid"),
            (Errno::PERM, Kind::Denied, "running as uid"),
            (
                Errno::NOTDIR,
                Kind::Invalid,
                "stands where a directory is needed",
            ),
            (Errno::ISDIR, Kind::Invalid, "a directory has the name"),
            (Errno::NAMETOOLONG, Kind::Invalid, "shorten the name"),
        ] {
            let fault = fault("open", Path::new("/in/a"), errno);
            assert_eq!(fault.kind(), kind, "{errno}");
            assert!(fault.chain().contains(says), "{}", fault.chain());
        }
    }
}
