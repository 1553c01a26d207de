//! A slot that begins with the rows of an earlier generation as they were at a moment, instead of
//! with none.
//!
//! Where it begins is noted when its generation is begun: the checkpoint is at the moment
//! already, and its state says from which generation the rows come and how far that has gone.
//! The worker of the slot finishes this first.

use std::collections::{HashMap, HashSet};
use std::ops::Bound;

use annals_core::{
    Checkpoint, CommitError, DeadLetter, GenerationId, History, PAGE_EVENTS, Partition, PastRow,
    Position, RowChange, ViewCommit,
};
use annals_runner::{
    BoxFuture, DeadLetterPages, HeldLease, Note, Restoring, Slot, WorkError, slot_of,
};
use bytes::Bytes;

use super::FoldView;
use crate::fold::{RowError, decoded};
use crate::view::View;

/// Events noted in one step as having touched keys.
const TOUCHED_MAX: usize = 10_000;

impl<V: View> FoldView<V> {
    /// Takes over what is still missing, if the slot begins with rows of an earlier generation.
    pub(super) fn restore<'a>(
        &'a self,
        held: &'a HeldLease,
    ) -> BoxFuture<'a, Result<(), WorkError>> {
        let restoring = RestoringSlot {
            of: &self.slot,
            held,
            view: V::NAME,
            history: V::HISTORY,
            indexed: indexed::<V>,
        };
        restoring.boxed()
    }
}

/// The entries of the indexes of a stored row.
fn indexed<V: View>(key: &str, stored: Option<&Bytes>) -> Result<Vec<String>, RowError> {
    let row = decoded::<V>(key, stored)?;
    Ok(row.as_ref().map(View::indexed).unwrap_or_default())
}

/// A slot, and what of its view is needed to take rows over.
struct RestoringSlot<'a> {
    of: &'a Slot,
    held: &'a HeldLease,
    view: &'static str,
    history: History,
    indexed: fn(&str, Option<&Bytes>) -> Result<Vec<String>, RowError>,
}

