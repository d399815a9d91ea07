//! What a run is for: items get from one end to the other, whole, and each to one place.

use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use crate::support::data::{edi_files, noise};
use crate::support::minio::Minio;
use crate::support::sandbox::{chmod, mode};
use crate::support::{DIRECTIONS, End, Op, Sandbox, Tree, ends, tree};

fn three_items() -> Tree {
    tree(&[
        ("a.edi", "ISA*1~"),
        ("sub/b.edi", "ISA*2~"),
        ("sub/deep/c", ""),
    ])
}

/// The places that a log line names.
fn place(sandbox: &Sandbox, end: End, path: &str) -> String {
    match end {
        End::S3 => format!("s3://{}/{path}", sandbox.bucket().name()),
        End::File => sandbox.base().join(path).display().to_string(),
    }
}

#[test]
fn every_direction_moves_all_there_is() {
    for (from, to) in DIRECTIONS {
        let sandbox = Sandbox::new();
        sandbox.fill(from, "in", &three_items());
        let src = from.at("in").replace('}', ", recursive: true}");
        sandbox.rule("r", &format!("src: {src}, dest: {}", to.at("out")));
        let run = sandbox.run();
        run.succeeds();
        assert_eq!(
            sandbox.at_end(to, "out"),
            three_items(),
            "{from:?} to {to:?}"
        );
        assert!(sandbox.at_end(from, "in").is_empty(), "{from:?} to {to:?}");
        assert_eq!(run.of("moved").len(), 3);
        run.logs(
            "moved",
            &[
                ("rule", "r"),
                ("src", &place(&sandbox, from, "in/sub/b.edi")),
                ("dest", &place(&sandbox, to, "out/sub/b.edi")),
                ("bytes", "6"),
                ("attempt", "1"),
            ],
        );
        let counts = [
            ("moved", "3"),
            ("copied", "0"),
            ("skipped", "0"),
            ("failed", "0"),
        ];
        run.logs("rule_done", &counts)
            .logs("rule_done", &[("bytes", "12")]);
    }
}

#[test]
fn every_direction_copies_and_leaves_the_source() {
    for (from, to) in DIRECTIONS {
        let sandbox = Sandbox::new();
        let items = tree(&[("a", "1"), ("b", "22")]);
        sandbox.fill(from, "in", &items);
        sandbox.rule("r", &format!("{}, mode: copy", ends((from, to))));
        let run = sandbox.run();
        run.succeeds().logs(
            "rule_done",
            &[("moved", "0"), ("copied", "2"), ("bytes", "3")],
        );
        assert_eq!(run.of("copied").len(), 2);
        assert_eq!(sandbox.at_end(to, "out"), items);
        assert_eq!(sandbox.at_end(from, "in"), items);
    }
}

#[test]
fn a_second_run_has_nothing_to_do() {
    for direction in DIRECTIONS {
        let sandbox = Sandbox::new();
        sandbox.fill(direction.0, "in", &tree(&[("a", "1")]));
        sandbox.rule("r", &ends(direction));
        sandbox.run().succeeds();
        let run = sandbox.run();
        run.succeeds()
            .logs("rule_start", &[("selected", "0"), ("more", "false")]);
        assert!(run.of("moved").is_empty());
        assert_eq!(sandbox.at_end(direction.1, "out"), tree(&[("a", "1")]));
    }
}

/// Around every limit at which the program changes how it works: nothing, memory or a file while
/// staging (128 KiB), one request or parts (16 MiB), and more than two parts.
fn sizes() -> Tree {
    const KIB: usize = 1 << 10;
    const MIB: usize = 1 << 20;
    let limits = [128 * KIB, 16 * MIB];
    let around = limits
        .iter()
        .flat_map(|limit| [limit - 1, *limit, limit + 1]);
    let all = around.chain([0, 1, 17 * MIB, 33 * MIB]);
    all.map(|size| (format!("{size:09}.bin"), noise(size, size as u64)))
        .collect()
}

#[test]
fn contents_of_any_size_go_out_and_come_in_byte_for_byte() {
    let sandbox = Sandbox::new();
    let items = sizes();
    sandbox.fill(End::File, "in", &items);
    sandbox.rule(
        "out",
        "src: {type: file, path: in}, dest: {type: s3, path: mid}",
    );
    sandbox.run().succeeds();
    assert_eq!(sandbox.bucket().tree("mid/"), items);
    assert!(sandbox.files("in").is_empty());

    sandbox.forget_rules();
    sandbox.rule(
        "in",
        "src: {type: s3, path: mid}, dest: {type: file, path: out}",
    );
    sandbox.run().succeeds();
    assert_eq!(sandbox.files("out"), items);
    assert!(sandbox.bucket().keys().is_empty());
}

