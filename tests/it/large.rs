//! Large items go in parts, several at once: up while the rest is still being staged, and down in
//! ranges of one state of the object. Nobody sees a part of one.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use crate::support::data::noise;
use crate::support::proxy::Proxy;
use crate::support::{End, Fault, Op, Sandbox, When, ends, tree};

const S3_TO_FILE: (End, End) = (End::S3, End::File);
const FILE_TO_S3: (End, End) = (End::File, End::S3);

/// An object that is longer is read, and a file is sent, in parts of this length.
const PART_BYTES: usize = 16 << 20;

/// Three parts.
const SIZE_BYTES: usize = 2 * PART_BYTES + 5;

/// A world with an object of three ranges whose CRC-64 is stored, and a rule for it.
fn coming_in() -> (Sandbox, Proxy, Vec<u8>) {
    let sandbox = Sandbox::new();
    let body = noise(SIZE_BYTES, 7);
    sandbox.bucket().put_summed("in/a", &body);
    sandbox.rule("r", &ends(S3_TO_FILE));
    let proxy = sandbox.proxy();
    (sandbox, proxy, body)
}

/// The ranges that were asked for, sorted, and whether that depended on the `ETag`; `None` for a
/// request for the whole.
fn ranges(proxy: &Proxy) -> Vec<Option<(String, bool)>> {
    let requests = proxy.requests().into_iter();
    let gets = requests.filter(|request| request.op == Op::Get);
    let mut ranges: Vec<_> = gets.map(|get| get.range).collect();
    ranges.sort();
    ranges
}

fn all_three() -> [Option<(String, bool)>; 3] {
    let last = SIZE_BYTES - 1;
    [
        format!("bytes=0-{}", PART_BYTES - 1),
        format!("bytes={PART_BYTES}-{}", 2 * PART_BYTES - 1),
        format!("bytes={}-{last}", 2 * PART_BYTES),
    ]
    .map(|range| Some((range, true)))
}

#[track_caller]
fn arrives(sandbox: &Sandbox, body: &[u8]) {
    let run = sandbox.run();
    run.succeeds();
    assert_eq!(run.one("moved").number("bytes"), body.len() as u64);
    assert!(sandbox.files("out") == tree(&[("a", body)]), "{run:?}");
    assert!(sandbox.bucket().keys().is_empty());
}

#[test]
fn object_whose_crc_is_stored_is_read_in_ranges_of_one_state() {
    let (sandbox, proxy, body) = coming_in();
    arrives(&sandbox, &body);
    assert_eq!(ranges(&proxy), all_three());
}

#[test]
fn object_that_only_an_md5_verifies_is_read_in_one_stream() {
    let (sandbox, proxy, body) = coming_in();
    sandbox.bucket().put("in/a", &body);
    arrives(&sandbox, &body);
    assert_eq!(ranges(&proxy), [None]);
}

#[test]
fn object_of_one_part_is_read_in_one_stream() {
    let (sandbox, proxy, body) = coming_in();
    sandbox.bucket().put_summed("in/a", &body[..PART_BYTES]);
    arrives(&sandbox, &body[..PART_BYTES]);
    assert_eq!(ranges(&proxy), [None]);
    assert_eq!(proxy.count(Op::Head), 1, "the one before the removal");
}

#[test]
fn object_that_is_replaced_between_its_ranges_arrives_as_it_is_now() {
    let (sandbox, proxy, _) = coming_in();
    let (bucket, new) = (sandbox.bucket().clone(), noise(SIZE_BYTES, 8));
    let put = new.clone();
    let replaced = Fault::before(move || bucket.put_summed("in/a", &put));
    proxy.fault(When::op(Op::Get).after(1), replaced);
    arrives(&sandbox, &new);
}

#[test]
fn object_that_somebody_takes_between_its_ranges_is_no_failure() {
    let (sandbox, proxy, _) = coming_in();
    let bucket = sandbox.bucket().clone();
    let taken = Fault::before(move || bucket.delete("in/a"));
    proxy.fault(When::op(Op::Get).after(1), taken);
    let run = sandbox.run();
    run.succeeds();
    run.says("skipped", &["somebody else took it"]);
    assert!(sandbox.files("out").is_empty());
}

#[test]
fn range_with_a_bit_that_fell_over_is_found_out() {
    let (sandbox, proxy, body) = coming_in();
    proxy.fault(When::op(Op::Get), Fault::CorruptAnswer(5));
    arrives(&sandbox, &body);
    assert!(ranges(&proxy).contains(&None), "{:?}", ranges(&proxy));
}

