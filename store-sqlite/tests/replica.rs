//! A store that is the local copy of a log kept elsewhere.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

use std::sync::{Arc, Mutex, mpsc};

use annals_core::{
    Append, AppendError, ChangeStream, EventStore as _, Expected, Failure, Log as _, LogId,
    NewEvent, Partition, Position, ReadLog, ReadStream, StoreError, StreamChange, StreamId,
    Version,
};
use annals_sqlite::{Options, ReplicaEntry, ReplicaPlace, SqliteStore, Upstream};
use tempfile::TempDir;

/// A log in memory; it may lose its next answer, or refuse to record.
#[derive(Clone, Debug, Default)]
struct Kept {
    entries: Arc<Mutex<Vec<ReplicaEntry>>>,
    fails: Arc<Mutex<Option<Fails>>>,
}

#[derive(Clone, Copy, Debug)]
enum Fails {
    Before,
    After,
}

impl Upstream for Kept {
    fn record(&mut self, entries: &[ReplicaEntry]) -> Result<u64, StoreError> {
        let fails = self.fails.lock().unwrap().take();
        let lost = || Err(StoreError::new(Failure::Unavailable, "no answer"));
        if matches!(fails, Some(Fails::Before)) {
            return lost();
        }
        let mut kept = self.entries.lock().unwrap();
        kept.extend(entries.iter().cloned());
        match fails {
            Some(_) => lost(),
            None => Ok(kept.len() as u64),
        }
    }
}

impl Kept {
    fn after(&self, cursor: u64) -> (Vec<ReplicaEntry>, u64) {
        let kept = self.entries.lock().unwrap();
        (kept[cursor as usize..].to_vec(), kept.len() as u64)
    }
}

async fn replica(folder: &TempDir, name: &str, log: LogId) -> SqliteStore {
    let options = Options::file(folder.path().join(name)).replica_of(log);
    SqliteStore::open_with(options).await.unwrap()
}

fn stream(name: &str) -> StreamId {
    StreamId::new(name).unwrap()
}

fn events(count: usize) -> Vec<NewEvent> {
    let event = |n: usize| NewEvent::json("thing.happened", n.to_string());
    (0..count).map(event).collect()
}

/// All that a store says of its log.
async fn picture(store: &SqliteStore) -> String {
    let log = store.read(ReadLog::after(Position::START)).await.unwrap();
    let mut picture = format!("{} {:?} {:?}", store.id(), log.events, log.removed);
    for name in ["a-1", "b-1", "gone-1"] {
        let read = ReadStream::of(stream(name)).everything().backward();
        let page = store.read_stream(read).await.unwrap();
        picture += &format!("{:?} {:?}", page.state, page.events);
    }
    picture
}

#[tokio::test]
async fn what_one_replica_records_makes_another_one_equal() {
    let (folder, kept) = (TempDir::new().unwrap(), Kept::default());
    let log = LogId::random();
    let one = replica(&folder, "one.db", log).await;
    one.own(Some(Box::new(kept.clone()))).await.unwrap();
    let given = events(3);
    let first = one
        .append(Append::new(stream("a-1"), given.clone()))
        .await
        .unwrap();
    one.append(Append::new(stream("b-1"), events(1)))
        .await
        .unwrap();
    let archive = StreamChange::Archive {
        before: Version::new(2),
    };
    let archived = ChangeStream::new(&stream("a-1"), archive);
    one.change_stream(archived.clone()).await.unwrap();
    let tombstone = ChangeStream::new(&stream("gone-1"), StreamChange::Tombstone);
    one.change_stream(tombstone).await.unwrap();
    // What changes nothing is recorded nowhere.
    let stale = Append::new(stream("a-1"), events(1)).expecting(Expected::NoStream);
    assert!(matches!(
        one.append(stale).await,
        Err(AppendError::Conflict(_))
    ));
    let again = Append::new(stream("a-1"), given.clone());
    assert!(one.append(again.clone()).await.unwrap().was_repeated());
    assert_eq!(kept.after(0).1, 4);

    let two = replica(&folder, "two.db", log).await;
    let (entries, cursor) = kept.after(0);
    two.apply(entries.clone(), cursor).await.unwrap();
    assert_eq!(picture(&two).await, picture(&one).await);
    let place = ReplicaPlace { cursor, note: None };
    assert_eq!(two.replica_place().await.unwrap(), place);
    assert_eq!(one.replica_place().await.unwrap(), place);
    // Once more changes nothing, and what is known is known here too.
    two.apply(entries, cursor).await.unwrap();
    assert_eq!(picture(&two).await, picture(&one).await);
    assert_eq!(two.append(again).await.unwrap(), first);
    two.change_stream(archived).await.unwrap();
}

