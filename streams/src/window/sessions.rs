//! Session windows: items of a key that follow each other closely, however long that goes on.

use crate::{
    Emission, Fold, Input, Key, Kind, Late, Operator, Output, Span, StateError, Time, Window,
    WindowOptions,
    due::{DueIndex, is_closed, is_late},
    emit::Closing,
    hash::Map,
    state::{Bytes, Codec, Mark, Marks, Pieces, Value, holds},
};

/// Sessions over keyed items: a session ends when nothing comes for a gap of event time.
///
/// Two items belong together when their distance is at most the gap; exactly the gap still
/// counts. A session closes when the watermark reaches its last event plus the gap, is named by
/// its first and last event, and its result has that closing moment as time. An item between two
/// sessions merges them: what had been reported of the parts is retracted, then the whole is
/// reported. A session past its lateness is gone and merges with nothing.
///
/// With a gap that depends on the item the furthest end wins.
///
/// ```
/// use annals_streams::{
///     Count, Input, Operator, Output, Place, Sessions, Span, Time, WindowOptions,
/// };
///
/// let gap = Span::from_micros(5);
/// let mut visits = Sessions::<String, (), Count>::new(gap, WindowOptions::on_close());
/// let mut out = Output::new();
/// for (position, time) in [(1, 10), (2, 15), (3, 30)] {
///     let watermark = Time::from_micros(time - 1);
///     let time = Time::from_micros(time);
///     let item = ("ann".to_string(), ());
///     let input = Input { watermark, time, place: Place::at(position), item: &item };
///     visits.process(input, &mut out);
/// }
/// let visit = &out.rows[0].item;
/// assert_eq!((visit.window.start.micros(), visit.window.end.micros()), (10, 15));
/// assert_eq!(visit.value, Some(Count(2)));
/// ```
pub struct Sessions<K, T, A> {
    gap: Gap<T>,
    options: WindowOptions,
    watermark: Time,
    /// Of each key by start, disjoint.
    keys: Map<K, Vec<Session<A>>>,
    due: DueIndex<K>,
    /// Lists of keys that are gone, kept for their memory.
    spare: Vec<Vec<Session<A>>>,
    marks: Marks<(K, Time)>,
}

enum Gap<T> {
    Fixed(Span),
    ByItem(Box<dyn Fn(&T) -> Span + Send + Sync>),
}

struct Session<A> {
    start: Time,
    end: Time,
    /// The largest time that it can still take.
    last: Time,
    /// Nothing after a result was given and discarded.
    value: Option<A>,
    told: bool,
    /// When the index will ask about it.
    armed: Time,
    mark: Mark,
}

impl<A> Session<A> {
    fn window(&self) -> Window {
        Window::new(self.start, self.end)
    }
}

const SPARE_MAX: usize = 1024;

impl<K: Key, T, A: Fold<T>> Sessions<K, T, A> {
    /// No sessions yet. A negative gap is none: only items of the same time belong together.
    ///
    /// ```
    /// # use annals_streams::{Count, Sessions, Span, WindowOptions};
    /// Sessions::<u64, (), Count>::new(Span::from_micros(30), WindowOptions::on_close());
    /// ```
    pub fn new(gap: Span, options: WindowOptions) -> Self {
        Self::with(Gap::Fixed(gap), options)
    }

    /// Each item says how long its session waits after it.
    ///
    /// ```
    /// # use annals_streams::{Count, Sessions, Span, WindowOptions};
    /// let gap = |seconds: &i64| Span::from_micros(seconds * 1_000_000);
    /// Sessions::<u64, i64, Count>::by_item(gap, WindowOptions::on_close());
    /// ```
    pub fn by_item(
        gap: impl Fn(&T) -> Span + Send + Sync + 'static,
        options: WindowOptions,
    ) -> Self {
        Self::with(Gap::ByItem(Box::new(gap)), options)
    }

    fn with(gap: Gap<T>, options: WindowOptions) -> Self {
        Self {
            gap,
            options,
            watermark: Time::MIN,
            keys: Map::default(),
            due: DueIndex::new(),
            spare: Vec::new(),
            marks: Marks::default(),
        }
    }

