//! The words in which the cases are written.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Barrier;

use super::{Fixture, drop_after};
use crate::append::{Append, AppendError, Appended, Expected, Violation};
use crate::clock::{ManualClock, SystemClock};
use crate::event::{EventId, NewEvent, RecordedEvent};
use crate::position::{Partition, Position};
use crate::read::{Direction, LogPage, PAGE_BYTES_MAX, ReadLog, ReadQuery, ReadStream, Shown};
use crate::store::Store;
use crate::stream::{StreamId, Version};
use crate::stream_state::{Status, StreamState};
use crate::tag::Tag;

pub(super) async fn open(fixture: &dyn Fixture) -> Arc<dyn Store> {
    fixture.open(Arc::new(SystemClock)).await
}

/// Opens the store with a clock that the case holds.
pub(super) async fn open_at(fixture: &dyn Fixture, clock: &Arc<ManualClock>) -> Arc<dyn Store> {
    fixture.open(Arc::<ManualClock>::clone(clock)).await
}

/// Drops the handle and opens the same data again.
pub(super) async fn reopen(fixture: &dyn Fixture, store: Arc<dyn Store>) -> Arc<dyn Store> {
    drop(store);
    open(fixture).await
}

pub(super) fn stream(name: impl AsRef<str>) -> StreamId {
    StreamId::new(name).unwrap()
}

/// The `count`-th stream called so that belongs to `partition`.
pub(super) fn stream_in(store: &dyn Store, partition: Partition, label: &str) -> StreamId {
    (0..)
        .map(|n| stream(format!("{label}-{n}")))
        .find(|stream| store.partition_of(stream) == partition)
        .unwrap()
}

pub(super) fn partitions(store: &dyn Store) -> impl Iterator<Item = Partition> + use<> {
    (0..store.partitions()).map(Partition)
}

pub(super) fn event(payload: impl Into<Bytes>) -> NewEvent {
    NewEvent::json("thing.happened", payload)
}

pub(super) fn events(count: usize) -> Vec<NewEvent> {
    (0..count).map(|n| event(format!("{n}"))).collect()
}

pub(super) fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

pub(super) fn version(number: u64) -> Expected {
    Expected::Version(Version::new(number))
}

/// Appends whatever the stream is, which must succeed.
pub(super) async fn append(
    store: &dyn Store,
    to: &StreamId,
    events: impl IntoIterator<Item = NewEvent>,
) -> Appended {
    try_append(store, to, Expected::Any, events).await.unwrap()
}

pub(super) async fn try_append(
    store: &dyn Store,
    to: &StreamId,
    expected: Expected,
    events: impl IntoIterator<Item = NewEvent>,
) -> Result<Appended, AppendError> {
    store
        .append(Append::new(to.clone(), events).expecting(expected))
        .await
}

pub(super) fn ids_of(events: &[NewEvent]) -> Vec<EventId> {
    events.iter().map(|event| event.id).collect()
}

pub(super) fn ids(events: &[RecordedEvent]) -> Vec<EventId> {
    events.iter().map(|event| event.id).collect()
}

pub(super) fn versions_of(appended: &Appended) -> Vec<u64> {
    appended
        .events()
        .iter()
        .map(|placed| placed.version.get())
        .collect()
}

pub(super) fn versions(events: &[RecordedEvent]) -> Vec<u64> {
    events.iter().map(|event| event.version.get()).collect()
}

pub(super) fn positions(events: &[RecordedEvent]) -> Vec<u64> {
    events.iter().map(|event| event.position.get()).collect()
}

pub(super) async fn head(store: &dyn Store, partition: Partition) -> Position {
    store.head(partition).await.unwrap().visible
}

/// Reads the whole range, page after page, and checks what every page owes.
pub(super) async fn read_log(store: &dyn Store, mut read: ReadLog) -> Vec<RecordedEvent> {
    let mut all = Vec::new();
    loop {
        let page = store.read(read.clone()).await.unwrap();
        check_page(&page, read.limit, read.after, read.up_to, read.direction);
        assert!(
            page.events
                .iter()
                .all(|event| event.partition == read.partition),
            "an event of another partition"
        );
        all.extend(page.events);
        if page.end {
            return all;
        }
        match read.direction {
            Direction::Forward => read.after = page.scanned,
            Direction::Backward => read.up_to = page.scanned.minus(1),
        }
    }
}

