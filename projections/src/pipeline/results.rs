//! Results of windows: when they come, what is made of them, and where they are written.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annals_streams::{
    AsSoonAs, AtMostEvery, Each, Emission, Emit, Kept, Kind, PlannedStage, Row, Span, Time,
    TopOfWindow, Window,
};
use serde::{Deserialize, Serialize};

use super::graph::{At, Node};
use super::keyed::{Keyed, PipelineKey, mapped};
use super::output::{declare, into_view};
use super::panics::{by_key, by_window};
use super::stream::Flows;
use super::window_key::OfWindow;
use crate::view::View;

/// What those who follow a fold want of it; the fold emits all of that.
#[derive(Debug, Default)]
pub(crate) struct Wants {
    updates: bool,
    closes: bool,
}

impl Wants {
    pub(crate) fn emit(&self) -> Emit {
        match (self.updates, self.closes) {
            (true, true) => Emit::OnUpdateAndClose,
            (true, false) => Emit::OnUpdate,
            (false, _) => Emit::OnClose,
        }
    }
}

pub(crate) type WantedResults = Arc<Mutex<Wants>>;

/// A result of a window, and whether the window has closed.
///
/// ```
/// use annals_projections::pipeline::{Time, Windowed, window_at};
///
/// let window = window_at(Time::from_micros(0));
/// let result = Windowed { window, value: 3, is_final: true };
/// assert!(result.is_final);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::exhaustive_structs)]
pub struct Windowed<A> {
    /// The window.
    pub window: Window,
    /// What it holds.
    pub value: A,
    /// Whether it has closed.
    pub is_final: bool,
}

/// Results of windows by key.
///
/// Without more each comes when its window closes: when the clock of the log has passed its end.
/// Late items within [`allow_late`](super::Windows::allow_late) correct it.
pub struct Results<K, A> {
    at: At,
    node: Node<Emission<K, A>>,
    wanted: WantedResults,
    lateness: Span,
    pass: Pass,
    /// Whether the windows are sessions, which keys do not have in common.
    by_session: bool,
}

/// Which results a handle gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    OnClose,
    OnUpdate,
    /// What comes was chosen before.
    All,
}

impl Pass {
    fn lets(self, kind: Kind) -> bool {
        match kind {
            Kind::Update => self != Pass::OnClose,
            Kind::Final => self != Pass::OnUpdate,
            Kind::Correction | Kind::Retraction => true,
        }
    }
}

impl<K, A> Clone for Results<K, A> {
    fn clone(&self) -> Results<K, A> {
        Results {
            at: self.at.clone(),
            node: self.node.clone(),
            wanted: Arc::clone(&self.wanted),
            lateness: self.lateness,
            pass: self.pass,
            by_session: self.by_session,
        }
    }
}

impl<K, A> fmt::Debug for Results<K, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Results")
            .field("stage", &self.at.stage)
            .field("pass", &self.pass)
            .finish_non_exhaustive()
    }
}

impl<K: PipelineKey, A: Flows> Results<K, A> {
    pub(crate) fn new(
        at: At,
        node: Node<Emission<K, A>>,
        wanted: WantedResults,
        lateness: Span,
    ) -> Results<K, A> {
        Results {
            at,
            node,
            wanted,
            lateness,
            pass: Pass::OnClose,
            by_session: false,
        }
    }

    /// Of sessions.
    pub(crate) fn by_session(self, by_session: bool) -> Results<K, A> {
        Results { by_session, ..self }
    }

    /// Every change of a window, and not only its end. With a view that keeps its past that is a
    /// version for each item and window: the dearest thing there is; see
    /// [`at_most_every`](Results::at_most_every).
    ///
    /// ```
    /// # use annals_projections::pipeline::Results;
    /// # fn example(counts: Results<String, u64>) {
    /// counts.on_update();
    /// # }
    /// ```
    #[must_use]
    pub fn on_update(mut self) -> Results<K, A> {
        self.pass = Pass::OnUpdate;
        self.at = self.at.then(PlannedStage::new("on_update", ""));
        self
    }

    /// The fold emits at least what this lets through.
    fn want(&self, pass: Pass) -> Pass {
        let mut wants = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        wants.updates |= pass != Pass::OnClose;
        wants.closes |= pass != Pass::OnUpdate;
        pass
    }

