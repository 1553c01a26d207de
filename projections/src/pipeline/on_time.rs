//! What a stage made of the items that were on time, with those that were late beside.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, PoisonError};

use annals_streams::{Batch, Branch, PlannedStage, Sink, Span};

use super::graph::{At, Making, Node, Port};
use super::keyed::{Keyed, PipelineKey};
use super::stream::Flows;

/// What a join, a pattern or an order of time makes of the items that come in time; those that come
/// too late are beside it, in [`late`](OnTime::late).
///
/// It is the [`Keyed`] stream of its results: use it as one, and [`results`](OnTime::results) where
/// the type has to be that.
///
/// ```
/// # use annals_projections::pipeline::{Keyed, Pattern};
/// # fn example(payments: Keyed<String, i64>) {
/// let large = payments.detect(Pattern::first(|cents: &i64| *cents > 100_000));
/// large.map(|_, found| found[0]);
/// large.late().map(|user, cents| format!("{cents} of {user} came too late"));
/// # }
/// ```
pub struct OnTime<K, T, L> {
    results: Keyed<K, T>,
    /// Where the stage is, and what is late for it.
    at: At,
    late: Node<(K, L)>,
}

impl<K, T, L: Flows> OnTime<K, T, L> {
    /// A stage here, that `attach` leads to what follows it and to what is late for it. Its results
    /// may lie so much before the watermark.
    pub(super) fn made(
        at: At,
        lag: Span,
        attach: impl FnOnce(Node<(K, T)>, Node<(K, L)>),
    ) -> OnTime<K, T, L>
    where
        K: PipelineKey,
        T: Flows,
    {
        let node = Node::new();
        let late = Node::new();
        attach(node.clone(), late.clone());
        let results = Keyed::of(at.clone().lagging(lag), node);
        OnTime { results, at, late }
    }

    /// Items that came too late, by their key: each is in it once, at its own time, and in nothing
    /// else that this stage makes. They are counted in the status in any case.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use annals_projections::pipeline::{Keyed, Side, Within};
    /// # fn example(shown: Keyed<String, u64>, clicked: Keyed<String, u64>) {
    /// let hour = Within::after(Duration::from_hours(1));
    /// let pairs = shown.join(&clicked, hour, |shown, clicked| (*shown, *clicked));
    /// pairs.late().filter(|late| matches!(late, Side::Right(_)));
    /// # }
    /// ```
    pub fn late(&self) -> Keyed<K, L> {
        Keyed::of(
            self.at.then(PlannedStage::new("late", "")),
            self.late.clone(),
        )
    }
}

impl<K, T, L> OnTime<K, T, L> {
    /// The results alone.
    ///
    /// ```
    /// # use annals_projections::pipeline::Keyed;
    /// fn sorted(payments: &Keyed<String, i64>) -> Keyed<String, i64> {
    ///     payments.in_time_order().results()
    /// }
    /// ```
    pub fn results(&self) -> Keyed<K, T> {
        self.results.clone()
    }
}

impl<K, T, L> Deref for OnTime<K, T, L> {
    type Target = Keyed<K, T>;

    fn deref(&self) -> &Keyed<K, T> {
        &self.results
    }
}

impl<K, T, L> From<OnTime<K, T, L>> for Keyed<K, T> {
    fn from(on_time: OnTime<K, T, L>) -> Keyed<K, T> {
        on_time.results
    }
}

impl<K, T, L> Clone for OnTime<K, T, L> {
    fn clone(&self) -> OnTime<K, T, L> {
        OnTime {
            results: self.results.clone(),
            at: self.at.clone(),
            late: self.late.clone(),
        }
    }
}

impl<K, T, L> fmt::Debug for OnTime<K, T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnTime")
            .field("stage", &self.at.stage)
            .finish_non_exhaustive()
    }
}

/// Late items on their way, each counted as so many.
pub(super) fn counted<L: Flows>(
    making: &mut Making,
    to: &Node<L>,
    missed: impl Fn(&L) -> u64 + Send + 'static,
) -> Port<L> {
    let collected = Arc::clone(&making.collected);
    let count = move |batch: &Batch<L>| {
        if !batch.rows.is_empty() {
            let all = batch.rows.iter().map(|row| missed(&row.item));
            let mut collected = collected.lock().unwrap_or_else(PoisonError::into_inner);
            collected.missed += all.sum::<u64>();
        }
    };
    let count = Box::new(Sink::new(count));
    if to.is_followed() {
        Box::new(Branch::new(vec![count, to.port(making)]))
    } else {
        count
    }
}
