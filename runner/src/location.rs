//! Where a program's read models are: beside the log, or in a store of their own.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;

use annals_core::{MemoryStore, Store, ViewStore};

/// A future whose type is erased.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A view store that is kept alive.
#[derive(Clone)]
#[allow(clippy::exhaustive_enums)]
pub enum ViewLocation {
    /// In the store of the log.
    Beside(Arc<dyn Store>),
    /// In another store.
    Own(Arc<dyn ViewStore>),
}

impl ViewLocation {
    /// One for programs whose views are all folded when they are asked: nothing is kept in it.
    pub fn empty() -> ViewLocation {
        ViewLocation::Own(Arc::new(MemoryStore::new()))
    }

    /// Beside the log, if its store keeps read models.
    pub fn beside(store: &Arc<dyn Store>) -> Option<ViewLocation> {
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
