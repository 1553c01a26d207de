//! What is stored stays readable.

use annals::testing::EventsLock;

use crate::account::{Account, AccountEvent, Slip};
use crate::money::Money;

/// When this fails, stored logs would no longer be read as they were written: give the event a new
/// version and an upcaster.
#[test]
fn stored_accounts_stay_readable() {
    let slip = Slip {
        trans_id: 637_742,
        kind: "PRIJEM".to_owned(),
        operation: "PREVOD Z UCTU".to_owned(),
        k_symbol: "DUCHOD".to_owned(),
        bank: "YZ".to_owned(),
        account: "62457513".to_owned(),
    };
    let amount = Money::crowns(5_123);
    EventsLock::at(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/examples/bank/events.lock"
    ))
    .events([
        AccountEvent::Opened {
            owner: "Alice".to_owned(),
        },
        AccountEvent::Deposited { amount, slip: None },
        AccountEvent::Deposited {
            amount,
            slip: Some(slip.clone()),
        },
        AccountEvent::Withdrawn {
            amount: Money::halers(7),
            slip: Some(slip),
        },
        AccountEvent::Sent {
            to: "bob".to_owned(),
            amount,
        },
        AccountEvent::Received {
            from: "bob".to_owned(),
            amount: Money::halers(7),
        },
        AccountEvent::Closed,
    ])
    .aggregate::<Account>("account")
    .check();
}
