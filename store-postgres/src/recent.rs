//! The newest events in memory, as far as conditions ask for them: so that a decision that was
//! taken a moment ago is checked without asking the server.

use std::collections::VecDeque;
use std::sync::Arc;

use annals_core::{NewEvent, Query, QueryItem, StreamId};

use crate::request::Request;

/// What is kept at most.
const EVENTS_MAX: usize = 8_192;
const BYTES_MAX: usize = 8 << 20;

/// What was appended after a position, without a gap.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    /// The position after which everything is known.
    from: u64,
    /// Appends, each with the position of its first event.
    appends: VecDeque<(u64, Arc<Request>)>,
    events: usize,
    bytes: usize,
    /// Nothing is kept until the first reader asks.
    is_wanted: bool,
}

impl Recent {
    /// Knows nothing of what is at or before `head`.
    pub(crate) fn begin_at(&mut self, head: u64) {
        self.appends.clear();
        self.events = 0;
        self.bytes = 0;
        self.from = head;
    }

    /// Whether everything after `position` is known, in a log that goes to `head`.
    pub(crate) fn reaches(&mut self, position: u64, head: u64) -> bool {
        if !self.is_wanted {
            self.is_wanted = true;
            self.begin_at(head);
        }
        self.from <= position
    }

    /// The next append, the first event of which is at `first`.
    pub(crate) fn push(&mut self, first: u64, request: &Arc<Request>) {
        if !self.is_wanted {
            return;
        }
        self.events += request.events.len();
        self.bytes += request.bytes;
        self.appends.push_back((first, Arc::clone(request)));
        while (self.events > EVENTS_MAX || self.bytes > BYTES_MAX)
            && let Some((first, oldest)) = self.appends.pop_front()
        {
            self.events -= oldest.events.len();
            self.bytes -= oldest.bytes;
            self.from = first + oldest.events.len() as u64 - 1;
        }
    }

    /// Whether an event after `position` matches.
    pub(crate) fn matches_after(&self, position: u64, query: &Query) -> bool {
        self.appends
            .iter()
            .rev()
            .take_while(|(first, request)| first + request.events.len() as u64 > position + 1)
            .any(|(first, request)| {
                let skipped = (position + 1).saturating_sub(*first) as usize;
                request
                    .append
                    .events
                    .iter()
                    .skip(skipped)
                    .any(|(stream, event)| matches(query, stream, event))
            })
    }
}

/// Whether an event that is about to be appended matches.
pub(crate) fn matches(query: &Query, stream: &StreamId, event: &NewEvent) -> bool {
    let item_matches = |item: &QueryItem| {
        (item.types.is_empty() || item.types.iter().any(|name| **name == *event.event_type))
            && (item.streams.is_empty() || item.streams.contains(stream))
            && item.tags.iter().all(|tag| event.tags.contains(tag))
    };
    query.items().iter().any(item_matches)
}
