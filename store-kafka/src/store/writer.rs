//! The writer of a partition that is owned: each group of appends is one transaction, under an id
//! that one process at a time can have.

use std::fmt;
use std::time::{Duration, Instant};

use annals_core::{StoreError, with_causes};
use annals_sqlite::{ReplicaEntry, Upstream};
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer as _};

use super::record;
use super::state::{Shared, State};
use crate::client::decided::StableEnd;
use crate::client::step::{Step, reached};
use crate::client::transaction::{self, Broken, Deliveries, Producer, drain, queue};
use crate::client::{Config, TRANSACTION_TIMEOUT_MS, decided, headers};
use crate::error::{code_of, failed, unavailable};

/// How old a transaction may be when its commit is asked for: after that the broker has ended it,
/// or is about to, and its answer would leave the outcome open.
const SENT: Duration = Duration::from_millis(TRANSACTION_TIMEOUT_MS);

/// Writes a partition until another process does.
pub(super) struct Writer {
    topic: String,
    partition: u32,
    producer: Producer,
    /// Who writes, in the log.
    note: ReplicaEntry,
    stable: StableEnd,
    state: Shared,
    /// Where its next record comes, or after it by the marker of a transaction.
    next: Option<i64>,
    /// Whether the commit of the last transaction was asked for. What was not is never committed.
    has_asked: bool,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .finish_non_exhaustive()
    }
}

impl Writer {
    /// Fences the writer before it; a transaction that that one left open is ended. Blocks.
    pub(super) fn fence(
        config: &Config,
        topic: &str,
        partition: u32,
        note: ReplicaEntry,
        state: Shared,
    ) -> Result<Writer, StoreError> {
        let doing = || format!("partition {partition} of `{topic}` was not opened for writing");
        let stable = StableEnd::of(config, topic, partition);
        let stable = stable.map_err(|error| failed(doing(), error))?;
        let config = config.store_writer(&id(topic, partition));
        let producer = Producer::from_config_and_context(&config, Deliveries::default())
            .map_err(|error| failed(doing(), error))?;
        reached(Step::BeforeFence);
        transaction::fence(&producer).map_err(|error| failed(doing(), error))?;
        Ok(Writer {
            topic: topic.to_owned(),
            partition,
            producer,
            note,
            stable,
            state,
            next: None,
            has_asked: false,
        })
    }

    /// Everything before this offset was read: what is not its own and comes later is foreign.
    pub(super) fn begins_at(&mut self, end: i64) {
        self.next = Some(end);
    }

    /// Ends a transaction of this id that was decided, and of which the partition was not told:
    /// by another one, which says who writes and ends the same way. Blocks.
    pub(super) fn settle(&mut self, config: &Config) -> Result<(), StoreError> {
        let (topic, partition) = (&self.topic, self.partition);
        if !decided::is_held_back(config, topic, partition)? {
            return Ok(());
        }
        let decisions = match decided::decisions(config, &id(topic, partition)) {
            Ok(decisions) => decisions,
            // What is done without it is reported by the reader up to the end.
            Err(error) => {
                let why = with_causes(&error).to_string();
                tracing::warn!(
                    topic,
                    partition,
                    why,
                    "an open transaction is not looked into"
                );
                return Ok(());
            }
        };
        let mut decisions = decisions.iter().rev();
        let Some(decision) = decisions.find(|decision| decision.has(topic, partition)) else {
            return Ok(());
        };
        let is_committed = decision.is_committed;
        tracing::warn!(
            topic,
            partition,
            is_committed,
            "a transaction was decided and its partition was not told: it is ended now"
        );
        let doing = format!("an open transaction in partition {partition} of `{topic}` stays");
        let entries = [self.note.clone()];
        let ended = match is_committed {
            true => self.transact(&entries).map(drop),
            false => self
                .send(&entries)
                .and_then(|_| Ok(transaction::abort_sent(&self.producer)?)),
        };
        ended.map_err(|broken| broken.error(doing))
    }

    /// What was committed up to here is acknowledged only when readers get past it. A coordinator
    /// may have left the partition out: then an abort of the next transaction would take back this
    /// one too. Another transaction, committed at once, ends it.
    fn told(&mut self, next: i64) -> Result<i64, StoreError> {
        let (topic, partition) = (self.topic.clone(), self.partition);
        let doing =
            || format!("what was committed in partition {partition} of `{topic}` stays open");
        let reaches = |writer: &Writer, next| {
            let reaches = writer.stable.reaches(next);
            reaches.map_err(|error| failed(doing(), error))
        };
        if reaches(self, next)? {
            return Ok(next);
        }
        tracing::warn!(
            topic,
            partition,
            "a transaction was committed and its partition was not told: it is ended now"
        );
        let entries = [self.note.clone()];
        let next = self
            .transact(&entries)
            .map_err(|broken| broken.error(doing()))?;
        match reaches(self, next)? {
            true => Ok(next),
            false => Err(unavailable(doing())),
        }
    }

