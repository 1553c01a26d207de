//! The Rust version that we state is one that was tried.

use crate::program::{answer, program, root, run, target_directory};
use crate::stop::Stop;

/// Major and minor: what `rust-version` means.
type Minor = (u32, u32);

/// Fails when the running compiler is older than stated; builds on the stated one when it is
/// installed and is not running already.
pub(crate) fn check() -> Result<String, Stop> {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml"))
        .map_err(|error| Stop::failed(format!("cannot read Cargo.toml: {error}")))?;
    let stated =
        stated_in(&manifest).ok_or_else(|| Stop::failed("Cargo.toml states no rust-version"))?;
    let rustc = answer(&mut program("rustc", ["--version"]))?;
    let running = rustc.split_whitespace().nth(1).and_then(minor);
    let running = running
        .ok_or_else(|| Stop::failed(format!("cannot read the version of `{}`", rustc.trim())))?;
    let shown = format!("{}.{}", stated.0, stated.1);

    if running < stated {
        return Err(Stop::failed(format!(
            "`{}` is older than the {shown} that Cargo.toml states",
            rustc.trim()
        )));
    }
    if running == stated {
        return Ok(format!("{shown} is stated, and is the compiler that ran"));
    }
    let installed = answer(&mut program("rustup", ["toolchain", "list"])).unwrap_or_default();
    let Some(toolchain) = toolchain_for(stated, &installed) else {
        return Ok(format!(
            "{shown} is stated and not installed here; what ran is `{}`",
            rustc.trim()
        ));
    };
    let target = target_directory().join(format!("rust-{shown}"));
    let words = [
        "run",
        toolchain,
        "cargo",
        "check",
        "--workspace",
        "--all-features",
        "--all-targets",
        "--locked",
    ];
    run(program("rustup", words).env("CARGO_TARGET_DIR", target))?;
    Ok(format!("{shown} is stated, and builds everything"))
}

fn stated_in(manifest: &str) -> Option<Minor> {
    let line = manifest
        .lines()
        .find_map(|line| line.strip_prefix("rust-version = "))?;
    minor(line.trim().trim_matches('"'))
}

// `stable-x86_64-unknown-linux-gnu (active, default)` has no number;
// `1.95.0-x86_64-unknown-linux-gnu` has.
fn toolchain_for(stated: Minor, installed: &str) -> Option<&str> {
    let names = installed
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    names
        .into_iter()
        .find(|name| name.split('-').next().and_then(minor) == Some(stated))
}

fn minor(version: &str) -> Option<Minor> {
    let mut numbers = version.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stated_version_is_found_in_the_manifest() {
        assert_eq!(
            stated_in("edition = \"2024\"\nrust-version = \"1.95\"\n"),
            Some((1, 95))
        );
        assert_eq!(stated_in("rust-version.workspace = true\n"), None);
    }

    #[test]
    fn the_stated_toolchain_is_found_among_the_installed() {
        let installed =
            "stable-x86_64-unknown-linux-gnu (active, default)\n1.95.0-x86_64-unknown-linux-gnu\n";
        assert_eq!(
            toolchain_for((1, 95), installed),
            Some("1.95.0-x86_64-unknown-linux-gnu")
        );
        assert_eq!(toolchain_for((1, 94), installed), None);
    }

    #[test]
    fn versions_compare_by_number_and_ignore_the_patch() {
        assert!(minor("1.100.0") > minor("1.95.3"));
        assert_eq!(minor("1.95.0-nightly"), minor("1.95"));
    }
}
