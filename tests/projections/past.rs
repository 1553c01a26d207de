//! Incremental = as of = replay, for every position, also inside a batch.

use annals_projections::ReadModels;
use std::collections::BTreeMap;

use annals_core::conformance::rounds;
use annals_core::{Annals, Position};
use annals_projections::ViewError;
use proptest::prelude::*;

use super::bank::{AccountEvent, Balance, deposited, happens, options, program_with, replayed};
use super::test_store::store;

/// What a replay up to a position gives.
fn replay(history: &[(u8, AccountEvent)]) -> BTreeMap<String, Balance> {
    replayed(history.iter().map(|(account, event)| (*account, event)))
}

fn history() -> impl Strategy<Value = Vec<(u8, AccountEvent)>> {
    let event = prop_oneof![
        4 => (1..100_i64).prop_map(|cents| AccountEvent::Deposited { cents }),
        2 => (1..100_i64).prop_map(|cents| AccountEvent::Withdrawn { cents }),
        1 => Just(AccountEvent::Closed),
    ];
    prop::collection::vec((0..4_u8, event), 0..60)
}

pub(crate) fn as_of_any_position_equals_a_replay() {
    let cases = ProptestConfig::with_cases(rounds(4, 64) as u32);
    proptest!(cases, |(
        history in history(),
        batch in 1..70_usize,
        slots in 1..4_u16,
        // How much is in the log before the projection starts.
        before in 0..60_usize,
    )| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let store = store().await;
            let writer = Annals::on(store.handle());
            let before = before.min(history.len());
            for (account, event) in &history[..before] {
                happens(&writer, &account.to_string(), event.clone()).await;
            }
            let db = program_with(&store, options().batch_events_max(batch).slots(slots)).await;
            for (account, event) in &history[before..] {
                happens(&writer, &account.to_string(), event.clone()).await;
            }
            let view = db.view::<Balance>();
            for position in 0..=history.len() {
                let expected = replay(&history[..position]);
                let page = view
                    .rows()
                    .as_of(Position::new(position as u64))
                    .await
                    .unwrap();
                let found: BTreeMap<_, _> = page
                    .rows
                    .into_iter()
                    .map(|row| (row.key, row.value))
                    .collect();
                assert_eq!(found, expected, "as of {position}");
                for account in 0..4 {
                    let row = view
                        .get(account.to_string())
                        .as_of(Position::new(position as u64))
                        .await
                        .unwrap();
                    assert_eq!(
                        row.as_ref(),
                        expected.get(&account.to_string()),
                        "{account} as of \
                            {position}"
                    );
                }
            }
            let now: BTreeMap<_, _> = view
                .rows()
                .await
                .unwrap()
                .rows
                .into_iter()
                .map(|row| (row.key, row.value))
                .collect();
            assert_eq!(now, replay(&history));
            db.stop().await;
        });
    });
}

pub(crate) async fn a_moment_that_is_no_time_is_refused() {
    let store = store().await;
    let db = program_with(&store, options()).await;
    happens(&db, "alice", deposited(5)).await;
    let error = db
        .view::<Balance>()
        .get("alice")
        .as_of("yesterday")
        .await
        .unwrap_err();
    assert!(
        matches!(&error, ViewError::Store(_))
            && error
                .to_string()
                .contains("`yesterday` is no RFC 3339 time"),
        "{error}"
    );
}
