//! Keys of rows: typed for programs, texts for the store, in an encoding whose byte order is the
//! order of the keys.

use std::fmt;

use annals_core::Invalid;
use annals_core::chrono::{DateTime, Datelike, NaiveDate, Utc};
use annals_runner::contained;
use uuid::Uuid;

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
/// assert_eq!(("north".to_string(), 7_u32).to_key(), "north\u{1f}\u{1f}0000000007");
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no key of a view's rows, and no entry of an index",
    label = "not a `ViewKey`",
    note = "keys are `String`, integers, `bool`, `Uuid`, `NaiveDate`, `DateTime<Utc>`, `()`, and \
            tuples of them",
    note = "for a type of your own, such as an enum, implement `ViewKey`: `to_key` gives a text \
            that orders as the key does, `from_key` reads it, `from_stream_id` may give `None`, \
            `type_of_key` names the type"
)]
pub trait ViewKey: Sized + Clone + Send + Sync + fmt::Debug + 'static {
    /// The key as a text.
    fn to_key(&self) -> String;

    /// The key that has this text, if one has.
    fn from_key(text: &str) -> Option<Self>;

    /// The key that the id of a stream means (`alice` in `account-alice`), if it means one: the key
    /// of an event when a view says nothing else.
    fn from_stream_id(id: &str) -> Option<Self>;

    /// The name of this type of keys: a view whose keys are of another type is another view, and
    /// gets rows of its own. Types whose keys have other texts or mean something else need other
    /// names; it must never change.
    ///
    /// ```
    /// use annals_projections::ViewKey;
    ///
    /// assert_eq!(<(String, u64)>::type_of_key(), "(text,u64)");
    /// ```
    fn type_of_key() -> String;

    /// The id of the one stream that the key means: what
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
    let text = contained(|| key.to_key()).map_err(Invalid::new)?;
    match too_long(&text) {
        None => Ok(text),
        Some(refused) => Err(Invalid::new(refused.reason)),
    }
}

/// A key that is too long, under which nothing can be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RefusedKey {
    /// A short key, under which its events become dead letters.
    pub(crate) short: String,
    /// What is wrong.
    pub(crate) reason: String,
}

/// Whether the text of a key is too long, and the short one that is used instead.
pub(crate) fn too_long(text: &str) -> Option<RefusedKey> {
    if text.len() <= KEY_BYTES_MAX {
        return None;
    }
    let begins: String = text.chars().take(32).collect();
    let bytes = text.len();
    // FNV-1a: the same in every process and version.
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    Some(RefusedKey {
        short: format!("{begins}… ({bytes} bytes, {hash:016x})"),
        reason: format!(
            "the key `{}…` has {bytes} bytes, at most {KEY_BYTES_MAX} are possible",
            begins.escape_debug()
        ),
    })
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

    fn type_of_key() -> String {
        "text".to_owned()
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

    fn type_of_key() -> String {
        "()".to_owned()
    }
}

/// What is the same of all numbers.
macro_rules! of_number {
    ($type:ty) => {
        fn from_stream_id(id: &str) -> Option<$type> {
            // `007` and `+7` are other streams than `7`, and must not share its row.
            id.parse().ok().filter(|key: &$type| key.to_string() == id)
        }

        fn type_of_key() -> String {
            stringify!($type).to_owned()
        }

        fn to_stream_id(&self) -> Option<String> {
            Some(self.to_string())
        }
    };
}

macro_rules! unsigned {
    ($($type:ty: $digits:literal),+) => {$(
        impl ViewKey for $type {
            fn to_key(&self) -> String {
                format!(concat!("{:0", $digits, "}"), self)
            }

            fn from_key(text: &str) -> Option<$type> {
                text.parse().ok().filter(|key: &$type| key.to_key() == text)
            }

            of_number!($type);
        }
    )+};
}

unsigned! { u8: "3", u16: "5", u32: "10", u64: "20", u128: "39" }

/// Negative numbers come first: `-`, then the distance from the smallest; the others begin with
/// `=`.
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
                    ("-", distance) => {
                        <$type>::MIN.checked_add_unsigned(<$unsigned>::from_key(distance)?)
                    }
                    ("=", number) => <$type>::try_from(<$unsigned>::from_key(number)?).ok(),
                    _ => None,
                }
            }

            of_number!($type);
        }
    )+};
}

signed! { i8 as u8, i16 as u16, i32 as u32, i64 as u64, i128 as u128 }

impl ViewKey for bool {
    fn to_key(&self) -> String {
        self.to_string()
    }

    fn from_key(text: &str) -> Option<bool> {
        text.parse().ok()
    }

    fn from_stream_id(id: &str) -> Option<bool> {
        id.parse().ok()
    }

    fn type_of_key() -> String {
        "bool".to_owned()
    }

    fn to_stream_id(&self) -> Option<String> {
        Some(self.to_string())
    }
}

/// In its hyphenated form.
impl ViewKey for Uuid {
    fn to_key(&self) -> String {
        self.hyphenated().to_string()
    }

    fn from_key(text: &str) -> Option<Uuid> {
        // Other forms of the same id are other streams.
        text.parse().ok().filter(|key: &Uuid| key.to_key() == text)
    }

    fn from_stream_id(id: &str) -> Option<Uuid> {
        Uuid::from_key(id)
    }

    fn type_of_key() -> String {
        "uuid".to_owned()
    }

    fn to_stream_id(&self) -> Option<String> {
        Some(self.to_key())
    }
}

/// To the microsecond, as the log keeps times: `2026-03-31T12:00:00.000000Z`.
impl ViewKey for DateTime<Utc> {
    fn to_key(&self) -> String {
        let date = self.date_naive().to_key();
        format!("{date}T{}", self.format("%H:%M:%S%.6fZ"))
    }

