//! What programs and operators ask of a reactor: how far it is, what failed, and what is to become
//! of it.

use std::fmt;
use std::time::Duration;

use annals_core::{Generation, Moment, Partition, Position, Token};
use annals_runner::{
    CatchUp, DeadLetterPages, DeadLetters, GenerationWorkers, HeldLease, Note, Settled, Slot,
    SlotClaim, ViewError, WindowNote, WorkerContext, event_at, settled_to,
};

use super::dead_letters::unmoved;

/// A reactor of a running program: how far it has come, and its dead letters. Cheap to clone.
///
/// ```
/// # use annals_projections::{Program, Reactor, ReadModels, ViewError};
/// # async fn example<TextMessages: Reactor>(db: Program) -> Result<(), ViewError> {
/// let texts = db.reactor::<TextMessages>();
/// for failed in texts.dead_letters().keys(None, 100).await? {
///     println!("{}: {}", failed.key, failed.reason);
///     texts.retry(&failed.key).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ReactorHandle {
    context: WorkerContext,
    workers: GenerationWorkers,
    generation: Generation,
    dead_letters: DeadLetters,
}

impl ReactorHandle {
    pub(super) fn new(
        context: &WorkerContext,
        workers: &GenerationWorkers,
        generation: &Generation,
        dead_letters: DeadLetters,
    ) -> ReactorHandle {
        ReactorHandle {
            context: context.clone(),
            workers: workers.clone(),
            generation: generation.clone(),
            dead_letters,
        }
    }

