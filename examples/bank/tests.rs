//! What the bank promises.

mod asking;
#[cfg(feature = "postgres")]
mod both_stores;
mod deciding;
mod importing;
mod keeping;
#[cfg(feature = "kafka-store")]
mod kept_on_kafka;
#[cfg(feature = "kafka")]
mod on_kafka;
#[cfg(any(feature = "postgres", feature = "kafka-store"))]
mod printed;
mod racing;
mod telling;
