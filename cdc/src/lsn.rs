//! Positions in the write-ahead log of a PostgreSQL server.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A position in the write-ahead log of a PostgreSQL server.
///
/// ```
/// use annals_cdc::Lsn;
///
/// let lsn: Lsn = "0/15287A0".parse()?;
/// assert_eq!(lsn.to_string(), "0/15287A0");
/// assert!(lsn < Lsn::new(0x1_0000_0000));
/// # Ok::<_, annals_cdc::MalformedLsn>(())
/// ```
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct Lsn(u64);

impl Lsn {
    /// Before everything.
    pub const ZERO: Lsn = Lsn(0);

    /// The position with this number.
    pub const fn new(number: u64) -> Lsn {
        Lsn(number)
    }

    /// The number itself.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The bytes of log between `earlier` and here; none when it is not earlier.
    pub const fn bytes_since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// A text that is no position in a write-ahead log.
///
/// ```
/// let error = "15287A0".parse::<annals_cdc::Lsn>().unwrap_err();
/// assert_eq!(error.to_string(), "`15287A0` is no LSN: it reads `0/15287A0`");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no LSN: it reads `0/15287A0`")]
pub struct MalformedLsn(String);

impl FromStr for Lsn {
    type Err = MalformedLsn;

    fn from_str(text: &str) -> Result<Lsn, MalformedLsn> {
        let part = |part: &str| {
            let is_hex = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_hexdigit());
            u32::from_str_radix(part, 16).ok().filter(|_| is_hex)
        };
        text.split_once('/')
            .and_then(|(high, low)| Some((part(high)?, part(low)?)))
            .map(|(high, low)| Lsn(u64::from(high) << 32 | u64::from(low)))
            .ok_or_else(|| MalformedLsn(text.escape_debug().to_string()))
    }
}

impl TryFrom<String> for Lsn {
    type Error = MalformedLsn;

    fn try_from(text: String) -> Result<Lsn, MalformedLsn> {
        text.parse()
    }
}

impl From<Lsn> for String {
    fn from(lsn: Lsn) -> String {
        lsn.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lsn_is_read_back_and_nothing_else_is() {
        for number in [0, 1, u64::from(u32::MAX), 1 << 32, u64::MAX] {
            assert_eq!(Lsn(number).to_string().parse(), Ok(Lsn(number)));
        }
        for text in ["", "/", "0/", "/0", "+1/0", "0/100000000", "0/x", "0/1/2"] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
    }
}
