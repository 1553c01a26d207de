//! What a batch changes.

use annals_core::chrono::{DateTime, Utc};
use annals_core::{DeadLetter, Position, RecordedEvent, RowAdvance, RowChange, RowVersion};

use super::row::{RowError, read_back};
use crate::view::{Poison, View};

/// Where a row is among those that a batch changed; batches count from 1.
#[derive(Clone, Copy, Default)]
pub(super) struct RowAt {
    batch: u64,
    index: usize,
}

/// What a batch changes.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    batch: u64,
    pub(crate) rows: Vec<RowChange>,
    pub(crate) versions: Vec<RowVersion>,
    pub(crate) touched: Vec<(String, Position)>,
    pub(crate) dead_letters: Vec<DeadLetter>,
    pub(crate) advances: Vec<RowAdvance>,
}

impl RowAt {
    /// Whether the row was changed by the batch.
    pub(super) fn is_of(self, changes: &Changes) -> bool {
        self.batch == changes.batch
    }

    /// The change of the batch that is here; else the end of `changes` becomes the place.
    pub(super) fn of<'a>(&mut self, changes: &'a mut Changes) -> Option<&'a mut RowChange> {
        if self.batch != changes.batch {
            *self = RowAt {
                batch: changes.batch,
                index: changes.rows.len(),
            };
        }
        changes.rows.get_mut(self.index)
    }
}

impl Changes {
    pub(super) fn of_batch(batch: u64) -> Changes {
        Changes {
            batch,
            ..Changes::default()
        }
    }

    /// How much of it is about the past, or about dead letters.
    pub(crate) fn past(&self) -> usize {
        self.versions.len() + self.touched.len() + self.dead_letters.len()
    }

    /// Whether everything that is written is read back as it was.
    pub(crate) fn read_back<V: View>(&self) -> Result<(), RowError> {
        for row in &self.rows {
            read_back::<V>(&row.key, row.value.as_ref())?;
        }
        for version in &self.versions {
            read_back::<V>(&version.key, version.value.as_ref())?;
        }
        Ok(())
    }

    /// An event becomes a dead letter once for a key, also when it reads as several.
    pub(super) fn dead_letter(
        &mut self,
        key: &str,
        record: &RecordedEvent,
        poison: Option<Poison>,
        now: DateTime<Utc>,
    ) {
        let mut of_event = self
            .dead_letters
            .iter()
            .rev()
            .take_while(|letter| letter.position == record.position);
        if of_event.any(|letter| letter.key == key) {
            return;
        }
        self.dead_letters.push(DeadLetter {
            key: key.into(),
            partition: record.partition,
            position: record.position,
            event: record.id,
            attempts: u32::from(poison.is_some()),
            reason: poison.map(|poison| DeadLetter::recorded(poison.reason())),
            dead_since: now,
        });
    }
}
