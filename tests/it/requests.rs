//! Each request to the server meets everything that can go wrong there, one after the other: after
//! each, every item is whole at one end at least, nothing half is to be seen, the log is true, no
//! secret was told, and the next run finishes. Each fault is known to have fired.

use std::time::Duration;

use rustix::process::Signal;

use crate::support::data::noise;
use crate::support::process::Run;
use crate::support::proxy::Answer;
use crate::support::torture::{Totals, torture};
use crate::support::{DIRECTIONS, End, Fault, Gate, Op, Sandbox, Tree, When, ends, tree};

/// Longer than what is staged in memory, shorter than what goes up in parts.
const BODY_BYTES: usize = 150_000;

/// Staged in memory: what is longer the server copies from bucket to bucket.
const SHORT_BYTES: usize = 100_000;

/// Goes up in two parts.
const PARTS_BYTES: usize = 17 << 20;

/// A longer object is read in ranges of this length.
const RANGE_BYTES: usize = 16 << 20;

/// The directions that have requests.
const WITH_S3: [(End, End); 3] = [DIRECTIONS[0], DIRECTIONS[1], DIRECTIONS[2]];

/// Without our temporaries, which nobody else sees.
fn visible(tree: Tree) -> Tree {
    let all = tree.0.into_iter();
    Tree(
        all.filter(|(name, _)| !name.starts_with(".bots-mover-"))
            .collect(),
    )
}

/// One way of moving one item, in a new world.
#[derive(Clone, Copy)]
struct Way {
    direction: (End, End),
    mode: &'static str,
    size_bytes: usize,
    /// Objects are stored with a CRC of the whole, so that a long one is read in ranges.
    summed: bool,
}

/// Makes the fault for a request of this kind, with so many bytes in the bodies of the request and
/// of its answer; `None` where there is nothing to break.
type Breaks = fn(usize, usize) -> Option<Fault>;

/// Answers and connections that are broken. Those that need a body do not fit every request.
const BREAKS: [(&str, Breaks); 20] = [
    ("closed before", |_, _| Some(Fault::CloseBefore)),
    ("reset before", |_, _| Some(Fault::ResetBefore)),
    ("reset in the request", |sent, _| {
        (sent > 0).then(|| Fault::ResetInRequest(sent / 2))
    }),
    ("answer lost", |_, _| Some(Fault::LoseAnswer)),
    ("cut within the head", |_, _| Some(Fault::CutHead)),
    ("no HTTP", |_, _| {
        Some(Fault::Garbage(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()))
    }),
    ("an endless head", |_, _| {
        let line = "X-Filler: 0123456789\r\n".repeat(10_000);
        Some(Fault::Garbage(
            ["HTTP/1.1 200 OK\r\n", &line].concat().into(),
        ))
    }),
    ("no body", |_, got| (got > 0).then(|| Fault::Truncate(0))),
    ("half a body", |_, got| {
        (got > 0).then(|| Fault::Truncate(got / 2))
    }),
    ("all but a byte", |_, got| {
        (got > 0).then(|| Fault::Truncate(got - 1))
    }),
    ("reset in the body", |_, got| {
        (got > 0).then(|| Fault::Reset(got / 2))
    }),
    ("too long", |_, _| Some(Fault::WrongLength(1))),
    ("too short", |_, got| {
        (got > 0).then(|| Fault::WrongLength(-1))
    }),
    ("first byte of the answer", |_, got| {
        (got > 0).then(|| Fault::CorruptAnswer(0))
    }),
    ("a byte of the answer", |_, got| {
        (got > 0).then(|| Fault::CorruptAnswer(got / 2))
    }),
    ("last byte of the answer", |_, got| {
        (got > 0).then(|| Fault::CorruptAnswer(got - 1))
    }),
    ("first byte of the request", |sent, _| {
        (sent > 0).then(|| Fault::CorruptRequest(0))
    }),
    ("a byte of the request", |sent, _| {
        (sent > 0).then(|| Fault::CorruptRequest(sent / 2))
    }),
    ("slow trickle", |_, got| {
        (got > 0).then(|| Fault::Trickle(got.div_ceil(5), Duration::from_millis(20)))
    }),
    ("closed after", |_, _| Some(Fault::CloseAfter)),
];

/// Statuses with MinIO's own words for them; each comes with and without a body.
const STATUSES: [(u16, &str); 10] = [
    (400, "InvalidRequest"),
    (403, "AccessDenied"),
    (403, "SignatureDoesNotMatch"),
    (404, "NoSuchKey"),
    (404, "NoSuchBucket"),
    (409, "OperationAborted"),
    (412, "PreconditionFailed"),
    (429, "TooManyRequests"),
    (500, "InternalError"),
    (503, "SlowDown"),
];

