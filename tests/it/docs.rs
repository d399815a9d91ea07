//! The documents say what is so: their configs are accepted, their log lines parse, their commands
//! and flags exist.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::Sandbox;
use crate::support::log::Event;
use crate::support::minio::PINNED;

/// A fenced block of a document.
pub(crate) struct Block {
    pub(crate) document: PathBuf,
    /// The number of its first line.
    line: usize,
    language: String,
    pub(crate) text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Markdown of the project.
fn documents() -> Vec<PathBuf> {
    fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                collect(&path, found);
            } else if path.extension().is_some_and(|end| end == "md") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    collect(root(), &mut found);
    found
}

pub(crate) fn blocks(language: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        let mut open = false;
        for (at, line) in text.lines().enumerate() {
            if let Some(language) = line.strip_prefix("```") {
                open = !open;
                if open {
                    let (document, language) = (document.clone(), language.to_owned());
                    found.push(Block {
                        document,
                        line: at + 2,
                        language,
                        text: String::new(),
                    });
                }
            } else if open {
                let block = found.last_mut().expect("a block is open");
                block.text.push_str(line);
                block.text.push('\n');
            }
        }
        assert!(!open, "a block in {} has no end", document.display());
    }
    found.retain(|block| block.language == language);
    found
}

impl Block {
    pub(crate) fn place(&self) -> String {
        format!("{}:{}", self.document.display(), self.line)
    }
}

/// Every config that a document shows or that is deployed, and where it stands.
pub(crate) fn configs() -> Vec<(String, String)> {
    let is_config = |text: &str| text.starts_with("config:");
    let shown = blocks("yaml").into_iter();
    let mut configs: Vec<_> = shown.map(|block| (block.place(), block.text)).collect();
    for path in ["kube/base/config.yaml", "kube/job/config.yaml"] {
        configs.push((
            path.to_owned(),
            fs::read_to_string(root().join(path)).unwrap(),
        ));
    }
    configs.retain(|(_, text)| text.lines().any(is_config));
    configs
}

#[test]
fn every_config_in_the_documents_is_accepted() {
    let sandbox = Sandbox::without_minio();
    sandbox.env("MINIO_BUCKET", "edi");
    let configs = blocks("yaml")
        .into_iter()
        .filter(|block| block.text.starts_with("config:"));
    let mut seen = 0;
    for block in configs {
        let run = sandbox.call_with_stdin(&["check", "--config", "-"], &block.text);
        assert_eq!(run.code(), 0, "{}: {run:?}", block.place());
        seen += 1;
    }
    assert!(seen > 0, "the README shows a config");
}

#[test]
fn every_log_line_in_the_documents_is_one() {
    let mut seen = 0;
    for block in blocks("text") {
        for line in block
            .text
            .lines()
            .filter(|line| line.starts_with("20") && line.contains("event="))
        {
            assert!(
                Event::parse_text(line).is_some(),
                "{}: {line}",
                block.place()
            );
            seen += 1;
        }
    }
    assert!(seen > 0, "the README shows a log");
}

/// Each `$` line is run, in one directory, and what it prints is held against what follows it; `…`
/// stands for any text.
#[test]
fn the_sessions_in_the_documents_go_as_they_are_told() {
    let mut commands = 0;
    for block in blocks("console") {
        let sandbox = Sandbox::new();
        sandbox.bucket().put("in/x12/850/po1.edi", "ISA*00~");
        let text = block
            .text
            .replace("/home/bots/.bots", sandbox.base().to_str().unwrap())
            .replace("s3://edi/", &format!("s3://{}/", sandbox.bucket().name()))
            .replace(
                "bucket: edi",
                &format!("bucket: {}", sandbox.bucket().name()),
            );
        for step in text.split("$ ").skip(1) {
            let (command, expected) = step.split_once('\n').unwrap();
            if let Some(file) = command.strip_prefix("cat ") {
                fs::write(sandbox.path(file), expected).unwrap();
                continue;
            }
            let printed = sandbox.shell(command);
            let pattern = regex::escape(expected).replace('…', ".*");
            let pattern = regex::Regex::new(&format!("^{pattern}$")).unwrap();
            assert!(
                pattern.is_match(&printed),
                "{}: {command}\n--- expected\n{expected}--- printed\n{printed}",
                block.place()
            );
            commands += 1;
        }
    }
    assert!(commands >= 6, "the README has a session");
}

