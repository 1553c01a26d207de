//! Projections into custom tables as parts of a program.

use std::fmt;
use std::sync::Arc;

use annals_core::{CommitError, GenerationId, Invalid, ViewStore};
use annals_runner::{
    BoxFuture, Follower, GenerationWorkers, Kind, Part, RunningPart, Setup, Slot, StartError,
    Subject, Supervisor, ViewLocation, WorkerContext, run,
};
use tokio::sync::watch;

use super::SqlProjection;
use super::hook::Tabled;
use super::tables::SqlProjectionHandle;
use super::worker::{FillTables, spec_of};
use crate::context::ViewContext;
use crate::lifecycle::Lifecycle;
use crate::options::Options;
use crate::part::{found_or_begun, supervised};

/// What keeps custom tables up to date: the projection, the store that they are in, and how
/// its worker works.
///
/// ```
/// # use annals_core::Annals;
/// # use annals_projections::{Program, SqlProjection, SqlProjectionSetup, StartError, With};
/// # async fn example<P: SqlProjection>(
/// #     db: Annals,
/// #     daily_totals: P,
/// #     store: P::Store,
/// # ) -> Result<Program, StartError> {
/// db.with(SqlProjectionSetup::new(daily_totals, store)).start().await
/// # }
/// ```
pub struct SqlProjectionSetup<P: SqlProjection> {
    tables: Tabled<P>,
    options: Options,
}

impl<P: SqlProjection> SqlProjectionSetup<P> {
    /// With the default options; there is one slot, whatever they say. `store` is a handle to the
    /// database of the tables.
    pub fn new(project: P, store: P::Store) -> SqlProjectionSetup<P> {
        let tables = Tabled {
            project: Arc::new(project),
            store: Arc::new(store),
        };
        SqlProjectionSetup {
            tables,
            options: Options::default(),
        }
    }

    /// With these options.
    #[must_use]
    pub fn options(mut self, options: Options) -> SqlProjectionSetup<P> {
        self.options = options;
        self
    }
}

impl<P: SqlProjection> fmt::Debug for SqlProjectionSetup<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlProjectionSetup")
            .field("name", &P::NAME)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl<P: SqlProjection> Part for SqlProjectionSetup<P> {
    fn add_to(self, setup: Setup) -> Setup {
        setup.with_follower(self)
    }
}

impl<P: SqlProjection> Follower for SqlProjectionSetup<P> {
    fn kind(&self) -> Kind {
        Kind::View
    }

    fn name(&self) -> (&'static str, u32) {
        (P::NAME, P::VERSION)
    }

    fn check(&self) -> Result<(), Invalid> {
        self.options.check()
    }

    fn start(
        self: Box<Self>,
        mut context: WorkerContext,
        stop: watch::Receiver<bool>,
    ) -> BoxFuture<'static, Result<RunningPart, StartError>> {
        Box::pin(async move {
            let SqlProjectionSetup { tables, options } = *self;
            context.views = ViewLocation::Own(Arc::clone(&tables.store) as Arc<dyn ViewStore>);
            let options = options.slots(1);
            let context = ViewContext::new(context, options.clone(), Lifecycle::Async);
            let workers = GenerationWorkers::new(Kind::View, spec_of::<P>(&context));
            if found_or_begun(&context, workers.spec()).await?.is_none() {
                return Err(StartError::OtherLog { name: P::NAME });
            }
            let handle = SqlProjectionHandle::new(context.clone(), workers.clone(), tables.clone());
            let dead_letters = handle.dead_letters();
            let subject = Arc::new(TablesSubject { tables, options });
            let supervisor = Supervisor::new(context.program.clone(), workers.clone(), subject);
            Ok(RunningPart::of::<P>(handle)
                .followed_by(&context, &workers, dead_letters)
                .supervised_by(supervised(supervisor, stop))
                .awaited())
        })
    }
}

/// Tables, as their supervisor knows them.
pub(super) struct TablesSubject<P: SqlProjection> {
    pub(super) tables: Tabled<P>,
    pub(super) options: Options,
}

impl<P: SqlProjection> Subject for TablesSubject<P> {
    fn run(&self, slot: Slot, stop: watch::Receiver<bool>) -> BoxFuture<'static, ()> {
        let worker = FillTables::new(slot, self.tables.clone(), self.options.clone());
        Box::pin(run(worker, stop))
    }

    fn begins_with_a_step(&self) -> bool {
        true
    }

    fn switch_to(&self, generation: GenerationId) -> BoxFuture<'_, Result<(), CommitError>> {
        self.tables.switch_to(generation)
    }

    fn drop_generation(&self, generation: GenerationId) -> BoxFuture<'_, Result<(), CommitError>> {
        self.tables.drop_generation(generation)
    }
}
