//! Joins beside plain models, shuffled and restarted.

use super::{support::Run, windows::arriving};
use annals_streams::{
    Aligned, AsOfJoin, AsOfOptions, Count, ForeignKeyJoin, GroupBy, IntervalJoin, JoinType, Newer,
    Side, Span, TableJoin, WindowJoin, Within,
};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Side, key, time, number.
type Record = (bool, u8, i64, u32);
type Pair = (Option<u32>, Option<u32>);
type Outcome = (Vec<(i64, u8, Pair)>, Vec<u32>);

fn records() -> impl Strategy<Value = Vec<Record>> {
    let record = (any::<bool>(), 0..2_u8, -20..40_i64);
    prop::collection::vec(record, 1..25).prop_map(|records| {
        let numbered = records.into_iter().enumerate();
        numbered
            .map(|(number, (left, key, time))| (left, key, time, number as u32))
            .collect()
    })
}

fn types() -> impl Strategy<Value = JoinType> {
    prop_oneof![
        Just(JoinType::Inner),
        Just(JoinType::Left),
        Just(JoinType::Outer)
    ]
}

fn item(record: &Record) -> Side<(u8, u32), (u8, u32)> {
    let (is_left, key, _, number) = *record;
    if is_left {
        Side::Left((key, number))
    } else {
        Side::Right((key, number))
    }
}

fn number(late: Side<(u8, u32), (u8, u32)>) -> u32 {
    match late {
        Side::Left((_, number)) | Side::Right((_, number)) => number,
    }
}

fn pair(left: Option<&u32>, right: Option<&u32>) -> Pair {
    (left.copied(), right.copied())
}

fn interval(
    join: JoinType,
    bounds: (i64, i64),
    records: &[Record],
    delay: i64,
    restart: bool,
) -> Outcome {
    let within = Within::between(Span::from_micros(bounds.0), Span::from_micros(bounds.1));
    let mut run = Run::new(move || IntervalJoin::new(join, within, pair)).restarting(restart);
    let mut max = i64::MIN;
    for record in records {
        max = max.max(record.2);
        run.put_at(max - delay - 1, record.2, &item(record));
    }
    run.advance(i64::MAX);
    let rows = run.out.rows.into_iter();
    let rows = rows
        .map(|row| (row.time.micros(), row.item.0, row.item.1))
        .collect();
    (
        rows,
        run.out
            .late
            .into_iter()
            .map(|row| number(row.item))
            .collect(),
    )
}

/// Looks through all rows that ever came; a row that is closed is not there any more.
fn interval_model(
    join: JoinType,
    (before, after): (i64, i64),
    records: &[Record],
    delay: i64,
) -> Outcome {
    let last = |record: &Record| {
        record.2
            + if record.0 {
                after.max(0)
            } else {
                before.max(0)
            }
    };
    let mut rows = Vec::new();
    let mut late = Vec::new();
    let mut held: Vec<(Record, bool)> = Vec::new();
    let mut watermark = i64::MIN;
    let close = |held: &mut Vec<(Record, bool)>, watermark, rows: &mut Vec<_>| {
        let is_closed = |entry: &(Record, bool)| watermark >= last(&entry.0);
        let mut closed: Vec<_> = held
            .iter()
            .filter(|entry| is_closed(entry))
            .copied()
            .collect();
        held.retain(|entry| !is_closed(entry));
        closed.sort_by_key(|((is_left, key, time, number), _)| (*time, *is_left, *key, *number));
        for ((is_left, key, time, number), matched) in closed {
            let kept = if is_left {
                join.keeps_left()
            } else {
                join.keeps_right()
            };
            if kept && !matched {
                let alone = if is_left {
                    (Some(number), None)
                } else {
                    (None, Some(number))
                };
                rows.push((time, key, alone));
            }
        }
    };
    let mut max = i64::MIN;
    for record in records {
        max = max.max(record.2);
        watermark = watermark.max(max - delay - 1);
        close(&mut held, watermark, &mut rows);
        let (is_left, key, time, number) = *record;
        let mut matched = false;
        held.sort_by_key(|((_, _, time, number), _)| (*time, *number));
        for ((other_left, other_key, other_time, other), other_matched) in &mut held {
            let apart = if is_left {
                *other_time - time
            } else {
                time - *other_time
            };
            if is_left != *other_left && key == *other_key && -before <= apart && apart <= after {
                matched = true;
                *other_matched = true;
                let both = (Some(number), Some(*other));
                let both = if is_left { both } else { (both.1, both.0) };
                rows.push((time.max(*other_time), key, both));
            }
        }
        if watermark >= last(record) {
            if !matched {
                late.push(number);
            }
        } else {
            held.push((*record, matched));
        }
    }
    close(&mut held, i64::MAX, &mut rows);
    (rows, late)
}

