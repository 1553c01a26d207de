//! From handles to stages: what follows a handle is made again for each slot, from the last stage
//! to the first.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use annals_runner::contained;
use annals_streams::{
    Branch, Codec, Each, Joint, Operator, Panic, Plan, PlannedStage, Row, Side, Span, Stage, State,
    StateError, Stateful,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::append::{AppendSpec, OpenOutlet};
use super::divide::{DivideBy, Divided, Keying};
use super::on_time::counted;
use super::output::{Collected, OutputSpec};
use super::panics::{self, NameOf, Omitted, Panics, Why};
use super::source::Source;
use super::stream::Flows;
use crate::fold::first_difference;
use crate::key::ViewKey;

/// How state is written: as rows are.
pub(crate) struct StateJson;

impl Codec for StateJson {
    fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, StateError> {
        <annals_core::Json as annals_core::Codec>::encode(value)
            .map_err(|error| StateError::new(error.to_string()))
    }

    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StateError> {
        serde_json::from_slice(bytes).map_err(|error| StateError::new(error.to_string()))
    }

    fn check<T: Serialize + ?Sized>(value: &T) -> Result<(), StateError> {
        let looked = annals_core::Json::look_at(value);
        looked
            .map(drop)
            .map_err(|error| StateError::new(error.to_string()))
    }

    fn difference(one: &[u8], other: &[u8]) -> Option<String> {
        first_difference(one, other)
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
    pub(crate) panics: Panics,
    /// How the stages before the keys divide what they give.
    pub(crate) divide_by: DivideBy,
    pub(crate) divided: Arc<Mutex<Divided>>,
    /// Second ends of stages with two inputs, until their streams ask for them.
    ends: HashMap<usize, Box<dyn Any>>,
}

impl Making {
    pub(crate) fn new(slot: u16, slots: u16) -> Making {
        Making {
            slot,
            slots,
            collected: Arc::default(),
            panics: Panics::default(),
            divide_by: DivideBy::One,
            divided: Arc::default(),
            ends: HashMap::new(),
        }
    }

    /// The stages before the keys, which are the same for all slots.
    pub(crate) fn before_keys(divide_by: DivideBy) -> Making {
        Making {
            divide_by,
            ..Making::new(0, 1)
        }
    }

    /// Tells of what a stage without state went on without. What every slot sees one of them
    /// tells.
    pub(crate) fn on_panic<T: 'static>(
        &self,
        of: Numbered,
        name: NameOf<T>,
    ) -> impl Fn(&Row<T>, Panic) + Send + use<T> {
        let panics = (of.divided || self.slot == 0).then(|| self.panics.clone());
        move |row, panic| {
            let reason = panics::text(panic);
            if let Some(panics) = &panics {
                panics.lacks(Omitted {
                    cause: row.cause(),
                    stage: of.stage,
                    item: name(&row.item),
                    of: None,
                    why: Why::Panicked(reason),
                });
            }
        }
    }

    /// Tells of items that a stage without state could not take, and why.
    pub(crate) fn on_error<T: 'static>(
        &self,
        of: Numbered,
        name: NameOf<T>,
    ) -> impl Fn(&Row<T>, String) + Send + Sync + use<T> {
        let panics = (of.divided || self.slot == 0).then(|| self.panics.clone());
        move |row, reason| {
            if let Some(panics) = &panics {
                panics.lacks(Omitted {
                    cause: row.cause(),
                    stage: of.stage,
                    item: name(&row.item),
                    of: None,
                    why: Why::Failed(reason),
                });
            }
        }
    }

    /// A stage with state, whose items and results are called so.
    pub(crate) fn stateful<O>(
        &self,
        at: Numbered,
        operator: O,
        then: Port<O::Out>,
        item: NameOf<O::In>,
        result: NameOf<O::Out>,
    ) -> Stateful<O, StateJson>
    where
        O: Operator + State,
        O::In: 'static,
        O::Out: 'static,
    {
        let stateful = Stateful::new(at.stage, at.lag, operator, then);
        stateful.skip(self.panics.of_stage(at.stage, item, result))
    }

    /// The left end of what has two inputs; `then` is made for the end that comes first.
    pub(crate) fn left<L, R>(
        &mut self,
        joint: usize,
        then: impl FnOnce(&mut Making) -> Port<Side<L, R>>,
    ) -> Port<L>
    where
        L: Clone + Send + 'static,
        R: Clone + Send + 'static,
    {
        self.end(joint, then, |left, right| (left, right))
    }

    /// The right end.
    pub(crate) fn right<L, R>(
        &mut self,
        joint: usize,
        then: impl FnOnce(&mut Making) -> Port<Side<L, R>>,
    ) -> Port<R>
    where
        L: Clone + Send + 'static,
        R: Clone + Send + 'static,
    {
        self.end(joint, then, |left, right| (right, left))
    }

    /// An end of what has two inputs; the other one is parked until it is asked for.
    fn end<L, R, T, O>(
        &mut self,
        joint: usize,
        then: impl FnOnce(&mut Making) -> Port<Side<L, R>>,
        mine_and_other: impl FnOnce(Port<L>, Port<R>) -> (Port<T>, Port<O>),
    ) -> Port<T>
    where
        L: Clone + Send + 'static,
        R: Clone + Send + 'static,
        T: 'static,
        O: 'static,
    {
        if let Some(Ok(parked)) = self.ends.remove(&joint).map(|end| end.downcast()) {
            return *parked;
        }
        let (left, right) = Joint::ports(then(self));
        let (mine, other) = mine_and_other(Box::new(left), Box::new(right));
        self.ends.insert(joint, Box::new(other));
        mine
    }

    /// An operator as a stage of a pipeline, with the names of its items and results. No item is
    /// late for it.
    pub(crate) fn stage<O>(
        &self,
        at: Numbered,
        operator: O,
        then: Port<O::Out>,
        (item, result): (NameOf<O::In>, NameOf<O::Out>),
    ) -> Port<O::In>
    where
        O: Operator<Late = ()> + State + Send + 'static,
        O::Out: Send,
    {
        Box::new(self.stateful(at, operator, then, item, result))
    }

    /// As [`stage`](Making::stage), of an operator that refuses late items: these are counted, and
    /// go where they are asked for.
    pub(crate) fn stage_with_late<O>(
        &mut self,
        at: Numbered,
        operator: O,
        (then, late): (Port<O::Out>, &Node<O::Late>),
        (item, result): (NameOf<O::In>, NameOf<O::Out>),
    ) -> Port<O::In>
    where
        O: Operator + State + Send + 'static,
        O::Out: Send,
        O::Late: Flows,
    {
        let late = counted(self, late, |_| 1);
        let stage = self.stateful(at, operator, then, item, result);
        Box::new(stage.late(late))
    }
}

