//! Typed events: the names and shapes under which a Rust type is stored, and the way back, through
//! old shapes too.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

use crate::codec::CodecError;
use crate::contain::said;
use crate::error::Invalid;
use crate::event::{EventId, NewEvent, RecordedEvent};
use crate::position::Position;
use crate::stream::{StreamId, Version};
use crate::tag::Tag;

/// A type whose values are stored as events: usually an enum with `#[derive(Event)]`, one variant
/// an event type.
///
/// The name of the type is beside the payload, and the payload is only the content of the
/// variant.
pub trait Event: Sized + Send + Sync + 'static {
    /// The category of the streams that hold it, and the first part of its type names.
    const CATEGORY: &'static str;

    /// Every stored shape that can be read: the ones written today, and the older ones that
    /// upcasters bring up to date.
    fn shapes() -> &'static [Shape];

    /// The shape in which this value is written.
    fn shape(&self) -> &'static Shape;

    /// The tags that this value carries.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when a field holds what no tag can be, such as an empty text.
    fn tags(&self) -> Result<Vec<Tag>, Invalid>;

    /// Writes the content.
    ///
    /// # Errors
    ///
    /// When the codec cannot write it.
    fn encode(&self) -> Result<Encoded, CodecError>;

    /// Reads what is stored, through upcasters where the shape is an old one.
    ///
    /// # Errors
    ///
    /// [`DecodeError`], naming the type and what is wrong with it.
    fn decode(stored: Stored<'_>) -> Result<Decoded<Self>, DecodeError>;
}

/// One stored shape of an event type.
///
/// ```
/// # use annals_core::Event;
/// # fn example<E: Event>() {
/// for shape in E::shapes() {
///     println!("{} v{} {}", shape.event_type, shape.schema_version, shape.fields);
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_structs)]
pub struct Shape {
    /// The stored name of the type, such as `account.opened`.
    pub event_type: &'static str,
    /// The version of the shape, from 1.
    pub schema_version: u32,
    /// Whether events are written in it today.
    pub current: bool,
    /// Its fields as they are in the source, for people and for `events.lock`; for an old shape
    /// the upcaster that reads it.
    pub fields: &'static str,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} v{}", self.event_type, self.schema_version)
    }
}

/// The written content of an event.
///
/// ```
/// use annals_core::Encoded;
///
/// let encoded = Encoded { codec: "json", payload: b"null".as_slice().into() };
/// assert_eq!(encoded.payload.len(), 4);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Encoded {
    /// How it is written.
    pub codec: &'static str,
    /// The bytes.
    pub payload: Bytes,
}

/// What is needed of a stored event to read it.
///
/// ```
/// use annals_core::Stored;
///
/// let stored = Stored {
///     event_type: "account.closed",
///     schema_version: 1,
///     codec: "json",
///     payload: b"null",
/// };
/// assert_eq!(stored.schema_version, 1);
/// ```
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct Stored<'a> {
    /// The stored name of the type.
    pub event_type: &'a str,
    /// The version of its shape.
    pub schema_version: u32,
    /// How the content is written.
    pub codec: &'a str,
    /// The content.
    pub payload: &'a [u8],
}

impl<'a> From<&'a RecordedEvent> for Stored<'a> {
    fn from(event: &'a RecordedEvent) -> Stored<'a> {
        Stored {
            event_type: &event.event_type,
            schema_version: event.schema_version,
            codec: &event.codec,
            payload: &event.payload,
        }
    }
}

/// What a stored event reads as: itself, or what an upcaster made of it.
///
/// ```
/// use annals_core::Decoded;
///
/// assert_eq!(Decoded::One(7).into_iter().collect::<Vec<_>>(), [7]);
/// assert_eq!(Decoded::<u8>::Several(vec![]).into_iter().count(), 0);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum Decoded<E> {
    /// One event.
    One(E),
    /// None or several, in this order.
    Several(Vec<E>),
}

impl<E> IntoIterator for Decoded<E> {
    type Item = E;
    type IntoIter = std::iter::Chain<std::option::IntoIter<E>, std::vec::IntoIter<E>>;

    fn into_iter(self) -> Self::IntoIter {
        match self {
            Decoded::One(event) => Some(event).into_iter().chain(Vec::new()),
            Decoded::Several(events) => None.into_iter().chain(events),
        }
    }
}

