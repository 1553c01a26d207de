//! How values, stored events, times and errors are written in stories and timelines.

use std::fmt::{self, Debug, Display, Write};

use chrono::{DateTime, SecondsFormat, Utc};

use crate::typed::Stored;

/// Where the text of a line begins, after `given`, `refused` and the like.
const LABEL_WIDTH: usize = 9;
/// A value whose `{:?}` is longer is laid out over several lines.
const LINE_CHARS_MAX: usize = 120;

/// Labelled lines in blocks.
#[derive(Clone, Debug, Default)]
pub(super) struct Script {
    text: String,
}

impl Script {
    /// The next line begins a new block.
    pub(super) fn begin(&mut self) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
    }

    /// A line after its label, or several after it.
    pub(super) fn say(&mut self, label: &str, what: &str) {
        for (index, line) in what.lines().enumerate() {
            let label = if index == 0 { label } else { "" };
            let line = format!("{label:LABEL_WIDTH$}{}", visible(line));
            self.text.push_str(line.trim_end());
            self.text.push('\n');
        }
        if what.is_empty() {
            self.text.push_str(label);
            self.text.push('\n');
        }
    }

    /// An event after its number.
    pub(super) fn say_event(&mut self, label: &str, number: u64, what: &str) {
        self.say(
            label,
            &format!("{number:2}  {}", what.replace('\n', "\n    ")),
        );
    }
}

impl Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text.trim_end())
    }
}

/// Events one on a line, as an assertion names them.
pub(super) fn listed<E: Debug>(events: &[E]) -> String {
    if events.is_empty() {
        return "  nothing\n".to_owned();
    }
    events
        .iter()
        .map(|event| format!("  {event:?}\n"))
        .collect()
}

/// Characters that a terminal or a reviewer's screen would act on instead of showing, as Rust
/// writes them: controls, and what turns the direction of writing.
fn visible(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    for letter in line.chars() {
        let turns = matches!(
            letter,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
                | '\u{feff}'
        );
        if turns {
            let _ = write!(text, "\\u{{{:x}}}", u32::from(letter));
        } else if letter.is_control() {
            text.extend(letter.escape_debug());
        } else {
            text.push(letter);
        }
    }
    text
}

/// A value on one line where it fits.
pub(super) fn shown(value: &impl Debug) -> String {
    let line = format!("{value:?}");
    if line.chars().count() > LINE_CHARS_MAX {
        format!("{value:#?}")
    } else {
        line
    }
}

/// A stored event: its type, the version of its shape where it is not the first, and its content.
pub(super) fn stored(stored: Stored<'_>) -> String {
    let mut text = stored.event_type.to_owned();
    if stored.schema_version != 1 {
        let _ = write!(text, " v{}", stored.schema_version);
    }
    let _ = match std::str::from_utf8(stored.payload) {
        Ok(payload) if !payload.contains(char::is_control) => write!(text, " {payload}"),
        _ => write!(text, " {} 0x{}", stored.codec, hex(stored.payload)),
    };
    text
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A time as RFC 3339, with as many digits of the second as it needs.
pub(super) fn time(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}
