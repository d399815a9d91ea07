//! House rules as tests: what a reviewer would have to look for again and again.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const COLUMNS_MAX: usize = 100;
const LINES_MAX: usize = 900;

/// Words that only these files of `src` may use, outside their tests.
const RESERVED: &[Reserved] = &[
    Reserved {
        what: "prints",
        words: &[
            "println!",
            "eprintln!",
            "print!",
            "eprint!",
            "stdout()",
            "stderr()",
        ],
        only: &["logger.rs", "main.rs", "start.rs"],
    },
    Reserved {
        what: "creates, renames, links or removes files",
        words: &[
            "fs::write",
            "fs::rename",
            "fs::remove",
            "fs::create",
            "fs::hard_link",
            "fs::copy",
            "File::create",
            "renameat",
            "unlinkat",
            "linkat",
            "mkdirat",
            "fs::unlink",
        ],
        only: &["store/local", "part.rs"],
    },
    Reserved {
        what: "sleeps or waits",
        words: &["thread::sleep", "wait_timeout", "park", "recv_timeout"],
        only: &["context.rs", "schedule.rs", "signal.rs"],
    },
    Reserved {
        what: "asks for the time of day",
        words: &["Timestamp::now", "SystemTime::now", "Zoned::now"],
        only: &["main.rs"],
    },
    Reserved {
        what: "asks for the environment",
        words: &[
            "env::var",
            "env::args",
            "env::temp_dir",
            "env::current_dir",
            "env::set_var",
        ],
        only: &["main.rs"],
    },
];

struct Reserved {
    what: &'static str,
    words: &'static [&'static str],
    /// Files, or folders with all that is in them.
    only: &'static [&'static str],
}

/// One file of the project.
struct Source {
    /// Relative to `src` or `tests/it`.
    path: PathBuf,
    text: String,
}

impl Source {
    /// The lines before the file's own tests that are no comments, with their numbers.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self
            .text
            .lines()
            .enumerate()
            .map(|(at, line)| (at + 1, line));
        lines
            .take_while(|(_, line)| line.trim() != "#[cfg(test)]")
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// The module right below the crate that the file belongs to; `None` for the crate's roots.
    fn module(&self) -> Option<String> {
        let first = self
            .path
            .components()
            .next()?
            .as_os_str()
            .to_string_lossy()
            .into_owned();
        let name = first.trim_end_matches(".rs").to_owned();
        (name != "main" && name != "lib").then_some(name)
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &str) -> Vec<Source> {
    fn collect(top: &Path, directory: &Path, found: &mut Vec<Source>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(top, &path, found);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push(Source {
                    path: path.strip_prefix(top).unwrap().to_owned(),
                    text,
                });
            }
        }
    }
    let mut found = Vec::new();
    collect(&root().join(folder), &root().join(folder), &mut found);
    found.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(!found.is_empty(), "no files in {folder}");
    found
}

/// Fails with all that was found.
#[track_caller]
fn none(rule: &str, found: &[String]) {
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

#[test]
fn modules_import_only_what_stands_below_them_in_lib_rs() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let order: Vec<&str> = lib
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "))
        .map(|name| name.trim_end_matches(';'))
        .collect();
    let place = |module: &str| order.iter().position(|name| *name == module);
    let mut found = Vec::new();
    for source in sources("src") {
        let Some(module) = source.module() else {
            continue;
        };
        let own = place(&module).unwrap_or_else(|| panic!("no `mod {module};` in lib.rs"));
        for import in imports(&source) {
            let theirs = place(&import).unwrap_or_else(|| panic!("`{import}` is not in lib.rs"));
            if theirs < own {
                found.push(format!("{} imports {import}", source.path.display()));
            }
        }
    }
    none("an import points upwards in the list of lib.rs", &found);
}

/// The crate's modules that a file names, each once.
fn imports(source: &Source) -> BTreeSet<String> {
    let code: Vec<&str> = source.code().map(|(_, line)| line).collect();
    let code = code.join("\n");
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let mut found = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        let grouped = rest
            .strip_prefix('{')
            .and_then(|rest| rest.split('}').next());
        for path in grouped.map_or(vec![rest], |all| all.split(',').collect()) {
            let name: String = path.trim().chars().take_while(|c| is_word(*c)).collect();
            if !name.is_empty() {
                found.insert(name);
            }
        }
    }
    found
}

