//! A fold over all accounts, for tests that need any query.

use annals_core::{Fold, Over, Query, Recorded};

use crate::bank::AccountEvent;

/// What all accounts hold together.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Total {
    pub(crate) cents: i64,
    pub(crate) events: usize,
}

impl Fold for Total {
    type Event = AccountEvent;

    fn apply(&mut self, event: &Recorded<AccountEvent>) {
        self.events += 1;
        match &**event {
            AccountEvent::Deposited { cents } => self.cents += cents,
            AccountEvent::Withdrawn { cents } => self.cents -= cents,
            AccountEvent::Closed | AccountEvent::BroughtForward(_) => {}
        }
    }
}

pub(crate) fn total() -> Over<Total> {
    Total::over(Query::all())
}
