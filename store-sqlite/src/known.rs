//! Ids that the log knows, for ever: also those of archived events.

use annals_core::{
    Digest, EventId, Found, Partition, Placed, Position, StoredId, StreamId, Version,
};
use rusqlite::{Connection, OptionalExtension, Row};
use uuid::Uuid;

use crate::error::corrupt;
use crate::statements as sql;
use crate::streams::number;

/// The one partition of a SQL log.
pub(crate) const PARTITION: Partition = Partition(0);

/// The stream, version and position of an id, its append, and the digest of its content.
pub(crate) fn known(
    connection: &Connection,
    id: EventId,
) -> Result<Option<StoredId>, rusqlite::Error> {
    connection
        .prepare_cached(sql::KNOWN_ID)?
        .query_row([id.as_uuid().as_bytes()], |row| {
            let position = number(row, 0)?;
            let placed = Placed {
                id,
                stream: stream_id(row, 5)?,
                version: Version::new(number(row, 1)?),
                partition: PARTITION,
                position: Position::new(position),
            };
            let append_events = u32::try_from(number(row, 3)?)
                .map_err(|_| corrupt("an append of too many events"))?;
            let append_first = Position::new(position.saturating_sub(number(row, 2)?));
            Ok(StoredId {
                found: Found {
                    placed,
                    append_first,
                    append_events,
                },
                digest: Digest(row.get(4)?),
            })
        })
        .optional()
}

/// The `events` events from position `first` on.
pub(crate) fn placed_between(
    connection: &Connection,
    first: Position,
    events: u32,
) -> Result<Vec<Placed>, rusqlite::Error> {
    let last = first.plus(u64::from(events)).minus(1);
    let mut statement = connection.prepare_cached(sql::PLACED_BETWEEN)?;
    let placed = statement.query_map(
        (first.get().cast_signed(), last.get().cast_signed()),
        |row| {
            Ok(Placed {
                id: EventId::from_uuid(Uuid::from_bytes(row.get(2)?)),
                stream: stream_id(row, 3)?,
                version: Version::new(number(row, 1)?),
                partition: PARTITION,
                position: Position::new(number(row, 0)?),
            })
        },
    )?;
    placed.collect()
}

pub(crate) fn stream_id(row: &Row<'_>, column: usize) -> Result<StreamId, rusqlite::Error> {
    let name = row.get_ref(column)?.as_str()?;
    StreamId::any(name).map_err(|error| corrupt(error.to_string()))
}
