//! A program's projections: registered, brought up, followed, stopped.

use std::any::TypeId;
use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annals_core::{
    Aggregate, Annals, Failure, GenerationSpec, InlineProjector, Partition, Phase, StoreError,
    Token, ViewStore,
};
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::catch_up::CatchUp;
use crate::dead_letters::DeadLetters;
use crate::inline::{self, InlineFold};
use crate::lifecycle::Lifecycle;
use crate::location::{BoxFuture, ViewLocation};
use crate::options::Options;
use crate::process::{Process, ProcessHandle};
use crate::query::{ViewError, ViewHandle};
use crate::reactor::{Reactor, ReactorHandle, Registered};
use crate::rebuild::Rebuild;
use crate::registry::Registry;
use crate::sql::{RegisteredTables, RunningTables, SqlProjection, SqlProjectionHandle};
use crate::status::Status;
use crate::step::Handlers;
use crate::supervisor::{GenerationWorkers, Supervisor, WorkerContext, gate, is_ours, spec_of};
use crate::view::View;

/// What keeps a view up to date: the view, and how its workers work.
///
/// ```
/// # use annals_projections::{Options, ViewSetup, View};
/// # fn example<Balance: View>() -> ViewSetup<Balance> {
/// ViewSetup::<Balance>::new().options(Options::default().slots(4))
/// # }
/// ```
pub struct ViewSetup<V: View> {
    handlers: Handlers<V>,
    options: Options,
    lifecycle: Lifecycle,
}

impl<V: View> ViewSetup<V> {
    /// With the default options.
    pub fn new() -> ViewSetup<V> {
        ViewSetup {
            handlers: V::handlers(),
            options: Options::default(),
            lifecycle: Lifecycle::Async,
        }
    }

    /// Folded before the append of a command, and written in its transaction: who reads behind a
    /// command sees it, without waiting.
    ///
    /// For views keyed by the id of one category of streams, kept in the store of the log. A row
    /// travels with what this program's commands and decisions append. Whatever else appends to the
    /// stream is followed by a worker as ever, and [`get`](crate::ViewHandle::get) folds what a row
    /// lacks when it reads it; who looks for other programs' writes among several rows waits with
    /// `at_least`. A fold that looks at the position or the recorded time of an event does not
    /// travel: nobody knows them before the append.
    ///
    /// Each command reads the row and writes it. Changing between this and the default builds a new
    /// generation when the program starts.
    ///
    /// ```
    /// # use annals_projections::{ViewSetup, View};
    /// # fn example<Balance: View>() -> ViewSetup<Balance> {
    /// ViewSetup::<Balance>::new().inline()
    /// # }
    /// ```
    #[must_use]
    pub fn inline(mut self) -> ViewSetup<V> {
        self.lifecycle = Lifecycle::Inline;
        self
    }

    /// Folded from the log when it is asked, and kept nowhere: for views that are seldom asked, and
    /// for trying out a fold.
    ///
    /// Every question reads all events of the view's types up to its moment, whatever it asks for,
    /// and keeps in memory the rows that it asks for. Nothing can be watched, and there is no
    /// [`history`](crate::ViewHandle::history) of a row.
    ///
    /// ```
    /// # use annals_projections::{ViewSetup, View};
    /// # fn example<Balance: View>() -> ViewSetup<Balance> {
    /// ViewSetup::<Balance>::new().live()
    /// # }
    /// ```
    #[must_use]
    pub fn live(mut self) -> ViewSetup<V> {
        self.lifecycle = Lifecycle::Live;
        self
    }

    /// As [`live`](ViewSetup::live), for views whose every event changes the row of its own stream
    /// and no other: rows that are asked for by their keys are each folded from one stream. An
    /// event that changes another row is an error of the question.
    ///
    /// ```
    /// # use annals_projections::{ViewSetup, View};
    /// # fn example<Balance: View>() -> ViewSetup<Balance> {
    /// ViewSetup::<Balance>::new().live_by_stream()
    /// # }
    /// ```
    #[must_use]
    pub fn live_by_stream(mut self) -> ViewSetup<V> {
        self.lifecycle = Lifecycle::LiveByStream;
        self
    }

    /// With these options.
    #[must_use]
    pub fn options(mut self, options: Options) -> ViewSetup<V> {
        self.options = options;
        self
    }
}

impl<V: View> Default for ViewSetup<V> {
    fn default() -> ViewSetup<V> {
        ViewSetup::new()
    }
}

