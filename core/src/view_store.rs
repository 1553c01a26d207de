//! Where read models live: keyed rows in generations, their history, and checkpoints, all changed in one transaction.
//!
//! Rows are bytes here; what they mean is the business of the projections. A view store may be in another database than the log.

use std::collections::{HashMap, HashSet};
use std::ops::Bound;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::error::{Invalid, StoreError};
use crate::event::EventId;
use crate::lease::{Lease, Leases};
use crate::position::{LogId, Partition, Position};
use crate::read::Direction;

/// The bytes that a key, an entry of an index, or the name of a view may have: what every database can keep in an index.
pub const VIEW_KEY_BYTES_MAX: usize = 1_024;

/// The slots that a generation may have: as many as there are virtual nodes to which keys are hashed.
pub const VIEW_SLOTS_MAX: u16 = 256;

/// One build of a view: filled beside the one that serves, then switched to, then followed until it is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GenerationId(pub u64);

impl std::fmt::Display for GenerationId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What a generation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// It is being filled; readers do not see it.
    Building,
    /// Readers of its version see it.
    Live,
    /// It served once and is still followed, so that going back to it is not stale.
    Kept,
}

/// How much of the past a view keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Keeps {
    /// Only the present rows.
    #[default]
    Present,
    /// Also, for each key, what it was after each commit.
    History,
    /// Also which events touched a key, so that questions about event time can be answered.
    Bitemporal,
}

/// What a generation is made of; kept with it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GenerationSpec {
    /// The name of the view.
    pub view: String,
    /// The version of the view's fold.
    pub version: u32,
    /// The types of events that it handles, in order: a view that handles others is another one.
    pub handles: Vec<String>,
    /// The log that it is folded from.
    pub log: LogId,
    /// How many partitions that log has; exactly one when the past is kept, because a moment is one position.
    pub partitions: u32,
    /// Into how many slots its keys are divided.
    pub slots: u16,
    /// How much of the past it keeps.
    pub keeps: Keeps,
    /// The names of its indexed columns.
    pub indexes: Vec<String>,
}

impl GenerationSpec {
    /// A view of this name and version, folded from this log, in one slot, keeping the present.
    ///
    /// ```
    /// use annals_core::{GenerationSpec, LogId};
    ///
    /// let spec = GenerationSpec::new("balances", 1, LogId::random());
    /// assert_eq!(spec.slots, 1);
    /// ```
    pub fn new(view: impl Into<String>, version: u32, log: LogId) -> GenerationSpec {
        GenerationSpec {
            view: view.into(),
            version,
            handles: Vec::new(),
            log,
            partitions: 1,
            slots: 1,
            keeps: Keeps::Present,
            indexes: Vec::new(),
        }
    }

    /// Refuses what no store may begin.
    ///
    /// # Errors
    ///
    /// A view without a name or with one that is too long, no slots or partitions or too many slots, an index that is named twice,
    /// a view that keeps its past and is folded from several partitions.
    ///
    /// ```
    /// use annals_core::{GenerationSpec, LogId};
    ///
    /// let mut spec = GenerationSpec::new("balances", 1, LogId::random());
    /// assert!(spec.check().is_ok());
    /// spec.slots = 0;
    /// assert_eq!(spec.check().unwrap_err().to_string(), "view `balances` is divided into 0 slots, 1 to 256 are possible");
    /// ```
    pub fn check(&self) -> Result<(), Invalid> {
        let view = &self.view;
        if view.is_empty() || view.len() > VIEW_KEY_BYTES_MAX {
            let (bytes, most) = (view.len(), VIEW_KEY_BYTES_MAX);
            return Err(Invalid::new(format!("a view has a name of {bytes} bytes, 1 to {most} are possible")));
        }
        if self.slots == 0 || self.slots > VIEW_SLOTS_MAX {
            let (slots, most) = (self.slots, VIEW_SLOTS_MAX);
            return Err(Invalid::new(format!("view `{view}` is divided into {slots} slots, 1 to {most} are possible")));
        }
        if self.partitions == 0 {
            return Err(Invalid::new(format!("view `{view}` is folded from a log without partitions")));
        }
        if self.partitions > 1 && self.keeps != Keeps::Present {
            let partitions = self.partitions;
            return Err(Invalid::new(format!(
                "view `{view}` keeps its past, which needs a log of one partition, and this one has {partitions}"
            )));
        }
        let mut named = HashSet::new();
        match self.indexes.iter().find(|name| !named.insert(*name)) {
            Some(name) => Err(Invalid::new(format!("view `{view}` has index `{name}` twice"))),
            None => Ok(()),
        }
    }
}

