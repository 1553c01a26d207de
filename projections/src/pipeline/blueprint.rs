//! A pipeline that was written: what its slots are made from, and how far they have come.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use annals_core::{Filter, GenerationId, GenerationSpec, LogPage, Partition, Store, StreamId};
use annals_runner::{EventTime, GenerationWorkers, WorkError, skip_call};

use super::append::OpenOutlet;
use super::clock_event;
use super::divide::DivideBy;
use super::graph::Graph;
use super::handle::SlotClock;
use super::machine::{Machine, Stuck};
use super::prepared::{Preparation, PreparedPage, Stops};
use super::rows::IndexPlaces;
use super::sender::SenderLink;
use super::share::Share;

/// What slots are made from.
pub(crate) struct Blueprint {
    pub(crate) name: &'static str,
    pub(crate) version: u32,
    graph: Graph,
    /// Whether each partition of the log has a slot of its own.
    pub(crate) by_partition: bool,
    state_bytes_max: usize,
    /// By generation and slot, while the slot is worked on here.
    seen: Mutex<BTreeMap<(GenerationId, u16), SlotClock>>,
    /// Between its slots and what sends the events that they emit.
    pub(crate) sender: Arc<SenderLink>,
    /// What follows the sender, once it is begun.
    pub(crate) sender_workers: OnceLock<GenerationWorkers>,
}

impl Blueprint {
    pub(crate) fn new(
        name: &'static str,
        version: u32,
        (graph, by_partition): (Graph, bool),
        (state_bytes_max, outbox_events_max): (usize, u64),
    ) -> Blueprint {
        Blueprint {
            name,
            version,
            graph,
            by_partition,
            state_bytes_max,
            seen: Mutex::default(),
            sender: Arc::new(SenderLink::new(name, outbox_events_max)),
            sender_workers: OnceLock::new(),
        }
    }

