//! Generations: builds of a view, of which readers see one that is complete.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::error::Invalid;
use crate::position::{LogId, Partition, Position};
use crate::view_commit::VIEW_KEY_BYTES_MAX;

/// The slots that a generation may have: as many as there are virtual nodes to which keys are
/// hashed.
pub const VIEW_SLOTS_MAX: u16 = 256;

/// One build of a view: filled beside the one that serves, then switched to, then followed until it
/// is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GenerationId(pub u64);

impl std::fmt::Display for GenerationId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What a generation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum History {
    /// Only the present rows.
    #[default]
    None,
    /// Also, for each key, what it was after each commit.
    Versions,
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
    /// The types of events that it handles, in order, and what else makes it another one: a view
    /// that handles others is another one.
    pub handles: Vec<String>,
    /// The log that it is folded from.
    pub log: LogId,
    /// How many partitions that log has; exactly one when the past is kept, because a moment is one
    /// position.
    pub partitions: u32,
    /// Into how many slots its keys are divided.
    pub slots: u16,
    /// How much of the past it keeps.
    pub history: History,
    /// The names of its indexed columns.
    pub indexes: Vec<String>,
    /// Whether it is inline: its rows are written with appends, and each has a version of its
    /// stream.
    pub inline: bool,
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
            history: History::None,
            indexes: Vec::new(),
            inline: false,
        }
    }

    /// Among what it [handles](GenerationSpec::handles): each partition has a slot of its own.
    pub const BY_PARTITION: &str = "slots:by-partition";

    /// Among what it [handles](GenerationSpec::handles), begins the types of its keys.
    pub const KEYS: &str = "keys:";
    /// Among what it [handles](GenerationSpec::handles), begins the types of its indexes.
    pub const ENTRIES: &str = "entries:";
    /// Among what it [handles](GenerationSpec::handles), begins the make of a view that a pipeline
    /// writes.
    pub const OUTPUT: &str = "output:";

    /// Whether two declarations of one version of a view give the same rows from the same events,
    /// in the same form: slots and logs may differ. What an older program did not record yet
    /// ([`KEYS`](GenerationSpec::KEYS), [`ENTRIES`](GenerationSpec::ENTRIES),
    /// [`OUTPUT`](GenerationSpec::OUTPUT)) counts as equal.
    ///
    /// ```
    /// use annals_core::{GenerationSpec, LogId};
    ///
    /// let older = GenerationSpec::new("balances", 1, LogId::random());
    /// let declared = |keys: &str| {
    ///     let mut spec = older.clone();
    ///     spec.handles.push(format!("{}{keys}", GenerationSpec::KEYS));
    ///     spec
    /// };
    /// assert!(declared("text").declares_as(&declared("text")));
    /// assert!(!declared("text").declares_as(&declared("u64")));
    /// assert!(declared("text").declares_as(&older) && older.declares_as(&declared("u64")));
    /// ```
    pub fn declares_as(&self, other: &GenerationSpec) -> bool {
        let kept = |of: &GenerationSpec| (of.version, of.history, of.inline);
        (kept(self), &self.indexes) == (kept(other), &other.indexes)
            && self.compared_with(other).eq(other.compared_with(self))
    }

    /// What it handles, without parts of which the other one says nothing.
    fn compared_with<'a>(&'a self, other: &'a GenerationSpec) -> impl Iterator<Item = &'a String> {
        let is_said = move |part: &&String| {
            let later = [Self::KEYS, Self::ENTRIES, Self::OUTPUT].into_iter();
            let mut begins = later.filter(|begin| part.starts_with(begin));
            begins.all(|begin| other.handles.iter().any(|of| of.starts_with(begin)))
        };
        self.handles.iter().filter(is_said)
    }

    /// Whether each partition has the slot of its number, which keeps all keys of it; otherwise
    /// each slot reads all partitions and keeps its own keys.
    pub fn is_by_partition(&self) -> bool {
        self.handles.iter().any(|of| of == Self::BY_PARTITION)
    }

    /// Whether a slot reads a partition.
    ///
    /// ```
    /// use annals_core::{GenerationSpec, LogId, Partition};
    ///
    /// let mut spec = GenerationSpec::new("payments", 1, LogId::random());
    /// assert!(spec.reads(0, Partition(2)));
    /// spec.handles.push(GenerationSpec::BY_PARTITION.into());
    /// assert!(spec.reads(2, Partition(2)) && !spec.reads(0, Partition(2)));
    /// ```
    pub fn reads(&self, slot: u16, partition: Partition) -> bool {
        !self.is_by_partition() || partition.0 == u32::from(slot)
    }

    /// What stays in the place of a follower that was dropped: of a version that no program takes
    /// for its own, and handling nothing.
    pub(crate) fn of_nothing(
        view: impl Into<String>,
        log: LogId,
        partitions: u32,
    ) -> GenerationSpec {
        GenerationSpec {
            handles: vec!["$nothing".to_owned()],
            partitions,
            ..GenerationSpec::new(view, u32::MAX, log)
        }
    }

    /// Whether it only takes the place of a follower that was
    /// [dropped](crate::Annals::drop_follower).
    ///
    /// ```
    /// use annals_core::{GenerationSpec, LogId};
    ///
    /// assert!(!GenerationSpec::new("balances", 1, LogId::random()).is_of_nothing());
    /// ```
    pub fn is_of_nothing(&self) -> bool {
        self.version == u32::MAX
    }

    /// Refuses what no store may begin.
    ///
    /// # Errors
    ///
    /// A view without a name or with one that is too long, no slots or partitions or too many
    /// slots, an index that is named twice, a view that keeps its past and is folded from several
    /// partitions.
    ///
    /// ```
    /// use annals_core::{GenerationSpec, LogId};
    ///
    /// let mut spec = GenerationSpec::new("balances", 1, LogId::random());
    /// assert!(spec.check().is_ok());
    /// spec.slots = 0;
    /// assert_eq!(
    ///     spec.check().unwrap_err().to_string(),
    ///     "view `balances` is divided into 0 slots, 1 to 256 are possible",
    /// );
    /// ```
    pub fn check(&self) -> Result<(), Invalid> {
        let view = &self.view;
        if view.is_empty() || view.len() > VIEW_KEY_BYTES_MAX {
            let bytes = view.len();
            let most = VIEW_KEY_BYTES_MAX;
            return Err(Invalid::new(format!(
                "a view has a name of {bytes} bytes, 1 to {most} are possible"
            )));
        }
        if self.slots == 0 || self.slots > VIEW_SLOTS_MAX {
            let slots = self.slots;
            let most = VIEW_SLOTS_MAX;
            return Err(Invalid::new(format!(
                "view `{view}` is divided into {slots} slots, 1 to {most} are possible"
            )));
        }
        if self.partitions == 0 {
            return Err(Invalid::new(format!(
                "view `{view}` is folded from a log without partitions"
            )));
        }
        if self.partitions > 1 && self.history != History::None {
            let partitions = self.partitions;
            return Err(Invalid::new(format!(
                "view `{view}` keeps its past, which needs a log of one partition, and this one \
                 has {partitions}"
            )));
        }
        let mut named = HashSet::new();
        match self.indexes.iter().find(|name| !named.insert(*name)) {
            Some(name) => Err(Invalid::new(format!(
                "view `{view}` has index `{name}` twice"
            ))),
            None => Ok(()),
        }
    }
}

