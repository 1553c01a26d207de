//! Events that say of themselves under which stream and type they belong.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

use std::collections::BTreeSet;

use annals_core::{Append, EventStore, Log, NewEvent, Position, ReadLog, StreamId};
use annals_postgres::PostgresStore;

/// An event that says in its payload which stream and type it was given.
pub(crate) fn named(stream: &str, event_type: String) -> Append {
    let payload = format!("\"{stream} {event_type}\"");
    let event = NewEvent::json(event_type, payload.into_bytes());
    Append::new(StreamId::new(stream).unwrap(), [event])
}

/// Reads the whole log, in which every event must be under its own stream and type.
pub(crate) async fn all_named(store: &PostgresStore) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut after = Position::START;
    loop {
        let page = store.read(ReadLog::after(after)).await.unwrap();
        for event in &page.events {
            let is = format!("{} {}", event.stream.as_str(), event.event_type);
            let given: String = serde_json::from_slice(&event.payload).unwrap();
            assert_eq!(is, given, "at {}", event.position);
            found.insert(given);
        }
        after = page.scanned;
        if page.end {
            return found;
        }
    }
}

pub(crate) async fn append(store: &PostgresStore, stream: &str, event_type: &str) -> Position {
    let appended = store.append(named(stream, event_type.to_owned())).await;
    appended.unwrap().last().position
}