impl<V: View> fmt::Debug for ViewSetup<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ViewSetup")
            .field("view", &V::NAME)
            .field("handlers", &self.handlers)
            .finish_non_exhaustive()
    }
}

/// Adds projections to a store's handle: in the prelude, so that `Annals::open(url).await?.with(…)`
/// reads as one.
pub trait With {
    /// With a projection, or with what else follows the log.
    fn with(self, part: impl Part) -> Setup;
}

impl With for Annals {
    fn with(self, part: impl Part) -> Setup {
        let setup = Setup {
            db: self,
            views: None,
            entries: Vec::new(),
            reactors: Vec::new(),
            tables: Vec::new(),
            caught_up: false,
            on_progress: None,
            known: Registry::new(),
        };
        setup.with(part)
    }
}

/// What a program is put together from: [`ViewSetup`], [`ReactorSetup`](crate::ReactorSetup),
/// [`ProcessSetup`](crate::ProcessSetup), and what programs make of several of them.
///
/// ```
/// use annals_projections::{Part, ViewSetup, Setup, View};
/// # use std::marker::PhantomData;
///
/// /// Two read models that always go together.
/// struct Both<A, B>(PhantomData<(A, B)>);
///
/// impl<A: View, B: View> Part for Both<A, B> {
///     fn add_to(self, setup: Setup) -> Setup {
///         setup.with(ViewSetup::<A>::new()).with(ViewSetup::<B>::new())
///     }
/// }
/// ```
pub trait Part {
    /// The program with this.
    fn add_to(self, setup: Setup) -> Setup;
}

impl<V: View> Part for ViewSetup<V> {
    fn add_to(self, mut setup: Setup) -> Setup {
        setup.entries.push(Box::new(self));
        setup
    }
}

/// A program that is being put together.
#[must_use = "nothing runs until it is started"]
pub struct Setup {
    db: Annals,
    views: Option<ViewLocation>,
    entries: Vec<Box<dyn Entry>>,
    pub(crate) reactors: Vec<Registered>,
    pub(crate) tables: Vec<Box<dyn RegisteredTables>>,
    caught_up: bool,
    on_progress: Option<Tell>,
    known: Registry,
}

type Tell = Box<dyn FnMut(&[Status]) + Send>;

/// How often it is told how far everything has come while a program starts.
const TELL: Duration = Duration::from_millis(100);

