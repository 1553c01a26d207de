//! Follows every generation of the tables that this program can fill, and switches to one that has
//! come to the head.

use std::time::Duration;

use annals_core::{Generation, GenerationSpec, Phase, StoreError};
use tokio::sync::watch;

use super::SqlProjection;
use super::hook::Subject;
use super::worker::{TableWorker, spec_of};
use crate::location::Generations;
use crate::status::Kind;
use crate::supervisor::{
    GenerationWorkers, RunningGeneration, WorkerContext, gate, is_at_head, is_ours,
};
use crate::worker::{Progress, chain};

/// How often it looks whether generations came or went, when nothing tells it.
const LOOK: Duration = Duration::from_millis(500);

pub(super) struct TableSupervisor<P: SqlProjection> {
    pub(super) context: WorkerContext,
    pub(super) following: GenerationWorkers,
    pub(super) subject: Subject<P>,
}

impl<P: SqlProjection> TableSupervisor<P> {
    pub(super) async fn run(self, mut stop: watch::Receiver<bool>) {
        let spec = spec_of::<P>(&self.context);
        while !*stop.borrow() {
            let building = match self.look(&spec).await {
                Ok(building) => building,
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(
                        projection = P::NAME,
                        error,
                        "the generations of tables cannot be looked at"
                    );
                    false
                }
            };
            let at_most = if building { LOOK / 10 } else { LOOK };
            tokio::select! {
                () = self.following.wait_to_look(at_most) => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        self.following.end_all().await;
    }

    /// Follows what is there. Answers whether something is being built.
    async fn look(&self, spec: &GenerationSpec) -> Result<bool, StoreError> {
        let generations = self.context.views.generations(P::NAME).await?;
        let ours: Vec<_> = generations
            .into_iter()
            .filter(|generation| is_ours(generation, spec))
            .collect();
        self.following
            .follow_only(&ours, |generation| self.follow(generation))
            .await;
        self.following.publish(&self.context).await?;
        let mut building = false;
        for generation in ours
            .iter()
            .filter(|generation| generation.phase == Phase::Building)
        {
            building = true;
            // On an empty log a generation is at the head before its tables are made, which its
            // first step does.
            let begun = self
                .context
                .views
                .checkpoints(generation.id)
                .await
                .is_ok_and(|stands| !stands.is_empty());
            if begun && is_at_head(&self.context, &self.following, generation).await? {
                self.switch(generation).await?;
            }
        }
        Ok(building)
    }

    fn follow(&self, generation: &Generation) -> RunningGeneration {
        let progress = Progress::of(Kind::View, generation, 0, self.context.db.clock());
        let (stop, stopped) = watch::channel(false);
        let all = vec![progress.clone()];
        let context = self.context.clone();
        let following = self.following.clone();
        let subject = self.subject.clone();
        let worker = TableWorker {
            context,
            following,
            subject,
            generation: generation.clone(),
            progress,
        };
        RunningGeneration::new(
            generation.clone(),
            all,
            stop,
            vec![tokio::spawn(worker.run(stopped))],
        )
    }

    async fn switch(&self, generation: &Generation) -> Result<(), StoreError> {
        let gate = gate(&self.context, P::NAME).await?;
        let switched = async {
            let generations = self.context.views.generations(P::NAME).await?;
            let phase = generations
                .into_iter()
                .find(|of| of.id == generation.id)
                .map(|of| of.phase);
            if phase == Some(Phase::Building) {
                self.subject.switch(generation.id).await?;
            }
            Ok::<_, annals_core::CommitError>(())
        };
        let refused = switched.await.err().map(|error| chain(&error));
        self.context.views.release_lease(&gate).await?;
        if let Some(refused) = &refused {
            tracing::warn!(projection = P::NAME, refused, "cannot switch to new tables");
        }
        self.following.refused(generation.id, refused);
        self.following.look();
        Ok(())
    }
}
