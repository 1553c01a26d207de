//! Sliding windows: for each item the window that ends with it, and the one that begins right
//! after it when something lies in that.

use crate::{
    Emission, Fold, Input, Kept, Key, Kind, Late, Operator, Output, Panic, Span, StateError, Time,
    Window, WindowOptions,
    due::{DueIndex, is_closed, is_late},
    emit::Closing,
    hash::Map,
    lane::Lane,
    operator::Place,
    state::{Bytes, Codec, Mark, Marks, Pieces, holds},
};
use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Sliding windows over keyed items, one for each different set of items that lie at most a span
/// apart.
///
/// For an item at `t` these are `[t - span, t]`, and `[t + 1, t + 1 + span]` when an item lies in
/// it; both ends belong to a window. An item is taken as long as a window that ends at or after it
/// can be open, counts in all windows that are, and in none that are not.
///
/// An item is kept until the last window that it can be in is past its lateness. A result costs
/// the number of items in its window. Results are never discarded: windows share their items.
///
/// ```
/// use annals_streams::{
///     Count, Input, Operator, Output, Place, Sliding, Span, Time, WindowOptions,
/// };
///
/// let span = Span::from_micros(10);
/// let mut rate = Sliding::<String, (), Count>::new(span, WindowOptions::on_update());
/// let mut out = Output::new();
/// for (position, time) in [(1, 100), (2, 105)] {
///     let time = Time::from_micros(time);
///     let item = ("ann".to_string(), ());
///     let input = Input { watermark: Time::MIN, time, place: Place::at(position), item: &item };
///     rate.process(input, &mut out);
/// }
/// let last = &out.rows[2].item;
/// assert_eq!((last.window.start.micros(), last.window.end.micros()), (101, 111));
/// assert_eq!(out.rows[1].item.value, Some(Count(2)));
/// ```
pub struct Sliding<K, T, A> {
    span: Span,
    options: WindowOptions,
    watermark: Time,
    keys: Map<K, Items<T>>,
    due: DueIndex<K>,
    marks: Marks<(K, (Time, Place))>,
    folds: PhantomData<fn(A)>,
}

struct Items<T> {
    lane: Lane<T>,
    /// When the index will ask about the key.
    armed: Option<Time>,
}

const TICK: Span = Span::from_micros(1);

impl<T> Items<T> {
    fn time(&self, at: usize) -> Option<Time> {
        self.lane
            .in_range(at..self.lane.len().max(at))
            .next()
            .map(|held| held.time)
    }

    /// Whether a window of `span` ends at `end`, going by the items that are here.
    fn has_window(&self, end: Time, span: Span) -> bool {
        let start = end - span;
        !self.lane.range(end, end).is_empty()
            || (!self.lane.range(start - TICK, start - TICK).is_empty()
                && !self.lane.range(start, end).is_empty())
    }

    /// Ends of windows in `from..=to`.
    fn ends(&self, from: Time, to: Time, span: Span) -> BTreeSet<Time> {
        let mut ends = BTreeSet::new();
        for held in self.lane.in_range(self.lane.range(from, to)) {
            ends.insert(held.time);
        }
        let before = self.lane.range(from - span - TICK, to - span - TICK);
        for held in self.lane.in_range(before) {
            let start = held.time + TICK;
            if !self.lane.range(start, start + span).is_empty() {
                ends.insert(start + span);
            }
        }
        ends
    }

    /// The first end of a window after the watermark.
    fn next_end(&self, watermark: Time, span: Span) -> Option<Time> {
        let after = self.lane.range(Time::MIN, watermark).end;
        let left = self.time(after);
        let mut at = self.lane.range(Time::MIN, watermark - span - TICK).end;
        let mut right = None;
        while let Some(time) = self.time(at) {
            if left.is_some_and(|left| left <= time + span) {
                break;
            }
            let next = self.lane.range(time, time).end;
            let start = time + TICK;
            if self.time(next).is_some_and(|next| next <= start + span) {
                right = Some(start + span);
                break;
            }
            at = next;
        }
        left.into_iter().chain(right).min()
    }
}

