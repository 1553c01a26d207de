//! Read models in the database of the log, or in one of their own.
//!
//! A step of a worker is one call of the server: it is looked at, and written, while the lease
//! under which it is taken is locked, so that no other worker takes the lease, moves the slot or
//! drops the generation in between. A page of rows is one statement, and so of one moment. What was
//! dropped or forgotten is out of sight at once and cleared away later, a little at a time.

mod custom_tables;
mod dead_letters;
mod generation;
pub(crate) mod inline;
mod past;
mod rows;
mod states;
mod step;
mod sweep;

use std::ops::Bound;
use std::sync::Arc;

use annals_core::{
    Checkpoint, CommitError, DeadLetter, DeadLetterStore, Generation, GenerationId, GenerationSpec,
    GenerationState, GenerationStore, Partition, PastRow, Position, ReadRows, RowStore, RowVersion,
    RowsPage, SkipDecision, StoreError, ViewCommit,
};
use async_trait::async_trait;
use bytes::Bytes;
use hashlink::LruCache;
use sqlx::postgres::PgRow;
use sqlx::{Error, query};

use crate::database::{Database, ask, to_its_end};
use crate::error::corrupt;
use crate::incarnation::Cached;
use crate::row::bytes;
use crate::statements as sql;
use crate::store::PostgresStore;
use step::Step;
use sweep::Sweeper;

/// Generations that are cached.
const KNOWN: usize = 1_024;

/// Generations by their ids.
#[derive(Debug)]
struct KnownGenerations(LruCache<GenerationId, Arc<Generation>>);

impl Default for KnownGenerations {
    fn default() -> KnownGenerations {
        KnownGenerations(LruCache::new(KNOWN))
    }
}

/// What a store keeps for its read models.
#[derive(Debug)]
pub(crate) struct Views {
    /// What generations are made of, which never changes. Their phase, and whether they are gone,
    /// is not to be had from here.
    known: Cached<KnownGenerations>,
    database: Arc<Database>,
    /// None when the store was opened read-only.
    sweeper: Option<Sweeper>,
}

impl Views {
    pub(crate) fn start(database: &Arc<Database>, is_read_only: bool) -> Views {
        let sweeper = (!is_read_only).then(|| Sweeper::start(database));
        Views {
            known: Cached::default(),
            database: Arc::clone(database),
            sweeper,
        }
    }

    fn known(&self, id: GenerationId) -> Option<Arc<Generation>> {
        let number = self.database.incarnation.number();
        self.known
            .of(number, |known| known.0.get(&id).map(Arc::clone))
    }

    fn learn(&self, generation: Generation) -> Arc<Generation> {
        let generation = Arc::new(generation);
        let number = self.database.incarnation.number();
        let learnt = Arc::clone(&generation);
        self.known
            .of(number, |known| known.0.insert(learnt.id, learnt));
        generation
    }

    fn forget(&self, id: GenerationId) {
        let number = self.database.incarnation.number();
        self.known.of(number, |known| known.0.remove(&id));
    }

    fn sweep(&self) {
        if let Some(sweeper) = &self.sweeper {
            sweeper.wake();
        }
    }
}

impl PostgresStore {
    /// A generation as it is now.
    async fn generation_now(&self, id: GenerationId) -> Result<Generation, CommitError> {
        let database = self.database();
        let found = ask!(database, generation::by_id(database, id))?;
        if found.is_none() {
            self.views_of().forget(id);
        }
        found.ok_or(CommitError::Gone(id))
    }

    /// What a generation is made of; it may be gone by now.
    async fn made_of(&self, id: GenerationId) -> Result<Arc<Generation>, CommitError> {
        match self.views_of().known(id) {
            Some(known) => Ok(known),
            None => Ok(self.views_of().learn(self.generation_now(id).await?)),
        }
    }

