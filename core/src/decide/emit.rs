//! What a decision over several things returns: a tuple in the shape of what it looked at, or an
//! explicit list.

use std::borrow::Cow;

use super::boundary::{Boundary, Fold, Over, Part};
use crate::aggregate::{Aggregate, At};
use crate::error::Invalid;
use crate::event::NewEvent;
use crate::stream::StreamId;
use crate::tag::Tag;
use crate::typed::{EncodeError, Event, IntoEvents};

/// Events for one stream, named explicitly, with tags of the decision's own.
///
/// ```
/// # use annals_core::{Emit, Event, Tag};
/// # fn example<E: Event>(enrolled: E) -> Result<Emit, annals_core::Invalid> {
/// Ok(Emit::to("course-c1", enrolled).tagged(Tag::new("student", "s1")?))
/// # }
/// ```
#[derive(Debug)]
pub struct Emit {
    stream: Result<StreamId, Invalid>,
    events: Result<Vec<NewEvent>, EncodeError>,
}

impl Emit {
    /// `events` for the end of `stream`, which the decision need not have looked at.
    ///
    /// An illegal name is an error when the decision is recorded.
    pub fn to<E: Event>(stream: impl Into<Cow<'static, str>>, events: impl IntoEvents<E>) -> Emit {
        let events = events.into_events().iter().map(NewEvent::of).collect();
        Emit {
            stream: StreamId::new(stream.into()),
            events,
        }
    }

    /// `events` for the end of an aggregate's stream.
    pub fn to_aggregate<A: Aggregate>(at: &At<A>, events: impl IntoEvents<A::Event>) -> Emit {
        let events = events.into_events().iter().map(NewEvent::of).collect();
        Emit {
            stream: at.stream().cloned(),
            events,
        }
    }

    /// With one tag more on each of its events.
    #[must_use]
    pub fn tagged(mut self, tag: Tag) -> Emit {
        for event in self.events.iter_mut().flatten() {
            event.tags.push(tag.clone());
        }
        self
    }

    pub(super) fn into_events(self) -> Result<Vec<(StreamId, NewEvent)>, EmitError> {
        let stream = self.stream?;
        let events = self.events?;
        Ok(events
            .into_iter()
            .map(|event| (stream.clone(), event))
            .collect())
    }
}

/// Why what was decided cannot be recorded.
///
/// ```
/// use annals_core::{EmitError, StreamId};
///
/// let error = EmitError::from(StreamId::new("").unwrap_err());
/// assert_eq!(error.to_string(), "a stream name is empty");
/// ```
#[derive(Debug, thiserror::Error)]
#[allow(clippy::exhaustive_enums)]
pub enum EmitError {
    /// A stream's name is not legal.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// An event cannot be written.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// What one part of a decision gets: an aggregate its events, a fold over a query `()`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is nothing that this part of the decision can get",
    note = "an aggregate gets its events (one, an array, a `Vec`, an `Option`, or `()`), a fold \
        over a query gets `()`; events for other streams are returned as `Emit`"
)]
pub trait Emits<P: Part>: Send {
    /// The events, and where they go.
    ///
    /// # Errors
    ///
    /// [`EmitError`] when they cannot be recorded.
    fn emit(self, part: &P) -> Result<Vec<(StreamId, NewEvent)>, EmitError>;
}

impl<A: Aggregate, X: IntoEvents<A::Event>> Emits<At<A>> for X {
    fn emit(self, part: &At<A>) -> Result<Vec<(StreamId, NewEvent)>, EmitError> {
        Emit::to_aggregate(part, self).into_events()
    }
}

impl<F: Fold> Emits<Over<F>> for () {
    fn emit(self, _: &Over<F>) -> Result<Vec<(StreamId, NewEvent)>, EmitError> {
        Ok(Vec::new())
    }
}

/// What a decision over a boundary may return: a tuple of the same shape, or [`Emit`] (one, an
/// `Option`, an array, a `Vec`), or `()`.
#[diagnostic::on_unimplemented(
    message = "a decision over `{B}` cannot return `{Self}`",
    note = "return a tuple of the same shape, `()`, or `Emit`: one, an `Option`, an array, a `Vec`"
)]
pub trait IntoDecision<B: Boundary>: Send {
    /// The events in the order of the log, and where they go.
    ///
    /// # Errors
    ///
    /// [`EmitError`] when they cannot be recorded.
    fn into_decision(self, boundary: &B) -> Result<Vec<(StreamId, NewEvent)>, EmitError>;
}

impl<B: Boundary> IntoDecision<B> for () {
    fn into_decision(self, _: &B) -> Result<Vec<(StreamId, NewEvent)>, EmitError> {
        Ok(Vec::new())
    }
}

impl<B: Boundary> IntoDecision<B> for Emit {
    fn into_decision(self, _: &B) -> Result<Vec<(StreamId, NewEvent)>, EmitError> {
        self.into_events()
    }
}

impl<B: Boundary> IntoDecision<B> for Option<Emit> {
    fn into_decision(self, _: &B) -> Result<Vec<(StreamId, NewEvent)>, EmitError> {
        all(self)
    }
}

impl<B: Boundary> IntoDecision<B> for Vec<Emit> {
    fn into_decision(self, _: &B) -> Result<Vec<(StreamId, NewEvent)>, EmitError> {
        all(self)
    }
}

impl<B: Boundary, const N: usize> IntoDecision<B> for [Emit; N] {
    fn into_decision(self, _: &B) -> Result<Vec<(StreamId, NewEvent)>, EmitError> {
        all(self)
    }
}

fn all(emits: impl IntoIterator<Item = Emit>) -> Result<Vec<(StreamId, NewEvent)>, EmitError> {
    let mut events = Vec::new();
    for emit in emits {
        events.extend(emit.into_events()?);
    }
    Ok(events)
}

macro_rules! tuples {
    ($(($($part:ident $gets:ident $index:tt),+))+) => {$(
        impl<$($part: Part, $gets: Emits<$part>),+> IntoDecision<($($part,)+)> for ($($gets,)+) {
            fn into_decision(
                self,
                boundary: &($($part,)+),
            ) -> Result<Vec<(StreamId, NewEvent)>, EmitError> {
                let mut events = Vec::new();
                $(events.extend(self.$index.emit(&boundary.$index)?);)+
                Ok(events)
            }
        }
    )+};
}

tuples! {
    (A X 0)
    (A X 0, B Y 1)
    (A X 0, B Y 1, C Z 2)
    (A X 0, B Y 1, C Z 2, D W 3)
    (A X 0, B Y 1, C Z 2, D W 3, E V 4)
    (A X 0, B Y 1, C Z 2, D W 3, E V 4, F U 5)
}
