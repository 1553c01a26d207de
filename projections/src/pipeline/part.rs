//! A pipeline as a part of a program.

use std::any::TypeId;
use std::sync::Arc;

use annals_core::{
    CommitError, Generation, GenerationId, GenerationSpec, History, Invalid, Store, VIEW_SLOTS_MAX,
};
// Dead letters of a pipeline are rows: no key waits for them.
pub(super) use annals_runner::NothingToDrain;
use annals_runner::{
    BoxFuture, DeadLetters, Follower, GenerationWorkers, Kind, Pages, Part, RunningPart, Setup,
    Slot, StartError, Subject, Supervisor, Verified, WorkError, WorkerContext, find_or_begin, run,
};
use tokio::sync::watch;

use super::Pipeline;
use super::blueprint::Blueprint;
use super::handle::PipelineHandle;
use super::output::OutputSpec;
use super::prepared::PreparedPage;
use super::sender::{self, SenderPart};
use super::verify;
use super::work::RunSlot;
use crate::context::ViewContext;
use crate::lifecycle::Lifecycle;
use crate::options::Options;
use crate::query::OutputRows;

impl Part for Pipeline {
    fn add_to(self, setup: Setup) -> Setup {
        let blueprint = self.blueprint();
        let timing = self.options.timing();
        let sender = blueprint.appends().then(|| SenderPart {
            blueprint: Arc::clone(&blueprint),
            timing,
        });
        let options = self.options;
        let setup = setup.with_follower(RunningPipeline { blueprint, options });
        match sender {
            Some(sender) => setup.with_follower(sender),
            None => setup,
        }
    }
}

/// A pipeline that is to be run.
struct RunningPipeline {
    blueprint: Arc<Blueprint>,
    options: Options,
}

impl Follower for RunningPipeline {
    fn kind(&self) -> Kind {
        Kind::View
    }

    fn name(&self) -> (&'static str, u32) {
        (self.blueprint.name, self.blueprint.version)
    }

    fn check(&self) -> Result<(), Invalid> {
        self.options.check()
    }

    fn writes(&self) -> Vec<&'static str> {
        let graph = self.blueprint.graph().lock();
        graph.outputs.iter().map(|output| output.name).collect()
    }

    fn is_pipeline(&self) -> bool {
        true
    }

    fn start(
        self: Box<Self>,
        context: WorkerContext,
        stop: watch::Receiver<bool>,
    ) -> BoxFuture<'static, Result<RunningPart, StartError>> {
        Box::pin(async move {
            let blueprint = self.blueprint;
            let name = blueprint.name;
            let wrong = |reason| StartError::Pipeline { name, reason };
            let mut options = self.options;
            if blueprint.by_partition {
                let partitions = context.log().partitions();
                options.slots = slots_of(partitions).map_err(wrong)?;
            }
            blueprint.check(options.slots).map_err(wrong)?;
            let context = ViewContext::new(context, options.clone(), Lifecycle::Async);
            let spec = spec_of(&blueprint, &**context.log(), context.options.slots);
            let workers = GenerationWorkers::new(Kind::View, spec);
            if find_or_begin(&context, workers.spec()).await?.is_none() {
                return Err(StartError::OtherLog { name });
            }
            let mut sent = None;
            if blueprint.appends() {
                let workers = sender::begin(&context, &blueprint).await?;
                sent = Some(DeadLetters::new(
                    &context,
                    &workers,
                    Arc::new(NothingToDrain),
                ));
            }
            let subject = Arc::new(PipelineSubject {
                blueprint: Arc::clone(&blueprint),
                context: context.clone(),
                pages: Arc::default(),
                options,
            });
            let dead_letters = DeadLetters::new(&context, &workers, Arc::new(NothingToDrain));
            let supervised: Arc<dyn Subject> = Arc::<PipelineSubject>::clone(&subject);
            let supervisor = Supervisor::new(
                context.program.clone(),
                workers.clone(),
                Arc::clone(&supervised),
            );
            let handle = PipelineHandle::new(
                context.clone(),
                workers.clone(),
                subject,
                Arc::clone(&blueprint),
                (dead_letters.clone(), sent),
            );
            let mut part = RunningPart::of_type(TypeId::of::<Pipeline>(), handle);
            for output in blueprint.graph().lock().outputs.clone() {
                let rows = OutputRows {
                    prefix: output.prefix(),
                    subject: Arc::clone(&supervised),
                    pipeline: name,
                };
                let (of, handle) = (output.handle)(&context, &workers, rows);
                part = part.also(of, handle);
            }
            Ok(part
                .followed_by(&context, &workers, dead_letters)
                .supervised_by(tokio::spawn(supervisor.run(stop)))
                .awaited())
        })
    }
}

/// A slot for each partition.
fn slots_of(partitions: u32) -> Result<u16, String> {
    let slots = u16::try_from(partitions).ok();
    slots
        .filter(|slots| *slots <= VIEW_SLOTS_MAX)
        .ok_or_else(|| {
            format!(
                "the log has {partitions} partitions, and {VIEW_SLOTS_MAX} slots are possible; do \
             without `by_partition`"
            )
        })
}

/// What a generation of a pipeline is made of.
pub(super) fn spec_of(blueprint: &Blueprint, log: &dyn Store, slots: u16) -> GenerationSpec {
    let mut spec = GenerationSpec::new(blueprint.name, blueprint.version, log.id());
    spec.handles = blueprint.types().into_iter().map(str::to_owned).collect();
    spec.handles.push(blueprint.plan());
    if blueprint.by_partition {
        spec.handles.push(GenerationSpec::BY_PARTITION.to_owned());
    }
    spec.partitions = log.partitions();
    spec.slots = slots;
    let draft = blueprint.graph().lock();
    let keys = draft.keys.join(" ");
    let outputs = draft.outputs.clone();
    drop(draft);
    spec.handles.push(format!("{}{keys}", GenerationSpec::KEYS));
    let output = |of: &OutputSpec| format!("{}{}{}", GenerationSpec::OUTPUT, of.prefix(), of.make);
    spec.handles.extend(outputs.iter().map(output));
    spec.indexes = outputs.iter().flat_map(OutputSpec::index_names).collect();
    spec.history = if outputs.iter().any(|of| of.keeps) {
        History::Versions
    } else {
        History::None
    };
    spec
}

/// A pipeline, as its supervisor knows it.
pub(crate) struct PipelineSubject {
    blueprint: Arc<Blueprint>,
    context: ViewContext,
    /// What its slots in this process have read.
    pages: Arc<Pages<PreparedPage>>,
    options: Options,
}

impl Subject for PipelineSubject {
    fn run(&self, slot: Slot, stop: watch::Receiver<bool>) -> BoxFuture<'static, ()> {
        let blueprint = Arc::clone(&self.blueprint);
        let pages = Arc::clone(&self.pages);
        let options = self.options.clone();
        Box::pin(run(RunSlot::new(slot, blueprint, pages, options), stop))
    }

    fn verify<'a>(
        &'a self,
        generation: &'a Generation,
    ) -> BoxFuture<'a, Result<Verified, WorkError>> {
        Box::pin(verify::sampled(&self.blueprint, &self.context, generation))
    }

    fn switch_to(&self, generation: GenerationId) -> BoxFuture<'_, Result<(), CommitError>> {
        self.context.views.switch_to(generation)
    }

    fn drop_generation(&self, generation: GenerationId) -> BoxFuture<'_, Result<(), CommitError>> {
        self.context.views.drop_generation(generation)
    }
}
