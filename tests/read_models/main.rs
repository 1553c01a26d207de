//! Read models in a file, with the workers that programs have: killed at every step, paused past their leases, killed while they build
//! anew, given what they cannot fold, and put before a log that was restored. At the end the rows are those of a replay, each time.
//!
//! The tests start themselves as the processes that are killed and paused.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // What must not fail is unwrapped, and the figures are shown.

mod killed;
mod paused;
mod poisoned;
mod rebuilt;
mod restored;
mod tally;
mod victim;
