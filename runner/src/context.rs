//! What every worker of a program works with.

use std::sync::Arc;
use std::time::Duration;

use annals_core::{Annals, Clock, Invalid, Store};

use crate::lease::Heartbeats;
use crate::location::ViewLocation;
use crate::poll::Poll;
use crate::registry::Registry;

/// How long workers of a projection hold, wait and pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Timing {
    /// How long a worker that does not renew its lease keeps its slot.
    pub lease: Duration,
    /// How long a worker waits for a hint before it polls.
    pub poll: Duration,
    /// The first wait after a failure of a store.
    pub back_off: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            lease: Duration::from_secs(10),
            poll: Duration::from_millis(250),
            back_off: Duration::from_millis(50),
        }
    }
}

/// Workers with less would do nothing but renew, poll or try again.
const SHORTEST: Duration = Duration::from_millis(1);

impl Timing {
    /// Refuses times with which nothing could work, by their names.
    ///
    /// # Errors
    ///
    /// One of them is shorter than a millisecond.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use annals_runner::Timing;
    ///
    /// let mut timing = Timing::default();
    /// assert!(timing.check().is_ok());
    /// timing.lease = Duration::ZERO;
    /// let refused = timing.check().unwrap_err();
    /// assert_eq!(refused.to_string(), "`lease` is 0ns, and at least 1ms is needed");
    /// ```
    pub fn check(&self) -> Result<(), Invalid> {
        let times = [
            ("lease", self.lease),
            ("poll", self.poll),
            ("back_off", self.back_off),
        ];
        match times.into_iter().find(|(_, time)| *time < SHORTEST) {
            None => Ok(()),
            Some((setting, time)) => Err(Invalid::new(format!(
                "`{setting}` is {time:?}, and at least {SHORTEST:?} is needed"
            ))),
        }
    }
}

/// The log, the view store and the name under which a program works.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkerContext {
    /// The log and its clock.
    pub db: Annals,
    /// Where checkpoints, rows and leases are.
    pub views: ViewLocation,
    /// The owner of this program's leases.
    pub owner: String,
    /// How long its workers hold, wait and pause.
    pub timing: Timing,
    /// What everything that waits in this process shares.
    pub poll: Poll,
    /// What the program is made of: for parts that follow another part of it by its name.
    pub registry: Registry,
    pub(crate) heartbeats: Heartbeats,
}

impl WorkerContext {
    /// With the default timing.
    pub fn new(db: &Annals, views: &ViewLocation, owner: &str) -> WorkerContext {
        WorkerContext {
            db: db.clone(),
            views: views.clone(),
            owner: owner.into(),
            timing: Timing::default(),
            poll: Poll::new(db.store(), views),
            registry: Registry::new(),
            heartbeats: Heartbeats::default(),
        }
    }

    /// The same over another handle to the store, with the poll and the heartbeats of the process.
    #[must_use]
    pub(crate) fn over(&self, db: &Annals) -> WorkerContext {
        WorkerContext {
            db: db.clone(),
            ..self.clone()
        }
    }

    /// The log.
    pub fn log(&self) -> &Arc<dyn Store> {
        self.db.store()
    }

    /// The clock of the program.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        self.db.clock()
    }
}