/// A generation and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Generation {
    /// Its id: larger than those of all generations that this store made before.
    pub id: GenerationId,
    /// What it is made of.
    pub spec: GenerationSpec,
    /// What it is for.
    pub phase: Phase,
    /// When it was begun.
    pub begun_at: DateTime<Utc>,
    /// Questions about moments before this position cannot be answered any more: the start when a generation that keeps its past
    /// is begun, [`Position::MAX`] for one that keeps only the present.
    pub history_since: Position,
}

impl Generation {
    /// A generation as a store has it.
    pub fn new(
        id: GenerationId,
        spec: GenerationSpec,
        phase: Phase,
        begun_at: DateTime<Utc>,
        history_since: Position,
    ) -> Generation {
        Generation { id, spec, phase, begun_at, history_since }
    }

    /// The name of the lease on one of its slots: no two slots of any generations share one.
    pub fn lease_name(&self, slot: u16) -> String {
        // The last two parts are numbers, so a view whose name has slashes is not taken for another.
        format!("{}/{}/{slot}", self.spec.view, self.id)
    }

    /// Refuses to drop what readers depend on. `of_view` are the generations of the same view.
    ///
    /// # Errors
    ///
    /// When it is the only live one. One that is live for its version may go once another version is live.
    ///
    /// ```
    /// use annals_core::{Generation, GenerationId, GenerationSpec, LogId, Phase, Position, SystemClock, Clock};
    ///
    /// let spec = GenerationSpec::new("balances", 1, LogId::random());
    /// let live = Generation::new(GenerationId(1), spec, Phase::Live, SystemClock.now(), Position::START);
    /// assert!(live.check_drop([&live]).is_err());
    /// ```
    pub fn check_drop<'a>(&self, of_view: impl IntoIterator<Item = &'a Generation>) -> Result<(), Invalid> {
        let serves_too = |other: &Generation| other.phase == Phase::Live && other.id != self.id;
        if self.phase != Phase::Live || of_view.into_iter().any(serves_too) {
            return Ok(());
        }
        let (id, view) = (self.id, &self.spec.view);
        Err(Invalid::new(format!(
            "generation {id} is the only live one of view `{view}`, its readers would have nothing"
        )))
    }
}

/// How far a slot of a generation has come in one partition of the log: everything at or below is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Checkpoint {
    /// The slot.
    pub slot: u16,
    /// The partition.
    pub partition: Partition,
    /// The position.
    pub position: Position,
    /// The event at that position, or none at the start: a log that has another one there is not the log that was read.
    pub event: Option<EventId>,
    /// What the projection keeps for itself, such as windows that are open.
    pub state: Bytes,
}

impl Checkpoint {
    /// Before anything was read.
    pub fn start(slot: u16, partition: Partition) -> Checkpoint {
        Checkpoint { slot, partition, position: Position::START, event: None, state: Bytes::new() }
    }
}

/// A row: its key, in an encoding whose order is the order of the keys, and its value. Keys are compared byte by byte and may hold
/// any character.
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
    /// One entry for each of the generation's indexes, in their order (an entry may be empty text); none when the row is removed.
    pub indexed: Vec<String>,
}

