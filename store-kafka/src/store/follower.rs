//! Reading a partition from where its local copy ends.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use annals_core::{EventId, Failure, Position, StoreError};
use annals_sqlite::ReplicaEntry;
use bytes::Bytes;
use rdkafka::Message as _;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::record::{self, Assembler, Incoming, Parsed};
use crate::client::{Config, Context, PROPAGATION, Retry};
use crate::error::{failed, is_out_of_range, is_unknown_topic};
use crate::kafka::ANSWER;

/// Bounds of what is handed over at once.
const EVENTS_MAX: usize = 8_192;
const BYTES_MAX: usize = 8 << 20;

/// How long one page waits for its first record.
const POLL: Duration = Duration::from_millis(100);

/// What a partition is, and what of it is known already.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) config: Config,
    pub(super) topic: String,
    pub(super) partition: u32,
    /// Offsets of records by others that are passed over.
    pub(super) accepted: BTreeSet<i64>,
}

/// The last event of the local copy.
pub(super) type Last = Option<(Position, EventId)>;

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) entries: Vec<ReplicaEntry>,
    /// After the last record of the last entry.
    pub(super) cursor: u64,
    /// How far it was looked, markers included.
    pub(super) reached: i64,
}

/// A consumer of one partition; used on a thread of its own.
pub(super) struct Follower {
    source: Source,
    consumer: BaseConsumer<Context>,
    assembler: Assembler,
    cursor: u64,
    /// Everything before it was looked at.
    reached: i64,
    /// The end of what was committed, when it was last asked.
    stable: i64,
    /// The record that must come first: the last one that was applied.
    known: Option<(i64, Last)>,
    began: Instant,
}

