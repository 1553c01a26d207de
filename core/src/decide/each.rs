//! Any number of aggregates of one kind as one part of a decision.

use std::collections::BTreeMap;
use std::fmt;

use super::boundary::{Part, sealed};
use super::emit::{Emit, EmitError, Emits};
use super::guards::Guards;
use crate::aggregate::cache::{TurnKey, Turns};
use crate::aggregate::fold::{CachedState, LoadError};
use crate::aggregate::{Aggregate, At};
use crate::append::Appended;
use crate::error::Invalid;
use crate::event::NewEvent;
use crate::store::Store;
use crate::stream::StreamId;
use crate::typed::IntoEvents;

/// Names aggregates of one kind, each once: a part of a decision whose states are a map from the id
/// to the state.
///
/// A decision returns for it the events of each id, in a `Vec` or a map, or `()`.
///
/// ```
/// # use std::collections::BTreeMap;
/// # use annals_core::{Aggregate, Annals, CommandError};
/// # async fn example<Stock: Aggregate>(
/// #     db: Annals, take: fn(&Stock) -> Result<Stock::Event, String>,
/// # ) -> Result<(), CommandError<String>> {
/// let skus = ["cup", "plate"];
/// db.decide((Stock::at_each(skus),), |(stocks,)| {
///     let taken = stocks.iter().map(|(sku, stock)| Ok((sku.clone(), take(stock)?)));
///     Ok((taken.collect::<Result<Vec<_>, String>>()?,))
/// })
/// .await?;
/// # Ok(())
/// # }
/// ```
pub struct Each<A> {
    ids: BTreeMap<String, At<A>>,
}

impl<A: Aggregate> Each<A> {
    pub(crate) fn new(ids: impl IntoIterator<Item = impl fmt::Display>) -> Each<A> {
        let ids = ids.into_iter().map(|id| {
            let id = id.to_string();
            let at = A::at(&id);
            (id, at)
        });
        Each { ids: ids.collect() }
    }
}

impl<A> Clone for Each<A> {
    fn clone(&self) -> Each<A> {
        Each {
            ids: self.ids.clone(),
        }
    }
}

impl<A> fmt::Debug for Each<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.ids.values()).finish()
    }
}

impl<A: Aggregate> sealed::Sealed for Each<A> {}

impl<A: Aggregate> Part for Each<A> {
    type State = BTreeMap<String, A>;
    type Known = BTreeMap<String, CachedState<()>>;

    fn streams(&self) -> Result<Vec<&StreamId>, Invalid> {
        self.ids.values().map(At::stream).collect()
    }

    fn name(&self) -> String {
        let names: Vec<String> = self.ids.values().map(Part::name).collect();
        // With their number: else a part that follows could be taken for one of them.
        format!("each {}\n{}", names.len(), names.join("\n"))
    }

    fn turns(&self) -> Result<Vec<TurnKey>, Invalid> {
        let turns: Vec<_> = self
            .ids
            .values()
            .map(Part::turns)
            .collect::<Result<_, _>>()?;
        Ok(turns.concat())
    }

    async fn load(
        &self,
        guards: &mut Guards<'_>,
        turns: &mut Turns,
        fresh: bool,
    ) -> Result<(Self::State, Self::Known), LoadError> {
        let mut states = BTreeMap::new();
        let mut all_known = BTreeMap::new();
        for (id, at) in &self.ids {
            let (state, known) = at.load(guards, turns, fresh).await?;
            states.insert(id.clone(), state);
            all_known.insert(id.clone(), known);
        }
        Ok((states, all_known))
    }

    fn keep(&self, state: Self::State, mut known: Self::Known, turns: &mut Turns) {
        for (id, state) in state {
            if let (Some(at), Some(known)) = (self.ids.get(&id), known.remove(&id)) {
                at.keep(state, known, turns);
            }
        }
    }

    async fn absorb(
        &self,
        store: &dyn Store,
        events: &[(StreamId, NewEvent)],
        appended: &Appended,
        turns: &mut Turns,
    ) {
        for at in self.ids.values() {
            at.absorb(store, events, appended, turns).await;
        }
    }
}

impl<A: Aggregate> Each<A> {
    fn emit<K: fmt::Display, X: IntoEvents<A::Event>>(
        &self,
        events: impl IntoIterator<Item = (K, X)>,
    ) -> Result<Vec<(StreamId, NewEvent)>, EmitError> {
        let mut all = Vec::new();
        for (id, events) in events {
            let id = id.to_string();
            let at = self.ids.get(&id).ok_or_else(|| {
                Invalid::new(format!(
                    "the decision has events for `{}`, which it did not look at",
                    id.escape_debug()
                ))
            })?;
            all.extend(Emit::to_aggregate(at, events).into_events()?);
        }
        Ok(all)
    }
}

impl<A, K, X> Emits<Each<A>> for Vec<(K, X)>
where
    A: Aggregate,
    K: fmt::Display + Send,
    X: IntoEvents<A::Event>,
{
    fn emit(self, part: &Each<A>) -> Result<Vec<(StreamId, NewEvent)>, EmitError> {
        part.emit(self)
    }
}

impl<A, K, X> Emits<Each<A>> for BTreeMap<K, X>
where
    A: Aggregate,
    K: fmt::Display + Send,
    X: IntoEvents<A::Event>,
{
    fn emit(self, part: &Each<A>) -> Result<Vec<(StreamId, NewEvent)>, EmitError> {
        part.emit(self)
    }
}

impl<A: Aggregate> Emits<Each<A>> for () {
    fn emit(self, _: &Each<A>) -> Result<Vec<(StreamId, NewEvent)>, EmitError> {
        Ok(Vec::new())
    }
}
