//! One item: ready, stage, publish, remove. The one invariant of the program lives here:
//!
//! **The source is removed only after the destination is whole and durable, and only if the source
//! still is what was staged.**
//!
//! An [`attempt`] goes as far as it can. What it could not do is attempted again by the caller;
//! once an item is published, further attempts repeat the removal only.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::logger::Level;
use crate::object::{Entry, Name, Place, Version};
use crate::plan::{Claims, numbered};
use crate::rule::{IfExists, Mode, Rule};
use crate::stage::{PART_MIN_BYTES, Stage};
use crate::store::{Clash, EarlySend, Fetched, Near, Published, Removed, Store, locked_note};

/// How often one attempt begins anew because the source changed under it, or because the room that
/// it was staged in is gone.
const RESTARTS_MAX: u32 = 3;

/// How many names `keep_both` tries.
const NUMBERED_MAX: u32 = 10_000;

/// The two ends of a rule and what all its items share.
pub struct Ends<'a> {
    /// The rule, with the links on the paths of its places resolved.
    pub rule: &'a Rule,
    /// Where it takes from.
    pub source: &'a dyn Store,
    /// Where it brings to.
    pub dest: &'a dyn Store,
    /// The destinations of the whole run.
    pub claims: &'a Claims,
    /// The world.
    pub context: &'a Context,
}

/// One item on its way.
pub struct Task {
    /// What the listing said.
    pub entry: Entry,
    /// Its name at the destination.
    pub dest: Name,
    /// Counts from 1.
    pub attempt: u32,
    /// Why the attempt before this one failed.
    pub last_error: Option<Error>,
    /// How long the staged item was, once it was staged.
    pub bytes: u64,
    /// Counts the bytes that are staged and those that are published.
    pub meter: Arc<AtomicU64>,
    step: Step,
}

/// Where the next attempt begins.
enum Step {
    Stage,
    Remove {
        version: Version,
        dest: Name,
        /// An earlier attempt had no answer, so it may have removed the source.
        unanswered: bool,
    },
}

impl Task {
    /// A task for its first attempt.
    pub fn new(entry: Entry, dest: Name) -> Self {
        Self {
            entry,
            dest,
            attempt: 1,
            last_error: None,
            bytes: 0,
            meter: Arc::default(),
            step: Step::Stage,
        }
    }
}

/// How an item ended.
#[derive(Debug)]
pub enum End {
    /// At the destination, and gone at the source.
    Moved {
        /// Its name there.
        dest: Name,
        /// What was unusual.
        note: Option<String>,
    },
    /// At the destination, and still at the source.
    Copied {
        /// Its name there.
        dest: Name,
        /// What was unusual.
        note: Option<String>,
    },
    /// Left alone, for this reason; not counted towards `max_items`.
    Skipped(String),
    /// Bots is at work in the source directory: the rule does nothing more, for this reason.
    RuleOver(String),
    /// Not at the destination, or still at the source though it should be gone.
    Failed(Error),
}

/// How an attempt ended.
pub enum Attempt {
    /// For good.
    End(End),
    /// It failed; another attempt may help.
    Failed(Error),
}

/// Goes through the steps that are left of `task`.
pub fn attempt(ends: &Ends<'_>, task: &mut Task) -> Attempt {
    match steps(ends, task) {
        Ok(end) => Attempt::End(end),
        Err(error) if error.kind().is_retryable() => Attempt::Failed(error),
        Err(error) => Attempt::End(End::Failed(error)),
    }
}

fn steps(ends: &Ends<'_>, task: &mut Task) -> Result<End> {
    if let Step::Stage = task.step {
        let wanted = task.dest.clone();
        if ends.rule.if_exists != IfExists::KeepBoth
            && let Some(first) = case_twin(ends, &wanted)?
        {
            let what = format!("bring to {}", ends.dest.place().item(&wanted));
            return Err(Error::new(Kind::Invalid, what).because(format!(
                "{first} already goes there in this run: the destination does not tell upper from \
                 lower case"
            )));
        }
        if let Some(end) = not_ready(ends, &task.entry, &wanted)? {
            return Ok(end);
        }
        let mut restarts = 0;
        let (version, delivery) = loop {
            match deliver(ends, task, &wanted) {
                Err(error) if error.kind() == Kind::Changed && restarts < RESTARTS_MAX => {
                    restarts += 1;
                }
                Err(error) => return Err(error),
                Ok(Err(end)) => return Ok(end),
                Ok(Ok(delivered)) => break delivered,
            }
        };
        let dest = match delivery {
            Delivery::There(dest) => dest,
            Delivery::Taken => return Ok(End::Skipped("the destination exists".into())),
        };
        if ends.rule.mode == Mode::Copy {
            return Ok(End::Copied { dest, note: None });
        }
        // Whatever is told of the item from here on names the copy that exists.
        task.dest = dest.clone();
        task.step = Step::Remove {
            version,
            dest,
            unanswered: false,
        };
    }
    match &mut task.step {
        Step::Remove {
            version,
            dest,
            unanswered,
        } => {
            let end = remove(ends, &task.entry.name, version, dest, *unanswered);
            *unanswered |= end
                .as_ref()
                .is_err_and(|error| matches!(error.kind(), Kind::Timeout | Kind::Transient));
            end
        }
        Step::Stage => unreachable!("a staged move goes on to its removal"),
    }
}

