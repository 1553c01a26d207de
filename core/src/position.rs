//! Where an event is in the log, and how far a reader must have come.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use crate::error::Invalid;

/// The place of an event in its partition of the log: 1, 2, 3 … in commit order.
///
/// Nothing ever appears at or before a position that a reader has seen. [`Position::START`] is
/// before the first event.
///
/// ```
/// use annals_core::Position;
///
/// assert!(Position::START < Position::new(1));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Position(u64);

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Position, D::Error> {
        u64::deserialize(from).map(Position::new)
    }
}

impl Position {
    /// Before the first event.
    pub const START: Position = Position(0);
    /// After every event there will be.
    pub const MAX: Position = Position(i64::MAX as u64);

    /// The position `number`; anything above [`Position::MAX`] is taken as that.
    pub const fn new(number: u64) -> Position {
        if number > Position::MAX.0 {
            Position::MAX
        } else {
            Position(number)
        }
    }

    /// The number itself.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The position after this one.
    #[must_use]
    pub const fn next(self) -> Position {
        Position::new(self.0 + 1)
    }

    /// The position `count` events later.
    #[must_use]
    pub const fn plus(self, count: u64) -> Position {
        Position::new(self.0.saturating_add(count))
    }

    /// The position `count` events earlier, at least [`Position::START`].
    #[must_use]
    pub const fn minus(self, count: u64) -> Position {
        Position(self.0.saturating_sub(count))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<u64> for Position {
    fn from(number: u64) -> Position {
        Position::new(number)
    }
}

/// A part of the log with an order of its own. SQL stores have one, numbered 0.
///
/// ```
/// assert_eq!(annals_core::Partition::default(), annals_core::Partition(0));
/// ```
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Partition(pub u32);

impl Partition {
    /// The partition of `count` to which a name belongs: FNV-1a over its bytes, modulo `count`.
    ///
    /// The same name gives the same partition on every machine and in every version of Annals.
    ///
    /// ```
    /// use annals_core::Partition;
    ///
    /// assert_eq!(Partition::of("account-42", 1), Partition(0));
    /// ```
    pub fn of(name: &str, count: u32) -> Partition {
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        // The low bits of FNV-1a over similar names are even enough; the high half is folded in all
        // the same.
        Partition(((hash ^ (hash >> 32)) % u64::from(count.max(1))) as u32)
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which log this is: given once, when the store is created, and never again.
///
/// ```
/// assert_ne!(annals_core::LogId::random(), annals_core::LogId::random());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogId(Uuid);

impl LogId {
    /// The id of a new log.
    pub fn random() -> LogId {
        LogId(Uuid::now_v7())
    }

    /// The id that a store has kept.
    pub const fn from_uuid(id: Uuid) -> LogId {
        LogId(id)
    }

    /// The id, to be kept.
    pub const fn as_uuid(&self) -> &Uuid {
        &self.0
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_simple().fmt(f)
    }
}

/// One incarnation of a log, as far as this process has noticed: what is remembered of one is worth
/// nothing in the next.
///
/// A log goes on in a new incarnation when it was restored, failed over to a server that lacks
/// events, or swapped: the id can be the same, and what follows a position is not. A store compares
/// an event that it knows with the log wherever it looks again (on a new connection, where it
/// writes), and counts.
///
/// ```
/// use annals_core::{Incarnation, LogId};
///
/// let first = Incarnation::first(LogId::random());
/// assert_ne!(first, first.next(first.log()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Incarnation {
    log: LogId,
    number: u64,
}

impl Incarnation {
    /// The one that a store finds when it opens.
    pub const fn first(log: LogId) -> Incarnation {
        Incarnation { log, number: 0 }
    }

    /// The one that a store counts with this number: 0 is the [first](Incarnation::first).
    pub const fn numbered(log: LogId, number: u64) -> Incarnation {
        Incarnation { log, number }
    }

    /// The one that follows, in which the log has this id.
    #[must_use]
    pub const fn next(self, log: LogId) -> Incarnation {
        Incarnation {
            log,
            number: self.number + 1,
        }
    }

    /// The id of the log.
    pub const fn log(self) -> LogId {
        self.log
    }
}

/// How far a partition of the log goes.
///
/// ```
/// use annals_core::{Head, Position};
///
/// let head = Head::at(Position::new(7));
/// assert_eq!(head.visible, head.durable);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Head {
    /// The last committed position.
    pub visible: Position,
    /// The last position that survives a power cut; readers that feed other systems stop here.
    pub durable: Position,
}

impl Head {
    /// A head whose committed events are all durable.
    pub const fn at(position: Position) -> Head {
        Head {
            visible: position,
            durable: position,
        }
    }
}

/// What a reader must have reached: a log, and a position in each partition that matters.
///
/// It prints as `<log>:<partition>@<position>[,…]` and parses back, so that it can travel in an
/// HTTP header.
///
/// ```
/// use annals_core::{LogId, Partition, Position, Token};
///
/// let token = Token::new(LogId::random()).with(Partition(0), Position::new(42));
/// assert_eq!(token.to_string().parse::<Token>()?, token);
/// # Ok::<_, annals_core::Invalid>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Token {
    log: LogId,
    // In order of the partition, each at most once.
    reached: Vec<(Partition, Position)>,
}

impl Token {
    /// A token that asks for nothing yet.
    pub const fn new(log: LogId) -> Token {
        Token {
            log,
            reached: Vec::new(),
        }
    }

