//! What is appended comes back: bytes, times, and after reopening.

use std::sync::Arc;

use uuid::Uuid;

use crate::chrono::{DateTime, TimeDelta, Utc};
use crate::clock::{Clock, ManualClock};
use crate::conformance::words::*;
use crate::conformance::{Dice, Fixture};
use crate::event::{EventId, Metadata, NewEvent};
use crate::read::ReadStream;
use crate::stream::StreamId;
use crate::stream_state::{ChangeStream, StreamChange};

pub async fn gives_back_every_byte(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let mut dice = Dice::new(7);
    let noise: Vec<u8> = (0..1 << 20).map(|_| dice.roll(256) as u8).collect();
    let keys = Metadata::default()
        .correlation(Uuid::from_u128(u128::MAX))
        .causation(EventId::random())
        .actor("Zoë \"the\" actor\\")
        .tenant("nord")
        .key("", "an empty key")
        .key("schlüssel", "wert\u{0}\n\u{10ffff}");
    let given = vec![
        event(vec![]),
        event(vec![0]),
        event((0..=255).collect::<Vec<u8>>()),
        event(b"\xff\xfe\xc3\x28 not UTF-8".to_vec()),
        event(b"{ \"b\" : 1.0, \"a\" : 12345678901234567890123, \"a\": 1e400 }\n".to_vec()),
        event(noise),
        NewEvent::new("Größe.geändert '\"\\%_`", "application/x.my-codec+v2", "1")
            .schema_version(u32::MAX),
        event("1")
            .tag(tag("b:2"))
            .tag(tag("a:ä'\"%_\\"))
            .tag(tag("b:1"))
            .tag(tag("b:2"))
            .tag(tag("url:http://x")),
        event("1").metadata(keys),
        event(i64::MIN.to_string()),
    ];
    let to = stream("bytes-1");
    let appended = append(&*store, &to, given.clone()).await;
    assert_recorded(&appended, &given, &whole_stream(&*store, &to).await);
    let partition = store.partition_of(&to);
    assert_recorded(&appended, &given, &whole_log(&*store, partition).await);
    let store = reopen(fixture, store).await;
    assert_recorded(&appended, &given, &whole_stream(&*store, &to).await);
    assert_recorded(&appended, &given, &whole_log(&*store, partition).await);
}

pub async fn keeps_the_event_time_to_the_microsecond(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let moments = [
        "1970-01-01T00:00:00Z",
        "1969-12-31T23:59:59.999999Z",
        "1969-12-31T23:59:59.000001Z",
        "1582-10-04T12:00:00.123456Z",
        "0001-01-01T00:00:00Z",
        "2026-03-31T12:00:00.000001Z",
        "9999-12-31T23:59:59.999999Z",
    ];
    let given: Vec<NewEvent> = moments
        .iter()
        .map(|moment| event("1").at(moment.parse().unwrap()))
        .collect();
    let to = stream("times-1");
    append(&*store, &to, given).await;
    let found: Vec<DateTime<Utc>> = whole_stream(&*store, &to)
        .await
        .iter()
        .map(|event| event.occurred_at)
        .collect();
    assert_eq!(
        found,
        moments.map(|moment| moment.parse::<DateTime<Utc>>().unwrap())
    );
    // What is finer than a microsecond is cut, towards the past, also when the caller did not.
    let mut fine = event("1");
    fine.occurred_at = DateTime::from_timestamp_nanos(-1_500);
    append(&*store, &to, [fine]).await;
    let cut = read_stream(&*store, ReadStream::of(to).backward().limit(1)).await[0].occurred_at;
    assert_eq!(cut.timestamp_nanos_opt(), Some(-2_000));
}

