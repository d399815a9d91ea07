//! The network and the server at their worst: what is mended within an attempt, what fails it, and
//! that nothing is lost or acted on meanwhile.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::support::data::noise;
use crate::support::proxy::Answer;
use crate::support::{End, Fault, Op, Sandbox, When, ends, tree};

const S3_TO_FILE: (End, End) = (End::S3, End::File);
const FILE_TO_S3: (End, End) = (End::File, End::S3);

/// More than the proxy sends at once, less than what goes up in parts.
const BODY_BYTES: usize = 300_000;

/// One item on its way through a proxy that does this. The rule tries once.
fn one_item(direction: (End, End), size_bytes: usize, faults: &[(When, Fault)]) -> Trial {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    let body = noise(size_bytes, 11);
    sandbox.fill(direction.0, "in", &tree(&[("a", &body)]));
    for (when, fault) in faults {
        proxy.fault(when.clone(), fault.clone());
    }
    sandbox.rule("r", &format!("{}, retries: 0", ends(direction)));
    let run = sandbox.run();
    Trial {
        proxy,
        run,
        sandbox,
        direction,
        body,
    }
}

struct Trial {
    proxy: crate::support::proxy::Proxy,
    run: crate::support::process::Run,
    sandbox: Sandbox,
    direction: (End, End),
    body: Vec<u8>,
}

impl Trial {
    /// It arrived at the first attempt, and is nowhere else.
    #[track_caller]
    fn arrives(&self) -> &Self {
        self.run.succeeds().logs("moved", &[("attempt", "1")]);
        let expected = tree(&[("a", &self.body)]);
        assert_eq!(self.sandbox.at_end(self.direction.1, "out"), expected);
        assert!(self.sandbox.at_end(self.direction.0, "in").is_empty());
        self
    }

    /// It failed; the source is as it was, and the destination too.
    #[track_caller]
    fn stays(&self) -> &Self {
        self.run.fails();
        self.is_untouched()
    }

    #[track_caller]
    fn is_untouched(&self) -> &Self {
        let expected = tree(&[("a", &self.body)]);
        assert_eq!(self.sandbox.at_end(self.direction.0, "in"), expected);
        assert!(self.sandbox.at_end(self.direction.1, "out").is_empty());
        self
    }

    /// Both are whole: it failed only after it was published.
    #[track_caller]
    fn is_at_both_ends(&self) -> &Self {
        self.run.fails();
        let expected = tree(&[("a", &self.body)]);
        assert_eq!(self.sandbox.at_end(self.direction.0, "in"), expected);
        assert_eq!(self.sandbox.at_end(self.direction.1, "out"), expected);
        self
    }
}

/// The requests that one small item takes, with the direction in which it takes them.
const REQUESTS: [((End, End), Op); 4] = [
    (S3_TO_FILE, Op::List),
    (S3_TO_FILE, Op::Get),
    (S3_TO_FILE, Op::Delete),
    (FILE_TO_S3, Op::Put),
];

/// The requests that an item in parts takes.
const UPLOAD: [Op; 3] = [Op::CreateUpload, Op::UploadPart, Op::CompleteUpload];

const PART_BYTES: usize = 17 << 20;

#[test]
fn passing_statuses_are_mended_by_two_quick_tries() {
    for (status, code) in [
        (408, "RequestTimeout"),
        (429, "TooManyRequests"),
        (500, "InternalError"),
        (502, ""),
        (503, "SlowDown"),
        (504, ""),
    ] {
        for (direction, op) in REQUESTS {
            let fault = Fault::status(status, code);
            let trial = one_item(direction, 100, &[(When::op(op).times(2), fault)]);
            trial.arrives();
        }
    }
}

#[test]
fn broken_connections_are_mended_by_two_quick_tries() {
    for fault in [Fault::CloseBefore, Fault::ResetBefore] {
        for (direction, op) in REQUESTS {
            one_item(direction, 100, &[(When::op(op).times(2), fault.clone())]).arrives();
        }
    }
}

