//! What a transaction of the application stages: an append as a row, and what it has staged before.

use std::collections::{BTreeMap, HashMap};

use annals_core::{
    Digest, Duplicate, EventId, Expected, Found, IdClash, Placed, Position, StoredId, StreamId,
    Version, deduplicate,
};
use sqlx::postgres::PgConnection;
use sqlx::{Error, query};
use uuid::Uuid;

use crate::database::Database;
use crate::known::PARTITION;
use crate::request::Request;
use crate::row::{int8, sixteen, stream_id};
use crate::statements as sql;

/// The ids of the append that the open transaction has staged under those of this request; none
/// when they are new there. An id that is staged once more is a repetition, as one that the log
/// knows is. `from` is the number of the first append that it has staged.
pub(crate) async fn staged_before(
    database: &Database,
    transaction: &mut PgConnection,
    request: &Request,
    from: i64,
) -> Result<Result<Option<Vec<EventId>>, IdClash>, Error> {
    let rows = query(database.text(sql::STAGED_EVENTS))
        .bind(from)
        .fetch_all(transaction)
        .await?;
    // Their places are those that they would have in a log of their own: the order is what counts.
    let mut appends: BTreeMap<i64, (u64, Vec<EventId>)> = BTreeMap::new();
    let mut versions: HashMap<StreamId, u64> = HashMap::new();
    let mut staged: HashMap<EventId, StoredId> = HashMap::new();
    for (position, row) in (1_u64..).zip(&rows) {
        let id = EventId::from_uuid(Uuid::from_bytes(sixteen(row, 1)?));
        let stream = stream_id(row, 3)?;
        let (first, ids) = appends
            .entry(int8(row, 0)?)
            .or_insert_with(|| (position, Vec::new()));
        ids.push(id);
        let version = versions.entry(stream.clone()).or_default();
        *version += 1;
        let placed = Placed {
            id,
            stream,
            version: Version::new(*version),
            partition: PARTITION,
            position: Position::new(position),
        };
        let found = Found {
            placed,
            append_first: Position::new(*first),
            append_events: 0,
        };
        let digest = Digest(sixteen(row, 2)?);
        staged.insert(id, StoredId { found, digest });
    }
    let events = &request.append.events;
    let known: Vec<_> = events
        .iter()
        .map(|(_, event)| staged.get(&event.id).cloned())
        .collect();
    Ok(
        deduplicate(events, &known).map(|duplicate| match duplicate {
            Duplicate::New => None,
            Duplicate::Repeated => Some(events.iter().map(|(_, event)| event.id).collect()),
            Duplicate::RequestDone { first, .. } => appends
                .into_values()
                .find(|(begins, _)| *begins == first.get())
                .map(|(_, ids)| ids),
        }),
    )
}

/// Stages an append.
pub(crate) async fn insert(
    database: &Database,
    transaction: &mut PgConnection,
    request: &Request,
    (incarnation, recorded): (Option<Uuid>, i64),
    keys: &[i64],
    kinds: &[i32],
    checked_to: u64,
) -> Result<(), Error> {
    let events = || request.append.events.iter().map(|(_, event)| event);
    let encoded = &request.events;
    let mut hashes = Vec::<i64>::new();
    let mut of_events = Vec::<i32>::new();
    for (place, event) in (1_i32..).zip(encoded) {
        hashes.extend(&event.hashes);
        of_events.extend(event.hashes.iter().map(|_| place));
    }
    let expected: Vec<(i16, i64)> = request
        .streams
        .iter()
        .map(|touched| code(touched.expected))
        .collect();
    query(database.text(sql::STAGE))
        .bind(incarnation)
        .bind(recorded)
        .bind(
            encoded
                .iter()
                .map(|event| keys[event.stream])
                .collect::<Vec<_>>(),
        )
        .bind(
            encoded
                .iter()
                .map(|event| kinds[event.kind])
                .collect::<Vec<_>>(),
        )
        .bind(
            encoded
                .iter()
                .map(|event| event.occurred_at)
                .collect::<Vec<_>>(),
        )
        .bind(
            events()
                .map(|event| *event.id.as_uuid())
                .collect::<Vec<Uuid>>(),
        )
        .bind(encoded.iter().map(|event| event.digest).collect::<Vec<_>>())
        .bind(
            encoded
                .iter()
                .map(|event| event.tags.as_deref())
                .collect::<Vec<_>>(),
        )
        .bind(
            encoded
                .iter()
                .map(|event| event.metadata.as_deref())
                .collect::<Vec<_>>(),
        )
        .bind(events().map(|event| &*event.payload).collect::<Vec<_>>())
        .bind(hashes)
        .bind(of_events)
        .bind(keys)
        .bind(expected.iter().map(|(code, _)| *code).collect::<Vec<_>>())
        .bind(
            expected
                .iter()
                .map(|(_, version)| *version)
                .collect::<Vec<_>>(),
        )
        .bind(
            request
                .streams
                .iter()
                .map(|touched| touched.is_written)
                .collect::<Vec<_>>(),
        )
        .bind(
            request
                .condition
                .as_ref()
                .map(|conditional| &conditional.items),
        )
        .bind(checked_to.cast_signed())
        .execute(transaction)
        .await?;
    Ok(())
}

/// An expectation as the function `is_expected` reads it.
fn code(expected: Expected) -> (i16, i64) {
    match expected {
        Expected::NoStream => (1, 0),
        Expected::Exists => (2, 0),
        Expected::Version(version) => (3, version.get().cast_signed()),
        Expected::ActiveAt(version) => (4, version.get().cast_signed()),
        _ => (0, 0),
    }
}
