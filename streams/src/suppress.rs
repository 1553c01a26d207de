//! Suppression: fewer updates of the same row, the last one certain to come.

use crate::{
    Input, Kept, Key, Operator, Output, Span, StateError, Time,
    due::is_closed,
    hash::Map,
    state::{Bytes, Codec, Mark, Marks, Pieces, Value, holds},
};
use std::collections::BTreeSet;

/// Holds back updates of a row until nothing can change it any more, then lets the last one go.
///
/// The time of an update is the last moment at which its row can change, as windows say it. Rows
/// leave in the order of (that moment, key). A row that is taken back before it was let go
/// vanishes without a trace. What comes for a row after it closed passes at once: it corrects what
/// was said.
///
/// ```
/// use annals_streams::{Input, Operator, Output, Place, Time, UntilClosed};
///
/// let mut finals = UntilClosed::<String, u64>::new();
/// let mut out = Output::new();
/// for count in [1, 2] {
///     let item = ("tea".to_string(), Some(count));
///     let last = Time::from_micros(59);
///     let place = Place::at(count);
///     finals.process(Input { watermark: Time::MIN, time: last, place, item: &item }, &mut out);
/// }
/// finals.advance(Time::from_micros(59), &mut out);
/// assert_eq!(out.take(), [("tea".to_string(), Some(2))]);
/// ```
pub struct UntilClosed<K, V> {
    watermark: Time,
    held: Holding<K, V>,
}

/// Lets each row go at most once in a span of event time, and holds at most so many rows.
///
/// The span begins with the time of the first update that is held; what leaves is the newest
/// value. Then it starts again. An update that comes with the record that ended the span is still
/// in what leaves. Beyond the bound on rows the one that is held the longest leaves early; nothing
/// is dropped.
///
/// ```
/// use annals_streams::{AtMostEvery, Input, Operator, Output, Place, Span, Time};
///
/// let mut calm = AtMostEvery::<String, u64>::new(Span::from_micros(10));
/// let mut out = Output::new();
/// for (time, count) in [(0, 1), (4, 2)] {
///     let item = ("tea".to_string(), Some(count));
///     let time = Time::from_micros(time);
///     let place = Place::at(count);
///     calm.process(Input { watermark: Time::MIN, time, place, item: &item }, &mut out);
/// }
/// calm.advance(Time::from_micros(9), &mut out);
/// assert_eq!(out.take(), [("tea".to_string(), Some(2))]);
/// ```
pub struct AtMostEvery<K, V> {
    wait: Option<Span>,
    rows_max: usize,
    held: Holding<K, V>,
}

/// The newest value of each row that waits, in the order in which they will leave.
struct Holding<K, V> {
    rows: Map<K, Held<V>>,
    /// By what decides about leaving: the last moment, or the time of the first update.
    order: BTreeSet<(Time, K)>,
    marks: Marks<(K, ())>,
}

struct Held<V> {
    since: Time,
    time: Time,
    value: Option<V>,
    mark: Mark,
}

impl<K: Key, V: Kept> Holding<K, V> {
    fn new() -> Self {
        Self {
            rows: Map::default(),
            order: BTreeSet::new(),
            marks: Marks::default(),
        }
    }

    fn first(&self) -> Option<Time> {
        self.order.first().map(|(since, _)| *since)
    }

    fn hold(&mut self, key: &K, since: Time, time: Time, value: Option<V>) {
        let mut mark = Mark::default();
        if let Some(before) = self.rows.remove(key) {
            self.order.remove(&(before.since, key.clone()));
            mark = before.mark;
        }
        self.marks.change(&mut mark, || (key.clone(), ()));
        self.order.insert((since, key.clone()));
        self.rows.insert(
            key.clone(),
            Held {
                since,
                time,
                value,
                mark,
            },
        );
    }

    fn drop_held(&mut self, key: &K) {
        if let Some(held) = self.rows.remove(key) {
            self.order.remove(&(held.since, key.clone()));
            self.marks.remove(held.mark, || (key.clone(), ()));
        }
    }

    fn pop<L>(&mut self, out: &mut Output<(K, Option<V>), L>) {
        if let Some((_, key)) = self.order.pop_first()
            && let Some(held) = self.rows.remove(&key)
        {
            self.marks.remove(held.mark, || (key.clone(), ()));
            out.emit(held.time, (key, held.value));
        }
    }
}

impl<K: Key, V: Kept> Pieces for Holding<K, V> {
    type Key = K;
    type Part = ();

    fn marks(&mut self) -> &mut Marks<(K, ())> {
        &mut self.marks
    }

    fn pieces(&self) -> Vec<(K, ())> {
        self.rows.keys().map(|key| (key.clone(), ())).collect()
    }

    fn mark(&mut self, key: &K, (): &()) -> Option<&mut Mark> {
        self.rows.get_mut(key).map(|held| &mut held.mark)
    }

    fn value<C: Codec>(&self, key: &K, (): &()) -> Result<Option<Vec<u8>>, StateError> {
        let held = self.rows.get(key);
        let write = |held: &Held<V>| {
            Value::default()
                .time(held.since)
                .time(held.time)
                .then::<C, _>(&held.value)
        };
        held.map(write).transpose()
    }

    fn put_back<C: Codec>(
        &mut self,
        key: K,
        (): (),
        mut from: Bytes<'_>,
    ) -> Result<(), StateError> {
        let since = from.time()?;
        let time = from.time()?;
        let value = from.then::<C, Option<V>>()?;
        self.hold(&key, since, time, value);
        Ok(())
    }

    fn resumed(&mut self, _: Time) {}
}

impl<K: Key, V: Kept> Default for UntilClosed<K, V> {
    fn default() -> Self {
        Self {
            watermark: Time::MIN,
            held: Holding::new(),
        }
    }
}

