//! PURE: how names match and what they become.

/// Which names a rule takes.
#[derive(Debug, Clone)]
pub enum Matcher {
    /// Every name.
    All,
    /// A shell pattern for the whole name.
    Glob(glob::Pattern),
    /// A search.
    Regex(regex::bytes::Regex),
}

/// What the last part of a name becomes.
#[derive(Debug, Clone)]
pub struct Rename {}
