//! One page, from one statement and so from one moment: of a stream, of the log, of a query.

use std::sync::Arc;

use annals_core::{
    Condition, Direction, Filter, Head, LogPage, PAGE_BYTES_MAX, PAGE_REMOVED_MAX, Position,
    ReadLog, ReadQuery, ReadStream, RecordedEvent, RemovedEvent, Shown, StreamPage, Version,
};
use sqlx::{Error, query, query_with};

use crate::database::Database;
use crate::events::{self, Read};
use crate::query_plan::{self, Search, Wanted};
use crate::row::{int8, moment, number, optional_int8, stream_id, text};
use crate::scan::{ScanEnd, scan};
use crate::statements as sql;
use crate::streams;

/// Events in one page at most, so that its memory is bounded also when the payloads are small.
const EVENTS_MAX: usize = 16_384;

/// Positions that one page looks through at most when no index gives exactly what is wanted; some
/// tens of milliseconds.
const WINDOW: u64 = 65_536;

/// A page of one stream, its state and the head.
pub(crate) async fn of_stream(
    database: &Arc<Database>,
    read: &ReadStream,
) -> Result<StreamPage, Error> {
    let history = database.incarnation.number();
    let query = query(database.ordered(sql::STREAM_PAGE, read.direction))
        .bind(read.stream.as_str())
        .bind(read.from.get().cast_signed())
        .bind(read.to.get().cast_signed())
        .bind(read.shown == Shown::Everything)
        .bind(read.limit.min(EVENTS_MAX) as i64)
        .bind(PAGE_BYTES_MAX as i64);
    let Read { seen, events, .. } = events::read(database, query, 9, streams::seen).await?;
    let head = database.durable_head(history, seen.last, seen.head).await?;
    let state = seen.state;
    let shown_from = match read.shown {
        Shown::Visible => state.first_visible(),
        Shown::Everything => state.archived_before,
    };
    let from = read.from.max(shown_from).max(Version::FIRST);
    let to = read.to.min(state.version);
    // Versions in the range have no holes.
    let next = match (events.last().map(|event| event.version), read.direction) {
        _ if from > to => None,
        (None, Direction::Forward) => Some(from),
        (None, Direction::Backward) => Some(to),
        (Some(last), Direction::Forward) => (last < to).then(|| last.next()),
        (Some(last), Direction::Backward) => (last > from).then(|| Version::new(last.get() - 1)),
    };
    Ok(StreamPage {
        events,
        next,
        state,
        head: Position::new(head),
    })
}

/// A page of the log.
pub(crate) async fn of_log(database: &Arc<Database>, read: &ReadLog) -> Result<LogPage, Error> {
    let history = database.incarnation.number();
    let filter = &read.filter;
    let mut range = Range {
        after: read.after.get(),
        up_to: read.up_to.get(),
        direction: read.direction,
    };
    let span = recorded_in(database, filter).await?;
    if let Some(span) = &span {
        // What was recorded since the span was looked up is left to the next page.
        range.up_to = range.up_to.min(span.head);
    }
    let inner = span
        .as_ref()
        .map_or(range, |span| range.narrowed(span.low, span.high));
    let wanted = Wanted::by_filter(filter);
    let mut page = range.read(database, inner, &[wanted], read.limit).await?;
    if let Some(span) = span {
        page.head = Head::at(Position::new(span.head));
    }
    let page = with_removed(database, page, read).await?;
    durable(database, history, page).await
}

/// The page once everything in it is durable. A page that ends before the head says no more of what
/// is after it than what is known to be durable.
async fn durable(database: &Database, history: u64, page: LogPage) -> Result<LogPage, Error> {
    let positions = page.events.iter().map(|event| event.position);
    let last = positions.fold(page.scanned, Position::max);
    let head = page.head.visible;
    let last = last.min(head).get();
    let head = database.durable_head(history, last, head.get()).await?;
    Ok(LogPage {
        head: Head::at(Position::new(head)),
        ..page
    })
}

/// A page of what a query matches.
pub(crate) async fn of_query(database: &Arc<Database>, read: &ReadQuery) -> Result<LogPage, Error> {
    let history = database.incarnation.number();
    let range = Range {
        after: read.after.get(),
        up_to: read.up_to.get(),
        direction: read.direction,
    };
    let page = range
        .read(database, range, &Wanted::by_query(&read.query), read.limit)
        .await?;
    durable(database, history, page).await
}

/// The page with what was removed in its range. It is read after the events: nothing that was
/// removed comes back, and what the page has is not named.
async fn with_removed(
    database: &Arc<Database>,
    page: LogPage,
    read: &ReadLog,
) -> Result<LogPage, Error> {
    let Some((first, last)) = page.gaps(read) else {
        return Ok(page);
    };
    let rows = query(database.ordered(sql::REMOVED, read.direction))
        .bind(first.get().cast_signed())
        .bind(last.get().cast_signed())
        .bind(PAGE_REMOVED_MAX as i64 + 1)
        .fetch_all(&database.pool)
        .await?;
    let found = rows
        .iter()
        .map(|row| {
            Ok(RemovedEvent {
                position: Position::new(number(row, 0)?),
                stream: stream_id(row, 1)?,
                event_type: Some(text(row, 2)?)
                    .filter(|name| !name.is_empty())
                    .map(Into::into),
                occurred_at: moment(int8(row, 3)?)?,
                recorded_at: moment(int8(row, 4)?)?,
            })
        })
        .collect::<Result<_, Error>>()?;
    Ok(page.with_removed(read, found))
}

/// The head, all of it durable.
pub(crate) async fn durable_head(database: &Arc<Database>) -> Result<u64, Error> {
    let history = database.incarnation.number();
    let head = head(database).await?;
    database.until_durable(history, head).await?;
    Ok(head)
}

