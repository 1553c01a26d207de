//! Whether an append may happen, and everything that prevents it.

use std::collections::HashSet;

use annals_core::{Status, StreamId, Violation};

use crate::query_plan;
use crate::request::Request;
use crate::stream_cache::StreamStatements;
use crate::streams;
use crate::write_tx::WriteTx;

impl WriteTx {
    /// Whether the expectations and the condition hold; why not is found separately.
    pub(crate) fn may_happen(&mut self, request: &Request) -> Result<bool, rusqlite::Error> {
        let append = &request.append;
        let written = Written::of(request);
        let mut statements = StreamStatements::of(&self.connection);
        for (stream, expected) in &append.expectations {
            let state = self.stream_cache.stream(&mut statements, stream)?.state();
            let holds = if written.holds(stream) {
                expected.allows_writing(&state)
            } else {
                expected.passes_check(&state)
            };
            if !holds {
                return Ok(false);
            }
        }
        let mut last: Option<&StreamId> = None;
        for (stream, _) in &append.events {
            if last != Some(stream) {
                let entry = self.stream_cache.stream(&mut statements, stream)?;
                if entry.status == Status::Tombstoned {
                    return Ok(false);
                }
                last = Some(stream);
            }
        }
        match &request.append.condition {
            None => Ok(true),
            Some(condition) => {
                Ok(query_plan::first_match(&self.connection, condition, self.tail.head)?.is_none())
            }
        }
    }

    /// Every expectation and condition that does not hold.
    pub(crate) fn violations(&self, request: &Request) -> Result<Vec<Violation>, rusqlite::Error> {
        let append = &request.append;
        let written = Written::of(request);
        let mut violations = Vec::new();
        for (index, (stream, expected)) in append.expected_streams().enumerate() {
            let (_, found) = streams::state(&self.connection, stream)?;
            let holds = if written.holds(stream) {
                expected.allows_writing(&found)
            } else {
                expected.passes_check(&found)
            };
            if !holds {
                violations.push(Violation::Stream {
                    index,
                    stream: stream.clone(),
                    expected,
                    found,
                });
            }
        }
        if let Some(condition) = &request.append.condition
            && let Some(position) =
                query_plan::first_match(&self.connection, condition, self.tail.head)?
        {
            violations.push(Violation::Condition { position });
        }
        Ok(violations)
    }
}

/// The streams that get an event.
enum Written<'a> {
    Few(&'a Request),
    Many(HashSet<&'a StreamId>),
}

impl<'a> Written<'a> {
    fn of(request: &'a Request) -> Written<'a> {
        if request.append.expectations.len() <= 2 {
            return Written::Few(request);
        }
        Written::Many(
            request
                .append
                .events
                .iter()
                .map(|(stream, _)| stream)
                .collect(),
        )
    }

    fn holds(&self, stream: &StreamId) -> bool {
        match self {
            Written::Few(request) => request.append.events.iter().any(|(to, _)| to == stream),
            Written::Many(streams) => streams.contains(stream),
        }
    }
}
