//! Rows become events as they come: names from a cache, and the payloads of a page in buffers that
//! they share.

use std::collections::HashMap;
use std::sync::Arc;

use annals_core::{
    EventId, PAGE_BYTES_MAX, Place, Position, RecordedEvent, StreamId, Tag, Version,
};
use bytes::BytesMut;
use futures_util::TryStreamExt;
use hashlink::LruCache;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Error, Postgres};
use uuid::Uuid;

use crate::database::Database;
use crate::error::corrupt;
use crate::known::PARTITION;
use crate::row::{
    Columns, bytes, int4, int8, moment, number, optional_int8, sixteen, stream_id, text,
};
use crate::statements as sql;

/// Streams that a reader knows by name: at most 9 MB, as a name has at most 255 bytes.
const STREAMS: usize = 32_768;
/// So many readers' names are kept while they are not used: what many read at once is not kept for
/// ever.
const IDLE_MAX: usize = 4;
/// Payloads share buffers of about this size: large enough to be cheap, small enough that keeping
/// one event keeps little else.
const BUFFER_BYTES: usize = 64 << 10;
const BUFFER_BYTES_MIN: usize = 256;

/// Type, schema version and codec of a kind.
#[derive(Clone, Debug)]
struct Kind {
    event_type: Arc<str>,
    schema_version: u32,
    codec: Arc<str>,
}

/// The names of keys, as one reader at a time knows them. In one incarnation a key's name never
/// changes.
#[derive(Debug)]
pub(crate) struct Names {
    streams: LruCache<i64, StreamId>,
    kinds: HashMap<i32, Kind>,
}

/// Names that are one reader's, so that none waits for another. They go back when they are needed
/// no more, also when the read was dropped or failed.
struct NameLoan {
    names: Names,
    database: Arc<Database>,
    /// The incarnation that the names, and the rows that are read with them, are of.
    incarnation: u64,
}

impl NameLoan {
    fn of(database: &Arc<Database>) -> NameLoan {
        let incarnation = database.incarnation.number();
        let known = database.names.of(incarnation, Vec::pop);
        NameLoan {
            names: known.unwrap_or_default(),
            database: Arc::clone(database),
            incarnation,
        }
    }

    /// Fails when the rows may be of another incarnation than their names.
    fn check(&self) -> Result<(), Error> {
        self.database.check_same_incarnation(self.incarnation)
    }
}

impl Drop for NameLoan {
    fn drop(&mut self) {
        let names = std::mem::take(&mut self.names);
        let all = &self.database.names;
        if self.incarnation == self.database.incarnation.number() {
            all.of(self.incarnation, |idle| {
                if idle.len() < IDLE_MAX {
                    idle.push(names);
                }
            });
        }
    }
}

impl Default for Names {
    fn default() -> Names {
        Names {
            streams: LruCache::new(STREAMS),
            kinds: HashMap::new(),
        }
    }
}

impl Names {
    /// Looks up the names that the rows need and that are not known yet.
    async fn learn<R: Columns>(
        &mut self,
        database: &Database,
        rows: &[R],
        first: usize,
    ) -> Result<(), Error> {
        let mut unknown = Vec::new();
        let mut unknown_kind = false;
        for row in rows {
            let stream = int8(row, first + 1)?;
            if unknown.last() != Some(&stream) && self.streams.get(&stream).is_none() {
                unknown.push(stream);
            }
            unknown_kind |= !self.kinds.contains_key(&int4(row, first + 3)?);
        }
        if unknown_kind {
            for row in sqlx::query(database.text(sql::KINDS))
                .fetch_all(&database.pool)
                .await?
            {
                let schema_version =
                    u32::try_from(number(&row, 2)?).map_err(|_| corrupt("a version of a shape"))?;
                let kind = Kind {
                    event_type: text(&row, 1)?.into(),
                    schema_version,
                    codec: text(&row, 3)?.into(),
                };
                self.kinds.insert(int4(&row, 0)?, kind);
            }
        }
        if !unknown.is_empty() {
            unknown.sort_unstable();
            unknown.dedup();
            let found = sqlx::query(database.text(sql::STREAM_NAMES))
                .bind(&unknown)
                .fetch_all(&database.pool)
                .await?;
            for row in found {
                self.streams.insert(int8(&row, 0)?, stream_id(&row, 1)?);
            }
        }
        Ok(())
    }
}

