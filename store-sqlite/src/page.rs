//! One page, from one read transaction: of a stream, of the log, of a query.

use std::ops::Bound;

use annals_core::{
    Direction, LogPage, PAGE_REMOVED_MAX, Position, ReadLog, ReadQuery, ReadStream, RemovedEvent,
    Shown, StreamPage, Version,
};
use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension};

use crate::error::corrupt;
use crate::known::stream_id;
use crate::query_plan;
use crate::range::{EVENTS_MAX, Range, Wanted, scanned};
use crate::row::{Names, Page};
use crate::statements as sql;
use crate::streams::{moment, number};
use crate::write_tx::Tail;

/// A page of one stream, its state and the head. The transaction is the caller's.
pub(crate) fn of_stream(
    connection: &Connection,
    names: &mut Names,
    read: &ReadStream,
) -> Result<StreamPage, rusqlite::Error> {
    let (key, state) = names.state(connection, &read.stream)?;
    let head = Position::new(head(connection)?);
    let shown_from = match read.shown {
        Shown::Visible => state.first_visible(),
        Shown::Everything => state.archived_before,
    };
    let from = read.from.max(shown_from).max(Version::FIRST);
    let to = read.to.min(state.version);
    let Some(key) = key.filter(|_| from <= to) else {
        return Ok(StreamPage {
            events: Vec::new(),
            next: None,
            state,
            head,
        });
    };
    let limit = read.limit.min(EVENTS_MAX);
    let (statement, first) = match read.direction {
        Direction::Forward => (sql::STREAM_FORWARD, from),
        Direction::Backward => (sql::STREAM_BACKWARD, to),
    };
    let expected = usize::try_from(to.get() - from.get() + 1).unwrap_or(usize::MAX);
    let mut page = Page::new(connection, names, limit.min(expected));
    let mut statement = connection.prepare_cached(statement)?;
    let mut rows = statement.query((
        key,
        from.get().cast_signed(),
        to.get().cast_signed(),
        limit as i64,
    ))?;
    while !page.is_full(limit) {
        let Some(row) = rows.next()? else { break };
        page.push(row)?;
    }
    // Versions in the range have no holes.
    let next = match (page.last().map(|event| event.version), read.direction) {
        (None, _) => Some(first),
        (Some(last), Direction::Forward) => (last < to).then(|| last.next()),
        (Some(last), Direction::Backward) => (last > from).then(|| Version::new(last.get() - 1)),
    };
    Ok(StreamPage {
        next,
        events: page.finish(),
        state,
        head,
    })
}

/// A page of the log. The transaction is the caller's.
pub(crate) fn of_log(
    connection: &Connection,
    names: &mut Names,
    read: &ReadLog,
) -> Result<LogPage, rusqlite::Error> {
    let page = events_of_log(connection, names, read)?;
    let Some(range) = page.gaps(read) else {
        return Ok(page);
    };
    let found = removed(connection, read.direction, range)?;
    Ok(page.with_removed(read, found))
}

fn events_of_log(
    connection: &Connection,
    names: &mut Names,
    read: &ReadLog,
) -> Result<LogPage, rusqlite::Error> {
    let head = head(connection)?;
    let range = Range::new(head, read.after, read.up_to, read.direction, read.limit);
    let filter = &read.filter;
    let recorded = &read.filter.recorded;
    // Recorded times never go backwards, so a span of them is a range of positions.
    let low = match recorded.0 {
        Bound::Unbounded => 0,
        Bound::Included(moment) => last_before(connection, head, moment)?,
        Bound::Excluded(moment) => last_at(connection, head, moment)?,
    };
    let high = match recorded.1 {
        Bound::Unbounded => head,
        Bound::Included(moment) => last_at(connection, head, moment)?,
        Bound::Excluded(moment) => last_before(connection, head, moment)?,
    };
    let inner = range.narrowed(low, high);
    if inner.is_empty() {
        return Ok(range.complete(Vec::new()));
    }
    let plan = query_plan::for_filter(connection, filter)?;
    let wanted = Wanted::Filter(filter);
    scanned(&range, inner.read(connection, names, plan, wanted)?)
}

/// A page of what a query matches. The transaction is the caller's.
pub(crate) fn of_query(
    connection: &Connection,
    names: &mut Names,
    read: &ReadQuery,
) -> Result<LogPage, rusqlite::Error> {
    let head = head(connection)?;
    let range = Range::new(head, read.after, read.up_to, read.direction, read.limit);
    if range.is_empty() {
        return Ok(range.complete(Vec::new()));
    }
    let plan = query_plan::for_query(connection, &read.query)?;
    scanned(
        &range,
        range.read(connection, names, plan, Wanted::Query(&read.query))?,
    )
}

/// What is left of the removed events of a range, one more than a page may name.
fn removed(
    connection: &Connection,
    direction: Direction,
    (first, last): (Position, Position),
) -> Result<Vec<RemovedEvent>, rusqlite::Error> {
    let statement = match direction {
        Direction::Forward => sql::REMOVED_FORWARD,
        Direction::Backward => sql::REMOVED_BACKWARD,
    };
    let range = (first.get().cast_signed(), last.get().cast_signed());
    connection
        .prepare_cached(statement)?
        .query_map((range.0, range.1, PAGE_REMOVED_MAX as i64 + 1), |row| {
            Ok(RemovedEvent {
                position: Position::new(number(row, 0)?),
                stream: stream_id(row, 1)?,
                event_type: row
                    .get::<_, Option<String>>(2)?
                    .filter(|name| !name.is_empty())
                    .map(Into::into),
                occurred_at: moment(row.get(3)?)?,
                recorded_at: moment(row.get(4)?)?,
            })
        })?
        .collect()
}

/// The last position that was recorded at or before a moment.
pub(crate) fn at_moment(
    connection: &Connection,
    moment: DateTime<Utc>,
) -> Result<Position, rusqlite::Error> {
    let head = head(connection)?;
    last_at(connection, head, moment).map(Position::new)
}

/// The last position.
pub(crate) fn head(connection: &Connection) -> Result<u64, rusqlite::Error> {
    Tail::read(connection).map(|tail| tail.head)
}

/// The last position that was recorded before a moment.
fn last_before(
    connection: &Connection,
    head: u64,
    moment: DateTime<Utc>,
) -> Result<u64, rusqlite::Error> {
    // What is stored has whole microseconds: before the middle of one is at or before its start.
    if !moment.timestamp_subsec_nanos().is_multiple_of(1_000) {
        return last_at(connection, head, moment);
    }
    match moment.timestamp_micros().checked_sub(1) {
        Some(micros) => last_at_micros(connection, head, micros),
        None => Ok(0),
    }
}

/// The last position that was recorded at or before a moment.
fn last_at(
    connection: &Connection,
    head: u64,
    moment: DateTime<Utc>,
) -> Result<u64, rusqlite::Error> {
    last_at_micros(connection, head, moment.timestamp_micros())
}

fn last_at_micros(connection: &Connection, head: u64, micros: i64) -> Result<u64, rusqlite::Error> {
    let mut statement = connection.prepare_cached(sql::RECORDED_AT)?;
    let mut at_or_before = 0;
    let mut after = head + 1;
    while at_or_before + 1 < after {
        let middle = at_or_before + (after - at_or_before) / 2;
        let recorded: Option<i64> = statement
            .query_row([middle.cast_signed()], |row| row.get(0))
            .optional()?;
        let recorded = recorded.ok_or_else(|| corrupt(format!("position {middle} is missing")))?;
        if recorded <= micros {
            at_or_before = middle;
        } else {
            after = middle;
        }
    }
    Ok(at_or_before)
}
