//! What a program makes of a source that says a few rows: one append is on its way while the next
//! changes are made, a second program waits for its turn, and views that do not fit say so.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

mod world;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use annals::Store;
use annals::cdc::{
    At, Because, BeforeImage, Body, Change, Chunk, Columns, Ingest, IngestState, Ingests as _, Lsn,
    Mark, Numeric, Record, Records, Resume, RowOp, RowRecord, Source, SourceError, TableName,
    TableOf, TableRow,
};
use annals::prelude::*;
use annals::store::{Append, AppendError, Appended, NewEvent, ReadStream};
use annals_core::conformance::faulty::{FaultyStore, StoreFault};
use annals_core::{Acquired, Failure, Metadata, StoreError};
use tokio::sync::watch;
use world::{ids, ids_of, status, stopped, until};

const INSERTED: &str = "public.t.inserted";

#[derive(TableRow, Clone, Debug)]
#[table("public.t")]
struct T {
    #[key]
    id: i64,
    v: i64,
}

#[derive(Event, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "nothing")]
enum Nothing {
    TooLong { text: String },
}

/// A value of which something too long is made.
const TOO_LONG: i64 = 17;

/// A source that says one row after the other, each a transaction.
struct Told {
    rows: Vec<(u64, &'static str)>,
    next: u64,
    /// Whether all of them come at once.
    is_one_chunk: bool,
    /// How many it has given since the start.
    given: Arc<watch::Sender<usize>>,
}

impl Told {
    /// Rows with the ids 1, 2 and so on.
    fn rows(values: &[&'static str]) -> Told {
        Told {
            rows: (1..).zip(values.iter().copied()).collect(),
            next: 1,
            is_one_chunk: false,
            given: Arc::new(watch::Sender::new(0)),
        }
    }
}

fn record(id: u64, value: &str) -> Record {
    let id_text = id.to_string();
    let key = Columns::default().with("id", Some(&id_text));
    let row = RowRecord {
        op: RowOp::Insert,
        table: TableName::new("public", "t"),
        after: Some(key.clone().with("v", Some(value))),
        key,
        before: BeforeImage::None,
        unchanged: Vec::new(),
        schema: None,
        because: Because::Deleted,
        snapshot: None,
    };
    Record {
        body: Body::Row(row),
        at: At {
            lsn: Lsn::new(id),
            ..At::default()
        },
        origin: None,
        repeat_key: None,
    }
}

#[async_trait::async_trait]
impl Source for Told {
    async fn begin(&mut self, _: &str, last: Option<&Mark>) -> Result<(), SourceError> {
        let resume = last.and_then(|last| last.resume.as_ref()?.lsn());
        let in_part = last.and_then(|last| last.partial).map(|of| of.commit);
        self.next = resume.max(in_part).unwrap_or_default().get() + 1;
        Ok(())
    }

    async fn next(&mut self) -> Result<Chunk, SourceError> {
        let Some((id, value)) = self.rows.iter().find(|(id, _)| *id == self.next) else {
            return std::future::pending().await;
        };
        let mut chunk = Chunk::default();
        chunk.source = "told".into();
        chunk.records = vec![record(*id, value)];
        if self.is_one_chunk {
            let rest = self.rows.iter().filter(|(other, _)| other > id);
            let rest = rest.map(|(id, value)| record(*id, value));
            chunk.records.extend(rest);
        }
        let count = chunk.records.len();
        self.next += count as u64;
        chunk.resume = Some(Resume::Lsn(Lsn::new(self.next - 1)));
        chunk.transactions = count as u64;
        self.given.send_modify(|given| *given += count);
        Ok(chunk)
    }

