//! Rows that together are longer than a page of a store: none is taken for one that is missing.

use std::time::Duration;

use annals_core::{Annals, Append, NewEvent, Partition, Position, Recorded, StreamId, Token};
use annals_projections::{
    Handlers, Options, Poison, Program, Project, ReadModels, Row, View, ViewSetup, With,
};
use serde::{Deserialize, Serialize};

use super::bank::{AccountEvent, deposited, options};
use super::test_store::{TestStore, store};

const TIMEOUT: Duration = Duration::from_secs(60);
/// Eight of these are longer than `PAGE_BYTES_MAX`.
const LONG: usize = 700_000;
const ACCOUNTS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Long {
    events: u64,
    text: String,
}

impl Project<AccountEvent> for Long {
    fn on(row: &mut Row<'_, Self>, _: &Recorded<AccountEvent>) -> Result<(), Poison> {
        row.events += 1;
        row.text = "x".repeat(LONG);
        Ok(())
    }
}

impl View for Long {
    const NAME: &'static str = "long";
    type Key = String;

    fn handlers() -> Handlers<Self> {
        Handlers::new().on::<AccountEvent>()
    }
}

/// One event of each account, in one append.
async fn append(store: &TestStore) -> Position {
    let now = Annals::on(store.handle()).clock().now();
    let mut append = Append::default();
    append.events = ACCOUNTS
        .iter()
        .map(|account| {
            let stream = StreamId::new(format!("account-{account}")).unwrap();
            (stream, NewEvent::of(&deposited(1)).unwrap().at(now))
        })
        .collect();
    let appended = store.append(append).await.unwrap();
    appended.events().last().unwrap().position
}

async fn start(store: &TestStore, options: Options) -> Program {
    let setup = ViewSetup::<Long>::new().options(options);
    let db = Annals::on(store.handle());
    db.with(setup).start().await.unwrap()
}

async fn counted(store: &TestStore, db: &Program, position: Position) -> Vec<Option<u64>> {
    let view = db.view::<Long>();
    let token = Token::new(store.id()).with(Partition(0), position);
    view.wait_for(token, TIMEOUT).await.unwrap();
    let rows = view.many(ACCOUNTS).await.unwrap();
    rows.into_iter()
        .map(|row| row.map(|row| row.events))
        .collect()
}

#[tokio::test]
async fn a_batch_goes_on_with_all_of_its_rows() {
    let store = store().await;
    let db = start(&store, options()).await;
    let position = append(&store).await;
    assert_eq!(counted(&store, &db, position).await, [Some(1); 8]);
    db.stop().await;
    // Nothing is at hand, so what the batch needs is read.
    let position = append(&store).await;
    let db = start(&store, options()).await;
    assert_eq!(counted(&store, &db, position).await, [Some(2); 8]);
    db.stop().await;
}

#[tokio::test]
async fn a_build_is_compared_with_all_of_its_rows() {
    let store = store().await;
    let position = append(&store).await;
    let db = start(&store, options().verified_keys(8)).await;
    assert_eq!(counted(&store, &db, position).await, [Some(1); 8]);
    db.stop().await;
}
