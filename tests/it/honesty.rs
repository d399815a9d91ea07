//! What a server says is not what it does: an answer that proves nothing removes no source, an old
//! server replaces nothing, and what an object carries comes along or stays.

use std::time::Duration;

use crate::support::data::noise;
use crate::support::minio::Minio;
use crate::support::{DIRECTIONS, End, Fault, Op, Sandbox, When, ends, stub, tree};

const S3_TO_S3: (End, End) = (End::S3, End::S3);
const FILE_TO_S3: (End, End) = (End::File, End::S3);

/// Three parts.
const PARTS_BYTES: usize = (32 << 20) + 1;

/// The answers of a server that stores what it is sent and repeats no checksum.
const REPEATING: [Op; 3] = [Op::Put, Op::UploadPart, Op::CompleteUpload];

fn without_checksums(proxy: &crate::support::proxy::Proxy, ops: &[Op]) {
    for op in ops {
        proxy.fault(
            When::op(*op).always(),
            Fault::bend(|answer| {
                answer.set("x-amz-checksum-crc64nvme", "");
                let text = String::from_utf8_lossy(&answer.body).into_owned();
                if let (Some(from), Some(to)) = (
                    text.find("<ChecksumCRC64NVME>"),
                    text.find("</ChecksumCRC64NVME>"),
                ) {
                    let end = to + "</ChecksumCRC64NVME>".len();
                    answer.body = format!("{}{}", &text[..from], &text[end..]).into();
                }
            }),
        );
    }
}

/// A file was moved to a server that answers 200 and an ETag to everything, and was gone: each
/// length of it goes another way.
#[test]
fn source_is_kept_when_the_server_says_yes_to_everything() {
    for size_bytes in [0, 1, 300_000, PARTS_BYTES] {
        for policy in ["overwrite", "fail", "keep_both", "skip"] {
            let sandbox = Sandbox::without_minio();
            sandbox
                .env("MINIO_ENDPOINT", stub::yes_to_everything())
                .env("MINIO_ACCESS_KEY", "key")
                .env("MINIO_SECRET_KEY", "secret");
            let body = noise(size_bytes, 3);
            sandbox.write("in/a", &body);
            sandbox.rule("r", &format!("{}, if_exists: {policy}", ends_in_bucket()));
            let run = sandbox.run();
            assert_eq!(sandbox.files("in"), tree(&[("a", &body)]), "{policy}");
            if policy != "overwrite" && size_bytes > 1 {
                // It also says that there is something already, which keeps the source as well.
                continue;
            }
            run.fails();
            let error = run.of("failed")[0].get("error").to_owned();
            assert!(error.contains("at http://127.0.0.1:"), "{error}");
            let advised = error.contains("MINIO_ENDPOINT") || error.contains("this is no MinIO");
            assert!(advised, "{error}");
        }
    }
}

fn ends_in_bucket() -> &'static str {
    "src: {type: file, path: in}, dest: {type: s3, bucket: edi, path: out}"
}

/// An empty source listing must not look like "nothing to do".
#[test]
fn listing_of_a_server_that_says_yes_to_everything_fails_the_rule() {
    let sandbox = Sandbox::without_minio();
    sandbox
        .env("MINIO_ENDPOINT", stub::yes_to_everything())
        .env("MINIO_ACCESS_KEY", "key")
        .env("MINIO_SECRET_KEY", "secret");
    sandbox.mkdir("out");
    sandbox.rule(
        "r",
        "src: {type: s3, bucket: edi, path: in}, dest: {type: file, path: out}",
    );
    sandbox.run().fails();
}

#[test]
fn object_whose_checksum_is_not_repeated_is_read_back_and_then_believed() {
    for (size_bytes, ops) in [(0, 1), (300_000, 1), (PARTS_BYTES, 3)] {
        let sandbox = Sandbox::new();
        let proxy = sandbox.proxy();
        let body = noise(size_bytes, 5);
        sandbox.write("in/a", &body);
        let ops = if ops == 1 {
            &REPEATING[..1]
        } else {
            &REPEATING[1..]
        };
        without_checksums(&proxy, ops);
        sandbox.rule("r", &ends(FILE_TO_S3));
        sandbox.run().succeeds();
        assert_eq!(sandbox.at_end(End::S3, "out"), tree(&[("a", &body)]));
        assert!(sandbox.files("in").is_empty());
        assert_eq!(proxy.count(Op::Get), 1, "{size_bytes}");
    }
}

