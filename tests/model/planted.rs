//! The test of the test: bugs that are planted into a copy of the engine, each of which the model
//! must find.
//!
//! The engine itself knows nothing of them: a copy of its sources is made beside what Cargo builds,
//! some text in it replaced, and the model built of that. Text that is not there any more is a
//! failure too: whoever changes such a line moves its bug along.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use std::{env, fs};

/// Says to a copy that it is one.
const PLANTED: &str = "BOTS_MOVER_PLANTED";

struct Bug {
    /// What the engine does wrong.
    name: &'static str,
    /// Below `src`.
    file: &'static str,
    honest: &'static str,
    /// With `BUG` where it asks whether it is this one's turn.
    planted: &'static str,
}

const BUGS: &[Bug] = &[
    Bug {
        name: "takes a failed publication for done",
        file: "transfer.rs",
        honest: "publish(ends, wanted, &whole, &task.entry.name)?;",
        planted: "publish(ends, wanted, &whole, &task.entry.name).or_else(|error| {
            if BUG { Ok(Delivery::There(wanted.clone())) } else { Err(error) }
        })?;",
    },
    Bug {
        name: "removes what has changed since it was staged",
        file: "transfer.rs",
        honest: "match ends.source.remove(name, version)? {",
        planted: "let now = if BUG { ends.source.look(name)? } else { None };
            match ends.source.remove(name, now.as_ref().unwrap_or(version))? {",
    },
    Bug {
        name: "says moved of a source that stays",
        file: "transfer.rs",
        honest: "Removed::Changed => stays(",
        planted: "Removed::Changed if BUG => Ok(End::Moved { dest: dest.clone(), note: None }),
            Removed::Changed => stays(",
    },
    Bug {
        name: "replaces what it must not",
        file: "transfer.rs",
        honest: "Clash::Refuse)?",
        planted: "if BUG { Clash::Replace } else { Clash::Refuse })?",
    },
    Bug {
        name: "takes another item at the destination for its own",
        file: "transfer.rs",
        honest: "if content_matters && item.is_at(ends.dest, name)? {",
        planted: "if content_matters && (BUG || item.is_at(ends.dest, name)?) {",
    },
    Bug {
        name: "loses the last byte",
        file: "stage.rs",
        honest: "memory.extend_from_slice(bytes);",
        planted: "let end = self.written_bytes == self.expected_bytes && BUG;
            memory.extend_from_slice(&bytes[..bytes.len() - usize::from(end)]);",
    },
    Bug {
        name: "lets two items of a run have one destination",
        file: "plan.rs",
        honest: "Slot::Occupied(first) => {",
        planted: "Slot::Occupied(_) if BUG => Ok(()),
            Slot::Occupied(first) => {",
    },
    Bug {
        name: "takes an item twice in a run",
        file: "round.rs",
        honest: "if last.covers(&entry) || is_new {",
        planted: "if !BUG && (last.covers(&entry) || is_new) {",
    },
    Bug {
        name: "takes again in a run what was written in it",
        file: "round.rs",
        honest: "order == Order::ByAge && entry.modified > *since",
        planted: "!BUG && order == Order::ByAge && entry.modified > *since",
    },
    Bug {
        name: "lets failures use up `max_items`",
        file: "run.rs",
        honest: "if progress.forgiven < lane.rule.max_items",
        planted: "if !BUG && progress.forgiven < lane.rule.max_items",
    },
    Bug {
        name: "forgives more failures than `max_items`",
        file: "run.rs",
        honest: "progress.forgiven < lane.rule.max_items",
        planted: "(BUG || progress.forgiven < lane.rule.max_items)",
    },
    Bug {
        name: "ends a worker by a panic outside of the places",
        file: "run.rs",
        honest: "std::panic::catch_unwind(std::panic::AssertUnwindSafe(what)).ok()",
        planted: "if BUG { return Some(what()); }
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(what)).ok()",
    },
    Bug {
        name: "keeps a worker for a rule that lists",
        file: "schedule.rs",
        honest: "if self.running >= self.limit {",
        planted: "let lists = self.lanes.iter().any(|lane| lane.open && lane.is_empty());
        let kept = usize::from(BUG && lists && self.running > 0);
        if self.running + kept >= self.limit {",
    },
    Bug {
        name: "serves the first rule before all others",
        file: "schedule.rs",
        honest: "(lane.running, turn(*index))",
        planted: "if BUG { (0, *index) } else { (lane.running, turn(*index)) }",
    },
    Bug {
        name: "forgets a failure",
        file: "run.rs",
        honest: "lane.progress().tally.failed += 1;",
        planted: "if !BUG { lane.progress().tally.failed += 1; }",
    },
    Bug {
        name: "tells of a failure before nothing new starts",
        file: "run.rs",
        honest: "self.count_failure(lane);
        let events = self.rounds.events;
        events.failed(lane.rule, name, dest, attempt, error);",
        planted: "if !BUG { self.count_failure(lane); }
        let events = self.rounds.events;
        events.failed(lane.rule, name, dest, attempt, error);
        if BUG {
            (0..50).for_each(|_| crate::sync::others_first());
            self.count_failure(lane);
        }",
    },
    Bug {
        name: "goes on after a failure",
        file: "run.rs",
        honest: "self.config.exit_on_first_failure && ",
        planted: "!BUG && self.config.exit_on_first_failure && ",
    },
    Bug {
        name: "forgets what waits for its next attempt",
        file: "schedule.rs",
        honest: "self.running + self.later.len()",
        planted: "self.running + if BUG { 0 } else { self.later.len() }",
    },
    Bug {
        name: "has one more of a rule in flight than it may",
        file: "schedule.rs",
        honest: "&& self.in_flight() < self.limit",
        planted: "&& self.in_flight() < self.limit + usize::from(BUG)",
    },
    Bug {
        name: "does not wake who waits",
        file: "schedule.rs",
        honest: "if waiting {",
        planted: "if waiting && !BUG {",
    },
    Bug {
        name: "does not close a rule that Bots' lock has ended",
        file: "run.rs",
        honest: "let (workers, empty) = self.schedule.submit(index, items);",
        planted: "let (workers, empty) = self.schedule.submit(index, items);
            let empty = empty && !(BUG && self.lanes[index].progress().over);",
    },
];

/// The number of the bug whose turn it is.
static TURN: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Whether it is the turn of this bug.
pub(crate) fn is(name: &str) -> bool {
    let bug = BUGS.get(TURN.load(Ordering::Relaxed));
    bug.is_some_and(|bug| bug.name == name)
}

/// Whether this is the copy with the bugs.
pub(crate) fn is_planted() -> bool {
    env::var_os(PLANTED).is_some()
}

/// Gives each bug its turn, and says which `finds` it.
pub(crate) fn take_turns(finds: impl Fn() -> Option<u64>) -> bool {
    let mut missed = 0;
    for (turn, bug) in BUGS.iter().enumerate() {
        TURN.store(turn, Ordering::Relaxed);
        if let Some(seed) = finds() {
            println!("  seed {seed:4} finds: {}", bug.name);
        } else {
            println!("  NO SEED FINDS: {}", bug.name);
            missed += 1;
        }
    }
    missed == 0
}

/// Plants the bugs, and says whether the model found them all.
pub(crate) fn each_is_found() -> bool {
    let started = Instant::now();
    // The seeds before this left a hook that is silent outside of them.
    drop(std::panic::take_hook());
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("planted");
    plant(&copy);
    let output = hunt(&copy);
    let all = output.status.success();
    print!("{}", String::from_utf8_lossy(&output.stdout));
    if !all {
        print!("{}", String::from_utf8_lossy(&output.stderr));
    }
    let (bugs, seconds) = (BUGS.len(), started.elapsed().as_secs_f64());
    let which = if all { "all" } else { "not all" };
    println!("model: {which} of {bugs} planted bugs found in {seconds:.1} s");
    all
}

/// Makes the copy, with all bugs in it.
fn plant(copy: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // What is the same keeps its time, and is not built again.
    for folder in ["src", "tests/model", "tests/it/support"] {
        copy_sources(&root.join(folder), &copy.join(folder));
    }
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let (manifest, _) = manifest
        .split_once("[[test]]")
        .expect("the tests come last");
    let model = "[[test]]\nname = \"model\"\npath = \"tests/model/main.rs\"\nharness = false\n";
    let manifest = manifest.replacen("bots-mover", "planted", 1);
    // Neither the library nor the program is needed.
    write(
        &copy.join("Cargo.toml"),
        &format!("{manifest}{model}\n[workspace]\n"),
    );
    write(&copy.join("src/lib.rs"), "//! Empty.");
    write(&copy.join("src/main.rs"), "//! Empty.\nfn main() {}");
    let lock = fs::read_to_string(root.join("Cargo.lock")).unwrap();
    write(
        &copy.join("Cargo.lock"),
        &lock.replace("name = \"bots-mover\"", "name = \"planted\""),
    );
}

fn copy_sources(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_sources(&path, &to);
        } else if path.extension().is_some_and(|end| end == "rs") {
            write(&to, &with_bugs(&path));
        }
    }
}