type WindowRow = (i64, (i64, u8), (u32, u32));

fn window_join(
    aligned: Aligned,
    lateness: i64,
    records: &[Record],
    delay: i64,
    restart: bool,
) -> (Vec<WindowRow>, Vec<u32>) {
    let row = |left: &u32, right: &u32| (*left, *right);
    let lateness = Span::from_micros(lateness);
    let make = move || WindowJoin::new(aligned, lateness, row);
    let mut run = Run::new(make).restarting(restart);
    let mut max = i64::MIN;
    for record in records {
        max = max.max(record.2);
        run.put_at(max - delay - 1, record.2, &item(record));
    }
    run.advance(i64::MAX);
    let rows = run.out.rows.into_iter().map(|row| {
        let (key, (window, both)) = row.item;
        (row.time.micros(), (window.start.micros(), key), both)
    });
    (
        rows.collect(),
        run.out
            .late
            .into_iter()
            .map(|row| number(row.item))
            .collect(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn interval_joins_equal_their_model(
        join in types(), before in -5..10_i64, after in -5..10_i64,
        records in records(), delay in 0..20_i64,
    ) {
        let bounds = (before, after);
        let real = interval(join, bounds, &records, delay, false);
        prop_assert_eq!(real, interval_model(join, bounds, &records, delay));
    }

    #[test]
    fn no_joined_row_contradicts_another(
        before in 0..10_i64, after in 0..10_i64, records in records(), delay in 0..20_i64,
    ) {
        let (rows, _) = interval(JoinType::Outer, (before, after), &records, delay, false);
        for (_, _, (left, right)) in &rows {
            let alone = left.is_none() || right.is_none();
            let same = |other: &&(i64, u8, Pair)| match (left, right) {
                (Some(left), None) => other.2.0 == Some(*left),
                (None, right) => other.2.1 == *right,
                _ => false,
            };
            prop_assert!(!alone || rows.iter().filter(same).count() == 1);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn restarts_of_joins_change_nothing(
        join in types(), before in -5..10_i64, after in -5..10_i64,
        size in 1..15_i64, slide in 1..10_i64, lateness in 0..10_i64,
        records in records(), delay in 0..20_i64,
    ) {
        let bounds = (before, after);
        let undisturbed = interval(join, bounds, &records, delay, false);
        prop_assert_eq!(interval(join, bounds, &records, delay, true), undisturbed);
        let aligned = Aligned::hopping(Span::from_micros(size), Span::from_micros(slide)).unwrap();
        let undisturbed = window_join(aligned, lateness, &records, delay, false);
        prop_assert_eq!(
            window_join(aligned, lateness, &records, delay, true),
            undisturbed
        );
    }

    #[test]
    fn shuffles_within_the_bound_give_the_same_joined_rows(
        before in 0..10_i64, after in 0..10_i64, size in 1..15_i64, slide in 1..10_i64,
        records in records(), delay in 0..20_i64, seed in any::<u64>(),
    ) {
        let aligned = Aligned::hopping(Span::from_micros(size), Span::from_micros(slide)).unwrap();
        let mut sorted = records.clone();
        sorted.sort_by_key(|record| record.2);
        let run = |records: &[Record]| {
            let (mut rows, late) =
                interval(JoinType::Outer, (before, after), records, delay, false);
            let (mut pairs, refused) = window_join(aligned, 0, records, delay, false);
            rows.sort();
            pairs.sort();
            (rows, late, pairs, refused)
        };
        let base = run(&sorted);
        prop_assert!(base.1.is_empty() && base.3.is_empty());
        for round in 0..12 {
            let shuffled = arriving(&records, |record| record.2, delay, seed.wrapping_add(round));
            prop_assert_eq!(&run(&shuffled), &base);
        }
    }

    #[test]
    fn window_joins_pair_what_lies_in_one_window(
        size in 1..15_i64, slide in 1..10_i64, records in records(), lateness in 0..10_i64,
        delay in 0..20_i64,
    ) {
        let aligned = Aligned::hopping(Span::from_micros(size), Span::from_micros(slide)).unwrap();
        let (mut rows, late) = window_join(aligned, lateness, &records, delay, false);
        let mut want = Vec::new();
        let mut refused = Vec::new();
        let mut taken: Vec<(Record, i64)> = Vec::new();
        let mut watermark = i64::MIN;
        for record in &records {
            watermark = watermark.max(record.2 - delay - 1);
            let starts = (record.2 - size + 1..=record.2).filter(|s| s.rem_euclid(slide) == 0);
            let starts: Vec<i64> = starts.collect();
            let open = |start: &&i64| watermark < **start + size - 1 + lateness;
            if !starts.is_empty() && starts.iter().filter(open).count() == 0 {
                refused.push(record.3);
            }
            taken.extend(starts.iter().filter(open).map(|start| (*record, *start)));
        }
        for (left, start) in taken.iter().filter(|(record, _)| record.0) {
            for (right, other) in taken.iter().filter(|(record, _)| !record.0) {
                if start == other && left.1 == right.1 {
                    want.push((start + size - 1, (*start, left.1), (left.3, right.3)));
                }
            }
        }
        rows.sort();
        want.sort();
        prop_assert_eq!(rows, want);
        prop_assert_eq!(late, refused);
    }

    #[test]
    fn items_meet_the_version_of_their_own_time(
        records in records(), delay in 0..20_i64, lateness in 0..10_i64, restart in any::<bool>(),
    ) {
        let options = AsOfOptions::as_of().allow_late(Span::from_micros(lateness));
        let make = move || AsOfJoin::new(JoinType::Left, options, pair);
        let mut run = Run::new(make).restarting(restart);
        let mut versions: Vec<(u8, i64, usize, Option<u32>)> = Vec::new();
        let mut waiting: Vec<Record> = Vec::new();
        let mut want: Vec<(i64, u8, Pair)> = Vec::new();
        let mut late = Vec::new();
        let mut watermark = i64::MIN;
        let answer = |versions: &[(u8, i64, usize, Option<u32>)], item: &Record| {
            let known = versions.iter().filter(|v| v.0 == item.1 && v.1 <= item.2);
            let value = known.max_by_key(|v| (v.1, v.2)).and_then(|v| v.3);
            (item.2, item.1, (Some(item.3), value))
        };
        let release = |waiting: &mut Vec<Record>, watermark, versions: &[_], want: &mut Vec<_>| {
            let mut due: Vec<_> = waiting
                .iter()
                .filter(|w| w.2 <= watermark)
                .copied()
                .collect();
            waiting.retain(|w| w.2 > watermark);
            due.sort_by_key(|w| (w.2, w.3));
            want.extend(due.iter().map(|item| answer(versions, item)));
        };
        for (arrival, record) in records.iter().enumerate() {
            let (is_item, key, time, number) = *record;
            let now = watermark.max(time - delay - 1);
            if is_item {
                watermark = now;
                release(&mut waiting, watermark, &versions, &mut want);
                run.put_at(watermark, time, &Side::Left((key, number)));
                if time > watermark {
                    waiting.push(*record);
                } else if watermark >= time + lateness {
                    late.push(number);
                } else {
                    want.push(answer(&versions, record));
                }
            } else if time > now {
                watermark = now;
                release(&mut waiting, watermark, &versions, &mut want);
                // Each third change of the table deletes.
                let value = (number % 3 != 0).then_some(number);
                versions.push((key, time, arrival, value));
                run.put_at(watermark, time, &Side::Right((key, value)));
            }
        }
        release(&mut waiting, i64::MAX, &versions, &mut want);
        run.advance(i64::MAX);
        let rows = run.out.rows.into_iter();
        let rows: Vec<_> = rows
            .map(|row| (row.time.micros(), row.item.0, row.item.1))
            .collect();
        prop_assert_eq!(rows, want);
        let refused: Vec<u32> = run.out.late.into_iter().map(|row| row.item.1).collect();
        prop_assert_eq!(refused, late);
    }

    #[test]
    fn changes_of_joined_tables_add_up_to_the_join(
        join in types(), records in records(), seed in any::<u64>(), restart in any::<bool>(),
    ) {
        let mut left: BTreeMap<u8, (i64, Option<u32>)> = BTreeMap::new();
        let mut right: BTreeMap<u8, (i64, Option<u32>)> = BTreeMap::new();
        let make = move || TableJoin::new(join, Newer::ByTime, pair);
        let mut run = Run::new(make).restarting(restart);
        let refers_to = |left: &u32| Some((left % 2) as u8);
        let make = move || ForeignKeyJoin::new(join, Newer::ByTime, refers_to, pair);
        let mut by_reference = Run::new(make).restarting(restart);
        for (is_left, key, time, number) in &records {
            let deletes = (u64::from(*number) ^ seed).is_multiple_of(4);
            let value = (!deletes).then_some(*number);
            let table = if *is_left { &mut left } else { &mut right };
            let row = table.entry(*key).or_insert((i64::MIN, None));
            if *time >= row.0 {
                *row = (*time, value);
            }
            let change = (*key, value);
            let change = if *is_left {
                Side::Left(change)
            } else {
                Side::Right(change)
            };
            run.put(*time, &change);
            by_reference.put(*time, &change);
        }
        let of = |table: &BTreeMap<u8, (i64, Option<u32>)>, key: u8| {
            table.get(&key).and_then(|row| row.1)
        };
        let mut table: BTreeMap<u8, Pair> = BTreeMap::new();
        for row in run.out.rows {
            let was = table.remove(&row.item.key);
            prop_assert!(row.item.old.is_none() || row.item.old == was);
            table.extend(row.item.new.map(|new| (row.item.key, new)));
        }
        let mut referring: BTreeMap<u8, Pair> = BTreeMap::new();
        for row in by_reference.out.rows {
            let was = referring.remove(&row.item.key);
            prop_assert_eq!(row.item.old, was);
            referring.extend(row.item.new.map(|new| (row.item.key, new)));
        }
        for key in 0..2 {
            let both = (of(&left, key), of(&right, key));
            let exists = match join {
                JoinType::Inner => both.0.is_some() && both.1.is_some(),
                JoinType::Left => both.0.is_some(),
                JoinType::Outer => both.0.is_some() || both.1.is_some(),
            };
            prop_assert_eq!(table.get(&key), exists.then_some(&both));
            let referred = both.0.and_then(|left| of(&right, (left % 2) as u8));
            let exists = both.0.is_some() && (referred.is_some() || join.keeps_left());
            let both = (both.0, referred);
            prop_assert_eq!(referring.get(&key), exists.then_some(&both));
        }
    }

    #[test]
    fn groups_count_the_rows_that_they_have(
        records in records(), restart in any::<bool>(),
    ) {
        let make = || {
            let group = |_: &u8, value: &u32| Some(value % 3);
            GroupBy::<u8, u32, u32, Count>::new(Newer::ByTime, group)
        };
        let mut run = Run::new(make).restarting(restart);
        let mut rows: BTreeMap<u8, (i64, Option<u32>)> = BTreeMap::new();
        for (deletes, key, time, number) in &records {
            let value = (!deletes).then_some(*number);
            let row = rows.entry(*key).or_insert((i64::MIN, None));
            if *time >= row.0 {
                *row = (*time, value);
            }
            run.put(*time, &(*key, value));
        }
        let mut counts: BTreeMap<u32, u64> = BTreeMap::new();
        for row in run.out.rows {
            counts.insert(row.item.key, row.item.new.map_or(0, |count| count.0));
        }
        for group in 0..3 {
            let has = rows
                .values()
                .filter(|row| row.1.is_some_and(|value| value % 3 == group));
            prop_assert_eq!(counts.get(&group).copied().unwrap_or(0), has.count() as u64);
        }
    }
}

/// Shuffles anything, by a generator that follows from the seed.
fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for end in (1..items.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        items.swap(end, (state >> 16) as usize % (end + 1));
    }
}

#[test]
fn ten_thousand_shuffles_with_late_data_contradict_nothing() {
    let (before, after, delay) = (6, 9, 4);
    let mut records: Vec<Record> = (0..24_u32)
        .map(|number| {
            let key = (number % 2) as u8;
            (number % 3 == 0, key, i64::from(number) * 2, number)
        })
        .collect();
    let mut late_ones = 0;
    let mut alone_ones = 0;
    for seed in 0..10_000 {
        shuffle(&mut records, seed);
        let (rows, late) = interval(JoinType::Outer, (before, after), &records, delay, false);
        let mut pairs = Vec::new();
        for (time, key, (left, right)) in &rows {
            let of = |number: Option<u32>| records.iter().find(|of| Some(of.3) == number);
            match (of(*left), of(*right)) {
                (Some(left), Some(right)) => {
                    let apart = right.2 - left.2;
                    assert!(left.1 == *key && right.1 == *key && left.0 && !right.0);
                    assert!(-before <= apart && apart <= after, "{left:?} {right:?}");
                    assert_eq!(*time, left.2.max(right.2));
                    pairs.push((left.3, right.3));
                }
                (alone, None) | (None, alone) => {
                    let alone = alone.unwrap();
                    let is_it = |of: &Option<u32>| *of == Some(alone.3);
                    let named = rows.iter().filter(|row| is_it(&row.2.0) || is_it(&row.2.1));
                    assert_eq!(named.count(), 1, "{alone:?} is alone and is not");
                    alone_ones += 1;
                }
            }
        }
        let count = pairs.len();
        pairs.sort_unstable();
        pairs.dedup();
        assert_eq!(pairs.len(), count, "a pair came out twice");
        for record in &records {
            let is_it = |of: &Option<u32>| *of == Some(record.3);
            let named = rows.iter().any(|row| is_it(&row.2.0) || is_it(&row.2.1));
            assert_ne!(named, late.contains(&record.3), "{record:?}");
        }
        late_ones += late.len();
    }
    assert!(
        late_ones > 10_000 && alone_ones > 1_000,
        "{late_ones} {alone_ones}"
    );
}
