//! Two streams of one key: pairs within bounds of event time, or in the same window.

use std::sync::Arc;

use annals_streams::{
    Batch, Each, IntervalJoin, JoinType, Kept, PlannedStage, Side, Sink, Window, WindowJoin, Within,
};

use super::graph::{Node, Numbered};
use super::keyed::{Keyed, PipelineKey, mapped};
use super::on_time::OnTime;
use super::panics::{by_key, by_side};
use super::results::Windowed;
use super::stream::Flows;
use super::windows::{Windows, WindowsBy};

impl<K: PipelineKey, T: Flows + Kept> Keyed<K, T> {
    /// Pairs of one key whose times lie within these bounds: the other one's is at least this
    /// one's less `before`, and at most this one's plus `after`. Every pair comes out once, when
    /// its later half comes, and has the larger time of both.
    ///
    /// Items wait as long as a partner can come. One that comes when none can any more, and meets
    /// none that waits, is late: it is dropped, counted in the status, and in
    /// [`late`](OnTime::late).
    ///
    /// Rows may lie before the watermark by the larger bound, and stages after the join run that
    /// much later, so that none of them is late there.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use annals_projections::pipeline::{Keyed, Within};
    /// # fn example(shown: Keyed<String, u64>, clicked: Keyed<String, u64>) {
    /// let hour = Within::after(Duration::from_hours(1));
    /// shown.join(&clicked, hour, |shown, clicked| (*shown, *clicked));
    /// # }
    /// ```
    pub fn join<R: Flows + Kept, O: Flows>(
        &self,
        other: &Keyed<K, R>,
        within: Within,
        row: impl Fn(&T, &R) -> O + Send + Sync + 'static,
    ) -> OnTime<K, O, Side<T, R>> {
        let row = move |left: Option<&T>, right: Option<&R>| Some(row(left?, right?));
        self.joined(other, "join", (JoinType::Inner, within), row)
    }

    /// As [`join`](Keyed::join), and an item of this stream that no partner came for comes out
    /// alone, at its own time: once, when none can come any more. What came out alone never meets
    /// a partner afterwards.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use annals_projections::pipeline::{Keyed, Within};
    /// # fn example(shown: Keyed<String, u64>, clicked: Keyed<String, u64>) {
    /// let hour = Within::after(Duration::from_hours(1));
    /// shown.left_join(&clicked, hour, |_, clicked| clicked.is_some());
    /// # }
    /// ```
    pub fn left_join<R: Flows + Kept, O: Flows>(
        &self,
        other: &Keyed<K, R>,
        within: Within,
        row: impl Fn(&T, Option<&R>) -> O + Send + Sync + 'static,
    ) -> OnTime<K, O, Side<T, R>> {
        let row = move |left: Option<&T>, right: Option<&R>| Some(row(left?, right));
        self.joined(other, "left_join", (JoinType::Left, within), row)
    }

    /// As [`left_join`](Keyed::left_join), with items of both streams that no partner came for; at
    /// least one of the two is there.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use annals_projections::pipeline::{Keyed, Within};
    /// # fn example(sent: Keyed<String, u64>, received: Keyed<String, u64>) {
    /// let minute = Within::around(Duration::from_mins(1));
    /// sent.outer_join(&received, minute, |sent, received| sent == received);
    /// # }
    /// ```
    pub fn outer_join<R: Flows + Kept, O: Flows>(
        &self,
        other: &Keyed<K, R>,
        within: Within,
        row: impl Fn(Option<&T>, Option<&R>) -> O + Send + Sync + 'static,
    ) -> OnTime<K, O, Side<T, R>> {
        let row = move |left: Option<&T>, right: Option<&R>| Some(row(left, right));
        self.joined(other, "outer_join", (JoinType::Outer, within), row)
    }

