//! How a projection works: batches, leases, attempts.

use std::time::Duration;

use annals_core::{Invalid, VIEW_SLOTS_MAX};
use annals_runner::{Backoff, Timing};

/// How the workers of a projection work. The defaults are meant to be left alone.
///
/// ```
/// use annals_projections::Options;
///
/// let options = Options::default().slots(4);
/// assert_eq!(options.slots, 4);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Into how many slots the keys are divided; each is worked on by one worker at a time, in any
    /// process, and processes that follow the same view share them evenly. At most 256. Default: 1.
    /// A change takes effect with the next generation.
    pub slots: u16,
    /// Events folded into one transaction while catching up. Default: 20,000. More is faster and
    /// takes more memory.
    pub batch_events_max: usize,
    /// Events folded into one transaction while a generation is built that no reader sees, so
    /// that a row that changes often is written seldom. Such a transaction also ends after a
    /// second, or when it changes as many rows as are kept at hand. Default: 500,000.
    pub build_events_max: usize,
    /// Bytes of payload folded into one transaction. Default: 32 MiB.
    pub batch_bytes_max: usize,
    /// Rows kept at hand by each worker. Default: 200,000.
    pub rows_kept_max: usize,
    /// Rows of a new generation that are folded again from the log and compared, before it is
    /// switched to. Default: 8; it costs one more reading of the log. With 0 nothing is compared.
    pub verified_keys: usize,
    /// How long a worker that does not renew its lease keeps its slot. Default: 10 s. Shorter takes
    /// over sooner and bears shorter pauses.
    pub lease: Duration,
    /// How often this process polls at least whether there is something new, when no hint says so.
    /// Default: 250 ms. It polls once for everything that waits in it.
    pub poll: Duration,
    /// The first wait after a failure of a store; it doubles up to 5 s. Default: 50 ms.
    pub back_off: Duration,
    /// How often an event that cannot be folded is tried before it is a dead letter. Default:
    /// 1, because a fold that depends on the row and the event alone fails again the same way;
    /// more is for folds that read something else. Other keys go on in between.
    pub attempts: u32,
    /// How long after the first attempt comes the second; it doubles up to an hour. Default: 1 s.
    pub retry_after: Duration,
    /// Dead letters that a slot may have. Beyond it the projection stops, because they would fill
    /// the store. Default: 100,000.
    pub dead_letters_max: usize,
    /// For how long a view with history keeps its past, counted from when events were recorded;
    /// older questions are answered with [`BeforeHistory`](crate::ViewError::BeforeHistory).
    /// Default: for ever.
    pub history_for: Option<Duration>,
    /// Whether events that were archived before they were read are skipped; otherwise they stop
    /// the projection, and answers that would need them are errors. Default: no.
    pub skips_archived: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            slots: 1,
            batch_events_max: 20_000,
            build_events_max: 500_000,
            batch_bytes_max: 32 << 20,
            rows_kept_max: 200_000,
            verified_keys: 8,
            lease: Duration::from_secs(10),
            poll: Duration::from_millis(250),
            back_off: Duration::from_millis(50),
            attempts: 1,
            retry_after: Duration::from_secs(1),
            dead_letters_max: 100_000,
            history_for: None,
            skips_archived: false,
        }
    }
}

impl Options {
    /// The longest wait between two attempts at an event that cannot be folded.
    pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

    /// How long its workers hold, wait and pause.
    pub(crate) fn timing(&self) -> Timing {
        Timing {
            lease: self.lease,
            poll: self.poll,
            back_off: self.back_off,
        }
    }

    /// Refuses what no worker could work with, by its name. Fields can be set to anything.
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        self.timing().check()?;
        if self.slots == 0 || self.slots > VIEW_SLOTS_MAX {
            let slots = self.slots;
            return Err(Invalid::new(format!(
                "`slots` is {slots}, and 1 to {VIEW_SLOTS_MAX} are possible"
            )));
        }
        let counts = [
            ("batch_events_max", self.batch_events_max),
            ("build_events_max", self.build_events_max),
            ("batch_bytes_max", self.batch_bytes_max),
            ("attempts", self.attempts as usize),
        ];
        match counts.into_iter().find(|(_, count)| *count == 0) {
            None => Ok(()),
            Some((setting, _)) => Err(Invalid::new(format!(
                "`{setting}` is 0, and at least 1 is needed"
            ))),
        }
    }

    /// The waits between attempts at an event that cannot be folded.
    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::new(self.retry_after, Options::RETRY_AFTER_MAX)
    }

    /// With so many slots (1 to 256).
    #[must_use]
    pub fn slots(mut self, slots: u16) -> Options {
        self.slots = slots.clamp(1, 256);
        self
    }

    /// With transactions of at most so many events, also while a generation is built.
    #[must_use]
    pub fn batch_events_max(mut self, events: usize) -> Options {
        self.batch_events_max = events.max(1);
        self.build_events_max = events.max(1);
        self
    }

    /// With so many rows kept at hand.
    #[must_use]
    pub fn rows_kept_max(mut self, rows: usize) -> Options {
        self.rows_kept_max = rows;
        self
    }

    /// Comparing so many rows before a switch.
    #[must_use]
    pub fn verified_keys(mut self, keys: usize) -> Options {
        self.verified_keys = keys;
        self
    }

    /// With leases of this length.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Options {
        self.lease = lease;
        self
    }

    /// Trying an event that cannot be folded so often (at least once), the second time after
    /// `wait`.
    #[must_use]
    pub fn attempts(mut self, attempts: u32, wait: Duration) -> Options {
        self.attempts = attempts.max(1);
        self.retry_after = wait;
        self
    }

    /// With at most so many dead letters in a slot.
    #[must_use]
    pub fn dead_letters_max(mut self, events: usize) -> Options {
        self.dead_letters_max = events;
        self
    }

    /// Keeping the past for so long.
    #[must_use]
    pub fn history_for(mut self, age: Duration) -> Options {
        self.history_for = Some(age);
        self
    }

    /// Skips events that were archived before they were read: what the others give is right for
    /// this projection, now and as of any moment.
    #[must_use]
    pub fn skip_archived(mut self) -> Options {
        self.skips_archived = true;
        self
    }

    /// Polling at least so often.
    #[must_use]
    pub fn poll(mut self, poll: Duration) -> Options {
        self.poll = poll;
        self
    }
}