/// Answers that are good to look at and are not: the server is not asked.
const LIES: [(&str, u16, &[u8]); 4] = [
    (
        "an error under 200",
        200,
        b"<Error><Code>InternalError</Code></Error>",
    ),
    ("nothing under 200", 200, b""),
    (
        "a page of a proxy",
        200,
        b"<html><body>Please log in</body></html>",
    ),
    ("a part", 206, b"part"),
];

/// All that can happen to a request, by name.
fn mishaps(sent_bytes: usize, got_bytes: usize) -> Vec<(String, Fault)> {
    let breaks = BREAKS
        .iter()
        .filter_map(|(name, fault)| Some(((*name).to_owned(), fault(sent_bytes, got_bytes)?)));
    let statuses = STATUSES.iter().flat_map(|(status, code)| {
        [*code, ""].map(|code| (format!("{status} {code:?}"), Fault::status(*status, code)))
    });
    let lies = LIES.iter().map(|(name, status, body)| {
        let answer = Answer {
            status: *status,
            headers: vec![("Content-Type".into(), "application/xml".into())],
            body: body.to_vec(),
        };
        ((*name).to_owned(), Fault::Answer(answer))
    });
    let redirect = Fault::redirect(307, "http://127.0.0.1:9/x?X-Amz-Signature=abcdef");
    let further = [("307".to_owned(), redirect)];
    breaks.chain(statuses).chain(lies).chain(further).collect()
}

impl Way {
    fn new(direction: (End, End), mode: &'static str) -> Self {
        Self {
            direction,
            mode,
            size_bytes: if direction == WITH_S3[2] {
                SHORT_BYTES
            } else {
                BODY_BYTES
            },
            summed: false,
        }
    }

    fn items(&self) -> Tree {
        tree(&[("a", noise(self.size_bytes, 3))])
    }

    fn sandbox(&self) -> Sandbox {
        let sandbox = Sandbox::new();
        sandbox.fill(self.direction.0, "in", &self.items());
        if self.summed {
            let body = noise(self.size_bytes, 3);
            sandbox.bucket().put_summed("in/a", body);
        }
        sandbox.env("BOTS_MOVER_LOG_LEVEL", "debug");
        let ends = ends(self.direction);
        sandbox.rule("r", &format!("{ends}, concurrency: 1, mode: {}", self.mode));
        sandbox
    }

    fn name(&self) -> String {
        let (from, to) = self.direction;
        format!("{from:?}-{to:?}/{}", self.mode).to_lowercase()
    }

    /// The kind of each request of an untroubled run, with the length of both bodies.
    fn requests(&self) -> Vec<(Op, usize, usize)> {
        let sandbox = self.sandbox();
        let proxy = sandbox.proxy();
        sandbox.run().succeeds();
        let requests = proxy.requests().into_iter();
        let lengths = requests.map(|request| {
            let got_bytes = match request.op {
                // The ranges come in any order: no longer than the last one.
                Op::Get if self.summed => PARTS_BYTES - RANGE_BYTES,
                Op::Get => self.size_bytes,
                // The lengths of these texts differ a little from run to run.
                Op::List | Op::CreateUpload | Op::CopyPart | Op::CompleteUpload => 200,
                _ => 0,
            };
            (request.op, request.body_bytes, got_bytes)
        });
        lengths.collect()
    }

    /// What must hold after a run that met a fault; says whether the item is at both ends though
    /// it was to be moved, and so would arrive again.
    #[track_caller]
    fn check(&self, sandbox: &Sandbox, run: &Run, when: &str) -> bool {
        let source = sandbox.at_end(self.direction.0, "in");
        let dest = sandbox.at_end(self.direction.1, "out");
        assert_eq!(source.clone().union(dest.clone()), self.items(), "{when}");
        assert!(self.mode == "move" || source == self.items(), "{when}");
        for line in run.events() {
            let unusual = !line.get("note").is_empty();
            match line.event() {
                "moved" => assert!(unusual || source.is_empty(), "{when}: {line:?} is not true"),
                "copied" => assert!(!source.is_empty(), "{when}: {line:?} is not true"),
                _ => continue,
            }
            assert_eq!(dest, self.items(), "{when}: {line:?} is not true");
            assert_eq!(line.number("bytes"), self.size_bytes as u64, "{when}");
        }
        let staged = std::fs::read_dir(sandbox.tmp())
            .expect("TMPDIR is there")
            .count();
        assert_eq!(staged, 0, "{when}: something is left in TMPDIR");
        self.mode == "move" && !source.is_empty() && !dest.is_empty()
    }

