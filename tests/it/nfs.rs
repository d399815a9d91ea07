//! What network filesystems and full disks do to a move, on the volume that the power tests use.
//!
//! What can be promised where a client shows old attributes of a file (NFS without locks, between
//! two openings): a file is opened anew after it was staged, and once more before it is removed, so
//! the client must ask the server each time (close-to-open consistency, nfs(5)). What changed
//! between the openings is seen then: no mixture of two states of a file is delivered, and what
//! was not delivered is not removed. Where the mount gives that up (`nocto`, or a server that lies)
//! nobody can promise either.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bots_mover::stage::PART_MIN_BYTES;
use rustix::io::Errno;

use crate::support::data::noise;
use crate::support::process::Run;
use crate::support::torture::Totals;
use crate::support::volume::{Act, Disk, Op, Trouble, Volume};
use crate::support::{End, Sandbox, Tree, ends, tree};

/// No move of two files asks so much: it would loop.
const OPERATIONS_MAX: usize = 400;

/// One item in memory, one in a staging file.
fn items() -> Tree {
    tree(&[("a", noise(100, 1)), ("b", noise(150_000, 2))])
}

/// A rule between two directories of one volume.
struct World {
    items: Tree,
    sandbox: Sandbox,
    volume: Volume,
    before: Disk,
    /// What was on the volume when a further run was seen to complete the work.
    completed: BTreeSet<String>,
}

impl World {
    fn new(keys: &str) -> Self {
        Self::holding(items(), keys)
    }

    fn holding(items: Tree, keys: &str) -> Self {
        let mut before = Disk::new();
        before.fill("in", &items);
        before.fill("out", &Tree::default());
        before.fill("tmp", &Tree::default());
        let volume = Volume::new(before.clone());
        let sandbox = Sandbox::without_minio();
        sandbox.default(&format!("base_file_path: {}", volume.path().display()));
        let dest = End::File.at("out");
        let src = "{type: file, path: in, recursive: true}";
        sandbox.rule(
            "r",
            &format!("src: {src}, dest: {dest}, concurrency: 1{keys}"),
        );
        Self {
            items,
            sandbox,
            volume,
            before,
            completed: BTreeSet::new(),
        }
    }

    /// One run, from the beginning, that meets this trouble.
    fn run(&mut self, troubles: impl Into<Vec<Trouble>>) -> Run {
        self.volume.exchange(self.before.clone());
        self.volume.meets(troubles);
        let run = self.sandbox.run();
        run.events();
        run
    }

    fn source(&self) -> Tree {
        self.volume.disk().tree("in")
    }

    fn dest(&self) -> Tree {
        self.volume.disk().tree("out").visible()
    }

    /// Each item is whole at one end at least and nothing else is there; a further run finishes.
    #[track_caller]
    fn nothing_is_lost(&mut self, when: &str) {
        assert_eq!(self.source().union(self.dest()), self.items, "{when}");
        let picture = format!("{:?}", self.volume.disk().picture(""));
        if self.completed.insert(picture) {
            self.volume.calms_down();
            self.sandbox.run().succeeds();
            self.is_complete(when);
        }
    }

    #[track_caller]
    fn is_complete(&self, when: &str) {
        assert_eq!(self.dest(), self.items, "{when}");
        assert!(self.source().is_empty(), "{when}");
    }

    /// Lets each operation meet trouble, one in each run, until a run asks for fewer; says how many
    /// there were.
    fn at_each(
        &mut self,
        trouble: impl Fn(usize) -> Trouble,
        mut check: impl FnMut(&mut Self, Run, &str),
    ) -> usize {
        for number in 1..OPERATIONS_MAX {
            let run = self.run([trouble(number)]);
            let Some(met) = self.volume.met() else {
                run.succeeds();
                self.is_complete("without trouble");
                return number - 1;
            };
            check(self, run, &format!("operation {number}, {met}"));
        }
        panic!("it loops");
    }
}

fn refuses(op: Op, error: Errno) -> Trouble {
    Trouble::Refuses { op, error }
}

/// Another host does something to the disk right before the n-th operation.
fn meanwhile(number: usize, act: impl FnOnce(&mut Disk) + Send + 'static) -> Trouble {
    let act = Some(Box::new(act) as Act);
    Trouble::Meanwhile { number, act }
}

