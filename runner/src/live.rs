//! What works under a lease and builds nothing has one generation, which is live from its
//! beginning.

use annals_core::Phase;

use crate::context::WorkerContext;
use crate::error::WorkError;
use crate::generation::GenerationWorkers;
use crate::program::StartError;
use crate::supervisor::find_or_begin;

/// Finds or begins the one generation of what holds no rows, such as a relay or an ingest, and
/// makes it live.
///
/// # Errors
///
/// [`StartError::OtherLog`] when it belongs to another log; otherwise those of the store.
pub async fn begin_live(
    context: &WorkerContext,
    workers: &GenerationWorkers,
    name: &'static str,
) -> Result<(), StartError> {
    let found = find_or_begin(context, workers.spec()).await?;
    let Some(generation) = found else {
        return Err(StartError::OtherLog { name });
    };
    if generation.phase != Phase::Live {
        let switched = context.views.switch_to(generation.id).await;
        switched.map_err(|error| StartError::Store(WorkError::from(error).into_store()))?;
    }
    Ok(())
}
