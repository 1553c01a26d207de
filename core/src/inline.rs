//! Inline read models: rows that are written in the transaction of an append.
//!
//! A row of an inline view is folded from one stream and **is at** a version of it: everything
//! up to there is in the row. That is what keeps appends, which bring rows along, and workers,
//! which bring up the rows of appends without them, from folding an event twice.

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::append::Placed;
use crate::error::Invalid;
use crate::generation::{Generation, GenerationId, History};
use crate::position::Position;
use crate::stream::{StreamId, Version};
use crate::view_commit::{CommitError, RowVersion, short_enough};
use crate::view_store::ViewStore;

/// A row of an inline view, folded from everything in its stream with the events of the append that
/// it is written with.
///
/// ```
/// use annals_core::{Append, Expected, GenerationId, NewEvent, InlineRow, StreamId, Version};
///
/// let stream = StreamId::new("account-alice")?;
/// let mut append = Append::new(stream.clone(), [NewEvent::json("account.deposited", "5")]);
/// append.expectations[0].1 = Expected::ActiveAt(Version::new(3));
/// let mut row = InlineRow::new(GenerationId(1), stream, "alice", Version::new(3));
/// row.value = Some("12".into());
/// append.rows.push(row);
/// # Ok::<_, annals_core::Invalid>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InlineRow {
    /// The generation.
    pub generation: GenerationId,
    /// The stream that it is folded from.
    pub stream: StreamId,
    /// Its key.
    pub key: String,
    /// The version of the row before. When it is another one by the time of the append, the row is
    /// skipped.
    pub from: Version,
    /// Its value, or nothing when there is no row.
    pub value: Option<Bytes>,
    /// One entry for each of the generation's indexes, in their order; none when there is no row.
    pub indexed: Vec<String>,
    /// What the row was after each event that touched it, in the order of the append. Empty when
    /// the generation keeps only the present.
    pub past: Vec<InlineRowVersion>,
}

/// What a row is after an event of its append. Where that event is, is
/// known once it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct InlineRowVersion {
    /// The index of the event in the append.
    pub event: usize,
    /// The value, or nothing when there is no row.
    pub value: Option<Bytes>,
}

impl InlineRow {
    /// A row that there is not, and whose version was `from`.
    pub fn new(
        generation: GenerationId,
        stream: StreamId,
        key: impl Into<String>,
        from: Version,
    ) -> InlineRow {
        let key = key.into();
        let indexed = Vec::new();
        let past = Vec::new();
        InlineRow {
            generation,
            stream,
            key,
            from,
            value: None,
            indexed,
            past,
        }
    }

    /// Refuses what can never be a row of this generation.
    ///
    /// # Errors
    ///
    /// A generation that is not inline, a wrong number of entries, a past that it does not keep.
    ///
    /// ```
    /// use annals_core::{
    ///     Clock, Generation, GenerationId, GenerationSpec, InlineRow, LogId, Phase, Position,
    ///     StreamId, SystemClock, Version,
    /// };
    ///
    /// let spec = GenerationSpec::new("balances", 1, LogId::random());
    /// let generation = Generation::new(
    ///     GenerationId(1), spec, Phase::Live, SystemClock.now(), Position::MAX,
    /// );
    /// let row = InlineRow::new(
    ///     generation.id, StreamId::new("account-alice")?, "alice", Version::NONE,
    /// );
    /// assert_eq!(
    ///     row.check(&generation).unwrap_err().to_string(),
    ///     "view `balances` is not inline, so no row is written with an append",
    /// );
    /// # Ok::<_, annals_core::Invalid>(())
    /// ```
    pub fn check(&self, generation: &Generation) -> Result<(), Invalid> {
        let spec = &generation.spec;
        if !spec.inline {
            return Err(Invalid::new(format!(
                "view `{}` is not inline, so no row is written with an append",
                spec.view
            )));
        }
        let wanted = if self.value.is_some() {
            spec.indexes.len()
        } else {
            0
        };
        if self.indexed.len() != wanted {
            let key = self.key.escape_debug();
            let found = self.indexed.len();
            return Err(Invalid::new(format!(
                "key `{key}` has {found} entries for indexes, it needs {wanted}"
            )));
        }
        if spec.history == History::None && !self.past.is_empty() {
            return Err(Invalid::new(format!(
                "view `{}` keeps no history",
                spec.view
            )));
        }
        Ok(())
    }

