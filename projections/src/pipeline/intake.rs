//! In front of the log: events of sources that are no log, which may come faster than they can be
//! appended.
//!
//! A log loses nothing, so what reads one never sheds load. A socket or a sensor keeps nothing: what
//! is not taken in is gone, and it is for the program to say what then.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use annals_core::chrono::{DateTime, TimeDelta, Utc};
use annals_core::{
    Annals, Append, AppendError, Clock, Event, Failure, Invalid, NewEvent, Store, StoreError,
    StreamId,
};
use annals_runner::{Backoff, chain};
use tokio::sync::{Notify, watch};

/// Events that wait at most, and their bytes, when nothing else is said.
const EVENTS_MAX: usize = 10_000;
const BYTES_MAX: usize = 64 << 20;
/// Events of one append.
const APPEND_EVENTS_MAX: usize = 500;
/// Waits between two tries of an append.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));

/// What becomes of events that come faster than they are appended.
///
/// ```
/// use annals_projections::pipeline::Overload;
///
/// let readings = Overload::DropOldest;
/// assert_ne!(readings, Overload::Block);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overload {
    /// Who offers one waits until there is room. Nothing is lost.
    #[default]
    Block,
    /// The oldest that waits makes room.
    DropOldest,
    /// Of so many only the first is taken, whether there is room or not; who offers that one waits
    /// for room.
    Sample {
        /// Of how many; at least 1.
        one_of: u64,
    },
    /// Those beyond so many in a second are left out; who offers one of the others waits for room.
    AtMost {
        /// How many in a second of the program's clock.
        per_second: u64,
    },
}

/// What became of an event that was offered.
///
/// ```
/// use annals_projections::pipeline::Offered;
///
/// assert_ne!(Offered::Taken, Offered::LeftOut);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum Offered {
    /// It waits to be appended.
    Taken,
    /// It was left out, as was said.
    LeftOut,
}

/// What came to an intake so far. Each event that was offered is counted once: it was appended,
/// left out or refused, or waits.
///
/// ```
/// # use annals_projections::pipeline::Intake;
/// # fn example(intake: Intake) {
/// let now = intake.status();
/// assert_eq!(now.offered, now.appended + now.left_out + now.refused + now.waiting);
/// println!("{now}");
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IntakeStatus {
    /// Events that were offered, without those whose offering waits for room.
    pub offered: u64,
    /// Events that are in the log.
    pub appended: u64,
    /// Events that were left out because too many came.
    pub left_out: u64,
    /// Events that the store will never take.
    pub refused: u64,
    /// Events that wait to be appended, or are on their way.
    pub waiting: u64,
    /// The most that have waited at once.
    pub most_waiting: u64,
    /// Offerings that wait for room now.
    pub blocked: u64,
    /// Why the store does not take events now, or why it refused the last one.
    pub trouble: Option<String>,
}

/// Takes events of a source that keeps nothing, and appends them. Cheap to clone.
///
/// ```
/// # use annals_core::{Annals, Event, StoreError};
/// # use annals_projections::pipeline::{Intake, Overload};
/// # async fn example<Measured: Event>(db: Annals, measured: Measured) -> Result<(), StoreError> {
/// let intake = Intake::into(&db).events_max(1_000).when_full(Overload::DropOldest).open();
/// intake.offer("sensor-7", &measured).await?;
/// println!("{}", intake.finish().await);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Intake {
    shared: Arc<Shared>,
    _open: Arc<Open>,
}

/// Closes the intake with its last handle.
struct Open(Arc<Shared>);

/// An intake that is to be opened.
///
/// ```
/// # use annals_core::Annals;
/// # use annals_projections::pipeline::{Intake, Overload};
/// # async fn example(db: Annals) -> Intake {
/// Intake::into(&db).when_full(Overload::AtMost { per_second: 500 }).open()
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nothing is taken in before it is opened"]
pub struct IntakeSetup {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    overload: Overload,
    events_max: usize,
}

