//! Events folded onto one row, for queries and tools.

use std::ops::ControlFlow;

use annals_core::Position;
use annals_core::chrono::{DateTime, Utc};
use bytes::Bytes;

use super::cache::Rows;
use super::row::RowError;
use crate::view::step::Step;
use crate::view::{Poison, View};

/// A row onto which events are folded again, some at a time, for checks and questions about the
/// past. An event that cannot be folded ends it, as it did when it became a dead letter.
#[derive(Clone, Debug)]
pub(crate) struct Refolded {
    stored: Option<Bytes>,
    is_over: bool,
}

impl Refolded {
    /// Begins with a row as it is stored.
    pub(crate) fn from(stored: Option<Bytes>) -> Refolded {
        Refolded {
            stored,
            is_over: false,
        }
    }

    /// Folds more events onto it; whether any of them is about it.
    pub(crate) fn take<V: View>(&mut self, key: &str, steps: &[Step<V>]) -> Result<bool, RowError> {
        if !steps.iter().any(|step| step.is_about(key)) {
            return Ok(false);
        }
        if self.is_over {
            return Ok(true);
        }
        let mut rows = Rows::keeping(1);
        rows.learn(key.into(), self.stored.clone())?;
        for (index, step) in steps
            .iter()
            .enumerate()
            .filter(|(_, step)| step.is_about(key))
        {
            if fits(&mut rows, key, step).is_err() {
                rows.go_back(key, &steps[..index], step.record().position);
                self.is_over = true;
                break;
            }
        }
        self.stored = rows.encoded(key)?;
        Ok(true)
    }

    /// The row as it is stored.
    pub(crate) fn stored(&self) -> Option<&Bytes> {
        self.stored.as_ref()
    }
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

/// What a row was after each event that is about it, told one after another.
pub(crate) struct Versions<'a, V> {
    key: &'a str,
    rows: Rows<V>,
    poison: Option<Poison>,
}

impl<'a, V: View> Versions<'a, V> {
    /// Begins with a row as it is stored.
    pub(crate) fn from(key: &'a str, base: Option<&Bytes>) -> Result<Versions<'a, V>, RowError> {
        let mut rows = Rows::keeping(1);
        rows.learn(key.into(), base.cloned())?;
        let poison = None;
        Ok(Versions { key, rows, poison })
    }

    /// Folds more events, up to the first that cannot be folded, and tells the versions until that
    /// breaks. All that one event reads as is among these steps.
    pub(crate) fn take(
        &mut self,
        steps: &[Step<V>],
        mut tell: impl FnMut(RowVersionBefore) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, RowError> {
        let own: Vec<_> = steps
            .iter()
            .filter(|step| step.is_about(self.key))
            .collect();
        for event in own.chunk_by(|one, next| one.record().position == next.record().position) {
            for step in event {
                if self.poison.is_some() {
                    return Ok(ControlFlow::Continue(()));
                }
                let applied = self.rows.apply(self.key, step);
                self.poison = applied.and_then(|_| self.rows.check(self.key)).err();
            }
            let (Some(last), None) = (event.last(), &self.poison) else {
                return Ok(ControlFlow::Continue(()));
            };
            let version = RowVersionBefore {
                from: last.record().position,
                recorded_at: last.record().recorded_at,
                value: self.rows.encoded(self.key)?,
            };
            if tell(version).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// What a row was after each event that is about it, up to the first that cannot be folded; and the
/// reason of that one.
pub(crate) fn versions<V: View>(
    key: &str,
    base: Option<&Bytes>,
    steps: &[Step<V>],
) -> Result<(Vec<RowVersionBefore>, Option<Poison>), RowError> {
    let mut all = Vec::new();
    let mut versions = Versions::from(key, base)?;
    let _ = versions.take(steps, |version| {
        all.push(version);
        ControlFlow::Continue(())
    })?;
    Ok((all, versions.poison))
}
