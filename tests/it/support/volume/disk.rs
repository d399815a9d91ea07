//! What a volume holds, twice: as processes see it, and as it would be found after a power cut.
//!
//! A file's data become durable by a sync of the file, a directory's entries by a sync of the
//! directory, and nothing else makes anything durable. Knows nothing of mounts and requests.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path};
use std::time::SystemTime;

use rustix::io::Errno;

use crate::support::data::noise;
use crate::support::tree::{Bytes, Tree};

/// The inode of the volume's own directory.
pub(super) const ROOT: u64 = 1;

/// What a power cut leaves of that which was not synced. POSIX permits all three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Nothing: new names are gone, renamed ones are back, removed ones too.
    Strict,
    /// All names and no data: a new file is empty, whatever was written to it.
    NamesOnly,
    /// Some changes of names and not others, and any of what a file's data were; a seed says which.
    Some(u64),
}

type Names = BTreeMap<OsString, u64>;

/// Names of one directory that change together, and what each then stands for.
type Change = Vec<(OsString, Option<u64>)>;

/// A file or a directory.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) modified: SystemTime,
    /// How many names it has.
    pub(super) links: u32,
}

#[derive(Clone)]
pub(super) enum Kind {
    File {
        data: Vec<u8>,
        durable: Vec<u8>,
    },
    Directory {
        names: Names,
        durable: Names,
        /// What was done since the last sync, in order.
        unsynced: Vec<Change>,
    },
}

/// All that is on a volume. Nodes without a name are kept: somebody may have them open.
#[derive(Clone)]
pub(crate) struct Disk {
    nodes: BTreeMap<u64, Node>,
    /// The highest inode so far; none is used a second time.
    last: u64,
    /// Names that differ only by upper and lower case are one, as on SMB.
    folds_case: bool,
}

pub(super) type Result<T> = std::result::Result<T, Errno>;

impl Disk {
    pub(crate) fn new() -> Self {
        let mut root = Node::directory(0o777);
        root.links = 1;
        Self {
            nodes: BTreeMap::from([(ROOT, root)]),
            last: ROOT,
            folds_case: false,
        }
    }

    /// One that does not tell upper from lower case, and keeps names as they were first written.
    pub(crate) fn folding_case() -> Self {
        Self {
            folds_case: true,
            ..Self::new()
        }
    }

    /// Writes a file, durable, with the directories on the way.
    pub(crate) fn put(&mut self, path: &Path, data: &[u8]) {
        let parent = self.make_directories(path.parent().expect("a file has a parent"));
        let name = path.file_name().expect("a file has a name");
        let ino = self.create(parent, name, 0o666).expect("a free name");
        self.write(ino, 0, data).expect("it is a file");
        self.sync(ino);
        self.sync(parent);
    }

    /// Puts files below a directory, which is made in any case.
    pub(crate) fn fill(&mut self, directory: &str, files: &Tree) {
        self.make_directories(Path::new(directory));
        for (name, data) in &files.0 {
            self.put(&Path::new(directory).join(name), &data.0);
        }
    }

    /// Makes directories, durable, as far as they are not there; gives the last.
    pub(crate) fn make_directories(&mut self, path: &Path) -> u64 {
        let mut parent = ROOT;
        for part in parts(path) {
            parent = self.lookup(parent, part).unwrap_or_else(|_| {
                let made = self.make_directory(parent, part, 0o777);
                self.sync(parent);
                made.expect("a free name")
            });
        }
        parent
    }

    /// Puts a new file in the place of one, as another host would: handles of the old are stale.
    pub(crate) fn replace(&mut self, path: &str, data: &[u8]) {
        let path = Path::new(path);
        if let Ok(ino) = self.find(path) {
            self.remove_all(path);
            self.nodes.remove(&ino);
        }
        self.put(path, data);
    }

    /// Appends to a file, as another host would.
    pub(crate) fn append(&mut self, path: &str, more: &[u8]) {
        let Ok(ino) = self.find(path.as_ref()) else {
            return;
        };
        let end = self.data(ino).expect("it is a file").len();
        self.write(ino, end, more).expect("it is a file");
    }

