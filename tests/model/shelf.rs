//! The places of the model as the engine sees them: a [`Store`] that keeps its contract in several
//! steps, at each of which others go on, something fails, or the process ends.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use jiff::Timestamp;

use crate::error::{Error, Kind, Result};
use crate::object::{Attributes, Entry, Name, Place, Version};
use crate::part::PartFile;
use crate::run::Stores;
use crate::stage::{Stage, Staged};
use crate::store::{Clash, Fetched, Holder, Listed, Near, Order, Published, Removed, Scope, Store};
use crate::sync;
use crate::world::{Item, State, World, bytes_of, content_of};

/// How many names a page of a listing has.
const PAGE: usize = 2;

/// What a step may fail with.
const FAILURES: &[Kind] = &[
    Kind::Transient,
    Kind::Transient,
    Kind::Timeout,
    Kind::Missing,
    Kind::Denied,
    Kind::Storage,
    Kind::Other,
    Kind::Invalid,
];

/// All places, as one run sees them.
#[derive(Clone)]
pub(crate) struct Shelves {
    pub(crate) world: Arc<World>,
    pub(crate) run: usize,
}

struct Shelf {
    all: Shelves,
    place: Place,
    /// The same as a text.
    at: String,
}

/// While it lives, its run is at an item.
struct Busy<'a>(&'a Shelves);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.world.lock().runs[self.0.run].busy -= 1;
    }
}

impl Stores for Shelves {
    fn open(&self, place: &Place, _excluded: Option<&Place>) -> Result<Box<dyn Store>> {
        Ok(Box::new(self.shelf(place)))
    }
}

impl Shelves {
    fn shelf(&self, place: &Place) -> Shelf {
        Shelf {
            all: self.clone(),
            place: place.clone(),
            at: place.to_string(),
        }
    }

    /// Lets others go on; then this run is dead, something fails, or it goes on too.
    fn step(&self, what: &str, about: &str) -> Result<()> {
        sync::others_first();
        let mut state = self.world.lock();
        let state = &mut *state;
        sync::pass_time(Duration::from_micros(state.chance.next() % 3000));
        state.crash_if_due();
        if state.runs[self.run].dead {
            return Err(Error::new(Kind::Stopped, "the process is dead"));
        }
        if state.chance.hits_in_1000(state.faults.failures) {
            let kind = state.chance.of(FAILURES);
            let run = self.run;
            state.tell(|| format!("run {run}: {what} {about} fails: {kind:?}"));
            return Err(Error::new(kind, format!("{what} {about}")).because("the model says so"));
        }
        Ok(())
    }

    /// Sometimes takes long.
    fn may_take_long(&self) {
        let hit = {
            let mut state = self.world.lock();
            let times = state.faults.delays;
            state.chance.hits_in_1000(times)
        };
        if hit {
            sync::sleep(Duration::from_secs(30));
        }
    }

    /// Sometimes a fault of the program.
    pub(crate) fn may_panic(&self) {
        let hit = {
            let mut state = self.world.lock();
            let (times, dead) = (state.faults.panics, state.runs[self.run].dead);
            !dead && state.chance.hits_in_1000(times)
        };
        assert!(!hit, "{}", crate::whim::MADE_UP);
    }
}

impl Shelf {
    fn is_s3(&self) -> bool {
        matches!(self.place, Place::S3 { .. })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.all.world.lock()
    }

    fn find(&self, name: &Name) -> Option<Item> {
        self.state().item(&self.at, &key(name)).cloned()
    }

