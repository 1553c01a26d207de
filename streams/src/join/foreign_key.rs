//! Two tables of different keys: the left rows say which right row they refer to.

use crate::{
    Change, Input, JoinType, Kept, Key, Newer, Operator, Output, Side, StateError, Time,
    hash::Map,
    join::{RowOf, table::Rows},
    state::{Bytes, Codec, Mark, Marks, Pieces},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Joins a table with another one that its rows refer to.
///
/// Results are keyed by the left key. A change of a right row reaches all left rows that refer to
/// it, in the order of their keys; right rows without a reference give no result. A change that
/// changes nothing says nothing.
///
/// ```
/// use annals_streams::{
///     ForeignKeyJoin, Input, JoinType, Newer, Operator, Output, Place, Side, Time,
/// };
///
/// let refers_to = |order: &(String, u32)| Some(order.0.clone());
/// let row = |order: Option<&(String, u32)>, cents: Option<&u32>| {
///     order.zip(cents).map(|(order, cents)| order.1 * cents)
/// };
/// let mut orders = ForeignKeyJoin::new(JoinType::Inner, Newer::ByTime, refers_to, row);
/// let mut out = Output::new();
/// for item in [
///     Side::Left((1_u64, Some(("tea".to_string(), 2)))),
///     Side::Right(("tea".to_string(), Some(250))),
/// ] {
///     let time = Time::from_micros(1);
///     let place = Place::at(1);
///     orders.process(Input { watermark: Time::MIN, time, place, item: &item }, &mut out);
/// }
/// assert_eq!(out.rows[0].item.new, Some(Some(500)));
/// ```
pub struct ForeignKeyJoin<K, J, L, R, O> {
    join: JoinType,
    refers_to: Reference<L, J>,
    row: RowOf<L, R, O>,
    left: Rows<K, L>,
    right: Rows<J, R>,
    referring: Map<J, BTreeSet<K>>,
    marks: Marks<(Either<K, J>, ())>,
}

type Reference<L, J> = Box<dyn Fn(&L) -> Option<J> + Send + Sync>;

/// A key of one of the two tables.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum Either<K, J> {
    Left(K),
    Right(J),
}

impl<K, J, L, R, O> ForeignKeyJoin<K, J, L, R, O>
where
    K: Key,
    J: Key,
    L: Kept + PartialEq,
    R: Kept + PartialEq,
{
    /// A join of empty tables. `refers_to` names the right row of a left one, if it refers to any.
    /// An outer join is taken as a left one.
    ///
    /// ```
    /// # use annals_streams::{ForeignKeyJoin, JoinType, Newer};
    /// let row = |left: Option<&u8>, right: Option<&u8>| (left.copied(), right.copied());
    /// let refers_to = |left: &u8| Some(*left);
    /// ForeignKeyJoin::<u64, u8, _, _, _>::new(JoinType::Left, Newer::ByTime, refers_to, row);
    /// ```
    pub fn new(
        join: JoinType,
        newer: Newer,
        refers_to: impl Fn(&L) -> Option<J> + Send + Sync + 'static,
        row: impl Fn(Option<&L>, Option<&R>) -> O + Send + Sync + 'static,
    ) -> Self {
        Self {
            join,
            refers_to: Box::new(refers_to),
            row: Box::new(row),
            left: Rows::new(newer),
            right: Rows::new(newer),
            referring: Map::default(),
            marks: Marks::default(),
        }
    }

    /// Which of two changes of a right row is the newer one, when that differs from the left.
    ///
    /// ```
    /// # use annals_streams::{ForeignKeyJoin, JoinType, Newer};
    /// let row = |left: Option<&u8>, right: Option<&u8>| (left.copied(), right.copied());
    /// let refers_to = |left: &u8| Some(*left);
    /// ForeignKeyJoin::<u64, u8, _, _, _>::new(JoinType::Left, Newer::ByTime, refers_to, row)
    ///     .right_newer(Newer::ByArrival);
    /// ```
    #[must_use]
    pub fn right_newer(mut self, newer: Newer) -> Self {
        self.right = Rows::new(newer);
        self
    }

    fn joined(&self, left: Option<&L>, right: Option<&R>) -> Option<O> {
        let left = left?;
        let exists = right.is_some() || self.join.keeps_left();
        exists.then(|| (self.row)(Some(left), right))
    }

    fn set_left(
        &mut self,
        key: &K,
        value: Option<&L>,
        time: Time,
        out: &mut Output<Change<K, O>, ()>,
    ) {
        let at = || (Either::Left(key.clone()), ());
        let set = self
            .left
            .set(key, value.cloned(), time, &mut self.marks, at);
        let Some(old) = set else {
            return;
        };
        if old.as_ref() == value {
            return;
        }
        let old_reference = old.as_ref().and_then(|old| (self.refers_to)(old));
        let reference = value.and_then(|value| (self.refers_to)(value));
        if old_reference != reference {
            self.forget(old_reference.as_ref(), key);
            self.refer(reference.as_ref(), key);
        }
        let old_right = old_reference
            .as_ref()
            .and_then(|right| self.right.get(right));
        let right = reference.as_ref().and_then(|right| self.right.get(right));
        let time = right
            .or(old_right)
            .map_or(time, |(_, other)| other.max(time));
        let old = self.joined(old.as_ref(), old_right.map(|(right, _)| right));
        let new = self.joined(value, right.map(|(right, _)| right));
        if new.is_some() || old.is_some() {
            out.emit(time, Change::of(key.clone(), new, old));
        }
    }

    fn set_right(
        &mut self,
        key: &J,
        value: Option<&R>,
        time: Time,
        out: &mut Output<Change<K, O>, ()>,
    ) {
        let at = || (Either::Right(key.clone()), ());
        let set = self
            .right
            .set(key, value.cloned(), time, &mut self.marks, at);
        let Some(old) = set else {
            return;
        };
        if old.as_ref() == value {
            return;
        }
        for referring in self.referring.get(key).into_iter().flatten() {
            let Some((left, other)) = self.left.get(referring) else {
                continue;
            };
            let new = self.joined(Some(left), value);
            let old = self.joined(Some(left), old.as_ref());
            if new.is_some() || old.is_some() {
                out.emit(time.max(other), Change::of(referring.clone(), new, old));
            }
        }
    }

    fn refer(&mut self, right: Option<&J>, left: &K) {
        if let Some(right) = right {
            self.referring
                .entry(right.clone())
                .or_default()
                .insert(left.clone());
        }
    }

    fn forget(&mut self, right: Option<&J>, left: &K) {
        if let Some(right) = right
            && let Some(keys) = self.referring.get_mut(right)
        {
            keys.remove(left);
            if keys.is_empty() {
                self.referring.remove(right);
            }
        }
    }
}