    /// Writes over the beginning of a file, as another host would.
    pub(crate) fn overwrite(&mut self, path: &str, data: &[u8]) {
        let Ok(ino) = self.find(path.as_ref()) else {
            return;
        };
        self.write(ino, 0, data).expect("it is a file");
    }

    /// Removes a directory with all that is in it, and gives what that was; as another host would.
    pub(crate) fn remove_all(&mut self, path: &Path) -> Tree {
        let taken = self.tree(path);
        let parent = self.find(path.parent().expect("not the root"));
        if let (Ok(parent), Some(name)) = (parent, path.file_name()) {
            self.clear(parent, name);
        }
        taken
    }

    /// All files below a directory, and directories as names that end in `/`; none where it is not
    /// there.
    pub(crate) fn picture(&self, path: impl AsRef<Path>) -> Tree {
        let mut found = Tree::default();
        if let Ok(ino) = self.find(path.as_ref()) {
            self.collect(ino, "", &mut found);
        }
        found
    }

    /// All files below a directory; none where it is not there.
    pub(crate) fn tree(&self, path: impl AsRef<Path>) -> Tree {
        let mut found = self.picture(path);
        found.0.retain(|name, _| !name.ends_with('/'));
        found
    }

    /// What is found when the power is back.
    pub(crate) fn after(&self, cut: Cut) -> Self {
        let mut dice = Dice::new(cut);
        let all = self.nodes.iter();
        let nodes = all.map(|(ino, node)| (*ino, node.after(cut, &mut dice)));
        let mut disk = Self {
            nodes: nodes.collect(),
            last: self.last,
            folds_case: self.folds_case,
        };
        disk.count_links();
        disk
    }

    pub(super) fn node(&self, ino: u64) -> Result<&Node> {
        self.nodes.get(&ino).ok_or(Errno::STALE)
    }

    pub(super) fn node_mut(&mut self, ino: u64) -> Result<&mut Node> {
        self.nodes.get_mut(&ino).ok_or(Errno::STALE)
    }

    pub(super) fn lookup(&self, parent: u64, name: &OsStr) -> Result<u64> {
        let names = self.names(parent)?;
        let found = names.get(&self.as_written(names, name));
        found.copied().ok_or(Errno::NOENT)
    }

    /// The name as it stands in the directory, if it does.
    fn as_written(&self, names: &Names, name: &OsStr) -> OsString {
        let lower = name.to_string_lossy().to_lowercase();
        let same = |there: &&OsString| there.to_string_lossy().to_lowercase() == lower;
        let there = names.keys().find(same).filter(|_| self.folds_case);
        there.cloned().unwrap_or_else(|| name.to_owned())
    }

    pub(super) fn names(&self, ino: u64) -> Result<&Names> {
        match &self.node(ino)?.kind {
            Kind::Directory { names, .. } => Ok(names),
            Kind::File { .. } => Err(Errno::NOTDIR),
        }
    }

    pub(super) fn data(&self, ino: u64) -> Result<&Vec<u8>> {
        match &self.node(ino)?.kind {
            Kind::File { data, .. } => Ok(data),
            Kind::Directory { .. } => Err(Errno::ISDIR),
        }
    }

    pub(super) fn create(&mut self, parent: u64, name: &OsStr, mode: u32) -> Result<u64> {
        self.add(parent, name, Node::file(mode))
    }

    pub(super) fn make_directory(&mut self, parent: u64, name: &OsStr, mode: u32) -> Result<u64> {
        self.add(parent, name, Node::directory(mode))
    }

    pub(super) fn write(&mut self, ino: u64, offset: usize, bytes: &[u8]) -> Result<()> {
        let end = offset + bytes.len();
        let data = self.data_mut(ino)?;
        data.resize(data.len().max(end), 0);
        data[offset..end].copy_from_slice(bytes);
        Ok(())
    }

    pub(super) fn truncate(&mut self, ino: u64, size: usize) -> Result<()> {
        self.data_mut(ino)?.resize(size, 0);
        Ok(())
    }

