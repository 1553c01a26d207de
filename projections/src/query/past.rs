//! The past of a view: the version that held, and where a moment lies inside a batch, that batch's
//! events once more.

use std::time::Duration;

use annals_core::{Generation, Moment, Partition, PastRow, Position, ReadLog, Token};
use bytes::Bytes;

use super::history::keeping_the_past;
use super::on_demand::no_one_position;
use annals_runner::ViewError;

use super::ViewHandle;
use crate::fold::{encode, refold};
use crate::removed::CountedEvents;
use crate::view::View;
use crate::view::step::Step;
use annals_runner::Skips;

impl<V: View> ViewHandle<V> {
    /// The position that a moment means, and the generation that can answer for it: the live one,
    /// once it has come so far.
    pub(super) async fn at_moment(
        &self,
        live: Generation,
        moment: Moment,
        at_most: Duration,
    ) -> Result<(Generation, Position), ViewError> {
        let generation = keeping_the_past::<V>(live)?;
        if self.context.db.store().partitions() > 1 {
            return Err(no_one_position());
        }
        let position = moment
            .resolve(&**self.context.db.store(), Partition(0))
            .await?;
        if position < generation.history_since {
            return Err(ViewError::BeforeHistory {
                since: generation.history_since,
            });
        }
        let handlers = V::handlers();
        if !handlers.summaries().is_empty() {
            // A generation that was built since then has the summary, and what came before it not.
            let store = &**self.context.db.store();
            let options = &self.context.options;
            let counted = CountedEvents::up_to(position);
            let removed = handlers
                .removed(store, options, Partition(0), counted, None)
                .await?;
            handlers
                .check_answer(store, options, &removed, counted)
                .await?;
        }
        let token = Token::new(self.context.db.store().id()).with(Partition(0), position);
        Ok((
            self.reach(Some(generation), &token, at_most).await?,
            position,
        ))
    }

    /// What rows were just after `moment`: one entry for each of `keys`, in their order.
    pub(super) async fn past_values(
        &self,
        generation: &Generation,
        keys: &[String],
        moment: Position,
    ) -> Result<Vec<Option<V>>, ViewError> {
        let values = self.past_rows(generation, keys, moment).await?;
        Ok(values.into_iter().map(|(value, _)| value).collect())
    }

    /// The same, each with the bytes that it takes.
    pub(super) async fn past_rows(
        &self,
        generation: &Generation,
        keys: &[String],
        moment: Position,
    ) -> Result<Vec<(Option<V>, usize)>, ViewError> {
        let past = self
            .context
            .views
            .read_past(generation.id, keys, moment)
            .await?;
        let steps = self.steps_inside(&past, moment).await?;
        let mut values = Vec::with_capacity(keys.len());
        for key in keys {
            let found = past.iter().find(|row| row.key == *key);
            let stored: Option<&Bytes> = found
                .and_then(|row| row.base.as_ref())
                .and_then(|base| base.value.as_ref());
            let refold_after = found.and_then(|row| row.refold_after);
            let from = refold_after.map_or(steps.len(), |after| {
                steps.partition_point(|step| step.record().position <= after)
            });
            let steps = &steps[from..];
            let value = refold(key, stored, steps)?;
            let is_refolded = steps.iter().any(|step| step.is_about(key));
            let bytes = match (&value, stored) {
                (None, _) => 0,
                (Some(_), Some(stored)) if !is_refolded => stored.len(),
                (Some(value), _) => encode(key, value)?.len(),
            };
            values.push((value, bytes));
        }
        Ok(values)
    }

    /// The events of the batches that the moment lies inside, up to the moment.
    async fn steps_inside(
        &self,
        past: &[PastRow],
        moment: Position,
    ) -> Result<Vec<Step<V>>, ViewError> {
        match past.iter().filter_map(|row| row.refold_after).min() {
            Some(after) => self.steps_between(after, moment).await,
            None => Ok(Vec::new()),
        }
    }

    /// What the events after `after` do, up to and with `up_to`.
    pub(super) async fn steps_between(
        &self,
        after: Position,
        up_to: Position,
    ) -> Result<Vec<Step<V>>, ViewError> {
        let handlers = V::handlers();
        let skips = Skips::of(self.context.views.skip_decisions(V::NAME).await?);
        let mut steps = Vec::new();
        let mut read = ReadLog::after(after).up_to(up_to).filter(handlers.filter());
        loop {
            let page = self.context.db.store().read(read.clone()).await?;
            handlers
                .check_answer(
                    &**self.context.db.store(),
                    &self.context.options,
                    &page.removed,
                    CountedEvents::up_to(up_to),
                )
                .await?;
            for record in page.events {
                match handlers.prepare_except(&skips, record) {
                    Ok(prepared) => steps.extend(prepared),
                    Err(error) => return Err(ViewError::Unreadable(annals_runner::chain(&error))),
                }
            }
            if page.end || page.scanned >= up_to {
                return Ok(steps);
            }
            read.after = page.scanned;
        }
    }
}
