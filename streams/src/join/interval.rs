//! Two streams: pairs of one key whose times lie within bounds.

use crate::{
    Input, JoinType, Kept, Key, Operator, Output, Side, Span, StateError, Time,
    due::{DueIndex, is_closed},
    hash::Map,
    join::RowOf,
    lane::{Held, Lane},
    operator::Place,
    state::{Bytes, Codec, Mark, Marks, Pieces},
};
use serde::{Deserialize, Serialize};

/// How far two items may lie apart: `left - before <= right <= left + after`, ends included.
///
/// A negative bound excludes what is near: between 5 and 10 after is `before` -5, `after` 10.
///
/// ```
/// use annals_streams::{Span, Within};
///
/// let hour = Within::after(std::time::Duration::from_hours(1));
/// assert_eq!(hour.before, Span::ZERO);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Within {
    /// How much earlier the right item may be.
    pub before: Span,
    /// How much later the right item may be.
    pub after: Span,
}

impl Within {
    /// The right item is at most so much later, and not earlier.
    ///
    /// ```
    /// # use annals_streams::{Span, Within};
    /// assert_eq!(Within::after(Span::from_micros(3)).after, Span::from_micros(3));
    /// ```
    pub fn after(after: impl Into<Span>) -> Self {
        Self {
            before: Span::ZERO,
            after: after.into(),
        }
    }

    /// The right item is at most so much earlier, and not later.
    ///
    /// ```
    /// # use annals_streams::{Span, Within};
    /// assert_eq!(Within::before(Span::from_micros(3)).after, Span::ZERO);
    /// ```
    pub fn before(before: impl Into<Span>) -> Self {
        Self {
            before: before.into(),
            after: Span::ZERO,
        }
    }

    /// The two are at most so far apart.
    ///
    /// ```
    /// # use annals_streams::{Span, Within};
    /// let near = Within::around(Span::from_micros(3));
    /// assert_eq!(near, Within::between(near.before, near.after));
    /// ```
    pub fn around(apart: impl Into<Span>) -> Self {
        let apart = apart.into();
        Self {
            before: apart,
            after: apart,
        }
    }

    /// Both bounds.
    ///
    /// ```
    /// # use annals_streams::{Span, Within};
    /// Within::between(Span::from_micros(-5), Span::from_micros(10));
    /// ```
    pub fn between(before: impl Into<Span>, after: impl Into<Span>) -> Self {
        Self {
            before: before.into(),
            after: after.into(),
        }
    }

    fn left_waits(self) -> Span {
        self.after.max(Span::ZERO)
    }

    fn right_waits(self) -> Span {
        self.before.max(Span::ZERO)
    }

    /// How far a row of a join within these bounds may lie before the watermark.
    ///
    /// ```
    /// # use annals_streams::{Span, Within};
    /// let bounds = Within::between(Span::from_micros(-5), Span::from_micros(10));
    /// assert_eq!(bounds.lag(), Span::from_micros(10));
    /// ```
    pub fn lag(self) -> Span {
        self.left_waits().max(self.right_waits())
    }
}

/// Joins two streams of one key within bounds of event time.
///
/// A joined row comes out with the later of the two and has the larger time; equal items all pair
/// up. A row without a partner comes out, if the type of join wants it, exactly when it closes: at
/// its own time plus how long a partner could come. At one watermark these are ordered by (time,
/// right before left, key, place). A row that left unmatched never matches afterwards, so no two
/// results contradict each other. A late item still joins rows that are open; it goes to the late
/// side output when it is closed itself and matched nothing.
///
/// ```
/// use annals_streams::{
///     Input, IntervalJoin, JoinType, Operator, Output, Place, Side, Span, Time, Within,
/// };
///
/// let within = Within::after(Span::from_micros(60));
/// let row = |shown: Option<&u64>, click: Option<&u64>| (shown.copied(), click.copied());
/// let mut clicks = IntervalJoin::new(JoinType::Left, within, row);
/// let mut out = Output::new();
/// let watermark = Time::MIN;
/// let time = Time::from_micros(10);
/// let shown = Side::Left(("ad".to_string(), 1));
/// clicks.process(Input { watermark, time, place: Place::at(1), item: &shown }, &mut out);
/// let click = Side::Right(("ad".to_string(), 2));
/// let time = Time::from_micros(70);
/// clicks.process(Input { watermark, time, place: Place::at(2), item: &click }, &mut out);
/// assert_eq!(out.take(), [("ad".to_string(), (Some(1), Some(2)))]);
/// ```
pub struct IntervalJoin<K, L, R, O> {
    join: JoinType,
    within: Within,
    strict: bool,
    at_bounds: bool,
    row: RowOf<L, R, O>,
    watermark: Time,
    keys: Map<K, Lanes<L, R>>,
    due: DueIndex<K>,
    marks: Marks<(K, At)>,
}

