//! Amounts of money, exact: whole halers, a hundred to the crown, and never a float.

use std::fmt;
use std::iter::Sum;
use std::ops::{AddAssign, Neg};
use std::str::FromStr;

use annals::prelude::*;

/// An amount in halers, stored as that number. No sum of what any log can hold leaves its range.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Money(i128);

impl Money {
    pub(crate) const ZERO: Money = Money(0);
    /// The most that one transaction may move: far above any real one.
    pub(crate) const TRANSACTION_MAX: Money = Money::crowns(1_000_000_000_000);

    pub(crate) const fn halers(halers: i64) -> Money {
        Money(halers as i128)
    }

    pub(crate) const fn crowns(crowns: i64) -> Money {
        Money(crowns as i128 * 100)
    }
}

/// One transaction moves at most 10^14 halers, so it takes 10^24 of them to overflow.
impl AddAssign for Money {
    fn add_assign(&mut self, other: Money) {
        self.0 += other.0;
    }
}

impl Neg for Money {
    type Output = Money;

    fn neg(self) -> Money {
        Money(-self.0)
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Money>>(amounts: I) -> Money {
        amounts.fold(Money::ZERO, |mut sum, amount| {
            sum += amount;
            sum
        })
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let halers = self.0.unsigned_abs();
        // `pad` keeps the width and alignment that a table asks for.
        f.pad(&format!("{sign}{}.{:02}", halers / 100, halers % 100))
    }
}

/// In crowns and halers, also in the text of a test.
impl fmt::Debug for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no exact amount.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("`{}` is not an amount in crowns and halers", .0.escape_debug())]
pub(crate) struct NoAmount(String);

impl FromStr for Money {
    type Err = NoAmount;

    /// Decimal crowns: `700`, `700.5`, `-14.60`. More digits than halers are accepted as long as
    /// they are zeros.
    fn from_str(text: &str) -> Result<Money, NoAmount> {
        let no_amount = || NoAmount(text.to_owned());
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        let (crowns, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let all_digits =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !all_digits(crowns) || !all_digits(fraction) {
            return Err(no_amount());
        }
        let (halers, rest) = fraction.split_at(fraction.len().min(2));
        if rest.bytes().any(|digit| digit != b'0') {
            return Err(no_amount());
        }
        let exact = || {
            let crowns: i128 = crowns.parse().ok()?;
            let halers: i128 = format!("{halers:0<2}").parse().ok()?;
            crowns.checked_mul(100)?.checked_add(halers)
        };
        let halers = exact().ok_or_else(no_amount)?;
        Ok(Money(if negative { -halers } else { halers }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_written_to_the_haler() {
        for (text, halers) in [
            ("700.00", 70_000),
            ("14.6", 1_460),
            ("0.07", 7),
            ("3", 300),
            ("-0.05", -5),
            ("1.2300", 123),
            ("007", 700),
        ] {
            assert_eq!(text.parse(), Ok(Money::halers(halers)), "{text}");
        }
        assert_eq!(Money::halers(-5).to_string(), "-0.05");
        assert_eq!(format!("[{:>8}]", Money::halers(123)), "[    1.23]");
    }

    #[test]
    fn sums_beyond_64_bits_are_exact() {
        let most: Money = "90000000000000000.07".parse().unwrap();
        let sum: Money = [most, most, -Money::halers(4)].into_iter().sum();
        assert_eq!(sum.to_string(), "180000000000000000.10");
        let stored = serde_json::to_string(&sum).unwrap();
        assert_eq!(stored, "18000000000000000010");
        assert_eq!(serde_json::from_str::<Money>(&stored).unwrap(), sum);
    }

    #[test]
    fn what_is_not_exact_is_no_amount() {
        for text in [
            "",
            ".",
            "1.",
            ".5",
            "1,50",
            "1.005",
            "1e3",
            "--1",
            "+1",
            " 1",
            "9999999999999999999999999999999999999999",
        ] {
            assert!(text.parse::<Money>().is_err(), "{text}");
        }
    }
}
