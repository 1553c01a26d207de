//! Which events of a partition are settled and which are not: the checkpoint is just before the
//! first that is not.

use std::collections::{BTreeMap, BTreeSet};

use annals_core::Position;

/// The stretch of a partition between what is settled for good and what was read.
#[derive(Debug)]
pub(super) struct Window {
    scanned: Position,
    // Events that were read, and how many of their calls are not settled.
    open: BTreeMap<Position, usize>,
    // Settled before this worker began, and not read yet.
    ahead: BTreeSet<Position>,
}

impl Window {
    /// From a checkpoint on, after which these are settled already.
    pub(super) fn begin(
        checkpoint: Position,
        settled: impl IntoIterator<Item = Position>,
    ) -> Window {
        let ahead = settled
            .into_iter()
            .filter(|position| *position > checkpoint)
            .collect();
        Window {
            scanned: checkpoint,
            open: BTreeMap::new(),
            ahead,
        }
    }

    /// Takes in an event that was read, with so many calls. `false`: it was settled before.
    pub(super) fn take(&mut self, position: Position, calls: usize) -> bool {
        let settled = self.ahead.remove(&position);
        self.open.insert(position, if settled { 0 } else { calls });
        !settled
    }

    /// One of its calls is settled.
    pub(super) fn settle(&mut self, position: Position) {
        if let Some(unsettled) = self.open.get_mut(&position) {
            *unsettled = unsettled.saturating_sub(1);
        }
    }

    /// One of its calls was settled too early, and is made yet.
    pub(super) fn unsettle(&mut self, position: Position) {
        if let Some(unsettled) = self.open.get_mut(&position) {
            *unsettled += 1;
        }
    }

    /// Everything up to here was read.
    pub(super) fn scanned_to(&mut self, position: Position) {
        self.scanned = position;
    }

    pub(super) fn scanned(&self) -> Position {
        self.scanned
    }

    /// Events that are held; what bounds the memory.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Up to where everything is settled. What is at or before it is forgotten.
    pub(super) fn low(&mut self) -> Position {
        let unsettled = self
            .open
            .iter()
            .find(|(_, unsettled)| **unsettled > 0)
            .map(|(position, _)| *position);
        let low = unsettled.map_or(self.scanned, |position| position.minus(1));
        self.open = self.open.split_off(&low.next());
        low
    }

    /// What is settled after [`low`](Window::low).
    pub(super) fn settled_above(&self) -> impl Iterator<Item = Position> + '_ {
        let read = self
            .open
            .iter()
            .filter(|(_, unsettled)| **unsettled == 0)
            .map(|(position, _)| *position);
        read.chain(self.ahead.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_checkpoint_is_before_the_first_unsettled_event() {
        let at = Position::new;
        let mut window = Window::begin(at(10), [at(12)]);
        assert_eq!(
            [11, 12, 15].map(|position| window.take(at(position), 1)),
            [true, false, true]
        );
        window.scanned_to(at(20));
        assert_eq!(window.low(), at(10));
        window.settle(at(15));
        assert_eq!(
            (window.low(), window.settled_above().collect::<Vec<_>>()),
            (at(10), vec![at(12), at(15)])
        );
        window.settle(at(11));
        assert_eq!(
            (window.low(), window.settled_above().count(), window.len()),
            (at(20), 0, 0)
        );
    }

    proptest! {
        #[test]
        fn no_event_is_missed_or_repeated_whatever_ends_when(
            order in Just((1..60_u64).collect::<Vec<_>>()).prop_shuffle(),
            restart_every in 1..20_usize,
            read in 1..30_u64,
        ) {
            let mut window = Window::begin(Position::START, []);
            let mut done = BTreeSet::new();
            for (count, number) in order.into_iter().enumerate() {
                while window.scanned().get() < number {
                    let up_to = (window.scanned().get() + read).min(60);
                    for position in window.scanned().get() + 1..=up_to {
                        prop_assert_eq!(
                            window.take(Position::new(position), 1),
                            !done.contains(&position)
                        );
                    }
                    window.scanned_to(Position::new(up_to));
                }
                window.settle(Position::new(number));
                done.insert(number);
                if count % restart_every == 0 {
                    let low = window.low();
                    let settled: Vec<_> = window.settled_above().collect();
                    prop_assert!(
                        (1..=low.get()).all(|position| done.contains(&position) || position == 60)
                    );
                    window = Window::begin(low, settled);
                }
            }
        }
    }
}
