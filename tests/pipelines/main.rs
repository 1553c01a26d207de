//! Pipelines over real stores: rows and state are a function of the log, whatever happens to those
//! who write them.

// What must not fail is unwrapped, and stores are shared by handles.
#![allow(clippy::unwrap_used, clippy::clone_on_ref_ptr)]

#[allow(dead_code, reason = "each example is more than a test uses of it")]
#[path = "../../examples/fraud/afternoon.rs"]
mod afternoon;
mod appended;
mod asked;
#[allow(dead_code, reason = "each example is more than a test uses of it")]
#[path = "../../examples/fraud/bank.rs"]
mod bank;
mod broken;
mod fraud_killed;
mod killed;
mod kinds;
mod lessons;
mod ordered;
mod panics;
#[path = "../../examples/fraud/rules.rs"]
mod rules;
#[cfg(feature = "postgres")]
#[path = "../../store-postgres/tests/server/mod.rs"]
mod server;
mod shop;
mod stopped;
mod trials;
#[allow(dead_code, reason = "each example is more than a test uses of it")]
#[path = "../../examples/fraud/verdict.rs"]
mod verdict;
