//! Items in the order of event time, once no earlier one is expected.

use crate::{
    Input, Kept, Key, Operator, Output, StateError, Time,
    due::{DueIndex, is_closed},
    hash::Map,
    lane::Lane,
    operator::Place,
    state::{Bytes, Codec, Mark, Marks, Pieces, holds},
};
use std::collections::BTreeSet;

/// Holds items back until the watermark reaches them and lets them go in the order of
/// (time, key, place).
///
/// An item at or before the watermark goes to the late side output.
///
/// ```
/// use annals_streams::{InTimeOrder, Input, Operator, Output, Place, Time};
///
/// let mut sorted = InTimeOrder::<String, char>::new();
/// let mut out = Output::new();
/// for (position, time, letter) in [(1, 20, 'b'), (2, 10, 'a')] {
///     let item = ("ann".to_string(), letter);
///     let time = Time::from_micros(time);
///     let place = Place::at(position);
///     sorted.process(Input { watermark: Time::MIN, time, place, item: &item }, &mut out);
/// }
/// sorted.advance(Time::from_micros(20), &mut out);
/// assert_eq!(out.rows[0].item.1, 'a');
/// ```
pub struct InTimeOrder<K, T> {
    watermark: Time,
    keys: Map<K, Lane<T>>,
    due: DueIndex<K>,
    marks: Marks<(K, (Time, Place))>,
}

/// An item whose turn has come.
pub(crate) struct Turn<K, T> {
    pub(crate) time: Time,
    pub(crate) key: K,
    pub(crate) place: Place,
    pub(crate) item: T,
}

impl<K: Key, T: Kept> Default for InTimeOrder<K, T> {
    fn default() -> Self {
        Self {
            watermark: Time::MIN,
            keys: Map::default(),
            due: DueIndex::new(),
            marks: Marks::default(),
        }
    }
}

impl<K: Key, T: Kept> InTimeOrder<K, T> {
    /// Holds nothing yet.
    ///
    /// ```
    /// # use annals_streams::InTimeOrder;
    /// InTimeOrder::<u64, u64>::new();
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn next_turn(&self) -> Time {
        self.due.next()
    }

    /// Takes an item unless it is late.
    pub(crate) fn hold(&mut self, watermark: Time, time: Time, place: Place, of: &(K, T)) -> bool {
        self.watermark = self.watermark.max(watermark);
        if is_closed(self.watermark, time) {
            return false;
        }
        let (key, item) = of;
        if !self.keys.contains_key(key) {
            self.keys.insert(key.clone(), Lane::default());
        }
        if let Some(lane) = self.keys.get_mut(key) {
            let first = lane.first().map(|held| held.time);
            let held = lane.insert(time, place, item.clone());
            self.marks
                .change(&mut held.mark, || (key.clone(), (time, held.place)));
            if first.is_none_or(|first| time < first) {
                self.due.insert(time, key.clone());
            }
        }
        true
    }

    /// Takes out what the watermark has reached, in order.
    pub(crate) fn release(&mut self, watermark: Time) -> Vec<Turn<K, T>> {
        self.watermark = self.watermark.max(watermark);
        let mut keys = BTreeSet::new();
        while let Some((_, key)) = self.due.pop(self.watermark) {
            keys.insert(key);
        }
        let mut turns = Vec::new();
        for key in keys {
            let Some(lane) = self.keys.get_mut(&key) else {
                continue;
            };
            while let Some(held) = lane.pop_until(self.watermark) {
                self.marks
                    .remove(held.mark, || (key.clone(), (held.time, held.place)));
                let key = key.clone();
                turns.push(Turn {
                    time: held.time,
                    key,
                    place: held.place,
                    item: held.item,
                });
            }
            match lane.first().map(|held| held.time) {
                Some(next) => self.due.insert(next, key),
                None => {
                    self.keys.remove(&key);
                }
            }
        }
        turns.sort_by(|one, other| {
            (one.time, &one.key, one.place).cmp(&(other.time, &other.key, other.place))
        });
        turns
    }
}

impl<K: Key, T: Kept> Operator for InTimeOrder<K, T> {
    type In = (K, T);
    type Out = (K, T);
    type Late = (K, T);

    fn check_item<C: Codec>((_, item): &Self::In) -> Result<(), StateError> {
        holds::<C, _>(item)
    }

    fn next_due(&self) -> Time {
        self.due.next()
    }

    fn advance(&mut self, watermark: Time, out: &mut Output<Self::Out, Self::Late>) {
        for turn in self.release(watermark) {
            out.emit(turn.time, (turn.key, turn.item));
        }
    }

    fn process(&mut self, input: Input<'_, Self::In>, out: &mut Output<Self::Out, Self::Late>) {
        if is_closed(input.watermark, self.next_due()) {
            self.advance(input.watermark, out);
        }
        if !self.hold(input.watermark, input.time, input.place, input.item) {
            out.refuse(input.time, input.item.clone());
        }
    }
}

impl<K: Key, T: Kept> Pieces for InTimeOrder<K, T> {
    type Key = K;
    type Part = (Time, Place);

    fn marks(&mut self) -> &mut Marks<(K, (Time, Place))> {
        &mut self.marks
    }

    fn pieces(&self) -> Vec<(K, (Time, Place))> {
        let keys = self.keys.iter();
        keys.flat_map(|(key, lane)| {
            lane.iter()
                .map(|held| (key.clone(), (held.time, held.place)))
        })
        .collect()
    }

    fn mark(&mut self, key: &K, part: &(Time, Place)) -> Option<&mut Mark> {
        self.keys.get_mut(key)?.mark(part.0, part.1)
    }

    fn value<C: Codec>(
        &self,
        key: &K,
        part: &(Time, Place),
    ) -> Result<Option<Vec<u8>>, StateError> {
        match self.keys.get(key) {
            Some(lane) => lane.value::<C>(part.0, part.1),
            None => Ok(None),
        }
    }

    fn put_back<C: Codec>(
        &mut self,
        key: K,
        part: (Time, Place),
        value: Bytes<'_>,
    ) -> Result<(), StateError> {
        self.keys
            .entry(key)
            .or_default()
            .put_back::<C>(part.0, part.1, value)
    }

    fn resumed(&mut self, watermark: Time) {
        self.watermark = watermark;
        self.due = DueIndex::new();
        for (key, lane) in &self.keys {
            if let Some(held) = lane.first() {
                self.due.insert(held.time, key.clone());
            }
        }
    }
}