/// What a row was after a run of events: the fold of everything up to `up_to`. Nothing is said of the moments in between.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct RowVersion {
    /// Its key.
    pub key: String,
    /// The run begins behind this position.
    pub after: Position,
    /// The run ends at this position, from which on the value holds until the next version of the key.
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
    /// The lease on the slot under which the worker works: its epoch must be the newest. That it has ended is no matter as long as
    /// nobody took it and it was not given back.
    pub lease: Lease,
    /// Where the slot stood before: it must still stand there.
    pub from: Position,
    /// Where it stands afterwards, at or behind `from`.
    pub to: Checkpoint,
    /// Rows that change, each key at most once.
    pub rows: Vec<RowChange>,
    /// What is kept of the past, oldest first; the runs of a key follow one another. They may lie before `from`: those of events
    /// that were set aside and are settled now.
    pub versions: Vec<RowVersion>,
    /// Which events touched which key; one that is known already stays.
    pub touched: Vec<(String, Position)>,
    /// Events of the same partition that are set aside; one that is already (it was tried again) is replaced.
    pub park: Vec<Parked>,
    /// Events of the same partition that were set aside and are settled now; others are left out of account.
    pub unpark: Vec<(String, Position)>,
}

impl ViewCommit {
    /// A step of a slot from `from` to `to` that changes nothing else.
    pub fn new(generation: GenerationId, lease: Lease, from: Position, to: Checkpoint) -> ViewCommit {
        ViewCommit {
            generation,
            lease,
            from,
            to,
            rows: Vec::new(),
            versions: Vec::new(),
            touched: Vec::new(),
            park: Vec::new(),
            unpark: Vec::new(),
        }
    }

    /// Refuses what can never succeed on this generation, whatever it holds.
    ///
    /// # Errors
    ///
    /// A slot or partition that it does not have, the lease of another slot, a step backwards, a key twice, a key or entry that is
    /// too long, a wrong number of entries, a past that it does not keep, runs of a key that overlap, something beyond the
    /// place to which the step goes, an event that is set aside twice or is both set aside and settled.
    ///
    /// ```
    /// use annals_core::{
    ///     Checkpoint, Clock, Generation, GenerationId, GenerationSpec, Lease, LogId, Partition, Phase, Position, RowChange,
    ///     SystemClock, ViewCommit,
    /// };
    ///
    /// let spec = GenerationSpec::new("balances", 1, LogId::random());
    /// let generation = Generation::new(GenerationId(1), spec, Phase::Building, SystemClock.now(), Position::MAX);
    /// let lease = Lease { name: generation.lease_name(0), owner: "worker-a".into(), epoch: 1 };
    /// let mut commit = ViewCommit::new(generation.id, lease, Position::START, Checkpoint::start(0, Partition(0)));
    /// assert!(commit.check(&generation).is_ok());
    /// let row = RowChange { key: "alice".into(), value: Some("5".into()), indexed: Vec::new() };
    /// commit.rows = vec![row.clone(), row];
    /// assert_eq!(commit.check(&generation).unwrap_err().to_string(), "key `alice` changes twice in one step");
    /// ```
    pub fn check(&self, generation: &Generation) -> Result<(), Invalid> {
        let (spec, to) = (&generation.spec, &self.to);
        let invalid = |what: String| Err(Invalid::new(what));
        if to.slot >= spec.slots {
            return invalid(format!("there is no slot {}, generation {} has {}", to.slot, generation.id, spec.slots));
        }
        if to.partition.0 >= spec.partitions {
            let (id, partitions) = (generation.id, spec.partitions);
            return invalid(format!("there is no partition {}, generation {id} has {partitions}", to.partition));
        }
        if self.lease.name != generation.lease_name(to.slot) {
            let (name, slot, id) = (&self.lease.name, to.slot, generation.id);
            return invalid(format!("lease `{name}` is not the one on slot {slot} of generation {id}"));
        }
        if to.position < self.from {
            return invalid(format!("a step from {} back to {}", self.from, to.position));
        }
        self.check_rows(spec)?;
        self.check_past(spec)?;
        self.check_parked()
    }

