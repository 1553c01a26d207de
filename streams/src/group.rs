//! A table grouped by another key: what its rows add to a group they take back when they change.

use crate::{
    Change, Input, Kept, Key, Newer, Operator, Output, StateError, TakeBack, Time,
    hash::Map,
    join::table::Rows,
    state::{Bytes, Codec, Mark, Marks, Pieces, Value, holds},
};
use serde::{Deserialize, Serialize};

/// Groups the rows of a table and folds each group.
///
/// A row that changes gives its old value back and adds its new one: one result when it stays in
/// its group, two when it moves, the group that it left first. A row without a group counts
/// nowhere. The time of a result is the largest of its group so far. A group that became empty
/// stays, with what its fold makes of that.
///
/// ```
/// use annals_streams::{Count, GroupBy, Input, Newer, Operator, Output, Place, Time};
///
/// let by_colour = |_: &u64, colour: &String| Some(colour.clone());
/// let mut colours = GroupBy::<u64, String, String, Count>::new(Newer::ByTime, by_colour);
/// let mut out = Output::new();
/// for (position, colour) in [(1, "green"), (2, "blue")] {
///     let item = (7, Some(colour.to_string()));
///     let time = Time::from_micros(position as i64);
///     let place = Place::at(position);
///     colours.process(Input { watermark: Time::MIN, time, place, item: &item }, &mut out);
/// }
/// let counts: Vec<_> = out.take().into_iter().map(|change| (change.key, change.new)).collect();
/// let count = |colour: &str, count| (colour.to_string(), Some(Count(count)));
/// assert_eq!(counts, [count("green", 1), count("green", 0), count("blue", 1)]);
/// ```
pub struct GroupBy<K, G, V, A> {
    group: GroupOf<K, V, G>,
    rows: Rows<K, V>,
    groups: Map<G, Group<A>>,
    marks: Marks<(RowOrGroup<K, G>, ())>,
}

type GroupOf<K, V, G> = Box<dyn Fn(&K, &V) -> Option<G> + Send + Sync>;

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum RowOrGroup<K, G> {
    Row(K),
    Group(G),
}

struct Group<A> {
    value: A,
    time: Time,
    mark: Mark,
}

impl<K: Key, G: Key, V: Kept, A: TakeBack<V>> GroupBy<K, G, V, A> {
    /// No groups yet; `group` names the group of a row.
    ///
    /// ```
    /// # use annals_streams::{Count, GroupBy, Newer};
    /// GroupBy::<u64, bool, u64, Count>::new(Newer::ByTime, |_, value| Some(*value > 9));
    /// ```
    pub fn new(newer: Newer, group: impl Fn(&K, &V) -> Option<G> + Send + Sync + 'static) -> Self {
        Self {
            group: Box::new(group),
            rows: Rows::new(newer),
            groups: Map::default(),
            marks: Marks::default(),
        }
    }

    fn change(
        &mut self,
        group: G,
        time: Time,
        with: impl FnOnce(&mut A),
        out: &mut Output<Change<G, A>, ()>,
    ) {
        let before = self.groups.get(&group).map(|known| known.value.clone());
        let fresh = || Group {
            value: A::default(),
            time,
            mark: Mark::default(),
        };
        let known = self.groups.entry(group.clone()).or_insert_with(fresh);
        with(&mut known.value);
        known.time = known.time.max(time);
        self.marks
            .change(&mut known.mark, || (RowOrGroup::Group(group.clone()), ()));
        let new = Some(known.value.clone());
        out.emit(known.time, Change::of(group, new, before));
    }
}

impl<K: Key, G: Key, V: Kept, A: TakeBack<V>> Operator for GroupBy<K, G, V, A> {
    type In = (K, Option<V>);
    type Out = Change<G, A>;
    type Late = ();

    fn check_item<C: Codec>((_, item): &Self::In) -> Result<(), StateError> {
        holds::<C, _>(item)
    }

    fn check_result<C: Codec>(result: &Self::Out) -> Result<(), StateError> {
        holds::<C, _>(&result.new)
    }

    fn next_due(&self) -> Time {
        Time::MAX
    }

    fn advance(&mut self, _: Time, _: &mut Output<Self::Out, Self::Late>) {}

    fn process(&mut self, input: Input<'_, Self::In>, out: &mut Output<Self::Out, Self::Late>) {
        let (key, value) = input.item;
        let at = || (RowOrGroup::Row(key.clone()), ());
        let set = self
            .rows
            .set(key, value.clone(), input.time, &mut self.marks, at);
        let Some(old) = set else {
            return;
        };
        let of = |value: &Option<V>| value.as_ref().and_then(|value| (self.group)(key, value));
        let left = of(&old);
        let joined = of(value);
        match (left, joined) {
            (Some(left), Some(joined)) if left == joined => {
                let exchange = |fold: &mut A| {
                    old.iter().for_each(|old| fold.take_back(old));
                    value.iter().for_each(|new| fold.add(new));
                };
                self.change(joined, input.time, exchange, out);
            }
            (left, joined) => {
                if let (Some(left), Some(old)) = (left, old) {
                    self.change(left, input.time, |fold| fold.take_back(&old), out);
                }
                if let (Some(joined), Some(new)) = (joined, value) {
                    self.change(joined, input.time, |fold| fold.add(new), out);
                }
            }
        }
    }
}

impl<K: Key, G: Key, V: Kept, A: TakeBack<V>> Pieces for GroupBy<K, G, V, A> {
    type Key = RowOrGroup<K, G>;
    type Part = ();

    fn marks(&mut self) -> &mut Marks<(RowOrGroup<K, G>, ())> {
        &mut self.marks
    }

    fn pieces(&self) -> Vec<(RowOrGroup<K, G>, ())> {
        let rows = self
            .rows
            .keys()
            .map(|key| (RowOrGroup::Row(key.clone()), ()));
        rows.chain(
            self.groups
                .keys()
                .map(|key| (RowOrGroup::Group(key.clone()), ())),
        )
        .collect()
    }

    fn mark(&mut self, key: &RowOrGroup<K, G>, (): &()) -> Option<&mut Mark> {
        match key {
            RowOrGroup::Row(key) => self.rows.mark(key),
            RowOrGroup::Group(key) => self.groups.get_mut(key).map(|known| &mut known.mark),
        }
    }

    fn value<C: Codec>(
        &self,
        key: &RowOrGroup<K, G>,
        (): &(),
    ) -> Result<Option<Vec<u8>>, StateError> {
        let key = match key {
            RowOrGroup::Row(key) => return self.rows.value::<C>(key),
            RowOrGroup::Group(key) => key,
        };
        let known = self.groups.get(key);
        let write = |known: &Group<A>| Value::default().time(known.time).then::<C, A>(&known.value);
        known.map(write).transpose()
    }

    fn put_back<C: Codec>(
        &mut self,
        key: RowOrGroup<K, G>,
        (): (),
        mut from: Bytes<'_>,
    ) -> Result<(), StateError> {
        match key {
            RowOrGroup::Row(key) => self.rows.put_back::<C>(key, from),
            RowOrGroup::Group(key) => {
                let time = from.time()?;
                let value = from.then::<C, A>()?;
                self.groups.insert(
                    key,
                    Group {
                        value,
                        time,
                        mark: Mark::default(),
                    },
                );
                Ok(())
            }
        }
    }

    fn resumed(&mut self, _: Time) {}
}
