//! Dead letters, by typed keys.

use annals_core::{CommitError, DeadLetter, Generation, Partition, Position, Token};
use annals_runner::{DeadLetterKey, DeadLetterPages, DeadLetters, Settled, ViewError};

use super::ViewHandle;
use crate::key::ViewKey;
use crate::view::View;
use crate::worker::DrainView;

impl<V: View> ViewHandle<V> {
    /// Its dead letters, by the texts of the keys.
    pub fn dead_letters(&self) -> DeadLetters {
        DrainView::<V>::dead_letters(&self.context, &self.workers)
    }

    /// An error when events of a key up to a token are dead letters. Asked before the row is read:
    /// what is settled by then is in it, so one that is tried again meanwhile is in it, too.
    pub(super) async fn check_dead_letters(
        &self,
        generation: &Generation,
        key: &str,
        token: &Token,
    ) -> Result<(), ViewError> {
        // What a pipeline goes on without are rows of another output.
        if self.output.is_some() {
            return Ok(());
        }
        let incarnation = self.context.log().incarnation();
        // Workers of this process know whether there are any.
        let none = self.workers.of(generation.id, |of| {
            of.slots
                .iter()
                .all(|slot| slot.borrow().is_without_dead_letters(token, incarnation))
        });
        if none == Some(true) {
            return Ok(());
        }
        for (partition, position) in token.positions() {
            let mut pages = DeadLetterPages::of(&*self.context.views, generation.id)
                .from(key, partition)
                .limit(1);
            let first = match pages.next().await {
                // Its rows are gone as well, which whoever reads them is told.
                Err(CommitError::Gone(_)) => return Ok(()),
                page => page?.into_iter().next(),
            };
            let is_asked_for = |of: &DeadLetter| {
                of.key == key && of.partition == partition && of.position <= position
            };
            if let Some(letter) = first.filter(is_asked_for) {
                return Err(ViewError::DeadLetters {
                    key: key.to_owned(),
                    position: letter.position,
                    reason: letter
                        .reason
                        .unwrap_or_else(|| "it is to be tried again".into()),
                });
            }
        }
        Ok(())
    }

    /// Keys in dead letters, in their order, after `after`, at most `limit`: none at the end.
    ///
    /// ```
    /// # use annals_projections::ReadModels as _;
    /// # use annals_projections::{Program, View, ViewError};
    /// # async fn example<Balance: View<Key = String>>(db: Program) -> Result<(), ViewError> {
    /// for key in db.view::<Balance>().dead_letter_keys(None, 100).await? {
    ///     println!("{} at {}: {} ({} later)", key.key, key.position, key.reason, key.queued);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    pub async fn dead_letter_keys(
        &self,
        after: Option<V::Key>,
        limit: usize,
    ) -> Result<Vec<DeadLetterKey<V::Key>>, ViewError> {
        let after = after.map(|key| key.to_key());
        let keys = self.dead_letters().keys(after.as_deref(), limit).await?;
        keys.into_iter()
            .map(|key| self.typed_key(&key.key).map(|typed| key.with_key(typed)))
            .collect()
    }

    /// The dead letters of a key, in their order, after `after`, at most `limit`.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    pub async fn waiting(
        &self,
        key: impl Into<V::Key>,
        after: Option<&DeadLetter>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, ViewError> {
        let key = self.key(&key.into())?;
        self.dead_letters().events(&key, after, limit).await
    }

    /// Folds the dead letters of a key, as [`DeadLetters::retry`] does.
    ///
    /// ```
    /// # use annals_projections::ReadModels as _;
    /// # use annals_projections::{Program, View, ViewError};
    /// # async fn example<Balance: View<Key = String>>(db: Program) -> Result<(), ViewError> {
    /// // After the fold was repaired:
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
        self.dead_letters().retry(&key).await
    }

    /// [`retry`](ViewHandle::retry) for every key in dead letters.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    pub async fn retry_all(&self) -> Result<Settled, ViewError> {
        self.dead_letters().retry_all().await
    }

    /// Skips a dead letter of this key, as [`DeadLetters::skip`] does.
    ///
    /// # Errors
    ///
    /// [`ViewError::Invalid`] without a reason, or when the event is no dead letter of this key.
    pub async fn skip(
        &self,
        key: impl Into<V::Key>,
        position: impl Into<Position>,
        reason: impl Into<String>,
    ) -> Result<Settled, ViewError> {
        let key = self.key(&key.into())?;
        self.dead_letters().skip(&key, position, reason).await
    }

    /// Skips every dead letter of this key, as [`DeadLetters::discard`] does.
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
        self.dead_letters().discard(&key, reason).await
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

    /// [`skip_event`](ViewHandle::skip_event) of this partition: positions count for each partition
    /// by itself.
    ///
    /// # Errors
    ///
    /// As [`DeadLetters::skip_event`].
    ///
    /// ```
    /// # use annals_core::Partition;
    /// # use annals_projections::{View, ViewError, ViewHandle};
    /// # async fn example<V: View>(orders: ViewHandle<V>) -> Result<(), ViewError> {
    /// orders.skip_event_in(Partition(2), 7, "written by a test").await
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