/// A projection whose view's type is forgotten.
trait Entry: Send + Sync {
    fn view(&self) -> (&'static str, u32, TypeId);
    fn lifecycle(&self) -> Lifecycle;
    fn register(&self, registry: Registry) -> Registry;
    fn start(
        &self,
        context: WorkerContext,
        stop: watch::Receiver<bool>,
    ) -> BoxFuture<'_, Result<Started, StartError>>;
}

struct Started {
    running: Running,
    supervisor: Option<JoinHandle<()>>,
    // Goes along with the appends of the program.
    inline_projector: Option<Arc<dyn InlineProjector>>,
}

/// A view of a running program.
#[derive(Clone, Debug)]
struct Running {
    following: GenerationWorkers,
    context: WorkerContext,
    dead_letters: DeadLetters,
    version: u32,
    // Whether a program that starts waits for it: one of an older version may never have been.
    awaited: bool,
}

/// Why a program did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The store has no place for read models, and no other was named.
    #[error("this store has no place for read models; name one with `views_in`")]
    NoViews,
    /// Two projections of one name and version.
    #[error("two projections are called `{0}` and have the same version")]
    Twice(&'static str),
    /// Two reactors or processes of one name.
    #[error("two reactors are called `{0}`")]
    TwiceReactor(&'static str),
    /// The view was built from another log.
    #[error(
        "view `{view}` was folded from another log than this; rebuild it, or open the log it \
         belongs to"
    )]
    OtherLog {
        /// The view.
        view: &'static str,
    },
    /// The view cannot be inline, or not be folded by stream.
    #[error("view `{view}` cannot be {lifecycle}: {reason}")]
    Lifecycle {
        /// The view.
        view: &'static str,
        /// What was asked for.
        lifecycle: &'static str,
        /// Why not.
        reason: String,
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
    /// With a projection more, or with what else follows the log.
    pub fn with(self, part: impl Part) -> Setup {
        part.add_to(self)
    }

    /// Read models are kept here, instead of beside the log.
    pub fn views_in(mut self, views: Arc<dyn ViewStore>) -> Setup {
        self.views = Some(ViewLocation::Own(views));
        self
    }

    /// With the projection of an older version of a view that is registered too: it is followed and
    /// answers as long as one of its generations is there, and none is begun. So readers of the old
    /// version are served while the new one is built.
    pub fn previously<V: View>(mut self) -> Setup {
        self.entries
            .push(Box::new(Previously(ViewSetup::<V>::new())));
        self
    }

    /// Tools that are given the program's [`registry`](Setup::registry) know this aggregate.
    /// Commands need no such word.
    pub fn knows<A: Aggregate + Serialize>(mut self) -> Setup {
        self.known = self.known.aggregate::<A>();
        self
    }

    /// What it is made of, for tools: its views, reactors and processes with their events, and the
    /// aggregates that it [knows](Setup::knows).
    pub fn registry(&self) -> Registry {
        let views = self
            .entries
            .iter()
            .fold(self.known.clone(), |registry, entry| {
                entry.register(registry)
            });
        self.reactors
            .iter()
            .fold(views, |registry, reactor| (reactor.register)(registry))
    }

    /// Starting also waits until every view has seen everything that was in the log at that moment.
    /// Without it a view that was complete once is there at once, and catches up with what was
    /// recorded since.
    pub fn caught_up(mut self) -> Setup {
        self.caught_up = true;
        self
    }

    /// While [`start`](Setup::start) waits, it tells some ten times a second how far everything has
    /// come, and once at the end. Never called by
    /// [`start_in_background`](Setup::start_in_background).
    ///
    /// ```
    /// # use annals_core::Annals;
    /// # use annals_projections::{Program, StartError, View, With};
    /// # async fn example<Balance: View>(db: Annals) -> Result<Program, StartError> {
    /// db.with(Balance::projection()).on_progress(|all| all.iter().for_each(|status| println!("{status}"))).start().await
    /// # }
    /// ```
    pub fn on_progress(mut self, tell: impl FnMut(&[Status]) + Send + 'static) -> Setup {
        self.on_progress = Some(Box::new(tell));
        self
    }

    /// Starts the workers, and waits until every view is there: its own version, complete.
    ///
    /// # Errors
    ///
    /// [`StartError::Stopped`] when a projection met an event that stops it before its view was
    /// there. The workers are stopped then.
    pub async fn start(mut self) -> Result<Program, StartError> {
        let mut tell = self.on_progress.take();
        let caught_up = self.caught_up;
        let program = self.start_in_background().await?;
        match program.is_there(caught_up, tell.as_mut()).await {
            Ok(()) => Ok(program),
            Err(error) => {
                program.stop().await;
                Err(error)
            }
        }
    }

    /// Starts the workers and returns at once; a view that is being built answers
    /// [`Building`](crate::ViewError::Building).
    ///
    /// # Errors
    ///
    /// As [`start`](Setup::start), but for what happens later.
    pub async fn start_in_background(self) -> Result<Program, StartError> {
        let views = self
            .views
            .clone()
            .or_else(|| ViewLocation::beside(self.db.store()));
        // What is folded when it is asked needs no place.
        let keeps_nothing = self.reactors.is_empty()
            && self.entries.iter().all(|entry| entry.lifecycle().is_live());
        let views = views
            .or_else(|| keeps_nothing.then(ViewLocation::empty))
            .ok_or(StartError::NoViews)?;
        let (tell, stop) = watch::channel(false);
        let registry = self.registry();
        crate::meter::describe();
        let owner = crate::owner::name();
        let mut running = HashMap::new();
        let mut supervisors = Vec::new();
        let mut companions = Vec::new();
        let mut named = std::collections::HashSet::new();
        for entry in &self.entries {
            let (name, version, _) = entry.view();
            if !named.insert((name, version)) {
                return Err(StartError::Twice(name));
            }
        }
        for tables in &self.tables {
            if !named.insert(tables.name()) {
                return Err(StartError::Twice(tables.name().0));
            }
        }
        for registered in &self.reactors {
            if !named.insert((registered.name, 0)) {
                return Err(StartError::TwiceReactor(registered.name));
            }
        }
        for entry in &self.entries {
            let context = WorkerContext::new(&self.db, &views, &owner, entry.lifecycle());
            let started = entry.start(context, stop.clone()).await?;
            running.insert(entry.view().2, started.running);
            supervisors.extend(started.supervisor);
            companions.extend(started.inline_projector);
        }
        let db = companions.into_iter().fold(self.db, Annals::with_companion);
        let mut reactors = HashMap::new();
        for registered in self.reactors {
            let context = WorkerContext::new(&db, &views, &owner, Lifecycle::Async);
            let of = registered.of;
            let (reactions, worker) = registered.start(context, stop.clone()).await?;
            reactors.insert(of, reactions);
            supervisors.push(worker);
        }
        let mut tables = HashMap::new();
        for registered in self.tables {
            let context = WorkerContext::new(&db, &views, &owner, Lifecycle::Async);
            let mut running = registered.start(context, stop.clone()).await?;
            supervisors.extend(running.supervisor.take());
            tables.insert(running.of, running);
        }
        let supervisors = Mutex::new(supervisors);
        let shared = Shared {
            db,
            running,
            reactors,
            tables,
            registry,
            stop: tell,
            supervisors,
        };
        Ok(Program {
            shared: Arc::new(shared),
        })
    }
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup")
            .field(
                "views",
                &self
                    .entries
                    .iter()
                    .map(|entry| entry.view().0)
                    .collect::<Vec<_>>(),
            )
            .field(
                "reactors",
                &self.reactors.iter().map(|of| of.name).collect::<Vec<_>>(),
            )
            .finish()
    }
}

