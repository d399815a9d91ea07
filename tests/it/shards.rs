//! Several runs that share the work: each item is taken by one of them, none is left, and what
//! would land on one destination is in one hand.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

use md5::{Digest as _, Md5};

use crate::support::process::Run;
use crate::support::sandbox::set_mtime;
use crate::support::trace::traced;
use crate::support::{DIRECTIONS, End, Sandbox, Tree};

/// `count` items, in directories too.
fn items(count: usize) -> Tree {
    let item = |number: usize| {
        (
            format!("{}/{number:03}.edi", number % 3),
            number.to_string(),
        )
    };
    let below: Tree = (0..count).map(item).collect();
    let above = |number: usize| {
        let size_bytes = if number.is_multiple_of(8) {
            200_000
        } else {
            700
        };
        (
            format!("{number:03}-{number:03}.edi"),
            vec![b'x'; size_bytes + number],
        )
    };
    below.union((0..count).map(above).collect())
}

/// A world with a rule from `in` to `out` that has further keys.
fn world(direction: (End, End), more: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.default("max_items: 1000");
    sandbox.default("exit_on_first_failure: false");
    let (from, to) = direction;
    let src = from.at("in").replace('}', ", recursive: true}");
    sandbox.rule("r", &format!("src: {src}, dest: {}{more}", to.at("out")));
    sandbox
}

/// All `count` shards at once.
fn run_shards(sandbox: &Sandbox, count: usize) -> Vec<Run> {
    let shard = |index| sandbox.start_with(&["--shard", &format!("{index}/{count}")]);
    let running: Vec<_> = (0..count).map(shard).collect();
    let finish = |run| sandbox.finish(run);
    running.into_iter().map(finish).collect()
}

/// How many items each of the runs moved, and how often each item was.
fn moved(runs: &[Run]) -> (Vec<usize>, BTreeMap<String, usize>) {
    let mut times = BTreeMap::new();
    let mut counts = Vec::new();
    for run in runs {
        let moved = run.of("moved");
        counts.push(moved.len());
        for line in moved {
            *times.entry(line.get("src").to_owned()).or_default() += 1;
        }
    }
    (counts, times)
}

fn total(runs: &[Run], key: &str) -> u64 {
    runs.iter().map(|run| run.one("run_done").number(key)).sum()
}

#[test]
fn shards_at_once_take_each_item_once_and_leave_none() {
    for direction in DIRECTIONS {
        for count in [1, 2, 4] {
            let sandbox = world(direction, "");
            let items = items(40);
            sandbox.fill(direction.0, "in", &items);
            let runs = run_shards(&sandbox, count);
            for run in &runs {
                run.succeeds();
            }
            let (counts, times) = moved(&runs);
            assert_eq!(
                times.len(),
                items.len(),
                "{direction:?} {count}: {counts:?}"
            );
            assert!(times.values().all(|times| *times == 1), "{times:?}");
            // 80 items: one shard of four without any is no chance.
            assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
            assert_eq!(sandbox.at_end(direction.1, "out"), items);
            assert!(sandbox.at_end(direction.0, "in").is_empty());
        }
    }
}

#[test]
fn the_items_of_a_shard_that_was_killed_are_taken_by_the_next_run() {
    let sandbox = world((End::File, End::File), "");
    let items = items(40);
    sandbox.fill(End::File, "in", &items);
    sandbox.dies_at_first_write();
    let killed = sandbox.run_with(&["--shard", "0/2"]);
    assert_ne!(killed.code(), 0);
    assert!(killed.of("moved").is_empty());
    sandbox.launch_plainly();
    let other = sandbox.run_with(&["--shard", "1/2"]);
    let (counts, _) = moved(&[other]);
    let left = sandbox.files("in").len();
    assert!(counts[0] > 0 && left > 0);
    assert_eq!(
        counts[0] + left,
        items.len(),
        "a shard leaves another one's items"
    );
    let (counts, _) = moved(&run_shards(&sandbox, 2));
    assert_eq!(counts, [left, 0]);
    assert_eq!(sandbox.files("out").visible(), items);
    assert!(sandbox.files("in").is_empty());
}

