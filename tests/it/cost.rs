//! What an item costs: requests, system calls, instructions and memory, which do not depend on the
//! machine's mood as times do. The times are in `tests/bench`.
//!
//! The bounds are for the debug build, which the tests run.

use std::fs;

use crate::support::{End, Fault, Op, Sandbox, Tree, When, ends, tree};

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
fn a_small_item_takes_three_requests_in_one_out_and_four_between_buckets() {
    let items = 20;
    let in_each = [Op::Get, Op::Head, Op::Delete];
    let between_each = [Op::Get, Op::Put, Op::Head, Op::Delete];
    // Beside them the listing, and the look whether the bucket is there.
    for (from, to, each, more) in [
        (End::S3, End::File, &in_each[..], 1),
        (End::File, End::S3, &[Op::Put], 1),
        (End::S3, End::S3, &between_each, 2),
    ] {
        let sandbox = sandbox(from, to, items);
        let proxy = sandbox.proxy();
        sandbox.run().succeeds();
        for op in each {
            assert_eq!(proxy.count(*op), items, "{op:?}: {:?}", proxy.requests());
        }
        assert_eq!(proxy.requests().len(), each.len() * items + more);
        assert_eq!(sandbox.at_end(to, "out"), small_items(items));
    }
}

/// The cost of one item: that of many less that of a few, so that the cost of a run falls out.
fn of_one(cost: impl Fn(usize) -> u64, few: usize, many: usize) -> u64 {
    (cost(many) - cost(few)).div_ceil((many - few) as u64)
}

/// The system calls of a whole run, without the moody ones.
fn system_calls(from: End, to: End, amount: usize) -> (u64, String) {
    let sandbox = sandbox(from, to, amount);
    let counted = counted_calls(&sandbox);
    assert_eq!(sandbox.at_end(to, "out"), small_items(amount));
    counted
}

/// Runs the rules under strace; how many system calls that took, and which.
fn counted_calls(sandbox: &Sandbox) -> (u64, String) {
    let counts = sandbox.path("strace");
    let strace = "strace --follow-forks --summary-only --output";
    let mut words: Vec<_> = strace.split(' ').map(Into::into).collect();
    words.push(counts.clone().into_os_string());
    sandbox.launched_by(&words);
    sandbox.run().succeeds();
    let text = fs::read_to_string(counts).expect("strace wrote its summary");
    let count = |line: &str| {
        let mut words = line.split_whitespace();
        let calls: u64 = words.nth(3)?.parse().ok()?;
        let name = words.last()?;
        (name != "total" && !MOODY.contains(&name)).then_some(calls)
    };
    (text.lines().filter_map(count).sum(), text)
}

/// With `max_items` items at a time, each listed anew, 2000 would take ten times the calls.
#[test]
fn what_skip_leaves_costs_the_same_however_much_of_it_there_is() {
    let of_all = |amount: usize| {
        let sandbox = Sandbox::without_minio();
        for name in small_items(amount).names() {
            sandbox.write(format!("in/{name}"), "new contents");
            sandbox.write(format!("out/{name}"), "old");
        }
        let keys = "if_exists: skip, max_items: 10";
        sandbox.rule("r", &format!("{}, {keys}", ends((End::File, End::File))));
        let (calls, _) = counted_calls(&sandbox);
        assert_eq!(sandbox.files("in").len(), amount);
        calls
    };
    let each = of_one(of_all, 200, 2000);
    assert!(each <= 20, "{each} calls for each conflict");
    assert!(each >= 2, "{each} calls for each conflict: that is not all");
}

#[test]
fn a_further_listing_of_a_bucket_goes_on_where_the_last_one_ended() {
    let sandbox = Sandbox::new();
    sandbox.fill(End::S3, "in", &small_items(8));
    let old = ["0000.edi", "0001.edi", "0002.edi", "0003.edi"].map(|name| (name, "old"));
    let blocked = tree(&old);
    sandbox.fill(End::File, "out", &blocked);
    let proxy = sandbox.proxy();
    let keys = "if_exists: skip, max_items: 2, concurrency: 1";
    sandbox.rule("r", &format!("{}, {keys}", ends((End::S3, End::File))));
    sandbox
        .run()
        .succeeds()
        .logs("rule_done", &[("moved", "2"), ("skipped", "4")]);
    let requests = proxy.requests();
    let lists = requests.iter().filter(|request| request.op == Op::List);
    let after = lists.map(|list| {
        let mut query = list.query.iter();
        let after = query.find(|(name, _)| name == "start-after");
        after.map_or("", |(_, value)| value)
    });
    let after: Vec<_> = after.collect();
    assert_eq!(after, ["", "in/0001.edi", "in/0003.edi"]);
}

