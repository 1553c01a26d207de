//! Reading a partition from where its local copy ends.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use annals_core::chrono::{DateTime, Utc};
use annals_core::{ChangeStream, EventId, Failure, Position, StoreError, StreamId};
use annals_sqlite::ReplicaEntry;
use bytes::Bytes;
use rdkafka::Message as _;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::note::OwnerNote;
use super::record::{self, Assembler, Incoming, Parsed, ParsedEvent};
use crate::client::{Config, Context, EarlyEnd, PROPAGATION, Retry, position};
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
    /// How many the topic has.
    pub(super) partitions: u32,
    /// The folder of the local copy.
    pub(super) folder: PathBuf,
    /// Offsets of records by others that are passed over.
    pub(super) accepted: BTreeSet<i64>,
}

impl Source {
    /// The partition that a stream belongs to.
    pub(super) fn partition_of(&self, stream: &StreamId) -> u32 {
        crate::murmur2_partition(stream.as_str().as_bytes(), self.partitions)
    }

    /// Partitions that are added to a topic move streams: versions would begin again elsewhere, and
    /// ids would not be known there.
    pub(super) fn check_partitions(&self, offset: i64, parsed: &Parsed) -> Result<(), StoreError> {
        let count = self.partitions;
        let stream: &StreamId = match parsed {
            Parsed::Event(event) => &event.stream,
            Parsed::Whole(ReplicaEntry::Change { change, .. }) => &change.stream,
            Parsed::Whole(ReplicaEntry::Note(note)) => {
                return match OwnerNote::read(note).partitions {
                    Some(had) if had != count => Err(grown(&self.topic, had, count)),
                    _ => Ok(()),
                };
            }
            Parsed::Whole(_) => return Ok(()),
        };
        let belongs = self.partition_of(stream);
        let Source {
            topic, partition, ..
        } = self;
        if belongs == *partition {
            return Ok(());
        }
        Err(StoreError::new(
            Failure::Corrupt,
            format!(
                "partition {partition} of `{topic}` holds the stream `{stream}` at offset \
                 {offset}, which belongs to partition {belongs} of {count}: partitions were added \
                 to the topic. {GROWN}"
            ),
        ))
    }
}

/// What the local copy ends with.
#[derive(Clone, Debug, Default)]
pub(super) struct CopyEnd {
    /// After the last record that was applied.
    pub(super) cursor: u64,
    pub(super) event: Option<LastEvent>,
    pub(super) note: Option<String>,
}

/// The last event of the local copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LastEvent {
    pub(super) position: Position,
    pub(super) id: EventId,
    pub(super) recorded_at: DateTime<Utc>,
}

impl LastEvent {
    /// The event as a copy that ends with it has it.
    fn of(parsed: &ParsedEvent) -> LastEvent {
        LastEvent {
            position: parsed.position,
            id: parsed.event.id,
            recorded_at: parsed.recorded_at,
        }
    }
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) entries: Vec<ReplicaEntry>,
    /// After the last record of the last entry.
    pub(super) cursor: u64,
    /// How far it was looked, markers included.
    pub(super) reached: i64,
    /// The change that the copy must have, because it ends with it.
    pub(super) known: Option<ChangeStream>,
}

/// A consumer of one partition; used on a thread of its own.
pub(super) struct Follower {
    source: Source,
    consumer: BaseConsumer<Context>,
    assembler: Assembler,
    cursor: u64,
    /// Everything before it was looked at.
    reached: i64,
    early: EarlyEnd,
    /// The record that must come first: the last one that was applied.
    known: Option<(i64, CopyEnd)>,
    known_change: Option<ChangeStream>,
    /// Where what was committed ended when it began.
    stable_end: i64,
    began: Instant,
    /// Why nothing comes after the last page.
    failed: Option<StoreError>,
}

impl Follower {
    /// Begins where the copy ends. What it ends with is read again and compared: a topic that was
    /// recreated, or that lost its end, is noticed. Blocks.
    pub(super) fn open(source: Source, copied: CopyEnd) -> Result<Follower, StoreError> {
        let (topic, partition) = (source.topic.clone(), source.partition as i32);
        let doing = || format!("partition {partition} of `{topic}` cannot be read");
        let context = Context::default();
        let consumer = BaseConsumer::from_config_and_context(&source.config.reader(), context)
            .map_err(|error| failed(doing(), error))?;
        let (low, stable) = Retry::within(ANSWER)
            .block(|within| consumer.fetch_watermarks(&topic, partition, within))
            .map_err(|error| failed(doing(), error))?;
        let cursor = copied.cursor;
        let start = cursor.cast_signed();
        if low > 0 && low >= start {
            return Err(removed(&source, low, start));
        }
        if start > stable && start > uncommitted_end(&source)? {
            let why = format!("it ends at {stable}, and {start} records of it were copied");
            return Err(lost(&source, &why));
        }
        let first = (start - 1).max(0);
        assign(&consumer, &source, first).map_err(|error| failed(doing(), error))?;
        Ok(Follower {
            known: (start > 0).then_some((first, copied)),
            known_change: None,
            stable_end: stable,
            source,
            consumer,
            assembler: Assembler::default(),
            cursor,
            reached: first,
            early: EarlyEnd::default(),
            began: Instant::now(),
            failed: None,
        })
    }

