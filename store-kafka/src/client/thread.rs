//! A thread that owns something that blocks, and does what it is asked one after another.

use annals_core::StoreError;
use tokio::sync::{mpsc, oneshot};

use crate::error::unavailable;

/// The most requests that wait; the caller of one more waits too.
const QUEUED_MAX: usize = 64;

type Job<C> = Box<dyn FnOnce(&mut C) + Send>;

/// A handle to it. The owned value is dropped on its thread when the last handle is gone.
pub(crate) struct ClientThread<C> {
    name: String,
    jobs: mpsc::Sender<Job<C>>,
}

impl<C: 'static> ClientThread<C> {
    /// Starts a thread that owns what `make` returns, which is called there.
    pub(crate) fn start(
        name: impl Into<String>,
        make: impl FnOnce() -> C + Send + 'static,
    ) -> Result<Self, StoreError> {
        let name = name.into();
        let (jobs, mut queue) = mpsc::channel::<Job<C>>(QUEUED_MAX);
        std::thread::Builder::new()
            .name(name.clone())
            .spawn(move || {
                let mut client = make();
                while let Some(job) = queue.blocking_recv() {
                    job(&mut client);
                }
            })
            .map_err(|error| unavailable(format!("no thread for {name}")).because(error))?;
        Ok(Self { name, jobs })
    }

    /// Does the work on the thread, after what was asked before.
    ///
    /// Dropping the future does not take back what was begun.
    pub(crate) async fn call<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut C) -> R + Send + 'static,
    ) -> Result<R, StoreError> {
        let gone = || unavailable(format!("the thread of {} ended", self.name));
        let (answer, answered) = oneshot::channel();
        let job: Job<C> = Box::new(move |client| {
            // The caller may have been dropped.
            let _ = answer.send(work(client));
        });
        self.jobs.send(job).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())
    }
}

impl<C> std::fmt::Debug for ClientThread<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientThread")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_done_in_order_on_one_thread() {
        let thread = ClientThread::start("counter", || 0).unwrap();
        for expected in 1..=3 {
            let counted = thread.call(|count| {
                *count += 1;
                *count
            });
            assert_eq!(counted.await.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn a_panic_ends_the_thread_and_is_an_error() {
        let thread = ClientThread::start("broken", || ()).unwrap();
        assert!(thread.call(|()| panic!("no")).await.is_err());
        assert!(thread.call(|()| ()).await.is_err());
    }
}
