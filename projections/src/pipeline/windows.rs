//! Windows of a key, and what comes too late for them.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use annals_streams::{
    Aligned, AlignedWindows, Count, Emission, Fold, Kept, Late, Operator, PlannedStage, Sessions,
    Sliding, Span, State, WindowOptions,
};

use super::graph::{Making, Node, Numbered, Port};
use super::keyed::{Keyed, PipelineKey};
use super::on_time::counted;
use super::panics::{by_key, by_window};
use super::results::{Results, WantedResults};
use super::stream::{Flows, Stream};

/// How items get their windows.
pub(crate) enum WindowsBy<T> {
    Aligned(Aligned),
    Sessions(Span),
    SessionsBy(Arc<dyn Fn(&T) -> Duration + Send + Sync>),
}

impl<T> Clone for WindowsBy<T> {
    fn clone(&self) -> WindowsBy<T> {
        match self {
            WindowsBy::Aligned(aligned) => WindowsBy::Aligned(*aligned),
            WindowsBy::Sessions(gap) => WindowsBy::Sessions(*gap),
            WindowsBy::SessionsBy(gap) => WindowsBy::SessionsBy(Arc::clone(gap)),
        }
    }
}

/// Items of a key in windows of event time, about to be folded.
pub struct Windows<K, T> {
    pub(super) from: Keyed<K, T>,
    pub(super) by: WindowsBy<T>,
    pub(super) lateness: Span,
    pub(super) planned: PlannedStage,
    late: Node<Late<K, T>>,
    /// Whether a fold of these windows says what is late.
    says_late: Arc<AtomicBool>,
}

impl<K, T> fmt::Debug for Windows<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Windows")
            .field("kind", &self.planned.kind())
            .finish_non_exhaustive()
    }
}

impl<K: PipelineKey, T: Flows> Windows<K, T> {
    pub(crate) fn new(
        from: &Keyed<K, T>,
        by: WindowsBy<T>,
        planned: PlannedStage,
    ) -> Windows<K, T> {
        Windows {
            from: from.clone(),
            by,
            lateness: Span::ZERO,
            planned,
            late: Node::new(),
            says_late: Arc::default(),
        }
    }

    /// A window that closed takes items for so long, and each corrects its result.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use annals_projections::pipeline::Keyed;
    /// # fn example(sales: Keyed<String, i64>) {
    /// let minute = Duration::from_mins(1);
    /// sales.tumbling(minute).allow_late(minute).count();
    /// # }
    /// ```
    #[must_use]
    pub fn allow_late(mut self, by: Duration) -> Windows<K, T> {
        self.lateness = self.from.at.graph.span("allow_late", by);
        self.planned = self.planned.with("late", self.lateness.micros());
        self
    }

    /// Windows begin so much after full ones since 1970.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use annals_projections::pipeline::Keyed;
    /// # fn example(sales: Keyed<String, i64>) {
    /// sales.tumbling(Duration::from_hours(24)).offset(Duration::from_hours(6)).count();
    /// # }
    /// ```
    #[must_use]
    pub fn offset(mut self, by: Duration) -> Windows<K, T> {
        let by = self.from.at.graph.span("offset", by);
        match self.by {
            WindowsBy::Aligned(aligned) => self.by = WindowsBy::Aligned(aligned.offset_by(by)),
            _ => self
                .from
                .at
                .graph
                .wrong("`offset` is about windows that begin at fixed times; leave it out"),
        }
        self.planned = self.planned.with("offset", by.micros());
        self
    }

    /// Items that came after a window had closed for good, with the windows that they missed. Also
    /// fold the windows: their fold decides what is late.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use annals_projections::pipeline::Keyed;
    /// # fn example(sales: Keyed<String, i64>) {
    /// let windows = sales.tumbling(Duration::from_mins(1));
    /// windows.count();
    /// windows.late().map(|late| late.missed.len());
    /// # }
    /// ```
    pub fn late(&self) -> Stream<Late<K, T>> {
        Stream {
            at: self.from.at.then(PlannedStage::new("late", "")),
            node: self.late.clone(),
            source: None,
        }
    }

    /// How many items each window has.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use annals_projections::pipeline::Keyed;
    /// # fn example(sales: Keyed<String, i64>) {
    /// sales.tumbling(Duration::from_mins(1)).count();
    /// # }
    /// ```
    pub fn count(&self) -> Results<K, u64> {
        self.folded::<Count>().map(|count| count.0)
    }