type At = (u8, (Time, Place));

const LEFT: u8 = 0;
const RIGHT: u8 = 1;

struct Lanes<L, R> {
    left: Lane<L>,
    right: Lane<R>,
    armed: Option<Time>,
}

impl<L, R> Default for Lanes<L, R> {
    fn default() -> Self {
        Self {
            left: Lane::default(),
            right: Lane::default(),
            armed: None,
        }
    }
}

/// A row that leaves without a partner, with what decides about its turn.
struct Unmatched<K, O> {
    time: Time,
    is_left: bool,
    key: K,
    place: Place,
    row: O,
}

impl<K: Key, L: Kept, R: Kept, O> IntervalJoin<K, L, R, O> {
    /// A join without rows yet; `row` makes a result of a pair, or of one side alone.
    ///
    /// ```
    /// # use annals_streams::{IntervalJoin, JoinType, Span, Within};
    /// let within = Within::around(Span::from_micros(5));
    /// let row = |left: Option<&u8>, right: Option<&u8>| left.or(right).copied();
    /// IntervalJoin::<String, _, _, _>::new(JoinType::Outer, within, row);
    /// ```
    pub fn new(
        join: JoinType,
        within: Within,
        row: impl Fn(Option<&L>, Option<&R>) -> O + Send + Sync + 'static,
    ) -> Self {
        Self {
            join,
            within,
            strict: false,
            at_bounds: false,
            row: Box::new(row),
            watermark: Time::MIN,
            keys: Map::default(),
            due: DueIndex::new(),
            marks: Marks::default(),
        }
    }

    /// Refuses every item at or before the watermark, also one that would find a partner.
    ///
    /// ```
    /// # use annals_streams::{IntervalJoin, JoinType, Span, Within};
    /// let row = |_: Option<&u8>, _: Option<&u8>| ();
    /// let within = Within::around(Span::from_micros(5));
    /// IntervalJoin::<u8, _, _, _>::new(JoinType::Inner, within, row).strict();
    /// ```
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    /// Times and numbers of the rows that wait: of the left, then of the right, in order.
    ///
    /// ```
    /// # use annals_streams::{IntervalJoin, JoinType, Span, Within};
    /// # let row = |_: Option<&u8>, _: Option<&u8>| ();
    /// # let within = Within::around(Span::from_micros(5));
    /// let join = IntervalJoin::<u8, _, _, _>::new(JoinType::Inner, within, row);
    /// assert_eq!(join.held(), (vec![], vec![]));
    /// ```
    pub fn held(&self) -> (Vec<Time>, Vec<Time>) {
        let mut left: Vec<Time> = Vec::new();
        let mut right: Vec<Time> = Vec::new();
        for lanes in self.keys.values() {
            left.extend(lanes.left.iter().map(|held| held.time));
            right.extend(lanes.right.iter().map(|held| held.time));
        }
        left.sort_unstable();
        right.sort_unstable();
        (left, right)
    }

    /// How long a left row waits. Also with a negative bound it stays while it is on time itself.
    /// A row closes at its time plus the bound, also where the bound is negative and that is before
    /// its own time: as Kafka Streams closes rows, and as the cases of other engines are written.
    /// An item that comes after that and meets nothing is late, even one that the watermark has not
    /// reached; so with a negative bound the order in which items on time come decides about rows
    /// without a partner.
    ///
    /// Otherwise a row stays until the watermark has reached its own time, and what is on time is
    /// never late.
    ///
    /// ```
    /// # use annals_streams::{IntervalJoin, JoinType, Span, Within};
    /// let earlier = Within::between(Span::from_micros(9), Span::from_micros(-2));
    /// let row = |one: Option<&i64>, other: Option<&i64>| one.or(other).copied();
    /// IntervalJoin::<u64, _, _, _>::new(JoinType::Left, earlier, row).closing_at_bounds();
    /// ```
    #[must_use]
    pub fn closing_at_bounds(mut self) -> Self {
        self.at_bounds = true;
        self
    }