#[test]
fn a_body_that_ends_or_breaks_early_is_fetched_again_within_the_attempt() {
    for bytes in [0, 1, 100_000, BODY_BYTES - 1] {
        for fault in [Fault::Truncate(bytes), Fault::Reset(bytes)] {
            let faults = [(When::op(Op::Get).times(2), fault)];
            one_item(S3_TO_FILE, BODY_BYTES, &faults).arrives();
        }
    }
}

#[test]
fn a_listing_that_ends_or_breaks_early_is_asked_for_again() {
    for fault in [Fault::Truncate(200), Fault::Reset(200)] {
        one_item(S3_TO_FILE, 100, &[(When::op(Op::List).times(2), fault)]).arrives();
    }
}

#[test]
fn an_upload_in_parts_is_mended_at_each_of_its_requests() {
    for op in UPLOAD {
        for fault in [Fault::status(503, "SlowDown"), Fault::ResetBefore] {
            let trial = one_item(FILE_TO_S3, PART_BYTES, &[(When::op(op).times(2), fault)]);
            trial.arrives();
            let uploads = trial.proxy.count(Op::CreateUpload);
            assert!(
                uploads == 1 || op == Op::CreateUpload,
                "{op:?}: {uploads} uploads"
            );
        }
    }
}

#[test]
fn a_stale_connection_is_replaced_without_a_word() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    proxy.fault(When::any().always(), Fault::CloseAfter);
    let items = tree(&[("a", "1"), ("b", "2"), ("c", "3")]);
    sandbox.fill(End::S3, "in", &items);
    sandbox.rule("r", &ends(S3_TO_FILE));
    let run = sandbox.run();
    run.succeeds();
    assert_eq!(sandbox.files("out"), items);
    assert!(run.of("retry").is_empty());
}

#[test]
fn the_third_failure_in_a_row_fails_the_attempt() {
    for (direction, op) in REQUESTS.into_iter().filter(|(_, op)| *op != Op::Delete) {
        let faults = [(When::op(op).times(3), Fault::status(503, "SlowDown"))];
        let trial = one_item(direction, 100, &faults);
        trial.stays();
        assert_eq!(
            trial.proxy.count(op),
            3,
            "{op:?}: the first and two quick tries"
        );
    }
}

#[test]
fn an_upload_that_cannot_be_finished_is_aborted() {
    for op in [Op::UploadPart, Op::CompleteUpload] {
        let faults = [(When::op(op).always(), Fault::status(503, "SlowDown"))];
        let trial = one_item(FILE_TO_S3, PART_BYTES, &faults);
        trial.stays();
        assert_eq!(trial.proxy.count(Op::AbortUpload), 1, "{op:?}");
    }
}

#[test]
fn a_removal_that_fails_leaves_both_copies_and_is_said() {
    let faults = [(
        When::op(Op::Delete).times(3),
        Fault::status(503, "SlowDown"),
    )];
    one_item(S3_TO_FILE, 100, &faults).is_at_both_ends();
}

#[test]
fn further_attempts_after_a_failed_removal_only_remove() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    sandbox.bucket().put("in/a", "1");
    proxy.fault(
        When::op(Op::Delete).times(3),
        Fault::status(503, "SlowDown"),
    );
    sandbox.rule(
        "r",
        &format!("{}, retries: 1, wait_seconds: 0", ends(S3_TO_FILE)),
    );
    let run = sandbox.run();
    run.succeeds().logs("moved", &[("attempt", "2")]);
    assert_eq!((proxy.count(Op::Get), proxy.count(Op::Delete)), (1, 4));
    assert!(!sandbox.bucket().has("in/a"));
}

#[test]
fn a_lost_answer_is_found_out() {
    for (direction, op) in [
        (S3_TO_FILE, Op::Get),
        (S3_TO_FILE, Op::Delete),
        (FILE_TO_S3, Op::Put),
    ] {
        one_item(direction, 100, &[(When::op(op), Fault::LoseAnswer)]).arrives();
    }
    for op in UPLOAD {
        one_item(FILE_TO_S3, PART_BYTES, &[(When::op(op), Fault::LoseAnswer)]).arrives();
    }
}

