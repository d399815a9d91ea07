//! A directory as a store, through the library: what SPEC sections 4 and 5 say of files.
//!
//! Some claims need another process: a test then runs itself again in a child, under `strace` or
//! in a mount namespace of its own.

mod dest;
mod listing;
mod source;

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use bots_mover::context::Context;
use bots_mover::error::{Error, Kind, Result};
use bots_mover::object::{Attributes, Base, Entry, Name, Place, Version};
use bots_mover::stage::{Stage, Staged};
use bots_mover::store::local::LocalStore;
use bots_mover::store::{Clash, Listed, Published, Scope, Store as _};
use jiff::Timestamp;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, mknodat, utimensat,
};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};
use tempfile::TempDir;

/// Set in a child that runs one test again; names the directory it works in.
const CHILD: &str = "BOTS_MOVER_TEST_CHILD";

/// A base directory, in it the store's own, and a directory to stage in.
struct Sandbox {
    root: TempDir,
    context: Arc<Context>,
}

impl Sandbox {
    fn new() -> Self {
        Self::below(tempfile::tempdir().unwrap())
    }

    /// For tests that sync a thousand times: in tmpfs, where there is one.
    fn in_memory() -> Self {
        Self::below(memory_dir())
    }

    fn below(root: TempDir) -> Self {
        for part in ["base", "base/in", "tmp"] {
            fs::create_dir(root.path().join(part)).unwrap();
        }
        let context = Context::new(Timestamp::now, root.path().join("tmp"));
        let context = Arc::new(context);
        Self { root, context }
    }

    /// What `path` below the base is.
    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join("base").join(path)
    }

    fn file(&self, path: &str, contents: &[u8]) -> PathBuf {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, contents).unwrap();
        path
    }

    /// The store of a directory below the base, with the base known.
    fn store(&self, path: &str) -> LocalStore {
        let place = Place::File {
            path: self.at(path),
            base: Some(base(self.root.path().join("base"))),
        };
        LocalStore::new(place, None, self.context.clone())
    }

    fn store_without_base(&self, path: &str) -> LocalStore {
        let path = self.at(path);
        let place = Place::File { path, base: None };
        LocalStore::new(place, None, self.context.clone())
    }

    fn store_excluding(&self, path: &str, excluded: &str) -> LocalStore {
        let place = Place::File {
            path: self.at(path),
            base: None,
        };
        LocalStore::new(place, Some(self.at(excluded)), self.context.clone())
    }

    fn staged(&self, contents: &[u8]) -> Staged {
        let mut stage = Stage::new(&self.context);
        stage.begin(contents.len() as u64, None).unwrap();
        stage.write(contents).unwrap();
        stage.finish().unwrap().0
    }

    /// All names below the base, sorted, directories with a slash.
    fn tree(&self) -> Vec<String> {
        fn visit(root: &Path, dir: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(dir).unwrap() {
                let entry = entry.unwrap();
                let path = entry.path();
                let name = path.strip_prefix(root).unwrap().display().to_string();
                if entry.file_type().unwrap().is_dir() {
                    found.push(format!("{name}/"));
                    visit(root, &path, found);
                } else {
                    found.push(name);
                }
            }
        }
        let mut found = Vec::new();
        visit(&self.at(""), &self.at(""), &mut found);
        found.sort();
        found
    }
}

