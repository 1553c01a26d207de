//! Events out: each once, in the order of their causes, none for the past.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals::pipeline::{Log, Pipeline};
use annals::prelude::*;
use annals::projections::{Kind, Program};
use annals::status::SlotState;
use annals::store::{Append, AppendError, Appended, NewEvent, ReadLog};
use annals::{Failure, MemoryStore, Partition, Store, StoreError};
use annals_core::conformance::Dice;
use annals_core::conformance::faulty::{Call, FaultyStore, StoreFault};
use annals_core::{Outgoing, Outlet, OutletError, OutletMark};
use async_trait::async_trait;
use chrono::DateTime;

use crate::shop::{Location, Sales, ShopEvent, append, caught_up, noon, options, order, ordered};
use crate::shop::{Picture, rebuild, sold};

const WAIT: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Event, Serialize, Deserialize)]
#[event(category = "alert")]
enum AlertEvent {
    High { cents: i64 },
    Minute { orders: u64, cents: i64 },
}

/// Each sale above a limit, and each minute of a product when it closes.
fn alerts_of(log: &Log, limit: i64) -> [annals::pipeline::Appended; 2] {
    let sold = sold(log).key_by(|sale| sale.product.clone());
    let high = sold.filter(move |sale| sale.cents > limit);
    let high = high.append(|product, sale| {
        let cents = sale.cents;
        (format!("alert-{product}"), AlertEvent::High { cents })
    });
    let minutes = sold.tumbling(Duration::from_mins(1)).folded::<Sales>();
    let minutes = minutes.append(|product, minute| {
        let Sales { orders, cents } = minute.value;
        (
            format!("alert-{product}"),
            AlertEvent::Minute { orders, cents },
        )
    });
    [high, minutes]
}

fn alerts() -> Pipeline {
    Pipeline::new("alerts", 1, |log| {
        for appended in alerts_of(log, 400) {
            appended.from_the_beginning();
        }
    })
}

fn high_alerts(version: u32, limit: i64) -> Pipeline {
    Pipeline::new("alerts", version, move |log| {
        alerts_of(log, limit);
    })
}

/// What was appended: the stream, the event, the position of its cause.
#[derive(Debug, PartialEq)]
struct Sent {
    stream: String,
    payload: String,
    cause: u64,
}

async fn sent(store: &dyn Store) -> Vec<Sent> {
    let mut events = Vec::new();
    let mut read = ReadLog::after(Position::START);
    loop {
        let page = store.read(read.clone()).await.unwrap();
        events.extend(page.events);
        if page.end {
            break;
        }
        read.after = page.scanned;
    }
    let at = |id| events.iter().find(|of| of.id == id).unwrap().position.get();
    let ours = events
        .iter()
        .filter(|of| of.event_type.starts_with("alert."));
    let sent = ours.map(|of| Sent {
        stream: of.stream.to_string(),
        payload: format!("{} {}", of.event_type, String::from_utf8_lossy(&of.payload)),
        cause: at(of.metadata.causation.unwrap()),
    });
    sent.collect()
}

