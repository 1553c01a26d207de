//! A reactor as a part of a program.

use std::sync::Arc;

use annals_core::{CommitError, GenerationId, GenerationSpec, Invalid};
use annals_runner::{
    BoxFuture, DeadLetters, Follower, GenerationWorkers, Kind, Registry, RunningPart, Slot,
    StartError, Subject, Supervisor, WorkerContext, run,
};
use tokio::sync::watch;

use super::drain::DrainReactor;
use super::worker::React;
use super::{Handler, ReactorHandle, ReactorOptions, Registered};
use crate::begin::begin_at_head;

impl Follower for Registered {
    fn kind(&self) -> Kind {
        self.kind
    }

    fn name(&self) -> (&'static str, u32) {
        (self.name, 1)
    }

    fn check(&self) -> Result<(), Invalid> {
        self.options.timing().check()?;
        if self.options.call_timeout.is_zero() {
            let refused = "`call_timeout` is 0, and no call ends in no time";
            return Err(Invalid::new(refused));
        }
        Ok(())
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
            context.timing = options.timing();
            let log = context.log();
            let mut spec = GenerationSpec::new(self.kind.stored_name(self.name), 1, log.id());
            spec.partitions = log.partitions();
            let workers = GenerationWorkers::new(self.kind, spec);
            let handler = (self.make)(&context);
            // Archiving waits for it only when one of the types of its beginning is removed.
            let mut begins = workers.spec().clone();
            begins.handles = handler.filter().types;
            begins.handles.sort_unstable();
            let generation =
                begin_at_head(&context, &begins, self.name, options.from_the_beginning).await?;
            let drain = DrainReactor {
                context: context.clone(),
                workers: workers.clone(),
            };
            let dead_letters = DeadLetters::new(&context, &workers, Arc::new(drain));
            let handle = ReactorHandle::new(&context, &workers, &generation, dead_letters.clone());
            let subject = Arc::new(ReactorSubject {
                context: context.clone(),
                handler,
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
