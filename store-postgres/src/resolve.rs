//! Names become keys: streams with their versions, and kinds.

use annals_core::StreamId;
use sqlx::postgres::{PgExecutor, PgRow};
use sqlx::{Error, Row, query, query_scalar};

use crate::database::Database;
use crate::request::KindName;
use crate::row::{int8, number, stream_id};
use crate::statements as sql;
use crate::stream_cache::StreamEntry;
use crate::streams;

/// The keys of streams and their versions; those that have none are given one when that is asked
/// for.
pub(crate) async fn resolve(
    database: &Database,
    on: impl PgExecutor<'_>,
    names: &[StreamId],
    make: bool,
) -> Result<Vec<(StreamId, i64, StreamEntry)>, Error> {
    let names: Vec<&str> = names.iter().map(StreamId::as_str).collect();
    let rows = query(database.text(sql::RESOLVE_STREAMS))
        .bind(names)
        .bind(make)
        .fetch_all(on)
        .await?;
    let entry = |row: &PgRow| {
        let version = number(row, 2)?;
        Ok((
            stream_id(row, 0)?,
            int8(row, 1)?,
            StreamEntry {
                version,
                status: streams::status(row.try_get(3)?, version),
            },
        ))
    };
    rows.iter().map(entry).collect()
}

/// The key of a kind, which is given one when it has none.
pub(crate) async fn resolve_kind(
    database: &Database,
    on: impl PgExecutor<'_>,
    kind: &KindName,
) -> Result<i32, Error> {
    query_scalar(database.text(sql::RESOLVE_KIND))
        .bind(&*kind.event_type)
        .bind(i64::from(kind.schema_version))
        .bind(&*kind.codec)
        .bind(&kind.category)
        .fetch_one(on)
        .await
}
