//! What a run tells of itself in Prometheus' text format: to a Pushgateway, or into a `.prom` file
//! for node exporter's textfile collector.
//!
//! Invariants: nothing is ever PUT or left out of a file that this run does not replace, so what an
//! earlier run said stays; no series names a host, a pod, a file or anything secret; an error text
//! never holds the credentials of the URL. A delivery takes [`DELIVERY_MAX`] at the most.
//!
//! The format: <https://prometheus.io/docs/instrumenting/exposition_formats/>. The paths of groups:
//! <https://github.com/prometheus/pushgateway#url>.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};
use jiff::Timestamp;
use rustix::fs::{CWD, Mode, OFlags, openat};
use url::Url;

use crate::context::within;
use crate::environment::{Metrics, MetricsTarget, Verify};
use crate::error::{Error, Kind, Result};
use crate::part::{Clash, PartFile};
use crate::store::s3::{agent_for_others, post, shown};
use crate::summary::Figures;

/// How long a delivery may take, all in all.
const DELIVERY_MAX: Duration = Duration::from_secs(2);

/// A longer file is none of ours: a rule has about 2 KiB in it.
const FILE_MAX_BYTES: u64 = 32 << 20;

/// The `job` of all series.
const JOB: &str = "bots-mover";

/// All metrics with their HELP, in the order in which they are written. All are gauges: a run is a
/// process, so nothing adds up over runs.
const FAMILIES: [(&str, &str); 10] = [
    (
        "bots_mover_items",
        "Items of the last run, by what became of them.",
    ),
    ("bots_mover_bytes", "Bytes that the last run delivered."),
    (
        "bots_mover_rule_ok",
        "1 where the last run did all there was to do, 0 where something failed or was halted.",
    ),
    (
        "bots_mover_last_run_timestamp_seconds",
        "When the last run ended.",
    ),
    (
        "bots_mover_last_success_timestamp_seconds",
        "When the last run ended that did all there was to do.",
    ),
    (
        "bots_mover_duration_seconds",
        "How long the last run took, from the first listing.",
    ),
    (
        "bots_mover_backlog_items",
        "Items that the last run saw and did not take, at least; 1 where it stopped to list.",
    ),
    (
        "bots_mover_oldest_item_age_seconds",
        "Age of the oldest file when the last run listed; negative: dated in the future; 0: none.",
    ),
    (
        "bots_mover_exit_code",
        "Exit code of the last run: 0 done, 1 a rule failed, 2 refused, 128 + n by signal n.",
    ),
    (
        "bots_mover_build_info",
        "Always 1; the label tells the version that ran last.",
    ),
];

/// What a run says.
pub struct Report<'a> {
    /// Each rule; none where the run ended before its first.
    pub rules: &'a [Figures],
    /// The exit code.
    pub code: u8,
    /// Which shard it was, where there are some.
    pub shard: Option<u32>,
    /// When it ended.
    pub at: Timestamp,
}

/// One value: `name{labels} value`.
struct Series {
    name: &'static str,
    /// As they stand between the braces, without those of the group.
    labels: String,
    value: String,
}

/// The series that are replaced together.
struct Group {
    labels: Vec<(&'static str, String)>,
    series: Vec<Series>,
}

/// Delivers what a run says, in 2 s at the most.
///
/// # Errors
/// What kept it from being delivered. Some rules' series may have been.
pub fn deliver(metrics: &Metrics, verify: &Verify, report: &Report<'_>) -> Result<()> {
    let groups = groups(metrics.namespace.as_deref(), report);
    let (target, verify) = (metrics.target.clone(), verify.clone());
    let done = within(DELIVERY_MAX, move || match target {
        MetricsTarget::Pushgateway(url) => push(&url, &verify, &groups),
        MetricsTarget::File(path) => write(&path, &groups),
    });
    done.unwrap_or_else(|| {
        Err(Error::new(Kind::Timeout, "deliver the metrics").because("not done within 2 s"))
    })
}

fn groups(namespace: Option<&str>, report: &Report<'_>) -> Vec<Group> {
    let group = |rule: Option<&str>, series| {
        let shard = report.shard.map(|shard| shard.to_string());
        let labels = [
            ("job", Some(JOB.to_owned())),
            ("namespace", namespace.map(str::to_owned)),
            ("rule", rule.map(str::to_owned)),
            ("shard", shard),
        ];
        let there = |(name, value): (_, Option<_>)| Some((name, value?));
        Group {
            labels: labels.into_iter().filter_map(there).collect(),
            series,
        }
    };
    let rules = report.rules.iter();
    let mut groups: Vec<Group> = rules
        .map(|figures| group(Some(&figures.rule), of_rule(figures, report.at)))
        .collect();
    let of_run = vec![
        series("bots_mover_exit_code", &report.code),
        Series {
            labels: concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"").to_owned(),
            ..series("bots_mover_build_info", &1)
        },
    ];
    groups.push(group(None, of_run));
    groups
}

