//! Streams by a key.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use annals_streams::{Aligned, ConfigError, Each, Kept, PlannedStage, Span};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::divide::StreamOf;
use super::graph::{At, Node, Numbered};
use super::output::{declare, into_view};
use super::panics::{NameOf, by_key};
use super::stream::{Flows, Stream, attach_each};
use super::windows::{SlidingWindows, Windows, WindowsBy};
use crate::key::ViewKey;
use crate::view::View;

/// What a stream may be keyed by: a key of rows that can also be kept as state.
///
/// ```
/// fn keyed_by<K: annals_projections::pipeline::PipelineKey>(_: K) {}
/// keyed_by(("Berlin".to_string(), 7_u64));
/// ```
pub trait PipelineKey: ViewKey + Ord + Hash + Serialize + DeserializeOwned {}

impl<K: ViewKey + Ord + Hash + Serialize + DeserializeOwned> PipelineKey for K {}

/// Items by a key, in the order of the log.
///
/// A handle: using it twice branches the stream.
pub struct Keyed<K, T> {
    pub(crate) at: At,
    pub(crate) node: Node<(K, T)>,
    /// Right after `key_by`: the streams of the log that keys are in.
    pub(super) stream: Option<StreamOf<(K, T)>>,
}

impl<K, T> Clone for Keyed<K, T> {
    fn clone(&self) -> Keyed<K, T> {
        Keyed {
            at: self.at.clone(),
            node: self.node.clone(),
            stream: self.stream.clone(),
        }
    }
}

impl<K, T> Keyed<K, T> {
    pub(super) fn of(at: At, node: Node<(K, T)>) -> Keyed<K, T> {
        Keyed {
            at,
            node,
            stream: None,
        }
    }
}

impl<K, T> fmt::Debug for Keyed<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyed")
            .field("stage", &self.at.stage)
            .finish_non_exhaustive()
    }
}

impl<K: PipelineKey, T: Flows> Keyed<K, T> {
    /// All events of a key are in this stream of the log, or in others of its partition. It is
    /// asked where each partition has a slot of its own
    /// ([`by_partition`](super::Pipeline::by_partition)), and compared with the partition that each
    /// event came from; unless it is said, the stream is called as the key.
    ///
    /// ```
    /// # use annals_projections::pipeline::Stream;
    /// # fn example(deposits: Stream<(String, i64)>) {
    /// let owners = deposits.key_by(|(owner, _)| owner.clone());
    /// owners.partitioned_by(|owner| format!("account-{owner}"));
    /// # }
    /// ```
    #[allow(clippy::must_use_candidate, reason = "it is told to the pipeline")]
    pub fn partitioned_by(
        &self,
        stream: impl Fn(&K) -> String + Send + Sync + 'static,
    ) -> Keyed<K, T> {
        match &self.stream {
            Some(of) => of.set(move |(key, _)| stream(key)),
            None => self.at.graph.wrong(
                "`partitioned_by` is about the keys of the log; call it right after `key_by`",
            ),
        }
        self.clone()
    }

    fn each<U: Flows>(
        &self,
        kind: &'static str,
        each: impl Fn(&K, &T) -> Option<U> + Send + Sync + 'static,
    ) -> Keyed<K, U> {
        let node = Node::new();
        let at = self.at.then(PlannedStage::new(kind, ""));
        let of = (at.numbered(), by_key::<K, T> as _);
        attach_each(&self.node, &node, of, move |(key, item): &(K, T), emit| {
            if let Some(item) = each(key, item) {
                emit((key.clone(), item));
            }
        });
        Keyed::of(at, node)
    }

    /// One item for each, with the same key.
    ///
    /// ```
    /// # use annals_projections::pipeline::Keyed;
    /// # fn example(sales: Keyed<String, i64>) {
    /// sales.map(|_, cents| cents / 100);
    /// # }
    /// ```
    pub fn map<U: Flows>(&self, map: impl Fn(&K, &T) -> U + Send + Sync + 'static) -> Keyed<K, U> {
        self.each("map", move |key, item| Some(map(key, item)))
    }

