//! One key, one effect: the first result for ever.

use std::sync::Arc;

use annals_core::conformance::faulty::Call;
use annals_core::{Aggregate, Annals, CommandError, Committed, MemoryStore, Store};

use crate::bank::{Account, AccountEvent, Refusal, deposited, transfer};
use crate::store::{Meanwhile, alice, faulty, head, processes};

#[tokio::test]
async fn the_same_key_returns_the_first_result_without_deciding() {
    let [db] = processes();
    let first = alice(&db)
        .run(|a| a.deposit(10))
        .idempotency_key("req-42")
        .await
        .unwrap();
    alice(&db).run(|a| a.deposit(1)).await.unwrap();
    let never = |_: &Account| -> Result<AccountEvent, Refusal> { panic!("decided again") };
    let again = alice(&db)
        .run(never)
        .idempotency_key("req-42")
        .await
        .unwrap();
    assert_eq!(
        (first.events(), first.token()),
        (again.events(), again.token())
    );
    assert_eq!(
        (first.was_repeated(), again.was_repeated(), head(&db).await),
        (false, true, 2)
    );
}

#[tokio::test]
async fn it_holds_after_a_restart_and_against_a_newer_state() {
    let [before, after] = processes();
    alice(&before).run(|a| a.deposit(10)).await.unwrap();
    let first = alice(&before)
        .run(|a| a.withdraw(10))
        .idempotency_key("w")
        .await
        .unwrap();
    let created = before
        .aggregate::<Account>("bob")
        .create(|a| a.deposit(1))
        .idempotency_key("c")
        .await
        .unwrap();
    drop(before);
    assert_eq!(
        alice(&after)
            .run(|a| a.withdraw(10))
            .idempotency_key("w")
            .await
            .unwrap()
            .events(),
        first.events()
    );
    let again = after
        .aggregate::<Account>("bob")
        .create(|a| a.deposit(1))
        .idempotency_key("c")
        .await
        .unwrap();
    assert_eq!(again.events(), created.events());
    // Also when it is gone for ever.
    alice(&after).tombstone().await.unwrap();
    assert_eq!(
        alice(&after)
            .run(|a| a.withdraw(10))
            .idempotency_key("w")
            .await
            .unwrap()
            .events(),
        first.events()
    );
}

#[tokio::test]
async fn a_result_of_several_events_comes_back_whole() {
    let [db] = processes();
    let three = |_: &Account| Ok::<_, Refusal>([deposited(1), deposited(2), deposited(3)]);
    let first = alice(&db)
        .run(three)
        .idempotency_key("three")
        .await
        .unwrap();
    let again = alice(&db)
        .run(|_| Ok::<_, Refusal>(deposited(9)))
        .idempotency_key("three")
        .await
        .unwrap();
    assert_eq!((again.events(), again.events().len()), (first.events(), 3));
}

#[tokio::test]
async fn other_keys_and_other_aggregates_are_other_requests() {
    let [db] = processes();
    for (id, key) in [("alice", "k"), ("alice", "l"), ("bob", "k")] {
        let done = db
            .aggregate::<Account>(id)
            .run(|a| a.deposit(1))
            .idempotency_key(key)
            .await
            .unwrap();
        assert!(!done.was_repeated(), "{id} {key}");
    }
}

#[tokio::test]
async fn a_refused_command_may_be_sent_again() {
    let [db] = processes();
    let handle = alice(&db);
    let refused = handle.run(|a| a.withdraw(5)).idempotency_key("w").await;
    assert!(matches!(
        refused,
        Err(CommandError::Refused(Refusal::Overdrawn))
    ));
    handle.run(|a| a.deposit(5)).await.unwrap();
    let done = handle
        .run(|a| a.withdraw(5))
        .idempotency_key("w")
        .await
        .unwrap();
    assert!(!done.was_repeated());
}

#[tokio::test]
async fn an_empty_key_is_no_key() {
    let [db] = processes();
    let error = alice(&db)
        .run(|a| a.deposit(1))
        .idempotency_key("")
        .await
        .unwrap_err();
    assert!(matches!(error, CommandError::Invalid(_)), "{error}");
    let both = (Account::at("alice"), Account::at("bob"));
    let error = db
        .decide(both, |(a, b)| transfer(a, b, 0))
        .idempotency_key("")
        .await
        .unwrap_err();
    assert!(
        matches!(error, CommandError::Invalid(_)) && head(&db).await == 0,
        "{error}"
    );
}

