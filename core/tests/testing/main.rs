//! What the test kit prints, and how it fails.

#![allow(missing_docs, clippy::unwrap_used)]

mod account;
mod decisions;
mod refused;
mod stories;
mod timelines;