#[test]
fn object_that_is_read_back_and_differs_keeps_its_source() {
    for (size_bytes, ops) in [(300_000, &REPEATING[..1]), (PARTS_BYTES, &REPEATING[1..])] {
        let sandbox = Sandbox::new();
        let proxy = sandbox.proxy();
        let body = noise(size_bytes, 7);
        sandbox.write("in/a", &body);
        without_checksums(&proxy, ops);
        proxy.fault(When::op(Op::Get).always(), Fault::CorruptAnswer(299_999));
        sandbox.rule("r", &ends(FILE_TO_S3));
        let run = sandbox.run();
        run.fails();
        assert_eq!(sandbox.files("in"), tree(&[("a", &body)]));
        let error = run.of("failed")[0].get("error").to_owned();
        assert!(error.contains("does not give it back"), "{error}");
        assert!(error.contains("MINIO_ENDPOINT"), "{error}");
    }
}

/// `MinIO` of 2023 ignores `If-None-Match` on a PUT: `if_exists: fail` replaced the destination.
#[test]
fn no_policy_but_overwrite_replaces_anything_on_any_server() {
    for size_bytes in [1, PARTS_BYTES] {
        for policy in ["fail", "keep_both", "skip"] {
            let sandbox = Sandbox::new();
            sandbox.bucket().put("out/a", "theirs");
            let body = noise(size_bytes, 9);
            sandbox.write("in/a", &body);
            sandbox.rule("r", &format!("{}, if_exists: {policy}", ends(FILE_TO_S3)));
            let run = sandbox.run();
            assert_eq!(sandbox.bucket().get("out/a").body, b"theirs", "{policy}");
            if !Minio::plain().refuses_to_replace() {
                assert_eq!(sandbox.bucket().keys(), ["out/a"]);
                assert_eq!(sandbox.files("in"), tree(&[("a", &body)]), "{policy}");
                if size_bytes == 1 {
                    run.fails();
                    let error = run.of("failed")[0].get("error").to_owned();
                    assert!(error.contains("ignores `If-None-Match`"), "{error}");
                }
            } else if policy == "keep_both" {
                run.succeeds();
                assert_eq!(sandbox.bucket().get("out/a-1").body, body);
            }
        }
    }
}

/// The server that ignores the condition, played by a proxy that answers the probe as it does.
#[test]
fn server_that_ignores_the_condition_is_found_out_before_anything_is_replaced() {
    for existing in [&["out/z"][..], &["elsewhere"], &[]] {
        let sandbox = Sandbox::new();
        for key in existing {
            sandbox.bucket().put(key, "theirs");
        }
        let proxy = sandbox.proxy();
        proxy.fault(When::op(Op::Put).always(), Fault::status(400, "BadDigest"));
        sandbox.write("in/a", "1");
        sandbox.rule("r", &format!("{}, if_exists: fail", ends(FILE_TO_S3)));
        let run = sandbox.run();
        run.fails();
        let error = run.of("failed")[0].get("error").to_owned();
        assert!(error.contains("ignores `If-None-Match`"), "{error}");
        assert_eq!(sandbox.bucket().keys(), existing);
        let check = sandbox.run_with(&["check", "--connect"]);
        check.exits(1);
        assert!(
            check.stdout.contains("ignores `If-None-Match`"),
            "{check:?}"
        );
    }
}

#[test]
fn server_that_ignores_the_condition_is_sent_no_part_of_a_large_file() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    proxy.fault(When::op(Op::Put).always(), Fault::status(400, "BadDigest"));
    sandbox.write("in/a", noise((32 << 20) + 1, 3));
    sandbox.rule("r", &format!("{}, if_exists: fail", ends(FILE_TO_S3)));
    sandbox
        .run()
        .fails()
        .says("failed", &["ignores `If-None-Match`"]);
    let uploads = [Op::CreateUpload, Op::UploadPart].map(|op| proxy.count(op));
    assert_eq!(uploads, [0, 0]);
}

