//! What a topic begins with, and what copies of it end with, asked before anything is taken from
//! the processes that own it: what is refused later would have interrupted them for nothing.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{Failure, StoreError};
use rdkafka::Message as _;
use rdkafka::topic_partition_list::Offset;

use super::copy::Copy;
use super::follower::{Follower, Source, incoming};
use super::record;
use super::task::again;
use crate::client::{ClientThread, TopicScan};

/// How long the record may take that a copy ends with.
const COMPARED: Duration = Duration::from_secs(3);

/// Refuses a topic that was given partitions since its first record was written: in a partition
/// that was there from the beginning that is the note of an owner, which says how many there were.
/// A copy that has anything was compared when it was opened.
pub(super) async fn check(source: &Source, copy: &Copy) -> Result<(), StoreError> {
    if copy.replica_place().await?.cursor > 0 {
        return Ok(());
    }
    let reads = ClientThread::start("kafka-store-first", || ())?;
    let source = source.clone();
    reads.call(move |()| check_first(&source)).await?
}

fn check_first(source: &Source) -> Result<(), StoreError> {
    let failing = format!(
        "the first record of topic `{}` cannot be read",
        source.topic
    );
    let scan = TopicScan::at(&source.topic, &source.config.reader(), failing)?;
    let mut checked = Ok(());
    let from = (source.partition.cast_signed(), Offset::Beginning);
    scan.records(&[from], |first| {
        let offset = first.offset();
        // What is none of a store's is told by those who follow.
        if let Ok(parsed) = record::read(incoming(first))
            && !source.accepted.contains(&offset)
        {
            checked = source.check_partitions(offset, &parsed);
        }
        ControlFlow::Break(())
    })?;
    checked
}

/// Refuses a copy that is not of what the topic holds now, by the record that it ends with. What
/// cannot be seen now is told by those who follow.
pub(super) async fn check_end(source: Source, copy: Arc<Copy>) -> Result<(), StoreError> {
    let copied = copy.end(&source).await?;
    if copied.cursor == 0 {
        return Ok(());
    }
    let of_reading = source.clone();
    let open = move || Follower::open(of_reading, copied);
    let reads = ClientThread::start("kafka-store-first", open)?;
    let compared = reads.call(|follower| match follower {
        Ok(follower) => follower.compare_end(COMPARED),
        Err(error) => Err(again(error)),
    });
    match compared.await? {
        Ok(Some(change)) => copy.check_change(&source, &change).await,
        Ok(None) => Ok(()),
        Err(error) if error.failure() == Failure::Unavailable => Ok(()),
        Err(error) => Err(error),
    }
}
