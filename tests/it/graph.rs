//! `bots-mover graph`: what the chart shows, and that no name can break it.
//!
//! The charts are also left in `target/tmp/charts`, for `tests/graph/mermaid.mjs` to give them to
//! Mermaid's own parser.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use bots_mover::rule::Rule;
use bots_mover::{config, graph};
use proptest::prelude::{Strategy, prop};
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use regex::Regex;
use serde_json::json;

use crate::docs::blocks;
use crate::support::Sandbox;

/// What Mermaid, Markdown or HTML may take for something else than text.
const PIECES: &[&str] = &[
    "a",
    "850",
    "end",
    "graph",
    "subgraph x",
    "click a b",
    "style p1 fill:#f00;",
    "classDef p:#1;",
    "linkStyle 0 x",
    "\"",
    "'",
    "`",
    "```",
    "#",
    "#35;",
    "#quot;",
    ";",
    ":",
    ":::",
    "::icon(x)",
    "|",
    "-->",
    "-.-",
    "==>",
    "~~~",
    "--",
    "1. ",
    "2) ",
    "- ",
    "+ ",
    "x* y*",
    "**",
    "_a_",
    "__",
    "~~",
    "=",
    "<b>",
    "<br>",
    "</script>",
    "&amp;",
    "&lt",
    "%%",
    "%%{init: {}}%%",
    "---",
    "{{",
    "}}",
    "((",
    "))",
    "[",
    "]",
    "[/",
    "/]",
    ">x]",
    "@{ shape: x }",
    "$$x$$",
    "$",
    "!",
    "?",
    "^",
    ",",
    "\\",
    "\\n",
    "fa:fa-car",
    "https://x.example/",
    "javascript:x",
    "é",
    "ß",
    "¶ß",
    "ﬂ°°35¶ß",
    "日本",
    "א",
    "😀",
    "  ",
    ".",
    ".edi",
    "{timestamp}",
];

/// A chart as its text says it: the labels of the places, and of each arrow its ends and lines.
#[derive(Debug, PartialEq, Eq)]
struct Chart {
    places: Vec<String>,
    arrows: Vec<(usize, usize, Vec<String>)>,
    notes: Vec<(String, Vec<usize>)>,
    /// Rules in another style.
    marked: Vec<usize>,
}

