//! Pages that update themselves: what becomes of a row, or of all rows, from the moment of the
//! call.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use annals_core::{GenerationId, Invalid, Partition, Position, ReadRows, RowChange, RowsBy, Token};
use bytes::Bytes;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};

use annals_runner::{PublishedStep, Seen, SlotState, ViewError, slot_of};

use super::ViewHandle;
use crate::fold::decoded;
use crate::view::View;

/// What became of a row.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::exhaustive_structs)]
pub struct Change<V: View> {
    /// Its key.
    pub key: V::Key,
    /// The row, or nothing when it was removed.
    pub value: Option<V>,
    /// How far its slot had come: what is read [`at_least`](super::Get::at_least) at it has seen
    /// this change.
    pub token: Token,
}

/// News of a view.
#[derive(Clone, Debug)]
#[allow(clippy::exhaustive_enums)]
pub enum Update<V: View> {
    /// A row changed.
    Changed(Change<V>),
    /// More changed than is kept for watchers: this one was too slow, a step changed very many
    /// rows, another generation serves now, or another process works on the view. Read again what
    /// is shown; what comes next follows on that.
    LookAgain,
}

/// One row, watched. Dropping it ends the watching; dropping the future of [`next`](Watch::next)
/// loses nothing.
pub struct Watch<V: View> {
    reader: PartitionReader<V>,
    key: Result<String, Invalid>,
    /// The row as it was given last, if it was.
    given: Option<Option<Bytes>>,
    /// What was read is not given again from older steps.
    read: BTreeMap<Partition, Position>,
    look: bool,
}

/// All rows, watched. Dropping it ends the watching; dropping the future of
/// [`next`](WatchAll::next) loses nothing.
pub struct WatchAll<V: View> {
    reader: PartitionReader<V>,
    step: VecDeque<RowChange>,
    token: Token,
}

/// What the steps of the live generation changed.
struct PartitionReader<V: View> {
    views: ViewHandle<V>,
    committed: broadcast::Receiver<PublishedStep>,
    changes: watch::Receiver<u64>,
    ended: watch::Receiver<bool>,
    live: Option<GenerationId>,
    /// The checkpoints of slots on which other processes work, as last seen.
    elsewhere: BTreeMap<(u16, Partition), SeenCheckpoint>,
    polls: watch::Receiver<Arc<Seen>>,
}

/// The position of a checkpoint, and its state: dead letters that are settled change that alone.
type SeenCheckpoint = (Position, Bytes);

enum Woken {
    Step(Result<PublishedStep, RecvError>),
    Generations,
    Ended,
    Idle,
}

enum News {
    Step(Token, Partition, Position, Arc<[RowChange]>),
    LookAgain,
}

impl<V: View> ViewHandle<V> {
    /// Watches one row: its changes from now on. To show a row and keep it up to date, watch first
    /// and read then.
    ///
    /// A watcher that is slow misses what is overtaken, and always gets the newest row.
    ///
    /// ```
    /// # use annals_projections::ReadModels as _;
    /// # use annals_projections::{Program, View, ViewError};
    /// # async fn example<Balance: View<Key = String> + std::fmt::Debug>(
    /// #     db: Program,
    /// # ) -> Result<(), ViewError> {
    /// let view = db.view::<Balance>();
    /// let mut alice = view.watch("alice");
    /// println!("{:?}", view.get("alice").await?);
    /// while let Some(change) = alice.next().await? {
    ///     println!("{:?}", change.value);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch(&self, key: impl Into<V::Key>) -> Watch<V> {
        let key = crate::key::checked(&key.into()).map(|key| self.stored_key(&key));
        Watch {
            reader: PartitionReader::of(self),
            key,
            given: None,
            read: BTreeMap::new(),
            look: false,
        }
    }

    /// Watches all rows: their changes from now on.
    ///
    /// What waits for a watcher is bounded: one that is too slow has to [look
    /// again](Update::LookAgain).
    ///
    /// ```
    /// # use annals_projections::ReadModels as _;
    /// # use annals_projections::{Program, Update, View, ViewError};
    /// # async fn example<Balance: View<Key = String> + std::fmt::Debug>(
    /// #     db: Program,
    /// # ) -> Result<(), ViewError> {
    /// let mut all = db.view::<Balance>().watch_all();
    /// while let Some(update) = all.next().await? {
    ///     match update {
    ///         Update::Changed(change) => println!("{}: {:?}", change.key, change.value),
    ///         Update::LookAgain => println!("{:?}", db.view::<Balance>().rows().await?.rows),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch_all(&self) -> WatchAll<V> {
        WatchAll {
            reader: PartitionReader::of(self),
            step: VecDeque::new(),
            token: Token::new(self.context.db.store().id()),
        }
    }
}