/// Why a stored event cannot be read as a type.
///
/// ```
/// use annals_core::DecodeError;
///
/// let error = DecodeError::UnknownType { event_type: "account.frozen".into() };
/// assert_eq!(error.to_string(), "unknown event type `account.frozen`");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The type has no event of this name: it was written by another type, a newer program, or was
    /// renamed without keeping its name (`#[event(name = "…")]`).
    #[error("unknown event type `{event_type}`")]
    UnknownType {
        /// The stored name.
        event_type: String,
    },
    /// The name is known, this version of its shape is not: it was written by a newer program, or
    /// an upcaster is missing.
    #[error("unknown schema version {schema_version} of event type `{event_type}`")]
    UnknownVersion {
        /// The stored name.
        event_type: String,
        /// The stored version.
        schema_version: u32,
    },
    /// The payload is written in a codec that the type does not read.
    #[error("unknown codec `{codec}` of event type `{event_type}`")]
    UnknownCodec {
        /// The stored name.
        event_type: String,
        /// The stored codec.
        codec: String,
    },
    /// The payload is not what the shape says.
    #[error("malformed payload of event type `{event_type}` v{schema_version}")]
    Malformed {
        /// The stored name.
        event_type: String,
        /// The stored version.
        schema_version: u32,
        /// What the codec says.
        source: CodecError,
    },
    /// The code that reads it, such as an upcaster, panicked.
    #[error("reading event type `{event_type}` v{schema_version} panicked: {reason}")]
    Panicked {
        /// The stored name.
        event_type: String,
        /// The stored version.
        schema_version: u32,
        /// What the panic said.
        reason: String,
    },
}

/// As [`Event::decode`], and a panic of it is an error.
#[inline]
pub(crate) fn decode<E: Event>(stored: Stored<'_>) -> Result<Decoded<E>, DecodeError> {
    match said(|| E::decode(stored)) {
        Ok(decoded) => decoded,
        Err(reason) => Err(DecodeError::Panicked {
            event_type: stored.event_type.to_owned(),
            schema_version: stored.schema_version,
            reason,
        }),
    }
}

/// A recorded event that a type cannot read, and where it is.
///
/// ```
/// # fn example(error: &annals_core::Undecodable) {
/// println!("{error}: {}", std::error::Error::source(error).unwrap());
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[error("cannot read version {version} of stream `{stream}` ({place}, id {id})")]
#[non_exhaustive]
pub struct Undecodable {
    /// Its id.
    pub id: EventId,
    /// Its stream.
    pub stream: StreamId,
    /// Its place in the stream.
    pub version: Version,
    /// Its place in the log.
    pub position: Position,
    /// The same, with the topic that it is a record of.
    place: Box<ShownPlace>,
    /// Why.
    pub source: DecodeError,
}

/// In a box of one word: errors are returned by value.
#[derive(Debug)]
struct ShownPlace(String);

impl fmt::Display for ShownPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Undecodable {
    /// `event` cannot be read, for this reason.
    pub fn new(event: &RecordedEvent, source: DecodeError) -> Undecodable {
        Undecodable {
            id: event.id,
            stream: event.stream.clone(),
            version: event.version,
            position: event.position,
            place: Box::new(ShownPlace(event.shown_place())),
            source,
        }
    }
}

/// A typed event with its record: where it is, when it happened and was recorded, and its
/// metadata.
///
/// It derefs to the event.
///
/// ```
/// # use annals_core::{Event, Recorded};
/// # fn example<E: Event + std::fmt::Debug>(event: &Recorded<E>) {
/// println!("{:?} at {}", **event, event.record.occurred_at);
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::exhaustive_structs)]
pub struct Recorded<E> {
    /// The event.
    pub event: E,
    /// Its record, the bytes included.
    pub record: RecordedEvent,
}

impl<E> Deref for Recorded<E> {
    type Target = E;

    fn deref(&self) -> &E {
        &self.event
    }
}

impl<E: Event> Recorded<E> {
    /// What `record` reads as: one event, or what an upcaster made of it.
    ///
    /// # Errors
    ///
    /// [`Undecodable`], naming the place and the reason.
    pub fn decode(record: RecordedEvent) -> Result<Decoded<Recorded<E>>, Undecodable> {
        match decode::<E>(Stored::from(&record)) {
            Ok(Decoded::One(event)) => Ok(Decoded::One(Recorded { event, record })),
            Ok(Decoded::Several(events)) => {
                Ok(Decoded::Several(Recorded::each(events, &record).collect()))
            }
            Err(source) => Err(Undecodable::new(&record, source)),
        }
    }

    /// As [`decode`](Recorded::decode), after what is there already. A record is large, and here
    /// it is moved only once.
    #[inline]
    pub(crate) fn decode_onto(
        record: RecordedEvent,
        read: &mut Vec<Recorded<E>>,
    ) -> Result<(), Undecodable> {
        match decode::<E>(Stored::from(&record)) {
            Ok(Decoded::One(event)) => read.push(Recorded { event, record }),
            Ok(Decoded::Several(events)) => read.extend(Recorded::each(events, &record)),
            Err(source) => return Err(Undecodable::new(&record, source)),
        }
        Ok(())
    }