    fn joined<R: Flows + Kept, O: Flows>(
        &self,
        other: &Keyed<K, R>,
        kind: &'static str,
        (join, within): (JoinType, Within),
        row: impl Fn(Option<&T>, Option<&R>) -> Option<O> + Send + Sync + 'static,
    ) -> OnTime<K, O, Side<T, R>> {
        if within.before + within.after < annals_streams::Span::ZERO {
            self.at.graph.wrong(format!(
                "`{kind}` within bounds that contain nothing: {} microseconds before, {} after",
                within.before.micros(),
                within.after.micros()
            ));
        }
        let planned = PlannedStage::new(kind, "")
            .with("before", within.before.micros())
            .with("after", within.after.micros());
        let at = self.at.then_both(&other.at, planned);
        let row = Arc::new(row);
        let stage = at.numbered();
        OnTime::made(at.clone(), within.lag(), |to, late| {
            let late = late_sides(stage, &late);
            at.attach_both((&self.node, &other.node), move |making| {
                let row = Arc::clone(&row);
                let row = move |(key, (left, right)): &(K, Sides<T, R>)| {
                    row(left.as_ref(), right.as_ref()).map(|row| (key.clone(), row))
                };
                // Rows are made after the join: one that cannot be made is skipped by itself.
                let then = Each::filter_map(row, to.port(making));
                let then = Box::new(then.on_panic(making.on_panic(stage, by_key)));
                let join = IntervalJoin::<K, T, R, Sides<T, R>>::new(join, within, sides);
                making.stage_with_late(stage, join, (then, &late), (by_side, by_key))
            });
        })
    }
}

/// What a joined row is made of: at least one of the two is there.
pub(super) type Sides<L, R> = (Option<L>, Option<R>);

pub(super) fn sides<L: Clone, R: Clone>(left: Option<&L>, right: Option<&R>) -> Sides<L, R> {
    (left.cloned(), right.cloned())
}

/// Late items of two streams, on their way to those of both by key.
fn late_sides<K: PipelineKey, L: Flows, R: Flows>(
    stage: Numbered,
    to: &Node<(K, Side<L, R>)>,
) -> Node<Side<(K, L), (K, R)>> {
    let late = Node::new();
    let by_key = |late: &Side<(K, L), (K, R)>| {
        Some(match late.clone() {
            Side::Left((key, left)) => (key, Side::Left(left)),
            Side::Right((key, right)) => (key, Side::Right(right)),
        })
    };
    mapped(&late, to, (stage, by_side), by_key);
    late
}

impl<K: PipelineKey, T: Flows + Kept> Windows<K, T> {
    /// All pairs of one key in the same window, when it closes. Both sides are tumbling or hopping
    /// windows of the same size; a pair has the last moment of its window as time.
    ///
    /// An item that comes within `allow_late` meets those that are there at once; a later one is in
    /// [`late`](OnTime::late).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use annals_projections::pipeline::Keyed;
    /// # fn example(bids: Keyed<String, u64>, asks: Keyed<String, u64>) {
    /// let minute = Duration::from_mins(1);
    /// bids.tumbling(minute).join(&asks.tumbling(minute), |bid, ask| ask - bid);
    /// # }
    /// ```
    pub fn join<R: Flows + Kept, O: Flows>(
        &self,
        other: &Windows<K, R>,
        row: impl Fn(&T, &R) -> O + Send + Sync + 'static,
    ) -> OnTime<K, Windowed<O>, Side<T, R>> {
        let aligned = match (&self.by, &other.by) {
            (WindowsBy::Aligned(left), WindowsBy::Aligned(right)) if left == right => Some(*left),
            _ => None,
        };
        if aligned.is_none() || self.lateness != other.lateness {
            self.from.at.graph.wrong(
                "`join` of windows takes two tumbling or hopping windows of the same size, offset \
                 and lateness; for sessions and other times join the streams within bounds",
            );
        }
        let planned = self.planned.clone().with("join", 0);
        let at = self.from.at.then_both(&other.from.at, planned);
        let row = Arc::new(row);
        let stage = at.numbered();
        let lateness = self.lateness;
        OnTime::made(at.clone(), lateness, |to, late| {
            let late = late_sides(stage, &late);
            at.attach_both((&self.from.node, &other.from.node), move |making| {
                let Some(aligned) = aligned else {
                    // A pipeline with such a join is refused before it runs.
                    return Box::new(Sink::new(|_: &Batch<_>| ()));
                };
                let row = Arc::clone(&row);
                let windowed = move |(key, (window, (left, right))): &(K, (Window, (T, R)))| {
                    let row = Windowed {
                        window: *window,
                        value: row(left, right),
                        is_final: true,
                    };
                    (key.clone(), row)
                };
                let then = Each::map(windowed, to.port(making));
                let then = Box::new(then.on_panic(making.on_panic(stage, by_key)));
                let pair = |left: &T, right: &R| (left.clone(), right.clone());
                let join = WindowJoin::<K, T, R, (T, R)>::new(aligned, lateness, pair);
                making.stage_with_late(stage, join, (then, &late), (by_side, by_key))
            });
        })
    }
}
