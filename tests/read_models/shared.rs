//! Slots that several processes share: each works on as many as the others, and what a process that
//! died or is paused has worked on goes to the others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use annals::Store;
use annals::prelude::*;
use annals::projections::Options;
use annals_core::conformance::Dice;

use crate::child::{ChildProcess, Step, Work};
use crate::fixture::SharedLogs;
use crate::oracle::{TIMEOUT, Tally, append, caught_up, history, program, replay, rows};
use crate::paused::stop;

const SLOTS: u16 = 8;
const CUTS: usize = 20;

pub(crate) fn sharing() -> Options {
    Options::default()
        .slots(SLOTS)
        .lease(Duration::from_millis(500))
        .batch_events_max(20)
        .poll(Duration::from_millis(5))
}

/// The slots as they are worked on.
struct Slots {
    store: Arc<dyn Store>,
    names: Vec<String>,
}

impl Slots {
    async fn of(store: &Arc<dyn Store>) -> Slots {
        let live = store
            .views()
            .unwrap()
            .live_generation(Tally::NAME, Tally::VERSION)
            .await
            .unwrap()
            .expect("none serves");
        Slots {
            store: Arc::clone(store),
            names: (0..SLOTS).map(|slot| live.lease_name(slot)).collect(),
        }
    }

    /// How many slots each process holds, by its number.
    async fn held(&self) -> BTreeMap<u32, usize> {
        let leases = self
            .store
            .views()
            .unwrap()
            .leases(Tally::NAME)
            .await
            .unwrap();
        let mut held = BTreeMap::new();
        for of in leases
            .iter()
            .filter(|of| !of.expired && self.names.contains(&of.lease.name))
        {
            let (process, _) = of
                .lease
                .owner
                .split_once('-')
                .expect("an owner begins with its process");
            *held.entry(process.parse().unwrap()).or_default() += 1;
        }
        held
    }

    /// Waits until all slots are held by these processes, and none holds more of them than another
    /// one and one. Says how long it took until all were held by them at all.
    async fn are_shared_by(&self, processes: &[&ChildProcess]) -> Duration {
        let began = Instant::now();
        let mut pace = tokio::time::interval(Duration::from_millis(5));
        let mut all_held = None;
        loop {
            pace.tick().await;
            let held = self.held().await;
            let parts: Vec<_> = processes
                .iter()
                .map(|of| held.get(&of.process()).copied().unwrap_or_default())
                .collect();
            if parts.iter().sum::<usize>() == usize::from(SLOTS) {
                all_held.get_or_insert_with(|| began.elapsed());
                if parts.iter().max().unwrap() - parts.iter().min().unwrap() <= 1 {
                    return all_held.unwrap();
                }
            }
            assert!(began.elapsed() < TIMEOUT, "{held:?}");
        }
    }
}

pub(crate) async fn slots_are_shared_fairly_through_deaths_and_pauses(fixture: &dyn SharedLogs) {
    let place = fixture.place("log").await;
    let store = place.open().await;
    program::<Tally>(&store, sharing()).await.stop().await;
    let over = Arc::new(AtomicBool::new(false));
    let appending = Arc::clone(&store);
    let is_over = Arc::clone(&over);
    let writer = tokio::spawn(async move {
        let mut dice = Dice::new(8);
        let mut pace = tokio::time::interval(Duration::from_millis(5));
        while !is_over.load(Ordering::SeqCst) {
            append(&*appending, &mut dice, 100, 5).await;
            pace.tick().await;
        }
    });
    let slots = Slots::of(&store).await;
    let start = || ChildProcess::start(&place, Work::Share, Step::Never, 0);

    let one = start();
    slots.are_shared_by(&[&one]).await;
    let two = start();
    slots.are_shared_by(&[&one, &two]).await;
    let three = start();
    let four = start();
    slots.are_shared_by(&[&one, &two, &three, &four]).await;

    four.killed();
    let after_kill = slots.are_shared_by(&[&one, &two, &three]).await;
    stop(&three, &*store).await;
    let after_pause = slots.are_shared_by(&[&one, &two]).await;
    // What it was about to do comes to nothing, and it takes its part again.
    three.signal("CONT");
    slots.are_shared_by(&[&one, &two, &three]).await;

    let mut cut_off = 0;
    for _ in 0..CUTS {
        cut_off += fixture.cut_off("log").await;
        slots.are_shared_by(&[&one, &two, &three]).await;
    }
    over.store(true, Ordering::SeqCst);
    writer.await.unwrap();
    let db = program::<Tally>(&store, sharing()).await;
    caught_up::<Tally>(&db).await;
    let history = history(&*store).await;
    assert_eq!(rows::<Tally>(&db, None).await, replay(&history));
    db.stop().await;
    for process in [one, two, three] {
        process.killed();
    }
    println!(
        "{SLOTS} slots, leases of {} ms: all were worked on again {} ms after a process was \
         killed, {} ms after one was paused; \
         {cut_off} connections cut off; {} events",
        sharing().lease.as_millis(),
        after_kill.as_millis(),
        after_pause.as_millis(),
        history.len(),
    );
}
