//! The domain of the workloads: small events of bank accounts.

use annals::chrono::DateTime;
use annals::store::NewEvent;
use annals::{StreamId, prelude::*};

use crate::Outcome;
use crate::seed::Seed;

/// What happens to an account.
#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "account")]
#[allow(clippy::exhaustive_enums, missing_docs)]
pub enum AccountEvent {
    Opened { owner: String },
    Deposited { cents: i64 },
    Withdrawn { cents: i64 },
    Closed,
}

/// An account without snapshots.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(clippy::exhaustive_structs)]
pub struct Account {
    /// Whether it is open.
    pub open: bool,
    /// What is on it.
    pub cents: i64,
}

impl Aggregate for Account {
    type Event = AccountEvent;

    fn apply(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Opened { .. } => self.open = true,
            AccountEvent::Deposited { cents } => self.cents += cents,
            AccountEvent::Withdrawn { cents } => self.cents -= cents,
            AccountEvent::Closed => self.open = false,
        }
    }
}

impl Account {
    /// The command of the workloads.
    ///
    /// # Errors
    ///
    /// When nothing is paid in.
    pub fn deposit(&self, cents: i64) -> Result<AccountEvent, &'static str> {
        if cents > 0 {
            Ok(AccountEvent::Deposited { cents })
        } else {
            Err("nothing is paid in")
        }
    }
}

/// An account of which every command keeps a snapshot.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[allow(clippy::exhaustive_structs)]
pub struct KeptAccount(pub Account);

impl Aggregate for KeptAccount {
    type Event = AccountEvent;

    fn apply(&mut self, event: &AccountEvent) {
        self.0.apply(event);
    }

    fn snapshots() -> Option<annals::Snapshots<KeptAccount>> {
        Some(annals::Snapshots::every(1))
    }
}

/// The stream of the `number`-th account.
///
/// # Errors
///
/// Never: the name is legal.
pub fn stream(number: usize) -> Outcome<StreamId> {
    Ok(StreamId::of(AccountEvent::CATEGORY, number)?)
}

/// The `index`-th event of an account, from 0.
pub fn event(seed: &mut Seed, index: usize) -> AccountEvent {
    let cents = seed.below(100_000) as i64 + 1;
    match (index, seed.below(3)) {
        (0, _) => AccountEvent::Opened {
            owner: format!("owner {cents}"),
        },
        (_, 0) => AccountEvent::Withdrawn { cents },
        _ => AccountEvent::Deposited { cents },
    }
}

/// `count` events of one account, from its `first` (counted from 0) on, as they are appended: all
/// happened at one moment, as the events of one command do.
///
/// # Errors
///
/// Never: they can all be written.
pub fn events(seed: &mut Seed, first: usize, count: usize) -> Outcome<Vec<NewEvent>> {
    let moment =
        DateTime::from_timestamp_micros(1_700_000_000_000_000 + seed.below(1 << 44) as i64)
            .ok_or("no moment")?;
    (first..first + count)
        .map(|index| Ok(NewEvent::of(&event(seed, index))?.at(moment)))
        .collect()
}
