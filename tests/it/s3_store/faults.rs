//! Faults of the network and the server, made by a proxy before a real `MinIO`.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bots_mover::context::Context;
use bots_mover::environment::Connection;
use bots_mover::error::{Error, Kind};
use bots_mover::object::{Attributes, Version};
use bots_mover::stage::Stage;
use bots_mover::store::s3::{Client, S3Store};
use bots_mover::store::{Clash, Published, Removed, Store as _};
use jiff::Timestamp;
use rusty_s3::S3Action as _;

use super::minio::connection;
use super::proxy::{Fault, Proxy, answer};
use super::{BIG, Sandbox, content_of, entries, fails, name, names, noise, put};
use crate::support::Gate;

impl Sandbox {
    /// A store whose requests go by a proxy.
    fn behind(
        &self,
        decide: impl Fn(usize, &str) -> Fault + Send + Sync + 'static,
    ) -> (S3Store, Proxy) {
        let proxy = Proxy::start(self.minio.port(), decide);
        (self.store_by(&self.connection_by(proxy.port), ""), proxy)
    }

    fn connection_by(&self, port: u16) -> Connection {
        let mut connection = connection(self.minio);
        connection.endpoint = format!("http://127.0.0.1:{port}").parse().unwrap();
        connection
    }
}

/// The first requests have this fault.
fn first(count: usize, fault: Fault) -> impl Fn(usize, &str) -> Fault + Send + Sync {
    move |number, _| {
        if number < count {
            fault.clone()
        } else {
            Fault::Pass
        }
    }
}

/// What a server or a proxy says unasked is no answer to the next request on that connection.
#[test]
fn an_answer_that_came_before_its_request_is_not_believed() {
    let sandbox = Sandbox::new();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let store = sandbox.store_by(&sandbox.connection_by(port), "");
    let server = thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        assert!(client.read(&mut [0; 4096]).unwrap() > 0);
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        client.write_all(answer).unwrap();
        // Nobody else is let in.
        client
    });
    store.must_exist().unwrap();
    let mut client = server.join().unwrap();
    let forged = b"HTTP/1.1 200 OK\r\nETag: \"e\"\r\nContent-Length: 0\r\n\r\n";
    client.write_all(forged).unwrap();
    let published = put(&store, "a", &sandbox.staged(b"x"), Clash::Replace);
    fails(published, Kind::Transient, &["put s3://"]);
}

#[test]
fn closed_connection_has_two_more_tries() {
    let sandbox = Sandbox::new();
    sandbox.put_raw("a", b"x", &[]);
    let (store, proxy) = sandbox.behind(first(2, Fault::Close));
    assert_eq!(names(&store, true), ["a"]);
    assert_eq!(proxy.requests().len(), 3);

    let (store, proxy) = sandbox.behind(first(3, Fault::Close));
    fails(
        entries(&store, true),
        Kind::Transient,
        &["list s3://", "broke off"],
    );
    assert_eq!(proxy.requests().len(), 3);
}

#[test]
fn passing_refusals_have_two_more_tries_and_others_none() {
    let sandbox = Sandbox::new();
    let staged = sandbox.staged(b"x");
    let cases = [
        ("408 Request Timeout", 3),
        ("429 Too Many Requests", 3),
        ("500 Internal Server Error", 3),
        ("502 Bad Gateway", 3),
        ("503 Service Unavailable", 3),
        ("504 Gateway Timeout", 3),
        ("501 Not Implemented", 1),
        ("400 Bad Request", 1),
        ("505 Odd", 1),
    ];
    for (status, requests) in cases {
        let (store, proxy) = sandbox.behind(first(9, answer(status, "<html>no</html>")));
        let kind = if requests == 3 {
            Kind::Transient
        } else {
            Kind::Other
        };
        fails(
            put(&store, "a", &staged, Clash::Replace),
            kind,
            &[&status[..3]],
        );
        assert_eq!(proxy.requests().len(), requests, "{status}");
    }
    let (store, _) = sandbox.behind(first(2, answer("503 Slow Down", "")));
    assert_eq!(
        put(&store, "a", &staged, Clash::Refuse).unwrap(),
        Published::Done
    );
}