impl Follower {
    /// Begins after `cursor`. What the copy ends with is read again and compared: a topic that was
    /// recreated, or that lost its end, is noticed. Blocks.
    pub(super) fn open(source: Source, cursor: u64, last: Last) -> Result<Follower, StoreError> {
        let (topic, partition) = (source.topic.clone(), source.partition as i32);
        let doing = || format!("partition {partition} of `{topic}` cannot be read");
        let context = Context::default();
        let consumer = BaseConsumer::from_config_and_context(&source.config.reader(), context)
            .map_err(|error| failed(doing(), error))?;
        let (low, stable) = Retry::within(ANSWER)
            .block(|within| consumer.fetch_watermarks(&topic, partition, within))
            .map_err(|error| failed(doing(), error))?;
        let start = cursor.cast_signed();
        if low > 0 && low >= start {
            return Err(lost(
                &source,
                &format!("its records before {low} were removed"),
            ));
        }
        if start > stable && start > uncommitted_end(&source)? {
            let why = format!("it ends at {stable}, and {start} records of it were copied");
            return Err(lost(&source, &why));
        }
        let first = (start - 1).max(0);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&topic, partition, Offset::Offset(first))
            .and_then(|()| consumer.assign(&list))
            .map_err(|error| failed(doing(), error))?;
        Ok(Follower {
            known: (start > 0).then_some((first, last)),
            source,
            consumer,
            assembler: Assembler::default(),
            cursor,
            reached: first,
            stable,
            began: Instant::now(),
        })
    }

    /// What comes next, after a short wait when there is nothing. Blocks.
    pub(super) fn page(&mut self) -> Result<Page, StoreError> {
        let mut page = Page::default();
        let (mut events, mut bytes) = (0, 0);
        let mut timeout = POLL;
        while events < EVENTS_MAX && bytes < BYTES_MAX {
            match self.consumer.poll(timeout) {
                Some(Ok(message)) => {
                    let offset = message.offset();
                    bytes += message.payload_len() + 128;
                    events += 1;
                    let incoming = incoming(&message);
                    drop(message);
                    let entry = self.take(offset, incoming)?;
                    self.reached = offset + 1;
                    if let Some(entry) = entry {
                        page.entries.push(entry);
                        self.cursor = self.reached.cast_unsigned();
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    self.at_end()?;
                    break;
                }
                Some(Err(error)) if is_out_of_range(&error) => {
                    return Err(lost(&self.source, "it does not go as far as it was copied"));
                }
                Some(Err(error))
                    if is_unknown_topic(&error) && self.began.elapsed() > PROPAGATION =>
                {
                    return Err(self.failed(error));
                }
                // The client mends it, or goes on complaining.
                Some(Err(error)) => {
                    tracing::debug!(%error, topic = self.source.topic, "a read failed");
                }
                None => break,
            }
            timeout = Duration::ZERO;
        }
        page.cursor = self.cursor;
        page.reached = self.reached;
        Ok(page)
    }

    /// Its position passes markers and aborted records, which have offsets too. Until a record was
    /// seen there is none: then it came at least as far as was stable before.
    fn at_end(&mut self) -> Result<(), StoreError> {
        let (topic, partition) = (&self.source.topic, self.source.partition as i32);
        let position = self.consumer.position().ok().and_then(|list| {
            match list.find_partition(topic, partition)?.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            }
        });
        self.reached = self.reached.max(position.unwrap_or(self.stable));
        if let Some((offset, _)) = self.known
            && self.reached > offset
        {
            return Err(lost(
                &self.source,
                "the last record that was copied is gone",
            ));
        }
        if position.is_none() {
            let found = Retry::within(ANSWER)
                .block(|within| self.consumer.fetch_watermarks(topic, partition, within));
            self.stable = found.map_err(|error| self.failed(error))?.1;
        }
        Ok(())
    }

    fn take(&mut self, offset: i64, record: Incoming) -> Result<Option<ReplicaEntry>, StoreError> {
        if let Some((known, last)) = self.known.take() {
            if offset != known {
                return Err(lost(
                    &self.source,
                    "the last record that was copied is gone",
                ));
            }
            return match (record::read(record), last) {
                (Ok(Parsed::Event(event)), Some((position, id)))
                    if event.position == position && event.event.id != id =>
                {
                    Err(lost(
                        &self.source,
                        "another event is at the end of the copy",
                    ))
                }
                _ => Ok(None),
            };
        }
        if self.source.accepted.contains(&offset) {
            return Ok(None);
        }
        let entry = record::read(record).and_then(|parsed| self.assembler.push(parsed));
        entry.map_err(|why| {
            let Source {
                topic, partition, ..
            } = &self.source;
            StoreError::new(
                Failure::Corrupt,
                format!(
                    "partition {partition} of `{topic}` holds a record at offset {offset} that \
                     Annals did not write ({why}); nothing after it was taken. Stop the program \
                     that writes there, then open the store again with \
                     `accept_foreign={partition}:{offset}`"
                ),
            )
        })
    }

    fn failed(&self, error: KafkaError) -> StoreError {
        let Source {
            topic, partition, ..
        } = &self.source;
        failed(
            format!("partition {partition} of `{topic}` cannot be read"),
            error,
        )
    }
}

/// Where the partition ends, open transactions included. Blocks.
pub(super) fn uncommitted_end(source: &Source) -> Result<i64, StoreError> {
    let Source {
        topic, partition, ..
    } = source;
    let doing = || format!("the end of partition {partition} of `{topic}` was not found out");
    let config = source.config.uncommitted_reader();
    let consumer = BaseConsumer::from_config_and_context(&config, Context::default())
        .map_err(|error| failed(doing(), error))?;
    let found = Retry::within(ANSWER)
        .block(|within| consumer.fetch_watermarks(topic, *partition as i32, within));
    found
        .map(|(_, end)| end)
        .map_err(|error| failed(doing(), error))
}

fn lost(source: &Source, why: &str) -> StoreError {
    let Source {
        topic, partition, ..
    } = source;
    StoreError::new(
        Failure::Corrupt,
        format!(
            "the local copy of partition {partition} is not of what `{topic}` holds now ({why}): \
             the topic was recreated, restored or lost its end. Remove the copy to follow it as \
             it is"
        ),
    )
}

fn incoming(message: &BorrowedMessage<'_>) -> Incoming {
    let copy = |bytes: Option<&[u8]>| bytes.map_or_else(Bytes::new, Bytes::copy_from_slice);
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        let header = headers.iter();
        header
            .map(|header| (header.key.to_owned(), copy(header.value)))
            .collect()
    });
    Incoming {
        key: copy(message.key()),
        payload: copy(message.payload()),
        headers,
    }
}
