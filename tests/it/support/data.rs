//! Contents to move: noise of any length, and EDI files as partners send them.

use std::fmt::Write as _;

use super::tree::Tree;

/// Bytes that do not repeat, the same for the same seed (xorshift64).
pub(crate) fn noise(size_bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size_bytes + 8);
    while bytes.len() < size_bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size_bytes);
    bytes
}

/// Mixed EDI: X12 with and without line ends, EDIFACT, other encodings, a byte order mark, binary
/// attachments, an empty file; in directories two levels deep.
pub(crate) fn edi_files(amount: usize) -> Tree {
    (0..amount)
        .map(|number| (edi_name(number), edi_contents(number)))
        .collect()
}

fn edi_name(number: usize) -> String {
    let kind = ["850", "856", "810", "997", "ORDERS", "DESADV"][number % 6];
    let end = ["edi", "x12", "EDI", "txt", "edifact"][number % 5];
    match number % 4 {
        0 => format!("{kind}_{number:04}.{end}"),
        1 => format!("partner {number}/{kind}-{number:04}.{end}"),
        2 => format!("Händler/{kind}/{number:04}.{end}"),
        _ => format!("{kind}.{number:04}"),
    }
}

fn edi_contents(number: usize) -> Vec<u8> {
    let lines = 1 + number * 7 % 120;
    match number % 7 {
        0 => x12(number, lines, "~").into_bytes(),
        1 => x12(number, lines, "~\r\n").into_bytes(),
        2 => edifact(number, lines).into_bytes(),
        3 => [
            b"\xef\xbb\xbf".as_slice(),
            edifact(number, lines).as_bytes(),
        ]
        .concat(),
        4 => x12(number, lines, "\n")
            .replace("ITEM", "\u{c4}")
            .chars()
            .map(latin1)
            .collect(),
        5 => noise(lines * 977, number as u64),
        _ => Vec::new(),
    }
}

/// X12: one order with so many lines, and what ends a segment.
pub(crate) fn x12(number: usize, lines: usize, end: &str) -> String {
    let mut text = format!(
        "ISA*00*          *00*          *ZZ*SENDER         *ZZ*RECEIVER       \
         *261121*0810*U*00401*{number:09}*0*P*>{end}ST*850*0001{end}"
    );
    for line in 0..lines {
        write!(text, "PO1*{line}*{number}*EA*9.95**VP*ITEM{line:06}{end}").unwrap();
    }
    text + &format!("SE*{}*0001{end}IEA*1*{number:09}{end}", lines + 2)
}

/// EDIFACT: one order with so many lines.
pub(crate) fn edifact(number: usize, lines: usize) -> String {
    let mut text = format!("UNA:+.? 'UNB+UNOC:3+S+R+261121:0810+{number}'UNH+1+ORDERS:D:96A:UN'");
    for line in 0..lines {
        write!(text, "LIN+{line}++ITEM{line}:IN'QTY+21:{number}'").unwrap();
    }
    text + &format!("UNT+{}+1'UNZ+1+{number}'", lines * 2 + 2)
}

/// ISO 8859-1, which is not UTF-8.
fn latin1(c: char) -> u8 {
    u8::try_from(u32::from(c)).unwrap_or(b'?')
}
