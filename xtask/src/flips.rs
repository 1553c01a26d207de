//! The teeth of the tests of `streams/`: each comparison of its operators is flipped, one at a
//! time, and some test has to fail. It works on a copy; your tree is left alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::program::{cargo, root, target_directory};
use crate::stop::Stop;
use crate::terminal::say;

/// Where windows, joins and their clocks compare times.
const FILES: [&str; 19] = [
    "due.rs",
    "clock.rs",
    "time.rs",
    "suppress.rs",
    "top.rs",
    "soon.rs",
    "order.rs",
    "scan.rs",
    "distinct.rs",
    "batch/stateful.rs",
    "window/aligned.rs",
    "window/assign.rs",
    "window/panes.rs",
    "window/sessions.rs",
    "window/slices.rs",
    "window/sliding.rs",
    "join/interval.rs",
    "join/window.rs",
    "join/as_of.rs",
];
const PAIRS: [(&str, &str); 4] = [
    (" < ", " <= "),
    (" <= ", " < "),
    (" > ", " >= "),
    (" >= ", " > "),
];
/// A flip may also make a test run for ever, which is noticed too.
const RUNS_FOR: Duration = Duration::from_secs(120);

/// Flips that change nothing that can be seen, and why: the file, what stands there, and how.
const SAME: [(&str, &str, &str); 0] = [];

/// A comparison that is flipped.
struct Flip {
    file: &'static str,
    line: usize,
    column: usize,
    before: &'static str,
    after: &'static str,
    text: String,
}

pub(crate) fn run(only: &[String]) -> Result<(), Stop> {
    let scratch = target_directory().join("flips");
    copied(&scratch)?;
    if let Some(why) = fails(&scratch)? {
        return Err(Stop::failed(format!("nothing was flipped, and {why}")));
    }
    let mut survived = 0;
    let mut all = 0;
    for flip in flips(&scratch)? {
        let place = format!("{}:{}", flip.file, flip.line);
        if !only.is_empty() && !only.iter().any(|only| place.starts_with(only)) {
            continue;
        }
        let path = scratch.join("streams/src").join(flip.file);
        let right = read(&path)?;
        write(&path, &flip.applied(&right))?;
        let failed = fails(&scratch);
        write(&path, &right)?;
        let Flip {
            before,
            after,
            text,
            ..
        } = &flip;
        let shown = format!(
            "{place} `{}` became `{}` in `{text}`",
            before.trim(),
            after.trim()
        );
        all += 1;
        match (failed?, flip.is_same()) {
            (Some(why), _) => say!("noticed: {shown}: {why}"),
            (None, Some(why)) => say!("the same: {shown}: {why}"),
            (None, None) => {
                survived += 1;
                say!("NOT NOTICED: {shown}");
            }
        }
    }
    say!("{all} flips, {survived} not noticed");
    match survived {
        0 if all > 0 => Ok(()),
        0 => Err(Stop::misused("no comparison is there")),
        _ => Err(Stop::failed(
            "a case is missing for each flip that was not noticed",
        )),
    }
}

/// A workspace of `streams/` alone.
fn copied(scratch: &Path) -> Result<(), Stop> {
    let manifest = read(&root().join("Cargo.toml"))?;
    let mut kept = String::from("[workspace]\nresolver = \"3\"\nmembers = [\"streams\"]\n\n");
    let mut is_kept = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            is_kept = line.starts_with("[workspace.");
        }
        if is_kept {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    let streams = scratch.join("streams");
    if streams.exists() {
        fs::remove_dir_all(&streams).map_err(|error| failed(&streams, &error))?;
    }
    copy(&root().join("streams"), &streams)?;
    write(&scratch.join("Cargo.toml"), &kept)?;
    write(
        &scratch.join("Cargo.lock"),
        &read(&root().join("Cargo.lock"))?,
    )
}

fn copy(from: &Path, to: &Path) -> Result<(), Stop> {
    fs::create_dir_all(to).map_err(|error| failed(to, &error))?;
    for entry in fs::read_dir(from).map_err(|error| failed(from, &error))? {
        let entry = entry.map_err(|error| failed(from, &error))?;
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).map_err(|error| failed(&target, &error))?;
        }
    }
    Ok(())
}

