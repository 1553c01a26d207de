//! What a session receives while what came before is appended: frames wait in memory, with a bound
//! in bytes, so that under load the next append holds as many transactions as there are.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use pgwire_replication::ReplicationClient;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::pgwire::received;
use super::transport::Frame;
use crate::ingest::SourceError;
use crate::lsn::Lsn;

/// Bytes of frames that wait. As many may be taken, and the client holds some frames of its own.
/// When it is full the server waits.
const WAITING_BYTES: usize = 1 << 20;

/// So many frames at most are taken from the client at once: about as many as it holds.
const TOGETHER: usize = 64;

/// What a frame takes beside its content.
const FRAME_BYTES: usize = 64;

type Received = Result<Frame, SourceError>;

/// A client that streams, in a task of its own.
pub(super) struct Pump {
    waiting: Arc<Waiting>,
    /// What was taken out of `waiting` together.
    taken: VecDeque<Received>,
    confirmed: watch::Sender<Lsn>,
    ends: watch::Sender<bool>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Waiting {
    frames: Mutex<Frames>,
    arrived: Notify,
    has_room: Notify,
}

#[derive(Default)]
struct Frames {
    frames: VecDeque<Received>,
    bytes: usize,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Frames> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, received: &mut Vec<Received>) {
        let bytes = |of: &Received| FRAME_BYTES + of.as_ref().map_or(0, Frame::content_bytes);
        let mut waiting = self.lock();
        waiting.bytes += received.iter().map(bytes).sum::<usize>();
        waiting.frames.extend(received.drain(..));
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Takes all that waits.
    fn take(&self, taken: &mut VecDeque<Received>) {
        let mut waiting = self.lock();
        std::mem::swap(taken, &mut waiting.frames);
        waiting.bytes = 0;
        drop(waiting);
        self.has_room.notify_one();
    }

    async fn room(&self) {
        while self.lock().bytes >= WAITING_BYTES {
            self.has_room.notified().await;
        }
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Pump {
    pub(super) fn start(client: ReplicationClient) -> Pump {
        let waiting = Arc::new(Waiting::default());
        let (confirmed, confirms) = watch::channel(Lsn::ZERO);
        let (ends, ended) = watch::channel(false);
        Pump {
            task: tokio::spawn(run(client, Arc::clone(&waiting), confirms, ended)),
            waiting,
            taken: VecDeque::new(),
            confirmed,
            ends,
        }
    }

    /// A frame that is there already.
    pub(super) fn try_next(&mut self) -> Option<Received> {
        if self.taken.is_empty() {
            self.waiting.take(&mut self.taken);
        }
        self.taken.pop_front()
    }

    /// Waits for the next frame; after an error for ever, as the session has ended.
    pub(super) async fn next(&mut self) -> Received {
        loop {
            if let Some(received) = self.try_next() {
                return received;
            }
            self.waiting.arrived.notified().await;
        }
    }

    pub(super) fn confirm(&self, up_to: Lsn) {
        self.confirmed.send_replace(up_to);
    }

    /// Ends the stream in order.
    pub(super) async fn end(&mut self) {
        self.ends.send_replace(true);
        let _ = (&mut self.task).await;
    }
}

/// A client that does not go on without its pump.
struct Streaming(ReplicationClient);

impl Drop for Streaming {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Streaming {
    /// Waits for a frame, and takes those that are there with it. Says whether more may come.
    /// What was received is in `waiting` when this is dropped.
    async fn receive(&mut self, waiting: &Waiting) -> bool {
        waiting.room().await;
        let mut frames = vec![received(self.0.recv().await)];
        // There is no point at which it could be dropped from here on.
        while frames.len() < TOGETHER && frames.last().is_some_and(Result::is_ok) {
            match self.0.recv().now_or_never() {
                Some(event) => frames.push(received(event)),
                None => break,
            }
        }
        let is_open = frames.last().is_some_and(Result::is_ok);
        waiting.push(&mut frames);
        is_open
    }
}

async fn run(
    client: ReplicationClient,
    waiting: Arc<Waiting>,
    mut confirms: watch::Receiver<Lsn>,
    mut ended: watch::Receiver<bool>,
) {
    let mut client = Streaming(client);
    let mut is_open = true;
    loop {
        tokio::select! {
            biased;
            changed = confirms.changed() => {
                if changed.is_err() {
                    return;
                }
                let up_to = *confirms.borrow_and_update();
                let up_to = pgwire_replication::Lsn::from_u64(up_to.get());
                client.0.update_applied_lsn(up_to);
            }
            _ = ended.changed() => break,
            open = client.receive(&waiting), if is_open => is_open = open,
        }
    }
    // What it does at its end has no answer that matters.
    let _ = client.0.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_wait_up_to_a_bound_in_bytes() {
        let waiting = Waiting::default();
        let row = |bytes: usize| Ok(Frame::Data(vec![0; bytes].into()));
        waiting.push(&mut vec![row(WAITING_BYTES / 2)]);
        assert!(waiting.room().now_or_never().is_some());
        waiting.push(&mut vec![row(1), row(WAITING_BYTES / 2)]);
        assert!(waiting.room().now_or_never().is_none());
        let mut taken = VecDeque::new();
        waiting.take(&mut taken);
        assert_eq!(taken.len(), 3);
        assert!(waiting.room().now_or_never().is_some());
    }
}
