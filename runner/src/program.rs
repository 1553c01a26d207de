//! A program: its parts are set up, started, followed, stopped.

mod error;
mod part;
mod setup;

use std::any::TypeId;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use annals_core::{Annals, Partition, Token};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use error::StartError;
pub use part::{Follower, Part, RunningPart};
pub use setup::{Setup, With};

use crate::dead_letters::DeadLetters;
use crate::registry::Registry;
use crate::status::Status;

type ProgressCallback = Box<dyn FnMut(&[Status]) + Send>;

/// A running program: a handle to its store, whose views can be asked. Cheap to clone. When the
/// last handle is dropped, the workers stop where they are; [`stop`](Program::stop) waits for them.
#[derive(Clone)]
pub struct Program {
    shared: Arc<Shared>,
}

struct Shared {
    db: Annals,
    parts: Vec<RunningPart>,
    registry: Registry,
    stop: watch::Sender<bool>,
    supervisors: Mutex<Vec<JoinHandle<()>>>,
    stopped: watch::Sender<bool>,
}

impl Program {
    fn new(
        db: Annals,
        mut parts: Vec<RunningPart>,
        registry: Registry,
        stop: watch::Sender<bool>,
    ) -> Program {
        let supervisors = parts
            .iter_mut()
            .filter_map(|part| part.supervisor.take())
            .collect();
        let shared = Shared {
            db,
            parts,
            registry,
            stop,
            supervisors: Mutex::new(supervisors),
            stopped: watch::Sender::new(false),
        };
        Program {
            shared: Arc::new(shared),
        }
    }

    /// Returns when every part that is awaited is ready, reporting meanwhile how far they have
    /// come.
    async fn is_ready(
        &self,
        caught_up: bool,
        mut report: Option<&mut ProgressCallback>,
    ) -> Result<(), StartError> {
        let mut seen = Token::new(self.store().id());
        if caught_up {
            for partition in (0..self.store().partitions()).map(Partition) {
                seen = seen.with(partition, self.store().head(partition).await?.visible);
            }
        }
        let ready = async {
            for part in &self.shared.parts {
                part.is_ready(&seen).await?;
            }
            Ok(())
        };
        let mut ready = std::pin::pin!(ready);
        loop {
            let ended = tokio::time::timeout(setup::REPORT, &mut ready).await;
            if let Some(report) = &mut report {
                report(&self.status());
            }
            if let Ok(ended) = ended {
                return ended;
            }
        }
    }

    /// The handle of the part that was registered for the type `T`, if there is one.
    pub fn handle<T: 'static, H: Clone + 'static>(&self) -> Option<H> {
        self.handles::<T, H>().next()
    }

    /// The handles of all parts that were registered for the type `T`.
    pub fn handles<T: 'static, H: Clone + 'static>(&self) -> impl Iterator<Item = H> {
        let parts = self.shared.parts.iter();
        let of_type = parts.flat_map(|part| part.handles(TypeId::of::<T>()));
        of_type.filter_map(|handle| handle.downcast_ref::<H>().cloned())
    }

    /// The dead letters of the view, the tables, the reactor or the process manager of this name;
    /// nothing when the program has none.
    pub fn dead_letters(&self, name: &str) -> Option<DeadLetters> {
        let mut named = self.shared.parts.iter().filter(|part| {
            let followed = part.followed.as_ref();
            followed.is_some_and(|of| of.workers.name() == name)
        });
        // Of several versions the one that this program builds.
        let first = named.next()?;
        let wanted = if first.awaited {
            first
        } else {
            named.find(|other| other.awaited).unwrap_or(first)
        };
        wanted.followed.as_ref().map(|of| of.dead_letters.clone())
    }

    /// What the program is made of, for tools that do not know its types.
    pub fn registry(&self) -> &Registry {
        &self.shared.registry
    }

    /// What every projection, reactor and process manager does, and how far it has come: an entry
    /// for each generation that is followed here.
    pub fn status(&self) -> Vec<Status> {
        let now = self.shared.db.clock().now();
        let followed = self
            .shared
            .parts
            .iter()
            .filter_map(|of| of.followed.as_ref());
        let mut status: Vec<_> = followed.flat_map(|of| of.workers.status(now)).collect();
        status.sort_by(|a, b| (&a.view, a.generation).cmp(&(&b.view, b.generation)));
        status
    }

    /// Stops the workers between two steps and releases their slots. Returns when that is done,
    /// also when another task asked for it first.
    pub async fn stop(&self) {
        let _ = self.shared.stop.send(true);
        let supervisors: Vec<_> = {
            let mut supervisors = self
                .shared
                .supervisors
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            supervisors.drain(..).collect()
        };
        if !supervisors.is_empty() {
            let shared = Arc::clone(&self.shared);
            // A task of its own, so that the others learn of the end also when this is dropped.
            tokio::spawn(async move {
                for supervisor in supervisors {
                    if let Err(error) = supervisor.await {
                        tracing::error!(%error, "a supervisor ended with an error");
                    }
                }
                shared.stopped.send_replace(true);
            });
        } else if self.shared.parts.iter().all(|of| of.followed.is_none()) {
            return;
        }
        let mut stopped = self.shared.stopped.subscribe();
        let _ = stopped.wait_for(|stopped| *stopped).await;
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Each stops between two steps and releases its slots.
        let _ = self.stop.send(true);
    }
}

impl Deref for Program {
    type Target = Annals;

    fn deref(&self) -> &Annals {
        &self.shared.db
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program")
            .field("db", &self.shared.db)
            .field("parts", &self.shared.parts)
            .finish_non_exhaustive()
    }
}