    fn from_key(text: &str) -> Option<DateTime<Utc>> {
        let (date, time) = text.split_once('T')?;
        let time = annals_core::chrono::NaiveTime::parse_from_str(time, "%H:%M:%S%.6fZ").ok()?;
        let key = NaiveDate::from_key(date)?.and_time(time).and_utc();
        (key.to_key() == text).then_some(key)
    }

    fn from_stream_id(id: &str) -> Option<DateTime<Utc>> {
        DateTime::from_key(id)
    }

    fn type_of_key() -> String {
        "time".to_owned()
    }
}

/// As ISO 8601 has it, `2026-03-31`. Years that do not have four digits keep their place in the
/// order: negative ones begin with `-`, those after 9999 with `~`.
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

    fn type_of_key() -> String {
        "date".to_owned()
    }
}

/// Between the parts of a tuple. It orders before everything that a part may hold.
const BETWEEN: &str = "\u{1f}\u{1f}";

/// Begins what a control character of a part is written as, which is never the separator.
const ESCAPE: char = '\u{1f}';

/// A part of a tuple, without control characters: each becomes two, in the same order.
fn escaped(part: &str) -> String {
    let mut text = String::with_capacity(part.len());
    for character in part.chars() {
        match u8::try_from(character) {
            Ok(control @ ..=0x1f) => text.extend([ESCAPE, char::from(0x20 + control)]),
            _ => text.push(character),
        }
    }
    text
}

/// The parts of a tuple, as they were before they were escaped.
fn parts(text: &str) -> Option<Vec<String>> {
    let mut parts = vec![String::new()];
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        let part = match character {
            ESCAPE => match characters.next()? {
                ESCAPE => {
                    parts.push(String::new());
                    continue;
                }
                escaped => {
                    let control = u8::try_from(escaped).ok()?.checked_sub(0x20)?;
                    char::from(Some(control).filter(|control| *control <= 0x1f)?)
                }
            },
            character => character,
        };
        parts.last_mut()?.push(part);
    }
    Some(parts)
}

macro_rules! tuples {
    ($(($($part:ident.$index:tt),+))+) => {$(
        impl<$($part: ViewKey),+> ViewKey for ($($part,)+) {
            fn to_key(&self) -> String {
                [$(escaped(&self.$index.to_key())),+].join(BETWEEN)
            }

            fn from_key(text: &str) -> Option<Self> {
                let mut parts = parts(text)?.into_iter();
                let key = ($($part::from_key(&parts.next()?)?,)+);
                parts.next().is_none().then_some(key)
            }

            fn from_stream_id(_: &str) -> Option<Self> {
                None
            }

            fn type_of_key() -> String {
                format!("({})", [$($part::type_of_key()),+].join(","))
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

    proptest! {
        #[test]
        fn tuples_order_as_their_parts_do(
            a in "[\\x00-\\x21a]{0,3}", b in "[\\x00-\\x21a]{0,3}",
            c in "[\\x00-\\x21a]{0,3}", d in "[\\x00-\\x21a]{0,3}",
        ) {
            let one = (a, b);
            let other = (c, d);
            prop_assert_eq!(one.cmp(&other), one.to_key().cmp(&other.to_key()));
            prop_assert_eq!(
                <(String, String)>::from_key(&one.to_key()),
                Some(one.clone())
            );
            let nested = (one.clone(), other.clone(), 7_u8);
            let read = <((String, String), (String, String), u8)>::from_key(&nested.to_key());
            prop_assert_eq!(read, Some(nested));
        }
    }

    #[test]
    fn a_separator_inside_a_part_is_not_taken_for_one() {
        let one = ("a\u{1f}".to_owned(), "b".to_owned());
        let other = ("a".to_owned(), "\u{1f}b".to_owned());
        assert_ne!(one.to_key(), other.to_key());
    }

    #[test]
    fn a_number_is_the_key_of_one_stream() {
        assert_eq!(u64::from_stream_id("7"), Some(7));
        for other in ["007", "+7", "-0", " 7", ""] {
            assert_eq!(u64::from_stream_id(other), None, "{other}");
            assert_eq!(i64::from_stream_id(other), None, "{other}");
        }
    }

    #[test]
    fn the_commonest_types_are_keys() {
        #[track_caller]
        fn check<K: ViewKey + PartialEq>(key: K, text: &str) {
            assert_eq!(key.to_key(), text);
            assert_eq!(K::from_key(text), Some(key));
        }
        check(true, "true");
        check(7_u8, "007");
        check(-1_i8, "-127");
        check(Uuid::nil(), "00000000-0000-0000-0000-000000000000");
        let time = DateTime::from_timestamp_micros(1_774_958_400_000_001).unwrap();
        check(time, "2026-03-31T12:00:00.000001Z");
    }

    #[test]
    fn a_long_key_has_a_short_one_of_its_own() {
        let one = too_long(&"x".repeat(300)).unwrap();
        let other = too_long(&"x".repeat(301)).unwrap();
        assert_ne!(one.short, other.short);
        assert!(one.short.len() <= KEY_BYTES_MAX);
        assert!(
            one.reason.contains("300 bytes, at most 255"),
            "{}",
            one.reason
        );
        assert_eq!(too_long(&"x".repeat(255)), None);
    }

    const DAYS: std::ops::RangeInclusive<i32> = -95_746_000..=95_745_000;

    fn date(days: i32) -> NaiveDate {
        NaiveDate::from_num_days_from_ce_opt(days).unwrap()
    }

    #[test]
    fn a_date_is_a_key_as_iso_8601_has_it() {
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
