//! The steps of an outlet, of the writer of a store and of a processor, at which tests end or hold
//! the process.

/// A step of an outlet, of the writer of a partition of a store, or of a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
#[cfg_attr(
    not(feature = "testing"),
    allow(unreachable_pub, reason = "it is named outside for tests alone")
)]
pub enum Step {
    /// Before its earlier owner is fenced.
    BeforeFence,
    /// Before a transaction begins.
    BeforeBegin,
    /// Records and mark are queued, and may have been sent.
    AfterSend,
    /// All was acknowledged and nothing was committed.
    BeforeCommit,
    /// The broker has committed, and the log is not read on yet.
    AfterCommit,
    /// A processor has read the first record of a batch.
    AfterRead,
}

#[cfg(feature = "testing")]
static HOOK: std::sync::OnceLock<fn(Step)> = std::sync::OnceLock::new();

/// Calls this at each step of every outlet, store and processor of the process, from now on; the
/// first call counts.
///
/// ```
/// use annals_kafka::testing::{Step, at_steps};
///
/// at_steps(|step| {
///     if step == Step::BeforeCommit {
///         eprintln!("a transaction is about to be committed");
///     }
/// });
/// ```
#[cfg(feature = "testing")]
pub fn at_steps(hook: fn(Step)) {
    // A second hook would change the meaning of the first.
    let _ = HOOK.set(hook);
}

/// Has come to a step.
pub(crate) fn reached(step: Step) {
    #[cfg(feature = "testing")]
    if let Some(hook) = HOOK.get() {
        hook(step);
    }
    #[cfg(not(feature = "testing"))]
    let _ = step;
}
