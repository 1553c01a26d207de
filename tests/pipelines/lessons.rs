//! Programs of lessons on stream processing, as pipelines over a log, each built twice. Another
//! folder of the same form is read from `ANNALS_LESSONS`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use annals::pipeline::{Count, Fold, Pipeline, Sum, Time, Window};
use annals::prelude::*;
use annals::projections::Program;
use annals::store::{Append, NewEvent, ReadLog};
use annals::{ManualClock, MemoryStore, Store};
use annals_core::conformance::Dice;
use chrono::DateTime;
use serde_json::{Value, json};

use crate::shop::{Picture, caught_up, rebuild};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn text(file: &str) -> String {
    let copies = concat!(env!("CARGO_MANIFEST_DIR"), "/streams/tests/data/lessons");
    let folder = std::env::var_os("ANNALS_LESSONS").map_or(copies.into(), PathBuf::from);
    std::fs::read_to_string(folder.join(file)).unwrap()
}

fn lesson(file: &str) -> Value {
    serde_json::from_str(&text(file)).unwrap()
}

#[derive(Clone, Debug, Event, Serialize, Deserialize)]
#[event(category = "player")]
enum PlayerEvent {
    Scored { player: String, points: i64 },
}

/// Count and sum.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Totals(Count, Sum);

impl Fold<i64> for Totals {
    fn add(&mut self, points: &i64) {
        self.0.add(points);
        self.1.add(points);
    }

    fn merge(&mut self, other: Totals) {
        Fold::<i64>::merge(&mut self.0, other.0);
        Fold::<i64>::merge(&mut self.1, other.1);
    }
}

macro_rules! view {
    ($name:ident, $stored:literal, $key:ty) => {
        #[derive(Clone, Debug, Default, Serialize, Deserialize, View)]
        #[view(name = $stored, key = $key)]
        struct $name {
            row: Value,
        }
    };
}

view!(Tumbling, "tumbling", Window);
view!(Hopping, "hopping", Window);
view!(Visits, "visits", (String, Window));

fn row(window: &Window, totals: &Totals) -> Value {
    let (start, end) = (window.start.micros(), window.end.micros());
    json!([start, end, totals.0.0, totals.1.0 as i64])
}

fn windows() -> Pipeline {
    Pipeline::new("lesson-windows", 1, |log| {
        let scored = log.events::<PlayerEvent>().out_of_order_by(20 * SECOND);
        let scored = scored.map(|event| match &**event {
            PlayerEvent::Scored { player, points } => (player.clone(), *points),
        });
        let all = scored.key_by(|_| ()).map(|(), (_, points)| *points);
        all.tumbling(MINUTE)
            .folded::<Totals>()
            .into_view_as::<Tumbling>(|(), window, of| Tumbling {
                row: row(window, of),
            });
        all.hopping(2 * MINUTE, MINUTE / 2)
            .folded::<Totals>()
            .into_view_as::<Hopping>(|(), window, of| Hopping {
                row: row(window, of),
            });
        let users = scored.key_by(|(player, _)| player.clone());
        let visits = users.map(|_, (_, points)| *points).sessions(MINUTE / 2);
        let visits = visits.folded::<Totals>().finals();
        visits.into_view_with::<Visits>(|user, of| {
            let (start, end) = (of.window.start.micros(), of.window.end.micros());
            let Totals(count, sum) = &of.value;
            let row = json!([user, start, end, count.0, sum.0 as i64]);
            ((user.clone(), of.window), Visits { row })
        });
    })
}

/// A log of these events, recorded when they happened.
async fn log(events: impl Iterator<Item = (i64, String, i64)>) -> Arc<dyn Store> {
    let clock = Arc::new(ManualClock::default());
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new().on_clock(clock.clone()));
    let mut appends = Vec::new();
    for (number, (at, player, points)) in events.enumerate() {
        let mut new = NewEvent::of(&PlayerEvent::Scored { player, points }).unwrap();
        new.occurred_at = DateTime::from_timestamp_micros(at).unwrap();
        appends.push(new);
        if appends.len() == 500 {
            flush(&*store, number, &mut appends).await;
        }
    }
    flush(&*store, usize::MAX, &mut appends).await;
    store
}

async fn flush(store: &dyn Store, number: usize, appends: &mut Vec<NewEvent>) {
    if !appends.is_empty() {
        let stream = StreamId::new(format!("player-{number}")).unwrap();
        let append = Append::new(stream, std::mem::take(appends));
        store.append(append).await.unwrap();
    }
}