    fn left_waits(&self) -> Span {
        match self.at_bounds {
            true => self.within.after,
            false => self.within.left_waits(),
        }
    }

    fn right_waits(&self) -> Span {
        match self.at_bounds {
            true => self.within.before,
            false => self.within.right_waits(),
        }
    }

    fn arm(&mut self, key: &K) {
        let left_waits = self.left_waits();
        let right_waits = self.right_waits();
        let Some(lanes) = self.keys.get_mut(key) else {
            return;
        };
        let left = lanes.left.first().map(|held| held.time + left_waits);
        let right = lanes.right.first().map(|held| held.time + right_waits);
        let next = left.into_iter().chain(right).min();
        self.due.arm(&mut lanes.armed, next, key);
    }

    fn close(&mut self, key: &K, unmatched: &mut Vec<Unmatched<K, O>>) {
        let Some(mut lanes) = self.keys.remove(key) else {
            return;
        };
        while let Some(held) = pop_closed(&mut lanes.left, self.watermark, self.left_waits()) {
            let at = (LEFT, (held.time, held.place));
            self.marks.remove(held.mark, || (key.clone(), at));
            if !held.matched && self.join.keeps_left() {
                let row = (self.row)(Some(&held.item), None);
                let time = held.time;
                let key = key.clone();
                unmatched.push(Unmatched {
                    time,
                    is_left: true,
                    key,
                    place: held.place,
                    row,
                });
            }
        }
        while let Some(held) = pop_closed(&mut lanes.right, self.watermark, self.right_waits()) {
            let at = (RIGHT, (held.time, held.place));
            self.marks.remove(held.mark, || (key.clone(), at));
            if !held.matched && self.join.keeps_right() {
                let row = (self.row)(None, Some(&held.item));
                let time = held.time;
                let key = key.clone();
                unmatched.push(Unmatched {
                    time,
                    is_left: false,
                    key,
                    place: held.place,
                    row,
                });
            }
        }
        if !lanes.left.is_empty() || !lanes.right.is_empty() {
            self.keys.insert(key.clone(), lanes);
        }
    }
}

fn pop_closed<T>(lane: &mut Lane<T>, watermark: Time, waits: Span) -> Option<Held<T>> {
    let first = lane.first()?;
    is_closed(watermark, first.time + waits)
        .then(|| lane.pop_until(Time::MAX))
        .flatten()
}