#[test]
fn silence_fails_the_attempt_at_once() {
    let sandbox = Sandbox::new();
    let proxy = Proxy::start(sandbox.minio.port(), first(9, Fault::Stall));
    let mut connection = sandbox.connection_by(proxy.port);
    connection.read_timeout = Duration::from_millis(300);
    let store = sandbox.store_by(&connection, "");
    let started = Instant::now();
    let texts = ["no byte of progress", "MINIO_READ_TIMEOUT"];
    fails(entries(&store, true), Kind::Timeout, &texts);
    fails(
        put(
            &store,
            "a",
            &sandbox.staged(&noise(1 << 20)),
            Clash::Replace,
        ),
        Kind::Timeout,
        &texts,
    );
    assert_eq!(proxy.requests().len(), 2);
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn silence_in_mid_body_fails_the_attempt_at_once() {
    let sandbox = Sandbox::new();
    sandbox.put_raw("a", &noise(1 << 20), &[]);
    let entry = entries(&sandbox.store(""), true).unwrap().remove(0);
    let proxy = Proxy::start(sandbox.minio.port(), first(9, Fault::StallAnswer(300_000)));
    let mut connection = sandbox.connection_by(proxy.port);
    connection.read_timeout = Duration::from_millis(300);
    let store = sandbox.store_by(&connection, "");
    fails(
        sandbox.fetch(&store, &entry),
        Kind::Timeout,
        &["no byte of progress"],
    );
    assert_eq!(proxy.requests().len(), 1);

    // Nor does a server hold us up that reads nothing.
    let deaf = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let mut connection = sandbox.connection_by(deaf.local_addr().unwrap().port());
    connection.read_timeout = Duration::from_millis(300);
    let store = sandbox.store_by(&connection, "");
    let staged = sandbox.staged(&noise(15 << 20));
    let started = Instant::now();
    let result = put(&store, "a", &staged, Clash::Replace);
    fails(result, Kind::Timeout, &["no byte of progress"]);
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn transfer_that_flows_slowly_is_no_timeout() {
    let sandbox = Sandbox::new();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let mut connection = sandbox.connection_by(listener.local_addr().unwrap().port());
    connection.read_timeout = Duration::from_millis(500);
    let body = "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"/>";
    let server = thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        assert_ne!(client.read(&mut request).unwrap(), 0);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        client.write_all(head.as_bytes()).unwrap();
        for byte in body.as_bytes() {
            thread::sleep(Duration::from_millis(20));
            client.write_all(&[*byte]).unwrap();
        }
    });
    assert!(
        entries(&sandbox.store_by(&connection, ""), true)
            .unwrap()
            .is_empty()
    );
    server.join().unwrap();
}

#[test]
fn body_that_ends_early_is_fetched_again() {
    let sandbox = Sandbox::new();
    let content = noise(300 << 10);
    sandbox.put_raw("a", &content, &[]);
    let entry = entries(&sandbox.store(""), true).unwrap().remove(0);
    for cut in [0, 20, 1000, 200_000] {
        let (store, proxy) = sandbox.behind(first(2, Fault::CutAnswer(cut)));
        let fetched = sandbox.fetch(&store, &entry).unwrap();
        assert!(content_of(&fetched.staged) == content);
        assert_eq!(proxy.requests().len(), 3);
        let (store, _) = sandbox.behind(first(3, Fault::CutAnswer(cut)));
        fails(
            sandbox.fetch(&store, &entry),
            Kind::Transient,
            &["get s3://"],
        );
    }
}

#[test]
fn lost_answer_to_a_put_is_found_out() {
    let sandbox = Sandbox::new();
    for clash in [Clash::Refuse, Clash::Replace] {
        let (store, proxy) = sandbox.behind(first(1, Fault::LoseAnswer));
        let staged = sandbox.staged(format!("{clash:?}").as_bytes());
        let key = format!("{clash:?}");
        assert_eq!(put(&store, &key, &staged, clash).unwrap(), Published::Done);
        assert!(proxy.requests().len() > 1);
        assert!(store.holds(&name(&key), &staged).unwrap());
    }
    // Not ours, although an answer was lost.
    sandbox.put_raw("theirs", b"theirs", &[]);
    let (store, _) = sandbox.behind(first(1, Fault::LoseAnswer));
    let done = put(&store, "theirs", &sandbox.staged(b"ours"), Clash::Refuse);
    assert_eq!(done.unwrap(), Published::Exists);
}

