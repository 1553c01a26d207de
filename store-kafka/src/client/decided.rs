//! Transactions that were decided, and of which a partition was never told.
//!
//! A coordinator that finds no leader for a partition takes the partition for deleted: it writes
//! no marker there and holds the transaction for complete (KAFKA-20734, in brokers from 4.1 on).
//! That happens when the only broker with the partition has crashed and comes back. Readers of what
//! was committed never get past such a transaction, whether it was committed or aborted.
//!
//! What was decided is in the log of the coordinators. The next transaction of the same
//! producer in the same partition ends both of them, in the way it ends itself. So a store
//! acknowledges an append only once readers get past it: what the next transaction comes to is then
//! no matter.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use annals_core::StoreError;
use rdkafka::Message as _;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
#[cfg(feature = "store")]
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::Offset;

use super::retry::pause;
use super::{ANSWER, Config, Context, Retry, TopicScan};
use crate::error::{failed, unavailable};

/// Where coordinators keep what they decide.
const TOPIC: &str = "__transaction_state";

/// How long the marker of a transaction may take to its partition after a fence.
const MARKED: Duration = Duration::from_secs(2);

/// How long reading what was decided may take.
const READ: Duration = Duration::from_secs(30);

/// A decision about a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decided {
    pub(crate) is_committed: bool,
    /// Topics and partitions that took part.
    pub(crate) partitions: Vec<(String, i32)>,
}

impl Decided {
    /// Whether a partition took part.
    pub(crate) fn has(&self, topic: &str, partition: u32) -> bool {
        let mut partitions = self.partitions.iter();
        partitions.any(|(of, number)| of == topic && *number == partition.cast_signed())
    }
}

/// Sees up to where readers of what was committed get in a partition.
#[cfg(feature = "store")]
pub(crate) struct StableEnd {
    committed: BaseConsumer<Context>,
    topic: String,
    partition: u32,
}

#[cfg(feature = "store")]
impl StableEnd {
    pub(crate) fn of(
        config: &Config,
        topic: &str,
        partition: u32,
    ) -> Result<StableEnd, KafkaError> {
        Ok(StableEnd {
            committed: BaseConsumer::from_config_and_context(&config.reader(), Context::default())?,
            topic: topic.to_owned(),
            partition,
        })
    }

    /// Whether readers get so far, in no more time than a marker takes. Blocks.
    pub(crate) fn reaches(&self, offset: i64) -> Result<bool, KafkaError> {
        let began = Instant::now();
        let mut wait = Duration::from_millis(1);
        loop {
            let partition = self.partition.cast_signed();
            let (_, end) = Retry::within(ANSWER).block(|within| {
                self.committed
                    .fetch_watermarks(&self.topic, partition, within)
            })?;
            if end >= offset {
                return Ok(true);
            }
            if began.elapsed() > MARKED {
                return Ok(false);
            }
            pause(wait);
            wait = (wait * 2).min(Duration::from_millis(20));
        }
    }
}

/// Whether an open transaction holds readers back, for longer than a marker takes. Blocks.
pub(crate) fn is_held_back(
    config: &Config,
    topic: &str,
    partition: u32,
) -> Result<bool, StoreError> {
    let doing = || format!("the ends of partition {partition} of `{topic}` were not found out");
    let open = |config: &rdkafka::ClientConfig| {
        BaseConsumer::from_config_and_context(config, Context::default())
            .map_err(|error| failed(doing(), error))
    };
    let (all, committed) = (open(&config.uncommitted_reader())?, open(&config.reader())?);
    let end = |of: &BaseConsumer<Context>| {
        let bounds = Retry::within(ANSWER)
            .block(|within| of.fetch_watermarks(topic, partition.cast_signed(), within));
        bounds
            .map(|(_, end)| end)
            .map_err(|error| failed(doing(), error))
    };
    let (began, up_to) = (Instant::now(), end(&all)?);
    while end(&committed)? < up_to {
        if began.elapsed() > MARKED {
            return Ok(true);
        }
        pause(Duration::from_millis(20));
    }
    Ok(false)
}

/// What was decided about the transactions of an id, the last one last: as far as the log of its
/// coordinator goes back. To be asked after a fence, which decides the last one. Blocks.
pub(crate) fn decisions(config: &Config, id: &str) -> Result<Vec<Decided>, StoreError> {
    let doing = || format!("what was decided about transactions of `{id}` cannot be read");
    let scan = TopicScan::at(TOPIC, &config.reader(), doing())?;
    let count = scan.partitions().map_err(|error| scan.failed(error))?;
    let Some(partition) = partition_of(id, count) else {
        return Err(unavailable(format!("{}: there is no `{TOPIC}`", doing())));
    };
    let mut decisions = Vec::new();
    let began = Instant::now();
    let mut is_late = false;
    scan.records(&[(partition, Offset::Beginning)], |message| {
        is_late = began.elapsed() > READ;
        if is_late {
            return ControlFlow::Break(());
        }
        let is_about_it = message.key().and_then(id_in) == Some(id);
        let value = message.payload().filter(|_| is_about_it);
        decisions.extend(value.and_then(decision_in));
        ControlFlow::Continue(())
    })?;
    if is_late {
        let within = READ.as_secs();
        return Err(unavailable(format!("{}: not in {within} s", doing())));
    }
    Ok(decisions)
}

