//! One broker of a private cluster: its settings, its process, its port.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{cannot, pause, secure};
use crate::process::command_line;
use crate::program::answer;
use crate::stop::Stop;

/// The id of every private cluster.
const CLUSTER_ID: &str = "AnnalsPrivateCluster00";

/// How long a broker may take to end after it was asked to.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// What every broker is given beside its ports. Times that default to seconds are short, because
/// tests wait for them; indexes are small, because there are many topics.
const SETTINGS: &str = "\
process.roles=broker,controller
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SECURE:SASL_SSL
auto.create.topics.enable=false
num.partitions=4
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
transaction.abort.timed.out.transaction.cleanup.interval.ms=500
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
log.cleaner.backoff.ms=200
log.index.size.max.bytes=65536
message.max.bytes=16777216
";

/// What the nodes of a cluster of several are given, so that a crash is noticed in seconds.
const SEVERAL: &str = "\
min.insync.replicas=2
controller.quorum.election.timeout.ms=500
controller.quorum.fetch.timeout.ms=1000
replica.lag.time.max.ms=3000
";

/// How a broker is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shutdown {
    /// It hands over what it leads and closes its files.
    Clean,
    /// As in a crash: the next start recovers.
    Crash,
}

/// Where a broker listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) clients: u16,
    /// For clients that come with TLS and SCRAM.
    pub(crate) secure: u16,
    pub(crate) controller: u16,
}

/// One broker, running or not. Its directory holds `server.properties`, `data`, `log` and `pid`.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) directory: PathBuf,
    pub(crate) java: PathBuf,
    pub(crate) libs: PathBuf,
    pub(crate) port: u16,
}

impl Node {
    /// Writes the settings of node `number` of a cluster with these ports and makes its files.
    pub(crate) fn create(&self, number: usize, ports: &[Ports], keys: &Path) -> Result<(), Stop> {
        std::fs::create_dir_all(&self.directory)
            .map_err(|error| cannot("make", &self.directory, &error))?;
        let path = self.settings();
        let settings = settings(number, ports, &self.directory.join("data"), keys);
        std::fs::write(&path, settings).map_err(|error| cannot("write", &path, &error))?;
        let mut format = self.java("kafka.tools.StorageTool");
        format
            .args(["format", "-t", CLUSTER_ID, "-c"])
            .arg(self.settings())
            .args(["--add-scram", &secure::scram()]);
        answer(&mut format).map(|_| ())
    }

    /// Starts it unless it runs. It may not answer yet when this returns.
    pub(crate) fn start(&self) -> Result<(), Stop> {
        if self.is_running() {
            return Ok(());
        }
        let path = self.directory.join("log");
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(|error| cannot("write", &path, &error))?;
        let errors = log
            .try_clone()
            .map_err(|error| cannot("write", &path, &error))?;
        let mut broker = self.java("kafka.Kafka");
        broker
            .arg(self.settings())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        // What the terminal interrupts is not this: its guard, or `down`, stops it.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut broker, 0);
        let mut child = broker
            .spawn()
            .map_err(|error| Stop::failed(format!("cannot start a broker: {error}")))?;
        let path = self.directory.join("pid");
        std::fs::write(&path, child.id().to_string())
            .map_err(|error| cannot("write", &path, &error))?;
        // A process that has just begun may not have its words yet, by which it is known.
        while !self.is_running() && matches!(child.try_wait(), Ok(None)) {
            pause();
        }
        Ok(())
    }

    pub(crate) fn stop(&self, shutdown: Shutdown) -> Result<(), Stop> {
        let Some(pid) = self.pid() else {
            return Ok(());
        };
        let signal = match shutdown {
            Shutdown::Clean => "-TERM",
            Shutdown::Crash => "-KILL",
        };
        signal_to(signal, pid)?;
        let began = Instant::now();
        while self.is_running() {
            if began.elapsed() > STOP_TIMEOUT {
                signal_to("-KILL", pid)?;
            }
            pause();
        }
        Ok(())
    }

