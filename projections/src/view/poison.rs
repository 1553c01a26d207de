//! Why an event cannot be folded.

use std::fmt;

/// Why an event cannot be folded: it, and all later ones of its key, become dead letters until an
/// operator decides.
///
/// Any error becomes one with `?`.
///
/// ```
/// use annals_projections::Poison;
///
/// fn parse(text: &str) -> Result<u8, Poison> {
///     Ok(text.parse()?)
/// }
/// assert_eq!(parse("x").unwrap_err().reason(), "invalid digit found in string");
/// ```
pub struct Poison(String);

impl Poison {
    /// With a reason for operators.
    pub fn new(reason: impl Into<String>) -> Poison {
        Poison(reason.into())
    }

    /// The reason.
    pub fn reason(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Poison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Poison").field(&self.0).finish()
    }
}

impl<E: std::error::Error> From<E> for Poison {
    fn from(error: E) -> Poison {
        Poison(annals_core::with_causes(&error).to_string())
    }
}
