//! Rows of live views: folded from the log when they are asked for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;

use annals_core::chrono::{DateTime, Utc};
use annals_core::{
    Direction, Invalid, Moment, Partition, Position, ReadLog, ReadStream, RecordedEvent, RowPlace,
    RowsBy, Version,
};

use super::standing::own_stream;
use super::{RowEntry, RowsFound, ViewError, ViewHandle};
use crate::lifecycle::Lifecycle;
use crate::removed::CountedEvents;
use crate::replay::Replay;
use crate::view::View;
use crate::view::step::{Handlers, Step};
use annals_runner::Skips;

/// What is asked of the log.
pub(super) struct Asked {
    /// Up to where, in each partition.
    ends: Vec<(Partition, Position)>,
    /// Only what had occurred by then.
    valid_at: Option<DateTime<Utc>>,
}

impl<V: View> ViewHandle<V> {
    /// Whether nothing is kept of the view.
    pub(super) fn is_live(&self) -> bool {
        self.context.lifecycle.is_live()
    }

    /// Up to where the log is folded for a question.
    pub(super) async fn asked(
        &self,
        as_of: Option<Moment>,
        valid_at: Option<DateTime<Utc>>,
    ) -> Result<Asked, ViewError> {
        let store = self.context.db.store();
        let mut ends = Vec::new();
        for partition in (0..store.partitions()).map(Partition) {
            ends.push((partition, store.head(partition).await?.visible));
        }
        if let Some(moment) = as_of {
            let [(partition, end)] = &mut *ends else {
                return Err(no_one_position());
            };
            *end = moment.resolve(&**store, *partition).await?;
        }
        Ok(Asked { ends, valid_at })
    }

    /// Rows of these keys, in their order, nothing for those that there are not.
    pub(super) async fn values_on_demand(
        &self,
        keys: &[V::Key],
        asked: &Asked,
    ) -> Result<Vec<Option<V>>, ViewError> {
        let texts = keys
            .iter()
            .map(|key| self.key(key))
            .collect::<Result<Vec<_>, _>>()?;
        let mut found: HashMap<String, V> = HashMap::new();
        if self.context.lifecycle == Lifecycle::LiveByStream {
            for (key, text) in keys.iter().zip(&texts) {
                found.extend(self.replayed_stream(key, text, asked).await?.into_rows());
            }
        } else {
            let wanted: HashSet<&String> = texts.iter().collect();
            found.extend(
                self.replayed(asked, |key| wanted.contains(key))
                    .await?
                    .into_rows(),
            );
        }
        Ok(texts.iter().map(|key| found.remove(key)).collect())
    }

    /// A page of rows.
    pub(super) async fn page_on_demand(
        &self,
        by: &RowsBy,
        after: Option<&RowPlace>,
        (limit, direction): (usize, Direction),
        asked: &Asked,
    ) -> Result<RowsFound<V>, ViewError> {
        let range = match by {
            RowsBy::KeyRange(from, to) => (from.clone(), to.clone()),
            _ => (Bound::Unbounded, Bound::Unbounded),
        };
        let index = match by {
            RowsBy::Index { name, .. } => Some(index_of::<V>(name)?),
            _ => None,
        };
        let wanted = |key: &String| match by {
            RowsBy::Keys(keys) => keys.contains(key),
            _ => holds(&range, key),
        };
        let mut rows: BTreeMap<(String, String), V> = BTreeMap::new();
        for (key, value) in self.replayed(asked, wanted).await?.into_rows() {
            let entry = index
                .and_then(|index| value.indexed().into_iter().nth(index))
                .unwrap_or_default();
            if !matches!(by, RowsBy::Index { range, .. } if !holds(range, &entry)) {
                rows.insert((entry, key), value);
            }
        }
        let is_after = |place: &(String, String)| match (after, direction) {
            (None, _) => true,
            (Some(after), Direction::Forward) => (&place.0, &place.1) > (&after.entry, &after.key),
            (Some(after), Direction::Backward) => (&place.0, &place.1) < (&after.entry, &after.key),
        };
        let mut rows: Vec<_> = rows
            .into_iter()
            .filter(|(place, _)| is_after(place))
            .collect();
        if direction == Direction::Backward {
            rows.reverse();
        }
        let more = rows.len() > limit;
        rows.truncate(limit);
        let last = rows.last().map(|((entry, key), _)| RowPlace {
            entry: entry.clone(),
            key: key.clone(),
        });
        let typed = |((_, key), value): ((String, String), V)| {
            Ok(RowEntry {
                key: self.typed_key(&key)?,
                value,
            })
        };
        let rows = rows
            .into_iter()
            .map(typed)
            .collect::<Result<Vec<_>, ViewError>>()?;
        Ok(RowsFound {
            rows,
            next: last
                .filter(|_| more)
                .or_else(|| after.cloned().filter(|_| more)),
        })
    }

