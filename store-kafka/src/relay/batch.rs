//! What is published together: read from the log, and made into records.

use std::collections::HashMap;
use std::sync::Arc;

use annals_core::{
    EventId, Filter, LogId, Outgoing, OutletError, Partition, Position, ReadLog, RecordedEvent,
    Store, StoreError,
};
use bytes::Bytes;

use super::Relay;
use crate::cloud_events;

/// Bytes of a batch at most.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// Events that are published together.
pub(super) struct Batch {
    pub(super) events: Vec<RecordedEvent>,
    pub(super) up_to: Position,
    /// Where the partition ended when it was read.
    pub(super) head: Position,
    /// The event at `up_to`, when it is among these.
    pub(super) event: Option<EventId>,
    pub(super) at_end: bool,
}

impl Relay {
    /// What comes after a position, up to what survives a crash of the store.
    pub(super) async fn next_batch(
        &self,
        log: &dyn Store,
        partition: Partition,
        after: Position,
    ) -> Result<Batch, StoreError> {
        let durable = log.head(partition).await?.durable;
        let mut batch = Batch {
            events: Vec::new(),
            up_to: after,
            head: durable,
            event: None,
            at_end: true,
        };
        let mut bytes = 0;
        while batch.up_to < durable {
            let left = self.batch_events_max - batch.events.len();
            // No limit where none is needed: a log may take one position and a limit of one for a
            // question about one event, and answer it where that was removed.
            let positions = durable.get() - batch.up_to.get();
            let limit = match positions <= left as u64 {
                true => annals_core::PAGE_EVENTS,
                false => left.min(annals_core::PAGE_EVENTS),
            };
            let read = ReadLog::after(batch.up_to)
                .up_to(durable)
                .partition(partition)
                .filter(Filter::default().types(self.types.iter().cloned()))
                .limit(limit);
            let page = log.read(read).await?;
            if page.scanned <= batch.up_to {
                break;
            }
            batch.up_to = page.scanned.min(durable);
            let last = page
                .events
                .last()
                .filter(|last| last.position == batch.up_to);
            batch.event = last.map(|last| last.id);
            bytes += page
                .events
                .iter()
                .map(|event| event.payload.len())
                .sum::<usize>();
            batch.events.extend(page.events);
            if batch.events.len() >= self.batch_events_max || bytes >= BATCH_BYTES_MAX {
                batch.at_end = batch.up_to >= durable;
                break;
            }
            if page.end {
                break;
            }
        }
        Ok(batch)
    }

    /// What is sent for a batch.
    pub(super) fn outgoing(
        &self,
        events: &[RecordedEvent],
        log: LogId,
    ) -> Result<Vec<Outgoing>, OutletError> {
        let mut topics: HashMap<String, Arc<str>> = HashMap::new();
        let mut keys: HashMap<&str, String> = HashMap::new();
        let mut outgoing = Vec::with_capacity(events.len());
        for event in events {
            let Some(topic) = (self.route)(event) else {
                continue;
            };
            let key = (self.key)(event);
            let known = keys
                .entry(event.stream.as_str())
                .or_insert_with(|| key.clone());
            if *known != key {
                return Err(OutletError::Refused(format!(
                    "stream `{}` has the keys `{known}` and `{key}`: its order would be lost",
                    event.stream
                )));
            }
            let shared = topics
                .entry(topic)
                .or_insert_with_key(|topic| topic.as_str().into());
            outgoing.push(Outgoing {
                to: Arc::clone(shared),
                key: Bytes::from(key),
                payload: Some(event.payload.clone()),
                headers: cloud_events::encode(event, log),
                occurred_at: event.occurred_at,
            });
        }
        Ok(outgoing)
    }
}
