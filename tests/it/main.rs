//! The integration tests, one binary: they run the built program against the real MinIO.
//!
//! A test's name is a claim, its body reads like one; how worlds and faults are made is in
//! `support`.

// A test may fail at any line, and says why by panicking; the report goes to standard error.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod command_line;
mod faults;
mod harness;
mod listing;
mod logs;
mod moves;
mod names;
mod policies;
mod rules;
mod safety;
mod signals;
mod support;
mod tls;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// A file without its `mod` line would never be compiled, and its tests never run.
#[test]
fn no_file_of_tests_is_forgotten() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    for (directory, list) in [(root.clone(), "main.rs"), (root.join("support"), "mod.rs")] {
        let listed = fs::read_to_string(directory.join(list)).unwrap();
        let listed: BTreeSet<_> = listed
            .lines()
            .filter_map(|line| line.trim_start_matches("pub(crate) ").strip_prefix("mod "))
            .map(|name| name.trim_end_matches(';').to_owned())
            .collect();
        let there: BTreeSet<_> = fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_dir() || path.extension().is_some_and(|end| end == "rs"))
            .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
            .filter(|name| name != "main" && name != "mod" && name != "data")
            .collect();
        assert_eq!(
            listed,
            there,
            "the `mod` lines of {} and its files",
            directory.display()
        );
    }
}
