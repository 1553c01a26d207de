//! A client that stops at any point of an append, and keeps its connection open, delays no other.

// What must not fail is unwrapped, and the figures are shown.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod relay;
mod server;

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use annals_core::conformance::numbered::{Numbered, check, whole_log};
use annals_core::{EventStore, Log, Partition};
use annals_postgres::{Options, PostgresStore};
use relay::{Arrives, Relay, Treatment};
use server::Schema;

/// A caller that waits for a stopped client waits for longer than this.
const FOR_EVER: Duration = Duration::from_secs(20);

const SCHEMA: &str = "ANNALS_STOPPED_SCHEMA";

/// Makes `count` appends and reads the log to its end, which must not depend on a stopped client.
async fn goes_on(store: &PostgresStore, run: u64, count: u64) -> Duration {
    let began = Instant::now();
    let going_on = async {
        for n in 0..count {
            let appended = store
                .append(Numbered { run, task: 0, n }.append())
                .await
                .unwrap();
            assert!(store.head(Partition(0)).await.unwrap().visible >= appended.last().position);
        }
        assert!(whole_log(store).await.len() as u64 >= count);
    };
    tokio::time::timeout(FOR_EVER, going_on)
        .await
        .expect("others wait for a stopped client");
    began.elapsed()
}

/// Stops a client at its request number `request`, counted from the start of its append. Whether it
/// made so many.
async fn stops_at(request: u64, arrives: Arrives) -> bool {
    let schema = Schema::new();
    let direct = schema.store().await;
    let relay = Relay::around(&[]).await;
    // When the relay is gone, it soon gives up.
    let options = relay
        .options(&schema.name)
        .connect_timeout(Duration::from_secs(1));
    let stopped = PostgresStore::connect_with(options).await.unwrap();
    // What a client asks once, when it first appends, is asked.
    stopped
        .append(
            Numbered {
                run: 1,
                task: 0,
                n: 0,
            }
            .append(),
        )
        .await
        .unwrap();

    let requests = AtomicU64::new(0);
    let (stops, mut has_stopped) = tokio::sync::mpsc::unbounded_channel();
    relay.choose(
        move || match requests.fetch_add(1, Ordering::Relaxed) == request {
            true => {
                let _ = stops.send(());
                Treatment::Stops(arrives)
            }
            false => Treatment::Passes,
        },
    );
    let second = Numbered {
        run: 1,
        task: 0,
        n: 1,
    };
    let mut appending = tokio::spawn(async move { stopped.append(second.append()).await });
    tokio::select! {
        stopped = has_stopped.recv() => stopped.unwrap(),
        appended = &mut appending => {
            assert!(appended.unwrap().is_ok());
            return false;
        }
    }
    goes_on(&direct, 2, 10).await;

    // The client is gone. The next one that asks with the same ids resolves it.
    drop(relay);
    let _ = appending.await.unwrap();
    direct.append(second.append()).await.unwrap();
    check(&whole_log(&direct).await, &HashSet::from([second]));
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_stopped_between_any_two_messages_delays_no_other() {
    let mut points = 0;
    for arrives in [Arrives::Nothing, Arrives::Half, Arrives::All] {
        let mut request = 0;
        while stops_at(request, arrives).await {
            request += 1;
        }
        points += request;
        assert!(request > 0, "no append was stopped");
    }
    println!("a client was stopped at {points} points of an append, and delayed no other");
}

/// The process that is stopped: it appends all the time, in several tasks.
#[test]
#[ignore = "it is the process that another test starts and stops"]
fn appends_all_the_time() {
    let Ok(schema) = std::env::var(SCHEMA) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let options: Options = server::url().parse().unwrap();
        let store = PostgresStore::connect_with(options.schema(schema).unwrap())
            .await
            .unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..4 {
            let store = store.clone();
            tasks.spawn(async move {
                for n in 0.. {
                    store
                        .append(Numbered { run: 1, task, n }.append())
                        .await
                        .unwrap();
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "\nacknowledged {task} {n}")
                        .and_then(|()| out.flush())
                        .unwrap();
                }
            });
        }
        tasks.join_next().await.unwrap().unwrap();
    });
}

/// A child that is killed when the test ends, however it does.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_stopped_at_any_moment_delays_no_other() {
    const STOPS: u64 = 100;
    let schema = Schema::new();
    let store = schema.store().await;
    let mut child = Killed(
        Command::new(std::env::current_exe().unwrap())
            .args([
                "appends_all_the_time",
                "--exact",
                "--ignored",
                "--nocapture",
            ])
            .env(SCHEMA, &schema.name)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let said = BufReader::new(child.0.stdout.take().unwrap());
    let (acknowledges, mut acknowledged) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in said
            .lines()
            .map_while(Result::ok)
            .filter(|line| line.starts_with("acknowledged"))
        {
            let _ = acknowledges.send(line);
        }
    });
    let signal = |name: &str| {
        let sent = Command::new("kill")
            .args([name, &child.0.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    };
    let mut longest = Duration::ZERO;
    for stop in 0..STOPS {
        // It appends, and then some: moments are spread by what else goes on.
        while acknowledged.try_recv().is_ok() {}
        for _ in 0..=stop % 7 {
            acknowledged.recv().await.unwrap();
        }
        signal("-STOP");
        longest = longest.max(goes_on(&store, 2 + stop, 5).await);
        signal("-CONT");
    }
    drop(child);
    check(&whole_log(&store).await, &HashSet::new());
    println!(
        "a process was stopped {STOPS} times while it appended; 5 appends and a read of others \
         took at most {longest:?}"
    );
}
