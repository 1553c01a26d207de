//! The operator that finds the matches of a pattern.

use super::{Match, Pattern, Skip};
use crate::{
    Changes, Codec, ConfigError, Input, Kept, Key, Operator, Output, Panic, Place, Span, State,
    StateError, Time,
    due::{DueIndex, is_closed},
    hash::Map,
    order::{InTimeOrder, Turn},
    state::{Bytes, Mark, Marks, Pieces, Value, holds},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Finds a pattern among the items of each key.
///
/// Items wait until the watermark reaches them, so that they are looked at in the order of
/// (time, place) whatever the order in which they came; those at or before the watermark go to the
/// late side output. A match has the time of its last item, an absence the last moment that
/// belonged to it. Matches of one watermark are ordered by (time, first time, key).
///
/// An item over which a condition panics is skipped, as if it had not come, and said to be
/// [lacking](crate::Omitted).
///
/// ```
/// use annals_streams::{Detect, Input, Operator, Output, Pattern, Place, Span, Time};
///
/// let rising = Pattern::first(|_: &i64| true)
///     .then(|before, item| *item > before[0])
///     .within(Span::from_micros(100));
/// let mut detect = Detect::<String, i64>::new(rising)?;
/// let mut out = Output::new();
/// for (position, time, value) in [(1, 30, 9), (2, 10, 4)] {
///     let item = ("ann".to_string(), value);
///     let time = Time::from_micros(time);
///     let place = Place::at(position);
///     detect.process(Input { watermark: Time::MIN, time, place, item: &item }, &mut out);
/// }
/// detect.advance(Time::from_micros(30), &mut out);
/// assert_eq!(out.rows[0].item.1.items, [4, 9]);
/// # Ok::<(), annals_streams::ConfigError>(())
/// ```
pub struct Detect<K, T> {
    pattern: Pattern<T>,
    waiting: InTimeOrder<K, T>,
    begun: Begun<K, T>,
}

/// The matches of each key that have begun and not ended, oldest first.
struct Begun<K, T> {
    keys: Map<K, Known<T>>,
    due: DueIndex<K>,
    marks: Marks<(K, ())>,
}

struct Known<T> {
    partials: Vec<Partial<T>>,
    armed: Option<Time>,
    mark: Mark,
}

#[derive(Clone, Serialize, Deserialize)]
struct Partial<T> {
    first: Time,
    /// The step that comes next.
    step: usize,
    items: Vec<T>,
}

type Found<K, T> = Vec<(Time, K, Match<T>)>;
type Omitted<K, T> = Vec<(Time, Place, (K, Match<T>), Panic)>;

/// What came of looking at items: matches, and items over which a condition panicked.
struct Looked<K, T> {
    found: Found<K, T>,
    lacking: Omitted<K, T>,
}

/// What an item is to a match that has begun.
enum Verdict {
    Ends,
    Waits,
    /// It is what this step wants.
    Fits(usize),
}

struct Judged {
    verdicts: Vec<Verdict>,
    begins: bool,
}

impl<K: Key, T: Kept> Detect<K, T> {
    /// Has seen nothing yet.
    ///
    /// # Errors
    ///
    /// When the pattern does not begin with an item, or could never end.
    ///
    /// ```
    /// # use annals_streams::{Detect, Pattern};
    /// let endless = Pattern::first(|_: &u8| true).never(|_, _| true);
    /// assert!(Detect::<String, u8>::new(endless).is_err());
    /// ```
    pub fn new(pattern: Pattern<T>) -> Result<Self, ConfigError> {
        let keys = Map::default();
        let begun = Begun {
            keys,
            due: DueIndex::new(),
            marks: Marks::default(),
        };
        Ok(Self {
            pattern: pattern.check()?,
            waiting: InTimeOrder::new(),
            begun,
        })
    }

    fn look(&mut self, key: K, turns: Vec<Turn<K, T>>, watermark: Time, out: &mut Looked<K, T>) {
        let known = self.begun.keys.remove(&key);
        let fresh = || Known {
            partials: Vec::new(),
            armed: None,
            mark: Mark::default(),
        };
        let mut known = known.unwrap_or_else(fresh);
        let mut changed = !turns.is_empty();
        for turn in turns {
            // What ends before this item ends without it.
            self.end_before(turn.time, &key, &mut known.partials, &mut out.found);
            self.step(turn, &mut known.partials, out);
        }
        let had = known.partials.len();
        match watermark {
            Time::MAX => self.end_all(&key, &mut known.partials, &mut out.found),
            _ => {
                let next = watermark + Span::from_micros(1);
                self.end_before(next, &key, &mut known.partials, &mut out.found);
            }
        }
        changed |= had != known.partials.len();
        if known.partials.is_empty() {
            self.begun.marks.remove(known.mark, || (key, ()));
            return;
        }
        if changed {
            self.begun
                .marks
                .change(&mut known.mark, || (key.clone(), ()));
        }
        self.begun.keys.insert(key.clone(), known);
        self.arm(&key);
    }

    fn end_all(&self, key: &K, partials: &mut Vec<Partial<T>>, found: &mut Found<K, T>) {
        self.end_before(Time::MAX, key, partials, found);
        partials.retain(|partial| self.pattern.deadline(partial.first).is_none());
    }

    /// Lets matches go whose time is over before `next`; what waited for an absence is found.
    fn end_before(
        &self,
        next: Time,
        key: &K,
        partials: &mut Vec<Partial<T>>,
        found: &mut Found<K, T>,
    ) {
        let is_over = |partial: &Partial<T>| {
            self.pattern
                .deadline(partial.first)
                .is_some_and(|deadline| deadline < next)
        };
        let mut at = 0;
        while at < partials.len() {
            if !is_over(&partials[at]) {
                at += 1;
                continue;
            }
            let partial = partials.remove(at);
            let absent = self.pattern.next_wanted(partial.step).is_none();
            if absent && let Some(deadline) = self.pattern.deadline(partial.first) {
                let whole = Match {
                    first: partial.first,
                    items: partial.items,
                };
                found.push((deadline, key.clone(), whole));
                if self.pattern.skip == Skip::PastLast {
                    partials.clear();
                    return;
                }
            }
        }
    }

    /// What each match that has begun makes of an item, as far as that matters, and whether the
    /// item begins one. Nothing is changed yet, because a condition may panic.
    fn judge(&self, partials: &[Partial<T>], item: &T) -> Judged {
        let pattern = &self.pattern;
        let mut verdicts = Vec::with_capacity(partials.len());
        for partial in partials {
            let wanted = pattern.next_wanted(partial.step);
            let until = wanted.unwrap_or(pattern.steps.len());
            let mut forbidden = pattern.steps[partial.step..until].iter();
            if forbidden.any(|step| (step.is)(&partial.items, item)) {
                verdicts.push(Verdict::Ends);
                continue;
            }
            let fits = wanted.filter(|at| (pattern.steps[*at].is)(&partial.items, item));
            verdicts.push(fits.map_or(Verdict::Waits, Verdict::Fits));
            let is_whole = fits.is_some_and(|at| at + 1 == pattern.steps.len());
            if is_whole && pattern.skip == Skip::PastLast {
                return Judged {
                    verdicts,
                    begins: false,
                };
            }
        }
        Judged {
            verdicts,
            begins: (pattern.steps[0].is)(&[], item),
        }
    }

    fn step(&self, turn: Turn<K, T>, partials: &mut Vec<Partial<T>>, out: &mut Looked<K, T>) {
        let pattern = &self.pattern;
        let judged = catch_unwind(AssertUnwindSafe(|| self.judge(partials, &turn.item)));
        let Turn {
            time,
            key,
            place,
            item,
        } = turn;
        let Judged { verdicts, begins } = match judged {
            Ok(judged) => judged,
            Err(panic) => {
                let items = vec![item];
                let alone = Match { first: time, items };
                out.lacking.push((time, place, (key, alone), panic));
                return;
            }
        };
        let mut next = Vec::with_capacity(partials.len() + 1);
        for (partial, verdict) in std::mem::take(partials).into_iter().zip(verdicts) {
            let at = match verdict {
                Verdict::Ends => continue,
                Verdict::Waits => {
                    next.push(partial);
                    continue;
                }
                Verdict::Fits(at) => at,
            };
            let mut longer = partial.clone();
            if pattern.skip == Skip::ToAny {
                next.push(partial);
            }
            longer.items.push(item.clone());
            longer.step = at + 1;
            if longer.step < pattern.steps.len() {
                next.push(longer);
                continue;
            }
            let whole = Match {
                first: longer.first,
                items: longer.items,
            };
            out.found.push((time, key.clone(), whole));
            if pattern.skip == Skip::PastLast {
                return;
            }
        }
        if begins {
            let first = Partial {
                first: time,
                step: 1,
                items: vec![item],
            };
            if pattern.steps.len() > 1 {
                next.push(first);
            } else {
                let whole = Match {
                    first: time,
                    items: first.items,
                };
                out.found.push((time, key, whole));
            }
        }
        *partials = next;
    }

    fn arm(&mut self, key: &K) {
        let Some(known) = self.begun.keys.get_mut(key) else {
            return;
        };
        let first = known.partials.iter().map(|partial| partial.first).min();
        let deadline = first.and_then(|first| self.pattern.deadline(first));
        self.begun.due.arm(&mut known.armed, deadline, key);
    }
}

impl<K: Key, T: Kept> Operator for Detect<K, T> {
    type In = (K, T);
    type Out = (K, Match<T>);
    type Late = (K, T);

    fn check_item<C: Codec>((_, item): &Self::In) -> Result<(), StateError> {
        holds::<C, _>(item)
    }

    fn next_due(&self) -> Time {
        self.waiting.next_turn().min(self.begun.due.next())
    }

    fn advance(&mut self, watermark: Time, out: &mut Output<Self::Out, Self::Late>) {
        let mut turns: BTreeMap<K, Vec<Turn<K, T>>> = BTreeMap::new();
        for turn in self.waiting.release(watermark) {
            turns.entry(turn.key.clone()).or_default().push(turn);
        }
        let begun = &mut self.begun;
        let over = begun
            .due
            .take_armed(watermark, &mut begun.keys, |known| &mut known.armed);
        for key in over {
            turns.entry(key).or_default();
        }
        let mut looked = Looked {
            found: Vec::new(),
            lacking: Vec::new(),
        };
        for (key, turns) in turns {
            self.look(key, turns, watermark, &mut looked);
        }
        let Looked { mut found, lacking } = looked;
        for (time, place, item, panic) in lacking {
            out.lack_of(time, place, item, panic);
        }
        // The sort is stable: matches of one key that are alike keep the order of their steps.
        found.sort_by(|(one_time, one_key, one), (other_time, other_key, other)| {
            (one_time, one.first, one_key).cmp(&(other_time, other.first, other_key))
        });
        for (time, key, whole) in found {
            out.emit(time, (key, whole));
        }
    }

    fn process(&mut self, input: Input<'_, Self::In>, out: &mut Output<Self::Out, Self::Late>) {
        if is_closed(input.watermark, self.next_due()) {
            self.advance(input.watermark, out);
        }
        if !self
            .waiting
            .hold(input.watermark, input.time, input.place, input.item)
        {
            out.refuse(input.time, input.item.clone());
        }
    }
}

impl<K: Key, T: Kept> Pieces for Begun<K, T> {
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
        known
            .map(|known| Value::default().then::<C, _>(&known.partials))
            .transpose()
    }

    fn put_back<C: Codec>(
        &mut self,
        key: K,
        (): (),
        mut from: Bytes<'_>,
    ) -> Result<(), StateError> {
        let partials = from.then::<C, Vec<Partial<T>>>()?;
        self.keys.insert(
            key,
            Known {
                partials,
                armed: None,
                mark: Mark::default(),
            },
        );
        Ok(())
    }

    fn resumed(&mut self, _: Time) {
        self.due = DueIndex::new();
    }
}

