//! What becomes of a generation whose log has other partitions by now, or is another one.

use std::sync::atomic::{AtomicU64, Ordering};

use annals_core::conformance::faulty::{FaultyStore, StoreFault};
use annals_core::{
    Annals, Clock, GenerationId, GenerationSpec, GenerationStore, Log, MemoryStore, SystemClock,
    ViewStore,
};

use super::*;
use crate::kind::Kind;
use crate::location::ViewLocation;

/// What is said of a generation that was begun with two partitions and this name.
fn said(view: &str, has: u32, may_grow: bool) -> String {
    let store = Arc::new(MemoryStore::with_partitions(has));
    let mut spec = GenerationSpec::new(view, 1, store.id());
    spec.partitions = 2;
    let db = Annals::on(Arc::clone(&store) as _);
    let views = ViewLocation::Own(store as Arc<dyn ViewStore>);
    let context = WorkerContext::new(&db, &views, "owner");
    let workers = GenerationWorkers::new(Kind::View, spec.clone());
    let now = SystemClock.now();
    let generation = Generation::new(GenerationId(7), spec, Phase::Live, now, Position::MAX);
    let slot = Slot::of_operator(&context, &generation, 0, &workers);
    match slot.check_partitions_of(&generation, may_grow) {
        Ok(()) => String::new(),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn as_many_partitions_as_before_stop_nothing() {
    assert_eq!(said("balances", 2, false), "");
}

#[tokio::test]
async fn only_what_can_be_rebuilt_is_to_be_rebuilt() {
    let go_on = "go on with `Topic::accept_more_partitions(2, 3)`";
    let view = said("balances", 3, true);
    assert!(
        view.contains(&format!("{go_on}, or rebuild it; if it matters")),
        "{view}"
    );
    let relay = said("$relay/bank", 3, true);
    assert!(
        relay.contains(&format!("{go_on}; if it matters")),
        "{relay}"
    );
    let pipeline = said("alerts", 3, false);
    assert!(
        pipeline.ends_with("rebuild it, or declare a new version"),
        "{pipeline}"
    );
}

#[tokio::test]
async fn a_program_that_sees_fewer_partitions_starts_again_first() {
    let view = said("balances", 1, true);
    let begun = "generation 7 of `balances` was begun when its log had 2 partitions, it has 1 now";
    assert!(
        view.starts_with(&format!("{begun}: start the program again")),
        "{view}"
    );
    assert!(view.contains("rebuild the view `balances`"), "{view}");
    let relay = said("$relay/bank", 1, true);
    assert!(relay.contains("give the relay `bank` another name"));
}

/// A log that gets another incarnation when it is told to.
#[derive(Debug, Default)]
struct Restored(AtomicU64);

impl StoreFault for Restored {
    fn incarnation(&self, of: Incarnation) -> Incarnation {
        Incarnation::numbered(of.log(), self.0.load(Ordering::SeqCst))
    }
}

/// Counts how often it begins.
struct Begins(Slot, watch::Sender<u64>);

impl Work for Begins {
    fn slot(&self) -> &Slot {
        &self.0
    }

    fn filter(&self) -> Filter {
        Filter::default()
    }

    async fn work(
        &self,
        _: &HeldLease,
        _: Tasks,
        _: watch::Receiver<bool>,
    ) -> Result<(), WorkError> {
        self.1.send_modify(|begins| *begins += 1);
        std::future::pending().await
    }
}

async fn has_begun(begun: &mut watch::Receiver<u64>, times: u64) {
    let has_begun = begun.wait_for(|begins| *begins == times);
    let has_begun = tokio::time::timeout(Duration::from_secs(60), has_begun).await;
    assert!(
        has_begun.is_ok_and(|begun| begun.is_ok()),
        "it does not begin"
    );
}

#[tokio::test]
async fn a_worker_begins_again_when_its_log_was_restored() {
    let memory = Arc::new(MemoryStore::new());
    let store = FaultyStore::new(Arc::clone(&memory) as _, Restored::default());
    let spec = GenerationSpec::new("balances", 1, store.id());
    let generation = memory.begin_generation(spec.clone()).await.unwrap();
    let db = Annals::on(Arc::clone(&store) as _);
    let views = ViewLocation::Own(memory as Arc<dyn ViewStore>);
    let context = WorkerContext::new(&db, &views, "owner");
    context.poll.follow("balances", Duration::ZERO);
    let workers = GenerationWorkers::new(Kind::View, spec);
    let slot = Slot::of_operator(&context, &generation, 0, &workers);
    let progress = slot.progress.watch();
    let (begins, mut begun) = watch::channel(0);
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(run(Begins(slot, begins), stopped));
    has_begun(&mut begun, 1).await;
    assert!(progress.borrow().works_in(store.incarnation()));

    store.fault().0.store(1, Ordering::SeqCst);
    let known = progress.borrow().works_in(store.incarnation());
    assert!(!known, "what it knows is of the log that was there before");
    has_begun(&mut begun, 2).await;
    assert!(progress.borrow().works_in(store.incarnation()));
    stop.send_replace(true);
    running.await.unwrap();
}
