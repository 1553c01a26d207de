//! A batch in the making: which appends go into it, as the parameters of the function that appends
//! them. Pure.
//!
//! What is decided here is checked once more by the server, against what others committed
//! meanwhile.

use std::collections::HashSet;
use std::sync::Arc;

use annals_core::{
    EventId, InlineRow, NewEvent, Placed, Position, Status, StoreError, Version, time_of,
};
use sqlx::error::BoxDynError;
use sqlx::postgres::PgArguments;
use sqlx::{Arguments, Error};
use uuid::Uuid;

use crate::known::PARTITION;
use crate::known_log::KnownLog;
use crate::recent::{self, Recent};
use crate::request::{Encoded, Request};
use crate::stream_cache::{StreamCache, StreamEntry, Versions};
use crate::views::inline::Carried;
use crate::views::stored;

/// More positions than this are not searched inside the append section.
pub(crate) const UNCHECKED_MAX: u64 = 500;

/// What becomes of an append that would go into a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is in.
    Taken,
    /// It depends on one that is in: it waits for the next batch.
    Later,
    /// It names an id of one that is in: it is rechecked once that is committed.
    AfterCommit,
    /// As far as is cached it would be refused: it is rechecked, because the cache may be old.
    Doubtful,
}

/// Appends that are committed together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    taken: Vec<Arc<Request>>,
    /// The stream of each event of each append.
    keys: Vec<Vec<i64>>,
    /// The versions of the streams that are written to, without what is in.
    before: Versions,
    /// Their versions with what is in.
    now: Versions,
    ids: HashSet<EventId>,
    recorded: i64,
    columns: Columns,
    conditions: Vec<String>,
    least_checked: Option<i64>,
}

/// The parameters of the function that appends.
#[derive(Debug, Default)]
struct Columns {
    appends: Vec<i32>,
    streams: Vec<i64>,
    versions: Vec<i64>,
    kinds: Vec<i32>,
    indexes: Vec<i32>,
    counts: Vec<i32>,
    occurred: Vec<i64>,
    recorded: Vec<i64>,
    ids: Vec<Uuid>,
    digests: Vec<Uuid>,
    tag_hashes: Vec<i64>,
    tag_events: Vec<i32>,
    revived: Vec<i64>,
    relying_appends: Vec<i32>,
    relying_streams: Vec<i64>,
    relying_versions: Vec<i64>,
}

/// The only event of a batch.
struct One<'a> {
    event: &'a NewEvent,
    encoded: &'a Encoded,
}

impl One<'_> {
    /// The last parameters of the functions that append one event.
    fn give(&self, batch: &Batch, arguments: &mut PgArguments) -> Result<(), BoxDynError> {
        let One { event, encoded } = self;
        arguments.add(batch.columns.kinds[0])?;
        arguments.add(encoded.occurred_at)?;
        arguments.add(batch.recorded)?;
        arguments.add(event.id.as_uuid())?;
        arguments.add(encoded.digest)?;
        arguments.add(encoded.tags.as_deref())?;
        arguments.add(encoded.metadata.as_deref())?;
        arguments.add(&*event.payload)?;
        arguments.add(&encoded.hashes)
    }
}

/// What the server says of a batch that it wrote.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) first: u64,
    /// The versions of streams that others had appended to.
    pub(crate) moved: Versions,
    /// The appends that were skipped, by their index in the batch.
    pub(crate) skips: HashSet<usize>,
}