#[test]
fn a_lost_answer_is_found_out_where_nothing_may_be_replaced() {
    for if_exists in ["fail", "keep_both", "skip"] {
        for (size, op) in [(100, Op::Put), (PART_BYTES, Op::CompleteUpload)] {
            let sandbox = Sandbox::new();
            let proxy = sandbox.proxy();
            let body = noise(size, 5);
            sandbox.write("in/a", &body);
            proxy.fault(When::op(op), Fault::LoseAnswer);
            sandbox.rule(
                "r",
                &format!("{}, if_exists: {if_exists}", ends(FILE_TO_S3)),
            );
            sandbox.run().succeeds();
            let out = sandbox.bucket().tree("out/");
            assert_eq!(out, tree(&[("a", &body)]), "{if_exists} {op:?}");
            assert!(sandbox.files("in").is_empty(), "{if_exists} {op:?}");
        }
    }
}

#[test]
fn a_timeout_fails_the_attempt_at_once() {
    for (direction, op) in [
        (S3_TO_FILE, Op::List),
        (S3_TO_FILE, Op::Get),
        (FILE_TO_S3, Op::Put),
    ] {
        let sandbox = Sandbox::new();
        let proxy = sandbox.proxy();
        sandbox.env("MINIO_READ_TIMEOUT", "1");
        sandbox.fill(direction.0, "in", &tree(&[("a", "1")]));
        let gate = crate::support::Gate::default();
        proxy.fault(When::op(op).always(), Fault::Hold(gate.clone()));
        sandbox.rule("r", &ends(direction));
        let start = Instant::now();
        let run = sandbox.run();
        let elapsed = start.elapsed();
        let asked = proxy.count(op);
        gate.open();
        run.fails();
        assert_eq!(asked, 1, "{op:?}");
        assert!(elapsed >= Duration::from_millis(900), "{op:?}: {elapsed:?}");
        assert_eq!(sandbox.at_end(direction.0, "in").len(), 1, "{op:?}");
    }
}

#[test]
fn a_body_that_stands_still_fails_the_attempt_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    sandbox.env("MINIO_READ_TIMEOUT", "1");
    sandbox.bucket().put("in/a", noise(BODY_BYTES, 1));
    let gate = crate::support::Gate::default();
    proxy.fault(When::op(Op::Get), Fault::Stall(1000, gate.clone()));
    sandbox.rule("r", &ends(S3_TO_FILE));
    let run = sandbox.run();
    gate.open();
    run.fails();
    assert_eq!(proxy.count(Op::Get), 1);
    assert!(sandbox.files("out").is_empty());
    assert!(sandbox.bucket().has("in/a"));
}

#[test]
fn a_transfer_that_keeps_flowing_never_times_out() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    sandbox.env("MINIO_READ_TIMEOUT", "1");
    sandbox.bucket().put("in/a", noise(8000, 1));
    proxy.fault(
        When::op(Op::Get),
        Fault::Trickle(1000, Duration::from_millis(400)),
    );
    sandbox.rule("r", &ends(S3_TO_FILE));
    let run = sandbox.run();
    run.succeeds();
    assert!(run.elapsed > Duration::from_secs(3), "{:?}", run.elapsed);
    assert_eq!(sandbox.files("out").get("a"), noise(8000, 1));
}

#[test]
fn a_redirect_is_never_followed() {
    for status in [301, 302, 303, 307, 308] {
        for (direction, op) in REQUESTS.into_iter().filter(|(_, op)| *op != Op::Delete) {
            let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
            elsewhere.set_nonblocking(true).unwrap();
            let address = elsewhere.local_addr().unwrap().to_string();
            let location = format!("http://{address}/secret?X-Amz-Signature=abcdef");
            let fault = Fault::redirect(status, &location);
            let trial = one_item(direction, 100, &[(When::op(op).always(), fault)]);
            trial.stays();
            trial.run.says("failed", &[&address]).never_says("abcdef");
            assert!(elsewhere.accept().is_err(), "{status} {op:?} was followed");
        }
    }
}