#[test]
fn contents_of_any_size_move_within_one_kind_byte_for_byte() {
    for end in [End::S3, End::File] {
        let sandbox = Sandbox::new();
        let items: Tree = [0, 1, 200_000, 17 << 20]
            .map(|size| (size.to_string(), noise(size, 7)))
            .into_iter()
            .collect();
        sandbox.fill(end, "in", &items);
        sandbox.rule("r", &ends((end, end)));
        sandbox.run().succeeds();
        assert_eq!(sandbox.at_end(end, "out"), items);
        assert!(sandbox.at_end(end, "in").is_empty());
    }
}

#[test]
fn only_what_is_longer_than_the_threshold_goes_up_in_parts() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    sandbox.rule("r", &ends((End::File, End::S3)));
    sandbox.write("in/one", noise(16 << 20, 1));
    sandbox.run().succeeds();
    assert_eq!(
        (proxy.count(Op::Put), proxy.count(Op::CreateUpload)),
        (1, 0)
    );

    sandbox.write("in/parts", noise((16 << 20) + 1, 2));
    sandbox.run().succeeds();
    // One of 2023 is asked again, without the kind of checksum that it does not know.
    let asked = if Minio::plain().refuses_to_replace() {
        1
    } else {
        2
    };
    assert_eq!(
        (proxy.count(Op::Put), proxy.count(Op::CreateUpload)),
        (1, asked)
    );
    assert_eq!(
        (proxy.count(Op::UploadPart), proxy.count(Op::CompleteUpload)),
        (2, 1)
    );
    assert_eq!(proxy.count(Op::AbortUpload), 0);
}

#[test]
fn s3_to_s3_keeps_content_type_and_user_metadata() {
    let sandbox = Sandbox::new();
    let headers = [
        ("content-type", "application/edi-x12"),
        ("x-amz-meta-partner", "ACME & Sons"),
        ("x-amz-meta-po-number", "4711"),
    ];
    sandbox.bucket().put_with("in/small", "ISA", &headers);
    sandbox
        .bucket()
        .put_with("in/large", noise(17 << 20, 3), &headers);
    sandbox.rule("r", &ends((End::S3, End::S3)));
    sandbox.run().succeeds();
    for key in ["out/small", "out/large"] {
        let object = sandbox.bucket().head(key).expect("it arrived");
        for (name, value) in headers {
            assert_eq!(object.header(name), value, "{name} of {key}");
        }
    }
}

#[test]
fn two_hundred_edi_files_come_in_and_go_out_again_byte_for_byte() {
    let sandbox = Sandbox::new();
    let items = edi_files(200);
    assert_eq!(items.len(), 200, "no two have one name");
    sandbox.fill(End::S3, "in", &items);
    sandbox.default("max_items: 250");
    sandbox.rule(
        "in",
        "src: {type: s3, path: in}, dest: {type: file, path: edi}",
    );
    sandbox
        .run()
        .succeeds()
        .logs("run_done", &[("moved", "200"), ("failed", "0")]);
    assert_eq!(sandbox.files("edi"), items);
    assert!(sandbox.bucket().keys().is_empty());

    sandbox.forget_rules();
    let src = "{type: file, path: edi, recursive: true}";
    sandbox.rule("out", &format!("src: {src}, dest: {{type: s3, path: out}}"));
    sandbox
        .run()
        .succeeds()
        .logs("run_done", &[("moved", "200"), ("failed", "0")]);
    assert_eq!(sandbox.bucket().tree("out/"), items);
    assert!(sandbox.files("edi").is_empty());
}

#[test]
fn two_buckets_take_part_in_one_rule() {
    let sandbox = Sandbox::new();
    let other = sandbox.another_bucket();
    sandbox.bucket().put("a", "1");
    let dest = format!("{{type: s3, bucket: {}, path: /}}", other.name());
    sandbox.rule("r", &format!("src: {{type: s3, path: /}}, dest: {dest}"));
    sandbox.run().succeeds();
    assert_eq!(other.tree(""), tree(&[("a", "1")]));
    assert!(sandbox.bucket().keys().is_empty());
}

