//! The local copy of a log that is kept elsewhere: each write transaction is recorded there before
//! it is committed here.

use std::fmt;
use std::sync::Arc;

use annals_core::{
    Append, AppendError, ChangeStream, Clock, Digest, EventId, Failure, Limits, NewEvent, Placed,
    Position, StoreError, StreamId, Version, with_causes,
};
use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension};

use crate::change::done_change;
use crate::error::StoreFault;
use crate::known::known;
use crate::request::{Encoded, Request};
use crate::statements as sql;
use crate::store::SqliteStore;
use crate::streams::number;
use crate::write_tx::{Refused, Stop, WriteTx};

/// One append as it is recorded.
///
/// ```
/// # fn example(append: &annals_sqlite::ReplicaAppend) {
/// println!("{} events of {} from {} on", append.events.len(), append.stream, append.version);
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::exhaustive_structs)]
pub struct ReplicaAppend {
    /// The stream.
    pub stream: StreamId,
    /// The version of its first event.
    pub version: Version,
    /// The position of its first event; the others follow without a hole.
    pub position: Position,
    /// When it was recorded.
    pub recorded_at: DateTime<Utc>,
    /// Its events, each with what its content is compared by as its
    /// [own digest](NewEvent::own_digest).
    pub events: Vec<NewEvent>,
}

/// What a log that is copied consists of.
///
/// ```
/// let note = annals_sqlite::ReplicaEntry::Note("owned by a".into());
/// assert!(matches!(note, annals_sqlite::ReplicaEntry::Note(_)));
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ReplicaEntry {
    /// Events that were appended.
    Append(ReplicaAppend),
    /// A stream that was changed.
    Change {
        /// The change.
        change: ChangeStream,
        /// When it was recorded.
        recorded_at: DateTime<Utc>,
    },
    /// A text that is no part of the log; the last one is kept.
    Note(String),
}

/// Where the log of a replica is kept.
///
/// It belongs to the replica's writer thread, which calls it and drops it: both may block.
///
/// ```
/// use annals_core::StoreError;
/// use annals_sqlite::{ReplicaEntry, Upstream};
///
/// #[derive(Debug, Default)]
/// struct Counting(u64);
///
/// impl Upstream for Counting {
///     fn record(&mut self, entries: &[ReplicaEntry]) -> Result<u64, StoreError> {
///         self.0 += entries.len() as u64;
///         Ok(self.0)
///     }
/// }
/// ```
pub trait Upstream: fmt::Debug + Send + 'static {
    /// Records everything or nothing, for good, and answers with the cursor after it. The replica
    /// commits the same only after that.
    ///
    /// # Errors
    ///
    /// When it was not recorded, or may not have been: then the replica drops its upstream, and
    /// what was asked for ends as [`AppendError::Unknown`].
    fn record(&mut self, entries: &[ReplicaEntry]) -> Result<u64, StoreError>;
}

/// How far a replica has copied its log.
///
/// ```
/// # use annals_core::StoreError;
/// # use annals_sqlite::SqliteStore;
/// # async fn example(replica: &SqliteStore) -> Result<(), StoreError> {
/// let place = replica.replica_place().await?;
/// println!("copied before {}, {:?}", place.cursor, place.note);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct ReplicaPlace {
    /// The cursor after what was applied or recorded last; 0 at first.
    pub cursor: u64,
    /// The last note.
    pub note: Option<String>,
}

/// What the writer knows of its upstream.
#[derive(Debug, Default)]
pub(crate) struct Replica {
    /// Nothing while the replica follows.
    upstream: Option<Box<dyn Upstream>>,
    /// What the open transaction has written, in order.
    written: Vec<ReplicaEntry>,
    is_applying: bool,
}

/// Why a transaction was not recorded upstream.
pub(crate) enum Unrecorded {
    /// Nothing was tried: the replica only follows.
    Follows,
    /// It may be there.
    Unknown(StoreFault),
}

impl Replica {
    /// A transaction begins.
    pub(crate) fn begin(&mut self) {
        self.written.clear();
        self.is_applying = false;
    }

    /// How much the open transaction has written, for [`Replica::undo`].
    pub(crate) fn mark(&self) -> usize {
        self.written.len()
    }

    /// What was written after the mark was undone.
    pub(crate) fn undo(&mut self, mark: usize) {
        self.written.truncate(mark);
    }

    pub(crate) fn wrote_events(&mut self, request: &Request, placed: &[Placed], moment: Moment) {
        let (false, Some(first)) = (self.is_applying, placed.first()) else {
            return;
        };
        let events = request.append.events.iter().zip(&request.events);
        self.written.push(ReplicaEntry::Append(ReplicaAppend {
            stream: first.stream.clone(),
            version: first.version,
            position: first.position,
            recorded_at: moment,
            events: events.map(with_digest).collect(),
        }));
    }

    pub(crate) fn wrote_change(&mut self, change: &ChangeStream, moment: Moment) {
        if !self.is_applying {
            self.written.push(ReplicaEntry::Change {
                change: change.clone(),
                recorded_at: moment,
            });
        }
    }

