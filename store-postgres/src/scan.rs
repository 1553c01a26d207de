//! The events of a range of positions: by which statement they are read.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use annals_core::{Direction, PAGE_BYTES_MAX, Position, RecordedEvent};
use sqlx::postgres::PgRow;
use sqlx::{Error, query, query_with};

use crate::copied::Copied;
use crate::database::Database;
use crate::events::{self, Read};
use crate::page::Range;
use crate::query_plan::{Search, Statement, Wanted};
use crate::row::number;
use crate::statements as sql;

/// Payloads of up to so many bytes are small: so many events of them fit into memory.
const SMALL_BYTES: usize = 4 << 10;
const SMALL_EVENTS_MAX: usize = 4_096;

/// Types of which there is one event in so many of the log, or more, are read along with it.
const AMONG: u64 = 4;

/// Events from which on a page is long: the server plans each copy by itself, which must not be
/// much of the work.
const LONG: usize = 512;

/// What was seen of a range in one moment.
pub(crate) struct ScanEnd {
    pub(crate) events: Vec<RecordedEvent>,
    /// Whether there may be more after the last one.
    pub(crate) is_cut: bool,
    pub(crate) head: u64,
}

/// The events of a range that are one of `wanted`.
pub(crate) async fn scan(
    database: &Arc<Database>,
    range: Range,
    wanted: &[Wanted<'_>],
    limit: usize,
) -> Result<ScanEnd, Error> {
    let range = Range {
        up_to: range.up_to.min(Position::MAX.get()),
        ..range
    };
    let scanned = scan_range(database, range, wanted, limit).await?;
    database
        .seen_head
        .fetch_max(scanned.head, Ordering::Relaxed);
    Ok(scanned)
}

async fn scan_range(
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
            let small = scan_small(database, range, limit).await?;
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
            && let Some(found) = scan_among_all(database, range, types, limit).await?
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

/// As [`scan`], for events of some types that are a good part of the log: read in its order,
/// without an index of kinds, each event of which would have to be found by itself. Nothing when
/// they are rarer than that, or payloads are large.
async fn scan_among_all(
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

/// As [`scan`], for any event: ends before the first large payload.
async fn scan_small(
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
