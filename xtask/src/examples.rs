//! `cargo xtask examples`: every example tells its story on an empty disk.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::postgres;
use crate::program::{cargo, root, run as run_program, target_directory};
use crate::stop::Stop;
use crate::terminal::say;
use crate::test::{Kind, Server};

/// Examples that speak with a server, which finds them by its variable.
const NEEDS: [(&str, &Kind); 1] = [("cdc", &postgres::KIND)];

/// Runs each example without arguments, as the README does, in a directory of its own that is
/// removed when it passed.
pub(crate) fn run() -> Result<(), Stop> {
    let names = names_in(&root().join("examples"))?;
    // With the choice that the tests are built with: what they compiled is used again.
    let ours = ["build", "--locked", "--workspace", "--all-features"];
    let chosen = names.iter().flat_map(|name| ["--example", name.as_str()]);
    run_program(&mut cargo(ours.into_iter().chain(chosen)))?;
    let programs = target_directory().join("debug/examples");
    for name in &names {
        let need = NEEDS.iter().find(|(of, _)| of == name);
        let server = need.map(|(_, kind)| Server::find(kind));
        if let Some(server) = server.as_ref().filter(|server| server.need.is_missing()) {
            say!("{}", server.need);
            return Err(Stop::failed(format!("the example {name} has no server")));
        }
        let directory = empty_directory(name)?;
        let mut example = Command::new(programs.join(name));
        example.current_dir(&directory);
        if let Some(server) = &server {
            example.envs(server.environment.iter().cloned());
        }
        run_program(&mut example).map_err(|stop| {
            Stop::failed(format!("{stop}; its files are in {}", directory.display()))
        })?;
        remove(&directory)?;
    }
    say!(
        "\n{} ran, each in an empty directory: {}",
        names.len(),
        names.join(", ")
    );
    Ok(())
}

/// `bank.rs` and `bank/main.rs` are both the example `bank`; a directory without `main.rs` is data.
fn names_in(examples: &Path) -> Result<Vec<String>, Stop> {
    if !examples.exists() {
        return Ok(Vec::new());
    }
    let unreadable = |error| Stop::failed(format!("cannot read {}: {error}", examples.display()));
    let mut names = Vec::new();
    for entry in std::fs::read_dir(examples).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let is_example = path.extension().is_some_and(|extension| extension == "rs")
            || path.join("main.rs").is_file();
        if let (true, Some(name)) = (is_example, path.file_stem()) {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn empty_directory(name: &str) -> Result<PathBuf, Stop> {
    let directory =
        std::env::temp_dir().join(format!("annals-example-{name}-{}", std::process::id()));
    match std::fs::create_dir(&directory) {
        Ok(()) => Ok(directory),
        Err(error) => Err(Stop::failed(format!(
            "cannot make {}: {error}",
            directory.display()
        ))),
    }
}

fn remove(directory: &Path) -> Result<(), Stop> {
    std::fs::remove_dir_all(directory)
        .map_err(|error| Stop::failed(format!("cannot remove {}: {error}", directory.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_directories_with_a_main_are_examples() {
        let directory = empty_directory("names").unwrap();
        std::fs::write(directory.join("cart.rs"), "").unwrap();
        std::fs::write(directory.join("README.md"), "").unwrap();
        std::fs::create_dir(directory.join("bank")).unwrap();
        std::fs::write(directory.join("bank/main.rs"), "").unwrap();
        std::fs::create_dir(directory.join("data")).unwrap();
        assert_eq!(names_in(&directory).unwrap(), ["bank", "cart"]);
        remove(&directory).unwrap();
    }
}
