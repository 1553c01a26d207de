//! What can be wrong with a parameter or with saved state.

use std::fmt;

/// A parameter of an operator makes no sense. Change the program.
///
/// ```
/// use annals_streams::{Aligned, Span};
///
/// let error = Aligned::tumbling(Span::ZERO).unwrap_err();
/// assert_eq!(error.to_string(), "the size of a window must be at least 1 microsecond, got 0");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(String);

impl ConfigError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// State could not be written, or what was read is not what this operator writes.
///
/// Nothing of a failed `restore` may be used: begin again with an empty operator.
///
/// ```
/// use annals_streams::StateError;
///
/// let error = StateError::new("key `x` is not a number");
/// assert_eq!(error.to_string(), "key `x` is not a number");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateError(String);

impl StateError {
    /// An error with this text: lowercase, without a full stop, naming the thing.
    ///
    /// ```
    /// # use annals_streams::StateError;
    /// assert_eq!(StateError::new("too short").to_string(), "too short");
    /// ```
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StateError {}
