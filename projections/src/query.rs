//! Asking a view: now, after a write of one's own, as of a moment, in pages.

mod dead_letters;
mod filling;
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
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{Generation, Invalid, RowsBy, Token};
use annals_runner::{CatchUp, GenerationWorkers, Subject, ViewError, contained};

pub use get::Get;
pub use history::{Changed, ChangedBetween, HistoryOf, RowDiff, RowHistory, VersionOf};
pub use many::Many;
pub use rows::{RowEntry, RowsFound, RowsOf};
pub use watch::{Change, Update, Watch, WatchAll};

use crate::context::ViewContext;
use crate::key::ViewKey;
use crate::rebuild::Rebuild;
use crate::subject::ViewSubject;
use crate::view::View;

/// The rows of a view.
///
/// ```
/// # use annals_projections::ReadModels as _;
/// # use annals_projections::{Program, View, ViewError};
/// # async fn example<Balance: View<Key = String> + std::fmt::Debug>(
/// #     db: Program,
/// # ) -> Result<(), ViewError> {
/// let now = db.view::<Balance>().get("alice").await?;
/// let then = db.view::<Balance>().get("alice").as_of("2026-03-31T00:00:00Z").await?;
/// # Ok(())
/// # }
/// ```
pub struct ViewHandle<V: View> {
    context: ViewContext,
    workers: GenerationWorkers,
    output: Option<Arc<OutputRows>>,
    view: PhantomData<fn() -> V>,
}

/// Begins the entries that a row has in the indexes of its own output of a pipeline.
pub(crate) const OWN_ENTRY: char = '=';

/// Where the rows of a view are that a pipeline writes.
pub(crate) struct OutputRows {
    /// What the stored keys begin with.
    pub(crate) prefix: String,
    /// The pipeline, with all that it writes.
    pub(crate) subject: Arc<dyn Subject>,
    pub(crate) pipeline: &'static str,
}

impl<V: View> ViewHandle<V> {
    /// How long a query waits for what it is to see, when it says nothing else.
    pub const WAIT: Duration = Duration::from_secs(10);

    pub(crate) fn new(context: ViewContext, workers: GenerationWorkers) -> ViewHandle<V> {
        ViewHandle {
            context,
            workers,
            output: None,
            view: PhantomData,
        }
    }

    /// The rows that a pipeline writes into the view.
    #[cfg_attr(
        not(feature = "streams"),
        expect(dead_code, reason = "only pipelines need it")
    )]
    pub(crate) fn of_pipeline(mut self, output: Arc<OutputRows>) -> ViewHandle<V> {
        self.output = Some(output);
        self
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
            return self.readers().check_token(&token);
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
        self.readers().caught_up_with(live, token, at_most).await
    }

    /// The generation that readers of this version see now.
    async fn live(&self) -> Result<Generation, ViewError> {
        self.check_kept()?;
        self.readers().live().await
    }

    fn readers(&self) -> CatchUp {
        CatchUp::new(&self.context, &self.workers)
    }

    /// Whether a token is one that this log can have given.
    fn check_token(&self, token: &Token) -> Result<(), ViewError> {
        self.readers().check_token(token)
    }

    /// Builds a new generation from the log, beside the one that serves.
    pub(crate) fn rebuild(&self) -> Rebuild<V> {
        if let Some(output) = &self.output {
            let subject = Arc::clone(&output.subject);
            return Rebuild::of(&self.context, &self.workers, output.pipeline, subject);
        }
        let subject = ViewSubject::<V>::of(&self.context);
        Rebuild::of(&self.context, &self.workers, V::NAME, subject)
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
        Err(Invalid::new(what).into())
    }

    fn key(&self, key: &V::Key) -> Result<String, ViewError> {
        Ok(self.stored_key(&crate::key::checked(key)?))
    }

    /// The text of a key as it is stored.
    fn stored_key(&self, text: &str) -> String {
        match &self.output {
            Some(output) => format!("{}{text}", output.prefix),
            None => text.to_owned(),
        }
    }

    /// Whether a stored row is one of this view.
    fn is_mine(&self, stored: &str) -> bool {
        let output = self.output.as_ref();
        output.is_none_or(|output| stored.starts_with(&output.prefix))
    }

    /// What is asked for, as it is stored.
    fn stored_rows(&self, by: RowsBy) -> RowsBy {
        let Some(output) = &self.output else {
            return by;
        };
        let stored = |key: String| self.stored_key(&key);
        match by {
            RowsBy::Keys(keys) => RowsBy::Keys(keys.into_iter().map(stored).collect()),
            RowsBy::KeyRange(from, to) => {
                let first = || Bound::Included(output.prefix.clone());
                // The end of a prefix is a character of one byte.
                let mut end = output.prefix.clone();
                end.pop();
                end.push('\u{1f}');
                let from = match from {
                    Bound::Unbounded => first(),
                    from => from.map(stored),
                };
                let to = match to {
                    Bound::Unbounded => Bound::Excluded(end),
                    to => to.map(stored),
                };
                RowsBy::KeyRange(from, to)
            }
            RowsBy::Index { name, range } => RowsBy::Index {
                name: self.stored_key(&name),
                range: own_entries(range),
            },
            by => by,
        }
    }

    /// The typed key of a stored row.
    fn typed_key(&self, stored: &str) -> Result<V::Key, ViewError> {
        let prefix = self.output.as_ref().map_or("", |output| &output.prefix);
        let text = stored.strip_prefix(prefix).unwrap_or(stored);
        let unreadable = |why: &str| {
            let text = text.escape_debug();
            ViewError::Unreadable(format!("`{text}` is no key of view `{}`{why}", V::NAME))
        };
        let key = contained(|| V::Key::from_key(text));
        key.map_err(|panic| unreadable(&format!(": {panic}")))?
            .ok_or_else(|| unreadable(""))
    }
}

/// The entries of a range in an index of an output of a pipeline, in which the rows of other
/// outputs have empty ones.
fn own_entries((from, to): (Bound<String>, Bound<String>)) -> (Bound<String>, Bound<String>) {
    let stored = |entry: String| format!("{OWN_ENTRY}{entry}");
    let from = match from {
        Bound::Unbounded => Bound::Included(OWN_ENTRY.to_string()),
        from => from.map(stored),
    };
    (from, to.map(stored))
}

impl<V: View> Clone for ViewHandle<V> {
    fn clone(&self) -> ViewHandle<V> {
        ViewHandle {
            context: self.context.clone(),
            workers: self.workers.clone(),
            output: self.output.clone(),
            view: PhantomData,
        }
    }
}

impl<V: View> fmt::Debug for ViewHandle<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ViewHandle")
            .field("view", &V::NAME)
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}
