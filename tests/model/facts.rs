//! What is known of one run: what it did at the places, what it said, and whether both are true.

use std::collections::{BTreeMap, BTreeSet};

use crate::log::Event;
use crate::object::{Entry, Name, Place};
use crate::plan::numbered;
use crate::rule::{IfExists, Mode, Rule};
use crate::store::{Order, Removed};
use crate::summary::Tally;
use crate::sync;
use crate::world::{Content, State, content_of};

/// How many numbered names the model may need.
const NUMBERS: u32 = 50;

/// What a rule says that does no more because of a lock file.
const LOCKED: &str = "Bots is at work there";

/// Why a listing leaves an item for later; a later listing of the same run may take it.
const YOUNG: &str = ", left until it is";

// What may be true of a run at once.
#[allow(clippy::struct_excessive_bools)]
#[derive(Default)]
pub(crate) struct Facts {
    /// Whatever it still does has no effect, and nobody hears what it says.
    pub(crate) dead: bool,
    pub(crate) dry_run: bool,
    /// Calls for an item that are under way.
    pub(crate) busy: usize,
    /// What it knows to be at which destination.
    pub(crate) delivered: BTreeSet<(String, Content)>,
    /// The same as items.
    there: BTreeSet<String>,
    /// How the removals ended whose answers it got.
    pub(crate) answers: BTreeMap<String, Removed>,
    fetched: BTreeMap<Content, BTreeSet<(String, Name)>>,
    /// Which source each destination was filled from.
    brought: BTreeMap<String, (String, Name)>,
    /// Items between their first fetch and their last line, with their source's place.
    active: BTreeMap<String, String>,
    /// Sources in which Bots is at work: their rules say nothing more of their items.
    locked: BTreeSet<String>,
    started: BTreeSet<String>,
    ended: BTreeSet<String>,
    /// The last item that started, in the order of its source.
    last: BTreeMap<String, (i128, Name)>,
    /// Listings that began.
    listed: BTreeMap<String, usize>,
    /// How many items may still start, once none should.
    starts_left: Option<usize>,
    /// Asked to stop while it was at something.
    stopped_at_work: bool,
    /// How many items started for the first time.
    starts: usize,
    /// How many each rule selected at its first listing.
    selected: BTreeMap<String, usize>,
    /// Rules without an item in flight though they have some, and how many started before.
    starved: BTreeMap<String, usize>,
    /// A line was lost to a fault of the program: what it said is not to be compared.
    pub(crate) mute: bool,
    /// What became of each rule's items: moved, copied, skipped, failed.
    counts: BTreeMap<String, [u64; 4]>,
    lines: Vec<Event>,
    /// What its items and listings failed with.
    pub(crate) failures: Vec<String>,
    /// How it ended.
    pub(crate) code: Option<u8>,
}

impl Facts {
    pub(crate) fn new(dry_run: bool) -> Self {
        Self {
            dry_run,
            ..Self::default()
        }
    }

    pub(crate) fn lists(&mut self, place: &str) {
        *self.listed.entry(place.to_owned()).or_default() += 1;
        self.last.remove(place);
    }

    /// From now on only those items start that a worker has picked already.
    fn starts_no_more_than(&mut self, picked: usize) {
        self.starts_left = Some(self.starts_left.map_or(picked, |left| left.min(picked)));
    }
}

impl State {
    /// The rule that takes from a place, where it is the only one.
    fn only_rule_from(&self, place: &str) -> Option<&Rule> {
        let rules = self.config.rules.iter();
        let mut here = rules.filter(|rule| rule.source.to_string() == place);
        here.next().filter(|_| here.next().is_none())
    }

