//! The first moment at which a window is what one waits for.

use crate::{
    Emission, Input, Key, Kind, Operator, Output, Span, StateError, Time, Window,
    due::{DueIndex, is_closed},
    hash::Map,
    state::{Bytes, Codec, Mark, Marks, Pieces, Value},
};

/// Lets the first result of a window pass for which a predicate holds, and no other of it.
///
/// Put it after windows that emit on update. A session that merges with one that has fired has
/// fired.
///
/// ```
/// use annals_streams::{
///     AsSoonAs, Emission, Input, Kind, Operator, Output, Place, Span, Time, Window,
/// };
///
/// let mut many = AsSoonAs::new(Span::ZERO, |count: &u64| *count > 3);
/// let mut out = Output::new();
/// let window = Window::new(Time::from_micros(0), Time::from_micros(60));
/// for count in 1..=6 {
///     let key = "ann".to_string();
///     let max_time = Time::from_micros(7);
///     let item = Emission { key, window, kind: Kind::Update, value: Some(count), max_time };
///     let time = Time::from_micros(59);
///     let place = Place::at(count);
///     many.process(Input { watermark: Time::MIN, time, place, item: &item }, &mut out);
/// }
/// assert_eq!(out.rows.len(), 1);
/// assert_eq!(out.rows[0].item.value, Some(4));
/// ```
pub struct AsSoonAs<K, A> {
    lateness: Span,
    is: Box<dyn Fn(&A) -> bool + Send + Sync>,
    watermark: Time,
    fired: Map<(K, (Time, Time)), Fired>,
    due: DueIndex<(K, (Time, Time))>,
    /// A session of this key that had fired was retracted: the whole follows with the same cause.
    merging: Option<K>,
    marks: Marks<(K, (Time, Time))>,
}

struct Fired {
    last: Time,
    mark: Mark,
}

impl<K: Key, A: Clone> AsSoonAs<K, A> {
    /// Nothing has fired yet. `lateness` is that of the windows before it.
    ///
    /// ```
    /// # use annals_streams::{AsSoonAs, Span};
    /// AsSoonAs::<String, u64>::new(Span::ZERO, |count| *count > 3);
    /// ```
    pub fn new(lateness: Span, is: impl Fn(&A) -> bool + Send + Sync + 'static) -> Self {
        Self {
            lateness: lateness.max(Span::ZERO),
            is: Box::new(is),
            watermark: Time::MIN,
            fired: Map::default(),
            due: DueIndex::new(),
            merging: None,
            marks: Marks::default(),
        }
    }

    fn fire(&mut self, key: &K, window: Window, last: Time) {
        let at = (key.clone(), (window.start, window.end));
        let forgotten = last + self.lateness;
        if is_closed(self.watermark, forgotten) || self.fired.contains_key(&at) {
            return;
        }
        let mut fired = Fired {
            last,
            mark: Mark::default(),
        };
        self.marks.change(&mut fired.mark, || at.clone());
        self.due.insert(forgotten, at.clone());
        self.fired.insert(at, fired);
    }
}

impl<K: Key, A: Clone> Operator for AsSoonAs<K, A> {
    type In = Emission<K, A>;
    type Out = Emission<K, A>;
    type Late = ();

    fn next_due(&self) -> Time {
        self.due.next()
    }

    fn advance(&mut self, watermark: Time, _: &mut Output<Self::Out, Self::Late>) {
        self.watermark = self.watermark.max(watermark);
        while let Some((_, at)) = self.due.pop(self.watermark) {
            let over = self.fired.get(&at).map(|fired| fired.last + self.lateness);
            if over.is_some_and(|over| is_closed(self.watermark, over))
                && let Some(fired) = self.fired.remove(&at)
            {
                self.marks.remove(fired.mark, || at);
            }
        }
    }

    fn process(&mut self, input: Input<'_, Self::In>, out: &mut Output<Self::Out, Self::Late>) {
        if is_closed(input.watermark, self.next_due()) {
            self.advance(input.watermark, out);
        }
        self.watermark = self.watermark.max(input.watermark);
        let Emission {
            key,
            window,
            kind,
            value,
            ..
        } = input.item;
        let at = (key.clone(), (window.start, window.end));
        if *kind == Kind::Retraction {
            if let Some(fired) = self.fired.remove(&at) {
                self.marks.remove(fired.mark, || at);
                self.merging = Some(key.clone());
            }
            return;
        }
        let has_fired = self.fired.contains_key(&at);
        let merges = self.merging.take().is_some_and(|merging| merging == *key);
        if merges {
            self.fire(key, *window, input.time);
        } else if !has_fired && value.as_ref().is_some_and(|value| (self.is)(value)) {
            self.fire(key, *window, input.time);
            out.emit(input.time, input.item.clone());
        }
    }
}

impl<K: Key, A: Clone> Pieces for AsSoonAs<K, A> {
    type Key = K;
    type Part = (Time, Time);

    fn marks(&mut self) -> &mut Marks<(K, (Time, Time))> {
        &mut self.marks
    }

    fn pieces(&self) -> Vec<(K, (Time, Time))> {
        self.fired.keys().cloned().collect()
    }

    fn mark(&mut self, key: &K, part: &(Time, Time)) -> Option<&mut Mark> {
        self.fired
            .get_mut(&(key.clone(), *part))
            .map(|fired| &mut fired.mark)
    }

    fn value<C: Codec>(&self, key: &K, part: &(Time, Time)) -> Result<Option<Vec<u8>>, StateError> {
        let fired = self.fired.get(&(key.clone(), *part));
        Ok(fired.map(|fired| Value::default().time(fired.last).end()))
    }

    fn put_back<C: Codec>(
        &mut self,
        key: K,
        part: (Time, Time),
        mut from: Bytes<'_>,
    ) -> Result<(), StateError> {
        let last = from.time()?;
        self.fired.insert(
            (key, part),
            Fired {
                last,
                mark: Mark::default(),
            },
        );
        Ok(())
    }

    fn resumed(&mut self, watermark: Time) {
        self.watermark = watermark;
        self.due = DueIndex::new();
        for (at, fired) in &self.fired {
            self.due.insert(fired.last + self.lateness, at.clone());
        }
    }
}
