//! The text of the file: sorted, one fact a line, so that two branches merge and a reviewer sees
//! what is new.
//!
//! ```text
//! event account.deposited v1
//!     fields { cents: i64 }
//!     sample json {"cents":5}
//!     tag owner:ada
//!
//! fold account v1
//!     over account.deposited v1 json {"cents":5}
//!     state
//!         | Account {
//!         |     cents: 5,
//!         | }
//! ```

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

const HEADER: &str = "\
# What is stored, pinned. A test compares it with the program; `ANNALS_UPDATE=1 cargo test` adds \
what is new.
# What stands here may be stored somewhere, and stays: a changed shape or fold gets a new version.
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
    /// The first ones, and those that it has grown to since.
    pub(super) fields: Vec<String>,
    pub(super) samples: Vec<Sample>,
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

    /// As it stands in the file, and is shown to people.
    pub(super) fn content(&self) -> String {
        let text = std::str::from_utf8(&self.payload).ok().filter(|text| {
            // Editors take spaces from the end of lines, and the parser from their beginning.
            let is_whole =
                !text.is_empty() && text.trim() == *text && !text.chars().any(char::is_control);
            is_whole && !text.starts_with("hex:")
        });
        let bytes = || {
            self.payload
                .iter()
                .fold("hex:".to_owned(), |mut hex, byte| {
                    let _ = write!(hex, "{byte:02x}");
                    hex
                })
        };
        text.map_or_else(bytes, str::to_owned)
    }
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HEADER)?;
        for ((event_type, version), shape) in &self.events {
            writeln!(f, "\nevent {event_type} v{version}")?;
            shape
                .fields
                .iter()
                .try_for_each(|fields| writeln!(f, "    fields {fields}"))?;
            for sample in &shape.samples {
                writeln!(f, "    sample {} {}", sample.codec, sample.content())?;
                sample
                    .tags
                    .iter()
                    .try_for_each(|tag| writeln!(f, "    tag {tag}"))?;
            }
        }
        for (name, fold) in &self.folds {
            writeln!(f, "\nfold {name} v{}", fold.version)?;
            for event in &fold.over {
                writeln!(
                    f,
                    "    over {} v{} {} {}",
                    event.event_type,
                    event.schema_version,
                    event.codec,
                    event.content()
                )?;
            }
            writeln!(f, "    state")?;
            fold.state
                .lines()
                .try_for_each(|line| writeln!(f, "{}", format!("        | {line}").trim_end()))?;
        }
        Ok(())
    }
}

/// The entry that the lines of a file are about.
enum Entry {
    None,
    Event((String, u32)),
    Fold(String),
}

impl Lock {
    pub(super) fn parse(text: &str) -> Result<Lock, String> {
        let mut lock = Lock::default();
        let mut entry = Entry::None;
        for (at, line) in text.lines().enumerate() {
            let wrong = |why: &str| format!("Line {} is `{}`: {why}", at + 1, line.trim());
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            lock.take(line.trim(), &mut entry).map_err(wrong)?;
        }
        Ok(lock)
    }

    fn take(&mut self, line: &str, entry: &mut Entry) -> Result<(), &'static str> {
        const TWICE: &str = "it stands there twice. When two branches each made this version, one \
            of them becomes the version after it.";
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
                    "fields" => shape.fields.push(rest.to_owned()),
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
                    "over" => {
                        let (event_type, rest) = rest.split_once(' ').ok_or(NOT_A_LINE)?;
                        let (version, rest) = rest.split_once(' ').ok_or(NOT_A_LINE)?;
                        let key =
                            versioned(&format!("{event_type} {version}")).ok_or(NOT_A_LINE)?;
                        fold.over.push(sample(key, rest).ok_or(NOT_A_LINE)?);
                    }
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
            fields: vec!["{ c: u8 }".into()],
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
                fields: vec![],
                samples,
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
        assert_eq!(Lock::parse(&text).unwrap(), lock(), "{text}");
        assert_eq!(Lock::parse(&text.replace('\n', "\r\n")).unwrap(), lock());
    }

    #[test]
    fn the_text_is_stable_and_readable() {
        insta::assert_snapshot!(lock());
    }

    #[test]
    fn what_is_no_such_file_is_told_by_its_line() {
        let error = Lock::parse("# x\n\nevent a v1\n<<<<<<< ours\n").unwrap_err();
        assert_eq!(
            error,
            "Line 4 is `<<<<<<< ours`: this is no line of such a file. Was a merge left unfinished?"
        );
        let error = Lock::parse("event a v1\nevent a v1\n").unwrap_err();
        assert!(
            error.starts_with("Line 2 is `event a v1`: it stands there twice."),
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
