//! Tries what a run does in a directory: lists it, and makes, syncs, renames and removes a hidden
//! file. Tells whose it is and what room there is.
//!
//! Nothing else is made, no directory either. Should a kill leave the hidden file, its name is one
//! that nobody takes and a later run clears up.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, RawDir, accessat, openat, statat, statvfs};
use rustix::io::Errno;

use super::LocalStore;
use super::publish::sync_directory;
use super::tree::{DIRECTORY_CHUNK_BYTES, Stat, fault, is_mount_point, open_below, real_path};
use crate::error::{Error, Kind, Result};
use crate::part::PartFile;
use crate::store::probe::{Finding, OnFinding, Right, probe_name};
use crate::store::{Aside, LOST_AND_FOUND_NOTE, Scope, Store as _};

/// In a directory with this bit only the owner of a file, or of the directory, may remove or
/// replace it; inode(7).
const STICKY: u32 = 0o1000;

impl LocalStore {
    /// Tries what these rights need. A directory that does not exist is no problem where a run can
    /// make it.
    pub(crate) fn probe(
        &self,
        rights: &BTreeSet<Right>,
        recursive: bool,
        report: &mut OnFinding<'_>,
    ) -> ControlFlow<()> {
        if let Err(missing) = self.base_is_there() {
            return report("base", Finding::Bad(missing));
        }
        if rights.contains(&Right::Write)
            && let Err(missing) = self.must_exist()
        {
            return report("directory", Finding::Bad(missing));
        }
        let changes = rights.contains(&Right::Write) || rights.contains(&Right::Remove);
        let stat = match statat(CWD, &self.path, AtFlags::empty()).map(Stat) {
            Ok(stat) if stat.is_directory() => stat,
            Ok(_) => {
                let error = fault("open the directory", &self.path, Errno::NOTDIR);
                return report("directory", Finding::Bad(error));
            }
            Err(Errno::NOENT) => return self.probe_missing(rights, report),
            Err(error) => {
                let error = fault("open the directory", &self.path, error);
                return report("directory", Finding::Bad(error));
            }
        };
        report("owner", Finding::Good(owner(&stat)))?;
        report(
            "mount",
            match self.mount() {
                Ok(text) => Finding::Good(text),
                Err(error) => Finding::Bad(error),
            },
        )?;
        if changes && is_sticky(&stat) {
            let note = "its sticky bit is set: files of other users cannot be removed or replaced";
            report("owner", Finding::Note(note.into()))?;
        }
        report("space", free_space(&self.path))?;
        if rights.contains(&Right::List) {
            let listed = self.try_list();
            if recursive && listed.is_ok() {
                self.walk(report)?;
            } else {
                report("list", Finding::of(listed, "may be read"))?;
            }
        }
        if changes {
            let good = "a hidden file was made, synced, renamed and removed";
            report("write", Finding::of(self.try_write(), good))?;
        }
        ControlFlow::Continue(())
    }

    /// Where the filesystem is mounted that the directory is on, for people.
    fn mount(&self) -> Result<String> {
        let path = real_path(&self.path);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        for directory in path.ancestors() {
            let opened = openat(CWD, directory, flags, Mode::empty());
            if opened
                .and_then(|opened| is_mount_point(&opened))
                .map_err(|error| fault("look for the mount of", directory, error))?
            {
                return Ok(if directory == path {
                    "it is a mount point".into()
                } else {
                    format!("it is no mount point; mounted is {}", directory.display())
                });
            }
        }
        Ok("nothing is mounted here".into())
    }

    /// Where a destination is to be made, looks at the directory that it would be made in.
    fn probe_missing(
        &self,
        rights: &BTreeSet<Right>,
        report: &mut OnFinding<'_>,
    ) -> ControlFlow<()> {
        if !rights.contains(&Right::Write) {
            let note = "not there: the rule has nothing to do, and a run warns of it";
            return report("directory", Finding::Note(note.into()));
        }
        let mut parent = self.path.as_path();
        loop {
            match statat(CWD, parent, AtFlags::empty()) {
                Err(Errno::NOENT) => {}
                Err(error) => {
                    let error = fault("open the directory", parent, error);
                    return report("directory", Finding::Bad(error));
                }
                Ok(_) => break,
            }
            if statat(CWD, parent, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
                let error = fault("make the directory", parent, Errno::LOOP);
                return report("directory", Finding::Bad(error));
            }
            parent = parent.parent().unwrap_or(Path::new("/"));
        }
        let made = accessat(
            CWD,
            parent,
            Access::WRITE_OK | Access::EXEC_OK,
            AtFlags::empty(),
        )
        .map_err(|error| fault("make a directory in", parent, error));
        let note = format!("not there: a run makes it, in {}", parent.display());
        let finding = match made {
            Ok(()) => Finding::Note(note),
            Err(error) => Finding::Bad(error),
        };
        report("directory", finding)?;
        report("space", free_space(parent))
    }

