//! From bucket to bucket a large object is copied by the server itself: no byte of it comes here.
//! What the server does not do, or what cannot be shown to be done, is staged as everything else.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::data::noise;
use crate::support::minio::Minio;
use crate::support::process::Run;
use crate::support::proxy::Proxy;
use crate::support::{End, Fault, Gate, Op, Sandbox, When, ends, tree};

const S3_TO_S3: (End, End) = (End::S3, End::S3);

/// The longest that is staged: in memory.
const STAGED_MAX_BYTES: usize = 128 << 10;

/// What the server copies in one part.
const PART_BYTES: usize = 16 << 20;

/// Two parts.
const SIZE_BYTES: usize = PART_BYTES + 1;

/// How many requests carried contents; those that ask what the server can send a byte.
fn carried(proxy: &Proxy) -> usize {
    let requests = proxy.requests();
    let carries = |op, bytes| match op {
        Op::Get | Op::UploadPart => true,
        Op::Put => bytes > 1,
        _ => false,
    };
    let carrying = requests.iter().filter(|r| carries(r.op, r.body_bytes));
    carrying.count()
}

/// A world with one object that the server can copy, and a rule for it.
fn world(keys: &str) -> (Sandbox, Proxy, Vec<u8>) {
    let sandbox = Sandbox::new();
    let body = noise(SIZE_BYTES, 3);
    sandbox.bucket().put("in/a", &body);
    sandbox.rule("r", &format!("{}, {keys}", ends(S3_TO_S3)));
    let proxy = sandbox.proxy();
    (sandbox, proxy, body)
}

/// Both parts were copied and completed, and nothing came here.
#[track_caller]
fn was_copied(proxy: &Proxy) {
    let uploads = [Op::CopyPart, Op::CompleteUpload, Op::AbortUpload].map(|op| proxy.count(op));
    assert_eq!((uploads, carried(proxy)), ([2, 1, 0], 0));
}

#[track_caller]
fn is_moved(sandbox: &Sandbox, run: &Run, body: &[u8]) {
    run.succeeds();
    let size = body.len().to_string();
    run.logs("moved", &[("bytes", &size), ("attempt", "1"), ("note", "")]);
    assert_eq!(sandbox.bucket().keys(), ["out/a"]);
    assert!(sandbox.bucket().get("out/a").body == body);
}

#[test]
fn no_byte_of_a_large_object_passes_through_here_nor_through_tmpdir() {
    let sandbox = Sandbox::new();
    let other = sandbox.another_bucket();
    let body = noise(2 * PART_BYTES + 5, 3);
    let key = "Händler/a b+c%41&=#?~'(1)*.edi";
    sandbox.bucket().put(&format!("in/{key}"), &body);
    let dest = format!("{{type: s3, bucket: {}, path: out}}", other.name());
    sandbox.rule("r", &format!("src: {{type: s3, path: in}}, dest: {dest}"));
    let proxy = sandbox.proxy();
    let run = sandbox.dies_at_first_write().run();
    run.succeeds();
    assert_eq!(run.one("moved").number("bytes"), body.len() as u64);
    assert_eq!((proxy.count(Op::CopyPart), carried(&proxy)), (3, 0));
    assert!(sandbox.bucket().keys().is_empty());
    assert_eq!(other.tree("out/"), tree(&[(key, body)]));
}

#[test]
fn short_object_is_staged_and_one_byte_more_is_copied() {
    for (size_bytes, parts) in [
        (STAGED_MAX_BYTES, 0),
        (STAGED_MAX_BYTES + 1, 1),
        (PART_BYTES, 1),
        (SIZE_BYTES, 2),
    ] {
        let sandbox = Sandbox::new();
        let body = noise(size_bytes, 5);
        sandbox.bucket().put("in/a", &body);
        sandbox.rule("r", &ends(S3_TO_S3));
        let proxy = sandbox.proxy();
        is_moved(&sandbox, &sandbox.run(), &body);
        let seen = (proxy.count(Op::CopyPart), carried(&proxy) == 0);
        assert_eq!(seen, (parts, parts > 0), "{size_bytes}");
    }
}

