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
    window::opened::OpenWindows,
};
use std::marker::PhantomData;

pub(crate) struct Panes<K, T, A> {
    aligned: Aligned,
    options: WindowOptions,
    watermark: Time,
    opened: OpenWindows<Map<K, Pane<A>>>,
    /// Maps of closed windows, kept for their memory.
    spare: Vec<Map<K, Pane<A>>>,
    marks: Marks<(K, Time)>,
    items: PhantomData<fn(T)>,
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
            opened: OpenWindows::new(aligned, options.lateness),
            spare: Vec::new(),
            marks: Marks::default(),
            items: PhantomData,
        }
    }

    fn is_late(&self, last: Time) -> bool {
        is_late(self.watermark, last, self.options.lateness)
    }

    fn expire(&mut self) {
        for mut opened in self.opened.expire(self.watermark) {
            for (key, pane) in opened.keys.drain() {
                self.marks.remove(pane.mark, || (key, opened.start));
            }
            if self.spare.len() < SPARE_MAX {
                self.spare.push(opened.keys);
            }
        }
    }
}

impl<K: Key, T: Clone, A: Fold<T>> Operator for Panes<K, T, A> {
    type In = (K, T);
    type Out = Emission<K, A>;
    type Late = Late<K, T>;

    fn next_due(&self) -> Time {
        self.opened.next_due()
    }

    fn advance(&mut self, watermark: Time, out: &mut Output<Self::Out, Self::Late>) {
        self.watermark = self.watermark.max(watermark);
        let options = self.options;
        let mut closing = Closing::new();
        for opened in self.opened.closing(self.watermark) {
            opened.told = true;
            if !options.emit.on_close() {
                continue;
            }
            let window = self.aligned.window(opened.start);
            let goes = is_late(self.watermark, opened.last, options.lateness);
            for (key, pane) in &mut opened.keys {
                let value = options.value_of(&mut pane.value, goes);
                if options.discarding && !goes {
                    self.marks
                        .change(&mut pane.mark, || (key.clone(), opened.start));
                }
                if value.is_some() {
                    let emission = Emission {
                        key: key.clone(),
                        window,
                        kind: Kind::Final,
                        value,
                        max_time: pane.max_time,
                    };
                    closing.add(opened.last, emission);
                }
            }
        }
        closing.emit_into(out);
        self.expire();
        self.opened.find_next_due();
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
            let fresh = || self.spare.pop().unwrap_or_default();
            let panes = &mut self.opened.open(start, self.watermark, fresh).keys;
            let pane = match panes.get_mut(key) {
                Some(pane) => pane,
                None => panes.entry(key.clone()).or_insert_with(|| Pane {
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
            .flat_map(|opened| opened.keys.keys().map(|key| (key.clone(), opened.start)))
            .collect()
    }

    fn mark(&mut self, key: &K, start: &Time) -> Option<&mut Mark> {
        let opened = self.opened.find_mut(*start)?;
        opened.keys.get_mut(key).map(|pane| &mut pane.mark)
    }

    fn value<C: Codec>(&self, key: &K, start: &Time) -> Result<Option<Vec<u8>>, StateError> {
        let opened = self.opened.find(*start);
        let pane = opened.and_then(|opened| opened.keys.get(key));
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
        let opened = self.opened.open(start, self.watermark, Map::default);
        opened.keys.insert(
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
        self.opened.resume(watermark);
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
