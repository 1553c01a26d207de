//! What operator ask of a reactor: how far it is, what waits, and what is to become of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{
    DeadLetter, Invalid, Moment, PAGE_EVENTS, Partition, Phase, Position, ReadLog, SkipDecision,
    Token,
};

use super::worker::{ReactorNote, Work, first_aside, has_reached, standing};
use crate::query::ViewError;
use crate::status::Status;
use crate::worker::{HeldLease, SlotProgress, SlotState, event_at, settled_to};

/// A reactor of a running program: how far it has come, and what waits for a person. Cheap to
/// clone.
///
/// ```
/// # use annals_projections::{Program, Reactor, ViewError};
/// # async fn example<TextMessages: Reactor>(db: Program) -> Result<(), ViewError> {
/// let texts = db.reactor::<TextMessages>();
/// for waiting in texts.dead_letter_keys(None, 100).await?.into_iter().filter(|event| event.cause.is_some()) {
///     println!("{}: {}", waiting.key, waiting.cause.as_deref().unwrap_or_default());
///     texts.retry(&waiting.key).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ReactorHandle {
    name: &'static str,
    work: Arc<Work>,
}

impl ReactorHandle {
    pub(super) fn of(name: &'static str, work: Work) -> ReactorHandle {
        ReactorHandle {
            name,
            work: Arc::new(work),
        }
    }

    pub(crate) fn status(&self) -> Status {
        let Work {
            kind,
            generation,
            progress,
            clock,
            ..
        } = &*self.work;
        // It is begun and switched to in one go, and never built beside another one.
        let mut generation = generation.clone();
        generation.phase = Phase::Live;
        Status::new(
            *kind,
            &generation,
            None,
            vec![progress.watch().borrow().clone()],
            clock.now(),
        )
    }

    /// Returns when everything up to a token is settled: done, left out, or set aside.
    ///
    /// # Errors
    ///
    /// [`ViewError::NotYet`] after `at_most`, with what holds it; [`ViewError::Stopped`] at once
    /// when it will not come so far.
    pub async fn wait_for(
        &self,
        token: impl Into<Token>,
        at_most: Duration,
    ) -> Result<(), ViewError> {
        let token = token.into();
        let mut progress = self.work.progress.watch();
        let reached = async {
            loop {
                progress.mark_unchanged();
                // Another process may be the one that works.
                if has_reached(&self.work, &token).await? {
                    return Ok(());
                }
                if let Some(reason) = self.stopped().await? {
                    return Err(ViewError::Stopped { reason });
                }
                let _ = tokio::time::timeout(self.work.patience.poll, progress.changed()).await;
            }
        };
        match tokio::time::timeout(at_most, reached).await {
            Ok(reached) => reached,
            Err(_) => Err(ViewError::NotYet {
                token,
                waited: at_most,
                held: self.status().to_string(),
            }),
        }
    }

    /// Why it does not go on until a person has looked, neither here nor in another process.
    async fn stopped(&self) -> Result<Option<String>, ViewError> {
        let work = &*self.work;
        let decided = *work.anew.borrow();
        let reason = match &*work.progress.watch().borrow() {
            SlotProgress {
                state: SlotState::Stopped { reason },
                knows,
                ..
            } if *knows >= decided => reason.clone(),
            _ => return Ok(None),
        };
        let elsewhere = work.post().is_worked_on_by_another().await?;
        Ok((!elsewhere).then_some(reason))
    }

    /// What is set aside, in the order of key and position, behind `after`, at most `limit`. The
    /// event of a key that has a cause is the one on which the others wait.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    pub async fn dead_letters(
        &self,
        after: Option<&DeadLetter>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, ViewError> {
        let after = after.map(|dead_letters| {
            (
                dead_letters.key.as_str(),
                dead_letters.partition,
                dead_letters.position,
            )
        });
        Ok(self
            .work
            .views
            .dead_letters(self.work.generation.id, after, limit)
            .await?)
    }

    /// Tries a key again, from the event on which it waits; those behind it follow in their order.
    /// Returns before that has happened.
    ///
    /// # Errors
    ///
    /// [`ViewError::Invalid`] when nothing waits under this key.
    pub async fn retry(&self, key: &str) -> Result<(), ViewError> {
        let held = HeldLease::steal(&self.work.post()).await?;
        let retried = self.try_again(&held, key).await;
        held.release().await;
        self.work.anew.send_modify(|count| *count += 1);
        retried
    }

