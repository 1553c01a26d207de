//! Reading a state: now, at a version, as it was known at a moment, as it had happened by a time.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::ops::Deref;
use std::pin::Pin;

use chrono::{DateTime, Utc};

use super::cache::turn_of;
use super::fold::{CachedState, LoadError, catch_up, from_snapshot};
use super::{Aggregate, AggregateRef};
use crate::contain::net;
use crate::event::RecordedEvent;
use crate::moment::{Instant, Moment, When};
use crate::position::{Partition, Position, Token};
use crate::read::ReadStream;
use crate::store::Store;
use crate::stream::{StreamId, Version};
use crate::stream_state::{Deletion, Status};

/// A state that was read, with its version and position. Derefs to the state.
///
/// ```
/// # use annals_core::{Aggregate, Loaded};
/// # fn example<A: Aggregate>(account: Loaded<A>) {
/// if account.exists() {
///     println!("version {} of a log that goes to {}", account.version(), account.position());
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded<A> {
    state: A,
    exists: bool,
    version: Version,
    position: Position,
    token: Token,
}

impl<A> Loaded<A> {
    /// Whether the aggregate existed: something had happened to it, and it was not deleted.
    pub const fn exists(&self) -> bool {
        self.exists
    }

    /// The version of the last event that was read.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The position of the partition's log that this is the state as of: what a moment resolved to,
    /// or the head.
    pub const fn position(&self) -> Position {
        self.position
    }

    /// What a reader must have reached to know as much.
    pub const fn token(&self) -> &Token {
        &self.token
    }

    /// The state itself.
    pub fn into_state(self) -> A {
        self.state
    }
}

impl<A> Deref for Loaded<A> {
    type Target = A;

    fn deref(&self) -> &A {
        &self.state
    }
}

/// A state about to be read. Without more: the present one.
///
/// ```
/// # use annals_core::{Aggregate, AggregateRef, LoadError};
/// # async fn example<A: Aggregate>(account: AggregateRef<A>) -> Result<(), LoadError> {
/// let now = account.load().await?;
/// let first = account.load().at_version(1).await?;
/// let known_then = account.load().as_of("2026-03-31T00:00:00Z").await?;
/// let happened_by_then = account.load().valid_at("2026-03-31T00:00:00Z").await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing happens until it is awaited"]
pub struct Load<'a, A> {
    of: &'a AggregateRef<A>,
    until: Until,
    valid_at: Option<Instant>,
}

#[derive(Clone, Debug)]
enum Until {
    Tail,
    Version(Version),
    Moment(Moment),
}

impl<'a, A: Aggregate> Load<'a, A> {
    pub(super) fn new(of: &'a AggregateRef<A>) -> Load<'a, A> {
        Load {
            of,
            until: Until::Tail,
            valid_at: None,
        }
    }

    /// Just after its event `version`; 0 is before the first. An error when it has not come so far.
    pub fn at_version(mut self, version: impl Into<Version>) -> Load<'a, A> {
        self.until = Until::Version(version.into());
        self
    }

    /// As it was known at a moment: just after a position of the log, or at a recorded time.
    pub fn as_of(mut self, moment: impl Into<Moment>) -> Load<'a, A> {
        self.until = Until::Moment(moment.into());
        self
    }

    /// Only what had happened by a time of the world (`occurred_at`), the time itself included.
    ///
    /// Together with [`as_of`](Load::as_of) it answers "what did we believe on Tuesday about
    /// Monday".
    pub fn valid_at(mut self, time: impl Into<Instant>) -> Load<'a, A> {
        self.valid_at = Some(time.into());
        self
    }

    async fn load(self) -> Result<Loaded<A>, LoadError> {
        let store = &**self.of.db().store();
        let stream = self.of.stream()?;
        let valid_at = self.valid_at.map(|time| time.0).transpose()?;
        if let (Until::Tail, None) = (&self.until, valid_at) {
            let held = catch_up(store, stream, None).await?;
            return Ok(loaded(store, held));
        }
        let partition = store.partition_of(stream);
        loop {
            let past = resolve(store, stream, partition, self.until.clone()).await?;
            // Nothing is returned when events were archived while they were read: read again.
            if let Some(mut held) = fold_until(store, stream, &past, valid_at).await? {
                held.partition = partition;
                held.position = past.position;
                return Ok(loaded(store, held));
            }
        }
    }
}

/// Looks at the present state through the cache.
pub(super) async fn query<A: Aggregate, T>(
    of: &AggregateRef<A>,
    look: impl FnOnce(&A) -> T + Send,
) -> Result<T, LoadError> {
    let db = of.db();
    let stream = of.stream()?;
    let mut turn = db.cache().turn(turn_of::<A>(stream)).await;
    let held = turn.take::<CachedState<A>>();
    let held = catch_up(&**db.store(), stream, held).await?;
    let answer = net(
        || format!("what looked at the state of `{stream}`"),
        || look(&held.state),
    )?;
    turn.put(held);
    Ok(answer)
}

fn loaded<A: Aggregate>(store: &dyn Store, held: CachedState<A>) -> Loaded<A> {
    let token = Token::new(store.id()).with(held.partition, held.position);
    let exists = held.status == Status::Active;
    Loaded {
        state: held.state,
        exists,
        version: held.version,
        position: held.position,
        token,
    }
}

