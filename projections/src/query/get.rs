//! One row.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use annals_core::{Instant, Moment, Position, ReadRows, RowsBy, Token};

use annals_runner::ViewError;

use super::ViewHandle;
use crate::fold::decoded;
use crate::lifecycle::Lifecycle;
use crate::view::View;

/// A row about to be read. Answers with the row, or nothing when there is none.
///
/// ```
/// # use annals_projections::ReadModels as _;
/// # use annals_core::Committed;
/// # use annals_projections::{Program, View, ViewError};
/// # async fn example<Balance: View<Key = String>>(
/// #     db: Program,
/// #     done: Committed,
/// # ) -> Result<(), ViewError> {
/// let mine = db.view::<Balance>().get("alice").at_least(&done).await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is read until it is awaited"]
pub struct Get<V: View> {
    views: ViewHandle<V>,
    key: V::Key,
    at_least: Option<Token>,
    wait: Duration,
    as_of: Option<Moment>,
    valid_at: Option<Instant>,
}

impl<V: View> Get<V> {
    pub(super) fn new(views: ViewHandle<V>, key: V::Key) -> Get<V> {
        Get {
            views,
            key,
            at_least: None,
            wait: ViewHandle::<V>::WAIT,
            as_of: None,
            valid_at: None,
        }
    }

    /// Waits until the view has come as far as this: what a command returned, or a token that came
    /// with a request.
    pub fn at_least(mut self, token: impl Into<Token>) -> Get<V> {
        self.at_least = Some(token.into());
        self
    }

    /// Waits at most so long. Default: [`ViewHandle::WAIT`].
    pub fn within(mut self, wait: Duration) -> Get<V> {
        self.wait = wait;
        self
    }

    /// As it was at a moment: just after a position of the log, or at a recorded time.
    pub fn as_of(mut self, moment: impl Into<Moment>) -> Get<V> {
        self.as_of = Some(moment.into());
        self
    }

    /// As it was in the world at a time, by when events occurred: what occurred later does not
    /// count. Together with [`as_of`](Get::as_of): by what was known then. Only of views with
    /// `history(bitemporal)`; it folds all events that touched the row.
    pub fn valid_at(mut self, time: impl Into<Instant>) -> Get<V> {
        self.valid_at = Some(time.into());
        self
    }

    async fn get(self) -> Result<Option<V>, ViewError> {
        let views = &self.views;
        if views.is_live() {
            self.at_least
                .iter()
                .try_for_each(|token| views.check_token(token))?;
            let valid_at = self.valid_at.map(|instant| instant.time()).transpose()?;
            let asked = views.asked(self.as_of, valid_at).await?;
            return Ok(views
                .values_on_demand(&[self.key], &asked)
                .await?
                .pop()
                .flatten());
        }
        if views.context.lifecycle == Lifecycle::Inline
            && self.valid_at.is_none()
            && self.as_of.is_none()
        {
            let live = views.live().await?;
            if live.spec.inline {
                // Everything that is in the stream is in the answer, or why it is not.
                let at_least = self.at_least.as_ref();
                at_least.map_or(Ok(()), |token| views.check_token(token))?;
                return views.standing_value(&live, &self.key, at_least).await;
            }
        }
        let live = views
            .live_at_least(self.at_least.as_ref(), self.wait)
            .await?;
        let key = views.key(&self.key)?;
        let valid_at = self.valid_at.map(|instant| instant.time()).transpose()?;
        let Some(moment) = self.as_of else {
            if let Some(time) = valid_at {
                return views.valid_value(&live, &key, time, Position::MAX).await;
            }
            if let Some(token) = &self.at_least {
                views.check_dead_letters(&live, &key, token).await?;
            }
            let read = ReadRows::of(live.id, RowsBy::Keys(vec![key.clone()])).limit(1);
            let page = views.context.views.read_rows(read).await?;
            let row = page.rows.into_iter().next();
            return Ok(decoded(&key, row.map(|row| row.value).as_ref())?);
        };
        let (generation, position) = views.at_moment(live, moment, self.wait).await?;
        if let Some(time) = valid_at {
            return views.valid_value(&generation, &key, time, position).await;
        }
        let values = views.past_values(&generation, &[key], position).await?;
        Ok(values.into_iter().next().flatten())
    }
}

impl<V: View> IntoFuture for Get<V> {
    type Output = Result<Option<V>, ViewError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.get())
    }
}

impl<V: View> fmt::Debug for Get<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Get")
            .field("view", &V::NAME)
            .field("key", &self.key)
            .field("as_of", &self.as_of)
            .finish_non_exhaustive()
    }
}