    fn check_rows(&self, spec: &GenerationSpec) -> Result<(), Invalid> {
        let mut changed = HashSet::new();
        for row in &self.rows {
            let key = row.key.escape_debug();
            if !changed.insert(&row.key) {
                return Err(Invalid::new(format!("key `{key}` changes twice in one step")));
            }
            let wanted = if row.value.is_some() { spec.indexes.len() } else { 0 };
            if row.indexed.len() != wanted {
                let found = row.indexed.len();
                return Err(Invalid::new(format!("key `{key}` has {found} entries for indexes, it needs {wanted}")));
            }
            row.indexed.iter().try_for_each(|entry| short_enough("entry", entry))?;
        }
        let versions = self.versions.iter().map(|version| &version.key);
        let touched = self.touched.iter().map(|(key, _)| key);
        let parked = self.park.iter().map(|parked| &parked.key);
        let mut keys = changed.into_iter().chain(versions).chain(touched).chain(parked);
        keys.try_for_each(|key| short_enough("key", key))
    }

    fn check_past(&self, spec: &GenerationSpec) -> Result<(), Invalid> {
        if spec.keeps == Keeps::Present && !self.versions.is_empty() {
            return Err(Invalid::new(format!("view `{}` keeps no history", spec.view)));
        }
        if spec.keeps != Keeps::Bitemporal && !self.touched.is_empty() {
            return Err(Invalid::new(format!("view `{}` does not keep which events touched a key", spec.view)));
        }
        let mut ends: HashMap<&str, Position> = HashMap::new();
        for version in &self.versions {
            let before = ends.insert(&version.key, version.up_to).unwrap_or(Position::START);
            if version.after < before || version.up_to <= version.after || version.up_to > self.to.position {
                let (key, after, up_to) = (version.key.escape_debug(), version.after, version.up_to);
                return Err(Invalid::new(format!(
                    "a run of key `{key}` from {after} to {up_to}, behind {before} in a step to {}",
                    self.to.position
                )));
            }
        }
        match self.touched.iter().find(|(_, position)| *position > self.to.position) {
            Some((key, position)) => {
                let (key, to) = (key.escape_debug(), self.to.position);
                Err(Invalid::new(format!("key `{key}` is touched at {position} in a step to {to}")))
            }
            None => Ok(()),
        }
    }

    fn check_parked(&self) -> Result<(), Invalid> {
        let settled: HashSet<(&str, Position)> = self.unpark.iter().map(|(key, at)| (key.as_str(), *at)).collect();
        let mut parked = HashSet::new();
        for event in &self.park {
            let (key, position) = (event.key.as_str(), event.position);
            let place = format_args!("the event at {position} of key `{}`", key.escape_debug());
            if event.partition != self.to.partition || position > self.to.position {
                let (partition, to) = (self.to.partition, self.to.position);
                return Err(Invalid::new(format!("{place} is not in partition {partition} up to {to}")));
            }
            if !parked.insert((key, position)) || settled.contains(&(key, position)) {
                return Err(Invalid::new(format!("{place} is set aside twice or also settled")));
            }
        }
        Ok(())
    }
}

fn short_enough(what: &str, text: &str) -> Result<(), Invalid> {
    if text.len() <= VIEW_KEY_BYTES_MAX {
        return Ok(());
    }
    let begins: String = text.chars().take(32).collect();
    let (bytes, begins) = (text.len(), begins.escape_debug());
    Err(Invalid::new(format!("the {what} `{begins}…` has {bytes} bytes, at most {VIEW_KEY_BYTES_MAX} are possible")))
}

/// An event that was set aside: one that could not be folded, or one that waits behind it because it has the same key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Parked {
    /// The key.
    pub key: String,
    /// The partition of the event.
    pub partition: Partition,
    /// Where the event stands.
    pub position: Position,
    /// Its id.
    pub event: EventId,
    /// Why it could not be folded; nothing for one that only waits.
    pub cause: Option<String>,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was set aside.
    pub parked_at: DateTime<Utc>,
}

