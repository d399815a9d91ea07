//! PURE: the text of a config becomes rules, or a list of all that is wrong with it.
//!
//! Two stages: `yaml` reads what was written into a tree, `meaning` makes rules of it (`places`:
//! where from and where to; `names`: which and what they become) through the typed access of
//! `written`. `schema` has the words, `one_off` makes the same tree from a command line.
//! `README.md` in this directory is the reference for people who write configs.
//!
//! Nothing here asks for the time, the environment or a file.

mod json_schema;
mod meaning;
mod names;
mod one_off;
mod places;
mod problems;
mod schema;
mod written;
mod yaml;

use std::path::Path as FilePath;

pub use self::json_schema::json_schema;
pub use self::one_off::ONE_OFF_OPTIONS;
pub use self::problems::Problems;
pub use self::schema::near;
pub(crate) use self::yaml::CONFIG_MAX_BYTES;

use self::problems::{Anchor, Diagnostics, Path, Problem, Segment};
use crate::relations;
use crate::rule::{Config, Mode};

/// How many problems are shown with line and column. Finding each one costs another reading of the
/// text.
const MAX_LOCATED: usize = 100;

/// The rules that a YAML text holds; `origin` names it in problems, such as `config.yaml`.
///
/// `bucket_fallback` is for rules that have no bucket in the text.
///
/// # Errors
/// All problems at once, in the order of the text.
pub fn parse(text: &str, origin: &str, bucket_fallback: Option<&str>) -> Result<Config, Problems> {
    // Behind it the parser does not know `---` for a mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let tree = yaml::read(text).map_err(|error| {
        let position = shown_position(error.line_column);
        Problems::new(vec![format!("{origin}{position}: {}", error.text)])
    })?;
    let mut report = Diagnostics::of(text);
    let config = meaning::config(&tree, bucket_fallback, &mut report);
    let config = related(config, &mut report);
    config.ok_or_else(|| located(report, text, origin))
}

/// One rule from the command line: `bots-mover move SRC DEST` or `copy`.
///
/// A place is `s3://bucket/prefix` or a path, relative to `cwd`. Options are those of
/// [`ONE_OFF_OPTIONS`], each with its value.
///
/// # Errors
/// All problems at once, each beginning with the argument it is about.
pub fn one_off(
    mode: Mode,
    src: &str,
    dest: &str,
    options: &[(String, String)],
    cwd: &FilePath,
    bucket_fallback: Option<&str>,
) -> Result<Config, Problems> {
    let tree = one_off::tree(mode, src, dest, options, cwd).map_err(Problems::new)?;
    let mut report = Diagnostics::default();
    let config = meaning::config(&tree, bucket_fallback, &mut report);
    related(config, &mut report).ok_or_else(|| {
        let line = |problem: Problem| {
            let argument = one_off::argument(&problem.path.names);
            format!("{argument}: {}", problem.text)
        };
        Problems::new(report.problems.into_iter().map(line).collect())
    })
}

/// Looks at the rules together; `None` once anything is wrong.
fn related(config: Option<Config>, report: &mut Diagnostics) -> Option<Config> {
    let mut config = config?;
    for (rule_name, text) in relations::errors(&config.rules) {
        let path = Path::default()
            .key("config", 0, &[])
            .key(&rule_name, 0, &[])
            .key("dest", 0, &[]);
        report.key(&path, text);
    }
    if !report.problems.is_empty() {
        return None;
    }
    config.warnings = relations::warnings(&config.rules)
        .into_iter()
        .map(|warning| warning.text)
        .collect();
    Some(config)
}

/// One line for each problem, in the order of the text.
fn located(report: Diagnostics<'_>, text: &str, origin: &str) -> Problems {
    let mut lines: Vec<_> = report
        .problems
        .into_iter()
        .enumerate()
        .map(|(index, problem)| {
            let position = (index < MAX_LOCATED).then(|| position(text, &problem));
            let position = position.flatten();
            let shown = shown_position(position);
            let subject = subject(&problem.path.names);
            let line = format!("{origin}{shown}: {subject}{}", problem.text);
            (position.unwrap_or((usize::MAX, usize::MAX)), line)
        })
        .collect();
    lines.sort_by_key(|(position, _)| *position);
    Problems::new(lines.into_iter().map(|(_, line)| line).collect())
}

/// Of the node, or of the nearest around it that the text has.
fn position(text: &str, problem: &Problem) -> Option<(usize, usize)> {
    let mut steps = problem.path.steps.as_slice();
    let mut at = problem.at;
    loop {
        // The item of a list has no key, so its value is shown.
        let is_item = matches!(steps.last(), Some(Segment::Item(_)) | None);
        let found = yaml::locate(text, steps, if is_item { Anchor::Value } else { at });
        if found.is_some() || steps.is_empty() {
            return found;
        }
        steps = &steps[..steps.len() - 1];
        at = Anchor::Key;
    }
}

fn shown_position(line_column: Option<(usize, usize)>) -> String {
    line_column.map_or_else(String::new, |(line, column)| format!(":{line}:{column}"))
}

/// What a problem is about: `rule "invoices": src.path: `, `defaults.retries: `.
fn subject(names: &[String]) -> String {
    let path = |names: &[String]| -> String {
        let names: Vec<_> = names.iter().map(|name| one_line(name)).collect();
        names.join(".")
    };
    match names {
        [] => String::new(),
        [config, defaults, ..] if config == "config" && defaults == "defaults" => {
            format!("{}: ", path(&names[1..]))
        }
        [config, rule, rest @ ..] if config == "config" => {
            let rule = written::quoted(rule);
            if rest.is_empty() {
                format!("rule {rule}: ")
            } else {
                format!("rule {rule}: {}: ", path(rest))
            }
        }
        _ => format!("{}: ", path(names)),
    }
}

/// A key as it was written, unless it is not what it looks like.
fn one_line(name: &str) -> String {
    if written::deception(name, "").is_some() {
        return written::quoted(name);
    }
    name.to_owned()
}
