//! How long the long tests go on, and what they tell of themselves: `./build.sh torture` adds the
//! lines up.

use std::env;

/// How many times more is tried than in an ordinary run: `BOTS_MOVER_TORTURE`, 1 where it is not
/// set. Rounds and seeds are multiplied by it.
pub(crate) fn torture() -> usize {
    let value = env::var("BOTS_MOVER_TORTURE").unwrap_or_else(|_| "1".into());
    let factor = value.parse().ok().filter(|factor| *factor > 0);
    factor.unwrap_or_else(|| panic!("BOTS_MOVER_TORTURE={value:?} is no number above 0"))
}

/// What one test tried. A test that lost or altered something fails, and tells nothing.
#[derive(Default)]
pub(crate) struct Totals {
    /// Points at which something was made to go wrong, or rounds, or seeds.
    pub(crate) tried: usize,
    /// Faults that are known to have happened.
    pub(crate) fired: usize,
    /// Items that arrived, or would arrive, once more.
    pub(crate) duplicates: usize,
}

impl Totals {
    /// One line for machines: `tried crash/s3-file/move 87 fired 87 lost 0 altered 0 …`. The first
    /// part of `kind` is what totals are made for.
    pub(crate) fn tell(&self, kind: &str) {
        let Self {
            tried,
            fired,
            duplicates,
        } = self;
        eprintln!("tried {kind} {tried} fired {fired} lost 0 altered 0 duplicates {duplicates}");
    }
}
