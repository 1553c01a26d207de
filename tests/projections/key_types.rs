//! Keys, indexes and event types that look alike are kept apart.

use annals_core::Recorded;
use annals_macros::View;
use annals_projections::{Handlers, Poison, Project, ReadModels, Row, View};
use serde::{Deserialize, Serialize};

use super::bank::{AccountEvent, deposited, happens, noted};
use super::key_faults::start;
use super::test_store::store;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "totals", events(AccountEvent), crate = "annals_projections")]
struct Totals {
    #[view(index)]
    total: i64,
    #[view(index)]
    noted: Option<i64>,
}

impl Project<AccountEvent> for Totals {
    fn on(row: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
        match &**event {
            AccountEvent::Deposited { cents } => row.total += cents,
            AccountEvent::Noted { .. } => row.noted = Some(row.total),
            _ => {}
        }
        Ok(())
    }
}

pub(crate) async fn an_index_range_has_its_type_and_skips_absent() {
    let store = store().await;
    let db = start::<Totals>(&store).await;
    happens(&db, "alice", deposited(40)).await;
    happens(&db, "bob", deposited(70)).await;
    let done = happens(&db, "alice", noted("seen")).await;
    let view = db.view::<Totals>();
    let rows = view.rows().by_index("total", 50_i64..).at_least(&done);
    assert_eq!(rows.await.unwrap().rows[0].key, "bob");
    let other = view.rows().by_index("total", 50_i32..).await.unwrap_err();
    assert!(
        other.to_string().starts_with("index `total` is of `i64`")
            && other
                .to_string()
                .ends_with("write the values of the range as `i64`"),
        "{other}"
    );
    let noted = view.rows().by_index("noted", ..=50_i64).await.unwrap().rows;
    let keys: Vec<_> = noted.iter().map(|row| &*row.key).collect();
    assert_eq!(keys, ["alice"]);
    db.stop().await;
}

/// What is stored as `account.deposited` is read by two types of one view.
#[derive(annals_macros::Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "account", crate = "annals_core")]
enum Deposits {
    Deposited { cents: i64 },
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Both {
    by_account: i64,
    by_deposits: i64,
}

impl View for Both {
    const NAME: &'static str = "both";
    type Key = String;

    fn handlers() -> Handlers<Self> {
        Handlers::new()
            .on::<AccountEvent>()
            .on::<Deposits>()
            .on::<Deposits>()
    }
}

impl Project<AccountEvent> for Both {
    fn on(row: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
        if let AccountEvent::Deposited { cents } = &**event {
            row.by_account += cents;
        }
        Ok(())
    }
}

impl Project<Deposits> for Both {
    fn on(row: &mut Row<'_, Self>, event: &Recorded<Deposits>) -> Result<(), Poison> {
        let Deposits::Deposited { cents } = &**event;
        row.by_deposits += cents;
        Ok(())
    }
}

pub(crate) async fn two_types_that_read_one_stored_name_both_fold() {
    let store = store().await;
    let db = start::<Both>(&store).await;
    let done = happens(&db, "alice", deposited(7)).await;
    let row = db
        .view::<Both>()
        .get("alice")
        .at_least(&done)
        .await
        .unwrap();
    let both = Both {
        by_account: 7,
        by_deposits: 7,
    };
    assert_eq!(row, Some(both));
    db.stop().await;
}

/// Rows by the number of an account.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct ByNumber {
    events: u8,
}

impl View for ByNumber {
    const NAME: &'static str = "by-number";
    type Key = u64;

    fn handlers() -> Handlers<Self> {
        Handlers::new().on::<AccountEvent>()
    }
}

impl Project<AccountEvent> for ByNumber {
    fn on(row: &mut Row<'_, Self>, _: &Recorded<AccountEvent>) -> Result<(), Poison> {
        row.events += 1;
        Ok(())
    }
}

pub(crate) async fn streams_of_other_names_never_share_a_row() {
    let store = store().await;
    let db = start::<ByNumber>(&store).await;
    let done = happens(&db, "7", deposited(1)).await;
    let other = happens(&db, "007", deposited(1)).await;
    let view = db.view::<ByNumber>();
    let row = view.get(7_u64).at_least(&done).await.unwrap();
    assert_eq!(row, Some(ByNumber { events: 1 }));
    let stopped = view.get(7_u64).at_least(&other).await.unwrap_err();
    assert!(
        stopped
            .to_string()
            .contains("the stream id `007` is no key of view `by-number`"),
        "{stopped}"
    );
    db.stop().await;
}
