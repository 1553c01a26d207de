//! What is done to the tables of a generation as a whole, inside the transaction that is about it.

use std::sync::Arc;

use annals_core::{CommitError, CustomTables, Failure, GenerationId, InTransaction, StoreError};
use async_trait::async_trait;

use super::{ConnectionOf, SqlProjection, Tables};
use annals_runner::{BoxFuture, contained_async};

/// A projection and the store that its tables are in.
pub(crate) struct Tabled<P: SqlProjection> {
    pub(super) project: Arc<P>,
    pub(super) store: Arc<P::Store>,
}

impl<P: SqlProjection> Clone for Tabled<P> {
    fn clone(&self) -> Tabled<P> {
        Tabled {
            project: Arc::clone(&self.project),
            store: Arc::clone(&self.store),
        }
    }
}

#[derive(Clone, Copy)]
enum Does {
    Create,
    Publish,
    Remove,
}

/// One of the things that are done to all tables of a generation.
pub(super) struct Hook<P: SqlProjection> {
    project: Arc<P>,
    tables: Tables,
    does: Does,
}

impl<P: SqlProjection> Tabled<P> {
    pub(super) fn create(&self, generation: GenerationId) -> Box<Hook<P>> {
        self.hook(generation, Does::Create)
    }

    fn hook(&self, generation: GenerationId, does: Does) -> Box<Hook<P>> {
        Box::new(Hook {
            project: Arc::clone(&self.project),
            tables: Tables::of(generation),
            does,
        })
    }
}

#[async_trait]
impl<P: SqlProjection, S: Send> InTransaction<ConnectionOf<P>, S> for Hook<P> {
    async fn run(&mut self, connection: &mut ConnectionOf<P>, _: &mut S) -> Result<(), StoreError> {
        let project = &*self.project;
        let tables = &self.tables;
        let (did, done) = match self.does {
            Does::Create => (
                "made",
                contained_async(project.create(connection, tables)).await,
            ),
            Does::Publish => (
                "published",
                contained_async(project.publish(connection, tables)).await,
            ),
            Does::Remove => (
                "dropped",
                contained_async(project.remove(connection, tables)).await,
            ),
        };
        let reason = match done {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(poison)) => poison.reason().to_owned(),
            Err(panic) => panic,
        };
        let name = P::NAME;
        let generation = tables.generation();
        let what =
            format!("the tables of generation {generation} of `{name}` cannot be {did}: {reason}");
        Err(StoreError::new(Failure::Invalid, what))
    }
}

impl<P: SqlProjection> Tabled<P> {
    pub(super) fn switch_to(
        &self,
        generation: GenerationId,
    ) -> BoxFuture<'_, Result<(), CommitError>> {
        self.store
            .switch_with(generation, self.hook(generation, Does::Publish))
    }

    pub(super) fn drop_generation(
        &self,
        generation: GenerationId,
    ) -> BoxFuture<'_, Result<(), CommitError>> {
        self.store
            .drop_with(generation, self.hook(generation, Does::Remove))
    }
}
