//! What a view with history keeps of a batch: what its rows were at the end of each interval.

use std::collections::HashMap;

use annals_core::chrono::{DateTime, Utc};
use annals_core::{Position, RecordedEvent};

use crate::view::View;
use crate::view::step::Step;

/// A view with history keeps what its rows are at least once in so many positions, also inside a
/// larger batch: the most of the log that a question about a moment reads again. Intervals do not
/// reach over a multiple of it.
const INTERVAL_POSITIONS: u64 = 1_024;

/// The last position at which an interval can end that contains `position`.
pub(crate) fn interval_end(position: Position) -> Position {
    Position::new(position.get().div_ceil(INTERVAL_POSITIONS) * INTERVAL_POSITIONS)
}

/// The last position, at or before this one, at which no interval is cut in two.
pub(crate) fn between_intervals(position: Position) -> Position {
    Position::new(position.get() / INTERVAL_POSITIONS * INTERVAL_POSITIONS)
}

/// A stretch of a batch, at the end of which it is kept what the rows are that it touched.
#[derive(Debug, Default)]
pub(super) struct HistoryInterval<'a> {
    pub(super) end: Position,
    pub(super) touched: HashMap<&'a str, Touched>,
}

/// The events of an interval that touched a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Touched {
    pub(super) first: Position,
    pub(super) last: Position,
    pub(super) recorded_at: DateTime<Utc>,
}

impl<'a> HistoryInterval<'a> {
    pub(super) fn touch(&mut self, key: &'a str, record: &RecordedEvent) {
        let position = record.position;
        let recorded_at = record.recorded_at;
        let touched = self.touched.entry(key).or_insert(Touched {
            first: position,
            last: position,
            recorded_at,
        });
        touched.last = position;
        touched.recorded_at = recorded_at;
    }

    /// Takes back that the event at `position` touched the row.
    pub(super) fn untouch<V: View>(&mut self, key: &str, before: &[Step<V>], position: Position) {
        let Some(touched) = self
            .touched
            .get_mut(key)
            .filter(|touched| touched.last == position)
        else {
            return;
        };
        let mut earlier = before
            .iter()
            .rev()
            .filter(|step| step.is_about(key))
            .map(Step::record);
        match earlier.find(|record| record.position < position) {
            Some(record) if touched.first <= record.position => {
                touched.last = record.position;
                touched.recorded_at = record.recorded_at;
            }
            _ => _ = self.touched.remove(key),
        }
    }
}