/// Step 0: what keeps the item from being touched in this run.
fn not_ready(ends: &Ends<'_>, entry: &Entry, dest: &Name) -> Result<Option<End>> {
    if let Some(lock) = ends.rule.lock_file.as_deref()
        && let Some(since) = ends.source.lock_file(lock)?
    {
        return Ok(Some(End::RuleOver(lock_note(lock, ends, since))));
    }
    let between_files = is_file(&ends.rule.source) && is_file(&ends.rule.dest);
    let copies = ends.rule.mode == Mode::Copy;
    let skip = ends.rule.if_exists == IfExists::Skip && (copies || is_file(&ends.rule.dest));
    if !between_files && !skip {
        return Ok(None);
    }
    let Some(there) = ends.dest.look(dest)? else {
        return Ok(None);
    };
    if same_file(&entry.version, &there) {
        let what = format!("bring to {}", ends.dest.place().item(dest));
        return Err(Error::new(Kind::Invalid, what).because("it is the source itself"));
    }
    // A file of another size is no earlier attempt's work: nothing need be staged to see that.
    let other_size = matches!(there, Version::File { size_bytes, .. }
        if size_bytes != entry.size_bytes);
    Ok((skip && (copies || other_size)).then(|| End::Skipped("the destination exists".into())))
}

/// The item whose name is the same as this one at a destination that does not tell upper from
/// lower case.
fn case_twin(ends: &Ends<'_>, name: &Name) -> Result<Option<String>> {
    let Some(first) = ends.claims.twin(&ends.rule.dest, name) else {
        return Ok(None);
    };
    Ok(ends.dest.folds_case(name)?.then_some(first))
}

fn is_file(place: &Place) -> bool {
    matches!(place, Place::File { .. })
}

/// The note on a lock file, with its age: a killed engine leaves it for ever.
pub fn lock_note(lock: &str, ends: &Ends<'_>, since: jiff::Timestamp) -> String {
    let seconds = ends.context.now().duration_since(since).as_secs().max(0);
    format!("{lock} exists in the source directory for {seconds} s: Bots is at work there")
}

fn same_file(one: &Version, other: &Version) -> bool {
    match (one, other) {
        (
            Version::File { dev, ino, .. },
            Version::File {
                dev: dev2,
                ino: ino2,
                ..
            },
        ) => dev == dev2 && ino == ino2,
        _ => false,
    }
}

/// Where the item would go, or how it would end, as far as can be told without staging it.
pub fn rehearse(ends: &Ends<'_>, task: &Task) -> Result<Name, End> {
    let dest = task.dest.clone();
    match ends.source.locked_by(&task.entry.name) {
        Ok(None) => {}
        Ok(Some(process)) => return Err(End::Skipped(locked_note(process))),
        Err(error) => return Err(End::Failed(error)),
    }
    match not_ready(ends, &task.entry, &dest) {
        Ok(None) => Ok(dest),
        Ok(Some(end)) => Err(end),
        Err(error) => Err(End::Failed(error)),
    }
}

/// The state that was brought, and where it is now; or how the item ended before.
type Delivered = Result<(Version, Delivery), End>;

/// Steps 1 and 2: by the server of both ends where it can, else by a local temporary copy.
fn deliver(ends: &Ends<'_>, task: &mut Task, wanted: &Name) -> Result<Delivered> {
    match copy_there(ends, task, wanted) {
        Ok(Some(delivered)) => Ok(Ok(delivered)),
        Ok(None) => stage_and_publish(ends, task, wanted, false),
        Err(error) if matches!(error.kind(), Kind::Other | Kind::Denied) => {
            stage_and_publish(ends, task, wanted, true)
        }
        Err(error) => unstaged(error).map(Err),
    }
}

/// Both steps at once: no byte comes here. `None` where the item must be staged.
fn copy_there(
    ends: &Ends<'_>,
    task: &mut Task,
    wanted: &Name,
) -> Result<Option<(Version, Delivery)>> {
    let (source, meter) = (ends.source.place(), &*task.meter);
    let Some(near) = ends.dest.near(source, &task.entry, meter)? else {
        return Ok(None);
    };
    task.bytes = near.size_bytes();
    let delivery = publish(ends, wanted, &Whole::Near(&*near), &task.entry.name)?;
    Ok(Some((near.version().clone(), delivery)))
}

