//! Tables of the application's own, changed in the transaction of a step of a worker.

use async_trait::async_trait;

use crate::error::StoreError;
use crate::generation::GenerationId;
use crate::view_commit::{CommitError, ViewCommit};
use crate::view_store::ViewStore;

/// Something to do inside a transaction of a store, on its connection `C`; `S` is what else the
/// transaction is about.
///
/// It may be run again, when what it did was undone through no fault of its own.
#[async_trait]
pub trait InTransaction<C, S = ()>: Send + 'static {
    /// Does it. It does not end the transaction.
    ///
    /// # Errors
    ///
    /// Everything is undone then, and the error is that of the whole.
    async fn run(&mut self, connection: &mut C, about: &mut S) -> Result<(), StoreError>;
}

/// A view store that lets applications change tables of their own in its transactions.
///
/// What a worker did with the application's tables and its checkpoint are committed together:
/// exactly once, whatever dies when.
#[async_trait]
pub trait CustomTables: ViewStore {
    /// What statements are run on.
    type Connection: Send + 'static;

    /// Takes a step, as [`RowStore::commit_view`](crate::RowStore::commit_view) does, with `work`
    /// in its transaction. The work comes after the fence was looked at, and may change the step:
    /// how far it goes, what becomes a dead letter. The step is checked after it, and the fence is
    /// looked at until the end: what was done under a lease that another worker took meanwhile is
    /// undone.
    ///
    /// # Errors
    ///
    /// As [`RowStore::commit_view`](crate::RowStore::commit_view), and that of the work. Nothing
    /// was changed. Work that panics is [`Failure::Invalid`](crate::Failure).
    async fn commit_with(
        &self,
        commit: ViewCommit,
        work: Box<dyn InTransaction<Self::Connection, ViewCommit>>,
    ) -> Result<(), CommitError>;

    /// Switches to a generation, as
    /// [`GenerationStore::switch_to`](crate::GenerationStore::switch_to) does, with `work` in the
    /// transaction.
    ///
    /// # Errors
    ///
    /// As [`GenerationStore::switch_to`](crate::GenerationStore::switch_to), and that of the work.
    /// Nothing was changed.
    async fn switch_with(
        &self,
        generation: GenerationId,
        work: Box<dyn InTransaction<Self::Connection>>,
    ) -> Result<(), CommitError>;

    /// Drops a generation, as
    /// [`GenerationStore::drop_generation`](crate::GenerationStore::drop_generation) does, with
    /// `work` in the transaction. The work is not run for a generation that is gone.
    ///
    /// # Errors
    ///
    /// As [`GenerationStore::drop_generation`](crate::GenerationStore::drop_generation), and that
    /// of the work. Nothing was changed.
    async fn drop_with(
        &self,
        generation: GenerationId,
        work: Box<dyn InTransaction<Self::Connection>>,
    ) -> Result<(), CommitError>;

    /// Marks a place in the open transaction to which it can be undone.
    ///
    /// # Errors
    ///
    /// Those of the connection.
    async fn mark(connection: &mut Self::Connection) -> Result<(), StoreError>;

    /// Keeps what was done since the last mark, and forgets the mark.
    ///
    /// # Errors
    ///
    /// Those of the connection.
    async fn keep(connection: &mut Self::Connection) -> Result<(), StoreError>;

    /// Undoes what was done since the last mark, also when a statement failed in between, and
    /// forgets the mark.
    ///
    /// # Errors
    ///
    /// Those of the connection.
    async fn undo(connection: &mut Self::Connection) -> Result<(), StoreError>;
}
