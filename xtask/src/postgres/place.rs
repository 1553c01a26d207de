//! Where private servers keep their files.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use super::account::Account;
use crate::program::target_directory;
use crate::stop::Stop;
use crate::terminal::say;

/// The directory of all private servers of this clone: `target/postgres`, or one of the system's
/// temporary files when the server's user cannot enter the first, as in a clone below root's home.
pub(crate) fn directory(account: &Account) -> Result<PathBuf, Stop> {
    let target = target_directory();
    let usual = target.join("postgres");
    make(&usual)?;
    if account.can_enter(&usual) {
        return Ok(usual);
    }
    let mut hasher = DefaultHasher::new();
    target.hash(&mut hasher);
    let name = format!("annals-postgres-{:08x}", hasher.finish() & 0xffff_ffff);
    let fallback = std::env::temp_dir().join(name);
    make(&fallback)?;
    if !is_ours(&fallback) || !account.can_enter(&fallback) {
        return Err(Stop::failed(format!(
            "the server's user can enter neither {} nor {}",
            usual.display(),
            fallback.display()
        )));
    }
    say!(
        "the server's user cannot enter {}: its files are in {}",
        target.display(),
        fallback.display()
    );
    Ok(fallback)
}

fn make(directory: &Path) -> Result<(), Stop> {
    std::fs::create_dir_all(directory)
        .map_err(|error| Stop::failed(format!("cannot make {}: {error}", directory.display())))
}

/// Whether root made it, who alone needs a fallback: names of temporary files can be guessed by
/// others.
#[cfg(unix)]
fn is_ours(directory: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(directory).is_ok_and(|found| found.is_dir() && found.uid() == 0)
}

#[cfg(not(unix))]
fn is_ours(_: &Path) -> bool {
    true
}
