//! The writer of a partition that is owned: each group of appends is one transaction, under an id
//! that one process at a time can have.

use std::fmt;

use annals_core::StoreError;
use annals_sqlite::{ReplicaEntry, Upstream};
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _};

use super::record;
use super::state::{Role, Shared};
use crate::client::step::{Step, reached};
use crate::client::transaction::{self, Broken, Deliveries, Producer, drain, queue};
use crate::client::{Config, TRANSACTION_TIMEOUT_MS};
use crate::error::{code_of, failed, invalid, unavailable};

/// Writes a partition until somebody else does.
pub(super) struct Writer {
    topic: String,
    partition: u32,
    producer: Producer,
    state: Shared,
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
    /// Shuts out whoever wrote before; what that one left open is ended. Blocks.
    pub(super) fn fence(
        config: &Config,
        topic: &str,
        partition: u32,
        state: Shared,
    ) -> Result<Writer, StoreError> {
        let doing = || format!("partition {partition} of `{topic}` was not opened for writing");
        let config = config.store_writer(&format!("annals.store.{topic}.{partition}"));
        let producer = Producer::from_config_and_context(&config, Deliveries::default())
            .map_err(|error| failed(doing(), error))?;
        reached(Step::BeforeFence);
        transaction::fence(&producer).map_err(|error| failed(doing(), error))?;
        Ok(Writer {
            topic: topic.to_owned(),
            partition,
            producer,
            state,
        })
    }

    fn transact(&mut self, entries: &[ReplicaEntry]) -> Result<i64, Broken> {
        reached(Step::BeforeBegin);
        let producer = &self.producer;
        producer.begin_transaction()?;
        for entry in entries {
            let records = record::write(entry);
            for outgoing in records.map_err(|why| Broken::Refused(why.to_string()))? {
                let headers = OwnedHeaders::new_with_capacity(outgoing.headers.len());
                let headers = outgoing
                    .headers
                    .iter()
                    .fold(headers, |headers, (key, value)| {
                        headers.insert(Header {
                            key,
                            value: Some(&value[..]),
                        })
                    });
                let record = BaseRecord::to(&self.topic)
                    .partition(self.partition as i32)
                    .key(&outgoing.key[..])
                    .payload(&outgoing.payload[..])
                    .headers(headers);
                queue(producer, record)?;
            }
        }
        reached(Step::AfterSend);
        drain(producer)?;
        reached(Step::BeforeCommit);
        transaction::commit(producer)?;
        reached(Step::AfterCommit);
        Ok(producer.context().last_offset() + 1)
    }
}

impl Upstream for Writer {
    fn record(&mut self, entries: &[ReplicaEntry]) -> Result<u64, StoreError> {
        let broken = match self.transact(entries) {
            Ok(next) => return Ok(next.max(0).cast_unsigned()),
            Err(broken) => broken,
        };
        let doing = format!(
            "a transaction on partition {} of `{}` did not end",
            self.partition, self.topic
        );
        Err(match broken {
            Broken::Refused(why) => {
                // What is left open would be ended by the next fence.
                if let Err(error) = transaction::abort(&self.producer) {
                    tracing::debug!(%error, "a transaction was not aborted");
                }
                invalid(format!("{doing}: {why}"))
            }
            Broken::Slow => unavailable(format!(
                "{doing}: not everything was delivered in {} s",
                TRANSACTION_TIMEOUT_MS / 1_000
            )),
            Broken::Client(error) => {
                if is_fenced(&error) {
                    self.state.send_modify(|state| state.was_fenced = true);
                }
                failed(doing, error)
            }
        })
    }
}

/// Nobody appends by it any more.
impl Drop for Writer {
    fn drop(&mut self) {
        self.state.send_modify(|state| {
            if state.role == Role::Owning {
                state.role = if state.is_assigned && !state.was_fenced {
                    Role::Opening
                } else {
                    Role::Following
                };
            }
        });
    }
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