impl Batch {
    pub(crate) fn new() -> Batch {
        Batch {
            recorded: i64::MIN,
            ..Batch::default()
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// The id of the last event of those appends that are not among `skips`.
    pub(crate) fn last_written(&self, skips: &HashSet<usize>) -> Option<Uuid> {
        let written = |(place, _): &(usize, &Arc<Request>)| !skips.contains(place);
        let (_, last) = self.taken.iter().enumerate().rev().find(written)?;
        last.append
            .events
            .last()
            .map(|(_, event)| *event.id.as_uuid())
    }

    /// The ids of all events.
    pub(crate) fn ids(&self) -> impl Iterator<Item = EventId> + '_ {
        self.taken
            .iter()
            .flat_map(|request| &request.append.events)
            .map(|(_, event)| event.id)
    }

    /// Takes the append in, if it may happen after those that are in. `checked_to` is the position
    /// up to which its condition is known to hold; everything else is known up to `head`.
    pub(crate) fn admit(
        &mut self,
        request: &Arc<Request>,
        checked_to: u64,
        cache: &mut StreamCache,
        recent: &mut Recent,
        head: u64,
    ) -> Result<Admission, StoreError> {
        if request
            .append
            .events
            .iter()
            .any(|(_, event)| self.ids.contains(&event.id))
        {
            return Ok(Admission::AfterCommit);
        }
        let mut streams = Vec::with_capacity(request.streams.len());
        for touched in &request.streams {
            let Some((key, entry)) = cache.stream(&touched.stream) else {
                return Ok(Admission::Doubtful);
            };
            match self.now.get(&key) {
                // A neighbour may still be skipped, so the expectation must hold without it, too.
                Some(_)
                    if touched.relies_on_version()
                        || !touched.is_written
                        || !touched.holds(&entry.state()) =>
                {
                    return Ok(Admission::Later);
                }
                Some(_) => {}
                None if touched.holds(&entry.state()) => {}
                None => return Ok(Admission::Doubtful),
            }
            streams.push((key, entry));
        }
        let kinds: Option<Vec<i32>> = request.kinds.iter().map(|kind| cache.kind(kind)).collect();
        let Some(kinds) = kinds else {
            return Ok(Admission::Doubtful);
        };
        if let Some(refused) = self.admit_condition(request, checked_to, recent, head) {
            return Ok(refused);
        }
        let now = time_of(&*request.clock)?.timestamp_micros();
        self.recorded = self.recorded.max(now);
        let append = self.taken.len() as i32;
        // Else each grows a dozen times in an append of thousands.
        self.before.reserve(streams.len());
        self.now.reserve(streams.len());
        self.ids.reserve(request.events.len());
        for (touched, (key, entry)) in request.streams.iter().zip(&streams) {
            if touched.relies_on_version() {
                self.columns.relying_appends.push(append);
                self.columns.relying_streams.push(*key);
                self.columns
                    .relying_versions
                    .push(entry.version.cast_signed());
            }
            if touched.is_written && !self.now.contains_key(key) {
                self.before.insert(*key, entry.version);
                self.now.insert(*key, entry.version);
                if entry.status == Status::Deleted {
                    self.columns.revived.push(*key);
                }
            }
        }
        self.push(request, append, &streams, &kinds);
        Ok(Admission::Taken)
    }

    /// Why the append is not taken for its condition, if it is not; else the condition is checked
    /// against what is newer by the server.
    fn admit_condition(
        &mut self,
        request: &Request,
        checked_to: u64,
        recent: &mut Recent,
        head: u64,
    ) -> Option<Admission> {
        let conditional = request.condition.as_ref()?;
        let query = &conditional.condition.query;
        let mut checked = checked_to;
        if recent.reaches(checked_to, head) {
            if recent.matches_after(checked_to, query) {
                return Some(Admission::Doubtful);
            }
            checked = head.max(checked_to);
        } else if head.saturating_sub(checked_to) > UNCHECKED_MAX {
            return Some(Admission::Doubtful);
        }
        let in_batch = self.taken.iter().flat_map(|request| &request.append.events);
        if in_batch
            .into_iter()
            .any(|(stream, event)| recent::matches(query, stream, event))
        {
            return Some(Admission::Later);
        }
        let append = self.taken.len();
        self.conditions.push(format!(
            "{{\"append\":{append},\"after\":{checked},\"items\":{}}}",
            conditional.items
        ));
        let checked = checked.cast_signed();
        self.least_checked = Some(
            self.least_checked
                .map_or(checked, |least| least.min(checked)),
        );
        None
    }

    fn push(
        &mut self,
        request: &Arc<Request>,
        append: i32,
        streams: &[(i64, StreamEntry)],
        kinds: &[i32],
    ) {
        let columns = &mut self.columns;
        let count = request.events.len() as i32;
        let mut keys = Vec::with_capacity(request.events.len());
        for (index, ((_, event), encoded)) in request
            .append
            .events
            .iter()
            .zip(&request.events)
            .enumerate()
        {
            let key = streams[encoded.stream].0;
            keys.push(key);
            let version = self.now.entry(key).or_default();
            *version += 1;
            columns.appends.push(append);
            columns.streams.push(key);
            columns.versions.push(version.cast_signed());
            columns.kinds.push(kinds[encoded.kind]);
            columns.indexes.push(index as i32);
            columns.counts.push(count);
            columns.occurred.push(encoded.occurred_at);
            columns.recorded.push(self.recorded);
            columns.ids.push(*event.id.as_uuid());
            columns.digests.push(encoded.digest);
            let place = columns.streams.len() as i32;
            columns.tag_hashes.extend(&encoded.hashes);
            columns
                .tag_events
                .extend(encoded.hashes.iter().map(|_| place));
            self.ids.insert(event.id);
        }
        self.keys.push(keys);
        self.taken.push(Arc::clone(request));
    }

    /// The parameters of `sql/append.sql`.
    pub(crate) fn arguments(&self, known: &KnownLog) -> Result<PgArguments, Error> {
        let columns = &self.columns;
        let encoded = || self.taken.iter().flat_map(|request| &request.events);
        let tags: Vec<Option<&str>> = encoded().map(|event| event.tags.as_deref()).collect();
        let metadata: Vec<Option<&[u8]>> =
            encoded().map(|event| event.metadata.as_deref()).collect();
        let events = self.taken.iter().flat_map(|request| &request.append.events);
        let payloads: Vec<&[u8]> = events.map(|(_, event)| &*event.payload).collect();
        let conditions = self
            .least_checked
            .map(|_| format!("[{}]", self.conditions.join(",")));
        let mut arguments = PgArguments::default();
        let give = || -> Result<(), BoxDynError> {
            known.give(&mut arguments)?;
            arguments.add(&columns.appends)?;
            arguments.add(&columns.streams)?;
            arguments.add(&columns.versions)?;
            arguments.add(&columns.kinds)?;
            arguments.add(&columns.indexes)?;
            arguments.add(&columns.counts)?;
            arguments.add(&columns.occurred)?;
            arguments.add(&columns.recorded)?;
            arguments.add(&columns.ids)?;
            arguments.add(&columns.digests)?;
            arguments.add(tags)?;
            arguments.add(metadata)?;
            arguments.add(payloads)?;
            arguments.add(&columns.tag_hashes)?;
            arguments.add(&columns.tag_events)?;
            arguments.add(&columns.revived)?;
            arguments.add(&columns.relying_appends)?;
            arguments.add(&columns.relying_streams)?;
            arguments.add(&columns.relying_versions)?;
            arguments.add(conditions)?;
            arguments.add(self.least_checked)
        };
        give().map_err(Error::Encode)?;
        Ok(arguments)
    }

    /// The parameters of `sql/append_one.sql`; none when it is more than one event, or has
    /// something to be checked against what is newer than `head`.
    pub(crate) fn arguments_of_one(&self, known: &KnownLog) -> Result<Option<PgArguments>, Error> {
        let is_checked = self
            .least_checked
            .is_none_or(|checked| checked >= known.head.cast_signed());
        let Some(one) = self.one().filter(|_| is_checked) else {
            return Ok(None);
        };
        let mut arguments = PgArguments::default();
        let mut give = || -> Result<(), BoxDynError> {
            known.give(&mut arguments)?;
            arguments.add(self.columns.streams[0])?;
            arguments.add(self.columns.versions[0])?;
            one.give(self, &mut arguments)
        };
        give().map_err(Error::Encode)?;
        Ok(Some(arguments))
    }

    /// The parameters of `sql/append_one_then_flush.sql`; none when it is more than one event, or
    /// depends on more than its stream. `reached` is the last event that is known to be in the log.
    pub(crate) fn arguments_of_one_beside(
        &self,
        known: &KnownLog,
        reached: Option<(u64, Uuid)>,
    ) -> Result<Option<PgArguments>, Error> {
        let columns = &self.columns;
        let Some(one) = self.one().filter(|_| self.least_checked.is_none()) else {
            return Ok(None);
        };
        let stream = columns.streams[0];
        if columns
            .relying_streams
            .iter()
            .any(|relying| *relying != stream)
        {
            return Ok(None);
        }
        let mut arguments = PgArguments::default();
        let mut give = || -> Result<(), BoxDynError> {
            match reached {
                Some((position, event)) => known.give_at(position, Some(event), &mut arguments)?,
                None => known.give(&mut arguments)?,
            }
            arguments.add(stream)?;
            arguments.add(columns.versions[0])?;
            arguments.add(!columns.relying_streams.is_empty())?;
            one.give(self, &mut arguments)
        };
        give().map_err(Error::Encode)?;
        Ok(Some(arguments))
    }

    /// Its only event, when it is one event that changes nothing else.
    fn one(&self) -> Option<One<'_>> {
        let [request] = &self.taken[..] else {
            return None;
        };
        let ([(_, event)], [encoded]) = (&request.append.events[..], &request.events[..]) else {
            return None;
        };
        let changes_more = !self.columns.revived.is_empty() || !request.rows.is_empty();
        (!changes_more).then_some(One { event, encoded })
    }

