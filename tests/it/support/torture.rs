//! How long the tests may take that could go on for ever.

/// How many times as much as usual is tried where a test draws by lot: `BOTS_MOVER_TORTURE`, or 1.
pub(crate) fn torture() -> u64 {
    let Ok(factor) = std::env::var("BOTS_MOVER_TORTURE") else {
        return 1;
    };
    let factor = factor.parse().ok().filter(|factor| *factor > 0);
    factor.expect("BOTS_MOVER_TORTURE is a number from 1")
}
