//! What the cart promises.

mod coupons;
mod deciding;
mod keeping;
mod selling;
mod telling;
