//! Hopping windows that emit on close, by slices: an item is added to one accumulator however
//! many windows hold it, and a window is put together from its slices when it closes.
//!
//! Adding costs the same as for a tumbling window; closing costs size / slide for each key.

use crate::{
    Aligned, Emission, Fold, Input, Key, Kind, Late, Operator, Output, Panic, Span, StateError,
    Time, WindowOptions,
    due::{is_closed, is_late},
    emit::Closing,
    hash::Map,
    state::{Bytes, Codec, Mark, Marks, Pieces},
    window::panes::{read_pane, write_pane},
};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub(crate) struct Slices<K, T, A> {
    aligned: Aligned,
    options: WindowOptions,
    watermark: Time,
    next_due: Time,
    /// The next window that can close begins here or later; nothing: all have closed.
    unclosed: Option<Time>,
    /// By start.
    slices: Vec<Slice<K, A>>,
    marks: Marks<(K, Time)>,
    items: PhantomData<fn(T)>,
}

struct Slice<K, A> {
    start: Time,
    parts: Map<K, Part<A>>,
}

struct Part<A> {
    value: A,
    max_time: Time,
    mark: Mark,
}

impl<K: Key, T, A: Fold<T>> Slices<K, T, A> {
    pub(crate) fn new(aligned: Aligned, options: WindowOptions) -> Self {
        Self {
            aligned,
            options,
            watermark: Time::MIN,
            next_due: Time::MAX,
            unclosed: Some(Time::MIN),
            slices: Vec::new(),
            marks: Marks::default(),
            items: PhantomData,
        }
    }

    fn slice(&mut self, start: Time) -> usize {
        if let Some(found) = self.slices.iter().rposition(|slice| slice.start == start) {
            return found;
        }
        let place = self.slices.partition_point(|slice| slice.start < start);
        self.slices.insert(
            place,
            Slice {
                start,
                parts: Map::default(),
            },
        );
        self.find_next_due();
        place
    }

    /// The first window that has items and has not closed.
    fn next_window(&self) -> Option<Time> {
        let from = self.unclosed?;
        self.slices
            .iter()
            .find_map(|slice| self.aligned.first_window_with(slice.start, from))
    }

    fn expiry(&self, slice: &Slice<K, A>) -> Time {
        let newest = self.aligned.last_window_with(slice.start);
        self.aligned.last(newest) + self.options.lateness
    }

    fn find_next_due(&mut self) {
        let closing = self.next_window().map(|start| self.aligned.last(start));
        let expiry = self.slices.first().map(|slice| self.expiry(slice));
        self.next_due = closing.into_iter().chain(expiry).min().unwrap_or(Time::MAX);
    }

    fn slices_of(&self, start: Time) -> &[Slice<K, A>] {
        let last = self.aligned.last(start);
        let from = self.slices.partition_point(|slice| slice.start < start);
        let to = self.slices.partition_point(|slice| slice.start <= last);
        &self.slices[from..to]
    }

    fn close(&self, start: Time, closing: &mut Closing<K, A>) {
        let mut whole: Map<&K, (Result<A, Panic>, Time)> = Map::default();
        for slice in self.slices_of(start) {
            for (key, part) in &slice.parts {
                match whole.get_mut(key) {
                    Some((value, max_time)) => {
                        if let Ok(sum) = value
                            && let Err(panic) = merged::<T, A>(sum, &part.value)
                        {
                            *value = Err(panic);
                        }
                        *max_time = part.max_time.max(*max_time);
                    }
                    None => {
                        whole.insert(key, (Ok(part.value.clone()), part.max_time));
                    }
                }
            }
        }
        let last = self.aligned.last(start);
        let window = self.aligned.window(start);
        for (key, (value, max_time)) in whole {
            let (value, panic) = match value {
                Ok(value) => (Some(value), None),
                Err(panic) => (None, Some(panic)),
            };
            let result = Emission {
                key: key.clone(),
                window,
                kind: Kind::Final,
                value,
                max_time,
            };
            match panic {
                None => closing.add(last, result),
                Some(panic) => closing.lack(last, result, panic),
            }
        }
    }

    fn correction(&self, key: &K, start: Time) -> Option<Emission<K, A>> {
        let slices = self.slices_of(start).iter();
        let mut parts = slices.filter_map(|slice| slice.parts.get(key));
        let first = parts.next()?;
        let mut value = first.value.clone();
        let mut max_time = first.max_time;
        for part in parts {
            value.merge(part.value.clone());
            max_time = max_time.max(part.max_time);
        }
        let window = self.aligned.window(start);
        let kind = Kind::Correction;
        Some(Emission {
            key: key.clone(),
            window,
            kind,
            value: Some(value),
            max_time,
        })
    }

    fn expire(&mut self) {
        while let Some(slice) = self.slices.first() {
            if !is_closed(self.watermark, self.expiry(slice)) {
                break;
            }
            let slice = self.slices.remove(0);
            for (key, part) in slice.parts {
                self.marks.remove(part.mark, || (key, slice.start));
            }
        }
    }