#[test]
fn range_that_breaks_off_is_asked_for_again_and_no_other() {
    for fault in [
        Fault::Truncate(3),
        Fault::Reset(3),
        Fault::ResetBefore,
        Fault::status(503, "SlowDown"),
    ] {
        let (sandbox, proxy, body) = coming_in();
        proxy.fault(When::op(Op::Get), fault);
        arrives(&sandbox, &body);
        assert_eq!(ranges(&proxy).len(), 4);
    }
}

#[test]
fn one_stream_will_do_where_a_range_is_not_what_was_asked_for() {
    let whole = Fault::bend(|answer| {
        answer.status = 200;
        answer.set("Content-Range", "");
    });
    // MinIO may show another ETag of what it encrypts than it compares.
    let refused = Fault::status(412, "PreconditionFailed");
    let range = |range: &'static str| Fault::bend(move |answer| answer.set("Content-Range", range));
    let state = Fault::bend(|answer| answer.set("ETag", "\"another\""));
    for fault in [whole, refused, range("bytes 0-4/5"), range(""), state] {
        let (sandbox, proxy, body) = coming_in();
        proxy.fault(When::op(Op::Get), fault);
        arrives(&sandbox, &body);
        assert!(ranges(&proxy).contains(&None));
    }
}

/// A world with a file of many parts, and a rule for it.
fn going_out(keys: &str) -> (Sandbox, Proxy, Vec<u8>) {
    let sandbox = Sandbox::new();
    // Long enough that it is still being staged when the first part arrives.
    let body = noise(6 * PART_BYTES, 9);
    sandbox.write("in/a", &body);
    sandbox.rule("r", &format!("{}, {keys}", ends(FILE_TO_S3)));
    let proxy = sandbox.proxy();
    (sandbox, proxy, body)
}

#[test]
fn parts_go_up_while_the_rest_is_staged_and_those_of_a_file_that_changed_are_given_up() {
    let (sandbox, proxy, mut body) = going_out("mode: move");
    let path = sandbox.base().join("in/a");
    let changes = Fault::before(move || {
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(b"changed", 0).unwrap();
    });
    proxy.fault(When::op(Op::UploadPart), changes);
    body[..7].copy_from_slice(b"changed");
    sandbox.run().succeeds();
    assert!(sandbox.bucket().get("out/a").body == body);
    assert!(sandbox.files("in").is_empty());
    let uploads = [Op::CreateUpload, Op::AbortUpload, Op::CompleteUpload];
    assert_eq!(uploads.map(|op| proxy.count(op)), [2, 1, 1]);
}

#[test]
fn part_that_cannot_be_sent_fails_the_attempt_and_nothing_is_left() {
    let (sandbox, proxy, body) = going_out("mode: move");
    let refused = Fault::status(403, "AccessDenied");
    proxy.fault(When::op(Op::UploadPart).always(), refused);
    sandbox.run().fails().says("failed", &["AccessDenied"]);
    assert!(sandbox.files("in") == tree(&[("a", body)]));
    assert!(sandbox.bucket().keys().is_empty());
    let uploads = [Op::CreateUpload, Op::AbortUpload, Op::CompleteUpload];
    assert_eq!(uploads.map(|op| proxy.count(op)), [1, 1, 0]);
}

#[test]
fn nothing_is_begun_beside_an_object_that_stays() {
    for (policy, left) in [("skip", 1), ("fail", 1), ("keep_both", 0)] {
        let (sandbox, proxy, body) = going_out(&format!("if_exists: {policy}"));
        sandbox.bucket().put("out/a", "old");
        sandbox.run();
        assert_eq!(sandbox.bucket().get("out/a").body, b"old", "{policy}");
        assert_eq!(sandbox.files("in").len(), left, "{policy}");
        assert_eq!(proxy.count(Op::AbortUpload), 0, "{policy}");
        assert_eq!(proxy.count(Op::CreateUpload), 1 - left, "{policy}");
        if policy == "keep_both" {
            assert!(sandbox.bucket().get("out/a-1").body == body);
        }
    }
}

#[test]
fn object_that_appears_while_the_parts_go_up_stays() {
    for (policy, left) in [("skip", 1), ("fail", 1), ("keep_both", 0)] {
        let (sandbox, proxy, body) = going_out(&format!("if_exists: {policy}"));
        let bucket = sandbox.bucket().clone();
        let appears = Fault::before(move || bucket.put("out/a", "theirs"));
        proxy.fault(When::op(Op::UploadPart), appears);
        sandbox.run();
        assert_eq!(sandbox.bucket().get("out/a").body, b"theirs", "{policy}");
        assert_eq!(sandbox.files("in").len(), left, "{policy}");
        assert_eq!(proxy.count(Op::AbortUpload), 1, "{policy}");
        if policy == "keep_both" {
            assert!(sandbox.bucket().get("out/a-1").body == body);
        }
    }
}
