//! What the bank promises.

mod asking;
#[cfg(feature = "postgres")]
mod both_stores;
mod deciding;
mod importing;
mod keeping;
#[cfg(feature = "kafka")]
mod on_kafka;
mod racing;
mod telling;
