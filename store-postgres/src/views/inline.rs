//! Rows of inline views, written with appends: what is checked of them beforehand, and how they
//! are read.

use annals_core::{
    AppendError, CommitError, GenerationId, History, InlineRow, InlineViews, Invalid, Version,
    VersionedRow,
};
use async_trait::async_trait;
use bytes::Bytes;
use sqlx::postgres::PgExecutor;
use sqlx::{Error, query};

use super::{listed, owned_text, stored};
use crate::database::{Database, ask};
use crate::row::{bytes, number};
use crate::statements as sql;
use crate::store::PostgresStore;

/// What is needed to write an inline row, besides the row.
#[derive(Debug)]
pub(crate) struct Carried {
    /// Its place among the rows of the append.
    pub(crate) row: usize,
    /// Its stream's version once the append is made.
    pub(crate) to: Version,
    pub(crate) has_indexes: bool,
    pub(crate) is_bitemporal: bool,
}

impl PostgresStore {
    /// The row as it is to be written; nothing when its generation is gone.
    pub(crate) async fn carried(
        &self,
        place: usize,
        row: &InlineRow,
        to: Option<Version>,
    ) -> Result<Option<Carried>, AppendError> {
        let generation = match self.made_of(row.generation).await {
            Ok(generation) => generation,
            Err(CommitError::Store(error)) => return Err(error.into()),
            Err(_) => return Ok(None),
        };
        row.check(&generation)?;
        let to = to
            .ok_or_else(|| Invalid::new("an inline row needs an expected version of its stream"))?;
        let spec = &generation.spec;
        let has_indexes = !spec.indexes.is_empty();
        let is_bitemporal = spec.history == History::Bitemporal;
        Ok(Some(Carried {
            row: place,
            to,
            has_indexes,
            is_bitemporal,
        }))
    }
}

/// Makes a record for the version of each of these rows, before one is locked.
pub(crate) async fn ensure_stream_versions<'c>(
    database: &Database,
    executor: impl PgExecutor<'c>,
    generations: Vec<i64>,
    keys: Vec<&[u8]>,
) -> Result<(), Error> {
    query(database.text(sql::ENSURE_STREAM_VERSIONS))
        .bind(generations)
        .bind(keys)
        .execute(executor)
        .await
        .map(drop)
}

#[async_trait]
impl InlineViews for PostgresStore {
    async fn read_versioned(
        &self,
        generation: GenerationId,
        keys: &[String],
    ) -> Result<Vec<VersionedRow>, CommitError> {
        let database = self.database();
        let keys: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
        ask!(database, entry(database, generation, &keys))?
    }
}

async fn entry(
    database: &Database,
    generation: GenerationId,
    keys: &[&[u8]],
) -> Result<Result<Vec<VersionedRow>, CommitError>, Error> {
    let statement = query(database.text(sql::VERSIONED_ROWS))
        .bind(stored(generation.0))
        .bind(keys);
    listed(
        generation,
        &statement.fetch_all(&database.pool).await?,
        |row| {
            let value = bytes(row, 3)?.map(Bytes::copy_from_slice);
            Ok(VersionedRow {
                key: owned_text(row, 1)?,
                value,
                at: Version::new(number(row, 2)?),
            })
        },
    )
}
