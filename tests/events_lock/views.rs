//! Rows of views are pinned as the states of folds are.

use std::path::PathBuf;

use annals::prelude::*;
use annals::projections::rows_of_samples;
use annals::testing::EventsLock;

use crate::life::Life;
use crate::life::first::{self, AccountEvent};

/// A view of the program, whose fold is its own in each build.
macro_rules! balance {
    ($name:ident, $factor:literal, $($view:tt)*) => {
        mod $name {
            use super::*;

            #[derive(Debug, Default, Serialize, Deserialize, View)]
            #[view(name = "balances", events(AccountEvent), $($view)*)]
            struct Balance {
                cents: i64,
            }

            impl Project<AccountEvent> for Balance {
                fn on(
                    row: &mut Row<'_, Self>,
                    event: &Recorded<AccountEvent>,
                ) -> Result<(), Poison> {
                    if let AccountEvent::Deposited { cents, .. } = &**event {
                        row.cents = row.cents.wrapping_add(cents.wrapping_mul($factor));
                    }
                    Ok(())
                }
            }

            pub(super) fn program(file: PathBuf) -> EventsLock {
                let rows = rows_of_samples::<Balance, AccountEvent>;
                let lock = EventsLock::at(file).events(first::samples());
                lock.fold(Balance::NAME, Balance::VERSION, rows)
            }
        }
    };
}

balance!(before, 1, version = 1);
balance!(changed, 2, version = 1);
balance!(raised, 2, version = 2);

#[test]
fn a_changed_view_needs_a_new_version() {
    let life = Life::begin(before::program);
    let text = life.text();
    assert!(
        text.contains(r#""sample": "{\"cents\":9223372036854775807}""#),
        "{text}"
    );
    let why = life.refuses(changed::program);
    assert!(
        why.contains("The fold `balances` v1 gives another state"),
        "{why}"
    );
    life.released(raised::program);
}
