//! Tables follow the log: their checkpoints, what they skip, and how new ones take their
//! place.

use annals::read_model::GenerationStore;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use annals::projections::ViewError;
use annals::{Partition, Token};

use crate::bank::{Account, AccountEvent, Bank, WAIT, options, total};
use crate::fixture::LogWithTables;

pub(crate) async fn tables_follow_the_log_and_resume_after_a_restart<G: LogWithTables>() {
    let mut bank = Bank::<G>::open().await;
    assert_eq!(
        bank.totals().await,
        [],
        "the tables are there before the first event"
    );
    for number in 0..20 {
        bank.deposits("alice", number).await;
    }
    let done = bank.deposits("bob", 5).await;
    bank.tables().wait_for(&done, WAIT).await.unwrap();
    assert_eq!(
        bank.totals().await,
        [total("alice", 190, 20), total("bob", 5, 1)]
    );
    bank.db.stop().await;
    let done = bank.withdraws("bob", 2).await;
    bank.start_again().await;
    bank.tables().wait_for(&done, WAIT).await.unwrap();
    assert_eq!(
        bank.totals().await,
        [total("alice", 190, 20), total("bob", 3, 2)]
    );
    assert!(
        bank.db
            .status()
            .iter()
            .any(|status| status.view == "totals"),
        "{:?}",
        bank.db.status()
    );
}

pub(crate) async fn a_failing_event_is_undone_and_stops_until_skipped<G: LogWithTables>() {
    let bank = Bank::<G>::open().await;
    for _ in 0..3 {
        bank.deposits("alice", 1).await;
    }
    let overdrawn = bank.withdraws("carol", 9).await;
    let last = bank.deposits("alice", 1).await;
    let error = bank.tables().wait_for(&last, WAIT).await.unwrap_err();
    assert!(
        matches!(
            &error,
            ViewError::Stopped { reason }
                if reason.to_lowercase().contains("check constraint")
        ),
        "{error}"
    );
    assert_eq!(
        bank.totals().await,
        [total("alice", 3, 3)],
        "the account that was begun with it is gone too"
    );

    let says = "Repair the projection or its tables, or skip the event with `skip_event`";
    assert!(error.to_string().contains(says), "{error}");
    let position = overdrawn.events()[0].position;
    let invalid = bank.tables().skip_event(position, "").await.unwrap_err();
    assert!(matches!(invalid, ViewError::Invalid(_)), "{invalid}");
    bank.tables()
        .skip_event(position, "booked by mistake")
        .await
        .unwrap();
    bank.tables().wait_for(&last, WAIT).await.unwrap();
    assert_eq!(bank.totals().await, [total("alice", 4, 4)]);
    bank.tables()
        .rebuild()
        .begin()
        .await
        .unwrap()
        .finished(|_| ())
        .await
        .unwrap();
    assert_eq!(
        bank.totals().await,
        [total("alice", 4, 4)],
        "a rebuild leaves it out too"
    );
}

pub(crate) async fn an_event_is_retried_after_a_passing_failure<G: LogWithTables>() {
    let bank = Bank::<G>::open().await;
    bank.faults.is_broken.store(true, Ordering::SeqCst);
    let done = bank.deposits("alice", 1).await;
    let error = bank.tables().wait_for(&done, WAIT).await.unwrap_err();
    assert!(error.to_string().contains("it is broken"), "{error}");
    assert_eq!(bank.totals().await, []);
    bank.faults.is_broken.store(false, Ordering::SeqCst);
    // It looks again by itself after some seconds.
    let mended = async {
        while bank.tables().wait_for(&done, WAIT).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WAIT, mended).await.unwrap();
    assert_eq!(bank.totals().await, [total("alice", 1, 1)]);
}

pub(crate) async fn readers_see_whole_tables_during_a_rebuild<G: LogWithTables>() {
    let bank = Arc::new(Bank::<G>::open().await);
    for number in 0..200 {
        bank.deposits(&format!("{}", number % 10), 1).await;
    }
    let done = bank.deposits("0", 1).await;
    bank.tables().wait_for(&done, WAIT).await.unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let reader = Arc::clone(&bank);
    let ended = Arc::clone(&over);
    let reading = tokio::spawn(async move {
        let mut looks = 0;
        while !ended.load(Ordering::SeqCst) || looks < 10 {
            let rows = reader.totals().await;
            let events: i64 = rows.iter().map(|(_, _, events)| events).sum();
            // A switch shows tables that are about as new, never ones that are half built.
            assert!(
                rows.len() == 10 && events >= 201,
                "{} rows, {events} events",
                rows.len()
            );
            looks += 1;
            // A read of a file waits for nothing: without this the runtime does nothing else.
            tokio::task::yield_now().await;
        }
    });
    let appends = Arc::clone(&bank);
    let ended = Arc::clone(&over);
    let appending = tokio::spawn(async move {
        while !ended.load(Ordering::SeqCst) {
            let done = appends.deposits("3", 1).await;
            appends.tables().wait_for(&done, WAIT).await.unwrap();
        }
    });
    let first = bank.tables().published().await.unwrap().unwrap();
    for _ in 0..3 {
        bank.tables()
            .rebuild()
            .begin()
            .await
            .unwrap()
            .finished(|_| ())
            .await
            .unwrap();
    }
    assert_ne!(bank.tables().published().await.unwrap().unwrap(), first);
    bank.tables().rebuild().roll_back().await.unwrap();
    over.store(true, Ordering::SeqCst);
    appending.await.unwrap();
    reading.await.unwrap();
    let done = bank.deposits("3", 1).await;
    bank.tables().wait_for(&done, WAIT).await.unwrap();
    let last = done.events()[0].position.get();
    assert_eq!(
        bank.totals()
            .await
            .iter()
            .map(|(_, _, events)| *events)
            .sum::<i64>(),
        last.cast_signed()
    );
    bank.tables().rebuild().drop_kept().await.unwrap();
    let left = bank.store.generations("totals").await.unwrap().len();
    assert_eq!(
        (left, bank.fixture.tables_like("totals\\_g%").await),
        (1, 1)
    );
}

