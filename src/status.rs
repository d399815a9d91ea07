//! The last line of a terminal while a run goes on: what is under way.
//!
//! Draws on a terminal and knows no log: `logger` says when, so that lines never mix. The cursor
//! stays at the beginning of the line. So other output, such as the `^C` of a key, begins there
//! too, and what a narrower window has wrapped lies below the cursor and is erased with the line.

use std::io::{Stderr, Write as _};
use std::time::Duration;

use rustix::process::getpgrp;
use rustix::termios::{tcgetpgrp, tcgetwinsize};

use crate::sync::Instant;

/// How often the line is drawn at the most.
pub(crate) const EVERY: Duration = Duration::from_millis(200);

/// Where a terminal does not say how wide it is.
const COLUMNS: usize = 80;

/// What is under way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnderWay {
    /// Items that ended, however.
    pub done: usize,
    /// Items that were selected so far.
    pub selected: usize,
    /// Delivered, and of items in flight.
    pub bytes: u64,
    /// Rules that are not done.
    pub rules: Vec<String>,
    /// A signal asked to stop.
    pub stopping: bool,
}

/// A terminal.
pub struct Screen {
    out: Stderr,
    /// It knows no escape sequences.
    dumb: bool,
    /// The columns of what is there.
    shown: usize,
    /// When the line was drawn, and bytes then and per second.
    last: Option<(Instant, u64, u64)>,
}

impl Screen {
    /// Where to draw.
    pub fn new(out: Stderr, dumb: bool) -> Self {
        Self {
            out,
            dumb,
            shown: 0,
            last: None,
        }
    }

    /// Draws the line over what is there.
    pub fn draw(&mut self, under_way: &UnderWay) {
        let columns = tcgetwinsize(&self.out).map_or(0, |size| size.ws_col.into());
        let columns = if columns == 0 { COLUMNS } else { columns };
        let rate = self.rate(under_way.bytes);
        // The last column stays free: some terminals go on to the next line when it is filled.
        self.put(&fitting(&line(under_way, rate), columns - 1));
    }

    /// Leaves nothing of the line.
    pub fn wipe(&mut self) {
        if self.shown > 0 {
            self.put("");
        }
    }

    fn put(&mut self, text: &str) {
        // When we run in the background, the line belongs to the shell. A terminal without a
        // foreground process is ours.
        if tcgetpgrp(&self.out).is_ok_and(|foreground| foreground != getpgrp()) {
            self.shown = 0;
            return;
        }
        let width = text.chars().map(width).sum();
        let rest = if self.dumb {
            " ".repeat(self.shown.saturating_sub(width))
        } else {
            "\x1b[J".into()
        };
        self.shown = width;
        // A terminal that is gone stops no move.
        let _ = self.out.write_all(format!("\r{text}{rest}\r").as_bytes());
    }

    /// Bytes a second, of about the last second.
    fn rate(&mut self, bytes: u64) -> u64 {
        let now = Instant::now();
        let rate = self.last.map_or(0, |(then, before, rate)| {
            let ms = now.saturating_duration_since(then).as_millis().max(1);
            let new = u128::from(bytes.saturating_sub(before)) * 1000 / ms;
            u64::try_from((u128::from(rate) * 4 + new) / 5).unwrap_or(u64::MAX)
        });
        self.last = Some((now, bytes, rate));
        rate
    }
}

fn line(under_way: &UnderWay, rate: u64) -> String {
    format!(
        "{}{} of {} items, {}, {}/s: {}",
        if under_way.stopping { "stopping, " } else { "" },
        under_way.done,
        under_way.selected,
        size(under_way.bytes),
        size(rate),
        under_way.rules.join(", ")
    )
}

/// In a unit that leaves up to four digits.
fn size(bytes: u64) -> String {
    let unit = bytes.max(1).ilog2() / 10;
    if unit == 0 {
        return format!("{bytes} B");
    }
    let tenths = (u128::from(bytes) * 10) >> (10 * unit);
    let prefix = ["K", "M", "G", "T", "P", "E"][unit as usize - 1];
    format!("{}.{} {prefix}iB", tenths / 10, tenths % 10)
}

/// Never too few: which letters are two columns wide is not the same on all terminals.
fn width(c: char) -> usize {
    if c.is_ascii() { 1 } else { 2 }
}

/// As much of the text as there is room for; three dots where that is not all.
fn fitting(text: &str, columns: usize) -> String {
    let wide = |text: &str| text.chars().map(width).sum::<usize>();
    if wide(text) <= columns {
        return text.into();
    }
    let mut cut = String::new();
    for c in text.chars() {
        if wide(&cut) + width(c) + 3 > columns {
            break;
        }
        cut.push(c);
    }
    cut + &"..."[..columns.min(3)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn under_way(rules: &[&str]) -> UnderWay {
        UnderWay {
            done: 37,
            selected: 1000,
            bytes: 12_900_000,
            rules: rules.iter().map(|rule| (*rule).to_owned()).collect(),
            stopping: false,
        }
    }

    #[test]
    fn the_line_says_items_bytes_rate_and_rules() {
        let line = line(&under_way(&["inbound_850", "outbound_810"]), 3_565_159);
        let expected = "37 of 1000 items, 12.3 MiB, 3.4 MiB/s: inbound_850, outbound_810";
        assert_eq!(line, expected);
    }

    #[test]
    fn sizes_have_a_unit_that_fits() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1 << 20, "1.0 MiB"),
            ((1 << 30) - 1, "1023.9 MiB"),
            (u64::MAX, "15.9 EiB"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let all = line(&under_way(&["日本", "ein_name", "Größe"]), 1);
        for columns in 0..100 {
            let cut = fitting(&all, columns);
            let wide: usize = cut.chars().map(width).sum();
            assert!(wide <= columns, "{cut:?} in {columns}");
            let whole = all.chars().map(width).sum::<usize>() <= columns;
            assert_eq!(cut == all, whole, "{cut:?} in {columns}");
        }
        assert_eq!(fitting(&all, 20), "37 of 1000 items,...");
    }
}