#[test]
fn what_would_land_on_one_destination_is_noticed_as_in_one_run() {
    for replace in ["one.edi", "{timestamp}", "{mtime-z}.edi", "{date}-{time}"] {
        let rename = format!(", path: out, rename: {{regex: '^.*$', replace: '{replace}'}}}}");
        let sandbox = world((End::File, End::S3), "");
        sandbox.forget_rules();
        let time = SystemTime::now() - Duration::from_secs(1000);
        for number in 0..12 {
            for source in ["in", "other"] {
                set_mtime(&sandbox.write(format!("{source}/{number}"), "x"), time);
            }
        }
        for source in ["in", "other"] {
            let dest = format!("{{type: s3{rename}");
            sandbox.rule(
                source,
                &format!("src: {}, dest: {dest}", End::File.at(source)),
            );
        }
        let runs = run_shards(&sandbox, 4);
        // Each run has its own clock, but only one of them takes anything.
        assert_eq!(total(&runs, "moved"), 1, "{replace}");
        assert_eq!(total(&runs, "failed"), 23, "{replace}");
        let left = sandbox.files("in").len() + sandbox.files("other").len();
        assert_eq!(left, 23, "{replace}");
    }
}

#[test]
fn a_shard_does_not_look_at_another_one_s_items() {
    let sandbox = world((End::File, End::File), "");
    sandbox.mkdir("out");
    sandbox.fill(End::File, "in", &items(8));
    sandbox.env("BOTS_MOVER_SHARDS", "2");
    for index in ["0", "1"] {
        let before = sandbox.files("in");
        sandbox.env("JOB_COMPLETION_INDEX", index);
        let traced = traced(&sandbox, "%file", &[], None);
        traced.run.succeeds();
        let left = sandbox.files("in");
        let looked_at = |name: &&String| {
            let last = format!("\"{}\"", name.rsplit('/').next().unwrap());
            traced.calls.iter().any(|call| call.contains(&last))
        };
        let all: Vec<String> = before.names().into_iter().map(str::to_owned).collect();
        let looked_at: Vec<_> = all.iter().filter(looked_at).collect();
        assert_eq!(looked_at, before.without(&left).names());
        assert!(!looked_at.is_empty());
    }
    assert!(sandbox.files("in").is_empty());
}

#[test]
fn two_ways_to_one_directory_are_one_destination() {
    let sandbox = world((End::File, End::File), "");
    sandbox.forget_rules();
    let out = sandbox.mkdir("out");
    symlink(&out, sandbox.base().join("link")).unwrap();
    let names: Tree = (0..12)
        .map(|number| (format!("{number}.edi"), "x"))
        .collect();
    for (source, dest) in [("a", "out"), ("b", "link")] {
        sandbox.fill(End::File, source, &names);
        let rule = format!(
            "src: {}, dest: {}",
            End::File.at(source),
            End::File.at(dest)
        );
        sandbox.rule(source, &rule);
    }
    let runs = run_shards(&sandbox, 4);
    assert_eq!((total(&runs, "moved"), total(&runs, "failed")), (12, 12));
    assert_eq!(sandbox.files("out"), names);
}

#[test]
fn overlapping_runs_of_different_counts_lose_nothing() {
    for direction in DIRECTIONS {
        let sandbox = world(direction, "");
        let items = items(60);
        sandbox.fill(direction.0, "in", &items);
        let shards = ["0/2", "1/2", "0/3", "1/3", "2/3"];
        let running = shards.map(|shard| sandbox.start_with(&["--shard", shard]));
        let runs = running.map(|run| sandbox.finish(run));
        for run in &runs {
            run.succeeds();
        }
        let (_, times) = moved(&runs);
        assert!(times.values().all(|times| *times <= 2), "{times:?}");
        assert_eq!(sandbox.at_end(direction.1, "out").visible(), items);
        assert!(sandbox.at_end(direction.0, "in").is_empty());
    }
}

