//! What the log says of a run: each event's keys and their order, in one place.
//!
//! Says only what it is told; counts and decides nothing.

use crate::error::Error;
use crate::logger::{Level, Line, Logger};
use crate::object::{Name, Place};
use crate::plan::Selected;
use crate::rule::{Config, Mode, Rule};
use crate::shard::Shard;
use crate::summary::Tally;
use crate::sync::Instant;
use crate::transfer::Task;

/// The events of a run, on a log.
#[derive(Clone, Copy)]
pub struct Events<'a>(pub &'a Logger);

impl<'a> Events<'a> {
    /// `run_start`, and a `warning` for each that the config has.
    pub fn run_started(self, config: &Config, dry_run: bool) {
        let line = self
            .0
            .event(Level::Info, "run_start")
            .text("version", env!("CARGO_PKG_VERSION"))
            .number("rules", config.rules.len())
            .number("concurrency", config.concurrency)
            .flag("dry_run", dry_run);
        match config.shard {
            Some(shard) => line
                .text("shard", &shard.to_string())
                .text("max_items", &max_items(config, shard))
                .emit(),
            None => line.emit(),
        }
        for warning in &config.warnings {
            self.0
                .event(Level::Warn, "warning")
                .text("reason", warning)
                .emit();
        }
    }

    /// `rule_start`, with the age of the oldest eligible file.
    pub fn rule_started(self, rule: &Rule, selected: &Selected, oldest_age_seconds: Option<i64>) {
        let line = self
            .of(rule, Level::Info, "rule_start")
            .number("selected", selected.entries.len())
            .flag("more", selected.more);
        let line = match oldest_age_seconds {
            Some(age) => line.number("oldest_age_seconds", age),
            None => line,
        };
        line.text("mode", rule.mode.word())
            .text("src", &rule.source.to_string())
            .text("dest", &rule.dest.to_string())
            .emit();
    }

    /// `skipped`: something was left alone for this reason; an item, or what `src` says.
    pub fn skipped(self, rule: &Rule, level: Level, src: Option<&str>, reason: &str) {
        self.of(rule, level, "skipped")
            .maybe("src", src)
            .text("reason", reason)
            .emit();
    }

    /// `retry`: an attempt at an item, or at the rule's listing, failed; another will be made.
    pub fn retrying(self, rule: &Rule, name: Option<&Name>, attempt: u32, error: &Error) {
        let src = name.map(|name| rule.source.item(name));
        self.of(rule, Level::Warn, "retry")
            .maybe("src", src.as_deref())
            .number("attempt", attempt)
            .number("wait_seconds", rule.wait.as_secs())
            .text("error", &error.chain())
            .emit();
    }

    /// `failed`: the rule's listing exhausted its attempts.
    pub fn listing_failed(self, rule: &Rule, attempt: u32, error: &Error) {
        self.of(rule, Level::Error, "failed")
            .number("attempt", attempt)
            .text("error", &error.chain())
            .emit();
    }

    /// `failed`: a directory of the source cannot be read.
    pub fn directory_failed(self, rule: &Rule, path: &str, error: &Error) {
        self.of(rule, Level::Error, "failed")
            .text("src", path)
            .text("error", &error.chain())
            .emit();
    }

    /// `failed`: an item exhausted its attempts. `dest` is `None` when it may not have one.
    pub fn failed(
        self,
        rule: &Rule,
        name: &Name,
        dest: Option<&Name>,
        attempt: u32,
        error: &Error,
    ) {
        let dest = dest.map(|name| rule.dest.item(name));
        self.of(rule, Level::Error, "failed")
            .text("src", &rule.source.item(name))
            .maybe("dest", dest.as_deref())
            .number("attempt", attempt)
            .text("error", &error.chain())
            .emit();
    }

    /// `moved` or `copied`; a warning where there is something to note.
    pub fn delivered(
        self,
        event: &'static str,
        rule: &Rule,
        task: &Task,
        dest: &Name,
        note: Option<&str>,
        started: Instant,
    ) {
        let level = if note.is_some() {
            Level::Warn
        } else {
            Level::Info
        };
        self.of(rule, level, event)
            .text("src", &rule.source.item(&task.entry.name))
            .text("dest", &rule.dest.item(dest))
            .number("bytes", task.bytes)
            .number("ms", started.elapsed().as_millis())
            .number("attempt", task.attempt)
            .maybe("note", note)
            .emit();
    }