    /// Folds the rows that are wanted from the log.
    async fn replayed(
        &self,
        asked: &Asked,
        wanted: impl Fn(&String) -> bool,
    ) -> Result<Replay<V>, ViewError> {
        let handlers = V::handlers();
        let skips = Skips::of(self.context.views.skip_decisions(V::NAME).await?);
        let mut replay = Replay::new();
        for (partition, end) in &asked.ends {
            let mut read = ReadLog::after(Position::START)
                .up_to(*end)
                .partition(*partition)
                .filter(handlers.filter());
            while read.after < *end {
                let page = self.context.db.store().read(read.clone()).await?;
                handlers
                    .check_answer(
                        &**self.context.db.store(),
                        &self.context.options,
                        &page.removed,
                        asked.counted(*end),
                    )
                    .await?;
                let mut steps = asked.steps(&handlers, &skips, page.events)?;
                for step in &mut steps {
                    step.keys.retain(&wanted);
                }
                replay.take(&steps)?;
                if page.end {
                    break;
                }
                read.after = page.scanned;
            }
        }
        Ok(replay)
    }

    /// Folds a row from its stream.
    async fn replayed_stream(
        &self,
        key: &V::Key,
        text: &str,
        asked: &Asked,
    ) -> Result<Replay<V>, ViewError> {
        let handlers = V::handlers();
        let store = self.context.db.store();
        let skips = Skips::of(self.context.views.skip_decisions(V::NAME).await?);
        let mut replay = Replay::from(text, None)?;
        let Some(stream) = own_stream(&handlers, key) else {
            return Ok(replay);
        };
        let partition = store.partition_of(&stream);
        let end = asked
            .ends
            .iter()
            .find(|(of, _)| *of == partition)
            .map_or(Position::MAX, |(_, end)| *end);
        let mut read = ReadStream::of(stream.clone()).everything();
        loop {
            let mut page = store.read_stream(read.clone()).await?;
            if page.state.archived_before > Version::FIRST {
                let options = &self.context.options;
                let counted = asked.counted(end.min(page.head));
                let removed = handlers
                    .removed(&**store, options, partition, counted, Some(&stream))
                    .await?;
                handlers
                    .check_answer(&**store, options, &removed, counted)
                    .await?;
            }
            let counted = page.events.partition_point(|event| event.position <= end);
            let past_the_end = counted < page.events.len();
            page.events.truncate(counted);
            let steps = asked.steps(&handlers, &skips, page.events)?;
            for step in &steps {
                handlers
                    .check_own_stream(step)
                    .map_err(ViewError::unreadable)?;
            }
            replay.take(&steps)?;
            match page.next.filter(|_| !past_the_end) {
                Some(next) => read = read.resume(next),
                None => return Ok(replay),
            }
        }
    }
}

impl Asked {
    /// What counts in a partition that is folded up to its end.
    fn counted(&self, end: Position) -> CountedEvents {
        CountedEvents {
            up_to: end,
            valid_at: self.valid_at,
        }
    }

    /// What the events do that count.
    fn steps<V: View>(
        &self,
        handlers: &Handlers<V>,
        skips: &Skips,
        records: Vec<RecordedEvent>,
    ) -> Result<Vec<Step<V>>, ViewError> {
        let mut steps = Vec::with_capacity(records.len());
        for record in records {
            if self.valid_at.is_none_or(|time| record.occurred_at <= time) {
                steps.extend(
                    handlers
                        .prepare_except(skips, record)
                        .map_err(ViewError::unreadable)?,
                );
            }
        }
        Ok(steps)
    }
}

fn index_of<V: View>(name: &str) -> Result<usize, Invalid> {
    let view = V::NAME;
    let named = name.escape_debug();
    let index = V::INDEXES.iter().position(|known| *known == name);
    index.ok_or_else(|| Invalid::new(format!("view `{view}` has no index `{named}`")))
}

fn holds((from, to): &(Bound<String>, Bound<String>), text: &String) -> bool {
    std::ops::RangeBounds::<String>::contains(&(from.as_ref(), to.as_ref()), text)
}

/// Why a moment of a log of several partitions has no answer.
pub(super) fn no_one_position() -> ViewError {
    let what = "a log of several partitions has no one position; load the aggregate as of it \
        instead";
    Invalid::new(what).into()
}
