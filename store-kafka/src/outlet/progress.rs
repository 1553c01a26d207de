//! Reading the marks of an outlet, and what it sent last, after its fence.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use annals_core::{OutletMark, Partition, StoreError};
use rdkafka::Message as _;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::ends::LastSent;
use super::mark;
use crate::client::{ANSWER, Config, Context, EarlyEnd, Retry, position};
use crate::error::{failed, unavailable};

/// How long open transactions of other outlets in the same partition may hold up the reading of
/// marks: longer than the broker lets a transaction be open.
const WAIT: Duration = Duration::from_secs(30);

/// How far an outlet has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) marks: Vec<OutletMark>,
    /// What it sent last to each topic, where that is known.
    pub(super) ends: Vec<LastSent>,
}

/// The last committed marks of an outlet in a partition of the progress topic.
///
/// The end is asked for with a client that sees open transactions. The last *stable* offset is not
/// enough: partitions are shared, and an open transaction of another outlet holds it back before
/// the last mark of this one, which would then be published again. So reading goes on until what
/// was the end, transactions included, was passed.
pub(crate) fn read(config: &Config, outlet: &str, partition: u32) -> Result<Progress, StoreError> {
    let doing = || format!("the marks of outlet `{outlet}` cannot be read");
    let open = |config: &rdkafka::ClientConfig| {
        BaseConsumer::from_config_and_context(config, Context::default())
            .map_err(|error| failed(doing(), error))
    };
    let index = partition as i32;
    let ends = open(&config.uncommitted_reader())?;
    let (_, end) = Retry::within(ANSWER)
        .block(|within| ends.fetch_watermarks(mark::TOPIC, index, within))
        .map_err(|error| failed(doing(), error))?;
    let consumer = open(&config.reader())?;
    let stable_end = |consumer: &BaseConsumer<Context>| {
        let found = Retry::within(ANSWER)
            .block(|within| consumer.fetch_watermarks(mark::TOPIC, index, within));
        found
            .map(|(_, end)| end)
            .map_err(|error| failed(doing(), error))
    };
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(mark::TOPIC, index, Offset::Beginning)
        .and_then(|()| consumer.assign(&list))
        .map_err(|error| failed(doing(), error))?;
    let mut marks: BTreeMap<Partition, OutletMark> = BTreeMap::new();
    let mut ends: BTreeMap<String, LastSent> = BTreeMap::new();
    let began = Instant::now();
    let mut early = EarlyEnd::default();
    let mut next = 0;
    while next < end {
        if began.elapsed() > WAIT {
            return Err(unavailable(format!(
                "{}: partition {partition} of `{topic}` ends at {end} and could be read up to \
                 {next} for {} s, a transaction is open. If no other outlet writes there, let this \
                 user read `__transaction_state`, or end it with `kafka-transactions.sh \
                 --bootstrap-server … abort --topic {topic} --partition {partition} \
                 --start-offset {next}`, in each topic that `find-hanging` names",
                doing(),
                WAIT.as_secs(),
                topic = mark::TOPIC,
            )));
        }
        match consumer.poll(Duration::from_millis(50)) {
            Some(Ok(message)) => {
                next = message.offset() + 1;
                let key = message.key().unwrap_or_default();
                let Some(value) = message.payload() else {
                    continue;
                };
                if let Some(end) = LastSent::read(key, value, outlet) {
                    ends.insert(end.topic.clone(), end);
                    continue;
                }
                let found = mark::read(value, note(&message));
                if let Some(found) = found.filter(|_| mark::is_of(key, outlet)) {
                    marks.insert(found.partition, found);
                }
            }
            // Its position passes markers and aborted records, which have offsets too.
            Some(Err(KafkaError::PartitionEOF(_))) => {
                let position = position(&consumer, mark::TOPIC, index);
                match early.reached(position, next, || stable_end(&consumer))? {
                    Some(reached) => next = reached,
                    None => consumer
                        .assign(&list)
                        .map_err(|error| failed(doing(), error))?,
                }
            }
            Some(Err(error)) if began.elapsed() > ANSWER => return Err(failed(doing(), error)),
            Some(Err(_)) | None => {}
        }
    }
    Ok(Progress {
        marks: marks.into_values().collect(),
        ends: ends.into_values().collect(),
    })
}

fn note<'a>(message: &'a BorrowedMessage<'_>) -> Option<&'a [u8]> {
    let found = message
        .headers()?
        .iter()
        .find(|header| header.key == mark::NOTE);
    found.and_then(|header| header.value)
}