    async fn try_again(&self, held: &HeldLease, key: &str) -> Result<(), ViewError> {
        let first = first_aside(&self.work, key)
            .await?
            .ok_or_else(|| self.nothing(key))?;
        // The worker tries again what nothing is said against.
        let again = DeadLetter {
            cause: None,
            ..first.clone()
        };
        let commit = standing(&self.work, held, first.partition, |commit| {
            commit.park.push(again)
        })
        .await?;
        Ok(self.work.views.commit_view(commit).await?)
    }

    /// Leaves out the event on which a key waits; those behind it go on in their order.
    ///
    /// # Errors
    ///
    /// [`ViewError::Invalid`] when nothing waits under this key, or no reason is given.
    pub async fn skip(&self, key: &str, reason: impl Into<String>) -> Result<(), ViewError> {
        self.leave_out(key, 1, reason.into()).await
    }

    /// Leaves out everything that waits under a key. Its later events go on.
    ///
    /// # Errors
    ///
    /// As [`skip`](ReactorHandle::skip).
    pub async fn discard(&self, key: &str, reason: impl Into<String>) -> Result<(), ViewError> {
        self.leave_out(key, usize::MAX, reason.into()).await
    }

    async fn leave_out(&self, key: &str, events: usize, reason: String) -> Result<(), ViewError> {
        let reason = given(reason)?;
        let held = HeldLease::steal(&self.work.post()).await?;
        let left = self.leave_out_under(&held, key, events, reason).await;
        held.release().await;
        self.work.anew.send_modify(|count| *count += 1);
        left
    }

    async fn leave_out_under(
        &self,
        held: &HeldLease,
        key: &str,
        events: usize,
        reason: String,
    ) -> Result<(), ViewError> {
        let mut left = 0;
        while left < events {
            let behind = Some((key, Partition(0), Position::START));
            let limit = PAGE_EVENTS.min(events - left);
            let mut page = self
                .work
                .views
                .dead_letters(self.work.generation.id, behind, limit)
                .await?;
            page.retain(|dead_letters| dead_letters.key == key);
            let Some(partition) = page.first().map(|first| first.partition) else {
                break;
            };
            page.retain(|dead_letters| dead_letters.partition == partition);
            left += page.len();
            for dead_letters in &page {
                let skip_decision = self.skip_decision(
                    dead_letters.partition,
                    dead_letters.position,
                    dead_letters.event,
                    reason.clone(),
                );
                self.work
                    .views
                    .save_skip_decision(SkipDecision {
                        key: Some(key.into()),
                        ..skip_decision
                    })
                    .await?;
            }
            let settled = page
                .into_iter()
                .map(|dead_letters| (dead_letters.key, dead_letters.position));
            let commit = standing(&self.work, held, partition, |commit| {
                commit.unpark.extend(settled)
            })
            .await?;
            self.work.views.commit_view(commit).await?;
        }
        if left == 0 {
            Err(self.nothing(key))
        } else {
            Ok(())
        }
    }

    /// Leaves out an event that stops the reactor because its key cannot be told.
    ///
    /// # Errors
    ///
    /// [`ViewError::Invalid`] when there is no such event, or no reason is given.
    pub async fn skip_event(
        &self,
        partition: Partition,
        position: impl Into<Position>,
        reason: impl Into<String>,
    ) -> Result<(), ViewError> {
        let position = position.into();
        let reason = given(reason.into())?;
        let read = ReadLog::after(position.minus(1))
            .up_to(position)
            .partition(partition)
            .limit(1);
        let found = self.work.log.read(read).await?.events.into_iter().next();
        let Some(event) = found else {
            return Err(Invalid::new(format!("there is no event at position {position}")).into());
        };
        self.work
            .views
            .save_skip_decision(self.skip_decision(partition, position, event.id, reason))
            .await?;
        self.work.anew.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Calls once more for everything behind a moment, with the same idempotency keys as before,
    /// and answers with where that begins. Somebody who asks [`wait_for`](ReactorHandle::wait_for)
    /// waits for it. What waits for a person behind the moment is called for too; what operator
    /// left out stays left out. A moment that was not reached yet repeats nothing. A position
    /// counts in every partition, a recorded time is looked up in each.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer, and a text that is no time.
    ///
    /// ```
    /// # use annals_projections::{Program, Reactor, ViewError};
    /// # async fn example<TextMessages: Reactor>(db: Program) -> Result<(), ViewError> {
    /// let from = db.reactor::<TextMessages>().repeat_from("2026-03-31T00:00:00Z").await?;
    /// println!("sends again what came after {from}");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn repeat_from(&self, moment: impl Into<Moment>) -> Result<Token, ViewError> {
        self.move_to(moment.into(), |low, moment| low.min(moment))
            .await
    }

