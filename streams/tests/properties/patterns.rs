//! Patterns, order, deduplication, scans, suppression and tops beside plain models.

use super::{
    support::{Json, Run, snapshot},
    windows::arriving,
};
use annals_streams::{
    Aligned, AlignedWindows, AtMostEvery, Collect, Detect, DistinctBy, Emission, InTimeOrder, Kind,
    Pattern, Scan, Skip, Span, State, Time, TopOfWindow, UntilClosed, Window, WindowOptions,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Key, time, letter, number.
type Event = (u8, i64, char, u32);

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = (
        0..2_u8,
        -20..40_i64,
        prop_oneof![Just('a'), Just('b'), Just('c')],
    );
    prop::collection::vec(event, 1..20).prop_map(|events| {
        let numbered = events.into_iter().enumerate();
        numbered
            .map(|(number, (key, time, letter))| (key, time, letter, number as u32))
            .collect()
    })
}

fn is(letter: char) -> impl Fn(&(char, u32)) -> bool + Send + Sync {
    move |event| event.0 == letter
}

fn then(letter: char) -> impl Fn(&[(char, u32)], &(char, u32)) -> bool + Send + Sync {
    move |_, event| event.0 == letter
}

type Found = Vec<(i64, i64, u8, Vec<u32>)>;

fn detect(
    pattern: fn(i64) -> Pattern<(char, u32)>,
    within: i64,
    events: &[Event],
    delay: i64,
    restart: bool,
) -> (Found, usize) {
    let make = move || Detect::<u8, (char, u32)>::new(pattern(within)).unwrap();
    let mut run = Run::new(make).restarting(restart);
    let mut max = i64::MIN;
    for (key, time, letter, number) in events {
        max = max.max(*time);
        run.put_at(max - delay - 1, *time, &(*key, (*letter, *number)));
    }
    run.advance(i64::MAX);
    let found = run.out.rows.into_iter().map(|row| {
        let numbers = row.item.1.items.iter().map(|event| event.1).collect();
        (
            row.time.micros(),
            row.item.1.first.micros(),
            row.item.0,
            numbers,
        )
    });
    (found.collect(), run.out.late.len())
}

/// The events of a key in time order, those that are not late.
fn on_time(events: &[Event], delay: i64) -> BTreeMap<u8, Vec<Event>> {
    let mut max = i64::MIN;
    let mut keys: BTreeMap<u8, Vec<Event>> = BTreeMap::new();
    for event in events {
        max = max.max(event.1);
        if event.1 > max - delay - 1 {
            keys.entry(event.0).or_default().push(*event);
        }
    }
    keys.values_mut()
        .for_each(|events| events.sort_by_key(|event| (event.1, event.3)));
    keys
}

fn a_then_b(within: i64) -> Pattern<(char, u32)> {
    Pattern::first(is('a'))
        .then(then('b'))
        .within(Span::from_micros(within))
}

fn any_a_then_b(within: i64) -> Pattern<(char, u32)> {
    a_then_b(within).skipping(Skip::ToAny)
}

fn a_without_b(within: i64) -> Pattern<(char, u32)> {
    Pattern::first(is('a'))
        .never(then('b'))
        .within(Span::from_micros(within))
}

fn three(within: i64) -> Pattern<(char, u32)> {
    Pattern::times(3, |_| true).within(Span::from_micros(within))
}

fn a_no_c_then_b(within: i64) -> Pattern<(char, u32)> {
    let pattern = Pattern::first(is('a')).never(then('c')).then(then('b'));
    pattern.within(Span::from_micros(within))
}

#[test]
fn a_pattern_of_one_step_matches_each_item() {
    let each = |within| Pattern::times(1, |_| true).within(Span::from_micros(within));
    let (found, _) = detect(each, 10, &[(0, 1, 'a', 0), (0, 2, 'a', 1)], 0, true);
    assert_eq!(found, [(1, 1, 0, vec![0]), (2, 2, 0, vec![1])]);
}

