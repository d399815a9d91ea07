//! Who works on what next: one lane for each rule, shared fairly by a bounded number of workers.
//!
//! Promises: items of a lane start in order; no lane waits for another lane's backlog; no worker is
//! idle while a lane has a task for it; a task that waits for its next attempt holds a place in its
//! lane but no worker; when the run is halted no new task starts. Knows nothing of what a task is.

use std::collections::VecDeque;
use std::time::Duration;

use crate::poison::unpoisoned;
use crate::sync::{Condvar, Instant, Mutex, MutexGuard};

/// The lanes of a run.
pub(crate) struct Schedule<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    /// Notified when no task is left.
    over: Condvar,
}

struct State<T> {
    lanes: Vec<Queue<T>>,
    /// The lane that was served last.
    last: usize,
    running: usize,
    limit: usize,
    workers: usize,
    /// There is work, but no worker could be started.
    unmanned: bool,
    /// Threads that wait for a change.
    waiting: usize,
    halted: bool,
    hurried: bool,
}

/// What is left to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// Lanes may still get tasks, or have some.
    Tasks,
    /// The run was told to hurry and no task is left. Some lanes are still being listed, but what
    /// they list will not be used.
    Listings,
    /// Every lane is closed and empty.
    Nothing,
}

/// The tasks of one lane.
struct Queue<T> {
    ready: VecDeque<T>,
    later: Vec<(Instant, T)>,
    running: usize,
    limit: usize,
    /// Somebody may still add tasks to it.
    open: bool,
    dropped: usize,
}

impl<T> Queue<T> {
    fn in_flight(&self) -> usize {
        self.running + self.later.len()
    }

    fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.in_flight() == 0
    }

    /// Whether a worker could take a task of it.
    fn has_task(&self, due: impl Fn(Instant) -> bool) -> bool {
        let may_start = !self.ready.is_empty() && self.in_flight() < self.limit;
        may_start || self.due(due).is_some()
    }

    /// The place of the task that has been due for its next attempt the longest.
    fn due(&self, due: impl Fn(Instant) -> bool) -> Option<usize> {
        let later = self.later.iter().enumerate();
        let waiting = later.filter(|(_, (at, _))| due(*at));
        waiting.min_by_key(|(_, (at, _))| *at).map(|(at, _)| at)
    }
}

impl<T> Schedule<T> {
    /// Open lanes with these limits, and `limit` workers for all of them together.
    pub(crate) fn new(limit: usize, lane_limits: impl IntoIterator<Item = usize>) -> Self {
        let lane = |limit| Queue {
            ready: VecDeque::new(),
            later: Vec::new(),
            running: 0,
            limit,
            open: true,
            dropped: 0,
        };
        let state = State {
            lanes: lane_limits.into_iter().map(lane).collect(),
            last: 0,
            running: 0,
            limit,
            workers: 0,
            unmanned: false,
            waiting: 0,
            halted: false,
            hurried: false,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            over: Condvar::new(),
        }
    }

    /// Closes the lane's listing with these tasks; says how many more workers are worth starting
    /// (they count as started) and whether the lane is empty, which makes the caller its owner
    /// again as in [`finish`](Self::finish).
    pub(crate) fn submit(&self, lane: usize, tasks: impl Into<VecDeque<T>>) -> (usize, bool) {
        let mut tasks = tasks.into();
        let mut state = self.lock();
        let halted = state.halted;
        let this = &mut state.lanes[lane];
        if halted {
            this.dropped += tasks.len();
        } else if this.ready.is_empty() {
            this.ready = tasks;
        } else {
            this.ready.append(&mut tasks);
        }
        let empty = this.is_empty();
        this.open = empty;
        // What waits for its next attempt needs a worker again, and nobody starts one then.
        let each = |lane: &Queue<T>| lane.ready.len() + lane.later.len();
        let waiting: usize = state.lanes.iter().map(each).sum();
        let idle = state.workers - state.running;
        let more = waiting
            .saturating_sub(idle)
            .min(state.limit - state.workers);
        state.workers += more;
        self.tell(state);
        (more, empty)
    }

