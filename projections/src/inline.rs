//! Inline views: rows are folded before the append of a command, and written with it.
//!
//! A row is written with an append only when it is certain to be what the worker would make of it:
//! when the row is at the version on which the command was decided, when the fold reads nothing
//! that is known only once the events are recorded, and when every event can be folded. What is not
//! written so is brought up by the worker of the view, which follows the log as that of any other
//! view does.

use std::fmt;

use annals_core::chrono::{DateTime, Utc};
use annals_core::{
    Append, GenerationId, History, InlineProjector, InlineRow, InlineRowVersion, NewEvent, Place,
    Position, ReadStream, RecordedEvent, StreamId, Version, VersionedRow,
};
use async_trait::async_trait;
use bytes::Bytes;

use crate::context::ViewContext;
use crate::fold::{RowVersionBefore, decoded, folded, versions};
use crate::key::ViewKey;
use crate::view::View;
use crate::view::step::{Handlers, Step};
use annals_runner::{
    BoxFuture, GenerationWorkers, Skips, ViewLocation, WorkError, contained_async,
};

/// Events that a row may lag and still be written with an append: more are left to the worker.
const LAG_EVENTS_MAX: usize = 256;

/// Bytes of a row and its past that are written with an append: more are left to the worker.
const ROW_BYTES_MAX: usize = 1 << 20;

/// Why a view cannot be inline in this program, if that is so.
pub(crate) fn check<V: View>(context: &ViewContext) -> Result<(), String> {
    if !matches!(context.views, ViewLocation::Beside(_)) {
        return Err(
            "its rows are written with appends, so it is kept in the store of the log only; do \
             without `views_in`"
                .into(),
        );
    }
    if context.db.store().inline_views().is_none() {
        return Err("the store of the log cannot write rows with appends".into());
    }
    check_keys::<V>()
}

/// Why the rows of a view cannot each be folded from one stream, if that is so.
pub(crate) fn check_keys<V: View>() -> Result<(), String> {
    let handlers = V::handlers();
    if handlers.category().is_none() {
        return Err(format!(
            "its events are of several categories of streams, which would share its rows \
             ({handlers:?})"
        ));
    }
    // A key that is made of the id `1` gives it back.
    match V::Key::from_stream_id("1") {
        Some(key) if key.to_stream_id().as_deref() != Some("1") => {
            Err("its key is not the id of a stream: `ViewKey::to_stream_id` says nothing".into())
        }
        _ => Ok(()),
    }
}

/// Folds the rows of one view that are written with appends.
pub(crate) struct InlineFold<V: View> {
    context: ViewContext,
    workers: GenerationWorkers,
    handlers: Handlers<V>,
}

/// A stream of an append, with the row that is folded from it.
struct StreamToFold<'a> {
    stream: &'a StreamId,
    key: String,
    version: Version,
    events: Vec<(usize, &'a NewEvent)>,
}

impl<V: View> InlineFold<V> {
    pub(crate) fn new(context: ViewContext, workers: GenerationWorkers) -> InlineFold<V> {
        InlineFold {
            context,
            workers,
            handlers: V::handlers(),
        }
    }

    /// The generation whose rows are written: the one that readers see.
    fn generation(&self) -> Option<GenerationId> {
        self.workers.serving().map(|of| of.id)
    }

    async fn rows(&self, append: &Append) -> Result<Vec<InlineRow>, WorkError> {
        let wanted = wanted(append, &|stream: &StreamId| self.handlers.own_key(stream));
        let (Some(generation), false) = (self.generation(), wanted.is_empty()) else {
            return Ok(Vec::new());
        };
        let Some(standing) = standing(&self.context, generation, &wanted).await? else {
            return Ok(Vec::new());
        };
        let mut rows = Vec::with_capacity(wanted.len());
        for (row, standing) in wanted.iter().zip(standing) {
            rows.extend(self.row(generation, row, standing).await?);
        }
        Ok(rows)
    }

    /// The row with the events of the append; nothing, when that is left to the worker.
    async fn row(
        &self,
        generation: GenerationId,
        wanted: &StreamToFold<'_>,
        standing: VersionedRow,
    ) -> Result<Option<InlineRow>, WorkError> {
        let from = standing.at;
        let Some(base) = self.caught_up(wanted, standing).await? else {
            return Ok(None);
        };
        // It is not known yet where and when the events will be recorded. What does not depend on
        // it is the same anywhere.
        let Some(past) = self.fold_at(wanted, base.as_ref(), &MADE_UP[0])? else {
            return Ok(None);
        };
        if self.fold_at(wanted, base.as_ref(), &MADE_UP[1])?.as_ref() != Some(&past) {
            return Ok(None);
        }
        let mut row = InlineRow::new(generation, wanted.stream.clone(), wanted.key.clone(), from);
        row.value = past.last().map_or(base, |last| last.value.clone());
        let value: Option<V> = decoded(&wanted.key, row.value.as_ref())?;
        row.indexed = value.as_ref().map(View::indexed).unwrap_or_default();
        if V::HISTORY != History::None {
            row.past = past;
        }
        Ok(Some(row).filter(|row| row.size_bytes() <= ROW_BYTES_MAX))
    }

