//! The tables of a running program: waited for, rebuilt, helped over an event that cannot be
//! handled.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{Partition, Position, Token};
use annals_runner::{CatchUp, DeadLetters, GenerationWorkers, ViewError};

use super::drain::DrainTables;
use super::hook::Tabled;
use super::program::TablesSubject;
use super::{SqlProjection, Tables};
use crate::context::ViewContext;
use crate::rebuild::Rebuild;

/// Custom tables that a program keeps up to date. Reading them is the application's own
/// business.
///
/// ```
/// # use std::time::Duration;
/// # use annals_core::Committed;
/// # use annals_projections::{Program, ReadModels, SqlProjection, ViewError};
/// # async fn example<DailyTotals: SqlProjection>(
/// #     db: Program,
/// #     done: Committed,
/// # ) -> Result<(), ViewError> {
/// db.tables::<DailyTotals>().wait_for(&done, Duration::from_secs(5)).await?;
/// // … and now select what it did.
/// # Ok(())
/// # }
/// ```
pub struct SqlProjectionHandle<P: SqlProjection> {
    context: ViewContext,
    workers: GenerationWorkers,
    tables: Tabled<P>,
}

impl<P: SqlProjection> SqlProjectionHandle<P> {
    pub(super) fn new(
        context: ViewContext,
        workers: GenerationWorkers,
        tables: Tabled<P>,
    ) -> SqlProjectionHandle<P> {
        SqlProjectionHandle {
            context,
            workers,
            tables,
        }
    }

    /// The tables that readers use; nothing while the first ones are being filled.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    pub async fn published(&self) -> Result<Option<Tables>, ViewError> {
        match self.readers().live().await {
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
        let readers = self.readers();
        readers
            .caught_up_with(None, &token, at_most)
            .await
            .map(|_| ())
    }

    fn readers(&self) -> CatchUp {
        CatchUp::new(&self.context, &self.workers)
    }

    /// Builds new tables from the log, beside those that serve, and switches to them when they are
    /// complete; goes back; drops old ones.
    pub fn rebuild(&self) -> Rebuild<P> {
        let subject = Arc::new(TablesSubject {
            options: self.context.options.clone(),
            tables: self.tables.clone(),
        });
        Rebuild::of(&self.context, &self.workers, P::NAME, subject)
    }

    /// Its dead letters, by the [keys](SqlProjection::key) of the events: listed, tried again,
    /// skipped or discarded with a reason, in the transaction of a step of every generation of the
    /// tables.
    pub fn dead_letters(&self) -> DeadLetters {
        let drain = Arc::new(DrainTables {
            context: self.context.clone(),
            workers: self.workers.clone(),
            tables: self.tables.clone(),
        });
        DeadLetters::new(&self.context, &self.workers, drain)
    }

    /// Skips an event that stops the projection, as [`DeadLetters::skip_event`] does.
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

    /// [`skip_event`](SqlProjectionHandle::skip_event) of this partition: positions count for each
    /// partition by itself.
    ///
    /// # Errors
    ///
    /// As [`DeadLetters::skip_event`].
    ///
    /// ```
    /// # use annals_core::Partition;
    /// # use annals_projections::{SqlProjection, SqlProjectionHandle, ViewError};
    /// # async fn example<P>(tables: SqlProjectionHandle<P>) -> Result<(), ViewError>
    /// # where
    /// #     P: SqlProjection,
    /// # {
    /// tables.skip_event_in(Partition(2), 7, "written by a test").await
    /// # }
    /// ```
    pub async fn skip_event_in(
        &self,
        partition: Partition,
        position: impl Into<Position>,
        reason: impl Into<String>,
    ) -> Result<(), ViewError> {
        let dead_letters = self.dead_letters();
        dead_letters
            .skip_event_in(partition, position, reason)
            .await
    }
}

impl<P: SqlProjection> Clone for SqlProjectionHandle<P> {
    fn clone(&self) -> SqlProjectionHandle<P> {
        SqlProjectionHandle::new(
            self.context.clone(),
            self.workers.clone(),
            self.tables.clone(),
        )
    }
}

impl<P: SqlProjection> fmt::Debug for SqlProjectionHandle<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlProjectionHandle")
            .field("name", &P::NAME)
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}
