//! The engine by itself, between places in memory that do what a test says: for what no real
//! directory or server does on demand.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use bots_mover::config;
use bots_mover::context::Context;
use bots_mover::error::{Error, Kind, Result};
use bots_mover::logger::{Format, Level, Logger};
use bots_mover::object::{Attributes, Entry, Name, Place, Version};
use bots_mover::part::PartFile;
use bots_mover::rule::LocalTime;
use bots_mover::run::{Stores, World, run};
use bots_mover::stage::{Stage, Staged};
use bots_mover::store::{Clash, Fetched, Listed, Order, Published, Removed, Scope, Store};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::support::log::Event;

/// Longer than any of these runs takes on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What a place is asked, and what it is asked about: an item, or the place itself.
type Mishap = dyn Fn(&str, &str) -> Result<()> + Send + Sync;

/// Items by the place they are at and their names.
type Items = BTreeMap<(String, String), Vec<u8>>;

/// All places of a run.
#[derive(Clone)]
struct Memory {
    items: Arc<Mutex<Items>>,
    /// Asked before anything is done; fails or panics as the test says.
    mishap: Arc<Mishap>,
    context: Arc<Context>,
}

/// How a run between places in memory ended.
struct Ended {
    code: u8,
    events: Vec<Event>,
    memory: Memory,
}

impl Memory {
    fn new(mishap: impl Fn(&str, &str) -> Result<()> + Send + Sync + 'static) -> Self {
        let context = Context::new(Timestamp::now, std::env::temp_dir());
        Self {
            items: Arc::default(),
            mishap: Arc::new(mishap),
            context: Arc::new(context),
        }
    }

    fn with(self, place: &str, names: &[&str]) -> Self {
        for name in names {
            let key = (place.to_owned(), (*name).to_owned());
            self.items
                .lock()
                .unwrap()
                .insert(key, name.as_bytes().to_vec());
        }
        self
    }

    fn names(&self, place: &str) -> Vec<String> {
        let items = self.items.lock().unwrap();
        let here = items.keys().filter(|(at, _)| at == place);
        here.map(|(_, name)| name.clone()).collect()
    }

    /// Runs rules, each `name: more keys`, from the directory `/in/<name>` to `/out/<name>`.
    fn run(self, defaults: &str, rules: &[&str]) -> Ended {
        self.run_as(defaults, rules, false)
    }

    fn run_as(self, defaults: &str, rules: &[&str], dry_run: bool) -> Ended {
        let rules = rules.iter().map(|rule| {
            let (name, keys) = rule.split_once(": ").unwrap_or((rule, ""));
            format!(
                "  {name}: {{src: {{type: file, path: /in/{name}}}, \
                 dest: {{type: file, path: /out/{name}}}, {keys}}}\n"
            )
        });
        let rules: String = rules.collect();
        let text = format!("config:\n  defaults: {{wait_seconds: 0, {defaults}}}\n{rules}");
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let config = config::parse(&text, "test", None).expect("a config");
            let log = Shared {
                text: Arc::default(),
                mishap: Arc::clone(&self.mishap),
            };
            let sink = Box::new(log.clone());
            let logger = Logger::new(Format::Text, Level::Info, Timestamp::now, sink);
            let instant = LocalTime {
                at: Timestamp::now(),
                zone: TimeZone::UTC,
            };
            let world = World {
                context: &self.context,
                log: &logger,
                instant: &instant,
                dry_run,
            };
            let code = run(&config, &self, &world).code;
            let text = String::from_utf8(log.text.lock().unwrap().clone()).expect("UTF-8");
            let parse = |line| Event::parse_text(line).expect("a log line");
            let events = text.lines().map(parse).collect();
            let memory = self;
            let _ = tell.send(Ended {
                code,
                events,
                memory,
            });
        });
        told.recv_timeout(TIMEOUT).expect("the run ends")
    }
}

impl Ended {
    fn of(&self, event: &str) -> Vec<&Event> {
        let all = self.events.iter();
        all.filter(|line| line.event() == event).collect()
    }
}

/// What was said; asks the mishap before each line.
#[derive(Clone)]
struct Shared {
    text: Arc<Mutex<Vec<u8>>>,
    mishap: Arc<Mishap>,
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(bytes);
        // Only a panic says that a line went wrong: a place fails, a log does not.
        let _ = (self.mishap)("say", &line);
        self.text.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stores for Memory {
    fn open(&self, place: &Place, _excluded: Option<&Place>) -> Result<Box<dyn Store>> {
        Ok(Box::new(Shelf {
            place: place.clone(),
            memory: self.clone(),
        }))
    }
}

/// One place of a [`Memory`].
struct Shelf {
    place: Place,
    memory: Memory,
}

impl Shelf {
    fn key(&self, name: &Name) -> (String, String) {
        (self.place.to_string(), name.lossy().into_owned())
    }

