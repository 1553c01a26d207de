//! A bounded look-up is never taken for the whole, and a bound in time is exact.

use std::ops::Bound;
use std::sync::Arc;

use super::Fixture;
use super::words::*;
use crate::append::Expected;
use crate::chrono::{DateTime, TimeDelta, Utc};
use crate::clock::ManualClock;
use crate::position::Position;
use crate::query::Filter;
use crate::read::{ReadLog, ReadStream};
use crate::store::Store;
use crate::stream_state::{ChangeStream, StreamChange};

/// More streams than any store looks at one by one.
const STREAMS: usize = 300;

/// The streams of the events that a filter finds, page after page.
async fn found(store: &dyn Store, filter: &Filter) -> Vec<String> {
    let mut found = Vec::new();
    for partition in partitions(store) {
        let mut after = Position::START;
        loop {
            let read = ReadLog::after(after).partition(partition);
            let page = store.read(read.filter(filter.clone())).await.unwrap();
            found.extend(page.events.iter().map(|event| event.stream.to_string()));
            if page.end {
                break;
            }
            after = page.scanned;
        }
    }
    found.sort();
    found
}

/// Five streams with an event, whose names sort after all the others.
async fn last_streams(store: &dyn Store) -> Vec<String> {
    let names: Vec<String> = (0..5).map(|n| format!("user-9{n:03}")).collect();
    for name in &names {
        append(store, &stream(name), events(1)).await;
    }
    names
}

pub async fn a_prefix_finds_streams_after_many_tombstones(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    for n in 0..STREAMS {
        let name = stream(format!("user-{n:04}"));
        store
            .change_stream(ChangeStream::new(&name, StreamChange::Tombstone))
            .await
            .unwrap();
    }
    let expected = last_streams(&*store).await;
    let filter = Filter::default().stream_prefix("user-");
    assert_eq!(found(&*store, &filter).await, expected);
}

pub async fn a_prefix_finds_streams_after_many_refused_appends(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let taken = events(1);
    append(&*store, &stream("other-1"), taken.clone()).await;
    for n in 0..STREAMS {
        // Refused by its expectation, and by an id that another stream has.
        let name = stream(format!("user-{n:04}"));
        let refused = try_append(&*store, &name, Expected::Exists, events(1)).await;
        assert!(refused.is_err());
        if store.partitions() == 1 {
            let refused = try_append(&*store, &name, Expected::Any, taken.clone()).await;
            assert!(refused.is_err());
        }
    }
    let expected = last_streams(&*store).await;
    let filter = Filter::default().stream_prefix("user-");
    assert_eq!(found(&*store, &filter).await, expected);
}

pub async fn a_time_bound_within_a_microsecond_is_exact(fixture: &dyn Fixture) {
    let clock = Arc::new(ManualClock::default());
    let store = open_at(fixture, &clock).await;
    let name = stream("timed-1");
    let mut times = Vec::new();
    for n in 0..3 {
        clock.advance(TimeDelta::microseconds(1));
        let occurred = DateTime::UNIX_EPOCH + TimeDelta::microseconds(n);
        append(&*store, &name, [event("1").at(occurred)]).await;
    }
    let page = store.read_stream(ReadStream::of(name)).await.unwrap();
    for recorded in page.events {
        times.push((recorded.recorded_at, recorded.occurred_at));
    }
    let halves = |at: DateTime<Utc>| [-500, 0, 500].map(|ns| at + TimeDelta::nanoseconds(ns));
    let check = async |filter: Filter, expected: usize, said: &str| {
        assert_eq!(found(&*store, &filter).await.len(), expected, "{said}");
    };
    for (recorded, occurred) in &times {
        for (bound_recorded, bound_occurred) in halves(*recorded).into_iter().zip(halves(*occurred))
        {
            for (start, end) in [
                (Bound::Unbounded, Bound::Excluded(())),
                (Bound::Unbounded, Bound::Included(())),
                (Bound::Excluded(()), Bound::Unbounded),
                (Bound::Included(()), Bound::Unbounded),
            ] {
                let span = |at| (start.map(|()| at), end.map(|()| at));
                let recorded_in: (Bound<DateTime<Utc>>, Bound<DateTime<Utc>>) =
                    span(bound_recorded);
                let occurred_in = span(bound_occurred);
                let within = |span: &(Bound<DateTime<Utc>>, Bound<DateTime<Utc>>),
                              at: &DateTime<Utc>| {
                    std::ops::RangeBounds::contains(span, at)
                };
                let expected = times
                    .iter()
                    .filter(|(at, _)| within(&recorded_in, at))
                    .count();
                let said = format!("recorded in {recorded_in:?}");
                check(Filter::default().recorded(recorded_in), expected, &said).await;
                let expected = times
                    .iter()
                    .filter(|(_, at)| within(&occurred_in, at))
                    .count();
                let said = format!("occurred in {occurred_in:?}");
                check(Filter::default().occurred(occurred_in), expected, &said).await;
            }
        }
    }
}
