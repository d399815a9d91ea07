//! Numbers that follow from a seed (SplitMix64), so that whatever a seed does, it does again.

/// A source of numbers.
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    /// The numbers of `seed`; each `stream` of them is a sequence of its own.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut chance = Self(seed ^ stream.rotate_left(32));
        chance.next();
        chance
    }

    /// Any number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("below a usize")
    }

    /// True `percent` times of a hundred.
    pub(crate) fn hits(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// True `times` in a thousand.
    pub(crate) fn hits_in_1000(&mut self, times: usize) -> bool {
        self.below(1000) < times
    }

    /// One of them.
    pub(crate) fn of<T: Copy>(&mut self, some: &[T]) -> T {
        some[self.below(some.len())]
    }
}
