//! Where a program's read models are: beside the log, or in a store of their own.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;

use annals_core::{CommitError, GenerationId, MemoryStore, Store, ViewStore};

pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How generations of a read model are switched to and dropped.
pub(crate) trait Generations: Send + Sync {
    fn switch(&self, generation: GenerationId) -> BoxFuture<'_, Result<(), CommitError>>;
    fn remove(&self, generation: GenerationId) -> BoxFuture<'_, Result<(), CommitError>>;
}

impl Generations for ViewLocation {
    fn switch(&self, generation: GenerationId) -> BoxFuture<'_, Result<(), CommitError>> {
        self.switch_to(generation)
    }

    fn remove(&self, generation: GenerationId) -> BoxFuture<'_, Result<(), CommitError>> {
        self.drop_generation(generation)
    }
}

/// A view store that is kept alive.
#[derive(Clone)]
pub(crate) enum ViewLocation {
    Beside(Arc<dyn Store>),
    Own(Arc<dyn ViewStore>),
}

impl ViewLocation {
    /// One that keeps nothing of use: for programs whose views are all folded when they are asked.
    pub(crate) fn empty() -> ViewLocation {
        ViewLocation::Own(Arc::new(MemoryStore::new()))
    }

    /// Beside the log, if the store has room there.
    pub(crate) fn beside(store: &Arc<dyn Store>) -> Option<ViewLocation> {
        store
            .views()
            .is_some()
            .then(|| ViewLocation::Beside(Arc::clone(store)))
    }
}

impl Deref for ViewLocation {
    type Target = dyn ViewStore;

    fn deref(&self) -> &dyn ViewStore {
        match self {
            ViewLocation::Beside(store) => store
                .views()
                .expect("what a store can do is answered once and for good"),
            ViewLocation::Own(views) => &**views,
        }
    }
}

impl fmt::Debug for ViewLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
