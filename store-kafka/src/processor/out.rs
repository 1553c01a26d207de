//! What a processor makes of a record, before it is sent.

use std::borrow::Cow;

use annals_core::{DeadLetter, Invalid};
use bytes::Bytes;
use serde::Serialize;

use crate::topic::{NewRecord, Record};

/// Headers that say why a record is a dead letter begin with this.
pub(crate) const ERROR: &str = "annals.error.";

/// Where the record came from: the first of these headers.
pub(crate) const TOPIC: &str = "topic";

/// How many bytes of the record are not in its letter, because its topic would not take them.
pub(crate) const OMITTED: &str = "omitted_bytes";

/// What a record takes beside its content, and each of its headers.
const RECORD_OVERHEAD: usize = 256;
const HEADER_OVERHEAD: usize = 10;

/// The most that a record takes in a batch of its own, not compressed.
pub(crate) fn size(record: &NewRecord) -> usize {
    let bytes = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    let headers = record.headers.iter();
    let headers = headers.map(|(name, value)| name.len() + bytes(value) + HEADER_OVERHEAD);
    bytes(&record.key) + bytes(&record.value) + headers.sum::<usize>() + RECORD_OVERHEAD
}

/// How often a dead letter was sent back to where it came from.
pub(crate) const REPLAYED: &str = "annals.replayed";

/// Takes what a function makes of a record. Nothing of it is sent when the function fails.
#[derive(Debug, Default)]
pub struct Out {
    pub(crate) records: Vec<NewRecord>,
}

impl Out {
    /// Sends a value as JSON under a key.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when the value has no JSON form.
    pub fn send<T: Serialize>(
        &mut self,
        topic: &str,
        key: impl AsRef<[u8]>,
        value: &T,
    ) -> Result<(), Invalid> {
        let record = NewRecord::to(topic).key(key.as_ref()).json(value)?;
        self.records.push(record);
        Ok(())
    }

    /// Sends a record.
    pub fn record(&mut self, record: NewRecord) {
        self.records.push(record);
    }
}

/// Why a record was not processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Undecodable,
    Refused,
    TooLarge,
    Panicked,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Undecodable => "undecodable",
            Kind::Refused => "refused",
            Kind::TooLarge => "too_large",
            Kind::Panicked => "panicked",
        }
    }
}

/// The failure of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) kind: Kind,
    pub(crate) cause: String,
}

impl Failed {
    pub(crate) fn of(kind: Kind, cause: String) -> Failed {
        Failed { kind, cause }
    }
}

/// The dead letter of a record: its bytes and headers unchanged, and why it is one. What makes it
/// larger than its topic takes is omitted: the value, then its headers, then its key.
pub(crate) fn dead_letter(
    (topic, largest): (&str, usize),
    source: &str,
    processor: &str,
    record: &Record<'_>,
    failed: &Failed,
    attempts: u32,
) -> NewRecord {
    let mut letter = NewRecord::to(topic);
    letter.key = record.key().map(Bytes::copy_from_slice);
    letter.value = record.value().map(Bytes::copy_from_slice);
    let headers = record.headers.iter();
    letter.headers = headers
        .map(|(name, value)| (Cow::Owned(name.clone()), value.clone()))
        .collect();
    let mut said = Vec::new();
    let mut say = |name: &str, value: String| {
        let name = Cow::Owned(format!("{ERROR}{name}"));
        said.push((name, Some(Bytes::from(value))));
    };
    say(TOPIC, source.to_owned());
    say("partition", record.partition().to_string());
    say("offset", record.offset().to_string());
    say("time", record.time_ms().to_string());
    say("kind", failed.kind.name().to_owned());
    say("cause", DeadLetter::recorded(failed.cause.clone()));
    say("attempts", attempts.to_string());
    say("processor", processor.to_owned());
    let whole = size(&letter);
    let reserved = NewRecord {
        value: None,
        headers: said.clone(),
        ..NewRecord::to(topic)
    };
    let reserved = size(&reserved);
    if whole + reserved > largest {
        letter.value = None;
        if size(&letter) + reserved > largest {
            letter.headers.clear();
        }
        if size(&letter) + reserved > largest {
            letter.key = None;
        }
        let omitted = Bytes::from((whole - size(&letter)).to_string());
        said.push((Cow::Owned(format!("{ERROR}{OMITTED}")), Some(omitted)));
    }
    letter.headers.extend(said);
    letter
}

