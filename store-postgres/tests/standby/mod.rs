//! A standby of the test server that lags, and takes its place under living processes.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use annals_core::{
    AppendError, EventStore, Expected, Log as _, Partition, Position, ReadLog, StreamId, Version,
};
use annals_postgres::sqlx::postgres::PgConnectOptions;
use annals_postgres::{Options, PostgresStore, sqlx};
use sqlx::Connection as _;
use tokio::net::{TcpListener, TcpStream};

use crate::named::{all_named, append, named};
use crate::server::{self, Schema};

/// A second cluster beside that of the test server, with the account and the programs of its own.
struct Standby {
    directory: PathBuf,
    binaries: PathBuf,
    account: (u32, u32),
    port: u16,
}

impl Standby {
    /// A copy of the server as it is now, which is not started.
    fn copy() -> Standby {
        let control = std::env::var("ANNALS_TEST_POSTGRES_CONTROL").unwrap();
        let binaries = server::binaries();
        let beside = Path::new(&control).parent().unwrap();
        let owner = std::fs::metadata(beside.join("data")).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let standby = Standby {
            directory: beside.join(format!("standby-{}", std::process::id())),
            binaries,
            account: (owner.uid(), owner.gid()),
            port: port.local_addr().unwrap().port(),
        };
        let mut copy = standby.command("pg_basebackup");
        copy.args([
            "--write-recovery-conf",
            "--wal-method=stream",
            "--checkpoint=fast",
        ]);
        copy.arg("--dbname").arg(server::url());
        run(copy.arg("--pgdata").arg(&standby.directory));
        standby
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.join(program));
        command.current_dir("/");
        let ours = std::fs::metadata("/proc/self").map_or(0, |us| us.uid());
        if ours != self.account.0 {
            command.uid(self.account.0).gid(self.account.1);
        }
        command
    }

    fn control(&self, words: &[&str]) {
        let mut control = self.command("pg_ctl");
        control.args(["-w", "-t", "60", "-D"]).arg(&self.directory);
        run(control.args(words));
    }

    /// Starts it as a standby that gets nothing more.
    fn start(&self) {
        self.start_with("-c primary_conninfo=''");
    }

    /// Starts it as a standby that gets what is committed; `of` is its name there.
    fn follow(&self, of: &str) {
        // The last setting of a name counts.
        let primary = format!("{} application_name={of}", self.primary());
        self.start_with(&format!("-c primary_conninfo='{primary}'"));
    }

    /// Where it finds the server that it is a copy of, in words without quotes.
    fn primary(&self) -> String {
        let server: PgConnectOptions = server::url().parse().unwrap();
        let password = std::fs::read_to_string(self.directory.join("postgresql.auto.conf"))
            .unwrap()
            .split_once("password=")
            .map(|(_, rest)| {
                rest.split([' ', '\''])
                    .next()
                    .unwrap_or_default()
                    .to_owned()
            });
        let password = password.map_or(String::new(), |word| format!(" password={word}"));
        let (host, port) = (server.get_host(), server.get_port());
        let user = server.get_username();
        format!("host={host} port={port} user={user}{password}")
    }

    fn start_with(&self, options: &str) {
        let port = format!("-p {} -c unix_socket_directories='' {options}", self.port);
        let log = self.directory.join("log-of-standby").display().to_string();
        self.control(&["-o", &port, "-l", &log, "start"]);
    }

    /// Starts it and makes it the primary of its own history.
    fn promote(&self) {
        self.start();
        self.control(&["promote"]);
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        let mut stop = self.command("pg_ctl");
        stop.args(["-w", "-m", "immediate", "-D"])
            .arg(&self.directory);
        let _ = stop
            .arg("stop")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn run(command: &mut Command) {
    // Through no pipe: the server would inherit it and keep it open.
    let done = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    assert!(done.is_ok_and(|done| done.success()), "{command:?}");
}

/// One address, of the one server and then of the other, or of each for every second connection.
struct Address {
    own: u16,
    target: Arc<AtomicU16>,
    other: Arc<AtomicU16>,
    task: tokio::task::JoinHandle<()>,
    cut: tokio::sync::watch::Sender<()>,
}

impl Address {
    async fn of(target: u16) -> Address {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let target = Arc::new(AtomicU16::new(target));
        let (cut, cuts) = tokio::sync::watch::channel(());
        let other = Arc::new(AtomicU16::new(0));
        let (chosen, besides) = (Arc::clone(&target), Arc::clone(&other));
        let task = tokio::spawn(async move {
            let mut turns = [true, false].into_iter().cycle();
            while let Ok((mut client, _)) = listener.accept().await {
                let mut target = chosen.load(Ordering::SeqCst);
                let other = besides.load(Ordering::SeqCst);
                if other != 0 && turns.next() == Some(false) {
                    target = other;
                }
                let mut cuts = cuts.clone();
                cuts.mark_unchanged();
                tokio::spawn(async move {
                    let Ok(mut server) = TcpStream::connect(("127.0.0.1", target)).await else {
                        return;
                    };
                    let both = tokio::io::copy_bidirectional(&mut client, &mut server);
                    tokio::select! {
                        _ = both => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        });
        Address {
            own,
            target,
            other,
            task,
            cut,
        }
    }

    /// From now on every second connection is one to this server.
    fn also(&self, other: u16) {
        self.other.store(other, Ordering::SeqCst);
    }

    fn fail_over(&self, to: u16) {
        self.target.store(to, Ordering::SeqCst);
        self.cut.send_replace(());
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The server's commits wait for the standby of a name until this is dropped.
struct Synchronous;

impl Synchronous {
    async fn with(name: &'static str) -> Synchronous {
        let synchronous = Synchronous;
        set("alter system set synchronous_standby_names = ''").await;
        let statement = format!("alter system set synchronous_standby_names = '{name}'");
        set(&statement).await;
        synchronous
    }
}

impl Drop for Synchronous {
    fn drop(&mut self) {
        let reset = || async { set("alter system reset synchronous_standby_names").await };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(reset()));
    }
}

/// Changes a setting of the server; one that waits for no standby itself.
async fn set(statement: &str) {
    let mut connection = server::connection().await;
    for statement in [
        "set synchronous_commit = local",
        statement,
        "select pg_reload_conf()",
    ] {
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        sqlx::query(statement)
            .execute(&mut connection)
            .await
            .unwrap();
    }
}

/// Waits until the server says yes.
async fn until(question: &'static str) {
    let mut connection = server::connection().await;
    let mut poll = tokio::time::interval(Duration::from_millis(20));
    let asked = async {
        loop {
            let is_so: bool = sqlx::query_scalar(question)
                .fetch_one(&mut connection)
                .await
                .unwrap();
            if is_so {
                return;
            }
            poll.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asked)
        .await
        .expect(question);
}

mod server_restarts {
    use super::*;

    const STANDBY: &str = "annals_test_standby";

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_is_given_before_the_synchronous_standby_has_it() {
        let _alone = crate::outage::SERVER.lock().await;
        let schema = Schema::new();
        let stores = [schema.store().await, schema.store().await];
        let reader = schema.store().await;
        let standby = tokio::task::spawn_blocking(|| {
            let standby = Standby::copy();
            standby.follow(STANDBY);
            standby
        });
        let standby = standby.await.unwrap();
        let synchronous = Synchronous::with(STANDBY).await;
        until("select exists (select from pg_stat_replication where sync_state = 'sync')").await;
        // All names are known; each has appended beside the other, so both release the log before
        // they flush.
        for _ in 0..3 {
            for (store, stream) in stores.iter().zip(["account-1", "account-2"]) {
                append(store, stream, "account.credited").await;
            }
        }
        assert_eq!(reader.head(Partition(0)).await.unwrap().durable.get(), 6);
        standby.control(&["-m", "fast", "stop"]);

        let [one, two] = stores;
        let appended =
            tokio::spawn(async move { append(&one, "account-1", "account.credited").await });
        let mut observer = server::connection().await;
        let count = || schema.sql("select count(*) from annals.event");
        let mut poll = tokio::time::interval(Duration::from_millis(20));
        loop {
            let visible: i64 = sqlx::query_scalar(count())
                .fetch_one(&mut observer)
                .await
                .unwrap();
            if visible == 7 {
                break;
            }
            poll.tick().await;
        }
        // The event is visible; who reads it, and a refusal that rests on it, waits.
        let read = tokio::spawn(async move {
            let page = reader.read(ReadLog::after(Position::new(6))).await;
            page.unwrap().events.len()
        });
        let stale = named("account-1", "account.credited".into())
            .expecting(Expected::ActiveAt(Version::new(3)));
        let refused = tokio::spawn(async move { two.append(stale).await });
        until("select count(*) >= 3 from pg_stat_activity where wait_event = 'SyncRep'").await;
        assert!(!appended.is_finished() && !read.is_finished() && !refused.is_finished());
        let standby = tokio::task::spawn_blocking(move || {
            standby.follow(STANDBY);
            standby
        });
        let _standby = standby.await.unwrap();
        assert_eq!(appended.await.unwrap(), Position::new(7));
        assert_eq!(read.await.unwrap(), 1);
        let refused = refused.await.unwrap();
        assert!(
            matches!(refused, Err(AppendError::Conflict(_))),
            "{refused:?}"
        );
        drop(synchronous);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_fail_over_to_a_lagging_standby_is_noticed() {
        let _alone = crate::outage::SERVER.lock().await;
        let schema = Schema::new();
        let server: PgConnectOptions = server::url().parse().unwrap();
        let address = Address::of(server.get_port()).await;
        let options = Options::new(server.clone().port(address.own))
            .schema(&schema.name)
            .unwrap()
            .connect_timeout(Duration::from_secs(30));
        let one = PostgresStore::connect_with(options.clone()).await.unwrap();
        let two = PostgresStore::connect_with(options.clone()).await.unwrap();
        append(&one, "account-1", "account.opened").await;
        let standby = tokio::task::spawn_blocking(Standby::copy).await.unwrap();
        // What the standby never gets.
        append(&one, "account-1", "account.credited").await;
        append(&one, "purse-1", "purse.opened").await;
        append(&two, "cart-1", "cart.opened").await;
        assert_eq!(all_named(&two).await.len(), 4);
        let before = one.incarnation();
        let standby = tokio::task::spawn_blocking(move || {
            standby.promote();
            standby
        });
        let standby = standby.await.unwrap();
        address.fail_over(standby.port);

        // Another process goes on in the new history, where numbers are given again.
        let three = PostgresStore::connect_with(options).await.unwrap();
        append(&three, "account-1", "account.closed").await;
        append(&three, "order-1", "order.placed").await;
        let mut stale = named("account-1", "account.debited".into())
            .expecting(Expected::ActiveAt(Version::new(2)));
        stale.decided_on = Some(before);
        let refused = one.append(stale).await.unwrap_err();
        assert!(matches!(&refused, AppendError::Conflict(_)), "{refused:?}");
        assert_ne!(one.incarnation(), before);
        append(&one, "purse-1", "purse.opened").await;
        append(&two, "cart-1", "cart.opened").await;
        let found = all_named(&three).await;
        assert_eq!(found.len(), 5);
        for store in [&one, &two] {
            assert_eq!(all_named(store).await, found);
            let state = store
                .stream_state(&StreamId::new("account-1").unwrap())
                .await;
            assert_eq!(state.unwrap().version, Version::new(2));
        }
        let options = server.port(standby.port);
        sqlx::PgConnection::connect_with(&options).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_standby_at_the_same_address_hides_no_event() {
        let _alone = crate::outage::SERVER.lock().await;
        let schema = Schema::new();
        let writer = schema.store().await;
        let count = async |from: u64, to: u64| {
            for n in from..to {
                append(&writer, &format!("account-{n}"), "account.opened").await;
            }
        };
        count(0, 50).await;
        let standby = tokio::task::spawn_blocking(|| {
            let standby = Standby::copy();
            standby.start();
            standby
        });
        let standby = standby.await.unwrap();
        let server: PgConnectOptions = server::url().parse().unwrap();
        let address = Address::of(server.get_port()).await;
        address.also(standby.port);
        let options = Options::new(server.port(address.own))
            .schema(&schema.name)
            .unwrap()
            .readers(4)
            .read_only();
        let reader = PostgresStore::connect_with(options).await.unwrap();
        count(50, 100).await;
        // Each page is of one of the two servers, in the order in which connections are free.
        let mut seen = Vec::new();
        let mut after = Position::START;
        while seen.len() < 100 {
            let mut pages = tokio::task::JoinSet::new();
            for _ in 0..4 {
                let reader = reader.clone();
                let read = ReadLog::after(after).limit(7);
                pages.spawn(async move { reader.read(read).await });
            }
            while let Some(page) = pages.join_next().await {
                // A server that lags may be taken for one that was restored, never for the end.
                let Ok(page) = page.unwrap() else { continue };
                let positions = page.events.iter().map(|event| event.position);
                let new: Vec<_> = positions.filter(|position| *position > after).collect();
                for position in new {
                    assert_eq!(position, after.next(), "an event was passed by");
                    seen.push(position);
                    after = position;
                }
                assert!(
                    page.scanned <= after,
                    "nothing is there up to {}",
                    page.scanned
                );
            }
        }
    }
}
