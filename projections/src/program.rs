//! A program's projections: registered, brought up, followed, stopped.

use std::any::TypeId;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;

use annals_core::{Annals, CommitError, Generation, GenerationSpec, Phase, Position, StoreError, ViewStore};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::options::Options;
use crate::place::Place;
use crate::query::Views;
use crate::status::{BuildProgress, Running, Status};
use crate::step::Handlers;
use crate::view::View;
use crate::worker::{Progress, Work, chain};

/// What keeps a view up to date: the view, and how its workers work.
///
/// ```
/// # use annals_projections::{Options, Projection, View};
/// # fn example<Balance: View>() -> Projection<Balance> {
/// Projection::<Balance>::new().options(Options::default().slots(4))
/// # }
/// ```
pub struct Projection<V: View> {
    handlers: Handlers<V>,
    options: Options,
}

impl<V: View> Projection<V> {
    /// With the default options.
    pub fn new() -> Projection<V> {
        Projection { handlers: V::handlers(), options: Options::default() }
    }

    /// With these options.
    #[must_use]
    pub fn options(mut self, options: Options) -> Projection<V> {
        self.options = options;
        self
    }
}

impl<V: View> Default for Projection<V> {
    fn default() -> Projection<V> {
        Projection::new()
    }
}

impl<V: View> fmt::Debug for Projection<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Projection").field("view", &V::NAME).field("handlers", &self.handlers).finish_non_exhaustive()
    }
}

/// Adds projections to a store's handle: in the prelude, so that `Annals::open(url).await?.with(…)` reads as one.
pub trait With {
    /// With a projection.
    fn with<V: View>(self, projection: Projection<V>) -> Setup;
}

impl With for Annals {
    fn with<V: View>(self, projection: Projection<V>) -> Setup {
        Setup { db: self, views: None, entries: Vec::new() }.with(projection)
    }
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A program that is being put together.
#[must_use = "nothing runs until it is started"]
pub struct Setup {
    db: Annals,
    views: Option<Place>,
    entries: Vec<Box<dyn Entry>>,
}

/// A projection whose view's type is forgotten.
trait Entry: Send + Sync {
    fn view(&self) -> (&'static str, TypeId);
    fn start<'a>(&'a self, start: &'a Start) -> BoxFuture<'a, Result<Started, StartError>>;
}

/// What every projection of a program is started with.
struct Start {
    db: Annals,
    views: Place,
    owner: String,
    stop: watch::Receiver<bool>,
}

struct Started {
    running: Running,
    workers: Vec<JoinHandle<()>>,
}

/// Why a program did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The store has no place for read models, and no other was named.
    #[error("this store has no place for read models; name one with `views_in`")]
    NoViews,
    /// Two projections of one name.
    #[error("two projections are called `{0}`")]
    Twice(&'static str),
    /// The view was built from another log.
    #[error("view `{view}` was folded from another log than this; rebuild it, or open the log it belongs to")]
    OtherLog {
        /// The view.
        view: &'static str,
    },
    /// A projection stopped before it was there.
    #[error("view `{view}` cannot be built: {reason}")]
    Stopped {
        /// The view.
        view: &'static str,
        /// Why, and what to do.
        reason: String,
    },
    /// The store could not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Setup {
    /// With a projection more.
    pub fn with<V: View>(mut self, projection: Projection<V>) -> Setup {
        self.entries.push(Box::new(projection));
        self
    }

    /// Read models are kept here, instead of beside the log.
    pub fn views_in(mut self, views: Arc<dyn ViewStore>) -> Setup {
        self.views = Some(Place::Own(views));
        self
    }

    /// Starts the workers, and waits until every view is there: as far as the log went when this was called.
    ///
    /// # Errors
    ///
    /// [`StartError::Stopped`] when a projection met an event that stops it before its view was complete.
    pub async fn start(self) -> Result<Program, StartError> {
        let program = self.start_in_background().await?;
        for running in program.shared.running.values() {
            running.wait_until_built().await?;
        }
        Ok(program)
    }

    /// Starts the workers and returns at once; a view that is being built answers `Building`.
    ///
    /// # Errors
    ///
    /// As [`start`](Setup::start), but for what happens later.
    pub async fn start_in_background(self) -> Result<Program, StartError> {
        let views = self.views.clone().or_else(|| Place::beside(self.db.store())).ok_or(StartError::NoViews)?;
        let (tell, stop) = watch::channel(false);
        let start = Start { db: self.db.clone(), views: views.clone(), owner: owner_name(), stop };
        let (mut running, mut workers) = (HashMap::new(), Vec::new());
        for entry in &self.entries {
            let (name, id) = entry.view();
            if running.values().any(|other: &Running| other.view() == name) {
                return Err(StartError::Twice(name));
            }
            let started = entry.start(&start).await?;
            running.insert(id, started.running);
            workers.extend(started.workers);
        }
        let shared = Shared { db: self.db, views, running, stop: tell, workers: std::sync::Mutex::new(workers) };
        Ok(Program { shared: Arc::new(shared) })
    }
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup")
            .field("views", &self.entries.iter().map(|entry| entry.view().0).collect::<Vec<_>>())
            .finish()
    }
}

fn owner_name() -> String {
    format!("{}-{}", std::process::id(), uuid::Uuid::now_v7().simple())
}

impl<V: View> Entry for Projection<V> {
    fn view(&self) -> (&'static str, TypeId) {
        (V::NAME, TypeId::of::<V>())
    }

