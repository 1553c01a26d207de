//! Marks: how far a source was taken in, as the last event of each append.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use annals_core::{
    EventId, Invalid, NewEvent, Position, ReadStream, Store, StoreError, StreamId, Version,
};
use serde::{Deserialize, Deserializer, Serialize};

use super::Placed;
use crate::lsn::Lsn;

/// The stored name of marks.
pub(super) const MARK: &str = "cdc.mark";

/// How far a source was taken in. What is durable up to a mark is exactly what the mark says: both
/// are in one append.
///
/// ```
/// use annals_cdc::{Lsn, Mark, Resume};
///
/// let mut mark = Mark::begun("postgres 7 timeline 1 slot annals_shop");
/// mark.resume = Some(Resume::Lsn(Lsn::new(7)));
/// let text = serde_json::to_string(&mark)?;
/// assert_eq!(serde_json::from_str::<Mark>(&text)?, mark);
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Mark {
    /// Which source it is.
    pub source: Arc<str>,
    /// Where to go on; nothing before the first transaction.
    #[serde(default)]
    pub resume: Option<Resume>,
    /// Which part of a transaction is in, when it is not in whole.
    #[serde(default)]
    pub partial: Option<Partial>,
    /// How far a snapshot is, until it is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotMark>,
    /// The version of the decisions of operators that were followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided: Option<Version>,
    /// The version of the last request to read tables again that is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_again: Option<Version>,
    /// The last record of each partition, when others may be equal to it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) equal: EqualRecords,
    /// Of a source that follows a log or a file: what tells it from another one in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) followed: Option<Followed>,
    /// Truncates of which a part is in.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) unfinished: BTreeSet<EventId>,
    /// The transactions that end in its append.
    #[serde(default)]
    pub transactions: u64,
    /// The events of its append, without itself.
    #[serde(default)]
    pub events: u64,
}

/// Records of a source that says nothing by which to tell one from the next, such as rows without
/// a key at one position: by partition, the last one.
pub(crate) type EqualRecords = BTreeMap<u32, EqualRecord>;

/// The last of records that are equal but for how many of them there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EqualRecord {
    /// What is the same of all of them.
    pub(crate) of: String,
    /// How many have come in a row.
    pub(crate) count: u64,
}

/// What tells a log or a file that was taken from another one in its place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Followed {
    /// How many partitions the log had.
    pub(crate) partitions: u32,
    /// Of each partition: the last event that was taken, or an id of the last line.
    pub(crate) last: BTreeMap<u32, EventId>,
}

/// Where one goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Resume {
    /// After this position in a write-ahead log.
    Lsn(Lsn),
    /// After these positions, by partition.
    #[serde(deserialize_with = "by_partition")]
    Positions(BTreeMap<u32, u64>),
}

/// Names of members are texts, also where they are numbers.
fn by_partition<'de, D: Deserializer<'de>>(source: D) -> Result<BTreeMap<u32, u64>, D::Error> {
    let named = BTreeMap::<String, u64>::deserialize(source)?;
    let numbered = named.into_iter().map(|(partition, position)| {
        let partition = partition.parse().map_err(serde::de::Error::custom)?;
        Ok((partition, position))
    });
    numbered.collect()
}

impl Resume {
    /// The position in a write-ahead log, when it is one.
    ///
    /// ```
    /// use annals_cdc::{Lsn, Resume};
    ///
    /// assert_eq!(Resume::Lsn(Lsn::new(7)).lsn(), Some(Lsn::new(7)));
    /// ```
    pub const fn lsn(&self) -> Option<Lsn> {
        match self {
            Resume::Lsn(lsn) => Some(*lsn),
            Resume::Positions(_) => None,
        }
    }
}

/// A part of a transaction.
///
/// ```
/// # fn example(partial: annals_cdc::Partial) {
/// println!("up to record {} of {}", partial.through, partial.commit);
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::exhaustive_structs)]
pub struct Partial {
    /// The commit of the transaction.
    pub commit: Lsn,
    /// So many of its records are in.
    pub through: u64,
}

/// A snapshot that is not complete.
///
/// ```
/// # fn example(snapshot: annals_cdc::SnapshotMark) {
/// println!("{} rows", snapshot.rows);
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::exhaustive_structs)]
pub struct SnapshotMark {
    /// The LSN that it shows; nothing while it is only about to be taken.
    pub point: Option<Lsn>,
    /// The rows that are in.
    pub rows: u64,
    /// What was known before it was begun: after this LSN the history has a gap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Lsn>,
}