struct Shared {
    overload: Overload,
    events_max: usize,
    clock: Arc<dyn Clock>,
    queue: Mutex<Queue>,
    room: Notify,
    more: Notify,
    moved: watch::Sender<u64>,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<(StreamId, NewEvent)>,
    bytes: usize,
    on_their_way: u64,
    seen: u64,
    /// The second that is counted in, and how many it had.
    second: Option<(DateTime<Utc>, u64)>,
    status: IntakeStatus,
    is_closed: bool,
}

impl IntakeSetup {
    /// So many events wait at most (at least 1), and never more than 64 MiB. Default: 10,000.
    ///
    /// ```
    /// # use annals_core::Annals;
    /// # use annals_projections::pipeline::Intake;
    /// # async fn example(db: Annals) -> Intake {
    /// Intake::into(&db).events_max(100).open()
    /// # }
    /// ```
    pub fn events_max(mut self, events: usize) -> IntakeSetup {
        self.events_max = events.max(1);
        self
    }

    /// What becomes of events that come too fast. Default: [`Overload::Block`].
    ///
    /// ```
    /// # use annals_core::Annals;
    /// # use annals_projections::pipeline::{Intake, Overload};
    /// # async fn example(db: Annals) -> Intake {
    /// Intake::into(&db).when_full(Overload::Sample { one_of: 10 }).open()
    /// # }
    /// ```
    pub fn when_full(mut self, overload: Overload) -> IntakeSetup {
        self.overload = overload;
        self
    }

    /// Appends from now on what is offered.
    ///
    /// ```
    /// # use annals_core::Annals;
    /// # use annals_projections::pipeline::Intake;
    /// # async fn example(db: Annals) -> Intake {
    /// Intake::into(&db).open()
    /// # }
    /// ```
    pub fn open(self) -> Intake {
        let shared = Arc::new(Shared {
            overload: self.overload,
            events_max: self.events_max,
            clock: self.clock,
            queue: Mutex::default(),
            room: Notify::new(),
            more: Notify::new(),
            moved: watch::Sender::default(),
        });
        // It ends when the intake is closed, or the last handle is gone, and nothing waits.
        tokio::spawn(append_all(Arc::clone(&shared), self.store));
        let _open = Arc::new(Open(Arc::clone(&shared)));
        Intake { shared, _open }
    }
}

impl Intake {
    /// An intake into a log.
    ///
    /// ```
    /// # use annals_core::Annals;
    /// # use annals_projections::pipeline::Intake;
    /// # async fn example(db: Annals) -> Intake {
    /// Intake::into(&db).open()
    /// # }
    /// ```
    pub fn into(db: &Annals) -> IntakeSetup {
        IntakeSetup {
            store: Arc::clone(db.store()),
            clock: Arc::clone(db.clock()),
            overload: Overload::default(),
            events_max: EVENTS_MAX,
        }
    }

