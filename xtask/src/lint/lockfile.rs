//! `Cargo.lock` is in the repository and is what the `Cargo.toml` files ask for.

use crate::program::{answer, cargo, program};
use crate::stop::Stop;

/// Fails when the lock file is not committed, or when it would have to change.
pub(crate) fn check() -> Result<String, Stop> {
    answer(&mut program(
        "git",
        ["ls-files", "--error-unmatch", "Cargo.lock"],
    ))
    .map_err(|_| Stop::failed("Cargo.lock is not in git: `git add Cargo.lock`"))?;
    answer(&mut cargo([
        "tree",
        "--workspace",
        "--locked",
        "--depth",
        "0",
    ]))?;
    let changed = answer(&mut program(
        "git",
        ["status", "--porcelain", "--", "Cargo.lock", "*Cargo.toml"],
    ))?;
    if was_out_of_date(&changed) {
        return Err(Stop::failed(
            "Cargo.lock changed and no Cargo.toml did: it was committed out of date",
        ));
    }
    Ok("committed and up to date".to_owned())
}

/// Cargo brings the file up to date before this program starts, so a stale one shows as the only
/// change.
fn was_out_of_date(changed: &str) -> bool {
    let changes = |file: &str| changed.lines().any(|line| line.ends_with(file));
    changes("Cargo.lock") && !changes("Cargo.toml")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_file_that_changed_alone_was_out_of_date() {
        assert!(was_out_of_date(" M Cargo.lock\n"));
        assert!(!was_out_of_date(" M Cargo.lock\n M core/Cargo.toml\n"));
        assert!(!was_out_of_date(" M core/Cargo.toml\n"));
        assert!(!was_out_of_date(""));
    }
}
