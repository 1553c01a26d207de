//! What came of an append: where each event is.

use crate::event::EventId;
use crate::position::{LogId, Partition, Position, Token};
use crate::stream::{StreamId, Version};

/// Where one event of an append is.
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
    pub fn new(log: LogId, events: Vec<Placed>, repeated: bool) -> Appended {
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

    /// Where each event is, in the order of the request.
    pub fn events(&self) -> &[Placed] {
        &self.events
    }

    /// Where the last event is.
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
