//! Hints between processes: `listen` and `notify`, and a poll of the head every so often.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

/// At least so long between two notifications: while much is appended, one for each commit costs
/// more than it is worth.
const NOTIFY_EVERY: Duration = Duration::from_millis(3);

/// At least so long until it is asked again whether a process listens, after none did; each time
/// that none does, twice as long.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// At most so long: with many processes that append, each of which asks, asking would cost as much
/// as appending. The first hint to one that begins to listen comes at most so much later.
const ASK_EVERY_MAX: Duration = Duration::from_millis(160);

/// How often a process waits for others to notify before it does so itself.
const WAITS_MAX: u32 = 3;

/// Notifications are accepted up to so far beyond what is known, so that a forged one can cost no
/// more than some hints.
const NOTIFIED_BEYOND_MAX: u64 = 10_000;

/// How far the log is known to go, for those who wait for it to move.
#[derive(Clone, Debug)]
pub(crate) struct Moves {
    /// Of every process.
    seen: watch::Sender<u64>,
    /// Of what this process appended: others are notified of it.
    own: watch::Sender<u64>,
    /// Whether anybody has ever waited for the log to move.
    awaited: watch::Sender<bool>,
    /// How long this process gives way when another one notifies, so that not all of them notify
    /// at once.
    gives_way: Duration,
    notified: Arc<Mutex<Notified>>,
}

/// The last notification, of this or another process.
#[derive(Debug, Default)]
struct Notified {
    head: u64,
    /// When the next one may be sent.
    next: Option<Instant>,
}

impl Moves {
    pub(crate) fn new() -> Moves {
        Moves {
            seen: watch::channel(0).0,
            own: watch::channel(0).0,
            awaited: watch::channel(false).0,
            gives_way: NOTIFY_EVERY * u32::from(RandomState::new().hash_one(0) as u8) / 256,
            notified: Arc::default(),
        }
    }

    /// The log has been appended to up to here.
    pub(crate) fn saw(&self, head: u64) {
        raise(&self.seen, head);
    }

    /// This process has appended up to here.
    pub(crate) fn appended(&self, head: u64) {
        raise(&self.seen, head);
        raise(&self.own, head);
    }

    /// The log has another incarnation, which goes to here.
    pub(crate) fn begin_at(&self, head: u64) {
        self.seen.send_replace(head);
        self.own.send_replace(head);
        *self.notified() = Notified::default();
    }

