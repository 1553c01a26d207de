//! Months: what a statement is about, and a key of read models.

use std::fmt;
use std::str::FromStr;

use annals::chrono::{Datelike, NaiveDate};
use annals::projections::ViewKey;

/// A month of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Month {
    year: i32,
    /// From 0, January.
    index: i32,
}

impl Month {
    /// Nothing happens before this one.
    pub(crate) fn first() -> Month {
        Month::of(&NaiveDate::MIN)
    }

    /// Nothing happens after this one.
    pub(crate) fn last() -> Month {
        Month::of(&NaiveDate::MAX)
    }

    /// The month after.
    pub(crate) fn next(self) -> Month {
        Month::numbered(self.number() + 1)
    }

    /// The month of a day, or of a moment.
    pub(crate) fn of(time: &impl Datelike) -> Month {
        Month {
            year: time.year(),
            index: time.month0() as i32,
        }
    }

    fn number(self) -> i32 {
        self.year * 12 + self.index
    }

    fn numbered(number: i32) -> Month {
        Month {
            year: number.div_euclid(12),
            index: number.rem_euclid(12),
        }
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.index + 1)
    }
}

/// A text that is no month.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("it is no month such as 1993-05")]
pub(crate) struct NoMonth;

impl FromStr for Month {
    type Err = NoMonth;

    fn from_str(text: &str) -> Result<Month, NoMonth> {
        let first = NaiveDate::parse_from_str(&format!("{text}-01"), "%Y-%m-%d");
        first.map(|first| Month::of(&first)).map_err(|_| NoMonth)
    }
}

/// Stored as the number of the month, which orders as months do in every year.
impl ViewKey for Month {
    fn to_key(&self) -> String {
        self.number().to_key()
    }

    fn from_key(text: &str) -> Option<Month> {
        i32::from_key(text).map(Month::numbered)
    }

    fn from_stream_id(_: &str) -> Option<Month> {
        None
    }

    fn type_of_key() -> String {
        "month".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_come_back_from_their_keys_in_order() {
        let months = [
            "-0044-03", "0000-01", "1969-12", "1993-02", "1993-03", "9999-12",
        ];
        let months = months.map(|month| month.parse::<Month>().unwrap());
        assert!(months.is_sorted_by_key(|month| month.to_key()));
        for month in months {
            assert_eq!(Month::from_key(&month.to_key()), Some(month));
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
            assert_eq!(text.parse::<Month>(), Err(NoMonth), "{text}");
        }
    }
}