fn series(name: &'static str, value: &impl ToString) -> Series {
    Series {
        name,
        labels: String::new(),
        value: value.to_string(),
    }
}

fn of_rule(figures: &Figures, at: Timestamp) -> Vec<Series> {
    let tally = &figures.tally;
    let outcomes = [
        ("moved", tally.moved),
        ("copied", tally.copied),
        ("skipped", tally.skipped),
        ("failed", tally.failed),
        ("not_started", tally.not_started),
    ];
    let mut all: Vec<Series> = outcomes
        .iter()
        .map(|(outcome, count)| Series {
            labels: format!("outcome=\"{outcome}\""),
            ..series("bots_mover_items", count)
        })
        .collect();
    let seconds = |ms: u128| format!("{}.{:03}", ms / 1000, ms % 1000);
    let at = seconds(u128::try_from(at.as_millisecond()).unwrap_or(0));
    let oldest = figures.oldest_age_seconds.unwrap_or(0);
    all.extend([
        series("bots_mover_bytes", &tally.bytes),
        series("bots_mover_rule_ok", &u8::from(figures.succeeded())),
        series("bots_mover_last_run_timestamp_seconds", &at),
        series(
            "bots_mover_duration_seconds",
            &seconds(figures.took.as_millis()),
        ),
        series("bots_mover_backlog_items", &figures.backlog),
        series("bots_mover_oldest_item_age_seconds", &oldest),
    ]);
    if figures.succeeded() {
        all.push(series("bots_mover_last_success_timestamp_seconds", &at));
    }
    all
}

/// The text of these series, each metric with its HELP and TYPE.
fn text_of(all: &[Series]) -> String {
    let mut text = String::new();
    for (name, help) in FAMILIES {
        let mut of_family = all.iter().filter(|series| series.name == name).peekable();
        if of_family.peek().is_some() {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        }
        for Series { labels, value, .. } in of_family {
            let _ = match labels.as_str() {
                "" => writeln!(text, "{name} {value}"),
                labels => writeln!(text, "{name}{{{labels}}} {value}"),
            };
        }
    }
    text
}

// --- to a Pushgateway ---

/// Pushes each group: a POST replaces the metrics that it names in its group, and no others.
fn push(url: &Url, verify: &Verify, groups: &[Group]) -> Result<()> {
    let credentials = (!url.username().is_empty() || url.password().is_some()).then(|| {
        let mut both = decoded(url.username());
        both.push(b':');
        both.extend(decoded(url.password().unwrap_or_default()));
        format!("Basic {}", BASE64_STANDARD.encode(both))
    });
    let base = format!("{}{}", shown(url), url.path());
    let base = base.trim_end_matches('/');
    let what = || format!("push metrics to {base}");
    let agent = agent_for_others(verify)?;
    let mut headers = vec![("content-type", "text/plain; version=0.0.4")];
    headers.extend(credentials.as_deref().map(|value| ("authorization", value)));
    for group in groups {
        let url = format!("{base}{}", path_of(&group.labels));
        let answer = post(&agent, &url, &headers, text_of(&group.series).as_bytes());
        let status = answer.map_err(|error| {
            Error::new(Kind::Other, what())
                .because(error.to_string())
                .advise("is BOTS_MOVER_METRICS a Pushgateway, and does a NetworkPolicy allow it?")
        })?;
        if !(200..300).contains(&status) {
            return Err(Error::new(Kind::Other, what())
                .because(format!("it says {status}"))
                .advise(
                    "BOTS_MOVER_METRICS is the Pushgateway's URL as it stands before /metrics; \
                     its own log tells what it refuses",
                ));
        }
    }
    Ok(())
}

