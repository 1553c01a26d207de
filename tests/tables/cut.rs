//! Connections of a program that keeps read models break around each commit: before the server has
//! it, while it works, and with the answer on its way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use annals::Annals;
use annals::postgres::PostgresStore;
use annals_core::conformance::{Dice, rounds};

use crate::bank::{Account, WAIT};
use crate::databases::Databases;
use crate::fixture::LogWithTables;
use crate::inline_and_tables::{command, equal_a_replay, some_events, start};
use crate::relay::cuts::Cuts;
use crate::relay::{Relay, Treatment};

const TASKS: u64 = 4;

/// What is committed by, and how an append and a step take hold of rows.
const COMMITS: &[&str] = &[
    "append",
    "append_one",
    "append_then_flush",
    "append_with_rows",
    "ensure_stream_versions",
    "ensure_step_stream_versions",
    "commit_inline_step",
    "COMMIT",
];

pub(crate) async fn cut_connections_leave_rows_equal_to_a_replay() {
    let fixture = Databases::new().await;
    let direct = Databases::open(&fixture.place()).await;
    let relay = Relay::around(COMMITS).await;
    let store = PostgresStore::connect_with(relay.options(&fixture.0.name))
        .await
        .unwrap();
    let db = start::<Databases>(&store).await;
    let cuts = Arc::new(Cuts::one_in(6));
    let cutting = Arc::clone(&cuts);
    relay.choose(move || cutting.next());
    // A program that knows nothing of read models appends too, and its connections are not cut.
    let foreign = Annals::on(Arc::new(direct.clone()));
    let over = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&over);
    let foreign = tokio::spawn(async move {
        let mut dice = Dice::new(TASKS);
        let mut events_count = 0;
        let mut turns = tokio::time::interval(Duration::from_millis(25));
        while !ended.load(Ordering::SeqCst) {
            events_count += command(&foreign, 0, &mut dice).await;
            turns.tick().await;
        }
        events_count
    });
    let commands = rounds(30, 100);
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let db = db.clone();
        tasks.spawn(async move {
            let mut dice = Dice::new(task);
            let mut asked = 0_u64;
            let mut events_count = 0;
            for n in 0..commands {
                let (account, events) = some_events(&mut dice);
                let key = format!("{task}-{n}");
                events_count += events.len() as u64;
                // Asked again under the same key it takes effect once, whatever became of it
                // before.
                loop {
                    asked += 1;
                    let of_account = db.aggregate::<Account>(account);
                    let command = of_account.run(|_| Ok::<_, String>(events.clone()));
                    if command.idempotency_key(key.as_str()).await.is_ok() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
            }
            (asked, events_count)
        });
    }
    let mut asked = 0;
    let mut events_count = 0;
    let done = async {
        while let Some(task) = tasks.join_next().await {
            let (task_asked, task_events) = task.unwrap();
            asked += task_asked;
            events_count += task_events;
        }
    };
    tokio::time::timeout(WAIT * 5, done).await.unwrap();
    over.store(true, Ordering::SeqCst);
    events_count += foreign.await.unwrap();
    relay.choose(|| Treatment::Passes);
    let head = equal_a_replay(&fixture, &direct, &db).await;
    assert_eq!(
        head, events_count,
        "a command took effect twice, or not at all"
    );
    relay.assert_called(&["append_with_rows", "commit_inline_step", "COMMIT"]);
    let [before, meanwhile, after] = cuts.all();
    println!(
        "{} commands asked {asked} times, {head} events; cut before the server had it {before}, \
         while it worked {meanwhile}, with the answer \
         on its way {after}",
        TASKS * commands
    );
    assert!(before > 0 && meanwhile > 0 && after > 0, "{cuts:?}");
    db.stop().await;
}
