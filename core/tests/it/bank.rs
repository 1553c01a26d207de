//! The bank that most of these tests are about.

use annals_core::{Aggregate, Event, Handle};
use annals_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "account", crate = "annals_core")]
pub(crate) enum AccountEvent {
    Deposited {
        cents: i64,
    },
    Withdrawn {
        cents: i64,
    },
    Closed,
    /// A summary: replaces whatever there was.
    BroughtForward(Account),
}

pub(crate) fn deposited(cents: i64) -> AccountEvent {
    AccountEvent::Deposited { cents }
}

pub(crate) fn withdrawn(cents: i64) -> AccountEvent {
    AccountEvent::Withdrawn { cents }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) cents: i64,
    pub(crate) moves: u64,
    pub(crate) closed: bool,
}

impl Aggregate for Account {
    type Event = AccountEvent;

    fn apply(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Deposited { cents } => self.cents += cents,
            AccountEvent::Withdrawn { cents } => self.cents -= cents,
            AccountEvent::Closed => self.closed = true,
            AccountEvent::BroughtForward(account) => *self = account.clone(),
        }
        self.moves += u64::from(!matches!(event, AccountEvent::BroughtForward(_)));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the account would be overdrawn")]
    Overdrawn,
    #[error("the account is closed")]
    Closed,
}

impl Account {
    pub(crate) fn deposit(&self, cents: i64) -> Result<AccountEvent, Refusal> {
        if self.closed {
            Err(Refusal::Closed)
        } else {
            Ok(deposited(cents))
        }
    }

    pub(crate) fn withdraw(&self, cents: i64) -> Result<AccountEvent, Refusal> {
        match self {
            Account { closed: true, .. } => Err(Refusal::Closed),
            Account { cents: there, .. } if *there < cents => Err(Refusal::Overdrawn),
            _ => Ok(withdrawn(cents)),
        }
    }
}

pub(crate) fn transfer(
    from: &Account,
    to: &Account,
    cents: i64,
) -> Result<(AccountEvent, AccountEvent), Refusal> {
    Ok((from.withdraw(cents)?, to.deposit(cents)?))
}

/// A command as a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Withdraw {
    pub(crate) cents: i64,
}

impl Handle<Withdraw> for Account {
    type Error = Refusal;

    fn handle(
        &self,
        command: &Withdraw,
    ) -> Result<impl annals_core::IntoEvents<AccountEvent>, Refusal> {
        self.withdraw(command.cents)
    }
}

#[test]
fn the_bank_is_stored_under_these_names() {
    let names: Vec<_> = AccountEvent::shapes()
        .iter()
        .map(|shape| shape.event_type)
        .collect();
    assert_eq!(
        names,
        [
            "account.deposited",
            "account.withdrawn",
            "account.closed",
            "account.brought_forward"
        ]
    );
}
