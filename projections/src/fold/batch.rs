//! The fold of a batch onto the rows at hand.

use std::collections::HashSet;

use annals_core::chrono::{DateTime, Utc};
use annals_core::{History, RowAdvance, RowChange, RowVersion};

use super::cache::{Rows, size};
use super::changes::Changes;
use super::history::{HistoryInterval, Touched, interval_end};
use super::row::{RowError, encode, indexed};
use crate::view::step::Step;
use crate::view::{Poison, View};

/// How closely rows are checked while they are folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checks {
    /// Written and read back once for a batch, at its end; what another event of the batch changes
    /// is looked at before.
    Batch,
    /// Written and read back after each event, so that the one is found that made a row unfit.
    Event,
}

impl<V: View> Rows<V> {
    /// Folds the next events of a batch, whose keys are all at hand, so that nothing of them is
    /// needed any more. `dead` are the keys in dead letters; it grows.
    ///
    /// Every event has to leave a row that can be stored, wherever batches end.
    ///
    /// # Errors
    ///
    /// A row that cannot be stored, when only batches are checked: the batch is folded again with
    /// [`Checks::Event`] then, which makes the event a dead letter.
    pub(crate) fn fold(
        &mut self,
        changes: &mut Changes,
        steps: &[Step<V>],
        dead: &mut HashSet<String>,
        now: DateTime<Utc>,
        checks: Checks,
    ) -> Result<(), RowError> {
        self.folds += 1;
        let mut dirty = Vec::new();
        let mut interval = HistoryInterval::default();
        for (index, step) in steps.iter().enumerate() {
            let record = step.record();
            if record.position > interval.end {
                self.keep_versions(&mut interval, changes)?;
                interval.end = interval_end(record.position);
            }
            for key in &step.keys {
                if self.has_already(key, record.version) {
                    continue;
                }
                if checks == Checks::Batch && !dead.contains(key) {
                    self.check_overwritten(key, changes)?;
                }
                let poison = if dead.contains(key) {
                    None
                } else if let Err(poison) = self.fold_one(key, step, checks).map(|first| {
                    dirty.extend(first.then_some(key.as_str()));
                }) {
                    let before = &steps[..index];
                    self.go_back(key, before, record.position);
                    interval.untouch(key, before, record.position);
                    changes
                        .touched
                        .retain(|(of, at)| of != key || *at != record.position);
                    dead.insert(key.clone());
                    Some(poison)
                } else {
                    if V::HISTORY != History::None {
                        interval.touch(key, record);
                    }
                    if V::HISTORY == History::Bitemporal {
                        changes.touched.push((key.clone(), record.position));
                    }
                    continue;
                };
                changes.dead_letter(key, record, poison, now);
            }
        }
        self.keep_versions(&mut interval, changes)?;
        self.of_batch += dirty.len();
        for key in dirty {
            self.keep_row(key, changes)?;
        }
        Ok(())
    }

    fn fold_one(&mut self, key: &str, step: &Step<V>, checks: Checks) -> Result<bool, Poison> {
        let first = self.apply(key, step)?;
        if checks == Checks::Event {
            self.check(key)?;
        }
        Ok(first)
    }

    /// What an event of this batch made of the row, and the next one changes: no one sees it where
    /// the batch ends after both, and where it ends between them it has to be stored.
    fn check_overwritten(&self, key: &str, changes: &Changes) -> Result<(), RowError> {
        match self.cached.peek(key) {
            Some(cached) if cached.folded == self.folds || cached.changed.is_of(changes) => {
                cached.can_be_stored(key)
            }
            _ => Ok(()),
        }
    }

    fn keep_versions(
        &mut self,
        interval: &mut HistoryInterval<'_>,
        changes: &mut Changes,
    ) -> Result<(), RowError> {
        let mut touched: Vec<_> = interval.touched.drain().collect();
        touched.sort_unstable_by_key(|(key, _)| *key);
        for (key, touched) in touched {
            let Touched {
                first,
                last,
                recorded_at,
            } = touched;
            let value = self.encoded(key)?;
            changes.versions.push(RowVersion {
                key: key.into(),
                after: first.minus(1),
                up_to: last,
                recorded_at,
                value,
            });
        }
        Ok(())
    }

    pub(super) fn keep_row(&mut self, key: &str, changes: &mut Changes) -> Result<(), RowError> {
        let Some(cached) = self.cached.peek_mut(key) else {
            return Ok(());
        };
        if self.inline && cached.version > cached.stored_version {
            changes.advances.push(RowAdvance {
                key: key.into(),
                from: cached.stored_version,
                to: cached.version,
            });
            cached.stored_version = cached.version;
        }
        let value = cached
            .value
            .as_ref()
            .map(|value| encode(key, value))
            .transpose()?;
        if cached.stored == value {
            return Ok(());
        }
        let entries = cached
            .value
            .as_ref()
            .map(|value| indexed(key, value))
            .transpose()?
            .unwrap_or_default();
        self.bytes = self.bytes - size(cached.stored.as_ref()) + size(value.as_ref());
        cached.stored.clone_from(&value);
        match cached.changed.of(changes) {
            Some(row) => (row.value, row.indexed) = (value, entries),
            None => changes.rows.push(RowChange {
                key: key.into(),
                value,
                indexed: entries,
            }),
        }
        Ok(())
    }
}
