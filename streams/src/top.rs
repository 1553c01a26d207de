//! The best of each window, also when scores fall.

use crate::{
    Emission, Input, Kept, Key, Kind, Operator, Output, Span, StateError, Time, Window,
    due::{DueIndex, is_closed},
    hash::Map,
    state::{Bytes, Codec, Mark, Marks, Pieces, Value, holds},
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

/// Of the results of each window the keys with the highest scores: score first, then key.
///
/// Takes results of windows whose value is the score. A later result of the same key replaces its
/// score, a retraction takes it out. What comes with one cause gives at most one result for each
/// window: when the list has changed, or when the window closed. All keys of a window have to come
/// to one place.
///
/// ```
/// use annals_streams::{
///     Emission, Input, Kind, Operator, Output, Place, Span, Time, TopOfWindow, Window,
/// };
///
/// let mut best = TopOfWindow::new(1, Span::ZERO);
/// let mut out = Output::new();
/// let window = Window::new(Time::from_micros(0), Time::from_micros(60));
/// for (player, points) in [("ann", 3), ("bob", 5)] {
///     let key = player.to_string();
///     let max_time = Time::from_micros(7);
///     let value = Some(points);
///     let item = Emission { key, window, kind: Kind::Final, value, max_time };
///     let time = Time::from_micros(59);
///     let place = Place::at(1);
///     best.process(Input { watermark: Time::MIN, time, place, item: &item }, &mut out);
/// }
/// best.flush(&mut out);
/// assert_eq!(out.rows[0].item.value, Some(vec![("bob".to_string(), 5)]));
/// ```
pub struct TopOfWindow<K, S> {
    count: usize,
    with_ties: bool,
    lateness: Span,
    watermark: Time,
    boards: BTreeMap<Window, Board<K, S>>,
    changed: BTreeMap<Window, Changed<K, S>>,
    due: DueIndex<Window>,
    marks: Marks<(K, (Time, Time))>,
}

struct Board<K, S> {
    last: Time,
    scores: Map<K, Scored<S>>,
    order: BTreeSet<(Reverse<S>, K)>,
}

struct Scored<S> {
    score: S,
    time: Time,
    mark: Mark,
}

/// What the list was before this cause, and the last that was said about the window.
struct Changed<K, S> {
    before: Vec<(K, S)>,
    kind: Kind,
}

impl<K: Key, S: Kept + Ord> Board<K, S> {
    fn top(&self, count: usize, with_ties: bool) -> Vec<(K, S)> {
        let mut top: Vec<(K, S)> = Vec::new();
        for (Reverse(score), key) in &self.order {
            let level = top.last().is_some_and(|(_, last)| last == score);
            if top.len() >= count && !(with_ties && level) {
                break;
            }
            top.push((key.clone(), score.clone()));
        }
        top
    }
}

impl<K: Key, S: Kept + Ord> TopOfWindow<K, S> {
    /// The best `count` of each window, followed until it is past its lateness.
    ///
    /// ```
    /// # use annals_streams::{Span, TopOfWindow};
    /// TopOfWindow::<String, u64>::new(10, Span::ZERO);
    /// ```
    pub fn new(count: usize, lateness: Span) -> Self {
        Self {
            count,
            with_ties: false,
            lateness: lateness.max(Span::ZERO),
            watermark: Time::MIN,
            boards: BTreeMap::new(),
            changed: BTreeMap::new(),
            due: DueIndex::new(),
            marks: Marks::default(),
        }
    }

    /// Keeps also all that are level with the last one.
    ///
    /// ```
    /// # use annals_streams::{Span, TopOfWindow};
    /// TopOfWindow::<String, u64>::new(1, Span::ZERO).with_ties();
    /// ```
    #[must_use]
    pub fn with_ties(mut self) -> Self {
        self.with_ties = true;
        self
    }

    fn board(&mut self, window: Window, last: Time) -> &mut Board<K, S> {
        let due = &mut self.due;
        let lateness = self.lateness;
        self.boards.entry(window).or_insert_with(|| {
            due.insert(last + lateness, window);
            Board {
                last,
                scores: Map::default(),
                order: BTreeSet::new(),
            }
        })
    }
}

impl<K: Key, S: Kept + Ord> Operator for TopOfWindow<K, S> {
    type In = Emission<K, S>;
    type Out = Emission<(), Vec<(K, S)>>;
    type Late = ();

    fn check_item<C: Codec>(item: &Self::In) -> Result<(), StateError> {
        holds::<C, _>(&item.value)
    }

    fn next_due(&self) -> Time {
        self.due.next()
    }

    fn advance(&mut self, watermark: Time, out: &mut Output<Self::Out, Self::Late>) {
        self.flush(out);
        self.watermark = self.watermark.max(watermark);
        while let Some((_, window)) = self.due.pop(self.watermark) {
            let Some(board) = self.boards.remove(&window) else {
                continue;
            };
            for (key, scored) in board.scores {
                self.marks
                    .remove(scored.mark, || (key, (window.start, window.end)));
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
            max_time,
        } = input.item;
        let count = self.count;
        let with_ties = self.with_ties;
        let is_first = !self.changed.contains_key(window);
        let board = self.board(*window, input.time);
        let before = is_first.then(|| board.top(count, with_ties));
        let known = board.scores.remove(key);
        if let Some(known) = &known {
            board
                .order
                .remove(&(Reverse(known.score.clone()), key.clone()));
        }
        let mut mark = known.as_ref().map_or(Mark::default(), |known| known.mark);
        let at = || (key.clone(), (window.start, window.end));
        if let Some(score) = value {
            board.order.insert((Reverse(score.clone()), key.clone()));
            self.marks.change(&mut mark, at);
            let scored = Scored {
                score: score.clone(),
                time: *max_time,
                mark,
            };
            if let Some(board) = self.boards.get_mut(window) {
                board.scores.insert(key.clone(), scored);
            }
        } else if known.is_some() {
            self.marks.remove(mark, at);
        }
        if let Some(before) = before {
            self.changed.insert(
                *window,
                Changed {
                    before,
                    kind: *kind,
                },
            );
        } else if let Some(changed) = self.changed.get_mut(window) {
            changed.kind = *kind;
        }
    }

    fn flush(&mut self, out: &mut Output<Self::Out, Self::Late>) {
        let changed = std::mem::take(&mut self.changed);
        let mut rows = Vec::new();
        for (window, Changed { before, kind }) in changed {
            let Some(board) = self.boards.get(&window) else {
                continue;
            };
            let top = board.top(self.count, self.with_ties);
            if top != before || kind.is_final() {
                let times = board.scores.values().map(|scored| scored.time);
                let max_time = times.max().unwrap_or(window.start);
                // A retraction of one key is an update of the list.
                let kind = if kind == Kind::Retraction {
                    Kind::Update
                } else {
                    kind
                };
                let emission = Emission {
                    key: (),
                    window,
                    kind,
                    value: Some(top),
                    max_time,
                };
                rows.push((board.last, emission));
            }
        }
        rows.sort_by_key(|(last, emission)| (*last, emission.window));
        for (last, emission) in rows {
            out.emit(last, emission);
        }
    }
}

impl<K: Key, S: Kept + Ord> Pieces for TopOfWindow<K, S> {
    type Key = K;
    type Part = (Time, Time);

    fn marks(&mut self) -> &mut Marks<(K, (Time, Time))> {
        &mut self.marks
    }

    fn pieces(&self) -> Vec<(K, (Time, Time))> {
        let boards = self.boards.iter();
        boards
            .flat_map(|(window, board)| {
                board
                    .scores
                    .keys()
                    .map(|key| (key.clone(), (window.start, window.end)))
            })
            .collect()
    }

    fn mark(&mut self, key: &K, part: &(Time, Time)) -> Option<&mut Mark> {
        let board = self.boards.get_mut(&Window::new(part.0, part.1))?;
        board.scores.get_mut(key).map(|scored| &mut scored.mark)
    }

    fn value<C: Codec>(&self, key: &K, part: &(Time, Time)) -> Result<Option<Vec<u8>>, StateError> {
        let Some(board) = self.boards.get(&Window::new(part.0, part.1)) else {
            return Ok(None);
        };
        let Some(scored) = board.scores.get(key) else {
            return Ok(None);
        };
        let head = Value::default().time(board.last).time(scored.time);
        head.then::<C, S>(&scored.score).map(Some)
    }

    fn put_back<C: Codec>(
        &mut self,
        key: K,
        part: (Time, Time),
        mut from: Bytes<'_>,
    ) -> Result<(), StateError> {
        let last = from.time()?;
        let time = from.time()?;
        let score = from.then::<C, S>()?;
        let board = self.board(Window::new(part.0, part.1), last);
        board.order.insert((Reverse(score.clone()), key.clone()));
        board.scores.insert(
            key,
            Scored {
                score,
                time,
                mark: Mark::default(),
            },
        );
        Ok(())
    }

    fn resumed(&mut self, watermark: Time) {
        self.watermark = watermark;
    }
}
