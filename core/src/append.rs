//! Appending: what is asked, what must be true for it, and what came of it.

use std::collections::HashSet;
use std::fmt;

use crate::error::{Failure, Invalid, StoreError};
use crate::event::{EventId, NewEvent};
use crate::inline::InlineRow;
use crate::position::{Partition, Position, Token};
use crate::query::Query;
use crate::stream::{StreamId, Version};
use crate::stream_state::{Status, StreamState};

/// What must be true of a stream for an append to happen.
///
/// ```
/// use annals_core::{Expected, StreamState, Version};
///
/// let absent = StreamState::absent();
/// assert!(Expected::NoStream.allows_writing(&absent));
/// assert!(!Expected::Version(Version::new(3)).allows_writing(&absent));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Expected {
    /// Nothing, but that the stream is not tombstoned.
    Any,
    /// The stream is absent or deleted.
    NoStream,
    /// The stream is active.
    Exists,
    /// The stream has had exactly so many events, also when it was deleted since. `Version(0)`: it
    /// never had one.
    Version(Version),
    /// The stream is active and has had exactly so many events: what a decision on its state relies
    /// on, because a deletion changes the state and not the version.
    ActiveAt(Version),
}

impl Expected {
    /// Whether events may be written to a stream in `state`.
    pub fn allows_writing(self, state: &StreamState) -> bool {
        state.status != Status::Tombstoned && self.holds(state)
    }

    /// Whether a stream in `state` passes a check without being written to. [`Expected::Any`]
    /// checks nothing, so an append that asks it of a stream that gets no event is invalid.
    pub fn passes_check(self, state: &StreamState) -> bool {
        match self {
            Expected::NoStream => state.status != Status::Active,
            _ => self.allows_writing(state),
        }
    }

    fn holds(self, state: &StreamState) -> bool {
        match self {
            Expected::Any => true,
            Expected::NoStream => state.status != Status::Active,
            Expected::Exists => state.status == Status::Active,
            Expected::Version(Version::NONE) => state.status == Status::Absent,
            Expected::Version(version) => state.version == version,
            Expected::ActiveAt(version) => {
                state.status == Status::Active && state.version == version
            }
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expected::Any => f.write_str("anything"),
            Expected::NoStream => f.write_str("no stream"),
            Expected::Exists => f.write_str("an existing stream"),
            Expected::Version(version) => write!(f, "version {version}"),
            Expected::ActiveAt(version) => write!(f, "an active stream at version {version}"),
        }
    }
}

/// Events for the end of one stream.
///
/// ```
/// use annals_core::{Append, Expected, NewEvent, StreamId};
///
/// let append = Append::new(StreamId::new("note-1")?, [NewEvent::json("noted", b"{}".as_slice())]).expecting(Expected::NoStream);
/// assert_eq!(append.events.len(), 1);
/// # Ok::<_, annals_core::Invalid>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Append {
    /// The stream.
    pub stream: StreamId,
    /// What must be true of it.
    pub expected: Expected,
    /// The events, oldest first.
    pub events: Vec<NewEvent>,
    /// Rows of inline views that are written with them.
    pub rows: Vec<InlineRow>,
}

impl Append {
    /// Events for the end of `stream`, whatever its state.
    pub fn new(stream: StreamId, events: impl IntoIterator<Item = NewEvent>) -> Append {
        Append {
            stream,
            expected: Expected::Any,
            events: events.into_iter().collect(),
            rows: Vec::new(),
        }
    }

    /// The same, only if `expected` holds.
    #[must_use]
    pub fn expecting(mut self, expected: Expected) -> Append {
        self.expected = expected;
        self
    }
}

/// Events for several streams at once, and what must be true of streams, also of ones that get no
/// event.
///
/// Positions follow the order of the events here. A stream that gets events and is not in
/// `expectations` may be in any state but tombstoned.
///
/// ```
/// use annals_core::{AppendStreams, Expected, NewEvent, StreamId, Version};
///
/// let (a, b) = (StreamId::new("account-a")?, StreamId::new("account-b")?);
/// let moved = AppendStreams::default()
///     .expecting(a.clone(), Expected::Version(Version::new(3)))
///     .expecting(b.clone(), Expected::Exists)
///     .event(a, NewEvent::json("account.withdrawn", b"5".as_slice()))
///     .event(b, NewEvent::json("account.deposited", b"5".as_slice()));
/// assert_eq!(moved.events.len(), 2);
/// # Ok::<_, annals_core::Invalid>(())
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct AppendStreams {
    /// What must be true, each stream at most once.
    pub expectations: Vec<(StreamId, Expected)>,
    /// The events, in the order of the log.
    pub events: Vec<(StreamId, NewEvent)>,
    /// Rows of inline views that are written with them, in their transaction and only when they
    /// are. Each is folded from a stream that gets events and of which [`Expected::Version`] or
    /// [`Expected::ActiveAt`] is expected. See [`InlineViews`](crate::InlineViews).
    pub rows: Vec<InlineRow>,
}