/// The number of a stage, and how much later than the clock it runs.
#[derive(Clone, Copy)]
pub(crate) struct Numbered {
    pub(crate) stage: u16,
    pub(crate) lag: Span,
    /// Whether a slot sees only its own keys here.
    divided: bool,
}

/// What was said about a pipeline.
pub(crate) struct Draft {
    pub(crate) plan: Plan,
    pub(crate) sources: Vec<Arc<dyn Source>>,
    /// Where streams are divided by key.
    pub(crate) keyings: Vec<Arc<dyn Keying>>,
    pub(crate) outputs: Vec<OutputSpec>,
    /// The types of the keys that streams are given.
    pub(crate) keys: Vec<String>,
    /// Events that leave it.
    pub(crate) appends: Vec<AppendSpec>,
    /// The stages that need all keys in one slot.
    pub(crate) one_slot: Option<&'static str>,
    pub(crate) wrong: Vec<String>,
    joints: usize,
}

impl Draft {
    /// The outlets that take records, by their numbers.
    pub(crate) fn outlets(&self) -> impl Iterator<Item = &OpenOutlet> {
        self.appends.iter().filter_map(|of| of.outlet.as_ref())
    }
}

/// A pipeline while it is written.
#[derive(Clone)]
pub(crate) struct Graph(Arc<Mutex<Draft>>);