    /// The version of the stream before the only event, which was given this one.
    pub(crate) fn one_before(&self, version: u64) -> Versions {
        let stream = self.columns.streams.first();
        stream
            .map(|stream| (*stream, version - 1))
            .into_iter()
            .collect()
    }

    /// Whether it has rows of inline views.
    pub(crate) fn carries_rows(&self) -> bool {
        self.taken.iter().any(|request| !request.rows.is_empty())
    }

    /// The inline rows, each with the place of its append and how many events of the batch are
    /// before those of that append.
    fn rows(&self) -> Vec<(i32, i32, &Carried, &InlineRow)> {
        let mut rows = Vec::new();
        let mut before = 0;
        for (append, request) in (0..).zip(&self.taken) {
            rows.extend(
                request
                    .rows
                    .iter()
                    .map(|of| (append, before, of, &request.append.rows[of.row])),
            );
            before += request.events.len() as i32;
        }
        rows
    }

    /// The generations and keys of the inline rows.
    pub(crate) fn row_keys(&self) -> (Vec<i64>, Vec<&[u8]>) {
        self.rows()
            .into_iter()
            .map(|(_, _, _, row)| (stored(row.generation.0), row.key.as_bytes()))
            .unzip()
    }

    /// The parameters of `sql/append_with_rows.sql`.
    pub(crate) fn arguments_with_rows(&self, known: &KnownLog) -> Result<PgArguments, Error> {
        let mut arguments = self.arguments(known)?;
        let rows = self.rows();
        // StreamCache count from 1.
        let numbered = || (1_i32..).zip(&rows);
        let entries = || {
            numbered().flat_map(|(place, (.., row))| {
                (0_i64..).zip(&row.indexed).map(move |entry| (place, entry))
            })
        };
        let past = || {
            numbered().flat_map(|(place, (_, before, _, row))| {
                row.past
                    .iter()
                    .map(move |was| (place, before + 1 + was.event as i32, was.value.as_deref()))
            })
        };
        let mut give = || -> Result<(), BoxDynError> {
            arguments.add(rows.iter().map(|(append, ..)| *append).collect::<Vec<_>>())?;
            arguments.add(
                rows.iter()
                    .map(|(_, _, _, row)| stored(row.generation.0))
                    .collect::<Vec<_>>(),
            )?;
            arguments.add(
                rows.iter()
                    .map(|(_, _, _, row)| row.key.as_bytes())
                    .collect::<Vec<_>>(),
            )?;
            arguments.add(
                rows.iter()
                    .map(|(_, _, _, row)| stored(row.from.get()))
                    .collect::<Vec<_>>(),
            )?;
            arguments.add(
                rows.iter()
                    .map(|(_, _, carried, _)| stored(carried.to.get()))
                    .collect::<Vec<_>>(),
            )?;
            arguments.add(
                rows.iter()
                    .map(|(_, _, _, row)| row.value.as_deref())
                    .collect::<Vec<_>>(),
            )?;
            arguments.add(
                rows.iter()
                    .map(|(_, _, carried, _)| carried.has_indexes)
                    .collect::<Vec<_>>(),
            )?;
            arguments.add(
                rows.iter()
                    .map(|(_, _, carried, _)| carried.is_bitemporal)
                    .collect::<Vec<_>>(),
            )?;
            arguments.add(entries().map(|(place, ..)| place).collect::<Vec<_>>())?;
            arguments.add(entries().map(|(_, (index, _))| index).collect::<Vec<_>>())?;
            arguments.add(
                entries()
                    .map(|(_, (_, entry))| entry.as_bytes())
                    .collect::<Vec<_>>(),
            )?;
            arguments.add(past().map(|(place, ..)| place).collect::<Vec<_>>())?;
            arguments.add(past().map(|(_, event, _)| event).collect::<Vec<_>>())?;
            arguments.add(past().map(|(.., value)| value).collect::<Vec<_>>())
        };
        give().map_err(Error::Encode)?;
        Ok(arguments)
    }