impl AppendStreams {
    /// With an expectation more.
    #[must_use]
    pub fn expecting(mut self, stream: StreamId, expected: Expected) -> AppendStreams {
        self.expectations.push((stream, expected));
        self
    }

    /// With an event more.
    #[must_use]
    pub fn event(mut self, stream: StreamId, event: NewEvent) -> AppendStreams {
        self.events.push((stream, event));
        self
    }

    /// The version at which the row of a stream stands once this is written; nothing when no
    /// version of the stream is expected.
    pub fn version_after(&self, stream: &StreamId) -> Option<Version> {
        let found = self.expectations.iter().find(|(of, _)| of == stream);
        let (Expected::Version(version) | Expected::ActiveAt(version)) = found?.1 else {
            return None;
        };
        let events = self.events.iter().filter(|(to, _)| to == stream).count();
        Some(Version::new(version.get() + events as u64))
    }

    /// Refuses rows that travel with the append: for stores without
    /// [`InlineViews`](crate::InlineViews).
    ///
    /// # Errors
    ///
    /// [`Invalid`] when there is one.
    ///
    /// ```
    /// assert!(annals_core::AppendStreams::default().check_carries_no_rows().is_ok());
    /// ```
    pub fn check_carries_no_rows(&self) -> Result<(), Invalid> {
        match self.rows.first() {
            Some(row) => {
                let key = row.key.escape_debug();
                Err(Invalid::new(format!(
                    "the row `{key}` travels with an append, and this store keeps no inline views"
                )))
            }
            None => Ok(()),
        }
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
                    "the row `{key}` of generation {} travels twice",
                    row.generation
                )));
            }
            let is_of_stream =
                |event: usize| self.events.get(event).is_some_and(|(to, _)| to == stream);
            let ascends = row.past.is_sorted_by(|one, other| one.event < other.event);
            if !ascends || !row.past.iter().all(|past| is_of_stream(past.event)) {
                return Err(Invalid::new(format!(
                    "the past of row `{key}` names events that stream `{stream}` does not get"
                )));
            }
            let gets_events = self.events.iter().any(|(to, _)| to == stream);
            match self.version_after(stream) {
                Some(after) if gets_events && row.from < after => {}
                _ => {
                    return Err(Invalid::new(format!(
                        "the row `{key}` travels with events of stream `{stream}`, of which there \
                         are none or no version is expected"
                    )));
                }
            }
        }
        if bytes > limits.append_bytes_max {
            let max = limits.append_bytes_max;
            return Err(Invalid::new(format!(
                "rows of {bytes} bytes in an append, at most {max} are allowed"
            )));
        }
        Ok(())
    }

    /// What no store may accept: nothing to write, one id or one expectation twice, too much at
    /// once, names out of bounds, rows that belong to none of its streams.
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
        if self.expectations.len() > 1 {
            let mut seen = HashSet::with_capacity(self.expectations.len());
            if let Some((stream, _)) = self
                .expectations
                .iter()
                .find(|(stream, _)| !seen.insert(stream))
            {
                return Err(Invalid::new(format!(
                    "stream `{stream}` has two expectations in one append"
                )));
            }
        }
        for (stream, expected) in &self.expectations {
            if *expected == Expected::Any && !self.events.iter().any(|(to, _)| to == stream) {
                return Err(Invalid::new(format!(
                    "stream `{stream}` is checked for nothing: it gets no event and anything is \
                     expected of it"
                )));
            }
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
                    "id {} stands twice in one append",
                    event.id
                )));
            }
        }
        self.check_rows(limits)
    }
}

impl From<Append> for AppendStreams {
    fn from(append: Append) -> AppendStreams {
        let events = append
            .events
            .into_iter()
            .map(|event| (append.stream.clone(), event))
            .collect();
        AppendStreams {
            events,
            expectations: vec![(append.stream, append.expected)],
            rows: append.rows,
        }
    }
}

/// How much one append may hold.
///
/// ```
/// assert_eq!(annals_core::Limits::default().append_events_max, 10_000);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Events in one append. Default: 10,000.
    pub append_events_max: usize,
    /// Bytes in one append: payloads, names, tags and metadata. Default: 64 MiB.
    pub append_bytes_max: usize,
    /// Bytes of one payload. Default: 16 MiB.
    pub payload_bytes_max: usize,
}

