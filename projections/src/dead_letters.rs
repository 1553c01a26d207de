//! What waits for a person: events that made no sense, and what stands behind them. Looked at,
//! tried again, left out with a reason.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use annals_core::chrono::{DateTime, Utc};
use annals_core::{
    CommitError, DeadLetter, EventId, Generation, GenerationSpec, Invalid, Partition, Phase,
    Position, ReadLog, SkipDecision,
};

use crate::key::slot_of;
use crate::query::ViewError;
use crate::status::Kind;
use crate::supervisor::{GenerationWorkers, WorkerContext, is_ours, spec_of};
use crate::view::View;
use crate::worker::{DrainResult, Progress, Work, WorkError};

pub(crate) type Settle = dyn Fn(
        Generation,
        u16,
        Vec<String>,
    ) -> Pin<Box<dyn Future<Output = Result<DrainResult, WorkError>> + Send>>
    + Send
    + Sync;

/// What is set aside in a view, for tools that know it by its name: keys are texts here (what
/// [`ViewKey::to_key`](crate::ViewKey::to_key) gives). Programs that know its type use the same of
/// [`ViewHandle`](crate::ViewHandle).
///
/// Whatever changes something does so in every generation of the view that this program can fold.
/// It takes the slot of the key from whichever worker has it, in whichever process; that worker
/// goes on behind it.
///
/// ```
/// # use annals_projections::{Program, ViewError};
/// # async fn example(db: Program) -> Result<(), ViewError> {
/// if let Some(dead_letters) = db.dead_letters("balances") {
///     for key in dead_letters.keys(None, 100).await? {
///         println!("{} waits since {}: {}", key.key, key.dead_since, key.cause);
///         dead_letters.retry(&key.key).await?;
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct DeadLetters {
    context: WorkerContext,
    following: GenerationWorkers,
    spec: GenerationSpec,
    settle: Arc<Settle>,
}

/// A key that waits for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetterKey<K = String> {
    /// The key.
    pub key: K,
    /// Why the event on which it waits could not be folded.
    pub cause: String,
    /// The partition of that event.
    pub partition: Partition,
    /// Where it stands.
    pub position: Position,
    /// Its id.
    pub event: EventId,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was set aside.
    pub dead_since: DateTime<Utc>,
    /// How many events wait behind it.
    pub behind: u64,
}

/// What came of a key that waited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settled {
    /// Events that were folded or left out.
    pub events: u64,
    /// The event on which a key waits now; nothing when all is well.
    pub still: Option<DeadLetter>,
}

impl DeadLetters {
    pub(crate) fn of<V: View>(
        context: &WorkerContext,
        following: &GenerationWorkers,
    ) -> DeadLetters {
        let handlers = Arc::new(V::handlers());
        let on = context.clone();
        let told = following.clone();
        let settle = move |generation: Generation, slot, keys: Vec<String>| {
            let progress = Progress::of(Kind::View, &generation, slot, on.db.clock());
            let work = Work::<V> {
                log: Arc::clone(on.db.store()),
                views: on.views.clone(),
                clock: Arc::clone(on.db.clock()),
                generation,
                slot,
                owner: format!("{}-settles", on.owner),
                handlers: Arc::clone(&handlers),
                options: on.options.clone(),
                progress,
                following: told.clone(),
                share: None,
            };
            let settled: Pin<Box<dyn Future<Output = _> + Send>> =
                Box::pin(async move { work.settle(&keys).await });
            settled
        };
        DeadLetters::settling(
            context.clone(),
            following.clone(),
            spec_of::<V>(context),
            Arc::new(settle),
        )
    }

    /// With another way to settle the queues of some keys of a slot.
    pub(crate) fn settling(
        context: WorkerContext,
        following: GenerationWorkers,
        spec: GenerationSpec,
        settle: Arc<Settle>,
    ) -> DeadLetters {
        DeadLetters {
            context,
            following,
            spec,
            settle,
        }
    }

