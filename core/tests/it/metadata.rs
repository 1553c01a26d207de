//! Correlation, causation, actor, tenant, and free keys: carried without being asked.

use annals_core::{Aggregate, Annals, Metadata, Position, ReadLog, RecordedEvent, with_metadata};

use crate::bank::{Account, Refusal, deposited, transfer};
use crate::store::{alice, processes};

async fn events(db: &Annals) -> Vec<RecordedEvent> {
    db.store()
        .read(ReadLog::after(Position::START))
        .await
        .unwrap()
        .events
}

#[tokio::test]
async fn what_follows_from_nothing_is_known_by_its_first_event() {
    let [db] = processes();
    alice(&db)
        .run(|_| Ok::<_, Refusal>([deposited(1), deposited(2)]))
        .await
        .unwrap();
    db.decide((Account::at("alice"), Account::at("bob")), |(a, b)| {
        transfer(a, b, 1)
    })
    .await
    .unwrap();
    let events = events(&db).await;
    let correlation = |index: usize| events[index].metadata.correlation.unwrap();
    let first = |index: usize| *events[index].id.as_uuid();
    assert_eq!([correlation(0), correlation(1)], [first(0); 2]);
    assert_eq!([correlation(2), correlation(3)], [first(2); 2]);
    assert!(
        events
            .iter()
            .all(|event| event.metadata.causation.is_none())
    );
}

#[tokio::test]
async fn an_effect_names_its_cause_and_keeps_the_correlation() {
    let [db] = processes();
    let hers = db.with_metadata(Metadata::default().tenant("north").actor("ada"));
    alice(&hers).run(|a| a.deposit(1)).await.unwrap();
    let first = events(&db).await.remove(0);
    alice(&db.caused_by(&first))
        .run(|a| a.deposit(1))
        .await
        .unwrap();
    let second = events(&db).await.remove(1);
    alice(&db.caused_by(&second))
        .run(|a| a.deposit(1))
        .await
        .unwrap();
    let third = events(&db).await.remove(2);
    assert_eq!(
        (second.metadata.causation, third.metadata.causation),
        (Some(first.id), Some(second.id))
    );
    assert_eq!(
        [second.metadata.correlation, third.metadata.correlation],
        [Some(*first.id.as_uuid()); 2]
    );
    assert_eq!(third.metadata.tenant.as_deref(), Some("north"));
    // Who did the first did not do the second.
    assert_eq!(second.metadata.actor, None);
}

#[tokio::test]
async fn metadata_comes_from_command_then_handle_then_task() {
    let [db] = processes();
    let task = Metadata::default()
        .actor("task")
        .tenant("task")
        .key("a", "task")
        .key("b", "task")
        .key("c", "task");
    let inner = Metadata::default().key("c", "inner task");
    let outer_handle = db.with_metadata(
        Metadata::default()
            .actor("outer handle")
            .key("b", "outer handle"),
    );
    let handle = outer_handle.with_metadata(Metadata::default().key("b", "handle"));
    let command = Metadata::default().key("a", "command");
    let handle = alice(&handle);
    let ran = with_metadata(
        task,
        with_metadata(
            inner,
            handle.run(|a| a.deposit(1)).metadata(command).into_future(),
        ),
    );
    ran.await.unwrap();
    let metadata = events(&db).await.remove(0).metadata;
    assert_eq!(
        (metadata.actor.as_deref(), metadata.tenant.as_deref()),
        (Some("outer handle"), Some("task"))
    );
    let keys: Vec<_> = metadata
        .keys
        .iter()
        .map(|(key, value)| format!("{key}: {value}"))
        .collect();
    assert_eq!(keys, ["a: command", "b: handle", "c: inner task"]);
}

#[tokio::test]
async fn a_task_that_is_spawned_starts_without_it() {
    let [db] = processes();
    let here = db.clone();
    with_metadata(Metadata::default().actor("ada"), async move {
        let there = here.clone();
        tokio::spawn(async move { alice(&there).run(|a| a.deposit(1)).await.unwrap() })
            .await
            .unwrap();
        alice(&here).run(|a| a.deposit(1)).await.unwrap();
    })
    .await;
    alice(&db).run(|a| a.deposit(1)).await.unwrap();
    let actors: Vec<_> = events(&db)
        .await
        .into_iter()
        .map(|event| event.metadata.actor)
        .collect();
    assert_eq!(actors, [None, Some("ada".into()), None]);
}

#[tokio::test]
async fn a_repeated_request_keeps_the_metadata_of_the_first() {
    let [db] = processes();
    for actor in ["ada", "eve"] {
        let metadata = Metadata::default().actor(actor);
        alice(&db)
            .run(|a| a.deposit(1))
            .idempotency_key("k")
            .metadata(metadata)
            .await
            .unwrap();
    }
    let events = events(&db).await;
    assert_eq!(
        (events.len(), events[0].metadata.actor.as_deref()),
        (1, Some("ada"))
    );
}
