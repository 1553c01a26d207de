//! A private Apache Kafka: for the tests of one run, and with `cargo xtask kafka up` for a
//! developer's afternoon.
//!
//! Brokers come from Maven artifacts and run on a Java that the machine has or gets. Everything is
//! below `target/kafka`; no other broker is ever touched.

mod cluster;
mod jars;
mod java;
mod lent;
mod node;
mod ready;
mod tested;

use std::fs::File;
use std::path::{Path, PathBuf};

pub(crate) use tested::{Tested, is_wanted_by};

use crate::program::target_directory;
use crate::stop::Stop;
use cluster::Cluster;
use jars::Jars;
use java::Java;
use lent::{BOOTSTRAP, CONTROL, JARS, Lent};
use node::Shutdown;

/// The word with which a test has a broker that was lent to it stopped and started.
const TELL: &str = "tell";

/// `up` and `down` for developers; the rest for the processes that a run starts.
pub(crate) fn run(arguments: &[String]) -> Result<(), Stop> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["up"] => up(1),
        ["up", "--nodes", "1"] => up(1),
        ["up", "--nodes", "3"] => up(3),
        ["down"] => down(),
        [lent::GUARD, directory] => lent::stand_guard(directory),
        [TELL, directory, word] => tell(directory, word, "1"),
        [TELL, directory, word, node] => tell(directory, word, node),
        _ => Err(Stop::misused("takes `up`, `up --nodes 3` or `down`")),
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
    println!(
        "Apache Kafka {} ({nodes} node{}) {state}, in {}",
        jars.version,
        if nodes == 1 { "" } else { "s" },
        cluster.directory().display()
    );
    println!("{}", cluster.url());
    Ok(())
}

/// Stops the developers' brokers if they run; what is in their topics stays for the next time.
fn down() -> Result<(), Stop> {
    let (directory, _turn) = developers()?;
    match Cluster::at(directory) {
        Ok(cluster) if cluster.is_running() => {
            cluster.stop(Shutdown::Clean)?;
            println!(
                "stopped; its data stays in {}",
                cluster.directory().display()
            );
        }
        _ => println!("no broker of this clone runs"),
    }
    Ok(())
}

/// The directory of all private brokers of this clone.
fn place() -> PathBuf {
    target_directory().join("kafka")
}

/// The directory of the developers' brokers, and a lock: of two who type `up` at once, one waits.
fn developers() -> Result<(PathBuf, File), Stop> {
    let directory = place().join("developers");
    make(&place())?;
    let lock = directory.with_extension("lock");
    let file = File::create(&lock).and_then(|file| file.lock().map(|()| file));
    let file =
        file.map_err(|error| Stop::failed(format!("cannot lock {}: {error}", lock.display())))?;
    Ok((directory, file))
}

/// What a test asks of its broker: a `stop`, a `kill` that is a crash, a `start` on the same port.
fn tell(directory: &str, word: &str, node: &str) -> Result<(), Stop> {
    let cluster = Cluster::at(directory.into())?;
    let number: usize = node
        .parse()
        .map_err(|_| Stop::misused(format!("`{node}` is not the number of a node")))?;
    let nodes = cluster.nodes();
    let Some(node) = number.checked_sub(1).and_then(|index| nodes.get(index)) else {
        return Err(Stop::misused(format!(
            "there are nodes 1 to {}",
            nodes.len()
        )));
    };
    match word {
        "stop" => node.stop(Shutdown::Clean),
        "kill" => node.stop(Shutdown::Crash),
        "start" => {
            node.start()?;
            cluster.wait_until_ready()
        }
        _ => Err(Stop::misused(format!(
            "a broker can be asked to stop, kill or start, not {word}"
        ))),
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