    /// Where what was committed ended when it began.
    pub(super) fn stable_end(&self) -> i64 {
        self.stable_end
    }

    /// Reads the record that the copy ends with, and compares it; the change that the copy must
    /// have, when it is one. Nothing is said when it does not come in time. Blocks.
    pub(super) fn compare_end(
        &mut self,
        within: Duration,
    ) -> Result<Option<ChangeStream>, StoreError> {
        while self.known.is_some() && self.began.elapsed() < within {
            match self.consumer.poll(POLL) {
                Some(Ok(message)) => {
                    let offset = message.offset();
                    let incoming = incoming(&message);
                    drop(message);
                    self.take(offset, incoming)?;
                }
                Some(Err(KafkaError::PartitionEOF(_))) => self.at_end()?,
                Some(Err(error)) if is_out_of_range(&error) => return Err(self.out_of_range()),
                // Those who follow report it.
                Some(Err(_)) | None => {}
            }
        }
        Ok(self.known_change.take())
    }

    /// What comes next, after a short wait when there is nothing. What comes before a record that
    /// is refused is a page of its own. Blocks.
    pub(super) fn page(&mut self) -> Result<Page, StoreError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut page = Page::default();
        match self.fill(&mut page) {
            Err(error) if page.entries.is_empty() => return Err(error),
            filled => self.failed = filled.err(),
        }
        page.cursor = self.cursor;
        page.reached = self.reached;
        page.known = self.known_change.take();
        Ok(page)
    }

    fn fill(&mut self, page: &mut Page) -> Result<(), StoreError> {
        let (mut events, mut bytes) = (0, 0);
        let mut timeout = POLL;
        while events < EVENTS_MAX && bytes < BYTES_MAX {
            match self.consumer.poll(timeout) {
                Some(Ok(message)) => {
                    let offset = message.offset();
                    let incoming = incoming(&message);
                    bytes += incoming.bytes();
                    events += 1;
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
                    return Err(self.out_of_range());
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
        Ok(())
    }

    /// Why there is nothing at the offset that comes next.
    fn out_of_range(&self) -> StoreError {
        let (topic, partition) = (&self.source.topic, self.source.partition as i32);
        let found = Retry::within(ANSWER)
            .block(|within| self.consumer.fetch_watermarks(topic, partition, within));
        match found {
            Ok((low, _)) if low > self.reached => {
                removed(&self.source, low, self.cursor.cast_signed())
            }
            Ok(_) => lost(&self.source, "it does not go as far as it was copied"),
            Err(error) => self.failed(error),
        }
    }

    /// Its position passes markers and aborted records, which have offsets too.
    fn at_end(&mut self) -> Result<(), StoreError> {
        let (topic, partition) = (&self.source.topic, self.source.partition as i32);
        let position = position(&self.consumer, topic, partition);
        let consumer = &self.consumer;
        let reached = self.early.reached(position, self.reached, || {
            let bounds = Retry::within(ANSWER)
                .block(|within| consumer.fetch_watermarks(topic, partition, within));
            bounds.map(|(_, end)| end)
        });
        let Some(reached) = reached.map_err(|error| self.failed(error))? else {
            let again = assign(&self.consumer, &self.source, self.reached);
            return again.map_err(|error| self.failed(error));
        };
        self.reached = reached;
        if let Some((offset, _)) = self.known
            && self.reached > offset
        {
            return Err(lost(
                &self.source,
                "the last record that was copied is gone",
            ));
        }
        Ok(())
    }

    fn take(&mut self, offset: i64, record: Incoming) -> Result<Option<ReplicaEntry>, StoreError> {
        if let Some((known, copied)) = self.known.take() {
            if offset != known {
                return Err(lost(
                    &self.source,
                    "the last record that was copied is gone",
                ));
            }
            return self.compare(record, &copied).map(|()| None);
        }
        if self.source.accepted.contains(&offset) {
            return Ok(None);
        }
        let parsed = record::read(record);
        if let Ok(parsed) = &parsed {
            self.source.check_partitions(offset, parsed)?;
        }
        let entry = parsed.and_then(|parsed| self.assembler.push(parsed));
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

    /// Compares the record that the copy ends with by all that the copy knows of it. Of a change
    /// it knows the id: the task looks it up by that.
    fn compare(&mut self, record: Incoming, copied: &CopyEnd) -> Result<(), StoreError> {
        let why = match record::read(record) {
            Ok(Parsed::Event(event)) if Some(LastEvent::of(&event)) == copied.event => {
                return Ok(());
            }
            Ok(Parsed::Event(_)) => "another event is at the end of the copy",
            Ok(Parsed::Whole(ReplicaEntry::Note(note))) if Some(&note) == copied.note.as_ref() => {
                return Ok(());
            }
            Ok(Parsed::Whole(ReplicaEntry::Change { change, .. })) => {
                self.known_change = Some(change);
                return Ok(());
            }
            Ok(Parsed::Whole(_)) => "another owner has written what is at the end of the copy",
            Err(_) => "a record of another program is at the end of the copy",
        };
        Err(lost(&self.source, why))
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

/// Lets a consumer read from an offset on.
fn assign(consumer: &BaseConsumer<Context>, source: &Source, from: i64) -> Result<(), KafkaError> {
    let mut list = TopicPartitionList::new();
    let partition = source.partition as i32;
    list.add_partition_offset(&source.topic, partition, Offset::Offset(from))?;
    consumer.assign(&list)
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

pub(super) fn lost(source: &Source, why: &str) -> StoreError {
    let Source {
        topic, partition, ..
    } = source;
    StoreError::new(
        Failure::Corrupt,
        format!(
            "the local copy of partition {partition} is not of what `{topic}` holds now ({why}): \
             the topic was recreated, restored or lost its end. If the topic is right as it is, \
             move the folder `{}` away, and it is copied again; keep the folder until it is \
             certain that the topic has all events",
            source.folder.display()
        ),
    )
}

/// Records were removed that the copy may not have.
fn removed(source: &Source, low: i64, copied: i64) -> StoreError {
    let Source {
        topic,
        partition,
        folder,
        ..
    } = source;
    let folder = folder.display();
    let way_out = match copied {
        0 => format!(
            "there is no local copy of them in `{folder}`. Restore the topic from a backup; what \
             other processes have in their local copies may be all that is left, keep them"
        ),
        _ => format!(
            "the local copy in `{folder}` has what was before offset {copied}. Do not remove it, \
             it may be all that is left; restore the topic from a backup, or record what \
             `sqlite:{folder}/{partition}.db?mode=ro` reads in a new topic"
        ),
    };
    StoreError::new(
        Failure::Corrupt,
        format!(
            "topic `{topic}` has lost its records before offset {low} of partition {partition}, \
             by a retention or because they were deleted, and {way_out}"
        ),
    )
}

const GROWN: &str = "With another number streams belong to other partitions, where their versions \
                     and ids are not known, so nothing is read or recorded. Kafka takes no \
                     partition away: make a topic with as many as there were, copy the records of \
                     each partition there as they are, and open that one";

/// The topic has not the number of partitions that it was written with.
pub(super) fn grown(topic: &str, had: u32, has: u32) -> StoreError {
    StoreError::new(
        Failure::Corrupt,
        format!(
            "topic `{topic}` was written as one of {had} partitions and has {has}: partitions \
             were added to it. {GROWN}"
        ),
    )
}

pub(super) fn incoming(message: &BorrowedMessage<'_>) -> Incoming {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::url::Url;

    #[test]
    fn a_record_shows_that_partitions_were_added() {
        let names = (0..).map(|n| StreamId::new(format!("account-{n}")).unwrap());
        let of =
            |stream: &StreamId, count| crate::murmur2_partition(stream.as_str().as_bytes(), count);
        let mut moved = names.filter(|stream| of(stream, 2) == 0 && of(stream, 3) != 0);
        let stream = moved.next().unwrap();
        let source = |partitions| Source {
            config: Config::new(&Url::parse("kafka://a").unwrap(), []).unwrap(),
            topic: "bank".to_owned(),
            partition: 0,
            partitions,
            folder: PathBuf::from("./bank"),
            accepted: BTreeSet::new(),
        };
        let change = ReplicaEntry::Change {
            change: ChangeStream::new(&stream, annals_core::StreamChange::Delete),
            recorded_at: DateTime::UNIX_EPOCH,
        };
        let (change, note) = (Parsed::Whole(change), |note: &str| {
            Parsed::Whole(ReplicaEntry::Note(note.to_owned()))
        });
        let counted = note("7f partitions=2\nmachine");
        for parsed in [&change, &counted, &note("7f\nmachine")] {
            assert!(source(2).check_partitions(7, parsed).is_ok());
        }
        assert!(source(3).check_partitions(7, &note("7f\nmachine")).is_ok());
        let error = source(3).check_partitions(7, &counted).unwrap_err();
        let said = "`bank` was written as one of 2 partitions and has 3";
        assert!(error.to_string().contains(said), "{error}");
        let error = source(3).check_partitions(7, &change).unwrap_err();
        let said = format!(
            "holds the stream `{stream}` at offset 7, which belongs to partition {} of 3",
            of(&stream, 3)
        );
        assert!(error.to_string().contains(&said), "{error}");
    }
}
