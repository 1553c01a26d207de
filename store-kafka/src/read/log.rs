//! A topic as a log: position is offset + 1, and positions may have holes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use annals_core::chrono::{DateTime, Utc};
use annals_core::{
    Assignment, Direction, Head, Hint, Log, LogId, LogPage, Partition, Position, ReadLog,
    StoreError, StreamId,
};
use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use uuid::Uuid;

use super::cursor::Cursor;
use super::gaps::{retention_in, stopped};
use super::mapping::{Mapper, position_of};
use super::side::SideReader;
use super::topic::{Begins, Topic};
use crate::client::ClientThread;
use crate::error::invalid;
use crate::group::Group;
use crate::kafka::Kafka;
use crate::topic::ensure;

mod pages;

/// Ranges up to this length are read beside those who follow.
const SIDE_POSITIONS: u64 = 64;
/// How long a known end of a partition is believed.
const HEAD_KNOWN: Duration = Duration::from_millis(250);

/// How often the count of partitions is looked at.
const GROWTH: Duration = Duration::from_secs(60);

/// Partitions that a topic may have at most: as many as an event's id can tell apart.
const PARTITIONS_MAX: u32 = 1_024;

/// A topic that is followed like the log of a store.
///
/// Records that were aborted, and those of open transactions, are never seen. What was removed
/// before it was read stops the followers, with the range and what to do. A topic that was deleted
/// and made again is noticed by the ids of its events.
///
/// Reading is bounded: each partition that is followed keeps at most eight pages of 1 MiB.
#[derive(Clone, Debug)]
pub struct TopicLog {
    shared: Arc<Shared>,
}

struct Shared {
    kafka: Kafka,
    topic: Topic,
    id: LogId,
    /// Where each partition begins by choice; empty when it is the first record.
    begins: BTreeMap<Partition, Position>,
    partitions: Vec<Reading>,
    growth: Mutex<Instant>,
    side: ClientThread<Result<SideReader, StoreError>>,
    moved: watch::Sender<u64>,
    group: Option<Group>,
}

/// What is at hand of one partition.
#[derive(Debug)]
struct Reading {
    cursors: Mutex<Vec<Arc<Cursor>>>,
    head: Mutex<(Position, Option<Instant>)>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicLog")
            .field("topic", &self.topic)
            .field("id", &self.id)
            .field("partitions", &self.partitions.len())
            .finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        for reading in &self.partitions {
            let cursors = reading
                .cursors
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            cursors.iter().for_each(|cursor| cursor.close());
        }
    }
}

impl TopicLog {
    pub(crate) async fn open(kafka: &Kafka, topic: Topic) -> Result<TopicLog, StoreError> {
        let name = topic.name.clone();
        let count = kafka.partitions_of(&name).await?;
        if count > PARTITIONS_MAX {
            return Err(invalid(format!(
                "topic `{name}` has {count} partitions, at most {PARTITIONS_MAX} can be followed"
            )));
        }
        if let Some((had, has)) = topic.grown.filter(|(had, has)| had > has || *has != count) {
            return Err(invalid(format!(
                "topic `{name}` has {count} partitions, and it was accepted that they became {has} \
                 from {had}"
            )));
        }
        let id = log_id(kafka.cluster(), &name);
        let begins = begins(kafka, &topic, count).await?;
        let mapper = Mapper::new(id, &name, topic.mapping.clone());
        let (config, side_topic) = (kafka.config().clone(), name.clone());
        let side = ClientThread::start(format!("kafka-side-{name}"), move || {
            SideReader::open(&config, &side_topic, mapper)
        })?;
        let group = match &topic.group {
            Some(group) => Some(Group::join(kafka, group, &name, topic.instance.as_deref())?),
            None => None,
        };
        let reading = || Reading {
            cursors: Mutex::default(),
            head: Mutex::new((Position::START, None)),
        };
        Ok(TopicLog {
            shared: Arc::new(Shared {
                kafka: kafka.clone(),
                topic,
                id,
                begins,
                partitions: (0..count).map(|_| reading()).collect(),
                growth: Mutex::new(Instant::now()),
                side,
                moved: watch::Sender::new(0),
                group,
            }),
        })
    }

    /// The name of the topic.
    pub fn topic(&self) -> &str {
        &self.shared.topic.name
    }

    /// The membership of the topic's group, where it was told to join one.
    pub fn group(&self) -> Option<&Group> {
        self.shared.group.as_ref()
    }

    /// How many positions of a partition are held back by open transactions: written, and not to be
    /// seen yet.
    ///
    /// # Errors
    ///
    /// When the brokers do not answer.
    pub async fn held_back(&self, partition: Partition) -> Result<u64, StoreError> {
        let name = &self.shared.topic.name;
        let committed = self.shared.kafka.bounds(name, partition).await?;
        let all = self
            .shared
            .kafka
            .uncommitted_bounds(name, partition)
            .await?;
        Ok(all.high.saturating_sub(committed.high).max(0) as u64)
    }

