//! A stream with a table: each item meets the value that its key had at the item's own time.

use crate::{
    Input, JoinType, Kept, Key, Newer, Operator, Output, Side, Span, StateError, Time,
    due::{DueIndex, is_closed, is_late},
    hash::Map,
    join::RowOf,
    lane::Lane,
    operator::Place,
    state::{Bytes, Codec, Mark, Marks, Pieces, Value},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Which value of a table an item meets.
///
/// ```
/// use annals_streams::{AsOfOptions, Span, Versions};
///
/// let as_of = AsOfOptions::as_of();
/// assert_eq!(as_of.versions, Versions::Waiting);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Versions {
    /// The newest at or before the item's own time, once no earlier change of the table is
    /// expected: the answer does not depend on which of the two came first.
    #[default]
    Waiting,
    /// The newest at or before the item's own time, of those that are known when it comes.
    AtOnce,
    /// Whatever the table holds when the item comes.
    Newest,
}

/// How a stream meets a table.
///
/// ```
/// use annals_streams::{AsOfOptions, Span};
///
/// let patient = AsOfOptions::as_of().allow_late(Span::from_micros(5));
/// assert_eq!(patient.lateness, Span::from_micros(5));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AsOfOptions {
    /// Which value is met.
    pub versions: Versions,
    /// How long after its time an item is still answered, and old versions are kept for it.
    pub lateness: Span,
    /// Which of two changes of a row is the newer one. By arrival a change holds from the later of
    /// its own time and that of the change before it.
    pub newer: Newer,
}

impl AsOfOptions {
    /// Items wait until the table is certain as of their time.
    ///
    /// ```
    /// # use annals_streams::{AsOfOptions, Versions};
    /// assert_eq!(AsOfOptions::as_of().versions, Versions::Waiting);
    /// ```
    pub fn as_of() -> Self {
        Self::default()
    }

    /// Items are answered at once, as of their time.
    ///
    /// ```
    /// # use annals_streams::{AsOfOptions, Versions};
    /// assert_eq!(AsOfOptions::at_once().versions, Versions::AtOnce);
    /// ```
    pub fn at_once() -> Self {
        Self {
            versions: Versions::AtOnce,
            ..Self::default()
        }
    }

    /// Items are answered at once with what the table holds; no item is late.
    ///
    /// ```
    /// # use annals_streams::{AsOfOptions, Versions};
    /// assert_eq!(AsOfOptions::newest().versions, Versions::Newest);
    /// ```
    pub fn newest() -> Self {
        Self {
            versions: Versions::Newest,
            ..Self::default()
        }
    }

    /// Changes of the table come in the order in which they hold, as those of a joined or grouped
    /// table do.
    ///
    /// ```
    /// # use annals_streams::{AsOfOptions, Newer};
    /// assert_eq!(AsOfOptions::as_of().in_order().newer, Newer::ByArrival);
    /// ```
    #[must_use]
    pub fn in_order(mut self) -> Self {
        self.newer = Newer::ByArrival;
        self
    }

    /// Items are answered until the watermark is this far after them. Negative is none.
    ///
    /// ```
    /// # use annals_streams::{AsOfOptions, Span};
    /// assert_eq!(AsOfOptions::as_of().allow_late(Span::MAX).lateness, Span::MAX);
    /// ```
    #[must_use]
    pub fn allow_late(mut self, lateness: Span) -> Self {
        self.lateness = lateness.max(Span::ZERO);
        self
    }
}

/// Joins a stream (left) with a table (right); only the stream causes rows.
///
/// A change of the table holds from its own time on, also when it comes out of order, until the
/// next one; `None` deletes. A row has the time of its stream item. Items that waited come out in
/// the order of (time, place, key). An item that comes more than the lateness after its time goes
/// to the late side output, because the versions that it would need are gone.
///
/// Of each key the versions since the watermark less the lateness are kept, and the one before
/// them. That a key was deleted is remembered for the lateness.
///
/// ```
/// use annals_streams::{
///     AsOfJoin, AsOfOptions, Input, JoinType, Operator, Output, Place, Side, Time,
/// };
///
/// let row = |_: Option<&()>, price: Option<&u64>| price.copied();
/// let mut priced = AsOfJoin::new(JoinType::Left, AsOfOptions::as_of(), row);
/// let mut out = Output::new();
/// let tea = || "tea".to_string();
/// for (time, item) in [
///     (10, Side::Right((tea(), Some(3)))),
///     (20, Side::Right((tea(), Some(4)))),
///     (15, Side::Left((tea(), ()))),
/// ] {
///     let time = Time::from_micros(time);
///     priced.process(
///         Input { watermark: Time::MIN, time, place: Place::at(1), item: &item },
///         &mut out,
///     );
/// }
/// priced.advance(Time::from_micros(15), &mut out);
/// assert_eq!(out.take(), [(tea(), Some(3))]);
/// ```
pub struct AsOfJoin<K, L, V, O> {
    join: JoinType,
    options: AsOfOptions,
    row: RowOf<L, V, O>,
    watermark: Time,
    keys: Map<K, Known<L, V>>,
    due: DueIndex<K>,
    marks: Marks<(K, At)>,
}

