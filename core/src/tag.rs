//! Tags: key:value marks on events, indexed, for decisions that cross streams.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::Invalid;

/// A `key:value` on an event. The key holds no `:`; both are non-empty, without control characters,
/// together at most 255 bytes.
///
/// ```
/// use annals_core::Tag;
///
/// let tag = Tag::new("course", "c1")?;
/// assert_eq!(tag, "course:c1".parse()?);
/// assert_eq!((tag.key(), tag.value()), ("course", "c1"));
/// # Ok::<_, annals_core::Invalid>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag(Arc<str>);

impl Tag {
    /// The longest tag, in bytes of UTF-8, the colon included.
    pub const BYTES_MAX: usize = 255;

    /// A tag of a key and a value.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when it breaks one of the rules above.
    pub fn new(key: impl fmt::Display, value: impl fmt::Display) -> Result<Tag, Invalid> {
        let key = key.to_string();
        if key.contains(':') {
            return Err(Invalid::new(format!(
                "tag key `{}` holds a `:`",
                key.escape_debug()
            )));
        }
        format!("{key}:{value}").parse()
    }

    /// What comes before the first colon.
    pub fn key(&self) -> &str {
        self.0.split_once(':').map_or(&self.0, |(key, _)| key)
    }

    /// What comes after the first colon.
    pub fn value(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, value)| value)
    }

    /// The whole tag.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Tag, Invalid> {
        let wrong = |what: &str| {
            let start: String = text.chars().take(32).collect();
            Invalid::new(format!("tag `{}` {what}", start.escape_debug()))
        };
        match text.split_once(':') {
            None => Err(wrong("is not `key:value`")),
            Some(("", _) | (_, "")) => Err(wrong("has an empty key or value")),
            Some(_) if text.len() > Tag::BYTES_MAX => Err(wrong("is longer than 255 bytes")),
            Some(_) if text.chars().any(char::is_control) => {
                Err(wrong("holds a control character"))
            }
            Some(_) => Ok(Tag(text.into())),
        }
    }
}

impl TryFrom<String> for Tag {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Tag, Invalid> {
        text.parse()
    }
}

impl From<Tag> for String {
    fn from(tag: Tag) -> String {
        tag.0.as_ref().into()
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_a_key_and_a_value() {
        for bad in [
            "",
            "a",
            ":a",
            "a:",
            "a:\u{7}",
            &format!("k:{}", "x".repeat(254)),
        ] {
            assert!(bad.parse::<Tag>().is_err(), "{bad}");
        }
        assert_eq!("url:http://x".parse::<Tag>().unwrap().value(), "http://x");
        assert!(Tag::new("a:b", 1).is_err());
    }
}
