//! One step of a worker: rows, their past, dead letters and the checkpoint, which change
//! together or not at all.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::error::{Invalid, StoreError};
use crate::event::EventId;
use crate::generation::{Generation, GenerationId, GenerationSpec, History};
use crate::inline::RowAdvance;
use crate::lease::Lease;
use crate::position::{Partition, Position};
use crate::stream::Version;

/// The bytes that a key, an entry of an index, or the name of a view may have: what every database
/// can keep in an index.
pub const VIEW_KEY_BYTES_MAX: usize = 1_024;

/// The bytes that a key of the state of a slot may have.
pub const STATE_KEY_BYTES_MAX: usize = 64;

/// How far a slot of a generation has come in one partition of the log: everything at or below is
/// settled.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Checkpoint {
    /// The slot.
    pub slot: u16,
    /// The partition.
    pub partition: Partition,
    /// The position.
    pub position: Position,
    /// The event at that position, or none at the start: a log that has another one there is not
    /// the log that was read.
    pub event: Option<EventId>,
    /// What the projection keeps for itself, such as windows that are open.
    pub state: Bytes,
}

impl Checkpoint {
    /// Before anything was read.
    pub fn start(slot: u16, partition: Partition) -> Checkpoint {
        Checkpoint {
            slot,
            partition,
            position: Position::START,
            event: None,
            state: Bytes::new(),
        }
    }
}

/// A row: its key, in an encoding whose order is the order of the keys, and its value. Keys are
/// compared byte by byte and may hold any character.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct ViewRow {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Bytes,
}

/// What becomes of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct RowChange {
    /// Its key.
    pub key: String,
    /// Its value, or nothing when it is removed.
    pub value: Option<Bytes>,
    /// One entry for each of the generation's indexes, in their order (an entry may be empty text);
    /// none when the row is removed.
    pub indexed: Vec<String>,
}

/// What a row was after an interval of the log: the fold of everything up to `up_to`. Nothing is
/// said of the moments in between.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct RowVersion {
    /// Its key.
    pub key: String,
    /// The run begins after this position.
    pub after: Position,
    /// The interval ends at this position, from which on the value holds until the next version of
    /// the key.
    pub up_to: Position,
    /// When the event at that position was recorded.
    pub recorded_at: DateTime<Utc>,
    /// The value, or nothing when there was no row.
    pub value: Option<Bytes>,
}

/// Everything that one step of a worker changes, in one transaction.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ViewCommit {
    /// The generation.
    pub generation: GenerationId,
    /// The lease on the slot under which the worker works: its epoch must be the newest. That it
    /// has ended is no matter as long as it was neither taken nor given back.
    pub lease: Lease,
    /// The checkpoint before: it must be the same still.
    pub from: Position,
    /// The checkpoint afterwards, at or after `from`.
    pub to: Checkpoint,
    /// Rows that change, each key at most once.
    pub rows: Vec<RowChange>,
    /// What is kept of the past, oldest first; the intervals of a key follow one another. They may
    /// lie before `from`: those of dead letters that are settled now.
    pub versions: Vec<RowVersion>,
    /// Which events touched which key; one that is known already stays.
    pub touched: Vec<(String, Position)>,
    /// Events of the same partition that become dead letters; one that is already (it was tried
    /// again) is replaced.
    pub dead_letters: Vec<DeadLetter>,
    /// Dead letters of the same partition that are settled now; what is none is ignored.
    pub settled_letters: Vec<(String, Position)>,
    /// Of an inline view: how far each row is taken that something is said of here. Of other views:
    /// nothing.
    pub advances: Vec<RowAdvance>,
    /// What the slot keeps for itself besides its rows, each key at most once: its bytes, or
    /// nothing when the key is removed. Whatever is not named here stays. Not of inline views.
    pub state: Vec<(Bytes, Option<Bytes>)>,
    /// How many partitions the log has by now, where it was given more after the generation was
    /// begun and going on is [accepted](crate::Log::grown_from); nothing for as many as the
    /// generation was begun with.
    pub partitions: Option<u32>,
}

impl ViewCommit {
    /// A step of a slot from `from` to `to` that changes nothing else.
    pub fn new(
        generation: GenerationId,
        lease: Lease,
        from: Position,
        to: Checkpoint,
    ) -> ViewCommit {
        ViewCommit {
            generation,
            lease,
            from,
            to,
            rows: Vec::new(),
            versions: Vec::new(),
            touched: Vec::new(),
            dead_letters: Vec::new(),
            settled_letters: Vec::new(),
            advances: Vec::new(),
            state: Vec::new(),
            partitions: None,
        }
    }

