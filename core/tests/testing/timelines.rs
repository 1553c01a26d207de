//! What a timeline of a store prints.

use crate::account::*;
use annals_core::chrono::TimeDelta;
use annals_core::testing::{self};
use annals_core::{Annals, MemoryStore, Metadata, NewEvent, StreamId};

/// A transfer, and what came of it, by Ada.
async fn told_to(db: &Annals) {
    let db = db.with_metadata(Metadata::default().actor("ada").key("ip", "::1"));
    let alice = db.aggregate::<Account>("alice");
    alice
        .run(|_| Ok::<_, AccountError>([opened("Alice"), deposited(50)]))
        .await
        .unwrap();
    let christmas = "2025-12-24T18:00:00Z".parse().unwrap();
    alice
        .run(|a| a.deposit(5))
        .occurred_at(christmas)
        .await
        .unwrap();
    let cause = db.events().pages().next().await.unwrap().unwrap().events[2].clone();
    db.caused_by(&cause)
        .aggregate::<Account>("bob")
        .run(|_| Ok::<_, AccountError>(opened("Bob")))
        .await
        .unwrap();
    let request = Metadata::default()
        .correlation(*annals_core::EventId::random().as_uuid())
        .tenant("north");
    alice
        .run(|a| a.withdraw(9))
        .metadata(request.clone())
        .await
        .unwrap();
    alice
        .run(|a| a.withdraw(1))
        .metadata(request)
        .idempotency_key("again")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_timeline_is_independent_of_ids_and_clock() {
    let random = Annals::in_memory();
    let counted = testing::annals();
    told_to(&random).await;
    told_to(&counted).await;
    let timeline = testing::timeline(&random, "account-alice").await;
    insta::assert_snapshot!(timeline, @r#"
    1  account-alice@1  account.opened v2 {"owner":"Alice"}  {actor: ada, ip: ::1}
    2  account-alice@2  account.deposited {"cents":50}  {actor: ada, correlation: account-alice@1, ip: ::1}
    3  account-alice@3  account.deposited {"cents":5}  occurred 2025-12-24T18:00:00Z  {actor: ada, ip: ::1}
    5  account-alice@4  account.withdrawn {"cents":9}  {actor: ada, tenant: north, correlation: #1, ip: ::1}
    6  account-alice@5  account.withdrawn {"cents":1}  {actor: ada, tenant: north, correlation: #1, ip: ::1}
    "#);
    assert_eq!(testing::timeline(&counted, "account-alice").await, timeline);
    let log = testing::timeline_of_log(&random).await;
    insta::assert_snapshot!(log, @r#"
    1  account-alice@1  account.opened v2 {"owner":"Alice"}  {actor: ada, ip: ::1}
    2  account-alice@2  account.deposited {"cents":50}  {actor: ada, correlation: account-alice@1, ip: ::1}
    3  account-alice@3  account.deposited {"cents":5}  occurred 2025-12-24T18:00:00Z  {actor: ada, ip: ::1}
    4  account-bob@1    account.opened v2 {"owner":"Bob"}  {actor: ada, correlation: account-alice@3, causation: account-alice@3, ip: ::1}
    5  account-alice@4  account.withdrawn {"cents":9}  {actor: ada, tenant: north, correlation: #1, ip: ::1}
    6  account-alice@5  account.withdrawn {"cents":1}  {actor: ada, tenant: north, correlation: #1, ip: ::1}
    "#);
    assert_eq!(testing::timeline_of_log(&counted).await, log);
}

#[tokio::test]
async fn a_timeline_under_a_stopped_clock_shows_its_times() {
    let db = testing::annals();
    told_to(&db).await;
    db.clock().advance(TimeDelta::milliseconds(1_500));
    db.aggregate::<Account>("bob")
        .run(|b| b.deposit(1))
        .await
        .unwrap();
    insta::assert_snapshot!(db.timeline("account-alice").await, @r#"
    1  account-alice@1  account.opened v2 {"owner":"Alice"}  occurred 2026-01-01T00:00:00Z  {actor: ada, ip: ::1}
    2  account-alice@2  account.deposited {"cents":50}  occurred 2026-01-01T00:00:00Z  {actor: ada, correlation: account-alice@1, ip: ::1}
    3  account-alice@3  account.deposited {"cents":5}  occurred 2025-12-24T18:00:00Z, recorded 2026-01-01T00:00:00Z  {actor: ada, ip: ::1}
    5  account-alice@4  account.withdrawn {"cents":9}  occurred 2026-01-01T00:00:00Z  {actor: ada, tenant: north, correlation: #1, ip: ::1}
    6  account-alice@5  account.withdrawn {"cents":1}  occurred 2026-01-01T00:00:00Z  {actor: ada, tenant: north, correlation: #1, ip: ::1}
    "#);
    insta::assert_snapshot!(db.timeline("account-bob").await, @r#"
    4  account-bob@1  account.opened v2 {"owner":"Bob"}  occurred 2026-01-01T00:00:00Z  {actor: ada, correlation: account-alice@3, causation: account-alice@3, ip: ::1}
    7  account-bob@2  account.deposited {"cents":1}  occurred 2026-01-01T00:00:01.500Z
    "#);
}

#[tokio::test]
async fn a_timeline_shows_hidden_events_and_names_removed_ones() {
    let db = testing::annals();
    let account = db.aggregate::<Account>("alice");
    insta::assert_snapshot!(testing::timeline(&db, "account-alice").await, @r"account-alice is absent");
    assert_eq!(testing::timeline_of_log(&db).await, "nothing");
    account
        .run(|_| Ok::<_, AccountError>([opened("Alice"), deposited(50), deposited(1)]))
        .await
        .unwrap();
    account
        .archive(|state| Ok::<_, AccountError>(deposited(state.cents)))
        .await
        .unwrap();
    account
        .run(|_| Ok::<_, AccountError>(deposited(2)))
        .await
        .unwrap();
    account.truncate_before(5).await.unwrap();
    insta::assert_snapshot!(testing::timeline(&db, "account-alice").await, @r#"
    4  account-alice@4  account.deposited {"cents":51}  (hidden)
    5  account-alice@5  account.deposited {"cents":2}
    account-alice has no events before version 4 any more
    "#);
    account.tombstone().await.unwrap();
    insta::assert_snapshot!(testing::timeline(&db, "account-alice").await, @r#"
    4  account-alice@4  account.deposited {"cents":51}  (hidden)
    5  account-alice@5  account.deposited {"cents":2}  (hidden)
    account-alice has no events before version 4 any more
    account-alice is tombstoned at 5
    "#);
}

#[tokio::test]
async fn a_timeline_tells_partitions_and_bytes() {
    let db = Annals::on(std::sync::Arc::new(MemoryStore::with_partitions(3)));
    for (stream, event) in [
        (
            "note-1",
            NewEvent::new("noted", "raw", b"\xff\x00".as_slice()),
        ),
        (
            "note-2",
            NewEvent::json("noted", b"1".as_slice())
                .schema_version(2)
                .tag("of:ada".parse().unwrap()),
        ),
        ("note-33", NewEvent::json("noted", b"\n2".as_slice())),
    ] {
        let stream = StreamId::new(stream).unwrap();
        let event = event.at("2026-01-01T00:00:00.25Z".parse().unwrap());
        db.store()
            .append(annals_core::Append::new(stream, [event]))
            .await
            .unwrap();
    }
    insta::assert_snapshot!(testing::timeline_of_log(&db).await, @r"
    0/1  note-1@1   noted raw 0xff00  occurred 2026-01-01T00:00:00.250Z
    2/1  note-2@1   noted v2 1  [of:ada]  occurred 2026-01-01T00:00:00.250Z
    2/2  note-33@1  noted json 0x0a32  occurred 2026-01-01T00:00:00.250Z
    ");
}
