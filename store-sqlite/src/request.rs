//! An append as the writer gets it: checked, and with everything computed that does not need the
//! file.

use std::sync::Arc;

use annals_core::{Append, AppendError, Clock, Limits, Metadata, NewEvent};

/// What is to be appended.
#[derive(Debug)]
pub(crate) struct Request {
    /// The caller may keep it, too.
    pub(crate) append: Arc<Append>,
    pub(crate) events: Vec<Encoded>,
    pub(crate) bytes: usize,
    pub(crate) clock: Arc<dyn Clock>,
}

/// The columns of an event that are computed beforehand.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) digest: [u8; 16],
    pub(crate) tags: Option<String>,
    pub(crate) metadata: Option<String>,
}

impl Request {
    /// Checks the append and encodes it; runs in the caller's task, not on the writer thread.
    pub(crate) fn new(
        append: Arc<Append>,
        limits: &Limits,
        clock: Arc<dyn Clock>,
    ) -> Result<Request, AppendError> {
        append.check(limits)?;
        let events = append
            .events
            .iter()
            .map(|(_, event)| Encoded::of(event))
            .collect();
        let bytes = append.size_bytes();
        Ok(Request {
            append,
            events,
            bytes,
            clock,
        })
    }
}

impl Encoded {
    fn of(event: &NewEvent) -> Encoded {
        let tags = (!event.tags.is_empty()).then(|| {
            let tags = event.sorted_tags();
            let names: Vec<&str> = tags.iter().map(|tag| tag.as_str()).collect();
            // No tag holds a control character.
            names.join("\n")
        });
        let metadata = (event.metadata != Metadata::default()).then(|| {
            serde_json::to_string(&event.metadata).expect("ids, texts and a map of texts are JSON")
        });
        Encoded {
            digest: event.digest().0,
            tags,
            metadata,
        }
    }
}
