//! The steps of an outlet and of the writer of a store, at which tests end or hold the process.

/// A step of an outlet, or of the writer of a partition of a store.
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
}

#[cfg(feature = "testing")]
static HOOK: std::sync::OnceLock<fn(Step)> = std::sync::OnceLock::new();

/// Calls this at each step of every outlet and store of the process, from now on; the first call
/// counts.
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

/// An outlet has come to a step.
pub(crate) fn reached(step: Step) {
    #[cfg(feature = "testing")]
    if let Some(hook) = HOOK.get() {
        hook(step);
    }
    #[cfg(not(feature = "testing"))]
    let _ = step;
}
