//! A file as a source: locks, fetching, removal.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use bots_mover::error::Kind;
use bots_mover::object::Version;
use bots_mover::stage::MEMORY_LIMIT_BYTES;
use bots_mover::store::{Clash, Holder, Removed, Store as _};
use jiff::Timestamp;
use rustix::fs::{FlockOperation, fcntl_lock};

use super::{
    CHILD, Sandbox, assert_fails, child_directory, contents, fetch, fifo, make_old, name, publish,
};

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
        let test = format!("local_store::source::{test}");
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
        assert_eq!(seen, (!shared).then_some(Holder(Some(holder.id()))));
        if !shared {
            let removed = store.remove(&name("a"), &version).unwrap();
            assert_eq!(removed, Removed::Locked(Holder(Some(holder.id()))));
            assert!(path.exists());
        }
        drop(holder.stdin.take());
        lines.for_each(drop);
        assert!(holder.wait().unwrap().success());
        assert_eq!(store.locked_by(&name("a")).unwrap(), None);
    }
    assert_eq!(store.locked_by(&name("nowhere")).unwrap(), None);
}

#[test]
fn a_file_is_staged_whole_whatever_its_size() {
    let sandbox = Sandbox::new();
    let store = sandbox.store("in");
    let limit = usize::try_from(MEMORY_LIMIT_BYTES).unwrap();
    for size in [0, 1, limit - 1, limit, limit + 1, 3 * limit + 7] {
        let bytes: Vec<u8> = (0..251).cycle().take(size).collect();
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
    let version = Version::object("", jiff::Timestamp::UNIX_EPOCH);
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
        let version = Version::object("", jiff::Timestamp::UNIX_EPOCH);
        assert_fails(store.remove(&name(text), &version), Kind::Invalid, "in");
        let published = publish(&store, text, &staged, Clash::Replace);
        assert_fails(published, Kind::Invalid, "in");
        assert_eq!(sandbox.tree(), [refused, "secret"]);
    }
}

#[test]
fn a_file_that_is_written_while_it_is_staged_has_changed() {
    type Write = fn(&File, u64) -> io::Result<()>;
    const SIZE: u64 = 1 << 20;
    let sandbox = Sandbox::new();
    let store = sandbox.store("in");
    let path = sandbox.file("in/a", b"");
    let grow = |file: &File, turn| file.set_len(SIZE + turn);
    let shrink = |file: &File, turn| file.set_len(SIZE - turn);
    let rewrite =
        |file: &File, turn| file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_nanos(turn));
    let writers: [(&str, Write); 3] = [("grow", grow), ("shrink", shrink), ("rewrite", rewrite)];
    for (how, write) in writers {
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(SIZE).unwrap();
        let done = AtomicBool::new(false);
        let mut changed = false;
        thread::scope(|scope| {
            scope.spawn(|| {
                for turn in 1..SIZE {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    write(&file, turn).unwrap();
                }
            });
            // One try is nearly always enough; the writer may just not have had a turn.
            for _ in 0..1_000 {
                if let Err(error) = fetch(&sandbox, &store, "a") {
                    assert_eq!(error.kind(), Kind::Changed, "{}", error.chain());
                    changed = true;
                    break;
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        assert!(changed, "{how} was not noticed");
    }
}

/// Times of files go by the kernel's tick, 100 to 1000 a second.
const CLOCK_TICK: Duration = Duration::from_millis(30);

fn file_of(path: &Path) -> File {
    OpenOptions::new().append(true).open(path).unwrap()
}

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
    let (_, version) = fetch(&sandbox, &store, "d/a").unwrap();
    let remove = || store.remove(&name("d/a"), &version).unwrap();
    // Within a tick of the clock that the filesystem takes its times from nobody can tell.
    thread::sleep(CLOCK_TICK);
    fs::write(&path, b"one").unwrap();
    file_of(&path).set_modified(modified).unwrap();
    assert_eq!(remove(), Removed::Changed, "the same bytes and time");

    let (_, version) = fetch(&sandbox, &store, "d/a").unwrap();
    let remove = || store.remove(&name("d/a"), &version).unwrap();
    assert_eq!(remove(), Removed::Done);
    assert_eq!(remove(), Removed::Gone);
    fs::remove_dir_all(sandbox.at("in")).unwrap();
    assert_eq!(remove(), Removed::Gone);
}
