//! The program of the example `fraud`, killed with `SIGKILL` at every kind of step: around what
//! slots, sender, view, reactor and process manager commit, and around what they append. What came
//! of it is that of one undisturbed run, each alert once.

use std::collections::HashMap;
use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use annals::pipeline::Time;
use annals::prelude::*;
use annals::projections::{Kind, Options, ReactorSetup};
use annals::read_model::{CommitError, GenerationId, ViewCommit, ViewStore};
use annals::store::{Append, AppendError, Appended, NewEvent, ReadLog};
use annals::{MemoryStore, Partition, Store, StoreError};
use annals_core::conformance::Dice;
use annals_core::conformance::faulty::{Call, FaultyStore, StoreFault};
use annals_core::conformance::rounds;
use async_trait::async_trait;
use tempfile::TempDir;

use crate::afternoon::{decided, deliveries, program};
use crate::bank::{Payment, PaymentEvent, Verdict};
use crate::verdict::AsksAboutMerchants;

const LOCATION: &str = "ANNALS_FRAUD_LOCATION";
const SLOTS: &str = "ANNALS_FRAUD_SLOTS";
const STEP: &str = "ANNALS_FRAUD_STEP";
const TIMES: &str = "ANNALS_FRAUD_TIMES";
const WAIT: Duration = Duration::from_secs(120);

/// Where a process is killed. *In* a step it is killed some time after it said so, while that is on
/// its way; *after* an append of the sender is before its note.
const STEPS: [&str; 19] = [
    "before append of sender",
    "after append of sender",
    "in append of sender",
    "before commit of slot",
    "in commit of slot",
    "after commit of slot",
    "after reading",
    "before commit of sender",
    "after commit of sender",
    "before append of reactor",
    "after append of reactor",
    "before commit of reactor",
    "after commit of reactor",
    "before append of process",
    "after append of process",
    "before commit of process",
    "after commit of process",
    "before commit of view",
    "after commit of view",
];

/// Stands still at a step, until the process is killed.
#[derive(Debug)]
struct Halts {
    step: String,
    left: AtomicI64,
    /// Who has which generation.
    commits_of: HashMap<GenerationId, &'static str>,
}

impl Halts {
    async fn new(store: &dyn Store, step: String, times: i64) -> Halts {
        let views = store.views().unwrap();
        let mut commits_of = HashMap::new();
        for (kind, name, who) in [
            (Kind::View, "fraud", "slot"),
            (Kind::Sender, "fraud", "sender"),
            (Kind::View, "verdicts", "view"),
            (Kind::Reactor, "merchants", "reactor"),
            (Kind::Process, "blocking", "process"),
        ] {
            let generations = views.generations(&kind.stored_name(name)).await.unwrap();
            assert!(!generations.is_empty(), "{who} has begun");
            commits_of.extend(generations.iter().map(|of| (of.id, who)));
        }
        Halts {
            step,
            left: AtomicI64::new(times),
            commits_of,
        }
    }

    async fn at(&self, when: &str, what: &str, who: &str) {
        let is_step = self.step == format!("{when} {what} of {who}");
        if is_step && self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            say("here");
            if when != "in" {
                std::future::pending::<()>().await;
            }
        }
    }
}

#[async_trait]
impl StoreFault for Halts {
    async fn append(&self, store: &dyn Store, append: Append) -> Result<Appended, AppendError> {
        let mut streams = append.events.iter().map(|(to, _)| to.category());
        let who = match streams.next() {
            Some("alert") => "sender",
            Some("merchant") => "reactor",
            _ => "process",
        };
        self.at("before", "append", who).await;
        self.at("in", "append", who).await;
        let appended = store.append(append).await;
        self.at("after", "append", who).await;
        appended
    }

    async fn commit_view(
        &self,
        views: &dyn ViewStore,
        step: ViewCommit,
    ) -> Result<(), CommitError> {
        let who = self.commits_of.get(&step.generation).unwrap_or(&"nobody");
        self.at("before", "commit", who).await;
        self.at("in", "commit", who).await;
        let taken = views.commit_view(step).await;
        self.at("after", "commit", who).await;
        taken
    }

