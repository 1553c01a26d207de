//! An ingest as a part of a program: a lease, and the work again after what may pass.

use std::sync::Arc;
use std::time::Duration;

use annals_core::{Backoff, StoreError};
use annals_runner::{
    BoxFuture, Coordination, Follower, Kind, Part, Registry, RunningPart, Setup, StartError,
    WorkerContext,
};
use chrono::{DateTime, Utc};
use tokio::sync::watch;

use super::Ingest;
use super::handle::{IngestHandle, Shared};
use super::source::SourceFailure;
use super::status::IngestState;
use super::work::{Ended, Work};

/// Waits between tries after a failure.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));

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

    fn register(&self, registry: Registry) -> Registry {
        registry
    }

    fn start(
        self: Box<Self>,
        context: WorkerContext,
        stop: watch::Receiver<bool>,
    ) -> BoxFuture<'static, Result<RunningPart, StartError>> {
        Box::pin(async move {
            if !context.log().atomic() {
                let name = self.name;
                return Err(StartError::Store(StoreError::new(
                    annals_core::Failure::Invalid,
                    format!(
                        "the store of this log cannot append to several streams at once, so a \
                         transaction of ingest `{name}` could be seen in part; take it into \
                         SQLite or PostgreSQL and relay it"
                    ),
                )));
            }
            let shared = Arc::new(Shared::new(self.name));
            let handle = IngestHandle {
                db: context.db.clone(),
                name: self.name,
                shared: Arc::clone(&shared),
            };
            let task = tokio::spawn(follow(*self, context, stop, shared));
            Ok(RunningPart::of::<Ingest>(handle).supervised_by(task))
        })
    }
}

/// Works until the program stops.
async fn follow(
    ingest: Ingest,
    context: WorkerContext,
    mut stop: watch::Receiver<bool>,
    shared: Arc<Shared>,
) {
    let name = ingest.name;
    let Some(mut source) = ingest.source else {
        shared.change(|status| {
            status.state = IngestState::Stopped("it has no source: say `from`".into());
        });
        return;
    };
    let leased = Kind::Ingest.stored_name(name);
    let mut backoff = BACKOFF;
    let mut lost_at: Option<DateTime<Utc>> = None;
    let stopping = |stop: &watch::Receiver<bool>| {
        let mut stop = stop.clone();
        async move {
            // A program that is gone has stopped.
            let _ = stop.wait_for(|stop| *stop).await;
        }
    };
    while !*stop.borrow_and_update() {
        let lease = tokio::select! {
            () = stopping(&stop) => break,
            lease = Coordination::take(&context, &leased) => lease,
        };
        let ended = match lease {
            Err(error) => Ended::Failed(
                SourceFailure::Retry,
                annals_core::with_causes(&error).to_string(),
            ),
            Ok(lease) => {
                let mut work = Work {
                    name,
                    settings: &ingest.settings,
                    db: &context.db,
                    source: source.as_mut(),
                    shared: &shared,
                    progressed: false,
                };
                let ended = work.run(stopping(&stop)).await;
                if work.progressed {
                    backoff.reset();
                    if let Some(at) = lost_at.take() {
                        let seconds = (context.clock().now() - at).num_seconds();
                        tracing::info!(ingest = name, seconds, "the ingest is back");
                    }
                }
                source.end().await;
                lease.release().await;
                ended
            }
        };
        let wait = match ended {
            Ended::Stopping => break,
            Ended::Decided => Duration::ZERO,
            Ended::Failed(SourceFailure::Retry, why) => {
                if lost_at.is_none() {
                    lost_at = Some(context.clock().now());
                    tracing::warn!(ingest = name, why, "the ingest tries again");
                }
                shared.change(|status| status.state = IngestState::Retrying(why));
                backoff.next_wait()
            }
            Ended::Failed(SourceFailure::Stop, why) => {
                let stopped = IngestState::Stopped(why.clone());
                shared.change(|status| {
                    if status.state != stopped {
                        tracing::error!(ingest = name, why, "the ingest stopped");
                        status.state = stopped;
                    }
                });
                ingest.settings.look_again
            }
        };
        tokio::select! {
            () = stopping(&stop) => break,
            () = shared.decided.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
    shared.change(|status| status.state = IngestState::Ended);
}