/// The path of a group. A value that could be taken for something else than one part is in base64.
fn path_of(labels: &[(&str, String)]) -> String {
    let mut path = "/metrics".to_owned();
    for (name, value) in labels {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let _ = if value.chars().all(is_plain) {
            write!(path, "/{name}/{value}")
        } else {
            let value = BASE64_URL_SAFE.encode(value);
            write!(path, "/{name}@base64/{value}")
        };
    }
    path
}

/// Without the escapes of a URL.
fn decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let digit = |digit: Option<u8>| char::from(digit?).to_digit(16);
        let mut ahead = bytes.clone();
        match (digit(ahead.next()), digit(ahead.next())) {
            (Some(high), Some(low)) if byte == b'%' => {
                out.push(u8::try_from(high * 16 + low).unwrap_or_default());
                bytes = ahead;
            }
            _ => out.push(byte),
        }
    }
    out
}

// --- into a file ---

/// Writes the file anew beside the old one, with what that has and this run does not replace.
fn write(path: &Path, groups: &[Group]) -> Result<()> {
    let shown = format!("the metrics file {}", path.display());
    let fault = |action: &str, error: std::io::Error| {
        let advice = "BOTS_MOVER_METRICS must name a file in a directory that may be written to";
        Error::io(format!("{action} {shown}"), error).advise(advice)
    };
    let parent = path.parent().filter(|parent| *parent != Path::new(""));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, parent.unwrap_or(Path::new(".")), flags, Mode::empty());
    let directory = directory.map_err(|error| fault("open the directory of", error.into()))?;
    let mut old = String::new();
    match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        opened => {
            let read = opened.and_then(|file| file.take(FILE_MAX_BYTES).read_to_string(&mut old));
            read.map_err(|error| fault("read", error))?;
        }
    }
    let text = text_of(&carried_on(&old, groups));
    let part = PartFile::create(directory, shown.clone());
    let part = part.map_err(|error| fault("make a part file for", error.into()))?;
    part.write(text.as_bytes(), 0)?;
    part.settle()?;
    let name = path.file_name().unwrap_or_default();
    let placed = part.place(name.as_encoded_bytes(), Clash::Replace);
    placed.map_err(|error| fault("replace", error.into()))?;
    Ok(())
}

/// The series of the groups, with the labels of each, and those of `old` that they do not replace.
fn carried_on(old: &str, groups: &[Group]) -> Vec<Series> {
    let mut all: Vec<Series> = groups.iter().flat_map(with_labels).collect();
    let identity = |series: &Series| format!("{}{{{}", series.name, series.labels);
    let mut seen: HashSet<String> = all.iter().map(identity).collect();
    let kept = old.lines().filter_map(parsed);
    all.extend(kept.filter(|series| seen.insert(identity(series))));
    all
}

fn with_labels(group: &Group) -> impl Iterator<Item = Series> {
    let shared: Vec<String> = group
        .labels
        .iter()
        .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
        .collect();
    let shared = shared.join(",");
    group.series.iter().map(move |series| Series {
        name: series.name,
        labels: match series.labels.as_str() {
            "" => shared.clone(),
            own => format!("{shared},{own}"),
        },
        value: series.value.clone(),
    })
}

/// A label's value between quotes.
fn escaped(value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    value.replace('\n', "\\n")
}

