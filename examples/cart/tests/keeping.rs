//! What is stored stays readable.

use annals::testing::EventsLock;

use crate::cart::{Cart, CartEvent};
use crate::price::Price;
use crate::stock::{Stock, StockEvent};

/// When this fails, a log would no longer be read as it was written: give the event a new
/// version and an upcaster.
///
/// The file also has version 1 of `cart.added`, from when it was written so: it is read through its
/// upcaster in every run.
#[test]
fn stored_carts_stay_readable() {
    let tea = || "tea".to_owned();
    let pot = || "pot".to_owned();
    let price = || Price::euros(4, 50);
    EventsLock::at(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/examples/cart/events.lock"
    ))
    .events([
        CartEvent::Added {
            sku: tea(),
            quantity: 2,
            price: price(),
        },
        CartEvent::Added {
            sku: pot(),
            quantity: 1,
            price: price(),
        },
        CartEvent::Removed { sku: pot() },
        CartEvent::QuantityChanged {
            sku: tea(),
            quantity: 3,
        },
        CartEvent::PriceChanged {
            sku: tea(),
            price: price(),
        },
        CartEvent::CouponApplied {
            code: "SPRING".to_owned(),
            percent: 10,
        },
        CartEvent::CheckedOut { total: price() },
    ])
    .events([
        StockEvent::Received { pieces: 5 },
        StockEvent::Taken {
            pieces: 2,
            cart: "ada".to_owned(),
        },
    ])
    .aggregate::<Cart>("cart")
    .aggregate::<Stock>("stock")
    .check();
}
