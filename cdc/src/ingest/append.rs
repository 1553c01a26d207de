//! One append: events and a mark, under the version of the marks.

use std::time::Duration;

use annals_core::{Append, AppendError, Backoff, Expected, Failure, Store, StoreError, Version};

use super::Placed;
use super::mark::{Mark, mark_stream};

/// Waits between tries of an append whose outcome is unknown.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));

/// Why an append was not made.
#[derive(Debug)]
pub(super) enum NotAppended {
    /// Another process takes in under this name.
    Fenced,
    /// These events can never be appended.
    Refused(String),
    /// The store could not do it.
    Store(StoreError),
}

/// Appends, and returns the version of the marks then.
pub(super) async fn append(
    store: &dyn Store,
    name: &str,
    version: Version,
    events: &[Placed],
    mark: &Mark,
) -> Result<Version, NotAppended> {
    let refused = |error: annals_core::Invalid| NotAppended::Refused(error.to_string());
    let stream = mark_stream(name).map_err(refused)?;
    let marked = mark.event().map_err(refused)?;
    let mut append = Append::default().requiring(stream.clone(), Expected::Version(version));
    append.events = events.to_vec();
    append = append.event(stream, marked);
    let mut backoff = BACKOFF;
    loop {
        match store.append(append.clone()).await {
            Ok(appended) => {
                let found = appended.last().version;
                if found == version.next() {
                    return Ok(found);
                }
                return Err(NotAppended::Refused(format!(
                    "the mark is at version {found} of its stream and not at {}: the store took \
                     the append for another one, and nothing is confirmed",
                    version.next()
                )));
            }
            // The same append again, with the same ids, says what became of it.
            Err(AppendError::Unknown(error)) => {
                tracing::info!(ingest = name, %error, "asking for the outcome of an append");
                tokio::time::sleep(backoff.next_wait()).await;
            }
            Err(AppendError::Conflict(_)) => return Err(NotAppended::Fenced),
            Err(AppendError::Store(error)) => return Err(NotAppended::Store(error)),
            Err(error) => return Err(NotAppended::Refused(error.to_string())),
        }
    }
}

/// Whether trying again may help.
pub(super) fn may_pass(error: &StoreError) -> bool {
    matches!(error.failure(), Failure::Unavailable | Failure::Full)
}
