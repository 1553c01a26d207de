//! From handles to stages: what follows a handle is made anew for each slot, from the last stage
//! to the first.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use annals_streams::{Branch, Codec, Each, Joint, Plan, PlannedStage, Side, Stage, StateError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::output::{Collected, OutputSpec};
use super::source::Source;

/// How state is written: as rows are.
pub(crate) struct StateJson;

impl Codec for StateJson {
    fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, StateError> {
        serde_json::to_vec(value).map_err(|error| StateError::new(error.to_string()))
    }

    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StateError> {
        serde_json::from_slice(bytes).map_err(|error| StateError::new(error.to_string()))
    }
}

/// Where rows go.
pub(crate) type Port<T> = Box<dyn Stage<T, StateJson>>;

type Attach<T> = Box<dyn Fn(&mut Making) -> Port<T> + Send + Sync>;

/// What a handle is about: the stages that follow it.
pub(crate) struct Node<T>(Arc<Mutex<Vec<Attach<T>>>>);

impl<T> Clone for Node<T> {
    fn clone(&self) -> Node<T> {
        Node(Arc::clone(&self.0))
    }
}

impl<T: Send + 'static> Node<T> {
    pub(crate) fn new() -> Node<T> {
        Node(Arc::default())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Attach<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more stage takes what comes out here.
    pub(crate) fn attach(&self, stage: impl Fn(&mut Making) -> Port<T> + Send + Sync + 'static) {
        self.lock().push(Box::new(stage));
    }

    /// Everything that follows.
    pub(crate) fn port(&self, making: &mut Making) -> Port<T> {
        let followers = self.lock();
        match &followers[..] {
            [only] => only(making),
            several => Box::new(Branch::new(several.iter().map(|of| of(making)).collect())),
        }
    }

    pub(crate) fn is_followed(&self) -> bool {
        !self.lock().is_empty()
    }
}

/// The stages of one slot, while they are made.
pub(crate) struct Making {
    pub(crate) slot: u16,
    pub(crate) slots: u16,
    pub(crate) collected: Arc<Mutex<Collected>>,
    /// Second ends of merges, until their streams ask for them.
    ends: HashMap<usize, Box<dyn Any>>,
}

impl Making {
    pub(crate) fn new(slot: u16, slots: u16) -> Making {
        Making {
            slot,
            slots,
            collected: Arc::default(),
            ends: HashMap::new(),
        }
    }

    /// An end of a merge into `to`.
    fn end<T: Clone + Send + 'static>(
        &mut self,
        merge: usize,
        left: bool,
        to: &Node<T>,
    ) -> Port<T> {
        let parked = self.ends.remove(&merge).map(|end| end.downcast());
        if let Some(Ok(end)) = parked {
            return *end;
        }
        let either = |side: &Side<T, T>| match side {
            Side::Left(item) | Side::Right(item) => item.clone(),
        };
        let (one, other) = Joint::ports(Box::new(Each::map(either, to.port(self))));
        let (one, other): (Port<T>, Port<T>) = (Box::new(one), Box::new(other));
        let (mine, parked) = if left { (one, other) } else { (other, one) };
        self.ends.insert(merge, Box::new(parked));
        mine
    }
}

/// What was said about a pipeline.
pub(crate) struct Draft {
    pub(crate) plan: Plan,
    pub(crate) sources: Vec<Arc<dyn Source>>,
    pub(crate) outputs: Vec<OutputSpec>,
    /// The stages that need all keys in one slot.
    pub(crate) one_slot: Option<&'static str>,
    pub(crate) wrong: Vec<String>,
    merges: usize,
}

/// A pipeline while it is written.
#[derive(Clone)]
pub(crate) struct Graph(Arc<Mutex<Draft>>);

impl Graph {
    pub(crate) fn new(name: &str, version: u32) -> Graph {
        Graph(Arc::new(Mutex::new(Draft {
            plan: Plan::new(name, version),
            sources: Vec::new(),
            outputs: Vec::new(),
            one_slot: None,
            wrong: Vec::new(),
            merges: 0,
        })))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Draft> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a new stage.
    pub(crate) fn stage(&self, stage: PlannedStage) -> u16 {
        let mut draft = self.lock();
        match draft.plan.add(stage) {
            Ok(number) => number,
            Err(error) => {
                draft.wrong.push(error.to_string());
                0
            }
        }
    }

    pub(crate) fn wrong(&self, what: impl Into<String>) {
        self.lock().wrong.push(what.into());
    }

    pub(crate) fn needs_one_slot(&self, stage: &'static str) {
        self.lock().one_slot.get_or_insert(stage);
    }
}

/// Where a handle is in its pipeline.
#[derive(Clone)]
pub(crate) struct At {
    pub(crate) graph: Graph,
    pub(crate) stage: u16,
    /// Whether a slot sees only its own keys here.
    pub(crate) divided: bool,
}

impl At {
    /// After one more stage.
    pub(crate) fn then(&self, stage: PlannedStage) -> At {
        let stage = self.graph.stage(stage.after(self.stage));
        At {
            stage,
            ..self.clone()
        }
    }

    pub(crate) fn merged<T: Clone + Send + 'static>(
        &self,
        from: &Node<T>,
        other: (&At, &Node<T>),
    ) -> (At, Node<T>) {
        let to = Node::new();
        let merge = {
            let mut draft = self.graph.lock();
            draft.merges += 1;
            draft.merges
        };
        for (node, left) in [(from, true), (other.1, false)] {
            let to = to.clone();
            node.attach(move |making| making.end(merge, left, &to));
        }
        let planned = PlannedStage::new("merge", "").after(other.0.stage);
        let at = At {
            divided: self.divided || other.0.divided,
            ..self.then(planned)
        };
        if self.divided != other.0.divided {
            self.graph
                .wrong("a stream with a key is merged with one that has none; key both first");
        }
        (at, to)
    }
}
