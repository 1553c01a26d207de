//! Pipelines of two and three stages of every kind, drawn at random, over a log with everything in
//! it that a log can have: the same rows, versions, state, clocks and events that they send, byte
//! for byte, whatever the batches, the slots, the store, and the commits and processes that broke.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use annals::pipeline::Time;
use annals::prelude::*;
use annals::projections::{Options, Program};
use annals::store::{Append, NewEvent};
use annals::{EventId, MemoryStore, Store, StoreError};
use annals_core::conformance::faulty::{Call, FaultyStore, StoreFault};
use annals_core::conformance::{Dice, rounds};
use async_trait::async_trait;
use chrono::TimeDelta;
use tokio::task::JoinSet;

use crate::broken::TwoOfThree;
use crate::chain::{Chain, KINDS, NAME, chain, chain_without_order, dawn, events, events_on_time};
use crate::chain::{outcomes, sent};
use crate::shop::{Location, Picture, open, rebuild};

const LOCATION: &str = "ANNALS_CHAIN_LOCATION";
const SEED: &str = "ANNALS_CHAIN_SEED";
const SLOTS: &str = "ANNALS_CHAIN_SLOTS";
const COMMITS: &str = "ANNALS_CHAIN_COMMITS";

async fn append(store: &dyn Store, name: &str, mut events: Vec<NewEvent>) {
    let stream = StreamId::new(format!("thing-{name}")).unwrap();
    for (index, event) in (0..).zip(&mut events) {
        event.id = annals::EventId::derived(&stream, "chains", index);
    }
    store.append(Append::new(stream, events)).await.unwrap();
}

fn options(slots: u16, batch: usize) -> Options {
    let mut options = Options::default().batch_events_max(batch).slots(slots);
    options.back_off = Duration::from_millis(1);
    options.poll = Duration::from_millis(2);
    options
}

/// What a pipeline makes of the events: first of one part and then of another, with the clock set
/// forward in between; some with commits that break.
async fn picture(seed: u64, location: &Location, options: Options, breaks: bool) -> Whole {
    let inner = location.open().await;
    let store: Arc<dyn Store> = match breaks {
        true => FaultyStore::new(inner.clone(), TwoOfThree::default()),
        false => inner.clone(),
    };
    let events = events(seed, 160);
    let (first, second) = events.split_at(97);
    if !breaks {
        append(&*inner, "one", first.to_vec()).await;
    }
    let db = Annals::on(store)
        .with(chain(seed).pipeline.options(options))
        .caught_up()
        .start()
        .await
        .unwrap();
    if breaks {
        append(&*inner, "one", first.to_vec()).await;
    }
    sent(&db).await;
    db.advance_clock(quiet()).await.unwrap();
    sent(&db).await;
    append(&*inner, "two", second.to_vec()).await;
    sent(&db).await;
    let whole = Whole::of(&*inner).await;
    db.stop().await;
    whole
}

fn quiet() -> Time {
    let quiet = dawn() + TimeDelta::milliseconds(210_001);
    Time::from_micros(quiet.timestamp_micros())
}

/// What a pipeline holds, and what it sent.
#[derive(Debug, PartialEq)]
struct Whole {
    picture: Picture,
    outcomes: Vec<(String, String, EventId, Option<EventId>)>,
}

impl Whole {
    async fn of(store: &dyn Store) -> Whole {
        let mut picture = Picture::of(store, NAME).await.without_moments();
        for clock in &mut picture.clocks {
            // A slot may have gone over the last of what was sent, or not.
            *clock = clock.split_once(' ').unwrap().1.to_owned();
        }
        let outcomes = outcomes(store).await;
        Whole { picture, outcomes }
    }
}

