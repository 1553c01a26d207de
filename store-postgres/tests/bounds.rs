//! What is too large is refused by name before anything is done for it, and what collides by chance
//! is kept apart.

// What must not fail is unwrapped.
#![allow(clippy::unwrap_used)]

mod server;

use std::time::Duration;

use annals_core::{
    Append, AppendError, Condition, EventStore, Expected, Limits, Log, NewEvent, Partition,
    Position, Query, ReadQuery, StreamId, Tag, TaggedStore,
};
use annals_postgres::PostgresStore;
use server::Schema;

/// What has no answer by then never has.
const FOR_EVER: Duration = Duration::from_secs(120);

fn event() -> NewEvent {
    NewEvent::json("thing.happened", b"{}".as_slice())
}

fn stream(n: usize) -> StreamId {
    StreamId::new(format!("thing-{n}")).unwrap()
}

fn to_streams(count: usize) -> Append {
    (0..count).fold(Append::default(), |append, n| {
        append.event(stream(n), event())
    })
}

async fn unlimited(schema: &Schema) -> PostgresStore {
    let mut limits = Limits::default();
    limits.append_events_max = 200_000;
    limits.append_expectations_max = 200_000;
    PostgresStore::connect_with(schema.options().limits(limits))
        .await
        .unwrap()
}

async fn answer(
    store: &PostgresStore,
    append: Append,
) -> Result<annals_core::Appended, AppendError> {
    tokio::time::timeout(FOR_EVER, store.append(append))
        .await
        .expect("an append without an answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_over_too_many_streams_is_refused_by_name() {
    let schema = Schema::new();
    let store = unlimited(&schema).await;
    let error = answer(&store, to_streams(70_000)).await.unwrap_err();
    assert!(matches!(error, AppendError::Invalid(_)), "{error:?}");
    assert!(error.to_string().contains("70000 streams"), "{error}");
    assert_eq!(
        store.head(Partition(0)).await.unwrap().visible,
        Position::START
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_streams_as_are_allowed_are_appended_to() {
    let schema = Schema::new();
    let store = unlimited(&schema).await;
    let appended = answer(&store, to_streams(32_768)).await.unwrap();
    assert_eq!(appended.last().position, Position::new(32_768));
}

/// Together they are about more streams than the writer caches.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_with_many_expectations_share_the_cache() {
    let schema = Schema::new();
    let store = schema.store().await;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..8 {
        let store = store.clone();
        tasks.spawn(async move {
            let own = StreamId::new(format!("own-{task}")).unwrap();
            let mut append = Append::new(own, [event()]);
            for n in 0..9_999 {
                append = append.requiring(stream(task * 10_000 + n), Expected::NoStream);
            }
            answer(&store, append).await
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap().unwrap();
    }
}

#[tokio::test]
async fn too_many_expectations_are_refused_by_name() {
    let schema = Schema::new();
    let mut limits = Limits::default();
    limits.append_expectations_max = 3;
    let options = schema.options().limits(limits);
    let store = PostgresStore::connect_with(options).await.unwrap();
    let expecting = |count: usize| {
        (0..count).fold(Append::new(stream(9), [event()]), |append, n| {
            append.requiring(stream(n), Expected::NoStream)
        })
    };
    let error = answer(&store, expecting(3)).await.unwrap_err();
    assert!(matches!(error, AppendError::Invalid(_)), "{error:?}");
    assert!(error.to_string().contains("4 expectations"), "{error}");
    answer(&store, expecting(2)).await.unwrap();
}

#[tokio::test]
async fn a_query_item_of_many_tags_is_refused_by_name() {
    let schema = Schema::new();
    let store = schema.store().await;
    let tags: Vec<Tag> = (0..200)
        .map(|n| format!("tag:{n}").parse().unwrap())
        .collect();
    let query = Query::tagged(tags);
    let error = store.read_query(ReadQuery::of(query.clone())).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("200 tags"), "{error}");
    let append = to_streams(1).under(Condition::none_matches(query));
    let error = answer(&store, append).await.unwrap_err();
    assert!(matches!(error, AppendError::Invalid(_)), "{error:?}");
    assert!(error.to_string().contains("200 tags"), "{error}");
}

#[tokio::test]
async fn tags_with_one_hash_are_kept_apart() {
    // Both have the same 64-bit FNV-1a hash, with any ending.
    let [one, two]: [Tag; 2] =
        ["8yn0iYCKYHlIj4-BwPqk:1", "GReLUrM4wMqfg9yzV3KQ:1"].map(|tag| tag.parse().unwrap());
    let schema = Schema::new();
    let store = schema.store().await;
    let tagged = |tags: &[&Tag]| {
        let event = tags
            .iter()
            .fold(event(), |event, tag| event.tag((*tag).clone()));
        Append::new(stream(1), [event])
    };
    answer(&store, tagged(&[&one, &two])).await.unwrap();
    answer(&store, tagged(&[&one])).await.unwrap();
    answer(&store, tagged(&[&two])).await.unwrap();
    for (tag, wanted) in [(&one, [1, 2]), (&two, [1, 3])] {
        let read = ReadQuery::of(Query::tagged([tag.clone()]));
        let page = store.read_query(read).await.unwrap();
        let found = page.events.iter().map(|event| event.position.get());
        assert!(found.eq(wanted), "{tag:?}");
        // A condition narrows by the hash as well.
        let after = Position::new(wanted[1]);
        let condition = Condition::none_matches(Query::tagged([tag.clone()])).after(after);
        answer(&store, tagged(&[]).under(condition)).await.unwrap();
    }
}