    async fn after(&self, call: Call) -> Result<(), StoreError> {
        let reads = self.step == "after reading" && call == Call::ReadLog;
        if reads && self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            say("here");
            std::future::pending::<()>().await;
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

fn options() -> Options {
    Options::default()
        .batch_events_max(12)
        .poll(Duration::from_millis(20))
        .lease(Duration::from_millis(300))
}

async fn start(store: Arc<dyn Store>, slots: u16) -> Program {
    program(store, options(), slots).await.unwrap()
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
        let halts = Halts::new(&*store, step, times.parse().unwrap()).await;
        let store = FaultyStore::new(store, halts);
        let db = start(store, slots.parse().unwrap()).await;
        settle(&db).await;
        // What it stands still at did not come.
        say("idle");
        std::future::pending::<()>().await;
    });
}

async fn head(store: &dyn Store) -> Token {
    let head = store.head(Partition(0)).await.unwrap().visible;
    Token::new(store.id()).with(Partition(0), head)
}

/// Waits until all is done about everything that is in the log.
async fn settle(db: &Program) -> (Vec<(Verdict, Vec<String>)>, Vec<String>) {
    let asked = db.reactor::<AsksAboutMerchants>();
    asked
        .wait_for(head(&**db.store()).await, WAIT)
        .await
        .unwrap();
    let pipeline = db.pipeline("fraud").unwrap();
    let token = head(&**db.store()).await;
    pipeline.wait_until_sent(token, WAIT).await.unwrap();
    let (verdicts, blocked) = decided(db).await.unwrap();
    (verdicts.into_iter().collect(), blocked)
}

/// The afternoon in so many parts, each with a payment of whose merchant is asked and one from
/// another country, which blocks its user.
fn parts(count: usize) -> Vec<Append> {
    let deliveries = deliveries();
    let each = deliveries.len().div_ceil(count);
    let parts = deliveries.chunks(each).enumerate().map(|(number, part)| {
        let mut append = Append::default();
        for delivery in part {
            let (stream, event) = delivery.event().unwrap();
            append = append.event(stream, event);
        }
        let latest = append.events.iter().map(|(_, event)| event.occurred_at);
        let latest = latest.max().unwrap();
        let user = format!("x{number}");
        for (cents, country) in [(60_000, "DE"), (2_000, "FR")] {
            let paid = PaymentEvent::Paid(Payment {
                id: format!("{user}-{country}"),
                user: user.clone(),
                at: latest.timestamp_micros(),
                cents,
                country: country.into(),
            });
            let stream = StreamId::new(format!("payment-{user}")).unwrap();
            append = append.event(stream, NewEvent::of(&paid).unwrap().at(latest));
        }
        append
    });
    parts.collect()
}

/// What came of the afternoon.
#[derive(Debug, PartialEq)]
struct Story {
    /// Alerts, answers about merchants and blocked customers: the stream and the event.
    events: Vec<(String, String)>,
    verdicts: Vec<(Verdict, Vec<String>)>,
    blocked: Vec<String>,
}

impl Story {
    /// Once nothing more comes.
    async fn end(db: &Program) -> Story {
        db.advance_clock(Time::MAX).await.unwrap();
        let (verdicts, blocked) = settle(db).await;
        let mut events = Vec::new();
        let mut read = ReadLog::after(Position::START);
        loop {
            let page = db.store().read(read.clone()).await.unwrap();
            for of in page.events {
                let category = of.stream.category();
                let is_ours = ["alert", "merchant", "customer", "blocking"].contains(&category);
                // What the process notes for itself names positions.
                if is_ours && !of.event_type.starts_with('$') {
                    let payload = String::from_utf8_lossy(&of.payload);
                    let event = format!("{} {payload}", of.event_type);
                    events.push((of.stream.to_string(), event));
                }
            }
            if page.end {
                break;
            }
            read.after = page.scanned;
        }
        events.sort();
        Story {
            events,
            verdicts,
            blocked,
        }
    }

    fn count(&self, category: &str) -> usize {
        let mut events = self.events.iter().map(|(to, _)| to.split('-').next());
        events.by_ref().filter(|of| *of == Some(category)).count()
    }
}

async fn undisturbed(parts: &[Append]) -> Story {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let db = start(store.clone(), 1).await;
    for part in parts {
        store.append(part.clone()).await.unwrap();
        settle(&db).await;
    }
    let story = Story::end(&db).await;
    db.stop().await;
    story
}