    #[track_caller]
    fn finishes(&self, sandbox: &Sandbox, when: &str) {
        sandbox.run().succeeds();
        let dest = visible(sandbox.at_end(self.direction.1, "out"));
        assert_eq!(dest, self.items(), "{when}");
        let left = sandbox.at_end(self.direction.0, "in");
        assert_eq!(left.is_empty(), self.mode == "move", "{when}");
    }

    /// Each mishap at each request, for so many requests in a row.
    fn breaks_everywhere(&self, times: usize, wanted: impl Fn(&str) -> bool) {
        let mut totals = Totals::default();
        for (number, (op, sent, got)) in self.requests().into_iter().enumerate() {
            for (name, fault) in mishaps(sent, got)
                .into_iter()
                .filter(|(name, _)| wanted(name))
            {
                let sandbox = self.sandbox();
                let proxy = sandbox.proxy();
                proxy.fault(When::any().after(number), fault.clone());
                if times > 1 {
                    proxy.fault(When::op(op).times(times - 1), fault);
                }
                let when = format!("{name} at {op:?}, request {number}, {}", self.name());
                let run = sandbox.run();
                assert!(proxy.fired() > 0, "{when}: it did not fire");
                totals.duplicates += usize::from(self.check(&sandbox, &run, &when));
                totals.tried += 1;
                totals.fired += proxy.fired();
                proxy.forget();
                self.finishes(&sandbox, &when);
            }
        }
        totals.tell(&format!("request/{}", self.name()));
    }

    /// The server falls silent at each request, before it acts or in the middle of its answer.
    fn stalls_everywhere(&self) {
        let mut totals = Totals::default();
        for (number, (op, _, got)) in self.requests().into_iter().enumerate() {
            for in_the_answer in [false, true] {
                let gate = Gate::default();
                let silence = match (in_the_answer, got) {
                    (false, _) => Fault::Hold(gate.clone()),
                    (true, 0) => continue,
                    (true, got) => Fault::Stall(got / 2, gate.clone()),
                };
                let sandbox = self.sandbox();
                sandbox.env("MINIO_READ_TIMEOUT", "1");
                let proxy = sandbox.proxy();
                let when = format!("{silence:?} at {op:?}, request {number}, {}", self.name());
                proxy.fault(When::any().after(number), silence);
                let run = sandbox.run();
                // Only now may what was held go on: it acts after the program has given up.
                gate.open();
                assert_eq!(proxy.fired(), 1, "{when}");
                run.fails();
                totals.tried += 1;
                totals.fired += 1;
                totals.duplicates += usize::from(self.check(&sandbox, &run, &when));
                self.finishes(&sandbox, &when);
            }
        }
        totals.tell(&format!("silence/{}", self.name()));
    }

    /// The program is killed at each request, before or after the server acted.
    fn dies_everywhere(&self) {
        let mut totals = Totals::default();
        for after_the_server_acted in [false, true] {
            for number in 0.. {
                let sandbox = self.sandbox();
                let proxy = sandbox.proxy();
                let gate = Gate::default();
                let held = gate.clone();
                let fault = if after_the_server_acted {
                    Fault::after(move || held.pass())
                } else {
                    Fault::Hold(held)
                };
                proxy.fault(When::any().after(number), fault);
                let running = sandbox.start();
                if !gate.arrives_or(|| running.has_ended()) {
                    sandbox.finish(running).succeeds();
                    proxy.forget();
                    assert!(number >= 2, "the run took {number} requests only");
                    break;
                }
                running.signal(Signal::KILL);
                sandbox.finish(running);
                gate.open();
                let when = format!("a kill at request {number}, {}", self.name());
                let source = sandbox.at_end(self.direction.0, "in");
                let dest = visible(sandbox.at_end(self.direction.1, "out"));
                let both = !source.is_empty() && !dest.is_empty() && self.mode == "move";
                assert_eq!(source.union(dest), self.items(), "{when}");
                let staged = std::fs::read_dir(sandbox.tmp()).unwrap().count();
                assert_eq!(staged, 0, "{when}: what is staged has no name");
                proxy.reset();
                self.finishes(&sandbox, &when);
                totals.tried += 1;
                totals.fired += 1;
                totals.duplicates += usize::from(both);
            }
        }
        totals.tell(&format!("crash-at-request/{}", self.name()));
    }
}

