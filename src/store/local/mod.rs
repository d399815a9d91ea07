//! The [`Store`] for a directory, and the only place in the program that creates, renames, links,
//! syncs or unlinks files.
//!
//! Invariants:
//! - The `base_file_path` is never created, nor, where a place lies in none, the directory that it
//!   lies in: what belongs on a volume must not go to the disk below it.
//! - A file appears under its name whole or not at all, and is durable, with every directory on the
//!   way, before [`Store::publish`] says so.
//! - Links are followed only in the place's own path, which the operator wrote, never in an item's
//!   name. Nothing but a regular file is ever read or removed.
//! - No lock is ever taken, no owner, mode or time of a file changed.
//!
//! How it is divided: `tree` finds and opens what a name means and words what went wrong, `listing`
//! walks directories, `publish` makes directories and files, `probe` tries it all out before a run.
//! What Bots does in the same directories: it appends to final names without a sync, under an
//! exclusive `lockf` where 'system locks' is on.

mod listing;
mod probe;
mod publish;
mod tree;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use rustix::fs::{AtFlags, CWD, fstat, statat, unlinkat};
use rustix::io::Errno;
use rustix::process::{Flock, FlockType, fcntl_getlk};

pub(crate) use self::probe::free_space;
use self::publish::Visited;
use self::tree::{At, Stat, fault, fault_at, retry_stale};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::object::{Attributes, Base, Entry, Name, Place, Version};
use crate::part::{Clash, PartFile};
use crate::poison::unpoisoned;
use crate::stage::{Stage, Staged, chunk_for};
use crate::store::{Fetched, Holder, Listed, Order, Published, Removed, Scope, Store, locked_note};

/// A directory as one end of a rule.
pub struct LocalStore {
    place: Place,
    path: PathBuf,
    base: Option<Base>,
    excluded: Option<PathBuf>,
    context: Arc<Context>,
    visited: Visited,
    /// Directories that were asked whether they tell upper from lower case; true: they do not.
    folding: Mutex<HashMap<PathBuf, bool>>,
}

impl LocalStore {
    /// The directory of `place`. `excluded` is the same rule's destination where it lies inside
    /// this source: nothing in it is a candidate.
    ///
    /// # Panics
    /// If `place` is no directory or does not lie in its base: a mistake of the caller.
    pub fn new(place: Place, excluded: Option<PathBuf>, context: Arc<Context>) -> Self {
        let Place::File { path, base } = place.clone() else {
            panic!("a local store needs a directory, not {place}");
        };
        let inside = base.as_ref();
        let inside = inside.is_none_or(|base| path.starts_with(&base.path));
        assert!(inside, "{place} does not lie in its base {base:?}");
        Self {
            place,
            path,
            base,
            excluded,
            context,
            visited: Visited::default(),
            folding: Mutex::default(),
        }
    }

    /// The place with the links on its own path resolved, as far as it exists.
    pub(crate) fn resolve(place: &Place) -> Place {
        match place {
            Place::File { path, base } => Place::File {
                path: tree::real_path(path),
                base: base.clone(),
            },
            other @ Place::S3 { .. } => other.clone(),
        }
    }

    /// Fails with `Missing` where the base is not there as it must be.
    fn base_is_there(&self) -> Result<()> {
        match &self.base {
            Some(base) => tree::open_base(base).map(drop),
            None => Ok(()),
        }
    }

    /// Opens whatever has the name but a link or a socket, for reading.
    fn open(&self, name: &Name) -> Result<Option<File>> {
        let Some(at) = At::find(&self.path, name)? else {
            return Ok(None);
        };
        at.open()
            .map_err(|error| fault_at("open", &self.place, name, error))
    }

    fn stat(&self, file: &File, name: &Name) -> Result<Stat> {
        let stat = fstat(file);
        stat.map(Stat)
            .map_err(|error| fault_at("look at", &self.place, name, error))
    }

    /// What it means that `name` is not there: it is gone, unless the whole volume is.
    fn gone(&self, action: &str, name: &Name) -> Error {
        if let Err(missing) = self.base_is_there() {
            return missing;
        }
        let what = format!("{action} {}", self.place.item(name));
        Error::new(Kind::Gone, what).because("no regular file of this name is there any more")
    }