    /// Returns when everything up to a token is settled: done, skipped, or in dead letters.
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
        // Calls can be repeated, so what a worker knows may be older than what is stored.
        let readers = CatchUp::new(&self.context, &self.workers).from_the_store();
        let generation = Some(self.generation.clone());
        readers
            .caught_up_with(generation, &token.into(), at_most)
            .await
            .map(|_| ())
    }

    /// Its dead letters: listed, tried again, skipped.
    pub fn dead_letters(&self) -> DeadLetters {
        self.dead_letters.clone()
    }

    /// Tries a key again, from its first dead letter on; the later ones follow in their order.
    /// Returns before that has happened.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    pub async fn retry(&self, key: &str) -> Result<Settled, ViewError> {
        self.dead_letters.retry(key).await
    }

    /// [`retry`](ReactorHandle::retry) for every key in dead letters.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    pub async fn retry_all(&self) -> Result<Settled, ViewError> {
        self.dead_letters.retry_all().await
    }

    /// Skips a dead letter of a key, as [`DeadLetters::skip`] does; the later ones are tried in
    /// their order.
    ///
    /// # Errors
    ///
    /// As [`DeadLetters::skip`].
    pub async fn skip(
        &self,
        key: &str,
        position: impl Into<Position>,
        reason: impl Into<String>,
    ) -> Result<Settled, ViewError> {
        self.dead_letters.skip(key, position, reason).await
    }

    /// Skips every dead letter of a key. Its later events go on.
    ///
    /// # Errors
    ///
    /// As [`DeadLetters::discard`].
    pub async fn discard(
        &self,
        key: &str,
        reason: impl Into<String>,
    ) -> Result<Settled, ViewError> {
        self.dead_letters.discard(key, reason).await
    }

    /// Skips an event that stops the reactor because its key is unknown, as
    /// [`DeadLetters::skip_event`] does.
    ///
    /// # Errors
    ///
    /// As [`DeadLetters::skip_event`].
    pub async fn skip_event(
        &self,
        position: impl Into<Position>,
        reason: impl Into<String>,
    ) -> Result<(), ViewError> {
        self.dead_letters.skip_event(position, reason).await
    }

    /// [`skip_event`](ReactorHandle::skip_event) of this partition: positions count for each
    /// partition by itself.
    ///
    /// # Errors
    ///
    /// As [`DeadLetters::skip_event`].
    ///
    /// ```
    /// # use annals_core::Partition;
    /// # use annals_projections::{ReactorHandle, ViewError};
    /// # async fn example(payments: ReactorHandle) -> Result<(), ViewError> {
    /// payments.skip_event_in(Partition(2), 7, "written by a test").await
    /// # }
    /// ```
    pub async fn skip_event_in(
        &self,
        partition: Partition,
        position: impl Into<Position>,
        reason: impl Into<String>,
    ) -> Result<(), ViewError> {
        let dead_letters = &self.dead_letters;
        dead_letters
            .skip_event_in(partition, position, reason)
            .await
    }

    /// Calls once more for everything after a moment, with the same idempotency keys as before,
    /// and answers with where that begins. [`wait_for`](ReactorHandle::wait_for) waits for it.
    /// Dead letters after the moment are called for too; what operators skipped stays skipped. A
    /// moment that was not reached yet repeats nothing; but a call that is under way when the
    /// reactor is moved is made once more, with the same key. A position counts in every partition,
    /// a recorded time is looked up in each.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer, and a text that is no time.
    ///
    /// ```
    /// # use annals_projections::{Program, Reactor, ReadModels, ViewError};
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
    /// on. Dead letters stay where they are, and of calls that are being made it is not known
    /// whether they had an effect. A moment that was reached already changes nothing.
    ///
    /// # Errors
    ///
    /// As [`repeat_from`](ReactorHandle::repeat_from).
    pub async fn skip_to(&self, moment: impl Into<Moment>) -> Result<Token, ViewError> {
        self.move_to(moment.into(), |low, moment| low.max(moment))
            .await
    }

    /// Moves the position up to which all is settled to one of what it is and the moment.
    async fn move_to(
        &self,
        moment: Moment,
        choose: impl Fn(Position, Position) -> Position,
    ) -> Result<Token, ViewError> {
        let log = self.context.log();
        let mut token = Token::new(log.id());
        for partition in (0..log.partitions()).map(Partition) {
            token = token.with(partition, moment.resolve(&**log, partition).await?);
        }
        let claim = SlotClaim::of_operator(&self.context, &self.generation, 0);
        let held = HeldLease::steal(&claim).await?;
        let moved = self.move_under(&held, &token, choose).await;
        held.release().await;
        self.workers.decided();
        moved
    }

    async fn move_under(
        &self,
        held: &HeldLease,
        to: &Token,
        choose: impl Fn(Position, Position) -> Position,
    ) -> Result<Token, ViewError> {
        let log = self.context.log();
        let slot = Slot::of_operator(&self.context, &self.generation, 0, &self.workers);
        let mut moved = Token::new(log.id());
        for (partition, moment) in to.positions() {
            let mut commit = unmoved(&slot, held, partition, |_| {}).await?;
            let before = settled_to(&commit.to);
            let mut settled = Note::of(&commit.to)?.into_window().settled;
            let low = choose(before, moment);
            if low < before {
                // After it nothing counts as settled, neither what was done nor dead letters.
                settled.clear();
                commit.settled_letters = self.dead_letters_after(partition, low).await?;
            }
            settled.retain(|position| *position > low);
            if low > commit.to.position {
                commit.to.position = low;
                commit.to.event = event_at(&**log, partition, low).await?;
            }
            let note = WindowNote::of(settled, low, commit.to.position);
            commit.to.state = Note::from(note).to_state();
            self.context.views.commit_view(commit).await?;
            moved = moved.with(partition, low);
        }
        Ok(moved)
    }

    async fn dead_letters_after(
        &self,
        partition: Partition,
        position: Position,
    ) -> Result<Vec<(String, Position)>, ViewError> {
        let mut letters = Vec::new();
        let mut pages = DeadLetterPages::of(&*self.context.views, self.generation.id);
        loop {
            let page = pages.next().await?;
            if page.is_empty() {
                return Ok(letters);
            }
            let later = page
                .into_iter()
                .filter(|of| of.partition == partition && of.position > position);
            letters.extend(later.map(|of| (of.key, of.position)));
        }
    }
}

impl fmt::Debug for ReactorHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReactorHandle")
            .field("reactor", &self.workers.name())
            .finish_non_exhaustive()
    }
}
