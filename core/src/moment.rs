//! Moments to ask about the past: a position of the log, or a recorded time.

use chrono::{DateTime, Utc};

use crate::aggregate::Committed;
use crate::append::Appended;
use crate::error::{Invalid, StoreError};
use crate::event::to_microseconds;
use crate::position::{Partition, Position};
use crate::store::Store;

/// A moment of the log: just after an event was committed, or a time by which it was.
///
/// A text is taken as an RFC 3339 time; one that is none is an error when the question is asked.
///
/// ```
/// use annals_core::{Moment, Position};
///
/// let _: Moment = Position::new(42).into();
/// let _: Moment = 42.into();
/// let _: Moment = "2026-03-31T00:00:00Z".into();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment(pub(crate) Result<When, Invalid>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Position(Position),
    Recorded(DateTime<Utc>),
}

impl Moment {
    /// The position of a partition that it means: the position itself, at most the head, or the
    /// last one recorded by the time.
    ///
    /// # Errors
    ///
    /// [`Failure::Invalid`](crate::Failure) for a text that is no time; else what the store says.
    ///
    /// ```
    /// # async fn example(store: &dyn annals_core::Store) -> Result<(), annals_core::StoreError> {
    /// use annals_core::{Moment, Partition};
    ///
    /// let position = Moment::from("2026-03-31T00:00:00Z").resolve(store, Partition(0)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn resolve(
        &self,
        store: &dyn Store,
        partition: Partition,
    ) -> Result<Position, StoreError> {
        match self.0.clone()? {
            When::Position(position) => Ok(position.min(store.head(partition).await?.visible)),
            When::Recorded(time) => store.position_at(partition, time).await,
        }
    }
}

impl From<Position> for Moment {
    fn from(position: Position) -> Moment {
        Moment(Ok(When::Position(position)))
    }
}

/// Just after the event at this position.
impl From<u64> for Moment {
    fn from(position: u64) -> Moment {
        Position::new(position).into()
    }
}

impl From<DateTime<Utc>> for Moment {
    fn from(recorded: DateTime<Utc>) -> Moment {
        Moment(Ok(When::Recorded(to_microseconds(recorded))))
    }
}

impl From<&str> for Moment {
    fn from(text: &str) -> Moment {
        Moment(instant(text).map(When::Recorded))
    }
}

impl From<&Appended> for Moment {
    fn from(appended: &Appended) -> Moment {
        appended.last().position.into()
    }
}

/// Just after the command; when it had nothing to do, as of what it looked at.
impl From<&Committed> for Moment {
    fn from(done: &Committed) -> Moment {
        done.token()
            .positions()
            .map(|(_, position)| position)
            .max()
            .unwrap_or_default()
            .into()
    }
}

/// A time of the world: when something happened.
///
/// ```
/// use annals_core::{Instant, chrono::DateTime};
///
/// let _: Instant = "2026-03-31T00:00:00Z".into();
/// let _: Instant = DateTime::UNIX_EPOCH.into();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instant(pub(crate) Result<DateTime<Utc>, Invalid>);

impl Instant {
    /// The time.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for a text that is no time.
    pub fn time(&self) -> Result<DateTime<Utc>, Invalid> {
        self.0.clone()
    }
}

impl From<DateTime<Utc>> for Instant {
    fn from(time: DateTime<Utc>) -> Instant {
        Instant(Ok(to_microseconds(time)))
    }
}

impl From<&str> for Instant {
    fn from(text: &str) -> Instant {
        Instant(instant(text))
    }
}

fn instant(text: &str) -> Result<DateTime<Utc>, Invalid> {
    let parsed = DateTime::parse_from_rfc3339(text).map_err(|_| {
        Invalid::new(format!(
            "`{}` is no RFC 3339 time such as 2026-03-31T00:00:00Z",
            text.escape_debug()
        ))
    })?;
    Ok(to_microseconds(parsed.to_utc()))
}
