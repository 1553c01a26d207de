//! Where events go that leave the log, and how far they have come there.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::error::StoreError;
use crate::event::EventId;
use crate::position::{LogId, Partition, Position};

/// How far one partition of a log was taken. An outlet keeps it together with what it took.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct OutletMark {
    /// The log that was read.
    pub log: LogId,
    /// The partition of that log.
    pub partition: Partition,
    /// Everything at or before this position was taken.
    pub position: Position,
    /// The event at that position, when there is one: tells a restored log from the one that was
    /// read.
    pub event: Option<EventId>,
    /// What the owner of the outlet keeps beside it.
    pub note: Bytes,
}

/// One thing that leaves a log, in bytes: an event, a row of a view, a result.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Outgoing {
    /// Where it goes: the name of a topic or of a stream.
    pub to: Arc<str>,
    /// What has the same key keeps its order.
    pub key: Bytes,
    /// The content; nothing says that what had this key is gone.
    pub payload: Option<Bytes>,
    /// What is said about it, names in the order in which they are written.
    pub headers: Vec<(Cow<'static, str>, Bytes)>,
    /// When it happened: not when it is published, which may be long after.
    pub occurred_at: DateTime<Utc>,
}

/// Takes batches, each together with a mark, all of a batch or nothing.
///
/// This is what makes publishing exact: the mark is in the same transaction as the batch, so what
/// was published is exactly what lies at or before the last mark. Opening the outlet again
/// fences its earlier owner first, reads the mark, and continues after it.
///
/// ```
/// use annals_core::{Outgoing, Outlet, OutletError, OutletMark};
///
/// async fn publish(outlet: &mut dyn Outlet, batch: Vec<Outgoing>, mark: OutletMark) {
///     match outlet.take(batch, mark).await {
///         Ok(()) => println!("published"),
///         // Whether it was published is in the marks.
///         Err(OutletError::Undecided(_)) => drop(outlet.open().await),
///         // Of this batch alone: others may be taken.
///         Err(OutletError::Refused(why)) => println!("never taken as it is: {why}"),
///         // Of every batch, until that is mended.
///         Err(OutletError::Destination(why)) => eprintln!("nothing goes there: {why}"),
///         Err(error) => eprintln!("{error}"),
///     }
/// }
/// ```
#[async_trait]
pub trait Outlet: fmt::Debug + Send {
    /// Fences the earlier owner of this outlet, then returns the last mark of each partition.
    ///
    /// # Errors
    ///
    /// [`OutletError::Store`] when what is on the other side does not answer.
    async fn open(&mut self) -> Result<Vec<OutletMark>, OutletError>;

    /// Takes the batch and the mark together or not at all.
    ///
    /// # Errors
    ///
    /// [`OutletError::Undecided`] when the answer was lost: [`open`](Outlet::open) again, and
    /// continue after the mark that it returns. [`OutletError::Refused`] when the batch can never
    /// be taken as it is, and [`OutletError::Destination`] when nothing is taken where it goes.
    async fn take(&mut self, batch: Vec<Outgoing>, mark: OutletMark) -> Result<(), OutletError>;

    /// The last records of a destination, of any writer: they tell an outlet that has lost its
    /// marks from one that begins. Nothing where that cannot be seen.
    ///
    /// # Errors
    ///
    /// [`OutletError::Store`] when what is on the other side does not answer.
    async fn last_in(&mut self, to: &str) -> Result<Vec<Outgoing>, OutletError> {
        let _ = to;
        Ok(Vec::new())
    }
}

/// Why an outlet did not take something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutletError {
    /// It may have been taken or not; opening the outlet again decides it.
    #[error("it is unknown whether the batch was taken")]
    Undecided(#[source] StoreError),
    /// It was not taken, and never will be as it is. Other batches may be.
    #[error("{0}")]
    Refused(String),
    /// It was not taken, because of where it goes and not because of what it is: the destination is
    /// missing, was recreated, or may not be written to. So would be any other batch, and this one
    /// is taken once that is mended: [`open`](Outlet::open) again.
    #[error("{0}")]
    Destination(String),
    /// The other side could not do what was asked; nothing was taken.
    #[error(transparent)]
    Store(#[from] StoreError),
}