/// What every page of the log and of a query owes, whatever was asked.
pub(super) fn check_page(
    page: &LogPage,
    limit: usize,
    after: Position,
    up_to: Position,
    direction: Direction,
) {
    assert!(
        page.events.len() <= limit,
        "{} events, at most {limit} were asked for",
        page.events.len()
    );
    check_bytes(&page.events);
    let places: Vec<Position> = page.events.iter().map(|event| event.position).collect();
    match direction {
        Direction::Forward => {
            assert!(
                places.is_sorted_by(|a, b| a < b),
                "not in order: {places:?}"
            );
            assert!(
                places.iter().all(|place| *place <= page.scanned),
                "{places:?}, scanned to {}",
                page.scanned
            );
            assert!(
                page.end || page.scanned > after || limit == 0,
                "a page that gets nowhere: {page:?}"
            );
        }
        Direction::Backward => {
            assert!(
                places.is_sorted_by(|a, b| a > b),
                "not in order: {places:?}"
            );
            assert!(
                places.iter().all(|place| *place >= page.scanned),
                "{places:?}, scanned to {}",
                page.scanned
            );
            assert!(
                page.end || page.scanned <= up_to || limit == 0,
                "a page that gets nowhere: {page:?}"
            );
        }
    }
    let range = after.next()..=up_to.min(page.head.visible);
    assert!(
        places.iter().all(|place| range.contains(place)),
        "{places:?}, asked for {range:?}"
    );
    assert!(page.head.durable <= page.head.visible, "{:?}", page.head);
}

/// A page ends with the event that filled it.
fn check_bytes(events: &[RecordedEvent]) {
    if let [all_but_last @ .., _] = events {
        let bytes: usize = all_but_last.iter().map(|event| event.payload.len()).sum();
        assert!(bytes < PAGE_BYTES_MAX, "a page of more than {bytes} bytes");
    }
}

pub(super) async fn whole_log(store: &dyn Store, partition: Partition) -> Vec<RecordedEvent> {
    read_log(store, ReadLog::after(Position::START).partition(partition)).await
}

/// Reads the whole range of a stream, page after page, and checks what every page owes.
pub(super) async fn read_stream(store: &dyn Store, mut read: ReadStream) -> Vec<RecordedEvent> {
    let mut all: Vec<RecordedEvent> = Vec::new();
    loop {
        let page = store.read_stream(read.clone()).await.unwrap();
        assert!(
            page.events.len() <= read.limit,
            "{} events, limit {}",
            page.events.len(),
            read.limit
        );
        check_bytes(&page.events);
        assert!(
            page.events.iter().all(|event| event.stream == read.stream),
            "an event of another stream"
        );
        all.extend(page.events);
        let Some(next) = page.next else { break };
        let resumed = read.clone().resume(next);
        assert!(
            resumed != read || read.limit == 0,
            "a page that gets nowhere"
        );
        if read.limit == 0 {
            break;
        }
        read = resumed;
    }
    let in_order = match read.direction {
        Direction::Forward => {
            all.is_sorted_by(|a, b| a.version < b.version && a.position < b.position)
        }
        Direction::Backward => {
            all.is_sorted_by(|a, b| a.version > b.version && a.position > b.position)
        }
    };
    assert!(in_order, "not in order: {:?}", versions(&all));
    all
}

pub(super) async fn whole_stream(store: &dyn Store, of: &StreamId) -> Vec<RecordedEvent> {
    read_stream(store, ReadStream::of(of.clone())).await
}

/// The versions that an ordinary read shows.
pub(super) async fn shown(store: &dyn Store, of: &StreamId) -> Vec<u64> {
    versions(&whole_stream(store, of).await)
}

/// All that can be seen of a store and of some streams: equal pictures mean that nothing was
/// written between them.
#[derive(Debug, PartialEq)]
pub(super) struct Picture {
    heads: Vec<Position>,
    streams: Vec<(StreamState, Vec<RecordedEvent>)>,
}

impl Picture {
    pub(super) async fn of(store: &dyn Store, streams: &[&StreamId]) -> Picture {
        let mut picture = Picture {
            heads: Vec::new(),
            streams: Vec::new(),
        };
        for partition in partitions(store) {
            picture.heads.push(head(store, partition).await);
        }
        for of in streams {
            let read = ReadStream {
                shown: Shown::Everything,
                ..ReadStream::of((*of).clone())
            };
            picture.streams.push((
                store.stream_state(of).await.unwrap(),
                read_stream(store, read).await,
            ));
        }
        picture
    }
}

/// Makes an attempt that must fail and write nothing.
pub(super) async fn refused<T: Debug>(
    store: &dyn Store,
    streams: &[&StreamId],
    attempt: impl Future<Output = Result<T, AppendError>>,
) -> AppendError {
    let before = Picture::of(store, streams).await;
    let error = attempt.await.expect_err("it had to be refused");
    assert_eq!(
        Picture::of(store, streams).await,
        before,
        "a refusal wrote something: {error}"
    );
    error
}

/// The streams of a conflict as (index, status, version).
#[track_caller]
pub(super) fn conflicts(error: &AppendError) -> Vec<(usize, Status, u64)> {
    let AppendError::Conflict(violations) = error else {
        panic!("a conflict, but it is {error:?}")
    };
    let stream = |violation: &Violation| match violation {
        Violation::Stream { index, found, .. } => Some((*index, found.status, found.version.get())),
        _ => None,
    };
    violations.iter().filter_map(stream).collect()
}

#[track_caller]
pub(super) fn assert_invalid(error: &AppendError, names: &str) {
    assert!(
        matches!(error, AppendError::Invalid(_)),
        "invalid, but it is {error:?}"
    );
    assert!(
        error.to_string().contains(names),
        "`{error}` does not name {names}"
    );
}

