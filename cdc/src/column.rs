//! Values of columns as types of a program, exact in both directions.

mod array;
mod composite;
mod delimited;
mod range;
mod time;
mod wrapped;

use std::str::FromStr;

use bytes::Bytes;
use uuid::Uuid;

pub use array::Array;
pub use composite::{composite_fields, composite_text};
pub use range::{Multirange, Range};
pub use time::Moment;
pub use wrapped::{Interval, Json, Numeric, Toasted};

/// A type that the text of a column is read as.
///
/// ```
/// use annals_cdc::FromColumn;
///
/// assert_eq!(i64::from_column(Some("-7")), Ok(-7));
/// assert_eq!(Option::<i64>::from_column(None), Ok(None));
/// assert_eq!(Vec::<Option<i32>>::from_column(Some("{1,NULL}")), Ok(vec![Some(1), None]));
/// assert!(i64::from_column(None).unwrap_err().contains("null"));
/// ```
pub trait FromColumn: Sized {
    /// Reads the text that PostgreSQL writes, or null.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    fn from_column(text: Option<&str>) -> Result<Self, String>;

    /// The text that PostgreSQL writes for it, or null.
    fn to_column(&self) -> Option<String>;

    /// What it is when the column did not change and was not sent, if it can say that.
    fn unchanged() -> Option<Self> {
        None
    }

    /// Whether it is an array: one in an array is not quoted.
    fn is_array() -> bool {
        false
    }
}

/// The text, which must not be null.
pub(crate) fn present(text: Option<&str>) -> Result<&str, String> {
    text.ok_or_else(|| "it is null: the field must be an `Option`".to_owned())
}

fn parsed<T: FromStr>(text: Option<&str>, what: &str) -> Result<T, String> {
    let text = present(text)?;
    text.parse().map_err(|_| format!("`{text}` is no {what}"))
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl FromColumn for $type {
            fn from_column(text: Option<&str>) -> Result<$type, String> {
                parsed(text, concat!("`", stringify!($type), "`"))
            }

            fn to_column(&self) -> Option<String> {
                Some(self.to_string())
            }
        }
    )*};
}

integers!(i16, i32, i64, i128, u16, u32, u64);

macro_rules! floats {
    ($($type:ty, $fixed_below:literal);*) => {$(
        impl FromColumn for $type {
            fn from_column(text: Option<&str>) -> Result<$type, String> {
                match present(text)? {
                    "Infinity" => Ok(<$type>::INFINITY),
                    "-Infinity" => Ok(<$type>::NEG_INFINITY),
                    _ => parsed(text, concat!("`", stringify!($type), "`")),
                }
            }

            fn to_column(&self) -> Option<String> {
                Some(if *self == <$type>::INFINITY {
                    "Infinity".to_owned()
                } else if *self == <$type>::NEG_INFINITY {
                    "-Infinity".to_owned()
                } else {
                    float_text(self.to_string(), &format!("{self:e}"), $fixed_below)
                })
            }
        }
    )*};
}

floats!(f32, 6; f64, 15);

/// The shortest digits of a float, as PostgreSQL places the point: with an exponent where it is
/// below -4, or as large as the digits that the type is sure to hold.
fn float_text(fixed: String, scientific: &str, fixed_below: i32) -> String {
    let Some((digits, exponent)) = scientific.split_once('e') else {
        return fixed;
    };
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..fixed_below).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => fixed,
    }
}

impl FromColumn for bool {
    fn from_column(text: Option<&str>) -> Result<bool, String> {
        match present(text)? {
            "t" | "true" => Ok(true),
            "f" | "false" => Ok(false),
            other => Err(format!("`{other}` is no boolean")),
        }
    }

    fn to_column(&self) -> Option<String> {
        Some(if *self { "t" } else { "f" }.to_owned())
    }
}

impl FromColumn for String {
    fn from_column(text: Option<&str>) -> Result<String, String> {
        present(text).map(str::to_owned)
    }

    fn to_column(&self) -> Option<String> {
        Some(self.clone())
    }
}

impl FromColumn for Uuid {
    fn from_column(text: Option<&str>) -> Result<Uuid, String> {
        parsed(text, "UUID")
    }

    fn to_column(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl FromColumn for Bytes {
    fn from_column(text: Option<&str>) -> Result<Bytes, String> {
        let text = present(text)?;
        let malformed = || format!("`{text}` is no `bytea` in hex");
        let hex = text.strip_prefix("\\x").ok_or_else(malformed)?;
        if !hex.len().is_multiple_of(2) || !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(malformed());
        }
        let value = |digit: u8| char::from(digit).to_digit(16).unwrap_or_default() as u8;
        let bytes = hex.as_bytes().chunks(2);
        Ok(bytes
            .map(|pair| value(pair[0]) << 4 | value(pair[1]))
            .collect())
    }

    fn to_column(&self) -> Option<String> {
        let hex: String = self.iter().map(|byte| format!("{byte:02x}")).collect();
        Some(format!("\\x{hex}"))
    }
}

impl<T: FromColumn> FromColumn for Option<T> {
    fn from_column(text: Option<&str>) -> Result<Option<T>, String> {
        match text {
            None => Ok(None),
            text => T::from_column(text).map(Some),
        }
    }