/// What a person decided about an event that could not be folded. Kept for the view, so that a rebuild repeats it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Verdict {
    /// The view.
    pub view: String,
    /// The partition of the event.
    pub partition: Partition,
    /// Where the event stands.
    pub position: Position,
    /// Its id.
    pub event: EventId,
    /// The key for which it is left out; nothing: for all keys, also those that could not be told.
    pub key: Option<String>,
    /// Why it is left out.
    pub reason: String,
    /// When it was decided.
    pub decided_at: DateTime<Utc>,
}

/// Why a step of a worker changed nothing, or a generation could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The lease is another's by now, or the slot has moved: somebody else works on it. Stop, and ask for the lease again.
    #[error("slot {slot} of generation {generation} is worked on by somebody else: {found}")]
    Fenced {
        /// The generation.
        generation: GenerationId,
        /// The slot.
        slot: u16,
        /// What was found.
        found: String,
    },
    /// The generation was dropped.
    #[error("generation {0} is gone")]
    Gone(GenerationId),
    /// The moment lies before what the generation keeps of the past.
    #[error("the past of generation {generation} is kept since {since}, the question is about {moment}")]
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
    /// The store could not do it. When it was [`Unavailable`](crate::Failure::Unavailable) a step may have been taken all the same:
    /// ask where the slot stands.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Which rows of a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RowsBy {
    /// These keys, in the order of the keys, each once; those without a row are left out.
    Keys(Vec<String>),
    /// Keys in this range, in their order.
    KeyRange(Bound<String>, Bound<String>),
    /// Rows whose entry in this index is in the range, in the order of the entry and then of the key.
    Index {
        /// The name of the index.
        name: String,
        /// The range of entries.
        range: (Bound<String>, Bound<String>),
    },
}

/// A page of rows that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadRows {
    /// The generation.
    pub generation: GenerationId,
    /// Which rows.
    pub by: RowsBy,
    /// Behind this place: what the page before said.
    pub after: Option<RowPlace>,
    /// At most so many rows; a store may give fewer and say where to go on.
    pub limit: usize,
    /// The order.
    pub direction: Direction,
}

impl ReadRows {
    /// Rows of a generation, from the start.
    pub fn of(generation: GenerationId, by: RowsBy) -> ReadRows {
        ReadRows { generation, by, after: None, limit: crate::PAGE_EVENTS, direction: Direction::Forward }
    }

    /// Behind this place.
    #[must_use]
    pub fn after(mut self, place: Option<RowPlace>) -> ReadRows {
        self.after = place;
        self
    }

    /// At most so many rows.
    #[must_use]
    pub fn limit(mut self, rows: usize) -> ReadRows {
        self.limit = rows;
        self
    }

    /// From the end.
    #[must_use]
    pub fn backward(mut self) -> ReadRows {
        self.direction = Direction::Backward;
        self
    }
}

/// Where a page ended: the entry of the index (empty when read by key), and the key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct RowPlace {
    /// The entry of the index.
    pub entry: String,
    /// The key.
    pub key: String,
}

/// A page of rows. Everything in it belongs to one moment.
#[derive(Clone, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct RowsPage {
    /// The rows, in the order that was asked for.
    pub rows: Vec<ViewRow>,
    /// Where to go on, when there may be more.
    pub next: Option<RowPlace>,
    /// How far the generation had come.
    pub checkpoints: Vec<Checkpoint>,
}

/// What is known of a key at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct PastRow {
    /// The key.
    pub key: String,
    /// The newest version that ends at or before the moment; nothing when there is none: there was no row.
    pub base: Option<RowVersion>,
    /// When the moment lies inside the run of the next version: where that run begins. What lies between there and the moment
    /// must be folded onto the base.
    pub refold_after: Option<Position>,
}

