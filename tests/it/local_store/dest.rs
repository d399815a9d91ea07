//! A file as a destination: publishing, and what stands in its way.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use bots_mover::context::Context;
use bots_mover::error::Kind;
use bots_mover::object::{Base, Place};
use bots_mover::stage::{MEMORY_LIMIT_BYTES, PART_MIN_BYTES, Stage, Staged};
use bots_mover::store::local::LocalStore;
use bots_mover::store::{Clash, Fetched, Published, Store as _, is_temporary};
use jiff::Timestamp;

use super::{
    Sandbox, again_in, again_mounted, assert_fails, child_directory, child_sandbox, entry, fetch,
    make_link_old, make_old, name, open_to_all, publish, unprivileged,
};

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

/// Three parts, the last one short.
fn large() -> Vec<u8> {
    let size = usize::try_from(PART_MIN_BYTES).unwrap() * 2 + 5;
    (0..=250u8).cycle().take(size).collect()
}

/// Stages `bytes` where the store offers room for `text`.
fn staged_at(sandbox: &Sandbox, store: &LocalStore, text: &str, bytes: &[u8]) -> Staged {
    let at = name(text);
    let room = |size_bytes| store.room(&at, size_bytes);
    let mut stage = Stage::in_room(&sandbox.context, &room, Arc::default());
    stage.begin(bytes.len() as u64, None).unwrap();
    stage.write(bytes).unwrap();
    stage.finish().unwrap().0
}

#[test]
fn a_large_file_is_staged_hidden_in_its_directory_and_gone_if_not_published() {
    let sandbox = Sandbox::in_memory();
    let (store, bytes) = (sandbox.store("in"), large());
    let staged = staged_at(&sandbox, &store, "d/a", &bytes);
    let tree = sandbox.tree();
    let [_, _, part] = tree.as_slice() else {
        panic!("{tree:?}");
    };
    let hidden = part
        .strip_prefix("in/d/")
        .expect("it lies where it is going");
    assert!(is_temporary(hidden.as_bytes()), "{hidden}");
    assert_eq!(
        fs::read_dir(sandbox.root.path().join("tmp"))
            .unwrap()
            .count(),
        0
    );
    drop(staged);
    assert_eq!(sandbox.tree(), ["in/", "in/d/"]);
    let staged = staged_at(&sandbox, &store, "d/a", &bytes);
    publish(&store, "d/a", &staged, Clash::Replace).unwrap();
    drop(staged);
    assert!(fs::read(sandbox.at("in/d/a")).unwrap() == bytes);
    assert_eq!(sandbox.tree(), ["in/", "in/d/", "in/d/a"]);
}

#[test]
fn a_large_file_whose_names_are_taken_is_written_once() {
    let sandbox = Sandbox::in_memory();
    let (store, bytes) = (sandbox.store("in"), large());
    for taken in ["a", "a-1", "a-2"] {
        sandbox.file(&format!("in/{taken}"), b"other");
    }
    let staged = staged_at(&sandbox, &store, "a", &bytes);
    let inode = |path: &str| fs::metadata(sandbox.at(path)).unwrap().ino();
    let tree = sandbox.tree();
    let part = tree.iter().find(|path| path.contains(".bots-mover-"));
    let part = inode(part.expect("it is staged there"));
    for taken in ["a", "a-1", "a-2"] {
        let published = publish(&store, taken, &staged, Clash::Refuse).unwrap();
        assert_eq!(published, Published::Exists);
        assert!(!store.holds(&name(taken), &staged).unwrap());
    }
    publish(&store, "a-3", &staged, Clash::Refuse).unwrap();
    drop(staged);
    assert_eq!(inode("in/a-3"), part, "it is the file that was staged");
    assert!(fs::read(sandbox.at("in/a-3")).unwrap() == bytes);
    assert_eq!(
        sandbox.tree(),
        ["in/", "in/a", "in/a-1", "in/a-2", "in/a-3"]
    );
}

/// A quick try of a request begins the stage anew.
#[test]
fn a_stage_that_begins_anew_takes_the_same_part_and_forgets_what_was_in_it() {
    let sandbox = Sandbox::in_memory();
    let store = sandbox.store("in");
    let at = name("a");
    let room = |size_bytes| store.room(&at, size_bytes);
    let mut stage = Stage::in_room(&sandbox.context, &room, Arc::default());
    let (long, short) = (vec![1; 400_000], vec![2; 300_000]);
    stage.begin(long.len() as u64, None).unwrap();
    stage.write(&long[..350_000]).unwrap();
    stage.begin(short.len() as u64, None).unwrap();
    stage.write(&short).unwrap();
    let (staged, _) = stage.finish().unwrap();
    publish(&store, "a", &staged, Clash::Replace).unwrap();
    drop(staged);
    assert!(fs::read(sandbox.at("in/a")).unwrap() == short);
    assert_eq!(sandbox.tree(), ["in/", "in/a"]);
}