    /// Keys that wait, in their order, behind `after`, at most `limit`: none at the end.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    pub async fn keys(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<DeadLetterKey>, ViewError> {
        let Some(generation) = self.serving().await? else {
            return Ok(Vec::new());
        };
        let mut keys: Vec<DeadLetterKey> = Vec::new();
        // Behind everything that is set aside for a key.
        let mut place = after.map(|key| (key.to_owned(), Partition(u32::MAX), Position::MAX));
        loop {
            let behind = place
                .as_ref()
                .map(|(key, partition, position)| (key.as_str(), *partition, *position));
            let page = self
                .context
                .views
                .dead_letters(generation.id, behind, annals_core::PAGE_EVENTS)
                .await?;
            let Some(last) = page.last() else {
                return Ok(keys);
            };
            place = Some((last.key.clone(), last.partition, last.position));
            for dead_letters in page {
                let full = keys.len() == limit;
                match keys.last_mut() {
                    Some(key) if key.key == dead_letters.key => key.next(dead_letters),
                    _ if full => return Ok(keys),
                    _ => keys.push(DeadLetterKey::first(dead_letters)),
                }
            }
        }
    }

    /// The events that wait in the queue of a key, in their order, behind `after`, at most `limit`.
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
        let Some(generation) = self.serving().await? else {
            return Ok(Vec::new());
        };
        let (partition, position) = after.map_or((Partition(0), Position::START), |dead_letters| {
            (dead_letters.partition, dead_letters.position)
        });
        let mut events = self
            .context
            .views
            .dead_letters(generation.id, Some((key, partition, position)), limit)
            .await?;
        events.retain(|dead_letters| dead_letters.key == key);
        Ok(events)
    }

    /// Folds what waits for a key, in order and onto the row as it is, with today's fold. When an
    /// event still makes no sense, it and what stands behind it go on waiting.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    pub async fn retry(&self, key: &str) -> Result<Settled, ViewError> {
        self.settle(key).await
    }

    /// [`retry`](DeadLetters::retry) for every key that waits. Answers with all that was settled,
    /// and the first event on which a key still waits.
    ///
    /// # Errors
    ///
    /// As [`retry`](DeadLetters::retry). Keys that were settled before stay so.
    pub async fn retry_all(&self) -> Result<Settled, ViewError> {
        let mut all = Settled::default();
        let serving = self.serving().await?.map(|generation| generation.id);
        for generation in self.generations().await? {
            let mut after: Option<(String, Partition, Position)> = None;
            loop {
                let behind = after
                    .as_ref()
                    .map(|(key, partition, position)| (key.as_str(), *partition, *position));
                let page = match self
                    .context
                    .views
                    .dead_letters(generation.id, behind, annals_core::PAGE_EVENTS)
                    .await
                {
                    Err(CommitError::Gone(_)) => break,
                    page => page?,
                };
                let Some(last) = page.last() else { break };
                after = Some((last.key.clone(), Partition(u32::MAX), Position::MAX));
                let mut keys: Vec<_> = page
                    .into_iter()
                    .map(|dead_letters| dead_letters.key)
                    .collect();
                keys.dedup();
                for slot in 0..generation.spec.slots {
                    let of_slot = |key: &&String| slot_of(key, generation.spec.slots) == slot;
                    let of_slot: Vec<_> = keys.iter().filter(of_slot).cloned().collect();
                    if of_slot.is_empty() {
                        continue;
                    }
                    match (self.settle)(generation.clone(), slot, of_slot).await {
                        Ok(emptied) if serving == Some(generation.id) => {
                            all.events += emptied.settled;
                            all.still = all.still.or(emptied.still);
                        }
                        Ok(_) | Err(WorkError::Again(CommitError::Gone(_))) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
        self.following.begin_anew();
        Ok(all)
    }

    /// Leaves an event that waits out for this key, and folds what stood behind it. The reason is
    /// kept, and every rebuild leaves the event out too.
    ///
    /// # Errors
    ///
    /// [`ViewError::Invalid`] without a reason, or when the event does not wait for this key.
    pub async fn skip(
        &self,
        key: &str,
        position: impl Into<Position>,
        reason: impl Into<String>,
    ) -> Result<Settled, ViewError> {
        let position = position.into();
        let reason = given(reason)?;
        let Some(generation) = self.serving().await? else {
            return Err(self.not_aside(key, position));
        };
        for partition in (0..self.context.db.store().partitions()).map(Partition) {
            let behind = Some((key, partition, position.minus(1)));
            let found = self
                .context
                .views
                .dead_letters(generation.id, behind, 1)
                .await?
                .into_iter()
                .next();
            let is_it = |dead_letters: &DeadLetter| {
                (
                    dead_letters.key.as_str(),
                    dead_letters.partition,
                    dead_letters.position,
                ) == (key, partition, position)
            };
            if let Some(dead_letters) = found.filter(is_it) {
                self.keep(&dead_letters, reason).await?;
                return self.settle(key).await;
            }
        }
        Err(self.not_aside(key, position))
    }

    /// Leaves everything out that waits for this key. The reason is kept with each event, and every
    /// rebuild leaves them out too.
    ///
    /// # Errors
    ///
    /// [`ViewError::Invalid`] without a reason.
    pub async fn discard(
        &self,
        key: &str,
        reason: impl Into<String>,
    ) -> Result<Settled, ViewError> {
        let reason = given(reason)?;
        let mut after = None;
        loop {
            let events = self
                .events(key, after.as_ref(), annals_core::PAGE_EVENTS)
                .await?;
            for dead_letters in &events {
                self.keep(dead_letters, reason.clone()).await?;
            }
            match events.into_iter().last() {
                Some(last) => after = Some(last),
                None => return self.settle(key).await,
            }
        }
    }

    /// Leaves an event out for all keys: one that stops the projection, because it cannot be read
    /// or no key can be told. The reason is kept, and every rebuild leaves the event out too.
    ///
    /// # Errors
    ///
    /// [`ViewError::Invalid`] without a reason, for a position without an event that the view
    /// handles, for one behind which the view has come already, or when the log has several
    /// partitions: then [`skip_event_in`](DeadLetters::skip_event_in) one.
    pub async fn skip_event(
        &self,
        position: impl Into<Position>,
        reason: impl Into<String>,
    ) -> Result<(), ViewError> {
        if self.context.db.store().partitions() > 1 {
            return Err(Invalid::new(
                "a log of several partitions has several events at a position: say which",
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
        let reason = given(reason)?;
        let view = &self.spec.view;
        if let Some(generation) = self.serving().await? {
            let checkpoints = self.context.views.checkpoints(generation.id).await?;
            if checkpoints
                .iter()
                .any(|of| of.partition == partition && of.position >= position)
            {
                return Err(Invalid::new(format!(
                    "view `{view}` has come behind position {position} already: what is folded is \
                     not taken back; skip it for a key that waits, \
                     or rebuild the view with another fold"
                ))
                .into());
            }
        }
        let read = ReadLog::after(position.minus(1))
            .up_to(position)
            .partition(partition)
            .limit(1);
        let found = self
            .context
            .db
            .store()
            .read(read)
            .await?
            .events
            .into_iter()
            .next();
        let handled = found.filter(|event| {
            self.spec
                .handles
                .iter()
                .any(|handled| **handled == *event.event_type)
        });
        let Some(event) = handled else {
            return Err(Invalid::new(format!(
                "view `{view}` handles no event at position {position}"
            ))
            .into());
        };
        let skip_decision = SkipDecision {
            view: view.clone(),
            partition,
            position,
            event: event.id,
            key: None,
            reason,
            decided_at: self.context.db.clock().now(),
        };
        self.context.views.save_skip_decision(skip_decision).await?;
        self.following.begin_anew();
        Ok(())
    }

    /// What operator decided about this view until now.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    pub async fn skip_decisions(&self) -> Result<Vec<SkipDecision>, ViewError> {
        Ok(self.context.views.skip_decisions(&self.spec.view).await?)
    }

    async fn keep(&self, dead_letters: &DeadLetter, reason: String) -> Result<(), ViewError> {
        let DeadLetter {
            key,
            partition,
            position,
            event,
            ..
        } = dead_letters.clone();
        let view = self.spec.view.clone();
        let decided_at = self.context.db.clock().now();
        let skip_decision = SkipDecision {
            view,
            partition,
            position,
            event,
            key: Some(key),
            reason,
            decided_at,
        };
        Ok(self.context.views.save_skip_decision(skip_decision).await?)
    }

    /// Settles the queue of a key in every generation; answers for the one that serves.
    async fn settle(&self, key: &str) -> Result<Settled, ViewError> {
        let serving = self.serving().await?.map(|generation| generation.id);
        let mut settled = Settled::default();
        for generation in self.generations().await? {
            let id = generation.id;
            let slot = slot_of(key, generation.spec.slots);
            match (self.settle)(generation, slot, vec![key.to_owned()]).await {
                Ok(emptied) if serving == Some(id) => {
                    settled = Settled {
                        events: emptied.settled,
                        still: emptied.still,
                    };
                }
                Ok(_) | Err(WorkError::Again(CommitError::Gone(_))) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.following.begin_anew();
        Ok(settled)
    }

    /// The generations that this program can fold.
    async fn generations(&self) -> Result<Vec<Generation>, ViewError> {
        let mut generations = self.context.views.generations(&self.spec.view).await?;
        generations.retain(|generation| is_ours(generation, &self.spec));
        Ok(generations)
    }

    /// The live one of them, or else the newest.
    async fn serving(&self) -> Result<Option<Generation>, ViewError> {
        let mut generations = self.generations().await?;
        let live = generations
            .iter()
            .position(|generation| generation.phase == Phase::Live);
        Ok(live
            .map(|live| generations.swap_remove(live))
            .or_else(|| generations.pop()))
    }

    fn not_aside(&self, key: &str, position: Position) -> ViewError {
        let view = &self.spec.view;
        let key = key.escape_debug();
        Invalid::new(format!(
            "no event at position {position} waits for key `{key}` of view `{view}`"
        ))
        .into()
    }
}

fn given(reason: impl Into<String>) -> Result<String, Invalid> {
    let reason = reason.into();
    if reason.trim().is_empty() {
        return Err(Invalid::new(
            "leaving an event out needs a reason: it is kept, and every rebuild repeats it",
        ));
    }
    Ok(reason)
}

impl DeadLetterKey {
    fn first(dead_letters: DeadLetter) -> DeadLetterKey {
        let DeadLetter {
            key,
            partition,
            position,
            event,
            cause,
            attempts,
            dead_since,
        } = dead_letters;
        DeadLetterKey {
            key,
            cause: cause.unwrap_or_default(),
            partition,
            position,
            event,
            attempts,
            dead_since,
            behind: 0,
        }
    }

    /// Takes in the next event of the queue. The one on which the key waits need not be in the
    /// first partition.
    fn next(&mut self, dead_letters: DeadLetter) {
        let behind = self.behind + 1;
        if self.cause.is_empty() && dead_letters.cause.is_some() {
            *self = DeadLetterKey::first(dead_letters);
        }
        self.behind = behind;
    }
}

impl<K> DeadLetterKey<K> {
    pub(crate) fn with_key<L>(self, key: L) -> DeadLetterKey<L> {
        let DeadLetterKey {
            cause,
            partition,
            position,
            event,
            attempts,
            dead_since,
            behind,
            ..
        } = self;
        DeadLetterKey {
            key,
            cause,
            partition,
            position,
            event,
            attempts,
            dead_since,
            behind,
        }
    }
}

impl fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetters")
            .field("view", &self.spec.view)
            .finish_non_exhaustive()
    }
}
