//! What holds for read models on every backend. The crate that includes this file says in
//! `crate::fixture` which one it runs on.

#![allow(missing_docs, clippy::unwrap_used)]

mod archiving;
pub(crate) mod bank;
mod decisions;
mod edges;
mod exactly_once;
mod gateway;
mod history;
mod key_faults;
mod key_types;
mod large_rows;
mod lifecycle;
mod nets;
mod panicking;
mod past;
mod poison;
mod processes;
mod processes_killed;
mod queries;
mod reactors;
mod reactors_killed;
mod rebuild;
mod redeclared;
mod registry;
mod reset;
mod shop;
mod shortest;
mod status;
pub(crate) mod test_store;
mod unfit;
mod unread;
mod verified;
mod watch;
mod ways;
