//! One partition of the log in memory: its events, its streams and the ids that it knows.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};

use crate::append::{Append, AppendError, Placed, Violation};
use crate::deduplicate::StoredId;
use crate::event::{EventId, Place, RecordedEvent};
use crate::position::{Head, Partition, Position};
use crate::read::{Direction, LogPage, PAGE_BYTES_MAX, ReadLog};
use crate::removed::{PAGE_REMOVED_MAX, RemovedEvent};
use crate::store::Found;
use crate::stream::{StreamId, Version};
use crate::stream_state::{ChangeStream, Status, StreamChange, StreamState};

/// Positions after which a page ends, also one without events: as stores do that must not look
/// through a whole log for one answer.
const PAGE_SCANNED_MAX: usize = 10_000;

/// One partition: its events by position, its streams, its ids.
#[derive(Debug)]
pub(super) struct PartitionLog {
    // At `position - 1`; nothing where an event was removed for good.
    pub(super) events: Vec<Option<RecordedEvent>>,
    pub(super) streams: HashMap<StreamId, Stream>,
    pub(super) ids: HashMap<EventId, StoredId>,
    pub(super) changes: HashMap<EventId, ChangeStream>,
    pub(super) last_recorded: DateTime<Utc>,
    pub(super) removed: BTreeMap<Position, RemovedEvent>,
}

#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) state: StreamState,
    // At `version - 1`.
    pub(super) positions: Vec<Position>,
}

impl Default for PartitionLog {
    fn default() -> PartitionLog {
        PartitionLog {
            events: Vec::new(),
            streams: HashMap::new(),
            ids: HashMap::new(),
            changes: HashMap::new(),
            // Before every moment that a clock can tell.
            last_recorded: DateTime::<Utc>::MIN_UTC,
            removed: BTreeMap::new(),
        }
    }
}

impl PartitionLog {
    pub(super) fn head(&self) -> Position {
        Position::new(self.events.len() as u64)
    }

    /// The last position that was recorded at or before a moment, removed events included.
    pub(super) fn position_at(&self, moment: DateTime<Utc>) -> Position {
        let is_by_then = |position: Position| match &self.events[position.get() as usize - 1] {
            Some(event) => event.recorded_at <= moment,
            None => self
                .removed
                .get(&position)
                .is_some_and(|removed| removed.recorded_at <= moment),
        };
        // Recorded times never go backwards with the position.
        let mut known = 0;
        let mut above = self.events.len() as u64 + 1;
        while known + 1 < above {
            let middle = u64::midpoint(known, above);
            match is_by_then(Position::new(middle)) {
                true => known = middle,
                false => above = middle,
            }
        }
        Position::new(known)
    }

    pub(super) fn state(&self, stream: &StreamId) -> StreamState {
        self.streams
            .get(stream)
            .map_or_else(StreamState::absent, |stream| stream.state.clone())
    }

    pub(super) fn rewind(&mut self, position: Position) {
        self.events.truncate(position.get() as usize);
        self.removed.retain(|of, _| *of <= position);
        self.ids
            .retain(|_, known| known.found.placed.position <= position);
        self.streams.retain(|_, stream| {
            stream.positions.retain(|of| *of <= position);
            let state = &mut stream.state;
            let tombstoned = state.status == Status::Tombstoned;
            state
                .deletions
                .retain(|deletion| deletion.position <= position);
            state.version = Version::new(stream.positions.len() as u64);
            let emptied = state.deletions.last().map(|deletion| deletion.version);
            state.status = match emptied {
                Some(_) if tombstoned => Status::Tombstoned,
                Some(version) if version == state.version => Status::Deleted,
                _ => Status::Active,
            };
            state.version > Version::NONE || !state.deletions.is_empty()
        });
    }

    /// The moment of a commit: never before an earlier one.
    pub(super) fn moment(&mut self, now: DateTime<Utc>) -> DateTime<Utc> {
        self.last_recorded = self.last_recorded.max(now);
        self.last_recorded
    }

    /// Where the events of one append are, also when they were removed for good.
    pub(super) fn places(&self, first: Position, events: u32) -> Vec<Placed> {
        let range = first..first.plus(u64::from(events));
        let mut places: Vec<_> = self
            .ids
            .values()
            .map(|known| &known.found.placed)
            .filter(|place| range.contains(&place.position))
            .cloned()
            .collect();
        places.sort_by_key(|place| place.position);
        places
    }

    pub(super) fn violations(&self, append: &Append) -> Vec<Violation> {
        let expected = append.expected_streams().enumerate();
        let streams = expected.filter_map(|(index, (stream, expected))| {
            let found = self.state(stream);
            let written = append.events.iter().any(|(to, _)| to == stream);
            let holds = if written {
                expected.allows_writing(&found)
            } else {
                expected.passes_check(&found)
            };
            (!holds).then(|| Violation::Stream {
                index,
                stream: stream.clone(),
                expected,
                found,
            })
        });
        let matching = append.condition.as_ref().and_then(|condition| {
            let after = condition.after.unwrap_or(Position::START);
            self.events
                .iter()
                .flatten()
                .find(|event| event.position > after && condition.query.matches(event))
        });
        streams
            .chain(matching.map(|event| Violation::Condition {
                position: event.position,
            }))
            .collect()
    }

