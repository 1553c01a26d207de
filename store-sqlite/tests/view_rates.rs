//! How fast read models are written, beside the same upserts by hand. Run on a quiet machine:
//! `cargo test --release -p annals-sqlite --test view_rates -- --ignored --nocapture`.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // What must not fail is unwrapped, and the figures are shown.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use annals_core::{
    Acquired, AppendStreams, AtomicStreams, Checkpoint, GenerationSpec, History, Leases, Log,
    LogPage, NewEvent, Partition, Position, ReadLog, RowChange, RowVersion, StreamId, ViewCommit,
    ViewStore,
};
use annals_sqlite::{SqliteStore, rusqlite};
use tempfile::TempDir;

const EVENTS: u64 = 1_000_000;
const KEYS: u64 = 100_000;
const STEP: usize = 20_000;

/// Numbers that look random and are the same in every run.
fn random(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

async fn filled(directory: &TempDir) -> SqliteStore {
    let store = SqliteStore::open(&format!(
        "sqlite:{}",
        directory.path().join("log.db").display()
    ))
    .await
    .unwrap();
    let mut dice = 1;
    for _ in 0..EVENTS / 1_000 {
        let mut append = AppendStreams::default();
        for _ in 0..1_000 {
            let stream = StreamId::new(format!("account-{}", random(&mut dice) % KEYS)).unwrap();
            let payload = format!(r#"{{"cents":{}}}"#, random(&mut dice) % 100_000);
            append = append.event(
                stream,
                NewEvent::json("account.deposited", payload.into_bytes()),
            );
        }
        store.append_streams(append).await.unwrap();
    }
    store
}

fn cents(payload: &[u8]) -> u64 {
    payload
        .iter()
        .filter(|byte| byte.is_ascii_digit())
        .fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'))
}

/// The rows as they are folded: sum, and the last event of the step that changes it.
#[derive(Default)]
struct Folded {
    places: HashMap<String, usize>,
    rows: Vec<(String, u64, Position)>,
    /// Rows that the step changes.
    changed: Vec<usize>,
}

impl Folded {
    fn fold(&mut self, page: &LogPage, from: Position) {
        for event in &page.events {
            let key = event.stream.as_str().strip_prefix("account-").unwrap();
            let place = match self.places.get(key) {
                Some(place) => *place,
                None => {
                    self.places.insert(key.to_owned(), self.rows.len());
                    self.rows.push((key.to_owned(), 0, Position::START));
                    self.rows.len() - 1
                }
            };
            let (_, sum, at) = &mut self.rows[place];
            if *at <= from {
                self.changed.push(place);
            }
            *sum = *sum + cents(&event.payload);
            *at = event.position;
        }
    }
}

fn read(log: &SqliteStore, after: Position) -> tokio::task::JoinHandle<LogPage> {
    let log = log.clone();
    tokio::spawn(async move {
        log.read(ReadLog::after(after).limit(STEP / 2))
            .await
            .unwrap()
    })
}

/// Reads, folds and commits: a page is read and a step is written while another page is folded.
async fn rebuild(
    log: &SqliteStore,
    views: &SqliteStore,
    spec: GenerationSpec,
) -> (Duration, Duration, usize) {
    let has_indexes = !spec.indexes.is_empty();
    let keeps = spec.history;
    let generation = views.begin_generation(spec).await.unwrap();
    let asked = views
        .acquire_lease(&generation.lease_name(0), "w", Duration::from_secs(60))
        .await
        .unwrap();
    let Acquired::Granted(lease) = asked else {
        panic!("it is free")
    };
    let began = Instant::now();
    let mut from = Position::START;
    let mut rows = 0;
    let mut folding = Duration::ZERO;
    let mut folded = Folded::default();
    let mut reading = read(log, from);
    let mut writing: Option<tokio::task::JoinHandle<()>> = None;
    loop {
        let mut to = from;
        let mut last = None;
        let mut count = 0;
        let mut end = false;
        while count < STEP && !end {
            let page = reading.await.unwrap();
            reading = read(log, page.scanned);
            let folds = Instant::now();
            folded.fold(&page, from);
            last = page
                .events
                .last()
                .map(|event| (event.id, event.recorded_at))
                .or(last);
            count += page.events.len();
            folding += folds.elapsed();
            to = page.scanned;
            end = page.end;
        }
        let Some((event, recorded_at)) = last else {
            break;
        };
        let folds = Instant::now();
        let checkpoint = Checkpoint {
            position: to,
            event: Some(event),
            ..Checkpoint::start(0, Partition(0))
        };
        let mut step = ViewCommit::new(generation.id, lease.clone(), from, checkpoint);
        for place in folded.changed.drain(..) {
            let (key, sum, up_to) = &folded.rows[place];
            let mut value = String::with_capacity(32);
            write!(value, r#"{{"cents":{sum}}}"#).unwrap();
            let value = bytes::Bytes::from(value);
            if keeps != History::None {
                let key = key.clone();
                let up_to = *up_to;
                let value = Some(value.clone());
                step.versions.push(RowVersion {
                    key,
                    after: from,
                    up_to,
                    recorded_at,
                    value,
                });
            }
            let indexed = if has_indexes {
                vec![format!("{sum:012}")]
            } else {
                Vec::new()
            };
            step.rows.push(RowChange {
                key: key.clone(),
                value: Some(value),
                indexed,
            });
        }
        folding += folds.elapsed();
        rows += step.rows.len();
        if let Some(writing) = writing.take() {
            writing.await.unwrap();
        }
        let views = views.clone();
        writing = Some(tokio::spawn(async move {
            views.commit_view(step).await.unwrap()
        }));
        from = to;
    }
    writing.unwrap().await.unwrap();
    (began.elapsed(), folding, rows)
}

/// The same rows by hand: an upsert a row, in the order in which they come, a commit a step.
fn by_hand(directory: &TempDir) -> (Duration, usize) {
    let connection = rusqlite::Connection::open(directory.path().join("hand.db")).unwrap();
    connection
        .execute_batch(
            "pragma journal_mode = wal; pragma synchronous = full; pragma cache_size = -8192;
             pragma wal_autocheckpoint = 2048;
             create table balances (key text primary key, value blob not null) strict, without rowid;",
        )
        .unwrap();
    let mut dice = 1;
    let mut steps: Vec<HashMap<String, String>> = Vec::new();
    for n in 0..EVENTS {
        if n.is_multiple_of(STEP as u64) {
            steps.push(HashMap::new());
        }
        let key = (random(&mut dice) % KEYS).to_string();
        let value = format!(r#"{{"cents":{}}}"#, random(&mut dice) % 1_000_000);
        steps.last_mut().unwrap().insert(key, value);
    }
    let rows = steps.iter().map(HashMap::len).sum();
    let began = Instant::now();
    for step in steps {
        connection.execute_batch("begin immediate").unwrap();
        let mut upsert = connection
            .prepare_cached(
                "insert into balances values (?1, ?2) on conflict (key) do update set value = \
                 excluded.value",
            )
            .unwrap();
        for (key, value) in &step {
            upsert.execute((key, value.as_bytes())).unwrap();
        }
        connection.execute_batch("commit").unwrap();
    }
    (began.elapsed(), rows)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it measures; run it alone and in release mode"]
async fn rebuild_rates() {
    let directory = TempDir::new().unwrap();
    let log = filled(&directory).await;
    let elsewhere = SqliteStore::open(&format!(
        "sqlite:{}",
        directory.path().join("views.db").display()
    ))
    .await
    .unwrap();
    let rate = |count: f64, took: Duration| count / took.as_secs_f64() / 1_000.0;
    for round in 0..3 {
        let (took, rows) = by_hand(&directory);
        std::fs::remove_file(directory.path().join("hand.db")).unwrap();
        println!(
            "{round}: by hand, {rows} upserts only: {took:.2?}, {:.0} k rows/s",
            rate(rows as f64, took)
        );
        let mut spec = GenerationSpec::new("balances", 1, log.id());
        for (name, views, keeps, indexes) in [
            ("present, in the log's file", &log, History::None, vec![]),
            (
                "present, in a file of its own",
                &elsewhere,
                History::None,
                vec![],
            ),
            (
                "with an index",
                &elsewhere,
                History::None,
                vec!["cents".to_owned()],
            ),
            ("with history", &elsewhere, History::Versions, vec![]),
        ] {
            spec.history = keeps;
            spec.indexes = indexes;
            let (took, folding, rows) = rebuild(&log, views, spec.clone()).await;
            println!(
                "{round}: {name}: {took:.2?} (of which folding {folding:.2?}), {:.0} k events/s, \
                 {:.0} k rows/s",
                rate(EVENTS as f64, took),
                rate(rows as f64, took)
            );
        }
    }
}
