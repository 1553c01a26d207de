//! What a process polls: generations, checkpoints and leases, in one statement.

use annals_core::{Checkpoint, EventId, GenerationState, Lease, LeaseState, Partition, Position};
use bytes::Bytes;
use sqlx::postgres::PgRow;
use sqlx::{Error, Row, query};
use uuid::Uuid;

use super::generation::generation;
use crate::database::Database;
use crate::error::corrupt;
use crate::row::moment;
use crate::statements as sql;

/// Of these views, with what is free at `now`; by the server's clock when there is none.
pub(super) async fn of_views(
    database: &Database,
    views: &[String],
    now: Option<i64>,
) -> Result<Vec<GenerationState>, Error> {
    let views: Vec<&[u8]> = views.iter().map(String::as_bytes).collect();
    let found = query(database.text(sql::STATES))
        .bind(views)
        .bind(now)
        .fetch_all(&database.pool)
        .await?;
    found.iter().map(state).collect()
}

fn state(row: &PgRow) -> Result<GenerationState, Error> {
    let generation = generation(row)?;
    let mut leases = leases(row)?;
    leases.retain(|of| generation.is_about_it(&of.lease.name));
    Ok(GenerationState {
        checkpoints: checkpoints(row)?,
        leases,
        generation,
    })
}

fn checkpoints(row: &PgRow) -> Result<Vec<Checkpoint>, Error> {
    let slots: Vec<i64> = row.try_get(13)?;
    let partitions: Vec<i64> = row.try_get(14)?;
    let positions: Vec<i64> = row.try_get(15)?;
    let events: Vec<Option<Uuid>> = row.try_get(16)?;
    let states: Vec<Vec<u8>> = row.try_get(17)?;
    let columns = slots
        .into_iter()
        .zip(partitions)
        .zip(positions)
        .zip(events)
        .zip(states);
    columns
        .map(|((((slot, partition), position), event), state)| {
            Ok(Checkpoint {
                slot: small(slot)?,
                partition: Partition(small(partition)?),
                position: Position::new(position.cast_unsigned()),
                event: event.map(EventId::from_uuid),
                state: Bytes::from(state),
            })
        })
        .collect()
}

fn leases(row: &PgRow) -> Result<Vec<LeaseState>, Error> {
    let names: Vec<Vec<u8>> = row.try_get(18)?;
    let owners: Vec<Vec<u8>> = row.try_get(19)?;
    let epochs: Vec<i64> = row.try_get(20)?;
    let ends: Vec<i64> = row.try_get(21)?;
    let free: Vec<bool> = row.try_get(22)?;
    let columns = names
        .into_iter()
        .zip(owners)
        .zip(epochs)
        .zip(ends)
        .zip(free);
    columns
        .map(|((((name, owner), epoch), until), expired)| {
            let lease = Lease {
                name: text(name)?,
                owner: text(owner)?,
                epoch: epoch.cast_unsigned(),
            };
            Ok(LeaseState {
                lease,
                until: moment(until)?,
                expired,
            })
        })
        .collect()
}

fn small<T: TryFrom<i64>>(found: i64) -> Result<T, Error> {
    T::try_from(found).map_err(|_| corrupt(format!("the number {found} is too large")))
}

fn text(bytes: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(|_| corrupt("the name of a lease is no text"))
}
