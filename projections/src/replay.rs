//! Rows folded in memory as a worker folds them, for questions that no kept row answers.

use std::collections::{HashMap, HashSet};

use annals_core::DeadLetter;
use annals_core::chrono::DateTime;
use bytes::Bytes;

use crate::fold::{Checks, RowError, Rows};
use crate::view::View;
use crate::view::step::Step;

/// Rows, and what has happened to them so far. A row whose event cannot be folded stays as it was
/// before it.
pub(crate) struct Replay<V: View> {
    rows: Rows<V>,
    ended: HashSet<String>,
    /// By key, the event that ended it.
    dead_letters: HashMap<String, DeadLetter>,
}

impl<V: View> Replay<V> {
    /// Of no rows yet.
    pub(crate) fn new() -> Replay<V> {
        Replay {
            rows: Rows::keeping(usize::MAX),
            ended: HashSet::new(),
            dead_letters: HashMap::new(),
        }
    }

    /// Goes on from a row as it is kept.
    pub(crate) fn from(key: &str, stored: Option<Bytes>) -> Result<Replay<V>, RowError> {
        let mut replay = Replay::new();
        replay.rows.learn(key.into(), stored)?;
        Ok(replay)
    }

    /// Takes in what happened next.
    pub(crate) fn take(&mut self, steps: &[Step<V>]) -> Result<(), RowError> {
        for key in self.rows.missing(steps) {
            self.rows.learn(key, None)?;
        }
        let before = self.rows.changes_of(steps);
        let ended = self.ended.clone();
        if self.fold(steps, Checks::Batch).is_ok() {
            return Ok(());
        }
        // A row cannot be stored: once more, event by event, so that the one is found that made it
        // so.
        for row in before {
            self.rows.learn(row.key, row.value)?;
        }
        self.ended = ended;
        self.fold(steps, Checks::Event)
    }

    fn fold(&mut self, steps: &[Step<V>], checks: Checks) -> Result<(), RowError> {
        let mut changes = self.rows.batch();
        // When an event became a dead letter does not matter here.
        let now = DateTime::default();
        self.rows
            .fold(&mut changes, steps, &mut self.ended, now, checks)?;
        changes.read_back::<V>()?;
        for letter in changes.dead_letters {
            let key = letter.key.clone();
            self.dead_letters.entry(key).or_insert(letter);
        }
        Ok(())
    }

    /// The first event of a key that cannot be folded: the row lacks it and all later ones.
    pub(crate) fn dead_letter(&self, key: &str) -> Option<&DeadLetter> {
        self.dead_letters.get(key)
    }

    /// The rows that there are, each with its key.
    pub(crate) fn into_rows(self) -> impl Iterator<Item = (String, V)> {
        self.rows.into_values()
    }
}
