//! What the slots of a pipeline and its sender tell each other in one process; in several they
//! learn it from the store.

use std::sync::{Arc, Mutex, PoisonError};

use annals_core::{Partition, Phase, Position, Token, ViewStore};
use annals_runner::{Kind, Seen, WorkError};
use tokio::sync::watch;

use crate::pipeline::outbox::{Outbox, SentTo};

/// Bytes of events that a slot keeps at most before it waits.
const BYTES_MAX: usize = 64 << 20;

/// Between slots and sender.
#[derive(Debug)]
pub(crate) struct SenderLink {
    pipeline: &'static str,
    events_max: u64,
    sent: watch::Sender<SentTo>,
    commits: watch::Sender<u64>,
    error: Mutex<Option<String>>,
}

impl SenderLink {
    pub(crate) fn new(pipeline: &'static str, events_max: u64) -> SenderLink {
        SenderLink {
            pipeline,
            events_max,
            sent: watch::Sender::default(),
            commits: watch::Sender::default(),
            error: Mutex::default(),
        }
    }

    /// The name under which it is noted what was sent.
    pub(crate) fn stored_name(&self) -> String {
        Kind::Sender.stored_name(self.pipeline)
    }

    /// How far events were sent, as far as it is known here.
    pub(crate) fn sent(&self) -> watch::Receiver<SentTo> {
        self.sent.subscribe()
    }

    /// Everything that was caused at or before this was sent.
    pub(crate) fn has_sent(&self, partition: Partition, to: Position) {
        self.sent.send_if_modified(|sent| {
            let known = sent.entry(partition).or_default();
            let moved = to > *known;
            *known = to.max(*known);
            moved
        });
    }

    /// Takes in what the store knows.
    pub(crate) async fn read(&self, views: &dyn ViewStore) -> Result<(), WorkError> {
        let generations = views.generations(&self.stored_name()).await?;
        if let Some(live) = generations.iter().find(|of| of.phase == Phase::Live) {
            for checkpoint in views.checkpoints(live.id).await? {
                self.has_sent(checkpoint.partition, checkpoint.position);
            }
        }
        Ok(())
    }

    /// Takes in what a poll saw.
    pub(crate) fn look(&self, seen: &Seen) {
        let name = self.stored_name();
        let mut states = seen.generations(&name).filter_map(|of| seen.state(of.id));
        if let Some(state) = states.next() {
            for checkpoint in &state.checkpoints {
                self.has_sent(checkpoint.partition, checkpoint.position);
            }
        }
    }

    /// Counts up whenever a slot of this process has committed.
    pub(crate) fn commits(&self) -> watch::Receiver<u64> {
        self.commits.subscribe()
    }

    /// A slot has committed.
    pub(crate) fn committed(&self) {
        self.commits.send_modify(|count| *count += 1);
    }

    /// Why nothing can be sent now.
    pub(crate) fn failed(&self, error: Option<String>) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    /// Returns when everything was sent that was caused at or before a token.
    pub(crate) async fn wait_until_sent(
        &self,
        token: &Token,
        mut polls: watch::Receiver<Arc<Seen>>,
    ) {
        let mut sent = self.sent();
        loop {
            self.look(&polls.borrow_and_update());
            let is_sent = |(partition, position): (Partition, Position)| {
                position <= sent.borrow().get(&partition).copied().unwrap_or_default()
            };
            if token.positions().all(is_sent) {
                return;
            }
            tokio::select! {
                _ = sent.changed() => {}
                _ = polls.changed() => {}
            }
        }
    }

    /// How far it has come, and why not further.
    pub(crate) fn held(&self) -> String {
        let sent = self.sent.borrow();
        let at = sent.values().map(|at| at.get()).sum::<u64>();
        let error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        let error = error.as_ref().map(|why| format!(": {why}"));
        let pipeline = self.pipeline;
        let error = error.unwrap_or_default();
        format!("the sender of `{pipeline}` has sent what was caused up to {at}{error}")
    }

    /// Why a slot goes no further, when it has emitted as much as it may before it is sent.
    pub(crate) fn holds_up(&self, outbox: &Outbox) -> Option<String> {
        let (events, bytes) = outbox.waiting();
        if events < self.events_max && bytes < BYTES_MAX {
            return None;
        }
        Some(format!(
            "{events} events ({bytes} bytes) are in its outbox, as many as may be; {}",
            self.held()
        ))
    }
}
