//! Asking a table of the past by hand: one select, and the row read with serde_json.

use std::time::Instant;

use rusqlite::OptionalExtension;

use super::Baseline;
use crate::Outcome;
use crate::latency::Laps;
use crate::past::{Answers, Questions};

impl Baseline {
    /// Asks the history that [`rebuild`](Baseline::rebuild) left.
    ///
    /// # Errors
    ///
    /// Those of SQLite and serde_json.
    pub fn ask(&self, questions: &Questions) -> Outcome<Answers> {
        let mut laps = Laps::start();
        let mut answers = Answers::default();
        for (number, position) in questions.make() {
            let start = Instant::now();
            let mut select = self
                .connection
                .prepare_cached(include_str!("../sql/version_at.sql"))?;
            let value = select
                .query_row((number.to_string(), position.get().cast_signed()), |row| {
                    row.get::<_, Vec<u8>>(0)
                })
                .optional()?;
            let row = value
                .map(|value| serde_json::from_slice(&value))
                .transpose()?;
            laps.took(start);
            answers.take(row.as_ref());
        }
        Ok(Answers {
            latencies: laps.stop(),
            ..answers
        })
    }
}
