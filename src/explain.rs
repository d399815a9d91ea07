//! PURE: for one key, path or bare name, which rule takes it and what it becomes, and for every
//! other rule why not. The first question of every support thread.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::object::{Entry, Name, Place, Version};
use crate::pattern::Matcher;
use crate::plan;
use crate::relations;
use crate::rule::{Config, LocalTime, Mode, Rule};
use crate::shard::Shard;
use crate::text::{escaped, shown};

/// What is said of each rule, in the order of the config, and whether any takes the name.
pub(crate) fn explain(config: &Config, asked: &str, instant: &LocalTime) -> (String, bool) {
    let mut text = String::new();
    let mut taken = false;
    for rule in &config.rules {
        let mut story = Story::default();
        let takes = story.tell(rule, asked, config.shard, instant).is_some();
        taken |= takes;
        let verdict = if takes {
            "takes it"
        } else {
            "does not take it"
        };
        let line = writeln!(text, "{}: {verdict}", shown(&rule.name));
        line.expect("writing to a string cannot fail");
        text.push_str(&story.0);
    }
    if !taken {
        text.push_str("no rule takes it\n");
    }
    (text, taken)
}

/// The chain of decisions for one rule, a line each.
#[derive(Default)]
struct Story(String);

impl Story {
    fn say(&mut self, step: &str, what: &str) {
        let line = writeln!(self.0, "  {step:<8} {}", escaped(what));
        line.expect("writing to a string cannot fail");
    }

    /// `Some` when the rule takes the item.
    fn tell(
        &mut self,
        rule: &Rule,
        asked: &str,
        shard: Option<Shard>,
        instant: &LocalTime,
    ) -> Option<()> {
        let name = match below(rule, asked) {
            Ok(name) => name,
            Err(why) => {
                self.say("source", &why);
                return None;
            }
        };
        self.say(
            "source",
            &format!("{}: the name is {}", rule.source, shown(&name.lossy())),
        );
        match &rule.matcher {
            Matcher::All => self.say("match", "no pattern: every name"),
            Matcher::Glob(_) => {
                self.say(
                    "match",
                    &format!("{}, the whole name; `*` also crosses `/`", rule.matcher),
                );
            }
            Matcher::Regex(_) => {
                let how = "a search, anchored only where the pattern is";
                self.say("match", &format!("{}, {how}", rule.matcher));
            }
        }
        if let Some(why) = relations::why_not(rule, &name) {
            self.say("no", &why);
            return None;
        }
        if let Some(shard) = shard {
            let owner = shard.owner(plan::shard_number(rule, &name));
            let whose = if owner == shard {
                "this one".to_owned()
            } else {
                format!("not {shard}")
            };
            self.say("shard", &format!("{owner}, {whose}"));
        }
        let entry = Entry {
            name,
            size_bytes: 0,
            modified: instant.at,
            version: Version::object("", instant.at),
        };
        match plan::destination(rule, &entry, instant) {
            Ok(dest) => {
                if rule.rename.is_some() {
                    self.say("rename", &format!("becomes {}", shown(&dest.lossy())));
                }
                let verb = if rule.mode == Mode::Move {
                    "moves"
                } else {
                    "copies"
                };
                self.say(verb, &format!("to {}", shown(&rule.dest.item(&dest))));
                self.later(rule);
                Some(())
            }
            Err(error) => {
                self.say("fails", &error.chain());
                Some(())
            }
        }
    }

    /// What a name alone does not decide.
    fn later(&mut self, rule: &Rule) {
        if !rule.min_age.is_zero() {
            let seconds = rule.min_age.as_secs();
            self.say("but", &format!("not before it is {seconds} s old"));
        }
        if let Some(lock) = &rule.lock_file {
            self.say(
                "but",
                &format!("not while {lock} exists in the source directory"),
            );
        }
    }
}

/// The item's name in this rule's source: below it for a key or an absolute path; a bare name is
/// taken as it stands.
fn below(rule: &Rule, asked: &str) -> Result<Name, String> {
    let named = |text: &str| Name::new(text.as_bytes()).ok_or_else(|| "no item's name".to_owned());
    let source = &rule.source;
    let (root, name) = if let Some(object) = asked.strip_prefix("s3://") {
        let Place::S3 { bucket, .. } = source else {
            return Err(format!("{source} is a directory, not a bucket"));
        };
        let (in_bucket, key) = object.split_once('/').unwrap_or((object, ""));
        if in_bucket != bucket {
            return Err(format!("{source} is another bucket"));
        }
        if key.ends_with('/') {
            return Err("a key that ends in `/` is never taken".into());
        }
        let (bucket, prefix) = (bucket.clone(), String::new());
        (Place::S3 { bucket, prefix }, named(key)?)
    } else if asked.starts_with('/') {
        let Place::File { .. } = source else {
            return Err(format!("{source} is a bucket, not a directory"));
        };
        let (path, base) = (PathBuf::from("/"), None);
        // Without `.` and doubled `/`.
        let plain: PathBuf = Path::new(asked).components().skip(1).collect();
        let plain = plain.to_str().unwrap_or_default();
        (Place::File { path, base }, named(plain)?)
    } else {
        return named(asked);
    };
    let name = root.name_from(source, &name);
    name.ok_or_else(|| format!("not below {source}"))
}
