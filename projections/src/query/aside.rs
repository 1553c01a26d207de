//! What waits for a person, by typed keys.

use annals_core::{Parked, Position};

use super::{ViewError, Views, typed_key};
use crate::key::ViewKey;
use crate::set_aside::{ParkedKey, SetAside, Settled};
use crate::view::View;

impl<V: View> Views<V> {
    /// What is set aside, by the texts of the keys.
    pub fn set_aside(&self) -> SetAside {
        SetAside::of::<V>(&self.site, &self.following)
    }

    /// Keys that wait for a person, in their order, behind `after`, at most `limit`: none at the end.
    ///
    /// ```
    /// # use annals_projections::{Program, View, ViewError};
    /// # async fn example<Balance: View<Key = String>>(db: Program) -> Result<(), ViewError> {
    /// for key in db.view::<Balance>().parked(None, 100).await? {
    ///     println!("{} waits at {}: {} ({} events behind it)", key.key, key.position, key.cause, key.behind);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    pub async fn parked(
        &self,
        after: Option<V::Key>,
        limit: usize,
    ) -> Result<Vec<ParkedKey<V::Key>>, ViewError> {
        let after = after.map(|key| key.to_key());
        let keys = self.set_aside().keys(after.as_deref(), limit).await?;
        keys.into_iter()
            .map(|key| typed_key::<V>(&key.key).map(|typed| key.with_key(typed)))
            .collect()
    }

    /// The events that wait for a key, in their order, behind `after`, at most `limit`.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    pub async fn waiting(
        &self,
        key: impl Into<V::Key>,
        after: Option<&Parked>,
        limit: usize,
    ) -> Result<Vec<Parked>, ViewError> {
        let key = self.key(&key.into())?;
        self.set_aside().events(&key, after, limit).await
    }

    /// Folds what waits for a key, as [`SetAside::retry`] does.
    ///
    /// ```
    /// # use annals_projections::{Program, View, ViewError};
    /// # async fn example<Balance: View<Key = String>>(db: Program) -> Result<(), ViewError> {
    /// // After the fold was mended:
    /// let settled = db.view::<Balance>().retry("alice").await?;
    /// if let Some(still) = settled.still {
    ///     let reason = "entered twice, see the letter of 3 May";
    ///     db.view::<Balance>().skip("alice", still.position, reason).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    pub async fn retry(&self, key: impl Into<V::Key>) -> Result<Settled, ViewError> {
        let key = self.key(&key.into())?;
        self.set_aside().retry(&key).await
    }

    /// [`retry`](Views::retry) for every key that waits.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    pub async fn retry_all(&self) -> Result<Settled, ViewError> {
        self.set_aside().retry_all().await
    }

    /// Leaves an event that waits out for this key, as [`SetAside::skip`] does.
    ///
    /// # Errors
    ///
    /// [`ViewError::Invalid`] without a reason, or when the event does not wait for this key.
    pub async fn skip(
        &self,
        key: impl Into<V::Key>,
        position: impl Into<Position>,
        reason: impl Into<String>,
    ) -> Result<Settled, ViewError> {
        let key = self.key(&key.into())?;
        self.set_aside().skip(&key, position, reason).await
    }

    /// Leaves everything out that waits for this key, as [`SetAside::discard`] does.
    ///
    /// # Errors
    ///
    /// [`ViewError::Invalid`] without a reason.
    pub async fn discard(
        &self,
        key: impl Into<V::Key>,
        reason: impl Into<String>,
    ) -> Result<Settled, ViewError> {
        let key = self.key(&key.into())?;
        self.set_aside().discard(&key, reason).await
    }

    /// Leaves an event out that stops the projection, as [`SetAside::skip_event`] does.
    ///
    /// # Errors
    ///
    /// As [`SetAside::skip_event`].
    pub async fn skip_event(
        &self,
        position: impl Into<Position>,
        reason: impl Into<String>,
    ) -> Result<(), ViewError> {
        self.set_aside().skip_event(position, reason).await
    }
}
