//! Events out: what a stream emits is appended to the log, each once.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};

use annals_core::{Append, Event, Limits, NewEvent, Outgoing, Outlet, StoreError, StreamId};
use annals_runner::slot_of;
use annals_streams::{Batch, PlannedStage, Row, Sink};

use super::graph::{At, Graph, Node, Port};
use super::keyed::{Keyed, PipelineKey};
use super::output::{EmittedEvent, Leaving};
use super::panics::{NameOf, by_key, nameless};
use super::results::{Results, Windowed};
use super::stream::{Flows, Stream};

/// What leaves a pipeline, as it was told.
#[derive(Clone)]
pub(crate) struct AppendSpec {
    /// The stored names of events that it appends.
    pub(crate) types: fn() -> Vec<&'static str>,
    /// The outlet that takes it, if it does not go into the log.
    pub(crate) outlet: Option<OpenOutlet>,
    pub(crate) from_the_beginning: bool,
}

/// Opens an outlet for each sender.
pub(crate) type OpenOutlet = Arc<dyn Fn() -> Result<Box<dyn Outlet>, StoreError> + Send + Sync>;

/// Events that a pipeline appends.
///
/// ```
/// # use annals_core::Event;
/// # use annals_projections::pipeline::Keyed;
/// # fn example<Alert: Event + Clone>(alerts: Keyed<String, Alert>) {
/// let appended = alerts.append(|user, alert| (format!("alert-{user}"), alert.clone()));
/// appended.from_the_beginning();
/// # }
/// ```
pub struct Appended {
    graph: Graph,
    number: usize,
}

impl Appended {
    /// Also what comes of events that were recorded before the pipeline was started for the first
    /// time. Without it those are the past, and nothing is sent for them.
    ///
    /// Of several in one pipeline all say it, or none.
    ///
    /// ```
    /// # use annals_core::Event;
    /// # use annals_projections::pipeline::Stream;
    /// # fn example<Alert: Event + Clone>(alerts: Stream<Alert>) {
    /// alerts.append(|alert| ("alerts-all", alert.clone())).from_the_beginning();
    /// # }
    /// ```
    #[allow(clippy::must_use_candidate, reason = "it is told to the pipeline")]
    pub fn from_the_beginning(self) -> Appended {
        if let Some(spec) = self.graph.lock().appends.get_mut(self.number) {
            spec.from_the_beginning = true;
        }
        self
    }
}

impl fmt::Debug for Appended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Appended")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

/// What is made of an item: the key as rows have it, where it goes, and what leaves.
type Made = (Option<String>, String, Result<Leaving, String>);

/// The end of a stream in what leaves the pipeline.
fn leave<T: Send + 'static>(
    at: &At,
    (from, name): (&Node<T>, NameOf<T>),
    (planned, spec): (PlannedStage, AppendSpec),
    make: impl Fn(&T) -> Made + Send + Sync + 'static,
) -> Appended {
    let of = at.then(planned).numbered();
    let output = of.stage;
    let make = Arc::new(make);
    let is_divided = at.divided;
    from.attach(move |making| -> Port<T> {
        let make = Arc::clone(&make);
        let collected = Arc::clone(&making.collected);
        let on_panic = making.on_panic(of, name);
        let slot = making.slot;
        let slots = making.slots;
        let is_mine = move |to: &str| is_divided || slots == 1 || slot_of(to, slots) == slot;
        Box::new(Sink::new(move |batch: &Batch<T>| {
            let mut collected = collected.lock().unwrap_or_else(PoisonError::into_inner);
            for row in &batch.rows {
                let Row { when, time, item } = row;
                let made = catch_unwind(AssertUnwindSafe(|| make(item)));
                let (key, to, what) = match made {
                    Ok(made) => made,
                    Err(panic) => {
                        on_panic(row, panic);
                        continue;
                    }
                };
                // Where nothing is divided by key, each slot sees everything.
                if is_mine(&to) {
                    collected.events.push(EmittedEvent {
                        when: *when,
                        output,
                        time: *time,
                        what,
                        key: key.unwrap_or(to),
                    });
                }
            }
        }))
    });
    let mut draft = at.graph.lock();
    draft.appends.push(spec);
    Appended {
        graph: at.graph.clone(),
        number: draft.appends.len() - 1,
    }
}

/// The end of a stream in events of a type.
fn append<T: Send + 'static, E: Event>(
    at: &At,
    from: (&Node<T>, NameOf<T>),
    make: impl Fn(&T) -> (Option<String>, String, E) + Send + Sync + 'static,
) -> Appended {
    let spec = AppendSpec {
        types: || E::shapes().iter().map(|shape| shape.event_type).collect(),
        outlet: None,
        from_the_beginning: false,
    };
    let planned = PlannedStage::new("append", E::CATEGORY);
    leave(at, from, (planned, spec), move |item| {
        let (key, to, event) = make(item);
        let what = appendable(&to, &event);
        (key, to, what)
    })
}

/// An event as a store takes it, or why none ever will.
fn appendable<E: Event>(to: &str, event: &E) -> Result<Leaving, String> {
    let refused = |why: &dyn fmt::Display| {
        format!(
            "an event for the stream `{}` cannot be appended: {why}",
            to.escape_debug()
        )
    };
    let stream = StreamId::new(to).map_err(|error| refused(&error))?;
    let new = NewEvent::of(event).map_err(|error| refused(&annals_runner::chain(&error)))?;
    let append = Append::new(stream, [new]);
    append
        .check(&Limits::default())
        .map_err(|error| refused(&error))?;
    let appendable = append.events.into_iter().next();
    let (stream, new) = appendable.ok_or_else(|| refused(&"it is none"))?;
    Ok(Leaving::Append(stream, new))
}