#[test]
fn max_items_zero_lists_nothing() {
    let sandbox = sandbox(End::S3, End::File, 3);
    sandbox.forget_rules();
    sandbox.rule(
        "r",
        &format!("{}, max_items: 0", ends((End::S3, End::File))),
    );
    let proxy = sandbox.proxy();
    sandbox
        .run()
        .succeeds()
        .logs("rule_start", &[("selected", "0"), ("more", "false")]);
    assert!(proxy.requests().is_empty(), "{:?}", proxy.requests());
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

/// The instructions of a whole run, by callgrind.
fn instructions(from: End, to: End, amount: usize) -> u64 {
    let sandbox = sandbox(from, to, amount);
    // As many workers for few items as for many: what a thread costs is not what an item does.
    sandbox.default("concurrency: 8");
    let log = sandbox.path("callgrind");
    let log_file = format!("--log-file={}", log.display());
    let tool = [
        "valgrind",
        "--tool=callgrind",
        "--callgrind-out-file=/dev/null",
    ];
    sandbox.launched_by(&[&tool[..], &[&log_file]].concat());
    sandbox.run().succeeds();
    assert_eq!(sandbox.at_end(to, "out"), small_items(amount));
    let text = fs::read_to_string(log).expect("callgrind wrote its log");
    let line = text.lines().find(|line| line.contains("Collected"));
    let count = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    count.unwrap_or_else(|| panic!("callgrind counted nothing:\n{text}"))
}

/// Measured: 4.8 million in, 1.7 million out.
#[test]
fn a_small_item_takes_a_bounded_number_of_instructions() {
    for (from, to, bound) in [
        (End::S3, End::File, 6_000_000),
        (End::File, End::S3, 2_200_000),
    ] {
        let each = of_one(|amount| instructions(from, to, amount), 10, 50);
        assert!(each <= bound, "{each} for each item");
        assert!(
            each >= 100_000,
            "{each} for each item: some were not counted"
        );
    }
}

/// The peak resident memory of a run, in KiB. A shell starts the program, for what a process was
/// before counts too; what the shell's child used is asked of the kernel afterwards.
fn peak_kib(sandbox: &Sandbox, args: &[&str]) -> u64 {
    let report = sandbox.path("peak");
    let ask = "import resource, sys; \
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss; \
        open(sys.argv[1], 'w').write(str(peak)); sys.exit(int(sys.argv[2]))";
    let script = format!("\"$@\"; exec python3 -I -S -c \"{ask}\" \"$0\" $?");
    let report_text = report.to_str().expect("a path of the tests is UTF-8");
    sandbox.launched_by(&["sh", "-c", &script, report_text]);
    sandbox.run_with(args).succeeds();
    let text = fs::read_to_string(report).expect("the kernel was asked");
    text.parse().expect("a number of KiB")
}

/// What is promised of the release binary, which `./build.sh test` gives this module; the stacks of
/// code that is not optimised are larger.
fn peak_max_kib() -> u64 {
    match std::env::var_os("BOTS_MOVER_BIN") {
        Some(_) => 16 << 10,
        None => 24 << 10,
    }
}

/// Measured for the release binary: 5.5 MiB for 1000 small items, 3 MiB for a large one.
#[test]
fn memory_stays_small_whatever_the_size_and_the_number_of_items() {
    for (from, to) in [(End::S3, End::File), (End::File, End::S3)] {
        let peak = peak_kib(&sandbox(from, to, 1000), &[]);
        assert!(peak <= peak_max_kib(), "{peak} KiB");

        let large = Sandbox::new();
        let bytes: Vec<u8> = (0..=250).cycle().take(40 << 20).collect();
        let items: Tree = [("large".to_owned(), bytes)].into_iter().collect();
        large.fill(from, "in", &items);
        large.rule("r", &ends((from, to)));
        let peak = peak_kib(&large, &[]);
        assert!(peak <= peak_max_kib(), "{peak} KiB");
        assert!(peak >= 1 << 10, "{peak} KiB: that was not the program");
        assert_eq!(large.at_end(to, "out"), items);
    }
}

/// All rules list at once, and a page was in memory whole: 50 MiB more than for one key each where
/// keys are long. Now what nobody wants is not kept, and only what is wanted of a page waits until
/// the page is whole. Measured: 2.3 to 4.7 MiB for long keys, 1.6 to 2.9 MiB for short ones; on a
/// busy machine 6.2 MiB.
#[test]
fn forty_listings_at_once_take_little_more_memory_than_forty_rules() {
    let peak = |keys: usize, pad: usize, glob: &str| {
        let sandbox = Sandbox::new();
        let proxy = sandbox.proxy();
        proxy.fault(When::op(Op::List).always(), Fault::Keys(keys, pad));
        for number in 0..40 {
            let src = format!("{{type: s3, path: in/{number}, match: {{glob: '{glob}'}}}}");
            let dest = End::File.at(&format!("out/{number}"));
            sandbox.rule(
                &format!("r{number}"),
                &format!("src: {src}, dest: {dest}, max_items: 300"),
            );
        }
        let peak = peak_kib(&sandbox, &["--dry-run"]);
        let pages = if keys > 250 { 80 } else { 40 };
        assert_eq!(proxy.count(Op::List), pages, "{glob}");
        peak
    };
    let of_rules = peak(1, 0, "none*");
    for pad in [1000, 0] {
        // How threads meet changes what the allocator keeps: what one of three runs does without
        // is not needed.
        let least = (0..3).map(|_| peak(1250, pad, "none*")).min();
        let more = least.unwrap_or_default().saturating_sub(of_rules);
        assert!(more <= 8 << 10, "{more} KiB more: {pad}");
    }
}

/// Measured: 235 bytes for a file whose name has 10 bytes. An object has an ETag too and takes 280
/// (`bench scale`).
#[test]
fn an_item_whose_turn_is_still_to_come_takes_little_memory() {
    let of_all = |amount: usize| {
        let sandbox = Sandbox::without_minio();
        for number in 0..amount {
            sandbox.write(format!("in/{number:06}.edi"), "");
        }
        sandbox.rule(
            "r",
            &format!("{}, max_items: {amount}", ends((End::File, End::File))),
        );
        peak_kib(&sandbox, &["--dry-run"]) * 1024
    };
    // As above, the least of three.
    let each = (0..3).map(|_| of_one(of_all, 1000, 21_000)).min();
    let each = each.unwrap_or_default();
    assert!(each <= 300, "{each} bytes for each item");
    assert!(each >= 50, "{each} bytes for each item: that is not all");
}
