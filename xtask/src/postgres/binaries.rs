//! The server's programs: where they are, and how old.

use std::env::consts::EXE_EXTENSION;
use std::path::{Path, PathBuf};

use super::account::Account;
use crate::apt;
use crate::program::{answer, program};

/// The oldest major version that Annals runs on.
const MAJOR_MIN: u32 = 15;

/// Debian's name for the server, whatever its version.
const PACKAGES: [&str; 1] = ["postgresql"];

/// Where packagers put the programs of one version; `*` is the version.
const PLACES: [&str; 6] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
];

/// A directory with `initdb`, `pg_ctl` and `postgres`, new enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Binaries {
    pub(crate) directory: PathBuf,
    /// As the server says it: `15.4`.
    pub(crate) version: String,
}

/// How the programs were come by.
pub(crate) enum Search {
    Found(Binaries),
    Installed(Binaries),
    /// What was there instead, and what to do.
    Missing(String),
}

impl Binaries {
    /// Those that are there, or else Debian's, installed if this user may.
    pub(crate) fn find(account: &Account) -> Search {
        let mut too_old = None;
        if let Some(binaries) = best(account, &mut too_old) {
            return Search::Found(binaries);
        }
        if apt::install(&PACKAGES)
            && let Some(binaries) = best(account, &mut too_old)
        {
            return Search::Installed(binaries);
        }
        let seen = match too_old {
            Some(old) => format!("{} in {} is too old", old.version, old.directory.display()),
            None => "no `initdb`, `pg_ctl` and `postgres` on the PATH or where packagers put them"
                .to_owned(),
        };
        Search::Missing(format!(
            "{seen}; install PostgreSQL {MAJOR_MIN} or newer (Debian and Ubuntu: `apt-get install \
             {}`; macOS: \
             `brew install postgresql@17`), put its programs on the PATH, or name a server in \
             ANNALS_TEST_POSTGRES",
            PACKAGES.join(" "),
        ))
    }

    /// Those that are there: on the PATH before others, because they were put there on purpose;
    /// then the newest.
    pub(crate) fn there(account: &Account) -> Option<Self> {
        best(account, &mut None)
    }
}

/// The first on the PATH that is new enough, or else the newest anywhere.
fn best(account: &Account, too_old: &mut Option<Binaries>) -> Option<Binaries> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let configured = answer(&mut program("pg_config", ["--bindir"])).ok();
    let chosen =
        std::env::split_paths(&path).chain(configured.map(|line| PathBuf::from(line.trim())));
    let mut newest = None;
    let mut newest_major = 0;
    let packaged = PLACES
        .iter()
        .flat_map(|pattern| matching(pattern))
        .map(|directory| (directory, false));
    for (directory, is_chosen) in chosen.map(|directory| (directory, true)).chain(packaged) {
        let Some((major, binaries)) = look_at(&directory, account) else {
            continue;
        };
        if major < MAJOR_MIN {
            *too_old = Some(binaries);
        } else if is_chosen {
            return Some(binaries);
        } else if major > newest_major {
            newest = Some(binaries);
            newest_major = major;
        }
    }
    newest
}

fn look_at(directory: &Path, account: &Account) -> Option<(u32, Binaries)> {
    let is_there = |name: &str| directory.join(name).with_extension(EXE_EXTENSION).is_file();
    if !["initdb", "pg_ctl", "postgres"].into_iter().all(is_there) {
        return None;
    }
    let line = answer(
        account
            .command(directory.join("postgres"))
            .arg("--version")
            .current_dir("/"),
    )
    .ok()?;
    let (major, version) = version_in(&line)?;
    Some((
        major,
        Binaries {
            directory: directory.to_owned(),
            version,
        },
    ))
}

// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, or `… 18beta1`.
fn version_in(line: &str) -> Option<(u32, String)> {
    let version = line
        .split_once("(PostgreSQL) ")?
        .1
        .split_whitespace()
        .next()?;
    let digits = version
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(version.len());
    Some((version[..digits].parse().ok()?, version.to_owned()))
}

/// The directories that a pattern with one `*` in one of its parts names.
fn matching(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else {
        return vec![PathBuf::from(pattern)];
    };
    let Some((parent, start)) = before.rsplit_once('/') else {
        return Vec::new();
    };
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(start));
    named
        .map(|entry| entry.path().join(after.trim_start_matches('/')))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_what_the_server_says() {
        let version = |line| version_in(line).map(|(major, version)| format!("{major} {version}"));
        assert_eq!(
            version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n").as_deref(),
            Some("15 15.18")
        );
        assert_eq!(
            version("postgres (PostgreSQL) 18beta1\n").as_deref(),
            Some("18 18beta1")
        );
        assert_eq!(version("postgres (PostgreSQL) devel\n"), None);
    }

    #[test]
    fn a_pattern_finds_the_directories_of_all_versions() {
        let directory =
            std::env::temp_dir().join(format!("annals-binaries-{}", std::process::id()));
        for name in ["postgresql@15", "postgresql@16", "other@1"] {
            std::fs::create_dir_all(directory.join(name)).unwrap();
        }
        let mut found = matching(&format!("{}/postgresql@*/bin", directory.display()));
        found.sort();
        assert_eq!(
            found,
            ["postgresql@15/bin", "postgresql@16/bin"].map(|name| directory.join(name))
        );
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
