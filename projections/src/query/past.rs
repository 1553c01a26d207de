//! The past of a view: the version that held, and where a moment lies inside a batch, that batch's
//! events once more.

use std::time::Duration;

use annals_core::{Generation, Moment, Partition, Position, ReadLog, Token};
use bytes::Bytes;

use super::history::keeping_the_past;
use super::on_demand::no_one_position;
use annals_runner::ViewError;

use super::ViewHandle;
use crate::fold::{Refolded, decoded};
use crate::removed::CountedEvents;
use crate::view::View;
use crate::view::step::{Handlers, Step};
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
        let mut rows: Vec<_> = keys
            .iter()
            .map(|key| {
                let found = past.iter().find(|row| row.key == *key);
                let base = found.and_then(|row| row.base.as_ref());
                let stored = base.and_then(|base| base.value.clone());
                let refold_after = found.and_then(|row| row.refold_after);
                (key, Refolded::from(stored), refold_after)
            })
            .collect();
        drop(past);
        // The events of the batches that the moment lies inside, up to the moment.
        if let Some(after) = rows.iter().filter_map(|(.., after)| *after).min() {
            let mut pages = self.steps_between(after, moment).await?;
            while let Some(steps) = pages.next().await? {
                for (key, row, after) in &mut rows {
                    let Some(after) = *after else { continue };
                    let from = steps.partition_point(|step| step.record().position <= after);
                    row.take::<V>(key, &steps[from..])?;
                }
            }
        }
        let valued = |(key, row, _): (&String, Refolded, _)| {
            let bytes = row.stored().map_or(0, Bytes::len);
            Ok((decoded(key, row.stored())?, bytes))
        };
        rows.into_iter().map(valued).collect()
    }

    /// What the events after `after` do, up to and with `up_to`, page by page.
    pub(super) async fn steps_between(
        &self,
        after: Position,
        up_to: Position,
    ) -> Result<StepPages<'_, V>, ViewError> {
        let handlers = V::handlers();
        let skips = Skips::of(self.context.views.skip_decisions(V::NAME).await?);
        let read = ReadLog::after(after).up_to(up_to).filter(handlers.filter());
        Ok(StepPages {
            views: self,
            handlers,
            skips,
            read: Some(read),
            up_to,
        })
    }
}

/// What some events do, page by page: each page is as bounded as that of the log.
pub(super) struct StepPages<'a, V: View> {
    views: &'a ViewHandle<V>,
    handlers: Handlers<V>,
    skips: Skips,
    /// Nothing once all was read.
    read: Option<ReadLog>,
    up_to: Position,
}

impl<V: View> StepPages<'_, V> {
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Step<V>>>, ViewError> {
        let Some(mut read) = self.read.take() else {
            return Ok(None);
        };
        let context = &self.views.context;
        let store = &**context.db.store();
        let page = store.read(read.clone()).await?;
        self.handlers
            .check_answer(
                store,
                &context.options,
                &page.removed,
                CountedEvents::up_to(self.up_to),
            )
            .await?;
        let mut steps = Vec::new();
        for record in page.events {
            match self.handlers.prepare_except(&self.skips, record) {
                Ok(prepared) => steps.extend(prepared),
                Err(error) => return Err(ViewError::Unreadable(annals_runner::chain(&error))),
            }
        }
        if !page.end && page.scanned < self.up_to {
            read.after = page.scanned;
            self.read = Some(read);
        }
        Ok(Some(steps))
    }
}