#[test]
fn what_a_network_filesystem_does_not_know_is_no_hindrance() {
    let no_flags = || refuses(Op::RenameFlags, Errno::INVAL);
    let no_locks = || refuses(Op::GetLock, Errno::NOLCK);
    let no_links = || refuses(Op::Link, Errno::PERM);
    let squashed = || refuses(Op::Chown, Errno::PERM);
    let no_directory_sync = || refuses(Op::SyncDirectory, Errno::INVAL);
    for (keys, troubles) in [
        ("", vec![no_directory_sync()]),
        ("", vec![refuses(Op::SyncDirectory, Errno::OPNOTSUPP)]),
        ("", vec![no_locks()]),
        (", if_exists: fail", vec![no_flags()]),
        (", if_exists: keep_both", vec![no_flags()]),
        (", if_exists: skip", vec![no_flags()]),
        (
            "",
            vec![
                no_flags(),
                no_locks(),
                no_links(),
                squashed(),
                no_directory_sync(),
            ],
        ),
    ] {
        let mut world = World::new(keys);
        // The volume knows no O_TMPFILE either.
        world.sandbox.env("TMPDIR", world.volume.path().join("tmp"));
        let run = world.run(troubles);
        let operations = world.volume.operations();
        run.succeeds();
        assert!(world.volume.met().is_some(), "{keys}: {operations:?}");
        world.is_complete(keys);
        let all = world.volume.disk().picture("");
        let expected = ["in/", "out/", "out/a", "out/b", "tmp/"];
        assert_eq!(all.names(), expected, "{keys}: nothing is left");
        // No lock is ever taken, no owner, mode or time changed.
        let meddles = [Op::SetLock, Op::Chown, Op::SetAttr];
        let meddling = |(op, _): &&(Op, String)| meddles.contains(op);
        assert_eq!(operations.iter().find(meddling), None);
    }
}

#[test]
fn where_nothing_can_refuse_to_replace_the_item_fails_and_says_what_to_do() {
    for error in [Errno::PERM, Errno::OPNOTSUPP] {
        let mut world = World::new(", if_exists: fail");
        let no_flags = refuses(Op::RenameFlags, Errno::INVAL);
        let run = world.run([no_flags, refuses(Op::Link, error)]);
        run.fails()
            .says("failed", &["RENAME_NOREPLACE", "overwrite"]);
        assert_eq!(world.volume.disk().tree("out").len(), 0);
        world.nothing_is_lost("without links");
    }
}

/// The destination's filesystem refuses one thing throughout.
#[test]
fn a_refused_step_fails_the_item_and_leaves_nothing_half() {
    for (op, error, says) in [
        (Op::Create, Errno::DQUOT, "quota"),
        (Op::Create, Errno::ROFS, "read-only"),
        (Op::Create, Errno::ACCESS, "running as uid"),
        (Op::Create, Errno::NOSPC, "df -i"),
        (Op::Write, Errno::NOSPC, "full"),
        (Op::Write, Errno::DQUOT, "quota"),
        (Op::Sync, Errno::IO, "check the disk"),
        (Op::Sync, Errno::NOSPC, "full"),
        (Op::Sync, Errno::DQUOT, "quota"),
        // A network filesystem may tell only at the close what became of the data.
        (Op::Flush, Errno::IO, "check the disk"),
        (Op::Flush, Errno::NOSPC, "full"),
        (Op::Flush, Errno::DQUOT, "quota"),
        (Op::Rename, Errno::ACCESS, "running as uid"),
        (Op::SyncDirectory, Errno::IO, "check the disk"),
    ] {
        let mut world = World::new("");
        let run = world.run([refuses(op, error)]);
        let when = format!("{op:?} {error:?}");
        run.fails().says("failed", &["/out", says]);
        let out = world.volume.disk().tree("out");
        assert_eq!(out, out.clone().visible(), "{when}: a temporary is left");
        assert!(op == Op::SyncDirectory || out.is_empty(), "{when}");
        assert_eq!(world.source(), items(), "{when}");
        world.nothing_is_lost(&when);
    }
}