    /// Asks for at least `position` in `partition`.
    #[must_use]
    pub fn with(mut self, partition: Partition, position: Position) -> Token {
        match self
            .reached
            .binary_search_by_key(&partition, |(partition, _)| *partition)
        {
            Ok(at) => self.reached[at].1 = self.reached[at].1.max(position),
            Err(at) => self.reached.insert(at, (partition, position)),
        }
        self
    }

    /// The log it speaks of.
    pub const fn log(&self) -> LogId {
        self.log
    }

    /// What it asks of `partition`; [`Position::START`] when nothing.
    pub fn position(&self, partition: Partition) -> Position {
        self.reached
            .iter()
            .find(|(of, _)| *of == partition)
            .map_or(Position::START, |(_, position)| *position)
    }

    /// Every partition that it asks something of.
    pub fn positions(&self) -> impl Iterator<Item = (Partition, Position)> + '_ {
        self.reached.iter().copied()
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.log)?;
        for (index, (partition, position)) in self.reached.iter().enumerate() {
            write!(
                f,
                "{}{partition}@{position}",
                if index == 0 { "" } else { "," }
            )?;
        }
        Ok(())
    }
}

impl FromStr for Token {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Token, Invalid> {
        let invalid = || Invalid::new(format!("`{}` is not a token", text.escape_debug()));
        let (log, reached) = text.split_once(':').ok_or_else(invalid)?;
        let mut token = Token::new(LogId(Uuid::try_parse(log).map_err(|_| invalid())?));
        for place in reached.split(',').filter(|place| !place.is_empty()) {
            let (partition, position) = place.split_once('@').ok_or_else(invalid)?;
            let partition = Partition(partition.parse().map_err(|_| invalid())?);
            token = token.with(
                partition,
                Position::new(position.parse().map_err(|_| invalid())?),
            );
        }
        Ok(token)
    }
}

impl TryFrom<String> for Token {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Token, Invalid> {
        text.parse()
    }
}

impl From<Token> for String {
    fn from(token: Token) -> String {
        token.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_printing_and_asks_for_the_furthest_position() {
        let token = Token::new(LogId::random())
            .with(Partition(2), Position::new(7))
            .with(Partition(0), Position::new(3))
            .with(Partition(2), Position::new(5));
        assert_eq!(token.position(Partition(2)), Position::new(7));
        assert_eq!(token.position(Partition(1)), Position::START);
        assert_eq!(token.to_string().parse::<Token>().unwrap(), token);
        for bad in [
            "",
            "x",
            "0@1",
            "00000000000000000000000000000000:1",
            "00000000000000000000000000000000:1@x",
        ] {
            assert!(bad.parse::<Token>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_deserialized_number_is_at_most_the_last() {
        let read: Position = serde_json::from_str("18446744073709551615").unwrap();
        assert_eq!((read, read.next()), (Position::MAX, Position::MAX));
        assert_eq!(serde_json::to_string(&Position::new(7)).unwrap(), "7");
        let read: crate::Version = serde_json::from_str("18446744073709551615").unwrap();
        assert_eq!(
            (read, read.next()),
            (crate::Version::MAX, crate::Version::MAX)
        );
    }

    #[test]
    fn a_name_keeps_its_partition() {
        // Pinned: a change here would move streams that people have stored.
        let found: Vec<u32> = ["account-1", "account-2", "cart-9", "ä"]
            .iter()
            .map(|name| Partition::of(name, 12).0)
            .collect();
        assert_eq!(found, [4, 1, 4, 5]);
    }
}
