//! What of a session depends on the view: the rows at hand, and the events that are folded onto
//! them.

use annals_core::{Phase, Position, VersionedRow};
use annals_runner::{Activity, DrainResult, HeldLease, Skips, SlotState, Task, WorkError};
use tracing::Instrument;

use super::SlotSession;
use crate::fold::{Checks, RowError, Rows};
use crate::view::View;
use crate::view::step::Step;
use crate::worker::FoldView;
use crate::worker::batch::Batch;
use crate::worker::page::ViewPage;
use crate::worker::stored::stored_rows;

/// Keys looked up at once.
const LOOKUP_KEYS: usize = 5_000;

/// From the taking of a lease to its loss.
pub(in crate::worker) struct LeaseSession<'a, V: View> {
    work: &'a FoldView<V>,
    pub(in crate::worker) slot: SlotSession<'a>,
    rows: Rows<V>,
}

impl<'a, V: View> LeaseSession<'a, V> {
    pub(in crate::worker) async fn begin(
        work: &'a FoldView<V>,
        held: &'a HeldLease,
    ) -> Result<LeaseSession<'a, V>, WorkError> {
        work.restore(held).await?;
        work.pages.forget();
        let view = (V::NAME, V::HISTORY);
        let slot = SlotSession::begin(&work.slot, &work.options, view, held).await?;
        let inline = work.generation.spec.inline;
        let rows = Rows::keeping(work.options.rows_kept_max)
            .inline(inline)
            .all(slot.is_new && !inline);
        Ok(LeaseSession { work, slot, rows })
    }

    /// Takes one partition a batch further. `false`: that was all there is, and the last of it may
    /// still be on its way.
    pub(in crate::worker) async fn step(&mut self, index: usize) -> Result<bool, WorkError> {
        let work = self.work;
        let begun = self.slot.readers[index].position;
        let checks = work.checks(self.slot.readers[index].partition, begun);
        let inline = work.generation.spec.inline;
        let mut batch = Batch::begin(begun, work.is_building(), checks, self.rows.batch());
        let at_end = loop {
            let reader = &mut self.slot.readers[index];
            work.progress.turns_to(Activity::Reading);
            let made = reader.next_page(work).await?;
            let page = &made.read;
            let from = reader.position;
            reader.oldest = reader.oldest.or_else(|| page.oldest_after(from));
            work.progress
                .head(reader.partition, page.head.visible, reader.oldest);
            let removed = page.removed_after(from);
            if !removed.is_empty() {
                let store = &**work.context.log();
                let is_building = work.phase() == Phase::Building;
                work.handlers
                    .check_page(store, &work.options, &removed, is_building)
                    .await?;
            }
            let more = !page.end;
            if reader.position >= page.scanned && page.is_empty_after(from) {
                break true;
            }
            reader.passed(page);
            if more {
                reader.read_ahead(work).await;
            }
            self.take(index, (&made, from), &mut batch).await?;
            if !more || batch.is_full(&work.options, inline) {
                break !more;
            }
            work.progress.state(SlotState::CatchingUp);
        };
        let moved = self.slot.readers[index].position > begun;
        let stuck = batch.stuck.take();
        if moved {
            let span = self.slot.batch_span(index, &batch);
            self.commit(index, batch).instrument(span).await?;
        }
        if let Some(stuck) = &stuck {
            self.slot.readers[index].oldest = Some(stuck.recorded_at);
        }
        match stuck {
            Some(stuck) => {
                self.slot.settle().await?;
                Err(WorkError::Stopped(self.slot.stuck(index, &stuck.reason)))
            }
            None => Ok(!at_end),
        }
    }

    /// Folds a page of the log onto the rows. Of an event whose key is unknown, and of later
    /// ones, nothing is taken.
    async fn take(
        &mut self,
        index: usize,
        (page, from): (&ViewPage, Position),
        batch: &mut Batch,
    ) -> Result<(), WorkError> {
        let work = self.work;
        let inline = self.work.generation.spec.inline;
        work.progress.turns_to(Activity::Handling);
        let taken = page.take::<V>(work.number, from, &self.slot.skips);
        batch.bytes += taken.bytes;
        if let Some(stuck) = taken.stuck {
            // What comes before it is settled all the same.
            self.slot.readers[index].stop_before(stuck.position);
            batch.stuck = Some(stuck);
        }
        let steps = taken.steps;
        batch.events += steps.len();
        if inline {
            // Appends write rows too. What is read after the log and after all that was handed over
            // has the events up to there, or is moved on only by appends that have them.
            self.slot.settle().await?;
            self.rows.forget_all();
        }
        self.fetch(&steps).await?;
        let folded = self.rows.fold(
            &mut batch.changes,
            &steps,
            &mut self.slot.dead_letters.keys,
            work.context.clock().now(),
            batch.checks,
        );
        folded.map_err(|error| self.fold_carefully(index, batch.checks, error))?;
        if inline && work.workers.is_watched(steps.len()) {
            batch.watched = Some(self.rows.changes_of(&steps));
        }
        Ok(())
    }

    fn fold_carefully(&self, index: usize, checks: Checks, error: RowError) -> WorkError {
        let reader = &self.slot.readers[index];
        self.work
            .fold_carefully(reader.partition, reader.position, checks, error)
    }

    /// Hands a batch over when the one before was taken.
    async fn commit(&mut self, index: usize, batch: Batch) -> Result<(), WorkError> {
        batch
            .changes
            .read_back::<V>()
            .map_err(|error| self.fold_carefully(index, batch.checks, error))?;
        self.slot.hand_over(index, batch).await?;
        self.rows.trim();
        let (rows, bytes) = self.rows.at_hand();
        self.work.progress.at_hand(rows, bytes);
        Ok(())
    }

    /// What is done now and then.
    pub(in crate::worker) async fn do_chores(&mut self) -> Result<(), WorkError> {
        self.retry_due().await?;
        self.slot.forget_old().await
    }

    /// Tries the keys again whose time has come.
    async fn retry_due(&mut self) -> Result<(), WorkError> {
        let due = self.slot.dead_letters.due(self.work.context.clock().now());
        if due.is_empty() {
            return Ok(());
        }
        self.slot.settle().await?;
        for key in due {
            self.drain(&key).await?;
        }
        Ok(())
    }

    /// Settles the queue of a key as far as it goes.
    async fn drain(&mut self, key: &str) -> Result<DrainResult, WorkError> {
        let work = self.work;
        self.rows.forget(key);
        let drained = work
            .drain(self.slot.held.lease(), key, &self.slot.skips)
            .await?;
        let now = work.context.clock().now();
        self.slot
            .dead_letters
            .drained(key, &drained, &work.options, now);
        self.slot.show_dead_letters();
        Ok(drained)
    }

    /// Drains the queues of keys for an operator. After a failure it is not known which dead
    /// letters there are, nor whether the batch before was taken: the worker begins again.
    pub(in crate::worker) async fn take_up(&mut self, task: Task) -> Result<(), WorkError> {
        let drained = self.drain_keys(&task.keys).await;
        let ended = match &drained {
            Ok(_) => Ok(()),
            Err(_) => Err(WorkError::Restart),
        };
        task.answer(drained);
        ended
    }

    async fn drain_keys(&mut self, keys: &[String]) -> Result<DrainResult, WorkError> {
        let work = self.work;
        self.slot.settle().await?;
        self.slot.skips = Skips::of(work.context.views.skip_decisions(V::NAME).await?);
        let mut all = DrainResult::default();
        for key in keys {
            let drained = self.drain(key).await?;
            all.settled += drained.settled;
            all.still = all.still.or(drained.still);
        }
        Ok(all)
    }

    /// Brings the rows to hand that a batch needs.
    async fn fetch(&mut self, steps: &[Step<V>]) -> Result<(), WorkError> {
        let missing = self.rows.missing(steps);
        if self.rows.are_all() {
            return Ok(missing
                .into_iter()
                .try_for_each(|key| self.rows.learn(key, None))?);
        }
        for keys in missing.chunks(LOOKUP_KEYS) {
            let rows = stored_rows(&self.work.slot, V::NAME, keys).await?;
            for VersionedRow { key, value, at } in rows {
                self.rows.learn_lenient(key, value, at);
            }
        }
        Ok(())
    }
}