impl Limits {
    /// Bytes of a type's or codec's name.
    pub const NAME_BYTES_MAX: usize = 255;
    /// Tags on one event.
    pub const TAGS_MAX: usize = 64;
    /// Bytes of one event's metadata.
    pub const METADATA_BYTES_MAX: usize = 64 * 1024;

    fn check_event(&self, index: usize, event: &NewEvent) -> Result<(), Invalid> {
        for (what, name) in [("type", &event.event_type), ("codec", &event.codec)] {
            if name.is_empty()
                || name.len() > Limits::NAME_BYTES_MAX
                || name.chars().any(char::is_control)
            {
                let start: String = name.chars().take(32).collect();
                return Err(Invalid::new(format!(
                    "event {index} has the {what} `{}`: 1 to 255 bytes without control characters \
                     are allowed",
                    start.escape_debug()
                )));
            }
        }
        let of = |what: &str, found: usize, max: usize| {
            Err(Invalid::new(format!(
                "event {index} (`{}`) has {found} {what}, at most {max} are allowed",
                event.event_type
            )))
        };
        if event.payload.len() > self.payload_bytes_max {
            return of(
                "bytes of payload",
                event.payload.len(),
                self.payload_bytes_max,
            );
        }
        if event.tags.len() > Limits::TAGS_MAX {
            return of("tags", event.tags.len(), Limits::TAGS_MAX);
        }
        if event.metadata.size_bytes() > Limits::METADATA_BYTES_MAX {
            return of(
                "bytes of metadata",
                event.metadata.size_bytes(),
                Limits::METADATA_BYTES_MAX,
            );
        }
        Ok(())
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            append_events_max: 10_000,
            append_bytes_max: 64 << 20,
            payload_bytes_max: 16 << 20,
        }
    }
}

/// No event that matches the query may stand behind `after` (anywhere, when there is none).
///
/// ```
/// use annals_core::{Condition, Position, Query};
///
/// let condition = Condition::none_matches(Query::tagged(["user:ada".parse()?])).after(Position::new(7));
/// assert_eq!(condition.after, Some(Position::new(7)));
/// # Ok::<_, annals_core::Invalid>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Condition {
    /// What must not have happened.
    pub query: Query,
    /// Since when.
    pub after: Option<Position>,
}

impl Condition {
    /// No event that matches `query` exists.
    pub const fn none_matches(query: Query) -> Condition {
        Condition { query, after: None }
    }

    /// … behind `position`.
    #[must_use]
    pub fn after(mut self, position: Position) -> Condition {
        self.after = Some(position);
        self
    }
}

/// Where one event of an append stands.
///
/// ```
/// # fn example(placed: &annals_core::Placed) {
/// println!("{} in {} at {}", placed.version, placed.stream, placed.position);
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Placed {
    /// Its id.
    pub id: EventId,
    /// Its stream.
    pub stream: StreamId,
    /// Its place in the stream.
    pub version: Version,
    /// Its partition of the log.
    pub partition: Partition,
    /// Its place in the partition.
    pub position: Position,
}

/// What came of an append.
///
/// Two are equal when they name the same places, whether or not one of them was a repetition.
///
/// ```
/// # fn example(appended: &annals_core::Appended) {
/// println!("the stream is at {}", appended.last().version);
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Appended {
    events: Vec<Placed>,
    token: Token,
    repeated: bool,
}

impl Appended {
    /// What a store answers: the places in the order of the request, at least one.
    pub fn new(log: crate::LogId, events: Vec<Placed>, repeated: bool) -> Appended {
        let mut token = Token::new(log);
        let mut places = events.iter();
        if let Some(first) = places.next() {
            let mut partition = first.partition;
            let mut position = first.position;
            for place in places {
                if place.partition != partition {
                    token = token.with(partition, position);
                    partition = place.partition;
                    position = Position::START;
                }
                position = position.max(place.position);
            }
            token = token.with(partition, position);
        }
        Appended {
            events,
            token,
            repeated,
        }
    }

    /// Where each event stands, in the order of the request.
    pub fn events(&self) -> &[Placed] {
        &self.events
    }

    /// Where the last event stands.
    ///
    /// # Panics
    ///
    /// Never: an append holds at least one event.
    pub fn last(&self) -> &Placed {
        self.events
            .last()
            .expect("an append holds at least one event")
    }

    /// What a reader must have reached to see all of it.
    pub const fn token(&self) -> &Token {
        &self.token
    }

