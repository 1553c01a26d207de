//! What the crate promises, on a real broker: `cargo xtask test -p annals-kafka` brings one.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

mod broker;
mod on_kafka {
    mod following;
    mod gaps;
    mod java;
    #[cfg(feature = "testing")]
    mod killed;
    #[cfg(feature = "testing")]
    mod killed_pipelines;
    #[cfg(feature = "testing")]
    mod killed_relays;
    mod leaving;
    mod outlets;
    mod processors;
    mod read_models;
    mod relays;
    mod rows;
    mod state_topics;
    mod targets;
    mod topics;
    mod windows;
}
#[cfg(feature = "tls")]
mod on_own_broker;
mod rebuilds;
