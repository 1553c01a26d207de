//! Reading the log for a slot: one partition, a page ahead.

use std::sync::Arc;

use annals_core::chrono::{DateTime, Utc};
use annals_core::{Checkpoint, EventId, Failure, Partition, Position, ReadLog, StoreError};
use tokio::task::JoinHandle;

use super::FoldView;
use super::page::ViewPage;
use crate::view::View;

/// Events read at once, and folded before the next ones are: all that is in memory of a batch
/// besides what it changes.
const PAGE_EVENTS: usize = 2_048;

type Page<V> = Result<Arc<ViewPage<V>>, StoreError>;

/// One partition, and up to where the slot has it.
pub(super) struct PartitionReader<V: View> {
    pub(super) partition: Partition,
    pub(super) position: Position,
    pub(super) event: Option<EventId>,
    ahead: Option<JoinHandle<Page<V>>>,
    /// When the oldest event was recorded that was read and is not on its way into the store.
    pub(super) oldest: Option<DateTime<Utc>>,
}

impl<V: View> PartitionReader<V> {
    /// Of one that continues from a checkpoint.
    pub(super) fn at(checkpoint: &Checkpoint) -> PartitionReader<V> {
        PartitionReader {
            partition: checkpoint.partition,
            position: checkpoint.position,
            event: checkpoint.event,
            ahead: None,
            oldest: None,
        }
    }

    /// Takes in that everything up to the end of a page was read.
    pub(super) fn passed(&mut self, page: &ViewPage<V>) {
        self.position = page.scanned;
        // When the last one was filtered out, it is looked up before the commit.
        self.event = page.last;
    }

    /// Goes back to before an event: it and what comes after it are not taken.
    pub(super) fn stop_before(&mut self, position: Position) {
        self.position = position.minus(1);
        self.event = None;
        self.ahead = None;
    }

    fn request(&self, work: &FoldView<V>) -> ReadLog {
        let limit = work.options.batch_events_max.min(PAGE_EVENTS);
        ReadLog::after(self.position)
            .partition(self.partition)
            .filter(work.handlers.filter())
            .limit(limit)
    }

    /// Has the next page read while this one is folded.
    pub(super) async fn read_ahead(&mut self, work: &FoldView<V>) {
        let read = work.page(self.request(work));
        self.ahead = Some(tokio::spawn(read));
        // What is spawned here begins on this thread, and only once this task waits: that may be
        // after the fold.
        tokio::task::yield_now().await;
    }

    pub(super) async fn next_page(&mut self, work: &FoldView<V>) -> Page<V> {
        match self.ahead.take() {
            None => work.page(self.request(work)).await,
            Some(ahead) => ahead.await.unwrap_or_else(|error| {
                Err(
                    StoreError::new(Failure::Unavailable, "a read of the log was broken off")
                        .because(error),
                )
            }),
        }
    }
}
