//! The work that keeps a slot of a view up to date: read, fold, commit, and again.
//!
//! Rows, history, dead letters and the checkpoint change in one transaction, under the epoch of the
//! slot's lease. So the effect is exactly once, whatever dies when: a worker that was paused for
//! too long is fenced, and the next one continues from the checkpoint.

mod batch;
mod dead_letters;
mod drain;
mod page;
mod reader;
mod restore;
mod session;
mod stored;

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annals_core::{Filter, Hint, LogPage, Partition, Phase, Position, ReadLog, RecordedEvent};
use annals_runner::{
    BoxFuture, HeldLease, Pages, Skips, Slot, SlotState, Task, Tasks, Work, WorkError,
};
use tokio::sync::watch;

pub(crate) use drain::DrainView;
pub(crate) use page::ViewPage;

use self::reader::{Page, read_page};
use self::session::LeaseSession;
use crate::fold::{Checks, RowError};
use crate::options::Options;
use crate::view::step::{Step, StepError};
use crate::view::{Handlers, View};

/// Folds the events of the log onto the rows of a slot.
pub(crate) struct FoldView<V: View> {
    slot: Slot,
    handlers: Arc<Handlers<V>>,
    // What its slots in this process made of the log.
    pages: Arc<Pages<ViewPage>>,
    options: Options,
    // Up to where each event is checked by itself, because a batch could not be stored.
    careful: Mutex<BTreeMap<Partition, Position>>,
}

impl<V: View> Deref for FoldView<V> {
    type Target = Slot;

    fn deref(&self) -> &Slot {
        &self.slot
    }
}

impl<V: View> Work for FoldView<V> {
    fn slot(&self) -> &Slot {
        &self.slot
    }

    fn filter(&self) -> Filter {
        self.handlers.filter()
    }

    async fn work(
        &self,
        held: &HeldLease,
        mut tasks: Tasks,
        _: watch::Receiver<bool>,
    ) -> Result<(), WorkError> {
        let mut session = LeaseSession::begin(self, held).await?;
        let mut hint = self.context.log().hint();
        loop {
            hint.reset();
            session.do_chores().await?;
            while let Some(task) = tasks.try_next() {
                session.take_up(task).await?;
            }
            let mut more = false;
            for index in 0..session.slot.readers.len() {
                more |= session.step(index).await?;
            }
            if more {
                continue;
            }
            // What comes meanwhile goes into one batch: folded as it comes, all but the first of it
            // would wait for two commits.
            session.slot.settle().await?;
            self.progress.state(SlotState::Live);
            let after = session.slot.positions();
            loop {
                let ends = (&mut hint, &mut tasks);
                match wait(&self.slot, self.options.poll, &after, ends).await {
                    Waited::Events => break,
                    Waited::Chores => session.do_chores().await?,
                    Waited::Operator(task) => session.take_up(task).await?,
                }
            }
        }
    }
}

/// What a worker that is at the head has waited for.
enum Waited {
    Events,
    Chores,
    Operator(Task),
}

/// Waits at most for `poll`. Boxed here, so that it is compiled once and not for each view.
fn wait<'a>(
    slot: &'a Slot,
    poll: Duration,
    after: &'a [(Partition, Position)],
    (hint, tasks): (&'a mut Hint, &'a mut Tasks),
) -> BoxFuture<'a, Waited> {
    Box::pin(async move {
        tokio::select! {
            () = slot.wait_for_events(hint, after) => Waited::Events,
            () = tokio::time::sleep(poll) => Waited::Chores,
            task = tasks.next() => Waited::Operator(task),
        }
    })
}

impl<V: View> FoldView<V> {
    pub(crate) fn new(
        slot: Slot,
        handlers: Arc<Handlers<V>>,
        pages: Arc<Pages<ViewPage>>,
        options: Options,
    ) -> FoldView<V> {
        FoldView {
            slot,
            handlers,
            pages,
            options,
            careful: Mutex::default(),
        }
    }

    /// What the events of a page do.
    fn page(&self, read: ReadLog) -> BoxFuture<'static, Page> {
        let slot = self.slot.clone();
        let pages = Arc::clone(&self.pages);
        let handlers = Arc::clone(&self.handlers);
        let spec = &slot.generation.spec;
        let (slots, inline) = (spec.slots, spec.inline);
        let make = move |page: LogPage| ViewPage::of::<V>(page, &handlers, slots, inline);
        read_page(slot, pages, read, Box::new(make))
    }

    /// How closely rows are checked in a batch that begins here.
    fn checks(&self, partition: Partition, begun: Position) -> Checks {
        let careful = self.careful.lock().unwrap_or_else(PoisonError::into_inner);
        match careful.get(&partition) {
            Some(until) if begun < *until => Checks::Event,
            _ => Checks::Batch,
        }
    }

    /// A row cannot be stored: the batch is folded again from the checkpoint, event by event, so
    /// that the one is found that made it so.
    fn fold_carefully(
        &self,
        partition: Partition,
        up_to: Position,
        checks: Checks,
        error: RowError,
    ) -> WorkError {
        if checks == Checks::Event {
            return error.into();
        }
        let mut careful = self.careful.lock().unwrap_or_else(PoisonError::into_inner);
        careful.insert(partition, up_to);
        WorkError::Restart
    }

    /// What a stored event does in this view, without what operators skipped.
    fn prepare(&self, skips: &Skips, record: RecordedEvent) -> Result<Vec<Step<V>>, StepError> {
        let steps = self.handlers.prepare_except(skips, record)?;
        if self.generation.spec.inline {
            steps
                .iter()
                .try_for_each(|step| self.handlers.check_own_stream(step))?;
        }
        Ok(steps)
    }

    /// Whether it is on its way to the head for the first time, and no reader sees what it folds.
    fn is_building(&self) -> bool {
        self.phase() == Phase::Building && !self.progress.was_live()
    }
}
