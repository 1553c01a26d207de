//! What follows the log and holds no rows of users has one generation, which is live from its
//! beginning: at the end of the log, because what was recorded before is not its business.

use annals_core::{Checkpoint, Generation, GenerationSpec, Partition, Phase, Position, ViewCommit};
use annals_runner::{
    Coordination, HeldLease, SlotClaim, StartError, WorkError, WorkerContext, event_at,
};

/// Finds or begins that generation, and makes it live: at the end of the log, unless it is to
/// begin at its beginning.
///
/// # Errors
///
/// [`StartError::OtherLog`] when it belongs to another log; otherwise those of the store.
pub(crate) async fn begin_at_head(
    context: &WorkerContext,
    spec: &GenerationSpec,
    name: &'static str,
    from_the_beginning: bool,
) -> Result<Generation, StartError> {
    let coordination = Coordination::take(context, &spec.view).await?;
    let found = begin_alone(context, spec, name, from_the_beginning).await;
    coordination.release().await;
    found
}

async fn begin_alone(
    context: &WorkerContext,
    spec: &GenerationSpec,
    name: &'static str,
    from_the_beginning: bool,
) -> Result<Generation, StartError> {
    let found = context.views.generations(&spec.view).await?;
    let mut found = found.into_iter().filter(|of| !of.spec.is_of_nothing());
    let mut generation = match found.next() {
        Some(found) if found.spec.log != spec.log => return Err(StartError::OtherLog { name }),
        Some(found) if found.phase == Phase::Live => return Ok(found),
        Some(begun) => begun,
        None => context.views.begin_generation(spec.clone()).await?,
    };
    if !from_the_beginning {
        settle_to_head(context, &generation)
            .await
            .map_err(|error| StartError::Store(error.into_store()))?;
    }
    let switched = context.views.switch_to(generation.id).await;
    switched.map_err(|error| StartError::Store(WorkError::from(error).into_store()))?;
    generation.phase = Phase::Live;
    Ok(generation)
}

async fn settle_to_head(context: &WorkerContext, generation: &Generation) -> Result<(), WorkError> {
    let log = context.log();
    let claim = SlotClaim::of_operator(context, generation, 0);
    let held = HeldLease::steal(&claim).await?;
    let known = context.views.checkpoints(generation.id).await?;
    for partition in (0..generation.spec.partitions).map(Partition) {
        if known.iter().any(|of| of.partition == partition) {
            continue;
        }
        let position = log.head(partition).await?.visible;
        let to = Checkpoint {
            position,
            event: event_at(&**log, partition, position).await?,
            ..Checkpoint::start(0, partition)
        };
        let commit = ViewCommit::new(generation.id, held.lease(), Position::START, to);
        context.views.commit_view(commit).await?;
    }
    held.release().await;
    Ok(())
}
