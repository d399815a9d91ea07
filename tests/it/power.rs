//! The power fails at each operation that a move asks of a volume, and what was not synced is gone:
//! every item is whole at one end at least, nothing half is to be seen, and the next run completes
//! the work.
//!
//! The volume is a filesystem of the tests' own. It forgets as strictly as POSIX permits, and also
//! keeps what it need not keep: names without their data, and any part of what was done. A kill
//! loses no page cache and so proves nothing about syncs; it is tried in `crash`.
//!
//! The power fails at each operation that changes something, which tells all outcomes there are;
//! under `BOTS_MOVER_TORTURE` at those that only look, too.

use std::collections::BTreeSet;

use rustix::io::Errno;

use crate::support::data::noise;
use crate::support::torture::{Totals, torture};
use crate::support::volume::{Cut, Disk, Op, Trouble, Volume};
use crate::support::{End, Sandbox, Tree, tree};

/// How many subsets of what was not synced are drawn by lot at each operation.
const LOTS: usize = 8;

/// No move of a few files asks so much: it would loop.
const OPERATIONS_MAX: usize = 1000;

const IN: (End, End) = (End::S3, End::File);
const OUT: (End, End) = (End::File, End::S3);
const WITHIN: (End, End) = (End::File, End::File);

/// A small one, one that is staged in a file, and an empty one.
fn items() -> Tree {
    tree(&[
        ("a", noise(10, 1)),
        ("d/b", noise(200_000, 2)),
        ("c", Vec::new()),
    ])
}

/// One rule, and what is at its destination before.
#[derive(Clone, Copy)]
struct Case {
    direction: (End, End),
    keys: &'static str,
    /// The destination has other items of the same names.
    taken: bool,
    /// The filesystem does not know the flags of renameat2.
    links: bool,
    /// Staging files lie on the volume, too.
    staging: bool,
    /// How many items are on their way at once.
    concurrency: u32,
}

/// A destination that has to be made, and whose filesystem knows everything.
const fn case(direction: (End, End), keys: &'static str) -> Case {
    Case {
        direction,
        keys,
        taken: false,
        links: false,
        staging: false,
        concurrency: 1,
    }
}

/// A case with all that its runs need.
struct World {
    case: Case,
    sandbox: Sandbox,
    volume: Volume,
    /// What is on the volume before.
    before: Disk,
    /// What is at the destination before.
    there: Tree,
}

/// What both ends hold.
#[derive(Clone)]
struct Found {
    disk: Disk,
    bucket: Tree,
}

impl World {
    fn new(case: Case) -> Self {
        let there = if case.taken {
            tree(&[("a", "old"), ("c", "old"), ("d/b", "old")])
        } else {
            Tree::default()
        };
        let mut before = Disk::new();
        before.make_directories("tmp".as_ref());
        if case.direction.0 == End::File {
            before.fill("in", &items());
        }
        if case.taken && case.direction.1 == End::File {
            before.fill("deep/out", &there);
        }
        let sandbox = if case.direction == WITHIN {
            Sandbox::without_minio()
        } else {
            Sandbox::new()
        };
        let volume = Volume::new(before.clone());
        sandbox.default(&format!("base_file_path: {}", volume.path().display()));
        if case.staging {
            sandbox.env("TMPDIR", volume.path().join("tmp"));
        }
        let src = case.direction.0.at("in").replace('}', ", recursive: true}");
        let ends = format!("src: {src}, dest: {}", case.direction.1.at("deep/out"));
        let (concurrency, keys) = (case.concurrency, case.keys);
        sandbox.rule("r", &format!("{ends}, concurrency: {concurrency}, {keys}"));
        Self {
            case,
            sandbox,
            volume,
            before,
            there,
        }
    }

    /// Runs until the power fails after so many operations; tells whether it did.
    fn run_until(&mut self, after: usize) -> (Found, bool) {
        let mut bucket = Tree::default();
        for (end, path, items) in [
            (self.case.direction.0, "in", &items()),
            (self.case.direction.1, "deep/out", &self.there),
        ] {
            if end == End::S3 {
                bucket = bucket.union(items.renamed(|name| format!("{path}/{name}")));
            }
        }
        self.set(&Found {
            disk: self.before.clone(),
            bucket,
        });
        // Between two changes of the volume the bucket may change, which matters on the way out.
        let each = torture() > 1 || self.case.direction == OUT;
        let mut troubles = vec![if each {
            Trouble::PowerCut { after }
        } else {
            Trouble::PowerCutAtChange { after }
        }];
        if self.case.links {
            let (op, error) = (Op::RenameFlags, Errno::INVAL);
            troubles.push(Trouble::Refuses { op, error });
        }
        self.volume.meets(troubles);
        let run = self.sandbox.run();
        let found = self.found();
        if run.code() == 0 {
            self.is_complete(&found, &format!("after {after}: it said so"));
        }
        let dark = self.volume.is_dark();
        assert!(dark || run.code() == 0, "it failed in the light: {run:?}");
        (found, dark)
    }

    fn set(&mut self, found: &Found) {
        self.volume.exchange(found.disk.clone());
        if self.case.direction != WITHIN {
            let bucket = self.sandbox.bucket();
            let now = bucket.tree("");
            for name in now.clone().without(&found.bucket).names() {
                bucket.delete(name);
            }
            for (name, bytes) in found.bucket.clone().without(&now).0 {
                bucket.put(&name, bytes.0);
            }
        }
    }

    fn found(&self) -> Found {
        let bucket = if self.case.direction == WITHIN {
            Tree::default()
        } else {
            self.sandbox.bucket().tree("")
        };
        let disk = self.volume.disk();
        Found { disk, bucket }
    }

