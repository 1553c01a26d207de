//! What goes wrong outside the domain: a request that can never succeed, and a store that could not
//! do what was asked.

use std::any::Any;
use std::borrow::Cow;
use std::error::Error;
use std::fmt;

/// A request that can never succeed as written: fix the caller. Nothing was written.
///
/// The text names the thing that is wrong.
///
/// ```
/// let error = annals_core::StreamId::new("").unwrap_err();
/// assert_eq!(error.to_string(), "a stream name is empty");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(Cow<'static, str>);

impl Invalid {
    /// Says what is wrong, lowercase and without a full stop.
    pub fn new(what: impl Into<Cow<'static, str>>) -> Invalid {
        Invalid(what.into())
    }
}

/// What a caller can do about a store that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Failure {
    /// The store did not answer, or is busy. Trying again later may help.
    Unavailable,
    /// The request can never succeed as written. Fix the caller.
    Invalid,
    /// What is stored is not what was written. Stop, keep the files, restore a backup.
    Corrupt,
    /// There is no room left. Make room, then try again.
    Full,
    /// The store may only be read: file permissions, a read-only medium, a role without rights.
    ReadOnly,
    /// What is stored was made by a newer Annals, or the library underneath is too old. Upgrade.
    Incompatible,
    /// This store failed in a way that it cannot be trusted after, or was closed. Open it again.
    Closed,
}

/// The store could not do what was asked, for a reason that has nothing to do with the domain.
///
/// ```
/// use annals_core::{Failure, StoreError};
///
/// let error = StoreError::new(Failure::Full, "no room left in `bank.db`");
/// assert_eq!(error.failure(), Failure::Full);
/// assert_eq!(error.to_string(), "no room left in `bank.db`");
/// ```
#[derive(Debug, thiserror::Error)]
#[error("{context}")]
pub struct StoreError {
    failure: Failure,
    context: Cow<'static, str>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl StoreError {
    /// An error with what was being done, lowercase and without a full stop.
    pub fn new(failure: Failure, context: impl Into<Cow<'static, str>>) -> StoreError {
        StoreError {
            failure,
            context: context.into(),
            source: None,
        }
    }

    /// The same error with its cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> StoreError {
        self.source = Some(source.into());
        self
    }

    /// What the caller can do about it.
    pub const fn failure(&self) -> Failure {
        self.failure
    }
}

impl From<Invalid> for StoreError {
    fn from(invalid: Invalid) -> StoreError {
        StoreError::new(Failure::Invalid, invalid.0)
    }
}

/// The message of a panic.
///
/// ```
/// use annals_core::panic_text;
///
/// let panic = std::panic::catch_unwind(|| panic!("no rate for {}", "EUR")).unwrap_err();
/// assert_eq!(panic_text(&*panic), "no rate for EUR");
/// ```
pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

/// An error with everything that caused it, each cause once: `cannot open: no such file`.
///
/// ```
/// use annals_core::{Failure, StoreError, with_causes};
///
/// let error = StoreError::new(Failure::Unavailable, "cannot read").because("connection reset");
/// assert_eq!(with_causes(&error).to_string(), "cannot read: connection reset");
/// ```
pub fn with_causes<'a>(error: &'a (dyn Error + 'a)) -> impl fmt::Display + use<'a> {
    fmt::from_fn(move |f| {
        let mut text = error.to_string();
        f.write_str(&text)?;
        let mut cause = error.source();
        while let Some(error) = cause {
            let of_cause = error.to_string();
            // A transparent error says what its cause says.
            if !text.contains(&of_cause) {
                write!(f, ": {of_cause}")?;
            }
            text = of_cause;
            cause = error.source();
        }
        Ok(())
    })
}
