//! Where read models live: keyed rows in generations, their history, and checkpoints, all changed
//! in one transaction.
//!
//! Rows are bytes here; what they mean is the business of the projections. A view store may be in
//! another database than the log.

use std::ops::Bound;

use async_trait::async_trait;

use crate::error::StoreError;
use crate::generation::{Generation, GenerationId, GenerationSpec, Phase};
use crate::lease::{LeaseState, Leases};
use crate::position::{Partition, Position};
use crate::read::Direction;
use crate::view_commit::{
    Checkpoint, CommitError, DeadLetter, RowVersion, SkipDecision, ViewCommit, ViewRow,
};

/// Which rows of a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RowsBy {
    /// These keys, in the order of the keys, each once; those without a row are left out.
    Keys(Vec<String>),
    /// Keys in this range, in their order.
    KeyRange(Bound<String>, Bound<String>),
    /// Rows whose entry in this index is in the range, in the order of the entry and then of the
    /// key.
    Index {
        /// The name of the index.
        name: String,
        /// The range of entries.
        range: (Bound<String>, Bound<String>),
    },
}

/// A page of rows that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadRows {
    /// The generation.
    pub generation: GenerationId,
    /// Which rows.
    pub by: RowsBy,
    /// Behind this place: what the page before said.
    pub after: Option<RowPlace>,
    /// At most so many rows; a store may give fewer and say where to go on.
    pub limit: usize,
    /// The order.
    pub direction: Direction,
}

impl ReadRows {
    /// Rows of a generation, from the start.
    pub fn of(generation: GenerationId, by: RowsBy) -> ReadRows {
        ReadRows {
            generation,
            by,
            after: None,
            limit: crate::PAGE_EVENTS,
            direction: Direction::Forward,
        }
    }

    /// Behind this place.
    #[must_use]
    pub fn after(mut self, place: Option<RowPlace>) -> ReadRows {
        self.after = place;
        self
    }

    /// At most so many rows.
    #[must_use]
    pub fn limit(mut self, rows: usize) -> ReadRows {
        self.limit = rows;
        self
    }

    /// From the end.
    #[must_use]
    pub fn backward(mut self) -> ReadRows {
        self.direction = Direction::Backward;
        self
    }
}

/// Where a page ended: the entry of the index (empty when read by key), and the key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct RowPlace {
    /// The entry of the index.
    pub entry: String,
    /// The key.
    pub key: String,
}

/// A generation, how far its slots have come, and who holds them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct GenerationState {
    /// The generation.
    pub generation: Generation,
    /// The checkpoints of its slots.
    pub checkpoints: Vec<Checkpoint>,
    /// The leases that are about it.
    pub leases: Vec<LeaseState>,
}

/// A page of rows. Everything in it belongs to one moment.
#[derive(Clone, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct RowsPage {
    /// The rows, in the order that was asked for.
    pub rows: Vec<ViewRow>,
    /// Where to go on, when there may be more.
    pub next: Option<RowPlace>,
    /// How far the generation had come.
    pub checkpoints: Vec<Checkpoint>,
}

/// What is known of a key at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct PastRow {
    /// The key.
    pub key: String,
    /// The newest version that ends at or before the moment; nothing when there is none: there was
    /// no row.
    pub base: Option<RowVersion>,
    /// When the moment lies inside the run of the next version: where that run begins. What lies
    /// between there and the moment must be folded onto the base.
    pub refold_after: Option<Position>,
}

