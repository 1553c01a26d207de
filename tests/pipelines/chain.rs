//! Pipelines of two and three stages of every kind, drawn at random, and the logs that they read.

use std::time::Duration;

use annals::pipeline::{Count, Keyed, Log, Pattern, Pipeline, Stream, Sum, Table, Within};
use annals::prelude::*;
use annals::projections::Program;
use annals::store::{NewEvent, ReadLog};
use annals::{EventId, Partition, Store};
use annals_core::conformance::Dice;
use chrono::{DateTime, TimeDelta, Utc};

pub(crate) const NAME: &str = "chain";
pub(crate) const KINDS: u64 = 24;
const KINDS_IN_SLOTS: u64 = 20;
/// Those whose results are a set that does not depend on the order of partitions.
const KINDS_WITHOUT_ORDER: [u64; 11] = [1, 3, 4, 5, 6, 11, 12, 13, 14, 15, 18];

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

/// What is sent of each that came.
#[derive(Clone, Debug, PartialEq, Event, Serialize, Deserialize)]
#[event(category = "outcome")]
enum OutcomeEvent {
    Came {
        key: String,
        number: i64,
        count: u64,
    },
}

/// What came, in any order.
#[derive(Clone, Debug, Default, Serialize, Deserialize, View)]
#[view(name = "came-at-all", key = String)]
struct CameAtAll {
    count: u64,
    sum: i64,
    squares: i64,
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

fn world(log: &Log, dice: &mut Dice, by_view: bool) -> World {
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
            0 if by_view => log.table::<Thing>().map(|_, thing| thing.number),
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
        1 => items.in_time_order().results(),
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
        11 => items
            .join(right, Within::around(seconds(10)), both)
            .results(),
        12 => {
            let row = move |left: &i64, right: Option<&i64>| sum(Some(left), right);
            let after = Within::after(seconds(10));
            items.left_join(right, after, row).results()
        }
        13 => {
            let within = Within::between(seconds(3), seconds(9));
            items.outer_join(right, within, sum).results()
        }
        14 => {
            let windows = items.tumbling(seconds(20)).allow_late(late);
            let pairs = windows.join(&right.tumbling(seconds(20)).allow_late(late), both);
            pairs.map(|_, pair| pair.value)
        }
        15 => {
            let known = items.look_up(table, move |item, row| sum(Some(item), row));
            known.merge(&known.late())
        }
        16 => items.look_up_latest(table, move |item, row| sum(Some(item), row)),
        17 => {
            let rows = items.table(|number| (number % 5 != 0).then_some(*number));
            let rows = rows.outer_join(table, sum).filter(|number| number % 2 == 0);
            let changes = rows.changes();
            changes.map(|_, change| change.new.unwrap_or(-1) * 2 - change.old.unwrap_or(-1))
        }
        18 => items.merge(right).filter(|number| number % 4 != 0),
        19 => items.join(items, Within::after(seconds(3)), both).results(),
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
            let known = items.look_up(&rows, move |item, row| sum(Some(item), row));
            known.results()
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
            turned.in_time_order().results()
        }
    }
}

/// A pipeline that was drawn.
pub(crate) struct Chain {
    pub(crate) pipeline: Pipeline,
    /// Whether it needs all keys in one slot.
    pub(crate) one_slot: bool,
    pub(crate) text: String,
}

/// The pipeline of a seed: its results in the order of the log, as rows and as events.
pub(crate) fn chain(seed: u64) -> Chain {
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
        let world = world(log, &mut dice, true);
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
        let sent = came.append(|key, came| {
            let event = OutcomeEvent::Came {
                key: key.clone(),
                number: came.last,
                count: came.count,
            };
            (format!("outcome-{key}"), event)
        });
        sent.from_the_beginning();
    });
    Chain {
        pipeline,
        one_slot,
        text,
    }
}