/// A letter with the headers that its record had before, and with those that say why it is one. It
/// may be a letter of a letter, so what the last letter says counts.
pub(crate) fn said_of<'a>(letter: &Record<'a>) -> Option<(Record<'a>, Record<'a>)> {
    let mut headers = letter.headers.iter();
    let begins = headers.rposition(|(name, _)| name.strip_prefix(ERROR) == Some(TOPIC))?;
    let (before, said) = letter.headers.split_at(begins);
    let with = |headers| Record { headers, ..*letter };
    Some((with(before), with(said)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_keeps_the_record_and_says_why() {
        let headers = [
            ("trace".to_owned(), Some(Bytes::from_static(b"7"))),
            (format!("{ERROR}kind"), Some(Bytes::from_static(b"old"))),
            (format!("{ERROR}mine"), Some(Bytes::from_static(b"8"))),
        ];
        let record = Record {
            partition: 3,
            offset: 41,
            time_ms: 5,
            key: Some(b"\xff"),
            value: None,
            headers: &headers,
        };
        let failed = Failed::of(Kind::Refused, "no".to_owned());
        let letter = dead_letter(("dead", 1_000), "in", "p", &record, &failed, 3);
        assert_eq!(
            (letter.key.as_deref(), letter.value),
            (Some(&b"\xff"[..]), None)
        );
        let said: Vec<String> = letter
            .headers
            .iter()
            .map(|(name, value)| {
                let value = value.as_deref().unwrap_or_default();
                format!("{name}={}", String::from_utf8_lossy(value))
            })
            .collect();
        assert_eq!(
            said,
            [
                "trace=7",
                "annals.error.kind=old",
                "annals.error.mine=8",
                "annals.error.topic=in",
                "annals.error.partition=3",
                "annals.error.offset=41",
                "annals.error.time=5",
                "annals.error.kind=refused",
                "annals.error.cause=no",
                "annals.error.attempts=3",
                "annals.error.processor=p"
            ]
        );
        let of_letter = letter.headers.into_iter();
        let of_letter: Vec<_> = of_letter
            .map(|(name, value)| (name.into_owned(), value))
            .collect();
        let record = Record {
            headers: &of_letter,
            ..record
        };
        let (before, said) = said_of(&record).unwrap();
        assert_eq!(before.headers, headers);
        assert_eq!(said.header("annals.error.kind"), Some(&b"refused"[..]));
        assert_eq!(said.header("annals.error.mine"), None);
    }

    #[test]
    fn what_a_letter_of_a_letter_says_is_its_own() {
        let value = vec![b'v'; 2_000];
        let record = Record {
            partition: 0,
            offset: 7,
            time_ms: 5,
            key: None,
            value: Some(&value),
            headers: &[],
        };
        let failed = Failed::of(Kind::Refused, "no".to_owned());
        let owned = |letter: NewRecord| -> Vec<_> {
            let headers = letter.headers.into_iter();
            headers
                .map(|(name, value)| (name.into_owned(), value))
                .collect()
        };
        let inner = owned(dead_letter(("dead", 1_500), "in", "p", &record, &failed, 1));
        let of_inner = Record {
            value: None,
            headers: &inner,
            ..record
        };
        let (_, said) = said_of(&of_inner).unwrap();
        assert!(said.header("annals.error.omitted_bytes").is_some());
        let outer = dead_letter(("deader", 9_000), "dead", "q", &of_inner, &failed, 1);
        let outer = owned(outer);
        let of_outer = Record {
            headers: &outer,
            ..of_inner
        };
        let (before, said) = said_of(&of_outer).unwrap();
        assert_eq!(before.headers, inner);
        assert_eq!(said.header("annals.error.omitted_bytes"), None);
        assert_eq!(said.header("annals.error.topic"), Some(&b"dead"[..]));
    }

    #[test]
    fn a_letter_omits_what_its_topic_would_refuse() {
        let failed = Failed::of(Kind::Undecodable, "é".repeat(9_000));
        let letter = |key: usize, value: usize, header: usize| {
            let (key, value) = (vec![b'k'; key], vec![b'v'; value]);
            let headers = [("mine".to_owned(), Some(Bytes::from(vec![b'h'; header])))];
            let record = Record {
                partition: 0,
                offset: 7,
                time_ms: 5,
                key: Some(&key),
                value: Some(&value),
                headers: &headers,
            };
            let letter = dead_letter(("dead", 10_000), "in", "p", &record, &failed, 1);
            assert!(size(&letter) <= 10_000);
            let omitted = letter
                .headers
                .iter()
                .find(|(name, _)| name.ends_with(OMITTED));
            let omitted = omitted.and_then(|(_, value)| value.clone());
            let has_mine = letter.headers.iter().any(|(name, _)| name == "mine");
            let omitted = omitted.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
            (
                letter.key.is_some(),
                letter.value.is_some(),
                has_mine,
                omitted,
            )
        };
        let said = |bytes: &str| Some(bytes.to_owned());
        assert_eq!(letter(9, 100, 9), (true, true, true, None));
        assert_eq!(letter(9, 9_000, 9), (true, false, true, said("9000")));
        assert_eq!(letter(9, 9_000, 9_000), (true, false, false, said("18014")));
        assert_eq!(
            letter(9_000, 1, 9_000),
            (false, false, false, said("18015"))
        );
    }
}