impl<T: Flows> Stream<T> {
    /// Appends an event for each item, to a stream that this names.
    ///
    /// Each is appended once, whatever is killed when, in the order of the events that caused
    /// them, [caused by](annals_core::Metadata::caused_by) those, and happened at the time of the
    /// item. A rebuild appends nothing for what was appended before it, also when it decides
    /// otherwise. What can never be appended, such as one with an illegal name of a stream, and
    /// what the store refuses for good is a [dead record](super::PipelineHandle::dead_records) of
    /// the event that caused it, and holds no other back.
    ///
    /// ```
    /// # use annals_core::Event;
    /// # use annals_projections::pipeline::Stream;
    /// # fn example<Alert: Event + Clone>(alerts: Stream<Alert>) {
    /// alerts.append(|alert| ("alerts-all", alert.clone()));
    /// # }
    /// ```
    #[allow(clippy::must_use_candidate, reason = "it is told to the pipeline")]
    pub fn append<E: Event, S: Into<String>>(
        &self,
        event: impl Fn(&T) -> (S, E) + Send + Sync + 'static,
    ) -> Appended {
        append(&self.at, (&self.node, nameless), move |item: &T| {
            let (to, event) = event(item);
            (None, to.into(), event)
        })
    }
}

impl<K: PipelineKey, T: Flows> Keyed<K, T> {
    /// Appends an event for each item, to a stream that this names; see
    /// [`Stream::append`].
    ///
    /// ```
    /// # use annals_core::Event;
    /// # use annals_projections::pipeline::Keyed;
    /// # fn example<Alert: Event + Clone>(alerts: Keyed<String, Alert>) {
    /// alerts.append(|user, alert| (format!("alert-{user}"), alert.clone()));
    /// # }
    /// ```
    #[allow(clippy::must_use_candidate, reason = "it is told to the pipeline")]
    pub fn append<E: Event, S: Into<String>>(
        &self,
        event: impl Fn(&K, &T) -> (S, E) + Send + Sync + 'static,
    ) -> Appended {
        append(
            &self.at,
            (&self.node, by_key),
            move |(key, item): &(K, T)| {
                let (to, event) = event(key, item);
                (Some(key.to_key()), to.into(), event)
            },
        )
    }
}

impl<K: PipelineKey, T: Flows> Keyed<K, T> {
    /// Publishes a record for each item, through an outlet such as one of Kafka; it happened at
    /// the time of the item, whatever the record says. Kafka's outlet writes that in the header
    /// `ce_time`.
    ///
    /// What holds for [`append`](Stream::append) holds here: exactly once, because the outlet keeps
    /// with each batch how far the pipeline was sent, in the order of causes, none in a rebuild.
    /// The outlet is opened again whenever a sender begins, and shuts out an earlier one; no other
    /// pipeline, relay or sink may have the same. A record that it refuses is a dead record; where
    /// nothing is taken ([`OutletError::Destination`](annals_core::OutletError)) the sender stops,
    /// and tries again every few seconds.
    ///
    /// ```
    /// # use annals_core::{Outgoing, Outlet, StoreError};
    /// # use annals_projections::pipeline::Keyed;
    /// # fn open() -> Result<Box<dyn Outlet>, StoreError> { unimplemented!() }
    /// # fn example(alerts: Keyed<String, String>) {
    /// alerts.publish_to(open, |user, alert| Outgoing {
    ///     to: "alerts".into(),
    ///     key: user.clone().into(),
    ///     payload: Some(alert.clone().into()),
    ///     headers: Vec::new(),
    ///     occurred_at: Default::default(),
    /// });
    /// # }
    /// ```
    #[allow(clippy::must_use_candidate, reason = "it is told to the pipeline")]
    pub fn publish_to(
        &self,
        open: impl Fn() -> Result<Box<dyn Outlet>, StoreError> + Send + Sync + 'static,
        record: impl Fn(&K, &T) -> Outgoing + Send + Sync + 'static,
    ) -> Appended {
        let number = self.at.graph.lock().outlets().count() as u16;
        let spec = AppendSpec {
            types: Vec::new,
            outlet: Some(Arc::new(open)),
            from_the_beginning: false,
        };
        let planned = (PlannedStage::new("publish", ""), spec);
        leave(
            &self.at,
            (&self.node, by_key),
            planned,
            move |(key, item): &(K, T)| {
                let record = record(key, item);
                let to = record.to.to_string();
                (Some(key.to_key()), to, Ok(Leaving::Publish(number, record)))
            },
        )
    }
}

impl<K: PipelineKey, A: Flows> Results<K, A> {
    /// Appends an event for each result that comes: on close, or for every update. A correction is
    /// one more event; that a session became part of another causes none.
    ///
    /// See [`Stream::append`].
    ///
    /// ```
    /// # use annals_core::Event;
    /// # use annals_projections::pipeline::Results;
    /// # fn example<Closed: Event + From<u64>>(counts: Results<String, u64>) {
    /// counts.append(|user, count| (format!("minute-{user}"), Closed::from(count.value)));
    /// # }
    /// ```
    #[allow(clippy::must_use_candidate, reason = "it is told to the pipeline")]
    pub fn append<E: Event, S: Into<String>>(
        &self,
        event: impl Fn(&K, &Windowed<A>) -> (S, E) + Send + Sync + 'static,
    ) -> Appended {
        self.results().append(event)
    }
}
