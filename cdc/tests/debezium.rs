//! What Debezium wrote, taken into a log exactly once: from a file of JSON lines.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

mod world;

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use annals::Store;
use annals::cdc::debezium::Debezium;
use annals::cdc::{
    Change, Chunk, Ingest, IngestState, Ingests as _, Lsn, Mark, Resume, Source, SourceError,
    TableOf, TableRow,
};
use annals::prelude::*;
use annals::store::{Append, AppendError, Appended, ChangeStream, NewEvent, StreamChange};
use annals_core::conformance::faulty::{FaultyStore, StoreFault};
use annals_core::{Failure, StoreError};
use async_trait::async_trait;
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
        concat!(
            r#"{{"topic":"srv.public.t","key":{{"id":{id}}},"#,
            r#""value":{{"op":"{op}","before":null,"after":{after},"#,
            r#""source":{{"name":"srv","schema":"public","table":"t","txId":7,"#,
            r#""lsn":{lsn},"ts_ms":1700000000000}}}}}}"#
        ),
        id = id,
        op = op,
        after = after,
        lsn = lsn,
    )
}

/// A line of a connector whose positions are these.
fn line_at(op: &str, id: i64, v: &str, position: &str) -> String {
    line(op, id, v, 0).replace(r#""txId":7,"lsn":0"#, position)
}

/// A row that was inserted into a table without a key.
fn line_without_key(op: &str, v: &str, lsn: u64) -> String {
    line(op, 0, v, lsn).replace(r#""key":{"id":0}"#, r#""key":null"#)
}

/// The halves of a changed key.
fn halves(from: i64, to: i64, v: &str, lsn: u64) -> [String; 2] {
    let half = |op: &str, id: i64, header: &str, other: i64| {
        let headers = format!(r#""headers":{{"__debezium.{header}":{{"id":{other}}}}},"value""#);
        line(op, id, v, lsn).replacen(r#""value""#, &headers, 1)
    };
    [half("d", from, "newkey", to), half("c", to, "oldkey", from)]
}

/// Waits until so many lines are in.
async fn taken(program: &Program, lines: u64) {
    until("the lines are taken", || async {
        let resume = world::mark(program).await?.resume?;
        let is_taken = |positions: &u64| *positions >= lines;
        matches!(resume, Resume::Positions(of) if of.get(&0).is_some_and(is_taken)).then_some(())
    })
    .await;
}

async fn types(program: &Program) -> Vec<String> {
    let events = world::events(program).await.into_iter();
    let last = |name: &str| name.rsplit('.').next().unwrap().to_owned();
    events.map(|of| last(&of.event_type)).collect()
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
    world::start_with_copy::<T>(folder, Debezium::file(file)).await
}

async fn value(program: &Program, id: i64) -> Option<String> {
    let found = program.view::<TableOf<T>>().get(id).await.unwrap();
    found.map(|row| row.row().unwrap().v)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_with_repetitions_is_ingested_once() {
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
async fn a_line_without_an_envelope_is_a_located_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.jsonl");
    write(&file, &[line("c", 1, "a", 10), line("x", 2, "b", 11)]);
    let program = start(folder.path()).await;
    let why = world::stopped(&program).await;
    assert_eq!(
        why,
        "position 2 of partition 0 is unusable (skip it with `skip_message(0, 2, reason)`): a \
         message of topic `srv.public.t` cannot be read: its `op` is `x`"
    );
    // The lines before it are in.
    until("the first line is there", || async {
        value(&program, 1).await
    })
    .await;
    program.stop().await;
    assert_eq!(world::status(&program).state, IngestState::Ended);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_operator_skips_holds_up_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.jsonl");
    let lines = [
        line("c", 1, "a", 10),
        "{\"topic\"".into(),
        line("x", 2, "b", 11),
    ];
    write(&file, &lines);
    write(&file, &[line("c", 3, "c", 12)]);
    let program = start(folder.path()).await;
    let shop = program.ingest("shop").unwrap();
    for position in [2, 3] {
        until("it stops there", || async {
            match shop.status().state {
                IngestState::Stopped(why) => why
                    .contains(&format!("skip_message(0, {position}, "))
                    .then_some(()),
                _ => None,
            }
        })
        .await;
        shop.skip_message(0, position, "written by a test")
            .await
            .unwrap();
    }
    until("the last line is there", || async {
        value(&program, 3).await
    })
    .await;
    assert_eq!(value(&program, 1).await.as_deref(), Some("a"));
    assert_eq!(value(&program, 2).await, None);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_is_taken_when_it_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.jsonl");
    let add = |text: &str| {
        let opened = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&file);
        opened.unwrap().write_all(text.as_bytes()).unwrap();
    };
    let torn = line("c", 2, "b", 11);
    add(&format!("{}\n{}", line("c", 1, "a", 10), &torn[..40]));
    let program = start(folder.path()).await;
    until("the torn line is seen", || async {
        let warnings = world::status(&program).source.warnings;
        warnings
            .iter()
            .any(|of| of.contains("is not complete"))
            .then_some(())
    })
    .await;
    let whole = until("the whole line is there", || async {
        value(&program, 1).await
    });
    assert_eq!(whole.await, "a");
    // Complete, but for the end of the line.
    add(&torn[40..]);
    until("it is there", || async { value(&program, 2).await }).await;
    program.stop().await;
    drop(program);
    add("\n");
    add(&line("u", 2, "c", 12));
    let program = start(folder.path()).await;
    until("the update is there", || async {
        (value(&program, 2).await.as_deref() == Some("c")).then_some(())
    })
    .await;
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_that_cannot_be_read_stops_it() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("t.jsonl"), &[line("c", 1, "a", 10)]);
    let db = world::open(folder.path()).await;
    let stream = StreamId::any("$cdc_operator-shop").unwrap();
    let newer = NewEvent::json("cdc.skipped", r#"{"all":true}"#);
    let append = Append::new(stream, [newer]);
    db.store().append(append).await.unwrap();
    let program = start(folder.path()).await;
    let why = until("it says why", || async {
        match world::status(&program).state {
            IngestState::Stopped(why) | IngestState::Retrying(why) => Some(why),
            _ => None,
        }
    })
    .await;
    assert!(
        why.contains("`cdc.skipped` at version 1") && why.contains("a newer program"),
        "{why}"
    );
    assert_eq!(world::events(&program).await, []);
    program.stop().await;
}

/// A source of a user, with a fault.
struct Faulty;

#[async_trait]
impl Source for Faulty {
    async fn begin(&mut self, _: &str, _: Option<&Mark>) -> Result<(), SourceError> {
        Ok(())
    }

    async fn next(&mut self) -> Result<Chunk, SourceError> {
        panic!("the cable is loose")
    }

    async fn confirm(&mut self, _: &Mark) -> Result<(), SourceError> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_panics_stops_its_ingest_alone() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("t.jsonl"), &[line("c", 1, "a", 10)]);
    let file = folder.path().join("t.jsonl");
    let program = world::open(folder.path())
        .await
        .with(Ingest::named("shop").from(Faulty))
        .with(Ingest::named("other").from(Debezium::file(file)))
        .with(TableOf::<T>::projection())
        .start()
        .await
        .unwrap();
    let why = world::stopped(&program).await;
    assert!(why.contains("the cable is loose"), "{why}");
    until("the other ingest works", || async {
        value(&program, 1).await
    })
    .await;
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncate_over_archived_rows_stops_instead_of_missing_some() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.jsonl");
    write(&file, &[line("c", 1, "a", 10), line("u", 1, "b", 11)]);
    let program = start(folder.path()).await;
    until("the update is there", || async {
        (value(&program, 1).await.as_deref() == Some("b")).then_some(())
    })
    .await;
    let row = StreamId::new("public.t-1").unwrap();
    let before = Version::new(2);
    let change = ChangeStream::new(&row, StreamChange::Archive { before });
    program.store().change_stream(change).await.unwrap();
    let truncate = line("d", 1, "", 12).replace("\"op\":\"d\"", "\"op\":\"t\"");
    write(&file, &[truncate]);
    let why = world::stopped(&program).await;
    assert!(
        why.contains("the comparison of table `public.t` has not read position 1"),
        "{why}"
    );
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_one_row_at_one_moment_are_all_ingested() {
    for positions in [
        // MySQL, SQL Server, Oracle, and a connector that says no position.
        [
            r#""file":"bin.1","pos":200,"row":0"#,
            r#""file":"bin.1","pos":200,"row":1"#,
            r#""file":"bin.2","pos":200,"row":0"#,
        ],
        [
            r#""commit_lsn":"c","change_lsn":"a","event_serial_no":1"#,
            r#""commit_lsn":"c","change_lsn":"a","event_serial_no":2"#,
            r#""commit_lsn":"c","change_lsn":"b","event_serial_no":1"#,
        ],
        [
            r#""txId":"5.6.7","scn":"10","rs_id":"a","ssn":0"#,
            r#""txId":"5.6.7","scn":"10","rs_id":"b","ssn":0"#,
            r#""txId":"5.6.7","scn":"11","rs_id":"a","ssn":0"#,
        ],
        [r#""ord":1"#; 3],
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.jsonl");
        let [a, b, c] = positions;
        let lines = [
            line_at("u", 1, "a", a),
            line_at("u", 1, "b", b),
            line_at("u", 1, "c", c),
        ];
        write(&file, &lines);
        let program = start(folder.path()).await;
        taken(&program, 3).await;
        assert_eq!(types(&program).await, ["updated"; 3], "{positions:?}");
        let is_exact = a != b;
        if is_exact {
            write(&file, &lines);
            taken(&program, 6).await;
            assert_eq!(types(&program).await, ["updated"; 3], "{positions:?}");
        }
        program.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_rows_without_a_key_are_all_ingested() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.jsonl");
    // A snapshot, of which a program that starts again reads the second half.
    write(&file, &vec![line_without_key("r", "a", 10); 1_100]);
    let program = world::start(folder.path(), Debezium::file(&file)).await;
    taken(&program, 1_100).await;
    program.stop().await;
    drop(program);
    write(&file, &vec![line_without_key("r", "a", 10); 50]);
    let program = world::start(folder.path(), Debezium::file(&file)).await;
    taken(&program, 1_150).await;
    assert_eq!(types(&program).await.len(), 1_150);
    // What one statement inserted is at one position, and is repeated in whole.
    let mut inserted = vec![line_without_key("c", "b", 20); 3];
    inserted.push(line_without_key("c", "c", 21));
    write(&file, &inserted);
    write(&file, &inserted);
    taken(&program, 1_158).await;
    assert_eq!(types(&program).await.len(), 1_154);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_truncate_deletes_no_newer_row() {
    let truncate = || line("d", 1, "", 11).replace(r#""op":"d""#, r#""op":"t""#);
    let first = [line("c", 1, "a", 10), truncate(), line("c", 2, "b", 12)];
    for starts_again in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.jsonl");
        write(&file, &first);
        if starts_again {
            let program = start(folder.path()).await;
            taken(&program, 3).await;
            program.stop().await;
        }
        write(&file, &first[1..]);
        write(&file, &[line("c", 3, "c", 13)]);
        let program = start(folder.path()).await;
        taken(&program, 6).await;
        let wanted = ["inserted", "truncated", "deleted", "inserted", "inserted"];
        assert_eq!(types(&program).await, wanted, "{starts_again}");
        program.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_key_is_known_however_its_halves_come() {
    let [old, new] = halves(1, 2, "b", 11);
    let apart: [&[&String]; 2] = [&[&old], &[&new]];
    let together: [&[&String]; 2] = [&[&old, &new], &[]];
    for [first, second] in [[apart, together], [together, apart]] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.jsonl");
        let mut count = 0;
        let mut wanted = Vec::new();
        let newer = || vec![line("u", 2, "newer", 12)];
        let inserted = || vec![line("c", 1, "a", 10)];
        let given = |halves: [&[&String]; 2]| {
            halves.map(|lines| lines.iter().map(|line| (*line).clone()).collect::<Vec<_>>())
        };
        let [one, two] = given(first);
        let [three, four] = given(second);
        for lines in [inserted(), one, two, newer(), three, four] {
            // Each start reads a chunk of its own.
            write(&file, &lines);
            count += lines.len() as u64;
            let program = start(folder.path()).await;
            taken(&program, count).await;
            if count <= 4 {
                wanted = types(&program).await;
            }
            assert_eq!(types(&program).await, wanted);
            program.stop().await;
        }
        let program = start(folder.path()).await;
        assert_eq!(wanted.len(), 4, "{wanted:?}");
        until("the newer value is there", || async {
            (value(&program, 2).await.as_deref() == Some("newer")).then_some(())
        })
        .await;
        program.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_not_the_one_that_was_read_stops() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.jsonl");
    let lines = [line("c", 1, "a", 10), line("c", 2, "b", 11)];
    write(&file, &lines);
    let program = start(folder.path()).await;
    taken(&program, 2).await;
    program.stop().await;
    drop(program);
    let other = folder.path().join("other.jsonl");
    write(&other, &lines);
    let program = world::start(folder.path(), Debezium::file(&other)).await;
    let why = world::stopped(&program).await;
    assert!(why.contains("is of another source"), "{why}");
    program.stop().await;
    drop(program);
    std::fs::remove_file(&file).unwrap();
    write(&file, &lines[1..]);
    let program = start(folder.path()).await;
    let why = world::stopped(&program).await;
    assert!(why.contains("has 1 line, and 2 were read"), "{why}");
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_replaced_while_it_is_read_stops() {
    let lines = [line("c", 1, "a", 10), line("c", 2, "b", 11)];
    let newer: Vec<_> = (3..9).map(|id| line("c", id, "c", id as u64)).collect();
    type Replace = fn(&Path, &[String]);
    let cut: Replace = |file, _| std::fs::write(file, "").unwrap();
    let rotated: Replace = |file, newer| {
        std::fs::rename(file, file.with_extension("1")).unwrap();
        write(file, newer);
    };
    for (replace, wanted) in [
        (cut, "has 0 lines, and 2 were read"),
        (rotated, "has another line 2 than was read"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.jsonl");
        write(&file, &lines);
        let program = start(folder.path()).await;
        taken(&program, 2).await;
        replace(&file, &newer);
        let why = until("it stops", || async {
            let why = world::stopped(&program).await;
            why.contains(wanted).then_some(why)
        })
        .await;
        assert!(why.contains("Put that file back"), "{why}");
        // The way out: the file that was read, with what came since.
        let whole = folder.path().join("whole");
        write(&whole, &lines);
        write(&whole, &newer);
        std::fs::rename(&whole, &file).unwrap();
        until("the last line is there", || async {
            value(&program, 8).await
        })
        .await;
        program.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_lines_count_as_lines() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.jsonl");
    let empty = String::new;
    write(&file, &[line("c", 1, "a", 10), empty(), empty()]);
    let program = start(folder.path()).await;
    taken(&program, 1).await;
    write(&file, &[line("c", 2, "b", 11), empty()]);
    taken(&program, 4).await;
    program.stop().await;
    drop(program);
    write(&file, &[line("c", 3, "c", 12)]);
    let program = start(folder.path()).await;
    until("the last line is there", || async {
        value(&program, 3).await
    })
    .await;
    program.stop().await;
}

/// As `T`, of numbers alone.
#[derive(TableRow, Clone, Debug)]
#[table("public.t")]
struct Numbered {
    #[key]
    id: i64,
    v: i64,
}

#[derive(Event, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "number")]
enum Number {
    Given { number: i64 },
}

/// Lines of MySQL, at one position each.
fn lines_of_mysql(changes: &[(&str, i64, &str)]) -> Vec<String> {
    let positions = (1..).map(|pos| format!(r#""file":"bin.1","pos":{pos},"row":0"#));
    let changes = changes.iter().zip(positions);
    changes
        .map(|((op, id, v), position)| line_at(op, *id, v, &position))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_skipped_message_is_the_only_one_that_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.jsonl");
    write(
        &file,
        &lines_of_mysql(&[("c", 1, "1"), ("c", 2, "bad"), ("c", 3, "3")]),
    );
    let number = |change: &Change<Numbered>| match change {
        Change::Inserted { after } => {
            let number = after.v;
            Some((format!("number-{number}"), Number::Given { number }))
        }
        _ => None,
    };
    let numbers = Ingest::named("shop").from(Debezium::file(&file));
    let db = world::open(folder.path()).await;
    let program = db.with(numbers.translate(number)).start().await.unwrap();
    let why = world::stopped(&program).await;
    let wanted = "position 2 of partition 0: skip it with `skip_message(0, 2, reason)`";
    assert!(why.contains(wanted), "{why}");
    let shop = program.ingest("shop").unwrap();
    let refused = shop.skip(Lsn::ZERO, 0, "no number").await.unwrap_err();
    assert!(
        refused.to_string().contains("skip one with `skip_message("),
        "{refused}"
    );
    shop.skip_message(0, 2, "no number").await.unwrap();
    world::ids_of(&program, "public.t.inserted", 2).await;
    let last = line_at("c", 4, "4", r#""file":"bin.2","pos":1,"row":0"#);
    write(&file, &[last]);
    let found = world::ids_of(&program, "public.t.inserted", 3).await;
    assert_eq!(found, [1, 3, 4]);
    program.stop().await;
}

/// A store that does not answer the second append with deletions of table `u`.
#[derive(Debug, Default)]
struct FailsInTruncate {
    seen: AtomicUsize,
}

#[async_trait]
impl StoreFault for FailsInTruncate {
    async fn append(&self, store: &dyn Store, append: Append) -> Result<Appended, AppendError> {
        let deletes = |(_, event): &(StreamId, NewEvent)| &*event.event_type == "public.u.deleted";
        if append.events.iter().any(deletes) && self.seen.fetch_add(1, Ordering::SeqCst) == 1 {
            let error = StoreError::new(Failure::Unavailable, "the disk is away");
            return Err(AppendError::Store(error));
        }
        store.append(append).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncate_in_part_completes_and_repeats_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.jsonl");
    // The rows of one are more than an append takes.
    let rows = 8_200;
    let mut changes: Vec<_> = (1..=rows).map(|id| ("c", id, "a")).collect();
    changes.extend([("c", 1, "a"), ("t", 1, ""), ("c", 2, "b"), ("t", 1, "")]);
    let mut lines = lines_of_mysql(&changes);
    let of_t = rows as usize..rows as usize + 3;
    for (index, line) in lines.iter_mut().enumerate() {
        if !of_t.contains(&index) {
            *line = line.replace(r#""table":"t""#, r#""table":"u""#);
        }
    }
    write(&file, &lines);
    let db = world::open(folder.path()).await;
    let store = FaultyStore::new(Arc::clone(db.store()), FailsInTruncate::default());
    let ingest = Ingest::named("shop").from(Debezium::file(&file));
    let program = Annals::on(store).with(ingest).start().await.unwrap();
    taken(&program, lines.len() as u64).await;
    let deleted = world::ids(&program, "public.u.deleted").await;
    assert_eq!(deleted.len(), rows as usize);
    let events = world::events(&program).await.into_iter();
    let of_t = events.filter_map(|event| {
        let what = event.event_type.strip_prefix("public.t.")?;
        Some(what.to_owned())
    });
    let of_t: Vec<_> = of_t.collect();
    assert_eq!(of_t, ["inserted", "truncated", "deleted", "inserted"]);
    program.stop().await;
}

/// A value that cannot be written.
#[derive(Debug, PartialEq, Deserialize)]
struct Fragile(i64);

impl serde::Serialize for Fragile {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert!(self.0 != 2, "the glass is broken");
        serializer.serialize_i64(self.0)
    }
}

#[derive(Event, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "glass")]
enum Glass {
    Packed { of: Fragile },
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_translation_that_cannot_be_written_stops_at_its_message() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.jsonl");
    write(
        &file,
        &lines_of_mysql(&[("c", 1, "a"), ("c", 2, "b"), ("c", 3, "c")]),
    );
    let packed = |change: &Change<T>| match change {
        Change::Inserted { after } => {
            let of = Fragile(after.id);
            Some((format!("glass-{}", after.id), Glass::Packed { of }))
        }
        _ => None,
    };
    let glasses = Ingest::named("shop").from(Debezium::file(&file));
    let db = world::open(folder.path()).await;
    let program = db.with(glasses.translate(packed)).start().await.unwrap();
    let why = world::stopped(&program).await;
    assert!(why.contains("the glass is broken"), "{why}");
    assert!(why.contains("`skip_message(0, 2, reason)`"), "{why}");
    let shop = program.ingest("shop").unwrap();
    shop.skip_message(0, 2, "broken").await.unwrap();
    let found = world::ids_of(&program, "public.t.inserted", 2).await;
    assert_eq!(found, [1, 3]);
    program.stop().await;
}
