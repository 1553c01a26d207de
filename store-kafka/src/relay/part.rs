//! A relay as a part of a program: its worker publishes under a lease, and its status says how far
//! it has come.
//!
//! The lease keeps two processes from shutting each other out in turn; that nothing is published
//! twice is the business of the fence and the marks. The checkpoint in the view store is for those
//! who look: the marks decide.

use std::sync::Arc;
use std::time::Duration;

use annals_core::{
    Checkpoint, CommitError, Filter, GenerationId, GenerationSpec, Partition, Position,
};
use annals_runner::{
    Backoff, BoxFuture, DeadLetters, Follower, GenerationWorkers, HeldLease, Kind, NothingToDrain,
    Part, RunningPart, Setup, Slot, StartError, Subject, Supervisor, Tasks, Work, WorkError,
    WorkerContext, begin_live, event_at, run,
};
use tokio::sync::watch;

use super::{BACKOFF, Relay};

/// How often its checkpoint is written at most.
const NOTE: Duration = Duration::from_secs(1);

impl Part for Relay {
    fn add_to(self, setup: Setup) -> Setup {
        setup.with_follower(self)
    }
}

impl Follower for Relay {
    fn kind(&self) -> Kind {
        Kind::Relay
    }

    fn name(&self) -> (&'static str, u32) {
        (self.name, 1)
    }

    fn keeps_nothing(&self) -> bool {
        true
    }

    fn start(
        self: Box<Self>,
        context: WorkerContext,
        stop: watch::Receiver<bool>,
    ) -> BoxFuture<'static, Result<RunningPart, StartError>> {
        Box::pin(async move {
            let name = self.name;
            let log = context.log();
            let mut spec = GenerationSpec::new(Kind::Relay.stored_name(name), 1, log.id());
            spec.partitions = log.partitions();
            let workers = GenerationWorkers::new(Kind::Relay, spec);
            begin_live(&context, &workers, name).await?;
            // What cannot be sent stops it.
            let dead_letters = DeadLetters::new(&context, &workers, Arc::new(NothingToDrain));
            let subject = Arc::new(RelaySubject {
                context: context.clone(),
                relay: Arc::new(*self),
            });
            let supervisor = Supervisor::new(context.clone(), workers.clone(), subject);
            Ok(RunningPart::of::<Relay>(name)
                .followed_by(&context, &workers, dead_letters)
                .supervised_by(tokio::spawn(supervisor.run(stop))))
        })
    }
}

struct RelaySubject {
    context: WorkerContext,
    relay: Arc<Relay>,
}

impl Subject for RelaySubject {
    fn run(&self, slot: Slot, stop: watch::Receiver<bool>) -> BoxFuture<'static, ()> {
        let publishes = Publish {
            slot,
            relay: Arc::clone(&self.relay),
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

/// The work of a relay under its lease.
struct Publish {
    slot: Slot,
    relay: Arc<Relay>,
}

impl Work for Publish {
    fn slot(&self) -> &Slot {
        &self.slot
    }

    fn filter(&self) -> Filter {
        Filter::default().types(self.relay.types.iter().cloned())
    }

    async fn work(
        &self,
        held: &HeldLease,
        _: Tasks,
        _: watch::Receiver<bool>,
    ) -> Result<(), WorkError> {
        let slot = &self.slot;
        let log = slot.context.log().as_ref();
        let mut outlet = self.relay.outlet().await?;
        // The loop of all workers waits between tries.
        let mut backoff: Backoff = BACKOFF;
        tokio::select! {
            ended = self.relay.publish(log, &mut outlet, &mut backoff, &slot.progress) => {
                Err(self.relay.failure(ended).into())
            }
            Err(error) = note_checkpoints(slot, held) => Err(error),
        }
    }
}

/// Writes how far a slot has come, for those who look from other processes.
pub(crate) async fn note_checkpoints(slot: &Slot, held: &HeldLease) -> Result<(), WorkError> {
    let log = slot.context.log();
    let mut noted: Vec<Position> = Vec::new();
    for partition in (0..log.partitions()).map(Partition) {
        noted.push(slot.checkpoint(partition).await?.position);
    }
    let mut progress = slot.progress.watch();
    loop {
        for (partition, noted) in (0..).map(Partition).zip(&mut noted) {
            let reached = progress.borrow_and_update().reached_in(partition);
            if reached <= *noted {
                continue;
            }
            let to = Checkpoint {
                position: reached,
                event: event_at(&**log, partition, reached).await?,
                ..Checkpoint::start(slot.number, partition)
            };
            let commit = slot.view_commit(held.lease(), *noted, to);
            slot.context.views.commit_view(commit).await?;
            *noted = reached;
        }
        tokio::time::sleep(NOTE).await;
        if progress.changed().await.is_err() {
            return Ok(());
        }
    }
}
