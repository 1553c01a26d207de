//! The shortest view: one derive and one function.

use annals_core::Annals;
use annals_macros::View;
use annals_projections::{ReadModels, View, With};
use serde::{Deserialize, Serialize};

use super::bank::{AccountEvent, deposited, happens};
use super::test_store::store;

#[derive(Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(event = AccountEvent, crate = "annals_projections")]
struct AccountTotal {
    cents: i64,
}

impl AccountTotal {
    fn apply(&mut self, event: &AccountEvent) {
        if let AccountEvent::Deposited { cents } = event {
            self.cents += cents;
        }
    }
}

pub(crate) async fn a_view_needs_one_derive_and_one_function() {
    assert_eq!(AccountTotal::NAME, "account_total");
    let store = store().await;
    let db = Annals::on(store.handle())
        .with(AccountTotal::projection())
        .start()
        .await
        .unwrap();
    happens(&db, "alice", deposited(5)).await;
    let done = happens(&db, "alice", deposited(7)).await;
    let view = db.view::<AccountTotal>();
    let row = view.get("alice").at_least(&done).await.unwrap();
    assert_eq!(row, Some(AccountTotal { cents: 12 }));
    db.stop().await;
}
