//! States of busy aggregates: filled after commit, bounded, and never the last word.

use annals_core::conformance::faulty::Call;
use annals_core::{Annals, CommandError};

use crate::bank::{Account, Refusal};
use crate::store::{
    CallCounts, Hesitant, Meanwhile, alice, dropped_after, faulty, head, impatient, processes,
};

#[tokio::test]
async fn a_busy_aggregate_is_not_read_again() {
    let [plain] = processes();
    let (db, store) = faulty(&plain, CallCounts::default());
    for _ in 0..10 {
        alice(&db).run(|a| a.deposit(1)).await.unwrap();
    }
    assert_eq!(
        (
            store.fault().calls(Call::ReadStream),
            store.fault().calls(Call::Append)
        ),
        (1, 10)
    );
}

#[tokio::test]
async fn a_state_is_kept_only_after_its_events_were_committed() {
    let [other] = processes();
    let faster = other.clone();
    let fault = Meanwhile::always(Call::Append, move || {
        let faster = faster.clone();
        async move {
            alice(&faster).run(|a| a.deposit(1)).await.unwrap();
        }
    });
    let db = faulty(&other, fault).0.with_retries(impatient(2));
    let error = alice(&db).run(|a| a.deposit(1_000)).await.unwrap_err();
    assert!(matches!(error, CommandError::Contended { .. }));
    assert_eq!(
        alice(&db).query(Account::clone).await.unwrap(),
        *alice(&other).load().await.unwrap()
    );
}