    /// Refuses what can never succeed on this generation, whatever it holds.
    ///
    /// # Errors
    ///
    /// A slot or partition that it does not have, the lease of another slot, a step backwards, a
    /// key twice, a key or entry that is too long, a wrong number of entries, a past that it does
    /// not keep, intervals of a key that overlap, something beyond the place to which the step
    /// goes, an event that is a dead letter twice or is both a dead letter and settled, a row of an
    /// inline view of which it is not said how far it is taken, or one of another view of which it
    /// is, and state of an inline view.
    ///
    /// ```
    /// use annals_core::{
    ///     Checkpoint, Clock, Generation, GenerationId, GenerationSpec, Lease, LogId, Partition,
    ///     Phase, Position, RowChange,
    ///     SystemClock, ViewCommit,
    /// };
    ///
    /// let spec = GenerationSpec::new("balances", 1, LogId::random());
    /// let generation = Generation::new(
    ///     GenerationId(1), spec, Phase::Building, SystemClock.now(), Position::MAX,
    /// );
    /// let lease = Lease { name: generation.lease_name(0), owner: "worker-a".into(), epoch: 1 };
    /// let mut commit = ViewCommit::new(
    ///     generation.id, lease, Position::START, Checkpoint::start(0, Partition(0)),
    /// );
    /// assert!(commit.check(&generation).is_ok());
    /// let row = RowChange { key: "alice".into(), value: Some("5".into()), indexed: Vec::new() };
    /// commit.rows = vec![row.clone(), row];
    /// assert_eq!(
    ///     commit.check(&generation).unwrap_err().to_string(),
    ///     "key `alice` changes twice in one step",
    /// );
    /// ```
    pub fn check(&self, generation: &Generation) -> Result<(), Invalid> {
        let spec = &generation.spec;
        let to = &self.to;
        let invalid = |what: String| Err(Invalid::new(what));
        if to.slot >= spec.slots {
            return invalid(format!(
                "there is no slot {}, generation {} has {}",
                to.slot, generation.id, spec.slots
            ));
        }
        let partitions = self.partitions.unwrap_or(spec.partitions);
        if to.partition.0 >= partitions {
            let id = generation.id;
            return invalid(format!(
                "there is no partition {}, generation {id} has {partitions}",
                to.partition
            ));
        }
        if self.lease.name != generation.lease_name(to.slot) {
            let name = &self.lease.name;
            let slot = to.slot;
            let id = generation.id;
            return invalid(format!(
                "lease `{name}` is not the one on slot {slot} of generation {id}"
            ));
        }
        if to.position < self.from {
            return invalid(format!("a step from {} back to {}", self.from, to.position));
        }
        self.check_rows(spec)?;
        self.check_past(spec)?;
        self.check_stands(spec)?;
        self.check_state(spec)?;
        self.check_dead_letters()
    }

    fn check_state(&self, spec: &GenerationSpec) -> Result<(), Invalid> {
        if spec.inline && !self.state.is_empty() {
            let view = &spec.view;
            return Err(Invalid::new(format!(
                "view `{view}` is inline, its slots keep no state"
            )));
        }
        let mut changed = HashSet::new();
        for (key, _) in &self.state {
            if key.len() > STATE_KEY_BYTES_MAX {
                let bytes = key.len();
                return Err(Invalid::new(format!(
                    "a key of the state has {bytes} bytes, at most {STATE_KEY_BYTES_MAX} are \
                     possible"
                )));
            }
            if !changed.insert(key) {
                let key = key.escape_ascii();
                return Err(Invalid::new(format!(
                    "key `{key}` of the state changes twice in one step"
                )));
            }
        }
        Ok(())
    }

