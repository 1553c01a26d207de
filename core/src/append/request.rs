//! The one request to append, and what no store may accept of it.

use std::collections::HashSet;

use super::{AppendError, Condition, Expected, Limits, Violation};
use crate::error::Invalid;
use crate::event::NewEvent;
use crate::inline::InlineRow;
use crate::position::Incarnation;
use crate::stream::{StreamId, Version};

/// Events for the ends of streams, and what must be true for them to be written.
///
/// Positions follow the order of the events here. A stream that gets events and is not in
/// `expectations` may be in any state but tombstoned.
///
/// Every store appends to one stream. Appends that name several need a store that is
/// [atomic over streams](crate::Store::atomic), a condition needs one that
/// [decides over queries](crate::Store::tagged); others refuse them as [`AppendError::Invalid`].
///
/// ```
/// use annals_core::{Append, Expected, NewEvent, StreamId, Version};
///
/// let note = StreamId::new("note-1")?;
/// let noted = Append::new(note, [NewEvent::json("noted", "1")]).expecting(Expected::NoStream);
/// assert_eq!(noted.events.len(), 1);
///
/// let (a, b) = (StreamId::new("account-a")?, StreamId::new("account-b")?);
/// let moved = Append::default()
///     .requiring(a.clone(), Expected::Version(Version::new(3)))
///     .requiring(b.clone(), Expected::Exists)
///     .event(a, NewEvent::json("account.withdrawn", "5"))
///     .event(b, NewEvent::json("account.deposited", "5"));
/// assert_eq!(moved.events.len(), 2);
/// # Ok::<_, annals_core::Invalid>(())
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Append {
    /// What must be true of streams, each named at most once; also of streams that get no event.
    pub expectations: Vec<(StreamId, Expected)>,
    /// The events, in the order of the log.
    pub events: Vec<(StreamId, NewEvent)>,
    /// What must not have happened.
    pub condition: Option<Condition>,
    /// Rows of inline views that are written with the events, in their transaction and only when
    /// they are. Each is folded from a stream that gets events and of which [`Expected::Version`]
    /// or [`Expected::ActiveAt`] is expected. See [`InlineViews`](crate::InlineViews).
    pub rows: Vec<InlineRow>,
    /// The incarnation of the log that was read for this append, if it was decided on what was
    /// read.
    pub decided_on: Option<Incarnation>,
}

impl Append {
    /// Events for the end of `stream`, whatever its state.
    pub fn new(stream: StreamId, events: impl IntoIterator<Item = NewEvent>) -> Append {
        Append {
            events: events
                .into_iter()
                .map(|event| (stream.clone(), event))
                .collect(),
            expectations: vec![(stream, Expected::Any)],
            ..Append::default()
        }
    }

    /// Only if `expected` holds for the stream that this append was [made for](Append::new).
    ///
    /// In an append that begins with nothing, name the stream: [`requiring`](Append::requiring).
    #[must_use]
    pub fn expecting(mut self, expected: Expected) -> Append {
        if let Some((_, first)) = self.expectations.first_mut() {
            *first = expected;
        }
        self
    }

    /// Only if `expected` holds for `stream`, which need not get an event.
    #[must_use]
    pub fn requiring(mut self, stream: StreamId, expected: Expected) -> Append {
        self.expectations.push((stream, expected));
        self
    }

    /// With an event more.
    #[must_use]
    pub fn event(mut self, stream: StreamId, event: NewEvent) -> Append {
        self.events.push((stream, event));
        self
    }

    /// Only if `condition` holds.
    #[must_use]
    pub fn under(mut self, condition: Condition) -> Append {
        self.condition = Some(condition);
        self
    }

    /// Only while the log is the one that was read: see [`Log::incarnation`](crate::Log).
    #[must_use]
    pub fn decided_on(mut self, incarnation: Incarnation) -> Append {
        self.decided_on = Some(incarnation);
        self
    }

    /// The stream, when the append names no other one: every store can append then.
    ///
    /// ```
    /// use annals_core::{Append, Expected, NewEvent, StreamId};
    ///
    /// let note = StreamId::new("note-1")?;
    /// let append = Append::new(note.clone(), [NewEvent::json("noted", "1")]);
    /// assert_eq!(append.only_stream(), Some(&note));
    /// let append = append.requiring(StreamId::new("note-2")?, Expected::Exists);
    /// assert_eq!(append.only_stream(), None);
    /// # Ok::<_, annals_core::Invalid>(())
    /// ```
    pub fn only_stream(&self) -> Option<&StreamId> {
        let mut named = self.streams();
        let first = named.next()?;
        named.all(|other| other == first).then_some(first)
    }

