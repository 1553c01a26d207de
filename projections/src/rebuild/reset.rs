//! A rebuild that begins with the rows of an earlier generation as they were at a moment.

use annals_core::{Checkpoint, Generation, GenerationId, History, Partition, Position, ViewCommit};
use annals_runner::{HeldLease, Note, Restoring, SlotClaim, WorkError, event_at};

use super::{Rebuild, RebuildError};

impl<V> Rebuild<V> {
    /// The generation whose rows a new one can begin with at `start`.
    pub(super) async fn can_begin_with(
        &self,
        serves: Option<&Generation>,
        start: Position,
    ) -> Result<GenerationId, RebuildError> {
        let cannot = |reason: String| {
            Err(RebuildError::CannotReset {
                view: self.view,
                to: start,
                reason,
            })
        };
        if self.spec.history == History::None {
            return cannot("it keeps no history, so its rows of then are unknown".into());
        }
        if self.spec.inline {
            return cannot(
                "it is inline, and the stream versions of its rows at that moment are not kept"
                    .into(),
            );
        }
        let Some(serves) = serves else {
            return cannot("no generation of this version serves yet".into());
        };
        let since = serves.history_since;
        if start < since {
            return cannot(format!(
                "what its rows were before position {since} was forgotten"
            ));
        }
        if self.spec.history == History::Bitemporal && since > Position::START {
            return cannot(format!(
                "rows that were removed before position {since} are forgotten, and with them what \
                 had happened to them"
            ));
        }
        let reached = self.context.views.checkpoints(serves.id).await?;
        let level = (0..serves.spec.slots)
            .map(|slot| {
                reached
                    .iter()
                    .find(|of| of.slot == slot)
                    .map_or(Position::START, |of| of.position)
            })
            .min()
            .unwrap_or_default();
        if level < start {
            return cannot(format!("it has come to position {level} only"));
        }
        Ok(serves.id)
    }

    /// Notes where a slot begins, and with which rows. A slot that a worker holds already
    /// begins with none, at the start of the log: the rows are the same in the end.
    pub(super) async fn note_start(
        &self,
        generation: &Generation,
        slot: u16,
        earlier: GenerationId,
        start: Position,
    ) -> Result<(), RebuildError> {
        let views = &self.context.views;
        let claim = SlotClaim::of_operator(&self.context, generation, slot);
        let held = HeldLease::steal(&claim)
            .await
            .map_err(WorkError::into_store)?;
        let noted = async {
            let checkpoints = views.checkpoints(generation.id).await?;
            if checkpoints.iter().any(|of| of.slot == slot) {
                return Ok(());
            }
            let event = event_at(&**self.context.log(), Partition(0), start).await?;
            let state = Note::Restoring(Restoring::from(earlier)).to_state();
            let to = Checkpoint {
                slot,
                partition: Partition(0),
                position: start,
                event,
                state,
            };
            let commit = ViewCommit::new(generation.id, held.lease(), Position::START, to);
            Ok(views.commit_view(commit).await?)
        };
        let noted = noted.await;
        held.release().await;
        noted
    }
}
