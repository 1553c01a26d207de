//! One page, from one statement and so from one moment: of a stream, of the log, of a query.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use annals_core::{
    Condition, Direction, Filter, Head, LogPage, PAGE_BYTES_MAX, Position, ReadLog, ReadQuery,
    ReadStream, RecordedEvent, Shown, StreamPage, Version,
};
use sqlx::postgres::PgRow;
use sqlx::{Error, query, query_with};

use crate::copied::Copied;
use crate::database::Database;
use crate::events::{self, Read};
use crate::query_plan::{self, Search, Statement, Wanted};
use crate::row::{number, optional_int8};
use crate::statements as sql;
use crate::streams;

/// Events in one page at most, so that its memory is bounded also when the payloads are small.
const EVENTS_MAX: usize = 16_384;

/// Payloads of up to so many bytes are small: so many events of them fit into memory.
const SMALL_BYTES: usize = 4 << 10;
const SMALL_EVENTS_MAX: usize = 4_096;

/// Types of which there is one event in so many of the log, or more, are read along with it.
const AMONG: u64 = 4;

/// Events from which on a page is long: the server plans each copy by itself, which must not be
/// much of the work.
const LONG: usize = 512;

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
struct Range {
    after: u64,
    up_to: u64,
    direction: Direction,
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
        } = look(database, looked_through, wanted, limit).await?;
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
            scanned: Position::new(scanned),
            end: stopped.is_none(),
            head,
        }
    }
}

/// What was seen of a range in one moment.
struct ScanEnd {
    events: Vec<RecordedEvent>,
    /// Whether there may be more after the last one.
    is_cut: bool,
    head: u64,
}

/// The events of a range that are one of `wanted`.
async fn look(
    database: &Arc<Database>,
    range: Range,
    wanted: &[Wanted<'_>],
    limit: usize,
) -> Result<ScanEnd, Error> {
    let range = Range {
        up_to: range.up_to.min(Position::MAX.get()),
        ..range
    };
    let looked = look_at(database, range, wanted, limit).await?;
    database.seen_head.fetch_max(looked.head, Ordering::Relaxed);
    Ok(looked)
}

async fn look_at(
    database: &Arc<Database>,
    range: Range,
    wanted: &[Wanted<'_>],
    limit: usize,
) -> Result<ScanEnd, Error> {
    let Range {
        after,
        up_to,
        direction,
    } = range;
    let Read {
        seen: head, events, ..
    } = if wanted.iter().any(Wanted::is_anything) {
        // To add up sizes costs the server more than everything else, so it only does so where
        // payloads are large.
        if !database.reads_large_payloads.load(Ordering::Relaxed) {
            let small = look_for_small(database, range, limit).await?;
            if small.is_cut && small.events.is_empty() {
                database.reads_large_payloads.store(true, Ordering::Relaxed);
            } else {
                return Ok(small);
            }
        }
        let query = query(database.ordered(sql::LOG_PAGE, direction))
            .bind(after.cast_signed())
            .bind(up_to.cast_signed());
        events::read(
            database,
            query.bind(limit as i64).bind(PAGE_BYTES_MAX as i64),
            1,
            head_of,
        )
        .await?
    } else {
        if let ([of_types], Direction::Forward) = (wanted, direction)
            && let Some(types) = of_types.types_alone()
            && let Some(found) = look_among_all(database, range, types, limit).await?
        {
            return Ok(found);
        }
        let search = Search::new(after, up_to, direction, limit)?;
        let (text, arguments): Statement = search.page(wanted, PAGE_BYTES_MAX)?;
        events::read(
            database,
            query_with(database.named(&text), arguments),
            1,
            head_of,
        )
        .await?
    };
    let size: usize = events.iter().map(|event| event.payload.len()).sum();
    if size < events.len() * SMALL_BYTES {
        database
            .reads_large_payloads
            .store(false, Ordering::Relaxed);
    }
    Ok(ScanEnd {
        is_cut: size >= PAGE_BYTES_MAX,
        events,
        head,
    })
}

fn head_of(row: &PgRow) -> Result<u64, Error> {
    number(row, 0)
}

/// As [`look`], for events of some types that are a good part of the log: read in its order,
/// without an index of kinds, each event of which would have to be found by itself. Nothing when
/// they are rarer than that, or payloads are large.
async fn look_among_all(
    database: &Arc<Database>,
    range: Range,
    types: &[String],
    limit: usize,
) -> Result<Option<ScanEnd>, Error> {
    let mut hasher = DefaultHasher::new();
    types.hash(&mut hasher);
    let those = hasher.finish();
    if database.rare_types.load(Ordering::Relaxed) == those
        || database.reads_large_payloads.load(Ordering::Relaxed)
    {
        return Ok(None);
    }
    let limit = limit.min(SMALL_EVENTS_MAX);
    let among = Range {
        up_to: range
            .up_to
            .min(range.after.saturating_add(limit as u64 * AMONG)),
        ..range
    };
    let Read {
        seen: head,
        found,
        events,
    } = match copied(database, among, types, limit).await? {
        Some(read) => read,
        None => {
            let query = query(database.text(sql::LOG_PAGE_KINDS))
                .bind(among.after.cast_signed())
                .bind(among.up_to.cast_signed())
                .bind(limit as i64)
                .bind(SMALL_BYTES as i32)
                .bind(types);
            events::read(database, query, 1, head_of).await?
        }
    };
    if found < limit && among.up_to < range.up_to.min(head) {
        database.rare_types.store(those, Ordering::Relaxed);
        return Ok(None);
    }
    let is_cut = events.len() < found || found == limit;
    Ok((!is_cut || !events.is_empty()).then_some(ScanEnd {
        is_cut,
        events,
        head,
    }))
}

/// As [`look`], for any event: ends before the first large payload.
async fn look_for_small(
    database: &Arc<Database>,
    range: Range,
    limit: usize,
) -> Result<ScanEnd, Error> {
    let limit = limit.min(SMALL_EVENTS_MAX);
    let Read {
        seen: head,
        found,
        events,
    } = match copied(database, range, &[], limit).await? {
        Some(read) => read,
        None => {
            let query = query(database.ordered(sql::LOG_PAGE_SMALL, range.direction))
                .bind(range.after.cast_signed())
                .bind(range.up_to.cast_signed())
                .bind(limit as i64)
                .bind(SMALL_BYTES as i32);
            events::read(database, query, 1, head_of).await?
        }
    };
    Ok(ScanEnd {
        is_cut: events.len() < found || found == limit,
        events,
        head,
    })
}

/// A page that will be long, as far as is known; nothing when it is not worth while.
async fn copied(
    database: &Arc<Database>,
    range: Range,
    types: &[String],
    limit: usize,
) -> Result<Option<Read<u64>>, Error> {
    let Range {
        after,
        up_to,
        direction,
    } = range;
    let there = database
        .seen_head
        .load(Ordering::Relaxed)
        .min(up_to)
        .saturating_sub(after);
    if direction != Direction::Forward || limit < LONG || there < LONG as u64 {
        return Ok(None);
    }
    Copied {
        after,
        up_to,
        limit,
        payload_bytes: SMALL_BYTES,
        types,
    }
    .read(database)
    .await
    .map(Some)
}