    /// Only the items for which this holds.
    ///
    /// ```
    /// # use annals_projections::pipeline::Keyed;
    /// # fn example(sales: Keyed<String, i64>) {
    /// sales.filter(|cents| *cents > 100_000);
    /// # }
    /// ```
    pub fn filter(&self, keep: impl Fn(&T) -> bool + Send + Sync + 'static) -> Keyed<K, T> {
        self.each("filter", move |_, item| keep(item).then(|| item.clone()))
    }

    /// One item or none for each, with the same key.
    ///
    /// ```
    /// # use annals_projections::pipeline::Keyed;
    /// # fn example(sales: Keyed<String, Option<i64>>) {
    /// sales.filter_map(|_, cents| *cents);
    /// # }
    /// ```
    pub fn filter_map<U: Flows>(
        &self,
        map: impl Fn(&K, &T) -> Option<U> + Send + Sync + 'static,
    ) -> Keyed<K, U> {
        self.each("filter_map", map)
    }

    /// This stream and another one of the same key, in the order of the log.
    ///
    /// ```
    /// # use annals_projections::pipeline::Keyed;
    /// # fn example(one: Keyed<String, i64>, other: Keyed<String, i64>) {
    /// one.merge(&other);
    /// # }
    /// ```
    pub fn merge(&self, other: &Keyed<K, T>) -> Keyed<K, T> {
        let (at, node) = self.at.merged(&self.node, (&other.at, &other.node));
        Keyed::of(at, node)
    }

    /// The items without their keys.
    ///
    /// ```
    /// # use annals_projections::pipeline::Keyed;
    /// # fn example(sales: Keyed<String, i64>) {
    /// sales.unkeyed();
    /// # }
    /// ```
    pub fn unkeyed(&self) -> Stream<T> {
        let node = Node::new();
        let at = self.at.then(PlannedStage::new("unkeyed", ""));
        let of = (at.numbered(), by_key::<K, T> as _);
        attach_each(&self.node, &node, of, |(_, item): &(K, T), emit| {
            emit(item.clone());
        });
        Stream {
            at,
            node,
            source: None,
        }
    }

    fn aligned(
        &self,
        aligned: Result<Aligned, ConfigError>,
        planned: PlannedStage,
    ) -> Windows<K, T> {
        let by = match aligned {
            Ok(aligned) => WindowsBy::Aligned(aligned),
            Err(error) => {
                self.at.graph.wrong(error.to_string());
                WindowsBy::Sessions(Span::ZERO)
            }
        };
        Windows::new(self, by, planned)
    }

    /// Windows of one length, one after the other.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use annals_projections::pipeline::Keyed;
    /// # fn example(sales: Keyed<String, i64>) {
    /// sales.tumbling(Duration::from_mins(1)).count();
    /// # }
    /// ```
    pub fn tumbling(&self, size: Duration) -> Windows<K, T> {
        let size = self.at.graph.span("tumbling", size);
        let planned = PlannedStage::new("tumbling", "").with("size", size.micros());
        self.aligned(Aligned::tumbling(size), planned)
    }

    /// Windows of one length, of which one begins `every` so often. On close an item costs the same
    /// however many windows it is in, and a window costs size / every for each key.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use annals_projections::pipeline::Keyed;
    /// # fn example(sales: Keyed<String, i64>) {
    /// sales.hopping(Duration::from_mins(5), Duration::from_mins(1)).count();
    /// # }
    /// ```
    pub fn hopping(&self, size: Duration, every: Duration) -> Windows<K, T> {
        let size = self.at.graph.span("hopping", size);
        let every = self.at.graph.span("hopping", every);
        let planned = PlannedStage::new("hopping", "")
            .with("size", size.micros())
            .with("every", every.micros());
        self.aligned(Aligned::hopping(size, every), planned)
    }

