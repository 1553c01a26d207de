//! An ingest as a part of a program: one slot, on which the loop of all workers works under its
//! lease.

use std::sync::Arc;

use annals_core::{CommitError, Filter, GenerationId, GenerationSpec, StoreError};
use annals_runner::{
    BoxFuture, Follower, GenerationWorkers, HeldLease, Kind, Part, RunningPart, Setup, Slot,
    StartError, Subject, Supervisor, Tasks, Work, WorkError, WorkerContext, begin_live, chain,
    contained_async, run,
};
use tokio::sync::{Mutex, MutexGuard, watch};

use super::handle::{IngestHandle, Shared};
use super::mark::MARK;
use super::pause::Pause;
use super::source::Source;
use super::status::IngestState;
use super::work::Taking;
use super::{Ingest, Settings};
use crate::translate::Translator;

impl Part for Ingest {
    fn add_to(self, setup: Setup) -> Setup {
        setup.with_follower(self)
    }
}

impl Follower for Ingest {
    fn kind(&self) -> Kind {
        Kind::Ingest
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
            if !context.log().atomic() {
                return Err(StartError::Store(StoreError::new(
                    annals_core::Failure::Invalid,
                    format!(
                        "the store of this log cannot append to several streams at once, so a \
                         transaction of ingest `{name}` could be seen in part; take it into \
                         SQLite or PostgreSQL and relay it"
                    ),
                )));
            }
            let reads_changes = |of: &Arc<dyn Translator>| of.reads_changes();
            if self.settings.only_translated && self.settings.translators.iter().any(reads_changes)
            {
                return Err(StartError::Stopped {
                    name: name.to_owned(),
                    reason: format!(
                        "ingest `{name}` says `only_translated` and `translate_known`, which reads \
                         the changes from the log: leave out `only_translated`, or give the table \
                         `replica identity full` and use `translate`"
                    ),
                });
            }
            let Some(source) = self.source else {
                return Err(StartError::Stopped {
                    name: name.to_owned(),
                    reason: format!("ingest `{name}` has no source: say `from`"),
                });
            };
            let can_resync = source.can_resync();
            let has_messages = source.has_messages();
            let tables = source.tables();
            if let Some(reason) = self.settings.lacks_table(name, &tables) {
                return Err(StartError::Stopped {
                    name: name.to_owned(),
                    reason,
                });
            }
            let mut spec =
                GenerationSpec::new(Kind::Ingest.stored_name(name), 1, context.log().id());
            // It reads nothing of the log but its marks: archiving does not wait for it.
            spec.handles = vec![MARK.into()];
            spec.partitions = context.log().partitions();
            let workers = GenerationWorkers::new(Kind::Ingest, spec);
            begin_live(&context, &workers, name).await?;
            let shared = Arc::new(Shared::new(name, Arc::clone(context.db.clock())));
            let handle = IngestHandle {
                db: context.db.clone(),
                name,
                shared: Arc::clone(&shared),
                workers: workers.clone(),
                can_resync,
                has_messages,
                tables,
            };
            let subject = Arc::new(IngestSubject {
                context: context.clone(),
                intake: Arc::new(Intake {
                    name,
                    settings: self.settings,
                    source: Mutex::new(source),
                    pause: Mutex::default(),
                    shared,
                }),
            });
            let supervisor = Supervisor::new(context, workers, subject);
            Ok(RunningPart::of::<Ingest>(handle).supervised_by(tokio::spawn(supervisor.run(stop))))
        })
    }
}

struct IngestSubject {
    context: WorkerContext,
    intake: Arc<Intake>,
}

/// What all runs of the work share.
struct Intake {
    name: &'static str,
    settings: Settings,
    source: Mutex<Box<dyn Source>>,
    pause: Mutex<Pause>,
    shared: Arc<Shared>,
}

impl Subject for IngestSubject {
    fn run(&self, slot: Slot, stop: watch::Receiver<bool>) -> BoxFuture<'static, ()> {
        let intake = Arc::clone(&self.intake);
        let works = Works {
            slot,
            intake: Arc::clone(&intake),
        };
        Box::pin(async move {
            run(works, stop).await;
            intake
                .shared
                .change(|status| status.state = IngestState::Ended);
        })
    }

    fn switch_to(&self, generation: GenerationId) -> BoxFuture<'_, Result<(), CommitError>> {
        self.context.views.switch_to(generation)
    }

    fn drop_generation(&self, generation: GenerationId) -> BoxFuture<'_, Result<(), CommitError>> {
        self.context.views.drop_generation(generation)
    }
}

/// The source while a run works with it. When the run is dropped in the middle, the session does
/// not stay open: its transactions and its slot would be held for as long as the process lives.
struct InUse<'a> {
    source: MutexGuard<'a, Box<dyn Source>>,
    shared: &'a Shared,
    has_ended: bool,
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        self.source.abandon();
        self.shared.says(self.source.status(), false);
        self.shared.change(|status| {
            status.state = IngestState::Retrying("the lease was lost".to_owned());
        });
    }
}

/// The work of an ingest under its lease.
struct Works {
    slot: Slot,
    intake: Arc<Intake>,
}

impl Work for Works {
    fn slot(&self) -> &Slot {
        &self.slot
    }

    fn filter(&self) -> Filter {
        Filter::default().types([MARK])
    }

    /// Where it would go on is noted first.
    fn ends_itself(&self) -> bool {
        true
    }

    async fn work(
        &self,
        _: &HeldLease,
        _: Tasks,
        stop: watch::Receiver<bool>,
    ) -> Result<(), WorkError> {
        let intake = &self.intake;
        let mut in_use = InUse {
            source: intake.source.lock().await,
            shared: &intake.shared,
            has_ended: false,
        };
        let mut pause = intake.pause.lock().await;
        let mut taking = Taking {
            slot: &self.slot,
            name: intake.name,
            settings: &intake.settings,
            db: &self.slot.context.db,
            source: in_use.source.as_mut(),
            pause: &mut pause,
            shared: &intake.shared,
        };
        // What the application wrote is called in here.
        let ended = contained_async(taking.run(stop)).await;
        let ended = ended.unwrap_or_else(|panic| Err(WorkError::Stopped(panic)));
        in_use.source.end().await;
        in_use.has_ended = true;
        intake.shared.says(in_use.source.status(), false);
        pause.after(&ended, intake.shared.state());
        if let Err(error) = &ended {
            intake.shared.change(|status| {
                status.state = match error {
                    WorkError::Stopped(reason) => IngestState::Stopped(reason.clone()),
                    error => IngestState::Retrying(chain(error)),
                };
            });
        }
        ended
    }
}