#[tokio::test]
async fn as_many_states_are_kept_as_there_is_room_for() {
    let [plain] = processes();
    let (db, store) = faulty(&plain, CallCounts::default());
    let db = db.with_cached_states(3);
    let deposit = async |id: u64| {
        db.aggregate::<Account>(id)
            .run(|a| a.deposit(1))
            .await
            .unwrap()
    };
    for id in 1..=4 {
        deposit(id).await;
    }
    let reads = || store.fault().calls(Call::ReadStream);
    assert_eq!(reads(), 4);
    // The last three are there, the first one made way.
    for id in 2..=4 {
        deposit(id).await;
    }
    assert_eq!(reads(), 4);
    deposit(1).await;
    assert_eq!(reads(), 5);
    // … and that made the second one go, which was not used for longest.
    deposit(3).await;
    assert_eq!(reads(), 5);
    deposit(2).await;
    assert_eq!(reads(), 6);
    for (id, cents) in [(1, 2), (2, 3), (3, 3), (4, 2)] {
        assert_eq!(
            db.aggregate::<Account>(id).load().await.unwrap().cents,
            cents
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_room_every_command_reads_and_all_succeed() {
    let [plain] = processes();
    let (db, store) = faulty(&plain, CallCounts::default());
    let db = db.with_cached_states(0);
    for _ in 0..3 {
        alice(&db).run(|a| a.deposit(1)).await.unwrap();
    }
    assert_eq!(store.fault().calls(Call::ReadStream), 3);
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let alice = alice(&db);
            tokio::spawn(async move { alice.run(|a| a.deposit(1)).await.unwrap() })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(alice(&db).query(|a| a.cents).await.unwrap(), 19);
}

#[tokio::test]
async fn a_handle_with_other_settings_starts_with_an_empty_cache() {
    let [plain] = processes();
    let (db, store) = faulty(&plain, CallCounts::default());
    alice(&db).run(|a| a.deposit(1)).await.unwrap();
    alice(&db.clone()).run(|a| a.deposit(1)).await.unwrap();
    assert_eq!(store.fault().calls(Call::ReadStream), 1);
    alice(&db.with_retries(impatient(1)))
        .run(|a| a.deposit(1))
        .await
        .unwrap();
    assert_eq!(store.fault().calls(Call::ReadStream), 2);
}

#[tokio::test]
async fn a_question_sees_what_other_processes_wrote() {
    let [here, there] = processes();
    alice(&here).run(|a| a.deposit(1)).await.unwrap();
    alice(&there).run(|a| a.deposit(1)).await.unwrap();
    assert_eq!(alice(&here).query(|a| a.cents).await.unwrap(), 2);
    alice(&there).delete().await.unwrap();
    assert_eq!(alice(&here).query(|a| a.cents).await.unwrap(), 0);
    alice(&there).run(|a| a.deposit(5)).await.unwrap();
    assert_eq!(alice(&here).query(|a| a.cents).await.unwrap(), 5);
}

#[tokio::test]
async fn a_command_dropped_at_any_await_leaves_everything_right() {
    for (key, cached, awaits) in [
        (None, true, 2),
        (None, false, 4),
        (Some("req"), true, 4),
        (Some("req"), false, 6),
    ] {
        for polls in 0.. {
            let [plain] = processes();
            let (db, _) = faulty(&plain, Hesitant);
            alice(if cached { &db } else { &plain })
                .run(|a| a.deposit(10))
                .await
                .unwrap();
            let handle = alice(&db);
            let mut command = handle.run(|a| a.deposit(1));
            if let Some(key) = key {
                command = command.idempotency_key(key);
            }
            let finished = dropped_after(polls, command.into_future()).is_some();
            // It happened or it did not; asked again under its key it happens once.
            let happened = head(&plain).await - 1;
            assert!(
                happened <= 1 && (!finished || happened == 1),
                "after {polls} polls"
            );
            if let Some(key) = key {
                let again = alice(&db)
                    .run(|a| a.deposit(1))
                    .idempotency_key(key)
                    .await
                    .unwrap();
                assert_eq!(
                    (again.was_repeated(), head(&plain).await),
                    (happened == 1, 2),
                    "after {polls} polls"
                );
            }
            let after = alice(&plain).load().await.unwrap().into_state();
            assert_eq!(
                alice(&db).query(Account::clone).await.unwrap(),
                after,
                "after {polls} polls"
            );
            alice(&db).run(|a| a.withdraw(a.cents)).await.unwrap();
            assert_eq!(
                alice(&plain).load().await.unwrap().cents,
                0,
                "after {polls} polls"
            );
            if finished {
                assert_eq!(polls, awaits + 1, "dropped at each of its awaits");
                break;
            }
        }
    }
}

#[tokio::test]
async fn who_waits_for_a_turn_may_leave() {
    let [plain] = processes();
    let (db, _) = faulty(&plain, Hesitant);
    let first = alice(&db);
    let second = alice(&db);
    let third = alice(&db);
    let mut running = Box::pin(first.run(|a| a.deposit(1)).into_future());
    assert!(dropped_after(2, running.as_mut()).is_none());
    assert!(dropped_after(2, second.run(|a| a.deposit(100)).into_future()).is_none());
    let (ran, came) = tokio::join!(running, third.run(|a| a.deposit(1)).into_future());
    assert!(ran.is_ok() && came.is_ok());
    assert_eq!(alice(&plain).load().await.unwrap().cents, 2);
}

#[tokio::test]
async fn two_kinds_of_aggregate_on_one_stream_share_no_state() {
    /// How often anything happened.
    #[derive(Debug, Default)]
    struct Moves(u64);
    impl annals_core::Aggregate for Moves {
        type Event = crate::bank::AccountEvent;
        fn apply(&mut self, _: &Self::Event) {
            self.0 += 1;
        }
    }
    let db = Annals::in_memory();
    alice(&db).run(|a| a.deposit(7)).await.unwrap();
    let moves = db.aggregate::<Moves>("alice");
    moves
        .run(|moves| Ok::<_, Refusal>(crate::bank::deposited(moves.0 as i64)))
        .await
        .unwrap();
    assert_eq!(
        (
            alice(&db).query(|a| a.cents).await.unwrap(),
            moves.query(|m| m.0).await.unwrap()
        ),
        (8, 2)
    );
}
