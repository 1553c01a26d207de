//! What the bank promises.

mod deciding;
mod importing;
mod racing;
mod telling;
