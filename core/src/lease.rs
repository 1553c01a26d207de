//! Leases: who may work on what, for how long, and an epoch that keeps a worker that lost its lease from doing harm.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::error::StoreError;

/// The right to work on something until it expires or is taken by another. What is written under it carries its epoch, and a
/// store refuses what carries an older one: a worker that was paused for too long can do no harm.
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
    /// Raised every time it changes hands, and never reused.
    pub epoch: u64,
}

/// What a lease is at a moment.
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

/// A keeper of leases. Its own clock decides when they end, so that the clocks of workers need not agree.
#[async_trait]
pub trait Leases: std::fmt::Debug + Send + Sync + 'static {
    /// Takes the lease for `owner` until `ttl` from now, when it is free or has ended. Every grant raises the epoch, also one to
    /// the same owner.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn acquire_lease(&self, name: &str, owner: &str, ttl: Duration) -> Result<Acquired, StoreError>;

    /// Moves the end of a lease to `ttl` from now. `false`: it is another's by now, or was released; stop working.
    ///
    /// A lease that has ended and was taken by nobody can be renewed.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError>;

    /// Gives a lease back, so that the next one need not wait for its end. One that is another's by now is left alone.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn release_lease(&self, lease: &Lease) -> Result<(), StoreError>;

    /// Every lease whose name starts with `prefix`, in the order of the names.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn leases(&self, prefix: &str) -> Result<Vec<LeaseState>, StoreError>;
}
