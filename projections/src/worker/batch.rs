//! A batch of a slot: while it is folded, and on its way into the store.

use std::time::{Duration, Instant};

use annals_core::{DeadLetter, Partition, Position, RowChange};
use annals_runner::CommittedStep;

use super::page::Unknown;
use crate::fold::{Changes, Checks};
use crate::options::Options;

/// How long a batch goes on of what is not read yet: what is folded again at most, when the worker
/// dies.
const BUILD_BATCH: Duration = Duration::from_secs(1);

/// A batch that is being folded.
pub(super) struct Batch {
    pub(super) begun: Position,
    since: Instant,
    /// Whether no reader sees what is built here.
    building: bool,
    pub(super) checks: Checks,
    pub(super) events: usize,
    pub(super) bytes: usize,
    pub(super) changes: Changes,
    /// An inline view's rows for watchers, if there are any.
    pub(super) watched: Option<Vec<RowChange>>,
    /// An event that cannot be given to a key.
    pub(super) stuck: Option<Unknown>,
}

/// A batch on its way into the store, and what is published of it when it is there.
pub(super) struct Committing {
    pub(super) partition: Partition,
    pub(super) up_to: Position,
    pub(super) taken: CommittedStep,
    pub(super) rows: Option<Vec<RowChange>>,
    pub(super) dead_letters: Vec<DeadLetter>,
}

impl Batch {
    pub(super) fn begin(
        begun: Position,
        building: bool,
        checks: Checks,
        changes: Changes,
    ) -> Batch {
        Batch {
            begun,
            since: Instant::now(),
            building,
            checks,
            events: 0,
            bytes: 0,
            changes,
            watched: None,
            stuck: None,
        }
    }

    /// Whether it is handed over as it is. Rows of an inline view are read again for each page.
    pub(super) fn is_full(&self, options: &Options, inline: bool) -> bool {
        self.stuck.is_some()
            || inline
            || self.bytes >= options.batch_bytes_max
            || match self.building {
                false => self.events >= options.batch_events_max,
                // A row that changes again and again is written once; what is kept of its past is
                // not, and larger batches gain nothing.
                true => {
                    self.events >= options.build_events_max
                        || self.since.elapsed() >= BUILD_BATCH
                        || self.changes.rows.len()
                            >= options.rows_kept_max.max(options.batch_events_max)
                        || self.changes.past() >= options.batch_events_max
                }
            }
    }
}
