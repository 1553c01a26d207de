//! A private server: a directory of its own, 127.0.0.1 only, a port and a password of its own.
//!
//! It keeps what it acknowledged (`fsync=on`), because tests kill it, and has `wal_level=logical`.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::account::Account;
use super::binaries::Binaries;
use crate::process::command_line;
use crate::program::{answer, shown};
use crate::stop::Stop;

/// The superuser of every private server.
const USER: &str = "annals";

/// What a server is given beside its defaults, and its port. Statements of tests are short:
/// compiling them takes longer than they do.
const SETTINGS: &str = "\
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
wal_level = logical
fsync = on
synchronous_commit = on
max_connections = 300
max_prepared_transactions = 8
jit = off
timezone = 'UTC'
";

/// Seconds that a server may take to start and to stop. After a crash it first flushes every file
/// of its directory, and the tests make thousands: on a busy disk that takes more than a minute.
const START_SECONDS: &str = "300";
const STOP_SECONDS: &str = "30";

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shutdown {
    /// Open transactions are rolled back, the rest is written.
    Fast,
    /// As in a crash: the next start recovers.
    Immediate,
}

/// The port that a server starts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// The one it had, while that is free; else another.
    Any,
    /// The one it had, because its clients know it.
    Same,
}

/// One private server, running or not. Its directory holds `data`, `log`, `password` and `port`.
#[derive(Debug)]
pub(crate) struct Cluster {
    directory: PathBuf,
    binaries: PathBuf,
    account: Account,
}

impl Cluster {
    /// The server in a directory where [`Cluster::create`] made one, or will.
    pub(crate) fn at(directory: PathBuf, binaries: PathBuf, account: Account) -> Self {
        Self {
            directory,
            binaries,
            account,
        }
    }

    /// Makes the server's files, all or none: an attempt that was interrupted is begun again.
    pub(crate) fn create(
        directory: PathBuf,
        binaries: &Binaries,
        account: &Account,
    ) -> Result<Self, Stop> {
        let cluster = Self::at(directory, binaries.directory.clone(), account.clone());
        if cluster.data().exists() {
            return cluster.is_made_by(&binaries.version).map(|()| cluster);
        }
        let half_made = cluster.directory.join("half-made");
        if half_made.exists() {
            std::fs::remove_dir_all(&half_made).map_err(cannot("remove", &half_made))?;
        }
        std::fs::create_dir_all(&cluster.directory).map_err(cannot("make", &cluster.directory))?;
        account.give(&cluster.directory)?;
        cluster.keep("password", &random_word())?;

        let mut initdb = cluster.command("initdb");
        // It is not worth waiting for the disk: an interrupted attempt is thrown away. The tests
        // begin thousands of sessions from this machine, and a password that is kept as SCRAM keeps
        // it takes each of them 10 ms more, for 4,096 rounds of its hash. `md5` for sockets, of
        // which there are none, says how it is kept; the password comes as it is.
        initdb.args([
            "--no-sync",
            "--no-locale",
            "--encoding=UTF8",
            "--auth-local=md5",
            "--auth-host=password",
            "--username",
            USER,
            "--pwfile",
        ]);
        initdb
            .arg(cluster.directory.join("password"))
            .arg("--pgdata")
            .arg(&half_made);
        answer(&mut initdb)?;
        let settings = half_made.join("postgresql.conf");
        let defaults = std::fs::read_to_string(&settings).map_err(cannot("read", &settings))?;
        std::fs::write(&settings, format!("{defaults}\n{SETTINGS}"))
            .map_err(cannot("write", &settings))?;
        std::fs::rename(&half_made, cluster.data()).map_err(cannot("make", &cluster.data()))?;
        Ok(cluster)
    }

