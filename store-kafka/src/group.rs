//! Membership of a consumer group: who may try, and never who decides.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use annals_core::{Assignment, Partition, Position, StoreError};
use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::{mpsc, oneshot, watch};

use crate::client::{Context, Retry};
use crate::error::{failed, unavailable};
use crate::kafka::{ANSWER, Kafka};

/// How long one poll waits.
const POLL: Duration = Duration::from_millis(100);

/// How long one try may hold the thread that polls.
const TRY: Duration = Duration::from_secs(3);

/// Requests that wait at most.
const QUEUED_MAX: usize = 16;

/// An offset that a group has for a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct GroupOffset {
    /// The partition.
    pub partition: Partition,
    /// The group says that everything at or before this position was read; nothing when it has
    /// never said so.
    pub position: Option<Position>,
}

/// How many members this process has in groups.
static MEMBERS: LazyLock<watch::Sender<usize>> = LazyLock::new(|| watch::Sender::new(0));

/// One of them, until its client is closed.
struct CountedMember;

impl CountedMember {
    fn new() -> CountedMember {
        MEMBERS.send_modify(|members| *members += 1);
        CountedMember
    }
}

impl Drop for CountedMember {
    fn drop(&mut self) {
        MEMBERS.send_modify(|members| *members -= 1);
    }
}

/// Waits until this process is a member of no group any more, at most for so long; whether it is.
///
/// A member leaves when what it was made for is dropped: a [`TopicLog`](crate::TopicLog) of a
/// group, a store that shares its partitions. That takes a moment, on a thread of its own. A
/// program that ends before that stays a member, and its partitions move only after the group's
/// session timeout (45 s).
///
/// ```no_run
/// # async fn example(db: annals_core::Annals) {
/// drop(db);
/// annals_kafka::left_groups(std::time::Duration::from_secs(5)).await;
/// # }
/// ```
pub async fn left_groups(within: Duration) -> bool {
    let mut members = MEMBERS.subscribe();
    let left = members.wait_for(|members| *members == 0);
    matches!(tokio::time::timeout(within, left).await, Ok(Ok(_)))
}

enum Request {
    Commit(
        Vec<(Partition, Position)>,
        oneshot::Sender<Result<(), KafkaError>>,
    ),
    Committed(u32, oneshot::Sender<Result<Vec<GroupOffset>, KafkaError>>),
}

/// A member of a consumer group that fetches nothing.
///
/// It is polled by its own thread as long as it lives, so no handler is ever too slow for the
/// group. What the group assigns is a hint; what the group keeps as offsets is for other people's
/// tools and is never read back by views.
#[derive(Debug)]
pub struct Group {
    name: String,
    assigned: watch::Receiver<Assignment>,
    requests: mpsc::Sender<Request>,
    closed: Arc<AtomicBool>,
}

impl Drop for Group {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Release);
    }
}