    pub(super) fn link(&mut self, ino: u64, parent: u64, name: &OsStr) -> Result<()> {
        if self.lookup(parent, name).is_ok() {
            return Err(Errno::EXIST);
        }
        self.change(parent, vec![(name.to_owned(), Some(ino))])
    }

    pub(super) fn unlink(&mut self, parent: u64, name: &OsStr) -> Result<()> {
        let ino = self.lookup(parent, name)?;
        self.data(ino)?;
        self.change(parent, vec![(name.to_owned(), None)])
    }

    pub(super) fn remove_directory(&mut self, parent: u64, name: &OsStr) -> Result<()> {
        let ino = self.lookup(parent, name)?;
        if !self.names(ino)?.is_empty() {
            return Err(Errno::NOTEMPTY);
        }
        self.change(parent, vec![(name.to_owned(), None)])
    }

    /// Replaces a file that has the new name.
    pub(super) fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) -> Result<()> {
        let ino = self.lookup(from.0, from.1)?;
        if let Ok(there) = self.lookup(to.0, to.1) {
            self.data(there)?;
            if there == ino {
                return Ok(());
            }
        }
        let gone = (from.1.to_owned(), None);
        let new = (to.1.to_owned(), Some(ino));
        if from.0 == to.0 {
            return self.change(from.0, vec![gone, new]);
        }
        self.change(to.0, vec![new])?;
        self.change(from.0, vec![gone])
    }

    /// Makes a file's data or a directory's names durable.
    pub(super) fn sync(&mut self, ino: u64) {
        match self.nodes.get_mut(&ino).map(|node| &mut node.kind) {
            Some(Kind::File { data, durable }) => durable.clone_from(data),
            Some(Kind::Directory {
                names,
                durable,
                unsynced,
            }) => {
                durable.clone_from(names);
                unsynced.clear();
            }
            None => {}
        }
    }

    /// A path of a file or directory, for people; empty for the volume itself.
    pub(super) fn path_of(&self, ino: u64) -> String {
        if ino == ROOT {
            return String::new();
        }
        for (parent, node) in &self.nodes {
            let Kind::Directory { names, .. } = &node.kind else {
                continue;
            };
            if let Some((name, _)) = names.iter().find(|(_, child)| **child == ino) {
                return format!("{}/{}", self.path_of(*parent), name.to_string_lossy());
            }
        }
        "(no name)".into()
    }

    fn find(&self, path: &Path) -> Result<u64> {
        parts(path).try_fold(ROOT, |parent, part| self.lookup(parent, part))
    }

    fn clear(&mut self, parent: u64, name: &OsStr) {
        let Ok(ino) = self.lookup(parent, name) else {
            return;
        };
        let below = self.names(ino).map(|names| names.keys().cloned().collect());
        for name in below.unwrap_or_else(|_| Vec::new()) {
            self.clear(ino, &name);
        }
        let _ = self.change(parent, vec![(name.to_owned(), None)]);
    }

    fn collect(&self, ino: u64, prefix: &str, found: &mut Tree) {
        let Ok(names) = self.names(ino) else { return };
        for (name, ino) in names {
            let path = format!("{prefix}{}", name.to_string_lossy());
            if let Ok(data) = self.data(*ino) {
                found.0.insert(path, Bytes(data.clone()));
            } else {
                let path = path + "/";
                self.collect(*ino, &path, found);
                found.0.insert(path, Bytes(Vec::new()));
            }
        }
    }

    fn add(&mut self, parent: u64, name: &OsStr, node: Node) -> Result<u64> {
        if self.lookup(parent, name) != Err(Errno::NOENT) {
            return Err(Errno::EXIST);
        }
        self.last += 1;
        self.nodes.insert(self.last, node);
        self.change(parent, vec![(name.to_owned(), Some(self.last))])?;
        Ok(self.last)
    }

    fn data_mut(&mut self, ino: u64) -> Result<&mut Vec<u8>> {
        let node = self.node_mut(ino)?;
        node.modified = SystemTime::now();
        match &mut node.kind {
            Kind::File { data, .. } => Ok(data),
            Kind::Directory { .. } => Err(Errno::ISDIR),
        }
    }

    fn change(&mut self, parent: u64, mut change: Change) -> Result<()> {
        if let Ok(names) = self.names(parent) {
            for (name, _) in &mut change {
                *name = self.as_written(names, name);
            }
        }
        let node = self.node_mut(parent)?;
        if node.links == 0 {
            // It was removed, and somebody has it open.
            return Err(Errno::NOENT);
        }
        node.modified = SystemTime::now();
        let Kind::Directory {
            names, unsynced, ..
        } = &mut node.kind
        else {
            return Err(Errno::NOTDIR);
        };
        apply(names, &change);
        unsynced.push(change);
        self.count_links();
        Ok(())
    }

    /// Volumes of tests are small.
    fn count_links(&mut self) {
        let mut counts = BTreeMap::from([(ROOT, 1)]);
        for node in self.nodes.values() {
            if let Kind::Directory { names, .. } = &node.kind {
                for ino in names.values() {
                    *counts.entry(*ino).or_default() += 1;
                }
            }
        }
        for (ino, node) in &mut self.nodes {
            node.links = counts.get(ino).copied().unwrap_or(0);
        }
    }
}