impl Mark {
    /// Before anything was taken.
    pub fn begun(source: impl Into<Arc<str>>) -> Mark {
        Mark {
            source: source.into(),
            resume: None,
            partial: None,
            snapshot: None,
            decided: None,
            read_again: None,
            equal: EqualRecords::new(),
            followed: None,
            unfinished: BTreeSet::new(),
            transactions: 0,
            events: 0,
        }
    }

    /// Goes on where the last one does.
    pub(super) fn resumes_as(&mut self, last: Option<&Mark>) {
        self.resume = last.and_then(|last| last.resume.clone());
        self.equal = last.map_or_else(Default::default, |last| last.equal.clone());
        self.followed = last.and_then(|last| last.followed.clone());
    }

    /// As an event.
    ///
    /// # Errors
    ///
    /// Never: its content is plain.
    pub fn event(&self) -> Result<NewEvent, Invalid> {
        let payload = serde_json::to_vec(self)
            .map_err(|error| Invalid::new(format!("a mark cannot be written: {error}")))?;
        Ok(NewEvent::json(MARK, payload).id(EventId::random()))
    }
}

/// The event that says what the history does not have: what happened between two LSNs of the
/// source, before a snapshot that was not the first. Nothing when it has all. A server whose LSN is
/// lower is another one, or was restored.
pub(super) fn gap(
    name: &str,
    after: Option<Lsn>,
    up_to: Option<Lsn>,
) -> Result<Option<Placed>, Invalid> {
    let (Some(after), Some(up_to)) = (after, up_to) else {
        return Ok(None);
    };
    if up_to == after {
        return Ok(None);
    }
    let payload = serde_json::json!({ "after": after, "up_to": up_to }).to_string();
    let event = NewEvent::json("cdc.gap", payload).id(EventId::random());
    Ok(Some((StreamId::any(format!("$cdc_gap-{name}"))?, event)))
}

/// The stream of the marks of an ingest.
///
/// # Errors
///
/// [`Invalid`] for a name that no stream may have.
///
/// ```
/// assert_eq!(annals_cdc::mark_stream("shop")?.as_str(), "$cdc-shop");
/// # Ok::<_, annals_core::Invalid>(())
/// ```
pub fn mark_stream(name: &str) -> Result<StreamId, Invalid> {
    if name.is_empty() {
        return Err(Invalid::new("an ingest without a name"));
    }
    StreamId::any(format!("$cdc-{name}"))
}

/// The last mark of an ingest, and the version of its stream.
///
/// # Errors
///
/// When the store cannot answer, or holds a mark that this program cannot read.
///
/// ```
/// # async fn example(db: annals_core::Annals) -> Result<(), annals_core::StoreError> {
/// let (version, mark) = annals_cdc::last_mark(db.store().as_ref(), "shop").await?;
/// # Ok(())
/// # }
/// ```
pub async fn last_mark(
    store: &dyn Store,
    name: &str,
) -> Result<(Version, Option<Mark>), StoreError> {
    let stream = mark_stream(name)?;
    let read = ReadStream::of(stream.clone()).backward().limit(1);
    let page = store.read_stream(read).await?;
    let version = page.state.version;
    let Some(event) = page.events.first() else {
        return Ok((version, None));
    };
    let mark = serde_json::from_slice(&event.payload).map_err(|error| {
        Invalid::new(format!(
            "the mark at version {version} of `{stream}` cannot be read: a newer program wrote \
             it; use that one"
        ))
        .because_of(error)
    })?;
    Ok((version, Some(mark)))
}

/// After which position rows were read by tries of the copy that comes next, none of which came to
/// its end: that of the first of their marks. Nothing when this is the first try since operators
/// asked for a copy of all tables, under the version `asked`.
pub(super) async fn copy_tried_after(
    store: &dyn Store,
    name: &str,
    asked: Option<Version>,
) -> Result<Option<Position>, StoreError> {
    let mut tried = None;
    let mut read = ReadStream::of(mark_stream(name)?).backward().limit(500);
    loop {
        let page = store.read_stream(read.clone()).await?;
        for event in &page.events {
            let mark = serde_json::from_slice::<Mark>(&event.payload).ok();
            let is_of_try = |mark: &Mark| mark.snapshot.is_some() && mark.decided >= asked;
            if !mark.as_ref().is_some_and(is_of_try) {
                return Ok(tried);
            }
            tried = Some(event.position);
        }
        match page.next {
            Some(next) => read = read.resume(next),
            None => return Ok(tried),
        }
    }
}

trait BecauseOf {
    fn because_of(self, error: serde_json::Error) -> StoreError;
}

impl BecauseOf for Invalid {
    fn because_of(self, error: serde_json::Error) -> StoreError {
        StoreError::from(self).because(error)
    }
}