    fn is_late(&self, last: Time) -> bool {
        is_late(self.watermark, last, self.options.lateness)
    }

    /// Looks at the sessions of a key that asked for it at `armed`.
    fn look(&mut self, key: K, armed: Time, closing: &mut Closing<K, A>) {
        let watermark = self.watermark;
        let options = self.options;
        let Some(sessions) = self.keys.get_mut(&key) else {
            return;
        };
        let mut at = 0;
        while at < sessions.len() {
            let session = &mut sessions[at];
            if session.armed != armed {
                at += 1;
                continue;
            }
            let goes = is_late(watermark, session.last, options.lateness);
            if !session.told && is_closed(watermark, session.last) {
                session.told = true;
                let value = match options.emit.on_close() {
                    true => options.value_of(&mut session.value, goes),
                    false => None,
                };
                if value.is_some() {
                    if options.discarding && !goes {
                        self.marks
                            .change(&mut session.mark, || (key.clone(), session.start));
                    }
                    let emission = Emission {
                        key: key.clone(),
                        window: session.window(),
                        kind: Kind::Final,
                        value,
                        max_time: session.end,
                    };
                    closing.add(session.last, emission);
                }
            }
            if goes {
                let session = sessions.remove(at);
                self.marks
                    .remove(session.mark, || (key.clone(), session.start));
                continue;
            }
            session.armed = if session.told {
                session.last + options.lateness
            } else {
                session.last
            };
            self.due.insert(session.armed, key.clone());
            at += 1;
        }
        if sessions.is_empty()
            && let Some(sessions) = self.keys.remove(&key)
            && self.spare.len() < SPARE_MAX
        {
            self.spare.push(sessions);
        }
    }
}

impl<K: Key, T: Clone, A: Fold<T>> Operator for Sessions<K, T, A> {
    type In = (K, T);
    type Out = Emission<K, A>;
    type Late = Late<K, T>;

    fn check_result<C: Codec>(result: &Self::Out) -> Result<(), StateError> {
        holds::<C, _>(&result.value)
    }

    fn next_due(&self) -> Time {
        self.due.next()
    }

    fn advance(&mut self, watermark: Time, out: &mut Output<Self::Out, Self::Late>) {
        self.watermark = self.watermark.max(watermark);
        let mut closing = Closing::new();
        while let Some((armed, key)) = self.due.pop(self.watermark) {
            self.look(key, armed, &mut closing);
        }
        closing.emit_into(out);
    }

