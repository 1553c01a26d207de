//! Hearing of what other processes commit, and telling them: `listen` and `notify` as a hint, and a look at the head every so often.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};
use sqlx::{Error, query};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::database::Database;
use crate::options::Options;
use crate::row::number;
use crate::statements as sql;

/// How much less often a store looks that also listens.
const LISTENING: u32 = 20;

/// How long to wait before listening again after the connection was lost, at most.
const RECONNECT_MAX: Duration = Duration::from_secs(5);

/// Two tasks that end when this is dropped.
#[derive(Debug)]
pub(crate) struct Watcher {
    tasks: Vec<JoinHandle<()>>,
}

impl Watcher {
    /// Watches the log whose channel is `channel`; what is heard goes into `moved`, and what this process appends is told from it.
    pub(crate) fn start(
        database: &Arc<Database>,
        options: &Options,
        channel: String,
        moved: &watch::Sender<u64>,
    ) -> Watcher {
        let mut tasks = Vec::new();
        let watching = Watching {
            database: Arc::clone(database),
            channel: channel.clone(),
            moved: moved.clone(),
            listens: options.listen,
            interval: options.poll_interval,
        };
        tasks.push(tokio::spawn(watching.watch()));
        if !options.read_only {
            tasks.push(tokio::spawn(tell(Arc::clone(database), channel, moved.subscribe())));
        }
        Watcher { tasks }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Tells the others, once for everything that was appended since the last time, on a connection that appends nothing.
async fn tell(database: Arc<Database>, channel: String, mut moved: watch::Receiver<u64>) {
    while moved.changed().await.is_ok() {
        let head = *moved.borrow_and_update();
        let told =
            query(database.text(sql::NOTIFY)).bind(&channel).bind(head.to_string()).execute(&database.pool).await;
        if let Err(error) = told {
            // They look every so often.
            tracing::debug!(%error, "others could not be told that the head moved");
        }
    }
}

struct Watching {
    database: Arc<Database>,
    channel: String,
    moved: watch::Sender<u64>,
    listens: bool,
    interval: Duration,
}

impl Watching {
    async fn watch(self) {
        let mut pause = self.interval;
        loop {
            if self.listens {
                match self.listen().await {
                    Ok(()) => pause = self.interval,
                    Err(error) => {
                        tracing::debug!(%error, "the connection that listens was lost");
                        pause = (pause * 2).min(RECONNECT_MAX);
                    }
                }
                // While nobody listens it is looked as often as if nobody could.
                let until = tokio::time::Instant::now() + pause;
                while tokio::time::Instant::now() < until {
                    tokio::time::sleep(self.interval.min(pause)).await;
                    self.look().await;
                }
            } else {
                tokio::time::sleep(self.interval).await;
                self.look().await;
            }
        }
    }

    /// Listens until the connection is lost. A look through the same connection, every so often, notices when it is.
    async fn listen(&self) -> Result<(), Error> {
        let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(self.database.connect_options());
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.eager_reconnect(false);
        listener.listen(&self.channel).await?;
        loop {
            match tokio::time::timeout(self.interval * LISTENING, listener.try_recv()).await {
                Ok(Ok(Some(notification))) => {
                    // What is said is only a hint: whoever may send it may send anything.
                    if notification.payload().parse().is_ok_and(|head: u64| head > *self.moved.borrow()) {
                        let row = query(self.database.text(sql::HEAD)).fetch_one(&mut listener).await?;
                        self.saw(number(&row, 0)?);
                    }
                }
                Ok(Ok(None)) => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    let row = tokio::time::timeout(
                        self.interval * LISTENING * 2,
                        query(self.database.text(sql::HEAD)).fetch_one(&mut listener),
                    );
                    let row = row.await.map_err(|_| Error::PoolTimedOut)??;
                    self.saw(number(&row, 0)?);
                }
            }
        }
    }

    async fn look(&self) {
        // A failure to look will show when something is read.
        if let Ok(row) = query(self.database.text(sql::HEAD)).fetch_one(&self.database.pool).await
            && let Ok(head) = number(&row, 0)
        {
            self.saw(head);
        }
    }

    fn saw(&self, head: u64) {
        self.moved.send_if_modified(|known| {
            let is_new = *known < head;
            *known = head.max(*known);
            is_new
        });
    }
}