    fn source(&self, found: &Found) -> Tree {
        found.at(self.case.direction.0, "in")
    }

    /// What is new at the destination, under the names that it had at the source.
    fn delivered(&self, found: &Found, when: &str) -> Tree {
        let all = found.at(self.case.direction.1, "deep/out").visible();
        let new = all.clone().without(&self.there);
        if self.case.keys.contains("keep_both") {
            let old = all.without(&new);
            assert_eq!(old, self.there, "{when}");
            return new.renamed(|name| name.trim_end_matches("-1").to_owned());
        }
        new
    }

    #[track_caller]
    fn nothing_is_lost(&self, found: &Found, when: &str) {
        let (source, delivered) = (self.source(found), self.delivered(found, when));
        if self.case.keys.contains("copy") {
            assert_eq!(source, items(), "{when}");
        }
        assert_eq!(source.union(delivered), items(), "{when}");
    }

    #[track_caller]
    fn is_complete(&self, found: &Found, when: &str) {
        assert_eq!(self.delivered(found, when), items(), "{when}");
        let copy = self.case.keys.contains("copy");
        assert_eq!(self.source(found).is_empty(), !copy, "{when}");
    }
}

impl Found {
    fn at(&self, end: End, path: &str) -> Tree {
        if end == End::File {
            return self.disk.tree(path);
        }
        let prefix = format!("{path}/");
        let all = self.bucket.0.iter();
        let below = all.filter_map(|(name, bytes)| Some((name.strip_prefix(&prefix)?, &bytes.0)));
        below.collect()
    }
}

/// Everything that a power cut may leave.
fn cuts(after: usize) -> Vec<Cut> {
    let lots = LOTS * torture();
    let seeds = (0..lots).map(|lot| Cut::Some((after * lots + lot) as u64));
    [Cut::Strict, Cut::NamesOnly]
        .into_iter()
        .chain(seeds)
        .collect()
}

/// Fails unless there were so many moments at least: a volume that is not used proves nothing.
#[track_caller]
fn cut_everywhere(case: Case, moments_min: usize) {
    let mut world = World::new(case);
    let mut states = BTreeSet::new();
    let mut points = 0;
    for after in 0.. {
        assert!(after < OPERATIONS_MAX, "it loops");
        let (left, dark) = world.run_until(after);
        for cut in cuts(after) {
            let when = format!(
                "{:?} {}, {cut:?} after {after}, at {:?}",
                case.direction,
                case.keys,
                world.volume.met()
            );
            let found = Found {
                disk: left.disk.after(cut),
                bucket: left.bucket.clone(),
            };
            world.nothing_is_lost(&found, &when);
            if !dark {
                // What a run said that it did lasts, also a copy.
                assert_eq!(world.delivered(&found, &when), items(), "{when}");
            }
            points += 1;
            // From what was seen before a further run goes on as it did before.
            let picture = format!("{:?} {:?}", found.disk.picture(""), found.bucket);
            if states.insert(picture) {
                world.set(&found);
                world.sandbox.run().succeeds();
                world.is_complete(&world.found(), &when);
            }
        }
        if !dark {
            let (from, to) = world.case.direction;
            let totals = Totals {
                tried: points,
                fired: points,
                duplicates: 0,
            };
            totals.tell(&format!(
                "power/{from:?}-{to:?}{}",
                world.case.keys.replace(' ', "")
            ));
            assert!(after >= moments_min, "there were {after} moments only");
            return;
        }
    }
}

#[test]
fn a_power_cut_at_any_operation_of_a_move_in_loses_nothing() {
    cut_everywhere(case(IN, "mode: move"), 20);
}

#[test]
fn a_power_cut_at_any_operation_of_a_move_out_loses_nothing() {
    cut_everywhere(case(OUT, "mode: move"), 60);
}

#[test]
fn a_power_cut_at_any_operation_of_a_move_between_directories_loses_nothing() {
    cut_everywhere(case(WITHIN, "mode: move"), 23);
}

#[test]
fn a_power_cut_while_items_are_on_their_way_at_once_loses_nothing() {
    let at_once = Case {
        concurrency: 3,
        ..case(WITHIN, "mode: move")
    };
    cut_everywhere(at_once, 23);
}

#[test]
fn a_power_cut_while_files_are_replaced_leaves_the_old_or_the_new() {
    let taken = Case {
        taken: true,
        ..case(IN, "mode: move, if_exists: overwrite")
    };
    cut_everywhere(taken, 16);
}

#[test]
fn a_power_cut_while_both_are_kept_leaves_one_of_each() {
    let taken = Case {
        taken: true,
        ..case(WITHIN, "mode: move, if_exists: keep_both")
    };
    cut_everywhere(taken, 18);
}

#[test]
fn a_power_cut_while_nothing_may_be_replaced_loses_nothing() {
    cut_everywhere(case(WITHIN, "mode: move, if_exists: fail"), 23);
}

#[test]
fn a_power_cut_while_links_stand_for_renames_loses_nothing() {
    let links = Case {
        links: true,
        ..case(WITHIN, "mode: move, if_exists: fail")
    };
    cut_everywhere(links, 28);
}

#[test]
fn a_power_cut_with_the_staging_files_on_the_same_volume_loses_nothing() {
    let staging = Case {
        staging: true,
        ..case(OUT, "mode: move")
    };
    cut_everywhere(staging, 6);
}

#[test]
fn a_power_cut_at_any_operation_of_a_copy_keeps_the_source() {
    cut_everywhere(case(WITHIN, "mode: copy, if_exists: skip"), 20);
}
