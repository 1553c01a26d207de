//! The local copy of a partition, and the folder that one process has for itself.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_core::{Clock, Failure, Limits, LogId, StoreError};
use annals_sqlite::{Options, SqliteStore};

use crate::error::invalid;

/// How long the folder may be another's: one that was closed just now ends its last transaction.
const LOCKED: Duration = Duration::from_secs(15);

/// How often it is tried again.
const AGAIN: Duration = Duration::from_millis(20);

/// How often a copy looks whether another process wrote to its file: none does.
const POLL: Duration = Duration::from_secs(60);

/// A folder that no other process uses.
#[derive(Debug)]
pub(super) struct Folder {
    /// Locked as long as it is open.
    _lock: File,
}

impl Folder {
    pub(super) async fn lock(path: &Path) -> Result<Arc<Folder>, StoreError> {
        let shown = path.display();
        let cannot = |error: std::io::Error| {
            let context = format!("the local copy in `{shown}` cannot be used");
            StoreError::new(Failure::Unavailable, context).because(error)
        };
        std::fs::create_dir_all(path).map_err(cannot)?;
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join("lock"))
            .map_err(cannot)?;
        let began = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(cannot(error)),
                Err(TryLockError::WouldBlock) if began.elapsed() < LOCKED => {
                    tokio::time::sleep(AGAIN).await;
                }
                Err(TryLockError::WouldBlock) => {
                    let mut process = String::new();
                    // It is a courtesy.
                    let _ = file.read_to_string(&mut process);
                    return Err(invalid(format!(
                        "the local copy in `{shown}` is used by process {}; give this one another \
                         place with `local=`",
                        process.trim()
                    )));
                }
            }
        }
        let written = file
            .set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(cannot)?;
        Ok(Arc::new(Folder { _lock: file }))
    }
}

/// The copy of one partition. Closing it may wait for a transaction that is under way, so that is
/// done by a thread of its own.
#[derive(Debug)]
pub(super) struct Copy {
    store: Option<SqliteStore>,
    folder: Arc<Folder>,
}

impl Copy {
    pub(super) async fn open(
        path: &Path,
        partition: u32,
        folder: Arc<Folder>,
        log: LogId,
        limits: Limits,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Copy>, StoreError> {
        let options = Options::file(path.join(format!("{partition}.db")))
            .replica_of(log)
            // What a power cut takes is read again.
            .relaxed_durability()
            .poll_interval(POLL)
            .limits(limits)
            .clock(clock);
        let store = SqliteStore::open_with(options).await?;
        Ok(Arc::new(Copy {
            store: Some(store),
            folder,
        }))
    }

    pub(super) fn store(&self) -> Result<&SqliteStore, StoreError> {
        let closed = || StoreError::new(Failure::Closed, "the local copy was closed");
        self.store.as_ref().ok_or_else(closed)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let store = self.store.take();
        let folder = Arc::clone(&self.folder);
        let close = move || {
            drop(store);
            drop(folder);
        };
        let closing = std::thread::Builder::new()
            .name("kafka-store-close".into())
            .spawn(close);
        if let Err(error) = closing {
            tracing::debug!(%error, "a local copy was closed where it was dropped");
        }
    }
}
