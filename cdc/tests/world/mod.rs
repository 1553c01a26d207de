//! A program that takes in tables of a server of its own, and what it has taken in.

// What must not fail is unwrapped; each test uses some of this.
#![allow(clippy::unwrap_used, dead_code)]

use std::path::Path;
use std::time::Duration;

use annals::cdc::{
    Ingest, IngestState, IngestStatus, Ingests as _, Mark, Postgres, Source, TableOf, TableRow,
    last_mark,
};
use annals::prelude::*;
use annals::store::{ReadLog, RecordedEvent};

/// A store in a file of this folder.
pub(crate) async fn open(folder: &Path) -> Annals {
    let file = folder.join("log.db");
    Annals::open(&format!("sqlite:{}", file.display()))
        .await
        .unwrap()
}

/// A source that is quick to notice.
pub(crate) fn source(url: &str, tables: &[&str]) -> Postgres {
    Postgres::at(url)
        .tables(tables.iter().copied())
        .heartbeat(Duration::from_millis(200))
        .status_interval(Duration::from_millis(50))
}

/// A program that takes it in as `shop`.
pub(crate) async fn start(folder: &Path, source: impl Source + 'static) -> Program {
    let db = open(folder).await;
    db.with(Ingest::named("shop").from(source))
        .start()
        .await
        .unwrap()
}

/// A program that takes it in as `shop`, with a copy of the table of `T`.
pub(crate) async fn start_with_copy<T: TableRow>(
    folder: &Path,
    source: impl Source + 'static,
) -> Program {
    let db = open(folder).await;
    db.with(Ingest::named("shop").from(source))
        .with(TableOf::<T>::projection())
        .start()
        .await
        .unwrap()
}

/// The rows of the copy; nothing while a value of one of them is not known.
pub(crate) async fn copied<T: TableRow>(program: &Program) -> Option<Vec<T>> {
    let mut found = Vec::new();
    let mut next = None;
    loop {
        let view = program.view::<TableOf<T>>();
        let page = view.rows().limit(1_000).after(next).await.unwrap();
        for row in page.rows {
            found.push(row.value.row().ok()?);
        }
        next = page.next;
        if next.is_none() {
            return Some(found);
        }
    }
}

/// Waits until the copy has the lines that the table has then, in whatever order.
pub(crate) async fn copy_has<T: TableRow>(
    program: &Program,
    lines: impl Fn() -> String,
    line_of: impl Fn(&T) -> String,
) {
    until("the copy is equal", || async {
        let mut found: Vec<_> = copied(program).await?.iter().map(&line_of).collect();
        found.sort();
        let lines = lines();
        let mut wanted: Vec<_> = lines.lines().collect();
        wanted.sort_unstable();
        (found == wanted).then_some(())
    })
    .await;
}

/// Looks again and again, until it is so.
pub(crate) async fn until<T, F>(what: &str, look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    within(Duration::from_secs(60), what, look).await
}

/// As `until`, for what may take longer.
pub(crate) async fn within<T, F>(at_most: Duration, what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let mut again = tokio::time::interval(Duration::from_millis(10));
    let looking = async {
        loop {
            again.tick().await;
            if let Some(found) = look().await {
                return found;
            }
        }
    };
    let found = tokio::time::timeout(at_most, looking).await;
    found.unwrap_or_else(|_| panic!("never: {what}"))
}

pub(crate) fn status(program: &Program) -> IngestStatus {
    program.ingest("shop").unwrap().status()
}

/// Waits until the ingest follows the stream.
pub(crate) async fn following(program: &Program) {
    until("it follows", || async {
        let is_past = mark(program)
            .await
            .is_some_and(|mark| mark.snapshot.is_none());
        (status(program).state == IngestState::Following && is_past).then_some(())
    })
    .await;
}

/// Waits until the ingest stops for an operator, and says why.
pub(crate) async fn stopped(program: &Program) -> String {
    until("it stops", || async {
        match status(program).state {
            IngestState::Stopped(why) => Some(why),
            _ => None,
        }
    })
    .await
}

pub(crate) async fn mark(db: &Annals) -> Option<Mark> {
    last_mark(db.store().as_ref(), "shop").await.unwrap().1
}

/// Every event of the log but the marks.
pub(crate) async fn events(db: &Annals) -> Vec<RecordedEvent> {
    let mut read = ReadLog::after(Position::START);
    let mut events = Vec::new();
    loop {
        let page = db.store().read(read.clone()).await.unwrap();
        let own = |event: &RecordedEvent| event.stream.as_str().starts_with('$');
        events.extend(page.events.into_iter().filter(|event| !own(event)));
        if page.end {
            return events;
        }
        read.after = page.scanned;
    }
}

/// The ids of the rows of events of this type, in the order of the log.
pub(crate) async fn ids(db: &Annals, event_type: &str) -> Vec<i64> {
    let events = events(db).await.into_iter();
    let of_type = events.filter(|event| &*event.event_type == event_type);
    of_type
        .map(|event| event.stream.id().parse().unwrap())
        .collect()
}

/// Waits until so many events of this type are there, and says their ids.
pub(crate) async fn ids_of(db: &Annals, event_type: &str, count: usize) -> Vec<i64> {
    until(&format!("{count} {event_type}"), || async {
        let found = ids(db, event_type).await;
        (found.len() >= count).then_some(found)
    })
    .await
}
