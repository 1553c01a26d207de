//! A private cluster for as long as this program runs: it and its files are gone afterwards, however
//! the program ends. As with the PostgreSQL of a run, a guard reads from a pipe that only this
//! program holds open, and stops the brokers when that ends.

use std::fs::{File, TryLockError};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::cluster::Cluster;
use super::jars::Jars;
use super::java::Java;
use super::{cannot, make, place};
use crate::stop::Stop;

/// The word that makes this program a guard, after `cargo xtask kafka`.
pub(crate) const GUARD: &str = "guard";

/// The environment variables that tests read.
pub(crate) const BOOTSTRAP: &str = "ANNALS_TEST_KAFKA";
pub(crate) const CONTROL: &str = "ANNALS_TEST_KAFKA_CONTROL";
pub(crate) const JARS: &str = "ANNALS_TEST_KAFKA_JARS";

/// What the names of lent clusters' directories begin with.
const PREFIX: &str = "lent-";

/// The file of a lent cluster's directory that its owner and its guard keep locked.
const LOCK: &str = "in-use";

/// A cluster that is stopped and removed when this is dropped, or when the process ends.
#[derive(Debug)]
pub(crate) struct Lent {
    cluster: Cluster,
    guard: Child,
    _lock: File,
}

impl Lent {
    /// Starts a cluster for this run, after removing those that earlier runs left behind.
    pub(crate) fn start(java: &Java, jars: &Jars, nodes: u16) -> Result<Self, Stop> {
        remove_abandoned(&place());
        let directory = place().join(format!("{PREFIX}{}-{nodes}", std::process::id()));
        make(&directory)?;
        let lock = lock(&directory)?;
        let guard = guard(&directory)?;
        let cluster = Cluster::create(directory, java, jars, nodes)?;
        let lent = Self {
            cluster,
            guard,
            _lock: lock,
        };
        lent.cluster.start()?;
        Ok(lent)
    }

    /// Where it is, for a closing line.
    pub(crate) fn shown(&self) -> String {
        let nodes = self.cluster.nodes().len();
        let directory = self.cluster.directory().display();
        format!("private, {nodes} node(s), in {directory}")
    }

    /// What tests must know of it: where to connect, and on Unix a program that stops, kills and
    /// starts its nodes.
    pub(crate) fn environment(&self) -> Result<Vec<(&'static str, String)>, Stop> {
        let mut environment = vec![(BOOTSTRAP, self.cluster.bootstrap())];
        if cfg!(unix) {
            environment.push((CONTROL, self.control()?));
        }
        Ok(environment)
    }

    /// Writes the program, which takes a word and the number of a node.
    fn control(&self) -> Result<String, Stop> {
        let directory = self.cluster.directory();
        let path = directory.join("control");
        let quoted =
            |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
        let script = format!(
            "#!/bin/sh\nexec {} kafka {} {} \"$1\" \"${{2:-1}}\"\n",
            quoted(&ourselves()?),
            super::TELL,
            quoted(directory),
        );
        std::fs::write(&path, script).map_err(|error| cannot("write", &path, &error))?;
        #[cfg(unix)]
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .map_err(|error| cannot("write", &path, &error))?;
        Ok(path.display().to_string())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // The pipe's end is the guard's signal; its complaints are on our standard error.
        drop(self.guard.stdin.take());
        if !self.guard.wait().is_ok_and(|status| status.success()) {
            let directory = self.cluster.directory().display();
            eprintln!("the brokers in {directory} were not stopped");
        }
    }
}

/// Starts a guard, which lives on when the terminal interrupts everything else.
fn guard(directory: &Path) -> Result<Child, Stop> {
    let mut guard = Command::new(ourselves()?);
    guard
        .args(["kafka", GUARD])
        .arg(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut guard, 0);
    guard
        .spawn()
        .map_err(|error| Stop::failed(format!("cannot start a guard for the brokers: {error}")))
}

/// The guard's work: waits for the pipe to end, then stops the brokers and removes them.
pub(crate) fn stand_guard(directory: &str) -> Result<(), Stop> {
    let directory = PathBuf::from(directory);
    let _lock = lock(&directory)?;
    // Nothing is ever written to it: this returns when its other end is gone.
    let _ = std::io::stdin().read(&mut [0]);
    remove(directory)
}

fn remove(directory: PathBuf) -> Result<(), Stop> {
    match Cluster::at(directory.clone()) {
        Ok(cluster) => cluster.remove(),
        // It was never complete, so no broker was started.
        Err(_) => std::fs::remove_dir_all(&directory)
            .map_err(|error| cannot("remove", &directory, &error)),
    }
}

fn lock(directory: &Path) -> Result<File, Stop> {
    let file =
        File::create(directory.join(LOCK)).map_err(|error| cannot("use", directory, &error))?;
    file.lock_shared()
        .map_err(|error| cannot("use", directory, &error))?;
    Ok(file)
}

/// Stops and removes the clusters whose owner and guard are both gone.
fn remove_abandoned(place: &Path) {
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)) {
        let directory = entry.path();
        let Ok(file) = File::create(directory.join(LOCK)) else {
            continue;
        };
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            continue;
        }
        println!(
            "an earlier run left brokers behind: removing {}",
            directory.display()
        );
        if let Err(stop) = remove(directory) {
            println!("{stop}");
        }
    }
}

fn ourselves() -> Result<PathBuf, Stop> {
    std::env::current_exe()
        .map_err(|error| Stop::failed(format!("cannot find this program: {error}")))
}
