//! Several rows of one moment.

use std::collections::HashMap;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use annals_core::{CommitError, Failure, Generation, Moment, StoreError, Token};
use bytes::Bytes;

use annals_runner::ViewError;

use super::ViewHandle;
use crate::fold::decoded;
use crate::keyed::KeyedRows;
use crate::view::View;

/// How often rows that do not fit into one page are read until nothing moved in between.
const ATTEMPTS: usize = 20;

/// Several rows about to be read, all of one moment. Answers in the order of the keys, with nothing
/// for those without a row. The answer is no page: it is as large as the rows of these keys are;
/// [`rows().of(keys)`](crate::RowsOf::of) reads them page by page.
///
/// ```
/// # use annals_projections::ReadModels as _;
/// # use annals_projections::{Program, View, ViewError};
/// # async fn example<Balance: View<Key = String>>(db: Program) -> Result<(), ViewError> {
/// let both = db.view::<Balance>().many(["alice", "bob"]).await?;
/// assert_eq!(both.len(), 2);
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is read until it is awaited"]
pub struct Many<V: View> {
    views: ViewHandle<V>,
    keys: Vec<V::Key>,
    at_least: Option<Token>,
    wait: Duration,
    as_of: Option<Moment>,
}

impl<V: View> ViewHandle<V> {
    /// Several rows of one moment, in the order of the keys.
    pub fn many(&self, keys: impl IntoIterator<Item = impl Into<V::Key>>) -> Many<V> {
        let keys = keys.into_iter().map(Into::into).collect();
        Many {
            views: self.clone(),
            keys,
            at_least: None,
            wait: ViewHandle::<V>::WAIT,
            as_of: None,
        }
    }
}

impl<V: View> Many<V> {
    /// Waits until the view has come as far as this.
    pub fn at_least(mut self, token: impl Into<Token>) -> Many<V> {
        self.at_least = Some(token.into());
        self
    }

    /// Waits at most so long. Default: [`ViewHandle::WAIT`].
    pub fn within(mut self, wait: Duration) -> Many<V> {
        self.wait = wait;
        self
    }

    /// As they were at a moment: just after a position of the log, or at a recorded time.
    pub fn as_of(mut self, moment: impl Into<Moment>) -> Many<V> {
        self.as_of = Some(moment.into());
        self
    }

    async fn read(self) -> Result<Vec<Option<V>>, ViewError> {
        let views = &self.views;
        if views.is_live() {
            self.at_least
                .iter()
                .try_for_each(|token| views.check_token(token))?;
            let asked = views.asked(self.as_of, None).await?;
            return views.values_on_demand(&self.keys, &asked).await;
        }
        let live = views
            .live_at_least(self.at_least.as_ref(), self.wait)
            .await?;
        let keys = self
            .keys
            .iter()
            .map(|key| views.key(key))
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(moment) = self.as_of {
            let (generation, position) = views.at_moment(live, moment, self.wait).await?;
            return views.past_values(&generation, &keys, position).await;
        }
        let at_least = (self.at_least.as_ref(), self.wait);
        let found = views.rows_of_one_moment(live, &keys, at_least).await?;
        keys.iter()
            .map(|key| Ok(decoded(key, found.get(key))?))
            .collect()
    }
}

impl<V: View> ViewHandle<V> {
    async fn rows_of_one_moment(
        &self,
        mut live: Generation,
        keys: &[String],
        (at_least, wait): (Option<&Token>, Duration),
    ) -> Result<HashMap<String, Bytes>, ViewError> {
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                // Another one may serve by now, which has not come so far yet.
                live = self.live_at_least(at_least, wait).await?;
            }
            if let Some(token) = at_least {
                for key in keys {
                    self.check_dead_letters(&live, key, token).await?;
                }
            }
            if live.spec.inline {
                // Appends change rows without a checkpoint that tells.
                let rows = self.standing(&live, keys).await?;
                return Ok(rows
                    .into_iter()
                    .filter_map(|row| Some((row.key, row.value?)))
                    .collect());
            }
            match KeyedRows::read(&*self.context.views, live.id, keys).await {
                Ok(found) if found.checkpoints.is_some() => return Ok(found.rows),
                // It went on between two pages, or another generation serves by now.
                Ok(_) | Err(CommitError::Gone(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let what = format!(
            "{} rows of view `{}` change faster than they are read: ask for fewer",
            keys.len(),
            V::NAME
        );
        Err(StoreError::new(Failure::Unavailable, what).into())
    }
}

impl<V: View> IntoFuture for Many<V> {
    type Output = Result<Vec<Option<V>>, ViewError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.read())
    }
}

impl<V: View> fmt::Debug for Many<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Many")
            .field("view", &V::NAME)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}