/// How much the chain of a seed sends, once it was the same in all ways.
async fn check(seed: u64) -> usize {
    let Chain { one_slot, text, .. } = chain(seed);
    let slots = |slots| if one_slot { 1 } else { slots };
    let base = picture(seed, &Location::memory(), options(1, 20_000), false).await;
    let mut others = vec![
        (Location::memory(), options(slots(2), 1), false),
        (Location::memory(), options(slots(5), 7), true),
    ];
    if seed.is_multiple_of(4) {
        others.push((Location::file(), options(slots(3), 7), true));
        others.push((Location::file(), options(1, 8_192), false));
    }
    if seed.is_multiple_of(16) {
        others.push((Location::memory(), options(slots(256), 20_000), false));
    }
    for (location, options, breaks) in others {
        let said = format!("{text}, {options:?}, breaks: {breaks}");
        let other = picture(seed, &location, options, breaks).await;
        assert_eq!(other, base, "{said}");
    }
    let came = base.picture.rows.iter();
    let came = came.filter(|(key, _)| key.starts_with("came")).count();
    assert!(came <= base.outcomes.len(), "{text}");
    base.outcomes.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chains_are_a_function_of_the_log() {
    let mut came = 0;
    let seeds: Vec<u64> = (0..rounds(KINDS, 600)).collect();
    // A few at once: most of the time goes by in waiting.
    for seeds in seeds.chunks(8) {
        let mut running: JoinSet<usize> = seeds.iter().copied().map(check).collect();
        while let Some(sent) = running.join_next().await {
            came += sent.unwrap();
        }
    }
    assert!(came > 400, "{came} outcomes of all chains");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_of_a_chain_gives_what_is_there() {
    for seed in 0..rounds(8, 60) {
        let Chain { pipeline, text, .. } = chain(seed * 7 + 3);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let db = Annals::on(store.clone())
            .with(pipeline.options(options(1, 13)))
            .start()
            .await
            .unwrap();
        for (number, part) in events(seed, 160).chunks(40).enumerate() {
            append(&*store, &number.to_string(), part.to_vec()).await;
            sent(&db).await;
        }
        let live = Whole::of(&*store).await;
        rebuild(&db, NAME).await;
        sent(&db).await;
        assert_eq!(Whole::of(&*store).await, live, "{text}");
        db.stop().await;
    }
}

/// The rows and what was sent, in no order, of one log in several partitions.
async fn over_partitions(seed: u64, options: Options, begins_first: bool) -> [Vec<String>; 2] {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::with_partitions(3));
    let program = || {
        let pipeline = chain_without_order(seed).pipeline;
        Annals::on(store.clone()).with(pipeline.options(options.clone()))
    };
    let begun = match begins_first {
        true => Some(program().start().await.unwrap()),
        false => None,
    };
    for (number, event) in events_on_time(seed, 160).into_iter().enumerate() {
        append(&*store, &format!("{}-{number}", number % 17), vec![event]).await;
    }
    let db = match begun {
        Some(db) => db,
        None => program().start().await.unwrap(),
    };
    sent(&db).await;
    db.advance_clock(Time::MAX).await.unwrap();
    sent(&db).await;
    let rows = Picture::of(&*store, NAME).await.without_moments().rows;
    let status = db.pipeline(NAME).unwrap().status();
    assert!(
        status.slots.values().all(|slot| slot.missed == 0),
        "{status}"
    );
    db.stop().await;
    // A dead record names its position, which depends on what was sent before it.
    let rows = rows.into_iter().filter(|(key, _)| key.starts_with("came"));
    let rows = rows.map(|(key, row)| format!("{key} {row}"));
    let outcomes = outcomes(&*store).await.into_iter();
    let mut outcomes: Vec<_> = outcomes
        .map(|(to, event, ..)| format!("{to} {event}"))
        .collect();
    outcomes.sort();
    [rows.collect(), outcomes]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chains_over_partitions_give_one_set() {
    let mut came = 0;
    for seed in 0..rounds(12, 200) {
        let text = chain_without_order(seed).text;
        let base = over_partitions(seed, options(1, 20_000), false).await;
        for (options, begins_first) in [(options(1, 1), true), (options(3, 7), true)] {
            let said = format!("{text}, {options:?}");
            let other = over_partitions(seed, options, begins_first).await;
            assert_eq!(other, base, "{said}");
        }
        came += base[1].len();
    }
    assert!(came > 200, "{came} outcomes of all chains");
}

/// Stands still around a commit, until the process is killed.
#[derive(Debug)]
struct Halts {
    commits: AtomicI64,
    after: bool,
}

impl Halts {
    async fn at(&self, call: Call, after: bool) {
        if call == Call::CommitView
            && after == self.after
            && self.commits.fetch_sub(1, Ordering::SeqCst) == 1
        {
            println!("\nhere");
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl StoreFault for Halts {
    async fn before(&self, call: Call) -> Result<(), StoreError> {
        self.at(call, false).await;
        Ok(())
    }

    async fn after(&self, call: Call) -> Result<(), StoreError> {
        self.at(call, true).await;
        Ok(())
    }
}

/// The process that is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it is the process that the other tests start and kill"]
async fn a_chain_that_is_killed() {
    let number = |name| std::env::var(name).unwrap().parse::<i64>().unwrap();
    // A parent that is gone ends its child.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let commits = number(COMMITS);
    let halts = Halts {
        commits: AtomicI64::new(commits),
        after: commits % 2 == 0,
    };
    let store = FaultyStore::new(open(&std::env::var(LOCATION).unwrap()).await, halts);
    let options = options(number(SLOTS) as u16, 7).lease(Duration::from_millis(300));
    let pipeline = chain(number(SEED) as u64).pipeline.options(options);
    let db = Annals::on(store).with(pipeline).start().await.unwrap();
    sent(&db).await;
    println!("\nidle");
    std::future::pending::<()>().await;
}

/// Kills processes at commits that are drawn; how many were killed at one.
fn kill(location: &Location, (seed, slots): (u64, u16), dice: &mut Dice, kills: u64) -> u64 {
    let mut halted = 0;
    for _ in 0..kills {
        let this = "chains::a_chain_that_is_killed";
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", this, "--nocapture"])
            .env(LOCATION, location.name())
            .env(SEED, seed.to_string())
            .env(SLOTS, slots.to_string())
            .env(COMMITS, (1 + dice.roll(9)).to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = lines.map_while(Result::ok);
        let word = said.find(|line| line == "here" || line == "idle");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(word.is_some(), "a process ended by itself");
        halted += u64::from(word.as_deref() == Some("here"));
    }
    halted
}

/// Brings the pipeline to where it has nothing to do.
async fn settle(store: &Arc<dyn Store>, seed: u64, slots: u16) -> Program {
    let options = options(slots, 7).lease(Duration::from_millis(300));
    let pipeline = chain(seed).pipeline.options(options);
    let db = Annals::on(store.clone()).with(pipeline).start().await;
    let db = db.unwrap();
    sent(&db).await;
    db
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chains_survive_kills_of_their_processes() {
    let mut halted = 0;
    let all = rounds(2, 40);
    for round in 0..all {
        let seed = round * 5 + 2;
        let Chain { one_slot, text, .. } = chain(seed);
        let slots = if one_slot { 1 } else { 3 };
        let base = picture(seed, &Location::memory(), options(1, 20_000), false).await;
        let location = Location::file();
        let store = location.open().await;
        let mut dice = Dice::new(seed);
        settle(&store, seed, slots).await.stop().await;
        let (first, second) = {
            let mut first = events(seed, 160);
            let second = first.split_off(97);
            (first, second)
        };
        append(&*store, "one", first).await;
        halted += kill(&location, (seed, slots), &mut dice, 2);
        let db = settle(&store, seed, slots).await;
        db.advance_clock(quiet()).await.unwrap();
        db.stop().await;
        halted += kill(&location, (seed, slots), &mut dice, 1);
        settle(&store, seed, slots).await.stop().await;
        append(&*store, "two", second).await;
        halted += kill(&location, (seed, slots), &mut dice, 2);
        settle(&store, seed, slots).await.stop().await;
        assert_eq!(Whole::of(&*store).await, base, "{text}");
    }
    assert!(halted >= all * 3, "only {halted} were killed at a commit");
}

/// Skipped by this name where there is no server.
#[cfg(feature = "postgres")]
mod on_postgres {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn chains_are_a_function_of_the_log() {
        for seed in 0..rounds(4, 60) {
            let seed = seed * 6 + 3;
            let Chain { one_slot, text, .. } = chain(seed);
            let slots = if one_slot { 1 } else { 3 };
            let base = picture(seed, &Location::memory(), options(1, 20_000), false).await;
            for (options, breaks) in [(options(1, 8_192), false), (options(slots, 7), true)] {
                let other = picture(seed, &Location::schema(), options, breaks).await;
                assert_eq!(other, base, "{text}");
            }
        }
    }
}
