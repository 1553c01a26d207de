//! The tables of a running program: waited for, built anew, helped over an event that makes no sense.

use std::fmt;
use std::time::Duration;

use annals_core::{Invalid, Partition, Position, ReadLog, Token, Verdict};

use super::hook::Subject;
use super::worker::spec_of;
use super::{SqlProject, Tables};
use crate::query::ViewError;
use crate::reach::Reach;
use crate::rebuild::Rebuild;
use crate::supervisor::{Following, Site};

/// Tables of one's own that a program keeps up to date. Reading them is the application's own business.
///
/// ```
/// # use std::time::Duration;
/// # use annals_core::Done;
/// # use annals_projections::{Program, SqlProject, ViewError};
/// # async fn example<DailyTotals: SqlProject>(db: Program, done: Done) -> Result<(), ViewError> {
/// db.tables::<DailyTotals>().wait_for(&done, Duration::from_secs(5)).await?;
/// // … and now select what it did.
/// # Ok(())
/// # }
/// ```
pub struct SqlTables<P: SqlProject> {
    site: Site,
    following: Following,
    subject: Subject<P>,
}

impl<P: SqlProject> SqlTables<P> {
    pub(super) fn new(site: Site, following: Following, subject: Subject<P>) -> SqlTables<P> {
        SqlTables { site, following, subject }
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
    /// [`ViewError::NotYet`], which says what holds them, and [`ViewError::Stopped`] at once when an event makes no sense.
    pub async fn wait_for(&self, token: impl Into<Token>, at_most: Duration) -> Result<(), ViewError> {
        let token = token.into();
        if token.log() != self.site.db.store().id() {
            return Err(Invalid::new(format!("the token {token} is of another log")).into());
        }
        self.reach().reach(None, &token, at_most).await.map(|_| ())
    }

    fn reach(&self) -> Reach<'_> {
        Reach { site: &self.site, following: &self.following, version: P::VERSION }
    }

    /// Builds new tables from the log, beside those that serve, and switches to them when they are complete; goes back; drops old ones.
    pub fn rebuild(&self) -> Rebuild<P> {
        let spec = spec_of::<P>(&self.site);
        let generations = std::sync::Arc::new(self.subject.clone());
        Rebuild::of(self.site.clone(), self.following.clone(), P::NAME, spec, generations)
    }

    /// Leaves an event out that stops the projection. The reason is kept, and every rebuild leaves the event out too.
    ///
    /// # Errors
    ///
    /// [`ViewError::Invalid`] without a reason, or when there is no such event.
    pub async fn skip_event(&self, position: impl Into<Position>, reason: impl Into<String>) -> Result<(), ViewError> {
        self.skip_event_in(Partition(0), position, reason).await
    }

    /// [`skip_event`](SqlTables::skip_event) in a log of several partitions.
    ///
    /// # Errors
    ///
    /// As [`skip_event`](SqlTables::skip_event).
    pub async fn skip_event_in(
        &self,
        partition: Partition,
        position: impl Into<Position>,
        reason: impl Into<String>,
    ) -> Result<(), ViewError> {
        let (position, reason) = (position.into(), reason.into());
        if reason.is_empty() {
            return Err(Invalid::new("an event is left out without a reason").into());
        }
        let read = ReadLog::after(position.minus(1)).up_to(position).partition(partition).limit(1);
        let Some(event) = self.site.db.store().read(read).await?.events.into_iter().next() else {
            return Err(
                Invalid::new(format!("there is no event at position {position} of partition {partition}")).into()
            );
        };
        let (view, decided_at) = (P::NAME.to_owned(), self.site.db.clock().now());
        let verdict = Verdict { view, partition, position, event: event.id, key: None, reason, decided_at };
        self.site.views.keep_verdict(verdict).await?;
        self.following.begin_anew();
        Ok(())
    }
}

impl<P: SqlProject> Clone for SqlTables<P> {
    fn clone(&self) -> SqlTables<P> {
        SqlTables::new(self.site.clone(), self.following.clone(), self.subject.clone())
    }
}

impl<P: SqlProject> fmt::Debug for SqlTables<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlTables").field("name", &P::NAME).field("following", &self.following).finish_non_exhaustive()
    }
}
