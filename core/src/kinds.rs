//! Events and aggregates of a program for tools that do not know its types: read, brought up to
//! date, and shown as JSON.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::aggregate::{Aggregate, LoadError};
use crate::annals::Annals;
use crate::codec::{Codec, Json};
use crate::contain::said;
use crate::event::RecordedEvent;
use crate::position::Position;
use crate::stream::Version;
use crate::typed::{Event, Shape, Stored, Undecodable, decode};

/// An event type of a program, its Rust type forgotten.
///
/// ```
/// # use annals_core::{Event, EventKind, RecordedEvent, ShowError};
/// # fn example<AccountEvent: Event>(record: &RecordedEvent) -> Result<(), ShowError> {
/// let kind = EventKind::of::<AccountEvent>();
/// for shape in kind.shapes() {
///     println!("{shape}");
/// }
/// for event in kind.show(record)? {
///     println!("{} {}", event.event_type, event.payload);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy)]
pub struct EventKind {
    category: &'static str,
    shapes: fn() -> &'static [Shape],
    show: fn(&RecordedEvent) -> Result<Vec<ShownEvent>, ShowError>,
}

/// A value as JSON text, with all digits of its numbers: a `u128` and a 64-bit id are as they were
/// written.
///
/// ```
/// # use annals_core::{ShowError, JsonText};
/// let shown = JsonText::parse(br#"{"id":18446744073709551617}"#)?;
/// assert_eq!(shown.as_str(), r#"{"id":18446744073709551617}"#);
/// # Ok::<(), ShowError>(())
/// ```
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct JsonText(Box<RawValue>);

impl JsonText {
    /// The JSON form of a value.
    ///
    /// # Errors
    ///
    /// [`ShowError::Unshowable`] for a value that has none.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<JsonText, ShowError> {
        let raw = serde_json::value::to_raw_value(value);
        raw.map(JsonText).map_err(unshowable)
    }

    /// This JSON.
    ///
    /// # Errors
    ///
    /// [`ShowError::Unshowable`] for bytes that are none.
    pub fn parse(json: &[u8]) -> Result<JsonText, ShowError> {
        let raw = serde_json::from_slice(json);
        raw.map(JsonText).map_err(unshowable)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for JsonText {
    fn eq(&self, other: &JsonText) -> bool {
        self.as_str() == other.as_str()
    }
}

impl fmt::Display for JsonText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A stored event as a program reads it today.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ShownEvent {
    /// The stored name of the type that it reads as.
    pub event_type: &'static str,
    /// The version of that shape.
    pub schema_version: u32,
    /// The content, as it would be written now.
    pub payload: JsonText,
}

/// Why something cannot be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShowError {
    /// Nothing that was registered has this name.
    #[error("no {what} called `{name}` is registered")]
    Unknown {
        /// An event type, an aggregate or a view.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The event cannot be read.
    #[error(transparent)]
    Undecodable(#[from] Undecodable),
    /// The state cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// It is written in a codec that has no JSON form.
    #[error("codec `{codec}` cannot be shown as JSON")]
    NotJson {
        /// The codec.
        codec: &'static str,
    },
    /// It has no JSON form, such as a map whose keys are no texts; or the handler of a view refused
    /// it.
    #[error("cannot be shown: {0}")]
    Unshowable(String),
}

impl EventKind {
    /// Of an event type.
    pub fn of<E: Event>() -> EventKind {
        EventKind {
            category: E::CATEGORY,
            shapes: E::shapes,
            show: show::<E>,
        }
    }

    /// The category of its streams.
    pub const fn category(&self) -> &'static str {
        self.category
    }

    /// Every stored shape that it reads; the older ones go through upcasters.
    pub fn shapes(&self) -> &'static [Shape] {
        (self.shapes)()
    }

    /// What a stored event reads as today: one event, or what upcasters made of it.
    ///
    /// # Errors
    ///
    /// [`ShowError::Undecodable`], and [`ShowError::NotJson`] for an event whose type is written in
    /// another codec.
    pub fn show(&self, record: &RecordedEvent) -> Result<Vec<ShownEvent>, ShowError> {
        (self.show)(record)
    }
}

