//! Programs with the pipeline of the example `fraud`, killed with `SIGKILL` at every kind of step:
//! around commits of slots and notes, and around what the sender appends. The alerts are those of
//! one run that nobody disturbed, each once.

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use annals::pipeline::Time;
use annals::prelude::*;
use annals::projections::Options;
use annals::store::{Append, ReadLog};
use annals::{MemoryStore, Partition, Store, StoreError};
use annals_core::conformance::Dice;
use annals_core::conformance::faulty::{Call, FaultyStore, StoreFault};
use annals_core::conformance::rounds;
use async_trait::async_trait;
use tempfile::TempDir;

use crate::afternoon::{Delivery, deliveries};
use crate::rules::fraud;

const LOCATION: &str = "ANNALS_FRAUD_LOCATION";
const SLOTS: &str = "ANNALS_FRAUD_SLOTS";
const STEP: &str = "ANNALS_FRAUD_STEP";
const TIMES: &str = "ANNALS_FRAUD_TIMES";
const WAIT: Duration = Duration::from_secs(120);

/// Where a process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    AfterRead,
    BeforeCommit,
    /// While a commit is on its way: the process is killed some time after it said so.
    InCommit,
    AfterCommit,
    BeforeAppend,
    InAppend,
    /// Between an append of the sender and its note.
    AfterAppend,
}

const STEPS: [Step; 7] = [
    Step::BeforeAppend,
    Step::AfterAppend,
    Step::InAppend,
    Step::BeforeCommit,
    Step::InCommit,
    Step::AfterCommit,
    Step::AfterRead,
];

/// Stands still at a step, until the process is killed.
#[derive(Debug)]
struct Halts {
    step: String,
    left: AtomicI64,
}

impl Halts {
    async fn at(&self, step: Step) {
        if self.step == format!("{step:?}") && self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            say("here");
            if step != Step::InCommit && step != Step::InAppend {
                std::future::pending::<()>().await;
            }
        }
    }
}

#[async_trait]
impl StoreFault for Halts {
    async fn before(&self, call: Call) -> Result<(), StoreError> {
        match call {
            Call::CommitView => {
                self.at(Step::BeforeCommit).await;
                self.at(Step::InCommit).await;
            }
            Call::Append => {
                self.at(Step::BeforeAppend).await;
                self.at(Step::InAppend).await;
            }
            _ => {}
        }
        Ok(())
    }

    async fn after(&self, call: Call) -> Result<(), StoreError> {
        match call {
            Call::CommitView => self.at(Step::AfterCommit).await,
            Call::Append => self.at(Step::AfterAppend).await,
            Call::ReadLog => self.at(Step::AfterRead).await,
            _ => {}
        }
        Ok(())
    }
}

/// Says a line to the test; it begins one, because the harness may be in the middle of its own.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{line}")
        .and_then(|()| out.flush())
        .unwrap();
}

/// Where the log is, for a process.
#[derive(Clone)]
struct Place(String);

impl Place {
    async fn open(&self) -> Arc<dyn Store> {
        #[cfg(feature = "postgres")]
        if let Some(schema) = self.0.strip_prefix("schema:") {
            let options: annals::postgres::Options = crate::server::url().parse().unwrap();
            let options = options.schema(schema).unwrap();
            let store = annals::postgres::PostgresStore::connect_with(options).await;
            return Arc::new(store.unwrap());
        }
        Arc::clone(Annals::open(&self.0).await.unwrap().store())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

async fn start(store: Arc<dyn Store>, slots: u16) -> Program {
    let options = Options::default()
        .batch_events_max(12)
        .poll(Duration::from_millis(20))
        .lease(Duration::from_millis(300));
    let pipeline = fraud().options(options).slots(slots);
    Annals::on(store).with(pipeline).start().await.unwrap()
}

/// The process that is killed.
#[test]
#[ignore = "it is the process that the other tests start"]
fn sends_until_it_is_killed() {
    let variable = |name| std::env::var(name).ok();
    let (Some(place), Some(slots), Some(step), Some(times)) = (
        variable(LOCATION),
        variable(SLOTS),
        variable(STEP),
        variable(TIMES),
    ) else {
        return;
    };
    // A parent that is gone ends its child.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Place(place).open().await;
        let left = AtomicI64::new(times.parse().unwrap());
        let store = FaultyStore::new(store, Halts { step, left });
        let db = start(store, slots.parse().unwrap()).await;
        all_sent(&db).await;
        // What it stands still at did not come.
        say("idle");
        std::future::pending::<()>().await;
    });
}

