//! A private PostgreSQL: for the tests of one run, and with `cargo xtask postgres up` for a
//! developer's afternoon.
//!
//! Everything is below `target/postgres`; no other server, and none that a package started, is ever
//! touched.

mod account;
mod binaries;
mod cluster;
mod external;
mod place;

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

use account::Account;
use binaries::{Binaries, Search};
use cluster::{Cluster, Port, Shutdown};

use crate::ephemeral::{self, Ephemeral};
use crate::stop::Stop;
use crate::terminal::say;
use crate::test::{Kind, Started, State};

/// What the tests know of it.
pub(crate) const KIND: Kind = Kind {
    name: "PostgreSQL",
    url: "ANNALS_TEST_POSTGRES",
    control: "ANNALS_TEST_POSTGRES_CONTROL",
    package: Some("annals-postgres"),
    packages: &["annals-postgres", "annals", "annals-benches", "annals-cdc"],
    module: "on_postgres::",
    restarts_module: "server_restarts::",
    ask: external::ask_for_it,
    beside: Vec::new,
    start,
};

/// Where tests find the programs of the server, for a cluster of their own.
const BINARIES: &str = "ANNALS_TEST_POSTGRES_BINARIES";

/// The command line's word for this module.
const NAME: &str = "postgres";

/// `up` and `down` for developers; the rest for the processes that a run starts.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Task {
    /// Starts a PostgreSQL for this clone, unless it runs, and prints its URL as the last line.
    Up,
    /// Stops it; its data stays.
    Down,
    /// Waits for the end of its input, then stops and removes an ephemeral server.
    #[command(name = ephemeral::GUARD, hide = true)]
    Guard {
        directory: PathBuf,
        binaries: PathBuf,
    },
    /// Stops, kills or starts an ephemeral server on behalf of a test.
    #[command(hide = true)]
    Control {
        directory: PathBuf,
        binaries: PathBuf,
        order: Order,
    },
}

/// What a test asks of its server.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Order {
    Stop,
    /// As in a crash.
    Kill,
    /// On the port that it had.
    Start,
}

pub(crate) fn run(task: &Task) -> Result<(), Stop> {
    match task {
        Task::Up => up(),
        Task::Down => down(),
        Task::Guard {
            directory,
            binaries,
        } => ephemeral::stand_guard(directory, |directory| {
            Cluster::at(directory, binaries.clone(), Account::for_server()?).remove()
        }),
        Task::Control {
            directory,
            binaries,
            order,
        } => control(directory, binaries, *order),
    }
}

/// Starts an ephemeral server, after removing those that earlier runs left.
fn start() -> Result<Started, Stop> {
    let account = Account::for_server()?;
    let (binaries, state): (Binaries, fn(String) -> State) = match Binaries::find(&account) {
        Search::Found(binaries) => (binaries, State::Found),
        Search::Installed(binaries) => (binaries, State::Installed),
        Search::Missing(advice) => return Err(Stop::failed(advice)),
    };
    let place = place::directory(&account)?;
    ephemeral::remove_abandoned(&place, |directory| {
        Cluster::at(directory, binaries.directory.clone(), account.clone()).remove()
    });
    let programs: &OsStr = binaries.directory.as_os_str();
    let guard = Ephemeral::create(&place, "", NAME, &[programs])?;
    let directory = guard.directory();
    let cluster = Cluster::create(directory.to_owned(), &binaries, &account)?;
    cluster.start(Port::Any)?;
    let mut environment = vec![(KIND.url, cluster.url()?)];
    if cfg!(unix) {
        let words = [
            OsStr::new(NAME),
            OsStr::new("control"),
            directory.as_os_str(),
            programs,
        ];
        environment.push((KIND.control, guard.control(&words)?));
        // A link to one program may have no neighbours.
        let server = std::fs::canonicalize(binaries.directory.join("postgres")).ok();
        let programs = server.as_deref().and_then(Path::parent);
        let programs = programs.unwrap_or(&binaries.directory);
        environment.push((BINARIES, programs.display().to_string()));
    }
    Ok(Started {
        state: state(format!(
            "{} in {}",
            binaries.version,
            binaries.directory.display()
        )),
        shown: format!("ephemeral, fsync on, in {}", directory.display()),
        environment,
        guard: Box::new(guard),
    })
}

/// Starts the developers' server unless it runs, and prints its URL as the last line.
fn up() -> Result<(), Stop> {
    let account = Account::for_server()?;
    let binaries = match Binaries::find(&account) {
        Search::Found(binaries) | Search::Installed(binaries) => binaries,
        Search::Missing(advice) => return Err(Stop::failed(advice)),
    };
    let (directory, _turn) = developers(&account)?;
    let cluster = Cluster::create(directory, &binaries, &account)?;
    let ran = cluster.is_running();
    cluster.start(Port::Any)?;
    let state = if ran { "runs already" } else { "runs" };
    say!(
        "PostgreSQL {} {state}, in {}",
        binaries.version,
        cluster.directory().display()
    );
    let url = cluster.url()?;
    // Only the URL of a server that answers is of use.
    external::answers(&url).map_err(|why| Stop::failed(format!("the server is silent: {why}")))?;
    say!("{url}");
    Ok(())
}

/// Stops the developers' server if it runs; what is in it stays for the next time.
fn down() -> Result<(), Stop> {
    let account = Account::for_server()?;
    let (directory, _turn) = developers(&account)?;
    let cluster =
        Binaries::there(&account).map(|found| Cluster::at(directory, found.directory, account));
    match cluster.filter(Cluster::is_running) {
        Some(cluster) => {
            cluster.stop(Shutdown::Fast)?;
            say!(
                "stopped; its data stays in {}",
                cluster.directory().display()
            );
        }
        None => say!("no server of this clone runs"),
    }
    Ok(())
}

/// The directory of the developers' server, and a lock: of two `up` at once, one waits.
fn developers(account: &Account) -> Result<(PathBuf, File), Stop> {
    let directory = place::directory(account)?.join("developers");
    let lock = directory.with_extension("lock");
    let file = File::create(&lock).and_then(|file| file.lock().map(|()| file));
    let file =
        file.map_err(|error| Stop::failed(format!("cannot lock {}: {error}", lock.display())))?;
    Ok((directory, file))
}

/// Does to an ephemeral server what a test asks.
fn control(directory: &Path, binaries: &Path, order: Order) -> Result<(), Stop> {
    let account = Account::for_server()?;
    let cluster = Cluster::at(directory.to_owned(), binaries.to_owned(), account);
    match order {
        Order::Stop => cluster.stop(Shutdown::Fast),
        Order::Kill => cluster.stop(Shutdown::Immediate),
        Order::Start => cluster.start(Port::Same),
    }
}
