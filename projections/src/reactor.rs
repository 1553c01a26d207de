//! Reactors: code with side effects that follows the log at least once, with an idempotency key.

mod call;
mod operator;
mod window;
mod worker;

use std::any::TypeId;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{
    Checkpoint, Event, EventId, Filter, Generation, GenerationSpec, Partition, Phase, Position,
    Recorded, RecordedEvent, ViewCommit,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(crate) use call::{Call, Handler, contained};
pub use operator::ReactorHandle;
pub(crate) use worker::Work;

use crate::location::BoxFuture;
use crate::program::{Part, Setup, StartError};
use crate::registry::Registry;
use crate::status::Kind;
use crate::step::{self, StepError};
use crate::supervisor::{WorkerContext, gate};
use crate::view::Poison;
use crate::worker::{HeldLease, Progress, SlotClaim, WorkError};

/// Code with side effects that follows the log: mails, payments, calls of other services.
///
/// It is called at least once for every event: a program that dies between a call and its note
/// makes the call again, with the same [idempotency key](Request::idempotency_key), which is what
/// whoever is called recognises it by. Events of one key are handled one after another in their
/// order, several keys at once. Rebuilding a view calls no reactor.
///
/// What it appends itself is [caused by](annals_core::Metadata::caused_by) the event without being
/// asked.
///
/// ```
/// # use annals_core::{Event, Recorded};
/// # use annals_projections::{ReactError, Reactor, Request};
/// # struct Gateway;
/// # impl Gateway { async fn send(&self, to: &str, text: &str, key: String) -> Result<(), std::io::Error> { Ok(()) } }
/// # #[derive(annals_macros::Event, serde::Serialize, serde::Deserialize)]
/// # #[event(category = "account", crate = "annals_core")]
/// # enum AccountEvent { Withdrawn { cents: i64 } }
/// struct TextMessages { gateway: Gateway }
///
/// impl Reactor for TextMessages {
///     const NAME: &'static str = "text-messages";
///     type Event = AccountEvent;
///
///     async fn react(&self, event: &Recorded<AccountEvent>, request: &Request) -> Result<(), ReactError> {
///         let AccountEvent::Withdrawn { cents } = &**event;
///         if *cents < 1_000_00 {
///             return Ok(());
///         }
///         let text = format!("{cents} cents were withdrawn");
///         self.gateway.send(event.record.stream.id(), &text, request.idempotency_key()).await.map_err(ReactError::retry)
///     }
/// }
/// ```
pub trait Reactor: Send + Sync + 'static {
    /// What it is known by, for ever: where it stands in the log is kept under this name.
    const NAME: &'static str;

    /// What it reacts to.
    type Event: Event;

    /// Events of one key are handled one after another. Default: the stream. At most 255 bytes; it
    /// looks at nothing but the event.
    fn key(event: &Recorded<Self::Event>) -> String {
        event.record.stream.as_str().into()
    }

    /// Reacts to an event. It may be called again for the same one, with the same key.
    ///
    /// # Errors
    ///
    /// [`ReactError::Retry`] is tried again after a while, some times; [`ReactError::Permanent`] is
    /// not, and neither is a panic. Then the key waits for a person, and with it its later events,
    /// while others go on.
    fn react(
        &self,
        event: &Recorded<Self::Event>,
        request: &Request,
    ) -> impl Future<Output = Result<(), ReactError>> + Send;
}

/// Why a reactor could not do its work.
///
/// ```
/// use annals_projections::ReactError;
///
/// let error = ReactError::retry(std::io::Error::other("the gateway is down"));
/// assert_eq!(error.to_string(), "the gateway is down");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReactError {
    /// It may pass.
    #[error("{0}")]
    Retry(String),
    /// It does not pass by itself.
    #[error("{0}")]
    Permanent(String),
}

impl ReactError {
    /// May pass.
    pub fn retry(cause: impl fmt::Display) -> ReactError {
        ReactError::Retry(cause.to_string())
    }

    /// Does not pass by itself.
    pub fn permanent(cause: impl fmt::Display) -> ReactError {
        ReactError::Permanent(cause.to_string())
    }
}

/// What a reactor is asked to do: for which event, and which attempt this is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// The event.
    pub event: EventId,
    /// Which of those that an upcaster made of it, from 0.
    pub index: usize,
    /// From 1; begins anew when another worker takes over.
    pub attempt: u32,
    reactor: &'static str,
}

impl Request {
    /// The same for every attempt at this event, in every process and for ever, and another one for
    /// every other event and reactor.
    pub fn idempotency_key(&self) -> String {
        match self.index {
            0 => format!("{}:{}", self.reactor, self.event),
            index => format!("{}:{}:{index}", self.reactor, self.event),
        }
    }
}

/// How a reactor's worker works.
#[derive(Clone, Debug)]
pub(crate) struct ReactorOptions {
    pub(crate) at_most_once: bool,
    pub(crate) from_the_beginning: bool,
    pub(crate) calls_max: usize,
    pub(crate) window_events_max: usize,
    pub(crate) attempts: u32,
    pub(crate) back_off: Duration,
    pub(crate) grace: Duration,
    pub(crate) lease: Duration,
    pub(crate) poll: Duration,
}