impl<V: View> Watch<V> {
    /// The next change; `None` when the program has stopped.
    ///
    /// # Errors
    ///
    /// A key that no row can have, and those of a store that cannot answer; asking again goes on
    /// where it was.
    pub async fn next(&mut self) -> Result<Option<Change<V>>, ViewError> {
        let key = self.key.clone()?;
        loop {
            if self.look {
                let (row, token) = self.reader.row(&key).await?;
                self.read = token.positions().collect();
                self.look = false;
                if let Some(change) = self.change(&key, row, token)? {
                    return Ok(Some(change));
                }
            }
            match self.reader.next().await? {
                None => return Ok(None),
                Some(News::LookAgain) => self.look = true,
                Some(News::Step(token, partition, position, rows)) => {
                    let overtaken = self
                        .read
                        .get(&partition)
                        .is_some_and(|read| position < *read);
                    let Some(row) = rows
                        .iter()
                        .find(|row| row.key == key)
                        .filter(|_| !overtaken)
                    else {
                        continue;
                    };
                    if let Some(change) = self.change(&key, row.value.clone(), token)? {
                        return Ok(Some(change));
                    }
                }
            }
        }
    }

    fn change(
        &mut self,
        key: &str,
        row: Option<Bytes>,
        token: Token,
    ) -> Result<Option<Change<V>>, ViewError> {
        if self.given.as_ref() == Some(&row) {
            return Ok(None);
        }
        let value = decoded(key, row.as_ref())?;
        self.given = Some(row);
        Ok(Some(Change {
            key: self.reader.views.typed_key(key)?,
            value,
            token,
        }))
    }
}

impl<V: View> WatchAll<V> {
    /// The next change; `None` when the program has stopped.
    ///
    /// # Errors
    ///
    /// Those of a store that cannot answer; asking again goes on where it was.
    pub async fn next(&mut self) -> Result<Option<Update<V>>, ViewError> {
        loop {
            if let Some(RowChange { key, value, .. }) = self.step.pop_front() {
                let value = decoded(&key, value.as_ref())?;
                let change = Change {
                    key: self.reader.views.typed_key(&key)?,
                    value,
                    token: self.token.clone(),
                };
                return Ok(Some(Update::Changed(change)));
            }
            match self.reader.next().await? {
                None => return Ok(None),
                Some(News::LookAgain) => return Ok(Some(Update::LookAgain)),
                Some(News::Step(token, _, _, rows)) => {
                    self.token = token;
                    let views = &self.reader.views;
                    let mine = rows.iter().filter(|row| views.is_mine(&row.key));
                    self.step.extend(mine.cloned());
                }
            }
        }
    }
}

impl<V: View> PartitionReader<V> {
    fn of(views: &ViewHandle<V>) -> PartitionReader<V> {
        let workers = &views.workers;
        let changes = workers.changes();
        let committed = workers.steps();
        let mut reader = PartitionReader {
            views: views.clone(),
            committed,
            changes,
            ended: workers.ended(),
            live: None,
            elsewhere: BTreeMap::new(),
            polls: views.context.poll.seen(),
        };
        reader.live = reader.live_here();
        reader
    }

