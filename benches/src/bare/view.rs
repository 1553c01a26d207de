//! Folding the log into a table by hand: one cursor over the log, a map of rows, and upserts of what changed.

use std::collections::{HashMap, HashSet};

use rusqlite::{TransactionBehavior, params};

use super::Bare;
use super::read::read;
use crate::Outcome;
use crate::rate::{Rate, Watch};
use crate::view::{Balance, fold};

/// Events folded into one transaction: as many as a worker takes.
const BATCH_EVENTS: usize = 20_000;

impl Bare {
    /// Folds the whole log into the table of rows of `views`.
    ///
    /// # Errors
    ///
    /// Those of SQLite and serde_json.
    pub fn rebuild(&self, views: &mut Bare) -> Outcome<Rate> {
        let watch = Watch::start();
        let kinds = self.kinds()?;
        let mut names = self.connection.prepare(include_str!("../sql/streams.sql"))?;
        let names = names.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))?;
        let names: HashMap<_, _> = names.collect::<Result<_, _>>()?;
        let mut rows: HashMap<i64, Balance> = HashMap::new();
        let mut changed = HashSet::new();
        let mut count = 0;
        let mut statement = self.connection.prepare(include_str!("../sql/log.sql"))?;
        let mut events = statement.query([1, i64::MAX])?;
        while let Some(row) = events.next()? {
            let event = read(row, &kinds)?;
            let balance = rows.entry(event.stream).or_default();
            fold(&mut balance.cents, &mut balance.events, &event.event);
            changed.insert(event.stream);
            count += 1;
            if count % BATCH_EVENTS == 0 {
                views.upsert(&rows, &names, &mut changed)?;
            }
        }
        views.upsert(&rows, &names, &mut changed)?;
        Ok(watch.stop(count))
    }

    fn upsert(
        &mut self,
        rows: &HashMap<i64, Balance>,
        names: &HashMap<i64, String>,
        changed: &mut HashSet<i64>,
    ) -> Outcome<()> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut upsert = transaction.prepare_cached(include_str!("../sql/upsert_row.sql"))?;
            // In the order of the keys, as the table is.
            let mut keys: Vec<_> =
                changed.drain().filter_map(|stream| Some((id(names.get(&stream)?), stream))).collect();
            keys.sort_unstable();
            for (key, stream) in keys {
                upsert.execute(params![key, serde_json::to_vec(&rows[&stream])?])?;
            }
        }
        Ok(transaction.commit()?)
    }
}

fn id(stream: &str) -> &str {
    stream.split_once('-').map_or("", |(_, id)| id)
}