    /// An item is staged: for the first time, or again.
    pub(crate) fn starts(&mut self, run: usize, place: &Place, entry: &Entry, order: Order) {
        let (at, item) = (place.to_string(), place.item(&entry.name));
        let only = self.only_rule_from(&at);
        let limit = only.map(|rule| rule.concurrency.unwrap_or(self.config.concurrency));
        let facts = &mut self.runs[run];
        if facts.dead {
            return;
        }
        let mut broken = Vec::new();
        if facts.started.insert(item.clone()) {
            facts.starts += 1;
            match &mut facts.starts_left {
                Some(0) => broken.push("started although no item should start any more"),
                Some(left) => *left -= 1,
                None => {}
            }
        }
        if facts.dry_run {
            broken.push("was staged by a dry run");
        }
        facts.active.insert(item.clone(), at.clone());
        let in_flight = facts.active.values().filter(|other| **other == at).count();
        if !facts.mute && limit.is_some_and(|limit| in_flight > limit) {
            broken.push("is one too many of its rule");
        }
        let age = match order {
            Order::ByName => 0,
            Order::ByAge => entry.modified.as_nanosecond(),
        };
        let key = (age, entry.name.clone());
        let last = facts.last.insert(at, key.clone());
        if limit == Some(1) && last.is_some_and(|last| last > key) {
            broken.push("is out of order");
        }
        for what in broken {
            self.broke(format!("run {run}: {item} {what}"));
        }
    }

    /// An item is staged whole.
    pub(crate) fn fetched(&mut self, run: usize, place: &Place, name: &Name, content: Content) {
        let fetched = &mut self.runs[run].fetched;
        let from = fetched.entry(content).or_default();
        from.insert((place.to_string(), name.clone()));
    }

    /// What becomes visible was staged by this run, from a source that belongs there.
    pub(crate) fn publishes(&mut self, run: usize, place: &Place, name: &Name, content: Content) {
        let (at, item) = (place.to_string(), place.item(name));
        let rules = self.config.rules.iter();
        let rules: Vec<_> = rules.filter(|rule| rule.dest.to_string() == at).collect();
        let facts = &self.runs[run];
        let belongs = |from: &&(String, Name)| {
            rules.iter().any(|rule| {
                let numbers = if rule.if_exists == IfExists::KeepBoth {
                    NUMBERS
                } else {
                    1
                };
                let mut names = (0..numbers).filter_map(|n| numbered(&from.1, n));
                rule.source.to_string() == from.0 && names.any(|dest| dest == *name)
            })
        };
        let from = facts.fetched.get(&content).into_iter().flatten();
        let Some(from) = from.into_iter().find(belongs).cloned() else {
            return self.broke(format!(
                "run {run} published {content} at {item}: from nowhere"
            ));
        };
        let dry_run = facts.dry_run;
        let before = self.runs[run].brought.insert(item.clone(), from.clone());
        if before.is_some_and(|before| before != from) {
            self.broke(format!("run {run} published two items at {item}"));
        }
        if dry_run {
            self.broke(format!("a dry run published at {item}"));
        }
    }

    /// The run knows now that these bytes are at a destination for good.
    pub(crate) fn delivered(&mut self, run: usize, place: &Place, name: &Name, bytes: &[u8]) {
        let facts = &mut self.runs[run];
        facts.there.insert(place.item(name));
        let content = content_of(bytes);
        facts
            .delivered
            .extend(content.map(|content| (place.to_string(), content)));
    }

    /// Somebody asked the run to stop.
    pub(crate) fn asked_to_stop(&mut self, run: usize) {
        let workers = self.config.concurrency;
        let facts = &mut self.runs[run];
        facts.starts_no_more_than(workers);
        facts.stopped_at_work |= !facts.active.is_empty();
    }