/// A line that an earlier run wrote; `None` for all else. Of the version only the last is kept.
fn parsed(line: &str) -> Option<Series> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = series.strip_suffix('}')?.split_once('{')?;
    let (name, _) = FAMILIES.into_iter().find(|(known, _)| *known == name)?;
    value.parse::<f64>().ok()?;
    (name != "bots_mover_build_info").then(|| Series {
        name,
        labels: labels.to_owned(),
        value: value.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::Tally;

    fn all(namespace: Option<&str>, rule: &str, failed: u64, second: i64) -> Vec<Group> {
        let figures = Figures {
            rule: rule.to_owned(),
            tally: Tally {
                moved: 3,
                failed,
                bytes: 4096,
                ..Tally::default()
            },
            complete: true,
            took: Duration::from_millis(1500),
            backlog: 7,
            oldest_age_seconds: Some(-7200),
        };
        let report = Report {
            rules: &[figures],
            code: u8::from(failed > 0),
            shard: Some(2),
            at: Timestamp::from_second(second).expect("a time"),
        };
        groups(namespace, &report)
    }

    #[test]
    fn a_group_says_each_metric_with_help_and_type() {
        let groups = all(None, "in", 0, 1_000);
        let text = text_of(&groups[0].series);
        for expected in [
            "# HELP bots_mover_items Items of",
            "# TYPE bots_mover_items gauge\nbots_mover_items{outcome=\"moved\"} 3\n",
            "bots_mover_items{outcome=\"failed\"} 0\n",
            "\nbots_mover_bytes 4096\n",
            "\nbots_mover_rule_ok 1\n",
            "\nbots_mover_last_run_timestamp_seconds 1000.000\n",
            "\nbots_mover_last_success_timestamp_seconds 1000.000\n",
            "\nbots_mover_duration_seconds 1.500\n",
            "\nbots_mover_backlog_items 7\n",
            "\nbots_mover_oldest_item_age_seconds -7200\n",
        ] {
            assert!(text.contains(expected), "{expected}:\n{text}");
        }
        let run = text_of(&groups[1].series);
        assert!(run.contains("\nbots_mover_exit_code 0\n"), "{run}");
        assert!(run.contains("bots_mover_build_info{version=\""), "{run}");
    }

    #[test]
    fn a_failed_rule_says_nothing_of_its_last_success() {
        let text = text_of(&all(None, "in", 1, 1_000)[0].series);
        assert!(text.contains("bots_mover_rule_ok 0\n"), "{text}");
        assert!(!text.contains("last_success"), "{text}");
    }

    #[test]
    fn a_path_names_the_group_and_odd_values_are_in_base64() {
        for (namespace, rule, path) in [
            (
                None,
                "in_850",
                "/metrics/job/bots-mover/rule/in_850/shard/2",
            ),
            (
                Some("edi"),
                "in/850",
                "/metrics/job/bots-mover/namespace/edi/rule@base64/aW4vODUw/shard/2",
            ),
            (
                None,
                "..",
                "/metrics/job/bots-mover/rule@base64/Li4=/shard/2",
            ),
        ] {
            let groups = all(namespace, rule, 0, 1);
            assert_eq!(path_of(&groups[0].labels), path);
        }
    }

    #[test]
    fn a_file_carries_on_what_is_not_replaced() {
        let first = text_of(&carried_on("", &all(Some("edi"), "a \"\\\n", 0, 1_000)));
        let second = text_of(&carried_on(&first, &all(Some("edi"), "b", 0, 2_000)));
        let third = text_of(&carried_on(&second, &all(Some("edi"), "b", 1, 3_000)));
        let last = |text: &str, metric: &str, rule: &str| {
            let line = format!(
                "bots_mover_{metric}{{job=\"bots-mover\",namespace=\"edi\",rule=\"{rule}\",\
                 shard=\"2\"}} "
            );
            let found: Vec<_> = text
                .lines()
                .filter_map(|l| l.strip_prefix(&*line))
                .collect();
            assert_eq!(found.len(), 1, "{line}\n{text}");
            found[0].to_owned()
        };
        let odd = "a \\\"\\\\\\n";
        assert_eq!(last(&third, "rule_ok", odd), "1");
        assert_eq!(
            last(&third, "last_success_timestamp_seconds", odd),
            "1000.000"
        );
        assert_eq!(last(&third, "rule_ok", "b"), "0");
        assert_eq!(last(&third, "last_run_timestamp_seconds", "b"), "3000.000");
        assert_eq!(
            last(&third, "last_success_timestamp_seconds", "b"),
            "2000.000"
        );
        let old = third.replace("build_info{", "build_info{old=\"1\",") + "junk\nother{} 1\n";
        let fourth = text_of(&carried_on(&old, &all(Some("edi"), "b", 1, 3_000)));
        assert_eq!(third, fourth);
    }

    #[test]
    fn a_user_and_a_password_are_unescaped() {
        assert_eq!(decoded("p%40ss%2Fw%"), b"p@ss/w%");
        assert_eq!(decoded("a+b%zz"), b"a+b%zz");
    }
}