    /// The streams that it names: of expectations, then of events.
    fn streams(&self) -> impl Iterator<Item = &StreamId> {
        let expected = self.expectations.iter().map(|(stream, _)| stream);
        expected.chain(self.events.iter().map(|(stream, _)| stream))
    }

    /// What is expected of each stream, once for each: those of
    /// [`expectations`](Append::expectations), then those that get events without one. A
    /// [`Violation::Stream`] counts them in this order.
    ///
    /// ```
    /// use annals_core::{Append, Expected, NewEvent, StreamId};
    ///
    /// let (a, b) = (StreamId::new("note-a")?, StreamId::new("note-b")?);
    /// let append = Append::default()
    ///     .event(b.clone(), NewEvent::json("noted", "1"))
    ///     .event(b.clone(), NewEvent::json("noted", "2"))
    ///     .requiring(a.clone(), Expected::Exists);
    /// let expected: Vec<_> = append.expected_streams().collect();
    /// assert_eq!(expected, [(&a, Expected::Exists), (&b, Expected::Any)]);
    /// # Ok::<_, annals_core::Invalid>(())
    /// ```
    pub fn expected_streams(&self) -> impl Iterator<Item = (&StreamId, Expected)> {
        let said = self.expectations.iter();
        let mut seen: HashSet<&StreamId> = said.clone().map(|(stream, _)| stream).collect();
        let unsaid = self.events.iter().map(|(stream, _)| stream);
        let unsaid = unsaid.filter(move |stream| seen.insert(stream));
        said.map(|(stream, expected)| (stream, *expected))
            .chain(unsaid.map(|stream| (stream, Expected::Any)))
    }

    /// The version of `stream` once this is written; nothing when no version of it is expected.
    pub fn version_after(&self, stream: &StreamId) -> Option<Version> {
        let found = self.expectations.iter().find(|(of, _)| of == stream);
        let (Expected::Version(version) | Expected::ActiveAt(version)) = found?.1 else {
            return None;
        };
        let events = self.events.iter().filter(|(to, _)| to == stream).count();
        Some(Version::new(version.get() + events as u64))
    }

    /// Bytes of its events and rows.
    pub fn size_bytes(&self) -> usize {
        let events: usize = self
            .events
            .iter()
            .map(|(_, event)| event.size_bytes())
            .sum();
        let rows: usize = self.rows.iter().map(InlineRow::size_bytes).sum();
        events + rows
    }

    /// Refuses what was decided on another incarnation of the log than `now`. Every store asks it
    /// where it writes; one whose log may have several asks it after it answered known ids: a
    /// repetition is one in each incarnation.
    ///
    /// # Errors
    ///
    /// [`AppendError::Conflict`]: read again, decide again.
    pub fn check_incarnation(&self, now: Incarnation) -> Result<(), AppendError> {
        match self.decided_on {
            Some(decided_on) if decided_on != now => {
                Err(AppendError::Conflict(vec![Violation::Incarnation {
                    decided_on,
                    found: now,
                }]))
            }
            _ => Ok(()),
        }
    }

    /// Refuses inline rows: for stores without [`InlineViews`](crate::InlineViews).
    ///
    /// # Errors
    ///
    /// [`Invalid`] when there is one.
    ///
    /// ```
    /// assert!(annals_core::Append::default().check_carries_no_rows().is_ok());
    /// ```
    pub fn check_carries_no_rows(&self) -> Result<(), Invalid> {
        match self.rows.first() {
            Some(row) => {
                let key = row.key.escape_debug();
                Err(Invalid::new(format!(
                    "the append has the inline row `{key}`, and this store keeps no inline views"
                )))
            }
            None => Ok(()),
        }
    }

    /// Refuses what needs more than an append to one stream: for stores that are neither atomic
    /// over streams nor decide over queries.
    ///
    /// # Errors
    ///
    /// [`Invalid`], naming what the store cannot do.
    pub fn check_one_stream(&self) -> Result<&StreamId, Invalid> {
        if self.condition.is_some() {
            return Err(Invalid::new(
                "this store cannot append under a condition: it does not decide over queries",
            ));
        }
        self.only_stream().ok_or_else(|| {
            let streams: HashSet<_> = self.streams().collect();
            Invalid::new(format!(
                "this store appends to one stream at a time, the append names {}",
                streams.len()
            ))
        })
    }

