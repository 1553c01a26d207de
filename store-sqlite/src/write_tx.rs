//! The write side of the file: what happens inside a write transaction.
//!
//! The normal append only inserts. The unique indexes are the check, and what is known of an id is
//! looked up only when one of them refuses a row or an expectation does not hold.

use annals_core::{
    AppendError, Appended, Duplicate, Expected, LogId, NewEvent, Placed, Position, Status,
    StreamId, Version, Violation, deduplicate,
};
use rusqlite::Connection;
use std::collections::HashSet;

use crate::error::is_duplicate;
use crate::known::{PARTITION, known, places};
use crate::query_plan;
use crate::request::Request;
use crate::statements as sql;
use crate::stream_cache::{Dictionary, StreamEntry};
use crate::{streams, views};

/// Why something was not done: an outcome for the one who asked, or the end of the whole
/// transaction.
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

/// An outcome for the one who asked.
pub(crate) struct Refused<E>(pub(crate) E);

/// The connection that writes, and what is known of the file while its transaction is open.
#[derive(Debug)]
pub(crate) struct WriteTx {
    pub(crate) connection: Connection,
    pub(crate) log: LogId,
    pub(crate) dictionary: Dictionary,
    /// The last position, with what the open transaction has added.
    pub(crate) head: u64,
    /// The latest recorded time, in microseconds.
    pub(crate) recorded: i64,
    /// Counts appends, so that each knows which streams it has touched already.
    appends: u64,
    /// Something may have been dropped or forgotten that is not cleared away yet.
    pub(crate) has_waste: bool,
    /// What SQLite counts up when another connection commits, as it was when everything cached was
    /// true; none when nothing is.
    cached_at: Option<i64>,
    /// The same, as it was when this was last looked at.
    seen: Option<i64>,
}

impl WriteTx {
    pub(crate) fn new(connection: Connection, log: LogId) -> WriteTx {
        WriteTx {
            connection,
            log,
            dictionary: Dictionary::new(),
            head: 0,
            recorded: i64::MIN,
            appends: 0,
            has_waste: true,
            cached_at: None,
            seen: None,
        }
    }

    /// Begins a write transaction; everything cached is true in it.
    pub(crate) fn begin(&mut self) -> Result<(), rusqlite::Error> {
        self.connection
            .prepare_cached("begin immediate")?
            .execute([])?;
        let version = self.data_version()?;
        if self.cached_at == Some(version) {
            return Ok(());
        }
        self.dictionary.clear();
        let (head, recorded) = streams::head(&self.connection)?;
        let deleted = self
            .connection
            .prepare_cached(sql::LAST_DELETION)?
            .query_row([], |row| row.get(0));
        (self.head, self.recorded) = match deleted {
            Ok(deleted) => (head, recorded.max(deleted)),
            Err(rusqlite::Error::QueryReturnedNoRows) => (head, recorded),
            Err(error) => return Err(error),
        };
        self.cached_at = Some(version);
        Ok(())
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
            .prepare_cached("commit")?
            .execute([])
            .map(|_| ())
    }