    async fn confirm(&mut self, _: &Mark) -> Result<(), SourceError> {
        Ok(())
    }
}

/// A store whose first append of events waits until so many were seen, and then perhaps fails.
#[derive(Debug)]
struct Waits {
    seen: watch::Receiver<usize>,
    for_count: usize,
    fails: bool,
    was_there: AtomicBool,
}

#[async_trait::async_trait]
impl StoreFault for Waits {
    async fn append(&self, store: &dyn Store, append: Append) -> Result<Appended, AppendError> {
        if append.events.len() > 1 && !self.was_there.swap(true, Ordering::SeqCst) {
            let mut seen = self.seen.clone();
            let _ = seen.wait_for(|count| *count >= self.for_count).await;
            if self.fails {
                let error = StoreError::new(Failure::Unavailable, "the disk is away");
                return Err(AppendError::Store(error));
            }
        }
        store.append(append).await
    }
}

/// A program whose first append waits until so many changes were made, or were given.
async fn waiting(
    folder: &Path,
    source: Told,
    for_count: usize,
    fails: bool,
    made: bool,
) -> Program {
    let seen = match made {
        true => Arc::new(watch::Sender::new(0)),
        false => Arc::clone(&source.given),
    };
    let fault = Waits {
        seen: seen.subscribe(),
        for_count,
        fails,
        was_there: AtomicBool::new(false),
    };
    let counts = move |change: &Change<T>| {
        if made {
            seen.send_modify(|count| *count += 1);
        }
        let text = match change {
            // More than an event may have.
            Change::Inserted { after } if after.v == TOO_LONG => "x".repeat(17 << 20),
            _ => return None,
        };
        Some(("nothing-1".to_owned(), Nothing::TooLong { text }))
    };
    let db = world::open(folder).await;
    let store = FaultyStore::new(Arc::clone(db.store()), fault);
    let ingest = Ingest::named("shop").from(source).translate(counts);
    Annals::on(store).with(ingest).start().await.unwrap()
}

/// How many transactions each append holds.
async fn transactions(program: &Program) -> Vec<u64> {
    let marks = annals::cdc::mark_stream("shop").unwrap();
    let page = program.store().read_stream(ReadStream::of(marks)).await;
    let marks = page.unwrap().events.into_iter();
    let marks = marks.map(|event| serde_json::from_slice::<Mark>(&event.payload).unwrap());
    marks.map(|mark| mark.transactions).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_made_while_an_append_is_on_its_way() {
    let folder = tempfile::tempdir().unwrap();
    let source = Told::rows(&["1", "2", "3", "4"]);
    let program = waiting(folder.path(), source, 4, false, true).await;
    assert_eq!(ids_of(&program, INSERTED, 4).await, [1, 2, 3, 4]);
    // What came meanwhile is together.
    assert_eq!(transactions(&program).await, [1, 3]);
    until("it is counted", || async {
        let status = status(&program);
        let at = status.at == Some(Lsn::new(4));
        (at && status.transactions == 4 && status.events == 4).then_some(())
    })
    .await;
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_appended_after_an_append_that_failed() {
    let folder = tempfile::tempdir().unwrap();
    let source = Told::rows(&["1", "2", "3"]);
    let program = waiting(folder.path(), source, 3, true, true).await;
    assert_eq!(ids_of(&program, INSERTED, 3).await, [1, 2, 3]);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_before_a_poisonous_change_is_taken_in() {
    let folder = tempfile::tempdir().unwrap();
    let source = Told::rows(&["1", "2", "bad", "4"]);
    let program = waiting(folder.path(), source, 3, false, false).await;
    let why = stopped(&program).await;
    assert!(why.contains("commit 0/3, record 0"), "{why}");
    assert_eq!(ids(&program, INSERTED).await, [1, 2]);
    let shop = program.ingest("shop").unwrap();
    shop.skip(Lsn::new(3), 0, "no number").await.unwrap();
    assert_eq!(ids_of(&program, INSERTED, 3).await, [1, 2, 4]);
    assert_eq!(status(&program).skipped, 1);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_transactions_before_a_poisonous_one_are_taken_in() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = Told::rows(&["1", "2", "bad", "4"]);
    source.is_one_chunk = true;
    let program = waiting(folder.path(), source, 0, false, false).await;
    let why = stopped(&program).await;
    assert!(why.contains("commit 0/3, record 0"), "{why}");
    assert_eq!(ids_of(&program, INSERTED, 2).await, [1, 2]);
    let shop = program.ingest("shop").unwrap();
    shop.skip(Lsn::new(3), 0, "no number").await.unwrap();
    assert_eq!(ids_of(&program, INSERTED, 3).await, [1, 2, 4]);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_too_large_for_one_append_are_in_several() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = Told::rows(&["1", "2", "3", "4", "5"]);
    source.is_one_chunk = true;
    // Five of them are more than an append may have.
    let large = |_: &Change<T>| {
        let text = "x".repeat(14 << 20);
        Some(("nothing-1".to_owned(), Nothing::TooLong { text }))
    };
    let ingest = Ingest::named("shop").from(source).translate(large);
    let db = world::open(folder.path()).await;
    let program = db.with(ingest).start().await.unwrap();
    until("all are in", || async {
        match status(&program).state {
            IngestState::Stopped(why) => panic!("{why}"),
            _ => (ids(&program, INSERTED).await.len() == 5).then_some(()),
        }
    })
    .await;
    assert_eq!(ids(&program, INSERTED).await, [1, 2, 3, 4, 5]);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_cannot_be_appended_names_its_record() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = Told::rows(&["1", "2", "17", "4"]);
    source.is_one_chunk = true;
    let program = waiting(folder.path(), source, 4, false, true).await;
    let why = stopped(&program).await;
    let wanted = "commit 0/3, record 0: skip it with `skip(commit, record, reason)`";
    assert!(why.contains(wanted), "{why}");
    // The transactions before it are in.
    assert_eq!(ids_of(&program, INSERTED, 2).await, [1, 2]);
    let shop = program.ingest("shop").unwrap();
    shop.skip(Lsn::new(3), 0, "too long").await.unwrap();
    assert_eq!(ids_of(&program, INSERTED, 3).await, [1, 2, 4]);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_program_says_who_holds_the_lease() {
    let folder = tempfile::tempdir().unwrap();
    let first = world::start(folder.path(), Told::rows(&["1"])).await;
    ids_of(&first, INSERTED, 1).await;
    let second = world::start(folder.path(), Told::rows(&["1", "2"])).await;
    let owner = until("it says who holds the lease", || async {
        match status(&second).state {
            IngestState::Elsewhere { owner, .. } => Some(owner),
            _ => None,
        }
    })
    .await;
    let shown = status(&second).to_string();
    let wanted = format!("ingest shop: waits for its lease, which is held by {owner} until 20");
    assert!(shown.starts_with(&wanted), "{shown}");
    assert_eq!(status(&first).state, IngestState::Following);
    first.stop().await;
    assert_eq!(ids_of(&second, INSERTED, 2).await, [1, 2]);
    assert_eq!(status(&second).state, IngestState::Following);
    second.stop().await;
}

/// A source that says nothing, and whether its session was ended in the middle.
struct Quiet(Arc<AtomicBool>);

#[async_trait::async_trait]
impl Source for Quiet {
    async fn begin(&mut self, _: &str, _: Option<&Mark>) -> Result<(), SourceError> {
        Ok(())
    }

    async fn next(&mut self) -> Result<Chunk, SourceError> {
        std::future::pending().await
    }

    async fn confirm(&mut self, _: &Mark) -> Result<(), SourceError> {
        Ok(())
    }

    fn abandon(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_lease_ends_the_session_of_its_source() {
    let folder = tempfile::tempdir().unwrap();
    let is_abandoned = Arc::new(AtomicBool::new(false));
    let program = world::start(folder.path(), Quiet(Arc::clone(&is_abandoned))).await;
    until("it follows", || async {
        (status(&program).state == IngestState::Following).then_some(())
    })
    .await;
    let views = program.store().views().unwrap();
    let leases = views.leases("$ingest/shop/").await.unwrap().into_iter();
    let mut held = leases.filter(|of| !of.expired && of.lease.name.ends_with("/0"));
    let held = held.next().unwrap().lease;
    assert!(!is_abandoned.load(Ordering::SeqCst));
    views.release_lease(&held).await.unwrap();
    let taken = views.acquire_lease(&held.name, "another", Duration::from_secs(600));
    let taken = taken.await.unwrap();
    assert!(matches!(taken, Acquired::Granted(_)), "{taken:?}");
    until("its session is ended", || async {
        is_abandoned.load(Ordering::SeqCst).then_some(())
    })
    .await;
    program.stop().await;
}

/// The key of the table is a number.
#[derive(TableRow, Clone, Debug)]
#[table("public.t")]
struct WithUuid {
    #[key]
    id: uuid::Uuid,
}

#[derive(Default, Serialize, Deserialize, View)]
#[view(name = "values", events(Change<T>), key = i64)]
struct Values {
    v: i64,
}

impl Project<Change<T>> for Values {
    fn on(row: &mut Row<'_, Self>, event: &Recorded<Change<T>>) -> Result<(), Poison> {
        if let Change::Inserted { after } = &**event {
            row.v = after.v;
        }
        Ok(())
    }
}

/// As the table is.
#[derive(TableRow, Clone, Debug)]
#[table("public.t")]
struct Exact {
    #[key]
    id: i64,
    v: Numeric,
}

#[derive(Default, Serialize, Deserialize, View)]
#[view(name = "values", events(Change<Exact>), key = i64)]
struct ExactValues {
    v: i64,
}

impl Project<Change<Exact>> for ExactValues {
    fn on(row: &mut Row<'_, Self>, event: &Recorded<Change<Exact>>) -> Result<(), Poison> {
        if let Change::Inserted { after } = &**event {
            row.v = after.v.to_string().replace('.', "").parse()?;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_does_not_fit_its_table_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let program = world::open(folder.path())
        .await
        .with(Ingest::named("shop").from(Told::rows(&["12.50"])))
        .with(TableOf::<WithUuid>::projection())
        .with(Values::projection())
        .start_in_background()
        .await
        .unwrap();
    for (view, why) in [
        (
            "table public.t",
            "column `id` of table `public.t` does not fit its field, which is `Uuid`: `1` is no \
             UUID; declare the field as a type that reads it, such as `i64`",
        ),
        (
            "values",
            "column `v` of table `public.t` does not fit its field, which is `i64`: `12.50` is no \
             `i64`; declare the field as a type that reads it, such as `Numeric`",
        ),
    ] {
        let shown = until(&format!("{view} says why it stopped"), || async {
            let status = program.status();
            let of_view = status.iter().find(|of| of.view == view)?;
            let shown = of_view.to_string();
            shown.contains("stopped").then_some(shown)
        })
        .await;
        assert!(shown.contains(why), "{shown}");
    }
    program.stop().await;
    drop(program);
    // The way out.
    let program = world::open(folder.path())
        .await
        .with(Ingest::named("shop").from(Told::rows(&["12.50"])))
        .with(TableOf::<Exact>::projection())
        .with(ExactValues::projection())
        .start()
        .await
        .unwrap();
    until("the table is a view", || async {
        program.view::<TableOf<Exact>>().get(1).await.unwrap()
    })
    .await;
    let value = until("the values are a view", || async {
        program.view::<ExactValues>().get(1).await.unwrap()
    })
    .await;
    assert_eq!(value.v, 1250);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_another_log_stay_as_they_are() {
    let (there, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let log = world::open(there.path()).await;
    let event = || {
        let metadata = Metadata::default().key("cdc.commit", "0/1");
        NewEvent::json(INSERTED, "{}").metadata(metadata)
    };
    let append = Append::new(StreamId::new("public.t-1").unwrap(), [event(), event()]);
    log.store().append(append).await.unwrap();
    let program = world::start(here.path(), Records::of(&log)).await;
    ids_of(&program, INSERTED, 2).await;
    let metadata = async |db: &Annals| {
        let events = world::events(db).await.into_iter();
        events.map(|event| event.metadata).collect::<Vec<_>>()
    };
    assert_eq!(metadata(&program).await, metadata(&log).await);
    program.stop().await;
}
