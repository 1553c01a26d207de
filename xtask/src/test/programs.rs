//! Test programs as cargo compiled them, run several at once: the last tests of a program are often
//! few and long, and others go on beside them.

use std::collections::VecDeque;
use std::env::{join_paths, split_paths, var_os};
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use serde_json::Value;

use super::calls::environment;
use super::server::Server;
use super::summary::{Lines, Summary};
use crate::program::{answer, cargo, program, run_heard, shown};
use crate::stop::Stop;
use crate::terminal::say;

/// How many programs run at once.
const AT_ONCE: usize = 2;

/// A test program.
#[derive(Debug, PartialEq)]
struct TestProgram {
    package: Package,
    /// Its source, relative to its package.
    source: String,
    executable: PathBuf,
}

/// What cargo tells a test program of its package.
#[derive(Debug, PartialEq)]
struct Package {
    name: String,
    version: String,
    directory: PathBuf,
}

/// What one call of `cargo test` chooses, compiled.
pub(super) struct Programs {
    programs: Vec<TestProgram>,
    /// What is typed after `--`: each program gets it.
    arguments: Vec<String>,
}

impl Programs {
    /// Compiles what a call chooses; nothing where something does not compile.
    pub(super) fn compiled(call: &[String]) -> Result<Option<Self>, Stop> {
        let mut parts = call.splitn(2, |word| word == "--");
        let mut compiling = cargo(parts.next().unwrap_or_default());
        compiling.args(["--no-run", "--message-format=json-render-diagnostics"]);
        say!("$ {}", shown(&compiling));
        let said = compiling.stderr(Stdio::inherit()).output();
        let said = said.map_err(|error| Stop::failed(format!("cargo: {error}")))?;
        Ok(said.status.success().then(|| Self {
            programs: programs_of(&String::from_utf8_lossy(&said.stdout)),
            arguments: parts.next().unwrap_or_default().to_vec(),
        }))
    }

    /// Runs each, adds up what they print, and says whether all passed.
    pub(super) fn run(self, servers: &[Server]) -> Result<(Summary, bool), Stop> {
        let libraries = libraries()?;
        let waiting = Mutex::new(VecDeque::from(self.programs));
        let outcome = Mutex::new((Summary::default(), true));
        let next = || lock(&waiting).pop_front();
        let work = || -> Result<(), Stop> {
            while let Some(next) = next() {
                let mut command = next.command(&libraries, servers);
                let (summary, passed) = next.run(command.args(&self.arguments))?;
                let mut outcome = lock(&outcome);
                outcome.0.merge(summary);
                outcome.1 &= passed;
            }
            Ok(())
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
            for worker in workers {
                let lost = |_| Stop::failed("a test program was lost sight of");
                worker.join().map_err(lost)??;
            }
            Ok::<_, Stop>(())
        })?;
        let outcome = outcome.into_inner();
        Ok(outcome.unwrap_or_else(PoisonError::into_inner))
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where programs find what they are linked to while they run: tests of derive macros need it.
fn libraries() -> Result<OsString, Stop> {
    let sysroot = answer(&mut program("rustc", ["--print", "sysroot"]))?;
    let ours = [Path::new(sysroot.trim()).join("lib")];
    let there = var_os("LD_LIBRARY_PATH").unwrap_or_default();
    join_paths(ours.into_iter().chain(split_paths(&there)))
        .map_err(|error| Stop::failed(format!("the toolchain's place: {error}")))
}

/// The test programs among what cargo says that it compiled.
fn programs_of(messages: &str) -> Vec<TestProgram> {
    let messages = messages.lines();
    let parsed = messages.filter_map(|line| serde_json::from_str(line).ok());
    parsed
        .filter_map(|message| TestProgram::of(&message))
        .collect()
}

impl TestProgram {
    fn of(message: &Value) -> Option<Self> {
        let executable = message.get("executable")?.as_str()?;
        if message.pointer("/profile/test")? != true {
            return None;
        }
        let directory = Path::new(message.get("manifest_path")?.as_str()?).parent()?;
        let source = Path::new(message.pointer("/target/src_path")?.as_str()?);
        // `path+file:///clone/core#annals-core@0.1.0`, or `…/xtask#0.1.0`
        let (place, id) = message.get("package_id")?.as_str()?.rsplit_once('#')?;
        let last_of_place = place.rsplit('/').next()?;
        let (name, version) = id.rsplit_once('@').unwrap_or((last_of_place, id));
        Some(Self {
            package: Package {
                name: name.to_owned(),
                version: version.to_owned(),
                directory: directory.to_owned(),
            },
            source: source
                .strip_prefix(directory)
                .unwrap_or(source)
                .to_string_lossy()
                .into_owned(),
            executable: executable.into(),
        })
    }