#[test]
fn lost_answer_to_a_completion_is_found_out() {
    let sandbox = Sandbox::new();
    let staged = sandbox.staged(&noise(BIG));
    for clash in [Clash::Refuse, Clash::Replace] {
        let lost = std::sync::atomic::AtomicBool::new(false);
        let (store, proxy) = sandbox.behind(move |_, head| {
            let is_completion = head.starts_with("POST ") && head.contains("uploadId=");
            if is_completion && !lost.swap(true, std::sync::atomic::Ordering::SeqCst) {
                return Fault::LoseAnswer;
            }
            Fault::Pass
        });
        let done = put(&store, "big.bin", &staged, clash).unwrap();
        assert_eq!(done, Published::Done, "{:#?}", proxy.requests());
        assert!(store.holds(&name("big.bin"), &staged).unwrap());
        assert_eq!(sandbox.uploads(), 0);
        let version = store.look(&name("big.bin")).unwrap().unwrap();
        store.remove(&name("big.bin"), &version).unwrap();
    }
}

#[test]
fn lost_answer_to_a_delete_is_looked_into() {
    let sandbox = Sandbox::new();
    sandbox.put_raw("a", b"x", &[]);
    let (store, proxy) = sandbox.behind(|number, _| match number {
        2 => Fault::LoseAnswer,
        _ => Fault::Pass,
    });
    let version = store.look(&name("a")).unwrap().unwrap();
    assert_eq!(store.remove(&name("a"), &version).unwrap(), Removed::Done);
    let requests = proxy.requests();
    assert!(requests[2].starts_with("DELETE ") && requests[3].starts_with("HEAD "));
    assert_eq!(requests.len(), 4, "{requests:#?}");
    assert_eq!(sandbox.head_raw("a"), None);
}

#[test]
fn failed_upload_is_aborted() {
    let sandbox = Sandbox::new();
    let staged = sandbox.staged(&noise(BIG));
    let (store, _) = sandbox.behind(|_, head| {
        if head.contains("partNumber=2") {
            return answer(
                "507 Insufficient Storage",
                "<Error><Code>XMinioStorageFull</Code></Error>",
            );
        }
        Fault::Pass
    });
    let texts = ["507 XMinioStorageFull", "disks are full"];
    fails(
        put(&store, "big.bin", &staged, Clash::Replace),
        Kind::Storage,
        &texts,
    );
    assert_eq!(sandbox.uploads(), 0);
    assert_eq!(sandbox.head_raw("big.bin"), None);
}

#[test]
fn part_that_is_hurt_on_its_way_is_refused_by_the_server() {
    let sandbox = Sandbox::new();
    let wrong = "AAAAAAAAAAA=";
    // The checksum is the server's to verify: here the body stays and the checksum is changed.
    let refused = |key: &str| {
        let (bucket, credentials) = sandbox.raw();
        let mut action = bucket.put_object(Some(&credentials), key);
        action
            .headers_mut()
            .insert("x-amz-checksum-crc64nvme", wrong);
        let answer = ureq::put(action.sign(Duration::from_secs(60)).as_str())
            .header("x-amz-checksum-crc64nvme", wrong)
            .config()
            .http_status_as_error(false)
            .build()
            .send(&b"123456789"[..])
            .unwrap();
        answer.status().as_u16()
    };
    assert_eq!(refused("a"), 400);
    assert_eq!(sandbox.head_raw("a"), None);
}

