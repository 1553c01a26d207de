//! Deduplication: the first item of each id passes, for a stretch of event time.

use crate::{
    Input, Key, Operator, Output, Span, StateError, Time,
    due::{DueIndex, is_closed},
    hash::Map,
    state::{Bytes, Codec, Mark, Marks, Named, Pieces, Value},
};

/// Lets the first item of a key and an id pass and drops the others.
///
/// An id is remembered until the watermark reaches the time of its first item plus `forget_after`.
/// Choose that longer than the delay of the clock and the lateness that is allowed, or a late
/// duplicate passes again.
///
/// ```
/// use annals_streams::{DistinctBy, Input, Operator, Output, Place, Span, Time};
///
/// let forget_after = Span::from_micros(1_000);
/// let mut once = DistinctBy::new(forget_after, |payment: &(u64, i64)| payment.0);
/// let mut out = Output::new();
/// for position in [1, 2] {
///     let item = ("ann".to_string(), (77, 250));
///     let place = Place::at(position);
///     let time = Time::from_micros(10);
///     once.process(Input { watermark: Time::MIN, time, place, item: &item }, &mut out);
/// }
/// assert_eq!(out.rows.len(), 1);
/// ```
pub struct DistinctBy<K, T, I> {
    forget_after: Span,
    id: Box<dyn Fn(&T) -> I + Send + Sync>,
    watermark: Time,
    seen: Map<(K, Named<I>), Seen>,
    due: DueIndex<(K, Named<I>)>,
    marks: Marks<(K, Named<I>)>,
}

struct Seen {
    time: Time,
    mark: Mark,
}

impl<K: Key, T: Clone, I: Key> DistinctBy<K, T, I> {
    /// Has seen nothing yet.
    ///
    /// ```
    /// # use annals_streams::{DistinctBy, Span};
    /// DistinctBy::<String, u64, u64>::new(Span::from_micros(1_000), |id| *id);
    /// ```
    pub fn new(forget_after: Span, id: impl Fn(&T) -> I + Send + Sync + 'static) -> Self {
        Self {
            forget_after,
            id: Box::new(id),
            watermark: Time::MIN,
            seen: Map::default(),
            due: DueIndex::new(),
            marks: Marks::default(),
        }
    }
}

impl<K: Key, T: Clone, I: Key> Operator for DistinctBy<K, T, I> {
    type In = (K, T);
    type Out = (K, T);
    type Late = ();

    fn next_due(&self) -> Time {
        self.due.next()
    }

    fn advance(&mut self, watermark: Time, _: &mut Output<Self::Out, Self::Late>) {
        self.watermark = self.watermark.max(watermark);
        while let Some((_, at)) = self.due.pop(self.watermark) {
            if let Some(seen) = self.seen.remove(&at) {
                self.marks.remove(seen.mark, || at);
            }
        }
    }

    fn process(&mut self, input: Input<'_, Self::In>, out: &mut Output<Self::Out, Self::Late>) {
        if is_closed(input.watermark, self.next_due()) {
            self.advance(input.watermark, out);
        }
        self.watermark = self.watermark.max(input.watermark);
        let (key, item) = input.item;
        let at = (key.clone(), Named((self.id)(item)));
        if self.seen.contains_key(&at) {
            return;
        }
        out.emit(input.time, input.item.clone());
        let forgotten = input.time + self.forget_after;
        if !is_closed(self.watermark, forgotten) {
            let mut seen = Seen {
                time: input.time,
                mark: Mark::default(),
            };
            self.marks.change(&mut seen.mark, || at.clone());
            self.due.insert(forgotten, at.clone());
            self.seen.insert(at, seen);
        }
    }
}

impl<K: Key, T: Clone, I: Key> Pieces for DistinctBy<K, T, I> {
    type Key = K;
    type Part = Named<I>;

    fn marks(&mut self) -> &mut Marks<(K, Named<I>)> {
        &mut self.marks
    }

    fn pieces(&self) -> Vec<(K, Named<I>)> {
        self.seen.keys().cloned().collect()
    }

    fn mark(&mut self, key: &K, id: &Named<I>) -> Option<&mut Mark> {
        self.seen
            .get_mut(&(key.clone(), id.clone()))
            .map(|seen| &mut seen.mark)
    }

    fn value<C: Codec>(&self, key: &K, id: &Named<I>) -> Result<Option<Vec<u8>>, StateError> {
        let seen = self.seen.get(&(key.clone(), id.clone()));
        Ok(seen.map(|seen| Value::default().time(seen.time).end()))
    }

    fn put_back<C: Codec>(
        &mut self,
        key: K,
        id: Named<I>,
        mut from: Bytes<'_>,
    ) -> Result<(), StateError> {
        let time = from.time()?;
        self.seen.insert(
            (key, id),
            Seen {
                time,
                mark: Mark::default(),
            },
        );
        Ok(())
    }

    fn resumed(&mut self, watermark: Time) {
        self.watermark = watermark;
        self.due = DueIndex::new();
        for (at, seen) in &self.seen {
            self.due.insert(seen.time + self.forget_after, at.clone());
        }
    }
}
