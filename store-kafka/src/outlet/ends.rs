//! What an outlet sent last to each topic: a topic that was deleted and recreated, or that has lost
//! its end, does not hold it.
//!
//! The client says nothing of a topic's own id. So the last record tells: its partition and offset,
//! and a digest of it. It is written beside the mark of the next batch, where it costs no wait, and
//! beside that of the first one.

use std::ops::ControlFlow;
use std::sync::Arc;

use annals_core::{Outgoing, StoreError};
use rdkafka::Message as _;
use rdkafka::topic_partition_list::Offset;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::last;
use crate::client::{Config, TopicScan};
use crate::error::is_unknown_topic;

/// The last record that an outlet sent to a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LastSent {
    pub(super) topic: String,
    pub(super) partition: u32,
    pub(super) offset: i64,
    /// Of its key, value and headers.
    digest: String,
}

impl LastSent {
    pub(super) fn of(record: &Outgoing, partition: u32, offset: i64) -> LastSent {
        LastSent {
            topic: record.to.to_string(),
            partition,
            offset,
            digest: digest(record),
        }
    }

    /// The key of its record in the progress topic: no name of a topic holds a `/`, so it is the
    /// key of no mark.
    pub(super) fn key(outlet: &str, topic: &str) -> String {
        format!("{outlet}/end={topic}")
    }

    /// Reads it; nothing when it is not one of this outlet.
    pub(super) fn read(key: &[u8], value: &[u8], outlet: &str) -> Option<LastSent> {
        let end: LastSent = serde_json::from_slice(value).ok()?;
        (key == LastSent::key(outlet, &end.topic).as_bytes()).then_some(end)
    }

    pub(super) fn written(&self) -> String {
        serde_json::json!(self).to_string()
    }

    /// What is said of a topic that does not hold it.
    pub(super) fn lost_text(&self) -> String {
        format!(
            "topic `{}` is not the one that was published to: its record at offset {} of partition \
             {} is not there any more. It was deleted and recreated, or has lost its end, and with \
             it what was published before. Nothing more is published there; to have \
             everything again, publish to an empty topic under another name",
            self.topic, self.offset, self.partition
        )
    }

    /// Whether its topic still holds it, or may have held it. Blocks.
    pub(super) fn is_there(&self, config: &Config) -> Result<bool, StoreError> {
        let topic: Arc<str> = self.topic.as_str().into();
        let partition = self.partition.cast_signed();
        let failing = format!("the last record in topic `{topic}` cannot be read");
        // Open transactions of others do not hide it.
        let scan = TopicScan::at(&topic, &config.uncommitted_reader(), failing)?;
        let (low, high) = match scan.bounds(partition) {
            Ok(bounds) => bounds,
            // That there is no topic is reported by the write to it.
            Err(error) if is_unknown_topic(&error) => return Ok(true),
            Err(error) => return Err(scan.failed(error)),
        };
        if high <= self.offset {
            return Ok(false);
        }
        if low > self.offset {
            // Removed by its age.
            return Ok(true);
        }
        // Where none is at its place, it was removed by a later record of its key.
        let mut is_there = true;
        let from = [(partition, Offset::Offset(self.offset))];
        scan.records(&from, |message| {
            if message.offset() == self.offset {
                is_there = digest(&last::outgoing(message, &topic)) == self.digest;
            }
            ControlFlow::Break(())
        })?;
        Ok(is_there)
    }
}

/// Tells a record from another one at the same place.
fn digest(record: &Outgoing) -> String {
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    };
    add(&record.key);
    match &record.payload {
        Some(payload) => add(payload),
        None => add(b"no value"),
    }
    for (name, value) in &record.headers {
        add(name.as_bytes());
        add(value);
    }
    let whole: [u8; 32] = hash.finalize().into();
    whole[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use annals_core::chrono::DateTime;

    use super::*;

    #[test]
    fn an_end_comes_back_and_is_of_one_outlet() {
        let record = Outgoing {
            to: "bank-events".into(),
            key: "ada".into(),
            payload: None,
            headers: vec![("ce_id".into(), "7".into())],
            occurred_at: DateTime::UNIX_EPOCH,
        };
        let end = LastSent::of(&record, 3, 41);
        let key = LastSent::key("bank", "bank-events");
        let written = end.written();
        let read = |outlet| LastSent::read(key.as_bytes(), written.as_bytes(), outlet);
        assert_eq!(read("bank"), Some(end));
        assert_eq!(read("bank/end=bank-events"), None);
        assert!(!super::super::mark::is_of(key.as_bytes(), "bank"));
        assert_eq!(LastSent::read(b"bank/0", b"{}", "bank"), None);
        let other = Outgoing {
            payload: Some("".into()),
            ..record.clone()
        };
        assert_ne!(digest(&record), digest(&other));
    }
}