#[test]
fn cancelled_upload_ends_at_once_and_is_aborted() {
    let sandbox = Sandbox::new();
    let staged = sandbox.staged(&noise(BIG));
    let (store, proxy) = sandbox.behind(|_, head| {
        if head.contains("partNumber=2") {
            Fault::Stall
        } else {
            Fault::Pass
        }
    });
    let context = Arc::clone(&sandbox.context);
    let proxy = Arc::new(proxy);
    let watched = Arc::clone(&proxy);
    let signal = thread::spawn(move || {
        while !watched
            .requests()
            .iter()
            .any(|line| line.contains("partNumber=2"))
        {
            thread::sleep(Duration::from_millis(5));
        }
        context.stop.request(15);
        context.stop.cancel();
        Instant::now()
    });
    fails(
        put(&store, "big.bin", &staged, Clash::Replace),
        Kind::Stopped,
        &["stopped"],
    );
    assert!(signal.join().unwrap().elapsed() < Duration::from_secs(2));
    let requests = proxy.requests();
    assert!(
        requests.iter().any(|line| line.starts_with("DELETE ")),
        "{requests:#?}"
    );
    assert_eq!(sandbox.uploads(), 0);
    fails(entries(&store, true), Kind::Stopped, &[]);
}

#[test]
fn redirect_is_not_followed_and_named_without_its_query() {
    let sandbox = Sandbox::new();
    for status in [
        "301 Moved",
        "302 Found",
        "307 Temporary Redirect",
        "308 Permanent",
    ] {
        let to = format!("{status}\r\nLocation: https://other:9443/edi/a?X-Amz-Signature=1");
        let (store, proxy) = sandbox.behind(first(9, answer(&to, "")));
        let texts = [
            "redirect to https://other:9443/edi/a",
            "redirects are not followed",
        ];
        fails(
            put(&store, "a", &sandbox.staged(b"x"), Clash::Replace),
            Kind::Other,
            &texts,
        );
        fails(store.look(&name("a")), Kind::Other, &texts);
        fails(entries(&store, true), Kind::Other, &texts);
        assert_eq!(proxy.requests().len(), 3);
    }
}

#[test]
fn answer_without_a_reason_is_looked_into() {
    let sandbox = Sandbox::new();
    // A HEAD whose 404 says nothing: the bucket is asked for.
    let (store, proxy) = sandbox.behind(first(1, answer("404 Not Found", "")));
    assert_eq!(store.look(&name("a")).unwrap(), None);
    assert_eq!(proxy.requests().len(), 2);
    let (store, _) = sandbox.behind(first(9, answer("404 Not Found", "")));
    fails(store.look(&name("a")), Kind::Missing, &["make the bucket"]);
    let (store, _) = sandbox.behind(first(1, answer("403 Forbidden", "")));
    store.must_exist().unwrap();
}

fn listing(inner: &str) -> Fault {
    let xmlns = "http://s3.amazonaws.com/doc/2006-03-01/";
    answer(
        "200 OK",
        &format!("<ListBucketResult xmlns=\"{xmlns}\">{inner}</ListBucketResult>"),
    )
}

fn listed(key: &str) -> String {
    format!(
        "<Contents><Key>{key}</Key><LastModified>2026-11-21T08:10:04.123Z</LastModified>\
         <ETag>&quot;0&quot;</ETag><Size>1</Size></Contents>"
    )
}

#[test]
fn listing_that_makes_no_sense_fails() {
    let sandbox = Sandbox::new();
    let (a, b) = (listed("in/a"), listed("in/b"));
    let cases = [
        (answer("200 OK", ""), "does not parse"),
        (answer("200 OK", "<html>login</html>"), "does not parse"),
        (
            answer("200 OK", "<ListBucketResult><Contents>"),
            "does not parse",
        ),
        (
            listing(&a.replace("<Size>1</Size>", "<Size>many</Size>")),
            "does not parse",
        ),
        (listing("<IsTruncated>true</IsTruncated>"), "does not parse"),
        (listing(&listed("out/a")), "is not under the prefix"),
        (listing(&listed("in")), "is not under the prefix"),
        (
            listing(&a.replace("<Size>1</Size>", "")),
            "without its size",
        ),
        (
            listing(&a.replace("<ETag>&quot;0&quot;</ETag>", "")),
            "without its ETag",
        ),
        (listing(&a.replace("2026", "soon")), "without its time"),
        (listing(&format!("{b}{a}")), "is listed behind"),
        (listing(&format!("{a}{a}")), "is listed behind"),
        (listing(&listed("in//a")), "is no key"),
        (
            listing(
                "<IsTruncated>true</IsTruncated>\
                 <NextContinuationToken>t</NextContinuationToken>",
            ),
            "continuation token is repeated",
        ),
        (
            answer("200 OK", "<Error><Code>AccessDenied</Code></Error>"),
            "200 AccessDenied",
        ),
        (answer("200 OK", &" ".repeat(3 << 20)), "longer than"),
    ];
    for (fault, text) in cases {
        let proxy = Proxy::start(sandbox.minio.port(), first(9, fault));
        let connection = sandbox.connection_by(proxy.port);
        let store = sandbox.store_by(&connection, "in/");
        fails(entries(&store, true), Kind::Other, &[text, "list s3://"]);
    }
    let proxy = Proxy::start(sandbox.minio.port(), first(9, listing(&format!("{a}{b}"))));
    let store = sandbox.store_by(&sandbox.connection_by(proxy.port), "in/");
    assert_eq!(names(&store, true), ["a", "b"]);
}