#[test]
fn copy_in_one_part_has_the_md5_of_its_source_or_is_staged() {
    let sandbox = Sandbox::new();
    let body = noise(STAGED_MAX_BYTES + 1, 5);
    sandbox.bucket().put("in/a", &body);
    sandbox.rule("r", &ends(S3_TO_S3));
    let source = sandbox.bucket().head("in/a").expect("it is there");
    let md5 = source.header("etag").trim_matches('"').to_owned();
    let proxy = sandbox.proxy();
    let other = Fault::bend(move |answer| {
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(text.contains(&md5), "{text}");
        answer.body = text.replace(&md5, &"a".repeat(32)).into_bytes();
    });
    proxy.fault(When::op(Op::CopyPart), other);
    is_moved(&sandbox, &sandbox.run(), &body);
    assert_eq!(proxy.count(Op::CompleteUpload), 0, "it was believed");
}

#[test]
fn copy_by_the_server_keeps_headers_metadata_and_tags() {
    let (sandbox, proxy, body) = world("mode: copy");
    let headers = [
        ("cache-control", "no-cache"),
        ("content-disposition", "attachment"),
        ("content-encoding", "gzip"),
        ("content-language", "de"),
        ("content-type", "application/edi-x12"),
        ("expires", "Sat, 21 Nov 2026 08:10:04 GMT"),
        ("x-amz-meta-partner", "ACME & Sons"),
        ("x-amz-tagging", "state=ne%20w&b%20c=a%2Fb%3Ac"),
    ];
    sandbox.bucket().put_with("in/a", &body, &headers);
    sandbox.run().succeeds();
    let (copies, gets) = (proxy.count(Op::CopyPart), proxy.count(Op::Get));
    assert_eq!((copies, gets), (2, 1), "one of them gets the tags");
    let copied = sandbox.bucket().get("out/a");
    assert!(copied.body == body);
    for (name, value) in &headers[..7] {
        assert_eq!(copied.header(name), *value, "{name}");
    }
    assert_eq!(
        sandbox.bucket().tags("out/a"),
        sandbox.bucket().tags("in/a")
    );
}

#[test]
fn tags_that_may_not_be_read_keep_the_object_from_being_copied() {
    let (sandbox, proxy, body) = world("mode: move");
    let tagged = [("x-amz-tagging", "a=b")];
    sandbox.bucket().put_with("in/a", &body, &tagged);
    proxy.fault(
        When::op(Op::Get).always(),
        Fault::status(403, "AccessDenied"),
    );
    sandbox.run().fails();
    assert_eq!(sandbox.bucket().keys(), ["in/a"]);
}

#[test]
fn rights_that_staging_needs_are_enough_for_a_copy() {
    let (sandbox, proxy, body) = world("mode: move");
    let rights = [
        "s3:GetObject",
        "s3:PutObject",
        "s3:DeleteObject",
        "s3:ListBucket",
    ];
    is_moved(&sandbox, &sandbox.only_allowed(&rights).run(), &body);
    was_copied(&proxy);
}

