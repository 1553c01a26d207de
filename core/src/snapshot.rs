//! Snapshots: a state at a version, kept beside the log so that the long replay can be skipped.
//! Never needed for correctness.

use bytes::Bytes;

use crate::stream::{StreamId, Version};

/// A folded state of a stream.
///
/// ```
/// use annals_core::{FoldId, Snapshot, StreamId, Version};
///
/// let fold = FoldId::new("bank::Account", 1);
/// let snapshot = Snapshot::new(
///     StreamId::new("account-1")?, fold, Version::new(100), "json", b"{}".as_slice(),
/// );
/// assert_eq!(snapshot.version, Version::new(100));
/// # Ok::<_, annals_core::Invalid>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The stream.
    pub stream: StreamId,
    /// What folded it.
    pub fold: FoldId,
    /// The version of the last event in it.
    pub version: Version,
    /// How the state is written.
    pub codec: String,
    /// The state.
    pub payload: Bytes,
}

impl Snapshot {
    /// A state of `stream` at `version`.
    pub fn new(
        stream: StreamId,
        fold: FoldId,
        version: Version,
        codec: impl Into<String>,
        payload: impl Into<Bytes>,
    ) -> Snapshot {
        Snapshot {
            stream,
            fold,
            version,
            codec: codec.into(),
            payload: payload.into(),
        }
    }
}

/// Which fold a state came from: a changed fold has another version and ignores old snapshots.
///
/// ```
/// use annals_core::FoldId;
///
/// assert_ne!(FoldId::new("Account", 1), FoldId::new("Account", 2));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_structs)]
pub struct FoldId {
    /// The name of the folded type.
    pub name: String,
    /// The version of the fold.
    pub version: u32,
}

impl FoldId {
    /// The fold `name` in its `version`.
    pub fn new(name: impl Into<String>, version: u32) -> FoldId {
        FoldId {
            name: name.into(),
            version,
        }
    }
}
