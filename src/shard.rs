//! PURE: several runs that share the work, and which of them takes an item (SPEC section 8).
//!
//! Which number an item has is up to `plan`; here is what the number means.

use std::fmt;

use md5::{Digest as _, Md5};

/// One of several runs that share the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: u32,
    count: u32,
}

impl Shard {
    /// Reads `I/N`, as in `--shard 0/4`; `None` where it is none of 0 to N-1.
    pub fn parse(text: &str) -> Option<Self> {
        let (index, count) = text.split_once('/')?;
        Self::new(number(index)?, number(count)?)
    }

    /// `None` where `index` is none of 0 to `count`-1.
    pub fn new(index: u32, count: u32) -> Option<Self> {
        (index < count).then_some(Self { index, count })
    }

    /// Which of them it is.
    pub fn index(self) -> u32 {
        self.index
    }

    /// `in each of 4 shards`.
    pub fn each(self) -> String {
        let s = if self.count == 1 { "" } else { "s" };
        format!("in each of {} shard{s}", self.count)
    }

    /// The one of them all that takes what has this number.
    #[must_use]
    pub fn owner(self, number: u64) -> Self {
        let index = number % u64::from(self.count);
        let index = u32::try_from(index).expect("it is less than a u32");
        Self { index, ..self }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

/// A number as Kubernetes writes it.
pub fn number(text: &str) -> Option<u32> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some(())?;
    text.parse().ok()
}

/// The number of a destination: the first 64 bits of its MD5, as `md5sum` prints them.
///
/// Promised in `config/README.md`: never another one within a major version. MD5, since each of its
/// bits depends on all of the name: FNV-1a modulo 2 would be the parity of the characters' lowest
/// bits, one and the same for all of `1-1.edi`, `2-2.edi`, ... Here nothing has to be kept secret.
pub fn hash(bytes: &[u8]) -> u64 {
    let digest: [u8; 16] = Md5::digest(bytes).into();
    digest[..8]
        .iter()
        .fold(0, |all, &byte| all << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first half of the digests in the appendix of RFC 1321.
    /// <https://www.rfc-editor.org/rfc/rfc1321>
    #[test]
    fn the_hash_is_the_first_half_of_md5() {
        for (text, expected) in [
            ("", 0xd41d_8cd9_8f00_b204),
            ("a", 0x0cc1_75b9_c0f1_b6a8),
            ("abc", 0x9001_5098_3cd2_4fb0),
            ("message digest", 0xf96b_697d_7cb7_938d),
        ] {
            assert_eq!(hash(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn a_shard_is_one_of_0_to_n_minus_1() {
        for (text, expected) in [("0/1", Some((0, 1))), ("3/4", Some((3, 4)))] {
            let expected = expected.map(|(index, count)| Shard { index, count });
            assert_eq!(Shard::parse(text), expected, "{text}");
        }
        for text in [
            "", "/", "1", "4/4", "0/0", "-1/4", "+1/4", "1/", "/4", "1/4/4", "1 / 4",
        ] {
            assert_eq!(Shard::parse(text), None, "{text}");
        }
    }

    #[test]
    fn names_that_rise_in_step_are_spread_over_all_shards() {
        let shard = Shard { index: 0, count: 4 };
        let mut counts = [0; 4];
        for number in 1000..2000 {
            let name = format!("s3://edi/in/{number}-{number}.edi");
            let owner = shard.owner(hash(name.as_bytes()));
            counts[owner.index as usize] += 1;
        }
        assert!(
            counts.iter().all(|count| (200..300).contains(count)),
            "{counts:?}"
        );
    }
}
