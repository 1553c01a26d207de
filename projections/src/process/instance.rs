//! A process manager as folded from its stream: the user's state, its deadlines, and how far it has
//! come.

use std::any::TypeId;
use std::collections::{BTreeMap, HashMap};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use annals_core::chrono::{DateTime, Utc};
use annals_core::{
    Aggregate, Codec, CodecError, DecodeError, Decoded, Encoded, Event, Invalid, Json, Partition,
    Position, Shape, Stored, Tag,
};
use serde::{Deserialize, Serialize};

use super::Process;

/// What is in the stream of a process manager: its own events, and what Annals notes.
pub(super) enum ProcessEvent<P: Process> {
    Own(Arc<P::Event>),
    Noted(Noted),
}

impl<P: Process> ProcessEvent<P> {
    fn own(event: P::Event) -> ProcessEvent<P> {
        ProcessEvent::Own(Arc::new(event))
    }
}

/// What Annals notes in the stream of a process.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Noted {
    /// Everything up to here was reacted to.
    Handled(Reached),
    DeadlineSet(Deadline),
    DeadlineCancelled(Deadline),
    DeadlineReached(Deadline),
    Finished,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Reached {
    pub(super) partition: Partition,
    pub(super) position: Position,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Deadline {
    pub(super) name: String,
    pub(super) at: DateTime<Utc>,
    /// Counts the deadlines of its process manager, so that one that was set again is another one.
    pub(super) number: u64,
}

pub(super) const HANDLED: &str = "$process.handled";
pub(super) const SET: &str = "$process.deadline_set";
pub(super) const CANCELLED: &str = "$process.deadline_cancelled";
pub(super) const REACHED: &str = "$process.deadline_reached";
pub(super) const FINISHED: &str = "$process.finished";

static NOTED: [Shape; 5] = [
    noted(HANDLED, "partition, position"),
    noted(SET, "name, at, number"),
    noted(CANCELLED, "name, at, number"),
    noted(REACHED, "name, at, number"),
    noted(FINISHED, ""),
];

const fn noted(event_type: &'static str, fields: &'static str) -> Shape {
    Shape {
        event_type,
        schema_version: 1,
        current: true,
        fields,
    }
}

impl Noted {
    fn shape(&self) -> &'static Shape {
        match self {
            Noted::Handled(_) => &NOTED[0],
            Noted::DeadlineSet(_) => &NOTED[1],
            Noted::DeadlineCancelled(_) => &NOTED[2],
            Noted::DeadlineReached(_) => &NOTED[3],
            Noted::Finished => &NOTED[4],
        }
    }

    fn encode(&self) -> Result<Vec<u8>, CodecError> {
        match self {
            Noted::Handled(place) => Json::encode(place),
            Noted::DeadlineSet(deadline)
            | Noted::DeadlineCancelled(deadline)
            | Noted::DeadlineReached(deadline) => Json::encode(deadline),
            Noted::Finished => Json::encode(&()),
        }
    }

    /// What is noted, when the event is a note.
    pub(super) fn decode(stored: &Stored<'_>) -> Option<Result<Noted, DecodeError>> {
        let deadline =
            |note: fn(Deadline) -> Noted| Json::decode(stored.payload, PhantomData).map(note);
        let read = match stored.event_type {
            HANDLED => Json::decode(stored.payload, PhantomData).map(Noted::Handled),
            SET => deadline(Noted::DeadlineSet),
            CANCELLED => deadline(Noted::DeadlineCancelled),
            REACHED => deadline(Noted::DeadlineReached),
            FINISHED => Ok(Noted::Finished),
            _ => return None,
        };
        Some(read.map_err(|source| DecodeError::Malformed {
            event_type: stored.event_type.into(),
            schema_version: stored.schema_version,
            source,
        }))
    }
}

impl<P: Process> Event for ProcessEvent<P> {
    const CATEGORY: &'static str = P::Event::CATEGORY;