/// A place for read models.
///
/// - **One transaction.** Rows, history, what is set aside and the checkpoint change together, or not at all.
/// - **Fenced.** A commit under an old epoch, or from a place where the slot no longer stands, changes nothing.
/// - **Complete.** Readers see a generation only once it was switched to ([`live_generation`](ViewStore::live_generation)). One that is
///   dropped under their hands says so, and never looks empty.
/// - **Bytewise.** Keys, entries and names are any text, compared byte by byte.
/// - **Bounded.** A page of rows ends at its limit or behind [`PAGE_BYTES_MAX`](crate::PAGE_BYTES_MAX) bytes of values.
///
/// ```
/// use std::time::Duration;
///
/// use annals_core::{
///     Acquired, Checkpoint, GenerationSpec, Leases, Log, MemoryStore, Partition, Position, ReadRows, RowChange, RowsBy, ViewCommit,
///     ViewStore,
/// };
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let store = MemoryStore::new();
/// let generation = store.begin_generation(GenerationSpec::new("balances", 1, store.id())).await?;
/// let asked = store.acquire_lease(&generation.lease_name(0), "worker-a", Duration::from_secs(10)).await?;
/// let Acquired::Granted(lease) = asked else { panic!("nobody else works here") };
///
/// let to = Checkpoint { position: Position::new(1), ..Checkpoint::start(0, Partition(0)) };
/// let mut step = ViewCommit::new(generation.id, lease, Position::START, to);
/// step.rows.push(RowChange { key: "alice".into(), value: Some("5".into()), indexed: Vec::new() });
/// store.commit_view(step).await?;
///
/// let page = store.read_rows(ReadRows::of(generation.id, RowsBy::Keys(vec!["alice".into()]))).await?;
/// assert_eq!(page.rows[0].value, "5");
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[async_trait]
pub trait ViewStore: Leases {
    /// Begins a generation: empty, building, at the start of the log.
    ///
    /// # Errors
    ///
    /// [`Failure::Invalid`](crate::Failure) for a specification that [no store may begin](GenerationSpec::check).
    async fn begin_generation(&self, spec: GenerationSpec) -> Result<Generation, StoreError>;

    /// The generations of a view, oldest first.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn generations(&self, view: &str) -> Result<Vec<Generation>, StoreError>;

