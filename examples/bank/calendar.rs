//! Days and months, as a bank counts them, and as keys of read models.

use std::fmt;
use std::str::FromStr;

use annals::chrono::{DateTime, Datelike, Days, NaiveDate, NaiveTime, Utc};
use annals::projections::ViewKey;

/// A day of the bank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Day(NaiveDate);

impl Day {
    /// The day on which something happened.
    pub(crate) fn of(time: DateTime<Utc>) -> Day {
        Day(time.date_naive())
    }

    /// Its month.
    pub(crate) fn month(self) -> Month {
        Month::of(self.start())
    }

    /// Its number in the month, from 1.
    pub(crate) fn of_month(self) -> u32 {
        self.0.day()
    }

    /// The day after, unless the calendar ends.
    pub(crate) fn next(self) -> Option<Day> {
        self.0.checked_add_days(Days::new(1)).map(Day)
    }

    /// The moment at which it begins.
    pub(crate) fn start(self) -> DateTime<Utc> {
        self.0.and_time(NaiveTime::MIN).and_utc()
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.format("%Y-%m-%d"))
    }
}

/// A text that is no day or no month.
#[derive(Debug, PartialEq)]
pub(crate) struct NotInCalendar;

impl FromStr for Day {
    type Err = NotInCalendar;

    fn from_str(text: &str) -> Result<Day, NotInCalendar> {
        NaiveDate::parse_from_str(text, "%Y-%m-%d")
            .map(Day)
            .map_err(|_| NotInCalendar)
    }
}

/// Stored as the number of the day, which orders as days do in every year.
impl ViewKey for Day {
    fn to_key(&self) -> String {
        self.0.num_days_from_ce().to_key()
    }

    fn from_key(text: &str) -> Option<Day> {
        NaiveDate::from_num_days_from_ce_opt(i32::from_key(text)?).map(Day)
    }

    fn from_stream_id(_: &str) -> Option<Day> {
        None
    }
}

/// A month: what a statement is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Month {
    year: i32,
    /// From 0, January.
    index: i32,
}

impl Month {
    /// Nothing happens before this one.
    pub(crate) fn first() -> Month {
        Month {
            year: NaiveDate::MIN.year(),
            index: 0,
        }
    }

    /// Nothing happens after this one.
    pub(crate) fn last() -> Month {
        Month {
            year: NaiveDate::MAX.year(),
            index: 11,
        }
    }

    /// The month after.
    pub(crate) fn next(self) -> Month {
        match self.index {
            11 => Month {
                year: self.year + 1,
                index: 0,
            },
            index => Month {
                index: index + 1,
                ..self
            },
        }
    }

    /// The month in which something happened.
    pub(crate) fn of(time: DateTime<Utc>) -> Month {
        Month {
            year: time.year(),
            index: time.month0() as i32,
        }
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.index + 1)
    }
}

impl FromStr for Month {
    type Err = NotInCalendar;

    fn from_str(text: &str) -> Result<Month, NotInCalendar> {
        let first: Day = format!("{text}-01").parse()?;
        Ok(first.month())
    }
}

/// Stored as the number of the month.
impl ViewKey for Month {
    fn to_key(&self) -> String {
        (self.year * 12 + self.index).to_key()
    }

    fn from_key(text: &str) -> Option<Month> {
        let number = i32::from_key(text)?;
        Some(Month {
            year: number.div_euclid(12),
            index: number.rem_euclid(12),
        })
    }

    fn from_stream_id(_: &str) -> Option<Month> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_months_come_back_from_their_keys_in_order() {
        let days = [
            "-0044-03-15",
            "0000-01-01",
            "1969-12-31",
            "1993-02-28",
            "1993-03-01",
            "9999-12-31",
        ];
        let days = days.map(|day| day.parse::<Day>().unwrap());
        assert!(days.is_sorted_by_key(|day| day.to_key()));
        let months = days.map(Day::month);
        assert!(months.is_sorted_by_key(|month| month.to_key()));
        for (day, month) in days.into_iter().zip(months) {
            assert_eq!(
                (
                    Day::from_key(&day.to_key()),
                    Month::from_key(&month.to_key())
                ),
                (Some(day), Some(month))
            );
        }
    }

    #[test]
    fn a_month_is_followed_by_the_next() {
        for (month, next) in [("1993-01", "1993-02"), ("1993-12", "1994-01")] {
            assert_eq!(month.parse::<Month>().map(Month::next), next.parse());
        }
    }

    #[test]
    fn a_month_is_read_as_it_is_written() {
        assert_eq!(
            "1993-05".parse::<Month>().map(|month| month.to_string()),
            Ok("1993-05".to_owned())
        );
        for text in ["", "1993", "1993-13", "1993-05-01", "May"] {
            assert_eq!(text.parse::<Month>(), Err(NotInCalendar), "{text}");
        }
    }
}