type At = (u8, (Time, Place));

const VERSION: u8 = 0;
const WAITING: u8 = 1;

struct Known<L, V> {
    versions: BTreeMap<Time, Version<V>>,
    waiting: Lane<L>,
    armed: Option<Time>,
}

struct Version<V> {
    /// Nothing when the key was deleted.
    value: Option<V>,
    mark: Mark,
}

impl<L, V> Default for Known<L, V> {
    fn default() -> Self {
        Self {
            versions: BTreeMap::new(),
            waiting: Lane::default(),
            armed: None,
        }
    }
}

impl<L, V> Known<L, V> {
    fn as_of(&self, time: Time) -> Option<&V> {
        let newest = self.versions.range(..=time).next_back();
        newest.and_then(|(_, version)| version.value.as_ref())
    }

    /// The time from which the oldest version is of no use: another took its place, or it says
    /// no more than its absence would.
    fn replaced_at(&self) -> Option<Time> {
        let mut versions = self.versions.iter();
        let (first, version) = versions.next()?;
        match versions.next() {
            _ if version.value.is_none() => Some(*first),
            next => next.map(|(time, _)| *time),
        }
    }
}

impl<K: Key, L: Kept, V: Kept, O> AsOfJoin<K, L, V, O> {
    /// A join with an empty table; `row` makes a result of an item and a value. An outer join is
    /// taken as a left one.
    ///
    /// ```
    /// # use annals_streams::{AsOfJoin, AsOfOptions, JoinType};
    /// let row = |item: Option<&u8>, value: Option<&u8>| (item.copied(), value.copied());
    /// AsOfJoin::<String, _, _, _>::new(JoinType::Inner, AsOfOptions::newest(), row);
    /// ```
    pub fn new(
        join: JoinType,
        options: AsOfOptions,
        row: impl Fn(Option<&L>, Option<&V>) -> O + Send + Sync + 'static,
    ) -> Self {
        Self {
            join,
            options,
            row: Box::new(row),
            watermark: Time::MIN,
            keys: Map::default(),
            due: DueIndex::new(),
            marks: Marks::default(),
        }
    }

    fn answer(&self, key: &K, time: Time, item: &L) -> Option<O> {
        let value = self.keys.get(key).and_then(|known| known.as_of(time));
        let wanted = value.is_some() || self.join.keeps_left();
        wanted.then(|| (self.row)(Some(item), value))
    }

    fn set(&mut self, key: &K, time: Time, value: Option<V>) {
        let lateness = self.options.lateness;
        let replaces_all = self.options.versions == Versions::Newest;
        if !self.keys.contains_key(key) {
            self.keys.insert(key.clone(), Known::default());
        }
        let Some(known) = self.keys.get_mut(key) else {
            return;
        };
        // Without versions there is one, at no particular time.
        let newest = known.versions.last_key_value().map(|(newest, _)| *newest);
        let time = match self.options.newer {
            _ if replaces_all => Time::MIN,
            Newer::ByTime => time,
            Newer::ByArrival => newest.map_or(time, |newest| newest.max(time)),
        };
        let fresh = || Version {
            value: None,
            mark: Mark::default(),
        };
        let version = known.versions.entry(time).or_insert_with(fresh);
        version.value = value;
        let at = (VERSION, (time, Place::default()));
        self.marks.change(&mut version.mark, || (key.clone(), at));
        if replaces_all || is_late(self.watermark, time, lateness) {
            self.trim(key);
        }
        self.arm(key);
    }

    fn trim(&mut self, key: &K) {
        let Some(known) = self.keys.get_mut(key) else {
            return;
        };
        let lateness = self.options.lateness;
        let newest_only = self.options.versions == Versions::Newest;
        while let Some(replaced_at) = known.replaced_at() {
            if !newest_only && !is_late(self.watermark, replaced_at, lateness) {
                break;
            }
            if let Some((time, version)) = known.versions.pop_first() {
                let at = (VERSION, (time, Place::default()));
                self.marks.remove(version.mark, || (key.clone(), at));
            }
        }
        if known.versions.is_empty() && known.waiting.is_empty() {
            self.keys.remove(key);
        }
    }

    fn arm(&mut self, key: &K) {
        let lateness = self.options.lateness;
        let Some(known) = self.keys.get_mut(key) else {
            return;
        };
        let waiting = known.waiting.first().map(|held| held.time);
        let replaced = known.replaced_at().map(|time| time + lateness);
        let next = waiting.into_iter().chain(replaced).min();
        self.due.arm(&mut known.armed, next, key);
    }
}

impl<K: Key, L: Kept, V: Kept, O> Operator for AsOfJoin<K, L, V, O> {
    type In = Side<(K, L), (K, Option<V>)>;
    type Out = (K, O);
    type Late = (K, L);

