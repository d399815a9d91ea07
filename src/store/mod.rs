//! The contract between the engine and the places that files are in.
//!
//! A [`Store`] is one end of one rule: a directory or a bucket prefix. It knows nothing of rules,
//! retries (but the two quick tries of a request, see `store/s3`), or the log. Each call tries
//! once.
//! The engine calls it from many threads at once.

pub mod local;
mod probe;
pub mod s3;

use std::ops::ControlFlow;
use std::sync::atomic::AtomicU64;

use jiff::Timestamp;

pub(crate) use self::probe::{Finding, OnFinding, Right};
use crate::error::{Error, Result};
use crate::object::{Attributes, Entry, Name, Place, Version};
use crate::part::PartFile;
pub use crate::part::{Clash, is_temporary};
use crate::stage::{Stage, Staged};

/// In which order [`Store::list`] gives its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By the bytes of the name. The caller can stop as soon as it has enough entries.
    ByName,
    /// In no order. The caller must look at all entries and takes the oldest first.
    ByAge,
}

/// What a listing looks for.
pub struct Scope<'a> {
    /// Also in directories below. Keys: also those with a `/` in the name.
    pub recursive: bool,
    /// Called with a name before the entry itself is looked at, so that names that no rule wants
    /// cost no system call. May be called more than once, and with names that the receiver of the
    /// entries never hears of.
    pub wanted: &'a (dyn Fn(&Name) -> bool + 'a),
    /// Called for each directory that lies in the scope but is left out of the listing.
    pub aside: &'a (dyn Fn(Aside) + 'a),
}

/// A directory below the source that a listing takes for an empty one.
#[derive(Debug)]
pub struct Aside {
    /// For people.
    pub path: String,
    /// Why it cannot be read; `None` where it is the filesystem's own `lost+found`.
    pub error: Option<Error>,
}

/// The note on an [`Aside`] that is no failure.
pub(crate) const LOST_AND_FOUND_NOTE: &str = "it is the filesystem's own, and nothing for a rule";

/// How a listing ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    /// Everything was seen, or the receiver stopped it at the very last candidate.
    Complete,
    /// The receiver stopped it and there may be more.
    Stopped,
    /// The source directory is not there: nothing to do, worth a warning.
    NoDirectory,
}

/// How [`Store::publish`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// The destination is whole and durable.
    Done,
    /// The destination existed and [`Clash::Refuse`] was asked; nothing was changed.
    Exists,
}

/// How [`Store::remove`] ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// The source is gone, by us.
    Done,
    /// It was gone already.
    Gone,
    /// It is not what was staged, and stays.
    Changed,
    /// Somebody has it locked, and it stays.
    Locked(Holder),
}

/// Who holds an exclusive record lock: the number of the process. `None` where the system does not
/// tell it: a process of another host, or a lock that belongs to an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder(pub Option<u32>);

/// What a fetch brought.
pub struct Fetched {
    /// The whole, verified copy.
    pub staged: Staged,
    /// The state that was staged; what [`Store::remove`] compares with.
    pub version: Version,
    /// What a copy from s3 to s3 keeps.
    pub attributes: Attributes,
}

