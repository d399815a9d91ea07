//! A directory as a store, through the library: what SPEC sections 4 and 5 say of files.
//!
//! Some claims need another process: a test then runs itself again in a child, under `strace` or
//! in a mount namespace of its own.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, SystemTime};

use bots_mover::context::Context;
use bots_mover::error::{Error, Kind, Result};
use bots_mover::object::{Attributes, Entry, Name, Place, Version};
use bots_mover::stage::{MEMORY_LIMIT_BYTES, Stage, Staged};
use bots_mover::store::local::LocalStore;
use bots_mover::store::{Clash, Listed, Published, Removed, Scope, Store};
use jiff::Timestamp;
use rustix::fs::{CWD, FileType, FlockOperation, Mode, fcntl_lock, mknodat};
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
        let root = tempfile::tempdir().unwrap();
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
            base: Some(self.root.path().join("base")),
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

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

/// What a listing would say of a file that was there when it was listed.
fn entry(text: &str) -> Entry {
    Entry {
        name: name(text),
        size_bytes: 1,
        modified: Timestamp::UNIX_EPOCH,
        version: Version::Object { etag: "".into() },
    }
}

fn list(store: &LocalStore, recursive: bool) -> Result<(Listed, Vec<Entry>)> {
    let mut found = Vec::new();
    let wanted = |_: &Name| true;
    let scope = Scope {
        recursive,
        wanted: &wanted,
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
    Ok((stage.finish()?.0, fetched.version))
}

fn publish(store: &LocalStore, text: &str, staged: &Staged, clash: Clash) -> Result<Published> {
    store.publish(&name(text), staged, &Attributes::default(), clash)
}

fn contents(staged: &Staged) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(staged.size_bytes()).unwrap()];
    let mut at = 0;
    while at < bytes.len() {
        at += staged.read_at(&mut bytes[at..], at as u64).unwrap();
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
    let file = OpenOptions::new().append(true).open(path).unwrap();
    let then = SystemTime::now() - Duration::from_secs(seconds);
    file.set_modified(then).unwrap();
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
                    rustix::thread::set_thread_groups(&[]).unwrap();
                    rustix::thread::set_thread_gid(rustix::fs::Gid::from_raw(1000)).unwrap();
                    rustix::thread::set_thread_uid(rustix::fs::Uid::from_raw(1000)).unwrap();
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

/// Runs one test of this file again, alone, in a child that finds `directory` in [`CHILD`].
fn again_in(mut command: Command, test: &str, directory: &Path) -> String {
    command.arg(std::env::current_exe().unwrap());
    run_child(command, test, directory)
}

fn run_child(mut command: Command, test: &str, directory: &Path) -> String {
    let test = format!("local_store::{test}");
    command.args(["--exact", &test, "--nocapture", "--test-threads=1"]);
    let output = command.env(CHILD, directory).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && stdout.contains("1 passed"),
        "{command:?}: {}\n{stdout}\n{stderr}",
        output.status
    );
    stdout
}

fn child_directory() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

// Existence

#[test]
fn a_missing_base_is_missing_everywhere_and_never_created() {
    let sandbox = Sandbox::new();
    let store = sandbox.store("in");
    assert!(store.exists().is_ok());
    fs::remove_dir_all(sandbox.at("")).unwrap();

    let staged = sandbox.staged(b"x");
    let says = "is the volume mounted?";
    assert_fails(store.exists(), Kind::Missing, says);
    assert_fails(list(&store, true), Kind::Missing, says);
    let fetched = fetch(&sandbox, &store, "a").map(|_| ());
    assert_fails(fetched, Kind::Missing, says);
    let version = Version::Object { etag: "".into() };
    let removed = store.remove(&name("a"), &version);
    assert_fails(removed, Kind::Missing, says);
    for clash in [Clash::Replace, Clash::Refuse] {
        let published = publish(&store, "d/a", &staged, clash);
        assert_fails(published, Kind::Missing, says);
    }
    assert!(!sandbox.at("").exists());
}

#[test]
fn a_base_that_is_a_file_is_missing() {
    let sandbox = Sandbox::new();
    fs::remove_dir_all(sandbox.at("")).unwrap();
    fs::write(sandbox.root.path().join("base"), "").unwrap();
    assert_fails(
        sandbox.store("in").exists(),
        Kind::Missing,
        "base_file_path",
    );
}

#[test]
fn a_source_without_base_exists_until_it_is_used() {
    let sandbox = Sandbox::new();
    assert!(sandbox.store_without_base("nowhere").exists().is_ok());
}

// Listing

