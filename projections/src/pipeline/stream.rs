//! Streams without a key, and where they begin.

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annals_core::{Event, Recorded};
use annals_streams::{Each, PlannedStage, Row, Span, Time};

use super::divide::{StreamOf, divide};
use super::graph::{At, Graph, Node, Numbered};
use super::keyed::{Keyed, PipelineKey};
use super::panics::{NameOf, nameless};
use super::source::{EventSource, Settings};

/// What may flow from stage to stage.
///
/// ```
/// fn flows<T: annals_projections::pipeline::Flows>(_: T) {}
/// flows(("tea".to_string(), 3));
/// ```
pub trait Flows: Clone + Send + Sync + 'static {}

impl<T: Clone + Send + Sync + 'static> Flows for T {}

/// The log, as a pipeline sees it.
pub struct Log {
    pub(crate) graph: Graph,
}

impl Log {
    /// Events of a type, at the time at which they occurred.
    ///
    /// ```
    /// # use annals_core::Event;
    /// # use annals_projections::pipeline::Pipeline;
    /// # fn example<Paid: Event + Clone>() -> Pipeline {
    /// Pipeline::new("payments", 1, |log| {
    ///     log.events::<Paid>();
    /// })
    /// # }
    /// ```
    pub fn events<E: Event + Clone>(&self) -> Stream<Recorded<E>> {
        let stage = self.graph.stage(PlannedStage::new("events", E::CATEGORY));
        let node = Node::new();
        let source = Arc::new(EventSource::<E> {
            node: node.clone(),
            settings: Mutex::default(),
        });
        let number = self.graph.source(Arc::clone(&source) as _);
        let at = At {
            graph: self.graph.clone(),
            stage,
            divided: false,
            sources: Arc::new([number]),
            lag: Span::ZERO,
        };
        Stream {
            at,
            node,
            source: Some(Configure::of(source)),
        }
    }
}

/// Changes what a source says about time, its type known only where it is made.
pub(crate) struct Configure<T> {
    change: Arc<dyn Fn(Change<T>) + Send + Sync>,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for Configure<T> {
    fn clone(&self) -> Configure<T> {
        Configure {
            change: Arc::clone(&self.change),
            of: PhantomData,
        }
    }
}

pub(crate) enum Change<T> {
    Delay(Span),
    AtMostAhead(Span),
    OwnClock,
    DeadLetters,
    TimedBy(Arc<dyn Fn(&T) -> Time + Send + Sync>),
}

impl<E: Event> Configure<Recorded<E>> {
    fn of(source: Arc<EventSource<E>>) -> Configure<Recorded<E>> {
        let change = move |change| {
            let settings: &mut Settings<E> = &mut source
                .settings
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            match change {
                Change::Delay(delay) => settings.delay = delay,
                Change::AtMostAhead(ahead) => settings.at_most_ahead = Some(ahead),
                Change::OwnClock => settings.own_clock = true,
                Change::DeadLetters => settings.dead_letters = true,
                Change::TimedBy(time) => settings.timed_by = Some(time),
            }
        };
        Configure {
            change: Arc::new(change),
            of: PhantomData,
        }
    }
}

/// Items in the order of the log, each with its time.
///
/// A handle: using it twice branches the stream.
pub struct Stream<T> {
    pub(crate) at: At,
    pub(crate) node: Node<T>,
    pub(crate) source: Option<Configure<T>>,
}

impl<T> Clone for Stream<T> {
    fn clone(&self) -> Stream<T> {
        Stream {
            at: self.at.clone(),
            node: self.node.clone(),
            source: self.source.clone(),
        }
    }
}

impl<T> fmt::Debug for Stream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("stage", &self.at.stage)
            .finish_non_exhaustive()
    }
}

impl<T: Flows> Stream<T> {
    fn configured(&self, what: &'static str, change: Change<T>) -> Stream<T> {
        match &self.source {
            Some(source) => (source.change)(change),
            None => self.at.graph.wrong(format!(
                "`{what}` is about the events of the log; call it right after `events`"
            )),
        }
        self.clone()
    }

    /// Events may come up to `delay` of event time after later ones and still be on time. Without
    /// it the order of the log is the order of time.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use annals_projections::pipeline::{Flows, Stream};
    /// # fn example<T: Flows>(paid: Stream<T>) {
    /// paid.out_of_order_by(Duration::from_secs(5));
    /// # }
    /// ```
    pub fn out_of_order_by(&self, delay: Duration) -> Stream<T> {
        let delay = self.at.graph.span("out_of_order_by", delay);
        self.configured("out_of_order_by", Change::Delay(delay))
    }

