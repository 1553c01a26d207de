//! A shop: decisions on one cart, a checkout that never sells what is not there, a coupon that
//! works once across all carts, and events that outlived their shape.
//!
//! `cargo run --example cart` tells a short story in memory. Start reading in `cart.rs`;
//! `checkout.rs` is one decision over a cart and the stock of each product in it, `coupon.rs` one
//! that crosses carts, `past.rs` is how old events are read, `sold.rs`
//! a read model that is there at once.

mod cart;
mod checkout;
mod coupon;
#[path = "../ended/mod.rs"]
mod ended;
mod past;
mod price;
mod sold;
mod stock;
mod story;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::process::ExitCode;

use annals::prelude::*;

#[tokio::main]
async fn main() -> ExitCode {
    let mut out = io::stdout().lock();
    let told = story::tell(&Annals::in_memory(), &mut out).await;
    ended::ended("cart", told.and_then(|()| Ok(out.flush()?)))
}