/// Reads a chart, each line of which must be of one of five shapes.
fn read(text: &str) -> Chart {
    let shape = |pattern: &str| Regex::new(&format!("^    {pattern}$")).unwrap();
    let place = shape(r#"p\d+(?:\[\("([^"]*)"\)\]|\[/"([^"]*)"/\])"#);
    let arrow = shape(r#"p(\d+) -->\|"([^"]*)"\| p(\d+)"#);
    let note = shape(r#"w\d+>"([^"]*)"\]:::warning"#);
    let tie = shape(r"w\d+ -\.- p(\d+)");
    let mark = shape(r"linkStyle (\d+) stroke:red");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("flowchart LR"), "{text}");
    let mut chart = Chart {
        places: Vec::new(),
        arrows: Vec::new(),
        notes: Vec::new(),
        marked: Vec::new(),
    };
    for line in lines {
        let number = |text: &str| text.parse::<usize>().unwrap();
        if let Some(found) = place.captures(line) {
            let label = found.get(1).or(found.get(2)).unwrap().as_str();
            chart.places.push(decoded(label));
        } else if let Some(found) = arrow.captures(line) {
            let label = found[2].split("<br>").map(decoded).collect();
            chart
                .arrows
                .push((number(&found[1]), number(&found[3]), label));
        } else if let Some(found) = note.captures(line) {
            chart.notes.push((decoded(&found[1]), Vec::new()));
        } else if let Some(found) = tie.captures(line) {
            let (_, places) = chart.notes.last_mut().expect("a note to tie");
            places.push(number(&found[1]));
        } else if let Some(found) = mark.captures(line) {
            chart.marked.push(number(&found[1]));
        } else {
            assert!(
                line.starts_with("    classDef warning "),
                "{line:?} in\n{text}"
            );
        }
    }
    chart
}

fn decoded(label: &str) -> String {
    let left_alone = |c: char| c.is_alphanumeric() || " /.-_,{}^?:".contains(c);
    let mut text = String::new();
    let mut rest = label;
    while let Some((before, entity)) = rest.split_once('#') {
        text.push_str(before);
        let (code, after) = entity.split_once(';').expect("an entity ends");
        let code = code
            .parse()
            .ok()
            .and_then(char::from_u32)
            .expect("a character");
        text.push(if code == '\u{a0}' { ' ' } else { code });
        rest = after;
    }
    text.push_str(rest);
    let raw = label.replace(['#', ';'], "");
    assert!(
        raw.chars().all(left_alone),
        "{label:?} holds more than plain text"
    );
    text
}

fn chart(yaml: &str) -> Chart {
    let sandbox = Sandbox::without_minio();
    sandbox.env("MINIO_BUCKET", "edi");
    let run = sandbox.call_with_stdin(&["graph", "--config", "-"], yaml);
    run.exits(0);
    read(&run.stdout)
}

fn config_of(rules: &str) -> String {
    format!("config:\n  defaults: {{default_bucket: edi, base_file_path: /bots}}\n{rules}")
}

const CHAIN: &str = r"
  inbound: {src: {type: s3, path: in, match: {glob: '*.edi'}}, dest: {type: file, path: work},
            mode: move, if_exists: fail}
  archive: {src: {type: file, path: work}, dest: {type: s3, path: old}, mode: move}
  others: {src: {type: s3, path: other}, dest: {type: s3, path: old}, mode: copy, if_exists: skip}
";

#[test]
fn a_place_that_rules_share_is_one_node() {
    let chart = chart(&config_of(CHAIN));
    let places = [
        "s3://edi/in/",
        "/bots/work",
        "s3://edi/old/",
        "s3://edi/other/",
    ];
    assert_eq!(chart.places, places);
    let ends: Vec<_> = chart
        .arrows
        .iter()
        .map(|(from, to, _)| (*from, *to))
        .collect();
    assert_eq!(ends, [(1, 2), (2, 3), (4, 3)]);
}

#[test]
fn an_arrow_says_pattern_rename_and_mode() {
    let rules = r"
  one: {src: {type: s3, path: in, match: {regex: '^a|b$'}}, if_exists: fail,
        dest: {type: file, path: work, rename: {regex: '^(.*)$', replace: '\1.{date}'}}}
  two: {src: {type: file, path: out}, dest: {type: s3, path: /}, mode: copy, if_exists: skip}
";
    let lines: Vec<_> = chart(&config_of(rules))
        .arrows
        .into_iter()
        .map(|(_, _, lines)| lines)
        .collect();
    let first = [
        "one",
        "regex ^a|b$",
        r"rename ^(.*)$ to \1.{date}",
        "move, if_exists fail",
    ];
    assert_eq!(lines[0], first);
    assert_eq!(lines[1], ["two", "every name", "copy, if_exists skip"]);
}

#[test]
fn what_check_warns_of_is_drawn_where_it_happens() {
    let sandbox = Sandbox::without_minio();
    let rules = format!(
        "{CHAIN}{}",
        r"
  too: {src: {type: s3, path: in/850}, dest: {type: s3, path: away}}
  again: {src: {type: s3, path: far}, dest: {type: s3, path: near}, mode: copy}
  same: {src: {type: s3, path: wide},
         dest: {type: s3, path: thin, rename: {regex: '.+', replace: x}}}
"
    );
    let yaml = config_of(&rules);
    let checked = sandbox
        .call_with_stdin(&["check", "--config", "-"], &yaml)
        .stdout;
    let chart = chart(&yaml);
    let named = |name: &str| chart.places.iter().position(|place| place == name).unwrap() + 1;
    let mut warnings = Vec::new();
    for (text, places) in &chart.notes {
        assert!(
            checked.contains(&format!("warning: {text}\n")),
            "{text:?} in\n{checked}"
        );
        warnings.push(places.clone());
    }
    assert_eq!(
        warnings.len(),
        checked.matches("warning: ").count(),
        "{checked}"
    );
    let expected = [
        vec![named("s3://edi/near/")],
        vec![named("s3://edi/thin/")],
        vec![named("/bots/work")],
        vec![named("s3://edi/in/"), named("s3://edi/in/850/")],
    ];
    assert_eq!(warnings, expected, "{checked}");
    // All but `others`.
    assert_eq!(chart.marked, [0, 1, 3, 4, 5]);
}

#[test]
fn a_chart_without_warnings_has_no_other_style() {
    let rules = "  one: {src: {type: s3, path: in}, dest: {type: file, path: work}}\n";
    let yaml = config_of(rules);
    let run = Sandbox::without_minio().call_with_stdin(&["graph", "--config", "-"], &yaml);
    run.exits(0);
    assert!(
        !run.stdout.contains("Style") && !run.stdout.contains("classDef"),
        "{run:?}"
    );
}

#[test]
fn only_the_rules_that_are_asked_for_are_drawn() {
    let args = ["graph", "--config", "-", "--rule", "others"];
    let run = Sandbox::without_minio().call_with_stdin(&args, &config_of(CHAIN));
    assert_eq!(
        read(&run.exits(0).stdout).places,
        ["s3://edi/other/", "s3://edi/old/"]
    );
}

#[test]
fn a_config_that_check_refuses_is_not_drawn() {
    let sandbox = Sandbox::without_minio();
    let run = sandbox.call_with_stdin(&["graph", "--config", "-"], "config: {}\n");
    run.is_refused(&[]);
    assert_eq!(run.stdout, "");
    sandbox
        .call(&["graph", "more"])
        .is_refused(&["`graph` takes no further word"]);
}

/// The project's own configs: in the documents, in `kube` and of the demo.
fn known_configs() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let is_config = |text: &str| {
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.next() == Some("config:")
    };
    for folder in ["kube", "tests/demo", "tests/e2e"] {
        let mut folders = vec![root.join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|end| end == "yaml") {
                    let text = fs::read_to_string(&path).unwrap();
                    if is_config(&text) {
                        found.push((path.display().to_string(), text));
                    }
                }
            }
        }
    }
    assert!(found.len() >= 3, "kube and the demo have configs");
    let in_documents = blocks("yaml")
        .into_iter()
        .filter(|block| is_config(&block.text));
    found.extend(in_documents.map(|block| (block.place(), block.text)));
    found
}