impl<V: View> Entry for ViewSetup<V> {
    fn view(&self) -> (&'static str, u32, TypeId) {
        (V::NAME, V::VERSION, TypeId::of::<V>())
    }

    fn lifecycle(&self) -> Lifecycle {
        self.lifecycle
    }

    fn register(&self, registry: Registry) -> Registry {
        registry.view::<V>()
    }

    fn start(
        &self,
        mut context: WorkerContext,
        stop: watch::Receiver<bool>,
    ) -> BoxFuture<'_, Result<Started, StartError>> {
        Box::pin(async move {
            context.options = self.options.clone();
            let checked = match self.lifecycle {
                Lifecycle::Inline => {
                    inline::check::<V>(&context).map_err(|reason| ("inline", reason))
                }
                Lifecycle::LiveByStream => {
                    inline::check_keys::<V>().map_err(|reason| ("live by stream", reason))
                }
                Lifecycle::Async | Lifecycle::Live => Ok(()),
            };
            checked.map_err(|(lifecycle, reason)| StartError::Lifecycle {
                view: V::NAME,
                lifecycle,
                reason,
            })?;
            if self.lifecycle.is_live() {
                let running = Running::of::<V>(context, false);
                return Ok(Started {
                    running,
                    supervisor: None,
                    inline_projector: None,
                });
            }
            find_or_begin(&context, V::NAME, &spec_of::<V>(&context)).await?;
            Ok(supervise::<V>(context, stop, true))
        })
    }
}

/// A projection that is followed where it is, and never begun.
struct Previously<V: View>(ViewSetup<V>);

impl<V: View> Entry for Previously<V> {
    fn view(&self) -> (&'static str, u32, TypeId) {
        self.0.view()
    }

    fn lifecycle(&self) -> Lifecycle {
        Lifecycle::Async
    }

    fn register(&self, registry: Registry) -> Registry {
        registry.view::<V>()
    }

    fn start(
        &self,
        mut context: WorkerContext,
        stop: watch::Receiver<bool>,
    ) -> BoxFuture<'_, Result<Started, StartError>> {
        Box::pin(async move {
            let generations = context.views.generations(V::NAME).await?;
            let live = generations
                .iter()
                .find(|of| of.spec.version == V::VERSION && of.phase == Phase::Live);
            if live.is_some_and(|of| of.spec.inline) {
                context.lifecycle = Lifecycle::Inline;
            }
            Ok(supervise::<V>(context, stop, false))
        })
    }
}

fn supervise<V: View>(
    context: WorkerContext,
    stop: watch::Receiver<bool>,
    awaited: bool,
) -> Started {
    let running = Running::of::<V>(context.clone(), awaited);
    let following = running.following.clone();
    let inline_projector = (context.lifecycle == Lifecycle::Inline).then(|| {
        Arc::new(InlineFold::<V>::new(context.clone(), following.clone()))
            as Arc<dyn InlineProjector>
    });
    let supervisor = Supervisor::<V> {
        context,
        following,
        handlers: Arc::new(V::handlers()),
    };
    Started {
        running,
        supervisor: Some(tokio::spawn(supervisor.run(stop))),
        inline_projector,
    }
}