    fn reading(&self, partition: Partition) -> Result<&Reading, StoreError> {
        let found = self.shared.partitions.get(partition.0 as usize);
        found.ok_or_else(|| {
            invalid(format!(
                "topic `{}` has {} partitions, there is no {partition}",
                self.shared.topic.name,
                self.shared.partitions.len()
            ))
        })
    }

    /// Stops when the topic has more partitions than when it was opened.
    async fn check_growth(&self) -> Result<(), StoreError> {
        {
            let mut looked = self
                .shared
                .growth
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if looked.elapsed() < GROWTH {
                return Ok(());
            }
            *looked = Instant::now();
        }
        let name = &self.shared.topic.name;
        let had = self.shared.partitions.len();
        let has = self.shared.kafka.partitions_of(name).await? as usize;
        if has == had {
            return Ok(());
        }
        // The next read looks again at once: nothing continues past this.
        let mut looked = self
            .shared
            .growth
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *looked = Instant::now()
            .checked_sub(GROWTH)
            .unwrap_or_else(Instant::now);
        Err(changed(name, had, has))
    }

    /// What is left of a partition: after which position, and up to which one.
    async fn left(&self, partition: Partition) -> Result<(Position, Position), StoreError> {
        let shared = &self.shared;
        let bounds = shared.kafka.bounds(&shared.topic.name, partition).await?;
        let end = Position::new(bounds.high.max(0) as u64);
        self.note_head(partition, end)?;
        Ok((Position::new(bounds.low.max(0) as u64), end))
    }

    /// Where a read begins: later than asked for where the log begins later, or where a gap was
    /// accepted.
    async fn start_of(
        &self,
        partition: Partition,
        after: Position,
        begins_after: Position,
    ) -> Result<Position, StoreError> {
        let shared = &self.shared;
        let chosen = shared.begins.get(&partition).copied();
        let after = after.max(chosen.unwrap_or(Position::START));
        if after >= begins_after {
            return Ok(after);
        }
        let is_beginning = after == Position::START;
        if is_beginning && shared.topic.begins == Begins::WhatIsLeft {
            return Ok(begins_after);
        }
        if let Some(reason) = shared.topic.gaps.reason(partition, begins_after) {
            tracing::warn!(
                topic = shared.topic.name,
                partition = partition.0,
                after = after.get(),
                up_to = begins_after.get(),
                reason,
                "records that were removed before they were read are passed over"
            );
            return Ok(begins_after);
        }
        let retention = self.retention().await;
        let name = &shared.topic.name;
        Err(stopped(
            name,
            partition,
            after,
            begins_after,
            retention.as_deref(),
        ))
    }

    /// After which position records are left, and after which this log begins by choice.
    async fn beginnings(&self, partition: Partition) -> Result<(Position, Position), StoreError> {
        let shared = &self.shared;
        let bounds = shared.kafka.bounds(&shared.topic.name, partition).await?;
        let left = Position::new(bounds.low.max(0) as u64);
        let chosen = shared.begins.get(&partition).copied();
        Ok((left, chosen.unwrap_or(Position::START)))
    }

    /// The setting that removed records, for an error text.
    async fn retention(&self) -> Option<String> {
        let settings = ensure::settings(&self.shared.kafka, &self.shared.topic.name)
            .await
            .ok()?;
        retention_in(&settings)
    }

    /// Learns an end of a partition; ends never go backwards.
    fn note_head(&self, partition: Partition, found: Position) -> Result<Position, StoreError> {
        let mut head = self
            .reading(partition)?
            .head
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        head.0 = head.0.max(found);
        head.1 = Some(Instant::now());
        Ok(head.0)
    }

    fn known_head(&self, partition: Partition) -> Result<Position, StoreError> {
        let head = self.reading(partition)?.head.lock();
        Ok(head.unwrap_or_else(PoisonError::into_inner).0)
    }
}

#[async_trait]
impl Log for TopicLog {
    fn id(&self) -> LogId {
        self.shared.id
    }

    fn partitions(&self) -> u32 {
        self.shared.partitions.len() as u32
    }

    fn grown_from(&self) -> Option<u32> {
        self.shared.topic.grown.map(|(had, _)| had)
    }

    fn partition_of(&self, stream: &StreamId) -> Partition {
        let count = self.partitions();
        let found = self
            .shared
            .topic
            .partition_of_key(stream.id().as_bytes(), count);
        found.unwrap_or_else(|| Partition::of(stream.as_str(), count))
    }

