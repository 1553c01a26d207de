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

/// Bytes of a batch, after which it is given no more events.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// What the other headers of a record take: ids, times, numbers, and their names.
const HEADERS_BYTES: usize = 512;

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
        let events_max = self.batch_limit.of(self.batch_events_max);
        let bytes_max = self.batch_limit.of(BATCH_BYTES_MAX);
        let mut bytes = 0;
        while batch.up_to < durable {
            let left = events_max - batch.events.len();
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
            let mut is_full = false;
            let mut events = page.events.into_iter();
            while let Some(event) = events.next() {
                bytes += bytes_of(&event);
                is_full = bytes >= bytes_max;
                if is_full && events.len() > 0 {
                    // The rest of the page is read again.
                    batch.up_to = event.position;
                }
                batch.events.push(event);
                if is_full {
                    break;
                }
            }
            let last = batch.events.last();
            let last = last.filter(|last| last.position == batch.up_to);
            batch.event = last.map(|last| last.id);
            if is_full || batch.events.len() >= events_max {
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

/// What the record of an event takes in a transaction, or somewhat more.
fn bytes_of(event: &RecordedEvent) -> usize {
    // The stream is the key, and in two headers.
    HEADERS_BYTES + event.size_bytes() + 2 * event.stream.as_str().len()
}

#[cfg(test)]
mod tests {
    use annals_core::{
        Append, EventStore as _, Log as _, MemoryStore, Metadata, NewEvent, StreamId,
    };

    use super::*;

    #[tokio::test]
    async fn metadata_counts_towards_a_batch_and_nothing_is_left_out() {
        let store = MemoryStore::new();
        let large = "m".repeat(60_000);
        let event = |_| {
            let event = NewEvent::json("account.counted", "7");
            event.metadata(Metadata::default().key("trace", large.as_str()))
        };
        for _ in 0..10 {
            let stream = StreamId::new("account-a").unwrap();
            let append = Append::new(stream, (0..20).map(event));
            store.append(append).await.unwrap();
        }
        let relay = Relay::named("metadata");
        let (mut after, mut sizes, mut positions) = (Position::START, Vec::new(), Vec::new());
        loop {
            let batch = relay.next_batch(&store, Partition(0), after).await.unwrap();
            let last = batch.events.last().unwrap();
            assert_eq!((batch.up_to, batch.event), (last.position, Some(last.id)));
            sizes.push(batch.events.len());
            positions.extend(batch.events.iter().map(|event| event.position.get()));
            after = batch.up_to;
            if batch.at_end {
                break;
            }
        }
        assert!(sizes.iter().all(|events| *events < 80), "{sizes:?}");
        let all: Vec<u64> = (1..=store.head(Partition(0)).await.unwrap().visible.get()).collect();
        assert_eq!(positions, all);
    }
}
