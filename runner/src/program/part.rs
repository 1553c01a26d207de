//! The parts of a program: what users add, and what follows the log for each of them.

use std::any::{Any, TypeId};
use std::fmt;
use std::sync::Arc;

use annals_core::{InlineProjector, Invalid, Token};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::error::StartError;
use super::setup::Setup;
use crate::context::WorkerContext;
use crate::dead_letters::DeadLetters;
use crate::error::ViewError;
use crate::generation::GenerationWorkers;
use crate::kind::Kind;
use crate::location::BoxFuture;
use crate::read_your_writes::CatchUp;
use crate::registry::Registry;

/// What a program is put together from: views, tables, reactors, process managers, and what
/// programs make of several of them.
///
/// ```
/// use annals_runner::{Part, Setup};
///
/// /// Two parts that always go together.
/// struct Both<A, B>(A, B);
///
/// impl<A: Part, B: Part> Part for Both<A, B> {
///     fn add_to(self, setup: Setup) -> Setup {
///         setup.with(self.0).with(self.1)
///     }
/// }
/// ```
pub trait Part {
    /// The program with this.
    fn add_to(self, setup: Setup) -> Setup;
}

/// A part of a program whose type is erased: what follows the log for it, and how it is started.
pub trait Follower: Send + Sync + 'static {
    /// What it is.
    fn kind(&self) -> Kind;

    /// The name that users gave, and the version; no two parts of a kind share both.
    fn name(&self) -> (&'static str, u32);

    /// The views that it writes beside what it is called: no other part writes one of them.
    fn writes(&self) -> Vec<&'static str> {
        Vec::new()
    }

    /// Whether it is a pipeline, whose name no view has that is folded by itself.
    fn is_pipeline(&self) -> bool {
        false
    }

    /// Whether it keeps nothing in a view store.
    fn keeps_nothing(&self) -> bool {
        false
    }

    /// Refuses settings with which it could not work; it is asked before anything is started.
    ///
    /// # Errors
    ///
    /// With the name of the setting.
    fn check(&self) -> Result<(), Invalid> {
        Ok(())
    }

    /// Adds what tools may know of it: nothing, unless said otherwise.
    fn register(&self, registry: Registry) -> Registry {
        registry
    }

    /// Starts what follows the log. It may change the handle to the store: an inline view goes
    /// along with its appends.
    fn start(
        self: Box<Self>,
        context: WorkerContext,
        stop: watch::Receiver<bool>,
    ) -> BoxFuture<'static, Result<RunningPart, StartError>>;
}

/// A part of a running program.
pub struct RunningPart {
    pub(super) of: TypeId,
    pub(super) handle: Box<dyn Any + Send + Sync>,
    pub(super) others: Vec<(TypeId, Box<dyn Any + Send + Sync>)>,
    pub(super) followed: Option<Followed>,
    pub(super) supervisor: Option<JoinHandle<()>>,
    pub(super) inline_projector: Option<Arc<dyn InlineProjector>>,
    pub(super) awaited: bool,
}

/// What follows the log for a part.
#[derive(Clone)]
pub(super) struct Followed {
    pub(super) workers: GenerationWorkers,
    pub(super) catch_up: CatchUp,
    pub(super) dead_letters: DeadLetters,
}

impl RunningPart {
    /// A part of the type `T`, by which programs ask for its handle.
    pub fn of<T: 'static>(handle: impl Any + Send + Sync) -> RunningPart {
        RunningPart::of_type(TypeId::of::<T>(), handle)
    }

    /// The same for a type that is erased.
    pub fn of_type(of: TypeId, handle: impl Any + Send + Sync) -> RunningPart {
        RunningPart {
            of,
            handle: Box::new(handle),
            others: Vec::new(),
            followed: None,
            supervisor: None,
            inline_projector: None,
            awaited: false,
        }
    }

    /// A part that writes several things: programs ask for one more handle by this type.
    #[must_use]
    pub fn also(mut self, of: TypeId, handle: Box<dyn Any + Send + Sync>) -> RunningPart {
        self.others.push((of, handle));
        self
    }

    /// Its handles of a type.
    pub(super) fn handles(&self, of: TypeId) -> impl Iterator<Item = &(dyn Any + Send + Sync)> {
        let first = (self.of == of).then_some(&*self.handle);
        let others = self.others.iter().filter(move |(other, _)| *other == of);
        first.into_iter().chain(others.map(|(_, handle)| &**handle))
    }

    /// Its generations are followed by these workers.
    #[must_use]
    pub fn followed_by(
        mut self,
        context: &WorkerContext,
        workers: &GenerationWorkers,
        dead_letters: DeadLetters,
    ) -> RunningPart {
        self.followed = Some(Followed {
            workers: workers.clone(),
            catch_up: CatchUp::new(context, workers),
            dead_letters,
        });
        self
    }

    /// This task ends after the workers, when the program stops.
    #[must_use]
    pub fn supervised_by(mut self, supervisor: JoinHandle<()>) -> RunningPart {
        self.supervisor = Some(supervisor);
        self
    }

    /// Its rows are written with the appends of the program.
    #[must_use]
    pub fn inline(mut self, projector: Arc<dyn InlineProjector>) -> RunningPart {
        self.inline_projector = Some(projector);
        self
    }

    /// A program that starts waits for it.
    #[must_use]
    pub fn awaited(mut self) -> RunningPart {
        self.awaited = true;
        self
    }

    /// Returns when a generation serves that has seen as much as `seen` asks.
    pub(super) async fn is_ready(&self, seen: &Token) -> Result<(), StartError> {
        let Some(followed) = self.followed.as_ref().filter(|_| self.awaited) else {
            return Ok(());
        };
        let ready = async {
            followed.catch_up.built().await?;
            let longest = std::time::Duration::MAX;
            followed.catch_up.caught_up_with(None, seen, longest).await
        };
        match ready.await {
            Ok(_) => Ok(()),
            Err(ViewError::Stopped { reason }) => Err(StartError::Stopped {
                name: followed.workers.name().to_owned(),
                reason,
            }),
            Err(ViewError::Store(error)) => Err(error.into()),
            Err(error) => Err(StartError::Stopped {
                name: followed.workers.name().to_owned(),
                reason: error.to_string(),
            }),
        }
    }
}

impl fmt::Debug for RunningPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let workers = self.followed.as_ref().map(|of| &of.workers);
        f.debug_struct("RunningPart")
            .field("workers", &workers)
            .finish_non_exhaustive()
    }
}
