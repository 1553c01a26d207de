//! The write side of the file: appends inside a write transaction.
//!
//! The normal append only inserts. The unique indexes are the check, and what is known of an id is
//! looked up only when one of them refuses a row or an expectation does not hold.

use std::sync::Arc;

use annals_core::{
    AppendError, Appended, Clock, Duplicate, EventId, Incarnation, NewEvent, Placed, Position,
    Status, StreamId, Version, deduplicate, time_of,
};
use rusqlite::{Connection, OptionalExtension};
use uuid::Uuid;

use crate::append_in::EndGuard;
use crate::error::{StoreFault, is_duplicate};
use crate::identity::{LastEvent, LogIdentity};
use crate::known::{PARTITION, known, placed_between};
use crate::replica::Replica;
use crate::request::Request;
use crate::statements as sql;
use crate::stream_cache::{StreamCache, StreamEntry, StreamStatements};
use crate::{streams, views};

/// Spelled so that an application's `prepare_cached("commit")` does not find the statement, which
/// was allowed when it was prepared.
const COMMIT: &str = "commit /* annals */";

/// Why a request was not done: an outcome for its caller, or the end of the whole transaction.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Nothing of it is in the transaction, which goes on.
    Refused(AppendError),
    /// The transaction cannot go on.
    Broken(rusqlite::Error),
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Stop {
        Stop::Broken(error)
    }
}

impl<E: Into<AppendError>> From<Refused<E>> for Stop {
    fn from(refused: Refused<E>) -> Stop {
        Stop::Refused(refused.0.into())
    }
}

/// An outcome for the caller.
pub(crate) struct Refused<E>(pub(crate) E);

/// The end of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tail {
    /// The last position, with what the open transaction has added.
    pub(crate) head: u64,
    /// The latest recorded time, in microseconds.
    pub(crate) recorded: i64,
    /// The event at the head; none in an empty log.
    id: Option<EventId>,
}

impl Tail {
    const EMPTY: Tail = Tail {
        head: 0,
        recorded: i64::MIN,
        id: None,
    };

    pub(crate) fn read(connection: &Connection) -> Result<Tail, rusqlite::Error> {
        let found = connection
            .prepare_cached(sql::HEAD)?
            .query_row([], |row| {
                Ok(Tail {
                    head: streams::number(row, 0)?,
                    recorded: row.get(1)?,
                    id: Some(EventId::from_uuid(Uuid::from_bytes(row.get(2)?))),
                })
            })
            .optional()?;
        Ok(found.unwrap_or(Tail::EMPTY))
    }

    pub(crate) fn event(&self) -> Option<LastEvent> {
        self.id.map(|id| LastEvent {
            position: self.head,
            id,
        })
    }
}

/// The connection that writes, and what is known of the file while its transaction is open.
#[derive(Debug)]
pub(crate) struct WriteTx {
    pub(crate) connection: Connection,
    pub(crate) identity: Arc<LogIdentity>,
    pub(crate) end_guard: EndGuard,
    pub(crate) stream_cache: StreamCache,
    pub(crate) tail: Tail,
    /// Counts appends, so that each knows which streams it has touched already.
    appends: u64,
    /// Something may have been dropped or forgotten that is not purged yet.
    pub(crate) has_waste: bool,
    /// SQLite's counter of commits by other connections when everything cached was true; none when
    /// nothing is.
    cached_at: Option<i64>,
    /// The same counter at the last poll.
    seen: Option<i64>,
    /// When the log is kept elsewhere.
    pub(crate) replica: Option<Replica>,
}

impl WriteTx {
    pub(crate) fn new(
        connection: Connection,
        identity: Arc<LogIdentity>,
    ) -> Result<WriteTx, rusqlite::Error> {
        let end_guard = EndGuard::on(&connection)?;
        Ok(WriteTx {
            connection,
            identity,
            end_guard,
            stream_cache: StreamCache::new(),
            tail: Tail::EMPTY,
            appends: 0,
            has_waste: true,
            cached_at: None,
            seen: None,
            replica: None,
        })
    }

