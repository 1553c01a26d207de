//! Callers that are cancelled.

use std::future::{Future, poll_fn};
use std::task::Poll;

/// Polls the future `polls` times, each time when it asks for it, and drops it: what a caller does
/// who is cancelled there. Its answer, if it had one by then.
///
/// ```
/// use annals_core::conformance::drop_after;
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// assert_eq!(drop_after(1, tokio::task::yield_now()).await, None);
/// assert_eq!(drop_after(2, tokio::task::yield_now()).await, Some(()));
/// # });
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub async fn drop_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = Box::pin(future);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
