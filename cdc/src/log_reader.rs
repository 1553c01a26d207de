//! A log that other programs write, read partition by partition: a topic, or a store.

use std::collections::BTreeMap;
use std::time::Duration;

use annals_core::{
    Annals, Failure, Hint, Partition, Position, ReadLog, RecordedEvent, Removed, StoreError,
};
use annals_runner::another_log;

use crate::ingest::{SourceError, SourceFailure};
use crate::taken::Taken;

/// Events of one chunk, and bytes of all that they hold.
const CHUNK_EVENTS: usize = 1_000;
const CHUNK_BYTES: usize = 4 << 20;

/// How often a log is looked at again that had nothing new and gave no hint.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// What helps with a log that is not the one that was read.
const WAY: &str = "open the log that was read, or give this ingest another name";

#[derive(Debug)]
pub(crate) struct LogReader {
    log: Annals,
    hint: Hint,
    /// Of each partition: up to where it was looked through.
    after: BTreeMap<u32, Position>,
    /// The partition that is read first: the others have had their turn.
    first: u32,
    /// Whether it goes on after events that were archived before they were read.
    skips_archived: bool,
}

impl LogReader {
    pub(crate) fn of(log: &Annals) -> LogReader {
        LogReader {
            hint: log.store().hint(),
            log: log.clone(),
            after: BTreeMap::new(),
            first: 0,
            skips_archived: false,
        }
    }

    /// Goes on after events that were archived before they were read.
    pub(crate) fn skip_archived(&mut self) {
        self.skips_archived = true;
    }

    /// How the log is named in marks.
    pub(crate) fn id(&self) -> String {
        self.log.store().id().to_string()
    }

    /// Reads on after what was taken, once it is sure that the log is still the one that was read.
    pub(crate) async fn begin(
        &mut self,
        ingest: &str,
        taken: &mut Taken,
    ) -> Result<(), SourceError> {
        self.check_partitions(ingest, taken.partitions())?;
        self.after.clear();
        for (partition, position) in taken.positions() {
            let position = Position::new(position);
            self.check_same(Partition(partition), position, taken)
                .await?;
            self.after.insert(partition, position);
        }
        taken.has_partitions(self.log.store().partitions());
        Ok(())
    }

    /// Stops where the log has other partitions than when it was read: what a key did before may be
    /// in another partition than what it does now.
    fn check_partitions(&self, ingest: &str, had: Option<u32>) -> Result<(), SourceError> {
        let store = self.log.store();
        let has = store.partitions();
        let Some(had) = had.filter(|had| *had != has) else {
            return Ok(());
        };
        if has < had {
            return Err(stop(format!(
                "ingest `{ingest}` has read {had} partitions of its log, and it has {has}; {WAY}"
            )));
        }
        if store.grown_from().is_some_and(|from| from <= had) {
            return Ok(());
        }
        Err(stop(format!(
            "ingest `{ingest}` has read its log when it had {had} partition{}, it has {has} now, \
             and keys have moved, so that what a key did may be read out of order: if the order \
             does not matter here, go on with `Topic::accept_more_partitions({had}, {has})`; if it \
             matters, read a topic that was written with {has} partitions",
            if had == 1 { "" } else { "s" }
        )))
    }

    /// Stops where the log is not the one that was read: it was restored, or made again.
    async fn check_same(
        &self,
        partition: Partition,
        position: Position,
        taken: &Taken,
    ) -> Result<(), SourceError> {
        let last = taken.last(partition.0);
        let another = another_log(&**self.log.store(), partition, position, last).await;
        match another.map_err(|error| cannot_read(partition, error))? {
            Some(what) => Err(stop(format!("partition {partition}: {what}; {WAY}"))),
            None => Ok(()),
        }
    }

    /// What comes next, in the order of each partition. Waits for it.
    pub(crate) async fn next(&mut self) -> Result<Vec<RecordedEvent>, SourceError> {
        loop {
            self.hint.reset();
            let (events, is_end) = self.page().await?;
            if !events.is_empty() {
                return Ok(events);
            }
            if is_end {
                self.hint.wait(LOOK_AGAIN).await;
            }
        }
    }

    /// A page of each partition, and whether all of them are at their end.
    async fn page(&mut self) -> Result<(Vec<RecordedEvent>, bool), SourceError> {
        let store = self.log.store();
        let mut events: Vec<RecordedEvent> = Vec::new();
        let mut bytes = 0;
        let mut is_end = true;
        let count = store.partitions();
        for turn in 0..count {
            let partition = (self.first + turn) % count;
            if bytes >= CHUNK_BYTES {
                self.first = partition;
                return Ok((events, false));
            }
            let after = self.after.get(&partition).copied();
            let read = ReadLog::after(after.unwrap_or(Position::START))
                .partition(Partition(partition))
                .limit(CHUNK_EVENTS);
            let page = store.read(read).await;
            let page = page.map_err(|error| cannot_read(Partition(partition), error))?;
            let missed = page.removed.iter().find(|removed| self.misses(removed));
            // What comes before it is given first.
            let end = missed.map_or(page.scanned, |removed| removed.first.minus(1));
            let is_next = |event: &RecordedEvent| event.position <= end;
            if let Some(removed) = missed
                && !page.events.first().is_some_and(is_next)
            {
                return Err(stop(format!(
                    "the ingest has not read position {removed} in partition {partition} of the \
                     log, and that was archived: restore it, or go on with what is left with \
                     `skip_archived`"
                )));
            }
            is_end &= page.end && missed.is_none();
            let mut scanned = end;
            for event in page.events.into_iter().take_while(is_next) {
                if bytes >= CHUNK_BYTES {
                    is_end = false;
                    break;
                }
                bytes += event.size_bytes();
                scanned = event.position;
                events.push(event);
            }
            if bytes < CHUNK_BYTES {
                scanned = end;
            }
            self.after.insert(partition, scanned);
        }
        Ok((events, is_end))
    }

    /// Whether these events would be missed. What a store keeps for itself is not taken.
    fn misses(&self, removed: &Removed) -> bool {
        !self.skips_archived && !removed.stream.as_str().starts_with('$')
    }
}

fn stop(what: String) -> SourceError {
    SourceError::new(SourceFailure::Stop, what)
}

/// What only an operator can change is not tried again and again.
fn cannot_read(partition: Partition, error: StoreError) -> SourceError {
    let failure = match error.failure() {
        Failure::Unavailable | Failure::Full => SourceFailure::Retry,
        _ => SourceFailure::Stop,
    };
    let what = format!("cannot read partition {partition} of the log");
    SourceError::new(failure, what).because(error)
}
