//! One page, from one read transaction: of a stream, of the log, of a query.

use annals_core::{
    Direction, Filter, Head, LogPage, Position, Query, ReadLog, ReadQuery, ReadStream,
    RecordedEvent, Shown, StreamPage, Version,
};
use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension};
use std::ops::Bound;

use crate::error::corrupt;
use crate::positions::{Node, Walk};
use crate::query_plan::{self, Kinds, Plan};
use crate::row::{KIND, Names, POSITION, Page, REMOVED};
use crate::statements as sql;
use crate::streams;

/// Events in one page at most, so that its memory is bounded also when the payloads are small.
const EVENTS_MAX: usize = 16_384;
/// Rows and index steps that one page looks at, at least and for each event that was asked for.
const LOOKED_AT_MIN: usize = 8_192;
const LOOKED_AT_PER_EVENT: usize = 8;
/// When so many events in a row of a filter by type stand in so many times as many positions, a
/// scan is cheaper than the index.
const SAMPLE: usize = 64;
const DENSE: u64 = 4;

/// A page of one stream, its state and the head. The transaction is the caller's.
pub(crate) fn of_stream(
    connection: &Connection,
    names: &mut Names,
    read: &ReadStream,
) -> Result<StreamPage, rusqlite::Error> {
    let (key, state) = streams::state(connection, &read.stream)?;
    let (head, _) = streams::head(connection)?;
    let head = Position::new(head);
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
    let (head, _) = streams::head(connection)?;
    let range = Range::new(head, read.after, read.up_to, read.direction, read.limit);
    let filter = &read.filter;
    let recorded = &read.filter.recorded;
    // Recorded times never go backwards, so a span of them is a range of positions.
    let low = match recorded.0 {
        Bound::Unbounded => 0,
        Bound::Included(moment) => position_before(connection, head, moment.timestamp_micros())?,
        Bound::Excluded(moment) => position_at(connection, head, moment.timestamp_micros())?,
    };
    let high = match recorded.1 {
        Bound::Unbounded => head,
        Bound::Included(moment) => position_at(connection, head, moment.timestamp_micros())?,
        Bound::Excluded(moment) => position_before(connection, head, moment.timestamp_micros())?,
    };
    let inner = range.narrowed(low, high);
    if inner.is_empty() {
        return Ok(range.looked_through(Vec::new()));
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
    let (head, _) = streams::head(connection)?;
    let range = Range::new(head, read.after, read.up_to, read.direction, read.limit);
    if range.is_empty() {
        return Ok(range.looked_through(Vec::new()));
    }
    let plan = query_plan::for_query(connection, &read.query)?;
    scanned(
        &range,
        range.read(connection, names, plan, Wanted::Query(&read.query))?,
    )
}

/// The last position that was recorded at or before a moment.
pub(crate) fn at_moment(
    connection: &Connection,
    moment: DateTime<Utc>,
) -> Result<Position, rusqlite::Error> {
    let (head, _) = streams::head(connection)?;
    position_at(connection, head, moment.timestamp_micros()).map(Position::new)
}

fn position_before(
    connection: &Connection,
    head: u64,
    micros: i64,
) -> Result<u64, rusqlite::Error> {
    match micros.checked_sub(1) {
        Some(before) => position_at(connection, head, before),
        None => Ok(0),
    }
}

fn position_at(connection: &Connection, head: u64, micros: i64) -> Result<u64, rusqlite::Error> {
    let mut statement = connection.prepare_cached(sql::RECORDED_AT)?;
    let mut known = 0;
    let mut above = head + 1;
    while known + 1 < above {
        let middle = known + (above - known) / 2;
        let recorded: Option<i64> = statement
            .query_row([middle.cast_signed()], |row| row.get(0))
            .optional()?;
        let recorded = recorded.ok_or_else(|| corrupt(format!("position {middle} is missing")))?;
        if recorded <= micros {
            known = middle
        } else {
            above = middle
        }
    }
    Ok(known)
}

/// The positions that were asked for, and how.
#[derive(Clone, Copy, Debug)]
struct Range {
    after: u64,
    up_to: u64,
    head: u64,
    limit: usize,
    direction: Direction,
}

/// What the events of a page must be, besides standing where the indexes say.
#[derive(Clone, Copy, Debug)]
enum Wanted<'a> {
    Filter(&'a Filter),
    Query(&'a Query),
}

impl Wanted<'_> {
    fn matches(self, event: &RecordedEvent) -> bool {
        match self {
            Wanted::Filter(filter) => filter.matches(event),
            Wanted::Query(query) => query.matches(event),
        }
    }

    /// Whether a kind that was asked for is all there is to it.
    fn is_kinds_alone(self) -> bool {
        match self {
            Wanted::Filter(filter) => {
                let unbounded = (Bound::Unbounded, Bound::Unbounded);
                filter.categories.is_empty()
                    && filter.tags.is_empty()
                    && filter.stream_prefixes.is_empty()
                    && filter.occurred == unbounded
            }
            Wanted::Query(query) => query
                .items()
                .iter()
                .any(|item| *item == annals_core::QueryItem::default()),
        }
    }
}

/// What was found, and the last position that was looked at when the range was not looked through.
type Found = (Vec<RecordedEvent>, Option<u64>);

/// The page that says how far the range was looked through.
fn scanned(range: &Range, (events, stopped): Found) -> Result<LogPage, rusqlite::Error> {
    let end = match range.direction {
        Direction::Forward => range.up_to,
        Direction::Backward => range.after + 1,
    };
    Ok(match stopped {
        Some(position) if position != end => LogPage {
            events,
            scanned: Position::new(position),
            end: false,
            head: range.head(),
        },
        _ => range.looked_through(events),
    })
}

impl Range {
    fn new(
        head: u64,
        after: Position,
        up_to: Position,
        direction: Direction,
        limit: usize,
    ) -> Range {
        Range {
            after: after.get(),
            up_to: up_to.get().min(head),
            head,
            limit: limit.min(EVENTS_MAX),
            direction,
        }
    }

    fn narrowed(self, low: u64, high: u64) -> Range {
        Range {
            after: self.after.max(low),
            up_to: self.up_to.min(high),
            ..self
        }
    }

    fn is_empty(&self) -> bool {
        self.after >= self.up_to
    }

    fn head(&self) -> Head {
        Head::at(Position::new(self.head))
    }

    /// Everything in the range was looked at.
    fn looked_through(&self, events: Vec<RecordedEvent>) -> LogPage {
        let scanned = match self.direction {
            Direction::Forward if self.is_empty() => self.after,
            Direction::Forward => self.up_to,
            Direction::Backward if self.is_empty() => self.up_to + 1,
            Direction::Backward => self.after + 1,
        };
        LogPage {
            events,
            scanned: Position::new(scanned),
            end: true,
            head: self.head(),
        }
    }

    /// Just before the first position.
    fn before_first(&self) -> u64 {
        match self.direction {
            Direction::Forward => self.after,
            Direction::Backward => self.up_to + 1,
        }
    }

    fn looked_at_max(&self) -> usize {
        self.limit
            .saturating_mul(LOOKED_AT_PER_EVENT)
            .max(LOOKED_AT_MIN)
    }

    fn read(
        &self,
        connection: &Connection,
        names: &mut Names,
        plan: Plan,
        wanted: Wanted<'_>,
    ) -> Result<Found, rusqlite::Error> {
        if self.limit == 0 {
            return Ok((Vec::new(), Some(self.before_first())));
        }
        match plan {
            Plan::Nothing => Ok((Vec::new(), None)),
            Plan::Scan { kinds } => self.scan(connection, names, kinds.as_ref(), wanted),
            Plan::Index { node, kinds } => {
                self.walk(connection, names, node, kinds.as_ref(), wanted)
            }
        }
    }

    /// Looks at one event after the other.
    fn scan(
        &self,
        connection: &Connection,
        names: &mut Names,
        kinds: Option<&Kinds>,
        wanted: Wanted<'_>,
    ) -> Result<Found, rusqlite::Error> {
        let statement = match self.direction {
            Direction::Forward => sql::LOG_FORWARD,
            Direction::Backward => sql::LOG_BACKWARD,
        };
        let expected = usize::try_from(self.up_to - self.after).unwrap_or(usize::MAX);
        let mut page = Page::new(connection, names, self.limit.min(expected));
        let rows_max = self.looked_at_max();
        let unconditional = wanted.is_kinds_alone();
        let mut statement = connection.prepare_cached(statement)?;
        let low = self.after.cast_signed() + 1;
        let high = self.up_to.cast_signed();
        let mut rows = statement.query((low, high, rows_max as i64))?;
        let mut looked_at = 0;
        let mut last = self.before_first();
        while !page.is_full(self.limit) {
            let Some(row) = rows.next()? else {
                let stopped = (looked_at == rows_max).then_some(last);
                return Ok((page.finish(), stopped));
            };
            looked_at += 1;
            last = streams::number(row, POSITION)?;
            let kind = row.get(KIND)?;
            if kind == REMOVED || kinds.is_some_and(|kinds| !kinds.contains(kind)) {
                continue;
            }
            page.push(row)?;
            if !unconditional && page.last().is_some_and(|event| !wanted.matches(event)) {
                page.pop();
            }
        }
        Ok((page.finish(), Some(last)))
    }

    /// Takes the positions from the indexes and looks up the events there.
    fn walk(
        &self,
        connection: &Connection,
        names: &mut Names,
        mut node: Node,
        kinds: Option<&Kinds>,
        wanted: Wanted<'_>,
    ) -> Result<Found, rusqlite::Error> {
        let mut walk = Walk::new(connection, self.direction, self.after + 1..=self.up_to);
        walk.steps_left = self.looked_at_max();
        let mut ahead = Vec::with_capacity(SAMPLE);
        let mut from = Some(walk.first());
        if let Some(kinds) = kinds {
            while let Some(position) = next(&mut node, &mut walk, &mut from)? {
                ahead.push(position);
                if ahead.len() == SAMPLE {
                    break;
                }
            }
            let span = ahead
                .last()
                .map_or(u64::MAX, |last| last.abs_diff(self.before_first()));
            if ahead.len() == SAMPLE && span <= SAMPLE as u64 * DENSE {
                return self.scan(connection, names, Some(kinds), wanted);
            }
        }
        let mut page = Page::new(connection, names, self.limit.min(SAMPLE));
        let mut statement = connection.prepare_cached(sql::EVENT)?;
        let mut ahead = ahead.into_iter();
        let mut looked_at = 0;
        let mut last = self.before_first();
        loop {
            if page.is_full(self.limit) || looked_at >= self.looked_at_max() {
                return Ok((page.finish(), Some(last)));
            }
            let position = match ahead.next() {
                Some(position) => Some(position),
                None => next(&mut node, &mut walk, &mut from)?,
            };
            let Some(position) = position else {
                let stopped = walk.paused_at.map(|paused| match self.direction {
                    Direction::Forward => last.max(paused - 1),
                    Direction::Backward => last.min(paused + 1),
                });
                return Ok((page.finish(), stopped));
            };
            looked_at += 1;
            last = position;
            let mut rows = statement.query([position.cast_signed()])?;
            let Some(row) = rows.next()? else {
                return Err(corrupt(format!(
                    "position {position} is in an index and not in the log"
                )));
            };
            page.push(row)?;
            if page.last().is_some_and(|event| !wanted.matches(event)) {
                page.pop();
            }
        }
    }
}

fn next(
    node: &mut Node,
    walk: &mut Walk<'_>,
    from: &mut Option<u64>,
) -> Result<Option<u64>, rusqlite::Error> {
    let Some(at) = *from else { return Ok(None) };
    let found = node.seek(walk, at)?;
    *from = found.and_then(|found| walk.behind(found));
    Ok(found)
}
