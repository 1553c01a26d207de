//! An event and the row that shows it, written by hand in one transaction and read back.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use annals::store::Digest;
use rusqlite::params;

use super::Baseline;
use super::append::Known;
use crate::Outcome;
use crate::latency::{Laps, Latencies};
use crate::live::{Live, Ready};
use crate::view::{Balance, fold};

/// The one connection, and what a program that is the only writer knows.
struct Insert {
    baseline: Baseline,
    known: Known,
    rows: HashMap<usize, Balance>,
}

impl Baseline {
    /// Each task is a thread, and they take turns at one connection: an insert, an upsert and a
    /// commit, then a select.
    ///
    /// # Errors
    ///
    /// Those of SQLite and serde_json.
    #[allow(clippy::disallowed_methods, reason = "the rate is part of the work")]
    pub fn live(self, live: &Live) -> Outcome<Latencies> {
        let shares = (0..live.tasks)
            .map(|task| live.share(task))
            .collect::<Outcome<Vec<_>>>()?;
        let insert = Mutex::new(Insert {
            baseline: self,
            known: Known::default(),
            rows: HashMap::new(),
        });
        let laps = Laps::start();
        let start = Instant::now();
        let work = |(task, share): (usize, Vec<Ready>)| -> Outcome<Vec<Duration>> {
            let mut each = Vec::with_capacity(share.len());
            for (index, ready) in share.into_iter().enumerate() {
                std::thread::sleep(
                    (start + live.due(task, index)).saturating_duration_since(Instant::now()),
                );
                let digest = ready.new.digest();
                let began = Instant::now();
                insert
                    .lock()
                    .map_err(|_| "a thread panicked")?
                    .write_and_see(ready, digest)?;
                each.push(began.elapsed());
            }
            Ok(each)
        };
        let each = std::thread::scope(|threads| {
            let tasks: Vec<_> = shares
                .into_iter()
                .enumerate()
                .map(|share| {
                    threads.spawn({
                        let work = &work;
                        move || work(share)
                    })
                })
                .collect();
            let mut each = Vec::with_capacity(live.appends);
            for task in tasks {
                each.extend(task.join().map_err(|_| "a thread panicked")??);
            }
            Outcome::Ok(each)
        })?;
        Ok(laps.stop_with(each))
    }
}

impl Insert {
    fn write_and_see(&mut self, ready: Ready, digest: Digest) -> Outcome<()> {
        let Insert {
            baseline,
            known,
            rows,
        } = self;
        let Ready {
            number,
            stream,
            event,
            new,
            events,
        } = ready;
        let key = number.to_string();
        baseline
            .connection
            .prepare_cached("begin immediate")?
            .execute([])?;
        {
            let mut insert = baseline
                .connection
                .prepare_cached(include_str!("../sql/insert_event.sql"))?;
            baseline.insert(&mut insert, known, &stream, &[(new, digest)])?;
            let row = rows.entry(number).or_default();
            fold(&mut row.cents, &mut row.events, &event);
            let mut upsert = baseline
                .connection
                .prepare_cached(include_str!("../sql/upsert_row.sql"))?;
            upsert.execute(params![key, serde_json::to_vec(row)?])?;
        }
        baseline.connection.prepare_cached("commit")?.execute([])?;
        let mut select = baseline
            .connection
            .prepare_cached(include_str!("../sql/row.sql"))?;
        let value = select.query_row([key], |row| row.get::<_, Vec<u8>>(0))?;
        let row: Balance = serde_json::from_slice(&value)?;
        if row.events == events {
            Ok(())
        } else {
            Err(format!("the row of account {number} is {row:?}").into())
        }
    }
}