#[test]
fn the_two_stores_know_nothing_of_each_other() {
    let mut found = Vec::new();
    for source in sources("src/store") {
        let (own, other) = match source.module().as_deref() {
            Some("s3") => ("s3", "local"),
            Some("local") => ("local", "s3"),
            _ => continue,
        };
        let names = [format!("store::{other}"), format!("super::super::{other}")];
        for (number, line) in source.code() {
            if names.iter().any(|name| line.contains(name)) {
                found.push(format!("{own}: {}:{number}: {line}", source.path.display()));
            }
        }
    }
    none("a store names the other", &found);
}

#[test]
fn what_is_reserved_to_some_files_is_only_there() {
    let mut found = Vec::new();
    for source in sources("src") {
        for rule in RESERVED {
            if rule
                .only
                .iter()
                .any(|allowed| source.path.starts_with(allowed))
            {
                continue;
            }
            for (number, line) in source.code() {
                if let Some(word) = rule.words.iter().find(|word| has_word(line, word)) {
                    let path = source.path.display();
                    found.push(format!(
                        "{path}:{number} {} ({word}): {}",
                        rule.what,
                        line.trim()
                    ));
                }
            }
        }
    }
    none("only some files may do this; see RESERVED", &found);
}

/// Whether the line has this word, and not as the tail of a longer one.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '_')
    })
}

#[test]
fn the_words_that_are_reserved_are_in_use_where_they_may_be() {
    for rule in RESERVED {
        for allowed in rule.only {
            assert!(
                root().join("src").join(allowed).exists(),
                "no src/{allowed}: {}",
                rule.what
            );
        }
    }
}

#[test]
fn lines_and_files_fit_a_reader() {
    let mut found = Vec::new();
    for folder in ["src", "tests"] {
        for source in sources(folder) {
            let path = source.path.display();
            let lines = source.text.lines().count();
            if lines > LINES_MAX {
                found.push(format!("{folder}/{path} has {lines} lines"));
            }
            for (at, line) in source.text.lines().enumerate() {
                let columns = line.chars().count();
                if columns > COLUMNS_MAX {
                    found.push(format!("{folder}/{path}:{} has {columns} columns", at + 1));
                }
            }
        }
    }
    none("too long", &found);
}

#[test]
fn every_file_begins_by_saying_what_it_is_for() {
    let mut found = Vec::new();
    for folder in ["src", "tests"] {
        for source in sources(folder) {
            let first = source.text.lines().next().unwrap_or_default();
            if !first.starts_with("//! ") || first.contains("To come") {
                found.push(format!("{folder}/{}: {first}", source.path.display()));
            }
        }
    }
    none("the first line is no `//!`", &found);
}

/// A file without its `mod` line would never be compiled, and its tests never run.
#[test]
fn no_file_of_tests_is_forgotten() {
    let mut found = Vec::new();
    for source in sources("tests/it") {
        let path = &source.path;
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let folder = path.parent().unwrap().to_owned();
        // A folder's file is `x/mod.rs` or `x.rs`; both are named where the folder is.
        let (folder, name) = match name.as_str() {
            "main" => continue,
            "mod" => {
                let name = folder.file_name().unwrap().to_string_lossy().into_owned();
                (folder.parent().unwrap().to_owned(), name)
            }
            _ => (folder, name),
        };
        let candidates = if folder.as_os_str().is_empty() {
            vec![PathBuf::from("main.rs")]
        } else {
            vec![folder.join("mod.rs"), folder.with_extension("rs")]
        };
        let listed = candidates.iter().any(|list| {
            let text = fs::read_to_string(root().join("tests/it").join(list));
            let line = format!("mod {name};");
            text.is_ok_and(|text| {
                text.lines()
                    .any(|l| l.split("pub(crate) ").last() == Some(&line))
            })
        });
        if !listed {
            found.push(path.display().to_string());
        }
    }
    none("no `mod` line names it", &found);
}

#[test]
fn no_test_is_ignored() {
    // In two pieces, so that this file does not find itself.
    let attribute = ["#[ig", "nore"].concat();
    let mut found = Vec::new();
    for folder in ["src", "tests"] {
        for source in sources(folder) {
            if source.text.contains(&attribute) {
                found.push(source.path.display().to_string());
            }
        }
    }
    none("a test that does not run is not there", &found);
}
