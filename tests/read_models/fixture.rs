//! The fixture of these tests: logs in files or in databases of a server, which
//! other processes open too.

use std::fmt;
use std::sync::Arc;

use annals::prelude::*;
use annals::{Annals, Store};
use annals_core::conformance::rounds;
use async_trait::async_trait;

use crate::child::ChildProcess;

/// Where a log is, as another process can be told.
#[derive(Clone, Debug)]
pub(crate) struct Location(pub(crate) String);

impl Location {
    pub(crate) async fn open(&self) -> Arc<dyn Store> {
        Arc::clone(Annals::open(&self.0).await.unwrap().store())
    }
}

/// Some logs of this test alone, by their names; gone when this is dropped.
#[async_trait]
pub(crate) trait SharedLogs: fmt::Debug + Send + Sync {
    async fn place(&self, log: &str) -> Location;

    /// Puts a copy of one log, which is not used any more, in the place of another one.
    async fn copy(&self, from: &str, to: &str);

    /// All that is stored in the tables of a log, one text a row, bytes as they are.
    async fn stored(&self, log: &str) -> Vec<String>;

    /// Ends all connections to a log, and says how many: none where there are none.
    async fn cut_off(&self, log: &str) -> usize;

    /// From now on a step of a worker is written in this log, and its COMMIT does not come to its
    /// end.
    async fn hold_commits(&self, log: &str) -> Box<dyn HeldCommit>;
}

/// A log in which the next step of a worker is held between the write and the end of its COMMIT.
#[async_trait]
pub(crate) trait HeldCommit: Send {
    /// Returns when a step of this process is held there.
    async fn is_reached_by(&mut self, process: &mut ChildProcess);

    /// Ends it, when the process is dead: returns whether it was committed all the same. It is if
    /// it was `wanted`, where a server has it in its hands.
    async fn end(self: Box<Self>, wanted: bool) -> bool;
}

/// How often a worker is killed at each of its steps.
pub(crate) fn kills() -> u64 {
    rounds(8, 200)
}