/// Somebody swept the part, or removed the directory, before it could be renamed.
#[test]
fn a_part_that_is_gone_before_its_rename_asks_for_a_new_attempt() {
    let sandbox = Sandbox::in_memory();
    let (store, bytes) = (sandbox.store("in"), large());
    let staged = staged_at(&sandbox, &store, "d/a", &bytes);
    fs::remove_dir_all(sandbox.at("in/d")).unwrap();
    let error = publish(&store, "d/a", &staged, Clash::Replace).unwrap_err();
    assert_eq!(error.kind(), Kind::Changed, "{}", error.chain());
    drop(staged);
    let staged = staged_at(&sandbox, &store, "d/a", &bytes);
    publish(&store, "d/a", &staged, Clash::Replace).unwrap();
    assert!(fs::read(sandbox.at("in/d/a")).unwrap() == bytes);
}

#[test]
fn a_file_is_made_without_a_base_too() {
    let sandbox = Sandbox::new();
    let store = sandbox.store_without_base("new");
    publish(&store, "one/a", &sandbox.staged(b"x"), Clash::Replace).unwrap();
    assert_eq!(fs::read(sandbox.at("new/one/a")).unwrap(), b"x");
}

#[test]
fn without_a_base_the_directory_that_a_place_lies_in_is_never_made() {
    let sandbox = Sandbox::new();
    let store = sandbox.store_without_base("vol/in");
    let hint = "is the volume mounted?";
    assert_fails(store.must_exist(), Kind::Missing, hint);
    let staged = sandbox.staged(b"x");
    let published = publish(&store, "d/a", &staged, Clash::Replace);
    assert_fails(published, Kind::Missing, hint);
    assert!(!sandbox.at("vol").exists());
}

/// It was mounted when the rule was listed, and is no more when the item is published.
#[test]
fn nothing_is_made_in_a_base_that_must_be_a_mount_point_and_is_none() {
    let sandbox = Sandbox::new();
    let base = Base {
        path: sandbox.at(""),
        must_be_mount: true,
    };
    let place = Place::File {
        path: sandbox.at("new"),
        base: Some(base),
    };
    let store = LocalStore::new(place, None, sandbox.context.clone());
    let staged = sandbox.staged(b"x");
    let published = publish(&store, "a", &staged, Clash::Replace);
    assert_fails(published, Kind::Missing, "no mount point");
    assert!(!sandbox.at("new").exists());
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
    let sandbox = Sandbox::in_memory();
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

thread_local! {
    /// What [`removing_clock`] removes when it is next asked for the time.
    static DOOMED: RefCell<Option<PathBuf>> = const { RefCell::new(None) };
}

/// A store asks for the time between opening a directory and making a file in it.
fn removing_clock() -> Timestamp {
    if let Some(path) = DOOMED.take() {
        fs::remove_dir(path).unwrap();
    }
    Timestamp::now()
}

#[test]
fn a_directory_that_was_removed_is_made_again() {
    let mut sandbox = Sandbox::new();
    let temp_dir = sandbox.root.path().join("tmp");
    sandbox.context = Arc::new(Context::new(removing_clock, temp_dir));
    let store = sandbox.store("in/out");
    let staged = sandbox.staged(b"x");
    publish(&store, "a", &staged, Clash::Replace).unwrap();
    fs::remove_dir_all(sandbox.at("in/out")).unwrap();
    publish(&store, "a", &staged, Clash::Replace).unwrap();

    fs::create_dir(sandbox.at("in/out/d")).unwrap();
    DOOMED.set(Some(sandbox.at("in/out/d")));
    publish(&store, "d/a", &staged, Clash::Replace).unwrap();
    assert_eq!(DOOMED.take(), None, "the directory was not removed");
    assert_eq!(
        sandbox.tree(),
        ["in/", "in/out/", "in/out/a", "in/out/d/", "in/out/d/a"]
    );
}

#[test]
fn what_was_said_to_be_published_is_there_though_directories_come_and_go() {
    let sandbox = Sandbox::in_memory();
    let store = sandbox.store("in/out");
    let staged = sandbox.staged(b"x");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let _ = fs::remove_dir(sandbox.at("in/out/d"));
            }
        });
        for round in 0..200 {
            let text = format!("d/{round}");
            let path = sandbox.at("in/out").join(&text);
            match publish(&store, &text, &staged, Clash::Replace) {
                Ok(_) => fs::remove_file(path).unwrap(),
                // Removed twice within one attempt: the attempt fails, worth another.
                Err(error) => assert_eq!(error.kind(), Kind::Storage, "{}", error.chain()),
            }
        }
        done.store(true, Ordering::Relaxed);
    });
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
        // One that is made in a directory that cannot be read is synced with its filesystem.
        publish(&store, "new/b", &sandbox.staged(b"x"), Clash::Replace).unwrap();
    });
}