/// What a statement gave.
pub(crate) struct Read<T> {
    /// What was read of the first row besides its event.
    pub(crate) seen: T,
    /// How many rows have an event.
    pub(crate) found: usize,
    /// Those before the one that is too much for a page.
    pub(crate) events: Vec<RecordedEvent>,
}

/// The events of a statement that gives the columns of [`COLUMNS`](crate::row::COLUMNS) from column
/// `first` on, read while the server goes on; `see` reads what else is in the first row, of which
/// there always is one.
pub(crate) async fn read<T>(
    database: &Arc<Database>,
    query: Query<'_, Postgres, PgArguments>,
    first: usize,
    see: impl FnOnce(&PgRow) -> Result<T, Error>,
) -> Result<Read<T>, Error> {
    let mut decoding = Decoding::begin(database, first, 0);
    let mut seen = None;
    let mut see = Some(see);
    {
        let mut rows = query.fetch(&database.pool);
        while let Some(row) = rows.try_next().await? {
            if let Some(see) = see.take() {
                seen = Some(see(&row)?);
            }
            decoding.take(row)?;
        }
        // The connection goes back before names are asked for, which may need the only one there
        // is.
    }
    let (found, events) = decoding.finish(database).await?;
    Ok(Read {
        seen: seen.ok_or(Error::RowNotFound)?,
        found,
        events,
    })
}

/// Rows on their way to being the events of a page.
///
/// A page ends with the event that fills it, and before one whose payload was not read, whatever
/// follows.
pub(crate) struct Decoding<R> {
    loan: NameLoan,
    first: usize,
    found: usize,
    events: Vec<RecordedEvent>,
    payloads: BytesMut,
    size: usize,
    is_full: bool,
    /// The name of the last row's stream: those of one append follow each other.
    stream: Option<(i64, StreamId)>,
    /// Each page has its own copies of these names, because counting references to one name from
    /// the thread that reads and from those that use what was read costs more than all the rest.
    kinds: Vec<(i32, Kind)>,
    /// From the first row on whose names are not known.
    waiting: Vec<R>,
}