    fn fetch_once(&self, name: &Name, stage: &mut Stage<'_>) -> Result<Fetched> {
        let Some(mut file) = self.open(name)? else {
            return Err(self.gone("stage", name));
        };
        let before = self.stat(&file, name)?;
        if !before.is_regular() {
            return Err(self.gone("stage", name));
        }
        if let Some(holder) = exclusive_lock(&file) {
            let what = format!("stage {}", self.place.item(name));
            return Err(Error::new(Kind::Locked, what).because(locked_note(holder)));
        }
        let size_bytes = before.size_bytes();
        let changed = |how: String| {
            let what = format!("stage {}", self.place.item(name));
            Error::new(Kind::Changed, what)
                .because(how)
                .advise("somebody is writing it; 'min_age_seconds' leaves young files alone")
        };
        stage.begin(size_bytes, None)?;
        let mut buffer = chunk_for(size_bytes);
        let mut read_bytes = 0;
        loop {
            let amount = read(&mut file, &mut buffer)
                .map_err(|error| fault_at("read", &self.place, name, error))?;
            if amount == 0 {
                break;
            }
            read_bytes += amount as u64;
            if read_bytes > size_bytes {
                return Err(changed(format!("it grew beyond {size_bytes} bytes")));
            }
            stage.write(&buffer[..amount])?;
        }
        if read_bytes < size_bytes {
            let how = format!("it ended after {read_bytes} of {size_bytes} bytes");
            return Err(changed(how));
        }
        // Opened anew: a network filesystem may go on showing what it knew at the opening, and asks
        // its server at the next.
        let Some(now) = self.open(name)? else {
            return Err(self.gone("stage", name));
        };
        let version = self.stat(&now, name)?.version();
        if version != before.version() {
            return Err(changed("it was modified meanwhile".into()));
        }
        let (staged, _) = stage.finish()?;
        Ok(Fetched {
            staged,
            version,
            attributes: Attributes::default(),
        })
    }

    fn holds_once(&self, name: &Name, staged: &Staged) -> Result<bool> {
        let Some(mut file) = self.open(name)? else {
            return Ok(false);
        };
        let stat = self.stat(&file, name)?;
        if !stat.is_regular() || stat.size_bytes() != staged.size_bytes() {
            return Ok(false);
        }
        let same = staged.equals(&self.context, |buffer| {
            read(&mut file, buffer).map_err(|error| fault_at("read", &self.place, name, error))
        })?;
        if !same {
            return Ok(false);
        }
        self.make_durable(&file, name)?;
        Ok(true)
    }

    fn remove_once(&self, name: &Name, version: &Version) -> Result<Removed> {
        let Some(at) = At::find(&self.path, name)? else {
            return self.removed_by_others(name);
        };
        let fail = |error: Errno| fault_at("remove", &self.place, name, error);
        let file = at.open().map_err(fail)?;
        if let Some(holder) = file.and_then(|file| exclusive_lock(&file)) {
            return Ok(Removed::Locked(holder));
        }
        match statat(at.dir(), at.path(), AtFlags::SYMLINK_NOFOLLOW).map(Stat) {
            Err(Errno::NOENT) => return self.removed_by_others(name),
            Err(error) => return Err(fail(error)),
            Ok(now) if !now.is_regular() || now.version() != *version => {
                return Ok(Removed::Changed);
            }
            Ok(_) => {}
        }
        match unlinkat(at.dir(), at.path(), AtFlags::empty()) {
            Ok(()) => Ok(Removed::Done),
            Err(Errno::NOENT) => self.removed_by_others(name),
            Err(error) => Err(fail(error)),
        }
    }

    fn removed_by_others(&self, name: &Name) -> Result<Removed> {
        match self.gone("remove", name) {
            missing if missing.kind() != Kind::Gone => Err(missing),
            _ => Ok(Removed::Gone),
        }
    }
}

impl Store for LocalStore {
    fn place(&self) -> &Place {
        &self.place
    }

    fn order(&self) -> Order {
        Order::ByAge
    }

    /// A directory in its base may be missing: [`Store::list`] says so, and [`Store::publish`]
    /// makes it. Where there is no base, only its last part may be missing.
    fn must_exist(&self) -> Result<()> {
        self.base_is_there()?;
        if self.base.is_none() && statat(CWD, &self.path, AtFlags::empty()).is_err() {
            tree::open_parent(&self.path)?;
        }
        Ok(())
    }