    /// Calls for nothing up to a moment that was not called for yet, and answers with where it goes
    /// on. What waits for a person goes on waiting, and of calls that are being made nobody knows
    /// whether they had an effect. A moment that was reached already changes nothing.
    ///
    /// # Errors
    ///
    /// As [`repeat_from`](ReactorHandle::repeat_from).
    pub async fn skip_to(&self, moment: impl Into<Moment>) -> Result<Token, ViewError> {
        self.move_to(moment.into(), |low, moment| low.max(moment))
            .await
    }

    /// Moves the place up to which all is settled to one of what it is and the moment.
    async fn move_to(
        &self,
        moment: Moment,
        place: impl Fn(Position, Position) -> Position,
    ) -> Result<Token, ViewError> {
        let log = &self.work.log;
        let mut token = Token::new(log.id());
        for partition in (0..log.partitions()).map(Partition) {
            token = token.with(partition, moment.resolve(&**log, partition).await?);
        }
        let held = HeldLease::steal(&self.work.post()).await?;
        let moved = self.move_under(&held, &token, place).await;
        held.release().await;
        self.work.anew.send_modify(|count| *count += 1);
        moved
    }

    async fn move_under(
        &self,
        held: &HeldLease,
        to: &Token,
        place: impl Fn(Position, Position) -> Position,
    ) -> Result<Token, ViewError> {
        let work = &*self.work;
        let mut moved = Token::new(work.log.id());
        for (partition, moment) in to.positions() {
            let mut commit = standing(work, held, partition, |_| {}).await?;
            let before = settled_to(&commit.to);
            let mut settled = ReactorNote::of(&commit.to)?.settled;
            let low = place(before, moment);
            if low < before {
                // Beyond it nothing counts as settled, neither what was done nor what was set
                // aside.
                settled.clear();
                commit.unpark = self.aside_behind(partition, low).await?;
            }
            settled.retain(|position| *position > low);
            if low > commit.to.position {
                commit.to.position = low;
                commit.to.event = event_at(&*work.log, partition, low).await?;
            }
            commit.to.state = ReactorNote::to_state(settled, low, commit.to.position);
            work.views.commit_view(commit).await?;
            moved = moved.with(partition, low);
        }
        Ok(moved)
    }

    /// What is set aside behind a position.
    async fn aside_behind(
        &self,
        partition: Partition,
        position: Position,
    ) -> Result<Vec<(String, Position)>, ViewError> {
        let mut aside = Vec::new();
        let mut after = None::<DeadLetter>;
        loop {
            let page = self.dead_letters(after.as_ref(), PAGE_EVENTS).await?;
            let Some(last) = page.last() else {
                return Ok(aside);
            };
            after = Some(last.clone());
            let behind = page
                .into_iter()
                .filter(|of| of.partition == partition && of.position > position);
            aside.extend(behind.map(|of| (of.key, of.position)));
        }
    }

    fn skip_decision(
        &self,
        partition: Partition,
        position: Position,
        event: annals_core::EventId,
        reason: String,
    ) -> SkipDecision {
        let view = self.work.generation.spec.view.clone();
        let decided_at = self.work.clock.now();
        SkipDecision {
            view,
            partition,
            position,
            event,
            key: None,
            reason,
            decided_at,
        }
    }

    fn nothing(&self, key: &str) -> ViewError {
        Invalid::new(format!(
            "nothing waits for key `{}` of reactor `{}`",
            key.escape_debug(),
            self.name
        ))
        .into()
    }
}

fn given(reason: String) -> Result<String, Invalid> {
    if reason.trim().is_empty() {
        return Err(Invalid::new(
            "leaving an event out needs a reason, which is kept",
        ));
    }
    Ok(reason)
}

impl fmt::Debug for ReactorHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReactorHandle")
            .field("reactor", &self.name)
            .finish_non_exhaustive()
    }
}