#[test]
fn nothing_is_lost_whatever_happens_to_any_request_of_a_move_in() {
    Way::new(WITH_S3[0], "move").breaks_everywhere(1, |_| true);
}

#[test]
fn nothing_is_lost_whatever_happens_to_any_request_of_a_move_out() {
    Way::new(WITH_S3[1], "move").breaks_everywhere(1, |_| true);
}

#[test]
fn nothing_is_lost_whatever_happens_to_any_request_of_a_move_between_buckets() {
    Way::new(WITH_S3[2], "move").breaks_everywhere(1, |_| true);
}

#[test]
fn a_copy_keeps_its_source_whatever_happens_to_any_request() {
    for direction in WITH_S3 {
        Way::new(direction, "copy").breaks_everywhere(1, |_| true);
    }
}

/// Three in a row are more than an attempt's own tries can mend.
#[test]
fn nothing_is_lost_where_it_happens_again_and_again() {
    for direction in WITH_S3 {
        Way::new(direction, "move").breaks_everywhere(3, |name| {
            // Those that come once more only where the first one is tried again.
            matches!(
                name,
                "answer lost" | "reset before" | "half a body" | "503 \"SlowDown\""
            )
        });
    }
}

#[test]
fn nothing_is_lost_whatever_happens_to_any_request_of_an_upload_in_parts() {
    breaks_parts(WITH_S3[1]);
}

#[test]
fn nothing_is_lost_whatever_happens_to_any_request_of_a_copy_by_the_server() {
    breaks_parts(WITH_S3[2]);
}

#[test]
fn nothing_is_lost_whatever_happens_to_any_request_of_a_move_in_by_ranges() {
    breaks_parts(WITH_S3[0]);
}

/// An item of two parts, or ranges.
fn in_parts(direction: (End, End)) -> Way {
    Way {
        size_bytes: PARTS_BYTES,
        summed: direction == WITH_S3[0],
        ..Way::new(direction, "move")
    }
}

fn breaks_parts(direction: (End, End)) {
    let way = in_parts(direction);
    let every = torture() > 1;
    way.breaks_everywhere(1, |name| {
        let few = [
            "reset in the request",
            "answer lost",
            "too short",
            "half a body",
            "a byte of the answer",
            "a byte of the request",
        ];
        every || few.contains(&name) || name.contains("under 200") || name.starts_with("404")
    });
}

#[test]
fn nothing_is_lost_where_the_server_falls_silent_at_any_request() {
    for direction in WITH_S3 {
        for mode in ["move", "copy"] {
            Way::new(direction, mode).stalls_everywhere();
        }
    }
}

#[test]
fn a_kill_at_any_request_loses_nothing_and_the_next_run_finishes() {
    for direction in WITH_S3 {
        for mode in ["move", "copy"] {
            Way::new(direction, mode).dies_everywhere();
        }
    }
}

#[test]
fn a_kill_at_any_request_of_an_upload_in_parts_loses_nothing() {
    dies_in_parts(WITH_S3[1]);
}

#[test]
fn a_kill_at_any_request_of_a_copy_by_the_server_loses_nothing() {
    dies_in_parts(WITH_S3[2]);
}

#[test]
fn a_kill_at_any_request_of_a_move_in_by_ranges_loses_nothing() {
    dies_in_parts(WITH_S3[0]);
}

fn dies_in_parts(direction: (End, End)) {
    in_parts(direction).dies_everywhere();
}

#[test]
fn whichever_request_fails_for_good_nothing_is_lost_and_the_next_run_finishes() {
    for direction in WITH_S3 {
        let way = Way::new(direction, "move");
        let mut totals = Totals::default();
        for number in 0.. {
            let sandbox = way.sandbox();
            let proxy = sandbox.proxy();
            // From this request on all is lost, and what the server did is not heard of.
            proxy.fault(When::any().after(number).always(), Fault::LoseAnswer);
            let run = sandbox.run();
            let when = format!("all lost from request {number}, {}", way.name());
            totals.duplicates += usize::from(way.check(&sandbox, &run, &when));
            if run.code() == 0 {
                // Behind the last request; then no fault could fire.
                assert!(number >= 2, "the run took {number} requests only");
                proxy.forget();
                break;
            }
            totals.tried += 1;
            totals.fired += proxy.fired();
            proxy.reset();
            way.finishes(&sandbox, &when);
        }
        totals.tell(&format!("network-gone/{}", way.name()));
    }
}