#[test]
fn a_corrupted_byte_is_noticed_on_the_way_in() {
    for at in [0, BODY_BYTES / 2, BODY_BYTES - 1] {
        let faults = [(When::op(Op::Get).always(), Fault::CorruptAnswer(at))];
        one_item(S3_TO_FILE, BODY_BYTES, &faults).stays();
    }
}

#[test]
fn a_corrupted_byte_is_noticed_on_the_way_out() {
    for at in [0, BODY_BYTES / 2, BODY_BYTES - 1] {
        let faults = [(When::op(Op::Put).always(), Fault::CorruptRequest(at))];
        one_item(FILE_TO_S3, BODY_BYTES, &faults).stays();
    }
    let faults = [(When::op(Op::UploadPart).always(), Fault::CorruptRequest(77))];
    one_item(FILE_TO_S3, PART_BYTES, &faults).stays();
}

#[test]
fn a_corrupted_byte_of_an_object_in_parts_is_noticed_on_the_way_in() {
    let sandbox = Sandbox::new();
    sandbox.write("in/a", noise(PART_BYTES, 9));
    sandbox.rule(
        "up",
        "src: {type: file, path: in}, dest: {type: s3, path: in}",
    );
    sandbox.run().succeeds();
    let proxy = sandbox.proxy();
    proxy.fault(
        When::op(Op::Get).always(),
        Fault::CorruptAnswer(PART_BYTES - 5),
    );
    sandbox.forget_rules().rule("down", &ends(S3_TO_FILE));
    sandbox.run().fails();
    assert!(sandbox.files("out").is_empty());
    assert!(sandbox.bucket().has("in/a"));
}

/// A listing changed by `bend`, always; nothing of it may be acted on.
fn listing_fails(what: &str, bend: impl Fn(&mut Answer) + Send + Sync + 'static) -> Trial {
    let fault = Fault::bend(bend);
    let trial = one_item(S3_TO_FILE, 100, &[(When::op(Op::List).always(), fault)]);
    trial.run.fails();
    trial.is_untouched();
    for op in [Op::Get, Op::Put, Op::Delete] {
        assert_eq!(trial.proxy.count(op), 0, "{what}");
    }
    trial
}

fn body(answer: &mut Answer, change: impl Fn(&str) -> String) {
    let before = String::from_utf8_lossy(&answer.body).into_owned();
    let after = change(&before);
    assert_ne!(before, after, "the listing was not bent");
    answer.body = after.into_bytes();
}

#[test]
fn nothing_of_a_listing_that_makes_no_sense_is_acted_on() {
    listing_fails("no XML", |answer| answer.body = b"hello".to_vec());
    listing_fails("nothing", |answer| answer.body = Vec::new());
    listing_fails("cut", |answer| {
        body(answer, |text| text[..text.len() - 10].to_owned());
    });
    listing_fails("an error under 200", |answer| {
        answer.body = b"<?xml version=\"1.0\"?><Error><Code>InternalError</Code></Error>".to_vec();
    });
    listing_fails("another document", |answer| {
        answer.body = b"<html></html>".to_vec();
    });
    // In the order of keys, and with all that an entry has.
    listing_fails("a key outside the prefix", |answer| {
        body(answer, |text| {
            let outside = "<Contents><Key>a/b</Key><Size>1</Size><ETag>x</ETag>\
                <LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents><Contents>";
            text.replacen("<Contents>", outside, 1)
        });
    });
    listing_fails("a key twice", |answer| {
        body(answer, |text| {
            let start = text.find("<Contents>").unwrap();
            let end = text.find("</Contents>").unwrap() + "</Contents>".len();
            let entry = &text[start..end];
            text.replacen(entry, &format!("{entry}{entry}"), 1)
        });
    });
    listing_fails("no token", |answer| {
        body(answer, |text| {
            text.replace("<IsTruncated>false", "<IsTruncated>true")
        });
    });
    // The proxy alone answers: MinIO would refuse a token that is not its own. A page without keys
    // leaves the token as the only sign.
    let trial = listing_fails("the same token over and over", |answer| {
        answer.status = 200;
        answer.body = b"<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
            <IsTruncated>true</IsTruncated><NextContinuationToken>x</NextContinuationToken>\
            </ListBucketResult>"
            .to_vec();
    });
    let pages = trial.proxy.count(Op::List);
    assert_eq!(pages, 2, "the second page shows that it repeats");
}

