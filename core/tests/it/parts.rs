//! Decisions over none, many and the same aggregates; with parts that are deleted or archived
//! between the look and the append.

use annals_core::{Aggregate, Annals, CommandError, StreamId};

use crate::bank::{Account, AccountEvent, Refusal, deposited};
use crate::store::{given, processes};

type Decided<T> = Result<T, Refusal>;

/// Deposits a cent in each of these accounts.
async fn deposit_in_each(
    db: &Annals,
    ids: &[String],
) -> Result<annals_core::Committed, CommandError<Refusal>> {
    db.decide((Account::at_each(ids),), |(accounts,)| {
        let each = accounts.keys().map(|id| (id.clone(), deposited(1)));
        Decided::Ok((each.collect::<Vec<_>>(),))
    })
    .await
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn a_decision_over_no_aggregate_changes_nothing() {
    let [db] = processes();
    let done = deposit_in_each(&db, &[]).await.unwrap();
    assert_eq!(done.events(), []);
    let none: [&str; 0] = [];
    let wrong = db.decide((Account::at_each(none),), |(accounts,)| {
        assert!(accounts.is_empty());
        Decided::Ok((vec![("alice", deposited(1))],))
    });
    let wrong = wrong.await.unwrap_err();
    assert!(matches!(wrong, CommandError::Invalid(_)), "{wrong}");
    let both = db.decide((Account::at_each(none), Account::at("alice")), |_| {
        Decided::Ok(((), deposited(1)))
    });
    assert_eq!(both.await.unwrap().events().len(), 1);
}

#[tokio::test]
async fn an_aggregate_that_is_named_twice_is_one() {
    let [db] = processes();
    let ids = ["cup", "cup", "plate"].map(str::to_owned);
    let done = deposit_in_each(&db, &ids).await.unwrap();
    assert_eq!(done.events().len(), 2);
    // In two parts it is refused, also where the second look leads back to the first.
    let twice = (Account::at("cup"), Account::at_each(["plate", "cup"]));
    let twice = db.decide(twice, |_| Decided::Ok((deposited(1), ())));
    let twice = twice.await.unwrap_err().to_string();
    assert!(twice.contains("account-cup"), "{twice}");
    let back = db.decide_in_two_looks(
        Account::at("cup"),
        |_| Account::at_each(["cup"]),
        |_| Decided::Ok((deposited(1), ())),
    );
    assert_eq!(back.await.unwrap_err().to_string(), twice);
    assert_eq!(
        db.aggregate::<Account>("cup").load().await.unwrap().cents,
        1
    );
}

#[tokio::test]
async fn as_many_aggregates_as_an_append_checks_are_decided_on() {
    let [db] = processes();
    let most = db.store().limits().append_expectations_max;
    let done = deposit_in_each(&db, &numbered(most)).await.unwrap();
    assert_eq!(done.events().len(), most);
    let wrong = deposit_in_each(&db, &numbered(most + 1)).await.unwrap_err();
    assert!(matches!(wrong, CommandError::Invalid(_)), "{wrong}");
    assert!(wrong.to_string().contains(&most.to_string()), "{wrong}");
    assert_eq!(db.aggregate::<Account>("0").load().await.unwrap().cents, 1);
}

#[tokio::test]
async fn parts_that_were_deleted_or_archived_elsewhere_are_reread() {
    let [db, other] = processes();
    let cents = async |db: &Annals| {
        db.decide((Account::at_each(["a", "b", "c"]),), |(accounts,)| {
            let sum: i64 = accounts.values().map(|account| account.cents).sum();
            Decided::Ok((vec![("c", deposited(sum))],))
        })
        .await
        .unwrap();
        db.aggregate::<Account>("c").load().await.unwrap().cents
    };
    for id in ["a", "b", "c"] {
        given(&db, &format!("account-{id}"), [deposited(10)]).await;
    }
    assert_eq!(cents(&db).await, 40);
    let summary = |account: &Account| Decided::Ok(AccountEvent::BroughtForward(account.clone()));
    other.aggregate::<Account>("a").delete().await.unwrap();
    other
        .aggregate::<Account>("b")
        .archive(summary)
        .await
        .unwrap();
    // From the states that are cached it would be 10 + 10 + 40.
    assert_eq!(cents(&db).await, 40 + 10 + 40);
    // Created again, it has as many events as it had when it was cached.
    other
        .aggregate::<Account>("a")
        .run(|account| account.deposit(1))
        .await
        .unwrap();
    assert_eq!(cents(&db).await, 90 + 1 + 10 + 90);
}

#[tokio::test]
async fn a_key_is_known_after_its_aggregate_was_deleted() {
    let [db, other] = processes();
    let deposit = async |db: &Annals, cents: i64| {
        db.aggregate::<Account>("a")
            .run(move |account| account.deposit(cents))
            .idempotency_key("once")
            .fingerprint(format!("deposit {cents}"))
            .await
    };
    let first = deposit(&db, 5).await.unwrap();
    other.aggregate::<Account>("a").delete().await.unwrap();
    for db in [&db, &other] {
        let again = deposit(db, 5).await.unwrap();
        assert!(again.was_repeated());
        assert_eq!(again.events(), first.events());
        let other = deposit(db, 6).await.unwrap_err();
        assert!(matches!(other, CommandError::KeyReused { .. }), "{other}");
        assert_eq!(db.aggregate::<Account>("a").load().await.unwrap().cents, 0);
    }
}

#[tokio::test]
async fn ids_may_hold_whatever_names_of_streams_may() {
    let [db] = processes();
    let ids = [
        "a-b", "a:b", "a b", "A", "a", "'", "é", "e\u{301}", "-", "%",
    ];
    let ids = ids.map(str::to_owned);
    let done = deposit_in_each(&db, &ids).await.unwrap();
    assert_eq!(done.events().len(), ids.len());
    for id in &ids {
        let stream = StreamId::of("account", id).unwrap();
        assert!(done.version_of(&stream).is_some(), "{id}");
    }
    let longest = "x".repeat(StreamId::BYTES_MAX - "account-".len());
    assert!(
        deposit_in_each(&db, std::slice::from_ref(&longest))
            .await
            .is_ok()
    );
    for wrong in [format!("{longest}x"), String::new(), "a\nb".into()] {
        let refused = deposit_in_each(&db, &[wrong]).await.unwrap_err();
        assert!(matches!(refused, CommandError::Invalid(_)), "{refused}");
        assert!(!refused.to_string().contains('\n'), "{refused}");
    }
}