/// Every answer about an object has it.
const DATED: &str = "\r\nLast-Modified: Sat, 21 Nov 2026 08:10:04 GMT";

#[test]
fn body_that_is_not_what_was_announced_is_no_object() {
    let sandbox = Sandbox::new();
    let abc = "900150983cd24fb0d6963f7d28e17f72";
    sandbox.put_raw("a", b"abc", &[]);
    let entry = entries(&sandbox.store(""), true).unwrap().remove(0);
    assert_eq!(entry.version, Version::object(abc, entry.modified));
    let cases = [
        // Hurt on the way.
        (
            format!("200 OK\r\nETag: \"{abc}\""),
            "abd",
            Kind::Transient,
            "Md5 900150983c",
        ),
        // As long as it says, but the listing knows better.
        (
            format!("200 OK\r\nETag: \"{abc}\""),
            "abcd",
            Kind::Other,
            "3 listed for this ETag",
        ),
        (
            format!("206 Partial Content\r\nETag: \"{abc}\""),
            "abc",
            Kind::Other,
            "206",
        ),
        ("200 OK".to_owned(), "abc", Kind::Other, "no ETag"),
        (
            "200 OK\r\nETag: \"x\"\r\nx-amz-checksum-crc32: AAAAAA==".to_owned(),
            "abc",
            Kind::Transient,
            "Crc32 00000000 promised, 352441c2 received",
        ),
    ];
    for (head, body, kind, text) in cases {
        let (store, _) = sandbox.behind(first(9, answer(&format!("{head}{DATED}"), body)));
        fails(sandbox.fetch(&store, &entry), kind, &[text, "get s3://"]);
    }
    let no_length = Fault::Answer(format!("HTTP/1.1 200 OK\r\nETag: \"{abc}\"\r\n\r\nabc"));
    let (store, _) = sandbox.behind(first(9, no_length));
    fails(
        sandbox.fetch(&store, &entry),
        Kind::Other,
        &["no Content-Length"],
    );

    // An ETag with a dash, a KMS key's, or a composite checksum promise nothing.
    let silent = [
        "200 OK\r\nETag: \"900150983cd24fb0d6963f7d28e17f72-2\"",
        "200 OK\r\nETag: \"00000000000000000000000000000000\"\r\n\
         x-amz-server-side-encryption: aws:kms",
        "200 OK\r\nETag: \"x\"\r\nx-amz-checksum-crc32: AAAAAA==-2",
        "200 OK\r\nETag: \"x\"\r\nx-amz-checksum-crc32: AAAAAA==\r\nx-amz-checksum-type: COMPOSITE",
    ];
    for head in silent {
        let (store, _) = sandbox.behind(first(9, answer(&format!("{head}{DATED}"), "abc")));
        let fetched = sandbox.fetch(&store, &entry).unwrap();
        assert_eq!(content_of(&fetched.staged), b"abc");
    }
}

#[test]
fn completion_that_holds_an_error_is_one() {
    let sandbox = Sandbox::new();
    let staged = sandbox.staged(&noise(BIG));
    for (body, kind) in [
        ("<Error><Code>AccessDenied</Code></Error>", Kind::Other),
        ("<Error><Code>InternalError</Code></Error>", Kind::Transient),
        ("", Kind::Other),
    ] {
        let (store, _) = sandbox.behind(move |_, head| {
            if head.starts_with("POST ") && head.contains("uploadId=") {
                return answer("200 OK", body);
            }
            Fault::Pass
        });
        fails(
            put(&store, "big.bin", &staged, Clash::Replace),
            kind,
            &["put s3://"],
        );
        assert_eq!(sandbox.uploads(), 0);
        assert_eq!(sandbox.head_raw("big.bin"), None);
    }
}

