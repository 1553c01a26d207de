//! Where a program's read models are: beside the log, or in a store of their own.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use annals_core::{MemoryStore, Store, ViewStore};

/// A view store that is kept alive.
#[derive(Clone)]
pub(crate) enum Place {
    Beside(Arc<dyn Store>),
    Own(Arc<dyn ViewStore>),
}

impl Place {
    /// One that keeps nothing of use: for programs whose views are all folded when they are asked.
    pub(crate) fn empty() -> Place {
        Place::Own(Arc::new(MemoryStore::new()))
    }

    /// Beside the log, if the store has room there.
    pub(crate) fn beside(store: &Arc<dyn Store>) -> Option<Place> {
        store.views().is_some().then(|| Place::Beside(Arc::clone(store)))
    }
}

impl Deref for Place {
    type Target = dyn ViewStore;

    fn deref(&self) -> &dyn ViewStore {
        match self {
            Place::Beside(store) => store.views().expect("what a store can do is answered once and for good"),
            Place::Own(views) => &**views,
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