    fn process(&mut self, input: Input<'_, Self::In>, out: &mut Output<Self::Out, Self::Late>) {
        if is_closed(input.watermark, self.next_due()) {
            self.advance(input.watermark, out);
        }
        self.watermark = self.watermark.max(input.watermark);
        let (key, item) = input.item;
        let gap = match &self.gap {
            Gap::Fixed(gap) => *gap,
            Gap::ByItem(gap) => gap(item),
        };
        let mut start = input.time;
        let mut end = input.time;
        let mut last = input.time + gap.max(Span::ZERO);
        let known = self.keys.get(key).map_or(&[] as &[_], Vec::as_slice);
        // Sessions do not touch each other, so what one item touches lies side by side.
        let first = known.partition_point(|session| session.last < start);
        let after = known
            .partition_point(|session| session.start <= last)
            .max(first);
        for session in &known[first..after] {
            start = start.min(session.start);
            end = end.max(session.end);
            last = last.max(session.last);
        }
        let window = Window::new(start, end);
        if self.is_late(last) {
            out.refuse(input.time, Late::of(input.item, vec![window], false));
            return;
        }
        let spare = &mut self.spare;
        if !self.keys.contains_key(key) {
            self.keys
                .insert(key.clone(), spare.pop().unwrap_or_default());
        }
        let Some(sessions) = self.keys.get_mut(key) else {
            return;
        };
        let options = self.options;
        let mut value: Option<A> = None;
        let mut mark = Mark::default();
        let mut armed = Time::MAX;
        let is_new = first == after;
        for session in sessions.drain(first..after) {
            if session.window() != window
                && !options.discarding
                && (options.emit.on_update() || session.told)
            {
                let emission = Emission {
                    key: key.clone(),
                    window: session.window(),
                    kind: Kind::Retraction,
                    value: None,
                    max_time: session.end,
                };
                out.emit(session.last, emission);
            }
            if session.start == start {
                mark = session.mark;
            } else {
                self.marks
                    .remove(session.mark, || (key.clone(), session.start));
            }
            armed = armed.min(session.armed);
            match (&mut value, session.value) {
                (Some(whole), Some(part)) => whole.merge(part),
                (whole, part) => *whole = whole.take().or(part),
            }
        }
        value.get_or_insert_default().add(item);
        let told = is_closed(self.watermark, last);
        if told || options.emit.on_update() {
            let emission = Emission {
                key: key.clone(),
                window,
                kind: Kind::at_item(told),
                value: options.value_of(&mut value, false),
                max_time: end,
            };
            out.emit(last, emission);
        }
        // What was swallowed may have asked to be looked at later than the whole has to be.
        let wanted = if told { last + options.lateness } else { last };
        if is_new || wanted < armed {
            armed = wanted;
            self.due.insert(armed, key.clone());
        }
        self.marks.change(&mut mark, || (key.clone(), start));
        sessions.insert(
            first,
            Session {
                start,
                end,
                last,
                value,
                told,
                armed,
                mark,
            },
        );
    }

    fn lag(&self) -> Span {
        self.options.lateness
    }
}

impl<K: Key, T, A: Fold<T>> Pieces for Sessions<K, T, A> {
    type Key = K;
    type Part = Time;

    fn marks(&mut self) -> &mut Marks<(K, Time)> {
        &mut self.marks
    }

    fn pieces(&self) -> Vec<(K, Time)> {
        let keys = self.keys.iter();
        keys.flat_map(|(key, sessions)| sessions.iter().map(|session| (key.clone(), session.start)))
            .collect()
    }

    fn mark(&mut self, key: &K, start: &Time) -> Option<&mut Mark> {
        let sessions = self.keys.get_mut(key)?;
        let at = sessions
            .binary_search_by_key(start, |session| session.start)
            .ok()?;
        sessions.get_mut(at).map(|session| &mut session.mark)
    }

    fn value<C: Codec>(&self, key: &K, start: &Time) -> Result<Option<Vec<u8>>, StateError> {
        let Some(sessions) = self.keys.get(key) else {
            return Ok(None);
        };
        let Ok(at) = sessions.binary_search_by_key(start, |session| session.start) else {
            return Ok(None);
        };
        let session = &sessions[at];
        let head = Value::default().time(session.end).time(session.last);
        let head = head.flag(session.value.is_some());
        match &session.value {
            Some(value) => head.then::<C, A>(value).map(Some),
            None => Ok(Some(head.end())),
        }
    }

    fn put_back<C: Codec>(
        &mut self,
        key: K,
        start: Time,
        mut from: Bytes<'_>,
    ) -> Result<(), StateError> {
        let end = from.time()?;
        let last = from.time()?;
        let value = if from.flag()? {
            Some(from.then::<C, A>()?)
        } else {
            None
        };
        let sessions = self.keys.entry(key).or_default();
        let at = sessions.partition_point(|session| session.start < start);
        let armed = Time::MAX;
        let mark = Mark::default();
        sessions.insert(
            at,
            Session {
                start,
                end,
                last,
                value,
                told: false,
                armed,
                mark,
            },
        );
        Ok(())
    }

    fn resumed(&mut self, watermark: Time) {
        self.watermark = watermark;
        self.due = DueIndex::new();
        for (key, sessions) in &mut self.keys {
            for session in sessions {
                session.told = is_closed(watermark, session.last);
                session.armed = if session.told {
                    session.last + self.options.lateness
                } else {
                    session.last
                };
                self.due.insert(session.armed, key.clone());
            }
        }
    }
}