#[test]
fn stale_pooled_connection_is_replaced() {
    let sandbox = Sandbox::new();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    // Takes the second request on its connection and closes it without a word.
    let stale = thread::spawn(move || {
        let body = "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"/>";
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        let mut served = Vec::new();
        while served.len() < 2 {
            let (mut client, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            assert_ne!(client.read(&mut request).unwrap(), 0);
            client.write_all(head.as_bytes()).unwrap();
            client.write_all(body.as_bytes()).unwrap();
            let again = if served.is_empty() {
                client.read(&mut request).unwrap()
            } else {
                0
            };
            served.push(again);
        }
        served
    });
    let store = sandbox.store_by(&sandbox.connection_by(port), "");
    assert!(entries(&store, true).unwrap().is_empty());
    assert!(entries(&store, true).unwrap().is_empty());
    let served = stale.join().unwrap();
    assert_ne!(served[0], 0, "the first connection was used twice");
}

#[test]
fn requests_per_item_are_few() {
    let sandbox = Sandbox::new();
    sandbox.put_raw("a", b"x", &[]);
    let (store, proxy) = sandbox.behind(|_, _| Fault::Pass);
    let entry = entries(&store, true).unwrap().remove(0);
    let fetched = sandbox.fetch(&store, &entry).unwrap();
    let published = store.publish(
        &name("b"),
        &fetched.staged,
        &Attributes::default(),
        Clash::Replace,
    );
    assert_eq!(published.unwrap(), Published::Done);
    assert_eq!(
        store.remove(&entry.name, &fetched.version).unwrap(),
        Removed::Done
    );
    let methods: Vec<_> = proxy
        .requests()
        .iter()
        .map(|line| line.split(' ').next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(methods, ["GET", "GET", "PUT", "HEAD", "DELETE"]);
}

#[test]
fn session_token_is_sent_but_in_no_text() {
    let sandbox = Sandbox::new();
    let proxy = Proxy::start(sandbox.minio.port(), first(9, answer("400 Bad", "no")));
    let mut connection = sandbox.connection_by(proxy.port);
    connection.session_token = Some("token-in-no-text".into());
    let context = Arc::new(Context::new(Timestamp::now, std::env::temp_dir()));
    let client = Client::new(&connection, 1, context).unwrap();
    assert!(!format!("{client:?}").contains("token-in-no-text"));
    let store = S3Store::new(client, &sandbox.bucket, "", None).unwrap();
    let text = fails(entries(&store, true), Kind::Other, &["400"]);
    assert!(!text.contains("token-in-no-text"));
    assert!(proxy.requests()[0].contains("X-Amz-Security-Token=token-in-no-text"));
}

#[test]
fn parts_that_wait_to_be_sent_stay_where_the_staging_failed() {
    let sandbox = Sandbox::new();
    let (gate, body) = (Gate::default(), noise(96 << 20));
    let held = gate.clone();
    let (store, proxy) = sandbox.behind(move |_, head| {
        if head.contains("partNumber=") {
            held.pass();
        }
        Fault::Pass
    });
    let mut stage = Stage::new(&sandbox.context);
    let size_and_clash = (body.len() as u64, Clash::Replace);
    let staged = store.stage_by(&name("big.bin"), size_and_clash, &mut stage, &mut |stage| {
        stage.begin(body.len() as u64, None)?;
        for chunk in body.chunks(1 << 20) {
            stage.write(chunk)?;
        }
        gate.wait_for_arrivals(3);
        gate.open();
        Err(Error::new(Kind::Gone, "stage a"))
    });
    assert!(staged.is_err_and(|error| error.kind() == Kind::Gone));
    let requests = proxy.requests();
    let sent = requests
        .iter()
        .filter(|request| request.contains("partNumber="));
    assert_eq!(sent.count(), 3, "of six");
    assert_eq!(sandbox.uploads(), 0, "it is given up");
}
