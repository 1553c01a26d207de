//! Any topic or log as a source: its records as they are.

use std::collections::BTreeSet;

use annals_core::{Annals, NewEvent, RecordedEvent, StreamId};
use async_trait::async_trait;

use crate::ingest::{Chunk, Mark, Source, SourceError};
use crate::log_reader::LogReader;
use crate::record::{At, Body, Record};
use crate::taken::Taken;

/// The records of any log, such as a topic of Kafka that `annals::kafka` reads, as a source of an
/// ingest: they are taken into one's own log as they are, exactly once. Ids, streams, types, times
/// and metadata stay what they were, so a log that was published to a topic as CloudEvents is had
/// back from it. Internal streams (`$…`) are skipped.
///
/// ```
/// use annals_cdc::{Ingest, Records};
/// use annals_core::Annals;
///
/// # fn example(topic: Annals) {
/// let copy = Ingest::named("orders").from(Records::of(&topic));
/// # let _ = copy;
/// # }
/// ```
#[derive(Debug)]
#[must_use = "it does nothing before an ingest has it"]
pub struct Records {
    log: LogReader,
    taken: Taken,
    /// What operators decided to skip: partitions and positions.
    skipped: BTreeSet<(u32, u64)>,
}

impl Records {
    /// Of this log.
    pub fn of(log: &Annals) -> Records {
        Records {
            log: LogReader::of(log),
            taken: Taken::default(),
            skipped: BTreeSet::new(),
        }
    }

    /// Goes on after events that were archived before they were read: the copy lacks them. Without
    /// this they stop the ingest.
    ///
    /// ```
    /// use annals_cdc::{Ingest, Records};
    /// use annals_core::Annals;
    ///
    /// # fn example(other: Annals) {
    /// let copy = Ingest::named("orders").from(Records::of(&other).skip_archived());
    /// # let _ = copy;
    /// # }
    /// ```
    pub fn skip_archived(mut self) -> Records {
        self.log.skip_archived();
        self
    }

    fn name(&self) -> String {
        format!("records of log {}", self.log.id())
    }

    fn is_wanted(&self, event: &RecordedEvent) -> bool {
        let at = (event.partition.0, event.position.get());
        !event.stream.as_str().starts_with('$') && !self.skipped.contains(&at)
    }
}

#[async_trait]
impl Source for Records {
    async fn begin(&mut self, ingest: &str, last: Option<&Mark>) -> Result<(), SourceError> {
        self.taken = Taken::after(ingest, &self.name(), last)?;
        self.log.begin(ingest, &mut self.taken).await
    }

    async fn next(&mut self) -> Result<Chunk, SourceError> {
        let mut records = Vec::new();
        while records.is_empty() {
            for event in self.log.next().await? {
                let (partition, position) = (event.partition.0, event.position.get());
                self.taken.add(partition, position, event.id);
                if self.is_wanted(&event) {
                    records.push(Record {
                        at: At {
                            time: Some(event.occurred_at),
                            message: Some((partition, position)),
                            ..At::default()
                        },
                        body: Body::Event(Box::new(event)),
                        origin: None,
                        repeat_key: None,
                    });
                }
            }
        }
        // Who published it may have done so twice.
        Ok(self.taken.chunk(self.name(), records))
    }

    fn has_messages(&self) -> bool {
        true
    }

    fn skip_messages(&mut self, messages: &[(u32, u64)]) {
        self.skipped = messages.iter().copied().collect();
    }

    async fn confirm(&mut self, _up_to: &Mark) -> Result<(), SourceError> {
        Ok(())
    }
}

/// The event as it is appended here: as it was.
pub(crate) fn as_it_was(event: &RecordedEvent) -> (StreamId, NewEvent) {
    let mut new = NewEvent::new(
        event.event_type.to_string(),
        event.codec.to_string(),
        event.payload.clone(),
    )
    .id(event.id)
    .schema_version(event.schema_version)
    .metadata(event.metadata.clone())
    .at(event.occurred_at);
    new.tags.clone_from(&event.tags);
    (event.stream.clone(), new)
}