/// What goes to MinIO is staged in `TMPDIR`.
#[test]
fn a_refused_step_of_staging_fails_the_item_and_leaves_nothing() {
    for (op, error) in [
        (Op::Create, Errno::ACCESS),
        (Op::Create, Errno::ROFS),
        (Op::Write, Errno::NOSPC),
        (Op::Write, Errno::DQUOT),
        (Op::Read, Errno::IO),
    ] {
        let when = format!("{op:?} {error:?}");
        let sandbox = Sandbox::new();
        sandbox.fill(End::File, "in", &items());
        sandbox.rule("r", &ends((End::File, End::S3)));
        sandbox.default("exit_on_first_failure: false");
        let staging = Volume::new(Disk::new());
        staging.meets([refuses(op, error)]);
        sandbox.env("TMPDIR", staging.path());
        let run = sandbox.run();
        run.fails().says("failed", &["staging file", "TMPDIR"]);
        assert_eq!(staging.disk().picture("").len(), 0, "{when}");
        // The small one is staged in memory.
        assert_eq!(sandbox.at_end(End::S3, "out").names(), ["a"], "{when}");
        assert_eq!(sandbox.files("in").names(), ["b"], "{when}");
        staging.calms_down();
        sandbox.run().succeeds();
        assert_eq!(sandbox.at_end(End::S3, "out"), items(), "{when}");
    }
}

/// A large file is staged in its part file: the disk is full in the middle of the fetch.
#[test]
fn a_destination_that_becomes_full_in_mid_fetch_keeps_the_source_and_names_the_file() {
    for error in [Errno::NOSPC, Errno::DQUOT, Errno::IO] {
        let size = usize::try_from(PART_MIN_BYTES).unwrap() + 5;
        let mut world = World::holding(tree(&[("large", noise(size, 3))]), "");
        world.run([]).succeeds();
        let operations = world.volume.operations();
        let write = |(op, path): &(Op, String)| *op == Op::Write && path.contains(".bots-mover-");
        let writes = operations.iter().enumerate().filter(|(_, at)| write(at));
        let writes: Vec<usize> = writes.map(|(before, _)| before + 1).collect();
        assert!(writes.len() > 3, "{operations:?}");
        for number in [writes[0], writes[writes.len() / 2], *writes.last().unwrap()] {
            let run = world.run([Trouble::Fails { number, error }]);
            let met = world.volume.met().expect("it meets trouble");
            run.fails().says("failed", &["write ", "/out/large"]);
            let out = world.volume.disk().tree("out");
            assert!(out.is_empty(), "{met}: a temporary is left");
            world.nothing_is_lost(&met);
        }
    }
}

#[test]
fn a_stale_handle_at_any_operation_is_mended_by_opening_again() {
    let mut world = World::new(", retries: 1, wait_seconds: 0");
    let mut retried = Vec::new();
    let error = Errno::STALE;
    let stale = |number| Trouble::Fails { number, error };
    let tried = world.at_each(stale, |world, run, when| {
        assert_eq!(run.code(), 0, "{when}: {run:?}");
        world.is_complete(when);
        if !run.of("retry").is_empty() {
            retried.push(when.to_owned());
        }
    });
    tell("nfs/stale", tried);
    assert!(tried > 60, "{tried}");
    // A listing that gave entries already cannot go back: the rule's retries begin it anew.
    let listing = |when: &String| when.contains("ReadDirectory /in");
    assert!(
        retried.len() <= 1 && retried.iter().all(listing),
        "{retried:?}"
    );
}

/// What was staged in the directory may have gone with it: it is staged again.
#[test]
fn a_stale_handle_is_mended_while_a_large_file_is_published_too() {
    let size = usize::try_from(PART_MIN_BYTES).unwrap() + 5;
    let mut world = World::holding(tree(&[("large", noise(size, 3))]), "");
    world.run([]).succeeds();
    world.is_complete("without trouble");
    let operations = world.volume.operations();
    let part = |path: &str| path.contains(".bots-mover-");
    let last_write = operations
        .iter()
        .rposition(|(op, path)| *op == Op::Write && part(path));
    let last_write = last_write.expect("a part file is written");
    let removal = operations.iter().position(|(op, _)| *op == Op::Unlink);
    let removal = removal.expect("the source is removed");
    let error = Errno::STALE;
    let mut kinds = BTreeSet::new();
    let published = operations.iter().enumerate().take(removal);
    for (before, (op, _)) in published.skip(last_write) {
        let number = before + 1;
        let run = world.run([Trouble::Fails { number, error }]);
        let met = world.volume.met().expect("it meets trouble");
        run.succeeds();
        assert!(run.of("retry").is_empty(), "{met}: {run:?}");
        world.is_complete(&met);
        kinds.insert(format!("{op:?}"));
    }
    for kind in ["Write", "Sync", "Rename", "SyncDirectory"] {
        assert!(kinds.contains(kind), "{kinds:?}");
    }
}