#[test]
fn a_full_disk_leaves_nothing() {
    let Some(directory) = child_directory() else {
        let directory = tempfile::tempdir().unwrap();
        let mount = "mount -t tmpfs -o size=1m none \"$0\"";
        again_mounted("dest::a_full_disk_leaves_nothing", directory.path(), mount);
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
        again_mounted("dest::a_read_only_mount_is_told", directory.path(), mount);
        return;
    };
    let (store, context) = child_sandbox(&directory);
    let mut stage = Stage::new(&context);
    let Fetched {
        staged, version, ..
    } = store.fetch(&entry("b"), &mut stage).unwrap();
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
    let link = sandbox.at("in/.bots-mover-55.part");
    symlink("x.part", &link).unwrap();
    make_link_old(&link);
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

/// A kill loses no page cache, so only the order of the calls shows what a power cut would leave.
#[test]
fn file_and_directories_are_synced_in_order_before_publish_returns() {
    if let Some(directory) = child_directory() {
        let (store, context) = child_sandbox(&directory);
        let mark = |step: &str| drop(fs::metadata(directory.join(format!("mark {step}"))));
        let mut stage = Stage::new(&context);
        stage.begin(1, None).unwrap();
        stage.write(b"x").unwrap();
        let staged = stage.finish().unwrap().0;
        publish(&store, "d/a", &staged, Clash::Replace).unwrap();
        mark("known directory");
        publish(&store, "d/b", &staged, Clash::Replace).unwrap();
        fs::remove_dir_all(directory.join("in/d")).unwrap();
        mark("made again");
        publish(&store, "d/c", &staged, Clash::Replace).unwrap();
        mark("another store");
        let (store, _) = child_sandbox(&directory);
        assert!(store.holds(&name("d/c"), &staged).unwrap());
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut strace = Command::new("strace");
    let calls = "trace=mkdirat,pwrite64,fsync,close,renameat,renameat2,unlinkat,statx,newfstatat";
    strace.args(["-f", "-y", "-e", calls, "-o"]).arg(log.path());
    let test = "dest::file_and_directories_are_synced_in_order_before_publish_returns";
    again_in(strace, test, directory.path());

    let log = fs::read_to_string(log.path()).unwrap();
    let root = directory.path().to_str().unwrap();
    let ours = log.lines().filter(|line| line.contains(root));
    let steps: Vec<String> = ours.filter_map(|line| step(line, root)).collect();
    let put = "pwrite64 part, fsync part, close part, rename, fsync base/in/d";
    let expected = format!(
        "mkdir, mkdir, fsync base/in, fsync base, {put}, known directory, {put}, \
         made again, mkdir, fsync base/in, fsync base, {put}, \
         another store, fsync base/in/d/c, fsync base/in, fsync base, fsync base/in/d"
    );
    assert_eq!(steps.join(", "), expected, "{log}");
}

/// What one line of strace's output means, if it matters.
fn step(line: &str, root: &str) -> Option<String> {
    let call = line.split_whitespace().nth(1)?.split('(').next()?;
    match call {
        "fsync" | "pwrite64" | "close" if line.contains(".part>") => Some(format!("{call} part")),
        "fsync" => {
            let path = line.split(['<', '>']).nth(1)?;
            Some(format!("fsync {}", path.replace(root, "base")))
        }
        "renameat" | "renameat2" => Some("rename".into()),
        "mkdirat" => Some("mkdir".into()),
        "statx" | "newfstatat" => {
            let (_, mark) = line.split_once("mark ")?;
            Some(mark.split('"').next()?.into())
        }
        _ => None,
    }
}
