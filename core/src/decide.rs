//! Decisions over several things: aggregates (expectations on their streams) and folds of queries
//! (a condition), consistent as a whole.

mod boundary;
mod emit;
mod guards;
mod run;

pub use boundary::{Boundary, Fold, Over, Part};
pub use emit::{Emit, EmitError, Emits, IntoDecision};
pub use run::Decide;