    /// `would_move` or `would_copy`.
    pub fn would_deliver(self, rule: &Rule, task: &Task, dest: &Name) {
        let event = match rule.mode {
            Mode::Move => "would_move",
            Mode::Copy => "would_copy",
        };
        self.of(rule, Level::Info, event)
            .text("src", &rule.source.item(&task.entry.name))
            .text("dest", &rule.dest.item(dest))
            .number("bytes", task.entry.size_bytes)
            .emit();
    }

    /// `progress` of an item that has been in flight for long; `names` at its source and its
    /// destination.
    pub fn progress(self, rule: &Rule, names: (&Name, &Name), bytes: u64, of: u64) {
        let from = still_silent(&rule.source).filter(|_| bytes == 0);
        let note = from.map(str::to_owned).or_else(|| {
            let silent = still_silent(&rule.dest)?;
            let written = format!("not yet synced, or not yet removed at its source; {silent}");
            let staged = (bytes == of / 2).then(|| silent.to_owned());
            (bytes == of).then_some(written).or(staged)
        });
        self.of(rule, Level::Info, "progress")
            .text("src", &rule.source.item(names.0))
            .text("dest", &rule.dest.item(names.1))
            .number("bytes", bytes)
            .number("of", of)
            .number("percent", u128::from(bytes) * 100 / u128::from(of.max(1)))
            .maybe("note", note.as_deref())
            .emit();
    }

    /// `progress`: a listing takes long, for so many seconds so far.
    pub fn listing_progress(self, rule: &Rule, seconds: u64) {
        let note = format!("listing for {seconds} s");
        let note = match still_silent(&rule.source) {
            Some(silent) => format!("{note}; {silent}"),
            None => note,
        };
        self.of(rule, Level::Info, "progress")
            .text("src", &rule.source.to_string())
            .text("note", &note)
            .emit();
    }

    /// `rule_done`.
    pub fn rule_done(self, rule: &Rule, tally: &Tally, started: Instant) {
        let line = self.of(rule, level_of(tally.failed > 0), "rule_done");
        counted(line, tally, started).emit();
    }

    /// `run_done`, with the signal that stopped the run, if one did.
    pub fn run_done(self, total: &Tally, started: Instant, code: u8, signal: Option<i32>) {
        let line = self.0.event(level_of(code != 0), "run_done");
        let line = counted(line, total, started).number("exit", code);
        match signal {
            Some(signal) => line.number("signal", signal).emit(),
            None => line.emit(),
        }
    }

    fn of(self, rule: &Rule, level: Level, event: &'static str) -> Line<'a> {
        self.0.event(level, event).text("rule", &rule.name)
    }
}

/// `250 in each of 4 shards`, of all rules.
fn max_items(config: &Config, shard: Shard) -> String {
    let all = || config.rules.iter().map(|rule| rule.max_items);
    let (least, most) = (all().min().unwrap_or(0), all().max().unwrap_or(0));
    let less = (least < most).then(|| format!("{least} to "));
    let less = less.unwrap_or_default();
    format!("{less}{most} {}", shard.each())
}

fn level_of(failed: bool) -> Level {
    if failed { Level::Error } else { Level::Info }
}

fn counted<'l>(line: Line<'l>, tally: &Tally, started: Instant) -> Line<'l> {
    let line = line
        .number("moved", tally.moved)
        .number("copied", tally.copied)
        .number("skipped", tally.skipped)
        .number("failed", tally.failed)
        .number("bytes", tally.bytes)
        .number("ms", started.elapsed().as_millis());
    if tally.not_started > 0 {
        line.number("not_started", tally.not_started)
    } else {
        line
    }
}

/// Why nothing may come of a directory for up to some minutes.
fn still_silent(source: &Place) -> Option<&'static str> {
    let note = "an NFS server that was restarted answers once its grace period is over";
    matches!(source, Place::File { .. }).then_some(note)
}
