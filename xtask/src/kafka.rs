//! A private Apache Kafka: for the tests of one run, and with `cargo xtask kafka up` for a
//! developer's afternoon.
//!
//! Brokers come from Maven artifacts and run on a Java that the machine has or gets. Everything is
//! below `target/kafka`; no other broker is ever touched.

mod cluster;
mod jars;
mod java;
mod node;
mod ready;
mod secure;

use std::ffi::OsStr;
use std::fs::File;
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};

use cluster::Cluster;
use jars::Jars;
use java::Java;
use node::Shutdown;

use crate::ephemeral::{self, Ephemeral};
use crate::program::target_directory;
use crate::stop::Stop;
use crate::terminal::say;
use crate::test::{Kind, Started, State};

/// What the tests know of it.
pub(crate) const KIND: Kind = Kind {
    name: "Apache Kafka",
    url: "ANNALS_TEST_KAFKA",
    control: "ANNALS_TEST_KAFKA_CONTROL",
    package: None,
    packages: &["annals-kafka", "annals", "annals-cdc"],
    module: "on_kafka::",
    restarts_module: "on_own_broker::",
    ask,
    beside: jars,
    start,
};

/// The variable in which tests find the jars of a Java client.
const JARS: &str = "ANNALS_TEST_KAFKA_JARS";

/// The variable in which tests find the URL of a listener with TLS and SCRAM.
const SECURE: &str = "ANNALS_TEST_KAFKA_SECURE";

/// The variable that names a program which lends a cluster of three nodes to one test.
const LEND: &str = "ANNALS_TEST_KAFKA_LEND";

/// The command line's word for this module.
pub(crate) const NAME: &str = "kafka";

/// `up` and `down` for developers; the rest for the processes that a run starts.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Task {
    /// Starts an Apache Kafka for this clone, unless it runs, and prints its URL as the last line.
    Up {
        /// How many brokers it has.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=3))]
        nodes: u16,
    },
    /// Stops it; its data stays.
    Down,
    /// Waits for the end of its input, then stops and removes an ephemeral cluster.
    #[command(name = ephemeral::GUARD, hide = true)]
    Guard { directory: PathBuf },
    /// Starts an ephemeral cluster of three, says where it is and what controls it, a line each,
    /// and removes it at the end of its input.
    #[command(hide = true)]
    Lend,
    /// Stops, kills or starts a broker of an ephemeral cluster on behalf of a test.
    #[command(hide = true)]
    Control {
        directory: PathBuf,
        order: Order,
        #[arg(default_value_t = 1)]
        node: usize,
    },
}

/// What a test asks of a broker.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Order {
    Stop,
    /// As in a crash.
    Kill,
    /// On the port that it had.
    Start,
    /// It answers nothing, and keeps its connections.
    Pause,
    /// After a pause.
    Resume,
}

pub(crate) fn run(task: &Task) -> Result<(), Stop> {
    match task {
        Task::Up { nodes } => up(*nodes),
        Task::Down => down(),
        Task::Guard { directory } => ephemeral::stand_guard(directory, remove),
        Task::Lend => lend(),
        Task::Control {
            directory,
            order,
            node,
        } => control(directory, *order, *node),
    }
}

/// Whether one of the brokers of an external cluster answers.
fn ask(bootstrap: &str) -> Result<String, String> {
    let mut addresses = bootstrap
        .split(',')
        .filter_map(|address| address.trim().to_socket_addrs().ok())
        .flatten();
    if addresses.any(|address| ready::brokers(address).is_some()) {
        Ok(bootstrap.to_owned())
    } else {
        Err(format!("{bootstrap}: no broker answers there"))
    }
}

/// A client that is not ours is run from the same jars as the broker.
fn jars() -> Vec<(&'static str, String)> {
    let jars = Java::find().and_then(|java| Jars::find(&java));
    jars.iter()
        .map(|jars| (JARS, jars.directory.display().to_string()))
        .collect()
}

/// Starts an ephemeral cluster of one node, after removing those that earlier runs left.
fn start() -> Result<Started, Stop> {
    let java = Java::find()?;
    let jars = Jars::find(&java)?;
    make(&place())?;
    ephemeral::remove_abandoned(&place(), remove);
    let (guard, cluster) = ephemeral_cluster(&java, &jars, 1)?;
    let mut environment = vec![
        (KIND.url, cluster.bootstrap()),
        (SECURE, cluster.secure_url()?),
    ];
    if cfg!(unix) {
        environment.push((KIND.control, control_of(&guard)?));
        let words = [OsStr::new(NAME), OsStr::new("lend")];
        environment.push((LEND, guard.script("lend", &words)?));
    }
    let found = format!("{} on Java {}", jars.version, java.version);
    Ok(Started {
        state: match java.installed {
            true => State::Installed(found),
            false => State::Found(found),
        },
        shown: format!("ephemeral, 1 node, in {}", guard.directory().display()),
        environment,
        guard: Box::new(guard),
    })
}