impl<'a> RestoringSlot<'a> {
    /// Boxed here, so that it is compiled once and not for each view.
    fn boxed(self) -> BoxFuture<'a, Result<(), WorkError>> {
        Box::pin(async move { self.restore().await })
    }

    async fn restore(&self) -> Result<(), WorkError> {
        // Only views that keep their past have such rows, and their logs have one partition.
        let mut at = self.of.checkpoint(Partition(0)).await?;
        while let Note::Restoring(restoring) = Note::of(&at)? {
            let earlier = GenerationId(restoring.from);
            at = match self.restore_next(at, restoring).await {
                Err(WorkError::Retry(CommitError::Gone(gone))) if gone == earlier => {
                    return Err(self.cannot_restore(earlier, "was dropped"));
                }
                Err(WorkError::Retry(CommitError::BeforeHistory { .. })) => {
                    return Err(self.cannot_restore(earlier, "has forgotten what they were"));
                }
                next => next?,
            };
        }
        Ok(())
    }

    async fn restore_next(&self, at: Checkpoint, was: Restoring) -> Result<Checkpoint, WorkError> {
        let earlier = GenerationId(was.from);
        let moment = at.position;
        let mut commit = self.of.view_commit(self.held.lease(), moment, at);
        if !was.dead_letters_copied {
            // First, so that a queue that is emptied meanwhile is noticed at the end.
            commit.dead_letters = self.dead_letters_of(earlier, moment).await?;
            return self
                .restored(
                    commit,
                    Some(Restoring {
                        dead_letters_copied: true,
                        ..was
                    }),
                )
                .await;
        }
        let all = (Bound::Unbounded, Bound::Unbounded);
        let mut keys = self
            .of
            .context
            .views
            .past_keys(earlier, all, was.after.as_deref(), PAGE_EVENTS)
            .await?;
        let Some(last) = keys.last().cloned() else {
            let waits: HashSet<_> = self
                .dead_letters_of(earlier, moment)
                .await?
                .into_iter()
                .map(place)
                .collect();
            let taken_over = self.dead_letters_of(self.of.generation.id, moment).await?;
            if !taken_over
                .into_iter()
                .map(place)
                .all(|place| waits.contains(&place))
            {
                return Err(self.cannot_restore(earlier, "had a queue settled meanwhile"));
            }
            return self.restored(commit, None).await;
        };
        keys.retain(|key| slot_of(key, self.of.generation.spec.slots) == self.of.number);
        let past = self
            .of
            .context
            .views
            .read_past(earlier, &keys, moment)
            .await?;
        let mut past: HashMap<_, _> = past.into_iter().map(|row| (row.key.clone(), row)).collect();
        let mut after_key = was.after;
        for key in keys {
            let begun = was
                .inside
                .as_ref()
                .filter(|(inside, _)| *inside == key)
                .map(|(_, position)| *position);
            match past.remove(&key) {
                Some(PastRow {
                    refold_after: Some(_),
                    ..
                }) => {
                    return Err(self.cannot_restore(earlier, "does not keep what they were then"));
                }
                Some(PastRow {
                    base: Some(base), ..
                }) if begun.is_none() && base.value.is_some() => {
                    let indexed = (self.indexed)(&key, base.value.as_ref())?;
                    commit.rows.push(RowChange {
                        key: key.clone(),
                        value: base.value.clone(),
                        indexed,
                    });
                    commit.versions.push(base);
                }
                _ => {}
            }
            if self.history == History::Bitemporal {
                let after = begun.unwrap_or(Position::START);
                if let Some(inside) = self.touched(&mut commit, earlier, &key, after).await? {
                    let inside = Some((key, inside));
                    return self
                        .restored(
                            commit,
                            Some(Restoring {
                                dead_letters_copied: true,
                                after: after_key,
                                inside,
                                ..was
                            }),
                        )
                        .await;
                }
            }
            after_key = Some(key);
        }
        let next = Restoring {
            from: was.from,
            dead_letters_copied: true,
            after: Some(last),
            inside: None,
        };
        self.restored(commit, Some(next)).await
    }

    async fn restored(
        &self,
        mut commit: ViewCommit,
        next: Option<Restoring>,
    ) -> Result<Checkpoint, WorkError> {
        commit.to.state = next.map_or(Note::None, Note::Restoring).to_state();
        let at = commit.to.clone();
        self.of.context.views.commit_view(commit).await?;
        Ok(at)
    }

    /// The dead letters of this slot, up to and with the moment.
    async fn dead_letters_of(
        &self,
        generation: GenerationId,
        moment: Position,
    ) -> Result<Vec<DeadLetter>, CommitError> {
        let mut letters: Vec<DeadLetter> = Vec::new();
        let mut pages = DeadLetterPages::of(&*self.of.context.views, generation);
        loop {
            let page = pages.next().await?;
            if page.is_empty() {
                return Ok(letters);
            }
            let of_slot = |letter: &DeadLetter| {
                slot_of(&letter.key, self.of.generation.spec.slots) == self.of.number
            };
            letters.extend(
                page.into_iter()
                    .filter(|letter| letter.position <= moment && of_slot(letter)),
            );
        }
    }

    /// Notes which events touched a key, up to the moment; the position at which that stops because
    /// there are enough for one step.
    async fn touched(
        &self,
        commit: &mut ViewCommit,
        generation: GenerationId,
        key: &str,
        mut after: Position,
    ) -> Result<Option<Position>, CommitError> {
        loop {
            if commit.touched.len() >= TOUCHED_MAX {
                return Ok(Some(after));
            }
            let page = self
                .of
                .context
                .views
                .touched(generation, key, after, commit.to.position, PAGE_EVENTS)
                .await?;
            let Some(last) = page.last() else {
                return Ok(None);
            };
            after = *last;
            commit
                .touched
                .extend(page.into_iter().map(|position| (key.to_owned(), position)));
        }
    }

    fn cannot_restore(&self, earlier: GenerationId, why: &str) -> WorkError {
        let view = self.view;
        let id = self.of.generation.id;
        WorkError::Stopped(format!(
            "generation {id} of view `{view}` begins with the rows of generation {earlier}, which \
             {why}; call the build off, and \
             reset the view again or build it from the log"
        ))
    }
}

fn place(letter: DeadLetter) -> (String, Position) {
    (letter.key, letter.position)
}