    /// Hears one line of a run, and compares it with what the run did.
    pub(crate) fn hears(&mut self, run: usize, line: &str) {
        if self.runs[run].dead {
            return;
        }
        let line = line.split_once(' ').map_or(line, |(_, rest)| rest);
        self.mix(line);
        self.tell(|| format!("run {run} says {line}"));
        let Some(event) = Event::parse_text(&format!("1970-01-01T00:00:00.000Z {line}")) else {
            return self.broke(format!("run {run} said what no line is: {line}"));
        };
        let alone = |rule: &Rule| self.only_rule_from(&rule.source.to_string()).is_some();
        let its = |rule: &&Rule| rule.name == event.get("rule");
        // Of a source that two rules take from it is not known whose answer it was.
        let alone = self.config.rules.iter().find(its).is_some_and(alone);
        let workers = self.config.concurrency;
        let halts = self.config.exit_on_first_failure;
        let facts = &mut self.runs[run];
        let src = field(&event, "src").unwrap_or_default().to_owned();
        let (note, dest) = (
            field(&event, "note"),
            field(&event, "dest").unwrap_or_default(),
        );
        let there = facts.there.contains(dest);
        let answer = facts.answers.get(&src);
        let is_true = match (event.event(), note) {
            ("moved" | "copied", _) if !alone => there,
            ("moved", None) => there && answer == Some(&Removed::Done),
            ("moved", Some(_)) => there && answer == Some(&Removed::Gone),
            ("copied", None) => there && answer.is_none(),
            ("copied", Some(_)) => {
                there && matches!(answer, Some(Removed::Changed | Removed::Locked(_)))
            }
            _ => true,
        };
        let young = event.get("reason").contains(YOUNG) && !facts.started.contains(&src);
        let ends = ["moved", "copied", "skipped", "failed"].contains(&event.event());
        let again = ends
            && !facts.mute
            && alone
            && !young
            && !src.is_empty()
            && !facts.ended.insert(src.clone());
        match event.event() {
            "moved" | "copied" | "skipped" => {
                facts.active.remove(&src);
                if event.get("reason").contains(LOCKED) {
                    let rules = self.config.rules.iter();
                    let places = rules.filter(its).map(|rule| rule.source.to_string());
                    facts.locked.extend(places);
                }
            }
            // It had begun before it came to be staged.
            "retry" if !src.is_empty() => {
                let mut rules = self.config.rules.iter();
                let place = rules.find(its).map(|rule| rule.source.to_string());
                facts.active.extend(place.map(|place| (src.clone(), place)));
                facts.started.insert(src);
            }
            "rule_start" => {
                let selected = usize::try_from(event.number("selected")).expect("it is small");
                facts
                    .selected
                    .insert(event.get("rule").to_owned(), selected);
            }
            "failed" => {
                facts.failures.push(event.get("error").to_owned());
                let item = facts.active.remove(&src).is_some();
                if halts && !facts.dry_run {
                    facts.starts_no_more_than(workers - usize::from(item));
                }
            }
            _ => {}
        }
        facts.lines.push(event);
        // Here all clocks are one.
        let is_true = is_true && !event_says(&facts.lines, "in the future");
        if !is_true || again {
            self.broke(format!("run {run} said what is not true: {line}"));
        }
    }

    /// The run is over: its sums are those of its lines, and its exit code says the same.
    pub(crate) fn ended(&mut self, run: usize, tally: &Tally, code: u8) {
        let facts = std::mem::take(&mut self.runs[run].lines);
        if self.runs[run].dead {
            return;
        }
        self.runs[run].code = Some(code);
        if self.runs[run].mute {
            if code == 0 {
                self.broke(format!("run {run} had a fault and ended well"));
            }
            return;
        }
        let mut broken = Vec::new();
        let mut sums = [0; 4];
        for rule in &self.config.rules {
            let of_rule = |line: &&Event| field(line, "rule") == Some(&rule.name);
            let lines: Vec<_> = facts.iter().filter(of_rule).collect();
            let rounds = self.runs[run].listed.get(&rule.source.to_string());
            let alone = self.only_rule_from(&rule.source.to_string()).is_some();
            let started = &self.runs[run].started;
            let once = alone && rounds == Some(&1);
            let heard = Heard::new(&lines, |src| started.contains(src));
            let halts = self.config.exit_on_first_failure;
            heard.check(rule, once, halts, &mut broken);
            let counts = heard.counts;
            self.runs[run].counts.insert(rule.name.clone(), counts);
            for (sum, count) in sums.iter_mut().zip(counts) {
                *sum += count;
            }
        }
        if sums != [tally.moved, tally.copied, tally.skipped, tally.failed] {
            broken.push(format!("the totals are {tally:?}, the lines have {sums:?}"));
        }
        let done: Vec<_> = facts
            .iter()
            .filter(|line| line.event() == "run_done")
            .collect();
        let signal = done
            .first()
            .is_some_and(|line| field(line, "signal").is_some());
        let expected = match (signal, tally.failed) {
            (true, _) => 143,
            (false, 0) => 0,
            (false, _) => 1,
        };
        if done.len() != 1 || code != expected || (self.runs[run].stopped_at_work && !signal) {
            broken.push(format!("it ended with {code}: {done:?}"));
        }
        let Facts { active, locked, .. } = &self.runs[run];
        for (item, _) in active.iter().filter(|(_, from)| !locked.contains(*from)) {
            broken.push(format!("it never said what became of {item}"));
        }
        for what in broken {
            self.broke(format!("run {run}: {what}"));
        }
    }
}

