//! A state topic as a part of a program.

use std::sync::Arc;

use annals_core::{CommitError, Filter, GenerationId, GenerationSpec, Outlet as _};
use annals_runner::{
    BoxFuture, DeadLetters, Follower, GenerationWorkers, HeldLease, Kind, NothingToDrain, Part,
    RunningPart, Setup, Slot, StartError, Subject, Supervisor, Tasks, ViewKind, Work, WorkError,
    WorkerContext, begin_live, run,
};
use tokio::sync::watch;

use super::StateTopic;
use super::follow::{Publishing, serving};
use crate::relay::note_checkpoints;

impl Part for StateTopic {
    fn add_to(self, setup: Setup) -> Setup {
        setup.with_follower(self)
    }
}

impl Follower for StateTopic {
    fn kind(&self) -> Kind {
        Kind::StateTopic
    }

    fn name(&self) -> (&'static str, u32) {
        (self.view, 1)
    }

    fn start(
        self: Box<Self>,
        context: WorkerContext,
        stop: watch::Receiver<bool>,
    ) -> BoxFuture<'static, Result<RunningPart, StartError>> {
        Box::pin(async move {
            let name = self.view;
            let log = context.log();
            let mut spec = GenerationSpec::new(Kind::StateTopic.stored_name(name), 1, log.id());
            spec.partitions = log.partitions();
            let workers = GenerationWorkers::new(Kind::StateTopic, spec);
            let Some(view) = context.registry.view_called(name).cloned() else {
                return Err(StartError::Stopped {
                    name: name.to_owned(),
                    reason: self.said("the program has no view of this name: add it"),
                });
            };
            begin_live(&context, &workers, name).await?;
            let dead_letters = DeadLetters::new(&context, &workers, Arc::new(NothingToDrain));
            let subject = Arc::new(StateTopicSubject {
                context: context.clone(),
                state_topic: Arc::new(*self),
                view: Arc::new(view),
            });
            let supervisor = Supervisor::new(context.clone(), workers.clone(), subject);
            Ok(RunningPart::of::<StateTopic>(name)
                .followed_by(&context, &workers, dead_letters)
                .supervised_by(tokio::spawn(supervisor.run(stop))))
        })
    }
}

struct StateTopicSubject {
    context: WorkerContext,
    state_topic: Arc<StateTopic>,
    view: Arc<ViewKind>,
}

impl Subject for StateTopicSubject {
    fn run(&self, slot: Slot, stop: watch::Receiver<bool>) -> BoxFuture<'static, ()> {
        let publishes = Publish {
            slot,
            state_topic: Arc::clone(&self.state_topic),
            view: Arc::clone(&self.view),
        };
        Box::pin(run(publishes, stop))
    }

    fn switch_to(&self, generation: GenerationId) -> BoxFuture<'_, Result<(), CommitError>> {
        self.context.views.switch_to(generation)
    }

    fn drop_generation(&self, generation: GenerationId) -> BoxFuture<'_, Result<(), CommitError>> {
        self.context.views.drop_generation(generation)
    }
}

/// The work of a state topic under its lease.
struct Publish {
    slot: Slot,
    state_topic: Arc<StateTopic>,
    view: Arc<ViewKind>,
}

impl Publish {
    async fn publish(&self) -> Result<(), WorkError> {
        let context = &self.slot.context;
        context.poll.follow(self.view.name, context.timing.poll);
        let mut polls = context.poll.seen();
        let generation = loop {
            polls.mark_unchanged();
            if let Some(serving) = serving(context, &self.view).await? {
                break serving;
            }
            // It is being built.
            if polls.changed().await.is_err() {
                return Ok(());
            }
        };
        let (kafka, topic, mut outlet) = self.state_topic.outlet().await?;
        let opened = outlet.open().await;
        let mut publishing = Publishing {
            state_topic: &self.state_topic,
            slot: &self.slot,
            context,
            view: &self.view,
            generation,
            kafka,
            topic,
            outlet,
            places: Default::default(),
            dead: Default::default(),
        };
        let marks = opened.map_err(|error| publishing.failed(error))?;
        publishing.begin(marks).await?;
        publishing.follow().await
    }
}

impl Work for Publish {
    fn slot(&self) -> &Slot {
        &self.slot
    }

    fn filter(&self) -> Filter {
        Filter::default().types(self.view.handles.iter().cloned())
    }

    async fn work(
        &self,
        held: &HeldLease,
        _: Tasks,
        _: watch::Receiver<bool>,
    ) -> Result<(), WorkError> {
        tokio::select! {
            ended = self.publish() => ended,
            Err(error) = note_checkpoints(&self.slot, held) => Err(error),
        }
    }
}
