//! Two tables of the same keys, and the rows of a table as they change.

use crate::{
    Input, JoinType, Kept, Key, Operator, Output, Side, StateError, Time,
    hash::Map,
    join::RowOf,
    state::{Bytes, Codec, Mark, Marks, Pieces, Value},
};
use serde::{Deserialize, Serialize};

/// Which of two changes of a row is the newer one.
///
/// ```
/// use annals_streams::Newer;
///
/// assert_eq!(Newer::default(), Newer::ByTime);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Newer {
    /// The one with the larger event time; the later one of equal times. An older change that
    /// comes afterwards is of no effect. That a row was deleted is remembered for that.
    #[default]
    ByTime,
    /// The one that came later.
    ByArrival,
}

/// A change of a row: what it is now, and what it was.
///
/// ```
/// use annals_streams::Change;
///
/// let change = Change { key: "tea", new: Some(4), old: Some(3) };
/// assert_ne!(change.new, change.old);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change<K, V> {
    /// Which row.
    pub key: K,
    /// What it is now; nothing when it is gone.
    pub new: Option<V>,
    /// What it was, for those who subtract; nothing when it was not there.
    pub old: Option<V>,
}

impl<K, V> Change<K, V> {
    pub(crate) fn of(key: K, new: Option<V>, old: Option<V>) -> Self {
        Self { key, new, old }
    }
}

/// One row of a table as it is now.
pub(crate) struct Current<V> {
    pub(crate) value: Option<V>,
    pub(crate) time: Time,
    pub(crate) mark: Mark,
}

/// The rows of a table.
pub(crate) struct Rows<K, V> {
    newer: Newer,
    rows: Map<K, Current<V>>,
}

impl<K: Key, V: Kept> Rows<K, V> {
    pub(crate) fn new(newer: Newer) -> Self {
        Self {
            newer,
            rows: Map::default(),
        }
    }

    pub(crate) fn get(&self, key: &K) -> Option<(&V, Time)> {
        let row = self.rows.get(key)?;
        row.value.as_ref().map(|value| (value, row.time))
    }

    /// Sets a row and gives back what it was; nothing if this change is older than what is there.
    pub(crate) fn set<A>(
        &mut self,
        key: &K,
        value: Option<V>,
        time: Time,
        marks: &mut Marks<A>,
        at: impl FnOnce() -> A,
    ) -> Option<Option<V>> {
        let by_time = self.newer == Newer::ByTime;
        let Some(row) = self.rows.get_mut(key) else {
            if value.is_some() || by_time {
                let mut row = Current {
                    value,
                    time,
                    mark: Mark::default(),
                };
                marks.change(&mut row.mark, at);
                self.rows.insert(key.clone(), row);
            }
            return Some(None);
        };
        if by_time && time < row.time {
            return None;
        }
        let old = std::mem::replace(&mut row.value, value);
        row.time = time;
        if row.value.is_none() && !by_time {
            marks.remove(row.mark, at);
            self.rows.remove(key);
        } else {
            marks.change(&mut row.mark, at);
        }
        Some(old)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.rows.keys()
    }

    pub(crate) fn mark(&mut self, key: &K) -> Option<&mut Mark> {
        self.rows.get_mut(key).map(|row| &mut row.mark)
    }

    pub(crate) fn value<C: Codec>(&self, key: &K) -> Result<Option<Vec<u8>>, StateError> {
        let row = self.rows.get(key);
        row.map(|row| Value::default().time(row.time).then::<C, _>(&row.value))
            .transpose()
    }

    pub(crate) fn put_back<C: Codec>(
        &mut self,
        key: K,
        mut from: Bytes<'_>,
    ) -> Result<(), StateError> {
        let time = from.time()?;
        let value = from.then::<C, Option<V>>()?;
        self.rows.insert(
            key,
            Current {
                value,
                time,
                mark: Mark::default(),
            },
        );
        Ok(())
    }
}

/// Joins two tables of the same keys; a change of either side causes a change of the row.
///
/// A change has the larger time of both sides. Deleting a row that was not there says nothing, or
/// repeats what holds.
///
/// ```
/// use annals_streams::{
///     Input, JoinType, Newer, Operator, Output, Place, Side, TableJoin, Time,
/// };
///
/// let row = |name: Option<&String>, cents: Option<&i64>| (name.cloned(), cents.copied());
/// let mut products = TableJoin::new(JoinType::Inner, Newer::ByTime, row);
/// let mut out = Output::new();
/// for item in [Side::Left((7_u64, Some("tea".to_string()))), Side::Right((7, Some(250)))] {
///     let time = Time::from_micros(1);
///     let place = Place::at(1);
///     products.process(Input { watermark: Time::MIN, time, place, item: &item }, &mut out);
/// }
/// assert_eq!(out.rows[0].item.new, Some((Some("tea".to_string()), Some(250))));
/// ```
pub struct TableJoin<K, L, R, O> {
    join: JoinType,
    row: RowOf<L, R, O>,
    left: Rows<K, L>,
    right: Rows<K, R>,
    marks: Marks<(K, u8)>,
}

const LEFT: u8 = 0;
const RIGHT: u8 = 1;