/// All the same result, and only one of them made it.
#[track_caller]
fn one_effect(outcomes: &[Committed]) {
    assert!(
        outcomes
            .iter()
            .all(|done| done.events() == outcomes[0].events())
    );
    assert_eq!(
        outcomes.iter().filter(|done| !done.was_repeated()).count(),
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racers_with_one_key_all_get_the_first_result() {
    for round in 0..20 {
        let handles: [Annals; 2] = processes();
        let tasks: Vec<_> = (0..8_usize)
            .map(|task| {
                let alice = alice(&handles[task % 2]);
                tokio::spawn(async move {
                    // Another amount, another number of events; and the second would be
                    // refused.
                    let decide = move |a: &Account| match a.cents {
                        0 => Ok(vec![deposited(task as i64 + 1); task % 3 + 1]),
                        _ => Err(Refusal::Closed),
                    };
                    alice.run(decide).idempotency_key("once").await.unwrap()
                })
            })
            .collect();
        let mut outcomes = Vec::new();
        for task in tasks {
            outcomes.push(task.await.unwrap());
        }
        one_effect(&outcomes);
        assert_eq!(
            head(&handles[0]).await as usize,
            outcomes[0].events().len(),
            "round {round}"
        );
        // Both caches are right afterwards.
        let here = alice(&handles[0]).query(Account::clone).await.unwrap();
        assert_eq!(
            here,
            alice(&handles[1]).query(Account::clone).await.unwrap()
        );
    }
}

#[tokio::test]
async fn a_request_that_took_effect_elsewhere_is_not_refused() {
    for how in ["run", "create", "nothing to do", "decide"] {
        let [other] = processes();
        let faster = other.clone();
        // After this process looked for the request and before it reads the state.
        let fault = Meanwhile::once(Call::ReadStream, move || {
            let faster = faster.clone();
            async move { drop(send(&faster, how).await.unwrap()) }
        });
        let done = send(&faulty(&other, fault).0, how)
            .await
            .unwrap_or_else(|error| panic!("{how}: {error}"));
        assert!(done.was_repeated(), "{how}");
        assert_eq!(
            (done.events().len() as u64, done.events()[0].version),
            (head(&other).await, 1.into()),
            "{how}"
        );
    }

    async fn send(db: &Annals, how: &str) -> Result<Committed, CommandError<Refusal>> {
        let once = |a: &Account| {
            if a.moves > 0 {
                Err(Refusal::Overdrawn)
            } else {
                Ok(deposited(10))
            }
        };
        match how {
            "run" => alice(db).run(once).idempotency_key("k").await,
            "create" => {
                alice(db)
                    .create(|a| a.deposit(10))
                    .idempotency_key("k")
                    .await
            }
            "nothing to do" => {
                alice(db)
                    .run(|a| Ok((a.moves == 0).then_some(deposited(10))))
                    .idempotency_key("k")
                    .await
            }
            _ => {
                let both = (Account::at("alice"), Account::at("bob"));
                db.decide(both, |(a, _)| Ok((once(a)?, ())))
                    .idempotency_key("k")
                    .await
            }
        }
    }
}

#[tokio::test]
async fn a_cached_state_ignores_what_another_process_decided() {
    let [other] = processes();
    let faster = other.clone();
    // After this process decided and before it appends.
    let fault = Meanwhile::once(Call::Append, move || {
        let faster = faster.clone();
        async move {
            let other = |_: &Account| Ok::<_, Refusal>([deposited(3), deposited(4)]);
            alice(&faster)
                .run(other)
                .idempotency_key("k")
                .await
                .unwrap();
        }
    });
    let (db, _) = faulty(&other, fault);
    let done = alice(&db)
        .run(|_| Ok::<_, Refusal>(deposited(100)))
        .idempotency_key("k")
        .await
        .unwrap();
    assert_eq!(
        (done.was_repeated(), done.events().len(), head(&other).await),
        (true, 2, 2)
    );
    assert_eq!(alice(&db).query(|a| a.cents).await.unwrap(), 7);
    alice(&db).run(|a| a.withdraw(7)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_decisions_with_one_key_take_effect_once() {
    let handles: [Annals; 2] = processes();
    handles[0]
        .aggregate::<Account>("alice")
        .run(|a| a.deposit(100))
        .await
        .unwrap();
    let tasks: Vec<_> = (0..8_usize)
        .map(|task| {
            let db = handles[task % 2].clone();
            tokio::spawn(async move {
                let both = (Account::at("alice"), Account::at("bob"));
                db.decide(both, |(a, b)| transfer(a, b, 60))
                    .idempotency_key("move")
                    .await
                    .unwrap()
            })
        })
        .collect();
    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.push(task.await.unwrap());
    }
    one_effect(&outcomes);
    assert_eq!(
        (outcomes[0].events().len(), head(&handles[0]).await),
        (2, 3)
    );
    // The same key over other things is another request.
    let other = handles[0].decide((Account::at("alice"), Account::at("carol")), |(a, b)| {
        transfer(a, b, 40)
    });
    assert!(!other.idempotency_key("move").await.unwrap().was_repeated());
}

#[tokio::test]
async fn keys_work_on_a_log_of_three_partitions() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::with_partitions(3));
    let [here, there] = [Annals::on(Arc::clone(&store)), Annals::on(store)];
    for id in 0..12 {
        let first = here
            .aggregate::<Account>(id)
            .run(|a| a.deposit(5))
            .idempotency_key("k")
            .await
            .unwrap();
        let never = |_: &Account| -> Result<AccountEvent, Refusal> { panic!("decided again") };
        let again = there
            .aggregate::<Account>(id)
            .run(never)
            .idempotency_key("k")
            .await
            .unwrap();
        assert_eq!(first.events(), again.events());
        // A decision over one aggregate is an append to one stream, which every store can do.
        let one = || (Account::at(id),);
        let first = here
            .decide(one(), |(a,)| Ok::<_, Refusal>((a.withdraw(5)?,)))
            .idempotency_key("d")
            .await
            .unwrap();
        let never =
            |_: &(Account,)| -> Result<(AccountEvent,), Refusal> { panic!("decided again") };
        assert_eq!(
            first.events(),
            there
                .decide(one(), never)
                .idempotency_key("d")
                .await
                .unwrap()
                .events()
        );
    }
}
