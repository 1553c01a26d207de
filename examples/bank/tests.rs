//! What the bank promises.

mod asking;
mod deciding;
mod importing;
mod keeping;
mod racing;
mod telling;
