//! Texts that are kept as they are, JSON, and values that may be unchanged.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{FromColumn, present};

/// A `numeric`: its text, digit for digit, or `NaN` or an infinity.
///
/// ```
/// use annals_cdc::{FromColumn, Numeric};
///
/// let price = Numeric::from_column(Some("1.10"))?;
/// assert_eq!(price.as_str(), "1.10");
/// # Ok::<_, String>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Numeric(String);

impl Numeric {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Numeric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromColumn for Numeric {
    fn from_column(text: Option<&str>) -> Result<Numeric, String> {
        let text = present(text)?;
        let digits = text.strip_prefix('-').unwrap_or(text);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let all = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let is_number = all(whole) && all(fraction);
        if is_number || matches!(text, "NaN" | "Infinity" | "-Infinity") {
            return Ok(Numeric(text.to_owned()));
        }
        Err(format!("`{text}` is no numeric"))
    }

    fn to_column(&self) -> Option<String> {
        Some(self.0.clone())
    }
}

/// An `interval`, as text: months, days and time have no common unit.
///
/// ```
/// use annals_cdc::{FromColumn, Interval};
///
/// assert_eq!(Interval::from_column(Some("1 mon"))?.0, "1 mon");
/// # Ok::<_, String>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_structs)]
pub struct Interval(pub String);

impl FromColumn for Interval {
    fn from_column(text: Option<&str>) -> Result<Interval, String> {
        present(text).map(|text| Interval(text.to_owned()))
    }

    fn to_column(&self) -> Option<String> {
        Some(self.0.clone())
    }
}

/// A `json` or `jsonb` as a type of serde.
///
/// ```
/// use annals_cdc::{FromColumn, Json};
///
/// let Json(numbers) = Json::<Vec<u8>>::from_column(Some("[1, 2]"))?;
/// assert_eq!(numbers, [1, 2]);
/// # Ok::<_, String>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_structs)]
pub struct Json<T>(pub T);

impl<T: Serialize + DeserializeOwned> FromColumn for Json<T> {
    fn from_column(text: Option<&str>) -> Result<Json<T>, String> {
        let text = present(text)?;
        serde_json::from_str(text)
            .map(Json)
            .map_err(|error| format!("its JSON cannot be read: {error}"))
    }

    fn to_column(&self) -> Option<String> {
        serde_json::to_string(&self.0).ok()
    }
}

/// A value that is not sent when it did not change: of columns that can be long, in tables without
/// `replica identity full`.
///
/// ```
/// use annals_cdc::{FromColumn, Toasted};
///
/// let notes = Toasted::<Option<String>>::from_column(None)?;
/// assert_eq!(notes, Toasted::Value(None));
/// # Ok::<_, String>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums)]
pub enum Toasted<T> {
    /// The value.
    Value(T),
    /// It is what it was.
    Unchanged,
}

impl<T: FromColumn> FromColumn for Toasted<T> {
    fn from_column(text: Option<&str>) -> Result<Toasted<T>, String> {
        T::from_column(text).map(Toasted::Value)
    }

    fn to_column(&self) -> Option<String> {
        match self {
            Toasted::Value(value) => value.to_column(),
            Toasted::Unchanged => None,
        }
    }

    fn unchanged() -> Option<Toasted<T>> {
        Some(Toasted::Unchanged)
    }
}