    fn reach(&mut self, watermark: Time) {
        self.watermark = self.watermark.max(watermark);
        let open = self.aligned.first_open(self.watermark);
        // Once all windows have closed there is no first one that is open.
        self.unclosed = self
            .unclosed
            .and_then(|from| open.map(|open| open.max(from)));
    }
}

impl<K: Key, T: Clone, A: Fold<T>> Operator for Slices<K, T, A> {
    type In = (K, T);
    type Out = Emission<K, A>;
    type Late = Late<K, T>;

    fn next_due(&self) -> Time {
        self.next_due
    }

    fn advance(&mut self, watermark: Time, out: &mut Output<Self::Out, Self::Late>) {
        let watermark = self.watermark.max(watermark);
        let mut closing = Closing::new();
        while let Some(start) = self.next_window() {
            if !is_closed(watermark, self.aligned.last(start)) {
                break;
            }
            self.close(start, &mut closing);
            self.unclosed = start.micros().checked_add(1).map(Time::from_micros);
        }
        closing.emit_into(out);
        self.reach(watermark);
        self.expire();
        self.find_next_due();
    }

    fn process(&mut self, input: Input<'_, Self::In>, out: &mut Output<Self::Out, Self::Late>) {
        if is_closed(input.watermark, self.next_due()) {
            self.advance(input.watermark, out);
        }
        if input.watermark > self.watermark {
            self.reach(input.watermark);
        }
        let (key, item) = input.item;
        let lateness = self.options.lateness;
        let is_missed = |watermark, last| is_late(watermark, last, lateness);
        let mut missed = Vec::new();
        let mut starts = self.aligned.starts(input.time).peekable();
        while let Some(start) =
            starts.next_if(|start| is_missed(self.watermark, self.aligned.last(*start)))
        {
            missed.push(self.aligned.window(start));
        }
        let folded = starts.peek().is_some();
        if folded {
            let at = self.slice(self.aligned.slice_of(input.time));
            let slice = &mut self.slices[at];
            let part = match slice.parts.get_mut(key) {
                Some(part) => part,
                None => slice.parts.entry(key.clone()).or_insert_with(|| Part {
                    value: A::default(),
                    max_time: input.time,
                    mark: Mark::default(),
                }),
            };
            part.value.add(item);
            part.max_time = part.max_time.max(input.time);
            self.marks
                .change(&mut part.mark, || (key.clone(), slice.start));
        }
        for start in starts {
            let last = self.aligned.last(start);
            if !is_closed(self.watermark, last) {
                break;
            }
            if let Some(emission) = self.correction(key, start) {
                out.emit(last, emission);
            }
        }
        if !missed.is_empty() {
            out.refuse(input.time, Late::of(input.item, missed, folded));
        }
    }

    fn lag(&self) -> Span {
        self.options.lateness
    }
}

impl<K: Key, T, A: Fold<T>> Pieces for Slices<K, T, A> {
    type Key = K;
    type Part = Time;

    fn marks(&mut self) -> &mut Marks<(K, Time)> {
        &mut self.marks
    }

    fn pieces(&self) -> Vec<(K, Time)> {
        let slices = self.slices.iter();
        slices
            .flat_map(|slice| slice.parts.keys().map(|key| (key.clone(), slice.start)))
            .collect()
    }

    fn mark(&mut self, key: &K, start: &Time) -> Option<&mut Mark> {
        let at = self
            .slices
            .binary_search_by_key(start, |slice| slice.start)
            .ok()?;
        self.slices[at]
            .parts
            .get_mut(key)
            .map(|part| &mut part.mark)
    }

    fn value<C: Codec>(&self, key: &K, start: &Time) -> Result<Option<Vec<u8>>, StateError> {
        let found = self.slices.binary_search_by_key(start, |slice| slice.start);
        let part = found.ok().and_then(|at| self.slices[at].parts.get(key));
        part.map(|part| write_pane::<C, A>(part.max_time, Some(&part.value)))
            .transpose()
    }

    fn put_back<C: Codec>(
        &mut self,
        key: K,
        start: Time,
        value: Bytes<'_>,
    ) -> Result<(), StateError> {
        let (max_time, value) = read_pane::<C, A>(value)?;
        let value = value.ok_or_else(|| StateError::new("a slice has no accumulator"))?;
        let at = self.slice(start);
        self.slices[at].parts.insert(
            key,
            Part {
                value,
                max_time,
                mark: Mark::default(),
            },
        );
        Ok(())
    }

    fn resumed(&mut self, watermark: Time) {
        self.reach(watermark);
        self.find_next_due();
    }
}

/// Merges a part. The sum is spoiled when that panics; the slices are as they were.
fn merged<T, A: Fold<T>>(sum: &mut A, part: &A) -> Result<(), Panic> {
    catch_unwind(AssertUnwindSafe(|| sum.merge(part.clone())))
}
