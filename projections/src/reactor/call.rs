//! What a worker of a reactor calls, with the types forgotten.

use std::sync::Arc;

use annals_core::chrono::{DateTime, Utc};
use annals_core::{Filter, Generation, RecordedEvent, RowChange, StoreError};

use super::ReactError;
use crate::step::StepError;
use annals_runner::{BoxFuture, ViewLocation};

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