/// How far the log goes.
async fn head(database: &Arc<Database>) -> Result<u64, Error> {
    let row = query(database.text(sql::HEAD))
        .fetch_one(&database.pool)
        .await?;
    number(&row, 0)
}

/// The first position after the condition's at which its query matches, and how far the log goes.
pub(crate) async fn first_match(
    database: &Arc<Database>,
    condition: &Condition,
    after: Position,
) -> Result<(Option<Position>, u64), Error> {
    let search = Search::new(after.get(), Position::MAX.get(), Direction::Forward, 1)?;
    let (text, arguments) = search.first(&Wanted::by_query(&condition.query))?;
    let row = query_with(database.named(&text), arguments)
        .fetch_one(&database.pool)
        .await?;
    let found = optional_int8(&row, 1)?.map(|position| Position::new(position.cast_unsigned()));
    Ok((found, number(&row, 0)?))
}

/// The last position that was recorded at or before a microsecond, and how far the log goes.
pub(crate) async fn position_at(
    database: &Arc<Database>,
    micros: i64,
) -> Result<(u64, u64), Error> {
    let row = query(database.text(sql::POSITION_AT))
        .bind(micros)
        .fetch_one(&database.pool)
        .await?;
    Ok((number(&row, 0)?, number(&row, 1)?))
}

/// A span of recorded times as positions: after `low`, at or before `high`, in a log that goes to
/// `head`.
struct Span {
    low: u64,
    high: u64,
    head: u64,
}

/// Recorded times never go backwards, so a span of them is a range of positions. None when the
/// filter names none.
async fn recorded_in(database: &Arc<Database>, filter: &Filter) -> Result<Option<Span>, Error> {
    let low = query_plan::after(filter.recorded.0);
    let high = query_plan::up_to(filter.recorded.1);
    if (low, high) == (None, None) {
        return Ok(None);
    }
    let mut span = Span {
        low: 0,
        high: u64::MAX,
        head: u64::MAX,
    };
    for (bound, place) in [(low, &mut span.low), (high, &mut span.high)] {
        if let Some(micros) = bound {
            let (position, head) = position_at(database, micros).await?;
            *place = position;
            span.head = span.head.min(head);
        }
    }
    Ok(Some(span))
}

/// The positions that were asked for: after `after`, at or before `up_to`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    pub(crate) after: u64,
    pub(crate) up_to: u64,
    pub(crate) direction: Direction,
}

impl Range {
    fn narrowed(self, low: u64, high: u64) -> Range {
        Range {
            after: self.after.max(low),
            up_to: self.up_to.min(high),
            ..self
        }
    }

    /// The first `WINDOW` positions of the range.
    fn window(self) -> Range {
        match self.direction {
            Direction::Forward => Range {
                up_to: self.up_to.min(self.after.saturating_add(WINDOW)),
                ..self
            },
            Direction::Backward => Range {
                after: self.after.max(self.up_to.saturating_sub(WINDOW)),
                ..self
            },
        }
    }

    /// The last position of the range in its direction.
    fn end(&self) -> u64 {
        match self.direction {
            Direction::Forward => self.up_to,
            Direction::Backward => self.after + 1,
        }
    }

    /// Reads a page of `inner`, outside of which nothing of this range is wanted.
    async fn read(
        mut self,
        database: &Arc<Database>,
        mut inner: Range,
        wanted: &[Wanted<'_>],
        limit: usize,
    ) -> Result<LogPage, Error> {
        let limit = limit.min(EVENTS_MAX);
        let is_direct = wanted.iter().all(|wanted| wanted.is_direct());
        // A read that begins at the end must know it beforehand; what is appended meanwhile is not
        // in the page, nor is it below its head.
        let mut moment = u64::MAX;
        if limit == 0
            || (!is_direct && self.direction == Direction::Backward)
            || inner.after >= inner.up_to
        {
            let head = head(database).await?;
            moment = head;
            self.up_to = self.up_to.min(head);
            inner.up_to = inner.up_to.min(head);
            if inner.after >= inner.up_to {
                return Ok(self.page(Vec::new(), None, head));
            }
            if limit == 0 {
                let before_first = if self.direction == Direction::Forward {
                    inner.after
                } else {
                    inner.up_to + 1
                };
                return Ok(self.page(Vec::new(), Some(before_first), head));
            }
        }
        let looked_through = if is_direct { inner } else { inner.window() };
        let ScanEnd {
            events,
            is_cut,
            head,
        } = scan(database, looked_through, wanted, limit).await?;
        let head = head.min(moment);
        self.up_to = self.up_to.min(head);
        inner.up_to = inner.up_to.min(head);
        let stopped = if events.len() >= limit || is_cut {
            events.last().map(|event| event.position.get())
        } else {
            let looked_through = looked_through.narrowed(0, head);
            (looked_through.end() != inner.end() && looked_through.after < looked_through.up_to)
                .then(|| looked_through.end())
        };
        Ok(self.page(events, stopped, head))
    }

    /// The page that says how far the range was looked through: up to `stopped`, or all of it.
    fn page(&self, events: Vec<RecordedEvent>, stopped: Option<u64>, head: u64) -> LogPage {
        let stopped = stopped.filter(|position| *position != self.end());
        let scanned = stopped.unwrap_or(match self.direction {
            Direction::Forward => self.up_to.max(self.after),
            Direction::Backward => self.up_to.min(self.after) + 1,
        });
        let head = Head::at(Position::new(head));
        LogPage {
            events,
            removed: Vec::new(),
            scanned: Position::new(scanned),
            end: stopped.is_none(),
            head,
        }
    }
}
