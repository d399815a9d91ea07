//! SIGTERM and SIGINT: what is in flight ends well, nothing new begins, and it does not take long.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::data::noise;
use crate::support::{End, Fault, Gate, Op, Sandbox, When, ends, tree};

const S3_TO_FILE: (End, End) = (End::S3, End::File);

#[test]
fn an_item_in_flight_finishes_and_no_other_begins() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let sandbox = Sandbox::new();
        let proxy = sandbox.proxy();
        sandbox.fill(End::S3, "in", &tree(&[("a", "1"), ("b", "2"), ("c", "3")]));
        let gate = Gate::default();
        proxy.fault(When::op(Op::Get), Fault::Hold(gate.clone()));
        sandbox.rule("r", &format!("{}, concurrency: 1", ends(S3_TO_FILE)));
        let running = sandbox.start();
        gate.wait_for_arrivals(1);
        running.signal_heard(signal);
        gate.open();
        let run = sandbox.finish(running);
        run.exits(code).logs("run_done", &[]);
        assert_eq!(run.of("moved").len(), 1, "{run:?}");
        assert_eq!(sandbox.files("out"), tree(&[("a", "1")]));
        assert_eq!(sandbox.bucket().keys(), ["in/b", "in/c"]);
    }
}

/// As in a container, where the kernel drops every signal that the program does not handle.
#[test]
fn process_one_stops_as_well() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let sandbox = Sandbox::new();
        let proxy = sandbox.proxy();
        sandbox.bucket().put("in/a", "1");
        let always = When::op(Op::Get).always();
        proxy.fault(always, Fault::status(503, "SlowDown"));
        let retries = "retries: 5, wait_seconds: 3600";
        sandbox.rule("r", &format!("{}, {retries}", ends(S3_TO_FILE)));
        let mut namespace = vec!["unshare", "--pid", "--fork", "--kill-child"];
        if !rustix::process::geteuid().is_root() {
            namespace.push("--map-root-user");
        }
        sandbox.launch_through(&namespace);
        let running = sandbox.start();
        running.wait_for("event=retry");
        running.signal_child(signal);
        let run = sandbox.finish(running);
        run.exits(code).logs("run_done", &[]);
        assert!(sandbox.bucket().has("in/a") && sandbox.files("out").is_empty());
    }
}

#[test]
fn a_wait_between_attempts_is_cut_short() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    sandbox.bucket().put("in/a", "1");
    proxy.fault(When::op(Op::Get).always(), Fault::status(503, "SlowDown"));
    sandbox.rule(
        "r",
        &format!("{}, retries: 5, wait_seconds: 3600", ends(S3_TO_FILE)),
    );
    let running = sandbox.start();
    running.wait_for("event=retry");
    let start = Instant::now();
    running.signal(Signal::TERM);
    let run = sandbox.finish(running);
    run.exits(143).logs("run_done", &[]);
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    assert!(sandbox.bucket().has("in/a") && sandbox.files("out").is_empty());
}

#[test]
fn a_wait_for_another_listing_is_cut_short() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    proxy.fault(When::op(Op::List).always(), Fault::status(503, "SlowDown"));
    sandbox.rule(
        "r",
        &format!("{}, retries: 5, wait_seconds: 3600", ends(S3_TO_FILE)),
    );
    let running = sandbox.start();
    running.wait_for("event=retry");
    let start = Instant::now();
    running.signal(Signal::INT);
    sandbox.finish(running).exits(130);
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_listing_that_stands_still_does_not_hold_up_a_stop() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    sandbox.bucket().put("in/a", "1");
    let gate = Gate::default();
    proxy.fault(When::op(Op::List), Fault::Hold(gate.clone()));
    sandbox.rule("r", &ends(S3_TO_FILE));
    let running = sandbox.start();
    gate.wait_for_arrivals(1);
    let start = Instant::now();
    running.signal(Signal::TERM);
    let run = sandbox.finish(running);
    let elapsed = start.elapsed();
    gate.open();
    run.exits(143).logs("run_done", &[("failed", "0")]);
    run.says("skipped", &["before it was listed"]);
    assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
    assert_eq!(sandbox.bucket().keys(), ["in/a"]);
}

/// A log that stands still holds up the program, and the second signal must not wait for it.
#[test]
fn a_second_signal_exits_at_once_also_where_nobody_reads_the_log() {
    let sandbox = Sandbox::without_minio();
    let items: crate::support::Tree = (0..1000).map(|n| (n.to_string(), "")).collect();
    sandbox.fill(End::File, "in", &items);
    sandbox.default("max_items: 1000");
    sandbox.rule("r", &ends((End::File, End::File)));
    let pipe = sandbox.unread_stdout();
    let running = sandbox.start();
    // It holds 64 KiB.
    while rustix::io::ioctl_fionread(&pipe).unwrap() < 60_000 {
        std::thread::sleep(Duration::from_millis(5));
    }
    running.signal_heard(Signal::TERM);
    let start = Instant::now();
    running.signal(Signal::TERM);
    running.finish().exits(143);
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[test]
fn a_second_signal_exits_at_once() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    sandbox.bucket().put("in/a", "1");
    let gate = Gate::default();
    proxy.fault(When::op(Op::Get), Fault::Hold(gate.clone()));
    sandbox.rule("r", &ends(S3_TO_FILE));
    let running = sandbox.start();
    gate.wait_for_arrivals(1);
    running.signal_heard(Signal::TERM);
    let start = Instant::now();
    running.signal(Signal::TERM);
    let run = sandbox.finish(running);
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    gate.open();
    run.exits(143);
    assert!(sandbox.bucket().has("in/a") && sandbox.files("out").is_empty());
}

#[test]
fn a_transfer_that_stands_still_is_broken_off_within_twenty_seconds() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    sandbox.bucket().put("in/a", noise(300_000, 1));
    let gate = Gate::default();
    proxy.fault(When::op(Op::Get), Fault::Stall(1000, gate.clone()));
    sandbox.rule("r", &format!("{}, retries: 9", ends(S3_TO_FILE)));
    let running = sandbox.start();
    gate.wait_for_arrivals(1);
    let start = Instant::now();
    running.signal(Signal::TERM);
    let run = sandbox.finish(running);
    let elapsed = start.elapsed();
    gate.open();
    run.exits(143);
    assert!(elapsed < Duration::from_secs(21), "{elapsed:?}");
    assert!(sandbox.bucket().has("in/a") && sandbox.files("out").is_empty());
    assert_eq!(std::fs::read_dir(sandbox.tmp()).unwrap().count(), 0);
}

#[test]
fn an_upload_that_stands_still_is_broken_off_and_leaves_the_source() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    sandbox.write("in/a", noise(17 << 20, 1));
    let gate = Gate::default();
    proxy.fault(When::op(Op::UploadPart).always(), Fault::Hold(gate.clone()));
    sandbox.rule("r", &ends((End::File, End::S3)));
    let running = sandbox.start();
    gate.wait_for_arrivals(1);
    let start = Instant::now();
    running.signal(Signal::INT);
    let run = sandbox.finish(running);
    let elapsed = start.elapsed();
    gate.open();
    run.exits(130);
    assert!(elapsed < Duration::from_secs(21), "{elapsed:?}");
    assert_eq!(sandbox.files("in").len(), 1);
    assert!(sandbox.bucket().keys().is_empty());
}