#[test]
fn what_the_server_can_is_asked_once_a_run_and_only_where_a_rule_needs_it() {
    for (policy, puts) in [("overwrite", 3), ("fail", 3 + 2)] {
        let sandbox = Sandbox::new();
        if !Minio::plain().refuses_to_replace() {
            // Shown by the tests above.
            continue;
        }
        sandbox.bucket().put("out/there", "x");
        let proxy = sandbox.proxy();
        for name in ["in/a", "in/b", "in/c"] {
            sandbox.write(name, "1");
        }
        sandbox.rule(
            "r",
            &format!("{}, concurrency: 1, if_exists: {policy}", ends(FILE_TO_S3)),
        );
        sandbox.run().succeeds();
        assert_eq!(proxy.count(Op::Put), puts, "{policy}");
    }
}

#[test]
fn tags_and_headers_come_along_from_bucket_to_bucket_at_every_length() {
    let headers = [
        ("cache-control", "no-cache"),
        ("content-disposition", "attachment"),
        ("content-encoding", "gzip"),
        ("content-language", "de"),
        ("content-type", "application/edi-x12"),
        ("expires", "Sat, 21 Nov 2026 08:10:04 GMT"),
        ("x-amz-meta-partner", "ACME"),
        ("x-amz-tagging", "state=ne%20w&b%20c=a%2Fb%3Ac&empty="),
    ];
    for size_bytes in [3, PARTS_BYTES] {
        let sandbox = Sandbox::new();
        let body = noise(size_bytes, 13);
        sandbox.bucket().put_with("in/a", &body, &headers);
        sandbox.rule("r", &ends(S3_TO_S3));
        sandbox.run().succeeds();
        let moved = sandbox.bucket().get("out/a");
        assert!(moved.body == body);
        for (name, value) in &headers[..7] {
            assert_eq!(moved.header(name), *value, "{name}");
        }
        assert_eq!(moved.header("x-amz-tagging-count"), "3");
        assert_eq!(
            sandbox.bucket().tags("out/a"),
            "<Tag><Key>b c</Key><Value>a/b:c</Value></Tag><Tag><Key>empty</Key><Value></Value>\
             </Tag><Tag><Key>state</Key><Value>ne w</Value></Tag>"
        );
    }
}

#[test]
fn object_stays_where_its_tags_may_not_be_read_and_only_there() {
    let rights = [
        "s3:ListBucket",
        "s3:GetObject",
        "s3:PutObject",
        "s3:DeleteObject",
    ];
    let sandbox = Sandbox::new();
    sandbox
        .bucket()
        .put_with("in/a", "1", &[("x-amz-tagging", "a=b")]);
    sandbox.bucket().put("in/b", "2");
    sandbox.rule("r", &ends(S3_TO_S3)).only_allowed(&rights);
    sandbox.default("exit_on_first_failure: false");
    let run = sandbox.run();
    run.fails();
    let error = run.of("failed")[0].get("error").to_owned();
    assert!(error.contains("s3:GetObjectTagging"), "{error}");
    assert_eq!(sandbox.bucket().keys(), ["in/a", "out/b"]);
    // A directory keeps no tags, so nobody asks for them.
    sandbox.mkdir("out");
    sandbox.forget_rules();
    sandbox.rule("r", &ends((End::S3, End::File)));
    sandbox.run().succeeds();
}

#[test]
fn header_that_cannot_be_kept_fails_the_item() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    sandbox.bucket().put("in/a", "1");
    // Bytes of Latin-1, as old clients put them.
    let answer =
        b"HTTP/1.1 200 OK\r\nETag: \"e\"\r\nLast-Modified: Sat, 21 Nov 2026 08:10:04 GMT\r\n\
        Content-Disposition: inline; filename=M\xfcller\r\nContent-Length: 1\r\n\r\n1";
    proxy.fault(When::op(Op::Get), Fault::Garbage(answer.to_vec()));
    sandbox.rule("r", &ends(S3_TO_S3));
    let run = sandbox.run();
    run.fails();
    let error = run.of("failed")[0].get("error").to_owned();
    assert!(
        error.contains("content-disposition is not UTF-8"),
        "{error}"
    );
    assert_eq!(sandbox.bucket().keys(), ["in/a"]);
}

/// The same bytes put again have the same ETag: the second order was removed undelivered.
#[test]
fn object_put_again_with_the_same_bytes_stays() {
    for direction in [(End::S3, End::File), S3_TO_S3] {
        let sandbox = Sandbox::new();
        let proxy = sandbox.proxy();
        let bucket = sandbox.bucket().clone();
        bucket.put("in/a", "order");
        let again = bucket.clone();
        proxy.fault(
            When::op(Op::Head).key("in/a"),
            Fault::before(move || {
                // Headers tell whole seconds.
                std::thread::sleep(Duration::from_millis(1100));
                again.put("in/a", "order");
            }),
        );
        sandbox.rule("r", &ends(direction));
        let run = sandbox.run();
        assert!(bucket.has("in/a"), "{run:?}");
        assert!(
            run.stdout.contains("changed after it was staged"),
            "{run:?}"
        );
    }
}