#[test]
fn a_failure_of_any_operation_loses_nothing() {
    let mut world = World::new("");
    let mut tried = 0;
    for error in [Errno::IO, Errno::DQUOT, Errno::ACCESS] {
        let fails = |number| Trouble::Fails { number, error };
        tried += world.at_each(fails, |world, run, when| {
            if run.code() == 0 {
                assert_eq!(world.dest(), items(), "{when}: it said that all is well");
            }
            world.nothing_is_lost(when);
        });
    }
    tell("nfs/fails", tried);
    assert!(tried > 180, "{tried}");
}

/// A soft mount gives up on an answer though the server may have acted.
#[test]
fn an_answer_that_is_lost_at_any_operation_loses_nothing() {
    let mut tried = 0;
    for keys in ["", ", if_exists: fail", ", if_exists: keep_both"] {
        for error in [Errno::TIMEDOUT, Errno::STALE] {
            let mut world = World::new(keys);
            let lost = |number| Trouble::AnswerLost { number, error };
            tried += world.at_each(lost, |world, _, when| world.nothing_is_lost(when));
        }
    }
    tell("nfs/answer-lost", tried);
    assert!(tried > 360, "{tried}");
}

/// What one run and a further one in calm made of an item that another host changed meanwhile.
struct Changed {
    /// What the first run delivered.
    first: Option<Vec<u8>>,
    /// What was asked for from the moment of the change to the end of the first run.
    operations: Vec<(Op, String)>,
    /// What there is of it in the end.
    last: Vec<u8>,
}

/// Lets another host change the source of `b` before each operation, one in each run.
fn changed_at_each(
    keys: &str,
    more: fn() -> Vec<Trouble>,
    change: impl Fn(&mut Disk) + Clone + Send + 'static,
) -> Vec<Changed> {
    let mut world = World::new(keys);
    let mut all = Vec::new();
    for number in 1..OPERATIONS_MAX {
        let change = change.clone();
        let mut troubles = more();
        troubles.push(meanwhile(number, move |disk| change(disk)));
        let run = world.run(troubles);
        run.succeeds();
        if world.volume.met().is_none() {
            return all;
        }
        let first = world.dest().0.get("b").map(|bytes| bytes.0.clone());
        let operations = world.volume.operations().split_off(number - 1);
        world.volume.calms_down();
        world.sandbox.run().succeeds();
        assert!(world.source().is_empty(), "{run:?}");
        let last = world.dest().get("b").to_vec();
        all.push(Changed {
            first,
            operations,
            last,
        });
    }
    panic!("it loops");
}

impl Changed {
    /// Whether the change came behind the last look at the source, which is an operation of this
    /// kind. Between that and its removal nothing can be noticed: no system call removes a name
    /// only if it still is a certain file.
    fn was_too_late(&self, look: Op) -> bool {
        let is = |wanted: Op| move |(op, path): &(Op, String)| *op == wanted && path == "/in/b";
        let removal = self.operations.iter().position(is(Op::Unlink));
        removal.is_some_and(|removal| !self.operations[..removal].iter().any(is(look)))
    }

    /// Whether the first run still asked for the source after the change.
    fn touches_the_source(&self) -> bool {
        self.operations.iter().any(|(_, path)| path == "/in/b")
    }

    /// What was asked for right after the change.
    fn begin(&self) -> &[(Op, String)] {
        &self.operations[..self.operations.len().min(5)]
    }
}

/// Another host puts a new file in the place of the old one, whose handle is stale from then on.
#[test]
fn a_source_that_is_replaced_at_any_operation_is_delivered_whole() {
    let (old, new) = (items().get("b").to_vec(), noise(150_000, 3));
    let replacement = new.clone();
    let all = changed_at_each("", Vec::new, move |disk| disk.replace("in/b", &replacement));
    assert!(all.len() > 60, "{}", all.len());
    for changed in all {
        let at = changed.begin();
        let first = changed.first.as_ref();
        let whole = first.is_none_or(|there| *there == old || *there == new);
        assert!(whole, "a mixture was delivered: {at:?}");
        let kept = changed.last == new || changed.was_too_late(Op::GetAttr);
        assert!(kept, "it is lost: {at:?}");
    }
}

