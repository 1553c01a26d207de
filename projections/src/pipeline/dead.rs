//! Records that a pipeline goes on without: rows of an output of its own.

use annals_core::chrono::{DateTime, Utc};
use annals_core::{DeadLetter, EventId, Partition, Position, RecordedEvent, RowChange};
use annals_streams::{Place, Time};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;
use uuid::Uuid;

use super::machine::OutRow;
use super::output::END;
use super::panics::Omitted;
use crate::key::too_long;

/// The output of dead letters. No view has a name like it.
pub(crate) const OUTPUT: &str = "$dead";

/// A key of several parts, for people.
pub(crate) fn shown(key: &str) -> String {
    key.replace("\u{1f}\u{1f}", " ")
}

/// A key as a part of another one, which has to have room for it.
fn short(key: &str) -> Cow<'_, str> {
    match too_long(key) {
        Some(refused) => refused.short.into(),
        None => key.into(),
    }
}

/// A record that a pipeline went on without, or without a part of it: an item or a result over
/// which a stage panicked.
///
/// ```
/// # use annals_projections::pipeline::{DeadRecord, PipelineHandle};
/// # async fn example(sales: PipelineHandle) -> Result<(), annals_projections::ViewError> {
/// for DeadRecord { position, cause, .. } in sales.dead_records(100).await? {
///     println!("{position}: {cause}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeadRecord {
    /// The partition of the log.
    pub partition: u32,
    /// The position in it.
    pub position: u64,
    /// The id of the event.
    pub id: EventId,
    /// The name of its type.
    pub event_type: String,
    /// Why it was skipped.
    pub cause: String,
}

/// What is known of a record after it was given away.
pub(crate) struct Record {
    partition: u32,
    pub(crate) position: Position,
    pub(crate) id: EventId,
    event_type: Arc<str>,
    pub(crate) recorded_at: DateTime<Utc>,
}

/// A dead letter on its way.
#[derive(Debug)]
pub(crate) struct Dead {
    record: DeadRecord,
    recorded_at: DateTime<Utc>,
    /// Where there may be several of one record: the stage and the item.
    of: String,
}

impl Record {
    pub(crate) fn of(record: &RecordedEvent) -> Record {
        Record {
            partition: record.partition.0,
            position: record.position,
            id: record.id,
            event_type: Arc::clone(&record.event_type),
            recorded_at: record.recorded_at,
        }
    }

    pub(crate) fn dead(&self, cause: String) -> Dead {
        Dead {
            record: DeadRecord {
                partition: self.partition,
                position: self.position.get(),
                id: self.id,
                event_type: self.event_type.to_string(),
                cause: DeadLetter::recorded(cause),
            },
            recorded_at: self.recorded_at,
            of: String::new(),
        }
    }

    /// An item of it, or a result that it caused, without which this stage went on.
    pub(crate) fn lacking(&self, stage: &str, of: &Omitted) -> Dead {
        let Omitted {
            stage: number,
            item,
            of,
            why,
            ..
        } = of;
        let (what, reason) = why.told();
        let item = short(item);
        let over = match &*item {
            "" => String::new(),
            item => format!(" over `{}`", shown(item)),
        };
        let from = of.map(|of| format!(" from position {}", of.position));
        let from = from.unwrap_or_default();
        let cause = format!("`{stage}` {what}{over}{from}: {reason}");
        let place = of.map(|of| {
            let Place {
                partition,
                position,
                index,
            } = of;
            format!("/{partition}/{position}/{index}")
        });
        let place = place.unwrap_or_default();
        Dead {
            of: format!("/{number:05}/{item}{place}"),
            ..self.dead(cause)
        }
    }

    /// An event that this stage made of it, for a key, which no store takes.
    pub(crate) fn not_appended(&self, (stage, key): (u16, &str), reason: String) -> Dead {
        let key = short(key);
        Dead {
            of: format!("/{stage:05}/{key}"),
            ..self.dead(reason)
        }
    }

    /// An event that this stage made of it, for a key and with an index, which was refused for
    /// good.
    pub(crate) fn refused(&self, (stage, key, index): (u16, &str, u32), reason: String) -> Dead {
        let key = short(key);
        Dead {
            of: format!("/{stage:05}/{key}/{index}"),
            ..self.dead(reason)
        }
    }

    /// A record that is in the log no more.
    pub(crate) fn removed(partition: Partition, position: Position) -> Record {
        Record {
            partition: partition.0,
            position,
            id: EventId::from_uuid(Uuid::nil()),
            event_type: Arc::from(""),
            recorded_at: DateTime::UNIX_EPOCH,
        }
    }

    pub(crate) fn ahead(&self, time: Time) -> Dead {
        let micros = time.micros();
        let moment = DateTime::from_timestamp_micros(micros);
        let moment = moment.map_or_else(|| micros.to_string(), |moment| moment.to_rfc3339());
        let recorded_at = self.recorded_at.to_rfc3339();
        self.dead(format!(
            "its time {moment} is further after its recording at {recorded_at} than is allowed"
        ))
    }
}

impl Dead {
    /// As a row that keeps no past.
    pub(crate) fn change(self) -> RowChange {
        let OutRow { key, value, .. } = self.row();
        RowChange {
            key,
            value,
            indexed: Vec::new(),
        }
    }

    pub(crate) fn row(self) -> OutRow {
        let DeadRecord {
            partition,
            position,
            ..
        } = self.record;
        let value = serde_json::to_vec(&self.record).unwrap_or_default();
        OutRow {
            position: Position::new(position),
            recorded_at: self.recorded_at,
            keeps: false,
            key: format!("{OUTPUT}{END}{partition:010}/{position:020}{}", self.of),
            value: Some(value.into()),
            indexed: Vec::new(),
        }
    }
}