#[test]
fn no_policy_but_overwrite_lets_a_copy_replace_anything() {
    for policy in ["overwrite", "fail", "keep_both", "skip"] {
        // There before, and put in the last moment.
        for early in [true, false] {
            let (sandbox, proxy, body) = world(&format!("if_exists: {policy}"));
            let bucket = sandbox.bucket().clone();
            if early {
                bucket.put("out/a", "theirs");
            } else if policy == "overwrite" || Minio::plain().refuses_to_replace() {
                let rival = bucket.clone();
                let put = Fault::before(move || rival.put("out/a", "theirs"));
                proxy.fault(When::op(Op::CompleteUpload).key("out/a"), put);
            } else {
                sandbox
                    .run()
                    .fails()
                    .says("failed", &["ignores `If-None-Match`"]);
                assert_eq!(bucket.keys(), ["in/a"], "{policy}");
                continue;
            }
            let run = sandbox.run();
            let (left, there) = (bucket.has("in/a"), bucket.get("out/a").body);
            let when = format!("{policy}, early: {early}");
            assert_eq!(there == body, policy == "overwrite", "{when}");
            assert!(there == body || there == b"theirs", "{when}");
            match policy {
                "overwrite" => assert!(!left, "{when}"),
                "keep_both" if Minio::plain().refuses_to_replace() => {
                    run.succeeds();
                    assert!(bucket.get("out/a-1").body == body && !left, "{when}");
                }
                "skip" => {
                    run.succeeds();
                    run.says("skipped", &["the destination exists"]);
                    assert!(left, "{when}");
                }
                _ => {
                    run.fails();
                    assert!(left, "{when}");
                }
            }
            assert_eq!(carried(&proxy), 0, "{when}");
        }
    }
}

#[test]
fn copy_of_an_earlier_attempt_is_known_again_without_a_byte() {
    for policy in ["fail", "keep_both", "skip"] {
        let (sandbox, proxy, body) = world(&format!("if_exists: {policy}"));
        if !Minio::plain().refuses_to_replace() {
            // Shown by the test above.
            continue;
        }
        proxy.fault(
            When::op(Op::Delete).always(),
            Fault::status(403, "AccessDenied"),
        );
        sandbox.run().fails();
        assert_eq!(sandbox.bucket().keys(), ["in/a", "out/a"]);
        proxy.reset();
        let run = sandbox.run();
        is_moved(&sandbox, &run, &body);
        assert_eq!(carried(&proxy), 0, "{policy}");
        let uploads = (proxy.count(Op::CreateUpload), proxy.count(Op::AbortUpload));
        assert_eq!(uploads, (1, 1), "{policy}");
    }
}

#[test]
fn object_of_the_same_etag_is_known_without_a_byte() {
    for policy in ["fail", "keep_both", "skip"] {
        let (sandbox, proxy, body) = world(&format!("if_exists: {policy}"));
        sandbox.bucket().put("out/a", &body);
        is_moved(&sandbox, &sandbox.run(), &body);
        assert_eq!(carried(&proxy), 0, "{policy}");
    }
}

/// An object that the server encrypts may have an ETag that tells nothing.
#[test]
fn what_only_its_bytes_can_tell_from_the_item_is_compared_byte_for_byte() {
    for (policy, differs, etag) in [
        ("fail", false, "0123-1"),
        ("fail", false, "0123-2"),
        ("fail", true, "0123-2"),
        ("keep_both", true, "0123"),
    ] {
        let (sandbox, proxy, body) = world(&format!("if_exists: {policy}"));
        let mut theirs = body.clone();
        theirs[5] ^= u8::from(differs);
        sandbox.bucket().put("out/a", &theirs);
        let opaque = Fault::bend(move |answer| answer.set("ETag", etag));
        proxy.fault(When::op(Op::Head).key("out/a").always(), opaque);
        let run = sandbox.run();
        assert!(proxy.count(Op::Get) >= 2, "{policy}: both are read");
        assert!(sandbox.bucket().get("out/a").body == theirs);
        if !differs {
            is_moved(&sandbox, &run, &body);
        } else if policy == "fail" {
            run.fails();
            assert!(sandbox.bucket().get("in/a").body == body);
        } else if Minio::plain().refuses_to_replace() {
            run.succeeds();
            assert!(sandbox.bucket().get("out/a-1").body == body);
        }
    }
}

