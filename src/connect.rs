//! `check --connect`: tries what a run would need, place by place, and tells it line by line.
//!
//! Continues after a failure, because an operator wants to see all of them, and leaves out only the
//! probes that an earlier failure of the same place already answers. Must leave nothing behind; how
//! each probe does that is said in `store::s3` and `store::local`. Stops between two probes.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::ops::ControlFlow;

use crate::context::Context;
use crate::error::Kind;
use crate::object::Place;
use crate::open::RealStores;
use crate::rule::{Config, IfExists, Mode, Rule};
use crate::stage::{MEMORY_LIMIT_BYTES, Stage};
use crate::store::local::free_space;
use crate::store::{Finding, Right};
use crate::summary::{Tally, exit_code};

/// Tries all places of the rules and gives each line to `say` as soon as it is known; then the exit
/// code.
pub(crate) fn connect(config: &Config, stores: &RealStores, say: &mut dyn FnMut(&str)) -> u8 {
    let mut teller = Teller {
        context: &stores.context,
        say,
        failed: 0,
    };
    // The last line says why it broke off.
    let _ = teller.try_all(&needed(config), stores);
    teller.end()
}

/// A place, and what the rules do there.
struct Needed<'a> {
    place: &'a Place,
    rights: BTreeSet<Right>,
    /// Directories below are read, too.
    recursive: bool,
    rules: Vec<&'a str>,
}

/// Each place once, in the order of the rules.
fn needed(config: &Config) -> Vec<Needed<'_>> {
    let mut all: Vec<Needed<'_>> = Vec::new();
    for rule in &config.rules {
        for (place, rights, recursive) in [
            (&rule.source, source_rights(rule), rule.recursive),
            (&rule.dest, dest_rights(rule), false),
        ] {
            let known = all.iter().position(|needed| needed.place == place);
            let at = known.unwrap_or_else(|| {
                all.push(Needed {
                    place,
                    rights: BTreeSet::new(),
                    recursive: false,
                    rules: Vec::new(),
                });
                all.len() - 1
            });
            all[at].rights.extend(rights);
            all[at].recursive |= recursive;
            if all[at].rules.last() != Some(&rule.name.as_str()) {
                all[at].rules.push(&rule.name);
            }
        }
    }
    all
}

fn source_rights(rule: &Rule) -> Vec<Right> {
    let mut rights = vec![Right::List, Right::Read];
    if matches!(rule.dest, Place::S3 { .. }) {
        rights.push(Right::Tags);
    }
    if rule.mode == Mode::Move {
        rights.push(Right::Remove);
    }
    rights
}

/// A rule that overwrites need not look at what is there; the others must.
fn dest_rights(rule: &Rule) -> Vec<Right> {
    match rule.if_exists {
        IfExists::Overwrite => vec![Right::Write],
        IfExists::Fail | IfExists::KeepBoth | IfExists::Skip => {
            vec![Right::Read, Right::Write, Right::WriteNew]
        }
    }
}

struct Teller<'a> {
    context: &'a Context,
    say: &'a mut dyn FnMut(&str),
    failed: u64,
}

impl Teller<'_> {
    fn try_all(&mut self, all: &[Needed<'_>], stores: &RealStores) -> ControlFlow<()> {
        let places = all.iter().map(|needed| needed.place);
        let mut server_works = true;
        if let Some((endpoint, store)) = stores.any_bucket(places) {
            (self.say)(&format!("MinIO  {endpoint}"));
            server_works = store.probe_server(&mut |what, finding| self.tell(what, finding))?;
        }
        for needed in all {
            (self.say)(&format!("{}  ({})", needed.place, needed.rules.join(", ")));
            if matches!(needed.place, Place::S3 { .. }) && !server_works {
                let note = "not tried: what failed at MinIO above fails here too";
                self.tell("rights", Finding::Note(note.into()))?;
                continue;
            }
            let mut report = |what: &'static str, finding| self.tell(what, finding);
            stores.probe(needed.place, &needed.rights, needed.recursive, &mut report)?;
        }
        self.try_staging()
    }

    /// One item too large for memory, of which one byte is written.
    fn try_staging(&mut self) -> ControlFlow<()> {
        let directory = self.context.temp_dir.as_path();
        (self.say)(&format!(
            "{}  (TMPDIR, for items in flight)",
            directory.display()
        ));
        let mut stage = Stage::new(self.context);
        let written = stage
            .begin(MEMORY_LIMIT_BYTES + 1, None)
            .and_then(|()| stage.write(b"?"));
        if written.is_ok() {
            self.tell("space", free_space(directory))?;
        }
        let good = "an unnamed file was made and written";
        self.tell("write", Finding::of(written, good))
    }

    fn tell(&mut self, what: &str, finding: Finding) -> ControlFlow<()> {
        let (verdict, text) = match finding {
            Finding::Bad(error) if error.kind() == Kind::Stopped => return ControlFlow::Break(()),
            Finding::Good(text) => ("ok", text),
            Finding::Note(text) => ("note", text),
            Finding::Bad(error) => ("FAIL", error.chain()),
        };
        self.failed += u64::from(verdict == "FAIL");
        (self.say)(&format!("  {verdict:<4}  {what:<11}  {text}"));
        match self.context.stop.requested() {
            Some(_) => ControlFlow::Break(()),
            None => ControlFlow::Continue(()),
        }
    }

    fn end(&mut self) -> u8 {
        let failed = self.failed;
        let signal = self.context.stop.requested();
        let mut text = match failed {
            0 => "connect  nothing failed".to_owned(),
            1 => "connect  1 probe failed".to_owned(),
            _ => format!("connect  {failed} probes failed"),
        };
        if let Some(signal) = signal {
            write!(text, "; stopped by signal {signal}, not all was tried")
                .expect("writing to a string cannot fail");
        }
        (self.say)(&text);
        let tally = Tally {
            failed,
            ..Tally::default()
        };
        exit_code(&tally, signal)
    }
}