/// What is to be seen when nobody can go on before time passes, and when all is over.
impl State {
    /// Whoever could work does, and no rule waits for another one's backlog.
    pub(crate) fn all_wait(&mut self) {
        let workers = self.config.concurrency;
        for run in 0..self.runs.len() {
            let facts = &self.runs[run];
            let halted = facts.starts_left.is_some() || facts.code.is_some();
            if facts.dead || facts.dry_run || facts.mute || halted || sync::threads_are_short() {
                continue;
            }
            let mut broken = Vec::new();
            for rule in self.config.rules.clone() {
                let Some((unstarted, in_flight, begun)) = self.waiting(run, &rule) else {
                    continue;
                };
                let limit = rule.concurrency.unwrap_or(workers);
                let others = self.config.rules.len() - 1;
                let facts = &mut self.runs[run];
                if unstarted > 0 && in_flight < limit && facts.busy < workers {
                    broken.push(format!("nobody takes up {}", rule.name));
                }
                if unstarted == 0 || begun > 0 {
                    facts.starved.remove(&rule.name);
                    continue;
                }
                let starts = facts.starts;
                let before = *facts.starved.entry(rule.name.clone()).or_insert(starts);
                if starts - before > others {
                    broken.push(format!("{} waits for others' backlogs", rule.name));
                }
            }
            for what in broken {
                self.broke(format!("run {run}: {what}"));
            }
        }
    }

    /// Of a rule that was listed once and has its source for itself: how many items have not
    /// started, are in flight, and have begun.
    fn waiting(&self, run: usize, rule: &Rule) -> Option<(usize, usize, usize)> {
        let facts = &self.runs[run];
        let place = rule.source.to_string();
        self.only_rule_from(&place)?;
        let selected = *facts.selected.get(&rule.name)?;
        if facts.listed.get(&place) != Some(&1) || facts.locked.contains(&place) {
            return None;
        }
        let inside = format!("{}/", place.trim_end_matches('/'));
        let begun = facts.started.union(&facts.ended);
        let begun = begun.filter(|item| item.starts_with(&inside)).count();
        let in_flight = facts.active.values().filter(|at| **at == place).count();
        Some((selected.saturating_sub(begun), in_flight, begun))
    }

    /// After a run that nobody disturbed: what it left of a rule's items it said something of,
    /// unless the rule had taken all that it may.
    pub(crate) fn left_for_a_reason(&mut self, run: usize, rule: &Rule) {
        let from = rule.source.to_string();
        let fed = self.config.rules.iter();
        let fed = fed.clone().any(|other| other.dest.to_string() == from);
        let facts = &self.runs[run];
        let halted = self.config.exit_on_first_failure && facts.code != Some(0);
        if rule.mode == Mode::Copy || fed || halted || self.only_rule_from(&from).is_none() {
            return;
        }
        let Some([moved, _, _, failed]) = facts.counts.get(&rule.name).copied() else {
            return;
        };
        let max_items = rule.max_items as u64;
        if moved + failed.saturating_sub(max_items) >= max_items {
            return;
        }
        for text in self.names(&from) {
            let name = Name::new(text.as_bytes()).expect("no name is empty");
            let said = self.runs[run].ended.contains(&rule.source.item(&name));
            if !said && (rule.recursive || !text.contains('/')) {
                self.broke(format!("{from} {text} is left for no reason"));
            }
        }
    }
}

