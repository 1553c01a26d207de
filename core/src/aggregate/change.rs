//! Deleting, truncating and archiving an aggregate's stream.

use super::commit::{CommandError, Committed, final_error};
use super::{Aggregate, AggregateRef};
use crate::append::{AppendError, Expected};
use crate::stream::Version;
use crate::stream_state::{ChangeStream, StreamChange, StreamState};
use crate::typed::IntoEvents;

impl<A: Aggregate> AggregateRef<A> {
    /// Deletes the aggregate: it does not exist any more, until a command creates it again. Its
    /// events stay in the log, and the past can be asked as before. Deleting what does not exist
    /// changes nothing.
    ///
    /// # Errors
    ///
    /// [`AppendError::Conflict`] when it was tombstoned.
    pub async fn delete(&self) -> Result<StreamState, AppendError> {
        self.change(StreamChange::Delete).await
    }

    /// Records a last event and deletes the aggregate after it. So views see the deletion: a fold
    /// that removes its row at that event holds what the aggregate is, also when a command creates
    /// it again. Nothing comes between the two: what does is followed by another last event.
    ///
    /// # Errors
    ///
    /// As a command; [`CommandError::NotFound`] when the aggregate does not exist. When it fails
    /// after the event was recorded the aggregate is not deleted yet: call it again.
    ///
    /// ```
    /// # use annals_core::{Aggregate, AggregateRef, CommandError};
    /// # async fn example<A: Aggregate>(
    /// #     account: AggregateRef<A>, closed: fn(&A) -> A::Event,
    /// # ) -> Result<(), CommandError<String>> {
    /// account.delete_with(|state| Ok::<_, String>(closed(state))).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn delete_with<E: Send>(
        &self,
        mut last: impl FnMut(&A) -> Result<A::Event, E> + Send,
    ) -> Result<Committed, CommandError<E>> {
        let retries = self.db().retries();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let done = self
                .update(|state| last(state).map(IntoEvents::<A::Event>::into_events))
                .await?;
            let stream = self.stream()?;
            let version = done.version_of(stream).unwrap_or_default();
            let delete = ChangeStream::new(stream, StreamChange::Delete);
            let delete = delete.expecting(Expected::ActiveAt(version));
            let Err(error) = self.db().store().change_stream(delete).await else {
                return Ok(done);
            };
            if let Some(error) = final_error(error) {
                return Err(error);
            }
            if attempts >= retries.attempts_max {
                return Err(CommandError::Contended { attempts });
            }
            retries.pause(attempts).await;
        }
    }

    /// Deletes the aggregate for ever: no command is accepted any more.
    ///
    /// # Errors
    ///
    /// [`AppendError::Conflict`] when it was tombstoned before.
    pub async fn tombstone(&self) -> Result<StreamState, AppendError> {
        self.change(StreamChange::Tombstone).await
    }

    /// Hides its events below `version` from ordinary reads of the stream. Folds still see them.
    ///
    /// # Errors
    ///
    /// [`AppendError::Invalid`] when it has not come so far or does not exist.
    pub async fn truncate_before(
        &self,
        version: impl Into<Version> + Send,
    ) -> Result<StreamState, AppendError> {
        self.change(StreamChange::Truncate {
            before: version.into(),
        })
        .await
    }

    /// Appends a summary, and removes everything before it for good.
    ///
    /// The summary says all that the state holds: applied to any state, `A::default()` and the
    /// present one among them, it gives the present one. The ids of what is removed stay known,
    /// their positions stay empty. States of versions before the summary can no longer be asked
    /// for.
    ///
    /// First it waits until the views, reactors and process managers whose checkpoints are in the
    /// store of the log have read what is removed. Those that keep them elsewhere are not waited
    /// for: one that has not read it stops there, and says so.
    ///
    /// What was kept of the removed events goes with them: their tags, the snapshots of the stream,
    /// the reasons of dead letters.
    ///
    /// # Errors
    ///
    /// As a command; [`CommandError::NotFound`] when the aggregate does not exist;
    /// [`CommandError::NotReadByAll`] when some follower has not read what is removed, and nothing
    /// is removed.
    ///
    /// ```
    /// # use annals_core::{Aggregate, AggregateRef, CommandError};
    /// # async fn example<A: Aggregate>(
    /// #     account: AggregateRef<A>, summary: fn(&A) -> A::Event,
    /// # ) -> Result<(), CommandError<String>> {
    /// account.archive(|state| Ok::<_, String>(summary(state))).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn archive<E: Send>(
        &self,
        summarise: impl FnMut(&A) -> Result<A::Event, E> + Send,
    ) -> Result<Committed, CommandError<E>> {
        self.read_by_all(Version::MAX).await?;
        self.summarised(summarise, true).await
    }

    /// As [`archive`](AggregateRef::archive), also when some follower has not read what is removed.
    /// Such a follower stops and says so.
    ///
    /// # Errors
    ///
    /// As a command; [`CommandError::NotFound`] when the aggregate does not exist.
    ///
    /// ```
    /// # use annals_core::{Aggregate, AggregateRef, CommandError};
    /// # async fn example<A: Aggregate>(
    /// #     account: AggregateRef<A>, summary: fn(&A) -> A::Event,
    /// # ) -> Result<(), CommandError<String>> {
    /// account.archive_unread(|state| Ok::<_, String>(summary(state))).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn archive_unread<E: Send>(
        &self,
        summarise: impl FnMut(&A) -> Result<A::Event, E> + Send,
    ) -> Result<Committed, CommandError<E>> {
        self.summarised(summarise, false).await
    }

    async fn summarised<E: Send>(
        &self,
        mut summarise: impl FnMut(&A) -> Result<A::Event, E> + Send,
        waits: bool,
    ) -> Result<Committed, CommandError<E>> {
        let done = self
            .update(|state| summarise(state).map(IntoEvents::<A::Event>::into_events))
            .await?;
        let before = self
            .stream()
            .ok()
            .and_then(|stream| done.version_of(stream))
            .unwrap_or(Version::FIRST);
        if waits {
            // What was appended since it was looked at is removed too.
            self.read_by_all(Version::new(before.get() - 1)).await?;
        }
        match self.change(StreamChange::Archive { before }).await {
            Ok(_) => Ok(done),
            // Nothing is expected of the stream, so only a tombstone is a conflict, and that is
            // final.
            Err(error) => {
                Err(final_error(error).unwrap_or(CommandError::Contended { attempts: 1 }))
            }
        }
    }

    async fn change(&self, change: StreamChange) -> Result<StreamState, AppendError> {
        let stream = self.stream()?;
        self.db()
            .store()
            .change_stream(ChangeStream::new(stream, change))
            .await
    }
}
