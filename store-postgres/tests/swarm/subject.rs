//! What the swarm writes to and reads from: Annals, or the control, which is what people write by
//! hand.

use std::collections::HashSet;
use std::time::Duration;

use annals_core::conformance::numbered::{Numbered, check, whole_log};
use annals_core::{EventStore, Hint, Log, Position, ReadLog};
use annals_postgres::sqlx::postgres::{PgPool, PgPoolOptions};
use annals_postgres::{Options, PostgresStore, sqlx};
use sqlx::AssertSqlSafe;

use super::record::{Event, Page};
use crate::server;

/// How many events of the control a reader takes at once.
const PAGE_EVENTS: i64 = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Annals,
    /// A table with a sequence, written by plain transactions; a reader goes on after the highest
    /// number that it has seen.
    Naive,
}

#[derive(Clone, Debug)]
pub(crate) enum Subject {
    Annals(PostgresStore),
    Naive { pool: PgPool, table: String },
}

impl Subject {
    pub(crate) async fn open(kind: Kind, schema: &str) -> Subject {
        match kind {
            Kind::Annals => {
                let options = server::url()
                    .parse::<Options>()
                    .unwrap()
                    .schema(schema)
                    .unwrap();
                Subject::Annals(PostgresStore::connect_with(options).await.unwrap())
            }
            Kind::Naive => {
                let pool = PgPoolOptions::new()
                    .max_connections(4)
                    .connect(&server::url())
                    .await
                    .unwrap();
                let table = format!("\"{schema}\".naive");
                let make = format!(
                    "create schema if not exists \"{schema}\"; create table if not exists {table} \
                     (id bigserial primary key, \
                     run bigint not null, task bigint not null, n bigint not null, recorded_at \
                     timestamptz not null default clock_timestamp())"
                );
                // Several may make it at once, and only one can.
                let _ = sqlx::raw_sql(AssertSqlSafe(make)).execute(&pool).await;
                Subject::Naive { pool, table }
            }
        }
    }

    /// Makes an append, which is acknowledged when this returns.
    pub(crate) async fn append(&self, numbered: Numbered) {
        match self {
            Subject::Annals(store) => drop(store.append(numbered.append()).await.unwrap()),
            Subject::Naive { pool, table } => {
                let mut transaction = pool.begin().await.unwrap();
                let insert = format!("insert into {table} (run, task, n) values ($1, $2, $3)");
                let insert = sqlx::query(AssertSqlSafe(insert))
                    .bind(numbered.run as i64)
                    .bind(numbered.task as i64);
                insert
                    .bind(numbered.n as i64)
                    .execute(&mut *transaction)
                    .await
                    .unwrap();
                transaction.commit().await.unwrap();
            }
        }
    }

    /// How many events an append of this number is.
    pub(crate) fn events_of(&self, numbered: Numbered) -> u64 {
        match self {
            Subject::Annals(_) => numbered.events(),
            Subject::Naive { .. } => 1,
        }
    }

    pub(crate) fn hint(&self) -> Option<Hint> {
        match self {
            Subject::Annals(store) => Some(store.hint()),
            Subject::Naive { .. } => None,
        }
    }

    /// What is there after a position, and whether that was all.
    pub(crate) async fn read(&self, after: u64) -> (Page, bool) {
        match self {
            Subject::Annals(store) => {
                let page = store
                    .read(ReadLog::after(Position::new(after)))
                    .await
                    .unwrap();
                let events: Vec<Event> = page.events.iter().map(Event::of).collect();
                (Page::new(after, page.scanned.get(), &events), page.end)
            }
            Subject::Naive { .. } => {
                let events = self.naive(after, PAGE_EVENTS).await;
                let last = events.last().map_or(after, |event| event.position);
                (
                    Page::new(after, last, &events),
                    (events.len() as i64) < PAGE_EVENTS,
                )
            }
        }
    }

    async fn naive(&self, after: u64, limit: i64) -> Vec<Event> {
        let Subject::Naive { pool, table } = self else {
            return Vec::new();
        };
        let select = format!(
            "select id, run, task, n, (extract(epoch from recorded_at) * 1000000)::bigint from \
             {table} where id > $1 order by id limit $2"
        );
        let select = sqlx::query_as::<_, (i64, i64, i64, i64, i64)>(AssertSqlSafe(select))
            .bind(after as i64)
            .bind(limit);
        let rows = select.fetch_all(pool).await.unwrap();
        let event = |(id, run, task, n, recorded_at): (i64, i64, i64, i64, i64)| {
            Event::new(
                id as u64,
                Numbered {
                    run: run as u64,
                    task: task as u64,
                    n: n as u64,
                },
                0,
                recorded_at,
            )
        };
        rows.into_iter().map(event).collect()
    }

    /// Everything that is there after the last write, with all that was acknowledged among it.
    pub(crate) async fn truth(&self, acknowledged: &HashSet<Numbered>) -> Vec<Event> {
        match self {
            Subject::Annals(store) => {
                let log = whole_log(store).await;
                check(&log, acknowledged);
                log.iter().map(Event::of).collect()
            }
            Subject::Naive { .. } => self.naive(0, i64::MAX).await,
        }
    }
}

/// Waits until there may be more to read.
pub(crate) async fn pause(hint: &mut Option<Hint>) {
    match hint {
        Some(hint) => hint.wait(Duration::from_millis(50)).await,
        // The control has no hints, and looks all the time.
        None => tokio::task::yield_now().await,
    }
}
