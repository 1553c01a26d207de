//! Pipelines over real stores: rows and state are a function of the log, whatever happens to those
//! who write them.

// What must not fail is unwrapped, and stores are shared by handles.
#![allow(clippy::unwrap_used, clippy::clone_on_ref_ptr)]

mod appended;
mod asked;
mod broken;
mod killed;
mod kinds;
mod lessons;
mod ordered;
mod panics;
mod shop;
mod stopped;
mod trials;
