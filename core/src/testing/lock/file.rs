//! The text of the file: sorted, one fact a line, so that two branches merge and a reviewer sees
//! what is new.
//!
//! ```text
//! event account.deposited v1
//!     category account
//!     fields { cents: i64 }
//!     inside .cents takes -9223372036854775808..9223372036854775807
//!     sample json {"cents":5}
//!     tag owner:ada
//!     sum 0f6a2b1c9d3e4f50
//!
//! event account.paid v1
//!     category account
//!     fields { amount: u8 }
//!     sample json {"amount":5}
//!     becomes account.deposited v1 json {"cents":500}
//!
//! fold account v1
//!     over account.deposited v1 json {"cents":5}
//!     state
//!         | Account {
//!         |     cents: 5,
//!         | }
//! ```

use std::collections::BTreeMap;
use std::fmt;

use super::probe::{Facts, Kind};
use crate::testing::text::hex;

const HEADER: &str = "\
# What is stored, pinned. A test compares it with the program; `ANNALS_UPDATE=1 cargo test` adds \
what is new.
# What is in here may be stored somewhere, and stays: a changed shape or fold gets a new version.
";

/// The content of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lock {
    /// By type and version.
    pub(super) events: BTreeMap<(String, u32), Shape>,
    /// By name.
    pub(super) folds: BTreeMap<String, Fold>,
}

/// A stored shape, as it was when events were written in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shape {
    /// Of the streams that it is in; empty in files of before it was pinned.
    pub(super) category: String,
    /// The first ones, and those that it has grown to since.
    pub(super) fields: Vec<String>,
    /// What is known of nested types.
    pub(super) inside: Facts,
    pub(super) samples: Vec<Sample>,
    /// By the index of a sample: what upcasters made of it.
    pub(super) becomes: BTreeMap<usize, Vec<Sample>>,
}

/// A stored event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) event_type: String,
    pub(super) schema_version: u32,
    pub(super) codec: String,
    pub(super) payload: Vec<u8>,
    pub(super) tags: Vec<String>,
}

/// A fold, the stored events it went over, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fold {
    pub(super) version: u32,
    pub(super) over: Vec<Sample>,
    pub(super) state: String,
}

impl Shape {
    /// The fields as they are now; nothing where there are none.
    pub(super) fn fields(&self) -> &str {
        self.fields.last().map_or("", String::as_str)
    }

    /// With other fields now.
    pub(super) fn grow(&mut self, fields: &str) {
        if !fields.is_empty() {
            self.fields.push(fields.to_owned());
        }
    }
}

impl Sample {
    pub(super) fn key(&self) -> (String, u32) {
        (self.event_type.clone(), self.schema_version)
    }

    /// Without what folds do not see.
    pub(super) fn untagged(&self) -> Sample {
        Sample {
            tags: Vec::new(),
            ..self.clone()
        }
    }

    /// As it is in the file and in messages.
    pub(super) fn content(&self) -> String {
        let text = std::str::from_utf8(&self.payload).ok().filter(|text| {
            // Editors take spaces from the end of lines, and the parser from their beginning.
            let is_whole =
                !text.is_empty() && text.trim() == *text && !text.chars().any(char::is_control);
            is_whole && !text.starts_with("hex:")
        });
        let bytes = || format!("hex:{}", hex(&self.payload));
        text.map_or_else(bytes, str::to_owned)
    }
}

impl Sample {
    /// `account.opened v1 json {…}`.
    pub(super) fn named_content(&self) -> String {
        format!(
            "{} v{} {} {}",
            self.event_type,
            self.schema_version,
            self.codec,
            self.content()
        )
    }
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HEADER)?;
        for (key, shape) in &self.events {
            let entry = shape.entry(key);
            write!(f, "\n{entry}    sum {}\n", sum(&entry))?;
        }
        for (name, fold) in &self.folds {
            let entry = fold.entry(name);
            write!(f, "\n{entry}    sum {}\n", sum(&entry))?;
        }
        Ok(())
    }
}

impl Shape {
    fn entry(&self, (event_type, version): &(String, u32)) -> String {
        let mut text = format!("event {event_type} v{version}\n");
        let mut line = |words: String| text += &format!("    {}\n", words.trim_end());
        if !self.category.is_empty() {
            line(format!("category {}", self.category));
        }
        for fields in &self.fields {
            line(format!("fields {fields}"));
        }
        for ((path, kind), fact) in &self.inside {
            line(format!("inside {path} {} {fact}", kind.word()));
        }
        for (index, sample) in self.samples.iter().enumerate() {
            line(format!("sample {} {}", sample.codec, sample.content()));
            for tag in &sample.tags {
                line(format!("tag {tag}"));
            }
            let Some(becomes) = self.becomes.get(&index) else {
                continue;
            };
            if becomes.is_empty() {
                line("becomes nothing".to_owned());
            }
            for event in becomes {
                line(format!("becomes {}", event.named_content()));
            }
        }
        text
    }
}

