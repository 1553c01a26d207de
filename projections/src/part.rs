//! A view as a part of a program.

use std::sync::Arc;

use annals_core::{Generation, GenerationSpec, Invalid, StoreError};
use annals_runner::{
    BoxFuture, Follower, GenerationWorkers, Kind, Part, Registry, RunningPart, Setup, StartError,
    Supervisor, WorkerContext, find_or_begin,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::context::ViewContext;
use crate::inline::{self, InlineFold};
use crate::lifecycle::Lifecycle;
use crate::query::ViewHandle;
use crate::registry::view_kind;
use crate::subject::ViewSubject;
use crate::view::{View, ViewSetup};
use crate::worker::DrainView;

impl<V: View> Part for ViewSetup<V> {
    fn add_to(self, setup: Setup) -> Setup {
        setup.with_follower(self)
    }
}

impl<V: View> Follower for ViewSetup<V> {
    fn kind(&self) -> Kind {
        Kind::View
    }

    fn name(&self) -> (&'static str, u32) {
        (V::NAME, V::VERSION)
    }

    fn keeps_nothing(&self) -> bool {
        self.lifecycle.is_live()
    }

    fn check(&self) -> Result<(), Invalid> {
        self.options.check()
    }

    fn register(&self, registry: Registry) -> Registry {
        let handlers = V::handlers();
        registry.with_view(view_kind::<V>(), handlers.kinds().copied())
    }

    fn start(
        self: Box<Self>,
        context: WorkerContext,
        stop: watch::Receiver<bool>,
    ) -> BoxFuture<'static, Result<RunningPart, StartError>> {
        Box::pin(async move {
            let mut context = ViewContext::new(context, self.options, self.lifecycle);
            if V::handlers().types().is_empty() {
                return Err(StartError::NoEvents(V::NAME));
            }
            check::<V>(&context)?;
            if self.previously {
                context.lifecycle = lifecycle_of_live::<V>(&context).await?;
            }
            let workers = context.workers::<V>();
            let handle = ViewHandle::<V>::new(context.clone(), workers.clone());
            let part = RunningPart::of::<V>(handle);
            if context.lifecycle.is_live() {
                return Ok(part);
            }
            if !self.previously && found_or_begun(&context, workers.spec()).await?.is_none() {
                return Err(StartError::OtherLog { name: V::NAME });
            }
            let part = supervise::<V>(part, &context, &workers, stop);
            Ok(if self.previously {
                part
            } else {
                part.awaited()
            })
        })
    }
}

/// [`find_or_begin`], boxed here: the code of a future is generated with the code that polls it,
/// and what starts a view is generated in the crate that has the view.
pub(crate) fn found_or_begun<'a>(
    context: &'a WorkerContext,
    spec: &'a GenerationSpec,
) -> BoxFuture<'a, Result<Option<Generation>, StoreError>> {
    Box::pin(find_or_begin(context, spec))
}

/// The task of a supervisor, spawned here for the same reason.
pub(crate) fn supervised(supervisor: Supervisor, stop: watch::Receiver<bool>) -> JoinHandle<()> {
    tokio::spawn(supervisor.run(stop))
}

fn check<V: View>(context: &ViewContext) -> Result<(), StartError> {
    let checked = match context.lifecycle {
        Lifecycle::Inline => inline::check::<V>(context).map_err(|reason| ("inline", reason)),
        Lifecycle::LiveByStream => {
            inline::check_keys::<V>().map_err(|reason| ("live by stream", reason))
        }
        Lifecycle::Async | Lifecycle::Live => Ok(()),
    };
    checked.map_err(|(lifecycle, reason)| StartError::Lifecycle {
        view: V::NAME,
        lifecycle,
        reason,
    })
}

/// How an older version is kept by the program that built it.
async fn lifecycle_of_live<V: View>(context: &ViewContext) -> Result<Lifecycle, StartError> {
    let generations = context.views.generations(V::NAME).await?;
    Ok(match view_kind::<V>().serving(&generations) {
        Some(serving) if serving.spec.inline => Lifecycle::Inline,
        _ => Lifecycle::Async,
    })
}

fn supervise<V: View>(
    part: RunningPart,
    context: &ViewContext,
    workers: &GenerationWorkers,
    stop: watch::Receiver<bool>,
) -> RunningPart {
    let subject = ViewSubject::<V>::of(context);
    let supervisor = Supervisor::new(context.program.clone(), workers.clone(), subject);
    let dead_letters = DrainView::<V>::dead_letters(context, workers);
    let part = part
        .followed_by(context, workers, dead_letters)
        .supervised_by(supervised(supervisor, stop));
    if context.lifecycle != Lifecycle::Inline {
        return part;
    }
    part.inline(Arc::new(InlineFold::<V>::new(
        context.clone(),
        workers.clone(),
    )))
}
