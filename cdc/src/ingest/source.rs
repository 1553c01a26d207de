//! What an ingest asks of a source.

use std::collections::BTreeMap;

use annals_core::{Failure, StoreError};
use annals_runner::WorkError;
use async_trait::async_trait;
use tokio::sync::Notify;

use super::mark::{EqualRecords, Followed, Mark, Partial, Resume, SnapshotMark};
use super::status::SourceStatus;
use crate::record::Record;
use crate::schema::TableName;

/// Something whose changes are taken in.
#[async_trait]
pub trait Source: Send + Sync {
    /// Begins after what the last mark says, once it is sure that it can. Without a mark nothing
    /// was taken yet. After where one [resumes](Mark::resume), transactions up to its
    /// [part](Mark::partial) are in, too, and are not given again.
    ///
    /// # Errors
    ///
    /// [`SourceError`], which says whether trying again may help.
    async fn begin(&mut self, ingest: &str, last: Option<&Mark>) -> Result<(), SourceError>;

    /// What comes next: whole transactions, as many as are there, or a part of a large one. Waits
    /// for it; an [empty](Chunk::is_empty) one says that the status is another. What was returned
    /// before is returned again after the next [`begin`](Source::begin) unless a mark holds it.
    ///
    /// # Errors
    ///
    /// As [`begin`](Source::begin).
    async fn next(&mut self) -> Result<Chunk, SourceError>;

    /// As [`next`](Source::next), while what was returned before is being appended. Before
    /// `answered` is notified it may wait for more to come; afterwards it returns soon, with an
    /// empty chunk when nothing is there, so that it is told what is durable. A source to which
    /// that makes no difference does as in [`next`](Source::next).
    ///
    /// # Errors
    ///
    /// As [`begin`](Source::begin).
    async fn next_until(&mut self, _answered: &Notify) -> Result<Chunk, SourceError> {
        self.next().await
    }

    /// Everything up to here is durable in the log. May be late, never early.
    ///
    /// # Errors
    ///
    /// As [`begin`](Source::begin).
    async fn confirm(&mut self, up_to: &Mark) -> Result<(), SourceError>;

    /// Where one can go on when nothing is to be taken: for the last mark before a clean stop.
    fn idle_at(&self) -> Option<Resume> {
        None
    }

    /// Ends the session, after what was confirmed has been sent.
    async fn end(&mut self) {}

    /// Ends the session at once, whatever it was doing: the lease was lost, and another process may
    /// wait for what the session holds.
    fn abandon(&mut self) {}

    /// A snapshot of everything comes next, whatever the last mark says: an operator asked for it.
    fn resync(&mut self) {}

    /// Whether it can [read everything again](Source::resync), and
    /// [some tables](Source::read_again).
    fn can_resync(&self) -> bool {
        false
    }

    /// The tables that it was told to take in; none, where it was not told.
    fn tables(&self) -> Vec<TableName> {
        Vec::new()
    }

    /// These tables are read again while the stream goes on, as [`ReadAgain`] says: operators asked
    /// for it. It is said before each [`begin`](Source::begin), until it was done.
    fn read_again(&mut self, _tables: &[TableName]) {}

    /// The tables that are read again are not, for this reason: it goes on with the stream, and
    /// warns in its [status](Source::status).
    fn stops_reading_again(&mut self, _why: &str) {}

    /// Whether operators name what it gives by [messages](crate::At::message).
    fn has_messages(&self) -> bool {
        false
    }

    /// Messages that are not taken in, as (partition, position): operators decided so. It is said
    /// before each [`begin`](Source::begin).
    fn skip_messages(&mut self, _messages: &[(u32, u64)]) {}

    /// What operators want to know of it.
    fn status(&self) -> SourceStatus {
        SourceStatus::default()
    }
}

/// What goes into one append.
///
/// ```
/// let idle = annals_cdc::Chunk::default();
/// assert!(idle.records.is_empty());
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Chunk {
    /// Which source it is from.
    pub source: std::sync::Arc<str>,
    /// The records, in order.
    pub records: Vec<Record>,
    /// Where one goes on after it; nothing in a snapshot.
    pub resume: Option<Resume>,
    /// Of a transaction in several chunks: what is in with this one.
    pub partial: Option<Partial>,
    /// The transactions that end in it.
    pub transactions: u64,
    /// Whether the source may have said some of it before: what is known is skipped.
    pub may_repeat: bool,
    /// The last record of each partition, when others may be equal to it.
    pub(crate) equal: EqualRecords,
    /// What tells the log or the file that it is of from another one in its place.
    pub(crate) followed: Option<Followed>,
    /// Of a snapshot: where it is.
    pub snapshot: Option<Snapshotting>,
    /// Of tables that are read again beside the stream.
    pub again: Option<ReadAgain>,
}

impl Chunk {
    /// Records that the source may have given before, each a transaction of its own, and up to
    /// where it has taken each partition.
    pub(crate) fn repeatable(
        source: String,
        records: Vec<Record>,
        taken: BTreeMap<u32, u64>,
    ) -> Chunk {
        Chunk {
            source: source.into(),
            transactions: records.len() as u64,
            records,
            resume: Some(Resume::Positions(taken)),
            may_repeat: true,
            ..Chunk::default()
        }
    }

    /// Whether there is nothing to take in: the source has something to say of
    /// [itself](Source::status).
    ///
    /// ```
    /// assert!(annals_cdc::Chunk::default().is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        let is_news = self.resume.is_some()
            || self.partial.is_some()
            || self.snapshot.is_some()
            || self.again.is_some();
        self.records.is_empty() && !is_news
    }
}

/// A part of a snapshot.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Snapshotting {
    /// It is about to be taken of these tables.
    Begins(Vec<TableName>),
    /// It has come so far.
    Rows(SnapshotMark),
    /// All rows were given.
    Complete,
}

/// A part of a copy of some tables that is taken beside the stream.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ReadAgain {
    /// It shows these tables at this LSN.
    Begins(crate::lsn::Lsn, Vec<TableName>),
    /// Some rows. Everything that was committed before its LSN was given.
    Rows,
    /// All rows were given.
    Complete,
}

/// Why a source does not go on.
///
/// ```
/// use annals_cdc::{SourceError, SourceFailure};
///
/// let error = SourceError::new(SourceFailure::Retry, "the connection was lost");
/// assert_eq!(error.failure(), SourceFailure::Retry);
/// ```
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct SourceError {
    failure: SourceFailure,
    what: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What can be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SourceFailure {
    /// Trying again may help.
    Retry,
    /// An operator has to do something.
    Stop,
}

impl SourceError {
    /// With what is wrong, lowercase and without a full stop.
    pub fn new(failure: SourceFailure, what: impl Into<String>) -> SourceError {
        SourceError {
            failure,
            what: what.into(),
            source: None,
        }
    }

    /// The same error with its cause.
    #[must_use]
    pub fn because(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> SourceError {
        self.source = Some(source.into());
        self
    }

    /// What can be done about it.
    pub const fn failure(&self) -> SourceFailure {
        self.failure
    }
}

impl From<SourceError> for WorkError {
    fn from(error: SourceError) -> WorkError {
        match error.failure {
            SourceFailure::Stop => WorkError::Stopped(annals_core::with_causes(&error).to_string()),
            SourceFailure::Retry => {
                let unavailable = StoreError::new(Failure::Unavailable, error.what);
                match error.source {
                    Some(source) => unavailable.because(source).into(),
                    None => unavailable.into(),
                }
            }
        }
    }
}
