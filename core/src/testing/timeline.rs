//! The events of a stream, or of a whole log, as text for a snapshot: a line for each, without what
//! differs from run to run.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::future::{Future, IntoFuture};
use std::pin::Pin;

use chrono::TimeDelta;
use uuid::Uuid;

use super::text::{stored, time};
use crate::annals::Annals;
use crate::error::StoreError;
use crate::event::{EventId, Metadata, RecordedEvent};
use crate::position::Partition;
use crate::read::ReadStream;
use crate::store::Store;
use crate::stream::{StreamId, Version};
use crate::stream_state::{Status, StreamState};
use crate::tag::Tag;
use crate::typed::Stored;

/// An event that happened longer before it was recorded, or after, was given its time by the test,
/// and so it prints.
const NOW: TimeDelta = TimeDelta::minutes(1);

/// The events of a stream as text: position, stream and version, type, content, tags, times,
/// metadata.
///
/// ```text
/// 1  account-alice@1  account.opened {"owner":"Alice"}  {actor: ada}
/// 2  account-alice@2  account.deposited {"cents":5}  [branch:north]  occurred 2025-12-24T18:00:00Z
/// 4  account-alice@3  account.withdrawn {"cents":2}  {causation: account-bob@1}
/// ```
///
/// It says the same in every run, also with random ids and the system's clock: ids are shown as the
/// events that they name, others as `#1`, `#2` in the order in which they come; a time prints when
/// it was given, which is when an event occurred more than a minute from when it was recorded. What
/// a deletion or truncation hides is there and marked `(hidden)`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let db = annals_core::Annals::in_memory();
/// let timeline = annals_core::testing::timeline(&db, "account-alice").await;
/// assert_eq!(timeline, "account-alice is absent");
/// # }
/// ```
///
/// # Panics
///
/// When awaited: the stream cannot have that name, or the store cannot answer.
pub fn timeline(db: &Annals, stream: impl Into<String>) -> Timeline<'_> {
    Timeline {
        db,
        stream: Some(stream.into()),
        times: false,
    }
}

/// The events of the whole log as text, as [`timeline`] prints those of a stream. Positions of a
/// log with several partitions print as `partition/position`.
///
/// ```
/// # async fn example(db: annals_core::Annals) {
/// println!("{}", annals_core::testing::timeline_of_log(&db).await);
/// # }
/// ```
///
/// # Panics
///
/// When awaited: the store cannot answer.
pub fn timeline_of_log(db: &Annals) -> Timeline<'_> {
    Timeline {
        db,
        stream: None,
        times: false,
    }
}

/// A timeline about to be read; see [`timeline`]. It comes as a `String`.
#[must_use = "nothing happens until it is awaited"]
pub struct Timeline<'a> {
    db: &'a Annals,
    stream: Option<String>,
    times: bool,
}

impl Timeline<'_> {
    /// Prints when everything occurred, and when it was recorded where that is another time: for
    /// handles and stores whose clock the test holds. [`Bench::timeline`](super::Bench::timeline)
    /// does this.
    pub fn with_times(mut self) -> Self {
        self.times = true;
        self
    }

    async fn read(self) -> String {
        let answer = match &self.stream {
            Some(name) => match StreamId::any(name) {
                Ok(stream) => self.of_stream(&stream).await,
                Err(invalid) => panic!("{invalid}"),
            },
            None => self.of_log().await,
        };
        match answer {
            Ok(text) => text,
            Err(error) => panic!(
                "the timeline cannot be read: {}",
                crate::with_causes(&error)
            ),
        }
    }

    async fn of_stream(&self, stream: &StreamId) -> Result<String, StoreError> {
        let mut read = ReadStream::of(stream.clone()).everything();
        let mut events = Vec::new();
        let state = loop {
            let page = self.db.store().read_stream(read.clone()).await?;
            events.extend(page.events);
            match page.next {
                Some(next) => read = read.resume(next),
                None => break page.state,
            }
        };
        let mut text = self
            .lines(&events, |event| event.version < state.first_visible())
            .await?;
        text.extend(state_of(stream, &state));
        Ok(text.join("\n"))
    }

    async fn of_log(&self) -> Result<String, StoreError> {
        let mut events = Vec::new();
        for partition in (0..self.db.store().partitions()).map(Partition) {
            let mut pages = self.db.events().partition(partition).pages();
            while let Some(page) = pages.next().await? {
                events.extend(page.events);
            }
        }
        let text = self.lines(&events, |_| false).await?;
        Ok(if text.is_empty() {
            "nothing".to_owned()
        } else {
            text.join("\n")
        })
    }

    async fn lines(
        &self,
        events: &[RecordedEvent],
        hidden: impl Fn(&RecordedEvent) -> bool,
    ) -> Result<Vec<String>, StoreError> {
        let mut names = Names::of(&**self.db.store(), events).await?;
        let several = self.db.store().partitions() > 1;
        let position = |event: &RecordedEvent| match several {
            true => format!("{}/{}", event.partition, event.position),
            false => event.position.to_string(),
        };
        let position_width = events
            .iter()
            .map(|event| position(event).len())
            .max()
            .unwrap_or_default();
        let place_width = events
            .iter()
            .map(|event| place(event).chars().count())
            .max()
            .unwrap_or_default();
        let lines = events.iter().map(|event| {
            let mut line = format!(
                "{:>position_width$}  {:place_width$}  {}",
                position(event),
                place(event),
                stored(Stored::from(event))
            );
            if !event.tags.is_empty() {
                let tags: Vec<_> = event.tags.iter().map(Tag::as_str).collect();
                let _ = write!(line, "  [{}]", tags.join(", "));
            }
            line.push_str(&self.times_of(event));
            line.push_str(&names.metadata(event));
            if hidden(event) {
                line.push_str("  (hidden)");
            }
            line
        });
        Ok(lines.collect())
    }

    fn times_of(&self, event: &RecordedEvent) -> String {
        let mut text = String::new();
        let between = event.recorded_at - event.occurred_at;
        if self.times || between.abs() > NOW {
            let _ = write!(text, "  occurred {}", time(event.occurred_at));
        }
        if self.times && !between.is_zero() {
            let _ = write!(text, ", recorded {}", time(event.recorded_at));
        }
        text
    }
}

