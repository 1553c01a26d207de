//! Windows as keys of rows: known by their start.

use annals_core::chrono::{DateTime, NaiveDate, NaiveTime, Timelike};
use annals_streams::{Time, Window};

use crate::key::ViewKey;

/// What comes before the first and after the last date, of which the ones begin with `-0` and the
/// others with `~2` at most.
const BEFORE_DATES: &str = "-!";
const AFTER_DATES: &str = "~~";
const SIGN: u64 = 1 << 63;

/// Its start, as `2026-03-31T10:00:00`, with a fraction only where there is one: it orders as text.
/// Starts that are too far away to have a date, which is about 262,000 years, are counted in
/// microseconds, before and after all dates. A window that is read back from a key ends where it
/// starts; put the end into the row if it is needed.
impl ViewKey for Window {
    fn to_key(&self) -> String {
        let micros = self.start.micros();
        let Some(moment) = DateTime::from_timestamp_micros(micros) else {
            // With the sign turned, the numbers order as the moments do.
            let turned = micros as u64 ^ SIGN;
            let side = if micros < 0 {
                BEFORE_DATES
            } else {
                AFTER_DATES
            };
            return format!("{side}{turned:020}");
        };
        let date = moment.date_naive().to_key();
        let fraction = micros.rem_euclid(1_000_000);
        let (hour, minute, second) = (moment.hour(), moment.minute(), moment.second());
        if fraction == 0 {
            format!("{date}T{hour:02}:{minute:02}:{second:02}")
        } else {
            format!("{date}T{hour:02}:{minute:02}:{second:02}.{fraction:06}")
        }
    }

    fn from_key(text: &str) -> Option<Window> {
        let far = [BEFORE_DATES, AFTER_DATES].into_iter();
        if let Some(turned) = far.filter_map(|side| text.strip_prefix(side)).next() {
            let micros = (turned.parse::<u64>().ok()? ^ SIGN) as i64;
            let window = window_at(Time::from_micros(micros));
            return (window.to_key() == text).then_some(window);
        }
        let (date, time) = text.split_once('T')?;
        let time = NaiveTime::parse_from_str(time, "%H:%M:%S%.f").ok()?;
        let moment = NaiveDate::from_key(date)?.and_time(time).and_utc();
        let window = window_at(Time::from_micros(moment.timestamp_micros()));
        (window.to_key() == text).then_some(window)
    }

    fn from_stream_id(_: &str) -> Option<Window> {
        None
    }

    fn type_of_key() -> String {
        "window".to_owned()
    }
}

/// The window that starts then, for asking after its row.
///
/// ```
/// use annals_projections::ViewKey;
/// use annals_projections::pipeline::{Time, window_at};
///
/// let window = window_at(Time::from_micros(1_774_951_200_000_000));
/// assert_eq!(window.to_key(), "2026-03-31T10:00:00");
/// ```
pub fn window_at(start: Time) -> Window {
    Window::new(start, start)
}

/// A key of rows that says of which window of which key a row is.
#[diagnostic::on_unimplemented(
    message = "rows keyed by `{Self}` cannot hold a result for each window of `{K}`",
    note = "let the view's key be `(Window, {K})`; for `({K}, Window)` write `.into_view_by_key()`"
)]
pub trait OfWindow<K> {
    /// The key of the row.
    fn of_window(window: Window, key: &K) -> Self;
}

impl<K: ViewKey> OfWindow<K> for (Window, K) {
    fn of_window(window: Window, key: &K) -> (Window, K) {
        (window, key.clone())
    }
}

impl OfWindow<()> for Window {
    fn of_window(window: Window, (): &()) -> Window {
        window
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn windows_order_as_their_keys_do(a in any::<i64>(), b in any::<i64>(), fraction: bool) {
            let start = |micros: i64| {
                let micros = if fraction { micros } else { micros / 1_000_000 * 1_000_000 };
                window_at(Time::from_micros(micros))
            };
            let (a, b) = (start(a), start(b));
            prop_assert_eq!(a.start.cmp(&b.start), a.to_key().cmp(&b.to_key()));
            prop_assert_eq!(Window::from_key(&a.to_key()), Some(a));
            let keys = ((a, 7_u64).to_key(), (b, 7_u64).to_key());
            prop_assert_eq!(a.start.cmp(&b.start), keys.0.cmp(&keys.1));
        }
    }

    #[test]
    fn windows_beyond_all_dates_have_keys_of_their_own() {
        let last = NaiveDate::MAX
            .and_time(NaiveTime::MIN)
            .and_utc()
            .timestamp_micros();
        let first = NaiveDate::MIN
            .and_time(NaiveTime::MIN)
            .and_utc()
            .timestamp_micros();
        let year = 366 * 86_400_000_000;
        let starts = [
            i64::MIN,
            i64::MIN + 1,
            first - year,
            first,
            0,
            last,
            last + year,
            i64::MAX - 1,
            i64::MAX,
        ];
        let keys = starts.map(|start| window_at(Time::from_micros(start)).to_key());
        assert!(keys.is_sorted_by(|one, other| one < other), "{keys:?}");
        for (start, key) in starts.iter().zip(&keys) {
            let window = Window::from_key(key);
            assert_eq!(window, Some(window_at(Time::from_micros(*start))), "{key}");
        }
        assert_eq!(Window::from_key("~~00000000000000000000"), None);
    }
}
