//! Process managers: long-running decisions that react to events by issuing commands and setting
//! deadlines.

mod due;
mod handle;
mod instance;
mod step;

use std::any::TypeId;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use annals_core::chrono::{DateTime, Utc};
use annals_core::{Annals, Event, EventKind, LoadError, Recorded, RecordedEvent};
use annals_runner::{Kind, Part, ReactorKind, Registry, Setup};

pub use step::Step;

use self::handle::{Handles, Trigger};
use self::instance::{Instance, ProcessEvent};
use crate::reactor::{ByKey, ReactorHandle, ReactorOptions, Registered, key_of};
use crate::view::step::{StepError, decode};

/// A long-running decision: it reacts to what happens to aggregates by giving commands to others,
/// and remembers what it needs in a stream of its own.
///
/// Each process manager has an id; its stream is `category-id` of its own events, with its
/// deadlines. Whatever dies when, every command takes effect once, because its idempotency key
/// follows from the process manager, the event and its place among the steps.
///
/// ```
/// use annals_core::chrono::TimeDelta;
/// use annals_core::Recorded;
/// use annals_projections::{Listens, On, Process, Step};
/// # use annals_core::{Aggregate, Handle, IntoEvents};
/// # use annals_macros::Event;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize)]
/// # #[event(category = "order", crate = "annals_core")]
/// # enum OrderEvent { Placed, Paid, Cancelled }
/// # #[derive(Event, Serialize, Deserialize)]
/// # #[event(category = "payment", crate = "annals_core")]
/// # enum PaymentProcessEvent { Settled }
/// # #[derive(Default)]
/// # struct Order;
/// # impl Aggregate for Order { type Event = OrderEvent; fn apply(&mut self, _: &OrderEvent) {} }
/// # struct Cancel;
/// # impl Handle<Cancel> for Order {
/// #     type Error = String;
/// #     fn handle(&self, _: &Cancel) -> Result<impl IntoEvents<OrderEvent>, String> {
/// #         Ok(OrderEvent::Cancelled)
/// #     }
/// # }
///
/// /// Cancels orders that are not paid within half an hour.
/// #[derive(Default)]
/// struct Payment { order: String }
///
/// impl Process for Payment {
///     const NAME: &'static str = "payment";
///     type Event = PaymentProcessEvent;
///
///     fn listens() -> Listens<Payment> {
///         Listens::new().to::<OrderEvent>()
///     }
///
///     fn apply(&mut self, _: &PaymentProcessEvent) {}
///
///     fn reached(&self, id: &str, _: &str) -> Vec<Step<Payment>> {
///         vec![Step::send::<Order, _>(id, Cancel), Step::finish()]
///     }
/// }
///
/// impl On<OrderEvent> for Payment {
///     fn on(&self, event: &Recorded<OrderEvent>) -> Vec<Step<Payment>> {
///         match &**event {
///             OrderEvent::Placed => {
///                 let until = event.record.occurred_at + TimeDelta::minutes(30);
///                 vec![Step::deadline("payment", until)]
///             }
///             OrderEvent::Paid => vec![Step::emit(PaymentProcessEvent::Settled), Step::finish()],
///             OrderEvent::Cancelled => vec![],
///         }
///     }
/// }
/// ```
pub trait Process: Default + Send + Sync + 'static {
    /// What it is known by, for ever.
    const NAME: &'static str;

    /// What it remembers. The category of its streams is that of these events, and of no others.
    type Event: Event;

    /// Which events it reacts to.
    fn listens() -> Listens<Self>;

    /// Takes in what it remembers. Never fails and depends on nothing but its arguments.
    fn apply(&mut self, event: &Self::Event);

    /// What is to be done when a deadline is reached. One that was cancelled, set again, or belongs
    /// to a process manager that has finished, is not. Default: nothing.
    fn reached(&self, id: &str, deadline: &str) -> Vec<Step<Self>> {
        let _ = (id, deadline);
        Vec::new()
    }
}

/// How a process manager reacts to an event type.
pub trait On<E: Event>: Process {
    /// The process manager whose business it is, if it is one's. Default: the id of the stream
    /// (`42` in `order-42`). It depends on the event alone.
    fn id(event: &Recorded<E>) -> Option<String> {
        Some(event.record.stream.id().into())
    }