    /// The emissions that a handle gives.
    fn emissions(&self, pass: Pass) -> Node<Emission<K, A>> {
        let pass = self.want(pass);
        let node = Node::new();
        let of = (self.at.numbered(), by_window as _);
        mapped(&self.node, &node, of, move |emission: &Emission<K, A>| {
            pass.lets(emission.kind).then(|| emission.clone())
        });
        node
    }

    /// Results that were chosen already: no fold emits by what is wanted of them.
    fn chosen(at: At, node: Node<Emission<K, A>>, lateness: Span) -> Results<K, A> {
        Results {
            pass: Pass::All,
            ..Results::new(at, node, WantedResults::default(), lateness)
        }
    }

    /// Of the updates of a window at most one in so much event time, the newest; the last one is
    /// certain to come.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use annals_projections::pipeline::Results;
    /// # fn example(counts: Results<String, u64>) {
    /// counts.on_update().at_most_every(Duration::from_secs(1));
    /// # }
    /// ```
    #[must_use]
    pub fn at_most_every(self, wait: Duration) -> Results<K, A>
    where
        A: Kept,
    {
        type Held<A> = (Time, Kind, Time, Option<A>);
        type Item<K, A> = ((Window, K), Option<Held<A>>);
        let wait = self.at.graph.span("at_most_every", wait);
        let planned = PlannedStage::new("at_most_every", "").with("wait", wait.micros());
        let at = self.at.then(planned);
        let stage = at.numbered();
        let from = self.emissions(self.pass);
        let node: Node<Emission<K, A>> = Node::new();
        let to = node.clone();
        from.attach(move |making| {
            // The moment that a result is about is kept beside it: what thins out goes by when its
            // items happened.
            let back = |row: &Row<Item<K, A>>| {
                let ((window, key), held) = &row.item;
                let (last, kind, max_time, value) = held.clone()?;
                let item = Emission {
                    key: key.clone(),
                    window: *window,
                    kind,
                    value,
                    max_time,
                };
                Some((last, item))
            };
            let there = |row: &Row<Emission<K, A>>| {
                let of = &row.item;
                let held = (row.time, of.kind, of.max_time, of.value.clone());
                let item: Item<K, A> = ((of.window, of.key.clone()), Some(held));
                Some((of.max_time, item))
            };
            let then = Each::retimed(back, to.port(making));
            let every = AtMostEvery::<(Window, K), Held<A>>::new(wait);
            let every = making.stateful(stage, every, Box::new(then), by_key, by_key);
            Box::new(Each::retimed(there, Box::new(every)))
        });
        Results::chosen(at, node, self.lateness).by_session(self.by_session)
    }

    /// Something made of each result.
    ///
    /// ```
    /// # use annals_projections::pipeline::Results;
    /// # fn example(cents: Results<String, u64>) {
    /// cents.map(|cents| cents / 100);
    /// # }
    /// ```
    pub fn map<B: Flows>(&self, map: impl Fn(&A) -> B + Send + Sync + 'static) -> Results<K, B> {
        let node = Node::new();
        let at = self.at.then(PlannedStage::new("map", ""));
        let stage = (at.numbered(), by_window as _);
        mapped(&self.node, &node, stage, move |of: &Emission<K, A>| {
            Some(Emission {
                key: of.key.clone(),
                window: of.window,
                kind: of.kind,
                value: of.value.as_ref().map(&map),
                max_time: of.max_time,
            })
        });
        Results {
            at,
            node,
            wanted: Arc::clone(&self.wanted),
            lateness: self.lateness,
            pass: self.pass,
            by_session: self.by_session,
        }
    }