    fn find(&self, name: &Name) -> Option<Vec<u8>> {
        let items = self.memory.items.lock().unwrap();
        items.get(&self.key(name)).cloned()
    }

    fn mishap(&self, what: &str, name: &Name) -> Result<()> {
        (self.memory.mishap)(what, &self.place.item(name))
    }
}

fn version(bytes: &[u8]) -> Version {
    let etag = String::from_utf8_lossy(bytes);
    Version::object(&etag, jiff::Timestamp::UNIX_EPOCH)
}

impl Store for Shelf {
    fn place(&self) -> &Place {
        &self.place
    }

    fn order(&self) -> Order {
        Order::ByName
    }

    fn must_exist(&self) -> Result<()> {
        (self.memory.mishap)("exists", &self.place.to_string())
    }

    fn list(
        &self,
        scope: &Scope<'_>,
        sink: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<Listed> {
        (self.memory.mishap)("list", &self.place.to_string())?;
        for text in self.memory.names(&self.place.to_string()) {
            let name = Name::new(text.clone().into_bytes()).expect("a name");
            let entry = Entry {
                size_bytes: text.len() as u64,
                modified: Timestamp::UNIX_EPOCH,
                version: version(text.as_bytes()),
                name,
            };
            if (scope.wanted)(&entry.name) && sink(entry).is_break() {
                return Ok(Listed::Stopped);
            }
        }
        Ok(Listed::Complete)
    }

    fn look(&self, name: &Name) -> Result<Option<Version>> {
        self.mishap("look", name)?;
        Ok(self.find(name).map(|bytes| version(&bytes)))
    }

    fn fetch(&self, entry: &Entry, stage: &mut Stage<'_>) -> Result<Fetched> {
        self.mishap("fetch", &entry.name)?;
        let bytes = self.find(&entry.name).expect("nobody else takes it");
        stage.begin(bytes.len() as u64, None)?;
        stage.write(&bytes)?;
        Ok(Fetched {
            staged: stage.finish()?.0,
            version: version(&bytes),
            attributes: Attributes::default(),
        })
    }

    fn room(&self, _name: &Name, _size_bytes: u64) -> Result<PartFile> {
        unreachable!("all items fit memory")
    }

    fn publish(
        &self,
        name: &Name,
        staged: &Staged,
        _attributes: &Attributes,
        _clash: Clash,
    ) -> Result<Published> {
        self.mishap("publish", name)?;
        let bytes = staged.in_memory().expect("it is small").to_vec();
        let mut items = self.memory.items.lock().unwrap();
        items.insert(self.key(name), bytes);
        Ok(Published::Done)
    }

    fn holds(&self, name: &Name, staged: &Staged) -> Result<bool> {
        Ok(self.find(name).as_deref() == staged.in_memory())
    }

    fn remove(&self, name: &Name, _version: &Version) -> Result<Removed> {
        self.mishap("remove", name)?;
        self.memory.items.lock().unwrap().remove(&self.key(name));
        Ok(Removed::Done)
    }
}

/// Fails the first `times` calls that are `what` about `item`.
fn failing(
    what: &'static str,
    item: &'static str,
    times: usize,
    kind: Kind,
) -> impl Fn(&str, &str) -> Result<()> + Send + Sync {
    let left = Mutex::new(times);
    move |asked, about| {
        let mut left = left.lock().unwrap();
        if asked != what || about != item || *left == 0 {
            return Ok(());
        }
        *left -= 1;
        Err(Error::new(kind, format!("{asked} {about}")).because("made up by the test"))
    }
}

fn panicking(what: &'static str, item: &'static str) -> Memory {
    Memory::new(move |asked, about| {
        assert!(asked != what || about != item, "made up by the test");
        Ok(())
    })
}

#[test]
fn an_attempt_that_panics_fails_its_item_and_the_others_move() {
    for what in ["fetch", "remove"] {
        let memory = panicking(what, "/in/r/b").with("/in/r", &["a", "b", "c"]);
        let ended = memory.run("exit_on_first_failure: false", &["r"]);
        assert_eq!(ended.code, 1, "{:?}", ended.events);
        assert_eq!(ended.of("failed").len(), 1, "{:?}", ended.events);
        assert!(ended.memory.names("/in/r").contains(&"b".to_owned()));
    }
}

#[test]
fn a_listing_that_panics_fails_its_rule_and_the_run_ends() {
    let memory = panicking("list", "/in/r").with("/in/r", &["a"]);
    let ended = memory
        .with("/in/s", &["b"])
        .run("exit_on_first_failure: false", &["r", "s"]);
    assert_eq!(ended.code, 1, "{:?}", ended.events);
    assert_eq!(ended.of("failed")[0].get("rule"), "r");
    assert_eq!(ended.memory.names("/in/r"), ["a"]);
    assert_eq!(ended.of("run_done").len(), 1);
}

#[test]
fn a_panic_at_any_call_or_line_is_a_failure_and_keeps_nobody_waiting() {
    for dry_run in [false, true] {
        let mut call = 0;
        loop {
            let (calls, hit) = (AtomicUsize::new(0), Arc::new(AtomicBool::new(false)));
            let hits = Arc::clone(&hit);
            let memory = Memory::new(move |asked, about| {
                if calls.fetch_add(1, Ordering::SeqCst) == call {
                    hits.store(true, Ordering::SeqCst);
                    panic!("made up by the test: {asked} {about}");
                }
                Ok(())
            });
            let names = ["a", "b", "c"];
            let memory = memory.with("/in/r", &names).with("/in/s", &["x"]);
            let defaults = "exit_on_first_failure: false, concurrency: 2";
            let ended = memory.run_as(defaults, &["r: max_items: 2", "s"], dry_run);
            if !hit.load(Ordering::SeqCst) {
                assert_eq!(ended.code, 0, "{:?}", ended.events);
                break;
            }
            assert_eq!(ended.code, 1, "call {call}: {:?}", ended.events);
            for name in names.map(str::to_owned) {
                let at = |place| ended.memory.names(place).contains(&name);
                assert!(at("/in/r") || at("/out/r"), "call {call}: {name}");
            }
            call += 1;
        }
        let least = if dry_run { 12 } else { 20 };
        assert!(call >= least, "{call} calls and lines");
    }
}

/// Each of these cannot be fetched, whatever is tried.
fn poisoned(items: &'static [&'static str]) -> Memory {
    Memory::new(move |asked, about| {
        if asked == "fetch" && items.contains(&about) {
            return Err(Error::new(Kind::Invalid, "made up by the test"));
        }
        Ok(())
    })
}

#[test]
fn failures_do_not_use_up_max_items() {
    let memory = poisoned(&["/in/r/a", "/in/r/b", "/in/r/c"]);
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let memory = memory.with("/in/r", &names);
    let ended = memory.run("exit_on_first_failure: false, max_items: 3", &["r"]);
    assert_eq!(ended.code, 1, "{:?}", ended.events);
    assert_eq!(ended.memory.names("/out/r"), ["d", "e", "f"]);
    let done = ended.of("rule_done")[0];
    assert_eq!((done.number("moved"), done.number("failed")), (3, 3));
    assert_eq!(ended.of("rule_start")[0].number("selected"), 3);
}

#[test]
fn no_more_failures_than_max_items_are_made_up_for() {
    let poison = &[
        "/in/r/a", "/in/r/b", "/in/r/c", "/in/r/d", "/in/r/e", "/in/r/f",
    ];
    let names = ["a", "b", "c", "d", "e", "f", "g"];
    let memory = poisoned(poison).with("/in/r", &names);
    let ended = memory.run("exit_on_first_failure: false, max_items: 3", &["r"]);
    assert_eq!(ended.of("failed").len(), 6, "{:?}", ended.events);
    assert_eq!(ended.memory.names("/in/r"), names, "g waits");
}

#[test]
fn a_failure_that_ends_the_run_is_not_made_up_for() {
    let memory = poisoned(&["/in/r/a"]).with("/in/r", &["a", "b"]);
    for dry_run in [false, true] {
        let ended = memory.clone().run_as("max_items: 1", &["r"], dry_run);
        assert_eq!(ended.memory.names("/in/r"), ["a", "b"]);
        let lists = ended.of("would_move").len() + ended.of("failed").len();
        assert_eq!(lists, 1, "{:?}", ended.events);
    }
}

#[test]
fn a_rule_that_lists_again_takes_no_worker_from_the_others() {
    let (tell_listed, listed) = mpsc::channel();
    let (tell_moved, moved) = mpsc::channel();
    let (listed, moved) = (Mutex::new(listed), Mutex::new(moved));
    let lists = AtomicUsize::new(0);
    let gone = failing("fetch", "/in/r/a", 1, Kind::Gone);
    let tell = Mutex::new((tell_listed, tell_moved));
    let memory = Memory::new(move |asked, about| {
        let late = |_| Error::new(Kind::Invalid, "waited for the other rule in vain");
        match (asked, about) {
            // The other rule has its item only once this one lists again, and that lasts until the
            // other one's item is there.
            ("list", "/in/r") if lists.fetch_add(1, Ordering::SeqCst) == 1 => {
                tell.lock().unwrap().0.send(()).unwrap();
                let moved = moved.lock().unwrap();
                return moved.recv_timeout(TIMEOUT / 2).map_err(late);
            }
            ("list", "/in/s") => {
                let listed = listed.lock().unwrap();
                return listed.recv_timeout(TIMEOUT / 2).map_err(late);
            }
            ("publish", "/out/s/x") => tell.lock().unwrap().1.send(()).unwrap(),
            _ => {}
        }
        gone(asked, about)
    });
    let memory = memory.with("/in/r", &["a", "b"]).with("/in/s", &["x"]);
    let ended = memory.run("concurrency: 1, max_items: 1", &["r", "s"]);
    assert_eq!(ended.code, 0, "{:?}", ended.events);
    assert_eq!(ended.memory.names("/out/r"), ["b"]);
}

#[test]
fn a_source_that_changes_while_it_is_staged_is_staged_again_in_the_same_attempt() {
    let memory = Memory::new(failing("fetch", "/in/r/a", 3, Kind::Changed));
    let ended = memory.with("/in/r", &["a"]).run("", &["r"]);
    assert_eq!(ended.code, 0, "{:?}", ended.events);
    assert_eq!(ended.of("moved")[0].number("attempt"), 1);

    let memory = Memory::new(failing("fetch", "/in/r/a", 4, Kind::Changed));
    let ended = memory.with("/in/r", &["a"]).run("retries: 1", &["r"]);
    assert_eq!(ended.code, 0, "{:?}", ended.events);
    assert_eq!(ended.of("moved")[0].number("attempt"), 2, "not for ever");
}

#[test]
fn what_waits_for_its_next_attempt_goes_on_after_a_failure_elsewhere() {
    let waits = failing("fetch", "/in/r/a", 1, Kind::Other);
    let fails = failing("fetch", "/in/s/x", 1, Kind::Invalid);
    let memory = Memory::new(move |asked, about| {
        if asked == "fetch" && about == "/in/s/x" {
            // The other item waits by now.
            std::thread::sleep(Duration::from_millis(300));
        }
        waits(asked, about).and_then(|()| fails(asked, about))
    });
    let memory = memory.with("/in/r", &["a", "b"]).with("/in/s", &["x", "y"]);
    let rules = [
        "r: wait_seconds: 1, retries: 1, concurrency: 1",
        "s: concurrency: 1",
    ];
    let ended = memory.run("", &rules);
    assert_eq!(ended.code, 1, "{:?}", ended.events);
    assert_eq!(ended.memory.names("/out/r"), ["a"], "{:?}", ended.events);
    assert_eq!(ended.memory.names("/in/r"), ["b"], "no new item starts");
    assert_eq!(ended.memory.names("/in/s"), ["x", "y"]);
}

#[test]
fn a_stop_ends_a_dry_run_and_what_it_did_not_get_to_is_no_failure() {
    let context = Arc::new(Mutex::new(None::<Arc<Context>>));
    let known = Arc::clone(&context);
    let looked = Mutex::new(0);
    let memory = Memory::new(move |asked, _| {
        let guard = known.lock().unwrap();
        let stop = &guard.as_ref().expect("set before the run").stop;
        let mut looked = looked.lock().unwrap();
        *looked += i32::from(asked == "look");
        if *looked == 2 {
            stop.request(15);
        }
        stop.check_request()
    });
    *context.lock().unwrap() = Some(Arc::clone(&memory.context));
    let memory = memory.with("/in/r", &["a", "b", "c", "d"]);
    let ended = memory.run_as("", &["r"], true);
    assert_eq!(ended.code, 143, "{:?}", ended.events);
    assert_eq!(ended.of("would_move").len(), 1, "{:?}", ended.events);
    let done = ended.of("rule_done")[0];
    assert_eq!((done.number("failed"), done.number("not_started")), (0, 3));
}

#[test]
fn a_run_that_is_stopped_before_it_lists_does_nothing_and_ends() {
    for dry_run in [false, true] {
        let memory = Memory::new(|_, _| Ok(())).with("/in/r", &["a"]);
        memory.context.stop.request(15);
        let ended = memory.run_as("", &["r"], dry_run);
        assert_eq!(ended.code, 143, "{:?}", ended.events);
        assert_eq!(ended.memory.names("/in/r"), ["a"]);
        let said: Vec<_> = ended.events.iter().map(Event::event).collect();
        assert_eq!(said, ["run_start", "skipped", "rule_done", "run_done"]);
    }
}