    /// Starts it unless it runs. It takes connections when this returns.
    pub(crate) fn start(&self, port: Port) -> Result<(), Stop> {
        if self.is_running() {
            return Ok(());
        }
        self.forget_stale_process()?;
        let began = Instant::now();
        loop {
            let chosen = match (self.port(), port) {
                (Some(known), Port::Same) => known,
                (Some(known), Port::Any) if is_free(known) => known,
                _ => free_port()?,
            };
            self.keep("port", &chosen.to_string())?;
            let mut start = self.pg_ctl(["-w", "-t", START_SECONDS, "-o"]);
            start
                .arg(format!("-p {chosen}"))
                .arg("-l")
                .arg(self.directory.join("log"))
                .arg("start");
            // Answered through no pipe: the server would inherit it and keep it open.
            start
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            if start.status().is_ok_and(|status| status.success()) {
                return Ok(());
            }
            // Another process was quicker on the port, or what is left of a killed server still
            // holds its memory.
            if began.elapsed() > Duration::from_secs(20) {
                let log = std::fs::read_to_string(self.directory.join("log")).unwrap_or_default();
                let end: Vec<&str> = log.lines().rev().take(10).collect();
                let end = end.into_iter().rev().collect::<Vec<_>>().join("\n");
                return Err(Stop::failed(format!(
                    "`{}` failed; the server's last words:\n{end}",
                    shown(&start)
                )));
            }
            pause();
        }
    }

    /// Stops it if it runs.
    pub(crate) fn stop(&self, how: Shutdown) -> Result<(), Stop> {
        if !self.is_running() {
            return Ok(());
        }
        let mode = if how == Shutdown::Fast {
            "fast"
        } else {
            "immediate"
        };
        let stopped = answer(
            self.pg_ctl(["-w", "-t", STOP_SECONDS, "-m", mode])
                .arg("stop"),
        );
        // It may have ended by itself meanwhile.
        if self.is_running() {
            stopped.map(drop)
        } else {
            Ok(())
        }
    }

    /// Stops it and removes its files.
    pub(crate) fn remove(&self) -> Result<(), Stop> {
        self.stop(Shutdown::Immediate)?;
        // The last of its processes may still be writing.
        let mut tries = 0..50;
        loop {
            match std::fs::remove_dir_all(&self.directory) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
                Err(_) if tries.next().is_some() => pause(),
                done => return done.map_err(cannot("remove", &self.directory)),
            }
        }
    }

    /// Whether the process that `postmaster.pid` names is this server: numbers of processes come
    /// again, and `pg_ctl` would take any process of that number for it, and stop it.
    pub(crate) fn is_running(&self) -> bool {
        self.process().is_some()
    }

    fn process(&self) -> Option<u32> {
        let kept = self.kept("data/postmaster.pid")?;
        let pid: u32 = kept.lines().next()?.trim().parse().ok()?;
        is_server_of(&self.data(), &command_line(pid)?).then_some(pid)
    }

    /// Removes a `postmaster.pid` whose number is now another process's: the server would take that
    /// one for itself and refuse to start.
    fn forget_stale_process(&self) -> Result<(), Stop> {
        let path = self.data().join("postmaster.pid");
        if self.is_running() || !path.exists() {
            return Ok(());
        }
        std::fs::remove_file(&path).map_err(cannot("remove", &path))
    }

    /// Where clients find it, password included.
    pub(crate) fn url(&self) -> Result<String, Stop> {
        let password = self.kept("password");
        match (password, self.port()) {
            (Some(password), Some(port)) => Ok(format!(
                "postgres://{USER}:{password}@127.0.0.1:{port}/postgres"
            )),
            _ => Err(Stop::failed(format!(
                "{} is no server of ours: remove it",
                self.directory.display()
            ))),
        }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn port(&self) -> Option<u16> {
        self.kept("port")?.parse().ok()
    }

    /// Another major version cannot read the files.
    fn is_made_by(&self, version: &str) -> Result<(), Stop> {
        let kept = self.kept("data/PG_VERSION").unwrap_or_default();
        if version.starts_with(&kept) {
            return Ok(());
        }
        Err(Stop::failed(format!(
            "{} was made by PostgreSQL {kept}, and what is here is {version}: remove it",
            self.directory.display()
        )))
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn kept(&self, name: &str) -> Option<String> {
        Some(
            std::fs::read_to_string(self.directory.join(name))
                .ok()?
                .trim()
                .to_owned(),
        )
    }

    /// Keeps a word in a file of the directory, which only the server's user reads.
    fn keep(&self, name: &str, word: &str) -> Result<(), Stop> {
        let path = self.directory.join(name);
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path).map_err(cannot("write", &path))?;
        self.account.give(&path)?;
        std::io::Write::write_all(&mut &file, word.as_bytes()).map_err(cannot("write", &path))
    }

    fn pg_ctl<const N: usize>(&self, arguments: [&str; N]) -> Command {
        let mut command = self.command("pg_ctl");
        command.arg("-D").arg(self.data()).args(arguments);
        command
    }

    fn command(&self, name: &str) -> Command {
        let mut command = self.account.command(self.binaries.join(name));
        command.current_dir(&self.directory).env("LC_ALL", "C");
        // PGPORT, PGDATA and their like name another server.
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG"))
        {
            command.env_remove(name);
        }
        command
    }
}

