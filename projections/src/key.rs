//! Keys of rows: typed for operator, texts for the store, in an encoding whose byte order is the
//! order of the keys.

use std::fmt;

use annals_core::Invalid;
use annals_core::chrono::{Datelike, NaiveDate};

/// What a view's rows are known by.
///
/// The text of a key orders as the key does, so that ranges mean what they say; it may be at most
/// 255 bytes.
///
/// ```
/// use annals_projections::ViewKey;
///
/// assert!((-7_i64).to_key() < 3_i64.to_key() && 3_i64.to_key() < 20_i64.to_key());
/// assert_eq!(i64::from_key(&(-7_i64).to_key()), Some(-7));
/// assert_eq!(("north".to_string(), 7_u32).to_key(), "north\u{1f}0000000007");
/// ```
pub trait ViewKey: Sized + Clone + Send + Sync + fmt::Debug + 'static {
    /// The key as a text.
    fn to_key(&self) -> String;

    /// The key that has this text, if one has.
    fn from_key(text: &str) -> Option<Self>;

    /// The key that the id of a stream stands for (`alice` in `account-alice`), if it stands for
    /// one: the key of an event when a view says nothing else.
    fn from_stream_id(id: &str) -> Option<Self>;

    /// The id of the one stream that the key stands for: what
    /// [`from_stream_id`](ViewKey::from_stream_id) makes this key of. Nothing, unless said
    /// otherwise: then views with this key cannot be [inline](crate::ViewSetup::inline).
    ///
    /// ```
    /// use annals_projections::ViewKey;
    ///
    /// assert_eq!(7_u64.to_stream_id().as_deref(), Some("7"));
    /// ```
    fn to_stream_id(&self) -> Option<String> {
        None
    }
}

/// The longest key, in bytes of its text.
pub(crate) const KEY_BYTES_MAX: usize = 255;

/// The text of a key, if it may be one.
pub(crate) fn checked(key: &impl ViewKey) -> Result<String, Invalid> {
    let text = key.to_key();
    if text.len() > KEY_BYTES_MAX {
        return Err(Invalid::new(format!(
            "key {key:?} has {} bytes, at most {KEY_BYTES_MAX} are allowed",
            text.len()
        )));
    }
    Ok(text)
}

impl ViewKey for String {
    fn to_key(&self) -> String {
        self.clone()
    }

    fn from_key(text: &str) -> Option<String> {
        Some(text.into())
    }

    fn from_stream_id(id: &str) -> Option<String> {
        Some(id.into())
    }

    fn to_stream_id(&self) -> Option<String> {
        Some(self.clone())
    }
}

/// The one key of a view that has a single row.
impl ViewKey for () {
    fn to_key(&self) -> String {
        String::new()
    }

    fn from_key(text: &str) -> Option<()> {
        text.is_empty().then_some(())
    }

    fn from_stream_id(_: &str) -> Option<()> {
        Some(())
    }
}

macro_rules! unsigned {
    ($($type:ty: $digits:literal),+) => {$(
        impl ViewKey for $type {
            fn to_key(&self) -> String {
                format!(concat!("{:0", $digits, "}"), self)
            }

            fn from_key(text: &str) -> Option<$type> {
                text.parse().ok()
            }

            fn from_stream_id(id: &str) -> Option<$type> {
                id.parse().ok()
            }

            fn to_stream_id(&self) -> Option<String> {
                Some(self.to_string())
            }
        }
    )+};
}

unsigned! { u16: "5", u32: "10", u64: "20" }

/// Negative numbers stand before the others: `-`, then the distance from the smallest; the others
/// begin with `=`.
macro_rules! signed {
    ($($type:ty as $unsigned:ty),+) => {$(
        impl ViewKey for $type {
            fn to_key(&self) -> String {
                if *self < 0 {
                    format!("-{}", self.abs_diff(<$type>::MIN).to_key())
                } else {
                    format!("={}", self.unsigned_abs().to_key())
                }
            }

            fn from_key(text: &str) -> Option<$type> {
                match text.split_at_checked(1)? {
                    ("-", distance) => <$type>::MIN.checked_add_unsigned(<$unsigned>::from_key(distance)?),
                    ("=", number) => <$type>::try_from(<$unsigned>::from_key(number)?).ok(),
                    _ => None,
                }
            }

            fn from_stream_id(id: &str) -> Option<$type> {
                id.parse().ok()
            }

            fn to_stream_id(&self) -> Option<String> {
                Some(self.to_string())
            }
        }
    )+};
}

signed! { i32 as u32, i64 as u64 }

/// As operator write it, `2026-03-31`. Years that do not have four digits keep their place in the
/// order: before them stands `-`, and behind the year 9999 `~`.
impl ViewKey for NaiveDate {
    fn to_key(&self) -> String {
        let year = self.year();
        let month = self.month();
        let day = self.day();
        match year {
            ..0 => format!(
                "-{:06}-{month:02}-{day:02}",
                year.abs_diff(NaiveDate::MIN.year())
            ),
            0..=9_999 => format!("{year:04}-{month:02}-{day:02}"),
            _ => format!("~{year:06}-{month:02}-{day:02}"),
        }
    }

