//! What a view makes of events that were archived. A fold that would need them stops, an answer
//! that would need them is an error, unless the view names the event that replaces them or does
//! without them.

use std::collections::BTreeMap;

use annals_core::chrono::{DateTime, Utc};
use annals_core::{
    Filter, Partition, Position, ReadLog, ReadStream, Removed, Store, StoreError, StreamId, Tag,
};
use annals_runner::{BoxFuture, ViewError, WorkError, not_read_before_removal};

use crate::options::Options;
use crate::view::{Handlers, View};

/// The ways out for a view that has a rule.
const FOLDS_SUMMARIES: &str = "rebuild it, and it folds the summary";
/// The ways out for one that has none.
const FOLDS_NONE: &str = "name the event that says what was archived in `Project::SUMMARIES`, if \
     it says all that the view needs, and rebuild; or do without with \
     `Options::skip_archived`";

/// The events that count: those up to a position, and where a time is named only those that had
/// occurred by then.
#[derive(Clone, Copy)]
pub(crate) struct CountedEvents {
    pub(crate) up_to: Position,
    pub(crate) valid_at: Option<DateTime<Utc>>,
}

impl CountedEvents {
    /// All up to a position.
    pub(crate) fn up_to(position: Position) -> CountedEvents {
        CountedEvents {
            up_to: position,
            valid_at: None,
        }
    }
}

impl<V: View> Handlers<V> {
    /// Stops a worker whose page lacks events that it needs.
    pub(crate) fn check_page<'a>(
        &'a self,
        store: &'a dyn Store,
        options: &'a Options,
        removed: &'a [Removed],
        is_building: bool,
    ) -> BoxFuture<'a, Result<(), WorkError>> {
        let view = (V::NAME, self.summaries());
        check_page(view, store, options, removed, is_building)
    }

    /// Refuses an answer that would need removed events.
    pub(crate) fn check_answer<'a>(
        &'a self,
        store: &'a dyn Store,
        options: &'a Options,
        removed: &'a [Removed],
        counted: CountedEvents,
    ) -> BoxFuture<'a, Result<(), ViewError>> {
        check_answer(self.summaries(), store, options, removed, counted)
    }

    /// What was removed of the view's events that count; of one stream, when it is named. Nothing
    /// when the view does without it.
    pub(crate) fn removed<'a>(
        &'a self,
        store: &'a dyn Store,
        options: &'a Options,
        partition: Partition,
        counted: CountedEvents,
        stream: Option<&'a StreamId>,
    ) -> BoxFuture<'a, Result<Vec<Removed>, ViewError>> {
        removed(self.filter(), store, options, partition, counted, stream)
    }
}

// What follows does not depend on the view, and is boxed here so that it is compiled once.

fn check_page<'a>(
    (view, summaries): (&'static str, &'a [&'static str]),
    store: &'a dyn Store,
    options: &'a Options,
    removed: &'a [Removed],
    is_building: bool,
) -> BoxFuture<'a, Result<(), WorkError>> {
    Box::pin(async move {
        // Rows that readers see are not made half of events and half of their summary.
        let needed = if is_building || options.skips_archived {
            let all = CountedEvents::up_to(Position::MAX);
            needed(summaries, store, options, removed, all).await?
        } else {
            removed.first().cloned()
        };
        let ways = if summaries.is_empty() {
            FOLDS_NONE
        } else {
            FOLDS_SUMMARIES
        };
        match needed {
            Some(removed) => {
                let view = format!("view `{view}`");
                Err(not_read_before_removal(&view, &removed, ways))
            }
            None => Ok(()),
        }
    })
}

fn check_answer<'a>(
    summaries: &'a [&'static str],
    store: &'a dyn Store,
    options: &'a Options,
    removed: &'a [Removed],
    counted: CountedEvents,
) -> BoxFuture<'a, Result<(), ViewError>> {
    Box::pin(async move {
        match needed(summaries, store, options, removed, counted).await? {
            Some(removed) => Err(ViewError::Archived { removed }),
            None => Ok(()),
        }
    })
}

fn removed<'a>(
    mut filter: Filter,
    store: &'a dyn Store,
    options: &'a Options,
    partition: Partition,
    counted: CountedEvents,
    stream: Option<&'a StreamId>,
) -> BoxFuture<'a, Result<Vec<Removed>, ViewError>> {
    Box::pin(async move {
        if options.skips_archived {
            return Ok(Vec::new());
        }
        let up_to = counted.up_to;
        if let Some(time) = counted.valid_at {
            filter = filter.occurred(..=time);
        }
        if let Some(stream) = stream {
            filter = filter.stream_prefix(stream.as_str());
        }
        // No event has this tag, and of removed events tags exclude nothing: no event is read.
        let filter = filter.tag(Tag::new("$removed", "only")?);
        let mut read = ReadLog::after(Position::START)
            .up_to(up_to)
            .partition(partition)
            .filter(filter);
        let mut found = Vec::new();
        while read.after < up_to {
            let page = store.read(read.clone()).await?;
            let wanted = |removed: &Removed| stream.is_none_or(|stream| removed.stream == *stream);
            found.extend(page.removed.into_iter().filter(wanted));
            if page.end {
                break;
            }
            read.after = page.scanned;
        }
        Ok(found)
    })
}

/// The first of these positions that a fold would need: one that no summary replaces.
async fn needed(
    summaries: &[&str],
    store: &dyn Store,
    options: &Options,
    removed: &[Removed],
    counted: CountedEvents,
) -> Result<Option<Removed>, StoreError> {
    if options.skips_archived {
        return Ok(None);
    }
    let mut known: BTreeMap<&StreamId, bool> = BTreeMap::new();
    for removed in removed {
        let stream = &removed.stream;
        let replaced = match known.get(stream) {
            Some(replaced) => *replaced,
            None => {
                let replaced = has_summary(summaries, store, stream, counted).await?;
                known.insert(stream, replaced);
                replaced
            }
        };
        if !replaced {
            return Ok(Some(removed.clone()));
        }
    }
    Ok(None)
}

/// Whether the first event that the stream still has is a summary that counts.
async fn has_summary(
    summaries: &[&str],
    store: &dyn Store,
    stream: &StreamId,
    counted: CountedEvents,
) -> Result<bool, StoreError> {
    if summaries.is_empty() {
        return Ok(false);
    }
    let read = ReadStream::of(stream.clone()).everything().limit(1);
    let page = store.read_stream(read).await?;
    Ok(page.events.first().is_some_and(|event| {
        event.version == page.state.archived_before
            && event.position <= counted.up_to
            && counted
                .valid_at
                .is_none_or(|time| event.occurred_at <= time)
            && summaries.contains(&&*event.event_type)
    }))
}
