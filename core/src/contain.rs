//! One net around all code of users: a panic becomes a reason, and the worker goes on.

use std::any::Any;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;

use crate::error::panic_text;

/// What a closure gives, or what it said when it panicked.
///
/// Whatever it changed before the panic must be thrown away by the caller.
///
/// # Errors
///
/// The text of the panic.
///
/// ```
/// use annals_core::contained;
///
/// assert_eq!(contained(|| 3), Ok(3));
/// assert!(contained(|| -> u8 { panic!("no rate") }).is_err());
/// ```
pub fn contained<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    said(run).map_err(handler_panicked)
}

/// As [`contained`], with nothing before what the panic said.
pub(crate) fn said<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(reason)
}

/// Code of the application that panicked in a command or a read. What it had begun to change was
/// thrown away.
///
/// ```
/// # fn example(panicked: &annals_core::Panicked) {
/// println!("{panicked}");
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code} panicked: {reason}")]
pub struct Panicked {
    code: String,
    reason: String,
}

impl Panicked {
    /// Which code it was, with the type, and the event where there is one.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// What the panic said.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// What a closure gives, or which code panicked in it.
pub(crate) fn net<T, C: fmt::Display>(
    code: impl FnOnce() -> C,
    run: impl FnOnce() -> T,
) -> Result<T, Panicked> {
    said(run).map_err(|reason| Panicked {
        code: code().to_string(),
        reason,
    })
}

/// What a future gives, or what it said when it panicked.
///
/// # Errors
///
/// The text of the panic.
///
/// ```
/// # async fn example() {
/// assert_eq!(annals_core::contained_async(async { 3 }).await, Ok(3));
/// # }
/// ```
pub async fn contained_async<F: Future>(future: F) -> Result<F::Output, String> {
    let mut inside = Inside(Some(Box::pin(future)));
    poll_fn(move |context| {
        let Some(future) = inside.0.as_mut() else {
            return Poll::Pending;
        };
        // A future that panicked is not polled again, so nothing half-changed is seen.
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => Poll::Ready(Err(handler_panicked(reason(panic)))),
        }
    })
    .await
}

/// A future whose end is contained, too: it may be dropped long before it is done.
struct Inside<F>(Option<Pin<Box<F>>>);

impl<F> Drop for Inside<F> {
    fn drop(&mut self) {
        let future = self.0.take();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(future))) {
            let said = reason(panic);
            tracing::warn!(said, "code of the application panicked when it was dropped");
        }
    }
}

/// What was said in a panic.
fn reason(panic: Box<dyn Any + Send>) -> String {
    let text = panic_text(&*panic).to_owned();
    // The payload may be anything, and dropping it may panic once more.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(panic)));
    text
}

fn handler_panicked(reason: String) -> String {
    format!("the handler panicked: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct PanicsOnDrop;

    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }

    #[tokio::test]
    async fn a_panic_becomes_its_message() {
        assert_eq!(
            contained(|| -> u8 { panic!("at {}", 7) }),
            Err("the handler panicked: at 7".into())
        );
        assert_eq!(
            contained_async(async { panic!("later") as u8 }).await,
            Err("the handler panicked: later".into())
        );
        assert_eq!(contained_async(async { 3 }).await, Ok(3));
    }

    #[tokio::test]
    async fn a_future_that_panics_when_dropped_is_contained() {
        let hangs = async {
            let _held = PanicsOnDrop;
            std::future::pending::<()>().await;
        };
        let mut contained = Box::pin(contained_async(hangs));
        assert!(futures_poll(&mut contained).is_pending());
        drop(contained);
    }

    fn futures_poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        Pin::new(future).poll(&mut context)
    }

    #[test]
    fn a_payload_that_panics_when_dropped_is_contained() {
        let said = contained(|| std::panic::panic_any(PanicsOnDrop));
        assert_eq!(said, Err("the handler panicked: without a message".into()));
    }
}
