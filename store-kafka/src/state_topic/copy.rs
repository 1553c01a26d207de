//! Another generation serves: all its rows, and tombstones for keys that it has not.

use std::ops::Bound;

use annals_core::{
    Outgoing, Outlet as _, OutletError, OutletMark, Partition, Position, ReadRows, RowsBy,
};
use annals_runner::WorkError;

use super::follow::{Place, Publishing};
use super::keys::keys_of;
use super::note::Note;

/// Records of a transaction.
const BATCH: usize = 2_000;

impl Publishing<'_> {
    /// Copies all rows; what changes meanwhile is published afterwards, from where the rows were
    /// when this began.
    pub(super) async fn copy(&mut self) -> Result<(), WorkError> {
        let generation = self.generation.id;
        let places = self.settled().await?;
        // After the places: an event that is a dead letter lies before them.
        let dead = self.dead_keys().await?;
        let mut gone = keys_of(self.kafka, &self.topic).await?;
        let all = RowsBy::KeyRange(Bound::Unbounded, Bound::Unbounded);
        let mut after = None;
        let unfinished = Note::new(generation.0, false, &dead).written();
        // Batches do not grow before all is copied: a failure begins the copy again.
        let batch_max = self.state_topic.batch_limit.of(BATCH);
        loop {
            let read = ReadRows::of(generation, all.clone())
                .after(after)
                .limit(batch_max);
            let page = self.context.views.read_rows(read).await?;
            let rows = page.rows.into_iter();
            let batch: Vec<_> = rows
                .map(|row| {
                    gone.remove(&row.key);
                    self.outgoing(&row.key, Some(row.value))
                })
                .collect();
            if !batch.is_empty() {
                let mark = self.mark(Partition(0), Position::START, None, unfinished.clone());
                self.take(batch, mark).await?;
            }
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        let gone: Vec<String> = gone.into_iter().collect();
        for keys in gone.chunks(batch_max) {
            let tombstones = keys.iter().map(|key| self.outgoing(key, None));
            let mark = self.mark(Partition(0), Position::START, None, unfinished.clone());
            self.take(tombstones.collect(), mark).await?;
        }
        let finished = Note::new(generation.0, true, &dead).written();
        for (partition, position) in places {
            let event = self.event_at(partition, position).await?;
            let mark = self.mark(partition, position, event, finished.clone());
            self.take(Vec::new(), mark).await?;
            let place = Place {
                marked: position,
                read_to: position,
            };
            self.places.insert(partition, place);
        }
        self.dead = dead;
        tracing::info!(
            view = self.generation.spec.view,
            generation = generation.0,
            tombstones = gone.len(),
            "all rows of a generation were published"
        );
        Ok(())
    }

    pub(super) async fn take(
        &mut self,
        batch: Vec<Outgoing>,
        mark: OutletMark,
    ) -> Result<(), WorkError> {
        let taken = self.outlet.take(batch, mark).await;
        if matches!(taken, Err(OutletError::Undecided(_))) {
            // It may have been too large for the time that a transaction has.
            self.state_topic.batch_limit.failed();
        }
        taken.map_err(|error| self.failed(error))
    }

    pub(super) fn failed(&self, error: OutletError) -> WorkError {
        match error {
            // Opening it again says what was taken.
            OutletError::Undecided(error) | OutletError::Store(error) => error.into(),
            error => WorkError::Stopped(self.state_topic.said(&error.to_string())),
        }
    }
}