    /// The time of an event is not when it was said to have occurred, but this.
    ///
    /// ```
    /// # use annals_projections::pipeline::{Flows, Stream, Time};
    /// # fn example(readings: Stream<i64>) {
    /// readings.timed_by(|micros| Time::from_micros(*micros));
    /// # }
    /// ```
    pub fn timed_by(&self, time: impl Fn(&T) -> Time + Send + Sync + 'static) -> Stream<T> {
        self.configured("timed_by", Change::TimedBy(Arc::new(time)))
    }

    /// An event whose time is further than this after it was recorded is skipped and becomes a
    /// dead letter: without it one wrong clock closes all windows.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use annals_projections::pipeline::{Flows, Stream};
    /// # fn example<T: Flows>(paid: Stream<T>) {
    /// paid.at_most_ahead(Duration::from_secs(60));
    /// # }
    /// ```
    pub fn at_most_ahead(&self, ahead: Duration) -> Stream<T> {
        let ahead = self.at.graph.span("at_most_ahead", ahead);
        self.configured("at_most_ahead", Change::AtMostAhead(ahead))
    }

    /// Its time has nothing to do with that of the other events of the log: where they meet, the
    /// slower of the two counts.
    ///
    /// ```
    /// # use annals_projections::pipeline::{Flows, Stream};
    /// # fn example<T: Flows>(appointments: Stream<T>) {
    /// appointments.own_clock();
    /// # }
    /// ```
    pub fn own_clock(&self) -> Stream<T> {
        self.configured("own_clock", Change::OwnClock)
    }

    /// Events that cannot be decoded become dead letters, and the pipeline goes on. Without it the
    /// first one stops the pipeline until it is skipped or its type is mended.
    ///
    /// ```
    /// # use annals_projections::pipeline::{Flows, Stream};
    /// # fn example<T: Flows>(paid: Stream<T>) {
    /// paid.dead_letters();
    /// # }
    /// ```
    pub fn dead_letters(&self) -> Stream<T> {
        self.configured("dead_letters", Change::DeadLetters)
    }

    fn each<U: Flows>(
        &self,
        kind: &'static str,
        each: impl Fn(&T, &mut dyn FnMut(U)) + Send + Sync + 'static,
    ) -> Stream<U> {
        let node = Node::new();
        let at = self.at.then(PlannedStage::new(kind, ""));
        attach_each(&self.node, &node, (at.numbered(), nameless), each);
        Stream {
            at,
            node,
            source: None,
        }
    }

    /// Only the items for which this holds.
    ///
    /// ```
    /// # use annals_projections::pipeline::Stream;
    /// # fn example(amounts: Stream<i64>) {
    /// amounts.filter(|cents| *cents > 100_000);
    /// # }
    /// ```
    pub fn filter(&self, keep: impl Fn(&T) -> bool + Send + Sync + 'static) -> Stream<T> {
        self.each("filter", move |item, emit| {
            if keep(item) {
                emit(item.clone());
            }
        })
    }

    /// One item for each.
    ///
    /// ```
    /// # use annals_projections::pipeline::Stream;
    /// # fn example(amounts: Stream<i64>) {
    /// amounts.map(|cents| cents / 100);
    /// # }
    /// ```
    pub fn map<U: Flows>(&self, map: impl Fn(&T) -> U + Send + Sync + 'static) -> Stream<U> {
        self.each("map", move |item, emit| emit(map(item)))
    }

    /// One item or none for each.
    ///
    /// ```
    /// # use annals_projections::pipeline::Stream;
    /// # fn example(amounts: Stream<Option<i64>>) {
    /// amounts.filter_map(|cents| *cents);
    /// # }
    /// ```
    pub fn filter_map<U: Flows>(
        &self,
        map: impl Fn(&T) -> Option<U> + Send + Sync + 'static,
    ) -> Stream<U> {
        self.each("filter_map", move |item, emit| {
            if let Some(item) = map(item) {
                emit(item);
            }
        })
    }

