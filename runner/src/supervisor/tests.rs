//! The end of every worker is seen, whatever ends it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use annals_core::conformance::faulty::{Call, FaultyStore, StoreFault};
use annals_core::{
    Acquired, Annals, Append, Checkpoint, CommitError, EventStore, Failure, Generation,
    GenerationId, GenerationSpec, GenerationStore, Leases, Log, MemoryStore, NewEvent, RowStore,
    StoreError, StreamId, ViewCommit,
};
use async_trait::async_trait;
use tokio::sync::watch;

use super::*;
use crate::kind::Kind;
use crate::location::{BoxFuture, ViewLocation};
use crate::poll::Poll;

#[derive(Clone, Copy, PartialEq)]
enum Fails {
    Run,
    Ends,
    Verify,
    Check,
    Switch,
    Publish,
}

struct Failing(Fails, Arc<AtomicUsize>);

impl Subject for Failing {
    fn run(&self, slot: Slot, mut stop: watch::Receiver<bool>) -> BoxFuture<'static, ()> {
        let fails = self.0;
        Box::pin(async move {
            assert!(fails != Fails::Run, "a worker that panics");
            if fails != Fails::Ends {
                slot.progress.state(SlotState::Live);
                let _ = stop.wait_for(|stop| *stop).await;
            }
        })
    }

    fn verify<'a>(&'a self, _: &'a Generation) -> BoxFuture<'a, Result<Verified, WorkError>> {
        let fails = self.0;
        if fails == Fails::Check {
            self.1.fetch_add(1, Ordering::SeqCst);
        }
        Box::pin(async move {
            assert!(fails != Fails::Verify, "a comparison that panics");
            if fails == Fails::Check {
                let unavailable = StoreError::new(Failure::Unavailable, "no answer");
                return Err(WorkError::from(unavailable));
            }
            Ok(Verified::Equal)
        })
    }

    fn switch_to(&self, _: GenerationId) -> BoxFuture<'_, Result<(), CommitError>> {
        let fails = self.0;
        self.1.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            assert!(fails == Fails::Publish, "a switch that panics");
            let refused = StoreError::new(Failure::Invalid, "the tables cannot be published");
            Err(CommitError::Store(refused))
        })
    }

    fn drop_generation(&self, _: GenerationId) -> BoxFuture<'_, Result<(), CommitError>> {
        Box::pin(async { Ok(()) })
    }
}

/// What the status says once it says why the view does not go on, and how often it was switched, or
/// checked in vain, until three polls later.
async fn said(fails: Fails) -> (String, usize) {
    let store = Arc::new(MemoryStore::new());
    let spec = GenerationSpec::new("balances", 1, store.id());
    store.begin_generation(spec.clone()).await.unwrap();
    let db = Annals::on(Arc::clone(&store) as _);
    let views = ViewLocation::Own(Arc::clone(&store) as _);
    let context = WorkerContext::new(&db, &views, "owner");
    let workers = GenerationWorkers::new(Kind::View, spec);
    let poll = context.poll.clone();
    let mut polls = poll.seen();
    let switches = Arc::new(AtomicUsize::new(0));
    let subject = Arc::new(Failing(fails, Arc::clone(&switches)));
    let supervisor = Supervisor::new(context, workers.clone(), subject);
    let (stop, stopped) = watch::channel(false);
    let supervised = tokio::spawn(supervisor.run(stopped));
    let said = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            let found = workers.each(|of| match &of.slots[0].borrow().state {
                SlotState::Stopped { reason } => Some(reason.clone()),
                _ => of.refused.clone(),
            });
            if fails == Fails::Check && switches.load(Ordering::SeqCst) > 0 {
                return "it is tried again".to_owned();
            }
            if let Some(reason) = found.into_iter().flatten().next() {
                return reason;
            }
            tokio::task::yield_now().await;
        }
    });
    let said = said.await.expect("the status never says it");
    for _ in 0..3 {
        polls.mark_unchanged();
        workers.poll_now();
        polls.changed().await.unwrap();
    }
    let rests = tokio::time::timeout(Duration::from_secs(60), async {
        while fails != Fails::Check && poll.is_waited_for() {
            tokio::task::yield_now().await;
        }
    });
    rests
        .await
        .expect("what waits for an operator is polled as if it were built");
    stop.send_replace(true);
    supervised.await.unwrap();
    (said, switches.load(Ordering::SeqCst))
}

#[tokio::test]
async fn whatever_ends_a_worker_is_in_the_status() {
    let (reason, _) = said(Fails::Run).await;
    assert_eq!(reason, "the handler panicked: a worker that panics");
    let (reason, _) = said(Fails::Ends).await;
    assert_eq!(reason, "its worker has ended; start the program again");
}

#[tokio::test]
async fn a_switch_that_panics_is_refused_with_its_reason() {
    let (reason, switches) = said(Fails::Verify).await;
    assert_eq!(reason, "the handler panicked: a comparison that panics");
    assert_eq!(switches, 0);
    let (reason, _) = said(Fails::Switch).await;
    assert_eq!(reason, "the handler panicked: a switch that panics");
}

#[tokio::test]
async fn a_refused_switch_is_not_tried_at_every_poll() {
    let (reason, switches) = said(Fails::Publish).await;
    assert_eq!(reason, "the tables cannot be published");
    assert_eq!(switches, 1);
}

#[tokio::test]
async fn a_check_without_an_answer_is_not_tried_at_every_poll() {
    let (_, checks) = said(Fails::Check).await;
    assert_eq!(checks, 1);
}

