//! Programs of lessons on stream processing, as pipelines over a log, each built twice. Another
//! folder of the same form is read from `ANNALS_LESSONS`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use annals::pipeline::{Count, Fold, Pipeline, Sum, Time, Window};
use annals::prelude::*;
use annals::projections::Program;
use annals::store::{Append, NewEvent};
use annals::{ManualClock, MemoryStore, Store};
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
