//! What programs ask of a pipeline besides its rows.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use annals_core::chrono::DateTime;
use annals_core::{
    Append, AppendError, EventId, Failure, GenerationId, Invalid, NewEvent, Partition, Phase,
    Position, ReadRows, RowsBy, Store, StoreError, Token,
};
use annals_runner::{CatchUp, DeadLetters, GenerationWorkers, HotKey, Program, Subject, ViewError};
use annals_streams::Time;

use super::Pipeline;
use super::blueprint::Blueprint;
use super::clock_event::{self, Advanced};
use super::dead::{DeadRecord, OUTPUT};
use super::output::END;
use super::part::PipelineSubject;
use crate::context::ViewContext;
use crate::rebuild::Rebuild;

/// How many streams are tried until one is in a partition.
const STREAMS_TRIED: u32 = 100_000;

/// A pipeline of a running program.
///
/// ```
/// # use annals_projections::Program;
/// # use annals_projections::pipeline::Pipelines as _;
/// # fn example(db: Program) {
/// if let Some(sales) = db.pipeline("sales") {
///     println!("{}", sales.status());
/// }
/// # }
/// ```
#[derive(Clone)]
pub struct PipelineHandle {
    context: ViewContext,
    workers: GenerationWorkers,
    subject: Arc<PipelineSubject>,
    blueprint: Arc<Blueprint>,
    dead_letters: DeadLetters,
    /// Of its sender, if it has one.
    sent: Option<DeadLetters>,
}

/// How far the slots of a pipeline have come in event time, as far as they run in this process.
/// Prints as a few lines.
///
/// ```
/// # use annals_projections::pipeline::PipelineHandle;
/// # fn example(sales: PipelineHandle) {
/// let status = sales.status();
/// assert_eq!(status.name, "sales");
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PipelineStatus {
    /// The pipeline.
    pub name: &'static str,
    /// By slot.
    pub slots: BTreeMap<u16, SlotClock>,
}

/// How far a slot has come in event time.
///
/// ```
/// # use annals_projections::pipeline::SlotClock;
/// # fn example(slot: SlotClock) {
/// println!("{:?} with {} bytes of state", slot.watermark, slot.state_bytes);
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlotClock {
    /// Windows that end at or before this have closed.
    pub watermark: Time,
    /// The partition of the log that holds it, if there is a source.
    pub held_by: Option<u32>,
    /// What its windows that are open take, as they are stored.
    pub state_bytes: usize,
    /// Entries of state: windows and sessions of each key that are open, and what else is kept.
    pub open: usize,
    /// What came too late since the slot began here: windows that late items missed, one for each
    /// item and window, and late items of joins, patterns and what waits for its turn.
    pub missed: u64,
    /// The keys that came most often lately, at most ten, the busiest first: from samples, so
    /// roughly. One with a large part of all items is why a slot cannot be made faster by others.
    pub hot_keys: Vec<HotKey>,
}

impl PipelineHandle {
    pub(crate) fn new(
        context: ViewContext,
        workers: GenerationWorkers,
        subject: Arc<PipelineSubject>,
        blueprint: Arc<Blueprint>,
        (dead_letters, sent): (DeadLetters, Option<DeadLetters>),
    ) -> PipelineHandle {
        PipelineHandle {
            context,
            workers,
            subject,
            blueprint,
            dead_letters,
            sent,
        }
    }