    /// What no store may accept: nothing to write, one id or one expectation twice, too much at
    /// once, names out of bounds, rows that belong to none of its streams, a condition on nothing.
    ///
    /// Every store calls it before it touches anything.
    ///
    /// # Errors
    ///
    /// [`Invalid`], naming the event by its index and the limit that it breaks.
    pub fn check(&self, limits: &Limits) -> Result<(), Invalid> {
        if self.events.is_empty() {
            return Err(Invalid::new("an append without events"));
        }
        if self.events.len() > limits.append_events_max {
            let count = self.events.len();
            let max = limits.append_events_max;
            return Err(Invalid::new(format!(
                "an append of {count} events, at most {max} are allowed"
            )));
        }
        self.check_expectations(limits)?;
        if let Some(condition) = &self.condition {
            condition.query.check()?;
        }
        let mut bytes = 0;
        for (index, (_, event)) in self.events.iter().enumerate() {
            limits.check_event(index, event)?;
            bytes += event.size_bytes();
        }
        if bytes > limits.append_bytes_max {
            return Err(Invalid::new(format!(
                "an append of {bytes} bytes, at most {} are allowed",
                limits.append_bytes_max
            )));
        }
        if self.events.len() > 1 {
            let mut seen = HashSet::with_capacity(self.events.len());
            if let Some((_, event)) = self.events.iter().find(|(_, event)| !seen.insert(event.id)) {
                return Err(Invalid::new(format!(
                    "id {} appears twice in the append",
                    event.id
                )));
            }
        }
        self.check_rows(limits)
    }

    fn check_expectations(&self, limits: &Limits) -> Result<(), Invalid> {
        if self.expectations.len() > limits.append_expectations_max {
            return Err(Invalid::new(format!(
                "an append with {} expectations, at most {} are allowed",
                self.expectations.len(),
                limits.append_expectations_max
            )));
        }
        let mut seen = HashSet::new();
        if self.expectations.len() > 1
            && let Some((stream, _)) = self
                .expectations
                .iter()
                .find(|(stream, _)| !seen.insert(stream))
        {
            return Err(Invalid::new(format!(
                "stream `{stream}` has two expectations in one append"
            )));
        }
        let mut written: Option<HashSet<&StreamId>> = None;
        for (stream, expected) in &self.expectations {
            if *expected != Expected::Any {
                continue;
            }
            let written = written
                .get_or_insert_with(|| self.events.iter().map(|(stream, _)| stream).collect());
            if !written.contains(stream) {
                return Err(Invalid::new(format!(
                    "expecting anything of stream `{stream}` has no effect: the append writes no \
                     event to it"
                )));
            }
        }
        Ok(())
    }

    fn check_rows(&self, limits: &Limits) -> Result<(), Invalid> {
        let mut seen = HashSet::new();
        let mut bytes = 0;
        for row in &self.rows {
            let key = row.key.escape_debug();
            let stream = &row.stream;
            row.check_itself()?;
            bytes += row.size_bytes();
            if !seen.insert((row.generation, &row.key)) {
                return Err(Invalid::new(format!(
                    "the inline row `{key}` of generation {} appears twice in the append",
                    row.generation
                )));
            }
            let is_of_stream =
                |event: usize| self.events.get(event).is_some_and(|(to, _)| to == stream);
            let ascends = row.past.is_sorted_by(|one, other| one.event < other.event);
            if !ascends || !row.past.iter().all(|past| is_of_stream(past.event)) {
                return Err(Invalid::new(format!(
                    "the past of the inline row `{key}` names events that are not written to \
                     stream `{stream}`"
                )));
            }
            let gets_events = self.events.iter().any(|(to, _)| to == stream);
            match self.version_after(stream) {
                Some(after) if gets_events && row.from < after => {}
                _ => {
                    return Err(Invalid::new(format!(
                        "the inline row `{key}` follows stream `{stream}`, which gets no event or \
                         of which no version is expected"
                    )));
                }
            }
        }
        if bytes > limits.append_bytes_max {
            let max = limits.append_bytes_max;
            return Err(Invalid::new(format!(
                "inline rows of {bytes} bytes in an append, at most {max} are allowed"
            )));
        }
        Ok(())
    }
}
