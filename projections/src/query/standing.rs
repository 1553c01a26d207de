//! Rows of inline views: as they are kept, with what their streams have had since.

use annals_core::{
    DeadLetter, Generation, Invalid, ReadStream, StreamId, Token, Version, VersionedRow,
};

use annals_runner::ViewError;

use super::ViewHandle;
use crate::fold::decoded;
use crate::key::ViewKey;
use crate::removed::CountedEvents;
use crate::replay::Replay;
use crate::view::View;
use crate::view::step::Handlers;
use annals_runner::Skips;

impl<V: View> ViewHandle<V> {
    /// A row of an inline view with everything that was appended to its stream, by this program or
    /// another. An error when it lacks an event up to `at_least` that cannot be folded.
    pub(super) async fn standing_value(
        &self,
        generation: &Generation,
        key: &V::Key,
        at_least: Option<&Token>,
    ) -> Result<Option<V>, ViewError> {
        let text = self.key(key)?;
        let row = self
            .standing(generation, std::slice::from_ref(&text))
            .await?
            .pop();
        let (value, at) = row.map_or((None, Version::NONE), |row| (row.value, row.at));
        let handlers = V::handlers();
        let Some(stream) = own_stream(&handlers, key) else {
            return Ok(decoded(&text, value.as_ref())?);
        };
        let mut read = ReadStream::of(stream.clone()).from(at.next()).everything();
        let store = &**self.context.db.store();
        let mut page = store.read_stream(read.clone()).await?;
        if page.state.archived_before > at.next() {
            let partition = store.partition_of(&stream);
            let options = &self.context.options;
            let counted = CountedEvents::up_to(page.head);
            let removed = handlers
                .removed(store, options, partition, counted, Some(&stream))
                .await?;
            // Versions ascend with positions: what the row has not is the last of them.
            let last = removed.last().cloned();
            handlers
                .check_answer(store, options, last.as_slice(), counted)
                .await?;
        }
        if page.events.is_empty() {
            return Ok(decoded(&text, value.as_ref())?);
        }
        let skips = Skips::of(self.context.views.skip_decisions(V::NAME).await?);
        let mut replay = Replay::from(&text, value)?;
        loop {
            let mut steps = Vec::with_capacity(page.events.len());
            for record in page.events {
                steps.extend(
                    handlers
                        .prepare_except(&skips, record)
                        .map_err(ViewError::unreadable)?,
                );
            }
            replay.take(&steps)?;
            let is_asked_for = |of: &&DeadLetter| {
                let mut asked = at_least.iter().flat_map(|token| token.positions());
                asked.any(|(partition, up_to)| of.partition == partition && of.position <= up_to)
            };
            if let Some(letter) = replay.dead_letter(&text).filter(is_asked_for) {
                return Err(ViewError::DeadLetters {
                    key: text,
                    position: letter.position,
                    reason: letter.reason.clone().unwrap_or_default(),
                });
            }
            let Some(next) = page.next else {
                return Ok(replay
                    .into_rows()
                    .find(|(key, _)| *key == text)
                    .map(|(_, row)| row));
            };
            read = read.resume(next);
            page = store.read_stream(read.clone()).await?;
        }
    }

    /// Rows of an inline view as they are kept, all of one moment.
    pub(super) async fn standing(
        &self,
        generation: &Generation,
        keys: &[String],
    ) -> Result<Vec<VersionedRow>, ViewError> {
        match self.context.db.store().inline_views() {
            Some(inline) => Ok(inline.read_versioned(generation.id, keys).await?),
            None => Err(Invalid::new(format!(
                "view `{}` is inline, and this store keeps no inline views",
                V::NAME
            ))
            .into()),
        }
    }
}

/// The stream whose events make the row of a key.
pub(super) fn own_stream<V: View>(handlers: &Handlers<V>, key: &V::Key) -> Option<StreamId> {
    StreamId::of(handlers.category()?, key.to_stream_id()?).ok()
}