/// Where the past that was asked for ends.
struct Past {
    /// The last version to fold.
    version: Version,
    /// The last position to fold.
    position: Position,
    /// Deletions by then hide all events up to this version.
    emptied: Version,
    archived_before: Version,
}

async fn resolve(
    store: &dyn Store,
    stream: &StreamId,
    partition: Partition,
    until: Until,
) -> Result<Past, LoadError> {
    // One read, so that the state of the stream and the head belong to one moment.
    let now = store
        .read_stream(ReadStream::of(stream.clone()).to(Version::NONE))
        .await?;
    let state = now.state;
    let head = now.head;
    let archived_before = state.archived_before;
    let past = |version, position, counts: &dyn Fn(&Deletion) -> bool| Past {
        version,
        position,
        emptied: state.emptied_at(counts),
        archived_before,
    };
    match until {
        Until::Tail => Ok(past(state.version, head, &|_| true)),
        Until::Version(asked) if asked > state.version => Err(LoadError::VersionPastEnd {
            stream: stream.clone(),
            asked,
            version: state.version,
        }),
        // A deletion follows the last event that it hides.
        Until::Version(asked) => {
            let position = position_of(store, stream, asked).await?;
            Ok(past(asked, position, &|deletion| deletion.version < asked))
        }
        Until::Moment(moment) => {
            let when = moment.0?;
            let position = match when {
                When::Position(position) => position,
                When::Recorded(time) => store.position_at(partition, time).await?,
            };
            let position = position.min(head);
            let version =
                last_version_by(store, stream, position, archived_before, state.version).await?;
            Ok(past(version, position, &|deletion| match when {
                // It happened after the position of the head then, and before the next event.
                When::Position(asked) => deletion.position < asked,
                When::Recorded(time) => deletion.recorded_at <= time,
            }))
        }
    }
}

/// The position of an event; the start of the log, when there is none.
async fn position_of(
    store: &dyn Store,
    stream: &StreamId,
    version: Version,
) -> Result<Position, LoadError> {
    let read = ReadStream::of(stream.clone())
        .from(version)
        .to(version)
        .everything()
        .limit(1);
    Ok(store
        .read_stream(read)
        .await?
        .events
        .first()
        .map_or(Position::START, |event| event.position))
}

/// The last version of the stream at or before `position`. Positions ascend with
/// versions: a binary search.
async fn last_version_by(
    store: &dyn Store,
    stream: &StreamId,
    position: Position,
    archived_before: Version,
    version: Version,
) -> Result<Version, LoadError> {
    let mut known = archived_before.get().saturating_sub(1);
    let mut above = version.get() + 1;
    // Most questions are about the present or a short stream; reading the end answers the first
    // kind.
    let mut middle = version.get();
    while known + 1 < above {
        let found = position_of(store, stream, Version::new(middle)).await?;
        if found <= position {
            known = middle;
        } else {
            above = middle;
        }
        middle = known.midpoint(above);
    }
    Ok(Version::new(known))
}

/// Folds the events of the query; nothing, when some were archived while they were read.
async fn fold_until<A: Aggregate>(
    store: &dyn Store,
    stream: &StreamId,
    past: &Past,
    valid_at: Option<DateTime<Utc>>,
) -> Result<Option<CachedState<A>>, LoadError> {
    let archived = || LoadError::Archived {
        stream: stream.clone(),
        first: past.archived_before,
    };
    // Whether the fold starts from a summary.
    let summarised = past.archived_before > past.emptied.next();
    if summarised && past.version > past.emptied && past.version < past.archived_before {
        return Err(archived());
    }
    let counts = |event: &RecordedEvent| valid_at.is_none_or(|time| event.occurred_at <= time);
    let mut held = CachedState::emptied_at(past.emptied)?;
    let mut anything_happened = false;
    if valid_at.is_none() {
        let usable = past.emptied.next().max(past.archived_before);
        if let Some(snapshot) = from_snapshot(store, stream, past.version)
            .await
            .filter(|found| found.version >= usable)
        {
            held = snapshot;
            anything_happened = true;
        }
    }
    let mut read = ReadStream::of(stream.clone())
        .from(held.version.next())
        .to(past.version)
        .everything();
    while held.version < past.version {
        let page = store.read_stream(read.clone()).await?;
        if page.state.archived_before > past.archived_before {
            return Ok(None);
        }
        // A summary tells what had happened by the time of its making, and nothing about earlier
        // times.
        let at_summary =
            |event: &&RecordedEvent| summarised && event.version == past.archived_before;
        if page
            .events
            .first()
            .filter(at_summary)
            .is_some_and(|summary| !counts(summary))
        {
            return Err(archived());
        }
        anything_happened |= held.apply(&page.events, counts)? > 0;
        match page.next {
            Some(next) => read = read.resume(next),
            None => break,
        }
    }
    held.version = past.version;
    held.status = if anything_happened {
        Status::Active
    } else {
        Status::Absent
    };
    Ok(Some(held))
}

impl<'a, A: Aggregate> IntoFuture for Load<'a, A> {
    type Output = Result<Loaded<A>, LoadError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.load())
    }
}

impl<A> fmt::Debug for Load<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Load")
            .field("of", self.of)
            .field("until", &self.until)
            .field("valid_at", &self.valid_at)
            .finish()
    }
}