    /// The row at the version that the append expects of its stream; nothing, when the worker has
    /// to bring it there.
    async fn caught_up(
        &self,
        wanted: &StreamToFold<'_>,
        standing: VersionedRow,
    ) -> Result<Option<Option<Bytes>>, WorkError> {
        let VersionedRow { key, value, at } = standing;
        if at >= wanted.version {
            return Ok((at == wanted.version).then_some(value));
        }
        let Some(events) = lacking(&self.context, wanted, at).await? else {
            return Ok(None);
        };
        let skips = Skips::of(self.context.views.skip_decisions(V::NAME).await?);
        let mut steps = Vec::new();
        for record in events {
            steps.extend(self.handlers.prepare_except(&skips, record)?);
        }
        if steps
            .iter()
            .any(|step| self.handlers.check_own_stream(step).is_err())
        {
            return Ok(None);
        }
        if !steps.is_empty() && V::HISTORY != History::None {
            // What the row was in between is kept too, which only a worker does.
            return Ok(None);
        }
        Ok(folded(&key, value, &steps)?.ok())
    }

    /// What the row is after each of the events that touches it, were they recorded there; nothing,
    /// when one makes no sense.
    fn fold_at(
        &self,
        wanted: &StreamToFold<'_>,
        base: Option<&Bytes>,
        made_up: &MadeUp,
    ) -> Result<Option<Vec<InlineRowVersion>>, WorkError> {
        let partition = self.context.db.store().partition_of(wanted.stream);
        let mut steps: Vec<Step<V>> = Vec::new();
        for (number, (index, event)) in (1..).zip(&wanted.events) {
            let place = Place {
                stream: wanted.stream.clone(),
                version: Version::new(wanted.version.get() + number),
                partition,
                position: Position::new(made_up.position + *index as u64),
                append_index: *index as u32,
                recorded_at: made_up.recorded_at(),
            };
            steps.extend(self.handlers.prepare(event.recorded(place))?);
        }
        if steps
            .iter()
            .any(|step| self.handlers.check_own_stream(step).is_err())
        {
            return Ok(None);
        }
        let (versions, poison) = versions(&wanted.key, base, &steps)?;
        let past = |was: RowVersionBefore| InlineRowVersion {
            event: (was.from.get() - made_up.position) as usize,
            value: was.value,
        };
        Ok(poison
            .is_none()
            .then(|| versions.into_iter().map(past).collect()))
    }
}

/// The streams of an append that have rows of their own.
fn wanted<'a>(
    append: &'a Append,
    own_key: &dyn Fn(&StreamId) -> Option<String>,
) -> Vec<StreamToFold<'a>> {
    let mut wanted = Vec::new();
    for (stream, _) in &append.expectations {
        let (Some(key), Some(after)) = (own_key(stream), append.version_after(stream)) else {
            continue;
        };
        let events: Vec<_> = append
            .events
            .iter()
            .enumerate()
            .filter(|(_, (to, _))| to == stream)
            .collect();
        let events: Vec<_> = events
            .into_iter()
            .map(|(index, (_, event))| (index, event))
            .collect();
        if !events.is_empty() {
            let version = Version::new(after.get() - events.len() as u64);
            wanted.push(StreamToFold {
                stream,
                key,
                version,
                events,
            });
        }
    }
    wanted
}

/// The rows of these streams as they are stored; nothing, when the store keeps none.
fn standing<'a>(
    context: &'a ViewContext,
    generation: GenerationId,
    wanted: &'a [StreamToFold<'a>],
) -> BoxFuture<'a, Result<Option<Vec<VersionedRow>>, WorkError>> {
    Box::pin(async move {
        let Some(inline) = context.db.store().inline_views() else {
            return Ok(None);
        };
        let keys: Vec<String> = wanted.iter().map(|row| row.key.clone()).collect();
        let found = inline.read_versioned(generation, &keys).await?;
        let standing = |key: String| {
            let standing = found.iter().find(|found| found.key == key).cloned();
            standing.unwrap_or(VersionedRow {
                key,
                value: None,
                at: Version::NONE,
            })
        };
        Ok(Some(keys.into_iter().map(standing).collect()))
    })
}

/// The events of a stream that a row lacks; nothing, when the worker has to bring it up to them.
fn lacking<'a>(
    context: &'a ViewContext,
    wanted: &'a StreamToFold<'a>,
    at: Version,
) -> BoxFuture<'a, Result<Option<Vec<RecordedEvent>>, WorkError>> {
    Box::pin(async move {
        let read = ReadStream::of(wanted.stream.clone())
            .from(at.next())
            .to(wanted.version)
            .everything();
        let store = context.db.store();
        let page = store.read_stream(read.limit(LAG_EVENTS_MAX)).await?;
        // Where events that the row lacks were archived, the rest of them make another row.
        let is_whole = page.next.is_none() && page.state.archived_before <= at.next();
        Ok(is_whole.then_some(page.events))
    })
}

/// A place in the log that no event has.
struct MadeUp {
    position: u64,
    micros: i64,
}

/// As far from each other as they can be.
const MADE_UP: [MadeUp; 2] = [
    MadeUp {
        position: 1,
        micros: 0,
    },
    MadeUp {
        position: 1 << 60,
        micros: 253_402_214_399_654_321,
    },
];

impl MadeUp {
    fn recorded_at(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.micros).unwrap_or_default()
    }
}

#[async_trait]
impl<V: View> InlineProjector for InlineFold<V> {
    async fn prepare(&self, append: &Append) -> Vec<InlineRow> {
        let left = |why: String| {
            tracing::debug!(view = V::NAME, why, "rows are left to the worker");
            Vec::new()
        };
        // A panic of the view's code is no fault of the command.
        match contained_async(self.rows(append)).await {
            Ok(rows) => rows.unwrap_or_else(|error| left(annals_runner::chain(&error))),
            Err(panic) => left(panic),
        }
    }
}

impl<V: View> fmt::Debug for InlineFold<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InlineFold")
            .field("view", &V::NAME)
            .finish_non_exhaustive()
    }
}