impl<K: Key, T: Kept> State for Detect<K, T> {
    fn snapshot<C: Codec>(&self, to: &mut Changes) -> Result<(), StateError> {
        self.waiting.snapshot::<C>(to)?;
        self.begun.snapshot::<C>(to)
    }

    fn changes<C: Codec>(&mut self, to: &mut Changes) -> Result<(), StateError> {
        self.waiting.changes::<C>(to)?;
        self.begun.changes::<C>(to)
    }

    fn restore<C: Codec>(
        &mut self,
        key: &[u8],
        place: &[u8],
        value: &[u8],
    ) -> Result<(), StateError> {
        // An item that waits has a place; what has begun is one entry for each key.
        if !place.is_empty() {
            return self.waiting.restore::<C>(key, place, value);
        }
        self.begun.restore::<C>(key, place, value)?;
        let steps = self.pattern.steps.len();
        let begun = self.begun.keys.values().flat_map(|known| &known.partials);
        // Whatever has passed the last step is a match, and is not kept.
        match begun
            .map(|partial| partial.step)
            .find(|step| *step >= steps)
        {
            Some(step) => Err(StateError::new(format!("the pattern has no step {step}"))),
            None => Ok(()),
        }
    }

    fn resume(&mut self, watermark: Time) {
        self.waiting.resume(watermark);
        self.begun.resume(watermark);
        let keys: Vec<K> = self.begun.keys.keys().cloned().collect();
        for key in &keys {
            self.arm(key);
        }
    }
}
