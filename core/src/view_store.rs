//! Where read models live: keyed rows in generations, their history, and checkpoints, all changed in one transaction.
//!
//! Rows are bytes here; what they mean is the business of the projections. A view store may be in another database than the log.

use std::ops::Bound;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::error::{Invalid, StoreError};
use crate::event::EventId;
use crate::lease::{Lease, Leases};
use crate::position::{LogId, Partition, Position};
use crate::read::Direction;

/// One build of a view: filled beside the one that serves, then switched to, then followed until it is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GenerationId(pub u64);

impl std::fmt::Display for GenerationId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What a generation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// It is being filled; readers do not see it.
    Building,
    /// Readers of its version see it.
    Live,
    /// It served once and is still followed, so that going back to it is not stale.
    Kept,
}

/// How much of the past a view keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Keeps {
    /// Only the present rows.
    #[default]
    Present,
    /// Also, for each key, what it was after each commit.
    History,
    /// Also which events touched a key, so that questions about event time can be answered.
    Bitemporal,
}

/// What a generation is made of; kept with it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GenerationSpec {
    /// The name of the view.
    pub view: String,
    /// The version of the view's fold.
    pub version: u32,
    /// The types of events that it handles, in order: a view that handles others is another one.
    pub handles: Vec<String>,
    /// The log that it is folded from.
    pub log: LogId,
    /// How many partitions that log has.
    pub partitions: u32,
    /// Into how many slots its keys are divided.
    pub slots: u16,
    /// How much of the past it keeps.
    pub keeps: Keeps,
    /// The names of its indexed columns.
    pub indexes: Vec<String>,
}

impl GenerationSpec {
    /// A view of this name and version, folded from this log, in one slot, keeping the present.
    ///
    /// ```
    /// use annals_core::{GenerationSpec, LogId};
    ///
    /// let spec = GenerationSpec::new("balances", 1, LogId::random());
    /// assert_eq!(spec.slots, 1);
    /// ```
    pub fn new(view: impl Into<String>, version: u32, log: LogId) -> GenerationSpec {
        GenerationSpec {
            view: view.into(),
            version,
            handles: Vec::new(),
            log,
            partitions: 1,
            slots: 1,
            keeps: Keeps::Present,
            indexes: Vec::new(),
        }
    }
}

/// A generation and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Generation {
    /// Its id: larger than those of all generations that this store made before.
    pub id: GenerationId,
    /// What it is made of.
    pub spec: GenerationSpec,
    /// What it is for.
    pub phase: Phase,
    /// When it was begun.
    pub begun_at: DateTime<Utc>,
    /// Questions about moments before this position cannot be answered any more (or never could).
    pub history_since: Position,
}

impl Generation {
    /// A generation as a store has it.
    pub fn new(
        id: GenerationId,
        spec: GenerationSpec,
        phase: Phase,
        begun_at: DateTime<Utc>,
        history_since: Position,
    ) -> Generation {
        Generation { id, spec, phase, begun_at, history_since }
    }

    /// The name of the lease on one of its slots.
    pub fn lease_name(&self, slot: u16) -> String {
        format!("{}/{}/{slot}", self.spec.view, self.id)
    }
}

/// How far a slot of a generation has come in one partition of the log: everything at or below is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Checkpoint {
    /// The slot.
    pub slot: u16,
    /// The partition.
    pub partition: Partition,
    /// The position.
    pub position: Position,
    /// The event at that position, or none at the start: a log that has another one there is not the log that was read.
    pub event: Option<EventId>,
    /// What the projection keeps for itself, such as windows that are open.
    pub state: Bytes,
}

impl Checkpoint {
    /// Before anything was read.
    pub fn start(slot: u16, partition: Partition) -> Checkpoint {
        Checkpoint { slot, partition, position: Position::START, event: None, state: Bytes::new() }
    }
}

/// A row: its key, in an encoding whose order is the order of the keys, and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct ViewRow {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Bytes,
}

/// What becomes of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct RowChange {
    /// Its key.
    pub key: String,
    /// Its value, or nothing when it is removed.
    pub value: Option<Bytes>,
    /// One entry for each of the generation's indexes, in their order; empty when the row is removed.
    pub indexed: Vec<String>,
}

