//! A PostgreSQL server of a test's own: with settings, databases and restarts that others do not
//! notice.

// What must not fail is unwrapped; each test uses some of this.
#![allow(clippy::unwrap_used, dead_code)]

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// A server beside that of the test run, with its programs and its account.
pub(crate) struct Server {
    directory: PathBuf,
    port: u16,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The programs of the server.
fn binaries() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let named = std::env::var("ANNALS_TEST_POSTGRES_BINARIES").expect(
            "this test needs the programs of PostgreSQL: `cargo xtask test` finds them, or set \
             ANNALS_TEST_POSTGRES_BINARIES to their directory",
        );
        let server = std::fs::canonicalize(Path::new(&named).join("postgres")).unwrap();
        server.parent().unwrap().to_owned()
    })
}

/// The directory of the run's server, in which its account may write.
fn beside() -> PathBuf {
    let control = std::env::var("ANNALS_TEST_POSTGRES_CONTROL").expect(
        "this test needs a server of its own: `cargo xtask test` brings what it takes, or set \
         ANNALS_TEST_POSTGRES_CONTROL to a file beside the data directory of a server",
    );
    Path::new(&control).parent().unwrap().to_owned()
}

fn command(program: &str) -> Command {
    as_owner(Command::new(binaries().join(program)))
}

/// A command under the account of the run's server.
fn as_owner(mut command: Command) -> Command {
    let owner = std::fs::metadata(beside().join("data")).unwrap();
    command.current_dir("/");
    let ours = std::fs::metadata("/proc/self").map_or(0, |us| us.uid());
    if ours != owner.uid() {
        command.uid(owner.uid()).gid(owner.gid());
    }
    command
}

fn run(command: &mut Command) {
    // Through no pipe: the server would inherit it and keep it open.
    let done = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    assert!(done.is_ok_and(|done| done.success()), "{command:?}");
}

/// A directory that no other test has, and that is not made.
fn fresh_directory() -> PathBuf {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    beside().join(format!("cdc-{}-{number}", std::process::id()))
}

/// The files of a new server, which are made once for all test programs of a run: to copy them takes
/// a tenth of the time. All servers of a run have one system identifier by that.
fn template() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let major = std::fs::read_to_string(beside().join("data/PG_VERSION")).unwrap();
        let template = beside().join(format!("cdc-template-{}", major.trim()));
        if template.exists() {
            return template;
        }
        let made = fresh_directory();
        let mut init = command("initdb");
        init.args([
            "--no-sync",
            "--auth=trust",
            "--username=postgres",
            "--encoding=UTF8",
        ]);
        run(init.args(["--locale=C", "-D"]).arg(&made));
        // Another test program may have been quicker.
        if std::fs::rename(&made, &template).is_err() {
            assert!(template.exists());
            std::fs::remove_dir_all(&made).unwrap();
        }
        template
    })
}

impl Server {
    /// A new one with these settings, which runs.
    pub(crate) fn start(settings: &[&str]) -> Server {
        let server = Server::unused();
        let mut copy = as_owner(Command::new("cp"));
        run(copy.arg("-Rp").arg(template()).arg(&server.directory));
        // No test takes the power away: what a process wrote is there when it is killed.
        let mut options = format!(
            "-p {} -c unix_socket_directories='' -c wal_level=logical -c max_wal_senders=30 \
             -c max_replication_slots=60 -c listen_addresses=127.0.0.1 -c log_min_messages=fatal \
             -c fsync=off -c jit=off",
            server.port
        );
        for setting in settings {
            options.push_str(&format!(" -c {setting}"));
        }
        std::fs::write(server.options_file(), options).unwrap();
        server.control(&[], "start");
        server
    }

    /// A directory and a port of its own.
    fn unused() -> Server {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Server {
            directory: fresh_directory(),
            port: port.local_addr().unwrap().port(),
        }
    }

    fn options_file(&self) -> PathBuf {
        self.directory.with_extension("options")
    }

    fn control(&self, words: &[&str], order: &str) {
        let options = std::fs::read_to_string(self.options_file()).unwrap();
        let log = self.directory.join("log-of-server");
        let mut control = command("pg_ctl");
        control.args(["-w", "-t", "60", "-D"]).arg(&self.directory);
        control.args(["-o", &options, "-l"]).arg(&log);
        run(control.args(words).arg(order));
    }

