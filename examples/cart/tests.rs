//! What the cart promises.

mod coupons;
mod deciding;
mod telling;
