//! The events of one aggregate, for display.

use annals_core::{Append, DecodeError, NewEvent, StreamId, Version};

use crate::bank::{AccountEvent, Refusal, deposited};
use crate::store::{alice, given, processes};

#[tokio::test]
async fn it_comes_in_pages_from_either_end() {
    let [db] = processes();
    given(&db, "account-alice", (1..=5).map(deposited)).await;
    let alice = alice(&db);
    let page = alice.history().limit(2).await.unwrap();
    assert_eq!(
        page.entries
            .iter()
            .map(|entry| entry.record.version.get())
            .collect::<Vec<_>>(),
        [1, 2]
    );
    let next = page.next.unwrap();
    let page = alice.history().from(next).await.unwrap();
    assert_eq!(
        page.entries
            .iter()
            .map(|entry| entry.record.version.get())
            .collect::<Vec<_>>(),
        [3, 4, 5]
    );
    assert_eq!((page.next, page.state.version), (None, Version::new(5)));
    let page = alice.history().newest_first().limit(2).await.unwrap();
    assert_eq!(
        page.entries
            .iter()
            .map(|entry| entry.record.version.get())
            .collect::<Vec<_>>(),
        [5, 4]
    );
    let page = alice
        .history()
        .newest_first()
        .to(page.next.unwrap())
        .limit(9)
        .await
        .unwrap();
    assert_eq!(
        page.entries
            .iter()
            .map(|entry| entry.record.version.get())
            .collect::<Vec<_>>(),
        [3, 2, 1]
    );
    assert_eq!(page.entries[0].events.as_ref().unwrap(), &[deposited(3)]);
    let page = alice.history().from(2).to(3).await.unwrap();
    assert_eq!(page.entries.len(), 2);
    assert!(
        db.aggregate::<crate::bank::Account>("nobody")
            .history()
            .await
            .unwrap()
            .entries
            .is_empty()
    );
}

#[tokio::test]
async fn it_shows_what_is_hidden_and_what_cannot_be_read() {
    let [db] = processes();
    let alice = alice(&db);
    given(&db, "account-alice", [deposited(1)]).await;
    let stream = StreamId::new("account-alice").unwrap();
    let strange = [
        NewEvent::json("account.frozen", "{}"),
        NewEvent::json("account.deposited", "{}").schema_version(9),
        NewEvent::new("account.deposited", "cbor", "x"),
        NewEvent::json("account.deposited", "{\"cents\":\"many\"}"),
    ];
    db.store()
        .append(Append::new(stream, strange))
        .await
        .unwrap();
    alice.delete().await.unwrap();
    given(&db, "account-alice", [AccountEvent::Closed]).await;
    alice.truncate_before(6).await.unwrap();

    let page = alice.history().await.unwrap();
    let shown: Vec<_> = page
        .entries
        .iter()
        .map(|entry| match &entry.events {
            Ok(events) => format!("{events:?}"),
            Err(error) => error.to_string(),
        })
        .collect();
    insta::assert_snapshot!(shown.join("\n"), @r"
    [Deposited { cents: 1 }]
    unknown event type `account.frozen`
    unknown schema version 9 of event type `account.deposited`
    unknown codec `cbor` of event type `account.deposited`
    malformed payload of event type `account.deposited` v1
    [Closed]
    ");
    assert!(matches!(
        page.entries[1].events,
        Err(DecodeError::UnknownType { .. })
    ));
    assert_eq!(
        (page.state.deletions.len(), page.state.truncated_before),
        (1, Version::new(6))
    );
    // After the deletion the unreadable ones are in no reader's way.
    assert!(alice.load().await.unwrap().closed);
    assert!(
        alice
            .run(|a| if a.closed {
                Err(Refusal::Closed)
            } else {
                Ok(())
            })
            .await
            .is_err()
    );
}
