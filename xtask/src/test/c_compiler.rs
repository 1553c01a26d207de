//! SQLite is compiled from its C source, so a C compiler and the C library's headers must be there.

use std::io::Write;
use std::process::{Command, Stdio};

use super::need::{Need, State};
use crate::apt;

/// Debian's names for what compiles and links a C program.
const PACKAGES: [&str; 2] = ["gcc", "libc6-dev"];

/// Finds a C compiler, or installs one where this user may install things without being asked for a
/// password.
pub(crate) fn need() -> Need {
    let name = "C compiler";
    if let Some(version) = working() {
        return Need {
            name,
            state: State::Found(version),
        };
    }
    let advice = format!(
        "SQLite is compiled from source and `{}` cannot compile a C program; install a C compiler \
         (Debian and Ubuntu: `apt-get install {}`; macOS: `xcode-select --install`) or name one in \
         CC",
        compiler(),
        PACKAGES.join(" "),
    );
    // Who names a compiler in CC has chosen; another one would not be used.
    let chosen = std::env::var_os("CC").is_some();
    let state = match (!chosen && apt::install(&PACKAGES)).then(working).flatten() {
        Some(version) => State::Installed(version),
        None => State::Missing(advice),
    };
    Need { name, state }
}

/// The compiler that builds SQLite.
fn compiler() -> String {
    std::env::var("CC").unwrap_or_else(|_| "cc".to_owned())
}

/// The compiler's version line, when it compiles a program that includes a header of the C library.
fn working() -> Option<String> {
    let compiler = compiler();
    // CC may carry flags or a wrapper, as in `ccache cc`.
    let mut words = compiler.split_whitespace();
    let name = words.next()?;
    let command = |arguments: &[&str]| {
        let mut command = Command::new(name);
        command
            .args(words.clone())
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        command
    };

    let mut child = command(&["-x", "c", "-fsyntax-only", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .ok()?;
    child
        .stdin
        .take()?
        .write_all(b"#include <stdio.h>\nint main(void) { return 0; }\n")
        .ok()?;
    if !child.wait().ok()?.success() {
        return None;
    }

    let version = command(&["--version"]).stdin(Stdio::null()).output().ok()?;
    String::from_utf8_lossy(&version.stdout)
        .lines()
        .next()
        .map(str::to_owned)
}
