//! What is there: the base, the directory, its candidates.

use std::fs::{self, File, OpenOptions};
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bots_mover::context::Context;
use bots_mover::error::Kind;
use bots_mover::object::{Attributes, Entry, Name, Place, Version};
use bots_mover::stage::Stage;
use bots_mover::store::local::LocalStore;
use bots_mover::store::{Clash, Listed, Published, Removed, Scope, Store as _};
use jiff::Timestamp;

use super::{
    Sandbox, again_in, assert_fails, child_directory, contents, entry, fetch, fifo, list,
    memory_dir, name, names, open_to_all, publish, unprivileged,
};

#[test]
fn a_missing_base_is_missing_everywhere_and_never_created() {
    let sandbox = Sandbox::new();
    let store = sandbox.store("in");
    assert!(store.must_exist().is_ok());
    fs::remove_dir_all(sandbox.at("")).unwrap();

    let staged = sandbox.staged(b"x");
    let says = "is the volume mounted?";
    assert_fails(store.must_exist(), Kind::Missing, says);
    assert_fails(list(&store, true), Kind::Missing, says);
    let fetched = fetch(&sandbox, &store, "a").map(|_| ());
    assert_fails(fetched, Kind::Missing, says);
    let version = Version::object("", jiff::Timestamp::UNIX_EPOCH);
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
        sandbox.store("in").must_exist(),
        Kind::Missing,
        "base_file_path",
    );
}

#[test]
fn a_source_without_base_exists_until_it_is_used() {
    let sandbox = Sandbox::new();
    assert!(sandbox.store_without_base("nowhere").must_exist().is_ok());
}

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
        mtime_s: 1_800_000_000,
        mtime_ns: 123_456_789,
        ctime: (meta.ctime(), meta.ctime_nsec().try_into().unwrap()),
    };
    assert_eq!(found.version, version);
    assert_eq!(
        sandbox.store("in").look(&found.name).unwrap(),
        Some(version)
    );
}

#[test]
fn a_time_before_1970_is_told_to_the_nanosecond_too() {
    let sandbox = Sandbox::new();
    let path = sandbox.file("in/a", b"four");
    let file = OpenOptions::new().append(true).open(&path).unwrap();
    let then = SystemTime::UNIX_EPOCH - Duration::new(1, 999_999_999);
    file.set_modified(then).unwrap();
    let found = list(&sandbox.store("in"), false).unwrap().1.remove(0);
    assert_eq!(found.modified.as_nanosecond(), -1_999_999_999);
    let Version::File {
        mtime_s, mtime_ns, ..
    } = found.version
    else {
        panic!("{found:?} is a file");
    };
    assert_eq!((mtime_s, mtime_ns), (-2, 1));
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
fn the_excluded_destination_may_be_made_while_the_listing_goes_on() {
    let sandbox = Sandbox::new();
    sandbox.file("in/a", b"x");
    sandbox.file("in/d/b", b"x");
    let store = sandbox.store_excluding("in", "in/d/done");
    // The root is read before what lies below it.
    let wanted = |name: &Name| {
        if name.as_bytes() == b"a" {
            sandbox.file("in/d/done/a", b"x");
        }
        true
    };
    let mut found = Vec::new();
    let scope = Scope {
        recursive: true,
        wanted: &wanted,
        aside: &|_| {},
    };
    let mut sink = |entry: Entry| {
        found.push(entry.name);
        ControlFlow::Continue(())
    };
    store.list(&scope, &mut sink).unwrap();
    assert_eq!(found, [name("a"), name("d/b")]);
    assert!(sandbox.at("in/d/done/a").exists());
}

#[test]
fn a_name_that_nobody_wants_is_not_looked_at_and_the_sink_may_stop() {
    let sandbox = Sandbox::new();
    for at in 0..10 {
        sandbox.file(&format!("in/{at}"), b"x");
    }
    let wanted = |name: &Name| name.as_bytes() > b"4".as_slice();
    let scope = Scope {
        recursive: false,
        wanted: &wanted,
        aside: &|_| {},
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
fn a_source_that_cannot_be_read_fails_the_listing_and_a_directory_below_is_left_out() {
    let sandbox = Sandbox::new();
    open_to_all(&sandbox);
    sandbox.file("in/a", b"x");
    sandbox.file("in/d/b", b"x");
    fs::set_permissions(sandbox.at("in/d"), fs::Permissions::from_mode(0o000)).unwrap();
    unprivileged(|| {
        let store = sandbox.store("in");
        assert_eq!(names(&store, false), ["a"]);
        assert_eq!(names(&store, true), ["a"]);
        assert_fails(list(&sandbox.store("in/d"), true), Kind::Denied, "in/d");
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
        let sandbox = Sandbox::in_memory();
        let mut shell = Command::new("sh");
        // Bash and dash know -n; the child finds the limit far below the depth.
        shell.args(["-c", "ulimit -n 32 && exec \"$0\" \"$@\""]);
        let test = "listing::a_thousand_levels_need_no_thousand_descriptors";
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
        let directory = memory_dir();
        for at in 0..FILES {
            File::create(directory.path().join(format!("{at:06}.edi"))).unwrap();
        }
        let test = "listing::a_hundred_thousand_files_cost_no_memory";
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
        aside: &|_| {},
    };
    let peak_kib = || {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let number = line.unwrap().split_whitespace().nth(1).unwrap();
        number.parse::<usize>().unwrap()
    };
    // The code itself is memory, too, once it was run, and so is the allocator's first reserve.
    let mut first = 0;
    let mut warm_up = |_| {
        first += 1;
        if first < FILES / 10 {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    };
    store.list(&scope, &mut warm_up).unwrap();
    let before = peak_kib();
    let mut seen = 0;
    let mut count = |_| {
        seen += 1;
        ControlFlow::Continue(())
    };
    let listed = store.list(&scope, &mut count).unwrap();
    let grown = peak_kib() - before;
    assert_eq!((listed, seen), (Listed::Complete, FILES));
    // 100,000 allocations of 32 bytes, the least there are, would need 3,125 KiB; the kernel's own
    // counting is off by some hundred.
    assert!(grown < 1_500, "the peak grew by {grown} KiB");
}