impl Graph {
    pub(crate) fn new(name: &str, version: u32) -> Graph {
        Graph(Arc::new(Mutex::new(Draft {
            plan: Plan::new(name, version),
            sources: Vec::new(),
            keyings: Vec::new(),
            outputs: Vec::new(),
            keys: Vec::new(),
            appends: Vec::new(),
            one_slot: None,
            wrong: Vec::new(),
            joints: 0,
        })))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Draft> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream is given keys of this type.
    pub(crate) fn keyed_by<K: ViewKey>(&self) {
        let keys = contained(K::type_of_key).unwrap_or_default();
        self.lock().keys.push(keys);
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

    /// A length of event time, which is counted in whole microseconds.
    pub(crate) fn span(&self, of: &str, length: Duration) -> Span {
        // What is longer than event time itself is for ever.
        let is_counted = i64::try_from(length.as_micros()).is_ok();
        if is_counted && !length.subsec_nanos().is_multiple_of(1_000) {
            self.wrong(format!(
                "{length:?} of `{of}` are no whole microseconds, in which event time is counted"
            ));
        }
        length.into()
    }

    /// Adds a source, and says its number.
    pub(crate) fn source(&self, source: Arc<dyn Source>) -> usize {
        let sources = &mut self.lock().sources;
        sources.push(source);
        sources.len() - 1
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
    /// The sources that lead here.
    pub(crate) sources: Arc<[usize]>,
    /// How far items may lie before the watermark of the log when they come here, without being
    /// late: stages with state that follow run so much later.
    pub(crate) lag: Span,
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

    /// The same place, whose items may lie so much further before the watermark.
    pub(crate) fn lagging(self, lag: Span) -> At {
        let lag = self.lag + lag;
        At { lag, ..self }
    }

    /// What its stage is made with.
    pub(crate) fn numbered(&self) -> Numbered {
        Numbered {
            stage: self.stage,
            lag: self.lag,
            divided: self.divided,
        }
    }

    /// After a stage that two handles lead to: it runs as late as the later of them.
    pub(crate) fn then_both(&self, other: &At, stage: PlannedStage) -> At {
        if self.divided != other.divided {
            let kind = stage.kind();
            self.graph.wrong(format!(
                "`{kind}` takes a stream with a key and one that has none; key both first"
            ));
        }
        let mut sources: Vec<usize> = self.sources.to_vec();
        sources.extend(other.sources.iter());
        sources.sort_unstable();
        sources.dedup();
        At {
            divided: self.divided || other.divided,
            sources: sources.into(),
            lag: self.lag.max(other.lag),
            ..self.then(stage.after(other.stage))
        }
    }

    /// Leads two nodes into what `then` makes of both.
    pub(crate) fn attach_both<L, R>(
        &self,
        (left, right): (&Node<L>, &Node<R>),
        then: impl Fn(&mut Making) -> Port<Side<L, R>> + Send + Sync + 'static,
    ) where
        L: Clone + Send + 'static,
        R: Clone + Send + 'static,
    {
        let joint = {
            let mut draft = self.graph.lock();
            draft.joints += 1;
            draft.joints
        };
        let then = Arc::new(then);
        let of_right = Arc::clone(&then);
        left.attach(move |making| making.left(joint, &*then));
        right.attach(move |making| making.right(joint, &*of_right));
    }

    pub(crate) fn merged<T: Clone + Send + Sync + 'static>(
        &self,
        from: &Node<T>,
        other: (&At, &Node<T>),
    ) -> (At, Node<T>) {
        let to = Node::new();
        let at = self.then_both(other.0, PlannedStage::new("merge", ""));
        let then = to.clone();
        at.attach_both((from, other.1), move |making| {
            let either = |side: &Side<T, T>| match side {
                Side::Left(item) | Side::Right(item) => item.clone(),
            };
            Box::new(Each::map(either, then.port(making)))
        });
        (at, to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_that_json_would_give_back_as_nothing_is_refused() {
        assert_eq!(StateJson::encode(&Some(Some(3))), Ok(b"3".to_vec()));
        assert!(StateJson::encode(&Some(None::<u8>)).is_err());
    }
}