    /// Offers an event for a stream. It happened now, by the clock of the program.
    ///
    /// Returns when it is decided what becomes of it, and not when it is appended: an event that
    /// waits is lost with the process. Dropping the future offers nothing.
    ///
    /// # Errors
    ///
    /// [`Failure::Invalid`] for what is no name of a stream, or an event that cannot be written;
    /// [`Failure::Closed`] after [`finish`](Intake::finish).
    ///
    /// ```
    /// # use annals_core::{Event, StoreError};
    /// # use annals_projections::pipeline::{Intake, Offered};
    /// # async fn example<Measured: Event>(
    /// #     intake: Intake, measured: Measured,
    /// # ) -> Result<(), StoreError> {
    /// if intake.offer("sensor-7", &measured).await? == Offered::LeftOut {
    ///     println!("too many");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn offer<E: Event>(&self, stream: &str, event: &E) -> Result<Offered, StoreError> {
        let stream = StreamId::new(stream).map_err(StoreError::from)?;
        let new = NewEvent::of(event).map_err(|error| Invalid::new(chain(&error)))?;
        let shared = &*self.shared;
        let now = shared.clock.now();
        let event = (stream, new.at(now));
        if !shared.lock().lets(shared.overload, now)? {
            return Ok(Offered::LeftOut);
        }
        let mut blocked = None;
        loop {
            let room = shared.room.notified();
            {
                let mut queue = shared.lock();
                queue.is_open()?;
                let is_full = queue.is_full(shared.events_max);
                if !is_full || shared.overload == Overload::DropOldest {
                    if is_full {
                        queue.drop_oldest();
                    }
                    queue.push(event);
                    shared.more.notify_one();
                    return Ok(Offered::Taken);
                }
            }
            let _blocked = blocked.get_or_insert_with(|| Blocked::at(shared));
            room.await;
        }
    }

    /// What came to it so far.
    ///
    /// ```
    /// # use annals_projections::pipeline::Intake;
    /// # fn example(intake: Intake) {
    /// println!("{}", intake.status());
    /// # }
    /// ```
    pub fn status(&self) -> IntakeStatus {
        let queue = self.shared.lock();
        IntakeStatus {
            waiting: queue.waiting(),
            ..queue.status.clone()
        }
    }

    /// Takes nothing more, and returns when everything that was taken is appended or refused.
    ///
    /// ```
    /// # use annals_projections::pipeline::Intake;
    /// # async fn example(intake: Intake) {
    /// println!("{}", intake.finish().await);
    /// # }
    /// ```
    pub async fn finish(&self) -> IntakeStatus {
        let shared = &*self.shared;
        let mut moved = shared.moved.subscribe();
        shared.lock().is_closed = true;
        shared.room.notify_waiters();
        shared.more.notify_one();
        while shared.lock().waiting() > 0 && moved.changed().await.is_ok() {}
        self.status()
    }
}

/// An offering that waits for room, also when it is dropped.
struct Blocked<'a>(&'a Shared);