    /// Records the open transaction upstream. Until [`Replica::committed`] nothing more is: what
    /// was recorded and is not committed here has to be applied first.
    pub(crate) fn record(
        &mut self,
        connection: &Connection,
    ) -> Result<Option<Box<dyn Upstream>>, Unrecorded> {
        if self.written.is_empty() {
            return Ok(None);
        }
        let mut upstream = self.upstream.take().ok_or(Unrecorded::Follows)?;
        let recorded = upstream.record(&self.written);
        self.written.clear();
        let cursor = recorded.map_err(|error| {
            let context = with_causes(&error).to_string();
            Unrecorded::Unknown(StoreFault::new(error.failure(), context))
        })?;
        let saved = save_cursor(connection, cursor);
        saved.map_err(|error| {
            Unrecorded::Unknown(StoreFault::of(&error, "writing", "the local copy"))
        })?;
        Ok(Some(upstream))
    }

    /// The transaction that was recorded with it is committed.
    pub(crate) fn committed(&mut self, upstream: Option<Box<dyn Upstream>>) {
        if upstream.is_some() {
            self.upstream = upstream;
        }
    }
}

type Moment = DateTime<Utc>;

fn with_digest(((_, event), encoded): (&(StreamId, NewEvent), &Encoded)) -> NewEvent {
    event.clone().own_digest(Digest(encoded.digest))
}

fn save_cursor(connection: &Connection, cursor: u64) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare_cached(sql::SAVE_REPLICA_CURSOR)?;
    statement.execute([cursor.cast_signed()]).map(|_| ())
}

/// Makes the table of a replica.
pub(crate) fn prepare(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.execute_batch(sql::CREATE_REPLICA)?;
    connection.execute(sql::INSERT_REPLICA, []).map(|_| ())
}

/// Whether the file is a replica.
pub(crate) fn is_replica(connection: &Connection) -> Result<bool, rusqlite::Error> {
    connection.query_row(sql::HAS_REPLICA, [], |row| row.get(0))
}

fn place(connection: &Connection) -> Result<ReplicaPlace, rusqlite::Error> {
    let mut statement = connection.prepare_cached(sql::REPLICA_PLACE)?;
    let found = statement.query_row([], |row| {
        Ok(ReplicaPlace {
            cursor: number(row, 0)?,
            note: row.get(1)?,
        })
    });
    Ok(found.optional()?.unwrap_or_default())
}

/// A moment that was recorded elsewhere.
#[derive(Debug)]
struct Recorded(DateTime<Utc>);

impl Clock for Recorded {
    fn now(&self) -> DateTime<Utc> {
        self.0
    }
}

/// An entry as the writer gets it.
enum Prepared {
    Append {
        request: Request,
        version: Version,
        position: Position,
    },
    Change(ChangeStream, Recorded),
    Note(String),
}

impl Prepared {
    fn new(entry: ReplicaEntry) -> Result<Prepared, AppendError> {
        Ok(match entry {
            ReplicaEntry::Append(append) => {
                let clock = Arc::new(Recorded(append.recorded_at));
                let events = Arc::new(Append::new(append.stream, append.events));
                Prepared::Append {
                    // What was appended under other limits stays appended.
                    request: Request::new(events, &unlimited(), clock)?,
                    version: append.version,
                    position: append.position,
                }
            }
            ReplicaEntry::Change {
                change,
                recorded_at,
            } => Prepared::Change(change, Recorded(recorded_at)),
            ReplicaEntry::Note(note) => Prepared::Note(note),
        })
    }

    fn size(&self) -> (usize, usize) {
        match self {
            Prepared::Append { request, .. } => (request.events.len(), request.bytes),
            _ => (1, 0),
        }
    }

    fn apply(&self, write_tx: &mut WriteTx) -> Result<(), Stop> {
        match self {
            Prepared::Append {
                request,
                version,
                position,
            } => {
                let head = write_tx.tail.head;
                if position.get() <= head {
                    return check_applied(&write_tx.connection, request, *version, *position);
                }
                if position.get() > head + 1 {
                    return Err(differs(format!(
                        "position {} was expected, the log has {position}",
                        head + 1
                    )));
                }
                let appended = write_tx.append(request)?;
                let found = appended.events().first();
                let found = found.map(|placed| (placed.version, placed.position));
                if found != Some((*version, *position)) {
                    return Err(differs(format!(
                        "the event at {position} of the log has version {version}, which is not \
                         the next one of its stream here"
                    )));
                }
                Ok(())
            }
            Prepared::Change(change, moment) => write_tx.change(change, moment).map(|_| ()),
            Prepared::Note(note) => {
                let mut statement = write_tx.connection.prepare_cached(sql::SAVE_REPLICA_NOTE)?;
                statement.execute([note])?;
                Ok(())
            }
        }
    }
}