    /// Begins a write transaction; everything cached is true in it. A fault when the log is another
    /// one than before.
    pub(crate) fn begin(&mut self) -> Result<Result<(), StoreFault>, rusqlite::Error> {
        let last = self.identity.last();
        if let Some(replica) = &mut self.replica {
            replica.begin();
        }
        self.connection
            .prepare_cached("begin immediate")?
            .execute([])?;
        let version = self.data_version()?;
        if self.cached_at == Some(version) {
            return Ok(Ok(()));
        }
        if let Err(fault) = self.identity.check_log(&self.connection, last)? {
            return Ok(Err(fault));
        }
        self.stream_cache.clear();
        self.tail = Tail::read(&self.connection)?;
        let deleted = self
            .connection
            .prepare_cached(sql::LAST_DELETION)?
            .query_row([], |row| row.get(0))
            .optional()?;
        self.tail.recorded = self.tail.recorded.max(deleted.unwrap_or(i64::MIN));
        self.cached_at = Some(version);
        Ok(Ok(()))
    }

    /// Whether another connection has committed since this was last asked.
    pub(crate) fn others_committed(&mut self) -> Result<bool, rusqlite::Error> {
        let version = self.data_version()?;
        Ok(self
            .seen
            .replace(version)
            .is_some_and(|seen| seen != version))
    }

    fn data_version(&self) -> Result<i64, rusqlite::Error> {
        self.connection
            .prepare_cached("pragma data_version")?
            .query_row([], |row| row.get(0))
    }

    pub(crate) fn commit(&self) -> Result<(), rusqlite::Error> {
        self.connection
            .prepare_cached(COMMIT)?
            .execute([])
            .map(|_| ())
    }

    /// When something is recorded now; never before what was recorded already.
    pub(crate) fn now(&self, clock: &dyn Clock) -> Result<i64, Stop> {
        let now = time_of(clock).map_err(Refused)?;
        Ok(self.tail.recorded.max(now.timestamp_micros()))
    }

    /// Rolls the open transaction back, when SQLite has not done so already.
    pub(crate) fn rollback(&mut self) {
        self.cached_at = None;
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("rollback")
        {
            tracing::warn!(%error, "a rollback failed");
        }
    }

    /// Appends inside the open transaction; when refused, nothing of it is left there.
    pub(crate) fn append(&mut self, request: &Request) -> Result<Appended, Stop> {
        // A log that changed closes the store: it has one incarnation only.
        let incarnation = Incarnation::first(self.identity.log());
        request
            .append
            .check_incarnation(incarnation)
            .map_err(Refused)?;
        self.appends += 1;
        self.stream_cache.added = false;
        if !self.may_happen(request)? {
            if let Some(appended) = self.deduplicated(request)? {
                return Ok(appended);
            }
            return Err(Stop::Refused(AppendError::Conflict(
                self.violations(request)?,
            )));
        }
        let recorded = self.now(&*request.clock)?;
        let inline_rows = views::inline_rows(&self.connection, &request.append)?;
        // A single row is refused whole; only several need to be undone together.
        let several = request.append.events.len() > 1;
        if several {
            self.connection
                .prepare_cached("savepoint annals_append")?
                .execute([])?;
        }
        let before = self.tail;
        self.tail.recorded = recorded;
        let mut touched = Vec::new();
        let inserted = self.insert(request, &mut touched);
        match inserted {
            Ok(placed) => {
                let recorded_at = streams::moment(self.tail.recorded)?;
                inline_rows
                    .iter()
                    .try_for_each(|row| row.write(&self.connection, &placed, recorded_at))?;
                if several {
                    self.connection
                        .prepare_cached("release annals_append")?
                        .execute([])?;
                }
                if let Some(replica) = &mut self.replica {
                    replica.wrote_events(request, &placed, recorded_at);
                }
                Ok(Appended::new(self.identity.log(), placed, false))
            }
            Err(error) if is_duplicate(&error) => {
                if several {
                    self.connection
                        .prepare_cached("rollback to annals_append")?
                        .execute([])?;
                    self.connection
                        .prepare_cached("release annals_append")?
                        .execute([])?;
                }
                self.tail = before;
                self.stream_cache.undo(touched);
                // When no id is known, the version or the position was taken, which no writer of
                // ours does.
                self.deduplicated(request)?.ok_or(Stop::Broken(error))
            }
            Err(error) => Err(Stop::Broken(error)),
        }
    }

