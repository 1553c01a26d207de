//! Tumbling and hopping windows with an accumulator for each window and key, window first: a
//! handful of windows, each with a map of its keys, so that closing one frees it at once and no
//! key needs a timer.

use crate::{
    Aligned, Emission, Fold, Input, Kept, Key, Kind, Late, Operator, Output, Span, StateError,
    Time, WindowOptions,
    due::{is_closed, is_late},
    emit::Closing,
    hash::Map,
    state::{Bytes, Codec, Mark, Marks, Pieces, Value},
};
use std::marker::PhantomData;

pub(crate) struct Panes<K, T, A> {
    aligned: Aligned,
    options: WindowOptions,
    watermark: Time,
    next_due: Time,
    /// By start.
    opened: Vec<Opened<K, A>>,
    /// Maps of closed windows, kept for their memory.
    spare: Vec<Map<K, Pane<A>>>,
    marks: Marks<(K, Time)>,
    items: PhantomData<fn(T)>,
}

struct Opened<K, A> {
    start: Time,
    last: Time,
    told: bool,
    panes: Map<K, Pane<A>>,
}

struct Pane<A> {
    /// Nothing after a result was given and discarded.
    value: Option<A>,
    max_time: Time,
    mark: Mark,
}

const SPARE_MAX: usize = 4;

impl<K: Key, T, A: Fold<T>> Panes<K, T, A> {
    pub(crate) fn new(aligned: Aligned, options: WindowOptions) -> Self {
        Self {
            aligned,
            options,
            watermark: Time::MIN,
            next_due: Time::MAX,
            opened: Vec::new(),
            spare: Vec::new(),
            marks: Marks::default(),
            items: PhantomData,
        }
    }

    fn is_late(&self, last: Time) -> bool {
        is_late(self.watermark, last, self.options.lateness)
    }

    fn open(&mut self, start: Time) -> usize {
        // Most items belong to the newest windows.
        if let Some(found) = self.opened.iter().rposition(|opened| opened.start == start) {
            return found;
        }
        let place = self.opened.partition_point(|opened| opened.start < start);
        let last = self.aligned.last(start);
        let told = is_closed(self.watermark, last);
        let panes = self.spare.pop().unwrap_or_default();
        self.opened.insert(
            place,
            Opened {
                start,
                last,
                told,
                panes,
            },
        );
        self.find_next_due();
        place
    }

    fn find_next_due(&mut self) {
        let oldest = self.opened.first().filter(|opened| opened.told);
        let expiry = oldest.map(|opened| opened.last + self.options.lateness);
        let closing = self
            .opened
            .iter()
            .find(|opened| !opened.told)
            .map(|opened| opened.last);
        let next = expiry.into_iter().chain(closing).min();
        self.next_due = next.unwrap_or(Time::MAX);
    }

    fn close(&mut self, at: usize, closing: &mut Closing<K, A>) {
        let watermark = self.watermark;
        let options = self.options;
        let opened = &mut self.opened[at];
        opened.told = true;
        if !options.emit.on_close() {
            return;
        }
        let window = self.aligned.window(opened.start);
        let goes = is_late(watermark, opened.last, options.lateness);
        for (key, pane) in &mut opened.panes {
            let value = options.value_of(&mut pane.value, goes);
            if options.discarding && !goes {
                self.marks
                    .change(&mut pane.mark, || (key.clone(), opened.start));
            }
            if value.is_some() {
                let key = key.clone();
                let max_time = pane.max_time;
                let kind = Kind::Final;
                closing.add(
                    opened.last,
                    Emission {
                        key,
                        window,
                        kind,
                        value,
                        max_time,
                    },
                );
            }
        }
    }

    fn expire(&mut self) {
        let late = self
            .opened
            .iter()
            .take_while(|opened| is_late(self.watermark, opened.last, self.options.lateness));
        let count = late.count();
        for mut opened in self.opened.drain(..count) {
            for (key, pane) in opened.panes.drain() {
                self.marks.remove(pane.mark, || (key, opened.start));
            }
            if self.spare.len() < SPARE_MAX {
                self.spare.push(opened.panes);
            }
        }
    }
}

impl<K: Key, T: Clone, A: Fold<T>> Operator for Panes<K, T, A> {
    type In = (K, T);
    type Out = Emission<K, A>;
    type Late = Late<K, T>;

    fn next_due(&self) -> Time {
        self.next_due
    }