fn memory_dir() -> TempDir {
    match Path::new("/dev/shm") {
        memory if memory.is_dir() => tempfile::tempdir_in(memory).unwrap(),
        _ => tempfile::tempdir().unwrap(),
    }
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

/// What a listing would say of a file that was there when it was listed.
fn entry(text: &str) -> Entry {
    Entry {
        name: name(text),
        size_bytes: 1,
        modified: Timestamp::UNIX_EPOCH,
        version: Version::object("", jiff::Timestamp::UNIX_EPOCH),
    }
}

fn list(store: &LocalStore, recursive: bool) -> Result<(Listed, Vec<Entry>)> {
    let mut found = Vec::new();
    let wanted = |_: &Name| true;
    let scope = Scope {
        recursive,
        wanted: &wanted,
        aside: &|_| {},
    };
    let listed = store.list(&scope, &mut |entry| {
        found.push(entry);
        ControlFlow::Continue(())
    })?;
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((listed, found))
}

fn names(store: &LocalStore, recursive: bool) -> Vec<String> {
    let (listed, found) = list(store, recursive).unwrap();
    assert_eq!(listed, Listed::Complete);
    let names = found.iter().map(|entry| entry.name.lossy().into_owned());
    names.collect()
}

fn fetch(sandbox: &Sandbox, store: &LocalStore, text: &str) -> Result<(Staged, Version)> {
    let mut stage = Stage::new(&sandbox.context);
    let fetched = store.fetch(&entry(text), &mut stage)?;
    Ok((fetched.staged, fetched.version))
}

fn publish(store: &LocalStore, text: &str, staged: &Staged, clash: Clash) -> Result<Published> {
    store.publish(&name(text), staged, &Attributes::default(), clash)
}

fn contents(staged: &Staged) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(staged.size_bytes()).unwrap()];
    let mut at = 0;
    while at < bytes.len() {
        let amount = staged.read_at(&mut bytes[at..], at as u64).unwrap();
        assert!(amount > 0, "the copy ended after {at} bytes");
        at += amount;
    }
    bytes
}

#[track_caller]
fn assert_fails<T: std::fmt::Debug>(result: Result<T>, kind: Kind, says: &str) {
    let error: Error = result.expect_err("it must fail");
    let text = error.chain();
    assert_eq!(error.kind(), kind, "{text}");
    assert!(text.contains(says), "{says:?} is not in {text:?}");
}

fn make_old(path: &Path, seconds: u64) {
    let file = fs::OpenOptions::new().append(true).open(path).unwrap();
    let then = SystemTime::now() - Duration::from_secs(seconds);
    file.set_modified(then).unwrap();
}

fn make_link_old(path: &Path) {
    let epoch = Timespec::default();
    let times = Timestamps {
        last_access: epoch,
        last_modification: epoch,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
}

/// Runs `body` as a user who has no rights: root gives his up for a thread of its own.
fn unprivileged(body: impl FnOnce() + Send) {
    thread::scope(|scope| {
        scope
            .spawn(|| {
                if rustix::process::geteuid().is_root() {
                    set_thread_groups(&[]).unwrap();
                    set_thread_gid(Gid::from_raw(1000)).unwrap();
                    set_thread_uid(Uid::from_raw(1000)).unwrap();
                }
                body();
            })
            .join()
            .unwrap();
    });
}

/// Makes everything in the sandbox anybody's, for [`unprivileged`].
fn open_to_all(sandbox: &Sandbox) {
    for part in ["", "base", "base/in", "tmp"] {
        let path = sandbox.root.path().join(part);
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
}

/// Runs one test again, alone, in a child of `command` that finds `directory` in [`CHILD`].
fn again_in(mut command: Command, test: &str, directory: &Path) {
    command.arg(std::env::current_exe().unwrap());
    let test = format!("local_store::{test}");
    command.args(["--exact", &test, "--nocapture", "--test-threads=1"]);
    let output = command.env(CHILD, directory).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && stdout.contains("1 passed"),
        "{command:?}: {}\n{stdout}\n{stderr}",
        output.status
    );
}

/// A base that need not be a mount point.
fn base(path: PathBuf) -> Base {
    let must_be_mount = false;
    Base {
        path,
        must_be_mount,
    }
}

fn child_directory() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

/// Runs `test` again in a mount namespace of its own, behind `mount_command` on `$0`, a directory.
fn again_mounted(test: &str, directory: &Path, mount_command: &str) {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    let script = format!("{mount_command} && exec \"$@\"");
    command.args(["--mount", "sh", "-c", &script]);
    command.arg(directory);
    again_in(command, test, directory);
}

fn child_sandbox(directory: &Path) -> (LocalStore, Arc<Context>) {
    let path = directory.join("in");
    let base = Some(base(directory.to_path_buf()));
    let context = Arc::new(Context::new(Timestamp::now, std::env::temp_dir()));
    let store = LocalStore::new(Place::File { path, base }, None, context.clone());
    (store, context)
}
