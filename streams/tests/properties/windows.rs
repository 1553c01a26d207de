//! Windows of all kinds beside their models, shuffled and restarted.

use super::{
    model::{Model, Record, Rules, Seen, Shape, name},
    support::Run,
};
use annals_streams::{
    Aligned, AlignedWindows, Collect, Distinct, Emission, Emit, Fold, Late, Operator, Sessions,
    Sliding, Span, State, WindowOptions,
};
use proptest::prelude::*;

trait Numbers {
    fn numbers(self) -> Vec<u32>;
}

impl Numbers for Collect<u32> {
    fn numbers(self) -> Vec<u32> {
        self.0
    }
}

impl Numbers for Distinct<u32> {
    fn numbers(self) -> Vec<u32> {
        self.0.into_iter().collect()
    }
}

type Outcome = (Vec<Seen>, Vec<(u32, bool, usize)>);

fn drive<O, A>(
    make: impl Fn() -> O + 'static,
    records: &[Record],
    delay: i64,
    restart: bool,
) -> Outcome
where
    O: Operator<In = (u8, u32), Out = Emission<u8, A>, Late = Late<u8, u32>> + State,
    A: Numbers,
{
    let mut run = Run::new(make).restarting(restart);
    let mut max = i64::MIN;
    for (key, time, number) in records {
        max = max.max(*time);
        run.put_at(max - delay - 1, *time, &(*key, *number));
    }
    run.advance(i64::MAX);
    let seen = run.out.rows.into_iter().map(|row| Seen {
        last: row.time.micros(),
        window: (row.item.window.start.micros(), row.item.window.end.micros()),
        key: row.item.key,
        kind: name(row.item.kind),
        value: row.item.value.map(Numbers::numbers),
        max_time: row.item.max_time.micros(),
    });
    let late = run.out.late.into_iter();
    let late = late.map(|row| (row.item.item, row.item.folded, row.item.missed.len()));
    (seen.collect(), late.collect())
}

fn real_of<A: Fold<u32> + Numbers + 'static>(
    rules: Rules,
    records: &[Record],
    delay: i64,
    restart: bool,
) -> Outcome {
    let options = match rules.emit {
        Emit::OnClose => WindowOptions::on_close(),
        Emit::OnUpdate => WindowOptions::on_update(),
        Emit::OnUpdateAndClose => WindowOptions::on_update_and_close(),
    };
    let options = options.allow_late(Span::from_micros(rules.lateness));
    let micros = Span::from_micros;
    match rules.shape {
        Shape::Hopping {
            size,
            slide,
            offset,
        } => {
            let aligned = Aligned::hopping(micros(size), micros(slide)).unwrap();
            let aligned = aligned.offset_by(micros(offset));
            let make = move || AlignedWindows::<u8, u32, A>::new(aligned, options);
            drive(make, records, delay, restart)
        }
        Shape::Session { gap } => {
            let make = move || Sessions::<u8, u32, A>::new(micros(gap), options);
            drive(make, records, delay, restart)
        }
        Shape::Sliding { span } => {
            let make = move || Sliding::<u8, u32, A>::new(micros(span), options);
            drive(make, records, delay, restart)
        }
    }
}

fn real(rules: Rules, records: &[Record], delay: i64, restart: bool) -> Outcome {
    if rules.in_order {
        real_of::<Collect<u32>>(rules, records, delay, restart)
    } else {
        real_of::<Distinct<u32>>(rules, records, delay, restart)
    }
}

fn modelled(rules: Rules, records: &[Record], delay: i64) -> Outcome {
    let mut model = Model::new(rules);
    let mut max = i64::MIN;
    for record in records {
        max = max.max(record.1);
        model.advance(max - delay - 1);
        model.put(*record);
    }
    model.advance(i64::MAX);
    (model.seen, model.late)
}

fn shapes() -> impl Strategy<Value = Shape> {
    prop_oneof![
        (1..20_i64, 1..12_i64, -5..5_i64).prop_map(|(size, slide, offset)| Shape::Hopping {
            size,
            slide,
            offset
        }),
        (1..15_i64).prop_map(|size| Shape::Hopping {
            size,
            slide: size,
            offset: 0
        }),
        (0..8_i64).prop_map(|gap| Shape::Session { gap }),
        (0..10_i64).prop_map(|span| Shape::Sliding { span }),
    ]
}