/// Makes sure that there is a generation of this version and of these event types: the live one,
/// one that is being built, or a new one. A changed version, or another set of types, so begins to
/// build when a program starts.
pub(crate) async fn find_or_begin(
    context: &WorkerContext,
    view: &'static str,
    spec: &GenerationSpec,
) -> Result<(), StartError> {
    // One process at a time looks and begins, so that two that start together build one generation.
    let gate = gate(context, view).await?;
    let begun = async {
        let generations = context.views.generations(view).await?;
        let mut ours = generations
            .iter()
            .filter(|generation| is_ours(generation, spec) && generation.phase != Phase::Kept);
        match ours.next() {
            Some(generation) if generation.spec.log != spec.log => {
                Err(StartError::OtherLog { view })
            }
            Some(_) => Ok(()),
            None => Ok(context
                .views
                .begin_generation(spec.clone())
                .await
                .map(|_| ())?),
        }
    };
    let begun = begun.await;
    context.views.release_lease(&gate).await?;
    begun
}

impl Running {
    fn of<V: View>(context: WorkerContext, awaited: bool) -> Running {
        let following = GenerationWorkers::new(V::NAME);
        let dead_letters = DeadLetters::of::<V>(&context, &following);
        Running {
            following,
            context,
            dead_letters,
            version: V::VERSION,
            awaited,
        }
    }

    /// Returns when a generation of the view is live that this program folds, and has seen as much
    /// as `seen` asks.
    async fn is_there(&self, seen: &Token) -> Result<(), StartError> {
        is_there(
            &CatchUp {
                context: &self.context,
                following: &self.following,
                version: self.version,
            },
            seen,
        )
        .await
    }
}

/// Returns when a generation is live that this program follows, and has seen as much as `seen`
/// asks.
async fn is_there(readers: &CatchUp<'_>, seen: &Token) -> Result<(), StartError> {
    let there = async {
        readers.built().await?;
        readers.reach(None, seen, Duration::MAX).await
    };
    match there.await {
        Ok(_) => Ok(()),
        Err(ViewError::Stopped { reason }) => Err(StartError::Stopped {
            view: readers.following.view(),
            reason,
        }),
        Err(ViewError::Store(error)) => Err(error.into()),
        Err(error) => Err(StartError::Store(StoreError::new(
            Failure::Invalid,
            error.to_string(),
        ))),
    }
}

/// A running program: a handle to its store, whose views can be asked. Cheap to clone. When the
/// last handle is dropped, the workers stop where they are; [`stop`](Program::stop) waits for them.
#[derive(Clone)]
pub struct Program {
    shared: Arc<Shared>,
}

struct Shared {
    db: Annals,
    running: HashMap<TypeId, Running>,
    reactors: HashMap<TypeId, ReactorHandle>,
    tables: HashMap<TypeId, RunningTables>,
    registry: Registry,
    stop: watch::Sender<bool>,
    supervisors: Mutex<Vec<JoinHandle<()>>>,
}

impl Program {
    /// Returns when every view that is waited for is there, telling meanwhile how far they have
    /// come.
    async fn is_there(
        &self,
        caught_up: bool,
        mut tell: Option<&mut Tell>,
    ) -> Result<(), StartError> {
        let mut seen = Token::new(self.store().id());
        if caught_up {
            for partition in (0..self.store().partitions()).map(Partition) {
                seen = seen.with(partition, self.store().head(partition).await?.visible);
            }
        }
        let there = async {
            for running in self
                .shared
                .running
                .values()
                .filter(|running| running.awaited)
            {
                running.is_there(&seen).await?;
            }
            for tables in self.shared.tables.values() {
                is_there(&tables.reach(), &seen).await?;
            }
            Ok(())
        };
        let mut there = std::pin::pin!(there);
        loop {
            let ended = tokio::time::timeout(TELL, &mut there).await;
            if let Some(tell) = &mut tell {
                tell(&self.status());
            }
            if let Ok(ended) = ended {
                return ended;
            }
        }
    }

    /// The rows of a view.
    ///
    /// # Panics
    ///
    /// When the program has no projection of this view: it was not registered with [`With::with`].
    #[track_caller]
    pub fn view<V: View>(&self) -> ViewHandle<V> {
        let running = self.running::<V>();
        ViewHandle::new(running.context.clone(), running.following.clone())
    }

