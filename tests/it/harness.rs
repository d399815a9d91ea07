//! The harness itself: a tool that lies is worse than none.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::minio::{ACCESS_KEY, Minio, SECRET_KEY};
use crate::support::proxy::Proxy;
use crate::support::s3::Bucket;
use crate::support::volume::{Cut, Disk, Trouble, Volume};
use crate::support::{Fault, Gate, Op, Sandbox, Tree, When, tree};

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .build()
        .new_agent()
}

/// A bucket of its own, seen through a proxy.
fn through_proxy() -> (Proxy, Bucket, Bucket) {
    let direct = Minio::plain().new_bucket();
    let proxy = Proxy::start(&Minio::plain().address);
    let name = direct.name().to_owned();
    let seen = Bucket::new(&proxy.endpoint(), &name, (ACCESS_KEY, SECRET_KEY), &agent());
    (proxy, direct, seen)
}

#[test]
fn minio_keeps_what_is_put_with_its_headers() {
    let bucket = Minio::plain().new_bucket();
    bucket.put_with(
        "a b+ü.edi",
        "ISA",
        &[("content-type", "x/y"), ("x-amz-meta-who", "me")],
    );
    let object = bucket.get("a b+ü.edi");
    assert_eq!(object.body, b"ISA");
    assert_eq!(
        (
            object.header("content-type"),
            object.header("x-amz-meta-who")
        ),
        ("x/y", "me")
    );
    assert_eq!(bucket.keys(), ["a b+ü.edi"]);
    bucket.delete("a b+ü.edi");
    assert!(!bucket.has("a b+ü.edi"));
}

#[test]
fn minio_speaks_tls_with_a_private_ca() {
    let bucket = Minio::tls().new_bucket();
    bucket.put("a", "1");
    assert_eq!(bucket.tree(""), tree(&[("a", "1")]));
}

#[test]
fn the_proxy_passes_on_and_logs() {
    let (proxy, direct, seen) = through_proxy();
    seen.put("in/a b", "1");
    assert_eq!(direct.get("in/a b").body, b"1");
    assert_eq!(seen.get("in/a b").body, b"1");
    assert_eq!(seen.keys(), ["in/a b"]);
    seen.delete("in/a b");
    assert!(seen.head("in/a b").is_none());
    let ops: Vec<_> = proxy
        .requests()
        .iter()
        .map(|r| (r.op, r.key.clone()))
        .collect();
    let key = "in/a b".to_owned();
    let expected = [
        (Op::Put, key.clone()),
        (Op::Get, key.clone()),
        (Op::List, String::new()),
        (Op::Delete, key.clone()),
        (Op::Head, key),
    ];
    assert_eq!(ops, expected);
    assert_eq!(proxy.connections(), 1, "a connection is kept");
}

#[test]
fn client_outlives_a_connection_that_the_server_resets() {
    let (proxy, _direct, seen) = through_proxy();
    for op in [Op::Put, Op::List, Op::Get, Op::Delete] {
        proxy.fault(When::op(op), Fault::ResetBefore);
    }
    seen.put("a", "1");
    assert_eq!(seen.keys(), ["a"]);
    assert_eq!(seen.get("a").body, b"1");
    seen.delete("a");
    assert_eq!(proxy.fired(), 4);
    proxy.fault(When::op(Op::Put), Fault::LoseAnswer);
    let told = std::thread::spawn(move || seen.put_new("b", "1")).join();
    assert!(told.is_err(), "a conditional request is sent once");
}

#[test]
fn the_proxy_answers_with_a_status_at_the_chosen_request() {
    let (proxy, _direct, seen) = through_proxy();
    seen.put("a", "1");
    proxy.fault(When::op(Op::Head).after(1), Fault::status(404, ""));
    assert!(seen.has("a"));
    assert!(!seen.has("a"));
    assert!(seen.has("a"));
    assert_eq!(proxy.fired(), 1);
}

#[test]
fn the_proxy_corrupts_both_ways() {
    let (proxy, direct, seen) = through_proxy();
    proxy.fault(When::op(Op::Put), Fault::CorruptRequest(0));
    proxy.fault(When::op(Op::Get), Fault::CorruptAnswer(1));
    seen.put("a", "11");
    assert_eq!(direct.get("a").body, b"01");
    assert_eq!(seen.get("a").body, b"00");
}

