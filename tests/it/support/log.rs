//! Reads the program's log lines back: text and JSON.

use std::fmt;

/// One line.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) time: String,
    /// `ERROR`, `WARN`, `INFO` or `DEBUG`, whatever the format's own case.
    pub(crate) level: String,
    /// In the order of the line.
    pub(crate) fields: Vec<(String, String)>,
}

impl Event {
    /// `None` where the line is not of the shape `time LEVEL key=value key="value" …`.
    pub(crate) fn parse_text(line: &str) -> Option<Self> {
        let (time, rest) = line.split_once(' ')?;
        let (level, mut rest) = rest.split_once(' ')?;
        let mut fields = Vec::new();
        while !rest.is_empty() {
            let (key, after) = rest.split_once('=')?;
            let (value, after) = if let Some(quoted) = after.strip_prefix('"') {
                unquote(quoted)?
            } else {
                let end = after.find(' ').unwrap_or(after.len());
                let (value, after) = after.split_at(end);
                let bare = !value.contains(['"', '=']) && !value.contains(char::is_control);
                (bare.then(|| value.to_owned())?, after)
            };
            fields.push((key.to_owned(), value));
            rest = if after.is_empty() {
                after
            } else {
                after.strip_prefix(' ')?
            };
        }
        Self {
            time: time.to_owned(),
            level: level.to_owned(),
            fields,
        }
        .checked()
    }

    /// `None` where the line is no JSON object with `ts` and `level` in front.
    pub(crate) fn parse_json(line: &str) -> Option<Self> {
        let serde_json::Value::Object(object) = serde_json::from_str(line).ok()? else {
            return None;
        };
        // serde_json's map does not keep the order, so the order is looked at in the text.
        (line.starts_with(r#"{"ts":""#) && line.find(r#""level":"#) < line.find(r#""event":"#))
            .then_some(())?;
        let text = |value: &serde_json::Value| match value {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let (mut time, mut level, mut fields) = (String::new(), String::new(), Vec::new());
        for (key, value) in &object {
            match key.as_str() {
                "ts" => time = text(value),
                "level" => level = text(value).to_uppercase(),
                _ => fields.push((key.clone(), text(value))),
            }
        }
        Self {
            time,
            level,
            fields,
        }
        .checked()
    }

    fn checked(self) -> Option<Self> {
        let timestamp = self.time.parse::<jiff::Timestamp>().is_ok() && self.time.len() == 24;
        let level = ["ERROR", "WARN", "INFO", "DEBUG"].contains(&self.level.as_str());
        let keys = self.fields.iter().all(|(key, _)| {
            !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        });
        (timestamp && level && keys).then_some(self)
    }

    /// A field's value, empty where it is not there.
    pub(crate) fn get(&self, key: &str) -> &str {
        let found = self.fields.iter().find(|(name, _)| name == key);
        found.map_or("", |(_, value)| value)
    }

    /// A field that must be a number.
    pub(crate) fn number(&self, key: &str) -> u64 {
        let value = self.get(key);
        value
            .parse()
            .unwrap_or_else(|_| panic!("{key}={value:?} is no number: {self:?}"))
    }

    pub(crate) fn keys(&self) -> Vec<&str> {
        self.fields.iter().map(|(key, _)| key.as_str()).collect()
    }

    /// What kind of line it is: the field `event`.
    pub(crate) fn event(&self) -> &str {
        self.get("event")
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.time, self.level)?;
        self.fields
            .iter()
            .try_for_each(|(key, value)| write!(f, " {key}={value:?}"))
    }
}

/// Reads up to the closing quote; gives the value and what follows.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                '0' => value.push('\0'),
                'u' => {
                    chars.next().filter(|(_, c)| *c == '{')?;
                    let digits = chars.by_ref().map(|(_, c)| c).take_while(|c| *c != '}');
                    let code = u32::from_str_radix(&digits.collect::<String>(), 16);
                    value.push(char::from_u32(code.ok()?)?);
                }
                same @ ('"' | '\\') => value.push(same),
                _ => return None,
            },
            c if c.is_control() => return None,
            c => value.push(c),
        }
    }
    None
}

#[test]
fn a_text_line_is_read_back() {
    let line = r#"2026-11-21T08:10:04.123Z INFO event=moved src="s3://edi/a b\n\u{1}\"" ms=12"#;
    let event = Event::parse_text(line).expect("it parses");
    assert_eq!(event.event(), "moved");
    assert_eq!(event.get("src"), "s3://edi/a b\n\u{1}\"");
    assert_eq!(event.number("ms"), 12);
}

#[test]
fn a_line_that_is_not_of_the_shape_is_refused() {
    let good = "2026-11-21T08:10:04.123Z INFO event=moved";
    assert!(Event::parse_text(good).is_some());
    for bad in [
        "thread 'main' panicked at src/main.rs:1:1",
        "2026-11-21T08:10:04.123Z INFO event=moved src=a b",
        "2026-11-21T08:10:04.123Z INFO event=moved src=\"a",
        "2026-11-21T08:10:04.123Z LOUD event=moved",
        "2026-11-21T08:10:04Z INFO event=moved",
    ] {
        assert!(Event::parse_text(bad).is_none(), "{bad}");
    }
}

#[test]
fn a_json_line_is_read_back() {
    let line = r#"{"ts":"2026-11-21T08:10:04.123Z","level":"info","event":"moved","ms":12}"#;
    let event = Event::parse_json(line).expect("it parses");
    assert_eq!(
        (event.event(), event.number("ms"), event.level.as_str()),
        ("moved", 12, "INFO")
    );
}