/// What a row was after a run of events: the fold of everything up to `up_to`. Nothing is said of the moments in between.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct RowVersion {
    /// Its key.
    pub key: String,
    /// The run begins behind this position.
    pub after: Position,
    /// The run ends at this position, from which on the value holds until the next version of the key.
    pub up_to: Position,
    /// When the event at that position was recorded.
    pub recorded_at: DateTime<Utc>,
    /// The value, or nothing when there was no row.
    pub value: Option<Bytes>,
}

/// Everything that one step of a worker changes, in one transaction.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ViewCommit {
    /// The generation.
    pub generation: GenerationId,
    /// The lease under which the worker works: its epoch must be the newest.
    pub lease: Lease,
    /// Where the slot stood before: it must still stand there.
    pub from: Position,
    /// Where it stands afterwards.
    pub to: Checkpoint,
    /// Rows that change, each key at most once.
    pub rows: Vec<RowChange>,
    /// What is kept of the past, oldest first.
    pub versions: Vec<RowVersion>,
    /// Which events touched which key.
    pub touched: Vec<(String, Position)>,
    /// Events that are set aside, in order.
    pub park: Vec<Parked>,
    /// Events that were set aside and are settled now.
    pub unpark: Vec<(String, Position)>,
}

impl ViewCommit {
    /// A step of a slot from `from` to `to` that changes nothing else.
    pub fn new(generation: GenerationId, lease: Lease, from: Position, to: Checkpoint) -> ViewCommit {
        ViewCommit {
            generation,
            lease,
            from,
            to,
            rows: Vec::new(),
            versions: Vec::new(),
            touched: Vec::new(),
            park: Vec::new(),
            unpark: Vec::new(),
        }
    }
}

/// An event that was set aside: one that could not be folded, or one that waits behind it because it has the same key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Parked {
    /// The key.
    pub key: String,
    /// The partition of the event.
    pub partition: Partition,
    /// Where the event stands.
    pub position: Position,
    /// Its id.
    pub event: EventId,
    /// Why it could not be folded; nothing for one that only waits.
    pub cause: Option<String>,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was set aside.
    pub parked_at: DateTime<Utc>,
}

/// What a person decided about an event that could not be folded. Kept for the view, so that a rebuild repeats it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Verdict {
    /// The view.
    pub view: String,
    /// The partition of the event.
    pub partition: Partition,
    /// Where the event stands.
    pub position: Position,
    /// Its id.
    pub event: EventId,
    /// Why it is left out.
    pub reason: String,
    /// When it was decided.
    pub decided_at: DateTime<Utc>,
}

/// Why a step of a worker changed nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The lease is another's by now, or the slot has moved: somebody else works on it. Stop, and ask for the lease again.
    #[error("slot {slot} of generation {generation} is worked on by somebody else: {found}")]
    Fenced {
        /// The generation.
        generation: GenerationId,
        /// The slot.
        slot: u16,
        /// What was found.
        found: String,
    },
    /// The generation was dropped.
    #[error("generation {0} is gone")]
    Gone(GenerationId),
    /// The request can never succeed as written.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Which rows of a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RowsBy {
    /// These keys; others than those that exist are left out.
    Keys(Vec<String>),
    /// Keys in this range, in their order.
    KeyRange(Bound<String>, Bound<String>),
    /// Rows whose entry in this index is in the range, in the order of the entry and then of the key.
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
    /// At most so many rows.
    pub limit: usize,
    /// The order.
    pub direction: Direction,
}

