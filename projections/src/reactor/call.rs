//! What a worker of a reactor calls, with the types erased.

use std::sync::Arc;

use annals_core::{Filter, RecordedEvent, RowChange, StoreError};
use annals_runner::{BoxFuture, Slot};

use super::ReactError;
use crate::key::RefusedKey;
use crate::view::step::StepError;

/// Reads events, and knows what to do about them.
pub(crate) trait Handler: Send + Sync + 'static {
    /// What the log is read through.
    fn filter(&self) -> Filter;

    /// What is to be done about an event, once for each key; nothing when it does not concern this
    /// handler.
    fn prepare(&self, record: RecordedEvent) -> Result<Vec<Call>, StepError>;

    /// Whether something is to be done about the time.
    fn is_timed(&self) -> bool {
        false
    }

    /// What is to be done about the time. Called now and then under the lease, and again when it
    /// failed.
    fn due<'a>(&'a self, _: &'a Slot) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }
}

type Make = dyn Fn(u32) -> BoxFuture<'static, Result<Vec<RowChange>, ReactError>> + Send + Sync;

/// What is to be done about an event: one after another for each key.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) key: String,
    pub(crate) record: Arc<RecordedEvent>,
    /// Does it, given which attempt this is. What it answers with is written together with the
    /// checkpoint.
    pub(crate) make: Arc<Make>,
}

impl Call {
    /// Of a key that is too long: it fails, and is a dead letter of a short key.
    pub(crate) fn refused(key: RefusedKey, record: Arc<RecordedEvent>) -> Call {
        let make = move |_| -> BoxFuture<'static, _> {
            let reason = key.reason.clone();
            Box::pin(async move { Err(ReactError::Permanent(reason)) })
        };
        Call {
            key: key.short,
            record,
            make: Arc::new(make),
        }
    }
}