    /// What is to be done. The same state and event give the same steps: it may be asked again
    /// after a crash.
    fn on(&self, event: &Recorded<E>) -> Vec<Step<Self>>;
}

/// The event types that a process manager reacts to.
pub struct Listens<P: Process> {
    // In the order of their registration.
    by_type: BTreeMap<&'static str, Vec<Prepare<P>>>,
    types: Vec<TypeId>,
    kinds: Vec<EventKind>,
}

type Prepare<P> = fn(RecordedEvent) -> Result<Vec<Trigger<P>>, StepError>;

impl<P: Process> Listens<P> {
    /// To nothing yet.
    pub fn new() -> Listens<P> {
        Listens {
            by_type: BTreeMap::new(),
            types: Vec::new(),
            kinds: Vec::new(),
        }
    }

    /// Also to `E`.
    #[must_use]
    pub fn to<E: Event>(mut self) -> Listens<P>
    where
        P: On<E>,
    {
        if self.types.contains(&TypeId::of::<E>()) {
            return self;
        }
        self.types.push(TypeId::of::<E>());
        let names: BTreeSet<_> = E::shapes().iter().map(|shape| shape.event_type).collect();
        for name in names {
            let read = self.by_type.entry(name).or_default();
            read.push(prepare::<P, E>);
        }
        self.kinds.push(EventKind::of::<E>());
        self
    }

    /// The stored names of the types, in order.
    pub(crate) fn types(&self) -> Vec<String> {
        self.by_type.keys().map(|name| (*name).into()).collect()
    }

    /// The types themselves, and what is in the streams of the processes.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = EventKind> {
        self.kinds
            .iter()
            .copied()
            .chain([EventKind::of::<ProcessEvent<P>>()])
    }
}

fn prepare<P: On<E>, E: Event>(record: RecordedEvent) -> Result<Vec<Trigger<P>>, StepError> {
    let mut by_id: ByKey<Recorded<E>> = Vec::new();
    for event in decode::<E>(record)? {
        let mut concerns = true;
        let id = key_of(&event.record, || {
            let id = P::id(&event);
            concerns = id.is_some();
            Ok(id.unwrap_or_default())
        })?;
        if !concerns {
            continue;
        }
        match by_id.iter_mut().find(|(of, _)| *of == id) {
            Some((_, events)) => events.push(event),
            None => by_id.push((id, vec![event])),
        }
    }
    let triggers = by_id.into_iter().map(|(id, events)| Trigger {
        id,
        record: Arc::new(events[0].record.clone()),
        decide: Arc::new(move |instance: &Instance<P>| {
            events
                .iter()
                .flat_map(|event| instance.process.on(event))
                .collect()
        }),
    });
    Ok(triggers.collect())
}

impl<P: Process> Default for Listens<P> {
    fn default() -> Listens<P> {
        Listens::new()
    }
}

impl<P: Process> fmt::Debug for Listens<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_type.keys()).finish()
    }
}

/// The process managers of a kind, and how they are run: what a program is started
/// [`with`](crate::With::with).
///
/// ```
/// # use annals_core::Annals;
/// # use annals_projections::{Process, ProcessSetup, Program, StartError, With};
/// # async fn example<Payment: Process>(db: Annals) -> Result<Program, StartError> {
/// db.with(ProcessSetup::<Payment>::new()).start().await
/// # }
/// ```
#[must_use = "it is not run until a program is started with it"]
pub struct ProcessSetup<P> {
    options: ReactorOptions,
    process: PhantomData<fn() -> P>,
}

impl<P: Process> ProcessSetup<P> {
    /// Reacts to events that are recorded from now on, when it is started for the first time.
    pub fn new() -> ProcessSetup<P> {
        ProcessSetup {
            options: ReactorOptions::default(),
            process: PhantomData,
        }
    }

    /// Also to what was recorded before it is started for the first time.
    pub fn from_the_beginning(mut self) -> ProcessSetup<P> {
        self.options.from_the_beginning = true;
        self
    }

    /// Skips events that were archived before they were read; otherwise they stop it.
    pub fn skip_archived(mut self) -> ProcessSetup<P> {
        self.options.skips_archived = true;
        self
    }

    /// With steps of so many process managers at once (at least 1). Default: 16.
    pub fn calls_max(mut self, calls: usize) -> ProcessSetup<P> {
        self.options.calls_max = calls.max(1);
        self
    }