/// Stages an item.
pub type Fill<'a> = &'a mut dyn FnMut(&mut Stage<'_>) -> Result<Fetched>;

/// An item whose parts were sent while it was being staged. Dropped before it is published, nothing
/// of them is left.
pub trait EarlySend {
    /// Like [`Store::publish`], of what was staged, without attributes.
    fn publish(&self, name: &Name, staged: &Staged, clash: Clash) -> Result<Published>;
}

/// The parts that were sent early, where some were; or why they could not be sent.
pub type Early<'a> = Result<Option<Box<dyn EarlySend + 'a>>>;

/// An item that the server of its destination can copy by itself, in the state that it was seen in.
/// An error of the kinds `Other` and `Denied` means that it does not, or that nothing shows what it
/// did: then the item is staged.
pub trait Near {
    /// What [`Store::remove`] compares with.
    fn version(&self) -> &Version;

    /// Its length.
    fn size_bytes(&self) -> u64;

    /// Like [`Store::publish`]. Fails with `Gone` where the item is not there, with `Changed` where
    /// it is another one.
    fn publish(&self, name: &Name, clash: Clash) -> Result<Published>;

    /// Like [`Store::holds`].
    fn is_at(&self, name: &Name) -> Result<bool>;
}

/// One end of a rule.
pub trait Store: Send + Sync {
    /// Where it is.
    fn place(&self) -> &Place;

    /// The order that [`Store::list`] keeps.
    fn order(&self) -> Order;

    /// Fails with [`Kind::Missing`](crate::error::Kind::Missing) when the bucket or the
    /// `base_file_path` is not there. Must not create anything.
    fn must_exist(&self) -> Result<()>;

    /// Gives each candidate to `sink`, until that breaks.
    ///
    /// Must leave out what SPEC section 4 says is never a candidate. An error means that nothing
    /// of this listing may be acted on. A directory below that may not be read is no error: what is
    /// in it is left out, and `Scope::aside` is called.
    fn list(
        &self,
        scope: &Scope<'_>,
        sink: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<Listed>;

    /// [`list`](Self::list) where nothing up to and with the name `after` is wanted: a place that
    /// lists by name may begin behind it.
    fn list_after(
        &self,
        _after: Option<&Name>,
        scope: &Scope<'_>,
        sink: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<Listed> {
        self.list(scope, sink)
    }

    /// What another process that is at work in the source says by a lock file: its modification
    /// time, `None` where there is no such file.
    fn lock_file(&self, _lock_name: &str) -> Result<Option<Timestamp>> {
        Ok(None)
    }

    /// What tells the source directory from any other, where there is a directory: two paths may
    /// lead to one.
    fn directory_id(&self) -> Result<Option<(u64, u64)>> {
        Ok(None)
    }

    /// Who holds an exclusive record lock on the item. Must not take a lock itself.
    fn locked_by(&self, _name: &Name) -> Result<Option<Holder>> {
        Ok(None)
    }

    /// The item's state now, `None` where it is not there. Does not follow links. Fails with
    /// `Invalid` where something has the name that no item can be beside.
    fn look(&self, name: &Name) -> Result<Option<Version>>;

    /// Whether names that differ only by upper and lower case are one where this item would go.
    fn folds_case(&self, _name: &Name) -> Result<bool> {
        Ok(false)
    }

    /// Copies the whole item into `stage` and verifies it there.
    ///
    /// Fails with `Gone` where it is not there, with `Changed` where it changed meanwhile, with
    /// `Locked` where another process holds an exclusive record lock on it. A body that
    /// ends early is a failure, never a short item. May begin the stage anew for a quick try.
    fn fetch(&self, entry: &Entry, stage: &mut Stage<'_>) -> Result<Fetched>;

    /// Room for an item of so many bytes that is to be published under `name` and does not fit
    /// memory.
    fn room(&self, name: &Name, size_bytes: u64) -> Result<PartFile>;

    /// Has `fill` stage an item of about so many bytes that has no attributes and is to be
    /// published under `name`, and may send parts of it meanwhile.
    fn stage_by<'a>(
        &'a self,
        _name: &Name,
        _size_and_clash: (u64, Clash),
        stage: &mut Stage<'_>,
        fill: Fill<'_>,
    ) -> Result<(Fetched, Early<'a>)> {
        Ok((fill(stage)?, Ok(None)))
    }

    /// Adds to what was fetched what only a copy into a bucket needs and the fetch did not bring.
    ///
    /// Fails where something of it cannot be kept, with `Gone` where the item is not there.
    fn describe(&self, _name: &Name, _fetched: &mut Fetched) -> Result<()> {
        Ok(())
    }

    /// The item of `source`, where the server here can copy it and that is worth it; `meter` then
    /// counts each byte twice, as if it were staged and published.
    ///
    /// Fails where something of it cannot be kept, with `Gone` where it is not there.
    fn near<'a>(
        &'a self,
        _source: &Place,
        _entry: &Entry,
        _meter: &'a AtomicU64,
    ) -> Result<Option<Box<dyn Near + 'a>>> {
        Ok(None)
    }

    /// Makes the staged item visible under `name`, whole or not at all, and durable.
    ///
    /// When it fails, the destination is as before and no temporary is left. Objects take
    /// `attributes` on, files have none.
    fn publish(
        &self,
        name: &Name,
        staged: &Staged,
        attributes: &Attributes,
        clash: Clash,
    ) -> Result<Published>;

    /// Whether `name` exists, holds byte for byte what is staged, and is as durable as what
    /// [`Store::publish`] leaves: a run that died before its last sync may have written it.
    fn holds(&self, name: &Name, staged: &Staged) -> Result<bool>;

    /// Removes the item if it still is what was staged, looked up right before.
    fn remove(&self, name: &Name, version: &Version) -> Result<Removed>;
}

/// The note on a source that is being written.
pub(crate) fn locked_note(Holder(process): Holder) -> String {
    match process {
        None => "another process has it locked: it is being written".into(),
        Some(process) => format!("process {process} has it locked: it is being written"),
    }
}
