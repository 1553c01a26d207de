//! Pipelines of stages: the same results at the same causes, however the log is cut into pages
//! and wherever it is stopped, saved and loaded.

use super::support::{Json, restore};
use annals_streams::{
    Aligned, AlignedWindows, Batch, Branch, Changes, Count, Detect, Each, Emission, Emit,
    IntervalJoin, JoinType, Joint, OutOfOrder, Page, Pattern, Place, Row, Sessions, Side, Sink,
    Span, Stage, Stateful, Strategy as _, Sum, Time, TopOfWindow, WindowOptions, Within,
};
use proptest::prelude::*;
use std::sync::{Arc, Mutex};

/// Key, time, value.
type Record = (u8, i64, i64);
type Input = Box<dyn Stage<Record, Json>>;

/// Position of the cause, closed or of the record, time, text.
type Seen = Arc<Mutex<Vec<(u64, u32, i64, String)>>>;

fn sink<T: std::fmt::Debug + Send + 'static>(
    name: &'static str,
    seen: &Seen,
) -> Box<dyn Stage<T, Json>> {
    let seen = Arc::clone(seen);
    Box::new(Sink::new(move |batch: &Batch<T>| {
        assert!(batch.rows.is_sorted_by_key(|row| row.when));
        for row in &batch.rows {
            let position = batch.page.place(row.cause()).unwrap().position;
            let text = format!("{name} {:?}", row.item);
            seen.lock()
                .unwrap()
                .push((position, row.when % 2, row.time.micros(), text));
        }
    }))
}

#[derive(Clone, Copy, Debug)]
struct Parameters {
    size: i64,
    slide: i64,
    gap: i64,
    bound: i64,
    lateness: i64,
    emit: Emit,
}

fn options(parameters: Parameters) -> WindowOptions {
    let options = match parameters.emit {
        Emit::OnClose => WindowOptions::on_close(),
        Emit::OnUpdate => WindowOptions::on_update(),
        Emit::OnUpdateAndClose => WindowOptions::on_update_and_close(),
    };
    options.allow_late(Span::from_micros(parameters.lateness))
}

/// Counts and their best; a left join that flows into windows; sessions; a pattern.
fn pipeline(parameters: Parameters, seen: &Seen) -> Input {
    let micros = Span::from_micros;
    let aligned = Aligned::hopping(micros(parameters.size), micros(parameters.slide)).unwrap();
    let windows = AlignedWindows::<u8, i64, Count>::new(aligned, options(parameters));
    let top = TopOfWindow::<u8, u64>::new(2, micros(parameters.lateness));
    let best = Stateful::new(2, Span::ZERO, top, sink("best", seen));
    let scores = Each::map(
        |row: &Emission<u8, Count>| Emission {
            key: row.key,
            window: row.window,
            kind: row.kind,
            value: row.value.map(|count| count.0),
            max_time: row.max_time,
        },
        Box::new(best),
    );
    let counts = Branch::new(vec![sink("count", seen), Box::new(scores)]);
    let counts = Stateful::new(1, Span::ZERO, windows, Box::new(counts)).late(sink("late", seen));

    let within = Within::between(micros(parameters.bound), micros(parameters.bound / 2));
    let row = |left: Option<&i64>, right: Option<&i64>| left.copied().zip(right.copied());
    let join = IntervalJoin::new(JoinType::Left, within, row);
    let lag = annals_streams::Operator::lag(&join);
    let tumbling = Aligned::tumbling(micros(parameters.size)).unwrap();
    let totals = AlignedWindows::<u8, i64, (Count, Sum)>::new(tumbling, WindowOptions::on_close());
    let totals = Stateful::new(4, lag, totals, sink("total", seen)).late(sink("too late", seen));
    let value = |(key, pair): &(u8, Option<(i64, i64)>)| {
        (*key, pair.map_or(0, |(left, right)| left + right))
    };
    let totals = Each::map(value, Box::new(totals));
    let joined = Branch::new(vec![sink("joined", seen), Box::new(totals)]);
    let joined = Stateful::new(3, Span::ZERO, join, Box::new(joined));
    let (left, right) = Joint::<(u8, i64), (u8, i64), Json>::ports(Box::new(joined));
    let even = Each::filter_map(
        |record: &(u8, i64)| (record.1 % 2 == 0).then_some(*record),
        Box::new(left),
    );
    let odd = Each::filter_map(
        |record: &(u8, i64)| (record.1 % 2 != 0).then_some(*record),
        Box::new(right),
    );

    let sessions = Sessions::<u8, i64, Count>::new(micros(parameters.gap), options(parameters));
    let sessions = Stateful::new(5, Span::ZERO, sessions, sink("session", seen));
    let pattern = Pattern::first(|value: &i64| *value > 2)
        .never(|_, value| *value < 2)
        .within(micros(parameters.gap + 1));
    let detect = Detect::<u8, i64>::new(pattern).unwrap();
    let quiet = Stateful::new(6, Span::ZERO, detect, sink("quiet", seen));
    let all: Vec<Box<dyn Stage<(u8, i64), Json>>> = vec![
        Box::new(counts),
        Box::new(even),
        Box::new(odd),
        Box::new(sessions),
        Box::new(quiet),
    ];
    Box::new(Each::map(
        |record: &Record| (record.0, record.2),
        Box::new(Branch::new(all)),
    ))
}

