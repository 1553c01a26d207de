//! Pipelines over real stores: rows and state are a function of the log, whatever happens to those
//! who write them.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

mod asked;
mod broken;
mod killed;
mod kinds;
mod lessons;
mod shop;
mod told;
