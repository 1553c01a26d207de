//! Where a slot continues: its position, what its note means, and whether the log is still the one
//! that was read.

use std::collections::BTreeMap;

use annals_core::{
    Checkpoint, EventId, Generation, GenerationId, Log, Partition, Position, ReadLog, StoreError,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::WorkError;

/// What a checkpoint keeps beside its position.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Note {
    /// Nothing: everything at or before the position is settled, and nothing after it.
    #[default]
    None,
    /// Rows of an earlier generation are still being copied.
    Restoring(Restoring),
    /// Events are settled one by one, not in their order.
    Window(WindowNote),
    /// Everything at or before the position is settled, and event time has come so far: what the
    /// clocks of a pipeline are at, in microseconds.
    Clock(BTreeMap<String, i64>),
    /// Everything at or before the position is settled, and so often were rows changed by dead
    /// letters since the slot came to it.
    Drained(u64),
}

/// How far rows of an earlier generation were copied into a new one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::exhaustive_structs)]
pub struct Restoring {
    /// The generation whose rows are copied.
    pub from: u64,
    /// Whether its dead letters were copied. They come first.
    pub dead_letters_copied: bool,
    /// The last key whose row was copied.
    pub after: Option<String>,
    /// The key after that one whose row was copied, but of the events that touched it only those up
    /// to a position.
    pub inside: Option<(String, Position)>,
}

/// The events that are settled in a window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::exhaustive_structs)]
pub struct WindowNote {
    /// Events that are settled after the position up to which all are.
    pub settled: Vec<Position>,
    /// That position, when it is before the checkpoint's because events are handled once more. The
    /// archiving of `annals_core` looks at it, by these names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low: Option<Position>,
}

impl Restoring {
    /// Nothing was copied yet.
    pub fn from(generation: GenerationId) -> Restoring {
        Restoring {
            from: generation.0,
            dead_letters_copied: false,
            after: None,
            inside: None,
        }
    }
}

impl WindowNote {
    /// Of a checkpoint at `position`: all up to `low` are settled, and these after it.
    pub fn of(settled: Vec<Position>, low: Position, position: Position) -> WindowNote {
        WindowNote {
            settled,
            low: Some(low).filter(|low| *low < position),
        }
    }
}

impl From<WindowNote> for Note {
    fn from(window: WindowNote) -> Note {
        if window == WindowNote::default() {
            Note::None
        } else {
            Note::Window(window)
        }
    }
}

impl Note {
    /// The note of a checkpoint.
    ///
    /// # Errors
    ///
    /// [`WorkError::Stopped`] for bytes that no program of this version wrote.
    pub fn of(checkpoint: &Checkpoint) -> Result<Note, WorkError> {
        if checkpoint.state.is_empty() {
            return Ok(Note::None);
        }
        serde_json::from_slice(&checkpoint.state).map_err(|error| {
            WorkError::Stopped(format!(
                "the checkpoint of slot {} cannot be read: {error}; start the newest program that \
                 wrote it",
                checkpoint.slot
            ))
        })
    }

    /// What a checkpoint keeps of it.
    pub fn to_state(&self) -> Bytes {
        match self {
            Note::None => Bytes::new(),
            note => serde_json::to_vec(note)
                .expect("texts and numbers can be written")
                .into(),
        }
    }

    /// After dead letters before the position were settled. It differs from the note before: the
    /// position stays, and who polls the checkpoint sees that rows have changed.
    ///
    /// ```
    /// use annals_runner::Note;
    ///
    /// let once = Note::None.drained();
    /// assert_ne!(once, Note::None);
    /// assert_ne!(once.clone().drained(), once);
    /// ```
    pub fn drained(self) -> Note {
        match self {
            Note::None => Note::Drained(1),
            Note::Drained(times) => Note::Drained(times.wrapping_add(1)),
            other => other,
        }
    }

    /// The window of it; an empty one when it is about something else.
    pub fn into_window(self) -> WindowNote {
        match self {
            Note::Window(window) => window,
            _ => WindowNote::default(),
        }
    }
}

/// Up to where everything is settled: the checkpoint's position, or one before it where events are
/// handled once more. Nothing is settled while rows are still being copied.
pub fn settled_to(checkpoint: &Checkpoint) -> Position {
    match Note::of(checkpoint) {
        Ok(Note::None | Note::Clock(_) | Note::Drained(_)) => checkpoint.position,
        Ok(Note::Window(WindowNote { low, .. })) => {
            low.map_or(checkpoint.position, |low| low.min(checkpoint.position))
        }
        Ok(Note::Restoring(_)) | Err(_) => Position::START,
    }
}