/// Within one second the same bytes have the same ETag and time: the version tells them apart.
#[test]
fn object_put_again_in_the_same_second_stays_where_versions_are_kept() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    let bucket = sandbox.bucket().clone();
    bucket.keep_versions();
    bucket.put("in/a", "order");
    let again = bucket.clone();
    proxy.fault(
        When::op(Op::Head).key("in/a"),
        Fault::before(move || again.put("in/a", "order")),
    );
    sandbox.rule("r", &ends((End::S3, End::File)));
    let run = sandbox.run();
    assert!(bucket.has("in/a"), "{run:?}");
    assert!(
        run.stdout.contains("changed after it was staged"),
        "{run:?}"
    );
    // Nobody put it again this time.
    sandbox.run().succeeds();
    assert!(!bucket.has("in/a"));
}

#[test]
fn key_that_minio_keeps_under_another_name_fails_its_item() {
    for (from, to) in DIRECTIONS.into_iter().filter(|(_, to)| *to == End::S3) {
        let sandbox = Sandbox::new();
        if from == End::S3 {
            // No such key can be there, but one may be made by a rename.
            sandbox.bucket().put("in/x", "1");
        } else {
            sandbox.write("in/x", "1");
        }
        let from_place = from.at("in");
        sandbox.rule(
            "r",
            &format!(
                "src: {from_place}, dest: {{{}, rename: {{regex: '$', replace: '__XLDIR__'}}}}",
                to.at("out").trim_matches(['{', '}'])
            ),
        );
        let run = sandbox.run();
        run.fails();
        let error = run.of("failed")[0].get("error").to_owned();
        assert!(error.contains("__XLDIR__"), "{error}");
        assert_eq!(sandbox.at_end(from, "in"), tree(&[("x", b"1")]));
    }
}

#[test]
fn copy_that_stays_beside_its_source_is_named_by_its_own_name() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    sandbox.bucket().put("in/a", "new");
    sandbox.write("out/a", "old");
    proxy.fault(
        When::op(Op::Delete).always(),
        Fault::status(403, "AccessDenied"),
    );
    sandbox.rule(
        "r",
        &format!("{}, if_exists: keep_both", ends((End::S3, End::File))),
    );
    let run = sandbox.run();
    run.fails();
    let dest = run.of("failed")[0].get("dest").to_owned();
    assert!(dest.ends_with("/out/a-1"), "{dest}");
}

#[test]
fn removal_that_timed_out_and_was_done_is_not_told_as_somebody_elses() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    sandbox.env("MINIO_READ_TIMEOUT", "1");
    sandbox.bucket().put("in/a", "1");
    let bucket = sandbox.bucket().clone();
    proxy.fault(
        When::op(Op::Delete),
        Fault::after(move || {
            assert!(!bucket.has("in/a"));
            std::thread::sleep(Duration::from_secs(3));
        }),
    );
    sandbox.mkdir("out");
    sandbox.rule(
        "r",
        &format!(
            "{}, retries: 1, wait_seconds: 0",
            ends((End::S3, End::File))
        ),
    );
    let run = sandbox.run();
    run.succeeds();
    let told = run.of("moved")[0].get("note").to_owned();
    assert!(told.contains("by the removal that had no answer"), "{told}");
}

#[test]
fn parts_go_up_and_ranges_come_back_on_any_server() {
    let sandbox = Sandbox::new();
    let body = noise((48 << 20) + 5, 9);
    sandbox.write("in/a", &body);
    sandbox.rule("out", &ends((End::File, End::S3)));
    sandbox.run().succeeds();
    assert!(sandbox.bucket().get("out/a").body == body);
    sandbox.forget_rules();
    sandbox.rule(
        "back",
        "src: {type: s3, path: out}, dest: {type: file, path: back}",
    );
    sandbox.run().succeeds();
    assert!(sandbox.files("back") == tree(&[("a", body)]));
    assert!(sandbox.bucket().keys().is_empty());
}