    fn advance(&mut self, watermark: Time, out: &mut Output<Self::Out, Self::Late>) {
        self.watermark = self.watermark.max(watermark);
        let mut closing = Closing::new();
        for at in 0..self.opened.len() {
            let opened = &self.opened[at];
            if !opened.told && is_closed(self.watermark, opened.last) {
                self.close(at, &mut closing);
            }
        }
        closing.emit_into(out);
        self.expire();
        self.find_next_due();
    }

    fn process(&mut self, input: Input<'_, Self::In>, out: &mut Output<Self::Out, Self::Late>) {
        if is_closed(input.watermark, self.next_due()) {
            self.advance(input.watermark, out);
        }
        self.watermark = self.watermark.max(input.watermark);
        let (key, item) = input.item;
        let mut missed = Vec::new();
        let mut folded = false;
        for start in self.aligned.starts(input.time) {
            let last = self.aligned.last(start);
            if self.is_late(last) {
                missed.push(self.aligned.window(start));
                continue;
            }
            folded = true;
            let at = self.open(start);
            let opened = &mut self.opened[at];
            let pane = match opened.panes.get_mut(key) {
                Some(pane) => pane,
                None => opened.panes.entry(key.clone()).or_insert_with(|| Pane {
                    value: None,
                    max_time: input.time,
                    mark: Mark::default(),
                }),
            };
            pane.value.get_or_insert_default().add(item);
            pane.max_time = pane.max_time.max(input.time);
            self.marks.change(&mut pane.mark, || (key.clone(), start));
            let closed = is_closed(self.watermark, last);
            if closed || self.options.emit.on_update() {
                let emission = Emission {
                    key: key.clone(),
                    window: self.aligned.window(start),
                    kind: Kind::at_item(closed),
                    value: self.options.value_of(&mut pane.value, false),
                    max_time: pane.max_time,
                };
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

impl<K: Key, T, A: Fold<T>> Pieces for Panes<K, T, A> {
    type Key = K;
    type Part = Time;

    fn marks(&mut self) -> &mut Marks<(K, Time)> {
        &mut self.marks
    }

    fn pieces(&self) -> Vec<(K, Time)> {
        let windows = self.opened.iter();
        windows
            .flat_map(|opened| opened.panes.keys().map(|key| (key.clone(), opened.start)))
            .collect()
    }

    fn mark(&mut self, key: &K, start: &Time) -> Option<&mut Mark> {
        let at = self
            .opened
            .binary_search_by_key(start, |opened| opened.start)
            .ok()?;
        self.opened[at]
            .panes
            .get_mut(key)
            .map(|pane| &mut pane.mark)
    }

    fn value<C: Codec>(&self, key: &K, start: &Time) -> Result<Option<Vec<u8>>, StateError> {
        let found = self
            .opened
            .binary_search_by_key(start, |opened| opened.start);
        let pane = found.ok().and_then(|at| self.opened[at].panes.get(key));
        pane.map(|pane| write_pane::<C, A>(pane.max_time, pane.value.as_ref()))
            .transpose()
    }

    fn put_back<C: Codec>(
        &mut self,
        key: K,
        start: Time,
        value: Bytes<'_>,
    ) -> Result<(), StateError> {
        let (max_time, value) = read_pane::<C, A>(value)?;
        let at = self.open(start);
        self.opened[at].panes.insert(
            key,
            Pane {
                value,
                max_time,
                mark: Mark::default(),
            },
        );
        Ok(())
    }

    fn resumed(&mut self, watermark: Time) {
        self.watermark = watermark;
        for opened in &mut self.opened {
            opened.told = is_closed(watermark, opened.last);
        }
        self.find_next_due();
    }
}

pub(super) fn write_pane<C: Codec, A: Kept>(
    max_time: Time,
    value: Option<&A>,
) -> Result<Vec<u8>, StateError> {
    let head = Value::default().time(max_time).flag(value.is_some());
    match value {
        Some(value) => head.then::<C, A>(value),
        None => Ok(head.end()),
    }
}

pub(super) fn read_pane<C: Codec, A: Kept>(
    mut from: Bytes<'_>,
) -> Result<(Time, Option<A>), StateError> {
    let max_time = from.time()?;
    let value = if from.flag()? {
        Some(from.then::<C, A>()?)
    } else {
        None
    };
    Ok((max_time, value))
}
