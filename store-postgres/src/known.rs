//! Ids that the log knows, for ever: also those of archived events.

use annals_core::{Digest, EventId, Found, Partition, Placed, Position, StoredId, Version};
use sqlx::Error;
use sqlx::postgres::PgExecutor;
use uuid::Uuid;

use crate::database::Database;
use crate::error::corrupt;
use crate::row::{number, sixteen, stream_id};
use crate::statements as sql;

/// The one partition of a SQL log.
pub(crate) const PARTITION: Partition = Partition(0);

/// The streams, versions and positions of these ids, their appends, and the digests of their
/// content.
pub(crate) async fn known(
    database: &Database,
    on: impl PgExecutor<'_>,
    ids: &[EventId],
) -> Result<Vec<Option<StoredId>>, Error> {
    let mut known = vec![None; ids.len()];
    if ids.is_empty() {
        return Ok(known);
    }
    let uuids: Vec<Uuid> = ids.iter().map(|id| *id.as_uuid()).collect();
    for row in sqlx::query(database.text(sql::KNOWN_IDS))
        .bind(uuids)
        .fetch_all(on)
        .await?
    {
        let place = usize::try_from(number(&row, 0)?)
            .unwrap_or(usize::MAX)
            .wrapping_sub(1);
        let id = *ids
            .get(place)
            .ok_or_else(|| corrupt("an answer to nothing that was asked"))?;
        let position = number(&row, 1)?;
        let count = |column: usize| row_count(&row, column);
        let placed = Placed {
            id,
            stream: stream_id(&row, 6)?,
            version: Version::new(number(&row, 2)?),
            partition: PARTITION,
            position: Position::new(position),
        };
        let append_first = Position::new(position.saturating_sub(u64::from(count(3)?)));
        let found = Found {
            placed,
            append_first,
            append_events: count(4)?,
        };
        known[place] = Some(StoredId {
            found,
            digest: Digest(sixteen(&row, 5)?),
        });
    }
    Ok(known)
}

/// As [`known`], once all that is found is durable.
pub(crate) async fn durably_known(
    database: &Database,
    ids: &[EventId],
) -> Result<Vec<Option<StoredId>>, Error> {
    let history = database.incarnation.number();
    let known = known(database, &database.pool, ids).await?;
    let positions = known.iter().flatten();
    let last = positions.map(|known| known.found.placed.position).max();
    let last = last.map_or(0, Position::get);
    database.until_durable(history, last).await?;
    Ok(known)
}

fn row_count(row: &sqlx::postgres::PgRow, column: usize) -> Result<u32, Error> {
    let count: i32 = sqlx::Row::try_get(row, column)?;
    u32::try_from(count).map_err(|_| corrupt("a negative count"))
}

/// The `events` events from position `first` on.
pub(crate) async fn placed_between(
    database: &Database,
    first: Position,
    events: u32,
) -> Result<Vec<Placed>, Error> {
    let last = first.plus(u64::from(events)).minus(1);
    let rows = sqlx::query(database.text(sql::PLACED_BETWEEN))
        .bind(first.get().cast_signed())
        .bind(last.get().cast_signed())
        .fetch_all(&database.pool)
        .await?;
    let place = |row: &sqlx::postgres::PgRow| {
        Ok(Placed {
            id: EventId::from_uuid(Uuid::from_bytes(sixteen(row, 2)?)),
            stream: stream_id(row, 3)?,
            version: Version::new(number(row, 1)?),
            partition: PARTITION,
            position: Position::new(number(row, 0)?),
        })
    };
    rows.iter().map(place).collect()
}