/// A config whose names are made of [`PIECES`].
fn made_up_config() -> impl Strategy<Value = String> {
    let text =
        || prop::collection::vec(prop::sample::select(PIECES), 1..6).prop_map(|all| all.concat());
    let place = || (prop::bool::ANY, text());
    prop::collection::vec((text(), place(), place(), text()), 1..7).prop_map(|rules| {
        let place = |(s3, path): &(bool, String)| {
            let kind = if *s3 { "s3" } else { "file" };
            json!({"type": kind, "path": format!("x{path}x")})
        };
        let mut yaml = config_of("");
        for (index, (name, from, to, pattern)) in rules.iter().enumerate() {
            let name = json!(format!("{name}{index}"));
            let mut source = place(from);
            source["match"] = match index % 2 {
                0 => json!({"regex": format!("x{}x", regex::escape(pattern))}),
                _ => json!({"glob": format!("x{}x", pattern.replace(['[', ']'], "*"))}),
            };
            let rule = json!({"src": source, "dest": place(to)});
            writeln!(yaml, "  {name}: {rule}").unwrap();
        }
        yaml
    })
}

/// What a chart of these rules has to show.
fn facts(rules: &[Rule]) -> (Vec<String>, Vec<serde_json::Value>) {
    let mut places: Vec<String> = Vec::new();
    let mut at = |place: String| {
        let found = places.iter().position(|known| *known == place);
        let index = found.unwrap_or_else(|| {
            places.push(place);
            places.len() - 1
        });
        format!("p{}", index + 1)
    };
    let rules = rules.iter().map(|rule| {
        let (from, to) = (at(rule.source.to_string()), at(rule.dest.to_string()));
        json!({"rule": rule.name, "pattern": rule.matcher.to_string(), "from": from, "to": to})
    });
    let rules = rules.collect();
    (places, rules)
}

