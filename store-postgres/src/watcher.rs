//! Hearing of what other processes commit, and telling them: `listen` and `notify` as a hint, and a
//! look at the head every so often.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};
use sqlx::{Error, query};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::database::Database;
use crate::options::Options;
use crate::row::number;
use crate::statements as sql;

/// How much less often a store looks that also listens.
const LISTENING: u32 = 20;

/// How long to wait before listening again after the connection was lost, at most.
const RECONNECT_MAX: Duration = Duration::from_secs(5);

/// At least so long between two times that somebody tells: while much is appended, to tell of each
/// commit costs more than it is worth.
const TELL_EVERY: Duration = Duration::from_millis(3);

/// How often one waits for others who tell before one tells oneself.
const WAITS_MAX: u32 = 3;

/// What others tell is believed up to so far beyond what is known, so that a lie can cost them no
/// more than some hints.
const BELIEVED: u64 = 10_000;

/// How far the log is known to go, for those who wait for it to move.
#[derive(Clone, Debug)]
pub(crate) struct Moves {
    /// Whoever appended.
    seen: watch::Sender<u64>,
    /// Of what this process appended: others are told of it.
    own: watch::Sender<u64>,
    told: Arc<Mutex<Told>>,
}

/// What everybody who listens has been told, here or elsewhere.
#[derive(Debug, Default)]
struct Told {
    head: u64,
    at: Option<Instant>,
}

impl Moves {
    pub(crate) fn new() -> Moves {
        Moves {
            seen: watch::channel(0).0,
            own: watch::channel(0).0,
            told: Arc::default(),
        }
    }

    /// Somebody has appended up to here.
    pub(crate) fn saw(&self, head: u64) {
        raise(&self.seen, head);
    }

    /// This process has appended up to here.
    pub(crate) fn appended(&self, head: u64) {
        raise(&self.seen, head);
        raise(&self.own, head);
    }

    /// The log has another history, which goes to here.
    pub(crate) fn begin_at(&self, head: u64) {
        self.seen.send_replace(head);
        self.own.send_replace(head);
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Told::default();
    }

    /// Sees every move from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.seen.subscribe()
    }

    fn seen(&self) -> u64 {
        *self.seen.borrow()
    }

    /// Whether anybody waits for the log to move.
    fn is_awaited(&self) -> bool {
        self.seen.receiver_count() > 0
    }

    /// Everybody is told.
    fn told(&self, head: u64) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        *told = Told {
            head: told.head.max(head),
            at: Some(Instant::now()),
        };
    }

    /// Another process has told everybody, if that can be believed.
    fn heard(&self, head: u64) {
        if head <= self.seen().saturating_add(BELIEVED) {
            self.told(head);
        }
    }

    /// Until when to wait before others are told of `head`; nothing when they know.
    fn due(&self, head: u64) -> Option<Instant> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        (told.head < head).then(|| told.at.map_or_else(Instant::now, |at| at + TELL_EVERY))
    }
}

fn raise(known: &watch::Sender<u64>, head: u64) {
    known.send_if_modified(|known| {
        let is_new = *known < head;
        *known = head.max(*known);
        is_new
    });
}

/// Two tasks that end when this is dropped.
#[derive(Debug)]
pub(crate) struct Watcher {
    tasks: Vec<JoinHandle<()>>,
}

