//! What the marks of a state topic say beside a position.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Keys in dead letters that a mark names; with more of them, the rows are copied again after a
/// restart.
const DEAD_MAX: usize = 1_000;

/// Whose rows the topic has, and what may change without an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// The generation whose rows these are.
    pub(super) generation: u64,
    /// Whether all its rows were copied once.
    pub(super) complete: bool,
    /// Keys in dead letters: their rows change when an operator retries or skips them. Nothing
    /// when they are too many to be named.
    pub(super) dead: Option<BTreeSet<String>>,
}

impl Note {
    pub(super) fn new(generation: u64, complete: bool, dead: &BTreeSet<String>) -> Note {
        Note {
            generation,
            complete,
            dead: (dead.len() <= DEAD_MAX).then(|| dead.clone()),
        }
    }

    pub(super) fn written(&self) -> Bytes {
        Bytes::from(serde_json::json!(self).to_string())
    }

    pub(super) fn read(note: &[u8]) -> Option<Note> {
        serde_json::from_slice(note).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_comes_back_and_names_few_keys() {
        let dead: BTreeSet<String> = ["ada".to_owned()].into();
        let note = Note::new(7, true, &dead);
        assert_eq!(note.dead, Some(dead));
        assert_eq!(Note::read(&note.written()), Some(note));
        let many = (0..=DEAD_MAX).map(|number| number.to_string()).collect();
        assert_eq!(Note::new(7, true, &many).dead, None);
        assert_eq!(Note::read(b""), None);
    }
}
