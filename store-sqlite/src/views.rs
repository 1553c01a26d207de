//! Read models in the file of the log, or in one of their own.
//!
//! A commit of a worker is one job of the writer: it shares the flush with what else is committed
//! then, and is checked before anything is written. What was dropped or forgotten is hidden at once
//! and purged later, a little at a time.

mod custom_tables;
mod dead_letters;
mod generation;
mod inline;
mod lease;
mod past;
mod rows;
mod step;
mod sweep;

use std::ops::Bound;
use std::time::Duration;

use annals_core::{
    Acquired, AppendError, Checkpoint, CommitError, DeadLetter, DeadLetterStore, Failure,
    Generation, GenerationId, GenerationSpec, GenerationStore, InlineViews, Invalid, Lease,
    LeaseState, Leases, Partition, PastRow, Position, ReadRows, RowStore, RowVersion, RowsPage,
    SkipDecision, StoreError, VersionedRow, ViewCommit,
};
use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::Connection;

use crate::store::SqliteStore;
use crate::write_tx::{Stop, WriteTx};

pub(crate) use inline::inline_rows;
pub(crate) use sweep::{has_waste, sweep};

/// Why a request about views ended without its answer.
#[derive(Debug)]
enum Abort {
    /// An outcome for the caller.
    Refused(CommitError),
    /// The transaction cannot go on.
    Broken(rusqlite::Error),
}

impl From<rusqlite::Error> for Abort {
    fn from(error: rusqlite::Error) -> Abort {
        Abort::Broken(error)
    }
}

impl From<CommitError> for Abort {
    fn from(refused: CommitError) -> Abort {
        Abort::Refused(refused)
    }
}

impl From<Invalid> for Abort {
    fn from(invalid: Invalid) -> Abort {
        Abort::Refused(invalid.into())
    }
}

fn outcome<R>(done: Result<R, Abort>) -> Result<Result<R, CommitError>, rusqlite::Error> {
    match done {
        Ok(done) => Ok(Ok(done)),
        Err(Abort::Refused(refused)) => Ok(Err(refused)),
        Err(Abort::Broken(error)) => Err(error),
    }
}

/// The error of a request to the writer.
fn written(error: AppendError) -> StoreError {
    match error {
        AppendError::Unknown(source) => {
            StoreError::new(Failure::Unavailable, "whether it was written is unknown")
                .because(source)
        }
        error => error.into_store_error(),
    }
}

impl SqliteStore {
    /// Reads in one transaction.
    async fn read_views<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<R, Abort> + Send + 'static,
    ) -> Result<R, CommitError> {
        self.readers()?
            .read(move |connection, _| outcome(work(connection)))
            .await?
    }

    /// Reads a generation that was not dropped.
    async fn read_generation<R: Send + 'static>(
        &self,
        id: GenerationId,
        work: impl FnOnce(&Connection, &Generation) -> Result<R, Abort> + Send + 'static,
    ) -> Result<R, CommitError> {
        self.read_views(move |connection| work(connection, &generation::by_id(connection, id)?))
            .await
    }

    /// Runs a small change; a refusal must come before it writes.
    async fn change_views<R: Send + 'static>(
        &self,
        mut work: impl FnMut(&mut WriteTx) -> Result<R, Abort> + Send + 'static,
    ) -> Result<R, CommitError> {
        let work = move |write_tx: &mut WriteTx| outcome(work(write_tx)).map_err(Stop::Broken);
        self.writer()?.run((1, 0), work).await.map_err(written)?
    }

    async fn change_leases<R: Send + 'static>(
        &self,
        mut work: impl FnMut(&Connection) -> Result<R, rusqlite::Error> + Send + 'static,
    ) -> Result<R, StoreError> {
        self.writer()?
            .run((1, 0), move |write_tx| Ok(work(&write_tx.connection)?))
            .await
            .map_err(written)
    }
}

#[async_trait]
impl Leases for SqliteStore {
    async fn acquire_lease(
        &self,
        name: &str,
        owner: &str,
        ttl: Duration,
    ) -> Result<Acquired, StoreError> {
        // The time of the request, here and below: a worker that waited for the writer has a lease
        // that is shorter, and never longer than it believes.
        let name = name.to_owned();
        let owner = owner.to_owned();
        let now = self.clock().now();
        self.change_leases(move |connection| lease::acquire(connection, &name, &owner, now, ttl))
            .await
    }

    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        let lease = lease.clone();
        let ends_at = Lease::end(self.clock().now(), ttl);
        self.change_leases(move |connection| lease::renew(connection, &lease, ends_at))
            .await
    }

    async fn release_lease(&self, lease: &Lease) -> Result<(), StoreError> {
        let lease = lease.clone();
        self.change_leases(move |connection| lease::release(connection, &lease))
            .await
    }

    async fn leases(&self, prefix: &str) -> Result<Vec<LeaseState>, StoreError> {
        let prefix = prefix.to_owned();
        let now = self.clock().now();
        self.readers()?
            .read(move |connection, _| lease::with_prefix(connection, &prefix, now))
            .await
    }
}

#[async_trait]
impl GenerationStore for SqliteStore {
    async fn begin_generation(&self, spec: GenerationSpec) -> Result<Generation, StoreError> {
        spec.check()?;
        let now = self.clock().now();
        let begin =
            move |write_tx: &mut WriteTx| Ok(generation::begin(&write_tx.connection, &spec, now)?);
        self.writer()?.run((1, 0), begin).await.map_err(written)
    }

    async fn generations(&self, view: &str) -> Result<Vec<Generation>, StoreError> {
        let view = view.to_owned();
        self.readers()?
            .read(move |connection, _| generation::of_view(connection, &view))
            .await
    }