#[test]
fn a_partial_answer_is_never_a_whole_object() {
    let partial = Fault::bend(|answer| {
        answer.status = 206;
        answer.set("Content-Range", "bytes 0-99/100");
    });
    one_item(S3_TO_FILE, 100, &[(When::op(Op::Get).always(), partial)]).stays();
}

#[test]
fn a_short_body_with_a_short_length_is_no_whole_object() {
    let short = Fault::bend(|answer| answer.body.truncate(50));
    one_item(S3_TO_FILE, 100, &[(When::op(Op::Get).always(), short)]).stays();
}

#[test]
fn an_error_under_status_200_does_not_complete_an_upload() {
    let error = Fault::Answer(Answer {
        status: 200,
        headers: vec![("Content-Type".into(), "application/xml".into())],
        body: b"<?xml version=\"1.0\"?><Error><Code>InternalError</Code></Error>".to_vec(),
    });
    let faults = [(When::op(Op::CompleteUpload).always(), error)];
    one_item(FILE_TO_S3, PART_BYTES, &faults).stays();
}

#[test]
fn a_refused_status_fails_at_once_and_says_what_to_check() {
    for (status, code, texts) in [
        (403, "AccessDenied", ["polic", "in/a"]),
        (403, "SignatureDoesNotMatch", ["MINIO_SECRET_KEY", "in/a"]),
        (403, "InvalidAccessKeyId", ["MINIO_ACCESS_KEY", "in/a"]),
        (403, "RequestTimeTooSkewed", ["clock", "in/a"]),
        (404, "NoSuchBucket", ["bucket", "in/a"]),
        (400, "InvalidRequest", ["400", "in/a"]),
        (418, "", ["418", "in/a"]),
    ] {
        let fault = Fault::status(status, code);
        let trial = one_item(S3_TO_FILE, 100, &[(When::op(Op::Get).always(), fault)]);
        trial.stays();
        assert_eq!(trial.proxy.count(Op::Get), 1, "{status} {code}");
        let endpoint = trial.proxy.endpoint();
        let address = endpoint.trim_start_matches("http://");
        trial.run.says(
            "failed",
            &[texts[0], texts[1], address, trial.sandbox.bucket().name()],
        );
    }
}

#[test]
fn an_object_that_is_gone_is_no_failure() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    sandbox.fill(End::S3, "in", &tree(&[("a", "1"), ("b", "2")]));
    let bucket = sandbox.bucket().clone();
    let vanish = Fault::before(move || bucket.delete("in/a"));
    proxy.fault(When::op(Op::Get).key("in/a"), vanish);
    sandbox.rule("r", &ends(S3_TO_FILE));
    let run = sandbox.run();
    run.succeeds()
        .logs("run_done", &[("moved", "1"), ("failed", "0")]);
    assert!(
        run.events()
            .iter()
            .any(|e| e.event() != "moved" && e.get("src").ends_with("in/a"))
    );
    assert_eq!(sandbox.files("out"), tree(&[("b", "2")]));
}

#[test]
fn an_object_that_is_gone_before_it_could_be_removed_is_no_failure() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    sandbox.bucket().put("in/a", "1");
    let bucket = sandbox.bucket().clone();
    proxy.fault(
        When::op(Op::Get),
        Fault::after(move || bucket.delete("in/a")),
    );
    sandbox.rule("r", &ends(S3_TO_FILE));
    sandbox.run().succeeds();
    assert_eq!(sandbox.files("out"), tree(&[("a", "1")]));
}

