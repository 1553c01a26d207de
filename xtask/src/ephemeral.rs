//! Servers for as long as this program runs: they and their files are gone afterwards, however the
//! program ends.
//!
//! A second process, the guard, reads from a pipe that only this program holds open. When the pipe
//! ends, by a normal end, Ctrl-C or `kill -9`, the guard stops the server and removes it. Should
//! the guard be killed too, the next run does its work: a file that both keep locked shows that
//! neither is alive.

use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::stop::Stop;
use crate::terminal::{complain, say};

/// The word that makes this program a guard, after `cargo xtask postgres` or `cargo xtask kafka`.
pub(crate) const GUARD: &str = "guard";

/// What the names of ephemeral servers' directories begin with.
const PREFIX: &str = "run-";

/// The file of such a directory that its owner and its guard keep locked.
const LOCK: &str = "in-use";

/// The directory of a server whose guard stops and removes it when this is dropped.
#[derive(Debug)]
pub(crate) struct Ephemeral {
    directory: PathBuf,
    guard: Child,
    _lock: File,
}

impl Ephemeral {
    /// Makes a directory below `place` and starts its guard: this program, given the name of the
    /// server, the directory and further words. One run can have several with a `suffix` each.
    pub(crate) fn create(
        place: &Path,
        suffix: &str,
        server: &str,
        words: &[&OsStr],
    ) -> Result<Self, Stop> {
        let directory = place.join(format!("{PREFIX}{}{suffix}", std::process::id()));
        std::fs::create_dir_all(&directory).map_err(|error| failed(&directory, &error))?;
        let lock = lock(&directory)?;
        let guard = start_guard(server, &directory, words)?;
        Ok(Self {
            directory,
            guard,
            _lock: lock,
        })
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes a program that calls this one with the words, and with those that it is given.
    pub(crate) fn control(&self, words: &[&OsStr]) -> Result<String, Stop> {
        self.script("control", words)
    }

    /// The same under another name.
    pub(crate) fn script(&self, name: &str, words: &[&OsStr]) -> Result<String, Stop> {
        let path = self.directory.join(name);
        let quoted = |word: &OsStr| format!("'{}'", word.to_string_lossy().replace('\'', r"'\''"));
        let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        let this_program = quoted(this_program()?.as_os_str());
        let script = format!(
            "#!/bin/sh\nexec {this_program} {} \"$@\"\n",
            words.join(" ")
        );
        std::fs::write(&path, script).map_err(|error| failed(&path, &error))?;
        #[cfg(unix)]
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .map_err(|error| failed(&path, &error))?;
        Ok(path.display().to_string())
    }
}

impl Drop for Ephemeral {
    fn drop(&mut self) {
        // The pipe's end is the guard's signal; its complaints are on our standard error.
        drop(self.guard.stdin.take());
        if !self.guard.wait().is_ok_and(|status| status.success()) {
            complain!("the server in {} was not stopped", self.directory.display());
        }
    }
}

/// Starts a guard, which lives on when the terminal interrupts everything else.
fn start_guard(server: &str, directory: &Path, words: &[&OsStr]) -> Result<Child, Stop> {
    let mut guard = Command::new(this_program()?);
    guard
        .args([server, GUARD])
        .arg(directory)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut guard, 0);
    guard
        .spawn()
        .map_err(|error| Stop::failed(format!("cannot start a guard for the server: {error}")))
}

/// The guard's work: waits for the pipe to end, then has the server stopped and removed.
pub(crate) fn stand_guard(
    directory: &Path,
    remove: impl FnOnce(PathBuf) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let _lock = lock(directory)?;
    // Nothing is ever written to it: this returns when its other end is gone.
    let _ = std::io::stdin().read(&mut [0]);
    remove(directory.to_owned())
}

/// Has the servers stopped and removed whose owner and guard are both gone.
pub(crate) fn remove_abandoned(place: &Path, remove: impl Fn(PathBuf) -> Result<(), Stop>) {
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)) {
        let directory = entry.path();
        let Ok(file) = File::create(directory.join(LOCK)) else {
            continue;
        };
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            continue;
        }
        say!(
            "an earlier run left a server: removing {}",
            directory.display()
        );
        if let Err(stop) = remove(directory) {
            say!("{stop}");
        }
    }
}

fn lock(directory: &Path) -> Result<File, Stop> {
    let file = File::create(directory.join(LOCK)).map_err(|error| failed(directory, &error))?;
    file.lock_shared()
        .map_err(|error| failed(directory, &error))?;
    Ok(file)
}

fn this_program() -> Result<PathBuf, Stop> {
    std::env::current_exe()
        .map_err(|error| Stop::failed(format!("cannot find this program: {error}")))
}

fn failed(path: &Path, error: &std::io::Error) -> Stop {
    Stop::failed(format!("cannot use {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn only_servers_without_owner_and_guard_are_removed() {
        let place = std::env::temp_dir().join(format!("annals-ephemeral-{}", std::process::id()));
        for name in ["run-1", "run-2", "developers"] {
            std::fs::create_dir_all(place.join(name)).unwrap();
        }
        let _owned = lock(&place.join("run-2")).unwrap();
        let removed = RefCell::new(Vec::new());
        remove_abandoned(&place, |directory| {
            removed.borrow_mut().push(directory);
            Ok(())
        });
        assert_eq!(removed.into_inner(), [place.join("run-1")]);
        std::fs::remove_dir_all(&place).unwrap();
    }
}
