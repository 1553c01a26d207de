//! Prices: whole cents of a currency.

use std::fmt;

use annals::prelude::*;

/// A price in the currency's smallest unit.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Price {
    pub(crate) cents: u64,
    pub(crate) currency: String,
}

impl Price {
    pub(crate) fn euros(euros: u64, cents: u64) -> Price {
        Price {
            cents: euros * 100 + cents,
            currency: "EUR".to_owned(),
        }
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!(
            "{}.{:02} {}",
            self.cents / 100,
            self.cents % 100,
            self.currency
        ))
    }
}

/// In whole units and cents, also in the text of a test.
impl fmt::Debug for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
