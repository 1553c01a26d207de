//! derive(Event).
