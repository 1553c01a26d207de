//! The rows of a view over sample events: what `events.lock` pins of its fold.

use std::collections::BTreeMap;

use annals_core::chrono::{DateTime, TimeDelta};
use annals_core::{Event, EventId, NewEvent, Partition, Place, Position, StreamId, Version};
use annals_runner::chain;

use crate::fold::encode;
use crate::replay::Replay;
use crate::view::View;

/// The rows of a view after these events, as JSON, or why they cannot be folded. All events are of
/// one stream, whose id is `sample`. With `EventsLock::fold` of the test kit a changed fold, key or
/// field fails the build until the version of the view is raised:
///
/// ```
/// # use annals_core::Event;
/// # use annals_core::testing::EventsLock;
/// # use annals_projections::View;
/// use annals_projections::rows_of_samples;
///
/// # fn example<Balance: View, AccountEvent: Event>(lock: EventsLock) -> EventsLock {
/// lock.fold(Balance::NAME, Balance::VERSION, rows_of_samples::<Balance, AccountEvent>)
/// # }
/// ```
///
/// # Errors
///
/// The reason, when an event or a row cannot be read, folded or written.
pub fn rows_of_samples<V: View, E: Event>(
    events: &[E],
) -> Result<BTreeMap<String, String>, String> {
    let stream = StreamId::of(E::CATEGORY, "sample").map_err(|error| error.to_string())?;
    let handlers = V::handlers();
    let mut replay = Replay::<V>::new();
    for (number, event) in (1..).zip(events) {
        let time = DateTime::UNIX_EPOCH + TimeDelta::seconds(number);
        let number = number.unsigned_abs();
        let place = Place {
            stream: stream.clone(),
            version: Version::new(number),
            partition: Partition(0),
            position: Position::new(number),
            append_index: 0,
            recorded_at: time,
        };
        let event = NewEvent::of(event).map_err(|error| chain(&error))?;
        let event = event
            .id(EventId::derived(&stream, "sample", number as u32))
            .at(time);
        let steps = handlers.prepare(event.recorded(place));
        let steps = steps.map_err(|error| chain(&error))?;
        replay.take(&steps).map_err(|error| chain(&error))?;
    }
    let written = replay.into_rows().map(|(key, row)| {
        let bytes = encode(&key, &row).map_err(|error| chain(&error))?;
        Ok((key, String::from_utf8_lossy(&bytes).into_owned()))
    });
    written.collect()
}
