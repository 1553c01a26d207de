//! How much one append may hold.

use crate::error::Invalid;
use crate::event::NewEvent;

/// How much one append may hold.
///
/// ```
/// assert_eq!(annals_core::Limits::default().append_events_max, 10_000);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Events in one append. Default: 10,000.
    pub append_events_max: usize,
    /// Streams of which something is expected in one append. Default: 10,000.
    pub append_expectations_max: usize,
    /// Bytes in one append: payloads, names, tags and metadata. Default: 64 MiB.
    pub append_bytes_max: usize,
    /// Bytes of one payload. Default: 16 MiB.
    pub payload_bytes_max: usize,
}

impl Limits {
    /// Bytes of a type's or codec's name.
    pub const NAME_BYTES_MAX: usize = 255;
    /// Tags on one event.
    pub const TAGS_MAX: usize = 64;
    /// Bytes of one event's metadata.
    pub const METADATA_BYTES_MAX: usize = 64 * 1024;

    pub(super) fn check_event(&self, index: usize, event: &NewEvent) -> Result<(), Invalid> {
        for (what, name) in [("type", &event.event_type), ("codec", &event.codec)] {
            if name.is_empty()
                || name.len() > Limits::NAME_BYTES_MAX
                || name.chars().any(char::is_control)
            {
                let start: String = name.chars().take(32).collect();
                return Err(Invalid::new(format!(
                    "event {index} has the {what} `{}`: 1 to 255 bytes without control characters \
                     are allowed",
                    start.escape_debug()
                )));
            }
        }
        let of = |what: &str, found: usize, max: usize| {
            Err(Invalid::new(format!(
                "event {index} (`{}`) has {found} {what}, at most {max} are allowed",
                event.event_type
            )))
        };
        if event.payload.len() > self.payload_bytes_max {
            return of(
                "bytes of payload",
                event.payload.len(),
                self.payload_bytes_max,
            );
        }
        if event.tags.len() > Limits::TAGS_MAX {
            return of("tags", event.tags.len(), Limits::TAGS_MAX);
        }
        if event.metadata.size_bytes() > Limits::METADATA_BYTES_MAX {
            return of(
                "bytes of metadata",
                event.metadata.size_bytes(),
                Limits::METADATA_BYTES_MAX,
            );
        }
        Ok(())
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            append_events_max: 10_000,
            append_expectations_max: 10_000,
            append_bytes_max: 64 << 20,
            payload_bytes_max: 16 << 20,
        }
    }
}
