//! Read models through the public door, on the memory store.

#![allow(missing_docs, clippy::unwrap_used)]

mod bank;
mod exactly_once;
mod history;
mod lifecycle;
mod past;
mod poison;
mod processes;
mod queries;
mod reactors;
mod rebuild;
mod watch;
