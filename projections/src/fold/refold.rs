//! Events folded onto one row, for queries and tools.

use annals_core::Position;
use annals_core::chrono::{DateTime, Utc};
use bytes::Bytes;

use super::cache::Rows;
use super::row::RowError;
use crate::view::step::Step;
use crate::view::{Poison, View};

/// Folds more events onto one row, for queries about the past. An event that cannot be folded ends
/// it, as it did when it became a dead letter.
pub(crate) fn refold<V: View>(
    key: &str,
    stored: Option<&Bytes>,
    steps: &[Step<V>],
) -> Result<Option<V>, RowError> {
    let mut rows = Rows::keeping(1);
    rows.learn(key.into(), stored.cloned())?;
    for (index, step) in steps
        .iter()
        .enumerate()
        .filter(|(_, step)| step.is_about(key))
    {
        if fits(&mut rows, key, step).is_err() {
            rows.go_back(key, &steps[..index], step.record().position);
            break;
        }
    }
    Ok(rows.into_value(key))
}

/// Folds events onto a row; else the position of the one that cannot be folded, and why not.
pub(crate) fn folded<V: View>(
    key: &str,
    base: Option<Bytes>,
    steps: &[Step<V>],
) -> Result<Result<Option<Bytes>, (Position, Poison)>, RowError> {
    let mut rows = Rows::keeping(1);
    rows.learn(key.into(), base)?;
    for step in steps.iter().filter(|step| step.is_about(key)) {
        if let Err(poison) = fits(&mut rows, key, step) {
            return Ok(Err((step.record().position, poison)));
        }
    }
    rows.encoded(key).map(Ok)
}

/// Folds an event that leaves a row which can be stored, as a worker demands of each.
fn fits<V: View>(rows: &mut Rows<V>, key: &str, step: &Step<V>) -> Result<(), Poison> {
    rows.apply(key, step)?;
    let stored = rows.can_be_stored(key);
    stored.map_err(|error| Poison::new(error.reason()))
}

/// What a row was from an event on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RowVersionBefore {
    pub(crate) from: Position,
    pub(crate) recorded_at: DateTime<Utc>,
    pub(crate) value: Option<Bytes>,
}

/// What a row was after each event that is about it, up to the first that cannot be folded; and the
/// reason of that one.
pub(crate) fn versions<V: View>(
    key: &str,
    base: Option<&Bytes>,
    steps: &[Step<V>],
) -> Result<(Vec<RowVersionBefore>, Option<Poison>), RowError> {
    let mut rows = Rows::keeping(1);
    rows.learn(key.into(), base.cloned())?;
    let mut versions: Vec<RowVersionBefore> = Vec::new();
    for step in steps.iter().filter(|step| step.is_about(key)) {
        if let Err(poison) = rows.apply(key, step).and_then(|_| rows.check(key)) {
            return Ok((versions, Some(poison)));
        }
        let from = step.record().position;
        let recorded_at = step.record().recorded_at;
        let value = rows.encoded(key)?;
        // One event may read as several.
        if versions.last().is_some_and(|last| last.from == from) {
            versions.pop();
        }
        versions.push(RowVersionBefore {
            from,
            recorded_at,
            value,
        });
    }
    Ok((versions, None))
}