#[test]
fn state_of_a_longer_pattern_is_refused() {
    let begun = |pattern: fn(i64) -> Pattern<(char, u32)>| {
        Run::new(move || Detect::<u8, (char, u32)>::new(pattern(10)).unwrap())
    };
    let mut longer = begun(three);
    for number in [0, 1] {
        longer.put_at(1, 2, &(0, ('a', number)));
    }
    longer.advance(3);
    let saved = snapshot(&longer.operator);
    let mut shorter = begun(a_then_b).operator;
    let restored = saved.iter().try_for_each(|(address, value)| {
        let value = value.unwrap();
        shorter.restore::<Json>(&address.key, &address.place, value)
    });
    let refused = restored.unwrap_err().to_string();
    assert!(refused.contains("the pattern has no step 2"), "{refused}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn patterns_equal_their_model(
        events in events(), within in 1..20_i64, delay in 0..20_i64,
    ) {
        let keys = on_time(&events, delay);
        let mut next = Found::new();
        let mut all = Found::new();
        let mut absent = Found::new();
        let mut triples = Found::new();
        let mut strict = Found::new();
        for (key, events) in &keys {
            for (at, first) in events.iter().enumerate() {
                let rest = &events[at + 1..];
                let inside = |event: &&Event| event.1 - first.1 < within;
                let later: Vec<&Event> = rest.iter().filter(inside).collect();
                if later.len() >= 2 {
                    let numbers = vec![first.3, later[0].3, later[1].3];
                    triples.push((later[1].1, first.1, *key, numbers));
                }
                if first.2 != 'a' {
                    continue;
                }
                let ends: Vec<_> = later.iter().filter(|event| event.2 == 'b').collect();
                let found = |end: &Event| (end.1, first.1, *key, vec![first.3, end.3]);
                next.extend(ends.first().map(|end| found(end)));
                all.extend(ends.iter().map(|end| found(end)));
                if ends.is_empty() {
                    absent.push((first.1 + within - 1, first.1, *key, vec![first.3]));
                }
                let deciding = later.iter().find(|event| event.2 != 'a');
                strict.extend(
                    deciding
                        .filter(|event| event.2 == 'b')
                        .map(|end| found(end)),
                );
            }
        }
        for (pattern, mut want) in [
            (a_then_b as fn(i64) -> _, next),
            (any_a_then_b, all),
            (a_without_b, absent),
            (three, triples),
            (a_no_c_then_b, strict),
        ] {
            let (mut found, _) = detect(pattern, within, &events, delay, false);
            let (restarted, _) = detect(pattern, within, &events, delay, true);
            prop_assert_eq!(&found, &restarted);
            found.sort();
            want.sort();
            prop_assert_eq!(found, want);
        }
    }

    #[test]
    fn a_match_uses_up_what_came_before_its_end(events in events(), within in 1..20_i64) {
        let pattern = |within| three(within).skipping(Skip::PastLast);
        let (found, _) = detect(pattern, within, &events, 60, true);
        let mut used = BTreeSet::new();
        for number in found.iter().flat_map(|found| &found.3) {
            prop_assert!(used.insert(*number));
        }
    }

    #[test]
    fn shuffles_within_the_bound_give_the_same_matches(
        events in events(), within in 1..20_i64, delay in 0..20_i64, seed in any::<u64>(),
    ) {
        // Equal times of a key are ordered by place, which a shuffle changes.
        let mut times = BTreeSet::new();
        let events: Vec<_> = events
            .into_iter()
            .filter(|event| times.insert((event.0, event.1)))
            .collect();
        let shuffled = arriving(&events, |event| event.1, delay, seed);
        for pattern in [a_then_b as fn(i64) -> _, a_without_b, three, a_no_c_then_b] {
            let mut sorted = events.clone();
            sorted.sort_by_key(|event| event.1);
            let (mut base, late) = detect(pattern, within, &sorted, delay, false);
            prop_assert_eq!(late, 0);
            let (mut found, late) = detect(pattern, within, &shuffled, delay, false);
            prop_assert_eq!(late, 0);
            base.sort();
            found.sort();
            prop_assert_eq!(found, base);
        }
    }

    #[test]
    fn sorted_items_come_in_the_order_of_time(events in events(), delay in 0..20_i64) {
        let mut want: Vec<_> = on_time(&events, delay).into_values().flatten().collect();
        want.sort_by_key(|event| (event.1, event.0, event.3));
        let mut run = Run::new(InTimeOrder::<u8, u32>::new).restarting(true);
        let mut max = i64::MIN;
        for (key, time, _, number) in &events {
            max = max.max(*time);
            run.put_at(max - delay - 1, *time, &(*key, *number));
        }
        run.advance(i64::MAX);
        let mut rows: Vec<u32> = Vec::new();
        rows.extend(run.out.rows.iter().map(|row| row.item.1));
        let times: Vec<_> = run.out.rows.iter().map(|row| row.time).collect();
        prop_assert!(times.is_sorted());
        prop_assert_eq!(rows, want.iter().map(|event| event.3).collect::<Vec<_>>());
    }

    #[test]
    fn duplicates_pass_once_while_they_are_remembered(
        events in events(), delay in 0..20_i64, keep in 0..40_i64,
    ) {
        let make = move || {
            DistinctBy::<u8, (char, u32), char>::new(Span::from_micros(keep), |event| event.0)
        };
        let mut run = Run::new(make).restarting(true);
        let mut known: BTreeMap<(u8, char), i64> = BTreeMap::new();
        let mut want = Vec::new();
        let mut watermark = i64::MIN;
        for (key, time, letter, number) in &events {
            watermark = watermark.max(time - delay - 1);
            run.put_at(watermark, *time, &(*key, (*letter, *number)));
            known.retain(|_, first| watermark < *first + keep);
            known.entry((*key, *letter)).or_insert_with(|| {
                want.push(*number);
                *time
            });
        }
        let passed: Vec<u32> = run.out.rows.iter().map(|row| row.item.1.1).collect();
        prop_assert_eq!(passed, want);
    }

    #[test]
    fn a_scan_forgets_a_key_by_event_time(
        events in events(), delay in 0..20_i64, keep in 0..40_i64,
    ) {
        let make = move || {
            Scan::<u8, u32, Vec<u32>, usize>::new(Span::from_micros(keep), |seen, item| {
                seen.push(*item);
                Some(seen.len())
            })
        };
        let mut run = Run::new(make).restarting(true);
        let mut known: BTreeMap<u8, (i64, usize)> = BTreeMap::new();
        let mut want = Vec::new();
        let mut watermark = i64::MIN;
        for (key, time, _, number) in &events {
            watermark = watermark.max(time - delay - 1);
            run.put_at(watermark, *time, &(*key, *number));
            known.retain(|_, (newest, _)| watermark < *newest + keep);
            let state = known.entry(*key).or_insert((*time, 0));
            *state = (state.0.max(*time), state.1 + 1);
            want.push(state.1);
            known.retain(|_, (newest, _)| watermark < *newest + keep);
        }
        let said: Vec<usize> = run.out.rows.iter().map(|row| row.item.1).collect();
        prop_assert_eq!(said, want);
    }

    #[test]
    fn suppressed_updates_equal_the_finals(
        events in events(), delay in 0..20_i64, size in 1..15_i64, slide in 1..10_i64,
    ) {
        let aligned = Aligned::hopping(Span::from_micros(size), Span::from_micros(slide)).unwrap();
        let make = |options| move || AlignedWindows::<u8, u32, Collect<u32>>::new(aligned, options);
        let mut updates = Run::new(make(WindowOptions::on_update())).restarting(true);
        let mut finals = Run::new(make(WindowOptions::on_close()));
        let make = UntilClosed::<(Window, u8), Collect<u32>>::new;
        let mut suppressed = Run::new(make).restarting(true);
        let mut max = i64::MIN;
        for (key, time, _, number) in &events {
            max = max.max(*time);
            let watermark = max - delay - 1;
            updates.put_at(watermark, *time, &(*key, *number));
            finals.put_at(watermark, *time, &(*key, *number));
            suppressed.advance(watermark);
            for row in updates.out.rows.drain(..) {
                let Emission {
                    key, window, value, ..
                } = row.item;
                suppressed.put(row.time.micros(), &((window, key), value));
            }
        }
        finals.advance(i64::MAX);
        suppressed.advance(i64::MAX);
        let finals = finals.out.rows.into_iter();
        let finals = finals.map(|row| ((row.item.window, row.item.key), row.item.value));
        let finals: Vec<_> = finals.collect();
        prop_assert_eq!(suppressed.out.take(), finals);
    }

    #[test]
    fn thinned_updates_end_with_the_newest_value(
        events in events(), wait in 1..20_i64, rows_max in 1..4_usize,
    ) {
        let make =
            move || AtMostEvery::<u8, u32>::new(Span::from_micros(wait)).at_most_rows(rows_max);
        let mut run = Run::new(make).restarting(true);
        let mut newest = BTreeMap::new();
        let mut max = i64::MIN;
        for (key, time, _, number) in &events {
            max = max.max(*time);
            run.put(*time, &(*key, Some(*number)));
            run.advance(max - 1);
            newest.insert(*key, Some(*number));
            prop_assert!(run.operator.held() <= rows_max);
        }
        run.advance(i64::MAX);
        let shown: BTreeMap<u8, Option<u32>> = run.out.take().into_iter().collect();
        prop_assert_eq!(shown, newest);
    }

    #[test]
    fn the_top_is_that_of_the_newest_scores(
        events in events(), count in 1..4_usize, with_ties in any::<bool>(),
    ) {
        let make = move || {
            let top = TopOfWindow::<char, u8>::new(count, Span::ZERO);
            if with_ties { top.with_ties() } else { top }
        };
        let mut run = Run::new(make).restarting(true);
        let window = Window::new(Time::from_micros(0), Time::from_micros(100));
        let mut scores: BTreeMap<char, u8> = BTreeMap::new();
        let mut shown: Vec<(char, u8)> = Vec::new();
        for (score, _, letter, number) in &events {
            let value = (number % 5 != 4).then_some(*score);
            let kind = if value.is_some() {
                Kind::Update
            } else {
                Kind::Retraction
            };
            let max_time = Time::from_micros(7);
            run.put(
                99,
                &Emission {
                    key: *letter,
                    window,
                    kind,
                    value,
                    max_time,
                },
            );
            match value {
                Some(score) => scores.insert(*letter, score),
                None => scores.remove(letter),
            };
            let mut best: Vec<_> = scores
                .iter()
                .map(|(letter, score)| (*letter, *score))
                .collect();
            best.sort_by_key(|(letter, score)| (std::cmp::Reverse(*score), *letter));
            let level = best.get(count - 1).map(|(_, score)| *score);
            let keeps = |at: usize, score: u8| at < count || (with_ties && Some(score) == level);
            let mut at = 0..;
            best.retain(|(_, score)| keeps(at.next().unwrap(), *score));
            if let Some(row) = run.out.rows.pop() {
                shown = row.item.value.unwrap();
            }
            prop_assert_eq!(&shown, &best);
        }
    }
}