#[test]
fn a_missing_directory_is_no_error_of_the_listing() {
    let sandbox = Sandbox::new();
    for store in [
        sandbox.store("nowhere"),
        sandbox.store_without_base("nowhere"),
    ] {
        assert_eq!(
            list(&store, true).unwrap(),
            (Listed::NoDirectory, Vec::new())
        );
    }
}

#[test]
fn only_visible_regular_files_are_listed() {
    let sandbox = Sandbox::new();
    for path in ["a", "d/b", "d/e/c", ".hidden", ".d/x", "d/.e/x", "d/.nfs1"] {
        sandbox.file(&format!("in/{path}"), b"x");
    }
    sandbox.file("elsewhere/x", b"x");
    symlink(sandbox.at("in/a"), sandbox.at("in/link")).unwrap();
    symlink(sandbox.at("elsewhere"), sandbox.at("in/linked")).unwrap();
    symlink("nowhere", sandbox.at("in/dangling")).unwrap();
    fifo(&sandbox.at("in/fifo"));
    let _socket = std::os::unix::net::UnixListener::bind(sandbox.at("in/socket")).unwrap();

    let store = sandbox.store("in");
    assert_eq!(names(&store, false), ["a"]);
    assert_eq!(names(&store, true), ["a", "d/b", "d/e/c"]);
}

#[test]
fn the_source_path_itself_may_go_through_links() {
    let sandbox = Sandbox::new();
    sandbox.file("in/d/a", b"x");
    symlink("in", sandbox.at("link")).unwrap();
    let store = sandbox.store("link");
    assert_eq!(names(&store, true), ["d/a"]);
    let (staged, version) = fetch(&sandbox, &store, "d/a").unwrap();
    assert_eq!(contents(&staged), b"x");
    let removed = store.remove(&name("d/a"), &version).unwrap();
    assert_eq!(removed, Removed::Done);
}

#[test]
fn an_entry_tells_size_and_time_to_the_nanosecond_and_identity() {
    let sandbox = Sandbox::new();
    let path = sandbox.file("in/a", b"four");
    let then = SystemTime::UNIX_EPOCH + Duration::new(1_800_000_000, 123_456_789);
    let file = OpenOptions::new().append(true).open(&path).unwrap();
    file.set_modified(then).unwrap();

    let found = list(&sandbox.store("in"), false).unwrap().1.remove(0);
    let meta = fs::metadata(&path).unwrap();
    assert_eq!(found.size_bytes, 4);
    assert_eq!(found.modified.as_nanosecond(), 1_800_000_000_123_456_789);
    let version = Version::File {
        dev: meta.dev(),
        ino: meta.ino(),
        size_bytes: 4,
        mtime_ns: 1_800_000_000_123_456_789,
    };
    assert_eq!(found.version, version);
    assert_eq!(
        sandbox.store("in").look(&found.name).unwrap(),
        Some(version)
    );
}

#[test]
fn names_that_are_not_utf8_are_listed_fetched_and_published() {
    let sandbox = Sandbox::new();
    let store = sandbox.store("in");
    let odd = Name::new(&b"d/\xff\n.edi"[..]).unwrap();
    let staged = sandbox.staged(b"x");
    let published = store.publish(&odd, &staged, &Attributes::default(), Clash::Refuse);
    assert_eq!(published.unwrap(), Published::Done);
    let found = list(&store, true).unwrap().1.remove(0);
    assert_eq!(found.name, odd);
    let mut stage = Stage::new(&sandbox.context);
    store.fetch(&found, &mut stage).unwrap();
}

#[test]
fn the_excluded_destination_is_recognised_by_path_and_by_identity() {
    let sandbox = Sandbox::new();
    sandbox.file("in/a", b"x");
    sandbox.file("in/done/b", b"x");
    sandbox.file("in/d/done/c", b"x");
    let excluding = |path| names(&sandbox.store_excluding("in", path), true);
    assert_eq!(excluding("in/done"), ["a", "d/done/c"]);
    assert_eq!(excluding("in/d/done"), ["a", "done/b"]);
    assert_eq!(excluding("in/not/yet"), ["a", "d/done/c", "done/b"]);
    // The destination's path goes through a link, so that only the inode tells.
    symlink("done", sandbox.at("in/alias")).unwrap();
    assert_eq!(excluding("in/alias"), ["a", "d/done/c"]);
}