impl<K: Key, T: Kept, A: Fold<T>> Sliding<K, T, A> {
    /// Windows that hold items at most `span` apart; a negative span is none.
    ///
    /// ```
    /// # use annals_streams::{Count, Sliding, Span, WindowOptions};
    /// let five = Span::from_micros(300_000_000);
    /// Sliding::<u64, u64, Count>::new(five, WindowOptions::on_close());
    /// ```
    pub fn new(span: Span, options: WindowOptions) -> Self {
        Self {
            span: span.max(Span::ZERO),
            options,
            watermark: Time::MIN,
            keys: Map::default(),
            due: DueIndex::new(),
            marks: Marks::default(),
            folds: PhantomData,
        }
    }

    fn is_late(&self, last: Time) -> bool {
        is_late(self.watermark, last, self.options.lateness)
    }

    fn window(&self, end: Time) -> Window {
        Window::new(end - self.span, end)
    }

    /// The last moment at which a window with an item of this time may be wanted.
    fn expiry(&self, time: Time) -> Time {
        time + self.span + self.span + TICK + self.options.lateness
    }

    /// What a window holds; without a value where the fold panics, which spoils nothing.
    fn result(
        &self,
        key: &K,
        items: &Items<T>,
        end: Time,
        kind: Kind,
    ) -> (Emission<K, A>, Option<Panic>) {
        let window = self.window(end);
        let mut held: Vec<_> = items
            .lane
            .in_range(items.lane.range(window.start, window.end))
            .collect();
        let max_time = held.last().map_or(window.end, |held| held.time);
        if !A::COMMUTES {
            held.sort_by_key(|held| held.place);
        }
        let folded = catch_unwind(AssertUnwindSafe(|| {
            let mut value = A::default();
            for held in held {
                value.add(&held.item);
            }
            value
        }));
        let (value, panic) = match folded {
            Ok(value) => (Some(value), None),
            Err(panic) => (None, Some(panic)),
        };
        let emission = Emission {
            key: key.clone(),
            window,
            kind,
            value,
            max_time,
        };
        (emission, panic)
    }

    fn arm(&mut self, key: &K) {
        let Some(items) = self.keys.get(key) else {
            return;
        };
        let closing = match self.options.emit.on_close() {
            true => items.next_end(self.watermark, self.span),
            false => None,
        };
        let expiry = items.lane.first().map(|held| self.expiry(held.time));
        let next = closing.into_iter().chain(expiry).min();
        if let Some(next) = next
            && items.armed.is_none_or(|armed| next < armed)
        {
            self.due.insert(next, key.clone());
            if let Some(items) = self.keys.get_mut(key) {
                items.armed = Some(next);
            }
        }
    }

    fn expire(&mut self, key: &K) {
        let Some(mut items) = self.keys.remove(key) else {
            return;
        };
        while items
            .lane
            .first()
            .is_some_and(|held| is_closed(self.watermark, self.expiry(held.time)))
        {
            if let Some(held) = items.lane.pop_until(Time::MAX) {
                self.marks
                    .remove(held.mark, || (key.clone(), (held.time, held.place)));
            }
        }
        if !items.lane.is_empty() {
            self.keys.insert(key.clone(), items);
        }
    }
}

impl<K: Key, T: Kept, A: Fold<T>> Operator for Sliding<K, T, A> {
    type In = (K, T);
    type Out = Emission<K, A>;
    type Late = Late<K, T>;

    fn check_item<C: Codec>((_, item): &Self::In) -> Result<(), StateError> {
        holds::<C, _>(item)
    }

    fn next_due(&self) -> Time {
        self.due.next()
    }

    fn advance(&mut self, watermark: Time, out: &mut Output<Self::Out, Self::Late>) {
        let before = self.watermark;
        self.watermark = self.watermark.max(watermark);
        let keys = &mut self.keys;
        let looked_at = self
            .due
            .take_armed(self.watermark, keys, |items| &mut items.armed);
        let mut closing = Closing::new();
        if self.options.emit.on_close() && self.watermark > before {
            for key in &looked_at {
                if let Some(items) = self.keys.get(key) {
                    for end in items.ends(before + TICK, self.watermark, self.span) {
                        match self.result(key, items, end, Kind::Final) {
                            (result, None) => closing.add(end, result),
                            (result, Some(panic)) => closing.lack(end, result, panic),
                        }
                    }
                }
            }
        }
        closing.emit_into(out);
        for key in &looked_at {
            self.expire(key);
            self.arm(key);
        }
    }