/// The event at a position, if it is there.
///
/// # Errors
///
/// Only those of a store that cannot answer.
pub async fn event_at<L: Log + ?Sized>(
    log: &L,
    partition: Partition,
    position: Position,
) -> Result<Option<EventId>, StoreError> {
    if position == Position::START {
        return Ok(None);
    }
    let read = ReadLog::after(position.minus(1))
        .up_to(position)
        .partition(partition)
        .limit(1);
    Ok(log.read(read).await?.events.first().map(|event| event.id))
}

/// Whether the log is the one that the checkpoint was made for: one that was restored, exchanged or
/// rewound is noticed here.
///
/// # Errors
///
/// [`WorkError::Stopped`] when it is another one, with what to do.
pub async fn same_log<L: Log + ?Sized>(
    log: &L,
    generation: &Generation,
    checkpoint: &Checkpoint,
) -> Result<(), WorkError> {
    let spec = &generation.spec;
    let stop = |what: String| {
        Err(WorkError::Stopped(format!(
            "{what}; nothing was changed. {}",
            way_out(&spec.view)
        )))
    };
    if spec.log != log.id() {
        return stop(format!(
            "generation {} was folded from the log {}, this is {}",
            generation.id,
            spec.log,
            log.id()
        ));
    }
    let (partition, position) = (checkpoint.partition, checkpoint.position);
    match another_log(log, partition, position, checkpoint.event).await? {
        Some(what) => stop(what),
        None => Ok(()),
    }
}

/// What shows that a partition is not the one that was read up to a position: it ends before, or
/// has another event there than the one that was read, where that is known.
///
/// # Errors
///
/// Only those of a store that cannot answer.
pub async fn another_log<L: Log + ?Sized>(
    log: &L,
    partition: Partition,
    position: Position,
    event: Option<EventId>,
) -> Result<Option<String>, StoreError> {
    let head = log.head(partition).await?.visible;
    if head < position {
        return Ok(Some(format!(
            "the log ends at {head} and the checkpoint is at {position}: the log was restored or \
             rewound"
        )));
    }
    let Some(event) = event else {
        return Ok(None);
    };
    let found = event_at(log, partition, position).await?;
    Ok(found.filter(|found| *found != event).map(|_| {
        format!(
            "the event at {position} is not the one that was read there: the log was restored and \
             went on"
        )
    }))
}

/// What an operator does about a log that is not the one that was read.
pub(crate) fn way_out(stored_name: &str) -> String {
    match stored_name.strip_prefix('$') {
        None => format!(
            "If this is the log that is meant to be read, rebuild the view `{stored_name}`; if \
             not, open the right one"
        ),
        Some(of) => {
            let (kind, name) = of.split_once('/').unwrap_or(("reactor", of));
            format!(
                "Open the right log; if this is the one, give the {kind} `{name}` another name, \
                 and it begins at the end of this log"
            )
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn checkpoint(position: u64, note: &Note) -> Checkpoint {
        Checkpoint {
            position: Position::new(position),
            state: note.to_state(),
            ..Checkpoint::start(0, Partition(0))
        }
    }

    #[test]
    fn notes_come_back_as_they_were_written() {
        let restoring = Restoring {
            dead_letters_copied: true,
            after: Some("a".into()),
            inside: Some(("b".into(), Position::new(7))),
            ..Restoring::from(GenerationId(3))
        };
        let window = WindowNote::of(vec![Position::new(9)], Position::new(4), Position::new(5));
        let clock = Note::Clock(BTreeMap::from([("max".into(), -5)]));
        for note in [
            Note::None,
            Note::Restoring(restoring),
            Note::from(window),
            clock,
            Note::Drained(2),
        ] {
            assert_eq!(Note::of(&checkpoint(5, &note)).unwrap(), note);
        }
    }

    #[test]
    fn only_what_is_settled_counts() {
        let at = Position::new;
        let window = |low| Note::from(WindowNote::of(Vec::new(), at(low), at(5)));
        let restoring = Note::Restoring(Restoring::from(GenerationId(3)));
        for (note, settled) in [
            (Note::None, 5),
            (Note::Clock(BTreeMap::new()), 5),
            (Note::Drained(1), 5),
            (window(5), 5),
            (window(3), 3),
            (restoring, 0),
        ] {
            assert_eq!(settled_to(&checkpoint(5, &note)), at(settled), "{note:?}");
        }
        let unreadable = Checkpoint {
            state: "?".into(),
            ..checkpoint(5, &Note::None)
        };
        assert!(Note::of(&unreadable).is_err());
    }
}
