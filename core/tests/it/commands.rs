//! `run`, `create`, `update`, `execute`: load, decide, append, and again when others got there
//! first.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use annals_core::conformance::faulty::{Call, FailsOnce};
use annals_core::{Aggregate, CommandError, Failure, IntoEvents, LoadError, Store};
use annals_macros::Event;
use serde::{Deserialize, Serialize};

use crate::bank::{Account, AccountEvent, Refusal, Withdraw, deposited, withdrawn};
use crate::store::{CallCounts, Meanwhile, alice, faulty, head, impatient, processes, since};

#[tokio::test]
async fn a_command_loads_decides_and_appends() {
    let [db] = processes();
    let done = alice(&db).run(|a| a.deposit(1_250)).await.unwrap();
    assert_eq!(
        (done.to_string(), done.was_repeated()),
        ("account-alice is at 1".into(), false)
    );
    assert_eq!(
        done.version_of(alice(&db).stream().unwrap()),
        Some(1.into())
    );
    let account = alice(&db).load().await.unwrap();
    assert_eq!(
        (account.cents, account.exists(), account.version()),
        (1_250, true, 1.into())
    );
    assert_eq!(account.token(), done.token());
}

#[tokio::test]
async fn who_was_overtaken_decides_again_on_the_newer_state() {
    let [here, there] = processes();
    alice(&here).run(|a| a.deposit(100)).await.unwrap();
    alice(&there).run(|a| a.deposit(50)).await.unwrap();
    let mut seen = Vec::new();
    let withdraw_all = |a: &Account| {
        seen.push(a.cents);
        a.withdraw(a.cents)
    };
    alice(&here).run(withdraw_all).await.unwrap();
    assert_eq!(seen, [100, 150]);
    assert_eq!(alice(&there).load().await.unwrap().cents, 0);
}

#[tokio::test]
async fn who_is_always_overtaken_gives_up_and_has_written_nothing() {
    let [other] = processes();
    let faster = other.clone();
    let fault = Meanwhile::always(Call::Append, move || {
        let faster = faster.clone();
        async move {
            alice(&faster).run(|a| a.deposit(1)).await.unwrap();
        }
    });
    let db = faulty(&other, fault).0.with_retries(impatient(3));
    let mut decisions = 0;
    let deposit = |a: &Account| {
        decisions += 1;
        a.deposit(1_000)
    };
    let error = alice(&db).run(deposit).await.unwrap_err();
    assert!(
        matches!(error, CommandError::Contended { attempts: 3 }),
        "{error}"
    );
    assert_eq!(
        (decisions, alice(&other).load().await.unwrap().cents),
        (3, 3)
    );
}

#[tokio::test]
async fn a_refusal_from_an_old_state_is_decided_again() {
    let [here, there] = processes();
    alice(&here).run(|a| a.deposit(10)).await.unwrap();
    alice(&there).run(|a| a.deposit(100)).await.unwrap();
    alice(&here).run(|a| a.withdraw(60)).await.unwrap();
    alice(&there).run(|a| a.deposit(100)).await.unwrap();
    alice(&here).execute(Withdraw { cents: 150 }).await.unwrap();
    assert_eq!(alice(&here).load().await.unwrap().cents, 0);
}

#[tokio::test]
async fn a_refusal_on_the_current_state_writes_nothing() {
    let [db] = processes();
    alice(&db).run(|a| a.deposit(10)).await.unwrap();
    let mut decisions = 0;
    let withdraw = |a: &Account| {
        decisions += 1;
        a.withdraw(11)
    };
    let error = alice(&db)
        .run(withdraw)
        .idempotency_key("w")
        .await
        .unwrap_err();
    assert!(
        matches!(error, CommandError::Refused(Refusal::Overdrawn)),
        "{error}"
    );
    // Once on what was held, once on what was read.
    assert_eq!((decisions, head(&db).await), (2, 1));
    assert!(matches!(
        alice(&db).execute(Withdraw { cents: 11 }).await,
        Err(CommandError::Refused(Refusal::Overdrawn))
    ));
}