    /// The placed events of each append, in the order of the batch; nothing for those that were
    /// skipped. What is cached of the streams, and of the newest events, is updated.
    pub(crate) fn settle(
        self,
        written: &Written,
        cache: &mut StreamCache,
        recent: &mut Recent,
    ) -> Vec<Option<Vec<Placed>>> {
        let Batch {
            taken,
            keys,
            mut before,
            ..
        } = self;
        for (key, version) in &written.moved {
            if let Some(before) = before.get_mut(key) {
                *before = (*before).max(*version);
            }
        }
        let mut position = written.first;
        let settle = |(append, (request, keys)): (usize, (Arc<Request>, Vec<i64>))| {
            if written.skips.contains(&append) {
                return None;
            }
            let first = position;
            let placed = request
                .append
                .events
                .iter()
                .zip(keys)
                .map(|((stream, event), key)| {
                    let version = before.entry(key).or_default();
                    *version += 1;
                    cache.written(key, *version);
                    let placed = Placed {
                        id: event.id,
                        stream: stream.clone(),
                        version: Version::new(*version),
                        partition: PARTITION,
                        position: Position::new(position),
                    };
                    position += 1;
                    placed
                });
            let placed = placed.collect();
            recent.push(first, &request);
            Some(placed)
        };
        taken
            .into_iter()
            .zip(keys)
            .enumerate()
            .map(settle)
            .collect()
    }
}
