//! What the bank promises.

mod deciding;
mod importing;
mod keeping;
mod racing;
mod telling;
