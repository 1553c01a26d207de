//! The server stops, crashes and comes back while programs use it: they recover by themselves, and
//! nothing acknowledged is lost.

// What must not fail is unwrapped, and the figures are shown.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod outage;
mod server;

/// Tests that need a server that may be stopped. They are skipped by this name where it may not.
mod server_restarts {
    use std::collections::HashSet;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};

    use annals_core::conformance::numbered::{Numbered, check, whole_log};
    use annals_core::{
        AppendError, EventStore, Failure, Log, Partition, Position, ReadLog, StoreError,
    };
    use annals_postgres::PostgresStore;

    use crate::outage::control;
    use crate::server::Schema;

    const TASKS: u64 = 8;

    /// How often the server goes away: every other time as in a crash.
    const ROUNDS: u64 = 6;

    /// A program that has not recovered by then never will.
    const FOR_EVER: Duration = Duration::from_secs(60);

    fn is_passing(error: &StoreError) -> bool {
        error.failure() == Failure::Unavailable
    }

    /// What the tasks have done, for the test to look at while they go on.
    #[derive(Debug, Default)]
    struct Committed {
        acknowledged: Mutex<HashSet<Numbered>>,
        errors: AtomicU64,
        followed: AtomicU64,
        stop: AtomicBool,
    }

    impl Committed {
        fn count(&self) -> usize {
            self.acknowledged.lock().unwrap().len()
        }

        /// Waits until so many appends more were acknowledged, and the reader has followed.
        async fn more(&self, count: usize) {
            let wanted = self.count() + count;
            let followed = self.followed.load(Ordering::Relaxed);
            let mut look = tokio::time::interval(Duration::from_millis(5));
            let waiting = async {
                while self.count() < wanted || self.followed.load(Ordering::Relaxed) <= followed {
                    look.tick().await;
                }
            };
            tokio::time::timeout(FOR_EVER, waiting)
                .await
                .expect("a process did not recover");
        }
    }

    async fn appends(store: PostgresStore, task: u64, done: Arc<Committed>) {
        let mut n = 0;
        // The server is not asked faster than this while it is away.
        let mut again = tokio::time::interval(Duration::from_millis(5));
        let mut is_unknown = false;
        while !done.stop.load(Ordering::Relaxed) {
            let numbered = Numbered { run: 1, task, n };
            match store.append(numbered.append()).await {
                Ok(_) => {
                    done.acknowledged.lock().unwrap().insert(numbered);
                    n += 1;
                    is_unknown = false;
                }
                Err(error) => {
                    let asked_again = match &error {
                        AppendError::Unknown(_) => true,
                        AppendError::Store(error) => is_passing(error),
                        _ => false,
                    };
                    assert!(asked_again, "{numbered:?}: {error:?}");
                    done.errors.fetch_add(1, Ordering::Relaxed);
                    is_unknown |= matches!(error, AppendError::Unknown(_));
                    again.tick().await;
                    // An error of the store says that nothing was written.
                    while !is_unknown && !done.stop.load(Ordering::Relaxed) {
                        match store.find(Partition(0), &[numbered.id(0)]).await {
                            Ok(found) => {
                                assert_eq!(found, [None], "{numbered:?}: {error:?}");
                                break;
                            }
                            Err(error) => assert!(is_passing(&error), "{error:?}"),
                        }
                        again.tick().await;
                    }
                }
            }
        }
    }

    /// Follows the log by its hints, and takes nothing but an outage for a reason to ask again.
    async fn follows(store: PostgresStore, done: Arc<Committed>) {
        let mut at = Position::START;
        let mut hint = store.hint();
        let mut again = tokio::time::interval(Duration::from_millis(5));
        loop {
            match store.read(ReadLog::after(at)).await {
                Ok(page) => {
                    for event in &page.events {
                        at = at.next();
                        assert_eq!(event.position, at, "skipped or repeated");
                    }
                    done.followed.store(at.get(), Ordering::Relaxed);
                    if page.end {
                        hint.wait(Duration::from_millis(50)).await;
                    }
                }
                Err(error) => {
                    assert!(is_passing(&error), "{error:?}");
                    again.tick().await;
                }
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn programs_recover_and_nothing_acknowledged_is_lost() {
        let schema = Schema::new();
        let store = schema.store().await;
        let done = Arc::new(Committed::default());
        let mut writers = tokio::task::JoinSet::new();
        for task in 0..TASKS {
            writers.spawn(appends(store.clone(), task, Arc::clone(&done)));
        }
        let following = tokio::spawn(follows(schema.store().await, Arc::clone(&done)));
        done.more(200).await;
        for round in 0..ROUNDS {
            let word = if round % 2 == 0 { "stop" } else { "kill" };
            control(word).await;
            let there = done.count();
            let errors = done.errors.load(Ordering::Relaxed);
            control("start").await;
            let back = Instant::now();
            done.more(200).await;
            println!(
                "after `{word}` with {there} appends acknowledged: {} callers heard of it, 200 \
                 more appends {:?} after the server was back",
                done.errors.load(Ordering::Relaxed) - errors,
                back.elapsed(),
            );
        }
        done.stop.store(true, Ordering::Relaxed);
        while let Some(written) = writers.join_next().await {
            written.unwrap();
        }
        assert!(!following.is_finished(), "the reader found something wrong");
        following.abort();
        let acknowledged = done.acknowledged.lock().unwrap().clone();
        let found = check(&whole_log(&store).await, &acknowledged);
        println!(
            "{} appends acknowledged over {ROUNDS} outages, 0 lost, 0 torn, 0 twice",
            acknowledged.len()
        );
        assert!(found.len() <= acknowledged.len() + TASKS as usize);
    }
}