#[tokio::test]
async fn a_build_over_more_partitions_than_seen_is_incomplete() {
    let store = Arc::new(MemoryStore::with_partitions(2));
    let mut spec = GenerationSpec::new("balances", 1, store.id());
    let db = Annals::on(Arc::clone(&store) as _);
    let views = ViewLocation::Own(Arc::clone(&store) as _);
    let context = WorkerContext::new(&db, &views, "owner");
    context.poll.follow("balances", Duration::ZERO);
    let workers = GenerationWorkers::new(Kind::View, spec.clone());
    let subject = Arc::new(Failing(Fails::Switch, Arc::default()));
    let supervisor = Supervisor::new(context.clone(), workers, subject);
    for (partitions, is_complete) in [(2, true), (3, false)] {
        spec.partitions = partitions;
        let generation = store.begin_generation(spec.clone()).await.unwrap();
        let seen = context.poll.now().await.unwrap();
        assert_eq!(supervisor.is_at_head(&generation, &seen), is_complete);
    }
}

/// Heads of two partitions, which are asked one after the other: that of the second is not told
/// while it is away.
#[derive(Debug, Default)]
struct SecondHead {
    asked: AtomicUsize,
    is_away: AtomicBool,
}

#[async_trait]
impl StoreFault for SecondHead {
    async fn before(&self, call: Call) -> Result<(), StoreError> {
        let is_second = call == Call::Head && self.asked.fetch_add(1, Ordering::SeqCst) % 2 == 1;
        match is_second && self.is_away.load(Ordering::SeqCst) {
            true => Err(StoreError::new(Failure::Unavailable, "its leader is away")),
            false => Ok(()),
        }
    }
}

#[tokio::test]
async fn a_partition_without_a_head_holds_no_other_back() {
    let inner = Arc::new(MemoryStore::with_partitions(2));
    let store = FaultyStore::new(Arc::clone(&inner) as _, SecondHead::default());
    let mut spec = GenerationSpec::new("balances", 1, inner.id());
    spec.partitions = 2;
    let generation = inner.begin_generation(spec.clone()).await.unwrap();
    let db = Annals::on(Arc::clone(&store) as _);
    let views = ViewLocation::Own(Arc::clone(&inner) as _);
    let context = WorkerContext::new(&db, &views, "owner");
    let poll = context.poll.clone();
    poll.follow("balances", Duration::ZERO);
    let workers = GenerationWorkers::new(Kind::View, spec);
    let subject = Arc::new(Failing(Fails::Switch, Arc::default()));
    let supervisor = Supervisor::new(context, workers, subject);
    for (is_away, is_complete) in [(false, true), (true, false), (false, true), (true, false)] {
        store.fault().is_away.store(is_away, Ordering::SeqCst);
        let seen = poll.now().await.unwrap();
        assert_eq!(supervisor.is_at_head(&generation, &seen), is_complete);
        let told = seen.stalled.get(&Partition(1)).cloned();
        let why = "its head cannot be read: its leader is away";
        assert_eq!(told, is_away.then(|| why.to_owned()));
        assert!(!seen.stalled.contains_key(&Partition(0)));
    }
    let mut names = (0..).map(|number| StreamId::new(format!("account-{number}")).unwrap());
    let stream = names.find(|name| inner.partition_of(name) == Partition(0));
    let events = [NewEvent::json("account.opened", "1")];
    let append = Append::new(stream.unwrap(), events);
    inner.append(append).await.unwrap();
    let moved = [(Partition(0), Position::START)];
    let moves = tokio::time::timeout(Duration::from_secs(60), poll.head_after(&moved));
    moves.await.expect("the other partition is not polled");
}

/// A store with one generation that serves, whose slot has come so far.
async fn views_at(spec: &GenerationSpec, position: u64) -> ViewLocation {
    let store = Arc::new(MemoryStore::new());
    let generation = store.begin_generation(spec.clone()).await.unwrap();
    store.switch_to(generation.id).await.unwrap();
    let name = generation.lease_name(0);
    let asked = store.acquire_lease(&name, "owner", Duration::from_secs(60));
    let Acquired::Granted(lease) = asked.await.unwrap() else {
        panic!("a new lease is held");
    };
    let to = Checkpoint {
        position: Position::new(position),
        ..Checkpoint::start(0, Partition(0))
    };
    let commit = ViewCommit::new(generation.id, lease, Position::START, to);
    store.commit_view(commit).await.unwrap();
    ViewLocation::Own(store)
}

#[tokio::test]
async fn workers_start_again_when_their_view_store_goes_back() {
    let log = Arc::new(MemoryStore::new());
    let spec = GenerationSpec::new("balances", 1, log.id());
    let db = Annals::on(log);
    let views = views_at(&spec, 0).await;
    let context = WorkerContext::new(&db, &views, "owner");
    let workers = GenerationWorkers::new(Kind::View, spec.clone());
    let subject = Arc::new(Failing(Fails::Publish, Arc::default()));
    let mut supervisor = Supervisor::new(context, workers.clone(), subject);
    let decisions = workers.decisions();
    for (position, starts_again) in [(7, false), (7, false), (9, false), (4, true), (4, false)] {
        // The store of the same address, as a fail-over leaves it.
        let poll = Poll::new(db.store(), &views_at(&spec, position).await);
        poll.follow("balances", Duration::ZERO);
        let seen = poll.now().await.unwrap();
        let before = *decisions.borrow();
        supervisor.poll(&seen).await.unwrap();
        let has_restarted = *decisions.borrow() > before;
        assert_eq!(has_restarted, starts_again, "at {position}");
    }
    workers.end_all().await;
}
