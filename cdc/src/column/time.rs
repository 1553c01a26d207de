//! Dates and times, as PostgreSQL writes them with `datestyle` ISO in UTC.

use chrono::{DateTime, Datelike as _, NaiveDate, NaiveDateTime, NaiveTime, Timelike as _, Utc};

use super::{FromColumn, present};

/// A timestamp, with a zone or without, that may also be infinite. Years after 262142, which
/// PostgreSQL has too, cannot be held: take the column as a text.
///
/// ```
/// use annals_cdc::{FromColumn, Moment};
///
/// assert_eq!(Moment::from_column(Some("infinity")), Ok(Moment::Infinity));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(clippy::exhaustive_enums)]
pub enum Moment {
    /// Before every moment.
    NegativeInfinity,
    /// A moment.
    At(NaiveDateTime),
    /// After every moment.
    Infinity,
}

impl FromColumn for Moment {
    fn from_column(text: Option<&str>) -> Result<Moment, String> {
        match present(text)? {
            "infinity" => Ok(Moment::Infinity),
            "-infinity" => Ok(Moment::NegativeInfinity),
            other => {
                let (moment, before_christ) = era(other);
                let moment = moment.strip_suffix("+00").unwrap_or(moment);
                let era = if before_christ { " BC" } else { "" };
                NaiveDateTime::from_column(Some(&format!("{moment}{era}"))).map(Moment::At)
            }
        }
    }

    fn to_column(&self) -> Option<String> {
        match self {
            Moment::NegativeInfinity => Some("-infinity".to_owned()),
            Moment::At(moment) => moment.to_column(),
            Moment::Infinity => Some("infinity".to_owned()),
        }
    }
}

fn date(text: &str, before_christ: bool) -> Option<NaiveDate> {
    let mut parts = text.splitn(3, '-');
    let year: i32 = parts.next()?.parse().ok().filter(|year| *year > 0)?;
    let month = parts.next()?.parse().ok()?;
    let day = parts.next()?.parse().ok()?;
    let year = if before_christ { 1 - year } else { year };
    NaiveDate::from_ymd_opt(year, month, day)
}

fn time(text: &str) -> Option<NaiveTime> {
    NaiveTime::parse_from_str(text, "%H:%M:%S%.f").ok()
}

fn written_date(date: NaiveDate) -> (String, &'static str) {
    let (after_christ, year) = date.year_ce();
    let text = format!("{year:04}-{:02}-{:02}", date.month(), date.day());
    (text, if after_christ { "" } else { " BC" })
}

fn written_time(time: NaiveTime) -> String {
    let seconds = time.format("%H:%M:%S");
    let micros = time.nanosecond() / 1_000;
    if micros == 0 {
        return seconds.to_string();
    }
    let fraction = format!("{micros:06}");
    format!("{seconds}.{}", fraction.trim_end_matches('0'))
}

/// Without the mark of the years before 1.
fn era(text: &str) -> (&str, bool) {
    match text.strip_suffix(" BC") {
        Some(text) => (text, true),
        None => (text, false),
    }
}

impl FromColumn for NaiveDate {
    fn from_column(text: Option<&str>) -> Result<NaiveDate, String> {
        let text = present(text)?;
        let (day, before_christ) = era(text);
        date(day, before_christ).ok_or_else(|| format!("`{text}` is no date"))
    }

    fn to_column(&self) -> Option<String> {
        let (text, era) = written_date(*self);
        Some(format!("{text}{era}"))
    }
}

impl FromColumn for NaiveTime {
    fn from_column(text: Option<&str>) -> Result<NaiveTime, String> {
        let text = present(text)?;
        time(text).ok_or_else(|| format!("`{text}` is no time of a day before 24:00"))
    }

    fn to_column(&self) -> Option<String> {
        Some(written_time(*self))
    }
}

impl FromColumn for NaiveDateTime {
    fn from_column(text: Option<&str>) -> Result<NaiveDateTime, String> {
        let text = present(text)?;
        let (moment, before_christ) = era(text);
        let read = moment.split_once(' ').and_then(|(day, clock)| {
            let time = time(clock)?;
            Some(date(day, before_christ)?.and_time(time))
        });
        read.ok_or_else(|| format!("`{text}` is no timestamp; a `Moment` can also be infinite"))
    }

    fn to_column(&self) -> Option<String> {
        let (text, era) = written_date(self.date());
        Some(format!("{text} {}{era}", written_time(self.time())))
    }
}

impl FromColumn for DateTime<Utc> {
    fn from_column(text: Option<&str>) -> Result<DateTime<Utc>, String> {
        let text = present(text)?;
        let (moment, before_christ) = era(text);
        let utc = moment.strip_suffix("+00").ok_or_else(|| {
            format!("`{text}` is no timestamp in UTC; a `Moment` can also be infinite")
        })?;
        let era = if before_christ { " BC" } else { "" };
        let naive = NaiveDateTime::from_column(Some(&format!("{utc}{era}")))?;
        Ok(naive.and_utc())
    }

    fn to_column(&self) -> Option<String> {
        let (text, era) = written_date(self.date_naive());
        Some(format!("{text} {}+00{era}", written_time(self.time())))
    }
}
