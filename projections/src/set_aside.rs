//! What waits for a person: events that made no sense, and what stands behind them. Looked at, tried again, left out with a reason.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use annals_core::chrono::{DateTime, Utc};
use annals_core::{
    CommitError, EventId, Generation, GenerationSpec, Invalid, Parked, Partition, Phase, Position,
    ReadLog, Verdict,
};

use crate::key::slot_of;
use crate::query::ViewError;
use crate::status::Kind;
use crate::supervisor::{Following, Site, is_ours, spec_of};
use crate::view::View;
use crate::worker::{Emptied, Progress, Work, WorkError};

pub(crate) type Settle = dyn Fn(
        Generation,
        u16,
        Vec<String>,
    ) -> Pin<Box<dyn Future<Output = Result<Emptied, WorkError>> + Send>>
    + Send
    + Sync;

/// What is set aside in a view, for tools that know it by its name: keys are texts here (what
/// [`ViewKey::to_key`](crate::ViewKey::to_key) gives). Programs that know its type use the same of [`Views`](crate::Views).
///
/// Whatever changes something does so in every generation of the view that this program can fold. It takes the slot of the key from
/// whichever worker has it, in whichever process; that worker goes on behind it.
///
/// ```
/// # use annals_projections::{Program, ViewError};
/// # async fn example(db: Program) -> Result<(), ViewError> {
/// if let Some(set_aside) = db.set_aside("balances") {
///     for key in set_aside.keys(None, 100).await? {
///         println!("{} waits since {}: {}", key.key, key.parked_at, key.cause);
///         set_aside.retry(&key.key).await?;
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SetAside {
    site: Site,
    following: Following,
    spec: GenerationSpec,
    settle: Arc<Settle>,
}

/// A key that waits for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParkedKey<K = String> {
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
    pub parked_at: DateTime<Utc>,
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
    pub still: Option<Parked>,
}

impl SetAside {
    pub(crate) fn of<V: View>(site: &Site, following: &Following) -> SetAside {
        let handlers = Arc::new(V::handlers());
        let on = site.clone();
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
        SetAside::settling(
            site.clone(),
            following.clone(),
            spec_of::<V>(site),
            Arc::new(settle),
        )
    }

    /// With another way to settle the queues of some keys of a slot.
    pub(crate) fn settling(
        site: Site,
        following: Following,
        spec: GenerationSpec,
        settle: Arc<Settle>,
    ) -> SetAside {
        SetAside {
            site,
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
    ) -> Result<Vec<ParkedKey>, ViewError> {
        let Some(generation) = self.serving().await? else {
            return Ok(Vec::new());
        };
        let mut keys: Vec<ParkedKey> = Vec::new();
        // Behind everything that is set aside for a key.
        let mut place = after.map(|key| (key.to_owned(), Partition(u32::MAX), Position::MAX));
        loop {
            let behind = place
                .as_ref()
                .map(|(key, partition, position)| (key.as_str(), *partition, *position));
            let page = self
                .site
                .views
                .parked(generation.id, behind, annals_core::PAGE_EVENTS)
                .await?;
            let Some(last) = page.last() else {
                return Ok(keys);
            };
            place = Some((last.key.clone(), last.partition, last.position));
            for parked in page {
                let full = keys.len() == limit;
                match keys.last_mut() {
                    Some(key) if key.key == parked.key => key.next(parked),
                    _ if full => return Ok(keys),
                    _ => keys.push(ParkedKey::first(parked)),
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
        after: Option<&Parked>,
        limit: usize,
    ) -> Result<Vec<Parked>, ViewError> {
        let Some(generation) = self.serving().await? else {
            return Ok(Vec::new());
        };
        let (partition, position) = after.map_or((Partition(0), Position::START), |parked| {
            (parked.partition, parked.position)
        });
        let mut events = self
            .site
            .views
            .parked(generation.id, Some((key, partition, position)), limit)
            .await?;
        events.retain(|parked| parked.key == key);
        Ok(events)
    }

    /// Folds what waits for a key, in order and onto the row as it is, with today's fold. When an event still makes no sense, it and
    /// what stands behind it go on waiting.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    pub async fn retry(&self, key: &str) -> Result<Settled, ViewError> {
        self.settle(key).await
    }

    /// [`retry`](SetAside::retry) for every key that waits. Answers with all that was settled, and the first event on which a key still
    /// waits.
    ///
    /// # Errors
    ///
    /// As [`retry`](SetAside::retry). Keys that were settled before stay so.
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
                    .site
                    .views
                    .parked(generation.id, behind, annals_core::PAGE_EVENTS)
                    .await
                {
                    Err(CommitError::Gone(_)) => break,
                    page => page?,
                };
                let Some(last) = page.last() else { break };
                after = Some((last.key.clone(), Partition(u32::MAX), Position::MAX));
                let mut keys: Vec<_> = page.into_iter().map(|parked| parked.key).collect();
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

    /// Leaves an event that waits out for this key, and folds what stood behind it. The reason is kept, and every rebuild leaves the
    /// event out too.
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
        for partition in (0..self.site.db.store().partitions()).map(Partition) {
            let behind = Some((key, partition, position.minus(1)));
            let found = self
                .site
                .views
                .parked(generation.id, behind, 1)
                .await?
                .into_iter()
                .next();
            let is_it = |parked: &Parked| {
                (parked.key.as_str(), parked.partition, parked.position)
                    == (key, partition, position)
            };
            if let Some(parked) = found.filter(is_it) {
                self.keep(&parked, reason).await?;
                return self.settle(key).await;
            }
        }
        Err(self.not_aside(key, position))
    }

    /// Leaves everything out that waits for this key. The reason is kept with each event, and every rebuild leaves them out too.
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
            for parked in &events {
                self.keep(parked, reason.clone()).await?;
            }
            match events.into_iter().last() {
                Some(last) => after = Some(last),
                None => return self.settle(key).await,
            }
        }
    }

