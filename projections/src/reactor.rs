//! Reactors: code with side effects that follows the log at least once, with an idempotency key.

mod attempts;
mod call;
mod dead_letters;
mod drain;
mod handle;
mod retry;
mod scheduler;
mod session;
mod setup;
mod window;
mod worker;

use std::any::TypeId;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{Event, EventId, EventKind, Filter, Recorded, RecordedEvent};
use annals_runner::{BoxFuture, Kind, Part, ReactorKind, Registry, Setup, Timing, WorkerContext};

pub(crate) use call::{Call, Handler};
pub use handle::ReactorHandle;

use crate::key::{RefusedKey, too_long};
use crate::view::Poison;
use crate::view::step::{self, StepError, decode};

/// Code with side effects that follows the log: mails, payments, calls of other services.
///
/// It is called at least once for every event: a program that dies between a call and its note
/// makes the call again, with the same [idempotency key](Request::idempotency_key), by which the
/// called service deduplicates it. Events of one key are handled one after another in their
/// order, several keys at once. Rebuilding a view calls no reactor.
///
/// What it appends itself is [caused by](annals_core::Metadata::caused_by) the event without being
/// asked.
///
/// ```
/// # use annals_core::{Event, Recorded};
/// # use annals_projections::{ReactError, Reactor, Request};
/// # struct Gateway;
/// # impl Gateway {
/// #     async fn send(&self, to: &str, text: &str, key: String) -> std::io::Result<()> { Ok(()) }
/// # }
/// # #[derive(annals_macros::Event, serde::Serialize, serde::Deserialize)]
/// # #[event(category = "account", crate = "annals_core")]
/// # enum AccountEvent { Withdrawn { cents: i64 } }
/// struct TextMessages { gateway: Gateway }
///
/// impl Reactor for TextMessages {
///     const NAME: &'static str = "text-messages";
///     type Event = AccountEvent;
///
///     async fn react(
///         &self,
///         event: &Recorded<AccountEvent>,
///         request: &Request,
///     ) -> Result<(), ReactError> {
///         let AccountEvent::Withdrawn { cents } = &**event;
///         if *cents < 1_000_00 {
///             return Ok(());
///         }
///         let text = format!("{cents} cents were withdrawn");
///         let key = request.idempotency_key();
///         let sent = self.gateway.send(event.record.stream.id(), &text, key).await;
///         sent.map_err(ReactError::retry)
///     }
/// }
/// ```
pub trait Reactor: Send + Sync + 'static {
    /// What it is known by, for ever: its checkpoint is kept under this name.
    const NAME: &'static str;

    /// What it reacts to.
    type Event: Event;

    /// Events of one key are handled one after another. Default: the stream. At most 255 bytes; it
    /// depends on the event alone.
    fn key(event: &Recorded<Self::Event>) -> String {
        event.record.stream.as_str().into()
    }

    /// Reacts to an event. It may be called again for the same one, with the same key.
    ///
    /// # Errors
    ///
    /// [`ReactError::Retry`] is tried again after a while, some times; [`ReactError::Permanent`] is
    /// not, and neither is a panic. Then the event is a dead letter, and so are the later ones of
    /// its key, while others go on.
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
    pub fn retry(reason: impl fmt::Display) -> ReactError {
        ReactError::Retry(reason.to_string())
    }

    /// Does not pass by itself.
    pub fn permanent(reason: impl fmt::Display) -> ReactError {
        ReactError::Permanent(reason.to_string())
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
    /// From 1; begins again when another worker takes over.
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
    pub(crate) skips_archived: bool,
    pub(crate) calls_max: usize,
    pub(crate) window_events_max: usize,
    pub(crate) attempts: u32,
    pub(crate) back_off: Duration,
    pub(crate) call_timeout: Duration,
    pub(crate) grace: Duration,
    pub(crate) lease: Duration,
    pub(crate) poll: Duration,
}

impl ReactorOptions {
    const BACK_OFF_MAX: Duration = Duration::from_secs(30);

    /// How long its worker holds, waits and pauses.
    fn timing(&self) -> Timing {
        Timing {
            lease: self.lease,
            poll: self.poll,
            back_off: self.poll,
        }
    }
}