impl<R: Columns> Decoding<R> {
    /// Of about so many rows, in which the columns of an event begin with column `first`.
    pub(crate) fn begin(database: &Arc<Database>, first: usize, about: usize) -> Decoding<R> {
        Decoding {
            loan: NameLoan::of(database),
            first,
            found: 0,
            events: Vec::with_capacity(about),
            payloads: BytesMut::new(),
            size: 0,
            is_full: false,
            stream: None,
            kinds: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// The next row, which may be without an event.
    #[inline]
    pub(crate) fn take(&mut self, row: R) -> Result<(), Error> {
        let Some(position) = optional_int8(&row, self.first)? else {
            return Ok(());
        };
        self.found += 1;
        if self.is_full {
            return Ok(());
        }
        if !self.waiting.is_empty() || !self.decode(position, &row)? {
            self.waiting.push(row);
        }
        Ok(())
    }

    /// How many rows had an event, and the events.
    pub(crate) async fn finish(
        mut self,
        database: &Database,
    ) -> Result<(usize, Vec<RecordedEvent>), Error> {
        let waiting = std::mem::take(&mut self.waiting);
        self.loan.check()?;
        if !waiting.is_empty() {
            self.loan
                .names
                .learn(database, &waiting, self.first)
                .await?;
            // Rows that a crash took back have no names after it.
            self.loan.check()?;
        }
        for row in waiting {
            if self.is_full {
                break;
            }
            if !self.decode(int8(&row, self.first)?, &row)? {
                let stream = int8(&row, self.first + 1)?;
                let kind = int4(&row, self.first + 3)?;
                return Err(corrupt(format!(
                    "stream {stream} or kind {kind} has no name"
                )));
            }
        }
        self.loan.check()?;
        Ok((self.found, self.events))
    }

    /// Whether the names of the row are known.
    fn know(&mut self, stream: i64, kind: i32) -> bool {
        if self.stream.as_ref().is_none_or(|(key, _)| *key != stream) {
            let Some(name) = self.loan.names.streams.get(&stream) else {
                return false;
            };
            self.stream = Some((stream, name.clone()));
        }
        if self.kinds.last().is_none_or(|(key, _)| *key != kind) {
            match self.kinds.iter().position(|(key, _)| *key == kind) {
                Some(at) => {
                    let last = self.kinds.len() - 1;
                    self.kinds.swap(at, last);
                }
                None => {
                    let Some(known) = self.loan.names.kinds.get(&kind) else {
                        return false;
                    };
                    let event_type = Arc::from(&*known.event_type);
                    let codec = Arc::from(&*known.codec);
                    self.kinds.push((
                        kind,
                        Kind {
                            event_type,
                            schema_version: known.schema_version,
                            codec,
                        },
                    ));
                }
            }
        }
        true
    }

    /// Whether its names are known, so that it is an event now, or the end of the page.
    #[inline]
    fn decode(&mut self, position: i64, row: &R) -> Result<bool, Error> {
        let first = self.first;
        if !self.know(int8(row, first + 1)?, int4(row, first + 3)?) {
            return Ok(false);
        }
        let (Some((_, stream)), Some((_, kind))) = (&self.stream, self.kinds.last()) else {
            return Ok(false);
        };
        let Some(payload) = bytes(row, first + 10)? else {
            self.is_full = true;
            return Ok(true);
        };
        let place = Place {
            stream: stream.clone(),
            version: Version::new(number(row, first + 2)?),
            partition: PARTITION,
            position: Position::new(position.cast_unsigned()),
            append_index: int4(row, first + 4)?.cast_unsigned(),
            recorded_at: moment(int8(row, first + 6)?)?,
        };
        self.size += payload.len();
        self.is_full = self.size >= PAGE_BYTES_MAX;
        if self.payloads.capacity() < payload.len() {
            // The first ones are small: a page of one event keeps no large buffer.
            self.payloads = BytesMut::with_capacity(
                self.size
                    .clamp(BUFFER_BYTES_MIN, BUFFER_BYTES)
                    .max(payload.len()),
            );
        }
        self.payloads.extend_from_slice(payload);
        // Put in place at once: it is large, and most have neither tags nor metadata.
        self.events.push(RecordedEvent::new(
            EventId::from_uuid(Uuid::from_bytes(sixteen(row, first + 7)?)),
            place,
            Arc::clone(&kind.event_type),
            kind.schema_version,
            Arc::clone(&kind.codec),
            self.payloads.split().freeze(),
            moment(int8(row, first + 5)?)?,
        ));
        let tags = bytes(row, first + 8)?;
        let metadata = bytes(row, first + 9)?;
        let Some(event) = self
            .events
            .last_mut()
            .filter(|_| tags.is_some() || metadata.is_some())
        else {
            return Ok(true);
        };
        if tags.is_some() {
            event.tags = tags_of(text(row, first + 8)?)?;
        }
        if let Some(metadata) = metadata {
            event.metadata = serde_json::from_slice(metadata)
                .map_err(|error| corrupt(format!("metadata that is not understood: {error}")))?;
        }
        Ok(true)
    }
}

/// The tags of a column, one a line.
pub(crate) fn tags_of(column: &str) -> Result<Vec<Tag>, Error> {
    column
        .split('\n')
        .map(str::parse)
        .collect::<Result<_, _>>()
        .map_err(|error: annals_core::Invalid| corrupt(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    #[tokio::test]
    async fn names_of_many_readers_at_once_are_not_kept() {
        let options: Options = "postgres://annals@localhost/annals".parse().unwrap();
        let database = Database::new(&options);
        let loan: Vec<NameLoan> = (0..200).map(|_| NameLoan::of(&database)).collect();
        drop(loan);
        let incarnation = database.incarnation.number();
        let kept = database.names.of(incarnation, |idle| idle.len());
        assert_eq!(kept, IDLE_MAX);
    }

    #[test]
    fn a_reader_knows_a_bounded_number_of_streams() {
        let mut names = Names::default();
        for key in 0..STREAMS + 1_000 {
            let name = StreamId::new(format!("thing-{key}")).unwrap();
            names.streams.insert(key.try_into().unwrap(), name);
        }
        assert_eq!(names.streams.len(), STREAMS);
        // Those that were used last are the ones that stay.
        assert!(names.streams.peek(&0).is_none());
        assert!(names.streams.peek(&(STREAMS as i64)).is_some());
    }
}
