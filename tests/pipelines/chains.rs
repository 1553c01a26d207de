//! Pipelines of two and three stages of every kind, drawn at random, over a log with everything in
//! it that a log can have: the same rows, versions, state and clocks byte for byte, whatever the
//! batches, the slots, the store, and the commits that broke.

use std::sync::Arc;
use std::time::Duration;

use annals::pipeline::{Count, Keyed, Log, Pattern, Pipeline, Stream, Sum, Table, Time, Within};
use annals::prelude::*;
use annals::projections::Options;
use annals::store::{Append, NewEvent};
use annals::{MemoryStore, Store};
use annals_core::conformance::faulty::FaultyStore;
use annals_core::conformance::{Dice, rounds};
use chrono::{DateTime, TimeDelta, Utc};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::broken::TwoOfThree;
use crate::shop::{Location, Picture, caught_up, rebuild};

const NAME: &str = "chain";
const KINDS: u64 = 24;
const KINDS_IN_SLOTS: u64 = 20;

#[derive(Clone, Debug, Event, Serialize, Deserialize)]
#[event(category = "thing")]
enum ThingEvent {
    Left { key: String, number: i64 },
    Right { key: String, number: i64 },
}

/// A row of a table; nothing: it is deleted.
#[derive(Clone, Debug, Event, Serialize, Deserialize)]
#[event(category = "row")]
enum RowEvent {
    Set { key: String, number: Option<i64> },
}

/// What came, as a count, the last one and a digest of all in their order.
#[derive(Clone, Debug, Default, Serialize, Deserialize, View)]
#[view(name = "came", key = String, history)]
struct Came {
    count: u64,
    last: i64,
    digest: u64,
}

/// The rows as a view of their own.
#[derive(Clone, Debug, Default, Serialize, Deserialize, View)]
#[view(name = "things", key = String, events(RowEvent))]
struct Thing {
    number: i64,
}

impl Project<RowEvent> for Thing {
    fn keys(event: &Recorded<RowEvent>) -> Result<Vec<String>, Poison> {
        let RowEvent::Set { key, .. } = &**event;
        Ok(vec![key.clone()])
    }