    fn each(events: Vec<E>, record: &RecordedEvent) -> impl Iterator<Item = Recorded<E>> {
        events.into_iter().map(|event| Recorded {
            event,
            record: record.clone(),
        })
    }
}

/// A typed event that cannot be written.
///
/// ```
/// # fn example(error: &annals_core::EncodeError) {
/// println!("{error}");
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The codec has no way to write it.
    #[error("cannot write event `{event_type}`")]
    Codec {
        /// The name of its type.
        event_type: &'static str,
        /// What the codec says.
        source: CodecError,
    },
    /// A tag or a name is not legal.
    #[error("cannot write event `{event_type}`")]
    Invalid {
        /// The name of its type.
        event_type: &'static str,
        /// What is wrong.
        source: Invalid,
    },
    /// What was written cannot be read back: the codec loses something, or reads another shape than
    /// it writes.
    #[error("event `{event_type}` cannot be read back as it is written")]
    Unreadable {
        /// The name of its type.
        event_type: String,
        /// What is wrong.
        source: DecodeError,
    },
    /// The code that writes it, such as a serializer or the text of a tag, panicked.
    #[error("writing event `{name}` panicked: {reason}")]
    Panicked {
        /// The name of its type; its category, where even the type could not be asked for.
        name: String,
        /// What the panic said.
        reason: String,
    },
}

impl NewEvent {
    /// The event to append for a typed value, with a new id, and happened at the epoch until
    /// [`at`](NewEvent::at) says otherwise.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] when the codec cannot write it or not read it back, or a tag is not legal.
    pub fn of<E: Event>(event: &E) -> Result<NewEvent, EncodeError> {
        let new = NewEvent::written(event)?;
        new.read_back::<E>()?;
        Ok(new)
    }

    /// As [`of`](NewEvent::of), for who reads it back.
    pub(crate) fn written<E: Event>(event: &E) -> Result<NewEvent, EncodeError> {
        let mut name = E::CATEGORY;
        said(|| NewEvent::write(event, &mut name)).unwrap_or_else(|reason| {
            let name = name.to_owned();
            Err(EncodeError::Panicked { name, reason })
        })
    }

    /// What a reader will read.
    pub(crate) fn read_back<E: Event>(&self) -> Result<Decoded<E>, EncodeError> {
        let stored = Stored {
            event_type: &self.event_type,
            schema_version: self.schema_version,
            codec: &self.codec,
            payload: &self.payload,
        };
        decode(stored).map_err(|source| EncodeError::Unreadable {
            event_type: self.event_type.to_string(),
            source,
        })
    }

    fn write<E: Event>(event: &E, name: &mut &'static str) -> Result<NewEvent, EncodeError> {
        let shape = event.shape();
        let event_type = shape.event_type;
        *name = event_type;
        let tags = event
            .tags()
            .map_err(|source| EncodeError::Invalid { event_type, source })?;
        let Encoded { codec, payload } = event
            .encode()
            .map_err(|source| EncodeError::Codec { event_type, source })?;
        let mut new =
            NewEvent::new(event_type, codec, payload).schema_version(shape.schema_version);
        new.tags = tags;
        Ok(new)
    }
}

/// What a decision may return: one event, an array, a `Vec`, an `Option`, or `()`.
///
/// ```
/// # use annals_core::{Event, IntoEvents};
/// # fn example<E: Event>(one: E, two: E) {
/// assert_eq!(Some(one).into_events().len(), 1);
/// assert_eq!(IntoEvents::<E>::into_events(()).len(), 0);
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "a decision cannot return `{Self}`",
    label = "not `{E}`, an array, a `Vec` or an `Option` of it, or `()`"
)]
pub trait IntoEvents<E>: Send {
    /// The events, oldest first.
    fn into_events(self) -> Vec<E>;
}

impl<E: Event> IntoEvents<E> for E {
    fn into_events(self) -> Vec<E> {
        vec![self]
    }
}

impl<E: Event> IntoEvents<E> for Vec<E> {
    fn into_events(self) -> Vec<E> {
        self
    }
}

impl<E: Event> IntoEvents<E> for Option<E> {
    fn into_events(self) -> Vec<E> {
        self.into_iter().collect()
    }
}

impl<E: Event, const N: usize> IntoEvents<E> for [E; N] {
    fn into_events(self) -> Vec<E> {
        self.into()
    }
}

impl<E: Event> IntoEvents<E> for () {
    fn into_events(self) -> Vec<E> {
        Vec::new()
    }
}