#[test]
fn a_directory_s_items_are_in_one_shard_and_in_order_where_the_rule_says_so() {
    let sandbox = world(
        (End::S3, End::File),
        ", shard_by: directory, concurrency: 1",
    );
    let item = |number: usize| (format!("{}/{number:02}.edi", number % 8), "x");
    let items: Tree = (0..64).map(item).collect();
    sandbox.fill(End::S3, "in", &items);
    let mut shards = BTreeMap::new();
    for (index, run) in run_shards(&sandbox, 4).iter().enumerate() {
        run.succeeds().never_says("in order within a shard only");
        let mut last = BTreeMap::new();
        for line in run.of("moved") {
            let src = line.get("src").to_owned();
            let (directory, _) = src.rsplit_once('/').unwrap();
            let directory = directory.to_owned();
            assert_eq!(*shards.entry(directory.clone()).or_insert(index), index);
            let before = last.insert(directory, src.clone());
            assert!(before.is_none_or(|before| before < src), "{src}");
        }
    }
    assert_eq!(shards.len(), 8);
    assert_eq!(sandbox.files("out"), items);
}

#[test]
fn each_shard_has_its_own_max_items_and_says_so() {
    let sandbox = world((End::File, End::File), ", max_items: 3, concurrency: 1");
    sandbox.fill(End::File, "in", &items(40));
    let runs = run_shards(&sandbox, 4);
    let (counts, _) = moved(&runs);
    assert_eq!(counts, [3; 4]);
    for (index, run) in runs.iter().enumerate() {
        let shard = format!("{index}/4");
        let of_all = "3 in each of 4 shards";
        run.logs("run_start", &[("shard", &shard), ("max_items", of_all)]);
        run.says(
            "warning",
            &[
                "rule \"r\"",
                "in order within a shard only",
                "shard_by: directory",
            ],
        );
    }
    sandbox.run().never_says("shard");
    sandbox.rule("s", "src: {type: file, path: s}, dest: {type: s3, path: s}");
    let run = sandbox.run_with(&["--shard", "0/4"]);
    run.logs(
        "run_start",
        &[("max_items", "3 to 1000 in each of 4 shards")],
    );
    let check = sandbox.run_with(&["check", "--shard", "0/4"]);
    for text in [
        "  max_items    3 in each of 4 shards, one at a time, in order\n",
        "  max_items    1000 in each of 4 shards, 32 at once\n",
        "warning: rule \"r\": concurrency: 1 is in order within a shard only",
    ] {
        assert!(check.stdout.contains(text), "{}", check.stdout);
    }
    assert!(!sandbox.run_with(&["check"]).stdout.contains("shard"));
}

#[test]
fn rules_that_share_a_destination_but_not_what_decides_are_warned_of() {
    let sandbox = world((End::File, End::S3), "");
    let more = "src: {type: file, path: more}, dest: {type: s3, path: out/x}, shard_by: directory";
    sandbox.rule("more", more);
    let check = sandbox.run_with(&["check", "--shard", "0/2"]);
    let text = "rules \"r\" and \"more\": they bring to one place, and their shard_by differs";
    assert!(check.stdout.contains(text), "{}", check.stdout);
    assert!(
        check.stdout.contains("  shard_by     directory\n"),
        "{}",
        check.stdout
    );
    assert!(!sandbox.run_with(&["check"]).stdout.contains("differs"));
}

