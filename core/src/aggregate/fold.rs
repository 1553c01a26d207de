//! From a stream to a state: the snapshot, then the tail, in pages.

use std::any::type_name;

use super::{Aggregate, Snapshots};
use crate::append::Expected;
use crate::codec::CodecError;
use crate::contain::{Panicked, net, said};
use crate::error::{Invalid, StoreError};
use crate::event::RecordedEvent;
use crate::position::{Incarnation, Partition, Position};
use crate::read::ReadStream;
use crate::store::Store;
use crate::stream::{StreamId, Version};
use crate::stream_state::{Status, StreamState};
use crate::typed::{Stored, Undecodable, decode};

/// Why a state could not be read.
///
/// ```
/// # fn example(error: annals_core::LoadError) {
/// println!("{error}");
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The question can never be answered as put: an illegal id, a text that is no time.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The stream has not come so far.
    #[error("stream `{stream}` is at {version}, version {asked} was asked for")]
    VersionPastEnd {
        /// The stream.
        stream: StreamId,
        /// What was asked for.
        asked: Version,
        /// How far it has come.
        version: Version,
    },
    /// What would have to be folded was removed for good.
    #[error("the events of stream `{stream}` before version {first} were archived")]
    Archived {
        /// The stream.
        stream: StreamId,
        /// The first version that is left.
        first: Version,
    },
    /// An event in the stream cannot be read. Nothing is folded without it.
    #[error(transparent)]
    Undecodable(#[from] Undecodable),
    /// `apply` or `default` of the state panicked, or what looked at it. Nothing is folded past it.
    #[error(transparent)]
    Panicked(#[from] Panicked),
    /// The store could not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A state, and the version of its stream that it is of.
pub struct CachedState<A> {
    pub(crate) state: A,
    pub(crate) version: Version,
    pub(crate) status: Status,
    pub(crate) partition: Partition,
    /// How far the log went when it was read.
    pub(crate) position: Position,
    /// Events folded since the last snapshot.
    pub(crate) unsaved: u64,
    /// The incarnation that it was read from; nothing before anything was read.
    pub(crate) incarnation: Option<Incarnation>,
}

impl<A> CachedState<A> {
    /// The state alone, and what is known of it.
    pub(crate) fn split(self) -> (A, CachedState<()>) {
        self.exchange(())
    }

    fn exchange<B>(self, state: B) -> (A, CachedState<B>) {
        let known = CachedState {
            state,
            version: self.version,
            status: self.status,
            partition: self.partition,
            position: self.position,
            unsaved: self.unsaved,
            incarnation: self.incarnation,
        };
        (self.state, known)
    }
}

impl CachedState<()> {
    /// The other way of [`split`](CachedState::split).
    pub(crate) fn with<A>(self, state: A) -> CachedState<A> {
        self.exchange(state).1
    }
}

impl<A: Aggregate> CachedState<A> {
    fn before_anything() -> Result<CachedState<A>, Panicked> {
        CachedState::emptied_at(Version::NONE)
    }

    /// The state of a stream that was emptied at `version`: that of an absent one.
    pub(crate) fn emptied_at(version: Version) -> Result<CachedState<A>, Panicked> {
        let code = || format!("`default` of `{}`", type_name::<A>());
        Ok(CachedState::of(net(code, A::default)?, version))
    }

    fn of(state: A, version: Version) -> CachedState<A> {
        CachedState {
            state,
            version,
            status: Status::Absent,
            partition: Partition(0),
            position: Position::START,
            unsaved: 0,
            incarnation: None,
        }
    }

    /// Takes in what was appended just now. When the fold panics the state is no use any more; the
    /// next one who reads the stream is told.
    pub(crate) fn take_in(&mut self, stream: &StreamId, events: &[A::Event]) -> bool {
        let apply = || events.iter().for_each(|event| self.state.apply(event));
        let code = || format!("`apply` of `{}`", type_name::<A>());
        net(code, apply)
            .inspect_err(|panicked| {
                tracing::error!(%stream, %panicked, "what was recorded cannot be folded");
            })
            .is_ok()
    }

    /// What an append must find for a decision on this state to hold.
    pub(crate) fn expected(&self) -> Expected {
        match self.status {
            Status::Active => Expected::ActiveAt(self.version),
            _ => Expected::Version(self.version),
        }
    }

    /// Whether the later events of its stream lead on from it. They do not when the
    /// stream never came so far (a snapshot of another log), or when events in between were
    /// archived: then the summary is where a fold starts.
    pub(crate) fn can_go_on_in(&self, state: &StreamState) -> bool {
        self.version == Version::NONE
            || (state.archived_before..=state.version).contains(&self.version)
    }

    /// Takes in events of the stream, as far as `counts` says; answers how many did.
    pub(crate) fn apply(
        &mut self,
        events: &[RecordedEvent],
        counts: impl Fn(&RecordedEvent) -> bool,
    ) -> Result<usize, LoadError> {
        let mut counted = 0;
        for record in events {
            if counts(record) {
                counted += 1;
                let decoded = decode::<A::Event>(Stored::from(record))
                    .map_err(|source| Undecodable::new(record, source))?;
                let apply = || {
                    for event in decoded {
                        self.state.apply(&event);
                    }
                };
                net(|| applying::<A>(record), apply)?;
            }
            self.version = record.version;
            self.unsaved += 1;
        }
        Ok(counted)
    }
}

/// Brings a state up to the tail of its stream: the one held, or the newest snapshot, or none.
pub(crate) async fn catch_up<A: Aggregate>(
    store: &dyn Store,
    stream: &StreamId,
    held: Option<CachedState<A>>,
) -> Result<CachedState<A>, LoadError> {
    // Asked before anything is read: what is read after a change belongs to no older incarnation.
    let incarnation = store.incarnation();
    let mut held = match held.filter(|held| held.incarnation == Some(incarnation)) {
        Some(held) => held,
        None => from_snapshot(store, stream, Version::MAX)
            .await
            .map_or_else(CachedState::before_anything, Ok)?,
    };
    let mut read = ReadStream::of(stream.clone())
        .from(held.version.next())
        .everything();
    loop {
        let page = store.read_stream(read.clone()).await?;
        if !held.can_go_on_in(&page.state) {
            held = CachedState::before_anything()?;
            read = read.from(Version::FIRST);
            continue;
        }
        let emptied = page.state.emptied_at(|_| true);
        if emptied > Version::NONE && emptied >= held.version {
            held = CachedState::emptied_at(emptied)?;
        }
        let known = page
            .events
            .partition_point(|event| event.version <= emptied);
        held.apply(&page.events[known..], |_| true)?;
        held.status = page.state.status;
        held.position = page.head;
        held.partition = store.partition_of(stream);
        match page.next {
            Some(next) => read = read.from(next.max(held.version.next())),
            None => {
                held.version = held.version.max(page.state.version);
                held.incarnation = Some(incarnation);
                return Ok(held);
            }
        }
    }
}

/// The newest usable snapshot. One that cannot be read is passed over: it only costs time.
pub(crate) async fn from_snapshot<A: Aggregate>(
    store: &dyn Store,
    stream: &StreamId,
    at_most: Version,
) -> Option<CachedState<A>> {
    let policy = policy::<A>()?;
    let snapshots = store.snapshots()?;
    let found = match snapshots
        .newest_snapshot(stream, &policy.fold(), at_most)
        .await
    {
        Ok(found) => found?,
        Err(error) => {
            tracing::warn!(%stream, %error, "cannot read a snapshot; the stream is read instead");
            return None;
        }
    };
    match read(&policy, &found.payload) {
        Ok(state) => Some(CachedState::of(state, found.version)),
        Err(error) => {
            let version = found.version.get();
            tracing::warn!(%stream, version, %error, "a snapshot is unreadable; the stream is read \
                instead");
            None
        }
    }
}

/// Keeps a snapshot when the last one is old enough. Failing at it is no failure of the command.
pub(crate) async fn save_snapshot<A: Aggregate>(
    store: &dyn Store,
    stream: &StreamId,
    held: &mut CachedState<A>,
) {
    let (Some(policy), Some(snapshots)) = (policy::<A>(), store.snapshots()) else {
        return;
    };
    if held.unsaved < policy.every {
        return;
    }
    let snapshot = match snapshot_of(&policy, stream, held) {
        Ok(snapshot) => snapshot,
        Err(error) => {
            return tracing::warn!(%stream, %error, "the state cannot be written as a snapshot");
        }
    };
    match snapshots.save_snapshot(snapshot).await {
        Ok(()) => held.unsaved = 0,
        Err(error) => tracing::warn!(%stream, %error, "a snapshot was not kept"),
    }
}

/// Which fold it is, and of which event.
pub(crate) fn applying<A>(record: &RecordedEvent) -> String {
    format!(
        "`apply` of `{}` at event `{}`, version {} of stream `{}` (position {}),",
        type_name::<A>(),
        record.event_type,
        record.version,
        record.stream,
        record.position
    )
}

/// Whether and how snapshots are kept; not at all, when that cannot be said.
fn policy<A: Aggregate>() -> Option<Snapshots<A>> {
    net(
        || format!("`snapshots` of `{}`", type_name::<A>()),
        A::snapshots,
    )
    .inspect_err(|panicked| tracing::warn!(%panicked, "no snapshots are kept"))
    .unwrap_or_default()
}

fn read<A>(policy: &Snapshots<A>, bytes: &[u8]) -> Result<A, CodecError> {
    said(|| (policy.read)(bytes)).unwrap_or_else(|panic| Err(CodecError::new(panic)))
}

fn write<A>(policy: &Snapshots<A>, state: &A) -> Result<Vec<u8>, CodecError> {
    said(|| (policy.write)(state)).unwrap_or_else(|panic| Err(CodecError::new(panic)))
}

/// Reads a written state back, once, where it is made: a state that changes on the way is no
/// snapshot.
fn check_reads_back<A>(policy: &Snapshots<A>, written: &[u8]) -> Result<(), CodecError> {
    let again = write(policy, &read(policy, written)?)?;
    if again == written {
        return Ok(());
    }
    let [before, after] = [written, &again].map(serde_json::from_slice::<serde_json::Value>);
    let field = match (before, after) {
        (Ok(before), Ok(after)) => first_difference(&before, &after),
        _ => None,
    };
    // Maps may be written in another order each time; what counts are the values.
    match field {
        None => Ok(()),
        Some(field) => Err(CodecError::new(format!(
            "field `{field}` does not come back as it was written"
        ))),
    }
}

/// The path of the first value that differs.
fn first_difference(one: &serde_json::Value, other: &serde_json::Value) -> Option<String> {
    use serde_json::Value;
    let below = |key: &str, one: Option<&Value>, other: Option<&Value>| match (one, other) {
        (Some(one), Some(other)) => first_difference(one, other).map(|path| match &*path {
            "" => key.to_owned(),
            path => format!("{key}.{path}"),
        }),
        _ => Some(key.to_owned()),
    };
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let keys = one.keys().chain(other.keys());
            keys.into_iter()
                .find_map(|key| below(key, one.get(key), other.get(key)))
        }
        (Value::Array(one), Value::Array(other)) => {
            let items = 0..one.len().max(other.len());
            items
                .into_iter()
                .find_map(|at| below(&at.to_string(), one.get(at), other.get(at)))
        }
        (one, other) => (one != other).then(String::new),
    }
}

fn snapshot_of<A: Aggregate>(
    policy: &Snapshots<A>,
    stream: &StreamId,
    held: &CachedState<A>,
) -> Result<crate::Snapshot, CodecError> {
    let payload = write(policy, &held.state)?;
    check_reads_back(policy, &payload)?;
    Ok(crate::Snapshot::new(
        stream.clone(),
        policy.fold(),
        held.version,
        "json",
        payload,
    ))
}
