//! A private cluster: brokers that know each other, on 127.0.0.1, on free ports.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::jars::Jars;
use super::java::Java;
use super::node::{Node, Ports, Shutdown};
use super::ready::brokers;
use super::{cannot, make, pause, secure};
use crate::stop::Stop;

/// How long all brokers together may take until they answer.
const START_TIMEOUT: Duration = Duration::from_secs(90);

/// The file that says what a cluster is made of: Java, jars, and a port for each node.
const MADE_OF: &str = "cluster";

/// The file with the URL of the listener that asks for TLS and SCRAM.
const SECURE: &str = "secure";

/// Brokers in one directory, running or not.
#[derive(Debug)]
pub(crate) struct Cluster {
    directory: PathBuf,
    nodes: Vec<Node>,
}

impl Cluster {
    /// The cluster in a directory where [`Cluster::create`] made one.
    pub(crate) fn at(directory: PathBuf) -> Result<Cluster, Stop> {
        let path = directory.join(MADE_OF);
        let made_of =
            std::fs::read_to_string(&path).map_err(|error| cannot("read", &path, &error))?;
        let mut lines = made_of.lines();
        let (Some(java), Some(libs)) = (lines.next(), lines.next()) else {
            return Err(Stop::failed(format!("{} is incomplete", path.display())));
        };
        let ports: Vec<u16> = lines.filter_map(|line| line.parse().ok()).collect();
        Ok(Cluster::of(directory, java.into(), libs.into(), &ports))
    }

    fn of(directory: PathBuf, java: PathBuf, libs: PathBuf, ports: &[u16]) -> Cluster {
        let nodes = ports
            .iter()
            .enumerate()
            .map(|(index, &port)| Node {
                directory: directory.join(format!("node-{}", index + 1)),
                java: java.clone(),
                libs: libs.clone(),
                port,
            })
            .collect();
        Cluster { directory, nodes }
    }

    /// Makes the files of a cluster of so many nodes.
    pub(crate) fn create(
        directory: PathBuf,
        java: &Java,
        jars: &Jars,
        nodes: u16,
    ) -> Result<Cluster, Stop> {
        make(&directory)?;
        let ports = free_ports(nodes)?;
        let clients: Vec<u16> = ports.iter().map(|ports| ports.clients).collect();
        let program = java.program.clone();
        let cluster = Cluster::of(directory, program, jars.directory.clone(), &clients);
        let keys = secure::make_keys(java, &cluster.directory)?;
        for (index, node) in cluster.nodes.iter().enumerate() {
            node.create(index, &ports, &keys)?;
        }
        let path = cluster.directory.join(SECURE);
        std::fs::write(&path, secure::url(ports[0].secure, &cluster.directory))
            .map_err(|error| cannot("write", &path, &error))?;
        let mut made_of = vec![
            java.program.display().to_string(),
            jars.directory.display().to_string(),
        ];
        made_of.extend(clients.iter().map(u16::to_string));
        // Last: a directory with this file is complete.
        let path = cluster.directory.join(MADE_OF);
        std::fs::write(&path, made_of.join("\n"))
            .map_err(|error| cannot("write", &path, &error))?;
        Ok(cluster)
    }

    /// Starts the brokers that do not run. All answer and know each other when this returns.
    pub(crate) fn start(&self) -> Result<(), Stop> {
        self.nodes.iter().try_for_each(Node::start)?;
        self.wait_until_ready()
    }

    /// Waits until every broker that runs knows all that run.
    pub(crate) fn wait_until_ready(&self) -> Result<(), Stop> {
        let began = Instant::now();
        loop {
            let running: Vec<&Node> = self.nodes.iter().filter(|node| node.is_running()).collect();
            let all = running.len() as u32;
            if all > 0
                && running
                    .iter()
                    .all(|node| brokers(node.address()).is_some_and(|known| known >= all))
            {
                return Ok(());
            }
            if all == 0 || began.elapsed() > START_TIMEOUT {
                let words: Vec<String> = self.nodes.iter().map(Node::last_words).collect();
                return Err(Stop::failed(format!(
                    "the brokers in {} do not answer\n{}",
                    self.directory.display(),
                    words.join("\n")
                )));
            }
            pause();
        }
    }

    pub(crate) fn stop(&self, shutdown: Shutdown) -> Result<(), Stop> {
        // All at once: a controller that is stopped last has no voters left.
        std::thread::scope(|scope| {
            let stops: Vec<_> = self
                .nodes
                .iter()
                .map(|node| scope.spawn(move || node.stop(shutdown)))
                .collect();
            stops.into_iter().try_for_each(|stop| {
                stop.join()
                    .unwrap_or_else(|_| Err(Stop::failed("stopping a broker panicked")))
            })
        })
    }

    /// Stops the brokers and removes all that they wrote.
    pub(crate) fn remove(&self) -> Result<(), Stop> {
        self.stop(Shutdown::Crash)?;
        std::fs::remove_dir_all(&self.directory)
            .map_err(|error| cannot("remove", &self.directory, &error))
    }

    pub(crate) fn is_running(&self) -> bool {
        self.nodes.iter().any(Node::is_running)
    }

    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The addresses that a client is given, separated by commas.
    pub(crate) fn bootstrap(&self) -> String {
        let addresses: Vec<String> = self
            .nodes
            .iter()
            .map(|node| node.address().to_string())
            .collect();
        addresses.join(",")
    }

    /// What clients with TLS and SCRAM connect to: the first node.
    pub(crate) fn secure_url(&self) -> Result<String, Stop> {
        let path = self.directory.join(SECURE);
        std::fs::read_to_string(&path).map_err(|error| cannot("read", &path, &error))
    }

    pub(crate) fn url(&self) -> String {
        format!("kafka://{}", self.bootstrap())
    }
}

/// Free ports; all are held until all are found, so that they differ.
fn free_ports(nodes: u16) -> Result<Vec<Ports>, Stop> {
    let mut held = Vec::new();
    let mut free = || -> Result<u16, Stop> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .map_err(|error| Stop::failed(format!("no port is free: {error}")))?;
        let address = listener
            .local_addr()
            .map_err(|error| Stop::failed(format!("no port is free: {error}")))?;
        held.push(listener);
        Ok(address.port())
    };
    (0..nodes)
        .map(|_| {
            let clients = free()?;
            let secure = free()?;
            let controller = free()?;
            Ok(Ports {
                clients,
                secure,
                controller,
            })
        })
        .collect()
}
