//! Pages of the log: forward through a cursor, backward and beside the cursors by a reader of
//! ranges.

use std::sync::{Arc, PoisonError};

use annals_core::{Failure, Head, Log as _, LogPage, Partition, Position, ReadLog, StoreError};

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
        let start = self.start_of(partition, after).await?;
        let shared = &self.shared;
        let source = Source {
            config: shared.kafka.config().clone(),
            topic: shared.topic.name.clone(),
            partition,
            ends: self.known_head(partition)?,
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

    /// A few events at a known place.
    async fn read_range(
        &self,
        partition: Partition,
        after: Position,
        up_to: Position,
    ) -> Result<(Vec<annals_core::RecordedEvent>, Position), StoreError> {
        {
            let cursors = self.reading(partition)?.cursors.lock();
            let cursors = cursors.unwrap_or_else(PoisonError::into_inner);
            let page = cursors
                .iter()
                .find_map(|cursor| cursor.covering(after, up_to));
            if let Some(page) = page {
                let inside = |event: &&annals_core::RecordedEvent| {
                    event.position > after && event.position <= up_to
                };
                return Ok((page.events.iter().filter(inside).cloned().collect(), up_to));
            }
        }
        let shared = &self.shared;
        let bounds = shared.kafka.bounds(&shared.topic.name, partition).await?;
        let low = Position::new(bounds.low.max(0) as u64);
        let high = Position::new(bounds.high.max(0) as u64);
        self.note_head(partition, high)?;
        let from = after.max(low);
        let to = up_to.min(high);
        if from >= to {
            return Ok((Vec::new(), up_to));
        }
        let read = shared.side.call(move |side| match side {
            Ok(side) => side.read(partition, from, to),
            Err(error) => Err(StoreError::new(error.failure(), error.to_string())),
        });
        let (events, scanned) = read.await??;
        Ok((events, if scanned >= to { up_to } else { scanned }))
    }

    pub(super) async fn read_beside(&self, read: ReadLog) -> Result<LogPage, StoreError> {
        let partition = read.partition;
        let (mut events, mut scanned) = self.read_range(partition, read.after, read.up_to).await?;
        events.retain(|event| read.filter.matches(event));
        if events.len() > read.limit {
            events.truncate(read.limit);
            scanned = events.last().map_or(scanned, |event| event.position);
        }
        let head = self.known_head(partition)?;
        // The rest of the range is past the end, or holds nothing that can be seen.
        let end = scanned >= read.up_to.min(head) || events.is_empty();
        Ok(LogPage {
            removed: Vec::new(),
            events,
            scanned: if end {
                read.up_to.min(head.max(read.after))
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
                    break;
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