    /// For each different set of items that lie at most `back` apart a window; both ends belong to
    /// it.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use annals_projections::pipeline::Keyed;
    /// # fn example(sales: Keyed<String, i64>) {
    /// sales.sliding(Duration::from_mins(5)).count();
    /// # }
    /// ```
    pub fn sliding(&self, back: Duration) -> SlidingWindows<K, T>
    where
        T: Kept,
    {
        let back = self.at.graph.span("sliding", back);
        let planned = PlannedStage::new("sliding", "").with("back", back.micros());
        SlidingWindows::new(self, back, planned)
    }

    /// Items that follow each other within a gap, however long that goes on. A session is named by
    /// its first and last item.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use annals_projections::pipeline::Keyed;
    /// # fn example(clicks: Keyed<String, i64>) {
    /// clicks.sessions(Duration::from_mins(30)).count();
    /// # }
    /// ```
    pub fn sessions(&self, gap: Duration) -> Windows<K, T> {
        let gap = self.at.graph.span("sessions", gap);
        let planned = PlannedStage::new("sessions", "").with("gap", gap.micros());
        Windows::new(self, WindowsBy::Sessions(gap), planned)
    }

    /// Sessions whose gap each item decides; the furthest end counts.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use annals_projections::pipeline::Keyed;
    /// # fn example(clicks: Keyed<String, u64>) {
    /// clicks.sessions_by(|minutes| Duration::from_mins(*minutes)).count();
    /// # }
    /// ```
    pub fn sessions_by(
        &self,
        gap: impl Fn(&T) -> Duration + Send + Sync + 'static,
    ) -> Windows<K, T> {
        let planned = PlannedStage::new("sessions_by", "");
        Windows::new(self, WindowsBy::SessionsBy(Arc::new(gap)), planned)
    }

    /// Writes a row for each item; a later one of the same key replaces it.
    ///
    /// ```
    /// # use annals_projections::View;
    /// # use annals_projections::pipeline::Keyed;
    /// # fn example<Last: View<Key = String> + Clone>(lasts: Keyed<u64, Last>) {
    /// lasts.into_view_with(|user, last| (user.to_string(), last.clone()));
    /// # }
    /// ```
    pub fn into_view_with<V: View>(
        &self,
        row: impl Fn(&K, &T) -> (V::Key, V) + Send + Sync + 'static,
    ) {
        declare::<V>(&self.at);
        let at = self.at.then(PlannedStage::new("into_view", V::NAME));
        let of = at.numbered();
        let row = Arc::new(row);
        self.node.attach(move |making| {
            let row = Arc::clone(&row);
            into_view::<_, V>(
                making,
                (of, by_key::<K, T> as _),
                move |(key, item): &(K, T)| {
                    let (key, value) = row(key, item);
                    Some((key, Some(value)))
                },
            )
        });
    }
}

impl<K: PipelineKey, V: View<Key = K> + Flows> Keyed<K, V> {
    /// Writes each item as the row of its key; a later one replaces it.
    ///
    /// ```
    /// # use annals_projections::View;
    /// # use annals_projections::pipeline::Keyed;
    /// # fn example<Last: View<Key = u64> + Clone>(lasts: Keyed<u64, Last>) {
    /// lasts.into_view();
    /// # }
    /// ```
    pub fn into_view(&self) {
        self.into_view_with(|key, row: &V| (key.clone(), row.clone()));
    }
}

/// Kept for stages that only change what an item is.
pub(crate) fn mapped<T: Send + 'static, U: Send + 'static>(
    from: &Node<T>,
    to: &Node<U>,
    (of, name): (Numbered, NameOf<T>),
    map: impl Fn(&T) -> Option<U> + Send + Sync + 'static,
) {
    let to = to.clone();
    let map = Arc::new(map);
    from.attach(move |making| {
        let map = Arc::clone(&map);
        let each = Each::filter_map(move |item: &T| map(item), to.port(making));
        Box::new(each.on_panic(making.on_panic(of, name)))
    });
}
