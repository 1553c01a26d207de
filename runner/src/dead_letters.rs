//! Dead letters: events that could not be handled, and the later ones of their keys. Listed, tried
//! again, skipped with a reason.

mod keys;
mod pages;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use annals_core::{
    Checkpoint, CommitError, DeadLetter, EventId, Generation, Invalid, PAGE_EVENTS, Partition,
    Position, ReadLog, SkipDecision,
};

pub use keys::{DeadLetterKey, Settled};
pub use pages::{DeadLetterPages, queue};

use crate::checkpoint::settled_to;
use crate::context::WorkerContext;
use crate::error::{ViewError, WorkError};
use crate::generation::{GenerationWorkers, is_ours, serving};
use crate::key::slot_of;
use crate::kind::Kind;
use crate::location::BoxFuture;
use crate::tasks::DrainResult;

/// Tries the dead letters of keys again.
pub trait Drain: Send + Sync + 'static {
    /// Drains the queues of some keys of a slot, in their order, each as far as it goes.
    fn drain(
        &self,
        generation: Generation,
        slot: u16,
        keys: Vec<String>,
    ) -> BoxFuture<'_, Result<DrainResult, WorkError>>;
}

/// The dead letters of a view, a reactor or a process manager, for tools that know it by its name:
/// keys are texts here. Programs that know a view's type use the same of its handle.
///
/// What is listed are the dead letters of all generations that this program follows: the one that
/// serves, one that is being built, and one that is kept. Where several have the same one, it is
/// that of the generation that serves.
///
/// A decision is about the view and not about a generation. It takes effect in every generation
/// that this program follows, and in every later one: where the event is a dead letter, and where
/// it is still to be handled. A generation that has handled the event already keeps what came of
/// it. The worker of this program that holds the slot of the key takes the decision up between two
/// steps; where another process holds it, the lease is taken from it for a moment.
///
/// ```
/// # use annals_runner::{Program, ViewError};
/// # async fn example(db: Program) -> Result<(), ViewError> {
/// if let Some(dead_letters) = db.dead_letters("balances") {
///     for key in dead_letters.keys(None, 100).await? {
///         println!("{} is dead since {}: {}", key.key, key.dead_since, key.reason);
///         dead_letters.retry(&key.key).await?;
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct DeadLetters {
    context: WorkerContext,
    workers: GenerationWorkers,
    drain: Arc<dyn Drain>,
}

impl DeadLetters {
    /// Of what these workers follow, drained in this way.
    pub fn new(
        context: &WorkerContext,
        workers: &GenerationWorkers,
        drain: Arc<dyn Drain>,
    ) -> DeadLetters {
        DeadLetters {
            context: context.clone(),
            workers: workers.clone(),
            drain,
        }
    }