    async fn read(&self, read: ReadLog) -> Result<LogPage, StoreError> {
        read.filter.check()?;
        self.reading(read.partition)?;
        self.check_growth().await?;
        if read.direction == Direction::Backward {
            return self.read_backward(read).await;
        }
        let length = read.up_to.get().saturating_sub(read.after.get());
        if length <= SIDE_POSITIONS {
            // Whether there is an event at one position: also where it was removed.
            let is_lookup = length == 0 || length == 1 && read.limit == 1;
            return self.read_beside(read, is_lookup).await;
        }
        self.read_forward(read).await
    }

    async fn head(&self, partition: Partition) -> Result<Head, StoreError> {
        let known = *self
            .reading(partition)?
            .head
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if known.1.is_some_and(|asked| asked.elapsed() < HEAD_KNOWN) {
            return Ok(Head::at(known.0));
        }
        let bounds = self
            .shared
            .kafka
            .bounds(&self.shared.topic.name, partition)
            .await?;
        let found = Position::new(bounds.high.max(0) as u64);
        // A topic that was made again may end earlier than it did: that is for `same_log` to see.
        if found < known.0 {
            self.reading(partition)?;
            return Ok(Head::at(found));
        }
        Ok(Head::at(self.note_head(partition, found)?))
    }

    async fn position_at(
        &self,
        partition: Partition,
        moment: DateTime<Utc>,
    ) -> Result<Position, StoreError> {
        let name = &self.shared.topic.name;
        self.reading(partition)?;
        // The first record that is later; everything before it was recorded by then.
        let later = moment.timestamp_millis().saturating_add(1);
        match self.shared.kafka.offset_at(name, partition, later).await? {
            Some(offset) => Ok(position_of(offset).minus(1)),
            None => Ok(self.head(partition).await?.visible),
        }
    }

    async fn begins_after(&self, partition: Partition) -> Result<Position, StoreError> {
        self.reading(partition)?;
        // What comes before a beginning that was chosen is not missing.
        let (left, chosen) = self.beginnings(partition).await?;
        Ok(if left > chosen { left } else { Position::START })
    }

    fn hint(&self) -> Hint {
        Hint::new(self.shared.moved.subscribe())
    }

    fn assignment(&self) -> Option<watch::Receiver<Assignment>> {
        self.shared.group.as_ref().map(Group::assignment)
    }
}

/// The id of the log of a topic: another cluster or another name is another log.
fn log_id(cluster: &str, topic: &str) -> LogId {
    let mut hash = Sha256::new();
    for part in [cluster.as_bytes(), topic.as_bytes()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let whole: [u8; 32] = hash.finalize().into();
    let mut half = [0; 16];
    half.copy_from_slice(&whole[..16]);
    LogId::from_uuid(Uuid::new_v8(half))
}

/// What it means that an open topic has another number of partitions. None is ever taken from one.
fn changed(name: &str, had: usize, has: usize) -> StoreError {
    if has < had {
        return invalid(format!(
            "topic `{name}` had {had} partitions when it was opened and has {has}: it was deleted \
             and made again, and holds other records. Open it again if it is the one to follow, \
             and rebuild what was made of the old one"
        ));
    }
    invalid(format!(
        "topic `{name}` had {had} partitions when it was opened and has {has}: keys have moved, \
         and lost their order. Open it again; followers go on with \
         `Topic::accept_more_partitions({had}, {has})`"
    ))
}

/// Where each partition begins by choice.
async fn begins(
    kafka: &Kafka,
    topic: &Topic,
    partitions: u32,
) -> Result<BTreeMap<Partition, Position>, StoreError> {
    match &topic.begins {
        Begins::First | Begins::WhatIsLeft => Ok(BTreeMap::new()),
        Begins::After(positions) => Ok(positions.clone()),
        Begins::Time(time) => {
            let mut begins = BTreeMap::new();
            for partition in (0..partitions).map(Partition) {
                let time_ms = time.timestamp_millis();
                let position = match kafka.offset_at(&topic.name, partition, time_ms).await? {
                    Some(offset) => position_of(offset).minus(1),
                    None => {
                        let bounds = kafka.bounds(&topic.name, partition).await?;
                        Position::new(bounds.high.max(0) as u64)
                    }
                };
                begins.insert(partition, position);
            }
            Ok(begins)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_more_partitions_can_be_accepted() {
        let said = |has| changed("sales", 3, has).to_string();
        assert!(said(4).ends_with("`Topic::accept_more_partitions(3, 4)`"));
        let recreated = said(2);
        assert!(
            recreated.contains("it was deleted and made again"),
            "{recreated}"
        );
        assert!(!recreated.contains("accept_more_partitions"));
    }
}
