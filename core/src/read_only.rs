//! A log without a store around it: something that can be followed and not appended to.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::sync::watch;

use crate::append::{Append, AppendError, Appended};
use crate::error::{Failure, StoreError};
use crate::event::EventId;
use crate::position::{Head, Incarnation, LogId, Partition, Position};
use crate::read::{LogPage, ReadLog, ReadStream, StreamPage};
use crate::store::{Assignment, EventStore, Found, Hint, Log, Store};
use crate::stream::StreamId;
use crate::stream_state::{ChangeStream, StreamState};

/// A log that other programs write, with the methods of a store that it does not have refused.
#[derive(Debug)]
pub(crate) struct ReadOnly {
    log: Arc<dyn Log>,
}

impl ReadOnly {
    pub(crate) fn new(log: Arc<dyn Log>) -> ReadOnly {
        ReadOnly { log }
    }
}

fn refused(what: &str) -> StoreError {
    let context = format!("{what}: this log is only followed, other programs write it");
    StoreError::new(Failure::ReadOnly, context)
}

fn no_streams() -> StoreError {
    let context = "this log is followed in its own order and cannot be read by stream; a view over \
        it answers questions about one stream";
    StoreError::new(Failure::Invalid, context)
}

#[async_trait]
impl EventStore for ReadOnly {
    async fn append(&self, _: Append) -> Result<Appended, AppendError> {
        Err(refused("nothing is appended").into())
    }

    async fn read_stream(&self, _: ReadStream) -> Result<StreamPage, StoreError> {
        Err(no_streams())
    }

    async fn find(&self, _: Partition, _: &[EventId]) -> Result<Vec<Option<Found>>, StoreError> {
        Err(no_streams())
    }

    async fn stream_state(&self, _: &StreamId) -> Result<StreamState, StoreError> {
        Err(no_streams())
    }

    async fn change_stream(&self, change: ChangeStream) -> Result<StreamState, AppendError> {
        Err(refused(&format!("stream `{}` is not changed", change.stream)).into())
    }
}

#[async_trait]
impl Log for ReadOnly {
    fn id(&self) -> LogId {
        self.log.id()
    }

    fn incarnation(&self) -> Incarnation {
        self.log.incarnation()
    }

    fn partitions(&self) -> u32 {
        self.log.partitions()
    }

    fn grown_from(&self) -> Option<u32> {
        self.log.grown_from()
    }

    fn partition_of(&self, stream: &StreamId) -> Partition {
        self.log.partition_of(stream)
    }

    async fn read(&self, read: ReadLog) -> Result<LogPage, StoreError> {
        self.log.read(read).await
    }

    async fn head(&self, partition: Partition) -> Result<Head, StoreError> {
        self.log.head(partition).await
    }

    async fn begins_after(&self, partition: Partition) -> Result<Position, StoreError> {
        self.log.begins_after(partition).await
    }

    async fn position_at(
        &self,
        partition: Partition,
        moment: DateTime<Utc>,
    ) -> Result<Position, StoreError> {
        self.log.position_at(partition, moment).await
    }

    fn hint(&self) -> Hint {
        self.log.hint()
    }

    fn assignment(&self) -> Option<watch::Receiver<Assignment>> {
        self.log.assignment()
    }

    fn stalled(&self, partition: Partition) -> Option<String> {
        self.log.stalled(partition)
    }
}

impl Store for ReadOnly {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::NewEvent;
    use crate::memory::MemoryStore;

    #[tokio::test]
    async fn a_followed_log_is_read_and_not_appended_to() {
        let memory = Arc::new(MemoryStore::new());
        let stream = StreamId::new("a-1").unwrap();
        let append = Append::new(stream.clone(), [NewEvent::json("a", "1")]);
        memory.append(append.clone()).await.unwrap();
        let followed = ReadOnly::new(memory);
        let page = followed
            .read(ReadLog::after(Position::START))
            .await
            .unwrap();
        assert_eq!(page.events.len(), 1);
        let error = followed
            .append(append)
            .await
            .unwrap_err()
            .into_store_error();
        assert_eq!(error.failure(), Failure::ReadOnly);
        let error = followed
            .read_stream(ReadStream::of(stream))
            .await
            .unwrap_err();
        assert_eq!(error.failure(), Failure::Invalid);
        let begins = followed.begins_after(Partition(0)).await.unwrap();
        assert_eq!(begins, Position::START);
    }
}