    fn process(&mut self, input: Input<'_, Self::In>, out: &mut Output<Self::Out, Self::Late>) {
        if is_closed(input.watermark, self.next_due()) {
            self.advance(input.watermark, out);
        }
        self.watermark = self.watermark.max(input.watermark);
        let (key, item) = input.item;
        let time = input.time;
        if self.is_late(time + self.span) {
            // The last window that could have held it.
            let missed = vec![self.window(time + self.span)];
            out.refuse(time, Late::of(input.item, missed, false));
            return;
        }
        if !self.keys.contains_key(key) {
            self.keys.insert(
                key.clone(),
                Items {
                    lane: Lane::default(),
                    armed: None,
                },
            );
        }
        let Some(items) = self.keys.get_mut(key) else {
            return;
        };
        let right = time + TICK + self.span;
        let had_right = items.has_window(right, self.span);
        let held = items.lane.insert(time, input.place, item.clone());
        self.marks
            .change(&mut held.mark, || (key.clone(), (held.time, held.place)));
        let mut missed = Vec::new();
        let Some(items) = self.keys.get(key) else {
            return;
        };
        let mut ends = items.ends(time, time + self.span, self.span);
        if !had_right && items.has_window(right, self.span) {
            ends.insert(right);
        }
        for end in ends {
            if self.is_late(end) {
                missed.push(self.window(end));
                continue;
            }
            let closed = is_closed(self.watermark, end);
            if closed || self.options.emit.on_update() {
                match self.result(key, items, end, Kind::at_item(closed)) {
                    (result, None) => out.emit(end, result),
                    // It is the item that just came: each before it was folded when it came.
                    (_, Some(panic)) if self.options.emit.on_update() => resume_unwind(panic),
                    (result, Some(panic)) => out.lack(end, result, panic),
                }
            }
        }
        if !missed.is_empty() {
            out.refuse(time, Late::of(input.item, missed, true));
        }
        self.arm(key);
    }

    fn lag(&self) -> Span {
        self.options.lateness
    }
}

impl<K: Key, T: Kept, A: Fold<T>> Pieces for Sliding<K, T, A> {
    type Key = K;
    type Part = (Time, Place);

    fn marks(&mut self) -> &mut Marks<(K, (Time, Place))> {
        &mut self.marks
    }

    fn pieces(&self) -> Vec<(K, (Time, Place))> {
        let keys = self.keys.iter();
        keys.flat_map(|(key, items)| {
            items
                .lane
                .iter()
                .map(|held| (key.clone(), (held.time, held.place)))
        })
        .collect()
    }

    fn mark(&mut self, key: &K, part: &(Time, Place)) -> Option<&mut Mark> {
        self.keys.get_mut(key)?.lane.mark(part.0, part.1)
    }

    fn value<C: Codec>(
        &self,
        key: &K,
        part: &(Time, Place),
    ) -> Result<Option<Vec<u8>>, StateError> {
        match self.keys.get(key) {
            Some(items) => items.lane.value::<C>(part.0, part.1),
            None => Ok(None),
        }
    }

    fn put_back<C: Codec>(
        &mut self,
        key: K,
        part: (Time, Place),
        value: Bytes<'_>,
    ) -> Result<(), StateError> {
        let fresh = || Items {
            lane: Lane::default(),
            armed: None,
        };
        let items = self.keys.entry(key).or_insert_with(fresh);
        items.lane.put_back::<C>(part.0, part.1, value)
    }

    fn resumed(&mut self, watermark: Time) {
        self.watermark = watermark;
        self.due = DueIndex::new();
        let keys: Vec<K> = self.keys.keys().cloned().collect();
        for key in &keys {
            self.arm(key);
        }
    }
}
