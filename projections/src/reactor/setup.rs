//! A reactor as a part of a program.

use std::sync::Arc;

use annals_core::{
    Checkpoint, CommitError, Generation, GenerationId, GenerationSpec, Partition, Phase, Position,
    ViewCommit,
};
use annals_runner::{
    BoxFuture, Coordination, DeadLetters, Follower, GenerationWorkers, HeldLease, Kind, Registry,
    RunningPart, Slot, SlotClaim, StartError, Subject, Supervisor, Timing, WorkError,
    WorkerContext, event_at, run,
};
use tokio::sync::watch;

use super::drain::DrainReactor;
use super::worker::React;
use super::{Handler, ReactorHandle, ReactorOptions, Registered};

impl Follower for Registered {
    fn kind(&self) -> Kind {
        self.kind
    }

    fn name(&self) -> (&'static str, u32) {
        (self.name, 1)
    }

    fn register(&self, registry: Registry) -> Registry {
        (self.register)(registry)
    }

    fn start(
        self: Box<Self>,
        mut context: WorkerContext,
        stop: watch::Receiver<bool>,
    ) -> BoxFuture<'static, Result<RunningPart, StartError>> {
        Box::pin(async move {
            let options = self.options;
            context.timing = Timing {
                lease: options.lease,
                poll: options.poll,
                back_off: options.poll,
            };
            let log = context.log();
            let mut spec = GenerationSpec::new(self.kind.stored_name(self.name), 1, log.id());
            spec.partitions = log.partitions();
            let workers = GenerationWorkers::new(self.kind, spec);
            let generation = find_or_begin(&context, &workers, self.name, &options).await?;
            let drain = DrainReactor {
                context: context.clone(),
                workers: workers.clone(),
            };
            let dead_letters = DeadLetters::new(&context, &workers, Arc::new(drain));
            let handle = ReactorHandle::new(&context, &workers, &generation, dead_letters.clone());
            let subject = Arc::new(ReactorSubject {
                context: context.clone(),
                handler: (self.make)(&context),
                options,
            });
            let supervisor = Supervisor::new(context.clone(), workers.clone(), subject);
            Ok(RunningPart::of_type(self.of, handle)
                .followed_by(&context, &workers, dead_letters)
                .supervised_by(tokio::spawn(supervisor.run(stop))))
        })
    }
}

/// A reactor, as its supervisor knows it. It has one generation, which holds no rows of users.
struct ReactorSubject {
    context: WorkerContext,
    handler: Arc<dyn Handler>,
    options: ReactorOptions,
}

impl Subject for ReactorSubject {
    fn run(&self, slot: Slot, stop: watch::Receiver<bool>) -> BoxFuture<'static, ()> {
        let react = React::new(slot, Arc::clone(&self.handler), self.options.clone());
        Box::pin(run(react, stop))
    }

    fn switch_to(&self, generation: GenerationId) -> BoxFuture<'_, Result<(), CommitError>> {
        self.context.views.switch_to(generation)
    }

    fn drop_generation(&self, generation: GenerationId) -> BoxFuture<'_, Result<(), CommitError>> {
        self.context.views.drop_generation(generation)
    }
}

async fn find_or_begin(
    context: &WorkerContext,
    workers: &GenerationWorkers,
    name: &'static str,
    options: &ReactorOptions,
) -> Result<Generation, StartError> {
    let coordination = Coordination::take(context, workers.stored_name()).await?;
    let found = find_or_begin_alone(context, workers, name, options).await;
    coordination.release().await;
    found
}

async fn find_or_begin_alone(
    context: &WorkerContext,
    workers: &GenerationWorkers,
    name: &'static str,
    options: &ReactorOptions,
) -> Result<Generation, StartError> {
    let spec = workers.spec();
    let found = context.views.generations(&spec.view).await?;
    let mut generation = match found.into_iter().next() {
        Some(found) if found.spec.log != spec.log => return Err(StartError::OtherLog { name }),
        Some(found) if found.phase == Phase::Live => return Ok(found),
        Some(begun) => begun,
        None => context.views.begin_generation(spec.clone()).await?,
    };
    if !options.from_the_beginning {
        begin_at_head(context, &generation)
            .await
            .map_err(|error| StartError::Store(error.into_store()))?;
    }
    let switched = context.views.switch_to(generation.id).await;
    switched.map_err(|error| StartError::Store(WorkError::from(error).into_store()))?;
    generation.phase = Phase::Live;
    Ok(generation)
}

async fn begin_at_head(context: &WorkerContext, generation: &Generation) -> Result<(), WorkError> {
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
