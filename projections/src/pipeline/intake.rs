//! In front of the log: events of sources that are no log, which may come faster than they can be
//! appended.
//!
//! A log loses nothing, so what reads one never sheds load. A socket or a sensor keeps nothing:
//! what is not taken in is gone, and it is for the program to say what then.

mod queue;
mod status;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use annals_core::{
    Annals, Append, AppendError, Clock, Event, Failure, Invalid, NewEvent, Store, StoreError,
    StreamId,
};
use annals_runner::{Backoff, chain};
use tokio::sync::{Notify, watch};

use self::queue::Queue;
pub use self::status::{IntakeStatus, Offered, Overload};

/// Events that wait at most when nothing else is said.
const EVENTS_MAX: usize = 10_000;
/// Waits between two tries of an append.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));

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

impl IntakeSetup {
    /// So many events wait at most (at least 1), and never more than 64 MiB, beside those that are
    /// being appended at the moment: at most as many again. Default: 10,000.
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
    /// if intake.offer("sensor-7", &measured).await? == Offered::Dropped {
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
            return Ok(Offered::Dropped);
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

/// Appends what waits, until the intake is closed and empty, or its last handle was dropped.
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
                queue.status.error = None;
                backoff.reset();
                continue;
            }
            Err(AppendError::Store(error) | AppendError::Unknown(error))
                if matches!(error.failure(), Failure::Unavailable | Failure::Full) =>
            {
                shared.lock().status.error = Some(chain(&error));
                backoff.next_wait()
            }
            Err(AppendError::NotOwner { .. } | AppendError::OwnershipMoving) => backoff.next_wait(),
            // One of them is the reason, and the others are not to be lost with it.
            Err(_) if count > 1 => {
                parts.extend(part.into_iter().map(|event| vec![event]));
                continue;
            }
            Err(error) => {
                let mut queue = shared.lock();
                queue.on_their_way -= count;
                queue.status.refused += count;
                queue.status.error = Some(chain(&error));
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

impl fmt::Debug for Intake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intake")
            .field("overload", &self.shared.overload)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}