impl ReactorOptions {
    const BACK_OFF_MAX: Duration = Duration::from_secs(30);
}

impl Default for ReactorOptions {
    fn default() -> ReactorOptions {
        ReactorOptions {
            at_most_once: false,
            from_the_beginning: false,
            calls_max: 16,
            window_events_max: 1_000,
            attempts: 8,
            back_off: Duration::from_millis(100),
            grace: Duration::from_secs(5),
            lease: Duration::from_secs(10),
            poll: Duration::from_millis(100),
        }
    }
}

/// A reactor, and how it is called: what a program is started [`with`](crate::With::with).
///
/// ```
/// # use annals_core::Annals;
/// # use annals_projections::{Program, ReactorSetup, Reactor, StartError, With};
/// # async fn example<R: Reactor>(db: Annals, text_messages: R) -> Result<Program, StartError> {
/// db.with(ReactorSetup::of(text_messages).calls_max(4)).start().await
/// # }
/// ```
#[must_use = "it is not called until a program is started with it"]
pub struct ReactorSetup<R> {
    reactor: R,
    patience: ReactorOptions,
}

impl<R: Reactor> ReactorSetup<R> {
    /// This reactor. Events that are recorded from now on, when it is started for the first time,
    /// are its business.
    pub fn of(reactor: R) -> ReactorSetup<R> {
        ReactorSetup {
            reactor,
            patience: ReactorOptions::default(),
        }
    }

    /// Also what was recorded before it is started for the first time.
    pub fn from_the_beginning(mut self) -> ReactorSetup<R> {
        self.patience.from_the_beginning = true;
        self
    }

    /// Called at most once for an event: that it was is written before the call. A call that fails,
    /// or dies with its program, is not made again; it is logged, and the next event of its key
    /// goes on.
    pub fn at_most_once(mut self) -> ReactorSetup<R> {
        self.patience.at_most_once = true;
        self
    }

    /// Called for so many keys at once (at least 1). Default: 16.
    pub fn calls_max(mut self, calls: usize) -> ReactorSetup<R> {
        self.patience.calls_max = calls.max(1);
        self
    }

    /// Holding so many events at once (at least 1), counted from the oldest that is not done.
    /// Default: 1,000. A call that takes long does not hold up other keys until they are so far
    /// ahead of it.
    pub fn window_events_max(mut self, events: usize) -> ReactorSetup<R> {
        self.patience.window_events_max = events.max(1);
        self
    }

    /// Tried so often (at least once), the second time after `wait`, which doubles up to 30 s.
    /// Default: 8 times, 100 ms.
    pub fn attempts(mut self, attempts: u32, wait: Duration) -> ReactorSetup<R> {
        self.patience.attempts = attempts.max(1);
        self.patience.back_off = wait;
        self
    }

    /// How long a program that stops waits for calls that are being made. Default: 5 s. One that
    /// takes longer is broken off, and made again by the next worker.
    pub fn grace(mut self, grace: Duration) -> ReactorSetup<R> {
        self.patience.grace = grace;
        self
    }

    /// How long a worker that says nothing keeps its place. Default: 10 s.
    pub fn lease(mut self, lease: Duration) -> ReactorSetup<R> {
        self.patience.lease = lease;
        self
    }

    /// How long a worker waits for a hint before it looks by itself. Default: 100 ms.
    pub fn poll(mut self, poll: Duration) -> ReactorSetup<R> {
        self.patience.poll = poll;
        self
    }
}

impl<R: Reactor> fmt::Debug for ReactorSetup<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReactorSetup")
            .field("reactor", &R::NAME)
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}

impl<R: Reactor> Part for ReactorSetup<R> {
    fn add_to(self, mut setup: Setup) -> Setup {
        let handler = Arc::new(Reacts(Arc::new(self.reactor)));
        let kind = Kind::Reactor;
        let place = Kind::Reactor.place(R::NAME);
        let of = TypeId::of::<R>();
        let patience = self.patience;
        setup.reactors.push(Registered {
            of,
            kind,
            register: Registry::reactor::<R>,
            name: R::NAME,
            place,
            make: Box::new(|_| handler),
            patience,
        });
        setup
    }
}

/// A reactor whose type is forgotten.
struct Reacts<R>(Arc<R>);

impl<R: Reactor> Handler for Reacts<R> {
    fn filter(&self) -> Filter {
        Filter::default().types(R::Event::shapes().iter().map(|shape| shape.event_type))
    }

