//! `decide`: several aggregates, queries, and both, consistent as a whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use annals_core::conformance::faulty::Call;
use annals_core::{
    Aggregate, Annals, CommandError, Emit, Fold, MemoryStore, Partition, Position, Query,
    QueryItem, ReadLog, Tag,
};

use crate::bank::{Account, AccountEvent, Refusal, deposited, transfer, withdrawn};
use crate::queries::{Total, total};
use crate::store::{
    CallCounts, Hesitant, Meanwhile, alice, faulty, given, head, impatient, processes, since,
};

async fn cents(db: &Annals, id: impl std::fmt::Display) -> i64 {
    db.aggregate::<Account>(id).load().await.unwrap().cents
}

#[tokio::test]
async fn a_transfer_moves_both_accounts_or_none() {
    let [db] = processes();
    given(&db, "account-alice", [deposited(100)]).await;
    let both = || (Account::at("alice"), Account::at("bob"));
    let done = db
        .decide(both(), |(a, b)| transfer(a, b, 70))
        .await
        .unwrap();
    assert_eq!(
        since::<AccountEvent>(&db, 1).await,
        [withdrawn(70), deposited(70)]
    );
    assert_eq!(
        (done.events().len(), done.token().position(Partition(0))),
        (2, Position::new(3))
    );
    let error = db
        .decide(both(), |(a, b)| transfer(a, b, 70))
        .await
        .unwrap_err();
    assert!(
        matches!(error, CommandError::Refused(Refusal::Overdrawn)),
        "{error}"
    );
    assert_eq!(
        (
            cents(&db, "alice").await,
            cents(&db, "bob").await,
            head(&db).await
        ),
        (30, 70, 3)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_transfers_never_overdraw_and_lose_nothing() {
    let handles: [_; 2] = processes();
    for id in 0..4 {
        given(&handles[0], &format!("account-{id}"), [deposited(100)]).await;
    }
    let tasks: Vec<_> = (0..64_usize)
        .map(|task| {
            let db = handles[task % 2].clone();
            let from = task % 4;
            let to = (task + 1 + task / 4 % 3) % 4;
            tokio::spawn(async move {
                db.decide((Account::at(from), Account::at(to)), |(a, b)| {
                    transfer(a, b, 30)
                })
                .await
                .map(|_| ())
            })
        })
        .collect();
    let mut moved = 0;
    let mut refused = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(()) => moved += 1,
            Err(CommandError::Refused(Refusal::Overdrawn)) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    let mut sum = 0;
    for id in 0..4 {
        for version in 0..=handles[0]
            .aggregate::<Account>(id)
            .load()
            .await
            .unwrap()
            .version()
            .get()
        {
            let then = handles[0]
                .aggregate::<Account>(id)
                .load()
                .at_version(version)
                .await
                .unwrap();
            assert!(then.cents >= 0, "account {id} at version {version}");
        }
        sum += cents(&handles[0], id).await;
    }
    assert_eq!((sum, head(&handles[0]).await), (400, 4 + 2 * moved));
    assert!(
        moved >= 12 && moved + refused == 64,
        "{moved} moved, {refused} refused"
    );
}

#[tokio::test]
async fn an_aggregate_that_is_only_looked_at_still_guards() {
    let [other] = processes();
    given(&other, "account-alice", [deposited(100)]).await;
    let closing = other.clone();
    let fault = Meanwhile::once(Call::Append, move || {
        let closing = closing.clone();
        async move { given(&closing, "account-alice", [AccountEvent::Closed]).await }
    });
    let (db, _) = faulty(&other, fault);
    // Bob gets a bonus as long as alice is a customer.
    let bonus = |(a, b): &(Account, Account)| {
        Ok((
            (),
            if a.closed {
                Err(Refusal::Closed)
            } else {
                b.deposit(5)
            }?,
        ))
    };
    let error = db
        .decide((Account::at("alice"), Account::at("bob")), bonus)
        .await
        .unwrap_err();
    assert!(
        matches!(error, CommandError::Refused(Refusal::Closed)),
        "{error}"
    );
    assert_eq!(cents(&other, "bob").await, 0);
}

#[tokio::test]
async fn a_refusal_from_parts_of_different_moments_is_retried() {
    // Between the loading of alice and of bob all her money moves to him: together they never had
    // less than 100.
    for call in [Call::ReadStream, Call::ReadQuery] {
        let [other] = processes();
        given(&other, "account-alice", [deposited(100)]).await;
        let moving = other.clone();
        let fault = Meanwhile::once(call, move || {
            let moving = moving.clone();
            async move {
                let both = (Account::at("alice"), Account::at("bob"));
                moving
                    .decide(both, |(a, b)| transfer(a, b, 100))
                    .await
                    .unwrap();
            }
        });
        let (db, store) = faulty(
            &other,
            fault.skipping(usize::from(call == Call::ReadStream)),
        );
        let mut decisions = 0;
        let rich = |there: i64| {
            decisions += 1;
            if there == 100 { Ok(()) } else { Err(there) }
        };
        let outcome = match call {
            Call::ReadStream => {
                let mut rich = rich;
                let both = (Account::at("bob"), Account::at("alice"));
                db.decide(both, |(b, a)| rich(a.cents + b.cents).map(|()| ((), ())))
                    .await
            }
            _ => {
                let mut rich = rich;
                db.decide((Account::at("bob"), total()), |(b, t)| {
                    rich(t.cents - b.cents).map(|()| ((), ()))
                })
                .await
            }
        };
        // By then it holds (all of it is bob's), or is refused for what it is.
        match call {
            Call::ReadStream => assert!(outcome.unwrap().events().is_empty()),
            _ => assert!(matches!(outcome.unwrap_err(), CommandError::Refused(0))),
        }
        assert_eq!(decisions, 2, "{call:?}");
        drop(store);
    }
}

#[tokio::test]
async fn a_decision_for_nothing_says_what_it_looked_at() {
    let [db] = processes();
    given(&db, "account-alice", [deposited(100)]).await;
    let done = db
        .decide((Account::at("alice"), total()), |_| {
            Ok::<_, Refusal>(((), ()))
        })
        .await
        .unwrap();
    assert_eq!(
        (done.events().len(), done.token().position(Partition(0))),
        (0, Position::new(1))
    );
    let done = db.decide(total(), |_| Ok::<_, Refusal>(())).await.unwrap();
    assert_eq!(done.token().position(Partition(0)), Position::new(1));
}

#[tokio::test]
async fn an_aggregate_and_a_query_in_one_decision() {
    let [db] = processes();
    given(&db, "account-alice", [deposited(100)]).await;
    given(&db, "account-bob", [deposited(100)]).await;
    // The bank lends no more than it has.
    let lend = |(a, all): &(Account, Total)| {
        if all.cents < 500 {
            Ok((a.deposit(all.cents)?, ()))
        } else {
            Err(Refusal::Overdrawn)
        }
    };
    let mut outcomes = Vec::new();
    for _ in 0..3 {
        outcomes.push(
            db.decide((Account::at("alice"), total()), lend)
                .await
                .is_ok(),
        );
    }
    assert_eq!(
        (outcomes, cents(&db, "alice").await),
        (vec![true, true, false], 700)
    );
}

#[tokio::test]
async fn an_explicit_list_names_stream_and_tags_of_each_event() {
    let [db] = processes();
    let tag: Tag = "campaign:spring".parse().unwrap();
    let gifts = |_: &(Account,)| {
        Ok::<_, Refusal>(vec![
            Emit::to_aggregate(&Account::at("bob"), deposited(5))
                .tagged("campaign:spring".parse().unwrap()),
            Emit::to("account-carol", [deposited(6), AccountEvent::Closed]),
        ])
    };
    let done = db.decide((Account::at("alice"),), gifts).await.unwrap();
    let streams: Vec<_> = done
        .events()
        .iter()
        .map(|placed| placed.to_stream())
        .collect();
    assert_eq!(
        streams,
        ["account-bob@1", "account-carol@1", "account-carol@2"]
    );
    let events = db
        .store()
        .read(ReadLog::after(Position::START))
        .await
        .unwrap()
        .events;
    assert_eq!(
        events
            .iter()
            .map(|event| event.tags.contains(&tag))
            .collect::<Vec<_>>(),
        [true, false, false]
    );
    // One, an array, an option.
    let one = |_: &Total| Ok::<_, Refusal>(Emit::to("account-dan", deposited(1)));
    assert_eq!(db.decide(total(), one).await.unwrap().events().len(), 1);
    let none = |_: &Total| Ok::<_, Refusal>(None::<Emit>);
    assert_eq!(db.decide(total(), none).await.unwrap().events().len(), 0);
    let array = |_: &Total| {
        Ok::<_, Refusal>([
            Emit::to("account-dan", deposited(1)),
            Emit::to("account-eve", deposited(1)),
        ])
    };
    assert_eq!(db.decide(total(), array).await.unwrap().events().len(), 2);
}

trait ToStream {
    fn to_stream(&self) -> String;
}

impl ToStream for annals_core::Placed {
    fn to_stream(&self) -> String {
        format!("{}@{}", self.stream, self.version)
    }
}

/// A fold over one account by its query.
fn total_of(id: usize) -> annals_core::Over<Total> {
    Total::over(Query::stream(format!("account-{id}").parse().unwrap()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_racing_decisions_exactly_one_wins() {
    for racers in [8, 16] {
        let handles: [_; 2] = processes();
        let tasks: Vec<_> = (0..racers)
            .map(|task| {
                let db = handles[task % 2].clone();
                // Each into a stream of its own: only the query ties them together.
                let first = move |all: &Total| match all.events {
                    0 => Ok(Emit::to(format!("account-{task}"), deposited(1))),
                    _ => Err(Refusal::Overdrawn),
                };
                tokio::spawn(async move { db.decide(total(), first).await.is_ok() })
            })
            .collect();
        let mut won = 0;
        for task in tasks {
            won += usize::from(task.await.unwrap());
        }
        assert_eq!((won, head(&handles[0]).await), (1, 1), "{racers} racers");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn crosswise_decisions_let_at_most_one_through_and_none_deadlocks() {
    for _ in 0..20 {
        let handles: [_; 2] = processes();
        let cross = |db: &Annals, looks_at: usize, writes: usize| {
            let db = db.clone();
            tokio::spawn(async move {
                let decide = move |there: &Total| match there.events {
                    0 => Ok(Emit::to(format!("account-{writes}"), deposited(1))),
                    _ => Err(Refusal::Overdrawn),
                };
                db.decide(total_of(looks_at), decide).await
            })
        };
        let one = cross(&handles[0], 1, 2);
        let other = cross(&handles[1], 2, 1);
        let outcomes = [one.await.unwrap(), other.await.unwrap()];
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        assert!(
            outcomes
                .iter()
                .all(|outcome| matches!(outcome, Ok(_) | Err(CommandError::Refused(_))))
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn disjoint_decisions_never_conflict() {
    let [db] = processes();
    let decisions = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..16_usize)
        .flat_map(|task| [(task, true), (task, false)])
        .map(|(task, by_query)| {
            let db = db.clone();
            let decisions = Arc::clone(&decisions);
            tokio::spawn(async move {
                let count = || decisions.fetch_add(1, Ordering::SeqCst);
                if by_query {
                    let emit = |_: &Total| {
                        Ok::<_, Refusal>(
                            (count(), Emit::to(format!("account-{task}"), deposited(1))).1,
                        )
                    };
                    db.decide(total_of(task), emit).await.unwrap();
                } else {
                    let pair = (
                        Account::at(format!("a{task}")),
                        Account::at(format!("b{task}")),
                    );
                    let both = |(a, b): &(Account, Account)| (count(), transfer(a, b, 0)).1;
                    db.decide(pair, both).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(
        (decisions.load(Ordering::SeqCst), head(&db).await),
        (32, 16 + 32)
    );
}

#[tokio::test]
async fn the_same_query_twice_does_not_conflict_with_itself() {
    let [db] = processes();
    given(&db, "account-1", [deposited(1)]).await;
    let emit = |(one, same): &(Total, Total)| {
        assert_eq!(one, same);
        Ok::<_, Refusal>(Emit::to("account-1", deposited(1)))
    };
    db.decide((total_of(1), total_of(1)), emit).await.unwrap();
    assert_eq!(head(&db).await, 2);
}

#[tokio::test]
async fn an_event_between_two_queries_of_one_decision_is_noticed() {
    for refuses in [false, true] {
        let [other] = processes();
        let faster = other.clone();
        // Of what the first query finds, after it was read and before the second one is.
        let fault = Meanwhile::once(Call::ReadQuery, move || {
            let faster = faster.clone();
            async move { given(&faster, "account-1", [deposited(1)]).await }
        });
        let (db, _) = faulty(&other, fault.skipping(1));
        let mut seen = Vec::new();
        let decide = |(one, _): &(Total, Total)| {
            seen.push(one.events);
            if refuses {
                Err(one.events)
            } else {
                Ok(Emit::to("account-3", deposited(1)))
            }
        };
        let outcome = db.decide((total_of(1), total_of(2)), decide).await;
        match outcome {
            Ok(_) => assert!(!refuses),
            Err(error) => assert!(matches!(error, CommandError::Refused(1)), "{error}"),
        }
        assert_eq!(seen, [0, 1]);
    }
}

/// Sixteen at once, none of which is ever ready at the first look: in step, each round lets one
/// through.
async fn in_step(
    db: &Annals,
    pair: fn(usize) -> (annals_core::At<Account>, annals_core::At<Account>),
) -> usize {
    let decisions = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let db = db.clone();
            let decisions = Arc::clone(&decisions);
            tokio::spawn(async move {
                let both = |(a, b): &(Account, Account)| {
                    (decisions.fetch_add(1, Ordering::SeqCst), transfer(a, b, 0)).1
                };
                db.decide(pair(task), both).await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    decisions.load(Ordering::SeqCst)
}

#[tokio::test]
async fn decisions_that_were_overtaken_line_up() {
    let [plain] = processes();
    let db = faulty(&plain, Hesitant).0.with_retries(impatient(100));
    // Each loses at most once, and once more to a decision that has just come.
    let decisions = in_step(&db, |_| (Account::at("alice"), Account::at("bob"))).await;
    assert!(decisions <= 3 * 16, "{decisions} decisions");
    // … also with partners in another order: no lock waits in a circle.
    let crossed = |task: usize| {
        let a = Account::at("alice");
        let b = Account::at("bob");
        if task.is_multiple_of(2) {
            (a, b)
        } else {
            (b, a)
        }
    };
    let decisions = in_step(&db, crossed).await;
    assert!(decisions <= 3 * 16, "{decisions} decisions");
    assert_eq!(head(&plain).await, 4 * 16);
}

#[tokio::test]
async fn an_event_between_two_pages_of_a_query_is_noticed() {
    let [other] = processes();
    given(&other, "account-1", (0..1_500).map(|_| deposited(1))).await;
    let faster = other.clone();
    let fault = Meanwhile::once(Call::ReadQuery, move || {
        let faster = faster.clone();
        async move { given(&faster, "account-2", [deposited(1)]).await }
    });
    let (db, _) = faulty(&other, fault.skipping(1));
    let mut seen = Vec::new();
    let emit = |all: &Total| {
        seen.push(all.events);
        Ok::<_, Refusal>(Emit::to("account-3", deposited(1)))
    };
    db.decide(total(), emit).await.unwrap();
    assert_eq!(seen, [1_500, 1_501]);
}

#[tokio::test]
async fn who_is_always_overtaken_gives_up() {
    let [other] = processes();
    let faster = other.clone();
    let fault = Meanwhile::always(Call::Append, move || {
        let faster = faster.clone();
        async move { given(&faster, "account-alice", [deposited(1)]).await }
    });
    let db = faulty(&other, fault).0.with_retries(impatient(3));
    let error = db
        .decide((Account::at("alice"), Account::at("bob")), |(a, b)| {
            transfer(a, b, 0)
        })
        .await
        .unwrap_err();
    assert!(
        matches!(error, CommandError::Contended { attempts: 3 }),
        "{error}"
    );
    assert_eq!((cents(&other, "alice").await, head(&other).await), (3, 3));
}

#[tokio::test]
async fn decisions_share_what_they_only_look_at_without_waiting() {
    let [plain] = processes();
    let (db, store) = faulty(&plain, CallCounts::default());
    for id in 0..4 {
        let boundary = (Account::at("settings"), Account::at(id));
        db.decide(boundary, |(_, a)| Ok::<_, Refusal>(((), a.deposit(1)?)))
            .await
            .unwrap();
    }
    assert_eq!(store.fault().calls(Call::Append), 4);
}

#[tokio::test]
async fn a_tombstoned_aggregate_is_absent_and_refuses_events() {
    let [db] = processes();
    given(&db, "account-alice", [deposited(100)]).await;
    alice(&db).tombstone().await.unwrap();
    let both = || (Account::at("alice"), Account::at("bob"));
    let error = db
        .decide(both(), |(a, b)| transfer(a, b, 1))
        .await
        .unwrap_err();
    assert!(
        matches!(error, CommandError::Refused(Refusal::Overdrawn)),
        "{error}"
    );
    let error = db
        .decide(both(), |(a, b)| {
            Ok::<_, Refusal>((a.deposit(1)?, b.deposit(1)?))
        })
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "`account-alice` was tombstoned");
    assert!(matches!(error, CommandError::Tombstoned { .. }));
    db.decide(both(), |(_, b)| Ok::<_, Refusal>(((), b.deposit(1)?)))
        .await
        .unwrap();
    assert_eq!(head(&db).await, 2);
}

#[tokio::test]
async fn a_partitioned_log_refuses_decisions_over_several_aggregates() {
    let db = Annals::on(Arc::new(MemoryStore::with_partitions(3)));
    let never =
        |_: &(Account, Account)| -> Result<((), ()), Refusal> { panic!("decided all the same") };
    let several = db
        .decide((Account::at("alice"), Account::at("bob")), never)
        .await
        .unwrap_err();
    let query = db
        .decide(total(), |_| Ok::<_, Refusal>(()))
        .await
        .unwrap_err();
    let emits = |_: &(Account,)| {
        Ok::<_, Refusal>([
            Emit::to("account-x", deposited(1)),
            Emit::to("account-y", deposited(1)),
        ])
    };
    let emitted = db.decide((Account::at("alice"),), emits).await.unwrap_err();
    for (error, what) in [
        (several, "several streams at once"),
        (query, "a query"),
        (emitted, "several streams at once"),
    ] {
        let expected = format!(
            "this store cannot decide over {what}: its log has 3 partitions, and no order across \
             them"
        );
        assert_eq!(error.to_string(), expected);
        assert!(matches!(error, CommandError::Invalid(_)), "{what}");
    }
    // One aggregate is an append to one stream, on any store.
    db.decide((Account::at("alice"),), |(a,)| {
        Ok::<_, Refusal>((a.deposit(1)?,))
    })
    .await
    .unwrap();
    assert_eq!(cents(&db, "alice").await, 1);
}

#[tokio::test]
async fn a_key_outlives_a_fold_that_learned_new_types() {
    /// The same question, asked by a program that knows one more type.
    #[derive(Default)]
    struct Deposits(usize);
    impl Fold for Deposits {
        type Event = AccountEvent;
        fn apply(&mut self, _: &annals_core::Recorded<AccountEvent>) {
            self.0 += 1;
        }
    }
    #[derive(annals_macros::Event, serde::Serialize, serde::Deserialize)]
    #[event(
        category = "account",
        name = "account.deposited",
        crate = "annals_core"
    )]
    struct OldDeposited {
        cents: i64,
    }
    #[derive(Default)]
    struct OldDeposits(i64);
    impl Fold for OldDeposits {
        type Event = OldDeposited;
        fn apply(&mut self, event: &annals_core::Recorded<OldDeposited>) {
            self.0 += event.cents;
        }
    }
    let [before, after] = processes();
    let query =
        || Query::tagged(["a:1".parse().unwrap()]).or(QueryItem::types(["account.deposited"]));
    let emit = || Emit::to("account-1", deposited(1));
    let first = before.decide(OldDeposits::over(query()), |old| {
        Ok::<_, i64>((old.0, emit()).1)
    });
    let first = first.idempotency_key("k").await.unwrap();
    let again = after
        .decide(Deposits::over(query()), |new| Err::<Emit, _>(new.0))
        .idempotency_key("k")
        .await
        .unwrap();
    assert_eq!(first.events(), again.events());
    let other = after.decide(
        Deposits::over(query().or(QueryItem::types(["account.closed"]))),
        |_| Ok::<_, ()>(emit()),
    );
    assert!(!other.idempotency_key("k").await.unwrap().was_repeated());
}

#[tokio::test]
async fn a_refusal_counts_only_after_all_newer_events_were_read() {
    let [other] = processes();
    let tagged = |tags: &[&str]| {
        let mut event = annals_core::NewEvent::of(&deposited(1)).unwrap();
        event.tags = tags.iter().map(|tag| tag.parse().unwrap()).collect();
        event
    };
    let stream = annals_core::StreamId::new("account-alice").unwrap();
    let many: Vec<_> = (0..10_000).map(|_| tagged(&["a:1"])).collect();
    let both = tagged(&["a:1", "b:1"]);
    let writing = Arc::clone(other.store());
    let fault = Meanwhile::once(Call::ReadQuery, move || {
        let writing = Arc::clone(&writing);
        let appends = [many.clone(), vec![both.clone()]]
            .map(|events| annals_core::Append::new(stream.clone(), events));
        async move {
            for append in appends {
                writing.append(append).await.unwrap();
            }
        }
    })
    .skipping(1);
    let (db, _) = faulty(&other, fault);
    let query = Query::tagged(["a:1".parse().unwrap(), "b:1".parse().unwrap()]);
    let done = db
        .decide(Total::over(query), |total| match total.events {
            0 => Err("nothing has both tags"),
            _ => Ok(Emit::to("account-bob", deposited(1))),
        })
        .await
        .unwrap();
    assert_eq!(done.events().len(), 1);
}
