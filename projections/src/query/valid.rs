//! What had happened by a time of the world: the events that touched a row, those of them that had
//! occurred, folded once more.

use annals_core::chrono::{DateTime, Utc};
use annals_core::{Generation, History, Invalid, PAGE_EVENTS, Partition, Position};

use annals_runner::ViewError;

use super::ViewHandle;
use crate::fold::{decoded, folded};
use crate::removed::CountedEvents;
use crate::view::View;
use annals_runner::Skips;
use annals_runner::records_at;

impl<V: View> ViewHandle<V> {
    /// One row as it was valid at `time`, by what was known just after `moment`.
    pub(super) async fn valid_value(
        &self,
        generation: &Generation,
        key: &str,
        time: DateTime<Utc>,
        moment: Position,
    ) -> Result<Option<V>, ViewError> {
        if generation.spec.history != History::Bitemporal {
            let what = format!(
                "view `{}` does not keep which events touched a row; declare it with \
                 `history(bitemporal)`",
                V::NAME
            );
            return Err(Invalid::new(what).into());
        }
        let handlers = V::handlers();
        let store = &self.context.views;
        let skips = Skips::of(store.skip_decisions(V::NAME).await?);
        let log = &**self.context.db.store();
        let options = &self.context.options;
        let counted = CountedEvents {
            up_to: moment,
            valid_at: Some(time),
        };
        if !handlers.summaries().is_empty() {
            // A summary that occurred later does not count, and what it replaces is gone.
            let removed = handlers
                .removed(log, options, Partition(0), counted, None)
                .await?;
            handlers
                .check_answer(log, options, &removed, counted)
                .await?;
        }
        let mut after = Position::START;
        let mut value = None;
        loop {
            let touched = store
                .touched(generation.id, key, after, moment, PAGE_EVENTS)
                .await?;
            let Some(last) = touched.last() else {
                return Ok(decoded(key, value.as_ref())?);
            };
            after = *last;
            let mut steps = Vec::new();
            let records = records_at(log, Partition(0), &touched).await?;
            if records.len() < touched.len() {
                let mut removed = handlers
                    .removed(log, options, Partition(0), counted, None)
                    .await?;
                removed.retain(|removed| {
                    let of_row = touched.partition_point(|position| *position < removed.first);
                    touched.get(of_row).is_some_and(|of| *of <= removed.last)
                });
                handlers
                    .check_answer(log, options, &removed, counted)
                    .await?;
            }
            for record in records {
                if record.occurred_at <= time {
                    let prepared = handlers.prepare_except(&skips, record);
                    steps
                        .extend(prepared.map_err(|error| {
                            ViewError::Unreadable(annals_runner::chain(&error))
                        })?);
                }
            }
            value = folded::<V>(key, value, &steps)?.map_err(|(position, poison)| {
                let view = V::NAME;
                let why = poison.reason();
                ViewError::Unreadable(format!(
                    "row `{}` of view `{view}` cannot be folded as of {time}: without what \
                     occurred later, the event at {position} cannot be folded: {why}",
                    key.escape_debug()
                ))
            })?;
        }
    }
}
