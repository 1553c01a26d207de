//! Folding the log into a table by hand: one cursor over the log, a map of rows, and upserts of
//! what changed; with history, a row of the past for each event, too.

use std::collections::{HashMap, HashSet};

use annals_postgres::sqlx::postgres::PgConnection;
use annals_postgres::sqlx::{self, Connection};
use futures_util::TryStreamExt;

use super::Read;
use crate::Outcome;
use crate::rate::{Rate, Watch};
use crate::server::Schema;
use crate::view::{Balance, fold};

/// Events folded into one transaction: as many as a worker takes.
const BATCH_EVENTS: usize = 20_000;

/// The table of rows, and what a batch changes.
struct Table<'a> {
    schema: &'a Schema,
    connection: PgConnection,
    names: HashMap<i64, String>,
    rows: HashMap<i64, Balance>,
    changed: HashSet<i64>,
    past: Past,
}

/// What rows were after each event.
#[derive(Default)]
struct Past {
    keys: Vec<Vec<u8>>,
    positions: Vec<i64>,
    recorded_at: Vec<i64>,
    values: Vec<Vec<u8>>,
}

/// Folds the log of `log`, of which [`make_baseline_copy`](Schema::make_baseline_copy) made a
/// copy, into the table of rows of `views`.
///
/// # Errors
///
/// Those of the server and serde_json.
pub async fn rebuild(log: &Schema, views: &Schema, with_history: bool) -> Outcome<Rate> {
    let mut connection = log.connection().await?;
    let schema = views;
    let written = views.connection().await?;
    let watch = Watch::start();
    let names = sqlx::query_as(log.sql(include_str!("../sql/sqlx_streams.sql")))
        .fetch_all(&mut connection)
        .await?;
    let names = names.into_iter().collect();
    let rows = HashMap::new();
    let changed = HashSet::new();
    let past = Past::default();
    let mut table = Table {
        schema,
        connection: written,
        names,
        rows,
        changed,
        past,
    };
    let mut count = 0;
    let mut events =
        sqlx::query(log.sql(include_str!("../sql/sqlx_log.sql"))).fetch(&mut connection);
    while let Some(row) = events.try_next().await? {
        table.fold(&Read::of(&row)?, with_history)?;
        count += 1;
        if count % BATCH_EVENTS == 0 {
            table.write().await?;
        }
    }
    table.write().await?;
    Ok(watch.stop(count))
}

impl Table<'_> {
    fn fold(&mut self, event: &Read, with_history: bool) -> Outcome<()> {
        let row = self.rows.entry(event.stream).or_default();
        fold(&mut row.cents, &mut row.events, &event.event);
        self.changed.insert(event.stream);
        if with_history {
            self.past.values.push(serde_json::to_vec(row)?);
            self.past.keys.push(self.key(event.stream).into());
            self.past.positions.push(event.position);
            self.past.recorded_at.push(event.recorded_at);
        }
        Ok(())
    }

    fn key(&self, stream: i64) -> &str {
        self.names
            .get(&stream)
            .and_then(|name| name.split_once('-'))
            .map_or("", |(_, id)| id)
    }

    async fn write(&mut self) -> Outcome<()> {
        let mut changed: Vec<i64> = self.changed.drain().collect();
        // In the order of the keys, as the index is.
        changed.sort_unstable_by(|one, other| self.key(*one).cmp(self.key(*other)));
        let keys: Vec<&[u8]> = changed
            .iter()
            .map(|stream| self.key(*stream).as_bytes())
            .collect();
        let values = changed
            .iter()
            .map(|stream| serde_json::to_vec(&self.rows[stream]));
        let upsert = sqlx::query(self.schema.sql(include_str!("../sql/sqlx_upsert_rows.sql")));
        let upsert = upsert
            .bind(keys)
            .bind(values.collect::<Result<Vec<_>, _>>()?);
        let past = std::mem::take(&mut self.past);
        let mut transaction = self.connection.begin().await?;
        if !past.keys.is_empty() {
            sqlx::query(
                self.schema
                    .sql(include_str!("../sql/sqlx_insert_versions.sql")),
            )
            .bind(past.keys)
            .bind(past.positions)
            .bind(past.recorded_at)
            .bind(past.values)
            .execute(&mut *transaction)
            .await?;
        }
        upsert.execute(&mut *transaction).await?;
        Ok(transaction.commit().await?)
    }
}