fn run(
    parameters: Parameters,
    records: &[Record],
    delay: i64,
    page: usize,
    kill_after: usize,
) -> (Vec<(u64, u32, i64, String)>, Changes) {
    let seen = Seen::default();
    let mut stages = pipeline(parameters, &seen);
    let mut clock = OutOfOrder::by(Span::from_micros(delay));
    let mut journal = Changes::new();
    let mut position = 0;
    let mut pages: Vec<&[Record]> = records.chunks(page).collect();
    pages.push(&[]);
    for (number, records) in pages.iter().enumerate() {
        let is_end = number + 1 == pages.len();
        let mut causes = Vec::new();
        let mut rows = Vec::new();
        for record in *records {
            let time = Time::from_micros(record.1);
            clock.observe(time, time);
            position += 1;
            let when = 2 * causes.len() as u32 + 1;
            causes.push((Place::at(position), clock.watermark()));
            rows.push(Row {
                when,
                time,
                item: *record,
            });
        }
        if is_end {
            // The log says that time has ended.
            clock.advance_to(Time::MAX);
            causes.push((Place::at(position + 1), Time::MAX));
        }
        stages.take(&Batch {
            page: Page::new(causes),
            rows,
        });
        let mut newer = Changes::new();
        stages.save(&mut newer).unwrap();
        journal.apply(newer);
        if kill_after > 0 && number % kill_after == 0 {
            stages = pipeline(parameters, &seen);
            for (address, value) in journal.iter() {
                let known =
                    stages.load(address.stage, &address.key, &address.place, value.unwrap());
                assert_eq!(known, Ok(true));
            }
            stages.resume(clock.watermark());
        }
    }
    let mut seen = seen.lock().unwrap().clone();
    // What one output says is in its order; outputs take their turns page by page.
    seen.sort_by_key(|(position, record, _, text)| {
        (
            text.split(' ').next().map(str::to_string),
            *position,
            *record,
        )
    });
    (seen, journal)
}