/// The text of a source file, with the bugs that belong there.
fn with_bugs(path: &Path) -> String {
    let mut text = fs::read_to_string(path).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    let engine = path.parent().unwrap().ends_with("src");
    for bug in BUGS.iter().filter(|bug| engine && bug.file == name) {
        let Bug {
            honest, planted, ..
        } = bug;
        assert_eq!(text.matches(honest).count(), 1, "{name}: {honest}");
        let turn = format!("crate::planted::is({:?})", bug.name);
        text = text.replace(honest, &planted.replace("BUG", &turn));
    }
    text
}

/// Writes a file whose contents are not these already.
fn write(path: &Path, text: &str) {
    if fs::read_to_string(path).is_ok_and(|there| there == text) {
        return;
    }
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Builds the copy as this program was built, beside it, and runs it.
fn hunt(copy: &Path) -> Output {
    let target_dir = copy.ancestors().nth(2).expect("it is target/tmp/planted");
    let own = env::current_exe().unwrap();
    let profile = own.ancestors().nth(2).and_then(Path::file_name).unwrap();
    let profile = if profile == "debug" {
        "dev".as_ref()
    } else {
        profile
    };
    Command::new(env!("CARGO"))
        .args([
            "test",
            "--quiet",
            "--offline",
            "--test",
            "model",
            "--manifest-path",
        ])
        .arg(copy.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target_dir)
        .arg("--profile")
        .arg(profile)
        .env(PLANTED, "1")
        .output()
        .expect("cargo runs")
}
