//! Taking events out of a log, exactly once: one fenced writer with a progress record.

mod ends;
mod last;
mod mark;
mod progress;
mod topic;
mod writer;

pub use writer::KafkaOutlet;