    /// Takes back a worker that could not be started. When no worker is left, the caller must ask
    /// [`enlist`](Self::enlist) as soon as it has nothing else to do.
    pub(crate) fn worker_failed(&self) {
        let mut state = self.lock();
        state.workers -= 1;
        state.unmanned = state.workers == 0;
    }

    /// Whether the caller must become a worker, because no thread could be started. If so, the
    /// caller is counted as a worker from now on.
    pub(crate) fn enlist(&self) -> bool {
        let mut state = self.lock();
        let wanted = std::mem::take(&mut state.unmanned) && state.workers == 0;
        state.workers += usize::from(wanted);
        wanted
    }

    /// The next task and its lane; waits for one. `None` when nothing is left and no lane is open.
    pub(crate) fn next(&self) -> Option<(usize, T)> {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if let Some(found) = state.pick(now) {
                return Some(found);
            }
            if state.left() == Left::Nothing {
                self.tell(state);
                return None;
            }
            let due = state
                .lanes
                .iter()
                .flat_map(|lane| &lane.later)
                .map(|(due, _)| *due)
                .min();
            // A task may be due while no worker is free. The thread that frees a worker then
            // wakes this one.
            let patience = due.map(|due| due.saturating_duration_since(now));
            state.waiting += 1;
            state = match patience.filter(|patience| !patience.is_zero()) {
                Some(patience) => unpoisoned(self.changed.wait_timeout(state, patience)).0,
                None => unpoisoned(self.changed.wait(state)),
            };
            state.waiting -= 1;
        }
    }

    /// The task of [`next`](Self::next) is over. `true`: the lane is empty; it counts as open
    /// until the caller either submits to it or closes it.
    pub(crate) fn finish(&self, lane: usize) -> bool {
        let mut state = self.lock();
        state.running -= 1;
        let this = &mut state.lanes[lane];
        this.running -= 1;
        let empty = this.is_empty() && !this.open;
        this.open |= empty;
        self.tell(state);
        empty
    }

    /// The task of [`next`](Self::next) is to be given again after `wait`.
    pub(crate) fn again(&self, lane: usize, task: T, wait: Duration) {
        let mut state = self.lock();
        state.running -= 1;
        let this = &mut state.lanes[lane];
        this.running -= 1;
        this.later.push((Instant::now() + wait, task));
        self.tell(state);
    }

    /// Nothing more comes into this lane.
    pub(crate) fn close(&self, lane: usize) {
        let mut state = self.lock();
        state.lanes[lane].open = false;
        self.tell(state);
    }

    /// No new task starts, in any lane; what is in flight goes on, waits included.
    pub(crate) fn halt(&self) {
        let mut state = self.lock();
        state.halted = true;
        for lane in &mut state.lanes {
            lane.drop_ready();
        }
        self.tell(state);
    }

    /// No new task starts in this lane.
    pub(crate) fn halt_lane(&self, lane: usize) {
        self.lock().lanes[lane].drop_ready();
    }

    /// Halts, and makes every task that waits for its next attempt due at once.
    pub(crate) fn hurry(&self) {
        self.lock().hurried = true;
        self.halt();
    }

    /// Waits for `patience`, or until no task is left; says what is left.
    pub(crate) fn wait(&self, patience: Duration) -> Left {
        let busy = |state: &mut State<T>| state.left() == Left::Tasks;
        let waited = self.over.wait_timeout_while(self.lock(), patience, busy);
        unpoisoned(waited).0.left()
    }

    /// Waits for `duration`, or until no new task may start.
    pub(crate) fn pause(&self, duration: Duration) {
        let mut state = self.lock();
        state.waiting += 1;
        let waited = self
            .changed
            .wait_timeout_while(state, duration, |state| !state.halted);
        unpoisoned(waited).0.waiting -= 1;
    }

    /// Whether no new task may start.
    pub(crate) fn is_halted(&self) -> bool {
        self.lock().halted
    }

    /// How many tasks of the lane never started because of a halt.
    pub(crate) fn dropped(&self, lane: usize) -> usize {
        self.lock().lanes[lane].dropped
    }

    /// Wakes the threads that the new state may concern. With a backlog no thread waits, and none
    /// is woken: a wake-up costs a system call and a change of threads, and would come several
    /// times for each small file.
    fn tell(&self, state: MutexGuard<'_, State<T>>) {
        let (waiting, over) = (state.waiting > 0, state.left() != Left::Tasks);
        drop(state);
        if waiting {
            self.changed.notify_all();
        }
        if over {
            self.over.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        unpoisoned(self.state.lock())
    }
}