    /// Refuses what can never be a row of any generation.
    pub(crate) fn check_itself(&self) -> Result<(), Invalid> {
        short_enough("key", &self.key)?;
        self.indexed
            .iter()
            .try_for_each(|entry| short_enough("entry", entry))
    }

    /// What is kept of the past, now that the positions of the append are known.
    pub fn versions(&self, placed: &[Placed], recorded_at: DateTime<Utc>) -> Vec<RowVersion> {
        let version = |past: &InlineRowVersion| {
            let up_to = placed.get(past.event)?.position;
            let key = self.key.clone();
            let value = past.value.clone();
            Some(RowVersion {
                key,
                after: up_to.minus(1),
                up_to,
                recorded_at,
                value,
            })
        };
        self.past.iter().filter_map(version).collect()
    }

    /// The positions of the events that touched the row.
    pub fn touched(&self, placed: &[Placed]) -> Vec<Position> {
        self.past
            .iter()
            .filter_map(|past| placed.get(past.event))
            .map(|placed| placed.position)
            .collect()
    }

    /// Bytes that it holds.
    pub fn size_bytes(&self) -> usize {
        let of = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
        let past: usize = self.past.iter().map(|past| of(&past.value)).sum();
        self.key.len()
            + of(&self.value)
            + past
            + self.indexed.iter().map(String::len).sum::<usize>()
    }
}

/// How far a step of a worker takes a row of an inline view.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct RowAdvance {
    /// The key.
    pub key: String,
    /// The version of the row when it was read.
    pub from: Version,
    /// The version in its stream of the last event that was folded onto it.
    pub to: Version,
}

impl RowAdvance {
    /// What becomes of the step's changes of the row, given its version now.
    ///
    /// ```
    /// use annals_core::{RowAdvance, RowOutcome, Version};
    ///
    /// let step = RowAdvance { key: "alice".into(), from: Version::new(2), to: Version::new(4) };
    /// assert_eq!(step.against(Version::new(2)), RowOutcome::Apply);
    /// assert_eq!(step.against(Version::new(5)), RowOutcome::AlreadyApplied);
    /// assert_eq!(step.against(Version::new(3)), RowOutcome::Fenced);
    /// ```
    pub fn against(&self, version: Version) -> RowOutcome {
        match version {
            version if version == self.from => RowOutcome::Apply,
            version if version >= self.to => RowOutcome::AlreadyApplied,
            _ => RowOutcome::Fenced,
        }
    }
}

/// What becomes of what a step of a worker does to a row of an inline view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum RowOutcome {
    /// The row is at the version at which it was read: it is written.
    Apply,
    /// Appends brought the row so far or farther: the step says nothing of it that is not there
    /// already.
    AlreadyApplied,
    /// The row moved, but not so far: the whole step is refused.
    Fenced,
}

/// A row of an inline view, and its version.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct VersionedRow {
    /// The key.
    pub key: String,
    /// The value, or nothing when there is no row.
    pub value: Option<Bytes>,
    /// The version of its stream up to which everything is folded.
    pub at: Version,
}

/// A view store that is in the database of the log, so that rows are written with appends.
///
/// - **Together.** The [rows of an append](crate::Append::rows) are written in its
///   transaction, or not at all: a refused append and a repeated one write none.
/// - **In order.** A row is written only at the version at which it was read for its fold; else
///   it is skipped, and the append is made all the same. Rows of a generation that was dropped are
///   skipped too. What was skipped is written later by the worker of the view.
/// - **Once.** A worker's step over an event that a row has already leaves that row [as it
///   is](RowAdvance::against).
///
/// A store without this trait refuses appends that carry rows.
#[async_trait]
pub trait InlineViews: ViewStore {
    /// Rows of these keys and their versions, in the order of the keys, each once, all of one
    /// moment. Keys that were never written have no row in the answer: they are at version 0.
    ///
    /// # Errors
    ///
    /// [`CommitError::Gone`]
    async fn read_versioned(
        &self,
        generation: GenerationId,
        keys: &[String],
    ) -> Result<Vec<VersionedRow>, CommitError>;
}