impl<K, J, L, R, O> Operator for ForeignKeyJoin<K, J, L, R, O>
where
    K: Key,
    J: Key,
    L: Kept + PartialEq,
    R: Kept + PartialEq,
{
    type In = Side<(K, Option<L>), (J, Option<R>)>;
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
        match input.item {
            Side::Left((key, value)) => self.set_left(key, value.as_ref(), input.time, out),
            Side::Right((key, value)) => self.set_right(key, value.as_ref(), input.time, out),
        }
    }
}

impl<K, J, L, R, O> Pieces for ForeignKeyJoin<K, J, L, R, O>
where
    K: Key,
    J: Key,
    L: Kept + PartialEq,
    R: Kept + PartialEq,
{
    type Key = Either<K, J>;
    type Part = ();

    fn marks(&mut self) -> &mut Marks<(Either<K, J>, ())> {
        &mut self.marks
    }

    fn pieces(&self) -> Vec<(Either<K, J>, ())> {
        let left = self.left.keys().map(|key| (Either::Left(key.clone()), ()));
        left.chain(
            self.right
                .keys()
                .map(|key| (Either::Right(key.clone()), ())),
        )
        .collect()
    }

    fn mark(&mut self, key: &Either<K, J>, (): &()) -> Option<&mut Mark> {
        match key {
            Either::Left(key) => self.left.mark(key),
            Either::Right(key) => self.right.mark(key),
        }
    }

    fn value<C: Codec>(&self, key: &Either<K, J>, (): &()) -> Result<Option<Vec<u8>>, StateError> {
        match key {
            Either::Left(key) => self.left.value::<C>(key),
            Either::Right(key) => self.right.value::<C>(key),
        }
    }

    fn put_back<C: Codec>(
        &mut self,
        key: Either<K, J>,
        (): (),
        from: Bytes<'_>,
    ) -> Result<(), StateError> {
        match key {
            Either::Left(key) => self.left.put_back::<C>(key, from),
            Either::Right(key) => self.right.put_back::<C>(key, from),
        }
    }

    fn resumed(&mut self, _: Time) {
        let mut referring: Map<J, BTreeSet<K>> = Map::default();
        for key in self.left.keys() {
            let left = self.left.get(key);
            if let Some(right) = left.and_then(|(left, _)| (self.refers_to)(left)) {
                referring.entry(right).or_default().insert(key.clone());
            }
        }
        self.referring = referring;
    }
}
