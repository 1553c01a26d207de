//! The same work on PostgreSQL by hand: sqlx with prepared statements, and a table with the columns
//! and indexes of Annals' own. What Annals computes on the way (digests, checks) was computed
//! before the clock starts.

mod live;
mod past;
mod view;

use std::time::{Duration, Instant};

use annals::StreamId;
use annals::store::{Digest, NewEvent};
use annals_postgres::sqlx::postgres::{PgConnection, PgRow};
use annals_postgres::sqlx::{self, Row};
use futures_util::TryStreamExt;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::Outcome;
use crate::account::AccountEvent;
use crate::append::join;
use crate::baseline_sqlite::Content;
use crate::rate::{Rate, Watch};
use crate::replay::{Replayed, cents};
use crate::server::Schema;
pub use live::live;
pub use past::ask;
pub use view::rebuild;

/// The kinds of events; the table has their places here, from 1.
pub(crate) const KINDS: [&str; 4] = [
    "account.opened",
    "account.deposited",
    "account.withdrawn",
    "account.closed",
];

type Made = Vec<(StreamId, Vec<NewEvent>)>;

/// The key of a stream, and its events with their digests.
type Ready = (i64, Vec<(NewEvent, Digest)>);

/// Each client inserts the events of its streams, a transaction for each event, on a connection of
/// its own. That an event is the next of its stream is seen to by a unique index. The first stream
/// has the key `first`.
///
/// # Errors
///
/// Those of the server.
pub async fn singles(schema: &Schema, made: Made, clients: usize, first: i64) -> Outcome<Rate> {
    let count = made.iter().map(|(_, events)| events.len()).sum();
    let mut shares: Vec<Vec<Ready>> = (0..clients).map(|_| Vec::new()).collect();
    for ((at, key), (_, events)) in (first..).enumerate().zip(made) {
        shares[at % clients].push((
            key,
            events
                .into_iter()
                .map(|event| (event.clone(), event.digest()))
                .collect(),
        ));
    }
    let mut ready = Vec::new();
    for share in shares {
        ready.push((share, schema.connection().await?));
    }
    let watch = Watch::start();
    let mut tasks = JoinSet::new();
    for (share, mut connection) in ready {
        let schema = schema.clone();
        tasks.spawn(async move {
            for (stream, events) in share {
                for (version, (event, digest)) in (1_i64..).zip(events) {
                    insert(&mut connection, &schema, stream, version, &event, digest).await?;
                }
            }
            Outcome::Ok(())
        });
    }
    join(tasks).await?;
    Ok(watch.stop(count))
}

/// One client that inserts the events of its streams, a transaction for each event.
#[derive(Debug)]
pub struct Inserts {
    connection: PgConnection,
    schema: Schema,
    first: i64,
}

impl Inserts {
    /// A client whose first stream has the key `first`.
    ///
    /// # Errors
    ///
    /// Those of the server.
    pub async fn connect(schema: &Schema, first: i64) -> Outcome<Inserts> {
        Ok(Inserts {
            connection: schema.connection().await?,
            schema: schema.clone(),
            first,
        })
    }

    /// Inserts these as the events after this version, one after another; how long each took.
    ///
    /// # Errors
    ///
    /// Those of the server.
    pub async fn run(&mut self, made: Made, after: i64) -> Outcome<Vec<Duration>> {
        let mut ready: Vec<Ready> = Vec::new();
        for (key, (_, events)) in (self.first..).zip(made) {
            let digested = events
                .into_iter()
                .map(|event| (event.clone(), event.digest()));
            ready.push((key, digested.collect()));
        }
        let mut took = Vec::new();
        for (stream, events) in ready {
            for (version, (event, digest)) in (after + 1..).zip(events) {
                let began = Instant::now();
                let connection = &mut self.connection;
                insert(connection, &self.schema, stream, version, &event, digest).await?;
                took.push(began.elapsed());
            }
        }
        Ok(took)
    }
}

async fn insert(
    connection: &mut PgConnection,
    schema: &Schema,
    stream: i64,
    version: i64,
    event: &NewEvent,
    digest: Digest,
) -> Outcome<()> {
    sqlx::query(schema.sql(include_str!("sql/sqlx_insert.sql")))
        .bind(stream)
        .bind(version)
        .bind(kind(event))
        .bind(0_i32)
        .bind(1_i32)
        .bind(event.occurred_at.timestamp_micros())
        // Made when it is needed, as programs do: ids that ascend with time are cheap to index.
        .bind(annals::EventId::random().as_uuid())
        .bind(Uuid::from_bytes(digest.0))
        .bind(metadata(event))
        .bind(&*event.payload)
        .execute(connection)
        .await?;
    Ok(())
}