    /// Stands still, with its connections open.
    pub(crate) fn pause(&self) -> Result<(), Stop> {
        self.pid().map_or(Ok(()), |pid| signal_to("-STOP", pid))
    }

    pub(crate) fn resume(&self) -> Result<(), Stop> {
        self.pid().map_or(Ok(()), |pid| signal_to("-CONT", pid))
    }

    pub(crate) fn is_running(&self) -> bool {
        self.pid().is_some()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The last lines of its log, for an error message.
    pub(crate) fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// Its process, when that is alive and is this broker: numbers of processes come again.
    fn pid(&self) -> Option<u32> {
        let pid: u32 = std::fs::read_to_string(self.directory.join("pid"))
            .ok()?
            .trim()
            .parse()
            .ok()?;
        let ours = self.settings().display().to_string();
        command_line(pid)?.ends_with(&ours).then_some(pid)
    }

    fn settings(&self) -> PathBuf {
        self.directory.join("server.properties")
    }

    /// A class of the broker's jars, in a small heap that is quick to start.
    fn java(&self, class: &str) -> Command {
        let mut java = Command::new(&self.java);
        java.args([
            "-Xmx256m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-cp",
        ])
        .arg(self.libs.join("*"))
        .arg(class)
        .current_dir(&self.directory);
        java
    }
}

fn signal_to(signal: &str, pid: u32) -> Result<(), Stop> {
    let mut kill = Command::new("kill");
    kill.args([signal, &pid.to_string()])
        .stderr(Stdio::null())
        .stdin(Stdio::null());
    // It may have ended by itself in between.
    kill.status()
        .map(|_| ())
        .map_err(|error| Stop::failed(format!("`kill` could not be started: {error}")))
}

/// The settings of node `number`, counted from 0.
fn settings(number: usize, ports: &[Ports], data: &Path, keys: &Path) -> String {
    let mine = ports[number];
    let voters: Vec<String> = ports
        .iter()
        .enumerate()
        .map(|(index, ports)| format!("{}@127.0.0.1:{}", index + 1, ports.controller))
        .collect();
    let replicas = ports.len();
    let mut settings = SETTINGS.to_owned();
    settings += &format!("node.id={}\n", number + 1);
    settings += &format!("controller.quorum.voters={}\n", voters.join(","));
    let for_clients = format!(
        "PLAINTEXT://127.0.0.1:{},SECURE://127.0.0.1:{}",
        mine.clients, mine.secure
    );
    settings += &format!(
        "listeners={for_clients},CONTROLLER://127.0.0.1:{}\n",
        mine.controller
    );
    settings += &format!("advertised.listeners={for_clients}\n");
    settings += &secure::settings(keys);
    settings += &format!("log.dirs={}\n", data.display());
    for name in [
        "default.replication.factor",
        "offsets.topic.replication.factor",
        "transaction.state.log.replication.factor",
    ] {
        settings += &format!("{name}={replicas}\n");
    }
    settings += &format!("transaction.state.log.min.isr={}\n", replicas.div_ceil(2));
    if replicas > 1 {
        settings += SEVERAL;
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_knows_all_voters_and_has_own_ports() {
        let ports: Vec<Ports> = [(1, 2, 7), (3, 4, 8), (5, 6, 9)]
            .map(|(clients, controller, secure)| Ports {
                clients,
                secure,
                controller,
            })
            .into();
        let settings = settings(1, &ports, Path::new("/d"), Path::new("/k"));
        for line in [
            "node.id=2",
            "controller.quorum.voters=1@127.0.0.1:2,2@127.0.0.1:4,3@127.0.0.1:6",
            "listeners=PLAINTEXT://127.0.0.1:3,SECURE://127.0.0.1:8,CONTROLLER://127.0.0.1:4",
            "advertised.listeners=PLAINTEXT://127.0.0.1:3,SECURE://127.0.0.1:8",
            "listener.name.secure.ssl.keystore.location=/k",
            "transaction.state.log.min.isr=2",
            "min.insync.replicas=2",
        ] {
            assert!(
                settings.lines().any(|found| found == line),
                "{line} in\n{settings}"
            );
        }
    }
}
