//! The rows of a generation and their history.

use std::fmt;
use std::ops::Bound;

use async_trait::async_trait;
use bytes::Bytes;

use crate::generation::GenerationId;
use crate::position::Position;
use crate::read::Direction;
use crate::view_commit::{Checkpoint, CommitError, RowVersion, ViewCommit, ViewRow};

/// Which rows of a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RowsBy {
    /// These keys, in the order of the keys, each once; those without a row are omitted.
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
    /// After this place: what the page before said.
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

    /// After this place.
    #[must_use]
    pub fn after(mut self, place: Option<RowPlace>) -> ReadRows {
        self.after = place;
        self
    }

    /// At most so many rows (at least one).
    #[must_use]
    pub fn limit(mut self, rows: usize) -> ReadRows {
        self.limit = rows.max(1);
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
    /// The newest version that ends at or before the moment; nothing when there is none: there was
    /// no row.
    pub base: Option<RowVersion>,
    /// When the moment lies inside the interval of the next version: where that begins. What lies
    /// between there and the moment must be folded onto the base.
    pub refold_after: Option<Position>,
}

/// Rows and their history: a part of a [`ViewStore`](crate::ViewStore).
///
/// Keys, entries and names are any text, compared byte by byte. A page of rows ends at its limit or
/// after [`PAGE_BYTES_MAX`](crate::PAGE_BYTES_MAX) bytes of values.
#[async_trait]
pub trait RowStore: fmt::Debug + Send + Sync + 'static {
    /// Takes a step.
    ///
    /// What fences is the epoch alone: a step under a lease that has ended, and that was not taken
    /// since, is taken.
    ///
    /// # Errors
    ///
    /// [`CommitError::Fenced`] when another worker took the slot or the lease was given back,
    /// [`CommitError::Gone`], [`CommitError::Invalid`] for [what can never
    /// succeed](ViewCommit::check) and, when nothing else refuses it, for a version of a key
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

    /// Keys in the range, in order, that have a version or a row; at most `limit`, after `after`.
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

    /// The versions of a key that end in the range of positions (after the first, up to and with
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

    /// Keys with a version that ends in the range of positions (after the first, up to and with
    /// the second), in order; at most `limit`, after `after`.
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

    /// The positions of the events that touched a key, in order: up to and with `up_to`, after
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

    /// What a slot keeps for itself, in the order of the bytes of the keys: after the key `after`,
    /// until keys and values together have `bytes_max` bytes or more. The first entry is given
    /// however large it is, so an empty page is the end.
    ///
    /// # Errors
    ///
    /// [`CommitError::Gone`]
    async fn read_state(
        &self,
        generation: GenerationId,
        slot: u16,
        after: Option<&[u8]>,
        bytes_max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, CommitError>;

    /// Forgets the past before `since`: what is needed to answer for `since` itself and later
    /// stays, and [`Generation::history_since`](crate::Generation::history_since) says so. A key
    /// that had been removed by then, and has not come back, is forgotten. Which events touched a
    /// key stays: a question about event time folds them from the first one on.
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
}