    /// A window once, as soon as this holds for what it holds so far. A session that merges with
    /// one that was given counts as given.
    ///
    /// ```
    /// # use annals_projections::pipeline::Results;
    /// # fn example(counts: Results<String, u64>) {
    /// counts.as_soon_as(|count| *count > 3);
    /// # }
    /// ```
    pub fn as_soon_as(
        &self,
        is: impl Fn(&A) -> bool + Send + Sync + 'static,
    ) -> Keyed<K, Windowed<A>> {
        let at = self.at.then(PlannedStage::new("as_soon_as", ""));
        let stage = at.numbered();
        let lateness = self.lateness;
        let updates = match self.pass {
            Pass::All => Pass::All,
            _ => Pass::OnUpdate,
        };
        let chosen = self.emissions(updates);
        let node = Node::new();
        let to = node.clone();
        let is = Arc::new(is);
        chosen.attach(move |making| {
            let is = Arc::clone(&is);
            let soon = AsSoonAs::<K, A>::new(lateness, move |value: &A| is(value));
            let then = Box::new(Each::filter_map(windowed, to.port(making)));
            Box::new(making.stateful(stage, soon, then, by_window, by_window))
        });
        // What corrects a window that closed has the time of that window.
        let at = at.lagging(self.lateness);
        Keyed::of(at, node)
    }

    /// Results as items: of windows that have closed, and their corrections.
    ///
    /// With [`allow_late`](super::Windows::allow_late) a window comes again with each correction,
    /// and what was before is not taken back; who adds items up counts such a window several
    /// times. Do without lateness where sums follow, or make a table of the windows, which holds
    /// the newest of each, and sum its rows with [`group_by`](super::Table::group_by). A session
    /// that became part of another one is not taken back either.
    ///
    /// ```
    /// # use annals_projections::pipeline::Results;
    /// # fn example(counts: Results<String, u64>) {
    /// counts.finals().map(|_, count| count.value);
    /// # }
    /// ```
    pub fn finals(&self) -> Keyed<K, Windowed<A>> {
        self.want(match self.pass {
            Pass::OnUpdate => Pass::All,
            pass => pass,
        });
        let node = Node::new();
        let at = self.at.then(PlannedStage::new("finals", ""));
        let stage = (at.numbered(), by_window as _);
        mapped(&self.node, &node, stage, |of: &Emission<K, A>| {
            windowed(of).filter(|(_, of)| of.is_final)
        });
        Keyed::of(at.lagging(self.lateness), node)
    }

    /// The results that the handle gives, as items.
    pub(crate) fn results(&self) -> Keyed<K, Windowed<A>> {
        let node = Node::new();
        let at = self.at.clone();
        let of = (at.numbered(), by_window as _);
        mapped(&self.emissions(self.pass), &node, of, windowed);
        Keyed::of(at, node)
    }

    /// Of each window the keys with the highest scores, highest first; of equal ones the lower key.
    /// Needs all keys in one slot. It is for windows that keys have in common: of sessions, which
    /// each key has for itself, and of no keys at all it is refused when the program starts.
    ///
    /// ```
    /// # use annals_projections::pipeline::Results;
    /// # fn example(counts: Results<String, u64>) {
    /// counts.on_update().top(10, |count| *count);
    /// # }
    /// ```
    pub fn top<S: Kept + Ord + Flows>(
        &self,
        count: usize,
        score: impl Fn(&A) -> S + Send + Sync + 'static,
    ) -> Results<(), Vec<(K, S)>> {
        self.best("top", count, false, score)
    }

    /// As [`top`](Results::top), with all that are level with the last.
    ///
    /// ```
    /// # use annals_projections::pipeline::Results;
    /// # fn example(counts: Results<String, u64>) {
    /// counts.top_with_ties(1, |count| *count);
    /// # }
    /// ```
    pub fn top_with_ties<S: Kept + Ord + Flows>(
        &self,
        count: usize,
        score: impl Fn(&A) -> S + Send + Sync + 'static,
    ) -> Results<(), Vec<(K, S)>> {
        self.best("top_with_ties", count, true, score)
    }

