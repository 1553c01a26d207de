//! A row while an event changes it.

use std::fmt;
use std::ops::{Deref, DerefMut};

use super::View;
use crate::key::ViewKey;

/// A row that an event changes. Derefs to the value.
pub struct Row<'a, V: View> {
    key: &'a str,
    value: &'a mut V,
    existed: bool,
    removed: bool,
}

impl<'a, V: View> Row<'a, V> {
    pub(crate) fn new(key: &'a str, value: &'a mut V, existed: bool) -> Row<'a, V> {
        Row {
            key,
            value,
            existed,
            removed: false,
        }
    }

    pub(crate) fn was_removed(&self) -> bool {
        self.removed
    }

    pub(crate) fn key_text(&self) -> &str {
        self.key
    }

    /// Its key.
    pub fn key(&self) -> Option<V::Key> {
        V::Key::from_key(self.key)
    }

    /// Whether it existed before this event.
    pub const fn existed(&self) -> bool {
        self.existed
    }

    /// Removes the row: it does not exist any more, until an event touches it again.
    pub fn remove(&mut self) {
        self.removed = true;
    }
}

impl<V: View> Deref for Row<'_, V> {
    type Target = V;

    fn deref(&self) -> &V {
        self.value
    }
}

impl<V: View> DerefMut for Row<'_, V> {
    fn deref_mut(&mut self) -> &mut V {
        self.value
    }
}

impl<V: View + fmt::Debug> fmt::Debug for Row<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row")
            .field("key", &self.key)
            .field("value", &self.value)
            .finish_non_exhaustive()
    }
}