/// A place for read models.
///
/// - **One transaction.** Rows, history, what is set aside and the checkpoint change together, or
///   not at all.
/// - **Fenced.** A commit under an old epoch, or from a place where the slot no longer stands,
///   changes nothing.
/// - **Complete.** Readers see a generation only once it was switched to
///   ([`live_generation`](ViewStore::live_generation)). One that is dropped under their hands says
///   so, and never looks empty.
/// - **Bytewise.** Keys, entries and names are any text, compared byte by byte.
/// - **Bounded.** A page of rows ends at its limit or behind
///   [`PAGE_BYTES_MAX`](crate::PAGE_BYTES_MAX) bytes of values.
///
/// ```
/// use std::time::Duration;
///
/// use annals_core::{
///     Acquired, Checkpoint, GenerationSpec, Leases, Log, MemoryStore, Partition, Position, ReadRows, RowChange, RowsBy, ViewCommit,
///     ViewStore,
/// };
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let store = MemoryStore::new();
/// let generation = store.begin_generation(GenerationSpec::new("balances", 1, store.id())).await?;
/// let asked = store.acquire_lease(&generation.lease_name(0), "worker-a", Duration::from_secs(10)).await?;
/// let Acquired::Granted(lease) = asked else { panic!("nobody else works here") };
///
/// let to = Checkpoint { position: Position::new(1), ..Checkpoint::start(0, Partition(0)) };
/// let mut step = ViewCommit::new(generation.id, lease, Position::START, to);
/// step.rows.push(RowChange { key: "alice".into(), value: Some("5".into()), indexed: Vec::new() });
/// store.commit_view(step).await?;
///
/// let page = store.read_rows(ReadRows::of(generation.id, RowsBy::Keys(vec!["alice".into()]))).await?;
/// assert_eq!(page.rows[0].value, "5");
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[async_trait]
pub trait ViewStore: Leases {
    /// Begins a generation: empty, building, at the start of the log.
    ///
    /// # Errors
    ///
    /// [`Failure::Invalid`](crate::Failure) for a specification that [no store may
    /// begin](GenerationSpec::check).
    async fn begin_generation(&self, spec: GenerationSpec) -> Result<Generation, StoreError>;

    /// The generations of a view, oldest first.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn generations(&self, view: &str) -> Result<Vec<Generation>, StoreError>;

