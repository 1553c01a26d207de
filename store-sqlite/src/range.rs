//! Reading the events of a range of positions that match, by a scan or by indexes, within a bound.

use std::ops::Bound;

use annals_core::{Direction, Filter, Head, LogPage, Position, Query, RecordedEvent};
use rusqlite::Connection;

use crate::error::corrupt;
use crate::positions::{Node, Walk};
use crate::query_plan::{Kinds, Plan};
use crate::row::{KIND, Names, POSITION, Page, REMOVED};
use crate::statements as sql;
use crate::streams;

/// Events in one page at most, so that its memory is bounded also when the payloads are small.
pub(crate) const EVENTS_MAX: usize = 16_384;
/// Rows and index steps that one page examines, at least and for each event that was asked for.
const EXAMINED_MIN: usize = 8_192;
const EXAMINED_PER_EVENT: usize = 8;
/// When so many events in a row of a filter by type lie in so many times as many positions, a scan
/// is cheaper than the index.
const SAMPLE: usize = 64;
const DENSE: u64 = 4;

/// The positions that were asked for, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    after: u64,
    up_to: u64,
    head: u64,
    limit: usize,
    direction: Direction,
}

/// What the events of a page must match, besides being where the indexes say.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted<'a> {
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

/// What was found, and the last position that was examined when the rest of the range was not.
pub(crate) type Found = (Vec<RecordedEvent>, Option<u64>);

/// The page of what was found, and how far the range was examined.
pub(crate) fn scanned(range: &Range, (events, stopped): Found) -> Result<LogPage, rusqlite::Error> {
    let end = match range.direction {
        Direction::Forward => range.up_to,
        Direction::Backward => range.after + 1,
    };
    Ok(match stopped {
        Some(position) if position != end => LogPage {
            events,
            removed: Vec::new(),
            scanned: Position::new(position),
            end: false,
            head: range.head(),
        },
        _ => range.complete(events),
    })
}

impl Range {
    pub(crate) fn new(
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

    pub(crate) fn narrowed(self, low: u64, high: u64) -> Range {
        Range {
            after: self.after.max(low),
            up_to: self.up_to.min(high),
            ..self
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.after >= self.up_to
    }

    fn head(&self) -> Head {
        Head::at(Position::new(self.head))
    }

    /// The page of a range that was examined whole.
    pub(crate) fn complete(&self, events: Vec<RecordedEvent>) -> LogPage {
        let scanned = match self.direction {
            Direction::Forward if self.is_empty() => self.after,
            Direction::Forward => self.up_to,
            Direction::Backward if self.is_empty() => self.up_to + 1,
            Direction::Backward => self.after + 1,
        };
        LogPage {
            events,
            removed: Vec::new(),
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

    fn examined_max(&self) -> usize {
        self.limit
            .saturating_mul(EXAMINED_PER_EVENT)
            .max(EXAMINED_MIN)
    }

    pub(crate) fn read(
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

    /// Examines one event after the other.
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
        let rows_max = self.examined_max();
        let unconditional = wanted.is_kinds_alone();
        let mut statement = connection.prepare_cached(statement)?;
        let low = self.after.cast_signed() + 1;
        let high = self.up_to.cast_signed();
        let mut rows = statement.query((low, high, rows_max as i64))?;
        let mut examined = 0;
        let mut last = self.before_first();
        while !page.is_full(self.limit) {
            let Some(row) = rows.next()? else {
                let stopped = (examined == rows_max).then_some(last);
                return Ok((page.finish(), stopped));
            };
            examined += 1;
            last = streams::number(row, POSITION)?;
            let kind = row.get(KIND)?;
            if kind <= REMOVED || kinds.is_some_and(|kinds| !kinds.contains(kind)) {
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
        walk.steps_left = self.examined_max();
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
        let mut examined = 0;
        let mut last = self.before_first();
        loop {
            if page.is_full(self.limit) || examined >= self.examined_max() {
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
            examined += 1;
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
    *from = found.and_then(|found| walk.after(found));
    Ok(found)
}
