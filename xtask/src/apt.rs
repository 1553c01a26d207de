//! Debian's packages, installed where that can be done without asking anybody for a password.

use std::process::{Command, Stdio};

use crate::program::{program, run};

/// Whether `apt-get` was there, could be used without a password, and said that it did it.
pub(crate) fn install(packages: &[&str]) -> bool {
    if !succeeds("apt-get", &["--version"]) {
        return false;
    }
    let is_root = user_id().is_some_and(|id| id == "0");
    if !is_root && !succeeds("sudo", &["-n", "true"]) {
        return false;
    }
    let apt_get = |arguments: &[&str]| {
        let words = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
            .iter()
            .chain(arguments);
        let mut command = if is_root {
            program("env", words.skip(1))
        } else {
            program("sudo", ["-n"].iter().chain(words))
        };
        run(command.stdin(Stdio::null())).is_ok()
    };
    apt_get(&["update", "-q"])
        && apt_get(
            &[
                &["install", "-q", "-y", "--no-install-recommends"],
                packages,
            ]
            .concat(),
        )
}

fn user_id() -> Option<String> {
    let output = Command::new("id").arg("-u").output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn succeeds(name: &str, arguments: &[&str]) -> bool {
    let mut command = program(name, arguments);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