    fn check_rows(&self, spec: &GenerationSpec) -> Result<(), Invalid> {
        // Those who sort them make this cheap.
        let are_sorted = self.rows.is_sorted_by(|one, next| one.key < next.key);
        let mut changed = HashSet::new();
        for row in &self.rows {
            let key = row.key.escape_debug();
            if !are_sorted && !changed.insert(&row.key) {
                return Err(Invalid::new(format!(
                    "key `{key}` changes twice in one step"
                )));
            }
            let wanted = if row.value.is_some() {
                spec.indexes.len()
            } else {
                0
            };
            if row.indexed.len() != wanted {
                let found = row.indexed.len();
                return Err(Invalid::new(format!(
                    "key `{key}` has {found} entries for indexes, it needs {wanted}"
                )));
            }
            row.indexed
                .iter()
                .try_for_each(|entry| short_enough("entry", entry))?;
        }
        let versions = self.versions.iter().map(|version| &version.key);
        let touched = self.touched.iter().map(|(key, _)| key);
        let dead_letters = self
            .dead_letters
            .iter()
            .map(|dead_letters| &dead_letters.key);
        let mut keys = self
            .rows
            .iter()
            .map(|row| &row.key)
            .chain(versions)
            .chain(touched)
            .chain(dead_letters);
        keys.try_for_each(|key| short_enough("key", key))
    }

    fn check_past(&self, spec: &GenerationSpec) -> Result<(), Invalid> {
        if spec.history == History::None && !self.versions.is_empty() {
            return Err(Invalid::new(format!(
                "view `{}` keeps no history",
                spec.view
            )));
        }
        if spec.history != History::Bitemporal && !self.touched.is_empty() {
            return Err(Invalid::new(format!(
                "view `{}` does not keep which events touched a key",
                spec.view
            )));
        }
        let mut ends: HashMap<&str, Position> = HashMap::new();
        for version in &self.versions {
            let before = ends
                .insert(&version.key, version.up_to)
                .unwrap_or(Position::START);
            if version.after < before
                || version.up_to <= version.after
                || version.up_to > self.to.position
            {
                let key = version.key.escape_debug();
                let after = version.after;
                let up_to = version.up_to;
                return Err(Invalid::new(format!(
                    "a version of `{key}` from {after} to {up_to}, after {before} in a step to {}",
                    self.to.position
                )));
            }
        }
        match self
            .touched
            .iter()
            .find(|(_, position)| *position > self.to.position)
        {
            Some((key, position)) => {
                let key = key.escape_debug();
                let to = self.to.position;
                Err(Invalid::new(format!(
                    "key `{key}` is touched at {position} in a step to {to}"
                )))
            }
            None => Ok(()),
        }
    }

    fn check_stands(&self, spec: &GenerationSpec) -> Result<(), Invalid> {
        if !spec.inline && !self.advances.is_empty() {
            return Err(Invalid::new(format!(
                "view `{}` is not inline, its rows have no versions",
                spec.view
            )));
        }
        let mut advanced = HashSet::new();
        for RowAdvance { key, from, to } in &self.advances {
            if !advanced.insert(key) || to <= from {
                let key = key.escape_debug();
                return Err(Invalid::new(format!(
                    "the row `{key}` goes from version {from} to {to}, or goes twice"
                )));
            }
            short_enough("key", key)?;
        }
        let rows = self.rows.iter().map(|row| &row.key);
        let mut keys = rows
            .chain(self.versions.iter().map(|of| &of.key))
            .chain(self.touched.iter().map(|(key, _)| key));
        match keys.find(|key| spec.inline && !advanced.contains(key)) {
            Some(key) => {
                let key = key.escape_debug();
                let view = &spec.view;
                Err(Invalid::new(format!(
                    "of the row `{key}` of inline view `{view}` is not said how far it is taken"
                )))
            }
            None => Ok(()),
        }
    }

    /// The refusal of a step whose row [is at another version](crate::RowAdvance::against).
    pub fn row_moved(&self, step: &RowAdvance, version: Version) -> CommitError {
        let key = step.key.escape_debug();
        let from = step.from;
        let to = step.to;
        let found = format!(
            "the row `{key}` is at version {version}, the step takes it from {from} to {to}"
        );
        CommitError::Fenced {
            generation: self.generation,
            slot: self.to.slot,
            found,
        }
    }

    /// Takes out what is said of these rows: they have it already.
    pub fn without_keys(&mut self, keys: &HashSet<String>) {
        if keys.is_empty() {
            return;
        }
        self.rows.retain(|row| !keys.contains(&row.key));
        self.versions.retain(|version| !keys.contains(&version.key));
        self.touched.retain(|(key, _)| !keys.contains(key));
        self.advances.retain(|step| !keys.contains(&step.key));
    }

