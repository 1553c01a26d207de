//! What differs, and what to do about it, in words.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

use super::probe::Kind;

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
    crate::with_causes(error).to_string()
}

const UNRELEASED: &str = "If none was ever stored outside of tests: ANNALS_UPDATE=force.";

/// A current shape is not the one in the file.
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

/// The category of a pinned event type is no category of the program.
pub(super) fn category(event_type: &str, version: u32, was: &str, is: &[&str]) -> String {
    let is = is.join("`, `");
    format!(
        "`{event_type}` v{version} is in streams named `{was}-…`, and its category is `{is}` now.\n\
         Streams are found by their category: what is stored would not be loaded, and each stream \
         could be created once more.\n\
         Keep it: `#[event(category = \"{was}\")]`. {UNRELEASED}"
    )
}

/// Two types write one shape.
pub(super) fn two_writers(event_type: &str, version: u32, one: &str, other: &str) -> String {
    format!(
        "`{event_type}` v{version} is written by two types, `{one}` and `{other}`.\n\
         Events of one would be read as the other. Give one of them another name: \
         `#[event(name = \"…\")]`."
    )
}

/// No value of the test is written as a pinned sample any more.
pub(super) fn rewritten(event_type: &str, version: u32, was: &str, is: &str) -> String {
    format!(
        "`{event_type}` v{version} has a sample that no value in the test is written as:\n    was \
         {was}\n    is  {is}\n\
         If it is the same value, stored events would be read as other values (a unit or a name in \
         a nested type has changed):\n\
         take the change back, or make it a new version. If the test has other samples now, give \
         it the old ones too. {UNRELEASED}"
    )
}

/// Code reads less inside of a sample, or something else.
pub(super) fn inside(
    event_type: &str,
    version: u32,
    path: &str,
    kind: Kind,
    was: &str,
    is: Option<&str>,
) -> String {
    let (what, is) = match kind {
        Kind::Takes => ("takes other numbers", is.unwrap_or("none")),
        Kind::Of => ("has not all variants that it had", is.unwrap_or("none")),
        Kind::Absent => (
            "is filled in otherwise where it is absent",
            is.unwrap_or("an error"),
        ),
        Kind::Unknown => ("refuses fields that it ignored", is.unwrap_or("refused")),
    };
    format!(
        "`{event_type}` v{version}: `{path}` {what}:\n    was {was}\n    is  {is}\n\
         Stored events may depend on it. Let the nested type read what it read, or make the event \
         a new version. {UNRELEASED}"
    )
}

/// An upcaster makes something else of a stored sample.
pub(super) fn reading(
    event_type: &str,
    version: u32,
    content: &str,
    was: &str,
    is: &str,
) -> String {
    format!(
        "`{event_type}` v{version} becomes another event than it did:\n    {content}\n    was \
         {was}\n    is  {is}\n\
         What was decided and folded from it does not fit any more. Let its upcaster, and the type \
         that it takes, be what they were. {UNRELEASED}"
    )
}

/// An entry that is not as it was written.
pub(super) fn merged(entry: &str, path: &Path) -> String {
    let path = path.display();
    format!(
        "The entry `{entry}` is not as a test wrote it: it was edited, or two branches were merged \
         in it.\n\
         Take the whole file of one branch (`git checkout --ours -- {path}`, or `--theirs`), then \
         add what the other one has: ANNALS_UPDATE=1 cargo test.\n\
         If it was edited on purpose, take the line `sum` out of the entry."
    )
}

/// What becomes of an old version is not in the file.
pub(super) fn new_reading(event_type: &str, version: u32) -> String {
    format!(
        "`{event_type}` v{version} is old now, and what it becomes is not pinned. To add it: \
         ANNALS_UPDATE=1 cargo test."
    )
}

/// The category is not in the file.
pub(super) fn new_category(event_type: &str, version: u32) -> String {
    format!(
        "The category of `{event_type}` v{version} is not pinned. To add it: ANNALS_UPDATE=1 cargo \
         test."
    )
}

/// A nested type accepts more.
pub(super) fn grown_inside(event_type: &str, version: u32) -> String {
    format!(
        "`{event_type}` v{version} has nested types that have grown, or are not pinned. To add \
         them: ANNALS_UPDATE=1 cargo test."
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

/// Old and new, of the lines that they begin and end with in common only one each.
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
