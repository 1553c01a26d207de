//! Watermarks: how far event time has certainly come, told from the records alone.

use crate::{Span, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What tells a watermark from the records of one partition.
///
/// A strategy is a function of what it has observed: no wall clock, no random number. What it
/// knows can be saved with `serde`, so that a restart changes nothing.
///
/// ```
/// use annals_streams::{OutOfOrder, Span, Strategy, Time};
///
/// let mut clock = OutOfOrder::by(Span::from_micros(10));
/// clock.observe(Time::from_micros(100), Time::from_micros(100));
/// assert_eq!(clock.watermark(), Time::from_micros(89));
/// ```
pub trait Strategy {
    /// Takes note of a record that happened at `time` and was recorded at `recorded_at`.
    fn observe(&mut self, time: Time, recorded_at: Time) -> Observed;

    /// Lifts the watermark to at least `to`: the log said that time has come this far.
    fn advance_to(&mut self, to: Time);

    /// No record with a time at or before this is expected; [`Time::MIN`] before the first one.
    /// Never falls.
    fn watermark(&self) -> Time;
}

/// Whether a record moved time, or claims to come from the future.
///
/// ```
/// use annals_streams::{Observed, OutOfOrder, Span, Strategy, Time};
///
/// let mut clock = OutOfOrder::by(Span::ZERO).at_most_ahead(Span::from_micros(5));
/// let future = clock.observe(Time::from_micros(2099), Time::from_micros(10));
/// assert_eq!(future, Observed::Ahead);
/// assert_eq!(clock.watermark(), Time::MIN);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observed {
    /// Its time counts.
    Counted,
    /// Its time is further after its recording than allowed: it moved nothing, refuse it.
    Ahead,
}

/// Bounded out-of-orderness: the largest time seen, less a delay and one tick.
///
/// ```
/// use annals_streams::{OutOfOrder, Span, Strategy, Time};
///
/// let mut clock = OutOfOrder::by(Span::from_micros(3));
/// clock.observe(Time::from_micros(20), Time::MAX);
/// clock.observe(Time::from_micros(18), Time::MAX);
/// assert_eq!(clock.watermark(), Time::from_micros(16));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutOfOrder {
    delay: Span,
    at_most_ahead: Option<Span>,
    max: Option<Time>,
    floor: Time,
}

impl OutOfOrder {
    /// Records may come up to `delay` after later ones and are still on time.
    ///
    /// ```
    /// # use annals_streams::{OutOfOrder, Span, Strategy, Time};
    /// assert_eq!(OutOfOrder::by(Span::ZERO).watermark(), Time::MIN);
    /// ```
    pub fn by(delay: Span) -> Self {
        Self {
            delay,
            at_most_ahead: None,
            max: None,
            floor: Time::MIN,
        }
    }

    /// Refuses records whose time is more than `ahead` after they were recorded, so that one
    /// wrong clock does not close all windows.
    ///
    /// ```
    /// # use annals_streams::{Observed, OutOfOrder, Span, Strategy, Time};
    /// let mut clock = OutOfOrder::by(Span::ZERO).at_most_ahead(Span::from_micros(1));
    /// let on_time = clock.observe(Time::from_micros(8), Time::from_micros(7));
    /// assert_eq!(on_time, Observed::Counted);
    /// ```
    #[must_use]
    pub fn at_most_ahead(mut self, ahead: Span) -> Self {
        self.at_most_ahead = Some(ahead);
        self
    }
}

impl Strategy for OutOfOrder {
    fn observe(&mut self, time: Time, recorded_at: Time) -> Observed {
        if self
            .at_most_ahead
            .is_some_and(|ahead| time > recorded_at + ahead)
        {
            return Observed::Ahead;
        }
        self.max = self.max.max(Some(time));
        Observed::Counted
    }

    fn advance_to(&mut self, to: Time) {
        self.floor = self.floor.max(to);
    }

    fn watermark(&self) -> Time {
        let told = self.max.map(|max| max - self.delay - Span::from_micros(1));
        told.map_or(self.floor, |told| told.max(self.floor))
    }
}

/// The watermark of several inputs: the least of those that are active.
///
/// An input that has not reported holds it at [`Time::MIN`]. An idle or removed input holds
/// nothing. When all are idle it goes to the largest that was reported, whichever became idle
/// first. It never falls, so an input that comes back may find its records late.
///
/// ```
/// use annals_streams::{MinOfInputs, Time};
///
/// let mut inputs = MinOfInputs::new();
/// inputs.add(0);
/// inputs.add(1);
/// inputs.advance(0, Time::from_micros(9));
/// assert_eq!(inputs.watermark(), Time::MIN);
/// inputs.advance(1, Time::from_micros(4));
/// assert_eq!(inputs.watermark(), Time::from_micros(4));
/// inputs.idle(1);
/// assert_eq!(inputs.watermark(), Time::from_micros(9));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MinOfInputs<I: Ord> {
    inputs: BTreeMap<I, Progress>,
    watermark: Time,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Progress {
    watermark: Time,
    idle: bool,
}

