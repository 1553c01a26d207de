//! What a worker of a reactor calls, with the types forgotten.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use annals_core::chrono::{DateTime, Utc};
use annals_core::{Filter, Generation, RecordedEvent, RowChange, StoreError};

use super::ReactError;
use crate::location::{BoxFuture, ViewLocation};
use crate::step::{StepError, panicked};

/// Reads events, and knows what to do about them.
pub(crate) trait Handler: Send + Sync + 'static {
    /// What the log is read through.
    fn filter(&self) -> Filter;

    /// What is to be done about an event; nothing when it is none of this handler's.
    fn prepare(&self, record: RecordedEvent) -> Result<Option<Call>, StepError>;

    /// What is to be done about a moment. Called now and then under the lease, and again when it
    /// failed.
    fn due<'a>(
        &'a self,
        _: &'a ViewLocation,
        _: &'a Generation,
        _: DateTime<Utc>,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }
}

type Make = dyn Fn(u32) -> BoxFuture<'static, Result<Vec<RowChange>, ReactError>> + Send + Sync;

/// What is to be done about an event: one after another for each key.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) key: String,
    pub(crate) record: Arc<RecordedEvent>,
    /// Does it; it is told which attempt this is. What it answers with is written together with the
    /// checkpoint.
    pub(crate) make: Arc<Make>,
}

/// What a future gives, or what it said when it panicked.
pub(crate) async fn contained<F: Future>(future: F) -> Result<F::Output, String> {
    let mut future = pin!(future);
    poll_fn(move |context| {
        // A future that panicked is not polled again, so nothing half-changed is seen.
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => Poll::Ready(Err(panicked(&*panic))),
        }
    })
    .await
}