    fn on(row: &mut Row<'_, Thing>, event: &Recorded<RowEvent>) -> Result<(), Poison> {
        match &**event {
            RowEvent::Set {
                number: Some(7), ..
            } => return Err(Poison::new("seven")),
            RowEvent::Set {
                number: Some(number),
                ..
            } => row.number = *number,
            RowEvent::Set { .. } => row.remove(),
        }
        Ok(())
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The streams and the table that stages meet.
struct World {
    left: Keyed<String, i64>,
    right: Keyed<String, i64>,
    table: Table<String, i64>,
}

fn world(log: &Log, dice: &mut Dice) -> World {
    let events = || {
        let events: Stream<_> = log.events::<ThingEvent>();
        events
            .out_of_order_by(seconds(4))
            .at_most_ahead(seconds(60))
            .dead_letters()
    };
    let right = match dice.roll(4) {
        0 => events().own_clock(),
        _ => events(),
    };
    let left = events().filter_map(|event| match &**event {
        ThingEvent::Left { key, number } => Some((key.clone(), *number)),
        _ => None,
    });
    let right = right.filter_map(|event| match &**event {
        ThingEvent::Right { key, number } => Some((key.clone(), *number)),
        _ => None,
    });
    let rows = log.events::<RowEvent>().out_of_order_by(seconds(4));
    let rows = rows.map(|event| match &**event {
        RowEvent::Set { key, number } => (key.clone(), *number),
    });
    let table = rows.key_by(|(key, _)| key.clone());
    let keyed = |stream: Stream<(String, i64)>| {
        let keyed = stream.key_by(|(key, _)| key.clone());
        keyed.map(|_, (_, number)| *number)
    };
    World {
        left: keyed(left),
        right: keyed(right),
        table: match dice.roll(2) {
            0 => log.table::<Thing>().map(|_, thing| thing.number),
            _ => table.table(|(_, number)| *number),
        },
    }
}

/// One more stage.
fn stage(
    kind: u64,
    dice: &mut Dice,
    items: &Keyed<String, i64>,
    world: &World,
) -> Keyed<String, i64> {
    let World { right, table, .. } = world;
    let late = seconds(dice.roll(2) * 10);
    let sum = |left: Option<&i64>, right: Option<&i64>| {
        left.unwrap_or(&1_000) * 3 + right.unwrap_or(&7_000)
    };
    let both = move |left: &i64, right: &i64| sum(Some(left), Some(right));
    match kind {
        0 => items.distinct_by(|number| number % 50, seconds(30)),
        1 => items.in_time_order(),
        2 => items.scan(seconds(40), |total: &mut i64, number| {
            *total += number;
            (number % 3 != 0).then_some(*total)
        }),
        3 => {
            let windows = items.tumbling(seconds(20)).allow_late(late);
            let sums = windows.folded::<Sum>().finals();
            sums.map(|_, sum| sum.value.0 as i64)
        }
        4 => {
            let counts = items.hopping(seconds(30), seconds(10)).allow_late(late);
            let counts = counts.folded::<Count>().finals();
            counts.map(|_, count| count.value.0 as i64)
        }
        5 => {
            let sums = items.sliding(seconds(10)).folded::<Sum>().finals();
            sums.map(|_, sum| sum.value.0 as i64)
        }
        6 => {
            let sums = items.sessions(seconds(8)).allow_late(late);
            let sums = sums.folded::<Sum>().finals();
            sums.map(|_, sum| sum.value.0 as i64)
        }
        7 => {
            let sums = items.tumbling(seconds(20)).folded::<Sum>().on_update();
            let sums = sums.at_most_every(seconds(5)).finals();
            sums.map(|_, sum| sum.value.0 as i64)
        }
        8 => {
            let sums = items.tumbling(seconds(20)).allow_late(late).folded::<Sum>();
            let soon = sums.as_soon_as(|sum| sum.0 > 100);
            soon.map(|_, sum| sum.value.0 as i64)
        }
        9 => {
            let rises = Pattern::first(|number: &i64| *number % 2 == 0)
                .then(|before, number| *number > before[0])
                .within(seconds(30));
            items.detect(rises).map(|_, found| found[0] * found[1])
        }
        10 => {
            let quiet = Pattern::first(|number: &i64| *number % 2 == 0)
                .never(|_, number| *number % 2 != 0)
                .within(seconds(12));
            items.detect(quiet).map(|_, found| found[0])
        }
        11 => items.join(right, Within::around(seconds(10)), both),
        12 => items.left_join(right, Within::after(seconds(10)), move |left, right| {
            sum(Some(left), right)
        }),
        13 => items.outer_join(right, Within::between(seconds(3), seconds(9)), sum),
        14 => {
            let windows = items.tumbling(seconds(20)).allow_late(late);
            let pairs = windows.join(&right.tumbling(seconds(20)).allow_late(late), both);
            pairs.map(|_, pair| pair.value)
        }
        15 => items.look_up(table, move |item, row| sum(Some(item), row)),
        16 => items.look_up_latest(table, move |item, row| sum(Some(item), row)),
        17 => {
            let rows = items.table(|number| (number % 5 != 0).then_some(*number));
            let rows = rows.outer_join(table, sum).filter(|number| number % 2 == 0);
            let changes = rows.changes();
            changes.map(|_, change| change.new.unwrap_or(-1) * 2 - change.old.unwrap_or(-1))
        }
        18 => items.merge(right).filter(|number| number % 4 != 0),
        19 => items.join(items, Within::after(seconds(3)), both),
        20 => {
            let rows = items.table(|number| Some(*number));
            let groups = rows.group_by(|_, number| format!("group {}", number.rem_euclid(3)));
            let changes = groups.folded::<Sum>().changes();
            changes.map(|_, change| change.new.as_ref().map_or(-1, |sum| sum.0 as i64))
        }
        21 => {
            let rows = items.table(|number| Some(*number));
            let refers_to =
                |number: &i64| Some(["a", "b", "c"][number.rem_euclid(3) as usize].into());
            let rows =
                rows.left_join_on(table, refers_to, move |number, row| sum(Some(number), row));
            items.look_up(&rows, move |item, row| sum(Some(item), row))
        }
        22 => {
            let counts = items.tumbling(seconds(20)).allow_late(late).folded::<Sum>();
            let best = counts.on_update().top(1, |sum| sum.0).finals();
            let best = best.unkeyed().flat_map(|of| of.value.clone());
            let best = best.key_by(|(key, _)| key.clone());
            best.map(|_, (_, sum)| *sum as i64)
        }
        _ => {
            let turned = items
                .unkeyed()
                .key_by(|number| format!("{}", number.rem_euclid(2)));
            turned.in_time_order()
        }
    }
}

/// The pipeline of a seed, and whether it needs all keys in one slot.
fn chain(seed: u64) -> (Pipeline, bool, String) {
    let mut dice = Dice::new(seed);
    let length = 2 + dice.roll(2);
    let in_slots = dice.roll(3) > 0;
    let all = if in_slots { KINDS_IN_SLOTS } else { KINDS };
    // Each kind is the first one of some seed.
    let mut kinds = vec![seed % all];
    kinds.extend((1..length).map(|_| dice.roll(all)));
    let one_slot = kinds.iter().any(|kind| *kind >= KINDS_IN_SLOTS);
    let text = format!("seed {seed}: stages {kinds:?}");
    let pipeline = Pipeline::new(NAME, 1, |log| {
        let world = world(log, &mut dice);
        let mut items = world.left.clone();
        for kind in kinds {
            items = stage(kind, &mut dice, &items, &world);
        }
        let came = items.scan(Duration::MAX, |came: &mut Came, number| {
            came.count += 1;
            came.last = *number;
            came.digest = (came.digest ^ *number as u64).wrapping_mul(0x0100_0000_01b3);
            Some(came.clone())
        });
        came.into_view();
    });
    (pipeline, one_slot, text)
}

fn dawn() -> DateTime<Utc> {
    "2020-03-31T12:00:00Z".parse().unwrap()
}

/// Late, duplicate, future-dated and unreadable events, and hours in which nothing happens.
fn events(seed: u64, count: u64) -> Vec<NewEvent> {
    let mut dice = Dice::new(seed);
    let mut rest = 0;
    let mut last = None;
    let mut all = Vec::new();
    for number in 0..count {
        rest += if dice.roll(60) == 0 { 3_600 } else { 0 };
        let late = match dice.roll(12) {
            0 => dice.roll(120),
            _ => dice.roll(4),
        };
        let at = dawn() + TimeDelta::milliseconds((rest + number * 2) as i64 * 1_000);
        let at = at - TimeDelta::milliseconds(late as i64 * 1_000 + dice.roll(3) as i64);
        let key = ["a", "b", "c", "d"][dice.roll(4) as usize].to_owned();
        let number = dice.roll(90) as i64;
        let new = match dice.roll(8) {
            0..=3 => NewEvent::of(&ThingEvent::Left { key, number }),
            4..=6 => NewEvent::of(&ThingEvent::Right { key, number }),
            _ => {
                let number = (number % 5 != 0).then_some(number);
                NewEvent::of(&RowEvent::Set { key, number })
            }
        };
        let mut new = new.unwrap();
        new.occurred_at = at;
        match dice.roll(30) {
            0 => {
                new = NewEvent::json("thing.left", b"{\"number\":true}".as_slice());
                new.occurred_at = at;
            }
            1 if new.event_type.starts_with("thing") => {
                new.occurred_at = dawn() + TimeDelta::days(365 * 79);
            }
            2..=7 => new = last.clone().unwrap_or(new),
            _ => {}
        }
        last = Some(new.clone());
        all.push(new);
    }
    all
}

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
async fn picture(seed: u64, location: &Location, options: Options, breaks: bool) -> Picture {
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
        .with(chain(seed).0.options(options))
        .caught_up()
        .start()
        .await
        .unwrap();
    if breaks {
        append(&*inner, "one", first.to_vec()).await;
        caught_up(&db, NAME).await;
    }
    let quiet = dawn() + TimeDelta::milliseconds(210_001);
    let quiet = Time::from_micros(quiet.timestamp_micros());
    db.advance_clock(quiet).await.unwrap();
    append(&*inner, "two", second.to_vec()).await;
    caught_up(&db, NAME).await;
    let picture = Picture::of(&*inner, NAME).await;
    db.stop().await;
    picture.without_moments()
}

/// How many rows the chain of a seed writes, once it was the same in all ways.
async fn check(seed: u64) -> usize {
    let (_, one_slot, text) = chain(seed);
    let memory = || Location::Memory(MemoryStore::new());
    let slots = |slots| if one_slot { 1 } else { slots };
    let base = picture(seed, &memory(), options(1, 20_000), false).await;
    let mut others = vec![
        (memory(), options(slots(2), 1), false),
        (memory(), options(slots(5), 7), true),
    ];
    if seed.is_multiple_of(4) {
        let file = || Location::File(TempDir::new().unwrap());
        others.push((file(), options(slots(3), 7), true));
        others.push((file(), options(1, 8_192), false));
    }
    if seed.is_multiple_of(16) {
        others.push((memory(), options(slots(256), 20_000), false));
    }
    for (location, options, breaks) in others {
        let said = format!("{text}, {options:?}, breaks: {breaks}");
        let other = picture(seed, &location, options, breaks).await;
        assert_eq!(other, base, "{said}");
    }
    let rows = base.rows.iter();
    rows.filter(|(key, _)| key.starts_with("came")).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chains_are_a_function_of_the_log() {
    let mut came = 0;
    let seeds: Vec<u64> = (0..rounds(KINDS, 600)).collect();
    // A few at once: most of the time goes by in waiting.
    for seeds in seeds.chunks(8) {
        let mut running: JoinSet<usize> = seeds.iter().copied().map(check).collect();
        while let Some(rows) = running.join_next().await {
            came += rows.unwrap();
        }
    }
    assert!(came > 40, "{came} rows of all chains");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_of_a_chain_gives_what_is_there() {
    for seed in 0..rounds(8, 60) {
        let (pipeline, _, text) = chain(seed * 7 + 3);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let db = Annals::on(store.clone())
            .with(pipeline.options(options(1, 13)))
            .start()
            .await
            .unwrap();
        for (number, part) in events(seed, 160).chunks(40).enumerate() {
            append(&*store, &number.to_string(), part.to_vec()).await;
            caught_up(&db, NAME).await;
        }
        let live = Picture::of(&*store, NAME).await;
        rebuild(&db, NAME).await;
        assert_eq!(Picture::of(&*store, NAME).await, live, "{text}");
        db.stop().await;
    }
}