/// Between two polls of what other processes do.
#[expect(
    clippy::disallowed_methods,
    reason = "there is nothing to wait for but time"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(100));
}

/// Whether a process that was started with these words is the server of that data directory:
/// `postgres -D /there/data -p 5432`.
fn is_server_of(data: &Path, command_line: &str) -> bool {
    let program = command_line.split(' ').next().unwrap_or_default();
    let named = format!("-D {}", data.display());
    Path::new(program).file_stem() == Some("postgres".as_ref())
        && command_line
            .split_once(&named)
            .is_some_and(|(_, after)| after.is_empty() || after.starts_with(' '))
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn free_port() -> Result<u16, Stop> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let port = listener
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port());
    port.map_err(|error| Stop::failed(format!("no free port on 127.0.0.1: {error}")))
}

/// 128 bits that cannot be guessed: the standard library seeds its maps from the system's
/// randomness.
fn random_word() -> String {
    let number = |salt: u8| {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u8(salt);
        hasher.finish()
    };
    format!("{:016x}{:016x}", number(0), number(1))
}

fn cannot(what: &str, path: &Path) -> impl Fn(std::io::Error) -> Stop {
    let words = format!("cannot {what} {}", path.display());
    move |error| Stop::failed(format!("{words}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_of_this_directory_is_this_server() {
        let data = Path::new("/clone/target/postgres/developers/data");
        for (command_line, is_ours) in [
            (
                "/usr/bin/postgres -D /clone/target/postgres/developers/data -p 5",
                true,
            ),
            (
                "/usr/bin/postgres -D /clone/target/postgres/developers/data",
                true,
            ),
            (
                "/usr/bin/postgres -D /clone/target/postgres/developers/data2",
                false,
            ),
            ("/usr/bin/postgres -D /var/lib/postgresql/15/main", false),
            ("vi -D /clone/target/postgres/developers/data", false),
            ("sleep 1000", false),
        ] {
            assert_eq!(is_server_of(data, command_line), is_ours, "{command_line}");
        }
    }

    #[test]
    fn a_process_that_reuses_a_server_pid_is_untouched() {
        let directory = std::env::temp_dir().join(format!("annals-stale-{}", std::process::id()));
        std::fs::create_dir_all(directory.join("data")).unwrap();
        let mut other = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid_file = directory.join("data/postmaster.pid");
        std::fs::write(
            &pid_file,
            format!("{}\n{}\n", other.id(), directory.display()),
        )
        .unwrap();
        let account = Account::for_server().unwrap();
        let cluster = Cluster::at(directory.clone(), "no-binaries".into(), account);
        assert!(!cluster.is_running());
        cluster.stop(Shutdown::Immediate).unwrap();
        cluster.forget_stale_process().unwrap();
        assert!(!pid_file.exists());
        assert!(other.try_wait().unwrap().is_none(), "it was stopped");
        drop(other.stdin.take());
        other.wait().unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn no_two_servers_have_the_same_password() {
        let one = random_word();
        let other = random_word();
        assert_eq!(one.len(), 32);
        assert_ne!(one, other);
        assert_ne!(one[..16], one[16..]);
    }
}
