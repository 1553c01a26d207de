//! Folding the log into a table by hand: one cursor over the log, a map of rows, and upserts of
//! what changed; with history, a row of the past for each event, too.

use std::collections::{HashMap, HashSet};

use rusqlite::{TransactionBehavior, params};

use super::Baseline;
use super::read::read;
use crate::Outcome;
use crate::rate::{Rate, Watch};
use crate::view::{Balance, fold};

/// Events folded into one transaction: as many as a worker takes.
const BATCH_EVENTS: usize = 20_000;

/// What a batch changes.
#[derive(Default)]
struct Batch {
    changed: HashSet<i64>,
    past: Vec<Version>,
}

/// What a row was after an event.
struct Version {
    stream: i64,
    position: i64,
    recorded_at: i64,
    value: Vec<u8>,
}

impl Baseline {
    /// Folds the whole log into the table of rows of `views`.
    ///
    /// # Errors
    ///
    /// Those of SQLite and serde_json.
    pub fn rebuild(&self, views: &mut Baseline, with_history: bool) -> Outcome<Rate> {
        let watch = Watch::start();
        let kinds = self.kinds()?;
        let mut names = self
            .connection
            .prepare(include_str!("../sql/streams.sql"))?;
        let names = names.query_map([], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
        })?;
        let names: HashMap<_, _> = names.collect::<Result<_, _>>()?;
        let mut rows: HashMap<i64, Balance> = HashMap::new();
        let mut batch = Batch::default();
        let mut count = 0;
        let mut statement = self.connection.prepare(include_str!("../sql/log.sql"))?;
        let mut events = statement.query([1, i64::MAX])?;
        while let Some(row) = events.next()? {
            let event = read(row, &kinds)?;
            let balance = rows.entry(event.stream).or_default();
            fold(&mut balance.cents, &mut balance.events, &event.event);
            batch.changed.insert(event.stream);
            if with_history {
                let stream = event.stream;
                let position = event.position;
                let recorded_at = event.recorded_at;
                batch.past.push(Version {
                    stream,
                    position,
                    recorded_at,
                    value: serde_json::to_vec(balance)?,
                });
            }
            count += 1;
            if count % BATCH_EVENTS == 0 {
                views.write(&rows, &names, &mut batch)?;
            }
        }
        views.write(&rows, &names, &mut batch)?;
        Ok(watch.stop(count))
    }

    fn write(
        &mut self,
        rows: &HashMap<i64, Balance>,
        names: &HashMap<i64, String>,
        batch: &mut Batch,
    ) -> Outcome<()> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let id = |stream: i64| {
                names
                    .get(&stream)
                    .and_then(|name| name.split_once('-'))
                    .map_or("", |(_, id)| id)
            };
            let mut insert =
                transaction.prepare_cached(include_str!("../sql/insert_version.sql"))?;
            for Version {
                stream,
                position,
                recorded_at,
                value,
            } in batch.past.drain(..)
            {
                insert.execute(params![id(stream), position, recorded_at, value])?;
            }
            let mut upsert = transaction.prepare_cached(include_str!("../sql/upsert_row.sql"))?;
            // In the order of the keys, as the table is.
            let mut keys: Vec<_> = batch
                .changed
                .drain()
                .map(|stream| (id(stream), stream))
                .collect();
            keys.sort_unstable();
            for (key, stream) in keys {
                upsert.execute(params![key, serde_json::to_vec(&rows[&stream])?])?;
            }
        }
        Ok(transaction.commit()?)
    }
}