#[test]
fn a_shard_comes_from_the_environment_of_an_indexed_job() {
    const INDEX: &str = "JOB_COMPLETION_INDEX";
    const COUNT: &str = "BOTS_MOVER_SHARDS";
    let sandbox = world((End::File, End::File), "");
    sandbox.fill(End::File, "in", &items(4));
    for (index, count, because) in [
        ("0", "", &[COUNT, "not set", INDEX][..]),
        ("", "4", &[INDEX, "not set", COUNT]),
        ("4", "4", &[INDEX, "found 4", "0 to 3"]),
        ("0", "0", &[COUNT, "found \"0\""]),
        ("x", "4", &[INDEX, "found \"x\""]),
        ("-1", "+4", &[INDEX, "\"-1\"", COUNT, "\"+4\""]),
    ] {
        sandbox.env(INDEX, index).env(COUNT, count);
        sandbox.run().is_refused(because);
    }
    assert_eq!(sandbox.files("in").len(), 8);
    sandbox.env(INDEX, "1").env(COUNT, "3\n");
    sandbox
        .run()
        .succeeds()
        .logs("run_start", &[("shard", "1/3")]);
    // `--shard $(JOB_COMPLETION_INDEX)/3` needs no other variable.
    sandbox.env(COUNT, "");
    let run = sandbox.run_with(&["--shard", "2/3"]);
    run.succeeds().logs("run_start", &[("shard", "2/3")]);
    for wrong in ["3/3", "0/0", "1", "x/3"] {
        sandbox
            .run_with(&["--shard", wrong])
            .is_refused(&["--shard is I/N, such as 0/4"]);
    }
    sandbox
        .call(&["schema", "--shard", "0/4"])
        .is_refused(&["--shard goes with run"]);
}

#[test]
fn a_rule_from_the_command_line_is_shared_too() {
    let sandbox = Sandbox::without_minio();
    let items: Tree = (0..20).map(|number| (format!("{number}"), "x")).collect();
    sandbox.fill(End::File, "in", &items);
    for shard in ["0/2", "1/2"] {
        let run = sandbox.call(&["move", "base/in", "base/out", "--shard", shard]);
        assert!((1..20).contains(&run.succeeds().of("moved").len()));
    }
    assert_eq!(sandbox.files("out"), items);
}

/// The table of the reference: which rule's destination, the name, what is hashed, its hash.
#[test]
fn the_hash_is_the_one_that_the_reference_promises() {
    let reference = include_str!("../../src/config/README.md");
    let rows: Vec<Vec<&str>> = reference
        .lines()
        .filter(|line| line.starts_with("| `dest: "))
        .map(|line| {
            line.split(" | ")
                .map(|cell| cell.trim_matches(['|', ' ', '`']))
                .collect()
        })
        .collect();
    assert_eq!(rows.len(), 5);
    for row in rows {
        let [keys, name, hashed, hash, of_4] = row[..] else {
            panic!("{row:?}")
        };
        let digest: [u8; 16] = Md5::digest(hashed).into();
        let number = u64::from_be_bytes(digest[..8].try_into().unwrap());
        assert_eq!(format!("{number:016x}"), hash, "md5sum of {hashed}");
        assert_eq!(format!("{}", number % 4), of_4, "{row:?}");
        let sandbox = Sandbox::without_minio();
        sandbox.rule(
            "r",
            &format!("src: {{type: file, path: /in, recursive: true}}, {keys}"),
        );
        for count in [4, 4_294_967_291_u64] {
            let owner = format!("{}/{count}", number % count);
            for (asked, whose) in [
                (&owner, "this one"),
                (&format!("{}/{count}", (number + 1) % count), "not "),
            ] {
                let run = sandbox.run_with(&["explain", name, "--shard", asked]);
                let text = format!("  shard    {owner}, {whose}");
                assert!(run.stdout.contains(&text), "{row:?}: {}", run.stdout);
            }
        }
        let run = sandbox.run_with(&["explain", name]);
        assert!(!run.stdout.contains("shard"), "{}", run.stdout);
    }
}