#[test]
fn no_name_breaks_a_chart() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("charts");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let mut runner = TestRunner::new(Config {
        rng_seed: RngSeed::Fixed(18),
        ..Config::default()
    });
    let made_up =
        std::iter::from_fn(|| Some(made_up_config().new_tree(&mut runner).unwrap().current()));
    // Some of them are no config, such as where a path is too odd.
    let made_up = made_up.take(2000).map(|yaml| ("made up".to_owned(), yaml));
    let mut drawn = 0;
    let known = known_configs();
    let enough = known.len() + 200;
    for (origin, yaml) in known.into_iter().chain(made_up) {
        let config = match config::parse(&yaml, &origin, Some("edi")) {
            Ok(config) => config,
            Err(_) if origin == "made up" => continue,
            Err(problems) => panic!("{origin}: {problems}"),
        };
        let text = graph::chart(&config);
        assert_eq!(
            text,
            graph::chart(&config),
            "the same rules give the same chart"
        );
        let chart = read(&text);
        let (places, rules) = facts(&config.rules);
        assert_eq!(chart.places, places, "{yaml}\n{text}");
        let read: Vec<_> = chart
            .arrows
            .iter()
            .map(|(from, to, lines)| {
                json!({"rule": lines[0], "pattern": lines[1],
                       "from": format!("p{from}"), "to": format!("p{to}")})
            })
            .collect();
        assert_eq!(read, rules, "{yaml}\n{text}");
        fs::write(folder.join(format!("{drawn:03}.mmd")), &text).unwrap();
        let facts = json!({"places": places, "rules": rules}).to_string();
        fs::write(folder.join(format!("{drawn:03}.json")), facts).unwrap();
        drawn += 1;
        if drawn == enough {
            break;
        }
    }
    assert_eq!(
        drawn, enough,
        "too many of the made-up configs were refused"
    );
    // What the documents draw is given to the parser too.
    for (index, block) in blocks("mermaid").iter().enumerate() {
        fs::write(folder.join(format!("document-{index}.mmd")), &block.text).unwrap();
    }
}

/// The chart in a document is what the program draws of its config.
fn check_document(document: &Path, config: &str) {
    let sandbox = Sandbox::without_minio();
    sandbox.env("MINIO_BUCKET", "edi");
    let run = sandbox.call_with_stdin(&["graph", "--config", "-"], config);
    run.exits(0);
    let charts: Vec<String> = blocks("mermaid")
        .into_iter()
        .filter(|block| block.document == document)
        .map(|block| block.text)
        .collect();
    assert!(
        charts.contains(&run.stdout),
        "{} does not show\n{}",
        document.display(),
        run.stdout
    );
}

#[test]
fn the_readme_draws_its_first_config() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let first = blocks("yaml").into_iter().find(|block| {
        block.document == root.join("README.md") && block.text.starts_with("config:")
    });
    check_document(&root.join("README.md"), &first.expect("a config").text);
}

#[test]
fn the_readme_of_kube_draws_the_config_of_base() {
    let kube = Path::new(env!("CARGO_MANIFEST_DIR")).join("kube");
    let config = fs::read_to_string(kube.join("base/config.yaml")).unwrap();
    check_document(&kube.join("README.md"), &config);
}
