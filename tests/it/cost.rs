//! What an item costs: requests and system calls, which do not depend on the machine's mood as
//! times do. The times are in `tests/bench`.

use std::fs;

use crate::support::{End, Op, Sandbox, Tree, ends};

/// Calls that depend on how threads meet or on the allocator, not on the item.
const MOODY: [&str; 7] = [
    "futex",
    "brk",
    "mmap",
    "munmap",
    "mprotect",
    "madvise",
    "sched_yield",
];

fn small_items(amount: usize) -> Tree {
    let item = |number| (format!("{number:04}.edi"), vec![b'x'; 4096]);
    (0..amount).map(item).collect()
}

/// A rule with that many small items at its source.
fn sandbox(from: End, to: End, amount: usize) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.fill(from, "in", &small_items(amount));
    sandbox.rule("r", &format!("{}, max_items: 1000", ends((from, to))));
    sandbox
}

#[test]
fn a_small_item_takes_three_requests_in_and_one_out() {
    let items = 20;
    let in_each = [Op::Get, Op::Head, Op::Delete];
    for (from, to, each) in [
        (End::S3, End::File, &in_each[..]),
        (End::File, End::S3, &[Op::Put]),
    ] {
        let sandbox = sandbox(from, to, items);
        let proxy = sandbox.proxy();
        sandbox.run().succeeds();
        for op in each {
            assert_eq!(proxy.count(*op), items, "{op:?}");
        }
        // The listing, or the look whether the bucket is there.
        assert_eq!(proxy.requests().len(), each.len() * items + 1);
        assert_eq!(sandbox.at_end(to, "out"), small_items(items));
    }
}

/// The system calls of a whole run, without the moody ones.
fn system_calls(from: End, to: End, amount: usize) -> (u64, String) {
    let sandbox = sandbox(from, to, amount);
    let counts = sandbox.path("strace");
    let strace = "strace --follow-forks --summary-only --output";
    let mut words: Vec<_> = strace.split(' ').map(Into::into).collect();
    words.push(counts.clone().into_os_string());
    sandbox.launched_by(&words);
    sandbox.run().succeeds();
    assert_eq!(sandbox.at_end(to, "out"), small_items(amount));

    let text = fs::read_to_string(counts).expect("strace wrote its summary");
    let count = |line: &str| {
        let mut words = line.split_whitespace();
        let calls: u64 = words.nth(3)?.parse().ok()?;
        let name = words.last()?;
        (name != "total" && !MOODY.contains(&name)).then_some(calls)
    };
    (text.lines().filter_map(count).sum(), text)
}

/// Measured for the release binary: 25 in, 22 out.
#[test]
fn a_small_item_takes_a_bounded_number_of_system_calls() {
    for (from, to, bound) in [(End::S3, End::File, 30), (End::File, End::S3, 26)] {
        let (few, many) = (50, 250);
        let (least, _) = system_calls(from, to, few);
        let (most, summary) = system_calls(from, to, many);
        let each = (most - least).div_ceil((many - few) as u64);
        assert!(each <= bound, "{each} for each item:\n{summary}");
        // A count that lost the workers' calls would fit any bound.
        assert!(each >= 10, "{each} for each item:\n{summary}");
    }
}