/// Refuses an append whose positions hold other events here.
fn check_applied(
    connection: &Connection,
    request: &Request,
    version: Version,
    position: Position,
) -> Result<(), Stop> {
    for (index, (stream, event)) in (0_u64..).zip(&request.append.events) {
        let position = position.plus(index);
        let is_there = known(connection, event.id)?.is_some_and(|known| {
            let placed = known.found.placed;
            placed.position == position
                && placed.version == version.plus(index)
                && placed.stream == *stream
        });
        if !is_there {
            return Err(differs(format!(
                "another event is at {position} than the log has there"
            )));
        }
    }
    Ok(())
}

fn unlimited() -> Limits {
    let mut limits = Limits::default();
    limits.append_events_max = usize::MAX;
    limits.append_bytes_max = usize::MAX;
    limits.payload_bytes_max = usize::MAX;
    limits
}

fn differs(why: String) -> Stop {
    let context = format!("the local copy does not fit its log: {why}");
    Stop::from(Refused(StoreError::new(Failure::Corrupt, context)))
}

impl SqliteStore {
    /// Applies what the log has after the replica's cursor, in order; `cursor` is after the last
    /// of it. What was applied before changes nothing, and is compared.
    ///
    /// # Errors
    ///
    /// [`Failure::Corrupt`] when it does not follow what the replica has; nothing of it is applied.
    ///
    /// ```
    /// # use annals_core::AppendError;
    /// # use annals_sqlite::SqliteStore;
    /// # async fn example(replica: &SqliteStore) -> Result<(), AppendError> {
    /// use annals_sqlite::ReplicaEntry;
    ///
    /// replica.apply(vec![ReplicaEntry::Note("owned by a".into())], 1).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn apply(&self, entries: Vec<ReplicaEntry>, cursor: u64) -> Result<(), AppendError> {
        let prepared: Vec<Prepared> = entries
            .into_iter()
            .map(Prepared::new)
            .collect::<Result<_, _>>()?;
        let size = prepared.iter().fold((1, 0), |(events, bytes), entry| {
            let (more_events, more_bytes) = entry.size();
            (events + more_events, bytes + more_bytes)
        });
        let apply = move |write_tx: &mut WriteTx| {
            let before = write_tx.tail;
            write_tx
                .connection
                .execute_batch("savepoint annals_apply")?;
            write_tx.replica_mut()?.is_applying = true;
            let applied = prepared.iter().try_for_each(|entry| entry.apply(write_tx));
            write_tx.replica_mut()?.is_applying = false;
            if let Err(Stop::Refused(_)) = &applied {
                // The replica would end with more than its cursor says.
                write_tx
                    .connection
                    .execute_batch("rollback to annals_apply; release annals_apply")?;
                write_tx.tail = before;
                write_tx.stream_cache.clear();
            }
            applied?;
            write_tx.connection.execute_batch("release annals_apply")?;
            Ok(save_cursor(&write_tx.connection, cursor)?)
        };
        self.writer()?.run(size, apply).await
    }

    /// From now on the replica owns its log: it takes appends, and records them by `upstream`.
    ///
    /// Everything that the log has must be applied. After a failure the upstream is dropped, and
    /// the replica follows again.
    ///
    /// # Errors
    ///
    /// Those of a store that is closed, and [`Failure::Invalid`] when it is no replica.
    ///
    /// ```
    /// # async fn example(
    /// #     replica: &annals_sqlite::SqliteStore,
    /// #     upstream: Box<dyn annals_sqlite::Upstream>,
    /// # ) -> Result<(), annals_core::AppendError> {
    /// replica.own(Some(upstream)).await?;
    /// // … and later, to give it up:
    /// replica.own(None).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn own(&self, upstream: Option<Box<dyn Upstream>>) -> Result<(), AppendError> {
        // Outside of the closure, which may run twice.
        let given = Arc::new(std::sync::Mutex::new(Some(upstream)));
        let own = move |write_tx: &mut WriteTx| {
            let mut given = given
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            if let Some(upstream) = given.take() {
                write_tx.replica_mut()?.upstream = upstream;
            }
            Ok(())
        };
        self.writer()?.run((1, 0), own).await
    }

    /// The change of a stream that was done under this id; none when it is not known.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    ///
    /// ```
    /// # use annals_core::{EventId, StoreError};
    /// # use annals_sqlite::SqliteStore;
    /// # async fn example(store: &SqliteStore, id: EventId) -> Result<(), StoreError> {
    /// let is_done = store.find_change(id).await?.is_some();
    /// # Ok(())
    /// # }
    /// ```
    pub async fn find_change(&self, id: EventId) -> Result<Option<ChangeStream>, StoreError> {
        self.readers()?
            .read(move |connection, _| done_change(connection, id))
            .await
    }

    /// How far the replica has copied its log.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    pub async fn replica_place(&self) -> Result<ReplicaPlace, StoreError> {
        self.readers()?
            .read(|connection, _| place(connection))
            .await
    }
}

impl WriteTx {
    fn replica_mut(&mut self) -> Result<&mut Replica, Stop> {
        self.replica.as_mut().ok_or_else(|| {
            let context = "this store is no replica; open it with `Options::replica_of`";
            Stop::from(Refused(StoreError::new(Failure::Invalid, context)))
        })
    }
}