    /// Whether the events were there already: this was a retry, and nothing was written now.
    pub const fn was_repeated(&self) -> bool {
        self.repeated
    }
}

impl PartialEq for Appended {
    fn eq(&self, other: &Appended) -> bool {
        self.events == other.events && self.token == other.token
    }
}

impl From<&Appended> for Token {
    fn from(appended: &Appended) -> Token {
        appended.token.clone()
    }
}

/// One thing that was expected and did not hold.
///
/// ```
/// # fn example(violation: &annals_core::Violation) {
/// println!("{violation}");
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// A stream is not where the append thought.
    Stream {
        /// Which expectation, counted from 0 in the order of the request. Streams that get events
        /// without one come behind, in the order of their first events.
        index: usize,
        /// The stream.
        stream: StreamId,
        /// What was expected.
        expected: Expected,
        /// What the stream is, as far as a store tells it with a refusal: status and version.
        found: StreamState,
    },
    /// An event matches the condition's query.
    Condition {
        /// The first position after the condition's at which one does.
        position: Position,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Stream {
                stream,
                expected,
                found,
                ..
            } => {
                write!(
                    f,
                    "stream `{stream}` is {found}, the append expected {expected}"
                )
            }
            Violation::Condition { position } => {
                write!(f, "the event at {position} matches the append's condition")
            }
        }
    }
}

/// What is wrong with ids that the store knows already.
///
/// ```
/// let clash = annals_core::IdClash::PartlyKnown { first_unknown: 2 };
/// assert_eq!(clash.to_string(), "some of the ids are known, that of event 2 is not");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdClash {
    /// Some are known and some are not: this is not a repetition of what was appended.
    #[error("some of the ids are known, that of event {first_unknown} is not")]
    PartlyKnown {
        /// The index of the first one that is not.
        first_unknown: usize,
    },
    /// All are known, but they were not appended one after another in this order.
    #[error("the ids are known in another order")]
    OtherOrder,
    /// The id belongs to an event with other content.
    #[error("the id {id} of event {index} is known with other content")]
    OtherContent {
        /// The index of the event.
        index: usize,
        /// Its id.
        id: EventId,
    },
    /// The id belongs to an event of another stream.
    #[error("the id {id} of event {index} belongs to stream `{stream}`")]
    OtherStream {
        /// The index of the event.
        index: usize,
        /// Its id.
        id: EventId,
        /// The stream that it belongs to.
        stream: StreamId,
    },
}

/// Why an append wrote nothing, or, for [`AppendError::Unknown`], why nobody can tell.
///
/// ```
/// use annals_core::{AppendError, Failure};
///
/// fn next(error: &AppendError) -> &'static str {
///     match error {
///         AppendError::Conflict(_) => "read the new events, decide again",
///         AppendError::Unknown(_) => "append again with the same ids",
///         AppendError::Store(error) if error.failure() == Failure::Unavailable => "try later",
///         _ => "report it",
///     }
/// }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// What was expected does not hold; every violation is listed. Read the new events, decide
    /// again.
    #[error("{}", first_of(.0))]
    Conflict(Vec<Violation>),
    /// The ids are known, and this is not a repetition of the append that brought them. A bug of
    /// the caller.
    #[error(transparent)]
    IdClash(IdClash),
    /// The request can never succeed as written.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The connection was lost during the commit: the events are stored, or they are not. Appending
    /// again with the same ids tells, and does what is missing.
    #[error("the outcome of the append is unknown")]
    Unknown(#[source] StoreError),
    /// This process does not own the partition of the stream. Send the command to the one that
    /// does.
    #[error("another process owns the stream's \
        partition{}", .owner.as_deref().map(|owner| format!(": {owner}")).unwrap_or_default())]
    NotOwner {
        /// The owner's name, where it is known.
        owner: Option<String>,
    },
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn first_of(violations: &[Violation]) -> String {
    match violations {
        [] => "the append's expectation does not hold".into(),
        [only] => only.to_string(),
        [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
    }
}

impl From<IdClash> for AppendError {
    fn from(clash: IdClash) -> AppendError {
        AppendError::IdClash(clash)
    }
}

impl AppendError {
    /// The error as that of a store, for callers that do not decide.
    pub fn into_store_error(self) -> StoreError {
        match self {
            AppendError::Store(error) => error,
            AppendError::Invalid(invalid) => invalid.into(),
            AppendError::Unknown(source) => {
                StoreError::new(Failure::Unavailable, "the outcome of the append is unknown")
                    .because(source)
            }
            error => StoreError::new(Failure::Invalid, error.to_string()),
        }
    }
}
