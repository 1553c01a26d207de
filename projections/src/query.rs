//! Asking a view: now, after a write of one's own, as of a moment, in pages.

mod dead_letters;
mod get;
mod history;
mod many;
mod on_demand;
mod past;
mod rows;
mod standing;
mod valid;
mod watch;

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use annals_core::{CommitError, Failure, Generation, Position, StoreError, Token};

pub use get::Get;
pub use history::{Changed, ChangedBetween, HistoryOf, RowDiff, RowHistory, VersionOf};
pub use many::Many;
pub use rows::{RowEntry, RowsFound, RowsOf};
pub use watch::{Change, Update, Watch, WatchAll};

use crate::catch_up::CatchUp;
use crate::key::ViewKey;
use crate::rows::Unwritable;
use crate::supervisor::{GenerationWorkers, WorkerContext};
use crate::view::View;
use crate::worker::WorkError;

/// The rows of a view.
///
/// ```
/// # use annals_projections::{Program, View, ViewError};
/// # async fn example<Balance: View<Key = String> + std::fmt::Debug>(db: Program) -> Result<(), ViewError> {
/// let now = db.view::<Balance>().get("alice").await?;
/// let then = db.view::<Balance>().get("alice").as_of("2026-03-31T00:00:00Z").await?;
/// # Ok(())
/// # }
/// ```
pub struct ViewHandle<V: View> {
    context: WorkerContext,
    following: GenerationWorkers,
    view: PhantomData<fn() -> V>,
}

/// Why a view did not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// It is being built for the first time in this version; nothing of it is shown before it is
    /// complete.
    #[error("the view is being built: {done} of {total} events")]
    Building {
        /// Events looked through.
        done: u64,
        /// Events there are.
        total: u64,
    },
    /// It has not come as far as was asked for in time.
    #[error("the view has not reached {token} within {waited:?}: {held}")]
    NotYet {
        /// What was asked for.
        token: Token,
        /// How long was waited.
        waited: Duration,
        /// What holds it.
        held: String,
    },
    /// A worker stopped and will not come so far before a person has looked: waiting longer is of
    /// no use.
    #[error("the view does not go on: {reason}")]
    Stopped {
        /// Why, and what to do.
        reason: String,
    },
    /// The question is older than what is kept.
    #[error("the view keeps its past since position {since}")]
    BeforeHistory {
        /// The first position that can be asked for.
        since: Position,
    },
    /// The question can never be answered as put.
    #[error(transparent)]
    Invalid(#[from] annals_core::Invalid),
    /// A row, or an event that has to be folded again, cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// The store could not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<CommitError> for ViewError {
    fn from(error: CommitError) -> ViewError {
        match error {
            CommitError::Store(error) => ViewError::Store(error),
            CommitError::Invalid(invalid) => ViewError::Invalid(invalid),
            CommitError::BeforeHistory { since, .. } => ViewError::BeforeHistory { since },
            // It passes: another generation serves by now, or the next one who asks gets the slot.
            error => ViewError::Store(StoreError::new(Failure::Unavailable, error.to_string())),
        }
    }
}

impl From<WorkError> for ViewError {
    fn from(error: WorkError) -> ViewError {
        match error {
            WorkError::Again(error) => error.into(),
            error => ViewError::Unreadable(crate::worker::chain(&error)),
        }
    }
}

impl ViewError {
    /// An event or a row that cannot be read.
    fn unreadable(error: impl std::error::Error) -> ViewError {
        ViewError::Unreadable(crate::worker::chain(&error))
    }
}

impl From<Unwritable> for ViewError {
    fn from(error: Unwritable) -> ViewError {
        ViewError::Unreadable(crate::worker::chain(&error))
    }
}

impl<V: View> ViewHandle<V> {
    /// How long a question waits for what it was told to see, when it says nothing else.
    pub const WAIT: Duration = Duration::from_secs(10);

    pub(crate) fn new(context: WorkerContext, following: GenerationWorkers) -> ViewHandle<V> {
        ViewHandle {
            context,
            following,
            view: PhantomData,
        }
    }

    /// One row.
    pub fn get(&self, key: impl Into<V::Key>) -> Get<V> {
        Get::new(self.clone(), key.into())
    }

    /// Rows: all, a range of keys, or by an index, in pages.
    pub fn rows(&self) -> RowsOf<V> {
        RowsOf::new(self.clone())
    }

    /// Returns when the view has come as far as `token` asks, within `at_most`.
    ///
    /// # Errors
    ///
    /// [`ViewError::NotYet`], which says what holds the view; [`ViewError::Stopped`] at once when
    /// it will not come so far.
    pub async fn wait_for(
        &self,
        token: impl Into<Token>,
        at_most: Duration,
    ) -> Result<(), ViewError> {
        let token = token.into();
        if self.is_live() {
            return self.check_token(&token);
        }
        self.reach(None, &token, at_most).await.map(|_| ())
    }

    /// The generation that readers see, at least as far as they ask.
    async fn live_at_least(
        &self,
        token: Option<&Token>,
        at_most: Duration,
    ) -> Result<Generation, ViewError> {
        let live = self.live().await?;
        match token {
            Some(token) => self.reach(Some(live), token, at_most).await,
            None => Ok(live),
        }
    }

    /// Waits until a generation that readers see has come so far: the `live` one, or whichever it
    /// is by then.
    async fn reach(
        &self,
        live: Option<Generation>,
        token: &Token,
        at_most: Duration,
    ) -> Result<Generation, ViewError> {
        self.check_token(token)?;
        self.readers().reach(live, token, at_most).await
    }

    /// The generation that readers of this version see now.
    async fn live(&self) -> Result<Generation, ViewError> {
        self.check_kept()?;
        self.readers().live().await
    }

    fn readers(&self) -> CatchUp<'_> {
        CatchUp {
            context: &self.context,
            following: &self.following,
            version: V::VERSION,
        }
    }

    /// Refuses what is asked of kept rows when there are none.
    fn check_kept(&self) -> Result<(), ViewError> {
        if !self.is_live() {
            return Ok(());
        }
        let view = V::NAME;
        let what = format!(
            "view `{view}` is live: nothing of it is kept, so it can be asked for rows, and for \
             nothing else"
        );
        Err(annals_core::Invalid::new(what).into())
    }

    fn key(&self, key: &V::Key) -> Result<String, ViewError> {
        Ok(crate::key::checked(key)?)
    }
}

impl<V: View> Clone for ViewHandle<V> {
    fn clone(&self) -> ViewHandle<V> {
        ViewHandle {
            context: self.context.clone(),
            following: self.following.clone(),
            view: PhantomData,
        }
    }
}

impl<V: View> fmt::Debug for ViewHandle<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ViewHandle")
            .field("view", &V::NAME)
            .field("following", &self.following)
            .finish_non_exhaustive()
    }
}

/// The typed key of a stored row.
fn typed_key<V: View>(text: &str) -> Result<V::Key, ViewError> {
    V::Key::from_key(text)
        .ok_or_else(|| ViewError::Unreadable(format!("`{text}` is no key of view `{}`", V::NAME)))
}