#[tokio::test]
async fn another_event_at_a_position_that_was_copied_is_refused() {
    let (folder, log) = (TempDir::new().unwrap(), LogId::random());
    let copied = async |name: &str| {
        let kept = Kept::default();
        let store = replica(&folder, name, log).await;
        store.own(Some(Box::new(kept.clone()))).await.unwrap();
        let append = Append::new(stream("a-1"), events(2));
        store.append(append).await.unwrap();
        (store, kept)
    };
    let (one, kept) = copied("one.db").await;
    let (_, other) = copied("two.db").await;
    one.own(None).await.unwrap();
    let (entries, cursor) = kept.after(0);
    one.apply(entries, cursor).await.unwrap();
    let (entries, cursor) = other.after(0);
    let refused = one.apply(entries, cursor).await.unwrap_err();
    let said = "another event is at 1 than the log has there";
    assert!(refused.to_string().contains(said), "{refused}");
    assert!(matches!(refused, AppendError::Store(error) if error.failure() == Failure::Corrupt));
}

#[tokio::test]
async fn a_replica_that_follows_takes_nothing_new() {
    let (folder, kept) = (TempDir::new().unwrap(), Kept::default());
    let store = replica(&folder, "log.db", LogId::random()).await;
    let append = Append::new(stream("a-1"), events(1));
    let refused = store.append(append.clone()).await.unwrap_err();
    assert!(matches!(&refused, AppendError::Store(error) if error.failure() == Failure::ReadOnly));
    store.own(Some(Box::new(kept.clone()))).await.unwrap();
    store.append(append).await.unwrap();
    store.own(None).await.unwrap();
    let more = Append::new(stream("a-1"), events(1));
    assert!(matches!(
        store.append(more).await,
        Err(AppendError::Store(_))
    ));
    assert_eq!(kept.after(0).1, 1);
    assert_eq!(
        store.head(Partition(0)).await.unwrap().visible,
        Position::new(1)
    );
}

#[tokio::test]
async fn what_was_not_recorded_for_certain_is_unknown_until_applied() {
    for fails in [Fails::Before, Fails::After] {
        let (folder, kept) = (TempDir::new().unwrap(), Kept::default());
        let store = replica(&folder, "log.db", LogId::random()).await;
        store.own(Some(Box::new(kept.clone()))).await.unwrap();
        *kept.fails.lock().unwrap() = Some(fails);
        let append = Append::new(stream("a-1"), events(2));
        let unknown = store.append(append.clone()).await;
        assert!(
            matches!(unknown, Err(AppendError::Unknown(_))),
            "{unknown:?}"
        );
        let head = store.head(Partition(0)).await.unwrap().visible;
        assert_eq!(head, Position::START);
        // Nothing is taken before what may have happened is known.
        let other = store.append(Append::new(stream("b-1"), events(1))).await;
        assert!(matches!(other, Err(AppendError::Store(_))), "{other:?}");
        let (entries, cursor) = kept.after(0);
        store.apply(entries, cursor).await.unwrap();
        store.own(Some(Box::new(kept.clone()))).await.unwrap();
        let again = store.append(append).await.unwrap();
        assert_eq!(again.was_repeated(), matches!(fails, Fails::After));
        assert_eq!(kept.after(0).1, 1);
    }
}

#[tokio::test]
async fn entries_that_do_not_follow_are_refused() {
    let (folder, kept) = (TempDir::new().unwrap(), Kept::default());
    let one = replica(&folder, "one.db", LogId::random()).await;
    one.own(Some(Box::new(kept.clone()))).await.unwrap();
    for _ in 0..2 {
        one.append(Append::new(stream("a-1"), events(1)))
            .await
            .unwrap();
    }
    let two = replica(&folder, "two.db", one.id()).await;
    let (entries, cursor) = kept.after(1);
    let refused = two.apply(entries, cursor).await.unwrap_err();
    assert!(
        refused.to_string().contains("position 1 was expected"),
        "{refused}"
    );
    let (mut entries, cursor) = kept.after(0);
    if let ReplicaEntry::Append(append) = &mut entries[1] {
        append.version = Version::new(7);
    }
    let refused = two.apply(entries, cursor).await.unwrap_err();
    assert!(refused.to_string().contains("has version 7"), "{refused}");
}

