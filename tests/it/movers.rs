//! Several movers at once over the same rule, while new items come in at one end and a consumer
//! takes at the other what arrives, as Bots does: each item reaches it once at least, whole, and
//! what the log of each run says is true. It can reach it twice: how often is counted.

use std::collections::BTreeMap;

use rustix::process::Signal;

use crate::support::data::noise;
use crate::support::process::{Run, Running};
use crate::support::torture::{Totals, torture};
use crate::support::{DIRECTIONS, End, Sandbox, Tree, ends};

const ITEMS_A_ROUND: usize = 12;
const ROUNDS: usize = 6;

/// What one world has seen.
struct World {
    sandbox: Sandbox,
    direction: (End, End),
    produced: Tree,
    /// How often the consumer was given each item.
    received: BTreeMap<String, usize>,
    /// How often the logs say that an item was published.
    published: BTreeMap<String, usize>,
    fired: usize,
}

impl World {
    fn new(direction: (End, End)) -> Self {
        let sandbox = Sandbox::new();
        sandbox.default("concurrency: 4");
        sandbox.rule("r", &ends(direction));
        // Neither Bots nor a partner makes the mover's directories.
        sandbox.mkdir("in");
        Self {
            sandbox,
            direction,
            produced: Tree::default(),
            received: BTreeMap::new(),
            published: BTreeMap::new(),
            fired: 0,
        }
    }

    /// Brings new items to the source, under names that were never there.
    fn produce(&mut self, round: usize) {
        let item = |number: usize| {
            let seed = round * ITEMS_A_ROUND + number;
            // Empty, in memory, in a staging file.
            let size_bytes = [0, 700, 40_000, 180_000][number % 4];
            (
                format!("{round:03}-{number:02}.edi"),
                noise(size_bytes, seed as u64),
            )
        };
        let items: Tree = (0..ITEMS_A_ROUND).map(item).collect();
        self.sandbox.fill(self.direction.0, "in", &items);
        let all = std::mem::take(&mut self.produced);
        self.produced = all.union(items);
    }

    /// Takes all that is to be seen at the destination, in the order of names.
    fn consume(&mut self) {
        let seen = self.sandbox.at_end(self.direction.1, "out");
        for (name, bytes) in &seen.0 {
            if name.starts_with('.') {
                continue;
            }
            let whole = self.produced.0.get(name);
            assert_eq!(Some(bytes), whole, "{name} arrived altered");
            match self.direction.1 {
                End::S3 => self.sandbox.bucket().delete(&format!("out/{name}")),
                End::File => {
                    let path = self.sandbox.base().join("out").join(name);
                    std::fs::remove_file(path).expect("only the consumer takes it");
                }
            }
            *self.received.entry(name.clone()).or_default() += 1;
        }
    }

    /// So many movers at once; one of them is killed in the middle where `kill` says so.
    fn round(&mut self, movers: usize, kill: bool) {
        let mut running: Vec<Running> = (0..movers).map(|_| self.sandbox.start()).collect();
        let mut looks = 0;
        while !running.iter().all(Running::has_ended) {
            self.consume();
            looks += 1;
            if kill && looks == 2 && !running[0].has_ended() {
                running[0].signal_if_alive(Signal::KILL);
                self.fired += 1;
            }
        }
        for (number, run) in running.drain(..).enumerate() {
            let run = self.sandbox.finish(run);
            let died = kill && number == 0 && run.code() != 0;
            if !died {
                run.succeeds();
                sums_are_true(&run);
            }
            for line in run.of("moved").into_iter().chain(run.of("copied")) {
                let name = line.get("src").rsplit('/').next().unwrap_or_default();
                let size_bytes = self.produced.get(name).len() as u64;
                assert_eq!(line.number("bytes"), size_bytes, "{line:?}");
                *self.published.entry(name.to_owned()).or_default() += 1;
            }
        }
        self.consume();
        for name in self.published.keys() {
            let received = self.received.contains_key(name);
            assert!(
                received,
                "the log says that {name} was moved, and it never arrived"
            );
        }
    }

    /// A last run finds nothing left that did not arrive.
    fn end(mut self, movers: usize) -> Totals {
        self.round(1, false);
        let left = self.sandbox.at_end(self.direction.0, "in");
        assert!(left.is_empty(), "{left:?} is left");
        let missing: Vec<_> = self.produced.names();
        let missing: Vec<_> = missing
            .into_iter()
            .filter(|name| !self.received.contains_key(*name))
            .collect();
        assert!(
            missing.is_empty(),
            "{missing:?} never arrived with {movers} movers"
        );
        let deliveries: usize = self.received.values().sum();
        Totals {
            tried: self.produced.len(),
            fired: self.fired,
            duplicates: deliveries - self.produced.len(),
        }
    }
}

/// The sums at the end of a log are those of its lines.
#[track_caller]
fn sums_are_true(run: &Run) {
    let moved = run.of("moved");
    let copied = run.of("copied");
    let bytes: u64 = moved
        .iter()
        .chain(&copied)
        .map(|line| line.number("bytes"))
        .sum();
    for sums in [run.one("rule_done"), run.one("run_done")] {
        assert_eq!(sums.number("moved"), moved.len() as u64, "{run:?}");
        assert_eq!(sums.number("copied"), copied.len() as u64, "{run:?}");
        assert_eq!(
            sums.number("failed"),
            run.of("failed").len() as u64,
            "{run:?}"
        );
        assert_eq!(sums.number("bytes"), bytes, "{run:?}");
    }
}

fn many_rounds(movers: usize) {
    for direction in DIRECTIONS {
        let mut world = World::new(direction);
        for round in 0..ROUNDS * torture() {
            world.produce(round);
            world.round(movers, round % 3 == 2);
        }
        let (from, to) = direction;
        let kind = format!("movers-{movers}/{from:?}-{to:?}").to_lowercase();
        world.end(movers).tell(&kind);
    }
}

#[test]
fn two_movers_at_once_bring_each_item_once_at_least() {
    many_rounds(2);
}

#[test]
fn four_movers_at_once_bring_each_item_once_at_least() {
    many_rounds(4);
}