    /// Its name.
    ///
    /// ```
    /// # fn example(sales: annals_projections::pipeline::PipelineHandle) {
    /// assert_eq!(sales.name(), "sales");
    /// # }
    /// ```
    pub fn name(&self) -> &'static str {
        self.blueprint.name
    }

    /// How far event time has come, and what is open.
    ///
    /// ```
    /// # fn example(sales: annals_projections::pipeline::PipelineHandle) {
    /// println!("{}", sales.status());
    /// # }
    /// ```
    pub fn status(&self) -> PipelineStatus {
        PipelineStatus {
            name: self.blueprint.name,
            slots: self.blueprint.clocks(),
        }
    }

    /// Returns when it has seen what `token` asks for, within `at_most`. Windows that are still
    /// open have no rows on close then.
    ///
    /// # Errors
    ///
    /// As [`ViewHandle::wait_for`](crate::ViewHandle::wait_for).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use annals_core::Committed;
    /// # use annals_projections::{ViewError, pipeline::PipelineHandle};
    /// # async fn example(sales: PipelineHandle, done: Committed) -> Result<(), ViewError> {
    /// sales.wait_for(&done, Duration::from_secs(5)).await
    /// # }
    /// ```
    pub async fn wait_for(
        &self,
        token: impl Into<Token>,
        at_most: Duration,
    ) -> Result<(), ViewError> {
        let readers = CatchUp::new(&self.context, &self.workers);
        readers
            .caught_up_with(None, &token.into(), at_most)
            .await
            .map(|_| ())
    }

    /// Returns when also all events that it appends because of what `token` asks for are in the
    /// log, or refused and [dead](PipelineHandle::dead_records), within `at_most`.
    ///
    /// # Errors
    ///
    /// As [`wait_for`](PipelineHandle::wait_for); what holds the sender is in
    /// [`Program::status`](annals_runner::Program::status).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use annals_core::Committed;
    /// # use annals_projections::{ViewError, pipeline::PipelineHandle};
    /// # async fn example(fraud: PipelineHandle, paid: Committed) -> Result<(), ViewError> {
    /// fraud.wait_until_sent(&paid, Duration::from_secs(5)).await
    /// # }
    /// ```
    pub async fn wait_until_sent(
        &self,
        token: impl Into<Token>,
        at_most: Duration,
    ) -> Result<(), ViewError> {
        let token = token.into();
        let begun = tokio::time::Instant::now();
        self.wait_for(token.clone(), at_most).await?;
        if !self.blueprint.appends() {
            return Ok(());
        }
        let left = at_most.saturating_sub(begun.elapsed());
        let sender = &self.blueprint.sender;
        let sent = sender.wait_until_sent(&token, self.context.poll.seen());
        let waited = tokio::time::timeout(left, sent).await;
        waited.map_err(|_| ViewError::NotYet {
            token: token.clone(),
            waited: at_most,
            held: sender.held(),
        })
    }

    /// Skips what the event at a position caused, of what is not sent yet: the way out when the
    /// sender gets no further for it. What is refused for good is skipped by itself, as a
    /// [dead record](PipelineHandle::dead_records). A pipeline with several partitions: of the
    /// first one.
    ///
    /// # Errors
    ///
    /// As [`DeadLetters::skip_event`], and for a pipeline that appends nothing.
    ///
    /// ```
    /// # use annals_projections::{ViewError, pipeline::PipelineHandle};
    /// # async fn example(fraud: PipelineHandle) -> Result<(), ViewError> {
    /// fraud.skip_sending(7, "the stream is closed").await
    /// # }
    /// ```
    pub async fn skip_sending(
        &self,
        position: impl Into<Position>,
        reason: impl Into<String>,
    ) -> Result<(), ViewError> {
        self.skip_sending_in(Partition(0), position, reason).await
    }

    /// [`skip_sending`](PipelineHandle::skip_sending) of this partition.
    ///
    /// # Errors
    ///
    /// As [`skip_sending`](PipelineHandle::skip_sending).
    ///
    /// ```
    /// # use annals_core::Partition;
    /// # use annals_projections::{ViewError, pipeline::PipelineHandle};
    /// # async fn example(fraud: PipelineHandle) -> Result<(), ViewError> {
    /// fraud.skip_sending_in(Partition(2), 7, "the stream is closed").await
    /// # }
    /// ```
    pub async fn skip_sending_in(
        &self,
        partition: Partition,
        position: impl Into<Position>,
        reason: impl Into<String>,
    ) -> Result<(), ViewError> {
        let Some(sent) = &self.sent else {
            let name = self.blueprint.name;
            return Err(Invalid::new(format!("pipeline `{name}` appends nothing")).into());
        };
        sent.skip_event_in(partition, position, reason).await
    }

    /// Builds all that it writes again from the log, beside what serves, and switches when it is
    /// complete; goes back; drops old ones.
    ///
    /// ```
    /// # use annals_projections::{RebuildError, pipeline::PipelineHandle};
    /// # async fn example(sales: PipelineHandle) -> Result<(), RebuildError> {
    /// sales.rebuild().begin().await?.finished(|progress| println!("{progress}")).await
    /// # }
    /// ```
    pub fn rebuild(&self) -> Rebuild<Pipeline> {
        let subject = Arc::<PipelineSubject>::clone(&self.subject);
        let subject: Arc<dyn Subject> = subject;
        Rebuild::of(&self.context, &self.workers, self.blueprint.name, subject)
    }

    /// Events that it went on without, or without a part of what they caused: those that a source
    /// could not read or that claim to come from the future, items over which a stage panicked, and
    /// what was to be sent and is refused for good; the first so many in the order of the log.
    ///
    /// # Errors
    ///
    /// Those of a view that is not complete yet, and of a store that cannot answer.
    ///
    /// ```
    /// # use annals_projections::{ViewError, pipeline::PipelineHandle};
    /// # async fn example(sales: PipelineHandle) -> Result<(), ViewError> {
    /// assert!(sales.dead_records(10).await?.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn dead_records(&self, limit: usize) -> Result<Vec<DeadRecord>, ViewError> {
        let live = CatchUp::new(&self.context, &self.workers).live().await?;
        let mut dead = self.dead_records_in(live.id, limit).await?;
        if self.blueprint.appends() {
            let name = self.blueprint.sender.stored_name();
            let notes = self.context.views.generations(&name).await?;
            for note in notes.iter().filter(|of| of.phase == Phase::Live) {
                dead.extend(self.dead_records_in(note.id, limit).await?);
            }
            // The sort is stable: those of one event stay as they are.
            dead.sort_by_key(|of| (of.partition, of.position));
            dead.truncate(limit);
        }
        Ok(dead)
    }

    async fn dead_records_in(
        &self,
        generation: GenerationId,
        limit: usize,
    ) -> Result<Vec<DeadRecord>, ViewError> {
        let from = Bound::Included(format!("{OUTPUT}{END}"));
        let to = Bound::Excluded(format!("{OUTPUT}\u{1f}"));
        let read = ReadRows::of(generation, RowsBy::KeyRange(from, to)).limit(limit);
        let page = self.context.views.read_rows(read).await?;
        let rows = page.rows.iter();
        rows.map(|row| {
            let read = serde_json::from_slice(&row.value);
            read.map_err(|error| ViewError::Unreadable(format!("a dead letter: {error}")))
        })
        .collect()
    }

    /// Skips an event that stops the pipeline, also in every later rebuild.
    ///
    /// # Errors
    ///
    /// As [`DeadLetters::skip_event`].
    ///
    /// ```
    /// # use annals_projections::{ViewError, pipeline::PipelineHandle};
    /// # async fn example(sales: PipelineHandle) -> Result<(), ViewError> {
    /// sales.skip_event(7, "written by a test").await
    /// # }
    /// ```
    pub async fn skip_event(
        &self,
        position: impl Into<Position>,
        reason: impl Into<String>,
    ) -> Result<(), ViewError> {
        self.dead_letters.skip_event(position, reason).await
    }

    /// [`skip_event`](PipelineHandle::skip_event) of this partition: positions count for each
    /// partition by itself.
    ///
    /// # Errors
    ///
    /// As [`DeadLetters::skip_event`].
    ///
    /// ```
    /// # use annals_core::Partition;
    /// # use annals_projections::{ViewError, pipeline::PipelineHandle};
    /// # async fn example(sales: PipelineHandle) -> Result<(), ViewError> {
    /// sales.skip_event_in(Partition(2), 7, "written by a test").await
    /// # }
    /// ```
    pub async fn skip_event_in(
        &self,
        partition: Partition,
        position: impl Into<Position>,
        reason: impl Into<String>,
    ) -> Result<(), ViewError> {
        let dead_letters = &self.dead_letters;
        dead_letters
            .skip_event_in(partition, position, reason)
            .await
    }
}