#[tokio::test]
async fn what_is_refused_leaves_a_replica_as_it_was() {
    let (folder, kept) = (TempDir::new().unwrap(), Kept::default());
    let one = replica(&folder, "one.db", LogId::random()).await;
    one.own(Some(Box::new(kept.clone()))).await.unwrap();
    for _ in 0..3 {
        one.append(Append::new(stream("a-1"), events(2)))
            .await
            .unwrap();
    }
    let two = replica(&folder, "two.db", one.id()).await;
    let (entries, cursor) = kept.after(0);
    two.apply(entries[..1].to_vec(), 1).await.unwrap();
    let mut wrong = entries[1..].to_vec();
    if let ReplicaEntry::Append(append) = &mut wrong[1] {
        append.version = Version::new(7);
    }
    // The first of the two follows, the second does not.
    two.apply(wrong, cursor).await.unwrap_err();
    let place = two.replica_place().await.unwrap();
    let head = two.head(Partition(0)).await.unwrap().visible;
    assert_eq!((place.cursor, head), (1, Position::new(2)));
    two.apply(entries[1..].to_vec(), cursor).await.unwrap();
    assert_eq!(
        two.head(Partition(0)).await.unwrap().visible,
        Position::new(6)
    );
}

#[tokio::test]
async fn a_replica_is_not_opened_as_a_store() {
    let folder = TempDir::new().unwrap();
    let log = LogId::random();
    drop(replica(&folder, "log.db", log).await);
    let file = || Options::file(folder.path().join("log.db"));
    let refused = SqliteStore::open_with(file())
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("kept elsewhere"), "{refused}");
    let other = file().replica_of(LogId::random());
    let refused = SqliteStore::open_with(other).await.unwrap_err().to_string();
    assert!(refused.contains(&log.to_string()), "{refused}");
    assert!(
        refused.contains("remove it to copy that one, or name another place"),
        "{refused}"
    );
    let elsewhere = Options::file(folder.path().join("other.db")).replica_of(LogId::random());
    SqliteStore::open_with(elsewhere).await.unwrap();
    let reader = SqliteStore::open_with(file().read_only()).await.unwrap();
    assert_eq!(reader.id(), log);

    let alone = SqliteStore::open("sqlite::memory:").await.unwrap();
    let refused = alone.apply(Vec::new(), 0).await.unwrap_err().to_string();
    assert!(
        refused.contains("open it with `Options::replica_of`"),
        "{refused}"
    );
    let copy = replica(&folder, "copy.db", log).await;
    copy.apply(Vec::new(), 0).await.unwrap();
}

/// A log that takes six entries at once, and holds a single one until it is told to go on.
#[derive(Debug)]
struct Few {
    reached: mpsc::Sender<()>,
    release: mpsc::Receiver<()>,
    cursor: u64,
}

impl Upstream for Few {
    fn record(&mut self, entries: &[ReplicaEntry]) -> Result<u64, StoreError> {
        if entries.len() == 1 {
            let _ = self.reached.send(());
            let _ = self.release.recv();
        }
        if entries.len() > 6 {
            return Err(StoreError::new(Failure::Unavailable, "too many at once"));
        }
        self.cursor += 1;
        Ok(self.cursor)
    }
}

/// Appends of eight callers that come while one before them is recorded.
async fn at_once(store: &SqliteStore, cursor: u64) -> Vec<bool> {
    let (reached, is_reached) = mpsc::channel();
    let (released, release) = mpsc::channel::<()>();
    let few = Few {
        reached,
        release,
        cursor,
    };
    store.own(Some(Box::new(few))).await.unwrap();
    let append = |name: String| {
        let (store, append) = (store.clone(), Append::new(stream(&name), events(1)));
        tokio::spawn(async move { store.append(append).await.is_ok() })
    };
    let first = append("first-1".into());
    let waits = tokio::task::spawn_blocking(move || is_reached.recv());
    waits.await.unwrap().unwrap();
    let callers: Vec<_> = (0..8).map(|n| append(format!("caller-{n}"))).collect();
    // Each of them comes to wait for its answer.
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
    drop(released);
    assert!(first.await.unwrap());
    let mut taken = Vec::new();
    for caller in callers {
        taken.push(caller.await.unwrap());
    }
    taken
}

#[tokio::test]
async fn a_group_that_was_not_recorded_comes_in_parts() {
    let folder = TempDir::new().unwrap();
    let store = replica(&folder, "log.db", LogId::random()).await;
    assert_eq!(at_once(&store, 0).await, [false; 8], "they came together");
    assert_eq!(at_once(&store, 1).await, [true; 8]);
}
