//! A mark as a record of the progress topic.

use annals_core::{EventId, LogId, OutletMark, Partition, Position};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The topic of all marks of a cluster.
pub(crate) const TOPIC: &str = "annals.progress";

/// Its partitions, when it is made here.
pub(crate) const PARTITIONS: u32 = 16;

/// The header with the note of a mark.
pub(crate) const NOTE: &str = "note";

/// What a mark is written as.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    log: Uuid,
    partition: u32,
    position: u64,
    event: Option<Uuid>,
}

/// The key of a mark: outlets share partitions of the topic.
pub(crate) fn key(outlet: &str, partition: Partition) -> String {
    format!("{outlet}/{partition}")
}

/// Whether a key is of this outlet.
pub(crate) fn is_of(key: &[u8], outlet: &str) -> bool {
    let partition = std::str::from_utf8(key)
        .ok()
        .and_then(|key| key.strip_prefix(outlet)?.strip_prefix('/'));
    partition.is_some_and(|partition| partition.parse::<u32>().is_ok())
}

pub(crate) fn write(mark: &OutletMark) -> String {
    serde_json::json!(Written {
        log: *mark.log.as_uuid(),
        partition: mark.partition.0,
        position: mark.position.get(),
        event: mark.event.map(|event| *event.as_uuid()),
    })
    .to_string()
}

/// Reads it; nothing when it is no mark.
pub(crate) fn read(value: &[u8], note: Option<&[u8]>) -> Option<OutletMark> {
    let written: Written = serde_json::from_slice(value).ok()?;
    Some(OutletMark {
        log: LogId::from_uuid(written.log),
        partition: Partition(written.partition),
        position: Position::new(written.position),
        event: written.event.map(EventId::from_uuid),
        note: note.map(Bytes::copy_from_slice).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_comes_back_as_it_was_written() {
        for event in [None, Some(EventId::random())] {
            let mark = OutletMark {
                log: LogId::random(),
                partition: Partition(3),
                position: Position::new(41),
                event,
                note: Bytes::from_static(b"n"),
            };
            let written = write(&mark);
            assert_eq!(read(written.as_bytes(), Some(b"n")), Some(mark));
        }
        assert_eq!(read(b"{}", None), None);
    }

    #[test]
    fn keys_tell_outlets_apart() {
        let key = key("bank", Partition(2));
        assert!(is_of(key.as_bytes(), "bank"));
        assert!(!is_of(key.as_bytes(), "ban"));
        assert!(!is_of(b"bank/x/2", "bank"));
        assert!(is_of(b"bank/x/2", "bank/x"));
    }
}
