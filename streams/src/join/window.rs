//! Two streams: all pairs of one key that lie in the same tumbling or hopping window.

use crate::{
    Aligned, Input, Kept, Key, Operator, Output, Side, Span, StateError, Time, Window,
    due::{is_closed, is_late},
    hash::Map,
    lane::Lane,
    operator::Place,
    state::{Bytes, Codec, Mark, Marks, Pieces},
    window::opened::OpenWindows,
};

/// Joins two streams of one key within windows: when a window closes, each of its left items with
/// each of its right items, ordered by (window, key, left place in time, right one).
///
/// An item within the lateness that is allowed meets those that are there at once, and none
/// twice. The time of a pair is the last moment of its window.
///
/// ```
/// use annals_streams::{Aligned, Input, Operator, Output, Place, Side, Span, Time, WindowJoin};
///
/// let minutes = Aligned::tumbling(Span::from_micros(60))?;
/// let mut pairs = WindowJoin::new(minutes, Span::ZERO, |bid: &u64, ask: &u64| bid + ask);
/// let mut out = Output::new();
/// let bid = Side::Left(("tea".to_string(), 1));
/// let ask = Side::Right(("tea".to_string(), 2));
/// for (position, item) in [(1, &bid), (2, &ask)] {
///     let place = Place::at(position);
///     let time = Time::from_micros(7);
///     pairs.process(Input { watermark: Time::MIN, time, place, item }, &mut out);
/// }
/// pairs.advance(Time::from_micros(59), &mut out);
/// assert_eq!(out.rows[0].item.1.1, 3);
/// # Ok::<(), annals_streams::ConfigError>(())
/// ```
pub struct WindowJoin<K, L, R, O> {
    aligned: Aligned,
    lateness: Span,
    row: PairRow<L, R, O>,
    watermark: Time,
    opened: OpenWindows<Lanes<K, L, R>>,
    marks: Marks<(K, At)>,
}

type PairRow<L, R, O> = Box<dyn Fn(&L, &R) -> O + Send + Sync>;

/// Window, side, time, place.
type At = (Time, (u8, (Time, Place)));

const LEFT: u8 = 0;
const RIGHT: u8 = 1;

type Lanes<K, L, R> = Map<K, (Lane<L>, Lane<R>)>;

impl<K: Key, L: Kept, R: Kept, O> WindowJoin<K, L, R, O> {
    /// A join without items yet; `row` makes a result of a pair.
    ///
    /// ```
    /// # use annals_streams::{Aligned, Span, WindowJoin};
    /// let minutes = Aligned::tumbling(Span::from_micros(60))?;
    /// let row = |left: &u8, right: &u8| (*left, *right);
    /// WindowJoin::<String, _, _, _>::new(minutes, Span::ZERO, row);
    /// # Ok::<(), annals_streams::ConfigError>(())
    /// ```
    pub fn new(
        aligned: Aligned,
        lateness: Span,
        row: impl Fn(&L, &R) -> O + Send + Sync + 'static,
    ) -> Self {
        let lateness = lateness.max(Span::ZERO);
        Self {
            aligned,
            lateness,
            row: Box::new(row),
            watermark: Time::MIN,
            opened: OpenWindows::new(aligned, lateness),
            marks: Marks::default(),
        }
    }

    fn emit_pairs<X>(&mut self, out: &mut Output<Pair<K, O>, X>) {
        for opened in self.opened.closing(self.watermark) {
            opened.told = true;
            let window = self.aligned.window(opened.start);
            let mut keys: Vec<_> = opened.keys.iter().collect();
            keys.sort_unstable_by_key(|(key, _)| *key);
            for (key, (lefts, rights)) in keys {
                for left in lefts.iter() {
                    for right in rights.iter() {
                        let row = (self.row)(&left.item, &right.item);
                        out.emit(opened.last, (key.clone(), (window, row)));
                    }
                }
            }
        }
    }

    fn expire(&mut self) {
        for opened in self.opened.expire(self.watermark) {
            for (key, (lefts, rights)) in opened.keys {
                for held in lefts.iter() {
                    let at = (opened.start, (LEFT, (held.time, held.place)));
                    self.marks.remove(held.mark, || (key.clone(), at));
                }
                for held in rights.iter() {
                    let at = (opened.start, (RIGHT, (held.time, held.place)));
                    self.marks.remove(held.mark, || (key.clone(), at));
                }
            }
        }
    }
}

/// A key, and what a pair of it in a window makes.
type Pair<K, O> = (K, (Window, O));

impl<K: Key, L: Kept, R: Kept, O> Operator for WindowJoin<K, L, R, O> {
    type In = Side<(K, L), (K, R)>;
    type Out = (K, (Window, O));
    type Late = Side<(K, L), (K, R)>;

