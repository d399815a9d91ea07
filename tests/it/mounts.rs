//! A volume that is not mounted is found out before anything goes to the disk below it, and
//! one that does not tell upper from lower case before two items become one file.

use std::path::Path;
use std::time::Duration;

use crate::support::volume::{Disk, Volume};
use crate::support::{End, Sandbox, ends, tree};

const FILE_TO_FILE: (End, End) = (End::File, End::File);

/// A rule from the base to `dest`, which lies outside of it.
fn to(dest: &Path) -> Sandbox {
    let sandbox = Sandbox::without_minio();
    sandbox.fill(End::File, "in", &tree(&[("a", "1"), ("d/e/b", "2")]));
    let dest = End::File.at(&dest.display().to_string());
    let src = "{type: file, path: in, recursive: true}";
    sandbox.rule("r", &format!("src: {src}, dest: {dest}"));
    sandbox
}

/// As root of a mount namespace in which the base is mounted on itself.
fn with_base_bound(sandbox: &Sandbox) {
    let root = rustix::process::geteuid().is_root();
    let user: &[&str] = if root { &[] } else { &["--map-root-user"] };
    sandbox.launch_through(&[&["unshare", "--mount"], user].concat());
    let mount = "mount --bind \"$0\" \"$0\" && exec \"$@\"";
    sandbox.launch_through(&["sh", "-c", mount]);
    sandbox.launch_through(&[sandbox.base()]);
}

/// The volume was not mounted; all of its path was made on the disk below, and the sources went.
#[test]
fn outside_of_the_base_a_missing_parent_fails_the_rule_and_is_not_made() {
    let outside = tempfile::tempdir().unwrap();
    let sandbox = to(&outside.path().join("vol/x12/in"));
    let run = sandbox.run();
    run.exits(1)
        .says("failed", &["vol/x12", "is the volume mounted?"]);
    assert_eq!(sandbox.files("in").len(), 2);
    assert!(!outside.path().join("vol").exists());
    let run = sandbox.run_with(&["check", "--connect"]);
    run.exits(1);
    assert!(run.stdout.contains("is the volume mounted?"), "{run:?}");

    let (source, dest) = (sandbox.base().join("in"), outside.path().join("vol/x12/in"));
    let words = [Path::new("move"), source.as_path(), dest.as_path()];
    let run = sandbox.call(&words);
    run.exits(1).says("failed", &["is the volume mounted?"]);
    assert!(!outside.path().join("vol").exists());
}

#[test]
fn outside_of_the_base_the_last_part_is_made_and_the_directories_of_a_name() {
    let outside = tempfile::tempdir().unwrap();
    let sandbox = to(&outside.path().join("in"));
    sandbox.run().succeeds();
    assert!(sandbox.files("in").is_empty());
    for name in ["in/a", "in/d/e/b"] {
        assert!(outside.path().join(name).exists(), "{name}");
    }
}

#[test]
fn a_base_that_must_be_a_mount_point_and_is_none_fails_its_rules() {
    let outside = tempfile::tempdir().unwrap();
    let there = End::File.at(&outside.path().display().to_string());
    let inside = End::File.at("in");
    for (src, dest) in [(&inside, &there), (&there, &inside)] {
        let sandbox = Sandbox::without_minio();
        sandbox.write("in/a", "1");
        std::fs::write(outside.path().join("a"), "1").unwrap();
        sandbox.default("require_mount: true");
        sandbox.rule("r", &format!("src: {src}, dest: {dest}"));
        let run = sandbox.run();
        run.exits(1)
            .says("failed", &["no mount point", "is the volume mounted?"]);
        assert_eq!(run.of("moved").len(), 0);
        assert_eq!(sandbox.files("in").len(), 1);
        let run = sandbox.run_with(&["check", "--connect"]);
        run.exits(1);
        assert!(run.stdout.contains("no mount point"), "{run:?}");
        assert!(run.stdout.contains("must be a mount point"), "{run:?}");

        with_base_bound(&sandbox);
        sandbox.run().succeeds();
    }
}

#[test]
fn a_volume_that_is_mounted_at_the_base_is_as_it_must_be() {
    let mut disk = Disk::new();
    disk.fill("in", &tree(&[("a", "1")]));
    let volume = Volume::new(disk);
    let sandbox = Sandbox::without_minio();
    sandbox.default(&format!("base_file_path: {}", volume.path().display()));
    sandbox.default("require_mount: true");
    sandbox.rule("r", &ends(FILE_TO_FILE));
    let run = sandbox.run_with(&["check", "--connect"]);
    run.exits(0);
    let mounted = format!("mounted is {}", volume.path().display());
    assert!(run.stdout.contains(&mounted), "{run:?}");
    sandbox.run().succeeds();
    assert_eq!(volume.disk().tree("out").names(), ["a"]);
}

#[test]
fn without_a_base_there_is_nothing_that_could_be_mounted() {
    let sandbox = Sandbox::without_minio();
    sandbox.without_default("base_file_path");
    sandbox.default("require_mount: true");
    sandbox.rule(
        "r",
        "src: {type: file, path: /a}, dest: {type: file, path: /b}",
    );
    let run = sandbox.run();
    run.exits(2);
    assert!(run.stderr.contains("without a base_file_path"), "{run:?}");
}

/// A rule from a directory that tells case to a volume that does not.
fn to_folding(disk: Disk, keys: &str) -> (Sandbox, Volume) {
    let volume = Volume::new(disk);
    let sandbox = Sandbox::without_minio();
    sandbox.write_aged("in/d/po.edi", "lower", Duration::from_secs(60));
    sandbox.write("in/d/PO.edi", "upper");
    let src = "{type: file, path: in, recursive: true}";
    let dest = End::File.at(&volume.path().join("out").display().to_string());
    let rule = format!("src: {src}, dest: {dest}, concurrency: 1{keys}");
    sandbox.rule("r", &rule);
    sandbox.default("exit_on_first_failure: false");
    (sandbox, volume)
}

/// Both sources went, and one file was there.
#[test]
fn two_names_that_a_destination_takes_for_one_do_not_become_one_file() {
    for policy in ["overwrite", "fail", "skip", "skip, mode: copy"] {
        let keys = format!(", if_exists: {policy}");
        let (sandbox, volume) = to_folding(Disk::folding_case(), &keys);
        let run = sandbox.run();
        run.exits(1).says(
            "failed",
            &["in/d/po.edi already goes there", "upper from lower case"],
        );
        assert_eq!(run.of("failed").len(), 1, "{policy}: {run:?}");
        let expected = tree(&[("d/po.edi", "lower")]);
        assert_eq!(volume.disk().tree("out"), expected, "{policy}: {run:?}");
        assert!(sandbox.files("in").names().contains(&"d/PO.edi"));
    }
}

#[test]
fn where_both_are_kept_the_second_takes_the_next_free_name() {
    let (sandbox, volume) = to_folding(Disk::folding_case(), ", if_exists: keep_both");
    sandbox.run().succeeds();
    let expected = tree(&[("d/po.edi", "lower"), ("d/PO-1.edi", "upper")]);
    assert_eq!(volume.disk().tree("out"), expected);
    assert!(sandbox.files("in").is_empty());
}

#[test]
fn where_case_is_told_both_names_arrive() {
    let (sandbox, volume) = to_folding(Disk::new(), ", if_exists: fail");
    sandbox.run().succeeds();
    let expected = tree(&[("d/po.edi", "lower"), ("d/PO.edi", "upper")]);
    assert_eq!(volume.disk().tree("out"), expected);
}