impl Watcher {
    /// Watches the log whose channel is `channel`; what is heard goes into `moves`, and what this
    /// process appends is told from it.
    pub(crate) fn start(
        database: &Arc<Database>,
        options: &Options,
        channel: String,
        moves: &Moves,
    ) -> Watcher {
        let mut tasks = Vec::new();
        let watching = Watching {
            database: Arc::clone(database),
            channel: channel.clone(),
            moves: moves.clone(),
            listens: options.listen,
            interval: options.poll_interval,
        };
        tasks.push(tokio::spawn(watching.watch()));
        if !options.read_only {
            tasks.push(tokio::spawn(tell(
                Arc::clone(database),
                channel,
                moves.clone(),
                moves.own.subscribe(),
            )));
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

/// Tells the others, once for everything that was appended since the last time, on a connection
/// that appends nothing. What another process tells meanwhile is not told again: with many that
/// append, each of which would wake all, little else were done.
async fn tell(
    database: Arc<Database>,
    channel: String,
    moves: Moves,
    mut own: watch::Receiver<u64>,
) {
    while own.changed().await.is_ok() {
        let mut waits = 0;
        loop {
            let head = *own.borrow_and_update();
            let Some(due) = moves.due(head) else { break };
            if Instant::now() < due && waits < WAITS_MAX {
                waits += 1;
                tokio::time::sleep_until(due).await;
                continue;
            }
            let head = moves.seen();
            moves.told(head);
            let told = query(database.text(sql::NOTIFY))
                .bind(&channel)
                .bind(head.to_string())
                .execute(&database.pool)
                .await;
            if let Err(error) = told {
                // They look every so often.
                tracing::debug!(%error, "others could not be told that the head moved");
            }
        }
    }
}

struct Watching {
    database: Arc<Database>,
    channel: String,
    moves: Moves,
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
                let until = Instant::now() + pause;
                while Instant::now() < until {
                    tokio::time::sleep(self.interval.min(pause)).await;
                    self.look().await;
                }
            } else {
                tokio::time::sleep(self.interval).await;
                self.look().await;
            }
        }
    }

    /// Listens until the connection is lost. A look through the same connection, every so often,
    /// notices when it is.
    async fn listen(&self) -> Result<(), Error> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .connect_lazy_with(self.database.connect_options());
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.eager_reconnect(false);
        listener.listen(&self.channel).await?;
        loop {
            match tokio::time::timeout(self.interval * LISTENING, listener.try_recv()).await {
                Ok(Ok(Some(notification))) => {
                    // What is said is only a hint: whoever may send it may send anything.
                    let Ok(told) = notification.payload().parse::<u64>() else {
                        continue;
                    };
                    if told > self.moves.seen() && self.moves.is_awaited() {
                        let row = query(self.database.text(sql::HEAD))
                            .fetch_one(&mut listener)
                            .await?;
                        self.moves.saw(number(&row, 0)?);
                    }
                    self.moves.heard(told);
                }
                Ok(Ok(None)) => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    let database = &self.database;
                    let look = database.incarnation.check(database, &mut listener, false);
                    let looked = tokio::time::timeout(self.interval * LISTENING * 2, look).await;
                    self.moves.saw(looked.map_err(|_| Error::PoolTimedOut)??);
                }
            }
        }
    }

    async fn look(&self) {
        // Through a pooler no connection is lost when the server behind it is another one, so each
        // look asks for the history. A failure to look will show when something is read.
        if let Ok(head) = self.database.check_history().await {
            self.moves.saw(head);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_told_at_once_and_then_no_sooner_than_after_a_while() {
        let moves = Moves::new();
        assert!(moves.due(1).unwrap() <= Instant::now());
        moves.told(1);
        let told = moves.told.lock().unwrap().at.unwrap();
        assert_eq!(moves.due(2), Some(told + TELL_EVERY));
    }

    #[test]
    fn what_another_has_told_is_not_told_again() {
        let moves = Moves::new();
        moves.appended(7);
        moves.heard(9);
        assert_eq!((moves.due(7), moves.due(9)), (None, None));
        assert!(moves.due(10).is_some());
    }

    #[test]
    fn a_lie_keeps_nobody_from_telling() {
        let moves = Moves::new();
        moves.appended(7);
        for lie in [7 + BELIEVED + 1, u64::MAX] {
            moves.heard(lie);
            assert!(moves.due(8).is_some(), "{lie}");
        }
    }

    #[test]
    fn what_others_appended_is_seen_and_not_told_for_them() {
        let moves = Moves::new();
        let seen = moves.subscribe();
        let own = moves.own.subscribe();
        moves.saw(5);
        assert_eq!((*seen.borrow(), *own.borrow()), (5, 0));
        moves.appended(6);
        moves.saw(4);
        assert_eq!((*seen.borrow(), *own.borrow()), (6, 6));
    }
}
