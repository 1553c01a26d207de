//! Pages of the log: forward through a cursor, backward and beside the cursors by a reader of
//! ranges.

use std::sync::{Arc, PoisonError};

use annals_core::{
    Failure, Head, Log as _, LogPage, Partition, Position, ReadLog, RecordedEvent, StoreError,
};

use super::{SIDE_POSITIONS, TopicLog};
use crate::error::unavailable;
use crate::kafka::ANSWER;
use crate::read::cursor::{Cursor, Ended, Found, Source};
use crate::read::mapping::Mapper;
use crate::read::page::Page;

/// Readers of one partition at different places that have a consumer each.
const CURSORS_MAX: usize = 4;

impl TopicLog {
    /// A cursor that reads after this position: one that is there, or a new one.
    async fn cursor(
        &self,
        partition: Partition,
        after: Position,
    ) -> Result<(Arc<Cursor>, Position), StoreError> {
        let reading = self.reading(partition)?;
        {
            let cursors = reading
                .cursors
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let found = cursors.iter().find(|cursor| {
                matches!(
                    cursor.find(after),
                    Found::Page(_) | Found::AtEnd | Found::Later
                )
            });
            if let Some(cursor) = found {
                return Ok((Arc::clone(cursor), after));
            }
        }
        let (begins_after, _) = self.left(partition).await?;
        let start = self.start_of(partition, after, begins_after).await?;
        let shared = &self.shared;
        let source = Source {
            config: shared.kafka.config().clone(),
            topic: shared.topic.name.clone(),
            partition,
            mapper: Mapper::new(shared.id, &shared.topic.name, shared.topic.mapping.clone()),
        };
        let cursor = Cursor::start(source, start, shared.moved.clone())?;
        let mut cursors = reading
            .cursors
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        cursors.retain(|cursor| !matches!(cursor.find(Position::MAX), Found::Ended(_)));
        if cursors.len() >= CURSORS_MAX {
            let oldest = cursors
                .iter()
                .enumerate()
                .min_by_key(|(_, cursor)| cursor.used());
            if let Some((index, _)) = oldest {
                cursors.swap_remove(index).close();
            }
        }
        cursors.push(Arc::clone(&cursor));
        Ok((cursor, start))
    }

    /// A page that covers what comes after a position, or nothing when there is nothing more.
    async fn next_page(
        &self,
        partition: Partition,
        after: Position,
    ) -> Result<(Option<Arc<Page>>, Position), StoreError> {
        let (cursor, start) = self.cursor(partition, after).await?;
        let mut moved = cursor.moved();
        let deadline = tokio::time::Instant::now() + ANSWER;
        loop {
            moved.mark_unchanged();
            match cursor.find(start) {
                Found::Page(page) => return Ok((Some(page), start)),
                Found::AtEnd => {
                    self.note_head(partition, start)?;
                    return Ok((None, start));
                }
                Found::Later => {}
                // Another reader moved it on between two looks; the caller asks again.
                Found::Elsewhere | Found::Ended(Ended::OutOfRange | Ended::Closed) => {
                    return Err(unavailable("the reader of the partition was moved"));
                }
                Found::Ended(Ended::Failed(failure, why)) => {
                    return Err(StoreError::new(failure, why));
                }
            }
            if tokio::time::timeout_at(deadline, moved.changed())
                .await
                .is_err()
            {
                // Its client may never mend: the next read has another one.
                cursor.close();
                return Err(unavailable(format!(
                    "partition {partition} of topic `{}` has given nothing for {} s",
                    self.shared.topic.name,
                    ANSWER.as_secs()
                )));
            }
        }
    }

    pub(super) async fn read_forward(&self, read: ReadLog) -> Result<LogPage, StoreError> {
        let partition = read.partition;
        let mut tries = 0;
        let (page, start) = loop {
            match self.next_page(partition, read.after).await {
                Err(error) if error.failure() == Failure::Unavailable && tries < 3 => tries += 1,
                found => break found?,
            }
        };
        let Some(page) = page else {
            let head = self.known_head(partition)?;
            return Ok(LogPage {
                removed: Vec::new(),
                events: Vec::new(),
                scanned: start.min(read.up_to).max(read.after),
                end: true,
                head: Head::at(head),
            });
        };
        let head = self.note_seen(partition, page.scanned)?;
        let first = page.events.partition_point(|event| event.position <= start);
        let mut events = Vec::new();
        let mut scanned = page.scanned;
        for event in &page.events[first..] {
            if event.position > read.up_to {
                break;
            }
            if read.filter.matches(event) {
                events.push(event.clone());
                if events.len() >= read.limit {
                    scanned = event.position;
                    break;
                }
            }
        }
        let scanned = scanned.min(read.up_to);
        Ok(LogPage {
            removed: Vec::new(),
            events,
            scanned,
            end: scanned >= head.min(read.up_to),
            head: Head::at(head),
        })
    }

