//! The words of Annals, the contracts of its stores, and the loop that decides.
//!
//! Programs use the facade, the crate `annals`; authors of backends and tools use this one. Start
//! at [`EventStore`], then read [`MemoryStore`], the reference implementation of every trait.

mod aggregate;
mod annals;
mod append;
mod backoff;
mod clock;
mod codec;
#[cfg(feature = "conformance")]
pub mod conformance;
mod contain;
mod context;
mod custom_tables;
mod decide;
mod deduplicate;
pub mod derive;
mod error;
mod event;
mod generation;
mod inline;
mod inline_projector;
mod kinds;
mod lease;
mod lossless;
mod memory;
mod moment;
mod outlet;
mod position;
mod query;
mod read;
mod read_only;
mod removed;
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
    Aggregate, AggregateRef, At, CommandError, Committed, FollowerAt, Handle, HistoryEntry,
    HistoryPage, Load, LoadError, LoadHistory, Loaded, Run, Snapshots,
};
pub use annals::Annals;
pub use append::{
    Append, AppendError, Appended, Condition, Expected, IdClash, Limits, Placed, Violation,
};
pub use backoff::Backoff;
pub use chrono;
pub use clock::{Clock, CountedIds, IdSource, ManualClock, RandomIds, SystemClock, time_of};
pub use codec::{Codec, CodecError, Json, Survival};
pub use contain::{Panicked, contained, contained_async};
pub use context::with_metadata;
pub use custom_tables::{CustomTables, InTransaction};
pub use decide::{
    Boundary, Decide, DecideInTwoLooks, Each, Emit, EmitError, Emits, Fold, IntoDecision, Over,
    Part,
};
pub use deduplicate::{Duplicate, StoredId, deduplicate};
pub use error::{Failure, Invalid, StoreError, panic_text, with_causes};
pub use event::{Digest, EventId, Metadata, NewEvent, Place, RecordedEvent, to_microseconds};
pub use generation::{Generation, GenerationId, GenerationSpec, History, Phase, VIEW_SLOTS_MAX};
pub use inline::{InlineRow, InlineRowVersion, InlineViews, RowAdvance, RowOutcome, VersionedRow};
pub use inline_projector::InlineProjector;
pub use kinds::{AggregateKind, EventKind, JsonText, ShowError, ShownEvent, ShownState};
pub use lease::{Acquired, Lease, LeaseState, Leases};
pub use memory::MemoryStore;
pub use moment::{Instant, Moment};
pub use outlet::{Outgoing, Outlet, OutletError, OutletMark};
pub use position::{Head, Incarnation, LogId, Partition, Position, Token};
pub use query::{Filter, Query, QueryItem};
pub use read::{
    Direction, LogPage, PAGE_BYTES_MAX, PAGE_EVENTS, ReadLog, ReadQuery, ReadStream, Shown,
    StreamPage,
};
pub use removed::{PAGE_REMOVED_MAX, Removed, RemovedEvent};
pub use replay::{Events, Pages, ReplayError, TypedPages};
pub use retry::Retries;
pub use snapshot::{FoldId, Snapshot};
pub use store::{Assignment, EventStore, Found, Hint, Log, SnapshotStore, Store, TaggedStore};
pub use stream::{StreamId, Version};
pub use stream_state::{ChangeStream, Deletion, Status, StreamChange, StreamState};
pub use tag::Tag;
pub use typed::{
    DecodeError, Decoded, EncodeError, Encoded, Event, IntoEvents, Recorded, Shape, Stored,
    Undecodable,
};
pub use view_commit::{
    Checkpoint, CommitError, DeadLetter, RowChange, RowVersion, STATE_KEY_BYTES_MAX, SkipDecision,
    VIEW_KEY_BYTES_MAX, ViewCommit, ViewRow,
};
pub use view_store::{
    DeadLetterStore, GenerationState, GenerationStore, PastRow, ReadRows, RowPlace, RowStore,
    RowsBy, RowsPage, ViewStore,
};