    fn open_root(&self) -> Result<OwnedFd> {
        open_below(&self.path, b"", OFlags::RDONLY)
            .map_err(|error| fault("open the directory", &self.path, error))
    }

    /// Reads the directory's beginning, and looks for a name in it, which needs another right.
    fn try_list(&self) -> Result<()> {
        let directory = self.open_root()?;
        let fail = |error| fault("list", &self.path, error);
        let mut chunk = vec![MaybeUninit::uninit(); DIRECTORY_CHUNK_BYTES];
        if let Some(Err(error)) = RawDir::new(&directory, &mut chunk).next() {
            return Err(fail(error));
        }
        match statat(&directory, probe_name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(fault("look at what is in", &self.path, error)),
        }
    }

    /// Reads all directories, as a recursive rule does.
    fn walk(&self, report: &mut OnFinding<'_>) -> ControlFlow<()> {
        let asides = RefCell::new(Vec::new());
        let scope = Scope {
            recursive: true,
            wanted: &|_| false,
            aside: &|aside| asides.borrow_mut().push(aside),
        };
        let listed = self.list(&scope, &mut |_| ControlFlow::Continue(()));
        let mut readable = true;
        for Aside { path, error } in asides.into_inner() {
            readable &= error.is_none();
            let note = || Finding::Note(format!("{path}: {LOST_AND_FOUND_NOTE}"));
            report("list", error.map_or_else(note, Finding::Bad))?;
        }
        if readable || listed.is_err() {
            let good = "may be read, and so may the directories below";
            report("list", Finding::of(listed, good))?;
        }
        ControlFlow::Continue(())
    }

    /// What publishing and removing do, with a hidden file that is gone afterwards.
    fn try_write(&self) -> Result<()> {
        let stop = &self.context.stop;
        // A second signal waits until the file is removed. After that signal no file is made.
        let _held = stop.hold();
        if stop.requested().is_some() {
            return Err(Error::new(Kind::Stopped, "stopped by a signal"));
        }
        let fail = |action| move |error: Errno| fault(action, &self.path, error);
        let shown = format!("a hidden file in {}", self.path.display());
        let made = PartFile::create(self.open_root()?, shown);
        let mut part = made.map_err(fail("make a hidden file in"))?;
        part.write(b"?", 0)?;
        part.settle()?;
        part.rename(&probe_name())
            .map_err(fail("rename a hidden file in"))?;
        let directory = part.directory().expect("it was made in one");
        sync_directory(directory).map_err(fail("sync the directory"))?;
        part.remove().map_err(fail("remove a hidden file from"))
    }
}

/// The room that an ordinary user may take where this directory is.
pub(crate) fn free_space(directory: &Path) -> Finding {
    match statvfs(directory) {
        Err(error) => Finding::Bad(fault("look for free space in", directory, error)),
        Ok(room) => {
            let free = size_text(room.f_bavail.saturating_mul(room.f_frsize));
            // Filesystems that make inodes as they need them count none.
            let inodes = match room.f_files {
                0 => String::new(),
                _ => format!(" and {} inodes", room.f_favail),
            };
            Finding::Good(format!("{free}{inodes} free"))
        }
    }
}

/// Whether we may not replace or remove the files of other users in this directory, although we may
/// write to it.
fn is_sticky(stat: &Stat) -> bool {
    let uid = rustix::process::geteuid();
    stat.permissions() & STICKY != 0 && !uid.is_root() && stat.owner().0 != uid.as_raw()
}

fn owner(stat: &Stat) -> String {
    let (uid, gid) = stat.owner();
    let (our_uid, our_gid) = (rustix::process::geteuid(), rustix::process::getegid());
    format!(
        "uid {uid} gid {gid} mode {:04o}; running as uid {} gid {}",
        stat.permissions(),
        our_uid.as_raw(),
        our_gid.as_raw()
    )
}

/// Bytes in the largest unit of which there is one.
fn size_text(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.iter().find(|(shift, _)| bytes >> shift > 0) {
        Some((shift, unit)) => format!("{} {unit}", bytes >> shift),
        None => format!("{bytes} bytes"),
    }
}
