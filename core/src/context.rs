//! Metadata of a task: what is appended inside carries it without being asked.

use std::future::Future;

use crate::event::Metadata;

tokio::task_local! {
    static AMBIENT: Metadata;
}

/// Runs `future`; every command inside it, in the same task, carries `metadata` where it does not
/// say otherwise.
///
/// Reactors and process managers run their handlers so, with the metadata of the event that they
/// handle; a web service does it once for each request. A task that is spawned inside starts
/// without it.
///
/// ```
/// use annals_core::{Metadata, with_metadata};
///
/// # async fn example(handle_request: impl Future<Output = ()>) {
/// with_metadata(Metadata::default().actor("ada"), handle_request).await;
/// # }
/// ```
pub async fn with_metadata<F: Future>(metadata: Metadata, future: F) -> F::Output {
    let metadata = metadata.within(&ambient());
    AMBIENT.scope(metadata, future).await
}

pub(crate) fn ambient() -> Metadata {
    AMBIENT.try_with(Metadata::clone).unwrap_or_default()
}
