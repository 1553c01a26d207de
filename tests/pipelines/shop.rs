//! A shop, its sales for each minute, and what can be seen of what was built.

use std::sync::Arc;
use std::time::Duration;

use annals::pipeline::{Fold, Late, Log, Pipeline, Stream, Time, Window};
use annals::prelude::*;
use annals::projections::{Options, Program};
use annals::read_model::{Phase, ReadRows, RowVersion, RowsBy, ViewStore};
use annals::store::{Append, NewEvent};
use annals::{MemoryStore, Store};
use annals_core::conformance::Dice;
use chrono::{DateTime, TimeDelta, Utc};
use tempfile::TempDir;

#[derive(Clone, Debug, Event, Serialize, Deserialize)]
#[event(category = "order")]
pub(crate) enum ShopEvent {
    Ordered { product: String, cents: i64 },
    Shipped { order: String },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sale {
    pub(crate) product: String,
    pub(crate) cents: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "sales", key = (Window, String), history)]
pub(crate) struct Sales {
    pub(crate) orders: u64,
    pub(crate) cents: i64,
}

impl Fold<Sale> for Sales {
    fn add(&mut self, sale: &Sale) {
        self.orders += 1;
        self.cents += sale.cents;
    }

    fn merge(&mut self, other: Sales) {
        self.orders += other.orders;
        self.cents += other.cents;
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "sales-too-late", key = (Window, String))]
pub(crate) struct TooLate {
    pub(crate) cents: i64,
}

pub(crate) fn sold(log: &Log) -> Stream<Sale> {
    let events = log
        .events::<ShopEvent>()
        .out_of_order_by(Duration::from_secs(3))
        .at_most_ahead(Duration::from_hours(24))
        .dead_letters();
    events.filter_map(|event| match &**event {
        ShopEvent::Ordered { product, cents } => Some(Sale {
            product: product.clone(),
            cents: *cents,
        }),
        ShopEvent::Shipped { .. } => None,
    })
}

/// An order of a product.
pub(crate) fn ordered(product: &str, cents: i64) -> ShopEvent {
    ShopEvent::Ordered {
        product: product.into(),
        cents,
    }
}

/// Per product and minute; what comes later than a minute is in the side output.
pub(crate) fn sales() -> Pipeline {
    Pipeline::new("sales", 1, |log| {
        let windows = sold(log)
            .key_by(|sale| sale.product.clone())
            .tumbling(Duration::from_mins(1));
        windows.folded::<Sales>().into_view();
        windows
            .late()
            .key_by(|late: &Late<String, Sale>| late.key.clone())
            .into_view_with::<TooLate>(|key, late| {
                let cents = late.item.cents;
                ((late.missed[0], key.clone()), TooLate { cents })
            });
    })
}

pub(crate) fn options() -> Options {
    let mut options = Options::default().batch_events_max(20);
    options.back_off = Duration::from_millis(1);
    options
}

pub(crate) fn noon() -> DateTime<Utc> {
    "2026-03-31T12:00:00Z".parse().unwrap()
}

/// Some orders, one after another, some of them late.
pub(crate) async fn order(store: &dyn Store, dice: &mut Dice, from: u64, count: u64) {
    for number in from..from + count {
        let product = ["tea", "rum", "salt"][dice.roll(3) as usize].to_owned();
        let cents = dice.roll(500) as i64;
        let late = match dice.roll(20) {
            0 => dice.roll(200),
            _ => dice.roll(3),
        };
        let at = noon() + TimeDelta::seconds(number as i64 * 2 - late as i64);
        let event = match dice.roll(10) {
            0 => ShopEvent::Shipped {
                order: number.to_string(),
            },
            _ => ShopEvent::Ordered { product, cents },
        };
        append(store, at, &event).await;
    }
}

pub(crate) async fn append(store: &dyn Store, at: DateTime<Utc>, event: &impl Event) {
    let mut new = NewEvent::of(event).unwrap();
    new.occurred_at = at;
    let stream = StreamId::new(format!("order-{}", new.id)).unwrap();
    store.append(Append::new(stream, [new])).await.unwrap();
}

/// A place where a store keeps its data.
pub(crate) enum Location {
    Memory(MemoryStore),
    File(TempDir),
    #[cfg(feature = "postgres")]
    Schema(crate::server::Schema),
}

impl Location {
    pub(crate) fn all() -> [Location; 2] {
        [Location::memory(), Location::file()]
    }

    pub(crate) fn memory() -> Location {
        Location::Memory(MemoryStore::new())
    }

    pub(crate) fn file() -> Location {
        Location::File(TempDir::new().unwrap())
    }

    #[cfg(feature = "postgres")]
    pub(crate) fn schema() -> Location {
        Location::Schema(crate::server::Schema::new())
    }

    pub(crate) async fn open(&self) -> Arc<dyn Store> {
        match self {
            Location::Memory(store) => Arc::new(store.clone()),
            _ => open(&self.name()).await,
        }
    }