/// The client shows the length and time that the file had when it was last opened.
#[test]
fn a_source_that_changes_behind_stale_attributes_is_neither_mixed_nor_lost() {
    let stale = || vec![Trouble::StaleAttributes];
    let old = items().get("b").to_vec();
    let (other, more) = (noise(150_000, 3), noise(1000, 4));
    let appended = [old.as_slice(), &more].concat();
    let grow = move |disk: &mut Disk| disk.append("in/b", &more);
    let in_place = other.clone();
    let rewrite = move |disk: &mut Disk| disk.overwrite("in/b", &in_place);
    for (all, new) in [
        (changed_at_each("", stale, grow), appended),
        (changed_at_each("", stale, rewrite), other),
    ] {
        assert!(all.len() > 60, "{}", all.len());
        for changed in all {
            let at = changed.begin();
            let first = changed.first.as_ref();
            let whole = first.is_none_or(|there| *there == old || *there == new);
            assert!(whole, "a mixture was delivered: {at:?}");
            // What is changed when it is gone is not changed.
            let gone = changed.last == old && !changed.touches_the_source();
            assert!(
                changed.last == new || gone || changed.was_too_late(Op::Open),
                "it is lost: {at:?}"
            );
        }
    }
}

#[test]
fn what_somebody_has_open_is_replaced_and_removed_all_the_same() {
    let mut world = World::new("");
    world.before.fill("out", &tree(&[("a", "old")]));
    world.volume.exchange(world.before.clone());
    world.volume.meets([Trouble::SillyRenames]);
    let path = |name: &str| world.volume.path().join(name);
    let mut dest = fs::File::open(path("out/a")).unwrap();
    let mut source = fs::File::open(path("in/b")).unwrap();
    world.sandbox.run().succeeds();
    let hidden = |directory: &str| {
        let all = world.volume.disk().tree(directory);
        all.names()
            .iter()
            .filter(|name| name.starts_with(".nfs"))
            .count()
    };
    // The client keeps both under other names; no later run takes them.
    assert_eq!((hidden("in"), hidden("out")), (1, 1));
    let run = world.sandbox.run();
    run.succeeds().logs("rule_start", &[("selected", "0")]);
    let (mut old, mut moved) = (Vec::new(), Vec::new());
    dest.read_to_end(&mut old).unwrap();
    source.read_to_end(&mut moved).unwrap();
    assert_eq!(
        (old.as_slice(), moved.as_slice()),
        (b"old".as_slice(), items().get("b"))
    );
    drop((dest, source));
    // The kernel tells of the last close a little later than it was done.
    let start = Instant::now();
    while hidden("in") + hidden("out") > 0 {
        assert!(start.elapsed() < Duration::from_secs(30), "never closed");
        std::thread::sleep(Duration::from_millis(1));
    }
    world.is_complete("at last");
}

/// Somebody clears the destination away, with what has arrived there.
#[test]
fn a_destination_that_is_removed_at_any_operation_loses_nothing_else() {
    let mut world = World::new("");
    let taken = Arc::new(Mutex::new(Tree::default()));
    let at_each = Arc::clone(&taken);
    let removed = move |number| {
        let taken = Arc::clone(&at_each);
        *taken.lock().unwrap() = Tree::default();
        meanwhile(number, move |disk| {
            *taken.lock().unwrap() = disk.remove_all("out".as_ref()).visible();
        })
    };
    let tried = world.at_each(removed, |world, _, when| {
        let taken = taken.lock().unwrap().clone();
        let there = || world.dest().union(taken.clone());
        assert_eq!(world.source().union(there()), items(), "{when}");
        world.volume.calms_down();
        world.sandbox.run().succeeds();
        assert_eq!(there(), items(), "{when}");
        assert!(world.source().is_empty(), "{when}");
    });
    assert!(tried > 60, "{tried}");
}

#[test]
fn too_few_open_files_fail_the_item_and_lose_nothing() {
    let mut refused = 0;
    for open_files in 3.. {
        let sandbox = Sandbox::without_minio();
        sandbox.fill(End::File, "in", &items());
        sandbox.rule("r", &ends((End::File, End::File)));
        sandbox.launch_through(&["prlimit", &format!("--nofile={open_files}")]);
        let run = sandbox.run();
        let left = sandbox.files("in").union(sandbox.files("out"));
        assert_eq!(left, items(), "{open_files}: {run:?}");
        sandbox.launch_plainly();
        sandbox.run().succeeds();
        assert_eq!(sandbox.files("out"), items(), "{open_files}");
        if run.code() == 0 {
            break;
        }
        refused += usize::from(run.stdout.contains("Too many open files"));
        assert!(open_files < 100, "{run:?}");
    }
    assert!(refused > 2, "{refused}");
}

fn tell(kind: &str, tried: usize) {
    let fired = tried;
    let duplicates = 0;
    let totals = Totals {
        tried,
        fired,
        duplicates,
    };
    totals.tell(kind);
}
