//! No file names a path of one machine or the host of one registry, and none is huge.

use std::path::Path;

use crate::program::{answer, program, root};
use crate::stop::Stop;

/// The largest file that a clone should have to carry.
const FILE_BYTES_MAX: u64 = 5 * 1024 * 1024;

/// Directories at the top of a disk whose contents are of one machine: a file that names them works
/// nowhere else.
const MACHINE_DIRECTORIES: [&str; 5] = ["home", "root", "tmp", "work", "Users"];

/// Hosts of package registries, in two halves so that this file does not name them. People use
/// mirrors; a package's name is enough.
const REGISTRY_HOSTS: [(&str, &str); 8] = [
    ("crates", "io"),
    ("pypi", "org"),
    ("npmjs", "org"),
    ("npmjs", "com"),
    ("proxy.golang", "org"),
    ("maven", "org"),
    ("maven.apache", "org"),
    ("debian", "org"),
];

/// Looks at every file that is in git, or would be with `git add`.
pub(crate) fn check() -> Result<String, Stop> {
    let files = answer(&mut program(
        "git",
        [
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ],
    ))?;
    let mut found = Vec::new();
    let mut looked_at = 0;
    for name in files.split('\0').filter(|name| !name.is_empty()) {
        let path = root().join(name);
        // Deleted, and not yet committed as deleted.
        if !path.exists() {
            continue;
        }
        looked_at += 1;
        found.extend(look_at(name, &path)?);
    }
    if found.is_empty() {
        Ok(format!("{looked_at} files"))
    } else {
        Err(Stop::failed(found.join("\n")))
    }
}

fn look_at(name: &str, path: &Path) -> Result<Vec<String>, Stop> {
    let unreadable = |error| Stop::failed(format!("cannot read {name}: {error}"));
    let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
    if bytes > FILE_BYTES_MAX {
        return Ok(vec![format!(
            "{name} has {bytes} bytes, more than {FILE_BYTES_MAX}"
        )]);
    }
    let content = std::fs::read(path).map_err(unreadable)?;
    let text = String::from_utf8_lossy(&content);
    let lines = text.lines().enumerate();
    // The lock file names its registry in every entry, and cargo wants it so.
    let lines =
        lines.filter(|(_, line)| !(name.ends_with("Cargo.lock") && line.starts_with("source = ")));
    Ok(lines
        .flat_map(|(at, line)| {
            faults(line)
                .into_iter()
                .map(move |fault| format!("{name}:{}: {fault}", at + 1))
        })
        .collect())
}

fn faults(line: &str) -> Vec<String> {
    let hosts = REGISTRY_HOSTS
        .iter()
        .map(|(name, domain)| format!("{name}.{domain}"));
    let hosts = hosts
        .filter(|host| has(line, host))
        .map(|host| format!("names the registry host `{host}`"));
    let paths = MACHINE_DIRECTORIES
        .iter()
        .map(|directory| format!("/{directory}/"));
    let paths = paths
        .filter(|path| has(line, path))
        .map(|path| format!("names a path of one machine, below `{path}`"));
    hosts.chain(paths).collect()
}

/// Whether the line has the word where a host or an absolute path can begin: not inside a longer
/// name.
fn has(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let is_path = word.starts_with('/');
        !before.is_some_and(|c| {
            c.is_alphanumeric()
                || matches!(c, '_' | '-')
                || (is_path && matches!(c, '.' | '}' | ')' | '*'))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_path_is_a_fault_wherever_it_begins() {
        for (around, faulty) in [
            ("see @", true),
            ("`@`", true),
            ("file:@", true),
            ("..@", false),
            ("src@", false),
        ] {
            let line = around.replace('@', &format!("/{}/annals/x.rs", "work"));
            assert_eq!(!faults(&line).is_empty(), faulty, "{line}");
        }
    }

    #[test]
    fn a_registry_host_is_a_fault_unless_part_of_names() {
        let host = ["crates", "io"].join(".");
        assert_eq!(
            faults(&format!("https://{host}/annals")),
            [format!("names the registry host `{host}`")]
        );
        assert_eq!(faults(&format!("https://static.{host}/annals")).len(), 1);
        assert!(faults(&format!("my{host}")).is_empty());
        assert!(faults("https://docs.rs/annals").is_empty());
    }
}
