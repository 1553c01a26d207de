//! The server crashes, or a standby that lags takes its place, under several processes that append
//! events of types that are new in each round: each event is read under its own stream and type.
//!
//! `ANNALS_TEST_LONG=1` makes fifty rounds.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

mod named;
mod server;
#[cfg(target_os = "linux")]
mod standby;

/// Tests that stop the server. They are left out by this name where it may not be stopped.
pub(crate) mod server_restarts {
    use std::collections::BTreeSet;
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use annals_core::{AppendError, EventStore, Failure};
    use annals_postgres::{PostgresStore, sqlx};

    use crate::named::{all_named, named};
    use crate::server::{Schema, connection};

    /// Stores in use at once, each as a process of its own has it.
    const PROCESSES: usize = 4;

    /// One test at a time has the server.
    pub(crate) static SERVER: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    fn rounds() -> u64 {
        let is_long = std::env::var("ANNALS_TEST_LONG").is_ok_and(|long| long == "1");
        if is_long { 50 } else { 4 }
    }

    async fn control(word: &'static str) {
        let control = std::env::var("ANNALS_TEST_POSTGRES_CONTROL").expect(
            "this test stops and starts the server: `cargo xtask test` allows it; or leave it out \
             with `-- --skip server_restarts::`",
        );
        let done = tokio::task::spawn_blocking(move || Command::new(control).arg(word).status());
        assert!(done.await.unwrap().unwrap().success(), "{word}");
    }

    /// -9 to every process of the server at once, as when the machine stops.
    async fn kill_all() {
        let mut asked = connection().await;
        let file: String = sqlx::query_scalar("select pg_read_file('postmaster.pid', 0, 20)")
            .fetch_one(&mut asked)
            .await
            .unwrap();
        let postmaster = file.lines().next().unwrap().to_owned();
        let pids: Vec<i32> =
            sqlx::query_scalar("select pid from pg_stat_activity where pid is not null")
                .fetch_all(&mut asked)
                .await
                .unwrap();
        drop(asked);
        let killed = Command::new("kill")
            .arg("-9")
            .arg(&postmaster)
            .args(pids.iter().map(i32::to_string))
            .status();
        assert!(killed.unwrap().success());
        // What is left of a killed server ends by itself before another one starts.
        control("stop").await;
    }

    #[derive(Default)]
    struct Done {
        acknowledged: Mutex<BTreeSet<String>>,
        count: AtomicU64,
        stop: AtomicBool,
    }

    /// Appends events of new types, each to a stream of its own.
    async fn appends(store: PostgresStore, process: usize, round: u64, done: Arc<Done>) {
        let mut pause = tokio::time::interval(Duration::from_millis(2));
        for n in 0_u64.. {
            if done.stop.load(Ordering::Relaxed) {
                return;
            }
            let stream = format!("s{process}-{round}x{n}");
            let event_type = format!("t{process}.r{round}.n{n}");
            // A refused append names its type all the same.
            let refused = named(&stream, format!("{event_type}.refused"))
                .expecting(annals_core::Expected::Exists);
            let _ = store.append(refused).await;
            match store.append(named(&stream, event_type.clone())).await {
                Ok(_) => {
                    let name = format!("{stream} {event_type}");
                    done.acknowledged.lock().unwrap().insert(name);
                    done.count.fetch_add(1, Ordering::Relaxed);
                }
                Err(AppendError::Unknown(_)) => {
                    pause.tick().await;
                }
                Err(AppendError::Store(error)) if error.failure() == Failure::Unavailable => {
                    pause.tick().await;
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    async fn more(done: &Done, count: u64) {
        let wanted = done.count.load(Ordering::Relaxed) + count;
        let mut look = tokio::time::interval(Duration::from_millis(5));
        let waiting = async {
            while done.count.load(Ordering::Relaxed) < wanted {
                look.tick().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), waiting)
            .await
            .expect("a process did not recover");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn events_keep_their_stream_and_type_after_crashes() {
        let _alone = SERVER.lock().await;
        let schema = Schema::new();
        let mut stores = Vec::new();
        for _ in 0..PROCESSES {
            stores.push(schema.store().await);
        }
        let done = Arc::new(Done::default());
        for round in 0..rounds() {
            done.stop.store(false, Ordering::Relaxed);
            let mut writers = tokio::task::JoinSet::new();
            for (process, store) in stores.iter().enumerate() {
                writers.spawn(appends(store.clone(), process, round, Arc::clone(&done)));
            }
            more(&done, 40).await;
            match round % 2 {
                0 => control("kill").await,
                _ => kill_all().await,
            }
            control("start").await;
            more(&done, 40).await;
            done.stop.store(true, Ordering::Relaxed);
            while let Some(written) = writers.join_next().await {
                written.unwrap();
            }
            let acknowledged = done.acknowledged.lock().unwrap().clone();
            let found = all_named(&schema.store().await).await;
            let lost: Vec<_> = acknowledged.difference(&found).collect();
            assert!(lost.is_empty(), "lost: {lost:?}");
            for store in &stores {
                assert_eq!(all_named(store).await, found);
            }
        }
    }

    /// Names that were made and not flushed when the server is killed are another's afterwards.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_type_named_before_a_crash_is_no_other_after_it() {
        let _alone = SERVER.lock().await;
        for _ in 0..rounds() {
            let schema = Schema::new();
            let one = schema.store().await;
            let two = schema.store().await;
            let refused =
                named("pay-1", "payment.made".into()).expecting(annals_core::Expected::Exists);
            one.append(refused).await.unwrap_err();
            kill_all().await;
            control("start").await;
            let after = |store: PostgresStore, append: annals_core::Append| async move {
                let mut pause = tokio::time::interval(Duration::from_millis(5));
                while let Err(error) = store.append(append.clone()).await {
                    assert!(!matches!(error, AppendError::Conflict(_)), "{error:?}");
                    pause.tick().await;
                }
            };
            after(two, named("back-1", "refund.made".into())).await;
            after(one, named("pay-1", "payment.made".into())).await;
            assert_eq!(all_named(&schema.store().await).await.len(), 2);
        }
    }
}
