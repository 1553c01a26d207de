//! Projections into tables of one's own as parts of a program.

use std::any::{Any, TypeId};
use std::fmt;
use std::sync::Arc;

use annals_core::ViewStore;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::SqlProject;
use super::hook::Subject;
use super::supervisor::TableSupervisor;
use super::tables::SqlTables;
use super::worker::spec_of;
use crate::options::Options;
use crate::place::{BoxFuture, Place};
use crate::program::{Part, Setup, StartError, find_or_begin};
use crate::reach::Reach;
use crate::set_aside::SetAside;
use crate::supervisor::{Following, Site};

/// What keeps tables of one's own up to date: the projection, the store that they are in, and how its worker works.
///
/// ```
/// # use annals_core::Annals;
/// # use annals_projections::{Program, SqlProject, SqlProjection, StartError, With};
/// # async fn example<P: SqlProject>(db: Annals, daily_totals: P, store: P::Store) -> Result<Program, StartError> {
/// db.with(SqlProjection::new(daily_totals, store)).start().await
/// # }
/// ```
pub struct SqlProjection<P: SqlProject> {
    subject: Subject<P>,
    options: Options,
}

impl<P: SqlProject> SqlProjection<P> {
    /// With the default options; there is one slot, whatever they say. `store` is a handle to the database of the tables.
    pub fn new(project: P, store: P::Store) -> SqlProjection<P> {
        let subject = Subject {
            project: Arc::new(project),
            store: Arc::new(store),
        };
        SqlProjection {
            subject,
            options: Options::default(),
        }
    }

    /// With these options.
    #[must_use]
    pub fn options(mut self, options: Options) -> SqlProjection<P> {
        self.options = options;
        self
    }
}

impl<P: SqlProject> fmt::Debug for SqlProjection<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlProjection")
            .field("name", &P::NAME)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl<P: SqlProject> Part for SqlProjection<P> {
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
        site: Site,
        stop: watch::Receiver<bool>,
    ) -> BoxFuture<'static, Result<RunningTables, StartError>>;
}

/// One that runs.
pub(crate) struct RunningTables {
    pub(crate) of: TypeId,
    /// The [`SqlTables`] of that type.
    pub(crate) handle: Box<dyn Any + Send + Sync>,
    pub(crate) following: Following,
    pub(crate) set_aside: SetAside,
    site: Site,
    version: u32,
    pub(crate) supervisor: Option<JoinHandle<()>>,
}

impl RunningTables {
    /// For those who wait for them.
    pub(crate) fn reach(&self) -> Reach<'_> {
        Reach {
            site: &self.site,
            following: &self.following,
            version: self.version,
        }
    }
}

impl<P: SqlProject> RegisteredTables for SqlProjection<P> {
    fn name(&self) -> (&'static str, u32) {
        (P::NAME, P::VERSION)
    }

    fn start(
        self: Box<Self>,
        mut site: Site,
        stop: watch::Receiver<bool>,
    ) -> BoxFuture<'static, Result<RunningTables, StartError>> {
        Box::pin(async move {
            let SqlProjection { subject, options } = *self;
            site.views = Place::Own(Arc::clone(&subject.store) as Arc<dyn ViewStore>);
            site.options = options.slots(1);
            find_or_begin(&site, P::NAME, &spec_of::<P>(&site)).await?;
            let following = Following::new(P::NAME);
            let tables = SqlTables::new(site.clone(), following.clone(), subject.clone());
            let set_aside = tables.set_aside();
            let handle = Box::new(tables);
            let supervisor = TableSupervisor {
                site: site.clone(),
                following: following.clone(),
                subject,
            };
            let supervisor = Some(tokio::spawn(supervisor.run(stop)));
            Ok(RunningTables {
                of: TypeId::of::<P>(),
                handle,
                following,
                set_aside,
                site,
                version: P::VERSION,
                supervisor,
            })
        })
    }
}
