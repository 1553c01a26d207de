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
const FILES: [&str; 20] = [
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
    "pattern/detect.rs",
];
const PAIRS: [(&str, &str); 4] = [
    (" < ", " <= "),
    (" <= ", " < "),
    (" > ", " >= "),
    (" >= ", " > "),
];
/// A flip may also make a test run for ever, which is noticed too: it is given so many times as
/// long as without a flip, and at least [`AT_LEAST`].
const TIMES_AS_LONG: u32 = 10;
const AT_LEAST: Duration = Duration::from_secs(60);
/// The tests run thousands of cases for each flip, so they are optimised.
const PROFILE: &str = "[profile.dev]\nopt-level = 1\ndebug = false\n";

/// Flips that change nothing that can be seen, and why: the file, what is there, and how.
const SAME: [(&str, &str, &str); 16] = [
    (
        "order.rs",
        "if first.is_none_or(|first| time < first) {",
        "a key that is noted twice for a time is looked at twice",
    ),
    (
        "window/assign.rs",
        "if next < i128::from(i64::MIN) {",
        "what is exactly there stays there",
    ),
    (
        "window/panes.rs",
        "let place = self.opened.partition_point(|opened| opened.start < start);",
        "one that begins there was found before",
    ),
    (
        "window/panes.rs",
        "if self.spare.len() < SPARE_MAX {",
        "only how much memory is kept for later",
    ),
    (
        "window/sessions.rs",
        "if is_new || wanted < armed {",
        "a key that is noted twice for a time is looked at twice",
    ),
    (
        "window/sessions.rs",
        "let at = sessions.partition_point(|session| session.start < start);",
        "saved state holds one session of a key that begins there",
    ),
    (
        "window/slices.rs",
        "let place = self.slices.partition_point(|slice| slice.start < start);",
        "one that begins there was found before",
    ),
    (
        "window/slices.rs",
        "if input.watermark > self.watermark {",
        "a watermark that was reached is reached again",
    ),
    (
        "window/sliding.rs",
        "if left.is_some_and(|left| left <= time + span) {",
        "the window that begins after that item ends later",
    ),
    (
        "window/sliding.rs",
        "if self.time(next).is_some_and(|next| next <= start + span) {",
        "a window ends at that item anyway",
    ),
    (
        "window/sliding.rs",
        "&& items.armed.is_none_or(|armed| next < armed)",
        "a key that is noted twice for a time is looked at twice",
    ),
    (
        "window/sliding.rs",
        "if self.options.emit.on_close() && self.watermark > before {",
        "nothing ends between a watermark and itself",
    ),
    (
        "join/interval.rs",
        "&& lanes.armed.is_none_or(|armed| next < armed)",
        "a key that is noted twice for a time is looked at twice",
    ),
    (
        "join/window.rs",
        "let place = self.opened.partition_point(|opened| opened.start < start);",
        "one that begins there was found before",
    ),
    (
        "join/as_of.rs",
        "&& known.armed.is_none_or(|armed| next < armed)",
        "a key that is noted twice for a time is looked at twice",
    ),
    (
        "pattern/detect.rs",
        "&& known.armed.is_none_or(|armed| deadline < armed)",
        "a key that is noted twice for a time is looked at twice",
    ),
];

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
    let began = Instant::now();
    let compiled = programs(&scratch)?;
    say!("compiled in {} s", began.elapsed().as_secs());
    let began = Instant::now();
    if let Some(why) = compiled.fail(&scratch, None)? {
        return Err(Stop::failed(format!("nothing was flipped, and {why}")));
    }
    say!(
        "without a flip the tests take {} s",
        began.elapsed().as_secs()
    );
    let limit = (began.elapsed() * TIMES_AS_LONG).max(AT_LEAST);
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
        let failed = programs(&scratch).and_then(|compiled| compiled.fail(&scratch, Some(limit)));
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
    kept.push_str(PROFILE);
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

/// All comparisons of the operators, without those of their own tests.
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

/// The test programs of the copy, or that it does not compile.
enum Compiled {
    Not,
    Programs(Vec<PathBuf>),
}

fn programs(scratch: &Path) -> Result<Compiled, Stop> {
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
        return Ok(Compiled::Not);
    }
    let messages = String::from_utf8_lossy(&built.stdout);
    let programs = messages.lines().filter_map(|line| {
        let (_, rest) = line.split_once("\"executable\":\"")?;
        Some(PathBuf::from(rest.split('"').next()?))
    });
    // The cases first: they take no time.
    let mut programs: Vec<_> = programs.collect();
    programs.sort_by_key(|path| !name(path).starts_with("conformance"));
    match programs.is_empty() {
        true => Err(Stop::failed("cargo names no test programs")),
        false => Ok(Compiled::Programs(programs)),
    }
}

impl Compiled {
    /// Why the tests fail, if they do; without a limit one that never ends is waited for.
    fn fail(&self, scratch: &Path, limit: Option<Duration>) -> Result<Option<String>, Stop> {
        let Compiled::Programs(programs) = self else {
            return Ok(Some("it does not compile".into()));
        };
        for program in programs {
            if let Some(why) = run_one(program, scratch, limit)? {
                return Ok(Some(why));
            }
        }
        Ok(None)
    }
}

/// The name of a test program, without what cargo adds to it.
fn name(program: &Path) -> String {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    name.split('-').next().unwrap_or_default().to_owned()
}

fn run_one(
    program: &Path,
    scratch: &Path,
    limit: Option<Duration>,
) -> Result<Option<String>, Stop> {
    let name = name(program);
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
        if limit.is_some_and(|limit| began.elapsed() > limit) {
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
