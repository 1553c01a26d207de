//! The files of a run: what is read, what is written, and the store are three different ones.

use std::path::Path;

/// Refuses to write the alerts over the payments or over the store.
pub(crate) fn all_differ(payments: &Path, alerts: &Path, store: &str) -> Result<(), String> {
    let name = alerts.display();
    if is_same(payments, alerts) {
        return Err(format!(
            "{name} holds the payments; name another file for the alerts with `--out`"
        ));
    }
    let file = store.strip_prefix("sqlite:").unwrap_or_default();
    let file = file.split('?').next().unwrap_or_default();
    if is_same(Path::new(file.trim_start_matches("//")), alerts) || is_same(Path::new(file), alerts)
    {
        return Err(format!(
            "{name} is the store; name another file for the alerts with `--out`"
        ));
    }
    Ok(())
}

/// Whether two names lead to one file, by links of either kind too. A file that is not there yet is
/// no other one.
fn is_same(one: &Path, other: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let identity = |path: &Path| path.metadata().map(|of| (of.dev(), of.ino()));
        if let (Ok(one), Ok(other)) = (identity(one), identity(other)) {
            return one == other;
        }
    }
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => !one.as_os_str().is_empty() && one == other,
    }
}