impl<T> Queue<T> {
    fn drop_ready(&mut self) {
        self.dropped += self.ready.len();
        self.ready.clear();
    }
}

impl<T> State<T> {
    fn left(&self) -> Left {
        let is_empty = self.lanes.iter().all(Queue::is_empty);
        match (is_empty, self.lanes.iter().any(|lane| lane.open)) {
            (true, false) => Left::Nothing,
            (true, true) if self.hurried => Left::Listings,
            _ => Left::Tasks,
        }
    }

    /// A task of the lane that has the fewest running, so that a worker is never kept for a lane
    /// that cannot use it, and a lane that comes late gets the next one that becomes free. Among
    /// equals each lane gets its turn.
    fn pick(&mut self, now: Instant) -> Option<(usize, T)> {
        if self.running >= self.limit {
            return None;
        }
        let (hurried, lanes, last) = (self.hurried, self.lanes.len(), self.last);
        let due = |at: Instant| hurried || at <= now;
        let waiting = self.lanes.iter().enumerate();
        let waiting = waiting.filter(|(_, lane)| lane.has_task(due));
        let turn = |index: usize| (index + lanes - last - 1) % lanes;
        let (index, _) = waiting.min_by_key(|(index, lane)| (lane.running, turn(*index)))?;
        let this = &mut self.lanes[index];
        let task = match this.due(due) {
            Some(at) => this.later.swap_remove(at).1,
            None => this.ready.pop_front()?,
        };
        this.running += 1;
        self.running += 1;
        self.last = index;
        Some((index, task))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(schedule: &Schedule<u32>, tasks: usize) -> Vec<(usize, u32)> {
        (0..tasks)
            .map(|_| schedule.next().expect("a task is ready"))
            .collect()
    }

    #[test]
    fn lanes_take_turns_and_keep_their_order() {
        let schedule = Schedule::new(4, [4, 4]);
        schedule.submit(0, [1, 2, 3]);
        schedule.submit(1, [11, 12, 13]);
        assert_eq!(drain(&schedule, 4), [(1, 11), (0, 1), (1, 12), (0, 2)]);
    }

    #[test]
    fn a_lane_that_lists_or_waits_or_is_at_its_limit_slows_nobody_down() {
        let schedule = Schedule::new(4, [4, 1, 1, 4]);
        schedule.submit(1, [11, 12]);
        let (lane, task) = schedule.next().expect("a task is ready");
        schedule.again(lane, task, Duration::from_secs(3600));
        schedule.submit(2, [21, 22]);
        assert_eq!(schedule.next(), Some((2, 21)));
        // Lane 1 waits, 2 is at its limit, 3 still lists: all other workers are lane 0's.
        schedule.submit(0, [1, 2, 3, 4]);
        assert_eq!(drain(&schedule, 3), [(0, 1), (0, 2), (0, 3)]);
    }

    #[test]
    fn a_lane_that_comes_late_gets_the_next_worker_that_becomes_free() {
        let schedule = Schedule::new(4, [4, 4, 4]);
        schedule.submit(0, [1, 2, 3, 4]);
        schedule.submit(1, [11, 12, 13, 14]);
        assert_eq!(drain(&schedule, 4).len(), 4);
        schedule.submit(2, [21, 22, 23]);
        assert!(!schedule.finish(0));
        assert_eq!(schedule.next(), Some((2, 21)));
        assert!(!schedule.finish(1));
        assert_eq!(schedule.next().map(|(lane, _)| lane), Some(0), "its turn");
        assert!(!schedule.finish(0));
        assert_eq!(schedule.next().map(|(lane, _)| lane), Some(1), "its turn");
    }

    #[test]
    fn what_waits_for_its_next_attempt_takes_no_worker_from_a_lane_that_has_none() {
        let schedule = Schedule::new(2, [4, 1]);
        schedule.submit(0, [1, 2, 3, 4]);
        for _ in 0..3 {
            let (lane, task) = schedule.next().expect("a task is ready");
            schedule.again(lane, task, Duration::ZERO);
        }
        assert_eq!(schedule.next().map(|(lane, _)| lane), Some(0));
        schedule.submit(1, [11]);
        assert_eq!(
            schedule.next(),
            Some((1, 11)),
            "before what is due in lane 0"
        );
    }

    #[test]
    fn a_lane_limit_of_one_keeps_strict_order_also_over_a_wait() {
        let schedule = Schedule::new(4, [1]);
        schedule.submit(0, [1, 2]);
        let (lane, task) = schedule.next().expect("a task is ready");
        schedule.again(lane, task, Duration::from_millis(5));
        assert_eq!(schedule.next(), Some((0, 1)), "2 must not overtake 1");
        assert!(!schedule.finish(0));
        assert_eq!(schedule.next(), Some((0, 2)));
        assert!(schedule.finish(0));
        schedule.close(0);
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn a_waiting_task_leaves_its_worker_to_others() {
        let schedule = Schedule::new(1, [1, 1]);
        schedule.submit(0, [1]);
        let (lane, task) = schedule.next().expect("a task is ready");
        schedule.again(lane, task, Duration::from_secs(3600));
        schedule.submit(1, [11]);
        assert_eq!(schedule.next(), Some((1, 11)));
    }

    #[test]
    fn a_halt_starts_nothing_new_and_counts_what_it_dropped() {
        let schedule = Schedule::new(1, [1, 1]);
        schedule.submit(0, [1, 2]);
        assert_eq!(schedule.next(), Some((0, 1)));
        schedule.halt();
        assert_eq!(schedule.submit(1, [11]), (0, true));
        assert_eq!((schedule.dropped(0), schedule.dropped(1)), (1, 1));
        assert!(schedule.finish(0));
        schedule.close(0);
        schedule.close(1);
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn hurry_makes_waiting_tasks_due() {
        let schedule = Schedule::new(1, [1]);
        schedule.submit(0, [1]);
        let (lane, task) = schedule.next().expect("a task is ready");
        schedule.again(lane, task, Duration::from_secs(3600));
        schedule.hurry();
        assert_eq!(schedule.next(), Some((0, 1)));
    }

    #[test]
    fn a_stopped_run_waits_for_its_tasks_and_not_for_listings() {
        let schedule = Schedule::new(1, [1, 1]);
        let left = || schedule.wait(Duration::ZERO);
        schedule.submit(0, [1, 2]);
        assert_eq!(schedule.next(), Some((0, 1)));
        schedule.halt();
        assert_eq!(left(), Left::Tasks);
        schedule.hurry();
        assert_eq!(left(), Left::Tasks);
        assert!(schedule.finish(0));
        assert_eq!(left(), Left::Listings);
        schedule.close(0);
        schedule.close(1);
        assert_eq!(left(), Left::Nothing);
    }

    #[test]
    fn whoever_could_start_no_worker_becomes_one() {
        let schedule = Schedule::new(3, [3]);
        assert!(!schedule.enlist(), "there is nothing to do yet");
        assert_eq!(schedule.submit(0, [1, 2]).0, 2);
        schedule.worker_failed();
        assert!(!schedule.enlist(), "there is another one");
        schedule.worker_failed();
        assert!(schedule.enlist());
        assert!(!schedule.enlist(), "one is enough");
    }

    #[test]
    fn what_waits_for_its_next_attempt_is_counted_when_workers_are_started() {
        let schedule = Schedule::new(3, [3, 3]);
        assert_eq!(schedule.submit(0, [1]).0, 1);
        let (lane, task) = schedule.next().expect("a task is ready");
        schedule.again(lane, task, Duration::from_secs(3600));
        assert_eq!(schedule.submit(1, [11]).0, 1, "the first one is spoken for");
    }

    #[test]
    fn no_more_workers_than_tasks_or_the_limit_are_started() {
        let schedule = Schedule::new(3, [3, 3]);
        assert_eq!(schedule.submit(0, [1]).0, 1);
        assert_eq!(schedule.submit(1, [11, 12, 13, 14]).0, 2);
    }
}
