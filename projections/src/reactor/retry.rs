//! Dead letters of a reactor that are tried again: one after another for each key.

use annals_core::{DeadLetter, Partition, ReadLog, RowChange, ViewCommit};
use annals_runner::{DrainResult, Skips, WorkError, chain};

use super::attempts::About;
use super::dead_letters::{first_dead_letter, mark, unmoved};
use super::session::ReactorSession;
use super::worker::React;

impl ReactorSession<'_> {
    /// The dead letters of these keys are tried again, without those that are skipped.
    pub(super) async fn take_up(&mut self, keys: &[String]) -> Result<DrainResult, WorkError> {
        self.commit().await?;
        self.skips = read_skips(self.work).await?;
        let drained = mark(&self.work.slot, self.held, keys, &self.skips).await;
        // Also when that failed: the store may have taken it, and then the keys are to go on.
        for key in keys {
            if !self.retried.contains(key) && !self.began.contains_key(key) {
                self.retried.push_back(key.clone());
            }
        }
        drained
    }

    /// Begins with the first dead letter of each key that is tried again.
    pub(super) async fn retry(&mut self) -> Result<(), WorkError> {
        while self.calls.len() < self.work.options.calls_max {
            let Some(key) = self.retried.pop_front() else {
                break;
            };
            self.retry_next(key).await?;
        }
        Ok(())
    }

    /// Tries the next dead letter of a key. When none is left the key goes on as the others do.
    async fn retry_next(&mut self, key: String) -> Result<(), WorkError> {
        let work = self.work;
        // Dead letters that are still to be written are written first, where the checkpoint is
        // there already.
        self.commit().await?;
        while let Some(letter) = first_dead_letter(&work.slot, &key).await? {
            let read = ReadLog::after(letter.position.minus(1))
                .up_to(letter.position)
                .partition(letter.partition)
                .limit(1);
            let page = work.context.log().read(read).await?;
            let prepared = match page.events.into_iter().next() {
                None if self.skips.for_dead_letter(&letter) => Ok(Vec::new()),
                None => {
                    let removed = "the event was archived; discard it, or skip it".to_owned();
                    return self.retried(letter, 1, Err(removed)).await;
                }
                Some(record) if !self.skips.for_key(&record, &key) => work.handler.prepare(record),
                _ => Ok(Vec::new()),
            };
            match prepared.map(|calls| calls.into_iter().find(|call| call.key == key)) {
                Ok(Some(call)) => {
                    self.call(About::DeadLetter(letter), call);
                    return Ok(());
                }
                // It was skipped, or nothing is to be done about it.
                Ok(None) => self.remove(letter, Vec::new()).await?,
                Err(error) => return self.retried(letter, 1, Err(chain(&error))).await,
            }
        }
        self.scheduler.revive(&key);
        self.show_dead_letters();
        Ok(())
    }

    /// A dead letter was tried again.
    pub(super) async fn retried(
        &mut self,
        letter: DeadLetter,
        attempts: u32,
        outcome: Result<Vec<RowChange>, String>,
    ) -> Result<(), WorkError> {
        match outcome {
            Ok(rows) => {
                self.retried.push_front(letter.key.clone());
                self.remove(letter, rows).await
            }
            Err(reason) => {
                let letter = DeadLetter {
                    reason: Some(DeadLetter::recorded(reason)),
                    attempts: letter.attempts + attempts,
                    ..letter
                };
                self.commit_unmoved(letter.partition, |commit| commit.dead_letters.push(letter))
                    .await
            }
        }
    }

    async fn remove(&mut self, letter: DeadLetter, rows: Vec<RowChange>) -> Result<(), WorkError> {
        self.commit_unmoved(letter.partition, |commit| {
            commit.settled_letters.push((letter.key, letter.position));
            commit.rows = rows;
        })
        .await
    }

    /// Writes something about dead letters, without a step.
    async fn commit_unmoved(
        &mut self,
        partition: Partition,
        change: impl FnOnce(&mut ViewCommit) + Send,
    ) -> Result<(), WorkError> {
        self.commit().await?;
        let commit = unmoved(&self.work.slot, self.held, partition, change).await?;
        Ok(self.work.context.views.commit_view(commit).await?)
    }
}

pub(super) async fn read_skips(work: &React) -> Result<Skips, WorkError> {
    let stored_name = work.workers.stored_name();
    Ok(Skips::of(
        work.context.views.skip_decisions(stored_name).await?,
    ))
}