#[test]
fn every_flag_in_the_documents_is_known_to_help() {
    let help = Sandbox::without_minio().call(&["--help"]).stdout;
    let mut seen = 0;
    for block in blocks("sh") {
        for line in block
            .text
            .lines()
            .filter(|line| line.starts_with("bots-mover"))
        {
            let command = line.split(" #").next().unwrap_or_default();
            for flag in command
                .split_whitespace()
                .filter(|word| word.starts_with("--"))
            {
                assert!(
                    help.contains(flag),
                    "{}: {flag} is not in --help",
                    block.place()
                );
                seen += 1;
            }
        }
    }
    assert!(seen > 0, "the README shows calls");
}

#[test]
fn the_build_pins_the_minio_that_the_tests_ask_for() {
    let script = fs::read_to_string(root().join(".ci/tools.sh")).unwrap();
    let version = PINNED.split('@').nth(1).expect("a module and its version");
    assert!(
        script.contains(version),
        ".ci/tools.sh pins another MinIO than {PINNED}"
    );
}

#[test]
fn the_plots_of_the_benchmark_show_its_tables() {
    let bench = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench");
    let written = fs::read_to_string(bench.join("README.md")).expect("the page of the benchmark");
    let directory = tempfile::tempdir().expect("a directory");
    let copy = directory.path().join("README.md");
    fs::write(&copy, &written).expect("a copy of the page");
    let drawn = std::process::Command::new("python3")
        .arg(bench.join("bench.py"))
        .args(["plots", "--readme"])
        .arg(&copy)
        .status();
    assert!(drawn.expect("python3").success());
    let drawn = fs::read_to_string(copy).expect("the page drawn anew");
    assert!(written.contains("xychart-beta"));
    assert_eq!(drawn, written, "run ./build.sh bench plots");
}

#[test]
fn the_licence_is_the_one_that_the_package_and_the_image_name() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let licence = read("src/LICENSE");
    let name = licence.lines().next().unwrap().strip_suffix(" License");
    let name = name.expect("its name in the first line");
    assert_eq!(name, env!("CARGO_PKG_LICENSE"));
    let label = format!("org.opencontainers.image.licenses=\"{name}\"");
    assert!(read("Dockerfile").contains(&label), "no label {label}");
    for section in ["Permission is hereby granted", "WITHOUT WARRANTY"] {
        assert!(licence.contains(section), "{section}");
    }
    // Both ways to an image take it along.
    for path in ["Dockerfile", "tests/image/images.sh"] {
        assert!(read(path).contains("src/LICENSE"), "{path}");
    }
}

/// The shape of <https://keepachangelog.com/en/1.1.0/>.
#[test]
fn the_changelog_has_this_version_and_says_what_kind_each_change_is() {
    let kinds = [
        "Added",
        "Changed",
        "Deprecated",
        "Removed",
        "Fixed",
        "Security",
    ];
    let text = fs::read_to_string(root().join("src/CHANGELOG.md")).unwrap();
    let below = |mark: &str| {
        let lines = text.lines().filter_map(|line| line.strip_prefix(mark));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let versions = below("## ");
    let newest = versions.first().expect("a version");
    let version = format!("[{}] - ", env!("CARGO_PKG_VERSION"));
    let date = newest.strip_prefix(&version);
    let date = date.unwrap_or_else(|| panic!("{newest:?} is not {version:?}"));
    let is_date = regex::Regex::new(r"^\d{4}-\d\d-\d\d$").unwrap();
    assert!(date == "unreleased" || is_date.is_match(date), "{date}");
    let sections = below("### ");
    assert!(!sections.is_empty());
    for section in &sections {
        assert!(kinds.contains(&section.as_str()), "{section}");
    }
    assert!(!below("- ").is_empty());
}