/// A generation and its state.
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
    /// Questions about moments before this position cannot be answered any more: the start when a
    /// generation that keeps its past is begun, [`Position::MAX`] for one that keeps only the
    /// present.
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
        Generation {
            id,
            spec,
            phase,
            begun_at,
            history_since,
        }
    }

    /// What the names of all leases that are about this generation begin with. Those of a view
    /// whose name begins like this one's may too.
    pub fn lease_prefix(&self) -> String {
        format!("{}/{}/", self.spec.view, self.id)
    }

    /// Whether a lease of this name is about this generation.
    ///
    /// ```
    /// # fn example(generation: annals_core::Generation) {
    /// assert!(generation.is_about_it(&generation.lease_name(0)));
    /// # }
    /// ```
    pub fn is_about_it(&self, lease: &str) -> bool {
        let Some(rest) = lease.strip_prefix(&self.lease_prefix()) else {
            return false;
        };
        let number = rest.strip_prefix("process/").unwrap_or(rest);
        number.parse::<u16>().is_ok()
    }

    /// The name of the lease on one of its slots: no two slots of any generations share one.
    pub fn lease_name(&self, slot: u16) -> String {
        // The last two parts are numbers, so a view whose name has slashes is not taken for
        // another.
        format!("{}/{}/{slot}", self.spec.view, self.id)
    }

    /// The name of a lease by which one of the processes that share its slots says that it is
    /// there, by a number from 0. No generations share one, and no slot is called so.
    ///
    /// ```
    /// # use annals_core::{
    /// #     Clock, Generation, GenerationId, GenerationSpec, LogId, Phase, Position, SystemClock,
    /// # };
    /// # let spec = GenerationSpec::new("balances", 1, LogId::random());
    /// # let generation = Generation::new(
    /// #     GenerationId(3), spec, Phase::Live, SystemClock.now(), Position::START,
    /// # );
    /// assert!(generation.process_lease_name(0).starts_with(&generation.process_lease_prefix()));
    /// ```
    pub fn process_lease_name(&self, process: u16) -> String {
        format!("{}{process}", self.process_lease_prefix())
    }

    /// What the names of [`Generation::process_lease_name`] begin with, and no others.
    pub fn process_lease_prefix(&self) -> String {
        format!("{}/{}/process/", self.spec.view, self.id)
    }

    /// The names of all leases that are about this generation: a store that drops it drops them.
    pub fn lease_names(&self) -> impl Iterator<Item = String> {
        let processes = if self.spec.slots > 1 {
            self.spec.slots
        } else {
            0
        };
        let of_slots = (0..self.spec.slots).map(|slot| self.lease_name(slot));
        of_slots.chain((0..processes).map(|process| self.process_lease_name(process)))
    }

    /// Refuses to drop what readers depend on. `of_view` are the generations of the same view.
    ///
    /// # Errors
    ///
    /// When it is the only live one. One that is live for its version may go once another version
    /// is live.
    ///
    /// ```
    /// use annals_core::{
    ///     Generation, GenerationId, GenerationSpec, LogId, Phase, Position, SystemClock, Clock,
    /// };
    ///
    /// let spec = GenerationSpec::new("balances", 1, LogId::random());
    /// let live = Generation::new(
    ///     GenerationId(1), spec, Phase::Live, SystemClock.now(), Position::START,
    /// );
    /// assert!(live.check_drop([&live]).is_err());
    /// ```
    pub fn check_drop<'a>(
        &self,
        of_view: impl IntoIterator<Item = &'a Generation>,
    ) -> Result<(), Invalid> {
        let serves_too = |other: &Generation| other.phase == Phase::Live && other.id != self.id;
        if self.phase != Phase::Live || of_view.into_iter().any(serves_too) {
            return Ok(());
        }
        let id = self.id;
        let view = &self.spec.view;
        Err(Invalid::new(format!(
            "generation {id} is the only live one of view `{view}`, its readers would have nothing"
        )))
    }
}
