//! What holds for read models on every backend. The crate that includes this file says in
//! `crate::fixture` which one it runs on.

#![allow(missing_docs, clippy::unwrap_used)]

pub(crate) mod bank;
mod exactly_once;
mod history;
mod key_faults;
mod lifecycle;
mod past;
pub(crate) mod place;
mod poison;
mod processes;
mod queries;
mod reactors;
mod rebuild;
mod registry;
mod reset;
mod status;
mod watch;