    /// Undoes the open transaction, when SQLite has not done so already.
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
        self.appends += 1;
        self.dictionary.added = false;
        if !self.may_happen(request)? {
            if let Some(appended) = self.recognised(request)? {
                return Ok(appended);
            }
            return Err(Stop::Refused(AppendError::Conflict(
                self.violations(request)?,
            )));
        }
        let carried = views::carried(&self.connection, &request.append)?;
        // A single row is refused whole; only several need to be undone together.
        let several = request.append.events.len() > 1;
        if several {
            self.connection
                .prepare_cached("savepoint annals_append")?
                .execute([])?;
        }
        let before = (self.head, self.recorded);
        let mut touched = Vec::new();
        let inserted = self.insert(request, &mut touched);
        match inserted {
            Ok(placed) => {
                let recorded_at = streams::moment(self.recorded)?;
                carried
                    .iter()
                    .try_for_each(|row| row.write(&self.connection, &placed, recorded_at))?;
                if several {
                    self.connection
                        .prepare_cached("release annals_append")?
                        .execute([])?;
                }
                Ok(Appended::new(self.log, placed, false))
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
                (self.head, self.recorded) = before;
                self.dictionary.undo(touched);
                // Not one of the ids: then the version or position was taken, which no writer of
                // ours does.
                self.recognised(request)?.ok_or(Stop::Broken(error))
            }
            Err(error) => Err(Stop::Broken(error)),
        }
    }

    /// Whether the expectations and the condition hold. Says no more than that; a refusal is worked
    /// out separately.
    fn may_happen(&mut self, request: &Request) -> Result<bool, rusqlite::Error> {
        let append = &request.append;
        let written = Written::of(request);
        for (stream, expected) in &append.expectations {
            let state = self.dictionary.stream(&self.connection, stream)?.state();
            let holds = if written.holds(stream) {
                expected.allows_writing(&state)
            } else {
                expected.passes_check(&state)
            };
            if !holds {
                return Ok(false);
            }
        }
        let mut last: Option<&StreamId> = None;
        for (stream, _) in &append.events {
            if last != Some(stream) {
                if self.dictionary.stream(&self.connection, stream)?.status == Status::Tombstoned {
                    return Ok(false);
                }
                last = Some(stream);
            }
        }
        match &request.append.condition {
            None => Ok(true),
            Some(condition) => {
                Ok(query_plan::first_match(&self.connection, condition, self.head)?.is_none())
            }
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
        self.recorded = self.recorded.max(request.clock.now().timestamp_micros());
        // Of the event before: most appends are of one stream and few types.
        let mut last: Option<(&StreamId, &NewEvent, i64, i64)> = None;
        for (index, ((stream, event), encoded)) in request
            .append
            .events
            .iter()
            .zip(&request.events)
            .enumerate()
        {
            let same_stream = last.filter(|(of, ..)| *of == stream);
            let key = match same_stream {
                Some((_, _, key, _)) => key,
                None => self.dictionary.stream_key(connection, stream)?,
            };
            let kind = match same_stream.filter(|(_, other, ..)| same_kind(other, event)) {
                Some((.., kind)) => kind,
                None => self.dictionary.kind(connection, stream, event)?,
            };
            last = Some((stream, event, key, kind));
            let entry = self.dictionary.stream(connection, stream)?;
            if entry.append != self.appends {
                touched.push((stream.clone(), *entry));
                entry.append = self.appends;
            }
            let revived = entry.status == Status::Deleted;
            entry.status = Status::Active;
            entry.version += 1;
            self.head += 1;
            let version = entry.version;
            let position = self.head;
            insert.execute(rusqlite::params![
                position.cast_signed(),
                key,
                version.cast_signed(),
                kind,
                index as i64,
                count as i64,
                annals_core::to_microseconds(event.occurred_at).timestamp_micros(),
                self.recorded,
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
                let tag = self.dictionary.tag(connection, tag)?;
                connection
                    .prepare_cached(sql::INSERT_EVENT_TAG)?
                    .execute((tag, position.cast_signed()))?;
            }
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

    /// What an append with ids that are known was before; none when it is new.
    fn recognised(&self, request: &Request) -> Result<Option<Appended>, Stop> {
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
            Duplicate::RequestDone { first, events } => places(&self.connection, first, events)?,
        };
        Ok(Some(Appended::new(self.log, placed, true)))
    }

    /// Everything that was expected and does not hold.
    fn violations(&self, request: &Request) -> Result<Vec<Violation>, rusqlite::Error> {
        let append = &request.append;
        let written = Written::of(request);
        let mut said: HashSet<&StreamId> = append
            .expectations
            .iter()
            .map(|(stream, _)| stream)
            .collect();
        // Each stream once, however many events it gets.
        let unsaid = append
            .events
            .iter()
            .map(|(stream, _)| stream)
            .filter(|stream| said.insert(stream));
        let unsaid: Vec<_> = unsaid.map(|stream| (stream, Expected::Any)).collect();
        let mut violations = Vec::new();
        for (index, (stream, expected)) in append
            .expectations
            .iter()
            .map(|(stream, expected)| (stream, *expected))
            .chain(unsaid)
            .enumerate()
        {
            let (_, found) = streams::state(&self.connection, stream)?;
            let holds = if written.holds(stream) {
                expected.allows_writing(&found)
            } else {
                expected.passes_check(&found)
            };
            if !holds {
                violations.push(Violation::Stream {
                    index,
                    stream: stream.clone(),
                    expected,
                    found,
                });
            }
        }
        if let Some(condition) = &request.append.condition
            && let Some(position) = query_plan::first_match(&self.connection, condition, self.head)?
        {
            violations.push(Violation::Condition { position });
        }
        Ok(violations)
    }
}

fn same_kind(a: &NewEvent, b: &NewEvent) -> bool {
    a.event_type == b.event_type && a.schema_version == b.schema_version && a.codec == b.codec
}

/// The streams that get an event.
enum Written<'a> {
    Few(&'a Request),
    Many(HashSet<&'a StreamId>),
}

impl<'a> Written<'a> {
    fn of(request: &'a Request) -> Written<'a> {
        if request.append.expectations.len() <= 2 {
            return Written::Few(request);
        }
        Written::Many(
            request
                .append
                .events
                .iter()
                .map(|(stream, _)| stream)
                .collect(),
        )
    }

    fn holds(&self, stream: &StreamId) -> bool {
        match self {
            Written::Few(request) => request.append.events.iter().any(|(to, _)| to == stream),
            Written::Many(streams) => streams.contains(stream),
        }
    }
}