    fn prepare(&self, record: RecordedEvent) -> Result<Option<Call>, StepError> {
        let events: Vec<Recorded<R::Event>> = Recorded::decode(record)?.into_iter().collect();
        let Some(first) = events.first() else {
            return Ok(None);
        };
        let key = key_of(&first.record, || Ok(R::key(first)))?;
        let reactor = Arc::clone(&self.0);
        let record = Arc::new(first.record.clone());
        let events = Arc::new(events);
        let make = move |attempt| -> BoxFuture<'static, _> {
            let reactor = Arc::clone(&reactor);
            let events = Arc::clone(&events);
            Box::pin(async move {
                for (index, event) in events.iter().enumerate() {
                    let request = Request {
                        event: event.record.id,
                        index,
                        attempt,
                        reactor: R::NAME,
                    };
                    reactor.react(event, &request).await?;
                }
                Ok(Vec::new())
            })
        };
        Ok(Some(Call {
            key,
            record,
            make: Arc::new(make),
        }))
    }
}

/// The key of an event, if it can be told and may be one.
pub(crate) fn key_of(
    record: &RecordedEvent,
    tell: impl FnOnce() -> Result<String, Poison>,
) -> Result<String, StepError> {
    let key = step::contained(|| {
        let key = tell()?;
        crate::key::checked(&key).map_err(Poison::from)
    });
    key.map_err(|poison| StepError::NoKey {
        reason: poison.reason().into(),
        record: Box::new(record.clone()),
    })
}

type MakeHandler = Box<dyn FnOnce(&WorkerContext) -> Arc<dyn Handler> + Send + Sync>;

/// What a program starts beside its projections.
pub(crate) struct Registered {
    pub(crate) of: TypeId,
    pub(crate) kind: Kind,
    pub(crate) register: fn(Registry) -> Registry,
    pub(crate) name: &'static str,
    /// The name under which the view store keeps where it stands.
    pub(crate) place: String,
    pub(crate) make: MakeHandler,
    pub(crate) patience: ReactorOptions,
}

impl Registered {
    pub(crate) async fn start(
        self,
        mut context: WorkerContext,
        stop: watch::Receiver<bool>,
    ) -> Result<(ReactorHandle, JoinHandle<()>), StartError> {
        context.options.lease = self.patience.lease;
        context.options.poll = self.patience.poll;
        let gate = gate(&context, &self.place).await?;
        let found = find_or_begin(&context, self.name, &self.place, &self.patience).await;
        context.views.release_lease(&gate).await?;
        let anew = Arc::new(watch::Sender::default());
        let work = |generation: Generation, handler, progress| Work {
            kind: self.kind,
            log: Arc::clone(context.db.store()),
            views: context.views.clone(),
            clock: Arc::clone(context.db.clock()),
            generation,
            owner: context.owner.clone(),
            handler,
            patience: self.patience.clone(),
            progress,
            anew: Arc::clone(&anew),
        };
        let generation = found?;
        let handler = (self.make)(&context);
        let progress = Progress::of(self.kind, &generation, 0, context.db.clock());
        let reactions = ReactorHandle::of(
            self.name,
            work(generation.clone(), Arc::clone(&handler), progress.clone()),
        );
        Ok((
            reactions,
            tokio::spawn(work(generation, handler, progress).run(stop)),
        ))
    }
}

/// Where the reactor stands in the log is kept as a view's place is, in a generation that has no
/// rows of anybody.
async fn find_or_begin(
    context: &WorkerContext,
    name: &'static str,
    place: &str,
    patience: &ReactorOptions,
) -> Result<Generation, StartError> {
    let log = context.db.store();
    let found = context.views.generations(place).await?.into_iter().next();
    let generation = match found {
        Some(generation) if generation.spec.log != log.id() => {
            return Err(StartError::OtherLog { view: name });
        }
        Some(generation) if generation.phase == Phase::Live => return Ok(generation),
        Some(begun) => begun,
        None => {
            let mut spec = GenerationSpec::new(place, 1, log.id());
            spec.partitions = log.partitions();
            context.views.begin_generation(spec).await?
        }
    };
    if !patience.from_the_beginning {
        begin_at_head(context, &generation)
            .await
            .map_err(|error| StartError::Store(error.into_store()))?;
    }
    let switched = context.views.switch_to(generation.id).await;
    switched.map_err(|error| StartError::Store(WorkError::Again(error).into_store()))?;
    Ok(generation)
}

async fn begin_at_head(context: &WorkerContext, generation: &Generation) -> Result<(), WorkError> {
    let views = &context.views;
    let owner = &*context.owner;
    let lease = context.options.lease;
    let clock = &**context.db.clock();
    let held = HeldLease::steal(&SlotClaim {
        views,
        generation,
        slot: 0,
        owner,
        lease,
        clock,
        share: None,
    })
    .await?;
    let known = views.checkpoints(generation.id).await?;
    for partition in (0..generation.spec.partitions).map(Partition) {
        if known.iter().any(|of| of.partition == partition) {
            continue;
        }
        let position = context.db.store().head(partition).await?.visible;
        let event = crate::worker::event_at(&**context.db.store(), partition, position).await?;
        let to = Checkpoint {
            position,
            event,
            ..Checkpoint::start(0, partition)
        };
        views
            .commit_view(ViewCommit::new(
                generation.id,
                held.lease(),
                Position::START,
                to,
            ))
            .await?;
    }
    held.release().await;
    Ok(())
}