/// All comparisons of the operators, those of their own tests left out.
fn flips(scratch: &Path) -> Result<Vec<Flip>, Stop> {
    let mut all = Vec::new();
    for file in FILES {
        let text = read(&scratch.join("streams/src").join(file))?;
        for (number, line) in (1..).zip(text.lines()) {
            if line.starts_with("#[cfg(test)]") {
                break;
            }
            if line.trim_start().starts_with("//") {
                continue;
            }
            for (before, after) in PAIRS {
                let columns = line.match_indices(before).map(|(column, _)| column);
                all.extend(columns.map(|column| Flip {
                    file,
                    line: number,
                    column,
                    before,
                    after,
                    text: line.trim().to_owned(),
                }));
            }
        }
    }
    Ok(all)
}

impl Flip {
    fn applied(&self, text: &str) -> String {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        if let Some(line) = lines.get_mut(self.line - 1) {
            let end = self.column + self.before.len();
            line.replace_range(self.column..end, self.after);
        }
        lines.join("\n") + "\n"
    }

    fn is_same(&self) -> Option<&'static str> {
        let same = SAME
            .iter()
            .find(|(file, text, _)| *file == self.file && *text == self.text);
        same.map(|(_, _, why)| *why)
    }
}

/// Why the tests fail, if they do.
fn fails(scratch: &Path) -> Result<Option<String>, Stop> {
    let tests = [
        "test",
        "-q",
        "-p",
        "annals-streams",
        "--offline",
        "--no-run",
    ];
    let mut build = cargo(tests);
    build.arg("--message-format=json").current_dir(scratch);
    build.env("CARGO_TARGET_DIR", scratch.join("target"));
    let built = build.stderr(Stdio::null()).output();
    let built = built.map_err(|error| Stop::failed(format!("cargo cannot be run: {error}")))?;
    if !built.status.success() {
        return Ok(Some("it does not compile".into()));
    }
    let messages = String::from_utf8_lossy(&built.stdout);
    let programs = messages.lines().filter_map(|line| {
        let (_, rest) = line.split_once("\"executable\":\"")?;
        Some(PathBuf::from(rest.split('"').next()?))
    });
    // The cases first: they take no time.
    let mut programs: Vec<_> = programs.collect();
    programs.sort_by_key(|path| {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        !name.unwrap_or_default().starts_with("conformance")
    });
    if programs.is_empty() {
        return Err(Stop::failed("cargo names no test programs"));
    }
    for program in programs {
        if let Some(why) = run_one(&program, scratch)? {
            return Ok(Some(why));
        }
    }
    Ok(None)
}

fn run_one(program: &Path, scratch: &Path) -> Result<Option<String>, Stop> {
    let name = program
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_default();
    let name = name.split('-').next().unwrap_or_default().to_owned();
    let mut child = Command::new(program)
        .current_dir(scratch.join("streams"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(program, &error))?;
    let began = Instant::now();
    loop {
        let ended = child.try_wait().map_err(|error| failed(program, &error))?;
        if let Some(status) = ended {
            return Ok((!status.success()).then(|| format!("`{name}` fails")));
        }
        if began.elapsed() > RUNS_FOR {
            child.kill().map_err(|error| failed(program, &error))?;
            child.wait().map_err(|error| failed(program, &error))?;
            return Ok(Some(format!("`{name}` never ends")));
        }
        // The standard library has no wait for a child that ends by itself after a time.
        #[allow(clippy::disallowed_methods)]
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn read(path: &Path) -> Result<String, Stop> {
    fs::read_to_string(path).map_err(|error| failed(path, &error))
}

fn write(path: &Path, text: &str) -> Result<(), Stop> {
    fs::write(path, text).map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &std::io::Error) -> Stop {
    Stop::failed(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flip_changes_one_comparison_and_nothing_else() {
        let flip = Flip {
            file: "due.rs",
            line: 2,
            column: 4,
            before: " >= ",
            after: " > ",
            text: "time >= last".into(),
        };
        assert_eq!(
            flip.applied("a >= b\ntime >= last\n"),
            "a >= b\ntime > last\n"
        );
    }
}