    async fn view_names(&self) -> Result<Vec<String>, StoreError> {
        self.readers()?
            .read(|connection, _| generation::view_names(connection))
            .await
    }

    async fn switch_to(&self, generation: GenerationId) -> Result<(), CommitError> {
        self.change_views(move |write_tx| generation::switch_to(&write_tx.connection, generation))
            .await
    }

    async fn drop_generation(&self, generation: GenerationId) -> Result<(), CommitError> {
        self.change_views(move |write_tx| {
            generation::drop(&write_tx.connection, generation)?;
            write_tx.has_waste = true;
            Ok(())
        })
        .await
    }

    async fn checkpoints(&self, generation: GenerationId) -> Result<Vec<Checkpoint>, CommitError> {
        self.read_generation(generation, |connection, generation| {
            Ok(rows::checkpoints(connection, generation)?)
        })
        .await
    }
}

#[async_trait]
impl RowStore for SqliteStore {
    async fn commit_view(&self, commit: ViewCommit) -> Result<(), CommitError> {
        let writer = self.writer()?;
        // Not on the writer thread, so that it only checks and writes.
        let step = self
            .read_views(move |connection| step::prepare(connection, commit))
            .await?;
        let size = step.size();
        let work = move |write_tx: &mut WriteTx| {
            outcome(step::apply(&write_tx.connection, &step)).map_err(Stop::Broken)
        };
        writer.run(size, work).await.map_err(written)?
    }

    async fn read_rows(&self, read: ReadRows) -> Result<RowsPage, CommitError> {
        self.read_generation(read.generation, move |connection, generation| {
            rows::page(connection, generation, &read)
        })
        .await
    }

    async fn read_past(
        &self,
        generation: GenerationId,
        keys: &[String],
        moment: Position,
    ) -> Result<Vec<PastRow>, CommitError> {
        let mut keys = keys.to_vec();
        self.read_generation(generation, move |connection, generation| {
            keys.sort_unstable();
            keys.dedup();
            past::at(connection, generation, keys, moment)
        })
        .await
    }

    async fn past_keys(
        &self,
        generation: GenerationId,
        range: (Bound<String>, Bound<String>),
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, CommitError> {
        let range = rows::Keys::of(range).after(after);
        self.read_generation(generation, move |connection, generation| {
            Ok(past::keys(connection, generation, range, limit)?)
        })
        .await
    }

    async fn row_versions(
        &self,
        generation: GenerationId,
        key: &str,
        between: (Position, Position),
        limit: usize,
    ) -> Result<Vec<RowVersion>, CommitError> {
        let key = key.to_owned();
        self.read_generation(generation, move |connection, generation| {
            Ok(past::versions(
                connection, generation, &key, between, limit,
            )?)
        })
        .await
    }

    async fn keys_changed_between(
        &self,
        generation: GenerationId,
        between: (Position, Position),
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, CommitError> {
        let keys = rows::Keys::all().after(after);
        self.read_generation(generation, move |connection, generation| {
            past::keys_changed(connection, generation, between, keys, limit)
        })
        .await
    }

    async fn touched(
        &self,
        generation: GenerationId,
        key: &str,
        after: Position,
        up_to: Position,
        limit: usize,
    ) -> Result<Vec<Position>, CommitError> {
        let key = key.to_owned();
        self.read_generation(generation, move |connection, generation| {
            Ok(past::touched(
                connection,
                generation,
                &key,
                (after, up_to),
                limit,
            )?)
        })
        .await
    }

    async fn read_state(
        &self,
        generation: GenerationId,
        slot: u16,
        after: Option<&[u8]>,
        bytes_max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, CommitError> {
        let after = after.map(<[u8]>::to_vec);
        self.read_generation(generation, move |connection, generation| {
            let after = after.as_deref();
            Ok(rows::state(connection, generation, slot, after, bytes_max)?)
        })
        .await
    }

    async fn forget_history(
        &self,
        generation: GenerationId,
        since: Position,
    ) -> Result<(), CommitError> {
        self.change_views(move |write_tx| {
            generation::forget(&write_tx.connection, generation, since)?;
            write_tx.has_waste = true;
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl DeadLetterStore for SqliteStore {
    async fn dead_letters(
        &self,
        generation: GenerationId,
        after: Option<(&str, Partition, Position)>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, CommitError> {
        let after = after.map(|(key, partition, position)| (key.to_owned(), partition, position));
        self.read_generation(generation, move |connection, generation| {
            Ok(dead_letters::dead_letters(
                connection,
                generation,
                after.as_ref(),
                limit,
            )?)
        })
        .await
    }

    async fn save_skip_decision(&self, skip_decision: SkipDecision) -> Result<(), StoreError> {
        let keep = move |write_tx: &mut WriteTx| {
            Ok(dead_letters::save_skip_decision(
                &write_tx.connection,
                &skip_decision,
            )?)
        };
        self.writer()?.run((1, 0), keep).await.map_err(written)
    }

    async fn skip_decisions(&self, view: &str) -> Result<Vec<SkipDecision>, StoreError> {
        let view = view.to_owned();
        self.readers()?
            .read(move |connection, _| dead_letters::skip_decisions(connection, &view))
            .await
    }
}

/// A position, a generation or an epoch as it is stored.
fn stored(number: u64) -> i64 {
    number.cast_signed()
}

fn limited(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

#[async_trait]
impl InlineViews for SqliteStore {
    async fn read_versioned(
        &self,
        generation: GenerationId,
        keys: &[String],
    ) -> Result<Vec<VersionedRow>, CommitError> {
        let mut keys = keys.to_vec();
        self.read_generation(generation, move |connection, generation| {
            keys.sort_unstable();
            keys.dedup();
            Ok(inline::versioned_rows(
                connection,
                stored(generation.id.0),
                keys,
            )?)
        })
        .await
    }
}