    /// Trying what may pass so often (at least once), the second time after `wait`, which doubles
    /// up to 30 s. Default: 8 times, 100 ms.
    pub fn attempts(mut self, attempts: u32, wait: Duration) -> ProcessSetup<P> {
        self.options.attempts = attempts.max(1);
        self.options.back_off = wait;
        self
    }

    /// How long the steps of a process manager may take for one event. Default: 60 s. What takes
    /// longer is tried again.
    pub fn call_timeout(mut self, longest: Duration) -> ProcessSetup<P> {
        self.options.call_timeout = longest;
        self
    }

    /// How long a worker that does not renew its lease keeps it. Default: 10 s.
    pub fn lease(mut self, lease: Duration) -> ProcessSetup<P> {
        self.options.lease = lease;
        self
    }

    /// How long a worker waits for a hint before it polls the log and the clock. Default: 100 ms.
    pub fn poll(mut self, poll: Duration) -> ProcessSetup<P> {
        self.options.poll = poll;
        self
    }
}

impl<P: Process> Default for ProcessSetup<P> {
    fn default() -> ProcessSetup<P> {
        ProcessSetup::new()
    }
}

impl<P: Process> fmt::Debug for ProcessSetup<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessSetup")
            .field("process", &P::NAME)
            .field("options", &self.options)
            .finish()
    }
}

impl<P: Process> Part for ProcessSetup<P> {
    fn add_to(self, setup: Setup) -> Setup {
        setup.with_follower(Registered {
            of: TypeId::of::<P>(),
            kind: Kind::Process,
            name: P::NAME,
            register: register::<P>,
            make: Box::new(|context| Arc::new(Handles::<P>::new(context.db.clone()))),
            options: self.options,
        })
    }
}

/// Adds the process managers of a kind, their events and those that they react to.
pub(crate) fn register<P: Process>(registry: Registry) -> Registry {
    let listens = P::listens();
    let process = ReactorKind::new(Kind::Process, P::NAME, listens.types());
    registry.with_reactor(process, listens.kinds())
}

/// The process managers of a kind in a running program. It derefs to [`ReactorHandle`]: dead
/// letters are listed and settled there, by the id of the process.
///
/// ```
/// # use annals_projections::ReadModels as _;
/// # use annals_core::LoadError;
/// # use annals_projections::{Process, Program};
/// # async fn example<Payment: Process>(db: Program) -> Result<(), LoadError> {
/// for (deadline, at) in db.process::<Payment>().deadlines("42").await? {
///     println!("{deadline} at {at}");
/// }
/// # Ok(())
/// # }
/// ```
pub struct ProcessHandle<P> {
    db: Annals,
    reactions: ReactorHandle,
    process: PhantomData<fn() -> P>,
}

impl<P: Process> ProcessHandle<P> {
    pub(crate) fn new(db: Annals, reactions: ReactorHandle) -> ProcessHandle<P> {
        ProcessHandle {
            db,
            reactions,
            process: PhantomData,
        }
    }

    /// Reads the state of a process.
    ///
    /// # Errors
    ///
    /// As of loading an aggregate.
    pub async fn query<T>(
        &self,
        id: &str,
        look: impl FnOnce(&P) -> T + Send,
    ) -> Result<T, LoadError> {
        self.db
            .aggregate::<Instance<P>>(id)
            .query(|instance| look(&instance.process))
            .await
    }

    /// The deadlines that a process manager has set and that were not reached or cancelled, by
    /// name.
    ///
    /// # Errors
    ///
    /// As of loading an aggregate.
    pub async fn deadlines(&self, id: &str) -> Result<BTreeMap<String, DateTime<Utc>>, LoadError> {
        self.db
            .aggregate::<Instance<P>>(id)
            .query(|instance| instance.waiting())
            .await
    }

    /// Whether a process manager has finished.
    ///
    /// # Errors
    ///
    /// As of loading an aggregate.
    pub async fn has_finished(&self, id: &str) -> Result<bool, LoadError> {
        self.db
            .aggregate::<Instance<P>>(id)
            .query(|instance| instance.finished)
            .await
    }
}

impl<P> Deref for ProcessHandle<P> {
    type Target = ReactorHandle;

    fn deref(&self) -> &ReactorHandle {
        &self.reactions
    }
}

impl<P: Process> fmt::Debug for ProcessHandle<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessHandle")
            .field("process", &P::NAME)
            .finish_non_exhaustive()
    }
}
