//! Clearing away what was dropped or forgotten, a little at a time, so that nobody waits long for it.

use std::sync::Arc;
use std::time::Duration;

use sqlx::query_scalar;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::database::Database;
use crate::statements as sql;

/// So many rows are cleared away in one transaction, of a few milliseconds.
const ROWS: i32 = 2_000;
/// How long to wait when the server does not answer.
const PAUSE: Duration = Duration::from_secs(5);

/// A task that clears away, and ends when this is dropped. Two of them, in two processes, leave each other's work alone.
#[derive(Debug)]
pub(super) struct Sweeper {
    task: JoinHandle<()>,
    wanted: Arc<Notify>,
}

impl Sweeper {
    /// Begins with what others left behind.
    pub(super) fn start(database: &Arc<Database>) -> Sweeper {
        let wanted = Arc::new(Notify::new());
        wanted.notify_one();
        let task = tokio::spawn(sweep(Arc::clone(database), Arc::clone(&wanted)));
        Sweeper { task, wanted }
    }

    /// Something was dropped or forgotten.
    pub(super) fn wake(&self) {
        self.wanted.notify_one();
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn sweep(database: Arc<Database>, wanted: Arc<Notify>) {
    loop {
        wanted.notified().await;
        loop {
            match query_scalar::<_, bool>(database.text(sql::CLEAR_AWAY)).bind(ROWS).fetch_one(&database.pool).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::debug!(%error, "what was dropped is not cleared away yet");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}
