//! What lies below a directory or a prefix, as a value that two points in time can be compared by.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::{self, Write as _};
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Contents whose `Debug` is short: a failed comparison of 33 MiB must stay readable.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = String::from_utf8_lossy(&self.0[..self.0.len().min(40)]);
        write!(f, "{} bytes {shown:?}", self.0.len())?;
        if self.0.len() > 40 {
            let mut hasher = DefaultHasher::new();
            self.0.hash(&mut hasher);
            write!(f, "… #{:016x}", hasher.finish())?;
        }
        Ok(())
    }
}

/// Names, relative and with `/`, and contents. Names that are not UTF-8 are written with `\xNN`.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Tree(pub(crate) BTreeMap<String, Bytes>);

impl Tree {
    /// All names in the order of their bytes.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The contents of one name; panics where it is not there.
    pub(crate) fn get(&self, name: &str) -> &[u8] {
        let found = self.0.get(name);
        &found.unwrap_or_else(|| panic!("no {name:?} in {self:?}")).0
    }

    /// The same with each name changed.
    pub(crate) fn renamed(&self, rename: impl Fn(&str) -> String) -> Self {
        let all = self.0.iter();
        Self(all.map(|(n, b)| (rename(n), b.clone())).collect())
    }

    /// What others see: without the program's own temporaries.
    pub(crate) fn visible(mut self) -> Self {
        let hidden = |name: &str| name.split('/').any(|part| part.starts_with(".bots-mover-"));
        self.0.retain(|name, _| !hidden(name));
        self
    }

    /// Without what is just so in `other`.
    pub(crate) fn without(mut self, other: &Self) -> Self {
        self.0
            .retain(|name, bytes| other.0.get(name) != Some(bytes));
        self
    }

    /// Both together; a name that is in both must have the same contents.
    pub(crate) fn union(mut self, other: Self) -> Self {
        for (name, bytes) in other.0 {
            if let Some(ours) = self.0.get(&name) {
                assert_eq!(*ours, bytes, "{name} differs");
            }
            self.0.insert(name, bytes);
        }
        self
    }
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.0).finish()
    }
}

impl<N: Into<String>, B: AsRef<[u8]>> FromIterator<(N, B)> for Tree {
    fn from_iter<I: IntoIterator<Item = (N, B)>>(items: I) -> Self {
        let items = items.into_iter();
        Self(
            items
                .map(|(name, bytes)| (name.into(), Bytes(bytes.as_ref().to_vec())))
                .collect(),
        )
    }
}

/// A tree from names and texts.
pub(crate) fn tree<B: AsRef<[u8]>>(items: &[(&str, B)]) -> Tree {
    items
        .iter()
        .map(|(name, bytes)| (*name, bytes.as_ref()))
        .collect()
}

/// All regular files below `root`, hidden ones too; empty where there is no such directory.
pub(crate) fn files_below(root: &Path) -> Tree {
    let mut tree = Tree::default();
    walk(root, &mut |path| {
        if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file()) {
            let relative = path.strip_prefix(root).expect("walk stays below its root");
            // Somebody may remove it between the listing and this line; then it is not there.
            if let Ok(bytes) = fs::read(path) {
                tree.0.insert(show(relative.as_os_str()), Bytes(bytes));
            }
        }
    });
    tree
}

/// All there is below `root` with kind and length, for the report of a failed test.
pub(crate) fn listing(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    walk(root, &mut |path| {
        let name = show(path.strip_prefix(root).unwrap_or(path).as_os_str());
        match fs::symlink_metadata(path) {
            Ok(meta) if meta.is_dir() => lines.push(format!("{name}/")),
            Ok(meta) if meta.is_file() => lines.push(format!("{name}  {} bytes", meta.len())),
            Ok(_) => lines.push(format!("{name}  (no regular file)")),
            Err(error) => lines.push(format!("{name}  ({error})")),
        }
    });
    lines
}

fn walk(directory: &Path, visit: &mut dyn FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        visit(&path);
        if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) {
            walk(&path, visit);
        }
    }
}

fn show(name: &OsStr) -> String {
    let mut shown = String::new();
    for chunk in name.as_bytes().utf8_chunks() {
        shown.push_str(chunk.valid());
        for byte in chunk.invalid() {
            write!(shown, "\\x{byte:02x}").expect("writing to a string cannot fail");
        }
    }
    shown
}