    fn list(
        &self,
        scope: &Scope<'_>,
        sink: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<Listed> {
        if self.base.as_ref().is_some_and(|base| base.must_be_mount) {
            self.base_is_there()?;
        }
        let excluded = self.excluded.as_deref();
        let listed = listing::list(&self.path, excluded, &self.context.stop, scope, sink)?;
        if listed == Listed::NoDirectory {
            self.base_is_there()?;
        }
        Ok(listed)
    }

    fn directory_id(&self) -> Result<Option<(u64, u64)>> {
        match statat(CWD, &self.path, AtFlags::empty()).map(Stat) {
            Ok(stat) => Ok(Some(stat.identity())),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(fault("look at", &self.path, error)),
        }
    }

    fn lock_file(&self, lock_name: &str) -> Result<Option<Timestamp>> {
        let path = self.path.join(lock_name);
        // Bots creates it with O_EXCL, so whatever has the name, also a dangling link, is a lock.
        match statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW).map(Stat) {
            Ok(stat) => Ok(Some(stat.modified())),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(fault("look for the lock file", &path, error)),
        }
    }

    fn locked_by(&self, name: &Name) -> Result<Option<Holder>> {
        retry_stale(|| {
            let file = self.open(name)?;
            Ok(file.and_then(|file| exclusive_lock(&file)))
        })
    }

    /// What has the name: a link has a device and an inode, too. `None` also where a directory on
    /// the way is missing or is none.
    ///
    /// Fails with `Invalid` where a directory has the name: it is no item, and in the way of one.
    fn look(&self, name: &Name) -> Result<Option<Version>> {
        retry_stale(|| {
            let Some(at) = At::find(&self.path, name)? else {
                return Ok(None);
            };
            let fail = |error: Errno| fault_at("look at", &self.place, name, error);
            match statat(at.dir(), at.path(), AtFlags::SYMLINK_NOFOLLOW).map(Stat) {
                Ok(stat) if stat.is_directory() => Err(fail(Errno::ISDIR)),
                Ok(stat) => Ok(Some(stat.version())),
                Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
                Err(error) => Err(fail(error)),
            }
        })
    }

    /// Found out once in each directory, by a hidden file that is looked for in upper case.
    fn folds_case(&self, name: &Name) -> Result<bool> {
        let (dirs, _) = name.split();
        let path = tree::shown(&self.path, dirs);
        let mut folding = unpoisoned(self.folding.lock());
        if let Some(known) = folding.get(&path) {
            return Ok(*known);
        }
        let folds = self.directory_folds_case(dirs)?;
        folding.insert(path, folds);
        Ok(folds)
    }

    /// Takes the file as it is now, which need not be as it was listed: compare the versions where
    /// that matters.
    ///
    /// Fails with `Gone` also where something that is no regular file took the name.
    fn fetch(&self, entry: &Entry, stage: &mut Stage<'_>) -> Result<Fetched> {
        retry_stale(|| self.fetch_once(&entry.name, stage))
    }

    fn room(&self, name: &Name, _size_bytes: u64) -> Result<PartFile> {
        retry_stale(|| self.make_part(name))
    }

    /// Replaces a link of that name itself, not what it points to. A file has no `attributes`.
    ///
    /// Fails with `Invalid` where a directory has the name, or a file or link stands where a
    /// directory is needed. When only the very last sync fails, the file is there already, whole;
    /// the error keeps the source from being removed.
    fn publish(
        &self,
        name: &Name,
        staged: &Staged,
        _attributes: &Attributes,
        clash: Clash,
    ) -> Result<Published> {
        self.publish_file(name, staged, clash)
    }

    fn holds(&self, name: &Name, staged: &Staged) -> Result<bool> {
        retry_stale(|| self.holds_once(name, staged))
    }

    fn remove(&self, name: &Name, version: &Version) -> Result<Removed> {
        let removed = retry_stale(|| self.remove_once(name, version))?;
        if removed == Removed::Done {
            self.sweep_source_once(name);
        }
        Ok(removed)
    }
}

/// Who holds an exclusive record lock on the file. Filesystems without locks have no holders.
fn exclusive_lock(file: &File) -> Option<Holder> {
    // A question for a read lock finds only locks that exclude readers.
    let wanted = Flock::from(FlockType::ReadLock);
    let holder = fcntl_getlk(file.as_fd(), &wanted).ok()??;
    let process = holder.pid.map(|pid| pid.as_raw_nonzero().get());
    Some(Holder(process.and_then(|process| process.try_into().ok())))
}

fn read(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
