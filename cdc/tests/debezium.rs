//! What Debezium wrote, taken into a log exactly once: from a file of JSON lines.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

mod world;

use std::io::Write as _;
use std::path::Path;

use annals::cdc::debezium::Debezium;
use annals::cdc::{Ingest, IngestState, TableOf, TableRow};
use annals::prelude::*;
use world::until;

#[derive(TableRow, Clone, Debug, PartialEq)]
#[table("public.t")]
struct T {
    #[key]
    id: i64,
    v: String,
}

fn line(op: &str, id: i64, v: &str, lsn: u64) -> String {
    let after = format!(r#"{{"id":{id},"v":"{v}"}}"#);
    let after = if op == "d" { "null".to_owned() } else { after };
    format!(
        r#"{{"topic":"srv.public.t","key":{{"id":{id}}},"value":{{"op":"{op}","before":null,"after":{after},"source":{{"name":"srv","schema":"public","table":"t","txId":7,"lsn":{lsn},"ts_ms":1700000000000}}}}}}"#
    )
}

fn write(file: &Path, lines: &[String]) {
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(file)
        .unwrap();
    for line in lines {
        writeln!(file, "{line}").unwrap();
    }
}

async fn start(folder: &Path) -> Program {
    let file = folder.join("t.jsonl");
    world::open(folder)
        .await
        .with(Ingest::named("shop").from(Debezium::file(file)))
        .with(TableOf::<T>::projection())
        .start()
        .await
        .unwrap()
}

async fn value(program: &Program, id: i64) -> Option<String> {
    let found = program.view::<TableOf<T>>().get(id).await.unwrap();
    found.map(|row| row.row().unwrap().v)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_taken_in_once_also_where_it_repeats_itself() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.jsonl");
    let first = [
        line("c", 1, "a", 10),
        line("c", 2, "b", 11),
        line("u", 1, "c", 12),
    ];
    write(&file, &first);
    let program = start(folder.path()).await;
    until("the update is there", || async {
        (value(&program, 1).await.as_deref() == Some("c")).then_some(())
    })
    .await;
    program.stop().await;
    drop(program);
    // A connector that begins again repeats what it did not know to be written.
    write(&file, &first[1..]);
    write(&file, &[line("d", 2, "", 13), line("c", 3, "d", 14)]);
    let program = start(folder.path()).await;
    until("the last line is there", || async {
        value(&program, 3).await
    })
    .await;
    assert_eq!(value(&program, 1).await.as_deref(), Some("c"));
    assert_eq!(value(&program, 2).await, None);
    let events = world::events(&program).await;
    let types: Vec<_> = events
        .iter()
        .map(|of| of.event_type.rsplit('.').next().unwrap())
        .collect();
    assert_eq!(
        types,
        ["inserted", "inserted", "updated", "deleted", "inserted"]
    );
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_is_no_envelope_stops_it_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.jsonl");
    write(&file, &[line("c", 1, "a", 10), line("x", 2, "b", 11)]);
    let program = start(folder.path()).await;
    let why = world::stopped(&program).await;
    assert_eq!(
        why,
        "position 2 of partition 0: a message of topic `srv.public.t` cannot be read: its `op` is \
         `x`"
    );
    program.stop().await;
    assert_eq!(world::status(&program).state, IngestState::Ended);
}
