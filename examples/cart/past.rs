//! How events looked before: shapes that are not written any more, and how they read today.

use annals::prelude::*;

use crate::cart::CartEvent;
use crate::price::Price;

/// `cart.added` v1, from when the shop sold in one country: a bare number of cents, and always one
/// piece. Leave it as it is.
#[derive(Serialize, Deserialize)]
pub(crate) struct AddedV1 {
    pub(crate) sku: String,
    pub(crate) price_cents: u64,
}

/// From version 1 to 2: prices have a currency, and one event may be about several pieces.
pub(crate) fn with_currency(AddedV1 { sku, price_cents }: AddedV1) -> CartEvent {
    CartEvent::Added {
        sku,
        quantity: 1,
        price: Price {
            cents: price_cents,
            currency: "EUR".to_owned(),
        },
    }
}
