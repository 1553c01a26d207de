//! Dead letters of a generation, and what operators decided about events of a view.

use std::fmt;

use async_trait::async_trait;

use crate::error::StoreError;
use crate::generation::GenerationId;
use crate::position::{Partition, Position};
use crate::view_commit::{CommitError, DeadLetter, SkipDecision};

/// Dead letters and skip decisions: a part of a [`ViewStore`](crate::ViewStore).
///
/// Dead letters belong to a generation and change with its checkpoint, in
/// [`commit_view`](crate::RowStore::commit_view). Skip decisions belong to the view, and stay when
/// a generation is dropped.
#[async_trait]
pub trait DeadLetterStore: fmt::Debug + Send + Sync + 'static {
    /// The dead letters of a generation, in the order of key, partition and position, after
    /// `after`, at most `limit`.
    ///
    /// # Errors
    ///
    /// [`CommitError::Gone`]
    async fn dead_letters(
        &self,
        generation: GenerationId,
        after: Option<(&str, Partition, Position)>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, CommitError>;

    /// Keeps a skip decision; one about the same place in the log and the same key is replaced.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn save_skip_decision(&self, skip_decision: SkipDecision) -> Result<(), StoreError>;

    /// The skip_decisions about a view, in the order of partition, position and key; the one for
    /// all keys comes first.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn skip_decisions(&self, view: &str) -> Result<Vec<SkipDecision>, StoreError>;
}