impl fmt::Debug for PipelineHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineHandle")
            .field("name", &self.blueprint.name)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for PipelineStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        for (slot, clock) in &self.slots {
            write!(f, "\n  slot {slot}: ")?;
            match clock.watermark {
                Time::MIN => write!(f, "no time yet")?,
                Time::MAX => write!(f, "the end of time")?,
                watermark => match DateTime::from_timestamp_micros(watermark.micros()) {
                    Some(moment) => write!(f, "event time {}", moment.to_rfc3339())?,
                    None => write!(f, "event time {} µs", watermark.micros())?,
                },
            }
            let SlotClock {
                open,
                state_bytes,
                missed,
                hot_keys,
                ..
            } = clock;
            if let Some(partition) = clock.held_by.filter(|_| clock.watermark != Time::MAX) {
                write!(f, " (held by partition {partition})")?;
            }
            write!(f, ", {open} open ({state_bytes} bytes), {missed} too late")?;
            if let Some(busiest) = hot_keys.first() {
                write!(f, ", busiest key {busiest}")?;
            }
        }
        Ok(())
    }
}

/// Asks a [`Program`] for its pipelines, and tells them the time: in the prelude.
pub trait Pipelines {
    /// The pipeline of this name, if the program has it.
    fn pipeline(&self, name: &str) -> Option<PipelineHandle>;

