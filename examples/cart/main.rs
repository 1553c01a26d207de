//! A shop: decisions on one cart, a checkout that never sells what is not there, a coupon that
//! works once across all carts, and events that outlived their shape.
//!
//! `cargo run --example cart` tells a short story in memory. Start reading in `cart.rs`;
//! `checkout.rs` is one decision over a cart and the stock of each product in it, `coupon.rs` one
//! that crosses carts, `past.rs` is how old events are read, `sold.rs`
//! a read model that is there at once.

#![allow(
    clippy::print_stderr,
    reason = "this is a program, and what went wrong goes to its user"
)]

mod cart;
mod checkout;
mod coupon;
mod past;
mod price;
mod sold;
mod stock;
mod story;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use annals::prelude::*;

#[tokio::main]
async fn main() -> ExitCode {
    let mut out = io::stdout().lock();
    let told = story::tell(&Annals::in_memory(), &mut out).await;
    match what_went_wrong(told.and_then(|()| Ok(out.flush()?))) {
        None => ExitCode::SUCCESS,
        Some(error) => {
            eprintln!("cart: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Nothing, when the reader has seen enough, as in `cart | head`.
fn what_went_wrong(told: Result<(), Box<dyn Error>>) -> Option<Box<dyn Error>> {
    told.err().filter(|error| !is_broken_pipe(&**error))
}

fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
