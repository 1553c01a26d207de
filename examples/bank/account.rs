//! An account: what happens to it, what it is, and what it decides.

use annals::prelude::*;

use crate::money::Money;

/// What happens to an account. Each variant is stored as an event type of its own:
/// `account.opened`, `account.deposited`, …
#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "account")]
pub(crate) enum AccountEvent {
    Opened {
        owner: String,
    },
    Deposited {
        amount: Money,
        /// What the bank noted, when the event is from its file.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        slip: Option<Slip>,
    },
    Withdrawn {
        amount: Money,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        slip: Option<Slip>,
    },
    /// One half of a transfer; the other half is recorded in the same append, or neither is.
    Sent {
        to: String,
        amount: Money,
    },
    Received {
        from: String,
        amount: Money,
    },
    Closed,
}

/// What a bank noted about a transaction beside its amount and date, to the letter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Slip {
    pub(crate) trans_id: u64,
    /// The bank's own word for the direction: PRIJEM, VYDAJ or VYBER.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) operation: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) k_symbol: String,
    /// The bank and the account on the other side.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) bank: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) account: String,
}

impl AccountEvent {
    /// By how much it changes the balance; nothing, when it is not about money.
    pub(crate) fn change(&self) -> Option<Money> {
        match self {
            AccountEvent::Deposited { amount, .. } | AccountEvent::Received { amount, .. } => {
                Some(*amount)
            }
            AccountEvent::Withdrawn { amount, .. } | AccountEvent::Sent { amount, .. } => {
                Some(-*amount)
            }
            AccountEvent::Opened { .. } | AccountEvent::Closed => None,
        }
    }

    /// What came in.
    pub(crate) fn credit(&self) -> Money {
        self.change().unwrap_or_default().max(Money::ZERO)
    }

    /// What went out, as a positive amount.
    pub(crate) fn debit(&self) -> Money {
        (-self.change().unwrap_or_default()).max(Money::ZERO)
    }
}

/// The state that decisions need, and no more.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) standing: Standing,
    pub(crate) balance: Money,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Standing {
    #[default]
    Unopened,
    Open,
    Closed,
}

impl Aggregate for Account {
    type Event = AccountEvent;

    fn apply(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Opened { .. } => self.standing = Standing::Open,
            AccountEvent::Closed => self.standing = Standing::Closed,
            AccountEvent::Deposited { amount, .. } | AccountEvent::Received { amount, .. } => {
                self.balance += *amount
            }
            AccountEvent::Withdrawn { amount, .. } | AccountEvent::Sent { amount, .. } => {
                self.balance += -*amount
            }
        }
    }
}

/// Why an account says no.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum AccountError {
    #[error("the account was never opened")]
    Unopened,
    #[error("the account is open already")]
    AlreadyOpen,
    #[error("the account is closed")]
    Closed,
    #[error("{0} is not more than nothing")]
    NotPositive(Money),
    #[error("{0} is more than any transaction moves")]
    TooMuch(Money),
    #[error("{amount} would overdraw the account, which holds {balance}")]
    Overdraft { balance: Money, amount: Money },
    #[error("the account still holds {0}")]
    NotEmpty(Money),
}

/// A command is a plain method: it looks at the state and returns what happens, or a refusal. No
/// clock and no store in here.
impl Account {
    pub(crate) fn open(&self, owner: &str) -> Result<AccountEvent, AccountError> {
        match self.standing {
            Standing::Unopened => Ok(AccountEvent::Opened {
                owner: owner.to_owned(),
            }),
            Standing::Open => Err(AccountError::AlreadyOpen),
            Standing::Closed => Err(AccountError::Closed),
        }
    }

    pub(crate) fn deposit(&self, amount: Money) -> Result<AccountEvent, AccountError> {
        self.must_take_in(amount)?;
        Ok(AccountEvent::Deposited { amount, slip: None })
    }

    pub(crate) fn withdraw(&self, amount: Money) -> Result<AccountEvent, AccountError> {
        self.must_give_out(amount)?;
        Ok(AccountEvent::Withdrawn { amount, slip: None })
    }

    pub(crate) fn close(&self) -> Result<AccountEvent, AccountError> {
        self.must_be_open()?;
        match self.balance {
            Money::ZERO => Ok(AccountEvent::Closed),
            left => Err(AccountError::NotEmpty(left)),
        }
    }

    /// Records what another bank says has happened. It is a fact already: whether the account was
    /// open or had enough is not asked.
    pub(crate) fn record(
        &self,
        direction: Direction,
        amount: Money,
        slip: Slip,
    ) -> Result<AccountEvent, AccountError> {
        if amount < Money::ZERO {
            return Err(AccountError::NotPositive(amount));
        }
        self.must_be_countable(amount)?;
        let slip = Some(slip);
        Ok(match direction {
            Direction::In => AccountEvent::Deposited { amount, slip },
            Direction::Out => AccountEvent::Withdrawn { amount, slip },
        })
    }

    fn must_be_open(&self) -> Result<(), AccountError> {
        match self.standing {
            Standing::Unopened => Err(AccountError::Unopened),
            Standing::Open => Ok(()),
            Standing::Closed => Err(AccountError::Closed),
        }
    }

    fn must_take_in(&self, amount: Money) -> Result<(), AccountError> {
        self.must_be_open()?;
        if amount <= Money::ZERO {
            return Err(AccountError::NotPositive(amount));
        }
        self.must_be_countable(amount)
    }

    fn must_give_out(&self, amount: Money) -> Result<(), AccountError> {
        self.must_take_in(amount)?;
        if amount > self.balance {
            return Err(AccountError::Overdraft {
                balance: self.balance,
                amount,
            });
        }
        Ok(())
    }

    fn must_be_countable(&self, amount: Money) -> Result<(), AccountError> {
        if amount <= Money::TRANSACTION_MAX {
            Ok(())
        } else {
            Err(AccountError::TooMuch(amount))
        }
    }
}

/// Which way money moves, seen from the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    In,
    Out,
}

/// Why a transfer is refused, and by which side.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum TransferError {
    #[error("sender: {0}")]
    Sender(AccountError),
    #[error("recipient: {0}")]
    Recipient(AccountError),
}

/// An account and the name by which the other side knows it.
pub(crate) type Side<'a> = (&'a str, &'a Account);

/// Moves money from one account to another: one decision over both, which returns what happens to
/// each.
pub(crate) fn transfer(
    (sender, from): Side<'_>,
    (recipient, to): Side<'_>,
    amount: Money,
) -> Result<(AccountEvent, AccountEvent), TransferError> {
    from.must_give_out(amount).map_err(TransferError::Sender)?;
    to.must_take_in(amount).map_err(TransferError::Recipient)?;
    let sender = sender.to_owned();
    let recipient = recipient.to_owned();
    Ok((
        AccountEvent::Sent {
            to: recipient,
            amount,
        },
        AccountEvent::Received {
            from: sender,
            amount,
        },
    ))
}