#[test]
fn a_name_that_nobody_wants_is_not_looked_at_and_the_sink_may_stop() {
    let sandbox = Sandbox::new();
    for at in 0..10 {
        sandbox.file(&format!("in/{at}"), b"x");
    }
    let wanted = |name: &Name| name.as_bytes() > b"4";
    let scope = Scope {
        recursive: false,
        wanted: &wanted,
    };
    let mut seen = 0;
    let mut count = |_| {
        seen += 1;
        if seen == 3 {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    };
    let listed = sandbox.store("in").list(&scope, &mut count).unwrap();
    assert_eq!((listed, seen), (Listed::Stopped, 3));
}

#[test]
fn a_directory_that_cannot_be_read_fails_the_listing() {
    let sandbox = Sandbox::new();
    open_to_all(&sandbox);
    sandbox.file("in/a", b"x");
    sandbox.file("in/d/b", b"x");
    fs::set_permissions(sandbox.at("in/d"), fs::Permissions::from_mode(0o000)).unwrap();
    unprivileged(|| {
        let store = sandbox.store("in");
        assert_eq!(names(&store, false), ["a"]);
        assert_fails(list(&store, true), Kind::Denied, "in/d");
    });
    fs::set_permissions(sandbox.at("in/d"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_source_that_is_a_file_fails_the_listing() {
    let sandbox = Sandbox::new();
    sandbox.file("in/a", b"x");
    let listed = list(&sandbox.store("in/a"), true);
    assert_fails(listed, Kind::Invalid, "stands where a directory is needed");
}

#[test]
fn a_cancelled_run_ends_its_listing() {
    let sandbox = Sandbox::new();
    sandbox.file("in/a", b"x");
    sandbox.context.stop.cancel();
    assert_fails(list(&sandbox.store("in"), true), Kind::Stopped, "signal");
}

#[test]
fn a_thousand_levels_need_no_thousand_descriptors() {
    const LEVELS: usize = 1_000;
    let Some(directory) = child_directory() else {
        let sandbox = Sandbox::new();
        let mut shell = Command::new("sh");
        // Bash and dash know -n; the child finds the limit far below the depth.
        shell.args(["-c", "ulimit -n 32 && exec \"$0\" \"$@\""]);
        let test = "a_thousand_levels_need_no_thousand_descriptors";
        again_in(shell, test, sandbox.root.path());
        return;
    };
    let path = directory.join("base/in");
    let place = Place::File { path, base: None };
    let context = Arc::new(Context::new(Timestamp::now, directory.join("tmp")));
    let store = LocalStore::new(place, None, context.clone());
    let deep = "d/".repeat(LEVELS) + "a";
    let mut stage = Stage::new(&context);
    stage.begin(1, None).unwrap();
    stage.write(b"x").unwrap();
    let staged = stage.finish().unwrap().0;
    publish(&store, &deep, &staged, Clash::Replace).unwrap();
    assert_eq!(names(&store, true), [deep.as_str()]);
    let version = store.fetch(&entry(&deep), &mut stage).unwrap().version;
    let removed = store.remove(&name(&deep), &version).unwrap();
    assert_eq!(removed, Removed::Done);
}

#[test]
fn a_hundred_thousand_files_cost_no_memory() {
    const FILES: usize = 100_000;
    let Some(directory) = child_directory() else {
        let directory = match Path::new("/dev/shm") {
            memory if memory.is_dir() => tempfile::tempdir_in(memory).unwrap(),
            _ => tempfile::tempdir().unwrap(),
        };
        for at in 0..FILES {
            File::create(directory.path().join(format!("{at:06}.edi"))).unwrap();
        }
        let test = "a_hundred_thousand_files_cost_no_memory";
        again_in(Command::new("env"), test, directory.path());
        return;
    };
    let path = directory;
    let place = Place::File { path, base: None };
    let context = Arc::new(Context::new(Timestamp::now, "/nowhere".into()));
    let store = LocalStore::new(place, None, context);
    let wanted = |_: &Name| true;
    let scope = Scope {
        recursive: true,
        wanted: &wanted,
    };
    let peak_kib = || {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let number = line.unwrap().split_whitespace().nth(1).unwrap();
        number.parse::<usize>().unwrap()
    };
    let before = peak_kib();
    let mut seen = 0;
    let mut count = |_| {
        seen += 1;
        ControlFlow::Continue(())
    };
    let listed = store.list(&scope, &mut count).unwrap();
    let grown = peak_kib() - before;
    assert_eq!((listed, seen), (Listed::Complete, FILES));
    // 100,000 names of ten bytes would need 1,000 KiB at the very least.
    assert!(grown < 512, "the peak grew by {grown} KiB");
}

// Locks

#[test]
fn a_lock_file_tells_its_time() {
    let sandbox = Sandbox::new();
    let store = sandbox.store("in");
    assert_eq!(store.lock_file("bots.lock").unwrap(), None);
    assert_eq!(
        sandbox.store("nowhere").lock_file("bots.lock").unwrap(),
        None
    );
    let path = sandbox.file("in/bots.lock", b"");
    let modified = Timestamp::try_from(fs::metadata(path).unwrap().modified().unwrap()).unwrap();
    assert_eq!(store.lock_file("bots.lock").unwrap(), Some(modified));
}

/// A process that holds a record lock until its standard input ends, as Bots' channels do with
/// 'system locks': this test again, in a child.
#[test]
fn an_exclusive_lock_of_another_process_is_seen_and_a_shared_one_is_none() {
    if let Some(path) = child_directory() {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        let shared = std::env::var_os("SHARED").is_some();
        let operation = if shared {
            FlockOperation::NonBlockingLockShared
        } else {
            FlockOperation::NonBlockingLockExclusive
        };
        fcntl_lock(&file, operation).unwrap();
        let mut stdout = std::io::stdout();
        stdout.write_all(b"\nlocked\n").unwrap();
        stdout.flush().unwrap();
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        return;
    }
    let sandbox = Sandbox::new();
    let store = sandbox.store("in");
    let path = sandbox.file("in/a", b"x");
    let version = store.look(&name("a")).unwrap().unwrap();
    for shared in [false, true] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let test = "an_exclusive_lock_of_another_process_is_seen_and_a_shared_one_is_none";
        let test = format!("local_store::{test}");
        command.args(["--exact", &test, "--nocapture"]);
        command.env(CHILD, &path);
        if shared {
            command.env("SHARED", "yes");
        }
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = pipes.spawn().unwrap();
        let lines = BufReader::new(holder.stdout.take().unwrap()).lines();
        let mut lines = lines.map_while(std::result::Result::ok);
        assert!(lines.any(|line| line == "locked"), "the lock was not taken");

        let seen = store.locked_by(&name("a")).unwrap();
        assert_eq!(seen, (!shared).then_some(holder.id()));
        if !shared {
            let removed = store.remove(&name("a"), &version).unwrap();
            assert_eq!(removed, Removed::Locked(holder.id()));
            assert!(path.exists());
        }
        drop(holder.stdin.take());
        lines.for_each(drop);
        assert!(holder.wait().unwrap().success());
        assert_eq!(store.locked_by(&name("a")).unwrap(), None);
    }
    assert_eq!(store.locked_by(&name("nowhere")).unwrap(), None);
}

// Fetching

#[test]
fn a_file_is_staged_whole_whatever_its_size() {
    let sandbox = Sandbox::new();
    let store = sandbox.store("in");
    let limit = usize::try_from(MEMORY_LIMIT_BYTES).unwrap();
    for size in [0, 1, limit - 1, limit, limit + 1, 3 * limit + 7] {
        let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        sandbox.file("in/d/a", &bytes);
        let (staged, version) = fetch(&sandbox, &store, "d/a").unwrap();
        assert!(contents(&staged) == bytes, "{size} bytes differ");
        assert_eq!(store.look(&name("d/a")).unwrap(), Some(version));
    }
}

#[test]
fn what_is_no_regular_file_any_more_is_gone_and_does_not_hang() {
    let sandbox = Sandbox::new();
    let store = sandbox.store("in");
    let secret = sandbox.file("elsewhere/secret", b"x");
    symlink(secret, sandbox.at("in/link")).unwrap();
    symlink(sandbox.at("elsewhere"), sandbox.at("in/linked")).unwrap();
    fifo(&sandbox.at("in/fifo"));
    fs::create_dir(sandbox.at("in/directory")).unwrap();
    sandbox.file("in/file", b"x");
    let version = Version::Object { etag: "".into() };
    for text in [
        "nowhere",
        "link",
        "fifo",
        "directory",
        "linked/secret",
        "no/where",
        "file/below",
    ] {
        let fetched = fetch(&sandbox, &store, text).map(|_| ());
        assert_fails(fetched, Kind::Gone, text);
        let removed = store.remove(&name(text), &version).unwrap();
        assert_ne!(removed, Removed::Done, "{text}");
    }
    assert!(sandbox.at("elsewhere/secret").exists());
}

#[test]
fn names_that_would_leave_the_directory_are_refused() {
    let sandbox = Sandbox::new();
    let store = sandbox.store("in");
    sandbox.file("secret", b"x");
    let staged = sandbox.staged(b"x");
    let version = store.look(&name("nowhere"));
    assert_eq!(version.unwrap(), None);
    let long = "x".repeat(256);
    let deep = "d/".repeat(2_050) + "a";
    for text in [
        "../secret",
        "d/../../secret",
        "./a",
        "a//b",
        "..",
        "a\0b",
        &long,
        &deep,
    ] {
        let refused = "in/";
        let fetched = fetch(&sandbox, &store, text).map(|_| ());
        assert_fails(fetched, Kind::Invalid, "in");
        let version = Version::Object { etag: "".into() };
        assert_fails(store.remove(&name(text), &version), Kind::Invalid, "in");
        let published = publish(&store, text, &staged, Clash::Replace);
        assert_fails(published, Kind::Invalid, "in");
        assert_eq!(sandbox.tree(), [refused, "secret"]);
    }
}

#[test]
fn a_file_that_grows_or_shrinks_while_it_is_staged_has_changed() {
    let sandbox = Sandbox::new();
    let store = sandbox.store("in");
    let path = sandbox.file("in/a", b"");
    for grows in [true, false] {
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(8 << 20).unwrap();
        let done = AtomicBool::new(false);
        let mut changed = false;
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut size = 8 << 20;
                while !done.load(Ordering::Relaxed) {
                    size = if grows { size + 1 } else { size - 1 };
                    file.set_len(size).unwrap();
                }
            });
            // One try is nearly always enough; the writer may just not have had a turn.
            for _ in 0..1_000 {
                match fetch(&sandbox, &store, "a") {
                    Ok(_) => {}
                    Err(error) => {
                        assert_eq!(error.kind(), Kind::Changed, "{}", error.chain());
                        changed = true;
                        break;
                    }
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        assert!(changed, "grows: {grows}");
    }
}

// Publishing

#[test]
fn a_published_file_is_whole_and_nothing_else_is_there() {
    let sandbox = Sandbox::new();
    let store = sandbox.store("out/x12");
    let big = vec![7; usize::try_from(MEMORY_LIMIT_BYTES).unwrap() * 3 + 1];
    for (text, bytes) in [("a", &b"small"[..]), ("d/e/b", &big), ("d/empty", b"")] {
        let staged = sandbox.staged(bytes);
        let published = publish(&store, text, &staged, Clash::Refuse).unwrap();
        assert_eq!(published, Published::Done);
        let path = sandbox.at("out/x12").join(text);
        assert!(fs::read(path).unwrap() == bytes, "{text}");
        assert!(store.holds(&name(text), &staged).unwrap());
    }
    let all = ["in/", "out/", "out/x12/", "out/x12/a", "out/x12/d/"];
    let all = [
        &all[..],
        &["out/x12/d/e/", "out/x12/d/e/b", "out/x12/d/empty"],
    ];
    assert_eq!(sandbox.tree(), all.concat());
}

#[test]
fn a_file_is_made_without_a_base_too() {
    let sandbox = Sandbox::new();
    let store = sandbox.store_without_base("new/one");
    publish(&store, "a", &sandbox.staged(b"x"), Clash::Replace).unwrap();
    assert_eq!(fs::read(sandbox.at("new/one/a")).unwrap(), b"x");
}

#[test]
fn modes_follow_the_umask() {
    let sandbox = Sandbox::new();
    // The umask belongs to the process, so a neighbour's files tell what it is.
    let neighbour = sandbox.file("in/neighbour", b"");
    fs::create_dir(sandbox.at("in/beside")).unwrap();
    publish(
        &sandbox.store("in"),
        "d/a",
        &sandbox.staged(b"x"),
        Clash::Replace,
    )
    .unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode();
    assert_eq!(mode(&sandbox.at("in/d/a")), mode(&neighbour));
    assert_eq!(mode(&sandbox.at("in/d")), mode(&sandbox.at("in/beside")));
}

#[test]
fn an_existing_file_is_replaced_or_left_as_asked() {
    let sandbox = Sandbox::new();
    let store = sandbox.store("in");
    let path = sandbox.file("in/a", b"old");
    let (old, new) = (sandbox.staged(b"old"), sandbox.staged(b"new"));

    let published = publish(&store, "a", &new, Clash::Refuse).unwrap();
    assert_eq!(published, Published::Exists);
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert!(store.holds(&name("a"), &old).unwrap());
    assert!(!store.holds(&name("a"), &new).unwrap());

    let published = publish(&store, "a", &new, Clash::Replace).unwrap();
    assert_eq!(published, Published::Done);
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(sandbox.tree(), ["in/", "in/a"]);
}

#[test]
fn a_reader_of_the_old_file_keeps_it() {
    let sandbox = Sandbox::new();
    let mut reader = File::open(sandbox.file("in/a", b"old")).unwrap();
    publish(
        &sandbox.store("in"),
        "a",
        &sandbox.staged(b"new"),
        Clash::Replace,
    )
    .unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "old");
}

#[test]
fn a_link_is_replaced_itself_and_never_written_through() {
    let sandbox = Sandbox::new();
    let store = sandbox.store("in");
    let target = sandbox.file("target", b"kept");
    let staged = sandbox.staged(b"new");
    symlink(&target, sandbox.at("in/a")).unwrap();
    let published = publish(&store, "a", &staged, Clash::Refuse).unwrap();
    assert_eq!(published, Published::Exists);
    assert!(!store.holds(&name("a"), &sandbox.staged(b"kept")).unwrap());
    publish(&store, "a", &staged, Clash::Replace).unwrap();
    assert!(fs::symlink_metadata(sandbox.at("in/a")).unwrap().is_file());
    assert_eq!(fs::read(target).unwrap(), b"kept");
}

#[test]
fn what_stands_in_the_way_is_invalid() {
    let sandbox = Sandbox::new();
    let store = sandbox.store("in");
    sandbox.file("in/directory/a", b"x");
    sandbox.file("in/file", b"x");
    fs::create_dir(sandbox.at("elsewhere")).unwrap();
    symlink(sandbox.at("elsewhere"), sandbox.at("in/link")).unwrap();
    let before = sandbox.tree();
    let staged = sandbox.staged(b"x");
    for clash in [Clash::Replace, Clash::Refuse] {
        for (text, says) in [
            ("directory", "a directory has the name"),
            ("file/a", "stands where a directory is needed"),
            ("file/d/a", "stands where a directory is needed"),
            ("link/a", "stands where a directory is needed"),
            (".bots-mover-0.part", "kept for files being written"),
        ] {
            let published = publish(&store, text, &staged, clash);
            assert_fails(published, Kind::Invalid, says);
        }
    }
    assert!(!store.holds(&name("directory"), &staged).unwrap());
    assert_eq!(sandbox.tree(), before);
}

#[test]
fn of_two_that_refuse_to_replace_exactly_one_wins() {
    let sandbox = Sandbox::new();
    for round in 0..100 {
        let text = format!("d{round}/a");
        let barrier = Barrier::new(2);
        let won: Vec<bool> = thread::scope(|scope| {
            let both = [b"one", b"two"].map(|bytes| {
                let (sandbox, barrier, text) = (&sandbox, &barrier, &text);
                scope.spawn(move || {
                    let store = sandbox.store("in");
                    let staged = sandbox.staged(bytes);
                    barrier.wait();
                    publish(&store, text, &staged, Clash::Refuse).unwrap() == Published::Done
                })
            });
            both.map(|thread| thread.join().unwrap()).into()
        });
        let contents = fs::read(sandbox.at("in").join(&text)).unwrap();
        let expected = if won[0] { b"one" } else { b"two" };
        assert!(
            won[0] != won[1] && contents == expected,
            "{won:?} {contents:?}"
        );
    }
}

#[test]
fn a_directory_that_was_removed_is_made_again() {
    let sandbox = Sandbox::new();
    let store = sandbox.store("in/out");
    let staged = sandbox.staged(b"x");
    for _ in 0..2 {
        publish(&store, "d/a", &staged, Clash::Replace).unwrap();
        fs::remove_dir_all(sandbox.at("in/out")).unwrap();
    }
    // And while others publish into it, which must never fail nor lose what was said to be done.
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let _ = fs::remove_dir(sandbox.at("in/out/d"));
            }
        });
        for round in 0..200 {
            let text = format!("d/{round}");
            match publish(&store, &text, &staged, Clash::Replace) {
                Ok(_) => assert!(sandbox.at("in/out").join(&text).exists()),
                // Removed twice within one attempt: the attempt fails, worth another.
                Err(error) => assert_eq!(error.kind(), Kind::Storage, "{}", error.chain()),
            }
            let _ = fs::remove_file(sandbox.at("in/out").join(&text));
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_staged_copy_that_was_damaged_is_never_published() {
    let sandbox = Sandbox::new();
    let size = usize::try_from(MEMORY_LIMIT_BYTES).unwrap() + 1;
    let staged = sandbox.staged(&vec![7; size]);
    // The staging file has no name; only the descriptors of this process lead to it.
    let temp_dir = sandbox.root.path().join("tmp");
    let mut damaged = 0;
    for fd in fs::read_dir("/proc/self/fd").unwrap() {
        let fd = fd.unwrap().path();
        if fs::read_link(&fd).is_ok_and(|target| target.starts_with(&temp_dir)) {
            let file = OpenOptions::new().write(true).open(fd).unwrap();
            file.write_all_at(b"8", 100).unwrap();
            damaged += 1;
        }
    }
    assert_eq!(damaged, 1);
    let published = publish(&sandbox.store("in"), "a", &staged, Clash::Replace);
    assert_fails(published, Kind::Storage, "not what was staged");
    assert_eq!(sandbox.tree(), ["in/"]);
}

#[test]
fn a_cancelled_publication_leaves_nothing() {
    let sandbox = Sandbox::new();
    let staged = sandbox.staged(b"x");
    sandbox.context.stop.cancel();
    let published = publish(&sandbox.store("in"), "a", &staged, Clash::Replace);
    assert_fails(published, Kind::Stopped, "signal");
    assert_eq!(sandbox.tree(), ["in/"]);
}

#[test]
fn missing_rights_are_told_with_path_and_user() {
    let sandbox = Sandbox::new();
    open_to_all(&sandbox);
    let mode = |mode| fs::set_permissions(sandbox.at("in"), fs::Permissions::from_mode(mode));
    let path = sandbox.file("in/a", b"x");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    mode(0o555).unwrap();
    unprivileged(|| {
        let store = sandbox.store("in");
        let staged = sandbox.staged(b"x");
        let uid = format!("uid {}", rustix::process::geteuid().as_raw());
        for text in ["b", "d/b"] {
            let published = publish(&store, text, &staged, Clash::Replace);
            assert_fails(published, Kind::Denied, &uid);
        }
        assert_fails(
            fetch(&sandbox, &store, "a").map(|_| ()),
            Kind::Denied,
            "in/a",
        );
    });
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    unprivileged(|| {
        let store = sandbox.store("in");
        let (_, version) = fetch(&sandbox, &store, "a").unwrap();
        assert_fails(store.remove(&name("a"), &version), Kind::Denied, "in/a");
    });
    assert_eq!(sandbox.tree(), ["in/", "in/a"]);
    // Directories on the way need not be readable, nor need those that were there be synced.
    mode(0o733).unwrap();
    fs::create_dir(sandbox.at("in/d")).unwrap();
    fs::set_permissions(sandbox.at("in/d"), fs::Permissions::from_mode(0o777)).unwrap();
    unprivileged(|| {
        let store = sandbox.store("in");
        publish(&store, "d/b", &sandbox.staged(b"x"), Clash::Replace).unwrap();
    });
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
    let base = Some(directory.to_path_buf());
    let context = Arc::new(Context::new(Timestamp::now, std::env::temp_dir()));
    let store = LocalStore::new(Place::File { path, base }, None, context.clone());
    (store, context)
}

#[test]
fn a_full_disk_leaves_nothing() {
    let Some(directory) = child_directory() else {
        let directory = tempfile::tempdir().unwrap();
        let mount = "mount -t tmpfs -o size=1m none \"$0\"";
        again_mounted("a_full_disk_leaves_nothing", directory.path(), mount);
        return;
    };
    let (store, context) = child_sandbox(&directory);
    let mut stage = Stage::new(&context);
    let bytes = vec![1; 2 << 20];
    stage.begin(bytes.len() as u64, None).unwrap();
    stage.write(&bytes).unwrap();
    let staged = stage.finish().unwrap().0;
    let published = publish(&store, "a", &staged, Clash::Replace);
    assert_fails(published, Kind::Storage, "the filesystem is full");
    assert_eq!(fs::read_dir(directory.join("in")).unwrap().count(), 0);
}

#[test]
fn a_read_only_mount_is_told() {
    let Some(directory) = child_directory() else {
        let directory = tempfile::tempdir().unwrap();
        let mount = "mkdir \"$0/in\" && echo x >\"$0/in/b\" && mount --bind \"$0\" \"$0\" && \
                     mount -o remount,bind,ro \"$0\"";
        again_mounted("a_read_only_mount_is_told", directory.path(), mount);
        return;
    };
    let (store, context) = child_sandbox(&directory);
    let mut stage = Stage::new(&context);
    let version = store.fetch(&entry("b"), &mut stage).unwrap().version;
    let staged = stage.finish().unwrap().0;
    for text in ["a", "d/a"] {
        let published = publish(&store, text, &staged, Clash::Replace);
        assert_fails(published, Kind::Storage, "mounted read-only");
    }
    let removed = store.remove(&name("b"), &version);
    assert_fails(removed, Kind::Storage, "mounted read-only");
}

#[test]
fn parts_of_dead_runs_are_removed_and_all_else_is_kept() {
    let sandbox = Sandbox::new();
    let old = sandbox.file("in/.bots-mover-00112233aabbccdd.part", b"dead");
    make_old(&old, 3_660);
    make_old(&sandbox.file("in/.bots-mover-11.part", b"alive"), 3_000);
    make_old(&sandbox.file("in/.bots-mover-22", b"not ours"), 9_999);
    make_old(&sandbox.file("in/x.part", b"not ours"), 9_999);
    make_old(
        &sandbox.file("in/d/.bots-mover-33.part", b"elsewhere"),
        9_999,
    );
    fs::create_dir(sandbox.at("in/.bots-mover-44.part")).unwrap();
    symlink("x.part", sandbox.at("in/.bots-mover-55.part")).unwrap();
    let mut expected = sandbox.tree();
    expected.retain(|name| !name.contains("00112233aabbccdd"));
    expected.push("in/a".into());
    expected.sort();

    let store = sandbox.store("in");
    publish(&store, "a", &sandbox.staged(b"x"), Clash::Replace).unwrap();
    assert_eq!(sandbox.tree(), expected);
    // Once per directory and run: a second look would cost every item a whole directory.
    make_old(&sandbox.file("in/.bots-mover-66.part", b"dead"), 9_999);
    publish(&store, "a", &sandbox.staged(b"x"), Clash::Replace).unwrap();
    assert!(sandbox.at("in/.bots-mover-66.part").exists());
}

// Removal

#[test]
fn only_what_was_staged_is_removed() {
    let sandbox = Sandbox::new();
    let store = sandbox.store("in");
    let path = sandbox.file("in/d/a", b"one");
    let (_, version) = fetch(&sandbox, &store, "d/a").unwrap();
    let remove = || store.remove(&name("d/a"), &version).unwrap();

    make_old(&path, 60);
    assert_eq!(remove(), Removed::Changed, "another time");
    let (_, version) = fetch(&sandbox, &store, "d/a").unwrap();
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let remove = || store.remove(&name("d/a"), &version).unwrap();
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"more").unwrap();
    file.set_modified(modified).unwrap();
    assert_eq!(remove(), Removed::Changed, "another size");
    file.set_len(3).unwrap();
    file.set_modified(modified).unwrap();

    let replacement = sandbox.file("in/d/b", b"two");
    let file = OpenOptions::new().append(true).open(&replacement).unwrap();
    file.set_modified(modified).unwrap();
    fs::rename(&path, sandbox.at("aside")).unwrap();
    fs::rename(&replacement, &path).unwrap();
    assert_eq!(remove(), Removed::Changed, "another inode");

    fs::rename(sandbox.at("aside"), &path).unwrap();
    assert_eq!(remove(), Removed::Done);
    assert_eq!(remove(), Removed::Gone);
    fs::remove_dir_all(sandbox.at("in")).unwrap();
    assert_eq!(remove(), Removed::Gone);
}