impl ReadRows {
    /// Rows of a generation, from the start.
    pub fn of(generation: GenerationId, by: RowsBy) -> ReadRows {
        ReadRows { generation, by, after: None, limit: crate::PAGE_EVENTS, direction: Direction::Forward }
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
    /// The newest version that ends at or before the moment; nothing when there is none.
    pub base: Option<RowVersion>,
    /// When the moment lies inside the run of the next version: where that run begins. What lies between there and the moment
    /// must be folded onto the base.
    pub refold_after: Option<Position>,
}

/// A place for read models.
///
/// - **One transaction.** Rows, history, what is set aside and the checkpoint change together, or not at all.
/// - **Fenced.** A commit under an old epoch, or from a place where the slot no longer stands, changes nothing.
/// - **Complete.** Readers see a generation only once it was switched to.
#[async_trait]
pub trait ViewStore: Leases {
    /// Begins a generation: empty, building, at the start of the log.
    ///
    /// # Errors
    ///
    /// [`Failure::Invalid`](crate::Failure) for a specification that no store can keep, such as none or more than 256 slots.
    async fn begin_generation(&self, spec: GenerationSpec) -> Result<Generation, StoreError>;

    /// The generations of a view, oldest first.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn generations(&self, view: &str) -> Result<Vec<Generation>, StoreError>;

    /// The names of the views that have a generation, in order.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn views(&self) -> Result<Vec<String>, StoreError>;

    /// Makes a generation the one that readers of its version see; the one before is kept. Both at once.
    ///
    /// # Errors
    ///
    /// [`CommitError::Gone`] when it was dropped.
    async fn switch_to(&self, generation: GenerationId) -> Result<(), CommitError>;

    /// Drops a generation and everything in it. Dropping one that is gone changes nothing.
    ///
    /// # Errors
    ///
    /// [`CommitError::Invalid`] for the live one.
    async fn drop_generation(&self, generation: GenerationId) -> Result<(), CommitError>;

    /// Where the slots of a generation stand, in the order of slot and partition; slots that never committed are left out.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn checkpoints(&self, generation: GenerationId) -> Result<Vec<Checkpoint>, StoreError>;

    /// Takes a step.
    ///
    /// # Errors
    ///
    /// [`CommitError::Fenced`] when somebody else works on the slot. Nothing was changed.
    async fn commit_view(&self, commit: ViewCommit) -> Result<(), CommitError>;

    /// A page of rows as they are.
    ///
    /// # Errors
    ///
    /// [`CommitError::Gone`], and [`CommitError::Invalid`] for an index that the generation does not have.
    async fn read_rows(&self, read: ReadRows) -> Result<RowsPage, CommitError>;

    /// What is known of these keys just after `moment`; nothing for keys that no version speaks of.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn read_past(
        &self,
        generation: GenerationId,
        keys: &[String],
        moment: Position,
    ) -> Result<Vec<PastRow>, StoreError>;

    /// Keys in the range, in order, that have a version or a row; at most `limit`, behind `after`.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn past_keys(
        &self,
        generation: GenerationId,
        range: (Bound<String>, Bound<String>),
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, StoreError>;

    /// The versions of a key that end in the range of positions (behind the first, up to and with the second), oldest first.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn row_versions(
        &self,
        generation: GenerationId,
        key: &str,
        between: (Position, Position),
        limit: usize,
    ) -> Result<Vec<RowVersion>, StoreError>;

    /// Keys with a version that ends in the range of positions, in order; at most `limit`, behind `after`.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn keys_changed_between(
        &self,
        generation: GenerationId,
        between: (Position, Position),
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, StoreError>;

    /// The positions of the events that touched a key, up to and with `up_to`, behind `after`, at most `limit`.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn touched(
        &self,
        generation: GenerationId,
        key: &str,
        after: Position,
        up_to: Position,
        limit: usize,
    ) -> Result<Vec<Position>, StoreError>;

    /// Forgets the past before `since`: what is needed to answer for `since` itself and later stays.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn forget_history(&self, generation: GenerationId, since: Position) -> Result<(), StoreError>;

    /// What is set aside in a generation, in the order of key and position, behind `after`, at most `limit`.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn parked(
        &self,
        generation: GenerationId,
        after: Option<(&str, Position)>,
        limit: usize,
    ) -> Result<Vec<Parked>, StoreError>;

    /// Keeps a verdict; one about the same event is replaced.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn keep_verdict(&self, verdict: Verdict) -> Result<(), StoreError>;

    /// The verdicts about a view, in the order of partition and position.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn verdicts(&self, view: &str) -> Result<Vec<Verdict>, StoreError>;
}