/// Appends a part. Its merchants are asked before the next one comes: an answer counts by when it
/// is in the log.
async fn deliver(store: &Arc<dyn Store>, part: Append) {
    let asked = asked(store).await;
    asked.stop().await;
    store.append(part).await.unwrap();
}

/// A program that does nothing but ask about merchants, once it has caught up.
async fn asked(store: &Arc<dyn Store>) -> Program {
    let asks = ReactorSetup::of(AsksAboutMerchants(store.clone()));
    let asks = asks.poll(options().poll).lease(options().lease);
    let db = Annals::on(store.clone()).with(asks).start().await.unwrap();
    let token = head(&**store).await;
    let asked = db.reactor::<AsksAboutMerchants>();
    asked.wait_for(token, WAIT).await.unwrap();
    db
}

/// Kills a process at one step after the other, each time after more became known.
async fn killed_again_and_again(place: Place, (slots, first_step): (u16, usize), kills: u64) {
    let store = place.open().await;
    start(store.clone(), slots).await.stop().await;
    let mut dice = Dice::new(kills + u64::from(slots));
    let parts = parts(kills.max(21) as usize);
    let wanted = undisturbed(&parts).await;
    let mut halted = 0;
    let mut delivered = 0;
    for (round, step) in (1..=kills).zip(STEPS.iter().cycle().skip(first_step)) {
        while delivered < parts.len() * round as usize / kills as usize {
            deliver(&store, parts[delivered].clone()).await;
            delivered += 1;
        }
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "fraud_killed::sends_until_it_is_killed",
                "--exact",
                "--ignored",
            ])
            .arg("--nocapture")
            .env(LOCATION, place.to_string())
            .env(SLOTS, slots.to_string())
            .env(STEP, step)
            .env(TIMES, (1 + dice.roll(2)).to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = lines.map_while(Result::ok);
        let word = said.find(|line| line == "here" || line == "idle");
        halted += u64::from(word.as_deref() == Some("here"));
        if step.starts_with("in ") {
            let begun = std::time::Instant::now();
            let wait = Duration::from_micros(dice.roll(3_000));
            while begun.elapsed() < wait {
                std::hint::spin_loop();
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(word.is_some(), "a process ended by itself {step}");
    }
    println!("{halted} of {kills} were killed at their step");
    assert!(
        2 * halted > kills,
        "only {halted} of {kills} were killed at their step"
    );
    asked(&store).await.stop().await;
    let db = start(store.clone(), slots).await;
    let found = Story::end(&db).await;
    for (category, least) in [("alert", 80), ("merchant", 20), ("customer", 20)] {
        let count = wanted.count(category);
        assert!(count >= least, "{count} events of {category}");
    }
    assert_eq!(found, wanted, "{slots} slots");
    // A rebuild sends none.
    let rebuild = db.pipeline("fraud").unwrap().rebuild();
    let running = rebuild.begin().await.unwrap();
    running.finished(|_| ()).await.unwrap();
    assert_eq!(Story::end(&db).await, wanted);
    db.stop().await;
}

async fn on_a_file(slots: u16, first_step: usize) {
    let directory = TempDir::new().unwrap();
    let place = format!("sqlite:{}", directory.path().join("fraud.db").display());
    killed_again_and_again(Place(place), (slots, first_step), rounds(5, 50)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_of_killed_senders_are_sent_once() {
    on_a_file(1, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_of_four_killed_slots_are_sent_once() {
    on_a_file(4, 5).await;
}

/// Skipped by this name where there is no server.
#[cfg(feature = "postgres")]
mod on_postgres {
    use super::{Place, killed_again_and_again, rounds};
    use crate::server::Schema;

    async fn in_a_schema(slots: u16, first_step: usize) {
        let schema = Schema::new();
        let place = Place(format!("schema:{}", schema.name));
        killed_again_and_again(place, (slots, first_step), rounds(5, 50)).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn alerts_of_killed_senders_are_sent_once() {
        in_a_schema(1, 10).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn alerts_of_four_killed_slots_are_sent_once() {
        in_a_schema(4, 15).await;
    }
}