    pub(super) fn record(
        &mut self,
        partition: Partition,
        append: &Append,
        now: DateTime<Utc>,
    ) -> Vec<Placed> {
        let recorded_at = self.moment(now);
        let append_first = self.head().next();
        let append_events = append.events.len() as u32;
        let mut places = Vec::with_capacity(append.events.len());
        for (append_index, (stream_id, event)) in (0..).zip(&append.events) {
            let position = self.head().next();
            let stream = self.streams.entry(stream_id.clone()).or_default();
            if stream.state.status == Status::Deleted {
                stream.state.truncated_before = Version::NONE;
            }
            stream.state.status = Status::Active;
            stream.state.version = stream.state.version.next();
            stream.positions.push(position);
            let place = Place {
                stream: stream_id.clone(),
                version: stream.state.version,
                partition,
                position,
                append_index,
                recorded_at,
            };
            let placed = Placed {
                id: event.id,
                stream: stream_id.clone(),
                version: place.version,
                partition,
                position,
            };
            let found = Found {
                placed: placed.clone(),
                append_first,
                append_events,
            };
            self.ids.insert(
                event.id,
                StoredId {
                    found,
                    digest: event.digest(),
                },
            );
            self.events.push(Some(event.recorded(place)));
            places.push(placed);
        }
        places
    }

    pub(super) fn change(
        &mut self,
        asked: ChangeStream,
        now: DateTime<Utc>,
    ) -> Result<StreamState, AppendError> {
        let ChangeStream {
            id,
            stream: ref stream_id,
            expected,
            change,
        } = asked;
        let found = self.state(stream_id);
        if let Some(done) = self.changes.get(&id) {
            asked.check_repeats(done)?;
            return Ok(found);
        }
        if !expected.allows_writing(&found) {
            let violation = Violation::Stream {
                index: 0,
                stream: stream_id.clone(),
                expected,
                found,
            };
            return Err(AppendError::Conflict(vec![violation]));
        }
        let after = found.changed(stream_id, change, self.head(), self.last_recorded.max(now))?;
        if let StreamChange::Archive { before } = change {
            let positions = self
                .streams
                .get(stream_id)
                .map_or(&[][..], |stream| &stream.positions);
            for position in positions.iter().take(before.get() as usize - 1) {
                if let Some(event) = self.events[position.get() as usize - 1].take() {
                    self.removed.insert(*position, RemovedEvent::of(&event));
                }
            }
        }
        if after != found {
            self.moment(now);
            self.streams.entry(stream_id.clone()).or_default().state = after.clone();
        }
        self.changes.insert(id, asked);
        Ok(after)
    }

    /// The page with what was removed in its range.
    pub(super) fn with_removed(&self, page: LogPage, read: &ReadLog) -> LogPage {
        let Some((first, last)) = page.gaps(read) else {
            return page;
        };
        let removed = self
            .removed
            .range(first..=last)
            .map(|(_, event)| event.clone());
        let most = PAGE_REMOVED_MAX + 1;
        let found = match read.direction {
            Direction::Forward => removed.take(most).collect(),
            Direction::Backward => removed.rev().take(most).collect(),
        };
        page.with_removed(read, found)
    }

    pub(super) fn page(&self, read: &Range, matches: impl Fn(&RecordedEvent) -> bool) -> LogPage {
        let head = self.head();
        let up_to = read.up_to.min(head);
        let positions = read.after.get() + 1..=up_to.get();
        let step: Box<dyn Iterator<Item = u64>> = match read.direction {
            Direction::Forward => Box::new(positions),
            Direction::Backward => Box::new(positions.rev()),
        };
        let mut events = Vec::new();
        let mut bytes = 0;
        // Before anything was looked at: nothing is scanned.
        let mut scanned = match read.direction {
            Direction::Forward => read.after,
            Direction::Backward => up_to.next(),
        };
        for (looked_at, position) in step.enumerate() {
            if events.len() >= read.limit
                || bytes >= PAGE_BYTES_MAX
                || looked_at >= PAGE_SCANNED_MAX
            {
                return LogPage {
                    events,
                    removed: Vec::new(),
                    scanned,
                    end: false,
                    head: Head::at(head),
                };
            }
            if let Some(event) = self.events[position as usize - 1]
                .as_ref()
                .filter(|event| matches(event))
            {
                bytes += event.payload.len();
                events.push(event.clone());
            }
            scanned = Position::new(position);
        }
        LogPage {
            events,
            removed: Vec::new(),
            scanned,
            end: true,
            head: Head::at(head),
        }
    }
}

/// The positions of a page: after the first, up to and with the second.
pub(super) struct Range {
    pub(super) after: Position,
    pub(super) up_to: Position,
    pub(super) limit: usize,
    pub(super) direction: Direction,
}