pub async fn is_recorded_at_the_time_of_the_clock(fixture: &dyn Fixture) {
    let clock = Arc::new(ManualClock::at(
        "2026-03-31T12:00:00.123456Z".parse().unwrap(),
    ));
    let store = open_at(fixture, &clock).await;
    for partition in partitions(&*store) {
        let to = stream_in(&*store, partition, "told");
        append(&*store, &to, events(2)).await;
        let first = clock.now();
        clock.advance(TimeDelta::microseconds(1));
        append(&*store, &to, events(1)).await;
        let found: Vec<_> = whole_stream(&*store, &to)
            .await
            .iter()
            .map(|event| event.recorded_at)
            .collect();
        assert_eq!(found, [first, first, clock.now()]);
        let state = store
            .change_stream(ChangeStream::new(&to, StreamChange::Delete))
            .await
            .unwrap();
        assert_eq!(state.deletions[0].recorded_at, clock.now());
    }
}

pub async fn records_no_earlier_time_when_the_clock_goes_back(fixture: &dyn Fixture) {
    let noon: DateTime<Utc> = "2026-03-31T12:00:00Z".parse().unwrap();
    let clock = Arc::new(ManualClock::at(noon));
    let mut store = open_at(fixture, &clock).await;
    let names: Vec<(StreamId, StreamId)> = partitions(&*store)
        .map(|partition| {
            (
                stream_in(&*store, partition, "flows"),
                stream_in(&*store, partition, "gone"),
            )
        })
        .collect();
    for (hours, reopened) in [
        (0, false),
        (-1, false),
        (-2, true),
        (1, false),
        (-9, true),
        (2, true),
    ] {
        clock.set(noon + TimeDelta::hours(hours));
        if reopened {
            drop(store);
            store = open_at(fixture, &clock).await;
        }
        for (to, gone) in &names {
            append(&*store, to, events(2)).await;
            append(&*store, gone, events(1)).await;
            store
                .change_stream(ChangeStream::new(gone, StreamChange::Delete))
                .await
                .unwrap();
        }
    }
    for (partition, (to, gone)) in partitions(&*store).zip(&names) {
        let all = whole_log(&*store, partition).await;
        let times: Vec<_> = all.iter().map(|event| event.recorded_at).collect();
        assert!(times.is_sorted(), "recorded times go backwards: {times:?}");
        let latest = (times.first().copied(), times.last().copied());
        assert_eq!(
            latest,
            (Some(noon), Some(noon + TimeDelta::hours(2))),
            "a time runs on with the clock"
        );
        // A deletion is recorded after the events before it, and before those after it.
        for deletion in store.stream_state(gone).await.unwrap().deletions {
            let (before, later) = all.split_at(deletion.position.get() as usize);
            assert!(
                before
                    .iter()
                    .all(|event| event.recorded_at <= deletion.recorded_at)
            );
            assert!(
                later
                    .iter()
                    .all(|event| event.recorded_at >= deletion.recorded_at)
            );
        }
        assert!(shown(&*store, gone).await.is_empty());
        assert_eq!(shown(&*store, to).await.len(), 12);
    }
}

pub async fn survives_reopening(fixture: &dyn Fixture) {
    let mut store = open(fixture).await;
    let log = store.id();
    let partitions_then = store.partitions();
    let names: Vec<StreamId> = partitions(&*store)
        .map(|partition| stream_in(&*store, partition, "kept"))
        .collect();
    for round in 0..3 {
        for to in &names {
            let appended = try_append(&*store, to, version(round * 2), events(2))
                .await
                .unwrap();
            assert_eq!(
                appended.last().position.get(),
                round * 2 + 2,
                "positions go on"
            );
        }
        store = reopen(fixture, store).await;
        assert_eq!((store.id(), store.partitions()), (log, partitions_then));
        for to in &names {
            let expected: Vec<u64> = (1..=round * 2 + 2).collect();
            assert_eq!(shown(&*store, to).await, expected);
            assert_eq!(
                positions(&whole_log(&*store, store.partition_of(to)).await),
                expected
            );
        }
    }
}
