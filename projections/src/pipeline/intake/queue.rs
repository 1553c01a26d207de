//! What waits in memory to be appended, and what is let in.

use std::collections::VecDeque;

use annals_core::chrono::{DateTime, TimeDelta, Utc};
use annals_core::{Failure, NewEvent, StoreError, StreamId};

use super::status::{IntakeStatus, Overload};

/// Bytes of events that wait at most.
const BYTES_MAX: usize = 64 << 20;
/// Events of one append.
const APPEND_EVENTS_MAX: usize = 500;

/// The events that wait, and what is counted.
#[derive(Default)]
pub(super) struct Queue {
    events: VecDeque<(StreamId, NewEvent)>,
    bytes: usize,
    pub(super) on_their_way: u64,
    seen: u64,
    /// The second that is counted in, and how many it had.
    second: Option<(DateTime<Utc>, u64)>,
    pub(super) status: IntakeStatus,
    pub(super) is_closed: bool,
}

impl Queue {
    pub(super) fn is_open(&self) -> Result<(), StoreError> {
        match self.is_closed {
            true => Err(StoreError::new(Failure::Closed, "the intake was closed")),
            false => Ok(()),
        }
    }

    /// Whether an event that comes now is one of those that are taken.
    pub(super) fn lets(
        &mut self,
        overload: Overload,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        self.is_open()?;
        let number = self.seen;
        self.seen += 1;
        let lets = match overload {
            Overload::Block | Overload::DropOldest => true,
            Overload::Sample { one_of } => number.is_multiple_of(one_of.max(1)),
            Overload::AtMost { per_second } => {
                let begins = |begun: DateTime<Utc>| now - begun >= TimeDelta::seconds(1);
                let (_, count) = match &mut self.second {
                    Some(second) if !begins(second.0) => second,
                    other => other.insert((now, 0)),
                };
                *count += 1;
                *count <= per_second
            }
        };
        if !lets {
            self.status.offered += 1;
            self.status.dropped += 1;
        }
        Ok(lets)
    }

    pub(super) fn waiting(&self) -> u64 {
        self.events.len() as u64 + self.on_their_way
    }

    pub(super) fn is_full(&self, events_max: usize) -> bool {
        self.events.len() >= events_max || self.bytes >= BYTES_MAX
    }

    pub(super) fn drop_oldest(&mut self) {
        if let Some((_, event)) = self.events.pop_front() {
            self.bytes -= event.size_bytes();
            self.status.dropped += 1;
        }
    }

    pub(super) fn push(&mut self, event: (StreamId, NewEvent)) {
        self.bytes += event.1.size_bytes();
        self.events.push_back(event);
        self.status.offered += 1;
        self.status.most_waiting = self.status.most_waiting.max(self.waiting());
    }

    /// The next that are appended together: of one stream where a store takes only such.
    pub(super) fn take(&mut self, is_atomic: bool) -> Vec<(StreamId, NewEvent)> {
        let mut taken: Vec<(StreamId, NewEvent)> = Vec::new();
        while taken.len() < APPEND_EVENTS_MAX {
            let first = taken.first().map(|(stream, _)| stream);
            let next = self
                .events
                .pop_front_if(|(stream, _)| is_atomic || first.is_none_or(|first| first == stream));
            let Some(next) = next else { break };
            self.bytes -= next.1.size_bytes();
            taken.push(next);
        }
        self.on_their_way = taken.len() as u64;
        taken
    }
}