fn emits() -> impl Strategy<Value = Emit> {
    prop_oneof![
        Just(Emit::OnClose),
        Just(Emit::OnUpdate),
        Just(Emit::OnUpdateAndClose)
    ]
}

fn rules() -> impl Strategy<Value = Rules> {
    (
        shapes(),
        emits(),
        prop_oneof![Just(0), 0..15_i64],
        any::<bool>(),
    )
        .prop_map(|(shape, emit, lateness, in_order)| {
            // The parts of a merged session come by start, not by arrival.
            let in_order = in_order && !matches!(shape, Shape::Session { .. });
            Rules {
                shape,
                emit,
                lateness,
                in_order,
            }
        })
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    let record = (0..3_u8, -20..40_i64);
    prop::collection::vec(record, 1..30).prop_map(|records| {
        let numbered = records.into_iter().enumerate();
        numbered
            .map(|(number, (key, time))| (key, time, number as u32))
            .collect()
    })
}

/// The records in an order in which none comes more than `delay` after a later one.
pub(crate) fn arriving<T: Clone>(
    records: &[T],
    time: impl Fn(&T) -> i64,
    delay: i64,
    seed: u64,
) -> Vec<T> {
    let mut random = seed;
    let mut next = || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(0x9e37_79b9);
        (random >> 33) as i64
    };
    let mut arriving: Vec<_> = records
        .iter()
        .map(|record| (time(record) + next() % (delay + 1), next(), record))
        .collect();
    arriving.sort_by_key(|(arrives, chance, _)| (*arrives, *chance));
    arriving
        .into_iter()
        .map(|(_, _, record)| record.clone())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn windows_equal_their_model(
        rules in rules(), records in records(), delay in 0..20_i64,
    ) {
        prop_assert_eq!(
            real(rules, &records, delay, false),
            modelled(rules, &records, delay)
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn restarts_of_windows_change_nothing(
        rules in rules(), records in records(), delay in 0..20_i64,
    ) {
        let undisturbed = real(rules, &records, delay, false);
        prop_assert_eq!(real(rules, &records, delay, true), undisturbed);
    }

    #[test]
    fn shuffles_within_the_bound_give_the_same_finals(
        shape in shapes(), records in records(), delay in 0..20_i64, seed in any::<u64>(),
    ) {
        let rules = Rules {
            shape,
            emit: Emit::OnClose,
            lateness: 0,
            in_order: false,
        };
        let mut sorted = records.clone();
        sorted.sort_by_key(|record| record.1);
        let (mut base, late) = real(rules, &sorted, delay, false);
        prop_assert!(late.is_empty());
        base.sort();
        for round in 0..40 {
            let shuffled = arriving(&records, |record| record.1, delay, seed.wrapping_add(round));
            let (mut finals, late) = real(rules, &shuffled, delay, false);
            prop_assert!(late.is_empty());
            finals.sort();
            prop_assert_eq!(&finals, &base);
        }
    }

    #[test]
    fn discarded_results_add_up_to_the_accumulated_ones(
        shape in shapes(), records in records(), delay in 0..20_i64, lateness in 0..15_i64,
    ) {
        let Shape::Hopping { size, slide, .. } = shape else {
            return Ok(());
        };
        let options = WindowOptions::on_update().allow_late(Span::from_micros(lateness));
        let aligned = Aligned::hopping(Span::from_micros(size), Span::from_micros(slide)).unwrap();
        let make =
            |options| move || AlignedWindows::<u8, u32, Distinct<u32>>::new(aligned, options);
        let (parts, _) = drive(make(options.discarding()), &records, delay, true);
        let (wholes, _) = drive(make(options), &records, delay, false);
        for whole in &wholes {
            let of_window = |seen: &&Seen| (seen.key, seen.window) == (whole.key, whole.window);
            let newest = wholes.iter().rfind(of_window).unwrap();
            let parts = parts.iter().filter(of_window);
            let mut sum: Vec<u32> = parts.flat_map(|seen| seen.value.clone().unwrap()).collect();
            sum.sort();
            prop_assert_eq!(&Some(sum), &newest.value);
        }
    }
}