    /// A refusal of something that is looked at by what a generation is made of: that it is gone
    /// comes first.
    async fn unless_gone<T>(
        &self,
        id: GenerationId,
        refused: CommitError,
    ) -> Result<T, CommitError> {
        self.generation_now(id).await?;
        Err(refused)
    }
}

#[async_trait]
impl GenerationStore for PostgresStore {
    async fn begin_generation(&self, spec: GenerationSpec) -> Result<Generation, StoreError> {
        spec.check()?;
        let database = self.writable()?;
        let now = self.clock().now();
        to_its_end(async move {
            let begun = generation::begin(&database, spec, now).await;
            match begun {
                Ok(begun) => Ok(begun),
                Err(error) => Err(database.not_written(error).await),
            }
        })
        .await
    }

    async fn generations(&self, view: &str) -> Result<Vec<Generation>, StoreError> {
        ask!(self.database(), generation::of_view(self.database(), view))
    }

    async fn view_names(&self) -> Result<Vec<String>, StoreError> {
        ask!(self.database(), generation::view_names(self.database()))
    }

    async fn switch_to(&self, generation: GenerationId) -> Result<(), CommitError> {
        let database = self.writable()?;
        to_its_end(async move {
            ask!(&database, async {
                let mut connection = database.pool.acquire().await?;
                generation::switch_to(&database, &mut connection, generation).await
            })?
        })
        .await
    }

    async fn drop_generation(&self, generation: GenerationId) -> Result<(), CommitError> {
        let database = self.writable()?;
        let dropped = match self.generation_now(generation).await {
            Err(CommitError::Gone(_)) => return Ok(()),
            found => found?,
        };
        let done = to_its_end(async move {
            ask!(&database, async {
                let mut connection = database.pool.acquire().await?;
                generation::drop(&database, &mut connection, &dropped).await
            })?
        })
        .await;
        self.views_of().sweep();
        done.map(|_| ())
    }

    async fn states(&self, views: &[String]) -> Result<Vec<GenerationState>, StoreError> {
        let now = self.lease_moment();
        ask!(
            self.database(),
            states::of_views(self.database(), views, now)
        )
    }

    async fn checkpoints(&self, generation: GenerationId) -> Result<Vec<Checkpoint>, CommitError> {
        ask!(
            self.database(),
            rows::checkpoints(self.database(), generation)
        )?
    }
}

#[async_trait]
impl RowStore for PostgresStore {
    async fn commit_view(&self, commit: ViewCommit) -> Result<(), CommitError> {
        let database = self.writable()?;
        let id = commit.generation;
        let made_of = self.made_of(id).await?;
        let step = match Step::prepare(commit, &made_of) {
            Ok(step) => step,
            Err(invalid) => return self.unless_gone(id, invalid.into()).await,
        };
        to_its_end(async move { step.take(&database).await }).await
    }

    async fn read_rows(&self, read: ReadRows) -> Result<RowsPage, CommitError> {
        let made_of = self.made_of(read.generation).await?;
        match ask!(
            self.database(),
            rows::page(self.database(), &made_of, &read)
        )? {
            Err(refused @ CommitError::Invalid(_)) => {
                self.unless_gone(read.generation, refused).await
            }
            answer => answer,
        }
    }

    async fn read_past(
        &self,
        generation: GenerationId,
        keys: &[String],
        moment: Position,
    ) -> Result<Vec<PastRow>, CommitError> {
        let mut keys: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
        keys.sort_unstable();
        keys.dedup();
        ask!(
            self.database(),
            past::at(self.database(), generation, &keys, moment)
        )?
    }