    /// Leaves an event out for all keys: one that stops the projection, because it cannot be read or no key can be told. The reason
    /// is kept, and every rebuild leaves the event out too.
    ///
    /// # Errors
    ///
    /// [`ViewError::Invalid`] without a reason, for a position without an event that the view handles, for one behind which the view
    /// has come already, or when the log has several partitions: then [`skip_event_in`](SetAside::skip_event_in) one.
    pub async fn skip_event(
        &self,
        position: impl Into<Position>,
        reason: impl Into<String>,
    ) -> Result<(), ViewError> {
        if self.site.db.store().partitions() > 1 {
            return Err(Invalid::new(
                "a log of several partitions has several events at a position: say which",
            )
            .into());
        }
        self.skip_event_in(Partition(0), position, reason).await
    }

    /// [`skip_event`](SetAside::skip_event) of this partition.
    ///
    /// # Errors
    ///
    /// As [`skip_event`](SetAside::skip_event).
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
            let checkpoints = self.site.views.checkpoints(generation.id).await?;
            if checkpoints
                .iter()
                .any(|of| of.partition == partition && of.position >= position)
            {
                return Err(Invalid::new(format!(
                    "view `{view}` has come behind position {position} already: what is folded is not taken back; skip it for a key that waits, \
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
            .site
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
        let verdict = Verdict {
            view: view.clone(),
            partition,
            position,
            event: event.id,
            key: None,
            reason,
            decided_at: self.site.db.clock().now(),
        };
        self.site.views.keep_verdict(verdict).await?;
        self.following.begin_anew();
        Ok(())
    }

    /// What people decided about this view until now.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    pub async fn verdicts(&self) -> Result<Vec<Verdict>, ViewError> {
        Ok(self.site.views.verdicts(&self.spec.view).await?)
    }

    async fn keep(&self, parked: &Parked, reason: String) -> Result<(), ViewError> {
        let Parked {
            key,
            partition,
            position,
            event,
            ..
        } = parked.clone();
        let view = self.spec.view.clone();
        let decided_at = self.site.db.clock().now();
        let verdict = Verdict {
            view,
            partition,
            position,
            event,
            key: Some(key),
            reason,
            decided_at,
        };
        Ok(self.site.views.keep_verdict(verdict).await?)
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
        let mut generations = self.site.views.generations(&self.spec.view).await?;
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

impl ParkedKey {
    fn first(parked: Parked) -> ParkedKey {
        let Parked {
            key,
            partition,
            position,
            event,
            cause,
            attempts,
            parked_at,
        } = parked;
        ParkedKey {
            key,
            cause: cause.unwrap_or_default(),
            partition,
            position,
            event,
            attempts,
            parked_at,
            behind: 0,
        }
    }

    /// Takes in the next event of the queue. The one on which the key waits need not be in the first partition.
    fn next(&mut self, parked: Parked) {
        let behind = self.behind + 1;
        if self.cause.is_empty() && parked.cause.is_some() {
            *self = ParkedKey::first(parked);
        }
        self.behind = behind;
    }
}

impl<K> ParkedKey<K> {
    pub(crate) fn with_key<L>(self, key: L) -> ParkedKey<L> {
        let ParkedKey {
            cause,
            partition,
            position,
            event,
            attempts,
            parked_at,
            behind,
            ..
        } = self;
        ParkedKey {
            key,
            cause,
            partition,
            position,
            event,
            attempts,
            parked_at,
            behind,
        }
    }
}

impl fmt::Debug for SetAside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetAside")
            .field("view", &self.spec.view)
            .finish_non_exhaustive()
    }
}
