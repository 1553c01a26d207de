//! Leases: who may work on what, for how long, and an epoch that keeps a worker that lost its lease
//! from doing harm.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};

use crate::error::StoreError;
use crate::event::to_microseconds;

/// The right to work on something until it expires or is taken by another. What is written under it
/// carries its epoch, and a store refuses what carries an older one: a worker that was paused for
/// too long can do no harm.
///
/// ```
/// use annals_core::Lease;
///
/// let lease = Lease { name: "balances/3/0".into(), owner: "worker-a".into(), epoch: 7 };
/// assert_eq!(lease.epoch, 7);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_structs)]
pub struct Lease {
    /// What it is the right to.
    pub name: String,
    /// Who has it.
    pub owner: String,
    /// Raised every time it is granted, and never reused, also after it was given back.
    pub epoch: u64,
}

impl Lease {
    /// When a lease that is granted `now` for `ttl` ends: at that moment it is free. Never later
    /// than the year 9999.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use annals_core::{Clock, Lease, SystemClock, chrono::TimeDelta};
    ///
    /// let now = SystemClock.now();
    /// assert_eq!(Lease::end(now, Duration::from_secs(10)), now + TimeDelta::seconds(10));
    /// assert!(Lease::end(now, Duration::MAX) > now);
    /// ```
    pub fn end(now: DateTime<Utc>, ttl: Duration) -> DateTime<Utc> {
        // 9999-12-31T23:59:59Z
        let last = DateTime::from_timestamp_micros(253_402_300_799_000_000).unwrap_or(now);
        let end = TimeDelta::from_std(ttl)
            .ok()
            .and_then(|ttl| now.checked_add_signed(ttl));
        to_microseconds(end.unwrap_or(last).min(last))
    }
}

/// What a lease is at a moment. One that was given back has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct LeaseState {
    /// The lease, with its last owner.
    pub lease: Lease,
    /// When it ends (or ended) by itself, by the clock of the store that keeps it.
    pub until: DateTime<Utc>,
    /// Whether it has ended.
    pub expired: bool,
}

/// The answer to asking for a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum Acquired {
    /// It is the asker's.
    Granted(Lease),
    /// Another one has it.
    Held(LeaseState),
}

/// A keeper of leases. Its own clock decides when they end, so that the clocks of workers need not
/// agree.
#[async_trait]
pub trait Leases: std::fmt::Debug + Send + Sync + 'static {
    /// Takes the lease for `owner` until `ttl` from now, when it is free or has ended. Every grant
    /// raises the epoch, also one to the same owner. Who has it already renews it; asking again is
    /// answered as anybody's asking is.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn acquire_lease(
        &self,
        name: &str,
        owner: &str,
        ttl: Duration,
    ) -> Result<Acquired, StoreError>;

    /// Moves the end of a lease to `ttl` from now. `false`: it is another's by now, or was
    /// released; stop working.
    ///
    /// A lease that has ended and was not taken can be renewed.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError>;

    /// Renews several leases; of each whether it is still held, in their order.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn renew_leases(&self, leases: &[Lease], ttl: Duration) -> Result<Vec<bool>, StoreError> {
        let mut held = Vec::with_capacity(leases.len());
        for lease in leases {
            held.push(self.renew_lease(lease, ttl).await?);
        }
        Ok(held)
    }

    /// Gives a lease back, so that the next one need not wait for its end. One that is another's by
    /// now is left alone.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn release_lease(&self, lease: &Lease) -> Result<(), StoreError>;

    /// Every lease whose name starts with `prefix`, byte by byte, in the order of the names; also
    /// those that have ended.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn leases(&self, prefix: &str) -> Result<Vec<LeaseState>, StoreError>;
}