#[test]
fn attempts_are_as_many_and_as_far_apart_as_the_rule_says() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    sandbox.bucket().put("in/a", "1");
    proxy.fault(When::op(Op::Get).times(6), Fault::status(503, "SlowDown"));
    sandbox.rule(
        "r",
        &format!("{}, retries: 2, wait_seconds: 1", ends(S3_TO_FILE)),
    );
    let run = sandbox.run();
    run.succeeds().logs("moved", &[("attempt", "3")]);
    assert_eq!(run.of("retry").len(), 2);
    assert!(
        run.of("retry")
            .iter()
            .all(|line| line.level == "WARN" && !line.get("error").is_empty())
    );
    assert!(run.elapsed >= Duration::from_secs(2), "{:?}", run.elapsed);
    assert!(run.elapsed < Duration::from_secs(10), "{:?}", run.elapsed);
}

#[test]
fn attempts_end_and_the_item_fails() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    sandbox.bucket().put("in/a", "1");
    proxy.fault(When::op(Op::Get).always(), Fault::status(503, "SlowDown"));
    sandbox.rule(
        "r",
        &format!("{}, retries: 2, wait_seconds: 0", ends(S3_TO_FILE)),
    );
    let run = sandbox.run();
    run.fails().says("failed", &["503"]);
    assert_eq!((run.of("retry").len(), run.of("failed").len()), (2, 1));
    assert_eq!(proxy.count(Op::Get), 9, "three attempts of three tries");
    assert!(sandbox.bucket().has("in/a"));
}

#[test]
fn the_first_failure_keeps_new_items_from_starting_in_any_rule() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    sandbox.default("concurrency: 1");
    let many: Vec<_> = (0..10).map(|n| format!("{n}")).collect();
    for name in &many {
        sandbox.bucket().put(&format!("in/{name}"), "1");
        sandbox.bucket().put(&format!("also/{name}"), "1");
    }
    proxy.fault(When::op(Op::Get), Fault::status(403, "AccessDenied"));
    sandbox.rule("r", &ends(S3_TO_FILE));
    sandbox.rule(
        "s",
        "src: {type: s3, path: also}, dest: {type: file, path: also-out}",
    );
    let run = sandbox.run();
    run.fails();
    assert_eq!(run.of("failed").len(), 1);
    assert!(run.of("moved").len() <= 1, "only what was in flight");
    assert_eq!(sandbox.bucket().keys().len() + run.of("moved").len(), 20);
}

#[test]
fn without_exit_on_first_failure_everything_that_can_move_moves() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    sandbox.default("exit_on_first_failure: false");
    for name in 0..10 {
        sandbox.bucket().put(&format!("in/{name}"), "1");
    }
    proxy.fault(
        When::op(Op::Get).key("in/3").always(),
        Fault::status(403, "AccessDenied"),
    );
    sandbox.rule("r", &ends(S3_TO_FILE));
    let run = sandbox.run();
    run.fails()
        .logs("rule_done", &[("moved", "9"), ("failed", "1")]);
    assert_eq!(sandbox.bucket().keys(), ["in/3"]);
}

#[test]
fn a_small_item_takes_no_more_requests_than_needed() {
    let trial = one_item(S3_TO_FILE, 100, &[]);
    trial.arrives();
    let ops: Vec<_> = trial.proxy.requests().iter().map(|r| r.op).collect();
    assert_eq!(trial.proxy.count(Op::List), 1, "{ops:?}");
    assert_eq!(
        (trial.proxy.count(Op::Get), trial.proxy.count(Op::Delete)),
        (1, 1),
        "{ops:?}"
    );
    assert!(ops.len() <= 4, "list, get, look, delete: {ops:?}");

    let trial = one_item(FILE_TO_S3, 100, &[]);
    trial.arrives();
    let ops: Vec<_> = trial.proxy.requests().iter().map(|r| r.op).collect();
    assert!(trial.proxy.count(Op::Put) == 1 && ops.len() <= 2, "{ops:?}");
}