impl Node {
    fn new(kind: Kind, mode: u32) -> Self {
        Self {
            kind,
            mode,
            modified: SystemTime::now(),
            links: 0,
        }
    }

    fn file(mode: u32) -> Self {
        let (data, durable) = Default::default();
        Self::new(Kind::File { data, durable }, mode)
    }

    fn directory(mode: u32) -> Self {
        let (names, durable, unsynced) = Default::default();
        let kind = Kind::Directory {
            names,
            durable,
            unsynced,
        };
        Self::new(kind, mode)
    }

    fn after(&self, cut: Cut, dice: &mut Dice) -> Self {
        let kind = match &self.kind {
            Kind::File { data, durable } => {
                let data = match cut {
                    Cut::Strict | Cut::NamesOnly => durable.clone(),
                    Cut::Some(_) => dice.pick_data(data, durable),
                };
                let durable = data.clone();
                Kind::File { data, durable }
            }
            Kind::Directory {
                names,
                durable,
                unsynced,
            } => {
                let names = match cut {
                    Cut::Strict => durable.clone(),
                    Cut::NamesOnly => names.clone(),
                    Cut::Some(_) => dice.pick_names(durable, unsynced),
                };
                let durable = names.clone();
                let unsynced = Vec::new();
                Kind::Directory {
                    names,
                    durable,
                    unsynced,
                }
            }
        };
        Self {
            kind,
            ..self.clone()
        }
    }
}

/// A stream of choices, the same for the same seed.
struct Dice(std::iter::Cycle<std::vec::IntoIter<u8>>);

impl Dice {
    fn new(cut: Cut) -> Self {
        let seed = if let Cut::Some(seed) = cut { seed } else { 0 };
        // The first bytes of neighbouring seeds are alike.
        let bytes = noise(4096, seed).split_off(64);
        Self(bytes.into_iter().cycle())
    }

    fn throw(&mut self, sides: u8) -> u8 {
        self.0.next().expect("a cycle never ends") % sides
    }

    /// What was synced, what was written, or half of it: cut off, or zeros to its full length.
    fn pick_data(&mut self, data: &[u8], durable: &[u8]) -> Vec<u8> {
        if data == durable {
            return data.to_vec();
        }
        let half = &data[..data.len() / 2];
        match self.throw(4) {
            0 => durable.to_vec(),
            1 => data.to_vec(),
            2 => half.to_vec(),
            _ => [half, &vec![0; data.len() - half.len()]].concat(),
        }
    }

    fn pick_names(&mut self, durable: &Names, unsynced: &[Change]) -> Names {
        let mut names = durable.clone();
        for change in unsynced {
            if self.throw(2) == 0 {
                apply(&mut names, change);
            }
        }
        names
    }
}

fn apply(names: &mut Names, change: &Change) {
    for (name, ino) in change {
        match ino {
            Some(ino) => drop(names.insert(name.clone(), *ino)),
            None => drop(names.remove(name)),
        }
    }
}

fn parts(path: &Path) -> impl Iterator<Item = &OsStr> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name),
        _ => None,
    })
}