    /// Runs it. What it says is shown when it has ended, whole.
    fn run(&self, command: &mut Command) -> Result<(Summary, bool), Stop> {
        let name = &self.package.name;
        let header = format!(
            "     Running {} ({})",
            self.source,
            self.executable.display()
        );
        let mut summary = Summary::default();
        summary.take(&header);
        let mut lines = Lines::default();
        let mut said = format!("\n   {name}\n{header}\n").into_bytes();
        let passed = run_heard(command, |bytes| {
            said.extend_from_slice(bytes);
            lines.take(bytes, |line| {
                // Said at once, so that a run that never ends names who does not.
                if line.contains("has been running for over") {
                    say!("{} of {name}: {line}", self.source);
                }
                summary.take(line);
            });
        })?;
        summary.end();
        // The reader may be gone; the outcome is still wanted.
        let _ = std::io::stdout().lock().write_all(&said);
        Ok((summary, passed))
    }

    fn command(&self, libraries: &OsStr, servers: &[Server]) -> Command {
        let package = &self.package;
        let mut command = Command::new(&self.executable);
        command
            .current_dir(&package.directory)
            .env("CARGO_MANIFEST_DIR", &package.directory)
            .env("CARGO_PKG_NAME", &package.name)
            .env("CARGO_PKG_VERSION", &package.version)
            .env("LD_LIBRARY_PATH", libraries);
        environment(&mut command, servers, AT_ONCE);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_test_programs_are_run() {
        let messages = r#"
{"reason":"compiler-artifact","package_id":"path+file:///clone/core#annals-core@0.1.0","manifest_path":"/clone/core/Cargo.toml","target":{"kind":["test"],"name":"it","src_path":"/clone/core/tests/it/main.rs"},"profile":{"test":true},"executable":"/clone/target/debug/deps/it-2f"}
{"reason":"compiler-artifact","package_id":"path+file:///clone/xtask#0.1.0","manifest_path":"/clone/xtask/Cargo.toml","target":{"kind":["bin"],"name":"xtask","src_path":"/clone/xtask/src/main.rs"},"profile":{"test":true},"executable":"/clone/target/debug/deps/xtask-3a"}
{"reason":"compiler-artifact","package_id":"path+file:///clone/xtask#0.1.0","manifest_path":"/clone/xtask/Cargo.toml","target":{"kind":["bin"],"name":"xtask","src_path":"/clone/xtask/src/main.rs"},"profile":{"test":false},"executable":"/clone/target/debug/xtask"}
{"reason":"compiler-artifact","package_id":"path+file:///clone/core#annals-core@0.1.0","manifest_path":"/clone/core/Cargo.toml","target":{"kind":["lib"],"name":"annals_core","src_path":"/clone/core/src/lib.rs"},"profile":{"test":false},"executable":null}
{"reason":"build-finished","success":true}
"#;
        let of = |name: &str, at: &str, source: &str, executable: &str| TestProgram {
            package: Package {
                name: name.to_owned(),
                version: "0.1.0".to_owned(),
                directory: at.into(),
            },
            source: source.to_owned(),
            executable: executable.into(),
        };
        assert_eq!(
            programs_of(messages),
            [
                of(
                    "annals-core",
                    "/clone/core",
                    "tests/it/main.rs",
                    "/clone/target/debug/deps/it-2f"
                ),
                of(
                    "xtask",
                    "/clone/xtask",
                    "src/main.rs",
                    "/clone/target/debug/deps/xtask-3a"
                ),
            ]
        );
    }
}
