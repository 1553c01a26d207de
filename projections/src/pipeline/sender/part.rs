//! The sender as a part of a program, beside its pipeline.

use std::sync::Arc;

use annals_core::{CommitError, Filter, GenerationId, GenerationSpec};
use annals_runner::{
    BatchLimit, BoxFuture, DeadLetters, Follower, GenerationWorkers, Kind, RunningPart, Slot,
    StartError, Subject, Supervisor, Timing, WorkerContext, run,
};
use tokio::sync::watch;

use super::{RunSender, SenderLink};
use crate::begin::begin_at_head;
use crate::pipeline::append::OpenOutlet;
use crate::pipeline::blueprint::Blueprint;
use crate::pipeline::part::{NothingToDrain, spec_of};

/// Finds or begins the note of what a pipeline has sent: at the end of the log, unless its events
/// are sent from the beginning.
pub(crate) async fn begin(
    context: &WorkerContext,
    blueprint: &Blueprint,
) -> Result<GenerationWorkers, StartError> {
    let workers = blueprint.sender_workers.get_or_init(|| {
        let log = context.log();
        let mut spec = GenerationSpec::new(blueprint.sender.stored_name(), 1, log.id());
        spec.partitions = log.partitions();
        GenerationWorkers::new(Kind::Sender, spec)
    });
    let from_the_beginning = blueprint.sends_from_the_beginning();
    begin_at_head(context, workers.spec(), blueprint.name, from_the_beginning).await?;
    Ok(workers.clone())
}

/// Sends what a pipeline emits.
pub(crate) struct SenderPart {
    pub(crate) blueprint: Arc<Blueprint>,
    pub(crate) timing: Timing,
}

impl Follower for SenderPart {
    fn kind(&self) -> Kind {
        Kind::Sender
    }

    fn name(&self) -> (&'static str, u32) {
        (self.blueprint.name, 1)
    }

    fn start(
        self: Box<Self>,
        mut context: WorkerContext,
        stop: watch::Receiver<bool>,
    ) -> BoxFuture<'static, Result<RunningPart, StartError>> {
        Box::pin(async move {
            context.timing = self.timing;
            let workers = begin(&context, &self.blueprint).await?;
            let dead_letters = DeadLetters::new(&context, &workers, Arc::new(NothingToDrain));
            // Generations are compared whatever their slots.
            let pipeline = spec_of(&self.blueprint, &**context.log(), 1);
            let subject = Arc::new(SenderSubject {
                outlets: self.blueprint.outlets(),
                context: context.clone(),
                pipeline: Arc::new(pipeline),
                filter: self.blueprint.filter(),
                link: Arc::clone(&self.blueprint.sender),
            });
            let supervisor = Supervisor::new(context.clone(), workers.clone(), subject);
            Ok(RunningPart::of::<SenderPart>(self.blueprint.name)
                .followed_by(&context, &workers, dead_letters)
                .supervised_by(tokio::spawn(supervisor.run(stop))))
        })
    }
}

/// The sender, as its supervisor knows it.
struct SenderSubject {
    context: WorkerContext,
    pipeline: Arc<GenerationSpec>,
    filter: Filter,
    link: Arc<SenderLink>,
    outlets: Vec<OpenOutlet>,
}

impl Subject for SenderSubject {
    fn run(&self, slot: Slot, stop: watch::Receiver<bool>) -> BoxFuture<'static, ()> {
        let sender = RunSender {
            slot,
            pipeline: Arc::clone(&self.pipeline),
            filter: self.filter.clone(),
            link: Arc::clone(&self.link),
            outlets: self.outlets.clone(),
            batch_limit: BatchLimit::default(),
        };
        Box::pin(run(sender, stop))
    }

    fn switch_to(&self, generation: GenerationId) -> BoxFuture<'_, Result<(), CommitError>> {
        self.context.views.switch_to(generation)
    }

    fn drop_generation(&self, generation: GenerationId) -> BoxFuture<'_, Result<(), CommitError>> {
        self.context.views.drop_generation(generation)
    }
}
