//! Metadata as a column: the two ids in place, the rest as JSON, nothing at all when there is
//! nothing.

use std::collections::BTreeMap;

use annals_core::{EventId, Metadata};
use serde::Serialize;
use uuid::Uuid;

use crate::error::corrupt;

/// What the first byte says.
const CORRELATION: u8 = 1;
const CAUSATION: u8 = 2;

/// The part that is written as JSON.
#[derive(Serialize)]
struct Rest<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    keys: &'a BTreeMap<String, String>,
}

/// None for metadata that says nothing.
pub(crate) fn encode(metadata: &Metadata) -> Option<Vec<u8>> {
    let ids = [
        (CORRELATION, metadata.correlation),
        (CAUSATION, metadata.causation.map(|id| *id.as_uuid())),
    ];
    let rest = Rest {
        actor: metadata.actor.as_deref(),
        tenant: metadata.tenant.as_deref(),
        keys: &metadata.keys,
    };
    let is_more = rest.actor.is_some() || rest.tenant.is_some() || !rest.keys.is_empty();
    if !is_more && ids.iter().all(|(_, id)| id.is_none()) {
        return None;
    }
    let mut bytes = vec![0];
    for (bit, id) in ids {
        if let Some(id) = id {
            bytes[0] |= bit;
            bytes.extend_from_slice(id.as_bytes());
        }
    }
    if is_more {
        serde_json::to_writer(&mut bytes, &rest)
            .expect("a map from text to text is JSON, and memory takes every byte");
    }
    Some(bytes)
}

/// Reads what [`encode`] wrote.
pub(crate) fn decode(bytes: &[u8]) -> Result<Metadata, rusqlite::Error> {
    let short = || corrupt("metadata that ends too early");
    let (first, mut rest) = bytes.split_first().ok_or_else(short)?;
    let mut id = |bit| -> Result<Option<Uuid>, rusqlite::Error> {
        if first & bit == 0 {
            return Ok(None);
        }
        let (id, behind) = rest.split_first_chunk::<16>().ok_or_else(short)?;
        rest = behind;
        Ok(Some(Uuid::from_bytes(*id)))
    };
    let correlation = id(CORRELATION)?;
    let causation = id(CAUSATION)?.map(EventId::from_uuid);
    let mut metadata = match rest {
        [] => Metadata::default(),
        json => serde_json::from_slice(json)
            .map_err(|error| corrupt(format!("metadata that is not JSON: {error}")))?,
    };
    metadata.correlation = correlation;
    metadata.causation = causation;
    Ok(metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_read_as_it_was_written() {
        let id = Uuid::from_u128(7);
        let cause = EventId::from_uuid(Uuid::from_u128(9));
        let empty = Metadata::default;
        assert_eq!(encode(&empty()), None);
        for metadata in [
            empty().correlation(id),
            empty().causation(cause),
            empty().correlation(id).causation(cause),
            empty().actor("ada"),
            empty()
                .correlation(id)
                .causation(cause)
                .actor("ada")
                .tenant("north")
                .key("ip", "::1"),
        ] {
            let bytes = encode(&metadata).unwrap();
            assert_eq!(decode(&bytes).unwrap(), metadata);
        }
    }

    #[test]
    fn damaged_metadata_is_an_error() {
        for bytes in [
            &[][..],
            &[1, 2, 3],
            &[3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            b"\0{",
            b"\0[1]",
        ] {
            assert!(decode(bytes).is_err(), "{bytes:?}");
        }
    }
}
