//! Windows: which stretches of event time an item belongs to, and what is kept for each.

pub(crate) mod aligned;
pub(crate) mod assign;
pub(crate) mod opened;
pub(crate) mod panes;
pub(crate) mod sessions;
pub(crate) mod slices;
pub(crate) mod sliding;