impl Fold {
    fn entry(&self, name: &str) -> String {
        let mut text = format!("fold {name} v{}\n", self.version);
        for event in &self.over {
            text += &format!("    over {}\n", event.named_content());
        }
        text += "    state\n";
        for line in self.state.lines() {
            text += &format!("{}\n", format!("        | {line}").trim_end());
        }
        text
    }
}

/// Shows that an entry is as it was written: of two that were merged into one it is of neither.
fn sum(entry: &str) -> String {
    let hash = entry.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// The entry that the lines of a file are about.
enum Entry {
    None,
    Event((String, u32)),
    Fold(String),
}

impl Lock {
    /// Reads the file, and names the entries that are not as they were written.
    pub(super) fn parse(text: &str) -> Result<(Lock, Vec<String>), String> {
        let mut lock = Lock::default();
        let mut entry = Entry::None;
        let mut sums = Vec::new();
        // Some editors put a byte order mark first.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (at, line) in text.lines().enumerate() {
            let wrong = |why: &str| format!("Line {} is `{}`: {why}", at + 1, line.trim());
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            match (line.trim().strip_prefix("sum "), &entry) {
                (Some(sum), Entry::Event(key)) => sums.push((Ok(key.clone()), sum.to_owned())),
                (Some(sum), Entry::Fold(name)) => sums.push((Err(name.clone()), sum.to_owned())),
                _ => lock.take(line.trim(), &mut entry).map_err(wrong)?,
            }
        }
        let merged = sums
            .into_iter()
            .filter_map(|(of, written)| {
                let entry = match &of {
                    Ok(key) => lock.events.get(key)?.entry(key),
                    Err(name) => lock.folds.get(name)?.entry(name),
                };
                (sum(&entry) != written)
                    .then(|| entry.lines().next().unwrap_or_default().to_owned())
            })
            .collect();
        Ok((lock, merged))
    }

    fn take(&mut self, line: &str, entry: &mut Entry) -> Result<(), &'static str> {
        const TWICE: &str = "it is in the file twice. When two branches each made this version, \
            one of them becomes the version after it.";
        const NOT_A_LINE: &str = "this is no line of such a file. Was a merge left unfinished?";
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match (word, &mut *entry) {
            ("event", _) => {
                let key = versioned(rest).ok_or(NOT_A_LINE)?;
                if self.events.insert(key.clone(), Shape::default()).is_some() {
                    return Err(TWICE);
                }
                *entry = Entry::Event(key);
            }
            ("fold", _) => {
                let (name, version) = versioned(rest).ok_or(NOT_A_LINE)?;
                if self
                    .folds
                    .insert(
                        name.clone(),
                        Fold {
                            version,
                            ..Fold::default()
                        },
                    )
                    .is_some()
                {
                    return Err(TWICE);
                }
                *entry = Entry::Fold(name);
            }
            (_, Entry::Event(key)) => {
                let shape = self.events.entry(key.clone()).or_default();
                match word {
                    "category" => rest.clone_into(&mut shape.category),
                    "fields" => shape.fields.push(rest.to_owned()),
                    "inside" => {
                        let (path, rest) = rest.split_once(' ').ok_or(NOT_A_LINE)?;
                        let (kind, fact) = rest.split_once(' ').ok_or(NOT_A_LINE)?;
                        let kind = Kind::of_word(kind).ok_or(NOT_A_LINE)?;
                        shape
                            .inside
                            .insert((path.to_owned(), kind), fact.to_owned());
                    }
                    "becomes" => {
                        let index = shape.samples.len().checked_sub(1).ok_or(NOT_A_LINE)?;
                        let becomes = shape.becomes.entry(index).or_default();
                        if rest != "nothing" {
                            becomes.push(named_sample(rest).ok_or(NOT_A_LINE)?);
                        }
                    }
                    "sample" => shape
                        .samples
                        .push(sample(key.clone(), rest).ok_or(NOT_A_LINE)?),
                    "tag" => shape
                        .samples
                        .last_mut()
                        .ok_or(NOT_A_LINE)?
                        .tags
                        .push(rest.to_owned()),
                    _ => return Err(NOT_A_LINE),
                }
            }
            (_, Entry::Fold(name)) => {
                let fold = self.folds.entry(name.clone()).or_default();
                match word {
                    "over" => fold.over.push(named_sample(rest).ok_or(NOT_A_LINE)?),
                    "state" => {}
                    "|" => {
                        if !fold.state.is_empty() {
                            fold.state.push('\n');
                        }
                        fold.state.push_str(rest);
                    }
                    _ => return Err(NOT_A_LINE),
                }
            }
            (_, Entry::None) => return Err(NOT_A_LINE),
        }
        Ok(())
    }
}