impl<I: Ord> Default for MinOfInputs<I> {
    fn default() -> Self {
        Self {
            inputs: BTreeMap::new(),
            watermark: Time::MIN,
        }
    }
}

impl<I: Ord> MinOfInputs<I> {
    /// No inputs yet.
    ///
    /// ```
    /// # use annals_streams::{MinOfInputs, Time};
    /// assert_eq!(MinOfInputs::<u32>::new().watermark(), Time::MIN);
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// An input that has not reported yet. One that is known starts again.
    ///
    /// ```
    /// # use annals_streams::MinOfInputs;
    /// MinOfInputs::new().add("payments");
    /// ```
    pub fn add(&mut self, input: I) {
        self.inputs.insert(
            input,
            Progress {
                watermark: Time::MIN,
                idle: false,
            },
        );
    }

    /// The input came this far and is active. An unknown input is added.
    ///
    /// ```
    /// # use annals_streams::{MinOfInputs, Time};
    /// let mut inputs = MinOfInputs::new();
    /// inputs.advance("payments", Time::from_micros(3));
    /// assert_eq!(inputs.watermark(), Time::from_micros(3));
    /// ```
    pub fn advance(&mut self, input: I, watermark: Time) {
        let fresh = Progress {
            watermark: Time::MIN,
            idle: false,
        };
        let progress = self.inputs.entry(input).or_insert(fresh);
        progress.watermark = progress.watermark.max(watermark);
        progress.idle = false;
        self.merge();
    }

    /// Nothing is expected from the input for now: it holds back no clock until it reports again.
    ///
    /// ```
    /// # use annals_streams::MinOfInputs;
    /// let mut inputs = MinOfInputs::new();
    /// inputs.add(7);
    /// inputs.idle(7);
    /// assert!(inputs.is_idle());
    /// ```
    pub fn idle(&mut self, input: I) {
        let fresh = Progress {
            watermark: Time::MIN,
            idle: true,
        };
        self.inputs.entry(input).or_insert(fresh).idle = true;
        self.merge();
    }

    /// The input is gone, for example because its partition was revoked.
    ///
    /// ```
    /// # use annals_streams::MinOfInputs;
    /// let mut inputs = MinOfInputs::new();
    /// inputs.add(7);
    /// inputs.remove(&7);
    /// assert!(!inputs.is_idle());
    /// ```
    pub fn remove(&mut self, input: &I) {
        self.inputs.remove(input);
        self.merge_active();
    }

    /// The least over the active inputs, or what it was before if that was more.
    ///
    /// ```
    /// # use annals_streams::{MinOfInputs, Time};
    /// assert_eq!(MinOfInputs::<u32>::new().watermark(), Time::MIN);
    /// ```
    pub fn watermark(&self) -> Time {
        self.watermark
    }

    /// Whether there are inputs and none is active.
    ///
    /// ```
    /// # use annals_streams::MinOfInputs;
    /// assert!(!MinOfInputs::<u32>::new().is_idle());
    /// ```
    pub fn is_idle(&self) -> bool {
        !self.inputs.is_empty() && self.inputs.values().all(|input| input.idle)
    }

    /// The input that holds the watermark, for those who ask why nothing closes.
    ///
    /// ```
    /// # use annals_streams::{MinOfInputs, Time};
    /// let mut inputs = MinOfInputs::new();
    /// inputs.advance("fast", Time::from_micros(9));
    /// inputs.add("slow");
    /// assert_eq!(inputs.held_by(), Some(&"slow"));
    /// ```
    pub fn held_by(&self) -> Option<&I> {
        let active = self.inputs.iter().filter(|(_, input)| !input.idle);
        active
            .min_by_key(|(_, input)| input.watermark)
            .map(|(name, _)| name)
    }

    fn merge(&mut self) {
        if self.is_idle() {
            let largest = self.inputs.values().map(|input| input.watermark).max();
            self.lift(largest);
        } else {
            self.merge_active();
        }
    }

    fn merge_active(&mut self) {
        let active = self.inputs.values().filter(|input| !input.idle);
        let least = active.map(|input| input.watermark).min();
        self.lift(least);
    }

    fn lift(&mut self, to: Option<Time>) {
        if let Some(to) = to {
            self.watermark = self.watermark.max(to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_times_above_the_bound_are_too_far_ahead() {
        let mut clock = OutOfOrder::by(Span::ZERO).at_most_ahead(Span::from_micros(5));
        let recorded_at = Time::from_micros(10);
        let observed = [15, 16].map(|time| clock.observe(Time::from_micros(time), recorded_at));
        assert_eq!(observed, [Observed::Counted, Observed::Ahead]);
        assert_eq!(clock.watermark(), Time::from_micros(14));
    }
}
