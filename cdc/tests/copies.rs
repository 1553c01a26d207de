//! What a copy leaves in the log, of a source that says what a test tells it to: a comparison of
//! all tables with another server, and one of a table that is given up.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

mod world;

use std::collections::VecDeque;
use std::sync::Arc;

use annals::cdc::{
    At, Because, BeforeImage, Body, Change, Chunk, Column, Columns, Identity, Ingest, Ingests as _,
    Lsn, Mark, ReadAgain, Record, Resume, RowOp, RowRecord, SnapshotMark, Snapshotting, Source,
    SourceError, TableName, TableRow, TableSchema, Transactions,
};
use annals::prelude::*;
use annals::store::ReadStream;
use async_trait::async_trait;
use serde_json::Value;
use world::{ids_of, until};

const INSERTED: &str = "public.t.inserted";

#[derive(TableRow, Clone, Debug)]
#[table("public.t")]
struct T {
    #[key]
    id: i64,
    v: i64,
}

#[derive(Event, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "number")]
enum Number {
    Given { number: i64 },
}

/// The rows 1 and 2 come first; then what operators ask for is given in one chunk after the other.
#[derive(Default)]
struct Told {
    chunks: VecDeque<Chunk>,
    is_to_resync: bool,
    is_to_read_again: bool,
}

fn table() -> TableName {
    TableName::new("public", "t")
}

/// As the table is with so many columns.
fn schema(columns: usize) -> Arc<TableSchema> {
    let names = ["id", "v", "w"].into_iter().take(columns);
    let column = |name: &str| Column {
        name: name.into(),
        type_name: "bigint".into(),
        oid: 20,
        typmod: -1,
        key: name == "id",
    };
    Arc::new(TableSchema {
        table: table(),
        identity: Identity::Default,
        columns: names.map(column).collect(),
    })
}

fn record(op: RowOp, id: u64, v: &str, columns: usize) -> Record {
    let id_text = id.to_string();
    let key = Columns::default().with("id", Some(&id_text));
    let row = RowRecord {
        op,
        table: table(),
        after: Some(key.clone().with("v", Some(v))),
        key,
        before: BeforeImage::None,
        unchanged: Vec::new(),
        schema: Some(schema(columns)),
        because: Because::Deleted,
        snapshot: None,
    };
    let (lsn, ordinal) = match op {
        RowOp::Read => (50, id),
        _ => (100 + id, 0),
    };
    Record {
        body: Body::Row(row),
        at: At {
            lsn: Lsn::new(lsn),
            ordinal,
            ..At::default()
        },
        origin: None,
        repeat_key: None,
    }
}

fn chunk(records: Vec<Record>, resume: Option<u64>) -> Chunk {
    let mut chunk = Chunk::default();
    chunk.source = "told".into();
    chunk.records = records;
    chunk.resume = resume.map(|lsn| Resume::Lsn(Lsn::new(lsn)));
    chunk
}

/// Another server, where the table has row 1 alone.
fn copied() -> VecDeque<Chunk> {
    let mut begins = chunk(Vec::new(), None);
    begins.snapshot = Some(Snapshotting::Begins(vec![table()]));
    let mut rows = chunk(vec![record(RowOp::Read, 1, "1", 2)], None);
    rows.snapshot = Some(Snapshotting::Rows(SnapshotMark {
        point: Some(Lsn::new(50)),
        rows: 1,
        after: None,
    }));
    let mut complete = chunk(Vec::new(), Some(50));
    complete.snapshot = Some(Snapshotting::Complete);
    VecDeque::from([begins, rows, complete])
}

/// A table with another column, of which a row is no number.
fn read_again() -> VecDeque<Chunk> {
    let mut begins = chunk(Vec::new(), None);
    begins.again = Some(ReadAgain::Begins(Lsn::new(102), vec![table()]));
    let read = |id, v| record(RowOp::Read, id, v, 3);
    let mut rows = chunk(vec![read(3, "3"), read(4, "bad")], None);
    rows.again = Some(ReadAgain::Rows);
    VecDeque::from([begins, rows])
}