/// Without the condition the copy would be half the one and half the other.
#[test]
fn source_that_changes_between_two_parts_is_copied_anew() {
    let (sandbox, proxy, _) = world("mode: move");
    let new = noise(SIZE_BYTES, 4);
    let (bucket, body, gate) = (sandbox.bucket().clone(), new.clone(), Gate::default());
    let copied = gate.clone();
    let put = move || {
        bucket.put("in/a", &body);
        copied.open();
    };
    proxy.fault(When::op(Op::CopyPart), Fault::after(put));
    proxy.fault(When::op(Op::CopyPart), Fault::Hold(gate));
    let run = sandbox.run();
    is_moved(&sandbox, &run, &new);
    assert_eq!((proxy.count(Op::CreateUpload), carried(&proxy)), (2, 0));
    assert_eq!(proxy.count(Op::AbortUpload), 1);
}

#[test]
fn source_that_goes_between_two_parts_is_somebody_elses() {
    let (sandbox, proxy, _) = world("mode: move");
    let bucket = sandbox.bucket().clone();
    proxy.fault(
        When::op(Op::CopyPart),
        Fault::before(move || bucket.delete("in/a")),
    );
    let run = sandbox.run();
    run.succeeds();
    run.says("skipped", &["somebody else took it"]);
    assert!(sandbox.bucket().keys().is_empty());
    assert_eq!(proxy.count(Op::AbortUpload), 1);
}

#[test]
fn source_put_again_behind_the_copy_stays() {
    let (sandbox, proxy, _) = world("mode: move");
    let (bucket, new) = (sandbox.bucket().clone(), noise(SIZE_BYTES, 4));
    let body = new.clone();
    let put = Fault::after(move || bucket.put("in/a", &body));
    proxy.fault(When::op(Op::CompleteUpload), put);
    let run = sandbox.run();
    run.says("copied", &["changed after it was staged"]);
    assert!(sandbox.bucket().get("in/a").body == new);
}

#[test]
fn lost_answer_of_a_completion_is_found_out() {
    for policy in ["overwrite", "fail"] {
        if policy == "fail" && !Minio::plain().refuses_to_replace() {
            continue;
        }
        let (sandbox, proxy, body) = world(&format!("if_exists: {policy}"));
        proxy.fault(When::op(Op::CompleteUpload), Fault::LoseAnswer);
        is_moved(&sandbox, &sandbox.run(), &body);
        assert_eq!(proxy.count(Op::CompleteUpload), 2);
        assert_eq!(carried(&proxy), 0, "{policy}");
    }
}

#[test]
fn object_that_the_server_does_not_copy_is_staged() {
    let opaque = |answer: &mut crate::support::proxy::Answer| {
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let at = text.find("<ETag>").expect("an ETag") + 10;
        answer.body = format!("{}{}", &text[..at], text[at..].replacen('&', "x&", 1)).into();
    };
    for (what, fault) in [
        ("no such request", Fault::status(501, "NotImplemented")),
        ("no right", Fault::status(403, "AccessDenied")),
        (
            "no condition holds",
            Fault::status(412, "PreconditionFailed"),
        ),
        (
            "nothing under 200",
            Fault::bend(|answer| answer.body.clear()),
        ),
        (
            "half under 200",
            Fault::bend(|answer| answer.body.truncate(150)),
        ),
        ("an opaque ETag", Fault::bend(opaque)),
    ] {
        let (sandbox, proxy, body) = world("mode: move");
        proxy.fault(When::op(Op::CopyPart).always(), fault);
        let run = sandbox.run();
        is_moved(&sandbox, &run, &body);
        let requests = [Op::UploadPart, Op::AbortUpload].map(|op| proxy.count(op));
        assert_eq!(requests, [2, 1], "{what}");
        assert!(proxy.count(Op::Get) > 0, "{what}");
    }
}

