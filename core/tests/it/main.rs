//! What the decision loop promises: commands on aggregates, decisions over several things, and
//! questions about the past.

// Helpers of tests are tests: what must not fail is unwrapped.
#![allow(clippy::unwrap_used)]

mod bad_input;
mod bank;
mod cache;
mod checkout;
mod commands;
mod courses;
mod decisions;
mod deletion;
mod exact;
mod history;
mod idempotency;
mod incarnations;
mod invoices;
mod metadata;
mod nets;
mod opt_in;
mod parts;
mod past;
mod prices;
mod queries;
mod snapshots;
mod store;
mod unknown;
mod usernames;