/// The partition of the coordinators' log that an id belongs to: that of Java's hash of a text.
fn partition_of(id: &str, count: usize) -> Option<i32> {
    let hash = id.encode_utf16().fold(0_i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    let hash = hash.checked_abs().unwrap_or(0);
    hash.checked_rem(count as i32)
}

/// The transactional id in a key of the coordinators' log.
fn id_in(key: &[u8]) -> Option<&str> {
    let mut fields = Fields(key);
    match fields.short()? {
        0 => fields.text(),
        _ => None,
    }
}

/// The decision in a value of the coordinators' log; those about to be carried out name what took
/// part.
fn decision_in(value: &[u8]) -> Option<Decided> {
    /// The states of a transaction that is to be committed, and of one that is to be aborted.
    const COMMIT: u8 = 2;
    const ABORT: u8 = 3;
    let mut fields = Fields(value);
    let is_flexible = fields.short()? > 0;
    // The producer's id and epoch, and how long a transaction may take.
    fields.take(8 + 2 + 4)?;
    let is_committed = match fields.take(1)? {
        [COMMIT] => true,
        [ABORT] => false,
        _ => return None,
    };
    let partitions = match is_flexible {
        true => fields.partitions(
            Fields::compact_length,
            Fields::compact_text,
            Fields::skip_tags,
        ),
        false => fields.partitions(Fields::length, Fields::text, |_| Some(())),
    };
    Some(Decided {
        is_committed,
        partitions: partitions?,
    })
}

/// What is left of a message of Kafka's.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, left) = self.0.split_at_checked(count)?;
        self.0 = left;
        Some(taken)
    }

    fn short(&mut self) -> Option<i16> {
        Some(i16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn number(&mut self) -> Option<i32> {
        Some(i32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn varint(&mut self) -> Option<u32> {
        let mut value = 0;
        for shift in (0..32).step_by(7) {
            let byte = u32::from(self.take(1)?[0]);
            value |= (byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// Nothing is a length of its own, and is none here.
    fn length(&mut self) -> Option<usize> {
        Some(usize::try_from(self.number()?).unwrap_or(0))
    }

    fn compact_length(&mut self) -> Option<usize> {
        Some(self.varint()?.saturating_sub(1) as usize)
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.short()?).ok()?;
        std::str::from_utf8(self.take(length)?).ok()
    }

    fn compact_text(&mut self) -> Option<&'a str> {
        let length = self.compact_length()?;
        std::str::from_utf8(self.take(length)?).ok()
    }

    fn skip_tags(&mut self) -> Option<()> {
        for _ in 0..self.varint()? {
            self.varint()?;
            let length = self.varint()? as usize;
            self.take(length)?;
        }
        Some(())
    }

    fn partitions(
        &mut self,
        length: fn(&mut Self) -> Option<usize>,
        text: fn(&mut Self) -> Option<&'a str>,
        end: fn(&mut Self) -> Option<()>,
    ) -> Option<Vec<(String, i32)>> {
        let mut partitions = Vec::new();
        for _ in 0..length(self)? {
            let topic = text(self)?;
            for _ in 0..length(self)? {
                partitions.push((topic.to_owned(), self.number()?));
            }
            end(self)?;
        }
        Some(partitions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_belongs_to_the_partition_that_java_gives_it() {
        // "polygenelubricants".hashCode() is the least number there is; the others as Java says.
        for (id, expected) in [("", 0), ("abc", 96354 % 50), ("polygenelubricants", 0)] {
            assert_eq!(partition_of(id, 50), Some(expected), "{id}");
        }
        assert_eq!(partition_of("abc", 0), None);
    }

    fn value(version: u8, status: u8, partitions: &[u8]) -> Vec<u8> {
        let mut value = vec![0, version];
        value.extend([0; 8 + 2 + 4]);
        value.push(status);
        value.extend(partitions);
        value.extend([7; 16]);
        value
    }

    #[test]
    fn decisions_are_read_in_both_forms() {
        let (one, nine, four) = ([0, 0, 0, 1], [0, 0, 0, 9], [0, 0, 0, 4]);
        // With a tagged field after the first topic.
        let compact = [
            &[3, 3, b'a', b'b', 3][..],
            &one,
            &nine,
            &[1, 5, 1, 0, 2, b'c', 2],
            &four,
            &[0],
        ];
        let plain = [
            &[0, 0, 0, 2, 0, 2, b'a', b'b', 0, 0, 0, 2][..],
            &one,
            &nine,
            &[0, 1, b'c', 0, 0, 0, 1],
            &four,
        ];
        let named = |topic: &str, partition| (topic.to_owned(), partition);
        for (version, partitions) in [(1, compact.concat()), (0, plain.concat())] {
            for (status, is_committed) in [(2, true), (3, false)] {
                let decided = decision_in(&value(version, status, &partitions)).unwrap();
                let expected = Decided {
                    is_committed,
                    partitions: vec![named("ab", 1), named("ab", 9), named("c", 4)],
                };
                assert_eq!(decided, expected, "version {version}");
                assert!(decided.has("ab", 9) && !decided.has("c", 9));
            }
            // Begun, and carried out: what is to be done is no question.
            for status in [0, 1, 4, 5] {
                assert_eq!(decision_in(&value(version, status, &partitions)), None);
            }
        }
    }

    #[test]
    fn what_is_cut_off_decides_nothing() {
        let whole = value(1, 2, &[2, 2, b'a', 2, 0, 0, 0, 1, 0]);
        let whole = &whole[..whole.len() - 16];
        assert!(decision_in(whole).is_some());
        for length in 0..whole.len() {
            assert_eq!(decision_in(&whole[..length]), None, "{length} bytes");
        }
        assert_eq!(id_in(&[0, 0, 0, 2, b'm', b'e']), Some("me"));
        assert_eq!(id_in(&[0, 1, 0, 2, b'm', b'e']), None);
        assert_eq!(id_in(&[0, 0, 0, 9, b'm', b'e']), None);
    }
}