#[test]
fn copy_that_cannot_be_shown_to_be_whole_is_staged() {
    for policy in ["overwrite", "fail"] {
        for (what, op, fault) in [
            (
                "its ETag",
                Op::CompleteUpload,
                Fault::replace("-2&#34;", "-3&#34;"),
            ),
            (
                "its length",
                Op::Head,
                Fault::bend(|answer| answer.set("Content-Length", "7")),
            ),
            ("nothing there", Op::Head, Fault::status(404, "NoSuchKey")),
        ] {
            if policy != "overwrite" && !Minio::plain().refuses_to_replace() {
                continue;
            }
            let (sandbox, proxy, body) = world(&format!("if_exists: {policy}"));
            let mut when = When::op(op).key("out/a");
            if op == Op::Head && policy != "overwrite" {
                // The first one looks whether the name is free.
                when = when.after(1);
            }
            proxy.fault(when, fault);
            let run = sandbox.run();
            is_moved(&sandbox, &run, &body);
            assert!(proxy.count(Op::Get) > 0, "{policy}, {what}");
        }
    }
}

#[test]
fn copy_that_cannot_be_shown_to_be_whole_is_compared_where_others_are_skipped() {
    if !Minio::plain().refuses_to_replace() {
        return;
    }
    let (sandbox, proxy, body) = world("mode: copy, if_exists: skip");
    let other = Fault::replace("-2&#34;", "-3&#34;");
    proxy.fault(When::op(Op::CompleteUpload), other);
    let run = sandbox.run();
    run.succeeds();
    run.one("copied");
    assert!(sandbox.bucket().get("out/a").body == body);
}

#[test]
fn passing_faults_are_tried_again_and_lasting_ones_fail_the_attempt() {
    let busy = || Fault::status(503, "SlowDown");
    let (sandbox, proxy, body) = world("mode: move");
    proxy.fault(When::op(Op::CopyPart).times(2), busy());
    is_moved(&sandbox, &sandbox.run(), &body);
    assert_eq!((proxy.count(Op::CopyPart), carried(&proxy)), (4, 0));

    let (sandbox, proxy, _) = world("mode: move");
    proxy.fault(When::op(Op::CopyPart).always(), busy());
    sandbox.run().fails().says("failed", &["SlowDown", "in/a"]);
    assert_eq!(sandbox.bucket().keys(), ["in/a"]);
    assert_eq!((proxy.count(Op::AbortUpload), carried(&proxy)), (1, 0));
}

#[test]
fn server_that_encrypts_copies_by_itself_too() {
    for method in ["AES256", "aws:kms"] {
        let sandbox = Sandbox::encrypting();
        let body = noise(SIZE_BYTES, 3);
        let header = ("x-amz-server-side-encryption", method);
        sandbox.bucket().put_with("in/a", &body, &[header]);
        let put = sandbox.bucket().head("in/a").expect("it is there");
        assert_eq!(put.header(header.0), method);
        sandbox.rule("r", &ends(S3_TO_S3));
        let proxy = sandbox.proxy();
        is_moved(&sandbox, &sandbox.run(), &body);
        was_copied(&proxy);
    }
}

#[test]
fn bucket_that_keeps_versions_gives_the_one_that_was_copied() {
    let (sandbox, proxy, body) = world("mode: move");
    sandbox.bucket().keep_versions();
    sandbox.bucket().put("in/a", &body);
    sandbox.run().succeeds();
    was_copied(&proxy);
    assert_eq!(sandbox.bucket().keys(), ["out/a"]);
    assert!(sandbox.bucket().get("out/a").body == body);
}

#[test]
fn copy_that_stands_still_is_broken_off_given_up_and_leaves_the_source() {
    let (sandbox, proxy, _) = world("mode: move");
    let gate = Gate::default();
    proxy.fault(When::op(Op::CopyPart).always(), Fault::Hold(gate.clone()));
    let running = sandbox.start();
    gate.wait_for_arrivals(1);
    let start = Instant::now();
    running.signal(Signal::INT);
    let run = sandbox.finish(running);
    let elapsed = start.elapsed();
    gate.open();
    run.exits(130);
    assert!(elapsed < Duration::from_secs(21), "{elapsed:?}");
    assert_eq!(sandbox.bucket().keys(), ["in/a"]);
    assert_eq!(proxy.count(Op::AbortUpload), 1);
}