impl<K: Key, L: Kept, R: Kept, O> TableJoin<K, L, R, O> {
    /// A join of empty tables.
    ///
    /// ```
    /// # use annals_streams::{JoinType, Newer, TableJoin};
    /// let row = |left: Option<&u8>, right: Option<&u8>| (left.copied(), right.copied());
    /// TableJoin::<String, _, _, _>::new(JoinType::Outer, Newer::ByTime, row);
    /// ```
    pub fn new(
        join: JoinType,
        newer: Newer,
        row: impl Fn(Option<&L>, Option<&R>) -> O + Send + Sync + 'static,
    ) -> Self {
        Self {
            join,
            row: Box::new(row),
            left: Rows::new(newer),
            right: Rows::new(newer),
            marks: Marks::default(),
        }
    }

    /// Which of two changes of a right row is the newer one, when that differs from the left.
    ///
    /// ```
    /// # use annals_streams::{JoinType, Newer, TableJoin};
    /// let row = |left: Option<&u8>, right: Option<&u8>| (left.copied(), right.copied());
    /// TableJoin::<String, _, _, _>::new(JoinType::Outer, Newer::ByTime, row)
    ///     .right_newer(Newer::ByArrival);
    /// ```
    #[must_use]
    pub fn right_newer(mut self, newer: Newer) -> Self {
        self.right = Rows::new(newer);
        self
    }

    fn joined(&self, left: Option<&L>, right: Option<&R>) -> Option<O> {
        let exists = match self.join {
            JoinType::Inner => left.is_some() && right.is_some(),
            JoinType::Left => left.is_some(),
            JoinType::Outer => left.is_some() || right.is_some(),
        };
        exists.then(|| (self.row)(left, right))
    }
}

impl<K: Key, L: Kept, R: Kept, O> Operator for TableJoin<K, L, R, O> {
    type In = Side<(K, Option<L>), (K, Option<R>)>;
    type Out = Change<K, O>;
    type Late = ();

    fn check_item<C: Codec>(item: &Self::In) -> Result<(), StateError> {
        item.check_value::<C>()
    }

    fn next_due(&self) -> Time {
        Time::MAX
    }

    fn advance(&mut self, _: Time, _: &mut Output<Self::Out, Self::Late>) {}

    fn process(&mut self, input: Input<'_, Self::In>, out: &mut Output<Self::Out, Self::Late>) {
        let time = input.time;
        let (key, new, old, met) = match input.item {
            Side::Left((key, value)) => {
                let at = || (key.clone(), LEFT);
                let set = self.left.set(key, value.clone(), time, &mut self.marks, at);
                let Some(old) = set else {
                    return;
                };
                let other = self.right.get(key);
                let silent = self.join == JoinType::Inner || (value.is_none() && old.is_none());
                if other.is_none() && silent {
                    return;
                }
                let right = other.map(|(right, _)| right);
                let new = self.joined(value.as_ref(), right);
                let old = self.joined(old.as_ref(), right);
                (key, new, old, other.map(|(_, met)| met))
            }
            Side::Right((key, value)) => {
                let at = || (key.clone(), RIGHT);
                let set = self
                    .right
                    .set(key, value.clone(), time, &mut self.marks, at);
                let Some(old) = set else {
                    return;
                };
                let other = self.left.get(key);
                let silent = self.join != JoinType::Outer || (value.is_none() && old.is_none());
                if other.is_none() && silent {
                    return;
                }
                let left = other.map(|(left, _)| left);
                let new = self.joined(left, value.as_ref());
                let old = self.joined(left, old.as_ref());
                (key, new, old, other.map(|(_, met)| met))
            }
        };
        let time = met.map_or(time, |met| met.max(time));
        out.emit(time, Change::of(key.clone(), new, old));
    }
}

impl<K: Key, L: Kept, R: Kept, O> Pieces for TableJoin<K, L, R, O> {
    type Key = K;
    type Part = u8;

    fn marks(&mut self) -> &mut Marks<(K, u8)> {
        &mut self.marks
    }

    fn pieces(&self) -> Vec<(K, u8)> {
        let left = self.left.keys().map(|key| (key.clone(), LEFT));
        left.chain(self.right.keys().map(|key| (key.clone(), RIGHT)))
            .collect()
    }

    fn mark(&mut self, key: &K, side: &u8) -> Option<&mut Mark> {
        match *side {
            LEFT => self.left.mark(key),
            _ => self.right.mark(key),
        }
    }

    fn value<C: Codec>(&self, key: &K, side: &u8) -> Result<Option<Vec<u8>>, StateError> {
        match *side {
            LEFT => self.left.value::<C>(key),
            _ => self.right.value::<C>(key),
        }
    }

    fn put_back<C: Codec>(&mut self, key: K, side: u8, from: Bytes<'_>) -> Result<(), StateError> {
        match side {
            LEFT => self.left.put_back::<C>(key, from),
            RIGHT => self.right.put_back::<C>(key, from),
            other => Err(StateError::new(format!("a join has no side {other}"))),
        }
    }

    fn resumed(&mut self, _: Time) {}
}