/// A cluster that runs as long as its guard is held.
fn ephemeral_cluster(java: &Java, jars: &Jars, nodes: u16) -> Result<(Ephemeral, Cluster), Stop> {
    let guard = Ephemeral::create(&place(), "", NAME, &[])?;
    let cluster = Cluster::create(guard.directory().to_owned(), java, jars, nodes)?;
    cluster.start()?;
    Ok((guard, cluster))
}

/// A cluster for measurements, and its addresses; it runs as long as the guard is held.
pub(crate) fn for_bench(nodes: u16) -> Result<(Ephemeral, String), Stop> {
    let java = Java::find()?;
    let jars = Jars::find(&java)?;
    make(&place())?;
    let (guard, cluster) = ephemeral_cluster(&java, &jars, nodes)?;
    let brokers = cluster.bootstrap();
    Ok((guard, brokers))
}

/// The program that stops, kills and starts the nodes.
fn control_of(guard: &Ephemeral) -> Result<String, Stop> {
    let directory = guard.directory().as_os_str();
    guard.control(&[OsStr::new(NAME), OsStr::new("control"), directory])
}

/// Lends three nodes until the borrower closes the input.
fn lend() -> Result<(), Stop> {
    let java = Java::find()?;
    let jars = Jars::find(&java)?;
    make(&place())?;
    let (guard, cluster) = ephemeral_cluster(&java, &jars, 3)?;
    say!("{}", cluster.bootstrap());
    say!("{}", control_of(&guard)?);
    // What it says does not matter: it ends when the borrower does.
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    Ok(())
}

/// Stops the brokers of a cluster and removes it.
fn remove(directory: PathBuf) -> Result<(), Stop> {
    match Cluster::at(directory.clone()) {
        Ok(cluster) => cluster.remove(),
        // It was never complete, so no broker was started.
        Err(_) => std::fs::remove_dir_all(&directory)
            .map_err(|error| cannot("remove", &directory, &error)),
    }
}

/// Starts the developers' brokers unless they run, and prints their URL as the last line.
fn up(nodes: u16) -> Result<(), Stop> {
    let java = Java::find()?;
    let jars = Jars::find(&java)?;
    let (directory, _turn) = developers()?;
    let cluster = match Cluster::at(directory.clone()) {
        Ok(cluster) if cluster.nodes().len() == usize::from(nodes) => cluster,
        Ok(other) => {
            return Err(Stop::failed(format!(
                "a cluster of {} nodes is in {}: stop it with `cargo xtask kafka down` and remove \
                 the directory for one of {nodes}",
                other.nodes().len(),
                directory.display()
            )));
        }
        Err(_) => Cluster::create(directory, &java, &jars, nodes)?,
    };
    let state = if cluster.is_running() {
        "runs already"
    } else {
        "runs"
    };
    cluster.start()?;
    say!(
        "Apache Kafka {} ({nodes} node{}) {state}, in {}",
        jars.version,
        if nodes == 1 { "" } else { "s" },
        cluster.directory().display()
    );
    say!("{}", cluster.url());
    Ok(())
}

/// Stops the developers' brokers if they run; what is in their topics stays for the next time.
fn down() -> Result<(), Stop> {
    let (directory, _turn) = developers()?;
    match Cluster::at(directory) {
        Ok(cluster) if cluster.is_running() => {
            cluster.stop(Shutdown::Clean)?;
            say!(
                "stopped; its data stays in {}",
                cluster.directory().display()
            );
        }
        _ => say!("no broker of this clone runs"),
    }
    Ok(())
}

/// The directory of all private brokers of this clone.
fn place() -> PathBuf {
    target_directory().join("kafka")
}

/// The directory of the developers' brokers, and a lock: of two `up` at once, one waits.
fn developers() -> Result<(PathBuf, File), Stop> {
    let directory = place().join("developers");
    make(&place())?;
    let lock = directory.with_extension("lock");
    let file = File::create(&lock).and_then(|file| file.lock().map(|()| file));
    let file =
        file.map_err(|error| Stop::failed(format!("cannot lock {}: {error}", lock.display())))?;
    Ok((directory, file))
}

/// Does to a broker of an ephemeral cluster what a test asks.
fn control(directory: &Path, order: Order, node: usize) -> Result<(), Stop> {
    let cluster = Cluster::at(directory.to_owned())?;
    let nodes = cluster.nodes();
    let Some(node) = node.checked_sub(1).and_then(|index| nodes.get(index)) else {
        let last = nodes.len();
        return Err(Stop::misused(format!("there are nodes 1 to {last}")));
    };
    match order {
        Order::Stop => node.stop(Shutdown::Clean),
        Order::Kill => node.stop(Shutdown::Crash),
        Order::Pause => node.pause(),
        Order::Resume => node.resume(),
        Order::Start => {
            node.start()?;
            cluster.wait_until_ready()
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a broker has no way of saying that it is there, or gone"
)]
fn pause() {
    std::thread::sleep(std::time::Duration::from_millis(50));
}

fn make(directory: &Path) -> Result<(), Stop> {
    std::fs::create_dir_all(directory).map_err(|error| cannot("make", directory, &error))
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Stop {
    Stop::failed(format!("cannot {what} {}: {error}", path.display()))
}
