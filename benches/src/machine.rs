//! Where a report was made.

use std::fs;
use std::process::Command;
use std::time::Duration;

/// The lines above the table: machine, kernel, SQLite, how it flushes, commit.
///
/// ```
/// assert!(annals_benches::machine::describe().iter().any(|(name, _)| *name == "SQLite"));
/// ```
pub fn describe() -> Vec<(&'static str, String)> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let sqlite = format!(
        "{}, journal_mode=wal, synchronous=full (one fsync a commit), wal_autocheckpoint=2048 \
         pages",
        rusqlite::version()
    );
    vec![
        (
            "machine",
            format!("{}, {cores} cores, {}", processor(), memory()),
        ),
        (
            "kernel",
            format!("{} {}", std::env::consts::OS, kernel.trim()),
        ),
        ("SQLite", sqlite),
        (
            "build",
            format!("cargo's release profile, commit {}", commit()),
        ),
    ]
}

fn line_of(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn processor() -> String {
    line_of("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

fn memory() -> String {
    let kibibytes = line_of("/proc/meminfo", "MemTotal")
        .and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    kibibytes.map_or_else(
        || "memory unknown".into(),
        |kibibytes| format!("{} GiB", (kibibytes + (1 << 19)) >> 20),
    )
}

/// How many tasks were running or waiting for a core in the last minute, as the system counts them.
pub fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let answer = Command::new("git").args(arguments).output().ok()?;
        answer
            .status
            .success()
            .then(|| String::from_utf8_lossy(&answer.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else {
        return "unknown".into();
    };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])
        .is_some_and(|changes| !changes.is_empty());
    if changed {
        format!("{commit} with changes")
    } else {
        commit
    }
}

/// How long all threads of this process together were on a core so far; zero where the system does
/// not tell.
pub fn cpu_time() -> Duration {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name, which may hold anything, and 11 more fields: the time in the program and
    // that in the kernel.
    let fields = text
        .rsplit_once(')')
        .map_or("", |(_, fields)| fields)
        .split_whitespace();
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 10)
}

/// The most memory that this process has used at once so far, in bytes; none where the system does
/// not tell.
pub fn peak_memory_bytes() -> Option<u64> {
    of_status("VmHWM")
}

/// The memory that this process uses now, in bytes; none where the system does not tell.
pub fn memory_bytes() -> Option<u64> {
    of_status("VmRSS")
}

fn of_status(name: &str) -> Option<u64> {
    let text = line_of("/proc/self/status", name)?;
    Some(text.split(' ').next()?.parse::<u64>().ok()? << 10)
}
