//! Taking events out of a log, exactly once: one fenced writer with a progress record.

mod mark;
mod progress;
mod writer;

pub use writer::KafkaOutlet;
