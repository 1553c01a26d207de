//! What an intake does with too much, and what it counts.

use std::fmt;

/// What becomes of events that come faster than they are appended.
///
/// ```
/// use annals_projections::pipeline::Overload;
///
/// let readings = Overload::DropOldest;
/// assert_ne!(readings, Overload::Block);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overload {
    /// Who offers one waits until there is room. Nothing is lost.
    #[default]
    Block,
    /// The oldest that waits makes room.
    DropOldest,
    /// Of so many only the first is taken, whether there is room or not; who offers that one waits
    /// for room.
    Sample {
        /// Of how many; at least 1.
        one_of: u64,
    },
    /// Those beyond so many in a second are dropped; who offers one of the others waits for room.
    AtMost {
        /// How many in a second of the program's clock.
        per_second: u64,
    },
}

/// What became of an event that was offered.
///
/// ```
/// use annals_projections::pipeline::Offered;
///
/// assert_ne!(Offered::Taken, Offered::Dropped);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum Offered {
    /// It waits to be appended.
    Taken,
    /// It was dropped, as the intake was told to do when too many come.
    Dropped,
}

/// What came to an intake so far. Each event that was offered is counted once: it was appended,
/// dropped or refused, or waits.
///
/// ```
/// # use annals_projections::pipeline::Intake;
/// # fn example(intake: Intake) {
/// let now = intake.status();
/// assert_eq!(now.offered, now.appended + now.dropped + now.refused + now.waiting);
/// println!("{now}");
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IntakeStatus {
    /// Events that were offered, without those whose offering waits for room.
    pub offered: u64,
    /// Events that are in the log.
    pub appended: u64,
    /// Events that were dropped because too many came.
    pub dropped: u64,
    /// Events that the store will never take.
    pub refused: u64,
    /// Events that wait to be appended, or are on their way.
    pub waiting: u64,
    /// The most that have waited at once.
    pub most_waiting: u64,
    /// Offerings that wait for room now.
    pub blocked: u64,
    /// Why the store does not take events now, or why it refused the last one.
    pub error: Option<String>,
}

impl fmt::Display for IntakeStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let IntakeStatus {
            offered,
            appended,
            dropped,
            waiting,
            ..
        } = self;
        write!(
            f,
            "{offered} offered, {appended} appended, {dropped} dropped, {waiting} waiting"
        )?;
        if self.refused > 0 {
            write!(f, ", {} refused", self.refused)?;
        }
        match (self.blocked, &self.error) {
            (0, None) => Ok(()),
            (0, Some(error)) => write!(f, "; the store: {error}"),
            (blocked, None) => write!(f, "; the store holds up {blocked} who offer more"),
            (blocked, Some(error)) => {
                write!(f, "; the store holds up {blocked} who offer more: {error}")
            }
        }
    }
}