/// The program, once its rows were the same in a rebuild.
async fn built_twice(store: &Arc<dyn Store>, pipeline: Pipeline, name: &str) -> Program {
    let db = Annals::on(store.clone())
        .with(pipeline)
        .start()
        .await
        .unwrap();
    db.advance_clock(Time::MAX).await.unwrap();
    caught_up(&db, name).await;
    let live = Picture::of(&**store, name).await;
    rebuild(&db, name).await;
    assert_eq!(Picture::of(&**store, name).await, live);
    db
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_come_out_as_the_lesson_says() {
    let lesson = lesson("windows.json");
    let events = lesson["events"].as_array().unwrap().iter();
    let events = events.map(|event| {
        let (at, cents) = (event["at"].as_i64(), event["cents"].as_i64());
        let user = event["user"].as_str().unwrap().to_owned();
        (at.unwrap(), user, cents.unwrap())
    });
    let newest = events.clone().map(|(at, ..)| at).max().unwrap();
    let store = log(events).await;
    let db = built_twice(&store, windows(), "lesson-windows").await;
    let tumbling = db.view::<Tumbling>().rows().await.unwrap().rows;
    let rows = tumbling.into_iter().map(|row| row.value.row);
    // The lesson's tumbling windows are those that the newest event has passed.
    let rows: Value = rows.filter(|row| row[1].as_i64() <= Some(newest)).collect();
    assert_eq!(rows, lesson["tumbling_60s"]["rows"]);
    let wanted = &lesson["hopping_120s_30s"]["rows"];
    let hopping = db.view::<Hopping>().rows().await.unwrap().rows;
    let rows = hopping.into_iter().map(|row| row.value.row);
    let rows: Value = rows
        .filter(|row| row[0].as_i64() >= wanted[0][0].as_i64())
        .collect();
    assert_eq!(&rows, wanted);
    let visits = db.view::<Visits>().rows().await.unwrap().rows;
    let rows: Value = visits.into_iter().map(|row| row.value.row).collect();
    assert_eq!(rows, lesson["session_30s"]["rows"]);
    db.stop().await;
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, View)]
#[view(name = "best", key = Window, history)]
struct Best {
    players: Vec<(String, i128)>,
}