impl<K: Key, V: Kept> UntilClosed<K, V> {
    /// Holds nothing yet.
    ///
    /// ```
    /// # use annals_streams::UntilClosed;
    /// UntilClosed::<String, u64>::new();
    /// ```
    pub fn new() -> Self {
        Self::default()
    }
}

impl<K: Key, V: Kept> Operator for UntilClosed<K, V> {
    type In = (K, Option<V>);
    type Out = (K, Option<V>);
    type Late = ();

    fn check_item<C: Codec>((_, item): &Self::In) -> Result<(), StateError> {
        holds::<C, _>(item)
    }

    fn next_due(&self) -> Time {
        self.held.first().unwrap_or(Time::MAX)
    }

    fn advance(&mut self, watermark: Time, out: &mut Output<Self::Out, Self::Late>) {
        self.watermark = self.watermark.max(watermark);
        while self
            .held
            .first()
            .is_some_and(|last| is_closed(self.watermark, last))
        {
            self.held.pop(out);
        }
    }

    fn process(&mut self, input: Input<'_, Self::In>, out: &mut Output<Self::Out, Self::Late>) {
        self.advance(input.watermark, out);
        let (key, value) = input.item;
        if is_closed(self.watermark, input.time) {
            self.held.drop_held(key);
            out.emit(input.time, (key.clone(), value.clone()));
        } else if value.is_some() {
            self.held.hold(key, input.time, input.time, value.clone());
        } else {
            self.held.drop_held(key);
        }
    }
}

impl<K: Key, V: Kept> AtMostEvery<K, V> {
    /// Each row at most once in `wait`.
    ///
    /// ```
    /// # use annals_streams::{AtMostEvery, Span};
    /// AtMostEvery::<String, u64>::new(Span::from_micros(1_000_000));
    /// ```
    pub fn new(wait: Span) -> Self {
        Self {
            wait: Some(wait),
            rows_max: usize::MAX,
            held: Holding::new(),
        }
    }

    /// Rows leave only because more than `rows_max` would be held, or because time ends.
    ///
    /// ```
    /// # use annals_streams::AtMostEvery;
    /// AtMostEvery::<String, u64>::when_full(1_000);
    /// ```
    pub fn when_full(rows_max: usize) -> Self {
        Self {
            wait: None,
            rows_max,
            held: Holding::new(),
        }
    }

    /// Holds at most so many rows; beyond it the oldest leaves early.
    ///
    /// ```
    /// # use annals_streams::{AtMostEvery, Span};
    /// AtMostEvery::<String, u64>::new(Span::from_micros(9)).at_most_rows(1_000);
    /// ```
    #[must_use]
    pub fn at_most_rows(mut self, rows_max: usize) -> Self {
        self.rows_max = rows_max;
        self
    }

    /// How many rows are held; for those who would rather stop than let one leave early.
    ///
    /// ```
    /// # use annals_streams::AtMostEvery;
    /// assert_eq!(AtMostEvery::<String, u64>::when_full(10).held(), 0);
    /// ```
    pub fn held(&self) -> usize {
        self.held.rows.len()
    }

    fn due(&self, since: Time) -> Time {
        // The span is half-open like a window: at `since + wait` a new one begins.
        self.wait
            .map_or(Time::MAX, |wait| since + wait - Span::from_micros(1))
    }
}

impl<K: Key, V: Kept> Operator for AtMostEvery<K, V> {
    type In = (K, Option<V>);
    type Out = (K, Option<V>);
    type Late = ();

    const CLOCK_FIRST: bool = false;

    fn check_item<C: Codec>((_, item): &Self::In) -> Result<(), StateError> {
        holds::<C, _>(item)
    }

    fn next_due(&self) -> Time {
        self.held.first().map_or(Time::MAX, |since| self.due(since))
    }

    fn advance(&mut self, watermark: Time, out: &mut Output<Self::Out, Self::Late>) {
        while let Some(since) = self.held.first() {
            if !is_closed(watermark, self.due(since)) {
                break;
            }
            self.held.pop(out);
        }
    }

    fn process(&mut self, input: Input<'_, Self::In>, out: &mut Output<Self::Out, Self::Late>) {
        let (key, value) = input.item;
        let since = self
            .held
            .rows
            .get(key)
            .map_or(input.time, |held| held.since);
        self.held.hold(key, since, input.time, value.clone());
        while self.held.rows.len() > self.rows_max {
            self.held.pop(out);
        }
    }
}

macro_rules! state_of_holding {
    ($operator:ident, $self:ident, $watermark:ident => $resumed:expr) => {
        impl<K: Key, V: Kept> Pieces for $operator<K, V> {
            type Key = K;
            type Part = ();

            fn marks(&mut self) -> &mut Marks<(K, ())> {
                self.held.marks()
            }

            fn pieces(&self) -> Vec<(K, ())> {
                self.held.pieces()
            }

            fn mark(&mut self, key: &K, part: &()) -> Option<&mut Mark> {
                self.held.mark(key, part)
            }

            fn value<C: Codec>(&self, key: &K, part: &()) -> Result<Option<Vec<u8>>, StateError> {
                self.held.value::<C>(key, part)
            }

            fn put_back<C: Codec>(
                &mut self,
                key: K,
                part: (),
                from: Bytes<'_>,
            ) -> Result<(), StateError> {
                self.held.put_back::<C>(key, part, from)
            }

            fn resumed(&mut $self, $watermark: Time) {
                $resumed
            }
        }
    };
}

state_of_holding!(UntilClosed, self, watermark => self.watermark = watermark);
state_of_holding!(AtMostEvery, self, watermark => self.held.resumed(watermark));