    /// Says in the log that event time has come to `to`, in every partition: windows that end
    /// before close, also when nothing else happens, and close at the same place in every rebuild.
    /// Saying the same again changes nothing.
    ///
    /// # Errors
    ///
    /// Those of a store that cannot append.
    fn advance_clock(&self, to: Time) -> impl Future<Output = Result<Token, StoreError>> + Send;
}

impl Pipelines for Program {
    fn pipeline(&self, name: &str) -> Option<PipelineHandle> {
        let mut all = self.handles::<Pipeline, PipelineHandle>();
        all.find(|handle| handle.name() == name)
    }

    async fn advance_clock(&self, to: Time) -> Result<Token, StoreError> {
        advance_clock(&**self.store(), to).await
    }
}

async fn advance_clock(store: &dyn Store, to: Time) -> Result<Token, StoreError> {
    let mut token = Token::new(store.id());
    for partition in (0..store.partitions()).map(Partition) {
        let position = advance_partition(store, partition, to).await?;
        token = token.with(partition, position);
    }
    Ok(token)
}

/// Says in a partition that event time has come to `to`.
pub(super) async fn advance_partition(
    store: &dyn Store,
    partition: Partition,
    to: Time,
) -> Result<Position, StoreError> {
    let to = to.micros();
    let payload = serde_json::to_vec(&Advanced { to }).map_err(|error| {
        StoreError::new(Failure::Corrupt, "a clock event cannot be written").because(error)
    })?;
    let mut streams = (0..STREAMS_TRIED).filter_map(clock_event::stream);
    let stream = streams.find(|stream| store.partition_of(stream) == partition);
    let Some(stream) = stream else {
        let what = format!("no stream of clock events is in partition {partition}");
        return Err(StoreError::new(Failure::Corrupt, what));
    };
    let id = EventId::derived(&stream, &to.to_string(), 0);
    let event = NewEvent::json(clock_event::TYPE, payload).id(id);
    let appended = store.append(Append::new(stream, [event])).await;
    let appended = appended.map_err(|error| match error {
        AppendError::Store(error) | AppendError::Unknown(error) => error,
        other => StoreError::new(Failure::Unavailable, "a clock event").because(other),
    })?;
    Ok(appended.last().position)
}
