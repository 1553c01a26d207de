//! What differs, and what to do about it, in words.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

/// What is stored, or how it is folded, is not what the file says.
///
/// It displays as everything that differs, each with what to do.
///
/// ```
/// use annals_core::testing::{EventsLock, Update};
///
/// let path = std::env::temp_dir().join("no-such-directory").join("events.lock");
/// EventsLock::at(path).verify(Update::Nothing)?; // No events, no file: nothing differs.
/// # Ok::<_, annals_core::testing::Drift>(())
/// ```
#[derive(Debug)]
pub struct Drift {
    path: PathBuf,
    differences: Vec<String>,
}

impl Drift {
    pub(super) fn new(path: &Path, differences: Vec<String>) -> Drift {
        Drift {
            path: path.to_owned(),
            differences,
        }
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "what is stored is not what {} says", self.path.display())?;
        self.differences
            .iter()
            .try_for_each(|difference| write!(f, "\n\n{difference}"))
    }
}

impl Error for Drift {}

/// The error with its causes.
pub(super) fn explained(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", explained(source)),
        None => error.to_string(),
    }
}

const UNRELEASED: &str = "If none was ever stored outside of tests: ANNALS_UPDATE=force.";

/// A current shape is not the one that stands in the file.
pub(super) fn shape(event_type: &str, version: u32, what: &str, was: &str, is: &str) -> String {
    let next = version.saturating_add(1);
    format!(
        "`{event_type}` v{version} {what}:\n    was {was}\n    is  {is}\n\
         Events of v{version} may be stored as they were. Keep the shape, or make it a new one \
         that reads them: \
         `#[event(version = {next}, upcast({version} = …))]`,\n\
         with a function from a type that has the old fields. {UNRELEASED}"
    )
}

/// A stored sample of an older version cannot be read.
pub(super) fn unreadable(event_type: &str, version: u32, content: &str, why: &str) -> String {
    format!(
        "`{event_type}` v{version} cannot be read any more:\n    {content}\n    {why}\n\
         Events like this may be stored. Let the type that its upcaster takes be what it was."
    )
}

/// An event type in the file that nothing reads.
pub(super) fn unread(event_type: &str, version: u32) -> String {
    format!(
        "`{event_type}` v{version} is in the file, and nothing reads it.\n\
         Events of it may be stored. If it was renamed, keep its name: `#[event(name = \
         \"{event_type}\")]`; if its variant is gone, say what \
         became of it:\n\
         `#[event(retired(\"{event_type}\", version = {version}, upcast = …))]`, with a function \
         that may return `None`. {UNRELEASED}"
    )
}

/// A current shape that is not in the file.
pub(super) fn new_shape(event_type: &str, version: u32) -> String {
    format!("`{event_type}` v{version} is new. To add it: ANNALS_UPDATE=1 cargo test.")
}

/// A current shape that has only grown.
pub(super) fn grown(event_type: &str, version: u32, was: &str, is: &str) -> String {
    format!(
        "`{event_type}` v{version} has grown, and reads what is stored:\n    was {was}\n    is  \
         {is}\n\
         To add it: ANNALS_UPDATE=1 cargo test."
    )
}

/// A sample that is not in the file.
pub(super) fn new_sample(event_type: &str, version: u32, content: &str) -> String {
    format!(
        "`{event_type}` v{version} has a new sample:\n    {content}\nTo add it: ANNALS_UPDATE=1 \
         cargo test."
    )
}

/// A current shape without a sample.
pub(super) fn no_sample(event_type: &str, version: u32) -> String {
    format!(
        "`{event_type}` v{version} has no sample. Give one to `EventsLock::events`, so that its \
         bytes can be pinned."
    )
}

/// A fold gives another state.
pub(super) fn fold(name: &str, version: u32, was: &str, is: &str) -> String {
    let next = version.saturating_add(1);
    format!(
        "The fold `{name}` v{version} gives another state over the same stored events:\n{}\
         What was kept of it (snapshots, read models) is not what it would be now. Take the change \
         back, or make it v{next}: \
         `Snapshots::fold_version({next})`,\n\
         or the number given to `EventsLock::fold`. If nothing was ever kept outside of tests: \
         ANNALS_UPDATE=force.",
        line_by_line(was, is)
    )
}

/// A fold that has gone back.
pub(super) fn older_fold(name: &str, version: u32, pinned: u32) -> String {
    format!(
        "The fold `{name}` is v{version}, and the file has seen v{pinned}. Versions only rise: \
         make it v{}.",
        pinned.saturating_add(1)
    )
}

/// A fold that cannot go over its history.
pub(super) fn broken_fold(name: &str, version: u32, why: &str) -> String {
    format!("The fold `{name}` v{version} has no stable state over the stored events: {why}.")
}

/// A fold in the file that the test does not name.
pub(super) fn lost_fold(name: &str, version: u32) -> String {
    format!(
        "The fold `{name}` v{version} is in the file and not in the test. When it is gone for \
         good, take its entry out of the file."
    )
}

/// A fold that is not in the file, or not over all samples.
pub(super) fn new_fold(name: &str, version: u32) -> String {
    format!("The fold `{name}` v{version} is new. To add it: ANNALS_UPDATE=1 cargo test.")
}

/// A fold whose history lacks samples.
pub(super) fn longer_fold(name: &str, version: u32) -> String {
    format!(
        "The fold `{name}` v{version} has new samples to go over. To add them: ANNALS_UPDATE=1 \
         cargo test."
    )
}

/// Old and new, the lines that they begin and end with in common left out but for one.
fn line_by_line(was: &str, is: &str) -> String {
    let was: Vec<_> = was.lines().collect();
    let is: Vec<_> = is.lines().collect();
    let before = was
        .iter()
        .zip(&is)
        .take_while(|(was, is)| was == is)
        .count();
    let shorter = was.len().min(is.len()) - before;
    let after = was
        .iter()
        .rev()
        .zip(is.iter().rev())
        .take(shorter)
        .take_while(|(was, is)| was == is)
        .count();
    let of = |lines: &[&str], mark: &str| -> String {
        lines
            .iter()
            .map(|line| format!("    {mark} {line}\n"))
            .collect()
    };
    let context = of(&was[before.saturating_sub(1)..before], " ");
    context + &of(&was[before..was.len() - after], "-") + &of(&is[before..is.len() - after], "+")
}