    /// The generation that readers of this version of a view see; nothing while there is none.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn live_generation(
        &self,
        view: &str,
        version: u32,
    ) -> Result<Option<Generation>, StoreError> {
        let serves = |generation: &Generation| {
            generation.phase == Phase::Live && generation.spec.version == version
        };
        Ok(self.generations(view).await?.into_iter().find(serves))
    }

    /// The names of the views that have a generation, in order.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn view_names(&self) -> Result<Vec<String>, StoreError>;

    /// Makes a generation the one that readers of its version see; the one before is kept. Both at
    /// once. Going back is switching to one that was kept.
    ///
    /// # Errors
    ///
    /// [`CommitError::Gone`] when it was dropped.
    async fn switch_to(&self, generation: GenerationId) -> Result<(), CommitError>;

    /// Drops a generation and everything in it, also the leases on its slots. Dropping one that is
    /// gone changes nothing. Verdicts are about the view, and stay.
    ///
    /// # Errors
    ///
    /// [`CommitError::Invalid`] for [the one on which readers depend](Generation::check_drop).
    async fn drop_generation(&self, generation: GenerationId) -> Result<(), CommitError>;

    /// Where the slots of a generation stand, in the order of slot and partition; slots that never
    /// committed are left out.
    ///
    /// # Errors
    ///
    /// [`CommitError::Gone`]
    async fn checkpoints(&self, generation: GenerationId) -> Result<Vec<Checkpoint>, CommitError>;

    /// The generations of these views that are not dropped, each with how far it has come and who
    /// holds its slots: what a process polls, in one call.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn states(&self, views: &[String]) -> Result<Vec<GenerationState>, StoreError> {
        let mut states = Vec::new();
        for view in views {
            for generation in self.generations(view).await? {
                let checkpoints = match self.checkpoints(generation.id).await {
                    Ok(checkpoints) => checkpoints,
                    Err(CommitError::Store(error)) => return Err(error),
                    // Dropped meanwhile.
                    Err(_) => continue,
                };
                let mut leases = self.leases(&generation.lease_prefix()).await?;
                leases.retain(|of| generation.is_about_it(&of.lease.name));
                states.push(GenerationState {
                    generation,
                    checkpoints,
                    leases,
                });
            }
        }
        Ok(states)
    }

    /// Takes a step.
    ///
    /// What fences is the epoch alone: a step under a lease that has ended, and that nobody took
    /// since, is taken.
    ///
    /// # Errors
    ///
    /// [`CommitError::Fenced`] when somebody else works on the slot or the lease was given back,
    /// [`CommitError::Gone`], [`CommitError::Invalid`] for [what can never
    /// succeed](ViewCommit::check) and, when nothing else stands against it, for a version of a key
    /// that ends where one ends already. Nothing was changed. A step that is asked for again after
    /// it was taken is fenced, unless it went nowhere.
    async fn commit_view(&self, commit: ViewCommit) -> Result<(), CommitError>;

    /// A page of rows as they are.
    ///
    /// # Errors
    ///
    /// [`CommitError::Gone`], and [`CommitError::Invalid`] for an index that the generation does
    /// not have.
    async fn read_rows(&self, read: ReadRows) -> Result<RowsPage, CommitError>;

    /// What is known of these keys just after `moment`, in the order of the keys, each once;
    /// nothing for keys that no version speaks of.
    ///
    /// Only moments that every slot has passed have an answer that lasts.
    ///
    /// # Errors
    ///
    /// [`CommitError::Gone`], and [`CommitError::BeforeHistory`] for a moment before what is kept.
    async fn read_past(
        &self,
        generation: GenerationId,
        keys: &[String],
        moment: Position,
    ) -> Result<Vec<PastRow>, CommitError>;

    /// Keys in the range, in order, that have a version or a row; at most `limit`, behind `after`.
    ///
    /// # Errors
    ///
    /// [`CommitError::Gone`]
    async fn past_keys(
        &self,
        generation: GenerationId,
        range: (Bound<String>, Bound<String>),
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, CommitError>;

    /// The versions of a key that end in the range of positions (behind the first, up to and with
    /// the second), oldest first; of what was forgotten nothing is told.
    ///
    /// # Errors
    ///
    /// [`CommitError::Gone`]
    async fn row_versions(
        &self,
        generation: GenerationId,
        key: &str,
        between: (Position, Position),
        limit: usize,
    ) -> Result<Vec<RowVersion>, CommitError>;

    /// Keys with a version that ends in the range of positions (behind the first, up to and with
    /// the second), in order; at most `limit`, behind `after`.
    ///
    /// # Errors
    ///
    /// [`CommitError::Gone`], and [`CommitError::BeforeHistory`] when the range begins before what
    /// is kept.
    async fn keys_changed_between(
        &self,
        generation: GenerationId,
        between: (Position, Position),
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, CommitError>;

    /// The positions of the events that touched a key, in order: up to and with `up_to`, behind
    /// `after`, at most `limit`.
    ///
    /// # Errors
    ///
    /// [`CommitError::Gone`]
    async fn touched(
        &self,
        generation: GenerationId,
        key: &str,
        after: Position,
        up_to: Position,
        limit: usize,
    ) -> Result<Vec<Position>, CommitError>;

    /// Forgets the past before `since`: what is needed to answer for `since` itself and later
    /// stays, and [`Generation::history_since`] says so. A key that had been removed by then, and
    /// has not come back, is forgotten. Which events touched a key stays: a question about event
    /// time folds them from the first one on.
    ///
    /// Forgetting less than before changes nothing.
    ///
    /// # Errors
    ///
    /// [`CommitError::Gone`]
    async fn forget_history(
        &self,
        generation: GenerationId,
        since: Position,
    ) -> Result<(), CommitError>;

    /// What is set aside in a generation, in the order of key, partition and position, behind
    /// `after`, at most `limit`.
    ///
    /// # Errors
    ///
    /// [`CommitError::Gone`]
    async fn dead_letters(
        &self,
        generation: GenerationId,
        after: Option<(&str, Partition, Position)>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, CommitError>;

    /// History a skip_decision; one about the same place in the log and the same key is replaced.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn save_skip_decision(&self, skip_decision: SkipDecision) -> Result<(), StoreError>;

    /// The skip_decisions about a view, in the order of partition, position and key; the one for
    /// all keys comes first.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn skip_decisions(&self, view: &str) -> Result<Vec<SkipDecision>, StoreError>;
}