#[test]
fn the_bucket_comes_from_the_rule_then_the_default_then_the_environment() {
    let sandbox = Sandbox::new();
    let (rule, environment) = (sandbox.another_bucket(), sandbox.another_bucket());
    sandbox.env("MINIO_BUCKET", environment.name());
    let write = |name: &str, dest: &str| {
        sandbox.write(format!("{name}/a"), name);
        let src = format!("src: {{type: file, path: {name}}}");
        sandbox.rule(name, &format!("{src}, dest: {dest}"));
    };
    write(
        "rule",
        &format!("{{type: s3, bucket: {}, path: x}}", rule.name()),
    );
    write("default", "{type: s3, path: x}");
    sandbox.run().succeeds();
    assert_eq!(rule.tree("x/"), tree(&[("a", "rule")]));
    assert_eq!(sandbox.bucket().tree("x/"), tree(&[("a", "default")]));

    sandbox.without_default("default_bucket").forget_rules();
    write("environment", "{type: s3, path: x}");
    sandbox.run().succeeds();
    assert_eq!(environment.tree("x/"), tree(&[("a", "environment")]));
}

#[test]
fn a_published_file_has_the_owner_and_the_time_of_its_writing() {
    let sandbox = Sandbox::without_minio();
    let hour = Duration::from_secs(3600);
    sandbox.write_aged("in/a", "1", hour);
    let source = sandbox.base().join("in/a");
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&source, Some(4321), Some(4321)).unwrap();
    }
    sandbox.rule("r", &ends((End::File, End::File)));
    sandbox.run().succeeds();
    let published = std::fs::metadata(sandbox.base().join("out/a")).unwrap();
    assert_eq!(published.uid(), rustix::process::geteuid().as_raw());
    assert!(published.modified().unwrap().elapsed().unwrap() < hour / 2);
}

#[test]
fn source_directories_stay_and_destination_directories_are_made() {
    let sandbox = Sandbox::without_minio();
    sandbox.write("in/deep/er/a", "1");
    let src = "{type: file, path: in, recursive: true}";
    sandbox.rule(
        "r",
        &format!("src: {src}, dest: {{type: file, path: new/out}}"),
    );
    sandbox.run().succeeds();
    assert!(sandbox.base().join("in/deep/er").is_dir());
    assert_eq!(sandbox.files("new"), tree(&[("out/deep/er/a", "1")]));
}

#[test]
fn what_lies_under_a_destination_inside_the_source_is_left_alone() {
    for end in [End::S3, End::File] {
        let sandbox = Sandbox::new();
        sandbox.fill(end, "in", &tree(&[("a", "1"), ("sub/b", "2")]));
        let src = end.at("in").replace('}', ", recursive: true}");
        sandbox.rule("r", &format!("src: {src}, dest: {}", end.at("in/done")));
        for _ in 0..2 {
            sandbox.run().succeeds();
            let expected = tree(&[("done/a", "1"), ("done/sub/b", "2")]);
            assert_eq!(sandbox.at_end(end, "in"), expected, "{end:?}");
        }
    }
}

#[test]
fn published_files_and_directories_get_the_inherited_umask() {
    let sandbox = Sandbox::without_minio();
    sandbox.umask("027");
    chmod(&sandbox.write("in/a", "1"), 0o600);
    sandbox.rule(
        "r",
        "src: {type: file, path: in}, dest: {type: file, path: x/y}",
    );
    sandbox.run().succeeds();
    let base = sandbox.base();
    let modes = [
        mode(&base.join("x")),
        mode(&base.join("x/y")),
        mode(&base.join("x/y/a")),
    ];
    assert_eq!(modes, [0o750, 0o750, 0o640]);
}

#[test]
fn published_files_and_directories_get_the_umask_of_bots_mover_umask() {
    let sandbox = Sandbox::new();
    sandbox.umask("077").env("BOTS_MOVER_UMASK", "0002");
    sandbox.bucket().put("in/a", "1");
    sandbox.bucket().put("in/large", noise(200_000, 1));
    sandbox.rule(
        "r",
        "src: {type: s3, path: in}, dest: {type: file, path: x/y}",
    );
    sandbox.run().succeeds();
    let base = sandbox.base();
    for (path, expected) in [
        ("x", 0o775),
        ("x/y", 0o775),
        ("x/y/a", 0o664),
        ("x/y/large", 0o664),
    ] {
        assert_eq!(mode(&base.join(path)), expected, "{path}");
    }
}

