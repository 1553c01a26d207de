//! A relay as a part of a program.

use std::time::Duration;

use annals_runner::{
    BoxFuture, Follower, Kind, Part, Registry, RunningPart, Setup, StartError, WorkerContext,
};
use tokio::sync::watch;

use super::Relay;

/// A relay that stopped looks again after this whether an operator has repaired what stopped it.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

impl Part for Relay {
    fn add_to(self, setup: Setup) -> Setup {
        setup.with_follower(self)
    }
}

impl Follower for Relay {
    fn kind(&self) -> Kind {
        Kind::Relay
    }

    fn name(&self) -> (&'static str, u32) {
        (self.name, 1)
    }

    fn keeps_nothing(&self) -> bool {
        true
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
            let name = self.name;
            let publishes = tokio::spawn(async move {
                let mut stopping = stop.clone();
                let mut reported = None;
                while !*stop.borrow() {
                    let mut until = stop.clone();
                    let until = async move {
                        // A program that is gone has stopped.
                        let _ = until.wait_for(|stop| *stop).await;
                    };
                    let Err(error) = self.run(&context.db, until).await else {
                        break;
                    };
                    let reason = error.to_string();
                    if reported.as_ref() != Some(&reason) {
                        tracing::error!(relay = self.name, reason, "the relay stopped");
                        reported = Some(reason);
                    }
                    tokio::select! {
                        _ = stopping.wait_for(|stop| *stop) => break,
                        () = tokio::time::sleep(LOOK_AGAIN) => {}
                    }
                }
            });
            Ok(RunningPart::of::<Relay>(name).supervised_by(publishes))
        })
    }
}