    /// Builds a new generation of a view from the log, beside the one that serves, and switches to
    /// it when it is complete.
    ///
    /// # Panics
    ///
    /// When the program has no projection of this view.
    #[track_caller]
    pub fn rebuild<V: View>(&self) -> Rebuild<V> {
        let Running {
            context, following, ..
        } = self.running::<V>().clone();
        let spec = spec_of::<V>(&context);
        let generations = Arc::new(context.views.clone());
        Rebuild::of(context, following, V::NAME, spec, generations)
    }

    /// What waits for a person in the view of this name; nothing when the program has no projection
    /// of it.
    pub fn dead_letters(&self, view: &str) -> Option<DeadLetters> {
        let mut named = self
            .shared
            .running
            .values()
            .filter(|running| running.following.view() == view);
        // Of several versions the one that this program builds.
        let Some(first) = named.next() else {
            let tables = self
                .shared
                .tables
                .values()
                .find(|tables| tables.following.view() == view)?;
            return Some(tables.dead_letters.clone());
        };
        let wanted = if first.awaited {
            first
        } else {
            named.find(|other| other.awaited).unwrap_or(first)
        };
        Some(wanted.dead_letters.clone())
    }

    #[track_caller]
    fn running<V: View>(&self) -> &Running {
        let running = self.shared.running.get(&TypeId::of::<V>());
        running.unwrap_or_else(|| panic!("the program has no projection of view `{}`", V::NAME))
    }

    /// Tables of one's own that a projection keeps up to date.
    ///
    /// # Panics
    ///
    /// When the program has no such projection: it was not registered with [`With::with`].
    #[track_caller]
    pub fn tables<P: SqlProjection>(&self) -> SqlProjectionHandle<P> {
        let tables = self.shared.tables.get(&TypeId::of::<P>());
        let tables =
            tables.and_then(|tables| tables.handle.downcast_ref::<SqlProjectionHandle<P>>());
        tables
            .unwrap_or_else(|| panic!("the program has no projection into tables `{}`", P::NAME))
            .clone()
    }

    /// How far a reactor has come, and what waits for a person.
    ///
    /// # Panics
    ///
    /// When the program has no such reactor: it was not registered with [`With::with`].
    #[track_caller]
    pub fn reactor<R: Reactor>(&self) -> ReactorHandle {
        let reactions = self.shared.reactors.get(&TypeId::of::<R>());
        reactions
            .unwrap_or_else(|| panic!("the program has no reactor `{}`", R::NAME))
            .clone()
    }

    /// The processes of a kind: their states, and what waits for a person.
    ///
    /// # Panics
    ///
    /// When the program has no such processes: they were not registered with [`With::with`].
    #[track_caller]
    pub fn process<P: Process>(&self) -> ProcessHandle<P> {
        let reactions = self.shared.reactors.get(&TypeId::of::<P>());
        let reactions = reactions
            .unwrap_or_else(|| panic!("the program has no process `{}`", P::NAME))
            .clone();
        ProcessHandle::new(self.shared.db.clone(), reactions)
    }

    /// What the program is made of, for tools that do not know its types.
    pub fn registry(&self) -> &Registry {
        &self.shared.registry
    }

    /// What every projection, reactor and process does, and how far it has come: an entry for each
    /// generation that is followed here.
    pub fn status(&self) -> Vec<Status> {
        let now = self.shared.db.clock().now();
        let mut status: Vec<_> = self
            .shared
            .running
            .values()
            .flat_map(|running| running.following.each(|of| Status::of(of, now)))
            .collect();
        status.extend(
            self.shared
                .tables
                .values()
                .flat_map(|tables| tables.following.each(|of| Status::of(of, now))),
        );
        status.extend(self.shared.reactors.values().map(ReactorHandle::status));
        status.sort_by(|a, b| (&a.view, a.generation).cmp(&(&b.view, b.generation)));
        status
    }

    /// Stops the workers between two steps and gives their slots back.
    pub async fn stop(&self) {
        let _ = self.shared.stop.send(true);
        let supervisors: Vec<_> = {
            let mut supervisors = self
                .shared
                .supervisors
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            supervisors.drain(..).collect()
        };
        for supervisor in supervisors {
            if let Err(error) = supervisor.await {
                tracing::error!(%error, "a projection did not end well");
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Each stops between two steps and gives its slots back; nobody waits for it.
        let _ = self.stop.send(true);
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