    /// Sees every move from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.awaited
            .send_if_modified(|awaited| !std::mem::replace(awaited, true));
        self.seen.subscribe()
    }

    /// Returns when a reader waits for the log to move, or has.
    async fn awaited(&self) {
        // It cannot end before: this is a sender.
        let _ = self.awaited.subscribe().wait_for(|awaited| *awaited).await;
    }

    fn seen(&self) -> u64 {
        *self.seen.borrow()
    }

    /// Whether anybody waits for the log to move.
    fn is_awaited(&self) -> bool {
        self.seen.receiver_count() > 0
    }

    fn notified(&self) -> MutexGuard<'_, Notified> {
        self.notified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All processes are notified of `head`; the next notification is sent after the pause.
    fn notify(&self, head: u64, pause: Duration) {
        let mut notified = self.notified();
        *notified = Notified {
            head: notified.head.max(head),
            next: Some(Instant::now() + pause),
        };
    }

    /// Another process has notified all, if that is plausible.
    fn received(&self, head: u64) {
        if head <= self.seen().saturating_add(NOTIFIED_BEYOND_MAX) {
            self.notify(head, NOTIFY_EVERY + self.gives_way);
        }
    }

    /// Until when to wait before others are notified of `head`; nothing when they were.
    fn due(&self, head: u64) -> Option<Instant> {
        let last = self.notified();
        (last.head < head).then(|| last.next.unwrap_or_else(Instant::now))
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
    /// Watches the log whose channel is `channel`; what is received goes into `moves`, and what
    /// this process appends is notified from it.
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
            tasks.push(tokio::spawn(notify_others(
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

/// Notifies the others, once for everything that was appended since the last time, on a connection
/// that appends nothing. What another process notifies of meanwhile is not repeated: with many that
/// append, each of which would wake all, little else were done.
async fn notify_others(
    database: Arc<Database>,
    channel: String,
    moves: Moves,
    mut own: watch::Receiver<u64>,
) {
    let mut pause = Duration::ZERO;
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
            moves.notify(head, NOTIFY_EVERY);
            let sent = query(database.text(sql::NOTIFY))
                .bind(&channel)
                .bind(head.to_string())
                .fetch_optional(&database.pool)
                .await;
            match sent {
                Ok(Some(_)) => pause = Duration::ZERO,
                Ok(None) => {
                    pause = longer(pause);
                    moves.notify(head, pause);
                }
                // They poll every so often.
                Err(error) => tracing::debug!(%error, "could not notify others of the head"),
            }
        }
    }
}

/// How long until it is asked again whether a process listens, after this pause.
fn longer(pause: Duration) -> Duration {
    (pause * 2).clamp(ASK_EVERY, ASK_EVERY_MAX)
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
                self.until_awaited().await;
                match self.listen().await {
                    Ok(()) => pause = self.interval,
                    Err(error) => {
                        tracing::debug!(%error, "the connection that listens was lost");
                        pause = (pause * 2).min(RECONNECT_MAX);
                    }
                }
                // Without a connection that listens it polls as often as one that cannot.
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

    /// Looks now and then until anybody waits for the log to move. Before that it does not listen:
    /// each notification wakes all processes that do.
    async fn until_awaited(&self) {
        let pause = self.interval * LISTENING;
        while tokio::time::timeout(pause, self.moves.awaited())
            .await
            .is_err()
        {
            self.look().await;
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
        query(self.database.text(sql::LISTENS))
            .execute(&mut listener)
            .await?;
        // What was appended until now was notified to the others.
        let head = query(self.database.text(sql::HEAD))
            .fetch_one(&mut listener)
            .await?;
        self.moves.saw(number(&head, 0)?);
        loop {
            match tokio::time::timeout(self.interval * LISTENING, listener.try_recv()).await {
                Ok(Ok(Some(notification))) => {
                    // Only a hint: any role that can connect may send anything.
                    let Ok(head) = notification.payload().parse::<u64>() else {
                        continue;
                    };
                    if head > self.moves.seen() && self.moves.is_awaited() {
                        let row = query(self.database.text(sql::HEAD))
                            .fetch_one(&mut listener)
                            .await?;
                        self.moves.saw(number(&row, 0)?);
                    }
                    self.moves.received(head);
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
        // Through a pooler no connection is lost when its server is another one, so each poll asks
        // for the history. A failure will show when something is read.
        if let Ok(head) = self.database.check_history().await {
            self.moves.saw(head);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notifications_are_immediate_at_first_and_then_spaced() {
        let moves = Moves::new();
        assert!(moves.due(1).unwrap() <= Instant::now());
        moves.notify(1, NOTIFY_EVERY);
        assert!(moves.due(2).unwrap() > Instant::now());
        assert_eq!(moves.due(2), moves.notified().next);
    }

    #[test]
    fn while_none_listens_that_is_asked_ever_less_often() {
        let mut pause = Duration::ZERO;
        let pauses = [(); 5].map(|()| {
            pause = longer(pause);
            pause.as_millis()
        });
        assert_eq!(pauses, [20, 40, 80, 160, 160]);
    }

    #[tokio::test]
    async fn nothing_is_listened_to_before_anybody_waits() {
        let moves = Moves::new();
        let waiting = tokio::spawn({
            let moves = moves.clone();
            async move { moves.awaited().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(moves.subscribe());
        waiting.await.unwrap();
    }

    #[test]
    fn what_another_notified_is_not_repeated() {
        let moves = Moves::new();
        moves.appended(7);
        moves.received(9);
        assert_eq!((moves.due(7), moves.due(9)), (None, None));
        assert!(moves.due(10).is_some());
    }

    #[test]
    fn a_forged_notification_suppresses_none() {
        let moves = Moves::new();
        moves.appended(7);
        for forged in [7 + NOTIFIED_BEYOND_MAX + 1, u64::MAX] {
            moves.received(forged);
            assert!(moves.due(8).is_some(), "{forged}");
        }
    }

    #[test]
    fn what_others_appended_is_seen_and_not_notified_for_them() {
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
