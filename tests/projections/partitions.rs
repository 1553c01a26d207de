//! Reactors on a log of several partitions: in order for each key, and nothing is missed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use annals_core::{
    Annals, Append, EventStore, Leases, Log, MemoryStore, NewEvent, Partition, Recorded, StreamId,
    Token,
};
use annals_macros::View;
use annals_projections::{
    Poison, Program, Project, ReactError, Reactor, ReactorSetup, ReadModels, Request, Row, View,
    With,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::bank::{Account, AccountEvent, deposited, happens};

const ACCOUNTS: i64 = 9;
const EVENTS: i64 = 300;

/// The account, the cents, and the idempotency key.
type Call = (String, i64, String);

struct Payments(Arc<watch::Sender<Vec<Call>>>);

impl Reactor for Payments {
    const NAME: &'static str = "payments";
    type Event = AccountEvent;

    async fn react(
        &self,
        event: &Recorded<AccountEvent>,
        request: &Request,
    ) -> Result<(), ReactError> {
        let AccountEvent::Deposited { cents } = **event else {
            return Ok(());
        };
        let call = (
            event.record.stream.id().to_owned(),
            cents,
            request.idempotency_key(),
        );
        tokio::task::yield_now().await;
        self.0.send_modify(|calls| calls.push(call));
        tokio::task::yield_now().await;
        Ok(())
    }
}

async fn program(store: &Arc<MemoryStore>, calls: &Arc<watch::Sender<Vec<Call>>>) -> Program {
    let reaction = ReactorSetup::of(Payments(Arc::clone(calls)))
        .from_the_beginning()
        .lease(Duration::from_secs(3600));
    Annals::on(Arc::clone(store) as _)
        .with(reaction)
        .start()
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_reactor_on_three_partitions_keeps_each_keys_order() {
    let store = Arc::new(MemoryStore::with_partitions(3));
    let calls: Arc<watch::Sender<Vec<Call>>> = Arc::default();
    let writer = Annals::on(Arc::clone(&store) as _);
    for number in 0..EVENTS {
        happens(
            &writer,
            &format!("a{}", number % ACCOUNTS),
            deposited(number),
        )
        .await;
    }
    let partition_of =
        |account: i64| store.partition_of(&StreamId::new(format!("account-a{account}")).unwrap());
    assert_eq!(
        (0..ACCOUNTS)
            .map(partition_of)
            .collect::<BTreeSet<_>>()
            .len(),
        3,
        "all partitions are in use"
    );
    for kill in 0..30 {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let in_program = Arc::clone(&store);
        let told = Arc::clone(&calls);
        let mut made = calls.subscribe();
        let until = made.borrow_and_update().len() + kill % 11;
        runtime.spawn(async move {
            let _program = program(&in_program, &told).await;
            std::future::pending::<()>().await;
        });
        // Killed after some calls more, wherever it is then; in the end there is nothing left
        // to call for.
        let _ = tokio::time::timeout(
            Duration::from_millis(50),
            made.wait_for(|calls| calls.len() > until),
        )
        .await;
        // What was being polled ends; nothing of it takes a lease after they are released below.
        let down = move || runtime.shutdown_timeout(Duration::from_secs(60));
        tokio::task::spawn_blocking(down).await.unwrap();
        for state in store.leases("$reactor/").await.unwrap() {
            store.release_lease(&state.lease).await.unwrap();
        }
    }
    let db = program(&store, &calls).await;
    let mut everything = Token::new(store.id());
    for partition in (0..3).map(Partition) {
        everything = everything.with(partition, store.head(partition).await.unwrap().visible);
    }
    db.reactor::<Payments>()
        .wait_for(everything, Duration::from_secs(60))
        .await
        .unwrap();
    db.stop().await;

    let calls = calls.borrow().clone();
    let mut keys: BTreeMap<i64, BTreeSet<&str>> = BTreeMap::new();
    calls
        .iter()
        .for_each(|(_, cents, key)| _ = keys.entry(*cents).or_default().insert(key));
    assert!(
        keys.keys().copied().eq(0..EVENTS),
        "every event was called for"
    );
    assert!(
        keys.values().all(|keys| keys.len() == 1),
        "the key of an event is always the same"
    );
    for account in (0..ACCOUNTS).map(|account| format!("a{account}")) {
        let mut seen = BTreeSet::new();
        let of_account = calls
            .iter()
            .filter(|(to, ..)| *to == account)
            .map(|(_, cents, _)| *cents);
        let first_times: Vec<_> = of_account.filter(|cents| seen.insert(*cents)).collect();
        assert!(first_times.is_sorted(), "{account}: {first_times:?}");
    }
}

/// How often something happened to an account.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(
    name = "touches",
    version = 1,
    events(AccountEvent),
    crate = "annals_projections"
)]
struct Touches {
    events: u64,
}

impl Project<AccountEvent> for Touches {
    fn on(row: &mut Row<'_, Self>, _: &Recorded<AccountEvent>) -> Result<(), Poison> {
        row.events += 1;
        Ok(())
    }
}

const TIMEOUT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_skip_of_one_partition_names_it() {
    let store = Arc::new(MemoryStore::with_partitions(3));
    let stream = StreamId::new("account-alice").unwrap();
    let unreadable = NewEvent::json("account.deposited", r#"{"cents":"many"}"#);
    let append = Append::new(stream.clone(), [unreadable]);
    let bad = store.append(append).await.unwrap();
    let (partition, position) = (bad.last().partition, bad.last().position);
    let db = Annals::on(Arc::clone(&store) as _).with(Touches::projection());
    let db = db.start_in_background().await.unwrap();
    let event = NewEvent::of(&deposited(1)).unwrap();
    let last = store.append(Append::new(stream, [event])).await.unwrap();
    let done = Token::new(store.id()).with(partition, last.last().position);
    let view = db.view::<Touches>();
    let stops = view.wait_for(done.clone(), TIMEOUT).await.unwrap_err();
    let says = format!(
        "skip the event at {position} of partition {partition} of view `touches` with \
         `skip_event_in`"
    );
    assert!(stops.to_string().contains(&says), "{stops}");
    let letters = db.dead_letters("touches").unwrap();
    let error = letters.skip_event(position, "a test").await.unwrap_err();
    let says = "name the partition with `skip_event_in`";
    assert!(error.to_string().contains(says), "{error}");
    view.skip_event_in(partition, position, "a test")
        .await
        .unwrap();
    view.wait_for(done, TIMEOUT).await.unwrap();
    assert_eq!(
        view.get("alice").await.unwrap(),
        Some(Touches { events: 1 })
    );
    db.stop().await;
}

#[tokio::test]
async fn a_moment_of_several_partitions_is_asked_of_an_aggregate() {
    let store = Arc::new(MemoryStore::with_partitions(3));
    let db = Annals::on(Arc::clone(&store) as _);
    let db = db.with(Touches::projection().live()).start().await.unwrap();
    let first = happens(&db, "alice", deposited(1)).await.events()[0].position;
    happens(&db, "alice", deposited(1)).await;
    let error = db
        .view::<Touches>()
        .get("alice")
        .as_of(first)
        .await
        .unwrap_err();
    let says = "load the aggregate as of it instead";
    assert!(error.to_string().contains(says), "{error}");
    let alice = db.aggregate::<Account>("alice");
    let then = alice.load().as_of(first).await.unwrap();
    assert_eq!(then.version().get(), 1);
    db.stop().await;
}
