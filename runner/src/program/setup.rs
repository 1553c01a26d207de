//! A program that is being put together, and its start.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{Aggregate, Annals, ViewStore};
use serde::Serialize;
use tokio::sync::watch;

use super::error::StartError;
use super::part::{Follower, Part};
use super::{Program, ProgressCallback};
use crate::context::WorkerContext;
use crate::kind::Kind;
use crate::location::ViewLocation;
use crate::registry::Registry;
use crate::status::Status;
use crate::{metrics, owner};

/// How often progress is reported while a program starts.
pub(super) const REPORT: Duration = Duration::from_millis(100);

/// Adds projections to a store's handle. It is in the prelude, so that
/// `Annals::open(url).await?.with(…)` reads as one.
pub trait With {
    /// With a projection, or with what else follows the log.
    fn with(self, part: impl Part) -> Setup;
}

impl With for Annals {
    fn with(self, part: impl Part) -> Setup {
        let setup = Setup {
            db: self,
            views: None,
            followers: Vec::new(),
            caught_up: false,
            on_progress: None,
            known: Registry::new(),
        };
        setup.with(part)
    }
}

/// A program that is being put together.
#[must_use = "nothing runs until it is started"]
pub struct Setup {
    db: Annals,
    views: Option<ViewLocation>,
    followers: Vec<Box<dyn Follower>>,
    caught_up: bool,
    on_progress: Option<ProgressCallback>,
    known: Registry,
}

impl Setup {
    /// With one more projection, or with what else follows the log.
    pub fn with(self, part: impl Part) -> Setup {
        part.add_to(self)
    }

    /// With what follows the log for a part: for [`Part::add_to`].
    pub fn with_follower(mut self, follower: impl Follower) -> Setup {
        self.followers.push(Box::new(follower));
        self
    }

    /// Read models are kept here, instead of beside the log.
    pub fn views_in(mut self, views: Arc<dyn ViewStore>) -> Setup {
        self.views = Some(ViewLocation::Own(views));
        self
    }

    /// Tools that are given the program's [`registry`](Setup::registry) know this aggregate.
    /// Commands do not need it.
    pub fn knows<A: Aggregate + Serialize>(mut self) -> Setup {
        self.known = self.known.aggregate::<A>();
        self
    }

    /// What it is made of, for tools: its views, reactors and process managers with their events,
    /// and the aggregates that it [knows](Setup::knows).
    pub fn registry(&self) -> Registry {
        self.followers
            .iter()
            .fold(self.known.clone(), |registry, of| of.register(registry))
    }

    /// Starting also waits until every view has seen everything that was in the log at that moment.
    /// Without it a view that was complete once is ready at once, and catches up with what was
    /// recorded since.
    pub fn caught_up(mut self) -> Setup {
        self.caught_up = true;
        self
    }

    /// While [`start`](Setup::start) waits, it reports some ten times a second how far everything
    /// has come, and once at the end. Never called by
    /// [`start_in_background`](Setup::start_in_background).
    ///
    /// ```
    /// # use annals_core::Annals;
    /// # use annals_runner::{Part, Program, StartError, With};
    /// # async fn example(db: Annals, balances: impl Part) -> Result<Program, StartError> {
    /// let report = |all: &[annals_runner::Status]| println!("{}", all[0]);
    /// db.with(balances).on_progress(report).start().await
    /// # }
    /// ```
    pub fn on_progress(mut self, report: impl FnMut(&[Status]) + Send + 'static) -> Setup {
        self.on_progress = Some(Box::new(report));
        self
    }

    /// Starts the workers, and waits until every view is ready: its own version, complete.
    ///
    /// # Errors
    ///
    /// [`StartError::Stopped`] when a projection met an event that stops it before its view was
    /// complete. The workers are stopped then. [`StartError::Setting`] for settings with which
    /// nothing could work; nothing was started then.
    pub async fn start(mut self) -> Result<Program, StartError> {
        let mut report = self.on_progress.take();
        let caught_up = self.caught_up;
        let program = self.start_in_background().await?;
        match program.is_ready(caught_up, report.as_mut()).await {
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
        self.check_names()?;
        self.check_settings()?;
        let registry = self.registry();
        let keeps_nothing = self.followers.iter().all(|of| of.keeps_nothing());
        let views = self
            .views
            .or_else(|| ViewLocation::beside(self.db.store()))
            // What is folded when it is asked needs no view store.
            .or_else(|| keeps_nothing.then(ViewLocation::empty))
            .ok_or(StartError::NoViews)?;
        metrics::describe();
        let owner = owner::name();
        let mut process = WorkerContext::new(&self.db, &views, &owner);
        process.registry = registry.clone();
        let (stop, stopped) = watch::channel(false);
        let mut db = self.db;
        let mut parts = Vec::new();
        // Views come first: an inline one goes along with what reactors and process managers
        // append.
        let mut followers = self.followers;
        followers.sort_by_key(|of| of.kind() != Kind::View);
        for follower in followers {
            let context = process.over(&db);
            let mut part = match follower.start(context, stopped.clone()).await {
                Ok(part) => part,
                Err(error) => {
                    let _ = stop.send(true);
                    return Err(error);
                }
            };
            if let Some(projector) = part.inline_projector.take() {
                db = db.with_companion(projector);
            }
            parts.push(part);
        }
        Ok(Program::new(db, parts, registry, stop))
    }

    fn check_settings(&self) -> Result<(), StartError> {
        for follower in &self.followers {
            let (name, _) = follower.name();
            let checked = follower.check();
            checked.map_err(|reason| StartError::Setting { name, reason })?;
        }
        Ok(())
    }

    fn check_names(&self) -> Result<(), StartError> {
        let mut named = HashSet::new();
        let mut pipelines: HashMap<&str, bool> = HashMap::new();
        let mut writers: HashMap<&str, &'static str> = HashMap::new();
        for follower in &self.followers {
            let (name, version) = follower.name();
            for view in follower.writes() {
                let other = *writers.entry(view).or_insert(name);
                if other != name {
                    let reason = format!(
                        "pipeline `{other}` writes view `{view}` too; merge the streams in one \
                         pipeline, or write two views"
                    );
                    return Err(StartError::Pipeline { name, reason });
                }
            }
            let kind = follower.kind();
            let is_pipeline = follower.is_pipeline();
            if kind == Kind::View && *pipelines.entry(name).or_insert(is_pipeline) != is_pipeline {
                let reason = "a view is called so too; give one of them another name".to_owned();
                return Err(StartError::Pipeline { name, reason });
            }
            if kind == Kind::View && name.starts_with('$') {
                return Err(StartError::Reserved(name));
            }
            // A sender has the name of its pipeline.
            if kind != Kind::Sender && !named.insert((kind == Kind::View, name, version)) {
                return Err(match kind {
                    Kind::View => StartError::Twice(name),
                    _ => StartError::TwiceReactor(name),
                });
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<_> = self.followers.iter().map(|of| of.name().0).collect();
        f.debug_struct("Setup")
            .field("parts", &parts)
            .finish_non_exhaustive()
    }
}