fn leaderboard(on_update: bool) -> Pipeline {
    Pipeline::new("lesson-leaderboard", 1, |log| {
        let scored = log.events::<PlayerEvent>().out_of_order_by(20 * SECOND);
        let scored = scored.map(|event| match &**event {
            PlayerEvent::Scored { player, points } => (player.clone(), *points),
        });
        let points = scored.key_by(|(player, _)| player.clone());
        let points = points.map(|_, (_, points)| *points);
        let mut hours = points.tumbling(Duration::from_hours(1)).folded::<Sum>();
        if on_update {
            hours = hours.on_update();
        }
        hours
            .top(10, |sum| sum.0)
            .into_view_as::<Best>(|(), _, players| Best {
                players: players.clone(),
            });
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leaderboard_comes_out_as_the_lesson_says() {
    let lesson = lesson("leaderboard.json");
    let events = text("leaderboard-events.csv");
    let events = events.lines().skip(1).map(|line| {
        let mut fields = line.split(',');
        let at = fields.next().unwrap().parse().unwrap();
        let player = fields.next().unwrap().to_owned();
        (at, player, fields.next().unwrap().parse().unwrap())
    });
    let store = log(events).await;
    for on_update in [false, true] {
        let db = built_twice(&store, leaderboard(on_update), "lesson-leaderboard").await;
        let rows = db.view::<Best>().rows().await.unwrap().rows;
        let hours = rows.into_iter().map(|row| {
            let best = row.value.players;
            let best: Vec<_> = best.into_iter().map(|(of, sum)| (of, sum as i64)).collect();
            json!({ "start": row.key.start.micros(), "top": best })
        });
        assert_eq!(hours.collect::<Value>(), lesson["hours"]);
        db.stop().await;
    }
}

#[derive(Clone, Debug, Event, Serialize, Deserialize)]
#[event(category = "transaction")]
enum TransactionEvent {
    Made(Transaction),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Transaction {
    id: String,
    user: String,
    cents: i64,
    country: String,
}

#[derive(Clone, Debug, Event, Serialize, Deserialize)]
#[event(category = "finding")]
enum FindingEvent {
    Found {
        rule: String,
        user: String,
        found: Value,
    },
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Countries(BTreeSet<String>);

impl Fold<Transaction> for Countries {
    fn add(&mut self, transaction: &Transaction) {
        self.0.insert(transaction.country.clone());
    }

    fn merge(&mut self, other: Countries) {
        self.0.extend(other.0);
    }
}

fn findings() -> Pipeline {
    Pipeline::new("lesson-findings", 1, |log| {
        let made = log.events::<TransactionEvent>();
        let made = made.out_of_order_by(20 * SECOND).map(|event| {
            let TransactionEvent::Made(transaction) = &**event;
            transaction.clone()
        });
        let made = made.key_by(|transaction| transaction.user.clone());
        let made = made.distinct_by(|transaction| transaction.id.clone(), 1_440 * MINUTE);
        let high = made.filter(|transaction| transaction.cents > 100_000);
        let high = high.map(|_, Transaction { id, cents, .. }| {
            let found = json!({ "transaction": id, "cents": cents });
            ("HIGH_VALUE", found)
        });
        // The moment at which a rule fires does not depend on the order in which they become known.
        let sorted = made.in_time_order();
        let many = sorted.tumbling(5 * MINUTE).folded::<Count>();
        let many = many.as_soon_as(|count| count.0 > 3).map(|_, of| {
            let start = of.window.start.micros();
            let found = json!({ "count": of.value.0, "window_start": start });
            ("HIGH_VELOCITY", found)
        });
        let several = sorted.sessions(60 * MINUTE).folded::<Countries>();
        let several = several.as_soon_as(|countries| countries.0.len() > 1);
        let several = several.map(|_, of| {
            let found = json!({ "countries": of.value.0 });
            ("MULTIPLE_COUNTRIES", found)
        });
        let all = high.merge(&many).merge(&several);
        all.append(|user, (rule, found)| {
            let event = FindingEvent::Found {
                rule: (*rule).to_owned(),
                user: user.clone(),
                found: found.clone(),
            };
            (format!("finding-{user}"), event)
        });
    })
}

/// The alerts that are in a log.
async fn found(store: &dyn Store) -> Vec<String> {
    let page = store.read(ReadLog::after(Position::START)).await.unwrap();
    assert!(page.end, "the lesson is short");
    let ours = page.events.into_iter();
    let ours = ours.filter(|of| of.stream.as_str().starts_with("finding-"));
    let mut found = Vec::new();
    for record in ours {
        for event in Recorded::<FindingEvent>::decode(record).unwrap() {
            let FindingEvent::Found {
                rule,
                user,
                found: of,
            } = event.event;
            found.push(json!([rule, user, of]).to_string());
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn five_transactions_give_the_alerts_of_the_lesson() {
    let lesson = lesson("five-transactions.json");
    let alerts = lesson["alerts"].as_array().unwrap().iter();
    let mut wanted: Vec<_> = alerts.map(Value::to_string).collect();
    wanted.sort();
    let rows = lesson["transactions"].as_array().unwrap().iter();
    let given: Vec<(i64, Transaction)> = rows
        .map(|row| {
            let text = |column: usize| row[column].as_str().unwrap().to_owned();
            let transaction = Transaction {
                id: text(0),
                user: text(1),
                cents: row[2].as_i64().unwrap(),
                country: text(3),
            };
            (row[4].as_i64().unwrap(), transaction)
        })
        .collect();
    let mut dice = Dice::new(5);
    for round in 0..12 {
        // As given; then up to 20 s late, and some of them twice.
        let mut known: Vec<_> = given.iter().map(|of| (of.0, of)).collect();
        if round > 0 {
            for index in 0..given.len() {
                known[index].0 += dice.roll(20_000_000) as i64;
                if dice.roll(3) == 0 {
                    let late = dice.roll(20_000_000) as i64;
                    known.push((given[index].0 + late, &given[index]));
                }
            }
            known.sort_by_key(|(at, _)| *at);
        }
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let pipeline = findings().slots(1 + round % 3);
        let db = Annals::on(store.clone()).with(pipeline).start();
        let db = db.await.unwrap();
        for (number, (_, (at, transaction))) in known.into_iter().enumerate() {
            let mut new = NewEvent::of(&TransactionEvent::Made(transaction.clone())).unwrap();
            new.occurred_at = DateTime::from_timestamp_micros(*at).unwrap();
            flush(&*store, number, &mut vec![new]).await;
        }
        let handle = db.pipeline("lesson-findings").unwrap();
        for _ in 0..2 {
            let end = db.advance_clock(Time::MAX).await.unwrap();
            handle.wait_until_sent(end, MINUTE).await.unwrap();
            assert_eq!(found(&*store).await, wanted, "round {round}");
            rebuild(&db, "lesson-findings").await;
        }
        db.stop().await;
    }
}
