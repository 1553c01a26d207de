//! What `cargo tree` says about our own crates.

use std::path::PathBuf;

use crate::program::{answer, cargo};
use crate::stop::Stop;

/// One of our crates, and what its `Cargo.toml` names.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) directory: PathBuf,
    pub(crate) dependencies: Vec<String>,
}

/// Every crate of the workspace with its direct dependencies along `edges` ("normal,build", "dev"),
/// all features on.
pub(crate) fn members(edges: &str) -> Result<Vec<Member>, Stop> {
    let words = [
        "tree",
        "--workspace",
        "--all-features",
        "--locked",
        "--no-dedupe",
        "--depth",
        "1",
    ];
    let shape = ["--prefix", "depth", "--format", "{p}", "--edges", edges];
    parse(&answer(&mut cargo(words.into_iter().chain(shape)))?)
}

// `0annals-core v0.1.0 (/somewhere/core)` is a member, the `1serde v1.0.229` below it a dependency.
fn parse(tree: &str) -> Result<Vec<Member>, Stop> {
    let surprising = |line: &str| {
        Stop::failed(format!(
            "cargo tree printed a line that makes no sense here: `{line}`"
        ))
    };
    let mut members: Vec<Member> = Vec::new();
    for line in tree.lines().filter(|line| !line.is_empty()) {
        let (depth, package) = line.split_at(1);
        let name = package
            .split_whitespace()
            .next()
            .ok_or_else(|| surprising(line))?
            .to_owned();
        match (depth, members.last_mut()) {
            ("0", _) => {
                let directory = package
                    .rsplit_once('(')
                    .and_then(|(_, path)| path.strip_suffix(')'));
                let directory = directory.ok_or_else(|| surprising(line))?.into();
                members.push(Member {
                    name,
                    directory,
                    dependencies: Vec::new(),
                });
            }
            ("1", Some(member)) => member.dependencies.push(name),
            _ => return Err(surprising(line)),
        }
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_with_their_directories_and_direct_dependencies() {
        let tree = "0annals v0.1.0 (/a b/annals)\n1annals-macros v0.1.0 (proc-macro) (/a \
            b/annals/macros)\n\
                    1serde v1.0.229\n\n0annals-macros v0.1.0 (proc-macro) (/a b/annals/macros)\n";
        let members = parse(tree).unwrap();
        assert_eq!(members.len(), 2);
        assert_eq!(members[0].name, "annals");
        assert_eq!(members[0].dependencies, ["annals-macros", "serde"]);
        assert_eq!(members[1].directory, PathBuf::from("/a b/annals/macros"));
        assert!(members[1].dependencies.is_empty());
    }

    #[test]
    fn a_line_of_unknown_kind_is_an_error() {
        assert!(parse("annals v0.1.0").is_err());
        assert!(parse("1serde v1.0.229").is_err());
    }
}