    fn check_item<C: Codec>(item: &Self::In) -> Result<(), StateError> {
        item.check_value::<C>()
    }

    fn next_due(&self) -> Time {
        self.opened.next_due()
    }

    fn advance(&mut self, watermark: Time, out: &mut Output<Self::Out, Self::Late>) {
        self.watermark = self.watermark.max(watermark);
        self.emit_pairs(out);
        self.expire();
        self.opened.find_next_due();
    }

    fn process(&mut self, input: Input<'_, Self::In>, out: &mut Output<Self::Out, Self::Late>) {
        if is_closed(input.watermark, self.next_due()) {
            self.advance(input.watermark, out);
        }
        self.watermark = self.watermark.max(input.watermark);
        let time = input.time;
        let mut windows = 0;
        let mut missed = 0;
        for start in self.aligned.starts(time) {
            windows += 1;
            let last = self.aligned.last(start);
            if is_late(self.watermark, last, self.lateness) {
                missed += 1;
                continue;
            }
            let window = self.aligned.window(start);
            let opened = self.opened.open(start, self.watermark, Map::default);
            let key = match input.item {
                Side::Left((key, _)) | Side::Right((key, _)) => key,
            };
            if !opened.keys.contains_key(key) {
                opened
                    .keys
                    .insert(key.clone(), (Lane::default(), Lane::default()));
            }
            let Some((lefts, rights)) = opened.keys.get_mut(key) else {
                continue;
            };
            match input.item {
                Side::Left((_, left)) => {
                    if opened.told {
                        for right in rights.iter() {
                            let row = (self.row)(left, &right.item);
                            out.emit(last, (key.clone(), (window, row)));
                        }
                    }
                    let held = lefts.insert(time, input.place, left.clone());
                    let at = (start, (LEFT, (time, held.place)));
                    self.marks.change(&mut held.mark, || (key.clone(), at));
                }
                Side::Right((_, right)) => {
                    if opened.told {
                        for left in lefts.iter() {
                            let row = (self.row)(&left.item, right);
                            out.emit(last, (key.clone(), (window, row)));
                        }
                    }
                    let held = rights.insert(time, input.place, right.clone());
                    let at = (start, (RIGHT, (time, held.place)));
                    self.marks.change(&mut held.mark, || (key.clone(), at));
                }
            }
        }
        if windows > 0 && windows == missed {
            out.refuse(time, input.item.clone());
        }
    }

    fn lag(&self) -> Span {
        self.lateness
    }
}

impl<K: Key, L: Kept, R: Kept, O> Pieces for WindowJoin<K, L, R, O> {
    type Key = K;
    type Part = At;

    fn marks(&mut self) -> &mut Marks<(K, At)> {
        &mut self.marks
    }

    fn pieces(&self) -> Vec<(K, At)> {
        let mut pieces = Vec::new();
        for opened in self.opened.iter() {
            for (key, (lefts, rights)) in &opened.keys {
                let left = lefts.iter().map(|held| (LEFT, (held.time, held.place)));
                let right = rights.iter().map(|held| (RIGHT, (held.time, held.place)));
                let both = left.chain(right);
                pieces.extend(both.map(|at| (key.clone(), (opened.start, at))));
            }
        }
        pieces
    }

    fn mark(&mut self, key: &K, (start, (side, at)): &At) -> Option<&mut Mark> {
        let (lefts, rights) = self.opened.find_mut(*start)?.keys.get_mut(key)?;
        match *side {
            LEFT => lefts.mark(at.0, at.1),
            _ => rights.mark(at.0, at.1),
        }
    }

    fn value<C: Codec>(
        &self,
        key: &K,
        (start, (side, at)): &At,
    ) -> Result<Option<Vec<u8>>, StateError> {
        let opened = self.opened.find(*start);
        let lanes = opened.and_then(|opened| opened.keys.get(key));
        match (lanes, *side) {
            (None, _) => Ok(None),
            (Some((lefts, _)), LEFT) => lefts.value::<C>(at.0, at.1),
            (Some((_, rights)), _) => rights.value::<C>(at.0, at.1),
        }
    }

    fn put_back<C: Codec>(
        &mut self,
        key: K,
        (start, (side, at)): At,
        from: Bytes<'_>,
    ) -> Result<(), StateError> {
        let opened = self.opened.open(start, self.watermark, Map::default);
        let (lefts, rights) = opened.keys.entry(key).or_default();
        match side {
            LEFT => lefts.put_back::<C>(at.0, at.1, from),
            RIGHT => rights.put_back::<C>(at.0, at.1, from),
            other => Err(StateError::new(format!("a join has no side {other}"))),
        }
    }

    fn resumed(&mut self, watermark: Time) {
        self.watermark = watermark;
        self.opened.resume(watermark);
    }
}