fn show<E: Event>(record: &RecordedEvent) -> Result<Vec<ShownEvent>, ShowError> {
    let decoded =
        decode::<E>(Stored::from(record)).map_err(|source| Undecodable::new(record, source))?;
    let show = |event: E| {
        let encoded = event
            .encode()
            .map_err(|error| ShowError::Unshowable(error.to_string()))?;
        if encoded.codec != Json::NAME {
            return Err(ShowError::NotJson {
                codec: encoded.codec,
            });
        }
        let payload = JsonText::parse(&encoded.payload)?;
        let Shape {
            event_type,
            schema_version,
            ..
        } = *event.shape();
        Ok(ShownEvent {
            event_type,
            schema_version,
            payload,
        })
    };
    let shown = said(|| decoded.into_iter().map(show).collect());
    shown.unwrap_or_else(|panic| Err(ShowError::Unshowable(panic)))
}

fn unshowable(error: serde_json::Error) -> ShowError {
    ShowError::Unshowable(error.to_string())
}

impl fmt::Debug for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.shapes().iter().map(ToString::to_string))
            .finish()
    }
}

type Loading = Pin<Box<dyn Future<Output = Result<ShownState, ShowError>> + Send>>;

/// A kind of aggregate of a program, its Rust type forgotten.
///
/// ```
/// # use annals_core::{Aggregate, AggregateKind, Annals, ShowError};
/// # async fn example<Account: Aggregate + serde::Serialize>(db: Annals) -> Result<(), ShowError> {
/// let accounts = AggregateKind::of::<Account>();
/// let alice = accounts.state(&db, "alice", Some(3.into())).await?;
/// println!("{}", alice.state);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy)]
pub struct AggregateKind {
    events: EventKind,
    load: fn(Annals, String, Option<Version>) -> Loading,
}

/// The state of an aggregate, for display.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ShownState {
    /// Whether it existed.
    pub exists: bool,
    /// The version that this is the state at.
    pub version: Version,
    /// The position of the log that this is the state as of.
    pub position: Position,
    /// The state.
    pub state: JsonText,
}

impl AggregateKind {
    /// Of an aggregate whose state can be serialised.
    pub fn of<A: Aggregate + Serialize>() -> AggregateKind {
        let load = |db: Annals, id: String, version: Option<Version>| -> Loading {
            Box::pin(async move {
                let aggregate = db.aggregate::<A>(id);
                let load = aggregate.load();
                let loaded = match version {
                    Some(version) => load.at_version(version).await?,
                    None => load.await?,
                };
                let state = said(|| JsonText::of(&*loaded)).map_err(ShowError::Unshowable)??;
                let exists = loaded.exists();
                let version = loaded.version();
                let position = loaded.position();
                Ok(ShownState {
                    exists,
                    version,
                    position,
                    state,
                })
            })
        };
        AggregateKind {
            events: EventKind::of::<A::Event>(),
            load,
        }
    }

    /// The category of its streams, by which it is known.
    pub const fn category(&self) -> &'static str {
        self.events.category
    }

    /// What happens to it.
    pub const fn events(&self) -> &EventKind {
        &self.events
    }

    /// The state of the aggregate of this id: now, or just after its event `version`.
    ///
    /// # Errors
    ///
    /// [`ShowError::Load`], and [`ShowError::Unshowable`] for a state that has no JSON form.
    pub async fn state(
        &self,
        db: &Annals,
        id: &str,
        version: Option<Version>,
    ) -> Result<ShownState, ShowError> {
        (self.load)(db.clone(), id.to_owned(), version).await
    }
}

impl fmt::Debug for AggregateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AggregateKind")
            .field("category", &self.category())
            .field("events", &self.events)
            .finish()
    }
}