    fn live_here(&self) -> Option<GenerationId> {
        self.views.workers.serving().map(|of| of.id)
    }

    async fn next(&mut self) -> Result<Option<News>, ViewError> {
        self.views.check_kept()?;
        loop {
            let woken = tokio::select! {
                biased;
                committed = self.committed.recv() => Woken::Step(committed),
                _ = self.changes.changed() => Woken::Generations,
                _ = self.ended.wait_for(|ended| *ended) => Woken::Ended,
                _ = self.polls.changed() => Woken::Idle,
            };
            let news = match woken {
                Woken::Step(Ok(step)) if Some(step.generation) != self.live => None,
                Woken::Step(Ok(PublishedStep {
                    partition,
                    position,
                    rows: Some(rows),
                    ..
                })) => {
                    let token =
                        Token::new(self.views.context.db.store().id()).with(partition, position);
                    return Ok(Some(News::Step(token, partition, position, rows)));
                }
                Woken::Step(Ok(_) | Err(RecvError::Lagged(_))) => Some(News::LookAgain),
                Woken::Step(Err(RecvError::Closed)) | Woken::Ended => return Ok(None),
                Woken::Generations => {
                    let live = self.live_here();
                    let another = live.is_some() && live != self.live;
                    self.live = live.or(self.live);
                    another.then_some(News::LookAgain)
                }
                Woken::Idle => self.moved_elsewhere().then_some(News::LookAgain),
            };
            if let Some(news) = news {
                // What is read from now on has seen every step until now.
                self.committed = self.views.workers.steps();
                return Ok(Some(news));
            }
        }
    }

    /// Whether a slot has moved, or settled dead letters, on which another process works.
    fn moved_elsewhere(&mut self) -> bool {
        let Some(live) = self.live else {
            return false;
        };
        let works_here = |state: &SlotState| {
            !matches!(
                state,
                SlotState::Starting | SlotState::Elsewhere { .. } | SlotState::Waiting { .. }
            )
        };
        let here = self.views.workers.of(live, |of| {
            of.slots
                .iter()
                .map(|slot| works_here(&slot.borrow().state))
                .collect::<Vec<_>>()
        });
        let here = here.unwrap_or_default();
        if here.iter().all(|here| *here) {
            self.elsewhere.clear();
            return false;
        }
        let mut moved = false;
        let seen = Arc::clone(&self.polls.borrow_and_update());
        let Some(state) = seen.state(live) else {
            return false;
        };
        for of in &state.checkpoints {
            if here.get(usize::from(of.slot)) == Some(&false) {
                let at = (of.position, of.state.clone());
                let before = self.elsewhere.insert((of.slot, of.partition), at.clone());
                moved |= before != Some(at);
            }
        }
        moved
    }

    /// A row as it is, and how far its slot has come.
    async fn row(&self, key: &str) -> Result<(Option<Bytes>, Token), ViewError> {
        let generation = self.views.live().await?;
        let read = ReadRows::of(generation.id, RowsBy::Keys(vec![key.into()])).limit(1);
        let page = self.views.context.views.read_rows(read).await?;
        let slot = slot_of(key, generation.spec.slots);
        // Rows of a pipeline are where the keys of its stages are.
        let any = self.views.output.is_some();
        let of_slot = page.checkpoints.iter().filter(|of| any || of.slot == slot);
        let nothing = Token::new(self.views.context.db.store().id());
        let token = of_slot.fold(nothing, |token, of| token.with(of.partition, of.position));
        Ok((page.rows.into_iter().next().map(|row| row.value), token))
    }
}

impl<V: View> fmt::Debug for Watch<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("view", &V::NAME)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl<V: View> fmt::Debug for WatchAll<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchAll")
            .field("view", &V::NAME)
            .finish_non_exhaustive()
    }
}
