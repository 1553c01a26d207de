//! A process that keeps a read model is killed at any moment, while another one appends: at the end
//! the read model is what a replay from the first event gives. No event is missing and none was
//! applied twice.
//!
//! The test starts itself as the processes that will be killed: 40 times, or 200 with
//! `ANNALS_TEST_LONG=1`. Two of them work at a time under
//! leases that they never renew, so that they also take the slot from each other all the time.

// What must not fail is unwrapped, and the figures are shown.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use annals_core::conformance::{Dice, rounds};
use annals_core::{
    Acquired, Append, Checkpoint, CommitError, EventStore, Generation, GenerationSpec,
    GenerationStore, Leases, Log, NewEvent, Partition, Position, ReadLog, ReadRows, RowChange,
    RowStore, RowsBy, StreamId, ViewCommit,
};
use annals_sqlite::SqliteStore;
use tempfile::TempDir;

const LOG: &str = "ANNALS_VIEW_KILL_LOG";
const VIEWS: &str = "ANNALS_VIEW_KILL_VIEWS";
const WRONG: &str = "ANNALS_VIEW_KILL_WRONG";
const KEYS: u64 = 40;
const TTL: Duration = Duration::from_millis(25);

/// How often a key was touched, and the sum of what was added.
type Counted = BTreeMap<String, (u64, u64)>;

async fn open(file: &Path) -> SqliteStore {
    SqliteStore::open(&format!("sqlite:{}", file.display()))
        .await
        .unwrap()
}

fn counted(value: &[u8]) -> (u64, u64) {
    let (count, sum) = std::str::from_utf8(value).unwrap().split_once(' ').unwrap();
    (count.parse().unwrap(), sum.parse().unwrap())
}

/// A worker on the only slot of the view.
struct Worker<'a> {
    log: &'a SqliteStore,
    views: &'a SqliteStore,
    generation: Generation,
    /// Writes the rows in one transaction and the checkpoint in another one, as no product should.
    wrong: bool,
}

impl Worker<'_> {
    async fn checkpoint(&self) -> Position {
        let checkpoints = self.views.checkpoints(self.generation.id).await.unwrap();
        checkpoints
            .first()
            .map_or(Position::START, |checkpoint| checkpoint.position)
    }

    /// Follows the log to this position, calling `committed` after each step.
    async fn follow(&self, to: Position, committed: impl Fn()) {
        let mut hint = self.log.hint();
        while self.checkpoint().await < to {
            let name = self.generation.lease_name(0);
            let asked = self
                .views
                .acquire_lease(&name, &std::process::id().to_string(), TTL)
                .await
                .unwrap();
            let Acquired::Granted(lease) = asked else {
                hint.wait(Duration::from_millis(2)).await;
                continue;
            };
            let mut from = self.checkpoint().await;
            loop {
                let page = self
                    .log
                    .read(ReadLog::after(from).up_to(to).limit(300))
                    .await
                    .unwrap();
                let Some(last) = page.events.last() else {
                    hint.wait(Duration::from_millis(2)).await;
                    break;
                };
                let changed: Vec<&str> = page
                    .events
                    .iter()
                    .map(|event| event.stream.as_str())
                    .collect();
                let mut rows = self
                    .rows(RowsBy::Keys(
                        changed.iter().map(|key| (*key).to_owned()).collect(),
                    ))
                    .await;
                for (key, event) in changed.iter().zip(&page.events) {
                    let (count, sum) = rows.entry((*key).to_owned()).or_default();
                    *count += 1;
                    *sum += std::str::from_utf8(&event.payload)
                        .unwrap()
                        .parse::<u64>()
                        .unwrap();
                }
                let to = Checkpoint {
                    position: page.scanned,
                    event: Some(last.id),
                    ..Checkpoint::start(0, Partition(0))
                };
                let mut step = ViewCommit::new(self.generation.id, lease.clone(), from, to);
                let row = |(key, (count, sum))| {
                    let value = Some(format!("{count} {sum}").into());
                    RowChange {
                        key,
                        value,
                        indexed: vec![format!("{sum:012}")],
                    }
                };
                step.rows = rows.into_iter().map(row).collect();
                match self.commit(step, &committed).await {
                    Ok(()) => {}
                    Err(CommitError::Fenced { .. }) => break,
                    Err(error) => panic!("{error:?}"),
                }
                committed();
                from = page.scanned;
            }
        }
    }

    async fn commit(&self, step: ViewCommit, committed: &impl Fn()) -> Result<(), CommitError> {
        if !self.wrong {
            return self.views.commit_view(step).await;
        }
        let mut rows = step;
        rows.to = Checkpoint {
            position: rows.from,
            ..rows.to
        };
        self.views.commit_view(rows).await?;
        // The checkpoint would come next. It pauses in this gap, which a kill would seldom
        // meet by chance.
        committed();
        std::future::pending().await
    }

    async fn rows(&self, by: RowsBy) -> Counted {
        let page = self
            .views
            .read_rows(ReadRows::of(self.generation.id, by))
            .await
            .unwrap();
        assert!(page.next.is_none());
        page.rows
            .into_iter()
            .map(|row| (row.key, counted(&row.value)))
            .collect()
    }
}

/// The process that the tests start and kill: it keeps the view until then.
#[test]
#[ignore = "it is the process that the other tests start and kill"]
fn follows_until_it_is_killed() {
    let (Ok(log), Ok(views)) = (std::env::var(LOG), std::env::var(VIEWS)) else {
        return;
    };
    let wrong = std::env::var(WRONG).is_ok();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let log = open(Path::new(&log)).await;
        let views = open(Path::new(&views)).await;
        let generation = views.live_generation("counts", 1).await.unwrap().unwrap();
        let worker = Worker {
            log: &log,
            views: &views,
            generation,
            wrong,
        };
        let committed = || {
            let mut out = std::io::stdout().lock();
            writeln!(out, "committed")
                .and_then(|()| out.flush())
                .unwrap();
        };
        worker.follow(Position::MAX, committed).await;
    });
}

