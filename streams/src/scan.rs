//! A state machine for each key: for everything that is not a window, a join or a pattern.

use crate::{
    Input, Kept, Key, Operator, Output, Span, StateError, Time,
    due::{DueIndex, is_closed},
    hash::Map,
    state::{Bytes, Codec, Mark, Marks, Pieces, Value, can_be_saved},
};
/// Folds the items of a key, as they come, into a state that begins at its default, and lets each
/// step say something.
///
/// The state of a key is forgotten when the watermark reaches the largest time of its items plus
/// `forget_after`. A step is a function of state and item, nothing else. If it depends on the
/// order of items put [`InTimeOrder`](crate::InTimeOrder) before it.
///
/// ```
/// use annals_streams::{Input, Operator, Output, Place, Scan, Span, Time};
///
/// let mut third = Scan::new(Span::MAX, |seen: &mut u64, _: &char| {
///     *seen += 1;
///     (*seen == 3).then_some("the third one")
/// });
/// let mut out = Output::new();
/// for position in 1..=4 {
///     let item = ("ann".to_string(), 'x');
///     let time = Time::from_micros(10);
///     let place = Place::at(position);
///     third.process(Input { watermark: Time::MIN, time, place, item: &item }, &mut out);
/// }
/// assert_eq!(out.take(), [("ann".to_string(), "the third one")]);
/// ```
pub struct Scan<K, T, S, U> {
    forget_after: Span,
    step: StepOf<S, T, U>,
    watermark: Time,
    keys: Map<K, Known<S>>,
    due: DueIndex<K>,
    marks: Marks<(K, ())>,
}

type StepOf<S, T, U> = Box<dyn Fn(&mut S, &T) -> Option<U> + Send + Sync>;

struct Known<S> {
    state: S,
    time: Time,
    /// When the index will ask about the key.
    armed: Time,
    mark: Mark,
}

impl<K: Key, T, S: Kept + Default, U> Scan<K, T, S, U> {
    /// No states yet.
    ///
    /// ```
    /// # use annals_streams::{Scan, Span};
    /// Scan::<String, u64, u64, u64>::new(Span::from_micros(9), |sum, item| {
    ///     *sum += item;
    ///     Some(*sum)
    /// });
    /// ```
    pub fn new(
        forget_after: Span,
        step: impl Fn(&mut S, &T) -> Option<U> + Send + Sync + 'static,
    ) -> Self {
        Self {
            forget_after,
            step: Box::new(step),
            watermark: Time::MIN,
            keys: Map::default(),
            due: DueIndex::new(),
            marks: Marks::default(),
        }
    }
}

impl<K: Key, T, S: Kept + Default, U> Operator for Scan<K, T, S, U> {
    type In = (K, T);
    type Out = (K, U);
    type Late = ();

    fn next_due(&self) -> Time {
        self.due.next()
    }

    fn advance(&mut self, watermark: Time, _: &mut Output<Self::Out, Self::Late>) {
        self.watermark = self.watermark.max(watermark);
        while let Some((armed, key)) = self.due.pop(self.watermark) {
            let Some(known) = self.keys.get_mut(&key) else {
                continue;
            };
            if known.armed != armed {
                continue;
            }
            let forgotten = known.time + self.forget_after;
            if is_closed(self.watermark, forgotten) {
                let mark = known.mark;
                self.keys.remove(&key);
                self.marks.remove(mark, || (key, ()));
            } else {
                known.armed = forgotten;
                self.due.insert(forgotten, key);
            }
        }
    }

    fn process(&mut self, input: Input<'_, Self::In>, out: &mut Output<Self::Out, Self::Late>) {
        if is_closed(input.watermark, self.next_due()) {
            self.advance(input.watermark, out);
        }
        self.watermark = self.watermark.max(input.watermark);
        let (key, item) = input.item;
        let forgotten = input.time + self.forget_after;
        if !self.keys.contains_key(key) {
            let state = S::default();
            let mark = Mark::default();
            let known = Known {
                state,
                time: input.time,
                armed: forgotten,
                mark,
            };
            self.keys.insert(key.clone(), known);
            self.due.insert(forgotten, key.clone());
        }
        let Some(known) = self.keys.get_mut(key) else {
            return;
        };
        known.time = known.time.max(input.time);
        self.marks.change(&mut known.mark, || (key.clone(), ()));
        let said = (self.step)(&mut known.state, item);
        if let Some(said) = said {
            out.emit(input.time, (key.clone(), said));
        }
        // An item that is older than what is remembered leaves no state.
        if is_closed(self.watermark, self.due.next()) {
            self.advance(self.watermark, out);
        }
    }

    fn check_taken<C: Codec>(&self, (key, _): &Self::In) -> Result<(), StateError> {
        let known = self.keys.get(key);
        known.map_or(Ok(()), |known| can_be_saved::<C, S>(&known.state))
    }
}

impl<K: Key, T, S: Kept + Default, U> Pieces for Scan<K, T, S, U> {
    type Key = K;
    type Part = ();

    fn marks(&mut self) -> &mut Marks<(K, ())> {
        &mut self.marks
    }

    fn pieces(&self) -> Vec<(K, ())> {
        self.keys.keys().map(|key| (key.clone(), ())).collect()
    }

    fn mark(&mut self, key: &K, (): &()) -> Option<&mut Mark> {
        self.keys.get_mut(key).map(|known| &mut known.mark)
    }

    fn value<C: Codec>(&self, key: &K, (): &()) -> Result<Option<Vec<u8>>, StateError> {
        let known = self.keys.get(key);
        let write = |known: &Known<S>| Value::default().time(known.time).then::<C, S>(&known.state);
        known.map(write).transpose()
    }

    fn put_back<C: Codec>(
        &mut self,
        key: K,
        (): (),
        mut from: Bytes<'_>,
    ) -> Result<(), StateError> {
        let time = from.time()?;
        let state = from.then::<C, S>()?;
        let mark = Mark::default();
        self.keys.insert(
            key,
            Known {
                state,
                time,
                armed: Time::MAX,
                mark,
            },
        );
        Ok(())
    }

    fn resumed(&mut self, watermark: Time) {
        self.watermark = watermark;
        self.due = DueIndex::new();
        for (key, known) in &mut self.keys {
            known.armed = known.time + self.forget_after;
            self.due.insert(known.armed, key.clone());
        }
    }
}
