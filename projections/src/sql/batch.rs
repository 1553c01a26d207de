//! The events of a step, handed over inside its transaction, each undone alone when it makes no
//! sense.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use annals_core::chrono::{DateTime, Utc};
use annals_core::{
    CommitError, CustomTables, DeadLetter, Event, EventId, InTransaction, Partition, Position,
    Recorded, RecordedEvent, StoreError, Undecodable, ViewCommit,
};
use async_trait::async_trait;

use super::{ConnectionOf, SqlProjection, Tables};
use crate::key::checked;
use crate::view::Poison;
use crate::view::step;
use annals_runner::{WorkError, contained_async};

/// An event of the log, read as one or several.
pub(super) struct Part<E> {
    pub(super) position: Position,
    id: EventId,
    events: Vec<Recorded<E>>,
}

impl<E: Event> Part<E> {
    pub(super) fn of(record: RecordedEvent) -> Result<Part<E>, Undecodable> {
        let position = record.position;
        let id = record.id;
        Ok(Part {
            position,
            id,
            events: Recorded::decode(record)?.into_iter().collect(),
        })
    }
}

/// An event at which a step ends, and why.
#[derive(Debug)]
pub(super) struct Stuck {
    pub(super) position: Position,
    pub(super) reason: String,
}

/// The outcome of a step.
#[derive(Debug, Default)]
pub(super) struct StepOutcome {
    pub(super) stuck: Option<Stuck>,
    /// Keys of the events that became dead letters, one for each.
    pub(super) dead_letters: Vec<String>,
}

/// The events of a step.
pub(super) struct Batch<P: SqlProjection> {
    pub(super) project: Arc<P>,
    pub(super) tables: Tables,
    pub(super) partition: Partition,
    pub(super) parts: Vec<Part<P::Event>>,
    /// How often the first of them was tried before, and how often an event is tried.
    pub(super) tried: (u32, u32),
    /// Keys in dead letters.
    pub(super) dead_letters: Arc<HashSet<String>>,
    /// Events that may become dead letters.
    pub(super) room: usize,
    pub(super) now: DateTime<Utc>,
    pub(super) outcome: Arc<Mutex<StepOutcome>>,
}

/// Hands one event over; why not, when it makes no sense.
pub(super) async fn take<P: SqlProjection>(
    project: &P,
    connection: &mut ConnectionOf<P>,
    tables: &Tables,
    part: &Part<P::Event>,
) -> Result<(), String> {
    for event in &part.events {
        match contained_async(project.on(connection, tables, event)).await {
            Ok(Ok(())) => {}
            Ok(Err(poison)) => return Err(poison.reason().into()),
            Err(panic) => return Err(panic),
        }
    }
    Ok(())
}

impl<P: SqlProjection> Batch<P> {
    /// The key of an event, if it has one.
    fn key(part: &Part<P::Event>) -> Result<Option<String>, Poison> {
        let Some(event) = part.events.first() else {
            return Ok(None);
        };
        step::contained(|| Ok(P::key(event).map(|key| checked(&key)).transpose()?))
    }

    /// Whether an event has one of these keys.
    pub(super) fn is_about(part: &Part<P::Event>, keys: &HashSet<String>) -> bool {
        matches!(Self::key(part), Ok(Some(key)) if keys.contains(&key))
    }

    fn aside(
        &self,
        key: String,
        part: &Part<P::Event>,
        reason: Option<String>,
        attempts: u32,
    ) -> DeadLetter {
        let partition = self.partition;
        let position = part.position;
        let event = part.id;
        let dead_since = self.now;
        DeadLetter {
            key,
            partition,
            position,
            event,
            reason: reason.map(DeadLetter::recorded),
            attempts,
            dead_since,
        }
    }

    /// Hands an event over, or sets it aside; a reason to end before it.
    async fn settle(
        &self,
        connection: &mut ConnectionOf<P>,
        index: usize,
        aside: &mut Vec<DeadLetter>,
    ) -> Result<Result<(), String>, StoreError> {
        let part = &self.parts[index];
        let key = match Self::key(part) {
            Ok(key) => key,
            Err(poison) => return Ok(Err(poison.reason().into())),
        };
        let waits = |key: &String| {
            self.dead_letters.contains(key) || aside.iter().any(|letter| letter.key == *key)
        };
        let dead_letters = if let Some(key) = key.clone().filter(waits) {
            self.aside(key, part, None, 0)
        } else {
            P::Store::mark(connection).await?;
            let reason = match take(&*self.project, connection, &self.tables, part).await {
                Ok(()) => return Ok(Ok(P::Store::keep(connection).await?)),
                Err(reason) => reason,
            };
            P::Store::undo(connection).await?;
            let attempts = if index == 0 { self.tried.0 + 1 } else { 1 };
            match key.filter(|_| attempts >= self.tried.1) {
                Some(key) => self.aside(key, part, Some(reason), attempts),
                None => return Ok(Err(reason)),
            }
        };
        if aside.len() == self.room {
            return Ok(Err(
                "there would be more dead letters than `dead_letters_max` allows; repair the \
                 projection and retry or skip them"
                    .into(),
            ));
        }
        aside.push(dead_letters);
        Ok(Ok(()))
    }
}

#[async_trait]
impl<P: SqlProjection> InTransaction<ConnectionOf<P>, ViewCommit> for Batch<P> {
    async fn run(
        &mut self,
        connection: &mut ConnectionOf<P>,
        step: &mut ViewCommit,
    ) -> Result<(), StoreError> {
        let mut stuck = None;
        let mut aside = Vec::new();
        for index in 0..self.parts.len() {
            let position = self.parts[index].position;
            if let Err(reason) = self.settle(connection, index, &mut aside).await? {
                // What comes before it is settled all the same.
                step.to.position = position.minus(1);
                let before = index.checked_sub(1).map(|before| &self.parts[before]);
                step.to.event = before
                    .filter(|part| part.position == step.to.position)
                    .map(|part| part.id);
                stuck = Some(Stuck { position, reason });
                break;
            }
        }
        let dead_letters = aside.iter().map(|letter| letter.key.clone()).collect();
        step.dead_letters.extend(aside);
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = StepOutcome {
            stuck,
            dead_letters,
        };
        Ok(())
    }
}

/// What a refused step means for the worker.
pub(super) fn ended(error: CommitError) -> WorkError {
    match error {
        CommitError::Store(error) => error.into(),
        error => error.into(),
    }
}
