//! The items of one key in the order of event time, ties by their place in the log.

use crate::{
    Kept, Place, StateError, Time,
    state::{Bytes, Codec, Mark, Value},
};
use std::{collections::VecDeque, ops::Range};

pub(crate) struct Lane<T>(VecDeque<Held<T>>);

pub(crate) struct Held<T> {
    pub(crate) time: Time,
    pub(crate) place: Place,
    /// Whether it has met what it waits for.
    pub(crate) matched: bool,
    pub(crate) item: T,
    pub(crate) mark: Mark,
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Lane<T> {
    /// Puts an item into its place. Items of one record and one time get the next index, which
    /// depends on nothing but what this key holds.
    pub(crate) fn insert(&mut self, time: Time, mut place: Place, item: T) -> &mut Held<T> {
        let next_position = (time, place.partition, place.position);
        let at = self.0.partition_point(|held| {
            (held.time, held.place.partition, held.place.position) <= next_position
        });
        if let Some(before) = at.checked_sub(1).and_then(|before| self.0.get(before))
            && (before.time, before.place.partition, before.place.position) == next_position
        {
            place.index = before.place.index.saturating_add(1);
        } else {
            place.index = 0;
        }
        let mark = Mark::default();
        self.0.insert(
            at,
            Held {
                time,
                place,
                matched: false,
                item,
                mark,
            },
        );
        &mut self.0[at]
    }

    /// Indices of the items whose time is in `from..=to`.
    pub(crate) fn range(&self, from: Time, to: Time) -> Range<usize> {
        let first = self.0.partition_point(|held| held.time < from);
        let end = self.0.partition_point(|held| held.time <= to);
        first..end.max(first)
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Held<T>> {
        self.0.iter()
    }

    pub(crate) fn in_range(&self, range: Range<usize>) -> impl Iterator<Item = &Held<T>> {
        self.0.range(range)
    }

    pub(crate) fn in_range_mut(
        &mut self,
        range: Range<usize>,
    ) -> impl Iterator<Item = &mut Held<T>> {
        self.0.range_mut(range)
    }

    pub(crate) fn first(&self) -> Option<&Held<T>> {
        self.0.front()
    }

    /// Takes the first item if its time is at or before `to`.
    pub(crate) fn pop_until(&mut self, to: Time) -> Option<Held<T>> {
        self.0.pop_front_if(|held| held.time <= to)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    fn find(&self, time: Time, place: Place) -> Option<usize> {
        self.0
            .binary_search_by(|held| (held.time, held.place).cmp(&(time, place)))
            .ok()
    }

    pub(crate) fn mark(&mut self, time: Time, place: Place) -> Option<&mut Mark> {
        let at = self.find(time, place)?;
        self.0.get_mut(at).map(|held| &mut held.mark)
    }
}

impl<T: Kept> Lane<T> {
    pub(crate) fn value<C: Codec>(
        &self,
        time: Time,
        place: Place,
    ) -> Result<Option<Vec<u8>>, StateError> {
        let held = self.find(time, place).and_then(|at| self.0.get(at));
        let write = |held: &Held<T>| Value::default().flag(held.matched).then::<C, T>(&held.item);
        held.map(write).transpose()
    }

    pub(crate) fn put_back<C: Codec>(
        &mut self,
        time: Time,
        place: Place,
        mut value: Bytes<'_>,
    ) -> Result<(), StateError> {
        let matched = value.flag()?;
        let item = value.then::<C, T>()?;
        let at = self
            .0
            .partition_point(|held| (held.time, held.place) < (time, place));
        let mark = Mark::default();
        self.0.insert(
            at,
            Held {
                time,
                place,
                matched,
                item,
                mark,
            },
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_of_one_record_and_time_get_their_own_places() {
        let mut lane = Lane::default();
        let time = Time::from_micros(5);
        for item in ['a', 'b', 'c'] {
            lane.insert(time, Place::at(7), item);
        }
        let placed: Vec<_> = lane
            .iter()
            .map(|held| (held.place.index, held.item))
            .collect();
        assert_eq!(placed, [(0, 'a'), (1, 'b'), (2, 'c')]);
    }
}