    /// What each window holds, folded.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use annals_projections::pipeline::{Keyed, Sum};
    /// # fn example(sales: Keyed<String, i64>) {
    /// sales.tumbling(Duration::from_mins(1)).folded::<Sum>();
    /// # }
    /// ```
    pub fn folded<A: Fold<T> + Flows>(&self) -> Results<K, A> {
        let by = self.by.clone();
        self.folded_by(move |options, made: Made<'_, K, T, A>| match &by {
            WindowsBy::Aligned(aligned) => {
                made.stage(AlignedWindows::<K, T, A>::new(*aligned, options))
            }
            WindowsBy::Sessions(gap) => made.stage(Sessions::<K, T, A>::new(*gap, options)),
            WindowsBy::SessionsBy(gap) => {
                let gap = Arc::clone(gap);
                let gap = move |item: &T| Span::from(gap(item));
                made.stage(Sessions::<K, T, A>::by_item(gap, options))
            }
        })
    }

    fn folded_by<A: Fold<T> + Flows>(
        &self,
        made: impl Fn(WindowOptions, Made<'_, K, T, A>) -> Port<(K, T)> + Send + Sync + 'static,
    ) -> Results<K, A> {
        let name = std::any::type_name::<A>();
        let name = name.rsplit("::").next().unwrap_or(name);
        let at = self.from.at.then(self.planned.clone().with(name, 0));
        let stage = at.numbered();
        let node: Node<Emission<K, A>> = Node::new();
        let to = node.clone();
        let wanted: WantedResults = Arc::default();
        let wants = Arc::clone(&wanted);
        let lateness = self.lateness;
        // Of several folds of the same windows one says what is late.
        let says_late = !self.says_late.swap(true, Ordering::Relaxed);
        let late = says_late.then(|| self.late.clone());
        self.from.node.attach(move |making: &mut Making| {
            let wants = wants.lock().unwrap_or_else(PoisonError::into_inner);
            let mut options = WindowOptions::on_close().allow_late(lateness);
            options.emit = wants.emit();
            let then = to.port(making);
            let missed = |late: &Late<K, T>| late.missed.len() as u64;
            let late = late.as_ref().map(|late| counted(making, late, missed));
            let parts = Made {
                making,
                stage,
                then,
                late,
            };
            made(options, parts)
        });
        let by_session = self.planned.kind().starts_with("sessions");
        Results::new(at, node, wanted, self.lateness).by_session(by_session)
    }
}

/// What a stage of windows is made with.
struct Made<'a, K, T, A> {
    making: &'a Making,
    stage: Numbered,
    then: Port<Emission<K, A>>,
    late: Option<Port<Late<K, T>>>,
}

impl<K: PipelineKey, T: Flows, A: Fold<T> + Flows> Made<'_, K, T, A> {
    fn stage<O>(self, operator: O) -> Port<(K, T)>
    where
        O: Operator<In = (K, T), Out = Emission<K, A>, Late = Late<K, T>> + State + Send + 'static,
    {
        let stage = self
            .making
            .stateful(self.stage, operator, self.then, by_key, by_window);
        match self.late {
            Some(late) => Box::new(stage.late(late)),
            None => Box::new(stage),
        }
    }
}

/// Windows of items that lie close to each other; their items are kept while they are open.
pub struct SlidingWindows<K, T> {
    windows: Windows<K, T>,
    back: Span,
}

impl<K, T> fmt::Debug for SlidingWindows<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlidingWindows")
            .field("back", &self.back)
            .finish_non_exhaustive()
    }
}

impl<K: PipelineKey, T: Flows + Kept> SlidingWindows<K, T> {
    pub(crate) fn new(from: &Keyed<K, T>, back: Span, planned: PlannedStage) -> Self {
        let windows = Windows::new(from, WindowsBy::Sessions(back), planned);
        SlidingWindows { windows, back }
    }

    /// As [`Windows::allow_late`].
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use annals_projections::pipeline::Keyed;
    /// # fn example(sales: Keyed<String, i64>) {
    /// let minute = Duration::from_mins(1);
    /// sales.sliding(minute).allow_late(minute).count();
    /// # }
    /// ```
    #[must_use]
    pub fn allow_late(mut self, by: Duration) -> SlidingWindows<K, T> {
        self.windows = self.windows.allow_late(by);
        self
    }

    /// As [`Windows::late`].
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use annals_projections::pipeline::Keyed;
    /// # fn example(sales: Keyed<String, i64>) {
    /// sales.sliding(Duration::from_mins(1)).late();
    /// # }
    /// ```
    pub fn late(&self) -> Stream<Late<K, T>> {
        self.windows.late()
    }

    /// As [`Windows::count`].
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use annals_projections::pipeline::Keyed;
    /// # fn example(sales: Keyed<String, i64>) {
    /// sales.sliding(Duration::from_mins(1)).count();
    /// # }
    /// ```
    pub fn count(&self) -> Results<K, u64> {
        self.folded::<Count>().map(|count| count.0)
    }

    /// As [`Windows::folded`].
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use annals_projections::pipeline::{Keyed, Sum};
    /// # fn example(sales: Keyed<String, i64>) {
    /// sales.sliding(Duration::from_mins(1)).folded::<Sum>();
    /// # }
    /// ```
    pub fn folded<A: Fold<T> + Flows>(&self) -> Results<K, A> {
        let back = self.back;
        self.windows
            .folded_by(move |options, made| made.stage(Sliding::<K, T, A>::new(back, options)))
    }
}