struct WorkerProcess {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl WorkerProcess {
    fn start(log: &Path, views: &Path, wrong: bool) -> WorkerProcess {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([
            "follows_until_it_is_killed",
            "--exact",
            "--ignored",
            "--nocapture",
        ]);
        command.env(LOG, log).env(VIEWS, views);
        if wrong {
            command.env(WRONG, "1");
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        WorkerProcess { child, out }
    }

    /// Waits until it has taken a step; `false`: it has ended.
    fn has_committed(&mut self) -> bool {
        let mut line = String::new();
        while self.out.read_line(&mut line).unwrap() > 0 {
            if line.ends_with("committed\n") {
                return true;
            }
            line.clear();
        }
        false
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Appends until it is stopped, some events at a time.
async fn append(log: SqliteStore, mut stop: tokio::sync::oneshot::Receiver<()>) {
    let mut dice = Dice::new(7);
    let mut pace = tokio::time::interval(Duration::from_millis(1));
    while stop.try_recv().is_err() {
        let mut append = Append::default();
        for _ in 0..=dice.roll(12) {
            let stream = StreamId::new(format!("key-{}", dice.roll(KEYS))).unwrap();
            let payload = dice.roll(1_000).to_string();
            append = append.event(stream, NewEvent::json("added", payload.into_bytes()));
        }
        log.append(append).await.unwrap();
        pace.tick().await;
    }
}

async fn replay(log: &SqliteStore) -> (Counted, Position) {
    let mut counted = Counted::new();
    let mut after = Position::START;
    loop {
        let page = log.read(ReadLog::after(after)).await.unwrap();
        for event in &page.events {
            let (count, sum) = counted.entry(event.stream.to_string()).or_default();
            *count += 1;
            *sum += std::str::from_utf8(&event.payload)
                .unwrap()
                .parse::<u64>()
                .unwrap();
        }
        after = page.scanned;
        if page.end {
            return (counted, after);
        }
    }
}

/// What came of the kills: how many events the view has too often, or not at all.
#[derive(Debug)]
struct Came {
    twice: u64,
    missing: u64,
}

async fn kill(kills: u64, log: PathBuf, views: PathBuf, wrong: bool) -> Came {
    let began = Instant::now();
    let store = open(&log).await;
    let view_store = if log == views {
        store.clone()
    } else {
        open(&views).await
    };
    let mut spec = GenerationSpec::new("counts", 1, store.id());
    spec.indexes = vec!["sum".into()];
    let generation = view_store.begin_generation(spec).await.unwrap();
    view_store.switch_to(generation.id).await.unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let appending = tokio::spawn(append(store.clone(), stopped));
    let killing = tokio::task::spawn_blocking(move || {
        let mut dice = Dice::new(kills);
        let mut one = WorkerProcess::start(&log, &views, wrong);
        for killed in 0..kills {
            let other = WorkerProcess::start(&log, &views, wrong);
            // Every fifth is killed before anything is known of it.
            if !killed.is_multiple_of(5) && one.has_committed() {
                let until = Instant::now() + Duration::from_micros(dice.roll(30_000));
                while !wrong && Instant::now() < until && one.has_committed() {}
            }
            one.kill();
            one = other;
        }
        one.kill();
    });
    killing.await.unwrap();
    stop.send(()).unwrap();
    appending.await.unwrap();
    let (expected, head) = replay(&store).await;
    let worker = Worker {
        log: &store,
        views: &view_store,
        generation,
        wrong: false,
    };
    worker.follow(head, || {}).await;
    let found = worker
        .rows(RowsBy::KeyRange(Bound::Unbounded, Bound::Unbounded))
        .await;
    let everything = (Bound::Unbounded, Bound::Unbounded);
    let by_sum = worker
        .rows(RowsBy::Index {
            name: "sum".into(),
            range: everything,
        })
        .await;
    assert_eq!(by_sum, found, "the index and the rows differ");
    let mut twice = 0;
    let mut missing = 0;
    for (key, (count, _)) in &expected {
        let found = found.get(key).map_or(0, |(count, _)| *count);
        twice += found.saturating_sub(*count);
        missing += count.saturating_sub(found);
    }
    println!(
        "{kills} kills in {:.1} s: {head} events over {KEYS} keys, {twice} applied twice, \
         {missing} missing",
        began.elapsed().as_secs_f64(),
    );
    assert!(head.get() > kills, "too little happened to prove anything");
    assert!(wrong || found == expected, "the view is not the replay");
    Came { twice, missing }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_beside_the_log_equals_a_replay_after_kills() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("log.db");
    let came = kill(rounds(40, 200), file.clone(), file, false).await;
    assert_eq!((came.twice, came.missing), (0, 0), "{came:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_in_another_file_equals_a_replay_after_kills() {
    let directory = TempDir::new().unwrap();
    let came = kill(
        rounds(20, 100),
        directory.path().join("log.db"),
        directory.path().join("views.db"),
        false,
    )
    .await;
    assert_eq!((came.twice, came.missing), (0, 0), "{came:?}");
}

/// The test can fail: with the checkpoint in a second transaction it does.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_in_a_second_transaction_applies_events_twice() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("log.db");
    let came = kill(rounds(12, 60), file.clone(), file, true).await;
    assert!(came.twice > 0 && came.missing == 0, "{came:?}");
}
