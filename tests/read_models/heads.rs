//! Every way of reading sees as far as the head and no further: while an append stands
//! in its COMMIT with its positions given, and an unrelated transaction keeps an old snapshot of
//! everything.

use std::sync::Arc;
use std::time::Duration;

use annals::Partition;
use annals::prelude::*;
use annals::store::ReadLog;
use annals_core::conformance::Dice;

use crate::databases::Databases;
use crate::fixture::SharedLogs;
use crate::oracle::{Rows, Tally, append, caught_up, history, options, program, replay, rows};

/// How far each way sees: the head, a reader of the log, the end of a filtered page, the present as
/// a position.
async fn looked(db: &Program) -> [u64; 4] {
    let store = db.store();
    let head = store.head(Partition(0)).await.unwrap().visible;
    let page = store.read(ReadLog::after(Position::START)).await.unwrap();
    let nothing = annals::Filter::default().category("nothing");
    let filtered = store
        .read(ReadLog::after(Position::START).filter(nothing))
        .await
        .unwrap();
    let present = store
        .position_at(Partition(0), db.clock().now())
        .await
        .unwrap();
    [
        head.get(),
        page.events.len() as u64,
        filtered.scanned.get(),
        present.get(),
    ]
}

/// The checkpoints of the generations that can be read.
async fn generations(db: &Program) -> Vec<u64> {
    let views = db.store().views().unwrap();
    let mut checkpoints = Vec::new();
    for generation in views.generations(Tally::NAME).await.unwrap() {
        checkpoints.push(
            views.checkpoints(generation.id).await.unwrap()[0]
                .position
                .get(),
        );
    }
    checkpoints
}

async fn as_of_now(db: &Program) -> Rows {
    let page = db
        .view::<Tally>()
        .rows()
        .as_of(db.clock().now())
        .limit(1_000)
        .await
        .unwrap();
    page.rows
        .into_iter()
        .map(|row| (row.key, row.value.count))
        .collect()
}

pub(crate) async fn all_readers_see_one_head(fixture: &Databases) {
    let store = fixture.place("log").await.open().await;
    let mut dice = Dice::new(3);
    append(&*store, &mut dice, 10, 30).await;
    let db = program::<Tally>(&store, options()).await;
    caught_up::<Tally>(&db).await;
    let before = replay(&history(&*store).await);
    let _unrelated = fixture.old_snapshot("log").await;

    let mut held = fixture.hold("log", "event").await;
    let appending = Arc::clone(&store);
    let appending = tokio::spawn(async move { append(&*appending, &mut dice, 10, 5).await });
    held.is_reached().await;
    assert_eq!(looked(&db).await, [30; 4]);
    // Who waits for what is not there yet goes on waiting; who builds is done where the others are.
    let next = Token::new(store.id()).with(Partition(0), Position::new(31));
    let early = db
        .view::<Tally>()
        .wait_for(next, Duration::from_millis(300))
        .await;
    assert!(early.is_err(), "it has seen what is not committed");
    db.rebuild::<Tally>()
        .begin()
        .await
        .unwrap()
        .finished(|_| ())
        .await
        .unwrap();
    assert_eq!(generations(&db).await, [30, 30]);
    assert_eq!(
        (rows::<Tally>(&db, None).await, as_of_now(&db).await),
        (before.clone(), before)
    );
    assert!(!appending.is_finished());

    held.let_go().await;
    appending.await.unwrap();
    caught_up::<Tally>(&db).await;
    assert_eq!(looked(&db).await, [35; 4]);
    let after = replay(&history(&*store).await);
    assert_eq!(
        (rows::<Tally>(&db, None).await, as_of_now(&db).await),
        (after.clone(), after)
    );
    db.stop().await;
}