#[tokio::test]
async fn a_decision_for_nothing_is_looked_at_again() {
    let [here, there] = processes();
    let close_when_rich =
        |a: &Account| Ok::<_, Refusal>((a.cents >= 100).then_some(AccountEvent::Closed));
    alice(&here).run(|a| a.deposit(10)).await.unwrap();
    let nothing = alice(&here).run(close_when_rich).await.unwrap();
    assert_eq!(
        (nothing.events().len(), nothing.to_string()),
        (0, "nothing to do".into())
    );
    assert_eq!(nothing.token(), alice(&here).load().await.unwrap().token());
    alice(&there).run(|a| a.deposit(100)).await.unwrap();
    assert_eq!(
        alice(&here)
            .run(close_when_rich)
            .await
            .unwrap()
            .events()
            .len(),
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn commands_on_a_hot_aggregate_take_turns_and_never_conflict() {
    let [plain] = processes();
    let (db, store) = faulty(&plain, CallCounts::default());
    let decisions = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let alice = alice(&db);
            let decisions = Arc::clone(&decisions);
            tokio::spawn(async move {
                let deposit = |a: &Account| {
                    decisions.fetch_add(1, Ordering::SeqCst);
                    a.deposit(1)
                };
                alice.run(deposit).await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(alice(&db).load().await.unwrap().cents, 64);
    assert_eq!(
        (
            decisions.load(Ordering::SeqCst),
            store.fault().calls(Call::Append)
        ),
        (64, 64)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn commands_of_several_processes_on_one_aggregate_all_succeed() {
    let handles: [_; 2] = processes();
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let alice = alice(&handles[task % 2]);
            tokio::spawn(async move { alice.run(|a| a.deposit(1)).await.unwrap() })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(alice(&handles[0]).load().await.unwrap().cents, 64);
}

#[tokio::test]
async fn create_wants_nothing_there_and_update_something() {
    let deposit = |a: &Account| a.deposit(1);
    for (state, creates, updates, runs) in [
        ("absent", "ok", "`account-alice` does not exist", "ok"),
        ("active", "`account-alice` exists already", "ok", "ok"),
        ("deleted", "ok", "`account-alice` does not exist", "ok"),
        (
            "tombstoned",
            "`account-alice` was tombstoned",
            "`account-alice` was tombstoned",
            "`account-alice` was tombstoned",
        ),
    ] {
        for (how, expected) in [("create", creates), ("update", updates), ("run", runs)] {
            // Once from the tail, once from a cached state that does not know what the other
            // process did.
            for cached in [false, true] {
                let [db, other] = processes();
                if cached {
                    alice(&db).query(|_| ()).await.unwrap();
                }
                if state != "absent" {
                    alice(&other).run(deposit).await.unwrap();
                }
                match state {
                    "deleted" => drop(alice(&other).delete().await.unwrap()),
                    "tombstoned" => drop(alice(&other).tombstone().await.unwrap()),
                    _ => {}
                }
                let before = head(&db).await;
                let outcome = match how {
                    "create" => alice(&db).create(deposit).await,
                    "update" => alice(&db).update(deposit).await,
                    _ => alice(&db).run(deposit).await,
                };
                let (found, written) = match outcome {
                    Ok(_) => ("ok".to_owned(), 1),
                    Err(error) => (error.to_string(), 0),
                };
                assert_eq!(found, expected, "{how} on {state}, cached: {cached}");
                assert_eq!(
                    head(&db).await,
                    before + written,
                    "{how} on {state}, cached: {cached}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_cached_state_does_not_hide_a_deletion() {
    let [here, there] = processes();
    alice(&here).run(|a| a.deposit(100)).await.unwrap();
    alice(&there).delete().await.unwrap();
    // Decided on the old state it would succeed.
    let error = alice(&here).run(|a| a.withdraw(60)).await.unwrap_err();
    assert!(
        matches!(error, CommandError::Refused(Refusal::Overdrawn)),
        "{error}"
    );
    alice(&here).create(|a| a.deposit(7)).await.unwrap();
    assert_eq!(alice(&there).load().await.unwrap().cents, 7);
}

#[tokio::test]
async fn a_decision_returns_events_in_the_form_that_suits_it() {
    async fn events<D: IntoEvents<AccountEvent>>(decision: fn() -> D) -> usize {
        let [db] = processes();
        let done = alice(&db)
            .run(|_| Ok::<_, Refusal>(decision()))
            .await
            .unwrap();
        assert_eq!(
            since::<AccountEvent>(&db, 0).await,
            decision().into_events()
        );
        done.events().len()
    }
    assert_eq!(events(|| deposited(1)).await, 1);
    assert_eq!(events(|| [deposited(1), withdrawn(1)]).await, 2);
    assert_eq!(
        events(|| vec![deposited(1), deposited(2), AccountEvent::Closed]).await,
        3
    );
    assert_eq!(events(|| Some(deposited(1))).await, 1);
    assert_eq!(events(|| None::<AccountEvent>).await, 0);
    assert_eq!(events(|| ()).await, 0);
}

#[tokio::test]
async fn outcomes_travel_with_a_question_mark() {
    async fn handler(text: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
        let [db] = processes();
        alice(&db).run(|a| a.deposit(10)).await?;
        alice(&db).load().as_of(text).await?;
        alice(&db)
            .run(|_| Err::<(), _>(String::from("no refusal type at all")))
            .await?;
        Ok(())
    }
    assert!(
        handler("yesterday")
            .await
            .unwrap_err()
            .to_string()
            .contains("no RFC 3339 time")
    );
    assert_eq!(
        handler("2026-01-01T00:00:00Z")
            .await
            .unwrap_err()
            .to_string(),
        "no refusal type at all"
    );
}

#[tokio::test]
async fn a_command_can_be_spawned_and_may_borrow() {
    let [db] = processes();
    let amounts = [1, 2, 3];
    let deposits = |a: &Account| {
        amounts
            .iter()
            .map(|cents| a.deposit(*cents))
            .collect::<Result<Vec<_>, _>>()
    };
    assert_eq!(alice(&db).run(deposits).await.unwrap().events().len(), 3);
    let spawned = tokio::spawn(async move { alice(&db).run(|a| a.withdraw(6)).await.map(|_| ()) });
    assert!(spawned.await.unwrap().is_ok());
}

#[tokio::test]
async fn after_an_unreachable_store_the_next_command_works() {
    let [plain] = processes();
    let (db, store) = faulty(&plain, FailsOnce::at([Call::ReadStream, Call::Append]));
    let load = alice(&db).run(|a| a.deposit(1)).await.unwrap_err();
    let CommandError::Load(LoadError::Store(error)) = &load else {
        panic!("{load}")
    };
    assert_eq!(error.failure(), Failure::Unavailable);
    let append = alice(&db).run(|a| a.deposit(1)).await.unwrap_err();
    assert!(matches!(append, CommandError::Append(_)), "{append}");
    alice(&db).run(|a| a.deposit(1)).await.unwrap();
    assert_eq!((head(&db).await, store.fault().left()), (1, 0));
}

/// A note whose author is not stored.
#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "note", crate = "annals_core")]
enum NoteEvent {
    Written {
        text: String,
        #[serde(skip)]
        author: String,
    },
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Note {
    texts: Vec<(String, String)>,
}

impl Aggregate for Note {
    type Event = NoteEvent;

    fn apply(&mut self, NoteEvent::Written { text, author }: &NoteEvent) {
        self.texts.push((text.clone(), author.clone()));
    }
}

#[tokio::test]
async fn after_a_command_the_state_is_what_a_reload_gives() {
    let [db] = processes();
    let note = db.aggregate::<Note>("1");
    let written = NoteEvent::Written {
        text: "a".into(),
        author: "ada".into(),
    };
    note.run(|_| Ok::<_, Refusal>(written.clone()))
        .await
        .unwrap();
    let held = note.query(Note::clone).await.unwrap();
    assert_eq!(held.texts, [("a".into(), String::new())]);
    assert_eq!(&held, &*note.load().await.unwrap());
}

#[test]
fn a_handle_says_which_store_it_is_on() {
    let [db] = processes();
    let store: &dyn Store = &**db.store();
    assert!(store.atomic() && format!("{db:?}").contains("MemoryStore"));
}
