//! Rows in pages, by key and by index.

use annals_projections::ReadModels;
use std::time::Duration;

use annals_core::{LogId, Token};
use annals_projections::ViewError;

use super::bank::{AccountEvent, Balance, deposited, happens, program};
use super::test_store::store;

pub(crate) async fn pages_by_key_and_by_index_neither_lose_nor_repeat() {
    let store = store().await;
    let db = program(&store).await;
    let mut last = None;
    for number in 0..50_i64 {
        last = Some(
            happens(
                &db,
                &format!("{number:03}"),
                deposited((number * 37) % 50 - 20),
            )
            .await,
        );
    }
    let view = db.view::<Balance>();
    view.wait_for(&last.unwrap(), Duration::from_secs(30))
        .await
        .unwrap();
    for limit in [1, 7, 49, 50, 51] {
        for by_index in [false, true] {
            let mut found = Vec::new();
            let mut after = None;
            loop {
                let rows = view.rows().limit(limit).after(after);
                let page = if by_index {
                    rows.by_index::<i64>("cents", ..).await
                } else {
                    rows.await
                }
                .unwrap();
                found.extend(page.rows);
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(found.len(), 50, "limit {limit}, by index {by_index}");
            let ordered = match by_index {
                true => found.is_sorted_by_key(|row| row.value.cents),
                false => found.is_sorted_by_key(|row| row.key.clone()),
            };
            assert!(ordered, "limit {limit}, by index {by_index}");
        }
    }
    let rich = view.rows().by_index("cents", 25_i64..).await.unwrap().rows;
    assert_eq!(
        rich.iter().map(|row| row.value.cents).collect::<Vec<_>>(),
        [25, 26, 27, 28, 29]
    );
    let some = view
        .rows()
        .keys("010".to_string().."013".to_string())
        .await
        .unwrap()
        .rows;
    assert_eq!(
        some.iter().map(|row| &*row.key).collect::<Vec<_>>(),
        ["010", "011", "012"]
    );
    let named = view
        .rows()
        .of(["049".to_string(), "nobody".to_string()])
        .await
        .unwrap()
        .rows;
    assert_eq!(named.len(), 1);
}

pub(crate) async fn a_removed_row_is_gone_and_comes_back_fresh() {
    let store = store().await;
    let db = program(&store).await;
    happens(&db, "alice", deposited(5)).await;
    let done = happens(&db, "alice", AccountEvent::Closed).await;
    let view = db.view::<Balance>();
    assert_eq!(view.get("alice").at_least(&done).await.unwrap(), None);
    let done = happens(&db, "alice", deposited(1)).await;
    assert_eq!(
        view.get("alice").at_least(&done).await.unwrap(),
        Some(Balance {
            cents: 1,
            events: 1
        })
    );
}

pub(crate) async fn what_cannot_be_seen_in_time_says_what_holds_it() {
    let store = store().await;
    let db = program(&store).await;
    let done = happens(&db, "alice", deposited(5)).await;
    let beyond =
        Token::new(db.store().id()).with(done.events()[0].partition, annals_core::Position::new(9));
    let error = db
        .view::<Balance>()
        .get("alice")
        .at_least(beyond)
        .within(Duration::from_millis(30))
        .await
        .unwrap_err();
    assert!(matches!(error, ViewError::NotYet { .. }), "{error}");
    let foreign = Token::new(LogId::random());
    let error = db
        .view::<Balance>()
        .get("alice")
        .at_least(foreign)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("is of another log"), "{error}");
}