pub(crate) async fn a_cancelled_build_drops_its_tables<G: LogWithTables>() {
    let bank = Bank::<G>::open().await;
    let done = bank.deposits("alice", 1).await;
    bank.tables().wait_for(&done, WAIT).await.unwrap();
    // It cannot become complete, so that it can be called off.
    bank.faults.is_broken.store(true, Ordering::SeqCst);
    let building = bank.tables().rebuild().begin().await.unwrap();
    let table = format!("totals\\_g{}", building.generation());
    let made = async {
        while bank.fixture.tables_like(&table).await == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WAIT, made).await.unwrap();
    building.call_off().await.unwrap();
    assert_eq!(bank.fixture.tables_like(&table).await, 0);
    assert_eq!(bank.totals().await, [total("alice", 1, 1)]);
}

pub(crate) async fn an_event_with_a_key_delays_its_key_alone<G: LogWithTables>() {
    let bank = Bank::<G, true>::open().await;
    let tables = bank.tables();
    bank.deposits("alice", 1).await;
    let overdrawn = bank.withdraws("carol", 9).await;
    bank.deposits("carol", 20).await;
    let last = bank.deposits("alice", 2).await;
    tables.wait_for(&last, WAIT).await.unwrap();
    assert_eq!(bank.totals().await, [total("alice", 3, 2)]);

    let dead_letters = bank.db.dead_letters("totals").unwrap();
    let waiting = dead_letters.keys(None, 10).await.unwrap();
    assert_eq!(
        (waiting.len(), &*waiting[0].key, waiting[0].queued),
        (1, "carol", 1)
    );
    assert!(
        waiting[0]
            .reason
            .to_lowercase()
            .contains("check constraint"),
        "{}",
        waiting[0].reason
    );
    let settled = dead_letters.retry("carol").await.unwrap();
    assert_eq!(
        (settled.events, settled.still.map(|still| still.attempts)),
        (0, Some(2))
    );
    let position = overdrawn.events()[0].position;
    let settled = dead_letters
        .skip("carol", position, "booked by mistake")
        .await
        .unwrap();
    assert_eq!((settled.events, settled.still), (2, None));
    assert_eq!(
        bank.totals().await,
        [total("alice", 3, 2), total("carol", 20, 1)]
    );
    let last = bank.withdraws("carol", 5).await;
    tables.wait_for(&last, WAIT).await.unwrap();
    let expected = [total("alice", 3, 2), total("carol", 15, 2)];
    assert_eq!(bank.totals().await, expected);
    tables
        .rebuild()
        .begin()
        .await
        .unwrap()
        .finished(|_| ())
        .await
        .unwrap();
    assert_eq!(bank.totals().await, expected, "a rebuild leaves it out too");
}

pub(crate) async fn operators_are_answered_while_an_event_is_tried_again<G: LogWithTables>() {
    let hour = Duration::from_secs(3_600);
    let bank = Bank::<G, true>::open_with(options().attempts(2, hour)).await;
    let events = [
        AccountEvent::Deposited { cents: 1 },
        AccountEvent::Withdrawn { cents: 9 },
    ];
    let overdrawn = bank
        .db
        .aggregate::<Account>("carol")
        .run(|_| Ok::<_, String>(events.to_vec()))
        .await
        .unwrap();
    // The first of them is settled, and the other one waits for an hour.
    let first = overdrawn.events()[0].position;
    let first = Token::new(bank.db.store().id()).with(Partition(0), first);
    bank.tables().wait_for(first, WAIT).await.unwrap();
    let dead_letters = bank.db.dead_letters("totals").unwrap();
    let answer = tokio::time::timeout(WAIT, dead_letters.retry("carol")).await;
    assert_eq!(answer.unwrap().unwrap().still, None);
    let position = overdrawn.events()[1].position;
    let skipped = dead_letters.skip_event(position, "booked by mistake").await;
    skipped.unwrap();
    bank.tables().wait_for(&overdrawn, WAIT).await.unwrap();
    assert_eq!(bank.totals().await, [total("carol", 1, 1)]);
}

/// Where work can end the transaction that it is given.
#[cfg(feature = "postgres")]
pub(crate) async fn work_that_ends_the_transaction_stops_the_projection<G: LogWithTables>() {
    let bank = Bank::<G>::open().await;
    bank.faults.commits.store(true, Ordering::SeqCst);
    let done = bank.deposits("alice", 1).await;
    let error = bank.tables().wait_for(&done, WAIT).await.unwrap_err();
    let says = "ended the transaction";
    assert!(
        matches!(&error, ViewError::Stopped { reason } if reason.contains(says)),
        "{error}"
    );
    let generation = bank.store.generations("totals").await.unwrap()[0].id;
    let checkpoints = bank.store.checkpoints(generation).await.unwrap();
    assert!(
        checkpoints.iter().all(|of| of.position.get() == 0),
        "{checkpoints:?}"
    );
}