/// Checks that what was recorded is what was appended, to the last byte, at the place that the
/// append named.
pub(super) fn assert_recorded(appended: &Appended, given: &[NewEvent], found: &[RecordedEvent]) {
    assert_eq!(found.len(), given.len());
    for (index, ((new, placed), found)) in
        given.iter().zip(appended.events()).zip(found).enumerate()
    {
        assert_eq!(
            (
                found.id,
                &found.stream,
                found.version,
                found.partition,
                found.position
            ),
            (
                placed.id,
                &placed.stream,
                placed.version,
                placed.partition,
                placed.position
            ),
            "event {index}"
        );
        assert_eq!(found.append_index as usize, index);
        let content = (
            &*found.event_type,
            found.schema_version,
            &*found.codec,
            &found.tags,
            &found.metadata,
        );
        let tags = new.sorted_tags().into_owned();
        assert_eq!(
            content,
            (
                &*new.event_type,
                new.schema_version,
                &*new.codec,
                &tags,
                &new.metadata
            )
        );
        assert_eq!(found.occurred_at, new.occurred_at);
        assert!(
            found.payload == new.payload,
            "event {index}: other bytes came back"
        );
    }
}

/// Runs the tasks at once, all starting together; answers come in the order of the tasks.
pub(super) async fn at_once<T: Send + 'static>(
    tasks: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let tasks: Vec<_> = tasks.into_iter().collect();
    let start = Arc::new(Barrier::new(tasks.len()));
    let started: Vec<_> = tasks
        .into_iter()
        .map(|task| {
            let start = Arc::clone(&start);
            tokio::spawn(async move {
                start.wait().await;
                task.await
            })
        })
        .collect();
    let mut answers = Vec::new();
    for task in started {
        answers.push(task.await.expect("the task does not panic"));
    }
    answers
}

/// An append to several streams: `("a-1", event)` in the order of the log.
pub(super) fn to_streams<'a>(events: impl IntoIterator<Item = (&'a StreamId, NewEvent)>) -> Append {
    events
        .into_iter()
        .fold(Append::default(), |append, (to, event)| {
            append.event(to.clone(), event)
        })
}

/// The versions that reads of the past show.
pub(super) async fn kept(store: &dyn Store, of: &StreamId) -> Vec<u64> {
    versions(&read_stream(store, ReadStream::of(of.clone()).everything()).await)
}

/// Makes an attempt that must change nothing, whatever its answer.
pub(super) async fn unchanged<T>(
    store: &dyn Store,
    streams: &[&StreamId],
    attempt: impl Future<Output = T>,
) -> T {
    let before = Picture::of(store, streams).await;
    let answer = attempt.await;
    assert_eq!(
        Picture::of(store, streams).await,
        before,
        "something was written"
    );
    answer
}

/// Drops the future of an append at each of its awaits, and checks each time that the append is
/// there whole or not at all, that the same ids resolve it, and that the store goes on. `attempt`
/// gets the number of the try and three events.
pub(super) async fn drop_everywhere(
    store: &dyn Store,
    attempt: impl AsyncFn(usize, Vec<NewEvent>) -> Result<Appended, AppendError>,
) {
    for polls in 0..1_000 {
        let given = events(3);
        let done = drop_after(polls, attempt(polls, given.clone())).await;
        let mut found = 0;
        for partition in partitions(store) {
            let known = store.find(partition, &ids_of(&given)).await.unwrap();
            found += known.iter().flatten().count();
            let log = ids(&whole_log(store, partition).await);
            let visible = given.iter().filter(|event| log.contains(&event.id)).count();
            assert!(
                visible == 0 || visible == 3,
                "{visible} of 3 events are visible after {polls} polls"
            );
        }
        assert!(
            found == 0 || found == 3,
            "{found} of 3 events are known after {polls} polls"
        );
        let resolved = attempt(polls, given.clone())
            .await
            .unwrap_or_else(|error| panic!("{polls} polls: {error}"));
        if let Some(first) = done {
            assert_eq!(first.unwrap(), resolved);
            return;
        }
        let again = attempt(polls, given.clone()).await.unwrap();
        assert_eq!((&again, again.was_repeated()), (&resolved, true));
        let partition = resolved.last().partition;
        let log = ids(&whole_log(store, partition).await);
        assert_eq!(
            log.iter().filter(|id| ids_of(&given).contains(id)).count(),
            3,
            "once, after {polls} polls"
        );
        append(store, &stream_in(store, partition, "others"), events(1)).await;
    }
    panic!("the append never ends");
}

/// Reads the whole range of a query, page after page, and checks what every page owes.
pub(super) async fn read_query(store: &dyn Store, mut read: ReadQuery) -> Vec<RecordedEvent> {
    let mut all = Vec::new();
    loop {
        let page = store
            .tagged()
            .expect("the trait was declared")
            .read_query(read.clone())
            .await
            .unwrap();
        check_page(&page, read.limit, read.after, read.up_to, read.direction);
        all.extend(page.events);
        if page.end {
            return all;
        }
        match read.direction {
            Direction::Forward => read.after = page.scanned,
            Direction::Backward => read.up_to = page.scanned.minus(1),
        }
    }
}