    /// The generation that readers of this version of a view see; nothing while there is none.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn live_generation(&self, view: &str, version: u32) -> Result<Option<Generation>, StoreError> {
        let serves = |generation: &Generation| generation.phase == Phase::Live && generation.spec.version == version;
        Ok(self.generations(view).await?.into_iter().find(serves))
    }

    /// The names of the views that have a generation, in order.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn view_names(&self) -> Result<Vec<String>, StoreError>;

    /// Makes a generation the one that readers of its version see; the one before is kept. Both at once. Going back is switching to
    /// one that was kept.
    ///
    /// # Errors
    ///
    /// [`CommitError::Gone`] when it was dropped.
    async fn switch_to(&self, generation: GenerationId) -> Result<(), CommitError>;

    /// Drops a generation and everything in it, also the leases on its slots. Dropping one that is gone changes nothing. Verdicts
    /// are about the view, and stay.
    ///
    /// # Errors
    ///
    /// [`CommitError::Invalid`] for [the one on which readers depend](Generation::check_drop).
    async fn drop_generation(&self, generation: GenerationId) -> Result<(), CommitError>;

    /// Where the slots of a generation stand, in the order of slot and partition; slots that never committed are left out.
    ///
    /// # Errors
    ///
    /// [`CommitError::Gone`]
    async fn checkpoints(&self, generation: GenerationId) -> Result<Vec<Checkpoint>, CommitError>;

    /// Takes a step.
    ///
    /// What fences is the epoch alone: a step under a lease that has ended, and that nobody took since, is taken.
    ///
    /// # Errors
    ///
    /// [`CommitError::Fenced`] when somebody else works on the slot or the lease was given back, [`CommitError::Gone`],
    /// [`CommitError::Invalid`] for [what can never succeed](ViewCommit::check) and, when nothing else stands against it, for a
    /// version of a key that ends where one ends already. Nothing was changed. A step that is asked for again after it was taken
    /// is fenced, unless it went nowhere.
    async fn commit_view(&self, commit: ViewCommit) -> Result<(), CommitError>;

    /// A page of rows as they are.
    ///
    /// # Errors
    ///
    /// [`CommitError::Gone`], and [`CommitError::Invalid`] for an index that the generation does not have.
    async fn read_rows(&self, read: ReadRows) -> Result<RowsPage, CommitError>;

    /// What is known of these keys just after `moment`, in the order of the keys, each once; nothing for keys that no version speaks
    /// of.
    ///
    /// Only moments that every slot has passed have an answer that lasts.
    ///
    /// # Errors
    ///
    /// [`CommitError::Gone`], and [`CommitError::BeforeHistory`] for a moment before what is kept.
    async fn read_past(
        &self,
        generation: GenerationId,
        keys: &[String],
        moment: Position,
    ) -> Result<Vec<PastRow>, CommitError>;

    /// Keys in the range, in order, that have a version or a row; at most `limit`, behind `after`.
    ///
    /// # Errors
    ///
    /// [`CommitError::Gone`]
    async fn past_keys(
        &self,
        generation: GenerationId,
        range: (Bound<String>, Bound<String>),
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, CommitError>;

    /// The versions of a key that end in the range of positions (behind the first, up to and with the second), oldest first; of
    /// what was forgotten nothing is told.
    ///
    /// # Errors
    ///
    /// [`CommitError::Gone`]
    async fn row_versions(
        &self,
        generation: GenerationId,
        key: &str,
        between: (Position, Position),
        limit: usize,
    ) -> Result<Vec<RowVersion>, CommitError>;

    /// Keys with a version that ends in the range of positions (behind the first, up to and with the second), in order; at most
    /// `limit`, behind `after`.
    ///
    /// # Errors
    ///
    /// [`CommitError::Gone`], and [`CommitError::BeforeHistory`] when the range begins before what is kept.
    async fn keys_changed_between(
        &self,
        generation: GenerationId,
        between: (Position, Position),
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, CommitError>;

    /// The positions of the events that touched a key, in order: up to and with `up_to`, behind `after`, at most `limit`.
    ///
    /// # Errors
    ///
    /// [`CommitError::Gone`]
    async fn touched(
        &self,
        generation: GenerationId,
        key: &str,
        after: Position,
        up_to: Position,
        limit: usize,
    ) -> Result<Vec<Position>, CommitError>;

    /// Forgets the past before `since`: what is needed to answer for `since` itself and later stays, and
    /// [`Generation::history_since`] says so. A key that had been removed by then, and has not come back, is forgotten. Which events
    /// touched a key stays: a question about event time folds them from the first one on.
    ///
    /// Forgetting less than before changes nothing.
    ///
    /// # Errors
    ///
    /// [`CommitError::Gone`]
    async fn forget_history(&self, generation: GenerationId, since: Position) -> Result<(), CommitError>;

    /// What is set aside in a generation, in the order of key, partition and position, behind `after`, at most `limit`.
    ///
    /// # Errors
    ///
    /// [`CommitError::Gone`]
    async fn parked(
        &self,
        generation: GenerationId,
        after: Option<(&str, Partition, Position)>,
        limit: usize,
    ) -> Result<Vec<Parked>, CommitError>;

    /// Keeps a verdict; one about the same place in the log and the same key is replaced.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn keep_verdict(&self, verdict: Verdict) -> Result<(), StoreError>;

    /// The verdicts about a view, in the order of partition, position and key; the one for all keys comes first.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn verdicts(&self, view: &str) -> Result<Vec<Verdict>, StoreError>;
}