    fn check_item<C: Codec>(item: &Self::In) -> Result<(), StateError> {
        item.check_value::<C>()
    }

    fn next_due(&self) -> Time {
        self.due.next()
    }

    fn advance(&mut self, watermark: Time, out: &mut Output<Self::Out, Self::Late>) {
        self.watermark = self.watermark.max(watermark);
        let keys = &mut self.keys;
        let looked_at = self
            .due
            .take_armed(self.watermark, keys, |known| &mut known.armed);
        let mut answers = Vec::new();
        for key in &looked_at {
            while let Some(known) = self.keys.get_mut(key)
                && let Some(held) = known.waiting.pop_until(self.watermark)
            {
                let at = (WAITING, (held.time, held.place));
                self.marks.remove(held.mark, || (key.clone(), at));
                if let Some(row) = self.answer(key, held.time, &held.item) {
                    answers.push((held.time, key.clone(), held.place, row));
                }
            }
        }
        answers.sort_by(|one, other| (one.0, one.2, &one.1).cmp(&(other.0, other.2, &other.1)));
        for (time, key, _, row) in answers {
            out.emit(time, (key, row));
        }
        for key in &looked_at {
            self.trim(key);
            self.arm(key);
        }
    }

    fn process(&mut self, input: Input<'_, Self::In>, out: &mut Output<Self::Out, Self::Late>) {
        if is_closed(input.watermark, self.next_due()) {
            self.advance(input.watermark, out);
        }
        self.watermark = self.watermark.max(input.watermark);
        let time = input.time;
        let (key, item) = match input.item {
            Side::Right((key, value)) => return self.set(key, time, value.clone()),
            Side::Left((key, item)) => (key, item),
        };
        let versions = self.options.versions;
        let is_due = is_closed(self.watermark, time);
        if versions == Versions::Waiting && !is_due {
            if !self.keys.contains_key(key) {
                self.keys.insert(key.clone(), Known::default());
            }
            if let Some(known) = self.keys.get_mut(key) {
                let held = known.waiting.insert(time, input.place, item.clone());
                let at = (WAITING, (time, held.place));
                self.marks.change(&mut held.mark, || (key.clone(), at));
            }
            self.arm(key);
            return;
        }
        let late = is_late(self.watermark, time, self.options.lateness);
        if versions != Versions::Newest && late {
            out.refuse(time, (key.clone(), item.clone()));
        } else if let Some(row) = self.answer(key, time, item) {
            out.emit(time, (key.clone(), row));
        }
    }

    fn lag(&self) -> Span {
        match self.options.versions {
            Versions::Waiting => self.options.lateness,
            // Answers have the time of their item, and come with it.
            Versions::AtOnce | Versions::Newest => Span::ZERO,
        }
    }
}

impl<K: Key, L: Kept, V: Kept, O> Pieces for AsOfJoin<K, L, V, O> {
    type Key = K;
    type Part = At;

    fn marks(&mut self) -> &mut Marks<(K, At)> {
        &mut self.marks
    }

    fn pieces(&self) -> Vec<(K, At)> {
        let mut pieces = Vec::new();
        for (key, known) in &self.keys {
            let versions = known.versions.keys();
            let versions = versions.map(|time| (VERSION, (*time, Place::default())));
            let waiting = known
                .waiting
                .iter()
                .map(|held| (WAITING, (held.time, held.place)));
            pieces.extend(versions.chain(waiting).map(|at| (key.clone(), at)));
        }
        pieces
    }

    fn mark(&mut self, key: &K, (what, at): &At) -> Option<&mut Mark> {
        let known = self.keys.get_mut(key)?;
        match *what {
            VERSION => known
                .versions
                .get_mut(&at.0)
                .map(|version| &mut version.mark),
            _ => known.waiting.mark(at.0, at.1),
        }
    }

    fn value<C: Codec>(&self, key: &K, (what, at): &At) -> Result<Option<Vec<u8>>, StateError> {
        let Some(known) = self.keys.get(key) else {
            return Ok(None);
        };
        if *what != VERSION {
            return known.waiting.value::<C>(at.0, at.1);
        }
        let version = known.versions.get(&at.0);
        version
            .map(|version| Value::default().then::<C, _>(&version.value))
            .transpose()
    }

    fn put_back<C: Codec>(
        &mut self,
        key: K,
        (what, at): At,
        mut from: Bytes<'_>,
    ) -> Result<(), StateError> {
        let known = self.keys.entry(key).or_default();
        match what {
            VERSION => {
                let value = from.then::<C, Option<V>>()?;
                known.versions.insert(
                    at.0,
                    Version {
                        value,
                        mark: Mark::default(),
                    },
                );
                Ok(())
            }
            WAITING => known.waiting.put_back::<C>(at.0, at.1, from),
            other => Err(StateError::new(format!(
                "a join as of has nothing of kind {other}"
            ))),
        }
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
