//! Leases: one row each, which stays when the lease is released.

use std::time::Duration;

use annals_core::{Acquired, Lease, LeaseState};
use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, Row};

use super::stored;
use crate::statements as sql;
use crate::streams::{moment, number};

/// A lease as it is kept.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) lease: Lease,
    pub(super) released: bool,
    expires_at: DateTime<Utc>,
}

impl Kept {
    fn of(row: &Row<'_>) -> Result<Kept, rusqlite::Error> {
        let lease = Lease {
            name: row.get(0)?,
            owner: row.get(1)?,
            epoch: number(row, 2)?,
        };
        Ok(Kept {
            lease,
            expires_at: moment(row.get(3)?)?,
            released: row.get(4)?,
        })
    }

    fn has_expired(&self, now: DateTime<Utc>) -> bool {
        self.released || now >= self.expires_at
    }

    fn state(self, now: DateTime<Utc>) -> LeaseState {
        let expired = self.has_expired(now);
        LeaseState {
            lease: self.lease,
            until: self.expires_at,
            expired,
        }
    }
}

pub(super) fn find(connection: &Connection, name: &str) -> Result<Option<Kept>, rusqlite::Error> {
    connection
        .prepare_cached(sql::LEASE)?
        .query_row([name], Kept::of)
        .optional()
}

pub(super) fn acquire(
    connection: &Connection,
    name: &str,
    owner: &str,
    now: DateTime<Utc>,
    ttl: Duration,
) -> Result<Acquired, rusqlite::Error> {
    if let Some(kept) = find(connection, name)?.filter(|kept| !kept.has_expired(now)) {
        return Ok(Acquired::Held(kept.state(now)));
    }
    let epoch = connection
        .prepare_cached(sql::NEXT_EPOCH)?
        .query_row([], |row| number(row, 0))?;
    let expires_at = Lease::end(now, ttl).timestamp_micros();
    connection.prepare_cached(sql::SAVE_LEASE)?.execute((
        name,
        owner,
        stored(epoch),
        expires_at,
    ))?;
    Ok(Acquired::Granted(Lease {
        name: name.into(),
        owner: owner.into(),
        epoch,
    }))
}

pub(super) fn renew(
    connection: &Connection,
    lease: &Lease,
    expires_at: DateTime<Utc>,
) -> Result<bool, rusqlite::Error> {
    let row = (
        &lease.name,
        &lease.owner,
        stored(lease.epoch),
        expires_at.timestamp_micros(),
    );
    Ok(connection.prepare_cached(sql::RENEW_LEASE)?.execute(row)? > 0)
}

pub(super) fn release(connection: &Connection, lease: &Lease) -> Result<(), rusqlite::Error> {
    let row = (&lease.name, &lease.owner, stored(lease.epoch));
    connection
        .prepare_cached(sql::RELEASE_LEASE)?
        .execute(row)
        .map(|_| ())
}

pub(super) fn with_prefix(
    connection: &Connection,
    prefix: &str,
    now: DateTime<Utc>,
) -> Result<Vec<LeaseState>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(sql::LEASES_FROM)?;
    let leases = statement.query_map([prefix], |row| Ok(Kept::of(row)?.state(now)))?;
    // Those with the prefix follow one another, from the prefix itself on.
    leases
        .take_while(|state| {
            state
                .as_ref()
                .map_or(true, |state| state.lease.name.starts_with(prefix))
        })
        .collect()
}
