//! Noticing what others commit, for a store that was opened read-only and has no writer thread.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use annals_core::{Failure, StoreError};
use rusqlite::Connection;
use tokio::sync::watch;

use crate::identity::LogIdentity;

/// A thread that polls at an interval, until it is dropped.
#[derive(Debug)]
pub(crate) struct Watcher {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    pub(crate) fn start(
        connection: Connection,
        identity: Arc<LogIdentity>,
        interval: Duration,
        moved: watch::Sender<u64>,
    ) -> Result<Watcher, StoreError> {
        let (stop, stopped) = channel::<()>();
        let watch = move || {
            let mut seen: Option<i64> = None;
            while matches!(
                stopped.recv_timeout(interval),
                Err(RecvTimeoutError::Timeout)
            ) {
                if identity.fault().is_none() && identity.check_files().is_err() {
                    moved.send_modify(|count| *count = count.wrapping_add(1));
                }
                // A poll that fails shows in the next read.
                let found = connection
                    .pragma_query_value(None, "data_version", |row| row.get(0))
                    .ok();
                if found != seen {
                    seen = found;
                    moved.send_modify(|count| *count = count.wrapping_add(1));
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("annals-sqlite-watcher".into())
            .spawn(watch);
        let thread = thread.map_err(|error| {
            StoreError::new(Failure::Unavailable, "the watcher thread cannot be started")
                .because(error)
        })?;
        Ok(Watcher {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
