//! Decisions over several things: aggregates (expectations on their streams) and folds of queries
//! (a condition), consistent as a whole.

mod boundary;
mod each;
mod emit;
mod guards;
mod run;
mod two_looks;

pub use boundary::{Boundary, Fold, Over, Part};
pub use each::Each;
pub use emit::{Emit, EmitError, Emits, IntoDecision};
pub use run::Decide;
pub use two_looks::DecideInTwoLooks;