    fn start<'a>(&'a self, start: &'a Start) -> BoxFuture<'a, Result<Started, StartError>> {
        Box::pin(async move {
            let generation = generation::<V>(start, &self.options).await?;
            let handlers = Arc::new(V::handlers());
            let (mut workers, mut progress) = (Vec::new(), Vec::new());
            for slot in 0..generation.spec.slots {
                let told = Progress::new();
                progress.push(told.watch());
                let work = Work::<V> {
                    log: Arc::clone(start.db.store()),
                    views: start.views.clone(),
                    clock: Arc::clone(start.db.clock()),
                    generation: generation.clone(),
                    slot,
                    owner: start.owner.clone(),
                    handlers: Arc::clone(&handlers),
                    options: self.options.clone(),
                    progress: told,
                };
                workers.push(tokio::spawn(work.run(start.stop.clone())));
            }
            let heads = heads(start).await?;
            let (tell, build) = watch::channel(BuildProgress::of(&generation));
            let running = Running::new(V::NAME, generation.clone(), progress, build);
            let switch = Switch { views: start.views.clone(), generation, heads, tell, running: running.clone() };
            workers.push(tokio::spawn(switch.when_there(start.stop.clone())));
            Ok(Started { running, workers })
        })
    }
}

/// How far each partition goes now.
async fn heads(start: &Start) -> Result<Vec<Position>, StoreError> {
    let mut heads = Vec::new();
    for partition in (0..start.db.store().partitions()).map(annals_core::Partition) {
        heads.push(start.db.store().head(partition).await?.visible);
    }
    Ok(heads)
}

/// The generation that this program follows: the newest of its version and event types, or a new one.
async fn generation<V: View>(start: &Start, options: &Options) -> Result<Generation, StartError> {
    let mut spec = GenerationSpec::new(V::NAME, V::VERSION, start.db.store().id());
    spec.handles = V::handlers().types();
    spec.partitions = start.db.store().partitions();
    spec.slots = options.slots;
    spec.keeps = V::KEEPS;
    spec.indexes = V::INDEXES.iter().map(|name| (*name).into()).collect();
    // One process at a time looks and begins, so that two that start together follow one generation.
    let gate = format!("{}/begin", V::NAME);
    let lease = loop {
        match start.views.acquire_lease(&gate, &start.owner, options.lease).await? {
            annals_core::Acquired::Granted(lease) => break lease,
            annals_core::Acquired::Held(_) => tokio::time::sleep(options.poll).await,
        }
    };
    let found = find_or_begin(start, V::NAME, spec).await;
    start.views.release_lease(&lease).await?;
    found
}

async fn find_or_begin(start: &Start, view: &'static str, spec: GenerationSpec) -> Result<Generation, StartError> {
    let generations = start.views.generations(view).await?;
    let same = |generation: &&Generation| {
        let of = &generation.spec;
        (of.version, &of.handles, of.keeps, &of.indexes) == (spec.version, &spec.handles, spec.keeps, &spec.indexes)
    };
    let live = generations.iter().filter(same).find(|generation| generation.phase == Phase::Live);
    let building = generations.iter().filter(same).rev().find(|generation| generation.phase == Phase::Building);
    match live.or(building) {
        Some(generation) if generation.spec.log != spec.log => Err(StartError::OtherLog { view }),
        Some(generation) => Ok(generation.clone()),
        None => Ok(start.views.begin_generation(spec).await?),
    }
}

/// Makes a generation the live one when it has come as far as the log went at the start.
struct Switch {
    views: Place,
    generation: Generation,
    heads: Vec<Position>,
    tell: watch::Sender<BuildProgress>,
    running: Running,
}

impl Switch {
    async fn when_there(self, mut stop: watch::Receiver<bool>) {
        if self.generation.phase == Phase::Live {
            self.tell.send_modify(|progress| progress.done = true);
            return;
        }
        let there = async {
            self.running.wait_for(&self.heads).await;
            while let Err(error) = self.views.switch_to(self.generation.id).await {
                let gone = matches!(error, CommitError::Gone(_));
                tracing::warn!(
                    view = self.generation.spec.view,
                    error = chain(&error),
                    "cannot switch to the new generation"
                );
                if gone {
                    return;
                }
                tokio::time::sleep(Options::BACK_OFF_MAX / 50).await;
            }
            self.tell.send_modify(|progress| progress.done = true);
        };
        tokio::select! {
            () = there => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }
}

/// A running program: a handle to its store, whose views can be asked. Cheap to clone. When the last handle is dropped, the
/// workers stop where they are; [`stop`](Program::stop) waits for them.
#[derive(Clone)]
pub struct Program {
    shared: Arc<Shared>,
}

struct Shared {
    db: Annals,
    views: Place,
    running: HashMap<TypeId, Running>,
    stop: watch::Sender<bool>,
    workers: std::sync::Mutex<Vec<JoinHandle<()>>>,
}

impl Program {
    /// The rows of a view.
    ///
    /// # Panics
    ///
    /// When the program has no projection of this view: it was not registered with [`With::with`].
    #[track_caller]
    pub fn view<V: View>(&self) -> Views<V> {
        let running = self.shared.running.get(&TypeId::of::<V>());
        let running = running.unwrap_or_else(|| panic!("the program has no projection of view `{}`", V::NAME));
        Views::new(self.shared.db.clone(), self.shared.views.clone(), running.clone())
    }

    /// What every projection does, and how far it has come.
    pub fn status(&self) -> Vec<Status> {
        let mut status: Vec<_> = self.shared.running.values().map(Running::status).collect();
        status.sort_by(|a, b| a.view.cmp(&b.view));
        status
    }

    /// Stops the workers between two steps and gives their slots back.
    pub async fn stop(&self) {
        let _ = self.shared.stop.send(true);
        let workers: Vec<_> = {
            let mut workers = self.shared.workers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            workers.drain(..).collect()
        };
        for worker in workers {
            if let Err(error) = worker.await {
                tracing::error!(%error, "a worker did not end well");
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        for worker in self.workers.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner) {
            worker.abort();
        }
    }
}

impl Deref for Program {
    type Target = Annals;

    fn deref(&self) -> &Annals {
        &self.shared.db
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program")
            .field("db", &self.shared.db)
            .field("running", &self.shared.running.values())
            .finish_non_exhaustive()
    }
}