/// `account.opened v1`.
fn versioned(text: &str) -> Option<(String, u32)> {
    let (name, version) = text.trim().rsplit_once(" v")?;
    Some((name.to_owned(), version.parse().ok()?))
}

/// `account.opened v1 json {"owner":"ada"}`.
fn named_sample(text: &str) -> Option<Sample> {
    let (event_type, rest) = text.split_once(' ')?;
    let (version, rest) = rest.split_once(' ')?;
    sample(versioned(&format!("{event_type} {version}"))?, rest)
}

/// `json {"cents":5}`.
fn sample((event_type, schema_version): (String, u32), text: &str) -> Option<Sample> {
    let (codec, content) = text.split_once(' ')?;
    let payload = match content.strip_prefix("hex:") {
        None => content.as_bytes().to_vec(),
        Some(hex) => {
            let digits = hex.as_bytes().chunks(2).map(|byte| {
                std::str::from_utf8(byte)
                    .ok()
                    .filter(|byte| byte.len() == 2)
            });
            digits
                .map(|byte| u8::from_str_radix(byte?, 16).ok())
                .collect::<Option<_>>()?
        }
    };
    Some(Sample {
        event_type,
        schema_version,
        codec: codec.to_owned(),
        payload,
        tags: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock() -> Lock {
        let sample = |event_type: &str, payload: &[u8], tags: &[&str]| Sample {
            event_type: event_type.into(),
            schema_version: 1,
            codec: "json".into(),
            payload: payload.into(),
            tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
        };
        let mut lock = Lock::default();
        let odd = [&b"\xff\x00"[..], b"", b" x ", b"a\nb", b"hex:00"];
        let samples = vec![
            sample("a.b", b"{\"c\": 5}", &["k:v w", "l:m"]),
            sample("a.b", b"null", &[]),
        ];
        let shape = Shape {
            category: "a".into(),
            fields: vec!["{ c: u8 }".into()],
            inside: Facts::from([((".c".into(), Kind::Takes), "0..255".into())]),
            becomes: BTreeMap::from([(0, Vec::new()), (1, samples.clone())])
                .into_iter()
                .map(|(index, events): (usize, Vec<Sample>)| {
                    (index, events.iter().map(Sample::untagged).collect())
                })
                .collect(),
            samples,
        };
        lock.events.insert(("a.b".into(), 1), shape);
        let samples: Vec<_> = odd
            .iter()
            .map(|payload| sample("a.odd", payload, &[]))
            .collect();
        let over = samples.clone();
        lock.events.insert(
            ("a.odd".into(), 1),
            Shape {
                samples,
                ..Shape::default()
            },
        );
        let state = "State {\n    a: 1,\n\n    | b\n}".to_owned();
        lock.folds.insert(
            "of a".into(),
            Fold {
                version: 3,
                over,
                state,
            },
        );
        lock
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let text = lock().to_string();
        let as_written = (lock(), Vec::new());
        assert_eq!(Lock::parse(&text).unwrap(), as_written, "{text}");
        for other in [
            text.replace('\n', "\r\n"),
            text.replace('\n', " \t\n"),
            format!("\u{feff}{text}"),
        ] {
            assert_eq!(Lock::parse(&other).unwrap(), as_written);
        }
        let edited = text.replacen("json null", "json 1", 1);
        assert_eq!(Lock::parse(&edited).unwrap().1, ["event a.b v1"]);
    }

    #[test]
    fn the_text_is_stable_and_readable() {
        insta::assert_snapshot!(lock());
    }

    #[test]
    fn what_is_no_such_file_is_named_by_its_line() {
        let error = Lock::parse("# x\n\nevent a v1\n<<<<<<< ours\n").unwrap_err();
        assert_eq!(
            error,
            "Line 4 is `<<<<<<< ours`: this is no line of such a file. Was a merge left unfinished?"
        );
        let error = Lock::parse("event a v1\nevent a v1\n").unwrap_err();
        assert!(
            error.starts_with("Line 2 is `event a v1`: it is in the file twice."),
            "{error}"
        );
        for text in [
            "x",
            "event a",
            "event a vx",
            "event a v1\nsample",
            "event a v1\nsample json hex:0",
            "fold a v1\nover a v1 json",
        ] {
            assert!(Lock::parse(text).is_err(), "{text}");
        }
    }
}