    fn from_key(text: &str) -> Option<NaiveDate> {
        let far = |rest: &str| -> Option<(u32, String)> {
            let (year, day) = rest.split_once('-')?;
            Some((year.parse().ok()?, day.to_owned()))
        };
        let (year, day) = match text.split_at_checked(1)? {
            ("-", rest) => far(rest).and_then(|(year, day)| {
                Some((NaiveDate::MIN.year().checked_add_unsigned(year)?, day))
            })?,
            ("~", rest) => {
                far(rest).and_then(|(year, day)| Some((i32::try_from(year).ok()?, day)))?
            }
            _ => far(text).and_then(|(year, day)| Some((i32::try_from(year).ok()?, day)))?,
        };
        let (month, day) = day.split_once('-')?;
        let date = NaiveDate::from_ymd_opt(year, month.parse().ok()?, day.parse().ok()?)?;
        (date.to_key() == text).then_some(date)
    }

    fn from_stream_id(id: &str) -> Option<NaiveDate> {
        NaiveDate::from_key(id)
    }
}

/// Stands between the parts of a tuple. It orders before every character that a part should hold.
const BETWEEN: char = '\u{1f}';

macro_rules! tuples {
    ($(($($part:ident.$index:tt),+))+) => {$(
        impl<$($part: ViewKey),+> ViewKey for ($($part,)+) {
            fn to_key(&self) -> String {
                let parts = [$(self.$index.to_key()),+];
                parts.join(&BETWEEN.to_string())
            }

            fn from_key(text: &str) -> Option<Self> {
                let mut parts = text.split(BETWEEN);
                let key = ($($part::from_key(parts.next()?)?,)+);
                parts.next().is_none().then_some(key)
            }

            fn from_stream_id(_: &str) -> Option<Self> {
                None
            }
        }
    )+};
}

tuples! {
    (A.0, B.1)
    (A.0, B.1, C.2)
    (A.0, B.1, C.2, D.3)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_order_as_their_keys_do(a: i64, b: i64, c: i32, d: i32, e: u64, f: u64) {
            prop_assert_eq!(a.cmp(&b), a.to_key().cmp(&b.to_key()));
            prop_assert_eq!(c.cmp(&d), c.to_key().cmp(&d.to_key()));
            prop_assert_eq!(e.cmp(&f), e.to_key().cmp(&f.to_key()));
            prop_assert_eq!((a, e).cmp(&(b, f)), (a, e).to_key().cmp(&(b, f).to_key()));
        }

        #[test]
        fn keys_come_back_from_their_text(a: i64, b: u32, text in "[ -~äöü]{0,20}") {
            prop_assert_eq!(i64::from_key(&a.to_key()), Some(a));
            let key = (text, a, b);
            prop_assert_eq!(<(String, i64, u32)>::from_key(&key.to_key()), Some(key));
        }
    }

    proptest! {
        #[test]
        fn dates_order_as_their_keys_do(a in DAYS, b in DAYS) {
            let a = date(a);
            let b = date(b);
            prop_assert_eq!(a.cmp(&b), a.to_key().cmp(&b.to_key()));
            prop_assert_eq!(NaiveDate::from_key(&a.to_key()), Some(a));
        }
    }

    const DAYS: std::ops::RangeInclusive<i32> = -95_746_000..=95_745_000;

    fn date(days: i32) -> NaiveDate {
        NaiveDate::from_num_days_from_ce_opt(days).unwrap()
    }

    #[test]
    fn a_date_is_a_key_as_people_write_it() {
        let date = |year, month, day| NaiveDate::from_ymd_opt(year, month, day).unwrap();
        for (date, key) in [
            (date(2026, 3, 31), "2026-03-31"),
            (date(0, 1, 1), "0000-01-01"),
            (date(9999, 12, 31), "9999-12-31"),
            (date(10_000, 1, 1), "~010000-01-01"),
            (date(-1, 12, 31), "-262142-12-31"),
        ] {
            assert_eq!(
                (date.to_key().as_str(), NaiveDate::from_key(key)),
                (key, Some(date))
            );
        }
        for no_date in [
            "",
            "2026",
            "2026-3-31",
            "2026-02-30",
            "2026-03-31T00:00",
            "+2026-03-31",
            "é026-03-31",
            "-",
            "~1-1-1",
        ] {
            assert_eq!(NaiveDate::from_key(no_date), None, "{no_date}");
        }
        for edge in [NaiveDate::MIN, NaiveDate::MAX] {
            assert_eq!(NaiveDate::from_key(&edge.to_key()), Some(edge));
        }
    }
}
