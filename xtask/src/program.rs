//! Other programs: which cargo, where, and what they answered.

use std::ffi::{OsStr, OsString};
use std::io::{PipeReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use crate::stop::Stop;
use crate::terminal::say;

/// The directory of the workspace's `Cargo.toml`.
pub(crate) fn root() -> PathBuf {
    // Asked at run time: a target directory can be shared by several checkouts.
    let here =
        std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let here = PathBuf::from(here);
    here.parent().map(Path::to_owned).unwrap_or(here)
}

/// Where cargo puts what it builds: a relative `CARGO_TARGET_DIR` means the directory in which it
/// was typed, for cargo and so for us.
pub(crate) fn target_directory() -> PathBuf {
    let here = std::env::current_dir().unwrap_or_else(|_| root());
    target_directory_of(std::env::var_os("CARGO_TARGET_DIR"), &here, &root())
}

fn target_directory_of(named: Option<OsString>, here: &Path, root: &Path) -> PathBuf {
    named
        .filter(|named| !named.is_empty())
        .map_or_else(|| root.join("target"), |named| here.join(named))
}

/// The cargo that runs this program, in the workspace's directory.
pub(crate) fn cargo<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(arguments).current_dir(root());
    // What cargo says of this program to it is not for others: build scripts look at some of it,
    // and what depends on them would be compiled again whenever it differs.
    for (name, _) in std::env::vars_os() {
        if is_of_this_package(&name) {
            command.env_remove(name);
        }
    }
    // A relative one would mean another place there.
    if std::env::var_os("CARGO_TARGET_DIR").is_some() {
        command.env("CARGO_TARGET_DIR", target_directory());
    }
    command
}

/// Whether `cargo run` set it to tell a program of its package.
fn is_of_this_package(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| {
        name.starts_with("CARGO_PKG_")
            || name.starts_with("CARGO_MANIFEST_")
            || matches!(name, "CARGO_CRATE_NAME" | "CARGO_BIN_NAME" | "OUT_DIR")
    })
}

/// Any other program, in the workspace's directory.
pub(crate) fn program<A: AsRef<OsStr>>(
    name: &str,
    arguments: impl IntoIterator<Item = A>,
) -> Command {
    let mut command = Command::new(name);
    command.args(arguments).current_dir(root());
    command
}

/// Runs to the end, with its output where ours goes.
pub(crate) fn run(command: &mut Command) -> Result<(), Stop> {
    say!("$ {}", shown(command));
    let status = command
        .status()
        .map_err(|error| not_started(command, &error))?;
    if status.success() {
        Ok(())
    } else {
        Err(Stop::failed(format!(
            "`{}` failed ({status})",
            shown(command)
        )))
    }
}

/// Runs to the end and returns what it printed; what it complained about is in the error.
pub(crate) fn answer(command: &mut Command) -> Result<String, Stop> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| not_started(command, &error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(Stop::failed(format!(
        "`{}` failed ({})\n{}",
        shown(command),
        output.status,
        complaint.trim_end()
    )))
}

/// Runs to the end with its output and errors, in their order, where our output goes, and hands the
/// same bytes to `watch` as they come.
///
/// `Ok(false)` when the program said that it failed. A process that it left running, still holding
/// the output, is not waited for.
pub(crate) fn run_watched(
    command: &mut Command,
    mut watch: impl FnMut(&[u8]),
) -> Result<bool, Stop> {
    say!("$ {}", shown(command));
    let mut ours = std::io::stdout();
    run_heard(command, |piece| {
        watch(piece);
        // The reader may be gone; the exit code is still wanted.
        let _ = ours.write_all(piece).and_then(|()| ours.flush());
    })
}

/// As [`run_watched`], with nothing shown.
pub(crate) fn run_heard(command: &mut Command, mut hear: impl FnMut(&[u8])) -> Result<bool, Stop> {
    let lost = |command: &Command, error| {
        Stop::failed(format!("lost sight of `{}`: {error}", shown(command)))
    };
    // One pipe for both: what cargo says between two test programs stays between them.
    let (output, input) = std::io::pipe().map_err(|error| lost(command, error))?;
    let errors = input.try_clone().map_err(|error| lost(command, error))?;
    let mut child = command
        .stdout(input)
        .stderr(errors)
        .spawn()
        .map_err(|error| not_started(command, &error))?;
    // Ours are closed, so that the pipe ends with the program.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let pieces = pieces(output);
    loop {
        match pieces.recv_timeout(Duration::from_millis(200)) {
            Ok(piece) => hear(&piece),
            Err(RecvTimeoutError::Timeout) => {
                if child
                    .try_wait()
                    .map_err(|error| lost(command, error))?
                    .is_some()
                {
                    break;
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    Ok(child
        .wait()
        .map_err(|error| lost(command, error))?
        .success())
}

/// What comes out of a pipe, read on a thread of its own that ends with the pipe, or with this
/// program.
fn pieces(mut pipe: PipeReader) -> Receiver<Vec<u8>> {
    let (sender, receiver) = sync_channel(16);
    std::thread::spawn(move || {
        let mut buffer = [0; 8 * 1024];
        while let Ok(read @ 1..) = pipe.read(&mut buffer) {
            if sender.send(buffer[..read].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}

/// The command as it would be typed.
pub(crate) fn shown(command: &Command) -> String {
    let name = Path::new(command.get_program())
        .file_name()
        .unwrap_or(command.get_program());
    let words = std::iter::once(name).chain(command.get_args());
    words
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

fn not_started(command: &Command, error: &std::io::Error) -> Stop {
    Stop::failed(format!(
        "`{}` could not be started: {error}",
        shown(command)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_watched_and_orphans_are_not_awaited() {
        let mut seen = Vec::new();
        let mut command = program("sh", ["-c", "echo first; sleep 60 & echo \"last $!\""]);
        assert!(run_watched(&mut command, |piece| seen.extend_from_slice(piece)).unwrap());
        let seen = String::from_utf8(seen).unwrap();
        let (first, last) = seen.trim().split_once('\n').unwrap();
        assert_eq!(first, "first");
        let last_child = last.strip_prefix("last ").unwrap();
        assert!(
            run(&mut program("kill", [last_child])).is_ok(),
            "it should still have been there"
        );
    }

    #[test]
    fn a_relative_target_directory_is_where_it_was_typed() {
        let of = |named: &str| {
            let named = (!named.is_empty()).then(|| named.into());
            target_directory_of(named, Path::new("/clone/core"), Path::new("/clone"))
        };
        assert_eq!(of(""), Path::new("/clone/target"));
        assert_eq!(of("../built"), Path::new("/clone/core/../built"));
        assert_eq!(of("/elsewhere"), Path::new("/elsewhere"));
    }

    #[test]
    fn other_packages_are_not_told_of_this_one() {
        let command = cargo(["test"]);
        let removed: Vec<_> = command
            .get_envs()
            .filter(|(_, value)| value.is_none())
            .map(|(name, _)| name.to_owned())
            .collect();
        for name in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME"] {
            assert!(removed.contains(&OsString::from(name)), "{name}");
        }
    }

    #[test]
    fn a_program_that_says_it_failed_is_believed() {
        assert!(!run_watched(&mut program("false", [""; 0]), |_| ()).unwrap());
        assert!(answer(&mut program("false", [""; 0])).is_err());
    }
}