/// The pipeline of a seed whose results are the same on several partitions, however these come
/// together, as long as nothing is late.
pub(crate) fn chain_without_order(seed: u64) -> Chain {
    let mut dice = Dice::new(seed);
    let length = 2 + dice.roll(2);
    let drawn =
        |dice: &mut Dice| KINDS_WITHOUT_ORDER[dice.roll(KINDS_WITHOUT_ORDER.len() as u64) as usize];
    // A pattern among items of the log sees them in the order of time.
    let mut kinds = vec![match seed % 3 {
        0 => 9 + dice.roll(2),
        _ => KINDS_WITHOUT_ORDER[(seed / 3) as usize % KINDS_WITHOUT_ORDER.len()],
    }];
    kinds.extend((1..length).map(|_| drawn(&mut dice)));
    let text = format!("seed {seed}: stages {kinds:?}");
    let pipeline = Pipeline::new(NAME, 1, |log| {
        let world = world(log, &mut dice, false);
        let mut items = world.left.clone();
        for kind in kinds {
            items = stage(kind, &mut dice, &items, &world);
        }
        let came = items.scan(Duration::MAX, |came: &mut CameAtAll, number| {
            came.count += 1;
            came.sum += number;
            came.squares = came.squares.wrapping_add(number.wrapping_mul(*number));
            Some(came.clone())
        });
        came.into_view();
        let sent = items.append(|key, number| {
            let event = OutcomeEvent::Came {
                key: key.clone(),
                number: *number,
                count: 0,
            };
            (format!("outcome-{key}"), event)
        });
        sent.from_the_beginning();
    });
    Chain {
        pipeline,
        one_slot: false,
        text,
    }
}

/// What was sent, in the order of the log: the stream, the event with its time, its id, its cause.
pub(crate) async fn outcomes(store: &dyn Store) -> Vec<(String, String, EventId, Option<EventId>)> {
    let mut found = Vec::new();
    for partition in (0..store.partitions()).map(Partition) {
        let mut read = ReadLog::after(Position::START).partition(partition);
        loop {
            let page = store.read(read.clone()).await.unwrap();
            let ours = page.events.iter();
            let ours = ours.filter(|of| of.stream.category() == "outcome");
            found.extend(ours.map(|of| {
                let payload = String::from_utf8_lossy(&of.payload);
                let event = format!("{} {payload}", of.occurred_at);
                (of.stream.to_string(), event, of.id, of.metadata.causation)
            }));
            if page.end {
                break;
            }
            read.after = page.scanned;
        }
    }
    found
}

/// Waits until everything in the log was seen, and everything was sent of it.
pub(crate) async fn sent(db: &Program) {
    let store = db.store();
    let mut token = Token::new(store.id());
    for partition in (0..store.partitions()).map(Partition) {
        let head = store.head(partition).await.unwrap().visible;
        token = token.with(partition, head);
    }
    let chain = db.pipeline(NAME).unwrap();
    let wait = Duration::from_secs(60);
    chain.wait_until_sent(token, wait).await.unwrap();
}

pub(crate) fn dawn() -> DateTime<Utc> {
    "2020-03-31T12:00:00Z".parse().unwrap()
}

/// Late, duplicate, future-dated and unreadable events, and hours in which nothing happens.
pub(crate) fn events(seed: u64, count: u64) -> Vec<NewEvent> {
    drawn(&mut Dice::new(seed), count, true)
}

/// The same, of which none is late.
pub(crate) fn events_on_time(seed: u64, count: u64) -> Vec<NewEvent> {
    drawn(&mut Dice::new(seed), count, false)
}

fn drawn(dice: &mut Dice, count: u64, late: bool) -> Vec<NewEvent> {
    let mut rest = 0;
    let mut last = None;
    let mut all = Vec::new();
    for number in 0..count {
        rest += if dice.roll(60) == 0 { 3_600 } else { 0 };
        let lag = match dice.roll(12) {
            0 if late => dice.roll(120),
            _ => dice.roll(4),
        };
        let at = dawn() + TimeDelta::milliseconds((rest + number * 2) as i64 * 1_000);
        // No two happen at once.
        let at = at + TimeDelta::microseconds(number as i64);
        let at = at - TimeDelta::milliseconds(lag as i64 * 1_000 + dice.roll(3) as i64);
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
            2..=7 if late => new = last.clone().unwrap_or(new),
            _ => {}
        }
        last = Some(new.clone());
        all.push(new);
    }
    all
}