impl<K: Key, L: Kept, R: Kept, O> Operator for IntervalJoin<K, L, R, O> {
    type In = Side<(K, L), (K, R)>;
    type Out = (K, O);
    type Late = Side<(K, L), (K, R)>;

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
            .take_armed(self.watermark, keys, |lanes| &mut lanes.armed);
        let mut unmatched = Vec::new();
        for key in &looked_at {
            self.close(key, &mut unmatched);
            self.arm(key);
        }
        unmatched.sort_by(|one: &Unmatched<K, O>, other| {
            let sides = (one.time, one.is_left).cmp(&(other.time, other.is_left));
            sides.then_with(|| (&one.key, one.place).cmp(&(&other.key, other.place)))
        });
        for row in unmatched {
            out.emit(row.time, (row.key, row.row));
        }
    }

    fn process(&mut self, input: Input<'_, Self::In>, out: &mut Output<Self::Out, Self::Late>) {
        if is_closed(input.watermark, self.next_due()) {
            self.advance(input.watermark, out);
        }
        self.watermark = self.watermark.max(input.watermark);
        let time = input.time;
        if self.strict && is_closed(self.watermark, time) {
            out.refuse(time, input.item.clone());
            return;
        }
        let key = match input.item {
            Side::Left((key, _)) | Side::Right((key, _)) => key,
        };
        if !self.keys.contains_key(key) {
            self.keys.insert(key.clone(), Lanes::default());
        }
        let left_waits = self.left_waits();
        let right_waits = self.right_waits();
        let within = self.within;
        let row = &self.row;
        let Some(lanes) = self.keys.get_mut(key) else {
            return;
        };
        let mut matched = false;
        let waits = match input.item {
            Side::Left((_, left)) => {
                let partners = lanes.right.range(time - within.before, time + within.after);
                for right in lanes.right.in_range_mut(partners) {
                    matched = true;
                    meet(right, key, RIGHT, &mut self.marks);
                    let joined = row(Some(left), Some(&right.item));
                    out.emit(time.max(right.time), (key.clone(), joined));
                }
                left_waits
            }
            Side::Right((_, right)) => {
                let partners = lanes.left.range(time - within.after, time + within.before);
                for left in lanes.left.in_range_mut(partners) {
                    matched = true;
                    meet(left, key, LEFT, &mut self.marks);
                    let joined = row(Some(&left.item), Some(right));
                    out.emit(time.max(left.time), (key.clone(), joined));
                }
                right_waits
            }
        };
        if is_closed(self.watermark, time + waits) {
            if !matched {
                out.refuse(time, input.item.clone());
            }
            if lanes.left.is_empty() && lanes.right.is_empty() {
                self.keys.remove(key);
            }
            return;
        }
        match input.item {
            Side::Left((_, left)) => {
                let held = lanes.left.insert(time, input.place, left.clone());
                settle(held, matched, key, LEFT, &mut self.marks);
            }
            Side::Right((_, right)) => {
                let held = lanes.right.insert(time, input.place, right.clone());
                settle(held, matched, key, RIGHT, &mut self.marks);
            }
        }
        self.arm(key);
    }

    fn lag(&self) -> Span {
        self.within.lag()
    }
}

fn meet<K: Key, T>(held: &mut Held<T>, key: &K, side: u8, marks: &mut Marks<(K, At)>) {
    if !held.matched {
        settle(held, true, key, side, marks);
    }
}

fn settle<K: Key, T>(
    held: &mut Held<T>,
    matched: bool,
    key: &K,
    side: u8,
    marks: &mut Marks<(K, At)>,
) {
    held.matched = matched;
    let at = (side, (held.time, held.place));
    marks.change(&mut held.mark, || (key.clone(), at));
}

impl<K: Key, L: Kept, R: Kept, O> Pieces for IntervalJoin<K, L, R, O> {
    type Key = K;
    type Part = At;

    fn marks(&mut self) -> &mut Marks<(K, At)> {
        &mut self.marks
    }

    fn pieces(&self) -> Vec<(K, At)> {
        let mut pieces = Vec::new();
        for (key, lanes) in &self.keys {
            let left = lanes
                .left
                .iter()
                .map(|held| (LEFT, (held.time, held.place)));
            let right = lanes
                .right
                .iter()
                .map(|held| (RIGHT, (held.time, held.place)));
            pieces.extend(left.chain(right).map(|at| (key.clone(), at)));
        }
        pieces
    }

    fn mark(&mut self, key: &K, (side, at): &At) -> Option<&mut Mark> {
        let lanes = self.keys.get_mut(key)?;
        match *side {
            LEFT => lanes.left.mark(at.0, at.1),
            _ => lanes.right.mark(at.0, at.1),
        }
    }

    fn value<C: Codec>(&self, key: &K, (side, at): &At) -> Result<Option<Vec<u8>>, StateError> {
        match (self.keys.get(key), *side) {
            (None, _) => Ok(None),
            (Some(lanes), LEFT) => lanes.left.value::<C>(at.0, at.1),
            (Some(lanes), _) => lanes.right.value::<C>(at.0, at.1),
        }
    }

    fn put_back<C: Codec>(
        &mut self,
        key: K,
        (side, at): At,
        from: Bytes<'_>,
    ) -> Result<(), StateError> {
        let lanes = self.keys.entry(key).or_default();
        match side {
            LEFT => lanes.left.put_back::<C>(at.0, at.1, from),
            RIGHT => lanes.right.put_back::<C>(at.0, at.1, from),
            other => Err(StateError::new(format!("a join has no side {other}"))),
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
