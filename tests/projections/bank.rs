//! A bank and its read models, shared by the tests.

use annals_core::{Aggregate, Annals, Committed, Recorded};
use annals_macros::{Event, View};
use annals_projections::{Options, Poison, Program, Project, Row, View, With};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};

use super::test_store::TestStore;

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "account", crate = "annals_core")]
pub(crate) enum AccountEvent {
    Deposited { cents: i64 },
    Withdrawn { cents: i64 },
    Noted { text: String },
    Closed,
}

#[derive(Default)]
pub(crate) struct Account;

impl Aggregate for Account {
    type Event = AccountEvent;

    fn apply(&mut self, _: &AccountEvent) {}
}

thread_local! {
    static MENDED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// From now on a note `poison` can be folded. Only of use where the workers run in the thread of
/// the test.
pub(crate) fn mend() {
    MENDED.set(true);
}

/// From now on a note `poison` cannot be folded, as before [`mend`].
pub(crate) fn unmend() {
    MENDED.set(false);
}

pub(crate) fn mended() -> bool {
    MENDED.get()
}

/// The balance of each account, and what is folded into it. A note `poison` cannot be folded;
/// `panic` panics.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(
    name = "balances",
    version = 1,
    events(AccountEvent),
    history,
    crate = "annals_projections"
)]
pub(crate) struct Balance {
    #[view(index)]
    pub(crate) cents: i64,
    pub(crate) events: u64,
}

impl Project<AccountEvent> for Balance {
    fn on(balance: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
        balance.events += 1;
        match &event.event {
            AccountEvent::Deposited { cents } => balance.cents += cents,
            AccountEvent::Withdrawn { cents } => balance.cents -= cents,
            AccountEvent::Noted { text } if text == "poison" && !mended() => {
                return Err(Poison::new("a poisoned note"));
            }
            AccountEvent::Noted { text } if text == "panic" => panic!("a note that panics"),
            AccountEvent::Noted { .. } => {}
            AccountEvent::Closed => balance.remove(),
        }
        Ok(())
    }
}

pub(crate) fn options() -> Options {
    Options::default().lease(std::time::Duration::from_secs(3600))
}

/// A program over the store. It waits until its views are there.
pub(crate) async fn program(store: &TestStore) -> Program {
    program_with(store, options()).await
}

pub(crate) async fn program_with(store: &TestStore, options: Options) -> Program {
    let db = Annals::on(store.handle());
    db.with(Balance::projection().options(options))
        .start()
        .await
        .unwrap()
}

pub(crate) async fn happens(db: &Annals, account: &str, event: AccountEvent) -> Committed {
    db.aggregate::<Account>(account)
        .run(|_| Ok::<_, String>(event.clone()))
        .await
        .unwrap()
}

pub(crate) fn deposited(cents: i64) -> AccountEvent {
    AccountEvent::Deposited { cents }
}

pub(crate) fn noted(text: &str) -> AccountEvent {
    AccountEvent::Noted { text: text.into() }
}

/// What a replay of the history of some accounts gives: a row whose event makes no sense stays as
/// it was.
pub(crate) fn replayed<'a>(
    history: impl Iterator<Item = (u8, &'a AccountEvent)>,
) -> BTreeMap<String, Balance> {
    let mut rows = BTreeMap::<String, Balance>::new();
    let mut ended = HashSet::new();
    for (account, event) in history {
        let key = account.to_string();
        match event {
            _ if ended.contains(&key) => {}
            AccountEvent::Closed => _ = rows.remove(&key),
            AccountEvent::Noted { text } if text == "poison" => _ = ended.insert(key),
            event => {
                let row = rows.entry(key).or_default();
                row.events += 1;
                match event {
                    AccountEvent::Deposited { cents } => row.cents += cents,
                    AccountEvent::Withdrawn { cents } => row.cents -= cents,
                    _ => {}
                }
            }
        }
    }
    rows
}