    async fn past_keys(
        &self,
        generation: GenerationId,
        range: (Bound<String>, Bound<String>),
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, CommitError> {
        let range = rows::Keys::of(&range).after(after);
        ask!(
            self.database(),
            past::keys(self.database(), generation, &range, limit)
        )?
    }

    async fn row_versions(
        &self,
        generation: GenerationId,
        key: &str,
        between: (Position, Position),
        limit: usize,
    ) -> Result<Vec<RowVersion>, CommitError> {
        ask!(
            self.database(),
            past::versions(self.database(), generation, key, between, limit)
        )?
    }

    async fn keys_changed_between(
        &self,
        generation: GenerationId,
        between: (Position, Position),
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, CommitError> {
        let range = rows::Keys::all().after(after);
        ask!(
            self.database(),
            past::keys_changed(self.database(), generation, between, &range, limit)
        )?
    }

    async fn touched(
        &self,
        generation: GenerationId,
        key: &str,
        after: Position,
        up_to: Position,
        limit: usize,
    ) -> Result<Vec<Position>, CommitError> {
        ask!(
            self.database(),
            past::touched(self.database(), generation, key, (after, up_to), limit)
        )?
    }

    async fn read_state(
        &self,
        generation: GenerationId,
        slot: u16,
        after: Option<&[u8]>,
        bytes_max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, CommitError> {
        ask!(
            self.database(),
            past::state(self.database(), generation, slot, after, bytes_max)
        )?
    }

    async fn forget_history(
        &self,
        generation: GenerationId,
        since: Position,
    ) -> Result<(), CommitError> {
        let database = self.writable()?;
        let forget = || {
            let statement = query(database.text(sql::FORGET_HISTORY)).bind(stored(generation.0));
            statement.bind(stored(since.get())).execute(&database.pool)
        };
        let forgotten = ask!(&database, forget())?;
        self.views_of().sweep();
        if forgotten.rows_affected() == 0 {
            Err(CommitError::Gone(generation))
        } else {
            Ok(())
        }
    }
}

#[async_trait]
impl DeadLetterStore for PostgresStore {
    async fn dead_letters(
        &self,
        generation: GenerationId,
        after: Option<(&str, Partition, Position)>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, CommitError> {
        ask!(
            self.database(),
            dead_letters::dead_letters(self.database(), generation, after, limit)
        )?
    }

    async fn save_skip_decision(&self, skip_decision: SkipDecision) -> Result<(), StoreError> {
        let database = self.writable()?;
        to_its_end(async move {
            ask!(
                &database,
                dead_letters::save_skip_decision(&database, &skip_decision)
            )
        })
        .await
    }

    async fn skip_decisions(&self, view: &str) -> Result<Vec<SkipDecision>, StoreError> {
        ask!(
            self.database(),
            dead_letters::skip_decisions(self.database(), view)
        )
    }
}

/// A position, a generation or an epoch as it is stored.
pub(crate) fn stored(number: u64) -> i64 {
    number.cast_signed()
}

fn limited(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// Bytes that are not null.
pub(crate) fn owned_bytes(row: &PgRow, column: usize) -> Result<Vec<u8>, Error> {
    Ok(bytes(row, column)?.unwrap_or_default().to_vec())
}

/// A text that is kept as bytes.
pub(crate) fn owned_text(row: &PgRow, column: usize) -> Result<String, Error> {
    Ok(optional_text(row, column)?.unwrap_or_default())
}

fn optional_text(row: &PgRow, column: usize) -> Result<Option<String>, Error> {
    let Some(bytes) = bytes(row, column)? else {
        return Ok(None);
    };
    let text =
        std::str::from_utf8(bytes).map_err(|_| corrupt(format!("column {column} is not UTF-8")))?;
    Ok(Some(text.to_owned()))
}

/// What was found in a generation: nothing when it is gone, and one row of which the second column
/// is null when there is nothing in it.
fn listed<T>(
    generation: GenerationId,
    found: &[PgRow],
    of: impl Fn(&PgRow) -> Result<T, Error>,
) -> Result<Result<Vec<T>, CommitError>, Error> {
    if found.is_empty() {
        return Ok(Err(CommitError::Gone(generation)));
    }
    let mut listed = Vec::with_capacity(found.len());
    for row in found {
        if bytes(row, 1)?.is_some() {
            listed.push(of(row)?);
        }
    }
    Ok(Ok(listed))
}