impl Group {
    pub(crate) fn join(
        kafka: &Kafka,
        group: &str,
        topic: &str,
        instance: Option<&str>,
    ) -> Result<Group, StoreError> {
        let config = kafka.config().member(group, instance);
        let assigned = watch::Sender::new(Assignment::default());
        let receiver = assigned.subscribe();
        let (requests, mut queue) = mpsc::channel::<Request>(QUEUED_MAX);
        let closed = Arc::new(AtomicBool::new(false));
        let is_closed = Arc::clone(&closed);
        let topic = topic.to_owned();
        let doing = format!("group `{group}` was not joined");
        let member = Member {
            context: Context::default(),
            assigned,
        };
        let consumer: BaseConsumer<Member> = BaseConsumer::from_config_and_context(&config, member)
            .map_err(|error| failed(doing.clone(), error))?;
        consumer
            .subscribe(&[&topic])
            .map_err(|error| failed(doing, error))?;
        let counted = CountedMember::new();
        std::thread::Builder::new()
            .name(format!("kafka-group-{group}"))
            .spawn(move || {
                while !is_closed.load(Ordering::Acquire) {
                    if let Some(Err(error)) = consumer.poll(POLL) {
                        tracing::debug!(%error, "a group member reports an error");
                    }
                    while let Ok(request) = queue.try_recv() {
                        serve(&consumer, &topic, request);
                    }
                }
                // It leaves the group here.
                drop(consumer);
                drop(counted);
            })
            .map_err(|error| unavailable("no thread for a group member").because(error))?;
        Ok(Group {
            name: group.to_owned(),
            assigned: receiver,
            requests,
            closed,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The partitions that the group gave to this member.
    pub fn assignment(&self) -> watch::Receiver<Assignment> {
        self.assigned.clone()
    }

    /// Shows other people's tools how far this application has come.
    ///
    /// # Errors
    ///
    /// When the group refuses, for example because a partition is not this member's any more.
    pub async fn commit(
        &self,
        positions: impl IntoIterator<Item = (Partition, Position)>,
    ) -> Result<(), StoreError> {
        let positions: Vec<(Partition, Position)> = positions.into_iter().collect();
        let committed = self
            .ask(|answer| Request::Commit(positions.clone(), answer))
            .await?;
        committed.map_err(|error| {
            failed(
                format!("group `{}` did not take the offsets", self.name),
                error,
            )
        })
    }

    /// How far the group says that each of so many partitions was read.
    ///
    /// # Errors
    ///
    /// When the brokers do not answer.
    pub async fn committed(&self, partitions: u32) -> Result<Vec<GroupOffset>, StoreError> {
        let found = self
            .ask(|answer| Request::Committed(partitions, answer))
            .await?;
        found.map_err(|error| {
            failed(
                format!("group `{}` did not say its offsets", self.name),
                error,
            )
        })
    }

    /// Asks until the answer counts; between two tries the member is polled and serves others.
    async fn ask<R>(
        &self,
        request: impl Fn(oneshot::Sender<KafkaResult<R>>) -> Request,
    ) -> Result<KafkaResult<R>, StoreError> {
        let gone = || unavailable(format!("the member of group `{}` ended", self.name));
        let mut retry = Retry::within(ANSWER);
        loop {
            let (answer, answered) = oneshot::channel();
            self.requests
                .send(request(answer))
                .await
                .map_err(|_| gone())?;
            let error = match answered.await.map_err(|_| gone())? {
                Ok(answer) => return Ok(Ok(answer)),
                Err(error) => error,
            };
            let Some(wait) = retry.wait_after(&error) else {
                return Ok(Err(error));
            };
            tokio::time::sleep(wait).await;
        }
    }
}

fn serve(consumer: &BaseConsumer<Member>, topic: &str, request: Request) {
    match request {
        Request::Commit(positions, answer) => {
            let mut list = TopicPartitionList::new();
            let added = positions.iter().try_for_each(|(partition, position)| {
                let offset = Offset::Offset(position.get() as i64);
                list.add_partition_offset(topic, partition.0 as i32, offset)
            });
            let done = added.and_then(|()| consumer.commit(&list, CommitMode::Sync));
            // The caller may have been dropped.
            let _ = answer.send(done);
        }
        Request::Committed(partitions, answer) => {
            let mut list = TopicPartitionList::new();
            list.add_partition_range(topic, 0, partitions.saturating_sub(1) as i32);
            let found = consumer.committed_offsets(list, TRY).and_then(|list| {
                let elements = list.elements();
                let of = elements.iter().map(|element| {
                    element.error()?;
                    Ok(GroupOffset {
                        partition: Partition(element.partition() as u32),
                        position: match element.offset() {
                            Offset::Offset(offset) if offset >= 0 => {
                                Some(Position::new(offset as u64))
                            }
                            _ => None,
                        },
                    })
                });
                of.collect()
            });
            let _ = answer.send(found);
        }
    }
}

/// Turns rebalances into assignments.
struct Member {
    context: Context,
    assigned: watch::Sender<Assignment>,
}

impl ClientContext for Member {
    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(error, reason);
    }
}

impl ConsumerContext for Member {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        event: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let partitions: Vec<Partition> = list
            .elements()
            .iter()
            .map(|element| Partition(element.partition() as u32))
            .collect();
        let is_assigned = event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        tracing::debug!(?partitions, is_assigned, "the group was rebalanced");
        let moved = if is_assigned {
            // Nothing is fetched: a paused partition keeps its member in the group.
            consumer
                .incremental_assign(list)
                .and_then(|()| consumer.pause(list))
        } else {
            // Workers see it at once; the lease and its epoch stop those that do not.
            self.change(|held| held.retain(|of| !partitions.contains(of)));
            consumer.incremental_unassign(list)
        };
        if let Err(error) = moved {
            tracing::warn!(%error, "a rebalance was not followed");
        }
        if is_assigned {
            self.change(|held| held.extend(partitions));
        }
    }
}

impl Member {
    fn change(&self, change: impl FnOnce(&mut std::collections::BTreeSet<Partition>)) {
        self.assigned.send_modify(|assignment| {
            change(&mut assignment.partitions);
            assignment.generation += 1;
        });
    }
}
