//! A change of a stream has an id: repeated, it changes nothing.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

use annals_core::{
    Append, AppendError, ChangeStream, EventStore, Expected, NewEvent, ReadStream, Status,
    StreamChange, StreamId, Version,
};
use annals_sqlite::{Options, SqliteStore};
use tempfile::TempDir;

async fn append(store: &SqliteStore, stream: &StreamId) {
    let event = NewEvent::json("thing.happened", b"{}".as_slice());
    let append = Append::new(stream.clone(), [event]);
    store.append(append).await.unwrap();
}

#[tokio::test]
async fn a_repeated_deletion_leaves_what_came_after_it() {
    let directory = TempDir::new().unwrap();
    let options = Options::file(directory.path().join("log.db"));
    let store = SqliteStore::open_with(options.clone()).await.unwrap();
    let stream = StreamId::new("a-1").unwrap();
    append(&store, &stream).await;
    let delete = ChangeStream::new(&stream, StreamChange::Delete).expecting(Expected::Exists);
    store.change_stream(delete.clone()).await.unwrap();
    // Its answer was lost; meanwhile another process writes to the stream again.
    let other = SqliteStore::open_with(options.clone()).await.unwrap();
    append(&other, &stream).await;
    for store in [store, other, SqliteStore::open_with(options).await.unwrap()] {
        let state = store.change_stream(delete.clone()).await.unwrap();
        assert_eq!(
            (state.status, state.version),
            (Status::Active, Version::new(2))
        );
        let page = store
            .read_stream(ReadStream::of(stream.clone()))
            .await
            .unwrap();
        assert_eq!(page.events.len(), 1);
    }
}

#[tokio::test]
async fn the_id_of_another_change_is_a_clash() {
    let store = SqliteStore::open("sqlite::memory:").await.unwrap();
    let stream = StreamId::new("a-1").unwrap();
    let other = StreamId::new("a-2").unwrap();
    append(&store, &stream).await;
    append(&store, &other).await;
    let changes = [
        StreamChange::Truncate {
            before: Version::new(2),
        },
        StreamChange::Archive {
            before: Version::new(1),
        },
        StreamChange::Delete,
        StreamChange::Tombstone,
    ];
    for change in changes {
        let asked = ChangeStream::new(&stream, change);
        store.change_stream(asked.clone()).await.unwrap();
        store.change_stream(asked.clone()).await.unwrap();
        let elsewhere = ChangeStream::new(&other, change).id(asked.id);
        let otherwise = changes.into_iter().find(|other| *other != change).unwrap();
        let otherwise = ChangeStream::new(&stream, otherwise).id(asked.id);
        for clash in [elsewhere, otherwise] {
            let refused = store.change_stream(clash).await;
            assert!(
                matches!(refused, Err(AppendError::IdClash(_))),
                "{refused:?}"
            );
        }
    }
}
