//! Stages that remember something of each key: duplicates, order, a state machine, patterns.

use std::sync::Arc;
use std::time::Duration;

use annals_streams::{
    Batch, Detect, DistinctBy, InTimeOrder, Kept, Key, Match, Pattern, PlannedStage, Scan, Sink,
    Span,
};

use super::graph::Node;
use super::keyed::{Keyed, PipelineKey};
use super::on_time::OnTime;
use super::panics::by_key;
use super::stream::Flows;

impl<K: PipelineKey, T: Flows> Keyed<K, T> {
    /// Each id once: of items of one key with the same id only the first to come goes on, until
    /// the watermark has reached its time plus `remembered_for`. A duplicate that comes later than
    /// that goes on again, so let it be longer than anything is delivered twice.
    ///
    /// Costs an entry of state for each id that is remembered.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use annals_projections::pipeline::Keyed;
    /// # #[derive(Clone)]
    /// # struct Paid { id: String }
    /// # fn example(paid: Keyed<String, Paid>) {
    /// paid.distinct_by(|paid| paid.id.clone(), Duration::from_hours(24));
    /// # }
    /// ```
    pub fn distinct_by<I: Key + Flows>(
        &self,
        id: impl Fn(&T) -> I + Send + Sync + 'static,
        remembered_for: Duration,
    ) -> Keyed<K, T> {
        let span = self.at.graph.span("distinct_by", remembered_for);
        let planned = PlannedStage::new("distinct_by", "").with("for", span.micros());
        let at = self.at.then(planned);
        let node: Node<(K, T)> = Node::new();
        let to = node.clone();
        let id = Arc::new(id);
        let stage = at.numbered();
        self.node.attach(move |making| {
            let id = Arc::clone(&id);
            let distinct = DistinctBy::<K, T, I>::new(span, move |item: &T| id(item));
            let then = to.port(making);
            making.stage(stage, distinct, then, (by_key, by_key))
        });
        Keyed::of(at, node)
    }

    /// A state machine for each key: folds items as they come into a state that begins at its
    /// default, and lets each step say something.
    ///
    /// The state of a key is forgotten when the watermark has reached the largest time of its items
    /// plus `forget_after`. A step is a function of its state and its item, nothing else. Items
    /// come in the order of the log; put [`in_time_order`](Keyed::in_time_order) before it when the
    /// order of time decides.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use annals_projections::pipeline::Keyed;
    /// # fn example(payments: Keyed<String, i64>) {
    /// // Every hundredth payment of a user.
    /// payments.scan(Duration::from_hours(24), |count: &mut u64, _| {
    ///     *count += 1;
    ///     count.is_multiple_of(100).then_some(*count)
    /// });
    /// # }
    /// ```
    pub fn scan<S: Kept + Default + Send + 'static, U: Flows>(
        &self,
        forget_after: Duration,
        step: impl Fn(&mut S, &T) -> Option<U> + Send + Sync + 'static,
    ) -> Keyed<K, U> {
        let span = self.at.graph.span("scan", forget_after);
        let planned = PlannedStage::new("scan", "").with("forget_after", span.micros());
        let at = self.at.then(planned);
        let node: Node<(K, U)> = Node::new();
        let to = node.clone();
        let step = Arc::new(step);
        let stage = at.numbered();
        self.node.attach(move |making| {
            let step = Arc::clone(&step);
            let step = move |state: &mut S, item: &T| step(state, item);
            let then = to.port(making);
            making.stage(
                stage,
                Scan::<K, T, S, U>::new(span, step),
                then,
                (by_key, by_key),
            )
        });
        Keyed::of(at, node)
    }

    /// Items in the order of event time: each waits until the watermark has reached it. Of equal
    /// times the order of the log counts.
    ///
    /// An item that is late, at or before the watermark when it comes, is dropped, counted in the
    /// status, and in [`late`](OnTime::late).
    ///
    /// ```
    /// # use annals_projections::pipeline::Keyed;
    /// # fn example(payments: Keyed<String, i64>) {
    /// payments.in_time_order();
    /// # }
    /// ```
    pub fn in_time_order(&self) -> OnTime<K, T, T>
    where
        T: Kept,
    {
        let at = self.at.then(PlannedStage::new("in_time_order", ""));
        let stage = at.numbered();
        OnTime::made(at, Span::ZERO, |to, late| {
            self.node.attach(move |making| {
                let then = to.port(making);
                let order = InTimeOrder::<K, T>::new();
                making.stage_with_late(stage, order, (then, &late), (by_key, by_key))
            });
        })
    }

    /// The matches of a pattern among the items of each key, in the order of event time. A match
    /// has the time of its last item, an absence the last moment that belonged to it.
    ///
    /// A late item is dropped, counted in the status, and in [`late`](OnTime::late), as of
    /// [`in_time_order`](Keyed::in_time_order). One over which a condition panics is skipped as if
    /// it had not come, and is a [dead record](super::PipelineHandle::dead_records) of the event
    /// that made it its turn.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use annals_projections::pipeline::{Keyed, Pattern};
    /// # fn example(payments: Keyed<String, i64>) {
    /// let rises = Pattern::first(|_: &i64| true)
    ///     .then(|before, cents| *cents > 3 * before[0])
    ///     .within(Duration::from_mins(5));
    /// payments.detect(rises).map(|_, found| found[1]);
    /// # }
    /// ```
    pub fn detect(&self, pattern: Pattern<T>) -> OnTime<K, Match<T>, T>
    where
        T: Kept,
    {
        if let Err(error) = Detect::<K, T>::new(pattern.clone()) {
            self.at.graph.wrong(error.to_string());
        }
        let planned = pattern.parameters().into_iter();
        let planned = planned.fold(PlannedStage::new("detect", ""), |planned, (name, value)| {
            planned.with(name, value)
        });
        let at = self.at.then(planned);
        let stage = at.numbered();
        OnTime::made(at, Span::ZERO, |to, late| {
            self.node.attach(move |making| {
                let then = to.port(making);
                match Detect::<K, T>::new(pattern.clone()) {
                    Ok(detect) => {
                        making.stage_with_late(stage, detect, (then, &late), (by_key, by_key))
                    }
                    // A pipeline with such a pattern is refused before it runs.
                    Err(_) => Box::new(Sink::new(|_: &Batch<(K, T)>| ())),
                }
            });
        })
    }
}
