//! What the bank promises.

mod asking;
#[cfg(feature = "postgres")]
mod both_stores;
mod deciding;
mod importing;
mod keeping;
mod racing;
mod telling;