#[test]
fn the_proxy_cuts_resets_closes_and_loses() {
    let (proxy, direct, _seen) = through_proxy();
    direct.put("a", "0123456789");
    let raw = |proxy: &Proxy| {
        let mut stream =
            TcpStream::connect(proxy.endpoint().trim_start_matches("http://")).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        // An unsigned request: MinIO answers it with 403 and a body.
        write!(stream, "GET /b/a HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut all = Vec::new();
        let end = stream.read_to_end(&mut all).map_err(|error| error.kind());
        (String::from_utf8_lossy(&all).into_owned(), end.map(|_| ()))
    };
    let body = |text: &str| {
        text.split_once("\r\n\r\n")
            .map_or(0, |(_, body)| body.len())
    };
    let reset = Err(std::io::ErrorKind::ConnectionReset);
    for (fault, bytes, end) in [
        (Fault::Truncate(3), 3, Ok(())),
        (Fault::Reset(3), 3, reset),
        (Fault::CloseBefore, 0, Ok(())),
        (Fault::ResetBefore, 0, reset),
        (Fault::LoseAnswer, 0, Ok(())),
    ] {
        proxy.fault(When::op(Op::Get), fault.clone());
        let (text, how) = raw(&proxy);
        assert_eq!((body(&text), how), (bytes, end), "{fault:?}: {text}");
        proxy.reset();
    }
}

#[test]
fn the_proxy_holds_stalls_and_trickles() {
    let (proxy, direct, seen) = through_proxy();
    direct.put("a", "0123");
    proxy.fault(
        When::op(Op::Get),
        Fault::Trickle(1, Duration::from_millis(20)),
    );
    let start = Instant::now();
    assert_eq!(seen.get("a").body, b"0123");
    assert!(start.elapsed() >= Duration::from_millis(80));

    let (held, stalled) = (Gate::default(), Gate::default());
    proxy.fault(When::op(Op::Put), Fault::Hold(held.clone()));
    proxy.fault(When::op(Op::Get), Fault::Stall(2, stalled.clone()));
    std::thread::scope(|scope| {
        scope.spawn(|| seen.put("b", "1"));
        held.wait_for_arrivals(1);
        assert!(!direct.has("b"), "the server was not asked yet");
        held.open();
        let broken = scope.spawn(|| seen.get("a").body);
        stalled.wait_for_arrivals(1);
        stalled.open();
        assert!(broken.join().is_err(), "the answer ended early");
    });
    assert!(direct.has("b"));
}

#[test]
fn the_proxy_bends_answers_and_calls_hooks() {
    let (proxy, direct, seen) = through_proxy();
    direct.put("a", "1");
    let other = direct.clone();
    proxy.fault(
        When::op(Op::Get),
        Fault::before(move || other.put("a", "2")),
    );
    proxy.fault(
        When::op(Op::List),
        Fault::replace("<Key>a</Key>", "<Key>z</Key>"),
    );
    assert_eq!(seen.get("a").body, b"2");
    assert_eq!(seen.keys(), ["z"]);
}

#[test]
#[should_panic(expected = "fired 0 times only")]
fn a_fault_that_never_fired_fails_the_test() {
    let proxy = Proxy::start(&Minio::plain().address);
    proxy.fault(When::any(), Fault::CloseBefore);
}

#[test]
fn the_program_sees_only_the_environment_of_the_test() {
    let sandbox = Sandbox::without_minio();
    assert!(sandbox.config().contains("base_file_path: /"));
    assert!(!sandbox.config().contains("default_bucket"));
}

/// A mounted volume with a durable directory `d` that has a file `old`.
fn volume() -> Volume {
    let mut disk = Disk::new();
    disk.fill("d", &tree(&[("old", "1")]));
    Volume::new(disk)
}

fn sync(path: &Path) {
    fs::File::open(path).unwrap().sync_all().unwrap();
}

/// What a strict power cut leaves in `d`, and what one that keeps the names.
fn left(volume: &Volume) -> (Tree, Tree) {
    let disk = volume.disk();
    let after = |cut| disk.after(cut).tree("d");
    (after(Cut::Strict), after(Cut::NamesOnly))
}

#[test]
fn a_volume_forgets_names_whose_directory_was_not_synced() {
    let volume = volume();
    let d = volume.path().join("d");
    fs::write(d.join("new"), "2").unwrap();
    sync(&d.join("new"));
    fs::rename(d.join("old"), d.join("renamed")).unwrap();
    let kept = tree(&[("new", "2"), ("renamed", "1")]);
    assert_eq!(left(&volume), (tree(&[("old", "1")]), kept.clone()));
    sync(&d);
    assert_eq!(left(&volume), (kept.clone(), kept.clone()));
    fs::remove_file(d.join("new")).unwrap();
    assert_eq!(left(&volume), (kept, tree(&[("renamed", "1")])));
}

#[test]
fn a_volume_forgets_data_that_were_not_synced() {
    let volume = volume();
    let d = volume.path().join("d");
    fs::write(d.join("old"), "22").unwrap();
    fs::write(d.join("new"), "33").unwrap();
    sync(&d);
    // What was there is found again, also what the opening to write cut off.
    let before = tree(&[("old", "1"), ("new", "")]);
    assert_eq!(left(&volume), (before.clone(), before));
    sync(&d.join("old"));
    assert_eq!(left(&volume).0, tree(&[("old", "22"), ("new", "")]));
}

#[test]
fn a_volume_forgets_a_directory_whose_parent_was_not_synced() {
    let volume = volume();
    let new = volume.path().join("d/new");
    fs::create_dir(&new).unwrap();
    fs::write(new.join("a"), "1").unwrap();
    sync(&new.join("a"));
    sync(&new);
    assert_eq!(left(&volume).0, tree(&[("old", "1")]));
    sync(&volume.path().join("d"));
    assert_eq!(left(&volume).0, tree(&[("new/a", "1"), ("old", "1")]));
}

#[test]
fn lots_leave_all_that_may_be_left() {
    let volume = volume();
    let d = volume.path().join("d");
    fs::write(d.join("new"), "1234").unwrap();
    fs::remove_file(d.join("old")).unwrap();
    let disk = volume.disk();
    let lots = (0..200).map(|seed| format!("{:?}", disk.after(Cut::Some(seed)).tree("d")));
    let different: BTreeSet<String> = lots.collect();
    // `old` is there or not; `new` is not, or is empty, whole, cut off or has a hole.
    assert_eq!(different.len(), 10, "{different:?}");
}

#[test]
fn a_volume_without_power_answers_nothing_and_comes_back() {
    let mut volume = volume();
    let file = volume.path().join("d/old");
    volume.meets([Trouble::PowerCut { after: 0 }]);
    assert!(fs::read(&file).is_err() && fs::write(&file, "2").is_err());
    assert!(volume.is_dark());
    let disk = volume.disk().after(Cut::Strict);
    volume.exchange(disk);
    assert_eq!(fs::read(&file).unwrap(), b"1");
}