#[test]
fn two_runs_at_once_over_one_source_lose_nothing() {
    for (direction, if_exists) in DIRECTIONS.into_iter().flat_map(|direction| {
        ["overwrite", "fail", "keep_both", "skip"].map(|if_exists| (direction, if_exists))
    }) {
        let sandbox = Sandbox::new();
        let items = edi_files(12).renamed(|name| name.replace('/', "_"));
        sandbox.fill(direction.0, "in", &items);
        sandbox.rule("r", &format!("{}, if_exists: {if_exists}", ends(direction)));
        let (one, two) = (sandbox.start(), sandbox.start());
        let (one, two) = (sandbox.finish(one), sandbox.finish(two));
        one.succeeds();
        two.succeeds();
        assert_eq!(
            sandbox.at_end(direction.1, "out"),
            items,
            "{direction:?} {if_exists}"
        );
        assert!(
            sandbox.at_end(direction.0, "in").is_empty(),
            "{direction:?} {if_exists}"
        );
        let moved = one.of("moved").len() + two.of("moved").len();
        assert!(
            moved >= items.len(),
            "each was moved by one of them at least: {moved}"
        );
    }
}

#[test]
fn all_rules_run_and_none_waits_for_another_ones_backlog() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    let slow = crate::support::Fault::Delay(Duration::from_millis(40));
    proxy.fault(crate::support::When::op(Op::Get).always(), slow);
    sandbox.default("concurrency: 2");
    let many: Tree = (0..30).map(|n| (format!("{n:02}"), "1")).collect();
    sandbox.fill(End::S3, "many", &many);
    sandbox.fill(End::S3, "few", &tree(&[("a", "1")]));
    sandbox.rule(
        "many",
        "src: {type: s3, path: many}, dest: {type: file, path: many}",
    );
    sandbox.rule(
        "few",
        "src: {type: s3, path: few}, dest: {type: file, path: few}",
    );
    let run = sandbox.run();
    run.succeeds();
    let moved = run.of("moved");
    let at = moved
        .iter()
        .position(|line| line.get("rule") == "few")
        .expect("it moved");
    assert!(at < 15, "it was number {at} of {}", moved.len());
}

#[test]
fn no_more_items_are_in_flight_than_the_run_and_the_rule_allow() {
    for (run, rule, most) in [(3, "", 3), (8, ", concurrency: 2", 2)] {
        let sandbox = Sandbox::new();
        let proxy = sandbox.proxy();
        let items: Tree = (0..12).map(|n| (format!("{n:02}"), "1")).collect();
        sandbox.fill(End::S3, "in", &items);
        let now = std::sync::Arc::new(std::sync::Mutex::new((0, 0)));
        let counts = std::sync::Arc::clone(&now);
        let count = crate::support::Fault::before(move || {
            let mut guard = counts.lock().unwrap();
            guard.0 += 1;
            guard.1 = guard.1.max(guard.0);
            drop(guard);
            std::thread::sleep(Duration::from_millis(30));
            counts.lock().unwrap().0 -= 1;
        });
        proxy.fault(crate::support::When::op(Op::Get).always(), count);
        sandbox.default(&format!("concurrency: {run}"));
        sandbox.rule("r", &format!("{}{rule}", ends((End::S3, End::File))));
        sandbox.run().succeeds();
        assert_eq!(now.lock().unwrap().1, most, "{run}{rule}");
    }
}

#[test]
fn a_rule_with_concurrency_one_keeps_its_order_over_retries() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    let items = tree(&[("a", "1"), ("b", "2"), ("c", "3")]);
    sandbox.fill(End::S3, "in", &items);
    let busy = crate::support::Fault::status(503, "SlowDown");
    proxy.fault(crate::support::When::op(Op::Get).key("in/a").times(3), busy);
    let keys = "concurrency: 1, retries: 1, wait_seconds: 1";
    sandbox.rule("r", &format!("{}, {keys}", ends((End::S3, End::File))));
    let run = sandbox.run();
    run.succeeds().logs("moved", &[("attempt", "2")]);
    let asked: Vec<_> = proxy.requests().into_iter().collect();
    let asked = asked.iter().filter(|request| request.op == Op::Get);
    let keys: Vec<_> = asked.map(|request| request.key.as_str()).collect();
    assert_eq!(keys, ["in/a", "in/a", "in/a", "in/a", "in/b", "in/c"]);
}

#[test]
fn a_rule_with_concurrency_one_keeps_strictly_to_its_order() {
    let sandbox = Sandbox::new();
    let items: Tree = (0..20).map(|n| (format!("{n:02}"), "1")).collect();
    sandbox.fill(End::S3, "in", &items);
    sandbox.rule(
        "r",
        &format!("{}, concurrency: 1", ends((End::S3, End::File))),
    );
    let run = sandbox.run();
    let order: Vec<_> = run
        .of("moved")
        .iter()
        .map(|line| line.get("dest").to_owned())
        .collect();
    assert!(order.is_sorted() && order.len() == 20, "{order:?}");
}