    /// What was read is there, whatever was asked last about the end.
    fn note_seen(&self, partition: Partition, seen: Position) -> Result<Position, StoreError> {
        let mut head = self
            .reading(partition)?
            .head
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        head.0 = head.0.max(seen);
        Ok(head.0)
    }

    /// A few events at a known place, and up to where it was looked: past what was removed.
    async fn read_range(
        &self,
        partition: Partition,
        after: Position,
        up_to: Position,
    ) -> Result<(Vec<RecordedEvent>, Position), StoreError> {
        if let Some(events) = self.covered(partition, after, up_to)? {
            return Ok((events, up_to));
        }
        let (begins_after, end) = self.left(partition).await?;
        let after = after.max(begins_after);
        self.read_left(partition, (after, up_to), end).await
    }

    /// The events of a range that a cursor has.
    fn covered(
        &self,
        partition: Partition,
        after: Position,
        up_to: Position,
    ) -> Result<Option<Vec<RecordedEvent>>, StoreError> {
        let cursors = self.reading(partition)?.cursors.lock();
        let cursors = cursors.unwrap_or_else(PoisonError::into_inner);
        let page = cursors
            .iter()
            .find_map(|cursor| cursor.covering(after, up_to));
        let inside = |event: &&RecordedEvent| event.position > after && event.position <= up_to;
        Ok(page.map(|page| page.events.iter().filter(inside).cloned().collect()))
    }

    /// A few events of a range that begins with what is left of a partition, which goes up to
    /// `end`.
    async fn read_left(
        &self,
        partition: Partition,
        (after, up_to): (Position, Position),
        end: Position,
    ) -> Result<(Vec<RecordedEvent>, Position), StoreError> {
        let to = up_to.min(end);
        if after >= to {
            return Ok((Vec::new(), after.min(up_to)));
        }
        let read = self.shared.side.call(move |side| match side {
            Ok(side) => side.read(partition, after, to),
            Err(error) => Err(StoreError::new(error.failure(), error.to_string())),
        });
        read.await?
    }

    pub(super) async fn read_beside(
        &self,
        read: ReadLog,
        is_lookup: bool,
    ) -> Result<LogPage, StoreError> {
        let partition = read.partition;
        let up_to = read.up_to;
        let known = self.covered(partition, read.after, up_to)?;
        let (mut events, mut scanned, head) = match known {
            Some(events) => (events, up_to, self.known_head(partition)?),
            None => {
                let (begins_after, end) = self.left(partition).await?;
                let start = match is_lookup {
                    true => read.after.max(begins_after),
                    false => self.start_of(partition, read.after, begins_after).await?,
                };
                let (events, scanned) = self.read_left(partition, (start, up_to), end).await?;
                (events, scanned, end)
            }
        };
        events.retain(|event| read.filter.matches(event));
        if events.len() > read.limit {
            events.truncate(read.limit);
            scanned = events.last().map_or(scanned, |event| event.position);
        }
        let end = scanned >= up_to.min(head);
        Ok(LogPage {
            removed: Vec::new(),
            events,
            // The rest of the range is past the end.
            scanned: if end {
                up_to.min(head.max(read.after))
            } else {
                scanned
            },
            end,
            head: Head::at(head),
        })
    }

    pub(super) async fn read_backward(&self, read: ReadLog) -> Result<LogPage, StoreError> {
        let partition = read.partition;
        let head = self.head(partition).await?;
        let (left, chosen) = self.beginnings(partition).await?;
        let lowest = read.after.max(left).max(chosen);
        let mut above = read.up_to.min(head.visible);
        let mut events = Vec::new();
        while above > lowest && events.len() < read.limit {
            let below = above.minus(SIDE_POSITIONS).max(lowest);
            let mut after = below;
            let mut window = Vec::new();
            while after < above {
                let (found, scanned) = self.read_range(partition, after, above).await?;
                if scanned <= after {
                    return Err(unavailable(format!(
                        "partition {partition} of topic `{}` was not read up to {above}",
                        self.shared.topic.name
                    )));
                }
                window.extend(found);
                after = scanned;
            }
            above = below;
            for event in window
                .into_iter()
                .rev()
                .filter(|event| read.filter.matches(event))
            {
                if events.len() == read.limit {
                    break;
                }
                above = event.position.minus(1);
                events.push(event);
            }
            if events.len() < read.limit {
                above = below;
            }
        }
        Ok(LogPage {
            removed: Vec::new(),
            events,
            scanned: above.next(),
            end: above <= lowest,
            head,
        })
    }
}