impl<'a> Blocked<'a> {
    fn at(shared: &'a Shared) -> Blocked<'a> {
        shared.lock().status.blocked += 1;
        Blocked(shared)
    }
}

impl Drop for Blocked<'_> {
    fn drop(&mut self) {
        self.0.lock().status.blocked -= 1;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn is_open(&self) -> Result<(), StoreError> {
        match self.is_closed {
            true => Err(StoreError::new(Failure::Closed, "the intake was closed")),
            false => Ok(()),
        }
    }

    /// Whether an event that comes now is one of those that are taken.
    fn lets(&mut self, overload: Overload, now: DateTime<Utc>) -> Result<bool, StoreError> {
        self.is_open()?;
        let number = self.seen;
        self.seen += 1;
        let lets = match overload {
            Overload::Block | Overload::DropOldest => true,
            Overload::Sample { one_of } => number.is_multiple_of(one_of.max(1)),
            Overload::AtMost { per_second } => {
                let begins = |begun: DateTime<Utc>| now - begun >= TimeDelta::seconds(1);
                let (_, count) = match &mut self.second {
                    Some(second) if !begins(second.0) => second,
                    other => other.insert((now, 0)),
                };
                *count += 1;
                *count <= per_second
            }
        };
        if !lets {
            self.status.offered += 1;
            self.status.left_out += 1;
        }
        Ok(lets)
    }

    fn waiting(&self) -> u64 {
        self.events.len() as u64 + self.on_their_way
    }

    fn is_full(&self, events_max: usize) -> bool {
        self.events.len() >= events_max || self.bytes >= BYTES_MAX
    }

    fn drop_oldest(&mut self) {
        if let Some((_, event)) = self.events.pop_front() {
            self.bytes -= event.size_bytes();
            self.status.left_out += 1;
        }
    }

    fn push(&mut self, event: (StreamId, NewEvent)) {
        self.bytes += event.1.size_bytes();
        self.events.push_back(event);
        self.status.offered += 1;
        self.status.most_waiting = self.status.most_waiting.max(self.waiting());
    }

    /// The next that are appended together: of one stream where a store takes only such.
    fn take(&mut self, is_atomic: bool) -> Vec<(StreamId, NewEvent)> {
        let mut taken: Vec<(StreamId, NewEvent)> = Vec::new();
        while taken.len() < APPEND_EVENTS_MAX {
            let first = taken.first().map(|(stream, _)| stream);
            let next = self
                .events
                .pop_front_if(|(stream, _)| is_atomic || first.is_none_or(|first| first == stream));
            let Some(next) = next else { break };
            self.bytes -= next.1.size_bytes();
            taken.push(next);
        }
        self.on_their_way = taken.len() as u64;
        taken
    }
}

/// Appends what waits, until the intake is closed and empty, or nobody has it any more.
async fn append_all(shared: Arc<Shared>, store: Arc<dyn Store>) {
    loop {
        let more = shared.more.notified();
        let (batch, is_closed) = {
            let mut queue = shared.lock();
            (queue.take(store.atomic()), queue.is_closed)
        };
        if !batch.is_empty() {
            shared.room.notify_waiters();
            append(&shared, &*store, batch).await;
            shared.moved.send_modify(|count| *count += 1);
            continue;
        }
        shared.moved.send_modify(|count| *count += 1);
        if is_closed {
            return;
        }
        more.await;
    }
}

/// Appends these events, whose ids stay the same for each try.
async fn append(shared: &Shared, store: &dyn Store, batch: Vec<(StreamId, NewEvent)>) {
    let mut backoff = BACKOFF;
    let mut parts = VecDeque::from([batch]);
    while let Some(part) = parts.pop_front() {
        let count = part.len() as u64;
        let mut request = Append::default();
        request.events.clone_from(&part);
        let wait = match store.append(request).await {
            Ok(_) => {
                let mut queue = shared.lock();
                queue.on_their_way -= count;
                queue.status.appended += count;
                queue.status.trouble = None;
                backoff.reset();
                continue;
            }
            Err(AppendError::Store(error) | AppendError::Unknown(error))
                if matches!(error.failure(), Failure::Unavailable | Failure::Full) =>
            {
                shared.lock().status.trouble = Some(chain(&error));
                backoff.next_wait()
            }
            Err(AppendError::NotOwner { .. }) => backoff.next_wait(),
            // One of them is the reason, and the others are not to be lost with it.
            Err(_) if count > 1 => {
                parts.extend(part.into_iter().map(|event| vec![event]));
                continue;
            }
            Err(error) => {
                let mut queue = shared.lock();
                queue.on_their_way -= count;
                queue.status.refused += count;
                queue.status.trouble = Some(chain(&error));
                continue;
            }
        };
        tokio::time::sleep(wait).await;
        parts.push_front(part);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.more.notify_one();
    }
}

impl fmt::Display for IntakeStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let IntakeStatus {
            offered,
            appended,
            left_out,
            waiting,
            ..
        } = self;
        write!(
            f,
            "{offered} offered, {appended} appended, {left_out} left out, {waiting} waiting"
        )?;
        if self.refused > 0 {
            write!(f, ", {} refused", self.refused)?;
        }
        match (self.blocked, &self.trouble) {
            (0, None) => Ok(()),
            (0, Some(trouble)) => write!(f, "; the store: {trouble}"),
            (blocked, None) => write!(f, "; the store holds up {blocked} who offer more"),
            (blocked, Some(trouble)) => {
                write!(
                    f,
                    "; the store holds up {blocked} who offer more: {trouble}"
                )
            }
        }
    }
}

impl fmt::Debug for Intake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intake")
            .field("overload", &self.shared.overload)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}
