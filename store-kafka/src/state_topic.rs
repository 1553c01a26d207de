//! The rows of a view as a compacted topic: the latest value of each key, and a tombstone for a key
//! whose row is gone.

mod copy;
mod follow;
mod keys;
mod note;
mod part;
mod rows;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use annals_core::StoreError;
use annals_runner::BatchLimit;

use crate::error::invalid;
use crate::kafka::Kafka;
use crate::outlet::KafkaOutlet;
use crate::topic::{TopicSpec, ensure};

/// Tombstones must stay for so long that a reader which is away sees them.
const TOMBSTONES_STAY: Duration = Duration::from_secs(24 * 3_600);

const DELETE_RETENTION: &str = "delete.retention.ms";

/// Publishes the rows of a view into a compacted topic: a part of the program that has the view.
///
/// The key of a record is the text of the row's key, its value is the row as JSON; a row that is
/// removed is a tombstone. Every change of a row is followed by a record that has it or a later
/// one, exactly once for readers of committed records; several changes may be one record. When
/// another generation of the view serves, all its rows are published, and tombstones for keys that
/// it has not: for those it reads the topic once and keeps all its keys in memory, and no rows.
///
/// The view is in the same program and is not inline or live: what it has settled is published.
///
/// ```no_run
/// use annals_core::Annals;
/// use annals_kafka::{Kafka, StateTopic, TopicSpec};
/// use annals_runner::{Part, Program, StartError, With as _};
///
/// # async fn example(
/// #     db: Annals,
/// #     balances: impl Part,
/// #     kafka: Kafka,
/// # ) -> Result<Program, StartError> {
/// let topic = TopicSpec::named("balances").partitions(12).replicas(3);
/// db.with(balances)
///     .with(StateTopic::of("balances").to(&kafka, topic))
///     .start()
///     .await
/// # }
/// ```
#[must_use = "nothing is published before its program runs"]
pub struct StateTopic {
    view: &'static str,
    to: Option<(Kafka, TopicSpec)>,
    /// Kept over failures: what was too large is not tried again as it was.
    batch_limit: BatchLimit,
}

impl fmt::Debug for StateTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topic = self.to.as_ref().map(|(_, topic)| topic);
        f.debug_struct("StateTopic")
            .field("view", &self.view)
            .field("topic", &topic)
            .finish_non_exhaustive()
    }
}

impl StateTopic {
    /// Of the view of this name.
    pub fn of(view: &'static str) -> StateTopic {
        StateTopic {
            view,
            to: None,
            batch_limit: BatchLimit::default(),
        }
    }

    /// Into this topic, which is made when it is missing, and must be compacted.
    pub fn to(mut self, kafka: &Kafka, topic: TopicSpec) -> StateTopic {
        self.to = Some((kafka.clone(), topic.compacted()));
        self
    }

    /// The connection, the topic, and what writes to it; the topic is as it must be.
    async fn outlet(&self) -> Result<(&Kafka, Arc<str>, KafkaOutlet), StoreError> {
        let Some((kafka, topic)) = &self.to else {
            return Err(invalid(self.said("it publishes nowhere: say `to`")));
        };
        kafka.ensure([topic.clone()]).await?;
        let settings = ensure::settings(kafka, topic.name()).await?;
        let stay = settings.iter().find(|(key, _)| key == DELETE_RETENTION);
        let stay = stay.and_then(|(_, value)| value.parse::<u128>().ok());
        if stay.is_some_and(|stay| stay < TOMBSTONES_STAY.as_millis()) {
            return Err(invalid(self.said(&format!(
                "topic `{}` forgets tombstones after {} ms (`{DELETE_RETENTION}`), so that a \
                 reader may keep rows that are gone: set it to a day or more",
                topic.name(),
                stay.unwrap_or_default()
            ))));
        }
        let outlet = KafkaOutlet::named(kafka, format!("state_topic.{}", self.view))?;
        let outlet = outlet.writes_to(vec![topic.name().to_owned()]).await?;
        // What is in the view is all that the topic should hold.
        let outlet = outlet.begins_again().await?.without_times();
        Ok((kafka, topic.name().into(), outlet))
    }

    fn said(&self, what: &str) -> String {
        format!("state topic of view `{}`: {what}", self.view)
    }
}