/// Steps 1 and 2: the whole item in a local temporary copy, then at its destination.
///
/// `may_be_there`: a copy was made that nothing shows to be whole.
fn stage_and_publish(
    ends: &Ends<'_>,
    task: &mut Task,
    wanted: &Name,
    may_be_there: bool,
) -> Result<Delivered> {
    let room = |size_bytes| ends.dest.room(wanted, size_bytes);
    let mut stage = Stage::in_room(ends.context, &room, Arc::clone(&task.meter));
    let entry = &task.entry;
    let mut fill = |stage: &mut Stage<'_>| {
        let mut fetched = ends.source.fetch(entry, stage)?;
        if !is_file(&ends.rule.dest) {
            ends.source.describe(&entry.name, &mut fetched)?;
        }
        Ok(fetched)
    };
    let staged = if may_send_early(ends, entry, wanted)? {
        let clash = match ends.rule.if_exists {
            IfExists::Overwrite => Clash::Replace,
            _ => Clash::Refuse,
        };
        let size_and_clash = (entry.size_bytes, clash);
        ends.dest
            .stage_by(wanted, size_and_clash, &mut stage, &mut fill)
    } else {
        fill(&mut stage).map(|fetched| (fetched, Ok(None)))
    };
    let (fetched, early) = match staged {
        Err(error) if error.kind() != Kind::Changed => return unstaged(error).map(Err),
        staged => staged?,
    };
    task.bytes = fetched.staged.size_bytes();
    if let Some(age) = too_young(ends, &fetched.version) {
        return Ok(Err(End::Skipped(age)));
    }
    let whole = Whole::Staged(Here {
        fetched: &fetched,
        early: early?,
        may_be_there,
    });
    let delivery = publish(ends, wanted, &whole, &task.entry.name)?;
    // What was sent early and not published is given up.
    drop(whole);
    Ok(Ok((fetched.version, delivery)))
}

/// Whether parts of the item may be sent before the whole is staged: where it has some, and nothing
/// has its name that it must not replace.
fn may_send_early(ends: &Ends<'_>, entry: &Entry, wanted: &Name) -> Result<bool> {
    let in_parts = is_file(&ends.rule.source)
        && !is_file(&ends.rule.dest)
        && entry.size_bytes > PART_MIN_BYTES;
    let replaces = ends.rule.if_exists == IfExists::Overwrite;
    Ok(in_parts && (replaces || ends.dest.look(wanted)?.is_none()))
}

/// What a failed staging means: somebody else's work is no failure.
fn unstaged(error: Error) -> Result<End> {
    match error.kind() {
        Kind::Gone => Ok(End::Skipped(
            "the source is gone: somebody else took it".into(),
        )),
        Kind::Locked => Ok(End::Skipped(error.chain())),
        _ => Err(error),
    }
}

/// A file that was written to after it was listed may have become too young.
fn too_young(ends: &Ends<'_>, version: &Version) -> Option<String> {
    let Version::File {
        mtime_s, mtime_ns, ..
    } = version
    else {
        return None;
    };
    let now = ends.context.now().as_nanosecond();
    let mtime = i128::from(*mtime_s) * 1_000_000_000 + i128::from(*mtime_ns);
    young_note(now - mtime, ends.rule).map(|(_, note)| note)
}

/// A file that is dated further ahead than this was not dated by our clock.
const FUTURE_MAX_S: i128 = 60;

/// Why a file of this age in nanoseconds is left for a later run, and how loud to say it.
pub fn young_note(age_ns: i128, rule: &Rule) -> Option<(Level, String)> {
    let least = rule.min_age.as_nanos().cast_signed();
    // A file from the future is young only where somebody asked for an age.
    (least > 0 && age_ns < least).then(|| {
        let (age, least) = (age_ns.div_euclid(1_000_000_000), rule.min_age.as_secs());
        if age < -FUTURE_MAX_S {
            let ahead = -age;
            let note = format!(
                "dated {ahead} s in the future, left until it is {least} s old: check the clock \
                 here and where it was written"
            );
            return (Level::Warn, note);
        }
        let age = age.max(0);
        (
            Level::Info,
            format!("{age} s old, left until it is {least} s old"),
        )
    })
}

enum Delivery {
    /// Under this name, by us or by an earlier attempt.
    There(Name),
    /// Something else is there, and stays.
    Taken,
}

/// An item that is to be published.
enum Whole<'a> {
    /// Here.
    Staged(Here<'a>),
    /// At the server of the destination, which copies it.
    Near(&'a dyn Near),
}

/// A staged item.
struct Here<'a> {
    fetched: &'a Fetched,
    /// Its parts, where they were sent already.
    early: Option<Box<dyn EarlySend + 'a>>,
    /// A copy was made that nothing shows to be whole.
    may_be_there: bool,
}

