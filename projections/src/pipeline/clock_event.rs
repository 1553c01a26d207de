//! `$clock.advanced`: an event that says how far event time has come, so that windows close also
//! when nothing happens, and a rebuild closes them at the same places.

use annals_core::{RecordedEvent, StreamId};
use annals_streams::Time;
use serde::{Deserialize, Serialize};

/// Its stored type.
pub(crate) const TYPE: &str = "$clock.advanced";

#[derive(Serialize, Deserialize)]
pub(crate) struct Advanced {
    /// Microseconds since 1970.
    pub(crate) to: i64,
}

/// The time of such an event; else why it cannot be read.
pub(crate) fn read(record: &RecordedEvent) -> Result<Time, String> {
    serde_json::from_slice(&record.payload)
        .map(|Advanced { to }| Time::from_micros(to))
        .map_err(|error| format!("its time cannot be read: {error}"))
}

/// The streams of such events.
pub(crate) fn stream(number: u32) -> Option<StreamId> {
    StreamId::any(format!("$clock-{number}")).ok()
}