    fn busy(&self) -> Busy<'_> {
        let mut state = self.state();
        let limit = state.config.concurrency;
        let run = self.all.run;
        state.runs[run].busy += 1;
        if state.runs[run].busy > limit {
            let busy = state.runs[run].busy;
            state.broke(format!("run {run} is at {busy} items at once"));
        }
        drop(state);
        Busy(&self.all)
    }

    fn step(&self, what: &str, name: &Name) -> Result<()> {
        self.all.step(what, &self.place.item(name))
    }

    fn entry(&self, name: &str, item: &Item) -> Entry {
        Entry {
            name: Name::new(name.as_bytes()).expect("no name is empty"),
            size_bytes: item.size_bytes(),
            modified: timestamp(item.mtime),
            version: item.version(&self.at),
        }
    }

    /// Gives one entry of a listing, if it is still there; `true` where that was enough.
    fn give(
        &self,
        name: &str,
        scope: &Scope<'_>,
        sink: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> bool {
        let item = self.state().item(&self.at, name).cloned();
        let Some(item) = item else {
            return false;
        };
        let entry = self.entry(name, &item);
        let wanted = scope.recursive || !name.contains('/');
        wanted && (scope.wanted)(&entry.name) && sink(entry).is_break()
    }

    fn make(&self, name: &Name, bytes: &[u8], clash: Clash) -> Result<Published> {
        let run = self.all.run;
        let own = key(name);
        let _busy = self.busy();
        self.step("write", name)?;
        self.all.may_panic();
        self.step("publish", name)?;
        {
            let mut state = self.state();
            if clash == Clash::Refuse && state.item(&self.at, &own).is_some() {
                return Ok(Published::Exists);
            }
            let Some(content) = content_of(bytes) else {
                state.broke(format!("run {run} published a part at {} {own}", self.at));
                return Ok(Published::Done);
            };
            state.publishes(run, &self.place, name, content);
            state.publish(run, (&self.at, &own), content, self.is_s3());
        }
        // From here on it is visible, and the answer may be lost.
        self.step("sync", name)?;
        self.state().sync(&self.at, &own);
        self.step("answer for", name)?;
        self.state().delivered(run, &self.place, name, bytes);
        Ok(Published::Done)
    }

    fn is(&self, name: &Name, bytes: &[u8]) -> Result<bool> {
        let run = self.all.run;
        let _busy = self.busy();
        self.step("compare", name)?;
        let same = self
            .find(name)
            .is_some_and(|item| bytes_of(item.content) == bytes);
        if same {
            self.state().sync(&self.at, &key(name));
            self.state().delivered(run, &self.place, name, bytes);
        }
        Ok(same)
    }

    /// The second half of a file is what it is by the time it is read.
    fn second_half(&self, name: &Name, first: &Item) -> Vec<u8> {
        let now = self.find(name);
        let same = now.filter(|now| !self.is_s3() && now.mark == first.mark);
        let bytes = bytes_of(same.as_ref().unwrap_or(first).content);
        bytes[bytes.len() / 2..].to_vec()
    }
}

/// An item that the server of both ends copies, part by part.
struct NearItem<'a> {
    dest: &'a Shelf,
    source: Shelf,
    name: Name,
    version: Version,
    bytes: Vec<u8>,
}

impl Near for NearItem<'_> {
    fn version(&self) -> &Version {
        &self.version
    }

    fn size_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn publish(&self, name: &Name, clash: Clash) -> Result<Published> {
        for _ in 0..2 {
            self.dest.step("copy a part to", name)?;
            let now = self.source.find(&self.name);
            let now = now.map(|now| now.version(&self.source.at));
            let kind = match now {
                None => Kind::Gone,
                Some(now) if now != self.version => Kind::Changed,
                Some(_) => continue,
            };
            return Err(Error::new(kind, "it was there before a part was copied"));
        }
        self.dest.make(name, &self.bytes, clash)
    }

    fn is_at(&self, name: &Name) -> Result<bool> {
        self.dest.is(name, &self.bytes)
    }
}

fn key(name: &Name) -> String {
    name.lossy().into_owned()
}

/// The model's clock begins in 1970, and some time after that.
pub(crate) fn timestamp(now: Duration) -> Timestamp {
    Timestamp::UNIX_EPOCH + now
}

impl Store for Shelf {
    fn place(&self) -> &Place {
        &self.place
    }

    fn order(&self) -> Order {
        if self.is_s3() {
            Order::ByName
        } else {
            Order::ByAge
        }
    }

    fn must_exist(&self) -> Result<()> {
        self.all.step("find", &self.at)
    }

