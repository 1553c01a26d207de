//! What the crate promises, on a real broker: `cargo xtask test -p annals-kafka` brings one.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

mod broker;
mod on_kafka {
    mod following;
    mod gaps;
    mod java;
    mod outlets;
    mod processors;
    mod read_models;
    mod relays;
    mod rows;
    mod topics;
}
