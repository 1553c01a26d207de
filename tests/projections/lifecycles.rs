//! However a view is kept, it says the same: inline = async = live = replay.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use annals_core::conformance::rounds;
use annals_core::{Annals, MemoryStore, Partition, Position, Token};
use annals_projections::{Program, ReadModels, ViewError, ViewSetup, With};
use proptest::prelude::*;

use super::bank::{Account, AccountEvent, Balance, deposited, happens, noted, options, replayed};
use super::test_store::{TestStore, store};

const WAIT: Duration = Duration::from_secs(30);

type Rows = BTreeMap<String, Balance>;

/// What is appended at once to one account, and whether by a program that knows nothing of views.
#[derive(Clone, Debug)]
struct Appended {
    account: u8,
    events: Vec<AccountEvent>,
    foreign: bool,
}

fn history() -> impl Strategy<Value = Vec<Appended>> {
    let event = prop_oneof![
        8 => (1..100_i64).prop_map(deposited),
        4 => (1..100_i64).prop_map(|cents| AccountEvent::Withdrawn { cents }),
        2 => Just(AccountEvent::Closed),
        1 => Just(noted("poison")),
    ];
    let events = prop::collection::vec(event, 1..4);
    let appended =
        (0..4_u8, events, prop::bool::weighted(0.3)).prop_map(|(account, events, foreign)| {
            Appended {
                account,
                events,
                foreign,
            }
        });
    prop::collection::vec(appended, 0..20)
}

async fn append(db: &Annals, appended: &Appended) {
    let account = db.aggregate::<Account>(appended.account);
    account
        .run(|_| Ok::<_, String>(appended.events.clone()))
        .await
        .unwrap();
}

async fn rows_of(db: &Program, as_of: Option<u64>) -> Rows {
    let rows = db.view::<Balance>().rows();
    let rows = match as_of {
        Some(position) => rows.as_of(Position::new(position)).await,
        None => rows.await,
    };
    rows.unwrap()
        .rows
        .into_iter()
        .map(|row| (row.key, row.value))
        .collect()
}

/// A program whose read models are beside the log, or where no other program has its own.
async fn start(store: &TestStore, projection: ViewSetup<Balance>, beside: bool) -> Program {
    let setup = Annals::on(store.handle()).with(projection.options(options().batch_events_max(5)));
    let setup = if beside {
        setup
    } else {
        setup.views_in(Arc::new(MemoryStore::new()))
    };
    setup.start().await.unwrap()
}

pub(crate) fn inline_async_live_and_replay_agree_at_every_moment() {
    let cases = ProptestConfig::with_cases(rounds(4, 64) as u32);
    proptest!(cases, |(
        history in history(),
        before in 0..12_usize,
    )| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let store = store().await;
            let foreign = Annals::on(store.handle());
            let before = before.min(history.len());
            for appended in &history[..before] {
                append(&foreign, appended).await;
            }
            let inline = start(&store, ViewSetup::new().inline(), true).await;
            let others = [
                start(&store, ViewSetup::new(), false).await,
                start(&store, ViewSetup::new().live(), false).await,
                start(&store, ViewSetup::new().live_by_stream(), false).await,
            ];
            let told = |to: usize| {
                history[..to]
                    .iter()
                    .flat_map(|of| of.events.iter().map(|event| (of.account, event)))
            };
            for (index, appended) in history.iter().enumerate().skip(before) {
                append(if appended.foreign { &foreign } else { &inline }, appended).await;
                // The row of an inline view is right at once, by whom ever it was appended.
                let row = inline
                    .view::<Balance>()
                    .get(appended.account.to_string())
                    .await
                    .unwrap();
                let expected = replayed(told(index + 1));
                assert_eq!(
                    row.as_ref(),
                    expected.get(&appended.account.to_string()),
                    "after append {index}"
                );
            }
            let events: Vec<(u8, &AccountEvent)> = told(history.len()).collect();
            let head =
                Token::new(store.id()).with(Partition(0), Position::new(events.len() as u64));
            let programs: Vec<&Program> = others.iter().chain([&inline]).collect();
            for db in &programs {
                db.view::<Balance>()
                    .wait_for(head.clone(), WAIT)
                    .await
                    .unwrap();
            }
            for position in 0..=events.len() {
                let expected = replayed(events[..position].iter().copied());
                for (which, db) in programs.iter().enumerate() {
                    let found = rows_of(db, Some(position as u64)).await;
                    assert_eq!(found, expected, "program {which} as of {position}");
                    let row = db
                        .view::<Balance>()
                        .get("0")
                        .as_of(Position::new(position as u64))
                        .await
                        .unwrap();
                    assert_eq!(
                        row.as_ref(),
                        expected.get("0"),
                        "program {which}, one row as of \
                            {position}"
                    );
                }
            }
            let expected = replayed(events.iter().copied());
            for (which, db) in programs.iter().enumerate() {
                assert_eq!(rows_of(db, None).await, expected, "program {which} now");
                let many = db
                    .view::<Balance>()
                    .many(["3", "1", "nobody"])
                    .await
                    .unwrap();
                assert_eq!(
                    many,
                    ["3", "1", "nobody"].map(|key| expected.get(key).cloned()),
                    "program {which}"
                );
            }
            inline.stop().await;
            others[0].stop().await;
        });
    });
}