    /// A copy of it that follows it, as a standby, and runs.
    pub(crate) fn standby(&self) -> Server {
        let standby = Server::unused();
        let mut copy = command("pg_basebackup");
        copy.args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync"]);
        copy.arg("--dbname").arg(self.url("postgres"));
        run(copy.arg("--pgdata").arg(&standby.directory));
        let options = std::fs::read_to_string(self.options_file()).unwrap();
        let (ours, theirs) = (
            format!("-p {} ", standby.port),
            format!("-p {} ", self.port),
        );
        std::fs::write(standby.options_file(), options.replace(&theirs, &ours)).unwrap();
        standby.control(&[], "start");
        standby
    }

    /// Makes a server of its own of a standby.
    pub(crate) fn promote(&self) {
        self.control(&[], "promote");
    }

    /// Puts a file into its directory, which only its account can read.
    pub(crate) fn file(&self, name: &str, content: &[u8]) {
        use std::os::unix::fs::PermissionsExt as _;
        let file = self.directory.join(name);
        std::fs::write(&file, content).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let owner = std::fs::metadata(&self.directory).unwrap();
        std::os::unix::fs::chown(&file, Some(owner.uid()), Some(owner.gid())).unwrap();
    }

    /// Stops it as an administrator does.
    pub(crate) fn stop(&self) {
        self.control(&["-m", "fast"], "stop");
    }

    /// Stops it as in a crash.
    pub(crate) fn crash(&self) {
        self.control(&["-m", "immediate"], "stop");
    }

    /// Starts it again, on the port that it had.
    pub(crate) fn start_again(&self) {
        self.control(&[], "start");
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The URL of a database.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Makes a database, and says its URL.
    pub(crate) fn database(&self, name: &str) -> String {
        self.psql("postgres", &format!("create database \"{name}\""));
        self.url(name)
    }

    /// Runs a script, statement by statement, and says what it prints.
    pub(crate) fn psql(&self, database: &str, script: &str) -> String {
        let mut psql = Psql::open(&self.url(database));
        psql.send(script);
        psql.end()
    }
}

impl Server {
    /// Runs a script whose failure is no fault of the test, and says whether it was run.
    pub(crate) fn try_psql(&self, database: &str, script: &str) -> bool {
        let mut psql = Psql::open(&self.url(database));
        psql.send(script);
        drop(psql.input);
        psql.child.wait().unwrap().success()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut stop = command("pg_ctl");
        stop.args(["-w", "-m", "immediate", "-D"])
            .arg(&self.directory);
        stop.arg("stop").stdout(Stdio::null()).stderr(Stdio::null());
        let _ = stop.status();
        let _ = std::fs::remove_dir_all(&self.directory);
        let _ = std::fs::remove_file(self.options_file());
    }
}

/// A session of `psql`.
pub(crate) struct Psql {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
}

impl Psql {
    pub(crate) fn open(url: &str) -> Psql {
        let mut child = Command::new(binaries().join("psql"))
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", url])
            .env("PGCLIENTENCODING", "UTF8")
            .env("PGSSLMODE", "disable")
            .env("PGOPTIONS", "-c client_min_messages=warning")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Psql {
            input: child.stdin.take().unwrap(),
            output: child.stdout.take().unwrap(),
            child,
        }
    }

    /// Gives it a script.
    pub(crate) fn send(&mut self, script: &str) {
        // The last statement may come without its end.
        writeln!(self.input, "{script}\n;").unwrap();
        self.input.flush().unwrap();
    }

    /// Gives it a script, and returns when that was run.
    pub(crate) fn run(&mut self, script: &str) {
        self.send(&format!("{script}\n;\n\\echo annals-done"));
        let mut output = String::new();
        while !output.ends_with("annals-done\n") {
            let mut byte = [0];
            let read = std::io::Read::read(&mut self.output, &mut byte).unwrap();
            assert_eq!(read, 1, "psql ended while it ran: {script}");
            output.push(char::from(byte[0]));
        }
    }

    /// What it printed until its end.
    pub(crate) fn end(mut self) -> String {
        drop(self.input);
        let mut output = String::new();
        std::io::Read::read_to_string(&mut self.output, &mut output).unwrap();
        assert!(self.child.wait().unwrap().success(), "a script failed");
        output.trim_end().to_owned()
    }
}