    fn pages(&self, generation: &Generation) -> DeadLetterPages<'_, dyn annals_core::ViewStore> {
        DeadLetterPages::of(&*self.context.views, generation.id)
    }

    /// Keys in dead letters, in their order, after `after`, at most `limit`: none at the end.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    pub async fn keys(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<DeadLetterKey>, ViewError> {
        let generations = self.generations().await?;
        let mut keys: Vec<DeadLetterKey> = Vec::new();
        let mut after = after.map(|key| (key.to_owned(), Partition(u32::MAX), Position::MAX));
        loop {
            let from = after.as_ref();
            let from = from.map(|(key, partition, position)| (&**key, *partition, *position));
            let page = self.page(&generations, from, PAGE_EVENTS).await?;
            let Some(last) = page.last() else {
                return Ok(keys);
            };
            after = Some((last.key.clone(), last.partition, last.position));
            for letter in page {
                let full = keys.len() == limit;
                match keys.last_mut() {
                    Some(key) if key.key == letter.key => key.next(letter),
                    _ if full => return Ok(keys),
                    _ => keys.push(DeadLetterKey::first(letter)),
                }
            }
        }
    }

    /// All dead letters, in the order of key, partition and position, after `after`, at most
    /// `limit`. The one of a key that has a reason is the one that failed; the others are queued.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    pub async fn all(
        &self,
        after: Option<&DeadLetter>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, ViewError> {
        let generations = self.generations().await?;
        let after = after.map(|of| (of.key.as_str(), of.partition, of.position));
        self.page(&generations, after, limit).await
    }

    /// The events in the queue of a key, in their order, after `after`, at most `limit`.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    pub async fn events(
        &self,
        key: &str,
        after: Option<&DeadLetter>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, ViewError> {
        let generations = self.generations().await?;
        let (partition, position) = after.map_or((Partition(0), Position::START), |letter| {
            (letter.partition, letter.position)
        });
        let after = Some((key, partition, position));
        let mut events = self.page(&generations, after, limit).await?;
        events.retain(|letter| letter.key == key);
        Ok(events)
    }

    /// Tries the dead letters of a key again, in their order and with today's code. When an event
    /// fails again, it and the later ones stay dead letters.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    pub async fn retry(&self, key: &str) -> Result<Settled, ViewError> {
        self.settle(key).await
    }

    /// [`retry`](DeadLetters::retry) for every key. Answers with all that was settled, and the
    /// first dead letter that is left: where generations differ, of the one that serves.
    ///
    /// # Errors
    ///
    /// As [`retry`](DeadLetters::retry). Keys that were settled before stay so.
    pub async fn retry_all(&self) -> Result<Settled, ViewError> {
        let mut all = Settled::default();
        for generation in self.generations().await? {
            let mut settled = Settled::default();
            let mut pages = self.pages(&generation);
            loop {
                let page = match pages.next().await {
                    Err(CommitError::Gone(_)) => break,
                    page => page?,
                };
                let Some(last) = page.last() else { break };
                pages = self.pages(&generation).after_key(&last.key);
                let mut keys: Vec<_> = page.into_iter().map(|letter| letter.key).collect();
                keys.dedup();
                for slot in 0..generation.spec.slots {
                    let of_slot = |key: &&String| slot_of(key, generation.spec.slots) == slot;
                    let of_slot: Vec<_> = keys.iter().filter(of_slot).cloned().collect();
                    if of_slot.is_empty() {
                        continue;
                    }
                    match self.drain(&generation, slot, of_slot).await {
                        Ok(drained) => {
                            settled.events += drained.settled;
                            settled.still = settled.still.or(drained.still);
                        }
                        Err(WorkError::Retry(CommitError::Gone(_))) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            all = all.or_of(settled);
        }
        Ok(all)
    }

    /// Skips a dead letter for this key, and tries the later ones. The reason is kept, and every
    /// rebuild skips the event too.
    ///
    /// # Errors
    ///
    /// [`ViewError::Invalid`] without a reason, or when the event is no dead letter of this key.
    pub async fn skip(
        &self,
        key: &str,
        position: impl Into<Position>,
        reason: impl Into<String>,
    ) -> Result<Settled, ViewError> {
        let position = position.into();
        let reason = checked(reason)?;
        let generations = self.generations().await?;
        for partition in (0..self.context.log().partitions()).map(Partition) {
            let after = Some((key, partition, position.minus(1)));
            let found = self.page(&generations, after, 1).await?.into_iter().next();
            let wanted = (key, partition, position);
            let is_it = |of: &DeadLetter| (of.key.as_str(), of.partition, of.position) == wanted;
            if let Some(letter) = found.filter(is_it) {
                self.save(&letter, reason).await?;
                return self.settle(key).await;
            }
        }
        Err(self.no_dead_letter(key, position))
    }

    /// Skips every dead letter of this key. The reason is kept with each event, and every rebuild
    /// skips them too.
    ///
    /// # Errors
    ///
    /// [`ViewError::Invalid`] without a reason, or when the key has no dead letters.
    pub async fn discard(
        &self,
        key: &str,
        reason: impl Into<String>,
    ) -> Result<Settled, ViewError> {
        let reason = checked(reason)?;
        let mut after = None;
        loop {
            let events = self.events(key, after.as_ref(), PAGE_EVENTS).await?;
            for letter in &events {
                self.save(letter, reason.clone()).await?;
            }
            match events.into_iter().last() {
                Some(last) => after = Some(last),
                None if after.is_none() => return Err(self.no_dead_letters(key)),
                None => return self.settle(key).await,
            }
        }
    }

    /// Skips an event for all keys: one that stops the projection, because it cannot be read or its
    /// key is unknown. The reason is kept, and every rebuild skips the event too.
    ///
    /// # Errors
    ///
    /// [`ViewError::Invalid`] without a reason, for a position without an event that is handled
    /// here, for one that every generation that this program follows has handled already, or when
    /// the log has several partitions: then [`skip_event_in`](DeadLetters::skip_event_in) one.
    pub async fn skip_event(
        &self,
        position: impl Into<Position>,
        reason: impl Into<String>,
    ) -> Result<(), ViewError> {
        if self.context.log().partitions() > 1 {
            return Err(Invalid::new(
                "a log of several partitions has several events at a position: name the partition \
                 with `skip_event_in`",
            )
            .into());
        }
        self.skip_event_in(Partition(0), position, reason).await
    }

    /// [`skip_event`](DeadLetters::skip_event) of this partition.
    ///
    /// # Errors
    ///
    /// As [`skip_event`](DeadLetters::skip_event).
    pub async fn skip_event_in(
        &self,
        partition: Partition,
        position: impl Into<Position>,
        reason: impl Into<String>,
    ) -> Result<(), ViewError> {
        let position = position.into();
        let reason = checked(reason)?;
        let name = self.name();
        if self.is_handled_by_all(partition, position).await? {
            return Err(Invalid::new(format!(
                "{name} has handled the event at position {position} already, and that is not \
                 undone; skip it for a key in dead letters, or rebuild with another fold"
            ))
            .into());
        }
        let read = ReadLog::after(position.minus(1))
            .up_to(position)
            .partition(partition)
            .limit(1);
        let found = self.context.log().read(read).await?.events;
        let handles = &self.workers.spec().handles;
        let handled = found.into_iter().next().filter(|event| {
            // A reactor is the same one whatever it handles by now.
            handles.is_empty() || handles.iter().any(|handled| **handled == *event.event_type)
        });
        let Some(event) = handled else {
            return Err(
                Invalid::new(format!("{name} handles no event at position {position}")).into(),
            );
        };
        self.save_decision(partition, position, event.id, None, reason)
            .await?;
        self.workers.decided();
        Ok(())
    }

    /// Whether no generation that this program follows has the event still to handle.
    async fn is_handled_by_all(
        &self,
        partition: Partition,
        position: Position,
    ) -> Result<bool, ViewError> {
        let mut by_some = false;
        for generation in self.generations().await? {
            let checkpoints = match self.context.views.checkpoints(generation.id).await {
                // It was dropped meanwhile.
                Err(CommitError::Gone(_)) => continue,
                checkpoints => checkpoints?,
            };
            let handled = |of: &Checkpoint| of.partition == partition && settled_to(of) >= position;
            if !checkpoints.iter().any(handled) {
                return Ok(false);
            }
            by_some = true;
        }
        Ok(by_some)
    }

    /// What operators decided to skip until now.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    pub async fn skip_decisions(&self) -> Result<Vec<SkipDecision>, ViewError> {
        let stored_name = self.workers.stored_name();
        Ok(self.context.views.skip_decisions(stored_name).await?)
    }

    async fn save(&self, letter: &DeadLetter, reason: String) -> Result<(), ViewError> {
        let key = Some(letter.key.clone());
        self.save_decision(letter.partition, letter.position, letter.event, key, reason)
            .await
    }

    async fn save_decision(
        &self,
        partition: Partition,
        position: Position,
        event: EventId,
        key: Option<String>,
        reason: String,
    ) -> Result<(), ViewError> {
        let decision = SkipDecision {
            view: self.workers.stored_name().to_owned(),
            partition,
            position,
            event,
            key,
            reason,
            decided_at: self.context.clock().now(),
        };
        Ok(self.context.views.save_skip_decision(decision).await?)
    }

    /// Drains the queue of a key in every generation. Where they differ, the answer is that of the
    /// one that serves.
    async fn settle(&self, key: &str) -> Result<Settled, ViewError> {
        let mut all = Settled::default();
        for generation in self.generations().await? {
            let slot = slot_of(key, generation.spec.slots);
            let keys = vec![key.to_owned()];
            match self.drain(&generation, slot, keys).await {
                Ok(drained) => {
                    all = all.or_of(Settled {
                        events: drained.settled,
                        still: drained.still,
                    });
                }
                Err(WorkError::Retry(CommitError::Gone(_))) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(all)
    }

    /// The first dead letters of some generations after a place, at most `limit`. Of one that
    /// several have, that of the first of them.
    async fn page(
        &self,
        generations: &[Generation],
        after: Option<(&str, Partition, Position)>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, ViewError> {
        let mut letters = BTreeMap::new();
        for generation in generations {
            let views = &self.context.views;
            let page = match views.dead_letters(generation.id, after, limit).await {
                // It was dropped meanwhile.
                Err(CommitError::Gone(_)) => continue,
                page => page?,
            };
            for letter in page {
                let at = (letter.key.clone(), letter.partition, letter.position);
                letters.entry(at).or_insert(letter);
            }
        }
        Ok(letters.into_values().take(limit).collect())
    }

    /// By the worker of this process that holds the slot; else under a lease that is taken from
    /// whichever has it.
    async fn drain(
        &self,
        generation: &Generation,
        slot: u16,
        keys: Vec<String>,
    ) -> Result<DrainResult, WorkError> {
        if let Some(answer) = self.workers.ask(generation.id, slot, keys.clone()).await {
            return answer;
        }
        let deciding = self.workers.deciding().await;
        let drained = self.drain.drain(generation.clone(), slot, keys).await;
        drop(deciding);
        self.workers.decided();
        drained
    }

    /// The generations that this program follows: the one that readers see first, then the newest.
    async fn generations(&self) -> Result<Vec<Generation>, ViewError> {
        let spec = self.workers.spec();
        let mut generations = self.context.views.generations(&spec.view).await?;
        generations.retain(|generation| is_ours(generation, spec));
        let seen = serving(&generations, spec).map(|generation| generation.id);
        generations.reverse();
        generations.sort_by_key(|generation| Some(generation.id) != seen);
        Ok(generations)
    }

    fn name(&self) -> String {
        let kind = match self.workers.kind() {
            Kind::View => "view",
            kind => kind.name(),
        };
        format!("{kind} `{}`", self.workers.name())
    }

    fn no_dead_letter(&self, key: &str, position: Position) -> ViewError {
        let name = self.name();
        let key = key.escape_debug();
        Invalid::new(format!(
            "the event at position {position} is no dead letter of key `{key}` of {name}"
        ))
        .into()
    }

    fn no_dead_letters(&self, key: &str) -> ViewError {
        let name = self.name();
        let key = key.escape_debug();
        Invalid::new(format!("{name} has no dead letters of key `{key}`")).into()
    }
}

fn checked(reason: impl Into<String>) -> Result<String, Invalid> {
    let reason = reason.into();
    if reason.trim().is_empty() {
        return Err(Invalid::new(
            "skipping an event needs a reason: it is kept, and every rebuild repeats it",
        ));
    }
    Ok(reason)
}

impl fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetters")
            .field("name", &self.workers.name())
            .finish_non_exhaustive()
    }
}