    /// Any number of items for each, all at its time.
    ///
    /// ```
    /// # use annals_projections::pipeline::Stream;
    /// # fn example(lines: Stream<Vec<String>>) {
    /// lines.flat_map(|words| words.clone());
    /// # }
    /// ```
    pub fn flat_map<I>(&self, map: impl Fn(&T) -> I + Send + Sync + 'static) -> Stream<I::Item>
    where
        I: IntoIterator,
        I::Item: Flows,
    {
        self.each("flat_map", move |item, emit| {
            map(item).into_iter().for_each(emit);
        })
    }

    /// One item for each that can be made; for one that cannot its event becomes a dead letter with
    /// the reason, and the pipeline goes on.
    ///
    /// ```
    /// # use annals_projections::pipeline::Stream;
    /// # fn example(texts: Stream<String>) {
    /// texts.try_map(|text| text.parse::<i64>());
    /// # }
    /// ```
    pub fn try_map<U: Flows, F: fmt::Display>(
        &self,
        map: impl Fn(&T) -> Result<U, F> + Send + Sync + 'static,
    ) -> Stream<U> {
        let at = self.at.then(PlannedStage::new("try_map", ""));
        let node = Node::new();
        let to: Node<U> = node.clone();
        let of = at.numbered();
        let map = Arc::new(map);
        self.node.attach(move |making| {
            let map = Arc::clone(&map);
            let failed = making.on_error(of, nameless);
            let each = move |row: &Row<T>| match map(&row.item) {
                Ok(item) => Some((row.time, item)),
                Err(error) => {
                    failed(row, error.to_string());
                    None
                }
            };
            let each = Each::retimed(each, to.port(making));
            Box::new(each.on_panic(making.on_panic(of, nameless)))
        });
        Stream {
            at,
            node,
            source: None,
        }
    }

    /// This stream and another one, in the order of the log.
    ///
    /// ```
    /// # use annals_projections::pipeline::Stream;
    /// # fn example(one: Stream<i64>, other: Stream<i64>) {
    /// one.merge(&other);
    /// # }
    /// ```
    pub fn merge(&self, other: &Stream<T>) -> Stream<T> {
        let (at, node) = self.at.merged(&self.node, (&other.at, &other.node));
        Stream {
            at,
            node,
            source: None,
        }
    }

    /// By a key: what follows works on each key by itself.
    ///
    /// ```
    /// # use annals_projections::pipeline::Stream;
    /// # fn example(sales: Stream<(String, i64)>) {
    /// sales.key_by(|(product, _)| product.clone());
    /// # }
    /// ```
    pub fn key_by<K: PipelineKey>(
        &self,
        key: impl Fn(&T) -> K + Send + Sync + 'static,
    ) -> Keyed<K, T> {
        let at = self.at.then(PlannedStage::new("key_by", ""));
        self.at.graph.keyed_by::<K>();
        let with_key = move |item: &T| (key(item), item.clone());
        if !self.at.divided {
            let text = |(key, _): &(K, T)| key.to_key();
            let stream = StreamOf::own_text();
            let from = (&self.node, nameless as _);
            let node = divide(&at, from, with_key, text, stream.clone());
            let at = At {
                divided: true,
                ..at
            };
            let stream = Some(stream);
            return Keyed { at, node, stream };
        }
        self.at.graph.needs_one_slot("key_by");
        let node: Node<(K, T)> = Node::new();
        let to = node.clone();
        let of = at.numbered();
        let with_key = Arc::new(with_key);
        self.node.attach(move |making| {
            let with_key = Arc::clone(&with_key);
            let each = Each::map(move |item: &T| with_key(item), to.port(making));
            Box::new(each.on_panic(making.on_panic(of, nameless)))
        });
        Keyed::of(at, node)
    }
}

impl<E: Event + Clone> Stream<Recorded<E>> {
    /// By the stream that each event is in. Where each partition of the log has a slot of its own
    /// ([`by_partition`](super::Pipeline::by_partition)), this is the key that always goes.
    ///
    /// ```
    /// # use annals_core::{Event, Recorded};
    /// # use annals_projections::pipeline::Stream;
    /// # fn example<Paid: Event + Clone>(paid: Stream<Recorded<Paid>>) {
    /// paid.key_by_stream();
    /// # }
    /// ```
    pub fn key_by_stream(&self) -> Keyed<String, Recorded<E>> {
        self.key_by(|event| event.record.stream.to_string())
    }
}

/// A stage without state between two nodes.
pub(crate) fn attach_each<T: Send + 'static, U: Send + 'static>(
    from: &Node<T>,
    to: &Node<U>,
    (of, name): (Numbered, NameOf<T>),
    each: impl Fn(&T, &mut dyn FnMut(U)) + Send + Sync + 'static,
) {
    let to = to.clone();
    let each = Arc::new(each);
    from.attach(move |making| {
        let each = Arc::clone(&each);
        let each = move |item: &T, emit: &mut dyn FnMut(U)| each(item, emit);
        let each = Each::flat(each, to.port(making));
        Box::new(each.on_panic(making.on_panic(of, name)))
    });
}
