//! Who the server runs as: it refuses to run as root.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::program::answer;
use crate::stop::Stop;

/// A user of this machine, as far as the server's programs need one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    /// Root's choice of another user. Only root can become another user.
    other: Option<Ids>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ids {
    user: u32,
    group: u32,
}

/// Whom root lets run the server, the first that exists.
const STAND_INS: [&str; 2] = ["postgres", "nobody"];

impl Account {
    /// Who runs this, or a stand-in for root.
    pub(crate) fn for_server() -> Result<Self, Stop> {
        if id(&["-u"]) != Some(0) {
            return Ok(Self { other: None });
        }
        let stand_in = STAND_INS.iter().find_map(|name| {
            Some(Ids {
                user: id(&["-u", name])?,
                group: id(&["-g", name])?,
            })
        });
        match stand_in {
            Some(ids) => Ok(Self { other: Some(ids) }),
            None => Err(Stop::failed(format!(
                "the server refuses to run as root, and this machine has no user {}",
                STAND_INS.join(" or ")
            ))),
        }
    }

    /// The command, run by this user.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        if let Some(ids) = self.other {
            become_user(&mut command, ids);
        }
        command
    }

    /// Whether this user can reach what is in the directory.
    pub(crate) fn can_enter(&self, directory: &Path) -> bool {
        let mut test = self.command("test");
        test.arg("-x")
            .arg(directory)
            .current_dir("/")
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        self.other.is_none() || test.status().is_ok_and(|status| status.success())
    }

    /// Makes the file or directory this user's own.
    pub(crate) fn give(&self, path: &Path) -> Result<(), Stop> {
        let given = self.other.map_or(Ok(()), |ids| change_owner(path, ids));
        given.map_err(|error| {
            Stop::failed(format!(
                "cannot give {} to the server's user: {error}",
                path.display()
            ))
        })
    }
}

fn id(arguments: &[&str]) -> Option<u32> {
    answer(Command::new("id").args(arguments))
        .ok()?
        .trim()
        .parse()
        .ok()
}

#[cfg(unix)]
fn become_user(command: &mut Command, ids: Ids) {
    use std::os::unix::process::CommandExt;
    // Root's further groups are given up with this.
    command.uid(ids.user).gid(ids.group);
}

#[cfg(unix)]
fn change_owner(path: &Path, ids: Ids) -> std::io::Result<()> {
    std::os::unix::fs::chown(path, Some(ids.user), Some(ids.group))
}

// Without Unix there is no root.
#[cfg(not(unix))]
fn become_user(_: &mut Command, _: Ids) {}

#[cfg(not(unix))]
fn change_owner(_: &Path, _: Ids) -> std::io::Result<()> {
    Ok(())
}