fn parameters() -> impl Strategy<Value = Parameters> {
    let emit = prop_oneof![
        Just(Emit::OnClose),
        Just(Emit::OnUpdate),
        Just(Emit::OnUpdateAndClose)
    ];
    (1..20_i64, 1..10_i64, 0..8_i64, 0..10_i64, 0..10_i64, emit).prop_map(
        |(size, slide, gap, bound, lateness, emit)| {
            let size = size.max(slide);
            Parameters {
                size,
                slide,
                gap,
                bound,
                lateness,
                emit,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn results_do_not_depend_on_pages_or_kills(
        parameters in parameters(),
        records in prop::collection::vec((0..3_u8, -20..60_i64, 0..6_i64), 1..60),
        delay in 0..20_i64, kill_after in 1..4_usize,
    ) {
        let base = run(parameters, &records, delay, 8_192, 0);
        for page in [1, 3, 7] {
            prop_assert_eq!(&run(parameters, &records, delay, page, 0), &base);
            prop_assert_eq!(&run(parameters, &records, delay, page, kill_after), &base);
        }
    }

    #[test]
    fn no_row_of_a_join_is_late_for_later_windows(
        parameters in parameters(),
        records in prop::collection::vec((0..3_u8, -20..60_i64, 0..6_i64), 1..40),
        delay in 0..20_i64,
    ) {
        // Only what is on time: a late record may still join what is open.
        let mut max = i64::MIN;
        let on_time: Vec<_> = records
            .into_iter()
            .filter(|record| {
                max = max.max(record.1);
                record.1 > max - delay - 1
            })
            .collect();
        let (seen, _) = run(parameters, &on_time, delay, 8_192, 0);
        prop_assert!(
            !seen
                .iter()
                .any(|(_, _, _, text)| text.starts_with("too late"))
        );
    }
}

#[test]
fn what_leaves_with_a_record_has_seen_the_record() {
    use annals_streams::AtMostEvery;
    let seen = Seen::default();
    let calm = AtMostEvery::<u8, i64>::new(Span::from_micros(10));
    let mut stage: Box<dyn Stage<(u8, Option<i64>), Json>> =
        Box::new(Stateful::new(1, Span::ZERO, calm, sink("calm", &seen)));
    let times = [0, 4, 10];
    let causes = times.map(|time| (Place::at(time), Time::from_micros(time as i64 - 1)));
    let rows = times.iter().enumerate().map(|(at, time)| Row {
        when: 2 * at as u32 + 1,
        time: Time::from_micros(*time as i64),
        item: (1, Some(*time as i64)),
    });
    stage.take(&Batch {
        page: Page::new(causes),
        rows: rows.collect(),
    });
    assert_eq!(
        *seen.lock().unwrap(),
        [(10, 1, 10, "calm (1, Some(10))".to_string())]
    );
}

#[test]
fn both_ends_meet_in_the_order_of_causes() {
    let seen = Seen::default();
    let (mut left, mut right) = Joint::<u8, u8, Json>::ports(sink::<Side<u8, u8>>("side", &seen));
    let page = Page::new((1..=3).map(|position| (Place::at(position), Time::MIN)));
    let rows = |whens: [u32; 2]| {
        let rows = whens.map(|when| Row {
            when,
            time: Time::MIN,
            item: when as u8,
        });
        Batch {
            page: page.clone(),
            rows: rows.to_vec(),
        }
    };
    right.take(&rows([1, 3]));
    assert!(seen.lock().unwrap().is_empty());
    left.take(&rows([3, 5]));
    let texts: Vec<_> = seen
        .lock()
        .unwrap()
        .iter()
        .map(|seen| seen.3.clone())
        .collect();
    assert_eq!(
        texts,
        [
            "side Right(1)",
            "side Left(3)",
            "side Right(3)",
            "side Left(5)"
        ]
    );
}

#[test]
fn an_entry_of_another_operator_is_refused() {
    let mut saved = Changes::new();
    let address = annals_streams::Address {
        stage: 0,
        key: b"7".to_vec(),
        place: vec![1],
    };
    saved.set(address, Some(vec![2]));
    let outcome = std::panic::catch_unwind(|| {
        let sessions = Sessions::<u8, i64, Count>::new(Span::ZERO, WindowOptions::on_close());
        restore(sessions, &saved, Time::MIN)
    });
    assert!(outcome.is_err());
}
