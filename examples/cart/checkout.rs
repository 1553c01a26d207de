//! The checkout: one decision over a cart and the stock of each product in it.

use std::collections::BTreeMap;

use annals::CommandError;
use annals::prelude::*;

use crate::cart::{Cart, CartError, CartEvent};
use crate::stock::{Stock, StockError, StockEvent};

/// Why a cart is not sold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CheckoutError {
    #[error(transparent)]
    Cart(#[from] CartError),
    #[error("of `{sku}` {reason}")]
    Stock { sku: String, reason: StockError },
}

/// Sells what is in the cart, all of it or nothing, and never what is not there.
///
/// Which stocks it is about is known after a look at the cart. When the cart or one of the stocks
/// changes before it is recorded, all of them are looked at again. The cart's id is the idempotency
/// key: a cart is checked out once, however often that is asked.
pub(crate) async fn check_out(
    db: &Annals,
    id: &str,
) -> Result<Committed, CommandError<CheckoutError>> {
    db.decide_in_two_looks(
        Cart::at(id),
        |cart: &Cart| Stock::at_each(cart.lines.keys()),
        |(cart, stocks)| sell(id, cart, stocks),
    )
    .idempotency_key("checkout")
    .await
}

/// What happens to the cart, and to each stock.
fn sell(
    id: &str,
    cart: &Cart,
    stocks: &BTreeMap<String, Stock>,
) -> Result<(CartEvent, Vec<(String, StockEvent)>), CheckoutError> {
    let checked_out = cart.check_out()?;
    let nothing = Stock::default();
    let taken = cart.lines.iter().map(|(sku, line)| {
        let stock = stocks.get(sku).unwrap_or(&nothing);
        match stock.take(line.quantity, id) {
            Ok(taken) => Ok((sku.clone(), taken)),
            Err(reason) => Err(CheckoutError::Stock {
                sku: sku.clone(),
                reason,
            }),
        }
    });
    Ok((checked_out, taken.collect::<Result<_, _>>()?))
}
