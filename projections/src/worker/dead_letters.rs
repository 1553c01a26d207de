//! The dead letters of a slot: their keys, how many events they are, and which keys are tried again
//! by themselves.

use std::collections::{BTreeMap, HashSet};

use annals_core::chrono::{DateTime, TimeDelta, Utc};
use annals_core::{CommitError, DeadLetter};
use annals_runner::{DeadLetterPages, DrainResult, Slot, WorkError, slot_of};

use crate::options::Options;

#[derive(Default)]
pub(super) struct SlotDeadLetters {
    pub(super) keys: HashSet<String>,
    events: usize,
    // Keys that are tried again by themselves, and when.
    retries: BTreeMap<String, DateTime<Utc>>,
}

impl SlotDeadLetters {
    /// Those that are stored.
    pub(super) async fn read(of: &Slot, options: &Options) -> Result<SlotDeadLetters, CommitError> {
        let slots = of.generation.spec.slots;
        let now = of.context.clock().now();
        let mut read = SlotDeadLetters::default();
        let mut pages = DeadLetterPages::of(&*of.context.views, of.generation.id);
        loop {
            let mut page = pages.next().await?;
            if page.is_empty() {
                return Ok(read);
            }
            page.retain(|letter| slot_of(&letter.key, slots) == of.number);
            read.add(&page, options, now);
            read.keys.extend(page.into_iter().map(|letter| letter.key));
        }
    }

    /// Counts letters that are stored now. Their keys are known from the fold.
    pub(super) fn add(&mut self, letters: &[DeadLetter], options: &Options, now: DateTime<Utc>) {
        self.events += letters.len();
        for letter in letters {
            self.retry_later(letter, options, now);
        }
    }

    /// The queue of a key was settled as far as it goes.
    pub(super) fn drained(
        &mut self,
        key: &str,
        drained: &DrainResult,
        options: &Options,
        now: DateTime<Utc>,
    ) {
        self.retries.remove(key);
        self.events = self.events.saturating_sub(drained.settled as usize);
        match &drained.still {
            Some(still) => self.retry_later(still, options, now),
            None => _ = self.keys.remove(key),
        }
    }

    /// The keys whose time to be tried again has come.
    pub(super) fn due(&self, now: DateTime<Utc>) -> Vec<String> {
        let due = self.retries.iter().filter(|(_, due)| **due <= now);
        due.map(|(key, _)| key.clone()).collect()
    }

    /// Refuses more dead letters than a slot may have.
    pub(super) fn check_room(
        &self,
        (view, slot): (&'static str, u16),
        most: usize,
        events: usize,
    ) -> Result<(), WorkError> {
        let letters = self.events + events;
        if letters <= most {
            return Ok(());
        }
        Err(WorkError::Stopped(format!(
            "slot {slot} of view `{view}` would have {letters} dead letters, at most {most} are \
             allowed; nothing was changed. Repair the fold and retry the keys, skip or discard \
             their dead letters, or raise `dead_letters_max`"
        )))
    }

    fn retry_later(&mut self, letter: &DeadLetter, options: &Options, now: DateTime<Utc>) {
        if letter.reason.is_none() || letter.attempts >= options.attempts {
            return;
        }
        let wait = options.backoff().wait_after(letter.attempts);
        let wait = TimeDelta::from_std(wait).unwrap_or(TimeDelta::hours(1));
        self.retries.insert(letter.key.clone(), now + wait);
    }
}
