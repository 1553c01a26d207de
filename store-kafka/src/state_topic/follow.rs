//! Rows that change: the view says which keys an event changes, and the rows are read when the view
//! has settled it. So a record may be newer than its mark, and never older.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_core::{
    EventId, Filter, Generation, Outgoing, OutletMark, PAGE_EVENTS, Partition, Position, ReadLog,
    StoreError,
};
use annals_runner::{
    CommittedStep, Slot, ViewKind, WorkError, WorkerContext, event_at, settled_to,
};
use bytes::Bytes;

use super::StateTopic;
use super::note::Note;
use super::rows::{KeysLeft, ROWS};
use crate::kafka::Kafka;
use crate::outlet::KafkaOutlet;
use crate::relay::Reports as _;

/// How often dead letters are looked at while nothing else happens.
const DEAD_LETTERS: Duration = Duration::from_secs(1);

/// A mark alone is written when so much was passed.
const PASSED_MAX: u64 = 5_000;

/// How far a partition of the log has come.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) marked: Position,
    pub(super) read_to: Position,
}

/// What publishes the rows of one generation.
pub(super) struct Publishing<'a> {
    pub(super) state_topic: &'a StateTopic,
    pub(super) slot: &'a Slot,
    pub(super) context: &'a WorkerContext,
    pub(super) view: &'a ViewKind,
    pub(super) generation: Generation,
    pub(super) kafka: &'a Kafka,
    pub(super) topic: Arc<str>,
    pub(super) outlet: KafkaOutlet,
    pub(super) places: BTreeMap<Partition, Place>,
    /// Keys in dead letters, as the last mark has them.
    pub(super) dead: BTreeSet<String>,
}