#[test]
fn connections_are_kept_and_never_more_than_items_in_flight() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    sandbox.default("concurrency: 4");
    for name in 0..40 {
        sandbox.bucket().put(&format!("in/{name:02}"), "1");
    }
    sandbox.rule("r", &ends(S3_TO_FILE));
    sandbox.run().succeeds();
    assert!(
        proxy.connections() <= 6,
        "{} connections",
        proxy.connections()
    );
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let sandbox = Sandbox::new();
    let port = crate::support::minio::free_port();
    sandbox.env("MINIO_ENDPOINT", format!("http://127.0.0.1:{port}"));
    sandbox.write("in/a", "1");
    sandbox.rule("r", &ends(FILE_TO_S3));
    let address = format!("127.0.0.1:{port}");
    sandbox
        .run()
        .fails()
        .says("failed", &[&address, "MINIO_ENDPOINT"]);
    assert_eq!(sandbox.files("in").len(), 1);
}

#[test]
fn a_host_that_has_no_address_is_named() {
    let sandbox = Sandbox::new();
    sandbox.env("MINIO_ENDPOINT", "http://no-such-host.invalid:9000");
    sandbox.bucket().put("in/a", "1");
    sandbox.rule("r", &ends(S3_TO_FILE));
    sandbox
        .run()
        .fails()
        .says("failed", &["no-such-host.invalid", "MINIO_ENDPOINT"]);
}

#[test]
fn wrong_credentials_fail_and_say_which() {
    for (variable, value) in [
        ("MINIO_SECRET_KEY", "wrong-secret"),
        ("MINIO_ACCESS_KEY", "nobody"),
    ] {
        for direction in [S3_TO_FILE, FILE_TO_S3] {
            let sandbox = Sandbox::new();
            sandbox.fill(direction.0, "in", &tree(&[("a", "1")]));
            sandbox.env(variable, value);
            sandbox.rule("r", &ends(direction));
            let run = sandbox.run();
            run.fails()
                .says("failed", &[variable, sandbox.bucket().name()]);
            run.never_says("wrong-secret");
            assert_eq!(sandbox.at_end(direction.0, "in").len(), 1);
        }
    }
}

#[test]
fn an_endpoint_without_a_scheme_and_values_with_line_ends_work() {
    let sandbox = Sandbox::new();
    let minio = crate::support::minio::Minio::plain();
    sandbox.env("MINIO_ENDPOINT", format!("{}\n", minio.address));
    sandbox.env(
        "MINIO_ACCESS_KEY",
        format!(" {}\n", crate::support::minio::ACCESS_KEY),
    );
    sandbox.env(
        "MINIO_SECRET_KEY",
        format!("{}\r\n", crate::support::minio::SECRET_KEY),
    );
    sandbox.env("MINIO_REGION", "us-east-1\n");
    sandbox.bucket().put("in/a", "1");
    sandbox.rule("r", &ends(S3_TO_FILE));
    sandbox.run().succeeds();
    assert_eq!(sandbox.files("out").len(), 1);
}

#[test]
fn a_server_that_takes_no_connection_is_waited_for_no_longer_than_allowed() {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    let server = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&server, &any).unwrap();
    listen(&server, 0).unwrap();
    let address: std::net::SocketAddr = getsockname(&server).unwrap().try_into().unwrap();
    // Its queue has room for one; whoever comes then gets no answer.
    let _waiting = std::net::TcpStream::connect(address).unwrap();

    let sandbox = Sandbox::new();
    sandbox
        .env("MINIO_ENDPOINT", address.to_string())
        .env("MINIO_CONNECT_TIMEOUT", "1");
    sandbox.write("in/a", "1");
    sandbox.rule("r", &ends(FILE_TO_S3));
    let run = sandbox.run();
    run.fails().says("failed", &[&address.to_string()]);
    assert!(
        run.elapsed >= Duration::from_millis(900),
        "{:?}",
        run.elapsed
    );
    assert!(run.elapsed < Duration::from_secs(8), "{:?}", run.elapsed);
}