    fn transact(&mut self, entries: &[ReplicaEntry]) -> Result<i64, Broken> {
        self.has_asked = false;
        let began = Instant::now();
        let records = self.send(entries)?;
        self.check_alone(records)?;
        if began.elapsed() > SENT {
            return Err(Broken::Slow);
        }
        let producer = &self.producer;
        reached(Step::BeforeCommit);
        self.has_asked = true;
        transaction::commit(producer)?;
        reached(Step::AfterCommit);
        let next = producer.context().last_offset() + 1;
        if self.next.is_some() {
            self.next = Some(next);
        }
        Ok(next)
    }

    /// Whether the records that were sent come right after those that are known. If not, another
    /// program has written there, or the topic was recreated: reading says which, and nothing of
    /// this is committed.
    fn check_alone(&self, records: i64) -> Result<(), Broken> {
        let deliveries = self.producer.context();
        let first = deliveries.take_first_offset();
        let (Some(next), Some(first)) = (self.next, first) else {
            return Ok(());
        };
        // One marker ends what was sent before, where it was told to.
        if (next..=next + 1).contains(&first) && first + records - 1 == deliveries.last_offset() {
            return Ok(());
        }
        Err(Broken::Store(unavailable(format!(
            "partition {} of `{}` goes on at {first}, and this process wrote and read up to \
             {next}: another program writes there",
            self.partition, self.topic
        ))))
    }

    /// Begins a transaction and sends its records. All are delivered when it returns; how many
    /// there are.
    fn send(&mut self, entries: &[ReplicaEntry]) -> Result<i64, Broken> {
        reached(Step::BeforeBegin);
        let producer = &self.producer;
        // Of one that was taken back.
        producer.context().take_first_offset();
        producer.begin_transaction()?;
        let mut sent = 0;
        for entry in entries {
            let records = record::write(entry);
            for outgoing in records.map_err(|why| Broken::Refused(why.to_string()))? {
                let named = outgoing.headers.iter();
                let headers = headers(named.map(|(name, value)| (*name, Some(&value[..]))));
                let record = BaseRecord::to(&self.topic)
                    .partition(self.partition as i32)
                    .key(&outgoing.key[..])
                    .payload(&outgoing.payload[..])
                    .headers(headers);
                queue(producer, record)?;
                sent += 1;
            }
        }
        reached(Step::AfterSend);
        drain(producer)?;
        Ok(sent)
    }
}

/// The transactional id of the writer of a partition.
fn id(topic: &str, partition: u32) -> String {
    format!("annals.store.{topic}.{partition}")
}

impl Upstream for Writer {
    fn record(&mut self, entries: &[ReplicaEntry]) -> Result<u64, StoreError> {
        let broken = match self.transact(entries) {
            Ok(next) => return Ok(self.told(next)?.max(0).cast_unsigned()),
            Err(broken) => broken,
        };
        let became = match self.has_asked {
            true => "did not end",
            false => "was not committed",
        };
        let doing = format!(
            "a transaction of {} on partition {} of `{}` {became}",
            size_text(entries),
            self.partition,
            self.topic
        );
        // This writer ends with it: what is left open is ended by the next fence.
        if !self.has_asked {
            self.state.send_modify(State::takes_back);
        }
        match &broken {
            Broken::Refused(_) | Broken::Store(_) => {
                if let Err(error) = transaction::abort(&self.producer) {
                    tracing::debug!(%error, "a transaction was not aborted");
                }
            }
            Broken::Client(error) if is_fenced(error) => {
                self.state.send_modify(|state| state.was_fenced = true);
            }
            Broken::Slow | Broken::Client(_) => {}
        }
        Err(broken.error(doing))
    }
}

/// Nothing is appended by it any more.
impl Drop for Writer {
    fn drop(&mut self) {
        self.state.send_modify(State::writes_no_more);
    }
}

/// How large a transaction is, for the end of an error text.
fn size_text(entries: &[ReplicaEntry]) -> String {
    let appends = entries.iter().filter_map(|entry| match entry {
        ReplicaEntry::Append(append) => Some(append),
        _ => None,
    });
    let (events, bytes) = appends
        .flat_map(|append| &append.events)
        .fold((0_usize, 0_usize), |(events, bytes), event| {
            (events + 1, bytes + event.payload.len())
        });
    format!(
        "{} entries with {events} events and {bytes} bytes",
        entries.len()
    )
}

fn is_fenced(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code_of(error),
        Some(
            Code::Fenced
                | Code::ProducerFenced
                | Code::InvalidProducerEpoch
                | Code::TransactionCoordinatorFenced
        )
    )
}

#[cfg(test)]
mod tests {
    use annals_core::chrono::DateTime;
    use annals_core::{NewEvent, Position, StreamId, Version};
    use annals_sqlite::ReplicaAppend;

    use super::*;

    #[test]
    fn a_transaction_that_failed_says_how_large_it_was() {
        let append = |count: usize| {
            ReplicaEntry::Append(ReplicaAppend {
                stream: StreamId::new("account-7").unwrap(),
                version: Version::FIRST,
                position: Position::new(1),
                recorded_at: DateTime::UNIX_EPOCH,
                events: vec![NewEvent::json("a", "12345"); count],
            })
        };
        let entries = [append(2), append(1), ReplicaEntry::Note("one".into())];
        assert_eq!(size_text(&entries), "3 entries with 3 events and 15 bytes");
    }
}