    fn to_column(&self) -> Option<String> {
        self.as_ref()?.to_column()
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};

    use super::*;

    /// Read and written again, it is the text that it was.
    #[track_caller]
    fn check<T: FromColumn + Debug>(texts: &[&str]) {
        for text in texts {
            let value = T::from_column(Some(text)).unwrap();
            assert_eq!(value.to_column().as_deref(), Some(*text), "{value:?}");
        }
    }

    #[test]
    fn values_are_written_as_they_were_read() {
        check::<bool>(&["t", "f"]);
        check::<i64>(&["0", "-9223372036854775808", "9223372036854775807"]);
        check::<f64>(&["0.1", "-0", "NaN", "Infinity", "-Infinity"]);
        check::<f64>(&["1e+15", "100000000000000", "0.0001", "-1e-05", "1.5e-300"]);
        check::<f32>(&["1.234567e+06", "999999", "3.4e+38"]);
        check::<String>(&["", "a\u{1F600}\n", "NULL"]);
        check::<Bytes>(&["\\x", "\\x00010203ff"]);
        check::<Uuid>(&["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]);
        check::<NaiveDate>(&["2016-11-04", "0044-03-15 BC", "10000-01-01"]);
        check::<NaiveTime>(&["13:51:30.123456", "00:00:00", "23:59:59.5"]);
        check::<NaiveDateTime>(&["2016-11-04 13:51:30.123456", "0044-03-15 00:00:00 BC"]);
        check::<DateTime<Utc>>(&["2016-11-04 11:51:30.123456+00", "0001-01-01 00:00:00+00"]);
        check::<Moment>(&["infinity", "-infinity", "2016-11-04 13:51:30"]);
        check::<Numeric>(&["123456789012345678901234567890.123456789", "NaN", "1.10"]);
        check::<Interval>(&["1 year 2 mons 3 days 04:05:06.78"]);
        check::<Vec<i64>>(&["{}", "{1,2}"]);
        check::<Vec<Option<String>>>(&[r#"{a,"b,c","d\"e\\",NULL,"NULL",""}"#]);
        check::<Vec<Vec<i32>>>(&["{{1,2},{3,4}}"]);
        check::<Array<Option<i32>>>(&["{}", "{1,NULL}", "[0:1]={5,6}", "{{1},{2},{3}}"]);
        check::<Array<i32>>(&["[-1:0][2:3]={{1,2},{3,4}}", "{{{1,2}},{{3,4}}}"]);
        check::<Array<String>>(&[r#"{"{a,b}",c}"#, r#"{{"a\"\\","NULL"},{"",d}}"#]);
        check::<Range<i32>>(&["empty", "[1,5)", "(,5)", "[1,)", "(,)"]);
        check::<Range<Numeric>>(&["[1.10,2.2]", "(-Infinity,NaN)"]);
        check::<Range<String>>(&[r#"["a""b\\","(x, y]")"#, r#"["",b]"#]);
        check::<Multirange<i32>>(&["{}", "{[1,3),[5,)}"]);
        check::<Vec<Range<i32>>>(&[r#"{"[1,3)",empty}"#]);
    }

    #[test]
    fn composite_values_are_written_as_they_were_read() {
        for (text, fields) in [
            ("(1,)", vec![Some("1"), None]),
            (
                r#"("","x,""y"" (\\)")"#,
                vec![Some(""), Some(r#"x,"y" (\)"#)],
            ),
            (r#"(,"{1,2}")"#, vec![None, Some("{1,2}")]),
        ] {
            let found = composite_fields(Some(text), 2).unwrap();
            let shown: Vec<_> = found.iter().map(Option::as_deref).collect();
            assert_eq!(shown, fields);
            assert_eq!(composite_text(&found), text);
        }
        for text in [
            "", "(", "1,2", "(1,2", "(1,2)x", "(1)", "(1,2,3)", "(\"1,2)",
        ] {
            assert!(composite_fields(Some(text), 2).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_such_value_is_an_error() {
        assert!(i16::from_column(Some("32768")).is_err());
        assert!(Bytes::from_column(Some("\\x0")).is_err());
        assert!(Numeric::from_column(Some("1e")).is_err());
        assert!(NaiveDate::from_column(Some("infinity")).is_err());
        for text in ["", "{", "{1", "1}", "{1}}", "{1,}", "{\"}", "{{1},2}"] {
            assert!(Vec::<i64>::from_column(Some(text)).is_err(), "{text}");
            assert!(Array::<i64>::from_column(Some(text)).is_err(), "{text}");
        }
        for text in [
            "[0:1]={1}",
            "[0:0]{1}",
            "[1:2]={{1},{2}}",
            "{{1},{2,3}}",
            "[9:1]={}",
        ] {
            assert!(Array::<i64>::from_column(Some(text)).is_err(), "{text}");
        }
        for text in ["", "[1,2", "1,2)", "[1,2)x", "[,", "[a,2)", "[\"1,2)"] {
            assert!(Range::<i32>::from_column(Some(text)).is_err(), "{text}");
        }
        for text in ["", "{", "{[1,2)(3,4)}", "{[1,2),}", "{empty}"] {
            assert!(
                Multirange::<i32>::from_column(Some(text)).is_err(),
                "{text}"
            );
        }
    }
}
