//! What has no queues of dead letters.

use annals_core::Generation;

use crate::dead_letters::Drain;
use crate::error::WorkError;
use crate::location::BoxFuture;
use crate::tasks::DrainResult;

/// Drains nothing: of what follows the log without keys that wait for their dead letters.
///
/// ```
/// use std::sync::Arc;
///
/// use annals_runner::{DeadLetters, NothingToDrain};
/// # use annals_runner::{GenerationWorkers, WorkerContext};
/// # fn example(context: &WorkerContext, workers: &GenerationWorkers) -> DeadLetters {
/// DeadLetters::new(context, workers, Arc::new(NothingToDrain))
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct NothingToDrain;

impl Drain for NothingToDrain {
    fn drain(
        &self,
        _: Generation,
        _: u16,
        _: Vec<String>,
    ) -> BoxFuture<'_, Result<DrainResult, WorkError>> {
        Box::pin(async { Ok(DrainResult::default()) })
    }
}