/// One connection inserts one batch after another, each by one statement in a transaction of its
/// own.
///
/// # Errors
///
/// Those of the server.
pub async fn batches(schema: &Schema, made: Made) -> Outcome<Rate> {
    let count = made.iter().map(|(_, events)| events.len()).sum();
    let mut connection = schema.connection().await?;
    let mut at = std::collections::HashMap::new();
    let mut ready = Vec::new();
    for (stream, events) in &made {
        let keys = at.len() as i64;
        let (key, version) = at.entry(stream.clone()).or_insert((keys, 0_i64));
        let first = *version + 1;
        *version += events.len() as i64;
        ready.push((
            *key,
            (first..=*version).collect::<Vec<_>>(),
            Columns::of(events),
        ));
    }
    let watch = Watch::start();
    for (key, versions, columns) in ready {
        sqlx::query(schema.sql(include_str!("sql/sqlx_insert_batch.sql")))
            .bind(key)
            .bind(versions)
            .bind(columns.kinds)
            .bind(columns.indexes)
            .bind(columns.counts)
            .bind(columns.occurred_at)
            .bind(columns.ids)
            .bind(columns.digests)
            .bind(columns.metadata)
            .bind(columns.payloads)
            .execute(&mut connection)
            .await?;
    }
    Ok(watch.stop(count))
}

/// A batch as the server takes it, column by column.
#[derive(Default)]
struct Columns {
    kinds: Vec<i32>,
    indexes: Vec<i32>,
    counts: Vec<i32>,
    occurred_at: Vec<i64>,
    ids: Vec<Uuid>,
    digests: Vec<Uuid>,
    metadata: Vec<Option<Vec<u8>>>,
    payloads: Vec<Vec<u8>>,
}

impl Columns {
    fn of(events: &[NewEvent]) -> Columns {
        let mut columns = Columns::default();
        for (index, event) in (0..).zip(events) {
            columns.kinds.push(kind(event));
            columns.indexes.push(index);
            columns.counts.push(events.len() as i32);
            columns
                .occurred_at
                .push(event.occurred_at.timestamp_micros());
            columns.ids.push(*event.id.as_uuid());
            columns.digests.push(Uuid::from_bytes(event.digest().0));
            columns.metadata.push(metadata(event));
            columns.payloads.push(event.payload.to_vec());
        }
        columns
    }
}

fn kind(event: &NewEvent) -> i32 {
    KINDS
        .iter()
        .position(|name| **name == *event.event_type)
        .map_or(0, |at| at as i32 + 1)
}

fn metadata(event: &NewEvent) -> Option<Vec<u8>> {
    event
        .metadata
        .correlation
        .map(|id| [&[1][..], id.as_bytes()].concat())
}

/// Every column of a row as a Rust value, with the event.
#[allow(dead_code, reason = "they are read because Annals reads them")]
struct Read {
    position: i64,
    stream: i64,
    version: i64,
    append_index: i32,
    occurred_at: i64,
    recorded_at: i64,
    id: Uuid,
    tags: Option<String>,
    metadata: Option<Vec<u8>>,
    event: AccountEvent,
}

impl Read {
    fn of(row: &PgRow) -> Outcome<Read> {
        let payload: &[u8] = row.try_get(10)?;
        let event = match row.try_get::<i32, _>(3)? {
            1 => Content::Opened,
            2 => Content::Deposited,
            3 => Content::Withdrawn,
            4 => Content::Closed,
            _ => Content::Other,
        };
        let event = event.read(payload)?;
        Ok(Read {
            position: row.try_get(0)?,
            stream: row.try_get(1)?,
            version: row.try_get(2)?,
            append_index: row.try_get(4)?,
            occurred_at: row.try_get(5)?,
            recorded_at: row.try_get(6)?,
            id: row.try_get(7)?,
            tags: row.try_get(8)?,
            metadata: row.try_get(9)?,
            event,
        })
    }
}

/// The whole table in its order, as the rows come; nothing is kept of an event but its sum.
///
/// # Errors
///
/// Those of the server and serde_json.
pub async fn replay(schema: &Schema) -> Outcome<Replayed> {
    let mut connection = schema.connection().await?;
    let watch = Watch::start();
    let mut count = 0;
    let mut sum = 0;
    let mut rows = sqlx::query(schema.sql(include_str!("sql/sqlx_log.sql"))).fetch(&mut connection);
    while let Some(row) = rows.try_next().await? {
        sum += cents(&Read::of(&row)?.event);
        count += 1;
    }
    Ok(Replayed {
        rate: watch.stop(count),
        cents: sum,
    })
}