    /// For another process, that opens the same.
    pub(crate) fn name(&self) -> String {
        match self {
            Location::Memory(_) => "memory:".into(),
            Location::File(directory) => {
                format!("sqlite:{}", directory.path().join("shop.db").display())
            }
            #[cfg(feature = "postgres")]
            Location::Schema(schema) => format!("schema:{}", schema.name),
        }
    }
}

/// The store of this [name](Location::name).
pub(crate) async fn open(name: &str) -> Arc<dyn Store> {
    #[cfg(feature = "postgres")]
    if let Some(schema) = name.strip_prefix("schema:") {
        let options = crate::server::options_within(schema);
        let store = annals::postgres::PostgresStore::connect_with(options).await;
        return Arc::new(store.unwrap());
    }
    Arc::clone(Annals::open(name).await.unwrap().store())
}

/// Waits until everything in the log was seen.
pub(crate) async fn caught_up(db: &Program, pipeline: &str) {
    let store = db.store();
    let mut token = Token::new(store.id());
    for partition in (0..store.partitions()).map(annals::Partition) {
        let head = store.head(partition).await.unwrap().visible;
        token = token.with(partition, head);
    }
    let handle = db.pipeline(pipeline).unwrap();
    let wait = Duration::from_secs(60);
    handle.wait_for(token, wait).await.unwrap();
}

/// Builds a pipeline again, and waits until it has seen everything in the log.
pub(crate) async fn rebuild(db: &Program, pipeline: &str) {
    let rebuild = db.pipeline(pipeline).unwrap().rebuild();
    let running = rebuild.begin().await.unwrap();
    running.finished(|_| ()).await.unwrap();
    caught_up(db, pipeline).await;
}

/// Everything that a generation holds.
#[derive(Debug, PartialEq)]
pub(crate) struct Picture {
    pub(crate) rows: Vec<(String, String)>,
    pub(crate) versions: Vec<RowVersion>,
    pub(crate) state: Vec<(String, String)>,
    pub(crate) clocks: Vec<String>,
}

impl Picture {
    /// Without what two stores cannot have in common: when they recorded an event.
    pub(crate) fn without_moments(mut self) -> Picture {
        for version in &mut self.versions {
            version.recorded_at = noon();
        }
        for (_, row) in &mut self.rows {
            if let Some(at) = row.find("after its recording at") {
                row.truncate(at);
            }
        }
        self
    }

    /// Of the generation that serves.
    pub(crate) async fn of(store: &dyn Store, pipeline: &str) -> Picture {
        let views = store.views().unwrap();
        let generations = views.generations(pipeline).await.unwrap();
        let live = generations.iter().rfind(|of| of.phase == Phase::Live);
        let live = live.unwrap();
        let everything = || (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
        let (from, to) = everything();
        let mut read = ReadRows::of(live.id, RowsBy::KeyRange(from, to));
        let mut rows = Vec::new();
        loop {
            let page = views.read_rows(read.clone()).await.unwrap();
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            rows.extend(
                page.rows
                    .iter()
                    .map(|row| (row.key.clone(), text(&row.value))),
            );
            match page.next {
                None => break,
                next => read = read.after(next),
            }
        }
        let mut versions = Vec::new();
        let keys = views.past_keys(live.id, everything(), None, 100_000).await;
        for key in keys.unwrap() {
            let all = (Position::START, Position::MAX);
            let of_key = views.row_versions(live.id, &key, all, 100_000).await;
            versions.extend(of_key.unwrap());
        }
        let mut state = Vec::new();
        for slot in 0..live.spec.slots {
            state.extend(state_of(views, live.id, slot).await);
        }
        state.sort();
        let checkpoints = views.checkpoints(live.id).await.unwrap();
        let of_first = checkpoints.iter().filter(|of| of.slot == 0);
        let clocks = of_first.map(|of| format!("{} {:?}", of.position, of.state));
        Picture {
            rows,
            versions,
            state,
            clocks: clocks.collect(),
        }
    }
}

async fn state_of(
    views: &dyn ViewStore,
    generation: annals::read_model::GenerationId,
    slot: u16,
) -> Vec<(String, String)> {
    let mut stored = Vec::new();
    loop {
        let after = stored
            .last()
            .map(|(key, _): &(bytes::Bytes, _)| key.clone());
        let page = views.read_state(generation, slot, after.as_deref(), 1 << 20);
        let page = page.await.unwrap();
        if page.is_empty() {
            return annals::pipeline::merged_state(&stored).unwrap();
        }
        stored.extend(page);
    }
}

/// A window of the shop's day.
pub(crate) fn at(seconds: i64) -> Window {
    let start = (noon() + TimeDelta::seconds(seconds)).timestamp_micros();
    annals::pipeline::window_at(Time::from_micros(start))
}