    fn best<S: Kept + Ord + Flows>(
        &self,
        kind: &'static str,
        count: usize,
        with_ties: bool,
        score: impl Fn(&A) -> S + Send + Sync + 'static,
    ) -> Results<(), Vec<(K, S)>> {
        self.at.graph.needs_one_slot(kind);
        if self.by_session {
            self.at.graph.wrong(format!(
                "`{kind}` compares keys within one window, and each key has sessions of its own; \
                 fold tumbling or hopping windows for it"
            ));
        }
        if count == 0 {
            self.at
                .graph
                .wrong(format!("`{kind}` of 0 keys is always empty; ask for one"));
        }
        let planned = PlannedStage::new(kind, "").with("count", count as i64);
        let at = self.at.then(planned);
        let stage = at.numbered();
        let lateness = self.lateness;
        let scores = self.emissions(self.pass);
        let node = Node::new();
        let to: Node<Emission<(), Vec<(K, S)>>> = node.clone();
        let score = Arc::new(score);
        scores.attach(move |making| {
            let score = Arc::clone(&score);
            let mut top = TopOfWindow::<K, S>::new(count, lateness);
            if with_ties {
                top = top.with_ties();
            }
            let then = to.port(making);
            let top = making.stateful(stage, top, then, by_window, by_window);
            let scored = move |of: &Emission<K, A>| Emission {
                key: of.key.clone(),
                window: of.window,
                kind: of.kind,
                value: of.value.as_ref().map(|value| score(value)),
                max_time: of.max_time,
            };
            let scored = Each::map(scored, Box::new(top));
            Box::new(scored.on_panic(making.on_panic(stage, by_window as _)))
        });
        Results::chosen(at, node, lateness)
    }

    fn write<V: View>(
        &self,
        key: impl Fn(Window, &K) -> V::Key + Send + Sync + Clone + 'static,
        row: impl Fn(&K, &Window, &A) -> V + Send + Sync + 'static,
    ) {
        declare::<V>(&self.at);
        let at = self.at.then(PlannedStage::new("into_view", V::NAME));
        let of = at.numbered();
        let pass = self.want(self.pass);
        let row = Arc::new(row);
        self.node.attach(move |making| {
            let row = Arc::clone(&row);
            let key = key.clone();
            into_view::<_, V>(making, (of, by_window as _), move |of: &Emission<K, A>| {
                if !pass.lets(of.kind) {
                    return None;
                }
                let value = of.value.as_ref();
                let value = value.map(|value| row(&of.key, &of.window, value));
                Some((key(of.window, &of.key), value))
            })
        });
    }

    /// Writes each result as a row that this makes of it, by window and key. A session that became
    /// part of another has no row any more.
    ///
    /// On close a row comes when its window closes: who waits with `at_least` for an event of their
    /// own knows that the pipeline has seen it, and not that its window has closed.
    ///
    /// ```
    /// # use annals_projections::View;
    /// # use annals_projections::pipeline::{Results, Window};
    /// # fn example<Board: View<Key = Window> + From<u64>>(sums: Results<(), u64>) {
    /// sums.into_view_as::<Board>(|_, _, sum| Board::from(*sum));
    /// # }
    /// ```
    pub fn into_view_as<V: View>(&self, row: impl Fn(&K, &Window, &A) -> V + Send + Sync + 'static)
    where
        V::Key: OfWindow<K>,
    {
        self.write::<V>(|window, key| V::Key::of_window(window, key), row);
    }
}

impl<K: PipelineKey, V: View + Flows> Results<K, V> {
    /// Writes each result as the row of its window and key; see
    /// [`into_view_as`](Results::into_view_as).
    ///
    /// ```
    /// # use annals_projections::View;
    /// # use annals_projections::pipeline::{Results, Window};
    /// # fn example<Sales: View<Key = (Window, String)> + Clone>(sales: Results<String, Sales>) {
    /// sales.into_view();
    /// # }
    /// ```
    pub fn into_view(&self)
    where
        V::Key: OfWindow<K>,
    {
        self.into_view_as::<V>(|_, _, row| row.clone());
    }

    /// The same for rows that are read by key first. Costs two to three times as much on SQLite,
    /// because almost every row touches another page of the file.
    ///
    /// ```
    /// # use annals_projections::View;
    /// # use annals_projections::pipeline::{Results, Window};
    /// # fn example<Visit: View<Key = (String, Window)> + Clone>(visits: Results<String, Visit>) {
    /// visits.into_view_by_key();
    /// # }
    /// ```
    pub fn into_view_by_key(&self)
    where
        V: View<Key = (K, Window)>,
    {
        self.write::<V>(|window, key| (key.clone(), window), |_, _, row| row.clone());
    }
}

fn windowed<K: Clone, A: Clone>(of: &Emission<K, A>) -> Option<(K, Windowed<A>)> {
    let value = of.value.clone()?;
    let windowed = Windowed {
        window: of.window,
        value,
        is_final: of.kind.is_final(),
    };
    Some((of.key.clone(), windowed))
}