// The order of system calls

/// A kill loses no page cache, so only the order of the calls shows what a power cut would leave.
#[test]
fn file_and_directories_are_synced_in_order_before_publish_returns() {
    if let Some(directory) = child_directory() {
        let (store, context) = child_sandbox(&directory);
        let mut stage = Stage::new(&context);
        stage.begin(1, None).unwrap();
        stage.write(b"x").unwrap();
        let staged = stage.finish().unwrap().0;
        publish(&store, "d/a", &staged, Clash::Replace).unwrap();
        let _ = fs::metadata(directory.join("published"));
        publish(&store, "d/b", &staged, Clash::Replace).unwrap();
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut strace = Command::new("strace");
    let calls = "trace=mkdirat,openat,write,fsync,close,renameat,renameat2,statx,newfstatat";
    strace.args(["-f", "-y", "-e", calls, "-o"]).arg(log.path());
    let test = "file_and_directories_are_synced_in_order_before_publish_returns";
    again_in(strace, test, directory.path());

    let log = fs::read_to_string(log.path()).unwrap();
    let root = directory.path().to_str().unwrap();
    let mut steps = Vec::new();
    for line in log.lines().filter(|line| line.contains(root)) {
        let call = line.split_whitespace().nth(1).unwrap_or_default();
        let call = call.split('(').next().unwrap_or_default();
        let step = match call {
            "fsync" | "write" | "close" if line.contains(".part") => format!("{call} part"),
            "fsync" => {
                let path = line.split(['<', '>']).nth(1).unwrap_or_default();
                format!("fsync {}", path.replace(root, "base"))
            }
            "renameat" | "renameat2" => "rename".into(),
            "mkdirat" => "mkdir".into(),
            "statx" | "newfstatat" if line.contains("published") => "published".into(),
            _ => continue,
        };
        steps.push(step);
    }
    let put = [
        "write part",
        "fsync part",
        "close part",
        "rename",
        "fsync base/in/d",
    ];
    let first = ["mkdir", "mkdir", "fsync base/in", "fsync base"];
    let all = [&first[..], &put[..], &["published"], &put[..]].concat();
    assert_eq!(steps, all, "{log}");
}