pub(crate) async fn a_live_view_pages_as_a_stored_one() {
    let store = store().await;
    let kept = start(&store, ViewSetup::new(), false).await;
    let live = start(&store, ViewSetup::new().live(), false).await;
    for number in 0..30_i64 {
        let done = happens(
            &kept,
            &format!("{number:02}"),
            deposited(number * 7 % 30 - 10),
        )
        .await;
        kept.view::<Balance>().wait_for(&done, WAIT).await.unwrap();
    }
    for (backward, by_index) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut found = Vec::new();
        for db in [&kept, &live] {
            let mut pages = Vec::new();
            let mut after = None;
            loop {
                let rows = db.view::<Balance>().rows().limit(4).after(after);
                let rows = if backward { rows.backward() } else { rows };
                let rows = match by_index {
                    true => rows.by_index::<i64>("cents", -5..=12),
                    false => rows.keys("03".to_owned().."21".to_owned()),
                };
                let page = rows.await.unwrap();
                pages.push(
                    page.rows
                        .into_iter()
                        .map(|row| (row.key, row.value))
                        .collect::<Vec<_>>(),
                );
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            found.push(pages.concat());
        }
        assert_eq!(
            found[0], found[1],
            "backward {backward}, by index {by_index}"
        );
        assert_eq!(found[0].len(), 18);
    }
}

pub(crate) async fn a_live_view_refuses_what_needs_stored_rows() {
    let store = store().await;
    let live = start(&store, ViewSetup::new().live(), true).await;
    let done = happens(&live, "alice", deposited(5)).await;
    let view = live.view::<Balance>();
    assert_eq!(
        view.get("alice").at_least(&done).await.unwrap(),
        Some(Balance {
            cents: 5,
            events: 1
        })
    );
    assert_eq!(
        store.views().view_names().await.unwrap(),
        [""; 0],
        "nothing is kept"
    );
    let errors = [
        view.watch("alice").next().await.unwrap_err(),
        view.watch_all().next().await.unwrap_err(),
        view.history("alice").await.unwrap_err(),
        view.changed_between(Position::START, Position::new(1))
            .await
            .unwrap_err(),
    ];
    for error in errors {
        assert!(
            matches!(&error, ViewError::Invalid(_)) && error.to_string().contains("is live"),
            "{error}"
        );
    }
}

pub(crate) async fn a_live_view_answers_by_event_time() {
    let store = store().await;
    let live = start(&store, ViewSetup::new().live_by_stream(), true).await;
    let alice = live.aggregate::<Account>("alice");
    for (day, cents) in [(3, 1), (1, 10), (2, 100)] {
        let occurred = format!("2026-01-0{day}T00:00:00Z").parse().unwrap();
        alice
            .run(|_| Ok::<_, String>(deposited(cents)))
            .occurred_at(occurred)
            .await
            .unwrap();
    }
    let view = live.view::<Balance>();
    for (day, cents) in [(1, 10), (2, 110), (3, 111)] {
        let row = view
            .get("alice")
            .valid_at(format!("2026-01-0{day}T00:00:00Z").as_str())
            .await
            .unwrap();
        assert_eq!(row.map(|row| row.cents), Some(cents));
    }
    let then = view
        .get("alice")
        .valid_at("2026-01-02T00:00:00Z")
        .as_of(Position::new(2))
        .await
        .unwrap();
    assert_eq!(
        then.map(|row| row.cents),
        Some(10),
        "what was known of the second day after two events"
    );
}

pub(crate) async fn a_row_is_what_its_aggregate_is_after_a_deletion() {
    let store = store().await;
    let inline = start(&store, ViewSetup::new().inline(), true).await;
    let others = [
        start(&store, ViewSetup::new(), false).await,
        start(&store, ViewSetup::new().live(), false).await,
        start(&store, ViewSetup::new().live_by_stream(), false).await,
    ];
    happens(&inline, "alice", deposited(150)).await;
    let alice = inline.aggregate::<Account>("alice");
    let closed = |_: &Account| Ok::<_, String>(AccountEvent::Closed);
    let deleted = alice.delete_with(closed).await.unwrap();
    assert!(!alice.load().await.unwrap().exists());
    for db in others.iter().chain([&inline]) {
        let row = db.view::<Balance>().get("alice").at_least(&deleted).await;
        assert_eq!(row.unwrap(), None);
    }
    let again = happens(&inline, "alice", deposited(7)).await;
    for db in others.iter().chain([&inline]) {
        let row = db.view::<Balance>().get("alice").at_least(&again).await;
        let expected = Balance {
            cents: 7,
            events: 1,
        };
        assert_eq!(row.unwrap(), Some(expected));
    }
    for db in others.iter().chain([&inline]) {
        db.stop().await;
    }
}