    fn shapes() -> &'static [Shape] {
        // Once for each type of process that a program has.
        static KNOWN: Mutex<Option<HashMap<TypeId, &'static [Shape]>>> = Mutex::new(None);
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .get_or_insert_with(HashMap::new)
            .entry(TypeId::of::<P>())
            .or_insert_with(|| {
                P::Event::shapes()
                    .iter()
                    .chain(&NOTED)
                    .copied()
                    .collect::<Vec<_>>()
                    .leak()
            })
    }

    fn shape(&self) -> &'static Shape {
        match self {
            ProcessEvent::Own(event) => event.shape(),
            ProcessEvent::Noted(noted) => noted.shape(),
        }
    }

    fn tags(&self) -> Result<Vec<Tag>, Invalid> {
        match self {
            ProcessEvent::Own(event) => event.tags(),
            ProcessEvent::Noted(_) => Ok(Vec::new()),
        }
    }

    fn encode(&self) -> Result<Encoded, CodecError> {
        match self {
            ProcessEvent::Own(event) => event.encode(),
            ProcessEvent::Noted(noted) => Ok(Encoded {
                codec: Json::NAME,
                payload: noted.encode()?.into(),
            }),
        }
    }

    fn decode(stored: Stored<'_>) -> Result<Decoded<ProcessEvent<P>>, DecodeError> {
        if let Some(noted) = Noted::decode(&stored) {
            return Ok(Decoded::One(ProcessEvent::Noted(noted?)));
        }
        Ok(match P::Event::decode(stored)? {
            Decoded::One(event) => Decoded::One(ProcessEvent::own(event)),
            Decoded::Several(events) => {
                Decoded::Several(events.into_iter().map(ProcessEvent::own).collect())
            }
        })
    }
}

/// A process.
pub(super) struct Instance<P> {
    pub(super) process: P,
    pub(super) finished: bool,
    // The last ones of each name; `true`: it was reached.
    deadlines: BTreeMap<String, (Deadline, bool)>,
    numbers: u64,
    handled: BTreeMap<Partition, Position>,
}

impl<P: Process> Default for Instance<P> {
    fn default() -> Instance<P> {
        Instance {
            process: P::default(),
            finished: false,
            deadlines: BTreeMap::new(),
            numbers: 0,
            handled: BTreeMap::new(),
        }
    }
}

impl<P: Process> Aggregate for Instance<P> {
    type Event = ProcessEvent<P>;

    fn apply(&mut self, event: &ProcessEvent<P>) {
        let noted = match event {
            ProcessEvent::Own(event) => return self.process.apply(event),
            ProcessEvent::Noted(noted) => noted,
        };
        match noted {
            Noted::Handled(place) => _ = self.handled.insert(place.partition, place.position),
            Noted::DeadlineSet(deadline) => {
                self.numbers = deadline.number;
                self.deadlines
                    .insert(deadline.name.clone(), (deadline.clone(), false));
            }
            Noted::DeadlineCancelled(deadline) => {
                if self
                    .deadlines
                    .get(&deadline.name)
                    .is_some_and(|(of, _)| of.number == deadline.number)
                {
                    self.deadlines.remove(&deadline.name);
                }
            }
            Noted::DeadlineReached(deadline) => {
                if let Some((of, reached)) = self.deadlines.get_mut(&deadline.name)
                    && of.number == deadline.number
                {
                    *reached = true;
                }
            }
            Noted::Finished => self.finished = true,
        }
    }
}

impl<P: Process> Instance<P> {
    /// Whether it has reacted to the event at this place.
    pub(super) fn has_handled(&self, partition: Partition, position: Position) -> bool {
        self.handled
            .get(&partition)
            .is_some_and(|handled| *handled >= position)
    }

    /// Whether it waits for this deadline.
    pub(super) fn waits_for(&self, deadline: &Deadline) -> bool {
        !self.finished
            && self
                .deadlines
                .get(&deadline.name)
                .is_some_and(|(of, reached)| of == deadline && !reached)
    }

    /// Whether this deadline was reached, and is still meant.
    pub(super) fn has_reached(&self, deadline: &Deadline) -> bool {
        self.deadlines
            .get(&deadline.name)
            .is_some_and(|(of, reached)| of == deadline && *reached)
    }

    pub(super) fn waiting(&self) -> BTreeMap<String, DateTime<Utc>> {
        let waiting = self.deadlines.iter().filter(|(_, (_, reached))| !reached);
        waiting
            .map(|(name, (deadline, _))| (name.clone(), deadline.at))
            .collect()
    }

    pub(super) fn deadlines(&self) -> impl Iterator<Item = &Deadline> {
        self.deadlines.values().map(|(deadline, _)| deadline)
    }

    pub(super) fn numbers(&self) -> u64 {
        self.numbers
    }
}
