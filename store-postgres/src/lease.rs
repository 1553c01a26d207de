//! Leases: one row each, which stays when it is given back. They end by the clock of the server,
//! unless the store was given another.

use std::time::Duration;

use annals_core::{Acquired, Lease, LeaseState, Leases, StoreError};
use async_trait::async_trait;
use sqlx::postgres::PgRow;
use sqlx::{Error, Row, query, query_as};

use crate::database::{ask, to_its_end};
use crate::row::{int8, moment, number};
use crate::statements as sql;
use crate::store::PostgresStore;
use crate::views::{owned_text, stored};

/// A lease lasts at most about so long: to the year 9999. In microseconds.
const TTL_MAX: i64 = 253_402_300_799_000_000;

fn micros(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_micros())
        .unwrap_or(TTL_MAX)
        .min(TTL_MAX)
}

/// What comes after everything that begins with `prefix`.
fn prefix_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    match end.last_mut() {
        // No byte of a text is the largest that there is.
        Some(last) => *last += 1,
        None => end.push(u8::MAX),
    }
    end
}

fn state(row: &PgRow) -> Result<LeaseState, Error> {
    let lease = Lease {
        name: owned_text(row, 0)?,
        owner: owned_text(row, 1)?,
        epoch: number(row, 2)?,
    };
    Ok(LeaseState {
        lease,
        until: moment(int8(row, 3)?)?,
        expired: row.try_get(4)?,
    })
}

#[async_trait]
impl Leases for PostgresStore {
    async fn acquire_lease(
        &self,
        name: &str,
        owner: &str,
        ttl: Duration,
    ) -> Result<Acquired, StoreError> {
        let name = name.to_owned();
        let owner = owner.to_owned();
        let now = self.lease_moment();
        let database = self.writable()?;
        to_its_end(async move {
            // When the answer is lost and it was granted, the next answer says that the owner holds
            // it.
            let row = ask!(
                &database,
                query(database.text(sql::ACQUIRE_LEASE))
                    .bind(name.as_bytes())
                    .bind(owner.as_bytes())
                    .bind(micros(ttl))
                    .bind(now)
                    .fetch_one(&database.pool)
            )?;
            let answer = || {
                let lease = Lease {
                    name,
                    owner: owned_text(&row, 1)?,
                    epoch: number(&row, 2)?,
                };
                if row.try_get(0)? {
                    return Ok(Acquired::Granted(lease));
                }
                Ok(Acquired::Held(LeaseState {
                    lease,
                    until: moment(int8(&row, 3)?)?,
                    expired: false,
                }))
            };
            answer().map_err(|error: Error| database.writing(&error))
        })
        .await
    }

    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        let database = self.writable()?;
        let now = self.lease_moment();
        let renewed = ask!(
            &database,
            query(database.text(sql::RENEW_LEASE))
                .bind(lease.name.as_bytes())
                .bind(lease.owner.as_bytes())
                .bind(stored(lease.epoch))
                .bind(micros(ttl))
                .bind(now)
                .execute(&database.pool)
        )?;
        Ok(renewed.rows_affected() > 0)
    }

    async fn renew_leases(&self, leases: &[Lease], ttl: Duration) -> Result<Vec<bool>, StoreError> {
        let database = self.writable()?;
        let now = self.lease_moment();
        let names: Vec<&[u8]> = leases.iter().map(|of| of.name.as_bytes()).collect();
        let owners: Vec<&[u8]> = leases.iter().map(|of| of.owner.as_bytes()).collect();
        let epochs: Vec<i64> = leases.iter().map(|of| stored(of.epoch)).collect();
        let renewed: Vec<(Vec<u8>, i64)> = ask!(
            &database,
            query_as(database.text(sql::RENEW_LEASES))
                .bind(&names)
                .bind(&owners)
                .bind(&epochs)
                .bind(micros(ttl))
                .bind(now)
                .fetch_all(&database.pool)
        )?;
        let is_renewed = |(name, epoch)| {
            let mut renewed = renewed.iter();
            renewed.any(|(of, its)| (of.as_slice(), *its) == (name, epoch))
        };
        Ok(names.into_iter().zip(epochs).map(is_renewed).collect())
    }

    async fn release_lease(&self, lease: &Lease) -> Result<(), StoreError> {
        let database = self.writable()?;
        let lease = lease.clone();
        to_its_end(async move {
            ask!(
                &database,
                query(database.text(sql::RELEASE_LEASE))
                    .bind(lease.name.as_bytes())
                    .bind(lease.owner.as_bytes())
                    .bind(stored(lease.epoch))
                    .execute(&database.pool)
            )
            .map(|_| ())
        })
        .await
    }

    async fn leases(&self, prefix: &str) -> Result<Vec<LeaseState>, StoreError> {
        let database = self.database();
        let now = self.lease_moment();
        let end = prefix_end(prefix);
        let found = ask!(
            database,
            query(database.text(sql::LEASES))
                .bind(prefix.as_bytes())
                .bind(&end)
                .bind(now)
                .fetch_all(&database.pool)
        )?;
        found
            .iter()
            .map(state)
            .collect::<Result<_, _>>()
            .map_err(|error| database.reading(&error))
    }
}
