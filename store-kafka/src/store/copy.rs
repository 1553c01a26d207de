//! The local copy of a partition, and the folder that one process has for itself.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_core::{
    AppendError, ChangeStream, Clock, Failure, Limits, Log as _, LogPage, Partition, Position,
    ReadLog, StoreError,
};
use annals_sqlite::{Options, ReplicaEntry, ReplicaPlace, SqliteStore};

use super::follower::{CopyEnd, LastEvent, Source, grown, lost};
use super::layout::Identity;
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
    file: PathBuf,
    partition: u32,
}

impl Copy {
    pub(super) async fn open(
        path: &Path,
        partition: u32,
        folder: Arc<Folder>,
        topic: &Identity,
        limits: Limits,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Copy>, StoreError> {
        let file = path.join(format!("{partition}.db"));
        let options = Options::file(&file)
            .replica_of(topic.log())
            // What a power cut takes is read again.
            .relaxed_durability()
            .poll_interval(POLL)
            .limits(limits)
            .clock(clock);
        let mut copy = Copy {
            store: None,
            folder,
            file,
            partition,
        };
        match SqliteStore::open_with(options).await {
            Ok(store) => copy.store = Some(store),
            Err(error) if error.failure() == Failure::Invalid => {
                return Err(copy.had(topic).await.unwrap_or(error));
            }
            Err(error) => return Err(copy.explained(error)),
        }
        Ok(Arc::new(copy))
    }

    /// What a copy says of the topic when that had fewer partitions.
    async fn had(&self, topic: &Identity) -> Option<StoreError> {
        let options = Options::file(&self.file).read_only();
        let found = SqliteStore::open_with(options).await.ok()?.id();
        let had = (1..topic.partitions).find(|count| topic.log_with(*count) == found)?;
        Some(grown(&topic.name, had, topic.partitions))
    }

    pub(super) fn store(&self) -> Result<&SqliteStore, StoreError> {
        let closed = || StoreError::new(Failure::Closed, "the local copy was closed");
        self.store.as_ref().ok_or_else(closed)
    }

    pub(super) async fn replica_place(&self) -> Result<ReplicaPlace, StoreError> {
        self.told(self.store()?.replica_place().await)
    }

    pub(super) async fn read(&self, read: ReadLog) -> Result<LogPage, StoreError> {
        self.told(self.store()?.read(read).await)
    }

    /// What it ends with.
    pub(super) async fn end(&self, source: &Source) -> Result<CopyEnd, StoreError> {
        let place = self.replica_place().await?;
        let last = ReadLog::after(Position::START).limit(1).backward();
        let last = self.read(last.partition(Partition(0))).await?;
        let last = last.events.first();
        if let Some(last) = last {
            let belongs = source.partition_of(&last.stream);
            if belongs != source.partition {
                let why = format!("it ends with `{}`, of partition {belongs}", last.stream);
                return Err(self.is_of_another(&why));
            }
        }
        Ok(CopyEnd {
            cursor: place.cursor,
            event: last.map(|event| LastEvent {
                position: event.position,
                id: event.id,
                recorded_at: event.recorded_at,
            }),
            note: place.note,
        })
    }

    /// Refuses a copy that does not know the change which is at its end in the topic.
    pub(super) async fn check_change(
        &self,
        source: &Source,
        change: &ChangeStream,
    ) -> Result<(), StoreError> {
        let known = self.told(self.store()?.find_change(change.id).await)?;
        if known.is_none_or(|known| change.check_repeats(&known).is_err()) {
            let why = "another change of a stream is at the end of the copy";
            return Err(lost(source, why));
        }
        Ok(())
    }

    pub(super) async fn apply(
        &self,
        entries: Vec<ReplicaEntry>,
        cursor: u64,
    ) -> Result<(), StoreError> {
        let applied = self.store()?.apply(entries, cursor).await;
        self.told(applied.map_err(AppendError::into_store_error))
    }

    /// An answer of the copy; where the file is damaged, with what to do about a copy.
    pub(super) fn told<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        answer.map_err(|error| self.explained(error))
    }

    /// As [`Copy::told`].
    pub(super) fn told_append(&self, error: AppendError) -> AppendError {
        match error {
            AppendError::Store(error) => AppendError::Store(self.explained(error)),
            AppendError::Unknown(error) => AppendError::Unknown(self.explained(error)),
            error => error,
        }
    }

    /// A copy needs no backup: what it held is in the topic.
    fn explained(&self, error: StoreError) -> StoreError {
        if error.failure() != Failure::Corrupt {
            return error;
        }
        // What SQLite says of it, without what is to be done about a database that is no copy.
        let why = std::error::Error::source(&error).map(ToString::to_string);
        self.unusable(&why.unwrap_or_else(|| error.to_string()))
    }

    /// The file has the copy of another partition.
    fn is_of_another(&self, why: &str) -> StoreError {
        self.unusable(&format!("it is of another partition: {why}"))
    }

    fn unusable(&self, why: &str) -> StoreError {
        StoreError::new(
            Failure::Corrupt,
            format!(
                "the local copy of partition {}, `{}`, cannot be used: {why}. Stop this process \
                 and move the file away, with the two beside it that end in `-wal` and `-shm`: \
                 it is copied again from the topic",
                self.partition,
                self.file.display()
            ),
        )
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
