//! The account that the stories are about.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use annals_core::{Aggregate, Handle, IntoEvents};
use annals_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "account", crate = "annals_core")]
#[event(retired("account.clicked", version = 1, upcast = forget))]
pub(crate) enum AccountEvent {
    #[event(version = 2, upcast(1 = with_owner))]
    Opened {
        owner: String,
    },
    Deposited {
        cents: i64,
    },
    Withdrawn {
        cents: i64,
    },
    Noted {
        text: String,
        #[serde(skip)]
        draft: bool,
    },
    Limited(f64),
    Closed,
}

#[derive(Deserialize)]
pub(crate) struct OpenedV1 {
    name: String,
}

pub(crate) fn with_owner(OpenedV1 { name }: OpenedV1) -> AccountEvent {
    opened(&name)
}

pub(crate) fn forget(_: serde::de::IgnoredAny) -> Option<AccountEvent> {
    None
}

pub(crate) fn opened(owner: &str) -> AccountEvent {
    AccountEvent::Opened {
        owner: owner.into(),
    }
}

pub(crate) fn deposited(cents: i64) -> AccountEvent {
    AccountEvent::Deposited { cents }
}

pub(crate) fn withdrawn(cents: i64) -> AccountEvent {
    AccountEvent::Withdrawn { cents }
}

pub(crate) fn noted(text: &str, draft: bool) -> AccountEvent {
    AccountEvent::Noted {
        text: text.into(),
        draft,
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Account {
    pub(crate) open: bool,
    pub(crate) cents: i64,
}

impl Aggregate for Account {
    type Event = AccountEvent;

    fn apply(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Opened { .. } => self.open = true,
            AccountEvent::Deposited { cents } => self.cents += cents,
            AccountEvent::Withdrawn { cents } => self.cents -= cents,
            AccountEvent::Noted { .. } | AccountEvent::Limited(_) => {}
            AccountEvent::Closed => self.open = false,
        }
    }
}

#[derive(Debug, PartialEq)]
pub(crate) enum AccountError {
    NotOpen,
    Overdrawn { missing: i64 },
}

impl fmt::Display for AccountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AccountError::NotOpen => f.write_str("the account is not open"),
            AccountError::Overdrawn { missing } => write!(f, "{missing} cents are missing"),
        }
    }
}

impl Account {
    pub(crate) fn deposit(&self, cents: i64) -> Result<AccountEvent, AccountError> {
        if self.open {
            Ok(deposited(cents))
        } else {
            Err(AccountError::NotOpen)
        }
    }

    pub(crate) fn withdraw(&self, cents: i64) -> Result<AccountEvent, AccountError> {
        match cents - self.cents {
            _ if !self.open => Err(AccountError::NotOpen),
            missing if missing > 0 => Err(AccountError::Overdrawn { missing }),
            _ => Ok(withdrawn(cents)),
        }
    }

    pub(crate) fn close(&self) -> Result<Vec<AccountEvent>, AccountError> {
        let rest = (self.cents > 0).then(|| withdrawn(self.cents));
        Ok(rest
            .into_iter()
            .chain(self.open.then_some(AccountEvent::Closed))
            .collect())
    }
}

#[derive(Debug)]
pub(crate) struct Deposit {
    pub(crate) cents: i64,
}

impl Handle<Deposit> for Account {
    type Error = AccountError;

    fn handle(&self, command: &Deposit) -> Result<impl IntoEvents<AccountEvent>, AccountError> {
        self.deposit(command.cents)
    }
}

/// What `f` panics with.
#[track_caller]
pub(crate) fn panic_of<T>(f: impl FnOnce() -> T) -> String {
    let panic = catch_unwind(AssertUnwindSafe(f))
        .err()
        .expect("it should have panicked");
    *panic.downcast::<String>().unwrap()
}