/// Waits until nothing is to be sent any more.
async fn all_sent(db: &Program) {
    let head = db.store().head(Partition(0)).await.unwrap().visible;
    let token = Token::new(db.store().id()).with(Partition(0), head);
    let pipeline = db.pipeline("alerts").unwrap();
    pipeline.wait_until_sent(token, WAIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_the_same_for_every_store_and_slots() {
    let mut first: Option<Vec<Sent>> = None;
    for slots in [1, 4] {
        for location in Location::all() {
            let store = location.open().await;
            let pipeline = alerts().options(options()).slots(slots);
            let db = Annals::on(store.clone())
                .with(pipeline)
                .start()
                .await
                .unwrap();
            order(&*store, &mut Dice::new(3), 0, 200).await;
            all_sent(&db).await;
            let found = sent(&*store).await;
            assert!(found.len() > 30, "{} alerts", found.len());
            assert!(found.is_sorted_by_key(|of| of.cause), "{found:?}");
            // Nothing is sent again by a rebuild.
            rebuild(&db, "alerts").await;
            all_sent(&db).await;
            assert_eq!(sent(&*store).await, found);
            match &first {
                // A store may have recorded the orders at other places than the alerts.
                Some(first) => assert_eq!(payloads(&found), payloads(first)),
                None => first = Some(found),
            }
            db.stop().await;
        }
    }
}

fn payloads(sent: &[Sent]) -> Vec<(&str, &str)> {
    let both = sent
        .iter()
        .map(|of| (of.stream.as_str(), of.payload.as_str()));
    both.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_outbox_is_no_state_and_is_emptied() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let db = Annals::on(store.clone()).with(alerts().options(options()));
    let db = db.start().await.unwrap();
    order(&*store, &mut Dice::new(3), 0, 100).await;
    all_sent(&db).await;
    let live = Picture::of(&*store, "alerts").await;
    rebuild(&db, "alerts").await;
    all_sent(&db).await;
    assert_eq!(Picture::of(&*store, "alerts").await.state, live.state);
    // Its next commits remove what was sent.
    let views = store.views().unwrap();
    let generations = views.generations("alerts").await.unwrap();
    for number in 100_u64.. {
        let live = generations.last().unwrap().id;
        let state = views
            .read_state(live, 0, Some(&[2]), 1 << 20)
            .await
            .unwrap();
        if state.is_empty() {
            break;
        }
        assert!(number < 200, "{} entries are left", state.len());
        append(&*store, noon(), &ShopEvent::Shipped { order: "1".into() }).await;
        all_sent(&db).await;
    }
    db.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_sends_nothing_for_the_past() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    append(&*store, noon(), &ordered("tea", 900)).await;
    for (version, limit, so_far) in [(1, 400, vec![]), (2, 40, vec![500, 600])] {
        let db = Annals::on(store.clone())
            .with(high_alerts(version, limit).options(options()))
            .caught_up()
            .start()
            .await
            .unwrap();
        all_sent(&db).await;
        assert_eq!(high(&*store).await, so_far);
        for cents in [50, 500, 600] {
            append(&*store, noon(), &ordered("tea", cents)).await;
        }
        all_sent(&db).await;
        db.stop().await;
    }
    assert_eq!(high(&*store).await, [500, 600, 50, 500, 600]);
}

/// As `high_alerts`, with one more stage, which makes another plan of it.
fn high_alerts_otherwise(version: u32, limit: i64) -> Pipeline {
    Pipeline::new("alerts", version, move |log| {
        alerts_of(log, limit);
        let sold = sold(log).key_by(|sale| sale.product.clone());
        let none = sold.filter(|_| false);
        none.append(|product, _| (format!("alert-{product}"), AlertEvent::High { cents: 0 }));
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_rolled_back_sends_on() {
    for version in [1, 2] {
        let inner: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let store = FaultyStore::new(inner.clone(), Shut::default());
        let first = || high_alerts(1, 400).outbox_events_max(5);
        let replacing = high_alerts_otherwise(version, 40);
        for (pipeline, cents) in [(first(), 500), (replacing, 600)] {
            let db = Annals::on(store.clone())
                .with(pipeline.options(options()))
                .caught_up();
            let db = db.start().await.unwrap();
            all_sent(&db).await;
            append(&*inner, noon(), &ordered("tea", cents)).await;
            all_sent(&db).await;
            db.stop().await;
        }
        let db = Annals::on(store.clone()).with(first().options(options()));
        let db = db.caught_up().start().await.unwrap();
        all_sent(&db).await;
        append(&*inner, noon(), &ordered("tea", 700)).await;
        all_sent(&db).await;
        assert_eq!(high(&*inner).await, [500, 600, 700], "version {version}");
        // It goes on, so its outbox is bounded.
        store.fault().0.store(true, Ordering::SeqCst);
        for _ in 0..100 {
            append(&*inner, noon(), &ordered("tea", 800)).await;
        }
        slot_waits_for(&db, "no room is left for events").await;
        store.fault().0.store(false, Ordering::SeqCst);
        all_sent(&db).await;
        assert_eq!(high(&*inner).await.len(), 103);
        db.stop().await;
    }
}

async fn high(store: &dyn Store) -> Vec<i64> {
    let sent = sent(store).await;
    let amount = |of: &Sent| {
        let (_, json) = of.payload.split_once("alert.high ")?;
        let json: serde_json::Value = serde_json::from_str(json).unwrap();
        json["cents"].as_i64()
    };
    sent.iter().filter_map(amount).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_could_cause_itself_is_refused() {
    let circle = Pipeline::new("circle", 1, |log| {
        let alerts = log.events::<AlertEvent>();
        alerts.append(|alert| ("alert-again", (**alert).clone()));
    });
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let refused = Annals::on(store.clone()).with(circle).start().await;
    let reason = refused.unwrap_err().to_string();
    assert!(reason.contains("it reads `alert."), "{reason}");
    let halves = Pipeline::new("halves", 1, |log| {
        let [first, _] = alerts_of(log, 1);
        first.from_the_beginning();
    });
    let refused = Annals::on(store).with(halves).start().await;
    let reason = refused.unwrap_err().to_string();
    assert!(reason.contains("say it of all or none"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_be_appended_is_a_dead_record() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let pipeline = Pipeline::new("alerts", 1, |log| {
        let sold = sold(log).key_by(|sale| sale.product.clone());
        sold.append(|product, sale| {
            let cents = sale.cents;
            (product.clone(), AlertEvent::High { cents })
        });
    });
    let db = Annals::on(store.clone())
        .with(pipeline)
        .start()
        .await
        .unwrap();
    append(&*store, noon(), &ordered("$secret", 1)).await;
    append(&*store, noon(), &ordered("alert-tea", 2)).await;
    all_sent(&db).await;
    assert_eq!(high(&*store).await, [2]);
    let dead = db
        .pipeline("alerts")
        .unwrap()
        .dead_records(10)
        .await
        .unwrap();
    assert_eq!(dead.len(), 1);
    assert!(
        dead[0]
            .cause
            .contains("stream `$secret` cannot be appended"),
        "{dead:?}"
    );
    db.stop().await;
}

/// A topic in memory, some of whose answers are lost.
#[derive(Clone, Debug, Default)]
struct Topic(Arc<Mutex<Published>>);

#[derive(Debug, Default)]
struct Published {
    records: Vec<(String, String)>,
    marks: BTreeMap<Partition, OutletMark>,
    takes: u64,
}

#[async_trait]
impl Outlet for Topic {
    async fn open(&mut self) -> Result<Vec<OutletMark>, OutletError> {
        Ok(self.0.lock().unwrap().marks.values().cloned().collect())
    }

    async fn take(&mut self, batch: Vec<Outgoing>, mark: OutletMark) -> Result<(), OutletError> {
        let mut published = self.0.lock().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let records = batch.into_iter().map(|of| {
            let payload = of.payload.as_deref().map(text);
            (text(&of.key), payload.unwrap_or_default())
        });
        published.records.extend(records);
        published.marks.insert(mark.partition, mark);
        published.takes += 1;
        match published.takes % 3 {
            0 => {
                let lost = StoreError::new(Failure::Unavailable, "the answer was lost");
                Err(OutletError::Undecided(lost))
            }
            _ => Ok(()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_published_once_though_answers_are_lost() {
    let topic = Topic::default();
    let opens = topic.clone();
    let pipeline = Pipeline::new("alerts", 1, move |log| {
        let sold = sold(log).key_by(|sale| sale.product.clone());
        let opens = opens.clone();
        let open = move || -> Result<Box<dyn Outlet>, StoreError> { Ok(Box::new(opens.clone())) };
        sold.publish_to(open, |product, sale| Outgoing {
            to: "sales".into(),
            key: product.clone().into(),
            payload: Some(sale.cents.to_string().into()),
            headers: Vec::new(),
            occurred_at: DateTime::UNIX_EPOCH,
        });
        sold.append(|product, sale| {
            let cents = sale.cents;
            (format!("alert-{product}"), AlertEvent::High { cents })
        });
    });
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let db = Annals::on(store.clone()).with(pipeline.options(options()).slots(2));
    let db = db.start().await.unwrap();
    for part in 0..10 {
        order(&*store, &mut Dice::new(part), 20 * part, 20).await;
        all_sent(&db).await;
    }
    rebuild(&db, "alerts").await;
    all_sent(&db).await;
    db.stop().await;
    let found = sent(&*store).await.into_iter().map(|of| {
        let (_, cents) = of.payload.split_once("\"cents\":").unwrap();
        let product = of.stream.strip_prefix("alert-").unwrap();
        (product.to_owned(), cents.trim_end_matches('}').to_owned())
    });
    let published = topic.0.lock().unwrap();
    assert!(
        published.takes > 6 && published.records.len() > 150,
        "{}",
        published.takes
    );
    assert_eq!(published.records, found.collect::<Vec<_>>());
}

/// A topic in memory that never takes tea, and to which the link fails once, after a record.
#[derive(Clone, Debug, Default)]
struct NoTea(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    products: Vec<String>,
    marks: BTreeMap<Partition, OutletMark>,
    is_missing: bool,
    has_failed: bool,
}

#[async_trait]
impl Outlet for NoTea {
    async fn open(&mut self) -> Result<Vec<OutletMark>, OutletError> {
        Ok(self.0.lock().unwrap().marks.values().cloned().collect())
    }

    async fn take(&mut self, batch: Vec<Outgoing>, mark: OutletMark) -> Result<(), OutletError> {
        let mut taken = self.0.lock().unwrap();
        if taken.is_missing {
            let why = "there is no topic `sales`";
            return Err(OutletError::Destination(why.into()));
        }
        let text = |of: &Outgoing| String::from_utf8(of.key.to_vec()).unwrap();
        let products: Vec<String> = batch.iter().map(text).collect();
        if products.iter().any(|product| product == "tea") {
            return Err(OutletError::Refused("no tea".into()));
        }
        if !taken.products.is_empty() && !std::mem::replace(&mut taken.has_failed, true) {
            let failed = StoreError::new(Failure::Unavailable, "the link failed");
            return Err(OutletError::Store(failed));
        }
        taken.products.extend(products);
        taken.marks.insert(mark.partition, mark);
        Ok(())
    }
}

/// Publishes each sale under its product.
fn published_to(topic: &NoTea) -> Pipeline {
    let topic = topic.clone();
    let pipeline = Pipeline::new("alerts", 1, move |log| {
        let sold = sold(log).key_by(|sale| sale.product.clone());
        let topic = topic.clone();
        let open = move || -> Result<Box<dyn Outlet>, StoreError> { Ok(Box::new(topic.clone())) };
        sold.publish_to(open, |product, _| Outgoing {
            to: "sales".into(),
            key: product.clone().into(),
            payload: None,
            headers: Vec::new(),
            occurred_at: DateTime::UNIX_EPOCH,
        });
    });
    pipeline.options(options())
}

/// Sells these in one append.
async fn sell(store: &dyn Store, products: &[&str]) {
    let mut append = Append::default();
    for product in products {
        let mut new = NewEvent::of(&ordered(product, 500)).unwrap();
        new.occurred_at = noon();
        append = append.event(StreamId::new(format!("order-{product}")).unwrap(), new);
    }
    store.append(append).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_record_is_dead_though_the_next_one_fails() {
    let topic = NoTea::default();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let db = Annals::on(store.clone()).with(published_to(&topic));
    let db = db.start().await.unwrap();
    sell(&*store, &["tea", "rum", "gin"]).await;
    all_sent(&db).await;
    assert_eq!(topic.0.lock().unwrap().products, ["rum", "gin"]);
    let dead = db.pipeline("alerts").unwrap().dead_records(10).await;
    let dead: Vec<_> = dead.unwrap().into_iter().map(|of| of.cause).collect();
    assert_eq!(
        dead,
        ["a record for `sales` was refused by its outlet: no tea"]
    );
    db.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_makes_no_record_dead() {
    let topic = NoTea::default();
    topic.0.lock().unwrap().is_missing = true;
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let db = Annals::on(store.clone()).with(published_to(&topic));
    let db = db.start().await.unwrap();
    sell(&*store, &["rum", "gin"]).await;
    assert_eq!(stopped_sender(&db).await, "there is no topic `sales`");
    topic.0.lock().unwrap().is_missing = false;
    all_sent(&db).await;
    assert_eq!(topic.0.lock().unwrap().products, ["rum", "gin"]);
    let dead = db.pipeline("alerts").unwrap().dead_records(10).await;
    assert_eq!(dead.unwrap(), []);
    db.stop().await;
}

/// A store that takes no events while it is shut.
#[derive(Debug, Default)]
struct Shut(AtomicBool);

#[async_trait]
impl StoreFault for Shut {
    async fn before(&self, call: Call) -> Result<(), StoreError> {
        match call {
            Call::Append if self.0.load(Ordering::SeqCst) => {
                let what = "no room is left for events";
                Err(StoreError::new(Failure::Full, what))
            }
            _ => Ok(()),
        }
    }
}

/// Waits until a slot waits, and says this among why.
async fn slot_waits_for(db: &Program, reason: &str) -> String {
    let mut polls = tokio::time::interval(Duration::from_millis(20));
    let waits = async {
        loop {
            polls.tick().await;
            let status = db.status();
            let pipeline = status.iter().filter(|of| of.view == "alerts");
            let slots = pipeline.flat_map(|of| &of.slots);
            let waits = slots.filter_map(|slot| match &slot.state {
                SlotState::Waiting { reason } => Some(reason.clone()),
                _ => None,
            });
            let mut named =
                waits.filter(|named| named.contains("in its outbox") && named.contains(reason));
            if let Some(reason) = named.next() {
                return reason;
            }
        }
    };
    tokio::time::timeout(WAIT, waits).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_waits_for_the_sender_and_says_so() {
    let inner: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let store = FaultyStore::new(inner.clone(), Shut::default());
    let pipeline = alerts().options(options()).outbox_events_max(5);
    let db = Annals::on(store.clone())
        .with(pipeline)
        .start()
        .await
        .unwrap();
    store.fault().0.store(true, Ordering::SeqCst);
    order(&*inner, &mut Dice::new(3), 0, 300).await;
    let reason = slot_waits_for(&db, "no room is left for events").await;
    assert!(
        reason.contains("the sender of `alerts` has sent"),
        "{reason}"
    );
    assert!(sent(&*inner).await.is_empty());
    // What is in the outbox is bounded: the limit, and what one batch caused.
    let (kept, reached) = outbox(&*inner).await;
    assert!(kept >= 5 && reached < 300, "{kept} events at {reached}");
    store.fault().0.store(false, Ordering::SeqCst);
    all_sent(&db).await;
    let found = sent(&*inner).await;
    let undisturbed = Location::Memory(MemoryStore::new()).open().await;
    let other = Annals::on(undisturbed.clone())
        .with(alerts())
        .start()
        .await
        .unwrap();
    order(&*undisturbed, &mut Dice::new(3), 0, 300).await;
    caught_up(&other, "alerts").await;
    all_sent(&other).await;
    assert_eq!(payloads(&found), payloads(&sent(&*undisturbed).await));
    other.stop().await;
    db.stop().await;
}

/// A store that takes no event of one stream.
#[derive(Debug)]
struct Refuses(Failure);

#[async_trait]
impl StoreFault for Refuses {
    async fn append(&self, store: &dyn Store, append: Append) -> Result<Appended, AppendError> {
        let mut streams = append.events.iter().map(|(to, _)| to.as_str());
        match streams.any(|to| to == "alert-tea") {
            true => Err(StoreError::new(self.0, "not in this store").into()),
            false => store.append(append).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_store_refuses_holds_nothing_else_back() {
    let inner: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let store = FaultyStore::new(inner.clone(), Refuses(Failure::Invalid));
    let db = Annals::on(store).with(alerts().options(options()));
    let db = db.start().await.unwrap();
    let sold = [("rum", 500), ("tea", 600), ("tea", 700), ("rum", 800)];
    let mut append = Append::default();
    for (product, cents) in sold {
        let mut new = NewEvent::of(&ordered(product, cents)).unwrap();
        new.occurred_at = noon();
        append = append.event(StreamId::new(format!("order-{cents}")).unwrap(), new);
    }
    inner.append(append).await.unwrap();
    all_sent(&db).await;
    assert_eq!(high(&*inner).await, [500, 800]);
    let pipeline = db.pipeline("alerts").unwrap();
    for _ in 0..2 {
        let dead = pipeline.dead_records(10).await.unwrap();
        let dead: Vec<_> = dead
            .iter()
            .map(|of| (of.position, &*of.event_type, &*of.cause))
            .collect();
        let why = "an event for the stream `alert-tea` was refused: not in this store";
        let wanted = [(2, "order.ordered", why), (3, "order.ordered", why)];
        assert_eq!(dead, wanted);
        // They belong to what was sent, and not to a build.
        rebuild(&db, "alerts").await;
    }
    assert_eq!(pipeline.dead_records(1).await.unwrap().len(), 1);
    db.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_stops_the_sender_until_skipped() {
    let inner: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let pipeline = || alerts().options(options().poll(Duration::from_millis(20)));
    let store = FaultyStore::new(inner.clone(), Refuses(Failure::ReadOnly));
    let db = Annals::on(store).with(pipeline()).start().await.unwrap();
    append(&*inner, noon(), &ordered("tea", 500)).await;
    let reason = stopped_sender(&db).await;
    let names = "for stream `alert-tea` on, which position 1 of partition 0 caused, cannot be";
    assert!(
        reason.contains(names) && reason.contains("not in this store"),
        "{reason}"
    );
    let handle = db.pipeline("alerts").unwrap();
    handle.skip_sending(1, "nobody wants it").await.unwrap();
    all_sent(&db).await;
    db.stop().await;
    // Another store takes what comes after it.
    let db = Annals::on(inner.clone())
        .with(pipeline())
        .start()
        .await
        .unwrap();
    append(&*inner, noon(), &ordered("tea", 700)).await;
    all_sent(&db).await;
    assert_eq!(high(&*inner).await, [700]);
    db.stop().await;
}

/// Why the sender has stopped, once it has.
async fn stopped_sender(db: &Program) -> String {
    let mut polls = tokio::time::interval(Duration::from_millis(20));
    loop {
        polls.tick().await;
        let status = db.status();
        let sender = status.iter().find(|of| of.kind == Kind::Sender);
        let slots = sender.iter().flat_map(|of| &of.slots);
        let mut stopped = slots.filter_map(|slot| match &slot.state {
            SlotState::Stopped { reason } => Some(reason.clone()),
            _ => None,
        });
        if let Some(reason) = stopped.next() {
            return reason;
        }
    }
}

/// How many bytes of events wait, and how far the slot has come.
async fn outbox(store: &dyn Store) -> (usize, u64) {
    let views = store.views().unwrap();
    let live = views.generations("alerts").await.unwrap()[0].id;
    let state = views
        .read_state(live, 0, Some(&[2]), 1 << 20)
        .await
        .unwrap();
    let counts = state.iter().map(|(_, value)| {
        let count: [u8; 4] = value[9..13].try_into().unwrap();
        u32::from_be_bytes(count) as usize
    });
    let reached = views.checkpoints(live).await.unwrap();
    (counts.sum(), reached[0].position.get())
}

#[test]
fn a_trial_tells_what_would_be_appended() {
    let story = alerts()
        .trial()
        .at("12:00:00", ordered("tea", 500))
        .unwrap()
        .end()
        .unwrap();
    let story = story.to_string();
    assert!(
        story.contains("  -> alert-tea alert.high {\"cents\":500}\n"),
        "{story}"
    );
    assert!(story.contains("  -> alert-tea alert.minute"), "{story}");
}