    fn insert(
        &mut self,
        request: &Request,
        touched: &mut Vec<(StreamId, StreamEntry)>,
    ) -> Result<Vec<Placed>, rusqlite::Error> {
        let connection = &self.connection;
        let mut insert = connection.prepare_cached(sql::INSERT_EVENT)?;
        let count = request.append.events.len();
        let mut placed = Vec::with_capacity(count);
        let mut statements = StreamStatements::of(connection);
        // Of the event before: most appends are of one category and few types.
        let mut last: Option<(&StreamId, &NewEvent, i64)> = None;
        for (index, ((stream, event), encoded)) in request
            .append
            .events
            .iter()
            .zip(&request.events)
            .enumerate()
        {
            let like_last = last.filter(|&(of, other, ..)| same_kind((of, other), (stream, event)));
            let kind = match like_last {
                Some((.., kind)) => kind,
                None => self.stream_cache.kind(connection, stream, event)?,
            };
            last = Some((stream, event, kind));
            let (key, entry) = self.stream_cache.keyed(&mut statements, stream)?;
            if entry.append != self.appends {
                touched.push((stream.clone(), *entry));
                entry.append = self.appends;
            }
            let revived = entry.status == Status::Deleted;
            entry.status = Status::Active;
            entry.version += 1;
            self.tail.head += 1;
            let version = entry.version;
            let position = self.tail.head;
            insert.execute(rusqlite::params![
                position.cast_signed(),
                key,
                version.cast_signed(),
                kind,
                index as i64,
                count as i64,
                annals_core::to_microseconds(event.occurred_at).timestamp_micros(),
                self.tail.recorded,
                event.id.as_uuid().as_bytes(),
                encoded.digest,
                encoded.tags,
                encoded.metadata,
                &*event.payload,
            ])?;
            // After the row, which may be refused: a refused single event leaves nothing to undo.
            if revived {
                connection
                    .prepare_cached(sql::REVIVE_STREAM)?
                    .execute([key])?;
            }
            for tag in event.sorted_tags().iter() {
                let tag = self.stream_cache.tag(connection, tag)?;
                connection
                    .prepare_cached(sql::INSERT_EVENT_TAG)?
                    .execute((tag, position.cast_signed()))?;
            }
            self.tail.id = Some(event.id);
            placed.push(Placed {
                id: event.id,
                stream: stream.clone(),
                version: Version::new(version),
                partition: PARTITION,
                position: Position::new(position),
            });
        }
        Ok(placed)
    }

    /// The answer that an append with known ids had before; none when it is new.
    fn deduplicated(&self, request: &Request) -> Result<Option<Appended>, Stop> {
        let events = &request.append.events;
        let known: Vec<_> = events
            .iter()
            .map(|(_, event)| known(&self.connection, event.id))
            .collect::<Result<_, _>>()?;
        let placed = match deduplicate(events, &known).map_err(Refused)? {
            Duplicate::New => return Ok(None),
            Duplicate::Repeated => known
                .into_iter()
                .flatten()
                .map(|known| known.found.placed)
                .collect(),
            Duplicate::RequestDone { first, events } => {
                placed_between(&self.connection, first, events)?
            }
        };
        Ok(Some(Appended::new(self.identity.log(), placed, true)))
    }
}

fn same_kind((of, a): (&StreamId, &NewEvent), (to, b): (&StreamId, &NewEvent)) -> bool {
    a.event_type == b.event_type
        && a.schema_version == b.schema_version
        && a.codec == b.codec
        && (of == to || of.category() == to.category())
}
