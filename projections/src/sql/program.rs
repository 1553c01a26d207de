//! Projections into tables of one's own as parts of a program.

use std::any::{Any, TypeId};
use std::fmt;
use std::sync::Arc;

use annals_core::ViewStore;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::SqlProjection;
use super::hook::Subject;
use super::supervisor::TableSupervisor;
use super::tables::SqlProjectionHandle;
use super::worker::spec_of;
use crate::catch_up::CatchUp;
use crate::dead_letters::DeadLetters;
use crate::location::{BoxFuture, ViewLocation};
use crate::options::Options;
use crate::program::{Part, Setup, StartError, find_or_begin};
use crate::supervisor::{GenerationWorkers, WorkerContext};

/// What keeps tables of one's own up to date: the projection, the store that they are in, and how
/// its worker works.
///
/// ```
/// # use annals_core::Annals;
/// # use annals_projections::{Program, SqlProjection, SqlProjectionSetup, StartError, With};
/// # async fn example<P: SqlProjection>(db: Annals, daily_totals: P, store: P::Store) -> Result<Program, StartError> {
/// db.with(SqlProjectionSetup::new(daily_totals, store)).start().await
/// # }
/// ```
pub struct SqlProjectionSetup<P: SqlProjection> {
    subject: Subject<P>,
    options: Options,
}

impl<P: SqlProjection> SqlProjectionSetup<P> {
    /// With the default options; there is one slot, whatever they say. `store` is a handle to the
    /// database of the tables.
    pub fn new(project: P, store: P::Store) -> SqlProjectionSetup<P> {
        let subject = Subject {
            project: Arc::new(project),
            store: Arc::new(store),
        };
        SqlProjectionSetup {
            subject,
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
    fn add_to(self, mut setup: Setup) -> Setup {
        setup.tables.push(Box::new(self));
        setup
    }
}

/// A projection into tables whose type is forgotten.
pub(crate) trait RegisteredTables: Send + Sync {
    fn name(&self) -> (&'static str, u32);
    fn start(
        self: Box<Self>,
        context: WorkerContext,
        stop: watch::Receiver<bool>,
    ) -> BoxFuture<'static, Result<RunningTables, StartError>>;
}

/// One that runs.
pub(crate) struct RunningTables {
    pub(crate) of: TypeId,
    /// The [`SqlProjectionHandle`] of that type.
    pub(crate) handle: Box<dyn Any + Send + Sync>,
    pub(crate) following: GenerationWorkers,
    pub(crate) dead_letters: DeadLetters,
    context: WorkerContext,
    version: u32,
    pub(crate) supervisor: Option<JoinHandle<()>>,
}

impl RunningTables {
    /// For those who wait for them.
    pub(crate) fn reach(&self) -> CatchUp<'_> {
        CatchUp {
            context: &self.context,
            following: &self.following,
            version: self.version,
        }
    }
}

impl<P: SqlProjection> RegisteredTables for SqlProjectionSetup<P> {
    fn name(&self) -> (&'static str, u32) {
        (P::NAME, P::VERSION)
    }

    fn start(
        self: Box<Self>,
        mut context: WorkerContext,
        stop: watch::Receiver<bool>,
    ) -> BoxFuture<'static, Result<RunningTables, StartError>> {
        Box::pin(async move {
            let SqlProjectionSetup { subject, options } = *self;
            context.views = ViewLocation::Own(Arc::clone(&subject.store) as Arc<dyn ViewStore>);
            context.options = options.slots(1);
            find_or_begin(&context, P::NAME, &spec_of::<P>(&context)).await?;
            let following = GenerationWorkers::new(P::NAME);
            let tables =
                SqlProjectionHandle::new(context.clone(), following.clone(), subject.clone());
            let dead_letters = tables.dead_letters();
            let handle = Box::new(tables);
            let supervisor = TableSupervisor {
                context: context.clone(),
                following: following.clone(),
                subject,
            };
            let supervisor = Some(tokio::spawn(supervisor.run(stop)));
            Ok(RunningTables {
                of: TypeId::of::<P>(),
                handle,
                following,
                dead_letters,
                context,
                version: P::VERSION,
                supervisor,
            })
        })
    }
}
