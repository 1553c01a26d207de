//! The words of Annals, the contracts of its stores, and the loop that decides.
//!
//! Programs use the facade, the crate `annals`; authors of backends and tools use this one. Start at [`EventStore`], then read
//! [`MemoryStore`], the reference implementation of every trait.

mod aggregate;
mod annals;
mod append;
mod clock;
mod codec;
mod companion;
#[cfg(feature = "conformance")]
pub mod conformance;
mod context;
mod decide;
pub mod derive;
mod error;
mod event;
mod generation;
mod inline;
mod kinds;
mod lease;
mod memory;
mod moment;
mod own_tables;
mod position;
mod query;
mod read;
mod recognise;
mod replay;
mod retry;
mod snapshot;
mod store;
mod stream;
mod stream_state;
mod tag;
#[cfg(feature = "testing")]
pub mod testing;
mod typed;
mod view_commit;
mod view_store;

pub use aggregate::{
    Aggregate, AggregateRef, At, CommandError, Done, Handle, History, HistoryEntry, HistoryPage,
    Load, LoadError, Loaded, Run, Snapshots,
};
pub use annals::Annals;
pub use append::{
    Append, AppendError, AppendStreams, Appended, Condition, Expected, IdClash, Limits, Placed,
    Violation,
};
pub use chrono;
pub use clock::{Clock, CountedIds, IdSource, ManualClock, RandomIds, SystemClock};
pub use codec::{Codec, CodecError, Json};
pub use companion::Companion;
pub use context::with_metadata;
pub use decide::{Boundary, Decide, Emit, EmitError, Emits, Fold, IntoDecision, Over, Part};
pub use error::{Failure, Invalid, StoreError};
pub use event::{Digest, EventId, Metadata, NewEvent, Place, RecordedEvent, to_microseconds};
pub use generation::{Generation, GenerationId, GenerationSpec, Keeps, Phase, VIEW_SLOTS_MAX};
pub use inline::{InlineViews, PreparedRow, PreparedVersion, RowStep, StandingRow, StepMeets};
pub use kinds::{AggregateKind, EventKind, ShowError, ShownEvent, ShownState};
pub use lease::{Acquired, Lease, LeaseState, Leases};
pub use memory::MemoryStore;
pub use moment::{Instant, Moment};
pub use own_tables::{OwnTables, TableWork};
pub use position::{Head, LogId, Partition, Position, Token};
pub use query::{Filter, Query, QueryItem};
pub use read::{
    Direction, LogPage, PAGE_BYTES_MAX, PAGE_EVENTS, ReadLog, ReadQuery, ReadStream, Shown,
    StreamPage,
};
pub use recognise::{Known, Recognised, recognise};
pub use replay::{Events, Pages, ReplayError, TypedPages};
pub use retry::Retries;
pub use snapshot::{FoldId, Snapshot};
pub use store::{AtomicStreams, EventStore, Found, Hint, Log, SnapshotStore, Store, TaggedStore};
pub use stream::{StreamId, Version};
pub use stream_state::{Deletion, Status, StreamChange, StreamState};
pub use tag::Tag;
pub use typed::{
    DecodeError, Decoded, EncodeError, Encoded, Event, IntoEvents, Recorded, Shape, Stored,
    Undecodable,
};
pub use view_commit::{
    Checkpoint, CommitError, Parked, RowChange, RowVersion, VIEW_KEY_BYTES_MAX, Verdict,
    ViewCommit, ViewRow,
};
pub use view_store::{PastRow, ReadRows, RowPlace, RowsBy, RowsPage, ViewStore};
