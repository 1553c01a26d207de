//! A private server for as long as this program runs: it and its files are gone afterwards, however
//! the program ends.
//!
//! A second process, the guard, reads from a pipe that only this program holds open. When the pipe
//! ends, by a normal end, Ctrl-C or `kill -9`, the guard stops the server and removes it. Should
//! the guard be killed too, the next run does its work: a file that both keep locked tells it that
//! nobody is left.

use std::fs::{File, TryLockError};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::account::Account;
use super::binaries::Binaries;
use super::cluster::{Cluster, Port};
use super::place;
use crate::stop::Stop;

/// The word that makes this program a guard, after `cargo xtask postgres`.
pub(crate) const GUARD: &str = "guard";

/// The environment variables that tests read.
pub(crate) const URL: &str = "ANNALS_TEST_POSTGRES";
pub(crate) const CONTROL: &str = "ANNALS_TEST_POSTGRES_CONTROL";

/// What the names of lent servers' directories begin with.
const PREFIX: &str = "lent-";

/// The file of a lent server's directory that its owner and its guard keep locked.
const LOCK: &str = "in-use";

/// A server that is stopped and removed when this is dropped, or when the process ends.
#[derive(Debug)]
pub(crate) struct Lent {
    cluster: Cluster,
    guard: Child,
    _lock: File,
}

impl Lent {
    /// Starts a server for this run, after stopping those that earlier runs left behind.
    pub(crate) fn start(binaries: &Binaries, account: &Account) -> Result<Self, Stop> {
        let place = place::directory(account)?;
        remove_abandoned(&place, binaries, account);
        let directory = place.join(format!("{PREFIX}{}", std::process::id()));
        std::fs::create_dir_all(&directory).map_err(|error| failed(&directory, &error))?;
        let lock = lock(&directory)?;
        let guard = guard(&directory, &binaries.directory)?;
        let cluster = Cluster::create(directory, binaries, account)?;
        let lent = Self {
            cluster,
            guard,
            _lock: lock,
        };
        lent.cluster.start(Port::Any)?;
        Ok(lent)
    }

    /// Where it is, for people.
    pub(crate) fn shown(&self) -> String {
        format!(
            "private, fsync on, in {}",
            self.cluster.directory().display()
        )
    }

    /// What tests must know of it: its URL, and on Unix a program that stops, kills and starts it.
    pub(crate) fn environment(&self) -> Result<Vec<(&'static str, String)>, Stop> {
        let mut environment = vec![(URL, self.cluster.url()?)];
        if cfg!(unix) {
            environment.push((CONTROL, self.control()?));
        }
        Ok(environment)
    }

    /// Writes the program, which takes one word.
    fn control(&self) -> Result<String, Stop> {
        let path = self.cluster.directory().join("control");
        let quoted =
            |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
        let ourselves = ourselves()?;
        let directory = self.cluster.directory();
        let words = [&*ourselves, directory, self.cluster.binaries()].map(quoted);
        let [ourselves, directory, binaries] = words;
        let script = format!(
            "#!/bin/sh\nexec {ourselves} postgres {} {directory} {binaries} \"$1\"\n",
            super::TELL
        );
        std::fs::write(&path, script).map_err(|error| failed(&path, &error))?;
        #[cfg(unix)]
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .map_err(|error| failed(&path, &error))?;
        Ok(path.display().to_string())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // The pipe's end is the guard's signal; its complaints are on our standard error.
        drop(self.guard.stdin.take());
        if !self.guard.wait().is_ok_and(|status| status.success()) {
            eprintln!(
                "the server in {} was not stopped",
                self.cluster.directory().display()
            );
        }
    }
}

/// Starts a guard, which lives on when the terminal interrupts everything else.
fn guard(directory: &Path, binaries: &Path) -> Result<Child, Stop> {
    let mut guard = Command::new(ourselves()?);
    guard
        .args(["postgres", GUARD])
        .arg(directory)
        .arg(binaries)
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut guard, 0);
    guard
        .spawn()
        .map_err(|error| Stop::failed(format!("cannot start a guard for the server: {error}")))
}

/// The guard's work: waits for the pipe to end, then stops the server and removes it.
pub(crate) fn stand_guard(directory: &str, binaries: &str) -> Result<(), Stop> {
    let directory = PathBuf::from(directory);
    let _lock = lock(&directory)?;
    // Nothing is ever written to it: this returns when its other end is gone.
    let _ = std::io::stdin().read(&mut [0]);
    Cluster::at(directory, binaries.into(), Account::for_server()?).remove()
}

fn lock(directory: &Path) -> Result<File, Stop> {
    let file = File::create(directory.join(LOCK)).map_err(|error| failed(directory, &error))?;
    file.lock_shared()
        .map_err(|error| failed(directory, &error))?;
    Ok(file)
}

/// Stops and removes the servers whose owner and guard are both gone.
fn remove_abandoned(place: &Path, binaries: &Binaries, account: &Account) {
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)) {
        let directory = entry.path();
        let Ok(file) = File::create(directory.join(LOCK)) else {
            continue;
        };
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(_)) | Ok(()) => {}
        }
        println!(
            "an earlier run left a server behind: removing {}",
            directory.display()
        );
        let abandoned = Cluster::at(directory, binaries.directory.clone(), account.clone());
        if let Err(stop) = abandoned.remove() {
            println!("{stop}");
        }
    }
}

fn ourselves() -> Result<PathBuf, Stop> {
    std::env::current_exe()
        .map_err(|error| Stop::failed(format!("cannot find this program: {error}")))
}

fn failed(directory: &Path, error: &std::io::Error) -> Stop {
    Stop::failed(format!("cannot use {}: {error}", directory.display()))
}