    fn check_dead_letters(&self) -> Result<(), Invalid> {
        let settled: HashSet<(&str, Position)> = self
            .settled_letters
            .iter()
            .map(|(key, at)| (key.as_str(), *at))
            .collect();
        let mut dead_letters = HashSet::new();
        for event in &self.dead_letters {
            let key = event.key.as_str();
            let position = event.position;
            let place = format_args!("the event at {position} of key `{}`", key.escape_debug());
            if event.partition != self.to.partition || position > self.to.position {
                let partition = self.to.partition;
                let to = self.to.position;
                return Err(Invalid::new(format!(
                    "{place} is not in partition {partition} up to {to}"
                )));
            }
            if !dead_letters.insert((key, position)) || settled.contains(&(key, position)) {
                return Err(Invalid::new(format!(
                    "{place} is a dead letter twice or also settled"
                )));
            }
        }
        Ok(())
    }
}

pub(crate) fn short_enough(what: &str, text: &str) -> Result<(), Invalid> {
    if text.len() <= VIEW_KEY_BYTES_MAX {
        return Ok(());
    }
    let begins: String = text.chars().take(32).collect();
    let bytes = text.len();
    let begins = begins.escape_debug();
    Err(Invalid::new(format!(
        "the {what} `{begins}…` has {bytes} bytes, at most {VIEW_KEY_BYTES_MAX} are possible"
    )))
}

/// A dead letter: an event that could not be folded, or one that waits after it because
/// it has the same key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct DeadLetter {
    /// The key.
    pub key: String,
    /// The partition of the event.
    pub partition: Partition,
    /// Where the event is.
    pub position: Position,
    /// Its id.
    pub event: EventId,
    /// Why it could not be folded, at most
    /// [`REASON_BYTES_MAX`](DeadLetter::REASON_BYTES_MAX) of it; nothing for one that only waits.
    pub reason: Option<String>,
    /// How often it was tried.
    pub attempts: u32,
    /// When it became a dead letter.
    pub dead_since: DateTime<Utc>,
}

impl DeadLetter {
    /// The reason of one whose event was archived: what it was before may have told of the event.
    pub const ARCHIVED: &str = "the event was archived";

    /// Bytes of a reason that are recorded.
    pub const REASON_BYTES_MAX: usize = 4 << 10;

    /// A reason as it is recorded: a long one is cut, and says so.
    ///
    /// ```
    /// use annals_core::DeadLetter;
    ///
    /// assert_eq!(DeadLetter::recorded("no cents"), "no cents");
    /// let long = DeadLetter::recorded("ä".repeat(5_000));
    /// assert!(long.len() <= DeadLetter::REASON_BYTES_MAX);
    /// assert!(long.ends_with("ä… (cut, of 10000 bytes)"));
    /// ```
    pub fn recorded(reason: impl Into<String>) -> String {
        let mut reason = reason.into();
        let bytes = reason.len();
        if bytes <= DeadLetter::REASON_BYTES_MAX {
            return reason;
        }
        let mark = format!("… (cut, of {bytes} bytes)");
        let mut end = DeadLetter::REASON_BYTES_MAX - mark.len();
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        reason.truncate(end);
        reason + &mark
    }
}

/// What a person decided about an event that could not be folded. Kept for the view, so that a
/// rebuild repeats it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct SkipDecision {
    /// The view.
    pub view: String,
    /// The partition of the event.
    pub partition: Partition,
    /// Where the event is.
    pub position: Position,
    /// Its id.
    pub event: EventId,
    /// The key for which it is skipped; nothing: for all keys, also those that could not be known.
    pub key: Option<String>,
    /// Why it is skipped.
    pub reason: String,
    /// When it was decided.
    pub decided_at: DateTime<Utc>,
}

/// Why a step of a worker changed nothing, or a generation could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// Another worker holds the lease by now, or the slot has moved. Stop, and ask for the lease
    /// again.
    #[error("slot {slot} of generation {generation} is worked on by another worker: {found}")]
    Fenced {
        /// The generation.
        generation: GenerationId,
        /// The slot.
        slot: u16,
        /// What was found.
        found: String,
    },
    /// The generation was dropped.
    #[error("generation {0} was dropped")]
    Gone(GenerationId),
    /// The moment lies before what the generation keeps of the past.
    #[error(
        "the past of generation {generation} is kept since {since}, the question is about {moment}"
    )]
    BeforeHistory {
        /// The generation.
        generation: GenerationId,
        /// The moment that was asked about.
        moment: Position,
        /// Questions can be about this position and later ones.
        since: Position,
    },
    /// The request can never succeed as written.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The store could not do it. When it was [`Unavailable`](crate::Failure::Unavailable) a step
    /// may have been taken all the same: ask for the checkpoint.
    #[error(transparent)]
    Store(#[from] StoreError),
}
