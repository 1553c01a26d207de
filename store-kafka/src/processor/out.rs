//! What a processor makes of a record, before it is sent.

use std::borrow::Cow;

use annals_core::{DeadLetter, Invalid};
use bytes::Bytes;
use serde::Serialize;

use crate::topic::{NewRecord, Record};

/// Headers of dead letters begin with this.
pub(crate) const ERROR: &str = "annals.error.";

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

/// The dead letter of a record: its bytes and headers unchanged, and why it is one.
pub(crate) fn dead_letter(
    topic: &str,
    source: &str,
    processor: &str,
    record: &Record<'_>,
    failed: &Failed,
    attempts: u32,
) -> NewRecord {
    let mut letter = NewRecord::to(topic);
    letter.key = record.key().map(Bytes::copy_from_slice);
    letter.value = record.value().map(Bytes::copy_from_slice);
    let kept = record
        .headers
        .iter()
        .filter(|(name, _)| !name.starts_with(ERROR));
    letter.headers = kept
        .map(|(name, value)| (Cow::Owned(name.clone()), value.clone()))
        .collect();
    let mut say = |name: &str, value: String| {
        let name = Cow::Owned(format!("{ERROR}{name}"));
        letter.headers.push((name, Some(Bytes::from(value))));
    };
    say("topic", source.to_owned());
    say("partition", record.partition().to_string());
    say("offset", record.offset().to_string());
    say("time", record.time_ms().to_string());
    say("kind", failed.kind.name().to_owned());
    say("cause", DeadLetter::recorded(failed.cause.clone()));
    say("attempts", attempts.to_string());
    say("processor", processor.to_owned());
    letter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_keeps_the_record_and_says_why() {
        let headers = [
            ("trace".to_owned(), Some(Bytes::from_static(b"7"))),
            (format!("{ERROR}kind"), Some(Bytes::from_static(b"old"))),
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
        let letter = dead_letter("dead", "in", "p", &record, &failed, 3);
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
    }
}