    pub(crate) fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The stored names of its events, each once, in order.
    pub(crate) fn types(&self) -> Vec<&'static str> {
        let draft = self.graph.lock();
        let mut types: Vec<_> = draft.sources.iter().flat_map(|of| of.types()).collect();
        types.sort_unstable();
        types.dedup();
        types
    }

    /// What the log is read through.
    pub(crate) fn filter(&self) -> Filter {
        let types = self.types().into_iter();
        Filter::default().types(types.chain([clock_event::TYPE]))
    }

    /// What a generation is made of besides the types: another plan is another generation, also
    /// when the version was not raised.
    pub(crate) fn plan(&self) -> String {
        let draft = self.graph.lock();
        let mut text = draft.plan.canonical();
        for source in &draft.sources {
            for (name, value) in source.parameters() {
                text.push_str(&format!("{name}={value} "));
            }
        }
        // FNV-1a: the same in every process and version.
        let digest = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("plan:{digest:016x}")
    }

    /// What is wrong with it, for so many slots.
    pub(crate) fn check(&self, slots: u16) -> Result<(), String> {
        let draft = self.graph.lock();
        if let Some(wrong) = draft.wrong.first() {
            return Err(wrong.clone());
        }
        if draft.sources.is_empty() {
            return Err("it reads no events; begin with `log.events::<…>()`".into());
        }
        if draft.outputs.is_empty() && draft.appends.is_empty() {
            return Err("it writes nothing; end with `into_view` or `append`".into());
        }
        let appends = || draft.appends.iter();
        let read: HashSet<_> = draft.sources.iter().flat_map(|of| of.types()).collect();
        if let Some(loops) = appends()
            .flat_map(|of| (of.types)())
            .find(|of| read.contains(of))
        {
            return Err(format!(
                "it reads `{loops}` and appends it too, so that each could cause the next; append \
                 events of a type that it does not read"
            ));
        }
        let all = appends().all(|of| of.from_the_beginning);
        if !all && appends().any(|of| of.from_the_beginning) {
            return Err(
                "it appends some events `from_the_beginning` and others not; say it of all or none"
                    .into(),
            );
        }
        match draft.one_slot {
            Some(stage) if slots > 1 => Err(format!(
                "`{stage}` needs all keys in one place; run it with one slot instead of {slots}"
            )),
            _ => Ok(()),
        }
    }

    /// Whether events leave it.
    pub(crate) fn appends(&self) -> bool {
        !self.graph.lock().appends.is_empty()
    }

    /// Where the entries of the indexes of each output are.
    pub(crate) fn index_places(&self) -> IndexPlaces {
        IndexPlaces::of(&self.graph.lock().outputs)
    }

    /// What opens the outlets that it publishes to.
    pub(crate) fn outlets(&self) -> Vec<OpenOutlet> {
        self.graph.lock().outlets().cloned().collect()
    }

    /// Whether what was recorded before its first start also causes events.
    pub(crate) fn sends_from_the_beginning(&self) -> bool {
        self.graph
            .lock()
            .appends
            .iter()
            .any(|of| of.from_the_beginning)
    }

    /// The stages of a slot.
    pub(crate) fn machine(&self, share: Share) -> Machine {
        Machine::new(&self.graph.lock(), share)
    }

    /// How the pages of a partition are divided for the slots of a generation.
    pub(crate) fn divide_by(
        spec: &GenerationSpec,
        log: &Arc<dyn Store>,
        partition: Partition,
    ) -> DivideBy {
        if !spec.is_by_partition() {
            return DivideBy::Slots(spec.slots);
        }
        let log = Arc::clone(log);
        let of = move |name: &str| Some(log.partition_of(&StreamId::any(name).ok()?));
        DivideBy::Partition(partition, Arc::new(of))
    }

    /// A page, sent through the stages before the keys.
    pub(crate) fn prepare(
        &self,
        page: LogPage,
        partition: Partition,
        by: DivideBy,
    ) -> PreparedPage {
        let preparation = Preparation::of(&self.graph.lock(), by);
        preparation.prepare(page, partition)
    }

    /// Whether some stages need all keys in one place.
    pub(crate) fn needs_one_slot(&self) -> Option<&'static str> {
        self.graph.lock().one_slot
    }

    /// Why an event stops the pipeline, and what to do.
    pub(crate) fn stuck(&self, partition: Partition, of: u32, stuck: &Stuck) -> String {
        let Stuck { position, why, .. } = stuck;
        let name = self.name;
        let reason = match why {
            Stops::Unreadable(reason) => reason,
            Stops::Misplaced(why) => {
                return format!(
                    "the event at position {position} of partition {partition} is not where its \
                     key is: {why}. With a slot for each partition the results of such a key would \
                     be wrong. Key by what the log is divided by (`key_by_stream`), say with \
                     `partitioned_by` in which stream a key is, or do without `by_partition`"
                );
            }
        };
        let call = skip_call(of);
        format!(
            "the event at position {position} of partition {partition} cannot be read: {reason}. \
             No later event is taken in, because windows would miss it. Repair the type, let the \
             source go on with `dead_letters`, or skip the event at {position} of pipeline \
             `{name}` with `{call}`"
        )
    }

    /// Refuses more state than a slot may have.
    pub(crate) fn check_room(&self, machine: &Machine, slot: u16) -> Result<(), WorkError> {
        let bytes = machine.state_bytes();
        if bytes <= self.state_bytes_max {
            return Ok(());
        }
        let name = self.name;
        let most = self.state_bytes_max;
        Err(WorkError::Stopped(format!(
            "the state of pipeline `{name}` in slot {slot} would be {bytes} bytes, at most {most} \
             are allowed; use shorter windows, give it more slots, or allow more with \
             `state_bytes_max`"
        )))
    }

    /// Takes note of how far a slot has come; what its status tells of it.
    pub(crate) fn seen(&self, of: (GenerationId, u16), machine: &mut Machine) -> EventTime {
        let (watermark, held_by) = machine.least_watermark();
        let clock = SlotClock {
            watermark,
            held_by,
            state_bytes: machine.state_bytes(),
            open: machine.open(),
            missed: machine.missed(),
            hot_keys: machine.hot_keys(),
        };
        let told = EventTime {
            watermark_micros: watermark.micros(),
            held_by: held_by.map(Partition),
            open: clock.open as u64,
            too_late: clock.missed,
            hot_keys: clock.hot_keys.clone(),
        };
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(of, clock);
        told
    }

    /// A slot is no longer worked on here.
    pub(crate) fn left(&self, of: (GenerationId, u16)) {
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&of);
    }

    /// How far the slots of this process have come; where a generation is built beside the one that
    /// serves, those of the latter.
    pub(crate) fn clocks(&self) -> BTreeMap<u16, SlotClock> {
        let all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // The last one of a slot stays.
        let oldest_last = all.iter().rev();
        oldest_last
            .map(|((_, slot), clock)| (*slot, clock.clone()))
            .collect()
    }
}
