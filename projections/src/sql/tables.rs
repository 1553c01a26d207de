//! The tables of a running program: waited for, built anew, helped over an event that makes no
//! sense.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{Generation, Invalid, Position, Token};

use super::hook::Subject;
use super::worker::{TableWorker, spec_of};
use super::{SqlProjection, Tables};
use crate::catch_up::CatchUp;
use crate::dead_letters::DeadLetters;
use crate::location::BoxFuture;
use crate::query::ViewError;
use crate::rebuild::Rebuild;
use crate::status::Kind;
use crate::supervisor::{GenerationWorkers, WorkerContext};
use crate::worker::Progress;

/// Tables of one's own that a program keeps up to date. Reading them is the application's own
/// business.
///
/// ```
/// # use std::time::Duration;
/// # use annals_core::Committed;
/// # use annals_projections::{Program, SqlProjection, ViewError};
/// # async fn example<DailyTotals: SqlProjection>(db: Program, done: Committed) -> Result<(), ViewError> {
/// db.tables::<DailyTotals>().wait_for(&done, Duration::from_secs(5)).await?;
/// // … and now select what it did.
/// # Ok(())
/// # }
/// ```
pub struct SqlProjectionHandle<P: SqlProjection> {
    context: WorkerContext,
    following: GenerationWorkers,
    subject: Subject<P>,
}

impl<P: SqlProjection> SqlProjectionHandle<P> {
    pub(super) fn new(
        context: WorkerContext,
        following: GenerationWorkers,
        subject: Subject<P>,
    ) -> SqlProjectionHandle<P> {
        SqlProjectionHandle {
            context,
            following,
            subject,
        }
    }

    /// The tables that readers use; nothing while the first ones are being filled.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    pub async fn published(&self) -> Result<Option<Tables>, ViewError> {
        match self.reach().live().await {
            Ok(live) => Ok(Some(Tables::of(live.id))),
            Err(ViewError::Building { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns when the tables that readers use have come as far as `token` asks, within `at_most`.
    ///
    /// # Errors
    ///
    /// [`ViewError::NotYet`], which says what holds them, and [`ViewError::Stopped`] at once when
    /// an event makes no sense.
    pub async fn wait_for(
        &self,
        token: impl Into<Token>,
        at_most: Duration,
    ) -> Result<(), ViewError> {
        let token = token.into();
        if token.log() != self.context.db.store().id() {
            return Err(Invalid::new(format!("the token {token} is of another log")).into());
        }
        self.reach().reach(None, &token, at_most).await.map(|_| ())
    }

    fn reach(&self) -> CatchUp<'_> {
        CatchUp {
            context: &self.context,
            following: &self.following,
            version: P::VERSION,
        }
    }

    /// Builds new tables from the log, beside those that serve, and switches to them when they are
    /// complete; goes back; drops old ones.
    pub fn rebuild(&self) -> Rebuild<P> {
        let spec = spec_of::<P>(&self.context);
        let generations = Arc::new(self.subject.clone());
        Rebuild::of(
            self.context.clone(),
            self.following.clone(),
            P::NAME,
            spec,
            generations,
        )
    }

    /// What waits for a person, by the [keys](SqlProjection::key) of the events: listed, tried
    /// again, skipped or discarded with a reason, in the transaction of a step of every generation
    /// of the tables.
    pub fn dead_letters(&self) -> DeadLetters {
        let context = self.context.clone();
        let following = self.following.clone();
        let subject = self.subject.clone();
        let settle = move |generation: Generation, slot: u16, keys: Vec<String>| {
            let progress = Progress::of(Kind::View, &generation, slot, context.db.clock());
            let mut context = context.clone();
            let following = following.clone();
            let subject = subject.clone();
            context.owner = format!("{}-settles", context.owner);
            let worker = TableWorker {
                context,
                following,
                subject,
                generation,
                progress,
            };
            let settled: BoxFuture<'static, _> =
                Box::pin(async move { worker.settle(&keys).await });
            settled
        };
        let spec = spec_of::<P>(&self.context);
        DeadLetters::settling(
            self.context.clone(),
            self.following.clone(),
            spec,
            Arc::new(settle),
        )
    }

    /// Leaves an event out that stops the projection, as [`DeadLetters::skip_event`] does.
    ///
    /// # Errors
    ///
    /// As [`DeadLetters::skip_event`].
    pub async fn skip_event(
        &self,
        position: impl Into<Position>,
        reason: impl Into<String>,
    ) -> Result<(), ViewError> {
        self.dead_letters().skip_event(position, reason).await
    }
}

impl<P: SqlProjection> Clone for SqlProjectionHandle<P> {
    fn clone(&self) -> SqlProjectionHandle<P> {
        SqlProjectionHandle::new(
            self.context.clone(),
            self.following.clone(),
            self.subject.clone(),
        )
    }
}

impl<P: SqlProjection> fmt::Debug for SqlProjectionHandle<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlProjectionHandle")
            .field("name", &P::NAME)
            .field("following", &self.following)
            .finish_non_exhaustive()
    }
}