    fn list(
        &self,
        scope: &Scope<'_>,
        sink: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<Listed> {
        self.list_after(None, scope, sink)
    }

    fn list_after(
        &self,
        after: Option<&Name>,
        scope: &Scope<'_>,
        sink: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<Listed> {
        self.state().runs[self.all.run].lists(&self.at);
        let mut after = after.map(key).unwrap_or_default();
        loop {
            self.all.may_take_long();
            self.all.step("list", &self.at)?;
            let names = self.state().names(&self.at);
            let start = names.partition_point(|name| *name <= after);
            let (page, left) = names[start..].split_at(PAGE.min(names.len() - start));
            for name in page {
                if self.give(name, scope, sink) {
                    let last = names.last() == Some(name);
                    return Ok(if last {
                        Listed::Complete
                    } else {
                        Listed::Stopped
                    });
                }
            }
            match page.last() {
                Some(last) if !left.is_empty() => after.clone_from(last),
                _ => return Ok(Listed::Complete),
            }
        }
    }

    fn lock_file(&self, _lock_name: &str) -> Result<Option<Timestamp>> {
        self.all.step("look for a lock file in", &self.at)?;
        Ok(self.state().locks.get(&self.at).copied().map(timestamp))
    }

    fn directory_id(&self) -> Result<Option<(u64, u64)>> {
        let mix = |number: u64, byte| number.wrapping_mul(31) + u64::from(byte);
        let number = self.at.bytes().fold(0, mix);
        Ok((!self.is_s3()).then_some((1, number)))
    }

    fn look(&self, name: &Name) -> Result<Option<Version>> {
        self.step("look at", name)?;
        Ok(self.find(name).map(|item| item.version(&self.at)))
    }

    fn fetch(&self, entry: &Entry, stage: &mut Stage<'_>) -> Result<Fetched> {
        let name = &entry.name;
        let run = self.all.run;
        let _busy = self.busy();
        self.state().starts(run, &self.place, entry, self.order());
        self.all.may_take_long();
        self.step("fetch", name)?;
        self.all.may_panic();
        if !self.is_s3() {
            let mut state = self.state();
            let times = state.faults.locks;
            if state.chance.hits_in_1000(times) {
                return Err(Error::new(Kind::Locked, "locked, the model says"));
            }
        }
        let gone = || Error::new(Kind::Gone, format!("fetch {}", self.place.item(name)));
        let item = self.find(name).ok_or_else(gone)?;
        let bytes = bytes_of(item.content);
        stage.begin(bytes.len() as u64, None)?;
        stage.write(&bytes[..bytes.len() / 2])?;
        self.step("read on in", name)?;
        stage.write(&self.second_half(name, &item))?;
        let version = item.version(&self.at);
        let now = self.find(name);
        if !self.is_s3() && now.ok_or_else(gone)?.version(&self.at) != version {
            return Err(Error::new(Kind::Changed, "changed while it was staged"));
        }
        let staged = stage.finish()?.0;
        self.state().fetched(run, &self.place, name, item.content);
        Ok(Fetched {
            staged,
            version,
            attributes: Attributes::default(),
        })
    }

    fn room(&self, _name: &Name, _size_bytes: u64) -> Result<PartFile> {
        unreachable!("all items fit memory")
    }

    fn near<'a>(
        &'a self,
        source: &Place,
        entry: &Entry,
        _meter: &'a AtomicU64,
    ) -> Result<Option<Box<dyn Near + 'a>>> {
        let one_server = self.is_s3() && matches!(source, Place::S3 { .. });
        if !one_server || self.state().chance.hits_in_1000(500) {
            return Ok(None);
        }
        let source = self.all.shelf(source);
        let run = self.all.run;
        let _busy = self.busy();
        self.state()
            .starts(run, &source.place, entry, Order::ByName);
        source.step("look closely at", &entry.name)?;
        let item = source.find(&entry.name);
        let item = item.ok_or_else(|| Error::new(Kind::Gone, "gone before it was copied"))?;
        self.state()
            .fetched(run, &source.place, &entry.name, item.content);
        Ok(Some(Box::new(NearItem {
            dest: self,
            version: item.version(&source.at),
            bytes: bytes_of(item.content),
            name: entry.name.clone(),
            source,
        })))
    }

    fn publish(
        &self,
        name: &Name,
        staged: &Staged,
        _attributes: &Attributes,
        clash: Clash,
    ) -> Result<Published> {
        let bytes = staged.in_memory().expect("it is small");
        self.make(name, bytes, clash)
    }

    fn holds(&self, name: &Name, staged: &Staged) -> Result<bool> {
        self.is(name, staged.in_memory().expect("it is small"))
    }

    fn remove(&self, name: &Name, version: &Version) -> Result<Removed> {
        let run = self.all.run;
        let own = key(name);
        let _busy = self.busy();
        self.step("remove", name)?;
        self.all.may_panic();
        let removed = {
            let mut state = self.state();
            let state = &mut *state;
            let now = state.item(&self.at, &own);
            let now = now.map(|item| item.version(&self.at));
            let locked = !self.is_s3() && state.chance.hits_in_1000(state.faults.locks);
            match now {
                None => Removed::Gone,
                Some(_) if locked => Removed::Locked(Holder(Some(7))),
                Some(now) if now != *version => Removed::Changed,
                Some(_) => {
                    state.remove(run, &self.at, &own);
                    Removed::Done
                }
            }
        };
        // An answer that was lost: the next attempt finds it gone.
        self.step("answer for", name)?;
        let item = self.place.item(name);
        self.state().runs[run].answers.insert(item, removed.clone());
        Ok(removed)
    }
}
