//! Streams: the events of one thing, named `category-id`, and how many there have been.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use crate::error::Invalid;

/// How many events a stream has had: the first event is version 1, an absent stream is at version
/// 0.
///
/// ```
/// use annals_core::Version;
///
/// assert_eq!(Version::NONE.next(), Version::new(1));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Version(u64);

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Version, D::Error> {
        u64::deserialize(from).map(Version::new)
    }
}

impl Version {
    /// The version of a stream that has had no event.
    pub const NONE: Version = Version(0);
    /// The version of the first event.
    pub const FIRST: Version = Version(1);
    /// Larger than any version a stream reaches.
    pub const MAX: Version = Version(i64::MAX as u64);

    /// The version `number`; anything above [`Version::MAX`] is taken as that.
    pub const fn new(number: u64) -> Version {
        if number > Version::MAX.0 {
            Version::MAX
        } else {
            Version(number)
        }
    }

    /// The number itself.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The version after this one.
    #[must_use]
    pub const fn next(self) -> Version {
        Version::new(self.0 + 1)
    }

    /// This version and `count` events more.
    #[must_use]
    pub const fn plus(self, count: u64) -> Version {
        Version::new(self.0.saturating_add(count))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<u64> for Version {
    fn from(number: u64) -> Version {
        Version::new(number)
    }
}

/// The name of a stream: `category-id`, at most 255 bytes, no control characters.
///
/// The category is what comes before the first `-`; the rest is the id and may hold more dashes. A
/// name without a dash is all category. Names that start with `$` are reserved for Annals itself.
///
/// ```
/// use annals_core::StreamId;
///
/// let stream = StreamId::new("account-nord-42")?;
/// assert_eq!(stream.category(), "account");
/// assert_eq!(stream.id(), "nord-42");
/// assert!(StreamId::new("$internal-1").is_err());
/// # Ok::<_, annals_core::Invalid>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StreamId(Arc<str>);

impl StreamId {
    /// The longest name, in bytes of UTF-8.
    pub const BYTES_MAX: usize = 255;

    /// A stream name of a user.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when the name is empty, longer than 255 bytes, holds a control character, or
    /// starts with `$`.
    pub fn new(name: impl AsRef<str>) -> Result<StreamId, Invalid> {
        let name = name.as_ref();
        if name.starts_with('$') {
            let start: String = name.chars().take(32).collect();
            return Err(Invalid::new(format!(
                "stream name `{}` starts with `$`, which is reserved",
                start.escape_debug()
            )));
        }
        StreamId::any(name)
    }

    /// The stream of one thing of a category.
    ///
    /// # Errors
    ///
    /// As [`StreamId::new`]; also when the category is empty or holds a `-`, or the
    /// id is empty.
    ///
    /// ```
    /// use annals_core::StreamId;
    ///
    /// assert_eq!(StreamId::of("account", "nord-42")?.as_str(), "account-nord-42");
    /// # Ok::<_, annals_core::Invalid>(())
    /// ```
    pub fn of(category: &str, id: impl fmt::Display) -> Result<StreamId, Invalid> {
        if category.is_empty() || category.contains('-') {
            return Err(Invalid::new(format!(
                "category `{}` is empty or holds a `-`",
                category.escape_debug()
            )));
        }
        let name = format!("{category}-{id}");
        if name.len() == category.len() + 1 {
            return Err(Invalid::new(format!(
                "an id of category `{category}` is empty"
            )));
        }
        StreamId::new(name)
    }

    /// Any legal name, also a reserved one: for stores, which read back what they have, and for
    /// Annals' own streams.
    ///
    /// # Errors
    ///
    /// As [`StreamId::new`], but `$` is allowed.
    ///
    /// ```
    /// assert!(annals_core::StreamId::any("$process-7").is_ok());
    /// ```
    pub fn any(name: impl AsRef<str>) -> Result<StreamId, Invalid> {
        let name = name.as_ref();
        if name.is_empty() {
            return Err(Invalid::new("a stream name is empty"));
        }
        if name.len() > StreamId::BYTES_MAX {
            let start: String = name.chars().take(32).collect();
            let max = StreamId::BYTES_MAX;
            return Err(Invalid::new(format!(
                "stream name `{}…` has {} bytes, at most {max} are allowed",
                start.escape_debug(),
                name.len()
            )));
        }
        if name.chars().any(char::is_control) {
            return Err(Invalid::new(format!(
                "stream name `{}` holds a control character",
                name.escape_debug()
            )));
        }
        Ok(StreamId(name.into()))
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What comes before the first `-`, or the whole name.
    pub fn category(&self) -> &str {
        self.0
            .split_once('-')
            .map_or(&self.0, |(category, _)| category)
    }

    /// What comes after the first `-`, or nothing.
    pub fn id(&self) -> &str {
        self.0.split_once('-').map_or("", |(_, id)| id)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl FromStr for StreamId {
    type Err = Invalid;

    fn from_str(name: &str) -> Result<StreamId, Invalid> {
        StreamId::new(name)
    }
}

impl TryFrom<String> for StreamId {
    type Error = Invalid;

    fn try_from(name: String) -> Result<StreamId, Invalid> {
        StreamId::any(name)
    }
}

impl From<StreamId> for String {
    fn from(stream: StreamId) -> String {
        stream.0.as_ref().into()
    }
}

impl Borrow<str> for StreamId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_category_ends_at_the_first_dash() {
        for (name, category, id) in [
            ("account-42", "account", "42"),
            ("a-b-c", "a", "b-c"),
            ("journal", "journal", ""),
            ("konto-Ärö-1", "konto", "Ärö-1"),
            ("-x", "", "x"),
        ] {
            let stream = StreamId::new(name).unwrap();
            assert_eq!((stream.category(), stream.id()), (category, id), "{name}");
        }
    }

    #[test]
    fn illegal_names_are_refused_and_named() {
        for (name, said) in [
            ("", "empty"),
            ("$x-1", "reserved"),
            ("a-\n", "\\n"),
            (&"é".repeat(128), "256 bytes"),
        ] {
            let error = StreamId::new(name).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        assert!(StreamId::new("a".repeat(255)).is_ok());
        assert!(StreamId::of("a-b", 1).is_err());
    }
}