async fn all_sent(db: &Program) {
    let head = db.store().head(Partition(0)).await.unwrap().visible;
    let token = Token::new(db.store().id()).with(Partition(0), head);
    let pipeline = db.pipeline("fraud").unwrap();
    pipeline.wait_until_sent(token, WAIT).await.unwrap();
}

async fn deliver(store: &dyn Store, deliveries: &[Delivery]) {
    let mut append = Append::default();
    for delivery in deliveries {
        let (stream, event) = delivery.event().unwrap();
        append = append.event(stream, event);
    }
    store.append(append).await.unwrap();
}

/// The alerts in the order of the log.
async fn alerts(store: &dyn Store) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut read = ReadLog::after(Position::START);
    loop {
        let page = store.read(read.clone()).await.unwrap();
        let ours = page
            .events
            .iter()
            .filter(|of| of.stream.as_str().starts_with("alert-"));
        found.extend(ours.map(|of| {
            let payload = String::from_utf8_lossy(&of.payload).into_owned();
            (of.stream.to_string(), payload)
        }));
        if page.end {
            return found;
        }
        read.after = page.scanned;
    }
}

async fn end(store: &dyn Store, db: &Program) -> Vec<(String, String)> {
    db.advance_clock(Time::MAX).await.unwrap();
    all_sent(db).await;
    alerts(store).await
}

async fn undisturbed() -> Vec<(String, String)> {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let db = start(store.clone(), 1).await;
    deliver(&*store, &deliveries()).await;
    let alerts = end(&*store, &db).await;
    db.stop().await;
    alerts
}

/// Kills a process at one step after the other, each time after more became known.
async fn killed_again_and_again(place: Place, slots: u16, kills: u64) {
    let store = place.open().await;
    start(store.clone(), slots).await.stop().await;
    let mut dice = Dice::new(kills + u64::from(slots));
    let deliveries = deliveries();
    let each = deliveries.len() / kills as usize;
    let mut halted = 0;
    for (round, step) in (0..kills).zip(STEPS.iter().cycle()) {
        let from = round as usize * each;
        let to = if round + 1 == kills {
            deliveries.len()
        } else {
            from + each
        };
        deliver(&*store, &deliveries[from..to]).await;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "fraud_killed::sends_until_it_is_killed",
                "--exact",
                "--ignored",
            ])
            .arg("--nocapture")
            .env(LOCATION, place.to_string())
            .env(SLOTS, slots.to_string())
            .env(STEP, format!("{step:?}"))
            .env(TIMES, (1 + dice.roll(3)).to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = lines.map_while(Result::ok);
        let word = said.find(|line| line == "here" || line == "idle");
        halted += u64::from(word.as_deref() == Some("here"));
        if matches!(step, Step::InCommit | Step::InAppend) {
            let begun = std::time::Instant::now();
            let wait = Duration::from_micros(dice.roll(3_000));
            while begun.elapsed() < wait {
                std::hint::spin_loop();
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(word.is_some(), "a process ended by itself at {step:?}");
    }
    assert!(
        2 * halted > kills,
        "only {halted} of {kills} were killed at their step"
    );
    let db = start(store.clone(), slots).await;
    let found = end(&*store, &db).await;
    let wanted = undisturbed().await;
    assert!(wanted.len() > 40, "{} alerts", wanted.len());
    assert_eq!(found, wanted, "{slots} slots");
    // A rebuild sends none.
    let rebuild = db.pipeline("fraud").unwrap().rebuild();
    let running = rebuild.begin().await.unwrap();
    running.finished(|_| ()).await.unwrap();
    assert_eq!(end(&*store, &db).await, wanted);
    db.stop().await;
}

async fn on_a_file(slots: u16) {
    let directory = TempDir::new().unwrap();
    let place = format!("sqlite:{}", directory.path().join("fraud.db").display());
    killed_again_and_again(Place(place), slots, rounds(7, 50)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_of_killed_senders_are_sent_once() {
    on_a_file(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_of_four_killed_slots_are_sent_once() {
    on_a_file(4).await;
}

/// Left out by this name where there is no server.
#[cfg(feature = "postgres")]
mod on_postgres {
    use super::{Place, killed_again_and_again, rounds};
    use crate::server::Schema;

    async fn in_a_schema(slots: u16) {
        let schema = Schema::new();
        let place = Place(format!("schema:{}", schema.name));
        killed_again_and_again(place, slots, rounds(7, 50)).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn alerts_of_killed_senders_are_sent_once() {
        in_a_schema(1).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn alerts_of_four_killed_slots_are_sent_once() {
        in_a_schema(4).await;
    }
}