#[async_trait]
impl Source for Told {
    async fn begin(&mut self, _: &str, last: Option<&Mark>) -> Result<(), SourceError> {
        let inserted = |id, v| record(RowOp::Insert, id, v, 2);
        self.chunks = match last {
            None => [chunk(vec![inserted(1, "1"), inserted(2, "2")], Some(102))].into(),
            Some(_) if std::mem::take(&mut self.is_to_resync) => copied(),
            Some(_) if self.is_to_read_again => read_again(),
            Some(_) => VecDeque::new(),
        };
        Ok(())
    }

    async fn next(&mut self) -> Result<Chunk, SourceError> {
        match self.chunks.pop_front() {
            Some(chunk) => Ok(chunk),
            None => std::future::pending().await,
        }
    }

    async fn confirm(&mut self, _: &Mark) -> Result<(), SourceError> {
        Ok(())
    }

    fn can_resync(&self) -> bool {
        true
    }

    fn tables(&self) -> Vec<TableName> {
        vec![table()]
    }

    fn resync(&mut self) {
        self.is_to_resync = true;
    }

    fn read_again(&mut self, tables: &[TableName]) {
        self.is_to_read_again = !tables.is_empty();
    }

    fn stops_reading_again(&mut self, _: &str) {
        let next = record(RowOp::Insert, 5, "5", 3);
        self.chunks = [chunk(vec![next], Some(105))].into();
    }
}

async fn start(folder: &std::path::Path) -> Program {
    let number = |change: &Change<T>| match change {
        Change::Read { after } | Change::Inserted { after } => {
            let number = after.v;
            Some((format!("number-{number}"), Number::Given { number }))
        }
        _ => None,
    };
    let ingest = Ingest::named("shop").from(Told::default());
    let db = world::open(folder).await;
    db.with(ingest.translate(number)).start().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_another_server_says_its_gap() {
    let folder = tempfile::tempdir().unwrap();
    let program = start(folder.path()).await;
    ids_of(&program, INSERTED, 2).await;
    let shop = program.ingest("shop").unwrap();
    shop.resync_all("it was restored").await.unwrap();
    // What the comparison deleted is a whole transaction.
    let deleted = until("the deletion is given", || async {
        let mut transactions = Transactions::of(program.events().pages());
        while let Some(events) = transactions.next().await.unwrap() {
            let is_deleted =
                |of: &&annals::store::RecordedEvent| &*of.event_type == "public.t.deleted";
            if let Some(event) = events.iter().find(is_deleted) {
                return Some(event.stream.to_string());
            }
        }
        None
    })
    .await;
    assert_eq!(deleted, "public.t-2");
    // The server that was read up to 0/66 is at 0/32.
    let gaps = ReadStream::of(StreamId::any("$cdc_gap-shop").unwrap());
    let gaps = program.store().read_stream(gaps).await.unwrap().events;
    let gaps: Vec<Value> = gaps
        .iter()
        .map(|event| serde_json::from_slice(&event.payload).unwrap())
        .collect();
    let wanted = serde_json::json!({ "after": "0/66", "up_to": "0/32" });
    assert_eq!(gaps, [wanted]);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_schema_that_a_row_names_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let program = start(folder.path()).await;
    ids_of(&program, INSERTED, 2).await;
    let shop = program.ingest("shop").unwrap();
    shop.resync("public.t", "it has another column")
        .await
        .unwrap();
    assert_eq!(ids_of(&program, INSERTED, 3).await, [1, 2, 5]);
    let events = world::events(&program).await;
    let numbers = |event_type: &str, member: &str| -> Vec<Value> {
        let of_type = events.iter().filter(|of| &*of.event_type == event_type);
        let payloads = of_type.map(|of| serde_json::from_slice::<Value>(&of.payload).unwrap());
        payloads.map(|payload| payload[member].clone()).collect()
    };
    assert_eq!(numbers(INSERTED, "schema"), [1, 1, 2]);
    assert_eq!(numbers("public.t.schema", "number"), [1, 2]);
    program.stop().await;
}
