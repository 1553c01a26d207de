//! A process that appends is killed at any moment: what was acknowledged is there, whole and once,
//! and what was not can be asked again.
//!
//! The test starts itself as the process that will be killed (40 times, or 200 with
//! `ANNALS_TEST_LONG=1`), and reads from its output what was
//! acknowledged.

// What must not fail is unwrapped, and the figures are shown.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use annals_core::conformance::numbered::{Numbered, check, whole_log};
use annals_core::conformance::{Dice, rounds};
use annals_core::{Append, EventStore, NewEvent, StreamId};
use annals_sqlite::SqliteStore;
use tempfile::TempDir;

const FILE: &str = "ANNALS_KILL_FILE";
const RUN: &str = "ANNALS_KILL_RUN";
const TASKS: u64 = 6;

/// The process that is killed: it appends until then, and says what was acknowledged after it was.
#[test]
#[ignore = "it is the process that the other tests start and kill"]
fn appends_until_it_is_killed() {
    let (Ok(file), Ok(run)) = (std::env::var(FILE), std::env::var(RUN)) else {
        return;
    };
    let run: u64 = run.parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = SqliteStore::open(&format!("sqlite:{file}")).await.unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..TASKS {
            let store = store.clone();
            tasks.spawn(async move {
                for n in 0.. {
                    let numbered = Numbered { run, task, n };
                    store.append(numbered.append()).await.unwrap();
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "\nacknowledged {task} {n}")
                        .and_then(|()| out.flush())
                        .unwrap();
                }
            });
        }
        tasks.join_next().await.unwrap().unwrap();
    });
}

struct Writer {
    child: Child,
    run: u64,
}

impl Writer {
    fn start(file: &Path, run: u64) -> Writer {
        let child = Command::new(std::env::current_exe().unwrap())
            .args([
                "appends_until_it_is_killed",
                "--exact",
                "--ignored",
                "--nocapture",
            ])
            .env(FILE, file)
            .env(RUN, run.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Writer { child, run }
    }

    /// Kills it some time after its first acknowledgement, and says what it acknowledged.
    fn killed_after(mut self, after: Duration) -> Vec<Numbered> {
        let mut out = BufReader::new(self.child.stdout.take().unwrap());
        let run = self.run;
        let (begun, has_begun) = channel();
        let reader = std::thread::spawn(move || {
            let mut acknowledged = Vec::new();
            let mut line = String::new();
            while out.read_line(&mut line).unwrap() > 0 {
                // The last line may be cut off.
                if let Some(numbers) = line
                    .strip_suffix('\n')
                    .and_then(|line| line.strip_prefix("acknowledged "))
                {
                    let (task, n) = numbers.split_once(' ').unwrap();
                    acknowledged.push(Numbered {
                        run,
                        task: task.parse().unwrap(),
                        n: n.parse().unwrap(),
                    });
                    let _ = begun.send(());
                }
                line.clear();
            }
            acknowledged
        });
        // Every fifth is killed before anything is known of it.
        if !self.run.is_multiple_of(5) {
            has_begun.recv_timeout(Duration::from_secs(30)).unwrap();
        }
        let until = Instant::now() + after;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            if has_begun.recv_timeout(left) == Err(RecvTimeoutError::Disconnected) {
                break;
            }
        }
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        reader.join().unwrap()
    }
}

/// Asks again for what was acknowledged and for what was not.
async fn retry(
    store: &SqliteStore,
    acknowledged: &HashSet<Numbered>,
    found: &HashSet<Numbered>,
) -> (usize, usize) {
    let mut repeated = 0;
    let mut done = 0;
    let mut newest: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    for numbered in acknowledged {
        let n = newest.entry((numbered.run, numbered.task)).or_default();
        *n = numbered.n.max(*n);
    }
    // The last one that was acknowledged, and the one that was on its way.
    for ((run, task), n) in newest {
        for numbered in [
            Numbered { run, task, n },
            Numbered {
                run,
                task,
                n: n + 1,
            },
        ] {
            let appended = store.append(numbered.append()).await.unwrap();
            assert_eq!(
                appended.was_repeated(),
                found.contains(&numbered),
                "{numbered:?}"
            );
            assert_eq!(appended.events().len() as u64, numbered.events());
            if appended.was_repeated() {
                repeated += 1;
            } else {
                done += 1;
            }
        }
    }
    (repeated, done)
}

async fn kill(writers: usize, kills: u64, file: PathBuf) {
    let began = Instant::now();
    let mut dice = Dice::new(kills + writers as u64);
    let mut acknowledged = HashSet::new();
    let mut run = 0;
    let mut killed = 0;
    while killed < kills {
        let started: Vec<Writer> = (0..writers)
            .map(|_| {
                run += 1;
                Writer::start(&file, run)
            })
            .collect();
        for writer in started {
            acknowledged.extend(writer.killed_after(Duration::from_micros(dice.roll(90_000))));
            killed += 1;
        }
        if killed.is_multiple_of(50) {
            let store = SqliteStore::open(&format!("sqlite:{}", file.display()))
                .await
                .unwrap();
            check(&whole_log(&store).await, &acknowledged);
        }
    }
    let store = SqliteStore::open(&format!("sqlite:{}", file.display()))
        .await
        .unwrap();
    let log = whole_log(&store).await;
    let found = check(&log, &acknowledged);
    let (repeated, done) = retry(&store, &acknowledged, &found).await;
    check(&whole_log(&store).await, &acknowledged);
    println!(
        "{killed} kills with {writers} writing at once in {:.1} s: {} events, {} appends \
         acknowledged, 0 lost, 0 torn, 0 twice; \
         {} were there without an acknowledgement; of {} asked again {repeated} were repetitions \
         and {done} were done now",
        began.elapsed().as_secs_f64(),
        log.len(),
        acknowledged.len(),
        found.len() - acknowledged.len(),
        repeated + done,
    );
    assert!(
        acknowledged.len() as u64 > kills,
        "too little happened to prove anything"
    );
}

#[tokio::test]
async fn acknowledged_events_survive_kills_of_the_writer() {
    let directory = TempDir::new().unwrap();
    kill(1, rounds(40, 200), directory.path().join("log.db")).await;
}

#[tokio::test]
async fn acknowledged_events_survive_kills_of_two_writers() {
    let directory = TempDir::new().unwrap();
    kill(2, rounds(40, 200), directory.path().join("log.db")).await;
}

/// The file alone, after a clean close, is the whole log.
#[tokio::test]
async fn a_closed_store_leaves_one_file() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("log.db");
    let store = SqliteStore::open(&format!("sqlite:{}", file.display()))
        .await
        .unwrap();
    let event = NewEvent::json("noted", b"{}".as_slice());
    store
        .append(Append::new(StreamId::new("note-1").unwrap(), [event]))
        .await
        .unwrap();
    assert_eq!(whole_log(&store).await.len(), 1);
    drop(store);
    let left: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["log.db"]);
    let mut header = [0; 72];
    std::fs::File::open(&file)
        .unwrap()
        .read_exact(&mut header)
        .unwrap();
    assert_eq!(&header[68..], b"ANNL", "the application id");
}