impl Whole<'_> {
    fn publish(&self, dest: &dyn Store, name: &Name, clash: Clash) -> Result<Published> {
        match self {
            Self::Staged(Here { fetched, early, .. }) => match early {
                Some(early) => early.publish(name, &fetched.staged, clash),
                None => dest.publish(name, &fetched.staged, &fetched.attributes, clash),
            },
            Self::Near(near) => near.publish(name, clash),
        }
    }

    fn is_at(&self, dest: &dyn Store, name: &Name) -> Result<bool> {
        match self {
            Self::Staged(here) => dest.holds(name, &here.fetched.staged),
            Self::Near(near) => near.is_at(name),
        }
    }

    fn is_in_memory(&self) -> bool {
        matches!(self, Self::Staged(here) if here.fetched.staged.in_memory().is_some())
    }
}

/// Step 2: the item becomes visible, whole, under the name that `if_exists` allows.
fn publish(ends: &Ends<'_>, wanted: &Name, item: &Whole<'_>, from: &Name) -> Result<Delivery> {
    match ends.rule.if_exists {
        IfExists::Overwrite => match item.publish(ends.dest, wanted, Clash::Replace)? {
            Published::Done => Ok(Delivery::There(wanted.clone())),
            Published::Exists => {
                let what = format!("put {}", ends.dest.place().item(wanted));
                Err(Error::new(Kind::Other, what).because("replacing it was refused"))
            }
        },
        IfExists::Fail => match publish_new(ends, wanted, item)? {
            Delivery::Taken => {
                let what = format!("put {}", ends.dest.place().item(wanted));
                Err(Error::new(Kind::Exists, what)
                    .because("the destination exists, the source was kept"))
            }
            there @ Delivery::There(_) => Ok(there),
        },
        IfExists::Skip => publish_new(ends, wanted, item),
        IfExists::KeepBoth => publish_numbered(ends, wanted, item, from),
    }
}

/// Publishes without replacing anything; what is there byte for byte counts as delivered.
fn publish_new(ends: &Ends<'_>, name: &Name, item: &Whole<'_>) -> Result<Delivery> {
    // A look spares the writing of what will be refused, where it is cheaper than the writing. The
    // refusal to replace is the store's all the same.
    let look_first = is_file(&ends.rule.dest) || !item.is_in_memory();
    let free = !look_first || ends.dest.look(name)?.is_none();
    if free && item.publish(ends.dest, name, Clash::Refuse)? == Published::Done {
        return Ok(Delivery::There(name.clone()));
    }
    let content_matters = ends.rule.if_exists != IfExists::Skip
        || ends.rule.mode == Mode::Move
        || matches!(item, Whole::Staged(here) if here.may_be_there);
    if content_matters && item.is_at(ends.dest, name)? {
        return Ok(Delivery::There(name.clone()));
    }
    Ok(Delivery::Taken)
}

fn publish_numbered(
    ends: &Ends<'_>,
    wanted: &Name,
    item: &Whole<'_>,
    from: &Name,
) -> Result<Delivery> {
    let place = ends.source.place();
    let source = place.item(from);
    for number in 0..NUMBERED_MAX {
        let Some(name) = numbered(wanted, number) else {
            break;
        };
        if ends
            .claims
            .claim(&ends.rule.dest, &name, (place, from))
            .is_err_and(|first| first != source)
        {
            continue;
        }
        if case_twin(ends, &name)?.is_some() {
            continue;
        }
        if let there @ Delivery::There(_) = publish_new(ends, &name, item)? {
            return Ok(there);
        }
    }
    let what = format!("put {}", ends.dest.place().item(wanted));
    Err(Error::new(Kind::Invalid, what)
        .because("no free name is left")
        .advise(format!(
            "`keep_both` tries {NUMBERED_MAX} names of at most 255 bytes; clear the destination"
        )))
}

/// Step 3: the source goes, if it still is what was staged.
fn remove(
    ends: &Ends<'_>,
    name: &Name,
    version: &Version,
    dest: &Name,
    unanswered: bool,
) -> Result<End> {
    let stays = |why: String| {
        let note = Some(format!("{why}: it stays, the next run takes it"));
        Ok(End::Copied {
            dest: dest.clone(),
            note,
        })
    };
    match ends.source.remove(name, version)? {
        Removed::Done => Ok(End::Moved {
            dest: dest.clone(),
            note: None,
        }),
        Removed::Gone => {
            let who = if unanswered {
                "by the removal that had no answer, or somebody else took it"
            } else {
                "somebody else took it"
            };
            let note = Some(format!("the source was gone already: {who}"));
            Ok(End::Moved {
                dest: dest.clone(),
                note,
            })
        }
        Removed::Changed => stays("the source changed after it was staged".into()),
        Removed::Locked(process) => stays(locked_note(process)),
    }
}
