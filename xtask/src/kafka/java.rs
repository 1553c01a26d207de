//! The Java that runs brokers: version 17 or newer.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::apt;
use crate::stop::Stop;

/// The oldest version that runs a broker of the 4 line.
const OLDEST: u32 = 17;

/// Debian's names for a Java that can run a broker, and for what fetches its jars.
const JAVA_PACKAGES: [&str; 1] = ["openjdk-17-jre-headless"];

/// A `java` program that was asked for its version.
#[derive(Clone, Debug)]
pub(crate) struct Java {
    pub(crate) program: PathBuf,
    pub(crate) version: String,
    /// Whether it was installed just now.
    pub(crate) installed: bool,
}

impl Java {
    /// The one of `JAVA_HOME`, the one of `PATH`, else one that is installed where that needs no
    /// password.
    pub(crate) fn find() -> Result<Java, Stop> {
        if let Some(java) = there() {
            return Ok(java);
        }
        if apt::install(&JAVA_PACKAGES)
            && let Some(java) = there()
        {
            return Ok(Java {
                installed: true,
                ..java
            });
        }
        Err(Stop::failed(format!(
            "a broker needs Java {OLDEST} or newer; neither JAVA_HOME nor PATH has one; install \
             it (Debian and Ubuntu: `apt-get install {}`)",
            JAVA_PACKAGES.join(" ")
        )))
    }
}

fn there() -> Option<Java> {
    let home = std::env::var_os("JAVA_HOME").map(|home| PathBuf::from(home).join("bin/java"));
    home.into_iter()
        .chain([PathBuf::from("java")])
        .find_map(|program| {
            let output = Command::new(&program)
                .arg("-version")
                .stdin(Stdio::null())
                .output()
                .ok()?;
            // It answers on its standard error.
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let version = version(&said)?;
            (major(version)? >= OLDEST).then(|| Java {
                program,
                version: version.to_owned(),
                installed: false,
            })
        })
}

/// What is in quotes on the first line.
fn version(said: &str) -> Option<&str> {
    said.split('"').nth(1)
}

/// `17.0.15` is 17, and `1.8.0_292` is 8.
fn major(version: &str) -> Option<u32> {
    let mut parts = version.split(['.', '-', '+', '_']);
    match parts.next()?.parse().ok()? {
        1 => parts.next()?.parse().ok(),
        major => Some(major),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_java_is_known_by_what_it_says_of_itself() {
        for (said, expected) in [
            ("openjdk version \"17.0.15\" 2025-04-15\nmore", Some(17)),
            ("java version \"1.8.0_292\"", Some(8)),
            ("openjdk version \"21\" 2023-09-19", Some(21)),
            ("openjdk version \"25-ea\" 2025-09-16", Some(25)),
            ("command not found", None),
        ] {
            assert_eq!(version(said).and_then(major), expected, "{said}");
        }
    }
}