impl Publishing<'_> {
    /// Continues after the marks, or copies all rows when they are of another generation.
    pub(super) async fn begin(&mut self, marks: Vec<OutletMark>) -> Result<(), WorkError> {
        let log = self.context.log();
        let mut dead = Some(BTreeSet::new());
        for partition in (0..log.partitions()).map(Partition) {
            let mark = marks.iter().find(|mark| mark.partition == partition);
            let note = mark.and_then(|mark| Note::read(&mark.note));
            let continues = note.filter(|note| {
                note.complete
                    && note.generation == self.generation.id.0
                    && mark.is_some_and(|mark| mark.log == log.id())
            });
            let (Some(mark), Some(note)) = (mark, continues) else {
                return self.copy().await;
            };
            dead = dead.zip(note.dead).map(|(mut dead, more)| {
                dead.extend(more);
                dead
            });
            let place = Place {
                marked: mark.position,
                read_to: mark.position,
            };
            self.places.insert(partition, place);
        }
        match dead {
            Some(dead) => {
                self.dead = dead;
                Ok(())
            }
            None => self.copy().await,
        }
    }

    /// Publishes what changes until another generation serves.
    pub(super) async fn follow(&mut self) -> Result<(), WorkError> {
        let progress = &self.slot.progress;
        for (partition, place) in &self.places {
            progress.begins(*partition, place.read_to);
        }
        let mut polls = self.context.poll.seen();
        let mut looked = Instant::now();
        loop {
            polls.mark_unchanged();
            if self.serving().await?.as_ref() != Some(&self.generation) {
                return Err(WorkError::Restart);
            }
            let settled = self.settled().await?;
            let mut more = false;
            for (partition, up_to) in settled {
                more |= self.publish_next(partition, up_to).await?;
            }
            if looked.elapsed() >= DEAD_LETTERS {
                self.publish_revived().await?;
                looked = Instant::now();
            }
            if !more && polls.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    /// The generation that readers see.
    pub(super) async fn serving(&self) -> Result<Option<Generation>, StoreError> {
        serving(self.context, self.view).await
    }

    /// Up to where the view has settled each partition, in its slowest slot.
    pub(super) async fn settled(&self) -> Result<Vec<(Partition, Position)>, WorkError> {
        let generation = &self.generation;
        let checkpoints = self.context.views.checkpoints(generation.id).await?;
        let slots = 0..generation.spec.slots;
        let settled = (0..self.context.log().partitions()).map(Partition);
        let settled = settled.map(|partition| {
            let of_slot = |slot| {
                let mut all = checkpoints.iter();
                all.find(|of| (of.slot, of.partition) == (slot, partition))
                    .map_or(Position::START, settled_to)
            };
            let reads = |slot: &u16| generation.spec.reads(*slot, partition);
            let slots = slots.clone().filter(reads);
            (partition, slots.map(of_slot).min().unwrap_or_default())
        });
        Ok(settled.collect())
    }

    /// Publishes the rows that the next events have changed; whether there may be more.
    async fn publish_next(
        &mut self,
        partition: Partition,
        up_to: Position,
    ) -> Result<bool, WorkError> {
        let place = self.places.get(&partition).copied();
        let mut place = place.unwrap_or(Place {
            marked: Position::START,
            read_to: Position::START,
        });
        let log = self.context.log();
        let head = log.head(partition).await?.visible;
        if up_to <= place.read_to {
            self.slot
                .progress
                .found(partition, head.max(place.read_to), None);
            return Ok(false);
        }
        let began = Instant::now();
        // No limit where none is needed, as with a relay.
        let events_max = self.state_topic.batch_limit.of(PAGE_EVENTS);
        let positions = up_to.get() - place.read_to.get();
        let limit = match positions <= events_max as u64 {
            true => PAGE_EVENTS,
            false => events_max,
        };
        let read = ReadLog::after(place.read_to)
            .up_to(up_to)
            .partition(partition)
            .filter(Filter::default().types(self.view.handles.iter().cloned()))
            .limit(limit);
        let page = log.read(read).await?;
        let first = page.events.first().map(|event| event.recorded_at);
        self.slot.progress.found(partition, head, first);
        // An event without keys was passed over by the view too, after an operator's decision.
        let keys = page
            .events
            .iter()
            .filter_map(|event| self.view.keys(event).ok());
        let keys: BTreeSet<String> = keys.flatten().collect();
        let reached = page.scanned.min(up_to);
        let event = page.events.last().filter(|event| event.position == reached);
        let event = event.map(|event| event.id);
        let mut records = 0;
        if !keys.is_empty() || reached.get() - place.marked.get() >= PASSED_MAX {
            // Before the rows: one whose dead letters are settled meanwhile comes again.
            let dead = self.dead_keys().await?;
            let kept = &self.dead | &dead;
            let note = Note::new(self.generation.id.0, true, &kept).written();
            let mut left = KeysLeft::of(keys);
            loop {
                let batch = self.rows(&mut left).await?;
                records += batch.len() as u64;
                let is_last = left.is_empty();
                // The mark moves with the last of the rows: after a failure all of them come again.
                let mark = match is_last {
                    true => self.mark(partition, reached, event, note.clone()),
                    false => {
                        let event = self.event_at(partition, place.marked).await?;
                        self.mark(partition, place.marked, event, note.clone())
                    }
                };
                self.take(batch, mark).await?;
                self.state_topic.batch_limit.committed();
                if is_last {
                    break;
                }
            }
            self.dead = kept;
            place.marked = reached;
        }
        place.read_to = reached;
        self.places.insert(partition, place);
        let step = CommittedStep {
            events: records,
            rows: 0,
            took: began.elapsed(),
            oldest: None,
        };
        self.slot.progress.published(partition, reached, step);
        Ok(reached < up_to)
    }

    /// Publishes the rows of keys that are dead letters no more: they changed without an event.
    async fn publish_revived(&mut self) -> Result<(), WorkError> {
        let dead = self.dead_keys().await?;
        let mut revived: Vec<String> = self.dead.difference(&dead).cloned().collect();
        if revived.is_empty() && dead == self.dead {
            return Ok(());
        }
        let partition = Partition(0);
        let place = self.places.get(&partition).map(|place| place.read_to);
        let position = place.unwrap_or_default();
        let event = self.event_at(partition, position).await?;
        let keys_max = self.state_topic.batch_limit.of(ROWS);
        let mut kept = &self.dead | &dead;
        loop {
            let unsent = kept.clone();
            let mut left = KeysLeft::of(next_part(&mut revived, &mut kept, keys_max));
            loop {
                let batch = self.rows(&mut left).await?;
                let is_last = left.is_empty();
                let named = if is_last { &kept } else { &unsent };
                let note = Note::new(self.generation.id.0, true, named).written();
                let mark = self.mark(partition, position, event, note);
                self.take(batch, mark).await?;
                if is_last {
                    break;
                }
            }
            if revived.is_empty() {
                break;
            }
        }
        self.dead = dead;
        Ok(())
    }

    /// The next of the rows that are left, as they are now; keys without a row are tombstones.
    async fn rows(&self, left: &mut KeysLeft) -> Result<Vec<Outgoing>, WorkError> {
        let views = &*self.context.views;
        let limit = &self.state_topic.batch_limit;
        let rows = left.next(views, self.generation.id, limit).await?;
        let rows = rows.into_iter();
        Ok(rows
            .map(|(key, value)| self.outgoing(&key, value))
            .collect())
    }

    /// All keys in dead letters.
    pub(super) async fn dead_keys(&self) -> Result<BTreeSet<String>, WorkError> {
        let mut keys = BTreeSet::new();
        let mut after: Option<(String, Partition, Position)> = None;
        loop {
            let from = after
                .as_ref()
                .map(|(key, partition, position)| (key.as_str(), *partition, *position));
            let views = &self.context.views;
            let page = views
                .dead_letters(self.generation.id, from, PAGE_EVENTS)
                .await?;
            let Some(last) = page.last() else {
                return Ok(keys);
            };
            after = Some((last.key.clone(), last.partition, last.position));
            keys.extend(page.into_iter().map(|letter| letter.key));
        }
    }

    /// What is sent for a key: its row, or that there is none.
    pub(super) fn outgoing(&self, key: &str, value: Option<Bytes>) -> Outgoing {
        let json = Bytes::from_static(b"application/json");
        Outgoing {
            to: Arc::clone(&self.topic),
            key: Bytes::copy_from_slice(key.as_bytes()),
            headers: match &value {
                Some(_) => vec![("content-type".into(), json)],
                None => Vec::new(),
            },
            payload: value,
            occurred_at: self.context.clock().now(),
        }
    }

    pub(super) async fn event_at(
        &self,
        partition: Partition,
        position: Position,
    ) -> Result<Option<EventId>, StoreError> {
        event_at(&**self.context.log(), partition, position).await
    }

    pub(super) fn mark(
        &self,
        partition: Partition,
        position: Position,
        event: Option<EventId>,
        note: Bytes,
    ) -> OutletMark {
        OutletMark {
            log: self.context.log().id(),
            partition,
            position,
            event,
            note,
        }
    }
}

/// The generation of a view that readers see.
pub(super) async fn serving(
    context: &WorkerContext,
    view: &ViewKind,
) -> Result<Option<Generation>, StoreError> {
    let generations = context.views.generations(view.name).await?;
    Ok(view.serving(&generations).cloned())
}

/// The next of the keys whose rows are to be published. Those that are left are still in the mark,
/// so that they are published also after a failure.
fn next_part(
    revived: &mut Vec<String>,
    kept: &mut BTreeSet<String>,
    keys_max: usize,
) -> Vec<String> {
    let part = revived.split_off(revived.len().saturating_sub(keys_max));
    for key in &part {
        kept.remove(key);
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revived_rows_are_published_in_parts_that_name_the_rest() {
        let set = |keys: &[&str]| -> BTreeSet<String> {
            keys.iter().map(|key| (*key).to_owned()).collect()
        };
        let mut revived = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
        let mut kept = set(&["a", "b", "c", "poison"]);
        assert_eq!(next_part(&mut revived, &mut kept, 2), ["b", "c"]);
        assert_eq!(kept, set(&["a", "poison"]));
        assert_eq!(next_part(&mut revived, &mut kept, 2), ["a"]);
        assert!(revived.is_empty());
        assert_eq!(kept, set(&["poison"]));
        // What became a dead letter is noted without a row.
        assert!(next_part(&mut revived, &mut kept, 2).is_empty());
        assert_eq!(kept, set(&["poison"]));
    }
}
