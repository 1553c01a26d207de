//! A log that other programs write, read partition by partition: a topic, or a store.

use std::collections::BTreeMap;
use std::time::Duration;

use annals_core::{Annals, Hint, Partition, Position, ReadLog, RecordedEvent};

use crate::ingest::{SourceError, SourceFailure};

/// Events of one chunk, and bytes of their contents.
const CHUNK_EVENTS: usize = 1_000;
const CHUNK_BYTES: usize = 4 << 20;

/// How often a log is looked at again that had nothing new and gave no hint.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(crate) struct LogReader {
    log: Annals,
    hint: Hint,
    /// Of each partition: up to where it was looked through.
    after: BTreeMap<u32, Position>,
}

impl LogReader {
    pub(crate) fn of(log: &Annals) -> LogReader {
        LogReader {
            hint: log.store().hint(),
            log: log.clone(),
            after: BTreeMap::new(),
        }
    }

    /// How the log is named in marks.
    pub(crate) fn id(&self) -> String {
        self.log.store().id().to_string()
    }

    /// Reads on after these positions.
    pub(crate) fn begin(&mut self, taken: &BTreeMap<u32, u64>) {
        let position = |(partition, taken): (&u32, &u64)| (*partition, Position::new(*taken));
        self.after = taken.iter().map(position).collect();
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
        for partition in 0..store.partitions() {
            if bytes >= CHUNK_BYTES {
                return Ok((events, false));
            }
            let after = self.after.get(&partition).copied();
            let read = ReadLog::after(after.unwrap_or(Position::START))
                .partition(Partition(partition))
                .limit(CHUNK_EVENTS);
            let page = store.read(read).await.map_err(|error| {
                let what = format!("cannot read partition {partition} of the log");
                SourceError::new(SourceFailure::Retry, what).because(error)
            })?;
            is_end &= page.end;
            let mut scanned = page.scanned;
            for event in page.events {
                if bytes >= CHUNK_BYTES {
                    is_end = false;
                    break;
                }
                bytes += event.payload.len();
                scanned = event.position;
                events.push(event);
            }
            if bytes < CHUNK_BYTES {
                scanned = page.scanned;
            }
            self.after.insert(partition, scanned);
        }
        Ok((events, is_end))
    }
}