/// Whether the reason of the last line has these words.
fn event_says(lines: &[Event], words: &str) -> bool {
    let last = lines.last();
    last.is_some_and(|event| event.get("reason").contains(words))
}

/// A field of a line, where it has it.
fn field<'a>(event: &'a Event, key: &str) -> Option<&'a str> {
    Some(event.get(key)).filter(|value| !value.is_empty())
}

/// What the lines of a rule say.
struct Heard<'a> {
    lines: &'a [&'a Event],
    /// Moved, copied, skipped, failed.
    counts: [u64; 4],
    /// Of the skipped those that only a listing saw.
    passed_over: u64,
    /// Whether Bots' lock file ended the rule.
    locked: bool,
    failed_listings: u64,
}

impl<'a> Heard<'a> {
    fn new(lines: &'a [&'a Event], started: impl Fn(&str) -> bool) -> Self {
        let mut heard = Self {
            lines,
            counts: [0; 4],
            passed_over: 0,
            locked: false,
            failed_listings: 0,
        };
        for line in lines {
            let src = field(line, "src");
            let reason = field(line, "reason").unwrap_or_default();
            match line.event() {
                "moved" => heard.counts[0] += 1,
                "copied" => heard.counts[1] += 1,
                "failed" => {
                    heard.counts[3] += 1;
                    heard.failed_listings += u64::from(src.is_none());
                }
                "skipped" => {
                    heard.locked |= reason.contains(LOCKED);
                    let number = reason
                        .split(' ')
                        .next()
                        .and_then(|number| number.parse().ok());
                    let young = reason.contains(YOUNG);
                    let (count, passed_over) = match src {
                        Some(src) => (1, young && !started(src)),
                        None => (number.unwrap_or(0), true),
                    };
                    heard.counts[2] += count;
                    heard.passed_over += if passed_over { count } else { 0 };
                }
                _ => {}
            }
        }
        heard
    }

    fn all(&self, event: &str) -> Vec<&Event> {
        let lines = self.lines.iter().copied();
        lines.filter(|line| line.event() == event).collect()
    }

    fn check(&self, rule: &Rule, once: bool, halts: bool, broken: &mut Vec<String>) {
        let name = &rule.name;
        let [moved, copied, skipped, failed] = self.counts;
        let done = self.all("rule_done");
        let [done] = done[..] else {
            return broken.push(format!("{name} ended {} times", done.len()));
        };
        let said = ["moved", "copied", "skipped", "failed"].map(|key| done.number(key));
        if said != self.counts {
            broken.push(format!(
                "{name} has {:?} lines, and says {said:?}",
                self.counts
            ));
        }
        let taken = moved + copied + failed - self.failed_listings;
        // As many failures again do not count.
        let failed_items = failed - self.failed_listings;
        let max_items = rule.max_items as u64;
        let free = if halts {
            0
        } else {
            failed_items.min(max_items)
        };
        if taken - free > max_items {
            broken.push(format!("{name} took {taken} items of {}", rule.max_items));
        }
        if rule.mode == Mode::Copy && moved > 0 {
            broken.push(format!("{name} copies, and moved {moved}"));
        }
        let left = field(done, "not_started").map_or(0, |_| done.number("not_started"));
        let would = (self.all("would_move").len() + self.all("would_copy").len()) as u64;
        let ended = taken + would + skipped - self.passed_over + left;
        if let [start] = self.all("rule_start")[..]
            && once
            && !self.locked
            && self.failed_listings == 0
            && start.number("selected") != ended
        {
            let selected = start.number("selected");
            broken.push(format!("{name} selected {selected}, and {ended} ended"));
        }
    }
}