impl Default for ReactorOptions {
    fn default() -> ReactorOptions {
        ReactorOptions {
            at_most_once: false,
            from_the_beginning: false,
            skips_archived: false,
            calls_max: 16,
            window_events_max: 1_000,
            attempts: 8,
            back_off: Duration::from_millis(100),
            call_timeout: Duration::from_secs(60),
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
    options: ReactorOptions,
}

impl<R: Reactor> ReactorSetup<R> {
    /// This reactor. Events that are recorded from now on, when it is started for the first time,
    /// are its business.
    pub fn of(reactor: R) -> ReactorSetup<R> {
        ReactorSetup {
            reactor,
            options: ReactorOptions::default(),
        }
    }

    /// Also what was recorded before it is started for the first time.
    pub fn from_the_beginning(mut self) -> ReactorSetup<R> {
        self.options.from_the_beginning = true;
        self
    }

    /// Skips events that were archived before they were read; otherwise they stop it.
    pub fn skip_archived(mut self) -> ReactorSetup<R> {
        self.options.skips_archived = true;
        self
    }

    /// Called at most once for an event: that it was is written before the call. A call that fails,
    /// or dies with its program, is not made again; it is logged, and the next event of its key
    /// goes on.
    pub fn at_most_once(mut self) -> ReactorSetup<R> {
        self.options.at_most_once = true;
        self
    }

    /// Called for so many keys at once (at least 1). Default: 16.
    pub fn calls_max(mut self, calls: usize) -> ReactorSetup<R> {
        self.options.calls_max = calls.max(1);
        self
    }

    /// Holding so many events at once (at least 1), counted from the oldest that is not done.
    /// Default: 1,000. A call that takes long does not hold up other keys until they are so far
    /// ahead of it.
    pub fn window_events_max(mut self, events: usize) -> ReactorSetup<R> {
        self.options.window_events_max = events.max(1);
        self
    }

    /// Tried so often (at least once), the second time after `wait`, which doubles up to 30 s.
    /// Default: 8 times, 100 ms.
    pub fn attempts(mut self, attempts: u32, wait: Duration) -> ReactorSetup<R> {
        self.options.attempts = attempts.max(1);
        self.options.back_off = wait;
        self
    }

    /// How long a call may take. Default: 60 s. One that takes longer is dropped at its next await,
    /// and fails as with [`ReactError::Retry`]; other keys go on meanwhile.
    pub fn call_timeout(mut self, longest: Duration) -> ReactorSetup<R> {
        self.options.call_timeout = longest;
        self
    }

    /// How long a program that stops waits for calls that are being made. Default: 5 s. One that
    /// takes longer is broken off, and made again by the next worker.
    pub fn grace(mut self, grace: Duration) -> ReactorSetup<R> {
        self.options.grace = grace;
        self
    }

    /// How long a worker that does not renew its lease keeps it. Default: 10 s.
    pub fn lease(mut self, lease: Duration) -> ReactorSetup<R> {
        self.options.lease = lease;
        self
    }

    /// How long a worker waits for a hint before it polls. Default: 100 ms.
    pub fn poll(mut self, poll: Duration) -> ReactorSetup<R> {
        self.options.poll = poll;
        self
    }
}

impl<R: Reactor> fmt::Debug for ReactorSetup<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReactorSetup")
            .field("reactor", &R::NAME)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl<R: Reactor> Part for ReactorSetup<R> {
    fn add_to(self, setup: Setup) -> Setup {
        let handler = Arc::new(Reacts(Arc::new(self.reactor)));
        let kind = Kind::Reactor;
        let of = TypeId::of::<R>();
        let options = self.options;
        setup.with_follower(Registered {
            of,
            kind,
            register: register::<R>,
            name: R::NAME,
            make: Box::new(|_| handler),
            options,
        })
    }
}

/// Adds a reactor, and its events.
pub(crate) fn register<R: Reactor>(registry: Registry) -> Registry {
    let shapes = R::Event::shapes().iter();
    let handles = shapes.map(|shape| shape.event_type.into()).collect();
    let reactor = ReactorKind::new(Kind::Reactor, R::NAME, handles);
    registry.with_reactor(reactor, [EventKind::of::<R::Event>()])
}

/// A reactor whose type is forgotten.
struct Reacts<R>(Arc<R>);

impl<R: Reactor> Handler for Reacts<R> {
    fn filter(&self) -> Filter {
        Filter::default().types(R::Event::shapes().iter().map(|shape| shape.event_type))
    }

    fn prepare(&self, record: RecordedEvent) -> Result<Vec<Call>, StepError> {
        let mut by_key: ByKey<(usize, Recorded<R::Event>)> = Vec::new();
        for (index, event) in decode::<R::Event>(record)?.into_iter().enumerate() {
            let key = key_of(&event.record, || Ok(R::key(&event)))?;
            match by_key.iter_mut().find(|(of, _)| *of == key) {
                Some((_, events)) => events.push((index, event)),
                None => by_key.push((key, vec![(index, event)])),
            }
        }
        let calls = by_key.into_iter().map(|(key, events)| {
            let record = Arc::new(events[0].1.record.clone());
            match key {
                Ok(key) => self.call(key, record, events),
                Err(refused) => Call::refused(refused, record),
            }
        });
        Ok(calls.collect())
    }
}

impl<R: Reactor> Reacts<R> {
    fn call(
        &self,
        key: String,
        record: Arc<RecordedEvent>,
        events: Vec<(usize, Recorded<R::Event>)>,
    ) -> Call {
        let reactor = Arc::clone(&self.0);
        let events = Arc::new(events);
        let make = move |attempt| -> BoxFuture<'static, _> {
            let reactor = Arc::clone(&reactor);
            let events = Arc::clone(&events);
            Box::pin(async move {
                for (index, event) in events.iter() {
                    let request = Request {
                        event: event.record.id,
                        index: *index,
                        attempt,
                        reactor: R::NAME,
                    };
                    reactor.react(event, &request).await?;
                }
                Ok(Vec::new())
            })
        };
        Call {
            key,
            record,
            make: Arc::new(make),
        }
    }
}

/// The parts of an event by their keys, in their order.
pub(crate) type ByKey<E> = Vec<(Result<String, RefusedKey>, Vec<E>)>;

/// The key of an event, or why it is refused.
pub(crate) fn key_of(
    record: &RecordedEvent,
    key: impl FnOnce() -> Result<String, Poison>,
) -> Result<Result<String, RefusedKey>, StepError> {
    match step::contained(key) {
        Ok(key) => Ok(match too_long(&key) {
            None => Ok(key),
            Some(refused) => Err(refused),
        }),
        Err(poison) => Err(StepError::NoKey {
            reason: poison.reason().into(),
            record: Box::new(record.clone()),
        }),
    }
}

type MakeHandler = Box<dyn FnOnce(&WorkerContext) -> Arc<dyn Handler> + Send + Sync>;

/// A reactor or the process managers of a kind, their types erased.
pub(crate) struct Registered {
    pub(crate) of: TypeId,
    pub(crate) kind: Kind,
    pub(crate) register: fn(Registry) -> Registry,
    pub(crate) name: &'static str,
    pub(crate) make: MakeHandler,
    pub(crate) options: ReactorOptions,
}