fn place(event: &RecordedEvent) -> String {
    place_of(&event.stream, event.version)
}

fn place_of(stream: &StreamId, version: Version) -> String {
    format!("{stream}@{version}")
}

/// What there is to say about a stream besides its events.
fn state_of(stream: &StreamId, state: &StreamState) -> Vec<String> {
    let mut text = Vec::new();
    if state.archived_before > Version::FIRST {
        text.push(format!(
            "{stream} has no events before version {} any more",
            state.archived_before
        ));
    }
    if state.status != Status::Active {
        text.push(format!("{stream} is {state}"));
    }
    text
}

/// The names of ids in the text.
struct Names {
    known: HashMap<Uuid, String>,
    /// How many ids had to be counted, because they name no event.
    counted: usize,
}

impl Names {
    /// Looks up which events are meant by correlations and causations.
    async fn of(store: &dyn Store, events: &[RecordedEvent]) -> Result<Names, StoreError> {
        let mut known: HashMap<_, _> = events
            .iter()
            .map(|event| (*event.id.as_uuid(), place(event)))
            .collect();
        let meant = events.iter().flat_map(|event| {
            let causation = event.metadata.causation.map(|id| *id.as_uuid());
            event.metadata.correlation.into_iter().chain(causation)
        });
        let elsewhere: Vec<_> = meant
            .filter(|id| !known.contains_key(id))
            .map(EventId::from_uuid)
            .collect();
        if !elsewhere.is_empty() {
            for partition in (0..store.partitions()).map(Partition) {
                for found in store
                    .find(partition, &elsewhere)
                    .await?
                    .into_iter()
                    .flatten()
                {
                    let placed = found.placed;
                    known.insert(
                        *placed.id.as_uuid(),
                        place_of(&placed.stream, placed.version),
                    );
                }
            }
        }
        Ok(Names { known, counted: 0 })
    }

    fn name(&mut self, id: Uuid) -> String {
        let counted = &mut self.counted;
        let name = self.known.entry(id).or_insert_with(|| {
            *counted += 1;
            format!("#{counted}")
        });
        name.clone()
    }

    /// The metadata that says something: a correlation with itself does not.
    fn metadata(&mut self, event: &RecordedEvent) -> String {
        let Metadata {
            correlation,
            causation,
            actor,
            tenant,
            keys,
        } = &event.metadata;
        let mut parts = Vec::new();
        parts.extend(actor.iter().map(|actor| format!("actor: {actor}")));
        parts.extend(tenant.iter().map(|tenant| format!("tenant: {tenant}")));
        let correlation = correlation.filter(|id| id != event.id.as_uuid());
        parts.extend(correlation.map(|id| format!("correlation: {}", self.name(id))));
        parts.extend(causation.map(|id| format!("causation: {}", self.name(*id.as_uuid()))));
        parts.extend(keys.iter().map(|(key, value)| format!("{key}: {value}")));
        if parts.is_empty() {
            String::new()
        } else {
            format!("  {{{}}}", parts.join(", "))
        }
    }
}

impl<'a> IntoFuture for Timeline<'a> {
    type Output = String;
    type IntoFuture = Pin<Box<dyn Future<Output = String> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.read())
    }
}

impl fmt::Debug for Timeline<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timeline")
            .field("stream", &self.stream)
            .field("times", &self.times)
            .finish_non_exhaustive()
    }
}
