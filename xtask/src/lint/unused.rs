//! Every dependency is used by the crate that names it.
//!
//! `cargo machete` and `cargo deny` look at more, and are built from source on every new machine:
//! that is more crates than the product has, for what takes a tenth of a second here.

use std::path::Path;

use super::tree::members;
use crate::stop::Stop;

/// Looks for each direct dependency in the crate's own source: in `src/` and `build.rs` for what
/// ships, in tests, examples and benches too for the rest.
pub(crate) fn check() -> Result<String, Stop> {
    let mut unused = Vec::new();
    let mut looked_at = 0;
    for (edges, rooms) in [
        ("normal,build", &["src", "build.rs"][..]),
        ("dev", &["src", "tests", "examples", "benches"]),
    ] {
        for member in members(edges)? {
            let source = rooms
                .iter()
                .map(|room| source_of(&member.directory.join(room)))
                .collect::<Result<String, _>>()?;
            for dependency in &member.dependencies {
                looked_at += 1;
                if !names(&source, &dependency.replace('-', "_")) {
                    unused.push(format!(
                        "`{}` depends on `{dependency}` and never uses it ({edges})",
                        member.name
                    ));
                }
            }
        }
    }
    if unused.is_empty() {
        Ok(format!("all {looked_at} are used"))
    } else {
        Err(Stop::failed(unused.join("\n")))
    }
}

/// All Rust below a path, or nothing when there is no such path; a directory with a `Cargo.toml` is
/// another crate.
fn source_of(path: &Path) -> Result<String, Stop> {
    let unreadable =
        |error: std::io::Error| Stop::failed(format!("cannot read {}: {error}", path.display()));
    if path.extension().is_some_and(|extension| extension == "rs") {
        return if path.exists() {
            std::fs::read_to_string(path).map_err(unreadable)
        } else {
            Ok(String::new())
        };
    }
    if !path.is_dir() || path.join("Cargo.toml").exists() {
        return Ok(String::new());
    }
    let entries = std::fs::read_dir(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(unreadable)?;
    entries
        .iter()
        .map(|entry| source_of(&entry.path()))
        .collect()
}

/// Whether the source says `name::something`, `use name;` or `use name as`.
fn names(source: &str, name: &str) -> bool {
    source.match_indices(name).any(|(at, _)| {
        let before = source[..at].chars().next_back();
        let after = &source[at + name.len()..];
        let is_whole = !before.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let is_imported = source[..at].trim_end().ends_with("use")
            && (after.starts_with(';') || after.starts_with(" as "));
        is_whole && (after.starts_with("::") || is_imported)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_or_import_is_a_use_unlike_mentions() {
        for used in [
            "serde::Serialize",
            "#[tokio::test]",
            "use serde as s;",
            "::serde::de",
            "use tokio;",
        ] {
            assert!(names(used, "serde") || names(used, "tokio"), "{used}");
        }
        for unused in [
            "// like serde does",
            "my_serde::Thing",
            "serde_json::Value",
            "reuse serde",
        ] {
            assert!(!names(unused, "serde"), "{unused}");
        }
    }
}
