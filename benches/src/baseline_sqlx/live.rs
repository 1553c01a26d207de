//! An event and the row that shows it, written by hand in one transaction and read back.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use annals_postgres::sqlx::postgres::PgConnection;
use annals_postgres::sqlx::{self, Connection};
use tokio::task::JoinSet;

use super::insert;
use crate::Outcome;
use crate::latency::{Laps, Latencies};
use crate::live::{Live, Ready};
use crate::server::Schema;
use crate::view::{Balance, fold};

/// The connection of one task, and the rows that it alone changes.
struct Session {
    schema: Schema,
    connection: PgConnection,
    rows: HashMap<usize, Balance>,
}

/// Each task has a connection: an insert, an upsert and a commit, then a select.
///
/// # Errors
///
/// Those of the server and serde_json.
pub async fn live(schema: &Schema, live: &Live) -> Outcome<Latencies> {
    let mut sessions = Vec::new();
    for task in 0..live.tasks {
        let schema = schema.clone();
        let connection = schema.connection().await?;
        sessions.push((
            task,
            live.share(task)?,
            Session {
                schema,
                connection,
                rows: HashMap::new(),
            },
        ));
    }
    let laps = Laps::start();
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for (task, share, mut session) in sessions {
        let live = *live;
        tasks.spawn(async move {
            let mut each = Vec::with_capacity(share.len());
            for (index, ready) in share.into_iter().enumerate() {
                tokio::time::sleep_until((start + live.due(task, index)).into()).await;
                each.push(session.write_and_see(ready).await?);
            }
            Outcome::Ok(each)
        });
    }
    let mut each = Vec::with_capacity(live.appends);
    while let Some(done) = tasks.join_next().await {
        each.extend(done??);
    }
    Ok(laps.stop_with(each))
}

impl Session {
    async fn write_and_see(&mut self, ready: Ready) -> Outcome<Duration> {
        let Session {
            schema,
            connection,
            rows,
        } = self;
        let Ready {
            number,
            event,
            new,
            events,
            ..
        } = ready;
        let key = number.to_string().into_bytes();
        let digest = new.digest();
        let stream = i64::try_from(number)?;
        let version = events.cast_signed();
        let began = Instant::now();
        let mut transaction = connection.begin().await?;
        insert(&mut transaction, schema, stream, version, &new, digest).await?;
        let row = rows.entry(number).or_default();
        fold(&mut row.cents, &mut row.events, &event);
        sqlx::query(schema.sql(include_str!("../sql/sqlx_upsert_row.sql")))
            .bind(&key)
            .bind(serde_json::to_vec(row)?)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        let select = sqlx::query_scalar(schema.sql(include_str!("../sql/sqlx_row.sql"))).bind(&key);
        let value: Vec<u8> = select.fetch_one(connection).await?;
        let row: Balance = serde_json::from_slice(&value)?;
        match row.events == events {
            true => Ok(began.elapsed()),
            false => Err(format!("the row of account {number} is {row:?}").into()),
        }
    }
}
